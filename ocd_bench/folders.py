"""The folders that OCD-Bench uses on a user's machine."""

from __future__ import annotations

import os
from pathlib import Path

from ocd_bench.errors import UsageError


def cache_folder() -> Path:
    """``$OCD_BENCH_CACHE``, or the user's cache folder."""
    if os.environ.get("OCD_BENCH_CACHE"):
        return Path(os.environ["OCD_BENCH_CACHE"])
    from platformdirs import user_cache_path

    return user_cache_path("ocd-bench")


def data_directories(given: Path | None) -> tuple[Path, ...]:
    """Folders that are searched for datasets: ``--data-dir``, then ``$OCD_BENCH_DATA``, then the user's cache folder.

    Raises:
        UsageError: if the folder of ``--data-dir`` does not exist.
    """
    if given is not None and not given.is_dir():
        raise UsageError(f"--data-dir {given}: no such folder")
    named = [given] if given else []
    if os.environ.get("OCD_BENCH_DATA"):
        named.append(Path(os.environ["OCD_BENCH_DATA"]))
    return (*named, cache_folder() / "data")
