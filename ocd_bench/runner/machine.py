"""The machine that a run uses, and the memory that a cell needs."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ocd_bench.errors import UsageError
from ocd_bench.runner.cells import parse_device


def choose_device(text: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:i`` as an available device.

    Raises:
        UsageError: if it is not available.
    """
    kind, index = parse_device(text)
    if kind == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise UsageError(f"--device {text}: this machine has {count} CUDA device(s) that torch can use; try --device cpu")
    return torch.device("cuda", index)


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, device, CPU, number of threads and, if the working folder is a git checkout, its revision."""
    import numpy

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "threads": threads,
        "git": _git_revision(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


class PeakMemory:
    """Peak memory in MB since :meth:`start`: resident set of this process, or what torch allocated on the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Begin a new measurement."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the high-water mark

    def read(self) -> float:
        """The peak so far. If the kernel cannot reset it, it is the peak since the process began."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        except OSError:
            pass
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
