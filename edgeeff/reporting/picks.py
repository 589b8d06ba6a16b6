"""Which size a board can afford: the answer, the ladder it was found on, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from edgeeff import render
from edgeeff.picking import view
from edgeeff.reporting import plots, terminal
from edgeeff.reporting.page import (
    Cell,
    Column,
    Commands,
    Facts,
    Line,
    Lines,
    Mark,
    Part,
    Plot,
    Section,
    Table,
    lines,
    part,
)
from edgeeff.results import PickCandidate, PickRecord, PredictionRecord

RECORDED = "recorded"
DOUBT = "not certain"
DOUBTS = 3
"""Sentences of what is not certain; of the phi family there may be dozens."""


def section(record: PickRecord, anchor: str) -> Section:
    """Return what a pick says."""
    answered = [terminal.sentence(line) for line in view.answer(record)]
    first, rest = answered[0], answered[1:]
    doubts = [line for line in rest if line.lead == DOUBT]
    labels = [*(["emulated"] if record.device.emulated else []), *([RECORDED] if record.recorded else [])]
    return Section(
        anchor=anchor,
        title=f"Family {record.family} on {', '.join(record.targets)}",
        mark=_mark(record),
        summary=first.text,
        labels=tuple(labels),
        conclusion=(
            Line(first.text, "good" if record.winner else "bad"),
            *([] if record.winner else [Line(view.refusal(record), "bad", "why")]),
            *(line for line in rest if line.lead != DOUBT),
            *doubts[:DOUBTS],
            *([Line(f"{len(doubts) - DOUBTS} more of these are in the record.")] if len(doubts) > DOUBTS else []),
            *(Line(warning, "warn", "warning") for warning in record.warnings),
        ),
        parts=tuple(_parts(record)),
    )


def prediction(record: PredictionRecord, anchor: str) -> Section:
    """Return what a prediction says."""
    blocks = terminal.shown(partial(view.render_prediction, record))
    labels = ["emulated"] if record.device.emulated else []
    said = [line for block in blocks if isinstance(block, Lines) for line in block.lines]
    return Section(
        anchor=anchor,
        title=f"{render.file_name(record.model.path)} on {record.target}",
        mark=Mark("predicted"),
        summary=said[0].text.partition(": ")[2] or said[0].text,
        labels=(*labels, *([RECORDED] if record.recorded else [])),
        conclusion=tuple(said),
        parts=tuple(part("Next", *(block for block in blocks if isinstance(block, Commands)))),
    )


def _mark(record: PickRecord) -> Mark:
    if record.winner is None:
        return Mark("nothing fits", "bad")
    return Mark(f"{record.winner} fits", "good") if record.certain else Mark("not certain", "warn")


def _latencies(record: PickRecord, shown: Sequence[PickCandidate], label: str) -> Table | None:
    found = terminal.from_table(
        view.latencies(record, shown),
        f"What they take{f' ({label})' if label else ''}",
        brief=True,
        note="Points/ms: top-1 for each further millisecond, against the next smaller network.",
    )
    if found is None:
        return None
    # The terminal marks the answer with a sign, and has no room for the last heading.
    rows = (
        replace(row, cells=(Cell(f"{one.name} (the answer)"), *row.cells[1:]), strong=True)
        if one.name == record.winner
        else row
        for row, one in zip(found.rows, shown, strict=True)
    )
    return replace(found, columns=(*found.columns[:-1], Column("verdict", figures=False)), rows=tuple(rows))


def _label(record: PickRecord) -> str:
    words = [
        *(["EMULATED"] if record.device.emulated else []),
        *(["RECORDED, not measured now"] if record.recorded else []),
    ]
    return f"; {', '.join(words)}" if words else ""


def _parts(record: PickRecord) -> Iterator[Part]:
    shown = view.around_the_answer(record)
    more = len(record.candidates) - len(shown)
    label = _label(record).removeprefix("; ")
    yield from part(
        "Accuracy against latency",
        Plot(
            "The ladder, its Pareto front and the budget; hollow points are predicted, bars are 95 % intervals"
            f"{f' ({label})' if label else ''}",
            f"{len(record.candidates)} networks; the tables below have their figures.",
            partial(plots.ladder, record),
        ),
        _latencies(record, shown, label),
        terminal.from_table(
            view.networks(shown),
            "What they are; sizes and memory of those that were not made are computed",
            note=f"{more} more are in the record." if more else "",
        ),
    )
    changes = tuple(view.changes(record))
    yield from part("To get further" if record.winner else "What would fit", Facts(changes) if changes else None)
    command = None if record.command is None else Commands(((record.command, "makes the answer"),))
    yield from part("Where figures are from", lines(view.sources(record)), command)
