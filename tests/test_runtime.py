"""Pixels go in and real scores come out, whatever types the file uses; nothing is left on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgeeff.converters import quantize, runtime
from edgeeff.converters.float_model import finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import IoType
from edgeeff.converters.runtime import Session, native_log_kept_away
from edgeeff.converters.schemes import SCHEMES
from edgeeff.errors import MissingExtraError, ModelError
from edgeeff.results import TensorContract
from tests import tiny

IMAGE = tiny.images(1)[0]


def made(input_type: IoType, output_type: IoType) -> bytes:
    return quantize.quantize(
        finish(tiny.classifier()), SCHEMES["float32"], None, input_type=input_type, output_type=output_type
    )


def test_pixels_give_the_scores_of_the_interpreter() -> None:
    content = finish(tiny.classifier()).content
    scores = Session(content).run(IMAGE)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, tiny.run(content, IMAGE))


@pytest.mark.parametrize("input_type", ["uint8", "int8"])
def test_pixels_are_the_same_in_every_input_type(input_type: IoType) -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    image[0, 0] = 0, 127, 255
    expected = Session(made("float32", "float32")).run(image)
    np.testing.assert_array_equal(Session(made(input_type, "float32")).run(image), expected)


@pytest.mark.parametrize("output_type", ["uint8", "int8"])
def test_quantized_scores_are_real_numbers(output_type: IoType) -> None:
    expected = Session(made("float32", "float32")).run(IMAGE)
    scores = Session(made("float32", output_type)).run(IMAGE)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=0.5 / 256 + 1e-6)
    np.testing.assert_array_equal(scores * 256, np.rint(scores * 256))


def test_an_image_that_lies_differently_in_memory_is_the_same_image() -> None:
    session = Session(made("int8", "float32"))
    mirrored = np.ascontiguousarray(IMAGE[:, ::-1])
    np.testing.assert_array_equal(session.run(IMAGE[:, ::-1]), session.run(mirrored))


def test_one_session_runs_many_images_and_leaves_them_alone() -> None:
    session, images = Session(made("int8", "float32")), tiny.images(3)
    copies = [image.copy() for image in images]
    first = [session.run(image) for image in images]
    again = [session.run(image) for image in images]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(images, copies)
    assert not np.array_equal(first[0], first[1])


def test_contracts_name_shape_type_and_quantization() -> None:
    session = Session(made("int8", "uint8"))
    assert session.input == TensorContract("image_int8", (1, 8, 8, 3), "int8", 1.0, -128)
    assert session.output == TensorContract("scores_uint8", (1, 5), "uint8", 1 / 256, 0)
    plain = Session(made("float32", "float32"))
    assert (plain.input.dtype, plain.input.scale, plain.input.zero_point) == ("float32", None, None)


def without_weights(graph: Graph) -> None:
    (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    buffer = graph.model.buffers[graph.tensor(dense.inputs[1]).buffer]
    buffer.data = buffer.data[:-4]


def with_an_unknown_size(graph: Graph) -> None:
    (mean,) = (operator for operator in graph.operators if graph.kind(operator) == "MEAN")
    graph.tensor(mean.inputs[1]).type = graph.schema.TensorType.FLOAT32


@pytest.mark.parametrize("damage", [without_weights, with_an_unknown_size])
def test_what_litert_cannot_load_is_a_model_error_in_its_words(damage: Callable[[Graph], None]) -> None:
    graph = Graph(tiny.classifier())
    damage(graph)
    with pytest.raises(ModelError, match=r"^LiteRT cannot load this file: \S"):
        Session(graph.content())


def test_what_litert_cannot_run_is_a_model_error_in_its_words() -> None:
    graph = Graph(tiny.classifier(preprocessing=()))
    source = graph.inputs[0]
    index = graph.add_tensor("index", (1,), "int32", np.array([99], np.int32))
    picked = graph.add_tensor("picked", (1, 8, 8, 3), "float32")
    for operator in graph.consumers(source):
        operator.inputs = [picked if one == source else one for one in operator.inputs]
    graph.insert(0, "GATHER", [source, index], [picked], graph.schema.GatherOptionsT())
    session = Session(graph.content())
    with pytest.raises(ModelError, match=r"^LiteRT cannot run this file: \S"):
        session.run(IMAGE)


def test_the_runtime_is_named_with_its_version() -> None:
    assert runtime.runtime().name == "ai-edge-litert"
    assert runtime.runtime().version == metadata.version("ai-edge-litert")


def test_without_litert_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"install 'edgeeff\[device\]'"):
        Session(tiny.classifier())


def test_native_output_is_kept_away_and_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with native_log_kept_away():
        os.write(2, b"from native code")
    os.write(2, b"after it")
    assert capfd.readouterr() == ("", "after it")


def test_native_output_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(ZeroDivisionError), native_log_kept_away():
        raise ZeroDivisionError
    os.write(2, b"after it")
    assert capfd.readouterr().err == "after it"
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208


@pytest.mark.parametrize("closed", ["", "2>&-"])
def test_loading_says_nothing_on_standard_error(tiny_float_tflite: Path, closed: str) -> None:
    # In a process of its own: LiteRT speaks once for each process.
    code = (
        "import sys; from pathlib import Path; from edgeeff.converters.runtime import Session; "
        "print(Session(Path(sys.argv[1]).read_bytes()).input.shape)"
    )
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", code, str(tiny_float_tflite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("(1, 8, 8, 3)\n", "", 0)
