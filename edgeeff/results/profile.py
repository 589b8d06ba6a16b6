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
    """The median."""
    p90_s: float
    """The 90th percentile."""
    mean_s: float
    """The mean."""
    min_s: float
    """The fastest run."""
    interval_s: tuple[float, float]
    """95 % bootstrap interval of the p50, resampled over processes."""
    runs: int
    """Timed inferences, over all processes."""
    processes: int
    """Processes that measured, one after the other."""
    p99_s: float | None = None
    """The 99th percentile; None of fewer than 1,000 runs, which cannot tell."""
    mad_s: float | None = None
    """Median absolute deviation from the median; None in records of version 1, as is all that follows."""
    outliers: int | None = None
    """Runs further from the median than 3.5 / 0.6745 times that; they count in every figure."""
    process_p50_s: tuple[float, ...] = ()
    """The p50 of every process, in their order."""
    process_p90_s: tuple[float, ...] = ()
    """The p90 of every process; empty in records of versions 1 and 2."""
    process_p99_s: tuple[float, ...] = ()
    """The p99 of every process, of few runs each: only how far they lie apart says something."""


@dataclass(frozen=True)
class Minute:
    """One minute of a sustained measurement; the last one may be shorter."""

    minute: int
    """Its number, from 1."""
    p50_s: float
    """Median latency in it."""
    runs: int
    """Inferences in it."""


@dataclass(frozen=True)
class EndToEnd:
    """From an image file to scores: the median seconds of every step, and of all together."""

    image: str
    """Path of the image."""
    runs: int
    """How often it was done, over all processes."""
    decode_s: float
    """Reading and decoding the file."""
    resize_s: float
    """Making it as large as the model takes it."""
    quantize_s: float
    """Copying the pixels in, as the type that the model takes."""
    invoke_s: float
    """Running the model and copying its scores out."""
    total_s: float
    """All steps together."""
    total_p90_s: float
    """The same at the 90th percentile."""


@dataclass(frozen=True)
class BlockLatency:
    """What one block of a network takes: the difference of two networks that end after it and before it."""

    name: str
    """Of the block, such as "block2a"."""
    operators: int
    """How many it has."""
    macs: int
    """Its multiply-accumulates."""
    p50_s: float
    """What it takes."""
    share: float
    """Of the whole network, 0 to 1."""


@dataclass(frozen=True)
class BoardSummary:
    """What the board did while it was measured, over all samples between timed runs; None where it does not tell."""

    samples: int
    """How often the board was looked at while it was measured."""
    start_temperature_c: float | None
    """Of the CPU, before the first process loaded the runtime."""
    max_temperature_c: float | None
    """The highest of the CPU at any moment."""
    min_hz: float | None
    """Lowest frequency of any CPU, as the kernel asked for it."""
    max_hz: float | None
    """Highest frequency of any CPU, as the kernel asked for it."""
    throttled: tuple[str, ...]
    """What the throttle bits said at any moment of it."""
    start_load_1m: float | None
    """Load average of the last minute, before the first process loaded the runtime."""
    min_available_bytes: int | None
    """The least memory that programs could get."""
    max_swap_used_bytes: int | None
    """The most swap that was in use."""


@dataclass(frozen=True)
class EdgeTpuUse:
    """The Edge TPU that ran a file, its library, and what only it does; None is what nobody told."""

    edge_tpu: EdgeTpu | None
    """Which one, and its link, after the first inference; None where there are several and none can be told from the
    others."""
    library: EdgeTpuLibrary
    """libedgetpu, which ran it."""
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
    """The highest at any moment."""


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(Record):
    """Latency and memory of one file on one device; the fields with defaults came with version 2."""

    schema: ClassVar[str] = "edgeeff/profile"
    schema_version: ClassVar[int] = 4

    model: ModelFile
    """The file that was measured."""
    threads: int
    """How many the runtime used."""
    mode: str
    """"quick", "full" or "sustained"; quick figures are for a first look, not for a report."""
    latency: Latency
    """Of one inference, the model loaded and warm."""
    import_s: float
    """Importing the runtime: median over the processes, as are the next two."""
    load_s: float
    """Loading the model."""
    first_inference_s: float
    """The first inference of a process, which is slower than those that follow."""
    peak_rss_bytes: int
    """The most memory that any process had, with Python and the runtime."""
    runtime_rss_bytes: int
    """Memory of the process after importing the runtime, before the model is loaded."""
    target: str = "local"
    """Where it was measured; "local" for this machine."""
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
    """Minute by minute; empty unless it was a sustained measurement."""
    time_to_throttle_s: float | None = None
    """Of a sustained measurement: seconds until the CPU, or the Edge TPU, was slowed; None when it was not, or nothing
    tells."""
    end_to_end: EndToEnd | None = None
    """From an image file to scores; None where no image was given."""
    board: BoardSummary | None = None
    """What the board did meanwhile; None in records of version 1."""
    edge_tpu: EdgeTpuUse | None = None
    """Where the delegate was the Edge TPU's; None in records up to version 3."""
    blocks: tuple[BlockLatency, ...] = ()
    """Where the time goes, by the least disturbed of three quick processes each, apart from the latency above; empty
    where that was not asked."""
    verdict: Verdict | None = None
    """Whether the figures may be reported; None in records of version 1."""
    options: dict[str, float] = field(default_factory=dict)
    """What every measuring process was asked for."""


@dataclass(frozen=True)
class FleetSummary:
    """One file at one thread count on several boards."""

    model: str
    """Path of the file."""
    threads: int
    """How many the runtime used."""
    boards: int
    """On how many boards."""
    p50_s: float
    """The median board's p50."""
    min_s: float
    """The fastest board's p50."""
    max_s: float
    """The slowest board's p50."""
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
    """Path of the newer record's file."""
    target: str
    """The newer record's."""
    threads: int
    """The newer record's."""
    before_s: float
    """Median of the older record's p50s, one for each process."""
    after_s: float
    """Median of the newer record's p50s, one for each process."""
    ratio: float
    """The newer p50 divided by the older one."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the ratio, resampled over the processes of both; None when either has only one."""
    differences: tuple[str, ...]
    """What else differs between the two, where comparing was forced."""
