"""From the class names of a data set to the class indices of a model, and signs that the two do not belong together.

Names decide wherever there are any, so that the order of folders does not matter. Nothing is guessed: what could be
read in two ways is refused, with what to do; what was taken for granted is said in notes.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeeff.converters import metadata
from edgeeff.errors import InputError
from edgeeff.evaluation.dataset import Dataset, is_integer

Confusion = npt.NDArray[np.int64]
How = Literal["names", "synsets", "indices", "sorted order", "unlabelled"]

IMAGENET = 1000
_SHOWN = 5


@dataclass(frozen=True)
class ClassMap:
    """Which of the model's classes each class of a data set is."""

    indices: tuple[int, ...]
    """For every name of the data set; -1 for a class without images that the model does not have."""
    names: tuple[str, ...]
    """Of the model's classes, by index; empty where nobody says."""
    how: How
    """What the indices are known by."""
    notes: tuple[str, ...]
    """What was taken for granted, and what of the data whoever reads a result should know, as sentences."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one a line; raises InputError for what `converters.metadata.read_labels` refuses."""
    return metadata.read_labels(path)


def map_classes(dataset: Dataset, classes: int, labels: Sequence[str] | None) -> ClassMap:
    """Find the class index of every name of a data set in a model with so many classes.

    `labels` are the model's class names, from a file or its metadata. Names are compared without regard to case,
    with `_`, `-` and spaces the same, and by the first of several synonyms; ImageNet's synsets (n01440764) stand for
    their names. Without labels, names that are all integers are indices, and other names count in their order if they
    are as many as the model's classes. Raises InputError when a class cannot be found or two are the same.
    """
    names, notes = _fitted(labels, classes)
    if not dataset.names:
        return ClassMap((), names, "unlabelled", (*dataset.notes, *notes))
    used = {dataset.names[label] for label in {example.label for example in dataset.examples} if label >= 0}
    indices, how, more = _found(dataset, used, classes, names)
    _distinct(dataset.names, indices, names)
    return ClassMap(
        tuple(indices), names, how, (*dataset.notes, *notes, *more, *_coverage(dataset.names, indices, used, classes))
    )


Found = tuple[list[int], How, list[str]]


def _found(dataset: Dataset, used: set[str], classes: int, labels: tuple[str, ...]) -> Found:
    """The indices in the first way that is possible."""
    names = dataset.names
    by_name = _matches(names, labels, lambda name: name)
    if labels and all(by_name[name] for name in used):
        return _by_name(names, by_name, labels)
    if set(names) <= set(metadata.imagenet_synsets()):
        if classes in {IMAGENET, IMAGENET + 1}:
            return _by_synset(names, classes, labels)
        words = dict(zip(metadata.imagenet_synsets(), metadata.imagenet_labels(), strict=True))
        by_name = _matches(names, labels, words.__getitem__)
        if labels and all(by_name[name] for name in used):
            return _by_name(names, by_name, labels)
    if all(is_integer(name) for name in names):
        indices, notes = _by_number(dataset, classes, labels)
        if indices:
            return indices, "indices", notes
    if labels:
        raise InputError(_unmatched([name for name in names if name in used and not by_name[name]], labels))
    if len(names) == classes:
        order = ", ".join(names[:3]) + (", ..." if classes > 3 else "")
        note = f"the model does not name its classes: they are taken to be the data's in sorted order ({order})"
        return list(range(classes)), "sorted order", [note]
    raise InputError(
        f"the data has {len(names)} classes ({_list(names)}), the model has {classes} and does not name them: give its "
        "class names, one a line in class index order, with --labels FILE"
    )


def _fitted(labels: Sequence[str] | None, classes: int) -> tuple[tuple[str, ...], list[str]]:
    """The labels as many as the model has classes, and what was done to them."""
    names = tuple(labels or ())
    if len(names) in {0, classes}:
        return names, []
    if len(names) == classes + 1 and metadata.is_background(names[0]):
        return names[1:], [
            f"the labels are {len(names)}, the model's classes {classes}: the first label, '{names[0]}', was left out"
        ]
    if (len(names), classes) == (IMAGENET, IMAGENET + 1) and _is_imagenet(names):
        return ("background", *names), [
            f"the labels are ImageNet's {IMAGENET}, the model's classes {classes}: its first is taken to be the "
            "background class of older models"
        ]
    advice = "give one name per line, in class index order"
    if len(names) == classes + 1:
        advice = f"one line too many, perhaps of a background class: delete it (the first is '{names[0]}')"
    elif len(names) == classes - 1:
        advice = (
            "one too few, so that every label may be off by one: if the model has a background class, add a line "
            "'background' where it is, mostly the first"
        )
    raise InputError(f"there are {len(names)} labels, and the model has {classes} classes: {advice}")


