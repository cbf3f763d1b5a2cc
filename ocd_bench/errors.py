"""Errors that end as one line on stderr; everything else is a defect and keeps its traceback."""

from ocd_bench.printable import one_line


class OCDBenchError(Exception):
    """Base of the errors this package raises on purpose. The message is one printable line: what, where, what to do."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(OCDBenchError):
    """Wrong usage or bad input: an unknown name, a damaged file, a folder that cannot be written (exit code 2)."""


class DataMissing(UsageError):
    """A dataset is not where it was looked for."""


class Unavailable(OCDBenchError):
    """A task, method or format needs a package that is absent or does not load; the message names the cure."""


class NotApplicable(OCDBenchError):
    """A method cannot run as named on this task or model. The cell says so; no number is printed for it."""
