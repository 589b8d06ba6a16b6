"""Every pitfall is found where it is, and not where it just is not; a healthy evaluation has none."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from edgeeff.evaluation import view
from edgeeff.evaluation.findings import find
from edgeeff.evaluation.gates import Gates, judge
from edgeeff.evaluation.junit import to_junit
from edgeeff.evaluation.labels import Suspicion, suspect
from edgeeff.results import (
    Difference,
    EvaluationRecord,
    Finding,
    Flip,
    Kernels,
    Leak,
    Outputs,
    Runtime,
    to_json,
)
from tests.evaluations import HEALTHY, IMAGES, UNLABELLED, changed, evaluation, judged_images, one_class


def causes(record: EvaluationRecord, **known: Any) -> list[str]:
    return [finding.cause for finding in find(record, **known)]


def only(record: EvaluationRecord, cause: str, **known: Any) -> Finding:
    (finding,) = find(record, **known)
    assert finding.cause == cause
    assert finding.advice
    assert finding.figures
    return finding


def good(top1: float, images: int = IMAGES) -> dict[str, Any]:
    half = (top1 * (1 - top1) / images) ** 0.5 * 1.96
    return {"top1": top1, "top1_interval": (top1 - half, top1 + half), "balanced_accuracy": top1}


def metrics(which: str, top1: float) -> dict[str, Any]:
    return {f"{which}_metrics__{name}": value for name, value in good(top1).items()}


@pytest.mark.parametrize("record", [HEALTHY, UNLABELLED])
def test_a_healthy_evaluation_has_no_findings(record: EvaluationRecord) -> None:
    assert find(record) == ()
    assert find(record, leaks=(), train_accuracy=0.93, suspicion=None) == ()


def test_serious_findings_come_first() -> None:
    record = evaluation(data__unreadable=(("a.jpg", "truncated"),), model_outputs__not_finite=1)
    assert [(one.cause, one.serious) for one in find(record)] == [("not-finite", True), ("unreadable-images", False)]


# --- Labels and the baseline ------------------------------------------------------------------------------------------


def test_labels_that_are_off_are_said_with_both_accuracies() -> None:
    shift = Suspicion("shift", 1, 0.021, 0.744, tuple(range(1, 11)))
    found = only(evaluation(**metrics("baseline", 0.021), **metrics("model", 0.02)), "labels-off", suspicion=shift)
    assert found.text == (
        "every label seems to be one too low: the baseline's top-1 is 2.1 % as they are and 74.4 % with that undone"
    )
    assert found.serious


def test_labels_in_another_order_are_named() -> None:
    swapped = Suspicion("permutation", 0, 0.7, 0.88, (1, 0, -1, *range(3, 10)))
    found = only(HEALTHY, "labels-off", suspicion=swapped)
    assert "what is labelled cat is dog to the baseline, what is labelled dog is cat to the baseline:" in found.text
    assert "what is labelled 0 is 1" in only(changed(HEALTHY, names=()), "labels-off", suspicion=swapped).text


@pytest.mark.parametrize(("low", "fires"), [(0.14, True), (0.146, False)])
def test_a_baseline_near_chance_is_not_quantizations_fault(low: float, fires: bool) -> None:
    """Of ten classes: chance is 0.1, and 0.145 is a twentieth of the way from there to 1."""
    fields = {"top1": low + 0.02, "top1_interval": (low, low + 0.04), "balanced_accuracy": low + 0.02}
    record = evaluation(
        **{f"baseline_metrics__{name}": value for name, value in fields.items()},
        **metrics("model", 0.1),
        paired__agreement=0.3,
    )
    found = causes(record)
    assert ("near-chance-baseline" in found) == fires
    assert ("weak-baseline" in found) != fires
    assert ("collapse" in found) != fires


def test_few_images_that_are_right_are_not_near_chance() -> None:
    one = {"top1": 1.0, "top1_interval": (0.1, 1.0), "balanced_accuracy": 1.0}
    record = evaluation(**{f"baseline_metrics__{name}": value for name, value in one.items()})
    assert "near-chance-baseline" not in causes(record)


def test_a_baseline_that_says_the_most_frequent_class_only_knows_nothing() -> None:
    record = evaluation(
        **metrics("baseline", 0.9),
        **metrics("model", 0.9),
        baseline_outputs=Outputs(0.5, 0.0, 0.0, 1, 1.0, 0),
    )
    found = only(changed(record, baseline_metrics__balanced_accuracy=0.1), "near-chance-baseline")
    assert "says the same class for every image; its preprocessing, known from layers" in found.text
    assert "pixels become 0 to 255" in found.text
    assert causes(changed(record, baseline_outputs__predicted_classes=2)) == []
    assert "near-chance-baseline" not in causes(changed(record, data__classes=1))


def test_without_labels_one_class_for_all_images_may_be_right() -> None:
    found = only(changed(UNLABELLED, baseline_outputs__predicted_classes=1), "near-chance-baseline")
    assert not found.serious


@pytest.mark.parametrize(("high", "fires"), [(0.599, True), (0.6, False)])
def test_a_baseline_that_is_often_wrong_is_no_reference(high: float, fires: bool) -> None:
    record = evaluation(
        baseline_metrics__top1=high - 0.02,
        baseline_metrics__top1_interval=(high - 0.04, high),
        **metrics("model", 0.57),
    )
    assert ("weak-baseline" in causes(record)) == fires


@pytest.mark.parametrize(("train", "fires"), [(0.984, False), (0.99, True)])
def test_training_accuracy_far_above_is_overfitting(train: float, fires: bool) -> None:
    if fires:
        found = only(HEALTHY, "train-far-above-test", train_accuracy=train)
        assert "99.0 % of its training images and on 88.5 % of these, 10.5 points fewer" in found.text
    else:
        assert causes(HEALTHY, train_accuracy=train) == []


def test_few_images_may_be_below_the_training_accuracy_by_chance() -> None:
    record = evaluation(baseline_metrics__top1=0.8, baseline_metrics__top1_interval=(0.6, 0.95))
    assert causes(record, train_accuracy=0.94) == []


# --- The quantized model ----------------------------------------------------------------------------------------------

HARD_B0: dict[str, Any] = {
    **metrics("baseline", 0.699),
    **metrics("model", 0.224),
    "paired__agreement": 0.23,
    "paired__top1": Difference(-0.475, (-0.51, -0.44), 0.0),
}


def test_a_collapse_names_what_to_test_in_order() -> None:
    found = only(evaluation(**HARD_B0), "collapse")
    assert found.serious
    assert "best class on 23.0 % of 2,000 images, and top-1 22.4 % instead of 69.9 %" in found.text
    places = [
        found.text.index(f"{name}:")
        for name in ("preprocessing", "label offset", "constant output", "clipped output", "input range")
    ]
    assert places == sorted(places)
    assert "SUSPICIOUS" not in found.text
    assert found.advice.startswith("none of these explains it, so it is quantization itself")


@pytest.mark.parametrize(
    ("agreement", "high", "fires"),
    [(0.5, -0.2, False), (0.499, -0.2, True), (0.5, -0.201, True)],
)
def test_a_collapse_is_little_agreement_or_much_lost(agreement: float, high: float, fires: bool) -> None:
    record = evaluation(
        **HARD_B0 | {"paired__agreement": agreement, "paired__top1": Difference(high - 0.05, (high - 0.1, high))}
    )
    assert ("collapse" in causes(record)) == fires


def test_a_collapse_shows_without_labels() -> None:
    found = only(changed(UNLABELLED, paired__agreement=0.1), "collapse")
    assert "top-1" not in found.text


@pytest.mark.parametrize(
    ("fields", "evidence", "advice"),
    [
        (
            {"preprocessing__height": 240},
            "preprocessing: SUSPICIOUS, 224 x 240, crop center for the model (metadata), 224 x 224, crop center",
            "both models should see the same pixels",
        ),
        (
            {"paired__flips": tuple(Flip(index, index + 1, 150) for index in range(9))},
            "label offset: SUSPICIOUS, 67.5 % of the images are +1 class from the baseline's",
            "one of the models has a background class",
        ),
        (
            {"model_outputs": Outputs(0.2, 0.0, 0.0, 2, 0.97, 0)},
            "constant output: SUSPICIOUS, 2 of 10 classes are ever said, the commonest on 97.0 % of the images",
            "some tensor holds nothing of the image any more",
        ),
        (
            {"model_outputs": Outputs(0.2, 0.28, 0.0, 10, 0.15, 0)},
            "clipped output: SUSPICIOUS, several classes share the best score on 28.0 % of the images",
            "the output's range was set too narrow",
        ),
        (
            {"preprocessing__mean": (127.5,) * 3, "preprocessing__std": (127.5,) * 3},
            "input range: SUSPICIOUS, -1 to 1 for the model, 0 to 255 for the baseline",
            "say what black and white are with --input-range",
        ),
    ],
)
def test_a_collapse_says_what_is_suspicious(fields: dict[str, Any], evidence: str, advice: str) -> None:
    found = only(evaluation(**HARD_B0 | fields), "collapse")
    assert evidence in found.text
    assert found.text.count("SUSPICIOUS") == 1
    assert found.advice.startswith(advice)


def test_scores_that_are_no_numbers_are_counted() -> None:
    found = only(evaluation(model_outputs__not_finite=3, baseline_outputs__not_finite=1), "not-finite")
    assert "the scores of 1 of the baseline's and 3 of the model's 2,000 images are no numbers" in found.text


@pytest.mark.parametrize(("ties", "fires"), [(0.05, False), (0.06, True)])
def test_ties_mean_a_clipped_output(ties: float, fires: bool) -> None:
    record = evaluation(model_outputs__top1_ties=ties)
    assert causes(record) == (["clipped-output"] if fires else [])
    assert causes(changed(record, baseline_outputs__top1_ties=ties)) == []


def test_a_model_that_lost_much_but_not_all() -> None:
    found = only(
        evaluation(
            **metrics("baseline", 0.718), **metrics("model", 0.55), paired__top1=Difference(-0.17, (-0.19, -0.15))
        ),
        "weak-model",
    )
    assert "top-1 is 55.0 % (95 %: at most 57.2 %), the baseline's 71.8 %" in found.text
    assert causes(evaluation(**metrics("baseline", 0.718), **metrics("model", 0.59))) == []


# --- Classes ----------------------------------------------------------------------------------------------------------


def rare(right: int, support: int, predicted: int = 60) -> EvaluationRecord:
    return evaluation(
        **metrics("model", 0.98),
        by_class=(
            one_class(0, right=980, support=1000),
            one_class(1, right=right, support=support, predicted=predicted),
        ),
    )


def test_a_rare_class_that_is_missed_is_the_accuracy_paradox() -> None:
    """The course's example: 98 % accuracy, 12 % recall of a rare class."""
    found = only(rare(6, 50, predicted=50), "accuracy-paradox")
    assert found.serious
    assert "top-1 is 98.0 % because the common classes are right; recall of rare ones: dog 12.0 % of 50" in found.text
    assert "--min-class-recall dog=0.8" in found.advice
    assert found.figures["recall"] == 0.12


