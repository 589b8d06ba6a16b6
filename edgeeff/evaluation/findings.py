"""Pitfalls that an evaluation shows, each with its evidence and what to do about it.

Every finding is a function that looks at the record and returns what it found or nothing; a healthy evaluation has
none. What was asked for is judged by `gates`, not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgeeff.evaluation.labels import Suspicion
from edgeeff.evaluation.metrics import quantile, wilson
from edgeeff.evaluation.paired import fewest_discordant
from edgeeff.results import ClassResult, Difference, EvaluationRecord, Finding, Leak, Preprocessing

GOOD, BAD = 0.8, 0.6
"""Top-1 that is good from here on, and bad below there, whatever the task."""
MODERATE_MACS = 1.8e9
"""EfficientNet-B3's: Tan and Le, EfficientNet (2019), table 2."""
EVEN = 0.5
"""A class is rare when it has less than this part of the images that it would have if all classes had as many."""
MISSED, FAR_BELOW = 0.5, 0.2
"""Recall of a rare class that is missed, and how far below top-1 even the upper end of its interval is."""
GAP, CLASS_GAP = 0.1, 0.3
"""Between precision and recall: of the means, and of a class whose intervals do not meet."""
TRAIN_GAP = 0.1
"""Between the accuracy on the training images and on these."""
FEW_LEAKS = 0.01
"""Share of the images that may have leaked before the figures are not to be believed."""
COLLAPSED = 0.5
"""Agreement below which a model has nothing to do with its baseline."""
LOST = 0.2
"""Top-1 that a model has surely lost when it has collapsed."""
SKILL = 0.05
"""Part of the way from chance to perfect, below which a model knows nothing."""
NEAR = 0.25
"""The same, above which nobody would say so."""
TIED = 0.05
"""Share of images whose best score several classes share that is more than chance and rounding."""
DOMINANT = 0.5
"""Share of images for which one class is the best one that makes an output nearly constant."""
SHIFTED = 0.5
"""Share of images whose best class is one beside the baseline's that makes it an offset."""
FEWEST = 100
"""Images with which not much can be said."""
COARSE = 0.05
"""A set whose smallest difference is above this cannot tell a good model from a bad one."""
MUCH_MORE, LITTLE_BETTER = 1.5, 0.01
"""Times the MACs, and the accuracy that they should buy at least."""
FEW_CLASSES = 0.5
"""Below this part of the classes with images, most wrong answers are classes of which there are none."""
SAME_KERNELS = 0.98
"""Share of images on which two runtimes give the same best class when they compute the same thing."""
NAMED = 3
"""Things that a sentence names; of more it says how many."""


@dataclass(frozen=True)
class _Known:
    """All that a finding may look at."""

    record: EvaluationRecord
    leaks: Sequence[Leak]
    train_accuracy: float | None
    suspicion: Suspicion | None


def find(
    record: EvaluationRecord,
    *,
    leaks: Sequence[Leak] = (),
    train_accuracy: float | None = None,
    suspicion: Suspicion | None = None,
) -> tuple[Finding, ...]:
    """Return the pitfalls that a record shows, serious ones first; its own findings are not looked at.

    `leaks` are images that are in the calibration or training set, too; `train_accuracy` is the baseline's top-1 on
    its training images, 0 to 1; `suspicion` is what `labels.suspect` says of it. The record's gates have to be judged.
    """
    known = _Known(record, leaks, train_accuracy, suspicion)
    found = [finding for check in CHECKS if (finding := check(known)) is not None]
    return tuple(sorted(found, key=lambda finding: not finding.serious))


# --- Labels and the baseline ------------------------------------------------------------------------------------------


def _labels_off(known: _Known) -> Finding | None:
    suspicion = known.suspicion
    if suspicion is None:
        return None
    if suspicion.kind == "shift":
        text = f"every label seems to be one too {'low' if suspicion.shift > 0 else 'high'}"
    else:
        names = known.record.names

        def called(index: int) -> str:
            return names[index] if index < len(names) else str(index)

        others = [(label, place) for label, place in enumerate(suspicion.mapping) if place not in {-1, label}]
        text = "the labels seem to be in another order than the model's classes: " + _listed(
            [f"what is labelled {called(label)} is {called(place)} to the baseline" for label, place in others]
        )
    return Finding(
        "labels-off",
        True,
        f"{text}: the baseline's top-1 is {_percent(suspicion.accuracy)} as they are and "
        f"{_percent(suspicion.accuracy_after)} with that undone",
        "give the class names in the model's own order with --labels; a list of 1,001 names begins with a background "
        "class, and folders are in alphabetical order, which the model's classes need not be",
        {"top1": suspicion.accuracy, "top1_after": suspicion.accuracy_after, "shift": float(suspicion.shift)},
    )


