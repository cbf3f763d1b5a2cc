"""Features of outputs and mixtures, the test-time loss, and corruptions."""

from __future__ import annotations

import itertools

import pytest
import torch

from ocd_bench_speech.corruption import KINDS
from ocd_bench_speech.features import MixtureEncoder, assignment_entropy, power, spectral_picture, spectral_summary


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tones(*hertz: float, samples: int = 4000) -> torch.Tensor:
    return torch.stack([torch.sin(2 * torch.pi * f * torch.arange(samples) / 8000) for f in hertz])


def test_the_spectrogram_of_a_tone_has_its_peak_at_the_frequency() -> None:
    spectrum = power(tones(1000.0)[None])
    assert spectrum.shape[:3] == (1, 1, 513)
    assert int(spectrum.mean(-1)[0, 0].argmax()) == 128  # 1000 Hz / (8000 Hz / 1024)


def test_summary_follows_the_order_of_speakers() -> None:
    waves = noise(2, 3, 4000)
    summary = spectral_summary(waves)
    assert summary.shape == (2, 3 * 1026)
    swapped = spectral_summary(waves[:, [1, 0, 2]]).view(2, 3, 1026)
    torch.testing.assert_close(swapped[:, [1, 0, 2]].flatten(1), summary)


def test_the_picture_stacks_the_spectrograms_vertically() -> None:
    waves = torch.stack([torch.zeros(4000), tones(1000.0)[0]])[None]
    picture = spectral_picture(waves)
    assert picture.shape == (1, 1, 2 * 513, 16)
    assert (picture[:, :, :513] == 0).all()
    assert int(picture[0, 0, 513:, 8].argmax()) == 128
    assert 0.8 < float(picture.max()) < 1


def test_the_entropy_loss_is_lowest_for_true_sources_and_ignores_levels() -> None:
    sources = torch.stack([tones(300.0, 1500.0), tones(700.0, 2500.0)])
    mixture = sources.sum(1)
    truth = assignment_entropy(sources, mixture)
    shared = assignment_entropy(mixture[:, None].expand_as(sources), mixture)
    blurred = assignment_entropy(sources + 0.3 * sources.flip(1), mixture)
    assert (truth < 0.1).all()
    assert (truth < blurred).all()
    assert (blurred < shared).all()
    assert (shared > 0.95).all()
    levels = torch.tensor([0.2, 5.0]).view(1, 2, 1)
    torch.testing.assert_close(assignment_entropy(levels * sources, mixture), truth, atol=0.02, rtol=0)


def test_the_entropy_loss_is_high_for_silent_estimates() -> None:
    sources = tones(300.0, 1500.0)[None]
    left_out = torch.stack([sources[:, 0], 1e-3 * noise(1, 4000)], 1)
    assert float(assignment_entropy(left_out, sources.sum(1))) > 0.4


def test_the_entropy_loss_has_a_finite_gradient_for_silence() -> None:
    for estimates in (noise(2, 2, 2000), torch.zeros(2, 2, 2000)):
        estimates = estimates.requires_grad_()
        assignment_entropy(estimates, noise(2, 2000, seed=1)).sum().backward()
        assert estimates.grad is not None
        assert estimates.grad.isfinite().all()


def test_encoder_gives_one_vector_per_mixture() -> None:
    encoder, x = MixtureEncoder().eval(), noise(3, 8000)
    with torch.no_grad():
        out = encoder(x)
        assert out.shape == (3, 128)
        torch.testing.assert_close(encoder(x[1:2]), out[1:2], atol=1e-5, rtol=1e-4)
        assert encoder(x[:, :2000]).shape == (3, 128)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_corruptions_grow_with_severity(kind: str) -> None:
    x = noise(6, 8000)
    kept = x.clone()
    changes = [(KINDS[kind](x, level, torch.Generator().manual_seed(0)) - x).square().mean() for level in range(5)]
    assert torch.equal(x, kept)
    if kind != "reverb":  # whose tail grows in length, not in energy
        assert all(before < after for before, after in itertools.pairwise(changes))
    assert changes[0] > 0


def test_noise_has_the_specified_snr() -> None:
    x = 3 * noise(4, 8000)
    for kind in ("gaussian_noise", "babble"):
        added = KINDS[kind](x, 2, torch.Generator().manual_seed(0)) - x
        ratio = 10 * torch.log10(x.square().mean(-1) / added.square().mean(-1))
        torch.testing.assert_close(ratio, torch.full((4,), 10.0), atol=0.01, rtol=0)


def test_lowpass_keeps_frequencies_below_the_cutoff() -> None:
    x = tones(500.0, 2500.0)
    y = KINDS["lowpass"](x, 4, torch.Generator())
    loss = 10 * torch.log10(y[:, 500:-500].square().mean(-1) / x[:, 500:-500].square().mean(-1))
    assert abs(float(loss[0])) < 0.2
    assert float(loss[1]) < -40


def test_reverb_is_a_convolution_that_keeps_the_direct_sound() -> None:
    click = torch.zeros(1, 4000)
    click[0, 100] = 1
    room = KINDS["reverb"](click, 1, torch.Generator().manual_seed(0))[0]
    assert abs(float(room[100]) - 1) < 1e-5
    assert room[:100].abs().max() < 1e-5
    assert room[101:119].abs().max() < 1e-5
    assert abs(float(room[120:].square().sum()) - 1) < 1e-3
    assert float(room[120 : 120 + 400].square().sum()) > 10 * float(room[1000:1400].square().sum())


def test_frames_hold_their_neighbours_and_come_back_as_signals():
    from ocd_bench_speech.features import FRAME, frames, unframed

    mixture, estimates = torch.randn(2, 150), torch.randn(2, 3, 150)
    found = frames(mixture, estimates)
    assert found.shape == (2, 3, 4 * 3 * FRAME)
    middle = found[:, 1].unflatten(1, (4, 3 * FRAME))
    assert torch.equal(middle[:, 0, :150], mixture)
    assert torch.equal(middle[:, 1:, :150], estimates)
    assert not middle[:, :, 150:].any()
    own = found.unflatten(2, (4, 3, FRAME))[:, :, 1:, 1].flatten(2)  # the frames themselves, of the estimates
    assert torch.equal(unframed(own, 3, 150), estimates)
