"""Two evaluations against each other: the second one's model minus the first one's.

They are paired over the images that both saw, told by the digest of their bytes; evaluations without a common image
are compared as independent sets, which takes many more images to be sure. The statistics are `paired`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeeff.errors import InputError
from edgeeff.evaluation.metrics import counts
from edgeeff.evaluation.paired import (
    correct_recalls,
    corrected,
    fourfold,
    independent_difference,
    proportion_difference,
)
from edgeeff.results import Difference, EvaluationComparison, EvaluationRecord, Preprocessing

Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Label and best class of every image, as indices into the first evaluation's classes; -1 for none."""


def compare(first: EvaluationRecord, second: EvaluationRecord) -> EvaluationComparison:
    """Compare the models of two evaluations; raises InputError when there is nothing to compare.

    Classes are matched by name when both evaluations have the same names, in whatever order, else by index. Images are
    a pair when bytes and label are the same; of an image that a set has twice, the first is paired with the first.
    Where either evaluation has no labels, images are paired for their agreement only.
    """
    if first.classes != second.classes:
        raise InputError(
            f"{first.model.path} has {first.classes} classes and {second.model.path} {second.classes}: only "
            "evaluations of the same classes can be compared"
        )
    ours, theirs = _columns(first, None), _columns(second, _places(first.names, second.names))
    labelled = bool((ours[0] >= 0).any() and (theirs[0] >= 0).any())
    rows = list(matches(_keys(first, ours, labelled), _keys(second, theirs, labelled)))
    if not rows and not labelled:
        raise InputError(
            f"{first.model.path} and {second.model.path} were judged on different images, and not both with labels: "
            "there is nothing to compare; evaluate both on the same images"
        )
    result = EvaluationComparison(
        first=first.model.path,
        second=second.model.path,
        shared_images=len(rows),
        paired=bool(rows),
        top1=None,
        agreement=None,
        first_only_right=None,
        second_only_right=None,
        by_class=(),
        warnings=tuple(_warnings(first, second, len(rows), labelled)),
    )
    if not rows:
        return _independent(result, ours, theirs, first) if labelled else result
    left, right = np.array(rows).T
    labels, before, after = ours[0][left], ours[1][left], theirs[1][right]
    result = replace(result, agreement=float(((before == after) & (before >= 0)).mean()))
    known = labels >= 0
    if not labelled or not known.any():
        return result
    labels, had, has = labels[known], (before == labels)[known], (after == labels)[known]
    table = fourfold(has, had)
    return replace(
        result,
        top1=proportion_difference(*table),
        first_only_right=table[2],
        second_only_right=table[1],
        by_class=_recalls(labels, had, has, first),
    )


def matches(first: Sequence[Hashable], second: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """Yield the places of equal keys, each key's first occurrence with the first, the second with the second."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(second):
        places[key].append(place)
    taken: defaultdict[Hashable, int] = defaultdict(int)
    for place, key in enumerate(first):
        if taken[key] < len(places.get(key, ())):
            yield place, places[key][taken[key]]
            taken[key] += 1


def _places(first: Sequence[str], second: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Return where each of the second's classes is among the first's; None where that is at its own index."""
    if tuple(first) == tuple(second) or sorted(first) != sorted(second):
        return None
    places = np.empty(len(first), np.int64)
    for ours, theirs in matches(first, second):
        places[theirs] = ours
    return places


def _columns(record: EvaluationRecord, places: npt.NDArray[np.int64] | None) -> Columns:
    labels, top1 = np.array(record.images.labels, np.int64), np.array(record.images.model, np.int64)
    if places is None:
        return labels, top1
    return np.where(labels >= 0, places[labels], -1), np.where(top1 >= 0, places[top1], -1)


def _keys(record: EvaluationRecord, columns: Columns, labelled: bool) -> list[Hashable]:
    if not labelled:
        return list(record.images.sha256)
    return list(zip(record.images.sha256, columns[0].tolist(), strict=True))


def _name(record: EvaluationRecord, index: int) -> str:
    return record.names[index] if index < len(record.names) else str(index)


def _recalls(
    labels: npt.NDArray[np.int64], had: npt.NDArray[np.bool_], has: npt.NDArray[np.bool_], record: EvaluationRecord
) -> tuple[tuple[str, Difference], ...]:
    """Compare the recalls of all classes on the same images."""
    both, gained, lost, neither = (
        np.bincount(labels[chosen], minlength=record.classes).tolist()
        for chosen in (had & has, has & ~had, had & ~has, ~had & ~has)
    )
    found = {c: proportion_difference(both[c], gained[c], lost[c], neither[c]) for c in np.unique(labels).tolist()}
    found = correct_recalls(found, {c: gained[c] + lost[c] for c in found})
    return tuple((_name(record, c), difference) for c, difference in found.items())


def _independent(
    result: EvaluationComparison, first: Columns, second: Columns, record: EvaluationRecord
) -> EvaluationComparison:
    """Compare accuracies and recalls on different images."""
    support, _, right = counts(*first, record.classes)
    other_support, _, other_right = counts(*second, record.classes)
    found = {
        c: independent_difference((int(other_right[c]), int(other_support[c])), (int(right[c]), int(support[c])))
        for c in np.flatnonzero((support > 0) & (other_support > 0)).tolist()
    }
    top1 = independent_difference(
        (int(other_right.sum()), int(other_support.sum())), (int(right.sum()), int(support.sum()))
    )
    by_class = tuple((_name(record, c), difference) for c, difference in corrected(found).items())
    return replace(result, top1=top1, by_class=by_class)


def _warnings(first: EvaluationRecord, second: EvaluationRecord, shared: int, labelled: bool) -> Iterator[str]:
    """Say what else differs, so that a difference of the models is not taken for one of these."""
    images, others = len(first.images.sha256), len(second.images.sha256)
    if 0 < shared < max(images, others):
        yield f"they share {shared} of {images} and {others} images; everything here is about these"
    seen = sum(1 for _ in matches(first.images.sha256, second.images.sha256))
    if seen > shared:
        yield f"{seen - shared} images have another label in the second evaluation and are left out"
    if not labelled:
        yield "not both have labels: only their agreement is told"
    if first.names and second.names and sorted(first.names) != sorted(second.names):
        at = next(i for i, (ours, theirs) in enumerate(zip(first.names, second.names, strict=False)) if ours != theirs)
        yield (
            f"classes have different names and are matched by index: {at} is '{first.names[at]}' and "
            f"'{second.names[at]}'"
        )
    if first.baseline.sha256 != second.baseline.sha256:
        yield f"different baselines: {first.baseline.path} and {second.baseline.path}"
    if first.data.sha256 != second.data.sha256:
        yield f"different data: {first.data.path} and {second.data.path}"
    old, new = _facts(first), _facts(second)
    for name, value in old.items():
        if value != new[name]:
            yield f"{name}: {value} in the first, {new[name]} in the second"


def _facts(record: EvaluationRecord) -> dict[str, str]:
    """Return what a difference of the models may come from, other than the models and the images."""
    device, runtime = record.device, record.runtime
    return {
        "target": record.target,
        "device": f"{device.name} ({device.machine}, {device.cores} x {device.cpu})",
        "emulation": "emulated" if device.emulated else "not emulated",
        "runtime": f"{runtime.name} {runtime.version}" if runtime else "unknown",
        "delegate": runtime.delegate if runtime else "unknown",
        "preprocessing": _described(record.preprocessing),
    }


def _described(how: Preprocessing) -> str:
    """Say what is done to an image, without where that is known from."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"{how.height}x{how.width}, crop {how.crop}, mean {mean}, std {std}"
