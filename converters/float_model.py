"""The float .tflite that everything starts from: batch 1, one signature, preprocessing fused, a known head.

TensorFlow runs in a child process (`trace`); what follows is done on the graph, so a float .tflite that a user brings
goes the same way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import util
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeeff import errors
from edgeeff.converters import preprocessing
from edgeeff.converters.graph import Graph
from edgeeff.converters.trace import INPUT_NAME, OUTPUT_NAME, Request, Statistics, Traced, encode
from edgeeff.errors import EdgeeffError, MissingExtraError, ModelError

SIGNATURE = "serving_default"
TIME_LIMIT_S = 3600.0
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
"""Files that Keras reads; a SavedModel is a folder."""
HOST_PACKAGES = ("tensorflow", "ai_edge_litert", "litert_quantizer")

Head = Literal["softmax", "logits"]
UNKNOWN = Traced()

SMALL_TYPES = frozenset({"int2", "int4", "int8", "uint8", "int16", "float16", "bfloat16"})
"""Types that only quantization puts into a classifier."""
PIXEL_TYPES = frozenset({"uint8", "int16", "int32", "int64", "float16", "float32"})
"""Types that hold every number from 0 to 255 exactly."""

# With -m or -c Python looks into the working folder first, where a user's random.py would be taken for the library's:
# the child is to find what this process finds.
CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); from edgeeff.converters.trace import main; sys.exit(main())"
)

ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""For glibc, which else gives every thread memory that it does not get back: a tenth of what fine-tuning takes."""


@dataclass(frozen=True)
class FloatModel:
    """A float .tflite in memory: input (1, height, width, 3) float32 pixels 0..255, output (1, classes) float32."""

    content: bytes
    resolution: tuple[int, int]
    classes: int
    head: Head
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """What its preprocessing does to pixels: (x - mean) / std per channel."""
    logits: str
    """Name of the tensor before the softmax, or of the output where there is none."""
    packages: dict[str, str]
    statistics: Statistics = field(default_factory=dict, compare=False, repr=False)
    """See `trace.Traced`."""


def require_host() -> None:
    """Raise MissingExtraError where the packages that convert are not installed."""
    for package in HOST_PACKAGES:
        if util.find_spec(package) is None:
            raise MissingExtraError(f"{package}, needed to convert,", "host")


def trace(request: Request, say: Callable[[str], None], time_limit_s: float = TIME_LIMIT_S) -> Traced:
    """Run a request in a TensorFlow process of its own; the float .tflite is then at `request.output`.

    Raises the child's own error, or ModelError with the end of its log when it died or took too long; on any exception,
    KeyboardInterrupt included, the child is ended first.
    """

    def hear(answer: dict[str, Any]) -> None:
        if "stage" in answer:
            say(str(answer["stage"]))

    traced = Traced(**converse(CHILD, encode(request), hear, time_limit_s))
    if request.statistics is None or not Path(request.statistics).is_file():
        return traced
    with np.load(request.statistics) as arrays:
        return replace(traced, statistics=dict(arrays))


def converse(
    child: str, argument: str, hear: Callable[[dict[str, Any]], None], time_limit_s: float = TIME_LIMIT_S
) -> dict[str, Any]:
    """Run Python code that ends in `trace.serve` in a process of its own; return its result.

    `child` is the code, as `CHILD` is; `hear` gets every answer as it comes. Raises what `trace` raises.
    """
    command = [sys.executable, "-c", child, ":".join(sys.path), argument]
    answer: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=ONE_HEAP | dict(os.environ),
        ) as process,
    ):
        timer = threading.Timer(time_limit_s, process.kill)
        timer.start()
        try:
            for line in process.stdout or ():
                if not line.endswith("\n"):
                    break  # it died while it wrote this
                answer = json.loads(line)
                hear(answer)
            process.wait()
        finally:
            too_long = timer.finished.is_set()
            timer.cancel()
            process.kill()
        if "error" in answer:
            raise _child_error(answer)
        if too_long:
            raise ModelError(f"the TensorFlow process took longer than {time_limit_s:.0f} s and was stopped")
        if "result" not in answer:
            log.seek(0)
            raise ModelError(_death(process.returncode, log.read()))
    result: dict[str, Any] = answer["result"]
    return result


def finish(
    content: bytes,
    traced: Traced = UNKNOWN,
    *,
    head: Head | None = None,
    input_range: tuple[float, float] | None = None,
) -> FloatModel:
    """Make a float .tflite ready to quantize: check it, fuse its preprocessing, set its head and its signature.

    `traced` is what `trace` returned; leave it away for a file that came ready. `head` None keeps the model's own.
    Raises ModelError when it is quantized already, has dynamic dimensions, has not one image input and one row of
    scores as output, or when it is unknown which pixel values it expects.
    """
    graph = Graph(content)
    _drop_casts(graph)
    _check_classifier(graph)
    classes = graph.shape(graph.outputs[0])[1]
    affine = preprocessing.fuse(graph, input_range, known=traced.preprocesses)
    kept = _set_head(graph, head)
    graph.tidy()
    graph.set_signature(SIGNATURE, INPUT_NAME, OUTPUT_NAME)
    _, height, width, _ = graph.shape(graph.inputs[0])
    sink = graph.outputs[0]
    last = graph.producer(sink)
    logits = int(last.inputs[0]) if kept == "softmax" and last is not None else sink
    std = tuple(float(value) for value in 1.0 / affine.scale)
    mean = tuple(float(value) for value in 0.0 - affine.offset / affine.scale)
    return FloatModel(
        content=graph.content(),
        resolution=(height, width),
        classes=classes,
        head=kept,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        logits=graph.name(logits),
        packages=traced.packages,
        statistics=traced.statistics,
    )


