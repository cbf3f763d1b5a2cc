"""The examples in docstrings are correct."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from tests.pages import ROOT

SOURCES = [path for path in sorted(ROOT.glob("ocd_bench/**/*.py")) if ">>> " in path.read_text(encoding="utf-8")]
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0, "see the captured output"


def test_modules_that_authors_use_have_examples() -> None:
    wanted = {"metrics", "online", "plugin.manager", "samples", "seeds", "task", "testing.trial"}
    assert {f"ocd_bench.{name}" for name in wanted} <= set(MODULES)
