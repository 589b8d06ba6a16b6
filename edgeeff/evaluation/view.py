"""How evaluations look in a terminal: figures, classes that changed, pitfalls, gates, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeeff.results import (
    ClassResult,
    Difference,
    EvaluationComparison,
    EvaluationRecord,
    EvaluationTiming,
    Metrics,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CLASSES = 5
"""Classes in a table."""
FLIPS = 3
SIGNIFICANT = 0.05


def render(records: Sequence[EvaluationRecord], console: Console) -> None:
    """Print what became of every model: first side by side where there are several, then one after the other."""
    if not records:
        return
    if len(records) > 1:
        console.print(overview(records))
    for number, record in enumerate(records):
        if number:
            console.print()
        for line in head(record):
            console.print(_shown(line), soft_wrap=not console.is_terminal)
        console.print(figures(record))
        for line in change(record):
            console.print(_shown(line), soft_wrap=not console.is_terminal)
        if worst := worst_classes(record):
            console.print(class_table(worst))
        for line in ran(record):
            console.print(_shown(line), soft_wrap=not console.is_terminal)
        for line in _findings(record):
            console.print(line, soft_wrap=not console.is_terminal)
        for line in _gates(record):
            console.print(line, soft_wrap=not console.is_terminal)
    console.print(_shown(_next(records)), soft_wrap=not console.is_terminal)


def render_comparison(comparison: EvaluationComparison, console: Console) -> None:
    """Print what the second evaluation's model gained or lost on the first one's."""
    for line in _compared(comparison):
        console.print(_shown(line), soft_wrap=not console.is_terminal)
    classes = sorted(comparison.by_class, key=lambda pair: _order(pair[1]))
    changed = [(name, found) for name, found in classes if found.value != 0]
    if changed:
        table = _table("class", "recall, points", "95 % interval", "p (Holm)")
        for name, found in changed[:CLASSES]:
            table.add_row(_shown(name), points(found.value), interval(found), _p(found.p_adjusted))
        console.print(table)
    for warning in comparison.warnings:
        console.print(f"[yellow]not alike:[/] {_shown(warning)}", soft_wrap=not console.is_terminal)


def worst_classes(record: EvaluationRecord) -> list[ClassResult]:
    """Return the classes to show: recalls that surely changed, the worst first, then those that may have dropped."""
    compared = [(one.recall, one) for one in record.by_class if one.recall is not None]
    changed = [(recall, one) for recall, one in compared if recall.value < 0 or is_significant(recall)]
    return [one for _, one in sorted(changed, key=lambda pair: (_order(pair[0]), pair[1].index))[:CLASSES]]


# --- Tables -----------------------------------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0)
    return table


def overview(records: Sequence[EvaluationRecord]) -> Table:
    """Return a row for each model: with three of them, columns side by side would not fit a terminal."""
    table = _table("model", "top-1 %", "points", "95 % interval", "agree %", "MB", "gates")
    for record in records:
        top1, metrics = record.paired.top1, record.model_metrics
        failed = sum(not gate.passed for gate in record.gates)
        gates = "" if not record.gates else "[green]yes[/]" if not failed else f"[bold red]{failed} no[/]"
        table.add_row(
            _shown(_name(record) if record.target == "local" else f"{_name(record)}, {record.target}"),
            "" if metrics is None else percent(metrics.top1),
            "" if top1 is None else points(top1.value),
            "" if top1 is None else interval(top1),
            percent(record.paired.agreement),
            f"{record.model.size_bytes / 1e6:.1f}",
            gates,
        )
    return table


def figures(record: EvaluationRecord) -> Table:
    """Return both models' figures side by side, in percent, with the difference in points and its interval."""
    table = _table("%", "baseline", "model", "points", "95 % interval")
    paired, ours, theirs = record.paired, record.baseline_metrics, record.model_metrics
    if ours is not None and theirs is not None:
        for row in _accuracies(record, ours, theirs):
            table.add_row(*row)
    before, after = record.baseline_outputs, record.model_outputs
    confidence = (before.mean_confidence, after.mean_confidence)
    table.add_row("mean confidence", *map(percent, confidence), *_difference(paired.confidence))
    if before.top1_ties or after.top1_ties:
        table.add_row("tied best scores", percent(before.top1_ties), percent(after.top1_ties), "", "")
    low, high = paired.agreement_interval
    table.add_row("same best class", "", percent(paired.agreement), "", f"{percent(low)} to {percent(high)}")
    return table


