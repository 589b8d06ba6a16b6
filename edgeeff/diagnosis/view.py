"""How a diagnosis looks in a terminal: the tests with their evidence, the worst tensors, the cause, what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeeff.calibration.extremes import short
from edgeeff.render import facts, shown
from edgeeff.results import DiagnosisRecord, TensorFault

if TYPE_CHECKING:
    from rich.console import Console


def render(record: DiagnosisRecord, console: Console) -> None:
    """Print what was compared, every test, the worst tensors, and the cause or that there is none."""
    lines = facts()
    lines.add_row("file", shown(record.model.path))
    lines.add_row("baseline", shown(record.baseline.path))
    where = f"of {record.data}" if record.data else "made by edgeeff"
    left_out = f", {len(record.unreadable):,} cannot be read" if record.unreadable else ""
    lines.add_row("images", shown(f"{record.images:,} {where}{left_out}"))
    lines.add_row(
        "same best class", f"on {record.agreement:.1%} of them, correlation of the scores {record.correlation:.2f}"
    )
    if record.top1 is not None and record.baseline_top1 is not None:
        lines.add_row("top-1", f"{record.top1:.1%}, baseline {record.baseline_top1:.1%}")
    console.print(lines)
    for number, test in enumerate(record.tests, 1):
        mark = "[bold red]FOUND[/]" if test.found else "[green]no[/]"
        console.print(f"{number}. {test.name}: {mark}, {shown(test.text)}", soft_wrap=not console.is_terminal)
    if record.cause is not None and record.cause.cause in {"calibration-range", "worst-tensors"}:
        console.print("tensors that stand out, in the network's order:")
        for fault in record.tensors:
            console.print(f"  {shown(_tensor(fault))}", soft_wrap=not console.is_terminal)
    for note in record.notes:
        console.print(f"note: {shown(note)}", soft_wrap=not console.is_terminal)
    if record.cause is None:
        console.print("[green]nothing is wrong:[/] the file is what its float model is")
        return
    console.print(
        f"[bold red]cause: {record.cause.cause}[/], {shown(record.cause.text)}", soft_wrap=not console.is_terminal
    )
    console.print(f"next: {shown(record.cause.advice)}", soft_wrap=True)


def _tensor(fault: TensorFault) -> str:
    held = f"float values {fault.float_low:.3g} to {fault.float_high:.3g}"
    cut = f", {fault.clipped:.1%} of them cut off" if fault.clipped else ""
    return (
        f"{fault.block} {short(fault.name)}: holds {fault.low:.3g} to {fault.high:.3g}, {held}{cut}; "
        f"{fault.excess:.1f} times the error of the best range; off by {fault.error:.0%} with all before it"
    ).lstrip()
