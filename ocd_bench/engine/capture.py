"""Stage 1, capture: run the base once, and keep the input and output of the target layer, and I(x).

A sample's ΔW changes only what comes after the target layer. So the base runs once (:meth:`TargetLayer.trace`). Each later run
(:meth:`Trace.replay`) reuses the outputs of the modules and functions below the layer, adds ``positions @ ΔW_sᵀ`` to the
layer's own output and computes the rest, for all samples at once. In a model that overwrites its activations only outputs of
modules are reused; functions called between modules (``F.relu``, ``torch.cat``) are computed again.

I(x) = (i_L, a_L, f(x)) is the layer's input, the layer's activation and the model's output (paper section 3.1); see
:class:`Describe`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine._replay import Recording, record, rerun
from ocd_bench.errors import UsageError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Adaptable = nn.Linear | Convolution
ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

BUDGET = 2**26
"""Numbers (not bytes) that the positions and weight changes of one chunk of samples may take."""


class LayerRefused(UsageError, ValueError):
    """The named layer cannot be given per-sample weight changes; the message says why."""


@dataclass(eq=False)
class Trace:
    """One run of the base on N samples: the layer's input and output, and what later runs reuse. Without gradients.

    Attributes:
        inputs: the model's input, ``(N, ...)``.
        output: the model's output, ``(N, ...)``.
        model, layer: the model that ran, and its target layer.
        layer_input, layer_output: input and output of the layer, in its own layout.
    """

    inputs: Tensor
    output: Tensor
    model: nn.Module
    layer: Adaptable
    layer_input: Tensor
    layer_output: Tensor
    recording: Recording = field(repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def single(self) -> bool:
        """Whether the layer sees one position per sample (P = 1). Each gradient is then the outer product of two vectors."""
        return self.response.shape[1] == 1

    @cached_property
    def positions(self) -> Tensor:
        """The layer's input i_L as rows for its weight matrix, ``(N, P, I)``: a view for Linear, patches for Conv."""
        rows = self.layer_input if isinstance(self.layer, nn.Linear) else unfold(self.layer, self.layer_input)
        return rows.reshape(len(self), -1, rows.shape[-1])

    @cached_property
    def response(self) -> Tensor:
        """The layer's own output a_L (bias included, before any activation function), ``(N, P, O)``."""
        rows = self.layer_output if isinstance(self.layer, nn.Linear) else self.layer_output.movedim(1, -1)
        return rows.reshape(len(self), -1, rows.shape[-1])

    def replay(self, shift: Tensor) -> Tensor:
        """Output of the base, ``(N, ...)``, with ``shift`` ``(N, P, O)`` added to the layer's response.

        Differentiable in ``shift``. What lies below the layer is reused and carries no gradient.

        Raises:
            ValueError: if ``shift`` is of another shape than the response.
        """
        if shift.shape != self.response.shape:
            raise ValueError(f"a change {tuple(shift.shape)} does not fit the layer's response {tuple(self.response.shape)}")
        response = self.layer_output + self.in_layout(shift).to(self.layer_output.dtype)
        return rerun(self.model, self.layer, self.inputs, self.recording, response)

    def in_layout(self, rows: Tensor) -> Tensor:
        """``(N, P, O)`` back in the layout of ``layer_output``."""
        if isinstance(self.layer, nn.Linear):
            return rows.reshape(self.layer_output.shape)
        batch, channels, *grid = self.layer_output.shape
        return rows.reshape(batch, *grid, channels).movedim(-1, 1)


