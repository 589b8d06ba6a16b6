"""What became of a model: how it was made, what was tried to keep its accuracy, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from edgeeff import render
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
    counted,
    lines,
    part,
    table,
)
from edgeeff.results import ConversionRecord, Finetuning, Mixed, Recovery

ABOVE = {"mixed for", "tried", "fine-tuned"}
"""Facts that have parts of their own here."""


def section(record: ConversionRecord, anchor: str) -> Section:
    """Return what a conversion says."""
    name = render.file_name(record.model.path)
    return Section(
        anchor=anchor,
        title=name,
        mark=_mark(record),
        summary=_summary(record),
        labels=("latencies emulated",) if _emulated(record) else (),
        conclusion=tuple(_conclusion(record, name)),
        parts=tuple(_parts(record)),
    )


def _mark(record: ConversionRecord) -> Mark:
    if any(not check.passed for check in record.checks):
        return Mark("not verified", "bad")
    if record.mixed is not None and not record.mixed.met:
        return Mark("goal not met", "bad")
    return Mark("verified, with warnings", "warn") if record.warnings else Mark("verified", "good")


def _emulated(record: ConversionRecord) -> bool:
    return record.device.emulated or (record.mixed is not None and record.mixed.timed_on.device.emulated)


def _summary(record: ConversionRecord) -> str:
    same = record.agreement
    size = render.megabytes(record.model.size_bytes)
    before = "" if record.scheme == "float32" else f" instead of {render.megabytes(record.float_size_bytes)} in float32"
    return (
        f"{record.scheme}, {size}{before}; same best class as float on {same.same_top1:.0%} of {same.images} "
        "probe images"
    )


def _conclusion(record: ConversionRecord, name: str) -> Iterator[Line]:
    size, same = record.model.size_bytes, record.agreement
    share = "" if record.scheme == "float32" else f", {size / record.float_size_bytes:.0%} of its float32 file"
    yield Line(f"{name} is {record.scheme} and has {render.megabytes(size)}{share}.")
    yield Line(
        f"It says the same best class as the float file on {same.same_top1:.0%} of {same.images} probe images, with a "
        f"correlation of {same.correlation:.3f}. So few images show that it works; edgeeff evaluate says how accurate "
        "it is."
    )
    failed = [check for check in record.checks if not check.passed]
    for check in failed:
        yield Line(check.detail, "bad", check.name)
    if not failed:
        yield Line(f"{counted(len(record.checks), 'check')} of the file passed.", "good")
    mixed = record.mixed
    if mixed is not None:
        goal = render.goal(mixed)
        yield Line(goal, "good" if mixed.met else "bad", "goal")
        if mixed.shortfall is not None:
            yield Line(mixed.shortfall, "bad", "what is missing")
    for warning in record.warnings:
        yield Line(warning, "warn", "warning")


def _parts(record: ConversionRecord) -> Iterator[Part]:
    yield from part(
        "What was done", Facts(tuple(fact for fact in render.conversion_facts(record) if fact[0] not in ABOVE))
    )
    if record.recovery is not None:
        yield from part("Calibrator candidates", lines([_tried(record.recovery)]), _candidates(record.recovery))
    if record.mixed is not None:
        yield from _mixed(record.mixed)
    if record.finetuning is not None:
        yield from part("Fine-tuning", lines([render.finetuning(record.finetuning)]), _training(record.finetuning))
    checks = table("What was verified", ("check", "passed", "what was seen"), _checks(record), words=(0, 1, 2))
    yield from part("Checks", checks, folded=True)
    seconds = [(name, f"{value:.1f}") for name, value in record.seconds.items()]
    yield from part("Time it took", table("Wall time of each step", ("step", "s"), seconds), folded=True)


def _checks(record: ConversionRecord) -> Iterator[tuple[str, Cell, str]]:
    for check in record.checks:
        yield check.name, Cell("yes", "good") if check.passed else Cell("no", "bad"), check.detail


def _tried(recovery: Recovery) -> str:
    kept = next(one for one in recovery.attempts if one.name == recovery.chosen)
    closest = min(recovery.attempts, key=lambda one: one.fidelity.divergence)
    one = len(recovery.attempts) == 1
    ways = "One way to quantize was tried" if one else f"Of {len(recovery.attempts)} ways to quantize"
    apart = f"the {recovery.judging_images} images that nothing was learned from"
    if one or kept.fidelity.divergence <= closest.fidelity.divergence:
        said = f"is closest to the float file on {apart}: same best class on {kept.fidelity.agreement:.1%} of them."
        why = ""
    else:
        said = f"has the float file's best class on {kept.fidelity.agreement:.1%} of {apart}."
        why = (
            f" '{closest.name}' is closer on these few; but ranges are chosen by all images, and later ones only "
            "where they are notably better."
        )
    return (
        f"{ways}{';' if one else ','} '{kept.name}' {'' if one else 'was kept, which '}{said}{why} Where a way does "
        "much better on the images it learned from, it learned them by heart."
    )


def _candidates(recovery: Recovery) -> Table | None:
    def rows() -> Iterator[Row]:
        for one in recovery.attempts:
            chosen = one.name == recovery.chosen
            yield Row(
                (
                    Cell(f"{one.name} (kept)" if chosen else one.name),
                    Cell(f"{100 * one.fidelity.agreement:.1f}"),
                    Cell(f"{one.fidelity.divergence:#.3g}"),
                    Cell(f"{100 * one.fidelity.ties:.1f}"),
                    Cell(f"{100 * one.learned.agreement:.1f}"),
                    Cell(f"{one.seconds:.1f}"),
                ),
                strong=chosen,
            )

    columns = ("way to quantize", "agrees %", "divergence, nats", "ties %", "agrees % where it learned", "s")
    return table(
        f"Ways to quantize, on {recovery.judging_images} images kept apart of {recovery.calibration_images}",
        columns,
        rows(),
        note="Agrees: images with the float file's best class. Divergence: Kullback-Leibler, 0 is the same.",
    )


def _mixed(mixed: Mixed) -> Iterator[Part]:
    on = mixed.timed_on
    emulated = ", EMULATED: no latency here is a real board's" if on.device.emulated else ""
    chosen = mixed.chosen
    said = (
        f"The file keeps float's best class on {chosen.agreement_estimate:.1%} of many images by estimate, at least "
        f"{chosen.agreement_low:.1%}, and takes {chosen.latency_ratio:.0%} of the float file's latency: "
        f"{milliseconds(chosen.latency_s)} instead of {milliseconds(mixed.float_latency_s)} on {on.target} "
        f"({on.device.name}, {on.threads} thread{'s' if on.threads > 1 else ''}{emulated})."
    )
    plot = Plot(
        "Agreement with float against latency: each point is a file that could have been made, with the lower end of "
        "its agreement",
        f"{len(mixed.points)} points from float to int8; the table below has their figures.",
        partial(plots.mixed, mixed),
    )
    yield from part(
        "Mixed precision",
        lines([said]),
        plot if len(mixed.points) > 1 else None,
        _points(mixed),
        lines(
            [f"Weights of {len(mixed.tuned)} blocks were tuned for static int8: {', '.join(mixed.tuned)}."]
            if mixed.tuned
            else []
        ),
    )
    if mixed.trials:
        yield from part(
            "Sensitivity",
            lines([_sensitive(mixed)]),
            Plot(
                "What each block costs alone, at each level",
                "Divergence from float by block; the table that is folded below has the figures.",
                partial(plots.sensitivity, mixed.trials),
            ),
        )
        yield from part("Sensitivity in figures", _trials(mixed), folded=True)


def _points(mixed: Mixed) -> Table | None:
    shown = terminal.from_table(
        render.mixed_points(mixed),
        "From the closest to float to the fastest; each is better than all others in one of the two",
        note="Agrees: expected of many images; at least: its lower end, which is held against the goal. "
        "Of float: latency, where 1 is the float file's.",
    )
    if shown is None:
        return None
    # The terminal has an arrow where there is room for a name here.
    named = (
        replace(row, cells=(Cell(f"{point.name} (chosen)" if point.chosen else point.name), *row.cells[1:]))
        for row, point in zip(shown.rows, mixed.points, strict=True)
    )
    return replace(shown, columns=(Column("point", figures=False), *shown.columns[1:]), rows=tuple(named))


def _sensitive(mixed: Mixed) -> str:
    worst = max(mixed.trials, key=lambda one: one.divergence)
    return (
        f"Each block was tried alone, all others in float, on {mixed.trial_images} images. '{worst.block}' suffers "
        f"most: at level '{worst.level}' its scores move by {worst.divergence:.2g} nats."
    )


def _trials(mixed: Mixed) -> Table | None:
    levels = list(dict.fromkeys(one.level for one in mixed.trials))
    blocks: dict[str, dict[str, tuple[float, float]]] = {}
    for one in mixed.trials:
        blocks.setdefault(one.block, {})[one.level] = (one.divergence, one.latency_ratio)

    def rows() -> Iterator[Iterator[str]]:
        for block, tried in blocks.items():
            yield iter([block, *(_trial(tried.get(level)) for level in levels)])

    return table(
        "Divergence in nats with only this block at this level, and the network's latency of float's",
        ("block", *levels),
        rows(),
    )


def _trial(tried: tuple[float, float] | None) -> str:
    return "" if tried is None else f"{tried[0]:#.2g} at {tried[1]:.2f}"


def _training(done: Finetuning) -> Plot | None:
    if len(done.divergences) < 2:
        return None
    return Plot(
        "Divergence from the teacher on images kept apart, while it learned",
        f"From {done.divergences[0][1]:.2g} nats before training to {min(one for _, one in done.divergences):.2g} at "
        f"best, at step {done.best_step}.",
        partial(plots.training, done),
    )
