"""``A+B``: the method B, fitted on the model that the method A adapts.

For each test batch, A adapts the base and gives its outputs. B then sees and changes the model as A leaves it for that batch.

For B's fit, a model that depends on the batch must be defined for training and validation samples too. It is what A makes of
the base, from the start of a stream, on a batch of ``run.batch_size`` samples: the samples that B runs at once, completed with
training samples. So it does not depend on the order in which B asks. Importing this module imports no torch.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.progress import Progress

if TYPE_CHECKING:
    import torch

STRONGEST = ("hindsight", "validation", "fixed")
"""Ways to choose hyper-parameters, the most informed first."""


def compose(name: str, pick: Callable[[str], Method], known: Iterable[Method]) -> Method:
    """The method ``A+B``.

    Args:
        name: two names of methods, joined by ``+``.
        pick: the method of a name.
        known: all methods, for messages.

    Raises:
        UsageError: if there are more parts than two, a part is unknown, or cannot have its place.
    """
    parts = [part.strip() for part in name.split("+")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"method {name!r}: expected two methods, A+B, such as tent+ocd")
    first, second = pick(parts[0]), pick(parts[1])
    for part, place, able in ((first, "first", "leads"), (second, "second", "follows")):
        if not getattr(part, able):
            others = ", ".join(method.name for method in known if getattr(method, able))
            raise UsageError(f"method {name!r}: {part.name!r} cannot be the {place} of two; these can: {others or 'none'}")
    return Composite(first, second)


class Composite(Method):
    """``second``, fitted on the base as ``first`` adapts it.

    Attributes:
        parts: both methods. Code and settings of a cell's fingerprint are those of both.
    """

    default = False

    def __init__(self, first: Method, second: Method) -> None:
        self.first, self.second, self.parts = first, second, (first, second)
        self.name = f"{first.name}+{second.name}"  # type: ignore[misc]
        self.description = f"{second.name} on the model that {first.name} adapts"  # type: ignore[misc]
        own = [name for part in self.parts for name in (part.section, *part.reads) if name]
        self.reads = tuple(dict.fromkeys(own))  # type: ignore[misc]
        self.chosen = min((part.chosen for part in self.parts), key=STRONGEST.index)  # type: ignore[misc]

    def fit(self, context: Context) -> Predictor:
        """Fit the first method, then the second on what it hands over.

        The first one's predictor and what the second one shares are shared among all methods with the same first part.
        """
        leader, shared = context.shared(("led by", self.first.name), lambda: (Leader(self.first, context), {}))
        follower = self.second.fit(led(context, self.first.name, leader.model, shared))
        return Composed(leader, follower)


def led(context: Context, first: str, model: torch.nn.Module, shared: dict[Any, Any]) -> Context:
    """The context of the second method: the same, with ``model`` as the base, and shared values and kept loops of its own.

    Args:
        first: name of the first method.
    """

    def loops(what: str, key: Hashable) -> Progress:
        return context.loops(what, ("led by", first, key))

    values = {field.name: getattr(context, field.name) for field in fields(Context)}
    return _LedContext(**{**values, "base": model, "fold_bases": _no_folds, "loops": loops, "_shared": shared})


def _no_folds(folds: int) -> Any:
    raise NotApplicable("no cross-fitting (folds) on a model that another method adapts")


@dataclass(frozen=True)
class _LedContext(Context):
    def fresh_base(self) -> torch.nn.Module:
        """Refuse.

        Raises:
            NotApplicable: always: a copy would not follow the first method.
        """
        raise NotApplicable("the first method adapts the base itself; the second needs a copy, which would stay as it is")


class Composed(Predictor):
    """Both predictors in turn, batch by batch."""

    def __init__(self, leader: Leader, follower: Callable[..., torch.Tensor]) -> None:
        self.leader, self.follower = leader, follower
        self.parameters = sum(_count(part) for part in (leader.predictor, follower))

    @property
    def detail(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The second method's record, with the first one's under ``first``."""
        first = getattr(self.leader.predictor, "detail", {})
        return {**getattr(self.follower, "detail", {}), "first": dict(first)}

    def reset(self) -> None:
        for part in (self.leader.predictor, self.follower):
            if hasattr(part, "reset"):
                part.reset()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with self.leader.adapted(inputs):
            return self.follower(inputs)


