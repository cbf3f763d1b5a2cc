"""Base models in files: ``run --keep-bases`` writes them into the run folder, ``run --bases DIR`` uses them.

The same training rounds differently on another CPU, and after many steps the base is another one. Two runs on one stored base
can be compared answer by answer on any two machines. A file is named by the fingerprint of what made the base: task, dataset,
seed, settings and architecture. Machine, threads, package versions and code are left out on purpose, because a stored base is
there to be used on another machine, and by changed code. Weights are stored as they are (safetensors), with their SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.config import fingerprint
from ocd_bench.errors import UsageError
from ocd_bench.files import sha256, write_atomic
from ocd_bench.reading import read_bytes
from ocd_bench.results import config_differences

if TYPE_CHECKING:
    import torch

    from ocd_bench.runner.cells import Group
    from ocd_bench.samples import Splits

FOLDER = "bases"
"""Sub-folder of a run folder."""
SUFFIX = ".safetensors"
ANEW = "base-anew"
"""Row of a run with stored bases: the base, trained on this machine by this code."""
LARGEST_HEADER = 10_000_000


@dataclass(frozen=True)
class Recipe:
    """What makes a base.

    Args:
        settings: by section.
        architecture: the model as text.
        kind: ``base``, or ``samples``: the samples that the task computed for it (:attr:`ocd_bench.Task.stores_samples`).
    """

    task: str
    dataset: str
    seed: int
    settings: Mapping[str, Mapping[str, Any]]
    architecture: str = ""
    kind: str = "base"

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.kind} of {self.task} {self.dataset}, seed {self.seed}"

    @property
    def stem(self) -> str:
        """The first part of the name of every file for this task, dataset and seed."""
        return f"{self.task}-{self.dataset}-s{self.seed}-{self.kind}-".replace("/", "_")

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "task": self.task,
            "dataset": self.dataset,
            "seed": self.seed,
            "settings": json.loads(json.dumps(self.settings)),
            "architecture": fingerprint(self.architecture),
        }

    def path(self, folder: Path) -> Path:
        """The file of this base in a folder of bases."""
        return folder / f"{self.stem}{fingerprint(self.as_dict())[:16]}{SUFFIX}"


def check_folder(folder: Path) -> Path:
    """The folder of the bases: ``folder`` itself, or that of the run folder ``folder``.

    Raises:
        UsageError: if it has none.
    """
    for place in (folder, folder / FOLDER):
        if place.is_dir() and any(place.glob(f"*{SUFFIX}")):
            return place
    raise UsageError(f"--bases {folder}: no stored bases there; 'ocd-bench run --keep-bases' writes them into OUT/{FOLDER}")


def check_seeds(folder: Path, groups: Sequence[Group]) -> None:
    """Refuse stored bases that lack some seeds of a task and dataset, before anything runs. A task and dataset of which there
    is no base at all is none of their business: its bases are trained.

    Raises:
        UsageError: with the seeds that are missing, those that are there, and what to do.
    """
    for task, dataset in dict.fromkeys((group.task, group.dataset) for group in groups):
        there = seeds_there(folder, task, dataset)
        wanted = {group.seed for group in groups if (group.task, group.dataset) == (task, dataset)}
        if there and wanted - there:
            from ocd_bench.report.numbers import seeds_text

            both = sorted(wanted & there)
            use = f"give --seeds {','.join(map(str, both))}{',' * (len(both) == 1)}, or " if both else ""
            raise UsageError(
                f"--bases {folder}: no base of {task} {dataset} for {seeds_text(wanted - there)}; it has {seeds_text(there)}: "
                f"{use}make the reference run with these seeds too (ocd-bench run --keep-bases)"
            )


def check_settings(folder: Path, task: str, dataset: str, seed: int, settings: Mapping[str, Any]) -> None:
    """Refuse a stored base of other settings, before anything runs. Whether its architecture is the same, only the run can see.

    Args:
        settings: of the base and of the task, by section.

    Raises:
        UsageError: naming the difference.
    """
    recipe = Recipe(task, dataset, seed, {name: dict(section) for name, section in settings.items()}, "")
    others = _files(folder, recipe)
    if others and _differences(others, recipe):
        _refuse(folder, recipe)


def seeds_there(folder: Path, task: str, dataset: str) -> set[int]:
    """Seeds of a task and dataset whose bases are stored."""
    pattern = re.compile(re.escape(f"{task}-{dataset}-s".replace("/", "_")) + rf"(\d+)-base-[0-9a-f]{{16}}{re.escape(SUFFIX)}")
    names = [path.name for path in folder.glob(f"*{SUFFIX}")]
    return {int(found[1]) for found in map(pattern.fullmatch, names) if found}


def write_tensors(folder: Path, recipe: Recipe, state: Mapping[str, torch.Tensor]) -> None:
    """Write the weights of a base, or samples, and remove files of older recipes of the same task, dataset and seed.

    Raises:
        UsageError: if the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    about = {"recipe": json.dumps(recipe.as_dict(), sort_keys=True), "sha256": _digest(tensors)}
    path = recipe.path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, metadata=about))
        for other in _files(folder, recipe):
            if other != path:
                other.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--keep-bases: cannot write {path}: {error.strerror or error}") from error


