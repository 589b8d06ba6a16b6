"""Which network a board can afford: what picks and predictions say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeeff.results.record import ModelFile, Record


@dataclass(frozen=True)
class PickLimits:
    """What a network has to keep to; None where nobody asked."""

    budget_s: float
    """The most that an image may take, in seconds."""
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
    """Its name."""
    basis: str
    """"measured" by this command, "reused" from a record that was there, or "recorded" by others."""
    seconds: float
    """The latency."""
    interval_s: tuple[float, float] | None
    """95 %, from the differences between processes; None where nobody recorded them."""
    peak_memory_bytes: int | None
    """Peak of the whole process; None where nobody recorded it."""
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
    """Such as b2, lite0 or phi0.5."""
    phi: float | None
    """Its compound coefficient; None where it has none."""
    depth: float
    """Multiplier of the base network's depth."""
    width: float
    """Multiplier of the base network's width."""
    resolution: int
    """Height and width of its input, in pixels."""
    parameters: int
    """Trainable ones: weights, biases, and scale and offset of every batch normalization."""
    macs: int
    """Multiply-accumulates of one image; papers call them FLOPs."""
    top1: float | None
    """Published, in percent; None where nobody published it for this resolution."""
    top1_source: str | None
    """Where it is published; None where it is not."""
    predicted_size_bytes: int
    """Of the file, computed from the network."""
    size_bytes: int | None
    """Of the file; None where none was made."""
    predicted_memory_bytes: int
    """Peak of the whole process, computed from the network."""
    peak_memory_bytes: int | None
    """Peak of the whole process; None where it was not measured."""
    predicted_s: float | None
    """From all that was measured, this network included where it was; None where nothing can be predicted from."""
    predicted_interval_s: tuple[float, float] | None
    """95 % interval of the prediction."""
    latency_s: float | None
    """Of the slowest target; None where it was not measured."""
    interval_s: tuple[float, float] | None
    """95 % interval of the measurement; None where there is none."""
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
    """What it brings, in words."""
    option: str
    """As the command line takes it."""
    predicted_s: float | None = None
    """Latency with this change; None where edgeeff cannot tell."""
    interval_s: tuple[float, float] | None = None
    """95 % interval of that latency; None where edgeeff cannot tell without measuring."""


@dataclass(frozen=True, kw_only=True)
class PickRecord(Record):
    """Which network of a family is the largest that keeps to the limits; `device` is the slowest target's."""

    schema: ClassVar[str] = "edgeeff/pick"
    schema_version: ClassVar[int] = 1

    family: str
    """"b", "v2", "lite", "edgetpu" or "phi"."""
    scheme: str
    """How the networks are quantized."""
    threads: int
    """How many the runtime used."""
    targets: tuple[str, ...]
    """Where it is to run; those that begin with "recorded:" were not measured here."""
    recorded: tuple[str, ...]
    """Sources and dates of recorded figures; empty where everything was measured."""
    limits: PickLimits
    """What was asked for."""
    candidates: tuple[PickCandidate, ...]
    """The networks, from small to large."""
    winner: str | None
    """Name of the largest network that fits; None when nothing does."""
    margin: float | None
    """Part of the budget that the winner leaves, or of the limit that decides; None without a winner."""
    runner_up: str | None
    """The next larger network, or the next smaller one where the winner is the largest of its family."""
    runner_up_margin: float | None
    """Part of the budget that it leaves; negative where it takes more."""
    certain: bool
    """Whether winner and next larger network are told apart by measurements with intervals clear of the limits."""
    doubts: tuple[str, ...]
    """Why the answer is not certain, where it is not."""
    decides: str | None
    """What keeps the next larger network out, or what nothing keeps to: "latency", "memory", "size" or "top-1"."""
    changes: tuple[PickChange, ...]
    """The smallest changes that would admit the next network."""
    warnings: tuple[str, ...]
    """What to know of the answer."""
    fitted: tuple[str, ...]
    """Networks that the predictions are fitted to."""
    measured: int
    """Networks that this command measured."""
    seconds: float
    """Wall time of all of it."""
    command: str | None
    """The command that makes the winner; None where there is none."""
    overhead_s: float | None = None
    """What decoding and resizing the image take of every latency; None where they do not count."""


@dataclass(frozen=True, kw_only=True)
class PredictionRecord(Record):
    """What the latency model says of one file; nothing here was measured of it."""

    schema: ClassVar[str] = "edgeeff/prediction"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    """The file."""
    target: str
    """Where it would run."""
    scheme: str
    """What it computes in: "float32" or "int8"."""
    threads: int
    """How many the runtime would use."""
    percentile: int
    """Of the latency: 50, 90 or 99."""
    macs: int
    """Multiply-accumulates of one inference."""
    predicted_s: float
    """Latency at that percentile."""
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
