"""Metrics of one model, against scikit-learn and statsmodels, and the known values of worked examples."""

from __future__ import annotations

import itertools
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as reference
from statsmodels.stats.proportion import proportion_confint

from edgeeff.evaluation import metrics as ours
from edgeeff.evaluation.outcomes import Outcomes, outcomes

Integers = npt.NDArray[np.int64]


def said(top1: Integers, labels: Integers) -> Outcomes:
    """Outcomes of a model that says these classes with a confidence of 1."""
    count, no = len(top1), np.zeros(len(top1), bool)
    right = np.where(labels < 0, -1, np.where(top1 == labels, 0, 1)).astype(np.int32)
    return Outcomes(top1.astype(np.int32), right, np.ones(count), no, no, top1 >= 0)


def examples(*rows: tuple[int, int, int]) -> tuple[Integers, Integers]:
    """Labels and predictions of a confusion matrix's cells."""
    labels = np.concatenate([np.full(count, label) for label, _, count in rows])
    return labels, np.concatenate([np.full(count, predicted) for _, predicted, count in rows])


@st.composite
def tables(draw: st.DrawFn) -> tuple[Integers, Integers, int]:
    classes, count = draw(st.integers(1, 8)), draw(st.integers(1, 40))
    known, any_class = st.integers(0, classes - 1), st.integers(-1, classes - 1)
    labels = draw(arrays.arrays(np.int64, count, elements=known))
    return labels, draw(arrays.arrays(np.int64, count, elements=any_class)), classes


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@given(tables())
@settings(deadline=None, max_examples=30)
def test_figures_are_those_of_scikit_learn(table: tuple[Integers, Integers, int]) -> None:
    labels, predicted, classes = table
    found = ours.metrics(labels, said(predicted, labels), classes)
    present = np.unique(labels)
    for average, figures in (
        ("macro", (found.macro_precision, found.macro_recall, found.macro_f1)),
        ("weighted", (found.weighted_precision, found.weighted_recall, found.weighted_f1)),
    ):
        expected = reference.precision_recall_fscore_support(
            labels, predicted, labels=present, average=average, zero_division=0
        )
        assert figures == pytest.approx(expected[:3])
    assert found.top1 == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    matrix = ours.confusion(labels, predicted, classes)
    usable = predicted >= 0
    if usable.any():
        expected = reference.confusion_matrix(labels[usable], predicted[usable], labels=np.arange(classes))
        assert (matrix == expected).all()
    assert matrix.sum() == usable.sum()
    rebuilt = np.zeros_like(matrix)
    for row, column, count in ours.cells(matrix):
        assert count > 0
        rebuilt[row, column] = count
    assert (rebuilt == matrix).all()


