"""The connection to a ray cluster: made within a time limit, or refused in one line.

ray waits for minutes for an address that does not answer, and cannot be interrupted meanwhile. So the first try is made by
another process, which is killed when the time is over: ``python -m ocd_bench.runner.executors.connect ADDRESS``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ocd_bench.config import RaySettings
from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.printable import one_line

INSTALL = "--executor ray: ray is not installed: pip install 'ocd-bench[ray]'"
STORE = 200 * 2**20
"""Bytes of the object store of a ray that a run starts for itself."""


def connect(settings: RaySettings, cores: int, threads: int, cuda: bool) -> Any:
    """The module ``ray``, connected.

    Args:
        cores: of a ray of its own, if no address is given.
        threads: that compute in a worker.
        cuda: whether a worker needs a GPU unless the settings say otherwise.

    Raises:
        Unavailable: if ray is not installed, the address does not answer, or no machine of the cluster has room for a worker.
        UsageError: if the address has a form that is not supported.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS", "")
    _prepare(address)
    try:
        import ray
    except ImportError as error:
        raise Unavailable(INSTALL) from error
    if not ray.is_initialized():
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if address:
                _try(address, settings.timeout)
                ray.init(address=address, **QUIET)
            else:
                own: dict[str, Any] = {"num_cpus": cores, "object_store_memory": STORE, "include_dashboard": False}
                ray.init(address="local", _node_ip_address="127.0.0.1", **own, **QUIET)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise Unavailable(f"{_place(address)}: {one_line(str(error))[:300]}") from error
        finally:
            for number, handler in before.items():  # ray sets a handler that ends the process without a table
                signal.signal(number, handler)
    _wait_for_room(ray, settings, threads, cuda)
    return ray


def disconnect(ray: Any) -> None:
    """Disconnect. A cluster that this process has started ends, with all its processes; another one goes on.

    ray ends its processes one after the other, and waits up to a second for each of its helpers (the monitors, the dashboard).
    These are programs in Python, and nobody needs them any more, so they are killed first.
    """
    for pid in _helpers(Path(ray.__file__).parent):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    ray.shutdown()


def _helpers(package: Path) -> list[int]:
    """Children of this process that run a Python file of ``package``. None where the system does not say what its processes
    are (it is not Linux)."""
    found = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in thread.read_text().split():
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if any(word.endswith(b".py") and Path(os.fsdecode(word)).is_relative_to(package) for word in words):
                    found.append(int(pid))
    return found


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def _place(address: str) -> str:
    return f"--executor ray: ray.address={address}" if address else "--executor ray: a ray on this machine"


def _prepare(address: str) -> None:
    """Environment variables that ray reads when it is imported, or when it starts processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, port = _host_and_port(address)
    if address and address != "auto" and not port:
        raise UsageError(f"ray.address={address}: expected HOST:PORT, as 'ray start' prints it, or auto")
    if not address or _is_loopback(host):
        # ray replaces 127.0.0.1 by the machine's outer address, where a cluster on the loopback does not listen.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit() or not 0 < int(port) < 65_536:
        return "", 0
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _try(address: str, seconds: float) -> None:
    """Connect from another process, within the time limit."""
    end = time.monotonic() + seconds
    host, port = _host_and_port(address)
    if port:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError as error:
            raise Unavailable(f"{_place(address)}: does not answer ({error.strerror or error}); is the cluster up?") from error
    command = [sys.executable, "-m", "ocd_bench.runner.executors.connect", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{_place(address)}: no answer of a ray cluster within {seconds:g} s (ray.timeout); "
                "is it a cluster of this version of ray, and this machine part of it?"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        reason = one_line(said.decode("utf-8", "replace"))[:300] or f"ray ended with exit code {process.returncode}"
        raise Unavailable(f"{_place(address)}: {reason}")


# -- room -----------------------------------------------------------------------------------------------------------------
def needs(settings: RaySettings, threads: int, cuda: bool) -> dict[str, float]:
    """What a worker needs, in ray's words and units.

    Raises:
        UsageError: if fewer cores than threads are to be reserved.
    """
    if 0 < settings.cpus < threads:
        raise UsageError(f"ray.cpus={settings.cpus}: run.threads={threads} threads compute; reserve as many cores, or more")
    gpus = settings.gpus if settings.gpus >= 0 else float(cuda)
    return {"CPU": float(settings.cpus or threads), "GPU": gpus, "memory": settings.memory * 1e9}


def room(nodes: list[dict[str, Any]], need: dict[str, float]) -> int:
    """How many workers the machines that are alive have room for at a time."""
    return sum(
        int(min(node["Resources"].get(name, 0.0) / amount for name, amount in need.items() if amount > 0))
        for node in nodes
        if node["Alive"]
    )


def _wait_for_room(ray: Any, settings: RaySettings, threads: int, cuda: bool) -> None:
    need = needs(settings, threads, cuda)
    end = time.monotonic() + settings.timeout
    while not room(ray.nodes(), need):
        if time.monotonic() > end:
            disconnect(ray)
            raise Unavailable(
                f"--executor ray: no machine of the cluster has {need['CPU']:g} cores, {need['GPU']:g} GPUs and "
                f"{settings.memory:g} GB of memory for a worker; lower ray.cpus, ray.gpus or ray.memory, or add machines"
            )
        time.sleep(0.2)


def main(address: str) -> int:
    """Connect once; print why it cannot be done."""
    _prepare(address)
    import ray

    try:
        ray.init(address=address, **QUIET)
    except Exception as error:
        print(error)
        return 1
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
