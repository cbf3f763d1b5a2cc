"""The reference row ``xgboost``: gradient-boosted trees on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from ocd_bench import Context, Method, NotApplicable, Predictor, Unavailable
from ocd_bench_tabular.settings import XGBoostSettings

if TYPE_CHECKING:
    import torch


class XGBoost(Method):
    """Gradient-boosted trees (T. Chen and C. Guestrin, KDD 2016), tuned and stopped on the validation split.

    It does not adapt the base model. It is a reference for how much more can be learned from the rows.
    """

    name = "xgboost"
    description = "gradient-boosted trees on the same rows, tuned on validation (reference, not an adaptation)"
    section = "xgboost"
    tasks = ("tabular",)
    Settings = XGBoostSettings

    def fit(self, context: Context) -> Predictor:
        if context.task.name != "tabular":
            raise NotApplicable("only for tabular inputs")
        try:
            import xgboost
        except ImportError as error:
            raise Unavailable(f"method 'xgboost' needs the package xgboost: pip install xgboost ({error})") from error
        import torch

        from ocd_bench.seeds import derive

        settings: XGBoostSettings = context.settings("xgboost") or XGBoostSettings()
        with torch.no_grad():
            example = context.base(context.train.inputs[:2].to(context.device))
        classes = None if context.task.logits(example) is None else example.shape[1]
        data = {name: _matrix(xgboost, getattr(context, name)) for name in ("train", "val")}
        request = context.request
        common = {
            "objective": "reg:squarederror" if classes is None else "multi:softprob",
            "tree_method": "hist",
            "learning_rate": settings.learning_rate,
            "subsample": settings.subsample,
            "colsample_bytree": settings.colsample,
            "nthread": torch.get_num_threads(),
            "seed": derive(request.task, request.dataset, self.name, request.seed, "fit") % 2**31,
            "verbosity": 0,
            **({} if classes is None else {"num_class": classes}),
        }
        grid = list(product(settings.depths, settings.min_child_weights))
        best: Any = None
        for number, (depth, weight) in enumerate(grid):
            context.progress("xgboost: fit", number, len(grid))
            booster = xgboost.train(
                {**common, "max_depth": depth, "min_child_weight": weight},
                data["train"],
                num_boost_round=settings.rounds,
                evals=[(data["val"], "validation")],
                early_stopping_rounds=settings.patience,
                verbose_eval=False,
            )
            if best is None or booster.best_score < best[0].best_score:
                best = booster, depth, weight
        context.progress("xgboost: fit", len(grid), len(grid))
        booster, depth, weight = best
        # Drop the trees that were grown after the best round.
        trees = booster[: booster.best_iteration + 1]
        found = {"max_depth": depth, "min_child_weight": weight, "rounds": booster.best_iteration + 1}
        return _Trees(trees, classes, {**found, "validation": float(booster.best_score)})


def _matrix(xgboost: Any, samples: Any) -> Any:
    """Inputs, and the first target column (the second column of a regression target is its unit)."""
    targets = samples.targets.numpy()
    return xgboost.DMatrix(samples.inputs.numpy(), label=targets if targets.ndim == 1 else targets[:, 0])


class _Trees(Predictor):
    """Standardised values ``(N, 1)``, or log-probabilities ``(N, K)``, as in the base model's outputs."""

    def __init__(self, trees: Any, classes: int | None, detail: Mapping[str, Any]) -> None:
        self.trees, self.classes, self.detail = trees, classes, detail
        self.parameters = sum(tree.count("\n") for tree in trees.get_dump())  # one threshold or leaf value per node

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        values = torch.from_numpy(self.trees.inplace_predict(inputs.cpu().numpy())).to(inputs)
        return values.reshape(-1, 1) if self.classes is None else values.clamp_min(1e-7).log()
