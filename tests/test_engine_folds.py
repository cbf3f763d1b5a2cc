"""Cross-fitting: every training sample's targets come from a base that has not seen it."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ocd_bench.cli import main
from ocd_bench.engine import kept
from ocd_bench.engine.banks import bank
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.controls.capacity import fit_plain
from ocd_bench.engine.forms import RankOneForm
from ocd_bench.engine.kept import KeptTraces, numbers
from ocd_bench.engine.ocd import Variant, fit, regressor
from ocd_bench.engine.overfit import Overfit, losses, overfit
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.errors import NotApplicable, UsageError
from tests.toy_engine import QUICK, base, loss, memory, problem, stream

SETTINGS = replace(QUICK, steps=3, task_weight=1.0)


def other_base(shift: float) -> torch.nn.Module:
    model = base()
    model.hidden.weight += shift
    return model


def folded(**more) -> tuple[Problem, list[tuple[TargetLayer, torch.Tensor]], list[int]]:
    """A problem of twelve samples with three other bases."""
    pairs = [(TargetLayer(other_base(0.1 * k), "hidden"), torch.arange(12)[k - 1 :: 3]) for k in (1, 2, 3)]
    asked: list[int] = []
    return problem(count=12, folds=lambda count: asked.append(count) or pairs, **more), pairs, asked


def expected(
    pairs: list[tuple[TargetLayer, torch.Tensor]], task: Problem, form: RankOneForm
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and layer activations of the twelve, one at a time."""
    codes, activations = torch.empty(12, form.size), torch.empty(12, form.size)
    for layer, held in pairs:
        for i in held.tolist():
            trace = layer.trace(task.train[0][i : i + 1])
            delta = overfit(layer, trace, task.train[1][i : i + 1], loss, Overfit.of(SETTINGS))
            codes[i] = form.encode(delta, trace)[0]
            activations[i] = trace.response[0, 0]
    return codes, activations


def test_each_samples_targets_come_from_its_own_base():
    task, pairs, _ = folded()
    form = RankOneForm(task.layer.shape)
    folds = stream(task, replace(SETTINGS, folds=3, passes=2))
    codes, activations = expected(pairs, task, form)
    indices = folds.grouped(torch.tensor([7, 0, 4, 11, 3]))
    made, _ = folds.make(form, indices, torch.Generator())
    torch.testing.assert_close(made.code, codes[indices])
    torch.testing.assert_close(made.features["activation"], activations[indices])
    torch.testing.assert_close(made.answers, task.train[1][indices])

    known = bank(folds, form)
    torch.testing.assert_close(known.code, torch.cat([codes, codes]))
    indices = folds.grouped(torch.tensor([20, 1, 5, 23]))
    pieces = folds.traced_from_bank(known.take(indices), indices, torch.Generator())
    torch.testing.assert_close(torch.cat([trace.inputs for trace, _ in pieces]), task.train[0][indices % 12])
    assert torch.equal(torch.cat([answers for _, answers in pieces]), task.train[1][indices % 12])
    models = {id(trace.target.model) for trace, _ in pieces}
    assert models <= {id(layer.model) for layer, _ in pairs}
    assert len(models) == len({int(folds.fold[index % 12]) for index in indices})


