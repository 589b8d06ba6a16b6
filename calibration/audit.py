"""Images that are in two sets at once, as the same bytes or as the same picture saved anew.

A fingerprint is a few hundred bytes: the digest of the file, a 16 x 16 grey thumbnail, and a hash of the thumbnail's
low frequencies. It is taken of the pixels that a network sees, one image at a time, so that whoever decodes an image
for another reason has it almost for nothing. What is compared must be decoded with the same crop, and should be with
the same size; an image that has the network's size already is never cropped, so a larger copy of it is not recognised.

What is found: the same file; and the same picture in another format or quality, resized, somewhat brighter or darker,
with a little of its edges gone, or mirrored. What is not: rotations, larger crops, and near copies of pictures that are
almost of one colour, where there is nothing to confirm a match with. How often each is found, and how often two
different images pass for one, is printed by tests/benchmarks/near_duplicates.py.

What leaks mean, and whether two labels of the same image disagree, is left to the callers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images
from edgeeff.calibration.images import Crop, ImageFile
from edgeeff.errors import CalibrationError
from edgeeff.progress import Progress, Silent
from edgeeff.results import CalibrationUse, Leak

SIDE = 16
"""Of the thumbnail, in pixels."""
FREQUENCIES = 8
"""In each direction that the hash holds: 63 signs, as the mean is left out."""
DISTANCE = 12
"""Most signs that may differ. Of 5.3 million comparisons of different photographs 13 come that close."""
CORRELATION = 0.9
"""Least correlation of two thumbnails of the same picture. Those 13 have 0.57 at most, copies seldom below 0.95."""
FLAT = 4.0
"""Deviation of a thumbnail, of 255, below which it shows too little to be compared."""
SAMPLED = 96
"""Pixels in each direction that a thumbnail is made of at least, where there are as many."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK = 32, 8192
"""Pairs that are compared at once: what stays in a processor's cache."""

Bits = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to recognise it."""

    sha256: str
    """Of the file's bytes."""
    hash: int
    """63 bits: the signs of the thumbnail's low frequencies (DCT-II), by row, then column."""
    thumbnail: bytes
    """16 x 16 grey values by row."""


@dataclass(frozen=True)
class Fingerprints:
    """Those of many images by name, and the name and reason of every one that could not be read."""

    known: dict[str, Fingerprint] = field(default_factory=dict)
    unreadable: tuple[tuple[str, str], ...] = ()


