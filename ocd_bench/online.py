"""Building blocks for test-time adaptation: models that learn from the test stream, norm layers, the classifier, entropy.

The built-in methods of the Tent family are made of these, and so can yours be; docs/plugins.md has a method of forty lines.
Importing this module imports torch, so import it inside the module of your method, not in the one that registers it.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ocd_bench.errors import NotApplicable
from ocd_bench.handover import HandOver
from ocd_bench.method import Context, Predictor
from ocd_bench.seeds import derive

__all__ = [
    "BATCH_NORMS",
    "NORMS",
    "BatchModel",
    "Classifier",
    "Online",
    "Optimizer",
    "class_count",
    "entropy",
    "find_layers",
    "keep_group_norms_contiguous",
    "probe",
    "scale_and_shift",
    "use_batch_statistics",
]

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""A function that makes an optimizer of a list of parameters."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""The batch norm layers."""

NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
"""Batch, layer and group norm layers."""


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the class probabilities ``softmax(logits)``, in nats.

    Args:
        logits: class logits ``(..., K)``.

    Returns:
        Entropies ``(...)``, between 0 and ln K.

    Example:
        >>> import torch
        >>> entropy(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        tensor([0.6931, 0.0012])
    """
    log_p = logits.log_softmax(-1)  # (..., K)
    return -(log_p.exp() * log_p).sum(-1)


def probe(context: Context, count: int = 4) -> torch.Tensor:
    """The first ``count`` validation inputs ``(count, ...)`` on the context's device, to try a model on."""
    return context.val.inputs[:count].to(context.device)


def class_count(context: Context) -> int:
    """The number of classes K of the base's class logits ``(N, K)``.

    Raises:
        NotApplicable: if the task has no class logits (``Task.logits``), or only one.
    """
    with torch.no_grad():
        logits = context.task.logits(context.base(probe(context)))
    if logits is None:
        raise NotApplicable(f"no class posterior: task {context.task.name!r} gives no logits")
    if logits.shape[-1] < 2:
        raise NotApplicable(f"no class posterior: task {context.task.name!r} gives one logit, whose entropy is always zero")
    return logits.shape[-1]


def find_layers(model: nn.Module, kinds: Sequence[type[nn.Module]], affine: bool = True) -> list[nn.Module]:
    """The layers of ``model`` that are of one of the given kinds, in the order of ``model.modules()``.

    Args:
        model: where to look.
        kinds: layer classes, such as :data:`NORMS`.
        affine: take only layers that have a scale (``weight is not None``).

    Raises:
        NotApplicable: if there is none.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False))
        >>> len(find_layers(model, NORMS)), len(find_layers(model, NORMS, affine=False))
        (1, 2)
    """
    names = "/".join(kind.__name__ for kind in kinds)
    layers = [module for module in model.modules() if isinstance(module, tuple(kinds))]
    if not layers:
        raise NotApplicable(f"no {names} layer in {type(model).__name__}")
    if affine:
        layers = [layer for layer in layers if layer.weight is not None]
        if not layers:
            raise NotApplicable(f"no {names} layer with scale and shift in {type(model).__name__}")
    return layers


def use_batch_statistics(model: nn.Module, kinds: Sequence[type[nn.Module]] = BATCH_NORMS) -> None:
    """Make batch norm layers of these kinds normalise by the statistics of the batch, in train and eval mode alike.

    The running statistics of the training set are dropped; ``model`` is changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, tuple(kinds)):
            layer.track_running_stats = False  # type: ignore[assignment]
            layer.running_mean = layer.running_var = None  # type: ignore[assignment]


def set_tent_mode(model: nn.Module, dropout: bool) -> None:
    """The mode of Tent, EATA and SAR: BatchNorm2d layers use the statistics of the batch.

    Args:
        model: changed in place.
        dropout: put the whole model in train mode, as the authors' code does, so that dropout and dropped paths are active and
            other batch norm layers use the batch too. Otherwise the rest of the model stays in eval mode.
    """
    model.train(dropout)
    use_batch_statistics(model, (nn.BatchNorm2d,))


def keep_group_norms_contiguous(model: nn.Module) -> None:
    """Make group norm layers of ``model`` copy inputs that are not in the default memory format.

    On a CPU the backward pass of torch 2.11 through a group norm of a channels-last tensor ends the process with a segmentation
    fault. Values do not change; ``model`` is changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, nn.GroupNorm) and not hasattr(layer, "_keeps_contiguous"):
            layer.register_forward_pre_hook(_contiguous)
            layer._keeps_contiguous = True  # type: ignore[assignment]


def _contiguous(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].contiguous(), *args[1:])


