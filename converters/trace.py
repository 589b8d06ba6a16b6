"""Keras to float .tflite, in a process of its own: TensorFlow's memory and start-up are paid once and given back.

`main` is what that process runs, its one argument the request as JSON. It writes the .tflite file and answers in JSON
lines on standard output: {"stage": ...} as it goes, then {"result": ...} or {"error": ...}. What TensorFlow says on
standard error is left for the log. `float_model` is the other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.errors import EdgeeffError, ModelError, OutputError
from edgeeff.scaling import ALPHA, BETA, GAMMA

INPUT_NAME = "image"
OUTPUT_NAME = "scores"
Shape = tuple[int, int, int]
Send = Callable[[dict[str, Any]], None]
Statistics = Mapping[str, npt.NDArray[np.float32]]
"""Of each batch normalization (3, channels): the bias that a convolution has once it is folded into it, and the mean
and the deviation that its channels then have."""

UNCHANGED = ("Identity", "Cast", "Pad", "PadV2", "MirrorPad", "ResizeBilinear", "ResizeNearestNeighbor")
"""TensorFlow's operators that may stand between the pixels and what normalises them."""
ARITHMETIC = ("Mul", "Sub", "AddV2", "Add", "RealDiv", "Div", "Neg")
HALF = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


@dataclass(frozen=True)
class Request:
    """What to build or load, and where the file goes."""

    output: str
    variant: str | None = None
    phi: float | None = None
    model: str | None = None
    weights: str = "imagenet"
    classes: int = 1000
    resolution: int | None = None
    seed: int = 0
    alpha: float = ALPHA
    beta: float = BETA
    gamma: float = GAMMA
    statistics: str | None = None
    """Where `Traced.statistics` go, as .npz; None where nobody wants them."""


@dataclass(frozen=True)
class Traced:
    """What is known of a float .tflite beyond the file itself."""

    preprocesses: bool = False
    """Whether the model normalises pixels itself, which may no longer be visible in the file."""
    packages: dict[str, str] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    """What a Keras model's batch normalizations expect; empty where that was not asked for, or cannot be known."""


