"""The readers that are fuzzed. A new one takes three lines: a name, the files of a small valid data directory, and a call.

An entry's call reads from a data directory ``folder`` that holds its files, one of them damaged. It may return, or raise an
error of this package; anything else is a defect.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Entry:
    """One reader: its files by their path in the data directory (or a function that makes them), the call, and whether the
    short form runs it too."""

    given: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]]
    read: Read
    brief: bool = True

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        return self.given() if callable(self.given) else self.given


ENTRIES: dict[str, Entry] = {}


def entry(name: str, files: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]], read: Read, brief: bool = True) -> None:
    """Register a reader."""
    ENTRIES[name] = Entry(files, read, brief)


def load(task: str, dataset: str, **settings: Any) -> Read:
    """A call of ``load_data`` of an installed task on ``dataset`` in the data directory."""
    return _asked(task, dataset, lambda found, request: found.load_data(request), settings)


def rows_of(dataset: str, **settings: Any) -> Read:
    """A call of the task ``tabular`` that reads the table, and scales nothing."""

    def read(task: Any, request: Any) -> object:
        from ocd_bench_tabular.sources import read_table

        return read_table(request, request.settings)

    return _asked("tabular", dataset, read, settings)


def texts_of(dataset: str, **settings: Any) -> Read:
    """A call of the task ``nlp`` that reads the texts, and embeds nothing."""

    def read(task: Any, request: Any) -> object:
        from ocd_bench.reading import Notes

        return task._texts(request, Notes())

    return _asked("nlp", dataset, read, settings)


def _asked(task: str, dataset: str, call: Callable[[Any, Any], object], settings: Mapping[str, Any]) -> Read:
    @functools.cache
    def prepared() -> tuple[Any, Any]:
        from ocd_bench.config import resolve
        from ocd_bench.plugin.manager import load_plugins

        found = load_plugins(only=(task,)).task(task)
        overrides = {f"{task}.{key}": value for key, value in settings.items()}
        return found, resolve(found, [], "quick", overrides).section(task)

    def read(folder: Path) -> object:
        from ocd_bench import Request

        found, chosen = prepared()
        return call(found, Request(task, dataset, chosen, "quick", data_dirs=(folder,)))

    return read


def npz(**arrays: Any) -> bytes:
    """The bytes of an .npz archive."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def text(rows: Any) -> bytes:
    """The bytes of lines."""
    return "\n".join(rows).encode() + b"\n"


# -- run folders ----------------------------------------------------------------------------------------------------------
CELL = {
    "schema": 1, "task": "demo", "dataset": "d", "method": "base", "seed": 0, "status": "ok", "reason": None, "layer": "fc",
    "n_test": 3, "metrics": {"accuracy": {"value": 0.5, "unit": "fraction", "higher_is_better": True, "primary": True}},
    "cost": {"fit_s": 1.0, "adapt_s": 1.0, "samples_per_s": 1.0, "peak_memory_mb": 1.0, "parameters": 1},
    "fingerprint": {"config": "a", "data": "b", "base": "c"}, "detail": {"curve": [1.0, 2.0]}, "ocd_bench": "0.1.0",
}  # fmt: skip
RUN = {
    "schema": 1, "ocd_bench": "0.1.0", "created": "2026-01-01T00:00:00+00:00", "preset": "quick", "seeds": [0],
    "methods": ["base", "ocd"], "tasks": {"demo": {"dataset": ["d"], "config": {"base": {"lr": 0.1}}}},
    "environment": {"device": "cpu", "cpu": "x", "python": "3.11"}, "plugins": {}, "notes": {"demo-d": "a note"},
}  # fmt: skip


def report(folder: Path) -> None:
    """Read a run folder, and render it in every format that needs no browser."""
    from ocd_bench.comparison import compare_runs
    from ocd_bench.merging import merge_runs
    from ocd_bench.report import build_table, render
    from ocd_bench.results import read_run

    run = read_run(folder)
    for key, cell in run.cells.items():
        for name in cell["metrics"]:
            run.scores(key, name)
    table = build_table(run)
    for form in ("table", "markdown", "csv", "latex", "html"):
        render(table, form).encode()
    merge_runs([run, run])
    compare_runs(run, run)


entry(
    "run folder",
    {
        "run.json": json.dumps(RUN).encode(),
        "cells/demo-d-base-s0.json": json.dumps(CELL).encode(),
        "cells/demo-d-ocd-s0.json": json.dumps({**CELL, "method": "ocd"}).encode(),
        "scores/demo-d-base-s0.npz": npz(accuracy=np.array([0.0, 1.0, 1.0])),
        "scores/demo-d-ocd-s0.npz": npz(accuracy=np.array([1.0, 1.0, 1.0])),
    },
    report,
)

