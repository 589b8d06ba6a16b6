"""Every scheme with every input, output and head gives a file that computes what the float model computes."""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.converters import quantize as module
from edgeeff.converters.float_model import FloatModel, Head, finish
from edgeeff.converters.graph import WEIGHTED, Graph
from edgeeff.converters.quantize import IoType, Ranges, collect_ranges, quantize
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import MIXED
from edgeeff.converters.schemes import SCHEMES as EVERY
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, ModelError
from tests import tiny

TYPES: tuple[IoType, ...] = ("float32", "uint8", "int8")
HEADS: tuple[Head, ...] = ("softmax", "logits")
PHOTOS = tiny.images(24)
PROBES = PHOTOS[12:]  # of those that set the ranges, so that nothing is clipped
# Largest differences of a softmax over 5 classes from the float model's.
SCHEMES = {name: scheme for name, scheme in EVERY.items() if name != MIXED}
"""Mixed files are what `tests.test_mixed` is about."""
TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "dynamic": 0.02, "weight-only": 0.02, "int8": 0.05, "int16x8": 0.02}
LOGITS_SPAN = 25.0


@functools.cache
def model(head: Head = "softmax") -> FloatModel:
    return finish(tiny.classifier(), head=head)


@functools.cache
def ranges(head: Head = "softmax") -> Ranges:
    return collect_ranges(model(head), PHOTOS)


@functools.cache
def made(scheme: str, input_type: IoType = "uint8", output_type: IoType = "float32", head: Head = "softmax") -> bytes:
    return quantize(
        model(head),
        SCHEMES[scheme],
        ranges(head) if SCHEMES[scheme].calibrated else None,
        input_type=input_type,
        output_type=output_type,
    )


def scores(content: bytes) -> npt.NDArray[np.float32]:
    session = Session(content)
    return np.stack([session.run(image) for image in PROBES])


def kinds(content: bytes) -> list[str]:
    graph = Graph(content)
    return [graph.kind(operator) for operator in graph.operators]


def dtypes(graph: Graph, operator: Any) -> set[str]:
    return {graph.dtype(index) for index in (*operator.inputs, *operator.outputs) if index >= 0}


# --- All combinations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("input_type", "output_type"), list(itertools.product(TYPES, TYPES)))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_combination_agrees_with_float(scheme: str, input_type: IoType, output_type: IoType, head: Head) -> None:
    if head == "logits" and output_type != "float32" and scheme != "int8":
        with pytest.raises(InputError, match=f"--output-type {output_type} with logits needs their range"):
            made(scheme, input_type, output_type, head)
        return
    content = made(scheme, input_type, output_type, head)
    session = Session(content)
    assert (session.input.shape, session.input.dtype) == ((1, 8, 8, 3), input_type)
    assert (session.output.shape, session.output.dtype) == ((1, 5), output_type)
    if input_type != "float32":
        assert (session.input.scale, session.input.zero_point) == (1.0, 0 if input_type == "uint8" else -128)
    expected, found = scores(model(head).content), scores(content)
    allowed = TOLERANCE[scheme] + (0 if output_type == "float32" else 1 / 256)
    np.testing.assert_allclose(found, expected, atol=allowed * (1 if head == "softmax" else LOGITS_SPAN))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pixels_are_the_same_numbers_in_every_input_type(scheme: str) -> None:
    as_floats, *others = (scores(made(scheme, dtype)) for dtype in TYPES)
    for other in others:
        np.testing.assert_array_equal(other, as_floats)