def _is_imagenet(labels: Sequence[str]) -> bool:
    known = metadata.imagenet_labels()
    same = sum(_first(label) == _first(name) for label, name in zip(labels, known, strict=True))
    return same >= 0.9 * len(known)  # lists differ in the spelling of a few


# Names


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def _first(name: str) -> str:
    """The first of the synonyms that ImageNet separates by commas, folded."""
    return _fold(name.split(",", maxsplit=1)[0])


def _matches(names: Iterable[str], labels: Sequence[str], meaning: Callable[[str], str]) -> Mapping[str, list[int]]:
    """The indices of the labels that each name may be."""
    whole: dict[str, list[int]] = defaultdict(list)
    first: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        whole[_fold(label)].append(index)
        first[_first(label)].append(index)
    return {name: whole.get(_fold(meaning(name))) or first.get(_first(meaning(name))) or [] for name in names}


def _by_name(names: Sequence[str], matches: Mapping[str, list[int]], labels: Sequence[str]) -> Found:
    unclear = next((name for name in names if len(matches[name]) > 1), None)
    if unclear is not None:
        raise InputError(
            f"the class '{unclear}' of the data may be any of the model's classes {_list(map(str, matches[unclear]))}, "
            f"all of which are called '{labels[matches[unclear][0]]}': name the data's classes by index or by synset"
        )
    indices = [matches[name][0] if matches[name] else -1 for name in names]
    found = [index for index in indices if index >= 0]
    notes = []
    if found != sorted(found):
        notes.append("the data's classes are in another order than the model's: they are matched by name")
    unknown = [name for name in names if not matches[name]]
    if unknown:
        notes.append(f"{len(unknown)} classes without images are none of the model's ({_list(unknown)})")
    return indices, "names", notes


