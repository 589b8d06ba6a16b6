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
    Tibshirani, An Introduction to the Bootstrap (1993), chapter 8. With one group the interval has no width.
    """
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(groups), (RESAMPLES, len(groups)))
    values = [statistic(np.concatenate([groups[index] for index in draw])) for draw in np.unique(draws, axis=0)]
    weights = np.unique(draws, axis=0, return_counts=True)[1]
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    tail = (1 - confidence) / 2
    low = values[order[int(np.searchsorted(cumulative, tail))]]
    high = values[order[min(int(np.searchsorted(cumulative, 1 - tail)), len(order) - 1)]]
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
