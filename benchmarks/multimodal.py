"""A case in which the right weight change is one of two: does sampling find both, and is it worth it?

An arm of two links of length 1 has to reach a point with its hand. The base is asked for the two angles of its joints. Each
point within reach has two right answers, with the elbow on one side or on the other, and a training sample shows one of them,
drawn by chance. What a sample shows does not depend on anything that the point tells, so the overfitted weight change ΔW given
the condition has two modes. Their mean, which regression learns, reaches the point with neither.

The base is a small network, trained on squared errors: it has learned the mean of both answers. Rows:

- ``regression``: the network of ``ocd-regress``, imitation of overfitted ΔW;
- ``nearest``: without learning, ΔW of the training samples with the nearest points, one for each draw;
- ``diffusion``: the network of ``ocd-imitate``, sampled in 1, 2, 5, 10 and 50 steps;
- ``no scale network``: the same for ``ocd-noscale``, whose diffusion draws the length of ΔW with its direction. A scale network
  gives one length for all draws of a sample; modes have different ones as soon as one answer is more frequent;
- ``with task loss``: the network of ``ocd``, whose squared error asks for the mean of the answers, in 1 and 10 steps;
- ``oracle``: draws of a perfect hypernetwork: ΔW overfitted to one of the right answers of the test point.

Columns: the distance of a drawn ΔW to the nearer of its two modes, in units of the distance between the two (the modes are ΔW
overfitted to each right answer); the share of draws within a quarter; the share of draws at the first mode (``--first``: of
the training samples); by how much the hand misses the point, in lengths of a link: with one draw, with the mean of the answers
of five draws, and with the best of five, which is known without the right answer; the energy score of all draws, a proper score
of a distribution of answers (Gneiting and Raftery 2007), and the squared error, both against the one answer that a test sample
shows. Lower is better in the last five. The gain of all rows is 1. The last lines say which one ``ocd`` would choose for ten
steps of sampling, by the squared error of validation samples: under it, no answer is better than the mean of the right ones.

    python benchmarks/multimodal.py
    python benchmarks/multimodal.py --first 0.8 --layer last --seeds 5
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer, Trace
from ocd_bench.engine.forms import Delta, RankOne
from ocd_bench.engine.ocd import FittedOCD, Variant, fit, regressor
from ocd_bench.engine.overfit import Overfit, overfit
from ocd_bench.engine.problem import Data, Problem
from ocd_bench.engine.settings import OCDSettings

NEAR = 0.25
"""A draw within this distance of a mode counts as near it; their mean is at 0.5."""
DISTRACTORS = 6
"""Numbers of an input that say nothing."""
FEW = 5
"""Draws of an ensemble, as in the paper."""
OVERFIT = {"hidden": Overfit("sgd", 0.05, 300), "last": Overfit("sgd", 0.02, 300)}
"""How each layer is overfitted: until the hand is at the point."""


# -- the arm --------------------------------------------------------------------------------------------------------------
def hand(angles: Tensor) -> Tensor:
    """Where the hand is, ``(..., 2)``, for angles of shoulder and elbow ``(..., 2)``, in radians."""
    upper, fore = angles[..., 0], angles.sum(-1)
    return torch.stack([upper.cos() + fore.cos(), upper.sin() + fore.sin()], -1)


def answers(points: Tensor) -> Tensor:
    """Both right answers ``(2, N, 2)``, in radians, for points ``(N, 2)`` within reach: elbow to the right, to the left."""
    elbow = torch.arccos(points.square().sum(1) / 2 - 1)
    direction = torch.atan2(points[:, 1], points[:, 0])
    return torch.stack([torch.stack([direction - elbow / 2, elbow], 1), torch.stack([direction + elbow / 2, -elbow], 1)])


def samples(count: int, first: float, generator: torch.Generator) -> Data:
    """Inputs ``(N, 2 + DISTRACTORS)``, of which the first two are a point in the half plane on the right, 0.5 to 1.8 from the
    shoulder, and the others normal noise, each with one of its answers ``(N, 2)``.

    Args:
        first: how often it is the first of the answers.
    """
    distance = 0.5 + 1.3 * torch.rand(count, generator=generator)
    direction = math.pi * (torch.rand(count, generator=generator) - 0.5)
    points = distance.unsqueeze(1) * torch.stack([direction.cos(), direction.sin()], 1)
    shown = (torch.rand(count, generator=generator) >= first).long()
    noise = torch.randn(count, DISTRACTORS, generator=generator)
    return torch.cat([points, noise], 1), answers(points)[shown, torch.arange(count)]


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared errors ``(N,)`` of the angles."""
    return (output - target).square().sum(1)


