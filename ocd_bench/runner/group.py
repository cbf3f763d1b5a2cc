"""One group of cells: load the samples, obtain the base, fit each method, measure it on every test variant.

A group runs in a process of its own. Each of its methods runs in a further process, forked when samples and base are ready. So
a method cannot harm another method or the run. Shared values (:meth:`Context.shared`) are still built only once: the process of
a method that has built one becomes the parent of the following methods' processes, if it left everything else unchanged. If
processes cannot be forked (a GPU, other systems), all methods run in one process, with the same checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ocd_bench.config import Config, fingerprint, resolve
from ocd_bench.engine.capture import candidates
from ocd_bench.engine.selection import layer_entropy
from ocd_bench.errors import NotApplicable, OCDBenchError, UsageError
from ocd_bench.layers import SAMPLES, unsuitable
from ocd_bench.method import Context, Method
from ocd_bench.runner.base import BaseFailed, BaseModel, Bases, Throttled, tensor_sha256
from ocd_bench.runner.blame import Blame, message_of
from ocd_bench.runner.cells import Group, Variant, cell_name
from ocd_bench.runner.contract import PROBE, TaskContract, Watch
from ocd_bench.runner.fingerprints import MEASURING, code_of, differences, hook_modules, named_files, object_print, versions
from ocd_bench.runner.measure import Measured, MethodRun
from ocd_bench.runner.sandbox import Child, Message, Send, arm, run_child
from ocd_bench.runner.store import RunFolder, new_cell, pack_scores
from ocd_bench.samples import Samples, Splits
from ocd_bench.seeds import derive
from ocd_bench.task import Request, Task

Todo = list[tuple[Method, list[Variant]]]
"""Methods with the test variants that are still to be measured."""


class Reporter(Protocol):
    """Receives progress and finished cells."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def cell(self, cell: Mapping[str, Any], reused: bool) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Settings:
    """Settings that all groups of a run share.

    Attributes:
        isolate: whether methods run in processes of their own.
        cell_timeout: time limit of each step in seconds; None: no limit.
    """

    preset: str
    overrides: Mapping[str, Any]
    data_dirs: Sequence[Path]
    offline: bool
    device: torch.device
    figures: bool = True
    isolate: bool = False
    cell_timeout: float | None = None


@dataclass
class _Common:
    """State that the methods of a group share.

    Attributes:
        tests, data: test samples of each variant, and the fingerprint of all samples with them.
        heads: fingerprints of each method's cells.
        ranked: whether the entropy criterion chose the layer. If so, every cell has the entropies.
        outputs: on the plain test set, of methods whose outputs are small; for figures.
    """

    context: Context
    base: BaseModel
    tests: Mapping[Variant, Samples]
    data: Mapping[Variant, str]
    heads: Mapping[str, Mapping[str, Any]]
    ranked: bool
    watch: Watch
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


