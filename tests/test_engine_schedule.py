"""Noise schedules against diffusers, and the three predictions against each other."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ocd_bench.engine.diffusion import PREDICTIONS, SCHEDULES, NoiseSchedule

LINEAR = [(10, 1e-4, 1e-2), (1000, 1e-6, 1e-2)]


def reference(steps: int, start: float, end: float, prediction: str) -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=steps, trained_betas=torch.linspace(start, end, steps).tolist(), clip_sample=False,
        prediction_type={"v": "v_prediction", "epsilon": "epsilon", "x0": "sample"}[prediction],
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "start", "end"), LINEAR)
def test_linear_levels_and_noising_equal_diffusers(steps, start, end):
    ours, theirs = NoiseSchedule.linear(steps, start, end), reference(steps, start, end, "v")
    torch.testing.assert_close(ours.alphas_bar, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 3, 4, generator=generator)
    t = torch.randint(steps, (5,), generator=generator)
    torch.testing.assert_close(ours.add_noise(x0, t, noise), theirs.add_noise(x0, noise, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.target(x0, t, noise, "v"), theirs.get_velocity(x0, noise, t), rtol=1e-4, atol=1e-5)


def test_cosine_equals_diffusers():
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(NoiseSchedule.cosine().alphas_bar, theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)


def test_the_named_schedules_are_those_of_paper_and_code():
    lengths = {name: len(NoiseSchedule.named(name)) for name in SCHEDULES}
    assert lengths == {"cosine": 1000, "paper": 10, "code": 1000}
    # The signal's share of the variance at the first sampling step: nearly 1 for the schedule as printed.
    left = {name: float(NoiseSchedule.named(name).alphas_bar[-1]) for name in SCHEDULES}
    assert left["paper"] == pytest.approx(math.prod(1 - 1e-4 - k * 0.0011 for k in range(10)), rel=1e-5)
    assert left["paper"] > 0.95
    assert left["code"] == pytest.approx(math.exp(-5.0171), rel=1e-2)
    assert left["cosine"] < 1e-6
    with pytest.raises(ValueError, match="known: cosine, paper, code"):
        NoiseSchedule.named("quadratic")


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["paper", "code"])
def test_a_perfect_prediction_gives_back_sample_and_noise(name, prediction):
    schedule = NoiseSchedule.named(name)
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 6, 7, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, len(schedule) - 1, 6).long()
    target = schedule.target(x0, t, noise, prediction)
    found = schedule.split(target, schedule.add_noise(x0, t, noise), t, prediction)
    torch.testing.assert_close(found[0], x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], noise, rtol=1e-6, atol=1e-6)


def test_times_fall_from_the_last_level():
    schedule = NoiseSchedule.named("code")
    assert schedule.times(10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert schedule.times(1) == [999]
    skip = 1000 // 10  # as the authors' code has it
    assert schedule.times(10, to_zero=True) == list(reversed(range(0, 1000, skip)))
    assert NoiseSchedule.named("paper").times(10) == list(range(9, -1, -1))
    for steps in (0, 11):
        with pytest.raises(ValueError, match="expected 1 to 10"):
            NoiseSchedule.named("paper").times(steps)


@pytest.mark.parametrize("betas", [[], [0.5, 1.0], [0.0], [[0.1]]])
def test_invalid_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        NoiseSchedule(torch.tensor(betas))


def test_unknown_predictions_are_refused():
    schedule, x = NoiseSchedule.named("paper"), torch.zeros(1, 2)
    t = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="known: v, epsilon, x0"):
        schedule.target(x, t, x, "score")
    with pytest.raises(ValueError, match="known: v, epsilon, x0"):
        schedule.split(x, x, t, "score")
