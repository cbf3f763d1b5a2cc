"""The task through its public interface: conformance, data by request, training, sounds, and refused settings."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from ocd_bench import DataMissing, Progress, Request, Splits, UsageError
from ocd_bench.testing import TaskConformance
from ocd_bench_speech.separation import pit_si_sdr
from ocd_bench_speech.task import SpeechSettings, SpeechTask

TINY = {
    "seconds": 0.5, "train_mixtures": 24, "val_mixtures": 8, "test_mixtures": 10, "speeds": (1.0,), "channels": 16, "hidden": 8,
    "blocks": 1, "kernel": 32, "base_steps": 6, "base_batch": 2, "base_lr": 6e-3, "base_checks": 2,
}  # fmt: skip
TASK = SpeechTask()


def request(dataset: str = "voices", folder: Path | None = None, seed: int = 0, **changes: Any) -> Request:
    settings = SpeechSettings(**{**TINY, **changes})  # type: ignore[arg-type]
    return Request("speech", dataset, settings, "quick", seed, data_dirs=(folder,) if folder else ())


@pytest.fixture(scope="module")
def splits() -> Splits:
    return TASK.load_data(request())


class TestSpeech(TaskConformance):
    task = TASK
    overrides = {f"speech.{key}": value for key, value in TINY.items()}


def test_a_mixture_is_the_sum_of_its_sources(splits: Splits) -> None:
    for part in (splits.train, splits.val, splits.test):
        assert part.inputs.shape == (len(part), 4000)
        assert part.targets.shape == (len(part), 2, 4000)
        assert torch.equal(part.inputs, part.targets.sum(1))


def test_five_speakers_and_metrics_of_the_truth() -> None:
    data = TASK.load_data(request(speakers=5, train_mixtures=3, val_mixtures=2, test_mixtures=4))
    assert data.test.targets.shape == (4, 5, 4000)
    scores = TASK.metrics(data.test.targets.flip(1) + 1e-3 * torch.randn(4, 5, 4000), data.test.targets)
    assert (scores["si_sdr"] > 40).all()
    assert (scores["si_sdri"] > scores["si_sdr"] + 3).all()
    doing_nothing = data.test.inputs[:, None].expand(-1, 5, -1)
    torch.testing.assert_close(TASK.metrics(doing_nothing, data.test.targets)["si_sdri"], torch.zeros(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("speakers", [2, 3, 4, 5])
def test_the_improvement_is_that_of_torchmetrics(speakers: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.audio")
    data = TASK.load_data(request(speakers=speakers, train_mixtures=2, val_mixtures=2, test_mixtures=4))
    mixture, truth = data.test.inputs, data.test.targets
    estimate = (truth + 0.3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).flip(1)
    si_sdr = functional.scale_invariant_signal_distortion_ratio
    best, _ = functional.permutation_invariant_training(estimate, truth, si_sdr, eval_func="max", zero_mean=True)
    nothing = si_sdr(mixture[:, None].expand_as(truth), truth, zero_mean=True).mean(-1)
    torch.testing.assert_close(TASK.metrics(estimate, truth)["si_sdri"], best - nothing, atol=1e-3, rtol=0)


def test_every_seed_has_the_same_data_and_its_own_training(splits: Splits) -> None:
    again = TASK.load_data(request(seed=1))
    assert torch.equal(again.test.inputs, splits.test.inputs)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        asked = request(seed=seed)
        model = TASK.train_base(TASK.base_model(splits, asked), splits, asked, Progress())
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_improves_the_separation(splits: Splits) -> None:
    asked = request(base_steps=60, base_checks=3, base_batch=4)
    torch.manual_seed(0)
    model, calls = TASK.base_model(splits, asked), []
    with torch.no_grad():
        before = float(pit_si_sdr(model.eval()(splits.val.inputs), splits.val.targets).mean())
    TASK.train_base(model, splits, asked, Progress(lambda done, total: calls.append((done, total))))
    with torch.no_grad():
        after = float(pit_si_sdr(model.eval()(splits.val.inputs), splits.val.targets).mean())
    assert calls[0] == (1, 60)
    assert calls[-1] == (60, 60)
    assert after > before + 6
    assert after > 0


def test_training_takes_the_samples_of_another_plugin(splits: Splits) -> None:
    foreign = dataclasses.replace(splits, extras={})
    asked = request(model="conv_tasnet", channels=8, base_steps=3)
    model = TASK.base_model(foreign, asked)
    before = [p.clone() for p in model.parameters()]
    TASK.train_base(model, foreign, asked, Progress())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_augmented_mixtures_are_sums_of_the_same_voices(splits: Splits) -> None:
    inputs, targets = TASK.augment(splits.train.inputs, splits.train.targets, torch.Generator().manual_seed(0))
    torch.testing.assert_close(inputs, targets.sum(1))
    ratio = targets / splits.train.targets
    spread = ratio.nan_to_num().std(-1)
    assert spread.median() < 1e-4
    assert (ratio.median(-1).values < 0).any()


def test_a_folder_of_any_name(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for speaker in range(7):
        (tmp_path / "mine" / f"s{speaker}").mkdir(parents=True)
        wave = 0.1 * torch.randn(9000, generator=generator)
        soundfile.write(str(tmp_path / "mine" / f"s{speaker}" / "a.flac"), wave.numpy(), 16000)
    data = TASK.load_data(request("mine", tmp_path))
    assert len(data.test) == 10
    assert "resampled from 16000 Hz" in data.note
    with pytest.raises(DataMissing, match="'theirs' of task 'speech' not found"):
        TASK.load_data(request("theirs", tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speakers": 6}, "speech.speakers=6: expected 2 to 5"),
        ({"seconds": 0.01}, "speech.seconds=0.01: expected"),
        ({"kernel": 7}, "speech.kernel=7: expected an even number"),
        ({"speeds": ()}, "speech.speeds"),
        ({"speeds": (3.0,)}, "speech.speeds"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TASK.load_data(request(**changes))


def test_presets_are_settings() -> None:
    for preset in SpeechSettings.presets.values():
        made = SpeechSettings(**preset)  # raises for a value out of range
        assert {name: getattr(made, name) for name in preset} == preset
        assert made != SpeechSettings()


def test_figures_writes_aligned_wav_files(splits: Splits, tmp_path: Path) -> None:
    outputs = {"base": splits.test.targets.flip(1) * 0.01, "ocd-x5": splits.test.targets[:5]}
    paths = TASK.figures(splits, outputs, request(), tmp_path / "speech")
    assert len(paths) == 3 * (1 + 3 * 2)
    assert {path.name for path in paths} >= {"0-mixture.wav", "2-truth-1.wav", "1-base-2.wav", "0-ocd-x5-1.wav"}
    truth, rate = soundfile.read(str(tmp_path / "speech" / "0-truth-1.wav"))
    estimate, _ = soundfile.read(str(tmp_path / "speech" / "0-base-1.wav"))
    assert rate == 8000
    assert abs(truth - estimate).max() < 1e-3  # aligned and at the truth's level


def test_importing_the_plugin_loads_nothing_heavy() -> None:
    heavy = ("torch", "torchaudio", "soundfile", "scipy", "numpy")
    code = f"import sys, ocd_bench_speech; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
