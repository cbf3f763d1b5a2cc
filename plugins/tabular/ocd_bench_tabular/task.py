"""The task ``tabular``: rows of numbers and categories, regression or classification. It imports nothing heavy at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ocd_bench import Dataset, Request, Splits, Task, UsageError
from ocd_bench_tabular.datasets import DATASETS
from ocd_bench_tabular.settings import TabularSettings

if TYPE_CHECKING:
    import torch

SEVERITY = {
    "gaussian_noise": (0.1, 0.2, 0.4, 0.7, 1.0),
    "missing": (0.05, 0.1, 0.2, 0.35, 0.5),
    "scale_shift": (0.1, 0.2, 0.3, 0.5, 0.8),
}
"""Levels of severity 1 to 5 by corruption: noise in training standard deviations, share of cells, relative drift."""


class Tabular(Task):
    """Inputs ``(N, D)`` float32 are scaled by training statistics (mean 0 throughout, standard deviation 1 for numbers).

    Regression: outputs ``(N, 1)`` and the loss are in standardised units of the target, so that a learning rate has the same
    effect for dollars and degrees. Targets ``(N, 2)`` float32 hold the standardised value and the size of its unit. So metrics,
    which get only output and target, can be in the target's own units. Classification: outputs ``(N, K)`` are logits, targets
    ``(N,)`` int64. The dtype of the targets distinguishes the two.
    """

    name = "tabular"
    primary_metric = ("rmse", "accuracy")
    requires = ("sklearn",)
    Settings = TabularSettings
    description = "tables of numbers and categories: California housing, LETOR, any CSV; regression or classification"
    # Base and hypernetwork are both trained on augmented copies, or neither: a gain by augmentation must not count as OCD's.
    presets = {
        "quick": {
            "tabular.width": 64, "base.epochs": 20, "base.lr": 3e-3, "base.batch_size": 64, "base.augment": True,
        },
        # A hypernetwork memorises the residuals of training rows within a few hundred steps. So it is small and regularised,
        # and validated often. Conditioned on the base's outputs it memorises them even sooner, so it is conditioned on x only.
        "default": {
            "base.epochs": 400, "base.least_steps": 1500, "base.lr": 5e-3, "base.batch_size": 512, "base.augment": True,
            "ocd.overfit_lr": 0.05,
            "ocd.width": 128, "ocd.depth": 2, "ocd.noise_draws": 4, "ocd.task_draws": 4, "ocd.task_weight": 1000.0,
            "ocd.conditions": (), "ocd.steps": 1200, "ocd.batch_size": 256, "ocd.lr": 2e-3, "ocd.evaluations": 20,
            "ocd.ema": 0.99, "ocd.dropout": 0.1, "ocd.gain_share": 0.8,
        },
        "paper": {"base.epochs": 100, "base.lr": 5e-3, "base.batch_size": 512, "ocd.augment": False},
    }  # fmt: skip
    corruptions = tuple(SEVERITY)

    def datasets(self) -> Sequence[Dataset]:
        return DATASETS

    def load_data(self, request: Request) -> Splits:
        """Splits of an embedded dataset, a known one, or the CSV in the folder of that name.

        ``extras``: ``features`` (column names), ``classes`` (names; empty for regression), ``mean`` and ``scale`` (of the
        target: value = mean + scale x output), ``rows`` (row numbers of the three splits in the file).

        Raises:
            DataMissing: if the dataset is not found.
            UsageError: if its files are damaged, naming line and column, or a setting does not fit them.
        """
        import numpy as np

        from ocd_bench.reading import reading
        from ocd_bench_tabular.prepare import encode, split_rows
        from ocd_bench_tabular.sources import read_table

        settings = request.settings or TabularSettings()
        table = read_table(request, settings)
        rows = dict(zip(("train", "val", "test"), split_rows(table, request.dataset, settings.split_seed), strict=True))
        with reading(f"dataset {request.dataset!r}"):  # categories may need more memory than there is
            inputs, names = encode(table, rows["train"], settings.features, settings.max_categories)
        extras: dict[str, Any] = {"features": names, "classes": tuple(table.classes), "rows": rows}
        targets = table.target
        if not table.classes:
            mean, scale = targets[rows["train"]].mean(), targets[rows["train"]].std()
            if not scale > 0:
                raise UsageError(f"{table.note}: the target is the same in every training row")
            extras.update(mean=float(mean), scale=float(scale))
            targets = np.stack([(targets - mean) / scale, np.full(len(targets), scale)], axis=1).astype(np.float32)
        groups = np.arange(len(table)) if table.groups is None else table.groups
        train, val, test = ((inputs[chosen], targets[chosen], groups[chosen]) for chosen in rows.values())
        return Splits(train, val, test, note=table.note, extras=extras)  # type: ignore[arg-type]

    def base_model(self, splits: Splits, request: Request) -> torch.nn.Module:
        from ocd_bench_tabular.models import MODELS, EmbeddedMLP

        settings = request.settings or TabularSettings()
        outputs = 1
        if not splits.train.targets.is_floating_point():
            outputs = len(splits.extras.get("classes", ())) or int(splits.train.targets.max()) + 1
        inputs = splits.train.inputs
        model = settings.model
        if model == "auto":
            model = "mlp" if splits.train.targets.is_floating_point() else "resnet"
        if model == "embedded-mlp":
            return EmbeddedMLP(inputs, outputs, settings.width, settings.depth, settings.dropout)
        return MODELS[model](inputs.shape[1], outputs, settings.width, settings.depth, settings.dropout)

    def select_layer(self, model: torch.nn.Module, request: Request) -> str | None:
        """The first layer, as in the paper; None (the entropy criterion) for a model that has no ``layer1``."""
        return "layer1" if "layer1" in dict(model.named_children()) else None

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error in standardised units, or cross-entropy: ``(N,)``."""
        from torch.nn import functional as F

        if target.is_floating_point():
            return (_column(output) - _column(target)).square()
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``rmse`` (squared errors; the table's number is the root of their mean) and ``mae`` in the target's own units, or
        ``accuracy`` and ``cross_entropy``."""
        if not target.is_floating_point():
            return {"accuracy": (output.argmax(-1) == target).float(), "cross_entropy": self.loss(output, target)}
        unit = target[:, 1] if target.ndim == 2 and target.shape[1] == 2 else 1.0
        error = (_column(output) - _column(target)) * unit
        return {"rmse": error.square(), "mae": error.abs()}

    def logits(self, output: torch.Tensor) -> torch.Tensor | None:
        return output if output.ndim == 2 and output.shape[1] >= 2 else None

    def test_time_loss(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor | None:
        """None. A scalar prediction has no posterior with an entropy. Other unsupervised losses (consistency under feature
        noise, closeness to the training mean) are smallest for a constant prediction."""
        return None

    def encode_input(self, splits: Splits, request: Request) -> torch.nn.Module | None:
        """Numerical-feature embeddings of the row, mixed to ``(N, 128)``; None with ``tabular.encoder=none``."""
        from ocd_bench_tabular.models import FeatureEncoder, Periodic, PiecewiseLinear

        settings = request.settings or TabularSettings()
        inputs = splits.train.inputs
        if settings.encoder == "none":
            return None
        if settings.encoder == "periodic":
            return FeatureEncoder(Periodic(inputs.shape[1]), inputs.shape[1])
        return FeatureEncoder(PiecewiseLinear(inputs), inputs.shape[1])

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows in which some cells come from other rows, see :func:`ocd_bench_tabular.augment.swap_cells`. A model trained on
        them relies on no single cell, and is less sensitive to inconsistent cells."""
        from ocd_bench_tabular.augment import swap_cells

        return swap_cells(inputs, generator), targets

    def corrupt(self, inputs: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
        """``gaussian_noise``: noise on every feature. ``missing``: cells replaced by the feature's mean. ``scale_shift``: drift
        of instruments, each feature times a factor plus an offset, the same for all rows."""
        import torch

        amount = SEVERITY[kind][severity - 1]

        def normal(rows: int) -> torch.Tensor:
            return torch.randn(rows, inputs.shape[1], generator=generator, dtype=inputs.dtype).to(inputs.device)

        if kind == "gaussian_noise":
            return inputs + amount * normal(len(inputs))
        if kind == "missing":
            gone = torch.rand(inputs.shape, generator=generator).to(inputs.device) < amount
            return inputs.masked_fill(gone, 0.0)
        return inputs * (amount * normal(1)).exp() + amount * normal(1)


def _column(values: torch.Tensor) -> torch.Tensor:
    """``(N,)``, ``(N, 1)`` or ``(N, 2)`` to its first number per row, ``(N,)``."""
    return values if values.ndim == 1 else values[:, 0]
