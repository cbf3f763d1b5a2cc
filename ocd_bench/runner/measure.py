"""One method of a group: fitted once, measured on each test variant, its failures kept to itself."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ocd_bench.errors import NotApplicable, OCDBenchError
from ocd_bench.method import Context, Method
from ocd_bench.metrics import CERTAINTY, GROUPS, REDUCTIONS, metric_info, primary_metric
from ocd_bench.runner.base import BaseModel
from ocd_bench.runner.cells import Variant
from ocd_bench.runner.machine import PeakMemory
from ocd_bench.runner.store import new_cell
from ocd_bench.samples import Samples
from ocd_bench.task import Task

OUTPUT_LIMIT = 64 * 2**20
"""Bytes of test outputs kept per method for the task's figures."""


class MethodRun:
    """One method of a group: fitted once, measured on each test variant."""

    def __init__(self, method: Method, context: Context, base: BaseModel, config: str) -> None:
        self.method, self.context, self.base, self.config = method, context, base, config
        self.trace: str | None = None
        self._predictor: Any = None
        self._problem: tuple[str, str] | None = None
        self._fitted = False
        self._fit_s = 0.0
        self._memory = PeakMemory(context.device)

    def measure(
        self, variant: Variant, test: Samples, dataset: str, data: str
    ) -> tuple[dict[str, Any], dict[str, np.ndarray] | None, torch.Tensor | None]:
        """The cell, its per-sample scores, and the outputs where they are small enough to keep."""
        context, method = self.context, self.method
        cell = new_cell(context.task.name, variant.label(dataset), method.name, context.request.seed)
        cell.update(layer=context.layer, n_test=len(test))
        if test.groups is not None:
            cell["groups"] = len(test.groups.unique())
        cell["fingerprint"] = {"config": self.config, "data": data, "base": self.base.sha256}
        scores, output = None, None
        self._memory.start()
        if not self._fitted:
            self._guard(self._fit)
            self._fitted = True
        if self._problem is None:
            result = self._guard(lambda: self._predict(test))
            if result is not None:
                scores, output, seconds = result
                self._fill(cell, scores, seconds, len(test))
                if test.groups is not None and cell["groups"] < test.groups.numel():
                    scores = {**scores, GROUPS: test.groups.numpy()}
        if self._problem is not None:
            cell["status"], cell["reason"] = self._problem
            scores = None
            if self._fitted and self._predictor is not None:
                self._problem = None  # a failure on this test set says nothing about the next
        return cell, scores, output

    def _guard(self, action: Callable[[], Any]) -> Any:
        self.trace = None
        try:
            return action()
        except NotApplicable as reason:
            self._problem = "not-applicable", str(reason)
        except OCDBenchError as error:
            self._problem = "failed", str(error)
        except Exception as error:
            self._problem = "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            self.trace = traceback.format_exc()
        return None

    def _fit(self) -> None:
        start = time.perf_counter()
        self._predictor = self.method.fit(self.context)
        self._fit_s = time.perf_counter() - start + sum(self.context._charges)

    def _predict(self, test: Samples) -> tuple[dict[str, np.ndarray], torch.Tensor | None, float]:
        task, device, size = self.context.task, self.context.device, self.context.batch_size
        if hasattr(self._predictor, "reset"):
            self._predictor.reset()
        scores: dict[str, list[torch.Tensor]] = {}
        kept: list[torch.Tensor] = []
        kept_bytes, seconds = 0, 0.0
        for begin in range(0, len(test), size):
            batch = test.take(slice(begin, begin + size))
            inputs, targets = batch.inputs.to(device), batch.targets.to(device)
            start = time.perf_counter()
            output = self._predictor(inputs, targets) if self.method.uses_test_labels else self._predictor(inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds += time.perf_counter() - start
            output = output.detach()
            if len(output) != len(inputs):
                raise RuntimeError(f"{len(inputs)} samples went in and {len(output)} outputs came out")
            with torch.no_grad():
                for name, value in {**certainty(task, output, targets), **task.metrics(output, targets)}.items():
                    scores.setdefault(name, []).append(value.detach().double().cpu())
            kept_bytes += output.numel() * output.element_size()
            if kept_bytes <= OUTPUT_LIMIT:
                kept.append(output.cpu())
            self.context.progress(f"{self.method.name}: test", min(begin + size, len(test)), len(test))
        arrays = {name: torch.cat(values).numpy() for name, values in scores.items()}
        for name, array in arrays.items():
            if array.shape != (len(test),):
                raise RuntimeError(f"metric {name!r} gave scores of shape {array.shape}, expected ({len(test)},)")
            if not np.isfinite(array).all():
                raise OCDBenchError(
                    f"metric {name!r} is not finite on {int((~np.isfinite(array)).sum())} of {len(test)} samples"
                )
        return arrays, torch.cat(kept) if kept_bytes <= OUTPUT_LIMIT else None, seconds

    def _fill(self, cell: dict[str, Any], scores: Mapping[str, np.ndarray], seconds: float, n: int) -> None:
        task = self.context.task
        primary = primary_metric(task, scores)
        for name, array in scores.items():
            if name in CERTAINTY and name not in task.metric_info:
                continue
            info = metric_info(task, name)
            cell["metrics"][name] = {
                "value": float(REDUCTIONS[info.reduce](array)),
                "unit": info.unit,
                "higher_is_better": info.higher_is_better,
                "primary": name == primary,
                "reduce": info.reduce,
            }
        cell["status"] = "ok"
        added = getattr(self._predictor, "parameters", 0)  # of a module, a method
        cell["cost"] = {
            "fit_s": round(self._fit_s, 4),
            "adapt_s": round(seconds, 4),
            "samples_per_s": round(n / max(seconds, 1e-9), 2),
            "peak_memory_mb": round(self._memory.read(), 1),
            "parameters": int(added) if isinstance(added, int | float) else 0,
            "base_fit_s": round(self.base.fit_s, 4),
        }
        cell["detail"] = dict(getattr(self._predictor, "detail", {}))


def certainty(task: Task, output: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scores :data:`ocd_bench.metrics.CERTAINTY`, ``(N,)`` each; none without logits, or where targets are no classes."""
    logits = task.logits(output)
    if logits is None or targets.dim() != 1 or targets.is_floating_point():
        return {}
    confidence, answer = logits.softmax(-1).max(-1)
    return dict(zip(CERTAINTY, (confidence.nan_to_num(0.0), answer == targets), strict=True))
