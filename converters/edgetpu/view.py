"""How a compilation looks in a terminal: what was made, what runs where and why, and what to know about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeeff.results import CompilationRecord, Compiled, CompiledFile

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


def _rows(item: Compiled) -> Iterator[tuple[str, str]]:
    yield "File", f"{item.file.path}: {item.file.size_bytes / 1e6:.2f} MB, made of {Path(item.source).name}"
    summary = item.summary
    if summary is not None and summary.edge_tpu_operators is not None and summary.cpu_operators is not None:
        total = summary.edge_tpu_operators + summary.cpu_operators
        yield (
            "Operators",
            f"{summary.edge_tpu_operators} of {total} run on the Edge TPU, {summary.cpu_operators} do not",
        )
    yield from facts(item.inside)


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
