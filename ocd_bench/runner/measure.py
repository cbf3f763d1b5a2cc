"""One method of a group: fitted once, measured on each test variant. Its failures do not affect other methods."""

from __future__ import annotations

import functools
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ocd_bench.errors import NotApplicable, OCDBenchError, Terminated
from ocd_bench.method import Context, Method
from ocd_bench.metrics import CERTAINTY, GROUPS, POSITION, REDUCTIONS, metric_info, primary_metric
from ocd_bench.results import json_bytes
from ocd_bench.runner.base import BaseModel
from ocd_bench.runner.blame import Blame, message_of, printable
from ocd_bench.runner.cells import Variant
from ocd_bench.runner.contract import Watch, same_bytes
from ocd_bench.runner.machine import PeakMemory
from ocd_bench.runner.store import new_cell
from ocd_bench.runner.streams import Course
from ocd_bench.samples import Samples
from ocd_bench.task import Task

OUTPUT_LIMIT = 64 * 2**20
"""Maximum bytes of test outputs that are kept per method, for the task's figures."""
DEPTH = 40
"""Maximum nesting depth of ``detail``."""


class BadAnswer(Exception):
    """A method or a metric returned an invalid value. The message says what was expected."""


@dataclass
class Measured:
    """One cell, its per-sample scores, and the outputs where they are small enough to keep.

    Attributes:
        trace: the traceback of a failure, for the method's author.
    """

    cell: dict[str, Any]
    scores: dict[str, np.ndarray] | None = None
    output: torch.Tensor | None = None
    trace: str | None = None


@dataclass
class Answers:
    """Per-sample scores of one test variant, in the order of the data, and what they took.

    Attributes:
        seconds: of the predictions. Those of a course are divided among its variants.
        output: the outputs, where they are small enough to keep.
    """

    scores: dict[str, np.ndarray]
    seconds: float
    output: torch.Tensor | None = None


def _batch(course: Course, tests: Sequence[Samples], rows: slice) -> Samples:
    """A test batch of a course."""
    if course.order is None:
        return tests[0].take(rows)
    which, places = course.order[rows].T
    if len(tests) == 1:
        return tests[0].take(places)
    pairs = list(zip(which.tolist(), places.tolist(), strict=True))
    return Samples(
        torch.stack([tests[number].inputs[place] for number, place in pairs]),
        torch.stack([tests[number].targets[place] for number, place in pairs]),
    )


