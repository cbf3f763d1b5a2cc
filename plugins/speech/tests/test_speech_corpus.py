"""Folders of utterances: the speaker of each file, the speakers of each split, and refused folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ocd_bench import DataMissing, UsageError
from ocd_bench_speech.audio import Reader
from ocd_bench_speech.corpus import read_folder
from ocd_bench_speech.listing import from_names, subset_of


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def write(path: Path, samples: int = 800, rate: int = 8000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(samples)[:, None] * 440 * 2 * np.pi / rate) * np.ones(channels) * 0.5
    soundfile.write(str(path), wave, rate)
    return path


def real(name: str) -> Path:
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    for folder in (os.environ.get("OCD_BENCH_DATA"), beside):
        if folder and (Path(folder) / name).is_dir():
            return Path(folder) / name
    pytest.skip(f"real data {name!r}: neither $OCD_BENCH_DATA nor shared/data beside the checkout has it")


@pytest.mark.parametrize(
    ("files", "speakers", "subsets"),
    [
        (["anna/1.wav", "anna/2.wav", "bert/1.wav"], ["anna", "anna", "bert"], ["", "", ""]),
        (["anna-1.wav", "anna-2.wav", "bert_1.wav"], ["anna", "anna", "bert"], ["", "", ""]),
        (["0_theo_1.wav", "3_theo_9.wav", "3_jackson_4.wav"], ["theo", "jackson", "theo"], ["", "", ""]),
        (["LS/train-clean-100/19/198/19-198-0.flac", "LS/test-other/3/1/3-1-0.flac"], ["3", "19"], ["test", "train"]),
        (["train/a/1.wav", "train/b/1.wav", "dev/c/c-1.wav"], ["c", "a", "b"], ["val", "train", "train"]),
        (["wav48/p1/p1_1.wav", "wav48/p2/p2_1.wav"], ["p1", "p2"], ["", ""]),
    ],
)
def test_speaker_and_subset_are_read_from_names(
    tmp_path: Path, files: list[str], speakers: list[str], subsets: list[str]
) -> None:
    for file in files:
        write(tmp_path / file)
    found = from_names(tmp_path).all
    assert [u.speaker for u in found] == speakers
    assert [u.subset for u in found] == subsets


@pytest.mark.parametrize(("name", "subset"), [("train", "train"), ("dev-clean", "val"), ("test_other", "test"), ("devon", "")])
def test_subset_names(name: str, subset: str) -> None:
    assert subset_of(name) == subset


def test_speakers_are_disjoint_where_there_are_enough(tmp_path: Path) -> None:
    for speaker in "abcdefghij":
        write(tmp_path / speaker / "1.wav")
    corpus = read_folder(tmp_path, 2, 10.0, seeded())
    parts = [set(corpus.train), set(corpus.val), set(corpus.test)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set.union(*parts)) == 10
    again = read_folder(tmp_path, 2, 10.0, seeded())
    assert list(again.train) == list(corpus.train)


def test_few_speakers_share_splits_but_not_recordings(tmp_path: Path) -> None:
    for speaker in "abc":
        for take in range(10):
            write(tmp_path / speaker / f"{take}.wav", samples=100 + 10 * take + 100 * ord(speaker))
    corpus = read_folder(tmp_path, 2, 10.0, seeded())
    assert "same speakers, other recordings" in corpus.note
    for speaker in "abc":
        lengths = [{len(wave) for wave in part[speaker]} for part in (corpus.train, corpus.val, corpus.test)]
        assert [len(part) for part in lengths] == [8, 1, 1]
        assert len(set.union(*lengths)) == 10


def test_manifest_names_files_subsets_and_speakers(tmp_path: Path) -> None:
    rows = ["file,subset,speaker_id"]
    for subset, speakers in (("train_x", "abcdef"), ("test_y", "gh")):
        for speaker in speakers:
            write(tmp_path / "sound" / f"{speaker}.wav")
            rows.append(f"sound/{speaker}.wav,{subset},{speaker}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    corpus = read_folder(tmp_path, 2, 10.0, seeded())
    assert set(corpus.test) == {"g", "h"}
    assert len(corpus.val) == 2
    assert len(corpus.train) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,subset,speaker_id\na.wav,train,1", "no column file; columns: name, subset, speaker_id"),
        ("file,subset,speaker_id\na.wav,other,1", "subset 'other' begins with none of"),
        ("file,subset,speaker_id\na.wav,train,1", "no such file"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        read_folder(tmp_path, 2, 10.0, seeded())
    assert "\n" not in str(error.value)


def test_minutes_limit_the_speech_of_all_speakers_equally(tmp_path: Path) -> None:
    for speaker in "abcdefgh":
        for take in range(5):
            write(tmp_path / speaker / f"{take}.wav", samples=8000)
    corpus = read_folder(tmp_path, 2, 10 / 60, seeded())  # ten seconds
    assert sorted(len(waves) for waves in corpus.train.values()) == [2, 2, 3, 3]


def test_an_empty_folder_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="expected speaker sub-folders"):
        read_folder(tmp_path, 2, 1.0, seeded())


def test_too_few_speakers(tmp_path: Path) -> None:
    for take in range(20):
        write(tmp_path / "a" / f"{take}.wav")
        write(tmp_path / "b" / f"{take}.wav")
    with pytest.raises(UsageError, match="mixtures of 3 need as many speakers; the train split has 2"):
        read_folder(tmp_path, 3, 1.0, seeded())


def test_other_rates_and_channels_become_8_khz_mono(tmp_path: Path) -> None:
    reader = Reader()
    wave = reader.read(write(tmp_path / "a.wav", samples=16000, rate=16000, channels=2))
    assert wave.shape == (8000,)
    spectrum = torch.fft.rfft(wave).abs()
    assert int(spectrum.argmax()) == 440
    assert reader.note() == "; resampled from 16000 Hz; channels of 1 file averaged"
    kept = Reader()
    kept.read(write(tmp_path / "b.wav"))
    assert kept.note() == ""


def test_an_unreadable_sound_file_is_a_one_line_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF of nothing")
    empty = write(tmp_path / "empty.wav", samples=0)
    for path, reason in (
        (broken, "cannot be read: damaged or of another format"),
        (empty, "is empty"),
        (tmp_path / "none.wav", "no such file"),
    ):
        with pytest.raises(UsageError, match=reason) as error:
            Reader().read(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def test_fsdd_has_its_official_test_recordings_or_new_speakers() -> None:
    folder = real("fsdd")
    two = read_folder(folder, 2, 1.0, seeded())
    assert not set(two.test) & set(two.train)
    assert set(two.val) == set(two.train)
    assert "val: same speakers, other recordings, test: new speakers" in two.note
    four = read_folder(folder, 4, 1.0, seeded())
    assert set(four.test) == set(four.train)


def test_librispeech_has_new_speakers_everywhere() -> None:
    corpus = read_folder(real("librispeech_8k"), 2, 3.0, seeded())
    assert (len(corpus.train), len(corpus.val), len(corpus.test)) == (226, 25, 10)
    assert not set(corpus.train) & set(corpus.val)
    assert not set(corpus.train) & set(corpus.test)