class GroupRunner:
    """Runs the unfinished cells of one (task, dataset, seed), and sends each as a message.

    Messages: ``doing`` (what comes next), ``note`` (a line for the user), ``data`` (the note on the samples), ``began`` (a
    method), ``cell`` (with ``scores`` if it has any), ``problem`` (bad input), ``progress``.

    Args:
        manager: plugins (tasks, methods, hooks).
        folder: the run folder. Finished cells are read from it; only figures are written to it.
        send: takes the messages.
    """

    def __init__(self, group: Group, manager: Any, settings: Settings, folder: RunFolder, send: Send) -> None:
        self.group, self.manager, self.run, self.folder, self.send = group, manager, settings, folder, send
        self.task: Task = manager.task(group.task)
        self.methods: list[Method] = [manager.method(name) for name in group.methods]
        self.config: Config = resolve(self.task, list(manager.methods.values()), settings.preset, settings.overrides)
        self.request = Request(
            task=group.task,
            dataset=group.dataset,
            settings=self.config.section(group.task),
            preset=settings.preset,
            seed=group.seed,
            offline=settings.offline,
            data_dirs=tuple(settings.data_dirs),
        )
        self.blame = Blame(manager)
        self.contract = TaskContract(self.task, self.blame)
        folder.warn = self._note
        self.bases = Bases(
            self.task,
            self.request,
            self.config,
            settings.device,
            manager,
            self.contract,
            Throttled(lambda message: self.send(message)).progress,
            self._note,
            settings.isolate,
            settings.cell_timeout,
        )
        self.in_child = False
        """Whether this process is one method's own."""

    # -- the whole group ----------------------------------------------------------------------------------------------
    def execute(self) -> None:
        """Measure all missing cells. Bad data or settings become a ``problem`` message."""
        try:
            self._execute()
        except OCDBenchError as error:
            self.send(Message("problem", {"text": str(error)}))

    def _execute(self) -> None:
        torch.set_num_threads(1 if self.run.isolate else self.config.section("run").threads)
        splits = self._load()
        self.send(Message("data", {"note": splits.note}))
        if splits.note and not any(each.embedded and each.name == self.group.dataset for each in self.task.datasets()):
            # What a reader took the data for is said before any training.
            self.send(Message("note", {"text": f"{self.group.task}, {self.group.dataset}: {splits.note}"}))
        hidden, tests = self._views(splits)
        data = {
            variant: tensor_sha256(*(t for s in (splits.train, splits.val, test) for t in (s.inputs, s.targets)))
            for variant, test in tests.items()
        }
        self._doing("base_model, loss and metrics on a few samples")
        base_key = self.bases.examine(hidden)
        heads = {method.name: self._head(method, base_key) for method in self.methods}
        todo = self._unfinished(heads, data)
        if not todo:
            return
        self._doing("training")
        arm(None)  # the child that trains has its own time
        try:
            base = self.bases.obtain(hidden)
            self._doing("layer selection")
            self._check_trained(base.model, hidden.val)
            ranking = functools.cache(lambda: self._rank(base.model, hidden.train))
            layer = self._layer(base.model, hidden.train, ranking)
        except BaseFailed as failure:
            self._all_fail(todo, heads, data, str(failure), failure.trace)
            return
        context = Context(
            task=self.task,
            request=self.request,
            splits=hidden,
            base=base.model,
            layer=layer,
            device=self.run.device,
            settings=self.config.section,
            batch_size=self.config.section("run").batch_size,
            ranking=ranking,
            fold_bases=lambda folds: self._fold_bases(hidden, base, folds),
        )
        watch = Watch(base.model, [hidden.train, hidden.val, *tests.values()])
        shared = _Common(context, base, tests, data, heads, bool(ranking.cache_info().currsize), watch)
        self._measure(todo, shared)
        if shared.outputs and Variant() in tests:
            self._figures(dataclasses.replace(hidden, test=tests[Variant()]), shared.outputs)

    def _views(self, splits: Splits) -> tuple[Splits, dict[Variant, Samples]]:
        """The splits without test samples, for methods, and the test samples of each variant."""
        tests = {variant: self._variant(splits, variant) for variant in self.group.variants}
        return dataclasses.replace(splits, test=splits.val), tests

    def _unfinished(self, heads: Mapping[str, Mapping[str, Any]], data: Mapping[Variant, str]) -> Todo:
        """The cells to measure. Finished cells are sent unchanged; cells of other code are named in one line."""
        todo: Todo = []
        stale: list[str] = []
        reasons: dict[str, None] = {}
        for method in self.methods:
            missing = []
            for variant in self.group.variants:
                cell, changed = self._finished(method, variant, heads[method.name], data[variant])
                if cell is not None:
                    self.send(Message("cell", {"cell": cell, "reused": True}))
                    continue
                missing.append(variant)
                if changed:
                    label = variant.label(self.group.dataset)
                    stale.append(cell_name(self.group.task, label, method.name, self.group.seed))
                    reasons.update(dict.fromkeys(changed))
            if missing:
                todo.append((method, missing))
        if stale:
            shown = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
            self._note(f"measured again, since {' and '.join(reasons)} changed: {shown}")
        return todo

    # -- methods ------------------------------------------------------------------------------------------------------
    def _measure(self, todo: Todo, shared: _Common) -> None:
        """Measure each method."""
        try:
            if self.run.isolate:
                self._in_children(todo, shared)
            else:
                self._in_this_process(todo, shared)
        finally:
            shared.context.forget()

    def _one(self, method: Method, variants: Sequence[Variant], shared: _Common) -> bool:
        """Measure a method in this process; returns whether it left the shared state unchanged."""
        asked = [shared.ranked]
        shared.watch.begin()
        context = self._restrict(shared.context, method, asked)
        runner = MethodRun(method, context, shared.base, shared.heads[method.name], self.blame, shared.watch, self.in_child)
        for variant in variants:
            arm(self.run.cell_timeout)
            measured = runner.measure(variant, shared.tests[variant], self.group.dataset, shared.data[variant])
            if asked[0] and measured.cell["status"] == "ok":
                measured.cell["detail"]["entropies"] = dict(shared.context.ranking())
            self._send_cell(measured, variant)
        arm(None)
        return not runner.changed

    def _in_children(self, todo: Todo, shared: _Common) -> None:
        """Measure methods, each in a child. A child that has built a shared value measures the remaining methods. Methods that
        are left when it ends are measured from here."""
        while todo:
            settled: set[tuple[str, Variant]] = set()
            began = {todo[0][0].name}

            def work(send: Send, todo: Todo = todo) -> None:
                self._become_child(send)
                (method, variants), rest = todo[0], todo[1:]
                before = shared.context.shared_count
                if self._one(method, variants, shared) and shared.context.shared_count > before and rest:
                    send(Message("further"))
                    self._go_on(method, rest, shared)

            def receive(child: Child, message: Message, settled: set[Any] = settled, began: set[str] = began) -> None:
                if message.what == "further":
                    child.allow(None)
                    return
                if message.what == "began":
                    began.add(message.values["method"])
                if message.what == "cell":
                    kind, severity = message.values["variant"]
                    settled.add((message.values["cell"]["method"], Variant(kind, severity)))
                    if child.deadline is not None:
                        child.allow(self.run.cell_timeout)
                    self._keep_output(shared, message)
                self.send(message)

            self._began(todo[0][0])
            ending = run_child(work, receive, self.run.cell_timeout)
            left: Todo = []
            for method, variants in todo:
                missing = [variant for variant in variants if (method.name, variant) not in settled]
                if missing and method.name in began:
                    reason = f"{ending} ({self.blame.of_trace(ending.trace, method)})"
                    self._all_fail([(method, missing)], shared.heads, shared.data, reason, ending.trace)
                elif missing:
                    left.append((method, missing))
            todo = left

    def _become_child(self, send: Send) -> None:
        """Mark this process as one method's own."""
        self.send, self.in_child = send, True
        self.bases = dataclasses.replace(self.bases, isolate=False, seconds=None, progress=Throttled(send).progress)
        torch.set_num_threads(self.config.section("run").threads)

    def _go_on(self, method: Method, rest: Todo, shared: _Common) -> None:
        """In the child of a method that has built a shared value: measure the methods after it."""
        if self.config.section("run").threads == 1:
            self._in_children(rest, shared)
            return
        # Threads do not survive a fork, so the following methods of the same plugin run in this process.
        for other, variants in rest:
            if self.manager.owner(other) != self.manager.owner(method):
                continue
            self._began(other)
            if not self._one(other, variants, shared):
                break

    def _in_this_process(self, todo: Todo, shared: _Common) -> None:
        """Measure methods one after the other. Shared state that a method has changed is restored before the next."""
        send = self.send

        def keep(message: Message) -> None:
            if message.what == "cell":
                self._keep_output(shared, message)
            send(message)

        self.send = keep
        try:
            for method, variants in todo:
                self._began(method)
                if not self._one(method, variants, shared):
                    shared.watch.restore()
                    if shared.watch.samples_are_changed:
                        self._load_again(shared)
        finally:
            self.send = send

    def _load_again(self, shared: _Common) -> None:
        """Load the samples again."""
        hidden, tests = self._views(self._load())
        pairs = [(shared.context.splits.train, hidden.train), (shared.context.splits.val, hidden.val)]
        for old, new in [*pairs, *((shared.tests[variant], tests[variant]) for variant in tests)]:
            old.inputs.copy_(new.inputs)
            old.targets.copy_(new.targets)

    def _keep_output(self, shared: _Common, message: Message) -> None:
        if "output" in message.blobs:
            array = np.load(io.BytesIO(message.blobs["output"]), allow_pickle=False)
            shared.outputs[message.values["cell"]["method"]] = torch.from_numpy(array)

    def _send_cell(self, measured: Measured, variant: Variant) -> None:
        blobs = {}
        if measured.scores is not None:
            blobs["scores"] = pack_scores(measured.scores)
        wanted = self.run.figures and type(self.task).figures is not Task.figures
        if wanted and measured.output is not None and not variant.kind:
            buffer = io.BytesIO()
            np.save(buffer, measured.output.numpy())
            blobs["output"] = buffer.getvalue()
        values = {
            "cell": measured.cell,
            "reused": False,
            "variant": (variant.kind, variant.severity),
            "trace": measured.trace,
        }
        self.send(Message("cell", values, blobs))

    def _all_fail(
        self,
        todo: Todo,
        heads: Mapping[str, Mapping[str, Any]],
        data: Mapping[Variant, str],
        reason: str,
        trace: str = "",
    ) -> None:
        for method, variants in todo:
            for variant in variants:
                label = variant.label(self.group.dataset)
                cell = new_cell(self.group.task, label, method.name, self.group.seed)
                head = heads[method.name]
                cell.update(head, reason=reason, fingerprint={**head["fingerprint"], "data": data[variant]})
                self._send_cell(Measured(cell, trace=trace or None), variant)

    # -- messages -----------------------------------------------------------------------------------------------------
    def _note(self, text: str) -> None:
        self.send(Message("note", {"text": text}))

    def _doing(self, what: str) -> None:
        arm(self.run.cell_timeout if self.run.isolate else None)
        self.send(Message("doing", {"what": what}))

    def _began(self, method: Method) -> None:
        self.send(Message("began", {"method": method.name}))

    # -- steps --------------------------------------------------------------------------------------------------------
    def _load(self) -> Splits:
        self._doing("load_data")
        load = self.manager.hook.ocd_bench_load_data
        return self.contract.splits(self.contract.call("load_data", lambda: load(task=self.task, request=self.request)))

    def _variant(self, splits: Splits, variant: Variant) -> Samples:
        test = splits.test
        if not variant.kind:
            return test
        recorded = self.task.recorded_corruption(splits, variant.kind, variant.severity, self.request)
        if recorded is not None:
            return Samples(recorded.inputs, recorded.targets, test.groups)
        self._doing("corrupt")
        # The draw must not depend on the run's seed: every seed has the same corrupted test set.
        generator = torch.Generator().manual_seed(
            derive(self.group.task, self.group.dataset, variant.kind, variant.severity, "corruption")
        )
        try:
            changed = self.contract.call(
                "corrupt", lambda: self.task.corrupt(test.inputs.clone(), variant.kind, variant.severity, generator)
            )
        except NotApplicable as error:
            raise UsageError(f"dataset {self.group.dataset!r}: {error}; leave it out of --corruption") from error
        if not isinstance(changed, torch.Tensor) or changed.shape != test.inputs.shape:
            found = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
            raise self.contract.broken("corrupt", f"returned {found}", f"inputs {tuple(test.inputs.shape)}")
        return Samples(changed, self.task.corrupt_targets(changed, test.targets), test.groups)

    def _fold_bases(self, hidden: Splits, base: BaseModel, folds: int) -> list[tuple[torch.nn.Module, torch.Tensor]]:
        """See :class:`ocd_bench.method.Context`."""
        count = len(hidden.train)
        if not 2 <= folds <= count:
            raise UsageError(f"{folds} folds of {count} training samples: expected 2 to {count}")
        found = []
        for held in torch.randperm(count, generator=self.request.generator("folds")).tensor_split(folds):
            seen = torch.ones(count, dtype=torch.bool).index_fill_(0, held, False)
            other = self.bases.obtain(dataclasses.replace(hidden, train=hidden.train.take(seen)))
            if other.sha256 == base.sha256:
                raise NotApplicable("the base comes with trained weights, which were trained on every training sample")
            found.append((other.model, held))
        return found

    def _rank(self, model: torch.nn.Module, train: Samples) -> list[tuple[str, float]]:
        select = self.config.section("select")
        draw = self.request.generator("select-samples")
        sample = train.take(torch.randperm(len(train), generator=draw)[: select.samples])
        inputs, targets = self.task.subsample(sample.inputs, sample.targets, draw)
        inputs, targets = inputs.to(self.run.device), targets.to(self.run.device)
        names = candidates(model, inputs[:3])  # three, to notice samples that influence each other
        scores = layer_entropy(
            model,
            inputs,
            targets,
            self.task.loss,
            names,
            select.sigma,
            select.draws,
            self.request.generator("select-noise"),
            unit=select.unit,
        )
        return sorted(scores.items(), key=lambda item: -item[1])

    @torch.no_grad()
    def _check_trained(self, model: torch.nn.Module, val: Samples) -> None:
        """Refuse a base model that has diverged before it is used."""
        with self._failing("the trained base model"):
            inputs, _ = self.task.subsample(val.inputs[:PROBE], val.targets[:PROBE], self.request.generator("probe"))
            output = model(inputs.to(self.run.device))
            finite = not output.is_floating_point() or bool(output.isfinite().all())
        if not finite:
            place = self.blame.of_item(self.task)
            raise BaseFailed(f"the trained base model's outputs are not finite: training diverged, lower base.lr ({place})")

    def _layer(self, model: torch.nn.Module, train: Samples, ranking: Callable[[], list[tuple[str, float]]]) -> str:
        wanted = self.config.section("select").layer
        hook = self.manager.hook.ocd_bench_select_layer
        from_task = wanted == "task"
        with self._failing("select_layer"):
            if from_task:
                wanted = hook(task=self.task, model=model, request=self.request) or "entropy"
            if wanted == "entropy":
                return ranking()[0][0]
            inputs, _ = self.task.subsample(train.inputs[:SAMPLES], train.targets[:SAMPLES], self.request.generator("layers"))
            if from_task and (problem := unsuitable(model, wanted, inputs.to(self.run.device))):
                raise self.contract.broken("select_layer", f"chose {wanted!r}: {problem.why}", f"one of {problem.instead}")
        return wanted

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Any error inside this context makes the cells of the group fail."""
        try:
            yield
        except OCDBenchError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise BaseFailed(f"{what}: {message_of(error)} ({self.blame.of_error(error, self.task)})") from error

    def _restrict(self, context: Context, method: Method, asked: list[bool]) -> Context:
        """The context of one method, with its own sections and its own account of seconds."""
        allowed = {method.section, *method.reads, "base", "select", "run", self.task.name}

        def settings(name: str) -> Any:
            if name not in allowed:
                raise RuntimeError(f"method {method.name!r} reads section {name!r}: name it in its 'reads'")
            return self.config.section(name)

        def ranking() -> list[tuple[str, float]]:
            asked[0] = True
            return context.ranking()

        return dataclasses.replace(context, settings=settings, ranking=ranking, progress=self.bases.progress, charges=[])

    # -- fingerprints -------------------------------------------------------------------------------------------------
    def _sections(self, method: Method) -> dict[str, dict[str, Any]]:
        names = sorted({name for name in (method.section, *method.reads, "base", "select", "run", self.task.name) if name})
        sections = self.config.as_dict(names)
        sections["base"].pop("cache")
        return sections

    def _head(self, method: Method, base_key: str) -> dict[str, Any]:
        """The fingerprints of a cell of the method."""
        sections = self._sections(method)
        code, packages = object_print(method)
        core = code_of(MEASURING)
        layer, hook_packages = object_print(self.task, hook_modules(self.manager, "ocd_bench_select_layer"))
        return {
            "fingerprint": {"config": fingerprint({"preset": self.run.preset, "sections": sections})},
            "made_by": {
                "method": code,
                "task": layer,
                "core": core.sha256,
                "packages": versions(packages | hook_packages | core.packages),
                "files": named_files(sections, self.run.data_dirs),
                "threads": self.config.section("run").threads,
                "base": base_key,
            },
        }

    def _finished(
        self, method: Method, variant: Variant, head: Mapping[str, Any], data: str
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """A finished cell that can be reused; else None, and what has changed since it was measured."""
        label = variant.label(self.group.dataset)
        cell = self.folder.read_cell(self.group.task, label, method.name, self.group.seed)
        if cell is None or cell["status"] != "ok":
            return None, []  # a method that was not applicable is tried again: the cause may be gone
        name = cell_name(self.group.task, label, method.name, self.group.seed)
        for what, old, new in (
            ("configuration", cell["fingerprint"].get("config"), head["fingerprint"]["config"]),
            ("data", cell["fingerprint"].get("data"), data),
        ):
            if old != new:
                raise UsageError(
                    f"--out {self.folder.path}: cell {name} was measured with another {what}; choose another --out"
                )
        changed = differences(cell.get("made_by"), head["made_by"])
        return (None, changed) if changed else (cell, [])

    def _figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor]) -> None:
        """Write the task's own pictures. An error here does not affect the numbers."""
        self._doing("figures")
        folder = self.folder.path / "figures" / f"{self.group.task}-{self.group.dataset}-s{self.group.seed}"

        def draw(send: Send) -> None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                written = self.task.figures(splits, outputs, self.request, folder)
                if not written:
                    folder.rmdir()
                    if not any(folder.parent.iterdir()):
                        folder.parent.rmdir()
            except (Exception, SystemExit, GeneratorExit) as error:
                where = self.blame.of_error(error, self.task)
                text = f"figures of task {self.task.name!r} left out: {message_of(error)} ({where})"
                send(Message("note", {"text": text}))

        if not self.run.isolate:
            draw(self.send)
            return
        ending = run_child(draw, lambda child, message: self.send(message), self.run.cell_timeout)
        if ending.how != "returned":
            where = self.blame.of_trace(ending.trace, self.task)
            self._note(f"figures of task {self.task.name!r} left out: {ending} ({where})")
