from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeeff.converters import metadata
from edgeeff.errors import InputError
from edgeeff.evaluation import labels
from edgeeff.evaluation.dataset import Dataset, Example, Kind
from edgeeff.evaluation.labels import map_classes, suspect

WORDS, SYNSETS = metadata.imagenet_labels(), metadata.imagenet_synsets()
PETS = ("cat", "great white shark", "dog")


def data(*names: str, empty: Sequence[str] = (), kind: Kind = "folders", notes: tuple[str, ...] = ()) -> Dataset:
    """One image of every class but the empty ones."""
    examples = [Example(f"{name}/a.jpg", "a.jpg", n) for n, name in enumerate(names) if name not in empty]
    return Dataset(kind, "data", tuple(examples), names, notes)


def test_synsets_are_those_of_imagenet_in_order() -> None:
    assert len(SYNSETS) == len(set(SYNSETS)) == len(WORDS) == 1000
    assert list(SYNSETS) == sorted(SYNSETS)
    known = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n03000684": "chain saw",
        "n15075141": "toilet tissue",
    }
    assert {synset: WORDS[SYNSETS.index(synset)].lower() for synset in known} == {
        k: v.lower() for k, v in known.items()
    }


@pytest.mark.accuracy
def test_synsets_are_those_of_the_imagenet_sample(shared: Path) -> None:
    lines = (shared / "data" / "imagenet-sample" / "labels.csv").read_text().splitlines()[1:]
    assert tuple(line.split(",")[2] for line in lines) == SYNSETS


# Names


def test_names_are_matched_whatever_their_order_and_spelling() -> None:
    found = map_classes(data("Dog", "great_white-shark", "CAT"), 3, PETS)
    assert (found.indices, found.names, found.how) == ((2, 1, 0), PETS, "names")
    assert found.notes == ("the data's classes are in another order than the model's: they are matched by name",)
    assert map_classes(data("cat", "dog"), 3, PETS).indices == (0, 2)


def test_synonyms_and_accents() -> None:
    model = ("tench, Tinca tinca", "goldfish, Carassius auratus", "K\u00e4se")
    assert map_classes(data("tench", "goldfish, gold fish", "Ka\u0308se"), 3, model).indices == (0, 1, 2)


def test_a_whole_name_comes_before_a_first_synonym() -> None:
    assert map_classes(data("crane"), 2, ("crane, bird", "crane")).indices == (1,)


@settings(max_examples=40)
@given(st.sets(st.text("abcdefgh", min_size=1, max_size=5), min_size=2, max_size=8), st.randoms())
def test_the_order_of_folders_makes_no_difference(words: set[str], shuffler: random.Random) -> None:
    model = list(words)
    shuffler.shuffle(model)
    found = map_classes(data(*sorted(words)), len(model), model)
    assert [model[index] for index in found.indices] == sorted(words)


