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
    int8_conversion: ConversionRecord
    float_profile: ProfileRecord
    int8_profile: ProfileRecord
    latency_ratio: float
    """int8 p50 divided by float p50, interleaved."""
    size_ratio: float
    photographs: tuple[DemoPhotograph, ...]
    agreement: float
    """Fraction of the photographs with the same best class in float and int8."""
    seconds: float


@dataclass(frozen=True)
class DemoPhotograph:
    """One sample image and what both models see in it."""

    name: str
    float_class: str
    float_score: float
    int8_class: str
    int8_score: float
