"""Tests whether ``ocd-paper`` reproduces its training data: its U-Net memorises the overfitted ΔW of a few samples.

LeNet5 on MNIST with the reference checkpoint: one layer is overfitted to training images as in the paper's code (three Adam
steps of 5e-4). The hypernetwork is trained on these only, with the published objective: prediction of the noise, T = 1000,
decibel loss of the scale network, averaged weights. Then one ΔW per sample is drawn, in ten DDIM steps from pure noise. The
right result is known: the cosine to the sample's own ΔW is near 1, and the loss near that of the oracle.

The published size (128 channels, five levels, Adam 1e-4) needs a GPU. A smaller one needs a larger learning rate. ``--time K``
runs K steps, and prints how long all ``--steps`` would take.

    python benchmarks/paper_memorises.py --device cuda --batch 64
    python benchmarks/paper_memorises.py --samples 4 --batch 2 --time 4
    python benchmarks/paper_memorises.py --layer fc2 --channels 16 --batch 32 --lr 4e-3 --ema 0.97 --decay --steps 3000

Processor time per sample and training step, on one shared core of an EPYC: 128 channels on fc1 6.6 s, 32 channels on fc1
0.52 s, 16 channels on fc2 0.017 s. The last command with 450 steps, four minutes of processor time, gave a mean cosine of 0.67
and a loss of 0.0041, where the oracle has 0.0036 and the base 0.0052.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from ocd_bench import Request, UsageError
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.engine.overfit import losses, overfit
from ocd_bench.engine.problem import Problem
from ocd_bench.published.settings import PaperSettings
from ocd_bench_images.task import Images, ImagesSettings

CHECKPOINT = "reference_checkpoints/checkpoint_lenet5.pth"


class Clock:
    """Seconds, and seconds of processor time, at every training step; a progress line every 30 seconds."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float]] = []
        self.start = self.said = time.perf_counter()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if what == "hypernetwork":
            self.ticks.append((now, time.process_time()))
        if now - self.said > 30:
            self.said = now
            print(f"{what} {done}/{total} after {now - self.start:.0f} s", file=sys.stderr, flush=True)

    def per_step(self) -> tuple[float, float]:
        """Mean of all steps but the first, which warms up."""
        first, last = self.ticks[0], self.ticks[-1]
        steps = max(1, len(self.ticks) - 1)
        return (last[0] - first[0]) / steps, (last[1] - first[1]) / steps


def problem(args: argparse.Namespace, clock: Clock) -> Problem:
    """The chosen samples as training samples and validation samples at once."""
    task = Images()
    settings = ImagesSettings(model="lenet5", checkpoint=CHECKPOINT)
    request = Request("images", "mnist", settings, data_dirs=(args.data,))
    splits = task.load_data(request)
    model = task.base_model(splits, request).to(args.device).eval().requires_grad_(False)
    chosen = splits.train.inputs[: args.samples], splits.train.targets[: args.samples]
    device = torch.device(args.device)
    return Problem(TargetLayer(model, args.layer), chosen, chosen, task.loss, device, progress=clock, seed=args.seed)


def settings(args: argparse.Namespace) -> PaperSettings:
    """The published settings but for the sizes asked for."""
    return PaperSettings(
        steps=args.steps, batch_size=args.batch, lr=args.lr, lr_schedule="cosine" if args.decay else "constant", ema=args.ema,
        channels=args.channels, blocks=args.blocks, schedule=args.schedule, prediction=args.prediction, evaluations=args.checks,
    )  # fmt: skip


def compare(fitted: FittedOCD) -> dict[str, float]:
    """Cosines of drawn to own ΔW, and the mean losses of base, own ΔW (oracle) and drawn ΔW, on the training samples."""
    known, layer = fitted.problem, fitted.problem.layer
    trace, targets = layer.trace(known.train[0].to(known.device)), known.train[1].to(known.device)
    own = overfit(layer, trace, targets, known.loss, fitted.overfitter.how)
    (drawn,) = fitted.draw(trace)
    cosine = cosine_similarity(drawn.matrix().flatten(1), own.matrix().flatten(1))
    ratio = drawn.norm() / own.norm()
    found = {"cosine, mean": cosine.mean(), "cosine, least": cosine.min(), "length / own, median": ratio.median()}
    for name, delta in (("base loss", None), ("oracle loss", own), ("adapted loss", drawn)):
        found[name] = losses(trace, targets, known.loss, delta).mean()
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of mnist and reference_checkpoints")
    parser.add_argument("--layer", default="fc1", help="fc1 (84 x 120, the paper's) or fc2 (10 x 84)")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--decay", action="store_true", help="a half cosine instead of a constant learning rate")
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--schedule", default="code", help="code (T = 1000) or paper (T = 10, as printed)")
    parser.add_argument("--prediction", default="epsilon", help="epsilon (published), v or x0")
    parser.add_argument("--checks", type=int, default=1, help="validation losses taken on the way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--time", type=int, default=0, metavar="K", help="run K steps (3 or more), and say what --steps would take"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = Clock()
    try:
        known, how = problem(args, clock), settings(args)
        fitted = fit(known, replace(how, steps=args.time) if args.time else how)
    except UsageError as error:
        sys.exit(f"error: {error}")
    seconds, busy = clock.per_step()
    hours = seconds * args.steps / 3600
    print(f"{fitted.parameters / 1e6:.2f} million parameters, {min(args.batch, args.samples)} samples a step")
    print(f"{seconds:.2f} s a step ({busy:.2f} s of processor time): {hours:.1f} hours for {args.steps} steps")
    if args.time:
        return
    for record in fitted.history:
        print(f"step {record.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in record.parts.items()))
    for name, value in compare(fitted).items():
        print(f"{name:22} {value:.4f}")


if __name__ == "__main__":
    main()
