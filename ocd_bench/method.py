"""The method: what a row of the table does with a trained base model, and the context it may see."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.errors import NotApplicable

if TYPE_CHECKING:
    import torch

    from ocd_bench.samples import Samples, Splits
    from ocd_bench.task import Request, Task


def _no_fold_bases(folds: int) -> Sequence[tuple[torch.nn.Module, torch.Tensor]]:
    raise NotApplicable("no further base can be trained here")


@dataclass(frozen=True)
class Context:
    """All a method may know: the task, the trained base, training and validation samples. Never a test sample.

    Attributes:
        task, request: as given to every other method of the same (task, dataset, seed).
        splits: the task's splits with the test samples taken out (``splits.test`` is the validation split again),
            for :meth:`Task.encode_input` and ``extras``; use ``train`` and ``val``.
        train, val: training and validation samples, on the CPU.
        base: the trained base model, in eval mode, without gradients, on ``device``. Shared: do not change it; ask
            :meth:`fresh_base` for a copy to change.
        layer: dotted name of the layer to adapt.
        ranking: layer names by the entropy criterion, best first, computed on first use.
        fold_bases: of K, K further bases, in the state of ``base``, each trained from the same initial weights without a K-th
            of the training samples, and the indices of these; cached as the base is. Raises ``NotApplicable`` where the base is
            not trained, and ``UsageError`` for more folds than samples.
        device: where models and batches go.
        settings: function from a section's name to its settings dataclass; a method may ask for its own ``section`` and those
            it names in ``reads``, so that a cell's fingerprint covers just what the cell depends on.
        batch_size: rows of a test batch; test samples come in a fixed order, the same for every method.
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
    fold_bases: Callable[[int], Sequence[tuple[torch.nn.Module, torch.Tensor]]] = _no_fold_bases
    _shared: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)
    _charges: list[float] = field(default_factory=list)

    @property
    def train(self) -> Samples:
        return self.splits.train

    @property
    def val(self) -> Samples:
        return self.splits.val

    def fresh_base(self) -> torch.nn.Module:
        """A deep copy of the base, in eval mode, parameters without gradients: the method's own to change."""
        return copy.deepcopy(self.base)

    def generator(self, method: str, purpose: str) -> torch.Generator:
        """A CPU generator whose stream derives from (task, dataset, method, seed, purpose)."""
        from ocd_bench.seeds import generator

        return generator(self.request.task, self.request.dataset, method, self.request.seed, purpose)

    def shared(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """The value of ``key``, built on first use: methods of one (task, dataset, seed) share what they would both fit.

        The seconds another method spent on it count towards ``cost.fit_s`` of this one too.
        """
        if key in self._shared:
            value, seconds = self._shared[key]
            self._charges.append(seconds)
            return value
        start = time.perf_counter()
        value = build()
        self._shared[key] = value, time.perf_counter() - start
        return value

    def forget(self) -> None:
        """Let go of everything shared: what was built for this context mostly holds it in turn, and such a circle waits for the
        garbage collector, which counts objects and not how large their tensors are."""
        self._shared.clear()


class Predictor:
    """What :meth:`Method.fit` returns: predictions for test batches, in order. A plain function does as well."""

    parameters: int = 0
    """Parameters the method adds to the base model."""
    detail: Mapping[str, Any] = {}
    """Plain values for the cell file and the report: training curves, what was chosen on validation."""

    def reset(self) -> None:
        """Forget the test stream; called before each test set."""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``(N, ...)`` of the task's own form for one batch ``(N, ...)`` on the context's device."""
        raise NotImplementedError


class Method:
    """Base class of methods. Only :meth:`fit` is required.

    A method sees no test label, with one exception: where ``uses_test_labels`` is true (its name must then begin with
    ``oracle``) the predictor is called as ``predictor(inputs, targets)``.
    """

    name: ClassVar[str]
    description: ClassVar[str] = ""
    section: ClassVar[str | None] = None
    """Name of the settings section; methods may share one. None: no settings."""
    Settings: ClassVar[type | None] = None
    """A frozen dataclass of plain values; its optional class attribute ``presets`` maps preset to {key: value}."""
    reads: ClassVar[Sequence[str]] = ()
    """Further sections whose values this method depends on, beside its own and the core's."""
    uses_test_labels: ClassVar[bool] = False
    tasks: ClassVar[Sequence[str]] = ()
    """Names of the tasks it is made for; empty: any. Tables of other tasks have no such row unless it is asked for by name."""
    default: ClassVar[bool] = True
    """Whether the method runs when ``--methods`` is not given; ``all`` runs every one."""

    def fit(self, context: Context) -> Predictor | Callable[..., Any]:
        """Prepare on training and validation samples and return the predictor.

        Raises:
            NotApplicable: if the method cannot run as named here; the message becomes the cell's reason.
        """
        raise NotImplementedError
