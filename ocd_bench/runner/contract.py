"""The contract of tasks and methods, checked before anything is trained and after each method.

A task that breaks its contract is reported before training, in one line: the place, what was expected, and how to examine it.
A method must not change what it shares with other methods: the base model, the samples, the state of torch and of the process.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from ocd_bench.errors import OCDBenchError, Terminated, UsageError
from ocd_bench.metrics import primary_metric
from ocd_bench.runner.blame import Blame, message_of, printable
from ocd_bench.samples import Samples, Splits
from ocd_bench.task import Request, Task

T = TypeVar("T")
PROBE = 4
"""Number of validation samples for the check of the untrained base model, the loss and the metrics before training."""


class Broken(UsageError):
    """A member of a task breaks its contract."""


class TaskContract:
    """Calls members of a task and checks what they return.

    Args:
        task: the task.
        blame: finds plugin, file and line.
    """

    def __init__(self, task: Task, blame: Blame) -> None:
        self.task, self.blame = task, blame

    def call(self, member: str, action: Callable[[], T]) -> T:
        """The result of ``action``.

        Raises:
            Broken: if it raises any error, except for those that OCD-Bench raises on purpose, which are passed on.
        """
        try:
            return action()
        except (OCDBenchError, Terminated):
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not _is_plugin_frame(error):
                raise
            where = self.blame.of_error(error, self.task)
            raise Broken(self._say(f"{member} raised {message_of(error)}", where)) from error

    def excerpt(self, samples: Samples, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Cheap parts of samples, see :meth:`ocd_bench.task.Task.excerpt`. An error names the member that the task has."""
        member = "subsample" if type(self.task).excerpt is Task.excerpt else "excerpt"
        return self.call(member, lambda: self.task.excerpt(samples.inputs, samples.targets, generator))

    def broken(self, member: str, found: str, expected: str) -> Broken:
        """The error for a member that returned ``found`` instead of ``expected``."""
        return Broken(self._say(f"{member} {found}, expected {expected}", self.blame.of_item(self.task, member)))

    def _say(self, what: str, where: str) -> str:
        return f"task {self.task.name!r} ({where}): {printable(what)}; {self.blame.how_to_check(self.task)}"

    # -- before training ----------------------------------------------------------------------------------------------
    def splits(self, value: Any) -> Splits:
        """``value`` if it is what ``load_data`` must return."""
        if not isinstance(value, Splits):
            raise self.broken("load_data", f"returned {type(value).__name__}", "ocd_bench.Splits(train, val, test)")
        for name in ("train", "val", "test"):
            samples = getattr(value, name)
            if len(samples) == 0:
                raise self.broken("load_data", f"returned no {name} samples", "at least one in each split")
            for what in ("inputs", "targets"):
                tensor = getattr(samples, what)
                if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
                    kind = f"{tensor.dtype} {tensor.layout}"
                    raise self.broken("load_data", f"returned {name} {what} of {kind}", "dense tensors of real numbers")
        return value

    def model(self, value: Any) -> torch.nn.Module:
        """``value`` if it is what ``base_model`` must return."""
        if not isinstance(value, torch.nn.Module):
            raise self.broken("base_model", f"returned {type(value).__name__}", "a torch.nn.Module")
        return value

    @torch.no_grad()
    def probe(self, model: torch.nn.Module, splits: Splits, request: Request, device: torch.device) -> None:
        """Run a few validation samples through the untrained model, the loss and the metrics. This has no effect on other
        random numbers, and the model is unchanged afterwards."""
        cuda = [device] if device.type == "cuda" else []
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        was_training = model.training
        with torch.random.fork_rng(devices=cuda):
            batch = splits.val.take(slice(0, PROBE))
            inputs, targets = self.call(
                "subsample", lambda: self.task.subsample(batch.inputs, batch.targets, request.generator("probe"))
            )
            inputs, targets = inputs.to(device), targets.to(device)
            output = self.call("base_model's forward", lambda: model.eval()(inputs))
            self._probe(inputs, targets, output)
        model.train(was_training)
        model.load_state_dict(state)

    def _probe(self, inputs: torch.Tensor, targets: torch.Tensor, output: Any) -> None:
        count = len(inputs)
        if not isinstance(output, torch.Tensor) or output.ndim == 0 or len(output) != count:
            raise self.broken("base_model", f"gave {_describe(output)} for {count} samples", f"one tensor ({count}, ...)")
        if not _is_finite(output):
            cause = "" if _is_finite(inputs) else " (load_data's inputs already hold NaN or infinity)"
            raise self.broken("base_model", f"untrained gave outputs that are not finite{cause}", "finite numbers")
        loss = self.call("loss", lambda: self.task.loss(output, targets))
        if not isinstance(loss, torch.Tensor) or loss.shape != (count,) or loss.is_complex():
            raise self.broken("loss", f"gave {_describe(loss)} for {count} samples", f"real numbers ({count},), one per sample")
        if not _is_finite(loss):
            raise self.broken("loss", "gave values that are not finite", "finite numbers for an untrained model")
        self.metrics(output, targets)

    def metrics(self, output: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The checked result of the task's metrics."""
        count = len(output)
        scores = self.call("metrics", lambda: self.task.metrics(output, targets))
        if not isinstance(scores, Mapping) or not scores:
            raise self.broken("metrics", f"gave {_describe(scores)}", f"{{name: ({count},)}}")
        for name, value in scores.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.shape != (count,):
                raise self.broken("metrics", f"gave {_describe(value)} for {name!r}", f"a tensor ({count},), one per sample")
            if value.is_complex():
                raise self.broken("metrics", f"gave complex numbers for {name!r}", "real numbers")
        try:
            primary_metric(self.task, scores)
        except UsageError as error:
            raise Broken(self._say(str(error), self.blame.of_item(self.task, "metrics"))) from error
        return scores


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"{type(value).__name__} {printable(repr(value), 60)}"


def _is_finite(value: torch.Tensor) -> bool:
    return bool(value.isfinite().all()) if value.is_floating_point() else True


def _is_plugin_frame(error: BaseException) -> bool:
    """Whether an exception was raised by a ``raise`` statement of the called code, and not by a signal during the call."""
    import linecache
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "raise" in linecache.getline(frames[-1].filename, frames[-1].lineno or 0)


# -- after each method --------------------------------------------------------------------------------------------------------
class Watch:
    """Detects changes of the state that a method must not change.

    Args:
        base: the shared base model.
        samples: the shared samples.
    """

    def __init__(self, base: torch.nn.Module, samples: list[Samples]) -> None:
        self.base, self.samples = base, samples
        self._base, self._samples = _model_digest(base), _samples_digest(samples)
        self._state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        self._shape = _module_shape(base)
        self.begin()

    def begin(self) -> None:
        """Record the present state of the process as the expected one."""
        self._process = _process_state()

    def changes(self) -> list[str]:
        """Descriptions of everything that has changed."""
        found = []
        if self._shape != _module_shape(self.base):
            found.append("hooks, training mode or requires_grad of the shared base model")
        if self._base != _model_digest(self.base):
            found.append("weights of the shared base model (change a copy: context.fresh_base())")
        if self._samples != _samples_digest(self.samples):
            found.append("samples that all methods share")
        found += [name for name, value in _process_state().items() if self._process[name] != value]
        return found

    def restore(self) -> None:
        """Restore the base model and the process, if the method ran in this process."""
        for module in self.base.modules():
            for name in _HOOKS:
                getattr(module, name).clear()
        self.base.load_state_dict(self._state)
        self.base.eval().requires_grad_(False)
        torch.set_default_dtype(self._process["torch's default dtype"])
        torch.set_grad_enabled(self._process["torch's gradient mode"])
        torch.set_num_threads(self._process["torch's number of threads"])

    @property
    def samples_are_changed(self) -> bool:
        """Whether the samples must be loaded again."""
        return self._samples != _samples_digest(self.samples)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _module_shape(model: torch.nn.Module) -> list[Any]:
    shape: list[Any] = [
        (name, type(module), module.training, *(len(getattr(module, hooks)) for hooks in _HOOKS), "forward" in vars(module))
        for name, module in model.named_modules()
    ]
    shape += [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
    common = torch.nn.modules.module
    shape.append([len(getattr(common, f"_global{name}", ())) for name in _HOOKS])
    return shape


def _model_digest(model: torch.nn.Module) -> str:
    return _digest(model.state_dict().values())


def _samples_digest(samples: list[Samples]) -> str:
    return _digest(tensor for part in samples for tensor in (part.inputs, part.targets))


def _digest(tensors: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")
    return digest.hexdigest()


def same_bytes(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal in type, shape and every bit, so that NaN equals NaN."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, two = (tensor.detach().contiguous().reshape(-1) for tensor in (first, second))
    return torch.equal(one.view(torch.uint8), two.view(torch.uint8)) if one.numel() else True


def _process_state() -> dict[str, Any]:
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "stdout": _stream_state(sys.stdout, 1),
        "stderr": _stream_state(sys.stderr, 2),
    }


def _stream_state(stream: Any, descriptor: int) -> Any:
    try:
        status = os.fstat(descriptor)
        place: Any = (status.st_dev, status.st_ino)
    except OSError:
        place = "closed"
    return id(stream), getattr(stream, "closed", None), place
