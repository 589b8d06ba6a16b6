"""Fewer weights and fewer different ones: which of a layer stay, and which values they take.

Weights are pruned that the others of their output make up for best, and the others do (Optimal Brain Surgeon, Hassibi
and Stork, 1993; SparseGPT, arXiv:2301.00774). They are clustered in steps of their channel, by k-means. `refit` does
both to a network, and `twin` keeps it so while the weights are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters.graph import OPTIONAL, Graph

Floats = npt.NDArray[np.float64]

WEIGHT_LEVELS = 127
FIXED_CENTROIDS = (-WEIGHT_LEVELS, 0, WEIGHT_LEVELS)
"""Of every codebook: a channel's largest weight stays what its step is told by, and pruned weights stay zero."""
LLOYD_STEPS = 30
FEWEST_WEIGHTS = 64
"""A smaller layer is neither pruned nor clustered: there is nothing to save."""
PRUNING_ROUNDS = 4
"""After each it is asked anew which weights are missed least."""
SETTLING_STEPS = 30
"""Of conjugate gradients, by which the weights that are left make up for the others."""
NEARLY_ZERO = 1e-30
"""What is kept is told from what is pruned by not being zero."""


@dataclass(frozen=True)
class Compression:
    """What happens to the weights of pointwise convolutions beyond their rounding."""

    sparsity: float = 0.0
    """Share of them that is zero."""
    clusters: int = 0
    """How many different values are left of the 255; 0 leaves all."""

    def __bool__(self) -> bool:
        return bool(self.sparsity or self.clusters)


def pointwise(graph: Graph, operator: Any) -> bool:
    """Whether an operator is a convolution of single pixels over a map: most weights are in these, and bear pruning."""
    if graph.kind(operator) != "CONV_2D" or len(operator.inputs) < 3:
        return False
    if any(index == OPTIONAL or graph.constant(int(index)) is None for index in operator.inputs[1:3]):
        return False
    shape, side = graph.shape(int(operator.inputs[1])), graph.shape(int(operator.outputs[0]))[1:3]
    return shape[1:3] == (1, 1) and side != (1, 1) and int(np.prod(shape)) >= FEWEST_WEIGHTS


def prune(weights: Floats, second: Floats, share: float) -> Floats:
    """Set a share of weights (out, in) to zero, as many of every row, to change little of what they give.

    `second` are the inputs' second moments (in, in). What goes is what the others make up for best; they do. Those that
    stay are not zero.
    """
    # As tensorflow-model-optimization counts, which is to find the same weights pruned.
    every = weights.size - int(np.round(np.float32(weights.size) * (np.float32(1.0) - np.float32(share))))
    missed, left, kept = 1 / np.diag(np.linalg.inv(second)), weights, weights != 0
    for number in range(1, PRUNING_ROUNDS + 1):
        zeros = every * number // PRUNING_ROUNDS
        counts = zeros // len(weights) + (np.arange(len(weights)) < zeros % len(weights))
        ranks = (left**2 * missed).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        kept = ranks >= counts[:, np.newaxis]
        left = _settle(weights, second, kept)
    return np.where(kept & (left == 0), NEARLY_ZERO, left)


def _settle(weights: Floats, second: Floats, kept: npt.NDArray[np.bool_]) -> Floats:
    """Return the weights that are `kept`, changed to make up for the others, by conjugate gradients, row by row."""
    found, inverse = weights * kept, 1 / np.diag(second)
    residual = ((weights - found) @ second) * kept
    step = residual * inverse
    power = (residual * step).sum(axis=1, keepdims=True)
    for _ in range(SETTLING_STEPS):
        curved = (step @ second) * kept
        length = power / np.maximum((step * curved).sum(axis=1, keepdims=True), NEARLY_ZERO)
        found, residual = found + length * step, residual - length * curved
        scaled, before = residual * inverse, power
        power = (residual * scaled).sum(axis=1, keepdims=True)
        step = scaled + power / np.maximum(before, NEARLY_ZERO) * step
    return found


def steps(weights: Floats) -> Floats:
    """Return the step that weights (out, in) are rounded to, for each row: (out, 1)."""
    found: Floats = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / WEIGHT_LEVELS, 1e-12)
    return found


def codebook(weights: Floats, clusters: int) -> Floats:
    """Choose the values that weights (out, in), in steps of their row, may take, in rising order.

    By k-means from evenly filled clusters; all of them where there are no more. Weights that are zero have their value,
    so that those that are pruned take none of the others'.
    """
    scaled = np.sort((weights / steps(weights)).ravel())
    scaled = scaled[np.round(scaled) != 0]
    different = np.unique(np.round(scaled))
    different = different[~np.isin(different, FIXED_CENTROIDS)]
    free = clusters - len(FIXED_CENTROIDS)
    if len(different) <= free:
        return np.sort(np.concatenate([different, FIXED_CENTROIDS]))
    centroids = np.quantile(scaled, (np.arange(free) + 0.5) / free) if free else np.empty(0)
    for _ in range(LLOYD_STEPS):
        book = np.sort(np.concatenate([centroids, FIXED_CENTROIDS]))
        nearest = np.searchsorted((book[1:] + book[:-1]) / 2, scaled)
        sums, counts = np.bincount(nearest, scaled, len(book)), np.bincount(nearest, minlength=len(book))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), book)
        centroids = means[~np.isin(book, FIXED_CENTROIDS)]
    return np.sort(np.concatenate([centroids, FIXED_CENTROIDS]))
