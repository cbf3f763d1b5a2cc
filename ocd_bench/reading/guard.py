"""The guard of every reader: any error of a parser becomes one line that names the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ocd_bench.errors import OCDBenchError, UsageError
from ocd_bench.printable import one_line

Reader = TypeVar("Reader", bound=Callable[..., Any])


@contextmanager
def reading(place: object, cure: str = "") -> Iterator[None]:
    """Run a parser, and turn its errors into a :class:`~ocd_bench.errors.UsageError` (exit code 2).

    Errors of this package pass unchanged, because they may already name the row. So do ``KeyboardInterrupt``, ``SystemExit``
    and other exceptions that are not subclasses of ``Exception``, except for the panics of parsers written in Rust.

    Args:
        place: the file, and the member or row if it is known. The message begins with it.
        cure: what the user can do. The message ends with it.

    Raises:
        UsageError: for everything else that is raised inside, ``MemoryError`` and ``RecursionError`` included.
    """
    try:
        yield
    except OCDBenchError:
        raise
    except (MemoryError, RecursionError) as error:
        # The frames of the traceback keep references to the objects that filled the memory.
        error.__traceback__ = None
        raise UsageError(_message(place, error, cure)) from None
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise UsageError(_message(place, error, cure)) from error


def guarded(reader: Reader) -> Reader:
    """A reader whose first argument is the place it reads from, behind :func:`reading`."""

    @functools.wraps(reader)
    def wrapped(place: Any, *args: Any, **kwargs: Any) -> Any:
        with reading(place):
            return reader(place, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def explain(error: BaseException) -> str:
    """A description of the error that concerns the file, not the parser."""
    if isinstance(error, MemoryError):
        return "cannot be read: it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "cannot be read: nested too deeply"
    if isinstance(error, UnicodeError):
        return f"cannot be read: not valid text ({one_line(str(error))[:200]})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, EOFError):
        return "cannot be read: damaged, it breaks off before its end"
    if isinstance(error, KeyError):
        return f"cannot be read: {one_line(str(error))[:200]} is missing"
    message = one_line(str(error))[:300]
    kind = type(error).__name__
    return f"cannot be read: damaged or of another format ({kind}{f': {message}' if message else ''})"


def _message(place: object, error: BaseException, cure: str) -> str:
    return f"{place}: {explain(error)}" + (f"; {cure}" if cure else "")
