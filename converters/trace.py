"""Keras to float .tflite, in a process of its own: TensorFlow's memory and start-up are paid once and given back.

Run as `python -m edgeeff.converters.trace REQUEST`, the request being JSON. It writes the .tflite file and
answers in JSON lines on standard output: {"stage": ...} as it goes, then {"result": ...} or {"error": ...}. What
TensorFlow says on standard error is left for the log. `float_model` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeeff.errors import EdgeeffError, ModelError
from edgeeff.scaling import ALPHA, BETA, GAMMA

INPUT_NAME = "image"
OUTPUT_NAME = "scores"
Shape = tuple[int, int, int]


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


@dataclass(frozen=True)
class Traced:
    """What is known of a float .tflite beyond the file itself."""

    preprocesses: bool = False
    """Whether the model has layers that normalise pixels, which may no longer be visible in the file."""
    packages: dict[str, str] = field(default_factory=dict)


def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the float .tflite of a request; return the fields of `Traced`.

    Raises ModelError, WeightsError or another EdgeeffError with a message for the user.
    """
    say("start TensorFlow")
    import tensorflow as tf

    if request.model is not None and Path(request.model).is_dir():
        say("load the model")
        function, keep = _saved_model(tf, Path(request.model), request.resolution)
        preprocesses = False
    else:
        say("load the model" if request.model else "build the network")
        model = _keras_model(request)
        shape = _image_shape(model.inputs, request.resolution)
        _one_output(model.outputs)
        function, keep = _traceable(tf, lambda x: model(x, training=False), shape), model
        preprocesses = _preprocesses(model)
    say("trace the network")
    concrete = function.get_concrete_function()
    say("convert to TFLite")
    # Freezing the function directly takes a quarter of the time of the detour over a SavedModel, and makes the same
    # operators; the signature that it leaves out is added by `float_model`. The second argument only keeps the
    # variables alive: a Keras 3 model there would give a file without weights, and no error.
    holder = tf.Module()
    holder.variables_kept_alive = [getattr(variable, "value", variable) for variable in keep.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    converter.experimental_lower_to_saved_model = False
    try:
        content = converter.convert()
    except Exception as error:  # the converter's own class of errors is not public
        raise ModelError(f"TensorFlow cannot convert this model: {_first_sentences(error)}") from error
    Path(request.output).write_bytes(content)
    packages = {"tensorflow": str(tf.__version__), "keras": _keras_version()}
    return asdict(Traced(preprocesses, packages))


def _keras_model(request: Request) -> Any:
    from edgeeff import architectures, scaling  # noqa: PLC0415

    if request.model is not None:
        return architectures.load(Path(request.model))
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


def _preprocesses(model: Any) -> bool:
    layers = [model]
    while layers:
        layer = layers.pop()
        if type(layer).__name__ in ("Rescaling", "Normalization"):
            return True
        layers += getattr(layer, "layers", [])
    return False


def _traceable(tf: Any, call: Callable[[Any], Any], shape: Shape) -> Any:
    return tf.function(call, input_signature=[tf.TensorSpec((1, *shape), tf.float32, name=INPUT_NAME)])


def _image_shape(inputs: Any, resolution: int | None) -> Shape:
    tensors = list(inputs)
    if len(tensors) != 1:
        names = ", ".join(str(getattr(tensor, "name", "?")) for tensor in tensors)
        raise ModelError(f"the model has {len(tensors)} inputs ({names}); an image classifier has one")
    shape = tuple(tensors[0].shape)
    if len(shape) != 4 or shape[3] not in (3, None):
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
    shape = tuple(tensors[0].shape)
    if len(shape) != 2:
        raise ModelError(
            f"the model is no classifier: its output has the shape {shape}, not (batch, classes); "
            "was it built with include_top=False?"
        )


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
    shape = _image_shape(list(specs.values()), resolution)
    outputs = serve.structured_outputs
    _one_output(outputs.values() if isinstance(outputs, dict) else outputs)
    (key,) = specs
    return _traceable(tf, lambda x: next(iter(serve(**{key: x}).values())), shape), loaded


def _first_sentences(error: Exception, limit: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + " ..."


def _keras_version() -> str:
    import keras

    return str(keras.__version__)


def main() -> int:
    """Answer one request; the exit status is 0 when a result or an error of edgeeff's own was sent."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Tracing needs no GPU, and looking for one costs time and prints warnings.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    # Libraries that print would spoil the protocol: they get standard error instead.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")

    request = Request(**json.loads(sys.argv[1]))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = run(request, lambda stage: send({"stage": stage}))
    except EdgeeffError as error:
        send({"error": str(error), "type": type(error).__name__, "extra": getattr(error, "extra", None)})
        return 0
    send({"result": result})
    return 0


def encode(request: Request) -> str:
    """Write a request as the process takes it on its command line."""
    return json.dumps(asdict(request))


if __name__ == "__main__":
    sys.exit(main())