def _accuracies(record: EvaluationRecord, ours: Metrics, theirs: Metrics) -> Iterator[tuple[str, ...]]:
    paired = record.paired
    rows: tuple[tuple[str, float | None, float | None, Difference | None], ...] = (
        ("top-1", ours.top1, theirs.top1, paired.top1),
        ("top-5", ours.top5, theirs.top5, paired.top5),
        ("macro recall (balanced)", ours.balanced_accuracy, theirs.balanced_accuracy, paired.balanced_accuracy),
        ("macro precision", ours.macro_precision, theirs.macro_precision, paired.macro_precision),
        ("macro F1", ours.macro_f1, theirs.macro_f1, paired.macro_f1),
        ("calibration error", ours.calibration_error, theirs.calibration_error, None),
    )
    for name, before, after, difference in rows:
        if before is not None and after is not None:
            told = (points(after - before), "") if difference is None else _difference(difference)
            yield name, percent(before), percent(after), *told


def class_table(classes: Sequence[ClassResult]) -> Table:
    """Return the recall of these classes in both models, in percent."""
    table = _table("recall of, %", "images", "baseline", "model", "points", "95 % interval", "p (Holm)")
    for one in classes:
        if one.recall is not None:
            table.add_row(
                _shown(one.name),
                f"{one.support:,}",
                percent(one.baseline.recall or 0.0),
                percent(one.model.recall or 0.0),
                points(one.recall.value),
                interval(one.recall),
                _p(one.recall.p_adjusted),
            )
    return table


# --- Sentences --------------------------------------------------------------------------------------------------------


def head(record: EvaluationRecord) -> Iterator[str]:
    """Say what was compared with what, on which images."""
    data = record.data
    of = f" of {data.classes:,} classes" if data.classes else ""
    yield (
        f"{_name(record)} against {_file(record.baseline.path)} on {record.paired.images:,} images{of}, {data.path}"
        f"{'' if data.classes else ' (no labels)'}"
    )
    for note in data.notes:
        yield f"  note: {note}"


def change(record: EvaluationRecord) -> Iterator[str]:
    """Say whether top-1 changed, how far the outputs are apart, what flipped most, and how many classes changed."""
    paired, top1 = record.paired, record.paired.top1
    if top1 is not None:
        yield (
            f"top-1: {word(top1)} (McNemar {_p_is(top1.p_value)}; {paired.baseline_only_right:,} images only the "
            f"baseline has right, {paired.model_only_right:,} only the model)"
        )
    apart = paired.divergence
    yield (
        f"outputs: KL divergence {apart.kl_mean:.2g} nats on average, 95 % of the images below {apart.kl_p95:.2g}; "
        f"total variation {apart.total_variation_mean:.2g}"
    )
    flips = [
        f"{class_name(record, flip.baseline)} -> {class_name(record, flip.model)} {flip.images:,}"
        for flip in paired.flips[:FLIPS]
    ]
    if flips:
        yield f"most frequent changes: {', '.join(flips)}"
    tested = [one.recall for one in record.by_class if one.recall is not None]
    if tested:
        sure = sum(map(is_significant, tested))
        yield f"recall changed significantly in {sure:,} of {len(tested):,} classes (Holm's correction)"


def word(difference: Difference) -> str:
    """Say in words whether a difference is one."""
    low, high = difference.interval
    sure = difference.p_value < SIGNIFICANT if difference.p_value is not None else low > 0 or high < 0
    if not sure:
        return "no significant difference"
    return "significantly lower" if difference.value < 0 else "significantly higher"


def ran(record: EvaluationRecord) -> Iterator[str]:
    """Say where the model ran, whether that is what it is on the board, and what took the time."""
    runtime, device, kernels = record.runtime, record.device, record.kernels
    used = f", {runtime.name} {runtime.version}" if runtime else ""
    emulated = ", EMULATED: a program stood in for the board" if device.emulated else ""
    yield f"ran on {record.target}: {device.name} ({device.machine}, {device.cores} cores{emulated}){used}"
    if kernels is not None:
        yield (
            f"  the same file here ({kernels.host.name} {kernels.host.version}) and there ({kernels.board.name} "
            f"{kernels.board.version}): same best class on {percent(kernels.agreement)} % of {kernels.images:,} "
            f"images, same scores on {percent(kernels.same_scores)} %, largest difference {kernels.max_difference:.3g}"
        )
    yield f"  {_time(record.timing, record.paired.images)}"


