"""Trained weights from a file, for tasks that take some: a state dict, read without running anything from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ocd_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model", bound="torch.nn.Module")


def find_checkpoint(setting: str, name: str, directories: Sequence[Path]) -> Path:
    """The file as given, or below the first data directory that has it.

    Args:
        setting: for the message, such as ``images.checkpoint``.

    Raises:
        UsageError: naming every place looked at.
    """
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [given, *(directory / given for directory in directories)]
    for place in places:
        if place.is_file():
            return place
    raise UsageError(f"setting {setting}={name!r}: no such file; looked for {', '.join(map(str, places))}")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in ``path`` (bare, or under the key ``state_dict`` or ``model``), on the CPU.

    Raises:
        UsageError: if the file is no such thing, or holds weights that are not finite.
    """
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises whatever a damaged file makes it stumble over
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"checkpoint {path}: not a readable file of weights ({reason}); save model.state_dict()") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not all(isinstance(value, torch.Tensor) for value in content.values())
        or not content
    ):
        raise UsageError(f"checkpoint {path}: not a state dict of named tensors; save model.state_dict()")
    for key, value in content.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(f"checkpoint {path}: {key!r} holds NaN or infinite weights; train it again")
    return dict(content)


def misfit(model: torch.nn.Module, state: Mapping[str, torch.Tensor], anew: Sequence[str] = ()) -> str:
    """What keeps ``state`` from being ``model``'s, in words; empty if it fits.

    Args:
        anew: tensors of the model that may be missing from the state, or of another shape.
    """
    wanted = model.state_dict()
    for key, value in wanted.items():
        # Counters of BatchNorm, which old files lack, do not change an answer.
        if key in anew or (key not in state and key.endswith("num_batches_tracked")):
            continue
        if key not in state:
            return f"{key!r} is missing"
        if state[key].shape != value.shape:
            return f"{key!r} is {_shape(state[key])}, the model has {_shape(value)}"
    return next((f"{key!r} is not in the model" for key in state if key not in wanted), "")


def load_checkpoint(model: Model, path: Path, hint: str, anew: Sequence[str] = ()) -> Model:
    """``model`` with the weights of the state dict in ``path``, in the model's own precision.

    Args:
        hint: how the user gets a model that fits, for the message.
        anew: tensors that keep the model's own values where the file has none of their shape.

    Raises:
        UsageError: as :func:`read_state`; if a name or shape is not the model's, naming the first that differs.
    """
    state = read_state(path)
    if problem := misfit(model, state, anew):
        raise UsageError(f"checkpoint {path}: {problem}; {hint}")
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in state.items() if value.shape == own[key].shape}, strict=False)
    return model


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
