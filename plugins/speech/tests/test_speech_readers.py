"""Corpora as people have them: the right speakers and sound, or one line that says why not; silence is never a source."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ocd_bench import DataMissing, Request, Splits, UsageError
from ocd_bench.seeds import generator
from ocd_bench_speech.audio import Reader
from ocd_bench_speech.corpus import read_folder, with_more
from ocd_bench_speech.librimix import read_librimix
from ocd_bench_speech.listing import list_utterances
from ocd_bench_speech.mixing import Pool
from ocd_bench_speech.task import SpeechSettings, SpeechTask

PEOPLE = ("anna", "bela", "cem", "dora", "emil", "fay")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def voice(pitch: float, seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = 8000, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), wave, rate, **options)
    return path


def corpus(folder: Path, name: str = "{person}/{take}.wav", takes: int = 3) -> Path:
    for number, person in enumerate(PEOPLE):
        for take in range(takes):
            write(
                folder / name.format(person=person, take=take, word=("hello", "world", "again")[take % 3]),
                voice(100 + 30 * number),
            )
    return folder


def speakers(folder: Path, **options: str) -> list[str]:
    return sorted({utterance.speaker for utterance in list_utterances(folder, **options).all})


def load(folder: Path, dataset: str = "mine", **settings: object) -> Splits:
    given = {"seconds": 0.25, "train_mixtures": 6, "val_mixtures": 3, "test_mixtures": 4, "speeds": (1.0,), **settings}
    return SpeechTask().load_data(Request("speech", dataset, SpeechSettings(**given), data_dirs=(folder,)))  # type: ignore[arg-type]


# -- who speaks -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["{person}/{take}_{word}_7.wav", "{person}/a-{take}.wav", "train/{person}/{take}_{word}_1.wav"]
)
def test_the_speakers_folder_counts_before_a_pattern_in_the_name(tmp_path: Path, name: str) -> None:
    assert speakers(corpus(tmp_path, name)) == sorted(PEOPLE)


def test_takes_of_other_corpora_are_not_ranked_as_fsdds(tmp_path: Path) -> None:
    corpus(tmp_path, "{person}/{take}_{word}_7.wav", 10)
    assert all(utterance.takes == 1 for utterance in list_utterances(tmp_path).all)
    found = read_folder(tmp_path, 4, 10.0, seeded())
    assert "same speakers, other recordings" in found.note
    assert [len(part) for part in (found.train, found.val, found.test)] == [6, 6, 6]
    assert "speakers by folders" in found.note


def test_folders_of_fsdds_speakers_keep_their_takes(tmp_path: Path) -> None:
    corpus(tmp_path, "{person}/3_{person}_{take}.wav", 6)
    assert {(utterance.rank, utterance.takes) for utterance in list_utterances(tmp_path).all} == {
        (take, 50) for take in range(6)
    }


def test_loose_files_beside_speaker_folders_are_refused(tmp_path: Path) -> None:
    write(corpus(tmp_path) / "intro.wav", voice(300))
    with pytest.raises(UsageError, match=r"1 other beside them \(the first is intro.wav\)"):
        list_utterances(tmp_path)


def test_one_recording_in_two_formats_is_refused(tmp_path: Path) -> None:
    write(corpus(tmp_path) / "anna" / "0.flac", voice(100))
    with pytest.raises(UsageError, match="0.flac and 0.wav in one folder could be one recording"):
        list_utterances(tmp_path)


# -- lists ------------------------------------------------------------------------------------------------------------------
def rows(subset: bool = True) -> list[tuple[str, ...]]:
    head = ("file", "subset", "speaker_id") if subset else ("file", "speaker_id")
    body = [
        (f"{person}/{take}.wav", *(("test" if person in PEOPLE[4:] else "train",) if subset else ()), person)
        for person in PEOPLE
        for take in range(3)
    ]
    return [head, *body]


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding", "change"),
    [
        ("manifest.csv", ",", "utf-8", str),
        ("manifest.csv", ",", "utf-8-sig", str),
        ("Manifest.CSV", ";", "utf-8-sig", str),
        ("manifest.tsv", "\t", "utf-8", str),
        ("manifest.csv", ",", "utf-16", str),
        ("manifest.csv", ",", "utf-8", lambda text: text.replace("\n", "\r\n")),
        ("manifest.csv", ",", "utf-8", lambda text: text.replace("/", "\\")),
        ("manifest.csv", ",", "utf-8", lambda text: text.replace("file,subset,speaker_id", "Path, Split ,SPEAKER")),
        ("manifest.csv.gz", ",", "utf-8", str),
    ],
)
def test_a_list_is_read_as_people_save_it(tmp_path: Path, name: str, delimiter: str, encoding: str, change: type) -> None:
    corpus(tmp_path)
    data = change("\n".join(delimiter.join(row) for row in rows())).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = list_utterances(tmp_path)
    assert [(u.path.parent.name, u.path.name, u.subset, u.speaker) for u in found.all] == [
        (*row[0].split("/"), row[1], row[2]) for row in rows()[1:]
    ]
    assert found.how == f"speakers as in {name}"
    assert read_folder(tmp_path, 2, 1.0, seeded()).test.keys() == {"emil", "fay"}


def test_a_list_without_subsets_is_split_here(tmp_path: Path) -> None:
    corpus(tmp_path)
    (tmp_path / "manifest.csv").write_text("\n".join(",".join(row) for row in rows(subset=False)))
    found = read_folder(tmp_path, 2, 1.0, seeded())
    assert "test: same speakers" in found.note or "test: new speakers" in found.note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file;subset;name\na;train;x", "no column speaker_id; columns: file, subset, name"),
        ("file,subset,speaker_id\na.wav,train,", "line 2: an empty cell; expected file, speaker_id, subset"),
        ("file,subset,speaker_id\na.wav,train,x\na.wav,test,x", "line 3: a.wav is also in line 2"),
        ("file,path,speaker_id\na,b,x", "no speakers"),
        ("path,wav,speaker_id\na,b,x", "path and wav could both be the column file"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    if said == "no speakers":
        assert [utterance.path.name for utterance in list_utterances(tmp_path).all] == ["a"]
        return
    with pytest.raises(UsageError) as caught:
        list_utterances(tmp_path)
    assert said in str(caught.value)


# -- files ------------------------------------------------------------------------------------------------------------------
def test_stray_files_are_left_out_others_named_and_unread_sound_refused(tmp_path: Path) -> None:
    corpus(tmp_path)
    (tmp_path / "anna" / "._0.wav").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (tmp_path / "anna" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "anna" / "mouth.mat").write_bytes(b"\0")
    found = list_utterances(tmp_path)
    assert len(found.all) == 18
    assert found.remarks == ["1 file left out: .mat"]
    (tmp_path / "anna" / "9.m4a").write_bytes(b"\0")
    with pytest.raises(UsageError, match=r"1 sound file in a format that is not read \(.m4a; the first is anna/9.m4a\)"):
        list_utterances(tmp_path)


def test_any_case_of_endings_and_the_dataset_links_and_nested_folders(tmp_path: Path) -> None:
    corpus(tmp_path / "store", "inner/{person}/{take}.WAV")
    (tmp_path / "Mine").symlink_to(tmp_path / "store")
    assert len(load(tmp_path).test) == 4
    with pytest.raises(DataMissing, match="'nowhere'"):
        load(tmp_path, "nowhere")


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 0), ("DOUBLE", 1e-7)],
)
def test_every_depth_gives_the_same_sound(tmp_path: Path, subtype: str, tolerance: float) -> None:
    wave = Reader().read(write(tmp_path / "a.wav", voice(200), subtype=subtype))
    assert np.abs(wave.numpy() - voice(200)).max() <= tolerance


@pytest.mark.parametrize("ending", ["flac", "ogg", "aiff", "au", "caf", "w64", "mp3"])
def test_every_format_of_soundfile_is_read(tmp_path: Path, ending: str) -> None:
    corpus(tmp_path, "{person}/{take}.wav")
    for path in tmp_path.rglob("*.wav"):
        samples, rate = soundfile.read(str(path))
        soundfile.write(str(path.with_suffix(f".{ending}")), samples, rate)
        path.unlink()
    assert len(read_folder(tmp_path, 2, 10.0, seeded()).train) == 4
    wave = Reader().read(next(tmp_path.rglob(f"*.{ending}")))
    assert len(wave) == pytest.approx(4000, abs=1200)


def test_mixed_rates_and_channels_are_said(tmp_path: Path) -> None:
    reader = Reader()
    for rate in (8000, 16000, 44100, 4000):
        wave = reader.read(write(tmp_path / f"{rate}.wav", voice(200, 1.0, rate), rate))
        assert len(wave) == 8000
        assert int(torch.fft.rfft(wave).abs().argmax()) == 200
    reader.read(write(tmp_path / "two.wav", np.stack([voice(200), voice(300)], 1)))
    assert reader.note() == (
        "; resampled from 4000, 16000, 44100 Hz; 1 file of less than 8000 Hz, without the higher frequencies; "
        "channels of 1 file averaged"
    )


def test_channels_that_cancel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its channels cancel each other"):
        Reader().read(write(tmp_path / "a.wav", np.stack([voice(200), -voice(200)], 1)))


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", voice(200), subtype="FLOAT")
    packed = path.with_name("b.wav.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert torch.equal(Reader().read(packed), Reader().read(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "breaks off: its header promises 8,000 bytes of sound, 3,978 are there"),
        (lambda data: data[:24] + (2147483629).to_bytes(4, "little") + data[28:], "a sampling rate of 2,147,483,629 Hz"),
        (lambda data: data[:24] + (7).to_bytes(4, "little") + data[28:], "a sampling rate of 7 Hz"),
        (lambda data: data[:24] + (48_611).to_bytes(4, "little") + data[28:], "no simple ratio to 8,000"),
        (lambda data: b"RIFF" + b"\0" * 40, "cannot be read: damaged or of another format"),
        (lambda data: b"<html>", "cannot be read: damaged or of another format"),
    ],
)
def test_a_damaged_file_is_named_with_its_cause(tmp_path: Path, change: type, said: str) -> None:
    path = write(tmp_path / "a.wav", voice(200))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError) as caught:
        Reader().read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flac_that_breaks_off_and_one_of_hours_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(0).standard_normal(40_000) * 0.1)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(UsageError, match="a.flac"):
        Reader().read(path)
    long = tmp_path / "long.flac"
    with soundfile.SoundFile(str(long), "w", 8000, 1) as file:
        for _ in range(129):
            file.write(np.zeros(2**20, np.int16))
    with pytest.raises(UsageError, match="long.flac: 135,266,304 samples of 1 channel; cut it into shorter files"):
        Reader().read(long)


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(UsageError, match="a named pipe"):
        Reader().read(tmp_path / "a.wav")


# -- silence ----------------------------------------------------------------------------------------------------------------
def test_silent_files_are_left_out_and_said_and_silent_speakers_refused(tmp_path: Path) -> None:
    corpus(tmp_path)
    write(tmp_path / "anna" / "0.wav", np.zeros(4000, np.float32))
    write(tmp_path / "bela" / "0.wav", np.full(4000, 0.25, np.float32))
    assert "2 silent files left out: " in read_folder(tmp_path, 2, 10.0, seeded()).note
    for take in range(3):
        write(tmp_path / "cem" / f"{take}.wav", np.zeros(4000, np.float32))
    with pytest.raises(UsageError, match="speaker 'cem' has no sound in any file"):
        read_folder(tmp_path, 2, 10.0, seeded())


def test_long_silences_are_never_a_source() -> None:
    rare = {
        name: [torch.cat([torch.from_numpy(voice(pitch)), torch.zeros(400_000)])] for name, pitch in (("a", 100), ("b", 170))
    }
    pool = Pool(rare, 2000)
    sources = pool.draw(200, 2, 0.0, seeded())
    assert (sources.square().mean(-1) > 0.01).all()
    plan = pool.plan(200, 2, 0.0, seeded())
    assert len(plan.starts.unique()) > 20
    again = pool.plan(200, 2, 0.0, seeded())
    assert torch.equal(plan.starts, again.starts)


def librimix(root: Path, sources: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    for subset in ("train-100", "dev", "test"):
        base = root / "Libri2Mix" / "wav8k" / "max" / subset
        for number, pair in enumerate(sources):
            name = f"{10 + number}-1-0_{50 + number}-2-0.wav"
            for folder, wave in (("s1", pair[0]), ("s2", pair[1]), ("mix_clean", pair[0] + pair[1])):
                write(base / folder / name, wave, subtype="FLOAT")
    return root


def test_mode_max_scores_no_silent_end(tmp_path: Path) -> None:
    """The second speaker says half a second, then nothing for nine and a half."""
    pairs = [
        (voice(100 + 7 * n, 10.0), np.concatenate([voice(180 + 7 * n, 0.5), np.zeros(76_000, np.float32)])) for n in range(6)
    ]
    counts = {"train": 6, "val": 6, "test": 6}
    mixtures = read_librimix(librimix(tmp_path, pairs), 2, 2000, "train-100", "max", counts, seeded())
    power = mixtures.test.square().mean(-1)
    assert (power.amin(1) / power.amax(1) > 0.02).all()
    assert all(len(wave) <= 4000 for speaker, waves in mixtures.train.items() if int(speaker) >= 50 for wave in waves)
    assert "silent ends of the sources left off" in mixtures.note


def test_mixtures_in_which_two_never_speak_at_a_time_are_left_out(tmp_path: Path) -> None:
    apart = (
        np.concatenate([voice(100, 1.0), np.zeros(72_000, np.float32)]),
        np.concatenate([np.zeros(72_000, np.float32), voice(180, 1.0)]),
    )
    both = (voice(100, 10.0), voice(180, 10.0))
    counts = {"train": 2, "val": 2, "test": 2}
    found = read_librimix(librimix(tmp_path / "a", [apart, both]), 2, 2000, "train-100", "max", counts, seeded())
    assert found.test.shape[0] == 1
    assert "1 of 2 test mixtures left out, where a source is silent" in found.note
    with pytest.raises(UsageError, match="each mixture has a silent source in any 0.25 s window"):
        read_librimix(librimix(tmp_path / "b", [apart, apart]), 2, 2000, "train-100", "max", counts, seeded())


# -- speech of other folders --------------------------------------------------------------------------------------------------
def test_more_speech_is_for_training_only_and_leaves_out_the_speakers_set_apart(tmp_path: Path) -> None:
    mine = corpus(tmp_path / "mine", takes=2)
    before = load(tmp_path)
    corpus(tmp_path / "more", "{person}/b{take}.wav", takes=4)
    after = load(tmp_path, more_train=("more",))
    for name in ("val", "test"):
        assert torch.equal(getattr(before, name).inputs, getattr(after, name).inputs)
    found = read_folder(mine, 2, 10.0, seeded())
    more = with_more(found, tmp_path / "more", 10.0)
    assert (more.val, more.test) == (found.val, found.test)
    assert {name: len(waves) for name, waves in more.train.items()} == {
        name: len(waves) + 4 for name, waves in found.train.items()
    }
    assert "more of 4 speakers from more (2 of validation or test left out; speakers by folders)" in more.note
    assert after.extras["pool"].seconds_of_speech > before.extras["pool"].seconds_of_speech


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (("nowhere",), DataMissing, "nowhere"),
        (("empty",), DataMissing, "no sound file in"),
        (("held",), UsageError, "every speaker"),
    ],
)
def test_more_speech_that_is_not_there_or_is_all_held_out_is_one_line(
    tmp_path: Path, names: tuple[str, ...], error: type[Exception], message: str
) -> None:
    corpus(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    for held in read_folder(tmp_path / "mine", 2, 10.0, generator("speech", "mine", "", 0, "split")).test:
        write(tmp_path / "held" / held / "x.wav", voice(200))
    with pytest.raises(error, match=message):
        load(tmp_path, more_train=names)


def test_embedded_voices_take_no_further_speech(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="voices takes no further speech"):
        load(tmp_path, "voices", more_train=("mine",))