def scale_and_shift(layers: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The weights and biases of norm layers.

    Example:
        >>> [p.shape for p in scale_and_shift([nn.BatchNorm1d(3), nn.LayerNorm(4, bias=False)])]
        [torch.Size([3]), torch.Size([3]), torch.Size([4])]
    """
    return [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]  # type: ignore[misc]


class BatchModel:
    """Runs a model that normalises by batch statistics, on batches of one sample too.

    A single sample has no batch statistics where a layer sees one value per channel. It is then run together with the sample
    before it in the stream. This can happen only in the last batch of a test set.

    Args:
        model: the model, in the mode it shall run in.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before: torch.Tensor | None = None  # (1, ...): the last sample of the stream so far

    def reset(self) -> None:
        """Forget the stream."""
        self._before = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``(N, ...)`` for ``inputs`` ``(N, ...)``.

        Raises:
            NotApplicable: if a single sample without batch statistics is the first of its stream.
        """
        if len(inputs) > 1:
            self._before = inputs[-1:]
            return self.model(inputs)
        try:
            return self.model(inputs)
        except ValueError as error:
            if self._before is None:
                raise NotApplicable(f"no batch statistics of a single sample ({error}); take run.batch_size above 1") from error
            return self.model(torch.cat([self._before, inputs]))[-1:]


class Online(Predictor):
    """A predictor whose model learns from the test stream, batch by batch. Subclasses define :meth:`adapt`.

    It saves model and optimizer at construction, restores them before each test set, runs :meth:`adapt` with gradients
    enabled and with a random stream of its own (dropout in train mode), and detaches the output.

    Args:
        context: what :meth:`ocd_bench.Method.fit` was given.
        name: the method's name; the random stream derives from it.
        model: a copy of the base (``context.fresh_base()``), in the mode it shall run in.
        weights: those of its parameters that are updated; all others get no gradient.
        optimizer: makes an optimizer of ``weights``.

    Attributes:
        model: the model as a :class:`BatchModel`: call it with a batch.
        weights: as given.
        optimizer: made of ``weights``, anew at every :meth:`restore`.
        logits: the task's function from outputs to class logits.
        detail: goes into the cell file; ``adapted_parameters`` is in it.
    """

    def __init__(
        self, context: Context, name: str, model: nn.Module, weights: list[nn.Parameter], optimizer: Optimizer
    ) -> None:
        keep_group_norms_contiguous(model)
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        self.model = BatchModel(model)
        self.weights = weights
        self.logits = context.task.logits
        self.detail: dict[str, Any] = {"adapted_parameters": sum(weight.numel() for weight in weights)}
        self._make_optimizer = optimizer
        self._saved = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
        request = context.request
        self._stream = (request.task, request.dataset, name, request.seed, "stream")
        self._devices = [context.device] if context.device.type == "cuda" else []
        self._handed: HandOver | None = None
        self.reset()

    def restore(self) -> None:
        """Put model and optimizer back to their state at construction."""
        with torch.no_grad():
            for tensor, value in self._saved:
                tensor.copy_(value)
        self.optimizer = self._make_optimizer(self.weights)

    def reset(self) -> None:
        """Restore, and begin a new test stream."""
        self.restore()
        self.model.reset()
        self._batches = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """What :meth:`adapt` returns for the next batch, detached."""
        with torch.enable_grad(), self.seeded(self._batches):
            output = self.adapt(inputs)
        if self._handed is not None:
            self._handed.settle(output)
        self._batches += 1
        self.optimizer.zero_grad()
        return output.detach()

    def hand_over(self) -> nn.Module:
        """The model as it was when it gave the output of the last batch, for the second method of ``A+B``."""
        if self._handed is None:
            self._handed = HandOver(self.model.model, self.weights)
        return self._handed.copy

    @contextmanager
    def seeded(self, what: object) -> Iterator[None]:
        """Within this context the global torch generator has a seed of its own, derived from the cell and ``what``."""
        with torch.random.fork_rng(devices=self._devices):
            torch.manual_seed(derive(*self._stream, what))
            yield

    def entropy(self, output: torch.Tensor) -> torch.Tensor:
        """Entropies ``(N,)`` of the class probabilities of outputs ``(N, ...)``, in nats."""
        return entropy(self.logits(output))  # type: ignore[arg-type]

    def slopes(self, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of a scalar ``loss`` by :attr:`weights`; zero for a weight that the loss does not depend on."""
        return torch.autograd.grad(loss, self.weights, allow_unused=True, materialize_grads=True)

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step on a scalar ``loss``."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def adapt(self, inputs: torch.Tensor) -> torch.Tensor:
        """Learn from one batch ``(N, ...)`` and return its outputs ``(N, ...)``, which may carry gradients."""
        raise NotImplementedError


class Classifier:
    """The base, split before its last linear layer, for methods that work on features and class logits.

    Args:
        context: what :meth:`ocd_bench.Method.fit` was given; the base is copied.

    Attributes:
        layer: the last linear layer, weight ``(K, D)``.

    Raises:
        NotApplicable: if the task has no class logits, if the base's output is not the logits themselves, or if no linear
            layer computes them from one feature vector per sample.
    """

    def __init__(self, context: Context) -> None:
        class_count(context)
        self._model = context.fresh_base()
        self._inputs: dict[str, torch.Tensor] = {}
        outputs: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                self._inputs[name], outputs[name] = args[0], output

            return hook

        linear = {name: module for name, module in self._model.named_modules() if isinstance(module, nn.Linear)}
        hooks = [module.register_forward_hook(keep(name)) for name, module in linear.items()]
        with torch.no_grad():
            output = self._model(probe(context))
        for hook in hooks:
            hook.remove()
        logits = context.task.logits(output)
        if logits is None or not _equal(logits, output):
            raise NotApplicable(f"outputs of task {context.task.name!r} are not plain class logits")
        last = [name for name, value in outputs.items() if _equal(value, logits) and self._inputs[name].ndim == 2]
        if not last:
            raise NotApplicable(f"the logits of {type(self._model).__name__} do not come from a Linear layer")
        self.layer = linear[last[-1]]
        self._inputs.clear()
        self.layer.register_forward_pre_hook(lambda module, args: self._inputs.update(features=args[0]))

    def __call__(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(N, D)`` and logits ``(N, K)`` of a batch ``(N, ...)``, without gradients."""
        with torch.no_grad():
            logits = self._model(inputs)
        return self._inputs.pop("features"), logits


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
