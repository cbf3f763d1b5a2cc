"""Finished cells in Weights & Biases: one run per cell in the project ``$WANDB_PROJECT`` (default ``ocd-bench``).

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
    wandb = tool("wandb", "wandb")
    config = {name: cell[name] for name in ("task", "dataset", "method", "seed", "layer", "n_test")}
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "ocd-bench",
        name=name_of(cell),
        group=f"{cell['task']}/{cell['dataset']}",
        config=config,
        reinit=True,
    )
    for step, losses in curve_of(cell):
        run.log(losses, step=step)
    run.summary.update(values_of(cell))
    run.finish()
