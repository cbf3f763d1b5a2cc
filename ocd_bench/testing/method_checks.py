"""Checks of the contract of :class:`ocd_bench.Method`, on two small tasks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ocd_bench.compose import Composed, Leader, led
from ocd_bench.config import PRESETS, resolve
from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.plugin.validate import method_problem
from ocd_bench.samples import Samples
from ocd_bench.testing.result import Blocked, Check, CheckResult, Doubt, Fault, raised, require, run_checks
from ocd_bench.testing.toy import BATCH, TOYS, ToyTask, toy_context
from ocd_bench.testing.trial import close, same


def check_method(method: Method, *, overrides: Mapping[str, Any] | None = None) -> list[CheckResult]:
    """Run every check of a method under the preset ``quick``; it is fitted twice on each toy task.

    Args:
        method: an instance.
        overrides: settings by dotted key, as for ``--set``. Use them if the preset is too slow for a test.

    .. versionadded:: 0.1
    """
    return run_checks(METHOD_CHECKS, MethodTrial(method, overrides))


@dataclass
class Fitted:
    """One fit of a method on a toy task, and its results."""

    context: Context
    test: Samples
    predictor: Any
    outputs: torch.Tensor
    before: dict[str, torch.Tensor]
    loads: int


@dataclass
class MethodTrial:
    """State that the checks of one method share."""

    method: Method
    overrides: Mapping[str, Any] | None = None
    _fits: dict[tuple[str, bool, int], Fitted | BaseException] = field(default_factory=dict)

    def fitted(self, toy: str, scrambled: bool = False, disturbance: int = 1) -> Fitted:
        """The method fitted on a toy task, under a global torch seed that must have no effect.

        Raises:
            NotApplicable: if the method raises it.
            Blocked: if the same fit failed in an earlier check.
        """
        problem = method_problem(self.method)
        if problem:
            raise Blocked("needs a valid declaration")
        key = (toy, scrambled, disturbance)
        if key not in self._fits:
            try:
                self._fits[key] = self._fit(TOYS[toy](scrambled), disturbance)
            except (Exception, SystemExit) as error:
                self._fits[key] = error
                raise
        result = self._fits[key]
        if isinstance(result, NotApplicable):
            raise result
        if isinstance(result, BaseException):
            raise Blocked(f"needs fit: {result if isinstance(result, Fault) else raised(result)}")
        return result

    def _fit(self, task: ToyTask, disturbance: int) -> Fitted:
        context, test = toy_context(task, self.method, self.overrides)
        before = copy.deepcopy(context.base.state_dict())
        known = task.loads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(disturbance)
            predictor = self.method.fit(context)
            require(
                callable(predictor), f"fit returned a {type(predictor).__name__}: return a Predictor, or a function of inputs"
            )
            outputs = self.predict(predictor, test)
        return Fitted(context, test, predictor, outputs, before, task.loads - known)

    def predict(self, predictor: Any, test: Samples) -> torch.Tensor:
        """Outputs for the test samples, predicted in batches as the runner does."""
        if hasattr(predictor, "reset"):
            predictor.reset()
        outputs = []
        for begin in range(0, len(test), BATCH):
            batch = test.take(slice(begin, begin + BATCH))
            inputs = batch.inputs.clone()
            output = predictor(inputs, batch.targets.clone()) if self.method.uses_test_labels else predictor(inputs)
            require(isinstance(output, torch.Tensor), f"the predictor returns a {type(output).__name__}: return one tensor")
            require(same(inputs, batch.inputs), "the predictor writes into its input: change a copy")
            require(
                len(output) == len(inputs),
                f"a batch of {len(inputs)} samples gives {len(output)} outputs: return one row for each, for a last batch of "
                "one too",
            )
            outputs.append(output.detach().clone())
        return torch.cat(outputs)


def _on_toys(trial: MethodTrial, check: Callable[[str], str]) -> str:
    """Run a check on each toy task to which the method applies."""
    notes, refusals = [], 0
    for toy in TOYS:
        try:
            text = check(toy)
        except NotApplicable:
            refusals += 1  # check_fit reports the reason
            continue
        except Fault as fault:
            raise Fault(f"on {toy}: {fault}") from fault
        if text:
            notes.append(f"{toy}: {text}")
    return "; ".join(notes) if refusals < len(TOYS) else "nothing to check, it applies to no toy task"


def check_declaration(trial: MethodTrial) -> str:
    """Name, section, settings and presets are declared correctly."""
    problem = method_problem(trial.method)
    require(problem is None, str(problem))
    for preset in PRESETS:
        resolve(TOYS["toy-values"](False), [trial.method], preset)
    return trial.method.name


def check_fit(trial: MethodTrial) -> str:
    """A predictor, or :class:`NotApplicable` with its reason."""

    refusals = []

    def check(toy: str) -> str:
        try:
            trial.fitted(toy)
        except NotApplicable as reason:
            require(bool(str(reason).strip()), "NotApplicable has no reason: give one, it becomes the cell's")
            refusals.append(str(reason))
            return f"not applicable ({reason})"
        return "fitted"

    notes = _on_toys(trial, check)
    if len(refusals) == len(TOYS):
        raise Doubt(f"{notes}: nothing else could be checked here")
    return notes


def check_output(trial: MethodTrial) -> str:
    """Outputs have the shape of the base model's, and are finite."""

    def check(toy: str) -> str:
        fit = trial.fitted(toy)
        with torch.no_grad():
            base = fit.context.base(fit.test.inputs)
        require(
            fit.outputs.shape == base.shape and fit.outputs.is_floating_point(),
            f"the predictor gives {fit.outputs.dtype} {tuple(fit.outputs.shape)}, the base {tuple(base.shape)}: return outputs "
            "of the base model's form",
        )
        require(bool(torch.isfinite(fit.outputs).all()), "the predictor's outputs are not finite")
        return ""

    return _on_toys(trial, check)


