"""Each task combines several draws to one output in its own way."""

from __future__ import annotations

import pytest
import torch

from ocd_bench.data.page import PLUGINS
from ocd_bench.plugin.manager import Manager, load_plugins


@pytest.fixture(scope="module")
def manager() -> Manager:
    return load_plugins(only=PLUGINS)


def draws(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["images", "nlp", "tabular"])
def test_probabilities_are_averaged_for_classes(manager: Manager, name: str) -> None:
    outputs = draws(5, 7, 3)
    one = manager.task(name).ensemble(outputs)
    torch.testing.assert_close(one.softmax(-1), outputs.softmax(-1).mean(0))
    assert not torch.allclose(one.softmax(-1), outputs.mean(0).softmax(-1), atol=1e-3)  # not the logits
    loss = manager.task(name).loss(one, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(loss, -outputs.softmax(-1).mean(0)[:, 0].log())


def test_values_are_averaged_for_regression(manager: Manager) -> None:
    outputs = draws(5, 7, 1)
    torch.testing.assert_close(manager.task("tabular").ensemble(outputs), outputs.mean(0))


def test_pixels_are_averaged_for_views(manager: Manager) -> None:
    outputs = draws(3, 2, 4, 5, 8).sigmoid()
    one = manager.task("recon3d").ensemble(outputs)
    torch.testing.assert_close(one[..., :3], outputs[..., :3].mean(0))
    truth = outputs[..., :7].mean(0)
    assert manager.task("recon3d").loss(one, truth).abs().max() < 1e-10


def test_waveforms_are_averaged_after_their_speakers_are_aligned(manager: Manager) -> None:
    task, truth = manager.task("speech"), draws(2, 3, 400)
    orders = ([0, 1, 2], [2, 0, 1], [1, 0, 2])
    outputs = torch.stack([truth[:, order] + 0.5 * draws(4, 2, 3, 400)[k] for k, order in enumerate(orders, 1)])
    one = task.ensemble(outputs)
    undone = torch.stack([output[:, torch.tensor(order).argsort()] for output, order in zip(outputs, orders, strict=True)])
    torch.testing.assert_close(one, undone.mean(0))  # the first draw's order is the truth's here
    assert (task.loss(one, truth) < task.loss(outputs.mean(0), truth) - 3).all()