def _near_chance(known: _Known) -> Finding | None:
    record = known.record
    outputs, metrics = record.baseline_outputs, record.baseline_metrics
    constant = outputs.predicted_classes == 1 and record.data.classes != 1 and record.paired.images >= FEWEST
    if known.suspicion is not None or not (constant or _is_near_chance(record)):
        return None
    figures = {"commonest_share": outputs.commonest_share, "chance": 1 / record.classes}
    text = "the baseline says the same class for every image"
    if metrics is not None:
        figures["top1"] = metrics.top1
        if not constant:
            text = (
                f"the baseline's top-1 is {_percent(metrics.top1)}, balanced accuracy "
                f"{_percent(metrics.balanced_accuracy)}: near chance, {_percent(1 / record.classes)}"
            )
    return Finding(
        "near-chance-baseline",
        metrics is not None,  # images of one thing, without labels, may well be of one class
        f"{text}; its preprocessing, {_preprocessing(record.baseline_preprocessing)}",
        "most often preprocessing is applied twice or never: some networks have it inside, and preprocess_input does "
        "nothing for EfficientNet; give what the network wants with --input-range, then look at the labels' order",
        figures,
    )


def _weak_baseline(known: _Known) -> Finding | None:
    metrics = known.record.baseline_metrics
    explained = known.suspicion is not None or _is_near_chance(known.record)
    if metrics is None or metrics.top1_interval[1] >= BAD or explained:
        return None
    return Finding(
        "weak-baseline",
        False,
        f"the baseline itself is right on {_percent(metrics.top1)} of the images only: to be as good says little",
        "look whether images and labels are what it was trained for; if so, train it further before quantizing it",
        {"top1": metrics.top1},
    )


def _overfitting(known: _Known) -> Finding | None:
    metrics, train = known.record.baseline_metrics, known.train_accuracy
    if metrics is None or train is None or train - metrics.top1 <= TRAIN_GAP or train <= metrics.top1_interval[1]:
        return None
    return Finding(
        "train-far-above-test",
        True,
        f"the baseline is right on {_percent(train)} of its training images and on {_percent(metrics.top1)} of these, "
        f"{_points(train - metrics.top1)} points fewer",
        "it remembers its training images, or these are of another kind: train with more images, augmentation or "
        "dropout, or collect training images where the camera will be",
        {"train_top1": train, "top1": metrics.top1},
    )


QUANTIZATION_ITSELF = (
    "none of these explains it, so it is quantization itself: convert with --scheme float16, which should agree; then "
    "calibrate with your own images (--calibration) or take --scheme int16x8, and look at the tensors with the widest "
    "ranges with edgeeff inspect"
)


# --- The quantized model ----------------------------------------------------------------------------------------------


def _collapse(known: _Known) -> Finding | None:
    record = known.record
    if not _has_collapsed(record):
        return None
    paired, outputs, before = record.paired, record.model_outputs, record.baseline_outputs
    text = f"the model has the baseline's best class on {_percent(paired.agreement)} of {paired.images:,} images"
    figures = {
        "agreement": paired.agreement,
        "predicted_classes": float(outputs.predicted_classes),
        "commonest_share": outputs.commonest_share,
        "baseline_commonest_share": before.commonest_share,
        "top1_ties": outputs.top1_ties,
        "baseline_top1_ties": before.top1_ties,
        "not_finite": float(outputs.not_finite),
        "offset_share": _offset(record)[1],
    }
    if record.model_metrics is not None and record.baseline_metrics is not None:
        figures |= {"top1": record.model_metrics.top1, "baseline_top1": record.baseline_metrics.top1}
        text += f", and top-1 {_percent(record.model_metrics.top1)} instead of {_percent(record.baseline_metrics.top1)}"
    tests = list(_collapse_tests(record))
    suspects = [advice for _, found, _, advice in tests if found]
    text += "; what to look at, in this order:" + "".join(
        f"\n{place}. {name}: {'SUSPICIOUS, ' if found else ''}{evidence}"
        for place, (name, found, evidence, _) in enumerate(tests, 1)
    )
    return Finding("collapse", True, text, suspects[0] if suspects else QUANTIZATION_ITSELF, figures)


