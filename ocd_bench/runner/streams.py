"""The order in which test samples come: independent draws, sorted or skewed by class, corruptions mixed, or one after another.

An order is the scenario, not information to a method: labels of test samples decide it and are not passed on. Every method of a
(task, dataset, seed) gets the same order. Scores are stored in the order of the data, so that samples can be paired.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocd_bench.errors import UsageError
from ocd_bench.runner.cells import Variant

if TYPE_CHECKING:
    import torch

    from ocd_bench.samples import Samples
    from ocd_bench.task import Request

IID = "iid"
JOINT = ("mixed", "continual")
"""Streams that all corruptions of a run share, without a reset between them."""
KINDS = (IID, "sorted", "dirichlet:A", *JOINT)


def with_streams(variants: tuple[Variant, ...], text: str | None) -> tuple[Variant, ...]:
    """Each test variant in each of the streams of ``text``, such as ``"iid,sorted,dirichlet:0.1"``.

    Raises:
        UsageError: for another stream, or for one of several corruptions where there is one test set only.
    """
    streams = [_parsed(part.strip()) for part in (IID if text is None else text).split(",")]
    for stream in streams:
        if stream in JOINT and len(variants) < 2:
            raise UsageError(f"--stream {stream}: needs two corruptions or more, for example --corruption none,all:5")
    return tuple(
        Variant(variant.kind, variant.severity, "" if stream == IID else stream)
        for stream in dict.fromkeys(streams)
        for variant in variants
    )


def _parsed(text: str) -> str:
    kind, colon, number = text.partition(":")
    if text in (IID, "sorted", *JOINT):
        return text
    if not text:
        raise UsageError(f"--stream: an empty name; streams: {', '.join(KINDS)}")
    if kind != "dirichlet":
        near = difflib.get_close_matches(kind, [name.partition(":")[0] for name in KINDS], n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"--stream {text}: unknown{meant}; streams: {', '.join(KINDS)}")
    try:
        value = float(number) if colon else math.nan
    except ValueError:
        value = math.nan
    if not 1e-3 <= value <= 1e6:
        raise UsageError(f"--stream {text}: give a number A from 0.001 to 1,000,000, for example dirichlet:0.1")
    return f"dirichlet:{value:g}"


@dataclass(frozen=True)
class Course:
    """Test variants that a method sees one after another, or mixed, without a reset.

    Attributes:
        order: which sample comes when: the number of the variant, and the sample's index in it, ``(M, 2)``. None: the only
            variant's samples in the order of the data.
        problem: why there is no such order; empty if there is.
    """

    variants: tuple[Variant, ...]
    order: torch.Tensor | None = None
    problem: str = ""


def courses(variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """The variants of each course, in the order of ``variants``."""
    found: dict[object, list[Variant]] = {}
    for variant in variants:
        found.setdefault(variant.stream if variant.stream in JOINT else variant, []).append(variant)
    return [tuple(members) for members in found.values()]


def course_of(variants: tuple[Variant, ...], tests: Mapping[Variant, Samples], request: Request, batch_size: int) -> Course:
    """The course of variants that are measured together.

    Args:
        tests: test samples by variant.
        request: its seed fixes the random streams.
        batch_size: samples per test batch; ``dirichlet`` draws class proportions for each.
    """
    import torch

    stream, sizes = variants[0].stream, [len(tests[variant]) for variant in variants]
    if not stream:
        return Course(variants)
    every = [torch.stack([torch.full((size,), number), torch.arange(size)], 1) for number, size in enumerate(sizes)]
    if stream == "continual":
        return Course(variants, torch.cat(every))
    draw = request.generator(f"stream {stream}")
    if stream == "mixed":
        return Course(variants, torch.cat(every)[torch.randperm(sum(sizes), generator=draw)])
    labels = tests[variants[0]].targets
    if labels.ndim != 1 or labels.is_floating_point():
        return Course(variants, problem=f"no stream {stream}: the targets of task {request.task!r} are no classes")
    if stream == "sorted":
        places = labels.argsort(stable=True)
    else:
        places = skewed(labels, float(stream.partition(":")[2]), batch_size, draw)
    return Course(variants, every[0][places])


def skewed(labels: torch.Tensor, alpha: float, batch_size: int, generator: torch.Generator) -> torch.Tensor:
    """An order ``(N,)`` of samples in which the proportions of classes change from batch to batch.

    Each batch draws its proportions from a symmetric Dirichlet distribution, and then its samples without replacement. A class
    that is used up is left out, so the last batches hold what is left. Such label shift is used by Boudiaf et al. (CVPR 2022),
    Gong et al. (NeurIPS 2022) and Zhao et al. (ICML 2023).

    Args:
        labels: classes ``(N,)``.
        alpha: concentration. Towards 0 a batch has one class; a large value gives equal proportions.
        batch_size: samples of a batch.
        generator: its seed fixes the order.
    """
    import numpy as np
    import torch

    random = np.random.default_rng(generator.initial_seed())
    values = labels.cpu().numpy()
    left = [list(random.permutation(np.flatnonzero(values == label))) for label in np.unique(values)]
    order: list[int] = []
    while len(order) < len(values):
        share = random.dirichlet(np.full(len(left), alpha))
        for _ in range(min(batch_size, len(values) - len(order))):
            there = np.array([bool(samples) for samples in left])
            weights = np.where(there, share + 1e-12, 0.0)
            order.append(left[random.choice(len(left), p=weights / weights.sum())].pop())
    return torch.tensor(order)
