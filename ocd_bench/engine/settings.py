"""Section ``ocd``: the settings of OCD as plain values. No torch here: the command line reads them before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench.errors import UsageError
from ocd_bench.precision import PRECISIONS
from ocd_bench.settings import Checked, setting

SHIPPED_FORMS = ("auto", "full", "rank-one", "basis", "learned", "input-basis")
"""Forms of ΔW that come with the engine, and the choice among them. A plugin may add its own (ocd_bench.engine.forms)."""

CONDITIONS = ("input", "activation", "output")
"""The parts of the condition I(x) (paper, section 3.1)."""


@dataclass(frozen=True)
class OCDSettings(Checked):
    """Section ``ocd``. The defaults were chosen on validation samples of the five tasks (docs/findings.md)."""

    # -- overfitting each training sample: the targets
    overfit_optimizer: str = setting(
        "sgd", choices=("sgd", "adam"), help="Optimizer that overfits the layer to one training sample."
    )
    overfit_lr: float = setting(1e-2, above=0, help="Learning rate of overfitting.")
    overfit_steps: int = setting(3, least=1, unit="steps", help="Gradient steps of overfitting (paper: 3).")
    form: str = setting(
        "auto",
        help="What of the weight change ΔW the hypernetwork predicts. full: the matrix. rank-one: one outer product. "
        "basis: coefficients of the principal components of the training samples' ΔW. learned: coefficients of a "
        "basis that is trained with the hypernetwork. input-basis: ΔW restricted to the main directions of the "
        "layer's input. A plugin's form has the name that the plugin gives it. "
        "auto: rank-one where the layer runs at one position per sample, else the shortest code that "
        "keeps the oracle's gain.",
    )
    basis: int = setting(
        64,
        least=1,
        help="Components of form=basis and form=learned, or the rank of form=input-basis. form=auto chooses its own.",
    )
    # -- training the hypernetwork
    steps: int = setting(2000, least=1, unit="steps", help="Training steps of the hypernetwork (AdamW).")
    batch_size: int = setting(128, least=1, unit="samples", help="Samples of a training batch of the hypernetwork.")
    lr: float = setting(1e-3, above=0, help="Learning rate of the hypernetwork.")
    weight_decay: float = setting(1e-2, least=0, help="Weight decay of the hypernetwork's AdamW.")
    lr_schedule: str = setting(
        "cosine", choices=("cosine", "constant"), help="Course of the learning rate after a short linear warm-up."
    )
    ema: float = setting(
        0.999, least=0, below=1, help="Decay of the moving average of the weights. The averaged weights are the ones used."
    )
    evaluations: int = setting(
        10,
        least=1,
        help="How often the validation loss is taken during training. The weights of the lowest one are kept. 1: the last "
        "weights are kept.",
    )
    precision: str = setting(
        "float32",
        choices=PRECISIONS,
        help="Precision in training. bf16: matrix products and convolutions in bfloat16, faster on a GPU. Targets and "
        "predictions are float32.",
    )
    passes: int = setting(
        0,
        least=0,
        unit="passes",
        help="How often every training sample is overfitted before training, each time with another augmentation and "
        "subsample. 0: anew for every batch; but once beforehand where nothing is random or a batch does not fit into "
        "memory.",
    )
    folds: int = setting(
        0,
        least=2,
        also=(0,),
        unit="folds",
        help="Cross-fitting: the training samples are split into this many folds, and each fold is overfitted from a base "
        "that was trained on the others. This costs as many further trainings of the base, which are cached. 0: no "
        "cross-fitting.",
    )
    # -- the diffusion
    schedule: str = setting(
        "cosine",
        choices=("cosine", "code", "paper"),
        help="Noise schedule of the diffusion. code: linear with 1000 levels, as in the authors' code; paper: linear with "
        "the 10 levels that the paper prints.",
    )
    prediction: str = setting(
        "v", choices=("v", "epsilon", "x0"), help="What the network predicts: the velocity v, the noise, or the clean code."
    )
    sampling_steps: int = setting(
        1,
        least=1,
        unit="steps",
        help="DDIM steps at test time. One step gives the prediction that the task's loss has trained; several steps "
        "sample the distribution of the overfitted changes.",
    )
    guidance: float = setting(
        1.0,
        above=0,
        help="Classifier-free guidance scale (Ho and Salimans 2022): uncond + guidance * (cond - uncond). 1: off, and no "
        "unconditional network is trained.",
    )
    unconditional: float = setting(
        0.1, least=0, below=1, help="With guidance: share of training noise levels at which the condition is withheld."
    )
    noise_draws: int = setting(
        4, least=1, unit="draws", help="Noise levels per sample and training step. They share the encoding of the sample."
    )
    # -- the task's own loss, through the base
    task_weight: float = setting(
        10.0,
        least=0,
        help="Weight of the task's own loss under the predicted weights, in units of what overfitting gains. 0: the "
        "hypernetwork only imitates overfitted changes, as in the paper.",
    )
    auxiliary: float = setting(
        1.0,
        least=0,
        help="Weight, beside task_weight, of the task's loss of an output that is read directly from the condition, where "
        "the output is a small vector. It trains the condition's encoders and is not used at test time. 0: off.",
    )
    task_draws: int = setting(1, least=1, unit="draws", help="Noise levels per sample that are run through the base.")
    task_batch: int = setting(
        0,
        least=0,
        unit="samples",
        help="Samples of a batch that are run through the base, where the targets were made beforehand. 0: all.",
    )
    # -- the hypernetwork
    width: int = setting(256, least=1, most=65_536, unit="units", help="Width of the hypernetwork.")
    depth: int = setting(3, least=1, most=1000, unit="blocks", help="Residual blocks of the hypernetwork.")
    dropout: float = setting(0.0, least=0, below=1, help="Dropout of the condition in training.")
    conditions: tuple[str, ...] = setting(
        CONDITIONS,
        choices=CONDITIONS,
        empty=True,
        help="Parts of I(x) that the hypernetwork is conditioned on: input and activation of the layer, output of the model.",
    )
    input_encoder: bool = setting(
        True, help="Whether the condition contains the task's encoding of the sample itself (Task.encode_input)."
    )
    augment: bool = setting(True, help="Whether the hypernetwork is trained on augmented samples (Task.augment).")
    gate: float = setting(
        0.0,
        least=0,
        most=1,
        help="Out-of-distribution gate: this share of the validation samples passes, for example 0.99. A sample that is "
        "further from the training samples (Mahalanobis distance of Task.signature) keeps the base's weights. 0: no "
        "gate.",
    )
    scale_loss: str = setting(
        "log", choices=("log", "db"), help="Loss of the scale network: squared error of log rho, or the published one in dB."
    )
    # -- the gain
    gains: tuple[float, ...] = setting(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
        least=0,
        help="Factors of ΔW. The best one on validation samples is used; 0 is the base. A single factor is used unseen.",
    )
    gain_share: float = setting(
        1.0,
        least=0,
        most=1,
        help="Of the gains that keep at least this share of the best gain's improvement on validation samples, take the "
        "smallest: it costs in-distribution samples little and harms others less. 1: the best gain.",
    )
    gain_margin: float = setting(
        0.0,
        least=0,
        unit="standard errors",
        help="By how many standard errors a gain must improve the primary metric of the validation samples. 0: it must not "
        "make it worse. Use it when the validation set is so small that a few lucky hits could select a gain.",
    )
    val_samples: int = setting(
        2000, least=1, unit="samples", help="Validation samples used at most, for early stopping and for choosing the gain."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 300, "batch_size": 64, "width": 128, "depth": 2, "val_samples": 500},
        "paper": {"steps": 10_000, "width": 384, "depth": 4, "sampling_steps": 10},
    }
    section: ClassVar[str] = "ocd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in SHIPPED_FORMS:
            from ocd_bench.engine.forms import FORMS  # torch, needed only for a name that is not shipped

            if self.form not in FORMS:
                names = ", ".join(dict.fromkeys((*SHIPPED_FORMS, *FORMS)))
                raise UsageError(f"setting {self.section}.form={self.form!r}: expected one of {names}")
        if self.folds and self.task_batch:
            raise UsageError(
                f"setting {self.section}.folds={self.folds}: with folds the whole batch is run through the base; "
                f"take {self.section}.task_batch=0"
            )
        if self.guidance != 1 and (not self.unconditional or (self.task_weight and self.noise_draws <= self.task_draws)):
            raise UsageError(
                f"setting {self.section}.guidance={self.guidance}: the network must also be trained without the condition; "
                f"take {self.section}.unconditional above 0, and {self.section}.noise_draws above task_draws"
            )
        if self.prediction == "epsilon" and self.schedule == "cosine":
            raise UsageError(
                f"setting {self.section}.prediction=epsilon is undefined where the cosine schedule ends, in pure noise; "
                f"take {self.section}.prediction=v, or {self.section}.schedule=code"
            )


@dataclass(frozen=True)
class NormSettings(Checked):
    """Section ``ocd_norms``: OCD on norm layers. Chosen on validation pictures under corruptions that no table reports."""

    steps: int = setting(60, least=0, unit="steps", help="Training steps of the hypernetwork (AdamW). 0: the rule, untrained.")
    batch_size: int = setting(64, least=1, unit="samples", help="Samples of a training batch.")
    lr: float = setting(2e-2, above=0, help="Learning rate.")
    weight_decay: float = setting(
        5.0, least=0, help="Weight decay of the correction of the rule. At d, AdamW keeps each number within about 1 / d of it."
    )
    evaluations: int = setting(
        3, least=1, help="How often the validation loss is taken during training. The weights of the lowest one are kept."
    )
    disturbed: float = setting(
        0.8, least=0, most=1, help="Share of the training samples whose features are disturbed in one layer."
    )
    strength: float = setting(
        0.7,
        least=0,
        help="Strength s of the disturbance: channels are scaled by exp(s z) and shifted by s z standard deviations.",
    )
    noise: float = setting(
        0.5, least=0, unit="standard deviations", help="Largest noise of the disturbance; each sample draws its own level."
    )
    gains: tuple[float, ...] = setting(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        least=0,
        most=1,
        help="Factors of the shares. The one of least loss on disturbed validation samples is used; 0 is the base.",
    )
    budget: float = setting(
        0.005,
        least=0,
        help="How much worse the primary metric of undisturbed validation samples may get, as a fraction of the base's value. "
        "Gains that cost more are not used.",
    )
    val_samples: int = setting(1000, least=1, unit="samples", help="Validation samples used at most.")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"steps": 30, "val_samples": 200}}
    section: ClassVar[str] = "ocd_norms"
