from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeeff import cli
from edgeeff.converters.inspect import Inspection, Operator, Tensor, inspect
from edgeeff.converters.inspect_view import render_preflight
from edgeeff.converters.preflight import RULES, Preflight, check
from edgeeff.errors import ModelError
from tests import edge_tpu_files as files


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    path = tmp_path_factory.mktemp("preflight") / "m.tflite"
    path.write_bytes(files.PLAIN)
    return inspect(path)


def tensor(shape: tuple[int, ...], dtype: str = "int8", *, signature: tuple[int, ...] = (), size: int = 0) -> Tensor:
    return Tensor(0, "t", shape, signature or shape, dtype, None, size)


PIXELS = tensor((1, 8, 8, 6))


def judged(
    plain: Inspection,
    *steps: tuple[str, tuple[Tensor, ...], Tensor],
    version: int = 1,
    fused: bool = False,
) -> Preflight:
    """Check a graph of these operators, each with tensors of its own."""
    tensors: list[Tensor] = []
    operators = []
    for index, (name, inputs, output) in enumerate(steps):
        first = len(tensors)
        tensors += [*inputs, output]
        given = tuple(range(first, first + len(inputs)))
        operators.append(Operator(index, name, given, (len(tensors) - 1,), 0, None, version, fused))
    return check(dataclasses.replace(plain, operators=tuple(operators), tensors=tuple(tensors)))


CONVOLUTION = ("CONV_2D", (PIXELS, tensor((6, 1, 1, 6), size=36)), PIXELS)
HARD_SWISH = ("HARD_SWISH", (PIXELS,), PIXELS)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "verdict", "reason"),
    [
        ("ADD", (PIXELS, PIXELS), PIXELS, "mapped", ""),
        ("QUANTIZE", (tensor((1, 8), "uint8"),), tensor((1, 8)), "mapped", ""),
        ("QUANTIZE", (tensor((1, 8), "float32"),), tensor((1, 8)), "not mapped", "other than int8"),
        ("DEQUANTIZE", (tensor((1, 8)),), tensor((1, 8), "float32"), "not mapped", "other than int8"),
        ("HARD_SWISH", (PIXELS,), PIXELS, "not mapped", "does not have it"),
        ("ADD", (PIXELS,), tensor((2, 8, 8, 6)), "not mapped", "more than three dimensions"),
        ("ADD", (PIXELS,), tensor((1, 8, 8, 6), signature=(-1, 8, 8, 6)), "unknown", "only at run time"),
        ("SOFTMAX", (tensor((1, 1000)),), tensor((1, 1000)), "mapped", ""),
        ("SOFTMAX", (tensor((1, 16_001)),), tensor((1, 16_001)), "not mapped", "up to 16,000"),
        ("SOFTMAX", (tensor((1, 4, 5)),), tensor((1, 4, 5)), "not mapped", "one dimension"),
        ("FULLY_CONNECTED", (tensor((1, 5)),), tensor((3, 5)), "not mapped", "more than one dimension"),
        ("MEAN", (PIXELS,), tensor((1, 6)), "mapped", ""),
        ("MEAN", (PIXELS,), tensor((1, 8, 8, 1)), "not mapped", "no multiple of 4"),
        ("MEAN", (tensor((1, 8, 8, 8)),), tensor((1, 8, 8, 1)), "mapped", ""),
        ("CONCATENATION", (PIXELS, PIXELS), tensor((1, 8, 8, 12)), "mapped", ""),
        ("CONCATENATION", (PIXELS, tensor((1,), size=1)), PIXELS, "unknown", "all zeros"),
        ("CONCATENATION", (PIXELS, PIXELS, tensor((1,), size=1)), PIXELS, "not mapped", "two inputs"),
        ("STRIDED_SLICE", (PIXELS,), PIXELS, "unknown", "strides are 1"),
        ("RESIZE_BILINEAR", (PIXELS,), PIXELS, "unknown", "not published"),
        ("GELU", (PIXELS,), PIXELS, "unknown", "not in Coral's list"),
    ],
)
def test_operators(
    plain: Inspection, name: str, inputs: tuple[Tensor, ...], output: Tensor, verdict: str, reason: str
) -> None:
    (item,) = judged(plain, (name, inputs, output)).operators
    assert item.verdict == verdict
    assert reason in item.reason
    assert bool(item.source) == (verdict != "mapped")


