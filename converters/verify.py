"""What must hold of a .tflite file before it is handed over, each failure with a named cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import WEIGHTED, Graph
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import Scheme
from edgeeff.errors import ModelError, VerificationError
from edgeeff.results import Agreement, Check

Image = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]

VARIABLE_OPERATORS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
CONVERTING_OPERATORS = frozenset({"QUANTIZE", "DEQUANTIZE"})
INTEGER_TYPES = frozenset({"int8", "uint8", "int16", "int32", "int64"})

# A file whose arithmetic is float must repeat the float model, as a share of its largest score where that is above 1.
# Quantized ones may lose accuracy, which is for people to judge; outputs that have nothing to do with the float model's
# mean a broken file. A B0 that int8 has ruined still correlates by 0.28; shuffled weights do by 0.0.
MAX_DIFFERENCE = {"float32": 1e-4, "float16": 0.02}
MIN_CORRELATION = 0.05
# Below both a warning says that the file may be no good as a classifier. Of scores that go together well, another best
# class means near ties, which images that show nothing in particular are full of.
WARN_AGREEMENT = 0.8
WARN_CORRELATION = 0.9
ALIKE = 16
"""Difference of any pixel value up to which two images show the same."""


@dataclass(frozen=True)
class Verification:
    """What was checked of a file, and how it compares with the float model."""

    checks: tuple[Check, ...]
    agreement: Agreement


def verify(content: bytes, scheme: Scheme, model: FloatModel, probes: Sequence[Image]) -> Verification:
    """Check a file against the float model on `probes` (each (height, width, 3) uint8).

    Raises VerificationError, naming every check that failed and why, and ModelError when the float model does not run.
    """
    graph = Graph(content, "the file that was made")
    checks = [_no_variables(graph), _static(graph), _weights_present(graph)]
    if scheme.integer:
        checks.append(_integer_only(graph))
    if not all(check.passed for check in checks):
        raise _failure(checks)
    reference = Session(model.content)
    expected = np.stack([reference.run(image) for image in probes])
    try:
        session = Session(content)
        found = np.stack([session.run(image) for image in probes])
    except ModelError as error:
        raise _failure([*checks, Check("runs", passed=False, detail=str(error))]) from error
    checks.append(Check("runs", passed=True, detail=f"{len(probes)} images through LiteRT"))
    checks.append(_finite(found))
    if checks[-1].passed:
        checks.append(_not_constant(found, alike=_are_alike(probes)))
    agreement = compare(expected, found)
    if checks[-1].passed:
        step = session.output.scale or 0.0
        checks.append(_agrees(agreement, scheme, largest=float(np.abs(expected).max()), step=step))
    if not all(check.passed for check in checks):
        raise _failure(checks)
    return Verification(tuple(checks), agreement)


def compare(expected: Scores, found: Scores) -> Agreement:
    """Compare scores (images, classes) of a float model and of a file made from it."""
    difference = np.abs(expected - found)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = float(np.corrcoef(expected.ravel(), found.ravel())[0, 1])
    return Agreement(
        images=len(expected),
        same_top1=float(np.mean(expected.argmax(axis=1) == found.argmax(axis=1))),
        max_difference=float(difference.max()) if np.isfinite(difference).all() else float("inf"),
        correlation=correlation if np.isfinite(correlation) else 0.0,
    )


def is_doubtful(agreement: Agreement) -> bool:
    """Say whether people should be warned of a file that passed."""
    return agreement.same_top1 < WARN_AGREEMENT and agreement.correlation < WARN_CORRELATION


def _no_variables(graph: Graph) -> Check:
    kinds = [graph.kind(operator) for operator in graph.operators]
    found = sum(kind in VARIABLE_OPERATORS for kind in kinds)
    return Check(
        "no variables",
        passed=found == 0,
        detail=f"{found} of {len(kinds)} operators read variables: the weights were left out, trace the model anew"
        if found
        else f"{len(kinds)} operators, none reads a variable",
    )


def _static(graph: Graph) -> Check:
    tensors = [*graph.inputs, *(int(index) for operator in graph.operators for index in operator.outputs)]
    dynamic = [index for index in tensors if -1 in graph.shape(index)]
    return Check(
        "static shapes",
        passed=not dynamic,
        detail=f"{len(dynamic)} tensors have a dynamic dimension, first '{graph.name(dynamic[0])}' "
        f"{graph.shape(dynamic[0])}: XNNPACK and the Edge TPU refuse them, convert at batch 1"
        if dynamic
        else f"{len(tensors)} tensors, all of fixed size",
    )


def _weights_present(graph: Graph) -> Check:
    weighted = [operator for operator in graph.operators if graph.kind(operator) in WEIGHTED]
    missing = [graph.name(int(op.outputs[0])) for op in weighted if not _has_weights(graph, int(op.inputs[1]))]
    return Check(
        "weights present",
        passed=bool(weighted) and not missing,
        detail=f"{len(missing)} convolutions have no constant weights, first '{missing[0]}'"
        if missing
        else f"{len(weighted)} convolutions and dense layers carry their weights"
        if weighted
        else "there is no convolution or dense layer in the file",
    )


def _has_weights(graph: Graph, index: int) -> bool:
    if graph.constant(index) is not None:
        return True
    # float16 and weight-only files store the weights small and widen them when they are loaded.
    producer = graph.producer(index)
    return (
        producer is not None
        and graph.kind(producer) == "DEQUANTIZE"
        and graph.constant(int(producer.inputs[0])) is not None
    )


def _integer_only(graph: Graph) -> Check:
    """No float arithmetic but a softmax with float output, and the conversions at the ends."""
    foreign = []
    for operator in graph.operators:
        kind = graph.kind(operator)
        if kind in CONVERTING_OPERATORS or kind == "SOFTMAX":
            continue
        tensors = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
        if any(graph.dtype(index) not in INTEGER_TYPES for index in tensors):
            foreign.append(f"{kind} '{graph.name(int(operator.outputs[0]))}'")
    softmax = any(
        graph.kind(operator) == "SOFTMAX" and graph.dtype(int(operator.outputs[0])) == "float32"
        for operator in graph.operators
    )
    return Check(
        "integer arithmetic",
        passed=not foreign,
        detail=f"{len(foreign)} operators were left in float, first {foreign[0]}: the scheme does not cover them"
        if foreign
        else "every operator is integer" + (" but the softmax, which is float on purpose" if softmax else ""),
    )


def _finite(scores: Scores) -> Check:
    broken = int(np.sum(~np.isfinite(scores).all(axis=1)))
    return Check(
        "finite outputs",
        passed=broken == 0,
        detail=f"{broken} of {len(scores)} probe images give NaN or infinity: the weights or the ranges are broken"
        if broken
        else f"on {len(scores)} probe images",
    )


def _are_alike(probes: Sequence[Image]) -> bool:
    """Whether no pixel of any probe image is far from the first one's: copies, or black all over."""
    first = probes[0].astype(np.int16)
    return all(int(np.abs(image - first).max()) <= ALIKE for image in probes[1:])


