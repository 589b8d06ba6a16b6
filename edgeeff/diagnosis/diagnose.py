"""Why a quantized file is not what its float model is: the tests in their order, and the one cause that they name.

What can be wrong before quantization comes first: pixels that do not fit, classes that are one off. Then what the
scores show, then what the tensors show. A constant or clipped output is a symptom where the range of a tensor before
leaves nothing to see, and a constant one where the logits' own range does: these are named then, and the symptom is in
the evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeeff.calibration.extremes import short
from edgeeff.calibration.survey import listed
from edgeeff.converters.runtime import runtime
from edgeeff.diagnosis import tensors
from edgeeff.diagnosis.scores import Feed, Likeness, Pictures, Seen, alternatives, draw, swapped
from edgeeff.diagnosis.tensors import Compared
from edgeeff.errors import InputError, ModelError
from edgeeff.evaluation.classifier import KNOWN_RANGES, Classifier, open_baseline, open_classifier
from edgeeff.evaluation.dataset import Dataset, open_dataset
from edgeeff.evaluation.labels import map_classes, read_labels
from edgeeff.progress import Progress, Silent
from edgeeff.results import DiagnosisRecord, Finding, TensorFault, Test, this_device, versions

SOUND = 0.7
"""Agreement from which on nothing has collapsed."""
SOUND_CORRELATION, SOUND_SYNTHETIC = 0.85, 0.75
"""The same for the correlation, on photographs and on images without any class, where agreement says little. An int8 B0
whose ranges cost it 4 points of top-1 has 0.88 and 0.82, one that lost 44 points has 0.37 and 0.14."""
CLOSE = 0.97
"""Agreement above which no other way to feed the file is tried."""
TRIED, COMPARED = 64, 12
"""Images that other ways to feed a file are tried with, and that tensors are compared on."""
OFFSET_CORRELATION = 0.5
CONSTANT, DOMINANT, VARIED = 0.1, 0.9, 0.6
"""Variation of the scores, as a part of the baseline's, and share of images with one class, that make an output
constant; and the largest share that one class may have in the baseline's."""
TIED = 0.1
"""Share of images whose best score several classes share that is more than rounding."""
ABOVE = 0.5
"""Share of images with a logit above what the file can hold."""
CLIPPED, WASTED = 0.2, 10.0
"""Share of a tensor's values that are cut off, and error as a multiple of the best range's, that ruin what follows."""
POOR, POOR_SHARE = 2.0, 0.1
"""Error of a range as a multiple of the best one's, and the share of the tensors with such a range that adds up."""
FAITHLESS = 0.5
"""Error of a tensor, as a part of its values' deviation, that is worth naming."""
LISTED = 8
SYNTHETIC = (
    "the images were made by edgeeff and show no class: agreement on them is lower than on photographs, and a crop or "
    "labels that do not fit cannot show; --data DIR tells more"
)


@dataclass(frozen=True)
class Plan:
    """What is to be compared."""

    model: Path
    baseline: Path
    data: Path | None = None
    """What `edgeeff evaluate` takes; None for images made here."""
    labels: Path | None = None
    input_range: tuple[float, float] | None = None
    samples: int = 128
    seed: int = 0


@dataclass(frozen=True)
class _Case:
    """All that a test may look at."""

    plan: Plan
    model: Feed
    baseline: Feed
    pictures: Pictures
    ours: Seen
    theirs: Seen
    likeness: Likeness
    compared: tuple[Compared, ...]
    guessed: str | None
    """What the file's input was taken to be, where it does not say."""

    @property
    def sound(self) -> bool:
        """Whether the file still is the model that it was made of."""
        least = SOUND_CORRELATION if self.pictures.examples else SOUND_SYNTHETIC
        return self.likeness.agreement >= SOUND or self.likeness.correlation >= least

    @property
    def body(self) -> list[Compared]:
        """Tensors before the logits."""
        return [one for one in self.compared if not one.pair.head]

    @property
    def ruined(self) -> list[Compared]:
        """Tensors before the logits whose range leaves nothing for what follows."""
        return [one for one in self.body if one.fault.clipped >= CLIPPED or one.fault.excess >= WASTED]

    def convert(self, *options: str) -> str:
        """The command that makes the file anew."""
        calibration = self.model.classifier.calibration
        folder = calibration.folder if calibration is not None and calibration.folder else "DIR"
        return " ".join(("edgeeff convert --model", str(self.plan.baseline), "--calibration", folder, *options))


