"""The measuring protocol: fresh processes in turn, and what is made of what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeeff.devices import profile, runner
from edgeeff.devices.profile import FULL, QUICK, Protocol, measure
from edgeeff.errors import DeviceError, ModelError
from edgeeff.results import ModelFile, Runtime, read_record, this_device, to_json

SHORT = Protocol(
    "quick",
    processes=2,
    options={"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05},
)


class Processes:
    """Stand in for the measuring processes: every one says what `answer` makes of its options and number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer = answer
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], *, timeout: float, **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, runner.__file__]
        self.asked.append(json.loads(command[2]) | {"timeout": timeout})
        code, said, complained = self.answer(len(self.asked))
        return subprocess.CompletedProcess(command, code, said, complained)


def story(number: int) -> tuple[int, str, str]:
    """What process `number` says: its runs take `number` seconds."""
    lines = [
        {"event": "imported", "import_s": number, "runtime": "fake", "version": "1.0", "rss_bytes": 10 * number},
        {"event": "loaded", "load_s": 2 * number, "rss_bytes": 1},
        {"event": "first", "first_inference_s": 3 * number},
        {"event": "warm", "runs": 10, "stable": True},
        {"event": "latencies", "latencies_s": [number, number]},
        {"event": "latencies", "latencies_s": [number]},
        {"event": "done", "wall_s": 1.0, "cpu_s": 1.0, "peak_rss_bytes": 100 * number},
    ]
    return 0, "".join(json.dumps(line) + "\n" for line in lines), "INFO: Created a delegate\n"


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


# --- For real ---------------------------------------------------------------------------------------------------------


def test_a_model_is_measured_here(tiny_float_tflite: Path, tmp_path: Path) -> None:
    ticks: list[None] = []
    (record,) = measure([tiny_float_tflite], threads=2, protocol=SHORT, tick=lambda: ticks.append(None))
    assert len(ticks) == SHORT.processes
    assert record.model == ModelFile.of(tiny_float_tflite)
    assert record.device == this_device()
    assert record.runtime is not None
    assert record.runtime.name == "ai-edge-litert"
    assert (record.threads, record.mode) == (2, "quick")
    latency = record.latency
    assert latency.processes == SHORT.processes
    assert latency.runs >= SHORT.processes * SHORT.options["runs"]
    assert 0 < latency.min_s <= latency.interval_s[0] <= latency.p50_s <= latency.interval_s[1] < 0.1
    assert record.runtime_rss_bytes < record.peak_rss_bytes
    (tmp_path / "record.json").write_text(to_json(record), encoding="utf-8")
    assert read_record(tmp_path / "record.json") == record


def test_a_missing_model_is_a_readable_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.tflite"
    with pytest.raises(ModelError) as caught:
        measure([missing], protocol=SHORT)
    assert str(caught.value) == f"cannot read the model {missing}: No such file or directory"


# --- What is made of it -----------------------------------------------------------------------------------------------


def test_files_are_measured_in_turn_a_fresh_process_each(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(monkeypatch, story)
    first, second = measure(models, threads=3, protocol=SHORT)
    assert [asked["model"] for asked in processes.asked] == [str(path) for path in models] * 2
    assert all(asked["threads"] == 3 for asked in processes.asked)
    assert all(asked["duration_s"] == SHORT.options["duration_s"] for asked in processes.asked)
    assert (first.model.path, second.model.path) == tuple(str(path) for path in models)
    # The first file has processes 1 and 3, the second 2 and 4.
    assert first.runtime == Runtime("fake", "1.0")
    assert (first.latency.p50_s, first.latency.runs, first.latency.processes) == (2.0, 6, 2)
    assert (second.latency.p50_s, second.latency.min_s) == (3.0, 2.0)
    assert (second.import_s, second.load_s, second.first_inference_s) == (3.0, 6.0, 9.0)
    assert (second.peak_rss_bytes, second.runtime_rss_bytes) == (400, 30)


def test_a_process_that_hangs_is_stopped(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "START_LIMIT_S", 0.2)
    monkeypatch.setattr(profile, "SLOWEST_RUN_S", 0.0)
    hang = models[0].with_name("hang.py")
    hang.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(runner, "__file__", str(hang))
    with pytest.raises(DeviceError, match=r"measuring .*a\.tflite took longer than 0 s and was stopped"):
        measure(models, protocol=Protocol("quick", 1, {"warmup_limit_s": 0.0, "duration_s": 0.0}))


@pytest.mark.parametrize("protocol", [FULL, QUICK, SHORT])
def test_the_time_limit_leaves_room_for_the_slowest(protocol: Protocol) -> None:
    options = runner.DEFAULTS | protocol.options
    slowest = options["warmup_limit_s"] + max(options["duration_s"], options["runs"] * 5.0)  # 5 s each
    assert slowest < protocol.time_limit_s < 3600


@pytest.mark.parametrize(
    ("code", "complaint", "words"),
    [
        (1, "INFO: delegate\nRuntimeError: broken\n", "failed with status 1:\nINFO: delegate\nRuntimeError: broken"),
        (-11, "", "failed with SIGSEGV:"),
        (-9, "", "failed with SIGKILL:"),
        (1, "".join(f"line {number}\n" for number in range(100)), "failed with status 1:\nline 95\n"),
    ],
)
def test_a_process_that_fails_is_quoted(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, code: int, complaint: str, words: str
) -> None:
    Processes(monkeypatch, lambda _: (code, "", complaint))
    with pytest.raises(DeviceError) as caught:
        measure(models, protocol=SHORT)
    assert str(caught.value).startswith(f"measuring {models[0]} {words}")


def test_an_error_that_the_runner_names_is_raised_as_it_is(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"event": "error", "kind": "runtime", "message": "neither runtime can be imported"})
    Processes(monkeypatch, lambda _: (1, f"Welcome!\n{said}\n", "INFO: noise\n"))
    with pytest.raises(DeviceError, match=r"^neither runtime can be imported$"):
        measure(models, protocol=SHORT)


def test_figures_that_are_none_are_quoted(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Processes(monkeypatch, lambda _: (0, "Illegal something\n", ""))
    with pytest.raises(DeviceError, match="gave no figures but: Illegal something"):
        measure(models, protocol=SHORT)


def test_quick_is_quicker_than_full() -> None:
    assert QUICK.processes < FULL.processes
    assert set(QUICK.options) <= set(runner.DEFAULTS)
    assert all(QUICK.options[name] < runner.DEFAULTS[name] for name in QUICK.options)
