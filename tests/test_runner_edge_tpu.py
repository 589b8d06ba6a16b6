"""The Edge TPU on a board: what opens it, what it is, and every way to fail as a message.

No device and no libedgetpu are involved: a runtime and a library stand in for them, and recorded trees for boards.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeeff.devices import figures, runner, validity
from edgeeff.devices.events import Event
from edgeeff.devices.figures import Run
from edgeeff.results import Device, ModelFile, ProfileRecord
from tests import board_trees as boards
from tests import edge_tpu_files as files
from tests.test_runner import SHORT, events, failure, options, packages, probe, run

SAYS = "BuildLabel(COMPILER=6.3.0 20170516,DATE=redacted,TIME=redacted), RuntimeVersion(14)"
MISSING = "libedgetpu.so.1: cannot open shared object file: No such file or directory"
LIBRARY: dict[str, Any] = {
    "package": "libedgetpu1-std",
    "version": "16.0",
    "path": "libedgetpu.so.1",
    "says": SAYS,
    "problem": None,
    "runtime": 14,
}

STAND_IN_LIBRARY = """
import ctypes, os, signal

class Library:
    def __init__(self, name):
        assert name == "libedgetpu.so.1"
        if os.environ["LIBRARY"] == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if os.environ["LIBRARY"] != "loads":
            raise OSError(os.environ["LIBRARY"])
        self.edgetpu_version = lambda: os.environ["SAYS"].encode()

ctypes.CDLL = Library
"""
"""As sitecustomize.py it is imported before the runner."""

STAND_IN_RUNTIME = """
import os, signal, time
import numpy

def load_delegate(name):
    assert name == "libedgetpu.so.1"
    if os.environ["FATE"] == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if os.environ["FATE"] == "does not open":
        raise ValueError("Failed to load delegate from libedgetpu.so.1\\n")
    return open(os.environ["NODE"])

class Interpreter:
    def __init__(self, model_path, num_threads, experimental_delegates):
        (self.device,) = experimental_delegates
        self.runs = 0
    def allocate_tensors(self):
        if os.environ["FATE"].startswith("Internal"):
            raise RuntimeError(os.environ["FATE"])
    def get_input_details(self):
        return [{"index": 0, "dtype": numpy.uint8, "shape": numpy.array([1, 8, 8, 3])}]
    def set_tensor(self, index, value):
        pass
    def invoke(self):
        if os.environ["FATE"] == "is unplugged":
            raise RuntimeError("Failed to invoke the Edge TPU")
        self.runs += 1
        time.sleep(0.05 if self.runs == 1 else 0.001)
    def _get_ops_details(self):
        names = ("edgetpu-custom-op", "SOFTMAX", "RESHAPE", "EdgeTpuDelegateForCustomOp")
        ends = (([0], [1]), ([1], [2]), ([2], [3]), ([0], [1]))
        return [{"op_name": name, "inputs": given, "outputs": made} for name, (given, made) in zip(names, ends)]
"""


class Bench:
    """A board with an Edge TPU, a compiled model, and the runner there with what stands in."""

    def __init__(self, folder: Path, make: Callable[[Path], boards.Board] = boards.coral_dev_board) -> None:
        self.board = make(folder / "board")
        self.model = folder / "m_edgetpu.tflite"
        self.model.write_bytes(files.compiled([files.Program(files.CACHING, 500)]))
        (folder / "packages").mkdir()
        (folder / "packages" / "sitecustomize.py").write_text(STAND_IN_LIBRARY)
        self.environment = packages(
            folder / "packages", ai_edge_litert="raise ImportError('none')", tflite_runtime=STAND_IN_RUNTIME
        )
        metadata = folder / "packages" / "tflite_runtime-2.14.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")

    def run(self, *, node: str = "/dev/apex_0", **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run the runner; in capitals it is said what the library and the runtime do."""
        doing = {name: changes.pop(name) for name in ("LIBRARY", "SAYS", "FATE") if name in changes}
        node = str(self.board.root) + node
        environment = {"LIBRARY": "loads", "SAYS": SAYS, "FATE": "", "NODE": node} | self.environment | doing
        asked = SHORT | {"model": str(self.model), "root": str(self.board.root), "delegate": "edgetpu"} | changes
        return run(json.dumps(asked), environment=environment)


def story(finished: subprocess.CompletedProcess[str]) -> list[Event]:
    assert finished.returncode == 0, finished.stderr
    return events(finished.stdout)


