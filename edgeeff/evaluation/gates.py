"""Gates: what is asked of a model, read from options or a file, and judged by intervals, not by points.

A gate says yes when the end of a 95 % interval that speaks against the model is still within the limit, so that a set
too small to tell says no, and says how many images like these would tell. A gate on every class asks for each class's
own 95 % interval, without a correction: all of them have to hold, so that a wrong yes is no more probable than in the
worst class alone (Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24, 1982).

How far something may drop is written in points (1.0 is from 80 % to 79 %), how good it must be as a fraction (0.9) or
a percentage ("90%"); here everything is a fraction.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgeeff.errors import InputError, UnknownNameError
from edgeeff.evaluation.metrics import wilson
from edgeeff.evaluation.paired import images_needed
from edgeeff.results import ClassMetrics, ClassResult, Difference, EvaluationRecord, GateResult

EVERY_CLASS = "*"
PROJECT = "pyproject.toml"
NAMED = 3
"""Classes that a sentence names; of more it says how many."""
LISTED = 20
"""Names that a message lists."""

_PERCENTAGE = re.compile(r"([-+]?[\d.]+)\s*%")


@dataclass(frozen=True)
class Gates:
    """Limits as fractions, 0 to 1; None or empty where nothing is asked."""

    max_drop: float | None = None
    """How far top-1 may be below the baseline's."""
    min_accuracy: float | None = None
    """Top-1."""
    min_recall: float | None = None
    """Macro mean, as is the next."""
    min_precision: float | None = None
    min_class_recall: Mapping[str, float] = field(default_factory=dict)
    """By class name, or index as text; "*" is for every class that is not named."""
    max_class_recall_drop: float | None = None
    """How far the recall of any class may be below the baseline's."""
    min_agreement: float | None = None
    """Share of images with the baseline's best class; the one gate that needs no labels."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of those that are asked for, as options without dashes."""
        return tuple(name for name in NAMES if getattr(self, name.replace("-", "_")) not in (None, {}))


NAMES = tuple(one.name.replace("_", "-") for one in fields(Gates))
"""As options without dashes, and as keys of a file."""


# --- Reading ----------------------------------------------------------------------------------------------------------


def parse(*, min_class_recall: Sequence[str] = (), **options: str | float | None) -> Gates:
    """Return the gates that options ask for, given as the user wrote them, by the names of the fields of `Gates`.

    Raises InputError for what is no number, or none that the gate can have.
    """
    values: dict[str, Any] = {
        name: _limit(name, text, f"--{name.replace('_', '-')}") for name, text in options.items() if text is not None
    }
    classes: dict[str, float] = {}
    for text in min_class_recall:
        name, sign, value = text.rpartition("=")
        if sign and not name:
            raise InputError(f"--min-class-recall {text} names no class; write NAME=0.9, or 0.9 for every class")
        key = name if sign else EVERY_CLASS
        if key in classes:
            raise InputError(f"--min-class-recall is given twice for {_called(key)}; give one limit")
        classes[key] = _limit("min_class_recall", value, "--min-class-recall")
    return Gates(**values, min_class_recall=classes)


def from_file(path: Path) -> Gates:
    """Read gates from [tool.edgeeff.gates] of a pyproject.toml, or [gates] or the top level of another TOML file.

    Keys are the options without dashes in front, e.g. max-drop = 1.0, min-accuracy = "75%" and min-class-recall = 0.8
    or { cat = 0.9, "*" = 0.8 }. Raises UnknownNameError for another key, and InputError when the file cannot be read,
    asks for nothing, or a value is of the wrong type or out of its range.
    """
    document, where = _document(path), str(path)
    if path.name == PROJECT:
        where, document = f"{path}, [tool.edgeeff.gates]", _of_project(document)
    elif "gates" in document:
        # A limit outside the table would not be looked at, and its writer would not know.
        _known({name: value for name, value in document.items() if name != "gates"}, where)
        if set(document) != {"gates"}:
            raise InputError(f"{where} has gates both inside and outside of [gates]; put all of them inside")
        where, document = f"{path}, [gates]", document["gates"]
    if not isinstance(document, dict) or not document:
        raise InputError(f"{where} asks for nothing; write for example: max-drop = 1.0")
    return Gates(**_values(_known(document, where), where))


def in_project(path: Path) -> bool:
    """Say whether a pyproject.toml, which need not be there, has gates; raises InputError when it cannot be read."""
    return path.is_file() and _of_project(_document(path)) is not None


