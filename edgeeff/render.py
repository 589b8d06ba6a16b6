"""Results as short tables for people, with what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from edgeeff.results import ConversionRecord, DemoRecord, Finetuning, Mixed, Recovery

MADE = "made by edgeeff"
"""How the demo begins the names of images that are no photographs."""


def table(*columns: str) -> Table:
    """Return an empty table: the first column to the left, figures to the right, nothing wrapped."""
    empty = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        empty.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return empty


def facts() -> Table:
    """Return an empty table of two columns, a name and a text that may wrap."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    return grid


def printable(text: str) -> str:
    """Return text with what steers a terminal, or turns the order of letters, written as escapes."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def shown(text: str) -> str:
    """Return text as it is put into markup: names of files and tensors are anybody's, and may steer a terminal."""
    return escape(printable(text))


def file_name(path: str) -> str:
    """Return the name of a file, or of a folder, whose path may be another machine's."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def megabytes(size: int) -> str:
    """Write a size in bytes as MB (10^6 bytes)."""
    return f"{size / 1e6:.1f} MB"


def conversion(record: ConversionRecord, console: Console) -> None:
    """Print what was converted, what was verified, warnings, and the next commands."""
    lines = facts()
    for name, text in conversion_facts(record):
        lines.add_row(name, escape(text))
    console.print(lines)
    if record.mixed is not None:
        console.print(mixed_points(record.mixed))
    for warning in record.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    for line in _next(record):
        console.print(escape(line), soft_wrap=True)


def conversion_facts(record: ConversionRecord) -> Iterator[tuple[str, str]]:
    """Say what a file is, how it was made, and what was verified of it, as names and sentences."""
    height, width = record.resolution
    sizes = f"{megabytes(record.model.size_bytes)} (float32 {megabytes(record.float_size_bytes)})"
    yield "file", f"{record.model.path}, {sizes}"
    made = f"{record.source}, weights: {record.weights}, {record.scheme}, {record.macs / 1e9:.3f} G MACs"
    yield "from", made
    yield "input", f"{width} x {height} RGB, {record.input_contract.dtype}, {_pixels(record.input_contract.dtype)}"
    yield "output", f"{record.classes} classes, {record.output}, {record.output_contract.dtype}"
    use = record.calibration
    if use.count:
        where = f"from {use.folder}" if use.folder else "made by edgeeff"
        yield "calibration", f"{use.count} images {where}, {use.method}, seed {use.seed}"
    if record.mixed is not None:
        yield "mixed for", goal(record.mixed)
    if record.recovery is not None:
        yield "tried", _attempts(record.recovery)
    if record.finetuning is not None:
        yield "fine-tuned", finetuning(record.finetuning)
    if record.edge_tpu is not None:
        yield "Edge TPU", record.edge_tpu.sentence
    yield "verified", ", ".join(check.name for check in record.checks)
    yield (
        "against float",
        f"same best class on {record.agreement.same_top1:.0%} of {record.agreement.images} probe images, "
        f"correlation {record.agreement.correlation:.3f}",
    )
    delegated = next((check.detail for check in record.checks if check.name == "XNNPACK"), None)
    if delegated:
        yield "XNNPACK", delegated


def _next(record: ConversionRecord) -> Iterator[str]:
    path = record.model.path
    yield f"next: edgeeff inspect {path}"
    if record.edge_tpu is not None:
        yield f"      edgeeff compile {path}"
    mixed = record.mixed
    if mixed is None:
        return
    yield f"      edgeeff evaluate {path} --baseline {_baseline(record)} --data DIR    with images that chose nothing"
    target = "" if mixed.timed_on.target == "local" else f" --target {mixed.timed_on.target}"
    yield f"      edgeeff profile {path}{target} --threads {mixed.timed_on.threads}"


def _baseline(record: ConversionRecord) -> str:
    """Return the float model to compare with, where it is a file."""
    return record.source if record.weights == "as in the model" else "FLOAT"


def goal(mixed: Mixed) -> str:
    """Say what a mix of precisions had to reach, whether it does, and where it was timed."""
    wanted, on = mixed.goal, mixed.timed_on
    asked = [
        *([] if wanted.min_agreement is None else [f"agreement at least {100 * wanted.min_agreement:g} %"]),
        *([] if wanted.max_drop is None else [f"top-1 at most {wanted.max_drop:g} points below float's"]),
        *([] if wanted.max_latency is None else [f"at most {wanted.max_latency:g} of float's latency"]),
        *([] if wanted.max_latency_s is None else [f"at most {wanted.max_latency_s * 1e3:g} ms"]),
    ]
    threads = f"{on.threads} thread{'s' if on.threads > 1 else ''}"
    where = f"timed on {on.target}, {threads}, float {mixed.float_latency_s * 1e3:.3g} ms"
    return f"{', '.join(asked)}: {'met' if mixed.met else 'NOT MET'}; {where}"


def mixed_points(mixed: Mixed) -> Table:
    """Return the way from float to int8, the chosen point marked."""
    shown = table("", "agrees %", "at least %", "of float", "ms", "MB", "static/dynamic/float")
    for point in mixed.points:
        static, dynamic = len(point.static), len(point.dynamic)
        shown.add_row(
            "->" if point.chosen else "",
            f"{100 * point.agreement_estimate:.1f}",
            f"{100 * point.agreement_low:.1f}",
            f"{point.latency_ratio:.2f}",
            f"{point.latency_s * 1e3:.3g}",
            f"{point.size_bytes / 1e6:.2f}",
            f"{static}/{dynamic}/{len(point.levels) - static - dynamic}",
            style="bold" if point.chosen else None,
        )
    return shown


def _attempts(recovery: Recovery) -> str:
    """Return what was tried to keep the accuracy, by what it gave on images kept apart."""
    kept = next(one for one in recovery.attempts if one.name == recovery.chosen)
    others = [one for one in recovery.attempts if one is not kept]
    said = [
        f"{one.name} {one.fidelity.agreement:.0%} (divergence {one.fidelity.divergence:.2g})" for one in (kept, *others)
    ]
    apart = f"same best class on {recovery.judging_images} images kept apart"
    return f"{apart}: {said[0]}" + (f"; instead of {', '.join(said[1:])}" if others else "")


def finetuning(done: Finetuning) -> str:
    """Return what training for int8 gave on images kept apart."""
    before, after = (one.fidelity for one in (done.before, done.after))
    said = [
        f"{done.steps_taken} steps on {done.images} images, taught by {done.teacher}; same best class on "
        f"{done.judging_images} images kept apart: {after.agreement:.0%} (divergence {after.divergence:.2g}) at step "
        f"{done.best_step}, {before.agreement:.0%} ({before.divergence:.2g}) without"
    ]
    if done.accuracy_before is not None and done.accuracy_after is not None:
        said.append(f"right on {done.accuracy_after:.0%} of them, {done.accuracy_before:.0%} without")
    if done.resumed_at is not None:
        said.append(f"went on after step {done.resumed_at} of an interrupted run")
    if done.pruned_share is not None:
        said.append(f"{done.pruned_share:.0%} zeros in {done.compressed_layers} layers")
    if done.clusters is not None:
        said.append(f"at most {done.clusters} different weights in {done.compressed_layers} layers")
    if done.compressed_bytes is not None:
        said.append(f"zipped {megabytes(done.compressed_bytes)}")
    return "; ".join(said)


def demo(record: DemoRecord, console: Console) -> None:
    """Print float against int8 on this machine, and what both see in the sample images."""
    figures = table("", "float32", "int8", "int8 / float32")
    left, right = record.float_profile, record.int8_profile
    for name, value in (("median latency", "p50_s"), ("90 % of runs within", "p90_s")):
        a, b = getattr(left.latency, value), getattr(right.latency, value)
        figures.add_row(f"{name}, 1 thread", f"{a * 1e3:.2f} ms", f"{b * 1e3:.2f} ms", f"{b / a:.2f}")
    rows = (
        ("file size", left.model.size_bytes, right.model.size_bytes),
        ("peak memory of the process", left.peak_rss_bytes, right.peak_rss_bytes),
        (
            "of that, the model's",
            left.peak_rss_bytes - left.runtime_rss_bytes,
            right.peak_rss_bytes - right.runtime_rss_bytes,
        ),
    )
    for name, first, second in rows:
        figures.add_row(name, megabytes(first), megabytes(second), f"{second / first:.2f}")
    device = left.device
    console.print(
        f"EfficientNet-Lite0 with its ImageNet weights on {escape(device.name)} "
        f"({device.machine}, {device.cores} cores), quick mode: {left.latency.processes} processes each, in turn",
        soft_wrap=True,
    )
    console.print(figures)
    made = all(photograph.name.startswith(MADE) for photograph in record.photographs)
    seen = table("sample image" if made else "sample photograph", "float32", "", "int8", "")
    for photograph in record.photographs:
        seen.add_row(
            escape(photograph.name),
            escape(photograph.float_class),
            f"{photograph.float_score:.0%}",
            escape(photograph.int8_class),
            f"{photograph.int8_score:.0%}",
        )
    if record.photographs:
        console.print(seen)
        what = "images made by edgeeff" if made else "photographs"
        console.print(f"Same best class on {record.agreement:.0%} of {len(record.photographs)} {what}.")
    int8 = record.int8_conversion
    images = f"{int8.calibration.count} images made by edgeeff"
    console.print(
        f"\nThe int8 file passed {len(int8.checks)} checks and was calibrated with {images}. "
        f"All this took {record.seconds:.0f} s.\n"
        f"It is {escape(int8.model.path)}; what to do next:\n"
        "  edgeeff inspect FILE.tflite               what is inside\n"
        "  edgeeff variants                          which sizes there are\n"
        "  edgeeff convert --variant lite2           another size\n"
        "  edgeeff convert --model my.keras --calibration photos/ --labels names.txt\n"
        "                                            your own model, with your own images",
        soft_wrap=True,
    )


def _pixels(dtype: str) -> str:
    return "pixels 0..255 minus 128" if dtype == "int8" else "pixels 0..255 as the camera gives them"
