"""The checks as pytest classes and as one assertion."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from ocd_bench.method import Method
from ocd_bench.task import Task
from ocd_bench.testing.method_checks import METHOD_CHECKS, MethodTrial, check_method
from ocd_bench.testing.result import Check, run_check
from ocd_bench.testing.task_checks import TASK_CHECKS, check_task
from ocd_bench.testing.trial import TaskTrial


def assert_conforms(item: Task | Method, **options: Any) -> None:
    """Run every check of a task or method.

    Args:
        item: an instance.
        options: those of :func:`check_task` or :func:`check_method`.

    Raises:
        AssertionError: with one line for each check that failed, saying what to change.
    """
    results = check_task(item, **options) if isinstance(item, Task) else check_method(item, **options)
    faults = [str(result) for result in results if result.status == "failed"]
    if faults:
        kind = "task" if isinstance(item, Task) else "method"
        raise AssertionError("\n".join([f"{kind} {getattr(item, 'name', type(item).__name__)!r} does not conform:", *faults]))


class _Conformance:
    """One pytest test per check; the trial is shared by all tests of a class."""

    @classmethod
    def _trial(cls) -> Any:
        raise NotImplementedError

    def _run(self, name: str, check: Check) -> None:
        kind = type(self)
        if "_shared_trial" not in vars(kind):
            kind._shared_trial = kind._trial()  # type: ignore[attr-defined]
        trial = kind._shared_trial  # type: ignore[attr-defined]
        result = run_check(name, check, trial)
        if result.status in ("failed", "skipped") and isinstance(trial, TaskTrial) and trial.missing_data:
            raise SkipTest(trial.missing_data)
        if result.status == "warning":
            warnings.warn(str(result), stacklevel=2)
        elif result.status != "ok":
            raise AssertionError(result.message)


class TaskConformance(_Conformance):
    """Subclass it as ``class TestWine(TaskConformance): task = Wine()``.

    Attributes:
        task: the instance to check.
        dataset, overrides, data_dirs, seed: as in :func:`ocd_bench.testing.check_task`.

    Where a dataset that is not embedded is not found, its tests are skipped, with the folders that were looked in.

    .. versionadded:: 0.1
    """

    task: ClassVar[Task]
    dataset: ClassVar[str | None] = None
    overrides: ClassVar[Mapping[str, Any]] = {}
    data_dirs: ClassVar[Sequence[Path]] = ()
    seed: ClassVar[int] = 0

    @classmethod
    def _trial(cls) -> TaskTrial:
        return TaskTrial(cls.task, cls.dataset, cls.overrides, cls.data_dirs, cls.seed)


class MethodConformance(_Conformance):
    """Subclass it as ``class TestShake(MethodConformance): method = Shake()``.

    Attributes:
        method: the instance to check.
        overrides: as in :func:`ocd_bench.testing.check_method`.

    .. versionadded:: 0.1
    """

    method: ClassVar[Method]
    overrides: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def _trial(cls) -> MethodTrial:
        return MethodTrial(cls.method, cls.overrides)


def _add_tests(kind: type[_Conformance], checks: Mapping[str, Check]) -> None:
    def make(name: str, check: Check) -> Callable[[_Conformance], None]:
        def test(self: _Conformance) -> None:
            self._run(name, check)

        test.__name__ = f"test_{name.replace('-', '_')}"
        test.__qualname__ = f"{kind.__qualname__}.{test.__name__}"
        test.__doc__ = check.__doc__
        return test

    for name, check in checks.items():
        test = make(name, check)
        setattr(kind, test.__name__, test)


_add_tests(TaskConformance, TASK_CHECKS)
_add_tests(MethodConformance, METHOD_CHECKS)
