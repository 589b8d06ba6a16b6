"""What edgeeff measures and makes, as frozen dataclasses that are written and read as JSON records.

Times are seconds and sizes are bytes; field names end in `_s` and `_bytes` to say so. A record names its schema and
that schema's version; a reader takes every version up to its own and refuses newer ones.

History of the schema versions:
  conversion  1  first
  conversion  2  what was tried to keep the accuracy of int8
  profile     1  first
  profile     2  verdict, target, what the board did, p99, dispersion, outliers, figures of each process, PSS,
                 throughput, minutes, end-to-end; the delegate is the one that was used
  profile     3  p90 and p99 of every process
  demo        1  first
  probe       1  first
  evaluation  1  first
  pick        1  first
  prediction  1  first
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import edgeeff
from edgeeff.errors import RecordError
from edgeeff.files import sha256


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class ModelFile:
    """A file on disk and what makes it that file and no other."""

    path: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Read size and sha256 of the file at `path`; raises OSError."""
        return cls(str(path), sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Runtime:
    """What ran a model: the package's name, its version, and the delegate that was asked for."""

    name: str
    version: str
    delegate: str = "xnnpack"


@dataclass(frozen=True)
class Device:
    """The machine that a record is about; `emulated` is true when a program stood in for it."""

    name: str
    machine: str
    system: str
    cpu: str
    cores: int
    emulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """The head that every record carries."""

    schema: ClassVar[str]
    schema_version: ClassVar[int]

    edgeeff_version: str = edgeeff.__version__
    created: str = field(default_factory=_now)
    runtime: Runtime | None
    device: Device
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorContract:
    """What a model takes or gives: shape, dtype, and real = (stored - zero_point) * scale where it is quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


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


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(Record):
    """Latency and memory of one file on one device; the fields with defaults came with version 2."""

    schema: ClassVar[str] = "edgeeff/profile"
    schema_version: ClassVar[int] = 3

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
    """Of a sustained measurement: seconds until the CPU was slowed; None when it was not, or nothing tells."""
    end_to_end: EndToEnd | None = None
    board: BoardSummary | None = None
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


@dataclass(frozen=True)
class OperatingSystem:
    """What runs on a board; `machine` is the kernel's, and a 32-bit Python may run on a 64-bit kernel."""

    name: str | None
    id: str | None
    version: str | None
    kernel: str
    machine: str


@dataclass(frozen=True)
class BoardPython:
    """The Python that answered, and what of it decides which packages fit."""

    version: str
    executable: str
    bits: int
    multiarch: str | None
    libc: str | None
    venv: bool
    """Whether it can make virtual environments with pip in them."""
    pip: str | None
    numpy: str | None


@dataclass(frozen=True)
class Processor:
    """The CPUs: names of their kinds, their number, and the features that kernels are chosen by."""

    name: str | None
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Memory and swap of a board."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None


@dataclass(frozen=True)
class CpuFrequency:
    """Governor and frequencies of one CPU: now, the highest that is allowed, the highest that it can keep up."""

    cpu: int
    governor: str | None
    driver: str | None
    current_hz: int | None
    limit_hz: int | None
    hardware_hz: int | None


@dataclass(frozen=True)
class Zone:
    """A thermal zone."""

    name: str
    temperature_c: float


@dataclass(frozen=True)
class Throttling:
    """A Raspberry Pi's throttle bits, and what they say of now and of the time since the boot."""

    bits: int
    source: str
    """"vcgencmd"; "sysfs", whose history begins with the last reading; "hwmon", which knows under-voltage only."""
    now: tuple[str, ...]
    since_boot: tuple[str, ...]


@dataclass(frozen=True)
class Rail:
    """A supply rail that the board measures itself."""

    name: str
    volts: float | None
    amperes: float | None


@dataclass(frozen=True)
class Disk:
    """What is free where a folder lies, and whether the user may write there."""

    path: str
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True)
class FoundRuntime:
    """A runtime that is installed, and whether it ran a model of one operator."""

    name: str
    version: str | None
    works: bool
    problem: str | None