def fraction(option: str, text: str | float | None) -> float | None:
    """Return a share that the user wrote as 0.9 or 90%, as a fraction; raises InputError, naming the option."""
    return None if text is None else _limit("", text, option)


def merge(file: Gates, command_line: Gates) -> Gates:
    """Return the gates of both; what the command line says of a gate, or of a class, takes the place of the file's."""
    classes = {**file.min_class_recall, **command_line.min_class_recall}
    given = {name.replace("-", "_") for name in command_line.asked} - {"min_class_recall"}
    return replace(file, **{name: getattr(command_line, name) for name in given}, min_class_recall=classes)


def _document(path: Path) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.toml.decode(path.read_text("utf-8"), type=dict[str, Any])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the gates {path}: {error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no TOML: {error}") from error


def _of_project(document: Any) -> Any:
    """Return what a pyproject.toml has for us, None where it has nothing."""
    for key in ("tool", "edgeeff", "gates"):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _known(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the entries by the names of the fields; a key may be written with - or _."""
    found = {}
    for key, value in document.items():
        name = key.replace("_", "-")
        if name not in NAMES:
            raise UnknownNameError(f"gate in {where}:", key, NAMES)
        if name.replace("-", "_") in found:
            raise InputError(f"{where}: {name} is there twice, with - and with _; give one")
        found[name.replace("-", "_")] = value
    return found


def _values(entries: dict[str, Any], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in entries.items():
        told = f"{where}: {name.replace('_', '-')}"
        if name != "min_class_recall":
            values[name] = _limit(name, value, told)
        elif isinstance(value, dict):
            values[name] = {key: _limit(name, one, f"{told}, {_called(key)}:") for key, one in value.items()}
        else:
            values[name] = {EVERY_CLASS: _limit(name, value, told)}
    return values


def _limit(name: str, value: object, told: str) -> float:
    """Return a limit as a fraction; `told` is how the message names it."""
    drop = name.startswith("max_")
    example = "points from 0 to 100, e.g. 1.0 for one point" if drop else "a fraction from 0 to 1, e.g. 0.9, or 90%"
    percentage = _PERCENTAGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if percentage and drop:
        # Of what: 1 % of 80 % would be 0.8 points.
        raise InputError(f"{told} {value}: a drop is in points, not percent; write {percentage[1]} for so many points")
    try:
        number = float(percentage[1] if percentage else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{told} {value!r} is no number; write {example}")
    if not drop and not percentage and 1 < number <= 100:
        raise InputError(f"{told} {value} is above 1; write {number / 100:g} or {number:g}%")
    fraction = number / 100 if drop or percentage else number
    if not 0 <= fraction <= 1:
        raise InputError(f"{told} {value} is out of range; write {example}")
    return fraction


# --- Judging ----------------------------------------------------------------------------------------------------------


def check(gates: Gates, *, names: Sequence[str], classes: int, supports: Mapping[int, int] | None) -> None:
    """Refuse gates that cannot be judged, before any image is.

    `supports` is the number of images of each class that has some, by index, or None where there are no labels.
    Raises InputError for a gate that needs labels where there are none, for a class without images and for a name that
    several classes have; UnknownNameError for a class that does not exist.
    """
    needing = [f"--{name}" for name in gates.asked if name != "min-agreement"]
    if needing and supports is None:
        raise InputError(
            f"{' and '.join(needing)} cannot be judged without labels; give images in class folders or a CSV of files "
            "and labels, or ask for --min-agreement"
        )
    for name in gates.min_class_recall:
        if name != EVERY_CLASS and not (supports or {}).get(index := _index(name, names, classes)):
            raise InputError(
                f"--min-class-recall {name}: there is no image of class {index} in the data, so it cannot be judged; "
                "add some, or leave this gate out"
            )


def judge(gates: Gates, record: EvaluationRecord) -> tuple[GateResult, ...]:
    """Return what came of every gate, in the order of the fields of `Gates`.

    Uses the metrics, `paired`, `by_class`, `names` and `classes` of the record; raises what `check` raises.
    """
    metrics = record.model_metrics
    supports = None if metrics is None else {one.index: one.support for one in record.by_class}
    check(gates, names=record.names, classes=record.classes, supports=supports)
    return tuple(_judged(gates, record))


def macro_bound(value: float, classes: Sequence[tuple[float, int]]) -> float:
    """Return the lower end of the 95 % interval of a mean over `classes`, each a fraction and of how many images it is.

    Wilson's intervals of the classes, which are independent of each other, put together by the root of the sum of
    squares, as Newcombe's are (Zou and Donner, Construction of confidence limits about effect measures, Statistics in
    Medicine 27, 2008). A class without images can be as low as 0.
    """
    squares = [(fraction - wilson(round(fraction * images), images)[0]) ** 2 for fraction, images in classes]
    return max(0.0, value - math.sqrt(sum(squares)) / max(len(classes), 1))


def precision_bound(value: float, classes: Sequence[ClassMetrics]) -> float:
    """Return the lower end of the 95 % interval of macro precision; as `macro_bound`, without what it is too high by.

    A set has a given number of images of each class, but how many a model says are of it is chance: the mean of right
    by said is then too high by p (1 - p) r / said for each class, to second order, with precision p and recall r. With
    ten images a class that is more than a point.
    """
    rates = [(one.precision or 0.0, one.recall or 0.0, max(one.predicted, 1)) for one in classes]
    excess = sum(p * (1 - p) * r / said for p, r, said in rates) / max(len(classes), 1)
    return max(0.0, macro_bound(value, [(one.precision or 0.0, one.predicted) for one in classes]) - excess)


def _judged(gates: Gates, record: EvaluationRecord) -> Iterator[GateResult]:
    metrics, paired = record.model_metrics, record.paired
    images = paired.images
    if gates.max_drop is not None and paired.top1 is not None:
        table = (paired.both_right, paired.model_only_right, paired.baseline_only_right, paired.both_wrong)
        yield _drop("max-drop", gates.max_drop, "top-1", paired.top1, [count or 0 for count in table], "images")
    if metrics is not None:
        present = [one for one in record.by_class if one.support]
        if gates.min_accuracy is not None:
            low, _ = metrics.top1_interval
            yield _least("min-accuracy", gates.min_accuracy, "top-1", metrics.top1, low, images, "images")
        if gates.min_recall is not None:
            low = macro_bound(metrics.macro_recall, [(one.model.recall or 0.0, one.support) for one in present])
            yield _least("min-recall", gates.min_recall, "macro recall", metrics.macro_recall, low, images, "images")
        if gates.min_precision is not None:
            value = metrics.macro_precision
            low = precision_bound(value, [one.model for one in present])
            yield _least("min-precision", gates.min_precision, "macro precision", value, low, images, "images")
        yield from _class_recalls(gates.min_class_recall, record, present)
        if gates.max_class_recall_drop is not None:
            yield _worst_drop(gates.max_class_recall_drop, present)
    if gates.min_agreement is not None:
        low, _ = paired.agreement_interval
        yield _least("min-agreement", gates.min_agreement, "agreement", paired.agreement, low, images, "images")


def _least(gate: str, limit: float, what: str, value: float, bound: float, images: int, kind: str) -> GateResult:
    """Judge a figure that has to be at least the limit; `kind` is what `images` are called."""
    passed = bound >= limit
    needed = None if passed else _needed(value, bound, limit, images)
    found = f"{what} is {_percent(value, limit)} (95 %: at least {_percent(bound, limit)})"
    text = f"{gate} {limit:g}: {_answer(passed)}: {found}{_more(needed, images, kind)}"
    return GateResult(gate, limit, value, bound, passed, text, needed)


def _drop(gate: str, limit: float, what: str, difference: Difference, table: Sequence[int], kind: str) -> GateResult:
    """Judge a difference from the baseline that may be as far below zero as the limit; `kind` as in `_least`.

    The table is of images that both have right, the model only, the baseline only, and neither.
    """
    bound = difference.interval[0]
    passed = bound >= -limit
    needed = None if passed else images_needed(table[0], table[1], table[2], table[3], limit)
    found = f"{what} is {_against_baseline(difference, limit)}"
    text = f"{gate} {_number(limit * 100)}: {_answer(passed)}: {found}{_more(needed, sum(table), kind)}"
    return GateResult(gate, limit, difference.value, bound, passed, text, needed)


def _class_recalls(
    limits: Mapping[str, float], record: EvaluationRecord, present: Sequence[ClassResult]
) -> Iterator[GateResult]:
    """Judge the classes that are named one by one, then all the others as one gate."""
    by_index = {one.index: one for one in present}
    named = {name: _index(name, record.names, record.classes) for name in limits if name != EVERY_CLASS}
    for name, index in named.items():
        yield _class_recall(f"min-class-recall {name}", limits[name], by_index[index])
    others = [one for one in present if one.index not in named.values()]
    if EVERY_CLASS in limits and others:
        results = [_class_recall("min-class-recall", limits[EVERY_CLASS], one) for one in others]
        yield _all_of(results, others)


def _class_recall(gate: str, limit: float, one: ClassResult) -> GateResult:
    recall = one.model.recall or 0.0
    low, _ = wilson(round(recall * one.support), one.support)
    return _least(gate, limit, f"recall of {one.name}", recall, low, one.support, "images of it")


def _worst_drop(limit: float, present: Sequence[ClassResult]) -> GateResult:
    gate = "max-class-recall-drop"
    compared = [(one, one.recall) for one in present if one.recall is not None]
    results = [
        _drop(gate, limit, f"recall of {one.name}", recall, _table(one), "images of it") for one, recall in compared
    ]
    return _all_of(results, [one for one, _ in compared])


def _table(one: ClassResult) -> tuple[int, int, int, int]:
    both = round((one.model.recall or 0.0) * one.support) - one.gained
    return both, one.gained, one.lost, one.support - both - one.gained - one.lost


def _all_of(results: Sequence[GateResult], classes: Sequence[ClassResult]) -> GateResult:
    """Return the result of the worst class, which says how many others say no: first those that more would not help."""
    pairs = sorted(zip(results, classes, strict=True), key=lambda pair: (bool(pair[0].images_needed), pair[0].bound))
    failed = [pair for pair in pairs if not pair[0].passed]
    if not failed:
        nearest = min(results, key=lambda one: one.bound)
        return replace(nearest, text=f"{nearest.text}, the lowest of {len(results)} classes")
    worst, _ = failed[0]
    others = [one.name for _, one in failed[1:NAMED]]
    more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
    also = f"; {len(failed)} of {len(results)} classes, also {', '.join(others)}{more}" if others else ""
    return replace(worst, text=f"{worst.text}{also}")


def _needed(value: float, bound: float, limit: float, images: int) -> int | None:
    """Return how many images like these would bring the bound to the limit: its distance shrinks with their root."""
    if value <= limit:
        return None  # more images would only make the no surer
    return max(images + 1, math.ceil(images * ((value - bound) / (value - limit)) ** 2))


def _more(needed: int | None, images: int, kind: str) -> str:
    if needed is None:
        return ""
    about = needed if needed < 100 else int(float(f"{needed:.2g}"))
    return f"; {images:,} {kind} cannot tell, about {about:,} like these could"


def _answer(passed: bool) -> str:
    return "yes" if passed else "no"


def _against_baseline(difference: Difference, limit: float) -> str:
    """Say how far a figure is from the baseline's, with its interval."""
    low, high = difference.interval
    digits = _digits(low, -limit)

    def points(fraction: float) -> str:
        return f"{abs(fraction) * 100:.{digits}f}"

    side = "below" if difference.value < 0 else "above"
    if difference.value == 0:
        return f"the same as the baseline's (95 %: {points(low)} points below to {points(high)} above)"
    if high <= 0 or low >= 0:
        near, far = sorted((low, high), key=abs)
        between = f"{points(near)} to {points(far)}"
    else:
        between = f"{points(low)} below to {points(high)} above"
    return f"{points(difference.value)} points {side} the baseline's (95 %: {between})"


def _percent(fraction: float, limit: float) -> str:
    return f"{fraction * 100:.{_digits(fraction, limit)}f} %"


def _digits(fraction: float, limit: float) -> int:
    """Return how many decimals of a percentage tell it from the limit."""
    return next((n for n in (1, 2, 3) if round(fraction * 100, n) != round(limit * 100, n)), 1)


def _number(value: float) -> str:
    """Write points with at least one decimal."""
    text = f"{value:.6g}"
    return text if "." in text else f"{text}.0"


def _index(name: str, names: Sequence[str], classes: int) -> int:
    """Return the index of a class that is given by its name, or by its index as text."""
    if Counter(names)[name] > 1:
        same = [str(index) for index, one in enumerate(names) if one == name]
        raise InputError(f"classes {' and '.join(same)} are all called '{name}'; give the index: {same[0]}=0.9")
    if name in names:
        return list(names).index(name)
    if name.isascii() and name.isdigit() and int(name) < classes:
        return int(name)
    known = list(names) or [f"0 to {classes - 1}"]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if not near and len(known) > LISTED:
        known = [*known[:LISTED], f"... ({len(known)} in all)"]
    raise UnknownNameError("class", name, known)


def _called(key: str) -> str:
    return "every class" if key == EVERY_CLASS else f"class '{key}'"