def diagnose(plan: Plan, progress: Progress | None = None) -> DiagnosisRecord:
    """Run both files on the same images and say what is wrong with the quantized one, if anything.

    Raises ModelError for a file that is no classifier or cannot run here, CalibrationError for images that cannot be
    used, InputError for labels that do not fit, MissingExtraError for what is not installed.
    """
    progress = progress or Silent()
    model, guessed, baseline, dataset = _open(plan, progress)
    pictures, places, unreadable = _pictures(plan, dataset)
    feeds = Feed("as the file says", model), Feed("as the file says", baseline)
    progress.stage(f"run both on {pictures.count:,} images")
    classes = max(model.classes, baseline.classes)
    ours, theirs = (feed.run(pictures).classes(classes) for feed in feeds)
    progress.stage("compare their tensors")
    compared = _compared(plan, feeds, pictures)
    case = _Case(plan, *feeds, pictures, ours, theirs, Likeness.of(ours, theirs), compared, guessed)
    progress.stage("look for the cause")
    tests = tuple(_tests(case))
    cause = _cause(case, tests)
    right = _top1(plan, dataset, places, case)
    return DiagnosisRecord(
        runtime=runtime(),
        device=this_device(),
        packages=versions("ai-edge-litert", "numpy"),
        model=model.file,
        baseline=baseline.file,
        data=None if plan.data is None else str(plan.data),
        images=pictures.count,
        unreadable=tuple(unreadable),
        preprocessing=model.preprocessing,
        baseline_preprocessing=baseline.preprocessing,
        agreement=case.likeness.agreement,
        correlation=case.likeness.correlation,
        top1=None if right is None else right[0],
        baseline_top1=None if right is None else right[1],
        tests=tests,
        tensors=_worst(case),
        cause=cause,
        notes=tuple(_notes(case, cause, right)),
    )


def compare_tensors(plan: Plan, progress: Progress | None = None) -> tuple[tuple[Compared, ...], int]:
    """Return what the tensors of both files held, in the network's order, and on how many images; looks for no cause.

    Raises what `diagnose` does.
    """
    progress = progress or Silent()
    model, _, baseline, dataset = _open(plan, progress)
    pictures, _, _ = _pictures(plan, dataset)
    progress.stage("compare their tensors")
    feeds = Feed("as the file says", model), Feed("as the file says", baseline)
    return _compared(plan, feeds, pictures), min(COMPARED, pictures.count)


# --- What is compared -------------------------------------------------------------------------------------------------


def _open(plan: Plan, progress: Progress) -> tuple[Classifier, str | None, Classifier, Dataset | None]:
    """Open both models and the images; the text is what the first one's input was taken to be, if it does not say."""
    progress.stage("read the models")
    model, guessed = _open_model(plan)
    dataset = None if plan.data is None else open_dataset(plan.data)
    baseline = open_baseline(plan.baseline, progress, input_range=plan.input_range)
    _check(model, baseline)
    return model, guessed, baseline, dataset


def _open_model(plan: Plan) -> tuple[Classifier, str | None]:
    """Open the quantized file; where it does not say which pixels it wants, take 0 to 255 for the start."""
    try:
        return open_classifier(plan.model, input_range=plan.input_range), None
    except ModelError as error:
        if plan.input_range is not None:
            raise
        for low, high in KNOWN_RANGES:
            try:
                opened = open_classifier(plan.model, input_range=(low, high))
            except ModelError:
                continue
            return opened, f"{low:g} to {high:g}"
        raise error from None


def _check(model: Classifier, baseline: Classifier) -> None:
    for one in (model, baseline):
        if one.edge_tpu:
            raise ModelError(
                f"{one.file.path} is compiled for the Edge TPU: its operators do not show and cannot run here; "
                "diagnose the file that went into the compiler"
            )
    if tensors.is_quantized(Path(baseline.path)):
        raise ModelError(
            f"the baseline {baseline.file.path} is quantized itself: give the float model that it came from"
        )
    if abs(model.classes - baseline.classes) > 1:
        raise ModelError(
            f"{model.file.path} has {model.classes} classes and {baseline.file.path} has {baseline.classes}: one was "
            "not made of the other"
        )


def _pictures(plan: Plan, dataset: Dataset | None) -> tuple[Pictures, list[int], list[tuple[str, str]]]:
    if dataset is None:
        return Pictures((), plan.samples, plan.seed), [], []
    return draw(dataset.examples, plan.samples, plan.seed)


