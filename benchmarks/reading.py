"""Counts what a reader of one fit and one prediction has to open: files entered, functions entered, and jumps between files.

The first example of docs/plugins.md is run with `ocd` and two training steps, and every Python call inside the package is
recorded in order. A *jump* is a call in another file than the previous call. A *return* is a jump into a file that was left
before. The prediction uses the gain 1, not the chosen one.

    python benchmarks/reading.py [--calls]

``--calls`` lists the pairs of files with the most jumps between them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import ocd_bench

ROOT = Path(ocd_bench.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"
ENGINE = ("engine", "published")


class Recorder:
    """Calls into the package while it is active, by file."""

    def __init__(self, extra: Path) -> None:
        self.extra = str(extra)
        self.names: dict[str, str | None] = {}
        self.files: list[str] = []
        self.functions: set[tuple[str, str, int]] = set()
        self.jumps: Counter[tuple[str, str]] = Counter()
        self.returns = 0
        self.last = ""

    def __enter__(self) -> Recorder:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def name(self, frame: FrameType) -> str | None:
        """The file of a frame, relative to the package; None for a file outside of the package."""
        path = frame.f_code.co_filename
        if path not in self.names:
            inside = path.startswith(str(ROOT))
            self.names[path] = str(Path(path).relative_to(ROOT)) if inside else Path(path).name if path == self.extra else None
        return self.names[path]

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or (here := self.name(frame)) is None:
            return
        self.functions.add((here, frame.f_code.co_qualname, frame.f_code.co_firstlineno))
        if self.last and here != self.last:
            self.returns += here in self.files
            self.jumps[(self.last, here)] += 1
        self.last = here
        if here not in self.files:
            self.files.append(here)

    def line(self, what: str) -> str:
        """The counts as a row of a Markdown table."""
        engine = sum(file.startswith(ENGINE) for file in self.files)
        counts = len(self.files), engine, len(self.functions), sum(self.jumps.values()), self.returns
        return f"| {what} | " + " | ".join(map(str, counts)) + " |"


def example(folder: Path) -> Path:
    """The first Python example of the page, as a file."""
    (code,) = re.findall(r"```python\n(# blobs\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[:1]
    path = folder / "blobs.py"
    path.write_text(code, encoding="utf-8")
    return path


def record(plugin: Path, folder: Path) -> tuple[Recorder, Recorder]:
    """Recordings of the fit of `ocd`, and of its prediction of one test batch."""
    os.environ["OCD_BENCH_IN_PROCESS"] = "1"  # a child process would keep its calls to itself
    from ocd_bench import cli
    from ocd_bench.methods.ocd import OCD

    fit, predict = Recorder(plugin), Recorder(plugin)
    original: Callable[..., Any] = OCD.fit

    def watched(self: OCD, context: Any) -> Any:
        with fit:
            predictor = original(self, context)
        predictor.gain = replace(predictor.gain, value=1.0)
        call = type(predictor).__call__

        def once(self: Any, inputs: Any) -> Any:
            if predict.files:
                return call(self, inputs)
            with predict:
                return call(self, inputs)

        type(predictor).__call__ = once
        return predictor

    OCD.fit = watched  # type: ignore[method-assign]
    arguments = ["run", "--plugin", str(plugin), "--task", "blobs", "--preset", "quick", "--methods", "base,ocd", "--quiet"]
    if code := cli.main([*arguments, "--set", "ocd.steps=2", "--out", str(folder / "run")]):
        sys.exit(code)
    return fit, predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        fit, predict = record(example(Path(name)), Path(name))
    print("\n| | files | of the engine | functions | jumps | returns |\n| --- | --- | --- | --- | --- | --- |")
    for what, recorder in (("fit", fit), ("predict", predict)):
        print(recorder.line(what))
    for what, recorder in (("fit", fit), ("predict", predict)):
        print(f"\nengine files of {what}: {', '.join(sorted(file for file in recorder.files if file.startswith(ENGINE)))}")
        if options.calls:
            for (there, here), count in recorder.jumps.most_common(40):
                print(f"{count:5d}  {there} -> {here}")


if __name__ == "__main__":
    main()
