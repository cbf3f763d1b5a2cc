"""The gain chosen on validation samples: best mean loss, but never against the evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ocd_bench.engine.gain import choose_gain, gain_on_validation, standard_errors
from ocd_bench.engine.problem import Quality
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.progress import Progress
from tests.toy_engine import data, loss, problem

GAINS = (0.0, 0.5, 1.0)


def test_the_least_mean_loss_wins_where_it_is_clear():
    losses = torch.tensor([[1.0, 1.1, 0.9, 1.0], [0.4, 0.5, 0.3, 0.4], [0.6, 0.7, 0.5, 0.6]])
    gain = choose_gain(GAINS, losses)
    assert gain.value == 0.5
    assert gain.candidates == GAINS
    assert gain.losses == pytest.approx((1.0, 0.4, 0.6))


@pytest.mark.parametrize(("improvements", "taken"), [((0.3, -0.1, 0.2, 0.0), 1.0), ((0.9, -0.8, 0.2, 0.0), 0.0)])
def test_an_improvement_within_its_standard_error_is_none(improvements, taken):
    difference = torch.tensor(improvements)
    error = float(difference.std() / math.sqrt(len(difference)))
    assert (float(difference.mean()) > error) == (taken == 1.0)
    assert choose_gain((0.0, 1.0), torch.stack([torch.ones(4), 1 - difference])).value == taken


@pytest.mark.parametrize(("share", "taken"), [(1.0, 1.0), (0.9, 0.5), (0.5, 0.25), (0.0, 0.0)])
def test_the_least_gain_that_keeps_the_share_is_taken(share, taken):
    means = torch.tensor([1.0, 0.7, 0.45, 0.4, 0.41])  # gained: 0, 0.3, 0.55, 0.6, 0.59
    losses = means[:, None] + torch.tensor([0.01, -0.01, 0.02, -0.02])
    assert choose_gain((0.0, 0.25, 0.5, 1.0, 1.5), losses, share=share).value == taken


def test_a_gain_that_lowers_the_quality_is_not_chosen():
    losses = torch.tensor([1.0, 0.45, 0.4])[:, None] + torch.tensor([0.01, -0.01, 0.02, -0.02])
    assert choose_gain(GAINS, losses, torch.tensor([0.9, 0.8, 0.9]), share=0.8).value == 1.0


def test_equal_losses_or_a_single_sample_choose_gain_zero():
    assert choose_gain(GAINS, torch.ones(3, 10)).value == 0
    assert choose_gain(GAINS, torch.tensor([[1.0], [0.1], [0.0]])).value == 0


def test_losses_that_are_not_finite_rule_a_candidate_out():
    losses = torch.tensor([[1.0, 1.0], [0.9, 0.9], [0.0, math.nan]])
    gain = choose_gain(GAINS, losses)
    assert gain.value == 0.5
    assert gain.losses[2] == math.inf


def test_without_the_base_among_the_candidates_the_least_decides():
    assert choose_gain((0.5, 1.0), torch.tensor([[1.0, 0.0], [0.9, 0.09]])).value == 1.0


def test_a_single_candidate_is_chosen_without_evaluation():
    def never(*_):
        raise AssertionError("nothing is to be computed")

    assert gain_on_validation(problem(), OCDSettings(gains=(1.0,)), never, ()).value == 1


def test_losses_are_those_of_at_most_so_many_validation_samples():
    val = data(50, seed=8)
    seen, told = [], []
    task = problem(val=val, stage=lambda what, key: Progress(lambda *steps: told.append((what, *steps))))

    def outputs(inputs, gains, start):
        assert start == sum(map(len, seen))
        seen.append(inputs)
        base = task.layer.model(inputs)
        return [base - gain * base for gain in gains]

    gain = gain_on_validation(task, OCDSettings(gains=GAINS, val_samples=20, batch_size=8), outputs, ())
    assert [len(piece) for piece in seen] == [8, 8, 4]
    rows = [int((val[0] == row).all(1).nonzero()) for row in torch.cat(seen)]
    assert len(set(rows)) == 20
    assert gain.losses[0] == pytest.approx(float(loss(task.layer.model(val[0][rows]), val[1][rows]).mean()))
    assert gain.losses[2] == pytest.approx(math.log(3))
    assert told[-1] == ("gain", 20, 20)


def test_a_better_loss_with_lower_quality_is_not_chosen():
    losses = torch.tensor([[1.0, 1.1, 0.9, 1.0], [0.4, 0.5, 0.3, 0.4], [0.6, 0.7, 0.5, 0.6]])
    assert choose_gain(GAINS, losses, torch.tensor([0.8, 0.7, 0.8])).value == 1.0
    assert choose_gain(GAINS, losses, torch.tensor([0.8, 0.7, 0.6])).value == 0.0
    assert choose_gain(GAINS[1:], losses[1:], torch.tensor([0.7, 0.8])).value == 0.5  # no base to be worse than


def test_the_quality_is_that_of_all_validation_samples():
    """Of losses alone 1 would be taken; by the largest score anywhere, 0.5 is no worse than 0, and 1 is."""
    quality = Quality(lambda output, target: output[:, 0], lambda scores: -scores.amax(1))
    task = problem(val=data(7), loss=lambda output, target: 1 - output[:, 1], quality=quality)

    def outputs(inputs, gains, start):
        rows = torch.arange(start, start + len(inputs)).float()
        return [torch.stack([(gain == 1.0) * (rows == 5), gain + 0 * rows], 1) for gain in gains]

    how = OCDSettings(gains=GAINS, batch_size=3)
    assert gain_on_validation(task, how, outputs, ()).value == 0.5
    assert gain_on_validation(replace(task, quality=None), how, outputs, ()).value == 1.0


def test_a_margin_requires_a_higher_quality():
    losses = torch.tensor([1.0, 0.45, 0.4])[:, None] + torch.tensor([0.01, -0.01, 0.02, -0.02])
    quality = torch.tensor([0.80, 0.90, 0.82])
    assert choose_gain(GAINS, losses, quality).value == 1.0
    assert choose_gain(GAINS, losses, quality, margins=torch.tensor([0.0, 0.05, 0.05])).value == 0.5
    assert choose_gain(GAINS, losses, quality, margins=torch.tensor([0.0, 0.2, 0.2])).value == 0.0


def test_the_standard_error_of_a_mean_is_that_of_the_paired_differences():
    torch.manual_seed(0)
    values = torch.rand(3, 300, dtype=torch.float64)
    quality = Quality(loss, lambda scores: scores.mean(1))
    errors = standard_errors(quality, values, 1, torch.Generator().manual_seed(0))
    assert errors[1] == 0
    expected = (values - values[1]).std(1) / math.sqrt(300)
    assert torch.allclose(errors[[0, 2]], expected[[0, 2]], rtol=0.15)


@pytest.mark.parametrize(("margin", "taken"), [(0.0, 1.0), (1.0, 0.0)])
def test_with_a_margin_a_quality_gain_within_its_standard_error_is_not_enough(margin, taken):
    val = data(20, seed=8)
    right = torch.zeros(2, 20)
    right[1, :2], right[0, 2] = 1.0, 1.0  # better by 1 / 20 +- 1.7 / 20
    calls = []

    def scores(output, target):
        calls.append(len(output))
        return right[(len(calls) - 1) % 2, : len(output)]

    task = problem(val=val, quality=Quality(scores, lambda values: values.mean(1)))

    def outputs(inputs, gains, start):
        base = task.layer.model(inputs)
        return [base, 10.0 * torch.nn.functional.one_hot(val[1][start : start + len(inputs)], base.shape[1])]  # of less loss

    how = OCDSettings(gains=(0.0, 1.0), gain_margin=margin)
    assert gain_on_validation(task, how, outputs, ()).value == taken
