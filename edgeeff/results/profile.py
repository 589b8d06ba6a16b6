"""How long a file takes and what it needs: what profiles say, of one board and of many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.probe import EdgeTpu, EdgeTpuLibrary, Verdict
from edgeeff.results.record import ModelFile, Record


@dataclass(frozen=True)
class Latency:
    """Latency of one inference over all measuring processes, in seconds."""

    p50_s: float
    p90_s: float
    mean_s: float
    min_s: float
    interval_s: tuple[float, float]
    """95 % bootstrap interval of the p50, resampled over processes."""
    runs: int
    processes: int
    p99_s: float | None = None
    """From 1,000 runs on; fewer cannot tell."""
    mad_s: float | None = None
    """Median absolute deviation from the median; None in records of version 1, as is all that follows."""
    outliers: int | None = None
    """Runs further from the median than 3.5 / 0.6745 times that; they count in every figure."""
    process_p50_s: tuple[float, ...] = ()
    """The p50 of every process, in their order."""
    process_p90_s: tuple[float, ...] = ()
    process_p99_s: tuple[float, ...] = ()
    """Of few runs each, so only how far they lie apart says something; empty in records of versions 1 and 2."""


@dataclass(frozen=True)
class Minute:
    """One minute of a sustained measurement; the last one may be shorter."""

    minute: int
    p50_s: float
    runs: int


@dataclass(frozen=True)
class EndToEnd:
    """From an image file to scores: the median seconds of every step, and of all together."""

    image: str
    runs: int
    decode_s: float
    resize_s: float
    quantize_s: float
    """Copying the pixels in, as the type that the model takes."""
    invoke_s: float
    """Running the model and copying its scores out."""
    total_s: float
    total_p90_s: float


@dataclass(frozen=True)
class BlockLatency:
    """What one block of a network takes: the difference of two networks that end after it and before it."""

    name: str
    operators: int
    macs: int
    p50_s: float
    share: float
    """Of the whole network, 0 to 1."""


@dataclass(frozen=True)
class BoardSummary:
    """What the board did while it was measured, over all samples between timed runs; None where it does not tell."""

    samples: int
    start_temperature_c: float | None
    max_temperature_c: float | None
    min_hz: float | None
    """Lowest frequency of any CPU, as the kernel asked for it."""
    max_hz: float | None
    throttled: tuple[str, ...]
    """What the throttle bits said at any moment of it."""
    start_load_1m: float | None
    min_available_bytes: int | None
    max_swap_used_bytes: int | None


@dataclass(frozen=True)
class EdgeTpuUse:
    """The Edge TPU that ran a file, its library, and what only it does; None is what nobody told."""

    edge_tpu: EdgeTpu | None
    """Which one, and its link, after the first inference; None where there are several and none can be told from the
    others."""
    library: EdgeTpuLibrary
    parameter_upload_s: float
    """What the first inference took longer than the p50 of its process, the middle process's: the cached parameters are
    sent then, and whatever else happens once."""
    cached_parameter_bytes: int | None = None
    """Sent with the first inference, and kept there; like all that follows from the file itself."""
    streamed_parameter_bytes: int | None = None
    """Sent with every inference."""
    cpu_operators: int | None = None
    """Operators that are left to the CPU."""
    minimum_runtime: int | None = None
    """The oldest runtime version that the file runs on."""
    start_temperature_c: float | None = None
    """Before the first process, when it may have been asleep; measured, as is the next one."""
    max_temperature_c: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(Record):
    """Latency and memory of one file on one device; the fields with defaults came with version 2."""

    schema: ClassVar[str] = "edgeeff/profile"
    schema_version: ClassVar[int] = 4

    model: ModelFile
    threads: int
    mode: str
    """"quick", "full" or "sustained"; quick figures are for a first look, not for a report."""
    latency: Latency
    import_s: float
    load_s: float
    first_inference_s: float
    peak_rss_bytes: int
    runtime_rss_bytes: int
    """Memory of the process after importing the runtime, before the model is loaded."""
    target: str = "local"
    page_cache: str = "unknown"
    """Where the file was when it was loaded: "warm" (in memory), "cold" (on disk), "mixed" or "unknown"."""
    pss_bytes: int | None = None
    """The process's share of memory, the largest that was seen; not read within timed runs, so no peak."""
    model_bytes: int | None = None
    """Anonymous memory that loading and the first inference took: the arena, repacked weights, and what else the
    runtime allocates. No runtime tells its arena alone."""
    throughput_per_s: float | None = None
    """Inferences per second of the timed stretches, one after the other."""
    delegated_parts: int | None = None
    """Parts of the network that the delegate took; None where the runtime does not tell."""
    minutes: tuple[Minute, ...] = ()
    time_to_throttle_s: float | None = None
    """Of a sustained measurement: seconds until the CPU, or the Edge TPU, was slowed; None when it was not, or nothing
    tells."""
    end_to_end: EndToEnd | None = None
    board: BoardSummary | None = None
    edge_tpu: EdgeTpuUse | None = None
    """Where the delegate was the Edge TPU's; None in records up to version 3."""
    blocks: tuple[BlockLatency, ...] = ()
    """Where the time goes, by the least disturbed of three quick processes each, apart from the latency above; empty
    where that was not asked."""
    verdict: Verdict | None = None
    options: dict[str, float] = field(default_factory=dict)
    """What every measuring process was asked for."""


@dataclass(frozen=True)
class FleetSummary:
    """One file at one thread count on several boards."""

    model: str
    threads: int
    boards: int
    p50_s: float
    """The median board's."""
    min_s: float
    """The fastest board's p50."""
    max_s: float
    between_s: float
    """Standard deviation between boards, with what the processes of one board differ among each other taken off."""
    within_s: float
    """Standard deviation between the processes of one board."""
    outliers: tuple[str, ...]
    """Boards whose p50 is further from the median than 3.5 / 0.6745 median absolute deviations; told from 4 on."""


@dataclass(frozen=True)
class Comparison:
    """What changed from an older record to a newer one; the ratio is the newer p50 divided by the older one."""

    model: str
    target: str
    threads: int
    before_s: float
    after_s: float
    ratio: float
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the ratio, resampled over the processes of both; None when either has only one."""
    differences: tuple[str, ...]
    """What else differs between the two, where comparing was forced."""
