"""Section ``ocd_paper``: the published method's settings as plain values. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench.engine.settings import OCDSettings
from ocd_bench.errors import UsageError
from ocd_bench.precision import PRECISIONS
from ocd_bench.settings import setting, with_default


@dataclass(frozen=True)
class PaperSettings(OCDSettings):
    """Section ``ocd_paper``: the U-Net over the full weight matrix, with the hyper-parameters of the paper and its code.

    Where paper and code differ, the settings follow the code, because it produced the published numbers: 1000 noise levels
    (with the printed 10, training does not include the noise level at which sampling starts), epsilon prediction, three Adam
    steps of 5e-4, unit variance instead of unit norm. There is no encoder of x, no augmentation, and no choice on validation
    samples.
    """

    overfit_optimizer: str = with_default(OCDSettings, "overfit_optimizer", "adam")
    overfit_lr: float = with_default(OCDSettings, "overfit_lr", 5e-4)
    form: str = with_default(OCDSettings, "form", "full")
    precision: str = setting(
        "float32",
        choices=PRECISIONS,
        help="Precision in training, and of the U-Net's predictions on a GPU. bf16: matrix products and convolutions in "
        "bfloat16, faster on a GPU. Targets are float32.",
    )
    steps: int = with_default(OCDSettings, "steps", 10_000)
    batch_size: int = with_default(OCDSettings, "batch_size", 16)
    lr: float = with_default(OCDSettings, "lr", 2e-4)
    weight_decay: float = with_default(OCDSettings, "weight_decay", 0.0)
    lr_schedule: str = with_default(OCDSettings, "lr_schedule", "constant")
    evaluations: int = with_default(OCDSettings, "evaluations", 1)
    schedule: str = with_default(OCDSettings, "schedule", "code")
    prediction: str = with_default(OCDSettings, "prediction", "epsilon")
    sampling_steps: int = with_default(OCDSettings, "sampling_steps", 10)
    noise_draws: int = with_default(OCDSettings, "noise_draws", 1)
    task_weight: float = with_default(OCDSettings, "task_weight", 0.0)
    input_encoder: bool = with_default(OCDSettings, "input_encoder", False)
    augment: bool = with_default(OCDSettings, "augment", False)
    scale_loss: str = with_default(OCDSettings, "scale_loss", "db")
    gains: tuple[float, ...] = with_default(OCDSettings, "gains", (1.0,))
    times: str = setting(
        "code",
        choices=("code", "even"),
        help="Noise levels at which samples are taken. code: as the authors' code, so that the last level is the first of the "
        "schedule (of 1000 levels and 10 steps: 900, 800, ..., 0). even: from the last level on (999, 899, ..., 99).",
    )
    scaled: bool = setting(True, help="Whether the scale network is used. false: the paper's ablation without it.")
    vgg11: str = setting(
        "",
        help="Weights of the VGG11 that encodes outputs which are pictures or spectrograms (Task.output_picture): a file "
        "with torchvision's state dict. Empty: the file that torchvision's own loader has left in its cache. off: the "
        "task's own features of the output, which is not the published method.",
    )
    channels: int = setting(
        128,
        least=2,
        most=4096,
        multiple=2,
        help="Base channels of the U-Net. With the default levels it has 112 million parameters on LeNet5's fc1.",
    )
    multipliers: tuple[int, ...] = setting(
        (1, 2, 2, 4, 4),
        least=1,
        most=64,
        help="Channels of each level of the U-Net, as multiples of 'channels'. The authors' code has six levels "
        "(1,1,2,2,4,4) for LeNet5, and fewer for other layers.",
    )
    blocks: int = setting(2, least=1, most=64, unit="blocks", help="Residual blocks of each level.")
    attention: tuple[int, ...] = setting(
        (3,), least=0, empty=True, help="Levels with self-attention, counted from 0. Empty: none."
    )
    unet_dropout: float = setting(
        0.0,
        least=0,
        below=1,
        help="Dropout in the residual blocks of the U-Net. The authors' code has 0.4 for LeNet5; the paper gives none.",
    )
    minutes: float = setting(
        0.0,
        least=0,
        unit="minutes",
        help="The training ends after this time, whatever its steps. 0: no limit. With a limit the numbers depend on the "
        "speed of the machine.",
    )
    compile: bool = setting(
        False,
        help="Whether the U-Net's training steps run through torch.compile on a GPU. The first one then takes a minute or "
        "two. Rounding differs.",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 30, "batch_size": 8, "channels": 8, "blocks": 1, "sampling_steps": 4, "val_samples": 32},
        "paper": {"steps": 50_000, "batch_size": 8, "ema": 0.9999, "unet_dropout": 0.4},
    }
    section: ClassVar[str] = "ocd_paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(level < len(self.multipliers) for level in self.attention):
            levels = f"levels from 0 to {len(self.multipliers) - 1}"
            raise UsageError(f"setting {self.section}.attention={self.attention}: expected {levels}, or nothing")
        if self.times == "code" and self.sampling_steps < 2:
            raise UsageError(
                f"setting {self.section}.times=code: one step would be at level 0, which takes noise for a clean sample; take "
                f"{self.section}.times=even, or {self.section}.sampling_steps of 2 or more"
            )
