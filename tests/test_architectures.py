"""The networks are the published ones: outputs as in keras.applications, Lite0's known accuracy, exact pixels."""

from __future__ import annotations

import csv
import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff import architectures, weights
from edgeeff.errors import InputError, MissingExtraError, ModelError
from edgeeff.scaling import Network, network, phi_network, total_parameters

keras = pytest.importorskip("keras", reason="needs Keras; install the extra host")


def pixels(count: int, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def run(model: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(model(images, training=False))


def stages(name: str, count: int) -> Network:
    """The first blocks of a variant, under another name: quick to build, and never taken from keras.applications."""
    whole = network(name)
    return dataclasses.replace(whole, name=f"{name}-short", blocks=whole.blocks[:count], resolution=32)


@pytest.mark.parametrize("size", [224, 97])  # 97, 49, 25, 13, 7: strides meet odd sizes everywhere
def test_our_b0_equals_that_of_keras(size: int) -> None:
    theirs = architectures.build(network("b0"), weights="none", resolution=size)
    assert isinstance(theirs.layers[2], keras.layers.Normalization)
    ours = architectures.build(dataclasses.replace(network("b0"), name="ours"), weights="none", resolution=size, seed=1)
    assert np.abs(run(ours, pixels(1, size)) - run(theirs, pixels(1, size))).max() > 0.01
    weights.fit(ours, weights.arrays_of(theirs), "b0")
    expected = run(theirs, pixels(2, size))
    assert expected.max() > 0.05  # a flat softmax would agree with anything
    np.testing.assert_allclose(run(ours, pixels(2, size)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", [network("lite1"), network("edgetpu-s"), phi_network(-2.0)], ids=lambda net: net.name)
def test_layers_and_parameters(net: Network) -> None:
    model = architectures.build(net, weights="none", classes=7, softmax=False, resolution=64)
    assert model.count_params() == total_parameters(net, classes=7)
    assert model.input_shape == (None, 64, 64, 3)
    assert model.output_shape == (None, 7)
    names = [layer.name for layer in model.layers]
    assert not [name for name in names if name.startswith("_")]
    assert {"stem_conv", "block2a_project_conv", "block2a_project_bn", "top_conv", "predictions"} <= {*names}


def test_logits_are_what_the_softmax_sees() -> None:
    net = stages("lite0", 3)
    probabilities = run(architectures.build(net, weights="none", classes=9), pixels(2, 32))
    logits = run(architectures.build(net, weights="none", classes=9, softmax=False), pixels(2, 32))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(("net", "side"), [(stages("lite0", 3), 16), (network("b0"), 2)], ids=["ours", "keras"])
def test_without_its_top_a_network_ends_in_a_feature_map(net: Network, side: int) -> None:
    model = architectures.build(net, weights="none", include_top=False, resolution=64)
    assert model.output_shape == (None, side, side, 1280)
    assert "predictions" not in [layer.name for layer in model.layers]


@pytest.mark.parametrize("options", [{"classes": 0}, {"resolution": 31}, {"resolution": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least"):
        architectures.build(network("b0"), weights="none", **options)  # type: ignore[arg-type]


def before_the_stem(model: Any) -> Any:
    """The preprocessing of a model, as a model."""
    stem = next(layer for layer in model.layers if layer.name in ("stem_conv_pad", "stem_conv"))
    return keras.Model(model.input, stem.input)


@pytest.mark.parametrize("name", ["b0", "v2-b0", "v2-s", "lite0", "edgetpu-s", "phi-3"])
def test_preprocessing_is_that_of_the_published_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "randomize", lambda *_: None)  # what follows the preprocessing does not matter
    net = network(name)
    found = run(before_the_stem(architectures.build(net, weights="none", resolution=64)), pixels(1, 64))
    mean, std = (np.array(value) for value in (net.preprocessing.mean, net.preprocessing.std))
    np.testing.assert_allclose(found, (pixels(1, 64) - mean) / std, atol=1e-5)


def test_a_late_stride_is_computed_early_and_exactly() -> None:
    """EdgeTPU's first strided block: a 3x3 convolution at stride 1, then a projection that reads every other output."""
    net = stages("edgetpu-s", 2)
    block = net.blocks[1]
    assert (block.kind, block.stride, block.late_stride) == ("fused", 2, True)
    model = architectures.build(net, weights="none", classes=3, resolution=36)
    layer = {layer.name: layer for layer in model.layers}
    inside = keras.Model(model.input, [layer["block2a_expand_conv_pad"].input, layer["block2a_project_conv"].output])
    features, found = inside(pixels(2, 36))
    wide = keras.ops.conv(features, layer["block2a_expand_conv"].kernel, strides=1, padding="same")
    wide = layer["block2a_expand_activation"](layer["block2a_expand_bn"](wide))
    expected = keras.ops.conv(wide, layer["block2a_project_conv"].kernel, strides=2, padding="same")
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)


@pytest.mark.accuracy
def test_lite0_reproduces_its_known_accuracy(shared: Path) -> None:
    from edgeeff.calibration import images

    try:
        model = architectures.build(network("lite0"))
    except MissingExtraError as error:
        pytest.skip(str(error))
    folder = shared / "data" / "imagenet-sample"
    with (folder / "labels.csv").open(newline="") as file:
        labels = [(folder / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
    right = 0
    batches = images.batches([images.ImageFile(path) for path, _ in labels], 224, 224, 50)
    for index, batch in enumerate(batches):
        best = run(model, batch.astype(np.float32)).argmax(axis=1)
        right += int((best == [label for _, label in labels[50 * index : 50 * (index + 1)]]).sum())
    assert right / len(labels) == pytest.approx(0.880, abs=0.003)


# --- A user's model ---------------------------------------------------------------------------------------------------


def small_model(*extra: Any) -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), *extra, keras.layers.Flatten()])


class Mystery(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """A layer that only its author has."""

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_loads_without_its_optimizer(tmp_path: Path, suffix: str) -> None:
    model = small_model(keras.layers.BatchNormalization())
    model.compile(optimizer="adam", loss="mse")
    model.save(path := tmp_path / f"model{suffix}")
    loaded = architectures.load(path)
    assert not loaded.compiled
    np.testing.assert_array_equal(run(loaded, pixels(2, 8)), run(model, pixels(2, 8)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_unknown_layer_is_named(tmp_path: Path, suffix: str) -> None:
    small_model(Mystery()).save(path := tmp_path / f"model{suffix}")
    with pytest.raises(ModelError, match=r"model\S+ cannot be loaded: it uses 'Mystery'.* SavedModel"):
        architectures.load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_not_run(tmp_path: Path, suffix: str) -> None:
    small_model(keras.layers.Lambda(lambda x: x * 2)).save(path := tmp_path / f"model{suffix}")
    with pytest.raises(ModelError, match="Lambda layer, whose Python code is not run"):
        architectures.load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_a_truncated_model_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    small_model().save(path := tmp_path / f"model{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=r"model\S+ cannot be loaded: .*truncated"):
        architectures.load(path)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        architectures.load(tmp_path / "missing.keras")
    (tmp_path / "cat.png").write_bytes(b"png")
    with pytest.raises(ModelError, match="no Keras model: give a"):
        architectures.load(tmp_path / "cat.png")
    small_model().save_weights(tmp_path / "some.weights.h5")
    with pytest.raises(ModelError, match="holds weights without a model"):
        architectures.load(tmp_path / "some.weights.h5")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    with pytest.raises(ModelError, match="cannot be loaded"):
        architectures.load(tmp_path / "empty.keras")