def _collapse_tests(record: EvaluationRecord) -> Iterator[tuple[str, bool, str, str]]:
    """Yield what to look at before blaming quantization: name, whether it is that, the evidence, what to do."""
    ours, theirs = record.baseline_preprocessing, record.preprocessing
    outputs, before = record.model_outputs, record.baseline_outputs
    geometry = (theirs.height, theirs.width, theirs.crop) != (ours.height, ours.width, ours.crop)
    yield (
        "preprocessing",
        geometry,
        f"{_geometry(theirs)} for the model ({theirs.source}), {_geometry(ours)} for the baseline ({ours.source})",
        "both models should see the same pixels: give both the same size and --crop, or convert the baseline itself",
    )
    offset, share = _offset(record)
    yield (
        "label offset",
        share >= SHIFTED,
        f"{_percent(share)} of the images are {offset:+d} class from the baseline's",
        "one of the models has a background class in front: convert the baseline itself, or give a file without it",
    )
    constant = outputs.commonest_share >= DOMINANT and outputs.commonest_share >= 2 * before.commonest_share
    broken = outputs.not_finite > 0
    yield (
        "constant output",
        constant or broken,
        f"{outputs.predicted_classes:,} of {record.classes:,} classes are ever said, the commonest on "
        f"{_percent(outputs.commonest_share)} of the images (baseline {_percent(before.commonest_share)})"
        + (f", {outputs.not_finite:,} images have scores that are no numbers" if broken else ""),
        "some tensor holds nothing of the image any more: look at the range of the input and of the last tensors with "
        "edgeeff inspect, then convert with --scheme float16, which should agree, and calibrate with your own images",
    )
    clipped = _clipped(record)
    yield (
        "clipped output",
        clipped,
        f"several classes share the best score on {_percent(outputs.top1_ties)} of the images (baseline "
        f"{_percent(before.top1_ties)})",
        "the output's range was set too narrow: calibrate with your own images (--calibration), never with noise, and "
        "do not clip the output",
    )
    (low, high), (ours_low, ours_high) = _range(theirs), _range(ours)
    yield (
        "input range",
        (low, high) != (ours_low, ours_high),
        f"{low:g} to {high:g} for the model, {ours_low:g} to {ours_high:g} for the baseline",
        "say what black and white are with --input-range, unless each of the files has its own preprocessing inside",
    )


def _clipped_output(known: _Known) -> Finding | None:
    record = known.record
    if not _clipped(record) or _has_collapsed(record):
        return None
    ties = record.model_outputs.top1_ties
    return Finding(
        "clipped-output",
        ties > 4 * TIED,
        f"several classes share the best score on {_percent(ties)} of the images (baseline "
        f"{_percent(record.baseline_outputs.top1_ties)}); the lowest index is taken, so top-1 depends on the order of "
        "the classes",
        "the output's range is clipped or its steps are too coarse: calibrate with your own images (--calibration) "
        "and give logits (--logits) in float32",
        {"top1_ties": ties, "baseline_top1_ties": record.baseline_outputs.top1_ties},
    )


def _not_finite(known: _Known) -> Finding | None:
    record = known.record
    counts = {"baseline": record.baseline_outputs.not_finite, "model": record.model_outputs.not_finite}
    bad = {who: count for who, count in counts.items() if count}
    if not bad:
        return None
    told = " and ".join(f"{count:,} of the {who}'s" for who, count in bad.items())
    return Finding(
        "not-finite",
        True,
        f"the scores of {told} {record.paired.images:,} images are no numbers; they count as wrong",
        "float16 overflows above 65,504, and weights may hold NaN: convert with --scheme float32 to tell which",
        {who: float(count) for who, count in counts.items()},
    )


def _weak_model(known: _Known) -> Finding | None:
    record = known.record
    metrics, baseline = record.model_metrics, record.baseline_metrics
    if metrics is None or baseline is None or metrics.top1_interval[1] >= BAD:
        return None
    if baseline.top1_interval[1] < BAD or _has_collapsed(record):
        return None  # said already
    return Finding(
        "weak-model",
        True,
        f"top-1 is {_percent(metrics.top1)} (95 %: at most {_percent(metrics.top1_interval[1])}), the baseline's "
        f"{_percent(baseline.top1)}: quantization made a model of little use of it",
        "calibrate with your own images (--calibration), or take --scheme int16x8 or float16",
        {"top1": metrics.top1, "baseline_top1": baseline.top1},
    )


