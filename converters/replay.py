"""The float network of a .tflite, replayed in TensorFlow operator by operator, and what its graph says for that.

At any number of images at a time, and with gradients: `reconstruct` tunes weights that way, `distill` images.
TensorFlow is given, not imported, because processes without it ask what can be replayed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters.graph import CONVOLVING, OPTIONAL, WEIGHTED, Graph
from edgeeff.errors import ModelError

Array = npt.NDArray[Any]

TIED = ("PAD", "RESHAPE")
"""Operators whose output has the scale of their input."""
SUPPORTED = frozenset({*WEIGHTED, *TIED, "MUL", "ADD", "LOGISTIC", "MEAN", "SOFTMAX", "HARD_SWISH", "RELU", "RELU6"})
ACTIVATIONS = frozenset({"NONE", "RELU", "RELU6"})
PASSES = 40.0
"""Over the values of a map in one step of learning, in multiply-adds that take as long."""
SAMPLED = 2
"""Images of a batch from which the gradient of the rounding error is estimated: it takes a pass over all values."""


@dataclass(frozen=True)
class Node:
    """One operator of the float .tflite."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Any
    activation: str


def obstacles(graph: Graph) -> list[str]:
    """Name the operators that cannot be replayed, each once; empty when all can."""
    found = []
    for operator in graph.operators:
        kind, activation = graph.kind(operator), graph.activation(operator)
        if kind not in SUPPORTED:
            found.append(kind)
        elif activation not in ACTIVATIONS:
            found.append(f"{kind} with {activation}")
        elif kind in WEIGHTED and (
            graph.constant(int(operator.inputs[1])) is None
            or len(operator.inputs) < 3
            or int(operator.inputs[2]) == OPTIONAL
        ):
            found.append(f"{kind} without constant weights and bias")
    return list(dict.fromkeys(found))


def roots(graph: Graph) -> dict[int, int]:
    """Map each computed tensor to the one whose scale it has: itself, or what a tied operator was given."""
    root: dict[int, int] = {}
    for operator in graph.operators:
        source, output = int(operator.inputs[0]), int(operator.outputs[0])
        root[output] = root.get(source, source) if graph.kind(operator) in TIED else output
    return root


def cuts(graph: Graph, first: int) -> list[int]:
    """Positions of operators, from `first` on, before which nothing but one map of features is alive."""
    operators = graph.operators
    last_use = {int(index): position for position, operator in enumerate(operators) for index in operator.inputs}
    alive: set[int] = set()
    found = []
    for position, operator in enumerate(operators):
        output = int(operator.outputs[0])
        alive = {index for index in alive | {output} if last_use.get(index, -1) > position}
        shape = graph.shape(output)
        linear = graph.kind(operator) in ("CONV_2D", "ADD") and graph.activation(operator) == "NONE"
        if position >= first and alive == {output} and linear and len(shape) == 4 and shape[1] > 1:
            following = graph.kind(operators[position + 1])
            # What an activation is about to bend is no place to compare: its large negative values mean nothing.
            if following not in ("LOGISTIC", "HARD_SWISH", "RELU", "RELU6"):
                found.append(position + 1)
    return found


def blocks(graph: Graph, fixed: Container[str], logits: str) -> list[tuple[int, int]]:
    """Return where the blocks of a network begin and end, as positions of operators, up to its logits.

    `fixed` are the tensors of the preprocessing, which is exact but for the rounding of its output: the first block
    that is cut off ends behind it.
    """
    named = [graph.name(int(operator.outputs[0])) for operator in graph.operators]
    end = named.index(logits) + 1
    first = 0
    while named[first] in fixed and first + 1 < end:
        first += 1
    return list(itertools.pairwise([0, *cuts(graph, first), end]))


def work(graph: Graph, first: int, end: int) -> float:
    """Estimate what operators cost for one image: multiply-adds, and passes over the values of all maps."""
    total = 0.0
    for operator in graph.operators[first:end]:
        values = float(np.prod(graph.shape(int(operator.outputs[0]))))
        total += PASSES * values
        if graph.kind(operator) in WEIGHTED:
            shape = graph.shape(int(operator.inputs[1]))
            total += values * np.prod(shape) / shape[3 if graph.kind(operator) == "DEPTHWISE_CONV_2D" else 0]
    return total


