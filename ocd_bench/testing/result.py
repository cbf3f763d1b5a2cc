"""The result of a check, and the function that runs checks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ocd_bench.errors import OCDBenchError

Status = Literal["ok", "warning", "skipped", "failed"]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Args:
        check: its name, for example ``"sample-wise"``.
        status: ``ok``; ``warning``: passed, but look at the message; ``skipped``: an earlier check failed; ``failed``.
        message: what was found, or what to change.

    .. versionadded:: 0.1
    """

    check: str
    status: Status
    message: str = ""

    def __str__(self) -> str:
        word = {"ok": "ok", "warning": "warn", "skipped": "skip", "failed": "FAIL"}[self.status]
        return f"{word:<4}  {self.check}: {self.message}".rstrip(": ")


class Fault(Exception):
    """A check failed; the message says what to change."""


class Doubt(Exception):
    """A check passed, but the author should look at the message."""


class Blocked(Exception):
    """A check cannot run, because an earlier one failed."""


def require(condition: bool, message: str) -> None:
    """Fail the running check unless ``condition`` holds.

    Raises:
        Fault: with ``message``.
    """
    if not condition:
        raise Fault(message)


Check = Callable[[Any], "str | None"]
"""Function of the trial; returns what it found, raises :class:`Fault`, :class:`Doubt` or :class:`Blocked`."""


def run_check(name: str, check: Check, trial: Any) -> CheckResult:
    """Run one check. An exception of the author's code is a failure. Global random generators keep their state."""
    try:
        with torch.random.fork_rng(devices=[]):
            return CheckResult(name, "ok", check(trial) or "")
    except Fault as fault:
        return CheckResult(name, "failed", str(fault))
    except Doubt as doubt:
        return CheckResult(name, "warning", str(doubt))
    except Blocked as reason:
        return CheckResult(name, "skipped", str(reason))
    except OCDBenchError as error:
        return CheckResult(name, "failed", str(error))
    except (Exception, SystemExit) as error:
        return CheckResult(name, "failed", raised(error))


def run_checks(checks: Mapping[str, Check], trial: Any) -> list[CheckResult]:
    """Run every check on one trial, in order."""
    return [run_check(name, check, trial) for name, check in checks.items()]


def raised(error: BaseException) -> str:
    """An unexpected exception as one line, with the author's line that led to it: the last one outside the core and torch."""
    frames = traceback.extract_tb(error.__traceback__)
    kit = Path(__file__).parent
    ours = (str(kit), "<")  # "<string>" is code that a dataclass generates
    outside = [frame for frame in frames if not frame.filename.startswith(ours) and "/torch/" not in frame.filename]
    own = [frame for frame in outside if not frame.filename.startswith(str(kit.parent))] or outside
    place = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
    message = " ".join(str(error).split())
    return f"raised {type(error).__name__}{': ' + message if message else ''}{place}"
