"""Checks of the contract of :class:`ocd_bench.Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ocd_bench.config import PRESETS, resolve
from ocd_bench.metrics import KNOWN
from ocd_bench.plugin.requires import missing
from ocd_bench.plugin.validate import task_problem
from ocd_bench.task import Dataset, Task
from ocd_bench.testing.data_checks import (
    check_augment,
    check_corrupt,
    check_groups,
    check_load_data,
    check_no_shared_samples,
    check_same_data_again,
    check_subsample,
)
from ocd_bench.testing.model_checks import (
    check_base_model,
    check_encoders,
    check_layer,
    check_output,
    check_samplewise,
    check_state_dict,
    check_training,
)
from ocd_bench.testing.result import Check, CheckResult, Doubt, Fault, require, run_checks
from ocd_bench.testing.trial import TaskTrial, close


def check_task(
    task: Task,
    *,
    dataset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_dirs: Sequence[Path] = (),
    seed: int = 0,
) -> list[CheckResult]:
    """Run every check of a task under the preset ``quick``. No model is trained to the end.

    Args:
        task: an instance.
        dataset: default: the task's first.
        overrides: settings by dotted key, as for ``--set``.
        data_dirs: where datasets are looked for; default: ``$OCD_BENCH_DATA`` and the cache folder, as in a run.
        seed: of the request.

    .. versionadded:: 0.1
    """
    return run_checks(TASK_CHECKS, TaskTrial(task, dataset, overrides, data_dirs, seed))


# -- declaration ----------------------------------------------------------------------------------------------------------
def check_declaration(trial: TaskTrial) -> str:
    """Name, metrics, settings, presets and datasets are declared as they must be."""
    task = trial.task
    problem = task_problem(task)
    require(problem is None, str(problem))
    for preset in PRESETS:
        resolve(task, [], preset)
    datasets = task.datasets()
    require(bool(datasets), "datasets() is empty: name at least one, the default first")
    for item in datasets:
        require(isinstance(item, Dataset), f"datasets() holds a {type(item).__name__}: make it an ocd_bench.Dataset")
        require(
            bool(item.name) and not set(item.name) & set("/\\+@, "),
            f"dataset {item.name!r}: its name is a folder and part of file names; leave out / \\ + @ , and spaces",
        )
    names = [item.name for item in datasets]
    require(len(set(names)) == len(names), f"datasets() names one twice: {', '.join(names)}")
    if not datasets[0].embedded:
        if trial.missing_data and trial.request.dataset == names[0]:
            raise Fault(
                f"the default dataset {names[0]!r} is neither embedded nor found: give --data-dir or set "
                "$OCD_BENCH_DATA, or put one first that comes with the plugin"
            )
        raise Doubt(f"the default dataset {names[0]!r} is not embedded: the task runs only where these data are")
    return f"{task.name}: {', '.join(names)}"


def check_requires(trial: TaskTrial) -> str:
    """The modules that the task requires can be imported."""
    reason = missing(trial.task.requires)
    require(reason is None, str(reason))
    return ", ".join(trial.task.requires) or "nothing beside the core"


# -- functions of an output: loss, metrics, ... -----------------------------------------------------------------------------
def check_loss(trial: TaskTrial) -> str:
    """Per-sample, finite, differentiable, and independent of the other samples of the batch."""
    output = trial.output.clone().requires_grad_()
    targets = trial.targets
    loss = trial.task.loss(output, targets)
    _per_sample("loss", loss, len(targets), "use reduction='none' and average over all but the first dimension")
    require(loss.requires_grad, "loss carries no gradient: compute it from the output without detach, numpy or argmax")
    (slope,) = torch.autograd.grad(loss[:1].sum(), output, retain_graph=True)
    require(bool(torch.isfinite(slope).all()), "the gradient of loss by the output is not finite")
    require(bool((slope[0] != 0).any()), "the loss of sample 0 does not depend on its own output")
    require(
        not (slope[1:] != 0).any(),
        "the loss of sample 0 depends on the outputs of other samples: no mean or normalisation over the batch",
    )
    _of_its_own_rows("loss", lambda o, t: trial.task.loss(o, t), trial)
    return f"mean {loss.mean().item():.4g}"


def check_metrics(trial: TaskTrial) -> str:
    """Per-sample, finite, declared, with the primary metric, and independent of the other samples of the batch."""
    task, targets = trial.task, trial.targets
    with torch.no_grad():
        scores = task.metrics(trial.output, targets)
    require(isinstance(scores, Mapping) and bool(scores), "metrics() must return {name: (N,) tensor}")
    for name, score in scores.items():
        _per_sample(f"metric {name!r}", score, len(targets), "return one number per sample, not their mean")
        info = task.metric_info.get(name) or KNOWN.get(name)
        require(info is not None, f"metric {name!r} is not a common one: declare it in metric_info (unit, direction)")
        if info is not None and info.reduce == "matthews":
            require(
                bool(torch.isin(score.double(), torch.arange(4.0).double()).all()),
                f"metric {name!r}: a score for 'matthews' is 2 * target + prediction, one of 0, 1, 2, 3",
            )
        if info is not None and info.reduce == "root_mean":
            require(bool((score >= 0).all()), f"metric {name!r}: a score for 'root_mean' is a squared error, not negative")
        _of_its_own_rows(f"metric {name!r}", lambda o, t, name=name: task.metrics(o, t)[name], trial)  # type: ignore[misc]
    wanted = [task.primary_metric] if isinstance(task.primary_metric, str) else list(task.primary_metric)
    require(
        any(name in scores for name in wanted),
        f"metrics() reports {', '.join(scores)}, not the primary_metric {' or '.join(wanted)}",
    )
    return ", ".join(scores)


def check_logits(trial: TaskTrial) -> str:
    """Class logits ``(N, K)``, K >= 2, or None."""
    logits = trial.task.logits(trial.output)
    if logits is None:
        return "none: no class posterior, so Tent and its kind do not apply"
    shape = tuple(logits.shape)
    require(
        len(shape) == 2 and shape[0] == len(trial.output) and shape[1] >= 2,
        f"logits() gives {shape} for {len(trial.output)} samples: return (N, K) with K >= 2, or None",
    )
    require(bool(torch.isfinite(logits).all()), "logits() are not finite")
    return f"{shape[1]} classes"


def check_test_time_loss(trial: TaskTrial) -> str:
    """An unsupervised loss ``(N,)`` that has a gradient, or None."""
    output = trial.output.clone().requires_grad_()
    loss = trial.task.test_time_loss(output, trial.inputs)
    if loss is None:
        return "none"
    _per_sample("test_time_loss", loss, len(output), "return one number per sample")
    require(loss.requires_grad, "test_time_loss carries no gradient: compute it from the output without detach or numpy")
    return f"mean {loss.mean().item():.4g}"


def check_ensemble(trial: TaskTrial) -> str:
    """An ensemble of equal outputs has the scores of that output."""
    output = trial.output
    joined = trial.task.ensemble(torch.stack([output] * 3))
    require(
        joined.shape == output.shape,
        f"ensemble() of three outputs {tuple(output.shape)} gives {tuple(joined.shape)}: return one output of that shape",
    )
    with torch.no_grad():
        before, after = (trial.task.metrics(o, trial.targets) for o in (output, joined))
    for name in before:
        require(
            close(before[name], after[name]),
            f"ensemble() of equal outputs changes metric {name!r}: average what metrics() reads, in the form that it reads",
        )
    return ""


def _per_sample(what: str, value: Any, count: int, hint: str) -> None:
    require(isinstance(value, torch.Tensor), f"{what} is a {type(value).__name__}: return a tensor ({count},)")
    shape = tuple(value.shape)
    require(shape == (count,), f"{what} has shape {shape} for {count} samples, expected ({count},): {hint}")
    require(not value.is_complex(), f"{what} is complex: return real numbers")
    bad = int((~torch.isfinite(value.double())).sum())
    require(bad == 0, f"{what} is not finite for {bad} of {count} samples: bound it (eps in logarithms and divisions)")


def _of_its_own_rows(what: str, function: Any, trial: TaskTrial) -> None:
    """The value of a sample must not change in another batch."""
    output, targets = trial.output, trial.targets
    if len(targets) < 2:
        return
    with torch.no_grad():
        whole, part = function(output, targets), function(output[1:2], targets[1:2])
    require(
        close(whole[1:2], part), f"{what} of a sample changes with the other samples of its batch: compute it from its own row"
    )


TASK_CHECKS: Mapping[str, Check] = {
    "declaration": check_declaration,
    "requires": check_requires,
    "load_data": check_load_data,
    "same-data-again": check_same_data_again,
    "no-shared-samples": check_no_shared_samples,
    "groups": check_groups,
    "base_model": check_base_model,
    "output": check_output,
    "sample-wise": check_samplewise,
    "state_dict": check_state_dict,
    "loss": check_loss,
    "metrics": check_metrics,
    "training": check_training,
    "layer": check_layer,
    "logits": check_logits,
    "test_time_loss": check_test_time_loss,
    "ensemble": check_ensemble,
    "subsample": check_subsample,
    "augment": check_augment,
    "corrupt": check_corrupt,
    "encoders": check_encoders,
}
"""Every check of a task, in the order in which they build on each other."""
