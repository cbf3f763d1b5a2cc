"""Stage 1, capture: run the base once, and keep the input and output of the target layer, and I(x).

A sample's ΔW changes only what comes after the target layer. So the base runs once (:meth:`TargetLayer.trace`). Each later run
(:meth:`Trace.replay`) reuses the outputs of the modules and functions below the layer, adds ``positions @ ΔW_sᵀ`` to the
layer's own output and computes the rest, for all samples at once. In a model that overwrites its activations only outputs of
modules are reused; functions called between modules (``F.relu``, ``torch.cat``) are computed again.

A layer may run several times in one forward pass (a loop over steps, a shared block). ΔW_s then acts in every call, and changes
what later calls see (:meth:`Trace.respond`). Weights inside attention and recurrent modules are layers too, see
:mod:`ocd_bench.engine.stand_ins`.

I(x) = (i_L, a_L, f(x)) is the layer's input, the layer's activation and the model's output (paper section 3.1); see
:class:`Describe`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine._replay import Recording, fused_attention, patched, quiet, record, rerun
from ocd_bench.engine.stand_ins import CallRefused, StandIn, inner_weights, stand_in
from ocd_bench.errors import UsageError
from ocd_bench.precision import full_float32

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
        target: the layer, in the model that ran.
        calls: input and output of the layer in each of its calls, in its own layout. One where it runs once.
    """

    inputs: Tensor
    output: Tensor
    target: TargetLayer
    recording: Recording = field(repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def calls(self) -> list[tuple[Tensor, Tensor]]:
        return self.recording.entries

    @property
    def repeated(self) -> bool:
        """Whether the layer runs several times in one forward pass."""
        return len(self.calls) > 1

    @cached_property
    def single(self) -> bool:
        """Whether the layer sees one position per sample (P = 1). Each gradient is then the outer product of two vectors."""
        return self.response.shape[1] == 1

    @cached_property
    def positions(self) -> Tensor:
        """The layer's input i_L as rows for its weight matrix, ``(N, P, I)``: a view for Linear, patches for Conv. P counts the
        positions of all calls, one call after the other."""
        return _joined([self.target.as_rows(given, len(self)) for given, _ in self.calls])

    @cached_property
    def response(self) -> Tensor:
        """The layer's own output a_L (bias included, before any activation function), ``(N, P, O)``."""
        linear = isinstance(self.target.layer, nn.Linear)
        found = [output if linear else output.movedim(1, -1) for _, output in self.calls]
        return _joined([rows.reshape(len(self), -1, rows.shape[-1]) for rows in found])

    def respond(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Output of the base, ``(N, ...)``, where each call of the layer adds ``change(rows)``, ``(N, P, O)``, to its response.

        Differentiable in what ``change`` depends on. What lies below the first call is reused and carries no gradient. Where
        the layer runs several times, later calls see what the earlier ones have changed.

        Args:
            change: of the rows ``(N, P, I)`` of one call, as in :attr:`positions`.
        """
        if not self.repeated:
            return self.replay(change(self.positions))
        target, compute, first = self.target, self.target.layer.forward, iter([self.calls[0][1]])

        def respond(given: Tensor) -> Tensor:
            output = next(first, None)  # what the first call sees has not changed
            return target.add(compute(given) if output is None else output, change(target.as_rows(given, len(self))))

        return target.rerun(self, respond)

    def replay(self, shift: Tensor) -> Tensor:
        """Output of the base, ``(N, ...)``, with ``shift`` ``(N, P, O)`` added to the layer's response.

        Differentiable in ``shift``. What lies below the layer is reused and carries no gradient.

        Raises:
            ValueError: if ``shift`` is of another shape than the response, or the layer runs several times: what its later
                calls see depends on the change, see :meth:`respond`.
        """
        if shift.shape != self.response.shape or self.repeated:
            raise ValueError(
                f"a change {tuple(shift.shape)} does not fit the layer's response {tuple(self.response.shape)} in "
                f"{len(self.calls)} calls"
            )
        response = self.target.add(self.calls[0][1], shift)
        return self.target.rerun(self, lambda given: response)


class TargetLayer:
    """The layer ``name`` of ``model``, whose weight may differ from sample to sample.

    Args:
        model: any module with one input tensor ``(N, ...)``. In eval mode, row j of its output must depend on row j of the
            input alone. The model runs in eval mode; its own mode is restored afterwards.
        name: dotted name of a Linear, Conv1d, Conv2d or Conv3d in it, or of a weight inside an attention or recurrent module
            (:mod:`ocd_bench.engine.stand_ins`).

    Raises:
        LayerRefused: if there is no such layer, or none whose weight can be changed per sample.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        modules = dict(model.named_modules())
        names = adaptable_names(model)
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            kind = f"a {type(modules[name]).__name__}, not a Linear or Conv layer" if name in modules else "not in the model"
            raise LayerRefused(f"layer {name!r} is {kind}; nearest: {', '.join(near) or 'none (the model has no such layer)'}")
        self.model, self.name = model, name
        self._module, self._around = modules.get(name), modules[name.rpartition(".")[0]] if name else None
        if reason := _static_refusal(model, self.layer, self.stand_ins):
            raise LayerRefused(f"layer {name!r} {reason}")
        self._rows: dict[tuple[int, ...], int] = {}

    @property
    def layer(self) -> Adaptable:
        """The layer; a Linear layer that holds the weight where this is one inside an attention or recurrent module."""
        if self._module is not None:
            return self._module  # type: ignore[return-value]
        (inside,) = self.stand_ins.values()
        return inside.layers[self.name.rpartition(".")[2]]

    @property
    def stand_ins(self) -> dict[nn.Module, StandIn]:
        """The module that uses the weight by itself, with its stand-in; empty for other layers."""
        inside = None if self._around is None else stand_in(self._around)
        return {} if inside is None or self._around is None else {self._around: inside}

    @contextmanager
    def stand_in(self) -> Iterator[None]:
        """Inside it, the module that uses the weight by itself is computed by Linear layers."""
        with patched(self.stand_ins), fused_attention(not self.stand_ins):
            yield

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

    @property
    def by_batch(self) -> bool:
        """Whether the model has one state for a whole batch (:mod:`ocd_bench.compose`)."""
        return hasattr(self.model, "rows_at_once")

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
        """As :meth:`traces`, each with the targets of its samples on the layer's device.

        A trace can take gigabytes. It is not held here while the next one is made; a caller's loop may hold it.
        """
        size = self._chunk(inputs)
        for few, some in zip(inputs.split(size), targets.split(size), strict=True):  # zip holds what it gave last
            yield self.trace(few.to(self.device)), some.to(self.device)

    def _chunk(self, inputs: Tensor) -> int:
        """Samples of a trace: those that memory allows, or fewer where the model has one state for so many at once
        (:mod:`ocd_bench.compose`)."""
        return min(self.rows(inputs), getattr(self.model, "rows_at_once", 1024))

    def trace(self, inputs: Tensor) -> Trace:
        """Run the base on a batch ``(N, ...)``, in eval mode and without gradients, and record it.

        Raises:
            LayerRefused: if the layer does not run, or its input is not sample-major: ``(N, ...)`` or ``(N*k, ...)`` with the k
                rows of a sample together.
        """
        if inputs.is_inference():
            with torch.inference_mode(False):
                inputs = inputs.clone()
        try:
            with self.stand_in():
                recording = record(self.model, self.layer, inputs)
        except CallRefused as error:
            raise LayerRefused(f"layer {self.name!r} {error}") from error
        if not recording.entries:
            raise LayerRefused(f"layer {self.name!r} does not run in a forward pass")
        for given, _ in recording.entries:
            if reason := _layout_refusal(self.layer, given, len(inputs)):
                raise LayerRefused(f"layer {self.name!r} {reason}")
        return Trace(inputs, recording.output, self, recording)

    def rerun(self, trace: Trace, respond: Callable[[Tensor], Tensor]) -> Tensor:
        """The base's output, ``(N, ...)``, on a trace's inputs, where each call of the layer gives ``respond(its input)``."""
        with self.stand_in():
            return rerun(self.model, self.layer, trace.inputs, trace.recording, respond)

    def as_rows(self, given: Tensor, samples: int) -> Tensor:
        """An input of the layer as rows for its weight matrix, ``(N, P, I)`` for N samples."""
        rows = given if isinstance(self.layer, nn.Linear) else unfold(self.layer, given)
        return rows.reshape(samples, -1, rows.shape[-1])

    def add(self, output: Tensor, shift: Tensor) -> Tensor:
        """An output of the layer, in its own layout, with ``shift`` ``(N, P, O)`` added."""
        if isinstance(self.layer, nn.Linear):
            return output + shift.reshape(output.shape).to(output.dtype)
        batch, channels, *grid = output.shape
        return output + shift.reshape(batch, *grid, channels).movedim(-1, 1).to(output.dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


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


@full_float32()
def refusal(model: nn.Module, name: str, inputs: Tensor) -> str | None:
    """Why the layer cannot be adapted per sample on such inputs, or None if it can.

    Beyond the checks of :class:`TargetLayer` and :meth:`TargetLayer.trace`, the first three samples are tried out. This finds
    rows that mix samples, an output that does not depend on the layer, a weight that is also used elsewhere, and a model whose
    gradient cannot go back. Give three samples or more.
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
        zero = torch.zeros_like(target.weight).requires_grad_()
        output = trace.respond(lambda rows: rows @ zero.T)
        if not output.requires_grad:
            return f"no gradient reaches layer {name!r} from the model's output"
        toward = torch.arange(output.numel(), device=output.device).cos().reshape(output.shape).to(output.dtype)
        whole = _gradient(target, trace.inputs, toward)
        if whole is None:
            return None  # nothing to compare with
        try:
            (slope,) = torch.autograd.grad((output * toward).sum(), zero)
        except Exception as error:  # whatever a model's own backward pass raises, such as a checkpoint that computes again
            return f"layer {name!r}: no gradient goes back to it ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    # what is left of a gradient that is nearly zero beside the output is rounding
    rounding = 1e-5 * output.detach().abs().sum() / target.weight.abs().max().clamp_min(torch.finfo(output.dtype).tiny)
    if bool((slope - whole).abs().max() > 1e-3 * whole.abs().max() + rounding):
        return f"layer {name!r} has a weight that the model also uses outside of the layer: a change would not act there"
    return None


def _gradient(target: TargetLayer, inputs: Tensor, toward: Tensor) -> Tensor | None:
    """The gradient of the layer's own weight, as a matrix ``(O, I)``; None where the model itself has none: it
    overwrites what a gradient needs, or a fused function has no backward pass."""
    name = f"{target.name}.weight".removeprefix(".") if target._module is not None else target.name
    weight = target.layer.weight.detach().clone().requires_grad_()
    try:
        with quiet(target.model):
            output = torch.func.functional_call(target.model, {name: weight}, (inputs.clone(),))
        (slope,) = torch.autograd.grad((output * toward).sum(), weight, allow_unused=True)
    except Exception:
        return None
    return torch.zeros_like(target.weight) if slope is None else slope.flatten(1)


def adaptable_names(model: nn.Module) -> list[str]:
    """Names of all Linear and Conv layers, then of the weights inside attention and recurrent modules."""
    return [name for name, module in model.named_modules() if isinstance(module, ADAPTABLE)] + inner_weights(model)


def candidates(model: nn.Module, inputs: Tensor) -> list[str]:
    """Names of the layers to choose from where nobody names one, in the model's order: Linear and Conv layers that run once.

    A change of such a layer costs a run of what lies above it, and no more. Only where there is none, all layers that can be
    adapted.
    """
    modules = [name for name, module in model.named_modules() if isinstance(module, ADAPTABLE)]
    once = [name for name in modules if refusal(model, name, inputs) is None and not repeated(model, name, inputs)]
    return once or [name for name in adaptable_names(model) if refusal(model, name, inputs) is None]


def repeated(model: nn.Module, name: str, inputs: Tensor) -> bool:
    """Whether a layer that can be adapted runs several times in one forward pass."""
    return TargetLayer(model, name).trace(inputs[:1]).repeated


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


def _static_refusal(model: nn.Module, layer: Adaptable, around: Collection[nn.Module]) -> str | None:
    if type(layer).forward not in {kind.forward for kind in ADAPTABLE}:
        return f"is a {type(layer).__name__} with a forward of its own: its output need not be weight times input"
    if getattr(layer, "groups", 1) > 1:
        return f"is a convolution in {layer.groups} groups: no one weight matrix acts on all of a position"
    weight = layer._parameters.get("weight")
    for name, module in model.named_modules():
        if module is layer or module in around or weight is None:
            continue
        if any(own is weight for own in module._parameters.values()):
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
