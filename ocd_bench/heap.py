"""The C library's heap in processes that compute: freed memory is kept for the next tensor.

glibc returns a freed block of more than 32 MB to the system at once. The next tensor of that size then costs a page fault for
every 4 KB: nearly half of the CPU time of a run on views, whose tensors take 70 MB each.

What is kept has gaps, which grow: a fit on views took 3.6 GB after ten minutes, of which tensors held 0.8. So it is given back
now and then (:func:`trim`).

All of this does nothing where the C library has no such functions; giving back needs glibc 2.33.
"""

from __future__ import annotations

import contextlib
import ctypes
import time

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1

EVERY = 60.0
"""Seconds between two times that freed memory is given back. The next gigabyte of tensors costs page faults again."""
LEAST = 2**28
"""With fewer bytes in free chunks, nothing is given back."""


def keep_freed_memory() -> None:
    """From now on, keep freed memory in this process. The peak grows by what does not fit into gaps."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
        library.mallopt(_MMAP_MAX, 0)


def release_freed_memory() -> None:
    """Return all freed memory to the system once, so that a forked child does not begin with it."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


_last = time.monotonic()


def trim() -> None:
    """Called often, gives freed memory back every :data:`EVERY` seconds, if it is at least :data:`LEAST` bytes."""
    global _last
    now = time.monotonic()
    if now - _last >= EVERY:
        _last = now
        if freed_memory() >= LEAST:
            release_freed_memory()


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", *(f"other{number}" for number in range(7)), "free", "top")]


def freed_memory() -> int:
    """Bytes in free chunks of the heap, given back or not; 0 where the C library (glibc before 2.33) does not tell."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Mallinfo2
        return int(ask().free)
    return 0
