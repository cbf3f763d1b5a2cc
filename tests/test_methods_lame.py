"""LAME against loops in numpy over samples and classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocd_bench.errors import UsageError
from ocd_bench.methods.lame import Lame, LameSettings, affinity, laplacian_adjusted
from tests.toy import ToyClasses, held_out, make_context


def test_affinity_of_four_directions_by_hand():
    """Angles 0, 10, 25 and 90 degrees: nearest neighbours are 1, 0, 1, 2; only 0 and 1 choose each other."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 90.0], dtype=torch.float64))
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [0.1], [2.0]])
    expected = torch.tensor([[0, 1, 0, 0], [1, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0]], dtype=torch.float64)
    assert torch.equal(affinity(features, 1), expected)
    full = affinity(features, 9)
    assert torch.equal(full, 1 - torch.eye(4, dtype=torch.float64))
    assert torch.equal(affinity(features[:1], 5), torch.zeros(1, 1, dtype=torch.float64))


def test_one_update_by_hand():
    q = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    w = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    expected = np.empty_like(q)
    for i in range(3):
        for k in range(2):
            expected[i, k] = q[i, k] * np.exp(sum(w[i, j] * q[j, k] for j in range(3)))
        expected[i] /= expected[i].sum()
    found = laplacian_adjusted(torch.tensor(q).log(), torch.tensor(w), 1).exp()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_iterations_end_at_a_fixed_point_of_lower_energy():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 4, generator=random, dtype=torch.float64)
    features = torch.randn(20, 3, generator=random, dtype=torch.float64)
    w = affinity(features, 3)
    log_q = logits.log_softmax(1)

    def energy(log_z: torch.Tensor) -> float:
        z = log_z.exp()
        return float((z * (log_z - log_q)).sum() - 0.5 * (w * (z @ z.T)).sum())

    log_z = laplacian_adjusted(logits, w, 500)
    torch.testing.assert_close(log_z, (log_q + w @ log_z.exp()).log_softmax(1), rtol=0, atol=1e-5)
    assert energy(log_z) < energy(log_q)


def test_the_method_joins_the_models_features_and_probabilities():
    context = make_context(ToyClasses(), settings={"lame": LameSettings(neighbours=3)}, dtype=torch.float64)
    inputs = held_out(context.task).inputs.double()
    features = context.base[:-1](inputs)
    expected = laplacian_adjusted(context.base(inputs), affinity(features, 3), 100)
    assert torch.equal(Lame().fit(context)(inputs), expected)


def test_a_single_sample_keeps_its_own_prediction():
    context = make_context(ToyClasses())
    sample = held_out(context.task).inputs[:1]
    torch.testing.assert_close(Lame().fit(context)(sample), context.base(sample).log_softmax(1))


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match="neighbours"):
        LameSettings(neighbours=0)
