"""Executors: what travels to another interpreter and back, how groups are divided, and a cluster without ray."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ocd_bench.cli import main
from ocd_bench.config import RaySettings
from ocd_bench.errors import Terminated, Unavailable, UsageError
from ocd_bench.files import sha256
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.runner import stages
from ocd_bench.runner.cells import Group
from ocd_bench.runner.executors import artefacts, connect, remote
from ocd_bench.runner.executors.cluster import ClusterExecutor, reason_of
from ocd_bench.runner.executors.forked import ForkedExecutor
from ocd_bench.runner.executors.order import Order, place_of, plugin_sources, unpacked
from ocd_bench.runner.executors.parts import parts_of
from ocd_bench.runner.messages import Decoder, Message, encode
from ocd_bench.runner.order import Outcome, RunRequest
from ocd_bench.runner.run import default_folder
from ocd_bench.runner.store import RunFolder, new_cell
from ocd_bench.runner.supervisor import Supervisor
from tests.faulty import cell, numbers, run_here, write_plugin


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -- messages ----------------------------------------------------------------------------------------------------------------
def test_messages_survive_any_division_of_their_bytes() -> None:
    sent = [Message("note", {"text": "é\n"}), Message("cell", {"n": [1, None]}, {"a": b"\0" * 300, "b": b""}), Message("end")]
    data = b"".join(map(encode, sent))
    for size in (1, 7, len(data)):
        decoder, got = Decoder(), []
        for start in range(0, len(data), size):
            decoder.feed(data[start : start + size])
            got += decoder.messages()
        assert got == sent


# -- fresh interpreters on this machine ----------------------------------------------------------------------------------------
def test_fresh_interpreters_measure_what_forked_children_measure(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    words = ("--methods", "base,scaled,oracle", "--seeds", "2", "--jobs", "2")
    assert run_here(plugin, *words, "--out", str(tmp_path / "forked"), "--quiet") == 0
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "another"))
    assert run_here(plugin, *words, "--out", str(tmp_path / "spawned")) == 0
    assert numbers(tmp_path / "spawned") == numbers(tmp_path / "forked")
    assert len(list((tmp_path / "another" / "bases").glob("*.ocdcache"))) == 2
    assert "dots default oracle seed 1" in capsys.readouterr().err
    assert run_here(plugin, *words, "--out", str(tmp_path / "spawned"), "--quiet") == 0  # finished cells are kept


def test_stored_bases_travel_to_an_interpreter_and_back(cache: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")
    words = ("--methods", "base", "--seeds", "2", "--jobs", "2")
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_here(plugin, *words, "--out", str(one), "--quiet", "--keep-bases") == 0
    assert len(list((one / "bases").glob("dots-default-s*.safetensors"))) >= 2
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "another"))
    assert run_here(plugin, *words, "--out", str(two), "--quiet", "--bases", str(one)) == 0
    assert cell(one, "base", 1)["fingerprint"]["base"] == cell(two, "base", 1)["fingerprint"]["base"]
    assert run_here(plugin, *words, "--seeds", "3,4", "--out", str(two), "--quiet", "--bases", str(one)) == 2
    assert f"--bases {one / 'bases'}: no base of dots default for seeds 3, 4; it has seeds 0, 1" in capsys.readouterr().err


# -- what travels -------------------------------------------------------------------------------------------------------------
def test_entries_of_a_group_are_those_of_its_task_dataset_and_seed(cache: Path) -> None:
    for name in ("t-d-s1-aa", "t-d-s11-bb", "t-d-s1-cc", "other-d-s1-dd", "d-s1-ee"):
        for kind in ("bases", "stages"):
            (cache / kind).mkdir(parents=True, exist_ok=True)
            (cache / kind / f"{name}.ocdcache").write_bytes(b"x")
    (cache / "bases" / "t-d-s1-ff.tmp").write_bytes(b"x")
    found = artefacts.entries_of(Group("t", "d", 1, ("base",)))
    names = ("d-s1-ee", "t-d-s1-aa", "t-d-s1-cc")
    assert sorted(found) == [f"{kind}/{name}.ocdcache" for kind in ("bases", "stages") for name in names]


def test_an_entry_arrives_once_and_only_in_the_cache(cache: Path) -> None:
    group = Group("t", "d/x", 0, ("base",))
    new = artefacts.Changes(group)
    assert list(new) == []
    artefacts.add_entries({"bases/t-d_x-s0-1.ocdcache": b"one"})
    artefacts.add_entries({"bases/t-d_x-s0-1.ocdcache": b"two"})  # what is there stays
    assert list(new) == [("bases/t-d_x-s0-1.ocdcache", b"one")]
    assert list(new) == []
    (cache / "bases" / "t-d_x-s0-1.ocdcache").unlink()
    assert list(new) == []
    for name in ("bases/../../x.ocdcache", "elsewhere/x.ocdcache", "bases/x.txt", "bases/.x.ocdcache", "/x.ocdcache"):
        with pytest.raises(ValueError, match="not an entry"):
            artefacts.add_entries({name: b""})
    with pytest.raises(ValueError, match="not a state"):
        artefacts.remove_state("bases/x.ocdcache")


def test_states_of_unfinished_work_travel_now_and_then_until_they_are_gone(cache: Path) -> None:
    assert f"{stages.KIND}/" == artefacts.STATES
    now = 0.0
    name = "stages/t-d-s0-work-fit-1.ocdcache"
    new = artefacts.Changes(Group("t", "d", 0, ("base",)), clock=lambda: now)
    artefacts.add_entries({name: b"10 steps"})
    assert list(new) == []  # too early
    now = artefacts.PAUSE
    assert list(new) == [(name, b"10 steps")]
    artefacts.add_entries({name: b"twenty steps"})
    assert list(new) == []
    now *= 2
    assert list(new) == [(name, b"twenty steps")]
    artefacts.remove_state(name)
    assert list(new) == [(name, None)]
    assert list(new) == []


@pytest.mark.parametrize("name", ["cells/x.json", "figures", "figures/../x", "figures//x", "../figures/x", "/figures/x"])
def test_a_file_that_would_leave_the_run_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert place_of(tmp_path, "figures/a/b.png") == tmp_path / "figures" / "a" / "b.png"
    with pytest.raises(ValueError, match="not a file of a run folder"):
        place_of(tmp_path, name)


def test_a_plugin_file_travels_with_the_modules_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "package").mkdir(parents=True)
    (folder / "mine.py").write_text("import helper\nimport os\n")
    (folder / "helper.py").write_text("def late():\n    import package.deep\n")
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "deep.py").write_text("X = 1\n")
    (folder / "unused.py").write_text("")
    text = str(folder / "mine.py")
    sources = plugin_sources([text, "installed.module"])
    assert sorted(sources[text]) == ["helper.py", "mine.py", "package/__init__.py", "package/deep.py"]
    assert list(sources) == [text]
    order = Order(RunRequest(tasks=("t",), plugins=(text, "installed.module")), Group("t", "d", 0, ()), sources=sources)
    assert unpacked(order, tmp_path / "there").plugins == (text, "installed.module")  # the same files are here
    (folder / "helper.py").write_text("changed\n")
    moved = unpacked(order, tmp_path / "there").plugins
    assert moved == (str(tmp_path / "there" / "plugin0" / "mine.py"), "installed.module")
    assert Path(moved[0]).with_name("helper.py").read_bytes() == sources[text]["helper.py"]


def test_the_address_changes_neither_the_run_folder_nor_what_is_repeated() -> None:
    groups = [Group("t", "d", 0, ("base",))]
    one = RunRequest(tasks=("t",), overrides={"base.lr": "1", "ray.address": "a:1"}, executor="ray")
    two = RunRequest(tasks=("t",), overrides={"base.lr": "1"})
    assert default_folder(one, groups) == default_folder(two, groups)
    assert one.as_dict() == two.as_dict()


# -- parts --------------------------------------------------------------------------------------------------------------------
def fake_manager(sections: dict[str, str | None], figures: bool = False) -> Any:
    from ocd_bench.task import Task

    task = type("Own", (Task,), {"figures": lambda *words: []}) if figures else Task
    methods = {name: SimpleNamespace(section=section) for name, section in sections.items()}
    return SimpleNamespace(task=lambda name: task(), method=methods.__getitem__, methods=methods)


def test_methods_that_share_a_section_stay_together_and_no_method_is_lost() -> None:
    sections = {"base": None, "ocd": "ocd", "tent": "tent", "ocd-x5": "ocd", "bn": None, "memo": "memo"}
    groups = [Group("t", "d", seed, tuple(sections)) for seed in (0, 1)]
    assert parts_of(groups, fake_manager(sections), 2) == groups  # no room for more: whole groups
    assert parts_of(groups, fake_manager(sections, figures=True), 100) == groups
    for places, count in ((3, 2), (4, 2), (6, 3), (100, 4)):
        parts = parts_of(groups, fake_manager(sections), places)
        assert len(parts) == 2 * count
        assert [part.seed for part in parts[:2]] == [0, 1]  # first one part of every group
        for seed in (0, 1):
            own = [part.methods for part in parts if part.seed == seed]
            assert sorted(name for part in own for name in part) == sorted(sections)
            for family in (("ocd", "ocd-x5"), ("base", "bn")):
                assert sum(any(name in part for name in family) for part in own) == 1


# -- room and addresses -------------------------------------------------------------------------------------------------------
def test_room_counts_whole_workers_on_machines_that_are_alive() -> None:
    need = connect.needs(RaySettings(memory=2.0, cpus=2), threads=2, cuda=True)
    assert need == {"CPU": 2.0, "GPU": 1.0, "memory": 2e9}
    machine = {"Alive": True, "Resources": {"CPU": 9.0, "GPU": 3.0, "memory": 7e9}}
    assert connect.room([machine, {**machine, "Alive": False}], need) == 3
    assert connect.room([machine, machine], {**need, "GPU": 0.0}) == 6
    assert connect.room([{"Alive": True, "Resources": {"CPU": 9.0}}], need) == 0
    with pytest.raises(UsageError, match="run.threads=4 threads compute"):
        connect.needs(RaySettings(cpus=2), threads=4, cuda=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "ray://head:10001", "head:port", "head:0", "head:99999"])
def test_an_address_of_another_form_is_refused(address: str, tmp_path: Path, capsys, cache: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    assert run_here(plugin, "--executor", "ray", "--set", f"ray.address={address}", "--out", str(tmp_path / "out")) == 2
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_without_ray_there_is_one_line(tmp_path: Path, capsys, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    plugin = write_plugin(tmp_path / "plugin")
    assert run_here(plugin, "--executor", "ray", "--out", str(tmp_path / "out")) == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == f"ocd-bench: error: {connect.INSTALL}"


def test_a_port_that_nobody_listens_to_is_one_line_at_once(tmp_path: Path, capsys, cache: Path, monkeypatch) -> None:
    ray = ModuleType("ray")
    ray.is_initialized = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, and not listening
        plugin = write_plugin(tmp_path / "plugin")
        assert run_here(plugin, "--executor", "ray", "--set", f"ray.address={address}", "--out", str(tmp_path / "out")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    wanted = f"--executor ray: ray.address={address}: does not answer (Connection refused); is the cluster up?"
    assert lines == [f"ocd-bench: error: {wanted}"]


# -- a cluster in this process ------------------------------------------------------------------------------------------------
class NodeDiedError(Exception):
    """As ray's."""


