"""Two evaluations against each other: pairs, independent sets, classes in another order, what else differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.errors import InputError
from edgeeff.evaluation.compare import compare, matches
from edgeeff.evaluation.paired import independent_difference, newcombe
from edgeeff.results import Device, EvaluationRecord, ImageOutcomes, ModelFile, Runtime, to_json
from tests.evaluations import evaluation

Image = tuple[str, int, int]
"""Digest, label, and what the model says."""
PETS = ("cat", "dog", "fox")
SET: tuple[Image, ...] = (
    *[(f"cat{number}", 0, 0 if number < 8 else 1) for number in range(10)],
    *[(f"dog{number}", 1, 1 if number < 6 else 0) for number in range(10)],
)


def judged(images: Sequence[Image], names: tuple[str, ...] = PETS, **fields: Any) -> EvaluationRecord:
    """An evaluation of these images; the baseline's columns are not looked at."""
    digests, labels, said = (tuple(column) for column in zip(*images, strict=True))
    nothing, unsure = (0,) * len(images), (0.5,) * len(images)
    columns = ImageOutcomes(digests, digests, labels, nothing, said, nothing, nothing, unsure, unsure, unsure)
    return evaluation(images=columns, classes=3, names=names, **fields)


def with_said(images: Sequence[Image], **said: int) -> list[Image]:
    return [(digest, label, said.get(digest, before)) for digest, label, before in images]


def test_an_evaluation_differs_in_nothing_from_itself() -> None:
    found = compare(judged(SET), judged(SET))
    assert (found.shared_images, found.paired, found.agreement) == (20, True, 1)
    assert (found.first_only_right, found.second_only_right) == (0, 0)
    assert found.top1 is not None
    assert (found.top1.value, found.top1.p_value) == (0, 1)
    assert found.warnings == ()


def test_shared_images_are_paired_in_whatever_order() -> None:
    second = with_said(SET, cat0=1, dog8=1, dog9=1, cat9=2)
    found = compare(judged(SET), judged(second[::-1]))
    assert (found.shared_images, found.agreement) == (20, 16 / 20)
    assert (found.first_only_right, found.second_only_right) == (1, 2)
    assert found.top1 is not None
    assert found.top1.value == pytest.approx(1 / 20)
    assert found.top1.interval == newcombe(13, 2, 1, 4)
    assert [(name, difference.value) for name, difference in found.by_class] == [("cat", -0.1), ("dog", 0.2)]
    assert found == compare(judged(SET), judged(second))
    to_json(found)


def test_only_shared_images_with_the_same_label_count() -> None:
    second = [*with_said(SET, cat0=1)[:12], ("new", 2, 2), ("dog5", 0, 0)]
    found = compare(judged(SET), judged(second))
    assert (found.shared_images, found.first_only_right, found.second_only_right) == (12, 1, 0)
    assert found.warnings == (
        "they share 12 of 20 and 14 images; everything here is about these",
        "1 images have another label in the second evaluation and are left out",
    )


def test_an_image_that_a_set_has_twice_is_two_images() -> None:
    twice = [("same", 0, 0), ("same", 0, 1), ("other", 1, 1)]
    found = compare(judged(twice), judged(twice))
    assert (found.shared_images, found.agreement) == (3, 1)
    assert compare(judged(twice), judged(twice[:1])).shared_images == 1


keys = st.lists(st.sampled_from("abc"), max_size=8)


@given(keys, keys)
@settings(deadline=None, max_examples=60)
def test_every_key_is_matched_as_often_as_both_have_it(first: list[str], second: list[str]) -> None:
    pairs = list(matches(first, second))
    assert all(first[left] == second[right] for left, right in pairs)
    assert len({left for left, _ in pairs}) == len({right for _, right in pairs}) == len(pairs)
    assert len(pairs) == sum(min(first.count(key), second.count(key)) for key in "abc")
    for key in "abc":
        of_it = [(left, right) for left, right in pairs if first[left] == key]
        assert of_it == sorted(of_it)
        assert [right for _, right in of_it] == sorted(right for _, right in of_it)


