"""Settings of OCD as plain values. No torch here: the command line reads them before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench.errors import UsageError

CONDITIONS = ("input", "activation", "output")
"""I(x) by its parts."""


@dataclass(frozen=True)
class OCDSettings:
    """Section ``ocd``.

    Attributes:
        overfit_optimizer, overfit_lr, overfit_steps: how each sample is overfitted (``sgd`` or ``adam``).
        form: what of ΔW is predicted: ``full``, ``rank-one``, ``basis``, ``learned`` (a basis trained with the hypernetwork),
            ``input-basis``, or ``auto``: rank one where the layer sees one position per sample, else the shortest code that
            keeps the oracle's gain.
        basis: components of ``basis`` and ``learned``, or rank of ``input-basis``, where such a form is asked for by name.
        steps, batch_size, lr, weight_decay, lr_schedule, ema: training by AdamW (``cosine`` or ``constant`` after a warm-up)
            and the decay of the averaged weights, which are the ones used.
        evaluations: how often in training the validation loss is taken; the best weights are kept. 1: the last are.
        passes: overfit every training sample so many times beforehand, each time with other augmentation and subsample, and
            train on these; 0: anew for every batch, or one pass where nothing is random or a batch exceeds the memory.
        folds: cross-fitting: the training samples in so many folds, each overfitted from a base that was trained on the others;
            0: from the base itself. So many more trainings of the base, which are cached as it is.
        schedule, prediction, sampling_steps: of the diffusion: ``cosine``, ``code`` or ``paper``; ``v``, ``epsilon`` or ``x0``;
            DDIM steps. One step gives what the task's loss has trained; more of them draw from the overfitted changes' own
            spread.
        guidance: how far beyond what it would draw of nothing known the conditional draw goes (classifier-free guidance, Ho and
            Salimans 2022, in their notation 1 + w); 1: no further than the condition says, and nothing else is trained.
        unconditional: with guidance, the share of training noise levels at which the condition is withheld.
        noise_draws: noise levels per sample and training step; they share the encoding of the sample.
        task_weight: weight of the task's own loss of predicted changes, taken through the base, in units of what overfitting
            gains; 0: the hypernetwork only imitates overfitted changes, as in the paper.
        auxiliary: weight, beside ``task_weight``, of the loss of an answer read straight off the condition, where the answer is
            a small vector: it teaches the condition, and is not used afterwards; 0: none.
        task_draws, task_batch: how many noise levels, and of targets made beforehand how many samples of a batch (0: all), are
            run through the base.
        width, depth, dropout: of the hypernetwork; dropout is that of the condition.
        conditions: what of I(x) the hypernetwork is told: ``input`` and ``activation`` of the layer, ``output`` of the model.
        input_encoder: whether the condition holds the task's encoding of x itself (``Task.encode_input``).
        augment: whether training samples are augmented (``Task.augment``).
        gate: 0: none; else the share of the validation samples that must pass for samples of their kind, say 0.99. Others are
            strangers and keep the base's weights, where the task can tell them (``Task.signature``).
        scale_loss: ``log``, squared error of log rho, or ``db``, the published one.
        gains: factors of ΔW to choose from on validation samples; 0 is the base. A single one is taken unseen.
        gain_share: the least gain is taken that keeps this share of what the best one gains there: what a sample like those of
            training hardly misses spares a stranger much; 1: the best one.
        gain_margin: by how many standard errors a gain must better the primary metric of validation samples; 0: it must not
            make it worse. For a handful of validation samples, of which a few right by luck would do.
        val_samples: at most so many validation samples are looked at.
    """

    overfit_optimizer: str = "sgd"
    overfit_lr: float = 1e-2
    overfit_steps: int = 3
    form: str = "auto"
    basis: int = 64
    steps: int = 2000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-2
    lr_schedule: str = "cosine"
    ema: float = 0.999
    evaluations: int = 10
    passes: int = 0
    folds: int = 0
    schedule: str = "cosine"
    prediction: str = "v"
    sampling_steps: int = 1
    guidance: float = 1.0
    unconditional: float = 0.1
    noise_draws: int = 4
    task_weight: float = 10.0
    auxiliary: float = 1.0
    task_draws: int = 1
    task_batch: int = 0
    width: int = 256
    depth: int = 3
    dropout: float = 0.0
    conditions: tuple[str, ...] = CONDITIONS
    input_encoder: bool = True
    augment: bool = True
    gate: float = 0.0
    scale_loss: str = "log"
    gains: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    gain_share: float = 1.0
    gain_margin: float = 0.0
    val_samples: int = 2000

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 300, "batch_size": 64, "width": 128, "depth": 2, "val_samples": 500},
        "paper": {"steps": 10_000, "width": 384, "depth": 4, "sampling_steps": 10},
    }
    section: ClassVar[str] = "ocd"

    def __post_init__(self) -> None:
        choices = {
            "overfit_optimizer": ("sgd", "adam"),
            "form": ("auto", "full", "rank-one", "basis", "learned", "input-basis"),
            "lr_schedule": ("cosine", "constant"),
            "schedule": ("cosine", "code", "paper"),
            "prediction": ("v", "epsilon", "x0"),
            "scale_loss": ("log", "db"),
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)!r}: expected {', '.join(known)}")
        counts = (
            "overfit_steps",
            "basis",
            "steps",
            "batch_size",
            "evaluations",
            "sampling_steps",
            "noise_draws",
            "task_draws",
            "width",
            "depth",
        )
        for key in (*counts, "val_samples"):
            if getattr(self, key) < 1:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)}: expected 1 or more")
        for key in ("overfit_lr", "lr"):
            if not getattr(self, key) > 0:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)}: expected more than 0")
        for key in ("passes", "weight_decay", "task_weight", "auxiliary", "task_batch", "gain_margin"):
            if getattr(self, key) < 0:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)}: expected 0 or more")
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"setting {self.section}.folds={self.folds}: expected 0, or 2 or more")
        if self.folds and self.task_batch:
            raise UsageError(f"settings {self.section}: with folds the whole batch is run through the base; take task_batch=0")
        for key in ("ema", "dropout", "unconditional"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)}: expected 0 or more, and less than 1")
        for key in ("gate", "gain_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"setting {self.section}.{key}={getattr(self, key)}: expected 0 to 1")
        if unknown := set(self.conditions) - set(CONDITIONS):
            raise UsageError(
                f"setting {self.section}.conditions={','.join(self.conditions)}: {sorted(unknown)[0]!r} is none of input, "
                "activation, output"
            )
        if not self.gains or min(self.gains) < 0:
            raise UsageError(f"setting {self.section}.gains={self.gains}: expected at least one number, none negative")
        if not 0 < self.guidance < float("inf"):
            raise UsageError(f"setting {self.section}.guidance={self.guidance}: expected more than 0")
        if self.guidance != 1 and (not self.unconditional or (self.task_weight and self.noise_draws <= self.task_draws)):
            raise UsageError(
                f"setting {self.section}.guidance={self.guidance}: the network must also be trained without the condition; "
                f"take {self.section}.unconditional above 0, and {self.section}.noise_draws above task_draws"
            )
        if self.prediction == "epsilon" and self.schedule == "cosine":
            raise UsageError(
                f"settings {self.section}: prediction=epsilon is undefined where the cosine schedule ends, in pure noise; "
                "take prediction=v, or schedule=code"
            )


@dataclass(frozen=True)
class PaperSettings(OCDSettings):
    """Section ``ocd_paper``: the U-Net over the full weight matrix, with the hyper-parameters of the paper and its code.

    Where the two differ the code is followed, since it made the published numbers: T = 1000 (with the printed T = 10 training
    never sees the noise that sampling begins with), epsilon prediction, three Adam steps of 5e-4, unit variance instead of unit
    norm. No encoder of x, no augmentation, no choice on validation samples.

    Attributes:
        scaled: False is the paper's ablation without the scale network.
        vgg11: weights of VGG11 for outputs that are pictures or spectrograms (``Task.output_picture``): a file with
            torchvision's state dict; empty for the file that torchvision's own loader has left in its cache; ``off`` for the
            task's own features of the output, which is not the published method.
        channels, multipliers, blocks, attention: of the U-Net, see :class:`ocd_bench.engine.unet.UNet`; these have 112 million
            parameters on LeNet5's fc1. The code has six levels (1, 1, 2, 2, 4, 4), and fewer for other layers.
        unet_dropout: in the U-Net's residual blocks. The code's for LeNet5 is 0.4; the paper names none.
    """

    overfit_optimizer: str = "adam"
    overfit_lr: float = 5e-4
    form: str = "full"
    steps: int = 10_000
    batch_size: int = 16
    lr: float = 1e-4
    weight_decay: float = 0.0
    lr_schedule: str = "constant"
    evaluations: int = 1
    schedule: str = "code"
    prediction: str = "epsilon"
    sampling_steps: int = 10
    noise_draws: int = 1
    task_weight: float = 0.0
    input_encoder: bool = False
    augment: bool = False
    scale_loss: str = "db"
    gains: tuple[float, ...] = (1.0,)
    scaled: bool = True
    vgg11: str = ""
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (3,)
    unet_dropout: float = 0.0

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 30, "batch_size": 8, "channels": 8, "blocks": 1, "sampling_steps": 4, "val_samples": 32},
        "paper": {"steps": 50_000, "batch_size": 8, "ema": 0.9999, "unet_dropout": 0.4},
    }
    section: ClassVar[str] = "ocd_paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"setting {self.section}"
        if self.channels < 2 or self.channels % 2:
            raise UsageError(f"{where}.channels={self.channels}: expected an even number, 2 or more")
        if not self.multipliers or min(self.multipliers) < 1:
            raise UsageError(f"{where}.multipliers={self.multipliers}: expected one whole number per level, 1 or more")
        if self.blocks < 1:
            raise UsageError(f"{where}.blocks={self.blocks}: expected 1 or more")
        if not all(0 <= level < len(self.multipliers) for level in self.attention):
            raise UsageError(
                f"{where}.attention={self.attention}: expected levels from 0 to {len(self.multipliers) - 1}, or nothing"
            )
        if not 0 <= self.unet_dropout < 1:
            raise UsageError(f"{where}.unet_dropout={self.unet_dropout}: expected 0 or more, and less than 1")
