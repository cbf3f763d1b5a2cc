"""Throughput of OCD and of the published U-Net on one GPU, and how far each is from what the card can do.

    python benchmarks/paper/throughput.py --data-dir DATA --compile --out throughput.md
    python benchmarks/paper/throughput.py --device cpu --slice

LeNet5 with the weights of the paper's authors, on MNIST, under the preset default. A line has the median and the range of five
rounds after a warm-up; the GPU has finished at both ends of a round. Trainings are the suite's own, without their set-up. The
U-Net's best batch is the smallest that reaches 95 % of the highest rate. All lines together get ``--seconds``: one that does
not fit any more is skipped. The warm-up of a compiled network comes on top. If a line fails, it has its error, the others go
on, and the exit code is 1. Table and JSON are written after each line. ``--slice`` is a small form for a CPU; without a
``--data-dir`` it takes scikit-learn's digits and random weights.

The nearest limit is the larger of two shares. Arithmetic: FLOPs of matrix products and convolutions (PyTorch's FlopCounterMode)
per second, over the measured rate of a large matrix product in the precision of the line. Memory: bytes per second, over the
measured rate of a large copy. The bytes are estimated: every operation reads its inputs (parameters, activations, in a training
also the optimizer's state) from memory and writes its results. Where a cache holds them, the share may exceed 100 %. A compiled
network merges operations, so only its arithmetic counts. Where both shares are small, the time goes to starting operations and
to random numbers on the CPU. The column "of bf16" is the share of the matrix product in bf16, whatever the line's precision.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(path) for path in (ROOT, ROOT / "benchmarks", *sorted((ROOT / "plugins").iterdir()))]  # not installed

import torch  # noqa: E402
from rates import ROUNDS, Measured, Table, Work, counted, work_of  # noqa: E402
from speed_lines.timing import Skipped  # noqa: E402
from torch import Tensor  # noqa: E402

from ocd_bench import Request, UsageError  # noqa: E402
from ocd_bench.config import parse_assignment, resolve  # noqa: E402
from ocd_bench.engine.ocd import FittedOCD, fit  # noqa: E402
from ocd_bench.engine.overfit import Overfit, overfitted  # noqa: E402
from ocd_bench.errors import DataMissing  # noqa: E402
from ocd_bench.method import Context  # noqa: E402
from ocd_bench.methods.ocd import OCD  # noqa: E402
from ocd_bench.methods.ocd_paper import OCDPaper  # noqa: E402
from ocd_bench.progress import Progress  # noqa: E402
from ocd_bench.published.settings import PaperSettings  # noqa: E402
from ocd_bench_images.task import Images  # noqa: E402

LENET = {"images.model": "lenet5", "images.checkpoint": "reference_checkpoints/checkpoint_lenet5.pth"}
SMALL: dict[str, Any] = {
    "images.model": "lenet5", "images.train_samples": 64, "ocd.batch_size": 16, "ocd_paper.channels": 8, "ocd_paper.blocks": 1,
    "ocd_paper.multipliers": (1, 1, 1, 1), "ocd_paper.attention": (), "ocd_paper.sampling_steps": 2, "ocd.width": 32,
}  # fmt: skip
LIMITS = {"bf16": "bf16", "float32": "tf32"}
"""The limit of a network of convolutions: PyTorch computes those of float32 in TF32."""
WARM = 3
"""Training steps before the first round; the work of the second is counted. The last step is not timed: validation follows."""
DRAWS = 1, 5


@dataclass(frozen=True)
class Sizes:
    """Batches, validation samples, and the length of a round: ``least`` seconds, or ``each`` training steps of `ocd`."""

    product: int = 8192
    copy: int = 2**30
    base: tuple[int, ...] = (200, 8192)
    targets: int = 2000
    adapted: tuple[int, ...] = (200, 2000)
    unet: tuple[int, ...] = (16, 32, 64, 128)
    val: int = 200
    least: float = 0.1
    each: int = 20


SLICE = Sizes(64, 2**20, (8,), 8, (8,), (1, 2), 8, 0.001, 1)


class Watch(Progress):
    """Takes the time of training steps, counts the work of the second one, and ends a training that would take too long.

    ``file`` gets the milliseconds of a step.
    """

    def __init__(self, table: Table, each: int, compiled: bool, file: Path | None) -> None:
        super().__init__()
        self.file = file
        self.table, self.each, self.compiled, self.start = table, each, compiled, time.monotonic()
        self.counting, self.works, self.ticks = ExitStack(), list[Work](), list[float]()

    def __call__(self, done: int, total: int) -> None:
        if done == 1 and not self.compiled:
            self.counting.enter_context(counted(self.works))
        elif done == 2:
            self.counting.close()
        if done < WARM or (done - WARM) % self.each or done == total:
            return
        self.ticks.append(self.table.now())
        if len(self.ticks) == 1:
            self.not_counted()
        self.start = time.monotonic()
        if len(self.ticks) == 2:
            self.table.check(self.steps[0] * (total - done))
        if self.file is not None and done == total - 1:
            self.file.write_text(f"{1000 * statistics.median(self.steps)}\n", encoding="utf-8")

    def not_counted(self) -> None:
        """Leave the time since the start, or since the last round, to the compilation."""
        if self.compiled:
            self.table.deadline += time.monotonic() - self.start

    @property
    def steps(self) -> list[float]:
        """Seconds of a step, one number per round."""
        return [(after - before) / self.each for before, after in zip(self.ticks, self.ticks[1:], strict=False)]


class Bench:
    """LeNet5 with its data, and the lines on it."""

    def __init__(self, table: Table, sizes: Sizes, args: argparse.Namespace) -> None:
        self.table, self.sizes, self.device = table, sizes, torch.device(args.device)
        task, folders = Images(), (args.data_dir,) if args.data_dir else ()
        wanted: dict[str, Any] = {**(SMALL if args.slice else {}), **(LENET if folders else {}), **dict(args.set)}
        config = resolve(task, (OCD(), OCDPaper()), "default", wanted)
        request = Request("images", "mnist" if folders else "digits", config.section("images"), data_dirs=folders)
        splits = task.load_data(request)
        base = task.base_model(splits, request)
        base = (task.train_base(base, splits, request, lambda done, total: None) or base).to(self.device)
        self.context = Context(
            task=task, request=request, splits=replace(splits, test=splits.val), base=base.eval().requires_grad_(False),
            layer="fc1", device=self.device, settings=config.section, batch_size=config.section("run").batch_size,
            ranking=lambda: [("fc1", 0.0)],
        )  # fmt: skip

    def samples(self, count: int) -> tuple[Tensor, Tensor]:
        """So many samples on the device, from the beginning again where there are fewer."""
        rows = torch.arange(count) % len(self.context.train)
        return self.context.train.inputs[rows].to(self.device), self.context.train.targets[rows].to(self.device)

    def fit(
        self, method: OCD, rounds: int, each: int, compiled: bool = False, file: Path | None = None, **changes: Any
    ) -> tuple[FittedOCD, Watch]:
        """The method's own fit, with as many steps as the rounds take."""
        watch = Watch(self.table, each, compiled, file)
        settings = replace(self.context.settings(method.section), steps=WARM + rounds * each + 1, evaluations=1, **changes)
        problem = method.problem(self.context, self.context.layer)
        problem = replace(problem, stage=lambda what, key: watch if what == "hypernetwork" else Progress())
        with watch.counting:
            fitted = fit(problem, settings, method.variant(settings))
        watch.not_counted()
        return fitted, watch

    def lenet(self) -> None:
        """The base, targets, and `ocd` with and without the encoder of x."""
        for batch in self.sizes.base:
            self.calls("base forward", batch, "predictions", self.forward)
        for name, how in (("SGD × 3, rank one", Overfit()), ("Adam × 3, full", Overfit("adam", 5e-4))):
            self.calls(f"targets, {name}", self.sizes.targets, "targets", lambda x, y, how=how: self.overfit(x, y, how))
        for name, encoder in (("ocd, I(x)", False), ("ocd, I(x) and x", True)):
            made = list[FittedOCD]()

            def training(encoder: bool = encoder, made: list[FittedOCD] = made) -> Measured:
                fitted, watch = self.fit(OCD(), ROUNDS, self.sizes.each, input_encoder=encoder, val_samples=self.sizes.val)
                made.append(fitted)
                return watch.steps, watch.works[0]

            batch = self.context.settings("ocd").batch_size
            self.table.line(f"{name}, training", batch, "samples", batch, training)
            for draws in DRAWS:
                for batch in self.sizes.adapted:
                    self.adapted(name, lambda made=made: only(made), draws, batch, "float32")

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> None:
        self.context.base(x)

    def overfit(self, x: Tensor, y: Tensor, how: Overfit) -> None:
        problem = OCD().problem(self.context, self.context.layer)
        for _ in overfitted(problem.layer, x, y, problem.loss, how):
            pass

    def calls(self, name: str, batch: int, unit: str, call: Callable[[Tensor, Tensor], None]) -> None:
        """A line of a computation on a batch."""

        def measure() -> Measured:
            x, y = self.samples(batch)
            return self.table.seconds(lambda: call(x, y)), work_of(lambda: call(x, y))

        self.table.line(name, batch, unit, batch, measure)

    def adapted(self, name: str, made: Callable[[], FittedOCD], draws: int, batch: int, limit: str) -> None:
        """A line of predictions."""

        def measure() -> Measured:
            fitted, (x, _) = made(), self.samples(batch)
            return self.table.seconds(lambda: fitted.predict(x, draws)), self.work(fitted, batch, draws)

        title = f"{name}, adapted, {draws} draw{'s' * (draws > 1)}"
        self.table.line(title, batch, "predictions", batch, measure, limit)

    def work(self, fitted: FittedOCD, batch: int, draws: int) -> Work:
        """Work of predictions. The draws of the U-Net share nothing that counts, so that one is counted for all."""
        x, each = self.samples(batch)[0], isinstance(fitted.settings, PaperSettings)
        found = work_of(lambda: fitted.predict(x, 1 if each else draws))
        return found.times(draws) if each else found

    def unet(self, batch: int, compiled: bool, file: Path | None) -> None:
        """The published U-Net: first as a long training would run it. ``file`` gets the milliseconds of such a step."""
        if compiled:
            self.compiled(batch, file)
            file = None
        rates = {batch: self.training("bf16", batch, file)}
        rates |= {size: self.training("bf16", size) for size in self.sizes.unet if size != batch}
        best = min(size for size, rate in rates.items() if rate >= 0.95 * max(rates.values()))
        self.draws(best)
        for size in self.sizes.unet:
            self.training("float32", size)

    def draws(self, batch: int) -> None:
        """Lines of the U-Net's predictions, without compilation."""
        made = cache(lambda: self.paper("bf16", batch, 1)[0])
        for draws in DRAWS:
            self.adapted("ocd-paper, bf16, best batch", made, draws, batch, "bf16")

    def paper(
        self, precision: str, batch: int, rounds: int, compiled: bool = False, file: Path | None = None
    ) -> tuple[FittedOCD, Watch]:
        """A fit of the published method, a step a round."""
        changes = {"precision": precision, "batch_size": batch, "val_samples": batch}
        return self.fit(OCDPaper(), rounds, 1, compiled, file, **changes, compile=compiled)

    def training(self, precision: str, batch: int, file: Path | None = None) -> float:
        """A line of the U-Net's training. Returns its rate."""

        def measure() -> Measured:
            watch = self.paper(precision, batch, ROUNDS, file=file)[1]
            return watch.steps, watch.works[0]

        return self.table.line(f"ocd-paper, {precision}, training", batch, "samples", batch, measure, LIMITS[precision])

    def compiled(self, batch: int, file: Path | None) -> None:
        """The line of the compiled U-Net's training in bf16. Its FLOPs are counted without compilation."""

        def measure() -> Measured:
            work = self.paper("bf16", batch, 1)[1].works[0]
            self.table.forget()
            return self.paper("bf16", batch, ROUNDS, compiled=True, file=file)[1].steps, replace(work, moved=None)

        self.table.line("ocd-paper, bf16, compiled, training", batch, "samples", batch, measure, "bf16")


