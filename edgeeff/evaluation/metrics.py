"""How right one model is: figures of its outcomes against the labels, and what its scores are like without any.

Means over classes are over those with at least one image, and a class that a model never says has precision 0 in
them: scikit-learn's figures with `labels` those classes and `zero_division=0`. Two models against each other are
`paired`'s.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgeeff.evaluation.outcomes import TOP, Floats, Outcomes
from edgeeff.results import Metrics, Outputs

BINS = 15
"""Of the calibration error: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks (2017)."""
Indices = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]


def confusion(labels: Indices, predicted: Indices, classes: int) -> Counts:
    """Count images by right class (rows) and predicted class (columns); shape (classes, classes).

    Images without a label (-1), and those without a prediction (-1), are in no cell.
    """
    used = (labels >= 0) & (predicted >= 0)
    keys = labels[used].astype(np.int64) * classes + predicted[used]
    return np.bincount(keys, minlength=classes * classes).reshape(classes, classes)


def cells(matrix: Counts) -> tuple[tuple[int, int, int], ...]:
    """Return row, column and count of the cells that are not empty, row by row."""
    rows, columns = np.nonzero(matrix)
    return tuple(zip(rows.tolist(), columns.tolist(), matrix[rows, columns].tolist(), strict=True))


def counts(labels: Indices, predicted: Indices, classes: int) -> tuple[Counts, Counts, Counts]:
    """Return, for every class, its images, the images that the model says are of it, and those of them that are.

    Images without a label are in none of the three.
    """
    known = labels >= 0
    labels, predicted = labels[known], predicted[known]
    return (
        np.bincount(labels, minlength=classes),
        np.bincount(predicted[predicted >= 0], minlength=classes),
        np.bincount(labels[labels == predicted], minlength=classes),
    )


def rates(support: Floats | Counts, said: Floats | Counts, right: Floats | Counts) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 of every class from its counts; 0 where there is nothing to divide by."""
    precision = right / np.where(said > 0, said, 1)
    recall = right / np.where(support > 0, support, 1)
    f1 = 2 * right / np.where(support + said > 0, support + said, 1)
    return precision, recall, f1


def metrics(labels: Indices, outcomes: Outcomes, classes: int) -> Metrics:
    """Return how right a model is on the images that have a label; there must be one at least.

    An image with a score that is no number is wrong, with a confidence of 0.
    """
    known = labels >= 0
    images = int(known.sum())
    support, said, right = counts(labels, outcomes.top1, classes)
    present = support > 0
    precision, recall, f1 = (rate[present] for rate in rates(support, said, right))
    weights = support[present] / images
    correct = (outcomes.top1 == labels)[known]
    return Metrics(
        top1=int(correct.sum()) / images,
        top1_interval=wilson(int(correct.sum()), images),
        top5=int((outcomes.rank[known] < TOP).sum()) / images if classes > TOP else None,
        balanced_accuracy=float(recall.mean()),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        weighted_precision=float(weights @ precision),
        weighted_recall=float(weights @ recall),
        weighted_f1=float(weights @ f1),
        calibration_error=calibration_error(outcomes.confidence[known], correct),
    )


def outputs(outcomes: Outcomes, classes: int) -> Outputs:
    """Return what a model's scores are like on all images; there must be one at least.

    An image with a score that is no number has confidence 0 and no best class.
    """
    images = len(outcomes.top1)
    said = np.bincount(outcomes.top1[outcomes.finite], minlength=classes)
    return Outputs(
        mean_confidence=float(outcomes.confidence.mean()),
        top1_ties=int(outcomes.tied.sum()) / images,
        top5_ties=int(outcomes.tied5.sum()) / images if classes > TOP else None,
        predicted_classes=int((said > 0).sum()),
        commonest_share=int(said.max()) / images,
        not_finite=images - int(outcomes.finite.sum()),
    )


def calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, bin by bin.

    The bins have equal width and hold their upper edge; the first holds 0, too. Source: see `BINS`.
    """
    bins = np.clip(np.digitize(confidence, np.linspace(0, 1, BINS + 1), right=True) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def quantile(confidence: float) -> float:
    """Return how many standard deviations of a normal distribution to either side hold `confidence` of it."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; (0, 1) where n is 0.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    return score_interval(successes, n, quantile(confidence))


def score_interval(successes: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's interval z standard deviations wide to either side."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and at n one end is exact; rounding would put it beside.
    low = max(0.0, (centre - half) / scale) if successes > 0 else 0.0
    high = min(1.0, (centre + half) / scale) if successes < n else 1.0
    return low, high
