"""Workers on the machines of a ray cluster.

A machine needs no access to the run folder or to this machine's cache. Finished cells and entries of the cache travel with the
order; new cells, entries and figures come back as messages. The base model of a (task, dataset, seed) is trained once: until it
has arrived here, one worker only may be busy with that seed. Then it is sent to the others.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ocd_bench.config import Config, RaySettings, resolve
from ocd_bench.printable import one_line
from ocd_bench.runner.cells import Group
from ocd_bench.runner.executors.artefacts import STATES, add_entries, entries_of, remove_state
from ocd_bench.runner.executors.connect import connect, disconnect, needs, room
from ocd_bench.runner.executors.order import order_for, plugin_sources
from ocd_bench.runner.executors.parts import parts_of
from ocd_bench.runner.executors.receiver import Receiver
from ocd_bench.runner.executors.remote import measured, software
from ocd_bench.runner.executors.spawned import keep_file
from ocd_bench.runner.messages import Decoder, Message
from ocd_bench.runner.order import RunRequest
from ocd_bench.runner.sandbox import Ending
from ocd_bench.runner.store import RunFolder

Place = tuple[str, str, int]
"""A task, dataset and seed: what shares a base model."""

AFTER_BASE = "layer selection"
"""The step of a group that begins when the base model is there."""

REASONS = {
    "NodeDiedError": "its machine is gone",
    "WorkerCrashedError": "its process on that machine died",
    "LocalRayletDiedError": "ray on this machine died",
    "OutOfMemoryError": "its machine ran short of memory",
    "ObjectLostError": "its machine is gone, and a result with it",
    "OwnerDiedError": "its machine is gone, and a result with it",
}
"""Errors of ray, in words."""


class ClusterWorker:
    """A group on some machine of the cluster."""

    def __init__(self, group: Group, stream: Any, executor: ClusterExecutor) -> None:
        self.group, self.stream, self.executor = group, stream, executor
        self.ending: Ending | None = None
        self.node = ""
        self.parcels: list[bytes | Exception | None] = []
        """What has arrived and is not read yet."""
        self._decoder = Decoder()

    def messages(self) -> Iterator[Message]:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        while self.parcels and self.ending is None:
            parcel = self.parcels.pop(0)
            if parcel is None:
                self._end(Ending("lost", trace=f"it gave no answer{self._where}"))
            elif isinstance(parcel, Exception):
                self._end(Ending("lost", trace=f"{reason_of(parcel)}{self._where}"))
            else:
                self._decoder.feed(parcel)
            for message in self._decoder.messages():
                yield from self._handled(message)

    def kill(self) -> None:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        with contextlib.suppress(Exception):  # the connection may be gone
            self.executor.ray.cancel(self.stream, force=True)

    @property
    def _where(self) -> str:
        return f" ({self.node})" if self.node else ""

    def _handled(self, message: Message) -> Iterator[Message]:
        if message.what == "ending":
            self._end(Ending(**message.values))
        elif message.what == "place":
            self.node = message.values["node"]
        elif message.what == "entry":
            add_entries({message.values["name"]: message.blobs["content"]})  # from here other workers get it
        elif message.what == "gone":
            remove_state(message.values["name"])
        elif message.what == "file":
            keep_file(self.executor.folder, message)
        elif message.what == "problem":
            yield Message("problem", {"text": f"{message.values['text']}{self._where}"})
        else:
            if message.what == "began" or message.values.get("what") == AFTER_BASE:
                self.executor.has_base(self.group)  # the entry has come before
            yield message

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self.executor.ended(self)


class ClusterExecutor:
    """Sends groups, or parts of them, to a ray cluster.

    Raises:
        Unavailable, UsageError: see :func:`ocd_bench.runner.executors.connect.connect`.
    """

    def __init__(self, request: RunRequest, groups: Sequence[Group], folder: RunFolder, manager: Any) -> None:
        self.request, self.folder, self.manager = request, folder, manager
        self.settings = RaySettings.of(request.overrides)
        self.cuda = request.device.startswith("cuda")
        self._configs: dict[str, Config] = {}
        threads = max((self._config(task).section("run").threads for task in {group.task for group in groups}), default=1)
        need = needs(self.settings, threads, self.cuda)
        self.ray = connect(self.settings, max(1, request.jobs) * int(need["CPU"]), threads, self.cuda)
        self.retries = self.settings.retries
        self.places = room(self.ray.nodes(), need)
        """How many workers the cluster has room for at a time."""
        self._sources = plugin_sources(request.plugins)
        self._remote = self.ray.remote(measured)
        self._references: dict[Place, dict[str, Any]] = {}
        self._busy: Counter[Place] = Counter()
        self._based: set[Place] = set()
        self._receiver = Receiver(self.ray)
        self._workers: dict[Any, ClusterWorker] = {}

    # -- see :class:`ocd_bench.runner.executors.Executor` -------------------------------------------------------------------
    def parts(self, groups: Sequence[Group]) -> list[Group]:
        """Whole groups; but if the cluster has room for more, the parts of them that share no fit."""
        kept = all(self._config(group.task).section("base").cache for group in groups)  # else each part would train it
        return parts_of(groups, self.manager, self.places) if self.settings.split and kept else list(groups)

    def admits(self, group: Group, running: int) -> bool:
        """Whether the group's base is here, or nobody is training it. Some more orders than there is room for are sent, so that
        no machine waits, and a cluster that can grow sees that it should."""
        place = place_of(group)
        return running < 2 * self.places + 2 and (place in self._based or not self._busy[place])

    def start(self, group: Group) -> ClusterWorker:
        """Send the group to the cluster."""
        place = place_of(group)
        self._busy[place] += 1
        references = self._references.setdefault(place, {})
        for name, path in entries_of(group).items():
            if name not in references or name.startswith(STATES):  # a state may be a newer one
                with contextlib.suppress(OSError):
                    references[name] = self.ray.put(path.read_bytes())
        threads = self._config(group.task).section("run").threads
        need = needs(self.settings, threads, self.cuda)
        remote = self._remote.options(
            num_cpus=need["CPU"],
            num_gpus=need["GPU"],
            memory=need["memory"] or None,
            max_retries=0,  # the supervisor sends lost cells again, without those that have arrived
            num_returns="streaming",
            scheduling_strategy="SPREAD",
            name=f"ocd-bench {group.task} {group.dataset} seed {group.seed}",
        )
        order = order_for(self.request, group, self.folder, self._sources)
        worker = ClusterWorker(group, remote.remote(order, dict(references), software(), threads), self)
        self._workers[worker.stream] = worker
        self._receiver.listen(worker.stream)
        return worker

    def wait(self, running: Collection[ClusterWorker], seconds: float) -> None:
        """See :class:`ocd_bench.runner.executors.Executor`."""
        for stream, parcel in self._receiver.arrived(seconds):
            if stream in self._workers:  # else it has ended
                self._workers[stream].parcels.append(parcel)

    def close(self) -> None:
        """Disconnect. The cluster then ends what is left of this run; a ray of our own ends."""
        self._receiver.close()
        disconnect(self.ray)

    def _config(self, task: str) -> Config:
        if task not in self._configs:
            item, methods = self.manager.task(task), list(self.manager.methods.values())
            self._configs[task] = resolve(item, methods, self.request.preset, self.request.overrides)
        return self._configs[task]

    # -- for its workers ----------------------------------------------------------------------------------------------------
    def has_base(self, group: Group) -> None:
        """The group's base model is in this machine's cache."""
        self._based.add(place_of(group))

    def ended(self, worker: ClusterWorker) -> None:
        """A worker has ended."""
        self._workers.pop(worker.stream, None)
        place = place_of(worker.group)
        self._busy[place] -= 1
        if not self._busy[place]:
            self._references.pop(place, None)  # frees the object store


def place_of(group: Group) -> Place:
    """What shares a base model with the group."""
    return group.task, group.dataset, group.seed


def reason_of(error: BaseException) -> str:
    """An error of ray in a few words."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return one_line(f"{cause}")[:300]
    for kind in type(error).__mro__:
        if kind.__name__ in REASONS:
            return REASONS[kind.__name__]
    return one_line(f"{type(error).__name__}: {error}")[:300]
