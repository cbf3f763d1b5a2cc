"""Reading of users' files: the layer that every reader of this suite, and of plugins, uses. It needs no torch.

- :func:`reading`, :func:`guarded`: any error of a parser becomes one line with the file's name (exit code 2).
- :func:`open_file`, :func:`read_bytes`, :func:`read_json`, :func:`read_lines`, :func:`read_npz`, :class:`Zip`: bounded in size,
  regular files only, any compression, byte order marks.
- :func:`list_folder`, :func:`is_stray`, :func:`split_name`: the files of a folder, without files that hold no data.
- :func:`read_sheet`: CSV, TSV, JSON lines, JSON and Parquet as cells of text with their line numbers.
- :func:`find_dataset`: the folder or file of a name, in any known format.
- :class:`Notes`: the reader's interpretations, for ``Splits.note``.
"""

from ocd_bench.printable import one_line, printable, quoted
from ocd_bench.reading.arrays import read_npy, read_npz
from ocd_bench.reading.files import open_file, read_bounded, read_bytes, read_json
from ocd_bench.reading.find import find_dataset
from ocd_bench.reading.folders import Listing, list_folder
from ocd_bench.reading.guard import explain, guarded, reading
from ocd_bench.reading.limits import check_size, size_limit, unpacked_limit
from ocd_bench.reading.names import PACKED, is_paper, is_stray, part_of, split_name
from ocd_bench.reading.notes import Notes, counted, left_out, listed
from ocd_bench.reading.sheet import Cell, Sheet, SheetOptions, read_sheet
from ocd_bench.reading.text import check_encoding, read_lines
from ocd_bench.reading.unpack import Zip, open_unpacked

__all__ = [
    "PACKED",
    "Cell",
    "Listing",
    "Notes",
    "Sheet",
    "SheetOptions",
    "Zip",
    "check_encoding",
    "check_size",
    "counted",
    "explain",
    "find_dataset",
    "guarded",
    "is_paper",
    "is_stray",
    "left_out",
    "list_folder",
    "listed",
    "one_line",
    "open_file",
    "open_unpacked",
    "part_of",
    "printable",
    "quoted",
    "read_bounded",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_npy",
    "read_npz",
    "read_sheet",
    "reading",
    "size_limit",
    "split_name",
    "unpacked_limit",
]