def _count(part: Any) -> int:
    count = getattr(part, "parameters", 0)
    return count if isinstance(count, int) else 0


class Leader:
    """The first method of ``A+B``, and the model that the second one runs.

    At test time the model is in the state in which the first method left its own for the last batch. Otherwise (while the
    second method is fitted) it takes the state for its inputs whenever it runs.

    Attributes:
        predictor: of the first method.
        model: a copy of what it hands over. It has ``rows_at_once``, the samples for which it has one state.
    """

    def __init__(self, method: Method, context: Context) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        predictor: Any = method.fit(context)
        handed = predictor.hand_over()
        self.predictor = predictor
        self.model = copy.deepcopy(handed)
        self._context, self._name = context, method.name
        self._left, self._own = _tensors(handed), _tensors(self.model)
        self._first = {name: tensor.detach().clone() for name, tensor in self._left.items()}
        self._states = WeakTensorKeyDictionary()  # what differs from the first state, by the inputs it belongs to
        self._testing = False
        self._forward = self.model.forward
        self.model.forward = self._run
        self.model.rows_at_once = context.batch_size

    @contextmanager
    def adapted(self, inputs: torch.Tensor) -> Iterator[None]:
        """Within this context the model is as the first method leaves it for the next test batch ``inputs``."""
        self.predictor(inputs)
        self._set(self._changes())
        self._testing = True
        try:
            yield
        finally:
            self._testing = False

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        """The model's forward pass."""
        import torch

        if self._testing:
            return self._forward(inputs)
        size = self._context.batch_size
        if len(inputs) > size:
            return torch.cat([self.model(part) for part in inputs.split(size)])
        if inputs not in self._states:
            self._states[inputs] = self._state_for(inputs)
        self._set(self._states[inputs])
        return self._forward(inputs)

    def _state_for(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the first method changes on a first batch of these samples."""
        import torch

        if hasattr(self.predictor, "reset"):
            self.predictor.reset()
        self.predictor(torch.cat([inputs, self._companions(inputs)]))
        return self._changes()

    def _changes(self) -> dict[str, torch.Tensor]:
        """The tensors in which the first method's model differs from its first state."""
        import torch

        return {
            name: tensor.detach().clone() for name, tensor in self._left.items() if not torch.equal(tensor, self._first[name])
        }

    def _set(self, state: Mapping[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, tensor in self._own.items():
                value = state.get(name, self._first[name])
                if not torch.equal(tensor, value):
                    tensor.copy_(value)

    def _companions(self, inputs: torch.Tensor) -> torch.Tensor:
        """Training samples that complete ``inputs`` to a batch. They depend on the inputs alone, not on the order of calls."""
        import torch

        from ocd_bench.seeds import seeded

        context, missing = self._context, self._context.batch_size - len(inputs)
        digest = hashlib.sha256(inputs.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        generator = seeded(context.request.task, context.request.dataset, context.request.seed, "companions", digest)
        chosen = context.train.take(torch.randint(len(context.train), (missing,), generator=generator))
        found = chosen.inputs
        for change in (context.task.subsample, context.task.excerpt):
            if found.shape[1:] != inputs.shape[1:] and missing:
                found, _ = change(chosen.inputs, chosen.targets, generator)
        if found.shape[1:] != inputs.shape[1:]:
            raise NotApplicable(
                f"{self._name} needs whole batches, and samples of the shape {tuple(inputs.shape[1:])} are parts"
            )
        return found.to(inputs)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