# -- tables ---------------------------------------------------------------------------------------------------------------
ROWS = ["a,b,c,when,target", *(f"{i * 0.37:.2f},{i % 3},{'xyz'[i % 3]},2024-01-{i % 28 + 1:02d},{i * 0.5}" for i in range(30))]
GERMAN = [
    "a;b;target",
    *(f"{i % 7 + 1}.{i * 13 % 900 + 100},{i % 90 + 10};{i},5;{'ja' if i % 2 else 'nein'}" for i in range(30)),
]
entry("tabular csv", {"d/d.csv": text(ROWS)}, rows_of("d"))
entry("tabular csv.gz", {"d.csv.gz": gzip.compress(text(ROWS))}, rows_of("d"))
entry("tabular german", {"d/train.csv": text(GERMAN), "d/test.csv": text(GERMAN)}, rows_of("d"))
entry(
    "tabular jsonl",
    {"d.jsonl": text(json.dumps({"a": i, "b": "xyz"[i % 3], "target": i / 7}) for i in range(30))},
    rows_of("d"),
)
LETOR = {
    f"letor_mq2008/S{part}.txt": text(
        f"{i % 3} qid:{10 * part + i // 3} 1:{i / 7:.3f} 2:{part} 4:1 #docid = {i}" for i in range(9)
    )
    for part in range(1, 6)
}
entry("tabular letor", LETOR, rows_of("letor_mq2008"))
entry(
    "tabular letor npz",
    {
        "letor_mq2008/mq2008.npz": npz(
            X=np.zeros((25, 3), np.float32), relevance=np.arange(25) % 3, qid=np.arange(25), part=np.arange(25) % 5 + 1
        )
    },
    rows_of("letor_mq2008"),
)
HOUSES = np.column_stack([np.linspace(-122, -118, 40), *(np.linspace(1, 9 + i, 40) for i in range(8))])
entry(
    "tabular california npz",
    {"california_housing/california_housing.npz": npz(X=HOUSES[:, :8], y=HOUSES[:, 8])},
    rows_of("california_housing"),
)
entry(
    "tabular california text",
    {"california_housing/cal_housing.data.gz": gzip.compress(text(",".join(f"{v:.4f}" for v in row) for row in HOUSES))},
    rows_of("california_housing"),
)

# -- texts ----------------------------------------------------------------------------------------------------------------
PAIRS = [(f"the {word} number {i} is here", kind) for i in range(12) for word, kind in (("red", "x"), ("blue", "y"))]
entry("nlp csv", {"d.csv": text(["text,label", *(f'"{t}, so",{k}' for t, k in PAIRS)])}, texts_of("d"))
entry("nlp tsv", {"d/train.tsv": text(["text\tlabel", *(f"{t}\t{k}" for t, k in PAIRS)]),
                  "d/test.tsv": text(["text\tlabel", *(f"{t}!\t{k}" for t, k in PAIRS)])}, texts_of("d"))  # fmt: skip
entry(
    "nlp jsonl.gz",
    {"d.jsonl.gz": gzip.compress(text(json.dumps({"text": t, "label": k}) for t, k in PAIRS))},
    texts_of("d"),
)
entry(
    "nlp class folders",
    {f"d/{part}/{k}/{i}.txt": t.encode() for part in ("train", "test") for i, (t, k) in enumerate(PAIRS)},
    texts_of("d"),
)
entry("nlp whole", {"d.csv": text(["text,label", *(f"{t},{k}" for t, k in PAIRS)])},
      load("nlp", "d", encoder="hashed", rounds=0, shots=2))  # fmt: skip
entry("tabular whole", {"d.csv": text(ROWS)}, load("tabular", "d"))
entry("tabular npz", {"d.npz": npz(X=np.arange(60.0).reshape(30, 2), y=np.arange(30) % 3)}, rows_of("d"))
GAS = {"x": np.zeros((30, 2), np.float32), "gas": np.arange(30) % 6 + 1, "batch": np.arange(30) % 5 + 1}
entry("tabular gas npz", {"gas_sensor_drift/gas_drift.npz": npz(**GAS)}, rows_of("gas_sensor_drift"))


def parquet() -> bytes:
    """A Parquet file of the table."""
    arrow = __import__("pyarrow.parquet")
    buffer = io.BytesIO()
    arrow.parquet.write_table(arrow.table({"a": [i / 7 for i in range(30)], "target": [i % 3 for i in range(30)]}), buffer)
    return buffer.getvalue()


if importlib.util.find_spec("pyarrow"):
    entry("tabular parquet", {"d.parquet": parquet()}, rows_of("d"))

import media  # noqa: E402, F401  (registers the entries of pictures, views, sounds and weights)
