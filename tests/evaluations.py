"""Evaluation records as tests need them: a healthy one, and the same with some fields changed."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy.typing as npt

from edgeeff.evaluation import metrics
from edgeeff.evaluation.outcomes import divergences, outcomes, probabilities
from edgeeff.evaluation.paired import by_class, paired
from edgeeff.results import (
    ClassMetrics,
    ClassResult,
    DataUse,
    Device,
    Difference,
    Divergence,
    EvaluationRecord,
    EvaluationTiming,
    Flip,
    ImageOutcomes,
    Metrics,
    ModelFile,
    Outputs,
    Paired,
    Preprocessing,
    Runtime,
)

Part = TypeVar("Part")

NAMES = ("cat", "dog", "fox", "owl", "hen", "cow", "bee", "ant", "elk", "yak")
SUPPORT = 200
IMAGES = SUPPORT * len(NAMES)
LOST = (3, 2, 1, 4, 0, 1, 2, 0, 1, 2)
"""Images of each class that only the baseline has right; one is gained where some are lost."""
FLOAT = Metrics(0.885, (0.8703, 0.8983), 0.992, 0.885, 0.8861, 0.885, 0.8853, 0.8861, 0.885, 0.8853, 0.021)
INT8 = Metrics(0.881, (0.8661, 0.8945), 0.991, 0.881, 0.8822, 0.881, 0.8813, 0.8822, 0.881, 0.8813, 0.024)
PIXELS = Preprocessing(224, 224, "center", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "metadata")
PAIRED = Paired(
    images=IMAGES,
    agreement=0.978,
    agreement_interval=(0.9706, 0.9836),
    divergence=Divergence(0.0021, 0.0004, 0.0093, 0.0148),
    confidence=Difference(-0.0041, (-0.0049, -0.0033)),
    flips=(Flip(0, 1, 6), Flip(3, 4, 5), Flip(1, 0, 4), Flip(2, 1, 3)),
    both_right=1754,
    baseline_only_right=16,
    model_only_right=8,
    both_wrong=222,
    top1=Difference(-0.004, (-0.0092, 0.0011), 0.1516),
    top5=Difference(-0.001, (-0.0036, 0.0013), 0.6875),
    balanced_accuracy=Difference(-0.004, (-0.0088, 0.0009)),
    macro_precision=Difference(-0.0039, (-0.0086, 0.0007)),
    macro_f1=Difference(-0.004, (-0.0087, 0.0008)),
    smallest_difference=0.0069,
)


def one_class(
    index: int, right: int = 177, support: int = SUPPORT, predicted: int | None = None, lost: int = 0, gained: int = 0
) -> ClassResult:
    """A class of which the baseline has `right` images right; as many images are said to be of it as there are."""
    predicted = support if predicted is None else predicted
    after = right - lost + gained
    difference = (after - right) / support if support else 0.0
    half = 1.96 * (lost + gained + 1) ** 0.5 / max(support, 1)
    return ClassResult(
        index=index,
        name=NAMES[index] if index < len(NAMES) else str(index),
        support=support,
        baseline=class_metrics(right, support, predicted),
        model=class_metrics(after, support, predicted),
        lost=lost,
        gained=gained,
        recall=Difference(difference, (difference - half, difference + half), 0.25, 1.0) if support else None,
        precision=Difference(difference, (difference - half, difference + half), None, None) if predicted else None,
    )


def class_metrics(right: int, support: int, predicted: int) -> ClassMetrics:
    return ClassMetrics(
        precision=right / predicted if predicted else None,
        recall=right / support if support else None,
        f1=2 * right / (support + predicted) if support + predicted else 0.0,
        predicted=predicted,
    )


HEALTHY = EvaluationRecord(
    edgeeff_version="0.1.0",
    created="2026-01-31T12:34:56+00:00",
    runtime=Runtime("ai-edge-litert", "2.3.0"),
    device=Device("desk", "x86_64", "Linux 6.8", "Xeon", 2),
    model=ModelFile("out/b0_int8.tflite", "ab" * 32, 6_200_000),
    baseline=ModelFile("b0.keras", "cd" * 32, 21_300_000),
    target="local",
    data=DataUse("folders", "photos/val", IMAGES, len(NAMES), "ef" * 32),
    classes=len(NAMES),
    names=NAMES,
    preprocessing=PIXELS,
    baseline_preprocessing=dataclasses.replace(PIXELS, source="layers"),
    model_macs=385_814_880,
    baseline_macs=385_814_880,
    model_outputs=Outputs(0.871, 0.0015, 0.012, 10, 0.104, 0),
    baseline_outputs=Outputs(0.8751, 0.0, 0.0, 10, 0.103, 0),
    model_metrics=INT8,
    baseline_metrics=FLOAT,
    paired=PAIRED,
    by_class=tuple(one_class(index, lost=lost, gained=int(lost > 0)) for index, lost in enumerate(LOST)),
    confusion=((0, 0, 175), (0, 1, 25)),
    baseline_confusion=((0, 0, 177), (0, 1, 23)),
    kernels=None,
    findings=(),
    gates=(),
    passed=True,
    images=ImageOutcomes((), (), (), (), (), (), (), (), (), ()),
    timing=EvaluationTiming(12.3, IMAGES, 162.6, 2, 1, 9.8, 8.2, 4.1),
)
"""EfficientNet-B0 in int8, which lost nothing that 2,000 images can show."""

UNLABELLED = dataclasses.replace(
    HEALTHY,
    data=DataUse("unlabelled", "camera", IMAGES, 0, "ef" * 32),
    model_metrics=None,
    baseline_metrics=None,
    by_class=(),
    confusion=(),
    baseline_confusion=(),
    paired=Paired(IMAGES, 0.978, (0.9706, 0.9836), PAIRED.divergence, PAIRED.confidence, PAIRED.flips),
)


def changed(part: Part, **fields: Any) -> Part:
    """Return the same with other values; `paired__top1__value=0` is for the value in top1 in paired."""
    for path, value in fields.items():
        name, _, rest = path.partition("__")
        inner = changed(getattr(part, name), **{rest: value}) if rest else value
        part = dataclasses.replace(part, **{name: inner})  # type: ignore[type-var]
    return part


def evaluation(**fields: Any) -> EvaluationRecord:
    """Return the healthy evaluation with other values; see `changed`."""
    return changed(HEALTHY, **fields)


def judged_images(labels: npt.NDArray[Any], baseline: npt.NDArray[Any], model: npt.NDArray[Any]) -> EvaluationRecord:
    """Return the evaluation of two models' scores (n, classes) with labels (n,), its figures as they are in life."""
    count, classes = baseline.shape
    ours, theirs = outcomes(baseline, labels, logits=True), outcomes(model, labels, logits=True)
    apart = divergences(probabilities(baseline, logits=True), probabilities(model, logits=True))
    names = [NAMES[index] if index < len(NAMES) else str(index) for index in range(classes)]
    labelled = bool((labels >= 0).any())
    present = len(set(labels[labels >= 0].tolist()))
    return dataclasses.replace(
        HEALTHY,
        data=DataUse("folders" if labelled else "unlabelled", "photos/val", count, present, "ef" * 32),
        classes=classes,
        names=tuple(names),
        model_outputs=metrics.outputs(theirs, classes),
        baseline_outputs=metrics.outputs(ours, classes),
        model_metrics=metrics.metrics(labels, theirs, classes) if labelled else None,
        baseline_metrics=metrics.metrics(labels, ours, classes) if labelled else None,
        paired=paired(labels, ours, theirs, apart, classes),
        by_class=by_class(labels, ours, theirs, names, classes) if labelled else (),
        confusion=metrics.cells(metrics.confusion(labels, theirs.top1, classes)),
        baseline_confusion=metrics.cells(metrics.confusion(labels, ours.top1, classes)),
    )
