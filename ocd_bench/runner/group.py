"""One group of cells: load the samples, obtain the base, fit each method, measure it on every test variant."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ocd_bench.config import Config, fingerprint, resolve
from ocd_bench.engine.capture import candidates, refusal
from ocd_bench.engine.selection import layer_entropy
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.layers import check_layers, refused
from ocd_bench.method import Context, Method
from ocd_bench.runner.base import BaseModel, obtain_base, tensor_sha256
from ocd_bench.runner.cells import Group, Variant, cell_name
from ocd_bench.runner.measure import MethodRun
from ocd_bench.runner.store import RunFolder, new_cell
from ocd_bench.samples import Samples, Splits
from ocd_bench.seeds import derive
from ocd_bench.task import Request, Task

Cells = dict[tuple[str, Variant], dict[str, Any]]
"""Cells of a group by method and test variant."""


class Reporter(Protocol):
    """Where progress and finished cells are announced."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def cell(self, cell: Mapping[str, Any], reused: bool) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What every group of a run has in common."""

    preset: str
    overrides: Mapping[str, Any]
    data_dirs: Sequence[Path]
    offline: bool
    device: torch.device
    figures: bool = True


class GroupRunner:
    """Runs the cells of one (task, dataset, seed) that are not finished yet.

    Args:
        manager: plugins (tasks, methods, hooks).
        folder: where cells go, and where finished ones are found.
    """

    def __init__(self, group: Group, manager: Any, settings: Settings, folder: RunFolder, reporter: Reporter) -> None:
        self.group, self.manager, self.run, self.folder, self.reporter = group, manager, settings, folder, reporter
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
        self.note = ""
        self.finished: list[dict[str, Any]] = []

    # -- the whole group ----------------------------------------------------------------------------------------------
    def execute(self) -> list[dict[str, Any]]:
        """Measure what is missing and return every cell of the group, in the plan's order.

        Raises:
            UsageError: for bad data or settings; cells finished before stay as they are.
        """
        splits = self._load()
        self.note = splits.note
        tests = {variant: self._variant(splits.test, variant) for variant in self.group.variants}
        hidden = dataclasses.replace(splits, test=splits.val)
        data = {
            variant: tensor_sha256(*(t for s in (splits.train, splits.val, test) for t in (s.inputs, s.targets)))
            for variant, test in tests.items()
        }
        cells: Cells = {}
        for method in self.methods:
            for variant in self.group.variants:
                cell = self._finished(method, variant, data[variant])
                if cell is not None:
                    cells[method.name, variant] = cell
                    self._announce(cell, reused=True)
        if len(cells) < len(self.methods) * len(self.group.variants):
            self._measure(hidden, tests, data, cells)
        return [cells[method.name, variant] for variant in self.group.variants for method in self.methods]

    def _measure(
        self,
        hidden: Splits,
        tests: Mapping[Variant, Samples],
        data: Mapping[Variant, str],
        cells: Cells,
    ) -> None:
        base = self._base(hidden, examine=True)
        ranking = functools.cache(lambda: self._rank(base.model, hidden.train))
        layer = self._layer(base.model, hidden.train, ranking)
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
            progress=self.reporter.progress,
            fold_bases=lambda folds: self._fold_bases(hidden, base, folds),
        )
        outputs: dict[str, torch.Tensor] = {}
        try:
            for method in self.methods:
                missing = [variant for variant in self.group.variants if (method.name, variant) not in cells]
                if not missing:
                    continue
                runner = MethodRun(method, self._restrict(context, method), base, self._config_print(method))
                for variant in missing:
                    cell, scores, output = runner.measure(variant, tests[variant], self.group.dataset, data[variant])
                    if runner.trace is not None:
                        name = cell_name(cell["task"], cell["dataset"], cell["method"], cell["seed"])
                        cell["reason"] += f" (traceback: {self.folder.write_error(name, runner.trace)})"
                    if ranking.cache_info().currsize:
                        cell["detail"]["entropies"] = dict(ranking())
                    self.folder.write_cell(cell, scores)
                    cells[method.name, variant] = cell
                    self._announce(cell, reused=False)
                    if output is not None and not variant.kind:
                        outputs[method.name] = output
        finally:
            context.forget()
        if outputs and self.run.figures and Variant() in tests:
            self._figures(dataclasses.replace(hidden, test=tests[Variant()]), outputs)

    # -- pieces -------------------------------------------------------------------------------------------------------
    def _load(self) -> Splits:
        splits = self.manager.hook.ocd_bench_load_data(task=self.task, request=self.request)
        if not isinstance(splits, Splits):
            raise UsageError(f"task {self.task.name!r}: load_data returned {type(splits).__name__}, expected ocd_bench.Splits")
        return splits

    def _variant(self, test: Samples, variant: Variant) -> Samples:
        if not variant.kind:
            return test
        # The draw must not depend on the run's seed: every seed meets the same corrupted test set.
        generator = torch.Generator().manual_seed(
            derive(self.group.task, self.group.dataset, variant.kind, variant.severity, "corruption")
        )
        return Samples(self.task.corrupt(test.inputs.clone(), variant.kind, variant.severity, generator), test.targets)

    def _base(self, splits: Splits, examine: bool = False) -> BaseModel:
        def build() -> torch.nn.Module:
            model = self.manager.hook.ocd_bench_base_model(task=self.task, splits=splits, request=self.request)
            if examine:
                check_layers(self.task, model, self.config.section("select").layer, splits.train, self.request)
            return model

        return obtain_base(self.task, splits, self.request, self.config, self.run.device, build, self.reporter.progress)

    def _fold_bases(self, hidden: Splits, base: BaseModel, folds: int) -> list[tuple[torch.nn.Module, torch.Tensor]]:
        """See :class:`ocd_bench.method.Context`."""
        count = len(hidden.train)
        if not 2 <= folds <= count:
            raise UsageError(f"{folds} folds of {count} training samples: expected 2 to {count}")
        found = []
        for held in torch.randperm(count, generator=self.request.generator("folds")).tensor_split(folds):
            seen = torch.ones(count, dtype=torch.bool).index_fill_(0, held, False)
            other = self._base(dataclasses.replace(hidden, train=hidden.train.take(seen)))
            if other.sha256 == base.sha256:
                raise NotApplicable("the base is not trained here but given: it has seen every training sample")
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

    def _layer(self, model: torch.nn.Module, train: Samples, ranking: Callable[[], list[tuple[str, float]]]) -> str:
        wanted = self.config.section("select").layer
        if wanted == "task":
            wanted = self.manager.hook.ocd_bench_select_layer(task=self.task, model=model, request=self.request) or "entropy"
        if wanted == "entropy":
            return ranking()[0][0]
        some, _ = self.task.subsample(train.inputs[:3], train.targets[:3], self.request.generator("layers"))
        some = some.to(self.run.device)
        if wanted not in dict(model.named_modules()) or refusal(model, wanted, some) is not None:
            raise refused(self.task, model, wanted, some, origin="select_layer")
        return wanted

    def _restrict(self, context: Context, method: Method) -> Context:
        allowed = {method.section, *method.reads, "base", "select", "run", self.task.name}

        def settings(name: str) -> Any:
            if name not in allowed:
                raise RuntimeError(f"method {method.name!r} reads section {name!r}: name it in its 'reads'")
            return self.config.section(name)

        return dataclasses.replace(context, settings=settings, _charges=[])

    def _config_print(self, method: Method) -> str:
        names = sorted({name for name in (method.section, *method.reads, "base", "select", "run", self.task.name) if name})
        sections = self.config.as_dict(names)
        sections["base"].pop("cache")
        return fingerprint({"preset": self.run.preset, "sections": sections})

    def _finished(self, method: Method, variant: Variant, data: str) -> dict[str, Any] | None:
        label = variant.label(self.group.dataset)
        cell = self.folder.read_cell(self.group.task, label, method.name, self.group.seed)
        if cell is None or cell["status"] == "failed":
            return None
        name = cell_name(self.group.task, label, method.name, self.group.seed)
        head = new_cell("", "", "", 0)
        for what, old, new in (
            ("configuration", cell["fingerprint"].get("config"), self._config_print(method)),
            ("data", cell["fingerprint"].get("data"), data),
            ("version", cell.get("ocd_bench"), head["ocd_bench"]),
        ):
            if old != new:
                raise UsageError(
                    f"--out {self.folder.path}: cell {name} was measured with another {what}; choose another --out"
                )
        return cell

    def _announce(self, cell: dict[str, Any], reused: bool) -> None:
        self.finished.append(cell)
        self.reporter.cell(cell, reused)
        self.manager.hook.ocd_bench_cell_finished(cell=cell)

    def _figures(self, splits: Splits, outputs: Mapping[str, torch.Tensor]) -> None:
        folder = self.folder.path / "figures" / f"{self.group.task}-{self.group.dataset}-s{self.group.seed}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = self.task.figures(splits, outputs, self.request, folder)
            if not written:
                folder.rmdir()
                if not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
        except Exception as error:  # a picture must never cost the numbers beside it
            self.reporter.note(f"figures of task {self.task.name!r} left out: {type(error).__name__}: {error}")
