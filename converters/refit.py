"""Weights that suit the maps they really get: the last convolution of each block, fitted by least squares.

A block of an int8 network is given other maps than the float network gave it, and its own weights are rounded. What
its last convolution should give, which nothing bends, is known all the same, since the float network says what the
block gives in the end; and what it reads is computed by the real int8 kernels. So its weights and bias are fitted: by
ridge regression, which leaves them where they were as far as the images say nothing, and with a rounding that passes
the error of every weight on to those that are not rounded yet (GPTQ, arXiv:2210.17323). The last layer is fitted to the
logits in the same way.

Weights can be pruned and clustered on the way (`compress`), in every convolution of single pixels.

This needs no labels, no gradients and no TensorFlow. `recover` decides by the real file whether it helps; `reconstruct`
begins each block with it. How maps are passed from block to block is here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.calibration.views import Views
from edgeeff.converters import quantize, replay
from edgeeff.converters.compress import NEARLY_ZERO, WEIGHT_LEVELS, Compression, codebook, pointwise, prune, steps
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import Ranges
from edgeeff.converters.runtime import Session

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SAMPLED = 64
"""Places of a map that weights are fitted to; its neighbours say nearly the same."""
MOST_SAMPLES_BYTES = 2e8
PRIOR = 0.3
"""How much weights stay where they were, beside the mean square of what they read."""
DAMPING = 0.01
"""The same, of what rounding passes on: it is certain of the other weights, but not of the images."""
MAPS_BYTES = 7e8
"""What the maps before and behind a block may take, of all views."""
LEAST_VIEWS = 32
HALF_MAX = 60_000.0
VIEWS, MOST_VIEWS = 4, 300
"""Of each image, and of all: what they take in memory does not grow with the number of images."""


def blocks(model: FloatModel) -> list[tuple[int, int]]:
    """Return where the blocks of a model begin and end, up to its logits."""
    return replay.blocks(Graph(model.content), quantize.known_ranges(model), model.logits)


def refit(
    model: FloatModel,
    ranges: Ranges,
    images: Array,
    *,
    compression: Compression | None = None,
    seed: int = 0,
    threads: int = 1,
    tick: Callable[[], None] | None = None,
) -> FloatModel:
    """Return the model with the last convolution of each block, and its last layer, fitted for int8 with these ranges.

    With a `compression` all `pointwise` convolutions are fitted, and their weights are as it says. `images` are uint8
    (count, height, width, 3). What is fitted depends on them, on the seed and the threads alone. `tick` is called for
    each of the `blocks`. Raises ModelError when LiteRT or the quantizer refuses a block.
    """
    exact_graph, graph, spans = Graph(model.content), Graph(model.content), blocks(model)
    generator = np.random.default_rng(seed)
    exact = rough = Views(images, _count(exact_graph, spans, min(VIEWS * len(images), MOST_VIEWS)), seed)[:]
    for first, end in spans:
        wanted = through(exact_graph, first, end, exact, threads=threads)
        if compression:
            _compress(exact_graph, graph, first, end, exact, rough, ranges, compression, generator, threads)
        changed = fit(graph, first, end, rough, wanted, ranges, generator, threads=threads, compression=compression)
        for index, values in changed.items():
            graph.set_constant(index, values)
        if end != spans[-1][1]:
            exact, rough = wanted, through(graph, first, end, rough, ranges=ranges, threads=threads)
        if tick is not None:
            tick()
    return replace(model, content=graph.content())


def through(
    graph: Graph, first: int, end: int, maps: Array, *, ranges: Ranges | None = None, threads: int = 1
) -> Array:
    """Compute the operators `first` to `end` with LiteRT for maps (count, ...): in float, or with `ranges` in int8.

    Maps are given in half precision, which has 3 bits more than 8-bit values need and takes half the memory; scores are
    not.
    """
    target = int(graph.operators[end - 1].outputs[0])
    session = _part(graph, first, end, target, ranges, threads)
    found = np.empty(0)
    for number, one in enumerate(maps):
        values = session.run(one.astype(np.float32))
        if number == 0:
            found = np.empty((len(maps), *values.shape), np.float16 if values.ndim == 3 else values.dtype)
        if found.dtype == np.float16 and np.abs(values).max() > HALF_MAX:
            found = found.astype(np.float32)
        found[number] = values
    return found


def source(graph: Graph, first: int) -> int:
    """Return the tensor that a block reads which begins at a position."""
    return graph.inputs[0] if first == 0 else int(graph.operators[first - 1].outputs[0])


def _part(graph: Graph, first: int, end: int, target: int, ranges: Ranges | None, threads: int) -> Session:
    """Return the operators `first` to `end`, which make tensor `target`, ready to run."""
    part = Graph(graph.content())
    part.cut(first, end, source(graph, first), target)
    content = part.content()
    return Session(content if ranges is None else quantize.static(content, ranges), threads=threads)


def fit(
    graph: Graph,
    first: int,
    end: int,
    rough: Array,
    wanted: Array,
    ranges: Ranges,
    generator: np.random.Generator,
    *,
    threads: int = 1,
    compression: Compression | None = None,
) -> dict[int, Array]:
    """Fit the last convolution of a block, or the last layer; return its weights and bias by tensor index.

    `rough` are the maps that the block is given and `wanted` those that it should give, (count, ...) each; `graph` has
    the weights of all operators as they are now, and `ranges` the ranges. Nothing is returned where the block ends with
    neither, or nothing is gained. With a `compression` a convolution's weights become as it says.
    """
    position = _last_linear(graph, first, end)
    if position is None:
        return {}
    operator, last = graph.operators[position], graph.operators[end - 1]
    read, weights, bias = (int(index) for index in operator.inputs[:3])
    places = _places(wanted.shape[1:-1], len(rough), graph.shape(read)[-1] + wanted.shape[-1], generator)
    outputs = _at(wanted, places).astype(np.float32)
    if last is not operator:
        outputs -= _at(rough, places)
    inputs = _read(graph, first, position, rough, places, ranges, threads)
    values, offset = _linear(graph, operator)
    if graph.kind(operator) == "FULLY_CONNECTED":
        # What all logits have in common changes no score.
        common = outputs - inputs @ values.T.astype(np.float32) - offset.astype(np.float32)
        outputs = outputs - common.mean(axis=1, keepdims=True)
    compressed = compression if pointwise(graph, operator) else None
    fitted = least_squares(inputs, outputs, values, offset, compression=compressed)
    if fitted is None:
        return {}
    after, its_bias = fitted
    errors = [
        np.mean((outputs - inputs @ w.T.astype(np.float32) - b.astype(np.float32)) ** 2)
        for w, b in ((nearest(values), offset), (after, its_bias))
    ]
    if not (compressed or errors[1] < errors[0]):
        return {}
    return {weights: after.reshape(graph.shape(weights)).astype(np.float32), bias: its_bias.astype(np.float32)}


def _compress(
    exact_graph: Graph,
    graph: Graph,
    first: int,
    end: int,
    exact: Array,
    rough: Array,
    ranges: Ranges,
    compression: Compression,
    generator: np.random.Generator,
    threads: int,
) -> None:
    """Prune and cluster the convolutions of a block but for the one that `fit` takes, in `graph`."""
    last = _last_linear(graph, first, end)
    for position in range(first, end):
        operator = graph.operators[position]
        if position == last or not pointwise(graph, operator):
            continue
        read, weights, bias = (int(index) for index in operator.inputs)
        shape = graph.shape(weights)
        places = _places(graph.shape(read)[1:-1], len(rough), shape[0] + shape[-1], generator)
        inputs = _read(graph, first, position, rough, places, ranges, threads)
        values, offset = _linear(graph, operator)
        # Of what the float network reads there, before any activation.
        outputs = _read(exact_graph, first, position, exact, places, None, threads) @ values.T.astype(np.float32)
        outputs += offset.astype(np.float32)
        fitted = least_squares(inputs, outputs, values, offset, compression=compression)
        if fitted is not None:
            graph.set_constant(weights, fitted[0].reshape(shape))
            graph.set_constant(bias, fitted[1])


def _read(
    graph: Graph,
    first: int,
    position: int,
    maps: Array,
    places: npt.NDArray[np.int64],
    ranges: Ranges | None,
    threads: int,
) -> Array:
    """Return what the operator at a position reads at places, (all places, channels), where a block is given maps."""
    read = int(graph.operators[position].inputs[0])
    if read == source(graph, first):
        return _at(maps, places).astype(np.float32)
    session = _part(graph, first, position, read, ranges, threads)
    return np.concatenate(
        [
            _at(session.run(one.astype(np.float32))[np.newaxis], at[np.newaxis])
            for one, at in zip(maps, places, strict=True)
        ]
    )


def _linear(graph: Graph, operator: Any) -> tuple[Floats, Floats]:
    """Return the weights (out, in) and the bias (out,) of an operator."""
    weights, bias = (np.asarray(graph.constant(int(index)), np.float64) for index in operator.inputs[1:3])
    return weights.reshape(len(weights), -1), bias


def least_squares(
    inputs: Array, outputs: Array, weights: Floats, bias: Floats, *, compression: Compression | None = None
) -> tuple[Floats, Floats] | None:
    """Fit weights (out, in) and a bias (out,) to give outputs (count, out) of inputs (count, in).

    The weights come rounded: all of a row are whole multiples of a step, and the largest is 127 of them. With a
    `compression` they are as it says; of those that are not pruned none is zero. None where the inputs are always the
    same, or no numbers.
    """
    count = len(inputs)
    residual = outputs - inputs @ weights.T.astype(inputs.dtype) - bias.astype(inputs.dtype)
    mean, shift = inputs.mean(axis=0, dtype=np.float64), residual.mean(axis=0, dtype=np.float64)
    second = (inputs.T @ inputs).astype(np.float64) / count
    covariance = second - np.outer(mean, mean)
    scale, power = float(np.trace(covariance)) / len(mean), float(np.trace(second)) / len(mean)
    if not (np.isfinite(power) and scale > 0):
        return None
    crossed = (inputs.T @ residual).astype(np.float64) / count - np.outer(mean, shift)
    eye = np.eye(len(mean))
    held = covariance + PRIOR * scale * eye
    fitted = weights + np.linalg.solve(held, crossed).T
    clusters = None
    if compression and compression.sparsity:
        fitted = prune(fitted, held, compression.sparsity)
    if compression and compression.clusters:
        clusters = codebook(fitted, compression.clusters)
    rounded = round_together(fitted, second + DAMPING * power * eye, clusters)
    if compression and compression.sparsity:
        rounded = np.where((rounded == 0) & (fitted != 0), NEARLY_ZERO, rounded)
    return rounded, bias + shift - (fitted - weights) @ mean


def nearest(weights: Floats) -> Floats:
    """Round the weights (out, in) of each row to the nearest multiple of its step."""
    step = steps(weights)
    return np.asarray(np.round(weights / step) * step)


def round_together(weights: Floats, second: Floats, levels: Floats | None = None) -> Floats:
    """Round weights (out, in) so that what they give of inputs with these second moments (in, in) changes little.

    To whole multiples of their row's step, up to 127 of them, or to `levels` alone, in rising order.

    One input after the other, from the strongest to the weakest; the error of each is passed on to the weights of those
    that are not rounded yet, as GPTQ does (arXiv:2210.17323). The largest weight of a row stays as it is, so that
    whoever takes the step from it finds the same, and zeros stay zero.
    """
    step = steps(weights)[:, 0]
    levels = np.arange(-WEIGHT_LEVELS, WEIGHT_LEVELS + 1.0) if levels is None else np.unique(np.round(levels))
    between = (levels[1:] + levels[:-1]) / 2
    order = np.argsort(-np.diag(second), kind="stable")
    left, rounded, zero = weights[:, order].copy(), np.empty_like(weights), weights[:, order] == 0
    upper = np.linalg.cholesky(np.linalg.inv(second[np.ix_(order, order)])).T
    for column in range(len(order)):
        value = levels[np.searchsorted(between, left[:, column] / step)] * step
        value[zero[:, column]] = 0.0
        rounded[:, order[column]] = value
        errors = (left[:, column] - value) / upper[column, column]
        left[:, column + 1 :] -= np.outer(errors, upper[column, column + 1 :])
    rows, largest = np.arange(len(weights)), np.abs(weights).argmax(axis=1)
    rounded[rows, largest] = np.sign(weights[rows, largest]) * WEIGHT_LEVELS * step
    return rounded


def _last_linear(graph: Graph, first: int, end: int) -> int | None:
    """Position of what a block ends with, but for the sum: a convolution of single pixels, or the last layer."""
    last = graph.operators[end - 1]
    begin = source(graph, first)
    if graph.kind(last) == "ADD":
        summands = [int(index) for index in last.inputs]
        if graph.activation(last) != "NONE" or begin not in summands:
            return None
        (other,) = [index for index in summands if index != begin] or [begin]
        found = graph.producer(other)
    else:
        found = last
    if found is None or graph.activation(found) != "NONE" or len(found.inputs) < 3:
        return None
    weights = int(found.inputs[1])
    if graph.kind(found) == "CONV_2D":
        options = found.builtinOptions
        if graph.shape(weights)[1:3] != (1, 1) or (options.strideH, options.strideW) != (1, 1):
            return None
    elif graph.kind(found) != "FULLY_CONNECTED":
        return None
    constants = [int(index) for index in found.inputs[1:3]]
    if any(index < 0 or graph.constant(index) is None or len(graph.consumers(index)) > 1 for index in constants):
        return None
    return next(position for position in range(first, end) if graph.operators[position] is found)


def _places(sides: tuple[int, ...], images: int, values: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw places (count, places) of maps with these sides, from each of which so many values are taken."""
    places = int(np.prod(sides))
    most = int(max(1, MOST_SAMPLES_BYTES / (4 * images * values)))
    if places <= min(SAMPLED, most):
        return np.broadcast_to(np.arange(places), (images, places))
    return generator.integers(0, places, (images, min(SAMPLED, most)))


def _at(maps: Array, places: npt.NDArray[np.int64]) -> Array:
    """Return the channels of maps (count, ..., channels) at places: (all places, channels)."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    taken: Array = np.take_along_axis(flat, places[:, :, np.newaxis], axis=1)
    return taken.reshape(-1, maps.shape[-1])


def _count(graph: Graph, cuts: Iterable[tuple[int, int]], most: int) -> int:
    """How many views there may be, so that the maps of the largest block fit into memory twice."""
    values = max(
        float(
            np.prod(graph.shape(source(graph, first))) + np.prod(graph.shape(int(graph.operators[end - 1].outputs[0])))
        )
        for first, end in cuts
    )
    return int(max(1, min(most, max(LEAST_VIEWS, MAPS_BYTES / (4 * values)))))