def record(said: list[Event]) -> ProfileRecord:
    return figures.record(
        [Run.of(said)],
        model=ModelFile("m_edgetpu.tflite", "ab" * 32, 5),
        threads=1,
        mode="quick",
        options={},
        target="coral",
        device=Device("board", "aarch64", "Linux", "Cortex-A53", 4),
        conditions=validity.Conditions(runs=5, delegate="edgetpu"),
    )


# --- When all is well -------------------------------------------------------------------------------------------------


def test_on_pcie_all_of_it_is_told(tmp_path: Path) -> None:
    said = story(Bench(tmp_path).run(edge_tpu_runtime=14))
    library, edge_tpu = (next(event for event in said if event["event"] == name) for name in LIBRARY_AND_LINK)
    assert library == {"event": "edge_tpu_library", **LIBRARY}
    assert (edge_tpu["bus"], edge_tpu["device"], edge_tpu["megabits_per_s"]) == ("pcie", "/dev/apex_0", 5000.0)
    order = [event["event"] for event in said if event["event"] != "state"]
    assert order[:5] == ["edge_tpu_library", "imported", "loaded", "first", "edge_tpu"]
    made = record(said)
    assert made.runtime is not None
    assert (made.runtime.name, made.runtime.version, made.runtime.delegate) == ("tflite-runtime", "2.14.0", "edgetpu")
    use = made.edge_tpu
    assert use is not None
    assert use.edge_tpu is not None
    assert (use.edge_tpu.bus, use.edge_tpu.megabits_per_s, use.edge_tpu.throttle_c) == ("pcie", 5000.0, 84.8)
    assert (use.library.package, use.library.version, use.library.runtime) == ("libedgetpu1-std", "16.0", 14)
    # The stand-in takes 50 ms for the first inference and 1 ms for those after it.
    assert made.first_inference_s >= 0.05
    assert 0.03 < use.parameter_upload_s < made.first_inference_s
    assert use.start_temperature_c == use.max_temperature_c == pytest.approx(43.8)
    assert made.verdict is not None
    assert not {reason.cause for reason in made.verdict.reasons} & {"partly-delegated", "slow-link", "starved"}


LIBRARY_AND_LINK = ("edge_tpu_library", "edge_tpu")


def test_usb_2_is_a_warning(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda root: boards.usb_edge_tpu(boards.pi4(root), initialized=True, megabits=480))
    made = record(story(bench.run(node="/dev/bus/usb/002/003")))
    assert made.edge_tpu is not None
    assert made.edge_tpu.edge_tpu is not None
    assert (made.edge_tpu.edge_tpu.bus, made.edge_tpu.edge_tpu.megabits_per_s) == ("usb", 480.0)
    assert made.edge_tpu.max_temperature_c is None  # USB does not tell it
    assert made.verdict is not None
    (slow,) = (reason for reason in made.verdict.reasons if reason.cause == "slow-link")
    assert not slow.invalidates
    assert "USB 2, not USB 3 (480 of 5000 Mbit/s)" in slow.text


def test_of_several_the_one_that_is_open_is_named(tmp_path: Path) -> None:
    board = boards.usb_edge_tpu(boards.coral_dev_board(tmp_path))
    tree = runner.Tree(str(board.root))
    assert runner.opened_edge_tpu(tree) is None
    for device in ("/dev/apex_0", "/dev/bus/usb/002/003"):
        with Path(tree.real(device)).open():
            found = runner.opened_edge_tpu(tree)
        assert found is not None
        assert found["device"] == device


def test_the_only_one_is_the_one_that_is_used(tmp_path: Path) -> None:
    found = runner.opened_edge_tpu(runner.Tree(str(boards.coral_dev_board(tmp_path).root)))
    assert found is not None
    assert found["device"] == "/dev/apex_0"
    assert runner.opened_edge_tpu(runner.Tree(str(boards.pi4(tmp_path / "pi4").root))) is None


# --- The library ------------------------------------------------------------------------------------------------------


def test_a_missing_library_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    error = failure(Bench(tmp_path).run(LIBRARY=MISSING))
    assert error["kind"] == "edgetpu-library"
    assert error["message"].startswith(f"the Edge TPU's library cannot be loaded: {MISSING}. Install it on the board: ")
    assert "sudo apt install libedgetpu1-std" in error["message"]


def test_a_library_that_crashes_takes_a_child_with_it_only(tmp_path: Path) -> None:
    error = failure(Bench(tmp_path).run(LIBRARY="crashes"))
    assert error["kind"] == "edgetpu-library"
    assert "loading it crashed with SIGSEGV. Install the one for this system" in error["message"]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("libusb-1.0.so.0: cannot open shared object file: No such file", "libusb-1.0.so.0, which it needs, is not"),
        ("/usr/lib/libedgetpu.so.1: wrong ELF class: ELFCLASS32", "wrong ELF class: ELFCLASS32. Install the one for"),
    ],
)
def test_what_else_keeps_a_library_from_loading(problem: str, words: str) -> None:
    assert words in runner.library_help(problem)


