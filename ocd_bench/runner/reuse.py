"""Which cells are still to be measured: all but the finished ones, unless something that they depend on has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocd_bench.config import fingerprint
from ocd_bench.errors import UsageError
from ocd_bench.method import Method
from ocd_bench.runner.base import BaseModel
from ocd_bench.runner.cells import Variant, cell_name
from ocd_bench.runner.code import code_of
from ocd_bench.runner.fingerprints import LAYER_HOOKS, MEASURING, differences, hook_modules, named_files, object_print, versions
from ocd_bench.runner.job import Job, Todo
from ocd_bench.runner.sandbox import Message
from ocd_bench.runner.streams import courses

Heads = Mapping[str, Mapping[str, Any]]
"""By method, the fields that all of its cells begin with: ``chosen``, ``set_by_user``, ``fingerprint`` and ``made_by``."""


def heads_of(job: Job, base_key: str) -> dict[str, dict[str, Any]]:
    """The fingerprints of each method's cells, on the base of that key."""
    return {method.name: _head(job, method, base_key) for method in job.methods}


def _head(job: Job, method: Method, base_key: str) -> dict[str, Any]:
    sections = job.config.as_dict(job.sections_of(method))
    sections["base"].pop("cache")
    sections["run"].pop("threads")  # it rounds, and is in made_by; it makes no other experiment
    code, packages = object_print(method)
    core = code_of(MEASURING)
    layer, hook_packages = object_print(job.task, hook_modules(job.manager, *LAYER_HOOKS))
    own = {name for part in getattr(method, "parts", (method,)) for name in (part.section, *part.reads)}
    return {
        "chosen": method.chosen,
        "set_by_user": sorted(key for key in job.run.overrides if key.partition(".")[0] in own),
        "fingerprint": {"config": fingerprint({"preset": job.run.preset, "sections": sections})},
        "made_by": {
            "method": code,
            "task": layer,
            "core": core.sha256,
            "packages": versions(packages | hook_packages | core.packages),
            "files": named_files(sections, job.run.data_dirs),
            "threads": job.threads,
            "base": base_key,
        },
    }


def fits_of(job: Job, base: BaseModel, layer: str) -> str:
    """Fingerprint of everything that fits on this base and layer depend on, whichever method they belong to.

    It covers the code of every known method. So methods can share a fit, and other ``--methods`` do not change it.
    """
    sections = job.config.as_dict()
    sections["base"].pop("cache")
    codes = {name: object_print(method) for name, method in sorted(job.manager.methods.items())}
    core = code_of(MEASURING)
    packages = core.packages.union(*(packages for _, packages in codes.values()))
    return fingerprint(
        {
            "methods": {name: code for name, (code, _) in codes.items()},
            "core": core.sha256,
            "packages": versions(packages),
            "sections": sections,
            "preset": job.run.preset,
            "files": named_files(sections, job.run.data_dirs),
            "base": [base.key, base.sha256],
            "layer": layer,
        }
    )


def unfinished(job: Job, heads: Heads, data: Mapping[Variant, str]) -> Todo:
    """The cells to measure. Finished cells are sent unchanged; cells of other code are named in one line.

    Args:
        data: fingerprint of the samples, by test variant.

    Raises:
        UsageError: for a cell of another configuration or other data.
    """
    todo: Todo = []
    stale: list[str] = []
    reasons: dict[str, None] = {}
    for method in job.methods:
        missing: list[Variant] = []
        for members in courses(job.group.variants):
            found = [_finished(job, method, variant, heads[method.name], data[variant]) for variant in members]
            if all(cell is not None for cell, _ in found):
                for cell, _ in found:
                    job.send(Message("cell", {"cell": cell, "reused": True}))
                continue
            missing += members  # what is measured without a reset is measured together
            for variant, (_, changed) in zip(members, found, strict=True):
                if changed:
                    stale.append(_name(job, method, variant))
                    reasons.update(dict.fromkeys(changed))
        if missing:
            todo.append((method, missing))
    if stale:
        shown = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        job.note(f"measured again, since {' and '.join(reasons)} changed: {shown}")
    return todo


def _name(job: Job, method: Method, variant: Variant) -> str:
    return cell_name(job.group.task, variant.label(job.group.dataset), method.name, job.group.seed)


def _finished(
    job: Job, method: Method, variant: Variant, head: Mapping[str, Any], data: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """A finished cell that can be reused; else None, and what has changed since it was measured."""
    cell = job.folder.read_cell(job.group.task, variant.label(job.group.dataset), method.name, job.group.seed)
    if cell is None or cell["status"] != "ok":
        return None, []  # a method that was not applicable is tried again: the cause may be gone
    for what, old, new in (
        ("configuration", cell["fingerprint"].get("config"), head["fingerprint"]["config"]),
        ("data", cell["fingerprint"].get("data"), data),
    ):
        if old != new:
            name = _name(job, method, variant)
            raise UsageError(f"--out {job.folder.path}: cell {name} was measured with another {what}; choose another --out")
    changed = differences(cell.get("made_by"), head["made_by"])
    return (None, changed) if changed else (cell, [])
