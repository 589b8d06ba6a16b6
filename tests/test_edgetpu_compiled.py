from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeeff import results
from edgeeff.converters.edgetpu.compiled import read
from edgeeff.converters.graph import Graph
from edgeeff.converters.inspect import inspect
from edgeeff.errors import ModelError
from edgeeff.results import EdgeTpuExecutable
from tests import edge_tpu_files as files
from tests.edge_tpu_files import CACHING, EXECUTION, STAND_ALONE, Program
from tests.test_inspect_view import shown

TOKEN = f"{files.TOKEN:016x}"


def test_what_a_compiled_file_says() -> None:
    seen = read(files.compiled([Program(EXECUTION, 300), Program(CACHING, 1000)], runtime=13, compiler="cl/343520747"))
    (operator,) = seen.operators
    assert (operator.subgraph, operator.index, operator.problem) == (0, 0, None)
    assert (operator.minimum_runtime, operator.compiler) == (13, "cl/343520747")
    assert operator.executables == (
        EdgeTpuExecutable("execution-only", "beagle", 300, TOKEN),
        EdgeTpuExecutable("parameter-caching", "beagle", 1000, TOKEN),
    )
    assert (seen.cached_parameter_bytes, seen.streamed_parameter_bytes) == (1000, 300)
    assert (seen.minimum_runtime, seen.caching_tokens, seen.cpu_operators) == (13, (TOKEN,), 0)


def test_a_program_that_stands_alone_sends_its_parameters_each_time() -> None:
    seen = read(files.compiled([Program(STAND_ALONE, 77, 0)], compiler="cl/"))
    assert (seen.cached_parameter_bytes, seen.streamed_parameter_bytes, seen.caching_tokens) == (0, 77, ())
    assert seen.operators[0].compiler is None


def test_operators_of_the_cpu_are_counted() -> None:
    seen = read(files.PLAIN)
    assert (seen.operators, seen.cpu_operators, seen.minimum_runtime) == ((), 7, None)


@pytest.mark.parametrize("size", [1, 200, 70_000])
def test_options_of_any_width_are_read(size: int) -> None:
    # FlexBuffers choose the width of their numbers by what they have to hold.
    seen = read(files.compiled([Program(CACHING, size)]))
    assert seen.cached_parameter_bytes == size


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (None, "it has no options"),
        (b"", "it has no options"),
        (b"\x00\x04\x01", "its options are of type 1, not a map"),
        (b"\x00\x04\x07", "numbers of 7 bytes"),
        (files.options(files.package([Program()]), key="3"), "its options have no package"),
        (files.options(b"\xff" * 64), "its package does not carry the mark DWN1"),
        (files.options(files.package([Program(kind=9)])), "a program is of kind 9"),
        (files.options(files.package([Program()] * 65)), "a list of 65, where 64 are many"),
        (files.options(files.package([Program(CACHING, 500)]))[300:], "its options have no package"),
    ],
)
def test_a_damaged_program_is_a_reason_not_a_crash(options: bytes | None, problem: str) -> None:
    seen = read(files.with_options(options))
    (operator,) = seen.operators
    assert operator.problem is not None
    assert problem in operator.problem
    assert (operator.executables, operator.minimum_runtime) == ((), None)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04" + bytes(40), bytes(1000)])
def test_what_is_no_tflite_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"no \.tflite file"):
        read(content)


def test_every_cut_gives_an_answer_or_a_model_error() -> None:
    whole = read(files.WHOLE)
    answers = 0
    for end in range(0, len(files.WHOLE), 7):
        try:
            seen = read(files.WHOLE[:end])
        except ModelError:
            continue
        answers += 1
        assert seen.operators[:1] == whole.operators or seen.operators[0].problem
    assert answers < len(files.WHOLE) / 7


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_bytes_give_an_answer_or_a_model_error(data: st.DataObject) -> None:
    content = bytearray(files.WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(8, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 4, 127, 128, 255]) | st.integers(0, 255))
    try:
        seen = read(bytes(content))
    except ModelError as error:
        assert "damaged" in str(error)
        return
    for operator in seen.operators:
        assert (operator.problem is None) or not operator.executables
        assert sum(item.parameter_bytes for item in operator.executables) <= len(content) * 64


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
@example(b"\xff" * 200)
def test_garbage_behind_the_mark_gives_an_answer_or_a_model_error(garbage: bytes) -> None:
    try:
        assert read(b"\x10\0\0\0TFL3" + garbage).operators == ()
    except ModelError as error:
        assert "damaged" in str(error)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=40))
