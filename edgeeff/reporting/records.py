"""From records to a report: what is read, which chapter each record belongs to, and what they say together.

What is said of each kind of record is in a module of its own; how it is shown is left to `html` and `markdown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeeff import render
from edgeeff.converters.inspect import Inspection
from edgeeff.converters.preflight import Preflight
from edgeeff.devices.profile_view import milliseconds
from edgeeff.errors import InputError, RecordError
from edgeeff.evaluation import view
from edgeeff.reporting import accuracy, conversions, latencies, others, picks
from edgeeff.reporting.page import Chapter, Facts, Mark, Page, Part, Section, Table, Tone, slug, table
from edgeeff.reporting.thumbnails import Thumbnails
from edgeeff.results import (
    AuditRecord,
    CompilationRecord,
    ConversionRecord,
    DemoRecord,
    DiagnosisRecord,
    EvaluationRecord,
    PickRecord,
    PredictionRecord,
    ProbeRecord,
    ProfileRecord,
    Record,
    read_record,
)


@dataclass(frozen=True)
class Kind:
    """A kind of record, its chapter, and what makes a section of it."""

    record: type[Record]
    title: str
    section: Callable[[Any, str], Section]


KINDS = (
    Kind(DemoRecord, "Demonstration", others.demo),
    Kind(ConversionRecord, "Conversion", conversions.section),
    Kind(ProfileRecord, "Latency", latencies.section),
    Kind(EvaluationRecord, "Accuracy", accuracy.section),
    Kind(PickRecord, "Pick", picks.section),
    Kind(PredictionRecord, "Prediction", picks.prediction),
    Kind(CompilationRecord, "Compilation for the Edge TPU", others.compilation),
    Kind(Preflight, "Edge TPU, before compiling", others.preflight),
    Kind(AuditRecord, "Calibration images", others.audit),
    Kind(DiagnosisRecord, "Diagnosis", others.diagnosis),
    Kind(Inspection, "Files", others.inspection),
    Kind(ProbeRecord, "Boards", others.probe),
)
"""In the order of the page."""
SAID: dict[Tone, str] = {"bad": "say no", "warn": "want a look", "good": "are good", "": "only inform"}


@dataclass(frozen=True)
class Given:
    """A record, and where it is from."""

    record: Record
    source: str


@dataclass
class _Anchors:
    """Names for sections in the page's address, each given once."""

    given: set[str] = field(default_factory=set)

    def new(self, words: str) -> str:
        base = slug(words)
        name, number = base, 1
        while name in self.given:
            number += 1
            name = f"{base}-{number}"
        self.given.add(name)
        return name


def read(given: Iterable[Path | Record]) -> tuple[Given, ...]:
    """Read records of any kind, and take those apart that hold others; the same record given twice counts once.

    Raises InputError when nothing is given, and RecordError for what is no record that this edgeeff reads.
    """
    found: list[Given] = []
    for each in given:
        record, source = _read(each)
        for one in (record, *_inside(record)):
            if all(one != known.record for known in found):
                found.append(Given(one, source if one is record else f"{source}, which holds it"))
    if not found:
        raise InputError("no record is given: name the .json files that convert, profile, evaluate or pick wrote")
    return tuple(found)


def build(given: Sequence[Given], *, title: str | None = None, thumbnails: Thumbnails | None = None) -> Page:
    """Return the report on records; images that changed are in it where `thumbnails` says where they are.

    Raises RecordError for a record that contradicts itself.
    """
    anchors = _Anchors()
    chapters = tuple(chapter for kind in KINDS if (chapter := _chapter(kind, given, anchors, thumbnails)))
    records = [one.record for one in given]
    sections = [section for chapter in chapters for section in chapter.sections]
    against = tuple((one.title, section) for one in chapters for section in one.sections if section.mark.tone == "bad")
    days = sorted({record.created[:10] for record in records})
    period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    count = "one record" if len(records) == 1 else f"{len(records)} records"
    return Page(
        title=title or _title(records),
        subtitle=f"edgeeff report on {count} of {period}",
        headline=_headline(sections),
        against=against if len(sections) > 1 else (),
        warnings=tuple(dict.fromkeys(_warnings(records))),
        models=_models(records),
        chapters=chapters,
        provenance=tuple(_provenance(one) for one in given),
    )