@pytest.mark.parametrize(
    ("right", "support"),
    [(25, 50), (1, 3), (100, 400)],
    ids=["half of it is right", "too few to tell", "not rare"],
)
def test_what_is_no_paradox(right: int, support: int) -> None:
    assert "accuracy-paradox" not in causes(rare(right, support, predicted=support))


def test_a_low_accuracy_is_no_paradox() -> None:
    assert "accuracy-paradox" not in causes(changed(rare(6, 50), model_metrics__top1=0.79))


@pytest.mark.parametrize(("recall", "fires"), [(0.75, True), (0.79, False)])
def test_means_of_precision_and_recall_that_are_far_apart(recall: float, fires: bool) -> None:
    record = evaluation(model_metrics__macro_recall=recall)
    assert causes(record) == (["precision-recall-gap"] if fires else [])


def test_a_class_that_is_said_too_often_is_named() -> None:
    classes = (one_class(0, right=190, predicted=400), *HEALTHY.by_class[1:])
    found = only(evaluation(by_class=classes), "precision-recall-gap")
    assert "far apart for cat 47.5 % and 95.0 %" in found.text
    few = (one_class(0, right=5, support=5, predicted=8), *HEALTHY.by_class[1:])
    assert "precision-recall-gap" not in causes(evaluation(by_class=few))