@pytest.mark.parametrize("head", HEADS)
def test_both_byte_outputs_are_the_same_numbers(head: Head) -> None:
    unsigned, signed = (scores(made("int8", output_type=dtype, head=head)) for dtype in ("uint8", "int8"))
    np.testing.assert_array_equal(unsigned, signed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_signature_is_kept(scheme: str) -> None:
    graph = Graph(made(scheme, "uint8", "uint8"))
    (signature,) = graph.model.signatureDefs
    (source,), (sink,) = signature.inputs, signature.outputs
    assert (bytes(source.name), bytes(sink.name)) == (b"image", b"scores")
    assert ([source.tensorIndex], [sink.tensorIndex]) == (graph.inputs, graph.outputs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_again_gives_the_same_bytes(scheme: str) -> None:
    again = quantize(model(), SCHEMES[scheme], dict(ranges()), input_type="uint8", output_type="float32")
    assert again == made(scheme)


# --- What the schemes promise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_type", TYPES)
def test_int8_is_integer_but_for_a_float_softmax(output_type: IoType) -> None:
    graph = Graph(made("int8", "uint8", output_type))
    assert dtypes(graph, graph.operators[0]) == {"uint8", "int8"}
    types = {graph.kind(operator): dtypes(graph, operator) for operator in graph.operators[1:]}
    if output_type == "float32":
        assert types.pop("SOFTMAX") == {"float32"}
        assert types.pop("DEQUANTIZE") == {"int8", "float32"}
    if output_type == "uint8":
        assert types.pop("QUANTIZE") == {"int8", "uint8"}
    assert all(used <= {"int8", "int32"} for used in types.values()), types


def test_int8_weights_have_a_scale_for_each_channel_and_no_zero_point() -> None:
    graph = Graph(made("int8"))
    (convolution,) = (operator for operator in graph.operators if graph.kind(operator) == "CONV_2D")
    quantization = graph.tensor(int(convolution.inputs[1])).quantization
    assert len(quantization.scale) == 8
    assert not any(quantization.zeroPoint)


@pytest.mark.parametrize(
    ("scheme", "stored"), [("float16", "float16"), ("dynamic", "int8"), ("weight-only", "int8"), ("int16x8", "int8")]
)
def test_weights_are_stored_small(scheme: str, stored: str) -> None:
    graph = Graph(made(scheme))
    (convolution,) = (operator for operator in graph.operators if graph.kind(operator) == "CONV_2D")
    weights = int(convolution.inputs[1])
    source = graph.producer(weights)
    assert graph.dtype(weights if source is None else int(source.inputs[0])) == stored


@pytest.mark.parametrize("bias", [-2.0, 2.0])
@pytest.mark.parametrize("left", [0.0, 1e-12, 1e-10, 1e-8, 1e-6])
@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_a_channel_that_was_switched_off_keeps_its_bias(layer: str, left: float, bias: float) -> None:
    graph = Graph(model().content)
    named = {graph.name(index): index for operator in graph.operators for index in map(int, operator.inputs)}
    weights, biases = (np.array(graph.constant(named[f"{layer}/{part}"])) for part in ("weights", "bias"))
    weights[1] *= left
    biases[1] = bias
    graph.set_constant(named[f"{layer}/weights"], weights)
    graph.set_constant(named[f"{layer}/bias"], biases)
    off = replace(model(), content=graph.content())
    content = quantize(off, SCHEMES["int8"], collect_ranges(off, PHOTOS), input_type="uint8", output_type="float32")
    np.testing.assert_allclose(scores(content), scores(off.content), atol=TOLERANCE["int8"])
    # XNNPACK and the kernels of other chips add up in int32.
    small = Graph(content)
    for operator in small.operators:
        if small.kind(operator) in WEIGHTED:
            counted = np.array(small.constant(int(operator.inputs[2])), np.int64)
            assert np.abs(counted).max() <= module.MOST_BIAS + 1
            parts = [small.tensor(int(index)).quantization.scale for index in operator.inputs]
            np.testing.assert_allclose(parts[2], parts[0][0] * np.array(parts[1]), rtol=1e-6)


def test_activations_are_of_the_scheme() -> None:
    def activation(scheme: str) -> str:
        graph = Graph(made(scheme))
        (convolution,) = (operator for operator in graph.operators if graph.kind(operator) == "CONV_2D")
        return graph.dtype(int(convolution.outputs[0]))

    assert {scheme: activation(scheme) for scheme in SCHEMES} == {
        "float32": "float32",
        "float16": "float32",
        "dynamic": "float32",
        "weight-only": "float32",
        "int8": "int8",
        "int16x8": "int16",
    }


def test_the_output_is_never_clipped() -> None:
    graph = Graph(made("int8", output_type="int8", head="logits"))
    quantization = graph.tensor(graph.outputs[0]).quantization
    scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    low, high = ranges("logits")[model("logits").logits]
    assert scale * (-128 - zero_point) <= low + scale / 2
    assert scale * (127 - zero_point) >= high - scale / 2


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_calibrated_scheme_needs_ranges(scheme: str) -> None:
    with pytest.raises(InputError, match=f"{scheme} needs activation ranges"):
        quantize(model(), SCHEMES[scheme], None, input_type="uint8", output_type="float32")


def test_a_graph_that_litert_quantizer_cannot_take_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="cannot quantize this model to int8: "):
        quantize(model(), SCHEMES["int8"], {}, input_type="uint8", output_type="float32")


# --- Activation ranges ------------------------------------------------------------------------------------------------


def test_ranges_hold_what_the_float_model_computes() -> None:
    graph = Graph(model().content)
    found = ranges()
    names = {graph.name(int(index)) for operator in graph.operators for index in operator.outputs}
    assert names <= found.keys()
    seen = np.stack([Session(model("logits").content).run(image) for image in PHOTOS])
    assert found[model().logits] == pytest.approx((float(seen.min()), float(seen.max())), rel=1e-4)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_the_input_spans_all_pixels_whatever_the_images(value: int) -> None:
    plain = [np.full((8, 8, 3), value, np.uint8)]
    found = collect_ranges(model(), plain)
    graph = Graph(model().content)
    source, rows_in, rows_out, target = (
        graph.inputs[0],
        *(int(operator.outputs[0]) for operator in graph.operators[:3]),
    )
    assert [graph.kind(operator) for operator in graph.operators[:3]] == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]
    assert found[graph.name(source)] == found[graph.name(rows_in)] == (0.0, 255.0)
    # What ImageNet's statistics make of black in the reddest and of white in the bluest channel.
    darkest, brightest = -0.485 / 0.229, (1 - 0.406) / 0.225
    for index in (rows_out, target):
        assert found[graph.name(index)] == pytest.approx((darkest, brightest), rel=1e-5)
    quantized = quantize(model(), SCHEMES["int8"], found, input_type="uint8", output_type="float32")
    assert Session(quantized).input.scale == 1.0
    inner = Graph(quantized)
    (first,) = inner.consumers(inner.inputs[0])
    quantization = inner.tensor(int(first.outputs[0])).quantization
    assert (float(quantization.scale[0]), int(quantization.zeroPoint[0])) == (1.0, -128)


