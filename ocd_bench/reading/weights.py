"""Files of trained weights: PyTorch checkpoints and safetensors. No code in a file is executed: pickles may hold only tensors
and plain values.

A file is often not a bare state dict. Training scripts store it under ``state_dict``, ``model`` or ``net``, beside a moving
average (``model_ema``) and an optimizer. ``DataParallel``, ``torch.compile`` and Lightning put ``module.``, ``_orig_mod.`` and
``model.`` before every name. :func:`states_in` lists all candidates.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ocd_bench.errors import UsageError
from ocd_bench.printable import one_line
from ocd_bench.reading.files import open_file, read_bounded
from ocd_bench.reading.guard import reading
from ocd_bench.reading.limits import check_size

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]
DEPTH = 6
"""Levels of nesting, in mappings and in dotted names, that are looked into."""
HEADER = 100 * 2**20
"""Most bytes of the header of a safetensors file."""
CURE = "save the weights alone, with torch.save(model.state_dict(), FILE) or as safetensors"
WRAPPER = re.compile(r"^(module|_orig_mod|model|net|network)$|ema|averag|swa|teacher|student", re.IGNORECASE)
"""First parts of dotted names that may contain a whole model, beside other tensors (a loss, a second model)."""
OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights themselves; run 'git lfs pull'"),
    (b"<", "a web page or XML, not weights; download the file again"),
    (b"\x89HDF", f"an HDF5 file (Keras), which is not read; {CURE}"),
    (b"\x93NUMPY", f"a NumPy array, not named weights; {CURE}"),
)
"""Other kinds of files that are mistaken for checkpoints, by their first bytes."""


def read_weights(path: Path) -> Any:
    """What a checkpoint holds: mappings, lists, tensors (on the CPU) and plain values.

    Raises:
        UsageError: if it is no such file, damaged, or holds Python objects that would have to be run.
    """
    with open_file(path) as file:
        head = file.read(64)
        file.seek(0)
        where = f"checkpoint {path}"
        if not head:
            raise UsageError(f"{where}: not a readable file of weights: it is empty")
        for start, what in OTHER_FILES:
            if head.lower().startswith(start.lower()):
                raise UsageError(f"{where}: not a readable file of weights: {what}")
        if _is_safetensors(head):
            return _read_safetensors(file, where)
        if head.startswith(b"PK"):
            _check_archive(file, where)
        return _read_torch(file, where)


def states_in(content: Any) -> Iterator[tuple[str, State]]:
    """Everything in ``content`` that could be a model's state dict, with the path to it: the keys of mappings and the first
    parts of dotted names, joined by slashes; empty for the whole.

    The state of an optimizer is not included.
    """
    import torch

    def visit(value: Any, path: str, depth: int) -> Iterator[tuple[str, State]]:
        if not isinstance(value, Mapping) or depth > DEPTH:
            return
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        tensors = {key: item for key, item in named.items() if isinstance(item, torch.Tensor)}
        if tensors:
            yield path, tensors
            yield from grouped(tensors, path, depth + 1)
        for key, item in named.items():
            if not re.search("optim|sched|scaler", key, re.IGNORECASE):
                yield from visit(item, f"{path}/{key}".lstrip("/"), depth + 1)

    def grouped(tensors: State, path: str, depth: int) -> Iterator[tuple[str, State]]:
        """The tensors below each first part of their names."""
        groups: dict[str, State] = {}
        for key, tensor in tensors.items():
            first, dot, rest = key.partition(".")
            if dot:
                groups.setdefault(first, {})[rest] = tensor
        if depth <= DEPTH:
            for first, group in groups.items():
                # A layer of a network is not a network: what else there is may only be left off beside a wrapper's name.
                if len(group) < len(tensors) and not WRAPPER.search(first):
                    continue
                inner = f"{path}/{first}".lstrip("/")
                yield inner, group
                yield from grouped(group, inner, depth + 1)

    yield from visit(content, "", 0)


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of the header's length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER


def _read_safetensors(file: BinaryIO, where: str) -> Any:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise UsageError(f"{where}: a safetensors file; pip install safetensors") from error
    with reading(where, "get the file again"):
        return load(read_bounded(file, where))


def _check_archive(file: BinaryIO, where: str) -> None:
    """Refuse a zip that is no checkpoint of PyTorch, or of a size that its bytes do not have."""
    with reading(where, "get the file again"):
        if not zipfile.is_zipfile(file):
            raise UsageError(f"{where}: not a readable file of weights: it breaks off before its end; get the whole file")
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    names = [member.filename.partition("/")[2] for member in members]
    if any(name.startswith("code/") for name in names):
        raise UsageError(f"{where}: a TorchScript program, which is not run; {CURE}")
    if "data.pkl" not in names:
        raise UsageError(f"{where}: a zip file, but no checkpoint of PyTorch; {CURE}")
    check_size(where, sum(member.file_size for member in members))
    file.seek(0)


def _read_torch(file: BinaryIO, where: str) -> Any:
    import pickle

    import torch

    try:
        with reading(where), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except UsageError as error:
        cause = error.__cause__
        text = str(cause)
        if isinstance(cause, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", text)):
            raise UsageError(
                f"{where}: holds a Python object ({one_line(found[1])[:80]}); reading it could run code, so it is not read; "
                f"{CURE}"
            ) from error
        reason = f" ({type(cause).__name__})" if cause is not None else ""
        raise UsageError(
            f"{where}: not a readable file of weights: damaged, cut off, or of another format{reason}; get it again, or {CURE}"
        ) from error