def _time(timing: EvaluationTiming, images: int) -> str:
    shares = (timing.decode_s, timing.baseline_s, timing.model_s)
    total = sum(shares)
    where = ""
    if total > 0:
        decode, baseline, model = (f"{share / total:.0%}" for share in shares)
        where = f"; decoding {decode} of the work, baseline {baseline}, model {model}"
    workers = f"{timing.workers} worker{'s' if timing.workers > 1 else ''}"
    threads = f"{timing.threads} thread{'s' if timing.threads > 1 else ''}"
    rate = f"{timing.images_per_s:,.0f}" if timing.images_per_s >= 10 else f"{timing.images_per_s:.2g}"
    before = f" ({images - timing.images:,} in an earlier run)" if timing.images < images else ""
    return (
        f"{timing.images:,} images in {timing.seconds:.1f} s{before}, {rate} images per s with {workers} of "
        f"{threads}{where}"
    )


def _findings(record: EvaluationRecord) -> Iterator[str]:
    for finding in sorted(record.findings, key=lambda one: not one.serious):
        style = "bold red" if finding.serious else "yellow"
        yield f"[{style}]{finding.cause}:[/] {_shown(finding.text)}".replace("\n", "\n  ")
        yield f"  -> {_shown(finding.advice)}"


def _gates(record: EvaluationRecord) -> Iterator[str]:
    for gate in record.gates:
        yield f"[{'green' if gate.passed else 'bold red'}]gate[/] {_shown(gate.text)}"


def _next(records: Sequence[EvaluationRecord]) -> str:
    first = records[0]
    where = "" if first.target == "local" else f" --target {first.target}"
    for record in records:
        if any(finding.cause == "collapse" for finding in record.findings):
            files = f"{record.model.path} --baseline {record.baseline.path} --data {record.data.path}"
            return f"next: edgeeff diagnose {files}    what went wrong"
    if any(gate.images_needed for record in records for gate in record.gates):
        return "next: evaluate on more images, as many as said above, so that every gate can tell"
    serious = next((finding for record in records for finding in record.findings if finding.serious), None)
    if serious is not None:
        return f"next: see to {serious.cause} above and evaluate again; until then no figure here can be trusted"
    if not all(record.passed for record in records):
        return "next: edgeeff convert with your own images (--calibration DIR) or --scheme int16x8, and evaluate again"
    best = max(records, key=lambda one: one.model_metrics.top1 if one.model_metrics else one.paired.agreement)
    return f"next: edgeeff profile {best.model.path}{where}    how fast it is"


def _compared(comparison: EvaluationComparison) -> Iterator[str]:
    top1, shared = comparison.top1, comparison.shared_images
    yield f"{comparison.second} against {comparison.first}"
    if comparison.paired:
        agree = "" if comparison.agreement is None else f", same best class on {percent(comparison.agreement)} %"
        yield f"  {shared:,} images that both saw{agree}"
    else:
        yield "  no image that both saw: the intervals are those of two independent sets, so they are wider"
    if top1 is None:
        return
    found = f"{points(top1.value)} points (95 %: {interval(top1)}), {_p_is(top1.p_value)}"
    yield f"  top-1 of the second: {word(top1)}, {found}"
    if comparison.first_only_right is not None and comparison.second_only_right is not None:
        yield (
            f"  {comparison.first_only_right:,} images only the first has right, {comparison.second_only_right:,} only "
            "the second"
        )
    if comparison.by_class:
        sure = sum(is_significant(found) for _, found in comparison.by_class)
        yield f"  recall changed significantly in {sure:,} of {len(comparison.by_class):,} classes (Holm's correction)"


# --- Figures ----------------------------------------------------------------------------------------------------------


def is_significant(difference: Difference) -> bool:
    """Return whether a difference is one after Holm's correction."""
    return difference.p_adjusted is not None and difference.p_adjusted < SIGNIFICANT


def _order(difference: Difference) -> tuple[bool, float]:
    return not is_significant(difference), difference.value


def _shown(text: str) -> str:
    """Return text as it is put into markup: names of files and classes are anybody's, and may steer a terminal."""
    from rich.markup import escape

    plain = (one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)
    return escape("".join(plain))


def _name(record: EvaluationRecord) -> str:
    return _file(record.model.path)


def _file(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def class_name(record: EvaluationRecord, index: int) -> str:
    """Return the name of a class, or its index where nobody named it."""
    return record.names[index] if index < len(record.names) else str(index)


def percent(fraction: float) -> str:
    """Write a fraction in percent, without the sign."""
    return f"{fraction * 100:.1f}"


def points(fraction: float) -> str:
    """Write a difference of fractions in points, with its sign."""
    text = f"{fraction * 100:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def interval(difference: Difference) -> str:
    """Write the interval of a difference in points."""
    low, high = difference.interval
    return f"{points(low)} to {points(high)}"


def _difference(difference: Difference) -> tuple[str, str]:
    return points(difference.value), interval(difference)


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _p_is(value: float | None) -> str:
    return "p unknown" if value is None else f"p {_p(value)}" if value < 0.001 else f"p = {_p(value)}"
