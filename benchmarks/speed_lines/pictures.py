"""Lines on LeNet5 and random pictures of MNIST's size. Speed does not depend on what the pictures show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.diffusion import NoiseSchedule, ddim
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.engine.overfit import Overfit, overfitted
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.selection import kde_entropy, losses_under_noise
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.published.unet import UNet
from speed_lines.naive import apply_loop, noise_loop, overfit_loop
from speed_lines.timing import Line, Pair, Side, Skipped, Wrong, same

BATCH, LAYER = 200, "fc1"
PUBLISHED_STEPS = 10


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, ``(N,)``."""
    return nn.functional.cross_entropy(output, target, reduction="none")


@cache
def lenet() -> nn.Module:
    """LeNet5 with random weights."""
    try:
        from ocd_bench_images.models.lenet import LeNet5
    except ImportError as error:
        raise Skipped(f"plugin images: {error}") from error
    torch.manual_seed(0)
    return LeNet5().eval().requires_grad_(False)


def pictures(count: int = BATCH, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random pictures ``(count, 1, 28, 28)`` and classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 28, 28, generator=generator), torch.randint(10, (count,), generator=generator)


def base_side(x: Tensor) -> Side:
    """The network alone."""

    def call() -> Tensor:
        with torch.no_grad():
            return lenet()(x)

    return Side("base forward", call, len(x))


def settings(encoder: bool, steps: int = 1) -> OCDSettings:
    """Those of the task images under the preset default, but for the number of steps."""
    from ocd_bench_images.task import Images

    own = {name.partition(".")[2]: value for name, value in Images.presets["default"].items() if name.startswith("ocd.")}
    return replace(OCDSettings(**own), steps=steps, evaluations=1, val_samples=BATCH, input_encoder=encoder)


def problem(count: int = 2048, augment: bool = True) -> Problem:
    """LeNet5 on random pictures, with the task's own augmentation and encoder."""
    lenet()
    from ocd_bench_images.models.encoder import Encoder
    from ocd_bench_images.task import Images

    return Problem(
        TargetLayer(lenet(), LAYER), pictures(count), pictures(BATCH, 2), loss,
        augment=Images().augment if augment else None, output_features=lambda output: output.log_softmax(-1),
        encoder=lambda: Encoder(1), seed=3,
    )  # fmt: skip


@cache
def fitted(encoder: bool) -> FittedOCD:
    """After one training step; a prediction costs the same after many."""
    return fit(problem(), settings(encoder))


# -- the lines --------------------------------------------------------------------------------------------------------------
def targets(optimizer: str, lr: float) -> Callable[[Any], Pair]:
    """Overfitted weight changes beside a loop over samples."""

    def build(options: Any) -> Pair:
        (x, y), few = pictures(), options.few
        layer, how = TargetLayer(lenet(), LAYER), Overfit(optimizer, lr, 3)  # type: ignore[arg-type]

        def ours() -> Tensor:
            return torch.cat([delta.matrix() for _, _, delta in overfitted(layer, x[:few], y[:few], loss, how)])

        def loop() -> Tensor:
            return overfit_loop(lenet(), LAYER, x[:few], y[:few], loss, optimizer, lr, 3)

        return Pair(
            Side("targets, a batch at once", lambda: list(overfitted(layer, x, y, loss, how)), len(x)),
            Side("a loop over copies of the model", loop, few),
            lambda: same(ours(), loop(), "ΔW", 1e-2 if optimizer == "adam" else 1e-4),
        )

    return build


def targets_and_base(options: Any) -> Pair:
    """Overfitting beside the network alone, its limit."""
    x, y = pictures()
    layer, how = TargetLayer(lenet(), LAYER), Overfit()

    def check() -> str:
        (trace, _, _), *_ = overfitted(layer, x, y, loss, how)
        return same(trace.output, lenet()(x), "base's outputs")

    return Pair(Side("targets, SGD", lambda: list(overfitted(layer, x, y, loss, how)), len(x)), base_side(x), check)


def adapted(encoder: bool, draws: int) -> Callable[[Any], Pair]:
    """Adapted predictions beside the network alone."""

    def build(options: Any) -> Pair:
        x, _ = pictures()
        made = fitted(encoder)

        def check() -> str:
            few = x[:8]
            (trace,) = made.problem.layer.traces(few)
            own = [apply_loop(lenet(), LAYER, few, delta.matrix()) for delta in made.draw(trace, draws)]
            return same(made.predict(few, draws), torch.stack(own).mean(0), "outputs and those of a loop")

        ours = Side(f"adapted predictions, {draws} draw{'s' * (draws > 1)}", lambda: made.predict(x, draws), len(x))
        return Pair(ours, base_side(x), check)

    return build