@dataclass(frozen=True)
class EdgeTpu:
    """An Edge TPU on USB or PCIe."""

    bus: str
    id: str
    """Vendor and product; on USB another one before the first inference than after it."""
    initialized: bool | None = None
    megabits_per_s: float | None = None
    """On USB: 480 for USB 2, 5000 for USB 3."""
    device: str | None = None
    """On PCIe: its device file; None where its driver is missing."""
    temperature_c: float | None = None


@dataclass(frozen=True)
class EdgeTpuLibrary:
    """libedgetpu on a board: its package and version where dpkg installed it, and what it says of itself."""

    path: str
    package: str | None
    version: str | None
    says: str | None


@dataclass(frozen=True, kw_only=True)
class ProbeRecord(Record):
    """What a board is and what state it is in; what could not be read is None or empty.

    `runtime` is the one that measuring would use, None when none works.
    """

    schema: ClassVar[str] = "edgeeff/probe"
    schema_version: ClassVar[int] = 1

    board: str | None
    """The device tree's model."""
    hostname: str
    system: OperatingSystem
    python: BoardPython
    cpu: Processor
    memory: Memory
    frequencies: tuple[CpuFrequency, ...]
    clock_hz: int | None
    """The Arm cores' frequency as a Raspberry Pi's firmware measured it."""
    zones: tuple[Zone, ...]
    throttling: Throttling | None
    rails: tuple[Rail, ...]
    rails_w: float | None
    """Sum over the rails that tell volts and amperes: less than the board takes, since not all of them do."""
    load_1m: float | None
    disks: tuple[Disk, ...]
    runtimes: tuple[FoundRuntime, ...]
    edge_tpus: tuple[EdgeTpu, ...]
    edge_tpu_library: EdgeTpuLibrary | None
    hints: tuple[str, ...]
    """Signs of a virtual machine or a container; whether a board is emulated is what its target declares."""


@dataclass(frozen=True)
class BoardState:
    """What a board was doing at one moment of a measuring process, between timed runs.

    The times from `cpu_s` to `quota_wait_s` and `swapped_in_bytes` are sums that only their differences give a meaning.
    """

    at_s: float
    """Since the process began."""
    phase: str
    """"start", "warm-up" or "measure"."""
    cpus: tuple[CpuFrequency, ...]
    clock_hz: int | None
    temperature_c: float | None
    throttled: int | None
    load_1m: float | None
    cpu_s: float
    """CPU time of the measuring process."""
    busy_s: float | None
    """CPU time of everything on the board."""
    stolen_s: float | None
    """CPU time that a virtual machine's host gave to others."""
    quota_wait_s: float | None
    """Time that a CPU quota held the process's group back."""
    available_bytes: int | None
    swap_used_bytes: int | None
    swapped_in_bytes: int | None


@dataclass(frozen=True)
class Reason:
    """One thing to know of a measurement: its cause, whether it makes it invalid, and its figures."""

    cause: str
    invalidates: bool
    text: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """Whether figures may go into a report."""

    valid: bool
    reasons: tuple[Reason, ...]
    """First those that make it invalid, then warnings."""


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


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what a model takes: cropped, resized, then (pixel - mean) / std for each channel."""

    height: int
    width: int
    crop: str
    """"center" or "none"; an image that has the network's size already is never cropped."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    """Where that is known from: "metadata", "layers", "options", or "bytes" for a file that takes bytes and says no
    more."""


@dataclass(frozen=True)
class DataUse:
    """Which images both models saw."""

    kind: str
    """"folders", "csv", "tfrecord" or "unlabelled"."""
    path: str
    images: int
    """That were judged."""
    classes: int
    """With at least one image; 0 where there are no labels."""
    sha256: str
    """Over the sha256 of every image's bytes and its label, in order."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Name and reason of every image that was left out."""
    matched_by: str = "unlabelled"
    """How the set's classes became the models': "names", "synsets", "indices" or "sorted order"."""
    notes: tuple[str, ...] = ()
    """What was taken for granted of them."""


