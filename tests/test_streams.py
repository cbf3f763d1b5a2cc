"""Streams: the order of test samples, what is reset between them, and scores in the order of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocd_bench import Request, Samples, UsageError
from ocd_bench.cli import main
from ocd_bench.runner.cells import Variant
from ocd_bench.runner.streams import course_of, courses, skewed, with_streams

PLUGIN = """
import torch
import ocd_bench
from ocd_bench.testing.toy import ToyClasses, ToyValues


class Shapes(ToyClasses):
    name, corruptions = "shapes", ("dark", "noisy")

    def corrupt(self, inputs, kind, severity, generator):
        return inputs / severity if kind == "dark" else inputs + torch.randn(inputs.shape, generator=generator)


class Spy(ocd_bench.Predictor):
    '''The base, with the number of batches since the last reset added to each output, which changes no class.'''

    def __init__(self, model):
        self.model, self.batches, self.resets = model, 0, 0

    def reset(self):
        self.batches = 0
        self.resets += 1

    def __call__(self, inputs):
        self.batches += 1
        self.detail = {"batches": self.batches, "resets": self.resets}
        with torch.no_grad():
            return self.model(inputs) + 0.0


class SpyMethod(ocd_bench.Method):
    name = "spy"

    def fit(self, context):
        return Spy(context.base)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Shapes())
    register(ToyValues())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(SpyMethod())
"""
FOG = (Variant("fog", 5), Variant("dust", 5))
SHAPES = (Variant("dark", 3), Variant("noisy", 3))


# -- what is asked for --------------------------------------------------------------------------------------------------------
def test_streams_of_the_command_line() -> None:
    assert with_streams(FOG, None) == with_streams(FOG, "iid") == FOG
    assert with_streams((Variant(),), "sorted,iid,sorted,dirichlet:0.10") == (
        Variant(stream="sorted"),
        Variant(),
        Variant(stream="dirichlet:0.1"),
    )
    assert Variant("fog", 5, "dirichlet:0.1").label("mnist") == "mnist+fog-5@dirichlet-0.1"
    assert courses(with_streams(FOG, "iid,mixed,sorted")) == [
        (FOG[0],),
        (FOG[1],),
        (Variant("fog", 5, "mixed"), Variant("dust", 5, "mixed")),
        (Variant("fog", 5, "sorted"),),
        (Variant("dust", 5, "sorted"),),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty name; streams: iid, sorted"),
        ("sorted,", "an empty name"),
        ("sort", "did you mean 'sorted'"),
        ("dirichlet", "give a number A"),
        ("dirichlet:0", "give a number A"),
        ("dirichlet:nan", "give a number A"),
        ("sorted:3", "streams: iid, sorted, dirichlet:A, mixed, continual"),
        ("mixed", "needs two corruptions or more"),
    ],
)
def test_a_wrong_stream_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_streams((Variant(),), text)


# -- orders -------------------------------------------------------------------------------------------------------------------
def samples(count: int = 300, classes: int = 3) -> Samples:
    return Samples(torch.arange(count).float().unsqueeze(1), torch.arange(count) % classes)


def course(variants: tuple[Variant, ...], test: Samples, seed: int = 0) -> Any:
    return course_of(variants, dict.fromkeys(variants, test), Request("t", "d", seed=seed), 20)


def test_sorted_by_class_and_within_a_class_as_in_the_data() -> None:
    test = samples()
    order = course((Variant(stream="sorted"),), test).order
    assert test.targets[order[:, 1]].tolist() == [0] * 100 + [1] * 100 + [2] * 100
    assert order[:100, 1].tolist() == list(range(0, 300, 3))


def test_each_batch_has_class_proportions_of_its_own() -> None:
    labels = samples(6000).targets

    def spread(alpha: float) -> float:
        """Variance of a class's share over the batches before a class runs out, in units of that of single-class batches."""
        order = skewed(labels, alpha, 20, torch.Generator().manual_seed(1))
        assert sorted(order.tolist()) == list(range(6000))
        shares = (labels[order].reshape(-1, 20)[:100] == 0).double().mean(1)
        return float(shares.var() / (1 / 3 * 2 / 3))

    # Of a Dirichlet and multinomial draw: (1 / n) + (1 - 1 / n) / (1 + 3 alpha).
    for alpha in (0.01, 1.0, 1000.0):
        assert spread(alpha) == pytest.approx(1 / 20 + 19 / 20 / (1 + 3 * alpha), rel=0.35)


def test_every_seed_has_an_order_and_all_corruptions_the_same() -> None:
    dark, noisy = with_streams(SHAPES, "dirichlet:0.1")
    test = samples()
    assert course((dark,), test).order.equal(course((noisy,), test).order)
    assert not course((dark,), test).order.equal(course((dark,), test, seed=1).order)
    mixed = with_streams(SHAPES, "mixed")
    order = course(mixed, test).order
    assert sorted(map(tuple, order.tolist())) == [(kind, place) for kind in range(2) for place in range(300)]
    assert 3 < order[:20, 0].sum() < 17
    assert course(with_streams(SHAPES, "continual"), test).order[:, 0].tolist() == [0] * 300 + [1] * 300