class TargetLayer:
    """The layer ``name`` of ``model``, whose weight may differ from sample to sample.

    Args:
        model: any module with one input tensor ``(N, ...)``. In eval mode, row j of its output must depend on row j of the
            input alone. The model runs in eval mode; its own mode is restored afterwards.
        name: dotted name of a Linear, Conv1d, Conv2d or Conv3d in it.

    Raises:
        LayerRefused: if there is no such layer, or none whose weight can be changed per sample.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        modules = dict(model.named_modules())
        names = [key for key, module in modules.items() if isinstance(module, ADAPTABLE)]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            kind = f"a {type(modules[name]).__name__}, not a Linear or Conv layer" if name in modules else "not in the model"
            raise LayerRefused(f"layer {name!r} is {kind}; nearest: {', '.join(near) or 'none (the model has no such layer)'}")
        self.model, self.name = model, name
        self.layer: Adaptable = modules[name]  # type: ignore[assignment]
        if reason := _static_refusal(model, self.layer):
            raise LayerRefused(f"layer {name!r} {reason}")
        self._rows: dict[tuple[int, ...], int] = {}

    @property
    def weight(self) -> Tensor:
        """The layer's weight as a matrix ``(O, I)``, without gradient; of a convolution I = channels x kernel."""
        return self.layer.weight.detach().flatten(1)

    @property
    def shape(self) -> tuple[int, int]:
        """``(O, I)``."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def device(self) -> torch.device:
        """The device of the layer's weight, where the base runs."""
        return self.layer.weight.device

    def rows(self, inputs: Tensor) -> int:
        """How many samples of this shape to handle at once: at most 1,024, fewer where :data:`BUDGET` demands it."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._rows:
            trace = self.trace(inputs[:1].to(self.device))
            outputs, columns = self.shape
            numbers = 2 * trace.positions.numel() + 4 * trace.response.numel()
            if not trace.single:
                numbers += 4 * outputs * columns
            self._rows[shape] = max(1, min(1024, BUDGET // numbers))
        return self._rows[shape]

    def traces(self, inputs: Tensor) -> Iterator[Trace]:
        """Traces of samples ``(N, ...)`` from any device, in chunks of :meth:`rows`."""
        for chunk in inputs.split(self._chunk(inputs)):
            yield self.trace(chunk.to(self.device))

    def pairs(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Trace, Tensor]]:
        """As :meth:`traces`, each with the targets of its samples on the layer's device."""
        answers = targets.split(self._chunk(inputs))
        for trace, some in zip(self.traces(inputs), answers, strict=True):
            yield trace, some.to(self.device)

    def _chunk(self, inputs: Tensor) -> int:
        """Samples of a trace: those that memory allows, or fewer where the model has one state for so many at once
        (:mod:`ocd_bench.compose`)."""
        return min(self.rows(inputs), getattr(self.model, "rows_at_once", 1024))

    def trace(self, inputs: Tensor) -> Trace:
        """Run the base on a batch ``(N, ...)``, in eval mode and without gradients, and record it.

        Raises:
            LayerRefused: if the layer is not called exactly once, or its input is not sample-major: ``(N, ...)`` or
                ``(N*k, ...)`` with the k rows of a sample together.
        """
        if inputs.is_inference():
            with torch.inference_mode(False):
                inputs = inputs.clone()
        recording = record(self.model, self.layer, inputs)
        if (times := len(recording.entries)) != 1:
            runs = f"runs {times} times" if times else "does not run"
            raise LayerRefused(f"layer {self.name!r} {runs} in one forward pass: only a layer that runs once can be adapted")
        layer_input, layer_output = recording.entries[0]
        if reason := _layout_refusal(self.layer, layer_input, len(inputs)):
            raise LayerRefused(f"layer {self.name!r} {reason}")
        return Trace(inputs, recording.output, self.model, self.layer, layer_input, layer_output, recording)


def flat(output: Tensor) -> Tensor:
    """``(N, ...)`` as ``(N, D)``."""
    return output.reshape(len(output), -1)


