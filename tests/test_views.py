"""Views of photographs are new images of the same things, and always the same ones."""

from __future__ import annotations

import numpy as np

from edgeeff.calibration.views import Views
from tests import tiny

PHOTOS = np.stack(tiny.images(3, size=24))


def test_images_come_first_as_they_are_then_mirrored() -> None:
    views = Views(PHOTOS, 12, seed=0)
    np.testing.assert_array_equal(views[:3], PHOTOS)
    np.testing.assert_array_equal(views[3:6], PHOTOS[:, :, ::-1])


def test_further_views_are_all_different_and_look_alike() -> None:
    views = Views(PHOTOS, 30, seed=0)[6:]
    assert views.shape == (24, 24, 24, 3)
    assert views.dtype == np.uint8
    assert len(np.unique(views.reshape(24, -1), axis=0)) == 24
    # None is much brighter or darker than what it was taken from.
    means = views.reshape(8, 3, -1).mean(axis=2) - PHOTOS.reshape(3, -1).mean(axis=1)
    assert np.abs(means).max() < 70


def test_a_view_depends_on_its_number_and_the_seed_alone() -> None:
    views = Views(PHOTOS, 30, seed=0)
    np.testing.assert_array_equal(views[20], views[:][20])
    np.testing.assert_array_equal(views[20], Views(PHOTOS, 21, seed=0)[-1])
    assert not np.array_equal(views[20], Views(PHOTOS, 30, seed=1)[20])


def test_none_are_an_empty_stack() -> None:
    assert Views(PHOTOS, 30, seed=0)[:0].shape == (0, 24, 24, 3)
