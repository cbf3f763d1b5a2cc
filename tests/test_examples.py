"""The examples are the files of docs/plugins.md, and their page's commands run. ``OCD_BENCH_WRITE_DOCS=1`` writes them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.pages import ROOT, WRITE, blocks, play

EXAMPLES = ROOT / "examples"
NAMES = re.findall(r"^\| `(\w+\.py)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)


def test_the_page_lists_every_example() -> None:
    assert sorted(NAMES) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_the_file_of_the_page(name: str) -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "plugins.md") if block.file == name)
    code = block.text.removeprefix(f"# {name}\n").lstrip()
    if WRITE:
        (EXAMPLES / name).write_text(code)
    assert (EXAMPLES / name).read_text() == code, "run with OCD_BENCH_WRITE_DOCS=1"


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copy(EXAMPLES / name, tmp_path)
    story = play(EXAMPLES / "README.md", tmp_path)
    assert len(story.results) == 4
    for result in story.results:
        assert result.code == 0, f"{result.command}\n{result.err}"
    assert re.search(r"^pseudo-label +\d", story.results[1].out, re.MULTILINE)
    assert "drifting-blobs, default+drift-3" in story.results[2].out
