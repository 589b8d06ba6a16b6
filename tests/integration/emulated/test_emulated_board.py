"""The emulated board is what tests of devices take it for, and can be disturbed in the ways that they need."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.converters.graph import Graph
from tests.integration.emulated.board import BoardError, EmulatedBoard

pytestmark = pytest.mark.emulated

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
"""Photographs of things; of textures no two kernels see the same thing, for several classes are equally likely."""
VIEWS = 4
STEPS = 5
"""How far two runtimes' int8 logits may lie apart: kernels round in their own ways, and errors add up."""

BOOT_ID = ["cat", "/proc/sys/kernel/random/boot_id"]

# The same file runs there with tflite-runtime and here with LiteRT.
INFERENCE = """
import json, sys, time
import numpy
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
(taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
answers, seconds = [], []
for image in numpy.load(sys.argv[2]):
    pixels = (image ^ 0x80).view(numpy.int8) if taken["dtype"] == numpy.int8 else image
    interpreter.set_tensor(taken["index"], pixels[None])
    began = time.perf_counter()
    interpreter.invoke()
    seconds.append(time.perf_counter() - began)
    answers.append(interpreter.get_tensor(given["index"])[0].tolist())
print(json.dumps({"runtime": Interpreter.__module__, "answers": answers, "seconds": seconds}))
"""

# How many seconds pass per second of processor time.
BUSY = """
import time
began, ran = time.monotonic(), time.process_time()
while time.process_time() < ran + 0.5:
    pass
print((time.monotonic() - began) / (time.process_time() - ran))
"""


def test_ssh_opens_a_session_and_knows_the_host(emulated_board: EmulatedBoard) -> None:
    assert emulated_board.run(["sh", "-c", "id -un; hostname"]).stdout.split() == ["pi", "emulated-pi"]

    scan = ["ssh-keyscan", "-t", "ed25519", "-p", str(emulated_board.port), emulated_board.host]
    found = subprocess.run(scan, capture_output=True, text=True, timeout=60, check=True).stdout
    assert emulated_board.host_key in found
    show = ["ssh-keygen", "-l", "-f", "-"]
    shown = subprocess.run(show, input=found, capture_output=True, text=True, timeout=60, check=True).stdout
    assert emulated_board.fingerprint in shown


def test_arguments_arrive_as_they_are_and_a_failure_is_told(emulated_board: EmulatedBoard) -> None:
    words = ["a b", "$HOME", "it's", "*"]
    assert emulated_board.run(["printf", "%s\\n", *words]).stdout.splitlines() == words
    with pytest.raises(BoardError, match="status 3"):
        emulated_board.run(["sh", "-c", "exit 3"])


def test_it_says_what_it_is(emulated_board: EmulatedBoard) -> None:
    model = emulated_board.run(["cat", "/proc/device-tree/model"]).stdout
    assert model.startswith("Raspberry Pi 4")
    assert model.endswith("(emulated)\0")  # like on a real one, a NUL ends it
    assert "0xd08" in emulated_board.run(["cat", "/proc/cpuinfo"]).stdout  # Cortex-A72

    script = "import platform; print(platform.machine(), *platform.python_version_tuple()[:2], *platform.libc_ver())"
    assert emulated_board.run(["python3", "-c", script]).stdout.split() == ["aarch64", "3", "11", "glibc", "2.36"]


