"""OCD as a whole: fit a hypernetwork to overfitted weight changes, then draw each sample's own weights and predict with them.

The fit is a line of stages: capture → overfit → encode → learn. A prediction is capture → draw → apply.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from ocd_bench.engine.apply import TaskLoss, combined
from ocd_bench.engine.banks import batches, validation
from ocd_bench.engine.capture import Describe, Trace
from ocd_bench.engine.choose_form import FormScore, pick_form
from ocd_bench.engine.condition import AuxiliaryHead, Condition
from ocd_bench.engine.diffusion import Diffusion, NoiseStream
from ocd_bench.engine.forms import Delta, Form
from ocd_bench.engine.gain import Gain, GainSettings, gain_on_validation
from ocd_bench.engine.hypernetwork import CodeNetwork, ConstantScale, FastDenoiser, HyperNetwork, Regressor, ScaleNetwork, Trunk
from ocd_bench.engine.learn import RandomSource, Record, Trainee, Training, learn, parameter_count
from ocd_bench.engine.problem import CPU, Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.size import check_codes, check_network
from ocd_bench.engine.stream import Pieces, TargetStream
from ocd_bench.engine.targets import Targets, TargetSettings
from ocd_bench.errors import NotApplicable
from ocd_bench.progress import Progress
from ocd_bench.seeds import derive, seeded

LARGEST_OUTPUT = 1024
"""Numbers per sample up to which an output is a small vector."""

Build = Callable[[OCDSettings, Form, Callable[[int], Condition], Callable[[int], ConstantScale]], CodeNetwork]
"""A new network for codes of a form, with the condition and the scale for a given width."""


def fast_hypernetwork(
    settings: OCDSettings, form: Form, condition: Callable[[int], Condition], scale: Callable[[int], ConstantScale]
) -> CodeNetwork:
    """Diffusion by a residual network over codes."""
    check_network(form, settings, CPU)
    e, denoiser = condition(settings.width), FastDenoiser(form.size, settings.width, settings.depth)
    return HyperNetwork(e, denoiser, scale(settings.width), form, Diffusion.of(settings))


def regressor(
    settings: OCDSettings, form: Form, condition: Callable[[int], Condition], scale: Callable[[int], ConstantScale]
) -> CodeNetwork:
    """The same network without diffusion."""
    check_network(form, settings, CPU)
    e, trunk = condition(settings.width), Trunk(form.size, settings.width, settings.depth)
    return Regressor(e, trunk, scale(settings.width), form)


@dataclass(frozen=True)
class Variant:
    """Where an ablation, or the published method, differs from `ocd`. Fits of equal settings and variant are the same.

    Args:
        build: makes the network.
        scaled: whether there is a scale network.
        task_loss: whether ``ocd.task_weight`` counts; without, the network only imitates, as published.
    """

    build: Build = fast_hypernetwork
    scaled: bool = True
    task_loss: bool = True


@dataclass(frozen=True)
class LossSettings:
    """The terms of the training loss; see :class:`ocd_bench.engine.settings.OCDSettings` for the fields."""

    noise_draws: int
    task_draws: int
    task_weight: float
    auxiliary: float
    batch_size: int
    task_batch: int

    @classmethod
    def of(cls, settings: OCDSettings) -> LossSettings:
        """The part of the settings that the loss depends on."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass
