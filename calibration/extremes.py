"""Which images set a network's activation ranges, how alike halves of a set are, and how many images are enough.

One pass: of every tensor its lowest and highest value in every image go by, and what is kept does not grow with their
number, but for the snapshots after 8, 16, 32 images and so on. Where the values come from is left to the callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from edgeeff.results import Growth, LoneImage, TensorStability

Floats = npt.NDArray[np.float64]

FIRST = 8
"""Images after which the ranges are looked at for the first time; then whenever there are twice as many."""
NARROWER = 0.9
"""A range that one image makes wider than this part of what it is, is set by that image alone."""
MEDIAN_GROWTH, LOWEST_GROWTH = 0.05, 0.2
"""How much twice as many images may widen the ranges of half of the tensors, and of nine in ten, and still be said to
bring nothing more. A step of an 8-bit range grows by as much."""
LOWEST = 10
"""The percentile that stands for the worst tensors."""
WORST = 5
"""Tensors and images that are named."""


@dataclass(frozen=True)
class Stability:
    """How alike both halves of a set are, 0 to 1, over the tensors."""

    median: float
    lowest: float
    worst: tuple[TensorStability, ...]


class Extremes:
    """Running ranges of many tensors."""

    def __init__(self, names: Sequence[str], blocks: Sequence[str]) -> None:
        """Prepare for tensors of these names, of these blocks of the network ("" where unknown)."""
        self.names, self._blocks = tuple(names), tuple(blocks)
        count = len(self.names)
        self.count = 0
        self._images: list[str] = []
        """Of those that hold or held an extreme."""
        # Of each tensor the two lowest and the two highest values, of different images, and which these are. All start
        # at zero, which every range holds.
        self._low, self._high = np.zeros((2, count)), np.zeros((2, count))
        self._low_image, self._high_image = np.full(count, -1), np.full(count, -1)
        self._half_low, self._half_high = np.zeros((2, count)), np.zeros((2, count))
        self._snapshots: list[tuple[int, Floats]] = []

    def add(self, image: str, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        """Take the lowest and highest value of every tensor (tensors,) in an image of that name."""
        lows, highs = np.asarray(low, np.float64), np.asarray(high, np.float64)
        below, above = lows < self._low[0], highs > self._high[0]
        if below.any() or above.any():
            self._low_image[below] = self._high_image[above] = len(self._images)
            self._images.append(image)
        self._low[1] = np.where(below, self._low[0], np.minimum(self._low[1], lows))
        self._high[1] = np.where(above, self._high[0], np.maximum(self._high[1], highs))
        self._low[0], self._high[0] = np.minimum(self._low[0], lows), np.maximum(self._high[0], highs)
        half = self.count % 2
        self._half_low[half] = np.minimum(self._half_low[half], lows)
        self._half_high[half] = np.maximum(self._half_high[half], highs)
        self.count += 1
        if self.count >= FIRST and self.count & (self.count - 1) == 0:
            self._snapshots.append((self.count, self.widths))

    @property
    def widths(self) -> Floats:
        """Of all ranges (tensors,), zero included."""
        return cast(Floats, self._high[0] - self._low[0])

    def lone(self) -> tuple[LoneImage, ...]:
        """Return the images that set ranges alone, the one that sets most first."""
        found = []
        widths = self.widths
        for index in np.union1d(self._low_image, self._high_image):
            if index < 0:
                continue
            low = np.where(self._low_image == index, self._low[1], self._low[0])
            high = np.where(self._high_image == index, self._high[1], self._high[0])
            ratio = _ratio(high - low, widths)
            if alone := int((ratio < NARROWER).sum()):
                worst = int(ratio.argmin())
                found.append(LoneImage(self._images[index], alone, self.names[worst], float(ratio[worst])))
        return tuple(sorted(found, key=lambda one: -one.tensors)[:WORST])

    def stability(self) -> Stability:
        """Compare every second image with the others, each tensor's narrower range with its wider one."""
        halves = self._half_high - self._half_low
        ratio = _ratio(halves.min(axis=0), halves.max(axis=0))
        worst = np.argsort(ratio, kind="stable")[:WORST]
        return Stability(
            float(np.median(ratio)),
            float(np.percentile(ratio, LOWEST)),
            tuple(TensorStability(self.names[one], self._blocks[one], float(ratio[one])) for one in worst),
        )

    def growth(self) -> tuple[Growth, ...]:
        """Return how wide the ranges were after 8, 16, 32 images and so on, as parts of what they are in the end."""
        grown = [(count, _ratio(widths, self.widths)) for count, widths in self._snapshots]
        return tuple(
            Growth(count, float(np.median(ratio)), float(np.percentile(ratio, LOWEST))) for count, ratio in grown
        )

    def enough(self) -> int | None:
        """Return the number of images from which on twice as many, and again, widened the ranges hardly more."""
        found = None
        for (count, before), (_, after) in zip(self._snapshots[-2::-1], self._snapshots[:0:-1], strict=True):
            ratio = _ratio(before, after)
            if 1 / np.median(ratio) - 1 > MEDIAN_GROWTH or 1 / np.percentile(ratio, LOWEST) - 1 > LOWEST_GROWTH:
                break
            found = count
        return found


def short(name: str) -> str:
    """Return a tensor's name as people can read it: of names joined by the converter the first, without the model's."""
    first = name.split(";", 1)[0]
    return first.partition("/")[2] or first


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return parts of wholes; a tensor that is zero all over is whole."""
    return cast(Floats, np.divide(part, whole, out=np.ones_like(whole), where=whole > 0))
