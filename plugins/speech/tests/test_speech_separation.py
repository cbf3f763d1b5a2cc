"""SI-SDR, assignment and draws, against torchmetrics and brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from ocd_bench_speech.separation import (
    align,
    assign,
    average_draws,
    correlations,
    pit_si_sdr,
    reorder,
    si_sdr,
    si_sdr_of_mixture,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 20.0, 40.0])
def test_si_sdr_is_that_of_torchmetrics(snr_db: float) -> None:
    functional = pytest.importorskip("torchmetrics.functional.audio")
    target = noise(3, 2, 800) + 0.3
    estimate = 2.5 * (target + 10 ** (-snr_db / 20) * noise(3, 2, 800, seed=1)) + 0.1
    expected = functional.scale_invariant_signal_distortion_ratio(estimate, target, zero_mean=True)
    torch.testing.assert_close(si_sdr(estimate, target), expected, atol=1e-4, rtol=1e-5)


def test_si_sdr_does_not_depend_on_scale_or_offset() -> None:
    target, estimate = noise(4, 500), noise(4, 500, seed=1)
    value = si_sdr(estimate, target)
    torch.testing.assert_close(si_sdr(-3 * estimate + 2, 0.1 * target - 1), value, atol=1e-3, rtol=0)


@pytest.mark.parametrize("speakers", [2, 3, 4, 5])
def test_assignment_is_that_of_all_permutations(speakers: int) -> None:
    estimates, targets = noise(6, speakers, 300), noise(6, speakers, 300, seed=1)
    tries = torch.stack([si_sdr(estimates[:, list(order)], targets).mean(-1) for order in permutations(range(speakers))])
    torch.testing.assert_close(pit_si_sdr(estimates, targets), tries.max(0).values, atol=1e-4, rtol=1e-5)


def test_pit_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.audio")
    estimates, targets = noise(5, 3, 400), noise(5, 3, 400, seed=1)
    expected, _ = functional.permutation_invariant_training(
        estimates, targets, functional.scale_invariant_signal_distortion_ratio, eval_func="max", zero_mean=True
    )
    torch.testing.assert_close(pit_si_sdr(estimates, targets), expected, atol=1e-4, rtol=1e-5)


def test_align_undoes_a_permutation_of_each_sample_on_its_own() -> None:
    targets = noise(8, 4, 200)
    orders = torch.rand(8, 4, generator=torch.Generator().manual_seed(3)).argsort(1)
    shuffled = reorder(targets, orders) + 0.1 * noise(8, 4, 200, seed=1)
    assert (si_sdr(align(shuffled, targets), targets) > 10).all()


def test_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    targets = noise(2, 2, 40).double()
    estimates = (targets.flip(1) + 0.5 * noise(2, 2, 40, seed=1)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: pit_si_sdr(e, targets), estimates, atol=1e-4)


def test_values_that_are_not_finite_are_kept_and_raise_no_error() -> None:
    estimates, targets = noise(2, 2, 100), noise(2, 2, 100, seed=1)
    estimates[0, 0] = float("nan")
    value = pit_si_sdr(estimates, targets)
    assert value[0].isnan()
    assert value[1].isfinite()


def test_silence_is_finite_and_its_gradient_too() -> None:
    targets = noise(1, 2, 100)
    estimates = torch.zeros(1, 2, 100, requires_grad=True)
    value = pit_si_sdr(estimates, targets)
    value.sum().backward()
    assert value.isfinite().all()
    assert estimates.grad is not None
    assert estimates.grad.isfinite().all()


def test_empty_batches_give_empty_results() -> None:
    assert assign(torch.zeros(0, 3, 3)).shape == (0, 3)


def test_mixture_of_two_equal_sources_is_at_0_db() -> None:
    sources = noise(1, 2, 200_000)
    assert abs(float(si_sdr_of_mixture(sources)[0])) < 0.05


def test_draws_are_aligned_before_they_are_averaged() -> None:
    first = noise(3, 3, 300)
    draws = torch.stack([first, first[:, [2, 0, 1]], first[:, [1, 2, 0]] * 0.5])
    torch.testing.assert_close(average_draws(draws), first * 2.5 / 3)
    torch.testing.assert_close(average_draws(first[None]), first)


def test_averaging_noisy_draws_helps() -> None:
    truth = noise(4, 2, 500)
    draws = torch.stack([(truth + noise(4, 2, 500, seed=k)).roll(k, 1) for k in range(1, 9)])
    assert (pit_si_sdr(average_draws(draws), truth) > pit_si_sdr(draws[0], truth) + 6).all()


def test_correlation_of_silence_is_zero() -> None:
    assert torch.equal(correlations(torch.zeros(1, 2, 10), noise(1, 2, 10)), torch.zeros(1, 2, 2, dtype=torch.double))


def test_improvement_under_noise_is_over_the_noisy_mixture():
    """Beside torchmetrics: an estimate that is the noisy mixture itself improves nothing, whatever the noise."""
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as reference

    from ocd_bench_speech.task import SpeechTask

    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(3, 2, 800, generator=generator)
    noisy = sources.sum(1) + torch.randn(3, 800, generator=generator)
    task = SpeechTask()
    targets = task.corrupt_targets(noisy, sources)
    nothing = task.metrics(noisy[:, None].expand(-1, 2, -1), targets)
    torch.testing.assert_close(nothing["si_sdri"], torch.zeros(3), atol=1e-5, rtol=0)
    estimates = sources + 0.1 * torch.randn(3, 2, 800, generator=generator)
    scores = task.metrics(estimates, targets)
    before = reference(noisy[:, None].expand(-1, 2, -1), sources, zero_mean=True).mean(-1)
    after = reference(estimates, sources, zero_mean=True).mean(-1)
    torch.testing.assert_close(scores["si_sdri"], after - before, atol=1e-3, rtol=0)
    torch.testing.assert_close(task.loss(estimates, targets), -scores["si_sdr"])
    assert (scores["si_sdri"] - task.metrics(estimates, sources)["si_sdri"]).min() > 1