def test_integers_that_are_the_models_names_are_names() -> None:
    assert map_classes(data("1", "2"), 2, ("2", "1")).indices == (1, 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("cat", "dogs", "xyzzy"),
            r"2 of the data's classes are none of the model's 3 labels: 'dogs' \(nearest: 'dog'\), 'xyzzy'\. .*begin "
            "with cat, great white shark, dog",
        ),
        (tuple("opqrstu"), r"7 of .*: 'o', 'p', 'q', 'r', 's', \.\.\.\."),
        (("cat", "CAT"), "cat, CAT are one class of the model, 0 'cat'"),
        (("0", "7"), "none of the model's 3 labels: '0', '7'"),
    ],
)
def test_names_that_cannot_be_matched(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_classes(data(*names), 3, PETS)


def test_a_name_that_two_classes_have() -> None:
    with pytest.raises(InputError, match=r"'crane' .* any of the model's classes 134, 517, .* by index or by synset"):
        map_classes(data("tench", "crane"), 1000, WORDS)


def test_folders_without_images_do_no_harm() -> None:
    found = map_classes(data("cat", "dog", "notes", empty=["dog", "notes"]), 3, PETS)
    assert found.indices == (0, 2, -1)
    assert found.notes == (
        "1 classes without images are none of the model's (notes)",
        "1 of the 3 classes of the data have no image (dog)",
        "the data has images of 1 of the model's 3 classes: figures are of these, and precision does not count what "
        "the model would make of images of the others",
    )


# Synsets


def test_synsets() -> None:
    folders = data("n01440764", "n15075141")
    for model in (None, WORDS, tuple(f"{name}, x" for name in WORDS)):
        found = map_classes(folders, 1000, model)
        assert (found.indices, found.how) == ((0, 999), "synsets")
    found = map_classes(folders, 1001, None)
    assert found.indices == (1, 1000)
    assert "the first is taken to be a background class" in found.notes[0]
    assert map_classes(folders, 1001, (*WORDS, "background")).indices == (0, 999)
    assert map_classes(folders, 1001, WORDS).indices == (1, 1000)
    assert map_classes(data(*SYNSETS), 1000, WORDS).indices == tuple(range(1000))


def test_synsets_in_a_model_of_fewer_classes() -> None:
    assert map_classes(data("n01440764", "n01443537"), 3, ("goldfish", "cow", "tench")).indices == (2, 0)
    assert map_classes(data("n01440764", "n01443537"), 2, ("n01443537", "n01440764")).indices == (1, 0)
    assert map_classes(data("n01440764", "n01443537"), 2, None).how == "sorted order"
    with pytest.raises(InputError, match=r"1 of .* none .*: 'n01443537'"):
        map_classes(data("n01440764", "n01443537"), 2, ("tench", "cow"))


# Indices


def test_integers_are_indices() -> None:
    found = map_classes(data("2", "7", "11", kind="csv"), 12, None)
    assert (found.indices, found.how, found.names) == ((2, 7, 11), "indices", ())
    assert map_classes(data("0", "2", kind="csv"), 3, PETS).indices == (0, 2)


def test_one_off_is_seen_in_numbers() -> None:
    found = map_classes(data("1", "2", "3", kind="tfrecord"), 3, None)
    assert found.indices == (0, 1, 2)
    assert found.notes == ("the data counts its classes from 1 to 3: 1 is the model's class 0",)
    with pytest.raises(InputError, match=r"label 3, but the model's classes are 0 to 2; are they counted from 1\?"):
        map_classes(data("1", "3", kind="csv"), 3, None)
    with pytest.raises(InputError, match=r"label 3, but the model's classes are 0 to 2$"):
        map_classes(data("0", "3", kind="csv"), 3, None)
    with pytest.raises(InputError, match="label -1, but"):
        map_classes(data("-1", "1", kind="csv"), 3, None)
    assert "all are off by one" in map_classes(data("0", "999", kind="csv"), 1001, None).notes[0]
    assert map_classes(data("0", "999", kind="csv"), 1001, WORDS).indices == (1, 1000)
    assert map_classes(data("1", "1000", kind="csv"), 1001, WORDS).indices == (1, 1000)


def test_the_same_number_twice() -> None:
    with pytest.raises(InputError, match="1, 01 are one class of the model, 1: join them"):
        map_classes(data("1", "01", kind="csv"), 3, None)


def test_folders_of_numbers_may_be_in_the_order_of_their_text() -> None:
    names = sorted(str(n) for n in range(12))
    found = map_classes(data(*names), 12, None)
    assert found.indices == tuple(int(name) for name in names)
    assert any("image_dataset_from_directory" in note and "0, 1, 10, 11, 2" in note for note in found.notes)
    assert map_classes(data(*"0123"), 4, None).notes == ()
    assert map_classes(data("1950", "1960"), 2, None).how == "sorted order"


# Sorted order


def test_without_names_the_order_counts_and_empty_folders_do_too() -> None:
    found = map_classes(data("cat", "cow", "dog", empty=["cow"], notes=("seen before",)), 3, None)
    assert (found.indices, found.how, found.names) == ((0, 1, 2), "sorted order", ())
    assert found.notes[:2] == (
        "seen before",
        "the model does not name its classes: they are taken to be the data's in sorted order (cat, cow, dog)",
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_without_names_the_numbers_of_classes_must_be_equal(classes: int) -> None:
    message = rf"3 classes \(cat, great white shark, dog\), the model has {classes} .*--labels FILE"
    with pytest.raises(InputError, match=message):
        map_classes(data(*PETS), classes, None)


def test_unlabelled() -> None:
    found = map_classes(Dataset("unlabelled", "data", (Example("a.jpg", "a.jpg", -1),), ()), 3, PETS)
    assert (found.indices, found.names, found.how, found.notes) == ((), PETS, "unlabelled", ())


# The labels themselves


def test_a_background_line_is_seen() -> None:
    for first in ("background", "__Background__", "???", "dummy"):
        found = map_classes(data("dog"), 3, (first, *PETS))
        assert (found.indices, found.names) == ((2,), PETS)
        assert f"the first label, '{first}', was left out" in found.notes[0]
    assert map_classes(data("dog"), 4, ("background", *PETS)).indices == (3,)
    found = map_classes(data("tench"), 1001, WORDS)
    assert (found.indices, found.names[0]) == ((1,), "background")
    assert "its first is taken to be the background class" in found.notes[0]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (2, r"3 labels, and the model has 2 classes: one line too many.*\(the first is 'cat'\)"),
        (4, r"3 labels, and the model has 4 classes: one too few.*off by one.*add a line 'background'"),
        (7, r"3 labels, and the model has 7 classes: give one name per line"),
    ],
)
def test_labels_of_another_number(classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_classes(data("cat"), classes, PETS)


def test_a_thousand_other_labels_are_not_taken_for_imagenet() -> None:
    with pytest.raises(InputError, match="one too few"):
        map_classes(data("0"), 1001, tuple(f"bird {n}" for n in range(1000)))


def test_reading_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("dog\n cat\n")
    assert labels.read_labels(path) == ("dog", "cat")
    path.write_text("dog\n\ncat\n")
    with pytest.raises(InputError, match="line 2"):
        labels.read_labels(path)


# Suspicions

Table = npt.NDArray[np.int64]


def confusion(classes: int, images: int, accuracy: float, seed: int = 0) -> Table:
    """`images` of each class, of which `accuracy` are right and the others anything."""
    generator = np.random.default_rng(seed)
    table = np.zeros((classes, classes), np.int64)
    for label in range(classes):
        said = np.where(generator.random(images) < accuracy, label, generator.integers(0, classes, images))
        table[label] = np.bincount(said, minlength=classes)
    return table


@settings(max_examples=60)
@given(st.integers(2, 40), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_model_that_is_right_or_blind_is_not_suspected(classes: int, images: int, accuracy: float, seed: int) -> None:
    assert suspect(confusion(classes, images, accuracy, seed)) is None


@settings(max_examples=50)
@given(st.integers(3, 30), st.integers(20, 60), st.floats(0.9, 1), st.integers(0, 2**32 - 1))
def test_another_order_is_found(classes: int, images: int, accuracy: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(classes)
    moved = int((order != np.arange(classes)).sum())
    assume(moved * images >= 40)
    table = confusion(classes, images, accuracy, seed)[order]  # the row of label i holds images of class order[i]
    found = suspect(table)
    assert found is not None
    after = table[np.arange(classes), order].sum() / table.sum()
    assert found.accuracy < found.accuracy_after
    if found.kind == "permutation":
        assert found.mapping == tuple(order)
        assert found.accuracy_after == pytest.approx(after)
    else:
        assert found.accuracy_after >= after - 0.05


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.parametrize(("classes", "images", "accuracy"), [(1001, 1, 0.77), (10, 20, 0.9), (1001, 5, 0.4)])
def test_labels_that_are_off_by_one(shift: int, classes: int, images: int, accuracy: float) -> None:
    table = np.roll(confusion(classes, images, accuracy), -shift, axis=0)
    table[-1 if shift == 1 else 0] = 0  # no image of the class that falls off the end
    found = suspect(table)
    assert found is not None
    assert (found.kind, found.shift) == ("shift", shift)
    assert found.accuracy < 0.05 + 1 / classes
    assert found.accuracy_after > accuracy - 0.1
    assert found.mapping[1:-1] == tuple(range(1 + shift, classes - 1 + shift))
    assert found.mapping[-1 if shift == 1 else 0] == -1


def test_two_classes_the_wrong_way_round() -> None:
    found = suspect(np.array([[5, 45], [48, 2]]))
    assert found == labels.Suspicion("permutation", 0, 0.07, 0.93, (1, 0))


@pytest.mark.parametrize(
    "table",
    [
        [[0, 0], [0, 0]],
        [[0, 50], [0, 50]],  # collapsed to one class
        [[0, 90, 0], [0, 5, 0], [0, 5, 0]],  # collapsed, and most images are of another class
        [[20, 30, 0], [0, 50, 0], [0, 0, 50]],  # weak on one class
        [[45, 55], [55, 45]],  # hardly below chance
        [[0, 2], [2, 0]],  # too few
    ],
)
def test_what_looks_alike_but_is_none(table: list[list[int]]) -> None:
    assert suspect(np.array(table)) is None
