"""Which layers of a base model can be adapted per sample, and why the others cannot.

A layer can be adapted if it is a Linear or Conv layer, runs once in a forward pass, and its rows belong to one sample each
(:func:`ocd_bench.engine.capture.refusal`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ocd_bench.config import check_overrides, known_sections, nearest, resolve
from ocd_bench.engine._replay import quiet
from ocd_bench.engine.capture import ADAPTABLE, refusal
from ocd_bench.errors import OCDBenchError, Unavailable, UsageError
from ocd_bench.plugin.manager import explain
from ocd_bench.samples import Samples, Splits
from ocd_bench.task import Request, Task

if TYPE_CHECKING:
    from ocd_bench.plugin.manager import Manager

SAMPLES = 3
"""Enough to notice samples that influence each other."""
SHOWN = 12
"""Names of layers in a message."""
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Layer:
    """One module that has parameters of its own.

    Attributes:
        name: its dotted name, the value of ``select.layer``.
        kind: its class.
        shape: of its weight; empty if it has no single weight.
        reason: why it cannot be adapted; empty if it can.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` shows."""
        return {**asdict(self), "shape": list(self.shape), "adaptable": not self.reason, "reason": self.reason or None}


def layers_of(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """Every module of ``model`` that has parameters of its own, in the model's order.

    Args:
        inputs: a few samples ``(N, ...)``, three or more.

    Raises:
        UsageError: if the model does not return one tensor with a row for each sample.
    """
    calls = _calls(model, inputs)
    return [_layer(model, name, module, calls, inputs) for name, module in _with_parameters(model)]


def check_layers(task: Task, model: nn.Module, wanted: str, samples: Samples, request: Request) -> None:
    """Refuse, before anything is trained, a base model without a layer to adapt, or a ``select.layer`` that cannot be adapted.

    It draws no random number that anything else depends on, and leaves the model as it was.

    Args:
        model: the untrained base, on the CPU.
        wanted: the setting ``select.layer``.
        samples: training samples.

    Raises:
        UsageError: with the layers that can be adapted; without any, with what hinders each layer.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        some = samples.take(slice(SAMPLES))
        inputs, _ = task.subsample(some.inputs, some.targets, request.generator("layers"))
        inputs = inputs.to(device)
        names = dict(model.named_modules())
        if wanted in ("task", "entropy"):
            kinds = [name for name in names if isinstance(names[name], ADAPTABLE)]
            if any(refusal(model, name, inputs) is None for name in kinds):
                return
            raise UsageError(f"task {task.name!r}: {_hindrances(model, inputs)}")
        if wanted in names and isinstance(names[wanted], ADAPTABLE) and refusal(model, wanted, inputs) is None:
            return
        raise refused(task, model, wanted, inputs)


def refused(task: Task, model: nn.Module, wanted: str, inputs: Tensor, origin: str = "setting select.layer") -> UsageError:
    """The error for a layer that cannot be adapted: why, and the layers that can."""
    found = layers_of(model, inputs)
    good = [layer.name for layer in found if not layer.reason]
    why = next((layer.reason for layer in found if layer.name == wanted), "")
    if not why and wanted in dict(model.named_modules()):
        why = f"a {type(model.get_submodule(wanted)).__name__} without a weight of its own"
    why = why or f"the base model has no such layer{nearest(wanted, good)}"
    shown = ", ".join(good[:SHOWN]) + (f" and {len(good) - SHOWN} more" if len(good) > SHOWN else "")
    return UsageError(
        f"{origin}={wanted!r}: {why}; layers of task {task.name!r} that can be adapted: {shown or 'none'} "
        f"(ocd-bench list layers --task {task.name})"
    )


def _hindrances(model: nn.Module, inputs: Tensor) -> str:
    try:
        found = layers_of(model, inputs)
    except UsageError as error:  # the model gives no output of which a layer could be one
        return str(error)
    shown = "; ".join(f"{layer.name or 'the model itself'}: {layer.reason}" for layer in found[:SHOWN])
    what = "no layer of the base model can be adapted"
    return f"{what}: {shown or 'it has no parameters'} (docs/plugins.md says which layers can)"


def layers_of_task(
    manager: Manager, name: str, dataset: str | None, preset: str, overrides: Mapping[str, Any], data_dirs: Sequence[Path]
) -> tuple[str, list[Layer]]:
    """The dataset, and the layers of the untrained base model that the task builds for it.

    Args:
        dataset: default: the task's first.
        overrides: settings by dotted key, as for ``--set``.

    Raises:
        UsageError: for a name or setting that does not exist; or if the task breaks its contract: with the place.
    """
    task = manager.task(name)
    if reason := manager.availability(task):
        raise Unavailable(f"task {name!r} {reason}")
    everything = list(manager.methods.values())
    check_overrides(overrides, known_sections(list(manager.tasks.values()), everything))
    settings = resolve(task, everything, preset, overrides).section(name)
    try:
        request = Request(name, dataset or task.datasets()[0].name, settings, preset, 0, True, tuple(data_dirs))
        splits: Splits = manager.hook.ocd_bench_load_data(task=task, request=request)
        hidden = replace(splits, test=splits.val)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: nn.Module = manager.hook.ocd_bench_base_model(task=task, splits=hidden, request=request)
            some = splits.train.take(slice(SAMPLES))
            inputs, _ = task.subsample(some.inputs, some.targets, request.generator("layers"))
            try:
                return request.dataset, layers_of(model, inputs)
            except UsageError as error:
                raise UsageError(f"task {name!r}: {error}") from None
    except OCDBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"task {name!r}: {explain(error)}; run 'ocd-bench plugin check {manager.owner(task)}'") from error


# -- one layer ------------------------------------------------------------------------------------------------------------
def _with_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if any(parameter is not None for parameter in module._parameters.values()):
            yield name, module


def _calls(model: nn.Module, inputs: Tensor) -> dict[nn.Module, int]:
    """How often each module runs in one forward pass in eval mode."""
    counts = dict.fromkeys(model.modules(), 0)

    def count(module: nn.Module, *rest: Any) -> None:
        counts[module] += 1

    hooks = [module.register_forward_hook(count) for module in counts if not isinstance(module, torch.jit.ScriptModule)]
    try:
        with quiet(model), torch.no_grad():
            output = model(inputs.clone())
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor):
        raise UsageError(
            f"the base model returns a {type(output).__name__}: return one tensor (N, ...); several outputs are packed with "
            "ocd_bench.Layout (docs/plugins.md, 'Several inputs, sequences, several outputs')"
        )
    if output.ndim == 0 or len(output) != len(inputs):
        raise UsageError(
            f"the base model returns {tuple(output.shape)} for {len(inputs)} samples: its first size must be theirs"
        )
    return counts


def _layer(model: nn.Module, name: str, module: nn.Module, calls: dict[nn.Module, int], inputs: Tensor) -> Layer:
    weight = module._parameters.get("weight")
    shape = tuple(weight.shape) if weight is not None else ()
    return Layer(name, type(module).__name__, shape, _reason(model, name, module, calls[module], inputs))


def _reason(model: nn.Module, name: str, module: nn.Module, times: int, inputs: Tensor) -> str:
    kind = type(module).__name__
    if isinstance(module, NORMS):
        return f"{kind}: its scale and shift are adapted by Tent and related methods only"
    if not isinstance(module, ADAPTABLE):
        return f"{kind}: not supported"
    if times == 0:
        return _why_never(model, name)
    if times > 1:
        return f"runs {times} times in one forward pass"
    reason = refusal(model, name, inputs) or ""
    return reason.removeprefix(f"layer {name!r} ")


def _why_never(model: nn.Module, name: str) -> str:
    """Why a layer does not run: the nearest module around it that uses its weight by itself."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        around = model.get_submodule(".".join(parts[:length]))
        if isinstance(around, nn.MultiheadAttention):
            return "inside MultiheadAttention, which does not call it"
    return "does not run in a forward pass"
