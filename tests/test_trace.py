"""Keras models and SavedModels of many makings become a float .tflite that computes the same.

TensorFlow runs in this process here; that it has one of its own elsewhere is tested in test_float_model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.converters import trace
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session
from edgeeff.converters.trace import Request, Traced, run
from edgeeff.errors import EdgeeffError, ModelError, OutputError, UnknownNameError, WeightsError

keras = pytest.importorskip("keras", reason="needs Keras; install the extra host")
tf = pytest.importorskip("tensorflow", reason="needs TensorFlow; install the extra host")

SIZE = 16
Array = npt.NDArray[Any]
IMAGES = np.random.default_rng(2).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
IMAGES[0], IMAGES[1, 0] = 255, 0


def traced(folder: Path, model: Path, resolution: int | None = None) -> tuple[bytes, Traced]:
    request = Request(output=str(folder / "made.tflite"), model=str(model), resolution=resolution)
    answer = run(request, lambda stage: None)
    assert json.loads(json.dumps(answer)) == answer
    return Path(request.output).read_bytes(), Traced(**answer)


def finished(folder: Path, model: Path, resolution: int | None = None) -> FloatModel:
    return finish(*traced(folder, model, resolution))


def saved(model: Any, folder: Path, name: str = "model.keras") -> Path:
    model.save(path := folder / name)
    return path


def scores(model: FloatModel) -> Array:
    session = Session(model.content)
    return np.stack([session.run(image) for image in IMAGES])


def network(
    *before: Any,
    dtype: str = "float32",
    size: int | None = SIZE,
    prefix: str = "",
    activation: str | None = "softmax",
    padding: str = "same",
) -> Any:
    """A Keras classifier of 4 classes whose first layers are `before`."""
    layers = keras.layers
    inputs = keras.Input((size, size, 3), dtype=dtype, name=f"{prefix}pixels")
    x = inputs
    for layer in before:
        x = layer(x)
    x = layers.Conv2D(6, 3, 2, padding=padding, use_bias=False, name=f"{prefix}conv")(x)
    x = layers.BatchNormalization(name=f"{prefix}bn")(x)
    x = layers.Activation("swish", name=f"{prefix}swish")(x)
    x = layers.GlobalAveragePooling2D(name=f"{prefix}pool")(x)
    x = layers.Dense(4, activation=activation, dtype="float32", name=f"{prefix}predictions")(x)
    model = keras.Model(inputs, x)
    model.get_layer(f"{prefix}bn").set_weights([np.linspace(0.5, 2, 6), *np.random.default_rng(1).random((3, 6))])
    return model


def rescaling() -> Any:
    return keras.layers.Rescaling(1 / 127.5, offset=-1)


def normalization() -> tuple[Any, Any]:
    mean, variance = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]
    return keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=mean, variance=variance)


def expected(model: Any, pixels: Array = IMAGES) -> Array:
    return np.asarray(model(pixels.astype(np.float32), training=False))


# --- Keras files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_keras_file_becomes_a_float_model(tmp_path: Path, name: str) -> None:
    model = network(rescaling())
    found = finished(tmp_path, saved(model, tmp_path, name))
    assert (found.resolution, found.classes, found.head) == ((SIZE, SIZE), 4, "softmax")
    assert found.mean == pytest.approx((127.5,) * 3)
    assert found.std == pytest.approx((127.5,) * 3)
    assert found.packages.keys() == {"tensorflow", "keras"}
    np.testing.assert_allclose(scores(found), expected(model), atol=1e-5)


def test_normalization_is_fused_exactly(tmp_path: Path) -> None:
    model = network(*normalization())
    found = finished(tmp_path, saved(model, tmp_path))
    assert found.mean == pytest.approx((123.675, 116.28, 103.53), rel=1e-6)
    assert found.std == pytest.approx((58.395, 57.12, 57.375), rel=1e-6)
    graph = Graph(found.content)
    kinds = [graph.kind(operator) for operator in graph.operators]
    assert kinds[:4] == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE", "CONV_2D"]
    np.testing.assert_allclose(scores(found), expected(model), atol=1e-5)


def test_an_adapted_normalization_is_kept(tmp_path: Path) -> None:
    layer = keras.layers.Normalization()
    layer.adapt(IMAGES.astype(np.float32))
    model = network(layer)
    found = finished(tmp_path, saved(model, tmp_path))
    assert found.mean == pytest.approx(IMAGES.reshape(-1, 3).mean(axis=0), rel=1e-4)
    np.testing.assert_allclose(scores(found), expected(model), atol=1e-5)


def test_layers_may_begin_with_an_underscore(tmp_path: Path) -> None:
    model = network(rescaling(), prefix="_")
    np.testing.assert_allclose(scores(finished(tmp_path, saved(model, tmp_path))), expected(model), atol=1e-5)


def nested() -> Any:
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, keras.layers.Softmax()(network(rescaling(), activation=None)(inputs)))


def sequential() -> Any:
    layers = keras.layers
    model = keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    model.add(layers.Dense(4, activation="softmax"))
    model.build((None, SIZE, SIZE, 3))
    return model


def named_ends() -> Any:
    inner = network(rescaling())
    inputs = {"photo": keras.Input((SIZE, SIZE, 3), name="photo")}
    return keras.Model(inputs, {"probabilities": inner(inputs["photo"])})


def augmented() -> Any:
    return network(keras.layers.RandomFlip(), rescaling(), keras.layers.Dropout(0.5))


# What is only multiplied vanishes into the convolution behind it, and yet the model takes pixels 0..255.
MAKINGS: dict[str, Callable[[], Any]] = {
    "nested": nested,
    "sequential": sequential,
    "named ends": named_ends,
    "augmented": augmented,
    "scaled only": lambda: network(keras.layers.Rescaling(1 / 255)),
    "divided by an operator": lambda: network(lambda x: keras.ops.divide(x, 255.0)),
    "padded before": lambda: network(keras.layers.ZeroPadding2D(1), keras.layers.Rescaling(1 / 255), padding="valid"),
    "resized before": lambda: network(keras.layers.Resizing(12, 12), keras.layers.Rescaling(1 / 255)),
    "bytes": lambda: network(rescaling(), dtype="uint8"),
    "bytes, scaled only": lambda: network(keras.layers.Rescaling(1 / 255), dtype="uint8"),
}


@pytest.mark.parametrize("making", MAKINGS)
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
def test_models_made_otherwise_compute_the_same(tmp_path: Path, making: str) -> None:
    model = MAKINGS[making]()
    found = finished(tmp_path, saved(model, tmp_path))
    output = model({"photo": IMAGES.astype(np.float32)})["probabilities"] if making == "named ends" else expected(model)
    np.testing.assert_allclose(scores(found), np.asarray(output), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_trained_in_half_precision_computes_in_float32(tmp_path: Path, policy: str) -> None:
    whole = network(*normalization())
    keras.config.set_dtype_policy(policy)
    try:
        half = network(*normalization())
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(whole.get_weights())
    found = finished(tmp_path, saved(half, tmp_path))
    graph = Graph(found.content)
    assert {graph.dtype(int(index)) for op in graph.operators for index in op.outputs} == {"float32"}
    np.testing.assert_allclose(scores(found), expected(whole), atol=1e-5)


def test_resolution_gives_a_dynamic_input_its_size(tmp_path: Path) -> None:
    model = network(rescaling(), size=None)
    path = saved(model, tmp_path)
    with pytest.raises(ModelError, match=r"dynamic \(None, None, None, 3\).*give it with --resolution"):
        traced(tmp_path, path)
    found = finished(tmp_path, path, resolution=SIZE)
    assert found.resolution == (SIZE, SIZE)
    np.testing.assert_allclose(scores(found), expected(model), atol=1e-5)


def test_without_arithmetic_on_the_pixels_nothing_is_assumed_of_them(tmp_path: Path) -> None:
    content, found = traced(tmp_path, saved(network(), tmp_path))
    assert not found.preprocesses
    with pytest.raises(ModelError, match=r"no preprocessing inside.*--input-range"):
        finish(content, found)
    assert finish(content, found, input_range=(0.0, 1.0)).std == pytest.approx((255.0,) * 3)


# --- SavedModels ------------------------------------------------------------------------------------------------------


class Module(tf.Module):  # type: ignore[misc, name-defined]
    """A classifier without Keras."""

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        self.kernel = tf.Variable(random.normal(0, 1, (3, 3, 3, 8)), dtype=tf.float32)
        self.dense = tf.Variable(random.normal(0, 1, (8, 4)), dtype=tf.float32)

    def scores(self, x: Any) -> Any:
        x = tf.nn.relu(tf.nn.conv2d(tf.cast(x, tf.float32) / 255.0, self.kernel, 2, "SAME"))
        return tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ self.dense)


def exported(folder: Path, shape: Any, dtype: Any = tf.float32, call: Callable[[Any], Any] | None = None) -> Path:
    module = Module()
    module.call = tf.function(call or module.scores, input_signature=[tf.TensorSpec(shape, dtype)])
    tf.saved_model.save(module, str(folder / "saved"))
    return folder / "saved"


def test_an_exported_keras_model(tmp_path: Path) -> None:
    model = network(*normalization())
    model.export(tmp_path / "exported", verbose=False)
    found = finished(tmp_path, tmp_path / "exported")
    assert found.std == pytest.approx((58.395, 57.12, 57.375), rel=1e-6)
    np.testing.assert_allclose(scores(found), expected(model), atol=1e-5)


def test_an_exported_keras_model_that_only_scales(tmp_path: Path) -> None:
    model = network(keras.layers.Rescaling(1 / 255))
    model.export(tmp_path / "exported", verbose=False)
    np.testing.assert_allclose(scores(finished(tmp_path, tmp_path / "exported")), expected(model), atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.uint8], ids=["floats", "bytes"])
@pytest.mark.parametrize("batch", [None, 1])
def test_a_saved_module(tmp_path: Path, batch: int | None, dtype: Any) -> None:
    found = finished(tmp_path, exported(tmp_path, (batch, SIZE, SIZE, 3), dtype))
    np.testing.assert_allclose(scores(found), np.asarray(Module().scores(IMAGES)), atol=1e-5)


def test_resolution_gives_a_saved_module_its_size(tmp_path: Path) -> None:
    path = exported(tmp_path, (None, None, None, 3))
    with pytest.raises(ModelError, match="give it with --resolution"):
        traced(tmp_path, path)
    np.testing.assert_allclose(scores(finished(tmp_path, path, SIZE)), np.asarray(Module().scores(IMAGES)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, SIZE, SIZE, 3), tf.float32, "takes batches of 8; a device runs one image at a time"),
        (None, tf.float32, "the model's input has the shape None"),
        ((None, SIZE, SIZE, 1), tf.float32, r"the model's input has the shape \(None, 16, 16, 1\)"),
        ((None, SIZE, SIZE, 3), tf.string, "takes string, not pixels"),
    ],
)
def test_a_signature_that_takes_no_single_image(tmp_path: Path, shape: Any, dtype: Any, message: str) -> None:
    path = exported(tmp_path, shape, dtype, call=lambda x: tf.zeros((1, 3)))
    with pytest.raises(ModelError, match=message):
        traced(tmp_path, path)


def test_a_saved_model_without_a_serving_signature_names_what_it_has(tmp_path: Path) -> None:
    module = Module()
    module.call = tf.function(module.scores, input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3))])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"score_batch": module.call})
    with pytest.raises(ModelError, match=r"no signature 'serve' or 'serving_default' \(it has score_batch\)"):
        traced(tmp_path, tmp_path / "saved")


def test_a_folder_that_is_no_saved_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"without a saved_model\.pb: not a SavedModel"):
        traced(tmp_path, tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"xx")
    with pytest.raises(ModelError, match="TensorFlow cannot load the SavedModel"):
        traced(tmp_path, tmp_path)


# --- What is no classifier --------------------------------------------------------------------------------------------


def two_inputs() -> Any:
    inputs = [keras.Input((SIZE, SIZE, 3), name=name) for name in ("left", "right")]
    return keras.Model(inputs, network()(keras.layers.Add()(inputs)))


def two_outputs() -> Any:
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3)(pooled), keras.layers.Dense(2)(pooled)])


def without_top() -> Any:
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))


def grey() -> Any:
    inputs = keras.Input((SIZE, SIZE, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs)))


def never_called() -> Any:
    return keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, r"the model has 2 inputs \(left, right\); an image classifier has one"),
        (two_outputs, "the model has 2 outputs; a classifier has one"),
        (without_top, r"no classifier: its output has the shape \(None, 14, 14, 4\).*include_top=False"),
        (grey, r"input has the shape \(None, 16, 16, 1\); an image classifier takes"),
        (never_called, r"does not say what it takes: put a keras\.Input"),
    ],
)
def test_what_is_no_image_classifier_is_refused(tmp_path: Path, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        traced(tmp_path, saved(make(), tmp_path))


def test_another_resolution_than_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="takes 16 x 16 pixels, --resolution says 32"):
        traced(tmp_path, saved(network(rescaling()), tmp_path), resolution=32)


def test_what_tensorflow_cannot_convert_is_a_model_error(tmp_path: Path) -> None:
    # An operator that Keras has and TFLite has not.
    path = saved(network(lambda x: keras.ops.erfinv(x / 256.0)), tmp_path)
    with pytest.raises(ModelError, match=r"^TensorFlow cannot convert this model: \S"):
        traced(tmp_path, path)


def test_a_place_without_room_for_the_float_file_is_an_output_error(tmp_path: Path) -> None:
    request = Request(
        output=str(tmp_path / "missing" / "made.tflite"), model=str(saved(network(rescaling()), tmp_path))
    )
    with pytest.raises(OutputError, match=r"cannot write the temporary file .*make room there, or set TMPDIR"):
        run(request, lambda stage: None)


# --- Networks of our own ----------------------------------------------------------------------------------------------


def test_stages_are_said_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    path = saved(network(rescaling()), tmp_path)
    run(Request(output=str(tmp_path / "made.tflite"), model=str(path)), said.append)
    assert said == ["start TensorFlow", "load the model", "trace the network", "convert to TFLite"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"variant": "lit0"}, UnknownNameError, "did you mean lite0"),
        ({}, ModelError, "give a variant, a phi or a model"),
        ({"variant": "lite0", "weights": "nowhere.npz"}, WeightsError, "nowhere.npz"),
    ],
)
def test_what_cannot_be_built_says_why(
    tmp_path: Path, changes: dict[str, Any], error: type[EdgeeffError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(Request(output=str(tmp_path / "made.tflite"), **changes), lambda stage: None)


def test_a_long_reason_is_cut() -> None:
    assert trace._first_sentences(ValueError("short\n  reason")) == "short reason"
    assert len(trace._first_sentences(ValueError("x" * 1000))) == 404


# --- What batch normalizations expect ---------------------------------------------------------------------------------


def test_batch_normalizations_say_what_convolutions_give(tmp_path: Path) -> None:
    layers = keras.layers
    inner = network(rescaling())
    inputs = keras.Input((SIZE, SIZE, 3))
    # With a bias of its own, and what is learned switched off.
    x = layers.Conv2D(5, 3, bias_initializer=keras.initializers.RandomNormal(seed=0), name="biased")(inputs)
    x = layers.BatchNormalization(center=False, scale=False, name="bare")(x)
    x = layers.Conv2D(3, 1, name="colours")(x)
    model = keras.Model(inputs, inner(layers.Resizing(SIZE, SIZE)(x)))
    model.get_layer("bare").set_weights(np.random.default_rng(0).random((2, 5)) + 0.1)
    request = Request(
        output=str(tmp_path / "made.tflite"),
        model=str(saved(model, tmp_path)),
        statistics=str(tmp_path / "made.npz"),
    )
    run(request, lambda stage: None)
    graph = Graph(Path(request.output).read_bytes())
    biases = [
        graph.constant(int(operator.inputs[2]))
        for operator in graph.operators
        if graph.kind(operator) == "CONV_2D" and graph.shape(int(operator.outputs[0]))[3] in (5, 6)
    ]
    with np.load(str(request.statistics)) as arrays:
        found = [
            [entry[1:] for entry in arrays.values() if entry[0].shape == bias.shape and np.allclose(entry[0], bias)]
            for bias in map(np.asarray, biases)
        ]
    ((bare,), (learned,)) = found
    np.testing.assert_allclose(bare, [np.zeros(5), np.ones(5)])
    normalization = inner.get_layer("bn")
    np.testing.assert_allclose(learned, [np.asarray(normalization.beta), np.abs(np.asarray(normalization.gamma))])
