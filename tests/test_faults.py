"""Faulty plugins: a bad method loses only its own cell, a bad task is reported before training, and other cells are the same
to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ocd_bench.cli import main

TIMEOUT = "8"
"""Seconds; enough for every good method on a loaded machine."""

TASK = """
import torch
import ocd_bench


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
        return torch.nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(1) == target).float(), "cross_entropy": self.loss(output, target)}

    def logits(self, output):
        return output
"""

METHODS = '''
import ctypes, os, random, signal, subprocess, sys, threading, time, warnings
import numpy as np


class Odd(BaseException):
    pass


class Predicts:
    parameters, detail = 0, {}
    def __init__(self, context, **values):
        self.base = context.base
        vars(self).update(values)
    def __call__(self, inputs):
        return self.base(inputs)


def cycle():
    value = {}
    value["again"] = value
    return value

def raises(c): raise ValueError("boom\\nsecond line <b>x</b>")
def surrogate(c): raise ValueError("\\x1b[31mred \\ud800 lone")
def sysexit(c): sys.exit(0)
def osexit(c): os._exit(0)
def osexit7(c): os._exit(7)
def interrupt(c): raise KeyboardInterrupt
def odd(c): raise Odd("x")
def genexit(c): raise GeneratorExit
def crash(c): ctypes.string_at(0)
def abort(c): os.abort()
def kills(c): os.kill(os.getpid(), signal.SIGKILL)
def terminates(c): os.kill(os.getpid(), signal.SIGTERM)
def hangs(c):
    while True: time.sleep(1)
def hangs_in_c(c):
    while True: ctypes.CDLL(None).pause()
def memory(c): return torch.zeros(2**44)
def recursion(c):
    def f(n): return f(n + 1)
    return f(0)
def nothing(c): return None
def text(c): return lambda x: "hello"
def nan(c): return lambda x: c.base(x) * float("nan")
def short(c): return lambda x: c.base(x)[:-1]
def wide(c): return lambda x: c.base(x).repeat(1, 3)
def imaginary(c): return lambda x: c.base(x).to(torch.complex64)
def scalar(c): return lambda x: c.base(x).sum()
def base_weights(c):
    with torch.no_grad():
        for p in c.base.parameters(): p.add_(1.0)
    return c.base
def base_weights_late(c):
    def predict(x):
        out = c.base(x).clone()
        for p in c.base.parameters(): p.data.mul_(0.5)
        return out
    return predict
def train_mode(c):
    c.base.train(); return c.base
def hooks(c):
    for m in c.base.modules(): m.register_forward_hook(lambda m, i, o: o * 2)
    return c.base
def gradients(c):
    c.base.requires_grad_(True); return c.base
def training_data(c):
    c.train.inputs.zero_(); return c.base
def training_labels(c):
    c.train.targets.numpy()[:] = 0; return c.base
def test_batch(c):
    def predict(x):
        out = c.base(x).clone(); x.zero_(); return out
    return predict
def dtype(c):
    torch.set_default_dtype(torch.float64); return c.base
def grad_mode(c):
    torch.set_grad_enabled(False); return c.base
def threads(c):
    torch.set_num_threads(torch.get_num_threads() + 1); return c.base
def closes_stderr(c):
    os.close(2); return c.base
def closes_stdout(c):
    sys.stdout.close(); return c.base
def no_stdout(c):
    sys.stdout = None; return c.base
def nan_parameters(c): return Predicts(c, parameters=float("nan"))
def endless_parameters(c): return Predicts(c, parameters=float("inf"))
def cyclic_detail(c): return Predicts(c, detail=cycle())
def list_detail(c): return Predicts(c, detail=[1, 2])
FAIL = dict(globals())


def numbers(c):
    torch.manual_seed(123); np.random.seed(1); random.seed(1); return c.base
def folder(c):
    os.chdir("/"); return c.base
def filters(c):
    warnings.simplefilter("error"); return c.base
def deterministic(c):
    torch.use_deterministic_algorithms(True); return c.base
def anomaly(c):
    torch.autograd.set_detect_anomaly(True); return c.base
def prints(c):
    print("GARBAGE"); os.write(1, b"RAW GARBAGE\\n"); return c.base
def thread(c):
    threading.Thread(target=lambda: time.sleep(10**6), daemon=False).start(); return c.base
def process(c):
    subprocess.Popen(["sleep", "299.5"]); return c.base
def removes_run(c):
    import shutil
    shutil.rmtree(os.environ["BAD_OUT"], ignore_errors=True); return c.base
def odd_detail(c): return Predicts(c, detail={(1, 2): 3, "o": object(), "n": float("nan"), "s": {1}, "u": "\\ud800"})


def make(function, fine):
    class Bad(ocd_bench.Method):
        name, default = ("fine-" if fine else "bad-") + function.__name__.replace("_", "-"), False
        def fit(self, context): return function(context)
    return Bad()


class Noisy(ocd_bench.Method):
    """Its numbers depend on the base, the training samples and its own generator."""
    name, default = "noisy", False
    def fit(self, context):
        noise = context.generator(self.name, "noise")
        shift = context.train.inputs.mean()
        return lambda inputs: context.base(inputs) + shift + torch.randn(len(inputs), 2, generator=noise)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Dots())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(Noisy())
    for name, value in list(globals().items()):
        if callable(value) and getattr(value, "__module__", "") == __name__ and not isinstance(value, type):
            if value.__code__.co_argcount == 1 and value.__code__.co_varnames[0] == "c":
                register(make(value, name not in FAIL))
'''

BAD = [
    line.split("(")[0][4:] for line in METHODS.partition("FAIL = ")[0].splitlines() if line.startswith("def ") and "(c)" in line
]
FINE = [
    line.split("(")[0][4:] for line in METHODS.partition("FAIL = ")[2].splitlines() if line.startswith("def ") and "(c)" in line
]

REASONS = {
    "raises": "ValueError: boom",
    "surrogate": "ValueError: \\x1b[31mred \\ud800 lone",
    "sysexit": "sys.exit(0)",
    "osexit": "exit code 0",
    "osexit7": "exit code 7",
    "crash": "SIGSEGV",
    "abort": "SIGABRT",
    "kills": "SIGKILL",
    "terminates": "SIGTERM",
    "hangs": f"not finished after {TIMEOUT} s (--cell-timeout)",
    "hangs_in_c": f"not finished after {TIMEOUT} s (--cell-timeout)",
    "recursion": "RecursionError",
    "nothing": "fit returned NoneType",
    "text": "predicted str",
    "nan": "not finite on 40 of 40",
    "short": "40 samples went in and 39 outputs came out",
    "wide": "predicted (40, 6), expected (40, 2)",
    "imaginary": "complex64",
    "base_weights": "weights of the shared base model",
    "base_weights_late": "weights of the shared base model",
    "train_mode": "training mode",
    "hooks": "hooks",
    "training_data": "samples that all methods share",
    "training_labels": "samples that all methods share",
    "test_batch": "test batch's inputs",
    "dtype": "default dtype",
    "grad_mode": "gradient mode",
    "threads": "number of threads",
    "closes_stdout": "stdout",
    "cyclic_detail": "holds itself",
    "nan_parameters": "parameters are nan",
}


def line_of(name: str, text: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(f"def {name}("))


class Faults:
    """One run of every bad method among good ones, and one of the good ones alone."""

    def __init__(self, folder: Path) -> None:
        self.plugin = folder / "faulty.py"
        self.plugin.write_text(TASK + METHODS)
        self.out, self.alone = folder / "out", folder / "alone"
        names = [f"bad-{name}" for name in BAD] + [f"fine-{name}" for name in FINE]
        words = [name.replace("_", "-") for name in names]
        environment = {**os.environ, "BAD_OUT": str(self.out), "OCD_BENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ocd_bench", "run", "--plugin", str(self.plugin), "--task", "dots"]
        command += ["--preset", "quick", "--quiet", "--json"]
        self.good = subprocess.run(
            [*command, "--methods", "base,noisy,oracle", "--out", str(self.alone)],
            env=environment,
            capture_output=True,
            timeout=300,
        )
        self.run = subprocess.run(
            [
                *command,
                "--methods",
                ",".join(["base", *words, "noisy", "oracle"]),
                "--cell-timeout",
                TIMEOUT,
                "--out",
                str(self.out),
            ],
            env=environment,
            capture_output=True,
            timeout=500,
        )

    def cell(self, method: str) -> dict:
        return json.loads((self.out / "cells" / f"dots-default-{method}-s0.json").read_text())


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_method_is_one_failed_cell_that_names_plugin_file_and_line(faults: Faults, name: str) -> None:
    cell = faults.cell(f"bad-{name.replace('_', '-')}")
    assert cell["status"] == "failed"
    assert cell["metrics"] == {}
    assert REASONS.get(name, "") in cell["reason"]
    assert "plugin 'faulty.py'" in cell["reason"]
    assert "faulty.py line " in cell["reason"]
    assert cell["reason"].isprintable()
    if name in ("raises", "hangs", "crash", "sysexit", "terminates"):  # the very lines
        place = int(cell["reason"].partition("faulty.py line ")[2].partition(")")[0])
        assert 0 <= place - line_of(name, TASK + METHODS) <= 1


@pytest.mark.parametrize("name", FINE)
def test_a_method_that_ends_its_process_does_not_affect_others(faults: Faults, name: str) -> None:
    assert faults.cell(f"fine-{name.replace('_', '-')}")["status"] == "ok"


def test_good_methods_among_bad_ones_give_the_same_bits(faults: Faults) -> None:
    for method in ("base", "noisy", "oracle"):
        alone = json.loads((faults.alone / "cells" / f"dots-default-{method}-s0.json").read_text())
        among = faults.cell(method)
        assert among["status"] == "ok"
        assert among["metrics"] == alone["metrics"]
        assert among["fingerprint"] == alone["fingerprint"]
        scores = f"scores/dots-default-{method}-s0.npz"
        assert among["scores_sha256"] == alone["scores_sha256"]
        assert (faults.out / scores).read_bytes() == (faults.alone / scores).read_bytes()


def test_failed_cells_are_exit_code_3_and_stdout_holds_the_json_alone(faults: Faults) -> None:
    assert faults.run.returncode == 3
    answer = json.loads(faults.run.stdout)
    assert answer["exit_code"] == 3
    assert len(answer["cells"]) == len(BAD) + len(FINE) + 3
    assert b"GARBAGE" not in faults.run.stdout
    assert b"GARBAGE" in faults.run.stderr
    assert b"Traceback" not in faults.run.stderr


def test_in_one_process_what_a_method_changes_is_put_back(
    faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("base_weights", "base_weights_late", "train_mode", "hooks", "gradients", "training_data", "training_labels")
    names += ("test_batch", "dtype", "grad_mode", "threads", "raises", "sysexit", "odd", "genexit")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(faults.out.parent / "cache"))
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")
    bad = ",".join(f"bad-{name.replace('_', '-')},noisy" for name in names)
    words = ["run", "--plugin", str(faults.plugin), "--task", "dots", "--preset", "quick", "--out", str(tmp_path / "out")]
    assert main([*words, "--methods", f"{bad},oracle,base", "--quiet"]) == 3
    capfd.readouterr()
    for method in ("base", "noisy", "oracle"):
        scores = f"scores/dots-default-{method}-s0.npz"
        assert (tmp_path / "out" / scores).read_bytes() == (faults.alone / scores).read_bytes()
    for name in names:
        cell = json.loads((tmp_path / "out" / "cells" / f"dots-default-bad-{name.replace('_', '-')}-s0.json").read_text())
        assert cell["status"] == "failed"
        assert REASONS.get(name, "") in cell["reason"]


def test_no_process_is_left(faults: Faults) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            assert words[:2] != [b"sleep", b"299.5"]


def test_a_method_that_runs_out_of_memory_loses_one_cell(tmp_path: Path) -> None:
    plugin = tmp_path / "eats.py"
    eats = """
    class Eats(ocd_bench.Method):
        name, default = "eats", False
        def fit(self, context):
            kept = []
            while True: kept.append(bytearray(2**26))

    @ocd_bench.hookimpl
    def ocd_bench_register_tasks(register): register(Dots())
    @ocd_bench.hookimpl
    def ocd_bench_register_methods(register): register(Eats())
    """
    plugin.write_text(TASK + textwrap.dedent(eats))
    limited = """
    import re, resource, sys
    import torch
    used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
    from ocd_bench.cli import main
    sys.exit(main(sys.argv[1:]))
    """
    words = [
        "run",
        "--plugin",
        str(plugin),
        "--task",
        "dots",
        "--preset",
        "quick",
        "--methods",
        "eats,base",
        "--json",
        "--quiet",
    ]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(limited), *words, "--out", str(tmp_path / "out")],
        env={**os.environ, "OCD_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 3
    eats_cell, base = json.loads(done.stdout)["cells"]
    assert "MemoryError" in eats_cell["reason"]
    assert "eats.py line" in eats_cell["reason"]
    assert base["status"] == "ok"


# -- tasks ------------------------------------------------------------------------------------------------------------------
MEMBERS = {
    # name: (members of the task in place of the good ones, exit code, text)
    "load-raises": (
        "def load_data(self, request): raise ValueError('no such row')",
        2,
        "load_data raised ValueError: no such row",
    ),
    "load-oserror": ("def load_data(self, request): open('/nowhere/x')", 2, "load_data raised FileNotFoundError"),
    "load-none": ("def load_data(self, request): return None", 2, "load_data returned NoneType, expected ocd_bench.Splits"),
    "load-exits": ("def load_data(self, request): sys.exit(0)", 2, "load_data raised sys.exit(0)"),
    "load-leaves": ("def load_data(self, request): os._exit(0)", 2, "load_data: the process was ended with exit code 0"),
    "load-crashes": ("def load_data(self, request): ctypes.string_at(0)", 2, "load_data: the process was ended by SIGSEGV"),
    "load-hangs": (
        "def load_data(self, request): time.sleep(10**6)",
        2,
        "load_data: not finished after",
    ),
    "load-empty": (
        "def load_data(self, request):\n        s = super().load_data(request)\n"
        "        return ocd_bench.Splits(s.train, s.val, s.test.take(slice(0, 0)))",
        2,
        "test split is empty",
    ),
    "load-nan": (
        "def load_data(self, request):\n        s = super().load_data(request)\n        s.train.inputs[:] = float('nan')\n"
        "        s.val.inputs[:] = float('nan')\n        return s",
        2,
        "already hold NaN",
    ),
    "labels-float": (
        "def load_data(self, request):\n        s = super().load_data(request)\n"
        "        return ocd_bench.Splits(*((p.inputs, p.targets.float()) for p in (s.train, s.val, s.test)))",
        2,
        "loss raised RuntimeError",
    ),
    "model-raises": ("def base_model(self, splits, request): raise KeyError('x')", 2, "base_model raised KeyError"),
    "model-none": ("def base_model(self, splits, request): return None", 2, "expected a torch.nn.Module"),
    "model-tuple": (
        "def base_model(self, splits, request):\n        class M(torch.nn.Linear):\n"
        "            def forward(self, x): return (super().forward(x),)\n        return M(2, 2)",
        2,
        "expected one tensor (4, ...)",
    ),
    "loss-raises": ("def loss(self, output, target): raise ZeroDivisionError('x')", 2, "loss raised ZeroDivisionError"),
    "loss-nan": (
        "def loss(self, output, target): return output.sum(1) * float('nan')",
        2,
        "loss gave values that are not",
    ),
    "loss-scalar": ("def loss(self, output, target): return output.mean()", 2, "expected real numbers (4,), one per sample"),
    "metrics-raise": ("def metrics(self, output, target): raise ValueError('x')", 2, "metrics raised ValueError"),
    "metrics-none": ("def metrics(self, output, target): return None", 2, "metrics gave NoneType"),
    "metrics-scalar": ("def metrics(self, output, target): return {'accuracy': output.mean()}", 2, "expected a tensor (4,)"),
    "metrics-complex": (
        "def metrics(self, output, target): return {'accuracy': output[:, 0].to(torch.complex64)}",
        2,
        "complex numbers",
    ),
    "metrics-other": ("def metrics(self, output, target): return {'loss': output[:, 0]}", 2, "not its primary_metric"),
    "datasets-raise": ("def datasets(self): raise ValueError('no list')", 2, "no list"),
    "datasets-exit": ("def datasets(self): sys.exit(0)", 2, "sys.exit(0)"),
    "diverges": ("presets = {'quick': {'base.optimizer': 'sgd', 'base.lr': 1e30, 'base.epochs': 2}}", 3, "not finite"),
    "train-raises": (
        "def train_base(self, model, splits, request, progress): raise ValueError('late')",
        3,
        "training of the base model: ValueError: late",
    ),
    "train-leaves": ("def train_base(self, model, splits, request, progress): os._exit(3)", 3, "exit code 3"),
    "train-hangs": (
        "def train_base(self, model, splits, request, progress): time.sleep(10**6)",
        3,
        f"not finished after {TIMEOUT} s",
    ),
    "train-other": (
        "def train_base(self, model, splits, request, progress): return torch.nn.Linear(2, 2)",
        2,
        "the architecture that base_model built",
    ),
    "train-five": ("def train_base(self, model, splits, request, progress): return 5", 2, "train_base returned int"),
    "layer-raises": ("def select_layer(self, model, request): raise ValueError('which')", 3, "select_layer: ValueError: which"),
    "layer-unknown": ("def select_layer(self, model, request): return 'layer9'", 2, "layer9"),
    "logits-raise": ("def logits(self, output): raise ValueError('none')", 3, "ValueError: none"),
    "figures-exit": ("def figures(self, *arguments): sys.exit(5)", 0, "figures of task 'bad' left out: sys.exit(5)"),
    "figures-crash": ("def figures(self, *arguments): ctypes.string_at(0)", 0, "figures of task 'bad' left out"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_bad_task_is_named_and_other_tasks_still_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    members, code, text = MEMBERS[name]
    plugin = tmp_path / "tasks.py"
    bad = f"""
import ctypes, os, sys, time

class Bad(Dots):
    name = "bad"
    {members}

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Dots())
    register(Bad())
"""
    plugin.write_text(TASK + bad)
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    words = ["run", "--plugin", str(plugin), "--task", "bad,dots", "--preset", "quick", "--methods", "base", "--quiet"]
    start = time.monotonic()
    assert main([*words, "--cell-timeout", TIMEOUT, "--out", str(tmp_path / "out")]) == code
    assert time.monotonic() - start < 60
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    said = err + "".join(path.read_text() for path in (tmp_path / "out" / "cells").glob("*.json")) if code else err
    assert text in said
    if name.startswith("datasets"):
        return  # nothing can be planned
    assert "plugin 'tasks.py'" in said
    assert "tasks.py line " in said
    assert "dots, default" in out
    good = json.loads((tmp_path / "out" / "cells" / "dots-default-base-s0.json").read_text())
    assert good["status"] == "ok"
    if code == 2:
        assert len([line for line in err.splitlines() if "error:" in line]) == 1
        if True:
            assert f"run 'ocd-bench plugin check {plugin}'" in err
