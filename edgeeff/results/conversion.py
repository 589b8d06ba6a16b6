"""How a file was made: what conversions say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.audit import SetSummary
from edgeeff.results.compilation import Forecast
from edgeeff.results.record import Device, ModelFile, Record, Runtime, TensorContract


@dataclass(frozen=True)
class Fidelity:
    """How close a quantized file's scores come to the float file's on the same images."""

    images: int
    """That both files ran on."""
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
    """What was done, in words."""
    fidelity: Fidelity
    """On the images kept apart."""
    learned: Fidelity
    """On images that were learned from: where this is much better, they were learned by heart."""
    seconds: float
    """What it took."""


@dataclass(frozen=True)
class Recovery:
    """What was tried to keep the accuracy, on which images, and what was kept."""

    effort: str
    """"quick", "standard" or "thorough"."""
    seed: int
    """Decides what is drawn by chance."""
    calibration_images: int
    """Images that were learned from."""
    judging_images: int
    """Images kept apart, which chose."""
    attempts: tuple[Attempt, ...]
    """Every way that was tried, in order."""
    chosen: str
    """Name of the attempt that the file is."""
    warnings: tuple[str, ...]
    """What to know of the choice."""


@dataclass(frozen=True)
class Finetuning:
    """How a network was trained for int8, on which images, and what that gave."""

    teacher: str
    """"float", or "float and labels"."""
    seed: int
    """Decides what is drawn by chance."""
    steps: int
    """Planned ones; training ends early when images kept apart are no longer answered better."""
    steps_taken: int
    """How many there were."""
    best_step: int
    """At which the images kept apart were answered best: `after` is of the weights that it had then."""
    batch: int
    """Images in each step."""
    images: int
    """Images that were learned from."""
    judging_images: int
    """Images kept apart, which chose the step."""
    before: Attempt
    """What training began with: ranges alone, or weights that were fitted, tuned or compressed block by block."""
    after: Attempt
    """What came of training."""
    chosen: str
    """The name of one of the two."""
    divergences: tuple[tuple[int, float], ...]
    """Of the simulated network on the images kept apart, by step."""
    accuracy_before: float | None
    """Of the simulated network on the images kept apart, 0 to 1, before the first step; None without labels."""
    accuracy_after: float | None
    """The same at `best_step`."""
    simulation_correlation: float
    """Pearson correlation of the file's logits with those of the network as it was simulated, on images kept apart."""
    resumed_at: int | None
    """The step that an interrupted run was gone on from."""
    pruned_share: float | None
    """Zeros among the int8 weights of the layers that were pruned; None where none were."""
    clusters: int | None
    """The most different values that any clustered layer's int8 weights have; None where none were clustered."""
    compressed_layers: int
    """How many were pruned or clustered."""
    packages: dict[str, str]
    """Versions of the packages that trained."""
    warnings: tuple[str, ...]
    """What did not go as it should."""
    compressed_bytes: int | None = None
    """Size of the file after deflate, as gzip and zip use it, at level 9."""


@dataclass(frozen=True)
class Goal:
    """What mixed precision has to reach; None where nobody asked."""

    min_agreement: float | None = None
    """Fraction of images with the same best class as float, 0 to 1."""
    max_drop: float | None = None
    """Points of top-1, kept by agreement for want of labels: top-1 drops by no more images than change their class."""
    max_latency: float | None = None
    """As a ratio to the float file's."""
    max_latency_s: float | None = None
    """In seconds, on the target."""


@dataclass(frozen=True)
class MixedPoint:
    """One file on the way from float to int8, and what it gave."""

    name: str
    """Which blocks are how, in words."""
    levels: dict[str, str]
    """Of every block: "float"; "dynamic", int8 weights for convolutions; static int8 of the "expansion", up to the
    squeezing, of all "inner" operators but the residual sum, or of the "whole" block."""
    divergence: float
    """Mean Kullback-Leibler divergence of float's scores from this file's on the images it was ordered by, in nats."""
    agreement: float
    """Fraction of the images kept apart with the same best class as float."""
    agreement_estimate: float
    """The same, expected of many images: how far float's best class lies above the second on all images that points are
    compared on, changed as it changed on the judges."""
    agreement_low: float
    """The lower end of that estimate, which is held against the goal: images are few."""
    judges: int
    """Images whose changes went into the estimate: those kept apart, and the others unless they change less."""
    latency_s: float
    """Median of its measurements."""
    latency_ratio: float
    """To the float file's."""
    size_bytes: int
    """Of the file."""
    chosen: bool = False
    """True for the point that the file is."""

    @property
    def static(self) -> tuple[str, ...]:
        """Blocks in static int8, or in part."""
        return tuple(block for block, level in self.levels.items() if level not in {"float", "dynamic"})

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Blocks whose convolutions are dynamic range."""
        return tuple(block for block, level in self.levels.items() if level == "dynamic")


@dataclass(frozen=True)
class MixedTrial:
    """One level of one block."""

    block: str
    """Its name, such as "block2a"."""
    level: str
    """Its precision, as in a point's `levels`."""
    divergence: float
    """With only this block at this level."""
    latency_ratio: float
    """What the float network with only this block at this level would take, told from the times of many mixes."""


