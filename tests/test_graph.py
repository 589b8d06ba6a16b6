"""Reading, editing and writing graphs, and refusing what is damaged."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters.graph import LARGEST_TENSOR, Graph
from edgeeff.errors import MissingExtraError, ModelError
from tests import tiny

TINY = tiny.classifier()
KINDS = ["MUL", "SUB", "DIV", "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
IMAGE = tiny.images(1)[0]


@pytest.fixture
def graph() -> Graph:
    return Graph(TINY)


def kinds(graph: Graph) -> list[str]:
    return [graph.kind(operator) for operator in graph.operators]


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_what_is_in_the_graph_is_found(graph: Graph) -> None:
    assert kinds(graph) == KINDS
    (source,), (sink,) = graph.inputs, graph.outputs
    assert (graph.name(source), graph.shape(source), graph.dtype(source)) == ("pixels", (1, 8, 8, 3), "float32")
    assert (graph.name(sink), graph.shape(sink)) == ("scores", (1, 5))
    assert graph.constant(source) is None
    assert graph.producer(source) is None
    assert graph.consumers(source) == [graph.operators[0]]
    softmax = graph.producer(sink)
    assert softmax is graph.operators[-1]
    assert graph.consumers(sink) == []
    assert [graph.activation(operator) for operator in graph.operators] == ["NONE"] * 3 + ["RELU"] + ["NONE"] * 3


def test_constants_have_their_values(graph: Graph) -> None:
    mean = graph.constant(int(graph.operators[1].inputs[1]))
    assert mean is not None
    np.testing.assert_array_equal(mean, np.array([0.485, 0.456, 0.406], np.float32))
    axes = graph.constant(int(graph.operators[4].inputs[1]))
    assert axes is not None
    assert axes.tolist() == [1, 2]


def test_new_values_reach_one_tensor_and_no_other_that_shares_them(graph: Graph) -> None:
    shape, old = (2, 2), np.arange(4, dtype=np.float32).reshape(2, 2)
    first, second, alone = (graph.add_tensor(name, shape, "float32", old) for name in ("first", "second", "alone"))
    graph.tensor(second).buffer = graph.tensor(first).buffer
    count = len(graph.model.buffers)
    graph.set_constant(first, -old)
    graph.set_constant(alone, np.float64(2) * old)
    assert len(graph.model.buffers) == count + 1
    for index, expected in ((first, -old), (second, old), (alone, 2 * old)):
        np.testing.assert_array_equal(graph.constant(index), expected)


def test_a_dynamic_dimension_is_minus_one(graph: Graph) -> None:
    graph.tensor(graph.inputs[0]).shapeSignature = [-1, 8, 8, 3]
    again = Graph(graph.content())
    assert again.shape(again.inputs[0]) == (-1, 8, 8, 3)


def test_a_name_that_is_no_unicode_is_read(graph: Graph) -> None:
    graph.tensor(graph.inputs[0]).name = b"caf\xe9"
    assert graph.name(graph.inputs[0]) == "caf\N{REPLACEMENT CHARACTER}"
    graph.tensor(graph.inputs[0]).name = None
    assert graph.name(graph.inputs[0]) == ""


# --- Writing ----------------------------------------------------------------------------------------------------------


def test_a_file_is_the_same_after_reading_and_writing() -> None:
    once = Graph(TINY).content()
    assert once == TINY
    np.testing.assert_array_equal(tiny.run(once, IMAGE), tiny.run(TINY, IMAGE))


def test_operators_are_inserted_and_removed(graph: Graph) -> None:
    logits = int(graph.operators[-1].inputs[0])
    graph.remove(graph.operators[-1])
    graph.set_output(logits)
    assert kinds(graph) == KINDS[:-1]
    bare = tiny.run(graph.content(), IMAGE)
    np.testing.assert_array_equal(bare, tiny.run(tiny.classifier(head="logits"), IMAGE))

    scores = graph.add_tensor("doubled", (1, 5), "float32")
    two = graph.add_tensor("two", (), "float32", np.float32(2))
    graph.insert(len(graph.operators), "MUL", [logits, two], [scores], graph.schema.MulOptionsT())
    graph.set_output(scores)
    np.testing.assert_array_equal(tiny.run(graph.content(), IMAGE), 2 * bare)


def test_an_operator_kind_is_listed_once(graph: Graph) -> None:
    before = len(graph.model.operatorCodes)
    tensors = [graph.add_tensor(f"t{number}", (1, 5), "float32") for number in range(3)]
    graph.insert(len(graph.operators), "SOFTMAX", [graph.outputs[0]], tensors[:1], graph.schema.SoftmaxOptionsT())
    assert len(graph.model.operatorCodes) == before
    graph.insert(len(graph.operators), "GELU", tensors[:1], tensors[1:2])  # its number does not fit the older field
    graph.insert(len(graph.operators), "GELU", tensors[1:2], tensors[2:])
    assert len(graph.model.operatorCodes) == before + 1
    # What the schema asks of codes beyond 126: old readers see that there is one that they do not know.
    assert graph.model.operatorCodes[-1].deprecatedBuiltinCode == 127
    assert kinds(Graph(graph.content()))[-3:] == ["SOFTMAX", "GELU", "GELU"]


def test_a_quantized_tensor_keeps_its_parameters(graph: Graph) -> None:
    added = graph.add_tensor("quantized", (1, 5), "int8", quantization=(0.5, -3))
    graph.insert(len(graph.operators), "QUANTIZE", [graph.outputs[0]], [added], graph.schema.QuantizeOptionsT())
    graph.set_output(added)
    again = Graph(graph.content())
    parameters = again.tensor(again.outputs[0]).quantization
    assert again.dtype(again.outputs[0]) == "int8"
    assert (list(parameters.scale), list(parameters.zeroPoint)) == ([0.5], [-3])
    np.testing.assert_array_equal(tiny.run(graph.content(), IMAGE), np.rint(2 * tiny.run(TINY, IMAGE)) - 3)


def test_the_signature_follows_the_input_and_the_output(graph: Graph) -> None:
    graph.set_signature("serving_default", "image", "scores")
    logits = int(graph.operators[-1].inputs[0])
    graph.remove(graph.operators[-1])
    graph.set_output(logits)
    again = Graph(graph.content())
    (signature,) = again.model.signatureDefs
    assert (signature.signatureKey, signature.subgraphIndex) == (b"serving_default", 0)
    assert [(entry.name, entry.tensorIndex) for entry in signature.inputs] == [(b"image", again.inputs[0])]
    assert [(entry.name, entry.tensorIndex) for entry in signature.outputs] == [(b"scores", logits)]


def test_constants_given_as_bytes_are_written(graph: Graph) -> None:
    mean = int(graph.operators[1].inputs[1])
    graph.model.buffers[graph.tensor(mean).buffer].data = np.zeros(3, np.float32).tobytes()
    written = Graph(graph.content()).constant(mean)
    assert written is not None
    assert written.tolist() == [0, 0, 0]


# --- Refusing ---------------------------------------------------------------------------------------------------------


def exercise(content: bytes) -> None:
    """Read all that there is and write it; whatever the content, nothing but ModelError may come out."""
    try:
        graph = Graph(content)
        for operator in graph.operators:
            graph.kind(operator)
            graph.activation(operator)
        used = {index for operator in graph.operators for index in (*operator.inputs, *operator.outputs)}
        for index in {*used, *graph.inputs, *graph.outputs} - {-1}:
            graph.name(index), graph.shape(index), graph.dtype(index)
            graph.consumers(index), graph.producer(index)
            graph.constant(index)
        graph.content()
    except ModelError as error:
        assert str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"TFL3", b"\x1c\0\0\0TFL", b"PK\x03\x04 a zip archive", b"\x89HDF\r\n\x1a\n and so on", b"\0" * 100],
)
def test_another_kind_of_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"photo is no \.tflite file"):
        Graph(content, "photo")


@pytest.mark.parametrize("length", range(8, len(TINY), 61))
def test_a_file_that_is_cut_off_is_refused_or_read(length: int) -> None:
    exercise(TINY[:length])


def test_most_cuts_are_noticed() -> None:
    noticed = 0
    cuts = range(8, len(TINY), 61)
    for length in cuts:
        try:
            Graph(TINY[:length])
        except ModelError as error:
            assert "is damaged, get or make it anew" in str(error)
            noticed += 1
    assert noticed > 0.9 * len(cuts)  # the end of a flatbuffer is padding and what is rarely looked at


@pytest.mark.parametrize("seed", range(10))
def test_damage_is_a_model_error(seed: int) -> None:
    dice = np.random.default_rng(seed)
    for _ in range(60):
        damaged = bytearray(TINY)
        for place in dice.integers(0, len(damaged) - 4, dice.integers(1, 4)):
            word = place // 4 * 4
            match dice.choice(["bit", "word", "large", "negative"]):
                case "bit":
                    damaged[place] ^= 1 << int(dice.integers(8))
                case "word":
                    damaged[place : place + 4] = dice.bytes(4)
                case "large":
                    damaged[word : word + 4] = int(dice.integers(1 << 31)).to_bytes(4, "little")
                case "negative":
                    damaged[word : word + 4] = b"\xff" * 4
        exercise(bytes(damaged))


@given(st.binary(max_size=400), st.integers(0, 255))
@settings(deadline=None)
def test_random_bytes_are_a_model_error(rest: bytes, root: int) -> None:
    exercise(bytes([root, 0, 0, 0]) + b"TFL3" + rest)


def rewritten(change: Callable[[Graph], object]) -> bytes:
    graph = Graph(TINY)
    change(graph)
    return graph.content()


def put(attribute: str, value: object, operator: int = 1) -> Callable[[Graph], object]:
    return lambda graph: setattr(graph.operators[operator], attribute, value)


DAMAGE: dict[str, tuple[Callable[[Graph], object], str]] = {
    "input": (lambda graph: graph.set_input(99), "an input or output is tensor 99 of"),
    "output": (lambda graph: graph.set_output(-1), "an input or output is tensor -1 of"),
    "buffer": (lambda graph: setattr(graph.tensor(0), "buffer", 99), "list index|buffer 99|out of bounds"),
    "type": (lambda graph: setattr(graph.tensor(0), "type", 99), "tensor 0 is of the unknown type 99"),
    "shape": (lambda graph: setattr(graph.tensor(0), "shape", [1, -2]), r"tensor 0 has the shape \(1, -2\)"),
    "size": (lambda graph: setattr(graph.tensor(0), "shape", [LARGEST_TENSOR, 2]), "tensor 0 has the shape"),
    "kind": (put("opcodeIndex", 99), "operator 1 is of an unknown kind"),
    "code": (lambda graph: setattr(graph.model.operatorCodes[0], "builtinCode", 9999), "operator 0 is of an unknown"),
    "read": (put("inputs", [99, 1]), r"operator 1 \(SUB\) uses tensor 99 of"),
    "write": (put("outputs", [-1]), r"operator 1 \(SUB\) uses tensor -1 of"),
    "arity": (put("inputs", [1]), r"operator 1 \(SUB\) has inputs \[1\]"),
    "silent": (put("outputs", []), r"operator 1 \(SUB\) has inputs .* and outputs \[\]"),
    "twice": (
        lambda g: setattr(g.operators[1], "outputs", g.operators[0].outputs),
        "writes what is computed before it",
    ),
    "circle": (
        lambda g: setattr(g.operators[1], "inputs", g.operators[2].outputs * 2),
        "reads what is computed after it",
    ),
    "itself": (
        lambda g: setattr(g.operators[1], "inputs", g.operators[1].outputs * 2),
        "reads what is computed after it",
    ),
    "writes input": (lambda g: setattr(g.operators[0], "outputs", g.inputs), "an operator writes the input"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_leads_nowhere_is_named(name: str) -> None:
    change, words = DAMAGE[name]
    content = rewritten(change)
    with pytest.raises(ModelError, match=words) as caught:
        Graph(content, "photo.tflite")
    assert str(caught.value).startswith("photo.tflite is damaged, get or make it anew: ")


def test_a_missing_optional_input_is_no_damage() -> None:
    content = rewritten(lambda graph: graph.operators[5].inputs.__setitem__(2, -1))
    assert [int(index) for index in Graph(content).operators[5].inputs][2] == -1
    assert tiny.run(content, IMAGE).shape == (5,)


@pytest.mark.parametrize("count", [0, 2])
def test_a_model_of_several_graphs_is_refused(count: int) -> None:
    content = rewritten(lambda graph: setattr(graph.model, "subgraphs", graph.model.subgraphs * count))
    with pytest.raises(ModelError, match=rf"has {count} subgraphs \(control flow\); a classifier has one"):
        Graph(content)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("INT4", [3]), ("STRING", [3]), ("BFLOAT16", [5]), ("FLOAT32", [4]), ("FLOAT64", [3])]
)
def test_a_constant_that_cannot_be_read_is_named(graph: Graph, dtype: str, shape: list[int]) -> None:
    mean = int(graph.operators[1].inputs[1])
    graph.tensor(mean).type = getattr(graph.schema.TensorType, dtype)
    graph.tensor(mean).shape = shape
    with pytest.raises(ModelError, match=re.escape(f"'step1/constant' cannot be read: 12 bytes as {dtype.lower()}")):
        graph.constant(mean)


@pytest.mark.parametrize(("name", "reason"), [("missing.tflite", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"cannot read the model .*: {reason}"):
        Graph.read(tmp_path / name)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.tflite"
    path.write_bytes(TINY[: len(TINY) // 2])
    with pytest.raises(ModelError, match=re.escape(f"{path} is damaged")):
        Graph.read(path)


def test_without_litert_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r"python -m pip install 'edgeeff\[host\]'"):
        Graph(TINY)
