"""Packs the input of a piece for a machine that takes only so much at a time: parts ``1``, ``2``, ... of at most 60 MB each.

    python benchmarks/paper/pack.py cifar10 --data-dir DATA --to packed

``run.py`` takes the folder of parts as its ``--data-dir``, and joins them. Files are copied as they are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pieces import PIECES

LIMIT = 60_000_000


def parts(files: Iterable[tuple[str, int]], limit: int = LIMIT) -> list[list[str]]:
    """Names in parts of at most ``limit`` bytes: each file, the largest first, goes to the first part that has room.

    Raises:
        ValueError: if a file is larger than a part.
    """
    result: list[tuple[int, list[str]]] = []
    for name, size in sorted(files, key=lambda file: (-file[1], file[0])):
        if size > limit:
            raise ValueError(f"{name}: {size / 1e6:.0f} MB, more than a part of {limit / 1e6:.0f} MB takes")
        place = next((i for i, (used, _) in enumerate(result) if used + size <= limit), len(result))
        if place == len(result):
            result.append((0, []))
        used, names = result[place]
        result[place] = used + size, [*names, name]
    return [sorted(names) for _, names in result]


def join(packed: Path, target: Path) -> Path:
    """A folder of data with links to the files of all parts; ``packed`` itself if it has no parts."""
    found = sorted(folder for folder in packed.iterdir() if folder.is_dir() and folder.name.isdecimal())
    if not found:
        return packed
    for folder in found:
        for file in (path for path in folder.rglob("*") if path.is_file()):
            link = target / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file.resolve())
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the files of a piece into parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", choices=[piece.name for piece in PIECES])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="an empty or new folder")
    args = parser.parse_args(arguments)
    piece = next(piece for piece in PIECES if piece.name == args.piece)
    missing = [name for name in piece.files if not (args.data_dir / name).is_dir()]
    if missing:
        sys.exit(f"error: {args.data_dir}: has no folder {missing[0]}")
    files = [path for name in piece.files for path in sorted((args.data_dir / name).rglob("*")) if path.is_file()]
    sizes = [(str(path.relative_to(args.data_dir)), path.stat().st_size) for path in files]
    for number, names in enumerate(parts(sizes), 1):
        for name in names:
            copy = args.to / str(number) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.data_dir / name, copy)
        print(f"{args.to / str(number)}: {len(names)} files, {sum(dict(sizes)[name] for name in names) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
