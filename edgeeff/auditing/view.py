"""How an audit looks in a terminal: the images, the ranges, what is wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeeff.calibration.extremes import short
from edgeeff.calibration.survey import listed
from edgeeff.render import facts, shown, table
from edgeeff.results import AuditRecord, RangeAudit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

USED = {
    "animated": "animated (the first frame is used)",
    "turned": "turned upright by EXIF",
    "CMYK": "CMYK (made RGB by complement)",
    "16-bit": "of 16 bits (the upper eight are used)",
    "transparent": "transparent (laid over white)",
}
VERDICTS = {
    "fit": "[green]fit to calibrate with[/]",
    "usable": "[yellow]usable, but see below[/]",
    "unfit": "[bold red]unfit to calibrate with[/]",
}


def render(record: AuditRecord, console: Console) -> None:
    """Print what the set is like, what it does to the ranges, every finding, and the next command."""
    lines = facts()
    for name, text in _facts(record):
        lines.add_row(name, shown(text))
    lines.add_row("verdict", VERDICTS[record.verdict])
    console.print(lines)
    if record.ranges is not None:
        console.print(_growth(record.ranges))
    for finding in record.findings:
        style = "bold red" if finding.serious else "yellow"
        console.print(f"[{style}]{finding.cause}:[/] {shown(finding.text)}", soft_wrap=not console.is_terminal)
        console.print(f"  -> {shown(finding.advice)}", soft_wrap=not console.is_terminal)
    console.print(shown(_next(record)), soft_wrap=True)


def _facts(record: AuditRecord) -> Iterator[tuple[str, str]]:
    pixels, ranges = record.pixels, record.ranges
    height, width = record.resolution
    refused = f", {len(pixels.refused):,} cannot be used" if pixels.refused else ""
    yield "images", f"{pixels.images:,} in {record.folder}, {pixels.distinct:,} distinct{refused}"
    if pixels.classes:
        counts = [count for _, count in pixels.classes]
        yield "classes", f"{len(counts):,}, with {min(counts):,} to {max(counts):,} images"
    mean, deviation = (", ".join(f"{value:.0f}" for value in values) for values in (pixels.mean, pixels.std))
    yield "values", f"mean {mean}, deviation {deviation} of 255 (red, green, blue) at {width} x {height}"
    if pixels.special:
        yield "unusual", ", ".join(f"{count:,} {USED.get(kind, kind)}" for kind, count in pixels.special.items())
    if record.against is not None:
        yield "against", f"{record.against_images:,} images of {record.against}: {len(record.leaks):,} are in this set"
    if ranges is None:
        yield "ranges", "not looked at: no network was given (--model or --variant), or too few images"
        return
    yield "network", f"{ranges.model}, {ranges.tensors:,} tensors, {ranges.images:,} distinct images ran"
    yield (
        "halves",
        f"ranges are {ranges.stability:.0%} alike (median tensor), one in ten below {ranges.stability_lowest:.0%}",
    )
    worst = [f"{one.block or 'tensor'} '{short(one.tensor)}' {one.ratio:.0%}" for one in ranges.least_stable]
    yield "least alike", listed(worst)
    if ranges.lone:
        named = [f"{one.image} ({one.tensors:,} {'range' if one.tensors == 1 else 'ranges'})" for one in ranges.lone]
        yield "set alone", f"a tenth wider by a single image: {listed(named)}"
    yield "enough", f"from {ranges.enough:,} images on" if ranges.enough else "more images would widen the ranges"


def _growth(ranges: RangeAudit) -> Table:
    grown = table("images", "median range", "one in ten below")
    for one in ranges.growth:
        grown.add_row(f"{one.images:,}", f"{one.median:.0%}", f"{one.lowest:.0%}")
    return grown


def _next(record: AuditRecord) -> str:
    model = f"--model {record.model.path} " if record.model is not None else ""
    if record.verdict == "unfit":
        serious = next(one for one in record.findings if one.serious)
        return f"next: see to {serious.cause} above and audit again"
    if record.ranges is None:
        return f"next: edgeeff calibrate --audit {record.folder} --model FILE    what it does to a network's ranges"
    if record.against is None:
        return (
            f"next: edgeeff calibrate --audit {record.folder} {model}--against DIR    is it kept apart from your tests"
        )
    return f"next: edgeeff convert {model or '--variant NAME '}--calibration {record.folder}"