def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the float .tflite of a request; return the fields of `Traced`.

    Raises ModelError, WeightsError or another EdgeeffError with a message for the user.
    """
    say("start TensorFlow")
    import tensorflow as tf

    if request.model is not None and Path(request.model).is_dir():
        say("load the model")
        function, keep = _saved_model(tf, Path(request.model), request.resolution)
    else:
        say("load the model" if request.model else "build the network")
        model = _keras_model(request)
        shape = _image_shape(getattr(model, "inputs", None), request.resolution)
        _one_output(model.outputs)
        function = _traceable(tf, lambda x: model(x, training=False), shape)
        keep = [getattr(variable, "value", variable) for variable in model.variables]
        if request.statistics is not None:
            np.savez(request.statistics, **_statistics(model))
    say("trace the network")
    # Freezing the function directly takes a quarter of the time of the detour over a SavedModel, and makes the same
    # operators; the signature that it leaves out is added by `float_model`. The second argument only keeps the
    # variables alive: a Keras 3 model there would give a file without weights, and no error.
    holder = tf.Module()
    holder.kept_alive = keep
    try:
        concrete = function.get_concrete_function()
        say("convert to TFLite")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
        converter.experimental_lower_to_saved_model = False
        content = converter.convert()
    except Exception as error:  # layers raise what they like, and the converter's own class of errors is not public
        raise ModelError(f"TensorFlow cannot convert this model: {_first_sentences(error)}") from error
    try:
        Path(request.output).write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"cannot write the temporary file {request.output} ({error.strerror}): make room there, or set TMPDIR"
        ) from error
    packages = {"tensorflow": str(tf.__version__), "keras": _keras_version()}
    return {"preprocesses": _preprocesses(concrete), "packages": packages}


def _keras_model(request: Request) -> Any:
    from edgeeff import architectures, scaling  # noqa: PLC0415

    if request.model is not None:
        return _in_float32(architectures.load(Path(request.model)), Path(request.output))
    if request.variant is not None:
        network = scaling.network(request.variant)
    else:
        if request.phi is None:
            raise ModelError("nothing to convert: give a variant, a phi or a model")
        network = scaling.phi_network(request.phi, alpha=request.alpha, beta=request.beta, gamma=request.gamma)
    return architectures.build(
        network,
        weights=request.weights,
        classes=request.classes,
        resolution=request.resolution,
        seed=request.seed,
    )


def _in_float32(model: Any, beside: Path) -> Any:
    """Return a model that was trained in half precision, as GPUs do it, as one that computes in float32.

    TFLite cannot convert half precision; the variables behind it are float32 already. They pass through a file
    `beside` the output.
    """

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: whole(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [whole(inner) for inner in value]
        return "float32" if isinstance(value, str) and value in HALF else value

    config = model.get_config()
    if not any(repr(half) in repr(config) for half in HALF):
        return model
    twin = type(model).from_config(whole(config))
    weights = beside.with_suffix(".weights.h5")
    model.save_weights(weights)
    twin.load_weights(weights)
    return twin


def _statistics(model: Any) -> dict[str, Any]:
    """Return `Traced.statistics`, with an entry for each bias that the convolution before may have had, mostly none.

    Which convolution that is, is not asked: of these entries those are true whose biases the .tflite has.
    """
    import keras

    layers = list(_layers(model))
    biases = [np.asarray(layer.bias) for layer in layers if getattr(layer, "use_bias", False)]
    found: dict[str, Any] = {}
    for layer in layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        gamma = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
        beta = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
        slope = gamma / np.sqrt(variance + layer.epsilon)
        for bias in [np.zeros_like(mean), *(bias for bias in biases if bias.shape == mean.shape)]:
            found[str(len(found))] = np.stack([beta + (bias - mean) * slope, beta, np.abs(gamma)]).astype(np.float32)
    return found


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, and of the models in it."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _preprocesses(concrete: Any) -> bool:
    """Say whether the first that a traced function does with its pixels is arithmetic, wherever in nested calls.

    TensorFlow may fold it into the first convolution, where it can no longer be told from weights.
    """
    graph = concrete.graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    nodes, current = graph.node, concrete.inputs[0].op.name
    while True:
        readers = [(node, [name.split(":")[0] for name in node.input]) for node in nodes if node.op != "Shape"]
        node, inputs = next(((node, inputs) for node, inputs in readers if current in inputs), (None, []))
        if node is None:
            return False
        if node.op in UNCHANGED:
            current = node.name
        elif "f" in node.attr:
            function = functions[node.attr["f"].func.name]
            nodes, current = function.node_def, function.signature.input_arg[inputs.index(current)].name
        else:
            return node.op in ARITHMETIC


def _traceable(tf: Any, call: Callable[[Any], Any], shape: Shape) -> Any:
    return tf.function(call, input_signature=[tf.TensorSpec((1, *shape), tf.float32, name=INPUT_NAME)])


def _image_shape(inputs: Any, resolution: int | None) -> Shape:
    tensors = list(inputs or ())
    if not tensors:
        raise ModelError(
            "the model does not say what it takes: put a keras.Input((height, width, 3)) in front and save it again"
        )
    if len(tensors) != 1:
        names = ", ".join(str(getattr(tensor, "name", "?")) for tensor in tensors)
        raise ModelError(f"the model has {len(tensors)} inputs ({names}); an image classifier has one")
    shape = _sizes(tensors[0])
    if shape is None or len(shape) != 4 or shape[3] not in (3, None):
        raise ModelError(
            f"the model's input has the shape {shape}; an image classifier takes (batch, height, width, 3)"
        )
    height, width = (size if size is not None else resolution for size in shape[1:3])
    if height is None or width is None:
        raise ModelError(
            f"the model's input size is dynamic {shape}, and a device needs a fixed one: give it with --resolution, "
            "for example --resolution 224"
        )
    if resolution is not None and (height, width) != (resolution, resolution):
        raise ModelError(
            f"the model takes {height} x {width} pixels, --resolution says {resolution}: leave --resolution away"
        )
    return int(height), int(width), 3


def _one_output(outputs: Any) -> None:
    tensors = list(outputs)
    if len(tensors) != 1:
        raise ModelError(f"the model has {len(tensors)} outputs; a classifier has one: a score for each class")
    shape = _sizes(tensors[0])
    if shape is not None and len(shape) != 2:
        raise ModelError(
            f"the model is no classifier: its output has the shape {shape}, not (batch, classes); "
            "was it built with include_top=False?"
        )


def _sizes(tensor: Any) -> tuple[int | None, ...] | None:
    """Return a tensor's shape, None when it is not even known how many dimensions it has."""
    return None if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)


