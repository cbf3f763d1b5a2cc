"""The documentation is complete and correct: hooks, members, methods, datasets, examples that run, real outputs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ocd_bench import Context, Method, Predictor, Task
from ocd_bench.cli import build_parser
from ocd_bench.comparison.thresholds import ABSOLUTE, ALPHA, RELATIVE
from ocd_bench.data.page import PLUGINS, page
from ocd_bench.methods import builtin
from ocd_bench.plugin import spec
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.stats import LEVEL, MIN_SAMPLES
from tests.pages import ROOT, WRITE, Story, blocks, digits, environment, execute, play, shape

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"
OTHERS = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    *sorted(ROOT.glob("plugins/*/README.md")),
]


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return play(DOCS / "plugins.md", tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return play(DOCS / "tutorial.md", tmp_path_factory.mktemp("tutorial"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "blobs.py").write_text(next(block.text for block in blocks(DOCS / "plugins.md") if block.file == "blobs.py"))
    return play(DOCS / "engine.md", folder)


# -- examples -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["plugins", "tutorial", "engine"])
def test_commands_run_and_print_what_the_page_shows(name: str, request: pytest.FixtureRequest) -> None:
    story: Story = request.getfixturevalue(name)
    assert story.results
    for result in story.results:
        assert result.code == 0, f"{result.where}: {result.command}\n{result.err}"
        if result.shown and not WRITE:
            assert shape(result.out) == shape(result.shown), f"{result.where}: {result.command}"


def test_the_numbers_of_the_tutorial_are_the_products(tutorial: Story) -> None:
    """To the digits printed, but for what another CPU may change: see :func:`digits`."""
    compared = 0
    for result in tutorial.results:
        if not result.shown or WRITE:
            continue
        real, page = digits(result.out), digits(result.shown)
        assert len(real) == len(page), result.where
        for (line, value, tolerance), (_, shown, _) in zip(real, page, strict=True):
            assert value == pytest.approx(shown, abs=tolerance, rel=0), f"{result.where}: {line}"
            compared += 1
    assert compared > 50 or WRITE


def test_the_table_that_is_explained_is_real(tutorial: Story) -> None:
    words = "ocd-bench run --plugin rings.py --task rings --preset quick --out runs/three --quiet "
    page = (DOCS / "reading-the-table.md").read_text(encoding="utf-8")
    options, shown = re.findall(r"three seeds \(`(.*?)`\):\n\n```\n(.*?)```", page, re.DOTALL)[0]
    with environment(tutorial.folder):
        code, out, err = execute(words + options)
    assert code == 0, err
    real = out[: out.index("\n\n", out.index("seeds 0, 1, 2; "))]
    assert shape(real) == shape(shown)
    for (line, value, tolerance), (_, printed, _) in zip(digits(real), digits(shown), strict=True):
        assert value == pytest.approx(printed, abs=tolerance, rel=0), line


def test_every_python_block_is_a_file(plugins: Story, tutorial: Story) -> None:
    for path in PAGES:
        for block in blocks(path):
            if block.language == "python":
                assert block.file, f"{path.name}:{block.line}: begin it with '# NAME.py'"
                compile(block.text, block.file, "exec")
    for story in (plugins, tutorial):
        commands = " ".join(result.command for result in story.results)
        text = " ".join((story.folder / file).read_text() for file in story.files)
        for file in story.files:
            used = file in commands or f"from {Path(file).stem} import" in text
            assert used or file == "ocdfile.py" or file.startswith("test_"), f"{file} is written and never used"


def cell(story: Story, run: str, method: str, dataset: str = "blobs-default") -> dict:
    return json.loads((story.folder / "runs" / run / "cells" / f"{dataset}-{method}-s0.json").read_text())


def test_the_examples_do_what_the_page_says(plugins: Story) -> None:
    plain = cell(plugins, "blobs", "base")
    fewer, noise, deeper = (cell(plugins, run, "base") for run in ("fewer", "noise", "deeper"))
    assert plain["metrics"]["accuracy"]["value"] > 0.6 > noise["metrics"]["accuracy"]["value"]
    assert fewer["fingerprint"]["data"] != plain["fingerprint"]["data"]
    assert fewer["n_test"] == plain["n_test"] == 180
    assert deeper["layer"] == "0"
    assert cell(plugins, "deeper", "tent-norm")["status"] == "ok"
    assert cell(plugins, "deeper", "pseudo-label")["detail"]["adapted_parameters"] == 2 * 2 * 32
    lines = next(block.text for block in blocks(DOCS / "plugins.md") if block.file == "pseudo_label.py").splitlines()
    assert len(lines) <= 40
    drifted = json.loads((plugins.folder / "runs/drifting/cells/drifting-blobs-default+drift-3-base-s0.json").read_text())
    assert drifted["metrics"]["accuracy"]["value"] < plain["metrics"]["accuracy"]["value"]
    hot = cell(plugins, "hot", "own-temperature")
    assert hot["metrics"]["accuracy"] == cell(plugins, "hot", "base")["metrics"]["accuracy"]
    page = (plugins.folder / "blobs.html").read_text()
    assert "<h3>Samples measured</h3><table><tbody><tr><th scope='row'>base, seed 0</th><td>180</td></tr>" in page
    together = next(result for result in plugins.results if "temperature_column.py" in result.command)
    assert f"{hot['detail']['temperature']:.2f}" in together.out
    assert "temperature" in together.out.splitlines()[3]


def load(file: str) -> ModuleType:
    """A file of a page, in the page's folder, as a module."""
    sys.path.insert(0, ".")
    made = importlib.util.spec_from_file_location("example_of_the_page", file)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def test_the_examples_of_tests_are_tests(plugins: Story) -> None:
    with environment(plugins.folder):
        kit, own = load("test_blobs.py").TestBlobs(), load("test_more.py")
        for tests, count in ((kit, 11), (own, 2)):
            names = [name for name in dir(tests) if name.startswith("test_")]
            assert len(names) >= count
            for name in names:
                getattr(tests, name)()