def test_it_reaches_no_network(emulated_board: EmulatedBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = ("10.0.2.2", listener.getsockname()[1])  # the way out that QEMU would offer to this machine
        script = f"import socket; socket.create_connection({address}, timeout=3)"
        refused = emulated_board.run(["python3", "-c", script], check=False)
    assert refused.returncode == 1
    assert "Error" in refused.stderr


def test_lite0_sees_there_what_it_sees_here(
    emulated_board: EmulatedBoard, board_python: str, lite0_int8: Path, tmp_path: Path
) -> None:
    script, images, model = tmp_path / "inference.py", tmp_path / "images.npy", tmp_path / "logits.tflite"
    script.write_text(INFERENCE, encoding="utf-8")
    np.save(images, _photographs(224))
    model.write_bytes(_logits(lite0_int8))
    emulated_board.send(script, images, model, to=".")

    there = _answer(emulated_board.run([board_python, script.name, model.name, images.name], limit_s=180).stdout)
    command = [sys.executable, str(script), str(model), str(images)]
    here = _answer(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)

    assert there["runtime"] == "tflite_runtime.interpreter"
    assert here["runtime"] == "ai_edge_litert.interpreter"
    logits_there, logits_here = np.array(there["answers"]), np.array(here["answers"])
    apart = int(np.abs(logits_there - logits_here).max())
    print(f"emulated, so no board's: {np.median(there['seconds']):.2f} s per inference; {apart} steps apart at most")
    assert logits_there.shape == logits_here.shape == (VIEWS * len(PHOTOGRAPHS), 1000)
    assert np.issubdtype(logits_here.dtype, np.integer)
    assert np.ptp(logits_here) > 10 * STEPS
    np.testing.assert_allclose(logits_there, logits_here, atol=STEPS)
    # Where two classes are equally likely here, in whole steps, either may come first there.
    best = logits_here.max(axis=1)
    chosen = logits_here[np.arange(len(best)), logits_there.argmax(axis=1)]
    np.testing.assert_array_equal(chosen, best)


def test_its_processor_can_be_limited(emulated_board: EmulatedBoard) -> None:
    busy = ["python3", "-c", BUSY]
    assert float(emulated_board.run(busy).stdout) < 1.5
    with emulated_board.limited_cpu(0.25):
        assert float(emulated_board.run(busy).stdout) > 2.5
    assert float(emulated_board.run(busy).stdout) < 1.5


def test_a_frozen_board_does_not_answer(emulated_board: EmulatedBoard) -> None:
    with emulated_board.frozen(), pytest.raises(BoardError, match="did not end within 2 s"):
        emulated_board.run(["true"], limit_s=2)
    assert emulated_board.run(["echo", "back"]).stdout == "back\n"


def test_a_power_cut_ends_what_runs_and_keeps_what_was_stored(emulated_board: EmulatedBoard) -> None:
    port, boot = emulated_board.port, emulated_board.run(BOOT_ID).stdout
    emulated_board.run(["sh", "-c", "echo stored > stored; sync"])
    command = emulated_board.ssh(["sh", "-c", "echo begun; exec sleep 600"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        emulated_board.kill()
        assert running.wait(30) == 255  # what ssh says of a lost connection
    assert not emulated_board.running
    with pytest.raises(BoardError, match="status 255"):
        emulated_board.run(["true"])

    emulated_board.restart()
    assert emulated_board.port == port
    assert emulated_board.run(["cat", "stored"]).stdout == "stored\n"
    assert emulated_board.run(BOOT_ID).stdout != boot


def _answer(output: str) -> dict[str, Any]:
    """What the script printed, whose last line it is: runtimes have their own words to say before it."""
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _logits(path: Path) -> bytes:
    """The file cut off before it leaves int8, so that its logits can be compared step by step."""
    graph = Graph(path.read_bytes())
    softmax = graph.producer(graph.outputs[0])
    assert softmax is not None
    dequantize = graph.producer(int(softmax.inputs[0]))
    assert dequantize is not None
    assert (graph.kind(softmax), graph.kind(dequantize)) == ("SOFTMAX", "DEQUANTIZE")
    graph.set_output(int(dequantize.inputs[0]))
    graph.remove(softmax)
    graph.remove(dequantize)
    graph.model.metadata = []
    graph.tidy()
    return graph.content()


def _photographs(size: int) -> npt.NDArray[np.uint8]:
    """Photographs that a package ships, each whole, mirrored, and both of its middle, as squares."""
    from PIL import Image, ImageOps

    spec = importlib.util.find_spec("skimage")  # the package itself is not imported
    assert spec is not None
    assert spec.submodule_search_locations
    found = []
    for name in PHOTOGRAPHS:
        (path,) = Path(spec.submodule_search_locations[0], "data").glob(f"{name}.*")
        with Image.open(path) as opened:
            photograph = opened.convert("RGB")
        width, height = photograph.size
        middle = photograph.crop((width // 10, height // 10, width - width // 10, height - height // 10))
        for view in (photograph, ImageOps.mirror(photograph), middle, ImageOps.mirror(middle)):
            found.append(np.asarray(ImageOps.fit(view, (size, size))))
    return np.stack(found)
