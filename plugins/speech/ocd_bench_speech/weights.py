"""Initial weights of a separator: those of this package, or a file of the user.

Training a good separator takes hours. ``bases/{dataset}-{speakers}.pt`` are state dicts in half precision of separators that
this package trained on the training speech of that dataset (for two speakers with an hour more of the same speakers, see the
README). One is used if all of its tensors fit the model of the settings.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ocd_bench import Request
from ocd_bench.checkpoint import find_checkpoint, load_checkpoint, misfit, read_state
from ocd_bench_speech.models import build, last_projection

FOLDER = Path(__file__).with_name("bases")
AUTO, NONE = "auto", ("", "none")


def packaged(request: Request) -> Path | None:
    """The packaged weights for the request's dataset, number of speakers and model sizes; None if there are none, or if
    ``speech.checkpoint`` names others."""
    settings = request.settings
    path = FOLDER / f"{request.dataset}-{settings.speakers}.pt"
    if settings.checkpoint != AUTO or not path.is_file():
        return None
    with torch.device("meta"):  # only names and shapes are needed
        model = build(settings)
    return None if misfit(model, read_state(path)) else path


def given(request: Request) -> Path | None:
    """The file that ``speech.checkpoint`` names, looked for as given, then in the data directories.

    Raises:
        UsageError: if it is not there.
    """
    name = request.settings.checkpoint
    return None if name == AUTO or name in NONE else find_checkpoint("speech.checkpoint", name, request.data_dirs)


def begin(model: nn.Module, request: Request) -> nn.Module:
    """``model`` with the weights of the file given, if any.

    If training continues from there (``base_steps``), the last projection in the file may have another number of speakers. The
    model then keeps its own weights for it.

    Raises:
        UsageError: if the file cannot be read, or another tensor does not fit the model.
    """
    path = given(request)
    if path is None:
        return model
    steps, layer = request.settings.base_steps, last_projection(model)
    anew = (f"{layer}.weight", f"{layer}.bias") if steps and layer else ()
    hint = "choose speech.model and its sizes to fit" + ("" if steps else "; speech.base_steps=0 takes a file as it is")
    key = request.settings.checkpoint_key
    return load_checkpoint(model, path, hint, anew, key=key, setting="speech.checkpoint_key")


def note(request: Request) -> str:
    """``; base weights packaged (NAME)``, ``; base begins from NAME``, or nothing."""
    if path := packaged(request):
        return f"; base weights packaged ({path.name})"
    path = given(request)
    return f"; base begins from {path.name}" if path else ""