def test_garbage_as_a_program_is_a_reason(head: bytes, tail: bytes) -> None:
    (operator,) = read(files.with_options(head + tail)).operators
    assert operator.problem is not None


def test_a_list_that_claims_to_be_huge_costs_nothing() -> None:
    graph = Graph(files.WHOLE)
    content = bytearray(graph.content())
    # A million copies of one operator would be a list of this length: every number in the file is made one.
    tracemalloc.start()
    for place in range(8, len(content) - 4, 4):
        changed = content[:place] + b"\xff\xff\x0f\x00" + content[place + 4 :]
        try:
            read(bytes(changed))
        except ModelError:
            continue
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_inspect_says_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "m_edgetpu.tflite"
    path.write_bytes(files.compiled([Program(EXECUTION, 300), Program(CACHING, 1000)], runtime=13))
    seen = inspect(path)
    assert seen.edge_tpu == read(path.read_bytes())
    document = json.loads(results.to_json(seen))
    assert document["edge_tpu"]["operators"][0]["executables"][1]["parameter_bytes"] == 1000
    text = shown(tmp_path, path.read_bytes(), width=200)
    assert "Edge TPU    1 part; none for the CPU" in text
    assert "Needs       libedgetpu's runtime 13 or later; compiler build cl/1234" in text
    assert "Parameters  1,000 B stay on the Edge TPU, 300 B are sent with each inference" in text
    assert f"Token       {TOKEN}; files with the same one were compiled together" in text
    assert seen.edge_tpu_estimate is not None
    assert seen.edge_tpu_estimate.streamed_parameter_bytes == (300, 300)
    assert document["edge_tpu_estimate"]["times"][0]["link"] == "USB 3"
    assert re.search(r"^USB 2 +at least 4\.1 ms +0\.0 ms +a Raspberry Pi 3B\+$", text, re.MULTILINE)
    assert "not measured. Not counted: the computing itself, which the file does not tell." in text


def test_inspect_says_what_is_damaged(tmp_path: Path) -> None:
    text = shown(tmp_path, files.with_options(b""), width=200)
    assert "Damaged   operator 0 of subgraph 0: its program cannot be read: it has no options" in text
    assert "estimated" not in text


def test_inspect_says_nothing_of_it_of_other_files(tmp_path: Path) -> None:
    assert "Edge TPU" not in shown(tmp_path, files.PLAIN, width=200)


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("name", "cached", "streamed", "runtime", "compiler"),
    [
        ("mobilenet_v1_0.25_128_quant_edgetpu", 566_912, 0, 12, None),
        ("cocomp", 315_840, 251_072, 12, None),
        ("keras_lstm_mnist_ptq_edgetpu", 43_968, 576, 12, None),
        ("split_concat_edgetpu", 192, 0, 13, "cl/343520747"),
    ],
)
def test_real_compiled_files(
    shared: Path, name: str, cached: int, streamed: int, runtime: int, compiler: str | None
) -> None:
    seen = read((shared / "edge_tpu" / f"{name}.tflite").read_bytes())
    (operator,) = seen.operators
    assert (seen.cached_parameter_bytes, seen.streamed_parameter_bytes) == (cached, streamed)
    assert (seen.minimum_runtime, operator.compiler, operator.problem) == (runtime, compiler, None)
    assert {item.kind for item in operator.executables} == {"execution-only", "parameter-caching"}
    assert len(seen.caching_tokens) == 1


@pytest.mark.accuracy
def test_real_plain_files_have_nothing_for_the_edge_tpu(shared: Path) -> None:
    counts = {}
    for name in ("mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "split_concat"):
        seen = read((shared / "edge_tpu" / f"{name}.tflite").read_bytes())
        assert seen.operators == ()
        counts[name] = seen.cpu_operators
    assert counts == {"mobilenet_v1_0.25_128_quant": 31, "keras_lstm_mnist_ptq": 6, "split_concat": 3}
