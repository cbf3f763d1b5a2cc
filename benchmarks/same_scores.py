"""Checks that two run folders have the same numbers, bit for bit, as after a change that only moves code.

    python benchmarks/same_scores.py BEFORE AFTER

It compares every array of every score file with its type and shape, and every metric, layer, gain and training curve of every
cell. Times, memory, fingerprints and the environment may differ. Exit code 1: there are differences, which are listed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

MAY_DIFFER = {"cost", "fingerprint", "made_by", "environment", "sha256"}


def scores(folder: Path) -> dict[str, np.ndarray]:
    """Every array of a run's score files, by file and name."""
    found = {}
    for path in sorted((folder / "scores").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found |= {f"{path.stem}:{name}": arrays[name] for name in arrays.files}
    return found


def cells(folder: Path) -> dict[str, Any]:
    """All values of a run's cells that must not change, by file and dotted key."""
    found: dict[str, Any] = {}

    def add(where: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                add(f"{where}.{key}", value[key])
        else:
            found[where] = value

    for path in sorted((folder / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        add(path.stem, {key: value for key, value in cell.items() if key not in MAY_DIFFER})
    return found


def differences(before: Path, after: Path) -> tuple[list[str], int]:
    """The differences, and the number of compared values."""
    lines = []
    first, second = scores(before), scores(after)
    values, others = cells(before), cells(after)
    for kind, one, two in (("array", first, second), ("value", values, others)):
        lines += [f"{name}: only in {before}" for name in sorted(set(one) - set(two))]
        lines += [f"{name}: only in {after}" for name in sorted(set(two) - set(one))]
        for name in sorted(set(one) & set(two)):
            a, b = one[name], two[name]
            if kind == "array":
                same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
                more = f", largest difference {np.abs(a - b).max():.3g}" if a.shape == b.shape and a.dtype.kind == "f" else ""
                lines += [] if same else [f"{name}: arrays differ{more}"]
            elif a != b:
                lines.append(f"{name}: {str(a)[:80]} and {str(b)[:80]}")
    return lines, len(set(first) & set(second)) + len(set(values) & set(others))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    lines, count = differences(options.before, options.after)
    print("\n".join(lines) or f"identical: {count} arrays and values")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
