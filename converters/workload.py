"""What a .tflite file does in one inference, as the latency model and the estimate for the Edge TPU take it.

`inspect` reads the file; this only says which of its operators is what kind of work.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from edgeeff.converters.edgetpu import compiled, estimate
from edgeeff.converters.inspect import Graph, Inspection, Operator, Tensor, crossing_bytes, parse
from edgeeff.errors import MissingExtraError, ModelError
from edgeeff.latency import Operator as Work
from edgeeff.latency import Workload, kind, taps

_BYTES = {"float32": 4, "int32": 4, "int64": 8, "float16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


def of_graph(graph: Graph | Inspection, name: str, family: str) -> Workload:
    """Return the workload of a file that was read; it computes in int8 when its matrix products take int8 values.

    `family` says whose misfits it shares: the family of the networks that it looks like.
    """
    tensors = graph.tensors
    sizes: list[int] = []
    places: dict[int, int] = {}

    def place(tensor: Tensor) -> int:
        if tensor.index not in places:
            places[tensor.index] = len(sizes)
            sizes.append(math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 4))
        return places[tensor.index]

    operators = []
    for operator in graph.operators:
        given = [tensors[index] for index in dict.fromkeys(operator.inputs) if index >= 0]
        values = tuple(place(tensor) for tensor in given if not tensor.constant)
        constants = sum(tensor.size_bytes for tensor in given if tensor.constant)
        result = tensors[operator.outputs[0]]
        (height, width), channels = _filter(operator, given)
        table = 0
        if len(result.shape) == len(given[0].shape) == 4:
            stride = max(1, round(given[0].shape[2] / max(1, result.shape[2])))
            table = taps(operator.name, math.prod(result.shape[:3]), (height, width), stride)
        work = kind(operator.name, kernel=max(height, width), channels=channels)
        depth = result.shape[-1] if operator.macs else 0
        operators.append(Work(work, operator.macs, values, place(result), constants, table, depth))
    integer = any(
        operator.name in {"CONV_2D", "FULLY_CONNECTED"} and tensors[operator.inputs[0]].dtype == "int8"
        for operator in graph.operators
    )
    return Workload(name, family, "int8" if integer else "float32", tuple(operators), tuple(sizes))


def for_edge_tpu(graph: Graph | Inspection, left: Iterable[int] = ()) -> estimate.Work:
    """Return what the Edge TPU does in an inference; `left` are indices of the operators that it leaves to the CPU."""
    rest = set(left)
    mine = [operator for operator in graph.operators if operator.index not in rest]
    others = [operator for operator in graph.operators if operator.index in rest]
    return estimate.work(_macs(mine), crossing_bytes(graph, mine), on_the_cpu=_macs(others))


def of_compiled(source: bytes | None, made: bytes) -> estimate.Work:
    """Return what the Edge TPU does in an inference of a compiled file: what is in its source and not left to the CPU.

    Without the source, or with one that more files were made of, the computing is not known. Raises ModelError when one
    of them cannot be read, MissingExtraError without LiteRT.
    """
    graph = parse(made)
    part = [operator for operator in graph.operators if operator.name == compiled.NAME]
    crossing = crossing_bytes(graph, part)
    if source is None:
        return estimate.only_sending(crossing)
    left = _macs(operator for operator in graph.operators if operator.name != compiled.NAME)
    counts, macs = Counter[str](), Counter[str]()
    for sign, operators in ((1, _macs(parse(source).operators)), (-1, left)):
        for name, amount in operators:
            counts[name] += sign
            macs[name] += sign * amount
    mine = ((name, max(0, macs[name])) for name, count in counts.items() if count > 0)
    return estimate.work(mine, crossing, on_the_cpu=left)


def try_compiled(source: bytes | None, made: bytes) -> estimate.Work | None:
    """Return the same, and None where it cannot be told."""
    try:
        return of_compiled(source, made)
    except (ModelError, MissingExtraError):
        return None


def _macs(operators: Iterable[Operator]) -> list[tuple[str, int]]:
    return [(operator.name, operator.macs) for operator in operators]


def _filter(operator: Operator, given: list[Tensor]) -> tuple[tuple[int, int], int]:
    """Return height, width and input channels of a convolution's filter, [out, height, width, in]."""
    if operator.name not in {"CONV_2D", "DEPTHWISE_CONV_2D"} or len(given) < 2 or len(given[1].shape) != 4:
        return (1, 1), 0
    _, height, width, channels = given[1].shape
    return (height, width), channels
