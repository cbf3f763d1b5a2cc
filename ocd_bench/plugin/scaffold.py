"""``plugin new``: writes an installable distribution with a small working task or method, and tests that pass."""

from __future__ import annotations

from pathlib import Path
from string import Template

from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.plugin import templates
from ocd_bench.plugin.validate import NAME, RESERVED

KINDS = ("task", "method")

FILES = {
    "task": {
        "src/$package/__init__.py": templates.TASK_INIT,
        "src/$package/task.py": templates.TASK,
        "tests/test_$module.py": templates.TASK_TEST,
    },
    "method": {
        "src/$package/__init__.py": templates.METHOD_INIT,
        "src/$package/method.py": templates.METHOD,
        "tests/test_$module.py": templates.METHOD_TEST,
    },
}
COMMON = {"pyproject.toml": templates.PYPROJECT, "README.md": templates.README}
RUN = {"task": "--task {}", "method": "--task all --methods base,{}"}


def write_plugin(name: str, kind: str = "task", out: Path | None = None) -> list[Path]:
    """Write the distribution ``ocd-bench-<name>`` and return its files.

    Args:
        name: of the task or method, and of the plugin.
        kind: ``"task"`` or ``"method"``.
        out: a new or empty folder; default: ``ocd-bench-<name>`` in the working directory.

    Raises:
        UsageError: if the name is not allowed, or the folder is not empty or cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r}: unknown{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    if not NAME.fullmatch(name) or name.endswith("-") or "--" in name:
        raise UsageError(f"{name!r} cannot be a plugin's name: use a-z, 0-9 and single '-' between them, for example my-{kind}")
    _refuse_taken(name, kind)
    folder = out or Path(f"ocd-bench-{name}")
    words = {
        "name": name,
        "kind": kind,
        "kinds": f"{kind}s",
        "distribution": f"ocd-bench-{name}",
        "module": name.replace("-", "_"),
        "package": f"ocd_bench_{name.replace('-', '_')}",
        "cls": _class_name(name),
        "run": f"ocd-bench run {RUN[kind].format(name)} --preset quick",
    }
    texts = {
        Template(path).substitute(words): Template(text).substitute(words) for path, text in (COMMON | FILES[kind]).items()
    }
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists already: choose another --out, or remove it")
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return [folder / path for path in texts]


def _class_name(name: str) -> str:
    """``two-moons`` as ``TwoMoons``. It must not begin with a digit, or equal a name that the templates use."""
    text = "".join(word.capitalize() for word in name.split("-"))
    return f"The{text}" if text[0].isdigit() or text in ("Task", "Method", "Settings", "Averaged") else text


def _refuse_taken(name: str, kind: str) -> None:
    from ocd_bench.method import Method
    from ocd_bench.methods.catalogue import CARDS
    from ocd_bench.task import Task

    taken = (*RESERVED[Task if kind == "task" else Method], *(tuple(card.name for card in CARDS) if kind == "method" else ()))
    if name in taken:
        raise UsageError(f"the name {name!r} is OCD-Bench's own: choose another")
