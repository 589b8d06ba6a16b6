"""What the images of a calibration set are like by their pixels: what is refused, black, grey, repeated, uneven.

A `Survey` is shown every image once, as the network sees it, by whoever decodes it anyway; it keeps a fingerprint and a
few sums. It needs no network and no runtime. What a set does to a network's activation ranges is left to `extremes`,
and what the findings of both mean for a verdict to the callers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import audit
from edgeeff.calibration.audit import Fingerprint
from edgeeff.calibration.images import ImageFile, Traits
from edgeeff.results import Finding, SetSummary

BLACK, WHITE = 16, 239
"""An image whose every value is below the first, or above the second, shows nothing: footroom and headroom of video."""
FLAT = 2.0
"""Deviation of all values of an image, of 255, below which it is of one colour."""
SCALED = 1
"""The largest value of a file whose pixels were divided by 255 before they were saved as bytes."""
COLOURLESS = 2
"""Difference of an image's channels that compression makes of grey."""
LEVELS = np.arange(256.0)
LOOKED_AT = 112
"""Pixels in each direction that are looked at, where there are as many."""
ENLARGED = 0.5
"""A picture whose shorter side is below this part of the network's is blurred by resizing."""
FEW = 16
"""Images below which a set says little of rare activations; with 8 an EfficientNet-Lite does as well as with 128."""
COMMON = 0.1
"""Share of a set that is more than a few images."""
LOW_CONTRAST = 20.0
"""Deviation of all values of a set; photographs have about 60."""
UNEVEN = 10
"""Times as many images in the largest class as in the smallest."""
NAMED = 3
"""Things that a sentence names; of more it says how many."""