def _compared(plan: Plan, feeds: tuple[Feed, Feed], pictures: Pictures) -> tuple[Compared, ...]:
    model, baseline = feeds
    matched = tensors.pairs(Path(baseline.classifier.path), plan.model)
    return tensors.compare(matched, baseline, model, pictures, min(COMPARED, pictures.count))


def _top1(plan: Plan, dataset: Dataset | None, places: Sequence[int], case: _Case) -> tuple[float, float] | None:
    """Top-1 of both; None without labels."""
    if dataset is None or dataset.kind == "unlabelled":
        return None
    ours, theirs = case.model.classifier, case.baseline.classifier
    said = read_labels(plan.labels) if plan.labels is not None else ours.labels or theirs.labels
    try:
        mapped = map_classes(dataset, theirs.classes, said)
    except InputError:
        # Labels were not asked for, and nothing above needs them.
        if plan.labels is not None:
            raise
        return None
    labels = np.array([mapped.indices[dataset.examples[place].label] for place in places])
    return float((case.ours.best == labels).mean()), float((case.theirs.best == labels).mean())


# --- The tests, in their order ----------------------------------------------------------------------------------------


def _tests(case: _Case) -> Iterator[Test]:
    yield _preprocessing(case)
    yield _label_offset(case)
    yield _constant(case)
    yield _clipped(case)
    yield _ranges(case)
    yield _biases(case)
    yield _tensors(case)


def _preprocessing(case: _Case) -> Test:
    """Try other ways to feed the one or the other file."""
    said = f"both fed as they say: same best class on {_percent(case.likeness.agreement)}"
    if case.likeness.agreement >= CLOSE:
        return Test("preprocessing", False, f"{said}; nothing else was tried", {"agreement": case.likeness.agreement})
    count = min(TRIED, case.pictures.count)
    here = Likeness.of(case.ours.first(count), case.theirs.first(count))
    best, found = here, None
    cropped = bool(case.pictures.examples)
    tried = [
        ("the quantized file", alternatives(case.model.classifier, cropped=cropped), case.theirs, True),
        ("the baseline", alternatives(case.baseline.classifier, cropped=False), case.ours, False),
    ]
    for who, feeds, other, model in tried:
        for group in (feeds, swapped(feeds)):
            if found is None:
                best, found = _try(case, group, other.first(count), best, who, model=model)
    if found is None:
        return Test(
            "preprocessing",
            False,
            f"{said}; no other pixel range, order of channels or crop is clearly better",
            {"agreement": here.agreement},
        )
    who, name = found
    return Test(
        "preprocessing",
        True,
        f"{who} agrees on {_percent(best.agreement)} of {count} images when it gets {name}, and on "
        f"{_percent(here.agreement)} as it says",
        {"agreement": here.agreement, "agreement_after": best.agreement},
    )


def _try(
    case: _Case, feeds: Sequence[Feed], other: Seen, here: Likeness, who: str, *, model: bool
) -> tuple[Likeness, tuple[str, str] | None]:
    """Return the best of several ways to feed a file that is clearly better than how it is fed now."""
    best, found = here, None
    for feed in feeds:
        seen = feed.run(case.pictures, len(other.scores)).classes(other.scores.shape[1])
        likeness = Likeness.of(seen, other)
        if likeness.is_clearly_above(here) and (likeness.agreement, likeness.correlation) > (
            best.agreement,
            best.correlation,
        ):
            best, found = likeness, (who, feed.name)
    return best, found


def _label_offset(case: _Case) -> Test:
    shifted = {shift: Likeness.of(case.ours.rolled(shift), case.theirs) for shift in (1, -1)}
    shift = max(shifted, key=lambda one: shifted[one].correlation)
    best, here = shifted[shift], case.likeness
    found = best.is_clearly_above(here) and best.correlation >= OFFSET_CORRELATION
    figures = {"shift": float(shift), "agreement": here.agreement, "agreement_after": best.agreement}
    if not found:
        most = max(one.agreement for one in shifted.values())
        return Test(
            "label-offset", False, f"with its classes moved by one it agrees on {_percent(most)} at best", figures
        )
    counts = ""
    if case.model.classifier.classes != case.baseline.classifier.classes:
        counts = (
            f"; it has {case.model.classifier.classes:,} classes, the baseline {case.baseline.classifier.classes:,}"
        )
    return Test(
        "label-offset",
        True,
        f"class {max(shift, 0)} of the quantized file is class {max(-shift, 0)} of the baseline, and so on: moved by "
        f"one they agree on {_percent(best.agreement)}, as they are on {_percent(here.agreement)}{counts}",
        figures,
    )


