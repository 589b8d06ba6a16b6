"""Which network a board can afford: what picks and predictions say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeeff.results.record import ModelFile, Record


@dataclass(frozen=True)
class PickLimits:
    """What a network has to keep to; None where nobody asked."""

    budget_s: float
    percentile: int
    """Of the latency that the budget is for: 50, 90 or 99."""
    end_to_end: bool = False
    """Whether decoding and resizing the image count, too."""
    max_memory_bytes: int | None = None
    """Peak of the whole process, with Python and the runtime."""
    max_size_bytes: int | None = None
    """Of the .tflite file."""
    min_top1: float | None = None
    """Published, in percent."""


@dataclass(frozen=True)
class PickLatency:
    """The latency of one network on one target, at the percentile that was asked for."""

    target: str
    basis: str
    """"measured" by this command, "reused" from a record that was there, or "recorded" by others."""
    seconds: float
    interval_s: tuple[float, float] | None
    """95 %, from the differences between processes; None where nobody recorded them."""
    peak_memory_bytes: int | None
    source: str
    """The record's file, or where the figure was published."""
    valid: bool = True
    """False where the measurement's own verdict says so."""
    reason: str | None = None
    """The first of the verdict's reasons where it is not."""


@dataclass(frozen=True)
class PickCandidate:
    """One network of the ladder and what became of it."""

    name: str
    phi: float | None
    depth: float
    width: float
    resolution: int
    parameters: int
    macs: int
    top1: float | None
    """Published, in percent; None where nobody published it for this resolution."""
    top1_source: str | None
    predicted_size_bytes: int
    size_bytes: int | None
    """Of the file; None where none was made."""
    predicted_memory_bytes: int
    peak_memory_bytes: int | None
    predicted_s: float | None
    """From all that was measured, this network included where it was; None where nothing can be predicted from."""
    predicted_interval_s: tuple[float, float] | None
    latency_s: float | None
    """Of the slowest target; None where it was not measured."""
    interval_s: tuple[float, float] | None
    latencies: tuple[PickLatency, ...]
    """Of every target."""
    gain_per_ms: float | None
    """Points of top-1 for each further millisecond, against the next smaller network."""
    status: str
    """"fits", "does not fit" or "not separable"."""
    by: str
    """"measured", "recorded", "predicted" (latency and memory), "computed" (size) or "published" (top-1)."""
    limit: str | None
    """What it does not keep to, or what cannot be told: "latency", "memory", "size" or "top-1"."""


@dataclass(frozen=True)
class PickChange:
    """A change that would let a larger network fit, or one at all where none does."""

    kind: str
    """"budget", "resolution", "phi", "threads", "scheme" or "limit"."""
    text: str
    option: str
    """As the command line takes it."""
    predicted_s: float | None = None
    interval_s: tuple[float, float] | None = None
    """None where edgeeff cannot tell without measuring."""


@dataclass(frozen=True, kw_only=True)
class PickRecord(Record):
    """Which network of a family is the largest that keeps to the limits; `device` is the slowest target's."""

    schema: ClassVar[str] = "edgeeff/pick"
    schema_version: ClassVar[int] = 1

    family: str
    scheme: str
    threads: int
    targets: tuple[str, ...]
    """Those that begin with "recorded:" were not measured here."""
    recorded: tuple[str, ...]
    """Sources and dates of recorded figures; empty where everything was measured."""
    limits: PickLimits
    candidates: tuple[PickCandidate, ...]
    """From small to large."""
    winner: str | None
    margin: float | None
    """Part of the budget that the winner leaves."""
    runner_up: str | None
    """The next larger network, or the next smaller one where the winner is the largest of its family."""
    runner_up_margin: float | None
    """Part of the budget that it leaves; negative where it takes more."""
    certain: bool
    """Whether winner and next larger network are told apart by measurements with intervals clear of the limits."""
    doubts: tuple[str, ...]
    """Why not, where it is not."""
    decides: str | None
    """What keeps the next larger network out, or what nothing keeps to: "latency", "memory", "size" or "top-1"."""
    changes: tuple[PickChange, ...]
    """The smallest ones that would admit the next network."""
    warnings: tuple[str, ...]
    fitted: tuple[str, ...]
    """Networks that the predictions are fitted to."""
    measured: int
    """Networks that this command measured."""
    seconds: float
    command: str | None
    """What makes the winner."""
    overhead_s: float | None = None
    """What decoding and resizing the image take of every latency; None where they do not count."""


@dataclass(frozen=True, kw_only=True)
class PredictionRecord(Record):
    """What the latency model says of one file; nothing here was measured of it."""

    schema: ClassVar[str] = "edgeeff/prediction"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    target: str
    scheme: str
    """What it computes in: "float32" or "int8"."""
    threads: int
    percentile: int
    macs: int
    predicted_s: float
    interval_s: tuple[float, float]
    """95 %: holds a measurement of that file with this probability."""
    predicted_memory_bytes: int
    """Peak of the whole process."""
    fitted: tuple[str, ...]
    """What the model was fitted on; empty where only the board's facts are known."""
    basis: str
    """Where those figures are from."""
    recorded: tuple[str, ...]
    """Sources and dates of recorded figures among them."""
