"""Run a model once and record what it computes up to one of its modules; run it again from there with other outputs of it.

The second run reuses recorded outputs instead of computing them. Modules are replayed as a whole, the outermost that finished;
so are torch functions called between modules (``F.relu``, ``torch.cat``). Modules must keep no state from one call to the next.

What the model itself no longer holds when the module is reached is not kept either: it cannot be used above it. A placeholder
without memory takes its place, as what computed with it is not computed again.

A model that overwrites its activations needs more care, as does one whose computations torch cannot see. Three ways of
recording are tried in turn, until the recorded tensors are intact at the end of the run: modules and functions; modules alone;
modules alone, as copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

COMPUTE = object()
"""Stands for an output that is computed again."""

WAYS = ((True, False), (False, False), (False, True))
"""Whether functions are recorded, and whether recorded tensors are copies."""

_known: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Which of :data:`WAYS` worked for a module last time; only saves attempts."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a model up to a module and past it, without gradients.

    Attributes:
        output: the model's output.
        entries: input and output of the module, for each call.
        calls: calls of other modules, and of functions (None), that finished before the module was first reached: each with
            its output or :data:`COMPUTE`.
        copies: whether the model writes into its activations, so that recorded tensors must be copies.
    """

    output: Tensor
    entries: list[tuple[Tensor, Tensor]]
    calls: list[tuple[nn.Module | None, Any]]
    copies: bool


