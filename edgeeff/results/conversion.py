"""How a file was made: what conversions say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.record import ModelFile, Record, TensorContract


@dataclass(frozen=True)
class Fidelity:
    """How close a quantized file's scores come to the float file's on the same images."""

    images: int
    divergence: float
    """Mean Kullback-Leibler divergence of the float file's scores from the quantized file's, in nats: 0 is the same."""
    agreement: float
    """Fraction of images with the same best class, 0 to 1."""
    ties: float
    """Fraction of images whose best score several classes share, 0 to 1."""


@dataclass(frozen=True)
class Attempt:
    """One way to quantize that was tried, and what it gave."""

    name: str
    fidelity: Fidelity
    """On the images kept apart."""
    learned: Fidelity
    """On images that were learned from: where this is much better, they were learned by heart."""
    seconds: float


@dataclass(frozen=True)
class Recovery:
    """What was tried to keep the accuracy, on which images, and what was kept."""

    effort: str
    """"quick", "standard" or "thorough"."""
    seed: int
    calibration_images: int
    judging_images: int
    attempts: tuple[Attempt, ...]
    chosen: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationUse:
    """Which images set the activation ranges: `kind` is "synthetic", "folder" or "none"."""

    kind: str
    count: int
    seed: int
    folder: str | None = None
    method: str = "min/max"
    note: str = ""
    images: tuple[tuple[str, str], ...] = ()
    """Relative path and sha256 of every image of a folder."""


@dataclass(frozen=True)
class Check:
    """One thing that was verified of a file."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Agreement:
    """How a quantized file's outputs compare with the float file's on the same probe images."""

    images: int
    same_top1: float
    """Fraction of images with the same best class, 0 to 1."""
    max_difference: float
    """Largest absolute difference of any output."""
    correlation: float
    """Pearson correlation of all outputs of all images, -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class ConversionRecord(Record):
    """How a .tflite file was made, and what was verified of it."""

    schema: ClassVar[str] = "edgeeff/conversion"
    schema_version: ClassVar[int] = 2

    model: ModelFile
    source: str
    """A variant's name, a phi, or the path of the model that was given."""
    source_sha256: str | None
    weights: str
    scheme: str
    classes: int
    resolution: tuple[int, int]
    """Height and width in pixels."""
    output: str
    """"softmax" or "logits"."""
    input_contract: TensorContract
    output_contract: TensorContract
    macs: int
    float_size_bytes: int
    calibration: CalibrationUse
    agreement: Agreement
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step."""
    recovery: Recovery | None = None
    """What was tried to keep the accuracy of int8; None in records of version 1, and where there was nothing to try."""
