"""MixNorm, AugBN of SITA and TTN, against loops that follow their formulas sample by sample and channel by channel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ocd_bench.errors import NotApplicable
from ocd_bench.methods.settings import MixNormSettings, SitaSettings, TtnSettings
from ocd_bench.methods.ttn import Ttn, TtnLayers, prior
from ocd_bench.methods.view_statistics import MixNorm, Sita
from tests.toy import ToyClasses, ToyValues, held_out, make_context


class Still(ToyClasses):
    """A copy is the mirror image, so that copies need no random numbers."""

    def augment(self, inputs, targets, generator):
        return inputs.flip(-1), targets


class Channels(ToyClasses):
    def base_model(self, splits, request):
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def above(base: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """What follows the toy's norm layer."""
    return base.classifier(base.tanh(base.hidden(base.flatten(base.pool(base.relu(hidden))))))


def with_statistics(norm: nn.Module, rows: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    made = copy.deepcopy(norm)
    made.running_mean, made.running_var = mean, variance
    return made.eval()(rows)


def mixture(norm: nn.Module, values: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance per channel of values ``(rows, C, H, W)``, a share of them, beside the layer's own."""
    means, variances = [], []
    for channel in range(values.shape[1]):
        numbers = values[:, channel].flatten()
        mean = numbers.sum() / len(numbers)
        means.append((1 - share) * norm.running_mean[channel] + share * mean)
        variances.append((1 - share) * norm.running_var[channel] + share * ((numbers - mean) ** 2).sum() / len(numbers))
    return torch.stack(means), torch.stack(variances)


def test_sita_equals_a_loop_over_samples():
    settings = {"sita": SitaSettings(prior=0.7, copies=1)}
    context = make_context(Still(), settings=settings, dtype=torch.float64)
    base, inputs = context.base, held_out(context.task).inputs[:6].double()
    expected = []
    for sample in inputs:
        rows = base.conv(torch.stack([sample, sample.flip(-1)]))
        mean, variance = mixture(base.norm, rows, 0.3)
        expected.append(above(base, with_statistics(base.norm, rows[:1], mean, variance))[0])
    output = Sita().fit(context)(inputs)
    torch.testing.assert_close(output, torch.stack(expected))
    assert (output - base(inputs)).abs().max() > 1e-3


def test_mixnorm_moves_its_common_statistics_from_batch_to_batch():
    settings = {"mixnorm": MixNormSettings(share=0.2, speed=0.1)}
    context = make_context(Still(), settings=settings, dtype=torch.float64)
    base, inputs = context.base, held_out(context.task).inputs[:5].double()
    norm, expected = copy.deepcopy(base.norm), []
    for sample in inputs:  # batches of one
        rows = base.conv(torch.stack([sample, sample.flip(-1)]))
        mean, variance = mixture(norm, rows, 0.2)
        expected.append(above(base, with_statistics(norm, rows[:1], mean, variance))[0])
        norm.running_mean, norm.running_var = mixture(norm, rows, 0.1)
    predictor = MixNorm().fit(context)
    output = torch.cat([predictor(sample[None]) for sample in inputs])
    torch.testing.assert_close(output, torch.stack(expected))
    predictor.reset()
    torch.testing.assert_close(predictor(inputs[:1]), output[:1])
    assert (predictor(inputs[:1]) - output[:1]).abs().max() > 1e-6  # a reset forgets the stream, another batch moves it


def test_within_a_batch_samples_do_not_depend_on_one_another():
    settings = {"sita": SitaSettings(copies=0), "mixnorm": MixNormSettings()}
    context = make_context(Still(), settings=settings, dtype=torch.float64)
    inputs = held_out(context.task).inputs[:6].double()
    for method in (Sita(), MixNorm()):
        together = method.fit(context)(inputs)
        torch.testing.assert_close(method.fit(context)(inputs.flip(0)).flip(0), together)
        torch.testing.assert_close(method.fit(context)(inputs[:2]), together[:2])


def test_ttn_interpolates_between_base_and_batch_statistics():
    context = make_context(Still(), settings={"ttn": TtnSettings()}, dtype=torch.float64)
    base, inputs = context.base, held_out(context.task).inputs[:9].double()
    layers = TtnLayers(context)
    layers.alpha = layers.alpha.double()
    torch.testing.assert_close(layers(inputs), base(inputs))
    alpha = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    layers.alpha = alpha
    hidden = base.conv(inputs)
    rows = []
    for channel in range(4):
        numbers, share = hidden[:, channel], alpha[channel]
        source, found = base.norm.running_mean[channel], numbers.mean()
        mean = share * found + (1 - share) * source
        variance = share * ((numbers - found) ** 2).mean() + (1 - share) * base.norm.running_var[channel]
        variance = variance + share * (1 - share) * (found - source) ** 2
        standard = (numbers - mean) / (variance + base.norm.eps).sqrt()
        rows.append(base.norm.weight[channel] * standard + base.norm.bias[channel])
    torch.testing.assert_close(layers(inputs), above(base, torch.stack(rows, 1)))


def test_ttn_slopes_are_those_of_each_sample_alone():
    context = make_context(Still(), dtype=torch.float64)
    samples = held_out(context.task).take(slice(4))
    inputs, targets = samples.inputs.double(), samples.targets
    found = TtnLayers(context).slopes(inputs, lambda output: context.task.loss(output, targets))  # (2, N, C)
    for row in range(len(inputs)):
        model = copy.deepcopy(context.base)
        model.norm.requires_grad_(True)
        context.task.loss(model(inputs[row : row + 1]), targets[row : row + 1]).sum().backward()
        torch.testing.assert_close(found[:, row], torch.stack([model.norm.weight.grad, model.norm.bias.grad]))


def test_the_prior_of_ttn_is_the_squared_distance_of_stretched_similarities():
    similarities = torch.tensor([[-1.0, 0.0, 1.0], [0.5, 0.0, 1.0]])
    torch.testing.assert_close(prior(similarities), torch.tensor([(1 - 0.25) ** 2, (1 - 0.25) ** 2, 0.0]))


class Shifted(ToyClasses):
    """A copy has another level and contrast, which batch statistics undo."""

    def augment(self, inputs, targets, generator):
        return 3 * inputs + 2, targets


def test_ttn_trains_alpha_by_the_loss_of_copies_and_stays_at_the_prior_if_told_to():
    losses, alphas = {}, {}
    for name, steps, penalty in (("start", 0, 0.0), ("free", 40, 0.0), ("held", 40, 1e4)):
        settings = TtnSettings(steps=steps, lr=0.03, batch_size=30, penalty=penalty, prior_samples=60)
        context = make_context(Shifted(), settings={"ttn": settings})
        predictor = Ttn().fit(context)
        losses[name] = float(context.task.loss(predictor(3 * context.train.inputs + 2), context.train.targets).mean())
        alphas[name] = predictor._layers.alpha
        assert predictor.parameters == 4
        assert bool(((alphas[name] >= 0) & (alphas[name] <= 1)).all())
    assert losses["free"] < 0.9 * losses["start"]
    assert (alphas["held"] - alphas["start"]).abs().max() < 0.05 < (alphas["free"] - alphas["start"]).abs().max()


@pytest.mark.parametrize("method", [MixNorm(), Sita(), Ttn()])
def test_not_applicable_without_batch_norm(method):
    section = method.Settings
    context = make_context(ToyValues(), settings={method.section: section()})
    with pytest.raises(NotApplicable, match="no BatchNorm1d/BatchNorm2d/BatchNorm3d layer in Sequential"):
        method.fit(context)


@pytest.mark.parametrize("method", [MixNorm(), Sita()])
def test_one_value_per_channel_has_no_statistics_of_its_own(method):
    context = make_context(Channels(), layer="1", settings={method.section: method.Settings()})
    with pytest.raises(NotApplicable, match="one value per channel"):
        method.fit(context)


def test_a_sample_without_augmentation_needs_no_copies():
    class Plain(ToyClasses):
        augment = ToyValues.augment  # the default, which changes nothing

    with pytest.raises(NotApplicable, match="no augmentation"):
        Sita().fit(make_context(Plain(), settings={"sita": SitaSettings()}))
    context = make_context(Plain(), settings={"sita": SitaSettings(copies=0)})
    assert Sita().fit(context)(held_out(context.task).inputs).shape == (45, 3)
