"""Latency summaries and bootstrap intervals, against known values, theory and properties."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeeff.results import Latency
from edgeeff.statistics import bootstrap_interval, outliers, ratio_interval, rising, spread, summarize_latency

Samples = npt.NDArray[np.float64]


def mean(samples: Samples) -> float:
    return float(samples.mean())


def median(samples: Samples) -> float:
    return float(np.median(samples))


latencies = arrays.arrays(np.float64, st.integers(1, 8), elements=st.floats(1e-4, 10))
processes = st.lists(latencies, min_size=1, max_size=5)


def test_a_summary_has_the_known_values() -> None:
    first, second = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.6, 0.7, 0.8, 0.9, 1.0])
    latency = summarize_latency([first, second])
    # Ten values a tenth apart: linear interpolation puts the p50 at rank 4.5 and the p90 at rank 8.1, from 0.
    assert (latency.p50_s, latency.p90_s) == pytest.approx((0.55, 0.91))
    assert (latency.mean_s, latency.min_s) == pytest.approx((0.55, 0.1))
    assert (latency.runs, latency.processes) == (10, 2)
    # The draws are (first, first), (second, second) and, half of the time, both.
    assert latency.interval_s == pytest.approx((0.3, 0.8))


def test_one_run_is_summarized() -> None:
    once = (0.25,)
    expected = Latency(
        0.25,
        0.25,
        0.25,
        0.25,
        (0.25, 0.25),
        1,
        1,
        mad_s=0.0,
        outliers=0,
        process_p50_s=once,
        process_p90_s=once,
        process_p99_s=once,
    )
    assert summarize_latency([np.array([0.25])]) == expected


@given(processes)
@settings(deadline=None)
def test_the_figures_of_a_summary_are_in_order(groups: list[Samples]) -> None:
    latency = summarize_latency(groups)
    low, high = latency.interval_s
    largest = max(group.max() for group in groups)
    assert latency.min_s <= low <= high <= largest
    assert latency.min_s <= latency.p50_s <= latency.p90_s <= largest
    assert latency.min_s <= latency.mean_s * (1 + 1e-12)


@given(processes, st.permutations(range(8)))
@settings(deadline=None)
def test_the_interval_ignores_the_order_of_samples_and_widens_with_confidence(
    groups: list[Samples], order: list[int]
) -> None:
    shuffled = [group[[index for index in order if index < len(group)]] for group in groups]
    narrow, wide = (bootstrap_interval(groups, median, confidence=level) for level in (0.5, 0.99))
    assert bootstrap_interval(shuffled, median, confidence=0.5) == narrow
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


@given(latencies)
@settings(deadline=None)
def test_one_process_says_nothing_about_other_processes(group: Samples) -> None:
    assert bootstrap_interval([group], median) == (median(group), median(group))


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=5))
@settings(deadline=None)
def test_symmetric_data_have_their_centre_inside(offsets: list[float]) -> None:
    groups = [np.array([10 + sign * offset]) for offset in offsets for sign in (-1, 1)]
    low, high = bootstrap_interval(groups, mean)
    assert low < 10 < high


def test_with_many_groups_the_interval_of_a_mean_is_the_textbook_one() -> None:
    samples = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_interval([samples[[index]] for index in range(400)], mean)
    half = 1.959964 * samples.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((samples.mean() - half, samples.mean() + half), abs=0.1 * half)


def test_groups_are_drawn_whole() -> None:
    # A thousand samples a process do not narrow what two processes can say.
    slow, fast = np.full(1000, 2.0), np.full(1000, 1.0)
    assert bootstrap_interval([slow, fast], mean) == (1.0, 2.0)


def test_three_groups_give_the_exact_distribution() -> None:
    # 27 equal draws of three processes: 1 of 27 (3.7 %) is all the smallest, more than the tail of 2.5 %;
    # 1 + 3 of 27 (14.8 %) have at most one middle value beside it.
    groups = [np.array([0.0]), np.array([3.0]), np.array([6.0])]
    assert bootstrap_interval(groups, mean, confidence=0.95) == (0.0, 6.0)
    assert bootstrap_interval(groups, mean, confidence=0.90) == pytest.approx((1.0, 5.0))
    assert bootstrap_interval(groups, mean, confidence=0.60) == pytest.approx((2.0, 4.0))


def test_the_interval_is_the_same_in_every_run() -> None:
    random = np.random.default_rng(2)
    groups = [random.gamma(2, 1, 20) for _ in range(6)]
    assert bootstrap_interval(groups, median) == bootstrap_interval(groups, median)
    assert bootstrap_interval(groups, median, seed=1) == pytest.approx(bootstrap_interval(groups, median), rel=0.1)


# --- Outliers, ratios, spreads ----------------------------------------------------------------------------------------


def test_outliers_are_counted_and_kept() -> None:
    samples = np.concatenate([np.linspace(1.0, 1.1, 99), [5.0]])
    latency = summarize_latency([samples])
    assert latency.outliers == 1
    assert latency.mean_s == pytest.approx(samples.mean())
    assert latency.mad_s == pytest.approx(0.025, abs=0.002)


def test_a_p99_takes_a_thousand_runs() -> None:
    assert summarize_latency([np.linspace(1, 2, 999)]).p99_s is None
    assert summarize_latency([np.linspace(1, 2, 500)] * 2).p99_s == pytest.approx(1.99, abs=0.01)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_outliers_are_the_same_in_every_unit_and_never_half_of_all(values: list[float], unit: float) -> None:
    far, mad = outliers(np.array(values))
    assert far.sum() <= len(values) / 2
    assert mad >= 0
    scaled = np.array(values) * 2.0 ** round(np.log2(unit))  # exact, so that no value crosses the border
    assert (outliers(scaled)[0] == far).all()


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=8), st.floats(0.1, 10.0))
@settings(deadline=None)
def test_the_ratio_of_scaled_figures_is_the_scale(values: list[float], scale: float) -> None:
    before = np.array(values)
    ratio, low, high = ratio_interval(before, before * scale)
    assert ratio == pytest.approx(scale)
    assert low <= ratio * (1 + 1e-9)
    assert high >= ratio * (1 - 1e-9)


def test_a_ratio_is_as_sure_as_its_processes() -> None:
    steady = np.array([1.0, 1.001, 0.999, 1.0, 1.0])
    shaky = np.array([1.0, 1.3, 0.8, 1.1, 0.9])
    _, low, high = ratio_interval(steady, steady * 0.9)
    assert high < 0.91
    assert low > 0.89
    _, low, high = ratio_interval(shaky, shaky * 0.9)
    assert low < 0.8
    assert high > 1


def test_the_spread_of_boards_is_what_processes_do_not_explain() -> None:
    apart = [np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([3.0, 3.0])]
    assert spread(apart) == (1.0, 0.0)
    alike = [np.array([1.0, 3.0]), np.array([3.0, 1.0])]
    assert spread(alike) == pytest.approx((0.0, 2**0.5))
    assert spread([np.array([1.0, 3.0])]) == pytest.approx((0.0, 2**0.5))
    assert spread([np.array([1.0]), np.array([3.0])]) == pytest.approx((2**0.5, 0.0))


@given(st.lists(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), min_size=1, max_size=8))
def test_spreads_are_never_negative_and_grow_with_distance(groups: list[list[float]]) -> None:
    between, within = spread([np.array(group) for group in groups])
    assert between >= 0
    assert within >= 0
    moved = [np.array(group) + 1e4 * index for index, group in enumerate(groups)]
    assert spread(moved)[0] >= between or len(groups) == 1


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30))
def test_rising_values_keep_their_sum_and_those_that_rise_stay(values: list[float]) -> None:
    found = rising(np.array(values))
    assert (np.diff(found) >= 0).all()
    assert found.sum() == pytest.approx(sum(values))
    assert rising(np.array(sorted(values))) == pytest.approx(sorted(values))


def test_what_falls_is_levelled() -> None:
    assert rising(np.array([1.0, 3.0, 2.0, 5.0])) == pytest.approx([1.0, 2.5, 2.5, 5.0])