def check_base_unchanged(trial: MethodTrial) -> str:
    """The shared base is unchanged: weights, buffers, mode, gradients, hooks."""

    def check(toy: str) -> str:
        fit = trial.fitted(toy)
        base, cure = fit.context.base, "change a copy, context.fresh_base()"
        state = base.state_dict()
        for name, value in fit.before.items():
            require(name in state and same(state[name], value), f"{name!r} of context.base changed: {cure}")
        require(not any(module.training for module in base.modules()), f"context.base was put into train mode: {cure}")
        require(not any(p.requires_grad for p in base.parameters()), f"context.base was given gradients: {cure}")
        hooks = [name for name, module in base.named_modules() if module._forward_hooks or module._forward_pre_hooks]
        require(not hooks, f"hooks were left on context.base ({', '.join(name or 'the model' for name in hooks)}): {cure}")
        return ""

    return _on_toys(trial, check)


def check_no_test_samples(trial: MethodTrial) -> str:
    """``fit`` loads no data, and no prediction depends on test labels."""

    def check(toy: str) -> str:
        fit = trial.fitted(toy)
        require(fit.loads == 0, "it calls task.load_data: use context.train and context.val, test samples are not for methods")
        if trial.method.uses_test_labels:
            return "uses test labels, as its name says"
        other = trial.fitted(toy, scrambled=True)
        require(close(fit.outputs, other.outputs), "predictions depend on the labels of test samples")
        return ""

    return _on_toys(trial, check)


