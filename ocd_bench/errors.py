"""Errors that are shown as one line on stderr. Any other exception is a defect, and its traceback is shown.

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
    """A dataset was not found. The message lists the folders that were searched."""


class Unavailable(OCDBenchError):
    """A task, method or format needs a package that is absent or cannot be imported; the message says what to install."""


class NotApplicable(OCDBenchError):
    """A method cannot work with this task or model. Its row shows ``n/a`` and the message instead of numbers."""


class Terminated(BaseException):
    """A signal other than Ctrl-C asked the process to end. Like ``KeyboardInterrupt``, ``except Exception`` does not catch it.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
