"""Stage 4, learn: the training loop of every network here. AdamW, clipped gradients, averaged weights, early stopping."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ocd_bench.engine.condition import AuxiliaryHead
from ocd_bench.precision import autocast
from ocd_bench.progress import Progress

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Training:
    """How a network is trained; see :class:`ocd_bench.engine.settings.OCDSettings` for the fields, and
    :class:`ocd_bench.published.settings.PaperSettings` for ``minutes``."""

    steps: int
    lr: float
    weight_decay: float = 0.0
    lr_schedule: str = "cosine"
    ema: float = 0.999
    evaluations: int = 10
    precision: str = "float32"
    minutes: float = 0.0

    @classmethod
    def of(cls, settings: OCDSettings) -> Training:
        """The training part of the settings. What they do not have keeps its default."""
        names = [field.name for field in fields(cls) if hasattr(settings, field.name)]
        return cls(**{name: getattr(settings, name) for name in names})

    def rate(self, step: int) -> float:
        """Learning rate factor of a step: a linear warm-up (at most 100 steps or a tenth), then a half cosine or one."""
        warm = max(1, min(100, self.steps // 10))
        if step < warm:
            return (step + 1) / warm
        if self.lr_schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def over(self, step: int, seconds: float) -> bool:
        """Whether the training ends after so many steps and seconds."""
        return step >= self.steps or 0 < 60 * self.minutes <= seconds


@dataclass(frozen=True)
class Record:
    """One evaluation after ``step`` steps: the mean training loss since the last one, and the validation loss.

    ``parts``: the training loss by its terms.
    """

    step: int
    train: float
    val: float
    parts: Mapping[str, float] = field(default_factory=dict)


def details(history: Sequence[Record]) -> dict[str, Any]:
    """The history as plain values, for a cell's ``detail``; its terms are listed where there are several."""
    names = history[0].parts if history and len(history[0].parts) > 1 else ()
    return {
        "history": [[record.step, record.train, record.val] for record in history],
        "history_parts": {name: [[record.step, record.parts[name]] for record in history] for name in names},
    }


class RandomSource(Protocol):
    """Random numbers whose state can be kept, such as a generator of torch."""

    def get_state(self) -> Any: ...
    def set_state(self, state: Any, /) -> object: ...


class Trainee(nn.Module, Generic[Network]):
    """A network in training, with the auxiliary head that is not used afterwards (None for none)."""

    def __init__(self, network: Network, head: AuxiliaryHead | None) -> None:
        super().__init__()
        self.network: Network = network
        self.head = head

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together: a group for each part, so that a large gradient of the scale network
        does not slow down the denoiser."""
        parts = [*self.network.children(), *([] if self.head is None else [self.head])]
        return [list(part.parameters()) for part in parts]


class EMA(Generic[Network]):
    """A frozen copy of ``module`` that follows it: the exponential moving average of its weights.

    Args:
        module: the module to follow; its structure must not change afterwards.
        decay: weight of the past, in [0, 1). Early updates use less, ``(1 + n) / (10 + n)``, so that short trainings do not
            keep their random start.

    Raises:
        ValueError: for a decay outside of that range.
    """

    def __init__(self, module: Network, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay {decay}: expected 0 <= decay < 1")
        self.module: Network = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._parameters: list[Tensor] = list(self.module.parameters())
        self._buffers = list(self.module.buffers())

    @torch.no_grad()
    def update(self, module: Network) -> None:
        """Move towards ``module``. Buffers (batch-norm statistics) are copied as they are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for own, other in zip(self._parameters, module.parameters(), strict=True):
            own.lerp_(other.detach(), 1 - decay)
        for own, value in zip(self._buffers, module.buffers(), strict=True):
            own.copy_(value)


