"""How right a file is: what evaluations say, of one file and of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeeff.results.record import ModelFile, Record, Runtime


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what a model takes: cropped, resized, then (pixel - mean) / std for each channel."""

    height: int
    """Of what the model takes, in pixels."""
    width: int
    """Of what the model takes, in pixels."""
    crop: str
    """"center" or "none"; an image that has the network's size already is never cropped."""
    mean: tuple[float, float, float]
    """What is taken off red, green and blue, in pixel values."""
    std: tuple[float, float, float]
    """What red, green and blue are divided by then, in pixel values."""
    source: str
    """Where that is known from: "metadata", "layers", "options", or "bytes" for a file that takes bytes and says no
    more."""


@dataclass(frozen=True)
class DataUse:
    """Which images both models saw."""

    kind: str
    """"folders", "csv", "tfrecord" or "unlabelled"."""
    path: str
    """As it was given."""
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
    """In the unit of the figure; fractions are 0 to 1."""
    interval: tuple[float, float]
    """95 % interval of the value."""
    p_value: float | None = None
    """Two-sided p-value; None where none is defined."""
    p_adjusted: float | None = None
    """The same after Holm's correction over all classes that were tested; None elsewhere."""


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
    """Images whose best class is the right one."""
    top1_interval: tuple[float, float]
    """95 % interval of top-1, Wilson's."""
    top5: float | None
    """Images with the right class among the best five; None with fewer than six classes."""
    balanced_accuracy: float
    """Mean recall of the classes."""
    macro_precision: float
    """Mean precision of the classes."""
    macro_recall: float
    """Mean recall of the classes."""
    macro_f1: float
    """Mean F1 of the classes."""
    weighted_precision: float
    """Mean precision of the classes, weighted by their images."""
    weighted_recall: float
    """Mean recall of the classes, weighted by their images."""
    weighted_f1: float
    """Mean F1 of the classes, weighted by their images."""
    calibration_error: float
    """Expected calibration error over 15 bins of equal width."""


@dataclass(frozen=True)
class ClassMetrics:
    """One model on one class; fractions, 0 to 1."""

    precision: float | None
    """Of the images that it said this class of, those that are of it; None where it never said this class."""
    recall: float | None
    """Of the images of this class, those that it has right; None where the class has no image."""
    f1: float
    """Harmonic mean of both; 0 where it got none right."""
    predicted: int
    """Images of which it said this class."""


@dataclass(frozen=True)
class ClassResult:
    """One class in both models."""

    index: int
    """Its place among the scores."""
    name: str
    """Its name, or its index as text."""
    support: int
    """Images of this class."""
    baseline: ClassMetrics
    """The baseline on it."""
    model: ClassMetrics
    """The model on it."""
    lost: int
    """Images of this class that only the baseline has right."""
    gained: int
    """Images of this class that only the model has right."""
    recall: Difference | None
    """Difference of recall; None where the class has no image."""
    precision: Difference | None
    """Difference of precision; None where either model has none."""


@dataclass(frozen=True)
class Flip:
    """Images of which the baseline says one class and the model another."""

    baseline: int
    """Index of the class that the baseline says."""
    model: int
    """Index of the class that the model says."""
    images: int
    """How many images."""


@dataclass(frozen=True)
class Divergence:
    """How far the model's probabilities are from the baseline's, over all images where both have numbers; -1 where none
    has any."""

    kl_mean: float
    """Kullback-Leibler divergence of the model's from the baseline's, in nats."""
    kl_median: float
    """Its median over the images, in nats."""
    kl_p95: float
    """Its 95th percentile over the images, in nats."""
    total_variation_mean: float
    """Half the sum of absolute differences, 0 to 1."""


@dataclass(frozen=True)
class Paired:
    """Both models on the same images; differences are the model's figure minus the baseline's."""

    images: int
    """That both judged."""
    agreement: float
    """Fraction of images with the same best class."""
    agreement_interval: tuple[float, float]
    """95 % interval of that, Wilson's."""
    divergence: Divergence
    """How far their probabilities are from each other."""
    confidence: Difference
    """Difference of the mean largest probability."""
    flips: tuple[Flip, ...]
    """Changes of the best class, most frequent first."""
    both_right: int | None = None
    """Images that both have right; None without labels, as is all that follows."""
    baseline_only_right: int | None = None
    """Images that only the baseline has right."""
    model_only_right: int | None = None
    """Images that only the model has right."""
    both_wrong: int | None = None
    """Images that neither has right."""
    top1: Difference | None = None
    """Difference of top-1, with Newcombe's interval for paired proportions, and McNemar's exact test."""
    top5: Difference | None = None
    """Difference of top-5, with the same; None with fewer than six classes."""
    balanced_accuracy: Difference | None = None
    """Difference of the balanced accuracy, with a bootstrap interval over images."""
    macro_precision: Difference | None = None
    """Difference of the macro precision, with a bootstrap interval over images."""
    macro_f1: Difference | None = None
    """Difference of the macro F1, with a bootstrap interval over images."""
    smallest_difference: float | None = None
    """The difference of top-1 that a set of so many images shows with a probability of 80 % at the 5 % level."""


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
    """Whether it holds."""
    text: str
    """All of this in a sentence."""
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
    """Its name, such as "labels-off"."""
    serious: bool
    """Whether figures are not to be believed before it is mended."""
    text: str
    """The evidence in words."""
    advice: str
    """What to do about it."""
    figures: dict[str, float]
    """The evidence in numbers, by name; fractions are 0 to 1."""