def test_raw_pixels_span_all_of_0_to_255() -> None:
    raw = finish(tiny.classifier(preprocessing=()), input_range=(0.0, 255.0))
    found = collect_ranges(raw, [np.full((8, 8, 3), 9, np.uint8)])
    graph = Graph(raw.content)
    assert found[graph.name(graph.inputs[0])] == (0.0, 255.0)
    assert found["conv"] != (0.0, 255.0)


def test_more_images_only_widen() -> None:
    few, more = collect_ranges(model(), PHOTOS[:4]), ranges()
    assert few.keys() == more.keys()
    assert all(more[name][0] <= low and high <= more[name][1] for name, (low, high) in few.items())
    assert few != more


def test_images_are_taken_one_at_a_time_as_they_come() -> None:
    events: list[str] = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for image in PHOTOS[:3]:
            events.append("made")
            yield image
        events.append("end")

    collect_ranges(model(), images(), tick=lambda: events.append("done"))
    assert events == ["made", "done"] * 3 + ["end"]


def test_no_more_than_two_images_are_in_memory() -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal most
        for index in range(20):
            image = np.full((8, 8, 3), index, np.uint8)
            alive.append(weakref.ref(image))
            most = max(most, sum(one() is not None for one in alive))
            yield image

    collect_ranges(model(), images())
    assert most <= 2


def test_memory_does_not_grow_with_the_images() -> None:
    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    sizes = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for index in range(900):
            if index in (100, 899):
                sizes.append(resident_kib())
            yield PHOTOS[index % len(PHOTOS)]

    collect_ranges(model(), images())
    # What 800 images leave behind is less than the activations of a single one of a real network.
    assert sizes[1] - sizes[0] < 4096


def test_no_image_is_a_calibration_error() -> None:
    with pytest.raises(CalibrationError, match="no calibration image"):
        collect_ranges(model(), [])


