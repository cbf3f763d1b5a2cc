"""Trained weights from a file: a state dict, read without running anything from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ocd_bench import UsageError

Model = TypeVar("Model", bound=nn.Module)
_MODEL_HINT = "choose the fitting model and dataset (--set images.model=NAME)"


def find_checkpoint(name: str, directories: Sequence[Path]) -> Path:
    """The file as given, or below the first data directory that has it.

    Raises:
        UsageError: naming every place looked at.
    """
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [given, *(directory / given for directory in directories)]
    for place in places:
        if place.is_file():
            return place
    raise UsageError(f"setting images.checkpoint={name!r}: no such file; looked for {', '.join(map(str, places))}")


def load_checkpoint(model: Model, path: Path) -> Model:
    """``model`` with the weights of the state dict in ``path`` (bare, or under the key ``state_dict`` or ``model``).

    Raises:
        UsageError: if the file is no such thing, or its keys or shapes are not the model's; names the first that differs.
    """
    state = _read(path)
    wanted = model.state_dict()
    for key, value in wanted.items():
        # Counters of BatchNorm, which old files lack, do not change an answer.
        if key not in state and not key.endswith("num_batches_tracked"):
            raise UsageError(f"checkpoint {path}: {key!r} is missing; {_MODEL_HINT}")
        if key in state and state[key].shape != value.shape:
            raise UsageError(
                f"checkpoint {path}: {key!r} is {_shape(state[key])}, the model has {_shape(value)}; {_MODEL_HINT}"
            )
    for key, value in state.items():
        if key not in wanted:
            raise UsageError(f"checkpoint {path}: {key!r} is not in the model; {_MODEL_HINT}")
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(f"checkpoint {path}: {key!r} holds NaN or infinite weights; train it again")
    model.load_state_dict(state, strict=False)
    return model


def _read(path: Path) -> dict[str, torch.Tensor]:
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
    return dict(content)


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