def only(made: Sequence[FittedOCD]) -> FittedOCD:
    """The fit.

    Raises:
        Skipped: if there is none.
    """
    if not made:
        raise Skipped("its training did not end")
    return made[0]


def ceilings(table: Table, sizes: Sizes, device: torch.device) -> None:
    """What the card can do: large matrix products, and a copy from the device to itself."""
    n, size = sizes.product, sizes.copy
    types = {"bf16": (torch.bfloat16, "highest"), "float32": (torch.float32, "highest"), "tf32": (torch.float32, "high")}

    def product(name: str) -> Measured:
        if name == "tf32" and not table.gpu:
            raise Skipped("needs a GPU")
        dtype, precision = types[name]
        a, before = torch.randn(n, n, device=device, dtype=dtype), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return table.seconds(lambda: a @ a), None
        finally:
            torch.set_float32_matmul_precision(before)

    def copy() -> Measured:
        source = torch.zeros(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return table.seconds(lambda: target.copy_(source)), None

    for name in types:
        if rate := table.line(f"matrix product, {name}", n, "TFLOP", 2 * n**3 / 1e12, lambda name=name: product(name)):
            table.peaks[name] = rate * 1e12
    if rate := table.line("copy, read and written", size, "TB", 2 * size / 1e12, copy):
        table.peaks["copy"] = rate * 1e12


def main(words: list[str] | None = None) -> int:
    """Measure all lines. Returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with mnist and reference_checkpoints")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--slice", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all lines together, without compilation")
    parser.add_argument("--compile", action="store_true", help="the compiled U-Net too (ocd_paper.compile, on a GPU)")
    parser.add_argument("--unet-batch", type=int, default=32, help="the batch of the compiled U-Net")
    parser.add_argument("--step-ms", type=Path, metavar="FILE", help="gets the milliseconds of the U-Net's step at that batch")
    parser.add_argument("--set", action="append", default=[], type=parse_assignment, metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="the table; its JSON goes beside it")
    args = parser.parse_args(words)
    device, sizes = torch.device(args.device), SLICE if args.slice else Sizes()
    gpu = device.type == "cuda"
    if not args.slice and args.data_dir is None:
        parser.error("--data-dir: needed without --slice")
    if gpu and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: there is no GPU; take --device cpu --slice")
    words = sys.argv[1:] if words is None else words
    environment = {
        "card": torch.cuda.get_device_name(device) if gpu else f"CPU, {platform.machine()}", "torch": torch.__version__,
        "command": shlex.join(["python", "benchmarks/paper/throughput.py", *words]),
    }  # fmt: skip
    table = Table(args.seconds, sizes.least, gpu, args.out, environment)
    try:
        bench = Bench(table, sizes, args)
    except (UsageError, DataMissing) as error:
        sys.exit(f"error: {error}")
    ceilings(table, sizes, device)
    bench.lenet()
    if args.compile and not gpu:
        note = "skipped: needs a GPU"
        table.add({"line": "ocd-paper, compiled", "batch": args.unet_batch, "unit": "samples", "note": note})
    bench.unet(sizes.unet[0] if args.slice else args.unet_batch, args.compile and gpu, args.step_ms)
    print("", *(f"{key}: {text}" for key, text in environment.items()), sep="\n")
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
