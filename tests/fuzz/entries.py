"""The readers that are fuzzed. A new one takes three lines: a name, the files of a small valid data directory, and a call.

An entry's call reads from a data directory ``folder`` that holds its files, one of them damaged. It may return, or raise an
error of this package; anything else is a defect.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
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

    @cache
    def ready() -> tuple[Any, Any]:
        from ocd_bench.config import resolve
        from ocd_bench.plugin.manager import load_plugins

        found = load_plugins(only=(task,)).task(task)
        overrides = {f"{task}.{key}": value for key, value in settings.items()}
        return found, resolve(found, [], "quick", overrides).section(task)

    def read(folder: Path) -> object:
        from ocd_bench import Request

        found, chosen = ready()
        return found.load_data(Request(task, dataset, chosen, "quick", data_dirs=(folder,)))

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
    from ocd_bench.compare import compare_runs
    from ocd_bench.report import build_table, render
    from ocd_bench.results import merge_runs, read_run

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
GERMAN = ["a;b;target", *(f"{i % 7}.{i * 13 % 900 + 100},{i % 90 + 10};{i},5;{'ja' if i % 2 else 'nein'}" for i in range(30))]
entry("tabular csv", {"d/d.csv": text(ROWS)}, load("tabular", "d"))
entry("tabular csv.gz", {"d.csv.gz": gzip.compress(text(ROWS))}, load("tabular", "d"))
entry("tabular german", {"d/train.csv": text(GERMAN), "d/test.csv": text(GERMAN)}, load("tabular", "d"))
entry(
    "tabular jsonl",
    {"d.jsonl": text(json.dumps({"a": i, "b": "xyz"[i % 3], "target": i / 7}) for i in range(30))},
    load("tabular", "d"),
)
LETOR = {
    f"letor_mq2008/S{part}.txt": text(
        f"{i % 3} qid:{10 * part + i // 3} 1:{i / 7:.3f} 2:{part} 4:1 #docid = {i}" for i in range(9)
    )
    for part in range(1, 6)
}
entry("tabular letor", LETOR, load("tabular", "letor_mq2008"))
entry(
    "tabular letor npz",
    {
        "letor_mq2008/mq2008.npz": npz(
            X=np.zeros((25, 3), np.float32), relevance=np.arange(25) % 3, qid=np.arange(25), part=np.arange(25) % 5 + 1
        )
    },
    load("tabular", "letor_mq2008"),
)
HOUSES = np.column_stack([np.linspace(-122, -118, 40), *(np.linspace(1, 9 + i, 40) for i in range(8))])
entry(
    "tabular california npz",
    {"california_housing/california_housing.npz": npz(X=HOUSES[:, :8], y=HOUSES[:, 8])},
    load("tabular", "california_housing"),
)
entry(
    "tabular california text",
    {"california_housing/cal_housing.data.gz": gzip.compress(text(",".join(f"{v:.4f}" for v in row) for row in HOUSES))},
    load("tabular", "california_housing"),
)

# -- texts ----------------------------------------------------------------------------------------------------------------
PAIRS = [(f"the {word} number {i} is here", kind) for i in range(12) for word, kind in (("red", "x"), ("blue", "y"))]
NLP = {"encoder": "hashed", "rounds": 0, "shots": 2}
entry("nlp csv", {"d.csv": text(["text,label", *(f'"{t}, so",{k}' for t, k in PAIRS)])}, load("nlp", "d", **NLP))
entry("nlp tsv", {"d/train.tsv": text(["text\tlabel", *(f"{t}\t{k}" for t, k in PAIRS)]),
                  "d/test.tsv": text(["text\tlabel", *(f"{t}!\t{k}" for t, k in PAIRS)])}, load("nlp", "d", **NLP))  # fmt: skip
entry(
    "nlp jsonl.gz",
    {"d.jsonl.gz": gzip.compress(text(json.dumps({"text": t, "label": k}) for t, k in PAIRS))},
    load("nlp", "d", **NLP),
)

import media  # noqa: E402, F401  (registers the entries of pictures, views, sounds and weights)
