"""What a group needs before its methods: samples, test variants, a trained base that works, and the layer to adapt."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ocd_bench.config import fingerprint
from ocd_bench.engine.capture import candidates
from ocd_bench.engine.selection import layer_entropy
from ocd_bench.errors import NotApplicable, OCDBenchError, UsageError
from ocd_bench.layers import SAMPLES, first_layer, unsuitable
from ocd_bench.runner.base import BaseFailed, BaseModel, Bases, tensor_sha256
from ocd_bench.runner.blame import message_of
from ocd_bench.runner.cells import Variant
from ocd_bench.runner.contract import PROBE
from ocd_bench.runner.job import Job
from ocd_bench.runner.stored import Recipe, with_stored_samples, write_samples
from ocd_bench.runner.streams import Course, course_of, courses
from ocd_bench.samples import Samples, Splits
from ocd_bench.seeds import derive

Ranking = Callable[[], list[tuple[str, float]]]
"""Layers with their entropies in nats, best first."""


# -- samples --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Views:
    """The samples of a group.

    Attributes:
        hidden: the splits without test samples, for methods. ``hidden.test`` is the validation split.
        tests: the test samples of each variant.
        data: fingerprint of all samples with the test samples of each variant, and with their order if it is another.
        courses: which variants a method sees together, and in which order.
        note: what the reader says about the data.
    """

    hidden: Splits
    tests: Mapping[Variant, Samples]
    data: Mapping[Variant, str]
    courses: Sequence[Course]
    note: str

    def restore(self, job: Job) -> None:
        """Load the samples again, into the same tensors: a method has changed them."""
        new = load(job)
        pairs = [(self.hidden.train, new.hidden.train), (self.hidden.val, new.hidden.val)]
        for old, good in [*pairs, *((self.tests[variant], new.tests[variant]) for variant in self.tests)]:
            old.inputs.copy_(good.inputs)
            old.targets.copy_(good.targets)


def load(job: Job) -> Views:
    """The samples of a group, from the task.

    Raises:
        UsageError: for bad data, or a task that breaks its contract.
    """
    job.doing("load_data")
    hook = job.manager.hook.ocd_bench_load_data
    found = job.contract.call("load_data", lambda: hook(task=job.task, request=job.request))
    splits = _stored(job, job.contract.splits(found))
    sets = {variant: _variant(job, splits, variant) for variant in dict.fromkeys(each.plain for each in job.group.variants)}
    prints = {
        variant: tensor_sha256(*(t for s in (splits.train, splits.val, test) for t in (s.inputs, s.targets)))
        for variant, test in sets.items()
    }
    tests = {each: sets[each.plain] for each in job.group.variants}
    size = job.config.section("run").batch_size
    ways = [course_of(members, tests, job.request, size) for members in courses(job.group.variants)]
    data = {each: prints[each.plain] for each in job.group.variants}
    for course in ways:
        if course.order is not None:
            together = [tensor_sha256(course.order), *(data[each] for each in course.variants)]
            data.update({each: fingerprint([each.label(""), *together]) for each in course.variants})
    return Views(dataclasses.replace(splits, test=splits.val), tests, data, ways, splits.note)


def _stored(job: Job, splits: Splits) -> Splits:
    """The splits with the samples of the stored bases, for a task that computes its samples. They are stored if asked for."""
    if not job.task.stores_samples:
        return splits
    sections = job.config.as_dict([job.group.task])
    recipe = Recipe(job.group.task, job.group.dataset, job.group.seed, sections, kind="samples")
    if job.run.bases is not None:
        splits = with_stored_samples(job.run.bases, recipe, splits)
    if job.kept_bases is not None:
        write_samples(job.kept_bases, recipe, splits)
    return splits


def _variant(job: Job, splits: Splits, variant: Variant) -> Samples:
    test = splits.test
    if not variant.kind:
        return test
    recorded = job.task.recorded_corruption(splits, variant.kind, variant.severity, job.request)
    if recorded is not None:
        return Samples(recorded.inputs, recorded.targets, test.groups)
    job.doing("corrupt")
    # The draw must not depend on the run's seed: every seed has the same corrupted test set.
    generator = torch.Generator().manual_seed(
        derive(job.group.task, job.group.dataset, variant.kind, variant.severity, "corruption")
    )
    try:
        changed = job.contract.call(
            "corrupt", lambda: job.task.corrupt(test.inputs.clone(), variant.kind, variant.severity, generator)
        )
    except NotApplicable as error:
        raise UsageError(f"dataset {job.group.dataset!r}: {error}; leave it out of --corruption") from error
    if not isinstance(changed, torch.Tensor) or changed.shape != test.inputs.shape:
        found = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
        raise job.contract.broken("corrupt", f"returned {found}", f"inputs {tuple(test.inputs.shape)}")
    return Samples(changed, job.task.corrupt_targets(changed, test.targets), test.groups)


def copied_kinds(job: Job, views: Views) -> frozenset[str]:
    """Kinds of corruption in the copies on which the base or a hypernetwork is trained; none where neither sees copies."""
    sections = [job.config.section(name) for name in ("base", "ocd")]
    if not any(section is not None and section.augment for section in sections):
        return frozenset()
    few = views.hidden.train.inputs[:1]
    return frozenset(job.contract.call("augmented_corruptions", lambda: job.task.augmented_corruptions(few)))


# -- the trained base -----------------------------------------------------------------------------------------------------
@torch.no_grad()
def check_trained(job: Job, model: torch.nn.Module, val: Samples) -> None:
    """Refuse a base model that has diverged before it is used.

    Raises:
        BaseFailed: if its outputs on a few validation samples are not finite.
    """
    with _failing(job, "the trained base model"):
        inputs, _ = job.task.excerpt(val.inputs[:PROBE], val.targets[:PROBE], job.request.generator("probe"))
        output = model(inputs.to(job.run.device))
        finite = not output.is_floating_point() or bool(output.isfinite().all())
    if not finite:
        place = job.blame.of_item(job.task)
        raise BaseFailed(f"the trained base model's outputs are not finite: training diverged, lower base.lr ({place})")


def fold_bases(
    job: Job, bases: Bases, hidden: Splits, base: BaseModel, folds: int
) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """See :class:`ocd_bench.method.Context`."""
    count = len(hidden.train)
    if not 2 <= folds <= count:
        raise UsageError(f"{folds} folds of {count} training samples: expected 2 to {count}")
    found = []
    for held in torch.randperm(count, generator=job.request.generator("folds")).tensor_split(folds):
        seen = torch.ones(count, dtype=torch.bool).index_fill_(0, held, False)
        other = bases.obtain(dataclasses.replace(hidden, train=hidden.train.take(seen)))
        if other.sha256 == base.sha256:
            raise NotApplicable("the base comes with trained weights, which were trained on every training sample")
        found.append((other.model, held))
    return found


def base_anew(bases: Bases, hidden: Splits) -> tuple[torch.nn.Module, str]:
    """See :class:`ocd_bench.method.Context`."""
    base = bases.obtain(hidden)
    return base.model, base.sha256


def longer_base(bases: Bases, hidden: Splits, base: BaseModel, samples: float) -> torch.nn.Module:
    """See :class:`ocd_bench.method.Context`."""
    other = bases.longer(hidden, samples)
    if other.sha256 == base.sha256:
        raise NotApplicable("a longer training leaves the base as it is: its weights come from a file, or are an optimum")
    return other.model


# -- the layer ------------------------------------------------------------------------------------------------------------
def rank_layers(job: Job, model: torch.nn.Module, train: Samples) -> list[tuple[str, float]]:
    """The layers that can be adapted, by the entropy criterion (paper, section 3.3), best first."""
    select = job.config.section("select")
    draw = job.request.generator("select-samples")
    sample = train.take(torch.randperm(len(train), generator=draw)[: select.samples])
    inputs, targets = job.task.subsample(sample.inputs, sample.targets, draw)
    inputs, targets = inputs.to(job.run.device), targets.to(job.run.device)
    few, _ = job.task.excerpt(train.inputs[:SAMPLES], train.targets[:SAMPLES], job.request.generator("layers"))
    names = candidates(model, few.to(job.run.device))
    scores = layer_entropy(
        model,
        inputs,
        targets,
        job.task.loss,
        names,
        select.sigma,
        select.draws,
        job.request.generator("select-noise"),
        unit=select.unit,
    )
    return sorted(scores.items(), key=lambda item: -item[1])


def choose_layer(job: Job, model: torch.nn.Module, train: Samples, ranking: Ranking) -> str:
    """The layer that the settings name, else the task's own choice, else the best of the ranking.

    Raises:
        UsageError: if the task chose a layer that cannot be adapted.
        BaseFailed: if its ``select_layer`` raised.
    """
    wanted = first_layer(job.config.section("select").layer)
    hook = job.manager.hook.ocd_bench_select_layer
    from_task = wanted == "task"
    with _failing(job, "select_layer"):
        if from_task:
            wanted = hook(task=job.task, model=model, request=job.request) or "entropy"
        if wanted == "entropy":
            return ranking()[0][0]
        inputs, _ = job.task.excerpt(train.inputs[:SAMPLES], train.targets[:SAMPLES], job.request.generator("layers"))
        if from_task and (problem := unsuitable(model, wanted, inputs.to(job.run.device))):
            raise job.contract.broken("select_layer", f"chose {wanted!r}: {problem.why}", f"one of {problem.instead}")
    return wanted


@contextlib.contextmanager
def _failing(job: Job, what: str) -> Iterator[None]:
    """Any error inside this context makes the cells of the group fail."""
    try:
        yield
    except OCDBenchError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        raise BaseFailed(f"{what}: {message_of(error)} ({job.blame.of_error(error, job.task)})") from error