def _read(given: Path | Record) -> tuple[Record, str]:
    if isinstance(given, Record):
        return given, "given by a program"
    return read_record(given, more=(Inspection, Preflight)), str(given)


def _inside(record: Record) -> tuple[Record, ...]:
    if isinstance(record, DemoRecord):
        return record.float_conversion, record.int8_conversion, record.float_profile, record.int8_profile
    return ()


def _chapter(kind: Kind, given: Sequence[Given], anchors: _Anchors, thumbnails: Thumbnails | None) -> Chapter | None:
    mine = [one for one in given if isinstance(one.record, kind.record)]
    if not mine:
        return None
    anchors.new(kind.title)
    sections = tuple(_section(kind, one, anchors, thumbnails) for one in mine)
    records = [one.record for one in mine]
    profiles = [record for record in records if isinstance(record, ProfileRecord)]
    evaluations = [record for record in records if isinstance(record, EvaluationRecord)]
    parts: tuple[Part, ...] = ()
    if profiles:
        parts = tuple(latencies.overview(profiles))
    elif len(evaluations) > 1:
        parts = tuple(accuracy.overview(evaluations))
    return Chapter(kind.title, sections, parts)


def _section(kind: Kind, one: Given, anchors: _Anchors, thumbnails: Thumbnails | None) -> Section:
    anchor = anchors.new(f"{kind.title} {_subject(one.record)}")
    try:
        if isinstance(one.record, EvaluationRecord):
            return accuracy.section(one.record, anchor, thumbnails)
        return kind.section(one.record, anchor)
    except (ArithmeticError, LookupError, RuntimeError, StopIteration, ValueError) as error:
        # Its fields have the types that they should, but what one of them names is not there, or it is no number to
        # divide by. A RuntimeError is what a generator makes of StopIteration.
        raise RecordError(f"{one.source} contradicts itself ({error!r}); write it anew, or leave it away") from error


def _subject(record: Record) -> str:
    model = getattr(record, "model", None)
    return "" if model is None else render.file_name(model.path)


# --- What records say together ----------------------------------------------------------------------------------------


def _title(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(name for record in records if (name := _subject(record))))
    if not names:
        devices = list(dict.fromkeys(record.device.name for record in records))
        return ", ".join(devices[:3])
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _headline(sections: Sequence[Section]) -> Mark:
    counts: dict[Tone, int] = {
        tone: count for tone in SAID if (count := sum(section.mark.tone == tone for section in sections))
    }
    worst: Tone = next(iter(counts), "")
    if len(sections) == 1:
        return Mark(f"{sections[0].title}: {sections[0].mark.word}", worst)
    said = ", ".join(f"{count} {_verb(SAID[tone], count)}" for tone, count in counts.items())
    return Mark(f"Of {len(sections)} results {said}", worst)


def _verb(words: str, count: int) -> str:
    if count > 1:
        return words
    return {"say no": "says no", "want a look": "wants a look", "are good": "is good"}.get(words, f"{words}s")


def _warnings(records: Sequence[Record]) -> Iterator[str]:
    emulated = sum(record.device.emulated for record in records)
    if emulated:
        yield (
            f"{emulated} of {len(records)} records are of an emulated board: no latency of theirs is a real board's, "
            "and none is compared with a measured one."
        )
    for record in records:
        if isinstance(record, (PickRecord, PredictionRecord)) and record.recorded:
            yield f"Recorded by others, not measured now: {'; '.join(record.recorded)}."


