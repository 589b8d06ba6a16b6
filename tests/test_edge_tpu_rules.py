"""Each rule about the Edge TPU, held by an operator that it speaks of and one just beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeeff.converters.edge_tpu_rules import COMPUTED, NEWEST, RULES, SUPPORTED, Node, judge
from edgeeff.converters.inspect import Operator, Quantization, Tensor

ONE = Quantization(0.1, 0.1, 0)
EACH = Quantization(0.1, 0.2, 0, 10, 0)


def tensor(shape: tuple[int, ...], dtype: str = "int8", *, signature: tuple[int, ...] = (), size: int = 0) -> Tensor:
    return Tensor(0, "t", shape, signature or shape, dtype, ONE, size)


def integers(*values: int) -> Tensor:
    return Tensor(0, "t", (len(values),), (len(values),), "int32", None, 4 * len(values), values)


PIXELS = tensor((1, 8, 8, 6))
FLAT = tensor((1, 20))
LONG = tensor((4, 20), size=80)
BIAS = tensor((4,), "int32", size=16)
KERNEL = tensor((6, 1, 1, 6), size=36)
ZEROS, ONES = replace(KERNEL, zeros=True), KERNEL


def verdict(
    name: str,
    inputs: tuple[Tensor, ...],
    *outputs: Tensor,
    version: int = 1,
    custom: bool = False,
    options: dict[str, int] | None = None,
) -> tuple[str, str]:
    operator = Operator(0, name, tuple(range(len(inputs))), (0,), 0, None, version, custom, options or {})
    rule = judge(Node(operator, inputs, outputs))
    return ("mapped", "") if rule is None else (rule.verdict, rule.reason)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "expected", "reason"),
    [
        ("ADD", (PIXELS, PIXELS), PIXELS, "mapped", ""),
        ("QUANTIZE", (tensor((1, 8), "uint8"),), tensor((1, 8)), "mapped", ""),
        ("QUANTIZE", (tensor((1, 8), "float32"),), tensor((1, 8)), "not mapped", "other than int8"),
        ("DEQUANTIZE", (tensor((1, 8)),), tensor((1, 8), "float32"), "not mapped", "other than int8"),
        ("ADD", (tensor((1, 8), "int16"),), tensor((1, 8), "int16"), "not mapped", "other than int8"),
        ("HARD_SWISH", (PIXELS,), PIXELS, "not mapped", "does not have it"),
        ("LEAKY_RELU", (PIXELS,), PIXELS, "not mapped", "does not have it"),
        ("ADD", (PIXELS,), tensor((2, 8, 8, 6)), "not mapped", "more than three dimensions"),
        ("ADD", (PIXELS,), tensor((1, 1, 8, 8, 6)), "mapped", ""),
        ("ADD", (PIXELS,), tensor((1, 8, 8, 6), signature=(-1, 8, 8, 6)), "unknown", "only at run time"),
        ("GELU", (PIXELS,), PIXELS, "unknown", "not in Coral's list"),
        ("CONV_2D", (PIXELS, KERNEL, BIAS), PIXELS, "mapped", ""),
        ("CONV_2D", (PIXELS, PIXELS, BIAS), PIXELS, "not mapped", "computed while it runs"),
        ("CONV_2D", (PIXELS, KERNEL, FLAT), PIXELS, "not mapped", "computed while it runs"),
        ("CONV_2D", (PIXELS, replace(KERNEL, dtype="int4"), BIAS), PIXELS, "not mapped", "its weights are something"),
        ("CONV_2D", (PIXELS, replace(KERNEL, outside=True), BIAS), PIXELS, "not mapped", "behind the flatbuffer"),
        ("CONV_2D", (PIXELS, replace(KERNEL, quantization=EACH), BIAS), PIXELS, "mapped", ""),
        ("SOFTMAX", (tensor((1, 16_000)),), tensor((1, 16_000)), "mapped", ""),
        ("SOFTMAX", (tensor((1, 16_001)),), tensor((1, 16_001)), "not mapped", "up to 16,000"),
        ("SOFTMAX", (tensor((1, 4, 5)),), tensor((1, 4, 5)), "not mapped", "one dimension"),
        ("FULLY_CONNECTED", (FLAT, LONG, BIAS), tensor((1, 4)), "mapped", ""),
        ("FULLY_CONNECTED", (FLAT, LONG, BIAS), tensor((3, 4)), "not mapped", "more than one dimension"),
        (
            "FULLY_CONNECTED",
            (FLAT, replace(LONG, quantization=EACH), BIAS),
            tensor((1, 4)),
            "unknown",
            "for each outpu",
        ),
        ("MEAN", (PIXELS, integers(1, 2)), tensor((1, 6)), "mapped", ""),
        ("MEAN", (PIXELS, integers(0)), tensor((8, 8, 6)), "not mapped", "goes over the batch"),
        ("MEAN", (PIXELS, integers(-4)), tensor((8, 8, 6)), "not mapped", "goes over the batch"),
        ("MEAN", (PIXELS, integers(3)), tensor((1, 8, 8)), "not mapped", "no multiple of 4"),
        ("MEAN", (PIXELS, integers(-1)), tensor((1, 8, 8)), "not mapped", "no multiple of 4"),
        ("MEAN", (tensor((1, 8, 8, 8)), integers(3)), tensor((1, 8, 8)), "mapped", ""),
        ("MEAN", (PIXELS,), tensor((1, 8, 8, 1)), "not mapped", "no multiple of 4"),
        ("SUM", (PIXELS, integers(3)), tensor((1, 8, 8)), "mapped", ""),
        ("SUM", (PIXELS, integers(0, 1)), tensor((8, 6)), "not mapped", "goes over the batch"),
        ("REDUCE_MAX", (FLAT, integers(0)), tensor((20,)), "unknown", "may count as the batch"),
        ("CONCATENATION", (PIXELS, PIXELS, PIXELS), tensor((1, 8, 8, 18)), "mapped", ""),
        ("CONCATENATION", (PIXELS, ZEROS), PIXELS, "mapped", ""),
        ("CONCATENATION", (PIXELS, ONES), PIXELS, "not mapped", "not all zeros"),
        ("CONCATENATION", (PIXELS, PIXELS, ZEROS), PIXELS, "not mapped", "two inputs"),
        ("PAD", (PIXELS, integers(0, 0, 1, 1, 1, 1, 0, 0)), tensor((1, 10, 10, 6)), "mapped", ""),
        ("PAD", (PIXELS, integers(0, 1, 0, 0, 0, 0, 0, 0)), tensor((1, 8, 8, 6)), "not mapped", "pads the batch"),
        ("SPLIT", (integers(3), PIXELS), tensor((1, 8, 8, 3)), "mapped", ""),
        ("SPLIT", (integers(0), PIXELS), tensor((1, 8, 8, 3)), "not mapped", "splits the batch"),
        ("PRELU", (PIXELS, tensor((1, 1, 6), size=6)), PIXELS, "mapped", ""),
        ("PRELU", (PIXELS, tensor((8, 8, 6), size=384)), PIXELS, "not mapped", "slopes differ"),
        ("RESHAPE", (FLAT, integers(20)), tensor((20,)), "mapped", ""),
        ("RESHAPE", (PIXELS, integers(1, 384)), tensor((1, 384)), "mapped", ""),
        ("RESHAPE", (PIXELS, integers(1, 1200)), tensor((1, 1200)), "unknown", "how large is not published"),
        ("RESHAPE", (tensor((1, 1, 1, 1280)), integers(1, 1280)), tensor((1, 1280)), "mapped", ""),
        ("RESHAPE", (PIXELS, FLAT), tensor((1, 384)), "not mapped", "computed while it runs"),
        ("STRIDED_SLICE", (PIXELS, *[integers(0)] * 2, integers(1, 1, 1, 1)), PIXELS, "mapped", ""),
        ("STRIDED_SLICE", (PIXELS, *[integers(0)] * 2, integers(1, 2, 2, 1)), PIXELS, "not mapped", "not all 1"),
        ("STRIDED_SLICE", (PIXELS, *[integers(0)] * 2), PIXELS, "unknown", "does not say"),
        ("RESIZE_BILINEAR", (PIXELS, integers(16, 16)), PIXELS, "unknown", "not published"),
        ("RESIZE_NEAREST_NEIGHBOR", (PIXELS, integers(16, 16)), PIXELS, "unknown", "not published"),
    ],
)
def test_operators_and_their_tensors(
    name: str, inputs: tuple[Tensor, ...], output: Tensor, expected: str, reason: str
) -> None:
    found, why = verdict(name, inputs, output)
    assert (found, reason in why) == (expected, True), why


@pytest.mark.parametrize(
    ("name", "inputs", "options", "reason"),
    [
        ("MAX_POOL_2D", (PIXELS,), {"fused_activation": 1}, "without an activation"),
        ("AVERAGE_POOL_2D", (PIXELS,), {"fused_activation": 3}, "without an activation"),
        ("CONCATENATION", (PIXELS, PIXELS), {"fused_activation": 1}, "without an activation"),
        ("CONV_2D", (PIXELS, KERNEL, BIAS), {"dilation_height": 2, "dilation_width": 1}, "dilations"),
        ("DEPTHWISE_CONV_2D", (PIXELS, KERNEL, BIAS), {"dilation_height": 1, "dilation_width": 2}, "dilations"),
        ("FULLY_CONNECTED", (FLAT, LONG, BIAS), {"weights_format": 1}, "another order"),
        ("PACK", (PIXELS, PIXELS), {"axis": 0}, "along the batch"),
        ("STRIDED_SLICE", (PIXELS, *[integers(0)] * 2, integers(1, 1)), {"ellipsis_mask": 1}, "ellipsis"),
        ("STRIDED_SLICE", (PIXELS, *[integers(0)] * 2, integers(1, 1)), {"new_axis_mask": 2}, "ellipsis"),
    ],
)
def test_options(name: str, inputs: tuple[Tensor, ...], options: dict[str, int], reason: str) -> None:
    output = tensor((1, 4)) if name == "FULLY_CONNECTED" else PIXELS
    found, why = verdict(name, inputs, output, options=options)
    assert (found, reason in why) == ("not mapped", True), why
    alike = dict.fromkeys(options, 1 if "dilation" in reason or name == "PACK" else 0)
    assert verdict(name, inputs, output, options=alike)[0] == "mapped"


@pytest.mark.parametrize(
    ("name", "version"), [("QUANTIZE", 3), ("CONV_2D", 6), ("EXP", 2), ("TRANSPOSE_CONV", 4), ("FULLY_CONNECTED", 10)]
)
def test_versions_that_the_compiler_is_too_old_for(name: str, version: int) -> None:
    operator = Operator(0, name, (0,), (0,), 0, None, version)
    inputs = (integers(1, 4) if name == "TRANSPOSE_CONV" else FLAT, LONG, BIAS)
    rule = judge(Node(operator, inputs, (tensor((1, 4)),)))
    assert rule is not None
    assert (rule.verdict, rule.refuses) == ("not mapped", True)
    assert "newer than compiler 16" in rule.reason
    older = judge(Node(replace(operator, version=version - 1), inputs, (tensor((1, 4)),)))
    assert older is None or not older.refuses


def test_wide_states_of_an_lstm_do_not_count() -> None:
    state, values = tensor((1, 20), "int16"), tensor((1, 28, 28))
    assert verdict("UNIDIRECTIONAL_SEQUENCE_LSTM", (values, state), tensor((1, 28, 20)))[0] == "mapped"


def test_operators_of_others_refuse_the_file_but_for_the_one_that_the_compiler_knows() -> None:
    assert "not one of TensorFlow Lite's own" in verdict("Atan", (PIXELS,), PIXELS, custom=True)[1]
    assert verdict("TFLite_Detection_PostProcess", (PIXELS,), PIXELS, custom=True)[0] == "unknown"


def test_every_rule_has_a_source_and_a_reason() -> None:
    assert all(rule.source and rule.reason for rule in RULES)
    assert all(rule.fix for rule in RULES if rule.verdict == "not mapped")
    assert all(rule.verdict == "not mapped" for rule in RULES if rule.refuses)


def test_every_operator_that_is_named_exists() -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    named = {name for rule in RULES for name in rule.operators or ()}.union(SUPPORTED, NEWEST, COMPUTED)
    assert named <= set(vars(BuiltinOperator))
