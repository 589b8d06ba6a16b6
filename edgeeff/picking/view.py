"""How a pick and a prediction look in a terminal: the answer first, then the ladder, then what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeeff.devices.profile_view import milliseconds
from edgeeff.results import PickCandidate, PickRecord, PredictionRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TOO_MUCH = {"latency": "too slow", "memory": "too much RAM", "size": "file too large", "top-1": "top-1 too low"}
ROWS = 9
"""Candidates in the tables: a named family as a whole, of the phi family those around the answer."""


def render(record: PickRecord, console: Console) -> None:
    """Print the answer, the ladder, and what to do next."""
    from rich.markup import escape

    for line in answer(record):
        console.print(line, soft_wrap=True)
    shown = around_the_answer(record)
    console.print(networks(shown))
    console.print(latencies(record, shown))
    if len(shown) < len(record.candidates):
        console.print(f"{len(record.candidates) - len(shown)} more of them are in --json", soft_wrap=True)
    for line in (*sources(record), *_changes(record)):
        console.print(escape(line), soft_wrap=True)
    for warning in record.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if record.command is not None:
        console.print(escape(f"next: {record.command}"), soft_wrap=True)


def render_prediction(record: PredictionRecord, console: Console) -> None:
    """Print what is predicted of one file, and from what."""
    from rich.markup import escape

    low, high = record.interval_s
    name = record.model.path.rsplit("/", 1)[-1]
    emulated = ", EMULATED" if record.device.emulated else ""
    lines = [
        f"{name} on {record.target}, {_threads(record.threads)}: {milliseconds(record.predicted_s)} predicted, 95 % "
        f"between {milliseconds(low)} and {milliseconds(high)} (p{record.percentile}); not measured{emulated}",
        f"  {record.macs / 1e9:.3f} G MACs in {record.scheme}, about {_megabytes(record.predicted_memory_bytes)} MB of "
        "memory for the process",
        f"  fitted on {', '.join(record.fitted) or 'nothing that was measured'}: {record.basis}",
    ]
    lines += [f"  recorded: {source}" for source in record.recorded]
    if not record.target.startswith("recorded:"):
        lines.append(f"next: edgeeff profile {record.model.path} --target {record.target}    measures it")
    for line in lines:
        console.print(escape(line), soft_wrap=True)


def refusal(record: PickRecord) -> str:
    """Say in one sentence why nothing fits."""
    limits, best = record.limits, record.candidates[0]
    good = [one for one in record.candidates if one.limit != "top-1"]
    if not good:
        top = max(one.top1 for one in record.candidates if one.top1 is not None)
        return f"no network of family {record.family} has a top-1 of {limits.min_top1:g} %: the best has {top:g} %"
    best = good[0]
    what = f"--min-top1 {limits.min_top1:g} asks for {best.name} or larger" if best is not record.candidates[0] else ""
    if best.status == "not separable":
        why = f"nothing surely fits: whether {best.name} does, the smallest, cannot be told by its {best.limit}"
    elif best.limit == "memory":
        why = f"{best.name} takes {_memory(best)} MB of memory, more than {_megabytes(limits.max_memory_bytes)} MB"
    elif best.limit == "size":
        why = f"the file of {best.name} has {_size(best)} MB, more than {_megabytes(limits.max_size_bytes)} MB"
    else:
        seconds = best.latency_s or best.predicted_s
        took = "an unknown time" if seconds is None else milliseconds(seconds)
        why = f"{best.name} takes {took}, more than the budget of {milliseconds(limits.budget_s)}"
    if what:
        return f"the limits contradict each other, and {best.limit} decides: {what}, but {why}"
    return f"nothing fits, {best.limit} decides: {why}" if best.status != "not separable" else why


# --- The answer -------------------------------------------------------------------------------------------------------


def answer(record: PickRecord) -> Iterator[str]:
    """Say what fits, what comes next, where that was measured, and what is not certain, as markup."""
    from rich.markup import escape

    named = {one.name: one for one in record.candidates}
    budget = f"{_percentile(record)} within {milliseconds(record.limits.budget_s)}"
    if record.winner is None:
        yield f"[bold red]nothing fits[/] {escape(budget)}"
    else:
        one = named[record.winner]
        yield (
            f"[bold green]{escape(one.name)}[/] is the largest with {escape(budget)}: {_time(one)}"
            f"{_left(record.margin)}"
        )
    if record.runner_up is not None:
        one = named[record.runner_up]
        word = "next larger" if one.status != "fits" else "next smaller"
        yield f"{word}: {escape(one.name)}, {_time(one)}{_left(record.runner_up_margin, one)}"
    if record.overhead_s is not None:
        yield f"all of these with the image: decoding and resizing it take {milliseconds(record.overhead_s)}"
    where = ", ".join(record.targets)
    slowest = " (the slowest decides)" if len(record.targets) > 1 else ""
    device, runtime = record.device, record.runtime
    used = "" if runtime is None else f", {runtime.name} {runtime.version}"
    emulated = ", EMULATED" if device.emulated else ""
    yield escape(
        f"on {where}{slowest}: {device.name} ({device.machine}, {device.cores} cores{emulated}){used}, "
        f"{record.scheme}, {_threads(record.threads)}"
    )
    if record.recorded:
        yield escape(f"RECORDED, not measured now: {'; '.join(record.recorded)}")
    if record.measured or not record.recorded:
        reused = sum(any(basis.basis == "reused" for basis in one.latencies) for one in record.candidates)
        before = f", {reused} reused from records" if reused else ""
        yield f"{record.measured} of {len(record.candidates)} measured{before}, {record.seconds:.0f} s"
    for doubt in record.doubts:
        yield f"[yellow]not certain:[/] {escape(doubt)}"


def _time(one: PickCandidate) -> str:
    if one.latency_s is not None:
        return f"{milliseconds(one.latency_s)}{_interval(one.interval_s)}"
    if one.predicted_s is not None:
        return f"{milliseconds(one.predicted_s)}{_interval(one.predicted_interval_s)} predicted"
    return "time not known"


def _left(margin: float | None, one: PickCandidate | None = None) -> str:
    if margin is None:
        return ""
    limit = one.limit if one is not None and one.limit in {"memory", "size"} else None
    if one is not None and one.status == "not separable":
        return f", not separable from {f'its limit of {limit}' if limit else 'the budget'}"
    what = f"its limit of {limit}" if limit else "the budget"
    return f", {abs(margin):.0%} {'below' if margin >= 0 else 'above'} {what}"


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f" ({milliseconds(low).removesuffix(' ms')}-{milliseconds(high)})"


def _percentile(record: PickRecord) -> str:
    limits = record.limits
    name = f"p{limits.percentile}"
    return f"{name} from image to scores" if limits.end_to_end else name


# --- Tables -----------------------------------------------------------------------------------------------------------


def around_the_answer(record: PickRecord) -> Sequence[PickCandidate]:
    """Return the candidates to show: a named family as a whole, of the phi family those around the answer."""
    if record.family != "phi":
        return record.candidates
    places = [place for place, one in enumerate(record.candidates) if one.latency_s is not None]
    names = [one.name for one in record.candidates]
    if record.winner is not None:
        middle = names.index(record.winner)
        places += range(max(0, middle - 2), min(len(names), middle + 4))
    return [record.candidates[place] for place in sorted(set(places))] or record.candidates[:ROWS]


def networks(shown: Sequence[PickCandidate]) -> Table:
    """Return the networks with their scaling, sizes, memory and published top-1."""
    from rich.markup import escape

    table = _table("network", "phi", "depth", "width", "px", "params M", "MACs G", "file MB", "RAM MB", "top-1 %")
    for one in shown:
        table.add_row(
            escape(one.name),
            "" if one.phi is None else f"{one.phi:g}",
            f"{one.depth:.3g}",
            f"{one.width:.3g}",
            str(one.resolution),
            f"{one.parameters / 1e6:.2f}",
            f"{one.macs / 1e9:.3f}",
            _size(one),
            _memory(one),
            "" if one.top1 is None else f"{one.top1:.1f}",
        )
    return table


def latencies(record: PickRecord, shown: Sequence[PickCandidate]) -> Table:
    """Return what the networks take, in ms, and what became of them."""
    from rich.markup import escape

    name = f"p{record.limits.percentile}, ms"
    known = "recorded" if record.recorded and not record.measured else "measured"
    table = _table(name, "predicted (95 %)", f"{known} (95 %)", "points/ms", "")
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    styles = {"fits": "green", "not separable": "yellow"}
    for one in shown:
        style, verdict = styles.get(one.status, ""), _verdict(one)
        table.add_row(
            escape(f"> {one.name}" if one.name == record.winner else f"  {one.name}"),
            _range(one.predicted_s, one.predicted_interval_s),
            _range(one.latency_s, one.interval_s),
            "" if one.gain_per_ms is None else f"{one.gain_per_ms:.2g}",
            f"[{style}]{verdict}[/]" if style else verdict,
        )
    return table


def _verdict(one: PickCandidate) -> str:
    """Say in a few words what became of a candidate; what is not said to be predicted is known."""
    if one.status == "not separable":
        return one.status if one.limit in {None, "latency"} else f"{one.status}: {one.limit}"
    verdict = one.status if one.status == "fits" else TOO_MUCH.get(one.limit or "", one.status)
    return f"{verdict}, {one.by}" if one.by == "predicted" else verdict


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Both tables are for terminals of 80 columns.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


# --- What follows -----------------------------------------------------------------------------------------------------


def sources(record: PickRecord) -> Iterator[str]:
    """Say where the top-1 figures are from, and what predictions are fitted on."""
    known: dict[str, str] = {}
    for one in record.candidates:
        if one.top1_source is not None:
            known.setdefault(one.top1_source, one.name)
    for source in known:
        yield f"top-1: published, {source}; yours depends on your training"
    if record.fitted:
        yield f"predictions are fitted on {', '.join(record.fitted)}"


def _changes(record: PickRecord) -> Iterator[str]:
    if record.changes:
        yield "to get further:" if record.winner is not None else "what would fit:"
    for option, text in changes(record):
        yield f"  {option:20s} {text}"


def changes(record: PickRecord) -> Iterator[tuple[str, str]]:
    """Give the options that would let the next network fit, and what is known of each."""
    for change in record.changes:
        told = ""
        if change.predicted_s is not None:
            told = f": {milliseconds(change.predicted_s)}{_interval(change.interval_s)} predicted"
        elif change.kind in {"threads", "scheme"}:
            told = "; how much that gains has to be measured"
        yield change.option, f"{change.text}{told}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else milliseconds(seconds).removesuffix(" ms")


def _range(seconds: float | None, interval: tuple[float, float] | None) -> str:
    return _ms(seconds) if interval is None else f"{_ms(seconds)} ({_ms(interval[0])}-{_ms(interval[1])})"


def _size(one: PickCandidate) -> str:
    return _megabytes(one.predicted_size_bytes if one.size_bytes is None else one.size_bytes)


def _memory(one: PickCandidate) -> str:
    return _megabytes(one.predicted_memory_bytes if one.peak_memory_bytes is None else one.peak_memory_bytes)


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"
