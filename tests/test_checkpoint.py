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
    assert misfit(fresh, state()).startswith("'2.weight' is 3 x 4, the model has 5 x 4 (all else fits: weights for 3 outputs")
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
        with pytest.raises(
            UsageError, match=r"w.pt: (not a readable file of weights|holds a Python object .os.system)"
        ) as caught:
            read_state(path)
        assert "\n" not in str(caught.value)
    for content in ([1, 2], {"a": 1}, {}, torch.ones(3)):
        torch.save(content, path)
        with pytest.raises(UsageError, match="not a state dict of named tensors"):
            read_state(path)
    torch.save(network(), path)  # a whole pickled model: never unpickled
    with pytest.raises(UsageError, match=r"holds a Python object \(torch.nn.modules.container.Sequential\)"):
        read_state(path)


def test_files_are_looked_for_as_given_and_in_data_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("t.checkpoint", "w.pt", [tmp_path / "data"]) == tmp_path / "data" / "w.pt"
    assert find_checkpoint("t.checkpoint", str(tmp_path / "data" / "w.pt"), []) == tmp_path / "data" / "w.pt"
    with pytest.raises(UsageError, match=r"setting t.checkpoint='v.pt': no such file; looked for v.pt, .*data/v.pt"):
        find_checkpoint("t.checkpoint", "v.pt", [tmp_path / "data"])


# -- wrappers ---------------------------------------------------------------------------------------------------------------
def taken(path: Path, **options: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(network(), path, "hint", **options).state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def prefixed(prefix: str, entries: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in entries.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda entries: prefixed("module.", entries),
        lambda entries: prefixed("_orig_mod.", entries),
        lambda entries: prefixed("module._orig_mod.", entries),
        lambda entries: prefixed("encoder.", entries),
        lambda entries: {"net": entries, "acc": 98.1, "epoch": 3},
        lambda entries: {"model_state_dict": entries, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda entries: {"model_ema": entries},
        lambda entries: {"params_ema": prefixed("module.", entries)},
        lambda entries: {"state_dict": prefixed("model.", entries), "optimizer_states": [{"state": {}}], "epoch": 1},
        lambda entries: {"state_dict": {**prefixed("model.", entries), "criterion.weight": torch.ones(3)}},
        lambda entries: {"n_averaged": torch.tensor(5), **prefixed("module.", entries)},
        lambda entries: {"checkpoint": {"run": {"model": entries}}},
        lambda entries: {"optimizer": dict(entries), "weights": entries},
    ],
)
def test_weights_are_found_wherever_a_training_script_puts_them(tmp_path: Path, wrap: Callable[..., object]) -> None:
    wanted = state()
    torch.save(wrap(wanted), tmp_path / "w.pt")
    assert same(wanted, taken(tmp_path / "w.pt"))


def test_a_moving_average_beside_the_weights_is_chosen_by_a_setting(tmp_path: Path) -> None:
    plain, average = state(), state()
    torch.save({"model": plain, "model_ema": prefixed("module.", average)}, tmp_path / "w.pt")
    with pytest.raises(
        UsageError, match=r"several weights that fit \('model', 'model_ema/module'\); choose one with --set t.key=NAME"
    ):
        taken(tmp_path / "w.pt", setting="t.key")
    for key, wanted in (("model", plain), ("model_ema", average), ("model_ema/module", average)):
        assert same(wanted, taken(tmp_path / "w.pt", key=key))
    with pytest.raises(UsageError, match="no weights under 'ema'; it has 'model', 'model_ema'"):
        taken(tmp_path / "w.pt", key="ema")
    torch.save({"state_dict": {**prefixed("model.", plain), **prefixed("ema_model.", average)}}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="'state_dict/model', 'state_dict/ema_model'"):
        taken(tmp_path / "w.pt")


def test_a_layer_of_a_larger_network_is_not_taken_for_the_model(tmp_path: Path) -> None:
    larger = torch.nn.ModuleDict({"first": torch.nn.Linear(2, 2), "second": torch.nn.Linear(2, 2)})
    torch.save(larger.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError, match="'weight' is missing"):
        load_checkpoint(torch.nn.Linear(2, 2), tmp_path / "w.pt", "hint")


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    wanted = state()
    for name in ("w.safetensors", "w.bin"):
        save_file(prefixed("module.", wanted), tmp_path / name)
        assert same(wanted, taken(tmp_path / name))
    data = (tmp_path / "w.bin").read_bytes()
    for damaged in (data[:-9], data[:20], b"\xff\xff\x00\x00\0\0\0\0{" + data[9:]):
        (tmp_path / "w.bin").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"checkpoint .*w\.bin: "):
            taken(tmp_path / "w.bin")


def test_a_misfit_says_its_cause(tmp_path: Path) -> None:
    def said(entries: dict[str, torch.Tensor]) -> str:
        torch.save(entries, tmp_path / "w.pt")
        with pytest.raises(UsageError) as caught:
            taken(tmp_path / "w.pt")
        return str(caught.value)

    assert "all else fits: weights for 7 outputs, for example classes, not 3" in said(network(7).state_dict())
    assert "no tensor has a name of the model; the file begins with 'layer1.conv.weight'" in said(
        {"layer1.conv.weight": torch.ones(2)}
    )
    half = dict(list(state().items())[:3])
    assert "'1.bias' is missing (3 of the model's 9 tensors are in the file)" in said(half)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, cause: str) -> None:
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(UsageError, match=cause):
        read_state(tmp_path / "w.pt")


def test_half_a_file_a_program_and_a_number_of_numpy_say_what_they_are(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "w.pt"
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="breaks off before its end; get the whole file"):
        read_state(path)
    torch.jit.save(torch.jit.script(network()), path)
    with pytest.raises(UsageError, match="a TorchScript program, which is not run"):
        read_state(path)
    np.savez(tmp_path / "w.npz", weight=np.ones(3))
    with pytest.raises(UsageError, match="a zip file, but no checkpoint of PyTorch"):
        read_state(tmp_path / "w.npz")
    torch.save({"state_dict": state(), "best": np.float64(0.98)}, path)
    with pytest.raises(UsageError, match=r"a Python object \(numpy.*scalar\); reading it could run code") as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_no_pickle_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    for protocol in (0, 2, 4):
        import pickle

        (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Evil()}, protocol))
        with pytest.raises(UsageError):
            read_state(tmp_path / "w.pt")
    torch.save({"state_dict": state(), "hook": Evil()}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="a Python object"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "strange",
    [
        lambda value: value.to_sparse(),
        lambda value: value.to("meta"),
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        lambda value: value.to(torch.complex64),
        lambda value: value.to(torch.int32),
        lambda value: value.to(torch.float8_e4m3fn),
        lambda value: value.double() * 1e300,
        lambda value: torch.ones(1).expand(10**12),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, strange: Callable[[torch.Tensor], torch.Tensor]) -> None:
    entries = state()
    entries["0.weight"] = strange(entries["0.weight"])
    torch.save(entries, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"checkpoint .*w\.pt: ") as caught:
        taken(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(UsageError, match="a named pipe, expected a regular file"):
        read_state(find_checkpoint("t.checkpoint", str(tmp_path / "w.pt"), []))