def test_what_fails_while_images_are_loaded_is_passed_on() -> None:
    def images() -> Iterator[npt.NDArray[np.uint8]]:
        yield PHOTOS[0]
        raise CalibrationError("broken.jpg is no image")

    with pytest.raises(CalibrationError, match=r"broken\.jpg"):
        collect_ranges(model(), images())


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize(("tensor", "named"), [("conv/weights", "conv"), ("dense/weights", "logits")])
def test_weights_that_are_not_finite_are_found_and_the_place_is_named(tensor: str, named: str, value: float) -> None:
    graph = Graph(model().content)
    (index,) = (i for i, one in enumerate(graph.model.subgraphs[0].tensors) if one.name.decode() == tensor)
    values = np.array(graph.constant(index))
    values.reshape(-1)[0 if np.isnan(value) else slice(None)] = value
    graph.model.buffers[graph.tensor(index).buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    with pytest.raises(CalibrationError, match=f"not finite, first in '{named}'"):
        collect_ranges(replace(model(), content=graph.content()), PHOTOS[:2])


def test_a_model_that_cannot_be_loaded_is_a_model_error() -> None:
    graph = Graph(model().content)
    (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    graph.tensor(int(dense.inputs[2])).shape = [4]
    graph.model.buffers[graph.tensor(int(dense.inputs[2])).buffer].data = np.zeros(16, np.uint8)
    with pytest.raises(ModelError, match=r"LiteRT cannot (load|run) the float model: \S"):
        collect_ranges(replace(model(), content=graph.content()), PHOTOS[:1])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    found = collect_ranges(model(), PHOTOS[:2], threads=2)
    for scheme in SCHEMES.values():
        quantize(model(), scheme, found if scheme.calibrated else None, input_type="uint8", output_type="uint8")
    assert capfd.readouterr() == ("", "")


def test_without_litert_quantizer_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litert_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"install 'edgeeff\[host\]'"):
        collect_ranges(model(), PHOTOS[:1])


# --- Heads that end otherwise than in a dense layer -------------------------------------------------------------------


def fully_convolutional() -> bytes:
    """A classifier whose scores come from a convolution over one pixel, flattened, as MobileNetV3's do."""
    graph = tiny.empty(1)
    current = tiny.steps(graph, graph.inputs[0], tiny.KERAS_STYLE)
    random = np.random.default_rng(3)
    current = tiny.convolution(graph, current, random.normal(0, 2, (5, 1, 1, 3)))
    shape = graph.add_tensor("shape", (2,), "int32", np.array([1, 5], np.int32))
    logits = graph.add_tensor("flat", (1, 5), "float32")
    options = graph.schema.ReshapeOptionsT()
    options.newShape = [1, 5]
    graph.insert(len(graph.operators), "RESHAPE", [current, shape], [logits], options)
    softmax = graph.schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    result = graph.add_tensor("scores", (1, 5), "float32")
    graph.insert(len(graph.operators), "SOFTMAX", [logits], [result], softmax)
    graph.set_output(result)
    return graph.content()


@pytest.mark.parametrize("widened", [0.0, 7.0])
def test_logits_that_are_flattened_after_a_convolution_stay_right(widened: float) -> None:
    float_model = finish(fully_convolutional())
    pixels = [np.array([[pixel]], np.uint8) for pixel in itertools.product((0, 80, 255), repeat=3)]
    found = collect_ranges(float_model, pixels)
    low, high = found[float_model.logits]
    found[float_model.logits] = (low, high + widened)
    content = quantize(float_model, SCHEMES["int8"], found, input_type="uint8", output_type="float32")
    reference, small = Session(float_model.content), Session(content)
    for image in pixels:
        np.testing.assert_allclose(small.run(image), reference.run(image), atol=0.08)


def test_check_output_type_is_what_quantize_refuses() -> None:
    for name, head, output_type in itertools.product(SCHEMES, HEADS, TYPES):
        check: Callable[[], None] = functools.partial(module.check_output_type, SCHEMES[name], output_type, head)
        if head == "logits" and output_type != "float32" and name != "int8":
            with pytest.raises(InputError, match="take float32 outputs, a softmax, or --scheme int8"):
                check()
        else:
            check()
