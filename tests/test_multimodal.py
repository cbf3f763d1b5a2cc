"""The engine finds two modes of ΔW: ``benchmarks/multimodal.py`` in small. The modes are known, as both right answers are."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ocd_bench.engine.ocd import Variant, regressor


@pytest.fixture(scope="module")
def multimodal() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "multimodal.py"
    spec = importlib.util.spec_from_file_location("multimodal", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["multimodal"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def case(multimodal: ModuleType):
    return multimodal.Case(0, 0.5, "last", small(multimodal))


def small(multimodal: ModuleType):
    return multimodal.Size(train=1000, test=100, base_steps=400, steps=300, width=32, draws=20)


def test_both_answers_bring_the_hand_to_the_point_and_their_mean_does_not(multimodal: ModuleType) -> None:
    points = torch.tensor([[1.0, 1.0], [0.3, -0.9]])
    both = multimodal.answers(points)
    torch.testing.assert_close(multimodal.hand(both), points.expand(2, 2, 2))
    torch.testing.assert_close(both[:, 0], torch.tensor([[0.0, math.pi / 2], [math.pi / 2, -math.pi / 2]]))
    assert ((multimodal.hand(both.mean(0)) - points).norm(dim=1) > 0.5).all()


def test_many_steps_find_both_modes_and_neither_one_step_nor_regression_does(case) -> None:
    imitates = case.fit()
    many, one = (case.measure(case.draws(imitates, steps)) for steps in (10, 1))
    mean = case.measure(case.draws(case.fit(variant=Variant(build=regressor)), 1))
    assert many["near a mode"] > 0.8
    assert 0.4 < many["first mode"] < 0.6
    assert max(one["near a mode"], mean["near a mode"]) < 0.4
    for column in ("misses, one draw", "misses, best of 5", "energy score"):
        assert many[column] < 0.75 * min(one[column], mean[column]), column
    assert many["squared error"] > mean["squared error"]  # a mode is no answer for a loss that asks for the mean
    assert case.usual_gain(imitates, 1) < 1


def test_draws_follow_how_often_each_answer_is_shown(multimodal: ModuleType) -> None:
    """The modes have lengths of 1 to 4 then, so the diffusion has to draw the length too."""
    case = multimodal.Case(0, 0.8, "last", small(multimodal))
    drawn = case.measure(case.draws(case.fit(variant=Variant(scaled=False)), 20))
    assert drawn["first mode"] == pytest.approx(0.8, abs=0.08)
    assert drawn["to a mode"] < 0.1
    scaled = case.measure(case.draws(case.fit(), 20))
    assert scaled["first mode"] > 0.9  # one length for both modes: what is meant for the second ends near the first


def test_the_energy_score_is_least_for_the_right_distribution(multimodal: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    shown = 2.0 * (torch.rand(2000, 1, generator=generator) < 0.5) - 1
    right = 2.0 * (torch.rand(20, 2000, 1, generator=generator) < 0.5) - 1
    score = multimodal.energy_score
    assert score(right, shown) == pytest.approx(0.5, abs=0.03)  # E|X - y| = 1, E|X - X'| = 1
    assert score(torch.zeros(1, 2000, 1), shown) == pytest.approx(1)
    assert score(torch.ones(20, 2000, 1), shown) == pytest.approx(1, abs=0.05)