def test_scores_are_as_the_format_page_reads_them(plugins: Story) -> None:
    page_of = next(block for block in blocks(DOCS / "results-format.md") if block.file == "differences.py")
    with environment(plugins.folder):
        Path(page_of.file).write_text(page_of.text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["differences.py", "runs/blobs"])
            code, out, _ = execute("python differences.py")
    difference = cell(plugins, "blobs", "oracle")["metrics"]["accuracy"]["value"]
    difference -= cell(plugins, "blobs", "base")["metrics"]["accuracy"]["value"]
    assert (code, out) == (0, f"oracle 0 accuracy {difference:+.4f}\n")


# -- completeness -----------------------------------------------------------------------------------------------------------
HOOKS = {name: function for name, function in vars(spec).items() if name.startswith("ocd_bench_")}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_arguments(name: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert f"### `{name}({arguments})`" in (DOCS / "plugins.md").read_text()


def members(kind: type) -> list[str]:
    return [name for name in {**vars(kind), **getattr(kind, "__annotations__", {})} if not name.startswith("_")]


def test_every_member_of_a_task_is_documented() -> None:
    text = (DOCS / "plugins.md").read_text()
    for name in members(Task):
        value = vars(Task).get(name)
        arguments = ", ".join(list(inspect.signature(value).parameters)[1:]) if inspect.isfunction(value) else ""
        wanted = f"`{name}({arguments})`" if inspect.isfunction(value) else f"`{name}`"
        assert wanted in text or (name == "name" and "name, primary_metric" in text), f"{wanted} is not on the page"


@pytest.mark.parametrize("kind", [Method, Context, Predictor])
def test_every_member_of_the_method_side_is_documented(kind: type) -> None:
    section = (DOCS / "plugins.md").read_text().partition("## A method")[2].partition("## Hooks")[0]
    for name in members(kind):
        assert re.search(rf"\b{name}\b", section), f"{kind.__name__}.{name} is not in the section on methods"


def test_every_method_is_documented_once() -> None:
    text = (DOCS / "methods.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (default|on request) \|(.*)$", text, re.MULTILINE)
    methods = list(load_plugins(only=PLUGINS).methods.values())
    assert {method.name for method in builtin()} <= {method.name for method in methods}
    assert sorted(name for name, _, _ in rows) == sorted(method.name for method in methods)
    described = {name: (when, rest) for name, when, rest in rows}
    for method in methods:
        when, rest = described[method.name]
        assert when == ("default" if method.default else "on request"), method.name
        assert method.section is None or f"`{method.section}`" in rest, method.name


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.name)
def test_no_heading_or_paragraph_is_repeated(path: Path) -> None:
    text = prose(path)
    paragraphs = [piece.strip() for piece in re.split(r"\n\s*\n", text) if len(piece.strip()) > 60]
    headings = re.findall(r"^#+ .*$", text, re.MULTILINE)
    for pieces in (headings, paragraphs):
        twice = [piece for piece in dict.fromkeys(pieces) if pieces.count(piece) > 1]
        assert not twice, f"{path.name}: {twice[0]}"


