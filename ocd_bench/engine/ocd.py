"""OCD as a whole: fit a hypernetwork to overfitted weight changes, then draw a sample's own weights and predict with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ocd_bench.engine.condition import Condition, flat
from ocd_bench.engine.deltas import Delta
from ocd_bench.engine.denoiser import FastDenoiser, Trunk, parameter_count
from ocd_bench.engine.folds import Folds
from ocd_bench.engine.forms import Form, FormScore, FullForm
from ocd_bench.engine.gain import Gain, gain_on_validation
from ocd_bench.engine.gate import Gate, factors
from ocd_bench.engine.hypernetwork import HyperNetwork
from ocd_bench.engine.layer import Trace
from ocd_bench.engine.overfit import Overfit
from ocd_bench.engine.problem import NoiseStream, Problem
from ocd_bench.engine.scale import ScaleNetwork
from ocd_bench.engine.schedule import NoiseSchedule
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.targets import BASES, Overfitter, Targets, basis_codes, basis_of, join, pick_form
from ocd_bench.engine.through import Through, overfitting_gains
from ocd_bench.engine.training import Record, Training, shuffled, train
from ocd_bench.engine.unet import UNet
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.published.settings import PaperSettings
from ocd_bench.seeds import derive

LARGEST_OUTPUT = 1024
"""Numbers per sample up to which an output is a small vector."""

BANK_LIMIT = 2**28
"""Numbers of targets that may be kept, when they are kept without having been asked for."""


@dataclass
class FittedOCD:
    """A trained hypernetwork with the layer it changes.

    Attributes:
        network: averaged weights, in eval mode.
        history: of the training.
        gate: leaves the base as it is for strangers; None: there are none.
        forms: what each form would have cost, where it was chosen among several.
        rho: lengths of overfitted changes of validation samples beside the predicted ones, ``(M, 2)``.
    """

    problem: Problem
    settings: OCDSettings
    overfitter: Overfitter
    network: HyperNetwork
    gate: Gate | None = None
    history: list[Record] = field(default_factory=list)
    rho: Tensor = field(default_factory=lambda: torch.empty(0, 2))
    forms: Sequence[FormScore] = ()

    @property
    def form(self) -> Form:
        """What the network's codes mean."""
        return self.network.form

    @property
    def parameters(self) -> int:
        """Parameters of condition, encoder, denoiser and scale network, of a learned basis, and of a network that makes
        features of outputs."""
        features = self.problem.output_features
        return parameter_count(self.network) + (parameter_count(features) if isinstance(features, nn.Module) else 0)

    def draw(
        self, trace: Trace, draws: int = 1, start: int = 0, *, random: bool = False, purpose: str = "test"
    ) -> Iterator[Delta]:
        """``draws`` weight changes for each of the trace's N samples, one draw at a time.

        Args:
            start: index of the trace's first sample in the stream of samples; with it the noise is fixed.
            random: random directions of the predicted lengths.
            purpose: names the stream of noise.
        """
        stream = NoiseStream(derive(self.problem.seed, "noise", purpose), self.form.size)
        noise = torch.stack([stream(start, len(trace), draw) for draw in range(draws)]).to(trace.output.device)
        codes = self.network.generate(self.overfitter.describe(trace), trace.inputs, noise, random)
        for code in codes:
            yield self.form.decode(code, trace)

    @torch.no_grad()
    def outputs(
        self,
        inputs: Tensor,
        gains: Sequence[float] = (1.0,),
        draws: int = 1,
        start: int = 0,
        *,
        random: bool = False,
        purpose: str = "test",
    ) -> list[Tensor]:
        """Combined outputs ``(N, ...)`` of ``draws`` draws, for each of ``gains`` (0: the base); see :meth:`draw`.

        Strangers get the base's, whatever the gain.
        """
        rows = self.overfitter.rows(inputs)
        found: list[list[Tensor]] = [[] for _ in gains]
        for begin in range(0, len(inputs), rows):
            trace = self.problem.layer.trace(inputs[begin : begin + rows].to(self.problem.device))
            deltas = list(self.draw(trace, draws, start + begin, random=random, purpose=purpose)) if any(gains) else []
            for gain, parts in zip(gains, found, strict=True):
                if gain == 0:
                    parts.append(trace.output)
                    continue
                factor = gain * factors(self.gate, self.problem, trace.inputs, trace.output.device)
                drawn = [self.problem.layer.forward(trace, delta.scaled(factor)) for delta in deltas]
                parts.append(drawn[0] if draws == 1 else self.problem.combine(torch.stack(drawn)))
        return [torch.cat(parts) for parts in found]

    def predict(self, inputs: Tensor, draws: int = 1, gain: float = 1.0, start: int = 0, random: bool = False) -> Tensor:
        """Outputs ``(N, ...)`` with the samples' own weights; those of several draws combined by ``problem.combine``."""
        return self.outputs(inputs, (gain,), draws, start, random=random)[0]

    def choose_gain(self, draws: int) -> Gain:
        """The gain for ensembles of ``draws``, of ``settings.gains``, by the loss of validation samples."""
        return gain_on_validation(
            self.problem,
            self.settings,
            lambda inputs, gains, start: self.outputs(inputs, gains, draws, start, purpose="validation"),
        )


