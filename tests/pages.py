"""Runs the code of documentation pages: files are written, and console commands are executed in order.

A python block that begins with ``# NAME.py`` is a file of that name. In a console block a line ``$ COMMAND`` is a command and
the lines after it are its output. ``OCD_BENCH_WRITE_DOCS=1`` writes the real output into the pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITE = bool(os.environ.get("OCD_BENCH_WRITE_DOCS"))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the number of its first line."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The file name in the first line of a python block; empty if it has none."""
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found and self.language == "python" else ""

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Commands of a console block, each with the output shown below it."""
        if self.language != "console":
            return []
        pieces = re.split(r"^\$ (.*)\n", self.text, flags=re.MULTILINE)
        assert not pieces[0], f"line {self.line}: output without a command"
        return list(zip(pieces[1::2], pieces[2::2], strict=True))


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = path.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in FENCE.finditer(text)]


@dataclass
class Result:
    """The result of a command of a page."""

    where: str
    command: str
    shown: str
    code: int
    out: str
    err: str


@dataclass
class Story:
    """A page that is executed in a folder of its own."""

    folder: Path
    results: list[Result] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def play(path: Path, folder: Path) -> Story:
    """Write the files and run the commands of a page, in order, in this process."""
    story = Story(folder)
    with environment(folder):
        for block in blocks(path):
            if block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")
                story.files.append(block.file)
            for command, shown in block.commands:
                code, out, err = execute(command)
                story.results.append(Result(f"{path.name}:{block.line}", command, shown, code, out, err))
    if WRITE:
        rewrite(path, story)
    return story


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Sets the working directory and an empty cache, disables installed plugins, and restores everything afterwards."""
    modules, search = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OCD_BENCH_CACHE", str(folder / ".cache"))
        patch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
        patch.setenv("COLUMNS", "120")
        patch.delenv("OCD_BENCH_DATA", raising=False)
        patch.delenv("OCD_BENCH_TRACE_PLUGINS", raising=False)
        try:
            yield
        finally:
            sys.path[:] = search
            for name in set(sys.modules) - modules:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if file.startswith(str(folder)):
                    del sys.modules[name]


def execute(command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``[NAME=VALUE ...] ocd-bench|python|cat ... [2>&1]``."""
    from ocd_bench.cli import main

    words = shlex.split(command)
    out, err = io.StringIO(), io.StringIO()
    if words[-1] == "2>&1":
        words.pop()
        err = out
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        program, *arguments = words
        if program == "ocd-bench":
            code = main(arguments)
        elif program == "python":
            runpy.run_path(arguments[0], run_name="__main__")
            code = 0
        elif program == "cat":
            print(Path(arguments[0]).read_text(encoding="utf-8"), end="")
            code = 0
        else:
            raise AssertionError(f"{command}: {program} is not a program that pages may use")
    return code, out.getvalue(), err.getvalue()


def shape(text: str) -> list[str]:
    """Lines of output without parts that differ between machines: numbers, the device, widths, remarks about time."""
    text = re.sub(r"^(OCD-Bench .*?seeds? [0-9, to]*[0-9]),.*$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "#", text)
    text = re.sub(r"[ ─]+", " ", text)
    return [line.strip() for line in text.splitlines() if line.strip() and "(advisory)" not in line]


def digits(text: str) -> list[tuple[str, float, float]]:
    """The numbers of an output that do not depend on the machine's speed: line, number, and how much it may differ on another
    CPU (a point in a table, since each sample of a small test set is a third of one; 2 % of any other number)."""
    found = []
    costs = 0
    for line in text.splitlines():
        if line.startswith("OCD-Bench ") or "(advisory)" in line:
            continue
        line = re.sub(r"; base trained in [\d.,]+ s", "", line)
        entries = re.split(r" {2,}", line.strip())
        if entries[-2:] == ["fit [s]", "samples/s"]:
            costs = 2
        elif line.startswith(("seed", "columns left out")):
            costs = 0
        in_table = costs and len(entries) > costs
        for entry in entries[:-costs] if in_table else entries:
            for number in re.findall(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)", entry):
                value = float(number.replace(",", ""))
                found.append((line, value, 1.0 if in_table else 0.02 * abs(value)))
    return found


def rewrite(path: Path, story: Story) -> None:
    """Write the real outputs into the page, where it shows outputs."""
    results = iter(story.results)

    def fresh(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        lines = []
        for command, shown in Block(found[1], found[2], 0).commands:
            result = next(results)
            lines.append(f"$ {command}\n{strip(result.out) if shown else ''}")
        return f"```console\n{''.join(lines)}```"

    path.write_text(FENCE.sub(fresh, path.read_text(encoding="utf-8")), encoding="utf-8")


def strip(text: str) -> str:
    """Without trailing blanks and blank lines at the end."""
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"