@dataclass(frozen=True)
class ImageOutcomes:
    """What both models said of every image, as columns in the order of the set; -1 is for what is not known."""

    keys: tuple[str, ...]
    """Names of the images in their set."""
    sha256: tuple[str, ...]
    """The first 16 digits, of the file's bytes."""
    labels: tuple[int, ...]
    """Index of the right class."""
    baseline: tuple[int, ...]
    """Index of the baseline's best class."""
    model: tuple[int, ...]
    """Index of the model's best class."""
    baseline_rank: tuple[int, ...]
    """How many classes come before the right one in the baseline's scores."""
    model_rank: tuple[int, ...]
    """How many classes come before the right one in the model's scores."""
    baseline_confidence: tuple[float, ...]
    """The baseline's largest probability, 0 to 1."""
    model_confidence: tuple[float, ...]
    """The model's largest probability, 0 to 1."""
    kl: tuple[float, ...]
    """Kullback-Leibler divergence of the model's probabilities from the baseline's, in nats."""


@dataclass(frozen=True)
class Kernels:
    """One file on the host and on the board, on the same images."""

    images: int
    """That both ran on."""
    agreement: float
    """Fraction with the same best class."""
    same_scores: float
    """Fraction with exactly the same scores."""
    max_difference: float
    """Largest difference of any probability."""
    host: Runtime
    """What ran it here."""
    board: Runtime
    """What ran it on the board."""


@dataclass(frozen=True)
class EvaluationTiming:
    """Where the time went; everything here differs from run to run."""

    seconds: float
    """Wall time of judging images, in this run."""
    images: int
    """That were judged in this run; one that goes on with another has the rest from there."""
    images_per_s: float
    """How fast it was once all workers had loaded the models."""
    workers: int
    """Processes that judged images."""
    threads: int
    """Of every interpreter."""
    decode_s: float
    """Reading, decoding and resizing, summed over workers."""
    baseline_s: float
    """Running the baseline, summed over workers."""
    model_s: float
    """Running the model, summed over workers."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """A model against its baseline on the same images; device and runtime are those that ran the model."""

    schema: ClassVar[str] = "edgeeff/evaluation"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    """The file that is judged."""
    baseline: ModelFile
    """The float model that it is judged against."""
    target: str
    """Where the model ran; "local" for this machine."""
    data: DataUse
    """The images."""
    classes: int
    """Scores that both models give."""
    names: tuple[str, ...]
    """Names of the classes, by index; empty where nobody said."""
    preprocessing: Preprocessing
    """What the model is given."""
    baseline_preprocessing: Preprocessing
    """What the baseline is given."""
    model_macs: int | None
    """Multiply-accumulates of one image; papers call them FLOPs."""
    baseline_macs: int | None
    """The same of the baseline; None where it is not known."""
    model_outputs: Outputs
    """What the model's scores are like."""
    baseline_outputs: Outputs
    """What the baseline's scores are like."""
    model_metrics: Metrics | None
    """How right the model is; None without labels."""
    baseline_metrics: Metrics | None
    """How right the baseline is; None without labels."""
    paired: Paired
    """Both on the same images."""
    by_class: tuple[ClassResult, ...]
    """Both on every class with an image or a prediction of either."""
    confusion: tuple[tuple[int, int, int], ...]
    """Right class, model's class, images: the cells that are not empty."""
    baseline_confusion: tuple[tuple[int, int, int], ...]
    """The same of the baseline."""
    kernels: Kernels | None
    """The file here against the file on the board; None where it ran here only."""
    findings: tuple[Finding, ...]
    """What is wrong, or may be."""
    gates: tuple[GateResult, ...]
    """What was asked for, and what came of it; empty where nothing was."""
    passed: bool
    """Whether all gates passed; true where none was asked for."""
    images: ImageOutcomes
    """What both said of every image."""
    timing: EvaluationTiming
    """Where the time went."""


@dataclass(frozen=True)
class EvaluationComparison:
    """Two evaluations: the second model's figures minus the first's."""

    first: str
    """Path of the first evaluation's model."""
    second: str
    """Path of the second evaluation's model."""
    shared_images: int
    """Images that both saw, by the digest of their bytes; differences are paired over these."""
    paired: bool
    """False where they share none: then the differences are of independent sets, and the intervals are wider."""
    top1: Difference | None
    """Difference of top-1; None without labels."""
    agreement: float | None
    """Fraction of the shared images with the same best class; None when they share none."""
    first_only_right: int | None
    """Shared images that only the first has right; None without labels or shared images."""
    second_only_right: int | None
    """Shared images that only the second has right; None without labels or shared images."""
    by_class: tuple[tuple[str, Difference], ...]
    """Difference in recall of every class that both have."""
    warnings: tuple[str, ...]
    """What else differs between the two."""
