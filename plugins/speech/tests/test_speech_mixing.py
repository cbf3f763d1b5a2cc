"""Mixtures by plan."""

from __future__ import annotations

import pytest
import torch

from ocd_bench import UsageError
from ocd_bench_speech.mixing import Pool, at_speed, normalised


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tones(count: int, samples: int = 4000) -> dict[str, list[torch.Tensor]]:
    """Speaker i is a tone of 100 (i + 1) Hz."""
    time = torch.arange(samples) / 8000
    return {f"s{i}": [torch.sin(2 * torch.pi * 100 * (i + 1) * time)] for i in range(count)}


def pitch(wave: torch.Tensor) -> float:
    return float(torch.fft.rfft(wave * torch.hann_window(len(wave)), 16000).abs().argmax()) / 2


def test_the_same_generator_gives_the_same_mixtures() -> None:
    pool = Pool(tones(5), 1000)
    assert torch.equal(pool.draw(20, 2, 2.5, seeded()), pool.draw(20, 2, 2.5, seeded()))
    assert not torch.equal(pool.draw(20, 2, 2.5, seeded()), pool.draw(20, 2, 2.5, seeded(1)))


def test_a_plan_names_the_speakers_of_each_segment() -> None:
    """The groups of a mixture: each segment's audio is that speaker's tone."""
    pool = Pool(tones(5), 2000)
    alone = [round(pitch(Pool({name: waves}, 2000).audio[:2000])) for name, waves in tones(5).items()]
    plan = pool.plan(20, 2, 2.5, seeded())
    for sources, speakers in zip(pool.render(plan), plan.speakers.tolist(), strict=True):
        assert len(set(speakers)) == 2
        for source, speaker in zip(sources, speakers, strict=True):
            assert pitch(source) == pytest.approx(alone[speaker], abs=3)


def test_mixtures_have_unit_power_different_speakers_and_levels_in_range() -> None:
    sources = Pool(tones(5), 2000).draw(50, 3, 2.5, seeded())
    assert sources.shape == (50, 3, 2000)
    torch.testing.assert_close(sources.sum(1).square().mean(-1), torch.ones(50))
    for mixture in sources:
        assert len({pitch(source) for source in mixture}) == 3
    levels = 10 * torch.log10(sources.square().mean(-1))
    spread = levels.amax(1) - levels.amin(1)
    assert spread.max() <= 5.01
    assert spread.max() > 3


def test_speakers_of_one_group_are_never_mixed() -> None:
    speech = tones(6)
    pool = Pool(speech, 1000, groups={name: int(name[1]) % 2 for name in speech})
    for mixture in pool.draw(40, 2, 0.0, seeded()):
        numbers = [round(pitch(source) / 100) - 1 for source in mixture]
        assert {number % 2 for number in numbers} == {0, 1}


def test_every_speaker_is_drawn() -> None:
    sources = Pool(tones(4), 1000).draw(60, 2, 0.0, seeded())
    assert {round(pitch(wave) / 100) for wave in sources.flatten(0, 1)} == {1, 2, 3, 4}


def test_too_few_speakers_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="mixtures of 3 need as many different speakers; there are 2") as error:
        Pool(tones(2), 1000).draw(1, 3, 0.0, seeded())
    assert "\n" not in str(error.value)


def test_a_speaker_without_sound_is_refused() -> None:
    with pytest.raises(UsageError, match="'s0' has no sound"):
        Pool({"s0": [torch.zeros(100)]}, 50)


def test_short_utterances_fill_a_segment_one_after_the_other() -> None:
    ramp = torch.arange(1.0, 301.0)
    pool = Pool({"a": [ramp[:100], ramp[100:]], "b": [ramp.flip(0)]}, 1000)
    source = pool.draw(1, 2, 0.0, seeded())[0]
    steps = source.diff(dim=-1)
    # A loop of 300 samples: two values of the derivative, the rare one every 300 samples.
    for wave in steps:
        jumps = ((wave - wave.median()).abs() > 1e-3).nonzero()[:, 0]
        assert len(jumps) in (3, 4)
        assert set(jumps.diff().tolist()) == {300}


def test_silent_stretches_are_avoided() -> None:
    half = torch.cat([torch.zeros(30_000), torch.randn(10_000, generator=seeded())])
    pool = Pool({"a": [half], "b": [half.flip(0)]}, 800)
    plan = pool.plan(200, 2, 0.0, seeded())
    power = torch.stack([pool.audio[s : s + 800].square().mean() for s in plan.starts.flatten()])
    assert (power > 0.04).float().mean() > 0.85  # at random starts: a quarter


def test_speeds_are_the_same_speaker_faster_or_slower() -> None:
    faster = at_speed(tones(3)["s2"][0], 1.1)
    assert abs(len(faster) - 4000 / 1.1) < 2
    assert abs(pitch(faster[200:3200]) - 330) <= 2
    sources = Pool(tones(2), 2000, speeds=(0.9, 1.0, 1.1)).draw(60, 2, 0.0, seeded())
    pitches = {round(pitch(wave) / 10) * 10 for wave in sources.flatten(0, 1)}
    assert pitches == {90, 100, 110, 180, 200, 220}
    assert all(abs(pitch(mixture[0]) - pitch(mixture[1])) > 60 for mixture in sources)


def test_normalised_keeps_ratios() -> None:
    sources = torch.randn(3, 2, 100, generator=seeded())
    scaled = normalised(sources)
    torch.testing.assert_close(scaled / scaled[:, :1, :1], sources / sources[:, :1, :1])