def base(data: Data, steps: int, seed: int) -> nn.Module:
    """A network from points to angles, trained on squared errors."""
    torch.manual_seed(seed)
    model = nn.Sequential()
    for name, module in (
        ("first", nn.Linear(2 + DISTRACTORS, 32)), ("silu", nn.SiLU()), ("hidden", nn.Linear(32, 32)), ("silu2", nn.SiLU()),
        ("last", nn.Linear(32, 2)),
    ):  # fmt: skip
        model.add_module(name, module)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(data[0]), (128,))
        optimizer.zero_grad()
        loss(model(data[0][chosen]), data[1][chosen]).mean().backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


# -- the case -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Size:
    """How large a trial is: samples of each set, steps of both trainings, width of the hypernetwork, draws of a row."""

    train: int = 4000
    test: int = 500
    base_steps: int = 1500
    steps: int = 600
    width: int = 64
    draws: int = 20


class Case:
    """The base of one seed, and test points whose modes are known.

    Attributes:
        modes: ΔW overfitted to each right answer.
    """

    def __init__(self, seed: int, first: float, layer: str, size: Size) -> None:
        self.size, self.how = size, OVERFIT[layer]
        generator = torch.Generator().manual_seed(seed)
        train, val, (inputs, self.shown) = (samples(count, first, generator) for count in (size.train, size.test, size.test))
        self.points = inputs[:, :2]
        self.problem = Problem(TargetLayer(base(train, size.base_steps, seed), layer), train, val, loss, seed=seed)
        self.trace: Trace = self.problem.layer.trace(inputs)
        self.modes = [overfit(self.problem.layer, self.trace, answer, loss, self.how) for answer in answers(self.points)]

    def settings(self, task_weight: float) -> OCDSettings:
        """Those of ``ocd`` but for the size, the overfitting, and the gain, which is 1."""
        return OCDSettings(
            overfit_optimizer=self.how.optimizer, overfit_lr=self.how.lr, overfit_steps=self.how.steps, steps=self.size.steps,
            lr=4e-3, ema=0.99, width=self.size.width, depth=2, task_weight=task_weight, gains=(1.0,),
        )  # fmt: skip

    def fit(self, task_weight: float = 0.0, variant: Variant = Variant()) -> FittedOCD:  # noqa: B008
        """A hypernetwork that imitates, and beyond that minimises the task's loss if it has a weight."""
        return fit(self.problem, self.settings(task_weight), variant)

    def draws(self, fitted: FittedOCD, steps: int) -> list[Delta]:
        """The drawn ΔW of the test points, in ``steps`` steps of sampling."""
        if hasattr(fitted.network, "diffusion"):
            fitted.network.diffusion.steps = steps
        return list(fitted.draw(self.trace, self.size.draws))

    def usual_gain(self, fitted: FittedOCD, draws: int) -> float:
        """The gain that ``ocd`` would choose: the one of least squared error of the outputs' mean, on validation samples."""
        usual = replace(fitted, settings=replace(fitted.settings, gains=OCDSettings().gains))
        return usual.choose_gain(draws).value

    def nearest(self) -> list[Delta]:
        """ΔW of the training samples with the nearest points, in the order of their distance."""
        layer, (inputs, shown) = self.problem.layer, self.problem.train
        order = torch.cdist(self.trace.inputs, inputs).topk(self.size.draws, largest=False).indices  # (N, D)
        return [overfit(layer, layer.trace(inputs[one]), shown[one], loss, self.how) for one in order.T]

    def oracle(self, first: float) -> list[Delta]:
        """Draws of a perfect hypernetwork, which is at the first mode with the probability ``first``."""
        generator, (one, other) = torch.Generator().manual_seed(self.problem.seed), self.modes
        picks = torch.rand(self.size.draws, len(one), 1, generator=generator) < first
        return [RankOne(torch.where(pick, one.u, other.u), one.a) for pick in picks]

    def measure(self, deltas: list[Delta]) -> dict[str, float]:
        """The columns of the table, for draws of ΔW."""
        modes = torch.stack([mode.matrix().flatten(1) for mode in self.modes])  # (2, N, O I)
        away = torch.stack([(delta.matrix().flatten(1) - modes).norm(dim=2) for delta in deltas])  # (D, 2, N)
        near = (away / (modes[0] - modes[1]).norm(dim=1)).min(1)
        outputs = torch.stack([apply(self.trace, delta) for delta in deltas])  # (D, N, 2)
        missed = self.missed(outputs)
        return {
            "to a mode": float(near.values.mean()),
            "near a mode": float((near.values < NEAR).float().mean()),
            "first mode": float((near.indices == 0).float().mean()),
            "misses, one draw": float(missed.mean()),
            "misses, mean of 5": float(self.missed(outputs[:FEW].mean(0)).mean()),
            "misses, best of 5": float(missed[:FEW].min(0).values.mean()),
            "energy score": energy_score(outputs, self.shown),
            "squared error": float(loss(outputs.flatten(0, 1), self.shown.repeat(len(outputs), 1)).mean()),
        }

    def missed(self, angles: Tensor) -> Tensor:
        """Distances ``(...)`` of the hand from the points, for angles ``(..., 2)``."""
        return (hand(angles) - self.points).norm(dim=-1)


