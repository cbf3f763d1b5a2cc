"""How long a base is trained: passes over the samples, or more where a set is small."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ocd_bench.config import BaseSettings
from ocd_bench.progress import Progress
from ocd_bench.runner.training import passes, train
from tests.toy import ToyClasses, request_for

HOW = BaseSettings(epochs=3, batch_size=20, least_steps=0)


class Counted(Progress):
    """Counts training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))


@pytest.mark.parametrize(
    ("samples", "least", "expected"),
    [(100, 0, 3), (100, 15, 3), (100, 16, 4), (5, 40, 40), (101, 40, 7), (10_000, 40, 3)],
)
def test_passes_are_added_until_there_are_enough_steps(samples: int, least: int, expected: int) -> None:
    assert passes(replace(HOW, least_steps=least), samples) == expected


def test_an_untrained_base_stays_untrained() -> None:
    assert passes(replace(HOW, epochs=0, least_steps=40), 100) == 0


def test_a_small_set_gets_the_steps() -> None:
    task = ToyClasses()
    request = request_for(task, 0)
    splits, counted = task.load_data(request), Counted()
    torch.manual_seed(0)
    model = task.base_model(splits, request)
    train(model, task, splits, request, replace(HOW, least_steps=21), torch.device("cpu"), counted)
    batches = -(-len(splits.train) // 20)
    assert counted.steps[-1] == (counted.steps[-1][1], counted.steps[-1][1])
    assert 21 <= counted.steps[-1][1] < 21 + batches
