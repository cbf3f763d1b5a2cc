"""Synthetic voices: speech-like sound of any number of speakers, so that the task runs without any data file.

It is a source-filter model: harmonics of a gliding pitch, weighted by the response of four formant resonators that move from
vowel to vowel, and bands of noise for fricatives, bursts and breath. Speakers differ in pitch, vocal-tract length (formant
scale), spectral tilt, vibrato, breath and tempo, and have registers from low to high, as in a choir. The sounds have no words.
They are much easier to separate than real speech, because a mixture has one voice of each register.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array

from ocd_bench.seeds import derive

RATE = 8000
FRAMES_PER_S = 200
HOP = RATE // FRAMES_PER_S

# Mean formants (Hz) of ten American English vowels, men; Peterson and Barney 1952. The fourth is set to 3500 Hz.
VOWELS = np.array([
    (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
    (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
], dtype=float)  # fmt: skip
BANDWIDTHS = np.array([70.0, 90.0, 140.0, 220.0])
BANDS = ((900.0, 1800.0), (1800.0, 2900.0), (2700.0, 3900.0))


@dataclass(frozen=True)
class Voice:
    """The properties of a speaker: pitch in Hz, tilt in dB per octave, tempo in syllables per second, and others."""

    pitch: float
    melody: float
    formant_scale: float
    tilt: float
    vibrato_hz: float
    vibrato_depth: float
    breath: float
    tempo: float


def voice(number: int, registers: int = 2) -> Voice:
    """Speaker ``number``, one of register ``number % registers``; 0 is the lowest voice, the last the highest."""
    random = np.random.default_rng(derive("speech", "voices", "speaker", number))
    height = (number % registers) / max(1, registers - 1)
    return Voice(
        pitch=float(88 * 3.1**height * 2 ** random.uniform(-0.15, 0.15)),
        melody=float(random.uniform(1.0, 3.0)),
        formant_scale=float(0.85 + 0.42 * height + random.uniform(-0.04, 0.04)),
        tilt=float(-12 + 8 * height + random.uniform(-1.5, 1.5)),
        vibrato_hz=float(random.uniform(4, 7)),
        vibrato_depth=float(random.uniform(0.003, 0.02)),
        breath=float(random.uniform(0.005, 0.05)),
        tempo=float(random.uniform(3.0, 5.5)),
    )


def speak(number: int, seconds: float, registers: int = 2) -> Array:
    """The waveform of speaker ``number`` of ``registers``: ``seconds`` at 8 kHz, float32, root mean square 0.1. The same
    arguments give the same waveform on any machine: it is computed in double precision, and rounded to 16 bits."""
    who = voice(number, registers)
    random = np.random.default_rng(derive("speech", "voices", "utterance", number))
    samples = round(seconds * RATE)
    frames = -(-samples // HOP) + 1
    loudness, formants, pitch, noise = _score(who, frames, random)
    sound = _harmonics(who, loudness, formants, pitch)
    white = np.fft.rfft(random.standard_normal(len(sound)))
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    for (low, high), gain in zip(BANDS, noise.T, strict=True):
        shape = np.exp(-0.5 * ((frequency - (low + high) / 2) / ((high - low) / 2)) ** 2) * (frequency < 3900)
        hiss = np.fft.irfft(white * shape, len(sound))
        sound += _per_sample(gain) * hiss / hiss.std()
    sound = sound[:samples]
    sound = 0.1 * sound / np.sqrt(np.mean(sound**2))
    return (np.round(sound * 2**15) / 2**15).astype(np.float32)


def _score(who: Voice, frames: int, random: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Per frame: loudness of the voice, formants (Hz), pitch (Hz), gains of the noise bands."""
    loudness, noise = np.zeros(frames), np.zeros((frames, len(BANDS)))
    formants, accents = np.zeros((frames, 4)), np.zeros(frames)
    position = 0
    while position < frames:
        onset = round(FRAMES_PER_S * random.uniform(0.03, 0.10))
        nucleus = round(FRAMES_PER_S * random.uniform(0.6, 1.3) / who.tempo)
        pause = round(FRAMES_PER_S * random.uniform(0.1, 0.3)) if random.random() < 0.15 else 0
        vowel = np.append(VOWELS[random.integers(len(VOWELS))], 3500.0) * who.formant_scale * random.uniform(0.96, 1.04, 4)
        everything = slice(position, position + onset + nucleus + pause)
        voiced = slice(position + onset, position + onset + nucleus)
        formants[everything], accents[everything] = vowel, random.normal()
        loudness[voiced] = random.uniform(0.6, 1.0)
        if random.random() < 0.7:  # a fricative, or a burst of a few frames
            start = position if random.random() < 0.5 else position + max(0, onset - 3)
            noise[start : position + onset, random.integers(len(BANDS))] = random.uniform(0.1, 0.5)
        position = everything.stop
    time = np.arange(frames) / FRAMES_PER_S
    semitones = who.melody * _smooth(accents, 40) - 1.5 * ((time / 2.5) % 1)
    drift = np.cumsum(random.standard_normal(frames)) / np.sqrt(FRAMES_PER_S) * 0.2
    pitch = who.pitch * 2 ** ((semitones + drift - drift.mean()) / 12)
    pitch *= 1 + who.vibrato_depth * np.sin(2 * np.pi * who.vibrato_hz * time)
    loudness = _smooth(loudness, 7)
    noise = np.stack([_smooth(gain, 3) for gain in noise.T], 1) + who.breath * loudness[:, None]
    return loudness, np.stack([_smooth(track, 13) for track in formants.T], 1), np.clip(pitch, 60, 400), noise


def _smooth(track: Array, width: int) -> Array:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _per_sample(track: Array) -> Array:
    """A track of F frames as (F - 1) * 40 samples, linearly between them."""
    weight = np.arange(HOP) / HOP
    return (track[:-1, None] * (1 - weight) + track[1:, None] * weight).ravel()


def _harmonics(who: Voice, loudness: Array, formants: Array, pitch: Array) -> Array:
    """Sum over harmonics k of tilt(k) · H(k f0) · exp(i k phase), real part; H is the product of the formants' resonances."""
    turn = np.exp(2j * np.pi * np.cumsum(_per_sample(pitch)) / RATE)
    harmonic, sound = np.ones_like(turn), np.zeros(len(turn))
    squares = formants**2
    for k in range(1, int(3700 / pitch.min()) + 1):
        harmonic *= turn
        frequency = k * pitch
        response = np.prod(squares / (squares - frequency[:, None] ** 2 + 1j * frequency[:, None] * BANDWIDTHS), axis=1)
        fade = np.clip((3800 - frequency) / 200, 0, 1)  # nothing beyond the Nyquist frequency
        gain = loudness * fade * response * 10 ** (who.tilt / 20 * np.log2(k))
        sound += (_per_sample(gain) * harmonic).real
    return sound / np.abs(sound).max()
