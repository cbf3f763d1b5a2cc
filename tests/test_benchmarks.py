"""The scripts of ``benchmarks/`` that wrap the command line: their settings exist, and bad input gets one line."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from ocd_bench.cli import build_parser
from ocd_bench.config import parse_assignment, resolve
from ocd_bench.methods import builtin
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.report.build import build_table
from ocd_bench.results import read_run
from ocd_bench.runner.cells import parse_variants
from ocd_bench.stats import Paired
from tests.runs import cell, make_run, write_run
from tests.toy import ToyClasses

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_lever_of_the_ablation_changes_a_setting_or_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)  # as Python does for the script itself
    known = {method.name: method for method in builtin()}
    usual = resolve(ToyClasses(), [known["ocd"]], "quick").section("ocd")
    levers = load("ablation").LEVERS
    assert levers["default"][1:] == ("ocd", [])
    assert len({(method, *settings) for _, method, settings in levers.values()}) == len(levers)
    for name, (_, method, settings) in levers.items():
        assert method in known, name
        changed = resolve(ToyClasses(), [known["ocd"]], "quick", dict(map(parse_assignment, settings))).section("ocd")
        assert (changed == usual) is (not settings), name


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("ablation", ["--only", "default,magic"], "error: --only magic: expected base, default, imitation"),
        ("ablation", ["--task", "nowhere"], "nowhere"),
        ("layer_selection", ["--task", "nowhere"], "nowhere"),
        ("speed", ["--only", "nowhere"], "error: --only nowhere: no line has this in its name"),
    ],
)
def test_bad_input_gets_a_line(script: str, arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, FOLDER / f"{script}.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_that_an_ablation_keeps_have_folders_of_their_own() -> None:
    ablation, names = load("ablation"), []
    for task, dataset, seeds in (("images", "", 3), ("images", "mnist", 3), ("images", "mnist", 2), ("tabular", "", 3)):
        args = SimpleNamespace(task=task, dataset=dataset, preset="quick", seeds=seeds, set=[])
        names += [ablation.name_of(args, settings) for settings in {tuple(lever[2]) for lever in ablation.LEVERS.values()}]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_the_ablation_has_the_differences_of_the_table_and_another_metric(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    ablation = load("ablation")
    run = read_run(make_run(tmp_path / "run", {"base": 0.0, "ocd": 1.0}))
    compared = ablation.Comparison(run, "mnist")
    assert compared.head() == ["accuracy [%] ↑", "Δ base [points]", "cross_entropy [nats] ↓", "Δ base [nats]", "gain"]
    (group,) = build_table(run).groups
    row = next(row for row in group.rows if row.method == "ocd")
    assert row.delta is not None
    assert group.primary is not None
    found = compared.columns("ocd")
    assert found[1].strip("*") == group.primary.style.difference(row.delta.widest)
    assert found[1].startswith("**") == bool(row.delta.sign)
    assert found[3].strip("*").startswith("-")  # a lower cross entropy
    assert compared.columns("base")[1] == "–"
    assert compared.columns("tent") == ["n/a"] * 5


def test_ranks_of_layers_on_a_case_to_compute_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    selection = load("layer_selection")
    gains = {0: {"a": 0.1, "b": 0.2, "c": 0.3}, 1: {"a": 0.0, "b": 0.0, "c": 0.0}, 2: {"a": 0.5, "b": 0.0, "c": 0.4}}
    rising = {seed: {"a": 1.0, "b": 2.0, "c": 4.0} for seed in gains}
    criteria = dict.fromkeys(selection.CRITERIA, rising)
    trials = selection.Trials("d", "rmse", "b", criteria, dict.fromkeys(selection.GAINS, gains))
    assert trials.correlations("oracle", "gain 1") == pytest.approx([1.0, -0.5])  # nothing to rank in the second seed
    assert trials.correlation_of_means("oracle", "gain 1") == pytest.approx(0.5)
    assert trials.first("oracle", "gain 1") == pytest.approx(0.7 / 3)
    assert trials.first("best", "gain 1") == pytest.approx(0.8 / 3)
    assert trials.first("task", "gain 1") == pytest.approx(0.2 / 3)
    file = tmp_path / "d.json"
    file.write_text(json.dumps(asdict(trials)))
    assert selection.Trials.load(file) == trials


# -- speed ------------------------------------------------------------------------------------------------------------------
def test_a_line_is_timed_in_turn_after_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    timing = importlib.import_module("speed_lines.timing")
    calls: list[str] = []

    def side(name: str, count: int) -> object:
        return timing.Side(name, lambda: calls.append(name), count)

    def line(check: Callable[[], str]) -> object:
        return timing.Line("a line", lambda options: timing.Pair(side("ours", 6), side("other", 3), check))

    monkeypatch.setattr(timing, "clock", lambda: lambda: float(len(calls)))  # every call takes a second
    options = SimpleNamespace(rounds=2, seconds=0.5)
    found = timing.measure(line(lambda: calls.append("check") or "outputs"), options).record()
    assert calls == ["check", "ours", "other", "other", "ours", "ours", "other"]
    assert (found["ours_per_s"], found["other_per_s"], found["ratio"], found["rounds"]) == (6.0, 3.0, 2.0, 2)
    with pytest.raises(timing.Wrong, match="outputs: relative difference"):
        timing.measure(line(lambda: timing.same(torch.ones(2), torch.zeros(2), "outputs")), options)
    assert timing.same(torch.ones(2), torch.ones(2), "outputs") == "outputs: equal"


def test_a_script_says_which_cells_of_its_run_failed_and_why(tmp_path: Path) -> None:
    runs = load("runs")
    assert runs.failures(tmp_path) == []
    failed = cell("images", "mnist", "ocd", 2, status="failed", reason="no input")
    write_run(tmp_path / "run", [failed, cell("images", "mnist", "base", 2, {"accuracy": np.ones(3)})], {})
    assert runs.failures(tmp_path / "run") == ["ocd, mnist, seed 2: no input"]


def test_curves_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    growth = load("growth")
    sizes = {1000: {"seconds": 0.5, "mb": 0.0}, 10_000: {"seconds": 5.0, "mb": 40.0}}
    picture = growth.figure({"samples": sizes, "width": {64: {"seconds": 1.0, "mb": 9.0}}})
    assert picture.count("<polyline") == 2  # of one size there is no curve
    assert "samples from 0.5 to 5" in picture
    assert "samples from 1 to 40" in picture


def test_slopes_of_growth_are_those_of_the_logarithms() -> None:
    growth = load("growth")
    assert growth.slope([1, 10, 100, 1000], [5, 7, 2e2, 2e3]) == pytest.approx(1)
    assert growth.slope([1, 10], [3, 3]) == pytest.approx(0)
    assert growth.slope([2, 4, 8], [9, 16, 64]) == pytest.approx(2)


# -- intervals --------------------------------------------------------------------------------------------------------------
def test_intervals_cover_the_truth() -> None:
    """A small form of benchmarks/coverage.py: 200 simulations a cell, so that 95 % is 92 to 98 %."""
    coverage = load("coverage")
    laws = {law.name: law for law in coverage.LAWS}
    for name, groups, n, seeds, ratio in (
        ("normal differences", None, 100, 3, 1.5),
        ("skewed (lognormal)", None, 100, 1, 0.0),
        ("RMSE (t, 5)", coverage.Groups(20), 300, 3, 0.0),
        ("accuracy, 10 % better, 5 % worse", coverage.Groups(10, columns=2), 300, 1, 0.0),
        ("Matthews, half and half", None, 200, 3, 1.5),
    ):
        found = coverage.coverage(laws[name], n, groups, seeds, ratio, 200, np.random.default_rng(0))
        assert 0.9 <= found.covered <= 0.995, name
        assert found.text.startswith("(") == (groups is not None and groups.count < 20), name


def test_intervals_that_ignore_groups_have_too_little_coverage() -> None:
    """The same simulation without groups has too little coverage, so the test above can fail."""
    coverage = load("coverage")
    law, groups, random = coverage.LAWS[0], coverage.Groups(10, columns=2), np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        e = coverage.effects(1, 300, groups.draw(300, random), random)
        base, method = law.scores(e, 0.0)
        found = Paired({("b", 0): base[0], ("m", 0): method[0]}, "mean").difference("m", "b")
        covered += found.low <= 0 <= found.high
    assert covered / 200 < 0.8


def test_the_coverage_table_has_a_line_for_each_law_and_design(capsys: pytest.CaptureFixture[str]) -> None:
    coverage = load("coverage")
    assert coverage.main(["--draws", "2", "--only", "half and half", "--quick"]) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == lines[0].count("|")
    assert len(lines) == 2 + 2
    with pytest.raises(SystemExit):
        coverage.main(["--only", "no such law"])


def test_claims_are_judged_by_the_interval_over_seeds_and_samples(tmp_path: Path) -> None:
    claims = load("claims")
    clear = read_run(make_run(tmp_path / "clear", {"base": 0.0, "ocd": 1.0}))
    luck = read_run(make_run(tmp_path / "luck", {"base": 0.0, "ocd": 0.4}, own=0.4))
    claim = claims.Claim("ahead", "any", "mnist", "ocd", "+1")
    assert claims.line(claim, clear)[-1] == "holds"
    assert claims.line(claim, luck)[-1] == "not significant"
    few = read_run(make_run(tmp_path / "few", {"base": 0.0, "ocd": 3.0}, n=50))
    assert claims.line(claim, few)[-1] == "zero is outside, but it is no claim: fewer than 100 test samples"


def test_the_page_of_claims_names_only_existing_rows() -> None:
    claims = load("claims")
    runs = {folder: read_run(claims.RESULTS / folder) for folder in {claim.folder for claim in claims.CLAIMS}}
    for claim in claims.CLAIMS:
        rows = {(key.dataset, key.method) for key in runs[claim.folder].cells}
        of_several = claim.dataset in (claims.OTHERS, "average of 4 datasets")
        assert any(method == claim.method and (of_several or dataset == claim.dataset) for dataset, method in rows), claim.text


# -- the paper's size ---------------------------------------------------------------------------------------------------------
def test_parts_of_a_piece_are_small_enough_and_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(FOLDER / "paper")
    pack = load("paper/pack")
    sizes = {"a": 50, "b": 30, "c": 30, "d": 9, "e": 1}
    found = pack.parts(sizes.items(), limit=60)
    assert sorted(name for part in found for name in part) == sorted(sizes)
    assert all(sum(sizes[name] for name in part) <= 60 for part in found)
    assert len(found) == 2
    with pytest.raises(ValueError, match="more than a part"):
        pack.parts(sizes.items(), limit=40)
    for part, name in (("1", "mnist/x"), ("2", "mnist/y"), ("2", "other/z")):
        path = tmp_path / "packed" / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(part + name)
    joined = pack.join(tmp_path / "packed", tmp_path / "data")
    assert sorted(str(path.relative_to(joined)) for path in joined.rglob("*") if path.is_file()) == [
        "mnist/x",
        "mnist/y",
        "other/z",
    ]
    assert (joined / "other" / "z").read_text() == "2other/z"
    assert pack.join(joined, tmp_path / "again") == joined


def test_every_piece_is_a_command_that_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(FOLDER / "paper")
    run = load("paper/run")
    assert run.main(["--list"]) == 0
    for piece in run.PIECES:
        assert piece.minutes <= 8
        for small in (False, True):
            args = build_parser()[0].parse_args(piece.command("DATA", "out", small=small, device="cpu"))
            assert dict(map(parse_assignment, args.assignments)), piece.name
            assert set(args.methods.split(",")) <= {method.name for method in builtin()}, piece.name
    with pytest.raises(SystemExit):
        run.main(["mnist", "--data-dir", str(tmp_path / "nowhere")])


def test_the_slice_of_the_throughput_measures_every_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")  # its digits
    monkeypatch.setattr(sys, "path", [str(FOLDER / "paper"), *sys.path])  # the script adds to it
    throughput, out, milliseconds = load("paper/throughput"), tmp_path / "table.md", tmp_path / "step"
    options = ["--device", "cpu", "--slice", "--compile", "--set", "ocd_paper.channels=2"]
    assert throughput.main([*options, "--out", str(out), "--step-ms", str(milliseconds)]) == 0
    lines = json.loads(out.with_suffix(".json").read_text())["lines"]
    printed = capsys.readouterr().out
    assert all(f"| {line['line']} | {line['batch']} |" in printed for line in lines)
    assert out.read_text().splitlines()[: len(lines) + 2] == printed.splitlines()[: len(lines) + 2]
    assert [line["line"] for line in lines if "note" in line] == ["matrix product, tf32", "ocd-paper, compiled"]  # need a GPU
    measured = [line for line in lines if "note" not in line]
    assert len(measured) == 18
    assert all(0 < line["low"] <= line["median"] <= line["high"] and line["rounds"] == 5 for line in measured)
    assert all(line["flops"] > 0 and line["moved"] > 0 for line in measured if line["unit"] not in ("TFLOP", "TB"))
    first = next(line for line in lines if line["line"] == "ocd-paper, bf16, training")
    assert 1000 * first["batch"] / float(milliseconds.read_text()) == pytest.approx(first["median"])


def test_a_line_that_fails_has_its_error_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    rates = load("paper/rates")
    table = rates.Table(10.0, 1e-6, False, None, {})

    def wrong() -> None:
        raise RuntimeError("two\nlines | and a bar")

    assert table.line("wrong", 1, "samples", 1, wrong) == 0
    table.peaks.update(float32=100.0, copy=10.0)
    assert table.line("right", 1, "samples", 4, lambda: ([2.0] * 5, rates.Work(100.0, 40.0))) == 2
    table.deadline = 0.0
    assert table.line("late", 1, "samples", 1, wrong) == 0
    assert table.failed == 1
    assert table.texts[2].startswith("| wrong | 1 | error: RuntimeError: two lines / and a bar | samples |")
    assert table.rows[1]["shares"] == {"arithmetic, float32": 0.5, "memory": 2.0}
    assert "memory: 200 %" in table.texts[3]
    assert "skipped: would take" in table.texts[4]
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert rates.work_of(lambda: a @ b.t().t()) == rates.Work(2 * 2 * 3 * 4, 4 * (6 + 12 + 8))


def test_the_soak_notices_what_grows() -> None:
    soak = load("soak")

    def reading(run: int, **changes: float):
        usual = {"seconds": 1.0, "exit_code": 0, "resident_mb": 300.0, "descriptors": 9, "threads": 1, "children": 0}
        return soak.Reading(run, **{**usual, "leftovers": 0, "warnings": 0, **changes})

    start = [reading(1, resident_mb=200.0), reading(2)]
    assert soak.problems([*start, reading(3), reading(4, resident_mb=315.0)]) == []
    for changes, text in (
        ({"resident_mb": 330.0}, "memory: 300.0 MB and later 330.0 MB"),
        ({"descriptors": 10}, "descriptors: 9 and later 10"),
        ({"children": 1}, "children: 0 and later 1"),
        ({"leftovers": 2}, "run 4 left 2 files"),
        ({"warnings": 1}, "run 4 gave 1 warnings"),
        ({"exit_code": 3}, "run 4 ended with exit code 3"),
    ):
        assert soak.problems([*start, reading(3), reading(4, **changes)]) == [text]


def test_a_simulated_cluster_obeys_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/many_machines.py, on a case to compute by hand: two seeds, each a base of 10 s and two fits of 4 s."""
    machines = load("many_machines")
    family = {"a": "one", "b": "two"}
    costs = {("t", "d"): machines.Costs(10.0, {"one": 4.0, "two": 4.0}, {"a": 1.0, "b": 1.0}, {"a": 1, "b": 1})}
    groups = [machines.Group("t", "d", seed, ("a", "b")) for seed in (0, 1)]
    halves = [machines.Group("t", "d", seed, (name,)) for name in ("a", "b") for seed in (0, 1)]

    def makespan(parts, workers: int, handle: float = 0.0) -> float:
        return machines.simulate(parts, costs, family, workers, 0.0, 0.0, handle).makespan

    assert makespan(groups, 1) == makespan(halves, 1) == 40.0  # all work
    assert makespan(groups, 2) == 20.0
    assert makespan(halves, 4) == 15.0  # base, then one fit and its test
    assert makespan(halves, 4, handle=100.0) > 400.0  # the first machine
    assert machines.lower_bound(groups, costs, family, 1, 0.0) == (40.0, "the work")
    assert machines.lower_bound(groups, costs, family, 100, 0.0) == (15.0, "base, then fit")
    assert machines.lower_bound(groups, costs, family, 100, 100.0) == (400.0, "the first machine")