def _accuracy_paradox(known: _Known) -> Finding | None:
    record, metrics = known.record, known.record.model_metrics
    if metrics is None or metrics.top1 < GOOD:
        return None
    present = [one for one in record.by_class if one.support]
    even = sum(one.support for one in present) / len(present)
    missed = [
        (recall, one)
        for one in present
        if one.support < EVEN * even
        and (recall := one.model.recall or 0.0) < MISSED
        and wilson(round(recall * one.support), one.support)[1] < metrics.top1 - FAR_BELOW
    ]
    if not missed:
        return None
    missed.sort(key=lambda pair: pair[0])
    named = _listed([f"{one.name} {_percent(recall)} of {one.support:,} images" for recall, one in missed])
    return Finding(
        "accuracy-paradox",
        True,
        f"top-1 is {_percent(metrics.top1)} because the common classes are right; recall of rare ones: {named}. "
        f"Balanced accuracy is {_percent(metrics.balanced_accuracy)}",
        f"judge rare classes by themselves: --min-class-recall {missed[0][1].name}=0.8; train with more images of "
        "them, or with class weights",
        {
            "top1": metrics.top1,
            "balanced_accuracy": metrics.balanced_accuracy,
            "recall": missed[0][0],
            "images": float(missed[0][1].support),
            "classes": float(len(missed)),
        },
    )


def _precision_and_recall(known: _Known) -> Finding | None:
    record, metrics = known.record, known.record.model_metrics
    if metrics is None or _by_construction(record) or _has_collapsed(record):
        return None
    gap = metrics.macro_precision - metrics.macro_recall
    apart = sorted(filter(_apart, record.by_class), key=_class_gap, reverse=True)
    if abs(gap) <= GAP and not apart:
        return None
    text = f"macro precision is {_percent(metrics.macro_precision)}, macro recall {_percent(metrics.macro_recall)}"
    if apart:
        rates = [
            f"{one.name} {_percent(one.model.precision or 0)} and {_percent(one.model.recall or 0)}" for one in apart
        ]
        text += f"; precision and recall are far apart for {_listed(rates)}"
    return Finding(
        "precision-recall-gap",
        False,
        text,
        "a class with low precision is said too often, one with low recall too seldom: look at the confusions, then at "
        "how many training images each class has, and at labels that are mixed up",
        {"macro_precision": metrics.macro_precision, "macro_recall": metrics.macro_recall, "classes": len(apart)},
    )


def _efficiency(known: _Known) -> Finding | None:
    record, metrics = known.record, known.record.model_metrics
    macs, before = record.model_macs, record.baseline_macs
    if metrics is None or macs is None or _has_collapsed(record):
        return None
    size = f"{macs / 1e9:.2f} G MACs and {record.model.size_bytes / 1e6:.1f} MB"
    figures = {"macs": float(macs), "size_bytes": float(record.model.size_bytes), "top1": metrics.top1}
    advice = "measure a smaller variant on the same images (edgeeff variants); on the board it is faster by as much"
    if macs > MODERATE_MACS and metrics.top1_interval[1] < GOOD:
        text = (
            f"{size} for a top-1 of {_percent(metrics.top1)}: that is more work than B3's {MODERATE_MACS / 1e9:g} G, "
            f"and good is {_percent(GOOD)} with no more than that"
        )
        return Finding("inefficient", False, text, advice, figures)
    top1 = record.paired.top1
    if before is not None and top1 is not None and macs > MUCH_MORE * before and top1.interval[1] < LITTLE_BETTER:
        text = (
            f"{size}, {macs / before:.1f} times the baseline's {before / 1e9:.2f} G MACs, for a top-1 that is at most "
            f"{_points(max(0.0, top1.interval[1]))} points higher"
        )
        return Finding("inefficient", False, text, advice, figures | {"baseline_macs": float(before)})
    return None


def _kernels(known: _Known) -> Finding | None:
    kernels = known.record.kernels
    if kernels is None or kernels.agreement >= SAME_KERNELS:
        return None
    return Finding(
        "kernels-differ",
        kernels.agreement < COLLAPSED,
        f"the same file has the same best class here and on {known.record.target} on {_percent(kernels.agreement)} of "
        f"{kernels.images:,} images; {kernels.host.name} {kernels.host.version} here, {kernels.board.name} "
        f"{kernels.board.version} there",
        "install the same runtime on both (edgeeff devices setup), and judge the model on the board only",
        {"agreement": kernels.agreement, "max_difference": kernels.max_difference},
    )