def energy_score(draws: Tensor, shown: Tensor) -> float:
    """``E|X - y| - E|X - X'| / 2``, X and X' two draws: the mean over samples, of draws ``(D, N, C)`` and answers ``(N, C)``.

    The second mean runs over pairs of different draws, so that it is that of the distribution for any D. D = 1: its first term.
    """
    error, count = (draws - shown).norm(dim=-1).mean(), len(draws)
    if count == 1:
        return float(error)
    apart = (draws.unsqueeze(1) - draws.unsqueeze(0)).norm(dim=-1).sum((0, 1)).mean() / (count * (count - 1))
    return float(error - apart / 2)


def rows(case: Case, first: float) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and columns of each row; the gain is 1."""
    none = case.modes[0].scaled(0.0)
    yield "base", case.measure([none])
    yield "regression", case.measure(case.draws(case.fit(variant=Variant(build=regressor)), 1))
    imitates = case.fit()
    yield "nearest", case.measure(case.nearest())
    for steps in (1, 2, 5, 10, 50):
        yield f"diffusion, {steps}", case.measure(case.draws(imitates, steps))
    imitates.network.diffusion.steps = 10  # type: ignore[union-attr, assignment]
    for draws in (1, FEW):
        yield f"gain, {draws}", {"gain": case.usual_gain(imitates, draws)}
    unscaled = case.fit(variant=Variant(scaled=False))
    for steps in (1, 10, 50):
        yield f"no scale network, {steps}", case.measure(case.draws(unscaled, steps))
    both = case.fit(task_weight=OCDSettings().task_weight)
    for steps in (1, 10):
        yield f"with task loss, {steps}", case.measure(case.draws(both, steps))
    yield "oracle", case.measure(case.oracle(first))


def main() -> None:
    """Mean and standard deviation over seeds of each column, a line per row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=float, default=0.5, help="how often a sample shows the first of its right answers")
    parser.add_argument("--layer", default="hidden", choices=sorted(OVERFIT), help="hidden (32 x 32) or last (2 x 32)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not 0 <= args.first <= 1:
        parser.error(f"--first {args.first:g}: expected a share, 0 to 1")
    torch.set_num_threads(args.threads)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(args.seeds):
        for name, columns in rows(Case(seed, args.first, args.layer, Size()), args.first):
            found[name].append(columns)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    names = list(found["base"][0])
    print(f"| weight change | {' | '.join(names)} |")
    print("| --- |" + " ---: |" * len(names))
    for name, seeds in found.items():
        if "gain" not in seeds[0]:
            cells = torch.tensor([[columns[column] for column in names] for columns in seeds])  # (seeds, columns)
            means, spread = cells.mean(0).tolist(), (cells.std(0) if len(seeds) > 1 else 0 * cells[0]).tolist()
            print(f"| {name} | " + " | ".join(f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(means, spread, strict=True)) + " |")
    for draws in (1, FEW):
        chosen = ", ".join(f"{columns['gain']:g}" for columns in found[f"gain, {draws}"])
        print(f"\ngain that squared errors would choose, {draws} draws, by seed: {chosen}")


if __name__ == "__main__":
    main()
