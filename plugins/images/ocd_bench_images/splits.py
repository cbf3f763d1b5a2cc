"""From a source to the three splits of a run.

Validation samples are a tenth of the training samples, at most 5,000 (MNIST: 55,000 + 5,000 + 10,000), chosen by a random
permutation that depends on the run's seed, unless the dataset has a validation part. ``train_samples`` then takes a random
subset of the remaining training samples, and limits validation to a quarter of that size. ``test_samples`` takes a random
subset of the test samples, the same for every seed. Subsets keep the stored order. If the stored order is by class, the test
samples are shuffled, in the same way for every seed, because batches of one class would spoil methods that use batch
statistics.

If weights were trained on all training pictures and chosen on the test set (:attr:`.models.weights.Weights.saw_training`), only
test pictures can be used for validation. A fifth of the test set (CIFAR-10: 2,000 of 10,000), drawn once by the names of the
pictures, is then the validation set, and the rest is the test set.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ocd_bench import Request, Samples, Splits, UsageError
from ocd_bench.seeds import generator
from ocd_bench_images.models.weights import find_weights
from ocd_bench_images.sources import open_source
from ocd_bench_images.sources.pool import Pool, Source, check_memory, to_tensor

if TYPE_CHECKING:
    from ocd_bench_images.settings import ImagesSettings

VALIDATION_SHARE = 10
VALIDATION_MOST = 5000
HELD_SHARE = 5
"""One of so many test pictures is set aside for validation where the weights leave no others."""
TEST_SHARE = 5
"""One picture of so many of each class is test, where a dataset has no test part."""


def load_splits(request: Request, settings: ImagesSettings) -> Splits:
    """Splits of ``request.dataset``; see the module's text for how they are drawn.

    Raises:
        DataMissing, UsageError: as :func:`ocd_bench_images.sources.open_source`.
    """
    source = open_source(request, settings.image_size, settings.background)
    if source.test is None:
        source = _set_test_aside(source, request)
    assert source.test is not None
    weights = find_weights(request, settings)
    pools = {"train": source.train, "val": source.val or source.train, "test": source.test}
    test = np.arange(len(source.test))
    notes = [source.note]
    if weights and weights.saw_training:
        home = source.home_test or source.test
        held, rest = _by_name(home)
        pools["val"] = home
        if source.home_test is None:
            test = rest
        train, val = _subset(np.arange(len(source.train)), held, request, settings.train_samples)
        available = len(source.train)
        rest_of_it = "the others" if source.home_test is None else "those of another set"
        notes.append(
            f"weights trained on all training pictures and chosen on the test set: {len(held):,} of its {len(home):,} "
            f"pictures, drawn once by name, are for validation, {rest_of_it} for the test"
        )
    else:
        train, val = _hold_out(source.train, source.val, request, settings.train_samples)
        available = len(source.train) - (0 if source.val else _validation_size(len(source.train)))
    if settings.report_on == "validation":
        pools["test"], test = pools["val"], val
        notes.append("measured on the validation samples")
    chosen = {"train": train, "val": val, "test": _choose_test(pools["test"], test, request, settings.test_samples)}
    tensors = {part: _decode(pools[part], chosen[part], settings.image_size, request.dataset) for part in pools}
    shapes = {part: tuple(tensor.shape[1:]) for part, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{part} {shape[2]} x {shape[1]}" for part, shape in shapes.items())
        raise UsageError(f"dataset {request.dataset!r}: pictures of differing sizes ({sizes}); give --set images.image_size=N")
    if not source.all_colour and all(_is_grey(tensor) for tensor in tensors.values()):
        tensors = {part: tensor[:, :1].contiguous() for part, tensor in tensors.items()}
    samples = {  # pictures of no known origin in common (a writer, a camera): each is independent of the others
        part: Samples(tensors[part], torch.from_numpy(pools[part].labels[chosen[part]]), range(len(chosen[part])))
        for part in pools
    }
    notes += [_part_note(len(train), available, "training"), _part_note(len(chosen["test"]), len(test), "test")]
    notes.append(weights.note() if weights else "")
    names = pools["test"].names
    return Splits(
        samples["train"],
        samples["val"],
        samples["test"],
        note=", ".join(filter(None, notes)),
        extras={
            "classes": tuple(source.classes),
            "test_rows": chosen["test"],
            "test_size": len(pools["test"]),
            "test_names": tuple(names[row] for row in chosen["test"]) if names else (),
        },
    )


def _by_name(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a fifth of the pool, those whose names (row numbers where there are none) have the smallest SHA-256, and of
    the rest; both ascending."""
    names = pool.names or range(len(pool))
    digests = [hashlib.sha256(f"validation|{name}".encode()).digest() for name in names]
    order = np.array(sorted(range(len(pool)), key=lambda row: digests[row]))
    size = max(1, len(pool) // HELD_SHARE)
    return np.sort(order[:size]), np.sort(order[size:])


def _set_test_aside(source: Source, request: Request) -> Source:
    """A fifth of every class as test, the same for every seed, where the dataset has no parts."""
    labels, draw = source.train.labels, generator(request.task, request.dataset, "", 0, "test part")
    aside = np.zeros(len(labels), bool)
    for label in range(len(source.classes)):
        (members,) = np.nonzero(labels == label)
        order = torch.randperm(len(members), generator=draw).numpy()
        aside[members[order[: len(members) // TEST_SHARE]]] = True
    if not aside.any():
        raise UsageError(
            f"dataset {request.dataset!r}: no class has the {TEST_SHARE} pictures that setting a test part aside takes; add a "
            "test part"
        )
    note = f"no test part: a fixed draw of {aside.sum():,} pictures, one of {TEST_SHARE} of each class, is test"
    return replace(
        source,
        train=source.train.take(np.nonzero(~aside)[0]),
        test=source.train.take(np.nonzero(aside)[0]),
        note=", ".join(filter(None, [source.note, note])),
    )


def _validation_size(count: int) -> int:
    return min(VALIDATION_MOST, max(1, count // VALIDATION_SHARE))


def _hold_out(train: Pool, val: Pool | None, request: Request, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training samples (into ``train``) and of validation samples (into ``val``, or ``train`` if None)."""
    if len(train) < 2:
        raise UsageError(f"dataset {request.dataset!r}: {len(train)} training picture is too few to hold out validation from")
    order = torch.randperm(len(train), generator=request.generator("validation")).numpy()
    if val is None:
        size = _validation_size(len(train))
        rest, held = order[size:], order[:size]
    else:
        rest, held = order, torch.randperm(len(val), generator=request.generator("validation subset")).numpy()
    return _cut(rest, held, wanted)


def _subset(train: np.ndarray, held: np.ndarray, request: Request, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Both in a random order of the run's seed, cut as ``train_samples`` says."""
    order = torch.randperm(len(train), generator=request.generator("validation")).numpy()
    held_order = torch.randperm(len(held), generator=request.generator("validation subset")).numpy()
    return _cut(train[order], held[held_order], wanted)


def _cut(rest: np.ndarray, held: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    if wanted and wanted < len(rest):
        rest, held = rest[:wanted], held[: max(1, wanted // 4)]
    return np.sort(rest), np.sort(held)


def _choose_test(test: Pool, rows: np.ndarray, request: Request, wanted: int) -> np.ndarray:
    """Indices into ``test``, ``wanted`` (0: all) of those in ``rows``."""
    order = torch.randperm(len(rows), generator=generator(request.task, request.dataset, "", 0, "test order")).numpy()
    chosen = rows[order[:wanted] if wanted else order]
    return chosen if test.by_class else np.sort(chosen)


def _decode(pool: Pool, indices: np.ndarray, image_size: int, dataset: str) -> torch.Tensor:
    if image_size:
        check_memory((len(indices), 1, image_size, image_size), f"dataset {dataset!r}")
    return to_tensor(pool.read(indices), image_size)


def _is_grey(pictures: torch.Tensor) -> bool:
    return all(torch.equal(pictures[:, 0], pictures[:, channel]) for channel in range(1, pictures.shape[1]))


def _part_note(taken: int, available: int, what: str) -> str:
    return f"{taken:,} of {available:,} {what} samples" if taken < available else ""
