"""How fast files are: each measurement with its verdict, and several side by side - measured with measured, emulated
with emulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from edgeeff import render
from edgeeff.devices import figures
from edgeeff.devices import profile_view as view
from edgeeff.devices.profile_view import milliseconds
from edgeeff.reporting import plots, terminal
from edgeeff.reporting.page import (
    Cell,
    Column,
    Facts,
    Line,
    Mark,
    Part,
    Plot,
    Row,
    Section,
    Table,
    Tone,
    lines,
    part,
    table,
)
from edgeeff.results import BoardSummary, ProfileRecord

EMULATED = "emulated"
NOT_REAL = "EMULATED: no latency here is a real board's"
ROWS = 24
"""Files and boards in a plot; the table has all."""


def section(record: ProfileRecord, anchor: str) -> Section:
    """Return what a measurement says."""
    return Section(
        anchor=anchor,
        title=view.named(record),
        mark=mark(record),
        summary=_summary(record),
        labels=(EMULATED,) if record.device.emulated else (),
        conclusion=tuple(_conclusion(record)),
        parts=tuple(_parts(record)),
    )


def overview(records: Sequence[ProfileRecord]) -> Iterator[Part]:
    """Return what the records say side by side, apart for what was measured on real machines and what was emulated."""
    for emulated in (False, True):
        group = [record for record in records if record.device.emulated is emulated]
        if not group:
            continue
        label = f" ({NOT_REAL})" if emulated else ""
        mixed = any(record.device.emulated is not emulated for record in records)
        alone = "Measured" if mixed else "Side by side" if len(group) > 1 else "In figures"
        fleet = [line for summary in figures.fleet(_boards(group)) for line in view.fleet_lines(summary)]
        yield from part(
            NOT_REAL if emulated else alone,
            lines(fleet),
            Plot(
                "Latency of one inference: a line from the fastest run to p99 (p90 where runs are few), a dot for the "
                f"p50 with its 95 % interval as a band, a bar for p90; what is not valid is grey{label}",
                f"{len(group)} measurements; the table below has their figures.",
                partial(plots.latencies, group[:ROWS]),
            ),
            _latencies(group, label),
            terminal.from_table(
                view.starts(group),
                f"What happens once, in ms, and the memory of the process, in MB{label}",
                note="Import is the runtime's, load reads the file and prepares it, first is the first inference.",
            ),
        )


def mark(record: ProfileRecord) -> Mark:
    """Return the verdict in a word."""
    verdict = record.verdict
    if record.device.emulated:
        return Mark("emulated", "warn")
    if verdict is None:
        return Mark("no verdict")
    if not verdict.valid:
        return Mark("INVALID", "bad")
    return Mark("a first look only", "warn") if record.mode == "quick" else Mark("valid", "good")


def _boards(records: Sequence[ProfileRecord]) -> list[ProfileRecord]:
    """Leave the newest record of each file on each target: a fleet is of boards, not of repetitions."""
    newest = {(one.model.sha256, one.threads, one.target): one for one in sorted(records, key=lambda one: one.created)}
    return list(newest.values())


def _summary(record: ProfileRecord) -> str:
    latency = record.latency
    sure = ""
    if latency.processes > 1:
        low, high = latency.interval_s
        sure = f" (95 %: {milliseconds(low).removesuffix(' ms')}-{milliseconds(high)})"
    emulated = f"; {NOT_REAL}" if record.device.emulated else ""
    return f"p50 {milliseconds(latency.p50_s)}{sure}, p90 {milliseconds(latency.p90_s)}{emulated}"


def _conclusion(record: ProfileRecord) -> Iterator[Line]:
    latency, verdict = record.latency, record.verdict
    tail = "" if latency.p99_s is None else f", 99 of 100 within {milliseconds(latency.p99_s)}"
    yield Line(
        f"Half of all inferences take at most {milliseconds(latency.p50_s)}, nine of ten "
        f"{milliseconds(latency.p90_s)}{tail}, on {record.target}: {record.device.name}."
    )
    if latency.processes > 1:
        low, high = latency.interval_s
        yield Line(f"The p50 lies between {milliseconds(low)} and {milliseconds(high)} (95 % interval over processes).")
    start = record.import_s + record.load_s + record.first_inference_s
    yield Line(
        f"The first answer comes {milliseconds(start)} after the start of the process, which takes "
        f"{render.megabytes(record.peak_rss_bytes)} of memory at its peak."
    )
    if record.device.emulated:
        yield Line("A program stood in for the board: these figures say that the file runs, not how fast.", "warn")
    if verdict is None:
        yield Line("The record is older than verdicts: nobody checked whether the board was slowed down or busy.")
        return
    quick = ", a first look only: measure without --quick for figures to report" if record.mode == "quick" else ""
    word = "valid" if verdict.valid else "INVALID: do not report these figures"
    tone: Tone = "bad" if not verdict.valid else "warn" if quick else "good"
    yield Line(f"The measurement is {word}{quick}.", tone)
    for reason in verdict.reasons:
        yield Line(reason.text, "warn" if reason.invalidates else "", "invalid" if reason.invalidates else "note")


def _parts(record: ProfileRecord) -> Iterator[Part]:
    slowed = record.time_to_throttle_s
    minutes = Plot(
        "p50 by minute of a sustained measurement, ms",
        ", ".join(f"minute {one.minute}: {milliseconds(one.p50_s)}" for one in record.minutes),
        partial(plots.minutes, record),
    )
    said = (
        f"It was slowed down after {slowed:.0f} s: what comes after is the board's pace in the long run."
        if slowed is not None
        else "It was not slowed down, as far as the board tells."
    )
    # The terminal has lines for what is a table or a plot here.
    details = [line.strip() for line in view.details(record) if not line.startswith(("  from ", "  p50 by minute"))]
    yield from part("How it was measured", lines(details))
    if record.minutes:
        yield from part("Minute by minute", lines([said]), minutes)
    if record.end_to_end is not None:
        yield from part("From an image to its class", _end_to_end(record))
    if record.blocks:
        yield from part("Where time goes", lines([_slowest(record)]), _blocks(record))
    yield from part("Each process", _spread(record), _processes(record), folded=True)
    if record.board is not None:
        facts = tuple(_state(record.board))
        yield from part("The board meanwhile", Facts(facts) if facts else None, folded=True)


def _latencies(records: Sequence[ProfileRecord], label: str) -> Table | None:
    found = terminal.from_table(view.latencies(records), f"Latency of one inference, in ms{label}", brief=True)
    if found is None:
        return None
    # The terminal has verdicts below; here each stands beside its figures.
    rows = []
    for row, record in zip(found.rows, records, strict=True):
        said = mark(record)
        rows.append(Row((*row.cells, Cell(said.word, said.tone)), row.strong))
    columns = (*found.columns, Column("verdict", figures=False))
    return Table(found.caption, columns, tuple(rows), found.note, found.brief)


def _spread(record: ProfileRecord) -> Plot | None:
    latency = record.latency
    if len(latency.process_p50_s) < 2:
        return None
    shown = [name for name, values in (("p90", latency.process_p90_s), ("p99", latency.process_p99_s)) if values]
    marks = ["a dot for the p50", *(["a bar for p90"] if "p90" in shown else [])]
    line = f", and a line from there to {shown[-1]}" if shown else ""
    return Plot(
        f"Latency of each process: {', '.join(marks)}{line}",
        "The table below has the figures.",
        partial(plots.processes, record),
    )


def _processes(record: ProfileRecord) -> Table | None:
    latency = record.latency
    none = (None,) * len(latency.process_p50_s)
    columns = (latency.process_p50_s, latency.process_p90_s or none, latency.process_p99_s or none)
    rows = [
        (str(number), *("" if value is None else milliseconds(value).removesuffix(" ms") for value in values))
        for number, values in enumerate(zip(*columns, strict=True), 1)
    ]
    return (
        table("Percentiles of each process, in ms", ("process", "p50", "p90", "p99"), rows) if len(rows) > 1 else None
    )


def _end_to_end(record: ProfileRecord) -> Table | None:
    steps = record.end_to_end
    if steps is None:
        return None
    named = (("decode", steps.decode_s), ("resize", steps.resize_s), ("quantize", steps.quantize_s))
    every = (*named, ("run", steps.invoke_s))
    longest = max(value for _, value in every)
    rows = [
        (name, Cell(milliseconds(value).removesuffix(" ms"), share=value / longest if longest > 0 else None))
        for name, value in every
    ]
    total = f"{milliseconds(steps.total_s)}, 90 % within {milliseconds(steps.total_p90_s)}"
    return table(
        f"From {steps.image} to scores: {total}", ("step", "median ms"), rows, note=f"{steps.runs} runs of all steps."
    )


def _slowest(record: ProfileRecord) -> str:
    worst = max(record.blocks, key=lambda block: block.share)
    return (
        f"'{worst.name}' takes most, {worst.share:.0%} of the network. These are differences of quick measurements, "
        "apart from the latency above."
    )


def _blocks(record: ProfileRecord) -> Table | None:
    longest = max(block.share for block in record.blocks)
    rows = [
        (
            block.name,
            str(block.operators),
            f"{block.macs / 1e6:.1f}",
            milliseconds(block.p50_s).removesuffix(" ms"),
            Cell(f"{block.share:.1%}", share=max(0.0, block.share) / longest if longest > 0 else None),
        )
        for block in record.blocks
    ]
    emulated = f" ({NOT_REAL})" if record.device.emulated else ""
    return table(f"Time of each block{emulated}", ("block", "operators", "MACs M", "ms", "share"), rows)


def _state(board: BoardSummary) -> Iterator[tuple[str, str]]:
    """Say what the board did; what it does not tell is left out."""
    heat = [
        *([] if board.start_temperature_c is None else [f"{board.start_temperature_c:.0f} °C at the start"]),
        *([] if board.max_temperature_c is None else [f"{board.max_temperature_c:.0f} °C at most"]),
    ]
    if heat:
        yield "temperature", ", ".join(heat)
    if board.min_hz is not None and board.max_hz is not None:
        yield "frequency", f"{board.min_hz / 1e9:.2f} to {board.max_hz / 1e9:.2f} GHz, as the kernel asked for"
    yield "throttle bits", ", ".join(board.throttled) or "nothing, or not told"
    if board.start_load_1m is not None:
        yield "load at the start", f"{board.start_load_1m:.2f} in the last minute"
    if board.min_available_bytes is not None:
        yield "least memory available", f"{board.min_available_bytes / 1e6:,.0f} MB"
    if board.max_swap_used_bytes is not None:
        yield "most swap in use", f"{board.max_swap_used_bytes / 1e6:,.0f} MB"
    yield "samples", f"{board.samples:,} between timed runs"