def pool(rows: Tensor) -> Tensor:
    """``(N, P, D)`` to ``(N, D)`` if P = 1, else mean and standard deviation over P, ``(N, 2 D)``."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    return torch.cat([rows.mean(1), rows.std(1, correction=0)], 1)


@dataclass(frozen=True)
class Describe:
    """I(x) of a trace, as named features of its N samples.

    ``input`` is ``(N, I)``, ``activation`` ``(N, O)`` and ``output`` ``(N, D)``. Where the layer sees several positions per
    sample (pixels, rays, frames), input and activation are their mean and standard deviation over the positions, ``(N, 2 I)``
    and ``(N, 2 O)``, so that their size does not depend on the number of positions.

    Args:
        output: the model's output as features ``(N, D)``.
        fixed: features of the samples themselves that need no training, given as ``sample``; None for none.
        parts: which of ``input``, ``activation`` and ``output`` are given.
    """

    output: Callable[[Tensor], Tensor] = flat
    fixed: Callable[[Tensor], Tensor] | None = None
    parts: tuple[str, ...] = ("input", "activation", "output")

    @torch.no_grad()
    def __call__(self, trace: Trace) -> dict[str, Tensor]:
        found = {
            "input": pool(trace.positions).float(),
            "activation": pool(trace.response).float(),
            "output": flat(self.output(trace.output)).float(),
        }
        found = {name: value for name, value in found.items() if name in self.parts}
        return found if self.fixed is None else {**found, "sample": flat(self.fixed(trace.inputs)).float()}


def refusal(model: nn.Module, name: str, inputs: Tensor) -> str | None:
    """Why the layer cannot be adapted per sample on such inputs, or None if it can.

    Beyond the checks of :class:`TargetLayer` and :meth:`TargetLayer.trace`, the first three samples are tried out. This finds
    rows that mix samples, and an output that does not depend on the layer. Give three samples or more.
    """
    batch = inputs[:3]
    others = [len(batch) - 1, 0]
    try:
        target = TargetLayer(model, name)
        trace, other = target.trace(batch), target.trace(batch[others])
    except LayerRefused as error:
        return str(error)
    if len(trace.output) != len(batch):
        return f"layer {name!r}: the model's output has {len(trace.output)} rows for {len(batch)} samples"
    for what, rows, again in (
        (f"layer {name!r} sees rows", trace.positions, other.positions),
        ("the model's output has rows", trace.output, other.output),
    ):
        if rows[others].shape != again.shape or not close(rows[others], again):
            return f"{what} that do not belong to one sample each (samples are mixed, or the layout is not sample-major)"
    with torch.inference_mode(False), torch.enable_grad():
        if not trace.replay(torch.zeros_like(trace.response).requires_grad_()).requires_grad:
            return f"no gradient reaches layer {name!r} from the model's output"
    return None


def candidates(model: nn.Module, inputs: Tensor) -> list[str]:
    """Names of the layers of ``model`` that can be adapted per sample on such inputs, in the model's order.

    Linear and Conv layers called once per forward pass, with a sample-major input and a weight of their own (:func:`refusal`).
    """
    names = [name for name, module in model.named_modules() if isinstance(module, ADAPTABLE)]
    return [name for name in names if refusal(model, name, inputs) is None]


def unfold(layer: Convolution, inputs: Tensor) -> Tensor:
    """Patches of a convolution's input, ``(N, C, *size) -> (N, *grid, C*prod(kernel))``: ``patches @ weight.flatten(1).T`` is
    the convolution without bias. Any stride, padding, padding mode and dilation, in one to three dimensions."""
    sides: list[int] = []
    for axis, (size, gap) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        if layer.padding == "same":
            before = gap * (size - 1) // 2
            sides = [before, gap * (size - 1) - before, *sides]  # F.pad wants the last dimension first
        elif layer.padding != "valid":
            sides = [int(layer.padding[axis])] * 2 + sides
    if any(sides):
        inputs = F.pad(inputs, sides, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    dimensions = len(layer.kernel_size)
    for axis in range(dimensions):
        gap = layer.dilation[axis]
        inputs = inputs.unfold(2 + axis, gap * (layer.kernel_size[axis] - 1) + 1, layer.stride[axis])[..., ::gap]
    return inputs.movedim(1, 1 + dimensions).flatten(1 + dimensions)


def _static_refusal(model: nn.Module, layer: Adaptable) -> str | None:
    if type(layer).forward not in {kind.forward for kind in ADAPTABLE}:
        return f"is a {type(layer).__name__} with a forward of its own: its output need not be weight times input"
    if getattr(layer, "groups", 1) > 1:
        return f"is a convolution in {layer.groups} groups: no one weight matrix acts on all of a position"
    weight = layer._parameters.get("weight")
    for name, module in model.named_modules():
        if module is not layer and weight is not None and any(own is weight for own in module._parameters.values()):
            return f"shares its weight with {name!r}: it could not be changed alone"
    return None


def _layout_refusal(layer: Adaptable, layer_input: Tensor, samples: int) -> str | None:
    shape = tuple(layer_input.shape)
    if layer_input.ndim < 2 or (not isinstance(layer, nn.Linear) and layer_input.ndim != layer.weight.ndim):
        return f"is given one input of shape {shape}, not a batch"
    if shape[0] == 0 or shape[0] % samples:
        return f"is given rows of shape {shape} for {samples} samples: the first size must be a multiple of the batch's"
    return None


def close(first: Tensor, second: Tensor) -> bool:
    """Equal up to the rounding errors that another batch size causes."""
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()), equal_nan=True)