def test_a_sample_that_stays_the_same_is_run_through_the_base_once(monkeypatch):
    task = problem(count=6)
    form = RankOneForm(task.layer.shape)
    folds = stream(task, replace(SETTINGS, passes=2, task_batch=2))
    known = bank(folds, form)
    runs: list[int] = []
    trace = TargetLayer.trace
    monkeypatch.setattr(TargetLayer, "trace", lambda self, inputs: runs.append(len(inputs)) or trace(self, inputs))

    def traced(*indices: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        runs.clear()
        chosen = torch.tensor(indices)
        found = folds.traced_from_bank(known.take(chosen), chosen, torch.Generator())
        assert sum(len(piece) for piece, _ in found) == 2
        return [(x, y) for piece, answers in found for x, y in zip(piece.inputs, answers, strict=True)]

    for indices, expected in (((4, 1, 0), 2), ((1, 5, 2), 1), ((5, 1, 3), 0), ((7, 1, 3), 1)):  # 7: sample 1 of another pass
        for (x, y), index in zip(traced(*indices), indices, strict=False):
            assert torch.equal(x, task.train[0][index % 6])
            assert y == task.train[1][index % 6]
        assert sum(runs) == expected
    whole = stream(task, SETTINGS).traced_from_bank(known.take(torch.tensor([0, 1])), torch.tensor([0, 1]), torch.Generator())
    assert [len(piece) for piece, _ in whole] == [2]

    for thin in folds.known._known.values():  # none of them holds the batch that it came from
        assert numbers(thin.trace, thin.answers) <= 3 * thin.trace.inputs.numel() + thin.trace.output.numel() + 4
    folds.known = KeptTraces()
    one, answer = task.layer.trace(task.train[0][:1].clone()), task.train[1][:1].clone()
    room = numbers(one, answer) - one.response.numel()  # for one sample without the layer's outputs
    monkeypatch.setattr(kept, "KEPT", room)
    traced(4, 1)
    traced(4, 1)
    assert runs == [1]

    crops = replace(task, subsample=lambda x, y, generator: (x + torch.randn(1, generator=generator), y))
    folds = stream(crops, replace(SETTINGS, task_batch=2))
    assert not torch.equal(traced(4, 1)[0][0], task.train[0][4])
    assert not folds.known


def test_a_second_fit_to_the_same_targets_finds_the_traces_of_the_first():
    remembered: dict = {}
    task = replace(problem(count=6), remember=memory(remembered))
    how = replace(SETTINGS, passes=1, task_batch=2, steps=4)
    fit(task, how)
    first = dict(remembered["traces"]._known)
    assert 2 <= len(first) <= 6
    fit(task, how, Variant(build=regressor))
    assert all(remembered["traces"]._known[index] is trace for index, trace in first.items())


def test_a_trace_is_replayed_in_its_own_base():
    task, pairs, _ = folded()
    x, y = task.train
    layer = pairs[1][0]
    trace = layer.trace(x)
    torch.testing.assert_close(losses(trace, y, loss), loss(layer.model(x), y))
    assert not torch.allclose(losses(trace, y, loss), loss(task.layer.model(x), y))


@pytest.mark.parametrize("augmented", [False, True])
def test_training_and_its_control_use_them(augmented):
    more = {"augment": lambda x, y, generator: (x + 0.1 * torch.randn(x.shape, generator=generator), y)} if augmented else {}
    task, _, asked = folded(**more)
    plain = fit(task, SETTINGS).history[0].train
    assert asked == []
    crossed = fit(task, replace(SETTINGS, folds=3)).history[0].train
    assert asked == [3]
    assert crossed != pytest.approx(plain, rel=1e-4)
    control = fit_plain(task, replace(SETTINGS, folds=3)).history[0].train
    assert control != pytest.approx(fit_plain(task, SETTINGS).history[0].train, rel=1e-4)


def test_cross_fitting_without_further_bases_is_not_applicable():
    with pytest.raises(NotApplicable, match="no further base can be trained"):
        fit(problem(), replace(SETTINGS, folds=2))
    with pytest.raises(UsageError, match="setting ocd.folds=1: expected 0, or 2 or more"):
        OCDSettings(folds=1)
    with pytest.raises(UsageError, match="take ocd.task_batch=0"):
        OCDSettings(folds=2, task_batch=4)


PLUGIN = '''
import torch
import ocd_bench


class Means(ocd_bench.Task):
    """A base whose training is the mean of its training inputs, so that one sees what it was trained on."""
    name, primary_metric = "means", "rmse"

    def load_data(self, request):
        x = torch.arange(20.0)[:, None]
        return ocd_bench.Splits((x[:11], x[:11]), (x[11:14], x[11:14]), (x[14:], x[14:]))

    def base_model(self, splits, request):
        return torch.nn.Linear(1, 1)

    def train_base(self, model, splits, request, progress):
        if request.dataset == "default":
            with torch.no_grad():
                model.bias.fill_(float(splits.train.inputs.mean()))
        return model

    def loss(self, output, target):
        return (output - target).square().flatten(1).mean(1)

    def metrics(self, output, target):
        return {"rmse": self.loss(output, target)}

    def datasets(self):
        return [ocd_bench.Dataset("default"), ocd_bench.Dataset("given")]


class Folded(ocd_bench.Method):
    name = "folded"

    def fit(self, context):
        x = context.train.inputs
        pairs = context.fold_bases(FOLDS)
        assert sorted(torch.cat([held for _, held in pairs]).tolist()) == list(range(11))
        assert sorted(len(held) for _, held in pairs) == [2, 3, 3, 3]
        for base, held in pairs:
            rest = [i for i in range(11) if i not in held.tolist()]
            assert torch.allclose(base.bias, x[rest].mean())
            assert torch.equal(base.weight, context.base.weight)
            assert not base.training and not base.weight.requires_grad
        return context.base


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Means())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(Folded())
'''


@pytest.mark.parametrize(
    ("dataset", "count", "said"),
    [
        ("default", 4, ""),
        ("given", 4, "the base comes with trained weights"),
        ("default", 12, "12 folds of 11 training samples: expected 2 to 11"),
    ],
)
def test_the_runner_trains_bases_without_a_fold_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataset: str, count: int, said: str
) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "means.py"
    path.write_text(textwrap.dedent(PLUGIN).replace("FOLDS", str(count)))
    arguments = ["run", "--plugin", str(path), "--task", "means", "--dataset", dataset, "--methods", "base,folded"]
    code = main([*arguments, "--seeds", "1", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    if said:
        assert said in printed.out + printed.err
    else:
        assert code == 0, printed
        assert "failed" not in printed.out
        assert len(list((tmp_path / "cache" / "bases").glob("*.ocdcache"))) == 5
