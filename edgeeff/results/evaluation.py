"""How right a file is: what evaluations say, of one file and of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeeff.results.record import ModelFile, Record, Runtime


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
    """Of the set that is judged, by its name there."""
    other: str
    """By its name in the source."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be: the evidence, and what to do about it."""

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
