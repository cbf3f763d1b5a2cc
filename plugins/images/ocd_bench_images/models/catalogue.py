"""Networks of timm's catalogue: ``images.model=timm:NAME``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import nn

from ocd_bench import Unavailable, UsageError
from ocd_bench_images.models.pretrained import Pretrained
from ocd_bench_images.settings import TIMM

FILES = ("model.safetensors", "pytorch_model.bin")


def build(model: str, channels: int, classes: int, side: int, pretrained: bool) -> Pretrained:
    """The network with random weights, in front of it its own resizing and standardisation.

    Args:
        model: ``timm:NAME``.
        side: pixels square of the network's input; 0: what its weights were trained with where ``pretrained``, or where it
            takes no other size; else pictures as they are.

    Raises:
        Unavailable: without timm.
        UsageError: for a name timm does not know, or a network without a last linear layer.
    """
    timm, config = _timm(model)
    colours = 3 if pretrained else channels
    if not side and (pretrained or config.fixed_input_size):
        side = config.input_size[-1]
    sized: dict[str, Any] = {"img_size": side} if side and config.fixed_input_size else {}
    net = timm.create_model(model.removeprefix(TIMM), pretrained=False, num_classes=classes, in_chans=colours, **sized)
    head = getattr(config, "classifier", None) or ""
    if not isinstance(head, str) or not isinstance(dict(net.named_modules()).get(head), nn.Linear):
        raise UsageError(f"setting images.model={model!r}: its last layer is not one linear layer; choose another network")
    mean, sd = (config.mean, config.std) if colours == 3 else ((0.0,), (1.0,))
    return Pretrained(net, head, side, mean, sd)


def cached_weights(model: str, download: bool) -> Path:
    """The file of the network's weights in the local cache of the Hugging Face hub, or downloaded where that is asked for.

    Raises:
        Unavailable: if it is not there.
    """
    _, config = _timm(model)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = config.hf_hub_id
    for name in FILES if repository else ():
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    if download and repository:
        try:
            return Path(hf_hub_download(repository, FILES[0]))
        except Exception as error:  # the client raises errors of many kinds; the last line says what matters
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(f"model {model!r}: the download of {repository} failed ({reason})") from error
    raise Unavailable(
        f"model {model!r}: no weights at hand; give a file with --set images.checkpoint=FILE, allow the download with "
        f"--set images.download=true, or train it from random weights with --set images.checkpoint=none"
    )


def _timm(model: str) -> tuple[Any, Any]:
    """The library and the network's configuration."""
    try:
        import timm
    except ImportError as error:
        raise Unavailable(f"model {model!r} needs timm ({error}): pip install 'ocd-bench-images[timm]'") from error
    name = model.removeprefix(TIMM)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(TIMM + match for match in close)}" if close else ""
        raise UsageError(f"setting images.model={model!r}: timm {timm.__version__} has no such network{hint}")
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise UsageError(f"setting images.model={model!r}: timm has no settings of its input; choose another network")
    return timm, config