class Replay:
    """A float network in TensorFlow."""

    def __init__(self, tf: Any, graph: Graph) -> None:
        """Read the operators and the constants."""
        self._tf, self._graph = tf, graph
        self._nodes = [
            Node(
                graph.kind(operator),
                tuple(int(index) for index in operator.inputs),
                int(operator.outputs[0]),
                operator.builtinOptions,
                graph.activation(operator),
            )
            for operator in graph.operators
        ]
        self._constants = {
            index: values
            for node in self._nodes
            for index in node.inputs
            if index != OPTIONAL and (values := graph.constant(index)) is not None
        }

    def _input(self, first: int) -> int:
        """The tensor that is alive before an operator."""
        return self._nodes[first - 1].output if first else self._graph.inputs[0]

    def _replay(
        self, first: int, end: int, values: dict[int, Any], watch: tuple[Any, Sequence[int]] = (None, ())
    ) -> dict[int, Any]:
        """Compute operators one after the other; `values` has the tensors that come from before.

        `watch` is a gradient tape, and the tensors whose gradients it will be asked for.
        """
        tape, watched = watch
        for node in self._nodes[first:end]:
            arguments = [self._argument(index, values) for index in node.inputs]
            values[node.output] = self._activate(self._operate(node, arguments), node.activation)
            if node.output in watched:
                tape.watch(values[node.output])
        return values

    def _argument(self, index: int, values: dict[int, Any]) -> Any:
        if index in values:
            return values[index]
        return None if index == OPTIONAL else self._tf.constant(self._constants[index])

    def _operate(self, node: Node, arguments: list[Any]) -> Any:
        tf, options, x = self._tf, node.options, arguments[0]
        if node.kind in CONVOLVING:
            weights, bias = arguments[1:3]
            padding = "SAME" if options.padding == self._graph.schema.Padding.SAME else "VALID"
            strides = (1, options.strideH, options.strideW, 1)
            dilations = (options.dilationHFactor, options.dilationWFactor)
            if node.kind == "CONV_2D":
                filters = tf.transpose(weights, (1, 2, 3, 0))
                return tf.nn.conv2d(x, filters, strides, padding, dilations=dilations) + bias
            height, width, channels = weights.shape[1], weights.shape[2], x.shape[3]
            filters = tf.reshape(weights, (height, width, channels, weights.shape[3] // channels))
            return tf.nn.depthwise_conv2d(x, filters, strides, padding, dilations=dilations) + bias
        if node.kind == "FULLY_CONNECTED":
            return tf.matmul(tf.reshape(x, (-1, arguments[1].shape[1])), arguments[1], transpose_b=True) + arguments[2]
        if node.kind == "MEAN":
            axes = [int(axis) for axis in np.ravel(self._constants[node.inputs[1]])]
            return tf.reduce_mean(x, axis=axes, keepdims=bool(options.keepDims))
        if node.kind == "RESHAPE":
            return tf.reshape(x, (-1, *self._graph.shape(node.output)[1:]))
        simple: dict[str, Callable[[], Any]] = {
            "MUL": lambda: x * arguments[1],
            "ADD": lambda: x + arguments[1],
            "PAD": lambda: tf.pad(x, arguments[1]),
            "LOGISTIC": lambda: tf.sigmoid(x),
            "SOFTMAX": lambda: tf.nn.softmax(x * options.beta),
            "HARD_SWISH": lambda: x * tf.nn.relu6(x + 3) / 6,
            "RELU": lambda: tf.nn.relu(x),
            "RELU6": lambda: tf.nn.relu6(x),
        }
        if node.kind not in simple:
            raise ModelError(f"the operator {node.kind} cannot be replayed")
        return simple[node.kind]()

    def _activate(self, y: Any, activation: str) -> Any:
        functions = {"NONE": lambda value: value, "RELU": self._tf.nn.relu, "RELU6": self._tf.nn.relu6}
        return functions[activation](y)


def fake_quantized(tf: Any, x: Any, low: Any, high: Any) -> Any:
    """Round to 8 bits; the gradients of the bounds see what is clipped and, in a sample, what is rounded.

    After LSQ (arXiv:1902.08153).
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def quantize(x: Any, low: Any, high: Any) -> Any:
        y = tf.quantization.fake_quant_with_min_max_vars(x, low, high)

        def gradient(upstream: Any) -> Any:
            dx, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(upstream, x, low, high)
            sampled = tf.reduce_sum(dx[:SAMPLED] * (y[:SAMPLED] - x[:SAMPLED]))
            count = tf.shape(x)[0]
            share = tf.cast(count, tf.float32) / tf.cast(tf.minimum(count, SAMPLED), tf.float32)
            rounding = sampled * share / (high - low)
            return dx, below - rounding, above + rounding

        return y, gradient

    return quantize(x, low, high)