# --- The images -------------------------------------------------------------------------------------------------------


def _leakage(known: _Known) -> Finding | None:
    if not known.leaks:
        return None
    images = known.record.paired.images
    told: list[str] = []
    figures: dict[str, float] = {}
    for source, where in (
        ("train", "among the training images"),
        ("calibration", "among the calibration images"),
        ("evaluation", "in this set itself, too"),
    ):
        exact = {leak.image for leak in known.leaks if leak.source == source and leak.kind == "exact"}
        near = {leak.image for leak in known.leaks if leak.source == source} - exact
        if exact or near:
            told.append(f"{len(exact | near):,} {where} ({len(exact):,} the same bytes, {len(near):,} nearly the same)")
            figures |= {f"{source}_exact": float(len(exact)), f"{source}_near": float(len(near))}
    leaked = {leak.image for leak in known.leaks if leak.source != "evaluation"}
    first = [f"{leak.image} = {leak.other}" for leak in known.leaks]
    return Finding(
        "leakage",
        len(leaked) > FEW_LEAKS * images,
        f"of {images:,} images {', '.join(told)}: {_listed(first)}",
        "take them out of the evaluation images and run this again: what a model has seen says nothing of what it will "
        "see",
        {**figures, "share": len(leaked) / images},
    )


def _too_small(known: _Known) -> Finding | None:
    record, paired = known.record, known.record.paired
    asked = next((gate for gate in record.gates if gate.gate == "max-drop" and gate.limit > 0), None)
    smallest = paired.smallest_difference
    if smallest is None:
        low, high = paired.agreement_interval
        if paired.images >= FEWEST and high - low <= 2 * COARSE:
            return None
        text = (
            f"{paired.images:,} images cannot say more of the agreement than {_percent(low)} to {_percent(high)} (95 %)"
        )
        return Finding("too-few-images", False, text, "take more images", {"images": float(paired.images)})
    limit = asked.limit if asked is not None else COARSE
    if smallest <= limit or _is_worse(paired.top1, limit):
        return None
    discordant = (paired.baseline_only_right or 0) + (paired.model_only_right or 0)
    # As in paired.smallest_difference, solved for the number of images; quantile(0.6) is that of a power of 80 %.
    deviations = (quantile(0.95) + quantile(0.6)) / limit
    fewest = max(discordant / paired.images * deviations**2, fewest_discordant() / limit, FEWEST)
    # The gate knows the drop that was seen, and says its own number.
    needed = (asked.images_needed if asked is not None else None) or math.ceil(fewest)
    why = f"the asked max-drop is {_points(limit)}" if asked is not None else f"{_points(limit)} would be good to see"
    return Finding(
        "too-few-images",
        asked is not None and not asked.passed,
        f"{paired.images:,} images show a difference in top-1 from {_points(smallest)} points on; {why}",
        f"take about {_round(needed):,} images like these",
        {"images": float(paired.images), "smallest_difference": smallest, "images_needed": float(needed)},
    )


def _empty_classes(known: _Known) -> Finding | None:
    record = known.record
    if record.model_metrics is None or record.data.classes >= record.classes:
        return None
    figures = {"classes": float(record.classes), "with_images": float(record.data.classes)}
    text = f"{record.data.classes:,} of the model's {record.classes:,} classes have images"
    if record.data.classes < FEW_CLASSES * record.classes:
        if not _by_construction(record):
            return None  # a model of many classes that was restricted to a few
        return Finding(
            "classes-without-images",
            False,
            f"{text}: most wrong answers are classes that are not there, so that precision is near 1 by construction "
            f"({_percent(record.model_metrics.macro_precision)})",
            "look at recall only, or let only the classes with images count as answers with --restrict",
            figures,
        )
    present = {one.index for one in record.by_class if one.support}
    empty = [name for index, name in enumerate(record.names) if index not in present]
    named = f"; none has {_listed(empty)}" if empty else ""
    return Finding(
        "classes-without-images",
        False,
        f"{text}{named}",
        "nothing is known of the others: add images of them, or see whether their folders are empty or named otherwise",
        figures,
    )