def _not_constant(scores: Scores, *, alike: bool) -> Check:
    """Look whether scores differ, between images only where these do."""
    over_classes = bool(np.ptp(scores, axis=1).max() > 0)
    over_images = alike or bool(np.ptp(scores, axis=0).max() > 0)
    reason = "every class gets the same score" if not over_classes else "every probe image gets the same scores"
    return Check(
        "outputs differ",
        passed=over_classes and over_images,
        detail=("between classes; all probe images are alike" if alike else "between classes and between images")
        if over_classes and over_images
        else f"{reason}: the activation ranges swallow the signal, or the weights are untrained",
    )


def _agrees(agreement: Agreement, scheme: Scheme, *, largest: float, step: float) -> Check:
    """Judge the agreement, `largest` being float's largest score and `step` that of a quantized output."""
    share = MAX_DIFFERENCE.get(scheme.name)
    if share is not None:
        limit = share * max(1.0, largest) + step
        passed = agreement.max_difference <= limit
        detail = f"largest difference {agreement.max_difference:.2g}, at most {limit:.2g} is allowed for {scheme.name}"
    else:
        passed = agreement.correlation >= MIN_CORRELATION
        detail = (
            f"correlation {agreement.correlation:.3f} on {agreement.images} probe images, same best class on "
            f"{agreement.same_top1:.0%}"
        )
        if not passed:
            detail += f"; below {MIN_CORRELATION} the file has nothing to do with the float model"
    return Check("agrees with float", passed=passed, detail=detail)


def _failure(checks: Sequence[Check]) -> VerificationError:
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    return VerificationError(
        "the file that was made does not pass verification and was not written: " + "; ".join(failed)
    )
