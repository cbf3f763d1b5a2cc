"""OCD as a whole, on problems small enough to be memorised."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ocd_bench.engine.apply import TaskLoss, apply
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.controls.capacity import fit_plain
from ocd_bench.engine.controls.guidance import Guided
from ocd_bench.engine.controls.random_directions import with_random_directions
from ocd_bench.engine.diffusion import NoiseStream
from ocd_bench.engine.hypernetwork import ConstantScale, HyperNetwork, Regressor, ScaleNetwork
from ocd_bench.engine.learn import Trainee
from ocd_bench.engine.ocd import FittedOCD, LossSettings, Variant, fast_hypernetwork, fit, regressor
from ocd_bench.engine.ocd import losses as training_losses
from ocd_bench.engine.overfit import Overfit, losses, overfit
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.methods.ocd_paper import unet_hypernetwork
from ocd_bench.published.settings import PaperSettings
from tests.toy_engine import QUICK, base, data, loss, memory, problem, stream


def compare(fitted: FittedOCD) -> tuple[torch.Tensor, float, float, float]:
    """Cosine of drawn and own ΔW per training sample, and the mean losses of base, oracle and one draw."""
    layer, (x, y) = fitted.problem.layer, fitted.problem.train
    trace = layer.trace(x)
    own = overfit(layer, trace, y, loss, Overfit.of(fitted.settings))
    (drawn,) = fitted.draw(trace)
    cosine = nn.functional.cosine_similarity(drawn.matrix().flatten(1), own.matrix().flatten(1))
    means = (float(losses(trace, y, loss, delta).mean()) for delta in (None, own, drawn))
    return cosine, *means


@pytest.fixture(scope="module")
def learned() -> FittedOCD:
    return fit(problem(), QUICK)


def test_memorises_64_samples(learned):
    cosine, before, oracle, after = compare(learned)
    assert learned.form.describe() == "rank-one (8)"
    assert cosine.mean() >= 0.97
    assert cosine.quantile(0.05) >= 0.9
    assert before - oracle > 0.1
    assert after - oracle < 0.1 * (before - oracle)
    assert learned.history[-1].step == QUICK.steps
    true, predicted = learned.rho.log().T
    assert len(true) == 64
    assert float(torch.corrcoef(torch.stack([true, predicted]))[0, 1]) > 0.98


@pytest.mark.parametrize(
    ("variant", "network", "scale"),
    [(Variant(scaled=False), HyperNetwork, ConstantScale), (Variant(build=regressor), Regressor, ScaleNetwork)],
)
def test_every_ablation_memorises_too(variant, network, scale):
    fitted = fit(problem(count=24), replace(QUICK, steps=160), variant)
    cosine, before, oracle, after = compare(fitted)
    assert cosine.mean() >= 0.95
    assert after - oracle < 0.15 * (before - oracle)
    assert (type(fitted.network), type(fitted.network.scale)) == (network, scale)


def test_the_published_method_memorises_64_samples():
    """A smaller U-Net and a larger learning rate. Everything else is as published: the full matrix, Adam's ΔW, T = 1000,
    prediction of the noise, decibel loss of the scale network, ten steps from pure noise."""
    settings = PaperSettings(
        overfit_lr=0.1, steps=350, batch_size=64, lr=1e-2, lr_schedule="cosine", ema=0.95,
        channels=8, multipliers=(1, 2), blocks=1, attention=(),
    )  # fmt: skip
    fitted = fit(problem("last"), settings, Variant(build=unet_hypernetwork))
    cosine, before, oracle, after = compare(fitted)
    assert fitted.form.describe() == "full (24)"
    assert cosine.mean() >= 0.95
    assert after - oracle < 0.05 * (before - oracle)
    assert fitted.choose_gain(1).value == 1


def test_the_auxiliary_head_trains_only_the_condition():
    """Its loss is used together with the task's own loss, and it has no part in predictions."""
    settings = replace(QUICK, steps=5, task_weight=1.0)
    fitted, without = fit(problem(), settings), fit(problem(), replace(settings, auxiliary=0.0))
    assert set(fitted.history[0].parts) == {"diffusion", "scale", "task", "auxiliary"}
    assert set(without.history[0].parts) == {"diffusion", "scale", "task"}
    assert "auxiliary" not in fit(problem(), replace(QUICK, steps=5)).history[0].parts  # imitation alone: no answers are seen
    assert fitted.parameters == without.parameters
    x = data(10, seed=9)[0]
    assert not torch.equal(without.predict(x), fitted.predict(x))