class FittedOCD:
    """A trained hypernetwork with the layer it changes.

    Attributes:
        describe: I(x) of a trace.
        network: averaged weights, in eval mode.
        history: of the training.
        rho: lengths of overfitted changes of validation samples beside the predicted ones, ``(M, 2)``.
        forms: what each form costs, where it was chosen among several.
    """

    problem: Problem
    settings: OCDSettings
    describe: Describe
    network: CodeNetwork
    history: list[Record] = field(default_factory=list)
    rho: Tensor = field(default_factory=lambda: torch.empty(0, 2))
    forms: Sequence[FormScore] = ()

    @property
    def form(self) -> Form:
        """The meaning of the network's codes."""
        return self.network.form

    @property
    def parameters(self) -> int:
        """Parameters of condition, encoder, denoiser and scale network, of a learned basis, and of a network that makes
        features of outputs."""
        features = self.problem.output_features
        return parameter_count(self.network) + (parameter_count(features) if isinstance(features, nn.Module) else 0)

    def directions(self, e: Tensor, noise: Tensor) -> Tensor:
        """Directions ``(D, N, K)`` under condition vectors ``(N, width)``, from noise ``(D, N, K)``."""
        return self.network.draw(e, noise)

    def factor(self, trace: Trace, gain: float) -> float | Tensor:
        """What ΔW is multiplied by: a number, or ``(N,)``."""
        return gain

    @torch.no_grad()
    def draw(self, trace: Trace, draws: int = 1, start: int = 0, *, purpose: str = "test") -> Iterator[Delta]:
        """``draws`` weight changes for each of the trace's N samples, one draw at a time.

        Args:
            start: index of the trace's first sample in the stream of samples; it fixes the noise.
            purpose: names the stream of noise.
        """
        network = self.network
        stream = NoiseStream(derive(self.problem.seed, "noise", purpose), self.form.size)
        noise = torch.stack([stream(start, len(trace.inputs), draw) for draw in range(draws)]).to(
            trace.output.device
        )  # (D, N, K)
        e = network.condition(self.describe(trace), trace.inputs)  # (N, width)
        for code in network.scale.join(e, self.directions(e, noise.to(e.device))):
            yield self.form.decode(code, trace)

    @torch.no_grad()
    def outputs(
        self, inputs: Tensor, gains: Sequence[float] = (1.0,), draws: int = 1, start: int = 0, *, purpose: str = "test"
    ) -> list[Tensor]:
        """Combined outputs ``(N, ...)`` of ``draws`` draws, for each of ``gains`` (0: the base); see :meth:`draw`."""
        chunks: list[list[Tensor]] = []
        for trace in self.problem.layer.traces(inputs):
            deltas = list(self.draw(trace, draws, start, purpose=purpose)) if any(gains) else []
            factors = [self.factor(trace, gain) if gain else 0.0 for gain in gains]
            chunks.append([combined(trace, deltas, factor, self.problem.combine) for factor in factors])
            start += len(trace.inputs)
        return [torch.cat(parts) for parts in zip(*chunks, strict=True)]

    def predict(self, inputs: Tensor, draws: int = 1, gain: float = 1.0, start: int = 0) -> Tensor:
        """Outputs ``(N, ...)`` with the samples' own weights; those of several draws are combined by ``problem.combine``."""
        return self.outputs(inputs, (gain,), draws, start)[0]

    def choose_gain(self, draws: int, key: Hashable = ()) -> Gain:
        """The gain for ensembles of ``draws``, of ``settings.gains``, by the losses of validation samples.

        Args:
            key: where this fit differs from others of its problem and settings.
        """
        return gain_on_validation(
            self.problem,
            GainSettings.of(self.settings),
            lambda inputs, gains, start: self.outputs(inputs, gains, draws, start, purpose="validation"),
            (self.settings, draws, key),
        )


def fit(problem: Problem, settings: OCDSettings, variant: Variant = Variant()) -> FittedOCD:  # noqa: B008
    """Train a hypernetwork on the overfitted weight changes of the training samples.

    Raises:
        NotApplicable: if overfitting changes nothing.
        UsageError: if overfitting diverges, or the form asked for does not fit the layer, or its codes the memory.
    """
    if not variant.task_loss:
        settings = replace(settings, task_weight=0.0)
    with initial_weights(problem):
        encoder, describe = condition_inputs(problem, settings)
        stream = TargetStream(problem, TargetSettings.of(settings), describe, encoder is not None)  # capture, overfit
        picked = pick_form(stream)  # encode
        check_codes(picked.form, settings, problem.device)
        batch, known, sources = batches(stream, picked.form)
        trainee = _trainee(problem, settings, variant, picked.form, encoder, known)
        loop = problem.stage("hypernetwork", (settings, variant))
        network, history, val = _learn(problem, settings, stream, batch, trainee, loop, sources)
        few = val.take(slice(200)).to(problem.device)
        rho = network.scale.pairs(network.condition(few.features, few.inputs), few.code).cpu()
    return FittedOCD(problem, settings, describe, network, history, rho, picked.scores)


@contextmanager
def initial_weights(problem: Problem) -> Iterator[None]:
    """A random stream of its own for the initial weights of networks."""
    cuda = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive(problem.seed, "weights"))
        yield


