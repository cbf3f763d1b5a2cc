"""``run --keep-bases`` and ``run --bases``: bases in files, the row of the base that is trained here, refusals by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ocd_bench.cli import main
from ocd_bench.errors import UsageError
from ocd_bench.results import Key, read_run
from ocd_bench.runner.cells import Group
from ocd_bench.runner.stored import (
    Recipe,
    check_folder,
    check_seeds,
    read_tensors,
    with_stored_samples,
    write_samples,
    write_tensors,
)
from ocd_bench.samples import Samples, Splits
from tests.test_run import PLUGIN

RECIPE = Recipe("dots", "default", 0, {"base": {"lr": 0.1}}, "Linear")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs the task ``dots`` with two methods; another ``plugin`` text has other code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    caches = iter(range(100))

    def start(*options: str, plugin: str = PLUGIN, seeds: str = "0,1") -> int:
        monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / f"cache{next(caches)}"))  # as on another machine
        (tmp_path / "dots.py").write_text(plugin)
        words = ["run", "--task", "dots", "--plugin", "dots.py", "--methods", "base,t3a", "--preset", "quick", "--quiet"]
        return main([*words, "--seeds", seeds, *options])

    return start


def test_methods_run_on_the_stored_base_and_a_row_shows_the_one_trained_here(run):
    assert run("--out", "one", "--keep-bases") == 0
    assert len(list(Path("one/bases").glob("dots-default-s*.safetensors"))) == 2
    # The same model under a training that gives another base.
    other = PLUGIN.replace('return torch.nn.functional.cross_entropy(output, target, reduction="none")',
                           'return 2 * torch.nn.functional.cross_entropy(output, target, reduction="none")')  # fmt: skip
    assert run("--out", "two", "--bases", "one", plugin=other) == 0
    one, two = read_run("one"), read_run("two")
    for seed in (0, 1):
        before = {m: one.cells[Key("dots", "default", m, seed)]["fingerprint"]["base"] for m in ("base", "t3a")}
        after = {m: two.cells[Key("dots", "default", m, seed)]["fingerprint"]["base"] for m in ("base", "base-anew", "t3a")}
        assert {before["base"], before["t3a"]} == {after["base"], after["t3a"]}
        assert after["base-anew"] != after["base"]
        for method in ("base", "t3a"):
            key = Key("dots", "default", method, seed)
            assert (one.scores(key, "cross_entropy") * 2 == two.scores(key, "cross_entropy")).all()
    assert [key.method for key in two.cells if key.seed == 0] == ["base", "base-anew", "t3a"]


def test_the_base_trained_by_the_same_code_is_the_stored_one(run):
    assert run("--out", "one", "--keep-bases") == 0
    assert run("--out", "two", "--bases", "one/bases") == 0
    two = read_run("two")
    prints = {two.cells[Key("dots", "default", m, 0)]["fingerprint"]["base"] for m in ("base", "base-anew", "t3a")}
    assert len(prints) == 1


def test_a_finished_run_can_be_given_its_bases(run):
    assert run("--out", "one") == 0
    assert not Path("one/bases").exists()
    assert run("--out", "one", "--keep-bases") == 0
    assert len(list(Path("one/bases").iterdir())) == 2


def test_another_base_changes_cells_that_were_finished(run, capsys):
    assert run("--out", "one", "--keep-bases") == 0
    assert run("--out", "two") == 0
    assert run("--out", "two", "--bases", "one") == 0
    capsys.readouterr()
    made_by = json.loads(Path("two/cells/dots-default-t3a-s0.json").read_text())["made_by"]["base"]
    assert made_by != json.loads(Path("one/cells/dots-default-t3a-s0.json").read_text())["made_by"]["base"]


@pytest.mark.parametrize(
    ("options", "seeds", "message"),
    [
        (["--set", "base.lr=0.5"], "0,", "was made with other settings (base.lr 0.001 and 0.5)"),
    ],
)
def test_a_base_that_was_made_otherwise_is_refused_by_name(run, capsys, options, seeds, message):
    assert run("--out", "one", "--keep-bases") == 0
    capsys.readouterr()
    assert run("--out", "two", "--bases", "one", *options, seeds=seeds) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("4", "no base of dots default for seeds 2, 3; it has seeds 0, 1: give --seeds 0,1, or make the reference run with"),
        ("1,7", "no base of dots default for seed 7; it has seeds 0, 1: give --seeds 1,, or make the reference run with"),
        ("7,", "no base of dots default for seed 7; it has seeds 0, 1: make the reference run with these seeds too"),
    ],
)
def test_seeds_without_a_stored_base_are_named_before_anything_runs(run, capsys, seeds, message):
    assert run("--out", "one", "--keep-bases") == 0
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert run("--out", "two", "--bases", "one", *more, seeds=seeds) == 2
        assert f"--bases one/bases: {message}" in capsys.readouterr().err
    assert not Path("two").exists()


def test_another_dataset_has_bases_of_its_own(tmp_path):
    names = ("dots-default-s0", "dots-default-s2", "dots-default-s-s1")
    for name in names:
        (tmp_path / f"{name}-base-{'0' * 16}.safetensors").touch()
    (tmp_path / f"dots-default-s1-samples-{'0' * 16}.safetensors").touch()
    check_seeds(tmp_path, [Group("dots", "default", seed, ()) for seed in (0, 2)] + [Group("dots", "other", 1, ())])
    with pytest.raises(UsageError, match="no base of dots default for seed 1; it has seeds 0, 2: give --seeds 0,,"):
        check_seeds(tmp_path, [Group("dots", "default", seed, ()) for seed in (0, 1)])


def test_another_architecture_is_refused(run, capsys):
    assert run("--out", "one", "--keep-bases", seeds="0,") == 0
    assert run("--out", "two", "--bases", "one", plugin=PLUGIN.replace("16", "12"), seeds="0,") == 2
    assert "was made with another architecture" in capsys.readouterr().err


def test_a_folder_without_bases_is_refused_before_anything_runs(run, capsys):
    assert run("--out", "one", seeds="0,") == 0
    assert run("--out", "two", "--bases", "one") == 2
    assert "no stored bases there; 'ocd-bench run --keep-bases'" in capsys.readouterr().err
    assert not Path("two").exists()


def test_merged_runs_keep_their_bases(run):
    assert run("--out", "one", "--keep-bases", seeds="0,") == 0
    assert run("--out", "two", "--keep-bases", seeds="1,") == 0
    assert main(["merge", "one", "two", "--out", "both"]) == 0
    assert len(list(Path("both/bases").iterdir())) == 2


# -- the file -----------------------------------------------------------------------------------------------------------


def test_weights_come_back_bit_by_bit(tmp_path: Path):
    state = {"w": torch.randn(3, 2).double(), "n": torch.tensor(7), "h": torch.randn(4).half(), "t": torch.randn(2, 3).t()}
    write_tensors(tmp_path, RECIPE, state)
    found, digest = read_tensors(tmp_path, RECIPE)
    assert len(digest) == 64
    assert set(found) == set(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_new_recipe_replaces_the_old_file(tmp_path: Path):
    write_tensors(tmp_path, RECIPE, {"w": torch.zeros(2)})
    write_tensors(tmp_path, Recipe("dots", "default", 0, {"base": {"lr": 0.2}}, "Linear"), {"w": torch.ones(2)})
    write_tensors(tmp_path, Recipe("dots", "default", 10, {"base": {"lr": 0.2}}, "Linear"), {"w": torch.ones(2)})
    assert len(list(tmp_path.iterdir())) == 2


def test_damage_is_named(tmp_path: Path):
    write_tensors(tmp_path, RECIPE, {"w": torch.zeros(200)})
    path = RECIPE.path(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UsageError, match="does not match its sha256"):
        read_tensors(tmp_path, RECIPE)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(UsageError, match="damaged: not a safetensors file"):
        read_tensors(tmp_path, RECIPE)
    with pytest.raises(UsageError, match="damaged"):
        read_tensors(tmp_path, Recipe("dots", "default", 0, {"base": {"lr": 9}}, "Linear"))


def test_a_task_that_has_no_stored_base_is_trained(tmp_path: Path):
    write_tensors(tmp_path, RECIPE, {"w": torch.zeros(2)})
    assert read_tensors(tmp_path, Recipe("other", "default", 0, {}, "")) is None
    assert check_folder(tmp_path) == tmp_path


def test_samples_come_back_bit_by_bit(tmp_path: Path):
    def splits(shift: float) -> Splits:
        parts = [Samples(torch.randn(n, 3) + shift, torch.arange(n), torch.arange(n)) for n in (5, 4, 3)]
        return Splits(*parts, note="a note", extras={"one": 1})

    recipe = Recipe("dots", "default", 0, {"dots": {"x": 1}}, kind="samples")
    stored, computed = splits(0.0), splits(1e-7)
    assert with_stored_samples(tmp_path, recipe, computed) is computed
    write_samples(tmp_path, recipe, stored)
    found = with_stored_samples(tmp_path, recipe, computed)
    for name in ("train", "val", "test"):
        assert torch.equal(getattr(found, name).inputs, getattr(stored, name).inputs)
        assert getattr(found, name).groups is getattr(computed, name).groups
    assert (found.note, found.extras) == ("a note", {"one": 1})
    with pytest.raises(UsageError, match="train.inputs does not fit"):
        with_stored_samples(tmp_path, recipe, Splits(stored.val, stored.val, stored.test))


def test_a_task_that_computes_its_samples_stores_them(run):
    """The samples change on "another machine"; on the stored ones, every row is the same."""
    computed = PLUGIN.replace('name, primary_metric = "dots"', 'stores_samples = True\n    name, primary_metric = "dots"')
    elsewhere = computed.replace("generator=random)", "generator=random) + 1e-3")
    assert run("--out", "one", "--keep-bases", plugin=computed, seeds="0,") == 0
    assert run("--out", "two", "--bases", "one", plugin=elsewhere, seeds="0,") == 0
    one, two = read_run("one"), read_run("two")
    for method in ("base", "t3a"):
        key = Key("dots", "default", method, 0)
        assert one.cells[key]["fingerprint"] == two.cells[key]["fingerprint"]
        assert (one.scores(key, "cross_entropy") == two.scores(key, "cross_entropy")).all()
