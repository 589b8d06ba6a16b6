"""Every way in which a file can be broken is found, and the message names the cause and the place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgeeff.converters.float_model import FloatModel, Head, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import IoType, collect_ranges, quantize
from edgeeff.converters.schemes import MIXED, SCHEMES
from edgeeff.converters.verify import Verification, compare, is_doubtful, verify
from edgeeff.errors import GateError, ModelError, VerificationError
from edgeeff.results import Agreement
from tests import tiny
from tests.tiny import Float

UNMIXED = [name for name in SCHEMES if name != MIXED]
PROBES = tiny.images(16, seed=1)
ALWAYS = ["no variables", "static shapes", "weights present"]
RUN = ["runs", "finite outputs", "outputs differ", "agrees with float"]


@functools.cache
def model(head: Head = "softmax") -> FloatModel:
    return finish(tiny.classifier(), head=head)


def converted(
    scheme: str,
    source: FloatModel | None = None,
    *,
    head: Head = "softmax",
    input_type: IoType = "uint8",
    output_type: IoType = "float32",
) -> bytes:
    source = source or model(head)
    ranges = collect_ranges(source, tiny.images(24)) if SCHEMES[scheme].calibrated else None
    return quantize(source, SCHEMES[scheme], ranges, input_type=input_type, output_type=output_type)


def constant(graph: Graph, name: str) -> int:
    (index,) = (i for i, one in enumerate(graph.model.subgraphs[0].tensors) if one.name == name.encode())
    return index


def edited(content: bytes, name: str, change: Callable[[Float], None]) -> bytes:
    """Return a float file whose constant of that name was changed in place."""
    graph = Graph(content)
    index = constant(graph, name)
    values = np.array(graph.constant(index))
    change(values)
    graph.model.buffers[graph.tensor(index).buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return graph.content()


def failure(content: bytes, scheme: str = "float32", source: FloatModel | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(content, SCHEMES[scheme], source or model(), PROBES)
    message = str(caught.value)
    assert isinstance(caught.value, GateError)  # exit code 1: a gate said no
    assert message.startswith("the file that was made does not pass verification and was not written: ")
    return message.partition("not written: ")[2]


# --- What is right passes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["softmax", "logits"])
@pytest.mark.parametrize("scheme", UNMIXED)
def test_what_was_converted_passes(scheme: str, head: Head) -> None:
    found = verify(converted(scheme, head=head), SCHEMES[scheme], model(head), PROBES)
    assert [check.name for check in found.checks] == [*ALWAYS, *(["integer arithmetic"] * (scheme == "int8")), *RUN]
    assert all(check.passed and check.detail for check in found.checks)
    assert found.agreement.images == len(PROBES)
    assert found.agreement.correlation > 0.99
    assert not is_doubtful(found.agreement)


@pytest.mark.parametrize("output_type", ["uint8", "int8"])
@pytest.mark.parametrize("scheme", UNMIXED)
def test_a_byte_output_may_differ_by_its_step(scheme: str, output_type: IoType) -> None:
    verify(converted(scheme, output_type=output_type), SCHEMES[scheme], model(), PROBES)


def test_float_logits_may_differ_by_a_share_of_their_size() -> None:
    large = edited(model("logits").content, "dense/weights", lambda values: np.copyto(values, values * 100))
    source = replace(model("logits"), content=large)
    found = verify(converted("float16", source), SCHEMES["float16"], source, PROBES)
    assert found.agreement.max_difference > 0.02


def test_one_probe_image_is_enough() -> None:
    assert verify(converted("int8"), SCHEMES["int8"], model(), PROBES[:1]).agreement.images == 1


def test_the_float_softmax_of_int8_is_told() -> None:
    def told(output_type: IoType) -> str:
        found = verify(converted("int8", output_type=output_type), SCHEMES["int8"], model(), PROBES)
        return next(check.detail for check in found.checks if check.name == "integer arithmetic")

    assert "softmax, which is float on purpose" in told("float32")
    assert "softmax" not in told("uint8")


# --- What the graph shows ---------------------------------------------------------------------------------------------


def test_variables_are_found() -> None:
    graph = Graph(model().content)
    handle = graph.add_tensor("handle", (1,), "int32")
    value = graph.add_tensor("value", (1,), "float32")
    graph.insert(0, "READ_VARIABLE", [handle], [value])
    graph.insert(0, "VAR_HANDLE", [], [handle], graph.schema.VarHandleOptionsT())
    message = failure(graph.content())
    assert message.startswith("no variables: 2 of ")
    assert "the weights were left out, trace the model anew" in message


@pytest.mark.parametrize("name", ["conv", "mean", "pixels"])
def test_a_dynamic_dimension_is_found_and_its_tensor_named(name: str) -> None:
    graph = Graph(model().content)
    index = constant(graph, name)
    shape = graph.shape(index)
    graph.tensor(index).shapeSignature = [-1, *shape[1:]]
    message = failure(graph.content())
    assert message.startswith("static shapes: ")
    assert f"first '{name}' {(-1, *shape[1:])}" in message
    assert "convert at batch 1" in message


def test_a_weights_buffer_that_is_missing_is_found_and_its_layer_named() -> None:
    graph = Graph(model().content)
    graph.tensor(constant(graph, "conv/weights")).buffer = 0
    assert failure(graph.content()) == "weights present: 1 convolutions have no constant weights, first 'conv'"


@pytest.mark.parametrize("scheme", ["float16", "weight-only", "int8"])
def test_weights_that_are_widened_when_loaded_count_only_if_they_are_there(scheme: str) -> None:
    graph = Graph(converted(scheme))
    (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    weights = int(dense.inputs[1])
    widening = graph.producer(weights)
    graph.tensor(weights if widening is None else int(widening.inputs[0])).buffer = 0
    assert "weights present: 1 convolutions have no constant weights, first 'logits'" in failure(
        graph.content(), scheme
    )


def test_a_file_without_any_weights_is_found() -> None:
    graph = tiny.empty()
    graph.set_output(tiny.steps(graph, graph.inputs[0], tiny.KERAS_STYLE))
    assert failure(graph.content()) == "weights present: there is no convolution or dense layer in the file"


def with_a_float_operator() -> bytes:
    """An int8 file with one activation computed in float, as a quantizer leaves what it does not cover."""
    graph = Graph(converted("int8", output_type="int8"))
    (mean,) = (operator for operator in graph.operators if graph.kind(operator) == "MEAN")
    source = int(mean.inputs[0])
    quantization = graph.tensor(source).quantization
    scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    shape = graph.shape(source)
    widened, active = (graph.add_tensor(name, shape, "float32") for name in ("widened", "block7/elu"))
    back = graph.add_tensor("back", shape, "int8", quantization=(scale, zero_point))
    mean.inputs = [back, *mean.inputs[1:]]
    place = graph.operators.index(mean)
    graph.insert(place, "QUANTIZE", [active], [back], graph.schema.QuantizeOptionsT())
    graph.insert(place, "ELU", [widened], [active])
    graph.insert(place, "DEQUANTIZE", [source], [widened], graph.schema.DequantizeOptionsT())
    return graph.content()


def test_a_float_operator_in_an_int8_file_is_found_and_named() -> None:
    message = failure(with_a_float_operator(), "int8")
    assert message.startswith("integer arithmetic: 1 operators were left in float, first ELU 'block7/elu'")


def test_a_float_file_is_no_int8_file() -> None:
    message = failure(converted("float32"), "int8")
    assert message.startswith("integer arithmetic: 6 operators were left in float, first RESHAPE")


def test_every_check_that_fails_is_named() -> None:
    graph = Graph(with_a_float_operator())
    graph.tensor(constant(graph, "conv/weights")).buffer = 0
    message = failure(graph.content(), "int8")
    assert "weights present: " in message
    assert "; integer arithmetic: " in message


# --- What running shows -----------------------------------------------------------------------------------------------


def unloadable() -> bytes:
    graph = Graph(model().content)
    bias = constant(graph, "dense/bias")
    graph.tensor(bias).shape = [4]
    graph.model.buffers[graph.tensor(bias).buffer].data = np.zeros(16, np.uint8)
    return graph.content()


def test_a_file_that_cannot_be_loaded_is_found() -> None:
    assert failure(unloadable()).startswith("runs: LiteRT cannot load this file: ")


def test_a_file_that_cannot_be_run_is_found() -> None:
    graph = Graph(model().content)
    source, target = graph.outputs[0], graph.add_tensor("picked", (1, 5), "float32")
    index = graph.add_tensor("index", (1,), "int32", np.array([99], np.int32))
    graph.insert(len(graph.operators), "GATHER", [source, index], [target], graph.schema.GatherOptionsT())
    graph.set_output(target)
    assert failure(graph.content()).startswith("runs: LiteRT cannot run this file: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_found(value: float) -> None:
    content = edited(model().content, "dense/weights", lambda values: values.fill(value))
    message = failure(content)
    assert message.startswith("finite outputs: 16 of 16 probe images give NaN or infinity")
    assert "agrees" not in message


def test_the_same_scores_for_every_image_are_found() -> None:
    content = edited(model().content, "dense/weights", lambda values: values.fill(0))
    assert failure(content).startswith("outputs differ: every probe image gets the same scores")


def test_the_same_score_for_every_class_is_found() -> None:
    content = edited(model("logits").content, "dense/weights", lambda values: np.copyto(values, values[:1]))
    content = edited(content, "dense/bias", lambda values: values.fill(0))
    assert failure(content, source=model("logits")).startswith("outputs differ: every class gets the same score")


def test_ranges_that_swallow_the_signal_are_found() -> None:
    ranges = dict.fromkeys(collect_ranges(model(), PROBES), (-1e6, 1e6))
    content = quantize(model(), SCHEMES["int8"], ranges, input_type="uint8", output_type="float32")
    assert "the activation ranges swallow the signal" in failure(content, "int8")


@pytest.mark.parametrize("shift", [1, 2, 3, 4])
def test_scores_in_another_order_are_found(shift: int) -> None:
    def roll(values: Float) -> None:
        values[:] = np.roll(values, shift, axis=0)

    other = replace(model(), content=edited(model().content, "dense/weights", roll))
    message = failure(converted("int8", other), "int8")
    assert message.startswith("agrees with float: correlation ")
    assert "the file has nothing to do with the float model" in message


def test_weights_of_another_network_are_found() -> None:
    other = finish(tiny.classifier(seed=3))
    for scheme in ("int8", "int16x8", "dynamic", "weight-only"):
        assert "nothing to do with the float model" in failure(converted(scheme, other), scheme)


@pytest.mark.parametrize("scheme", ["float32", "float16"])
def test_a_float_file_has_to_repeat_the_float_model(scheme: str) -> None:
    def scale(values: Float) -> None:
        values *= 1.5

    other = replace(model(), content=edited(model().content, "dense/weights", scale))
    message = failure(converted(scheme, other), scheme)
    assert message.startswith("agrees with float: largest difference ")
    assert f"is allowed for {scheme}" in message
    verify(converted("int8", other), SCHEMES["int8"], model(), PROBES)  # quantized ones may be as far away


def test_a_float_model_that_does_not_run_is_no_fault_of_the_file() -> None:
    with pytest.raises(ModelError, match="LiteRT cannot load"):
        verify(converted("float32"), SCHEMES["float32"], replace(model(), content=unloadable()), PROBES)


# --- Agreement --------------------------------------------------------------------------------------------------------


def test_agreement_by_hand() -> None:
    expected = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    found = np.array([[0.0, 1.0], [0.5, 0.0], [0.25, 0.0], [1.0, 0.0]], np.float32)
    agreement = compare(expected, found)
    assert (agreement.images, agreement.same_top1, agreement.max_difference) == (4, 0.75, 1.0)
    assert agreement.correlation == pytest.approx(np.corrcoef(expected.ravel(), found.ravel())[0, 1])
    assert compare(expected, -expected).correlation == pytest.approx(-1)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_scores_that_say_nothing_agree_with_nothing(value: float) -> None:
    expected = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert compare(expected, np.full_like(expected, value)).correlation == 0.0


@pytest.mark.parametrize(
    ("same_top1", "correlation", "doubtful"),
    [(1.0, 1.0, False), (0.69, 0.98, False), (1.0, 0.5, False), (0.44, 0.45, True), (0.31, 0.28, True)],
)
def test_what_is_doubtful(same_top1: float, correlation: float, doubtful: bool) -> None:
    assert is_doubtful(Agreement(16, same_top1, 0.1, correlation)) is doubtful


def test_a_verification_says_what_it_found() -> None:
    found = verify(converted("int8"), SCHEMES["int8"], model(), PROBES)
    assert isinstance(found, Verification)
    details = {check.name: check.detail for check in found.checks}
    assert details["runs"] == "16 images through LiteRT"
    assert details["weights present"] == "3 convolutions and dense layers carry their weights"
    assert details["agrees with float"].startswith("correlation 1.000 on 16 probe images")


def test_copies_of_one_image_need_not_give_different_scores() -> None:
    copies = [PROBES[0], PROBES[0] // 2 * 2]
    found = verify(converted("int8"), SCHEMES["int8"], model(), copies)
    details = {check.name: check.detail for check in found.checks}
    assert details["outputs differ"] == "between classes; all probe images are alike"