def _constant(case: _Case) -> Test:
    ours, theirs = case.ours, case.theirs
    deviation = theirs.logs.std(axis=0)
    moving = deviation > 0.05 * max(float(deviation.max()), 1e-9)
    variation = float(np.median(ours.logs.std(axis=0)[moving] / deviation[moving])) if moving.any() else 1.0
    broken = int((~ours.finite).sum())
    one_class = ours.commonest_share >= DOMINANT and theirs.commonest_share <= VARIED
    found = bool(broken) or (not case.sound and (variation < CONSTANT or one_class))
    said = Counter(ours.best.tolist()).most_common(1)[0][0]
    text = (
        f"class {said} is best on {_percent(ours.commonest_share)} of the images (baseline: the commonest on "
        f"{_percent(theirs.commonest_share)}), and scores vary {variation:.2g} times as much as the baseline's"
    )
    if broken:
        text = f"{broken:,} of {len(ours.scores):,} images have scores that are no numbers; {text}"
    figures = {"commonest_share": ours.commonest_share, "variation": variation, "not_finite": float(broken)}
    return Test("constant-output", found, text, figures)


def _clipped(case: _Case) -> Test:
    ties, before = case.ours.ties, case.theirs.ties
    above = max((one.best_clipped for one in case.compared if one.pair.head), default=0.0)
    found = (ties >= TIED and ties >= 2 * before) or (above >= ABOVE and not case.sound)
    text = (
        f"several classes share the best score on {_percent(ties)} of the images (baseline {_percent(before)}), and on "
        f"{_percent(above)} the best logit is larger than the file can hold"
    )
    return Test("clipped-output", found, text, {"ties": ties, "baseline_ties": before, "above": above})


def _ranges(case: _Case) -> Test:
    quantized = [one for one in case.compared if one.pair.scale is not None and not one.pair.of_known_range]
    if not quantized:
        reason = "no activation is quantized" if case.compared else "no tensor of the two files could be told alike"
        return Test("calibration-range", False, reason)
    body = [one for one in quantized if not one.pair.head]
    poor = [one for one in body if one.fault.excess >= POOR]
    ruined = [one for one in case.ruined if one.pair.scale is not None]
    found = not case.sound and bool(ruined or len(poor) >= POOR_SHARE * len(quantized))
    worst = sorted(poor or body or quantized, key=lambda one: -one.fault.excess)
    text = (
        f"{len(poor):,} of {len(quantized):,} quantized activations have a range that makes {POOR:g} times the error "
        f"of the best one or more: {listed([_range_of(one.fault) for one in worst])}"
    )
    return Test(
        "calibration-range",
        found,
        text,
        {
            "poor": float(len(poor)),
            "tensors": float(len(quantized)),
            "clipped": max(one.fault.clipped for one in quantized),
            "excess": max(one.fault.excess for one in quantized),
        },
    )


def _range_of(fault: TensorFault) -> str:
    cut = f", {_percent(fault.clipped)} of the values cut off" if fault.clipped >= 0.001 else ""
    return (
        f"{_called(fault)} {fault.low:.3g}..{fault.high:.3g} for values {fault.float_low:.3g}..{fault.float_high:.3g} "
        f"({fault.excess:.1f} times{cut})"
    )


def _biases(case: _Case) -> Test:
    cut = tensors.cut_biases(case.plan.model)
    layers = list(dict.fromkeys(cut))
    text = (
        f"{len(cut):,} biases of {len(layers):,} layers are cut off at the end of int32, and sums may wrap: "
        f"{listed([short(name) for name in layers])}"
        if cut
        else "no bias is cut off at the end of int32"
    )
    figures = {"biases": float(len(cut)), "layers": float(len(layers))}
    return Test("cut-off-biases", bool(cut) and not case.sound, text, figures)


