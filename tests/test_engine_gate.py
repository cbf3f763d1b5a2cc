"""The out-of-distribution gate: against scipy's Mahalanobis distance, and which samples pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from ocd_bench.engine.controls.gate import Gate, gate_of
from tests.toy_engine import data, problem


def signatures(count: int, seed: int = 0) -> torch.Tensor:
    mixed = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return mixed @ torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2.0]]) + 7


def test_the_distance_is_the_mahalanobis_distance():
    train, some = signatures(300), signatures(20, seed=1)
    gate = Gate(train, some, 1.0)
    inverse = np.linalg.inv(np.cov(train.double().numpy().T))
    expected = [mahalanobis(row, train.double().mean(0).numpy(), inverse) for row in some.double().numpy()]
    np.testing.assert_allclose(gate.distance(some).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_the_share_of_validation_samples_passes(share):
    val = signatures(200, seed=1)
    gate = Gate(signatures(300), val, share)
    assert float(gate(val).mean()) == pytest.approx(share, abs=0.01)
    far = val + torch.tensor([0.0, 5.0, 0.0, 0.0])  # within the range of each number, but not of their combination
    assert not gate(far).any()
    assert not gate(torch.full((1, 4), torch.nan)).any()


def test_a_feature_that_was_constant_closes_the_gate_when_it_changes():
    train = torch.cat([signatures(300), torch.zeros(300, 1)], 1)
    gate = Gate(train, train, 1.0)
    assert gate(train[:5]).all()
    assert not gate(train[:5] + torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])).any()


def test_without_signatures_or_share_there_is_no_gate():
    with_signature = problem(signature=lambda inputs: inputs)
    assert gate_of(problem(), 0.99) is None
    assert gate_of(with_signature, 0.0) is None
    x = torch.cat([data(5)[0], 50 + data(5)[0]])
    assert gate_of(with_signature, 1.0)(x).tolist() == [1.0] * 5 + [0.0] * 5