def fit(problem: Problem, settings: OCDSettings, *, diffusion: bool = True, scaled: bool = True) -> FittedOCD:
    """Train a hypernetwork on the overfitted weight changes of the training samples.

    Args:
        diffusion: False regresses the direction with the same network instead.
        scaled: False leaves out the scale network.

    Raises:
        NotApplicable: if overfitting changes nothing.
        UsageError: if overfitting diverges, or the form asked for does not fit the layer.
    """
    cuda = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive(problem.seed, "weights"))
        return _fit(problem, settings, diffusion, scaled)


def make_overfitter(problem: Problem, settings: OCDSettings, encoder: nn.Module | None) -> Overfitter:
    """The source of training targets; ``encoder`` as ``problem.encoder`` gave it."""
    trained = encoder is not None and parameter_count(encoder) > 0
    how = Overfit(settings.overfit_optimizer, settings.overfit_lr, settings.overfit_steps)  # type: ignore[arg-type]
    return Overfitter(
        problem.layer,
        problem.loss,
        how,
        problem.device,
        problem.output_features,
        augment=problem.augment if settings.augment else None,
        subsample=problem.subsample,
        excerpt=problem.excerpt,
        conditions=settings.conditions,
        fixed=None if trained else encoder,
        keep_inputs=trained,
        keep_answers=settings.task_weight > 0,
    )


def make_condition(
    overfitter: Overfitter, encoder: nn.Module | None, width: int, example: Targets, dropout: float = 0.0
) -> Condition:
    """The condition for targets such as ``example``; an encoder is measured by trying it out.

    Raises:
        UsageError: if there is neither a feature nor an encoder.
    """
    sizes = {name: value.shape[1] for name, value in example.features.items()}
    if not sizes and encoder is None:
        raise UsageError(
            "the hypernetwork would be told nothing: the task has no encoder of its samples (Task.encode_input), or "
            "ocd.input_encoder is off; name some of input, activation, output in ocd.conditions"
        )
    if encoder is None or example.inputs is None:
        return Condition(sizes, width, dropout=dropout)
    with torch.no_grad():
        encoded = flat(encoder.eval()(example.inputs[:2])).shape[1]
    return Condition(sizes, width, encoder, encoded, dropout)


def small_output(problem: Problem) -> int:
    """Numbers of a sample's output where it is a vector of at most :data:`LARGEST_OUTPUT`, else 0."""
    output = problem.layer.trace(problem.train[0][:1].to(problem.device)).output
    small = output.ndim <= 2 and output[0].numel() <= LARGEST_OUTPUT and output.is_floating_point()
    return output[0].numel() if small else 0


def whole_bank(problem: Problem, settings: OCDSettings, overfitter: Overfitter, folds: Folds) -> Targets | None:
    """Targets made beforehand whose codes are ΔW itself, for a basis to be found in; None if no such form is asked for by name,
    or they are too many."""
    shape, count = overfitter.layer.shape, settings.passes * len(problem.train[0])
    if settings.form not in BASES or not 0 < count * shape[0] * shape[1] <= BANK_LIMIT:
        return None
    return problem.remember(f"whole-{overfitter.keep_answers}", lambda: _bank(problem, settings, folds, FullForm(shape)))


def _bank(problem: Problem, settings: OCDSettings, folds: Folds, form: Form) -> Targets:
    def told(done: int, total: int) -> None:
        problem.progress("overfit", done, total)

    return folds.bank(form, problem.generator("targets"), max(1, settings.passes), told)


def source(
    problem: Problem, settings: OCDSettings, folds: Folds, form: Form, whole: Targets | None = None
) -> tuple[Callable[[], Targets], Targets]:
    """Training batches, and the targets to take statistics from: made beforehand or batch by batch, see ``passes``.

    Args:
        whole: see :func:`whole_bank`.
    """
    inputs, overfitter = problem.train[0], folds.overfitters[0]
    indices = shuffled(len(inputs) * max(1, settings.passes), settings.batch_size, problem.generator("order"))
    changes = problem.generator("augment")
    if settings.passes or _better_beforehand(problem, settings, overfitter, form):
        if whole is None:
            bank = problem.remember(f"targets-{overfitter.keep_answers}", lambda: _bank(problem, settings, folds, form))
        else:
            bank = replace(whole, code=basis_codes(form, whole.code))

        def known() -> Targets:
            chosen = folds.grouped(next(indices))
            found = bank.take(chosen).to(problem.device)
            return folds.traced(found, chosen, changes, settings.task_batch) if overfitter.keep_answers else found

        return known, bank

    def batch() -> Targets:
        return folds.make(form, folds.grouped(next(indices)), changes)

    pilot, chance = torch.randperm(len(inputs), generator=problem.generator("pilot"))[:512], problem.generator("pilot")
    parts = [folds.make(form, folds.grouped(some), chance).to(torch.device("cpu")) for some in pilot.split(256)]
    return batch, join(parts)