def test_a_real_library_is_loaded(tmp_path: Path) -> None:
    """The C library's mathematics stands in: a library without a version of its own."""
    ctypes.CDLL("libm.so.6")
    found = re.search(r"\S*/libm[.-]\S*$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    assert found is not None
    board = boards.coral_dev_board(tmp_path)
    shutil.copy(found[0], tmp_path / "usr/lib/aarch64-linux-gnu/libedgetpu.so.1")
    library = probe(board)["edge_tpu_library"]
    assert (library["path"], library["version"]) == ("/usr/lib/aarch64-linux-gnu/libedgetpu.so.1", "16.0")
    assert (library["says"], library["runtime"], library["problem"]) == (None, None, None)


@pytest.mark.parametrize(("says", "version"), [(SAYS, 14), ("BuildLabel(N/A), RuntimeVersion(9)", 9), ("new", None)])
def test_the_runtime_version_is_in_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, version: int | None
) -> None:
    monkeypatch.setattr(runner, "in_child", lambda work: (work(), None))
    monkeypatch.setattr(runner, "load_library", lambda name: {"path": name, "says": says, "problem": None})
    assert runner.try_library(runner.Tree(str(tmp_path)), "x")["runtime"] == version


def test_a_file_that_needs_a_newer_library_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    error = failure(Bench(tmp_path).run(edge_tpu_runtime=14, SAYS="BuildLabel(N/A), RuntimeVersion(13)"))
    assert error["kind"] == "edgetpu-runtime"
    assert "needs version 14 of the Edge TPU's runtime, the board's libedgetpu has version 13" in error["message"]
    assert error["message"].endswith("edgeeff compile --min-runtime 13")


def test_who_does_not_know_is_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(files.WHOLE)
    for needed, there in ((14, None), (None, 13), (13, 14)):
        monkeypatch.setattr(runner, "try_library", lambda tree, name, there=there: LIBRARY | {"runtime": there})
        asked = options(model=str(tmp_path / "m.tflite"), edge_tpu_runtime=needed)
        assert runner.ready_library(runner.Tree("/"), asked)["runtime"] == there


# --- The file ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_compiled_is_refused(tmp_path: Path, tiny_float_tflite: Path) -> None:
    error = failure(Bench(tmp_path).run(model=str(tiny_float_tflite)))
    assert error["kind"] == "edgetpu-model"
    assert error["message"].startswith(f"{tiny_float_tflite} is not compiled for the Edge TPU: nothing of it would run")
    assert error["message"].endswith("compile it first: edgeeff compile")


# --- The device -------------------------------------------------------------------------------------------------------


def test_a_device_that_does_not_open_is_told_with_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (bench.board.root / "dev/apex_0").unlink()
    error = failure(bench.run(FATE="does not open"))
    assert error["kind"] == "edgetpu-device"
    assert error["message"] == (
        "no Edge TPU can be opened (Failed to load delegate from libedgetpu.so.1): the one on PCIe is without its "
        "driver; install gasket-dkms on the board and restart it"
    )


USB = "/dev/bus/usb/002/003"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (boards.pi4, r"none is there, neither on USB \(1a6e:089a, 18d1:9302; lsusb\) nor on PCIe \(1ac1:089a; lspci\)"),
        (boards.coral_dev_board, "^/dev/apex_0 is there and does not answer; .* or restart the board$"),
        (lambda root: boards.usb_edge_tpu(boards.pi4(root)), f"^{USB} is there and .* or unplug it and plug it in ag"),
        (
            lambda root: boards.usb_edge_tpu(boards.pi4(root)).put("/sys/bus/usb/devices/2-1/busnum", "?"),
            r"the one on USB \(1a6e:089a\) does not answer",
        ),
        (lambda root: boards.usb_edge_tpu(boards.coral_dev_board(root)), f"^{USB} is there .*; /dev/apex_0 is there"),
        (
            lambda root: boards.usb_edge_tpu(boards.pi4(root)).put("/sys/bus/usb/devices/2-1/devnum", "9"),
            "^1a6e:089a is there, but its device file /dev/bus/usb/002/009 is not; a container has to",
        ),
    ],
)
def test_what_is_known_of_a_device_is_told(tmp_path: Path, make: Callable[[Path], boards.Board], words: str) -> None:
    assert re.search(words, runner.why_no_edge_tpu(runner.Tree(str(make(tmp_path).root))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (boards.coral_dev_board, "sudo usermod -aG apex $USER on the board, log in again"),
        (lambda root: boards.usb_edge_tpu(boards.pi4(root)), "plugdev $USER on the board, log in again, and plug it"),
    ],
)
def test_who_may_not_use_a_device_is_told_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], boards.Board], words: str
) -> None:
    tree = runner.Tree(str(make(tmp_path).root))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert words in runner.why_no_edge_tpu(tree)


