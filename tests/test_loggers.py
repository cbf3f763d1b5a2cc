"""The loggers, with stand-ins of their tools that note what they are told."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ocd_bench.cli import main
from ocd_bench.errors import Unavailable
from ocd_bench.loggers import curve_of, mlflow, tensorboard, values_of, wandb
from ocd_bench.plugin.manager import load_plugins

CELL = {
    "task": "images", "dataset": "mnist", "method": "ocd", "seed": 1, "status": "ok", "layer": "fc", "n_test": 9,
    "metrics": {"accuracy": {"value": 0.75}}, "cost": {"fit_s": 2.0, "parameters": 7, "peak_memory_mb": None},
    "detail": {"gain": 0.5, "history": [[10, 3.0, None], [20, 2.0, 1.5]]},
}  # fmt: skip
NUMBERS = {"accuracy": 0.75, "cost/fit_s": 2.0, "cost/parameters": 7.0, "gain": 0.5}


class Notes(list[Any]):
    """A recorder: every method of it notes its name and arguments, and gives itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def note(*values: Any, **named: Any) -> Notes:
            self.append((name, *values, *([named] if named else [])))
            return self

        return note

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *error: object) -> None:
        self.append(("exit",))


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_what_a_cell_has_to_log() -> None:
    assert values_of(CELL) == NUMBERS
    assert list(curve_of(CELL)) == [(10, {"training loss": 3.0}), (20, {"training loss": 2.0, "validation loss": 1.5})]


def test_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=notes.open)
    monkeypatch.setenv("OCD_BENCH_TENSORBOARD", "logs")
    tensorboard.ocd_bench_cell_finished(CELL)
    assert notes[0] == ("open", "logs/images/mnist/ocd/s1")
    assert ("add_scalar", "accuracy", 0.75, 0) in notes
    assert ("add_scalar", "validation loss", 1.5, 20) in notes
    assert notes[-1] == ("close",)


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    stand_in(
        monkeypatch, "mlflow", set_experiment=notes.set_experiment, start_run=notes.start_run,
        log_params=notes.log_params, log_metrics=notes.log_metrics,
    )  # fmt: skip
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow.ocd_bench_cell_finished(CELL)
    assert notes[:2] == [("set_experiment", "ocd-bench"), ("start_run", {"run_name": "images/mnist/ocd/s1"})]
    assert ("log_metrics", NUMBERS) in notes
    assert ("log_metrics", {"training_loss": 2.0, "validation_loss": 1.5}, {"step": 20}) in notes
    assert notes[-1] == ("exit",)


def test_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    run = SimpleNamespace(log=notes.log, summary=SimpleNamespace(update=notes.update), finish=notes.finish)

    def init(**named: Any) -> SimpleNamespace:
        notes.init(**named)
        return run

    stand_in(monkeypatch, "wandb", init=init)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    wandb.ocd_bench_cell_finished(CELL)
    assert notes[0][1]["project"] == "mine"
    assert notes[0][1]["config"]["layer"] == "fc"
    assert ("log", {"training loss": 3.0}, {"step": 10}) in notes
    assert notes[-2:] == [("update", NUMBERS), ("finish",)]


@pytest.mark.parametrize(("logger", "module"), [(tensorboard, "torch.utils.tensorboard"), (mlflow, "mlflow"), (wandb, "wandb")])
def test_a_missing_tool_is_named_and_only_when_used(logger: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = logger.__name__
    manager = load_plugins([name], only=(), declared=True)
    assert manager.describe()[-1]["hooks"] == ["ocd_bench_cell_finished"]
    logger.ocd_bench_cell_finished({**CELL, "status": "failed"})
    with pytest.raises(Unavailable, match=r"pip install 'ocd-bench\["):
        logger.ocd_bench_cell_finished(CELL)


def test_a_run_with_a_logger_whose_tool_is_missing_says_so_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["run", "--task", "tabular", "--dataset", "diabetes", "--preset", "quick", "--methods", "base,oracle"]
    words += ["--set", "base.epochs=1", "--plugin", "ocd_bench.loggers.wandb", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert capsys.readouterr().err.count("pip install 'ocd-bench[wandb]'") == 1
