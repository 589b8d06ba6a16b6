"""Whether files are still right: differences with their intervals, classes, confusions, and images that changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from edgeeff.evaluation import view
from edgeeff.render import file_name
from edgeeff.reporting import plots, terminal
from edgeeff.reporting.page import (
    Cell,
    Facts,
    Line,
    Mark,
    Part,
    Pictures,
    Plot,
    Section,
    Table,
    Tone,
    lines,
    part,
    table,
)
from edgeeff.reporting.thumbnails import Thumbnails
from edgeeff.results import ClassResult, Difference, EvaluationRecord

CLASSES = 12
"""Classes in a table or a plot."""
CELLS = 12
"""Cells of the confusion difference, in the table."""
SPOKEN = 5
"""Cells of it that are said to who does not see the picture."""


def section(record: EvaluationRecord, anchor: str, thumbnails: Thumbnails | None = None) -> Section:
    """Return what an evaluation says; images that changed are shown where `thumbnails` finds them."""
    where = "" if record.target == "local" else f", {record.target}"
    return Section(
        anchor=anchor,
        title=f"{file_name(record.model.path)} against {file_name(record.baseline.path)}{where}",
        mark=_mark(record),
        summary=_summary(record),
        labels=("emulated",) if record.device.emulated else (),
        conclusion=tuple(_conclusion(record)),
        parts=tuple(_parts(record, thumbnails)),
    )


def overview(records: Sequence[EvaluationRecord]) -> Iterator[Part]:
    """Return a row for each of several models."""
    yield from part(
        "Side by side",
        terminal.from_table(view.overview(records), "Models against their baselines; points are of top-1", brief=True),
    )


def _mark(record: EvaluationRecord) -> Mark:
    failed = sum(not gate.passed for gate in record.gates)
    serious = next((finding for finding in record.findings if finding.serious), None)
    if failed:
        return Mark(f"{failed} of {len(record.gates)} gates failed" if len(record.gates) > 1 else "gate failed", "bad")
    if serious is not None:
        return Mark(serious.cause, "bad")
    if record.gates:
        return Mark(f"all {len(record.gates)} gates passed" if len(record.gates) > 1 else "gate passed", "good")
    top1 = record.paired.top1
    if top1 is None:
        return Mark("no labels")
    tones: dict[str, Tone] = {"significantly lower": "bad", "significantly higher": "good"}
    return Mark(view.word(top1), tones.get(view.word(top1), ""))


def _summary(record: EvaluationRecord) -> str:
    paired, ours, theirs = record.paired, record.baseline_metrics, record.model_metrics
    agree = f"same best class on {view.percent(paired.agreement)} % of {paired.images:,} images"
    if paired.top1 is None or ours is None or theirs is None:
        return agree
    return (
        f"top-1 {view.percent(theirs.top1)} %, baseline {view.percent(ours.top1)} %: {view.points(paired.top1.value)} "
        f"points (95 %: {view.interval(paired.top1)}); {agree}"
    )


def _conclusion(record: EvaluationRecord) -> Iterator[Line]:
    paired, ours, theirs = record.paired, record.baseline_metrics, record.model_metrics
    top1 = paired.top1
    if top1 is not None and ours is not None and theirs is not None:
        low, high = top1.interval
        yield Line(
            f"Top-1 is {view.percent(theirs.top1)} %, the baseline's {view.percent(ours.top1)} %: {_amount(top1)}. "
            f"With 95 % confidence the difference is between {view.points(low)} and {view.points(high)} points: "
            f"{view.word(top1)}.",
        )
        if paired.smallest_difference is not None and view.word(top1) == "no significant difference":
            yield Line(
                f"A set of {paired.images:,} images shows differences from {view.percent(paired.smallest_difference)} "
                "points on; smaller ones may be there unseen."
            )
    yield Line(
        f"Both say the same best class on {view.percent(paired.agreement)} % of {paired.images:,} images"
        f"{'' if record.data.classes else '; without labels nobody knows which of them is right where they differ'}."
    )
    for gate in record.gates:
        yield Line(gate.text, "good" if gate.passed else "bad", "gate")
    for finding in sorted(record.findings, key=lambda one: not one.serious):
        yield Line(f"{finding.text}\n→ {finding.advice}", "bad" if finding.serious else "warn", finding.cause)


def _amount(difference: Difference) -> str:
    if view.points(difference.value) == "0.0":
        return "no difference"
    points = view.points(abs(difference.value)).removeprefix("+")
    return f"{points} points {'lower' if difference.value < 0 else 'higher'}"


def _parts(record: EvaluationRecord, thumbnails: Thumbnails | None) -> Iterator[Part]:
    data = record.data
    judged = Line(f"{data.images:,} images of {data.classes or 'no'} classes, {data.path}.")
    intervals = list(_intervals(record))
    yield from part(
        "Both models on the same images",
        lines([judged, *(Line(note, lead="note") for note in data.notes)]),
        terminal.from_table(
            view.figures(record), "Both models, in percent; points are the model's minus the baseline's", brief=True
        ),
        Plot(
            "Differences in points, with 95 % intervals: left of zero the model is worse",
            "; ".join(f"{name} {view.points(one.value)} ({view.interval(one)})" for name, one in intervals),
            partial(plots.differences, intervals, _allowed(record)),
        )
        if intervals
        else None,
        # What changed most often has a table below.
        lines(_led(line) for line in view.change(record) if not line.startswith("most frequent changes")),
    )
    yield from part("Classes", *_classes(record))
    changes = _changes(record) if data.classes else {}
    yield from part(
        "Confusion difference", _confusion_plot(record, changes), _confusions(record, changes), _flips(record)
    )
    yield from _changed_images(record, thumbnails)
    yield from part(
        "How it was judged",
        Facts(tuple(_judged(record))),
        lines(_begun(line.strip()) for line in view.ran(record)),
        folded=True,
    )


def _led(sentence: str) -> Line:
    """Return a sentence of the terminal with what it is about before the colon."""
    about, colon, rest = sentence.partition(": ")
    return Line(rest, lead=about) if colon and " (" not in about else Line(_begun(sentence))


def _begun(sentence: str) -> str:
    """Begin a sentence of the terminal as sentences of a page begin."""
    return sentence[:1].upper() + sentence[1:]


def _intervals(record: EvaluationRecord) -> Iterator[tuple[str, Difference]]:
    paired = record.paired
    for name, found in (
        ("top-1", paired.top1),
        ("top-5", paired.top5),
        ("macro recall", paired.balanced_accuracy),
        ("macro precision", paired.macro_precision),
        ("macro F1", paired.macro_f1),
    ):
        if found is not None:
            yield name, found


def _allowed(record: EvaluationRecord) -> float | None:
    """Return the drop in top-1 that a gate allowed, as a fraction."""
    return next((gate.limit for gate in record.gates if gate.gate == "max-drop"), None)


# --- Classes ----------------------------------------------------------------------------------------------------------


def _classes(record: EvaluationRecord) -> Iterator[Table | Plot | None]:
    compared = [one for one in record.by_class if one.recall is not None or one.precision is not None]
    if not compared:
        return
    worst = sorted(compared, key=_order)[:CLASSES]
    more = len(compared) - len(worst)
    yield Plot(
        "Recall and precision of the classes that changed most for the worse, in points, with 95 % intervals",
        "The table below has the figures.",
        partial(plots.classes, worst),
    )
    columns = ("class", "images", "recall %", "points", "95 % interval", "precision %", "points", "95 % interval")
    yield table(
        "Classes in both models, those that may have lost most first; recall and precision are the model's",
        (*columns, "only the baseline right", "only the model right"),
        (_class(one) for one in worst),
        note=f"{more:,} more classes are in the record. " * bool(more)
        + "Intervals are of one class each; * marks changes that hold after Holm's correction over all classes.",
    )


def _order(one: ClassResult) -> tuple[float, int]:
    # The end of the interval that speaks for the model: a class that surely lost comes before one that may have.
    ends = [found.interval[1] for found in (one.recall, one.precision) if found is not None]
    return min(ends), one.index


def _class(one: ClassResult) -> Iterator[str | Cell]:
    yield one.name
    yield f"{one.support:,}"
    for figure, found in ((one.model.recall, one.recall), (one.model.precision, one.precision)):
        yield "" if figure is None else view.percent(figure)
        sure = found is not None and view.is_significant(found)
        worse: Tone = "bad" if found is not None and found.value < 0 else "good"
        yield "" if found is None else Cell(f"{view.points(found.value)}{'*' * sure}", worse if sure else "")
        yield "" if found is None else view.interval(found)
    yield f"{one.lost:,}"
    yield f"{one.gained:,}"


# --- Confusions and flips ---------------------------------------------------------------------------------------------


def _changes(record: EvaluationRecord) -> dict[tuple[int, int], int]:
    """Return by how many images each cell of the confusion matrix changed, without those that did not."""
    before = {(right, said): images for right, said, images in record.baseline_confusion}
    after = {(right, said): images for right, said, images in record.confusion}
    changes = {cell: after.get(cell, 0) - before.get(cell, 0) for cell in sorted(before.keys() | after.keys())}
    return {cell: change for cell, change in changes.items() if change}


def _mistakes(changes: Mapping[tuple[int, int], int]) -> list[tuple[tuple[int, int], int]]:
    """Return the cells of mistakes, those that changed most first."""
    mistakes = [(cell, change) for cell, change in changes.items() if cell[0] != cell[1]]
    return sorted(mistakes, key=lambda one: (-abs(one[1]), one[0]))


def _confusion_plot(record: EvaluationRecord, changes: Mapping[tuple[int, int], int]) -> Plot | None:
    mistakes = _mistakes(changes)
    # Where no mistake became more frequent or rarer by more than one image, or only two classes changed, the table
    # says it all.
    if not mistakes or abs(mistakes[0][1]) < 2 or len({index for cell, _ in mistakes for index in cell}) < 3:
        return None
    name = partial(view.class_name, record)
    said = ", ".join(
        f"{name(right)} taken for {name(other)} {change:+,}" for (right, other), change in mistakes[:SPOKEN]
    )
    return Plot(
        "Images in each cell of the confusion matrix, the model's minus the baseline's, for the classes that changed "
        "most; outlined cells are right answers",
        f"The largest changes: {said}.",
        partial(plots.confusions, changes, name),
    )


def _confusions(record: EvaluationRecord, changes: Mapping[tuple[int, int], int]) -> Table | None:
    before = {(right, said): images for right, said, images in record.baseline_confusion}
    mistakes = _mistakes(changes)
    rows = [
        (
            view.class_name(record, right),
            view.class_name(record, said),
            f"{before.get((right, said), 0):,}",
            f"{before.get((right, said), 0) + change:,}",
            f"{change:+,}",
        )
        for (right, said), change in mistakes[:CELLS]
    ]
    more = len(mistakes) - len(rows)
    return table(
        "Mistakes that became more or fewer",
        ("right class", "taken for", "baseline", "model", "change"),
        rows,
        words=(0, 1),
        note=f"{more:,} more of them changed." if more > 0 else "",
    )


def _flips(record: EvaluationRecord) -> Table | None:
    flips = record.paired.flips[:CELLS]
    rows = [
        (view.class_name(record, one.baseline), view.class_name(record, one.model), f"{one.images:,}") for one in flips
    ]
    more = len(record.paired.flips) - len(rows)
    return table(
        "Images whose best class changed, most frequent first",
        ("baseline says", "model says", "images"),
        rows,
        words=(0, 1),
        note=f"{more:,} other changes are in the record." if more > 0 else "",
    )


def _changed_images(record: EvaluationRecord, thumbnails: Thumbnails | None) -> Iterator[Part]:
    if thumbnails is None:
        return
    found, notes = thumbnails.of(record)
    pictures = Pictures("Images whose best class changed, the surest changes first", found) if found else None
    yield from part("Images that changed", pictures, lines(notes))


def _judged(record: EvaluationRecord) -> Iterator[tuple[str, str]]:
    data = record.data
    yield "data", f"{data.path} ({data.kind}), sha256 {data.sha256}"
    yield "classes matched by", data.matched_by
    if data.unreadable:
        yield "left out", f"{len(data.unreadable):,} images that cannot be read, first {data.unreadable[0][0]}"
    for name, one in (("model", record.preprocessing), ("baseline", record.baseline_preprocessing)):
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (one.mean, one.std))
        pixels = f"(pixel - {mean}) / {std}" if any(one.mean) or set(one.std) != {1.0} else "pixels 0 to 255"
        yield f"{name}'s preprocessing", f"{one.width} x {one.height}, crop {one.crop}, {pixels}; from {one.source}"
