"""Fuzz the readers: ``python tests/fuzz/run.py --cases 10000 [--coverage] [ENTRY ...]``.

Each entry runs in a process of its own that may take 1 GiB more than it has after its first clean read. A case is a defect if
it raises anything but an error of OCD-Bench, if its message is not one printable line, or if it takes more than ten seconds.
With ``--coverage`` the changes are guided by coverage (atheris, where it is installed); else they are random from ``--seed``.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from entries import ENTRIES, Entry  # noqa: E402
from mutate import mutate  # noqa: E402

ABOVE_START = 2**30
SECONDS_A_CASE = 10


class TooSlow(BaseException):
    """A case took too long. No ``Exception``, so that no guard takes it for a damaged file."""


class Fuzzer:
    """Runs cases of one entry and counts what became of them."""

    def __init__(self, name: str, entry: Entry, findings: Path) -> None:
        self.name, self.entry, self.findings = name, entry, findings
        self.paths = list(entry.files)
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.counts: collections.Counter[str] = collections.Counter()
        self.defects: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        for path, content in entry.files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(content)
        entry.read(self.folder)  # a clean read must succeed, and loads what has to be loaded
        self.start = _memory("VmRSS")
        signal.signal(signal.SIGALRM, _too_slow)
        limit = _memory("VmSize") + ABOVE_START
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def mutation(self, rng: random.Random) -> bytes:
        """A damaged file: its number, then its content."""
        chosen = rng.randrange(len(self.paths))
        return bytes([chosen]) + mutate(self.entry.files[self.paths[chosen]], rng)

    def case(self, data: bytes) -> None:
        """Read the directory with one file damaged."""
        from ocd_bench.errors import OCDBenchError
        from ocd_bench.printable import printable

        path = self.paths[(data[0] if data else 0) % len(self.paths)]
        (self.folder / path).write_bytes(data[1:])
        begun = time.monotonic()
        signal.alarm(SECONDS_A_CASE)
        problem = ""
        try:
            self.entry.read(self.folder)
            self.counts["accepted"] += 1
        except OCDBenchError as error:
            signal.alarm(0)
            message = str(error)
            self.counts["out of memory" if "more memory than there is" in message else "refused"] += 1
            if message != printable(message):
                problem = "message with control characters"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            signal.alarm(0)
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"[:300]
        finally:
            signal.alarm(0)
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.counts["cases"] += 1
        if problem:
            self._keep(problem, path, data[1:])
        (self.folder / path).write_bytes(self.entry.files[path])

    def _keep(self, problem: str, path: str, content: bytes) -> None:
        self.counts["defects"] += 1
        kind = problem.partition(":")[0] + problem[problem.rfind("(") :]
        self.defects[kind] += 1
        if self.defects[kind] == 1:
            print(f"{self.name}: {problem}", file=sys.stderr, flush=True)
            digest = hashlib.sha256(content).hexdigest()[:8]
            place = self.findings / f"{self.name.replace(' ', '-')}-{digest}" / path
            shutil.copytree(self.folder, place.parents[len(Path(path).parts) - 1], dirs_exist_ok=True)

    def summary(self) -> dict[str, Any]:
        """Counts, the defects by kind, the slowest case and the memory at its peak above start."""
        peak = _memory("VmHWM") - self.start
        return {
            "entry": self.name,
            **{what: self.counts[what] for what in ("cases", "accepted", "refused", "out of memory", "defects")},
            "kinds": dict(self.defects),
            "slowest_s": round(self.slowest, 2),
            "peak_mb": round(peak / 2**20),
        }


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS_A_CASE} s")


def _memory(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def child(args: argparse.Namespace) -> None:
    """Fuzz one entry in this process; the summary goes to the file ``args.summary``."""
    warnings.simplefilter("ignore")
    (name,) = args.names
    if args.coverage:
        import atheris

        with atheris.instrument_imports(include=["ocd_bench", "ocd_bench_tabular", "ocd_bench_nlp", "ocd_bench_images",
                                                 "ocd_bench_recon3d", "ocd_bench_speech"]):  # fmt: skip
            import ocd_bench.reading  # noqa: F401

            fuzzer = Fuzzer(name, ENTRIES[name], args.findings)
    else:
        fuzzer = Fuzzer(name, ENTRIES[name], args.findings)
    summary = Path(args.summary)
    until = time.monotonic() + args.seconds  # the imports, slow on a busy machine, do not count

    def done() -> bool:
        return fuzzer.counts["cases"] >= args.cases or time.monotonic() > until

    if not args.coverage:
        rng = random.Random(f"{args.seed} {name}")
        while not done():
            fuzzer.case(fuzzer.mutation(rng))
        summary.write_text(json.dumps(fuzzer.summary()))
        return

    def one(data: bytes) -> None:
        fuzzer.case(data)
        if fuzzer.counts["cases"] % 200 == 0 or done():
            summary.write_text(json.dumps(fuzzer.summary()))
        if done():
            os._exit(0)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return atheris.Mutate(data, most)
        return (data[:1] + mutate(data[1:], rng))[:most] if len(data) > 1 else fuzzer.mutation(rng)[:most]

    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, path in enumerate(fuzzer.paths):
        (corpus / str(number)).write_bytes(bytes([number]) + fuzzer.entry.files[path])
    flags = [f"-runs={args.cases * 2}", f"-seed={args.seed + 1}", "-rss_limit_mb=0", "-max_len=200000", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(corpus), *flags], one, custom_mutator=change, enable_python_coverage=True)
    atheris.Fuzz()


def main(argv: list[str] | None = None) -> int:
    """Fuzz the chosen entries, print a line for each, and return 1 if there was a defect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ENTRY", help=f"default: all of {', '.join(ENTRIES)}")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, for each entry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", action="store_true", help="guided by coverage (needs atheris)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for files that show a defect")
    parser.add_argument("--json", type=Path, help="file for the summaries")
    parser.add_argument("--summary", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.summary:
        child(args)
        return 0
    summaries = []
    for name in args.names or ENTRIES:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            target = Path(scratch, "summary.json")
            command = [sys.executable, __file__, name, "--summary", str(target), "--cases", str(args.cases)]
            command += ["--seconds", str(args.seconds), "--seed", str(args.seed), "--findings", str(args.findings.resolve())]
            command += ["--coverage"] if args.coverage else []
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch, "OCD_BENCH_CACHE": scratch}
            begun = time.monotonic()
            code = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode
            found = (
                json.loads(target.read_text()) if target.exists() else {"entry": name, "cases": 0, "defects": 1, "kinds": {}}
            )
            if code:
                found["defects"] += 1
                found["kinds"][f"the process ended with {code}"] = 1
            summaries.append({**found, "seconds": round(time.monotonic() - begun)})
            print(json.dumps(summaries[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(summaries, indent=1) + "\n")
    return int(any(found["defects"] for found in summaries))


if __name__ == "__main__":
    sys.exit(main())