def _unmatched(names: Sequence[str], labels: Sequence[str]) -> str:
    folded = {_fold(label): label for label in labels} | {_first(label): label for label in labels}

    def described(name: str) -> str:
        near = difflib.get_close_matches(_first(name), folded, n=1, cutoff=0.6)
        return f"'{name}'" + (f" (nearest: '{folded[near[0]]}')" if near else "")

    shown = ", ".join(described(name) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return (
        f"{len(names)} of the data's classes are none of the model's {len(labels)} labels: {shown}. The labels begin "
        f"with {_list(labels)}: rename the classes, or give the right labels with --labels FILE"
    )


def _by_synset(names: Sequence[str], classes: int, labels: Sequence[str]) -> Found:
    index = {synset: position for position, synset in enumerate(metadata.imagenet_synsets())}
    if classes == IMAGENET:
        return [index[name] for name in names], "synsets", []
    last = bool(labels) and metadata.is_background(labels[-1]) and not metadata.is_background(labels[0])
    note = f"the model has {classes} classes: the {'last' if last else 'first'} is taken to be a background class"
    return [index[name] + (0 if last else 1) for name in names], "synsets", [note]


# Numbers


def _by_number(dataset: Dataset, classes: int, labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Indices that names are in decimal digits; none where folders are only called by numbers that are no indices."""
    names = dataset.names
    numbers = [int(name) for name in names]
    notes = []
    if dataset.kind == "folders" and [int(name) for name in sorted(names)] != sorted(numbers):
        notes.append(
            "the class folders are numbers and taken as such; a model trained with Keras' image_dataset_from_directory "
            f"counts them in the order of their text ({_list(sorted(names))}): then give that order with --labels FILE"
        )
    if min(numbers) >= 0 and max(numbers) < classes:
        if classes == IMAGENET + 1 and max(numbers) < IMAGENET:
            if labels and metadata.is_background(labels[0]) and 0 in numbers:
                notes.append("the data's labels do not count the model's background class: 0 is the model's class 1")
                return [number + 1 for number in numbers], notes
            notes.append(
                f"the data's labels go up to {max(numbers)}, the model has {classes} classes: if its first is a "
                "background class and the labels do not count it, all are off by one"
            )
        return numbers, notes
    if sorted(numbers) == list(range(1, classes + 1)):
        notes.append(f"the data counts its classes from 1 to {classes}: 1 is the model's class 0")
        return [number - 1 for number in numbers], notes
    if dataset.kind == "folders":
        return [], []
    wrong = min(numbers) if min(numbers) < 0 else max(numbers)
    hint = "; are they counted from 1? Then subtract 1" if min(numbers) >= 1 and wrong == classes else ""
    raise InputError(f"the data has the label {wrong}, but the model's classes are 0 to {classes - 1}{hint}")


# What all ways share


def _distinct(names: Sequence[str], indices: Sequence[int], labels: Sequence[str]) -> None:
    counts = Counter(index for index in indices if index >= 0)
    twice = next((index for index, count in counts.items() if count > 1), None)
    if twice is not None:
        same = [name for name, index in zip(names, indices, strict=True) if index == twice]
        called = f" '{labels[twice]}'" if labels else ""
        raise InputError(f"the data's classes {_list(same)} are one class of the model, {twice}{called}: join them")


def _coverage(names: Sequence[str], indices: Sequence[int], used: set[str], classes: int) -> list[str]:
    notes = []
    known = [name for name, index in zip(names, indices, strict=True) if index >= 0]
    empty = [name for name in known if name not in used]
    if empty:
        notes.append(f"{len(empty)} of the {len(names)} classes of the data have no image ({_list(empty)})")
    if len(used) < classes:
        notes.append(
            f"the data has images of {len(used)} of the model's {classes} classes: figures are of these, and precision "
            "does not count what the model would make of images of the others"
        )
    return notes


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


# Signs that labels do not belong to the model


@dataclass(frozen=True)
class Suspicion:
    """Labels that would fit the model far better if they were others."""

    kind: Literal["shift", "permutation"]
    shift: int
    """1 or -1: what has to be added to every label; 0 for a permutation."""
    accuracy: float
    accuracy_after: float
    """Top-1, 0 to 1, with the labels as they are and as `mapping` has them."""
    mapping: tuple[int, ...]
    """What each label would have to be; -1 where the images do not tell."""


def suspect(confusion: Confusion) -> Suspicion | None:
    """Look whether a model that is known to be good was given labels in another order than its own.

    `confusion` is [classes, classes] of images, a row for each label. A shift is told by the images that it makes
    right, in nearly all classes: a fifth of all more than before. A permutation is told by classes of which more than
    half the images are said to be one other class that no other class claims, with more images than such a choice among
    all permutations finds by chance. Either must be four standard deviations away from luck.
    """
    images = int(confusion.sum())
    if not images:
        return None
    classes = len(confusion)
    right = int(np.trace(confusion))
    best: Suspicion | None = None
    for shift in (1, -1):
        after = int(np.trace(confusion, shift))
        change = np.diagonal(confusion, shift) - np.diagonal(confusion)[max(-shift, 0) : classes - max(shift, 0)]
        # A model that says one class of everything gains one class and loses one.
        common = (change > 0).sum() > max(1, 3 * (change < 0).sum())
        better = common and after - right >= images / 5 and _beyond_luck(after, right)
        if better and (best is None or after / images > best.accuracy_after):
            shifted = tuple(label + shift if 0 <= label + shift < classes else -1 for label in range(classes))
            best = Suspicion("shift", shift, right / images, after / images, shifted)
    mapping = _permutation(confusion)
    moved = np.flatnonzero((mapping >= 0) & (mapping != np.arange(classes)))
    gained, lost = int(confusion[moved, mapping[moved]].sum()), int(confusion[moved, moved].sum())
    enough = gained - lost > max(2 * len(moved), 0.3 * confusion[moved].sum()) and _beyond_luck(gained, lost)
    after_all = (right + gained - lost) / images
    # A shift explains more with less: another order has to be clearly better.
    if enough and (best is None or after_all > best.accuracy_after + 0.05):
        return Suspicion("permutation", 0, right / images, after_all, tuple(int(label) for label in mapping))
    return best


def _beyond_luck(after: int, before: int) -> bool:
    """Whether images that change sides are more than four standard deviations from even."""
    return after - before > 4 * float(np.sqrt(after + before))


def _permutation(confusion: Confusion) -> npt.NDArray[np.int64]:
    """What most images of each class are said to be, where that is one-to-one; -1 elsewhere."""
    support = confusion.sum(axis=1)
    likely = np.where(2 * confusion.max(axis=1) > support, confusion.argmax(axis=1), -1)
    while True:
        claims = np.bincount(likely[likely >= 0], minlength=len(confusion))
        own = likely == np.arange(len(confusion))
        target = np.maximum(likely, 0)
        # Another class is free if it has no images, or if these are something else in turn.
        free = own | ((claims[target] == 1) & ((support[target] == 0) | (likely[target] >= 0)))
        kept = np.where(free, likely, -1)
        if (kept == likely).all():
            return likely
        likely = kept
