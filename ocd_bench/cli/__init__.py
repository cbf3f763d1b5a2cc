"""The command line. Each module of this package is a subcommand: ``add_parser(subparsers)`` and ``run(args) -> exit code``.

``--help`` must be fast, so these modules import no heavy package at their top.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import errno
import gc
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from ocd_bench._version import __version__
from ocd_bench.config import nearest
from ocd_bench.errors import OCDBenchError, Terminated, UsageError

COMMANDS = ("run", "list", "config", "data", "report", "compare", "merge", "plugin", "cache", "completion")

DEPENDENCIES = ("jinja2", "numpy", "platformdirs", "pluggy", "rich", "safetensors", "scipy", "torch")
"""Packages that the core needs. If one is missing, the installation is broken; that is not a defect of OCD-Bench."""

EPILOG = """\
exit codes: 0 fine, 1 regression, 2 wrong usage or bad input, 3 some cell failed, 4 nothing was measured, 130 interrupted,
143 terminated, 70 a defect in OCD-Bench itself (a traceback is printed)
"""
DEFECT = 70
"""``EX_SOFTWARE`` of sysexits.h: differs from 1, which means a regression, and from the other codes with a meaning."""

ENVIRONMENT = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENAMETOOLONG", "EFBIG")
    if hasattr(errno, name)
)
"""Errors of the machine (a full disk, a folder without permission), not defects of this program."""

BROKEN_PIPE = 141
"""The exit code that a shell reports for a program that was stopped by SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """Argument errors are one line with the nearest correct word. Options cannot be abbreviated: a new one could clash."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but unknown arguments are an error here, because this parser knows its own options. So is an empty
        word (a shell variable that is not set): for no option it means the default."""
        if " " in self.prog:  # a subcommand, whose name the message then has
            self._refuse_empty(args)
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            word = rest[0].partition("=")[0]
            options = re.findall(r"--[a-z][a-z-]*", self.format_usage())
            what = "option" if word.startswith("-") else "argument"
            near = nearest(word, options) if _alike(word, options) else ""
            self.error(f"unknown {what} {word!r}{near}")
        return namespace, rest

    def _refuse_empty(self, words: Sequence[str]) -> None:
        for before, word in zip(["", *words], words, strict=False):
            option = before if word == "" else word.removesuffix("=")
            if word == "" or (word.startswith("--") and word.count("=") == 1 and word.endswith("=")):
                self.error(
                    f"{option}: empty; give a value, or leave it out" if option.startswith("--") else "an empty argument"
                )

    def error(self, message: str) -> NoReturn:
        """Raise the error that ``main`` prints.

        Raises:
            UsageError: always.
        """
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong:
            choices = re.findall(r"[\w-]+", wrong[2])
            message = message.partition("invalid choice")[0]
            message += f"unknown {wrong[1]!r}{nearest(wrong[1], choices)}; choose from {', '.join(choices)}"
        number = re.search(r"invalid (int|float) value: (.*)", message)
        if number:
            kind = "a whole number" if number[1] == "int" else "a number"
            message = message.partition("invalid")[0] + f"expected {kind}, not {number[2]}"
        name = self.prog.partition(" ")[2]
        raise UsageError(f"{name + ': ' if name else ''}{message} (see {self.prog} --help)")


def _alike(word: str, options: Sequence[str]) -> bool:
    """Whether an option is close to ``word``, its hyphens aside: ``--resume`` is not like ``--preset``."""
    return bool(difflib.get_close_matches(word.strip("-"), [option.strip("-") for option in options], 1, 0.7))


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """``--plugin``, for every subcommand that loads plugins."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="a plugin that is not installed; repeatable"
    )


def build_parser() -> tuple[Parser, dict[str, ModuleType]]:
    """The parser of the whole command line, and the modules that run its subcommands."""
    parser = Parser(
        prog="ocd-bench",
        description="Does it help to give every test sample its own weights? Benchmarks with task plugins.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ocd-bench {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {name: import_module(f"{__name__}.{name}") for name in COMMANDS}
    for module in modules.values():
        module.add_parser(subparsers)
    return parser, modules


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after the program's name; default: those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign gets a question mark, not a traceback
    atexit.unregister(gc.freeze)  # of an earlier call
    atexit.register(gc.freeze)  # the last thing: a collection of all objects of torch (1.5 s) would free what ends anyway
    before = _on_signals(Stop())
    try:
        parser, modules = build_parser()
        args = parser.parse_args(argv)
        code = modules[args.command].run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except OCDBenchError as error:
        print(f"ocd-bench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ocd-bench: interrupted", file=sys.stderr)
        return 130
    except Terminated as ended:
        print("ocd-bench: terminated", file=sys.stderr)
        return 128 + ended.number
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE
    except MemoryError:
        print("ocd-bench: error: out of memory", file=sys.stderr)
        return OCDBenchError.exit_code
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            traceback.print_exc()
            return DEFECT
        _drop_stdout()
        where = error.filename or "cannot write the output"
        print(f"ocd-bench: error: {where}: {error.strerror}", file=sys.stderr)
        return OCDBenchError.exit_code
    except Exception as error:
        absent = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if absent in DEPENDENCIES:
            print(f"ocd-bench: error: {absent} is not installed: pip install {absent}", file=sys.stderr)
            return OCDBenchError.exit_code
        traceback.print_exc()
        return DEFECT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stop:
    """The handler of SIGINT, SIGTERM and SIGHUP: the first one ends the command.

    While it ends and prints what is finished, further ones are ignored for :attr:`PATIENCE` seconds: an impatient second Ctrl-C
    must not cost the table.
    """

    PATIENCE = 2.0

    def __init__(self) -> None:
        self._first = -math.inf

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._first < self.PATIENCE:
            return
        self._first = now
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _on_signals(handler: Stop) -> dict[int, Any]:
    """Set what happens on SIGINT, SIGTERM and SIGHUP; returns what was set before. Only the main thread may do this."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            known = signal.getsignal(number)
            # nohup's SIG_IGN stays
            if known in (signal.SIG_DFL, signal.default_int_handler) or isinstance(known, Stop):
                before[number] = signal.signal(number, handler)
    return before


def _drop_stdout() -> None:
    """Redirect stdout to the null device. Otherwise buffered output would raise again when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
