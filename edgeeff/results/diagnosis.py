"""Why a quantized file is not what its float model is: what diagnoses say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.evaluation import Finding, Preprocessing
from edgeeff.results.record import ModelFile, Record


@dataclass(frozen=True)
class Test:
    """One thing that may be wrong, and what was found."""

    __test__ = False  # no test of ours: pytest is not to collect it

    name: str
    found: bool
    text: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorFault:
    """A tensor of the network in both files."""

    name: str
    block: str
    """The part of the network, such as "block2a"; empty where its name does not say."""
    low: float
    high: float
    """What the quantized tensor can hold."""
    float_low: float
    float_high: float
    """What the float tensor held, from -8 on where swish or sigmoid, flat below, is all that reads it."""
    clipped: float
    """Share of these values that lie outside, 0 to 1."""
    excess: float
    """Mean error that this range makes of the float values, divided by that of the best range for them; 1 is best."""
    error: float
    """Deviation of the quantized values from the float ones, with all errors before it, as a part of the float values'
    own deviation: 0 is the same, 1 has nothing of it left."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisRecord(Record):
    """What is wrong with a quantized file, if anything."""

    schema: ClassVar[str] = "edgeeff/diagnosis"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    baseline: ModelFile
    data: str | None
    """None where edgeeff made the images."""
    images: int
    unreadable: tuple[tuple[str, str], ...]
    preprocessing: Preprocessing
    baseline_preprocessing: Preprocessing
    agreement: float
    """Fraction of images with the same best class."""
    correlation: float
    """Of both models' log-probabilities over images, without each class's mean: 1 sees the same, 0 nothing of it."""
    top1: float | None
    baseline_top1: float | None
    """None without labels."""
    tests: tuple[Test, ...]
    """In the order in which they count."""
    tensors: tuple[TensorFault, ...]
    """The worst ones, in the order of the network."""
    cause: Finding | None
    """None where nothing is wrong."""
    notes: tuple[str, ...]