def _unreadable(known: _Known) -> Finding | None:
    record = known.record
    bad = record.data.unreadable
    if not bad:
        return None
    share = len(bad) / (len(bad) + record.paired.images)
    return Finding(
        "unreadable-images",
        share > FEW_LEAKS,
        f"{len(bad):,} image{'s' if len(bad) > 1 else ''} ({_percent(share)}) could not be read and count nowhere: "
        + _listed([f"{name} ({reason})" for name, reason in bad]),
        "mend or remove them: if they are of one class or one camera, the figures are of the others only",
        {"unreadable": float(len(bad)), "share": share},
    )


CHECKS: tuple[Callable[[_Known], Finding | None], ...] = (
    _labels_off,
    _near_chance,
    _collapse,
    _not_finite,
    _leakage,
    _accuracy_paradox,
    _overfitting,
    _weak_model,
    _weak_baseline,
    _clipped_output,
    _precision_and_recall,
    _kernels,
    _too_small,
    _unreadable,
    _empty_classes,
    _efficiency,
)
"""In the order in which they are to be read: what explains others is before them."""


# --- What several look at ---------------------------------------------------------------------------------------------


def _is_near_chance(record: EvaluationRecord) -> bool:
    metrics = record.baseline_metrics
    if metrics is None or record.classes < 2:
        return False
    chance = 1 / record.classes

    def skill(accuracy: float) -> float:
        return (accuracy - chance) / (1 - chance)

    # Of few images the interval reaches down to chance, however right the baseline is on them.
    low = min(skill(metrics.top1_interval[0]), skill(metrics.balanced_accuracy))
    return low <= SKILL and min(skill(metrics.top1), skill(metrics.balanced_accuracy)) <= NEAR


def _has_collapsed(record: EvaluationRecord) -> bool:
    """Whether a model that could have agreed with its baseline does not; one that knows nothing loses nothing."""
    top1 = record.paired.top1
    if _is_near_chance(record):
        return False
    return record.paired.agreement < COLLAPSED or (top1 is not None and top1.interval[1] < -LOST)


def _is_worse(top1: Difference | None, limit: float) -> bool:
    """Whether the images told already that a model is further below its baseline than that."""
    return top1 is not None and top1.interval[1] < -limit


def _clipped(record: EvaluationRecord) -> bool:
    return record.model_outputs.top1_ties - record.baseline_outputs.top1_ties > TIED


def _by_construction(record: EvaluationRecord) -> bool:
    """Whether many wrong answers are classes without images, so that no precision of a class with some suffers."""
    elsewhere = any(one.model.predicted for one in record.by_class if not one.support)
    return elsewhere and record.data.classes < FEW_CLASSES * record.classes


def _offset(record: EvaluationRecord) -> tuple[int, float]:
    """Return +1 or -1, and the share of the images whose best class is that far from the baseline's."""
    shares = {
        step: sum(flip.images for flip in record.paired.flips if flip.model - flip.baseline == step)
        / record.paired.images
        for step in (1, -1)
    }
    step = max(shares, key=shares.__getitem__)
    return step, shares[step]


def _class_gap(one: ClassResult) -> float:
    return abs((one.model.precision or 0.0) - (one.model.recall or 0.0))


def _apart(one: ClassResult) -> bool:
    """Whether a class's precision and recall are surely far apart; one that was never said has no precision."""
    precision, recall = one.model.precision, one.model.recall
    if precision is None or recall is None or _class_gap(one) <= CLASS_GAP:
        return False
    right = round(recall * one.support)
    low, high = wilson(right, one.support)
    other_low, other_high = wilson(right, one.model.predicted)
    return high < other_low or other_high < low


def _range(one: Preprocessing) -> tuple[float, float]:
    """Return what black and white become."""
    lows = [(0 - mean) / std for mean, std in zip(one.mean, one.std, strict=True)]
    highs = [(255 - mean) / std for mean, std in zip(one.mean, one.std, strict=True)]
    return round(min(lows), 3), round(max(highs), 3)


def _geometry(one: Preprocessing) -> str:
    return f"{one.width} x {one.height}, crop {one.crop}"


def _preprocessing(one: Preprocessing) -> str:
    low, high = _range(one)
    return f"known from {one.source}: {_geometry(one)}, pixels become {low:g} to {high:g}"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f} %"


def _points(fraction: float) -> str:
    return f"{fraction * 100:.1f}"


def _round(count: int) -> int:
    """Round up to two digits."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return math.ceil(count / step) * step
