"""MEMO, which adapts all samples at once, against a loop that fine-tunes a copy of the model for each."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.methods.memo import Memo, MemoSettings
from ocd_bench.methods.views import PROBED
from ocd_bench.task import Task
from tests.toy import ToyClasses, held_out, make_context

SETTINGS = MemoSettings(lr=0.1, copies=6, chunk=4)


def memo_loop(context, inputs: torch.Tensor, settings: MemoSettings) -> torch.Tensor:
    """Sample by sample with autograd and torch.optim, on the same copies."""
    generator = context.generator("memo", "augment")
    outputs = []
    for part in inputs.split(settings.chunk):
        repeated = part.repeat_interleave(settings.copies, 0)
        copies = context.task.augment(repeated, torch.zeros(len(repeated), dtype=torch.long), generator)[0]
        for sample, views in zip(part, copies.split(settings.copies), strict=True):
            model = copy.deepcopy(context.base).requires_grad_(True)
            optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr)
            for _ in range(settings.steps):
                mean = model(views).softmax(1).mean(0)
                optimizer.zero_grad()
                (-(mean * mean.log()).sum()).backward()
                optimizer.step()
            outputs.append(model(sample[None]).detach())
    return torch.cat(outputs)


@pytest.mark.parametrize("steps", [1, 2])
def test_equals_one_copy_of_the_model_per_sample(steps: int):
    settings = MemoSettings(lr=0.1, copies=6, chunk=4, steps=steps)
    context = make_context(ToyClasses(), settings={"memo": settings}, dtype=torch.float64)
    inputs = held_out(context.task).inputs[:9].double()  # two chunks and a last one of a single sample
    output = Memo().fit(context)(inputs)
    torch.testing.assert_close(output, memo_loop(context, inputs, settings))
    assert (output - context.base(inputs)).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_the_others():
    class Still(ToyClasses):
        def augment(self, inputs, targets, generator):
            return inputs.flip(-1), targets

    context = make_context(Still(), settings={"memo": SETTINGS}, dtype=torch.float64)
    inputs = held_out(context.task).inputs[:6].double()
    predictor = Memo().fit(context)
    together = predictor(inputs)
    alone = torch.cat([predictor(row[None]) for row in inputs])
    torch.testing.assert_close(together, alone)


def test_the_loss_is_the_entropy_of_the_mean_prediction_and_a_step_lowers_it():
    context = make_context(ToyClasses(), settings={"memo": SETTINGS}, dtype=torch.float64)
    predictor = Memo().fit(context)
    views = predictor._copies(held_out(context.task).inputs[:1].double())[0]
    before = predictor._loss(predictor._weights, views)
    slopes = torch.func.grad(predictor._loss)(predictor._weights, views)
    after = predictor._loss({k: w - 1e-3 * slopes[k] for k, w in predictor._weights.items()}, views)
    mean = context.base(views).softmax(1).mean(0)
    torch.testing.assert_close(before, torch.distributions.Categorical(mean).entropy())
    assert after < before


def test_augment_is_given_zeros_for_labels():
    seen: list[torch.Tensor] = []

    class Spy(ToyClasses):
        def augment(self, inputs, targets, generator):
            seen.append(targets.clone())
            return super().augment(inputs, targets, generator)

    context = make_context(Spy(), settings={"memo": SETTINGS})
    Memo().fit(context)(held_out(context.task).inputs[:5])
    assert [len(targets) for targets in seen] == [PROBED, 24, 6]  # one sample to see whether it changes, then the chunks
    assert all(targets.dtype == torch.long and not targets.any() for targets in seen)


def test_changes_taken_from_other_samples_are_refused():
    class Swapped(ToyClasses):
        def augment(self, inputs, targets, generator):
            return inputs[torch.randperm(len(inputs), generator=generator)], targets

    with pytest.raises(NotApplicable, match="only with other samples of its batch"):
        Memo().fit(make_context(Swapped(), settings={"memo": SETTINGS}))


def test_an_augmentation_that_often_changes_nothing_is_accepted_with_one_copy():
    class Mirrored(ToyClasses):
        def augment(self, inputs, targets, generator):
            mirror = torch.rand(len(inputs), generator=generator) < 0.1
            return torch.where(mirror[:, None, None, None], inputs.flip(-1), inputs), targets

    settings = MemoSettings(lr=0.1, copies=1)
    context = make_context(Mirrored(), settings={"memo": settings})
    assert len(Memo().fit(context)(held_out(context.task).inputs[:5])) == 5


def test_a_recurrent_model():
    class Last(nn.Module):
        def forward(self, output):
            return output[0][:, -1]

    class Recurrent(ToyClasses):
        def base_model(self, splits, request):
            layers = OrderedDict(rows=nn.Flatten(1, 2), lstm=nn.LSTM(6, 5, batch_first=True), end=Last(), last=nn.Linear(5, 3))
            return nn.Sequential(layers)

        def select_layer(self, model, request):
            return "last"

    context = make_context(Recurrent(), settings={"memo": SETTINGS}, steps=10, dtype=torch.float64)
    inputs = held_out(context.task).inputs[:5].double()
    predictor = Memo().fit(context)
    torch.testing.assert_close(predictor(inputs), memo_loop(context, inputs, SETTINGS))


def test_a_task_without_augmentation_is_not_applicable():
    class Fixed(ToyClasses):
        augment = Task.augment

    with pytest.raises(NotApplicable, match="no augmentation: task 'toy-classes'"):
        Memo().fit(make_context(Fixed(), steps=1))


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match=r"memo\.copies=0"):
        MemoSettings(copies=0)


def test_views_of_the_task_come_before_its_augmentation() -> None:
    class Seen(ToyClasses):
        def augment(self, inputs, targets, generator):
            raise AssertionError("not asked for")

        def views(self, inputs, generator):
            return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)

    context = make_context(Seen(), settings={"memo": MemoSettings(copies=4)})
    predictor = Memo().fit(context)
    inputs = held_out(context.task).inputs[:5]
    copies = predictor._copies(inputs)
    assert copies.shape == (5, 4, *inputs.shape[1:])
    assert 0.05 < (copies - inputs.unsqueeze(1)).std() < 0.2
    assert predictor(inputs).shape == (5, 3)
