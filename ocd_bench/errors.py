"""Errors that end as one line on stderr. Any other exception is a defect and keeps its traceback.

.. versionadded:: 0.1
"""

from ocd_bench.printable import one_line


class OCDBenchError(Exception):
    """Base class. The message is one printable line: what is wrong, where, and what to do."""

    exit_code = 2
    """Exit code of the command line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(OCDBenchError):
    """Wrong usage or bad input: an unknown name, a damaged file, a folder that cannot be written (exit code 2)."""


class DataMissing(UsageError):
    """A dataset was not found; the message says where it was looked for."""


class Unavailable(OCDBenchError):
    """A task, method or format needs a package that is absent or cannot be imported; the message says what to install."""


class NotApplicable(OCDBenchError):
    """A method cannot do here what its name says. The row then shows ``n/a`` and the message, and no number."""


class Terminated(BaseException):
    """The process was asked to end by a signal other than Ctrl-C; like ``KeyboardInterrupt`` no ``except Exception`` meets it.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
