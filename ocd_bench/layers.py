"""Which layers of a base model can be adapted per sample, and why the others cannot.

A layer can be adapted if it is a Linear or Conv layer, or a weight inside an attention or recurrent module, and its rows belong
to one sample each (:func:`ocd_bench.engine.capture.refusal`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ocd_bench.config import check_overrides, known_sections, nearest, resolve
from ocd_bench.engine._replay import quiet
from ocd_bench.engine.capture import ADAPTABLE, TargetLayer, adaptable_names, candidates, refusal
from ocd_bench.engine.norms import BatchNorm, NormLayers
from ocd_bench.engine.several import MOST
from ocd_bench.engine.stand_ins import hindrance, stand_in
from ocd_bench.errors import NotApplicable, Unavailable, UsageError
from ocd_bench.samples import Samples
from ocd_bench.task import Request

if TYPE_CHECKING:
    from ocd_bench.plugin.manager import Manager
    from ocd_bench.runner.contract import TaskContract

SAMPLES = 3
"""Enough to notice samples that influence each other."""
SHOWN = 12
"""Names of layers in a message."""
WORDS = ("task", "entropy", "norms", "all")
"""Values of ``select.layer`` that are no names of layers."""
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Layer:
    """One module that has parameters of its own, or one weight of an attention or recurrent module.

    Attributes:
        name: its dotted name, the value of ``select.layer``.
        kind: the class of the module.
        shape: of its weight; empty if it has no single weight.
        reason: why it cannot be adapted; empty if it can.
        runs: how often it runs in one forward pass, if it can be adapted; else 0.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str
    runs: int

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` shows."""
        return {**asdict(self), "shape": list(self.shape), "adaptable": not self.reason, "reason": self.reason or None}


def layers_of(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """Every module of ``model`` that has parameters of its own, in the model's order; weights apart where a module has several.

    Args:
        inputs: a few samples ``(N, ...)``, three or more.

    Raises:
        ValueError: if the model does not return one tensor with a row for each sample.
    """
    _check_output(model, inputs)
    return [layer for name, module in _with_parameters(model) for layer in _layers(model, name, module, inputs)]


class Unsuitable(NamedTuple):
    """Why a layer cannot be adapted, and the names of those that can, as text."""

    why: str
    instead: str


def unsuitable(model: nn.Module, name: str, inputs: Tensor, words: Sequence[str] = ()) -> Unsuitable | None:
    """What speaks against adapting the layer ``name``; None if nothing does.

    Args:
        words: what may stand in place of a layer's name.
    """
    modules = dict(model.named_modules())
    if name in adaptable_names(model) and refusal(model, name, inputs) is None:
        return None
    found = layers_of(model, inputs)
    good = [layer.name for layer in found if not layer.reason]
    why = next((layer.reason for layer in found if layer.name == name), "")
    if not why and name in modules:
        why = f"a {type(modules[name]).__name__} has no weight of its own"
    parent = modules.get(name.rpartition(".")[0])
    if not why and parent is not None and hindrance(parent):
        why = f"inside a {type(parent).__name__} that {hindrance(parent)}"
    every = dict(model.named_modules(remove_duplicate=False))
    if not why and name in every:
        why = f"the same layer as {next(other for other, module in modules.items() if module is every[name])!r}: give that name"
    shown = ", ".join(good[:SHOWN]) + (f" and {len(good) - SHOWN} more" if len(good) > SHOWN else "")
    return Unsuitable(why or f"the base model has no such layer{nearest(name, [*good, *words])}", shown or "none")


def check_layers(contract: TaskContract, model: nn.Module, wanted: str, samples: Samples, request: Request) -> None:
    """Refuse, before anything is trained, a base model without a layer to adapt, or a ``select.layer`` that cannot be adapted.

    It draws no random number that anything else depends on, and leaves the model as it was.

    Args:
        contract: of the task; it names the place of what is wrong.
        model: the untrained base.
        wanted: the setting ``select.layer``.
        samples: training samples.

    Raises:
        UsageError: with the layers that can be adapted; without any, with what hinders each layer.
    """
    task = contract.task
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        some = samples.take(slice(SAMPLES))
        inputs, _ = contract.excerpt(some, request.generator("layers"))
        inputs = inputs.to(device)
        if wanted == "norms":
            _check_norms(model, inputs)
            return
        if wanted not in ("task", "entropy"):
            for name in layer_names(wanted, model, inputs):
                if problem := unsuitable(model, name, inputs, WORDS):
                    raise UsageError(
                        f"setting select.layer={name!r}: {problem.why}; layers of task {task.name!r} that can be adapted: "
                        f"{problem.instead} (ocd-bench list layers --task {task.name}); other values: {', '.join(WORDS)}"
                    )
            return
        if any(refusal(model, name, inputs) is None for name in adaptable_names(model)):
            return
        hindrances = "; ".join(f"{layer.name or 'the model'}: {layer.reason}" for layer in layers_of(model, inputs)[:SHOWN])
        raise contract.broken(
            "base_model",
            f"gave a model without a layer that can be adapted ({hindrances or 'it has no parameters'})",
            "a Linear or Conv layer, or attention or a recurrent module",
        )


def first_layer(wanted: str) -> str:
    """``select.layer`` for methods that change one layer: the first of a list; the task's for ``norms`` and ``all``."""
    return "task" if wanted in ("norms", "all") else wanted.partition(",")[0].strip()


def layer_names(wanted: str, model: nn.Module, inputs: Tensor) -> list[str]:
    """The layers that a value of ``select.layer`` stands for: ``all``, or names with commas between them.

    Raises:
        UsageError: for too many layers, one that is named twice, or a word that is no name.
    """
    names = candidates(model, inputs) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    if "" in names:
        raise UsageError(f"setting select.layer={wanted}: an empty name; give names with commas between them")
    if words := [name for name in names if name in WORDS]:
        raise UsageError(f"setting select.layer={wanted}: {words[0]!r} stands alone, and not among names")
    if len(names) > MOST:
        raise UsageError(
            f"setting select.layer={wanted}: {len(names)} layers, and each doubles the cost of a prediction; give at most "
            f"{MOST}, or 'norms' for all batch norm layers at once"
        )
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"setting select.layer={wanted}: {repeated[0]!r} is there twice")
    return names


def _check_norms(model: nn.Module, inputs: Tensor) -> None:
    try:
        with quiet(model):
            NormLayers(model, inputs)
    except NotApplicable as error:
        raise UsageError(f"setting select.layer=norms: {error}") from error


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
    from ocd_bench.runner.blame import Blame
    from ocd_bench.runner.contract import TaskContract

    task = manager.task(name)
    if reason := manager.availability(task):
        raise Unavailable(f"task {name!r} {reason}")
    everything = list(manager.methods.values())
    check_overrides(overrides, known_sections(list(manager.tasks.values()), everything))
    settings = resolve(task, everything, preset, overrides).section(name)
    contract, hook = TaskContract(task, Blame(manager)), manager.hook
    chosen = dataset or contract.call("datasets", task.datasets)[0].name
    request = Request(name, chosen, settings, preset, 0, True, tuple(data_dirs))
    loaded = contract.splits(contract.call("load_data", lambda: hook.ocd_bench_load_data(task=task, request=request)))
    hidden = replace(loaded, test=loaded.val)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = lambda: hook.ocd_bench_base_model(task=task, splits=hidden, request=request)  # noqa: E731
        model = contract.model(contract.call("base_model", build))
        some = loaded.train.take(slice(SAMPLES))
        inputs, _ = contract.excerpt(some, request.generator("layers"))
        return chosen, contract.call("base_model", lambda: layers_of(model, inputs))


# -- one layer ------------------------------------------------------------------------------------------------------------
def _with_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if any(parameter is not None for parameter in module._parameters.values()):
            yield name, module


def _check_output(model: nn.Module, inputs: Tensor) -> None:
    with quiet(model), torch.no_grad():
        output = model(inputs.clone())
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the base model returns a {type(output).__name__}: return one tensor (N, ...); several outputs are packed with "
            "ocd_bench.Layout (docs/plugins.md, 'Several inputs, sequences, several outputs')"
        )
    if output.ndim == 0 or len(output) != len(inputs):
        raise UsageError(
            f"the base model returns {tuple(output.shape)} for {len(inputs)} samples: its first size must be theirs"
        )


def _layers(model: nn.Module, name: str, module: nn.Module, inputs: Tensor) -> list[Layer]:
    kind = type(module).__name__
    if inside := stand_in(module):
        names = [(f"{name}.{weight}".removeprefix("."), layer.weight) for weight, layer in inside.layers.items()]
        return [Layer(own, kind, tuple(weight.shape), *_reason(model, own, inputs)) for own, weight in names]
    weight = module._parameters.get("weight")
    shape = tuple(weight.shape) if weight is not None else ()
    if isinstance(module, ADAPTABLE):
        return [Layer(name, kind, shape, *_reason(model, name, inputs))]
    reason = f"{kind}: {hindrance(module) or 'not supported'}"
    if isinstance(module, NORMS):
        by_ocd = "; select.layer=norms: OCD on all batch norm layers" if isinstance(module, BatchNorm) else ""
        reason = f"{kind}: Tent and related methods adapt its scale and shift{by_ocd}"
    return [Layer(name, kind, shape, reason, 0)]


def _reason(model: nn.Module, name: str, inputs: Tensor) -> tuple[str, int]:
    """Why a layer cannot be adapted, and how often it runs if it can."""
    if reason := refusal(model, name, inputs):
        return reason.removeprefix(f"layer {name!r} "), 0
    return "", len(TargetLayer(model, name).trace(inputs[:1]).calls)
