"""What the test-time adaptation methods share: entropy, norm layers, the classifier, models that learn from the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Predictor
from ocd_bench.seeds import derive

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the softmax of ``logits`` ``(..., K)``, shape ``(...)``."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def probe(context: Context, count: int = 4) -> torch.Tensor:
    """A few validation inputs, to see what a model does with them."""
    return context.val.inputs[:count].to(context.device)


def class_count(context: Context) -> int:
    """K of the base's class logits ``(N, K)``.

    Raises:
        NotApplicable: if the task gives no class posterior.
    """
    with torch.no_grad():
        logits = context.task.logits(context.base(probe(context)))
    if logits is None:
        raise NotApplicable(f"no class posterior: task {context.task.name!r} gives no logits")
    if logits.shape[-1] < 2:
        raise NotApplicable(f"no class posterior: task {context.task.name!r} gives one logit, whose entropy is always zero")
    return logits.shape[-1]


def find_layers(model: nn.Module, kinds: Sequence[type[nn.Module]], affine: bool = True) -> list[nn.Module]:
    """Layers of ``model`` of the given kinds, in the model's own order; ``affine``: only those with scale and shift.

    Raises:
        NotApplicable: if there is none.
    """
    names = "/".join(kind.__name__ for kind in kinds)
    found = [module for module in model.modules() if isinstance(module, tuple(kinds))]
    if not found:
        raise NotApplicable(f"no {names} layer in {type(model).__name__}")
    if affine:
        found = [layer for layer in found if layer.weight is not None]
        if not found:
            raise NotApplicable(f"no {names} layer with scale and shift in {type(model).__name__}")
    return found


def use_batch_statistics(model: nn.Module, kinds: Sequence[type[nn.Module]] = BATCH_NORMS) -> None:
    """Make the batch norm layers of these kinds normalise by the batch, in train and eval mode alike."""
    for layer in model.modules():
        if isinstance(layer, tuple(kinds)):
            layer.track_running_stats = False  # type: ignore[assignment]
            layer.running_mean = layer.running_var = None  # type: ignore[assignment]


def scale_and_shift(layers: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Weights and biases of norm layers."""
    return [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]  # type: ignore[misc]


class BatchModel:
    """Runs a model that normalises by batch statistics.

    A lone sample of which some layer has a single value per channel has no such statistics; it is run together with the
    sample before it in the stream. This happens at the end of a test set at most.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before: torch.Tensor | None = None

    def reset(self) -> None:
        self._before = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs for ``inputs``.

        Raises:
            NotApplicable: for a lone sample without statistics that is the first of its stream.
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
    """A model that learns from the test stream, batch by batch; subclasses say how in :meth:`adapt`.

    Args:
        context: for the seed of the model's own randomness (dropout in train mode), which is fixed per method and batch.
        name: the method's.
        model: the method's own copy, configured (modes, which parameters need gradients).
        weights: the parameters that are updated.
        optimizer: makes an optimizer of them.
    """

    def __init__(
        self, context: Context, name: str, model: nn.Module, weights: list[nn.Parameter], optimizer: Optimizer
    ) -> None:
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
        self.reset()

    def restore(self) -> None:
        """Model and optimizer as they were at construction."""
        with torch.no_grad():
            for tensor, value in self._saved:
                tensor.copy_(value)
        self.optimizer = self._make_optimizer(self.weights)

    def reset(self) -> None:
        self.restore()
        self.model.reset()
        self._batches = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad(), self.seeded(self._batches):
            output = self.adapt(inputs)
        self._batches += 1
        self.optimizer.zero_grad()
        return output.detach()

    @contextmanager
    def seeded(self, what: object) -> Iterator[None]:
        """A random stream of its own for what the model draws (dropout)."""
        with torch.random.fork_rng(devices=self._devices):
            torch.manual_seed(derive(*self._stream, what))
            yield

    def entropy(self, output: torch.Tensor) -> torch.Tensor:
        """Entropies ``(N,)`` of the posterior of an output."""
        return entropy(self.logits(output))  # type: ignore[arg-type]

    def slopes(self, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of ``loss`` by the weights, zero for a weight that the forward did not use."""
        return torch.autograd.grad(loss, self.weights, allow_unused=True, materialize_grads=True)

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step down ``loss``."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def adapt(self, inputs: torch.Tensor) -> torch.Tensor:
        """Learn from one batch and return its output."""
        raise NotImplementedError


class Classifier:
    """The base up to its last linear layer, for methods that work on features and class logits.

    Raises:
        NotApplicable: if the task gives no class posterior, the output is not the logits themselves, or they do not come
            straight from a linear layer of one feature vector a sample.
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
        if logits is None or not same(logits, output):
            raise NotApplicable(f"outputs of task {context.task.name!r} are not plain class logits")
        last = [name for name, value in outputs.items() if same(value, logits) and self._inputs[name].ndim == 2]
        if not last:
            raise NotApplicable(f"the logits of {type(self._model).__name__} do not come from a Linear layer")
        self.layer = linear[last[-1]]
        """The last linear layer, weight ``(K, D)``."""
        self._inputs.clear()
        self.layer.register_forward_pre_hook(lambda module, args: self._inputs.update(features=args[0]))

    def __call__(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(N, D)`` and logits ``(N, K)``, without gradients."""
        with torch.no_grad():
            logits = self._model(inputs)
        return self._inputs.pop("features"), logits


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have one shape and the same values."""
    return a.shape == b.shape and torch.equal(a, b)
