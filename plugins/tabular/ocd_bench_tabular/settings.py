"""The settings of the package: sections ``tabular`` and ``xgboost``. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ocd_bench import UsageError, setting
from ocd_bench.reading import check_encoding
from ocd_bench.reading.sheet import DELIMITERS
from ocd_bench.settings import Checked
from ocd_bench_tabular.dates import ORDERS
from ocd_bench_tabular.numbers import DECIMALS, THOUSANDS

MISSING = (
    "?", "na", "n/a", "nan", "null", "none", "nat", "<na>", "#n/a", "#na", "-nan", "1.#qnan", "-1.#ind", "#null!",
)  # fmt: skip
"""Texts that mean an empty cell: R's, those of pandas, and of spreadsheets."""


@dataclass(frozen=True)
class TabularSettings(Checked):
    """Section ``tabular``: data and base model of the task."""

    model: str = setting(
        "auto",
        choices=("auto", "mlp", "embedded-mlp", "resnet"),
        help="The base model. mlp: 'depth' linear layers. embedded-mlp: the same on piecewise linear embeddings of the "
        "features (Gorishniy et al. 2022), more accurate on most tables. resnet: 'depth' residual blocks with BatchNorm1d "
        "(Gorishniy et al. 2021). auto: mlp for regression, as in the paper, and resnet for classes, so that methods that "
        "adapt norm layers apply.",
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
    csv: str = setting("", help="A file of the user's own, wherever it lies. Empty: the folder or file of the dataset's name.")
    target: str = setting("", help="Column of the user's own data to predict. Empty: the column named target.")
    kind: str = setting(
        "auto",
        choices=("auto", "regression", "classification"),
        help="What the target of the user's own data is. auto: decided by its values.",
    )
    delimiter: str = setting("auto", choices=tuple(DELIMITERS), help="What separates the cells of a text file.")
    encoding: str = setting(
        "auto", help="Encoding of a text file, such as latin-1 or cp1252. auto: what a byte order mark says, else UTF-8."
    )
    header: bool = setting(True, help="Whether the first row names the columns. Else they are column 1, column 2, ...")
    index: str = setting(
        "auto",
        help="Column of row numbers or row names to leave out. auto: a first column without a name whose values differ in "
        "every row. none: no column.",
    )
    decimal: str = setting(
        "auto",
        choices=DECIMALS,
        help="Decimal mark of numbers in text. auto: the only one that fits; a column that fits both is refused.",
    )
    thousands: str = setting(
        "auto",
        choices=THOUSANDS,
        help="Thousands mark of numbers in text. auto: only where a cell shows both marks (1.234,56).",
    )
    dates: str = setting(
        "auto",
        choices=ORDERS,
        help="Order of day, month and year in dates. auto: the only one that fits. text: dates are categories.",
    )
    missing: tuple[str, ...] = setting(
        MISSING, help="Texts that mean an empty cell, in any letter case; an empty cell always is one.", empty=True
    )
    numeric: tuple[str, ...] = setting((), help="Columns that are numbers although they look like codes or long ids.")
    categorical: tuple[str, ...] = setting((), help="Columns of numbers that are categories.")
    drop: tuple[str, ...] = setting((), help="Columns to leave out.")
    split_column: str = setting(
        "", help="Column that says which rows are test rows (a year, a batch, a site). It is no feature."
    )
    test_values: tuple[str, ...] = setting((), help="Values of the split column whose rows are test rows.")
    val_values: tuple[str, ...] = setting((), help="Values of the split column whose rows are validation rows.")
    train_values: tuple[str, ...] = setting(
        (), help="Values of the split column whose rows are training rows. Empty: all values that are not named otherwise."
    )
    max_categories: int = setting(
        64, least=1, unit="values", help="Most frequent values of a categorical column that get a 0/1 column each, at most."
    )
    groups: str = setting(
        "",
        help="Column of a CSV file whose equal values mark dependent rows (a patient, a day). Intervals count them as such. It "
        "is no feature. Empty: all rows are independent.",
    )
    section: ClassVar[str] = "tabular"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding("tabular.encoding", self.encoding)
        if self.split_column and not self.test_values:
            raise UsageError(f"setting tabular.split_column={self.split_column!r}: name the test rows with tabular.test_values")
        if self.decimal != "auto" and self.decimal == self.thousands:
            raise UsageError(f"setting tabular.thousands={self.thousands!r}: the same as tabular.decimal")


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
