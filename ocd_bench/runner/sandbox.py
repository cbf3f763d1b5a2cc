"""Runs a function in a child process, so that a crash of the child does not affect the parent.

The child is forked, so it has all objects of its parent, and starting it takes some milliseconds. It sends messages (plain
values and bytes) through a pipe. It cannot write to the parent's stdout. It is killed when its parent dies, and the kernel
kills it first when memory runs out. When it ends, the parent learns how (it returned, it exited by ``sys.exit`` or
``os._exit``, it was killed, or it timed out) and at which place in the code.

Forking is safe as long as a child computes with one thread: the threads of its parent's OpenMP pool do not survive a fork, and
a child that waits for them waits for ever. The same holds for autograd's threads, one for each GPU that the machine has. With
``run.threads`` above 1, where there is a GPU (used or not), and if the system is not Linux, :func:`can_isolate` is false and
the function runs in the process itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ocd_bench.heap import keep_freed_memory, release_freed_memory
from ocd_bench.runner.messages import Decoder, Message, Send, encode

__all__ = ["Child", "Ending", "Message", "Send", "arm", "can_isolate", "run_child", "watch"]

GRACE = 0.3
"""Seconds between the timeout of a child, when it writes its stack, and the moment it is killed."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        how: ``returned``, ``exited``, ``killed`` or ``timeout``; or ``lost``, with the machine that it ran on.
        code: exit code, or number of the signal.
        trace: the stack at that moment, as Python prints it; empty if unknown.
        seconds: the time limit, for a ``timeout``.
    """

    how: str
    code: int = 0
    trace: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.how == "lost":
            return self.trace
        if self.how == "timeout":
            return f"not finished after {self.seconds:g} s (--cell-timeout)"
        if self.how == "exited":
            return f"the process was ended with exit code {self.code}"
        if self.how == "killed":
            hint = " (was memory short?)" if self.code == signal.SIGKILL else ""
            return f"the process was ended by {_signal_name(self.code)}{hint}"
        return "returned"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def can_isolate(device: Any, threads: int = 1) -> bool:
    """Whether work on this torch device, with that many threads, can run in forked children. ``OCD_BENCH_IN_PROCESS=1`` makes
    it false, so that a debugger works in a plugin's code."""
    if os.environ.get("OCD_BENCH_IN_PROCESS", "") not in ("", "0"):
        return False
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    if threads > 1:
        return False
    torch = sys.modules.get("torch")
    return torch is None or torch.cuda.device_count() == 0