def test_who_uses_a_device_is_named(tmp_path: Path) -> None:
    tree = runner.Tree(str(boards.coral_dev_board(tmp_path).root))
    code = f"import sys; file = open({tree.real('/dev/apex_0')!r}); print('open', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        told = runner.why_no_edge_tpu(tree)
        other.stdin.close()
    assert re.fullmatch(rf"/dev/apex_0 is in use by \S+ \(process {other.pid}\); end that", told)


def test_a_device_that_does_not_answer_ends_the_process() -> None:
    code = (
        "import time; from edgeeff.devices import runner; assert runner.or_end(5.0, lambda: 3) == 3; "
        "time.sleep(0.01); print('in time', flush=True); runner.or_end(0.1, lambda: time.sleep(20))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (finished.returncode, finished.stdout) == (-signal.SIGALRM, "in time\n")


def test_a_device_that_goes_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    error = failure(bench.run(FATE="is unplugged"))
    assert (error["kind"], error["message"]) == (
        "run",
        f"the runtime cannot run {bench.model}: Failed to invoke the Edge TPU",
    )


# --- Versions that do not fit -----------------------------------------------------------------------------------------


def test_a_crash_leaves_what_is_needed_to_explain_it(tmp_path: Path) -> None:
    finished = Bench(tmp_path).run(FATE="crashes")
    assert finished.returncode == -11
    told = {event["event"]: event for event in events(finished.stdout)}
    assert told["edge_tpu_library"]["version"] == "16.0"
    assert (told["imported"]["runtime"], told["imported"]["version"]) == ("tflite-runtime", "2.14.0")


UNSUPPORTED = (
    "Internal: Unsupported data type in custom op handler: 0Node number 1 (EdgeTpuDelegateForCustomOp) failed to "
    "prepare."
)
OLDER = (
    "Internal: :61 Failed precondition: Package requires runtime version (14), which is newer than this runtime "
    "version (13).Node number 5 (EdgeTpuDelegateForCustomOp) failed to prepare."
)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (UNSUPPORTED, "edgetpu-mismatch", "the Edge TPU cannot run x.tflite: RuntimeError: Internal: Unsupp.* names"),
        (OLDER, "edgetpu-runtime", "needs version 14 of the Edge TPU's runtime, the board's libedgetpu has version 13"),
    ],
)
def test_what_the_library_says_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: str, words: str
) -> None:
    def allocate() -> None:
        raise RuntimeError(said)

    monkeypatch.chdir(tmp_path)
    Path("x.tflite").write_bytes(files.WHOLE)
    module = SimpleNamespace(
        Interpreter=lambda **given: SimpleNamespace(allocate_tensors=allocate), load_delegate=lambda name: None
    )
    with pytest.raises(runner.Failure, match=words) as caught:
        asked = options(model="x.tflite", delegate="edgetpu")
        runner.load(module, "tflite-runtime", runner.Tree("/"), asked, "names")
    assert caught.value.kind == kind


def test_both_versions_are_named() -> None:
    words = runner.mismatch_help("tflite-runtime", "2.14.0", LIBRARY)
    assert words.startswith(
        "tflite-runtime 2.14.0 and libedgetpu 16.0 (libedgetpu1-std, runtime version 14, libedgetpu.so.1) may not fit"
    )
    unknown = LIBRARY | dict.fromkeys(("package", "version", "says", "runtime"))
    assert "libedgetpu of unknown version (libedgetpu.so.1)" in runner.mismatch_help("ai-edge-litert", "2.1.0", unknown)


def test_a_runtime_that_loads_no_delegates_says_so() -> None:
    with pytest.raises(runner.Failure, match="this runtime cannot load delegates"):
        runner.edge_tpu_delegate(SimpleNamespace(), runner.Tree("/"))


def test_a_library_that_is_no_delegate_is_told() -> None:
    def load_delegate(name: str) -> None:
        raise AttributeError("undefined symbol: tflite_plugin_create_delegate")

    with pytest.raises(runner.Failure, match=r"is not what runtimes load \(undefined symbol: tflite_plugin") as caught:
        runner.edge_tpu_delegate(SimpleNamespace(load_delegate=load_delegate), runner.Tree("/"))
    assert caught.value.kind == "edgetpu-library"
