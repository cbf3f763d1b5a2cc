"""The program of a fresh interpreter that measures groups: ``python -m ocd_bench.runner.executors.interpreter``.

It reads orders from its stdin and writes messages to its stdout, both as :mod:`ocd_bench.runner.messages`. The messages are
those of a group, and more: ``entry`` and ``gone`` (of the cache), ``file`` (of the run folder, beside cells), and ``ending``.
It loads the plugins itself, once. Orders are pickled; they come from the process that has started this one, and from no file.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import pickle
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocd_bench.cache import tidy
from ocd_bench.files import temporary_folder
from ocd_bench.heap import keep_freed_memory
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.runner.executors.artefacts import Changes, add_entries
from ocd_bench.runner.executors.forked import ForkedWorker
from ocd_bench.runner.executors.order import Order, SentFolder, unpacked
from ocd_bench.runner.group import GroupRunner
from ocd_bench.runner.messages import Decoder, Message, Send, encode
from ocd_bench.runner.sandbox import Ending, watch
from ocd_bench.runner.workers import settings_of

LOOK = ("doing", "cell")
"""Messages after which a new entry of the cache or a new file may be there."""
EVERY = 5.0
"""Seconds after which it may be there in any case."""


def main() -> None:
    """Measure one group after another until stdin is closed."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one handles Ctrl-C
    out = os.dup(1)
    os.dup2(2, 1)  # a plugin's print must not be read as a message

    def send(message: Message) -> None:
        data = memoryview(encode(message))
        while data:
            data = data[os.write(out, data) :]

    keep_freed_memory()
    tidy()
    place = temporary_folder()
    try:
        manager: Any = None
        decoder = Decoder()
        while part := os.read(0, 1 << 20):
            decoder.feed(part)
            for message in decoder.messages():
                order: Order = pickle.loads(message.blobs["order"])
                request = unpacked(order, place)
                manager = manager or load_plugins(request.plugins, warn=lambda line: None)  # the first process has warned
                send(Message("ending", vars(measure(order, request, manager, send, place))))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def measure(order: Order, request: Any, manager: Any, send: Send, place: Path) -> Ending:
    """Measure the group of an order; sends its messages, and what else it made. ``place`` is a folder for temporary files."""
    add_entries(order.entries)
    entries = Changes(order.group)
    folder = SentFolder(order, place)
    looked = time.monotonic()

    def relay(message: Message) -> None:
        if "text" in message.values:
            message = Message(message.what, {**message.values, "text": folder.in_words(message.values["text"])})
        if message.what in LOOK or time.monotonic() - looked > EVERY:
            look()
        send(message)

    def look() -> None:
        nonlocal looked
        looked = time.monotonic()
        for name, content in entries:
            send(Message("gone", {"name": name}) if content is None else Message("entry", {"name": name}, {"content": content}))
        for name, content in folder.new_files():
            send(Message("file", {"name": name}, {"content": content}))

    try:
        ending = _measured(order, request, manager, folder, relay)
        look()
    finally:
        folder.remove()
    return ending


def _measured(order: Order, request: Any, manager: Any, folder: SentFolder, relay: Callable[[Message], None]) -> Ending:
    settings = settings_of(dataclasses.replace(request, bases=folder.given if order.stored else request.bases))
    if settings.isolate:
        worker = ForkedWorker(order.group, manager, settings, folder)
        while worker.ending is None:
            watch([worker.child])
            for message in worker.messages():
                relay(message)
        return worker.ending
    try:
        GroupRunner(order.group, manager, settings, folder, relay).execute()
    except BaseException as error:  # of the task, or of a method, that is not contained here
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        return Ending("exited", code, traceback.format_exc())
    return Ending("returned")


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: it ends when its stdin is closed, after the group in work


if __name__ == "__main__":
    main()
    sys.exit(0)