@dataclass(frozen=True)
class TimedOn:
    """Where latencies were measured, by what and on how many threads."""

    target: str
    """Its name; "local" for this machine."""
    device: Device
    """The machine that it is."""
    runtime: Runtime | None
    """What ran the files; None where it is not known."""
    threads: int
    """How many the runtime used."""


@dataclass(frozen=True)
class Mixed:
    """What was tried to mix precisions, and what was chosen for the goal."""

    goal: Goal
    """What was asked for."""
    met: bool
    """False where no point reaches the goal: the one that comes closest to it was chosen."""
    shortfall: str | None
    """What came closest, and what would help, where it is not met."""
    seed: int
    """Decides what is drawn by chance."""
    calibration_images: int
    """Those that ranges were learned from."""
    judging_images: int
    """Those kept apart that agreement was judged on."""
    trial_images: int
    """Those of both that each level of each block was tried on."""
    point_images: int
    """Those of both that each point was compared on, as they are and mirrored."""
    timed_on: TimedOn
    """Where latencies were measured."""
    float_latency_s: float
    """What the float file takes there."""
    points: tuple[MixedPoint, ...]
    """From the slowest to the fastest; no other is as close, as sure to agree and as fast at once."""
    trials: tuple[MixedTrial, ...]
    """Every level of every block by itself."""
    tuned: tuple[str, ...] = ()
    """Blocks whose weights were tuned for static int8, each by itself."""
    warnings: tuple[str, ...] = ()
    """What to know of the choice."""

    @property
    def chosen(self) -> MixedPoint:
        """The point that the file is."""
        return next(point for point in self.points if point.chosen)


@dataclass(frozen=True)
class CalibrationUse:
    """Which images set the activation ranges: `kind` is "synthetic", "folder" or "none"."""

    kind: str
    """"synthetic", "folder" or "none"."""
    count: int
    """How many images."""
    seed: int
    """Decides which images are drawn, or how they are made."""
    folder: str | None = None
    """Where they are from; None for images that edgeeff makes, and for none."""
    method: str = "min/max"
    """How ranges were chosen, or weights were changed, by the name of the attempt that was kept."""
    note: str = ""
    """What else to know of them; often empty."""
    images: tuple[tuple[str, str], ...] = ()
    """Relative path and sha256 of every image of a folder."""
    survey: SetSummary | None = None
    """What the images of a folder are like; None in records before version 3, and for those that edgeeff makes."""
    distilled: int = 0
    """How many of synthetic images were made from the network's batch-normalization statistics; the others are dead
    leaves. 0 in records before version 3."""


@dataclass(frozen=True)
class Check:
    """One thing that was verified of a file."""

    name: str
    """What was looked at."""
    passed: bool
    """Whether it holds; a file is written only when all do."""
    detail: str
    """What was found."""


@dataclass(frozen=True)
class Agreement:
    """How a quantized file's outputs compare with the float file's on the same probe images."""

    images: int
    """Probe images that both files ran on."""
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
    schema_version: ClassVar[int] = 4

    model: ModelFile
    """The file that was made."""
    source: str
    """A variant's name, a phi, or the path of the model that was given."""
    source_sha256: str | None
    """Of the model's file, or of a variant's weights; None for a folder, and for weights that are no file."""
    weights: str
    """"imagenet", "none" (random), a path, or "as in the model"."""
    scheme: str
    """How weights and activations are stored and computed, as `edgeeff schemes` names it."""
    classes: int
    """How many scores it gives."""
    resolution: tuple[int, int]
    """Height and width in pixels."""
    output: str
    """"softmax" or "logits"."""
    input_contract: TensorContract
    """What the file takes."""
    output_contract: TensorContract
    """What the file gives."""
    macs: int
    """Multiply-accumulates of one image; papers call them FLOPs."""
    float_size_bytes: int
    """Size of the same network as a float32 file."""
    calibration: CalibrationUse
    """Which images set the ranges."""
    agreement: Agreement
    """How its outputs compare with the float file's."""
    checks: tuple[Check, ...]
    """What was verified."""
    warnings: tuple[str, ...] = ()
    """What to know before using the file."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step."""
    recovery: Recovery | None = None
    """What was tried to keep the accuracy of int8; None in records of version 1, and where there was nothing to try."""
    mixed: Mixed | None = None
    """What precisions were mixed for a goal; None in records before version 3, and for other schemes."""
    finetuning: Finetuning | None = None
    """How the network was trained for int8; None in records before version 3, and where nobody asked for it."""
    edge_tpu: Forecast | None = None
    """What the Edge TPU compiler would make of the file; None in records before version 4, and where nobody asked."""