# -- runs ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "shapes.py").write_text(PLUGIN)
    words = ["run", "--plugin", str(folder / "shapes.py"), "--task", "shapes", "--preset", "quick", "--quiet", "--json"]
    words += ["--methods", "base,spy,bn-adapt", "--corruption", "dark:3,noisy:3", "--set", "run.batch_size=11"]
    words += ["--stream", "iid,sorted,dirichlet:0.1,mixed,continual", "--out", str(folder / "run")]
    (folder / "words.json").write_text(json.dumps(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCD_BENCH_CACHE", str(folder / "cache"))
        assert main(words) == 0
    return folder / "run"


def cell(run: Path, name: str) -> dict[str, Any]:
    return json.loads((run / "cells" / f"shapes-default+{name}-s0.json").read_text())


def scores(run: Path, name: str) -> dict[str, Any]:
    return dict(np.load(run / "scores" / f"shapes-default+{name}-s0.npz", allow_pickle=False))


@pytest.mark.parametrize("stream", ["sorted", "dirichlet-0.1", "mixed", "continual"])
def test_scores_are_in_the_order_of_the_data(run: Path, stream: str) -> None:
    """The base takes samples one by one, so that another order changes nothing but the places."""
    for kind in ("dark-3", "noisy-3"):
        plain, other = scores(run, f"{kind}-base"), scores(run, f"{kind}@{stream}-base")
        np.testing.assert_allclose(other["cross_entropy"], plain["cross_entropy"], rtol=1e-4, atol=1e-6)
        assert "position" not in plain
        assert len(set(other["position"])) == 33
        assert cell(run, f"{kind}@{stream}-base")["metrics"].keys() == cell(run, f"{kind}-base")["metrics"].keys()
        assert cell(run, f"{kind}@{stream}-base")["fingerprint"]["data"] != cell(run, f"{kind}-base")["fingerprint"]["data"]


def test_a_method_is_reset_between_streams_and_corruptions_except_within_one(run: Path) -> None:
    batches = {
        f"{kind}@{stream}": cell(run, f"{kind}@{stream}-spy")["detail"]["batches"]
        for kind in ("dark-3", "noisy-3")
        for stream in ("sorted", "dirichlet-0.1", "mixed", "continual")
    }
    together = {"mixed", "continual"}
    assert batches == {name: 6 if name.partition("@")[2] in together else 3 for name in batches}
    places = {kind: scores(run, f"{kind}@continual-base")["position"] for kind in ("dark-3", "noisy-3")}
    assert places["dark-3"].tolist() == list(range(33))
    assert places["noisy-3"].tolist() == list(range(33, 66))


def test_a_method_with_batch_statistics_depends_on_the_stream(run: Path) -> None:
    """Batches of one class are worse for it than mixed ones, and no batch size helps the base."""
    value = {s: cell(run, f"dark-3{s}-bn-adapt")["metrics"]["cross_entropy"]["value"] for s in ("", "@sorted")}
    assert value["@sorted"] > value[""] + 0.01
    mixed = {s: cell(run, f"dark-3{s}-bn-adapt")["metrics"]["cross_entropy"]["value"] for s in ("@mixed", "@continual")}
    assert mixed["@mixed"] != pytest.approx(mixed["@continual"], abs=1e-3)


def test_tables_have_a_section_and_a_mean_for_every_stream(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    text = capsys.readouterr().out
    for stream in ("", "@sorted", "@dirichlet-0.1", "@mixed", "@continual"):
        assert f"shapes, default+dark-3{stream}\n" in text
        assert f"shapes, default{stream}: 2 corruptions, severity 3\n" in text


def test_cells_are_kept_and_those_of_one_course_are_measured_together(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(run.parent / "cache"))
    words = json.loads((run.parent / "words.json").read_text())
    watched = {
        name: run / "cells" / f"shapes-default+{name}-s0.json"
        for name in ("dark-3-base", "dark-3@sorted-base", "dark-3@continual-base")
    }
    times = {name: path.stat().st_mtime_ns for name, path in watched.items()}
    (run / "cells" / "shapes-default+noisy-3@continual-base-s0.json").unlink()
    assert main(words) == 0
    capsys.readouterr()
    again = {name for name, path in watched.items() if path.stat().st_mtime_ns != times[name]}
    assert again == {"dark-3@continual-base"}


def test_it_is_repeated_by_its_run_json(run: Path) -> None:
    assert json.loads((run / "run.json").read_text())["request"]["stream"] == "iid,sorted,dirichlet:0.1,mixed,continual"


def test_a_task_without_classes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shapes.py").write_text(PLUGIN)
    words = ["run", "--plugin", str(tmp_path / "shapes.py"), "--task", "toy-values", "--preset", "quick", "--quiet", "--json"]
    assert main([*words, "--methods", "base", "--stream", "iid,sorted", "--out", str(tmp_path / "run")]) == 0
    plain, ordered = json.loads(capsys.readouterr().out)["cells"]
    assert plain["status"] == "ok"
    assert ordered["dataset"] == "default@sorted"
    assert ordered["status"] == "not-applicable"
    assert "no classes" in ordered["reason"]
