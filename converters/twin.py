"""A float .tflite as tf_keras layers whose quantization tensorflow-model-optimization simulates.

One layer for each operator, named by its position: batch normalization is folded, the activations of swish and of
squeeze-excite are layers of their own, and what the file rounds is rounded here, at the same places, to the same
numbers. tfmot's own rules, which go by Keras layers, leave convolutions with a swish inside in float. What is learned
lies in variables; how it is learned is left to `teach`.

Only the TensorFlow process imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from edgeeff.converters import replay
from edgeeff.converters.compress import FIXED_CENTROIDS, WEIGHT_LEVELS, Compression, codebook, pointwise
from edgeeff.converters.graph import WEIGHTED, Graph
from edgeeff.errors import ModelError

Array = npt.NDArray[Any]
quantization: Any = tfmot.quantization.keras
sparsity: Any = tfmot.sparsity.keras
clustering: Any = tfmot.clustering.keras

LEVELS = 255


class Rounded(quantization.quantizers.Quantizer):  # type: ignore[misc]
    """Weights as int8 files have them: symmetric, a step for each channel; the gradient passes straight through."""

    def __init__(self, shape: Sequence[int], *, depthwise: bool, codebook: Array | None) -> None:
        self._shape, self._codebook = tuple(shape), codebook
        self._axes = (0, 1) if depthwise else tuple(range(len(shape) - 1))

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Add the centroids, where there are any, to the layer."""
        if self._codebook is None:
            return {}
        values = keras.initializers.Constant(self._codebook)
        self.centroids = layer.add_weight(f"{name}_centroids", self._codebook.shape, initializer=values, trainable=True)
        return {"centroids": self.centroids}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any) -> Any:
        """Return weights that are whole multiples of their channel's step."""
        exact = tf.convert_to_tensor(inputs)
        largest = tf.reduce_max(tf.abs(exact), axis=self._axes, keepdims=True)
        size = tf.stop_gradient(tf.maximum(largest / WEIGHT_LEVELS, 1e-12))
        scaled = exact / size
        if "centroids" in weights:
            algorithm = clustering.ClusteringAlgorithm(weights["centroids"])
            scaled = algorithm.get_clustered_weight(algorithm.get_pulling_indices(scaled), scaled)
        return (scaled + tf.stop_gradient(tf.round(scaled) - scaled)) * size

    def get_config(self) -> dict[str, Any]:
        """Not needed: the twin is never saved as a Keras model."""
        raise NotImplementedError


class Ranged(quantization.quantizers.Quantizer):  # type: ignore[misc]
    """Activations rounded to the 256 values of a range whose ends are learned, as logarithms of ratios."""

    def __init__(self, low: float, high: float) -> None:
        self._start = min(low, 0.0), max(high, 0.0)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Add the two ratios to the layer."""
        self.ratios = tuple(
            layer.add_weight(f"{name}_{end}", (), initializer="zeros", trainable=True) for end in ("low", "high")
        )
        return {"ratios": self.ratios}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any) -> Any:
        """Return values on the grid."""
        return replay.fake_quantized(tf, inputs, *self._bounds(weights["ratios"]))

    def bounds(self) -> tuple[float, float]:
        """The range as learned so far."""
        low, high = self._bounds(self.ratios)
        return float(low), float(high)

    def _bounds(self, ratios: Sequence[Any]) -> tuple[Any, Any]:
        return self._start[0] * tf.exp(ratios[0]), self._start[1] * tf.exp(ratios[1])

    def get_config(self) -> dict[str, Any]:
        """Not needed: the twin is never saved as a Keras model."""
        raise NotImplementedError


class Simulated(quantization.QuantizeConfig):  # type: ignore[misc]
    """How one layer is quantized: its kernel, if it has one, and its output, unless that has its input's scale."""

    def __init__(self, output: Any | None, weights: Rounded | None = None, attribute: str = "kernel") -> None:
        self.output, self.weights, self._attribute = output, weights, attribute
        self.kernel: Any = None
        self.bias: Any = None

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Of the kernel; asked once, while it still is the variable."""
        if self.weights is None:
            return []
        self.kernel, self.bias = getattr(layer, self._attribute), layer.bias
        return [(self.kernel, self.weights)]

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        """Have the layer compute with rounded weights."""
        if quantize_weights:
            setattr(layer, self._attribute, quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """None: activations are layers, or fused into the operator whose output is rounded."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        """Nothing to replace."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The one of the output."""
        return [] if self.output is None else [self.output]

    def get_config(self) -> dict[str, Any]:
        """Not needed: the twin is never saved as a Keras model."""
        raise NotImplementedError


