"""Trained weights from a file, for tasks that can take some: the state dict that fits a model, wherever it lies in the file. No
code in a file is executed.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ocd_bench.errors import UsageError
from ocd_bench.reading import listed
from ocd_bench.reading.weights import CURE, State, read_weights, states_in

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model", bound="torch.nn.Module")
EXPANDED = 2**30
"""Most bytes of a tensor that is stored in fewer."""


def find_checkpoint(setting: str, name: str, directories: Sequence[Path]) -> Path:
    """The path of a checkpoint: as given, or inside the first data directory that has it.

    Args:
        setting: name of the setting, such as ``images.checkpoint``, for the message.
        name: value of the setting.
        directories: data directories (``request.data_dirs``).

    Raises:
        UsageError: if there is no such file; the message lists every path that was tried.
    """
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [given, *(directory / given for directory in directories)]
    for place in places:
        if place.exists() and not place.is_dir():
            return place
    raise UsageError(f"setting {setting}={name!r}: no such file; looked for {', '.join(map(str, places))}")


def read_state(path: Path, key: str = "") -> State:
    """The state dict in ``path``, on the CPU, without the prefixes that wrappers put before its names.

    Args:
        key: which one, where the file holds several: the path of :func:`~ocd_bench.reading.weights.states_in`.

    Raises:
        UsageError: if the file is no such thing, holds several, or has weights that are not finite.
    """
    found = _states(path, key)
    outer = [name for name in found if not any(other != name and _below(name, other) for other in found)]
    if len(outer) > 1:
        raise UsageError(
            f"checkpoint {path}: holds several state dicts ({listed([repr(name) for name in outer])}); give one of them"
        )
    # The innermost of as many tensors: without what wrappers put before their names.
    whole = [state for state in found.values() if len(state) == len(found[outer[0]])]
    state = min(whole, key=lambda state: len(next(iter(state))))
    for name, value in state.items():
        if value.is_floating_point():
            _check_values(path, name, value, value)
    return state


def misfit(model: torch.nn.Module, state: Mapping[str, torch.Tensor], anew: Sequence[str] = ()) -> str:
    """The first difference in names or shapes between ``state`` and the model's state dict, in words; empty if it fits.

    Args:
        model: the model that the weights are for.
        state: name to tensor.
        anew: names of tensors that may be missing in ``state``, or have another shape there.
    """
    wanted = model.state_dict()
    problem = ""
    for key, value in wanted.items():
        # Old files lack the counters of BatchNorm, which do not change the outputs.
        if key in anew or (key not in state and key.endswith("num_batches_tracked")):
            continue
        if key not in state:
            problem = f"{key!r} is missing"
        elif state[key].shape != value.shape:
            problem = f"{key!r} is {_shape(state[key])}, the model has {_shape(value)}"
        if problem:
            return problem + _diagnosis(wanted, state)
    return next((f"{key!r} is not in the model" for key in state if key not in wanted), "")


def load_checkpoint(
    model: Model, path: Path, hint: str, anew: Sequence[str] = (), *, key: str = "", setting: str = ""
) -> Model:
    """``model`` with the weights in ``path``, in the model's own precision: those of the one state dict in the file that fits,
    wherever it lies in it and whatever a wrapper put before its names.

    Args:
        model: the model; changed in place.
        path: the file.
        hint: how the user gets a model that fits, for the message.
        anew: tensors that keep the model's own values where the file has none of their shape.
        key: which state dict, where several fit (the weights and their moving average).
        setting: the name of the setting that ``key`` comes from, for the message.

    Raises:
        UsageError: as :func:`read_state`; if none fits, naming the first tensor that differs; if several do, naming them; for
            weights that are not plain finite numbers.
    """
    found = _states(path, key)
    fitting = {name: state for name, state in found.items() if not misfit(model, state, anew)}
    if not fitting:
        closest = max(found.values(), key=lambda state: _overlap(model, state))
        raise UsageError(f"checkpoint {path}: {misfit(model, closest, anew)}; {hint}")
    if len(fitting) > 1:
        names = listed([repr(name) for name in fitting])
        choice = f"choose one with --set {setting}=NAME" if setting else "give a file with one of them"
        raise UsageError(f"checkpoint {path}: holds several weights that fit ({names}); {choice}")
    (state,) = fitting.values()
    own = model.state_dict()
    taken = {name: value for name, value in state.items() if value.shape == own[name].shape}
    for name, value in taken.items():
        _check_values(path, name, value, own[name])
    model.load_state_dict(taken, strict=False)
    return model


def _states(path: Path, key: str) -> dict[str, State]:
    """State dicts of a file by their path in it; with ``key``, those at or below it."""
    everything = dict(states_in(read_weights(path)))
    if not everything:
        raise UsageError(f"checkpoint {path}: not a state dict of named tensors; {CURE}")
    found = {name: state for name, state in everything.items() if not key or _below(name, key)}
    if not found:
        names = listed([repr(name) for name in everything if name])
        raise UsageError(f"checkpoint {path}: no weights under {key!r}; it has {names or 'one state dict only'}")
    return found


def _below(name: str, outer: str) -> bool:
    return outer in ("", name) or name.startswith(f"{outer}/")


def _overlap(model: torch.nn.Module, state: State) -> int:
    """How much of a state is the model's: names, and twice as much where the shapes agree."""
    return sum((value.shape == state[name].shape) + 1 for name, value in model.state_dict().items() if name in state)


def _diagnosis(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """Why a state differs from what is wanted, where that can be told."""
    shared = [name for name in wanted if name in state]
    if not shared:
        return f" (no tensor has a name of the model; the file begins with {next(iter(state))!r}: another architecture)"
    differing = [name for name in shared if state[name].shape != wanted[name].shape]
    if len(shared) < len(wanted) and not differing:
        return f" ({len(shared)} of the model's {len(wanted)} tensors are in the file)"
    rows = {(state[name].shape[:1], wanted[name].shape[:1]) for name in differing}
    columns = all(state[name].shape[1:] == wanted[name].shape[1:] for name in differing)
    if len(shared) == len(wanted) and len(rows) == 1 and columns and len(differing) <= 2:
        ((theirs, ours),) = rows
        if theirs and ours:
            return f" (all else fits: weights for {theirs[0]} outputs, for example classes, not {ours[0]})"
    return ""


def _check_values(path: Path, name: str, value: torch.Tensor, own: torch.Tensor) -> None:
    """Refuse weights that are not plain finite numbers."""
    import torch

    plain = value.layout == torch.strided and not value.is_meta and not value.is_quantized and not value.is_nested
    # A tensor of one number may claim any size (stride 0).
    plain = plain and value.nbytes <= max(EXPANDED, value.untyped_storage().nbytes())
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    counts = plain and not own.is_floating_point() and value.dtype in floats and bool((value == value.round()).all())
    if not plain or (value.dtype not in (floats if own.is_floating_point() else integers) and not counts):
        kind = f"{value.dtype}".removeprefix("torch.") + ("" if plain else ", not stored as plain numbers")
        raise UsageError(f"checkpoint {path}: {name!r} is of {kind}; expected {own.dtype}; {CURE}")
    if own.is_floating_point() and not value.to(own.dtype).isfinite().all():
        raise UsageError(f"checkpoint {path}: {name!r} holds NaN or infinite weights; train it again")


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
