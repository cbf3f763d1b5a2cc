"""Statistics against scipy, against sums over all pairs, against closed forms and small simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from ocd_bench.metrics import REDUCTIONS
from ocd_bench.stats import (
    MIN_SAMPLES,
    SURE_GROUPS,
    SURE_SAMPLES,
    Dependence,
    Estimate,
    Paired,
    dependence,
    estimate,
    holm,
    influence,
    mean_sd,
    pooled_variance,
    reduced,
    sample_variance,
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


def test_matthews_without_one_class_is_zero_and_has_no_influence():
    scores = np.array([[0.0, 0.0, 0.0, 2.0, 0.0, 0.0]])
    assert reduced(scores, "matthews")[0] == 0
    assert (influence(scores, "matthews") == 0).all()


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


# -- groups -----------------------------------------------------------------------------------------------------------------


def pairs_by_hand(ids: np.ndarray) -> np.ndarray:
    """The pairs of samples that share an id, by comparison of all pairs."""
    n = len(ids)
    return np.array([[bool(set(ids[i]) & set(ids[j])) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_variance_is_the_sum_over_all_pairs_that_share_an_id(columns: int):
    random = np.random.default_rng(columns)
    ids = np.stack([random.choice(12, columns, replace=False) for _ in range(60)])
    dependent = pairs_by_hand(ids)
    parts = random.normal(size=60) + random.normal(size=12)[ids].sum(1)
    parts = (parts - parts.mean()) / 60
    depends = Dependence(np.full(60, 1 / 60), ids)
    share = dependent.mean()
    assert depends.share == pytest.approx(share)
    assert depends.count == 12
    assert depends.variance(parts) == pytest.approx(parts @ dependent @ parts / (1 - share))


def test_an_id_may_occur_twice_in_a_row():
    """Mixtures of one, two and three speakers in one test set."""
    ids = np.array([[0, 0, 1], [2, 2, 2], [1, 3, 4], [5, 6, 5], [7, 7, 8]])
    depends = Dependence(np.full(5, 0.2), ids)
    assert depends.share == pytest.approx(pairs_by_hand(ids).mean())
    assert depends.count == 9


def test_a_group_for_each_sample_is_the_variance_of_a_mean():
    scores = scores_for("mean", (50,))
    parts = (scores - scores.mean()) / 50
    for groups in (None, np.arange(50), np.random.default_rng(0).permutation(50)[:, None]):
        depends = Dependence(np.full(50, 1 / 50), groups)
        assert depends.variance(parts) == pytest.approx(scores.var(ddof=1) / 50)
        assert depends.freedom == pytest.approx(49)
        assert depends.third(parts) == pytest.approx((parts**3).sum())


def test_groups_of_one_size_are_the_t_test_of_their_means():
    ids = np.repeat(np.arange(12), 7)
    scores = np.random.default_rng(0).normal(size=84) + np.random.default_rng(1).normal(size=12)[ids]
    means = scores.reshape(12, 7).mean(1)
    variance, freedom = sample_variance([scores - scores.mean()], [ids])
    assert variance == pytest.approx(means.var(ddof=1) / 12)
    assert freedom == pytest.approx(11)


def test_the_dyadic_variance_is_right_on_average():
    """Two speakers of ten in each mixture: the variance of the mean over other speakers, and not two thirds of it."""
    random = np.random.default_rng(0)
    pairs = np.array(list(itertools.combinations(range(10), 2)))
    estimates, means = [], []
    for _ in range(3000):
        scores = random.normal(size=10)[pairs].sum(1) + 0.5 * random.normal(size=45)
        means.append(scores.mean())
        estimates.append(Dependence(np.full(45, 1 / 45), pairs).variance((scores - scores.mean()) / 45))
    assert np.mean(estimates) == pytest.approx(np.var(means), rel=0.08)


def test_seeds_with_test_sets_of_their_own_share_the_pool_of_groups():
    """The same query in the test sets of two seeds makes their rows dependent."""
    first, second = np.repeat(np.arange(10), 5), np.repeat(np.arange(5, 15), 5)
    depends, same = dependence([50, 50], [first, second])
    assert not same
    assert depends.count == 15
    assert dependence([50, 50], [first, first])[1]
    together = Dependence(np.full(100, 0.01), np.concatenate([first, second]))
    assert depends.share == pytest.approx(together.share)


def test_too_few_groups_are_a_problem():
    assert "of 1 group;" in Dependence(np.full(20, 0.05), np.zeros(20, int)).problem
    assert Dependence(np.full(20, 0.05), np.arange(20) % 5).problem == ""
    crowded = np.array(list(itertools.combinations(range(5), 3)) * 3)
    assert "100 % of all pairs" in Dependence(np.full(30, 1 / 30), crowded).problem
    estimate = Paired({("b", 0): np.zeros(20), ("m", 0): np.arange(20.0)}, "mean", {0: np.arange(20) % 2}).difference("m", "b")
    assert estimate.low is None
    assert "2 groups" in estimate.doubt


# -- intervals over test samples --------------------------------------------------------------------------------------------


def paired(base: np.ndarray, method: np.ndarray, seeds: int = 1, reduce: str = "mean", **options) -> Estimate:
    """Difference of two methods, the same scores under every seed."""
    scores = {(name, seed): rows for seed in range(seeds) for name, rows in (("b", base), ("m", method))}
    found = Paired(scores, reduce, **options).difference("m", "b")
    assert found is not None
    return found


def changed(n: int, better: int, worse: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a base and a method, ``better`` and ``worse`` of which changed."""
    base, method = np.ones(n), np.ones(n)
    base[:better] = 0
    method[better : better + worse] = 0
    return base, method


