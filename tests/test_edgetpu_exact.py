"""Rewrites for the Edge TPU's compiler: the same scores to the last bit, from operators that it knows."""

from __future__ import annotations

import numpy as np
import pytest

from edgeeff.converters import quantize
from edgeeff.converters.edgetpu import exact
from edgeeff.converters.float_model import FloatModel, Head, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.preflight import foresee
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import scheme
from edgeeff.errors import ModelError
from tests import tiny

IMAGES = tiny.images(4)


def int8(model: FloatModel, output_type: quantize.IoType = "uint8") -> bytes:
    ranges = quantize.collect_ranges(model, IMAGES)
    return quantize.quantize(model, scheme("int8"), ranges, input_type="uint8", output_type=output_type)


@pytest.fixture(scope="module")
def before() -> bytes:
    return int8(finish(tiny.classifier()))


def kinds(content: bytes) -> list[str]:
    graph = Graph(content)
    return [graph.kind(operator) for operator in graph.operators]


def test_the_scores_stay_the_same_and_the_compiler_is_known_to_take_all(before: bytes) -> None:
    after = exact.rewrite(before)
    assert kinds(before) == [
        *("QUANTIZE", "RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE", "CONV_2D", "MEAN"),
        *("FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"),
    ]
    assert kinds(after) == [
        *("QUANTIZE", "DEPTHWISE_CONV_2D", "CONV_2D", "MEAN", "CONV_2D", "RESHAPE", "SOFTMAX", "QUANTIZE"),
    ]
    one, other = Session(before), Session(after)
    for image in IMAGES:
        np.testing.assert_array_equal(one.run(image), other.run(image))
    assert (foresee(before).verdict, foresee(after).verdict) == ("unknown", "whole")
    assert len(after) < len(before)


@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_a_mean_that_others_read_too_keeps_its_shape(head: Head) -> None:
    content = int8(finish(tiny.classifier(), head=head))
    graph = Graph(content)
    mean = next(operator for operator in graph.operators if graph.kind(operator) == "MEAN")
    graph.model.subgraphs[0].outputs = [int(mean.outputs[0])]
    graph.model.signatureDefs = []
    after = Graph(exact.rewrite(graph.content()))
    assert [after.kind(operator) for operator in after.operators].count("RESHAPE") == 2
    assert after.shape(after.outputs[0]) == (1, 8)


def test_what_needs_no_rewrite_stays_as_it_is() -> None:
    plain = tiny.classifier()
    assert kinds(exact.rewrite(plain)) == kinds(plain)


def test_a_second_time_changes_nothing(before: bytes) -> None:
    once = exact.rewrite(before)
    assert kinds(exact.rewrite(once)) == kinds(once)


def test_constants_that_differ_between_pixels_stay(before: bytes) -> None:
    graph = Graph(before)
    operator = graph.operators[2]
    bias = graph.constant(int(operator.inputs[2]))
    assert bias is not None
    changed = bias.copy()
    changed[-1] += 1
    graph.set_constant(int(operator.inputs[2]), changed)
    assert kinds(exact.rewrite(graph.content()))[:4] == ["QUANTIZE", "RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]


def test_a_damaged_file_is_told() -> None:
    with pytest.raises(ModelError, match="is damaged"):
        exact.rewrite(tiny.classifier()[:500])
