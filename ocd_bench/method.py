"""The method (one row of the table), and the context that it is fitted with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.account import Account, Cost
from ocd_bench.errors import NotApplicable
from ocd_bench.progress import Progress

__all__ = ["Context", "Method", "Predictor"]

if TYPE_CHECKING:
    import torch

    from ocd_bench.samples import Samples, Splits
    from ocd_bench.task import Request, Task


def _no_base_anew() -> tuple[torch.nn.Module, str]:
    raise NotApplicable("no further base can be trained here")


def _no_fold_bases(folds: int) -> Sequence[tuple[torch.nn.Module, torch.Tensor]]:
    raise NotApplicable("no further base can be trained here")


def _no_longer_base(samples: float) -> torch.nn.Module:
    raise NotApplicable("no further base can be trained here")


@dataclass(frozen=True)
class Context:
    """Everything that a method may use: the task, the trained base, training and validation samples. No test sample.

    Attributes:
        task, request: the same for every method of one (task, dataset, seed).
        splits: the task's splits without the test samples (``splits.test`` is the validation split), for
            :meth:`Task.encode_input` and ``extras``. For samples use ``train`` and ``val``.
        base: the trained base model, in eval mode, without gradients, on ``device``. All methods share it: do not change it.
            :meth:`fresh_base` gives a copy that you may change.
        layer: dotted name of the layer to adapt.
        device: where models and batches go.
        settings: function from the name of a section to its settings dataclass. A method may read its own ``section`` and
            those that it names in ``reads``, so that a cell's fingerprint covers exactly what the cell depends on.
        batch_size: samples per test batch. Test samples come in a fixed order, the same for every method.
        ranking: function that returns (layer name, entropy in nats) by the entropy criterion (paper, section 3.3), best first.
        progress: function of (what, steps done, steps in total), for the progress line.
        loops: see :meth:`stage`.
        fold_bases: function of the number of folds K. It returns K pairs of a further base and the indices ``(n,)`` of the
            training samples that this base was not trained on (one fold). The further bases start from the same initial
            weights as the base, and are cached like it. Raises ``NotApplicable`` if the base is not trained by the runner, and
            ``UsageError`` for more folds than samples.
        base_anew: function that returns the base that training gives here, and the SHA-256 of its weights. It is the base
            itself, unless the run was given stored bases (``--bases``).
        longer_base: function of a number of samples. It returns the base as its own training makes it with so many samples more
            (a sample counts each time it is trained on), from the same initial weights, cached like the base. Raises
            ``NotApplicable`` where that changes nothing.

    .. versionadded:: 0.1
    """

    task: Task
    request: Request
    splits: Splits
    base: torch.nn.Module
    layer: str
    device: torch.device
    settings: Callable[[str], Any]
    batch_size: int
    ranking: Callable[[], list[tuple[str, float]]]
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    loops: Callable[[str, Hashable], Progress] = lambda what, key: Progress()
    fold_bases: Callable[[int], Sequence[tuple[torch.nn.Module, torch.Tensor]]] = _no_fold_bases
    base_anew: Callable[[], tuple[torch.nn.Module, str]] = _no_base_anew
    longer_base: Callable[[float], torch.nn.Module] = _no_longer_base
    account: Account = field(default_factory=Account)
    """Seconds that other methods and killed processes spent on what this one uses (:meth:`shared`, :meth:`stage`). The runner
    adds them to ``cost.fit_s``."""
    _shared: dict[Hashable, tuple[Any, Cost]] = field(default_factory=dict)

    @property
    def train(self) -> Samples:
        """Training samples, on the CPU."""
        return self.splits.train

    @property
    def val(self) -> Samples:
        """Validation samples, on the CPU. A method makes all of its choices on these."""
        return self.splits.val

    def fresh_base(self) -> torch.nn.Module:
        """A deep copy of the base, in eval mode, with parameters that need no gradient. The method may change it."""
        return copy.deepcopy(self.base)

    def generator(self, method: str, purpose: str) -> torch.Generator:
        """A CPU generator; its stream derives from (task, dataset, method, seed, purpose)."""
        from ocd_bench.seeds import generator

        return generator(self.request.task, self.request.dataset, method, self.request.seed, purpose)

    def shared(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """The value of ``key``, built on first use. Methods of one (task, dataset, seed) can share a fit in this way.

        If another method built the value, the seconds that this took are also added to this method's ``cost.fit_s``.
        """
        if key not in self._shared:
            self._shared[key] = self.account.build(build)
        value, cost = self._shared[key]
        self.account.use(cost)
        return value

    def stage(self, what: str, key: Hashable) -> Progress:
        """The progress of a loop that may keep its state, so that a run that was killed continues there.

        Args:
            what: one word for the progress line, such as ``training``.
            key: what the loop depends on beside the base, the layer, the samples and the settings: begin it with the method's
                name. Plain values, tuples of them, dataclasses and functions of a module.
        """
        from ocd_bench.cache import model_sha256

        return self.loops(what, (key, model_sha256(self.base)))

    @property
    def shared_count(self) -> int:
        """The number of values that are shared so far."""
        return len(self._shared)

    def forget(self) -> None:
        """Drop the shared values. The runner calls this.

        They refer back to this context, and the cycle would keep their tensors in memory until the next garbage collection.
        """
        self._shared.clear()


class Predictor:
    """The result of :meth:`Method.fit`: a function of test batches, called in their order. A plain function is accepted too.

    .. versionadded:: 0.1
    """

    parameters: int = 0
    """Number of parameters that the method adds to the base model."""
    detail: Mapping[str, Any] = {}
    """Plain values for the cell file and the report: training curves, and the choices made on validation samples."""

    def reset(self) -> None:
        """Forget the test samples seen so far; called before each test set."""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``(N, ...)``, in the form of the base's, for one batch of inputs ``(N, ...)`` on the context's device."""
        raise NotImplementedError

    def hand_over(self) -> torch.nn.Module:
        """The model that the second method of ``A+B`` changes; for methods with ``leads``, called once, before any batch.

        From then on, every call leaves this one object as the base adapted to its batch. On that batch it gives the outputs of
        the call. It is in eval mode, each row of its output depends on that row of its input alone, and its layers have the
        names of the base's.
        """
        raise NotImplementedError


