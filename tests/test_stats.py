"""Statistics against scipy, closed forms and small simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from ocd_bench.metrics import REDUCTIONS
from ocd_bench.stats import (
    MIN_SAMPLES,
    Estimate,
    Resampled,
    bca_interval,
    draws_for,
    holm,
    influence,
    mean_sd,
    pooled_variance,
    reduced,
    replicates,
    student_p,
    swap_test,
    two_part_margin,
    two_part_p,
)


def scores_for(reduce: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if reduce == "matthews":
        target = random.integers(0, 2, shape)
        return (2 * target + np.where(random.random(shape) < 0.75, target, 1 - target)).astype(float)
    return random.gamma(2.0, 1.0, shape)


def test_every_reduction_of_the_metrics_module_has_a_form_here():
    for name, function in REDUCTIONS.items():
        scores = scores_for(name, (3, 40))
        np.testing.assert_allclose(reduced(scores, name), function(scores), rtol=1e-12)


def test_matthews_without_one_class_is_zero_in_resamples_too():
    scores = np.array([[0.0, 0.0, 0.0, 2.0, 0.0, 0.0]])
    assert reduced(scores, "matthews")[0] == 0
    assert (replicates(scores, "matthews", 200) == 0).all()


@pytest.mark.parametrize("reduce", sorted(REDUCTIONS))
def test_influence_is_the_leave_one_out_pull(reduce: str):
    scores = scores_for(reduce, (25,))
    left_out = np.array([float(REDUCTIONS[reduce](np.delete(scores, i))) for i in range(25)])
    np.testing.assert_allclose(influence(scores, reduce), 24 * (left_out.mean() - left_out), rtol=1e-8, atol=1e-10)


def test_influence_of_a_mean_is_the_centred_score():
    scores = scores_for("mean", (2, 30))
    np.testing.assert_allclose(influence(scores, "mean"), scores - scores.mean(-1, keepdims=True), atol=1e-12)


def test_mean_and_sd_over_seeds():
    assert mean_sd([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    assert mean_sd([0.5]) == (0.5, None)


def test_replicates_have_the_bootstrap_s_mean_and_variance():
    scores = scores_for("mean", (1, 50))
    draws = replicates(scores, "mean", 20_000)[:, 0]
    assert draws.mean() == pytest.approx(scores.mean(), abs=4 * scores.std() / np.sqrt(50 * 20_000))
    assert draws.var() == pytest.approx(scores.var() / 50, rel=0.05)


def test_replicates_of_one_row_equal_a_loop_over_the_same_resamples():
    scores = scores_for("matthews", (2, 12))
    drawn = replicates(scores, "matthews", 30, seed=4)
    picks = np.random.default_rng([4, 12]).integers(0, 12, size=(30, 12), dtype=np.int32)
    expected = [[float(REDUCTIONS["matthews"](row[pick])) for row in scores] for pick in picks]
    np.testing.assert_allclose(drawn, expected, atol=1e-12)


def test_rows_of_separate_calls_meet_the_same_resamples():
    scores = scores_for("mean", (2, 40))
    together = replicates(scores, "mean", 100)
    apart = [replicates(scores[i : i + 1], "mean", 100)[:, 0] for i in range(2)]
    np.testing.assert_allclose(together.T, apart, rtol=1e-12)


@pytest.mark.parametrize("reduce", ["mean", "root_mean"])
def test_interval_is_scipy_s_bca(reduce: str):
    """At the level that the widening for small samples amounts to; both are random, hence the tolerance."""
    scores = scores_for(reduce, (60,), seed=3)
    tail = scipy.stats.norm.cdf(np.sqrt(60 / 59) * scipy.stats.t.ppf(0.025, 59))

    def statistic(sample: np.ndarray, axis: int = -1) -> np.ndarray:
        return REDUCTIONS[reduce](sample)

    theirs = scipy.stats.bootstrap(
        (scores,), statistic, n_resamples=40_000, confidence_level=1 - 2 * tail, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    value = float(REDUCTIONS[reduce](scores))
    draws = replicates(scores[None], reduce, 40_000)[:, 0]
    ours = bca_interval(value, draws, [influence(scores, reduce)])
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
    assert ours[0] + ours[1] != pytest.approx(2 * value, abs=0.01 * width)  # skewed scores, skewed interval


def test_two_strata_are_scipy_s_two_sample_bca():
    one, two = scores_for("mean", (40,), seed=1), scores_for("mean", (55,), seed=2)
    tail = scipy.stats.norm.cdf(np.sqrt(95 / 93) * scipy.stats.t.ppf(0.025, 93))
    theirs = scipy.stats.bootstrap(
        (one, two),
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = Resampled({("m", 0): one, ("m", 1): two}, "mean", draws=20_000).value("m")
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_paired_difference_is_the_mean_over_seeds_of_reduced_differences():
    scores = {(name, seed): scores_for("root_mean", (80,), seed=seed + 10 * place)
              for place, name in enumerate(("base", "m")) for seed in range(3)}  # fmt: skip
    estimate = Resampled(scores, "root_mean", draws=500).difference("m", "base")
    expected = np.mean([np.sqrt(scores["m", s].mean()) - np.sqrt(scores["base", s].mean()) for s in range(3)])
    assert estimate is not None
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < expected < estimate.high


def test_only_common_seeds_are_compared():
    scores = {("base", 0): np.arange(20.0), ("m", 0): np.arange(20.0) + 1, ("m", 1): np.arange(20.0) + 100}
    resampled = Resampled(scores, "mean", draws=200)
    assert resampled.difference("m", "base") == Estimate(1.0, 1.0, 1.0)
    assert resampled.difference("m", "absent") is None
    assert resampled.seeds("m") == [0, 1]


def test_seeds_on_one_test_set_do_not_pass_for_more_samples():
    """Three copies of one seed give the interval of that seed; three test sets of unlike size give a narrower one."""
    difference = np.random.default_rng(0).normal(size=200)
    one = Resampled({("b", 0): np.zeros(200), ("m", 0): difference}, "mean", draws=4000).difference("m", "b")
    copies = {(name, seed): row for seed in range(3) for name, row in (("b", np.zeros(200)), ("m", difference))}
    three = Resampled(copies, "mean", draws=4000).difference("m", "b")
    assert one is not None
    assert three is not None
    assert (three.low, three.high) == pytest.approx((one.low, one.high), rel=1e-6)
    sizes = {}
    for seed in range(3):
        row = np.random.default_rng(seed + 5).normal(size=200 + seed)
        sizes |= {("b", seed): np.zeros(200 + seed), ("m", seed): row}
    apart = Resampled(sizes, "mean", draws=4000).difference("m", "b")
    assert apart is not None
    assert apart.high - apart.low == pytest.approx((one.high - one.low) / np.sqrt(3), rel=0.15)


def test_no_interval_below_the_least_number_of_samples():
    rows = {("b", 0): np.zeros(MIN_SAMPLES), ("m", 0): np.arange(MIN_SAMPLES) + 1.0}
    assert Resampled(rows, "mean", draws=200).difference("m", "b").sign == 1
    few = {key: row[:-1] for key, row in rows.items()}
    estimate = Resampled(few, "mean", draws=200).difference("m", "b")
    assert estimate.low is None
    assert estimate.sign == 0
    assert Resampled({("m", 0): np.ones(1)}, "mean", draws=200).value("m") == Estimate(1.0)


def test_equal_scores_have_an_interval_of_no_width():
    rows = {("b", 0): np.ones(30), ("m", 0): np.ones(30)}
    assert Resampled(rows, "mean", draws=200).difference("m", "b") == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("n", "kind", "least"), [(8, "normal", 0.92), (30, "accuracy", 0.92), (40, "skewed", 0.90)])
def test_intervals_cover(n: int, kind: str, least: float):
    random = np.random.default_rng(n)
    hits = 0
    for _ in range(300):
        if kind == "normal":
            scores, truth = random.normal(size=n), 0.0
        elif kind == "accuracy":
            scores, truth = (random.random(n) < 0.8).astype(float) - (random.random(n) < 0.8), 0.0
        else:
            scores, truth = random.exponential(size=n), 1.0
        estimate = Resampled({("m", 0): scores}, "mean", draws=1000).value("m")
        hits += estimate.low <= truth <= estimate.high
    assert least <= hits / 300 <= 0.99


def test_fewer_resamples_for_large_test_sets():
    assert draws_for(45) == 10_000
    assert draws_for(10_000) == 3_000
    assert draws_for(10**6) == 2_000


def test_same_input_same_interval():
    rows = {("m", 0): scores_for("mean", (50,))}
    assert Resampled(rows, "mean", draws=300).value("m") == Resampled(rows, "mean", draws=300).value("m")


@pytest.mark.parametrize("reduce", ["mean", "root_mean", "matthews"])
def test_swap_test_is_scipy_s_paired_permutation_test(reduce: str):
    one, two = scores_for(reduce, (9,), seed=5), scores_for(reduce, (9,), seed=6)
    exact = scipy.stats.permutation_test(
        (one, two),
        lambda a, b, axis=-1: REDUCTIONS[reduce](b) - REDUCTIONS[reduce](a),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert swap_test(one, two, reduce) == pytest.approx(exact.pvalue, abs=0.03)


def test_swap_test_swaps_a_sample_in_all_seeds_at_once():
    random = np.random.default_rng(1)
    one = np.tile(random.normal(size=8), (3, 1))
    two = one + np.tile(np.array([1.0, 1, 1, 1, 1, 1, 1, -0.2]), (3, 1))
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    means = (signs * (two - one)[0]).mean(1)
    exact = (np.abs(means) >= abs((two - one).mean()) - 1e-12).mean()
    assert swap_test(one, two, "mean") == pytest.approx(exact, abs=0.01)


def test_swap_test_of_equal_scores_and_of_few_differences():
    scores = np.random.default_rng(0).random(100)
    assert swap_test(scores, scores, "mean") == 1.0
    other = scores.copy()
    other[:3] -= 1.0
    assert swap_test(scores, other, "mean") == pytest.approx(2 / 8, abs=0.02)


def test_swap_test_has_a_tail_beyond_its_resolution():
    random = np.random.default_rng(0)
    one = random.normal(size=400)
    two = one + random.normal(0.5, 1.0, size=400)
    expected = scipy.stats.ttest_rel(two, one).pvalue
    assert swap_test(one, two, "mean") == pytest.approx(expected, rel=1e-6)
    assert expected < 1e-6


def test_student_and_pooled_variance_are_scipy_s_t_test():
    one, two = [1.0, 2.0, 2.5], [2.5, 3.5, 3.0, 4.0]
    variance, freedom = pooled_variance(one, two)
    expected = scipy.stats.ttest_ind(two, one)
    assert freedom == 5
    change = np.mean(two) - np.mean(one)
    assert student_p(change, variance, freedom) == pytest.approx(expected.pvalue)
    assert two_part_p(change, [(variance, freedom)]) == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert two_part_margin([(variance, freedom)]) == pytest.approx((interval.high - interval.low) / 2)


def test_one_seed_against_several_can_be_pooled():
    variance, freedom = pooled_variance([1.0], [2.0, 3.0, 4.0])
    assert freedom == 2
    assert variance == pytest.approx(1.0 * (1 + 1 / 3))
    assert pooled_variance([1.0], [2.0]) == (0.0, 0)


def test_two_part_p_inverts_its_margin_and_is_conservative():
    parts = [(0.5, 4.0), (1.5, 200.0)]
    margin = two_part_margin(parts, 0.99)
    assert two_part_p(margin, parts) == pytest.approx(0.01, rel=1e-6)
    assert two_part_p(0.0, []) == 1.0
    assert two_part_p(1.0, []) == 0.0
    random = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        draws = 1000
        variances = np.stack([share * random.chisquare(3, draws) / 3, (1 - share) * random.chisquare(60, draws) / 60], axis=1)
        changes = random.normal(size=draws)
        rejected = np.mean(
            [two_part_p(change, [(v[0], 3), (v[1], 60)]) < 0.05 for change, v in zip(changes, variances, strict=True)]
        )
        assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_holm_by_hand_and_against_bonferroni():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(0).random(20)
    assert (np.array(holm(p)) <= np.minimum(20 * p, 1) + 1e-12).all()
    assert (np.array(holm(p)) >= p).all()