def check_repeatable(trial: MethodTrial) -> str:
    """A second fit, and a second pass of one predictor, give the same predictions under any global torch seed."""

    def check(toy: str) -> str:
        fit, again = trial.fitted(toy), trial.fitted(toy, disturbance=2)
        require(
            close(fit.outputs, again.outputs),
            "a second fit gives other predictions: draw from context.generator(method, purpose), and where a module draws its "
            "own weights, seed torch inside torch.random.fork_rng()",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            second = trial.predict(again.predictor, again.test)
        require(
            close(again.outputs, second),
            "a second pass over the test samples gives other predictions: clear the predictor's state in Predictor.reset()",
        )
        return ""

    return _on_toys(trial, check)


def check_costs(trial: MethodTrial) -> str:
    """``parameters`` is a count, and ``detail`` can be written as JSON."""

    def check(toy: str) -> str:
        predictor = trial.fitted(toy).predictor
        count = getattr(predictor, "parameters", 0)
        require(isinstance(count, int) and count >= 0, f"parameters is {count!r}: make it the number of added parameters")
        detail = getattr(predictor, "detail", {})
        require(isinstance(detail, Mapping), f"detail is a {type(detail).__name__}: make it a mapping of plain values")
        try:
            json.dumps(dict(detail), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Fault(f"detail cannot be written as JSON ({error}): use plain finite values only") from error
        return f"{count} parameters"

    return _on_toys(trial, check)


def check_first_of_two(trial: MethodTrial) -> str:
    """As the first method of ``A+B``: the model handed over gives the outputs of the call, sample by sample."""
    if not trial.method.leads:
        return "it cannot be the first"

    def check(toy: str) -> str:
        fit = trial.fitted(toy)
        names = dict(fit.context.base.named_modules())
        predictor: Any = trial.method.fit(fit.context)
        model = predictor.hand_over()
        require(isinstance(model, torch.nn.Module), f"hand_over returns a {type(model).__name__}: return a module")
        lost = [name for name in names if name not in dict(model.named_modules())]
        require(not lost, f"the model handed over has no {', '.join(lost)}: keep the base's layers under their names")
        require(not any(module.training for module in model.modules()), "the model handed over is in train mode: call eval()")
        if hasattr(predictor, "reset"):
            predictor.reset()
        for start in range(0, len(fit.test), BATCH):
            inputs = fit.test.inputs[start : start + BATCH]
            output = predictor(inputs.clone())
            with torch.no_grad():
                again = model(inputs)
                alone = torch.cat([model(row) for row in inputs.split(1)])
            require(close(output, again), "the model handed over gives other outputs than the call before it")
            require(close(again, alone), "the model handed over is not sample-wise: hold statistics of the batch fixed in it")
        return ""

    return _on_toys(trial, check)


class _Restless(Predictor):
    """The base at the first batch of a stream; with larger weights at every later one."""

    def __init__(self, context: Context) -> None:
        self.model, self._base, self._batches = context.fresh_base(), context.base, 0

    def hand_over(self) -> torch.nn.Module:
        return self.model

    def reset(self) -> None:
        self._batches = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for own, other in zip(self.model.parameters(), self._base.parameters(), strict=True):
                own.copy_(other * (1 + self._batches))
            self._batches += 1
            return self.model(inputs)


class _RestlessMethod(Method):
    name = "restless"
    leads = True

    def fit(self, context: Context) -> Predictor:
        return _Restless(context)


def check_second_of_two(trial: MethodTrial) -> str:
    """As the second method of ``A+B``: fit and predictor run ``context.base`` itself, as it is for each batch."""
    if not trial.method.follows:
        return "it cannot be the second"

    def check(toy: str) -> str:
        fit = trial.fitted(toy)
        context, test = toy_context(TOYS[toy](False), trial.method, trial.overrides)
        leader = Leader(_RestlessMethod(), context)
        try:
            follower = trial.method.fit(led(context, "restless", leader.model, {}))
        except NotApplicable as reason:
            raise Fault(f"cannot be fitted on the model of another method ({reason})") from reason
        outputs = trial.predict(Composed(leader, follower), test)
        require(
            close(outputs[:BATCH], fit.outputs[:BATCH]),
            "on a first method that has changed nothing yet, its predictions are others than alone",
        )
        require(
            not close(outputs[BATCH:], fit.outputs[BATCH:]),
            "its predictions do not follow the first method: run context.base itself in the predictor, not a copy of it",
        )
        return ""

    return _on_toys(trial, check)


METHOD_CHECKS: Mapping[str, Check] = {
    "declaration": check_declaration,
    "fit": check_fit,
    "output": check_output,
    "base-unchanged": check_base_unchanged,
    "no-test-samples": check_no_test_samples,
    "repeatable": check_repeatable,
    "costs": check_costs,
    "first-of-two": check_first_of_two,
    "second-of-two": check_second_of_two,
}
"""Every check of a method."""
