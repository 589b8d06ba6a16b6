from __future__ import annotations

import importlib.util
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff import results, scaling
from edgeeff.converters import inspect as module
from edgeeff.converters import metadata
from edgeeff.converters.graph import Graph
from edgeeff.converters.inspect import Inspection, Quantization, inspect
from edgeeff.errors import MissingExtraError, ModelError
from tests import tiny

PIXELS = (1, 8, 8, 4)


def save(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = Graph(tiny.classifier())
    graph.set_signature("serving_default", "image", "scores")
    return save(tmp_path_factory.mktemp("float"), graph.content())


@pytest.fixture(scope="module")
def seen(float_file: Path) -> Inspection:
    return inspect(float_file)


def test_operators_are_listed_in_order(seen: Inspection) -> None:
    names = ["MUL", "SUB", "DIV", "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert [(operator.index, operator.name) for operator in seen.operators] == list(enumerate(names))
    assert dict(seen.operator_counts) == dict.fromkeys(names, 1)
    convolution = seen.operators[3]
    assert [(tensor.shape, tensor.dtype, tensor.constant) for tensor in seen.inputs_of(convolution)] == [
        ((1, 8, 8, 3), "float32", False),
        ((8, 3, 3, 3), "float32", True),
        ((8,), "float32", True),
    ]
    assert [tensor.shape for tensor in seen.outputs_of(convolution)] == [(1, 4, 4, 8)]


def test_macs_are_counted_by_formula(seen: Inspection) -> None:
    convolution, dense = 4 * 4 * 8 * (3 * 3 * 3), 8 * 5
    assert [operator.macs for operator in seen.operators] == [0, 0, 0, convolution, 0, dense, 0]
    assert seen.macs == convolution + dense


def test_depthwise_macs(tmp_path: Path) -> None:
    seen = inspect(save(tmp_path, depthwise("float32", "float32")))
    assert seen.macs == 8 * 8 * 4 * (3 * 3)


def test_sizes(seen: Inspection, float_file: Path) -> None:
    floats = (1 + 3 + 3) + (8 * 3 * 3 * 3 + 8) + (5 * 8 + 5)
    axes = 2
    assert seen.parameter_bytes == 4 * (floats + axes)
    assert seen.model == results.ModelFile.of(float_file)


def test_contracts_and_signatures(seen: Inspection) -> None:
    assert seen.inputs == (results.TensorContract("pixels", (1, 8, 8, 3), "float32"),)
    assert seen.outputs == (results.TensorContract("scores", (1, 5), "float32"),)
    (signature,) = seen.signatures
    assert signature.key == "serving_default"
    assert dict(signature.inputs) == {"image": seen.operators[0].inputs[0]}
    assert dict(signature.outputs) == {"scores": seen.operators[-1].outputs[0]}


def test_metadata_is_shown(tmp_path: Path, seen: Inspection) -> None:
    assert seen.metadata is None
    content = metadata.embed(
        tiny.classifier(),
        name="tiny",
        description="",
        labels=list("abcde"),
        contract=metadata.InputContract(8, 8, 3, "float32"),
        provenance={"variant": "b0"},
    )
    found = inspect(save(tmp_path, content)).metadata
    assert found is not None
    assert (found.labels, found.provenance) == (tuple("abcde"), {"variant": "b0"})


def test_an_inspection_is_one_json_record(seen: Inspection) -> None:
    document = json.loads(results.to_json(seen))
    assert document["schema"] == "edgeeff/inspection"
    assert document["operators"][3]["name"] == "CONV_2D"
    assert document["delegation"]["partitions"] == 1
    assert document["runtime"]["name"] == "LiteRT"


def test_blocks_are_read_from_the_names(tmp_path: Path) -> None:
    graph, pixels = start("float32")
    names = (
        "efficientnetb2_1/block2a_se_reduce_1/convolution",
        "a/stem_conv/x",
        "net/blocks/y",
        "b/top_conv",
        "predictions",
    )
    for name in names:
        result = graph.add_tensor(name, PIXELS, "float32")
        append(graph, "LOGISTIC", [pixels], result)
    graph.set_output(result)
    seen = inspect(save(tmp_path, graph.content()))
    assert [operator.block for operator in seen.operators] == ["block2a", "stem", None, "top", "predictions"]


def test_quantization_per_tensor_and_per_channel(tmp_path: Path) -> None:
    graph = Graph(depthwise("int8", "int8"))
    weights = graph.operators[0].inputs[1]
    quantization = graph.tensor(weights).quantization
    quantization.scale, quantization.zeroPoint = [0.5, 0.25, 2.0, 1.0], [0, 0, 0, 0]
    quantization.quantizedDimension = 3
    seen = inspect(save(tmp_path, graph.content()))
    pixels, filters, _ = seen.inputs_of(seen.operators[0])
    assert pixels.quantization == Quantization(0.5, 0.5, -3)
    assert pixels.quantization is not None
    assert not pixels.quantization.per_channel
    assert filters.quantization == Quantization(0.25, 2.0, 0, channels=4, axis=3)
    assert filters.quantization is not None
    assert filters.quantization.per_channel
    assert seen.inputs == (results.TensorContract("in", PIXELS, "int8", scale=0.5, zero_point=-3),)


def test_data_outside_the_flatbuffer_counts(tmp_path: Path) -> None:
    from litert_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(Graph(tiny.classifier(classes=40_000)).content()))
    made.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    content = bytes(made.quantize().quantized_model)
    seen = inspect(save(tmp_path, content))
    assert 8 * 40_000 < seen.parameter_bytes < len(content)
    assert [tensor.size_bytes for tensor in seen.tensors if tensor.outside] == [8 * 40_000, 4 * 40_000]
    with pytest.raises(ModelError, match="it is cut off: its data reach to byte"):
        inspect(save(tmp_path, content[:-1000]))


def test_what_small_constants_hold(seen: Inspection) -> None:
    mean = seen.operators[4]
    assert [tensor.values for tensor in seen.inputs_of(mean)] == [None, (1, 2)]
    assert {tensor.values for tensor in seen.inputs_of(seen.operators[3])} == {None}


@pytest.mark.parametrize(
    ("dtype", "zero_point", "values", "zeros"),
    [
        ("int8", -3, [-3, -3, -3, -3], True),
        ("int8", -3, [-3, -3, -3, 0], False),
        ("int8", -3, [0, 0, 0, 0], False),
        ("uint8", 200, [200, 200, 200, 200], True),
        ("float32", None, [0, 0, 0, 0], True),
        ("float32", None, [0, 0, 0, 1], False),
    ],
)
def test_constants_that_stand_for_zeros(dtype: str, zero_point: int | None, values: list[int], zeros: bool) -> None:
    graph = tiny.empty(channels=4, dtype=dtype)
    scale = None if zero_point is None else (0.5, zero_point)
    constant = graph.add_tensor("c", (4,), dtype, np.array(values, np.dtype(dtype)), scale)
    result = graph.add_tensor("sum", PIXELS, dtype, quantization=scale)
    append(graph, "ADD", [graph.inputs[0], constant], result, graph.schema.AddOptionsT())
    (tensor,) = (one for one in module.parse(graph.content()).tensors if one.constant)
    assert (tensor.zeros, tensor.outside, tensor.values) == (zeros, False, None)


def test_options_that_accelerators_have_limits_for() -> None:
    graph = tiny.empty(channels=4)
    options = graph.schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationWFactor = 1
    options.dilationHFactor = 2
    kernel = graph.add_tensor("k", (4, 1, 1, 4), "float32", np.ones((4, 1, 1, 4), np.float32))
    result = graph.add_tensor("made", PIXELS, "float32")
    append(graph, "CONV_2D", [graph.inputs[0], kernel], result, options)
    (operator,) = module.parse(graph.content()).operators
    assert operator.options == {"dilation_height": 2, "dilation_width": 1}
    assert not operator.custom
    assert module.parse(custom("Atan")).operators[0].custom


# What XNNPACK takes: each case is asked of LiteRT, so a rule that does not hold in reality fails here.


def start(dtype: str, shape: tuple[int, ...] = PIXELS, scale: float = 0.5, zero_point: int = -3) -> tuple[Graph, int]:
    graph = tiny.empty()
    quantization = (scale, zero_point) if dtype in {"int8", "uint8", "int16"} else None
    graph.set_input(graph.add_tensor("in", shape, dtype, None, quantization))
    return graph, graph.inputs[0]


def append(graph: Graph, kind: str, inputs: list[int], output: int, options: Any = None) -> None:
    graph.insert(len(graph.operators), kind, inputs, [output], options)
    graph.set_output(output)


def window(graph: Graph, name: str) -> Any:
    options = getattr(graph.schema, name)()
    options.padding = graph.schema.Padding.SAME
    for field in ("strideH", "strideW", "dilationHFactor", "dilationWFactor", "depthMultiplier"):
        if hasattr(options, field):
            setattr(options, field, 1)
    return options


def weighted(kind: str, values: str, weights: str, bias: str | None, shape: tuple[int, ...]) -> bytes:
    graph, pixels = start(values, zero_point=0 if values == "int16" else -3)
    quantization = None if weights == "float32" else (0.5, 0)
    inputs = [pixels, graph.add_tensor("weights", shape, weights, np.ones(shape, weights), quantization)]
    if bias is not None:
        scale = None if bias == "float32" else (0.25, 0)
        inputs.append(graph.add_tensor("bias", (4,), bias, np.zeros(4, bias), scale))
    made = graph.add_tensor("out", PIXELS, values, None, None if values == "float32" else (0.5, 0))
    append(
        graph, kind, inputs, made, window(graph, "Conv2DOptionsT" if kind == "CONV_2D" else "DepthwiseConv2DOptionsT")
    )
    return graph.content()


def depthwise(values: str, weights: str, *, bias: bool = True) -> bytes:
    kind = "int32" if values == "int8" else "float32"
    content = weighted("DEPTHWISE_CONV_2D", values, weights, kind if bias else None, (1, 3, 3, 4))
    if values == weights:
        return content
    graph = Graph(content)  # float values with int8 weights: the kernel wants them per channel
    quantization = graph.tensor(graph.operators[0].inputs[1]).quantization
    quantization.scale, quantization.zeroPoint, quantization.quantizedDimension = [0.5] * 4, [0] * 4, 3
    return graph.content()


def unary(kind: str, dtype: str, made: str | None = None, options: str | None = None) -> bytes:
    graph, pixels = start(dtype, zero_point=0)
    quantization = None if (made or dtype) == "float32" else (0.5, 0)
    if kind == "SOFTMAX":
        quantization = (1 / 256, -128)
    result = graph.add_tensor("out", PIXELS, made or dtype, None, quantization)
    chosen: Any = getattr(graph.schema, options)() if options else None
    if kind == "SOFTMAX":
        chosen.beta = 1.0
    append(graph, kind, [pixels], result, chosen)
    return graph.content()


def binary(kind: str, dtype: str, scale_out: float) -> bytes:
    graph, pixels = start(dtype, zero_point=0)
    result = graph.add_tensor("out", PIXELS, dtype, None, None if dtype == "int32" else (scale_out, 0))
    append(graph, kind, [pixels, pixels], result, getattr(graph.schema, f"{kind.title()}OptionsT")())
    return graph.content()


def average_pool() -> bytes:
    graph, pixels = start("int8")
    options = graph.schema.Pool2DOptionsT()
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = 2
    append(graph, "AVERAGE_POOL_2D", [pixels], graph.add_tensor("out", (1, 4, 4, 4), "int8", None, (0.5, -3)), options)
    return graph.content()


def rescaled_reshape() -> bytes:
    graph, pixels = start("int8")
    shape = graph.add_tensor("shape", (2,), "int32", np.array([1, 256], np.int32))
    result = graph.add_tensor("out", (1, 256), "int8", None, (0.125, -3))
    append(graph, "RESHAPE", [pixels, shape], result, graph.schema.ReshapeOptionsT())
    return graph.content()


def computed_weights() -> bytes:
    graph, pixels = start("float32", (4, 1, 1, 4))
    weights = graph.add_tensor("weights", (4, 1, 1, 4), "float32")
    append(graph, "LOGISTIC", [pixels], weights)
    bias = graph.add_tensor("bias", (4,), "float32", np.zeros(4, np.float32))
    result = graph.add_tensor("out", (4, 1, 1, 4), "float32")
    append(graph, "CONV_2D", [pixels, weights, bias], result, window(graph, "Conv2DOptionsT"))
    return graph.content()


def computed_shape() -> bytes:
    """What an unknown batch size leaves in a squeeze-and-excite block, between two operators that are taken."""
    graph, pixels = start("float32")
    shape = graph.add_tensor("se/shape", (4,), "int32")
    first, second, third = (graph.add_tensor(f"block3b/{name}", PIXELS, "float32") for name in ("a", "b", "c"))
    options = graph.schema.ShapeOptionsT()
    options.outType = graph.schema.TensorType.INT32
    append(graph, "LOGISTIC", [pixels], first)
    append(graph, "SHAPE", [first], shape, options)
    append(graph, "RESHAPE", [first, shape], second, graph.schema.ReshapeOptionsT())
    append(graph, "LOGISTIC", [second], third)
    for index in (pixels, first, second, third):
        graph.tensor(index).shapeSignature = [-1, 8, 8, 4]
    return graph.content()


@pytest.mark.parametrize(
    ("content", "left", "reason"),
    [
        (lambda: unary("SOFTMAX", "int8", options="SoftmaxOptionsT"), "SOFTMAX", "takes float only, this one is int8"),
        (lambda: unary("HARD_SWISH", "int8"), "HARD_SWISH", "takes float only, this one is int8"),
        (average_pool, "AVERAGE_POOL_2D", "takes float only, this one is int8"),
        (lambda: weighted("CONV_2D", "int16", "int8", "int64", (4, 1, 1, 4)), "CONV_2D", "no int16 operators"),
        (lambda: binary("ADD", "int32", 1), "ADD", "no int32 operators"),
        (lambda: unary("QUANTIZE", "uint8", "int8"), "QUANTIZE", "does not turn uint8 into int8"),
        (lambda: depthwise("float32", "int8"), "DEPTHWISE_CONV_2D", "values are float and its weights int8"),
        (lambda: depthwise("float32", "float32", bias=False), "DEPTHWISE_CONV_2D", "needs a bias"),
        (computed_weights, "CONV_2D", "its weights are computed while it runs"),
        (rescaled_reshape, "RESHAPE", "different scales or zero points"),
        (lambda: binary("MUL", "int8", 1e-6), "MUL", "scales of its inputs and its output are too far apart"),
        (lambda: binary("ADD", "int8", 1e-4), "ADD", "scales of its inputs and its output are too far apart"),
    ],
)
def test_what_xnnpack_leaves_and_why(tmp_path: Path, content: Callable[[], bytes], left: str, reason: str) -> None:
    seen = inspect(save(tmp_path, content()))
    assert seen.delegation is not None
    assert [seen.operators[item.operator].name for item in seen.delegation.left] == [left]
    assert reason in seen.delegation.left[0].reason


@pytest.mark.parametrize(
    "content",
    [
        lambda: weighted("CONV_2D", "int8", "int8", "int32", (4, 1, 1, 4)),
        lambda: depthwise("int8", "int8"),
        lambda: depthwise("float32", "float32"),
        lambda: unary("LOGISTIC", "int8"),
        lambda: unary("HARD_SWISH", "float32"),
        lambda: unary("QUANTIZE", "int8"),
        lambda: binary("MUL", "int8", 0.5),
        tiny.classifier,
    ],
)
def test_what_xnnpack_takes_whole(tmp_path: Path, content: Callable[[], bytes]) -> None:
    seen = inspect(save(tmp_path, content()))
    assert seen.delegation == module.Delegation(1, tuple(range(len(seen.operators))), ())
    assert seen.dynamic_operators == ()


def test_what_xnnpack_leaves_splits_the_graph(tmp_path: Path) -> None:
    seen = inspect(save(tmp_path, computed_shape()))
    assert seen.delegation is not None
    assert (seen.delegation.partitions, seen.delegation.taken) == (2, (0, 3))
    assert [(item.operator, item.reason) for item in seen.delegation.left] == [
        (1, "XNNPACK has no SHAPE"),
        (2, "its new shape is computed while it runs"),
    ]
    assert [(operator.name, operator.block) for operator in seen.dynamic_operators] == [
        ("LOGISTIC", "block3b"),
        ("SHAPE", "block3b"),
        ("RESHAPE", "block3b"),
        ("LOGISTIC", "block3b"),
    ]
    assert seen.inputs[0].shape == (-1, 8, 8, 4)


def test_the_child_process_does_not_load_tensorflow(float_file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgeeff.converters.inspect import inspect;"
        "inspect(Path(sys.argv[1])); import edgeeff.converters.inspect as m; m.report_partitions(sys.argv[1]);"
        "print([name for name in ('tensorflow', 'keras', 'litert_quantizer') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(float_file)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_for_the_edge_tpu_is_shown_without_running_it(tmp_path: Path) -> None:
    seen = inspect(save(tmp_path, custom("edgetpu-custom-op")))
    assert seen.delegation is None
    assert seen.runtime_error == "it is compiled for the Edge TPU: only that device and its delegate run it"
    assert dict(seen.operator_counts) == {"edgetpu-custom-op": 1}


def test_an_operator_that_litert_does_not_have(tmp_path: Path) -> None:
    seen = inspect(save(tmp_path, custom("SomebodysOwn")))
    assert seen.delegation is None
    assert seen.runtime_error is not None
    assert "unresolved custom op: SomebodysOwn" in seen.runtime_error


def custom(name: str) -> bytes:
    graph, pixels = start("int8")
    append(graph, "CUSTOM", [pixels], graph.add_tensor("out", PIXELS, "int8", None, (0.5, -3)))
    graph.model.operatorCodes[0].customCode = name.encode()
    return graph.content()


# Files that are bad


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, as .keras files are"),
        (b"no model, only text", "no .tflite file"),
        (b"\x10\0\0\0TFL3" + b"\xff" * 60, "cut off or damaged"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = save(tmp_path, content)
    with pytest.raises(ModelError, match=message) as caught:
        inspect(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        inspect(tmp_path / "missing.tflite")
    with pytest.raises(ModelError, match="is a folder"):
        inspect(tmp_path)
    with pytest.raises(ModelError, match="Not a directory"):
        inspect(save(tmp_path, b"x") / "model.tflite")


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: float) -> None:
    content = tiny.classifier()
    with pytest.raises(ModelError, match="damaged"):
        inspect(save(tmp_path, content[: int(len(content) * keep)]))


@pytest.mark.parametrize("shape", [[2**31 - 1] * 40, [-1, 8]])
def test_shapes_that_no_tensor_has_are_damage(shape: list[int]) -> None:
    # Products of such numbers are no longer floating-point numbers, which times and shares are.
    graph = Graph(tiny.classifier())
    graph.tensor(graph.inputs[0]).shape = np.array(shape, np.int32)
    with pytest.raises(ModelError, match="damaged"):
        module.parse(graph.content())


def test_indices_that_point_nowhere_are_damage(tmp_path: Path) -> None:
    graph = Graph(tiny.classifier())
    graph.operators[3].inputs[1] = 999
    with pytest.raises(ModelError, match="damaged"):
        inspect(save(tmp_path, graph.content()))


def test_scales_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    graph = Graph(unary("LOGISTIC", "int8"))
    graph.tensor(0).quantization = None
    graph.tensor(graph.inputs[0]).quantization.scale = [math.nan]
    with pytest.raises(ModelError, match="no finite numbers"):
        inspect(save(tmp_path, graph.content()))


@settings(max_examples=500, deadline=None)
@given(
    cut=st.just(0) | st.integers(0, 1 << 20),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8),
)
def test_reading_damage_never_raises_anything_else(cut: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(_CONTENT[: len(_CONTENT) - cut % len(_CONTENT)])
    for place, value in flips:
        if damaged:
            damaged[place % len(damaged)] = value
    try:
        graph = module.parse(bytes(damaged))
    except ModelError as error:
        assert str(error)
    else:
        assert isinstance(graph, module.Graph)


_CONTENT = tiny.classifier()


def test_damage_that_reaches_litert_does_no_harm(tmp_path: Path) -> None:
    """Files that can be read, but whose options, shapes or types are nonsense: LiteRT refuses, crashes or copes."""
    chance = np.random.default_rng(5)
    tried = 0
    while tried < 8:
        damaged = bytearray(_CONTENT)
        for _ in range(3):
            damaged[chance.integers(8, len(damaged))] = chance.integers(256)
        try:
            module.parse(bytes(damaged))
        except ModelError:
            continue
        tried += 1
        try:
            seen = inspect(save(tmp_path, bytes(damaged)))
        except ModelError as error:
            assert "LiteRT" in str(error) or "metadata" in str(error)
        else:
            assert (seen.delegation is None) == (seen.runtime_error is not None)


def litert_stands_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_crash_of_litert_is_an_error_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, float_file: Path
) -> None:
    litert_stands_in(monkeypatch, tmp_path, "kill -SEGV $$")
    with pytest.raises(ModelError, match=rf"LiteRT crashed while loading it \(signal {signal.SIGSEGV.value}\)"):
        inspect(float_file)


def test_a_failure_of_litert_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, float_file: Path) -> None:
    litert_stands_in(monkeypatch, tmp_path, "echo 'ImportError: libfoo.so.1' >&2; exit 1")
    with pytest.raises(ModelError, match="failed while loading it: ImportError: libfoo"):
        inspect(float_file)


def test_litert_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, float_file: Path) -> None:
    litert_stands_in(monkeypatch, tmp_path, "exec sleep 30")
    monkeypatch.setattr(module, "LOAD_LIMIT_S", 0.2)
    seen = inspect(float_file)
    assert seen.delegation is None
    assert seen.runtime_error == "LiteRT did not load it within 0.2 s"