# -- tables -----------------------------------------------------------------------------------------------------------------
def test_published_tables_have_the_scores_of_their_primary_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables = load("tables")
    folder = make_run(tmp_path / "run", seeds=(0,), groups=(("images", "mnist"), ("images", "mnist+fog-3")))
    before = read_run(folder)
    metrics = {key: list(cell["metrics"]) for key, cell in before.cells.items()}
    assert all(len(names) == 2 for names in metrics.values())
    for limit in (tables.SMALL, 0):
        monkeypatch.setattr(tables, "SMALL", limit)
        tables.publish(folder, tmp_path / "out")
        after = read_run(tmp_path / "out")
        assert list(after.cells) == list(before.cells)
        for key, (primary, other) in metrics.items():
            np.testing.assert_array_equal(after.scores(key, primary), before.scores(key, primary))
            dropped = limit == 0 and "+" in key.dataset
            assert (after.scores(key, other) is None) == dropped, key


def test_a_published_run_names_the_methods_and_seeds_that_it_has(tmp_path: Path) -> None:
    """A run that was asked for more, and ended, is published as what it is; a part that was lost later is missed."""
    tables = load("tables")
    folder = make_run(tmp_path / "run", {"base": 0.0, "ocd": 0.1}, seeds=(0,))
    info = json.loads((folder / "run.json").read_text())
    info["seeds"], info["methods"] = [0, 1], [*info["methods"], "tent+ocd"]
    info["tasks"]["images"]["methods"] = ["base", "ocd", "tent+ocd"]
    (folder / "run.json").write_text(json.dumps(info))
    tables.publish(folder, tmp_path / "out")
    after = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (after["seeds"], after["tasks"]["images"]["methods"]) == ([0], ["base", "ocd"])
    assert "have no cell" not in (tmp_path / "out" / "table.md").read_text()
    (tmp_path / "out" / "cells" / "images-mnist-ocd-s0.json").unlink()
    (group,) = build_table(read_run(tmp_path / "out")).groups
    assert [row.method for row in group.rows] == ["base"]
    (said,) = [note for note in build_table(read_run(tmp_path / "out")).notes if "have no cell" in note]
    assert said == "1 of 2 combinations of dataset, method and seed have no cell: images-mnist-ocd-s0"


