"""Summaries of measured figures and their intervals; NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgeeff.results import Latency

RESAMPLES = 2000
P99_RUNS = 1000
"""Fewer samples leave fewer than ten above the 99th percentile."""
OUTLIER = 3.5 / 0.6745
"""In median absolute deviations: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993)."""
Samples = npt.NDArray[np.float64]


def bootstrap_interval(
    groups: Sequence[Samples], statistic: Callable[[Samples], float], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of a statistic of the pooled samples, resampling whole groups.

    Samples of one process share its luck (memory layout, frequency), so processes are drawn, not samples: Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), chapter 8. The statistic must not look at the samples' order.
    No group may be empty; with one group the interval has no width.
    """
    generator = np.random.default_rng(seed)
    draws = np.sort(generator.integers(0, len(groups), (RESAMPLES, len(groups))), axis=1)
    # Few groups give the same draw many times: five give 126 different ones.
    distinct, counts = np.unique(draws, axis=0, return_counts=True)
    values = np.array([statistic(np.concatenate([groups[index] for index in draw])) for draw in distinct])
    order = np.argsort(values)
    cumulative = np.cumsum(counts[order]) / RESAMPLES
    tail = (1 - confidence) / 2
    low, high = values[order[np.searchsorted(cumulative, (tail, 1 - tail))]]
    return float(low), float(high)


def summarize_latency(processes: Sequence[Samples]) -> Latency:
    """Summarize the latencies (seconds) of every process; none may be empty."""
    pooled = np.concatenate(processes)
    far, mad = outliers(pooled)
    return Latency(
        p50_s=float(np.percentile(pooled, 50)),
        p90_s=float(np.percentile(pooled, 90)),
        mean_s=float(pooled.mean()),
        min_s=float(pooled.min()),
        interval_s=bootstrap_interval(processes, lambda samples: float(np.median(samples))),
        runs=len(pooled),
        processes=len(processes),
        p99_s=float(np.percentile(pooled, 99)) if len(pooled) >= P99_RUNS else None,
        mad_s=mad,
        outliers=int(far.sum()),
        process_p50_s=tuple(float(np.median(samples)) for samples in processes),
        process_p90_s=tuple(float(np.percentile(samples, 90)) for samples in processes),
        process_p99_s=tuple(float(np.percentile(samples, 99)) for samples in processes),
    )


T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 %, from 1 degree of freedom on."""


def relative_interval(values: Sequence[float]) -> float | None:
    """Return how far a 95 % interval of the mean logarithm reaches to either side; None of fewer than two values.

    Each value is a process's. Of a few processes a bootstrap draws too narrow an interval; Student's t does not where
    their logarithms are near normal. For more than ten the factor of ten is taken, which is a little too wide.
    """
    if len(values) < 2:
        return None
    freedom = min(len(values) - 1, len(T_QUANTILES))
    return T_QUANTILES[freedom - 1] * float(np.log(values).std(ddof=1)) / math.sqrt(len(values))


def outliers(values: Samples) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which of the values are outliers, and the median absolute deviation that this is told by."""
    distance = np.abs(values - np.median(values))
    mad = float(np.median(distance))
    return distance > OUTLIER * mad, mad


def ratio_interval(before: Samples, after: Samples, *, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio of the medians of `after` and `before`, and its 95 % percentile bootstrap interval.

    Each value is a process's, and both sides are resampled. All must be above zero. With one value on a side, that
    side adds nothing to the width.
    """
    generator = np.random.default_rng(seed)

    def medians(values: Samples) -> Samples:
        drawn: Samples = np.median(values[generator.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)
        return drawn

    ratios = medians(after) / medians(before)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(np.median(after) / np.median(before)), float(low), float(high)


def spread(groups: Sequence[Samples]) -> tuple[float, float]:
    """Return the standard deviations between groups and within them, by one-way analysis of variance.

    What the groups' means would differ anyway, because each is a mean of few values, is taken off; what is left of the
    variance between groups is not below zero. With one group, or one value in each, the part that cannot be told is 0.
    """
    sizes = np.array([len(group) for group in groups], np.float64)
    means = np.array([group.mean() for group in groups])
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    freedom = float(sizes.sum()) - len(groups)
    within = squares / freedom if freedom > 0 else 0.0
    if len(groups) < 2:
        return 0.0, within**0.5
    between = float(means.var(ddof=1)) - within * float((1 / sizes).mean())
    return max(0.0, between) ** 0.5, within**0.5


def rising(values: Samples) -> Samples:
    """Return the nearest values, in least squares, of which none is below the one before it.

    Pool-adjacent-violators: Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions
    (1972).
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            before, members = pools.pop()
            mean = (before * members + mean * count) / (members + count)
            count += members
        pools.append((mean, count))
    return np.repeat([mean for mean, _ in pools], [count for _, count in pools])