def test_sets_without_a_common_image_are_independent() -> None:
    other = [(f"new{digest}", label, said) for digest, label, said in with_said(SET[5:], cat9=0)]
    found = compare(judged(SET), judged(other))
    assert (found.shared_images, found.paired, found.agreement, found.first_only_right) == (0, False, None, None)
    assert found.top1 == independent_difference((10, 15), (14, 20))
    assert [(name, difference.value) for name, difference in found.by_class] == [
        ("cat", pytest.approx(0.8 - 0.8)),
        ("dog", 0),
    ]
    alike = compare(judged(SET), judged(SET)).top1
    assert alike is not None
    assert found.top1 is not None
    assert alike.interval[1] - alike.interval[0] < found.top1.interval[1] - found.top1.interval[0]


def test_classes_are_matched_by_name() -> None:
    turned = {0: 2, 1: 0, 2: 1}  # cat, dog, fox are fox's, cat's and dog's places in the second
    second = [(digest, turned[label], turned[said]) for digest, label, said in with_said(SET, cat0=2)]
    found = compare(judged(SET), judged(second, names=("dog", "fox", "cat")))
    assert found == compare(judged(SET), judged(with_said(SET, cat0=2)))
    assert found.warnings == ()


def test_names_that_occur_twice_are_matched_in_their_order() -> None:
    # ImageNet has two classes that are both called crane: a bird and a machine.
    images = [("a", 0, 0), ("b", 2, 2), ("c", 1, 0)]
    moved = [("a", 1, 1), ("b", 2, 2), ("c", 0, 1)]
    found = compare(judged(images, names=("crane", "dog", "crane")), judged(moved, names=("dog", "crane", "crane")))
    assert (found.shared_images, found.agreement, found.first_only_right) == (3, 1, 0)


def test_other_names_are_matched_by_index_and_that_is_said() -> None:
    found = compare(judged(SET), judged(SET, names=("cat", "Hund", "fox")))
    assert found.agreement == 1
    assert found.warnings == ("classes have different names and are matched by index: 1 is 'dog' and 'Hund'",)
    unnamed = compare(judged(SET, names=()), judged(SET))
    assert [name for name, _ in unnamed.by_class] == ["0", "1"]
    assert unnamed.warnings == ()


def test_without_labels_agreement_is_all() -> None:
    unlabelled = [(digest, -1, said) for digest, _, said in with_said(SET, cat0=1)]
    for first, second in ((unlabelled, SET), (SET, unlabelled), (unlabelled, unlabelled)):
        found = compare(judged(first), judged(second))
        assert found.shared_images == 20
        assert found.agreement == (1 if first is second else 0.95)
        assert (found.top1, found.by_class, found.first_only_right) == (None, (), None)
        assert found.warnings == ("not both have labels: only their agreement is told",)


def test_an_image_without_a_best_class_agrees_with_nothing() -> None:
    found = compare(judged(with_said(SET, cat0=-1)), judged(with_said(SET, cat0=-1)))
    assert found.agreement == 0.95


def test_what_else_differs_is_said() -> None:
    second = judged(
        SET,
        baseline=ModelFile("other.keras", "12" * 32, 1),
        data__sha256="34" * 32,
        data__path="photos/test",
        target="pi4",
        device=Device("pi4", "aarch64", "Linux 6.6", "Cortex-A72", 4, emulated=True),
        runtime=Runtime("tflite-runtime", "2.14.0", "none"),
        preprocessing__crop="none",
    )
    assert compare(judged(SET), second).warnings == (
        "different baselines: b0.keras and other.keras",
        "different data: photos/val and photos/test",
        "target: local in the first, pi4 in the second",
        "device: desk (x86_64, 2 x Xeon) in the first, pi4 (aarch64, 4 x Cortex-A72) in the second",
        "emulation: not emulated in the first, emulated in the second",
        "runtime: ai-edge-litert 2.3.0 in the first, tflite-runtime 2.14.0 in the second",
        "delegate: xnnpack in the first, none in the second",
        "preprocessing: 224x224, crop center, mean 0, 0, 0, std 1, 1, 1 in the first, "
        "224x224, crop none, mean 0, 0, 0, std 1, 1, 1 in the second",
    )


def test_where_a_preprocessing_is_known_from_is_no_difference() -> None:
    assert compare(judged(SET), judged(SET, preprocessing__source="options", data__path="elsewhere")).warnings == ()


def test_other_classes_or_nothing_in_common_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"3 classes and .* 4"):
        compare(judged(SET), replace(judged(SET), classes=4))
    alone = [("somewhere", -1, 0)]
    with pytest.raises(InputError, match="nothing to compare"):
        compare(judged(SET), judged(alone))
