"""A small task and methods in a ``--plugin`` file, for tests of faults and interrupts: ``from tests.faulty import run``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ocd_bench.cli import main

PLUGIN = '''
import os
import time
import torch
import ocd_bench
import companion


class Dots(ocd_bench.Task):
    name, primary_metric = "dots", "accuracy"
    presets = {"quick": {"base.epochs": 2, "select.draws": 5}}

    def load_data(self, request):
        random = request.generator("data")
        x = torch.randn(120, 2, generator=random)
        y = (x[:, 0] * x[:, 1] > 0).long()
        return ocd_bench.Splits((x[:60], y[:60]), (x[60:80], y[60:80]), (x[80:], y[80:]))

    def base_model(self, splits, request):
        return torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

    def loss(self, output, target):
        return 1.0 * torch.nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(1) == target).float(), "cross_entropy": 1.0 * self.loss(output, target)}

    def train_base(self, model, splits, request, progress):
        if os.environ.get("COUNT"):
            with open(os.environ["COUNT"], "a") as file:
                file.write(f"base {request.seed}\\n")
        time.sleep(float(os.environ.get("PAUSE", "0")))
        return None


class Scaled(ocd_bench.Method):
    name = "scaled"

    def fit(self, context):
        if os.environ.get("COUNT"):
            with open(os.environ["COUNT"], "a") as file:
                file.write(f"scaled {context.request.seed}\\n")
        if os.environ.get("ABSENT"):
            raise ocd_bench.NotApplicable("what it needs is not there")
        return lambda inputs: context.base(inputs) * companion.FACTOR


class Fits(ocd_bench.Method):
    """Shares a fit with ``fits-again``."""
    name = "fits"

    def fit(self, context):
        def build():
            if os.environ.get("COUNT"):
                with open(os.environ["COUNT"], "a") as file:
                    file.write(f"fit {context.request.seed}\\n")
            time.sleep(0.2)
            return torch.randn(2, generator=context.generator("fits", "noise"))
        shift = context.shared("shift", build)
        return lambda inputs: context.base(inputs) + shift


class FitsAgain(Fits):
    name = "fits-again"


class Slow(ocd_bench.Method):
    name = "slow"

    def fit(self, context):
        open(os.environ["BEGAN"], "w").close()
        time.sleep(300)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Dots())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    for method in (Scaled(), Fits(), FitsAgain(), Slow()):
        register(method)
'''


def write_plugin(folder: Path, text: str = PLUGIN, factor: float = 0.5) -> Path:
    """The plugin file, and the module of the same folder that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dots_plugin.py"
    path.write_text(text)
    (folder / "companion.py").write_text(f"FACTOR = {factor}\n")
    return path


def command(plugin: Path, *words: str) -> list[str]:
    """A quick run of the plugin's task as a command line."""
    run = [sys.executable, "-m", "ocd_bench", "run", "--plugin", str(plugin), "--task", "dots", "--preset", "quick"]
    return [*run, *words]


def run(plugin: Path, *words: str, code: int = 0, **environment: str) -> str:
    """Run in a process of its own, because the plugin's code changes between runs. Returns stderr."""
    done = subprocess.run(
        command(plugin, *words),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=plugin.parent,
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def run_here(plugin: Path, *words: str) -> int:
    """The same in this process, without the time to start another one."""
    return main(["run", "--plugin", str(plugin), "--task", "dots", "--preset", "quick", *words])


def cell(out: Path, method: str, seed: int = 0) -> dict[str, Any]:
    """A cell of the run folder."""
    return json.loads((out / "cells" / f"dots-default-{method}-s{seed}.json").read_text())


def numbers(out: Path) -> dict[str, Any]:
    """Everything in a run folder that must be bit-identical, by cell."""
    found = {}
    for path in sorted((out / "cells").glob("*.json")):
        value = json.loads(path.read_text())
        kept = {key: value[key] for key in ("status", "metrics", "fingerprint", "layer", "n_test", "detail", "made_by")}
        scores = out / "scores" / f"{path.stem}.npz"
        found[path.stem] = (kept, scores.read_bytes() if scores.exists() else b"")
    return found