def read_tensors(folder: Path, recipe: Recipe) -> tuple[dict[str, torch.Tensor], str] | None:
    """Stored tensors and their SHA-256; None if the folder has none for this task and dataset.

    Raises:
        UsageError: if those there were made otherwise, with the setting that differs, or is damaged.
    """
    path = recipe.path(folder)
    if not path.is_file():
        _refuse(folder, recipe)
        return None
    data = read_bytes(path)
    try:
        from safetensors.torch import load

        tensors = load(data)
        expected = _about(data)["sha256"]
    except Exception as error:  # safetensors has an exception of its own, not exported
        raise UsageError(f"{path}: damaged: not a safetensors file of OCD-Bench ({type(error).__name__})") from error
    if _digest(tensors) != expected:
        raise UsageError(f"{path}: damaged: its content does not match its sha256; fetch the file again")
    return tensors, expected


def _refuse(folder: Path, recipe: Recipe) -> None:
    """Refuse a base of the same task and dataset that another recipe made, naming the difference."""
    others = _files(folder, recipe)
    if not others:
        seeds = sorted(folder.glob(f"{recipe.task}-{recipe.dataset}-s*-{recipe.kind}-*{SUFFIX}".replace("/", "_")))
        if seeds:
            names = ", ".join(path.name for path in seeds[:4])
            raise UsageError(f"--bases {folder}: no {recipe.label}; found {names}")
        return
    differs = _differences(others, recipe)
    reason = f"with other settings ({', '.join(differs[:3])})" if differs else "with another architecture"
    raise UsageError(
        f"--bases {folder}: the {recipe.label}, was made {reason}; "
        "make the reference run again with --keep-bases, or leave --bases out"
    )


def _differences(files: Sequence[Path], recipe: Recipe) -> list[str]:
    """The settings in which a stored base differs from a recipe."""
    try:
        found = json.loads(_about(read_bytes(files[0]))["recipe"])
        return config_differences(found["settings"], recipe.as_dict()["settings"])
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{files[0]}: damaged: not a safetensors file of OCD-Bench ({type(error).__name__})") from error


def _files(folder: Path, recipe: Recipe) -> list[Path]:
    """Files for the same task, dataset and seed. The rest of their names is the fingerprint."""
    long = len(recipe.stem) + 16 + len(SUFFIX)
    return sorted(p for p in folder.glob(f"*{SUFFIX}") if p.name.startswith(recipe.stem) and len(p.name) == long)


def _about(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    if size > LARGEST_HEADER:
        raise ValueError("header too large")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    from ocd_bench.cache import tensor_sha256

    return sha256("".join(f"{name} {tensor_sha256(tensors[name])}\n" for name in sorted(tensors)).encode())


# -- samples ------------------------------------------------------------------------------------------------------------
def write_samples(folder: Path, recipe: Recipe, splits: Splits) -> None:
    """Store the samples of all splits.

    Raises:
        UsageError: if the folder cannot be written.
    """
    write_tensors(folder, recipe, {name: tensor for name, (tensor, _, _) in _parts(splits).items()})


def with_stored_samples(folder: Path, recipe: Recipe, splits: Splits) -> Splits:
    """The splits with the inputs and targets that are stored; groups and extras stay. Unchanged if none are stored.

    Raises:
        UsageError: if they were made otherwise, are damaged, or do not fit.
    """
    found = read_tensors(folder, recipe)
    if found is None:
        return splits
    tensors, changed = found[0], {"train": splits.train, "val": splits.val, "test": splits.test}
    for name, (now, split, field) in _parts(splits).items():
        stored = tensors.get(name)
        if stored is None or stored.shape != now.shape or stored.dtype != now.dtype:
            raise UsageError(f"{recipe.path(folder)}: {name} does not fit this version's; make the reference run again")
        changed[split] = replace(changed[split], **{field: stored})
    return replace(splits, train=changed["train"], val=changed["val"], test=changed["test"])


def _parts(splits: Splits) -> dict[str, tuple[torch.Tensor, str, str]]:
    return {
        f"{split}.{field}": (getattr(getattr(splits, split), field), split, field)
        for split in ("train", "val", "test")
        for field in ("inputs", "targets")
    }