def _saved_model(tf: Any, folder: Path, resolution: int | None) -> tuple[Any, Any]:
    if not (folder / "saved_model.pb").is_file():
        raise ModelError(f"{folder} is a folder without a saved_model.pb: not a SavedModel")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # whatever TensorFlow raises for a damaged folder
        raise ModelError(f"TensorFlow cannot load the SavedModel {folder}: {_first_sentences(error)}") from error
    signatures = loaded.signatures
    name = next((key for key in ("serve", "serving_default") if key in signatures), None)
    if name is None:
        raise ModelError(
            f"the SavedModel {folder} has no signature 'serve' or 'serving_default' (it has "
            f"{', '.join(signatures) or 'none'}); export it with model.export()"
        )
    serve = signatures[name]
    specs = serve.structured_input_signature[1]
    shape = _image_shape(specs.values(), resolution)
    _one_output(serve.structured_outputs.values())
    ((key, spec),) = specs.items()
    if not (spec.dtype.is_floating or spec.dtype.is_integer):
        raise ModelError(f"the SavedModel's signature '{name}' takes {spec.dtype.name}, not pixels")
    if spec.shape[0] not in (1, None):
        raise ModelError(
            f"the SavedModel's signature '{name}' takes batches of {spec.shape[0]}; a device runs one image at a time: "
            "export it with a batch of None or 1"
        )
    return _traceable(tf, lambda x: next(iter(serve(**{key: tf.cast(x, spec.dtype)}).values())), shape), loaded


def _first_sentences(error: Exception, limit: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + " ..."


def _keras_version() -> str:
    import keras

    return str(keras.__version__)


def main() -> int:
    """Answer one request; the exit status is 0 when a result or an error of edgeeff's own was sent."""

    def answer(argument: str, send: Send) -> dict[str, Any]:
        return run(Request(**json.loads(argument)), lambda stage: send({"stage": stage}))

    return serve(answer)


def serve(answer: Callable[[str, Send], dict[str, Any]]) -> int:
    """Be the process at the other end of `float_model.converse`: answer the command line's one argument.

    `answer` may send messages of its own as it goes. Returns the exit status, 0 when its result or an error of
    edgeeff's own was sent.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Tracing needs no GPU, and looking for one costs time and prints warnings.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    # A user may train with another backend, in the environment or in ~/.keras/keras.json; only this one makes TFLite.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: whoever kills the parent, even with SIGKILL, does not leave gigabytes of TensorFlow behind.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Libraries that print would spoil the protocol: they get standard error instead.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")

    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = answer(sys.argv[1], send)
    except EdgeeffError as error:
        send({"error": str(error), "type": type(error).__name__, "extra": getattr(error, "extra", None)})
        return 0
    send({"result": result})
    return 0


def encode(request: Request) -> str:
    """Write a request as the process takes it on its command line."""
    return json.dumps(asdict(request))
