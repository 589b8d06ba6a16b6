"""Two models on the same images: against statsmodels, SciPy and published examples, and against what has to hold."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn import metrics as reference
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from edgeeff.evaluation import paired as ours
from edgeeff.evaluation.metrics import quantile, wilson
from edgeeff.evaluation.outcomes import Divergences, Outcomes, divergences, outcomes
from edgeeff.results import Difference, Flip

Integers = npt.NDArray[np.int64]
fourfold_tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def said(top1: Integers, labels: Integers) -> Outcomes:
    """Outcomes of a model that says these classes with a confidence of 1."""
    count, no = len(top1), np.zeros(len(top1), bool)
    right = np.where(labels < 0, -1, np.where(top1 == labels, 0, 1)).astype(np.int32)
    return Outcomes(top1.astype(np.int32), right, np.ones(count), no, no, top1 >= 0)


def same(count: int) -> Divergences:
    return Divergences(np.zeros(count), np.zeros(count))


@st.composite
def models(draw: st.DrawFn) -> tuple[Integers, Integers, Integers, int]:
    """Labels, what two models say, and the number of classes."""
    classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    known, any_class = st.integers(-1, classes - 1), st.integers(-1, classes - 1)
    labels, before, after = (
        draw(arrays.arrays(np.int64, count, elements=element)) for element in (known, any_class, any_class)
    )
    return labels, before, after, classes


# --- Intervals and tests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8: hyper-responsive
        # airways (Bentur 2009), and complete response before and after consolidation (Cavo 2012).
        ((1, 1, 7, 12), (-0.507, -0.026)),
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
    ],
)
def test_newcombe_has_the_published_values(table: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    digits = max(len(str(abs(value)).split(".")[1]) for value in expected)
    assert tuple(round(value, digits) for value in ours.newcombe(*table)) == expected


def plain_newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Method 10 step by step, as the paper says it."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = wilson(a + b, n), wilson(a + c, n)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    excess = a * d - b * c
    if excess > n / 2:
        excess_corrected = excess - n / 2
    elif excess >= 0:
        excess_corrected = 0
    else:
        excess_corrected = excess
    phi = excess_corrected / math.sqrt(margins) if margins else 0
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    return p1 - p2 - math.sqrt(below), p1 - p2 + math.sqrt(above)


@given(fourfold_tables)
@settings(deadline=None, max_examples=40)
def test_newcombe_is_the_paper_s_and_turns_with_its_arguments(table: tuple[int, int, int, int]) -> None:
    low, high = ours.newcombe(*table)
    assert (low, high) == pytest.approx(plain_newcombe(*table), abs=1e-9)
    both, first, second, neither = table
    assert -1 <= low <= (first - second) / sum(table) + 1e-12
    assert (first - second) / sum(table) - 1e-12 <= high <= 1
    assert ours.newcombe(both, second, first, neither) == pytest.approx((-high, -low))
    assert ours.newcombe(neither, first, second, both) == pytest.approx((low, high))
    narrow = ours.newcombe(*table, confidence=0.8)
    assert low <= narrow[0] <= narrow[1] <= high


@given(fourfold_tables)
@settings(deadline=None, max_examples=40)
def test_mcnemar_is_that_of_statsmodels(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    expected = reference_mcnemar([[both, first], [second, neither]], exact=True).pvalue
    assert ours.mcnemar(first, second) == pytest.approx(min(1.0, expected))
    assert ours.mcnemar(second, first) == ours.mcnemar(first, second)


@pytest.mark.parametrize(("first", "second"), [(5000, 5400), (1, 1500), (20_000, 20_001), (0, 0), (0, 5000)])
def test_mcnemar_works_with_very_many_images(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert ours.mcnemar(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("size", [1, 12])
def test_holm_is_that_of_statsmodels(size: int) -> None:
    # Not with hypothesis: every call of the reference collects garbage first.
    p_values = np.random.default_rng(3).choice([0.0, 0.001, 0.01, 0.012, 0.04, 0.5, 1.0], size).tolist()
    assert ours.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@given(st.lists(st.floats(0, 1), max_size=12), st.permutations(range(12)))
@settings(deadline=None, max_examples=40)
def test_holm_keeps_the_order_and_lets_nothing_shrink(p_values: list[float], order: list[int]) -> None:
    adjusted = ours.holm(p_values)
    assert all(p <= found <= 1 for p, found in zip(p_values, adjusted, strict=True))
    by_size = sorted(zip(p_values, adjusted, strict=True))
    assert [found for _, found in by_size] == sorted(adjusted)
    places = [place for place in order if place < len(p_values)]
    assert ours.holm([p_values[place] for place in places]) == [adjusted[place] for place in places]


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_different_images_are_compared_as_statsmodels_does(n: int, m: int, p: float, q: float) -> None:
    first, second = (round(p * n), n), (round(q * m), m)
    found = ours.independent_difference(first, second)
    expected = confint_proportions_2indep(*first, *second, method="newcomb")
    assert found.interval == pytest.approx(expected, abs=1e-9)
    assert found.value == pytest.approx(first[0] / n - second[0] / m)


# --- Precision --------------------------------------------------------------------------------------------------------


@st.composite
def said_of_a_class(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], int, int]:
    both_right, both_wrong, *alone = draw(st.tuples(*[st.integers(0, 30)] * 6))
    right_1, wrong_1, right_2, wrong_2 = alone
    first = both_right + right_1, both_right + right_1 + both_wrong + wrong_1
    second = both_right + right_2, both_right + right_2 + both_wrong + wrong_2
    return (first, second, both_right, both_wrong) if first[1] and second[1] else ((1, 2), (1, 2), 1, 1)


@given(said_of_a_class())
@settings(deadline=None, max_examples=40)
def test_a_precision_s_p_value_and_interval_agree(
    counts: tuple[tuple[int, int], tuple[int, int], int, int],
) -> None:
    first, second, both_right, both_wrong = counts
    found = ours.precision_difference(first, second, both_right, both_wrong)
    low, high = found.interval
    assert low - 1e-12 <= found.value <= high + 1e-12
    assert found.p_value is not None
    if abs(found.p_value - 0.05) > 1e-6:
        assert (found.p_value < 0.05) == (low > 0 or high < 0)
    turned = ours.precision_difference(second, first, both_right, both_wrong)
    assert turned.interval == pytest.approx((-high, -low))
    assert turned.p_value == pytest.approx(found.p_value, abs=1e-6)


def test_with_many_images_a_precision_s_interval_is_the_delta_method_s() -> None:
    # 4,000 images that both say are of the class, 200 that only the first says, 300 that only the second says.
    random = np.random.default_rng(4)
    first = np.repeat([True, True, False], [4000, 200, 300])
    second = np.repeat([True, False, True], [4000, 200, 300])
    right = random.random(4500) < np.repeat([0.9, 0.6, 0.4], [4000, 200, 300])
    (r1, n1), (r2, n2) = ((int(right[which].sum()), int(which.sum())) for which in (first, second))
    both = first & second
    found = ours.precision_difference((r1, n1), (r2, n2), int(right[both].sum()), int((~right[both]).sum()))
    # What every image adds to the difference, to first order; their sum's variance is the delta method's.
    influence = first * (right - r1 / n1) / n1 - second * (right - r2 / n2) / n2
    half = quantile(0.95) * math.sqrt(float((influence**2).sum()))
    assert found.interval == pytest.approx((found.value - half, found.value + half), abs=0.03 * half)
    assert found.p_value is not None
    z = -NormalDist().inv_cdf(found.p_value / 2)
    assert z == pytest.approx(abs(found.value) / (half / quantile(0.95)), rel=0.03)


def test_models_that_say_the_same_have_the_same_precision() -> None:
    found = ours.precision_difference((18, 20), (18, 20), 18, 2)
    assert (found.value, found.p_value) == (0, 1)
    apart = ours.precision_difference((18, 20), (18, 20), 0, 0)
    assert found.interval == pytest.approx((-found.interval[1], found.interval[1]))
    assert found.interval[1] < 0.7 * apart.interval[1]


# --- How many images --------------------------------------------------------------------------------------------------


def test_the_smallest_difference_of_500_images_is_about_four_points() -> None:
    assert ours.smallest_difference(0.1, 500) == pytest.approx(0.0396, abs=1e-4)
    # A set without a discordant image does not show everything: the exact test takes six.
    assert ours.smallest_difference(0.0, 500) == 6 / 500
    assert ours.smallest_difference(0.0, 3) == 1


def test_six_discordant_images_are_the_fewest_that_can_be_significant() -> None:
    assert ours.fewest_discordant() == 6
    assert ours.mcnemar(0, 6) < 0.05 < ours.mcnemar(0, 5)
    assert ours.mcnemar(0, ours.fewest_discordant(0.01)) < 0.01 < ours.mcnemar(0, ours.fewest_discordant(0.01) - 1)


def test_that_difference_is_shown_four_times_in_five() -> None:
    random = np.random.default_rng(5)
    n, rate = 2000, 0.1
    shift = ours.smallest_difference(rate, n)
    tables = random.multinomial(n, [(rate + shift) / 2, (rate - shift) / 2, 1 - rate], 1000)
    shown = np.mean([ours.mcnemar(int(first), int(second)) <= 0.05 for first, second, _ in tables])
    assert shown == pytest.approx(0.8, abs=0.05)


@given(fourfold_tables, st.floats(0.001, 0.2))
@settings(deadline=None, max_examples=40)
def test_the_images_needed_are_just_enough(table: tuple[int, int, int, int], limit: float) -> None:
    n, needed = sum(table), ours.images_needed(*table, limit)
    value = (table[1] - table[2]) / n

    def low(images: int) -> float:
        a, b, c, d = (count * images / n for count in table)
        return ours.newcombe(a, b, c, d)[0]

    if needed is None:
        assert low(n) >= -limit or value <= -limit or low(ours.LARGEST) < -limit
    else:
        assert needed > n
        assert low(needed) >= -limit > low(needed - 1)


def test_images_needed_are_known_for_an_example() -> None:
    assert ours.images_needed(380, 10, 20, 90, 0.1) is None  # enough already
    assert ours.images_needed(380, 10, 20, 90, 0.02) is None  # 2 points lost: more images do not help
    needed = ours.images_needed(380, 10, 20, 90, 0.03)
    # By the normal approximation 1.96² * (rate - difference²) / (limit + difference)².
    assert needed == pytest.approx(1.96**2 * (0.06 - 0.02**2) / 0.01**2, rel=0.05)


# --- Means ------------------------------------------------------------------------------------------------------------


@given(arrays.arrays(np.float64, st.integers(5, 60), elements=st.floats(-0.5, 0.5).map(lambda x: round(x, 3))))
@settings(deadline=None, max_examples=40)
def test_a_mean_difference_is_student_s(differences: npt.NDArray[np.float64]) -> None:
    found = ours.mean_difference(differences)
    if differences.std() < 1e-9:
        return
    expected = stats.ttest_1samp(differences, 0)
    low, high = expected.confidence_interval()
    wide = 0.006 * (high - low)
    assert found.interval == pytest.approx((max(-1.0, low), min(1.0, high)), abs=wide)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.004)


def test_a_mean_of_one_image_or_of_equal_ones() -> None:
    assert ours.mean_difference(np.array([0.25])) == Difference(0.25, (-1, 1))
    assert ours.mean_difference(np.zeros(3)) == Difference(0, (0, 0), 1)
    assert ours.mean_difference(np.full(4, 0.25)) == Difference(0.25, (0.25, 0.25), 0)


@given(models())
@settings(deadline=None, max_examples=15)
def test_differences_of_means_are_those_of_scikit_learn(found: tuple[Integers, Integers, Integers, int]) -> None:
    labels, before, after, classes = found
    known = labels >= 0
    if not known.any():
        return
    labels, before, after = labels[known], before[known], after[known]
    differences = ours.macro_differences(labels, before, after, classes)
    figures = [
        reference.precision_recall_fscore_support(
            labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
        )
        for predicted in (before, after)
    ]
    for difference, at in zip(differences, (1, 0, 2), strict=True):  # scikit-learn has precision before recall
        assert difference.value == pytest.approx(figures[1][at] - figures[0][at])
        assert difference.interval[0] <= difference.value <= difference.interval[1]


def test_an_interval_of_means_is_the_same_for_the_same_images_in_another_order() -> None:
    random = np.random.default_rng(6)
    labels, before, after = random.integers(0, 5, (3, 200))
    order = random.permutation(200)
    found = ours.macro_differences(labels, before, after, 5)
    assert ours.macro_differences(labels[order], before[order], after[order], 5) == found
    assert ours.macro_differences(labels, before, after, 5, seed=1) != found
    assert ours.macro_differences(labels, before, after, 9) == found  # classes that nobody means change nothing


@pytest.mark.parametrize("sizes", [(200, 100, 50, 10), (2,) * 100])
def test_the_interval_of_balanced_accuracy_is_the_sum_of_the_classes_variances(sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(7)
    classes, images = len(sizes), sum(sizes)
    labels = np.repeat(np.arange(classes), sizes)
    before, after = (np.where(random.random(images) < share, labels, (labels + 1) % classes) for share in (0.9, 0.7))
    balanced, _, _ = ours.macro_differences(labels, before, after, classes)
    changes = (after == labels).astype(float) - (before == labels)
    variance = sum(changes[labels == c].var(ddof=1) / size for c, size in enumerate(sizes)) / classes**2
    variance += 2 / images * sum(1 / size for size in sizes) / classes**2  # two discordant images more
    half = quantile(0.95) * math.sqrt(variance)
    assert balanced.interval == pytest.approx((balanced.value - half, balanced.value + half), abs=0.08 * half)


def test_classes_with_one_image_are_not_taken_for_certain() -> None:
    random = np.random.default_rng(8)
    labels = np.arange(200)
    before, after = (np.where(random.random(200) < 0.8, labels, (labels + 1) % 200) for _ in range(2))
    balanced, precision, _ = ours.macro_differences(labels, before, after, 200)
    _, gained, lost, _ = ours.fourfold(after == labels, before == labels)
    half = quantile(0.95) * math.sqrt(gained + lost) / 200  # of top-1, which this is
    assert balanced.interval[1] - balanced.value == pytest.approx(half, rel=0.1)
    assert precision.interval[1] - precision.interval[0] > half


def test_models_that_say_the_same_are_not_taken_for_equal_beyond_doubt() -> None:
    labels = np.repeat(np.arange(4), 25)
    for difference in ours.macro_differences(labels, labels, labels, 4):
        assert difference.value == 0
        assert difference.interval == pytest.approx((-0.0277, 0.0277), abs=1e-4)


# --- Two models -------------------------------------------------------------------------------------------------------


def test_a_pair_of_models_is_counted_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, -1])
    before, after = np.array([0, 0, 1, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 2, 2, 1])
    found = ours.paired(labels, said(before, labels), said(after, labels), same(7), 3)
    assert (found.images, found.agreement) == (7, 3 / 7)
    assert found.agreement_interval == wilson(3, 7)
    assert found.flips == (Flip(0, 1, 2), Flip(1, 0, 1), Flip(1, 2, 1))
    counted = (found.both_right, found.baseline_only_right, found.model_only_right, found.both_wrong)
    assert counted == (3, 2, 1, 0)
    assert found.top1 == Difference(-1 / 6, ours.newcombe(3, 1, 2, 0), 1.0)
    assert found.top5 is None
    assert found.balanced_accuracy is not None
    assert found.balanced_accuracy.value == pytest.approx(-0.5 / 3)
    assert found.smallest_difference == 1
    first, second, third = ours.by_class(labels, said(before, labels), said(after, labels), ("cat", "dog"), 3)
    assert [one.name for one in (first, second, third)] == ["cat", "dog", "2"]
    assert [(one.support, one.lost, one.gained) for one in (first, second, third)] == [(3, 1, 1), (2, 1, 0), (1, 0, 0)]
    assert (second.baseline.precision, second.model.precision) == (2 / 3, 0.5)
    assert (second.baseline.recall, second.model.recall) == (1, 0.5)
    assert second.recall == Difference(-0.5, ours.newcombe(1, 0, 1, 0), 1.0, 1.0)
    assert third.precision is not None
    assert third.precision.value == -0.5


@given(models())
@settings(deadline=None, max_examples=25)
def test_classes_add_up_and_figures_are_those_of_scikit_learn(
    found: tuple[Integers, Integers, Integers, int],
) -> None:
    labels, before, after, classes = found
    known = labels >= 0
    results = ours.by_class(labels, said(before, labels), said(after, labels), (), classes)
    assert sum(one.support for one in results) == known.sum()
    assert sum(one.gained for one in results) == ((after == labels) & (before != labels) & known).sum()
    for one in results:
        for metrics, predicted in ((one.baseline, before), (one.model, after)):
            expected = reference.precision_recall_fscore_support(
                labels[known] == one.index, predicted[known] == one.index, average="binary", zero_division=0
            )
            assert (metrics.precision or 0, metrics.recall or 0, metrics.f1) == pytest.approx(expected[:3])
            assert (metrics.precision is None) == (metrics.predicted == 0)
            assert (metrics.recall is None) == (one.support == 0)
        assert (one.precision is None) == (not one.baseline.predicted or not one.model.predicted)
        assert (one.recall is None) == (one.support == 0)
        for difference in (one.recall, one.precision):
            if difference is not None:
                assert difference.p_value is not None
                assert difference.p_adjusted is not None
                assert difference.p_value <= difference.p_adjusted <= 1


def test_what_both_models_call_a_class_is_counted_from_the_images() -> None:
    # Eight images that both call dog, two of them wrongly, and one more that each calls so alone.
    labels = np.array([1] * 6 + [0] * 2 + [1, 0] + [0] * 10)
    before = np.array([1] * 8 + [1, 0] + [0] * 10)
    after = np.array([1] * 8 + [0, 1] + [0] * 10)
    dog = ours.by_class(labels, said(before, labels), said(after, labels), ("cat", "dog"), 2)[1]
    assert dog.precision is not None
    expected = ours.precision_difference((6, 9), (7, 9), 6, 2)
    assert (dog.precision.value, dog.precision.interval) == (expected.value, expected.interval)


def test_only_classes_that_could_be_low_are_paid_for() -> None:
    # Class 0 loses ten of 40 images; 99 classes lose one of 40, which no test can call significant.
    labels = np.repeat(np.arange(100), 40)
    after = labels.copy()
    after[:10] = 1
    after[40::40] = 0
    results = ours.by_class(labels, said(labels, labels), said(after, labels), (), 100)
    assert results[0].recall is not None
    assert results[0].recall.p_value == results[0].recall.p_adjusted == ours.mcnemar(0, 10)
    assert {one.recall.p_adjusted for one in results[1:] if one.recall} == {1.0}


def test_without_labels_agreement_is_all() -> None:
    labels, top1 = np.full(4, -1), np.array([0, 1, 2, 2])
    found = ours.paired(labels, said(top1, labels), said(np.array([0, 1, 1, 2]), labels), same(4), 3)
    assert (found.agreement, found.flips) == (0.75, (Flip(2, 1, 1),))
    assert (found.both_right, found.top1, found.macro_f1, found.smallest_difference) == (None,) * 4
    assert found.confidence == Difference(0, (0, 0), 1)


def test_top5_is_compared_by_rank() -> None:
    random = np.random.default_rng(9)
    labels, scores = random.integers(0, 8, 60), random.random((60, 8))
    changed = scores + random.normal(0, 0.2, scores.shape)
    before, after = (outcomes(values, labels, logits=True) for values in (scores, changed))
    found = ours.paired(labels, before, after, same(60), 8)
    assert found.top5 is not None
    assert found.top5.value == pytest.approx((after.rank < 5).mean() - (before.rank < 5).mean())
    assert found.confidence.value == pytest.approx((after.confidence - before.confidence).mean())


def test_a_model_that_says_nothing_agrees_with_nobody() -> None:
    labels, nothing = np.array([0, 1, 1]), np.full((3, 2), np.nan)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    baseline, model = (outcomes(values, labels, logits=False) for values in (scores, nothing))
    found = ours.paired(labels, baseline, model, divergences(scores, nothing), 2)
    assert (found.agreement, found.flips, found.divergence.kl_mean) == (0, (), -1)
    assert (found.baseline_only_right, found.both_wrong) == (2, 1)
    neither = ours.paired(labels, model, model, divergences(nothing, nothing), 2)
    assert neither.agreement == 0
    for one in ours.by_class(labels, baseline, model, (), 2):
        assert (one.model.precision, one.model.predicted, one.precision) == (None, 0, None)
        assert one.model.recall == 0


def test_divergence_is_of_images_where_both_have_numbers() -> None:
    labels = np.full(5, -1)
    apart = Divergences(np.array([0, 1, 2, 3, np.nan]), np.array([0, 0.5, 0.5, 1, np.nan]))
    top1 = said(np.zeros(5, np.int64), labels)
    found = ours.paired(labels, top1, top1, apart, 2).divergence
    assert (found.kl_mean, found.kl_median, found.total_variation_mean) == (1.5, 1.5, 0.5)
    assert found.kl_p95 == pytest.approx(2.85)