class Survey:
    """Images of a set, looked at one after the other."""

    def __init__(self, height: int, width: int) -> None:
        """Prepare for images of the size that a network sees."""
        self._size = height, width
        self.prints: dict[str, Fingerprint] = {}
        self._digests: set[str] = set()
        self._sum, self._squares = np.zeros(3), np.zeros(3)
        self._black: list[str] = []
        self._white: list[str] = []
        self._flat: list[str] = []
        self._brightest = 0
        self._grey = self._small = 0
        self._special: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._refused: list[tuple[str, str]] = []

    def add(self, file: ImageFile, data: bytes, pixels: npt.NDArray[np.uint8], traits: Traits) -> bool:
        """Look at an image, given its bytes, its pixels [height, width, 3] and traits; say whether its bytes are new.

        An image that was shown before under the same key is passed over.
        """
        if file.key in self.prints:
            return False
        seen = audit.fingerprint(data, pixels)
        new = seen.sha256 not in self._digests
        self.prints[file.key] = seen
        self._digests.add(seen.sha256)
        height, width, _ = pixels.shape
        # A part of the pixels tells as much, and the time goes into touching them.
        sampled = pixels[:: max(1, height // LOOKED_AT), :: max(1, width // LOOKED_AT)]
        red, green, blue = channels = np.ascontiguousarray(sampled.reshape(-1, 3).T)
        counts = np.stack([np.bincount(channel, minlength=256) for channel in channels]) / channels.shape[1]
        mean, squares = counts @ LEVELS, counts @ np.square(LEVELS)
        self._sum += mean
        self._squares += squares
        low, high = int(channels.min()), int(channels.max())
        self._brightest = max(self._brightest, high)
        if high < BLACK:
            self._black.append(file.key)
        elif low > WHITE:
            self._white.append(file.key)
        elif (squares - np.square(mean)).max() < FLAT**2:
            self._flat.append(file.key)
        most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        self._grey += int((most - least).max()) <= COLOURLESS
        self._small += min(traits.height, traits.width) < ENLARGED * min(self._size)
        self._special.update(traits.special)
        if file.label is not None:
            self._classes[file.label] += 1
        return new

    def refuse(self, file: ImageFile, reason: str) -> None:
        """Note a file that cannot be used, and why."""
        self._refused.append((file.key, reason))

    def summary(self, empty_classes: Sequence[str] = ()) -> SetSummary:
        """Say what the images were like, with what is wrong with them; `empty_classes` are folders without any."""
        copies = audit.repeats(self.prints, "calibration")
        count = max(1, len(self.prints))
        mean = self._sum / count
        deviation = np.sqrt(np.maximum(self._squares / count - np.square(mean), 0.0))
        summary = SetSummary(
            images=len(self.prints),
            distinct=len(self.prints) - len(copies),
            mean=_three(mean),
            std=_three(deviation),
            black=tuple(self._black),
            white=tuple(self._white),
            flat=tuple(self._flat),
            grey=self._grey,
            small=self._small,
            special=dict(sorted(self._special.items())),
            refused=tuple(self._refused),
            classes=(*sorted(self._classes.items()), *((name, 0) for name in empty_classes)),
            copies=copies,
        )
        findings = sorted(self._findings(summary), key=lambda finding: not finding.serious)
        return replace(summary, findings=tuple(findings))

    def _findings(self, summary: SetSummary) -> Iterator[Finding]:
        if summary.refused:
            yield _refused(summary)
        if not summary.images:
            return
        scaled = self._brightest <= SCALED
        if scaled:
            yield _scaled(summary)
        else:
            yield from _blank(summary)
        yield from _copies(summary)
        yield from _few(summary)
        if not scaled and not summary.black:
            yield from _dull(summary)
        if summary.small > COMMON * summary.images:
            yield _small(summary, min(self._size))
        yield from _classes(summary)


def empty_classes(folder: Path, files: Iterable[ImageFile]) -> tuple[str, ...]:
    """Return the names of class folders that hold none of these images, sorted; none where there are no class folders.

    Raises OSError when the folder cannot be listed.
    """
    labels = {file.label for file in files}
    if labels <= {None}:
        return ()
    visible = (entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return tuple(sorted(name for name in visible if name not in labels))


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


# --- What may be wrong ------------------------------------------------------------------------------------------------


def _refused(summary: SetSummary) -> Finding:
    names = [f"{name}: {reason}" for name, reason in summary.refused]
    all_files = len(summary.refused) + summary.images
    return Finding(
        "unreadable-images",
        len(names) > COMMON * all_files,
        f"{len(names):,} of {all_files:,} files cannot be used: {'; '.join(names[:NAMED])}"
        + (f"; and {len(names) - NAMED:,} more" if len(names) > NAMED else ""),
        "replace them or take them away: convert refuses the whole folder when it draws one of them",
        {"refused": float(len(names))},
    )


def _scaled(summary: SetSummary) -> Finding:
    return Finding(
        "scaled-images",
        True,
        f"no value in any of {_images(summary.images)} is above {SCALED}: they were divided by 255 before saving, "
        "so that they are black to whoever reads pixels 0 to 255",
        "save the images as the camera gives them, 0 to 255; the network's own scaling is inside the file that is made",
        {"images": float(summary.images)},
    )


def _blank(summary: SetSummary) -> Iterator[Finding]:
    advice = "take them away: they show the network nothing, and fill the place of images that would"
    for cause, names, what in (
        ("black-images", summary.black, f"black (no value above {BLACK - 1} of 255)"),
        ("white-images", summary.white, f"white (no value below {WHITE + 1} of 255)"),
        ("flat-images", summary.flat, "of one colour"),
    ):
        if not names:
            continue
        sixteen = cause == "black-images" and "16-bit" in summary.special
        also = "; of 16-bit files the upper eight bits count, so those that use the lower ones only are black"
        yield Finding(
            cause,
            len(names) > COMMON * summary.images,
            f"{len(names):,} of {_images(summary.images)} {'is' if len(names) == 1 else 'are'} {what}: {listed(names)}"
            + (also if sixteen else ""),
            "scale their values to all 16 bits, or save them with 8" if sixteen else advice,
            {"images": float(len(names))},
        )


def _copies(summary: SetSummary) -> Iterator[Finding]:
    if not summary.copies:
        return
    exact = sum(leak.kind == "exact" for leak in summary.copies)
    first = summary.copies[0]
    yield Finding(
        "repeated-images",
        summary.distinct <= summary.images / 2,
        f"{_images(len(summary.copies))} of {summary.images:,} repeat another one ({exact:,} the same file, "
        f"{len(summary.copies) - exact:,} nearly so), as {first.image} does {first.other}: only {summary.distinct:,} "
        "show something of their own",
        "take the copies away: they cost time and teach nothing",
        {"copies": float(len(summary.copies)), "distinct": float(summary.distinct)},
    )


def _few(summary: SetSummary) -> Iterator[Finding]:
    if summary.distinct >= FEW:
        return
    one = summary.distinct == 1
    yield Finding(
        "one-image" if one else "few-images",
        one,
        f"there {'is' if one else 'are'} {_images(summary.distinct, 'distinct ')} only: what other images would bring "
        "into the network was never seen, and is clipped",
        "take 128 or more, of all classes and from where the camera will be",
        {"images": float(summary.distinct)},
    )


def _dull(summary: SetSummary) -> Iterator[Finding]:
    if summary.grey == summary.images:
        yield Finding(
            "grey-images",
            False,
            f"all {_images(summary.images)} are grey: no colour ever reached the network",
            "use colour photographs, unless the camera itself has none",
            {"images": float(summary.grey)},
        )
    if (contrast := max(summary.std)) < LOW_CONTRAST and len(summary.flat) + len(summary.white) < summary.images:
        yield Finding(
            "low-contrast",
            False,
            f"values deviate by {contrast:.0f} of 255 over all images, those of photographs by about 60: the mean is "
            f"{', '.join(f'{value:.0f}' for value in summary.mean)} (red, green, blue)",
            "look whether the images are those that the camera gives; what they never show is clipped",
            {"deviation": contrast},
        )


def _small(summary: SetSummary, side: int) -> Finding:
    return Finding(
        "small-images",
        False,
        f"{_images(summary.small)} of {summary.images:,} have less than {ENLARGED * side:.0f} pixels on their shorter "
        f"side and are enlarged to {side}: blurred images make smaller activations than sharp ones",
        "use images that are at least as large as what the network sees",
        {"images": float(summary.small)},
    )


def _classes(summary: SetSummary) -> Iterator[Finding]:
    counts = dict(summary.classes)
    empty = [name for name, count in counts.items() if not count]
    filled = {name: count for name, count in counts.items() if count}
    if len(filled) == 1:
        yield Finding(
            "one-class",
            True,
            f"all images are of one class, {next(iter(filled))}: how large values get for others is not seen, and is "
            "clipped",
            "give images of all classes; if these are of several, only not sorted, give that folder itself",
            {"classes": 1.0},
        )
    if empty:
        yield Finding(
            "empty-classes",
            len(empty) > len(filled),
            f"{len(empty):,} of {len(counts):,} class folders have no image: {listed(empty)}",
            "put images there, or take the folders away",
            {"classes": float(len(empty))},
        )
    if len(filled) > 1 and (most := max(filled.values())) > UNEVEN * (least := min(filled.values())):
        rare, common = min(filled, key=filled.__getitem__), max(filled, key=filled.__getitem__)
        yield Finding(
            "uneven-classes",
            False,
            f"{common} has {most:,} images, {rare} only {least:,}: classes are drawn in turn, so a sample is even "
            "until the rare ones are used up",
            "add images of the rare classes, or take no more than they allow (--samples)",
            {"most": float(most), "least": float(least)},
        )


def _images(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}image{'' if count == 1 else 's'}"


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (round(float(value), 3) for value in values)
    return first, second, third
