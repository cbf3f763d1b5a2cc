"""The settings of the task: section ``images``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocd_bench import Request, setting
from ocd_bench.settings import Checked

MODELS = ("lenet5", "lenet5-bn", "resnet18", "resnet18-slim", "googlenet", "deit")


@dataclass(frozen=True)
class ImagesSettings(Checked):
    """Section ``images``: which samples, and which base model."""

    model: str = setting(
        "auto",
        choices=("auto", *MODELS),
        help="The base model. auto: lenet5 for grey pictures up to 40 pixels; for others resnet18, but up to 40 pixels "
        "googlenet under the preset paper and lenet5-bn under quick (larger ones: resnet18-slim), so that a quick run "
        "is short on a CPU.",
    )
    checkpoint: str = setting(
        "",
        help="A file with a state dict for the model. Base training is then skipped, and the table says so. The file is "
        "looked for as given, then in the data directories. Weights that saw our validation part in their training "
        "(as those of the paper's authors did) make validation too optimistic.",
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
    download: bool = setting(False, help="For model=deit: whether transformers may download that name (never with --offline).")
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


def settings_of(request: Request) -> ImagesSettings:
    """The request's settings, or the defaults where a caller gave none."""
    return request.settings if request.settings is not None else ImagesSettings()