def test_wide_states_of_an_lstm_do_not_count(plain: Inspection) -> None:
    state = tensor((1, 20), "int16")
    seen = judged(plain, ("UNIDIRECTIONAL_SEQUENCE_LSTM", (tensor((1, 28, 28)), state), tensor((1, 28, 20))))
    assert seen.verdict == "whole"


def test_pools_with_an_activation(plain: Inspection) -> None:
    pool = ("MAX_POOL_2D", (PIXELS,), PIXELS)
    assert judged(plain, pool).verdict == "whole"
    assert judged(plain, pool, fused=True).verdict == "nothing"


@pytest.mark.parametrize(("name", "version"), [("QUANTIZE", 3), ("CONV_2D", 6)])
def test_versions_that_are_refused(plain: Inspection, name: str, version: int) -> None:
    step = (name, (PIXELS,), PIXELS)
    assert judged(plain, step, CONVOLUTION, version=version).verdict == "refused"
    assert judged(plain, step, CONVOLUTION, version=version - 1).verdict == "whole"


def test_where_the_graph_is_cut(plain: Inspection) -> None:
    enter = ("QUANTIZE", (tensor((1, 8, 8, 6), "float32"),), PIXELS)
    seen = judged(plain, enter, CONVOLUTION, HARD_SWISH, CONVOLUTION)
    assert (seen.verdict, seen.first_left) == ("in part", 2)
    assert [seen.count(verdict) for verdict in ("mapped", "not mapped", "unknown")] == [2, 2, 0]
    assert judged(plain, enter, CONVOLUTION).first_left is None


def test_what_could_go_back_is_said(plain: Inspection) -> None:
    assert shown(judged(plain, CONVOLUTION, HARD_SWISH, CONVOLUTION), plain).endswith(
        "on, 2 operators run on the CPU; 1 of them could go back with edgeeff compile --multiple-subgraphs.\n"
    )
    assert shown(judged(plain, CONVOLUTION, HARD_SWISH), plain).endswith("on, 1 operators run on the CPU.\n")


def shown(seen: Preflight, inspection: Inspection) -> str:
    stream = io.StringIO()
    render_preflight(seen, inspection, Console(file=stream, width=250))
    return stream.getvalue()


def test_a_float_network_has_nothing_for_it(plain: Inspection) -> None:
    seen = check(plain)
    assert (seen.verdict, seen.first_left) == ("nothing", None)


def test_every_rule_has_a_source_and_a_reason() -> None:
    assert all(rule.source and rule.reason for rule in RULES)
    assert all(rule.fix for rule in RULES if rule.verdict == "not mapped")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(files.PLAIN)
    runner = CliRunner(env={"COLUMNS": "250"})
    shown = runner.invoke(cli.main, ["inspect", "m.tflite", "--edge-tpu"])
    assert shown.exit_code == 0
    assert "no operator of it runs on the Edge TPU" in shown.stdout
    assert "(0 mapped, 7 not mapped, 0 unknown)" in shown.stdout
    assert "convert with --scheme int8" in shown.stdout
    document = json.loads(runner.invoke(cli.main, ["inspect", "m.tflite", "--edge-tpu", "--json"]).stdout)
    assert (document["schema"], document["verdict"]) == ("edgeeff/preflight", "nothing")


def test_a_compiled_file_is_refused(plain: Inspection) -> None:
    from edgeeff.results import CompiledFile

    with pytest.raises(ModelError, match="compiled for the Edge TPU already"):
        check(dataclasses.replace(plain, edge_tpu=CompiledFile((), 0)))


@pytest.mark.accuracy
@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "split_concat"])
def test_no_operator_of_files_that_are_known_to_compile_whole_is_said_not_to(shared: Path, name: str) -> None:
    seen = check(inspect(shared / "edge_tpu" / f"{name}.tflite"))
    assert seen.count("not mapped") == 0
    assert seen.verdict == "whole"
