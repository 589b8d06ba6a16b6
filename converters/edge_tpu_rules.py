"""What the Edge TPU compiler is known to take and to leave, as a table: each row with a reason, what to do, a source.

The rules come from Coral's list of operators and limits, from what users reported, from real outputs of the compiler
and from TensorFlow Lite's own source. What none of them speaks of is unknown here. What they say of a whole file is
left to `preflight`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeeff.converters.graph import WEIGHTED
from edgeeff.converters.inspect import Operator, Tensor
from edgeeff.results import OperatorVerdict

MODEL_PAGE = "coral.ai/docs/edgetpu/models-intro"
COMPILER_PAGE = "coral.ai/docs/edgetpu/compiler"
_ISSUES = "github.com/google-coral/edgetpu/issues"
_EIGHT_BIT = frozenset({"int8", "uint8"})

SUPPORTED = frozenset(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE
    RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM""".split()  # noqa: SIM905 - a word list reads better
)
"""Operators of Coral's list (coral.ai/docs/edgetpu/models-intro) whose limits are in `RULES` or that have none.

RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR are in that list, too, with limits that are not published.
"""

NEWEST = {
    **dict.fromkeys(("EXP", "EXPAND_DIMS", "PRELU", "RELU_N1_TO_1", "RESHAPE"), 1),
    **dict.fromkeys(("L2_NORMALIZATION", "RSQRT", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE", "SQUEEZE", "SUM"), 2),
    **dict.fromkeys(("AVERAGE_POOL_2D", "CONCATENATION", "LOGISTIC", "MAX_POOL_2D", "MEAN", "PACK", "QUANTIZE"), 3),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "SOFTMAX", "TANH", "TRANSPOSE_CONV"), 3),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
    **dict.fromkeys(("ADD", "MAXIMUM", "MINIMUM", "PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPLIT"), 4),
    **dict.fromkeys(("DEQUANTIZE", "SLICE", "SUB", "TRANSPOSE"), 5),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "MUL", "STRIDED_SLICE"), 6),
    "FULLY_CONNECTED": 9,
}
"""The newest versions in TensorFlow of summer 2022 (lite/kernels/register.cc); compiler 16, of July 2021, knows none
that are newer."""

COMPUTED = {
    **dict.fromkeys(("MEAN", "PAD", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE"), 1),
    **dict.fromkeys(("STRIDED_SLICE", "SUM", "TRANSPOSE", "EXPAND_DIMS", "REDUCE_MAX", "REDUCE_MIN"), 1),
    **dict.fromkeys(("BROADCAST_TO", "TILE"), 1),
    **dict.fromkeys(("FILL", "TRANSPOSE_CONV"), 0),
}
"""The input that says which shape comes out; where it is no constant, TensorFlow Lite makes the shape while it runs."""

MOST_MOVED = 1001
"""Values of the largest RESHAPE in a file that is known to compile whole; how many are too many is not published."""
MOST_SOFTMAX = 16_000

_REDUCING = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})


