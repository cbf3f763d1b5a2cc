"""Leases: one process does a unit of work, the others wait for its result.

A lease is a file that exists while its owner works. It is created with ``O_CREAT | O_EXCL``, which is atomic on local and on
network file systems, also where ``flock`` is not. A lease is abandoned:

* on the owner's own machine, if that process no longer exists;
* on another machine, if its time stamp has not changed for :data:`PATIENCE` seconds of the observer's own clock. The owner
  renews it every :data:`BEAT` seconds while it works. Clocks of two machines are never compared.

Two processes can still do the same work, for example if a machine sleeps longer than that. This costs time only, because
results are written atomically and do not depend on who computes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from ocd_bench.files import host_name, is_alive, process_start

BEAT = 10.0
PATIENCE = 120.0

State = tuple[str, int, int]
"""A lease file: content, inode, time stamp in nanoseconds."""


class Lease:
    """The right to do one unit of work.

    Args:
        path: the lease file. Its folder is created if necessary.
        host: name of this machine (tests use another one).
        clock: monotonic clock in seconds.
    """

    def __init__(self, path: Path, host: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.host, self.clock = path, host or host_name(), clock
        self.held = False
        self._token = secrets.token_hex(8)
        self._renewed = 0.0
        self._seen: State | None = None
        """Another's lease as this observer saw it last, and when it first saw it like that."""
        self._since = 0.0

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is gone; returns whether the caller may work. If the folder cannot be
        written, there are no leases: every process does the work itself, and this returns True."""
        if self.held:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._create():
                return True
            state = self._state()
            return state is not None and self._is_abandoned(state) and self._replace(state)
        except OSError:
            self.held = False
            return True

    def renew(self) -> None:
        """Renew the time stamp. Cheap; call it often."""
        if self.held and self.clock() - self._renewed >= BEAT:
            self._renewed = self.clock()
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Release the lease."""
        if self.held:
            self.held = False
            owner = self._owner()
            if owner is not None and owner.get("token") == self._token:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)

    def owner(self) -> str:
        """The owner, for a message."""
        owner = self._owner() or {}
        place = "" if owner.get("host") == self.host else " on another machine"
        return f"process {owner.get('pid', '?')}{place}"

    def _create(self) -> bool:
        owner = {"host": self.host, "pid": os.getpid(), "started": process_start(os.getpid()), "token": self._token}
        content = json.dumps(owner).encode()
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
        self.held, self._renewed = True, self.clock()
        return True

    def _owner(self) -> dict[str, object] | None:
        try:
            value = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _state(self) -> State | None:
        """The lease file as it is now: its content, inode and time stamp; None if there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return json.dumps(self._owner()), status.st_ino, status.st_mtime_ns

    def _is_abandoned(self, state: State) -> bool:
        owner = json.loads(state[0])
        if owner is not None and owner.get("host") == self.host and isinstance(owner.get("pid"), int):
            pid: int = owner["pid"]
            return not is_alive(pid) or process_start(pid) != owner.get("started", "")
        # A lease of another machine, or of a process that was killed before it wrote its name.
        if state != self._seen:
            self._seen, self._since = state, self.clock()
        return self.clock() - self._since >= PATIENCE

    def _replace(self, state: State) -> bool:
        """Remove the abandoned lease that was in ``state``, and take it; False if another process is doing so, or has.

        Only the process that holds a second file, the guard, may remove a lease, and only one that is still in that state. So
        of several processes that saw the same abandoned lease one gets it.
        """
        guard = self.path.with_name(f"{self.path.name}.guard")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            with contextlib.suppress(OSError):
                if time.time() - guard.stat().st_mtime > PATIENCE:  # its process was killed within these few lines
                    guard.unlink()
            return False
        try:
            if self._state() != state:
                return False
            self.path.unlink()
            return self._create()
        finally:
            guard.unlink(missing_ok=True)
