"""The settings of the task: section ``images``. No torch here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import ClassVar

from ocd_bench import Request, UsageError, setting
from ocd_bench.settings import Checked

RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56")
LITE = "efficientnet-lite0"
TIMM = "timm:"
"""``timm:NAME`` is any network of timm."""
MODELS = ("lenet5", "lenet5-bn", "resnet18", "resnet18-slim", *RESNETS, "googlenet", LITE, "deit")


@dataclass(frozen=True)
class ImagesSettings(Checked):
    """Section ``images``: which samples, and which base model."""

    model: str = setting(
        "auto",
        help=f"The base model: {', '.join(MODELS)}, or timm:NAME. auto: under the preset quick lenet5-bn up to 40 pixels, and "
        "resnet18-slim above, which have BatchNorm and are fast on a CPU; else lenet5 for grey pictures up to 40 pixels, and "
        "resnet18 for others (under the preset paper googlenet up to 40 pixels).",
    )
    checkpoint: str = setting(
        "",
        help="A file with a state dict for the model, looked for as given, then in the data directories. Base training is then "
        "skipped, and the table says so. Empty: the weights found by the model's name, if any. none: train from random "
        "weights. Weights that saw our validation part in their training (as those of the paper's authors did) make "
        "validation too optimistic.",
    )
    checkpoint_key: str = setting(
        "",
        help="Which weights of a checkpoint file that holds several, for example model_ema; the error message lists them. "
        "Empty: the only ones.",
    )
    pretrained: str = setting(
        "facebook/deit-base-distilled-patch16-224",
        help="For model=deit: a folder as transformers saves it, or a name in its local cache.",
    )
    download: bool = setting(
        False, help="For deit and timm:NAME: whether the library may download the weights (never with --offline)."
    )
    input_size: int = setting(
        0,
        least=0,
        most=65_536,
        unit="pixels",
        help="For efficientnet-lite0 and timm:NAME: the network resizes pictures to a square of this side. 0: 128, and for "
        "timm what its weights were trained with.",
    )
    norm_statistics: str = setting(
        "training",
        choices=("training", "weights"),
        help="Means and variances of the batch norm layers of a network whose last layer alone is trained here: of the "
        "training pictures, or those that come with its weights.",
    )
    corruption_files: str = setting(
        "",
        help="A folder of published corruption files (CIFAR-10-C, Tiny-ImageNet-C), looked for as given, then in the data "
        "directories. --corruption then reads them and computes nothing.",
    )
    report_on: str = setting(
        "test",
        choices=("test", "validation"),
        help="Which samples the table is of. validation: for choosing settings without a look at the test set.",
    )
    train_samples: int = setting(0, least=0, unit="samples", help="Size of a random subset of the training samples. 0: all.")
    test_samples: int = setting(
        0, least=0, unit="samples", help="Size of a random subset of the test samples, the same for every seed. 0: all."
    )
    image_size: int = setting(
        0, least=0, most=65_536, unit="pixels", help="Resize pictures to a square of this side. 0: the stored size."
    )
    background: str = setting(
        "", choices=("black", "white"), also=("",), help="What transparent pictures are set on. Empty: they are refused."
    )
    section: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in ("auto", *MODELS) and not self.model.startswith(TIMM):
            close = difflib.get_close_matches(self.model, MODELS, n=3, cutoff=0.5)
            hint = f" (nearest: {', '.join(close)})" if close else ""
            known = f"auto, {', '.join(MODELS)}, {TIMM}NAME"
            raise UsageError(f"setting images.model={self.model!r}: unknown model{hint}; expected {known}")


def settings_of(request: Request) -> ImagesSettings:
    """The request's settings, or the defaults where a caller gave none."""
    return request.settings if request.settings is not None else ImagesSettings()
