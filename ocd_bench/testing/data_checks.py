"""Checks of a task's samples: splits, repeatability, and the functions that change samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import combinations

import torch

from ocd_bench.errors import NotApplicable
from ocd_bench.samples import Samples
from ocd_bench.stats import MIN_GROUPS
from ocd_bench.task import Task
from ocd_bench.testing.result import Doubt, Fault, require
from ocd_bench.testing.trial import ROWS, TaskTrial, generator, same

TOLERATED = 0.01
"""Fraction of a split that may also be in another one: published datasets repeat a few texts or rows."""


def check_load_data(trial: TaskTrial) -> str:
    """Three splits of finite tensors on the CPU, with equal dtypes and dimensions."""
    splits = trial.splits
    for part in ("inputs", "targets"):
        first = getattr(splits.train, part)
        for name in ("train", "val", "test"):
            value = getattr(getattr(splits, name), part)
            require(value.device.type == "cpu", f"{name}.{part} is on {value.device}: leave it on the CPU, the runner moves it")
            require(not value.requires_grad, f"{name}.{part} requires gradients: detach it")
            require(
                value.dtype == first.dtype and value.ndim == first.ndim,
                f"{name}.{part} is {value.dtype} with {value.ndim} dimensions, train.{part} {first.dtype} with {first.ndim}: "
                "make them alike",
            )
            bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
            require(bad == 0, f"{name}.{part} has {bad} values that are not finite: fill or drop them")
    counts = [len(samples) for samples in (splits.train, splits.val, splits.test)]
    return "{:,} training, {:,} validation, {:,} test samples".format(*counts)


def check_same_data_again(trial: TaskTrial) -> str:
    """The same request gives the same samples under any state of the global random generators."""
    first, again = trial.splits, trial.load(2)
    for name in ("train", "val", "test"):
        for part in ("inputs", "targets"):
            require(
                same(getattr(getattr(first, name), part), getattr(getattr(again, name), part)),
                f"a second load_data of the same request gives other {name}.{part}: draw from request.generator(purpose) only, "
                "and sort what comes from folders and sets",
            )
    return ""


def check_no_shared_samples(trial: TaskTrial) -> str:
    """No input is in two splits. A few repeated inputs, as in published datasets, are a warning."""
    splits = {name: _rows(getattr(trial.splits, name)) for name in ("train", "val", "test")}
    repeated = []
    for first, second in combinations(splits, 2):
        places = {row: index for index, row in enumerate(splits[first])}
        shared = [(places[row], index) for index, row in enumerate(splits[second]) if row in places]
        if not shared:
            continue
        shown = ", ".join(f"{first}[{i}] = {second}[{j}]" for i, j in shared[:5])
        text = f"{len(shared)} of {len(splits[second])} {second} inputs are in {first} too ({shown})"
        if len(shared) > max(1, TOLERATED * len(splits[second])):
            raise Fault(f"{text}: split by sample, after removing repetitions")
        repeated.append(text)
    if repeated:
        raise Doubt(f"{'; '.join(repeated)}: fine if the published data set is like that")
    return ""


def check_groups(trial: TaskTrial) -> str:
    """Test samples declare their groups, or that they are independent."""
    samples = trial.splits.test
    if samples.groups is None:
        raise Doubt(
            "test samples state no groups, so intervals take them for independent: give Samples(groups=...) the speaker, "
            "query, scene or day of each, as integers; or groups=range(N) if they are independent"
        )
    count = len(samples.groups.unique())
    if count >= samples.groups.numel():
        return "none: every test sample is independent of the others"
    if count < MIN_GROUPS:
        raise Doubt(
            f"{len(samples):,} test samples are of {count} groups only: there will be no interval ({MIN_GROUPS} at least)"
        )
    return f"{len(samples):,} test samples of {count:,} groups"


def check_subsample(trial: TaskTrial) -> str:
    """A part of each sample that model and loss accept; the same generator gives the same part."""
    if _inherited(trial.task, "subsample"):
        return "none: whole samples"
    inputs, targets = _changed(trial, "subsample", lambda x, y, g: trial.task.subsample(x, y, g))
    with torch.no_grad():
        loss = trial.task.loss(trial.model(inputs), targets)
    require(len(loss) == len(inputs), f"the loss of {len(inputs)} subsampled samples has shape {tuple(loss.shape)}")
    return f"inputs {tuple(inputs.shape[1:])}, targets {tuple(targets.shape[1:])}"


def check_augment(trial: TaskTrial) -> str:
    """Changed copies of the same shape; the same generator gives the same copies."""
    if _inherited(trial.task, "augment"):
        return "none"
    inputs, targets = _changed(trial, "augment", lambda x, y, g: trial.task.augment(x, y, g))
    train = trial.splits.train.take(slice(ROWS))
    for what, new, old in (("inputs", inputs, train.inputs), ("targets", targets, train.targets)):
        require(
            new.shape == old.shape and new.dtype == old.dtype,
            f"augment turns {what} {_form(old)} into {_form(new)}: keep shape and dtype",
        )
    require(not same(inputs, train.inputs), "augment changes nothing: leave it out, or draw from the generator")
    return ""


def check_corrupt(trial: TaskTrial) -> str:
    """Every kind at severities 1 and 5, where it applies: same shape, the same for the same generator, not the identity."""
    kinds = list(trial.task.corruptions)
    if not kinds:
        return "none"
    require(not _inherited(trial.task, "corrupt"), "corruptions names kinds, but there is no corrupt(): define it")
    clean = trial.inputs
    for kind in kinds:
        for severity in (1, 5):
            what = f"corrupt({kind!r}, {severity})"
            try:
                first, again = (trial.task.corrupt(trial.inputs, kind, severity, generator()) for _ in range(2))
            except NotApplicable:
                continue
            require(
                first.shape == clean.shape and first.dtype == clean.dtype,
                f"{what} turns {_form(clean)} into {_form(first)}: keep shape and dtype",
            )
            require(same(first, again), f"{what} differs on the second call: draw from the generator only")
            require(not same(first, clean), f"{what} changes nothing")
            require(not first.is_floating_point() or bool(torch.isfinite(first).all()), f"{what} gives values not finite")
    return ", ".join(kinds)


def _form(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


def _rows(samples: Samples) -> list[bytes]:
    flat = samples.inputs.detach().contiguous().reshape(len(samples), -1)
    return [hashlib.sha256(row.numpy().tobytes()).digest() for row in flat]


def _inherited(task: Task, member: str) -> bool:
    return getattr(type(task), member) is getattr(Task, member)


def _changed(
    trial: TaskTrial,
    what: str,
    change: Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training samples after ``change``, which must be repeatable and must not write into its arguments."""
    train = trial.splits.train
    inputs, targets = train.inputs[:ROWS].clone(), train.targets[:ROWS].clone()
    results = [change(inputs, targets, generator()) for _ in range(2)]
    require(
        same(inputs, train.inputs[:ROWS]) and same(targets, train.targets[:ROWS]),
        f"{what} writes into its arguments: change a copy, the arguments are the dataset itself",
    )
    for result in results:
        require(isinstance(result, tuple) and len(result) == 2, f"{what} must return (inputs, targets)")
        require(
            len(result[0]) == len(result[1]) == len(inputs),
            f"{what} of {len(inputs)} samples gives {len(result[0])} inputs and {len(result[1])} targets: keep their number",
        )
    (first, first_targets), (again, again_targets) = results
    require(
        same(first, again) and same(first_targets, again_targets),
        f"{what} differs on a second call with the same generator: draw from that generator only",
    )
    return first, first_targets
