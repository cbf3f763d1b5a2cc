"""The settings of the package: sections ``tabular`` and ``xgboost``. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench import setting
from ocd_bench.settings import Checked


@dataclass(frozen=True)
class TabularSettings(Checked):
    """Section ``tabular``: data and base model of the task."""

    model: str = setting(
        "mlp",
        choices=("mlp", "resnet"),
        help="The base model. mlp: 'depth' linear layers. resnet: 'depth' residual blocks (Gorishniy et al. 2021).",
    )
    width: int = setting(256, least=1, most=65_536, unit="units", help="Width of the base model.")
    depth: int = setting(3, least=1, most=1000, help="Linear layers (mlp) or residual blocks (resnet) of the base model.")
    dropout: float = setting(0.1, least=0, below=1, help="Dropout of the base model in training.")
    features: str = setting(
        "quantile",
        choices=("standard", "quantile"),
        help="How numbers are scaled. quantile: mapped to normal quantiles, then standardised. standard: only standardised.",
    )
    encoder: str = setting(
        "piecewise",
        choices=("none", "piecewise", "periodic"),
        help="What hypernetworks see of the row itself beside I(x): nothing, or numerical-feature embeddings, piecewise "
        "linear or periodic (Gorishniy et al. 2022).",
    )
    split_seed: int = setting(
        0, help="Draws the test and validation rows of a dataset without official parts. The seed of the run does not."
    )
    fold: int = setting(1, least=1, most=5, help="Official fold of a ranking dataset.")
    csv: str = setting("", help="A CSV or TSV file. Empty: the one in the folder of the dataset.")
    target: str = setting("", help="Column of a CSV file to predict. Empty: the column named target.")
    kind: str = setting(
        "auto",
        choices=("auto", "regression", "classification"),
        help="What the target of a CSV file is. auto: decided by its values.",
    )
    categorical: tuple[str, ...] = setting((), help="Columns of numbers in a CSV file that are categories.")
    drop: tuple[str, ...] = setting((), help="Columns of a CSV file to leave out.")
    max_categories: int = setting(
        64, least=1, unit="values", help="Most frequent values of a categorical column that get a 0/1 column each, at most."
    )
    groups: str = setting(
        "",
        help="Column of a CSV file whose equal values mark dependent rows (a patient, a day). Intervals count them as such. It "
        "is no feature. Empty: all rows are independent.",
    )
    section: ClassVar[str] = "tabular"


@dataclass(frozen=True)
class XGBoostSettings(Checked):
    """Section ``xgboost``: a grid of ``depths`` and ``min_child_weights``, from which validation chooses, and the rest."""

    depths: tuple[int, ...] = setting((4, 6, 8), least=1, most=64, help="Depths of the trees to choose from.")
    min_child_weights: tuple[float, ...] = setting((1.0, 5.0), least=0, help="Least weights of a leaf to choose from.")
    learning_rate: float = setting(0.05, above=0, most=1, help="Shrinkage of each tree.")
    rounds: int = setting(3000, least=1, unit="trees", help="Trees at most.")
    patience: int = setting(50, least=1, unit="trees", help="Stop after this many trees without progress on validation.")
    subsample: float = setting(0.8, above=0, most=1, help="Share of the rows for each tree.")
    colsample: float = setting(0.8, above=0, most=1, help="Share of the columns for each tree.")
    section: ClassVar[str] = "xgboost"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"depths": (4,), "min_child_weights": (1.0,), "learning_rate": 0.1, "rounds": 300, "patience": 20}
    }
