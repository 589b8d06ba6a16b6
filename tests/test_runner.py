"""The file that is copied to a board: what it imports, what it says, and when it stops."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeeff.devices import runner

SOURCE = Path(runner.__file__).read_text(encoding="utf-8")
SHORT = {"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05}

FAKE_RUNTIME = """
import profile  # Python's own, not the module that lies beside the runner
assert hasattr(profile, "Profile"), profile.__file__
import numpy

class Interpreter:
    def __init__(self, model_path, num_threads):
        self.dtype = numpy.dtype({dtype!r}).type
    def allocate_tensors(self):
        pass
    def get_input_details(self):
        return [{{"index": 7, "dtype": self.dtype, "shape": numpy.array([1, 32, 32, 3])}}]
    def set_tensor(self, index, value):
        assert index == 7 and value.dtype == self.dtype and value.shape == (1, 32, 32, 3)
        low, high = {range}
        assert value.min() == low and value.max() == high, (value.min(), value.max())
    def invoke(self):
        pass
"""


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, runner.__file__, *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, env=inherited | (environment or {}), capture_output=True, text=True, timeout=60, check=False
    )


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only a fake interpreter moves."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)
    return now


class Steps:
    """An interpreter whose runs take the given times, the last one for ever after."""

    def __init__(self, clock: list[float], times: list[float]) -> None:
        self.clock, self.times, self.runs = clock, times, 0

    def invoke(self) -> None:
        self.clock[0] += self.times[min(self.runs, len(self.times) - 1)]
        self.runs += 1


# --- What a board needs -----------------------------------------------------------------------------------------------


def test_it_is_python_3_9() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 9))
    # Annotations are not evaluated, so that newer spellings in them do no harm.
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_only_the_standard_library_is_imported_at_the_top() -> None:
    imported = set()
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    assert imported == {"__future__", "json", "os", "resource", "sys", "time", "typing"}


def test_nothing_of_edgeeff_is_imported_anywhere() -> None:
    names = {
        name
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not {name for name in names if name.split(".")[0] in {"edgeeff", "devices"}}


# --- What it says -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said(tiny_float_tflite: Path) -> list[dict[str, Any]]:
    """What a real run of the tiny classifier says."""
    finished = run(json.dumps(SHORT | {"model": str(tiny_float_tflite)}))
    assert finished.returncode == 0, finished.stderr
    return events(finished.stdout)


def test_a_run_tells_its_story_in_order(said: list[dict[str, Any]]) -> None:
    story = [event["event"] for event in said]
    stretches = story.count("latencies")
    assert stretches >= 1
    assert story == ["imported", "loaded", "first", "warm", *["latencies"] * stretches, "done"]


def test_the_figures_of_a_run_make_sense(said: list[dict[str, Any]]) -> None:
    imported, loaded, first, warm, *stretches, done = said
    assert imported["runtime"] == "ai-edge-litert"
    assert imported["version"].startswith("2.")
    assert imported["import_s"] > 0
    assert loaded["load_s"] > 0
    assert 0 < first["first_inference_s"] < 1
    assert warm["runs"] >= SHORT["warmup_runs"]
    latencies = [value for stretch in stretches for value in stretch["latencies_s"]]
    assert len(latencies) >= SHORT["runs"]
    assert all(0 < value < 1 for value in latencies)
    assert SHORT["duration_s"] <= done["wall_s"] < 1
    assert sum(latencies) <= done["wall_s"]
    assert 0 < done["cpu_s"] < 1
    # NumPy and LiteRT take tens of megabytes; what a process holds in the end is at most what it ever held.
    assert 10e6 < imported["rss_bytes"] <= loaded["rss_bytes"] <= done["peak_rss_bytes"] < 2e9


@pytest.mark.parametrize(("dtype", "span"), [("uint8", (0, 255)), ("int8", (-128, 127)), ("float32", (0, 255))])
def test_another_runtime_gets_pixels_of_the_type_it_wants(tmp_path: Path, dtype: str, span: tuple[int, int]) -> None:
    for package, code in (
        ("ai_edge_litert", "raise ImportError('libc is too old')"),
        ("tflite_runtime", FAKE_RUNTIME.format(dtype=dtype, range=span)),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "interpreter.py").write_text(code, encoding="utf-8")
        (tmp_path / package / "__init__.py").touch()
    finished = run(json.dumps(SHORT | {"model": "x", "duration_s": 0.0}), environment={"PYTHONPATH": str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    imported = events(finished.stdout)[0]
    assert imported["runtime"] == "tflite-runtime"
    assert imported["version"] == "unknown"  # no metadata lie beside this fake


# --- What goes wrong --------------------------------------------------------------------------------------------------


def failure(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    return finished.stderr.strip().splitlines()[-1]


def test_without_an_argument_it_says_how_it_is_used() -> None:
    finished = run()
    assert finished.returncode == 1
    assert """python runner.py '{"model": """ in finished.stderr


