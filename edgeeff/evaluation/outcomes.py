"""What is kept of every image: a few numbers of each model's scores, as columns, so that memory stays small.

Ties are broken by index: of classes with the same score the lower index comes first, in top-1, in top-5 and in the
rank of the right class. `metrics` and `paired` make figures of these columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Columns = TypeVar("Columns", "Outcomes", "Divergences")

TOP = 5
_SMALLEST = 1e-12
"""Probability below which a class counts as having none: quantized softmax outputs are often exactly zero."""


@dataclass(frozen=True)
class Outcomes:
    """What one model said of n images; every column has n entries."""

    top1: Integers
    """Best class; -1 where a score is no number."""
    rank: Integers
    """How many classes come before the right one, so that 0 is top-1 right and below 5 top-5 right; -1 without a label,
    and the number of classes where a score is no number."""
    confidence: Floats
    """The largest probability, 0 where a score is no number."""
    tied: Flags
    """Several classes share the best score."""
    tied5: Flags
    """The fifth and sixth scores are the same; false with fewer than six classes."""
    finite: Flags
    """All scores are numbers."""


@dataclass(frozen=True)
class Divergences:
    """How far a model's probabilities are from the baseline's, for n images; NaN where either has no numbers."""

    kl: Floats
    """Kullback-Leibler divergence of the model's from the baseline's, in nats."""
    total_variation: Floats
    """Half the sum of absolute differences."""


def outcomes(scores: npt.NDArray[Any], labels: npt.NDArray[Any], *, logits: bool) -> Outcomes:
    """Return the columns of one model's scores (n, classes), which are logits or probabilities.

    Labels (n,) are -1 for none. The order of the classes is that of the scores as they are, not of a softmax of them.
    """
    scores = np.asarray(scores, np.float64)
    count, classes = scores.shape
    finite = np.isfinite(scores).all(axis=1)
    usable = np.where(finite[:, None], scores, 0.0)
    best = usable.max(axis=1)
    tied5 = np.zeros(count, bool)
    if classes > TOP:
        ordered = -np.partition(-usable, (TOP - 1, TOP), axis=1)
        tied5 = ordered[:, TOP - 1] == ordered[:, TOP]
    known = labels >= 0
    right = np.take_along_axis(usable, np.where(known, labels, 0)[:, None], axis=1)
    before = np.arange(classes) < labels[:, None]
    rank = (usable > right).sum(axis=1) + ((usable == right) & before).sum(axis=1)
    return Outcomes(
        top1=np.where(finite, usable.argmax(axis=1), -1).astype(np.int32),
        rank=np.where(known, np.where(finite, rank, classes), -1).astype(np.int32),
        confidence=np.where(finite, probabilities(usable, logits=logits).max(axis=1), 0.0),
        tied=((usable == best[:, None]).sum(axis=1) > 1) & finite,
        tied5=tied5 & finite,
        finite=finite,
    )


def divergences(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> Divergences:
    """Return how far the model's probabilities q (n, classes) are from the baseline's p; see `probabilities`."""
    finite = np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1)
    p, q = np.where(finite[:, None], p, 0.0), np.where(finite[:, None], q, 0.0)
    # A class that the model gives no probability at all would make the divergence infinite.
    kl = (p * (np.log(np.maximum(p, _SMALLEST)) - np.log(np.maximum(q, _SMALLEST)))).sum(axis=1)
    return Divergences(
        kl=np.where(finite, np.maximum(kl, 0.0), np.nan),
        total_variation=np.where(finite, np.abs(p - q).sum(axis=1) / 2, np.nan),
    )


def probabilities(scores: npt.NDArray[Any], *, logits: bool) -> Floats:
    """Return probabilities (n, classes), rows summing to 1: a softmax of logits, else the scores divided by their sum.

    A quantized softmax gives steps of 1/256, whose sum is not quite 1; where all are 0, no class has any probability.
    A row with a score that is no number is NaN.
    """
    finite = np.isfinite(scores).all(axis=1, keepdims=True)
    usable = np.where(finite, np.asarray(scores, np.float64), 0.0)
    if logits:
        usable = np.exp(usable - usable.max(axis=1, keepdims=True))
    sums = usable.sum(axis=1, keepdims=True)
    return np.where(finite, usable / np.where(sums == 0, 1.0, sums), np.nan)


def join(parts: Sequence[Columns]) -> Columns:
    """Put the columns of several batches one after the other."""
    kind = type(parts[0])
    names = [field.name for field in fields(kind)]
    return kind(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
