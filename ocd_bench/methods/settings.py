"""Sections of the methods other than OCD, as plain values. No torch here: ``ocd-bench list settings`` reads them.

Each class is the ``Settings`` of the methods of its section; numbers are those of the method's paper or of its authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.settings import Checked, setting

if TYPE_CHECKING:
    pass


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
    section: ClassVar[str] = "tent"


@dataclass(frozen=True)
class MemoSettings(Checked):
    """Section ``memo``: the paper's numbers for CIFAR-10."""

    lr: float = setting(5e-3, least=0, help="Learning rate of SGD (paper: 5e-3).")
    steps: int = setting(1, least=1, unit="steps", help="Gradient steps per test sample (paper: 1).")
    copies: int = setting(32, least=1, most=65_536, unit="copies", help="Augmented copies of each test sample (paper: 32).")
    chunk: int = setting(
        16, least=1, unit="samples", help="Samples that are adapted at once. Each needs memory for its own copy of all weights."
    )
    section: ClassVar[str] = "memo"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"copies": 8}}


@dataclass(frozen=True)
class T3aSettings(Checked):
    """Section ``t3a``."""

    filter: int = setting(
        100, least=0, unit="features", help="Features kept per class, those of lowest entropy (M in the paper). 0: all."
    )
    section: ClassVar[str] = "t3a"


@dataclass(frozen=True)
class EataSettings(Checked):
    """Section ``eata``: the paper's ImageNet numbers."""

    lr: float = setting(2.5e-4, least=0, help="Learning rate of SGD (paper: 2.5e-4).")
    momentum: float = setting(0.9, least=0, below=1, help="Momentum of SGD.")
    margin: float = setting(
        0.4,
        least=0,
        unit="ln K",
        help="Entropy threshold E0, as a fraction of ln K for K classes. Samples of higher entropy are not used.",
    )
    distance: float = setting(
        0.05,
        least=-1,
        help="A sample is used if the cosine similarity of its prediction to the running mean prediction is below this "
        "value. More than 1: every sample.",
    )
    alpha: float = setting(2000.0, least=0, help="Weight of the Fisher penalty. 0: none.")
    fisher_samples: int = setting(
        2000, least=1, unit="samples", help="Validation samples on which the Fisher information is estimated."
    )
    fisher_batch: int = setting(64, least=1, unit="samples", help="Batch size of that estimate.")
    section: ClassVar[str] = "eata"


@dataclass(frozen=True)
class SarSettings(Checked):
    """Section ``sar``: the paper's numbers for convolutional nets."""

    lr: float = setting(2.5e-4, least=0, help="Learning rate of SGD (paper: 2.5e-4).")
    momentum: float = setting(0.9, least=0, below=1, help="Momentum of SGD.")
    margin: float = setting(
        0.4,
        least=0,
        unit="ln K",
        help="Entropy threshold E0, as a fraction of ln K for K classes. Samples of higher entropy are not used.",
    )
    rho: float = setting(0.05, least=0, help="Radius of the sharpness-aware step.")
    recover: float = setting(
        0.2, least=0, unit="nats", help="The model is reset when the moving average of the entropy falls below this value."
    )
    share: float = setting(
        0.75,
        above=0,
        most=1,
        help="Share of the norm layers, counted from the input, that are adapted. The paper names the top blocks that it "
        "leaves out, about a quarter of the layers of its nets.",
    )
    section: ClassVar[str] = "sar"


@dataclass(frozen=True)
class LameSettings(Checked):
    """Section ``lame``."""

    neighbours: int = setting(5, least=1, unit="samples", help="Nearest neighbours of the affinity (k in the paper).")
    iterations: int = setting(100, least=1, unit="updates", help="Updates per test batch at most.")
    section: ClassVar[str] = "lame"


@dataclass(frozen=True)
class OracleSettings(Checked):
    """Section ``oracle``: how a test sample is overfitted. By default as ``ocd`` overfits its training samples."""

    optimizer: str = setting(
        "", choices=("sgd", "adam"), also=("",), help="Optimizer. Empty: the one of ocd.overfit_optimizer."
    )
    lr: float = setting(0.0, least=0, help="Learning rate. 0: the one of ocd.overfit_lr.")
    steps: int = setting(0, least=0, unit="steps", help="Gradient steps. 0: as many as ocd.overfit_steps.")
    section: ClassVar[str] = "oracle"
