"""`edgeeff convert` as people run it: a process of its own, its streams, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from edgeeff import results
from edgeeff.converters import metadata
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session
from tests import tiny

OLD = b"the old file"


def command(*arguments: str | Path) -> list[str]:
    # Like the installed script, and unlike `python -c` on its own, it does not look for modules in the working folder.
    code = "import sys; sys.path.remove(''); from edgeeff.cli import main; main(prog_name='edgeeff')"
    return [sys.executable, "-c", code, *map(str, arguments)]


def edgeeff(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # So wide that nothing that is looked for is broken over two lines.
    env = os.environ | {"COLUMNS": "1000"} | environment
    return subprocess.run(
        command(*arguments), cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=120, check=False
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def running(*words: str) -> list[int]:
    """Processes with all these words on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        if all(word in line for word in words) and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a function returns something true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a model, photographs and labels, and nothing else."""
    return furnish(tmp_path / "desk")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A desk with much on it that cannot be used, and with an old file."""
    desk = furnish(tmp_path_factory.mktemp("crowded") / "desk")
    made = edgeeff("convert", "--model", "tiny.tflite", "--samples", "4", "-o", "quantized.tflite", cwd=desk)
    assert made.returncode == 0, made.stderr
    (desk / "made.tflite").write_bytes(OLD)
    (desk / "cut.tflite").write_bytes(tiny.classifier()[:500])
    (desk / "raw.tflite").write_bytes(tiny.classifier(preprocessing=()))
    (desk / "three.txt").write_text("a\nb\nc\n")
    (desk / "none").mkdir()
    shutil.copytree(desk / "photos" / "a", desk / "one" / "a")
    shutil.copytree(desk / "photos", desk / "mixed")
    (desk / "mixed" / "b" / "notes.png").write_text("no image")
    return desk


