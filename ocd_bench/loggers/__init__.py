"""Loggers as plugins: finished cells in TensorBoard, MLflow or Weights & Biases. Each imports its tool when a cell is finished.

``ocd-bench run ... --plugin ocd_bench.loggers.tensorboard`` (or ``.mlflow``, ``.wandb``). The extras ``tensorboard``,
``mlflow`` and ``wandb`` of ocd-bench install the tools. A tool is configured by its own environment variables.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ocd_bench.errors import Unavailable


def tool(module: str, extra: str) -> Any:
    """The module of a tool.

    Raises:
        Unavailable: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise Unavailable(f"logger {extra}: unavailable: pip install 'ocd-bench[{extra}]' ({error})") from error


def name_of(cell: Mapping[str, Any]) -> str:
    """``images/mnist/ocd/s0``: the name of a cell in a tool."""
    return f"{cell['task']}/{cell['dataset']}/{cell['method']}/s{cell['seed']}"


def values_of(cell: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a cell by name: its metrics as they are, its costs as ``cost/NAME``, and the chosen gain; empty if it has
    none."""
    found = {name: float(metric["value"]) for name, metric in cell["metrics"].items()}
    costs = {f"cost/{name}": float(value) for name, value in cell["cost"].items() if isinstance(value, int | float)}
    gain = cell.get("detail", {}).get("gain")
    return found | costs | ({"gain": float(gain)} if isinstance(gain, int | float) else {})


def curve_of(cell: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """The training curve of a cell: step, and the losses at that step."""
    for record in cell.get("detail", {}).get("history") or ():
        step, *losses = record
        names = ("training loss", "validation loss")
        yield int(step), {name: float(loss) for name, loss in zip(names, losses, strict=False) if loss is not None}
