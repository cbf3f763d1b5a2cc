"""From a source to the three splits of a run.

Validation samples are a tenth of the training samples, at most 5,000 (MNIST: 55,000 + 5,000 + 10,000), chosen by a random
permutation that depends on the run's seed, unless the dataset has a validation part. ``train_samples`` then takes a random
subset of the remaining training samples, and limits validation to a quarter of that size. ``test_samples`` takes a random
subset of the test samples, the same for every seed. Subsets keep the stored order. If the stored order is by class, the test
samples are shuffled, in the same way for every seed, because batches of one class would spoil methods that use batch
statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ocd_bench import Request, Samples, Splits, UsageError
from ocd_bench.seeds import generator
from ocd_bench_images.sources import open_source
from ocd_bench_images.sources.pool import Pool, check_memory, to_tensor

if TYPE_CHECKING:
    from ocd_bench_images.settings import ImagesSettings

VALIDATION_SHARE = 10
VALIDATION_MOST = 5000


def load_splits(request: Request, settings: ImagesSettings) -> Splits:
    """Splits of ``request.dataset``; see the module's text for how they are drawn.

    Raises:
        DataMissing, UsageError: as :func:`ocd_bench_images.sources.open_source`.
    """
    source = open_source(request, settings.image_size)
    train, val = _hold_out(source.train, source.val, request, settings.train_samples)
    pools = {"train": source.train, "val": source.val or source.train, "test": source.test}
    chosen = {"train": train, "val": val, "test": _choose_test(source.test, request, settings.test_samples)}
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
    available = len(source.train) - (0 if source.val else _validation_size(len(source.train)))
    subsets = [_part_note(len(train), available, "training"), _part_note(len(chosen["test"]), len(source.test), "test")]
    base = f"base weights from {Path(settings.checkpoint).name}" if settings.checkpoint else ""
    return Splits(
        samples["train"],
        samples["val"],
        samples["test"],
        note=", ".join(filter(None, [source.note, *subsets, base])),
        extras={"classes": tuple(source.classes)},
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
    if wanted and wanted < len(rest):
        rest, held = rest[:wanted], held[: max(1, wanted // 4)]
    return np.sort(rest), np.sort(held)


def _choose_test(test: Pool, request: Request, wanted: int) -> np.ndarray:
    order = torch.randperm(len(test), generator=generator(request.task, request.dataset, "", 0, "test order")).numpy()
    chosen = order[:wanted] if wanted else order
    return chosen if test.by_class else np.sort(chosen)


def _decode(pool: Pool, indices: np.ndarray, image_size: int, dataset: str) -> torch.Tensor:
    if image_size:
        check_memory((len(indices), 1, image_size, image_size), f"dataset {dataset!r}")
    return to_tensor(pool.read(indices), image_size)


def _is_grey(pictures: torch.Tensor) -> bool:
    return all(torch.equal(pictures[:, 0], pictures[:, channel]) for channel in range(1, pictures.shape[1]))


def _part_note(taken: int, available: int, what: str) -> str:
    return f"{taken:,} of {available:,} {what} samples" if taken < available else ""
