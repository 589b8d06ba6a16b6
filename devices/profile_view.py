"""How measuring looks in a terminal: a live table while it runs, and a table with what to do next at its end."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edgeeff.devices.events import Event
from edgeeff.devices.probe_view import link
from edgeeff.devices.profile import Case
from edgeeff.results import Comparison, EdgeTpuUse, FleetSummary, ProfileRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROWS = 24
"""Boards in the live table; of more, those that changed last."""
SENTENCES = {
    "connecting": "connecting",
    "sending": "sending what it lacks",
    "edge_tpu_library": "importing",
    "imported": "loading",
    "loaded": "first inference",
    "first": "warming up",
    "warm": "measuring",
    "end_to_end": "measured from image to scores",
    "measured": "process done",
    "finished": "done",
}


class Live:
    """A table on standard error with a row for each board; nothing where that is no terminal. A context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._rows: dict[str, _Row] = {}
        # As with bars: rich would call a pipe a terminal where FORCE_COLOR is set. A closed one is None.
        self._live = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._live = RichLive(
                console=Console(stderr=True), transient=True, refresh_per_second=4, get_renderable=self._table
            )

    def __enter__(self) -> Live:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, target: str, case: Case | None, event: Event) -> None:
        """Take an event in."""
        row = self._rows.pop(target, None) or _Row()
        self._rows[target] = row  # last in the table: it changed last
        row.update(case, event)

    def _table(self) -> Table:
        return rows_table(dict(list(self._rows.items())[-ROWS:]))


class _Row:
    """What a board is doing."""

    def __init__(self) -> None:
        self.what = self.process = self.doing = self.p50 = self.heat = ""

    def update(self, case: Case | None, event: Event) -> None:
        kind = event["event"]
        if case is not None:
            self.what = f"{case.model.path}, {_threads(case.threads)}"
        if kind == "process":
            self.process = f"{event['number']}/{event['of']}"
            self.doing = "importing"
        elif kind == "latencies":
            self.p50 = milliseconds(statistics.median(event["latencies_s"]))
            self.doing = "measuring"
        elif kind == "state":
            degrees = event.get("temperature_c")
            self.heat = f"{degrees:.0f} C" if degrees is not None else ""
        elif kind == "cooling":
            self.doing = f"cooling down: {event['temperature_c']:.0f} C, {event['wanted_c']:.0f} C wanted"
        elif kind == "failed":
            self.doing = "failed: " + event["message"].split("\n", 1)[0]
        elif kind in SENTENCES and not (kind == "finished" and self.doing.startswith("failed")):
            self.doing = SENTENCES[kind]


