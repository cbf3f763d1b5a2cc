"""Checks that the modules that a task requires can be imported, and says what to install if not."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""Names of distributions, by module name, where the two differ."""

SAME_AS_TORCH = ("torchaudio",)
"""Distributions with compiled code that are released together with torch under the same version number."""


def missing(modules: Iterable[str], try_import: bool = True) -> str | None:
    """``unavailable: ...`` with the remedy for the first module that cannot be imported, or None.

    Args:
        modules: names of modules.
        try_import: whether to import each module. This detects, for example, a torchaudio for CUDA beside a torch for the CPU.
            If False, modules are only located, which saves the seconds that an import may take.

    Example:
        >>> missing(["json"])
        >>> missing(["json", "nowhere.below"])
        'unavailable: pip install nowhere'

    .. versionadded:: 0.1
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
        except (Exception, SystemExit) as error:  # a broken package may raise any error; other tasks must still work
            return f"unavailable: {_broken(module.partition('.')[0], error)}"
    return None


def _broken(module: str, error: BaseException) -> str:
    name = DISTRIBUTIONS.get(module, module)
    message = (str(error).strip().splitlines() or ["no message"])[0]
    what = f"{name} {_version(name)}".strip()
    if name in SAME_AS_TORCH and (torch := _version("torch")):
        number = torch.partition("+")[0]
        return (
            f"{what} does not load beside torch {torch} ({type(error).__name__}: {message}): the two builds do not match; "
            f"pip install torch=={number} {name}=={number}, both from one index"
        )
    return f"{what} is installed but does not load ({type(error).__name__}: {message}); pip install --force-reinstall {name}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
