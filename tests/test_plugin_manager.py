"""The loader: valid plugins work, faulty ones are skipped with a warning that names them."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from textwrap import dedent

import pytest

from ocd_bench import Request, Task, UsageError
from ocd_bench.plugin import sources, spec
from ocd_bench.plugin.manager import Manager, load_plugins

TASK = """
import ocd_bench

class Toy(ocd_bench.Task):
    name, primary_metric = "NAME", "accuracy"
    def load_data(self, request): return "own data"
    def base_model(self, splits, request): return "own model"
    def loss(self, output, target): ...
    def metrics(self, output, target): ...

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Toy())
"""

Install = Callable[..., None]


def task_code(name: str) -> str:
    return TASK.replace("NAME", name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions of one module. No other entry points are visible, and the working directory is empty."""
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(
        sources,
        "entry_points",
        lambda group: [e for d in distributions(path=[str(site)]) for e in d.entry_points if e.group == group],
    )
    for variable in ("OCD_BENCH_DISABLE_PLUGINS", "OCD_BENCH_TRACE_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    path, modules = list(sys.path), set(sys.modules)

    def add(name: str, code: str, target: str = "", metadata: bool = True) -> None:
        (site / f"plug_{name}.py").write_text(dedent(code))
        info = site / f"ocd_bench_{name}-1.2.dist-info"
        info.mkdir()
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ocd-bench-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[ocd_bench]\n{name} = plug_{name}{target}\n")

    yield add
    sys.path[:] = path
    for module in set(sys.modules) - modules:
        if module.startswith(("plug_", "mine", "ocdfile", "beside")):
            del sys.modules[module]


def loaded(*extra: str) -> tuple[Manager, list[str]]:
    lines: list[str] = []
    manager = load_plugins(extra, warn=lines.append)
    assert manager.tasks is not None
    return manager, lines


def request_for(task: Task) -> Request:
    return Request(task.name, "default")


# -- valid plugins ------------------------------------------------------------------------------------------------------
def test_an_installed_plugin_is_described_and_its_task_registered(install: Install) -> None:
    install("wine", task_code("wine"))
    manager, lines = loaded()
    assert lines == []
    assert list(manager.tasks) == ["wine"]
    assert manager.owner(manager.task("wine")) == "wine"
    assert manager.describe() == [
        {
            "name": "methods",
            "version": sources.__version__,
            "origin": "ocd-bench",
            "hooks": ["ocd_bench_register_methods"],
        },
        {"name": "wine", "version": "1.2", "origin": "ocd-bench-wine", "hooks": ["ocd_bench_register_tasks"]},
    ]


def test_the_core_declares_its_methods_as_a_plugin_would() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]["ocd_bench"]
    assert declared == {sources.CORE.name: sources.CORE.value}


def test_registration_follows_the_order_of_names_and_the_first_wins(install: Install) -> None:
    install("b", task_code("same") + "# second\n")
    install("a", task_code("same"))
    install("c", task_code("other"))
    manager, lines = loaded()
    assert list(manager.tasks) == ["same", "other"]
    assert manager.owner(manager.task("same")) == "a"
    assert lines == ["plugin 'b' (ocd-bench-b 1.2): task 'same' is already registered by 'a'; left out"]


def test_two_plugins_of_one_name_both_work(install: Install, tmp_path: Path) -> None:
    install("a", task_code("first"))
    install("z", task_code("second"))
    entry = tmp_path / "site" / "ocd_bench_z-1.2.dist-info" / "entry_points.txt"
    entry.write_text("[ocd_bench]\na = plug_z\n")
    manager, lines = loaded()
    assert lines == []
    assert set(manager.tasks) == {"first", "second"}
    assert {row["name"] for row in manager.describe()} == {"methods", "a", "a (ocd-bench-z)"}


def test_a_distribution_without_metadata_is_still_loaded(install: Install) -> None:
    install("wine", task_code("wine"), metadata=False)
    assert list(loaded()[0].tasks) == ["wine"]