@dataclass(frozen=True)
class Difference:
    """The quantized model's figure minus the baseline's, and how sure it is."""

    value: float
    interval: tuple[float, float]
    """95 %."""
    p_value: float | None = None
    """Two-sided; None where none is defined."""
    p_adjusted: float | None = None
    """After Holm's correction over all classes that were tested."""


@dataclass(frozen=True)
class Outputs:
    """What a model's scores are like, with or without labels; fractions of the images, 0 to 1."""

    mean_confidence: float
    """Mean of the largest probability."""
    top1_ties: float
    """Images whose best score several classes share; the lowest index is taken then."""
    top5_ties: float | None
    """Images whose fifth and sixth scores are the same; None with fewer than six classes."""
    predicted_classes: int
    """Classes that are the best one of at least one image."""
    commonest_share: float
    """Images whose best class is the one that is best most often."""
    not_finite: int
    """Images with a score that is no number; they count as wrong."""


@dataclass(frozen=True)
class Metrics:
    """How right a model is; every figure is a fraction, 0 to 1, and means are over classes with at least one image."""

    top1: float
    top1_interval: tuple[float, float]
    """95 %, Wilson's."""
    top5: float | None
    """None with fewer than six classes."""
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    calibration_error: float
    """Expected calibration error over 15 bins of equal width."""


@dataclass(frozen=True)
class ClassMetrics:
    """One model on one class; fractions, 0 to 1."""

    precision: float | None
    """None where it never said this class."""
    recall: float | None
    """None where the class has no image."""
    f1: float
    predicted: int
    """Images of which it said this class."""


@dataclass(frozen=True)
class ClassResult:
    """One class in both models."""

    index: int
    name: str
    support: int
    """Images of this class."""
    baseline: ClassMetrics
    model: ClassMetrics
    lost: int
    """Images of this class that only the baseline has right."""
    gained: int
    """Images of this class that only the model has right."""
    recall: Difference | None
    precision: Difference | None
    """None where either model's is."""


@dataclass(frozen=True)
class Flip:
    """Images of which the baseline says one class and the model another."""

    baseline: int
    model: int
    images: int


@dataclass(frozen=True)
class Divergence:
    """How far the model's probabilities are from the baseline's, over all images where both have numbers; -1 where none
    has any."""

    kl_mean: float
    """Kullback-Leibler divergence of the model's from the baseline's, in nats."""
    kl_median: float
    kl_p95: float
    total_variation_mean: float
    """Half the sum of absolute differences, 0 to 1."""


@dataclass(frozen=True)
class Paired:
    """Both models on the same images; differences are the model's figure minus the baseline's."""

    images: int
    agreement: float
    """Fraction of images with the same best class."""
    agreement_interval: tuple[float, float]
    """95 %, Wilson's."""
    divergence: Divergence
    confidence: Difference
    """Of the mean largest probability."""
    flips: tuple[Flip, ...]
    """Most frequent first."""
    both_right: int | None = None
    """None without labels, as is all that follows."""
    baseline_only_right: int | None = None
    model_only_right: int | None = None
    both_wrong: int | None = None
    top1: Difference | None = None
    """With Newcombe's interval for paired proportions, and McNemar's exact test."""
    top5: Difference | None = None
    balanced_accuracy: Difference | None = None
    macro_precision: Difference | None = None
    macro_f1: Difference | None = None
    """These three with a bootstrap interval over images."""
    smallest_difference: float | None = None
    """Of top-1, that a set of so many images shows with a probability of 80 % at the 5 % level."""


