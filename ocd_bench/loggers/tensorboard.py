"""Finished cells in TensorBoard: one run per cell below ``$OCD_BENCH_TENSORBOARD`` (default ``runs/tensorboard``).

.. versionadded:: 0.1
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ocd_bench
from ocd_bench.loggers import curve_of, name_of, tool, values_of


@ocd_bench.hookimpl
def ocd_bench_cell_finished(cell: Mapping[str, Any]) -> None:
    """Write the numbers and the training curve of a cell. A cell without numbers is left out."""
    if cell["status"] != "ok":
        return
    writer_class = tool("torch.utils.tensorboard", "tensorboard").SummaryWriter
    folder = Path(os.environ.get("OCD_BENCH_TENSORBOARD") or "runs/tensorboard") / name_of(cell)
    writer = writer_class(str(folder))
    try:
        for name, value in values_of(cell).items():
            writer.add_scalar(name, value, 0)
        for step, losses in curve_of(cell):
            for name, loss in losses.items():
                writer.add_scalar(name, loss, step)
    finally:
        writer.close()
