"""What the demonstration says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeeff.results.conversion import ConversionRecord
from edgeeff.results.profile import ProfileRecord
from edgeeff.results.record import Record


@dataclass(frozen=True, kw_only=True)
class DemoRecord(Record):
    """What `edgeeff demo` did on this machine."""

    schema: ClassVar[str] = "edgeeff/demo"
    schema_version: ClassVar[int] = 1

    float_conversion: ConversionRecord
    """How the float file was made."""
    int8_conversion: ConversionRecord
    """How the int8 file was made."""
    float_profile: ProfileRecord
    """What the float file takes here."""
    int8_profile: ProfileRecord
    """What the int8 file takes here."""
    latency_ratio: float
    """int8 p50 divided by float p50, interleaved."""
    size_ratio: float
    """Size of the int8 file divided by that of the float file."""
    photographs: tuple[DemoPhotograph, ...]
    """What both files see in the sample images."""
    agreement: float
    """Fraction of the photographs with the same best class in float and int8."""
    seconds: float
    """Wall time of all of it."""


@dataclass(frozen=True)
class DemoPhotograph:
    """One sample image and what both models see in it."""

    name: str
    """Of the sample image."""
    float_class: str
    """Best class of the float file."""
    float_score: float
    """Its probability, 0 to 1."""
    int8_class: str
    """Best class of the int8 file."""
    int8_score: float
    """Its probability, 0 to 1."""
