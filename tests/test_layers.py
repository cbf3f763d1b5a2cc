"""Which layers can be adapted: ``list layers`` says it of each, and a run refuses a wrong choice before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ocd_bench.cli import main
from ocd_bench.layers import layers_of, unsuitable
from tests.pages import ROOT


class Everything(nn.Module):
    """One layer of each kind that people ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.step = nn.Linear(8, 8)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.grouped = nn.Conv1d(8, 8, 1, groups=2)
        self.norm = nn.BatchNorm1d(8)
        self.unused = nn.Linear(2, 2)
        self.table = nn.Embedding(4, 8)
        self.token = nn.Parameter(torch.zeros(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(self.block(self.embed(x)))
        hidden = hidden.mean(1)
        for _ in range(3):
            hidden = self.step(hidden)
        hidden = self.grouped(self.two(self.one(hidden)).unsqueeze(-1)).squeeze(-1)
        return self.head(self.norm(hidden) + self.table.weight[0] + self.token)


class Own(nn.GRU):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class Odd(nn.Module):
    """Recurrent modules that cannot be adapted, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.own = Own(6, 8, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.GRU(8, 8, batch_first=True), "weight_hh_l0")
        self.left = nn.Linear(8, 3)
        self.right = self.left

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(self.normed(self.own(x)[0])[0].mean(1))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own.weight_ih_l0", "inside a Own that has a forward of its own"),
        ("own", "Own: has a forward of its own, which may use its weights in another way"),
        ("normed.weight_ih_l0", "has a weight that is computed from others (weight norm"),
        ("right", "the same layer as 'left': give that name"),
    ],
)
def test_a_name_that_cannot_be_used_says_why(name: str, why: str) -> None:
    torch.manual_seed(0)
    found = unsuitable(Odd(), name, torch.randn(3, 5, 6))
    assert found is not None
    assert why in found.why
    assert found.instead == "left"


def test_each_layer_says_whether_it_can_be_adapted_and_why_not() -> None:
    torch.manual_seed(0)
    model = Everything().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = layers_of(model, torch.randn(3, 5, 6))
    reasons = {layer.name: layer.reason for layer in layers}
    assert {layer.name: layer.runs for layer in layers if not layer.reason} == {
        "embed": 1,
        "block.self_attn.in_proj_weight": 1,
        "block.self_attn.out_proj": 1,
        "block.linear1": 1,
        "block.linear2": 1,
        "gru.weight_ih_l0": 1,
        "gru.weight_hh_l0": 5,
        "step": 3,
        "head": 1,
    }
    assert reasons["table"] == "Embedding: not supported"
    assert reasons[""] == "Everything: not supported"
    assert reasons["unused"] == "does not run in a forward pass"
    assert "shares its weight with 'two'" in reasons["one"]
    assert "in 2 groups" in reasons["grouped"]
    assert reasons["norm"] == (
        "BatchNorm1d: Tent and related methods adapt its scale and shift; select.layer=norms: OCD on all batch norm layers"
    )
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


PLUGIN = """
import torch
import ocd_bench
from blobs import Blobs

class Loop(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.step, self.last = torch.nn.Linear(2, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
        self.spare = torch.nn.Linear(8, 8)
    def forward(self, x):
        x = self.first(x)
        for _ in range(3):
            x = self.step(x).relu()
        return self.last(x)

class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Bilinear(2, 2, 3)
    def forward(self, x):
        return self.gate(x, x)

class Detector(Loop):
    def forward(self, x):
        return {"boxes": super().forward(x)}

def task(title, model, **members):
    build = lambda self, splits, request: model()
    return type(title, (Blobs,), {"name": title, "base_model": build, **members})()

def two_inputs(self, request):
    return ocd_bench.Splits(((torch.zeros(9, 2), torch.zeros(9, 2)), torch.zeros(9)), 0, 0)

def boom(self, model, splits, request, progress):
    raise SystemExit("it trained")

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(task("faulty", Loop, primary_metric="kappa"))
    register(task("loop", Loop))
    register(task("untrained", Loop, train_base=boom))
    register(task("chosen", Loop, select_layer=lambda self, model, request: "spare"))
    register(task("gated", Gated, train_base=boom))
    register(task("detector", Detector, train_base=boom))
    register(task("two-inputs", Loop, load_data=two_inputs))
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    Path("odd.py").write_text(PLUGIN)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main([*words, "--plugin", "odd.py"])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def run(capsys: pytest.CaptureFixture[str], task: str, *words: str) -> tuple[int, str]:
    options = ["--preset", "quick", "--methods", "base", "--quiet", "--out", "run", *words]
    code, _, error = said(capsys, "run", "--task", task, *options)
    return code, error.splitlines()[-1]


def test_list_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "list", "layers", "--task", "loop")
    assert code == 0
    assert out.splitlines()[:5] == [
        "layer  type    weight  can be adapted",
        "first  Linear  8 x 2   yes",
        "step   Linear  8 x 8   yes; it runs 3 times",
        "last   Linear  3 x 8   yes",
        "spare  Linear  8 x 8   no: does not run in a forward pass",
    ]
    code, out, _ = said(capsys, "list", "layers", "--task", "loop", "--json")
    found = json.loads(out)
    assert (found["task"], found["dataset"]) == ("loop", "default")
    assert found["layers"][1] == {
        "name": "step",
        "kind": "Linear",
        "shape": [8, 8],
        "reason": None,
        "runs": 3,
        "adaptable": True,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "list layers: give --task NAME"),
        (["--task", "lop"], "unknown task 'lop' (did you mean 'loop'?)"),
        (["--task", "loop", "--set", "base.epoch=1"], "unknown setting 'base.epoch'"),
        (["--task", "loop", "--preset", "quik"], "unknown preset 'quik' (did you mean 'quick'?)"),
        (["--task", "detector"], "the base model returns a dict: return one tensor (N, ...)"),
        (["--task", "two-inputs"], "/odd.py line"),
    ],
)
def test_list_layers_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = said(capsys, "list", "layers", *words)
    assert (code, out) == (2, "")
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_options_of_layers_belong_to_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = said(capsys, "list", "tasks", "--task", "loop")
    assert code == 2
    assert "--task is only for layers" in error


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "spare",
            "setting select.layer='spare': does not run in a forward pass; layers of task 'untrained' that can be adapted: ",
        ),
        ("lst", "the base model has no such layer (did you mean 'last'?)"),
        ("normz", "the base model has no such layer (did you mean 'norms'?); layers of task 'untrained'"),
        ("alll", "(did you mean 'all'?)"),
    ],
)
def test_a_wrong_layer_is_refused_before_training(layer: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = run(capsys, "untrained", "--set", f"select.layer={layer}")
    assert code == 2
    assert message in line


def test_a_right_layer_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "loop", "--set", "select.layer=last", "--set", "base.epochs=1")[0] == 0
    cell = json.loads(Path("run/cells/loop-default-base-s0.json").read_text())
    assert cell["layer"] == "last"


def test_a_wrong_layer_of_the_task_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = run(capsys, "chosen", "--set", "base.epochs=1")
    assert code == 2
    assert "select_layer chose 'spare': does not run in a forward pass, expected one of first, step, last" in line
    assert "run 'ocd-bench plugin check odd.py'" in line


def test_a_model_without_a_layer_to_adapt_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = run(capsys, "gated")
    assert code == 2
    assert "odd.py line " in line
    assert "base_model gave a model without a layer that can be adapted (gate: Bilinear: not supported)" in line
    code, line = run(capsys, "detector")
    assert code == 2
    assert "expected one tensor" in line


def test_a_task_with_a_fault_does_not_stop_the_others_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = said(capsys, "list", "tasks")
    assert code == 0
    assert "task 'faulty': primary_metric 'kappa' is not a common one" in error
    code, line = run(capsys, "faulty")
    assert code == 2
    assert line.startswith("ocd-bench: error: plugin 'odd.py': task 'faulty': primary_metric 'kappa' is not a common one")
