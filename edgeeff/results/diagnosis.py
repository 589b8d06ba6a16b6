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
    """What was looked for, such as "constant-output"."""
    found: bool
    """Whether it is so."""
    text: str
    """The evidence in words."""
    figures: dict[str, float] = field(default_factory=dict)
    """The evidence in numbers, by name; fractions are 0 to 1."""


@dataclass(frozen=True)
class TensorFault:
    """A tensor of the network in both files."""

    name: str
    """Its name in the network."""
    block: str
    """The part of the network, such as "block2a"; empty where its name does not say."""
    low: float
    """The least that the quantized tensor can hold."""
    high: float
    """The most that it can hold."""
    float_low: float
    """The least that the float tensor held, or -8 where swish or sigmoid, flat below, is all that reads it."""
    float_high: float
    """The most that the float tensor held."""
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
    """The quantized file."""
    baseline: ModelFile
    """Its float model."""
    data: str | None
    """Where the images are; None where edgeeff made them."""
    images: int
    """That both ran on."""
    unreadable: tuple[tuple[str, str], ...]
    """Name and reason of every image that was left out."""
    preprocessing: Preprocessing
    """What the quantized file is given."""
    baseline_preprocessing: Preprocessing
    """What its float model is given."""
    agreement: float
    """Fraction of images with the same best class."""
    correlation: float
    """Of both models' log-probabilities over images, without each class's mean: 1 sees the same, 0 nothing of it."""
    top1: float | None
    """Of the quantized file, 0 to 1; None without labels."""
    baseline_top1: float | None
    """Of its float model, 0 to 1; None without labels."""
    tests: tuple[Test, ...]
    """What was looked for, in the order in which it counts."""
    tensors: tuple[TensorFault, ...]
    """The worst tensors, in the order of the network."""
    cause: Finding | None
    """The one thing to mend; None where nothing is wrong."""
    notes: tuple[str, ...]
    """What else was seen."""
