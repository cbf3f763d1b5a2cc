"""Run a model once and record the outputs of its modules up to one of them; run it again from there with another output.

The second run reuses recorded outputs instead of computing them. Modules are replayed as a whole, the outermost that finished.
Functions called between modules are computed again. Modules must keep no state from one call to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

COMPUTE = object()
"""Stands for an output that is computed again."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a model up to a module and past it, without gradients.

    Attributes:
        output: the model's output.
        entries: input and output of the module, for each call.
        calls: calls of other modules that finished before the module was first reached: the module, and its output or
            :data:`COMPUTE`.
        copies: whether the model writes into its activations, so that recorded tensors must be copies.
    """

    output: Tensor
    entries: list[tuple[Tensor, Tensor]]
    calls: list[tuple[nn.Module, Any]]
    copies: bool


def record(model: nn.Module, module: nn.Module, inputs: Tensor) -> Recording:
    """Run ``model`` on ``inputs`` in eval mode, and record the calls up to ``module``."""
    recording, intact = _record(model, module, inputs, copies=False)
    # An activation was overwritten after it was recorded: run once more, and keep copies.
    return recording if intact else _record(model, module, inputs, copies=True)[0]


def rerun(model: nn.Module, module: nn.Module, inputs: Tensor, recording: Recording, response: Tensor) -> Tensor:
    """The model's output on the same inputs with ``response`` as the output of ``module``.

    Where the caller has gradients enabled, they start at ``response``.
    """
    gradients = torch.is_grad_enabled()

    def replace(*args: Any, **kwargs: Any) -> Tensor:
        torch.set_grad_enabled(gradients)  # from here on; leaving no_grad below restores the caller's mode
        return response

    noted: dict[nn.Module, list[Any]] = {}
    for called, value in recording.calls:
        noted.setdefault(called, []).append(value)
    forwards = {called: _recall(called.forward, values, recording.copies) for called, values in noted.items()}
    with quiet(model), _patched({**forwards, module: replace}), torch.no_grad():
        return model(_copied(inputs) if recording.copies else inputs)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, restored afterwards; attention without its fused path, which does not call its Linear layers."""
    modes = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training


def _record(model: nn.Module, module: nn.Module, inputs: Tensor, copies: bool) -> tuple[Recording, bool]:
    """The recording, and whether all recorded tensors still hold the same values."""
    calls: list[tuple[nn.Module, Any]] = []
    entries: list[tuple[Tensor, Tensor]] = []
    versions: list[tuple[Tensor, int]] = []

    def note(value: Any) -> Any:
        versions.extend(_versions(value))
        return _copied(value) if copies else value

    def watched(called: nn.Module) -> Callable[..., Any]:
        original = called.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            mark, given = len(calls), _versions((args, kwargs))
            value = original(*args, **kwargs)
            if entries:
                return value
            if _unchanged(given) and not _aliased(value, given):
                del calls[mark:]  # this call stands for all calls made inside it
                calls.append((called, note(value)))
            else:
                # It wrote into its input or returned (a view of) it, as in-place activations, Flatten and Identity do. It is
                # computed again, so that tensors that shared memory still do.
                calls.append((called, COMPUTE))
            return value

        return forward

    original = module.forward

    def observed(input: Tensor) -> Tensor:
        given = note(input)
        value = original(input)
        entries.append((given, note(value)))
        return value

    forwards = {called: watched(called) for called in model.modules() if not isinstance(called, torch.jit.ScriptModule)}
    with torch.inference_mode(False), torch.no_grad(), quiet(model), _patched({**forwards, module: observed}):
        note(inputs)
        output = model(_copied(inputs) if copies else inputs)
    return Recording(output, entries, calls, copies), _unchanged(versions)


def _recall(original: Callable[..., Any], values: list[Any], copies: bool) -> Callable[..., Any]:
    """A forward that returns ``values`` in turn. Once they are used up, above the module, it computes."""
    left = iter(values)

    def forward(*args: Any, **kwargs: Any) -> Any:
        value = next(left, COMPUTE)
        if value is COMPUTE:
            return original(*args, **kwargs)
        return _copied(value) if copies else value

    return forward


@contextmanager
def _patched(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules with other forwards, restored afterwards. Hooks of the modules still run."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for module, own in before.items():
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own  # type: ignore[method-assign]


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _versions(value: Any) -> list[tuple[Tensor, int]]:
    """Tensors with the number of times they have been written to."""
    return [(leaf, leaf._version) for leaf in _tensors(value)]


def _unchanged(versions: list[tuple[Tensor, int]]) -> bool:
    return all(leaf._version == version for leaf, version in versions)


def _aliased(value: Any, given: list[tuple[Tensor, int]]) -> bool:
    return not _memory(_tensors(value)).isdisjoint(_memory(leaf for leaf, _ in given))


def _memory(tensors: Iterable[Tensor]) -> set[int]:
    """Addresses of dense tensors' storages; views share theirs."""
    return {leaf.untyped_storage().data_ptr() for leaf in tensors if leaf.layout == torch.strided}


def _copied(value: Any) -> Any:
    return tree_map_only(Tensor, Tensor.clone, value)
