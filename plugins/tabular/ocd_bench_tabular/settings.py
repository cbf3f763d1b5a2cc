"""The settings of the task: section ``tabular``."""

from __future__ import annotations

from dataclasses import dataclass

from ocd_bench import UsageError

CHOICES = {
    "model": ("auto", "mlp", "resnet"),
    "features": ("standard", "quantile"),
    "encoder": ("none", "piecewise", "periodic"),
    "kind": ("auto", "regression", "classification"),
}


@dataclass(frozen=True)
class TabularSettings:
    """Data and base model of the task.

    ``model``: ``mlp`` (``depth`` linear layers) or ``resnet`` (``depth`` residual blocks with BatchNorm1d), ``width`` units
    wide; ``auto``: ``mlp`` for regression, as in the paper, ``resnet`` for classes, so that the methods that adapt norm layers
    apply. ``features``: numbers standardised, or mapped to normal quantiles first. ``encoder``: what hypernetworks see of the
    sample itself beside I(x): nothing, or numerical-feature embeddings, ``piecewise`` linear or ``periodic``.
    ``split_seed``: draws the test and validation rows of a dataset without official parts; the run's seed does not.
    ``fold``: the official fold, 1 to 5, of a ranking dataset. For CSV data: ``csv`` a file (default: the one in the dataset's
    folder), ``target`` the column to predict (default: one named target), ``kind`` of target, columns to ``drop``, columns of
    numbers that are ``categorical``, and at most ``max_categories`` values of a column told apart.
    """

    model: str = "auto"
    width: int = 256
    depth: int = 3
    dropout: float = 0.1
    features: str = "quantile"
    encoder: str = "piecewise"
    split_seed: int = 0
    fold: int = 1
    csv: str = ""
    target: str = ""
    kind: str = "auto"
    categorical: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    max_categories: int = 64

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(f"setting tabular.{name}={getattr(self, name)!r}: expected {', '.join(known)}")
        for name in ("width", "depth", "max_categories"):
            if getattr(self, name) < 1:
                raise UsageError(f"setting tabular.{name}={getattr(self, name)}: expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"setting tabular.dropout={self.dropout}: expected 0 <= dropout < 1")
        if not 1 <= self.fold <= 5:
            raise UsageError(f"setting tabular.fold={self.fold}: expected 1 to 5")
