"""Trained weights from a file, for tasks that can take some. It is a state dict; no code in it is executed.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ocd_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model", bound="torch.nn.Module")


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
        if place.is_file():
            return place
    raise UsageError(f"setting {setting}={name!r}: no such file; looked for {', '.join(map(str, places))}")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in ``path`` (bare, or under the key ``state_dict`` or ``model``), on the CPU.

    Raises:
        UsageError: if the file is not a state dict, or has weights that are not finite.
    """
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many kinds for damaged files
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
    """The first difference in names or shapes between ``state`` and the model's state dict, in words; empty if it fits.

    Args:
        model: the model that the weights are for.
        state: name to tensor.
        anew: names of tensors that may be missing in ``state``, or have another shape there.
    """
    wanted = model.state_dict()
    for key, value in wanted.items():
        # Old files lack the counters of BatchNorm, which do not change the outputs.
        if key in anew or (key not in state and key.endswith("num_batches_tracked")):
            continue
        if key not in state:
            return f"{key!r} is missing"
        if state[key].shape != value.shape:
            return f"{key!r} is {_shape(state[key])}, the model has {_shape(value)}"
    return next((f"{key!r} is not in the model" for key in state if key not in wanted), "")


def load_checkpoint(model: Model, path: Path, hint: str, anew: Sequence[str] = ()) -> Model:
    """Copy the state dict in ``path`` into ``model``, in the model's own precision, and return the model.

    Args:
        model: the model; changed in place.
        path: the file.
        hint: how the user gets a model that fits, for the message.
        anew: names of tensors that keep the model's values if the file has none of their shape.

    Raises:
        UsageError: as :func:`read_state`; and if a name or shape differs from the model's, with the first that differs.
    """
    state = read_state(path)
    if problem := misfit(model, state, anew):
        raise UsageError(f"checkpoint {path}: {problem}; {hint}")
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in state.items() if value.shape == own[key].shape}, strict=False)
    return model


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