def test_symmetric_scores_have_student_s_interval():
    difference = np.concatenate([np.arange(1, 51), -np.arange(1, 51)]) / 10 + 0.3
    found = paired(np.zeros(100), difference)
    expected = scipy.stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_skewed_scores_have_a_skewed_interval_that_holds_student_s():
    difference = np.random.default_rng(3).lognormal(size=80)
    found = paired(np.zeros(80), difference)
    expected = scipy.stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low)
    assert found.high > expected.high + 0.1 * (expected.high - expected.low)
    mirrored = paired(np.zeros(80), -difference)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_halls_transformation_is_inverted():
    """The far end of a skewed interval solves T + g T^2 / 3 + g^2 T^3 / 27 + g / 6 = z."""
    difference = np.random.default_rng(3).lognormal(size=80)
    found = paired(np.zeros(80), difference)
    centred = difference - difference.mean()
    error = difference.std(ddof=1) / np.sqrt(80)
    g = (centred**3).sum() / 80**3 / error**3
    t = (difference.mean() - found.high) / error
    assert t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6 == pytest.approx(scipy.stats.t.ppf(0.025, 79))


@pytest.mark.parametrize("n", [64, 200, 360, 1000])
@pytest.mark.parametrize("seeds", [1, 3])
def test_few_changed_answers_are_no_evidence_where_the_sign_test_has_none(n: int, seeds: int):
    """Up to five better and none worse: exact p above 0.05 whatever n is. Six are enough."""
    for better, worse in ((1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (5, 1), (6, 1)):
        found = paired(*changed(n, better, worse), seeds=seeds)
        assert scipy.stats.binomtest(better, better + worse).pvalue > 0.05
        assert found.low < 0 < found.high
        assert found.sign == 0
        assert paired(*changed(n, worse, better), seeds=seeds).high > 0
    assert scipy.stats.binomtest(7, 7).pvalue < 0.05
    assert paired(*changed(n, 7, 0), seeds=3).wide[0] > 0


@pytest.mark.parametrize("n", [30, 200, 5000])
def test_where_no_answer_changed_the_change_is_bounded_by_three_in_n(n: int):
    for seeds in (1, 3):
        found = paired(np.ones(n), np.ones(n), seeds=seeds)
        assert found.value == 0
        assert found.high == -found.low == pytest.approx(3 / n, rel=0.12)
    grouped = paired(np.ones(n), np.ones(n), groups={0: np.arange(n) % 15})
    assert grouped.high == pytest.approx(3 / 15, rel=0.2)  # all answers of a group might change together


def test_paired_answers_are_bonett_and_price_s():
    base, method = changed(150, 14, 5)
    found = paired(base, method)
    up, down = 15 / 152, 6 / 152
    error = np.sqrt((up + down - (up - down) ** 2) / 152)
    half = scipy.stats.t.ppf(0.975, 149) * error
    assert (found.low, found.high) == pytest.approx((up - down - half, up - down + half))


def test_equal_changes_under_all_seeds_do_not_increase_the_number_of_answers():
    base, method = changed(300, 20, 8)
    one, three = paired(base, method), paired(base, method, seeds=3)
    assert (three.low, three.high) == pytest.approx((one.low, one.high))
    scores = {("b", seed): np.ones(300) for seed in range(3)}
    for seed in range(3):
        scores["m", seed] = np.ones(300)
        scores["m", seed][20 * seed : 20 * seed + 20] = 0  # other samples under every seed
    apart = Paired(scores, "mean").difference("m", "b")
    alike = paired(np.ones(300), scores["m", 0], seeds=3)
    assert apart.high - apart.low < 0.65 * (alike.high - alike.low)


def test_a_share_of_right_answers_stays_between_0_and_1():
    found = Paired({("m", 0): np.ones(40)}, "mean").value("m")
    assert found.high == 1.0
    assert found.low == pytest.approx(scipy.stats.binomtest(40, 40).proportion_ci(method="wilson").low, abs=0.03)
    mixed = Paired({("m", 0): np.arange(200) % 5 > 0}, "mean").value("m")
    exact = scipy.stats.binomtest(160, 200).proportion_ci(method="wilson")
    assert (mixed.low, mixed.high) == pytest.approx((exact.low, exact.high), abs=0.003)


def test_an_unchanged_score_of_another_kind_has_no_interval():
    found = paired(np.arange(30.0), np.arange(30.0))
    assert (found.value, found.low, found.sign, found.doubt) == (0.0, None, 0, "no score differs")


def test_a_matthews_correlation_that_no_single_answer_moves_has_no_interval():
    found = paired(np.zeros(50), np.zeros(50), reduce="matthews")  # one class in targets and answers
    assert (found.value, found.low, found.doubt) == (0.0, None, "no score differs")


def test_a_test_set_without_change_adds_nothing_to_the_mean_of_several():
    random = np.random.default_rng(0)
    changed_set, same_set = random.normal(1, 1, 300), random.normal(size=200)
    parts = [
        Paired({("b", 0): base, ("m", 0): base + step}, "mean").part("m", "b")
        for base, step in ((same_set, 0.0), (np.zeros(300), changed_set))
    ]
    alone, both = estimate(parts[1:]), estimate(parts)
    assert both.value == pytest.approx(alone.value / 2)
    assert both.high - both.low == pytest.approx((alone.high - alone.low) / 2)
    assert estimate(parts[:1]).doubt == "no score differs"


def test_an_unchanged_matthews_correlation_is_bounded_by_single_answers():
    codes = np.array([0] * 100 + [1] * 10 + [2] * 10 + [3] * 80)
    found = paired(codes, codes, reduce="matthews")
    flipped = codes.copy()
    flipped[0] = 1
    step = abs(reduced(flipped, "matthews") - reduced(codes, "matthews"))
    assert 2 * step < found.high == -found.low < 4 * step
    rare = paired(codes[90:112], codes[90:112], reduce="matthews")
    assert "of a class" in paired(codes[85:200], codes[85:200], reduce="matthews").doubt or rare.doubt


def test_paired_difference_is_the_mean_over_seeds_of_reduced_differences():
    scores = {(name, seed): scores_for("root_mean", (80,), seed=seed + 10 * place)
              for place, name in enumerate(("base", "m")) for seed in range(3)}  # fmt: skip
    estimate = Paired(scores, "root_mean").difference("m", "base")
    expected = np.mean([np.sqrt(scores["m", s].mean()) - np.sqrt(scores["base", s].mean()) for s in range(3)])
    assert estimate is not None
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < expected < estimate.high


def test_only_common_seeds_are_compared():
    scores = {("base", 0): np.arange(20.0), ("m", 0): np.arange(20.0) ** 2, ("m", 1): np.arange(20.0) + 100}
    resampled = Paired(scores, "mean")
    assert resampled.difference("m", "base").value == pytest.approx((np.arange(20.0) ** 2 - np.arange(20.0)).mean())
    assert resampled.difference("m", "absent") is None
    assert resampled.seeds("m") == [0, 1]


def test_seeds_on_one_test_set_do_not_count_as_more_samples():
    """Three copies of one seed give the interval of that seed. Three test sets of different sizes give a narrower one."""
    difference = np.random.default_rng(0).normal(size=200)
    one, three = paired(np.zeros(200), difference), paired(np.zeros(200), difference, seeds=3)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), rel=1e-6)
    sizes = {}
    for seed in range(3):
        row = np.random.default_rng(seed + 5).normal(size=200 + seed)
        sizes |= {("b", seed): np.zeros(200 + seed), ("m", seed): row}
    apart = Paired(sizes, "mean").difference("m", "b")
    assert apart is not None
    assert apart.high - apart.low == pytest.approx((one.high - one.low) / np.sqrt(3), rel=0.15)