def test_every_table_is_a_command_that_is_understood() -> None:
    tables = load("tables")
    assert len({table.name for table in tables.TABLES}) == len(tables.TABLES)
    methods = {method.name for method in builtin()} | {"xgboost"}
    manager = load_plugins()
    for table in tables.TABLES:
        args = build_parser()[0].parse_args(table.command("DATA"))
        unknown = {part for name in args.methods.split(",") for part in name.split("+")} - methods
        assert not unknown, table.name
        task = manager.task(args.task)
        parse_variants(args.corruption, task)
        chosen = [manager.method(name) for name in args.methods.split(",")]
        resolve(task, chosen, args.preset or "default", dict(map(parse_assignment, args.assignments)))


def test_the_list_of_tables_names_those_that_exist(tmp_path: Path) -> None:
    tables = load("tables")
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n")

    def made(place: str, names: list[str], datasets: tuple[str, ...] = ("mnist",)) -> None:
        cells = [cell("images", data, name, 0, {"accuracy": np.ones(3)}) for data in datasets for name in names]
        write_run(tmp_path / place, cells, {})
        info = json.loads((tmp_path / place / "run.json").read_text())
        info["tasks"]["images"]["methods"] = names
        (tmp_path / place / "run.json").write_text(json.dumps(info))

    def methods(place: str) -> list[str]:
        table = next(table for table in tables.TABLES if table.name == place)
        return table.options.split("--methods ")[1].split()[0].split(",")

    made("usps", methods("usps"))
    made("mnist", ["base", "ocd"])  # an older one of that name
    made("cifar10-c-tent", methods("cifar10-c-tent"), ("cifar10", "cifar10+fog-5"))
    (tmp_path / "cifar10-c-tent" / "cells" / "images-cifar10-base-s0.json").unlink()  # a part has been lost
    tables.write_list(page, tmp_path)
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert not any("`mnist`" in line or "`cifar10-c-tent`" in line for line in lines)
    assert next(line for line in lines if line.startswith("| `")).startswith("| `usps` | MNIST to USPS")
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no line"):
        tables.write_list(page, tmp_path)


def test_the_table_of_streams_is_the_mean_over_kinds_by_order_and_size_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    values = {("base", 1): (0.5, 0.7), ("base", 8): (0.5, 0.7), ("tent", 1): (0.1, 0.2), ("tent", 8): (0.8, 0.9)}
    for size in (8, 1):
        cells = []
        for name in ("base", "tent"):
            for kind, value in zip(("fog-5", "snow-5"), values[name, size], strict=True):
                for stream in ("", "@sorted"):
                    made = cell("images", f"mnist+{kind}{stream}", name, 0, {"accuracy": np.array([value] * 10)})
                    cells.append(made)
        write_run(tmp_path / str(size), cells, {}, tasks={"images": {"config": {"run": {"batch_size": size}}}})
    figure = tmp_path / "streams.svg"
    load("streams").main([str(tmp_path / "8"), str(tmp_path / "1"), "--figure", str(figure)])
    assert capsys.readouterr().out.splitlines() == [
        "| method | iid, 1 | iid, 8 | sorted, 1 | sorted, 8 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| base | **60.0** | 60.0 | **60.0** | 60.0 |",
        "| tent | 15.0 | **85.0** | 15.0 | **85.0** |",
    ]
    assert "tent from 15 to 85" in figure.read_text()
