"""Summaries of measured figures and their intervals; NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgeeff.results import Latency

RESAMPLES = 2000
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
    return Latency(
        p50_s=float(np.percentile(pooled, 50)),
        p90_s=float(np.percentile(pooled, 90)),
        mean_s=float(pooled.mean()),
        min_s=float(pooled.min()),
        interval_s=bootstrap_interval(processes, lambda samples: float(np.median(samples))),
        runs=len(pooled),
        processes=len(processes),
    )
