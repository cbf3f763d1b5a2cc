"""State dicts from files: weights that fit are loaded, others are named in an error, no code in a file is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ocd_bench.checkpoint import find_checkpoint, load_checkpoint, misfit, read_state
from ocd_bench.errors import UsageError


def network(outputs: int = 3) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, outputs))


def state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network().state_dict().items()}


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_weights_are_loaded_unchanged(tmp_path: Path, key: str | None) -> None:
    wanted = state()
    del wanted["1.num_batches_tracked"]  # a file from before torch 0.4.1
    torch.save(wanted if key is None else {key: wanted, "epoch": 3}, tmp_path / "w.pt")
    model = load_checkpoint(network(), tmp_path / "w.pt", "hint")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in wanted.items())


def test_half_precision_becomes_the_models_own(tmp_path: Path) -> None:
    wanted = state()
    torch.save({name: value.half() for name, value in wanted.items()}, tmp_path / "w.pt")
    model = load_checkpoint(network(), tmp_path / "w.pt", "hint")
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, wanted["0.weight"].half().float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries.pop("0.bias"), "'0.bias' is missing"),
        (lambda entries: entries.update(head=torch.ones(1)), "'head' is not in the model"),
        (lambda entries: entries.update({"2.weight": torch.ones(7, 4)}), "'2.weight' is 7 x 4, the model has 3 x 4"),
        (lambda entries: entries["0.bias"].fill_(float("nan")), "'0.bias' holds NaN"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, change: Callable[..., object], said: str) -> None:
    entries = state()
    change(entries)
    torch.save(entries, tmp_path / "w.pt")
    with pytest.raises(UsageError) as caught:
        load_checkpoint(network(), tmp_path / "w.pt", "hint")
    assert f"{tmp_path / 'w.pt'}: {said}" in str(caught.value)


def test_only_the_named_tensors_may_keep_the_models_values(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    fresh = network(5)
    own = fresh[2].weight.clone()
    assert misfit(fresh, state()) == "'2.weight' is 3 x 4, the model has 5 x 4"
    model = load_checkpoint(fresh, tmp_path / "w.pt", "hint", anew=("2.weight", "2.bias"))
    assert torch.equal(model[2].weight, own)
    assert torch.equal(model[0].weight, read_state(tmp_path / "w.pt")["0.weight"])
    with pytest.raises(UsageError, match="'2.bias' is 3, the model has 5"):
        load_checkpoint(network(5), tmp_path / "w.pt", "hint", anew=("2.weight",))


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(state(), path)
    good = path.read_bytes()
    for data in (b"", b"junk", b"\x80\x02cos\nsystem\n.", good[: len(good) // 2]):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"w.pt: not a readable file of weights") as caught:
            read_state(path)
        assert "\n" not in str(caught.value)
    for content in ([1, 2], {"a": 1}, {}, torch.ones(3)):
        torch.save(content, path)
        with pytest.raises(UsageError, match="not a state dict of named tensors"):
            read_state(path)
    torch.save(network(), path)  # a whole pickled model: never unpickled
    with pytest.raises(UsageError, match="not a readable file of weights"):
        read_state(path)


def test_files_are_looked_for_as_given_and_in_data_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("t.checkpoint", "w.pt", [tmp_path / "data"]) == tmp_path / "data" / "w.pt"
    assert find_checkpoint("t.checkpoint", str(tmp_path / "data" / "w.pt"), []) == tmp_path / "data" / "w.pt"
    with pytest.raises(UsageError, match=r"setting t.checkpoint='v.pt': no such file; looked for v.pt, .*data/v.pt"):
        find_checkpoint("t.checkpoint", "v.pt", [tmp_path / "data"])
