"""From what was kept of every image to a record: metrics, paired figures, gates, findings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeeff.converters import runtime
from edgeeff.evaluation import findings, gates, labels, metrics
from edgeeff.evaluation.classifier import Classifier
from edgeeff.evaluation.dataset import Dataset
from edgeeff.evaluation.gates import Gates
from edgeeff.evaluation.labels import ClassMap
from edgeeff.evaluation.outcomes import Divergences, Integers, Outcomes
from edgeeff.evaluation.paired import by_class, paired
from edgeeff.evaluation.scoring import Scored
from edgeeff.results import (
    DataUse,
    Device,
    EvaluationRecord,
    EvaluationTiming,
    ImageOutcomes,
    Kernels,
    Leak,
    Runtime,
)

DIGITS = 16
"""Of every image's sha256, in the record: no two of a billion images are alike in them by chance."""


@dataclass(frozen=True)
class Subject:
    """The images, and the model's class of each."""

    dataset: Dataset
    map: ClassMap | None
    labels: tuple[int, ...]
    names: tuple[str, ...]
    allowed: tuple[int, ...] | None
    matched_by: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """What ran the model."""

    device: Device
    runtime: Runtime


def record(
    subject: Subject,
    whole: Scored,
    place: int,
    *,
    model: Classifier,
    baseline: Classifier,
    target: str,
    ran: Ran,
    timing: EvaluationTiming,
    seed: int,
) -> EvaluationRecord:
    """Return the record of one of the models, `place` in what was kept of all images; not judged yet."""
    known = np.array([subject.labels[position] for position in whole.positions], np.int32)
    theirs, ours, apart = whole.models[place], whole.baseline, whole.divergences[place]
    classes = baseline.classes
    labelled = subject.map is not None
    names = subject.names
    return EvaluationRecord(
        runtime=ran.runtime,
        device=ran.device,
        packages=whole.versions,
        model=model.file,
        baseline=baseline.file,
        target=target,
        data=_data(subject, whole, known),
        classes=classes,
        names=names,
        preprocessing=model.preprocessing,
        baseline_preprocessing=baseline.preprocessing,
        model_macs=model.macs,
        baseline_macs=baseline.macs,
        model_outputs=metrics.outputs(theirs, classes),
        baseline_outputs=metrics.outputs(ours, classes),
        model_metrics=metrics.metrics(known, theirs, classes) if labelled else None,
        baseline_metrics=metrics.metrics(known, ours, classes) if labelled else None,
        paired=paired(known, ours, theirs, apart, classes, seed=seed),
        by_class=by_class(known, ours, theirs, names, classes) if labelled else (),
        confusion=metrics.cells(metrics.confusion(known, theirs.top1, classes)) if labelled else (),
        baseline_confusion=metrics.cells(metrics.confusion(known, ours.top1, classes)) if labelled else (),
        kernels=_kernels(whole, ran.runtime),
        findings=(),
        gates=(),
        passed=True,
        images=_images(subject, whole, known, ours, theirs, apart),
        timing=timing,
    )


def judged(
    record: EvaluationRecord, asked: Gates, *, leaks: Sequence[Leak], train_accuracy: float | None
) -> EvaluationRecord:
    """Return a record with its gates judged and its pitfalls named."""
    results = gates.judge(asked, record)
    record = replace(record, gates=results, passed=all(one.passed for one in results))
    suspicion = None
    if record.baseline_metrics is not None:
        matrix = np.zeros((record.classes, record.classes), np.int64)
        for right, said, count in record.baseline_confusion:
            matrix[right, said] = count
        suspicion = labels.suspect(matrix)
    return replace(
        record, findings=findings.find(record, leaks=leaks, train_accuracy=train_accuracy, suspicion=suspicion)
    )


def _data(subject: Subject, whole: Scored, known: Integers) -> DataUse:
    digest = hashlib.sha256()
    for one, label in zip(whole.digests, known, strict=True):
        digest.update(f"{one} {label}\n".encode())
    examples = subject.dataset.examples
    return DataUse(
        kind=subject.dataset.kind,
        path=subject.dataset.path,
        images=len(whole.positions),
        classes=len({int(label) for label in known if label >= 0}),
        sha256=digest.hexdigest(),
        unreadable=tuple((examples[position].key, reason) for position, reason in whole.unreadable),
        matched_by=subject.matched_by,
        notes=subject.notes,
    )


def _kernels(whole: Scored, there: Runtime) -> Kernels | None:
    if whole.kernels is None or np.isnan(whole.kernels).all():
        return None
    same, exact, apart = whole.kernels.T
    return Kernels(
        images=len(same),
        agreement=float(same.mean()),
        same_scores=float(exact.mean()),
        max_difference=float(np.nanmax(apart)),
        host=runtime.runtime(),
        board=there,
    )


def _images(
    subject: Subject, whole: Scored, known: Integers, ours: Outcomes, theirs: Outcomes, apart: Divergences
) -> ImageOutcomes:
    examples = subject.dataset.examples

    def rounded(values: Iterable[float]) -> tuple[float, ...]:
        return tuple(-1.0 if np.isnan(value) else round(float(value), 6) for value in values)

    return ImageOutcomes(
        keys=tuple(examples[position].key for position in whole.positions),
        sha256=tuple(digest[:DIGITS] for digest in whole.digests),
        labels=tuple(known.tolist()),
        baseline=tuple(ours.top1.tolist()),
        model=tuple(theirs.top1.tolist()),
        baseline_rank=tuple(ours.rank.tolist()),
        model_rank=tuple(theirs.rank.tolist()),
        baseline_confidence=rounded(ours.confidence),
        model_confidence=rounded(theirs.confidence),
        kl=rounded(apart.kl),
    )
