"""Histograms that grow with their values, and rules that choose ranges from them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.calibration import ranges
from edgeeff.calibration.ranges import RULES, SATURATED, After, Histogram, Rule, choose, collect
from edgeeff.converters.graph import Graph
from edgeeff.errors import CalibrationError, ModelError
from tests import tiny

MIN_MAX, PERCENTILE, L1 = RULES[0], Rule("p", "percentile", 99.0), Rule("L1", "error", 1.0)
Floats = npt.NDArray[np.float32]


def histogram(*parts: npt.ArrayLike) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(np.asarray(part, np.float32))
    return made


def bell(size: int = 50_000, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, size).astype(np.float32)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def quantized_error(values: Floats, low: float, high: float, after: After, power: float) -> float:
    """The error that a range really makes, by quantizing every value."""
    step = (high - low) / 255
    x = values.astype(np.float64)
    q = np.clip(np.rint(x / step), np.rint(low / step), np.rint(high / step)) * step
    functions = {"itself": lambda v: v, "swish": lambda v: v * sigmoid(v), "sigmoid": sigmoid}
    return float(np.mean(np.abs(functions[after](q) - functions[after](x)) ** power))


# --- Histograms -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), min_size=1, max_size=5))
def test_nothing_is_lost_however_the_values_grow(parts: list[list[float]]) -> None:
    made = histogram(*parts)
    values = np.concatenate([np.asarray(part, np.float32) for part in parts])
    assert (made.low, made.high) == (values.min(), values.max())
    assert made.total == len(values)
    assert made.zeros == np.count_nonzero(np.abs(values) <= ranges.SMALLEST)
    assert made.counts[: ranges.BINS].sum() == np.count_nonzero(values < -ranges.SMALLEST)
    assert made.width * ranges.BINS >= np.abs(values).max()


def test_a_histogram_that_grew_is_the_one_that_knew_all_along() -> None:
    small, large = bell(seed=1), bell(seed=2) * 40
    grown, known = histogram(small, large), histogram(large, small)
    # The widths are a power of two apart at most; the same values lie below any edge of the coarser one.
    ratio = max(grown.width, known.width) / min(grown.width, known.width)
    assert 0.5 <= ratio <= 2
    for share in (0.9, 0.99):
        low, high = (choose(made, Rule("p", "percentile", 100 * share)) for made in (grown, known))
        assert low == pytest.approx(high, abs=4 * max(grown.width, known.width))


def test_a_large_tensor_gives_an_even_share_of_every_channel() -> None:
    channels = np.arange(1, 97, dtype=np.float32)
    made = histogram(np.broadcast_to(channels, (1, 112, 112, 96)))
    assert made.total <= ranges.MOST_VALUES
    assert made.high == 96
    bins = np.floor(channels / np.float32(made.width)).astype(int) + ranges.BINS
    counts = made.counts[np.minimum(bins, 2 * ranges.BINS - 1)]
    assert counts.min() > 0.9 * counts.max()


def test_a_tensor_of_zeros_has_an_empty_range() -> None:
    """Until one value comes, of whatever size."""
    made = histogram(np.zeros(10), np.zeros(5))
    assert made.total == made.zeros == 15
    assert {choose(made, rule) for rule in RULES} == {(0.0, 0.0)}
    made.add(np.array([2.0], np.float32))
    assert choose(made, MIN_MAX) == (0.0, 2.0)


# --- Rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["itself", "swish", "sigmoid"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
def test_every_range_holds_zero_and_no_more_than_the_values(rule: Rule, after: After, values: list[float]) -> None:
    low, high = choose(histogram(values), rule, after)
    assert min(*values, 0) <= low <= 0 <= high <= max(*values, 0)
    assert low < high or not any(values)


def test_min_max_clips_nothing() -> None:
    values = np.concatenate([bell(), [-90, 70]])
    assert choose(histogram(values), MIN_MAX) == (-90, 70)


def test_a_percentile_cuts_its_share_off_each_side() -> None:
    values = bell()
    low, high = choose(histogram(values), PERCENTILE)
    assert 0.008 < np.mean(values < low) <= 0.01
    assert 0.008 < np.mean(values > high) <= 0.01


def test_a_percentile_of_few_values_is_all_of_them() -> None:
    assert choose(histogram([-1, 2, 3, 50]), PERCENTILE) == (-1, 50)


def test_the_flat_tail_before_swish_is_cut_off() -> None:
    values = bell() * 40
    assert choose(histogram(values), PERCENTILE, "swish")[0] == -SATURATED
    assert choose(histogram(values), PERCENTILE, "sigmoid") == (-SATURATED, SATURATED)
    assert choose(histogram(values), PERCENTILE)[0] < -80


@pytest.mark.parametrize("after", ["itself", "swish", "sigmoid"])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_least_error_is_really_the_least(power: float, after: After) -> None:
    """Against all ranges of a grid, quantized value by value."""
    values = np.concatenate([bell(20_000) * 3, bell(200, seed=3) * 30])
    low, high = choose(histogram(values), Rule("", "error", power), after)
    chosen = quantized_error(values, low, high, after, power)
    least = min(
        quantized_error(values, float(values.min()) * a, float(values.max()) * b, after, power)
        for a in np.geomspace(1, 1 / 32, 12)
        for b in np.geomspace(1, 1 / 32, 12)
    )
    assert chosen <= 1.1 * least
    assert chosen < quantized_error(values, float(values.min()), float(values.max()), after, power)


def test_outliers_weigh_more_the_higher_the_power() -> None:
    values = np.concatenate([bell(), np.linspace(10, 100, 50)])
    highs = [choose(histogram(values), rule)[1] for rule in RULES if rule.kind == "error"]
    assert [rule.value for rule in RULES if rule.kind == "error"] == [2.0, 1.5, 1.0]
    assert highs == sorted(highs, reverse=True)
    assert highs[0] > 2 * highs[-1]


def test_zeros_cost_nothing_however_many() -> None:
    """They are exact in every range, so they do not speak for a narrower one."""
    values = np.concatenate([np.abs(bell()), [20.0]])
    assert choose(histogram(values), L1) == choose(histogram(values, np.zeros(10**6)), L1)


# --- Collecting -------------------------------------------------------------------------------------------------------


def watched(content: bytes) -> dict[str, int]:
    graph = Graph(content)
    return {graph.name(int(operator.outputs[0])): int(operator.outputs[0]) for operator in graph.operators}


def test_every_tensor_is_seen_with_its_true_extremes() -> None:
    content, photos = tiny.classifier(), tiny.images(6)
    found = collect(content, watched(content), photos)
    assert set(found) == set(watched(content))
    scores = np.stack([tiny.run(content, photo) for photo in photos])
    assert (found["scores"].low, found["scores"].high) == (scores.min(), scores.max())
    assert found["conv"].total == 6 * 4 * 4 * 8
    assert found["conv"].low == 0 < found["conv"].high


def test_memory_does_not_grow_with_the_images() -> None:
    content = tiny.classifier()

    def peak(count: int) -> int:
        def photos() -> Iterator[npt.NDArray[np.uint8]]:
            for seed in range(count):
                yield tiny.images(1, seed=seed)[0]

        tracemalloc.start()
        collect(content, watched(content), photos())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few = peak(10)
    assert peak(400) < few + 200_000


def test_ticks_and_threads() -> None:
    ticks: list[int] = []
    collect(tiny.classifier(), {}, tiny.images(3), threads=2, tick=lambda: ticks.append(1))
    assert len(ticks) == 3


def test_no_image_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no calibration image was given"):
        collect(tiny.classifier(), {}, [])


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    content = tiny.classifier(preprocessing=[tiny.Step("ADD", 1.0), tiny.Step("MUL", 1e36), tiny.Step("MUL", 1e36)])
    with pytest.raises(CalibrationError, match="not finite, first in 'step2'"):
        collect(content, watched(content), tiny.images(1))


def test_a_model_that_does_not_run_is_refused() -> None:
    with pytest.raises(ModelError, match="LiteRT cannot load"):
        collect(b"no model", {}, tiny.images(1))
    with pytest.raises(ModelError, match="LiteRT cannot run"):
        collect(tiny.classifier(), {}, tiny.images(1, size=9))
