"""LibriMix folders in the layout of its scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_speech.librimix import read_librimix
from ocd_bench_speech.task import SpeechSettings, SpeechTask

COUNTS = {"train": 4, "val": 3, "test": 3}


def make(root: Path, speakers: int = 2, rate: int = 8000, samples: int = 4000) -> Path:
    """A tiny Libri{C}Mix: five mixtures of each subset, source i of power (i + 1)^2."""
    random = np.random.default_rng(0)
    for subset, first in (("train-100", 100), ("dev", 200), ("test", 300)):
        base = root / f"Libri{speakers}Mix" / f"wav{rate // 1000}k" / "min" / subset
        for number in range(5):
            name = "_".join(f"{first + number + 10 * i}-7-000{i}" for i in range(speakers)) + ".wav"
            sources = [0.05 * (i + 1) * random.standard_normal(samples) for i in range(speakers)]
            for folder, wave in [*((f"s{i + 1}", s) for i, s in enumerate(sources)), ("mix_clean", sum(sources))]:
                (base / folder).mkdir(parents=True, exist_ok=True)
                soundfile.write(str(base / folder / name), wave, rate, subtype="FLOAT")
    return root


def read(folder: Path, speakers: int = 2, length: int = 1000, **changes: object):
    generator = torch.Generator().manual_seed(0)
    options = {"train": "train-100", "mode": "min", "counts": COUNTS, **changes}
    return read_librimix(folder, speakers, length, generator=generator, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("speakers", [2, 3, 4, 5])
def test_mixtures_keep_the_levels_of_the_files(tmp_path: Path, speakers: int) -> None:
    mixtures = read(make(tmp_path, speakers), speakers)
    assert mixtures.val.shape == mixtures.test.shape == (3, speakers, 1000)
    torch.testing.assert_close(mixtures.test.sum(1).square().mean(-1), torch.ones(3))
    levels = mixtures.test.square().mean(-1).sqrt()
    torch.testing.assert_close(levels / levels[:, :1], torch.arange(1.0, speakers + 1).expand(3, -1), rtol=0.15, atol=0)
    assert not torch.equal(mixtures.val, mixtures.test)


def test_speakers_of_a_mixture_are_told_by_its_name(tmp_path: Path) -> None:
    mixtures = read(make(tmp_path, 3), 3)
    speakers = mixtures.speakers["test"]
    assert speakers is not None
    assert speakers.shape == (3, 3)
    assert all(len(set(row)) == 3 for row in speakers.tolist())


def test_sources_of_training_mixtures_are_speech_by_speaker(tmp_path: Path) -> None:
    mixtures = read(make(tmp_path))
    assert len(mixtures.train) == 8
    assert all(100 <= int(speaker) < 120 for speaker in mixtures.train)
    assert all(len(wave) == 4000 for waves in mixtures.train.values() for wave in waves)


def test_the_folder_itself_may_be_given_and_16_khz_is_resampled(tmp_path: Path) -> None:
    make(tmp_path, rate=16000)
    mixtures = read(tmp_path / "Libri2Mix")
    assert "resampled from 16000 Hz" in mixtures.note
    assert all(len(wave) == 2000 for waves in mixtures.train.values() for wave in waves)


def test_missing_folders_and_short_mixtures_are_errors(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataMissing, match="Libri3Mix has neither wav8k nor wav16k"):
        read(tmp_path, 3)
    with pytest.raises(DataMissing, match=r"no mixture in .*train-360"):
        read(tmp_path, train="train-360")
    with pytest.raises(UsageError, match="no mixture is as long as the segments"):
        read(tmp_path, length=5000)
    next((tmp_path / "Libri2Mix/wav8k/min/test/s2").iterdir()).unlink()
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path, counts={**COUNTS, "test": 5})


@pytest.mark.parametrize("speakers", [2, 5])
def test_the_task_reads_it_by_name(tmp_path: Path, speakers: int) -> None:
    make(tmp_path / "librimix", speakers)
    settings = SpeechSettings(speakers=speakers, seconds=0.25, train_mixtures=6, val_mixtures=3, test_mixtures=4, speeds=(1.0,))
    splits = SpeechTask().load_data(Request("speech", "librimix", settings, data_dirs=(tmp_path,)))
    assert splits.train.targets.shape == (6, speakers, 2000)
    assert splits.test.targets.shape == (4, speakers, 2000)
    assert "train-100 / dev / test, mode min" in splits.note