def test_variants_of_a_test_set_do_not_count_as_more_samples():
    """Kinds of corruption of the same pictures: the mean over kinds is a score of the picture."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(5, 100)) + 3 * random.normal(size=100)
    together = Paired({("m", 0): rows}, "mean").value("m")
    alone = Paired({("m", 0): rows.mean(0)}, "mean").value("m")
    assert (together.value, together.low, together.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_no_interval_below_the_least_number_of_samples():
    assert paired(np.zeros(MIN_SAMPLES), np.arange(MIN_SAMPLES) + 1.0).low > 0
    few = paired(np.zeros(MIN_SAMPLES - 1), np.arange(MIN_SAMPLES - 1) + 1.0, seeds=3)
    assert (few.low, few.wide, few.sign) == (None, None, 0)
    assert few.doubt == "fewer than 8 test samples"
    assert Paired({("m", 0): np.ones(1)}, "mean").value("m").low is None


def test_few_samples_or_groups_are_never_a_claim():
    difference = np.random.default_rng(0).normal(3, 1, size=2000)
    assert paired(np.zeros(2000), difference, seeds=3).sign == 1
    assert paired(np.zeros(SURE_SAMPLES - 1), difference[: SURE_SAMPLES - 1], seeds=3).sign == 0
    for count in (19, 20):
        ids = dict.fromkeys(range(3), np.arange(2000) % count)
        found = paired(np.zeros(2000), difference, seeds=3, groups=ids)
        assert found.wide[0] > 0
        assert (found.sign == 1) == (count >= SURE_GROUPS)


# -- intervals over seeds and samples ---------------------------------------------------------------------------------------


def test_a_seed_effect_widens_the_interval_over_seeds_alone():
    random = np.random.default_rng(0)
    scores = {("b", seed): np.zeros(500) for seed in range(3)}
    sample = random.normal(size=500)
    for seed, shift in enumerate((-1.0, 0.0, 1.0)):
        scores["m", seed] = 5 + shift + sample
    found = Paired(scores, "mean").difference("m", "b")
    expected = scipy.stats.t.ppf(0.975, 2) * np.sqrt(1 / 3)
    assert found.high - found.low < 0.2
    assert (found.wide[1] - found.wide[0]) / 2 == pytest.approx(expected, rel=0.01)


def test_seeds_that_differ_only_on_single_samples_add_nothing():
    random = np.random.default_rng(1)
    scores = {("b", seed): np.zeros(400) for seed in range(3)}
    noise = random.normal(size=(3, 400))
    noise -= noise.mean(axis=1, keepdims=True)  # so that the seeds' means are the same
    for seed in range(3):
        scores["m", seed] = noise[seed] + np.linspace(-1, 1, 400)
    found = Paired(scores, "mean").difference("m", "b")
    assert found.wide == pytest.approx((found.low, found.high))


def test_two_seeds_have_no_interval_over_seeds():
    found = paired(np.zeros(100), np.random.default_rng(0).normal(9, 1, 100), seeds=2)
    assert found.low > 8
    assert (found.wide, found.sign) == (None, 0)


def test_the_mean_of_independent_sets_has_the_variance_of_their_mean():
    random = np.random.default_rng(0)
    sets = []
    for n in (150, 400):
        scores = {("m", seed): random.normal(1, 2, n) for seed in range(3)}
        sets.append(Paired(scores, "mean").part("m"))
    found = estimate(sets)
    assert found.value == pytest.approx(np.mean([np.mean(part.by_seed) for part in sets]))
    half = 1.96 * np.sqrt(sum(part.variance for part in sets)) / 2
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)


# -- tests ------------------------------------------------------------------------------------------------------------------


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


def test_a_group_is_swapped_as_a_whole():
    random = np.random.default_rng(2)
    ids = np.repeat(np.arange(8), 5)
    one = random.normal(size=40)
    two = one + np.repeat(np.array([1.0, 1, 1, 1, 1, 1, 1, -0.2]), 5) + 1e-3 * random.normal(size=40)
    sums = np.bincount(ids, weights=two - one)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).mean()
    assert swap_test(one, two, "mean", groups=ids) == pytest.approx(exact, abs=0.01)
    assert swap_test(one, two, "mean") < 1e-4


def test_samples_of_two_groups_each_are_tested_by_the_dyadic_variance():
    pairs = np.array(list(itertools.combinations(range(10), 2)) * 4)
    random = np.random.default_rng(0)
    one = random.normal(size=180)
    two = one + 0.3 + random.normal(size=10)[pairs].sum(1)
    expected = student_p((two - one).mean(), *sample_variance([(two - one) - (two - one).mean()], [pairs]))
    assert swap_test(one, two, "mean", groups=pairs) == pytest.approx(expected)
    assert swap_test(one, two, "mean") < 0.2 * expected


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


def test_holm_equals_hand_computed_values_and_is_at_most_bonferroni():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(0).random(20)
    assert (np.array(holm(p)) <= np.minimum(20 * p, 1) + 1e-12).all()
    assert (np.array(holm(p)) >= p).all()