@dataclass(frozen=True)
class Node:
    """An operator with its tensors; optional inputs that are not there are left out."""

    operator: Operator
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def values(self) -> tuple[Tensor, ...]:
        """What is computed: the first input, and the outputs. Further inputs may be states, which are wider."""
        return tuple(tensor for tensor in (*self.inputs[:1], *self.outputs) if not tensor.constant)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The inputs whose data is in the file."""
        return tuple(tensor for tensor in self.inputs if tensor.constant)

    def given(self, index: int) -> tuple[int, ...] | None:
        """Return the integers that an input holds, such as axes; None where they cannot be known."""
        return self.inputs[index].values if index < len(self.inputs) else None

    def option(self, name: str, default: int = 0) -> int:
        """Return an option of the operator."""
        return self.operator.options.get(name, default)


@dataclass(frozen=True)
class Rule:
    """When `holds` is true of one of the operators (None: of any), `verdict` follows."""

    operators: frozenset[str] | None
    holds: Callable[[Node], bool]
    verdict: OperatorVerdict
    reason: str
    fix: str
    source: str
    refuses: bool = False
    """The compiler takes nothing of such a file."""

    def applies(self, node: Node) -> bool:
        """Say whether this rule speaks of an operator."""
        return (self.operators is None or node.operator.name in self.operators) and self.holds(node)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _flat(tensor: Tensor) -> bool:
    return math.prod(tensor.shape) == (tensor.shape[-1] if tensor.shape else 1)


def _version(least: int) -> Callable[[Node], bool]:
    return lambda node: node.operator.version >= least


def _is_computed(node: Node) -> bool:
    place = COMPUTED.get(node.operator.name)
    return place is not None and place < len(node.inputs) and not node.inputs[place].constant


def _axes(node: Node) -> set[int] | None:
    """Return the axes that are reduced, counted from 0; None where they are not in the file."""
    given, rank = node.given(1), len(node.inputs[0].shape)
    return None if given is None or not rank else {axis % rank for axis in given}


def _over_channels(node: Node) -> bool:
    shape = node.inputs[0].shape
    if not shape or shape[-1] % 4 == 0:
        return False
    axes = _axes(node)
    return node.outputs[0].shape[-1:] != shape[-1:] if axes is None else len(shape) - 1 in axes


def _over_batch(node: Node) -> bool:
    axes = _axes(node)
    return axes is not None and 0 in axes and len(node.inputs[0].shape) == 4


def _moves(node: Node) -> bool:
    """Say whether a RESHAPE does more than to add or drop dimensions of 1."""
    before, after = ([size for size in tensor.shape if size != 1] for tensor in (node.inputs[0], node.outputs[0]))
    return before != after


def _strides(node: Node) -> tuple[int, ...] | None:
    return node.given(3)


def _pads_batch(node: Node) -> bool:
    paddings = node.given(1)
    return len(node.inputs[0].shape) == 4 and paddings is not None and any(paddings[:2])


_REFUSES = "this version of the operator is newer than compiler 16, which then takes nothing of the file"
_CONVERT = "make the file with edgeeff convert --edge-tpu"
_STATIC = "convert at batch 1 and a fixed resolution, as edgeeff convert does"

RULES = (
    Rule(
        SUPPORTED,
        lambda node: not node.inputs or not node.outputs,
        "not mapped",
        "it has no input or no output: the file is damaged",
        "convert it again, or copy it again",
        "tensorflow/lite/schema/schema.fbs",
    ),
    # Files that are refused as a whole.
    Rule(_names("QUANTIZE"), _version(3), "not mapped", _REFUSES, _CONVERT, f"{_ISSUES}/879", refuses=True),
    Rule(_names("CONV_2D"), _version(6), "not mapped", _REFUSES, _CONVERT, f"{_ISSUES}/631", refuses=True),
    Rule(_names("TRANSPOSE_CONV"), _version(4), "not mapped", _REFUSES, _CONVERT, f"{_ISSUES}/845", refuses=True),
    Rule(
        _names("EXP"),
        _version(2),
        "not mapped",
        _REFUSES,
        "leave exp to the program that reads the scores",
        "github.com/google-coral/libedgetpu/issues/71",
        refuses=True,
    ),
    Rule(
        frozenset(NEWEST),
        lambda node: node.operator.version > NEWEST[node.operator.name],
        "not mapped",
        _REFUSES,
        _CONVERT,
        "tensorflow/lite/kernels/register.cc of 2022, a year younger than compiler 16",
        refuses=True,
    ),
    Rule(
        None,
        lambda node: node.operator.custom and node.operator.name != "TFLite_Detection_PostProcess",
        "not mapped",
        "it is not one of TensorFlow Lite's own operators; compiler 16 takes nothing of such a file",
        "build the network without it",
        "an output of compiler 16, for a network with tf.atan",
        refuses=True,
    ),
    Rule(
        None,
        _is_computed,
        "not mapped",
        "the shape of its output is computed while it runs; compiler 16 takes nothing of such a file",
        _STATIC,
        f"{_ISSUES}/829, {_ISSUES}/831",
        refuses=True,
    ),
    Rule(
        None,
        lambda node: any(tensor.dynamic for tensor in (*node.inputs, *node.outputs)),
        "unknown",
        "a shape is known only at run time; compiler 16 refuses many such files",
        _STATIC,
        f"{_ISSUES}/829",
    ),
    # What values it computes with.
    Rule(
        None,
        lambda node: any(tensor.dtype not in _EIGHT_BIT for tensor in node.values),
        "not mapped",
        "it takes or gives something other than int8 or uint8",
        "convert with --edge-tpu",
        MODEL_PAGE,
    ),
    Rule(
        _names("HARD_SWISH LEAKY_RELU"),
        lambda node: True,
        "not mapped",
        "the Edge TPU does not have it",
        "use a network with ReLU, such as lite or edgetpu",
        f"{_ISSUES}/272",
    ),
    Rule(
        None,
        lambda node: any(math.prod(tensor.shape[:-3]) > 1 for tensor in node.values),
        "not mapped",
        "a tensor has more than three dimensions that are not 1, such as a batch",
        "convert at batch 1",
        MODEL_PAGE,
    ),
    Rule(
        WEIGHTED,
        lambda node: any(not tensor.constant for tensor in node.inputs[1:]),
        "not mapped",
        "its weights or its bias are computed while it runs",
        "use a network with fixed weights",
        f"{_ISSUES}/25",
    ),
    Rule(
        WEIGHTED,
        lambda node: len(node.inputs) > 1 and node.inputs[1].dtype not in _EIGHT_BIT,
        "not mapped",
        "its weights are something other than int8 or uint8",
        "convert with --edge-tpu",
        MODEL_PAGE,
    ),
    Rule(
        None,
        lambda node: any(tensor.outside for tensor in node.inputs),
        "not mapped",
        "its constants lie behind the flatbuffer, where compiler 16 does not look",
        _CONVERT,
        "tensorflow/lite/schema/schema.fbs, whose Buffer has had an offset since 2023",
    ),
    # Limits of single operators.
    Rule(
        _names("SOFTMAX"),
        lambda node: any(not _flat(tensor) or math.prod(tensor.shape) > MOST_SOFTMAX for tensor in node.outputs),
        "not mapped",
        f"softmax is mapped for one dimension of up to {MOST_SOFTMAX:,} values",
        "convert with --logits, and take the softmax yourself",
        MODEL_PAGE,
    ),
    Rule(
        _names("FULLY_CONNECTED"),
        lambda node: any(not _flat(tensor) for tensor in node.outputs),
        "not mapped",
        "its output has more than one dimension",
        "use a convolution with a 1x1 kernel",
        MODEL_PAGE,
    ),
    Rule(
        _names("FULLY_CONNECTED"),
        lambda node: node.option("weights_format") != 0,
        "not mapped",
        "its weights are stored in another order than the usual one",
        _CONVERT,
        MODEL_PAGE,
    ),
    Rule(
        _names("FULLY_CONNECTED"),
        lambda node: any(tensor.quantization and tensor.quantization.per_channel for tensor in node.constants[:1]),
        "unknown",
        "its weights have a scale for each output, which nobody had for this operator when compiler 16 was made; other "
        "programs of that time compute wrong values then",
        "edgeeff convert --edge-tpu makes it a convolution that computes the same",
        "github.com/tensorflow/tflite-micro/pull/2602",
    ),
    Rule(
        _names("CONV_2D DEPTHWISE_CONV_2D"),
        lambda node: node.option("dilation_height", 1) != node.option("dilation_width", 1),
        "not mapped",
        "its dilations in x and y differ",
        "dilate both alike",
        MODEL_PAGE,
    ),
    Rule(
        _REDUCING,
        _over_batch,
        "not mapped",
        "it goes over the batch",
        "reduce height, width or channels only",
        MODEL_PAGE,
    ),
    Rule(
        _REDUCING,
        lambda node: (axes := _axes(node)) is not None and 0 in axes,
        "unknown",
        "it goes over the first dimension, which may count as the batch",
        "",
        MODEL_PAGE,
    ),
    Rule(
        _names("MEAN"),
        _over_channels,
        "not mapped",
        "it averages over channels, and their number is no multiple of 4",
        "use a multiple of 4",
        MODEL_PAGE,
    ),
    Rule(
        _names("CONCATENATION"),
        lambda node: bool(node.constants) and len(node.inputs) != 2,
        "not mapped",
        "with a constant it may have two inputs only",
        "join two at a time",
        MODEL_PAGE,
    ),
    Rule(
        _names("CONCATENATION"),
        lambda node: any(not tensor.zeros for tensor in node.constants),
        "not mapped",
        "it joins a constant that is not all zeros",
        "join zeros only, as padding does",
        MODEL_PAGE,
    ),
    Rule(
        _names("AVERAGE_POOL_2D CONCATENATION MAX_POOL_2D"),
        lambda node: node.option("fused_activation") != 0,
        "not mapped",
        "it is mapped without an activation inside only",
        "leave the activation after it away, or make it an operator of its own",
        MODEL_PAGE,
    ),
    Rule(
        _names("PAD"),
        _pads_batch,
        "not mapped",
        "it pads the batch",
        "pad height, width or channels only",
        MODEL_PAGE,
    ),
    Rule(
        _names("PACK"),
        lambda node: node.option("axis") % max(1, len(node.outputs[0].shape)) == 0,
        "not mapped",
        "it packs along the batch",
        "pack along another axis",
        MODEL_PAGE,
    ),
    Rule(
        _names("SPLIT"),
        lambda node: len(node.outputs[0].shape) == 4 and node.given(0) in {(0,), (-4,)},
        "not mapped",
        "it splits the batch",
        "split along another axis",
        MODEL_PAGE,
    ),
    Rule(
        _names("PRELU"),
        lambda node: any(not _flat(tensor) for tensor in node.constants),
        "not mapped",
        "its slopes differ along more than the channels",
        "give Keras' PReLU shared_axes=[1, 2]",
        MODEL_PAGE,
    ),
    Rule(
        _names("STRIDED_SLICE"),
        lambda node: any(stride != 1 for stride in _strides(node) or ()),
        "not mapped",
        "its strides are not all 1",
        "take every value, or use a convolution or a pool with that stride",
        MODEL_PAGE,
    ),
    Rule(
        _names("STRIDED_SLICE"),
        lambda node: node.option("ellipsis_mask") != 0 or node.option("new_axis_mask") != 0,
        "not mapped",
        "it is written with an ellipsis or a new axis",
        "name all dimensions, and reshape apart",
        MODEL_PAGE,
    ),
    Rule(
        _names("STRIDED_SLICE"),
        lambda node: _strides(node) is None,
        "unknown",
        "it is mapped when its strides are 1, which the file does not say",
        "",
        MODEL_PAGE,
    ),
    Rule(
        _names("RESHAPE"),
        lambda node: _moves(node) and math.prod(node.outputs[0].shape) > MOST_MOVED,
        "unknown",
        "large ones are not always mapped; how large is not published",
        "",
        MODEL_PAGE,
    ),
    Rule(
        _names("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR"),
        lambda node: True,
        "unknown",
        "whether it is mapped depends on its sizes in a way that is not published",
        "resize before the network",
        MODEL_PAGE,
    ),
)


def judge(node: Node) -> Rule | None:
    """Return the rule that decides about an operator: the first that speaks of it.

    None means that nothing is known against it; what no rule and no list speaks of gets a rule that says so.
    """
    found = next((rule for rule in RULES if rule.applies(node)), None)
    return found or (None if node.operator.name in SUPPORTED else _NOT_LISTED)


_NOT_LISTED = Rule(
    None, lambda node: True, "unknown", "it is not in Coral's list of supported operators", "", MODEL_PAGE
)