def fingerprint(data: bytes, picture: npt.NDArray[np.uint8]) -> Fingerprint:
    """Take the fingerprint of a file's bytes and of its decoded pixels, uint8 [height, width, 3], RGB, of any size."""
    height, width, _ = picture.shape
    # Every second pixel of 224 is enough for 16, and the time goes into touching pixels.
    sampled = picture[:: max(1, height // SAMPLED), :: max(1, width // SAMPLED)].astype(np.float32)
    rows, columns, _ = sampled.shape
    squeezed = (_means(rows) @ sampled.reshape(rows, -1)).reshape(SIDE, columns, 3) @ _GREY
    thumbnail = np.rint(squeezed @ _means(columns).T).astype(np.uint8)
    # The package imagehash computes much the same, and brings SciPy and PyWavelets.
    low = _cosines() @ (thumbnail.astype(np.float32) - 128) @ _cosines().T
    signs = np.packbits(low.ravel() > 0)
    # The first sign is that of the mean, which is brightness.
    value = int.from_bytes(signs.tobytes(), "big") & (2**63 - 1)
    return Fingerprint(hashlib.sha256(data).hexdigest(), value, thumbnail.tobytes())


def fingerprints(
    files: Sequence[ImageFile],
    executor: Executor,
    *,
    height: int,
    width: int,
    crop: Crop = "center",
    chunk: int = 32,
    progress: Progress | None = None,
) -> Fingerprints:
    """Take the fingerprints of image files by their keys, decoded as `calibration.images.load` does, in `executor`.

    What cannot be read is listed, not raised. `progress` ticks for every file. Raises MissingExtraError without Pillow,
    and what the executor raises when its processes die.
    """
    progress = progress or Silent()
    chunks = [[file.path for file in files[start : start + chunk]] for start in range(0, len(files), chunk)]
    taken: dict[str, Fingerprint] = {}
    unreadable: list[tuple[str, str]] = []
    names = iter(files)
    for results in executor.map(_fingerprint_files, chunks, repeat(height), repeat(width), repeat(crop)):
        for result in results:
            name = next(names).key
            if isinstance(result, str):
                unreadable.append((name, result))
            else:
                taken[name] = result
            progress.tick()
    return Fingerprints(taken, tuple(unreadable))


def _fingerprint_files(paths: Sequence[Path], height: int, width: int, crop: Crop) -> list[Fingerprint | str]:
    """The fingerprint of each file, or why there is none."""
    results: list[Fingerprint | str] = []
    for path in paths:
        try:
            data = images.read(path)
            results.append(fingerprint(data, images.decode(data, path, height, width, crop)))
        except CalibrationError as error:
            results.append(str(error))
        except OSError as error:
            results.append(f"cannot read {path} ({error.strerror}): check its permissions")
    return results


def duplicates(known: Mapping[str, Fingerprint], new: Mapping[str, Fingerprint], source: str) -> tuple[Leak, ...]:
    """Find the images of `new` that are in `known`, in the order of `new`, each with its likest in `known`.

    Of several with the same bytes the first is named; a near one is named only where none has the same bytes.
    """
    leaks = {leak.image: leak for leak in exact(((name, print_.sha256) for name, print_ in known.items()), new, source)}
    rest = {name: print_ for name, print_ in new.items() if name not in leaks}
    leaks |= {leak.image: leak for leak in _near(known, rest, source)}
    return tuple(leaks[name] for name in new if name in leaks)


def repeats(prints: Mapping[str, Fingerprint], source: str = "evaluation") -> tuple[Leak, ...]:
    """Find the images of a set that repeat one before them in it, in order; `source` is what the set is called."""
    first: dict[str, str] = {}
    leaks: dict[str, Leak] = {}
    for name, print_ in prints.items():
        earlier = first.setdefault(print_.sha256, name)
        if earlier != name:
            leaks[name] = Leak("exact", source, name, earlier)
    distinct = {name: prints[name] for name in first.values()}
    leaks |= {leak.image: leak for leak in _near(distinct, distinct, source, earlier=True)}
    return tuple(leaks[name] for name in prints if name in leaks)


def exact(manifest: Iterable[tuple[str, str]], new: Mapping[str, Fingerprint], source: str) -> tuple[Leak, ...]:
    """Find the images of `new` whose bytes are in a manifest of names and SHA-256 digests, in the order of `new`."""
    names: dict[str, str] = {}
    for name, digest in manifest:
        names.setdefault(digest, name)
    found = ((name, names.get(print_.sha256)) for name, print_ in new.items())
    return tuple(Leak("exact", source, name, other) for name, other in found if other is not None)


def against_calibration(use: CalibrationUse, new: Mapping[str, Fingerprint], known: Fingerprints) -> tuple[Leak, ...]:
    """Find the images of `new` that set the ranges of a quantized model, by the manifest in its record.

    `known` are the images that are in the calibration folder now, see `calibration_files`: near copies are looked for
    of those whose bytes are still what the manifest says. The same bytes are found without any.
    """
    leaks = {leak.image: leak for leak in exact(use.images, new, "calibration")}
    digests = dict(use.images)
    unchanged = {name: print_ for name, print_ in known.known.items() if digests.get(name) == print_.sha256}
    rest = {name: print_ for name, print_ in new.items() if name not in leaks}
    leaks |= {leak.image: leak for leak in _near(unchanged, rest, "calibration")}
    return tuple(leaks[name] for name in new if name in leaks)


def calibration_files(use: CalibrationUse) -> list[ImageFile]:
    """The files of a record's manifest that are still there; none where the folder is gone or cannot be read.

    Only what is found in that folder is looked at, whatever paths a manifest from elsewhere may have.
    """
    if use.folder is None:
        return []
    try:
        found = images.find(use.folder, minimum_classes=1)
    except CalibrationError:
        return []
    names = {name for name, _ in use.images}
    return [file for file in found if file.key in names]


def _near(
    known: Mapping[str, Fingerprint], new: Mapping[str, Fingerprint], source: str, *, earlier: bool = False
) -> Iterator[Leak]:
    """The images of `new` that have a near copy in `known`, each with its likest; `earlier`: only with those before.

    All pairs of hashes are compared, block by block: 50,000 and 50,000 take about 10 s, a twentieth of what their
    decoding takes. An index over parts of the hashes would look into most of its lists, for so many differing bits.
    """
    names, others = list(new), list(known)
    left, right = _Prints.of(new.values()), _Prints.of(known.values())
    best = np.full(len(names), -1, np.int64)
    likeness = np.full(len(names), CORRELATION, np.float32)
    for rows, columns, mirrored in _candidates(left, right):
        pairs = rows > columns if earlier else np.ones(len(rows), bool)
        _confirm(left, right, rows[pairs], columns[pairs], mirrored, best, likeness)
    for name, other in zip(names, best, strict=True):
        if other >= 0:
            yield Leak("near", source, name, others[other])


@dataclass(frozen=True)
class _Prints:
    """Fingerprints as arrays."""

    bits: Bits
    thumbnails: npt.NDArray[np.uint8]
    """[n, 16, 16]."""
    usable: Indices
    """Of those that are not flat."""

    @classmethod
    def of(cls, prints: Iterable[Fingerprint]) -> _Prints:
        prints = list(prints)
        thumbnails = np.frombuffer(b"".join(print_.thumbnail for print_ in prints), np.uint8).reshape(-1, SIDE, SIDE)
        deviations = thumbnails.reshape(-1, SIDE * SIDE).std(axis=1, dtype=np.float32)
        return cls(
            np.array([print_.hash for print_ in prints], np.uint64), thumbnails, np.flatnonzero(deviations >= FLAT)
        )


def _candidates(left: _Prints, right: _Prints) -> Iterator[tuple[Indices, Indices, bool]]:
    """Pairs whose hashes differ in few bits: indices into `left` and `right`, and whether one is mirrored."""
    height, width = _BLOCK
    for top in range(0, len(left.usable), height):
        rows = left.usable[top : top + height]
        # Mirroring turns the sign of every odd horizontal frequency, which is every other bit.
        for mirrored, hashes in ((False, left.bits[rows]), (True, left.bits[rows] ^ np.uint64(0x5555555555555555))):
            for start in range(0, len(right.usable), width):
                columns = right.usable[start : start + width]
                distances = np.bitwise_count(hashes[:, None] ^ right.bits[columns])
                first, second = np.nonzero(distances <= DISTANCE)
                if len(first):
                    yield rows[first], columns[second], mirrored


def _confirm(
    left: _Prints,
    right: _Prints,
    rows: Indices,
    columns: Indices,
    mirrored: bool,
    best: Indices,
    likeness: Floats,
) -> None:
    """Enter into `best` and `likeness` the columns whose thumbnails correlate more with their rows' than any so far."""
    for start in range(0, len(rows), _BLOCK[1]):
        row, column = rows[start : start + _BLOCK[1]], columns[start : start + _BLOCK[1]]
        thumbnails = left.thumbnails[row]
        values = _correlations(thumbnails[:, :, ::-1] if mirrored else thumbnails, right.thumbnails[column])
        better = values > likeness[row]
        row, column, values = row[better], column[better], values[better]
        # Where a row occurs several times the last one stays: the likest, and of equals the first in its set.
        order = np.lexsort((-column, values))
        best[row[order]] = column[order]
        likeness[row[order]] = values[order]


def _correlations(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Floats:
    """Pearson's correlation of each thumbnail of [n, 16, 16] with that of the other; none may be of one grey."""
    a, b = (array.reshape(-1, SIDE * SIDE).astype(np.float32) for array in (first, second))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    result: Floats = np.einsum("ij,ij->i", a, b) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return result


@cache
def _means(pixels: int) -> Floats:
    """The matrix [16, pixels] that averages a row over 16 equal lengths; pixels on a border count for both in part."""
    edges = np.linspace(0, pixels, SIDE + 1)[:, None]
    position = np.arange(pixels)
    covered = np.minimum(edges[1:], position + 1) - np.maximum(edges[:-1], position)
    means: Floats = (np.clip(covered, 0, 1) * (SIDE / pixels)).astype(np.float32)
    return means


@cache
def _cosines() -> Floats:
    """The first rows of the DCT-II of 16 values, [8, 16], not scaled: only signs are looked at."""
    angles = np.outer(np.arange(FREQUENCIES), np.arange(SIDE) + 0.5) * (math.pi / SIDE)
    return np.cos(angles).astype(np.float32)
