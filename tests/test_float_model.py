"""Float .tflite files are checked and made ready; the process that makes them from Keras fails readably."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeeff.converters import float_model as module
from edgeeff.converters.float_model import Head, finish, require_host
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session
from edgeeff.converters.trace import Request, Traced
from edgeeff.errors import EdgeeffError, MissingExtraError, ModelError, UnknownNameError, WeightsError
from tests import tiny
from tests.tiny import Step

IMAGES = tiny.images(4)
REQUEST = Request(output="float.tflite", variant="lite0")


def kinds(content: bytes) -> list[str]:
    graph = Graph(content)
    return [graph.kind(operator) for operator in graph.operators]


def softmax(logits: tiny.Float) -> tiny.Float:
    powers = np.exp(logits - logits.max())
    shares: tiny.Float = powers / powers.sum()
    return shares


# --- A float file is made ready ---------------------------------------------------------------------------------------


def test_a_classifier_is_described() -> None:
    found = finish(tiny.classifier(), Traced(packages={"tensorflow": "2"}))
    assert (found.resolution, found.classes, found.head, found.logits) == ((8, 8), 5, "softmax", "logits")
    assert found.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255), rel=1e-6)
    assert found.std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255), rel=1e-6)
    assert found.packages == {"tensorflow": "2"}


def test_preprocessing_is_fused_exactly() -> None:
    content = tiny.classifier()
    found = finish(content)
    assert kinds(found.content)[:4] == ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE", "CONV_2D"]
    for image in IMAGES:
        np.testing.assert_allclose(Session(found.content).run(image), tiny.run(content, image), atol=1e-6)


def test_there_is_one_signature_and_the_names_are_unique() -> None:
    graph = Graph(tiny.classifier())
    for index in range(3):
        graph.tensor(graph.operators[index].outputs[0]).name = b"same"
    made = Graph(finish(graph.content()).content)
    (signature,) = made.model.signatureDefs
    assert (signature.signatureKey, signature.inputs[0].name, signature.outputs[0].name) == (
        b"serving_default",
        b"image",
        b"scores",
    )
    names = [made.name(index) for index in range(len(made.model.subgraphs[0].tensors))]
    assert len(set(names)) == len(names)


def test_names_are_what_native_code_reads_of_them() -> None:
    graph = Graph(tiny.classifier())
    for operator in graph.operators[-2:]:
        graph.tensor(operator.outputs[0]).name = b"scores\0 of \xff"
    found = finish(graph.content())
    made = Graph(found.content)
    (softmax,) = (operator for operator in made.operators if made.kind(operator) == "SOFTMAX")
    logits, scores = (made.name(int(index)) for index in (softmax.inputs[0], softmax.outputs[0]))
    assert found.logits == logits
    assert {name.partition("#")[0] for name in (logits, scores)} == {"scores"}
    assert logits != scores


@pytest.mark.parametrize("had", ["softmax", "logits"])
@pytest.mark.parametrize("wanted", ["softmax", "logits", None])
def test_the_head_is_kept_added_or_taken_away(had: Head, wanted: Head | None) -> None:
    found = finish(tiny.classifier(head=had), head=wanted)
    assert found.head == (wanted or had)
    assert kinds(found.content).count("SOFTMAX") == (found.head == "softmax")
    assert found.logits == "logits"
    logits = tiny.run(tiny.classifier(head="logits"), IMAGES[0])
    np.testing.assert_allclose(
        Session(found.content).run(IMAGES[0]), softmax(logits) if found.head == "softmax" else logits, atol=1e-5
    )


def test_a_finished_model_is_finished_to_the_same_again() -> None:
    first = finish(tiny.classifier())
    again = finish(first.content)
    assert again.mean == pytest.approx(first.mean)
    assert again.std == pytest.approx(first.std)
    assert again.logits == first.logits
    assert kinds(again.content) == kinds(first.content)
    np.testing.assert_allclose(Session(again.content).run(IMAGES[0]), Session(first.content).run(IMAGES[0]), atol=1e-6)


def test_the_same_file_gives_the_same_bytes() -> None:
    assert finish(tiny.classifier()).content == finish(tiny.classifier()).content


@pytest.mark.parametrize("known", [False, True])
def test_without_preprocessing_the_range_has_to_be_known(known: bool) -> None:
    content = tiny.classifier(preprocessing=())
    if not known:
        with pytest.raises(ModelError, match="pixel values that it expects are unknown"):
            finish(content, Traced(preprocesses=False))
        return
    found = finish(content, Traced(preprocesses=True))
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
    assert str(found.mean[0]) == "0.0"  # not minus nothing
    np.testing.assert_array_equal(Session(found.content).run(IMAGES[0]), tiny.run(content, IMAGES[0]))


def with_casts(*dtypes: str) -> bytes:
    """A classifier whose input is of the first type and is cast to each of the others in turn."""
    graph = Graph(tiny.classifier())
    target = graph.inputs[0]
    shape = graph.shape(target)
    chain = [graph.add_tensor(f"cast{number}", shape, dtype) for number, dtype in enumerate(dtypes)]
    for position, (source, result) in enumerate(zip(chain, [*chain[1:], target], strict=True)):
        graph.insert(position, "CAST", [source], [result], graph.schema.CastOptionsT())
    graph.set_input(chain[0])
    return graph.content()


@pytest.mark.parametrize("dtypes", [("uint8",), ("float32", "uint8"), ("int32",), ("uint8", "float16")])
def test_bytes_that_are_cast_first_are_taken_as_floats(dtypes: tuple[str, ...]) -> None:
    found = finish(with_casts(*dtypes))
    assert "CAST" not in kinds(found.content)
    assert Session(found.content).input.dtype == "float32"
    np.testing.assert_allclose(Session(found.content).run(IMAGES[0]), tiny.run(tiny.classifier(), IMAGES[0]), atol=1e-6)


def test_a_cast_that_changes_pixels_is_not_dropped() -> None:
    with pytest.raises(ModelError, match=r"quantized already \(CAST cast1 is int8\)"):
        finish(with_casts("float32", "int8"))


# --- What is no float classifier of one image -------------------------------------------------------------------------


def second_input(graph: Graph) -> None:
    graph.model.subgraphs[0].inputs = [*graph.inputs, graph.add_tensor("age", (1, 1), "float32")]


def second_output(graph: Graph) -> None:
    graph.model.subgraphs[0].outputs = [*graph.outputs, int(graph.operators[3].outputs[0])]


def dynamic(name: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        (tensor,) = (one for one in graph.model.subgraphs[0].tensors if one.name == name.encode())
        tensor.shapeSignature = [-1, *tensor.shape[1:]]

    return change


def batch_of_two(graph: Graph) -> None:
    for operator in graph.operators:
        for index in operator.outputs:
            graph.tensor(index).shape = [2, *graph.shape(index)[1:]]
    graph.tensor(graph.inputs[0]).shape = [2, 8, 8, 3]


def feature_map(graph: Graph) -> None:
    graph.set_output(int(graph.operators[3].outputs[0]))


def flat_input(graph: Graph) -> None:
    graph.tensor(graph.inputs[0]).shape = [1, 192]


def sigmoid(graph: Graph) -> None:
    last = graph.operators[-1]
    scores = int(last.outputs[0])
    graph.remove(last)
    graph.insert(len(graph.operators), "LOGISTIC", [int(last.inputs[0])], [scores])


def of_type(dtype: str, *, end: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        index = graph.inputs[0] if end == "input" else graph.outputs[0]
        graph.tensor(index).type = getattr(graph.schema.TensorType, dtype.upper())

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (second_input, "the model has 2 inputs; an image classifier has one"),
        (second_output, "the model has 2 outputs; a classifier has one: a score for each class"),
        (dynamic("pixels"), r"dynamic dimensions, first in 'pixels' \(-1, 8, 8, 3\).*at batch 1"),
        (dynamic("mean"), r"dynamic dimensions, first in 'mean' \(-1, 8\).*XNNPACK and the Edge TPU need fixed ones"),
        (batch_of_two, "takes batches of 2; a device runs one image at a time"),
        (flat_input, r"input has the shape \(1, 192\); an image classifier takes \(1, height, width, 3\)"),
        (feature_map, r"no classifier: its output has the shape \(1, 4, 4, 8\), not \(1, classes\)"),
        (sigmoid, "ends in a sigmoid"),
        (of_type("uint8", end="input"), "input is uint8: it is quantized already; give the float model"),
        (of_type("int8", end="output"), "output is int8: it is quantized already"),
    ],
)
def test_what_is_no_float_classifier_is_refused(change: Callable[[Graph], None], message: str) -> None:
    graph = Graph(tiny.classifier())
    change(graph)
    with pytest.raises(ModelError, match=message):
        finish(graph.content())


def test_a_single_sigmoid_score_is_told_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"output has the shape \(1, 1\).*train it with a Dense\(2\) head"):
        finish(tiny.classifier(classes=1))


def test_grey_images_are_refused() -> None:
    graph = tiny.empty(channels=1)
    graph.set_output(graph.add_tensor("scores", (1, 2), "float32"))
    with pytest.raises(ModelError, match=r"shape \(1, 8, 8, 1\)"):
        finish(graph.content())


@pytest.mark.parametrize("scheme", ["float16", "dynamic", "weight-only", "int8", "int16x8"])
def test_a_quantized_file_is_not_quantized_again(scheme: str) -> None:
    from edgeeff.converters.quantize import collect_ranges, quantize
    from edgeeff.converters.schemes import SCHEMES

    model = finish(tiny.classifier())
    ranges = collect_ranges(model, IMAGES) if SCHEMES[scheme].calibrated else None
    made = quantize(model, SCHEMES[scheme], ranges, input_type="float32", output_type="float32")
    with pytest.raises(ModelError, match="quantized already"):
        finish(made)


def test_an_implausible_range_is_refused() -> None:
    with pytest.raises(ModelError, match=r"its input is not 0\.\.255; say what black and white are"):
        finish(tiny.classifier(preprocessing=(Step("MUL", 255.0),)))


def test_damage_is_told() -> None:
    with pytest.raises(ModelError, match="the model is damaged"):
        finish(tiny.classifier()[:200])


# --- The process that runs TensorFlow ---------------------------------------------------------------------------------


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put other code in the place of the child."""

    def put(code: str) -> None:
        start = "import json, os, signal, sys, time\nsys.argv.pop(1)\n"
        send = "def send(**answer): print(json.dumps(answer), flush=True)\n"
        monkeypatch.setattr(module, "CHILD", start + send + textwrap.dedent(code))

    return put