class Prunable(quantization.QuantizeWrapperV2):  # type: ignore[misc]
    """A quantized layer that tfmot can prune: what it sets to zero is the kernel behind the rounding."""

    def get_prunable_weights(self) -> list[Any]:
        """The kernel."""
        return [self.quantize_config.kernel]


class Elementwise(keras.layers.Layer):  # type: ignore[misc]
    """A sum or a product with a constant."""

    def __init__(self, kind: str, constant: Array, **options: Any) -> None:
        super().__init__(**options)
        self._kind, self._constant = kind, constant

    def call(self, inputs: Any) -> Any:
        """Compute."""
        return inputs * self._constant if self._kind == "MUL" else inputs + self._constant

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As the input."""
        return input_shape


@dataclass(frozen=True)
class Learned:
    """Where the variables of one operator are, and what of the file they stand for; None where nothing is learned."""

    weights: int | None
    """Tensor index of the weights."""
    bias: int | None
    output: int
    config: Simulated
    depthwise: bool


class Twin:
    """A network from pixels (n, height, width, 3), 0..255, to its features between blocks and its logits, last.

    Without `ranges` it computes in float. With them it is quantized; `fixed` names the tensors whose ranges stay.
    Raises ModelError for an operator that is not known, naming it.
    """

    def __init__(
        self,
        graph: Graph,
        logits: str,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        fixed: Sequence[str] = (),
        compression: Compression | None = None,
    ) -> None:
        if obstacles := replay.obstacles(graph):
            raise ModelError(f"this network cannot be fine-tuned: {', '.join(obstacles)} cannot be trained")
        self._graph, self._ranges, self._fixed = graph, ranges, frozenset(fixed)
        self._compression = compression or Compression()
        named = [graph.name(int(operator.outputs[0])) for operator in graph.operators]
        end = named.index(logits) + 1
        # The preprocessing is exact but for its output's rounding: what is learned begins behind it.
        first = 0
        while named[first] in self._fixed and first + 1 < end:
            first += 1
        entry = graph.inputs[0]
        pixels = keras.Input(graph.shape(entry)[1:], name="pixels")
        values = {entry: pixels}
        ends = {int(graph.operators[at - 1].outputs[0]) for at in replay.cuts(graph, first) if at < end}
        features = []
        self.learned: list[Learned] = []
        self.compressed: list[Learned] = []
        """Those whose weights are pruned or clustered."""
        for position, operator in enumerate(graph.operators[:end]):
            output = int(operator.outputs[0])
            inputs = [values[int(index)] for index in operator.inputs if int(index) in values]
            if graph.kind(operator) == "FULLY_CONNECTED" and len(inputs[0].shape) > 2:
                inputs = [keras.layers.Flatten()(inputs[0])]
            layer = self._layer(operator, f"operator{position}")
            if ranges is not None:
                layer = self._quantized(layer, operator, learn=position >= first)
            values[output] = layer(inputs if len(inputs) > 1 else inputs[0])
            if output in ends:
                features.append(values[output])
        self.model = keras.Model(pixels, [*features, values[int(graph.operators[end - 1].outputs[0])]])

    def begin(self) -> None:
        """Tell tfmot's pruning that training begins; to be called before variables are restored."""
        update = sparsity.UpdatePruningStep()
        update.set_model(self.model)
        update.on_train_begin()

    def variables(self, weight_rate: float, bias_rate: float, range_rate: float) -> list[tuple[Any, Array]]:
        """Return what is learned, each with its rate: so many steps of its quantization, or logarithms of a range."""
        found: list[tuple[Any, Array]] = []
        for part in self.learned:
            if part.weights is not None and part.config.weights is not None:
                kernel = part.config.kernel.numpy()
                # Of an unpruned, unclustered kernel as it is at the start.
                axes = (0, 1) if part.depthwise else tuple(range(kernel.ndim - 1))
                size = np.abs(kernel).max(axis=axes, keepdims=True) / WEIGHT_LEVELS
                found.append((part.config.kernel, np.float32(weight_rate * size)))
                if isinstance(part.config.output, Ranged):
                    low, high = part.config.output.bounds()
                else:
                    low, high = self._range(part.output)
                found.append((part.config.bias, np.float32(bias_rate * (high - low) / LEVELS)))
                if part in self.compressed and self._compression.clusters:
                    centroids = part.config.weights.centroids
                    found.append((centroids, np.float32(weight_rate * ~np.isin(centroids.numpy(), FIXED_CENTROIDS))))
            if isinstance(part.config.output, Ranged):
                found += [(ratio, np.float32(range_rate)) for ratio in part.config.output.ratios]
        return found

    def arrays(self) -> dict[str, Array]:
        """Return what was learned as the file takes it: "weights/INDEX", rounded, biases too, and "range/INDEX"."""
        arrays: dict[str, Array] = {}
        for part in self.learned:
            config = part.config
            if part.weights is not None and config.weights is not None:
                centroids = {"centroids": config.weights.centroids} if hasattr(config.weights, "centroids") else {}
                kernel = config.weights(config.kernel, False, centroids).numpy()
                shape = self._graph.shape(part.weights)
                arrays[f"weights/{part.weights}"] = kernel.reshape(shape) if part.depthwise else _to_file(kernel)
                arrays[f"weights/{part.bias}"] = config.bias.numpy()
            if isinstance(config.output, Ranged):
                arrays[f"range/{part.output}"] = np.array(config.output.bounds())
        return arrays

    def _layer(self, operator: Any, name: str) -> Any:
        """Return the layer that computes what an operator does, in float."""
        graph, kind, options = self._graph, self._graph.kind(operator), operator.builtinOptions
        if kind in WEIGHTED:
            return self._weighted(operator, name)
        activation = graph.activation(operator)
        if activation != "NONE":
            raise ModelError(f"this network cannot be fine-tuned: {kind} with {activation} cannot be trained")
        constants = [values for index in operator.inputs if (values := graph.constant(int(index))) is not None]
        if kind in {"MUL", "ADD"} and constants:
            return Elementwise(kind, constants[0], name=name)
        if kind == "MEAN" and sorted(np.ravel(constants[0]).tolist()) != [1, 2]:
            raise ModelError(f"this network cannot be fine-tuned: MEAN over {np.ravel(constants[0])} cannot be trained")
        layers: dict[str, Callable[[], Any]] = {
            "MUL": lambda: keras.layers.Multiply(name=name),
            "ADD": lambda: keras.layers.Add(name=name),
            "MEAN": lambda: keras.layers.GlobalAveragePooling2D(keepdims=bool(options.keepDims), name=name),
            "RESHAPE": lambda: keras.layers.Reshape(graph.shape(int(operator.outputs[0]))[1:], name=name),
            "PAD": lambda: keras.layers.ZeroPadding2D(np.asarray(constants[0])[1:3].tolist(), name=name),
        }
        return layers[kind]() if kind in layers else keras.layers.Activation(ACTIVATIONS[kind], name=name)

    def _weighted(self, operator: Any, name: str) -> Any:
        """Return the layer of a convolution or a dense layer."""
        graph, kind, options = self._graph, self._graph.kind(operator), operator.builtinOptions
        kernel, constant = self._kernel(operator), keras.initializers.Constant
        values = constant(kernel)
        common = {
            "name": name,
            "activation": ACTIVATIONS[graph.activation(operator)],
            "bias_initializer": constant(graph.constant(int(operator.inputs[2]))),
        }
        if kind == "FULLY_CONNECTED":
            return keras.layers.Dense(kernel.shape[1], kernel_initializer=values, **common)
        common |= {
            "strides": (options.strideH, options.strideW),
            "dilation_rate": (options.dilationHFactor, options.dilationWFactor),
            "padding": "same" if options.padding == graph.schema.Padding.SAME else "valid",
        }
        if kind == "CONV_2D":
            return keras.layers.Conv2D(kernel.shape[3], kernel.shape[:2], kernel_initializer=values, **common)
        return keras.layers.DepthwiseConv2D(
            kernel.shape[:2], depth_multiplier=kernel.shape[3], depthwise_initializer=values, **common
        )

    def _kernel(self, operator: Any) -> Array:
        """Weights as Keras has them: (height, width, in, out), (height, width, channels, multiplier) or (in, out)."""
        kind, weights = self._graph.kind(operator), self._graph.constant(int(operator.inputs[1]))
        if weights is None:
            raise ModelError(f"{kind} has no constant weights")
        kernel: Array = weights.T if kind == "FULLY_CONNECTED" else weights.transpose(1, 2, 3, 0)
        if kind == "DEPTHWISE_CONV_2D":
            kernel = weights.reshape(*weights.shape[1:3], self._graph.shape(int(operator.inputs[0]))[3], -1)
        return kernel

    def _quantized(self, layer: Any, operator: Any, *, learn: bool) -> Any:
        """Wrap a layer in what tfmot simulates the quantization with."""
        kind, output = self._graph.kind(operator), int(operator.outputs[0])
        if kind in replay.TIED:
            return layer
        weights, attribute, dense = None, "kernel", False
        if kind in WEIGHTED:
            depthwise = kind == "DEPTHWISE_CONV_2D"
            kernel = self._kernel(operator)
            dense = learn and bool(self._compression) and pointwise(self._graph, operator)
            rows, clusters = kernel.reshape(-1, kernel.shape[-1]).T, self._compression.clusters
            values = codebook(rows, clusters).astype(np.float32) if dense and clusters else None
            weights = Rounded(kernel.shape, depthwise=depthwise, codebook=values)
            attribute = "depthwise_kernel" if depthwise else "kernel"
        config = Simulated(self._rounding(kind, output, learn=learn), weights, attribute)
        part = Learned(
            None if weights is None else int(operator.inputs[1]),
            None if weights is None else int(operator.inputs[2]),
            output,
            config,
            depthwise=kind == "DEPTHWISE_CONV_2D",
        )
        self.learned += [part] * learn
        self.compressed += [part] * dense
        if not (dense and self._compression.sparsity):
            return quantization.QuantizeWrapperV2(layer, config)
        schedule = sparsity.ConstantSparsity(self._compression.sparsity, begin_step=1, end_step=1)
        return sparsity.prune_low_magnitude(Prunable(layer, config), pruning_schedule=schedule)

    def _rounding(self, kind: str, output: int, *, learn: bool) -> Any:
        low, high = self._range(output)
        if kind == "LOGISTIC":
            # 256 steps of 1/256: a gate that is wide open lets 255/256 through.
            low, high = 0.0, 255 / 256
        elif learn and self._graph.name(output) not in self._fixed:
            return Ranged(low, high)
        return quantization.quantizers.FixedQuantizer(8, init_min=low, init_max=high, narrow_range=False)

    def _range(self, output: int) -> tuple[float, float]:
        low, high = (self._ranges or {})[self._graph.name(output)]
        return min(low, 0.0), max(high, 0.0)


def _hard_swish(x: Any) -> Any:
    return x * tf.nn.relu6(x + 3) / 6


ACTIVATIONS: dict[str, Any] = {
    "NONE": None,
    "RELU": "relu",
    "RELU6": tf.nn.relu6,
    "LOGISTIC": "sigmoid",
    "SOFTMAX": "softmax",
    "HARD_SWISH": _hard_swish,
}


def _to_file(kernel: Array) -> Array:
    """Weights of a convolution or a dense layer as the file has them, output channels first."""
    weights: Array = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 0, 1, 2)
    return weights
