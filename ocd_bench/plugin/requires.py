"""Whether the modules a task requires can be imported, and what to install where they cannot."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""Distributions whose name is not that of the module."""

SAME_AS_TORCH = ("torchaudio",)
"""Distributions with compiled parts that are released together with torch, under its number."""


def missing(modules: Iterable[str], try_import: bool = True) -> str | None:
    """``unavailable: ...`` with the cure for the first module that cannot be imported, or None.

    By default the import is tried: a torchaudio built for CUDA is found beside a CPU-only torch, but does not load. With
    ``try_import=False`` the module is only looked for, without the seconds that an import may take.
    """
    for module in modules:
        try:
            if try_import:
                importlib.import_module(module)
            elif importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
        except ModuleNotFoundError as error:
            absent = (error.name or module).partition(".")[0]
            return f"unavailable: pip install {DISTRIBUTIONS.get(absent, absent)}"
        except (Exception, SystemExit) as error:  # whatever a broken package raises, the others must go on
            return f"unavailable: {_broken(module.partition('.')[0], error)}"
    return None


def _broken(module: str, error: BaseException) -> str:
    name = DISTRIBUTIONS.get(module, module)
    said = (str(error).strip().splitlines() or ["no message"])[0]
    what = f"{name} {_version(name)}".strip()
    if name in SAME_AS_TORCH and (torch := _version("torch")):
        number = torch.partition("+")[0]
        return (
            f"{what} does not load beside torch {torch} ({type(error).__name__}: {said}): the two builds do not match; "
            f"pip install torch=={number} {name}=={number}, both from one index"
        )
    return f"{what} is installed but does not load ({type(error).__name__}: {said}); pip install --force-reinstall {name}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
