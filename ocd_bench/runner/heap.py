"""The C library's heap in processes that compute: freed memory is kept for the next tensor.

glibc returns a freed block of more than 32 MB to the system at once. The next tensor of that size then costs a page fault for
every 4 KB: nearly half of the CPU time of a run on views, whose tensors take 70 MB each.

Both functions do nothing where the C library has no such parameters.
"""

from __future__ import annotations

import contextlib
import ctypes

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


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
