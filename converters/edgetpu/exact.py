"""Exact rewrites of an int8 file for the Edge TPU compiler: what comes out computes what went in, to the last bit.

The compiler is of 2021. It knows no dense layer whose weights have a scale for each output, as quantizers make them
today, but it knows such convolutions; and it may leave a RESHAPE that moves a whole picture, which preprocessing over
rows has for the sake of CPUs, and with it all that follows.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from edgeeff.converters.graph import Graph


def rewrite(content: bytes) -> bytes:
    """Return a .tflite file's bytes with the rewrites that apply; raises ModelError when it is damaged."""
    graph = Graph(content)
    before = {tensor.buffer for tensor in map(graph.tensor, _used(graph))}
    for operator in graph.operators:
        kind = graph.kind(operator)
        if kind == "DEPTHWISE_CONV_2D":
            _pixel_by_pixel(graph, operator)
        elif kind == "FULLY_CONNECTED":
            _as_convolution(graph, operator)
    for unused in before - {tensor.buffer for tensor in map(graph.tensor, _used(graph))}:
        graph.model.buffers[unused].data = None
    graph.tidy()
    return graph.content()


def _used(graph: Graph) -> set[int]:
    return {int(index) for operator in graph.operators for index in (*operator.inputs, *operator.outputs) if index >= 0}


def _pixel_by_pixel(graph: Graph, operator: Any) -> None:
    """Give a 1x1 depthwise convolution over rows of pixels the pixels themselves, where its constants repeat."""
    first, last = graph.producer(int(operator.inputs[0])), _only_reader(graph, int(operator.outputs[0]))
    if first is None or last is None or {graph.kind(first), graph.kind(last)} != {"RESHAPE"}:
        return
    source, target = int(first.inputs[0]), int(last.outputs[0])
    shape = graph.shape(source)
    if (
        len(shape) != 4
        or graph.shape(target) != shape
        or graph.shape(int(first.outputs[0])) != (1, shape[1], 1, shape[2] * shape[3])
        or graph.shape(int(operator.inputs[1])) != (1, 1, 1, shape[2] * shape[3])
        or len(graph.consumers(int(first.outputs[0]))) != 1
    ):
        return
    constants = [_first_pixel(graph, int(index), shape[3]) for index in operator.inputs[1:] if index >= 0]
    if None in constants:
        return
    operator.inputs, operator.outputs = [source, *constants], [target]
    graph.remove(first)
    graph.remove(last)


def _first_pixel(graph: Graph, index: int, channels: int) -> int | None:
    """Add the constant that holds the first pixel of one that repeats it; return its index, None where it does not."""
    values = graph.constant(index)
    if values is None or values.size % channels:
        return None
    quantization = copy.copy(graph.tensor(index).quantization)
    parts = [values.reshape(-1)]
    for name in ("scale", "zeroPoint"):
        given = getattr(quantization, name, None)
        if given is not None and len(given) == values.size:
            parts.append(np.asarray(given))
            setattr(quantization, name, list(given[:channels]))
    if any((part.reshape(-1, channels) != part[:channels]).any() for part in parts):
        return None
    shape = (*graph.shape(index)[:-1], channels)
    added = graph.add_tensor(f"{graph.name(index)}/pixel", shape, graph.dtype(index), parts[0][:channels])
    graph.tensor(added).quantization = quantization
    return added


def _as_convolution(graph: Graph, operator: Any) -> None:
    """Make a dense layer whose weights have a scale for each output a convolution with a 1x1 kernel."""
    source, weights, target = int(operator.inputs[0]), int(operator.inputs[1]), int(operator.outputs[0])
    quantization = graph.tensor(weights).quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) < 2:
        return
    outputs, inputs = graph.shape(weights)
    if math.prod(graph.shape(source)) != inputs or len(graph.consumers(weights)) != 1:
        return
    options = graph.schema.Conv2DOptionsT()
    options.padding = graph.schema.Padding.VALID
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    _set_shape(graph, weights, (outputs, 1, 1, inputs))
    scores = _like(graph, target, (1, 1, 1, outputs))
    position = graph.operators.index(operator)
    graph.remove(operator)
    if not _keep_dimensions(graph, source):
        pixel = _like(graph, source, (1, 1, 1, inputs))
        _insert_reshape(graph, position, source, pixel)
        source, position = pixel, position + 1
    graph.insert(position, "CONV_2D", [source, *operator.inputs[1:]], [scores], options)
    _insert_reshape(graph, position + 1, scores, target)


def _keep_dimensions(graph: Graph, index: int) -> bool:
    """Let a mean over height and width keep these, where nobody but the dense layer, which is gone, reads it."""
    mean = graph.producer(index)
    if mean is None or graph.kind(mean) != "MEAN" or graph.consumers(index) or index in graph.outputs:
        return False
    axes, shape = graph.constant(int(mean.inputs[1])), graph.shape(int(mean.inputs[0]))
    if axes is None or len(shape) != 4 or {int(axis) % 4 for axis in axes.reshape(-1)} != {1, 2}:
        return False
    mean.builtinOptions.keepDims = True
    _set_shape(graph, index, (shape[0], 1, 1, shape[3]))
    return True


def _like(graph: Graph, index: int, shape: tuple[int, ...]) -> int:
    """Add a tensor that holds the same values in another shape."""
    added = graph.add_tensor(f"{graph.name(index)}/pixel", shape, graph.dtype(index))
    graph.tensor(added).quantization = copy.copy(graph.tensor(index).quantization)
    return added


def _set_shape(graph: Graph, index: int, shape: tuple[int, ...]) -> None:
    graph.tensor(index).shape, graph.tensor(index).shapeSignature = list(shape), None


def _insert_reshape(graph: Graph, position: int, source: int, target: int) -> None:
    shape = graph.shape(target)
    options = graph.schema.ReshapeOptionsT()
    options.newShape = list(shape)
    values = graph.add_tensor(f"{graph.name(target)}/shape", (len(shape),), "int32", np.asarray(shape, np.int32))
    graph.insert(position, "RESHAPE", [source, values], [target], options)


def _only_reader(graph: Graph, index: int) -> Any | None:
    readers = graph.consumers(index)
    return readers[0] if len(readers) == 1 and index not in graph.outputs else None
