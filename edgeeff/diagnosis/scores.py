"""How two files see the same images: ways to feed them, their scores, and how alike these are.

A correlation says more than shared best classes where images show no class at all, as synthetic ones do: it is taken of
log-probabilities without each class's mean over the images, so that two files that always say the same thing, whatever
the image, have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images, synthetic
from edgeeff.converters.runtime import Session
from edgeeff.errors import CalibrationError
from edgeeff.evaluation.classifier import BYTES, KNOWN_RANGES, Classifier, normalization, stored_values
from edgeeff.evaluation.dataset import Example
from edgeeff.evaluation.outcomes import probabilities

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

LEAST = 1 / 512
"""Probabilities below are taken for it: half a step of a softmax in 8 bits."""
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of pixels 0 to 255, as torchvision and many training scripts use them."""


@dataclass(frozen=True)
class Pictures:
    """Images that can be had as any file wants them: decoded anew, or made."""

    examples: tuple[Example, ...]
    """Empty for synthetic images."""
    count: int
    seed: int
    _kept: dict[tuple[int, int, str], list[Pixels]] = field(default_factory=dict)

    def seen(self, height: int, width: int, crop: str) -> list[Pixels]:
        """Return all images as a network of this size sees them; raises CalibrationError for a broken one."""
        key = (height, width, crop if self.examples else "")
        if key not in self._kept:
            made = self._decoded(height, width, crop) if self.examples else self._made(height, width)
            self._kept[key] = list(made)
        return self._kept[key]

    def _made(self, height: int, width: int) -> Iterator[Pixels]:
        return synthetic.images(self.count, height, width, self.seed)

    def _decoded(self, height: int, width: int, crop: str) -> Iterator[Pixels]:
        how: images.Crop = "none" if crop == "none" else "center"
        for example in self.examples:
            yield images.decode(example.read(), example.key, height, width, how)


def draw(examples: Sequence[Example], count: int, seed: int) -> tuple[Pictures, list[int], list[tuple[str, str]]]:
    """Draw readable images; return them, the places of those drawn, and the name and reason of the others.

    Raises CalibrationError when none can be read.
    """
    places, unreadable = list[int](), list[tuple[str, str]]()
    for place in np.random.default_rng(seed).permutation(len(examples)).tolist():
        if len(places) == count:
            break
        example = examples[place]
        try:
            images.decode(example.read(), example.key, 32, 32)
        except CalibrationError as error:
            unreadable.append((example.key, str(error)))
            continue
        places.append(place)
    if not places:
        raise CalibrationError(f"none of the images can be read: {unreadable[0][1] if unreadable else 'there is none'}")
    return Pictures(tuple(examples[place] for place in places), len(places), seed), places, unreadable


@dataclass(frozen=True)
class Feed:
    """One way to give pixels to a file."""

    name: str
    classifier: Classifier
    swapped: bool = False
    """Whether blue comes first."""

    def images(self, pictures: Pictures, count: int | None = None) -> list[Pixels]:
        """Return what the file sees of the first `count` images."""
        wanted = self.classifier.preprocessing
        seen = pictures.seen(wanted.height, wanted.width, wanted.crop)[:count]
        return [np.ascontiguousarray(one[..., ::-1]) for one in seen] if self.swapped else seen

    def session(self, *, keep: bool = False) -> Session:
        """Load the file so that it is fed this way."""
        return Session(Path(self.classifier.path).read_bytes(), table=stored_values(self.classifier), keep=keep)

    def run(self, pictures: Pictures, count: int | None = None) -> Seen:
        """Run the file on the first `count` images, on all of them without one."""
        session = self.session()
        scores = np.stack([session.run(one) for one in self.images(pictures, count)]).astype(np.float64)
        return Seen(scores, self.classifier.logits)


def alternatives(classifier: Classifier, *, cropped: bool) -> list[Feed]:
    """Return other ways to feed a file than it says: pixel ranges, the order of the channels, and the crop.

    Those that come to the same are left out. `cropped` says whether the images can be cropped otherwise.
    """
    said = classifier.preprocessing
    found: list[Feed] = []
    tables = [_table(classifier)]
    ranges = [(f"pixels as {low:g} to {high:g}", *normalization(low, high)) for low, high in KNOWN_RANGES]
    ranges.append(("pixels normalised by ImageNet's mean and deviation", IMAGENET_MEAN, IMAGENET_STD))
    for name, mean, std in ranges:
        found.append(Feed(name, replace(classifier, preprocessing=replace(said, mean=mean, std=std, source="options"))))
    if classifier.input.dtype in BYTES:
        found.append(Feed("pixels as bytes", replace(classifier, preprocessing=replace(said, source="bytes"))))
    kept = []
    for feed in found:
        table = _table(feed.classifier)
        if not any(np.array_equal(table, other) for other in tables):
            tables.append(table)
            kept.append(feed)
    kept.append(Feed("blue before red", classifier, swapped=True))
    if cropped:
        other = "center" if said.crop == "none" else "none"
        name = "the whole image" if other == "none" else "the middle of the image"
        kept.append(Feed(name, replace(classifier, preprocessing=replace(said, crop=other))))
    return kept


