"""Which images set the ranges, checked against all values at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.calibration.extremes import Extremes, short

Values = npt.NDArray[np.float64]


def taken(low: Values, high: Values) -> Extremes:
    """Show (images, tensors) lowest and highest values; images are called by their number."""
    extremes = Extremes([f"t{one}" for one in range(low.shape[1])], [f"block{one}" for one in range(low.shape[1])])
    for number, (lows, highs) in enumerate(zip(low, high, strict=True)):
        extremes.add(str(number), lows, highs)
    return extremes


@pytest.fixture
def values() -> tuple[Values, Values]:
    random = np.random.default_rng(1)
    low, high = np.sort(random.normal(0, 1, (2, 100, 7)), axis=0)
    return low, high


def widths(low: Values, high: Values) -> Values:
    result: Values = np.maximum(high.max(axis=0), 0) - np.minimum(low.min(axis=0), 0)
    return result


def test_widths_hold_zero(values: tuple[Values, Values]) -> None:
    assert taken(*values).widths == pytest.approx(widths(*values))
    assert taken(np.full((3, 1), 2.0), np.full((3, 1), 5.0)).widths == pytest.approx([5.0])


def test_lone_images_are_those_without_which_ranges_are_narrower(values: tuple[Values, Values]) -> None:
    low, high = values
    high[17, :4] = 40.0
    low[60, 2:] = -90.0
    expected = {}
    for image in range(len(low)):
        ratio = widths(np.delete(low, image, 0), np.delete(high, image, 0)) / widths(low, high)
        if (ratio < 0.9).any():
            expected[str(image)] = ((ratio < 0.9).sum(), f"t{ratio.argmin()}", ratio.min())
    found = {one.image: (one.tensors, one.worst, one.worst_ratio) for one in taken(low, high).lone()}
    assert found.keys() == expected.keys() == {"17", "60"}
    for name, (tensors, worst, least) in expected.items():
        assert found[name][:2] == (tensors, worst)
        assert found[name][2] == pytest.approx(least)


def test_the_image_that_sets_most_ranges_comes_first(values: tuple[Values, Values]) -> None:
    low, high = values
    high[3, :2], high[5, 2:] = 50.0, 50.0
    assert [one.image for one in taken(low, high).lone()] == ["5", "3"]


def test_an_outlier_that_is_there_twice_is_not_alone(values: tuple[Values, Values]) -> None:
    low, high = values
    high[3] = high[4] = 50.0
    assert not {"3", "4"} & {one.image for one in taken(low, high).lone()}


def test_halves_are_every_second_image(values: tuple[Values, Values]) -> None:
    low, high = values
    high[4, 6] = 30.0
    even, odd = widths(low[::2], high[::2]), widths(low[1::2], high[1::2])
    ratio = np.minimum(even, odd) / np.maximum(even, odd)
    stability = taken(low, high).stability()
    assert stability.median == pytest.approx(np.median(ratio))
    assert stability.lowest == pytest.approx(np.percentile(ratio, 10))
    assert (stability.worst[0].tensor, stability.worst[0].block) == ("t6", "block6")
    assert stability.worst[0].ratio == pytest.approx(ratio[6])


def test_growth_is_a_part_of_the_whole(values: tuple[Values, Values]) -> None:
    low, high = values
    growth = taken(low, high).growth()
    assert [one.images for one in growth] == [8, 16, 32, 64]
    for one in growth:
        ratio = widths(low[: one.images], high[: one.images]) / widths(low, high)
        assert one.median == pytest.approx(np.median(ratio))
        assert one.lowest == pytest.approx(np.percentile(ratio, 10))


def test_enough_is_where_twice_as_many_bring_nothing() -> None:
    high = np.ones((128, 5))
    assert taken(-high, high).enough() == 8
    high[20] = 3.0
    assert taken(-high, high).enough() == 32
    high[100] = 9.0
    assert taken(-high, high).enough() is None
    assert taken(-high[:8], high[:8]).enough() is None


def test_a_tensor_that_is_zero_all_over_is_stable() -> None:
    zeros = np.zeros((16, 2))
    extremes = taken(zeros, zeros)
    assert extremes.lone() == ()
    assert extremes.stability().median == 1.0
    assert extremes.enough() == 8


def test_what_is_kept_does_not_grow_with_the_images() -> None:
    random = np.random.default_rng(0)
    few, many = (taken(-high, high) for high in (random.random((count, 3)) for count in (64, 4096)))
    kept = [
        sum(np.asarray(value).nbytes for value in vars(one).values() if isinstance(value, np.ndarray))
        for one in (few, many)
    ]
    assert kept[0] == kept[1]
    assert len(many.growth()) == len(few.growth()) + 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model_1/block1a/add;model_1/block1a/conv", "block1a/add"),
        ("logits", "logits"),
        ("model/", "model/"),
    ],
)
def test_names_are_shortened(name: str, expected: str) -> None:
    assert short(name) == expected