@given(st.integers(7, 12), st.integers(1, 30), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_top5_is_that_of_scikit_learn_where_nothing_is_tied(classes: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, labels = random.random((count, classes)), random.integers(0, classes, count)
    found = ours.metrics(labels, outcomes(scores, labels, logits=False), classes)
    assert found.top5 == pytest.approx(reference.top_k_accuracy_score(labels, scores, k=5, labels=np.arange(classes)))


def test_tied_scores_go_to_the_lower_index() -> None:
    scores = np.full((7, 7), 0.25)
    found = ours.metrics(np.arange(7), outcomes(scores, np.arange(7), logits=False), 7)
    assert (found.top1, found.top5) == (1 / 7, 5 / 7)
    # scikit-learn breaks ties the other way, which is just as arbitrary.
    assert reference.top_k_accuracy_score(np.arange(7), scores, k=5) == 5 / 7
    assert ours.metrics(np.arange(5), outcomes(np.eye(5), np.arange(5), logits=False), 5).top5 is None


def test_cats_and_dogs() -> None:
    labels, predicted = examples((0, 0, 90), (0, 1, 10), (1, 0, 5), (1, 1, 95))
    precision, recall, _ = ours.rates(*ours.counts(labels, predicted, 2))
    assert precision[0] == pytest.approx(0.947, abs=5e-4)
    assert recall[0] == 0.9
    assert ours.cells(ours.confusion(labels, predicted, 2)) == ((0, 0, 90), (0, 1, 10), (1, 0, 5), (1, 1, 95))


def test_accuracy_hides_a_rare_class_and_balanced_accuracy_does_not() -> None:
    # 25 images of 1,250 are of class 1, and 3 of them are found: recall 12 %.
    labels, predicted = examples((0, 0, 1222), (0, 1, 3), (1, 0, 22), (1, 1, 3))
    found = ours.metrics(labels, said(predicted, labels), 2)
    assert found.top1 == 0.98
    assert ours.rates(*ours.counts(labels, predicted, 2))[1][1] == 0.12
    assert found.balanced_accuracy == pytest.approx((1222 / 1225 + 0.12) / 2)
    assert found.weighted_recall == pytest.approx(0.98)


def test_images_without_a_label_are_left_out() -> None:
    labels, predicted = np.array([0, 1, -1, -1]), np.array([0, 0, 1, -1])
    found = ours.metrics(labels, said(predicted, labels), 2)
    assert found == ours.metrics(labels[:2], said(predicted[:2], labels[:2]), 2)
    assert found.top1 == 0.5


def test_a_score_that_is_no_number_counts_against_recall() -> None:
    labels, scores = np.array([0, 0, 1]), np.array([[0.9, 0.1], [np.nan, 0.1], [0.2, 0.8]])
    found = ours.metrics(labels, outcomes(scores, labels, logits=False), 2)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.macro_recall == pytest.approx(0.75)
    assert found.macro_precision == 1


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_the_calibration_error_has_the_known_value() -> None:
    # Two bins in use: three images at 0.9, one of them right, and two at 0.3, both right.
    confidence, correct = np.array([0.9, 0.9, 0.9, 0.3, 0.3]), np.array([True, False, False, True, True])
    assert ours.calibration_error(confidence, correct) == pytest.approx((3 * (0.9 - 1 / 3) + 2 * 0.7) / 5)


def test_bins_hold_their_upper_edge() -> None:
    # 1/15 and 0 are in the first bin, where one wrong and one right image nearly make up for each other.
    edge = float(np.linspace(0, 1, 16)[1])
    together = ours.calibration_error(np.array([0.0, edge]), np.array([False, True]))
    assert together == pytest.approx((1 - edge) / 2)
    apart = ours.calibration_error(np.array([edge, edge + 1e-9]), np.array([False, True]))
    assert apart == pytest.approx((edge + 1 - edge) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_the_calibration_error_is_that_of_a_loop_over_bins(images: list[tuple[float, bool]]) -> None:
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [(c, r) for c, r in images if low < c <= high or (low == 0 == c)]
        if inside:
            confidence, right = np.mean([c for c, _ in inside]), np.mean([r for _, r in inside])
            total += len(inside) / len(images) * abs(right - confidence)
    columns = np.array([c for c, _ in images]), np.array([r for _, r in images])
    assert ours.calibration_error(*columns) == pytest.approx(total)


# --- Outputs ----------------------------------------------------------------------------------------------------------


def test_outputs_say_how_a_model_speaks() -> None:
    scores = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [np.nan, 0.2, 0.8]])
    found = ours.outputs(outcomes(scores, np.full(4, -1), logits=False), 3)
    assert found.mean_confidence == pytest.approx((0.6 + 0.5 + 0.8 + 0) / 4)
    assert (found.top1_ties, found.top5_ties) == (0.25, None)
    assert (found.predicted_classes, found.commonest_share, found.not_finite) == (2, 0.5, 1)


def test_a_model_that_says_nothing_says_no_class() -> None:
    found = ours.outputs(outcomes(np.full((3, 8), np.nan), np.full(3, -1), logits=True), 8)
    assert (found.predicted_classes, found.commonest_share, found.not_finite) == (0, 0, 3)
    assert (found.mean_confidence, found.top1_ties, found.top5_ties) == (0, 0, 0)


# --- Wilson -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
@settings(deadline=None, max_examples=30)
def test_wilson_is_that_of_statsmodels(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert ours.wilson(successes, n, confidence) == pytest.approx(expected)


def test_wilson_ends_at_the_ends() -> None:
    assert ours.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert ours.wilson(0, 10)[0] == 0
    assert ours.wilson(10, 10)[1] == 1
    assert ours.wilson(0, 0) == (0, 1)


def test_an_imagenet_validation_set_takes_no_time() -> None:
    random = np.random.default_rng(1)
    labels, predicted = random.integers(0, 1000, (2, 50_000))
    columns = said(predicted, labels)
    started = time.process_time()
    ours.metrics(labels, columns, 1000)
    ours.cells(ours.confusion(labels, predicted, 1000))
    assert time.process_time() - started < 0.5