def swapped(feeds: Sequence[Feed]) -> list[Feed]:
    """Return the feeds of other pixel ranges with their channels in the other order, too."""
    return [
        replace(feed, name=f"{feed.name}, blue before red", swapped=True)
        for feed in feeds
        if feed.classifier.preprocessing.source in {"options", "bytes"} and not feed.swapped
    ]


def _table(classifier: Classifier) -> npt.NDArray[np.float64]:
    table = stored_values(classifier)
    plain = np.arange(256.0)[:, None].repeat(3, axis=1)
    if table is None:
        return plain - (128 if classifier.input.dtype == "int8" else 0)
    return table.astype(np.float64)


@dataclass(frozen=True)
class Seen:
    """What a file says of images."""

    scores: Scores
    """(images, classes), logits or probabilities as the file gives them."""
    logits: bool

    @cached_property
    def finite(self) -> npt.NDArray[np.bool_]:
        """(images,): whether all scores are numbers."""
        return cast("npt.NDArray[np.bool_]", np.isfinite(self.scores).all(axis=1))

    @cached_property
    def best(self) -> npt.NDArray[np.int64]:
        """(images,): the best class, the lowest of several; -1 where scores are no numbers."""
        usable = np.where(self.finite[:, None], self.scores, 0.0)
        return np.where(self.finite, usable.argmax(axis=1), -1)

    @cached_property
    def logs(self) -> Scores:
        """(images, classes): logarithms of probabilities, those that are next to nothing all the same."""
        usable = np.where(self.finite[:, None], self.scores, 0.0)
        found: Scores = np.log(np.maximum(probabilities(usable, logits=self.logits), LEAST))
        return found

    @property
    def ties(self) -> float:
        """Share of images whose best score several classes have."""
        best = self.scores == self.scores.max(axis=1, keepdims=True)
        return float((best.sum(axis=1) > 1).mean())

    @property
    def commonest_share(self) -> float:
        """Share of images with the class that is best most often."""
        return float(np.bincount(self.best + 1).max() / len(self.best))

    def rolled(self, shift: int) -> Seen:
        """Return the scores with class `shift` in the place of class 0."""
        return Seen(np.roll(self.scores, -shift, axis=1), self.logits)

    def first(self, count: int) -> Seen:
        """Return what is said of the first images."""
        return Seen(self.scores[:count], self.logits)

    def classes(self, count: int) -> Seen:
        """Return the scores with classes added at the end that are never said, up to `count`."""
        missing = count - self.scores.shape[1]
        lowest = float(np.nanmin(self.scores)) - 20.0 if self.logits else 0.0
        return Seen(np.pad(self.scores, ((0, 0), (0, max(0, missing))), constant_values=lowest), self.logits)


@dataclass(frozen=True)
class Likeness:
    """How alike two files see the same images."""

    same: npt.NDArray[np.bool_]
    """(images,): whether the best class is the same."""
    correlation: float

    @classmethod
    def of(cls, one: Seen, other: Seen) -> Likeness:
        """Compare what two files said of the same images."""
        a, b = (seen.logs - seen.logs.mean(axis=0) for seen in (one, other))
        size = float(np.sqrt((a * a).sum() * (b * b).sum()))
        return cls((one.best == other.best) & one.finite, float((a * b).sum()) / size if size > 0 else 0.0)

    @property
    def agreement(self) -> float:
        """Share of images with the same best class."""
        return float(self.same.mean())

    def is_clearly_above(self, other: Likeness) -> bool:
        """Whether more images are the same by far, beyond luck, and the scores go along better, too."""
        gained, lost = int((self.same & ~other.same).sum()), int((other.same & ~self.same).sum())
        beyond_luck = gained - lost > 2.5 * np.sqrt(gained + lost)
        halved = 1 - self.agreement <= (1 - other.agreement) / 2
        return bool(beyond_luck and halved and self.agreement >= 0.5 and self.correlation > other.correlation)