def test_guidance_goes_beyond_the_unconditional_prediction():
    settings = replace(QUICK, steps=60, sampling_steps=1, guidance=3.0, unconditional=0.3)
    guided = fit(problem(count=24), settings, Variant(build=Guided(fast_hypernetwork)))
    network, trace = guided.network, guided.problem.layer.trace(guided.problem.train[0])
    e = network.condition(guided.describe(trace), trace.inputs)
    noise = torch.randn(1, 1, guided.form.size, generator=torch.Generator().manual_seed(0)).expand(1, len(trace), -1)

    def directions(guidance: float) -> torch.Tensor:
        network.guidance = guidance
        with torch.no_grad():
            return network.draw(e, noise)[0]

    unconditional, conditional, beyond = directions(0.0), directions(1.0), directions(3.0)
    assert torch.allclose(unconditional, unconditional[:1].expand_as(unconditional), atol=1e-5)  # the same noise, no condition
    assert not torch.allclose(conditional, conditional[:1].expand_as(conditional), atol=1e-2)
    assert torch.allclose(beyond, unconditional + 3 * (conditional - unconditional), atol=1e-3)  # one step is linear
    assert network.nothing.any()  # it has been trained
    assert not hasattr(fit(problem(count=24), replace(QUICK, steps=1)).network, "nothing")


def test_the_tasks_loss_always_uses_the_condition():
    how = replace(QUICK, steps=5, noise_draws=2, task_weight=1.0, guidance=2.0)
    fitted = fit(problem(), how, Variant(build=Guided(fast_hypernetwork)))
    network = fitted.network
    targets, pieces = stream(fitted.problem, how).make(fitted.form, torch.arange(64), torch.Generator())
    parts = []
    for share in (0.0, 0.5):
        network.unconditional = share
        generator = torch.Generator().manual_seed(1)
        trainee = Trainee(network, None)
        parts.append(training_losses(trainee, targets, TaskLoss(loss, pieces), LossSettings.of(how), generator))
    assert torch.equal(parts[0]["task"], parts[1]["task"])
    assert not torch.equal(parts[0]["diffusion"], parts[1]["diffusion"])


def test_a_learned_basis_is_trained_by_the_tasks_loss_and_reset_for_each_fit():
    shared = {}
    task = problem("conv", count=32, picture=True, remember=memory(shared))
    settings = replace(QUICK, overfit_lr=0.05, overfit_optimizer="adam", steps=20, form="learned", basis=6)
    fitted, still = (fit(task, replace(settings, task_weight=weight)) for weight in (1.0, 0.0))
    (picked,) = (value for key, value in shared.items() if key[0] == "form")
    assert torch.equal(picked.form.directions, picked.form.basis)
    assert torch.equal(fitted.form.basis, picked.form.basis)
    assert not torch.allclose(fitted.form.directions, fitted.form.basis, atol=1e-3)
    assert float((still.form.directions - still.form.basis).abs().max()) < 1e-2  # weight decay alone


def test_a_convolution_is_adapted_through_a_form_that_keeps_the_gain():
    torch.manual_seed(3)
    fitted = fit(problem("conv", count=32, picture=True), replace(QUICK, overfit_lr=0.05, overfit_optimizer="adam", steps=240))
    cosine, before, oracle, after = compare(fitted)
    assert fitted.form.size <= 36
    assert fitted.form.describe() in [score.form.describe() for score in fitted.forms]
    kept = [score.kept for score in fitted.forms if score.kept is not None]
    assert max(kept) == pytest.approx(1, abs=0.05)
    assert cosine.mean() >= 0.85
    assert after - oracle < 0.25 * (before - oracle)


def test_the_same_seed_gives_the_same_numbers_and_the_global_generator_is_unchanged():
    settings = replace(QUICK, steps=6)
    x = data(10, seed=9)[0]
    first = problem()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one = fit(first, settings)
    assert torch.equal(torch.rand(3), expected)  # the global generator has its old state
    torch.manual_seed(12)
    two, other = fit(problem(), settings), fit(problem(seed=6), settings)
    assert torch.equal(one.predict(x, draws=2), two.predict(x, draws=2))
    assert not torch.equal(one.predict(x), other.predict(x))