def test_without_litert_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, float_file: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"edgeeff\[device\]"):
        inspect(float_file)


# Real files


@pytest.mark.accuracy
def test_a_real_quantized_mobilenet(shared: Path) -> None:
    seen = inspect(shared / "edge_tpu" / "mobilenet_v1_0.25_128_quant.tflite")
    assert seen.delegation is not None
    assert seen.operator_counts["DEPTHWISE_CONV_2D"] == 13
    # Published as 14 million multiply-accumulates.
    assert seen.macs == pytest.approx(14e6, rel=0.05)
    assert {seen.operators[item.operator].name for item in seen.delegation.left} == {"AVERAGE_POOL_2D", "SOFTMAX"}
    assert seen.delegation.partitions == 2


@pytest.mark.accuracy
def test_a_real_file_for_the_edge_tpu(shared: Path) -> None:
    seen = inspect(shared / "edge_tpu" / "cocomp.tflite")
    assert seen.runtime_error is not None
    assert "Edge TPU" in seen.runtime_error
    assert seen.metadata is not None


def test_a_real_conversion(lite0_int8: Path) -> None:
    seen = inspect(lite0_int8)
    preprocessing = 224 * 224 * 3  # one multiplication for each value of the image
    assert seen.macs == scaling.macs(scaling.network("lite0")) + preprocessing
    assert seen.metadata is not None
    assert seen.metadata.labels == metadata.imagenet_labels()
    assert seen.metadata.contract == metadata.InputContract(224, 224, 3, "uint8")
    assert seen.delegation is not None
    assert seen.delegation.partitions == 1
    assert {seen.operators[item.operator].name for item in seen.delegation.left} == {"QUANTIZE"}
    assert {operator.block for operator in seen.operators} >= {"stem", "block1a", "block7a", "top"}