def condition_inputs(problem: Problem, settings: OCDSettings) -> tuple[nn.Module | None, Describe]:
    """The encoder of x that is trained with the hypernetwork (None for none), and I(x).

    An encoder without parameters needs no training: it is a feature of I(x).
    """
    encoder = problem.encoder() if settings.input_encoder else None
    encoder = None if encoder is None else encoder.to(problem.device)
    trained = encoder is not None and parameter_count(encoder) > 0
    return (encoder if trained else None), Describe(problem.output_features, None if trained else encoder, settings.conditions)


def small_output(problem: Problem) -> int:
    """Numbers of a sample's output where it is a vector of at most :data:`LARGEST_OUTPUT`, else 0."""
    output = problem.layer.trace(problem.train[0][:1].to(problem.device)).output
    small = output.ndim <= 2 and output[0].numel() <= LARGEST_OUTPUT and output.is_floating_point()
    return output[0].numel() if small else 0


def _trainee(
    problem: Problem, settings: OCDSettings, variant: Variant, form: Form, encoder: nn.Module | None, known: Targets
) -> Trainee[CodeNetwork]:
    """The untrained network, with the statistics of known targets, and its auxiliary head."""
    example = known.take(slice(2)).to(problem.device)

    def condition(width: int) -> Condition:
        return Condition.like(example.features, example.inputs, width, encoder, settings.dropout)

    def scale(width: int) -> ConstantScale:
        return ScaleNetwork(width, loss=settings.scale_loss) if variant.scaled else ConstantScale()  # type: ignore[arg-type]

    network = variant.build(settings, copy.deepcopy(form), condition, scale)  # other fits start from the same form
    outputs = small_output(problem) if settings.task_weight and settings.auxiliary else 0
    trainee = Trainee(network, AuxiliaryHead(network.condition.width, outputs) if outputs else None)
    try:
        network.calibrate(known)
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    return trainee.to(problem.device)


def _learn(
    problem: Problem,
    settings: OCDSettings,
    stream: TargetStream,
    batch: Callable[[], tuple[Targets, Pieces]],
    trainee: Trainee[CodeNetwork],
    loop: Progress,
    sources: Sequence[RandomSource],
) -> tuple[CodeNetwork, list[Record], Targets]:
    """The trained network, its history, and the targets of validation samples."""
    how = LossSettings.of(settings)
    unit = stream.gain() / how.task_weight if how.task_weight else 1.0
    noise = seeded(problem.seed, "noise")
    val = validation(stream, trainee.network.form, settings.val_samples)

    def loss(module: Trainee[CodeNetwork]) -> dict[str, Tensor]:
        targets, pieces = batch()
        return losses(module, targets, task_loss(pieces), how, noise)

    def task_loss(pieces: Pieces) -> TaskLoss | None:
        return TaskLoss(problem.loss, pieces, unit) if pieces else None

    def validate(module: Trainee[CodeNetwork]) -> float:
        noise, total = seeded(problem.seed, "validation noise"), 0.0  # the same every time
        for start in range(0, len(val), how.batch_size):
            targets = val.take(slice(start, start + how.batch_size)).to(problem.device)
            pieces = stream.traced(targets, noise, how.task_batch) if stream.how.answers else ()
            parts = losses(module, targets, task_loss(pieces), how, noise)
            total += float(parts.get("task", sum(parts.values()))) * len(targets)  # the task's loss decides, where it is known
        return total / len(val)

    return *learn(trainee, loss, validate, Training.of(settings), loop, (*sources, noise)), val


def losses(
    trainee: Trainee[CodeNetwork], targets: Targets, task: TaskLoss | None, how: LossSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    """Training losses of a batch, scalars to be summed: of the direction, of the length, and beyond the paper of the task.

    Args:
        task: the task's loss; None without. It is taken of ``how.task_draws`` codes per sample at the last noise level, where
            sampling starts and only the condition carries information: of the directions without noise that the network
            implies, times the predicted length.
        generator: CPU generator of the noise and the noise levels.
    """
    network, draws = trainee.network, min(how.task_draws, how.noise_draws)
    e = network.condition(targets.features, targets.inputs)  # (N, width)
    found, implied = network.imitate(
        e, network.scale.split(targets.code), how.noise_draws, draws if task is not None else 0, generator
    )  # implied: (D, N, K)
    found |= network.scale.losses(e, targets.code)
    if task is not None:
        found["task"] = task.of_codes(network.scale.join(e, implied[:draws]), network.form)
        if trainee.head is not None:
            found["auxiliary"] = how.auxiliary * task.of_outputs(trainee.head(e))
    return found
