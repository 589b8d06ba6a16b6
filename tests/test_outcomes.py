"""What is kept of every image: ties, ranks, scores that are no numbers, divergences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeeff.evaluation.outcomes import Outcomes, divergences, join, outcomes, probabilities

Floats = npt.NDArray[np.float64]


@st.composite
def batches(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scores in few steps, so that ties are common, and labels, some of them -1."""
    count, classes = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    scores = draw(arrays.arrays(np.float32, (count, classes), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
    labels = draw(arrays.arrays(np.int64, count, elements=st.integers(-1, classes - 1)))
    return scores, labels


@given(batches(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_columns_are_those_of_sorting_by_score_then_index(
    batch: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]], logits: bool
) -> None:
    scores, labels = batch
    found = outcomes(scores, labels, logits=logits)
    for row, label in enumerate(labels.tolist()):
        line = scores[row].tolist()
        order = sorted(range(len(line)), key=lambda c: (-line[c], c))
        assert found.top1[row] == order[0]
        assert found.rank[row] == (order.index(label) if label >= 0 else -1)
        assert found.tied[row] == (line.count(max(line)) > 1)
        assert found.tied5[row] == (len(line) > 5 and line[order[4]] == line[order[5]])
        assert found.finite[row]
    assert found.confidence == pytest.approx(probabilities(scores, logits=logits).max(axis=1))


def test_steps_of_a_quantized_softmax_are_scaled_to_probabilities() -> None:
    scores = np.array([[0.5, 0.25, 0.25 - 1 / 256], [0.0, 0.0, 0.0]])
    found = probabilities(scores, logits=False)
    assert found[0] == pytest.approx(scores[0] / (255 / 256))
    assert found[1].tolist() == [0, 0, 0]
    assert probabilities(np.array([[1000.0, 1000.0, 0.0]]), logits=True)[0] == pytest.approx([0.5, 0.5, 0.0])


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_score_that_is_no_number_is_wrong(bad: float, logits: bool) -> None:
    scores = np.array([[0.1, bad, 0.2, 0.3, 0.1, 0.1, 0.2], [0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0]])
    found = outcomes(scores, np.array([3, 1]), logits=logits)
    assert found.top1.tolist() == [-1, 1]
    assert found.rank.tolist() == [7, 0]
    assert found.finite.tolist() == [False, True]
    assert found.confidence[0] == 0
    assert not found.tied.any()
    p = probabilities(scores, logits=logits)
    assert np.isnan(p[0]).all()
    assert p[1].sum() == pytest.approx(1)
    apart = divergences(p, p)
    assert np.isnan(apart.kl).tolist() == np.isnan(apart.total_variation).tolist() == [True, False]


def test_divergences_have_the_known_values() -> None:
    p, q = np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    found = divergences(p, q)
    # 0.5 * ln(0.5) + 0.5 * ln(0.5 / 1e-12): a class without probability has 1e-12 of it.
    assert found.kl == pytest.approx([0, np.log(2), np.log(0.5) + 0.5 * np.log(1e12)])
    assert found.total_variation == pytest.approx([0, 0.5, 0.5])


probability_rows = arrays.arrays(np.float64, (3, 4), elements=st.floats(0.001, 1)).map(
    lambda rows: rows / rows.sum(axis=1, keepdims=True)
)


@given(probability_rows, probability_rows)
@settings(deadline=None, max_examples=30)
def test_divergences_obey_pinsker_and_vanish_for_the_same(p: Floats, q: Floats) -> None:
    found = divergences(p, q)
    assert (found.total_variation <= np.sqrt(found.kl / 2) + 1e-7).all()
    assert (found.total_variation <= 1).all()
    assert divergences(p, p).kl.tolist() == [0, 0, 0]


def test_batches_join_in_their_order() -> None:
    scores, labels = np.random.default_rng(1).random((7, 6)), np.arange(7) % 6
    parts = [outcomes(scores[at : at + 3], labels[at : at + 3], logits=False) for at in (0, 3, 6)]
    whole = outcomes(scores, labels, logits=False)
    joined: Outcomes = join(parts)
    for name in ("top1", "rank", "confidence", "tied", "tied5", "finite"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()
        assert getattr(joined, name).dtype == getattr(whole, name).dtype
