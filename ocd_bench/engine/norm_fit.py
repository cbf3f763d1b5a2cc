"""OCD on norm layers: train the correction of the rule on samples whose features are disturbed, and choose its gain.

A base does not err on its training samples, so they teach nothing about samples of another kind. In training, the features of
most samples are therefore disturbed in one layer, drawn anew each time: channels are scaled, shifted and made noisy at random.
That belongs to no kind of corruption. The loss is the task's own, of the base with the predicted weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ocd_bench.engine.gain import Gain
from ocd_bench.engine.learn import Record, Trainee, Training, learn, parameter_count
from ocd_bench.engine.norm_shares import Shares, adapted, changed
from ocd_bench.engine.norms import BatchNorm, NormLayers
from ocd_bench.engine.problem import Change, Loss, Quality
from ocd_bench.engine.settings import NormSettings
from ocd_bench.progress import Progress
from ocd_bench.seeds import seeded


@dataclass(frozen=True)
class NormProblem:
    """What the fit knows of a task; see :class:`ocd_bench.engine.problem.Problem` for the fields.

    Args:
        layers: of a copy of the base.
        rule: the untrained shares.
        train, val: inputs and targets on the CPU.
    """

    layers: NormLayers
    rule: Shares
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    loss: Loss
    device: torch.device
    augment: Change
    subsample: Change
    quality: Quality
    seed: int
    stage: Callable[[str, Hashable], Progress] = lambda what, key: Progress()


class Disturbance:
    """A random change of the features of N samples, each in one layer or in none.

    Args:
        samples, layers: N and the number of layers.
        how: strength and noise; the share of samples that are disturbed at all.
        generator: of the CPU.
    """

    def __init__(self, samples: int, layers: int, how: NormSettings, generator: torch.Generator) -> None:
        self._how, self._generator = how, generator
        place = torch.randint(layers, (samples,), generator=generator)
        self._place = torch.where(torch.rand(samples, generator=generator) < how.disturbed, place, -1)

    def __call__(self, number: int, layer: BatchNorm, x: Tensor) -> Tensor:
        """``x`` ``(N, C, ...)``. In the rows of this layer, channels are scaled about their running mean by exp(s (z + z')),
        where z' is one draw for all channels, shifted by s z standard deviations, and made noisy by up to ``noise`` of them."""
        (rows,) = torch.nonzero(self._place == number, as_tuple=True)
        if not len(rows):
            return x
        assert layer.running_mean is not None
        assert layer.running_var is not None
        channels = (len(rows), x.shape[1], *[1] * (x.ndim - 2))
        mean, deviation = (part.view(channels[1:]) for part in (layer.running_mean, (layer.running_var + layer.eps).sqrt()))
        scale, shift = (self._normal(channels, x) * self._how.strength for _ in range(2))
        scale = scale + self._normal((len(rows), *[1] * (x.ndim - 1)), x) * self._how.strength
        level = torch.rand(len(rows), generator=self._generator).to(x).view(-1, *[1] * (x.ndim - 1)) * self._how.noise
        seen = x[rows.to(x.device)]
        noise = level * self._normal(tuple(seen.shape), x)
        return x.index_copy(0, rows.to(x.device), mean + (seen - mean) * scale.exp() + (shift + noise) * deviation)

    def _normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(like)


@dataclass
class FittedNorms:
    """Trained shares with their layers.

    Attributes:
        gain: the chosen factor of all shares, with the mean loss of disturbed validation samples under each candidate.
        history: of the training.
    """

    layers: NormLayers
    shares: Shares
    gain: Gain
    history: list[Record] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Trained numbers: three for each layer."""
        return parameter_count(self.shares)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Outputs ``(N, ...)`` with every sample's own norm layers."""
        return adapted(self.layers, self.shares, inputs, self.gain.value)

    def model(self) -> nn.Module:
        """The base with every sample's own norm layers, as a model."""
        return self.layers.keep(changed(self.shares.requires_grad_(False), self.gain.value))


def fit_norms(problem: NormProblem, settings: NormSettings) -> FittedNorms:
    """Train the correction on the training samples; choose weights and gain on the validation samples."""
    count, generator = len(problem.layers.layers), seeded(problem.seed, "norms")
    inputs, targets = problem.train

    def loss(trainee: Trainee[Shares]) -> dict[str, Tensor]:
        rows = torch.randint(len(inputs), (settings.batch_size,), generator=generator)
        some = problem.subsample(*problem.augment(inputs[rows], targets[rows], generator), generator)
        x, y = (part.to(problem.device) for part in some)
        disturb = Disturbance(len(x), count, settings, generator)
        return {"task": problem.loss(adapted(problem.layers, trainee.network, x, disturb=disturb), y).mean()}

    def validate(trainee: Trainee[Shares]) -> float:
        return float(torch.cat([part[0] for part in _validation(problem, settings, trainee.network, (1.0,))], 1).mean())

    training = Training(settings.steps, settings.lr, settings.weight_decay, evaluations=settings.evaluations)
    shares, history = problem.rule, list[Record]()
    if settings.steps:
        with torch.enable_grad():
            shares, history = learn(
                Trainee(problem.rule, None), loss, validate, training, problem.stage("norms", settings), (generator,)
            )
    return FittedNorms(problem.layers, shares, choose(problem, settings, shares), history)


def choose(problem: NormProblem, settings: NormSettings, shares: Shares) -> Gain:
    """The gain of least mean loss on disturbed validation samples, among those that cost undisturbed ones little.

    The primary metric of the undisturbed samples may get worse by ``settings.budget`` of the base's value.
    """
    disturbed, scores = zip(*_validation(problem, settings, shares, settings.gains), strict=True)
    losses = torch.cat(disturbed, 1).double().mean(1)  # (G,)
    quality = problem.quality.reduce(torch.cat(scores, 1))  # (G,), higher is better
    if 0.0 in settings.gains:
        base = quality[settings.gains.index(0.0)]
        losses = torch.where(quality >= base - settings.budget * base.abs(), losses, torch.inf)
    best = int(losses.nan_to_num(torch.inf).argmin())
    return Gain(settings.gains[best], settings.gains, tuple(losses.tolist()))


@torch.no_grad()
def _validation(
    problem: NormProblem, settings: NormSettings, shares: Shares, gains: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """For each batch of validation samples and G gains: losses of disturbed and scores of undisturbed samples, ``(G, n)``."""
    inputs, targets = problem.val
    generator = seeded(problem.seed, "norms validation")
    chosen = torch.randperm(len(inputs), generator=generator)[: settings.val_samples]
    inputs, targets = problem.subsample(inputs[chosen], targets[chosen], generator)
    count, found = len(problem.layers.layers), []
    for start, (x, y) in enumerate(zip(inputs.split(200), targets.split(200), strict=True)):
        x, y = x.to(problem.device), y.to(problem.device)
        losses, scores = [], []
        for gain in gains:
            disturb = Disturbance(len(x), count, settings, seeded(problem.seed, "norms disturbance", start))
            losses.append(problem.loss(adapted(problem.layers, shares, x, gain, disturb), y).cpu())
            scores.append(problem.quality.scores(adapted(problem.layers, shares, x, gain), y).double().cpu())
        found.append((torch.stack(losses), torch.stack(scores)))
    return found