@dataclass(frozen=True)
class GateResult:
    """A condition that was asked for, and what came of it."""

    gate: str
    """As on the command line, without dashes: "max-drop", "min-class-recall cat"."""
    limit: float
    """Fraction, 0 to 1."""
    value: float
    """The point estimate."""
    bound: float
    """What was compared with the limit: the end of the interval that speaks against the model."""
    passed: bool
    text: str
    images_needed: int | None = None
    """How many images like these it would take for this gate to be decided by the point estimate; None where more
    do not help or are not needed."""


@dataclass(frozen=True)
class Leak:
    """An image that was judged, and another one that is the same or nearly so."""

    kind: str
    """"exact" for the same bytes, "near" for the same picture saved, resized or mirrored anew."""
    source: str
    """Where the other one is: "calibration", "train", or "evaluation" for the set itself."""
    image: str
    """Of the evaluation set, by its name there."""
    other: str
    """By its name in the source."""


@dataclass(frozen=True)
class Finding:
    """A pitfall that this evaluation shows: the evidence, and what to do about it."""

    cause: str
    serious: bool
    text: str
    advice: str
    figures: dict[str, float]


@dataclass(frozen=True)
class ImageOutcomes:
    """What both models said of every image, as columns in the order of the set; -1 is for what is not known."""

    keys: tuple[str, ...]
    sha256: tuple[str, ...]
    """The first 16 digits, of the file's bytes."""
    labels: tuple[int, ...]
    baseline: tuple[int, ...]
    """Best class."""
    model: tuple[int, ...]
    baseline_rank: tuple[int, ...]
    """How many classes come before the right one."""
    model_rank: tuple[int, ...]
    baseline_confidence: tuple[float, ...]
    model_confidence: tuple[float, ...]
    kl: tuple[float, ...]


@dataclass(frozen=True)
class Kernels:
    """One file on the host and on the board, on the same images."""

    images: int
    agreement: float
    """Fraction with the same best class."""
    same_scores: float
    """Fraction with exactly the same scores."""
    max_difference: float
    """Largest difference of any probability."""
    host: Runtime
    board: Runtime


@dataclass(frozen=True)
class EvaluationTiming:
    """Where the time went; everything here differs from run to run."""

    seconds: float
    """Wall time of judging images, in this run."""
    images: int
    """That were judged in this run; one that goes on with another has the rest from there."""
    images_per_s: float
    """Once all workers had loaded the models."""
    workers: int
    threads: int
    """Of every interpreter."""
    decode_s: float
    """Reading, decoding and resizing, summed over workers, as are the next two."""
    baseline_s: float
    model_s: float


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """A model against its baseline on the same images; device and runtime are those that ran the model."""

    schema: ClassVar[str] = "edgeeff/evaluation"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    baseline: ModelFile
    target: str
    data: DataUse
    classes: int
    """Scores that both models give."""
    names: tuple[str, ...]
    """Of the classes, by index; empty where nobody said."""
    preprocessing: Preprocessing
    baseline_preprocessing: Preprocessing
    model_macs: int | None
    """Multiply-accumulates of one image; papers call them FLOPs."""
    baseline_macs: int | None
    model_outputs: Outputs
    baseline_outputs: Outputs
    model_metrics: Metrics | None
    """None without labels, as is the next."""
    baseline_metrics: Metrics | None
    paired: Paired
    by_class: tuple[ClassResult, ...]
    """Those with an image or a prediction of either model."""
    confusion: tuple[tuple[int, int, int], ...]
    """Right class, model's class, images: the cells that are not empty."""
    baseline_confusion: tuple[tuple[int, int, int], ...]
    kernels: Kernels | None
    findings: tuple[Finding, ...]
    gates: tuple[GateResult, ...]
    passed: bool
    """Whether all gates passed; true where none was asked for."""
    images: ImageOutcomes
    timing: EvaluationTiming


