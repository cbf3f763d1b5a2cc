"""NumPy's .npy and .npz files. Headers are checked against the size of the file and the limit before an array is allocated."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ocd_bench.errors import UsageError
from ocd_bench.reading.files import open_file
from ocd_bench.reading.guard import guarded, reading
from ocd_bench.reading.limits import check_size, unpacked_limit
from ocd_bench.reading.notes import listed
from ocd_bench.reading.unpack import Zip

if TYPE_CHECKING:
    from numpy import ndarray as Array


@guarded
def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, Array]:
    """Arrays of an .npz archive, by name.

    Args:
        names: names of the arrays to read; default: all.

    Raises:
        UsageError: if it is damaged, lacks one of ``names``, or holds Python objects (pickles are never run), or an array
            larger than its header, the file or the size limit allows.
    """
    with Zip(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.names}
        for name in names or ():
            if name not in members:
                raise UsageError(f"{path}: no array {name!r} in it; it has {listed(sorted(members)) or 'none'}")
        found: dict[str, Array] = {}
        total, packed = 0, path.stat().st_size
        for name in members if names is None else names:
            total += archive.size(members[name])
            check_size(path, total, unpacked_limit(packed))
            where = archive.where(members[name])
            with archive.open(members[name]) as file, reading(where):
                found[name] = _read_array(file, where, archive.size(members[name]))
        return found


@guarded
def read_npy(path: Path) -> Array:
    """The array of an .npy file.

    Raises:
        UsageError: as :func:`read_npz`.
    """
    with open_file(path) as file:
        available = file.seek(0, io.SEEK_END)
        file.seek(0)
        return _read_array(file, path, available)


def _read_array(file: BinaryIO, where: object, available: int) -> Array:
    import numpy as np
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise UsageError(f"{where}: version {version[0]}.{version[1]} of the .npy format is not read")
    if dtype.hasobject:
        raise UsageError(f"{where}: holds Python objects, which are not read; save numbers or texts")
    count = math.prod(shape)
    expected = count * dtype.itemsize
    left = available - file.tell()
    # The header of an array without bytes may state any number of elements.
    if min(shape, default=1) < 0 or expected != left or (count > 0 and dtype.itemsize == 0):
        raise UsageError(f"{where}: the header promises {' x '.join(map(str, shape))} of {dtype}, which is not what follows")
    check_size(where, expected)
    values = np.empty(count, dtype)
    buffer = values.view(np.uint8) if expected else values
    done = 0
    while done < expected:
        block = file.read(min(2**20, expected - done))
        if not block:
            raise EOFError
        buffer[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return values.reshape(shape[::-1]).transpose() if fortran else values.reshape(shape)