class Method:
    """Base class of methods. Only :meth:`fit` is required.

    A method sees no test label, with one exception: if ``uses_test_labels`` is true, the predictor is called as
    ``predictor(inputs, targets)``. The name of such a method must begin with ``oracle``.

    .. versionadded:: 0.1
    """

    name: ClassVar[str]
    """Name of the row: a-z, 0-9 and ``-``."""
    description: ClassVar[str] = ""
    """One line for ``ocd-bench list methods``."""
    section: ClassVar[str | None] = None
    """Name of the settings section; several methods may share one. None: no settings."""
    Settings: ClassVar[type | None] = None
    """A frozen dataclass of plain values; its optional class attribute ``presets`` maps preset to {key: value}."""
    reads: ClassVar[Sequence[str]] = ()
    """Further sections that the method depends on, beside its own and the core's."""
    uses_test_labels: ClassVar[bool] = False
    """Whether the predictor gets the test labels; only for upper bounds."""
    tasks: ClassVar[Sequence[str]] = ()
    """Names of the tasks it is intended for; empty: all. For other tasks it runs only if ``--methods`` names it."""
    default: ClassVar[bool] = True
    """Whether the method runs when ``--methods`` is not given. ``--methods all`` runs every method."""
    leads: ClassVar[bool] = False
    """Whether it can be the first method of ``A+B``: its predictor has :meth:`Predictor.hand_over`."""
    follows: ClassVar[bool] = False
    """Whether it can be the second method of ``A+B``: fit and predictor run ``context.base`` itself, never a copy, and nothing
    that the predictor needs of the base is kept from one batch to the next."""
    chosen: ClassVar[str] = "fixed"
    """How its hyper-parameters are chosen: ``fixed`` beforehand, on ``validation`` samples, or with ``hindsight`` (by test
    labels). Cells and reports say so, and name what the user set."""

    def fit(self, context: Context) -> Predictor | Callable[..., Any]:
        """Prepare on training and validation samples, and return the predictor.

        Raises:
            NotApplicable: if the method cannot work with this task or model. The message becomes the cell's reason.
        """
        raise NotImplementedError