@dataclass(frozen=True)
class EvaluationComparison:
    """Two evaluations: the second model's figures minus the first's."""

    first: str
    second: str
    shared_images: int
    """Images that both saw, by the digest of their bytes; differences are paired over these."""
    paired: bool
    """False where they share none: then the differences are of independent sets, and the intervals are wider."""
    top1: Difference | None
    """None without labels."""
    agreement: float | None
    """Fraction of the shared images with the same best class; None when they share none."""
    first_only_right: int | None
    second_only_right: int | None
    by_class: tuple[tuple[str, Difference], ...]
    """Difference in recall of every class that both have."""
    warnings: tuple[str, ...]
    """What else differs between the two."""


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


RECORDS: dict[str, type[Record]] = {
    cls.schema: cls
    for cls in (
        ConversionRecord,
        ProfileRecord,
        DemoRecord,
        ProbeRecord,
        EvaluationRecord,
        PickRecord,
        PredictionRecord,
    )
}

AnyRecord = TypeVar("AnyRecord", bound=Record)


def to_dict(value: Any) -> Any:
    """Turn dataclasses, also those inside, into plain JSON types; every record has its schema and version first."""
    import msgspec

    return _with_schema(value, msgspec.to_builtins(value))


def to_json(value: Any) -> str:
    """Write a dataclass as one JSON document, indented by two, ending in a newline.

    What is no Unicode in a file name becomes a question mark. Raises ValueError for a number that is not finite.
    """
    text = json.dumps(to_dict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")


def read_record(path: Path) -> Record:
    """Read a record of any kind.

    Raises RecordError when the file is missing, no JSON, no record of edgeeff, of a newer schema version, or when a
    field is missing or of the wrong type (the message names the field).
    """
    import msgspec

    if path.is_fifo():  # it would be waited for
        raise RecordError(f"cannot read the record {path}: it is a pipe, not a file")
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read the record {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no JSON document ({error}); give a record written by edgeeff") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in RECORDS:
        raise RecordError(f"{path} is no record of edgeeff: its schema is {schema!r}, known are {', '.join(RECORDS)}")
    _check_versions(document, path)
    try:
        return msgspec.convert(document, RECORDS[schema])
    except msgspec.ValidationError as error:
        raise RecordError(f"{path} is no valid {schema} record: {error}") from error


@cache
def this_device() -> Device:
    """Describe the machine that this process runs on."""
    name = _first_line(Path("/proc/device-tree/model")).rstrip("\0") or platform.node() or "local"
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.lower().startswith(("model name", "hardware"))
        ),
        platform.processor() or "unknown",
    )
    system = f"{platform.system()} {platform.release()}"
    return Device(name, platform.machine(), system, cpu, len(os.sched_getaffinity(0)))


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _with_schema(value: Any, plain: Any) -> Any:
    """Put the heads of records into `plain`, which is `value` in JSON types."""
    if isinstance(value, Record):
        head: dict[str, Any] = {"schema": value.schema, "schema_version": value.schema_version}
        return head | {key: _with_schema(getattr(value, key), item) for key, item in plain.items()}
    if is_dataclass(value):
        return {key: _with_schema(getattr(value, key), item) for key, item in plain.items()}
    if isinstance(value, dict):
        pairs = zip(plain.items(), value.values(), strict=True)
        return {key: _with_schema(inner, item) for (key, item), inner in pairs}
    if isinstance(value, (list, tuple)):
        return [_with_schema(inner, item) for inner, item in zip(value, plain, strict=True)]
    return plain


def _check_versions(document: Any, path: Path) -> None:
    """Raise RecordError when the record, or one inside it, has no version or one that is newer than this edgeeff."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        if not isinstance(item, dict):
            continue
        waiting += item.values()
        cls = RECORDS.get(str(item.get("schema")))
        if cls is None:
            continue
        version = item.get("schema_version")
        if type(version) is not int or version < 1:
            raise RecordError(f"{path} has no valid schema_version for {cls.schema} ({version!r})")
        if version > cls.schema_version:
            raise RecordError(
                f"{path} is {cls.schema} version {version}; this edgeeff reads up to {cls.schema_version}: "
                "install a newer one"
            )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "")
