"""A file's workload: the same as that of the network it was made from."""

from __future__ import annotations

from pathlib import Path

from edgeeff import scaling
from edgeeff.converters import inspect, workload
from edgeeff.latency import network_workload
from tests import tiny


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
