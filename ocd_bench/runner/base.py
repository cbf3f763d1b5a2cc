"""The shared base model of a (task, dataset, seed): trained once, then stored in the cache under its fingerprint."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ocd_bench.cache import Damaged, entry_path, find, keep, model_sha256, tensor_sha256, unpack
from ocd_bench.config import MOST_EPOCHS, BaseSettings, Config, fingerprint
from ocd_bench.errors import OCDBenchError, UsageError
from ocd_bench.layers import check_layers
from ocd_bench.online import keep_group_norms_contiguous
from ocd_bench.runner.blame import message_of
from ocd_bench.runner.code import code_of
from ocd_bench.runner.contract import TaskContract
from ocd_bench.runner.fingerprints import BASE_HOOKS, TRAINING, hook_modules, object_print, versions
from ocd_bench.runner.forecast import KIND, base_sections, settings_print
from ocd_bench.runner.lease import Lease
from ocd_bench.runner.stages import Stages
from ocd_bench.runner.stored import Recipe, read_tensors, write_tensors
from ocd_bench.runner.trainer import BaseFailed, Trainer
from ocd_bench.runner.training import mean_loss, passes, train
from ocd_bench.samples import Splits
from ocd_bench.seeds import derive
from ocd_bench.task import Request, Task

__all__ = ["BaseFailed", "BaseModel", "Bases", "mean_loss", "model_sha256", "tensor_sha256", "train"]

WAIT = 0.2
"""Seconds between two checks of a base that another process trains."""


@dataclass(frozen=True)
class BaseModel:
    """A trained base in eval mode without gradients.

    Attributes:
        sha256: of its weights.
        key: fingerprint of everything it depends on.
        fit_s: seconds that its training took.
        cached: whether it came from the cache.
    """

    model: torch.nn.Module
    sha256: str
    key: str
    fit_s: float
    cached: bool


@dataclass(frozen=True)
class Bases:
    """Base models of one (task, dataset, seed): the one that methods share, and those trained on a part of the samples.

    Args:
        manager: gives the untrained model, through the ``ocd_bench_base_model`` hook.
        contract: calls the task's members.
        note: function that takes a line for the user.
        isolate: whether training runs in a child process.
        seconds: time limit of training; None: no limit.
        stored: folder of stored bases, which are used in place of training; None: there is none.
        keep: folder in which the base that methods share is stored; None: it is not.
    """

    task: Task
    request: Request
    config: Config
    device: torch.device
    manager: Any
    contract: TaskContract
    progress: Callable[[str, int, int], None]
    note: Callable[[str], None]
    isolate: bool = False
    seconds: float | None = None
    stored: Path | None = None
    keep: Path | None = None

    @property
    def threads(self) -> int:
        """Number of threads for training."""
        return self.config.section("run").threads

    @functools.cached_property
    def code(self) -> dict[str, Any]:
        """The code that builds and trains a base, and the packages it uses."""
        hooks = hook_modules(self.manager, *BASE_HOOKS)
        task, packages = object_print(self.task, hooks)
        core = code_of(TRAINING)
        return {"task": task, "core": core.sha256, "packages": versions(packages | core.packages)}

    def untrained(self, splits: Splits) -> torch.nn.Module:
        """The model before training. It draws from torch's global generator, so set a seed before the call."""
        hook = self.manager.hook.ocd_bench_base_model
        built = self.contract.call("base_model", lambda: hook(task=self.task, splits=splits, request=self.request))
        model = self.contract.model(built).to(self.device)
        keep_group_norms_contiguous(model)
        return model

    def key(self, splits: Splits, model: torch.nn.Module) -> str:
        """Fingerprint of everything that a base trained from ``model`` on ``splits`` depends on."""
        sections = base_sections(self.config, self.task.name)
        train, val = splits.train, splits.val
        return fingerprint(
            {
                **self.code,
                "dataset": self.request.dataset,
                "seed": self.request.seed,
                "device": self.device.type,
                "threads": self.threads,
                "settings": sections,
                "architecture": str(model),
                "data": tensor_sha256(train.inputs, train.targets, val.inputs, val.targets),
                "initial": model_sha256(model),
            }
        )

    def examine(self, splits: Splits) -> str:
        """Check the untrained model, loss and metrics on a few samples, and give the key of the base that methods share.

        Raises:
                    Broken: if the task does not keep its contract, or no layer of the model can be adapted.
            UsageError: if ``select.layer`` names a layer that cannot, or the stored base was made otherwise.
        """
        with self._own_stream():
            model = self.untrained(splits)
            key = self.key(splits, model)
            self.contract.probe(model, splits, self.request, self.device)
            check_layers(self.contract, model, self.config.section("select").layer, splits.train, self.request)
        given = self._given(splits)
        return fingerprint([key, given.sha256]) if given else key

    def shared(self, splits: Splits) -> BaseModel:
        """The base that methods share: the stored one if the run was given one, else :meth:`obtain`. It is stored if asked for.

        Raises:
            BaseFailed: if training fails.
            UsageError: if the stored base was made otherwise, or is damaged; or if this one cannot be stored.
        """
        base = self._given(splits) or self.obtain(splits)
        if self.keep is not None:
            write_tensors(self.keep, self.recipe(base.model), base.model.state_dict())
        return base

    def recipe(self, model: torch.nn.Module) -> Recipe:
        """What makes this base, without the machine and the code."""
        sections = self.config.as_dict(["base", self.task.name])
        sections["base"].pop("cache")
        return Recipe(self.task.name, self.request.dataset, self.request.seed, sections, str(model))

    def _given(self, splits: Splits) -> BaseModel | None:
        if self.stored is None:
            return None
        with self._own_stream():
            model = self.untrained(splits)
        found = read_tensors(self.stored, self.recipe(model))
        if found is None:
            self.note(f"--bases {self.stored}: no base of {self.task.name} {self.request.dataset}; trained here")
            return None
        try:
            model.load_state_dict(found[0])
        except RuntimeError as error:
            raise UsageError(f"--bases {self.stored}: the base of {self._name} does not fit: {message_of(error)}") from error
        return BaseModel(_freeze(model), model_sha256(model), found[1], 0.0, True)

    def obtain(self, splits: Splits) -> BaseModel:
        """The trained base: from the cache if the fingerprint is there, else trained now.

        Raises:
            BaseFailed: if training fails.
        """
        settings: BaseSettings = self.config.section("base")
        with self._own_stream():
            model = self.untrained(splits)
            key = self.key(splits, model)
            if not settings.cache:
                return self._made(model, key, splits, None)
            lease = Lease(entry_path(KIND, self._name, key).with_suffix(".lease"))
            told = False
            while True:
                base = self._cached(model, key)
                if base is not None:
                    self._kept(key).discard()  # left by a process that was killed after it had stored the base
                    lease.release()
                    return base
                if lease.held or lease.acquire():
                    break
                if not told:
                    told = True
                    self.note(f"waiting for {lease.owner()}, which trains the base of {self._name}")
                time.sleep(WAIT)
            try:
                base = self._cached(model, key) if lease.held else None  # another may just have finished it
                return base or self._made(model, key, splits, lease)
            finally:
                lease.release()

    def _kept(self, key: str) -> Stages:
        """The kept state of the training of the base of that key."""
        return Stages(self._name, key, self.note)

    def longer(self, splits: Splits, samples: float) -> BaseModel:
        """The base as its own training makes it with so many samples more, from the same initial weights.

        A head on a few texts would get millions of passes: :data:`MOST_EPOCHS` are enough to see that it is an optimum.
        """
        request = self.contract.call("longer", lambda: self.task.longer(splits, self.request, samples))
        if request is not None:
            config = self.config.changed(self.task.name, request.settings)
        else:
            request, settings = self.request, self.config.section("base")
            further = max(1, math.ceil(samples / len(splits.train)))
            epochs = min(MOST_EPOCHS, passes(settings, len(splits.train)) + further)
            config = self.config.changed("base", replace(settings, epochs=epochs))
        return replace(self, request=request, config=config).obtain(splits)

    @property
    def _name(self) -> str:
        return f"{self.task.name}-{self.request.dataset}-s{self.request.seed}"

    def _own_stream(self) -> Any:
        """A context in which torch's global generator has the base's own seed."""
        return _seeded(derive(self.request.task, self.request.dataset, "", self.request.seed, "base"), self.device)

    def _cached(self, model: torch.nn.Module, key: str) -> BaseModel | None:
        entry = find(KIND, self._name, key, self.note)
        if entry is None:
            return None
        try:
            state, own = unpack(entry.content), model.state_dict()
            if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in own.items()}:
                raise Damaged("it has the weights of another model")
            model.load_state_dict(state)
            fit_s = float(entry.record["fit_s"])
        except (Damaged, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            self.note(f"{entry_path(KIND, self._name, key)}: {message_of(error)}; computed again")
            return None
        return BaseModel(_freeze(model), model_sha256(model), key, fit_s, True)

    def _made(self, model: torch.nn.Module, key: str, splits: Splits, lease: Lease | None) -> BaseModel:
        """The base, trained now. Its state is kept until it is stored or has failed."""
        if lease is None:
            fit_s, _ = self._train(model, splits, None, lambda: None)
        else:
            kept = self._kept(key)
            try:
                fit_s, content = self._train(model, splits, kept, lease.renew)
                record = {"fit_s": fit_s, "settings": settings_print(self.config, self.task.name, self.request.preset)}
                keep(KIND, self._name, key, record, content, self.note)
            except OCDBenchError:
                kept.discard()
                raise
            kept.discard()
        return BaseModel(_freeze(model), model_sha256(model), key, fit_s, False)

    def _train(
        self, model: torch.nn.Module, splits: Splits, kept: Stages | None, renew: Callable[[], None]
    ) -> tuple[float, bytes]:
        """Train ``model``; returns the seconds that it took, and its packed weights."""
        trainer = Trainer(self.task, self.request, self.config.section("base"), self.device, self.contract, self.progress)
        if self.isolate:
            content, fit_s = trainer.in_child(model, splits, kept, renew, self.seconds, self.threads)
        else:
            content, fit_s = trainer.here(model, splits, kept, renew)
        try:
            model.load_state_dict(unpack(content))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise self.contract.broken(
                "train_base", f"returned another model ({message_of(error)})", "the architecture that base_model built"
            ) from error
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                place = self.contract.blame.of_item(self.task)
                raise BaseFailed(
                    f"the base model's weights ({name}) are not finite: training diverged, lower base.lr ({place})"
                )
        return fit_s, content


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generator, and restores its state afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _freeze(model: torch.nn.Module) -> torch.nn.Module:
    return model.eval().requires_grad_(False)