def _in_data_order(arrays: Mapping[str, np.ndarray], order: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """Scores of one variant, from scores in the order of the stream, with each sample's place in the stream."""
    places = np.flatnonzero(order[:, 0] == number)
    places = places[order[places, 1].argsort()]  # by the sample's index in the data
    return {**{name: array[places] for name, array in arrays.items()}, POSITION: places.astype(np.float64)}


def _stored(answers: Answers, test: Samples) -> dict[str, np.ndarray]:
    """What the archive of scores holds."""
    groups = test.groups
    if groups is None or len(groups.unique()) == groups.numel():
        return answers.scores
    return {**answers.scores, GROUPS: groups.numpy()}


class MethodRun:
    """One method of a group: fitted once, measured on each test variant.

    Args:
        head: fields that all cells of the method share (fingerprints).
        watch: detects changes of shared state.
        is_child: whether this process runs only this method, so that an interrupt can only come from the method.
    """

    def __init__(
        self,
        method: Method,
        context: Context,
        base: BaseModel,
        head: Mapping[str, Any],
        blame: Blame,
        watch: Watch,
        is_child: bool = False,
    ) -> None:
        self.method, self.context, self.base, self.head = method, context, base, head
        self.blame, self.watch, self.is_child = blame, watch, is_child
        self.trace: str | None = None
        self.changed = False
        """Whether the method changed what it shares with others."""
        self._predictor: Any = None
        self._problem: tuple[str, str] | None = None
        self._fitted = False
        self._fit_s = 0.0
        self._memory = PeakMemory(context.device)
        self._expected: tuple[torch.Size, torch.dtype] | None = None

    def measure(
        self, course: Course, tests: Mapping[Variant, Samples], dataset: str, data: Mapping[Variant, str]
    ) -> list[Measured]:
        """The cells of the test variants of a course. An error of the method also becomes a cell, of every variant."""
        heads = [self._cell(variant, tests[variant], dataset, data[variant]) for variant in course.variants]
        if course.problem:
            return [Measured({**cell, "status": "not-applicable", "reason": course.problem}) for cell in heads]
        answers: list[Answers | None] = [None] * len(heads)
        self._memory.start()
        if not self._fitted:
            self._guard(self._fit)
            self._fitted = True
        if self._problem is None:
            found = self._guard(lambda: self._predict(course, [tests[variant] for variant in course.variants]))
            for number, answer in enumerate(found or ()):
                answers[number] = answer
                self._guard(functools.partial(self._fill, heads[number], answer))
        changes = self.watch.changes()
        self.changed = bool(changes)
        if changes and (self._problem is None or self._problem[0] != "failed"):
            where = self.blame.of_item(self.method)
            self._problem = "failed", f"changed what it shares with others: {'; '.join(changes)} ({where})"
        if self._problem is not None:
            for cell in heads:
                cell.update(status=self._problem[0], reason=self._problem[1], metrics={}, cost={}, detail={})
            answers = [None] * len(heads)
            if self._fitted and self._predictor is not None and not changes:
                self._problem = None  # the next test set may work although this one failed
        return [
            Measured(cell, trace=self.trace)
            if answer is None
            else Measured(cell, _stored(answer, tests[variant]), answer.output, self.trace)
            for variant, cell, answer in zip(course.variants, heads, answers, strict=True)
        ]

    def _cell(self, variant: Variant, test: Samples, dataset: str, data: str) -> dict[str, Any]:
        cell = new_cell(self.context.task.name, variant.label(dataset), self.method.name, self.context.request.seed)
        cell.update(self.head, layer=self.context.layer, n_test=len(test))
        if test.groups is not None:
            cell["groups"] = len(test.groups.unique())
        cell["fingerprint"] = {**self.head["fingerprint"], "data": data, "base": self.base.sha256}
        return cell

    def _guard(self, action: Callable[[], Any]) -> Any:
        self.trace = None
        try:
            return action()
        except NotApplicable as reason:
            self._problem = "not-applicable", printable(reason)
        except OCDBenchError as error:
            self._problem = "failed", printable(error)
        except BadAnswer as error:
            self._problem = "failed", f"{printable(error)} ({self.blame.of_item(self.method)})"
        except Terminated:  # the run is to end: no fault of the method
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self.is_child:
                raise
            self._problem = "failed", f"{message_of(error)} ({self.blame.of_error(error, self.method)})"
            self.trace = traceback.format_exc()
        return None

    def _fit(self) -> None:
        start = time.perf_counter()
        predictor = self.method.fit(self.context)
        if not callable(predictor):
            raise BadAnswer(f"fit returned {type(predictor).__name__}, expected a function or an ocd_bench.Predictor")
        self._predictor = predictor
        self._fit_s = time.perf_counter() - start + self.context.account.charges + self.context.account.resumed

    def _predict(self, course: Course, tests: Sequence[Samples]) -> list[Answers]:
        """The scores of each variant of a course, in the order of its samples."""
        task, device, size = self.context.task, self.context.device, self.context.batch_size
        if hasattr(self._predictor, "reset"):
            self._predictor.reset()
        scores: dict[str, list[torch.Tensor]] = {}
        kept: list[torch.Tensor] = []
        total, kept_bytes, seconds = sum(map(len, tests)), 0, 0.0
        for begin in range(0, total, size):
            batch = _batch(course, tests, slice(begin, begin + size))
            inputs, targets = batch.inputs.to(device, copy=True), batch.targets.to(device, copy=True)
            start = time.perf_counter()
            output = self._predictor(inputs, targets) if self.method.uses_test_labels else self._predictor(inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds += time.perf_counter() - start
            self._check(output, batch, inputs, targets)
            output = output.detach()
            with torch.no_grad():
                for name, value in {**certainty(task, output, targets), **task.metrics(output, targets)}.items():
                    if not isinstance(value, torch.Tensor) or value.shape != (len(output),) or value.is_complex():
                        raise RuntimeError(f"metric {name!r} of task {task.name!r}: expected real numbers ({len(output)},)")
                    scores.setdefault(name, []).append(value.detach().double().cpu())
            kept_bytes += output.numel() * output.element_size()
            if kept_bytes <= OUTPUT_LIMIT and course.order is None:
                kept.append(output.cpu())
            self.context.progress(f"{self.method.name}: test", min(begin + size, total), total)
        arrays = {name: torch.cat(values).numpy() for name, values in scores.items()}
        for name, array in arrays.items():
            if array.shape != (total,):
                raise RuntimeError(f"metric {name!r} gave scores of shape {array.shape}, expected ({total},)")
            if not np.isfinite(array).all():
                count = int((~np.isfinite(array)).sum())
                raise BadAnswer(f"metric {name!r} is not finite on {count} of {total} samples")
        if course.order is None:
            return [Answers(arrays, seconds, torch.cat(kept) if kept_bytes <= OUTPUT_LIMIT else None)]
        return [
            Answers(_in_data_order(arrays, course.order.numpy(), number), seconds * len(test) / total)
            for number, test in enumerate(tests)
        ]

    def _check(self, output: Any, batch: Samples, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Check that an output has the shape and dtype of the base's output, and that the batch is unchanged."""
        if not isinstance(output, torch.Tensor):
            raise BadAnswer(f"predicted {type(output).__name__}, expected a tensor")
        if len(output.shape) == 0 or len(output) != len(inputs):
            found = len(output) if output.ndim else 1
            raise BadAnswer(f"{len(inputs)} samples went in and {found} outputs came out")
        if self._expected is None:
            with torch.no_grad():
                answer = self.context.base(batch.inputs[:2].to(self.context.device, copy=True))
            self._expected = answer.shape[1:], answer.dtype
        shape, dtype = self._expected
        if output.shape[1:] != shape:
            raise BadAnswer(f"predicted {tuple(output.shape)}, expected {(len(inputs), *shape)} like the base model")
        if output.is_complex() != dtype.is_complex or output.layout != torch.strided:
            raise BadAnswer(f"predicted {output.dtype}, expected {dtype} like the base model")
        for what, now, before in (("inputs", inputs, batch.inputs), ("targets", targets, batch.targets)):
            if not same_bytes(now.cpu(), before):
                raise BadAnswer(f"changed the test batch's {what} in place (change a copy)")

    def _fill(self, cell: dict[str, Any], answers: Answers) -> None:
        task, scores, seconds, n = self.context.task, answers.scores, answers.seconds, cell["n_test"]
        primary = primary_metric(task, scores)
        for name, array in scores.items():
            if name in (*CERTAINTY, POSITION) and name not in task.metric_info:
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
        cell["cost"] = {
            "fit_s": round(self._fit_s, 4),
            "adapt_s": round(seconds, 4),
            "samples_per_s": round(n / max(seconds, 1e-9), 2),
            "peak_memory_mb": round(self._memory.read(), 1),
            "parameters": self._parameters(),
            "base_fit_s": round(self.base.fit_s, 4),
        }
        detail = getattr(self._predictor, "detail", {})
        if not isinstance(detail, Mapping):
            raise BadAnswer(f"its detail is {type(detail).__name__}, expected a table of plain values")
        cell["detail"] = plain(dict(detail))
        if weights := getattr(self._predictor, "base_sha256", ""):
            cell["fingerprint"]["base"] = weights  # it is measured on a base of its own
        json_bytes(cell)

    def _parameters(self) -> int:
        """Number of parameters that the method adds; 0 if the predictor is a module, whose ``parameters`` is a method."""
        added = getattr(self._predictor, "parameters", 0)
        if not isinstance(added, int | float):
            return 0
        if not math.isfinite(added) or added < 0:
            raise BadAnswer(f"its parameters are {added}, expected a number of parameters")
        return int(added)


def plain(value: Any, depth: int = 0) -> Any:
    """``value`` as plain JSON: numbers that are not finite become null, keys become text, other objects become their text.

    Raises:
        BadAnswer: if the nesting is too deep.
    """
    if depth > DEPTH:
        raise BadAnswer(f"its detail is nested more than {DEPTH} levels deep, or holds itself")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | type(None)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist(), depth + 1)
    return printable(value)


def certainty(task: Task, output: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scores :data:`ocd_bench.metrics.CERTAINTY`, ``(N,)`` each; none without logits, or where targets are no classes."""
    logits = task.logits(output)
    if logits is None or targets.dim() != 1 or targets.is_floating_point():
        return {}
    confidence, answer = logits.softmax(-1).max(-1)
    return dict(zip(CERTAINTY, (confidence.nan_to_num(0.0), answer == targets), strict=True))
