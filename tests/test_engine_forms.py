"""Forms: encoding of ΔW, decoding, and the choice of a form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.choose_form import choose_form
from ocd_bench.engine.forms import BasisForm, Full, FullForm, LearnedBasisForm, RankOne, RankOneForm
from ocd_bench.engine.input_basis import InputBasisForm, LowRank
from ocd_bench.engine.overfit import Overfit, overfit

N = 6


def loss(output, target):
    return (output - target).square().flatten(1).mean(1)


class Rays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.top = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.top(torch.tanh(self.low(x)))


def setting(positions: int | None):
    torch.manual_seed(2)
    model = Rays().double()
    shape = (N, 4) if positions is None else (N, positions, 4)
    layer = TargetLayer(model, "low")
    trace = layer.trace(torch.randn(*shape).double())
    return layer, trace, torch.randn(*shape[:-1], 2).double()


def full_delta(seed: int = 0) -> Full:
    return Full(torch.randn(N, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def forms(layer):
    return [
        FullForm(layer.shape),
        BasisForm.fit(full_delta(1), 3),
        InputBasisForm(layer.shape, 2),
    ]


def every(check):
    layer, trace, _ = setting(9)
    for form in forms(layer):
        check(form, trace)
    layer, trace, _ = setting(None)
    for form in (RankOneForm(layer.shape), InputBasisForm(layer.shape, 1), FullForm(layer.shape)):
        check(form, trace)


def test_codes_are_orthogonal_projections_of_the_delta():
    def check(form, trace):
        delta = full_delta()
        code = form.encode(delta, trace)
        assert code.shape == (N, form.size)
        rounded = form.decode(code, trace)
        torch.testing.assert_close(form.encode(rounded, trace), code)  # a projection ...
        rest = delta.matrix() - rounded.matrix()
        torch.testing.assert_close((rest * rounded.matrix()).sum((1, 2)), torch.zeros(N).double())  # ... and orthogonal
        share = rounded.norm().square() / delta.norm().square()
        torch.testing.assert_close(form.energy(delta, trace), share)
        torch.testing.assert_close(form.energy(rounded, trace), torch.ones(N).double())

    every(check)


def test_a_scaled_delta_has_the_scaled_code():
    def check(form, trace):
        scale = torch.linspace(-1, 2, N).double()
        scaled = form.encode(full_delta().scaled(scale), trace)
        torch.testing.assert_close(scaled, form.encode(full_delta(), trace) * scale[:, None])

    every(check)


def test_energy_of_no_change_is_one():
    def check(form, trace):
        nothing = Full(torch.zeros(N, 5, 4).double())
        assert torch.equal(form.energy(nothing, trace), torch.ones(N).double())
        assert not form.encode(nothing, trace).any()

    every(check)


def test_decode_carries_gradients():
    def check(form, trace):
        code = torch.randn(N, form.size).double().requires_grad_()
        form.decode(code, trace).shift(trace.positions).square().sum().backward()
        assert bool(code.grad.any())

    every(check)


def test_full_form_is_exact():
    layer, trace, _ = setting(9)
    form = FullForm(layer.shape)
    assert form.size == 20
    assert torch.equal(form.decode(form.encode(full_delta(), trace), trace).matrix(), full_delta().matrix())


def test_rank_one_form_keeps_the_effect_on_the_sample_itself():
    layer, trace, _ = setting(None)
    form = RankOneForm(layer.shape)
    rounded = form.decode(form.encode(full_delta(), trace), trace)
    assert isinstance(rounded, RankOne)
    torch.testing.assert_close(rounded.shift(trace.positions), full_delta().shift(trace.positions))
    r = torch.randn(N, 5).double()  # a code is the change of the layer's response
    torch.testing.assert_close(form.decode(r, trace).shift(trace.positions)[:, 0], r)
    torch.testing.assert_close(form.encode(form.decode(r, trace), trace), r)


def test_rank_one_form_where_the_input_is_zero():
    layer = TargetLayer(nn.Sequential(nn.Linear(3, 2)), "0")
    trace = layer.trace(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    form = RankOneForm(layer.shape)
    assert torch.equal(form.encode(Full(torch.ones(2, 2, 3)), trace), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    changed = form.decode(torch.ones(2, 2, requires_grad=True), trace).matrix()
    assert torch.equal(changed, torch.tensor([[[0.0, 0.0, 0.0]] * 2, [[1.0, 0.0, 0.0]] * 2]))


def test_rank_one_form_needs_one_position():
    layer, trace, _ = setting(9)
    form = RankOneForm(layer.shape)
    assert "9 positions" in form.refusal(trace)
    for call in (lambda: form.encode(full_delta(), trace), lambda: form.decode(torch.zeros(N, 5), trace)):
        with pytest.raises(ValueError, match=r"rank-one \(5\) form: the layer sees 9 positions"):
            call()


def test_basis_form_finds_the_principal_directions():
    _, trace, _ = setting(9)
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(20, 2, generator=generator, dtype=torch.float64))[0].T
    delta = Full((torch.randn(N, 2, generator=generator, dtype=torch.float64) @ plane).reshape(N, 5, 4))
    form = BasisForm.fit(delta, 2)
    torch.testing.assert_close(form.energy(delta, trace), torch.ones(N).double())
    # the share of energy is that of the singular values
    noisy = full_delta(3)
    spectrum = torch.linalg.svdvals(noisy.matrix().flatten(1)).square()
    kept = BasisForm.fit(noisy, 3).encode(noisy, trace).square().sum()
    torch.testing.assert_close(kept, spectrum[:3].sum())
    rows = form.basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(2).double())


def test_basis_form_of_few_numbers_or_few_directions():
    # more deltas than numbers: the other Gram matrix
    many = Full(torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    expected = torch.linalg.svd(many.matrix().flatten(1), full_matrices=False).Vh[:4]
    found = BasisForm.fit(many, 4).basis.flatten(1)
    torch.testing.assert_close((found * expected).sum(1).abs(), torch.ones(4).double())
    # one direction only, three asked for: still orthonormal, and the one is there
    line = Full(torch.linspace(-1, 1, N).double()[:, None, None] * full_delta().matrix()[:1])
    form = BasisForm.fit(line, 3)
    rows = form.basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3).double())
    torch.testing.assert_close(form.energy(line, setting(9)[1]), torch.ones(N).double())


def test_basis_form_does_not_depend_on_the_sign_of_the_svd():
    first, second = BasisForm.fit(full_delta(), 3), BasisForm.fit(full_delta().scaled(-torch.ones(N)), 3)
    torch.testing.assert_close(first.basis, second.basis)
    largest = first.basis.flatten(1).abs().argmax(1, keepdim=True)
    assert bool((first.basis.flatten(1).gather(1, largest) > 0).all())


def test_basis_form_is_stored_in_its_state():
    form = BasisForm.fit(full_delta(), 3)
    other = BasisForm(form.shape, form.size).double()
    other.load_state_dict(form.state_dict())
    assert torch.equal(other.basis, form.basis)
    assert not any(parameter.requires_grad for parameter in form.parameters())


def test_basis_form_needs_enough_weight_changes():
    with pytest.raises(ValueError, match="7 components of 6 weight changes"):
        BasisForm.fit(full_delta(), 7)
    with pytest.raises(ValueError, match="cannot stand for"):
        BasisForm((2, 2), 5)


@pytest.mark.parametrize("positions", [3, 9])
def test_input_basis_spans_every_gradient(positions):
    layer, trace, targets = setting(positions)
    form = InputBasisForm(layer.shape, min(positions, 4))
    delta = overfit(layer, trace, targets, loss, Overfit("sgd", 0.1, 3))
    torch.testing.assert_close(form.energy(delta, trace), torch.ones(N).double())
    assert isinstance(form.decode(form.encode(delta, trace), trace), LowRank)


def test_a_learned_basis_starts_at_the_principal_one_and_training_changes_only_decode():
    layer, trace, _ = setting(9)
    fixed, learned = BasisForm.fit(full_delta(7), 3), LearnedBasisForm.fit(full_delta(7), 3)
    code = learned.encode(full_delta(), trace)
    assert torch.equal(code, fixed.encode(full_delta(), trace))
    assert torch.equal(learned.decode(code, trace).matrix(), fixed.decode(code, trace).matrix())
    assert [name for name, _ in learned.named_parameters()] == ["directions"]
    with torch.no_grad():
        learned.directions.mul_(2)
    assert torch.equal(learned.encode(full_delta(), trace), code)
    torch.testing.assert_close(learned.decode(code, trace).matrix(), 2 * fixed.decode(code, trace).matrix())
    assert learned.describe() == "learned basis (3)"
    assert learned.shape == layer.shape


@pytest.mark.parametrize("positions", [3, 9])
def test_input_basis_is_the_svd_of_the_positions(positions):
    layer, trace, _ = setting(positions)
    form = InputBasisForm(layer.shape, 2)
    right = form.decode(torch.zeros(N, form.size).double(), trace).right
    expected = torch.linalg.svd(trace.positions, full_matrices=False).Vh[:, :2].mT
    torch.testing.assert_close((right * expected).sum(1).abs(), torch.ones(N, 2).double())
    assert bool((right.gather(1, right.abs().argmax(1, keepdim=True)) > 0).all())
    # the same sample, in another batch, has the same vectors
    alone = layer.trace(trace.inputs[3:4])
    torch.testing.assert_close(form.decode(torch.zeros(1, form.size).double(), alone).right, right[3:4])


def test_input_basis_needs_enough_positions():
    layer, trace, _ = setting(3)
    assert InputBasisForm(layer.shape, 3).refusal(trace) is None
    assert "rank 4 exceeds the 3 directions" in InputBasisForm(layer.shape, 4).refusal(trace)


def test_choose_form_takes_the_shortest_that_keeps_the_gain():
    layer, trace, targets = setting(None)
    delta = overfit(layer, trace, targets, loss, Overfit("sgd", 0.3, 5))
    rank_one, full = RankOneForm(layer.shape), FullForm(layer.shape)
    poor = BasisForm.fit(full_delta(7), 1)
    choice = choose_form(trace, targets, loss, delta, [full, poor, rank_one])
    assert choice.form is rank_one
    assert choice.oracle_loss < choice.base_loss
    scores = {score.form: score for score in choice.scores}
    assert scores[rank_one].kept == pytest.approx(1)
    assert scores[rank_one].energy == pytest.approx(1)
    assert scores[full].loss == pytest.approx(choice.oracle_loss)
    assert scores[poor].kept < 0.9
    assert scores[poor].energy < 0.9
    # with everything tolerated, the shortest; with nothing usable but the poor one, that
    assert choose_form(trace, targets, loss, delta, [full, poor, rank_one], tolerance=2.0).form is poor
    assert choose_form(trace, targets, loss, delta, [poor]).form is poor


def test_choose_form_leaves_out_what_cannot_be_used():
    layer, trace, targets = setting(9)
    delta = overfit(layer, trace, targets, loss, Overfit("adam", 0.05, 5))
    rank_one = RankOneForm(layer.shape)
    choice = choose_form(trace, targets, loss, delta, [rank_one, InputBasisForm(layer.shape, 4)])
    assert choice.form.size == 20
    assert choice.scores[0].loss is None
    assert "9 positions" in choice.scores[0].reason
    with pytest.raises(ValueError, match="rank-one .* 9 positions"):
        choose_form(trace, targets, loss, delta, [rank_one])
    with pytest.raises(ValueError, match="no form"):
        choose_form(trace, targets, loss, delta, [])
