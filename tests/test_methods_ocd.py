"""OCD's rows of the table: shared fits, reported details, cases in which they are not applicable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import ocd_bench.methods.ocd as ocd_module
import ocd_bench.methods.ocd_paper as paper_module
from ocd_bench.engine.apply import apply
from ocd_bench.engine.hypernetwork import ConstantScale
from ocd_bench.engine.ocd import Variant, regressor
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.targets import validation_samples
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.methods import controls, ocd, ocd_paper
from ocd_bench.methods.quality import quality_of
from ocd_bench.published.settings import PaperSettings
from tests.toy import ToyClasses, ToyValues, held_out, make_context

FEW = OCDSettings(steps=5, batch_size=16, width=16, depth=1, sampling_steps=2, val_samples=20, evaluations=1, overfit_lr=0.1)
PAPER = PaperSettings(steps=2, batch_size=4, channels=8, multipliers=(1, 2), attention=(), blocks=1, sampling_steps=2)
SETTINGS = {"ocd": FEW, "ocd_paper": PAPER}
METHODS = {method.name: method for method in (*ocd.METHODS, *controls.METHODS, *ocd_paper.METHODS)}


def test_the_methods_and_their_sections():
    assert list(METHODS) == [
        "ocd", "ocd-x5", "ocd-imitate", "ocd-gated", "ocd-noscale", "ocd-layer2", "ocd-best-layer", "ocd-regress", "ocd-nn",
        "ocd-random", "capacity", "ocd-paper", "ocd-paper-x5",
    ]  # fmt: skip
    paper, named = {"ocd-paper", "ocd-paper-x5"}, {"ocd-imitate", "ocd-gated", "ocd-noscale", "ocd-layer2", "ocd-best-layer"}
    assert {name for name, method in METHODS.items() if method.section != "ocd"} == paper
    assert {name for name, method in METHODS.items() if not method.default} == named | paper
    assert all(method.description and "\n" not in method.description for method in METHODS.values())
    assert not any(method.uses_test_labels for method in METHODS.values())


@pytest.mark.parametrize("task", [ToyClasses(), ToyValues()], ids=["classes", "values"])
@pytest.mark.parametrize("name", METHODS)
def test_outputs_have_the_tasks_form_and_do_not_depend_on_batches(task, name):
    context = make_context(task, settings={**SETTINGS, "ocd": replace(FEW, gains=(1.0,))})
    if name == "ocd-gated" and task.name == "toy-values":
        with pytest.raises(NotApplicable, match=r"Task\.signature"):
            METHODS[name].fit(context)
        return
    before = {key: value.clone() for key, value in context.base.state_dict().items()}
    predictor = METHODS[name].fit(context)
    x = held_out(task).inputs
    with torch.no_grad():
        expected = context.base(x)
    whole = predictor(x)
    assert whole.shape == expected.shape
    assert whole.isfinite().all()
    assert not whole.requires_grad
    predictor.reset()
    torch.testing.assert_close(torch.cat([predictor(piece) for piece in x.split(17)]), whole, rtol=1e-3, atol=1e-4)
    assert predictor.parameters > 0 or name == "ocd-nn"
    assert all(torch.equal(value, before[key]) for key, value in context.base.state_dict().items())
    assert not context.base.training
    assert predictor.detail["gain"] == 1
    assert not torch.allclose(whole.softmax(-1), expected.softmax(-1), atol=1e-7) or task.name == "toy-values"


@pytest.mark.parametrize("name", ["ocd-gated", "capacity"])
def test_an_out_of_distribution_sample_keeps_the_base_s_weights_where_there_is_a_gate(name):
    few = replace(FEW, gains=(1.0,), gate=0.99 if name == "capacity" else 0.0)
    context = make_context(ToyClasses(), settings={"ocd": few})
    predictor = METHODS[name].fit(context)
    x = held_out(context.task).inputs
    strange = torch.cat([x[:20], 30 + 5 * x[:20]])
    found, base = predictor(strange), context.base(strange)
    assert torch.equal(found[20:], base[20:])
    assert bool((found[:20] - base[:20]).abs().sum(1).gt(0).sum() >= 15)


def test_gain_zero_is_the_base_itself():
    context = make_context(ToyValues(), settings={"ocd": replace(FEW, gains=(0.0,))})
    x = held_out(context.task).inputs
    for name in ("ocd", "ocd-x5", "ocd-nn", "capacity"):
        torch.testing.assert_close(METHODS[name].fit(context)(x), context.base(x))


def test_what_can_be_shared_is_fitted_once(monkeypatch):
    fits: list[Variant] = []
    original = ocd_module.fit
    monkeypatch.setattr(ocd_module, "fit", lambda *args: fits.append(args[2]) or original(*args))
    context = make_context(ToyClasses(), settings=SETTINGS)
    predictors = {name: METHODS[name].fit(context) for name in ("ocd", "ocd-x5", "ocd-random", "ocd-noscale", "ocd-regress")}
    assert fits == [Variant(), Variant(scaled=False), Variant(build=regressor)]
    assert predictors["ocd"].fitted is predictors["ocd-x5"].fitted
    assert predictors["ocd"].fitted.network.scale is predictors["ocd-random"].fitted.network.scale
    assert predictors["ocd"].gain is predictors["ocd-random"].gain
    METHODS["ocd-layer2"].fit(context)
    METHODS["ocd-paper"].fit(context)
    METHODS["ocd-paper-x5"].fit(context)
    assert len(fits) == 5


@pytest.mark.parametrize("order", [("ocd", "ocd-imitate"), ("ocd-imitate", "ocd")])
def test_imitation_never_uses_the_tasks_loss_in_any_order_of_fits(order):
    settings = {"ocd": replace(FEW, passes=1)}  # targets made beforehand are shared among the fits that need the same
    context = make_context(ToyClasses(), settings=settings)
    parts = {name: list(METHODS[name].fit(context).detail["history_parts"]) for name in order}
    assert parts == {"ocd": ["diffusion", "scale", "task", "auxiliary"], "ocd-imitate": ["diffusion", "scale"]}


def test_the_ensemble_is_combined_by_the_task():
    class Loudest(ToyClasses):
        def ensemble(self, outputs):
            return outputs.amax(0)

    context = make_context(Loudest(), settings={"ocd": replace(FEW, gains=(1.0,))})
    predictor = METHODS["ocd-x5"].fit(context)
    x = held_out(context.task).inputs[:6]
    trace = predictor.fitted.problem.layer.trace(x)
    outputs = [apply(trace, delta) for delta in predictor.fitted.draw(trace, 5)]
    torch.testing.assert_close(predictor(x), torch.stack(outputs).amax(0))


def test_task_members_that_do_nothing_are_not_called_and_others_are():
    context = make_context(ToyClasses(), settings=SETTINGS)
    problem = ocd.problem_of(context, "hidden")
    assert problem.subsample is None
    assert problem.augment == context.task.augment
    assert ocd.problem_of(make_context(ToyValues()), "first").augment is None
    assert problem.encoder() is None
    assert (problem.train[0] is context.train.inputs, problem.val[1] is context.val.targets) == (True, True)


def test_the_second_layer_is_the_best_ranked_other_one():
    context = make_context(ToyClasses(), settings=SETTINGS)
    assert METHODS["ocd-layer2"].layer(context) == next(name for name, _ in context.ranking() if name != "hidden")
    alone = make_context(ToyValues(), base=nn.Sequential(nn.Linear(4, 1)), layer="0", settings=SETTINGS)
    with pytest.raises(NotApplicable, match="'0' is the only layer"):
        METHODS["ocd-layer2"].fit(alone)


def test_the_best_layer_leaves_the_least_validation_loss(monkeypatch):
    context = make_context(ToyClasses(), settings={"ocd": replace(FEW, gains=(1.0,), steps=40)})
    x, y = validation_samples(ocd.problem_of(context, "hidden"), FEW.val_samples)
    losses = {}
    for name, _ in context.ranking():
        predictor = METHODS["ocd"].fit(replace(context, layer=name, _shared={}))
        (output,) = predictor.fitted.outputs(x, purpose="validation")
        losses[name] = float(nn.functional.cross_entropy(output, y))
    assert len(losses) > 2
    best = METHODS["ocd-best-layer"].fit(context)
    assert best.detail["tried"] == pytest.approx(losses)
    assert best.detail["layer"] == min(losses, key=losses.get)
    worst = max(losses, key=losses.get)
    none = replace(context, layer=worst, settings=lambda name: replace(FEW, gains=(0.0,)), _shared={})
    assert METHODS["ocd-best-layer"].fit(none).detail["layer"] == worst  # none is better, so the usual layer stays
    monkeypatch.setattr(ocd_module.OCD, "fit_layer", refuse)
    with pytest.raises(NotApplicable, match="overfitting changes no weight"):
        METHODS["ocd-best-layer"].fit(context)


def refuse(*args):
    raise NotApplicable("overfitting changes no weight")


def test_the_detail_has_the_choices_as_plain_values():
    import json

    predictor = METHODS["ocd-x5"].fit(make_context(ToyClasses(), settings=SETTINGS))
    detail = json.loads(json.dumps(predictor.detail))
    assert (detail["layer"], detail["form"], detail["draws"]) == ("hidden", "rank-one (8)", 5)
    assert detail["gain_candidates"] == list(FEW.gains)
    assert len(detail["gain_losses"]) == len(FEW.gains)
    assert [step for step, _, _ in detail["history"]] == [5]
    parts = detail["history_parts"]
    assert list(parts) == ["diffusion", "scale", "task", "auxiliary"]
    assert sum(values[-1][1] for values in parts.values()) == pytest.approx(detail["history"][-1][1], rel=1e-5)
    assert len(detail["rho"]) > 10
    assert all(true > 0 and predicted > 0 for true, predicted in detail["rho"])
    assert predictor.parameters == sum(p.numel() for p in predictor.fitted.network.parameters())


def test_the_quality_is_the_primary_metric_and_higher_is_better():
    quality = quality_of(ToyClasses())
    output, target = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 2, 2])
    scores = torch.stack([quality.scores(output, target), quality.scores(-output, target)]).double()
    assert quality.reduce(scores).tolist() == [0.75, pytest.approx(float(((-output).argmax(1) == target).double().mean()))]
    values = quality_of(ToyValues())
    near, far = (values.scores(torch.full((4, 1), off), torch.zeros(4, 1)) for off in (0.1, 2.0))
    better, worse = values.reduce(torch.stack([near, far]).double()).tolist()
    assert better > worse


def test_random_directions_keep_the_predicted_lengths():
    context = make_context(ToyClasses(), settings={"ocd": replace(FEW, gains=(1.0,))})
    fitted = METHODS["ocd-random"].fit(context).fitted
    trace = fitted.problem.layer.trace(held_out(context.task).inputs)
    (delta,) = fitted.draw(trace)
    with torch.no_grad():
        e = fitted.network.condition(fitted.describe(trace))
        ratio = delta.shift(trace.positions)[:, 0].norm(dim=1) / fitted.network.scale(e)
    # The norm of eight standard normal numbers, over the root of eight.
    assert float(ratio.mean()) == pytest.approx(0.97, abs=0.15)


def test_the_same_seed_gives_the_same_row_and_another_seed_another_row():
    def row(seed: int) -> torch.Tensor:
        context = make_context(ToyClasses(), settings={"ocd": replace(FEW, gains=(1.0,))}, seed=seed)
        return METHODS["ocd"].fit(context)(torch.ones(3, 1, 6, 6))

    assert torch.equal(row(0), row(0))
    assert not torch.equal(row(0), row(1))


class Pictures(ToyClasses):
    """A task whose output can also be given as a picture."""

    def output_picture(self, output: torch.Tensor) -> torch.Tensor:
        return output.softmax(-1)[:, None, None]


def test_pictures_go_through_vgg11_or_the_paper_s_method_does_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(paper_module, "cached_vgg11", lambda: None)
    context = make_context(Pictures(), settings=SETTINGS)
    with pytest.raises(NotApplicable, match=r"weights were not found: .* --set ocd_paper.vgg11=FILE"):
        METHODS["ocd-paper"].fit(context)
    with pytest.raises(UsageError, match=r"setting ocd_paper.vgg11='none.pth': no such file"):
        METHODS["ocd-paper"].fit(make_context(Pictures(), settings={"ocd_paper": replace(PAPER, vgg11="none.pth")}))
    off = METHODS["ocd-paper"].fit(make_context(Pictures(), settings={"ocd_paper": replace(PAPER, vgg11="off")}))
    assert off.fitted.network.condition.linear["output"].in_features == 3

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 7)).requires_grad_(False)
    monkeypatch.setattr(paper_module, "load_vgg11", {tmp_path / "vgg.pth": encoder}.get)
    (tmp_path / "vgg.pth").touch()
    chosen = replace(PAPER, vgg11=str(tmp_path / "vgg.pth"))
    found = METHODS["ocd-paper"].fit(make_context(Pictures(), settings={"ocd_paper": chosen}))
    assert found.fitted.network.condition.linear["output"].in_features == 7
    assert found.parameters == sum(p.numel() for p in (*found.fitted.network.parameters(), *encoder.parameters()))
    assert found(held_out(Pictures()).inputs).isfinite().all()


def test_the_paper_s_method_without_a_scale_network_is_a_setting():
    fitted = METHODS["ocd-paper"].fit(make_context(ToyClasses(), settings={"ocd_paper": replace(PAPER, scaled=False)})).fitted
    assert type(fitted.network.scale) is ConstantScale


def test_the_paper_s_ensemble_is_five_draws_of_the_same_fit():
    context = make_context(ToyClasses(), settings=SETTINGS)
    one, five = METHODS["ocd-paper"].fit(context), METHODS["ocd-paper-x5"].fit(context)
    assert one.fitted is five.fitted
    x = held_out(context.task).inputs[:6]
    torch.testing.assert_close(five(x), one.fitted.predict(x, draws=5))