class _Functions(TorchFunctionMode):
    """Torch functions called under it pass through ``handle(call)``; those that ``handle`` calls itself do not."""

    def __init__(self, handle: Callable[[Callable[[], Any], Any], Any]) -> None:
        super().__init__()
        self.handle = handle

        self.active = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def call() -> Any:
            return func(*args, **(kwargs or {}))

        return self.handle(call, (args, kwargs)) if self.active else call()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Functions called inside are only called."""
        before, self.active = self.active, False
        try:
            yield
        finally:
            self.active = before


def record(model: nn.Module, module: nn.Module, inputs: Tensor) -> Recording:
    """Run ``model`` on ``inputs`` in eval mode, and record the calls up to ``module``."""
    for way in range(_known.get(module, 0), len(WAYS)):
        recording, intact = _record(model, module, inputs, *WAYS[way])
        if intact and (way or module in _known or _repeats(model, module, inputs, recording)):
            break
    _known[module] = way
    return recording


def _repeats(model: nn.Module, module: nn.Module, inputs: Tensor, recording: Recording) -> bool:
    """Whether a rerun with the recorded output gives the model's output again. Else something was computed that torch functions
    do not show, for example an autograd function, on what was not kept."""
    outputs = iter(recording.entries)
    with torch.inference_mode(False), torch.no_grad(), suppress(Exception):
        again = rerun(model, module, inputs, recording, lambda given: next(outputs)[1])
        return again.device == recording.output.device and torch.equal(again.nan_to_num(), recording.output.nan_to_num())
    return False


def rerun(
    model: nn.Module, module: nn.Module, inputs: Tensor, recording: Recording, respond: Callable[[Tensor], Tensor]
) -> Tensor:
    """The model's output on the same inputs, where each call of ``module`` gives ``respond(its input)``.

    Where the caller has gradients enabled, they start at the first response.
    """
    gradients = torch.is_grad_enabled()

    def replace(input: Tensor) -> Tensor:
        torch.set_grad_enabled(gradients)  # from here on; leaving no_grad below restores the caller's mode
        return respond(input)

    noted: dict[nn.Module | None, list[Any]] = {}
    for called, value in recording.calls:
        noted.setdefault(called, []).append(value)
    functions = iter(noted.pop(None, ()))

    def recall(call: Callable[[], Any], given: Any) -> Any:
        value = next(functions, COMPUTE)  # once they are used up, above the module, functions are computed
        return call() if value is COMPUTE else value

    forwards = {called: _recall(called.forward, values, recording.copies) for called, values in noted.items() if called}
    with quiet(model), patched({**forwards, module: replace}), torch.no_grad(), _Functions(recall):
        return model(_copied(inputs) if recording.copies else inputs)


@contextmanager
def fused_attention(allowed: bool) -> Iterator[None]:
    """Whether attention may take its fused path, which does not call its Linear layers; as it was before where it may."""
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(before and allowed)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, restored afterwards; attention without its fused path."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with fused_attention(False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _record(model: nn.Module, module: nn.Module, inputs: Tensor, functions: bool, copies: bool) -> tuple[Recording, bool]:
    """The recording, and whether all recorded tensors still hold the same values."""
    recorder = _Recorder(functions, copies)
    mode = _Functions(recorder.function)
    forwards = {
        called: recorder.watched(called, mode) for called in model.modules() if not isinstance(called, torch.jit.ScriptModule)
    }
    forwards[module] = recorder.observed(module, mode)
    with torch.inference_mode(False), torch.no_grad(), quiet(model), patched(forwards):
        recorder.note(inputs)
        with mode if functions else nullcontext():
            output = model(_copied(inputs) if copies else inputs)
    return Recording(output, recorder.entries, recorder.calls, copies), recorder.intact()


class _Recorder:
    """Notes what is called in one run of a model, up to one of its modules.

    It does not refer to the :class:`_Functions` that tells it of functions: in a cycle, its tensors would stay in memory until
    the next garbage collection.
    """

    def __init__(self, functions: bool, copies: bool) -> None:
        self.weak, self.copies = functions, copies
        self.calls: list[tuple[nn.Module | None, Any]] = []
        self.entries: list[tuple[Tensor, Tensor]] = []
        self.versions: list[tuple[ref[Tensor], int]] = []
        self.given: list[Any] = []  # of functions that are computed again

    def note(self, value: Any) -> Any:
        self.versions += [(ref(leaf), version) for leaf, version in _versions(value)]
        if self.weak:
            return ref(value) if isinstance(value, Tensor) else tree_map_only(Tensor, ref, value)
        return _copied(value) if self.copies else value

    def settle(self) -> None:
        """Keep what is still in use."""
        self.calls = [(called, tree_map_only(ref, _alive, value)) for called, value in self.calls]
        self.weak = False

    def intact(self) -> bool:
        known = [(leaf(), version) for leaf, version in self.versions]
        return _unchanged([(leaf, version) for leaf, version in known if leaf is not None])

    def function(self, call: Callable[[], Any], given: Any) -> Any:
        if self.entries:
            return call()
        # a function that writes into a tensor spoils the recording
        self.versions += [(ref(leaf), version) for leaf, version in _versions(given)]
        value = call()
        if _constant(value):
            self.calls.append((None, self.note(value)))
        else:
            self.calls.append((None, COMPUTE))
            self.given.append(given)
        return value

    def watched(self, called: nn.Module, functions: _Functions) -> Callable[..., Any]:
        original = called.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            with functions.off():
                mark, noted, given = len(self.calls), len(self.versions), _versions((args, kwargs))
            value = original(*args, **kwargs)
            if self.entries:
                return value
            with functions.off():
                if _unchanged(given) and not _aliased(value, given):
                    del self.calls[mark:], self.versions[noted:]  # this call stands for all calls made inside it
                    self.calls.append((called, self.note(value)))
                else:
                    # It wrote into its input or returned (a view of) it, as in-place activations, Flatten and Identity do. It
                    # is computed again, so that tensors that shared memory still do.
                    self.calls.append((called, COMPUTE))
            return value

        return forward

    def observed(self, module: nn.Module, functions: _Functions) -> Callable[..., Any]:
        original = module.forward

        def forward(input: Tensor) -> Tensor:
            with functions.off():  # nothing inside the module itself is recorded
                if not self.entries:
                    self.settle()
                given = self.note(input)
                value = original(input)
                self.entries.append((given, self.note(value)))
            return value

        return forward


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
def patched(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
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
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _versions(value: Any) -> list[tuple[Tensor, int]]:
    """Tensors with the number of times they have been written to."""
    return [(leaf, leaf._version) for leaf in _tensors(value)]


def _unchanged(versions: list[tuple[Tensor, int]]) -> bool:
    return all(leaf._version == version for leaf, version in versions)


def _alive(leaf: ref[Tensor]) -> Tensor:
    """The tensor, or a placeholder where it is no longer in use."""
    found = leaf()
    return torch.empty(0, device="meta") if found is None else found


def _constant(value: Any) -> bool:
    """Whether a function's value can be given again: a tensor, a plain value, or a tuple of such. What is written elsewhere
    (None), lists and iterators cannot."""
    if isinstance(value, tuple):
        return all(map(_constant, value))
    return isinstance(value, Tensor | bool | int | float | str | torch.dtype | torch.device)


def _aliased(value: Any, given: list[tuple[Tensor, int]]) -> bool:
    return not _memory(_tensors(value)).isdisjoint(_memory(leaf for leaf, _ in given))


def _memory(tensors: Iterable[Tensor]) -> set[int]:
    """Addresses of dense tensors' storages; views share theirs."""
    return {leaf.untyped_storage().data_ptr() for leaf in tensors if leaf.layout == torch.strided}


def _copied(value: Any) -> Any:
    return tree_map_only(Tensor, Tensor.clone, value)
