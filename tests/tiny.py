"""Tiny float classifiers as .tflite files, built from the schema's objects in milliseconds: no TensorFlow, no Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeeff.converters.graph import FILE_IDENTIFIER, Graph, schema

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One elementwise operator, `kind` MUL, ADD, SUB or DIV, with a constant: a number or nested lists of numbers."""

    kind: str
    constant: float | Sequence[Any]
    constant_first: bool = False
    activation: str = "NONE"


KERAS_STYLE = (Step("MUL", 1 / 255), Step("SUB", (0.485, 0.456, 0.406)), Step("DIV", (0.229, 0.224, 0.225)))
"""What keras.applications puts first: Rescaling, then Normalization with ImageNet's statistics."""


def images(count: int, size: int = 8, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Return noise around one random colour for each image: (size, size, 3) uint8."""
    random = np.random.default_rng(seed)
    noisy = (random.integers(0, 256, 3) + random.normal(0, 40, (size, size, 3)) for _ in range(count))
    return [np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in noisy]


def empty(size: int = 8, channels: int = 3, dtype: str = "float32") -> Graph:
    """Return a graph with one input (1, size, size, channels), no operator, and no output yet."""
    generated = schema()
    model, subgraph = generated.ModelT(), generated.SubGraphT()
    model.version = 3
    model.description = b"tiny"
    model.buffers = [generated.BufferT()]
    model.operatorCodes = []
    subgraph.name = b"main"
    subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = [], [], [], []
    model.subgraphs = [subgraph]
    graph = Graph(_pack(model), "the tiny model")
    graph.set_input(graph.add_tensor("pixels", (1, size, size, channels), dtype))
    return graph


def classifier(
    *,
    size: int = 8,
    classes: int = 5,
    preprocessing: Sequence[Step] = KERAS_STYLE,
    head: Literal["softmax", "logits"] = "softmax",
    seed: int = 14,
) -> bytes:
    """Return input (1, size, size, 3) -> preprocessing -> CONV_2D 3x3/2 -> MEAN -> FULLY_CONNECTED -> SOFTMAX.

    With the default seed each of the 5 classes wins on at least a tenth of `images`.
    """
    graph = empty(size)
    current = steps(graph, graph.inputs[0], preprocessing)
    random = np.random.default_rng(seed)
    current = convolution(graph, current, random.normal(0, 0.5, (8, 3, 3, 3)), stride=2)
    axes = graph.add_tensor("axes", (2,), "int32", np.array([1, 2], np.int32))
    mean = graph.add_tensor("mean", (1, 8), "float32")
    graph.insert(len(graph.operators), "MEAN", [current, axes], [mean], graph.schema.ReducerOptionsT())
    weights = random.normal(0, 2, (classes, 8)).astype(np.float32)
    bias = random.normal(0, 0.1, classes).astype(np.float32)
    inputs = [
        mean,
        graph.add_tensor("dense/weights", weights.shape, "float32", weights),
        graph.add_tensor("dense/bias", bias.shape, "float32", bias),
    ]
    current = graph.add_tensor("logits", (1, classes), "float32")
    options = graph.schema.FullyConnectedOptionsT()
    graph.insert(len(graph.operators), "FULLY_CONNECTED", inputs, [current], options)
    if head == "softmax":
        softmax = graph.schema.SoftmaxOptionsT()
        softmax.beta = 1.0
        scores = graph.add_tensor("scores", (1, classes), "float32")
        graph.insert(len(graph.operators), "SOFTMAX", [current], [scores], softmax)
        current = scores
    graph.set_output(current)
    return graph.content()


def swish_classifier(*, size: int = 16, classes: int = 5, seed: int = 4) -> bytes:
    """Return what an EfficientNet is made of: stem, swish, two gated blocks, a residual sum, head, softmax.

    One channel of the stem is thirty times as large as the others, so that its range is a hard choice.
    """
    graph, random = empty(size), np.random.default_rng(seed)

    def weights(*shape: int) -> Float:
        values: Float = np.float32(1.5 / np.sqrt(np.prod(shape[1:]))) * random.standard_normal(shape, np.float32)
        return values

    def swish(x: int, name: str) -> int:
        return multiply(x, operate("LOGISTIC", [x], f"{name}/gate", graph.shape(x)), f"{name}/swish")

    def multiply(x: int, y: int, name: str) -> int:
        return operate("MUL", [x, y], name, graph.shape(x), graph.schema.MulOptionsT())

    def operate(kind: str, inputs: list[int], name: str, shape: Sequence[int], options: Any = None) -> int:
        result = graph.add_tensor(name, tuple(shape), "float32")
        graph.insert(len(graph.operators), kind, inputs, [result], options)
        return result

    def mean(x: int, name: str, *, keep: bool) -> int:
        options = graph.schema.ReducerOptionsT()
        options.keepDims = keep
        axes = graph.add_tensor(f"{name}/axes", (2,), "int32", np.array([1, 2], np.int32))
        channels = graph.shape(x)[3]
        return operate("MEAN", [x, axes], name, (1, 1, 1, channels) if keep else (1, channels), options)

    def convolve(x: int, kernel: Float, name: str, *, depthwise: bool = False) -> int:
        options = graph.schema.DepthwiseConv2DOptionsT() if depthwise else graph.schema.Conv2DOptionsT()
        options.padding = graph.schema.Padding.SAME
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        out = kernel.shape[3 if depthwise else 0]
        if depthwise:
            options.depthMultiplier = 1
        inputs = [
            x,
            graph.add_tensor(f"{name}/weights", kernel.shape, "float32", kernel),
            graph.add_tensor(
                f"{name}/bias", (out,), "float32", np.float32(0.3) * random.standard_normal(out, np.float32)
            ),
        ]
        return operate(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, name, (*graph.shape(x)[:3], out), options
        )

    def block(x: int, name: str) -> int:
        wide = swish(convolve(x, weights(12, 1, 1, 6), f"{name}/expand"), f"{name}/expand")
        deep = swish(convolve(wide, weights(1, 3, 3, 12) * 3, f"{name}/depth", depthwise=True), f"{name}/depth")
        squeezed = swish(convolve(mean(deep, f"{name}/mean", keep=True), weights(3, 1, 1, 12), f"{name}/reduce"), name)
        gate = operate(
            "LOGISTIC", [convolve(squeezed, weights(12, 1, 1, 3), f"{name}/excite")], f"{name}/gate", (1, 1, 1, 12)
        )
        return convolve(multiply(deep, gate, f"{name}/gated"), weights(6, 1, 1, 12), f"{name}/project")

    current = steps(graph, graph.inputs[0], (Step("MUL", 1 / 64), Step("SUB", (2.0, 2.0, 2.0))))
    stem = weights(6, 3, 3, 3) * np.array([30, 1, 1, 1, 1, 1], np.float32)[:, None, None, None]
    first = block(swish(convolve(current, stem, "stem"), "stem"), "block1")
    added = operate("ADD", [first, block(first, "block2")], "sum", graph.shape(first), graph.schema.AddOptionsT())
    pooled = mean(swish(convolve(added, weights(16, 1, 1, 6), "top"), "top"), "pool", keep=False)
    dense = weights(classes, 16) * 4
    inputs = [
        pooled,
        graph.add_tensor("dense/weights", dense.shape, "float32", dense),
        graph.add_tensor("dense/bias", (classes,), "float32", np.zeros(classes, np.float32)),
    ]
    logits = operate("FULLY_CONNECTED", inputs, "logits", (1, classes), graph.schema.FullyConnectedOptionsT())
    softmax = graph.schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    graph.set_output(operate("SOFTMAX", [logits], "scores", (1, classes), softmax))
    return graph.content()


def steps(graph: Graph, current: int, chain: Sequence[Step]) -> int:
    """Append elementwise operators that begin at the tensor `current`; return the last one's output."""
    for number, step in enumerate(chain):
        values = np.asarray(step.constant, np.float32)
        constant = graph.add_tensor(f"step{number}/constant", values.shape, "float32", values)
        result = graph.add_tensor(f"step{number}", graph.shape(current), "float32")
        options = getattr(graph.schema, f"{step.kind.title()}OptionsT")()
        options.fusedActivationFunction = getattr(graph.schema.ActivationFunctionType, step.activation)
        inputs = [constant, current] if step.constant_first else [current, constant]
        graph.insert(len(graph.operators), step.kind, inputs, [result], options)
        current = result
    return current


def convolution(graph: Graph, current: int, weights: Array, *, stride: int = 1) -> int:
    """Append a SAME convolution with ReLU, weights (out, height, width, in); return its output."""
    batch, height, width, _ = graph.shape(current)
    out = weights.shape[0]
    options = graph.schema.Conv2DOptionsT()
    options.padding = graph.schema.Padding.SAME
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = graph.schema.ActivationFunctionType.RELU
    inputs = [
        current,
        graph.add_tensor("conv/weights", weights.shape, "float32", weights.astype(np.float32)),
        graph.add_tensor("conv/bias", (out,), "float32", np.zeros(out, np.float32)),
    ]
    result = graph.add_tensor("conv", (batch, -(-height // stride), -(-width // stride), out), "float32")
    graph.insert(len(graph.operators), "CONV_2D", inputs, [result], options)
    return result


def run(content: bytes, image: Array) -> Float:
    """Run one image (height, width, channels) as it is through LiteRT; return the raw output of the batch's one row."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], image[np.newaxis].astype(detail["dtype"]))
    interpreter.invoke()
    output: Float = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    return output


def _pack(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())