def test_the_dataset_page_is_up_to_date() -> None:
    written = page(load_plugins(only=PLUGINS).tasks)
    assert (DOCS / "datasets.md").read_text() == written, "run: python -m ocd_bench.data.page docs/datasets.md"


def test_the_results_format_names_every_key(plugins: Story) -> None:
    text = (DOCS / "results-format.md").read_text()
    run = json.loads((plugins.folder / "runs" / "blobs" / "run.json").read_text())
    ok = cell(plugins, "blobs", "oracle")
    keys = {*run, *run["environment"], *run["tasks"]["blobs"], *ok, *ok["cost"], *ok["fingerprint"], *ok["metrics"]["accuracy"]}
    for key in keys:
        assert re.search(rf"[`\"]{key}\b", text), f"{key} is not on the page"
    example = json.loads(next(block.text for block in blocks(DOCS / "results-format.md") if block.language == "json"))
    assert set(example) == set(ok)
    assert set(example["cost"]) == set(ok["cost"])
    assert set(example["metrics"]["accuracy"]) == set(ok["metrics"]["accuracy"])


def test_exit_codes_are_documented() -> None:
    table = (DOCS / "results-format.md").read_text().partition("## Exit codes")[2]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == ["0", "1", "2", "3", "4", "70", "130", "143"]


def test_numbers_on_the_page_are_those_in_use() -> None:
    text = " ".join((DOCS / "reading-the-table.md").read_text().split())
    assert f"Fewer than {MIN_SAMPLES} test samples" in text
    assert f"its {LEVEL:.0%} interval".replace("%", " %") in text
    text = " ".join((DOCS / "comparing.md").read_text().split())
    assert f"The level is {ALPHA:.0%} for the whole table".replace("%", " %") in text
    points, decibels = 100 * ABSOLUTE["fraction"], ABSOLUTE["dB"]
    assert f"{points:g} points of a fraction, {decibels:g} dB, or {100 * RELATIVE:g} % of the baseline's number" in text


# -- sound pages --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [README, *PAGES, *OTHERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(path: Path) -> None:
    text = prose(path)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            page = path.parent / file if file else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), target


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of headings, as Git hosts and Sphinx generate them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.name)
def test_every_command_line_parses(path: Path) -> None:
    parse: Callable[..., object] = build_parser()[0].parse_args
    for block in blocks(path):
        if block.language not in ("console", "sh"):
            continue
        for line in block.text.splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            programs = [place for place, word in enumerate(words) if Path(word).name == "ocd-bench"]
            if programs:
                parse([word for word in words[programs[0] + 1 :] if word != "2>&1"])


def test_the_index_has_every_page() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", (DOCS / "README.md").read_text())
    assert sorted(listed) == [path.name for path in PAGES if path.name not in ("README.md", "index.md")]


def test_the_site_has_every_page() -> None:
    text = (DOCS / "index.md").read_text()
    listed = {line for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()}
    assert {path.stem for path in PAGES if path.name not in ("README.md", "index.md")} <= listed
