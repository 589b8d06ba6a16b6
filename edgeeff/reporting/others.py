"""Records whose terminal view says all there is to say: boards, calibration images, diagnoses, files, compilations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from edgeeff import render
from edgeeff.auditing import view as audits
from edgeeff.converters import inspect_view as inspections
from edgeeff.converters.edgetpu import view as compilations
from edgeeff.converters.inspect import Inspection
from edgeeff.converters.preflight import Preflight
from edgeeff.devices import probe_view as probes
from edgeeff.diagnosis import view as diagnoses
from edgeeff.reporting import terminal
from edgeeff.reporting.page import Block, Commands, Line, Lines, Mark, Part, Section, counted, part
from edgeeff.results import AuditRecord, CompilationRecord, DemoRecord, DiagnosisRecord, ProbeRecord

if TYPE_CHECKING:
    from rich.console import Console


def audit(record: AuditRecord, anchor: str) -> Section:
    """Return what an audit says of a folder of images."""
    marks = {"fit": Mark("fit", "good"), "usable": Mark("usable", "warn"), "unfit": Mark("unfit", "bad")}
    said = {"fit": "fit to calibrate with", "usable": "usable, but see below", "unfit": "unfit to calibrate with"}
    verdict = said.get(record.verdict, record.verdict)
    found = (
        Line(f"{one.text}\n→ {one.advice}", "bad" if one.serious else "warn", one.cause) for one in record.findings
    )
    mark = marks.get(record.verdict, Mark(record.verdict))
    return Section(
        anchor=anchor,
        title=render.file_name(record.folder),
        mark=mark,
        summary=f"{record.pixels.images:,} images, {record.pixels.distinct:,} distinct: {verdict}",
        labels=(),
        conclusion=(Line(f"The images are {verdict}.", mark.tone), *found),
        # Findings are said above.
        parts=_parts("What the images are like", partial(audits.render, record), without=(Lines,)),
    )


def diagnosis(record: DiagnosisRecord, anchor: str) -> Section:
    """Return what a diagnosis says of a quantized file."""
    cause = record.cause
    if cause is None:
        mark, said = Mark("nothing wrong", "good"), "nothing is wrong: the file is what its float model is"
        conclusion = [Line("Nothing is wrong: the file is what its float model is.", "good")]
    else:
        mark, said = Mark(cause.cause, "bad"), cause.text
        conclusion = [Line(f"{cause.text}\n→ {cause.advice}", "bad", cause.cause)]
    return Section(
        anchor=anchor,
        title=f"{render.file_name(record.model.path)} against {render.file_name(record.baseline.path)}",
        mark=mark,
        summary=said.splitlines()[0],
        labels=("emulated",) if record.device.emulated else (),
        conclusion=tuple(conclusion),
        parts=_parts("What was tested", partial(diagnoses.render, record)),
    )


def compilation(record: CompilationRecord, anchor: str) -> Section:
    """Return what became of files for the Edge TPU."""
    names = ", ".join(render.file_name(one.file.path) for one in record.compiled)
    left = sum(one.inside.cpu_operators for one in record.compiled)
    whole = "all operators run on the Edge TPU"
    said = f"{counted(left, 'operator')} left to the CPU" if left else whole
    return Section(
        anchor=anchor,
        title=names or "No file",
        mark=Mark("in part", "warn") if left else Mark("whole", "good"),
        summary=said,
        labels=(),
        conclusion=(
            Line(f"{said[0].upper()}{said[1:]}.", "warn" if left else "good"),
            *(Line(warning, "warn", "note") for warning in record.warnings),
        ),
        parts=_parts("What was compiled", partial(compilations.render, record)),
    )


def probe(record: ProbeRecord, anchor: str) -> Section:
    """Return what a board is and what state it is in."""
    throttled = record.throttling.now if record.throttling else ()
    runtimes = [f"{one.name} {one.version or ''}".strip() for one in record.runtimes if one.works]
    if throttled:
        mark = Mark("throttled now", "bad")
    elif not runtimes:
        mark = Mark("no runtime", "warn")
    else:
        mark = Mark("ready", "good")
    said = f"{record.cpu.cores} cores, {', '.join(runtimes) or 'no runtime that works'}"
    return Section(
        anchor=anchor,
        title=record.board or record.hostname or record.device.name,
        mark=mark,
        summary=f"{said}; throttled now: {', '.join(throttled)}" if throttled else said,
        labels=("emulated",) if record.device.emulated else (),
        conclusion=(),
        parts=_parts("What it is", partial(probes.render, record)),
    )


def inspection(record: Inspection, anchor: str) -> Section:
    """Return what is in a file."""
    delegation = record.delegation
    operators = f"{len(record.operators):,} operators, {record.macs / 1e9:.3f} G MACs"
    taken = "" if delegation is None else f", XNNPACK takes {len(delegation.taken):,} of them"
    return Section(
        anchor=anchor,
        title=render.file_name(record.model.path),
        mark=Mark("inspected"),
        summary=f"{operators}{taken}",
        labels=(),
        conclusion=(),
        parts=_parts("What is inside", partial(inspections.render, record)),
    )


def preflight(record: Preflight, anchor: str) -> Section:
    """Return what the Edge TPU compiler would make of a file."""
    marks = {"whole": Mark("whole", "good"), "unknown": Mark("unknown", "warn"), "in part": Mark("in part", "warn")}
    said = record.forecast.sentence
    return Section(
        anchor=anchor,
        title=f"{render.file_name(record.model.path)}, before compiling",
        mark=marks.get(record.verdict, Mark(record.verdict, "bad")),
        summary=said,
        labels=(),
        conclusion=(Line(f"{said[0].upper()}{said[1:]}."),),
        parts=_parts("What is known", partial(inspections.render_preflight, record)),
    )


def demo(record: DemoRecord, anchor: str) -> Section:
    """Return what the demonstration showed; its conversions and measurements have sections of their own."""
    int8, emulated = record.int8_profile, record.int8_profile.device.emulated
    said = (
        f"int8 takes {record.latency_ratio:.2f} of float32's median latency and {record.size_ratio:.2f} of its size "
        f"on {int8.device.name}"
    )
    return Section(
        anchor=anchor,
        title="EfficientNet-Lite0, float32 against int8",
        mark=Mark("a first look only", "warn"),
        summary=said,
        labels=("emulated",) if emulated else (),
        conclusion=(
            Line(f"{said}; both were measured in turn, in quick mode."),
            Line(f"Same best class on {record.agreement:.0%} of {counted(len(record.photographs), 'sample image')}."),
        ),
        # The rest of the view is where files are and what to type.
        parts=_parts("Both side by side", partial(render.demo, record), without=(Lines, Commands)),
    )


def _parts(title: str, view: Callable[[Console], None], *, without: tuple[type[Block], ...] = ()) -> tuple[Part, ...]:
    return tuple(part(title, *(block for block in terminal.shown(view) if not isinstance(block, without))))