def _better_beforehand(problem: Problem, settings: OCDSettings, overfitter: Overfitter, form: Form) -> bool:
    """Whether one pass is cheaper than new targets for every batch: nothing is random, or not even a batch fits into memory."""
    inputs, targets = problem.train
    if settings.steps * settings.batch_size < len(inputs):
        return False
    if overfitter.random and overfitter.rows(inputs) >= min(settings.batch_size, len(inputs)):
        return False
    example = overfitter.make(form, inputs[:1], targets[:1], problem.generator("pilot"))
    return len(inputs) * example.numbers() <= BANK_LIMIT


def _fit(problem: Problem, settings: OCDSettings, diffusion: bool, scaled: bool) -> FittedOCD:
    encoder = problem.encoder() if settings.input_encoder else None
    encoder = None if encoder is None else encoder.to(problem.device)
    overfitter = make_overfitter(problem, settings, encoder)
    kept: dict[int, tuple[Trace, Tensor]] = problem.remember("kept", dict)
    folds = Folds.of(problem.train, overfitter, settings.folds, problem.folds, kept)
    whole = whole_bank(problem, settings, overfitter, folds)
    chance = problem.generator("form")
    if whole is None:
        choose = lambda: pick_form(settings.form, settings.basis, overfitter, *problem.train, chance)  # noqa: E731
    else:
        codes = whole.code
        choose = lambda: basis_of(settings.form, settings.basis, codes, overfitter, chance)  # noqa: E731
    picked = problem.remember("form", choose)
    form = picked.form
    batch, known = source(problem, settings, folds, form, whole)

    unet = _unet(settings, form) if isinstance(settings, PaperSettings) and diffusion else None
    width = settings.width if unet is None else unet.width
    example = known.take(slice(2)).to(problem.device)
    condition = make_condition(overfitter, encoder, width, example, settings.dropout)
    denoiser = FastDenoiser if diffusion else Trunk
    network = HyperNetwork(
        condition,
        unet or denoiser(form.size, width, settings.depth),
        copy.deepcopy(form),  # other fits begin at the same one
        schedule=NoiseSchedule.named(settings.schedule) if diffusion else None,
        scale=ScaleNetwork(width) if scaled else None,
        prediction=settings.prediction,
        sampling_steps=settings.sampling_steps,
        guidance=settings.guidance,
        unconditional=settings.unconditional,
        scale_loss=settings.scale_loss,
        noise_draws=settings.noise_draws,
        task_draws=min(settings.task_draws, settings.noise_draws),
        outputs=small_output(problem) if settings.task_weight and settings.auxiliary else 0,
        auxiliary=settings.auxiliary,
    )
    try:
        network.calibrate(known)
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    network = network.to(problem.device)

    unit = _task_unit(problem, overfitter, folds) / settings.task_weight if settings.task_weight else 1.0

    def losses(module: HyperNetwork, samples: Targets, noise: torch.Generator) -> dict[str, Tensor]:
        through = Through(problem.layer, problem.loss, samples.pieces, unit) if samples.pieces else None
        return module.loss(samples, noise, through)

    held = problem.validation(settings.val_samples)
    chance = problem.generator("validation")
    val = problem.remember(f"validation-{overfitter.keep_answers}", lambda: overfitter.bank(form, *held, chance, augment=False))

    def validate(module: HyperNetwork) -> float:
        noise, total = problem.generator("validation noise"), 0.0  # the same every time
        for start in range(0, len(val), settings.batch_size):
            piece = val.take(slice(start, start + settings.batch_size)).to(problem.device)
            piece = overfitter.traced(piece, noise, settings.task_batch) if overfitter.keep_answers else piece
            parts = losses(module, piece, noise)
            total += float(parts.get("task", sum(parts.values()))) * len(piece)  # what counts, where it is known
        return total / len(val)

    noise = problem.generator("noise")
    how = Training.of(settings)
    best, history = train(
        network,
        lambda module: losses(module, batch(), noise),
        validate,
        how,
        lambda done, total: problem.progress("hypernetwork", done, total),
    )
    best.head = None  # it has served
    rho = best.scales(val.take(slice(200)).to(problem.device)).cpu()
    return FittedOCD(problem, settings, overfitter, best, None, history, rho, picked.scores)


def _unet(settings: PaperSettings, form: Form) -> UNet:
    sizes = settings.channels, settings.multipliers, settings.blocks, settings.attention
    return UNet(form.shape, *sizes, settings.unet_dropout)


def _task_unit(problem: Problem, overfitter: Overfitter, folds: Folds) -> float:
    """What overfitting gains on training samples: the task's loss weighs the same then, whatever its unit."""
    inputs, _ = problem.train
    chance = problem.generator("unit")
    few = torch.randperm(len(inputs), generator=chance)[: min(256, max(8, overfitter.rows(inputs)))]
    return overfitting_gains(problem.layer, problem.loss, folds.deltas(folds.grouped(few), chance))