class FakeRay:
    """A cluster whose workers say what a script says: ``script(order)`` gives messages, or an error."""

    exceptions = SimpleNamespace(RayError=Exception)
    __file__ = "/nowhere/ray/__init__.py"

    def __init__(self, script: Any, places: int = 4) -> None:
        self.script, self.places = script, places
        self.orders: list[Order] = []
        self.options_seen: list[dict[str, Any]] = []
        self.sent: list[set[str]] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(self.places), "memory": 1e12}}]

    def remote(self, function: Any) -> Any:
        def options(**words: Any) -> Any:
            self.options_seen.append(words)
            return SimpleNamespace(remote=self._submit)

        return SimpleNamespace(options=options)

    def _submit(self, order: Order, entries: dict[str, Any], expected: dict[str, str], threads: int) -> Iterator[bytes]:
        self.orders.append(order)
        self.sent.append(set(entries))

        def stream() -> Iterator[bytes]:
            for message in self.script(order):
                if isinstance(message, Exception):
                    raise message
                yield encode(message)

        return stream()

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return streams[:num_returns], streams[num_returns:]

    def get(self, value: Any) -> Any:
        return value

    def put(self, value: Any) -> Any:
        return value

    def shutdown(self) -> None:
        self.closed = True


class Quiet:
    """Takes what the user would see."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, group: Group, step: str) -> None: ...
    def progress(self, group: Group, what: str, done: int, total: int) -> None: ...
    def end(self, group: Group, whole: bool = True) -> None: ...
    def tick(self) -> None: ...
    def cell(self, cell: Any, reused: bool) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


def finished(order: Order, name: str) -> Message:
    made = new_cell(order.group.task, order.group.dataset, name, order.group.seed)
    made.update(status="ok", metrics={"accuracy": {"value": 0.5, "unit": "", "higher_is_better": True, "primary": True}})
    return Message("cell", {"cell": made, "reused": False, "variant": ("", 0), "trace": None}, {"scores": b"scores"})


def entry(order: Order) -> Message:
    name = f"bases/{order.group.task}-{order.group.dataset}-s{order.group.seed}-1.ocdcache"
    return Message("entry", {"name": name}, {"content": b"base"})


DONE = Message("ending", {"how": "returned", "code": 0, "trace": "", "seconds": 0.0})
TRAINED = Message("doing", {"what": "layer selection"})


def run_fake(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int = 1, **overrides: Any
) -> tuple[Outcome, Quiet, Path]:
    monkeypatch.setattr("ocd_bench.runner.executors.cluster.connect", lambda *words: ray)
    manager = load_plugins([str(write_plugin(tmp_path / "plugin"))])
    request = RunRequest(tasks=("dots",), executor="ray", device="cpu", overrides={f"ray.{k}": v for k, v in overrides.items()})
    groups = [Group("dots", "default", seed, ("base", "ocd", "tent")) for seed in range(seeds)]
    folder, reporter = RunFolder(tmp_path / "out"), Quiet()
    executor = ClusterExecutor(request, groups, folder, manager)
    try:
        return Supervisor(groups, folder, manager, reporter, executor).run(), reporter, folder.path
    finally:
        executor.close()


def test_the_base_is_trained_by_one_worker_and_sent_to_the_others(cache: Path, tmp_path: Path, monkeypatch) -> None:
    def script(order: Order) -> Iterator[Message]:
        if not ray.sent[-1]:
            yield entry(order)
        yield TRAINED
        yield from (finished(order, name) for name in order.group.methods)
        yield DONE

    ray = FakeRay(script)
    outcome, _, out = run_fake(ray, tmp_path, monkeypatch)
    assert [made["method"] for made in outcome.cells] == ["base", "ocd", "tent"]
    assert sorted(order.group.methods for order in ray.orders) == [("base",), ("ocd",), ("tent",)]
    name = "bases/dots-default-s0-1.ocdcache"
    assert ray.sent == [set(), {name}, {name}]
    assert (cache / name).read_bytes() == b"base"
    assert cell(out, "ocd")["scores_sha256"] == sha256(b"scores")
    assert ray.options_seen[0]["num_cpus"] == 1
    assert ray.options_seen[0]["memory"] == 2e9
    assert ray.options_seen[0]["max_retries"] == 0


def test_a_lost_machine_costs_only_the_cells_that_had_not_arrived(cache: Path, tmp_path: Path, monkeypatch) -> None:
    def script(order: Order) -> Iterator[Message | Exception]:
        yield Message("place", {"node": "10.0.0.7"})
        yield TRAINED
        yield finished(order, order.group.methods[0])
        if len(ray.orders) == 1:
            yield NodeDiedError("many lines\nof ray")
        yield from (finished(order, name) for name in order.group.methods[1:])
        yield DONE

    ray = FakeRay(script)
    outcome, reporter, _ = run_fake(ray, tmp_path, monkeypatch, split=False)
    assert outcome.exit_code == 0
    assert [order.group.methods for order in ray.orders] == [("base", "ocd", "tent"), ("ocd", "tent")]
    assert reporter.notes == [
        "ocd-bench: a worker of dots default seed 0 was lost (its machine is gone (10.0.0.7)); measured again: ocd, tent"
    ]


def test_cells_whose_machines_are_always_lost_fail_with_the_reason(cache: Path, tmp_path: Path, monkeypatch) -> None:
    def script(order: Order) -> Iterator[Message | Exception]:
        if order.group.seed == 0:
            yield NodeDiedError()
        yield from (finished(order, name) for name in order.group.methods)
        yield DONE

    ray = FakeRay(script)
    outcome, _, out = run_fake(ray, tmp_path, monkeypatch, seeds=2, retries=2, split=False)
    assert sum(order.group.seed == 0 for order in ray.orders) == 3
    assert outcome.exit_code == 3
    assert cell(out, "base", 1)["status"] == "ok"
    for name in ("base", "ocd", "tent"):
        assert cell(out, name, 0)["reason"].startswith("its worker was lost 3 times; the last time: its machine is gone")


def test_a_stream_that_ends_without_an_ending_is_a_lost_worker(cache: Path, tmp_path: Path, monkeypatch) -> None:
    ray = FakeRay(lambda order: iter([finished(order, "base")]))
    outcome, _, out = run_fake(ray, tmp_path, monkeypatch, retries=0, split=False)
    assert [made["status"] for made in outcome.cells] == ["ok", "failed", "failed"]
    assert "it gave no answer" in cell(out, "ocd")["reason"]


def test_a_machine_with_other_software_is_refused_before_anything_is_measured(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setattr(remote, "_ready", lambda threads: pytest.fail("an interpreter was started"))
    expected = {**remote.software(), "torch": "1.0"}
    order = Order(RunRequest(tasks=("t",)), Group("t", "d", 0, ("base",)))
    with pytest.raises(remote.Unequal, match=rf"torch {remote.software()['torch']} there, 1.0 here"):
        next(remote.measured(order, {}, expected, 1))


def test_the_reason_of_a_task_that_raised_is_its_own() -> None:
    error = Exception("ray wraps it in ten lines")
    error.cause = RuntimeError("torch 2.9 there, 2.11 here")  # type: ignore[attr-defined]
    assert reason_of(error) == "torch 2.9 there, 2.11 here"
    assert reason_of(NodeDiedError()) == "its machine is gone"


def test_helpers_of_a_ray_of_our_own_are_killed_before_it_ends_and_no_other_process(tmp_path: Path) -> None:
    package = tmp_path / "ray"
    package.mkdir()
    files = package / "monitor.py", tmp_path / "other.py"
    for path in files:
        path.write_text("import time; print(flush=True); time.sleep(60)")

    class Ray:
        __file__ = str(package / "__init__.py")

        def shutdown(self) -> None:
            helper.wait(timeout=30)
            assert other.poll() is None

    helper, other = started = [subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE) for path in files]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it runs
        connect.disconnect(Ray())
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert helper.returncode == -signal.SIGKILL


def test_a_signal_while_the_executor_ends_does_not_cost_the_table(cache: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    signals: list[BaseException] = [Terminated(signal.SIGTERM)]

    def close(executor: ForkedExecutor) -> None:
        if signals:
            raise signals.pop()

    monkeypatch.setattr(ForkedExecutor, "close", close)
    plugin = write_plugin(tmp_path / "plugin")
    words = ["run", "--task", "dots", "--plugin", str(plugin), "--preset", "quick", "--methods", "base,scaled"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 143
    said = capsys.readouterr()
    assert "scaled" in said.out
    assert "the same command continues" in said.err
    assert not signals


def test_a_cluster_without_room_is_refused() -> None:
    ray = FakeRay(None, places=1)
    with pytest.raises(Unavailable, match="no machine of the cluster has 2 cores, 0 GPUs and 2 GB"):
        connect._wait_for_room(ray, RaySettings(timeout=0.1, cpus=2), 1, False)
    assert ray.closed
