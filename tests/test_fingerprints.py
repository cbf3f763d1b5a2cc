"""Stored results are not reused after a change of anything they depend on, and damaged files are detected."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.cache import Damaged, entry_path, find, keep, read_entry, remembered, tidy
from ocd_bench.cli import main
from ocd_bench.files import is_intact, remove_leftovers, seal, temporary_folder, write_atomic
from ocd_bench.runner import fingerprints
from ocd_bench.runner.code import code_of
from ocd_bench.runner.fingerprints import differences, named_files
from tests.faulty import PLUGIN, cell, numbers, run, run_here, write_plugin


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return write_plugin(tmp_path / "plugin")


CHANGES = {
    # what changes: (old text, new text, factor, what is said, whether the base is trained again, also in another folder)
    "a method": ("context.base(inputs) * companion", "context.base(inputs) * 2 * companion", 0.5, "the method's code", False),
    "a module beside the plugin": ("", "", 0.75, "the method's code", True),
    "the loss of a task": ("return 1.0 * torch", "return 2.0 * torch", 0.5, "the task's code", True),
    "the metrics of a task": ("1.0 * self.loss", "3.0 * self.loss", 0.5, "the task's code", True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_code_is_measured_again_and_reported_in_one_line(what: str, plugin: Path, tmp_path: Path) -> None:
    old, new, factor, text, base_too = CHANGES[what]
    out, count = tmp_path / "out", tmp_path / "count"
    words = ("--methods", "base,scaled", "--out", str(out))
    run(plugin, *words, COUNT=str(count))
    assert "measured again" not in run(plugin, *words, COUNT=str(count))
    assert count.read_text().split("\n")[:-1] == ["base 0", "scaled 0"]
    before = numbers(out)
    write_plugin(plugin.parent, PLUGIN.replace(old, new) if old else PLUGIN, factor)
    said = run(plugin, *words, COUNT=str(count))
    assert len([line for line in said.splitlines() if "measured again" in line]) == 1
    assert text in said
    assert numbers(out) != before
    assert numbers(out)["dots-default-scaled-s0"] != before["dots-default-scaled-s0"]
    run(plugin, "--methods", "base,scaled", "--out", str(tmp_path / "fresh"))
    assert numbers(tmp_path / "fresh") == numbers(out)
    # One file holds task and method here, so a change of it may always be one of the task.
    assert count.read_text().count("base") == 2 if base_too else count.read_text().count("scaled") == 2


def test_a_comment_of_another_module_changes_nothing(plugin: Path, tmp_path: Path) -> None:
    (plugin.parent / "stranger.py").write_text("x = 1\n")
    before = code_of(["tests.faulty"]).sha256
    (plugin.parent / "stranger.py").write_text("x = 2\n")
    assert code_of(["tests.faulty"]).sha256 == before


def test_the_code_of_a_method_covers_the_engine_and_no_report() -> None:
    sources = code_of(["ocd_bench.methods.ocd"]).sources
    assert any(name.startswith("ocd_bench.engine.") for name in sources)
    assert not any(name.startswith(("ocd_bench.report", "ocd_bench.cli", "ocd_bench.runner")) for name in sources)


def test_packages_files_and_threads_are_named_when_they_differ(tmp_path: Path) -> None:
    one = {"method": "a", "packages": ["torch 1"], "threads": 1, "files": {}}
    assert differences(one, one) == []
    assert "torch 1; now torch 2" in differences(one, {**one, "packages": ["torch 2"]})[0]
    assert differences(one, {**one, "threads": 2}) == ["the number of threads"]
    assert "earlier version" in differences(None, one)[0]
    (tmp_path / "weights.pt").write_bytes(b"one")
    sections = {"images": {"checkpoint": "weights.pt", "size": 3, "note": "no.such.file"}}
    before = named_files(sections, [tmp_path])
    assert set(before) == {"images.checkpoint"}
    (tmp_path / "weights.pt").write_bytes(b"another")
    assert named_files(sections, [tmp_path]) != before


def test_another_torch_measures_again(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    out = tmp_path / "out"
    assert run_here(plugin, "--methods", "base", "--out", str(out)) == 0
    real = fingerprints.versions
    monkeypatch.setattr("ocd_bench.runner.reuse.versions", lambda packages: [*real(packages), "torch 0.0"])
    assert run_here(plugin, "--methods", "base", "--out", str(out)) == 0
    assert "measured again, since versions of packages" in capsys.readouterr().err


def test_a_method_that_was_not_applicable_is_tried_again(plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(plugin, "--methods", "base,scaled", "--out", str(out), ABSENT="1")
    assert cell(out, "scaled")["status"] == "not-applicable"
    run(plugin, "--methods", "base,scaled", "--out", str(out))
    assert cell(out, "scaled")["status"] == "ok"


# -- damage -------------------------------------------------------------------------------------------------------------------
def flip(path: Path, place: float = 0.6) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(bytes(data))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def base_entry(tmp_path: Path) -> Path:
    return next((tmp_path / "cache" / "bases").glob("*.ocdcache"))


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "a bit of the base": lambda out, base: flip(base),
    "half of the base": lambda out, base: base.write_bytes(base.read_bytes()[: base.stat().st_size // 2]),
    "an empty base": lambda out, base: base.write_bytes(b""),
    "another thing for a base": lambda out, base: base.write_bytes(b"[]"),
    "a value of a cell": lambda out, base: edit(out / "cells/dots-default-base-s0.json", n_test=41),
    "half of a cell": lambda out, base: (out / "cells/dots-default-base-s0.json").write_text("{"),
    "an empty cell": lambda out, base: (out / "cells/dots-default-base-s0.json").write_text(""),
    "a list for a cell": lambda out, base: (out / "cells/dots-default-base-s0.json").write_text("[]"),
    "deep nesting for a cell": lambda out, base: (out / "cells/dots-default-base-s0.json").write_text("[" * 100_000),
    "a cell without its parts": lambda out, base: (out / "cells/dots-default-base-s0.json").write_text('{"schema": 1}'),
    "another cell of the folder": lambda out, base: shutil.copy(
        out / "cells/dots-default-scaled-s0.json", out / "cells/dots-default-base-s0.json"
    ),
    "a bit of the scores": lambda out, base: flip(out / "scores/dots-default-base-s0.npz"),
    "scores of another cell": lambda out, base: shutil.copy(
        out / "scores/dots-default-scaled-s0.npz", out / "scores/dots-default-base-s0.npz"
    ),
    "no scores": lambda out, base: (out / "scores/dots-default-base-s0.npz").unlink(),
    "half of run.json": lambda out, base: (out / "run.json").write_text('{"schema": 1, "tasks'),
    "an empty run.json": lambda out, base: (out / "run.json").write_text(""),
    "a list for run.json": lambda out, base: (out / "run.json").write_text("[]"),
    "a seed of run.json": lambda out, base: edit(out / "run.json", seeds=[5]),
    "a wrong type in an old run.json": lambda out, base: (out / "run.json").write_text('{"schema": 1, "tasks": [1]}'),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_the_file_is_computed_again(
    what: str, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--methods", "base,scaled", "--out", str(out))
    assert run_here(plugin, *words) == 0
    before = numbers(out)
    if "base" in what.split()[-1]:
        shutil.rmtree(out)
    DAMAGE[what](out, base_entry(tmp_path))
    capsys.readouterr()
    assert run_here(plugin, *words) == 0
    captured = capsys.readouterr()
    name = {"base": "bases/dots-default-s0", "run": "run.json"}.get(
        what.split()[-1].partition(".")[0], "cells/dots-default-base-s0.json"
    )
    assert len([line for line in captured.err.splitlines() if name in line]) == 1
    assert "Traceback" not in captured.err
    assert numbers(out) == before
    assert json.loads((out / "run.json").read_text())["seeds"] == [0]
    assert run_here(plugin, *words, "--quiet") == 0
    assert name not in capsys.readouterr().err


def test_report_names_a_damaged_file_and_reads_folders_without_seals(plugin: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run_here(plugin, "--methods", "base,scaled", "--out", str(out), "--quiet") == 0
    path = out / "cells/dots-default-scaled-s0.json"
    whole = path.read_text()
    edit(path, n_test=41)
    assert main(["report", str(out)]) == 2
    assert "dots-default-scaled-s0.json: damaged" in capsys.readouterr().err
    unsealed = json.loads(whole)
    for key in ("sha256", "scores_sha256", "made_by"):
        del unsealed[key]
    path.write_text(json.dumps(unsealed))
    assert main(["report", str(out)]) == 0
    path.write_text(whole)
    flip(out / "scores/dots-default-scaled-s0.npz")
    assert main(["report", str(out)]) == 2
    assert "dots-default-scaled-s0.npz: damaged" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_a_warning_and_no_cell_fails(
    plugin: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "file"))
    assert run_here(plugin, "--methods", "base", "--seeds", "2", "--out", str(tmp_path / "out")) == 0
    said = capsys.readouterr().err
    assert said.count("cannot write the cache") == 1
    assert "cannot be read" not in said
    assert main(["cache", "list"]) == 2
    assert "file: not a folder (set OCD_BENCH_CACHE)" in capsys.readouterr().err
    assert cell(tmp_path / "out", "base", 1)["status"] == "ok"


def test_the_cache_is_listed_verified_and_cleared(plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(plugin, "--methods", "base", "--out", str(tmp_path / "out"), "--quiet") == 0
    capsys.readouterr()
    assert main(["cache", "list"]) == 0
    assert "dots-default-s0" in capsys.readouterr().out
    assert main(["cache", "verify"]) == 0
    capsys.readouterr()
    flip(base_entry(tmp_path))
    assert main(["cache", "verify", "--json"]) == 2
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["problem"]]
    assert "does not match its sha256" in row["problem"]
    assert main(["cache", "clear", "--older-than", "1"]) == 0
    assert base_entry(tmp_path).exists()
    assert main(["cache", "clear", "bases"]) == 0
    assert "removed 1 file" in capsys.readouterr().err
    assert list((tmp_path / "cache" / "bases").iterdir()) == []
    assert main(["cache", "list", "basses"]) == 2
    assert "did you mean 'bases'" in capsys.readouterr().err


# -- parts -----------------------------------------------------------------------------------------------------------------
def test_a_seal_shows_any_change() -> None:
    sealed = seal({"a": 1.5, "b": ["x", None], "c": "\ud800"})
    assert is_intact(json.loads(json.dumps(sealed)))
    assert not is_intact({**sealed, "a": 1.25})
    assert not is_intact({**sealed, "d": 1})
    assert is_intact({"a": 1})


def test_every_single_flipped_bit_of_an_entry_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path))
    assert keep("bases", "x", "k" * 64, {"fit_s": 1.5}, b"content")
    path = entry_path("bases", "x", "k" * 64)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(Damaged):
            read_entry(path)
    path.write_bytes(data)
    entry = find("bases", "x", "k" * 64)
    assert entry is not None
    assert (entry.content, entry.record) == (b"content", {"fit_s": 1.5})
    assert find("bases", "x", "k" * 63 + "j") is None


def test_remembered_tensors_are_built_once_and_again_after_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path))
    built, said = [], []

    def build():
        built.append(1)
        return [torch.arange(3), torch.ones(2)]

    for _ in range(2):
        found = remembered("embeddings", "x", {"a": 1}, build, warn=said.append)
    assert len(built) == 1
    np.testing.assert_array_equal(found[0].numpy(), [0, 1, 2])
    flip(next((tmp_path / "embeddings").iterdir()))
    assert torch.equal(remembered("embeddings", "x", {"a": 1}, build, warn=said.append)[1], torch.ones(2))
    assert len(built) == 2
    assert "computed again" in said[0]
    remembered("embeddings", "x", {"a": 2}, build, warn=said.append)
    assert len(built) == 3


def test_temporary_files_of_dead_processes_are_removed_and_those_of_live_ones_are_not(tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "file", b"half")
    (own,) = tmp_path.iterdir()
    assert remove_leftovers([tmp_path]) == 0
    import os

    dead = own.with_name(own.name.replace(f".{os.getpid()}.", ".4194300."))
    own.rename(dead)
    (tmp_path / ".hidden.tmp").write_text("a user's own file")
    assert remove_leftovers([tmp_path, tmp_path / "absent"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".hidden.tmp"]


def test_temporary_folders_of_dead_processes_are_removed_and_those_of_live_ones_are_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}; from ocd_bench.files import temporary_folder"
    code += "; (temporary_folder() / 'file').write_text('half')"
    subprocess.run([sys.executable, "-c", code], check=True)
    own, foreign = temporary_folder(), tmp_path / ".another-program.4194300.0123abcd.tmp"
    foreign.write_text("not ours")
    assert len(list(tmp_path.iterdir())) == 3
    tidy()
    assert set(tmp_path.iterdir()) == {own, foreign}