def test_an_argument_that_is_no_json_is_named() -> None:
    assert failure(run("b2.tflite")).startswith("JSONDecodeError: ")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.tflite")
    finished = run(json.dumps({"model": missing}))
    assert missing in failure(finished)
    assert [event["event"] for event in events(finished.stdout)] == ["imported"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("no model at all")
    assert failure(run(json.dumps({"model": str(tmp_path / "text.tflite")}))).startswith("ValueError: ")


def test_without_a_runtime_both_are_named(tmp_path: Path) -> None:
    for package in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise ImportError('no {package} today')", encoding="utf-8")
    said = failure(run(json.dumps({"model": "x"}), environment={"PYTHONPATH": str(tmp_path)}))
    assert "ai-edge-litert (no ai_edge_litert today)" in said
    assert "tflite-runtime (no tflite_runtime today)" in said
    assert said.endswith("python -m pip install ai-edge-litert")


# --- When it stops ----------------------------------------------------------------------------------------------------


def options(**changes: float) -> dict[str, Any]:
    return {**runner.DEFAULTS, **changes}


def test_warm_up_ends_when_two_windows_agree(clock: list[float]) -> None:
    interpreter = Steps(clock, [0.2] * 10 + [0.1])
    # 10 runs of 0.2 s reach the 2 s and, compared with the first, agree at once.
    assert runner.warm_up(interpreter, options()) == (10, True)


def test_warm_up_goes_on_while_latency_falls(clock: list[float]) -> None:
    falling = [0.4 * 0.97**run for run in range(60)] + [0.05]
    runs, stable = runner.warm_up(Steps(clock, falling), options())
    assert stable
    assert runs >= 60 + runner.WINDOW  # the medians of the last two windows are both those of the plateau


@pytest.mark.parametrize("limit", [1.0, 30.0])
def test_warm_up_gives_up_after_its_limit(clock: list[float], limit: float) -> None:
    growing = [0.1 * 1.05**run for run in range(200)]
    begin = clock[0]
    _, stable = runner.warm_up(Steps(clock, growing), options(warmup_limit_s=limit))
    assert not stable
    assert limit <= clock[0] - begin < limit * 1.2


def test_warm_up_takes_its_time_even_when_stable_at_once(clock: list[float]) -> None:
    assert runner.warm_up(Steps(clock, [0.03125]), options(warmup_s=2.0)) == (64, True)
    assert runner.warm_up(Steps(clock, [5.0]), options(warmup_runs=3)) == (3, True)


@pytest.mark.parametrize(
    ("latency", "runs", "duration", "expected"),
    [
        (0.125, 10, 10.0, 80),  # the time decides
        (0.125, 100, 2.0, 104),  # the count decides, to the end of its stretch
        (3.0, 4, 1.0, 4),  # slower than a stretch: one run each
        (0.03125, 1, 0.125, 4),  # shorter than a stretch
        (0.25, 3, 0.0, 3),
    ],
)
def test_measuring_lasts_as_long_as_asked(
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
    latency: float,
    runs: int,
    duration: float,
    expected: int,
) -> None:
    wall, cpu = runner.measure(Steps(clock, [latency]), options(runs=runs, duration_s=duration))
    stretches = [event["latencies_s"] for event in events(capsys.readouterr().out)]
    assert [len(stretch) for stretch in stretches] == [len(stretches[0])] * len(stretches)
    assert sum(map(len, stretches)) == expected
    assert {value for stretch in stretches for value in stretch} == {latency}
    assert (wall, cpu) == (expected * latency, expected * latency / 2)


@pytest.mark.parametrize(("values", "expected"), [([3.0], 3.0), ([3.0, 1.0], 2.0), ([9.0, 1.0, 2.0], 2.0)])
def test_median(values: list[float], expected: float) -> None:
    assert runner.median(values) == expected


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(runner, "open", missing, raising=False)
    yield


@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_peak_is_still_known() -> None:
    assert runner.resident() == 0
    assert runner.peak_resident() > 10e6


def test_memory_is_that_of_this_process() -> None:
    before = runner.resident()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert runner.resident() - before > 48 << 20
    assert runner.peak_resident() >= runner.resident() - (1 << 20)
