"""What the Edge TPU compiler would make of a file, said before it is called, from rules that are known.

The rules are a table: operators, a condition, what follows, why, what to do, and where that is known from. The first
that holds decides; an operator that no rule and no list speaks of stays unknown. Values of constants, dilations and the
compiler's own limits of memory are not looked at, so "mapped" means that nothing is known against it.

How a file is read is left to `inspect`, what the compiler really says to `edgetpu.log`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgeeff.converters.inspect import Inspection, Operator, Tensor
from edgeeff.errors import ModelError
from edgeeff.results import ModelFile, Record

Verdict = Literal["mapped", "not mapped", "unknown"]

_MODEL_PAGE = "coral.ai/docs/edgetpu/models-intro"
_ISSUES = "github.com/google-coral/edgetpu/issues"
_EIGHT_BIT = frozenset({"int8", "uint8"})

SUPPORTED = frozenset(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RSQRT
    SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM""".split()  # noqa: SIM905 - a word list reads better
)
"""Operators of Coral's list (coral.ai/docs/edgetpu/models-intro) whose limits are in `RULES` or that have none."""


@dataclass(frozen=True)
class Node:
    """An operator with its tensors."""

    operator: Operator
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Rule:
    """When `holds` is true of one of the operators (None: of any), `verdict` follows."""

    operators: frozenset[str] | None
    holds: Callable[[Node], bool]
    verdict: Verdict
    reason: str
    fix: str
    source: str
    refuses: bool = False
    """The compiler takes nothing of such a file."""


@dataclass(frozen=True)
class Judged:
    """What becomes of one operator; reason, fix and source are empty where it is mapped."""

    operator: int
    verdict: Verdict
    reason: str = ""
    fix: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Preflight(Record):
    """What the compiler would make of a file."""

    schema: ClassVar[str] = "edgeeff/preflight"
    schema_version: ClassVar[int] = 1

    model: ModelFile
    verdict: Literal["whole", "in part", "nothing", "refused", "unknown"]
    """"unknown" where it hangs on operators of which nothing is known."""
    operators: tuple[Judged, ...]
    first_left: int | None
    """The first operator behind a mapped one that is not mapped: it and all after it run on the CPU, unless the
    compiler may make several subgraphs."""
    parameter_bytes: int

    def count(self, verdict: Verdict) -> int:
        """Return how many operators have this verdict."""
        return sum(judged.verdict == verdict for judged in self.operators)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _values(node: Node) -> tuple[Tensor, ...]:
    # Further inputs may be states, which are wider.
    return tuple(tensor for tensor in (*node.inputs[:1], *node.outputs) if not tensor.constant)


def _flat(tensor: Tensor) -> bool:
    return math.prod(tensor.shape) == (tensor.shape[-1] if tensor.shape else 1)


def _version(least: int) -> Callable[[Node], bool]:
    return lambda node: node.operator.version >= least


