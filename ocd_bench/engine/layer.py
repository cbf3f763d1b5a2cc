"""The layer whose weights differ from sample to sample: what it sees, and the model with every sample's own ΔW in it.

A sample's ΔW changes what follows the layer, never what lies below it. So the base runs once (:meth:`TargetLayer.trace`), and
each later run (:meth:`TargetLayer.forward`) replays what the modules below the layer gave, adds ``positions @ ΔW_sᵀ`` to the
layer's own output and computes the rest, for all samples at once. Only modules are replayed, not the functions called between
them (``F.relu``, ``torch.cat``): a model written in modules adapts faster.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine.deltas import Delta
from ocd_bench.engine.replay import Recording, record, rerun
from ocd_bench.errors import UsageError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Adaptable = nn.Linear | Convolution
ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LayerRefused(UsageError, ValueError):
    """The named layer cannot carry a weight change of its own for each sample; the message says why."""


@dataclass(eq=False)
class Trace:
    """One run of the base: what the layer saw and gave, and what is needed to run on from there. Holds no gradients.

    Attributes:
        inputs: what the model was given, ``(N, ...)``.
        output: what the model gave, ``(N, ...)``.
        model, layer: that were run.
        layer_input, layer_output: of the layer, in its own layout.
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

    @property
    def single(self) -> bool:
        """Whether the layer sees one position per sample (P == 1): gradients are then outer products with one vector."""
        return self.response.shape[1] == 1

    @cached_property
    def positions(self) -> Tensor:
        """The layer's input i_L as rows its weight matrix multiplies, ``(N, P, I)``: a view for Linear, patches for Conv."""
        rows = self.layer_input if isinstance(self.layer, nn.Linear) else unfold(self.layer, self.layer_input)
        return rows.reshape(len(self), -1, rows.shape[-1])

    @cached_property
    def response(self) -> Tensor:
        """The layer's own output a_L (bias included, before any activation function), ``(N, P, O)``."""
        rows = self.layer_output if isinstance(self.layer, nn.Linear) else self.layer_output.movedim(1, -1)
        return rows.reshape(len(self), -1, rows.shape[-1])

    def in_layout(self, rows: Tensor) -> Tensor:
        """``(N, P, O)`` back in the layout of ``layer_output``."""
        if isinstance(self.layer, nn.Linear):
            return rows.reshape(self.layer_output.shape)
        batch, channels, *grid = self.layer_output.shape
        return rows.reshape(batch, *grid, channels).movedim(-1, 1)


class TargetLayer:
    """The layer ``name`` of ``model``.

    Args:
        model: any module of one input tensor ``(N, ...)``, row j of whose output depends on row j of the input alone in
            eval mode. It is run in eval mode and left as it was found.
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

    @property
    def weight(self) -> Tensor:
        """The layer's weight as a matrix ``(O, I)``, without gradient; of a convolution I = channels x kernel."""
        return self.layer.weight.detach().flatten(1)

    @property
    def shape(self) -> tuple[int, int]:
        """``(O, I)``."""
        rows, columns = self.weight.shape
        return rows, columns

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
            called = f"is called {times} times" if times else "is not called"
            raise LayerRefused(f"layer {self.name!r} {called} in one forward pass of the model, not once")
        layer_input, layer_output = recording.entries[0]
        if reason := _layout_refusal(self.layer, layer_input, len(inputs)):
            raise LayerRefused(f"layer {self.name!r} {reason}")
        return Trace(inputs, recording.output, self.model, self.layer, layer_input, layer_output, recording)

    def forward(self, trace: Trace, delta: Delta) -> Tensor:
        """Output of the base with W + ΔW_s for every sample s of the trace, ``(N, ...)``, differentiable in ``delta``.

        The base is the one that made the trace, be it this one or another of its kind. Everything below the layer is replayed
        and carries no gradient.
        """
        if len(delta) != len(trace) or delta.shape != self.shape:
            raise ValueError(
                f"ΔW of {len(delta)} samples and shape {delta.shape} does not fit {len(trace)} samples and shape {self.shape}"
            )
        return self.replay(trace, delta.shift(trace.positions))

    def replay(self, trace: Trace, shift: Tensor) -> Tensor:
        """Output of the base with ``shift`` ``(N, P, O)`` added to the layer's response; differentiable in ``shift``."""

        def respond() -> Tensor:
            return trace.layer_output + trace.in_layout(shift).to(trace.layer_output.dtype)

        return rerun(trace.model, trace.layer, trace.inputs, trace.recording, respond)


def refusal(model: nn.Module, name: str, inputs: Tensor) -> str | None:
    """Why the layer cannot be adapted per sample on such inputs, or None if it can.

    Beyond what :class:`TargetLayer` and :meth:`TargetLayer.trace` refuse, this tries it out on the first three samples: rows
    that mix samples, or an output that does not follow the layer, are found here only. Give three samples or more.
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
        if not target.replay(trace, torch.zeros_like(trace.response).requires_grad_()).requires_grad:
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
    """Equal but for the rounding that another batch size brings."""
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()), equal_nan=True)
