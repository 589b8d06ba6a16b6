"""Activation ranges: a histogram of every tensor from one pass over the images, and rules that choose a range from it.

No rule is best for every network: clipping rare values costs an EfficientNet-Lite accuracy and saves one with swish
(docs/decisions/recovery.md). So several rules are offered, each an opinion on what an error costs; `converters.recover`
decides which of them a network gets, and knows the graph: what is computed from a tensor (`After`) and which tensors
share one scale. LiteRT only, one image in memory at a time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeeff.errors import CalibrationError, MissingExtraError, ModelError

Range = tuple[float, float]
Floats = npt.NDArray[np.float64]

After = Literal["itself", "swish", "sigmoid"]
"""What a tensor is read by: where the next operator is flat, an error does not matter."""

BINS = 4096
"""On each side of zero."""
MOST_VALUES = 1 << 16
"""Of a tensor that go into its histogram for one image; the smallest and the largest value are those of all."""
SMALLEST = 1e-30
"""Values closer to zero are zero."""
LEVELS = 255
"""Steps of an 8-bit range."""
SATURATED = 8.0
"""Below minus this, swish and sigmoid are within 0.003 of 0; above it the sigmoid is as close to 1."""
SMALLEST_SHARE, SHARES = 1 / 64, 73
"""How far the search shortens a side of the range, and in how many even ratios."""


class Histogram:
    """Counts of the values that a tensor had, in bins of equal width on both sides of zero.

    The width doubles whenever a value lies outside, so the values need not be known before. Zeros, and what is as good
    as zero, are counted on their own: a quantized range always holds zero without error.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.zeros = 0
        self.width = 0.0
        self.counts: npt.NDArray[np.int64] = np.zeros(2 * BINS, np.int64)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum()) + self.zeros

    @property
    def centers(self) -> Floats:
        """The middle of each bin."""
        middles: Floats = np.arange(-BINS + 0.5, BINS) * np.float64(self.width)
        return middles

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the finite values of a tensor of any shape, channels last; of a large one an even share."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        flat = values.reshape(-1)[:: _stride(values.size, values.shape[-1] if values.ndim else 1)]
        there = flat[np.abs(flat) > SMALLEST]
        self.zeros += flat.size - there.size
        if there.size:
            bins = np.floor(there / np.float32(self.width)).astype(np.int64) + BINS
            self.counts += np.bincount(np.clip(bins, 0, 2 * BINS - 1), minlength=2 * BINS)

    def _reach(self, largest: float) -> None:
        if self.width == 0:
            self.width = max(largest, SMALLEST) / BINS
        while largest > self.width * BINS:
            left = self.counts[:BINS].reshape(-1, 2).sum(axis=1)
            right = self.counts[BINS:].reshape(-1, 2).sum(axis=1)
            outer = np.zeros(BINS // 2, np.int64)
            self.counts = np.concatenate([outer, left, right, outer])
            self.width *= 2


@dataclass(frozen=True)
class Rule:
    """An opinion on which values a range may leave out."""

    name: str
    kind: Literal["min/max", "percentile", "error"]
    value: float = 0.0
    """The percentile of each side, or the power of the error that is made smallest: 1 absolute, 2 squared."""


RULES = (
    Rule("min/max", "min/max"),
    Rule("L2", "error", 2.0),
    Rule("percentile 99.99", "percentile", 99.99),
    Rule("L1.5", "error", 1.5),
    Rule("percentile 99.9", "percentile", 99.9),
    Rule("L1", "error", 1.0),
)
"""From the most careful to the boldest."""


def collect(
    content: bytes,
    tensors: Mapping[str, int],
    images: Iterable[npt.NDArray[np.uint8]],
    *,
    threads: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Histogram]:
    """Run images (height, width, 3; uint8 pixels) through a float .tflite of batch 1; return histograms of its tensors.

    `tensors` has the names and indices of those to watch, all float32; `tick` is called after each image. Raises
    CalibrationError when there is no image or when a value is not finite, ModelError when LiteRT cannot run the model.
    """
    interpreter = _interpreter(content, threads)
    entry = interpreter.get_input_details()[0]["index"]
    histograms = {name: Histogram() for name in tensors}
    count = 0
    for image in images:
        try:
            interpreter.set_tensor(entry, image[np.newaxis].astype(np.float32))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot run the float model: {error}") from error
        for name, index in tensors.items():
            values = interpreter.get_tensor(index)
            if not np.isfinite(values).all():
                raise CalibrationError(
                    f"the float model computes values that are not finite, first in '{name}': its weights are broken "
                    "or its input is not what it was trained on (--input-range)"
                )
            histograms[name].add(values)
        count += 1
        tick()
    if count == 0:
        raise CalibrationError("no calibration image was given; activation ranges need at least one")
    return histograms


def choose(histogram: Histogram, rule: Rule, after: After = "itself") -> Range:
    """Return the range (low <= 0 <= high) that a rule gives a tensor, inside what the tensor had."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if rule.kind == "min/max" or low == high:
        return low, high
    if rule.kind == "percentile":
        low, high = _percentile(histogram, rule.value / 100, low, high)
        if after != "itself":
            low = max(low, -SATURATED)
        if after == "sigmoid":
            high = min(high, SATURATED)
        return (low, high) if low < high else (min(histogram.low, 0.0), max(histogram.high, 0.0))
    return _least_error(histogram, rule.value, after, low, high)


def _percentile(histogram: Histogram, share: float, low: float, high: float) -> Range:
    """Cut the share of 1 - `share` off on each side, but never more values than that."""
    counts = histogram.counts.astype(np.float64)
    counts[BINS] += histogram.zeros
    allowed = (1 - share) * histogram.total
    below = np.cumsum(counts)
    above = np.cumsum(counts[::-1])[::-1]
    first = int(np.argmax(below > allowed))
    last = 2 * BINS - 1 - int(np.argmax(above[::-1] > allowed))
    edges = (np.arange(-BINS, BINS + 1)) * histogram.width
    return max(low, min(float(edges[first]), 0.0)), min(high, max(float(edges[last + 1]), 0.0))


def _least_error(histogram: Histogram, power: float, after: After, low: float, high: float) -> Range:
    """Search the range with the least mean error |f(q(x)) - f(x)|^p, f being what comes after.

    A value inside is off by a rounding error that is uniform in half a step s to either side: its mean p-th power is
    (s |f'(x)| / 2)^p / (p + 1). A value outside becomes the bound.
    """
    used = np.flatnonzero(histogram.counts)
    x = histogram.centers[used]
    weight = histogram.counts[used].astype(np.float64)
    value, slope = _function(after, x)
    sensitivity = np.concatenate([[0.0], np.cumsum(weight * np.abs(slope) ** power)])
    shares = np.geomspace(1.0, SMALLEST_SHARE, SHARES)
    lows = low * shares if low < 0 else np.zeros(1)
    highs = high * shares if high > 0 else np.zeros(1)
    under = np.array([_clipped(x, value, weight, bound, after, power, x < bound) for bound in lows])
    over = np.array([_clipped(x, value, weight, bound, after, power, x > bound) for bound in highs])
    inside = sensitivity[np.searchsorted(x, highs)][None, :] - sensitivity[np.searchsorted(x, lows)][:, None]
    step = (highs[None, :] - lows[:, None]) / LEVELS
    error = under[:, None] + over[None, :] + inside * (step / 2) ** power / (power + 1)
    # Of equal errors the widest range, which comes first.
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _clipped(
    x: Floats, value: Floats, weight: Floats, bound: float, after: After, power: float, which: npt.NDArray[np.bool_]
) -> float:
    at_bound, _ = _function(after, np.array([bound]))
    return float((weight[which] * np.abs(value[which] - at_bound[0]) ** power).sum())


def _function(after: After, x: Floats) -> tuple[Floats, Floats]:
    """Values and slopes of what comes after a tensor."""
    if after == "itself":
        return x, np.ones_like(x)
    gate: Floats = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    if after == "sigmoid":
        return gate, gate * (1 - gate)
    return x * gate, gate * (1 + x * (1 - gate))


def _stride(size: int, channels: int) -> int:
    """The step through a flat tensor that leaves at most MOST_VALUES and passes over all channels alike."""
    step = -(-size // MOST_VALUES)
    while step > 1 and math.gcd(step, channels) != 1:
        step += 1
    return step


def _interpreter(content: bytes, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("LiteRT (ai-edge-litert)", "host") from error
    try:
        with warnings.catch_warnings():
            # It warns of the memory that keeping every tensor takes, which is what this is about.
            warnings.simplefilter("ignore")
            interpreter = Interpreter(
                model_content=content, num_threads=threads, experimental_preserve_all_tensors=True
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"LiteRT cannot load the float model: {error}") from error
    return interpreter