class Child:
    """A running child process.

    Args:
        work: the function to run. Its argument is the function that sends messages.
        seconds: time limit until the next :meth:`allow`; None: no limit.
        leader: whether it starts a process group of its own, so that it is killed together with all processes it started.
    """

    def __init__(self, work: Callable[[Send], None], seconds: float | None = None, leader: bool = False) -> None:
        self.leader, self.seconds = leader, seconds
        self.deadline: float | None = None
        self.ending: Ending | None = None
        self._finished = False
        self._status = 0
        self._decoder = Decoder()
        self._trace = tempfile.TemporaryFile()  # noqa: SIM115 (read when the child has ended)
        self._read, write = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        arm(None)  # its thread does not survive a fork, and the child would wait for it for ever
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads; see the module's docstring
            release_freed_memory()
            gc.freeze()  # the child's garbage collections leave the parent's objects alone, so that their pages stay shared
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            _child(work, write, self._trace, parent, seconds, leader)
        gc.unfreeze()
        os.close(write)
        if leader:
            with contextlib.suppress(OSError):
                os.setpgid(self.pid, self.pid)  # the child does the same; the order does not matter
        os.set_blocking(self._read, False)
        self._pidfd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._pidfd = os.pidfd_open(self.pid)
        self.allow(seconds)

    def allow(self, seconds: float | None) -> None:
        """Set its time limit to ``seconds`` from now."""
        self.seconds = seconds
        self.deadline = None if seconds is None else time.monotonic() + seconds + GRACE

    @property
    def handles(self) -> list[int]:
        """File descriptors that become readable when there is a message or the child ends."""
        return [self._read] + ([self._pidfd] if self._pidfd >= 0 else [])

    def messages(self) -> Iterator[Message]:
        """The messages that have arrived. If the child has ended, :attr:`ending` is set afterwards."""
        gone = self.ending is None and self._wait()
        self._fill()
        for message in self._decoder.messages():
            if message.what == "end":
                self._finished = True
            else:
                yield message
        if gone:
            self._close()
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self.kill("timeout")

    def kill(self, how: str = "killed") -> None:
        """Kill it at once, with its process group if it leads one."""
        if self.ending is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            (os.killpg if self.leader else os.kill)(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._status = int(signal.SIGKILL)
        self._close(how)

    def _wait(self) -> bool:
        try:
            pid, self._status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._status = 0
            return True
        return pid != 0

    def _fill(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read, 1 << 20):
                self._decoder.feed(part)

    def _close(self, how: str = "") -> None:
        if self.leader:  # kill processes that it has started and not ended
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._trace.seek(0)
        trace = self._trace.read().decode("utf-8", "replace")
        self._trace.close()
        os.close(self._read)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if how == "timeout":
            self.ending = Ending("timeout", trace=trace, seconds=self.seconds or 0.0)
        elif os.WIFSIGNALED(self._status):
            self.ending = Ending("killed", os.WTERMSIG(self._status), trace)
        elif self._finished and os.WEXITSTATUS(self._status) == 0:
            self.ending = Ending("returned")
        else:
            self.ending = Ending("exited", os.WEXITSTATUS(self._status), trace)


def watch(children: Iterable[Child], seconds: float = 0.5) -> None:
    """Sleep until one of the children has sent a message, ended or timed out; ``seconds`` at most."""
    children = list(children)
    if any(not hasattr(os, "pidfd_open") or child._pidfd < 0 for child in children):
        seconds = min(seconds, 0.05)
    for child in children:
        if child.deadline is not None:
            seconds = min(seconds, max(0.0, child.deadline - time.monotonic()))
    select.select([handle for child in children for handle in child.handles], [], [], seconds)


def run_child(
    work: Callable[[Send], None],
    receive: Callable[[Child, Message], None],
    seconds: float | None = None,
    idle: Callable[[], None] = lambda: None,
) -> Ending:
    """Run ``work`` in a child and wait until it ends.

    Args:
        receive: called with each message. It may extend the time limit with :meth:`Child.allow`.
        seconds: the child's time limit.
        idle: function that is called at least twice a second.
    """
    child = Child(work, seconds)
    try:
        while child.ending is None:
            watch([child])
            for message in child.messages():
                receive(child, message)
            idle()
    except BaseException:
        child.kill()
        raise
    return child.ending


# -- in the child -----------------------------------------------------------------------------------------------------------
_trace_file: Any = None


def _child(work: Callable[[Send], None], write: int, trace: Any, parent: int, seconds: float | None, leader: bool) -> NoReturn:
    global _trace_file
    code = 1
    try:
        if leader:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its children
        faulthandler.unregister(signal.SIGTERM)  # its parent's
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        keep_freed_memory()
        _redirect()
        _trace_file = trace
        faulthandler.enable(trace)
        faulthandler.register(signal.SIGTERM, trace, chain=True)
        arm(seconds)

        def send(message: Message) -> None:
            data = memoryview(encode(message))
            while data:
                data = data[os.write(write, data) :]

        work(send)
        send(Message("end"))
        code = 0
    except BaseException:
        with contextlib.suppress(BaseException):
            trace.write(traceback.format_exc().encode("utf-8", "replace"))
            trace.flush()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(code)


def _redirect() -> None:
    """Close stdin, and redirect stdout to stderr, so that the parent's stdout has only the table."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(null, 1)
    if null > 2:
        os.close(null)
    sys.stdout = sys.stderr


def arm(seconds: float | None) -> None:
    """In a child: after ``seconds``, write the stack for the parent, which then kills this process."""
    faulthandler.cancel_dump_traceback_later()
    if seconds is not None and _trace_file is not None:
        faulthandler.dump_traceback_later(seconds, file=_trace_file)