def rows_table(rows: dict[str, _Row]) -> Table:
    """Return the live table."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("target", "file", "process", "p50 now", "CPU", ""):
        table.add_column(column, no_wrap=True)
    for target, row in rows.items():
        table.add_row(*map(escape, (target, row.what, row.process, row.p50, row.heat, row.doing)))
    return table


def render(
    records: Sequence[ProfileRecord],
    fleet: Sequence[FleetSummary],
    comparisons: Sequence[Comparison],
    paths: Sequence[str],
    console: Console,
) -> None:
    """Print what was measured, what is to be thought of it, and the next commands; `paths` are the records' files."""
    from rich.markup import escape

    if not records:
        return
    console.print(latencies(records))
    console.print(starts(records))
    for record in records:
        for line in details(record):
            console.print(escape(line), soft_wrap=True)
    for record in records:
        if record.blocks:
            console.print(
                escape(f"{named(record)}, where time goes (differences of quick measurements):"), soft_wrap=True
            )
            console.print(_blocks(record))
    for summary in fleet:
        for line in fleet_lines(summary):
            console.print(escape(line), soft_wrap=True)
    for comparison in comparisons:
        for line in _comparison(comparison):
            console.print(escape(line), soft_wrap=True)
    for line in _verdicts(records):
        console.print(line, soft_wrap=True)
    for line in _next(records, paths):
        console.print(escape(line), soft_wrap=True)


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds with three digits that say something."""
    return f"{_ms(seconds)} ms"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return ""
    value = seconds * 1e3
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}"


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0)
    return table


def latencies(records: Sequence[ProfileRecord]) -> Table:
    """Return the latencies of one inference, in ms."""
    from rich.markup import escape

    table = _table("latency, ms", "threads", "p50", "95 % interval", "p90", "p99", "min")
    for record in records:
        latency = record.latency
        low, high = latency.interval_s
        table.add_row(
            escape(label(record, records)),
            str(record.threads),
            _ms(latency.p50_s),
            f"{_ms(low)}-{_ms(high)}" if latency.processes > 1 else "",
            _ms(latency.p90_s),
            _ms(latency.p99_s),
            _ms(latency.min_s),
        )
    return table


def starts(records: Sequence[ProfileRecord]) -> Table:
    """Return the table of what happens once, in ms, and of memory, in MB."""
    from rich.markup import escape

    uploads = ["of it upload"] if any(record.edge_tpu for record in records) else []
    table = _table("start, ms; memory, MB", "import", "load", "first", *uploads, "peak", "PSS", "model's")
    for record in records:
        upload = _ms(record.edge_tpu.parameter_upload_s) if record.edge_tpu else ""
        table.add_row(
            escape(f"{label(record, records)}, {_threads(record.threads)}"),
            _ms(record.import_s),
            _ms(record.load_s),
            _ms(record.first_inference_s),
            *(upload for _ in uploads),
            _megabytes(record.peak_rss_bytes),
            _megabytes(record.pss_bytes),
            _megabytes(record.model_bytes),
        )
    return table


def _blocks(record: ProfileRecord) -> Table:
    from rich.markup import escape

    table = _table("block", "operators", "MACs M", "ms", "share", "")
    table.columns[-1].justify = "left"
    longest = max(block.share for block in record.blocks)
    for block in record.blocks:
        bar = "█" * round(16 * block.share / longest) if longest > 0 else ""
        figures = (str(block.operators), f"{block.macs / 1e6:.1f}", _ms(block.p50_s), f"{block.share:.1%}", bar)
        table.add_row(escape(block.name), *figures)
    return table


def _many_targets(records: Sequence[ProfileRecord]) -> bool:
    return len({record.target for record in records}) > 1


def label(record: ProfileRecord, records: Sequence[ProfileRecord]) -> str:
    """Return the file's name, with its target where the records are of several."""
    name = record.model.path.rsplit("/", 1)[-1]
    return f"{name}, {record.target}" if _many_targets(records) else name


def named(record: ProfileRecord) -> str:
    """Return the file's name, its target and the number of threads."""
    return f"{record.model.path.rsplit('/', 1)[-1]} on {record.target}, {_threads(record.threads)}"


def details(record: ProfileRecord) -> Iterator[str]:
    """Say where and how it was measured, and what was measured beside the latency."""
    runtime, device = record.runtime, record.device
    used = f"{runtime.name} {runtime.version}, {_delegate(runtime.delegate)}" if runtime else "unknown"
    emulated = ", EMULATED: no latency here is a real board's" if device.emulated else ""
    latency = record.latency
    yield (
        f"{named(record)}: {device.name} ({device.machine}, {device.cores} cores{emulated}), {used}; {record.mode}, "
        f"{latency.runs:,} runs in {latency.processes} process{'es' if latency.processes > 1 else ''}, "
        f"{latency.outliers or 0:,} outliers (kept), {record.throughput_per_s or 0:.3g} per s; page cache "
        f"{record.page_cache}"
    )
    if record.edge_tpu is not None:
        yield f"  {_edge_tpu(record.edge_tpu)}"
    if record.minutes:
        minutes = ", ".join(milliseconds(minute.p50_s) for minute in record.minutes)
        slowed = record.time_to_throttle_s
        end = (
            f"slowed down after {slowed:.0f} s" if slowed is not None else "not slowed down, as far as the board tells"
        )
        yield f"  p50 by minute: {minutes}; {end}"
    steps = record.end_to_end
    if steps is not None:
        yield (
            f"  from {steps.image} to scores: {milliseconds(steps.total_s)} = decode {milliseconds(steps.decode_s)} + "
            f"resize {milliseconds(steps.resize_s)} + quantize {milliseconds(steps.quantize_s)} + run "
            f"{milliseconds(steps.invoke_s)} (medians; 90 % within {milliseconds(steps.total_p90_s)})"
        )


