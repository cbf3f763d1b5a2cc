"""The part that runs on a machine of a ray cluster: it gives an order to an interpreter there, and sends back what it says."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
import select
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ocd_bench._version import __version__
from ocd_bench.folders import cache_folder
from ocd_bench.runner.code import code_of
from ocd_bench.runner.executors.artefacts import STATES
from ocd_bench.runner.executors.order import Order
from ocd_bench.runner.executors.spawned import Interpreter
from ocd_bench.runner.fingerprints import MEASURING, TRAINING
from ocd_bench.runner.messages import Message, encode

MINOR = ("doing", "began", "note")
"""Messages that may wait for the next one: the fewer parcels, the less work for the first machine."""
PATIENCE = 1.0
"""Seconds that they may wait."""

_interpreter: Interpreter | None = None
"""This process's interpreter. ray gives the process further orders of the same run."""


@functools.cache
def software() -> dict[str, str]:
    """Versions of everything that numbers depend on. They must be the same on every machine."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "ocd-bench": __version__,
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "OCD-Bench's code": code_of([*TRAINING, *MEASURING]).sha256[:12],
    }


class Unequal(Exception):
    """This machine has other software than the one that the user started the run on."""


def measured(order: Order, entries: Mapping[str, Any], expected: Mapping[str, str], threads: int) -> Iterator[bytes]:
    """Measure a group here; gives parcels of messages while it works.

    Args:
        entries: references to entries of the cache; fetched only if this machine has not got them.
        expected: the software of the first machine.
        threads: that compute.

    Raises:
        Unequal: if the software here is another one.
    """
    import ray

    own = software()
    for name, version in expected.items():
        if own.get(name) != version:
            raise Unequal(f"{name} {own.get(name)} there, {version} here: install the same on every machine")
    missing = {
        name: reference
        for name, reference in entries.items()
        if name.startswith(STATES) or not (cache_folder() / name).exists()  # a state here may be an older one
    }
    order = dataclasses.replace(order, entries={name: ray.get(reference) for name, reference in missing.items()})
    yield encode(Message("place", {"node": ray.util.get_node_ip_address()}))
    interpreter = _ready(threads)
    interpreter.send(order)
    parcel, since, ended = bytearray(), time.monotonic(), False
    while not ended:
        select.select([interpreter.read], [], [], PATIENCE)
        for message in interpreter.messages():
            ended = message.what == "ending"
            if message.what == "progress":
                continue
            parcel += encode(message)
            since = since if message.what in MINOR else 0.0
        if parcel and time.monotonic() - since > PATIENCE:
            yield bytes(parcel)
            parcel, since = bytearray(), time.monotonic()


def _ready(threads: int) -> Interpreter:
    global _interpreter
    if _interpreter is None or not _interpreter.alive:
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        _interpreter = Interpreter(variables)
    return _interpreter
