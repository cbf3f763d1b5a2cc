"""Groups of samples: declared by a task, checked, stored, read, and used in intervals and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_bench.cli import main
from ocd_bench.comparison import compare_runs
from ocd_bench.errors import UsageError
from ocd_bench.report import build_table
from ocd_bench.results import Key, read_run
from ocd_bench.samples import Samples, Splits
from ocd_bench.testing.data_checks import check_groups
from ocd_bench.testing.result import run_check
from tests.runs import cell, make_run, write_run

PLUGIN = '''
import torch
import ocd_bench


class Duets(ocd_bench.Task):
    """Pairs of ten singers."""

    name, primary_metric = "duets", "mse"
    presets = {"quick": {"base.epochs": 2}}
    corruptions = ("hiss",)

    def datasets(self):
        return (ocd_bench.Dataset("hall", embedded=True, seen_in_tuning=SEEN),)

    def load_data(self, request):
        random = torch.Generator().manual_seed(0)
        x = torch.randn(300, 2, generator=random)
        parts = (slice(0, 60), slice(60, 100), slice(100, 300))
        groups = GROUPS
        return ocd_bench.Splits(*(ocd_bench.Samples(x[p], x[p].sum(1), groups and groups(x[p])) for p in parts))

    def base_model(self, splits, request):
        return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))

    def loss(self, output, target):
        return (output - target) ** 2

    def metrics(self, output, target):
        return {"mse": self.loss(output, target)}

    def corrupt(self, inputs, kind, severity, generator):
        return inputs + 0.1 * severity


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Duets())
'''
PAIRS = "lambda x: torch.stack([torch.arange(len(x)) % 10, 10 + torch.arange(len(x)) % 7], 1)"


def run_plugin(folder: Path, groups: str, seen: str = "False", *more: str) -> Path:
    (folder / "duets.py").write_text(PLUGIN.replace("GROUPS", groups).replace("SEEN", seen))
    arguments = ["--plugin", str(folder / "duets.py"), "--task", "duets", "--preset", "quick", "--methods", "base,oracle"]
    assert main(["run", *arguments, "--out", str(folder / "out"), "--quiet", *more]) == 0
    return folder / "out"


def test_groups_are_stored_with_the_scores_and_reported_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_plugin(tmp_path, PAIRS, "True", "--corruption", "none,hiss:2")
    text = capsys.readouterr().out
    assert "200 test samples of 17 groups" in text
    assert "test set seen in tuning" in text
    assert "no groups of test samples are stated" not in text
    run = read_run(out)
    number = np.arange(200)
    for dataset in ("hall", "hall+hiss-2"):
        key = Key("duets", dataset, "oracle", 0)
        assert run.cells[key]["groups"] == 17
        np.testing.assert_array_equal(run.groups(key), np.stack([number % 10, 10 + number % 7], 1))
    with np.load(out / "scores" / "duets-hall-base-s0.npz", allow_pickle=False) as archive:
        assert archive["groups"].dtype.kind == "i"


def test_samples_that_are_groups_of_their_own_need_no_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(run_plugin(tmp_path, "lambda x: range(len(x))"))
    text = capsys.readouterr().out
    assert "200 test samples; layer" in text
    assert "no groups" not in text
    assert "seen in tuning" not in text
    key = Key("duets", "hall", "base", 0)
    assert run.cells[key]["groups"] == 200
    assert "groups" not in np.load(run.sources[key]).files
    np.testing.assert_array_equal(run.groups(key), np.arange(200))


def test_the_table_reports_that_a_task_declares_no_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(run_plugin(tmp_path, "None"))
    assert "no groups of test samples are stated: intervals take the samples for independent" in capsys.readouterr().out
    key = Key("duets", "hall", "base", 0)
    assert "groups" not in run.cells[key]
    assert run.groups(key) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (torch.zeros(4), "expected integers"),
        (torch.zeros(4, dtype=torch.bool), "expected integers"),
        ([0, 1, 2], r"groups of 4 samples have shape \(3,\)"),
        (torch.zeros(4, 2, 2, dtype=torch.long), "expected"),
        (torch.zeros(4, 0, dtype=torch.long), "expected"),
    ],
)
def test_groups_of_another_form_are_refused(groups: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(torch.zeros(4, 2), torch.zeros(4), groups)


def test_a_subset_of_samples_keeps_its_groups() -> None:
    samples = Samples(torch.zeros(5, 2), torch.zeros(5), np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]))
    assert samples.take(slice(1, 3)).groups.tolist() == [[1, 2], [2, 3]]
    assert samples.take([4, 0]).groups.tolist() == [[4, 5], [0, 1]]
    parts = (torch.zeros(3), torch.zeros(3), range(3))
    assert Splits(parts, parts, parts).test.groups.tolist() == [0, 1, 2]


class Trial:
    """What check_groups looks at."""

    def __init__(self, groups: object) -> None:
        part = (torch.zeros(20), torch.zeros(20), groups)
        self.splits = Splits(part, part, part)


@pytest.mark.parametrize(
    ("groups", "status", "message"),
    [
        (None, "warning", "test samples state no groups"),
        (range(20), "ok", "every test sample is independent"),
        (torch.arange(20) % 6, "ok", "20 test samples of 6 groups"),
        (torch.arange(20) % 3, "warning", "of 3 groups only: there will be no interval"),
    ],
)
def test_the_conformance_kit_asks_for_groups(groups: object, status: str, message: str) -> None:
    result = run_check("groups", check_groups, Trial(groups))
    assert (result.status, message in result.message) == (status, True)


@pytest.mark.parametrize("ids", [np.zeros((400, 2)), np.arange(399), np.zeros((400, 2, 2), int)])
def test_damaged_groups_are_named(tmp_path: Path, ids: np.ndarray) -> None:
    folder = make_run(tmp_path / "run", {"base": 0.0}, (0,))
    path = folder / "scores" / "images-mnist-base-s0.npz"
    np.savez(path, accuracy=np.zeros(400), groups=ids)
    with pytest.raises(UsageError, match="'groups'"):
        read_run(folder).groups(Key("images", "mnist", "base", 0))


def grouped(folder: Path, shift: float, groups: np.ndarray | None, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """A method whose score is ``shift`` lower for the samples of a third of the groups; the same seeds, data and base."""
    speaker = np.repeat(np.arange(12), 25)
    scores = {}
    for seed in seeds:
        difficulty = np.random.default_rng([5, seed]).normal(size=300)
        scores["base", seed] = {"psnr": difficulty}
        scores["ocd", seed] = {"psnr": difficulty + 0.3 - shift * (speaker < 4)}
    extra = {} if groups is None else {"groups": groups}
    count = {"groups": None if groups is None else len(np.unique(groups))}
    cells = [cell("t", "d", m, s, a) | count for (m, s), a in scores.items()]
    return write_run(folder, cells, {("t", "d", m, s): a | extra for (m, s), a in scores.items()})


def test_compare_does_not_call_a_loss_on_few_speakers_significant(tmp_path: Path) -> None:
    """A third of the speakers lose. With 300 independent samples that is significant at 1 %, with 12 speakers it is not."""
    speaker = np.repeat(np.arange(12), 25)
    verdicts = []
    for number, ids in enumerate((np.arange(300), speaker)):
        before, after = (grouped(tmp_path / f"{number}{shift}", shift, ids) for shift in (0.0, 0.5))
        (row,) = (row for row in compare_runs(read_run(before), read_run(after)).rows if row.name.method == "ocd")
        verdicts.append((row.verdict, row.evidence.high - row.evidence.low))
    assert [verdict for verdict, _ in verdicts] == ["regression", "cannot tell"]
    assert verdicts[1][1] == pytest.approx(5 * verdicts[0][1], rel=0.2)


def test_a_run_without_groups_takes_those_of_the_other(tmp_path: Path) -> None:
    speaker = np.repeat(np.arange(12), 25)
    old, new = grouped(tmp_path / "old", 0.0, None), grouped(tmp_path / "new", 0.5, speaker)
    row = next(row for row in compare_runs(read_run(old), read_run(new)).rows if row.name.method == "ocd")
    assert row.verdict == "cannot tell"
    assert row.evidence.p > 0.05


def test_a_test_set_of_one_speaker_cannot_be_compared(tmp_path: Path) -> None:
    runs = [read_run(grouped(tmp_path / str(shift), shift, np.zeros(300, int))) for shift in (0.0, 0.5)]
    row = next(row for row in compare_runs(*runs).rows if row.name.method == "ocd")
    assert row.verdict == "cannot tell"
    assert "1 group" in row.note
    found = build_table(runs[0]).groups[0].rows[1].delta
    assert found.low is None
    json.dumps(row.evidence.change)


@pytest.mark.parametrize(
    ("task", "count", "columns"), [("speech", 10, 2), ("images", 1, 1), ("nlp", 1, 1), ("recon3d", 1, 1), ("tabular", 1, 1)]
)
def test_every_task_of_the_repository_states_its_groups(task: str, count: int, columns: int) -> None:
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.testing.trial import TaskTrial

    found = load_plugins().task(task)
    trial = TaskTrial(found)
    groups = trial.splits.test.groups
    assert groups is not None
    assert groups.reshape(len(groups), -1).shape[1] == columns
    assert len(groups.unique()) >= count
    assert run_check("groups", check_groups, trial).status == "ok"