def _models(records: Sequence[Record]) -> Table | None:
    """Return a row for each file that records of several kinds speak of, or for each of several files."""
    speaking = [one for one in records if isinstance(one, (ConversionRecord, ProfileRecord, EvaluationRecord))]
    files: dict[str, list[ConversionRecord | ProfileRecord | EvaluationRecord]] = {}
    for record in speaking:
        files.setdefault(record.model.sha256, []).append(record)
    if len(files) < 2 and len({type(record) for record in speaking}) < 2:
        return None
    emulated = any(isinstance(one, ProfileRecord) and one.device.emulated for one in speaking)
    columns = (
        "file",
        "MB",
        "p50, ms",
        *(["p50 EMULATED, ms"] if emulated else []),
        "top-1 %",
        "points",
        "same class %",
    )

    def row(about: Sequence[Record]) -> Iterator[str]:
        first = about[0]
        assert isinstance(first, (ConversionRecord, ProfileRecord, EvaluationRecord))  # noqa: S101
        yield render.file_name(first.model.path)
        yield f"{first.model.size_bytes / 1e6:.1f}"
        for wanted in (False, True)[: 2 if emulated else 1]:
            yield ", ".join(
                f"{milliseconds(one.latency.p50_s).removesuffix(' ms')} ({one.target}{_unfit(one)})"
                for one in about
                if isinstance(one, ProfileRecord) and one.device.emulated is wanted
            )
        judged = [one for one in about if isinstance(one, EvaluationRecord)]
        right = [one.model_metrics for one in judged] or [
            one.baseline_metrics
            for one in speaking
            if isinstance(one, EvaluationRecord) and one.baseline.sha256 == first.model.sha256
        ]
        yield ", ".join(dict.fromkeys(view.percent(one.top1) for one in right if one is not None))
        yield ", ".join(
            f"{view.points(one.paired.top1.value)} ({view.interval(one.paired.top1)})"
            for one in judged
            if one.paired.top1
        )
        yield ", ".join(view.percent(one.paired.agreement) for one in judged)

    rows = [tuple(row(about)) for about in files.values()]
    filled = [index for index in range(len(columns)) if any(cells[index] for cells in rows)]
    said = {
        "points": "Points: top-1 against the baseline's, with the 95 % interval.",
        "same class %": "Same class: as the baseline.",
    }
    return table(
        "The files of this report",
        (columns[index] for index in filled),
        ([cells[index] for index in filled] for cells in rows),
        note=" ".join(said[columns[index]] for index in filled if columns[index] in said),
        brief=True,
    )


def _unfit(record: ProfileRecord) -> str:
    """Say beside a figure that it is none to report."""
    said = latencies.mark(record)
    return f", {said.word}" if said.tone != "good" and not record.device.emulated else ""


# --- Where everything is from -----------------------------------------------------------------------------------------


def _provenance(one: Given) -> Part:
    record = one.record
    device, runtime = record.device, record.runtime
    rows = [
        ("record", f"{one.source}: {record.schema} version {record.schema_version}"),
        ("made", f"{record.created}, by edgeeff {record.edgeeff_version}"),
        ("device", f"{device.name}: {device.machine}, {device.cores} x {device.cpu}, {device.system}"),
    ]
    if device.emulated:
        rows.append(("EMULATED", "a program stood in for the board"))
    for source in getattr(record, "recorded", ()):
        rows.append(("RECORDED", source))
    if runtime is not None:
        rows.append(("runtime", f"{runtime.name} {runtime.version}, delegate {runtime.delegate}"))
    if record.packages:
        rows.append(("packages", ", ".join(f"{name} {version}" for name, version in record.packages.items())))
    for name in ("model", "baseline"):
        file = getattr(record, name, None)
        if file is not None:
            rows.append((name, f"{file.path}, {file.size_bytes:,} bytes, sha256 {file.sha256}"))
    if isinstance(record, EvaluationRecord):
        rows.append(("data", f"{record.data.path}, sha256 {record.data.sha256}"))
    if isinstance(record, ConversionRecord) and record.source_sha256 is not None:
        rows.append(("made from", f"{record.source}, sha256 {record.source_sha256}"))
    title = next(kind.title for kind in KINDS if isinstance(record, kind.record))
    return Part(f"{title}: {_subject(record) or device.name}", (Facts(tuple(rows)),))
