"""Synthetic voices: repeatable, with the speaker's pitch, and different for each speaker."""

from __future__ import annotations

import numpy as np

from ocd_bench_speech.voices import speak, voice


def pitch_of(wave: np.ndarray) -> float:
    """Median over frames of the lag of the strongest autocorrelation, in Hz."""
    found = []
    for start in range(0, len(wave) - 800, 400):
        frame = wave[start : start + 800] * np.hanning(800)
        if np.sqrt(np.mean(frame**2)) < 0.05:
            continue
        correlation = np.correlate(frame, frame, "full")[799:]
        lags = slice(20, 120)  # 400 to 67 Hz
        found.append(8000 / (20 + int(np.argmax(correlation[lags]))))
    return float(np.median(found))


def test_a_voice_gives_the_same_waveform_each_time() -> None:
    first = speak(3, 1.0)
    assert first.dtype == np.float32
    assert first.shape == (8000,)
    np.testing.assert_array_equal(first, speak(3, 1.0))
    np.testing.assert_allclose(np.sqrt(np.mean(first**2)), 0.1, rtol=1e-4)
    assert np.abs(first).max() < 1


def test_speakers_differ_and_registers_have_rising_pitch() -> None:
    assert len({voice(n).pitch for n in range(40)}) == 40
    for registers in (2, 5):
        pitches = np.array([voice(n, registers).pitch for n in range(20 * registers)]).reshape(20, registers)
        assert (np.diff(pitches.mean(0)) > 20).all()
        assert pitches.min() > 70
        assert pitches.max() < 320


def test_the_waveform_has_the_speakers_pitch() -> None:
    for number in (0, 1, 2, 3):
        assert abs(np.log2(pitch_of(speak(number, 3.0)) / voice(number).pitch)) < 0.35


def test_sound_ends_below_the_nyquist_frequency() -> None:
    spectrum = np.abs(np.fft.rfft(speak(1, 2.0))) ** 2
    assert spectrum[int(0.98 * len(spectrum)) :].sum() < 1e-3 * spectrum.sum()