def _tensors(case: _Case) -> Test:
    if not case.compared:
        return Test("worst-tensors", False, "no tensor of the two files could be told alike")
    rising = sorted(tensors.jumps(case.compared), key=lambda pair: -pair[1])
    named = [f"{_called(one.fault)} {_percent(one.fault.error)}" for one, jump in rising[:LISTED] if jump > 0]
    found = not case.sound and any(one.fault.error >= FAITHLESS for one in case.compared)
    last = case.compared[-1].fault.error
    text = (
        f"errors, as parts of the values' own deviation, rise most at {listed(named)}; at the end they are "
        f"{_percent(last)}"
        if named
        else f"errors do not rise; at the end they are {_percent(last)}"
    )
    return Test("worst-tensors", found, text, {"error": last})


# --- The cause --------------------------------------------------------------------------------------------------------


def _cause(case: _Case, tests: Sequence[Test]) -> Finding | None:
    """Name the first test that found something, but no symptom where a range that ruins what follows was found, too."""
    found = [test for test in tests if test.found]
    if not found:
        return None if case.sound else _unknown(case)
    first = found[0]
    by_name = {test.name: test for test in found}
    ranges, clipped = by_name.get("calibration-range"), by_name.get("clipped-output")
    root = None
    if first.name in {"constant-output", "clipped-output"} and ranges is not None and case.ruined:
        root = ranges
    elif first.name == "constant-output" and clipped is not None and clipped.figures["above"] >= ABOVE:
        root = clipped
    if root is not None:
        first = replace(root, text=f"{root.text}; therefore {first.text}")
    return Finding(first.name, True, first.text, _advice(case, first), first.figures)


def _unknown(case: _Case) -> Finding:
    return Finding(
        "unknown",
        True,
        f"the files agree on {_percent(case.likeness.agreement)} of the images only (correlation "
        f"{case.likeness.correlation:.2f}), and no test says why: perhaps one was not made of the other",
        f"make it anew: {case.convert()}",
        {"agreement": case.likeness.agreement, "correlation": case.likeness.correlation},
    )


def _advice(case: _Case, test: Test) -> str:
    baseline = case.plan.baseline
    if test.name == "preprocessing":
        return (
            f"give the file what it wants, or make one that takes pixels 0 to 255 and has the rest inside: "
            f"{case.convert()}"
        )
    if test.name == "label-offset":
        return (
            "read the class names one line further up or down, or make the file of the baseline itself: "
            f"{case.convert('--labels FILE')}"
        )
    if test.name in {"clipped-output", "calibration-range"}:
        return (
            "choose the ranges anew, with photographs from where the camera will be: several rules are tried, and the "
            f"best one is kept: {case.convert()}"
        )
    if test.name == "constant-output":
        return (
            f"a float16 file tells whether it is quantization: edgeeff convert --model {baseline} --scheme float16; "
            f"then {case.convert()}"
        )
    if test.name == "cut-off-biases":
        return (
            "the weights of these channels are next to nothing, and with them the steps that a bias is counted in; "
            f"edgeeff widens the steps: {case.convert()}"
        )
    return f"the ranges are not at fault, rounding is: {case.convert('--effort thorough')}, or --min-agreement 95"


def _notes(case: _Case, cause: Finding | None, right: tuple[float, float] | None) -> Iterator[str]:
    if not case.pictures.examples:
        yield SYNTHETIC
    if case.guessed is not None:
        yield f"the file does not say which values it wants for pixels: {case.guessed} was taken (--input-range)"
    if not case.compared:
        yield (
            "no tensor of one file could be found in the other, neither by name nor by the order of operators: what "
            "happens inside cannot be said"
        )
    if cause is None and case.likeness.agreement < CLOSE:
        yield f"some accuracy may still be lost; to get more of it back: {case.convert('--effort thorough')}"
    if right is not None and right[1] < 0.5 and right[1] < right[0] + 0.05 and case.sound:
        yield (
            f"the baseline itself is right on {_percent(right[1])} of the images only: look at the labels and at what "
            "it expects before you look at quantization"
        )


def _worst(case: _Case) -> tuple[TensorFault, ...]:
    """The tensors with the worst ranges and the steepest rises of error, in the network's order."""
    by_range = sorted(case.body, key=lambda one: -max(one.fault.excess, 1 + 10 * one.fault.clipped))[: LISTED // 2]
    by_error = sorted(tensors.jumps(case.compared), key=lambda pair: -pair[1])[: LISTED // 2]
    chosen = {one.fault.name for one in (*by_range, *(one for one, _ in by_error))}
    return tuple(one.fault for one in case.compared if one.fault.name in chosen)


def _called(fault: TensorFault) -> str:
    return f"{fault.block or 'tensor'} '{short(fault.name)}'"


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f} %"
