"""How a compilation looks in a terminal: what was made, what runs where and why, how long it may take, and what to know
about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeeff.results import CompilationRecord, Compiled, CompiledFile, EdgeTpuEstimate, EdgeTpuTime, ForecastCheck

if TYPE_CHECKING:
    from rich.console import Console


def facts(inside: CompiledFile) -> Iterator[tuple[str, str]]:
    """Give what a file for the Edge TPU says of itself, as names and sentences."""
    count = len(inside.operators)
    rest = f"; {inside.cpu_operators} operators are left to the CPU" if inside.cpu_operators else "; none for the CPU"
    compilers = ", ".join(dict.fromkeys(o.compiler for o in inside.operators if o.compiler))
    yield "Edge TPU", f"{count} part{'' if count == 1 else 's'}{rest}"
    needs = (
        f"libedgetpu's runtime {inside.minimum_runtime} or later" if inside.minimum_runtime is not None else "unknown"
    )
    yield "Needs", f"{needs}; compiler build {compilers or 'not said'}"
    if any(operator.executables for operator in inside.operators):
        cached, streamed = inside.cached_parameter_bytes, inside.streamed_parameter_bytes
        yield "Parameters", f"{cached:,} B stay on the Edge TPU, {streamed:,} B are sent with each inference"
    if inside.caching_tokens:
        tokens = ", ".join(inside.caching_tokens)
        yield "Token", f"{tokens}; files with the same one were compiled together and share its memory"
    for operator in inside.operators:
        if operator.problem is not None:
            yield "Damaged", f"operator {operator.index} of subgraph {operator.subgraph}: {operator.problem}"


def render(record: CompilationRecord, console: Console) -> None:
    """Print a compilation, with the reasons why operators were left to the CPU."""
    from rich.markup import escape
    from rich.table import Table

    for item in record.compiled:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in _rows(item):
            table.add_row(name, escape(value))
        console.print(table)
        _left(item, console)
        if item.estimate is not None:
            render_estimate(item.estimate, console)
        console.print()
    if record.compiled_together:
        console.print("They were compiled together and keep their parameters on the Edge TPU together.")
    for warning in record.warnings:
        console.print(f"[bold]Note[/bold] {escape(warning)}", soft_wrap=True)
    version = record.compiler_version or "of unknown version"
    console.print(
        f"Compiler {escape(version)}, {record.seconds:.1f} s; what it printed: {escape(record.log)}", soft_wrap=True
    )
    for item in record.compiled:
        console.print(f"Next: edgeeff inspect {escape(item.file.path)}", soft_wrap=True)


def render_estimate(estimate: EdgeTpuEstimate, console: Console) -> None:
    """Print how long an inference may take over each link, and that nothing of it was measured."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Edge TPU over", "One inference, estimated", "Sending parameters", "Figures are from"):
        table.add_column(heading, overflow="fold")
    for time in estimate.times:
        table.add_row(time.link, _inference(time, estimate.left_out), _range(time.estimated_streaming_s), time.host)
    console.print()
    console.print(table)
    low, high = estimate.streamed_parameter_bytes
    if low != high:
        expected = estimate.expected_streamed_parameter_bytes
        console.print(
            f"How much of the parameters is sent with each inference is the compiler's choice: {low / 1e6:.2f} to "
            f"{high / 1e6:.2f} MB; the times expect {expected / 1e6:.2f} MB.",
            soft_wrap=True,
        )
    without = f" Not counted: {', '.join(estimate.left_out)}." if estimate.left_out else ""
    console.print(f"Estimates from published figures of other networks, not measured.{escape(without)}", soft_wrap=True)


def _inference(time: EdgeTpuTime, left_out: tuple[str, ...]) -> str:
    if left_out:
        return f"at least {_ms(time.estimated_s)} ms"
    low, high = time.estimated_interval_s
    return f"{_ms(time.estimated_s)} ms ({_ms(low)} to {_ms(high)})"


def _range(seconds: tuple[float, float]) -> str:
    low, high = (_ms(one) for one in seconds)
    return f"{low} ms" if low == high else f"{low} to {high} ms"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _rows(item: Compiled) -> Iterator[tuple[str, str]]:
    yield "File", f"{item.file.path}: {item.file.size_bytes / 1e6:.2f} MB, made of {Path(item.source).name}"
    summary = item.summary
    if summary is not None and summary.edge_tpu_operators is not None and summary.cpu_operators is not None:
        total = summary.edge_tpu_operators + summary.cpu_operators
        yield (
            "Operators",
            f"{summary.edge_tpu_operators} of {total} run on the Edge TPU, {summary.cpu_operators} do not",
        )
    if item.check is not None:
        yield "Foreseen", _checked(item.check)
    yield from facts(item.inside)


def _checked(check: ForecastCheck) -> str:
    """Say how far the compiler did as was foreseen."""
    wrong = ", ".join(f"{one.count} {one.name} to be {one.foreseen}" for one in check.disagreements)
    parts = [
        f"the compiler agrees on {check.agreed} operators",
        *([f"settles {check.settled} that were unknown"] if check.settled else []),
        *([f"disagrees on {sum(one.count for one in check.disagreements)} (foreseen: {wrong})"] if wrong else []),
    ]
    uncounted = f"; it has other numbers of {', '.join(check.uncounted)} than the file" if check.uncounted else ""
    return ", ".join(parts) + uncounted


def _left(item: Compiled, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    left = [status for status in item.summary.statuses if not status.mapped] if item.summary else []
    if not left:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Left to the CPU because", overflow="fold")
    table.add_column("Operators", overflow="fold")
    reasons: dict[str, list[str]] = {}
    for status in left:
        reasons.setdefault(status.status, []).append(f"{status.count} {status.name}")
    for reason, operators in reasons.items():
        table.add_row(escape(reason), escape(", ".join(operators)))
    console.print()
    console.print(table)
