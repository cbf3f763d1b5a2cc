"""What is chosen on validation samples, and how a cell shows it."""

from __future__ import annotations

from typing import Any

import torch

from ocd_bench.engine.gain import Gain
from ocd_bench.engine.problem import Quality
from ocd_bench.metrics import REDUCTIONS, Metric, metric_info, primary_metric
from ocd_bench.task import Task


def quality_of(task: Task) -> Quality:
    """The task's primary metric, for choices on validation samples."""
    metric: list[Metric] = []

    def scores(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        reported = task.metrics(output, target)
        name = primary_metric(task, reported)
        metric[:] = [metric_info(task, name)]
        return reported[name]

    def reduce(values: torch.Tensor) -> torch.Tensor:
        sign = 1 if metric[0].higher_is_better else -1
        return sign * torch.from_numpy(REDUCTIONS[metric[0].reduce](values.numpy()))

    return Quality(scores, reduce)


def gain_detail(gain: Gain) -> dict[str, Any]:
    """The gain and the validation curve on which it was chosen, as plain values."""
    return {"gain": gain.value, "gain_candidates": list(gain.candidates), "gain_losses": list(gain.losses)}
