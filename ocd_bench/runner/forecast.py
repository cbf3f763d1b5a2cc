"""What a run would do and how long it would take (``ocd-bench run --dry-run``). Nothing is loaded, trained or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocd_bench.cache import entries
from ocd_bench.config import Config, fingerprint, resolve, without_machines
from ocd_bench.runner.cells import Group
from ocd_bench.runner.clock import BASE, DATA, Times, in_words
from ocd_bench.runner.stored import ANEW, check_settings, seeds_there

if TYPE_CHECKING:
    from ocd_bench.runner.start import Planned

KIND = "bases"
"""Kind of the cache entries of base models."""


def base_sections(config: Config, task: str) -> dict[str, dict[str, Any]]:
    """The settings that a base model depends on."""
    sections = config.as_dict(["base", task])
    sections["base"].pop("cache")
    return sections


def settings_print(config: Config, task: str, preset: str) -> str:
    """Fingerprint of the settings that a base model depends on."""
    return fingerprint({"preset": preset, "sections": base_sections(config, task)})


@dataclass(frozen=True)
class Work:
    """What a run would do for one (task, dataset, seed).

    Attributes:
        finished: cells that the run folder has already, as ``(dataset with corruption, method)``.
        waiting: methods that would be measured, with expected seconds, and whether these are a rough figure.
        base: ``cached``, ``to train``, ``not needed``, or ``stored`` where ``--bases`` has it. ``base-anew`` needs one of its
            own: ``stored; base-anew: to train``.
        seconds: expected, for everything.
        rough: whether a part of them is a rough figure.
    """

    group: Group
    finished: Sequence[tuple[str, str]]
    waiting: dict[str, tuple[float, bool]]
    base: str
    seconds: float
    rough: bool


def forecast(planned: Planned) -> Iterator[Work]:
    """The work of each group. A finished cell is one that has a number; whether it can be kept, the run itself decides, by the
    code, data and settings that it depends on."""
    request = planned.request
    times = Times(request.preset, without_machines(request.overrides), request.device)
    methods = list(planned.manager.methods.values())
    whole = planned.finished() is not None
    for group in planned.groups:
        labels = [variant.label(group.dataset) for variant in group.variants]
        cells = [(label, name) for name in group.methods for label in labels]
        finished = [cell for cell in cells if whole or _has_number(planned, group, *cell)]
        todo = [name for name in group.methods if any((label, name) not in finished for label in labels)]
        config = resolve(planned.manager.task(group.task), methods, request.preset, request.overrides)
        wanted = settings_print(config, group.task, request.preset)
        known = any(
            entry.record.get("settings") == wanted for entry in entries(KIND, f"{group.task}-{group.dataset}-s{group.seed}")
        )
        own = "cached" if known and config.section("base").cache else "to train"
        base = _base(planned, group, todo, own)
        if base.startswith("stored") and request.bases is not None:
            check_settings(request.bases, group.task, group.dataset, group.seed, base_sections(config, group.task))
        steps = [DATA, *([BASE] if base.endswith("to train") else []), *todo] if todo else []
        seconds = {step: times.expected(group, step) for step in steps}
        expected = {step: times.rough(step) if value is None else value for step, value in seconds.items()}
        waiting = {name: (expected[name], seconds[name] is None) for name in todo}
        yield Work(group, finished, waiting, base, sum(expected.values()), any(value is None for value in seconds.values()))


def _base(planned: Planned, group: Group, todo: Sequence[str], own: str) -> str:
    """Where the base comes from, if the one that is made here is ``own``: cached or to train."""
    if not todo:
        return "not needed"
    folder = planned.request.bases
    if folder is None or group.seed not in seeds_there(folder, group.task, group.dataset):
        return own
    return f"stored; {ANEW}: {own}" if ANEW in todo else "stored"


def _has_number(planned: Planned, group: Group, label: str, method: str) -> bool:
    from ocd_bench.runner.store import RunFolder

    cell = RunFolder.at(planned.path).read_cell(group.task, label, method, group.seed)
    return cell is not None and cell["status"] == "ok"


def as_text(planned: Planned, work: Sequence[Work]) -> str:
    """Lines for the terminal."""
    lines = list(planned.left_out)
    for each in work:
        group = each.group
        cells = len(group.methods) * len(group.variants)
        corruptions = ", ".join(variant.label("").strip("+") or "clean" for variant in group.variants)
        head = f"{group.task} {group.dataset} seed {group.seed}" + (f" ({corruptions})" if corruptions != "clean" else "")
        done = f", {len(each.finished)} finished" if each.finished else ""
        lines.append(f"{head}: {cells} cell{'' if cells == 1 else 's'}{done}; {_about(each)}")
        if each.waiting:
            lines.append(f"  base model: {each.base}")
            named = (f"{name} ({'?' if rough else in_words(seconds)})" for name, (seconds, rough) in each.waiting.items())
            lines.append(f"  to measure: {', '.join(named)}")
    cells, finished = planned.cells, sum(len(each.finished) for each in work)
    seconds = sum(each.seconds for each in work) / max(1, min(planned.request.jobs, len(work)))
    total = f"{cells} cell{'s' * (cells != 1)}, {finished} finished, {cells - finished} to measure"
    lines.append(f"total: {total}" + (f"; about {in_words(seconds)}" if finished < cells else ""))
    if finished and planned.finished() is None:
        lines.append("a finished cell is measured again if code, packages or data behind it have changed since")
    if any(each.rough for each in work):
        lines.append(f"?: never measured here; counted at {times_rough(planned)} (two idle cores)")
    lines.append(f"nothing was measured; run folder: {planned.path}")
    return "\n".join(lines)


def times_rough(planned: Planned) -> str:
    """The rough figure of a method, in words."""
    return f"{in_words(Times(planned.request.preset).rough(''))} a method with preset {planned.request.preset}"


def _about(work: Work) -> str:
    return f"about {in_words(work.seconds)}" if work.waiting else "nothing to do"


def as_json(planned: Planned, work: Sequence[Work]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "run": str(planned.path),
        "groups": [
            {
                "task": each.group.task,
                "dataset": each.group.dataset,
                "variants": [variant.label(each.group.dataset) for variant in each.group.variants],
                "seed": each.group.seed,
                "finished": [{"dataset": label, "method": name} for label, name in each.finished],
                "to_measure": [
                    {"method": name, "seconds": round(seconds, 1), "rough": rough}
                    for name, (seconds, rough) in each.waiting.items()
                ],
                "base": each.base,
                "seconds": round(each.seconds, 1),
                "rough": each.rough,
            }
            for each in work
        ],
    }
