"""Every kind of ΔW gives the same results as its full matrix."""

from __future__ import annotations

import pytest
import torch

from ocd_bench.engine.forms import Full, RankOne, concatenate
from ocd_bench.engine.input_basis import LowRank

N, P, OUT, IN = 3, 5, 4, 6


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


KINDS = {
    "full": lambda: Full(draw(N, OUT, IN)),
    "rank-one": lambda: RankOne(draw(N, OUT), draw(N, IN)),
    "low-rank": lambda: LowRank(draw(N, OUT, 2), draw(N, IN, 2)),
}


@pytest.fixture(params=KINDS)
def delta(request):
    return KINDS[request.param]()


def test_shift_is_positions_times_the_transpose(delta):
    positions = draw(N, P, IN)
    torch.testing.assert_close(delta.shift(positions), torch.einsum("npi,noi->npo", positions, delta.matrix()))


def test_norm_and_shape_are_the_matrix_ones(delta):
    torch.testing.assert_close(delta.norm(), torch.linalg.matrix_norm(delta.matrix()))
    assert delta.matrix().shape == (N, *delta.shape) == (N, OUT, IN)
    assert len(delta) == N


def test_matrices_of_factors():
    one, low = KINDS["rank-one"](), KINDS["low-rank"]()
    torch.testing.assert_close(one.matrix(), torch.einsum("no,ni->noi", one.u, one.a))
    torch.testing.assert_close(low.matrix(), torch.einsum("nor,nir->noi", low.left, low.right))


def test_scaled_take_and_to(delta):
    scale = torch.tensor([2.0, 0.0, -1.0])
    torch.testing.assert_close(delta.scaled(scale).matrix(), delta.matrix() * scale.double()[:, None, None])
    torch.testing.assert_close(delta.scaled(torch.tensor(3.0)).matrix(), delta.matrix() * 3)
    for indices in (slice(1, None), [2, 0], torch.tensor([True, False, True])):
        assert torch.equal(delta.take(indices).matrix(), delta.matrix()[indices])
    half = delta.to(torch.float32)
    assert half.matrix().dtype == torch.float32
    assert type(half) is type(delta)
    assert delta.to("meta").device.type == "meta"


def test_detach_removes_the_gradient_history(delta):
    grown = delta.scaled(torch.ones(N, requires_grad=True))
    assert grown.matrix().requires_grad
    assert not grown.detach().matrix().requires_grad
    assert not grown.detach().norm().requires_grad


def test_concatenate_joins_batches(delta):
    joined = concatenate([delta.take(slice(0, 1)), delta.take(slice(1, None))])
    assert type(joined) is type(delta)
    assert torch.equal(joined.matrix(), delta.matrix())


def test_mismatched_deltas_are_refused():
    with pytest.raises(ValueError, match="cannot concatenate Full, RankOne"):
        concatenate([KINDS["rank-one"](), KINDS["full"]()])
    with pytest.raises(ValueError, match="no deltas"):
        concatenate([])
    with pytest.raises(ValueError, match=r"RankOne needs .* not u \(3, 4\), a \(2, 6\)"):
        RankOne(draw(3, 4), draw(2, 6))
    with pytest.raises(ValueError, match="Full needs"):
        Full(draw(3, 4))