class Course(Generic[Network]):
    """A training on its way: everything that changes from step to step.

    Args:
        trainee: trained in place, in train mode.
        sources: everything beside torch's global generator that the loss draws random numbers from.

    Attributes:
        seconds: that it has taken, in all processes together.
        average: the trainee with averaged weights.
        best: a frozen copy of the averaged network of least validation loss.
    """

    def __init__(self, trainee: Trainee[Network], how: Training, sources: Sequence[RandomSource]) -> None:
        parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
        self.trainee, self.sources, self.step, self.seconds = trainee, sources, 0, 0.0
        self.optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=how.weight_decay, fused=fused)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, how.rate)
        self.average = EMA(trainee, how.ema)
        self.best: Network | None = None
        self.history: list[Record] = []
        self._groups = [group for group in trainee.groups() if group]
        self._best_loss, self._count = math.inf, 0
        self._totals: dict[str, Tensor | float] = {}

    def advance(self, parts: Mapping[str, Tensor]) -> None:
        """One step along the gradient of the sum of ``parts``."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        for group in self._groups:
            nn.utils.clip_grad_norm_(group, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(self.trainee)
        for name, part in parts.items():  # as tensors: reading a number would wait for the GPU
            self._totals[name] = self._totals.get(name, 0.0) + part.detach().double()
        self._count += 1
        self.step += 1

    def record(self, value: float) -> None:
        """Record the validation loss ``value`` of the average, and the mean training loss since the last record."""
        means = {name: float(total) / self._count for name, total in self._totals.items()}
        self.history.append(Record(self.step, sum(means.values()), value, means))
        self._totals.clear()
        self._count = 0
        if self.best is None or value < self._best_loss:
            self.best, self._best_loss = copy.deepcopy(self.average.module.network), value

    def state(self) -> dict[str, Any]:
        """Everything that the following steps depend on, as tensors and plain values."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "trainee": self.trainee.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "sources": [source.get_state() for source in self.sources],
            "best": None if self.best is None else self.best.state_dict(),
            "history": [(record.step, record.train, record.val, dict(record.parts)) for record in self.history],
            "since": (self._best_loss, {name: float(total) for name, total in self._totals.items()}, self._count),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same training."""
        self.step = self.average.updates = state["step"]
        self.seconds = state["seconds"]
        self.trainee.load_state_dict(state["trainee"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for source, kept in zip(self.sources, state["sources"], strict=True):
            source.set_state(kept)
        if state["best"] is not None:
            self.best = copy.deepcopy(self.average.module.network)
            self.best.load_state_dict(state["best"])
        self.history = [Record(*values) for values in state["history"]]
        self._best_loss, totals, self._count = state["since"]
        self._totals = dict(totals)


def learn(
    trainee: Trainee[Network],
    loss: Callable[[Trainee[Network]], Mapping[str, Tensor]],
    validate: Callable[[Trainee[Network]], float],
    how: Training,
    progress: Progress | None = None,
    sources: Sequence[RandomSource] = (),
) -> tuple[Network, list[Record]]:
    """Minimise ``loss``. Returns a frozen copy of the network with the averaged weights of least validation loss.

    Args:
        trainee: trained in place, in train mode.
        loss: the loss of the next batch, as named scalars to be summed.
        validate: validation loss of a trainee in eval mode; called without gradients.
        progress: shows the steps, and keeps the state of a training that may be killed.
        sources: everything beside torch's global generator that ``loss`` draws random numbers from.

    With ``how.evaluations == 1`` the last weights are returned, whatever their validation loss. A training that ends by
    ``how.minutes`` is evaluated once more at its end.
    """
    progress = progress or Progress()
    evaluate_at = {round(how.steps * (k + 1) / how.evaluations) for k in range(how.evaluations)}
    course = Course(trainee, how, sources)
    if state := progress.resume():
        course.load(state)
    trainee.train()
    device = next(trainee.parameters()).device
    over, earlier, began = how.over(course.step, course.seconds), course.seconds, time.monotonic()
    while not over:
        with autocast(how.precision, device):
            parts = loss(trainee)
        course.advance(parts)
        course.seconds = earlier + time.monotonic() - began
        over = how.over(course.step, course.seconds)
        if over or course.step in evaluate_at:
            with torch.no_grad():
                course.record(validate(course.average.module))
        progress(course.step, how.steps)
        progress.save(course.state, finished=over)
    return course.best if course.best is not None else course.average.module.network, course.history


def parameter_count(module: nn.Module) -> int:
    """The number of trained numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