def test_a_class_that_is_never_said_has_no_precision_to_be_far_from() -> None:
    silent = (one_class(0, right=0, predicted=0), *HEALTHY.by_class[1:])
    assert causes(evaluation(by_class=silent)) == []


# --- Cost and kernels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("macs", "top1", "fires"), [(4_400_000_000, 0.76, True), (1_790_000_000, 0.76, False), (4_400_000_000, 0.8, False)]
)
def test_many_macs_for_little_accuracy(macs: int, top1: float, fires: bool) -> None:
    record = evaluation(model_macs=macs, baseline_macs=macs, **metrics("model", top1))
    assert causes(record) == (["inefficient"] if fires else [])
    if fires:
        assert find(record)[0].text.startswith("4.40 G MACs and 6.2 MB for a top-1 of 76.0 %")


@pytest.mark.parametrize(("times", "high", "fires"), [(2.0, 0.004, True), (1.4, 0.004, False), (2.0, 0.02, False)])
def test_more_macs_than_the_baseline_should_buy_something(times: float, high: float, fires: bool) -> None:
    before = 385_814_880
    record = evaluation(model_macs=int(times * before), paired__top1=Difference(0.0, (-0.004, high)))
    assert causes(record) == (["inefficient"] if fires else [])


@pytest.mark.parametrize(("agreement", "fires"), [(0.98, False), (0.97, True)])
def test_runtimes_that_compute_something_else(agreement: float, fires: bool) -> None:
    host, board = Runtime("ai-edge-litert", "2.3.0"), Runtime("tflite-runtime", "2.14.0")
    record = evaluation(target="pi4", kernels=Kernels(IMAGES, agreement, 0.4, 0.2, host, board))
    assert causes(record) == (["kernels-differ"] if fires else [])
    if fires:
        assert "here and on pi4 on 97.0 % of 2,000 images; ai-edge-litert 2.3.0 here" in find(record)[0].text