def _edge_tpu(use: EdgeTpuUse) -> str:
    library = use.library
    version = f" (runtime version {library.runtime})" if library.runtime is not None else ""
    parts = [
        f"Edge TPU on {link(use.edge_tpu) if use.edge_tpu is not None else 'a link that is not known'}",
        f"{library.package or 'libedgetpu'} {library.version or 'of unknown version'}{version}",
        f"the first inference took {milliseconds(use.parameter_upload_s)} longer than later ones{_sent(use)}",
    ]
    if use.streamed_parameter_bytes:
        parts.append(f"{_megabytes(use.streamed_parameter_bytes)} MB of parameters are sent with each inference")
    if use.cpu_operators:
        parts.append(f"{use.cpu_operators} operators are left to the CPU")
    if use.max_temperature_c is not None:
        parts.append(f"{use.max_temperature_c:.0f} C at most")
    return "; ".join(parts)


def _sent(use: EdgeTpuUse) -> str:
    size = use.cached_parameter_bytes
    return f": it sends the {_megabytes(size)} MB of parameters that stay there" if size else ""


def _delegate(name: str) -> str:
    return {"xnnpack": "XNNPACK", "edgetpu": "Edge TPU", "none": "no delegate"}.get(name, name)


def fleet_lines(summary: FleetSummary) -> Iterator[str]:
    """Say how far several boards are apart."""
    name = summary.model.rsplit("/", 1)[-1]
    yield (
        f"{name}, {_threads(summary.threads)}, {summary.boards} boards: p50 {milliseconds(summary.min_s)} to "
        f"{milliseconds(summary.max_s)}, median {milliseconds(summary.p50_s)}; standard deviation between "
        f"boards {milliseconds(summary.between_s)}, between a board's processes {milliseconds(summary.within_s)}"
    )
    if summary.outliers:
        yield f"  stand out: {', '.join(summary.outliers)}; look at edgeeff devices probe {summary.outliers[0]}"


def _comparison(comparison: Comparison) -> Iterator[str]:
    if comparison.interval is None:
        found = "one process cannot tell how sure that is"
    else:
        low, high = comparison.interval
        word = "slower" if low > 1 else "faster" if high < 1 else "no difference that can be told"
        found = f"95 % interval {low:.3f} to {high:.3f}: {word}"
    name = comparison.model.rsplit("/", 1)[-1]
    before, after = milliseconds(comparison.before_s), milliseconds(comparison.after_s)
    yield (
        f"{name} on {comparison.target}, {_threads(comparison.threads)}, against the older record: "
        f"{before} -> {after}, ratio {comparison.ratio:.3f}, {found}"
    )
    for difference in comparison.differences:
        yield f"  not alike: {difference}"


def _verdicts(records: Sequence[ProfileRecord]) -> Iterator[str]:
    from rich.markup import escape

    for record in records:
        verdict = record.verdict
        if verdict is None:
            continue
        word = "[green]valid[/]" if verdict.valid else "[bold yellow]INVALID[/]"
        quick = ", a first look only" if record.mode == "quick" else ""
        yield f"{escape(named(record))}: {word}{quick}"
        for reason in verdict.reasons:
            kind = "" if reason.invalidates else "note: "
            yield f"  - {kind}{escape(reason.text)}"


def _next(records: Sequence[ProfileRecord], paths: Sequence[str]) -> Iterator[str]:
    first = records[0]
    where = "" if first.target == "local" else f" --target {first.target}"
    if first.edge_tpu is not None:
        where += " --delegate edgetpu"
    if paths:
        yield f"records: {', '.join(paths[:4])}{f' and {len(paths) - 4} more' if len(paths) > 4 else ''}"
    if first.mode == "quick":
        yield f"next: edgeeff profile {first.model.path}{where}    without --quick, for figures to report"
    elif paths:
        yield f"next: edgeeff profile {first.model.path}{where} --compare {paths[0]} --output after    after a change"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"