def furnish(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    (folder / "tiny.tflite").write_bytes(tiny.classifier())
    for index, pixels in enumerate(tiny.images(24, size=12)):
        file = folder / "photos" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (folder / "names.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return folder


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small .keras file."""
    keras = pytest.importorskip("keras", reason="needs Keras; install the extra host")
    layers = keras.layers
    pixels = layers.Input((24, 24, 3))
    features = layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    features = layers.Activation("swish")(layers.BatchNormalization()(features))
    scores = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(features))
    path = tmp_path_factory.mktemp("keras") / "flowers.keras"
    keras.Model(pixels, scores).save(path)
    return path


# --- What is printed --------------------------------------------------------------------------------------------------


def test_json_is_one_document_the_record_beside_the_file(desk: Path) -> None:
    done = edgeeff("convert", "--model", "tiny.tflite", "--samples", "8", "--json", cwd=desk)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)  # fails when anything stands before or behind it
    assert record["schema"] == "edgeeff/conversion"
    assert record["model"]["path"] == "tiny_int8.tflite"
    assert (desk / "tiny_int8.json").read_text(encoding="utf-8") == done.stdout
    assert isinstance(results.read_record(desk / "tiny_int8.json"), results.ConversionRecord)
    assert any("synthetic" in warning for warning in record["warnings"])


def test_people_see_what_was_made_and_are_warned(desk: Path) -> None:
    done = edgeeff(
        "convert", "--model", "tiny.tflite", "--samples", "8", "--scheme", "int16x8", "--output-type", "int8", cwd=desk
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = " ".join(done.stdout.split())
    assert "file tiny_int16x8.tflite, 0.0 MB" in shown
    assert "input 8 x 8 RGB, float32, pixels 0..255" in shown
    assert "output 5 classes, softmax, int8" in shown
    assert "calibration 8 images made by edgeeff, min/max, seed 0" in shown
    assert "agrees with float" in shown
    assert "warning: int16x8: 16-bit activations keep accuracy, but no CPU kernel is fast" in shown
    assert "warning: calibrated with 8 synthetic images made by edgeeff" in shown
    assert "warning: MediaPipe's ImageClassifier refuses an int8 output" in shown
    assert done.stdout.rstrip().endswith("next: edgeeff inspect tiny_int16x8.tflite")


def test_photographs_and_labels_are_used(desk: Path) -> None:
    options = ["--calibration", "photos", "--samples", "8", "--labels", "names.txt", "--seed", "3", "--logits"]
    done = edgeeff("convert", "--model", "tiny.tflite", *options, "--output", "made.tflite", "--json", cwd=desk)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert record["output"] == "logits"
    assert [warning.partition(":")[0] for warning in record["warnings"]] == ["few-images"]
    assert record["calibration"]["folder"] == "photos"
    assert (record["calibration"]["seed"], len(record["calibration"]["images"])) == (3, 8)
    embedded = metadata.read((desk / "made.tflite").read_bytes())
    assert embedded is not None
    assert embedded.labels == ("one", "two", "three", "four", "five")


def test_a_float_file_converts_again_and_inspect_reads_the_result(desk: Path) -> None:
    first = edgeeff("convert", "--model", "tiny.tflite", "--scheme", "float32", "--labels", "names.txt", cwd=desk)
    assert first.returncode == 0, first.stderr
    again = edgeeff("convert", "--model", "tiny_float32.tflite", "--samples", "8", "-o", "small.tflite", cwd=desk)
    assert again.returncode == 0, again.stderr
    seen = edgeeff("inspect", "small.tflite", "--json", cwd=desk)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert json.loads(seen.stdout)["model"]["path"] == "small.tflite"
    assert "QUANTIZE" in edgeeff("inspect", "small.tflite", cwd=desk).stdout


def test_markup_in_names_is_printed_as_it_is(desk: Path) -> None:
    (desk / "[bold]tiny[red].tflite").write_bytes(tiny.classifier())
    done = edgeeff("convert", "--model", "[bold]tiny[red].tflite", "--samples", "8", cwd=desk)
    assert done.returncode == 0, done.stderr
    assert "file  [bold]tiny[red]_int8.tflite, " in done.stdout.replace("file           ", "file  ")
    assert "next: edgeeff inspect [bold]tiny[red]_int8.tflite" in done.stdout


# --- Keras and networks of our own ------------------------------------------------------------------------------------


def test_a_keras_file_whatever_is_in_the_folder_and_the_environment(desk: Path, keras_model: Path) -> None:
    shutil.copy(keras_model, desk)
    for name in ("random", "json", "keras", "numpy"):
        (desk / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    environment = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "LC_ALL": "C"}
    done = edgeeff("convert", "--model", "flowers.keras", "--samples", "8", "--json", cwd=desk, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert (record["classes"], record["resolution"], record["output"]) == (4, [24, 24], "softmax")
    assert record["packages"].keys() >= {"tensorflow", "keras"}
    assert Session((desk / "flowers_int8.tflite").read_bytes()).input.dtype == "uint8"


def test_a_small_network_the_same_every_time(tmp_path: Path) -> None:
    """The whole way of a phi, twice, with other hashes of strings."""
    pytest.importorskip("keras", reason="needs Keras; install the extra host")
    options = ["--phi", "-3", "--classes", "10", "--resolution", "64", "--weights", "none", "--samples", "8", "--json"]
    made = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        done = edgeeff("convert", *options, cwd=tmp_path / number, PYTHONHASHSEED=number)
        assert (done.returncode, done.stderr) == (0, "")
        made.append(tmp_path / number / "phi-3_int8.tflite")
    assert made[0].read_bytes() == made[1].read_bytes()
    record = results.read_record(made[0].with_suffix(".json"))
    assert isinstance(record, results.ConversionRecord)
    assert (record.source, record.weights, record.classes, record.resolution) == ("phi-3", "none", 10, (64, 64))
    assert all(check.passed for check in record.checks)
    assert record.agreement.correlation > 0.8


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--variant", "lit0"], "unknown variant 'lit0': did you mean lite0"),
        (["--variant", "lite0", "--scheme", "int9"], "unknown scheme 'int9': did you mean int8"),
        (["--variant", "lite0", "--phi", "1"], "exactly one of --variant NAME, --phi NUMBER or --model PATH"),
        ([], "exactly one of --variant NAME, --phi NUMBER or --model PATH"),
        (["--variant", "lite0", "--classes", "1"], "a classifier has at least 2 classes, not 1"),
        (["--phi", "9"], "phi 9"),
        (["--model", "nowhere.keras"], "cannot read the model nowhere.keras: there is no such file or folder"),
        (["--model", "names.txt"], "cannot tell what names.txt is by its name"),
        (["--model", "cut.tflite"], "damaged"),
        (["--model", "quantized.tflite"], "it is quantized already; give the float model"),
        (["--model", "raw.tflite"], "say what black and white are for it, for example --input-range 0,255"),
        (["--model", "tiny.tflite", "--input-range", "0,1"], "its input is not 0..255"),
        (["--model", "tiny.tflite", "--input-range", "1,0"], "black comes first"),
        (
            ["--model", "tiny.tflite", "--scheme", "mixed"],
            "needs a goal: give --min-agreement PERCENT, --max-drop POINTS",
        ),
        (["--model", "tiny.tflite", "--min-agreement", "0.98"], "is no percentage from 1 to 100; for example"),
        (["--model", "tiny.tflite", "--max-latency", "12"], "has no unit; write 0.55 or 12ms"),
        (["--model", "tiny.tflite", "--max-drop", "-1"], "-1.0 is not in the range 0<=x<=100"),
        (["--model", "tiny.tflite", "--scheme", "int8", "--max-drop", "1"], "has no precisions to mix for a goal"),
        (["--model", "tiny.tflite", "--target", "local"], "--target is where the latencies for a goal are measured"),
        (["--model", "tiny.tflite", "--max-drop", "1", "--target", "coral-dev-board"], "Edge TPU (PCIe), which runs"),
        (["--model", "tiny.tflite", "--max-drop", "1", "--samples", "4"], "mixed precision needs a network of blocks"),
        (["--model", "tiny.tflite", "--samples", "0"], "0 is not in the range x>=1"),
        (["--model", "tiny.tflite", "--threads", "0"], "0 is not in the range x>=1"),
        (["--model", "tiny.tflite", "--labels", "three.txt"], "have 3 names, the model has 5 classes"),
        (["--model", "tiny.tflite", "--labels", "nowhere.txt"], "cannot read the labels nowhere.txt"),
        (["--model", "tiny.tflite", "--calibration", "nowhere"], "there is no folder nowhere"),
        (["--model", "tiny.tflite", "--calibration", "none"], "no image in none"),
        (["--model", "tiny.tflite", "--calibration", "one"], "images of one class only (a)"),
        (["--model", "tiny.tflite", "--calibration", "mixed"], "notes.png is no image that can be read"),
        (
            ["--model", "tiny.tflite", "-o", "nowhere/x.tflite"],
            "cannot write nowhere/x.tflite: the folder does not exist",
        ),
        (["--model", "tiny.tflite", "-o", "photos"], "--output photos does not end in .tflite"),
        (["--model", "tiny.tflite", "-o", "tiny.tflite"], "is the model itself"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(crowded: Path, options: list[str], words: str) -> None:
    before = tree(crowded)
    output = [] if "-o" in options else ["-o", "made.tflite"]
    done = edgeeff("convert", *options, *output, cwd=crowded)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert tree(crowded) == before


def test_a_file_that_cannot_be_verified_is_exit_code_1(desk: Path) -> None:
    graph = Graph(tiny.classifier())
    (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    weights = graph.model.buffers[graph.tensor(int(dense.inputs[1])).buffer]
    weights.data = np.zeros(len(weights.data), np.uint8)
    (desk / "untrained.tflite").write_bytes(graph.content())
    before = tree(desk)
    done = edgeeff("convert", "--model", "untrained.tflite", "--scheme", "float16", cwd=desk)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not pass verification and was not written: outputs differ: every probe image" in done.stderr
    assert tree(desk) == before


def test_a_goal_that_cannot_be_met_is_exit_code_1_and_the_closest_file_is_there(desk: Path) -> None:
    (desk / "gated.tflite").write_bytes(tiny.swish_classifier())
    options = ["--samples", "8", "--min-agreement", "99", "--max-latency", "0.01", "--json"]
    done = edgeeff("convert", "--model", "gated.tflite", *options, cwd=desk)
    assert done.returncode == 1
    assert "reaches an agreement of 99 % with 0.01 of float's time; the closest, which was kept: agree" in done.stderr
    record = json.loads(done.stdout)
    assert record["mixed"]["goal"]["min_agreement"] == 0.99
    assert record["mixed"]["met"] is False
    assert record["mixed"]["shortfall"] in done.stderr
    assert sum(point["chosen"] for point in record["mixed"]["points"]) == 1
    assert (desk / "gated_mixed.tflite").stat().st_size == record["model"]["size_bytes"]
    assert Session((desk / "gated_mixed.tflite").read_bytes()).input.dtype == "uint8"


def test_without_the_host_extra_the_install_command_is_named(desk: Path) -> None:
    before = tree(desk)
    blocked = "import sys; sys.modules['tensorflow'] = None; from edgeeff.cli import main; main(prog_name='edgeeff')"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "convert", "--variant", "lite0"],
        cwd=desk,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert "tensorflow, needed to convert, is not installed" in done.stderr
    assert "python -m pip install 'edgeeff[host]'" in done.stderr
    assert tree(desk) == before


def may_mount() -> bool:
    """Say whether this process has the capability to mount (CAP_SYS_ADMIN), which root in a container may lack."""
    (effective,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(int(effective, 16) >> 21 & 1)


def test_a_full_disk_leaves_the_old_file_and_its_record(desk: Path) -> None:
    place = desk / "full"
    place.mkdir()
    size = "size=16k"  # room for the record, not for the model
    if not may_mount():
        pytest.skip("needs to mount a small file system, which only root may; test_convert has the same without")
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True, check=True)
    try:
        (place / "made.tflite").write_bytes(OLD)
        (place / "made.json").write_text('{"schema": "edgeeff/conversion"}')
        (desk / "large.tflite").write_bytes(tiny.classifier(classes=3000))
        before = tree(place)
        done = edgeeff("convert", "--model", "large.tflite", "--samples", "4", "-o", "full/made.tflite", cwd=desk)
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot write full/made.tflite: no space is left there; free some or choose another" in done.stderr
        assert tree(place) == before
    finally:
        subprocess.run(["umount", place], check=True)


# --- Interruptions ----------------------------------------------------------------------------------------------------

MARK = "edgeeff.converters.trace"
"""On the command line of the process that runs TensorFlow."""


@contextmanager
def at_a_terminal(stage: str, *arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose standard error is a terminal, and hand it over when that shows `stage`."""
    temporary = cwd.parent / "temporary"
    temporary.mkdir()
    here, there = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=os.environ | {"TMPDIR": str(temporary), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=there,
        encoding="utf-8",
        start_new_session=True,
    )
    os.close(there)
    shown = b""
    drain = threading.Event()

    def read() -> None:
        nonlocal shown
        with suppress(OSError):  # the terminal is closed
            while piece := os.read(here, 4096):
                shown += piece
        drain.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_for(lambda: stage.encode() in shown)
        yield process
    finally:
        process.kill()
        process.wait()
        assert drain.wait(30)
        reader.join()
        os.close(here)
    assert list(temporary.iterdir()) == []


def send(process: subprocess.Popen[str], number: signal.Signals, *, group: bool) -> tuple[int, str]:
    """Send a signal, to the process alone or as a terminal does; return the exit status and what was printed."""
    (os.killpg if group else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["as Ctrl-C does", "as kill does"]
)
def test_an_interruption_while_tensorflow_runs(
    desk: Path, keras_model: Path, number: signal.Signals, group: bool
) -> None:
    (desk / "made.tflite").write_bytes(OLD)
    before = tree(desk)
    options = ["convert", "--model", str(keras_model), "--samples", "8", "-o", "made.tflite", "--json"]
    with at_a_terminal("start TensorFlow", *options, cwd=desk) as process:
        wait_for(lambda: running(MARK, str(keras_model)))
        assert send(process, number, group=group) == (130, "")
        assert running(MARK, str(keras_model)) == []
    assert tree(desk) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_while_calibrating(desk: Path, number: signal.Signals) -> None:
    (desk / "made.tflite").write_bytes(OLD)
    before = tree(desk)
    options = ["convert", "--model", "tiny.tflite", "--samples", "1000000", "-o", "made.tflite", "--json"]
    with at_a_terminal("calibrate with 1000000 synthetic images", *options, cwd=desk) as process:
        assert send(process, number, group=False) == (130, "")
    assert tree(desk) == before


def test_a_tensorflow_process_that_is_killed_is_told(desk: Path, keras_model: Path) -> None:
    (desk / "made.tflite").write_bytes(OLD)
    before = tree(desk)
    process = subprocess.Popen(
        command("convert", "--model", keras_model, "-o", "made.tflite"),
        cwd=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_for(lambda: running(MARK, str(keras_model)))
    (child,) = running(MARK, str(keras_model))
    os.kill(child, signal.SIGKILL)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert error.startswith("edgeeff: the TensorFlow process was killed, most likely for want of memory")
    assert len(error.splitlines()) == 1
    assert tree(desk) == before


def test_tensorflow_ends_with_whoever_started_it(desk: Path, keras_model: Path) -> None:
    process = subprocess.Popen(
        command("convert", "--model", keras_model), cwd=desk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: running(MARK, str(keras_model)))
    (child,) = running(MARK, str(keras_model))
    # It asks for this when Python has started, before TensorFlow: give it that time.
    wait_for(lambda: "tensorflow" in Path(f"/proc/{child}/maps").read_text())
    process.kill()
    process.wait()
    wait_for(lambda: running(MARK, str(keras_model)) == [], seconds=10)