# --- The images -------------------------------------------------------------------------------------------------------


def test_leaks_are_counted_once_and_by_their_source() -> None:
    leaks = [
        Leak("exact", "train", "cat/1.jpg", "train/cat/7.jpg"),
        Leak("near", "train", "cat/1.jpg", "train/cat/8.jpg"),
        Leak("near", "train", "cat/2.jpg", "train/cat/9.jpg"),
        Leak("near", "calibration", "cat/2.jpg", "c/1.jpg"),
    ]
    found = only(HEALTHY, "leakage", leaks=leaks)
    assert "2 among the training images (1 the same bytes, 1 nearly the same)" in found.text
    assert "1 among the calibration images (0 the same bytes, 1 nearly the same)" in found.text
    assert "cat/1.jpg = train/cat/7.jpg" in found.text
    assert found.text.endswith("and 1 more")
    assert not found.serious
    assert found.figures["train_exact"] == 1


@pytest.mark.parametrize(("count", "serious"), [(20, False), (21, True)])
def test_many_leaks_are_serious(count: int, serious: bool) -> None:
    leaks = [Leak("exact", "train", f"{index}.jpg", "t.jpg") for index in range(count)]
    assert only(HEALTHY, "leakage", leaks=leaks).serious is serious
    assert not only(HEALTHY, "leakage", leaks=[Leak("near", "evaluation", f"{i}", "t") for i in range(50)]).serious


def test_a_set_too_small_for_the_asked_gate() -> None:
    def asked(limit: float) -> EvaluationRecord:
        return changed(HEALTHY, gates=judge(Gates(max_drop=limit), HEALTHY))

    assert causes(asked(0.01)) == []
    assert causes(asked(0.0)) == []
    found = only(asked(0.005), "too-few-images")
    assert found.serious
    assert "2,000 images show a difference in top-1 from 0.7 points on; the asked max-drop is 0.5" in found.text
    assert found.figures["images_needed"] == 46543
    assert found.advice == "take about 47,000 images like these"


def test_without_a_drop_that_was_seen_fewer_images_would_do() -> None:
    equal = evaluation(paired__top1=Difference(0.0, (-0.0049, 0.0049)))
    found = only(changed(equal, gates=judge(Gates(max_drop=0.005), equal)), "too-few-images")
    assert not found.serious
    assert found.figures["images_needed"] == pytest.approx(3768, abs=2)  # 0.012 * (2.8016 / 0.005) ** 2
    assert found.advice == "take about 3,800 images like these"


@pytest.mark.parametrize(("high", "fires"), [(-0.011, False), (-0.009, True)])
def test_more_images_are_not_asked_for_where_these_said_no(high: float, fires: bool) -> None:
    worse = evaluation(paired__top1=Difference(-0.04, (-0.07, high)), paired__smallest_difference=0.06)
    record = changed(worse, gates=judge(Gates(max_drop=0.01), worse))
    assert ("too-few-images" in causes(record)) is fires


@pytest.mark.parametrize(("smallest", "fires"), [(0.05, False), (0.06, True)])
def test_a_small_set_where_no_gate_was_asked(smallest: float, fires: bool) -> None:
    record = evaluation(paired__smallest_difference=smallest)
    assert causes(record) == (["too-few-images"] if fires else [])


def test_a_small_set_without_labels() -> None:
    assert causes(changed(UNLABELLED, paired__images=99)) == ["too-few-images"]
    assert causes(changed(UNLABELLED, paired__images=100)) == []
    assert causes(changed(UNLABELLED, paired__agreement_interval=(0.85, 0.96))) == ["too-few-images"]


