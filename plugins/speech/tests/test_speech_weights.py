"""Initial weights: packaged ones, and files of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ocd_bench import Progress, Request, Splits, UsageError
from ocd_bench_speech import weights
from ocd_bench_speech.models import build
from ocd_bench_speech.task import SpeechSettings, SpeechTask

SMALL = {
    "seconds": 0.5, "train_mixtures": 6, "val_mixtures": 4, "test_mixtures": 4, "speeds": (1.0,), "channels": 8, "hidden": 6,
    "blocks": 1, "kernel": 32, "base_steps": 2, "base_batch": 2, "base_checks": 1,
}  # fmt: skip
TASK = SpeechTask()


def request(folder: Path, **changes: Any) -> Request:
    settings = SpeechSettings(**{**SMALL, **changes})  # type: ignore[arg-type]
    return Request("speech", "voices", settings, "quick", data_dirs=(folder,))


def saved(path: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """A state dict of the small model in half precision, also written to ``path``."""
    torch.manual_seed(7)
    state = {name: tensor.half() for name, tensor in build(request(path, **changes).settings).state_dict().items()}
    torch.save(state, path)
    return state


def has(model: torch.nn.Module, state: dict[str, torch.Tensor], but: str = "nothing") -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], tensor.float()) for name, tensor in state.items() if not name.startswith(but))


def trained(request: Request, splits: Splits, model: torch.nn.Module | None = None) -> torch.nn.Module:
    model = model or TASK.base_model(splits, request)
    return TASK.train_base(model, splits, request, Progress())


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def splits() -> Splits:
    return TASK.load_data(request(Path(), checkpoint="none"))


def test_packaged_weights_are_the_base_and_the_note_names_them(shelf: Path, splits: Splits) -> None:
    state, asked = saved(shelf / "voices-2.pt"), request(shelf)
    assert has(
        TASK.base_model(splits, asked), state
    )  # loaded at once, because the cache distinguishes bases by their initial weights
    assert has(trained(asked, splits), state)
    assert TASK.load_data(asked).note == splits.note + "; base weights packaged (voices-2.pt)"


@pytest.mark.parametrize(
    "changes", [{"speakers": 3}, {"channels": 16}, {"model": "conv_tasnet"}, {"checkpoint": "none"}, {"checkpoint": ""}]
)
def test_packaged_weights_that_do_not_fit_or_are_declined_are_not_used(shelf: Path, changes: dict[str, Any]) -> None:
    saved(shelf / "voices-2.pt")
    asked = request(shelf, **changes)
    splits = TASK.load_data(asked)
    assert "packaged" not in splits.note
    model = TASK.base_model(splits, asked)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not has(trained(asked, splits, model), before)


def test_packaged_weights_of_another_size_than_their_name_are_not_used(shelf: Path) -> None:
    saved(shelf / "voices-2.pt", speakers=3)
    assert weights.packaged(request(shelf)) is None


def test_a_swapped_model_is_trained_in_spite_of_packaged_weights(shelf: Path, splits: Splits) -> None:
    saved(shelf / "voices-2.pt")
    other = build(request(shelf, channels=16).settings)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert not has(trained(request(shelf), splits, other), before)


def test_a_damaged_packaged_file_is_named(shelf: Path) -> None:
    (shelf / "voices-2.pt").write_bytes(b"PK damaged")
    with pytest.raises(UsageError, match="voices-2.pt: not a readable file of weights"):
        TASK.load_data(request(shelf))


def test_training_starts_from_the_given_file(tmp_path: Path, splits: Splits) -> None:
    state = saved(tmp_path / "mine.pt")
    asked = request(tmp_path, checkpoint="mine.pt")
    assert has(TASK.base_model(splits, asked), state)
    assert not has(trained(asked, splits), state)
    assert TASK.load_data(asked).note.endswith("; base begins from mine.pt")
    kept = request(tmp_path, checkpoint="mine.pt", base_steps=0)
    assert has(trained(kept, splits), state)
    assert has(trained(kept, splits, build(kept.settings)), state)  # also into a model that a plugin swapped in


@pytest.mark.parametrize(
    ("model", "layer"), [("gated_lstm", "output_projection"), ("conv_tasnet", "network.mask_generator.output_conv")]
)
def test_with_another_number_of_speakers_the_projection_keeps_random_weights(
    tmp_path: Path, splits: Splits, model: str, layer: str
) -> None:
    state = saved(tmp_path / "two.pt", model=model)
    asked = request(tmp_path, checkpoint="two.pt", speakers=3, model=model)
    torch.manual_seed(1)
    begun = TASK.base_model(splits, asked)
    assert has(begun, state, but=layer)
    torch.manual_seed(1)
    assert torch.equal(begun.get_parameter(f"{layer}.weight"), build(asked.settings).get_parameter(f"{layer}.weight"))
    for changes in ({"base_steps": 0}, {"hidden": 12}):
        with pytest.raises(UsageError, match=r"two.pt: '.*' is .*, the model has .*; choose speech.model and its sizes"):
            TASK.base_model(splits, request(tmp_path, checkpoint="two.pt", speakers=3, model=model, **changes))


def test_a_missing_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"setting speech.checkpoint='gone.pt': no such file; looked for gone.pt, .*gone.pt"):
        TASK.load_data(request(tmp_path, checkpoint="gone.pt"))


def test_packaged_weights_fit_the_default_preset() -> None:
    """Every file is read, names a dataset and a number of speakers, and is small enough to be shipped."""
    names = [dataset.name for dataset in TASK.datasets()]
    for path in sorted(weights.FOLDER.glob("*")) if weights.FOLDER.is_dir() else ():
        dataset, _, speakers = path.stem.rpartition("-")
        assert dataset in names
        asked = Request("speech", dataset, SpeechSettings(speakers=int(speakers)))
        assert weights.packaged(asked) == path
        assert path.stat().st_size < 4 * 2**20
