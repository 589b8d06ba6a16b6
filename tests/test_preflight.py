"""What follows for a file from what is known of its operators; the rules themselves are tested in
test_edge_tpu_rules."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeeff import cli
from edgeeff.converters import preflight
from edgeeff.converters.graph import Graph
from edgeeff.converters.inspect import Inspection, Operator, Quantization, Tensor, inspect
from edgeeff.converters.inspect_view import render_preflight
from edgeeff.converters.preflight import Preflight, check, foresee
from edgeeff.errors import ModelError
from edgeeff.results import CompiledFile
from tests import edge_tpu_files as files
from tests import test_inspect, tiny


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    path = tmp_path_factory.mktemp("preflight") / "m.tflite"
    path.write_bytes(files.PLAIN)
    return inspect(path)


SCALE = Quantization(0.1, 0.1, 0)


def tensor(shape: tuple[int, ...], dtype: str = "int8", *, size: int = 0) -> Tensor:
    return Tensor(0, "t", shape, shape, dtype, SCALE, size)


PIXELS = tensor((1, 8, 8, 6))
WEIGHTS = tensor((6, 1, 1, 6), size=36)
BIAS = tensor((6,), "int32", size=24)
ENTER = ("QUANTIZE", (tensor((1, 8, 8, 6), "float32"),), PIXELS)
CONVOLUTION = ("CONV_2D", (PIXELS, WEIGHTS, BIAS), PIXELS)
HARD_SWISH = ("HARD_SWISH", (PIXELS,), PIXELS)
GELU = ("GELU", (PIXELS,), PIXELS)
REFUSED = ("Atan", (PIXELS,), PIXELS)
Step = tuple[str, tuple[Tensor, ...], Tensor]


def judged(plain: Inspection, *steps: Step) -> Preflight:
    """Check a graph of these operators, each with tensors of its own, and each convolution with 1,000 MACs."""
    tensors: list[Tensor] = []
    operators = []
    for index, (name, inputs, output) in enumerate(steps):
        first = len(tensors)
        tensors += [*inputs, output]
        given = tuple(range(first, first + len(inputs)))
        macs, block = 1000 * (name == "CONV_2D"), f"block{index}a" if index else None
        custom = name == "Atan"
        operators.append(Operator(index, name, given, (len(tensors) - 1,), macs, block, custom=custom))
    return check(dataclasses.replace(plain, operators=tuple(operators), tensors=tuple(tensors)))


def shown(seen: Preflight) -> str:
    stream = io.StringIO()
    render_preflight(seen, Console(file=stream, width=300))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([CONVOLUTION], "whole"),
        ([ENTER, CONVOLUTION], "in part"),
        ([HARD_SWISH], "nothing"),
        ([CONVOLUTION, REFUSED], "refused"),
        ([REFUSED, GELU], "refused"),
        ([CONVOLUTION, GELU], "unknown"),
        ([HARD_SWISH, GELU], "unknown"),
    ],
)
def test_the_verdict_on_the_file(plain: Inspection, steps: list[Step], verdict: str) -> None:
    assert judged(plain, *steps).verdict == verdict


def test_where_the_graph_is_cut_and_what_the_cpu_gets(plain: Inspection) -> None:
    seen = judged(plain, ENTER, CONVOLUTION, HARD_SWISH, CONVOLUTION, CONVOLUTION, HARD_SWISH)
    cpu = seen.forecast.cpu
    assert (cpu.first, cpu.name, cpu.operators, cpu.macs) == (2, "HARD_SWISH in block2a", 5, 2 / 3)
    assert seen.forecast.parts == 5
    assert [seen.count(verdict) for verdict in ("mapped", "not mapped", "unknown")] == [3, 3, 0]
    assert "From HARD_SWISH in block2a (operator 2) on, 4 operators run on the CPU; 2 of them could go back" in shown(
        seen
    )
    assert "the CPU gets 5 operators with 66.7% of the MACs; the graph falls into 5 parts" in shown(seen)


def test_what_is_left_at_the_beginning_cuts_nothing(plain: Inspection) -> None:
    cpu = judged(plain, ENTER, CONVOLUTION).forecast.cpu
    assert (cpu.first, cpu.name, cpu.operators, cpu.macs) == (None, "", 1, 0.0)


def test_unknown_operators_may_cut_earlier(plain: Inspection) -> None:
    seen = judged(plain, CONVOLUTION, GELU, CONVOLUTION, HARD_SWISH)
    assert (seen.forecast.cpu.first, seen.forecast.cpu.operators) == (3, 1)
    worst = seen.forecast.cpu_at_worst
    assert (worst.first, worst.operators, worst.macs) == (1, 3, 0.5)
    assert "Should no unknown one be mapped, the CPU gets 3 operators with 50.0% of the MACs from GELU" in shown(seen)


def test_alike_operators_are_told_together_with_where_they_are(plain: Inspection) -> None:
    seen = judged(plain, *([CONVOLUTION, HARD_SWISH] * 4))
    (mapped, left) = seen.forecast.operators
    assert (mapped.name, mapped.count, mapped.verdict, mapped.places) == ("CONV_2D", 4, "mapped", ())
    assert (left.name, left.count, left.places) == ("HARD_SWISH", 4, ("block1a", "block3a", "block5a"))
    assert left.reason and left.fix and left.source
    assert "4 HARD_SWISH (block1a, block3a, block5a, ...)" in shown(seen)


def wide(megabytes: float) -> Step:
    return ("CONV_2D", (PIXELS, tensor((6, 1, 1, 6), size=round(megabytes * 1e6)), BIAS), PIXELS)


@pytest.mark.parametrize(
    ("megabytes", "words"),
    [
        (7.0, "7.00 MB of parameters: an Edge TPU keeps up to 8.4 MB of them, and how many the compiler decides"),
        (10.0, "10.0 MB of parameters are more than the 8.4 MB that an Edge TPU keeps: 1.6 MB or more are sent"),
    ],
)
def test_parameters_against_the_memory(plain: Inspection, megabytes: float, words: str) -> None:
    seen = judged(plain, wide(megabytes))
    assert bool(seen.forecast.streamed_bytes) == (megabytes > 8.4)
    assert words in shown(seen)


def test_parameters_of_what_the_cpu_computes_do_not_count(plain: Inspection) -> None:
    assert judged(plain, CONVOLUTION, HARD_SWISH, wide(20)).forecast.parameter_bytes == 36 + 24


def test_swish_and_squeeze_and_excite_are_counted() -> None:
    forecast = foresee(tiny.swish_classifier())
    (advice,) = forecast.advice
    assert "8 swish" in advice
    assert "2 squeeze-and-excite" in advice
    assert "lite0 to lite4 and edgetpu-s/m/l" in advice
    assert foresee(tiny.classifier()).advice == ()


def test_a_float_network_has_nothing_for_it(plain: Inspection) -> None:
    seen = check(plain)
    assert (seen.verdict, seen.forecast.cpu.first, seen.forecast.parameter_bytes) == ("nothing", None, 0)


def test_the_bytes_alone_say_the_same(plain: Inspection) -> None:
    assert foresee(files.PLAIN) == check(plain).forecast


def test_what_cannot_be_read_is_not_foreseen() -> None:
    with pytest.raises(ModelError, match="TFL3"):
        foresee(b"no model at all")
    assert preflight.try_foresee(b"no model at all") is None
    assert preflight.try_foresee(files.PLAIN) == foresee(files.PLAIN)


def test_a_shape_that_is_computed_is_refused_and_its_block_named() -> None:
    graph = tiny.empty(dtype="int8")
    shape = graph.add_tensor("block2b/se/shape", (4,), "int32")
    graph.insert(0, "SHAPE", [graph.inputs[0]], [shape], graph.schema.ShapeOptionsT())
    same = graph.add_tensor("block2b/se/reshape", (1, 8, 8, 3), "int8")
    graph.insert(1, "RESHAPE", [graph.inputs[0], shape], [same], graph.schema.ReshapeOptionsT())
    graph.set_output(same)
    forecast = foresee(graph.content())
    assert forecast.verdict == "refused"
    (line,) = (line for line in forecast.operators if line.name == "RESHAPE")
    assert line.places == ("block2b",)
    assert "the shape of its output is computed while it runs" in line.reason
    assert "fixed resolution" in line.fix


def test_an_open_batch_is_unknown() -> None:
    graph = Graph(tiny.classifier())
    for index in (graph.inputs[0], graph.outputs[0]):
        graph.tensor(index).shapeSignature = np.array([-1, *graph.shape(index)[1:]], np.int32)
    forecast = foresee(graph.content())
    assert forecast.verdict == "unknown"
    assert any("known only at run time" in line.reason for line in forecast.operators)


def test_operators_of_others_are_refused() -> None:
    forecast = foresee(test_inspect.custom("Atan"))
    assert forecast.verdict == "refused"
    assert [line.source for line in forecast.operators if line.name == "Atan"] == [
        "an output of compiler 16, for a network with tf.atan"
    ]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(files.PLAIN)
    runner = CliRunner(env={"COLUMNS": "250"})
    shown = runner.invoke(cli.main, ["inspect", "m.tflite", "--edge-tpu"])
    assert shown.exit_code == 0
    assert "no operator of it runs on the Edge TPU" in shown.stdout
    assert "(0 mapped, 7 not mapped, 0 unknown)" in shown.stdout
    assert "convert with --edge-tpu" in shown.stdout
    document = json.loads(runner.invoke(cli.main, ["inspect", "m.tflite", "--edge-tpu", "--json"]).stdout)
    assert (document["schema"], document["schema_version"]) == ("edgeeff/preflight", 2)
    assert document["forecast"]["verdict"] == "nothing"


def test_a_compiled_file_is_refused(plain: Inspection) -> None:
    with pytest.raises(ModelError, match="compiled for the Edge TPU already"):
        check(dataclasses.replace(plain, edge_tpu=CompiledFile((), 0)))


WHOLE = ("mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "split_concat")


@pytest.mark.accuracy
def test_files_that_are_known_to_compile_whole_are_said_to_and_compiled_ones_are_refused(shared: Path) -> None:
    found = sorted((shared / "edge_tpu").glob("*.tflite"))
    assert len(found) == 7
    for path in found:
        if path.stem in WHOLE:
            seen = check(inspect(path))
            assert (seen.verdict, seen.count("not mapped"), seen.forecast.cpu.operators) == ("whole", 0, 0)
        else:
            with pytest.raises(ModelError, match="compiled for the Edge TPU already"):
                check(inspect(path))


def test_a_latency_is_estimated_of_what_the_edge_tpu_gets(plain: Inspection) -> None:
    whole = judged(plain, CONVOLUTION, CONVOLUTION)
    cut = judged(plain, CONVOLUTION, HARD_SWISH, CONVOLUTION)
    assert whole.forecast.estimate is not None
    assert cut.forecast.estimate is not None
    assert whole.forecast.estimate.left_out == ()
    assert cut.forecast.estimate.left_out == ("2 operators on the CPU",)
    assert whole.forecast.estimate.streamed_parameter_bytes == (0, whole.forecast.parameter_bytes)
    assert "Estimates from published figures of other networks, not measured." in shown(whole)
    assert "unknown operators are mapped" not in shown(whole)
    assert "They take it that unknown operators are mapped." in shown(judged(plain, CONVOLUTION, GELU))


def test_no_latency_is_estimated_where_nothing_is_for_the_edge_tpu(plain: Inspection) -> None:
    for seen in (judged(plain, REFUSED, CONVOLUTION), check(plain)):
        assert seen.forecast.estimate is None
        assert "estimated" not in shown(seen)
