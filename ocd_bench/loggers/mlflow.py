"""Finished cells in MLflow: one run per cell in the experiment ``$MLFLOW_EXPERIMENT_NAME`` (default ``ocd-bench``).

.. versionadded:: 0.1
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ocd_bench
from ocd_bench.loggers import curve_of, name_of, tool, values_of


@ocd_bench.hookimpl
def ocd_bench_cell_finished(cell: Mapping[str, Any]) -> None:
    """Log the numbers and the training curve of a cell. A cell without numbers is left out."""
    if cell["status"] != "ok":
        return
    mlflow = tool("mlflow", "mlflow")
    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ocd-bench")
    with mlflow.start_run(run_name=name_of(cell)):
        mlflow.log_params({name: cell[name] for name in ("task", "dataset", "method", "seed", "layer", "n_test")})
        mlflow.log_metrics(values_of(cell))
        for step, losses in curve_of(cell):
            mlflow.log_metrics({name.replace(" ", "_"): loss for name, loss in losses.items()}, step=step)