_NEWER = "this version of the operator is newer than compiler 16, which then takes nothing of the file"
_OLDER_CONVERTER = "make the file with edgeeff convert --scheme int8"
RULES = (
    Rule(_names("QUANTIZE"), _version(3), "not mapped", _NEWER, _OLDER_CONVERTER, f"{_ISSUES}/879", refuses=True),
    Rule(_names("CONV_2D"), _version(6), "not mapped", _NEWER, _OLDER_CONVERTER, f"{_ISSUES}/631", refuses=True),
    Rule(
        None,
        lambda node: any(tensor.dynamic for tensor in (*node.inputs, *node.outputs)),
        "unknown",
        "a shape is known only at run time; compiler 16 refuses many such files",
        "convert at batch 1 and a fixed resolution",
        f"{_ISSUES}/829",
    ),
    Rule(
        None,
        lambda node: any(tensor.dtype not in _EIGHT_BIT for tensor in _values(node)),
        "not mapped",
        "it takes or gives something other than int8 or uint8",
        "convert with --scheme int8, and --input-type and --output-type uint8 or int8",
        _MODEL_PAGE,
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
        lambda node: any(math.prod(tensor.shape[:-3]) > 1 for tensor in _values(node)),
        "not mapped",
        "a tensor has more than three dimensions that are not 1, such as a batch",
        "convert at batch 1",
        _MODEL_PAGE,
    ),
    Rule(
        _names("SOFTMAX"),
        lambda node: any(not _flat(tensor) or math.prod(tensor.shape) > 16_000 for tensor in node.outputs),
        "not mapped",
        "softmax is mapped for one dimension of up to 16,000 values",
        "convert with --logits, and take the softmax yourself",
        _MODEL_PAGE,
    ),
    Rule(
        _names("FULLY_CONNECTED"),
        lambda node: any(not _flat(tensor) for tensor in node.outputs),
        "not mapped",
        "its output has more than one dimension",
        "use a convolution with a 1x1 kernel",
        _MODEL_PAGE,
    ),
    Rule(
        _names("MEAN"),
        lambda node: (
            bool(node.inputs[0].shape and node.outputs[0].shape)
            and node.inputs[0].shape[-1] != node.outputs[0].shape[-1]
            and node.inputs[0].shape[-1] % 4 != 0
        ),
        "not mapped",
        "it averages over channels, and their number is no multiple of 4",
        "use a multiple of 4",
        _MODEL_PAGE,
    ),
    Rule(
        _names("CONCATENATION"),
        lambda node: any(tensor.constant for tensor in node.inputs) and len(node.inputs) != 2,
        "not mapped",
        "with a constant it may have two inputs only",
        "join two at a time",
        _MODEL_PAGE,
    ),
    Rule(
        _names("CONCATENATION"),
        lambda node: any(tensor.constant for tensor in node.inputs),
        "unknown",
        "it is mapped when its constant is all zeros, which is not looked at",
        "",
        _MODEL_PAGE,
    ),
    Rule(
        _names("AVERAGE_POOL_2D MAX_POOL_2D"),
        lambda node: node.operator.fused_activation,
        "not mapped",
        "pools are mapped without an activation inside only",
        "leave the activation after the pool away",
        _MODEL_PAGE,
    ),
    Rule(
        _names("STRIDED_SLICE"),
        lambda node: True,
        "unknown",
        "it is mapped when its strides are 1, which is not looked at",
        "",
        _MODEL_PAGE,
    ),
    Rule(
        _names("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR"),
        lambda node: True,
        "unknown",
        "whether it is mapped depends on its sizes in a way that is not published",
        "resize before the network",
        _MODEL_PAGE,
    ),
)


def check(inspection: Inspection) -> Preflight:
    """Judge each operator of a file; raises ModelError when it was compiled already."""
    if inspection.edge_tpu is not None:
        raise ModelError(
            f"{inspection.model.path} was compiled for the Edge TPU already; give the file that it was made of, or "
            "leave --edge-tpu away"
        )
    found = [
        _judge(Node(operator, inspection.inputs_of(operator), inspection.outputs_of(operator)))
        for operator in inspection.operators
    ]
    judged = tuple(item for item, _ in found)
    refused = any(refuses for _, refuses in found)
    first_mapped = next((item.operator for item in judged if item.verdict != "not mapped"), None)
    first_left = next(
        (
            item.operator
            for item in judged
            if first_mapped is not None and item.operator > first_mapped and item.verdict == "not mapped"
        ),
        None,
    )
    return Preflight(
        runtime=inspection.runtime,
        device=inspection.device,
        packages=inspection.packages,
        model=inspection.model,
        verdict=_verdict(judged, refused=refused),
        operators=judged,
        first_left=first_left,
        parameter_bytes=inspection.parameter_bytes,
    )


def _judge(node: Node) -> tuple[Judged, bool]:
    name, index = node.operator.name, node.operator.index
    for rule in RULES:
        if (rule.operators is None or name in rule.operators) and rule.holds(node):
            return Judged(index, rule.verdict, rule.reason, rule.fix, rule.source), rule.refuses
    if name in SUPPORTED:
        return Judged(index, "mapped"), False
    return Judged(index, "unknown", "it is not in Coral's list of supported operators", "", _MODEL_PAGE), False


def _verdict(
    judged: tuple[Judged, ...], *, refused: bool
) -> Literal["whole", "in part", "nothing", "refused", "unknown"]:
    verdicts = {item.verdict for item in judged}
    if refused:
        return "refused"
    if "unknown" in verdicts:
        return "unknown"
    if "mapped" not in verdicts:
        return "nothing"
    return "in part" if "not mapped" in verdicts else "whole"