def _drop_casts(graph: Graph) -> None:
    """Take floats where the model takes bytes and casts them: of pixels 0..255 both are the same numbers."""
    while len(graph.inputs) == 1 and len(readers := graph.consumers(graph.inputs[0])) == 1:
        (cast,) = readers
        if graph.kind(cast) != "CAST" or graph.dtype(int(cast.outputs[0])) not in PIXEL_TYPES:
            return
        graph.remove(cast)
        graph.set_input(int(cast.outputs[0]))


def _check_classifier(graph: Graph) -> None:
    if len(graph.inputs) != 1:
        raise ModelError(f"the model has {len(graph.inputs)} inputs; an image classifier has one")
    if len(graph.outputs) != 1:
        raise ModelError(f"the model has {len(graph.outputs)} outputs; a classifier has one: a score for each class")
    source, sink = graph.inputs[0], graph.outputs[0]
    for index, what in ((source, "input"), (sink, "output")):
        if graph.dtype(index) != "float32":
            raise ModelError(
                f"the model's {what} is {graph.dtype(index)}: it is quantized already; give the float model behind it"
            )
    for operator in graph.operators:
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and graph.dtype(index) in SMALL_TYPES:
                raise ModelError(
                    f"the model is quantized already ({graph.kind(operator)} {graph.name(index)} is "
                    f"{graph.dtype(index)}); give the float model it came from"
                )
    dynamic = [index for operator in graph.operators for index in operator.outputs if -1 in graph.shape(index)]
    if -1 in graph.shape(source) or dynamic:
        index = source if -1 in graph.shape(source) else dynamic[0]
        raise ModelError(
            f"the model has dynamic dimensions, first in '{graph.name(index)}' {graph.shape(index)}: XNNPACK and the "
            "Edge TPU need fixed ones; convert it again from the Keras model with edgeeff, or trace it at batch 1"
        )
    shape = graph.shape(source)
    if len(shape) != 4 or shape[3] != 3:
        raise ModelError(f"the model's input has the shape {shape}; an image classifier takes (1, height, width, 3)")
    if shape[0] != 1:
        raise ModelError(
            f"the model takes batches of {shape[0]}; a device runs one image at a time: convert it at batch 1"
        )
    if len(graph.shape(sink)) != 2 or graph.shape(sink)[1] < 2:
        raise ModelError(
            f"the model is no classifier: its output has the shape {graph.shape(sink)}, not (1, classes) with at least "
            "two classes (one sigmoid score for two classes: train it with a Dense(2) head and a softmax)"
        )


def _set_head(graph: Graph, head: Head | None) -> Head:
    output = graph.outputs[0]
    last = graph.producer(output)
    has_softmax = last is not None and graph.kind(last) == "SOFTMAX"
    if last is not None and graph.kind(last) == "LOGISTIC":
        raise ModelError(
            "the model ends in a sigmoid (several labels at once); edgeeff converts single-label classifiers, whose "
            "scores a softmax makes"
        )
    if head == "logits" and has_softmax and last is not None:
        graph.set_output(int(last.inputs[0]))
        graph.remove(last)
    if head == "softmax" and not has_softmax:
        options = graph.schema.SoftmaxOptionsT()
        options.beta = 1.0
        scores = graph.add_tensor("softmax", graph.shape(output), "float32")
        graph.insert(len(graph.operators), "SOFTMAX", [output], [scores], options)
        graph.set_output(scores)
    return head or ("softmax" if has_softmax else "logits")


def _child_error(answer: dict[str, Any]) -> EdgeeffError:
    cls = getattr(errors, str(answer["type"]), EdgeeffError)
    error: EdgeeffError = cls.__new__(cls)
    # The message was made in the child by the class's own __init__; only the text is restored here.
    Exception.__init__(error, str(answer["error"]))
    if isinstance(error, MissingExtraError):
        error.extra = str(answer["extra"])
    return error


def _death(code: int, log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    if code == -signal.SIGKILL:
        return (
            "the TensorFlow process was killed, most likely for want of memory (a B7 needs 4 GB): close other programs "
            "or convert on a larger machine"
        )
    if code < 0:
        # Native code says why it gives up in the lines before.
        return "\n".join((f"the TensorFlow process died of {signal.Signals(-code).name}:", *lines[-3:]))
    return f"the TensorFlow process ended with status {code}: {lines[-1] if lines else 'it said nothing'}"
