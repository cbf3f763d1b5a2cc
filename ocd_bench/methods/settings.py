"""Sections of the methods other than OCD, as plain values. No torch here: ``ocd-bench list settings`` reads them.

Each class is the ``Settings`` of the methods of its section; numbers are those of the method's paper or of its authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ocd_bench.settings import Checked, setting


@dataclass(frozen=True)
class TentSettings(Checked):
    """Section ``tent``: Adam's numbers as in the example configuration of the authors' code."""

    lr: float = setting(1e-3, least=0, help="Learning rate of Adam for the parameters of norm layers.")
    betas: tuple[float, ...] = setting((0.9, 0.999), least=0, below=1, length=2, help="The two decay rates of Adam.")
    weight_decay: float = setting(0.0, least=0, help="Weight decay of Adam.")
    steps: int = setting(1, least=1, unit="steps", help="Updates per test batch of tent, tent-norm and tent-layer.")
    episodic_steps: int = setting(
        2, least=2, unit="steps", help="Updates per test batch of tent-episodic. One step would give the output of bn-adapt."
    )
    layer_lr: float = setting(
        1e-3, least=0, help="Learning rate of tent-layer, whose weights have another scale than those of a norm layer."
    )
    dropout: bool = setting(
        True,
        help="Whether dropout is active in tent and tent-episodic, as in the authors' code. false: the model is in eval mode, "
        "and only BatchNorm2d uses the statistics of the batch.",
    )
    section: ClassVar[str] = "tent"


@dataclass(frozen=True)
class MemoSettings(Checked):
    """Section ``memo``: the paper's numbers for CIFAR-10."""

    lr: float = setting(5e-3, least=0, help="Learning rate of SGD (paper: 5e-3).")
    steps: int = setting(1, least=1, unit="steps", help="Gradient steps per test sample (paper: 1).")
    copies: int = setting(32, least=1, most=65_536, unit="copies", help="Augmented copies of each test sample (paper: 32).")
    chunk: int = setting(16, least=1, unit="samples", help="Samples whose copies are made at once.")
    section: ClassVar[str] = "memo"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"copies": 8}}


@dataclass(frozen=True)
class T3aSettings(Checked):
    """Section ``t3a``."""

    filter: int = setting(
        100, least=0, unit="features", help="Features kept per class, those of lowest entropy (M in the paper). 0: all."
    )
    section: ClassVar[str] = "t3a"


MANY_CLASSES = 400
"""From this number of classes on, the ImageNet numbers of EATA and SAR apply. Over K equally frequent classes the cosine of a
sure prediction to the running mean is 1/√K, so EATA's ImageNet distance of 0.05 accepts no sample below K = 400."""


@dataclass(frozen=True)
class EataSettings(Checked):
    """Section ``eata``. What is -1 depends on the number of classes K."""

    lr: float = setting(
        -1.0,
        least=0,
        also=(-1.0,),
        help="Learning rate of SGD. -1: 0.005 for fewer than 400 classes (the paper's rate for CIFAR-10), else 0.00025 "
        "(ImageNet).",
    )
    momentum: float = setting(0.9, least=0, below=1, help="Momentum of SGD.")
    margin: float = setting(
        0.4,
        least=0,
        unit="ln K",
        help="Entropy threshold E0, as a fraction of ln K for K classes. Samples of higher entropy are not used.",
    )
    distance: float = setting(
        -1.0,
        least=0,
        also=(-1.0,),
        help="A sample is used if the cosine similarity of its prediction to the running mean prediction is below this "
        "value. More than 1: every sample. -1: 0.4 for fewer than 400 classes, else 0.05.",
    )
    alpha: float = setting(
        -1.0,
        least=0,
        also=(-1.0,),
        help="Weight of the Fisher penalty. 0: none. -1: 1 for fewer than 400 classes, else 2000.",
    )
    fisher_samples: int = setting(
        2000, least=1, unit="samples", help="Validation samples on which the Fisher information is estimated."
    )
    fisher_batch: int = setting(64, least=1, unit="samples", help="Batch size of that estimate.")
    dropout: bool = setting(
        True,
        help="Whether dropout is active, as in the authors' code. false: the model is in eval mode, and only BatchNorm2d uses "
        "the statistics of the batch.",
    )
    section: ClassVar[str] = "eata"

    def resolved(self, classes: int) -> EataSettings:
        """These settings with the values for ``classes`` classes in place of -1."""
        many = classes >= MANY_CLASSES
        return replace(
            self,
            lr=self.lr if self.lr >= 0 else (2.5e-4 if many else 5e-3),
            distance=self.distance if self.distance >= 0 else (0.05 if many else 0.4),
            alpha=self.alpha if self.alpha >= 0 else (2000.0 if many else 1.0),
        )