def test_a_sample_gets_the_same_noise_in_any_batch(learned):
    x = data(150, seed=9)[0]
    whole = learned.predict(x, draws=3)
    pieces = [learned.predict(x[a:b], draws=3, start=a) for a, b in ((0, 1), (1, 70), (70, 150))]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)
    trace = learned.problem.layer.trace(x)
    single, several = next(learned.draw(trace)), list(learned.draw(trace, 3))
    torch.testing.assert_close(several[0].u, single.u, rtol=1e-4, atol=1e-5)  # draws of an ensemble continue those of one
    assert not torch.allclose(several[1].u, single.u, rtol=1e-2)


def test_noise_streams_differ_by_seed_sample_and_draw():
    stream = NoiseStream(0, 4)
    whole = stream(0, 200, 0)
    assert torch.equal(stream(63, 80, 0), whole[63:143])
    assert len(whole.unique()) == 800
    assert not torch.equal(stream(0, 200, 1), whole)
    assert not torch.equal(NoiseStream(1, 4)(0, 200, 0), whole)
    assert float(whole.std()) == pytest.approx(1, abs=0.1)


def test_base_and_networks_run_in_eval_mode():
    model, encoder = base(), nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    model.train()  # as a caller might leave it: dropout and batch statistics must not get into the numbers
    fitted = fit(problem(model=model, encoder=lambda: encoder), replace(QUICK, steps=8))
    assert model.training
    assert not any(module.training for module in fitted.network.modules())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = data(6, seed=9)[0]
    assert torch.equal(fitted.predict(x), fitted.predict(x))
    torch.testing.assert_close(fitted.predict(x)[:1], fitted.predict(x[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(fitted.predict(x, gain=0.0), base()(x))


def test_an_encoder_supplies_information_that_the_layer_lacks():
    """The base ignores the sample, so only the encoder can distinguish samples."""
    model = base()
    model.first.weight.zero_()
    settings = replace(QUICK, steps=120)
    blind = compare(fit(problem(model=model), settings))[0].mean()
    seeing = compare(fit(problem(model=model, encoder=lambda: nn.Linear(6, 16)), settings))[0].mean()
    assert seeing > 0.9 > 0.8 > blind


def test_an_encoder_without_parameters_is_a_feature_among_others():
    fitted = fit(problem(encoder=lambda: nn.Flatten()), replace(QUICK, steps=4))
    assert set(fitted.network.condition.standard) == {"input", "activation", "output", "sample"}
    assert fitted.network.condition.encoder is None
    without = fit(problem(encoder=lambda: nn.Flatten()), replace(QUICK, steps=4, input_encoder=False))
    assert "sample" not in without.network.condition.standard


def test_the_gain_is_zero_if_there_is_nothing_to_learn():
    """Training labels are random, so the hypernetwork memorises them and improves no validation sample."""
    x, _ = data(64)
    coins = torch.randint(3, (64,), generator=torch.Generator().manual_seed(2))
    val_x, _ = data(300, seed=8)
    val_coins = torch.randint(3, (300,), generator=torch.Generator().manual_seed(3))
    fitted = fit(problem(train=(x, coins), val=(val_x, val_coins)), replace(QUICK, steps=80))
    gain = fitted.choose_gain(1)
    assert gain.value == 0
    curve = dict(zip(gain.candidates, gain.losses, strict=True))
    assert curve[0.0] < curve[1.0] < curve[1.5]


def test_the_gain_is_above_zero_if_there_is_something_to_learn():
    fitted = fit(problem(count=600, val=data(300, seed=8)), replace(QUICK, steps=100))
    gain = fitted.choose_gain(5)
    curve = dict(zip(gain.candidates, gain.losses, strict=True))
    assert gain.value > 0
    assert curve[gain.value] < 0.97 * curve[0.0]
    x, y = data(300, seed=20)
    gained = losses_of(fitted.predict(x, 5, 0.0), y) - losses_of(fitted.predict(x, 5, gain.value), y)
    directed, random = gained, losses_of(fitted.predict(x, 1, 0.0), y) - losses_of(with_random_directions(fitted).predict(x), y)
    assert directed > 0.02
    assert directed > 3 * random  # the direction is what helps, not the length


def losses_of(output: torch.Tensor, target: torch.Tensor) -> float:
    return float(loss(output, target).mean())


def test_draws_are_combined_by_the_problem():
    fitted = fit(problem(combine=lambda outputs: outputs.amax(0)), replace(QUICK, steps=4))
    x = data(5, seed=9)[0]
    trace = fitted.problem.layer.trace(x)
    outputs = torch.stack([apply(trace, delta) for delta in fitted.draw(trace, 3)])
    torch.testing.assert_close(fitted.predict(x, 3), outputs.amax(0))
    assert fitted.predict(x).grad_fn is None


def test_a_base_without_loss_has_nothing_to_learn_from():
    with pytest.raises(NotApplicable, match="overfitting changes no weight"):
        fit(problem(loss=lambda output, target: 0 * output.sum(1)), QUICK)


def test_divergence_is_reported_with_what_to_change():
    with pytest.raises(UsageError, match=r"learning rate 1e\+30, 3 steps\) diverges for \d+ of \d+ samples"):
        fit(problem(loss=lambda output, target: output.square().sum(1).square()), replace(QUICK, overfit_lr=1e30))


def test_the_layer_may_be_any_that_can_be_changed():
    with pytest.raises(UsageError, match="nearest: hidden"):
        TargetLayer(base(), "hiden")


def test_a_hypernetwork_without_input_is_refused():
    for how in (fit, fit_plain):
        with pytest.raises(UsageError, match=r"would have no input: .* name some of input, activation, output in ocd.cond"):
            how(problem(), replace(QUICK, conditions=()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overfit_optimizer": "lbfgs"}, "setting ocd.overfit_optimizer='lbfgs': expected one of sgd, adam"),
        ({"steps": 0}, "setting ocd.steps=0: expected 1 or more"),
        ({"lr": -1.0}, "setting ocd.lr=-1.0: expected more than 0"),
        ({"gains": ()}, "setting ocd.gains"),
        ({"gains": (-1.0, 0.0)}, "-1.0 in this list: expected 0 or more"),
        ({"ema": 1.0}, "setting ocd.ema=1.0: expected 0 or more, and less than 1"),
        ({"task_weight": -1.0}, "setting ocd.task_weight=-1.0: expected 0 or more"),
        ({"prediction": "epsilon"}, "prediction=epsilon is undefined"),
        ({"guidance": 0.0}, "setting ocd.guidance=0.0: expected more than 0"),
        (
            {"guidance": 2.0, "noise_draws": 1},
            "setting ocd.guidance=2.0: .* take ocd.unconditional above 0, and ocd.noise_draws",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        OCDSettings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 7}, "setting ocd_paper.channels=7: expected an even number"),
        ({"multipliers": ()}, "setting ocd_paper.multipliers"),
        ({"blocks": 0}, "setting ocd_paper.blocks=0: expected 1 to 64"),
        ({"attention": (5,)}, r"setting ocd_paper.attention=\(5,\): expected levels from 0 to 4, or nothing"),
        ({"unet_dropout": 1.0}, "setting ocd_paper.unet_dropout=1.0: expected 0 or more, and less than 1"),
        ({"steps": 0}, "setting ocd_paper.steps=0: expected 1 or more"),
    ],
)
def test_a_unet_that_cannot_be_built_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        PaperSettings(**change)


def test_a_named_basis_is_computed_from_the_precomputed_changes(monkeypatch):
    """And every sample is overfitted once, in any order of fits."""
    import ocd_bench.engine.overfit as overfit_module

    counts = []
    original = overfit_module.overfit
    monkeypatch.setattr(
        overfit_module, "overfit", lambda layer, trace, *rest: counts.append(len(trace)) or original(layer, trace, *rest)
    )
    shared = {}
    task = problem("conv", count=32, picture=True, remember=memory(shared))
    settings = replace(QUICK, overfit_lr=0.05, overfit_optimizer="adam", steps=2, form="basis", basis=6, passes=1)
    fit(task, settings)
    fitted = fit(task, settings, Variant(build=regressor))
    assert sum(counts) == 64  # 32 training samples, and as many for validation: none a second time
    (whole,) = (value.code for key, value in shared.items() if key[0] == "whole")
    expected = torch.linalg.svd(whole.double(), full_matrices=False).Vh[:6]
    torch.testing.assert_close(
        (fitted.form.basis.flatten(1).double() @ expected.T).abs(), torch.eye(6).double(), atol=1e-3, rtol=0
    )