def trace(**options: Any) -> tuple[Traced, list[str]]:
    said: list[str] = []
    return module.trace(REQUEST, said.append, **options), said


def children() -> list[str]:
    """Command lines of this process' children that are a `CHILD`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        if parent == str(os.getpid()) and "sys.argv.pop(1)" in command:
            found.append(command)
    return found


def test_stages_and_the_result_arrive(child: Callable[[str], None]) -> None:
    child(
        """
        request = json.loads(sys.argv[1])
        send(stage="one")
        print("noise", file=sys.stderr)
        send(stage=request["variant"])
        send(result={"preprocesses": True, "packages": {"tensorflow": "2.21"}})
        """
    )
    assert trace() == (Traced(preprocesses=True, packages={"tensorflow": "2.21"}), ["one", "lite0"])
    assert children() == []


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        ({"type": "ModelError", "error": "no classifier"}, ModelError, 2),
        ({"type": "WeightsError", "error": "no weights"}, WeightsError, 2),
        ({"type": "UnknownNameError", "error": "unknown variant 'x'"}, UnknownNameError, 2),
        ({"type": "MissingExtraError", "error": "install it", "extra": "lite-weights"}, MissingExtraError, 4),
        ({"type": "NotOfOurs", "error": "something"}, EdgeeffError, 2),
    ],
)
def test_the_childs_own_error_is_raised_here(
    child: Callable[[str], None], answer: dict[str, str], error: type[EdgeeffError], code: int
) -> None:
    child(f"send(stage='one'); send(**{answer!r})")
    with pytest.raises(error) as caught:
        trace()
    assert (type(caught.value), str(caught.value), caught.value.exit_code) == (error, answer["error"], code)
    assert getattr(caught.value, "extra", None) == answer.get("extra")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "^the TensorFlow process was killed, most likely for want of memory"),
        (
            "print('F0000 check failed', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGABRT)",
            "^the TensorFlow process died of SIGABRT:\nF0000 check failed$",
        ),
        ("import no_such_thing", "ended with status 1: ModuleNotFoundError: No module named 'no_such_thing'$"),
        ("sys.exit(3)", "^the TensorFlow process ended with status 3: it said nothing$"),
        ("send(stage='one')", "^the TensorFlow process ended with status 0: it said nothing$"),
        (
            "sys.stdout.write('{\"resu'); sys.stdout.flush(); os.kill(os.getpid(), 9)",
            "the TensorFlow process was killed",
        ),
    ],
)
def test_a_child_that_dies_is_told_without_a_traceback(child: Callable[[str], None], code: str, message: str) -> None:
    child(code)
    with pytest.raises(ModelError, match=message) as caught:
        trace()
    assert "Traceback" not in str(caught.value)
    assert children() == []


def test_a_child_that_takes_too_long_is_stopped(child: Callable[[str], None]) -> None:
    child("time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(ModelError, match="took longer than 0 s and was stopped"):
        trace(time_limit_s=0.2)
    assert time.monotonic() - begin < 10
    assert children() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_whatever_happens_here_the_child_is_ended(child: Callable[[str], None], error: type[BaseException]) -> None:
    child("send(stage='one'); time.sleep(60)")

    def interrupt(stage: str) -> None:
        raise error

    begin = time.monotonic()
    with pytest.raises(error):
        module.trace(REQUEST, interrupt)
    assert time.monotonic() - begin < 10
    assert children() == []


def test_the_child_imports_what_its_parent_does(
    child: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user')")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", module.CHILD, ":".join(sys.path), json.dumps({"no": "request"})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "unexpected keyword argument 'no'" in done.stderr
    assert "a file of the user" not in done.stderr


def test_missing_packages_name_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    require_host()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else object())
    with pytest.raises(MissingExtraError, match=r"tensorflow, needed to convert, .* install 'edgeeff\[host\]'"):
        require_host()


def test_interrupting_the_whole_group_is_quiet(child: Callable[[str], None]) -> None:
    # Ctrl-C reaches the child as well; what Python prints of it goes to the log.
    child("send(stage='one'); os.kill(os.getppid(), signal.SIGINT); time.sleep(60)")
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trace()
    finally:
        signal.signal(signal.SIGINT, before)
    assert children() == []
