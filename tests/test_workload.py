"""A file's workload: the same as that of the network it was made from; and what of it an Edge TPU does."""

from __future__ import annotations

import math
from pathlib import Path

from edgeeff import scaling
from edgeeff.converters import inspect, workload
from edgeeff.converters.edgetpu import estimate
from edgeeff.latency import network_workload
from tests import edge_tpu_files, tiny


def test_a_converted_file_does_what_its_network_says(lite0_int8: Path) -> None:
    found = workload.of_graph(inspect.parse(lite0_int8.read_bytes()), "lite0", "lite")
    assert found == network_workload(scaling.network("lite0"), "int8")


def test_a_small_file_is_read(tiny_float_tflite: Path) -> None:
    graph = inspect.parse(tiny_float_tflite.read_bytes())
    found = workload.of_graph(graph, "tiny", "b")
    assert found.scheme == "float32"
    assert found.sizes[0] == 8 * 8 * 3 * 4
    assert found.macs == sum(operator.macs for operator in graph.operators)
    assert found.weight_bytes >= graph.parameter_bytes - 64  # shapes of reshapes may be shared
    assert len(found.operators) == len(graph.operators)


def test_operators_that_scale_pixels_only_move_values() -> None:
    graph = inspect.parse(tiny.classifier(preprocessing=tiny.KERAS_STYLE))
    kinds = [operator.kind for operator in workload.of_graph(graph, "tiny", "b").operators]
    assert kinds[: len(tiny.KERAS_STYLE)] == ["move"] * len(tiny.KERAS_STYLE)
    assert "image" in kinds or "product" in kinds


def graph_of(*steps: tuple[str, int, tuple[int, ...], tuple[int, ...]]) -> inspect.Graph:
    """A graph of operators (name, MACs, inputs, outputs); tensor 0 is a constant, the others have 10 values each."""
    operators = tuple(
        inspect.Operator(index, name, inputs, outputs, macs, None)
        for index, (name, macs, inputs, outputs) in enumerate(steps)
    )
    tensors = tuple(inspect.Tensor(index, "", (1, 10), (1, 10), "int8", None, 0 if index else 7) for index in range(9))
    return inspect.Graph(tensors, operators, (1,), (5,), (), 1, 7)


BRANCHED = graph_of(
    ("QUANTIZE", 0, (1,), (2,)),
    ("CONV_2D", 100, (2, 0), (3,)),
    ("DEPTHWISE_CONV_2D", 30, (3, 0, -1), (4,)),
    ("ADD", 0, (3, 4), (5,)),
)


def test_what_the_edge_tpu_does_of_a_graph() -> None:
    assert workload.for_edge_tpu(BRANCHED) == estimate.Work(100, 30, 20, ())
    # The CPU gets the last operator, and with it the values of the two before.
    assert workload.for_edge_tpu(BRANCHED, [0, 3]) == estimate.Work(100, 30, 30, ("1 operator on the CPU",))


def test_a_value_that_goes_both_ways_is_sent_once() -> None:
    assert inspect.crossing_bytes(BRANCHED, BRANCHED.operators[1:2]) == 20
    assert inspect.crossing_bytes(BRANCHED, ()) == 0


def test_a_compiled_file_does_what_its_source_does_but_for_the_rest() -> None:
    source = inspect.parse(edge_tpu_files.PLAIN)
    macs = sum(operator.macs for operator in source.operators)
    seen = workload.of_compiled(edge_tpu_files.PLAIN, edge_tpu_files.WHOLE)
    assert seen.convolution_macs + seen.depthwise_macs == macs > 0
    assert estimate.COMPUTING not in seen.left_out
    graph = inspect.parse(edge_tpu_files.WHOLE)
    ends = (*graph.inputs, *graph.outputs)
    assert seen.transferred_bytes == sum(math.prod(graph.tensors[index].shape) for index in ends)


def test_without_its_source_a_compiled_file_tells_nothing_of_its_computing() -> None:
    seen = workload.of_compiled(None, edge_tpu_files.WHOLE)
    assert (seen.convolution_macs, seen.depthwise_macs, seen.left_out) == (0, 0, (estimate.COMPUTING,))
    assert seen.transferred_bytes > 0
    assert workload.try_compiled(b"no model", edge_tpu_files.WHOLE) is None
    assert workload.try_compiled(None, edge_tpu_files.WHOLE) == seen
