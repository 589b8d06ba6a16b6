"""Which weights of a layer stay, and which values they take."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters import compress
from edgeeff.converters.compress import codebook
from tests.test_refit import drawn

seeds = st.integers(0, 2**32 - 1)


# --- Pruning ----------------------------------------------------------------------------------------------------------


def pruned(seed: int, share: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    weights, inputs = drawn(seed)
    second = inputs.T @ inputs / len(inputs) + 0.01 * np.eye(weights.shape[1])
    return weights, second, compress.prune(weights, second, share)


def loss(difference: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean square of what a change of weights changes, by row."""
    return np.asarray(((difference @ second) * difference).sum(axis=1))


@given(seeds, st.sampled_from([0.1, 0.3, 0.5, 0.9, 0.95]))
@settings(max_examples=50)
def test_as_many_weights_are_zero_as_are_to_be_in_every_row(seed: int, share: float) -> None:
    weights, _, found = pruned(seed, share)
    zeros = (found == 0).sum(axis=1)
    assert abs(zeros.sum() - share * weights.size) <= 0.5 + 1e-6
    assert zeros.max() - zeros.min() <= 1


@given(seeds, st.sampled_from([0.3, 0.5, 0.75]))
@settings(max_examples=50)
def test_weights_that_stay_make_up_for_the_others(seed: int, share: float) -> None:
    weights, second, found = pruned(seed, share)
    for before, after in zip(weights, found, strict=True):
        kept = after != 0
        best = np.where(kept, before, 0.0)
        best[kept] += np.linalg.solve(second[np.ix_(kept, kept)], second[np.ix_(kept, ~kept)] @ before[~kept])
        least, ours = (loss((one - before)[np.newaxis], second)[0] for one in (best, after))
        assert ours <= 1.02 * least + 1e-9


def test_what_goes_is_what_is_missed_least() -> None:
    better = 0
    for seed in range(20):
        weights, second, found = pruned(seed, 0.5)
        small = np.where(np.abs(weights) >= np.median(np.abs(weights), axis=1, keepdims=True), weights, 0.0)
        better += loss(found - weights, second).sum() < 0.5 * loss(small - weights, second).sum()
    assert better >= 18


def test_a_row_of_zeros_stays_one_and_the_count_is_kept() -> None:
    weights, inputs = drawn(2)
    weights[1] = 0.0
    found = compress.prune(weights, inputs.T @ inputs / len(inputs) + 0.01 * np.eye(12), 0.5)
    assert (found == 0).sum(axis=1).tolist() == [6] * 6
    assert np.abs(found[1]).max() <= compress.NEARLY_ZERO


# --- Clustering -------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(4, 128))
@settings(max_examples=50)
def test_a_codebook_has_so_many_values_and_those_that_are_fixed(seed: int, clusters: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(8, 64))
    book = codebook(weights, clusters)
    assert clusters - 2 <= len(book) <= clusters  # a mean may be one of those that are fixed
    assert np.isin(compress.FIXED_CENTROIDS, book).all()
    assert (np.diff(book) >= 0).all()
    assert np.abs(book).max() == compress.WEIGHT_LEVELS


def test_weights_that_are_pruned_take_no_values_of_the_others() -> None:
    weights = np.random.default_rng(1).normal(size=(8, 64))
    sparse = np.where(np.random.default_rng(2).random(weights.shape) < 0.8, 0.0, weights)
    sparse[:, 0] = weights[:, 0]
    book = np.round(codebook(sparse, 16))
    assert len(np.unique(book)) == 16
    assert (np.abs(book) < 4).sum() <= 3


@pytest.mark.parametrize("different", [1, 5, 13])
def test_few_different_weights_are_their_own_codebook(different: int) -> None:
    """What is clustered already stays as it is."""
    levels = np.linspace(-90, 100, different).round()
    weights = np.random.default_rng(3).choice(levels, (8, 64))
    weights[:, 0], weights[:, 1] = 127.0, 0.0
    assert set(codebook(0.01 * weights, 16)) == {*levels, -127.0, 0.0, 127.0}


def test_a_layer_of_zeros_has_a_codebook() -> None:
    assert codebook(np.zeros((4, 9)), 16).tolist() == [-127.0, 0.0, 127.0]