def published(options: Any) -> Pair:
    """Adapted predictions beside the published method's: a U-Net of 110 M parameters, ten steps, one sample at a time.

    One of its ten steps is timed, as a tenth of a sample.
    """
    x, _ = pictures()
    made = fitted(False)
    torch.manual_seed(0)
    rows, columns = made.problem.layer.shape
    unet = UNet((rows, columns), multipliers=(1, 1, 2, 2, 4, 4)).eval().requires_grad_(False)
    e, noise = torch.randn(1, unet.width), torch.randn(1, rows * columns)
    schedule = NoiseSchedule.named("code")

    def predict(steps: int) -> Tensor:
        change = ddim(lambda c, t: unet(c, t, e), schedule, noise, steps, prediction="epsilon")
        return apply_loop(lenet(), LAYER, x[:1], 1e-3 * change.reshape(1, rows, columns))

    def check() -> str:
        size = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
        if not 100 < size < 120 or predict(1).shape != made.predict(x[:1]).shape:
            raise Wrong(f"the U-Net has {size:.0f} M parameters, or its output another shape")
        return f"shapes; U-Net of {size:.0f} M parameters"

    ours = Side("adapted predictions, 1 draw", lambda: made.predict(x), len(x))
    return Pair(ours, Side("U-Net, 10 steps, batch of 1", lambda: predict(1), 1 / PUBLISHED_STEPS), check)  # type: ignore[arg-type]


def training(encoder: bool) -> Callable[[Any], Pair]:
    """Training of the hypernetwork beside training of the base, both on the same augmented samples, in batches of 128."""

    def build(options: Any) -> Pair:
        steps = options.training_steps
        how = settings(encoder, steps)
        task = problem()
        histories: list[float] = []

        def ours() -> None:
            histories.append(fit(task, how).history[-1].train)

        def other() -> None:
            import copy

            model = copy.deepcopy(lenet()).train().requires_grad_(True)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            generator = torch.Generator().manual_seed(0)
            assert task.augment is not None
            for rows in torch.randperm(len(task.train[0]), generator=generator)[: steps * how.batch_size].split(how.batch_size):
                x, y = task.augment(task.train[0][rows], task.train[1][rows], generator)
                optimizer.zero_grad()
                loss(model(x), y).mean().backward()
                optimizer.step()
            histories.append(float(loss(model(x), y).detach().mean()))

        def check() -> str:
            ours(), other(), ours()
            if histories[0] != histories[2] or not all(torch.tensor(histories).isfinite()):
                raise Wrong(f"training losses {histories}: expected finite and the same twice")
            return "a yardstick; loss repeats"

        count = steps * how.batch_size
        return Pair(Side("hypernetwork, set-up included", ours, count), Side("base's own training", other, count), check)

    return build


def selection(options: Any) -> Pair:
    """The entropy criterion with many perturbations of one layer beside a loop that runs the whole model for each."""
    x, y = pictures(64)
    layer, draws, std = TargetLayer(lenet(), LAYER), options.perturbations, 0.05

    def ours(draws: int) -> Tensor:
        values = losses_under_noise(layer, layer.trace(x), y, loss, std, draws, torch.Generator().manual_seed(0))
        kde_entropy(values)
        return values

    def loop(draws: int) -> Tensor:
        values = noise_loop(lenet(), LAYER, x, y, loss, std, draws, torch.Generator().manual_seed(0))
        plain_entropy(values)
        return values

    def check() -> str:
        same(kde_entropy(ours(100)), plain_entropy(loop(100)), "entropies", 1e-3)
        return same(ours(100), loop(100), "losses, entropies")

    few = min(draws, 500)
    return Pair(Side(f"{draws:,} perturbations", lambda: ours(draws), draws), Side("a loop", lambda: loop(few), few), check)


def plain_entropy(values: Tensor) -> Tensor:
    """Entropies ``(N,)`` of draws ``(D, N)`` by scipy's Gaussian kernel density, at most 200 draws."""
    from scipy.stats import gaussian_kde

    columns = [column[:200] for column in values.double().T.numpy()]
    return torch.tensor([-gaussian_kde(column).logpdf(column).mean() for column in columns])


LINES = [
    Line("targets, SGD × 3 / loop", targets("sgd", 1e-2), "≥ 220"),
    Line("targets, Adam × 3 / loop", targets("adam", 5e-4), "≥ 60"),
    Line("targets, SGD × 3 / base", targets_and_base, "≥ 0.77"),
    *(
        Line(f"adapted, {'I(x), x' if encoder else 'I(x)'}, {draws} / base", adapted(encoder, draws), f"≥ {aim}")
        for encoder, draws, aim in ((False, 1, 0.59), (False, 5, 0.33), (True, 1, 0.25), (True, 5, 0.17))
    ),
    Line("adapted, I(x), 1 / published U-Net", published),
    Line("hypernetwork training, I(x) / base's", training(False)),
    Line("hypernetwork training, I(x), x / base's", training(True)),
    Line("layer selection / loop", selection),
]