@dataclass(frozen=True)
class SarSettings(Checked):
    """Section ``sar``: the paper's numbers; the rate depends on the network."""

    lr: float = setting(
        -1.0,
        least=0,
        also=(-1.0,),
        help="Learning rate of SGD. -1: 0.001 where all norm layers are LayerNorm (the authors' rate for ViT), else 0.005 for "
        "fewer than 400 classes and 0.00025 for more (the authors' rate for ResNet-50 on ImageNet).",
    )
    momentum: float = setting(0.9, least=0, below=1, help="Momentum of SGD.")
    margin: float = setting(
        0.4,
        least=0,
        unit="ln K",
        help="Entropy threshold E0, as a fraction of ln K for K classes. Samples of higher entropy are not used.",
    )
    rho: float = setting(0.05, least=0, help="Radius of the sharpness-aware step.")
    recover: float = setting(
        -1.0,
        least=0,
        also=(-1.0,),
        unit="nats",
        help="The model is reset when the moving average of the entropy falls below this value. -1: 0.2 for the 1,000 "
        "classes of ImageNet (the paper's value), and for K classes in proportion to ln K, as the margin is.",
    )
    share: float = setting(
        0.75,
        above=0,
        most=1,
        help="Share of the norm layers, counted from the input, that are adapted. The paper names the top blocks that it "
        "leaves out, about a quarter of the layers of its nets.",
    )
    dropout: bool = setting(
        True,
        help="Whether dropout is active, as in the authors' code. false: the model is in eval mode, and only BatchNorm2d uses "
        "the statistics of the batch.",
    )
    section: ClassVar[str] = "sar"

    def resolved(self, classes: int, layer_norm_only: bool) -> SarSettings:
        """These settings with the values for ``classes`` classes and the network's norm layers in place of -1."""
        rate = 1e-3 if layer_norm_only else 2.5e-4 if classes >= MANY_CLASSES else 5e-3
        threshold = 0.2 * math.log(classes) / math.log(1000)
        return replace(self, lr=self.lr if self.lr >= 0 else rate, recover=self.recover if self.recover >= 0 else threshold)


@dataclass(frozen=True)
class LameSettings(Checked):
    """Section ``lame``."""

    neighbours: int = setting(5, least=1, unit="samples", help="Nearest neighbours of the affinity (k in the paper).")
    iterations: int = setting(100, least=1, unit="updates", help="Updates per test batch at most.")
    section: ClassVar[str] = "lame"


@dataclass(frozen=True)
class FinetuneSettings(Checked):
    """Section ``finetune``. All else is as in section ``ocd``: steps, batches, copies, validation, gains."""

    lr: tuple[float, ...] = setting(
        (1e-4, 1e-3),
        above=0,
        help="Learning rates of AdamW. The base is trained further once with each, and the best on validation samples counts.",
    )
    section: ClassVar[str] = "finetune"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"lr": (1e-3,)}}


@dataclass(frozen=True)
class LongerSettings(Checked):
    """Section ``base_longer``."""

    share: float = setting(
        1.0,
        above=0,
        unit="of ocd's cost",
        help="How much longer the base is trained, as a share of what the fit of ocd costs (counted in multiplications).",
    )
    section: ClassVar[str] = "base_longer"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"share": 0.25}}


@dataclass(frozen=True)
class OracleSettings(Checked):
    """Section ``oracle``: how a test sample is overfitted. By default as ``ocd`` overfits its training samples."""

    optimizer: str = setting(
        "", choices=("sgd", "adam"), also=("",), help="Optimizer. Empty: the one of ocd.overfit_optimizer."
    )
    lr: float = setting(0.0, least=0, help="Learning rate. 0: the one of ocd.overfit_lr.")
    steps: int = setting(0, least=0, unit="steps", help="Gradient steps. 0: as many as ocd.overfit_steps.")
    section: ClassVar[str] = "oracle"


@dataclass(frozen=True)
class MixNormSettings(Checked):
    """Section ``mixnorm``: the paper's numbers."""

    share: float = setting(
        0.05, least=0, most=1, help="Share of the sample's own statistics in the mixture (scale m in the paper: 0.05)."
    )
    speed: float = setting(
        1e-3,
        least=0,
        below=1,
        help="By how much each test sample moves the statistics that its own are mixed into (τ in the paper: 0.001). 0: those "
        "of the training set, fixed.",
    )
    copies: int = setting(1, least=0, unit="copies", help="Augmented copies whose statistics are pooled with the sample's own.")
    section: ClassVar[str] = "mixnorm"


@dataclass(frozen=True)
class SitaSettings(Checked):
    """Section ``sita``: fixed defaults, not tuned (docs/methods.md)."""

    prior: float = setting(
        0.8, least=0, most=1, help="Share of the training set's statistics in the mixture (λ in the paper). Not tuned."
    )
    copies: int = setting(
        7, least=0, unit="copies", help="Augmented copies whose statistics are pooled with the sample's own. Not tuned."
    )
    section: ClassVar[str] = "sita"


@dataclass(frozen=True)
class TtnSettings(Checked):
    """Section ``ttn``: rate, batch size and penalty as in the paper; fewer steps, which are ours."""

    steps: int = setting(100, least=0, unit="steps", help="Training steps of α (paper: several epochs).")
    lr: float = setting(1e-3, above=0, help="Learning rate of Adam for α (paper: 1e-3).")
    batch_size: int = setting(200, least=2, unit="samples", help="Samples of a training batch of α (paper, CIFAR-10: 200).")
    penalty: float = setting(1.0, least=0, help="Weight of the mean squared distance of α from its start (λ in the paper: 1).")
    prior_samples: int = setting(
        1000, least=1, unit="samples", help="Training samples from whose gradients the start of α is computed."
    )
    section: ClassVar[str] = "ttn"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"steps": 20, "prior_samples": 200, "batch_size": 64}}