def test_ten_classes_of_a_thousand_have_a_precision_of_one_by_construction() -> None:
    elsewhere = one_class(900, support=0, right=0, predicted=200)
    record = evaluation(classes=1000, by_class=(*HEALTHY.by_class, elsewhere), model_metrics__macro_precision=0.995)
    found = only(record, "classes-without-images")
    assert "10 of the model's 1,000 classes have images" in found.text
    assert "near 1 by construction (99.5 %)" in found.text
    assert "--restrict" in found.advice
    restricted = changed(record, by_class=HEALTHY.by_class, model_metrics__macro_precision=0.8822)
    assert causes(restricted) == []


def test_classes_that_have_no_image_are_named() -> None:
    record = evaluation(data__classes=8, by_class=HEALTHY.by_class[:8])
    assert "8 of the model's 10 classes have images; none has elk, yak" in only(record, "classes-without-images").text
    assert causes(evaluation(data__classes=8, names=())) == ["classes-without-images"]


@pytest.mark.parametrize(("count", "serious"), [(2, False), (40, True)])
def test_images_that_could_not_be_read(count: int, serious: bool) -> None:
    bad = tuple((f"cat/{index}.jpg", "truncated") for index in range(count))
    found = only(evaluation(data__unreadable=bad), "unreadable-images")
    assert found.serious is serious
    assert "cat/0.jpg (truncated), cat/1.jpg (truncated)" in found.text


# --- As in life -------------------------------------------------------------------------------------------------------


def scores(labels: Any, right: Any, generator: np.random.Generator, classes: int) -> Any:
    """Return logits of a model that is right where it says so, and else says another class."""
    wrong = (labels + generator.integers(1, classes, len(labels))) % classes
    said = np.where(right, labels, wrong)
    return 6 * np.eye(classes)[said] + generator.normal(0, 0.5, (len(labels), classes))


def test_scores_of_a_healthy_model_have_no_findings() -> None:
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(10), 200)
    baseline = scores(labels, generator.random(2000) < 0.88, generator, 10)
    record = judged_images(labels, baseline, baseline + generator.normal(0, 0.3, baseline.shape))
    assert causes(changed(record, gates=judge(Gates(max_drop=0.01), record))) == []


def test_scores_that_are_always_the_same_are_a_constant_output() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(10), 100)
    baseline = scores(labels, generator.random(1000) < 0.7, generator, 10)
    record = judged_images(labels, baseline, np.tile(np.arange(10.0), (1000, 1)))
    (found,) = [one for one in find(record) if one.cause == "collapse"]
    assert "constant output: SUSPICIOUS, 1 of 10 classes are ever said" in found.text


def test_labels_that_are_one_off_are_found_in_scores() -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat(np.arange(1, 10), 50)
    baseline = scores(labels, generator.random(450) < 0.9, generator, 10)
    record = judged_images(labels - 1, baseline, baseline)
    matrix = np.zeros((10, 10), np.int64)
    for right, said, count in record.baseline_confusion:
        matrix[right, said] = count
    found = find(record, suspicion=suspect(matrix))
    assert found[0].cause == "labels-off"
    assert found[0].text.startswith("every label seems to be one too low")


def test_a_rare_class_that_is_never_said_is_found_in_scores() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat((0, 1), (980, 25))
    baseline = scores(labels, (labels == 0) | (generator.random(1005) < 0.12), generator, 2)
    record = judged_images(labels, baseline, baseline)
    assert "accuracy-paradox" in causes(record)
    (gate,) = judge(Gates(min_class_recall={"dog": 0.8}), record)
    assert not gate.passed


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_no_table_breaks_findings_gates_or_the_view(data: st.DataObject) -> None:
    classes, count = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 30))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    labels = generator.integers(data.draw(st.sampled_from((-1, 0))), data.draw(st.integers(0, classes - 1)) + 1, count)
    if data.draw(st.booleans()):
        labels[:] = -1
    baseline, model = (generator.integers(0, 4, (count, classes)).astype(float) for _ in range(2))
    model[generator.random(count) < 0.1] = np.nan
    record = judged_images(labels, baseline, model)
    gates = Gates(min_agreement=0.5)
    if record.model_metrics is not None:
        gates = Gates(0.01, 0.5, 0.5, 0.5, {"*": 0.5}, 0.05, 0.5)
    judged = judge(gates, record)
    assert [gate.gate for gate in judged] == list(gates.asked)
    record = changed(record, gates=judged)
    record = changed(record, findings=find(record))
    assert all(math.isfinite(figure) for finding in record.findings for figure in finding.figures.values())
    assert to_json(record)
    to_junit([record])
    view.render([record, record], Console(file=io.StringIO(), width=80))