# -- faulty plugins -----------------------------------------------------------------------------------------------------
HOOK = "import ocd_bench\n@ocd_bench.hookimpl"
FAULTS = {
    "import": ("import no_such_module_anywhere", "cannot be loaded: ModuleNotFoundError: No module named 'no_such"),
    "exit": ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3 (site/plug_bad.py line 1)"),
    "raises": ("\n1 / 0", "cannot be loaded: ZeroDivisionError: division by zero (site/plug_bad.py line 2)"),
    "syntax": ("def (", "cannot be loaded: SyntaxError"),
    "misspelt": (
        f"{HOOK}\ndef ocd_bench_register_task(register): ...",
        "does not exist (did you mean 'ocd_bench_register_tasks'?)",
    ),
    "prefix": (
        f"{HOOK}\ndef register_tasks(register): ...",
        "'register_tasks' does not exist (did you mean 'ocd_bench_register_t",
    ),
    "argument": (
        f"{HOOK}\ndef ocd_bench_load_data(tsk, request): ...",
        "hook 'ocd_bench_load_data' has no argument 'tsk' (did you mean 'task'?); its arguments: task, request",
    ),
    "wrapper": (f"{HOOK}(wrapper=True)\ndef ocd_bench_load_data(task): ...", "not a generator function"),
    "register": (
        f"{HOOK}\ndef ocd_bench_register_tasks(register): raise KeyError('size')",
        "ocd_bench_register_tasks() failed: KeyError: 'size' (site/plug_bad.py line 3); its tasks are left out",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_named_and_the_rest_works(install: Install, fault: str) -> None:
    code, message = FAULTS[fault]
    install("bad", code)
    install("good", task_code("good"))
    manager, lines = loaded()
    assert list(manager.tasks) == ["good"]
    assert len(lines) == 1
    assert lines[0].startswith("plugin 'bad' (ocd-bench-bad 1.2): ")
    assert message in lines[0]
    assert lines[0].endswith("left out")
    assert "\n" not in lines[0]


def test_a_plugin_with_one_wrong_hook_is_left_out_as_a_whole(install: Install) -> None:
    install("bad", task_code("bad") + "\n@ocd_bench.hookimpl\ndef ocd_bench_base_modle(task): ...\n")
    manager, lines = loaded()
    assert dict(manager.tasks) == {}
    assert "'ocd_bench_base_modle' does not exist (did you mean 'ocd_bench_base_model'?)" in lines[0]


def test_a_class_is_no_plugin_but_its_instance_is(install: Install) -> None:
    code = "import ocd_bench\nclass P:\n @ocd_bench.hookimpl\n def ocd_bench_cell_finished(self, cell): ...\np = P()\n"
    install("kind", code, target=":P")
    install("thing", code, target=":p")
    manager, lines = loaded()
    assert lines == ["plugin 'kind' (ocd-bench-kind 1.2): P is a class: name an instance of it; plugin left out"]
    assert manager.describe()[-1]["hooks"] == ["ocd_bench_cell_finished"]


def test_an_unmarked_hook_is_named_and_the_plugin_stays(install: Install) -> None:
    install("wine", task_code("wine") + "\ndef ocd_bench_load_data(task, request): ...\n")
    manager, lines = loaded()
    assert list(manager.tasks) == ["wine"]
    assert lines == [
        "plugin 'wine' (ocd-bench-wine 1.2): ocd_bench_load_data() is never called: mark it with @ocd_bench.hookimpl"
    ]


def test_what_a_plugin_prints_does_not_reach_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("loud", "print('loading')\n" + task_code("loud") + "    print('registering')\n")
    loaded()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.split() == ["loading", "registering"]


def test_an_invalid_object_is_skipped_and_the_warning_says_what_to_change(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocd_bench.methods.builtin", list)  # no torch needed here
    method = "@ocd_bench.hookimpl\ndef ocd_bench_register_methods(register): register(ocd_bench.Method())\n"
    install("bad", task_code("Wine") + "    register(object())\n" + method)
    install("good", task_code("good"))
    manager, lines = loaded()
    assert list(manager.tasks) == ["good"]
    assert dict(manager.methods) == {}
    assert [line.partition("bad 1.2): ")[2] for line in lines] == [
        "task 'Wine': its name is 'Wine': use a-z, 0-9 and '-' only, beginning with a letter or digit; task left out",
        "task 'object': a object was registered: make it a subclass of ocd_bench.Task; task left out",
        "method 'Method': its name is None: use a-z, 0-9 and '-' only, beginning with a letter or digit; method left out",
    ]


def test_built_in_methods_come_first_and_cannot_be_replaced() -> None:
    names = list(load_plugins(only=()).methods)
    assert names[0] == "base"
    assert {"ocd", "tent", "oracle"} <= set(names)


# -- named by the user --------------------------------------------------------------------------------------------------
def test_a_file_can_import_modules_of_its_own_folder(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "else where"
    folder.mkdir()
    (folder / "beside.py").write_text("NAME = 'mine'")
    (folder / "mine-own.py").write_text("import beside\n__version__ = '7'\n" + TASK.replace('"NAME"', "beside.NAME"))
    path = str(folder / "mine-own.py")
    manager, lines = loaded(path, path)
    assert lines == []
    assert list(manager.tasks) == ["mine"]
    assert manager.describe()[-1] == {
        "name": "mine-own.py",
        "version": "7",
        "origin": path,
        "hooks": ["ocd_bench_register_tasks"],
    }


def test_a_file_that_changed_within_a_second_and_kept_its_size_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("value = 16")
    assert sources.load_file(tmp_path / "one.py").value == 16
    (tmp_path / "one.py").write_text("value = 12")
    assert sources.load_file(tmp_path / "one.py").value == 12


def test_an_installed_module_may_be_named_too(install: Install) -> None:
    install("wine", task_code("wine"))
    manager, lines = loaded("plug_wine")
    assert lines == []
    assert list(manager.tasks) == ["wine"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none.py", "--plugin none.py: no such file"),
        (".", "--plugin .: no module"),
        ("./", "--plugin ./: is a folder"),
        ("no_such_module", "no module of that name"),
        ("mine.py", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_the_user_names_must_load(install: Install, word: str, message: str) -> None:
    Path("mine.py").write_text("1 / 0")
    with pytest.raises(UsageError, match=message):
        load_plugins([word])


def test_a_bad_task_of_a_named_plugin_is_an_error(install: Install) -> None:
    Path("mine.py").write_text(task_code("Mine"))
    with pytest.raises(UsageError, match=r"plugin 'mine.py': task 'Mine': its name is 'Mine'"):
        _ = load_plugins(["mine.py"]).tasks


def test_only_loads_the_named_plugin(install: Install) -> None:
    install("a", task_code("first"))
    install("b", "1 / 0")
    assert list(load_plugins(only=["a"]).tasks) == ["first"]
    assert list(load_plugins(only=["ocd-bench-a"]).tasks) == ["first"]
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        load_plugins(only=["b"])
    with pytest.raises(UsageError, match="no plugin 'aa' .did you mean 'a'?.*installed plugins: a, b; a file must end in .py"):
        load_plugins(only=["aa"])


# -- ocdfile.py and switching off -----------------------------------------------------------------------------------------
def test_ocdfile_of_the_working_directory_is_loaded_once(install: Install) -> None:
    Path("ocdfile.py").write_text(task_code("local"))
    for extra in ((), ("ocdfile.py",), ("./ocdfile.py",)):
        manager, lines = loaded(*extra)
        assert lines == []
        assert list(manager.tasks) == ["local"]


@pytest.mark.parametrize(
    ("value", "left"),
    [("1", []), ("all", []), ("wine", ["beer", "local"]), ("wine, ocdfile", ["beer"]), ("ocdfile.py", ["beer", "wine"]),
     ("", ["beer", "local", "wine"]), ("0", ["beer", "local", "wine"])],
)  # fmt: skip
def test_plugins_can_be_switched_off(install: Install, monkeypatch: pytest.MonkeyPatch, value: str, left: list[str]) -> None:
    install("wine", task_code("wine"))
    install("beer", task_code("beer"))
    Path("ocdfile.py").write_text(task_code("local"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", value)
    manager, lines = loaded()
    assert lines == []
    assert sorted(manager.tasks) == left
    assert manager.describe()[0]["name"] == "methods"


def test_a_named_plugin_is_loaded_even_where_all_are_off(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "1")
    Path("mine.py").write_text(task_code("mine"))
    assert list(loaded("mine.py")[0].tasks) == ["mine"]


def test_a_misspelt_name_in_the_off_list_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wine", task_code("wine"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "wime")
    manager, lines = loaded()
    assert lines == ["$OCD_BENCH_DISABLE_PLUGINS: no plugin 'wime' (did you mean 'wine'?)"]
    assert list(manager.tasks) == ["wine"]


# -- hooks --------------------------------------------------------------------------------------------------------------
def test_hooks_fall_back_on_the_task_itself(install: Install) -> None:
    install("wine", task_code("wine"))
    hook, task = (manager := loaded()[0]).hook, manager.task("wine")
    assert hook.ocd_bench_load_data(task=task, request=request_for(task)) == "own data"
    assert hook.ocd_bench_base_model(task=task, splits=None, request=request_for(task)) == "own model"
    assert hook.ocd_bench_select_layer(task=task, model=None, request=request_for(task)) is None


def test_a_plugin_can_replace_parts_of_another_plugins_task(install: Install) -> None:
    install("wine", task_code("wine"))
    Path("mine.py").write_text(
        dedent(
            """
            import ocd_bench
            @ocd_bench.hookimpl(trylast=True)
            def ocd_bench_load_data(task): return "other data" if task.name == "wine" else None
            @ocd_bench.hookimpl(wrapper=True)
            def ocd_bench_base_model():
                model = yield
                return f"wrapped {model}"
            @ocd_bench.hookimpl
            def ocd_bench_select_layer(model): return "last"
            """
        )
    )
    install("beer", task_code("beer"))
    manager, _ = loaded("mine.py")
    answers = {}
    for task in manager.tasks.values():
        data = manager.hook.ocd_bench_load_data(task=task, request=request_for(task))
        model = manager.hook.ocd_bench_base_model(task=task, splits=data, request=request_for(task))
        layer = manager.hook.ocd_bench_select_layer(task=task, model=model, request=request_for(task))
        answers[task.name] = data, model, layer
    assert answers == {
        "beer": ("own data", "wrapped own model", "last"),
        "wine": ("other data", "wrapped own model", "last"),
    }


def test_tracing_prints_every_call_with_the_plugins(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OCD_BENCH_TRACE_PLUGINS", "1")
    install("wine", task_code("wine"))
    Path("ocdfile.py").write_text(
        "import ocd_bench\n@ocd_bench.hookimpl\ndef ocd_bench_load_data(task, request): return None\n"
    )
    manager, _ = loaded()
    task = manager.task("wine")
    manager.hook.ocd_bench_load_data(task=task, request=request_for(task))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "ocd-bench: trace: ocd_bench_register_tasks(register=register): wine",
        "ocd-bench: trace: ocd_bench_register_tasks -> []",
        "ocd-bench: trace: ocd_bench_load_data(task=wine, request=Request): ocdfile.py, the task itself",
        "ocd-bench: trace: ocd_bench_load_data -> 'own data'",
    ]


# -- names and availability -----------------------------------------------------------------------------------------------
def test_an_unknown_task_names_the_nearest_and_the_list(install: Install) -> None:
    install("a", task_code("images"))
    install("b", task_code("speech"))
    with pytest.raises(UsageError, match=r"unknown task 'image' \(did you mean 'images'\?\); tasks: images, speech"):
        loaded()[0].task("image")


def test_without_tasks_it_says_how_to_install_them(install: Install) -> None:
    for name in ("images", "all"):
        with pytest.raises(UsageError, match=r"pip install -r requirements.txt"):
            loaded()[0].task(name)


# -- hooks that go out of use -----------------------------------------------------------------------------------------------
OLD = """
import ocd_bench

@ocd_bench.hookimpl
def ocd_bench_cell_finished(cell): ...

@ocd_bench.hookimpl
def ocd_bench_report_sections(task, cells): ...
"""


def test_a_deprecated_hook_works_and_is_named_with_its_plugin_and_what_to_use(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = vars(spec.ocd_bench_cell_finished)["ocd_bench_spec"]
    monkeypatch.setitem(hook, "warn_on_impl", DeprecationWarning("ocd_bench_cell_finished is deprecated: use X"))
    sections = vars(spec.ocd_bench_report_sections)["ocd_bench_spec"]
    old = {"dataset": DeprecationWarning("not asked for"), "task": DeprecationWarning("argument task is deprecated: use Y")}
    monkeypatch.setitem(sections, "warn_on_impl_args", old)
    install("old", OLD)
    install("new", OLD.replace("cell_finished(cell)", "report_columns(cells)").replace("task, ", ""))
    manager, lines = loaded()
    assert lines == [
        "plugin 'old' (ocd-bench-old 1.2): ocd_bench_cell_finished is deprecated: use X",
        "plugin 'old' (ocd-bench-old 1.2): argument task is deprecated: use Y",
    ]
    hooks = {row["name"]: row["hooks"] for row in manager.describe()}
    assert hooks["old"] == ["ocd_bench_cell_finished", "ocd_bench_report_sections"]
