"""DDIM, step by step, against diffusers; and its samples against a distribution with a known denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from ocd_bench.engine.diffusion import NoiseSchedule, ddim

LINEAR = {"paper": (10, 1e-4, 1e-2), "code": (1000, 1e-6, 1e-2)}
NAMES = {"v": "v_prediction", "epsilon": "epsilon", "x0": "sample"}


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Any smooth function of sample and time."""
    return torch.tanh(1.7 * x.roll(1, -1) - 0.3 * x) * torch.cos(t.reshape(-1, 1).to(x.dtype) / 400)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("name", ["paper", "code"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_every_step_equals_diffusers(name, prediction, eta):
    steps, start, end = LINEAR[name]
    theirs = DDIMScheduler(
        num_train_timesteps=steps, trained_betas=torch.linspace(start, end, steps).tolist(), clip_sample=False,
        prediction_type=NAMES[prediction], timestep_spacing="trailing",
    )  # fmt: skip
    theirs.set_timesteps(10)
    noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    schedule = NoiseSchedule.linear(steps, start, end)
    # The same levels in double precision on both sides, so that it is the steps that are compared.
    schedule.alphas_bar = theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.double()
    seen: list[tuple[int, torch.Tensor]] = []

    def watched(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((int(t[0]), x.clone()))
        return network(x, t)

    ours = ddim(watched, schedule, noise, 10, prediction=prediction, eta=eta, generator=torch.Generator().manual_seed(8))
    x, generator = noise, torch.Generator().manual_seed(8)
    assert [t for t, _ in seen] == theirs.timesteps.tolist()
    for (_, before), t in zip(seen, theirs.timesteps, strict=True):
        torch.testing.assert_close(before, x, rtol=1e-9, atol=1e-9)
        extra = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = theirs.step(network(x, t.repeat(len(x))), int(t), x, eta=eta, variance_noise=extra).prev_sample
    if eta == 0:  # with eta > 0 theirs adds noise to the finished sample too
        torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_a_gaussian_given_its_exact_denoiser(prediction, eta):
    """For x_0 ~ N(m, s²), E[x_0 | x_t] = m + a s² (x_t - a m) / (a² s² + 1 - a²)."""
    mean, spread = 1.5, 0.4
    schedule = NoiseSchedule.named("code" if prediction == "epsilon" else "cosine")

    def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, noise = schedule.coefficients(t, x)
        x0 = mean + signal * spread**2 * (x - signal * mean) / (signal**2 * spread**2 + noise**2)
        return schedule.target(x0, t, (x - signal * x0) / noise, prediction)

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    found = ddim(exact, schedule, noise, 100, prediction=prediction, eta=eta, generator=generator)
    assert float(found.mean()) == pytest.approx(mean, abs=0.1 if prediction == "epsilon" else 0.02)
    assert float(found.std()) == pytest.approx(spread, abs=0.04)


def test_few_steps_draw_the_frequent_one_of_two_modes_too_often():
    """For x_0 = ±1, + with probability 0.8, E[x_0 | x_t] = tanh(a x_t / s² + log(0.8 / 0.2) / 2)."""
    schedule = NoiseSchedule.cosine()

    def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, noise = schedule.coefficients(t, x)
        x0 = torch.tanh(signal * x / noise**2 + math.log(0.8 / 0.2) / 2)
        return schedule.target(x0, t, (x - signal * x0) / noise, "v")

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    shares = {steps: float((ddim(exact, schedule, noise, steps) > 0).float().mean()) for steps in (2, 5, 10, 100)}
    assert shares[100] == pytest.approx(0.8, abs=0.01)
    assert shares[2] > shares[5] > shares[10] > shares[100]
    assert float(ddim(exact, schedule, noise, 100).abs().sub(1).abs().max()) < 0.05


def test_one_step_is_the_prediction_itself():
    schedule, noise = NoiseSchedule.cosine(), torch.randn(3, 5)
    found = ddim(lambda x, t: torch.full_like(x, 2.0), schedule, noise, 1, prediction="x0")
    assert torch.equal(found, torch.full((3, 5), 2.0))


def test_no_gradient_and_nothing_random_without_eta():
    schedule, noise = NoiseSchedule.named("paper"), torch.randn(3, 5)
    weight = torch.ones((), requires_grad=True)
    first = ddim(lambda x, t: weight * network(x, t), schedule, noise, 4)
    assert not first.requires_grad
    assert torch.equal(first, ddim(network, schedule, noise, 4))
