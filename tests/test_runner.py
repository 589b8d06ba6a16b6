"""The file that is copied to a board: what it imports, what it reads, what it says, and when it stops."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeeff.devices import runner
from edgeeff.devices.score import packed
from tests import board_trees as boards
from tests import tiny

SOURCE = Path(runner.__file__).read_text(encoding="utf-8")
SHORT = {"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05}

FAKE_RUNTIME = """
import profile  # Python's own, not the module that lies beside the runner
assert hasattr(profile, "Profile"), profile.__file__
import numpy, os

class Interpreter:
    def __init__(self, model_path, num_threads):
        self.dtype = numpy.dtype({dtype!r}).type
        os.write(1, b"what a library prints")
    def allocate_tensors(self):
        {allocate}
    def get_input_details(self):
        return [{{"index": 7, "dtype": self.dtype, "shape": numpy.array([1, 32, 32, 3])}}]
    def set_tensor(self, index, value):
        assert index == 7 and value.dtype == self.dtype and value.shape == (1, 32, 32, 3)
        low, high = {range}
        assert value.min() == low and value.max() == high, (value.min(), value.max())
    def invoke(self):
        sum(range(2000))
"""


def run(
    *arguments: str, environment: dict[str, str] | None = None, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, runner.__file__, *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, env=inherited | (environment or {}), capture_output=True, text=True, timeout=60, check=False
    )


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def failure(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The error event that a failed run ends with."""
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    last = events(finished.stdout)[-1]
    assert list(last) == ["event", "kind", "message"]
    assert last["event"] == "error"
    return last


def probe(board: boards.Board) -> dict[str, Any]:
    """What a Python without any package finds there: no runtime, and quickly."""
    finished = run(json.dumps({"mode": "probe", "root": str(board.root)}), python=("-S", "-E"))
    assert finished.returncode == 0, finished.stderr
    (event,) = events(finished.stdout)
    return event


def options(**changes: Any) -> dict[str, Any]:
    return {**runner.DEFAULTS, **changes}


def packages(folder: Path, **codes: str) -> dict[str, str]:
    """Packages of the given names with that code as their interpreter; an environment that finds them first."""
    for name, code in codes.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "interpreter.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def fake_runtime(dtype: str = "uint8", span: tuple[int, int] = (0, 255), allocate: str = "pass") -> str:
    return FAKE_RUNTIME.format(dtype=dtype, range=span, allocate=allocate)


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


class Samples:
    """Where the runner takes a sample of the board's state, and how long that takes."""

    def __init__(self, clock: list[float] | None = None, seconds: float = 0.0) -> None:
        self.clock, self.seconds, self.phases = clock, seconds, list[str]()

    def __call__(self, phase: str) -> None:
        self.phases.append(phase)
        if self.clock is not None:
            self.clock[0] += self.seconds


# --- What a board needs -----------------------------------------------------------------------------------------------


def test_old_pythons_can_read_it() -> None:
    ast.parse(SOURCE, feature_version=(3, 6))
    # Annotations are evaluated, for the import that would stop it is itself too new: no `int | None` in them.
    annotations = [
        annotation
        for node in ast.walk(ast.parse(SOURCE))
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
    ]
    assert annotations
    assert not [node for part in annotations for node in ast.walk(part) if isinstance(node, ast.BinOp)]


@pytest.mark.parametrize("version", ["3.6.15", "3.7.3", "3.8.18"])
def test_an_old_python_is_told_so(version: str) -> None:
    info = (*map(int, version.split(".")), "final", 0)
    pretend = (
        f"import sys; sys.version_info = {info}; sys.version = '{version} (default)'; "
        f"exec(compile(open({runner.__file__!r}).read(), 'runner.py', 'exec'), {{'__name__': '__main__'}})"
    )
    finished = subprocess.run(
        [sys.executable, "-c", pretend, '{"mode": "probe"}'], capture_output=True, text=True, timeout=30, check=False
    )
    error = failure(finished)
    assert error["kind"] == "python"
    assert error["message"] == (f"edgeeff needs Python 3.9 or later on the board; {sys.executable} is Python {version}")


def test_only_the_standard_library_is_imported_at_the_top() -> None:
    imported = set()
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    assert imported - {"collections.abc"} <= set(sys.stdlib_module_names)


def test_what_is_imported_elsewhere_is_known() -> None:
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert names - set(sys.stdlib_module_names) == {"numpy", "PIL", "ai_edge_litert", "tflite_runtime"}


# --- What it reads ----------------------------------------------------------------------------------------------------


def test_hello_says_which_python_answers() -> None:
    (event,) = events(run('{"mode": "hello"}', python=("-S", "-E")).stdout)
    assert event["event"] == "hello"
    assert event["python"]["executable"] == sys.executable
    assert event["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert event["python"]["bits"] == 64
    assert event["python"]["numpy"] is None  # -S: no packages


@pytest.mark.parametrize(
    ("make", "model", "cpu", "features", "hertz", "memory"),
    [
        (boards.pi3bplus, "Raspberry Pi 3 Model B Plus Rev 1.3", "Cortex-A53", ["neon", "vfpv4"], 1.4e9, 925132),
        (boards.pi4, "Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72", ["asimd"], 1.8e9, 3884376),
        (
            boards.pi5,
            "Raspberry Pi 5 Model B Rev 1.0",
            "Cortex-A76",
            ["asimd", "asimddp", "asimdhp", "asimdrdm", "fphp"],
            2.4e9,
            8245376,
        ),
        (boards.coral_dev_board, "Freescale i.MX8MQ Phanbell", "Cortex-A53", ["asimd"], 1.5e9, 994044),
    ],
)
def test_a_board_is_recognised(
    tmp_path: Path, make: Any, model: str, cpu: str, features: list[str], hertz: float, memory: int
) -> None:
    found = probe(make(tmp_path))
    assert (found["board"], found["hostname"]) == (model, "board")
    assert found["cpu"] == {"name": cpu, "cores": 4, "features": features}
    assert found["memory"]["total_bytes"] == memory * 1024
    assert found["memory"]["swap_used_bytes"] == 0
    assert [frequency["cpu"] for frequency in found["frequencies"]] == [0, 1, 2, 3]
    for frequency in found["frequencies"]:
        assert frequency["current_hz"] == frequency["limit_hz"] == frequency["hardware_hz"] == hertz
        assert frequency["governor"] == "ondemand"
    assert found["load_1m"] == 0.07
    assert found["runtimes"] == []
    assert found["hints"] == []
    assert {disk["writable"] for disk in found["disks"]} <= {True, False}


def test_a_raspberry_pi_tells_more(tmp_path: Path) -> None:
    found = probe(boards.throttled(boards.pi4(tmp_path)))
    assert found["system"] == {
        "name": "Debian GNU/Linux 12 (bookworm)",
        "id": "debian",
        "version": "12",
        "kernel": "6.6.31+rpt-rpi-v8",
        "machine": "aarch64",
    }
    assert (found["throttled"], found["throttled_source"]) == (0x60006, "vcgencmd")
    assert found["zones"] == [{"name": "cpu-thermal", "temperature_c": 82.3}]
    assert found["clock_hz"] == 1000265600  # what the kernel does not know
    assert found["rails"] == []


def test_both_formats_of_the_rails_say_the_same(tmp_path: Path) -> None:
    found = [probe(boards.pi5(tmp_path / rails, rails=rails))["rails"] for rails in ("indexed", "plain")]
    assert found[0] == found[1]
    rails = {rail["name"]: (rail["volts"], rail["amperes"]) for rail in found[0]}
    assert rails == boards.PI5_RAILS | {"EXT5V": (5.06788, None), "BATT": (0.0048, None)}


def test_a_board_with_nothing_readable_says_nulls(tmp_path: Path) -> None:
    found = probe(boards.nothing(tmp_path))
    unknown = ("board", "clock_hz", "throttled", "throttled_source", "load_1m", "edge_tpu_library")
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)
    assert set(found["memory"].values()) == {None}
    assert [found[name] for name in ("frequencies", "zones", "rails", "edge_tpus", "hints")] == [[]] * 5
    assert found["cpu"]["name"] is None
    assert found["cpu"]["cores"] >= 1
    assert found["system"]["kernel"] == os.uname().release


def test_an_edge_tpu_on_pcie_has_its_library(tmp_path: Path) -> None:
    found = probe(boards.coral_dev_board(tmp_path))
    assert found["edge_tpus"] == [
        {
            "bus": "pcie",
            "id": "1ac1:089a",
            "device": "/dev/apex_0",
            "megabits_per_s": 5000.0,
            "temperature_c": pytest.approx(43.8),
            "throttle_c": pytest.approx(84.8),
        }
    ]
    problem = found["edge_tpu_library"].pop("problem")
    assert problem.endswith(("file too short", "invalid ELF header"))  # what lies there is no library
    assert found["edge_tpu_library"] == {
        "path": "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1",
        "package": "libedgetpu1-std",  # the other one is removed
        "version": "16.0",
        "says": None,
        "runtime": None,
    }


@pytest.mark.parametrize("initialized", [False, True])
def test_an_edge_tpu_on_usb_has_two_names(tmp_path: Path, initialized: bool) -> None:
    board = boards.usb_edge_tpu(boards.pi4(tmp_path), initialized=initialized, megabits=480)
    (found,) = runner.edge_tpus(runner.Tree(str(board.root)))
    name = "18d1:9302" if initialized else "1a6e:089a"
    assert found == {
        "bus": "usb",
        "id": name,
        "device": "/dev/bus/usb/002/003",
        "megabits_per_s": 480.0,
        "initialized": initialized,
    }


def test_an_edge_tpu_without_its_driver_has_no_device(tmp_path: Path) -> None:
    board = boards.coral_dev_board(tmp_path)
    (tmp_path / "dev/apex_0").unlink()
    (found,) = runner.edge_tpus(runner.Tree(str(board.root)))
    assert (found["bus"], found["device"], found["temperature_c"]) == ("pcie", None, None)
    assert found["megabits_per_s"] == 5000.0


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("/sys/bus/pci/devices/0000:01:00.0/current_link_speed", "2.5 GT/s PCIe", (2500.0, 43.8, 84.8)),
        ("/sys/bus/pci/devices/0000:01:00.0/current_link_speed", "Unknown speed", (None, 43.8, 84.8)),
        ("/sys/class/apex/apex_0/temp", "-89700", (5000.0, None, 84.8)),  # the chip does not answer
        ("/sys/class/apex/apex_0/temp_poll_interval", "0", (5000.0, 43.8, None)),  # its driver does not look
    ],
)
def test_what_an_edge_tpu_does_not_tell_is_unknown(
    tmp_path: Path, file: str, text: str, expected: tuple[float | None, ...]
) -> None:
    tree = runner.Tree(str(boards.coral_dev_board(tmp_path).put(file, f"{text}\n").root))
    (found,) = runner.edge_tpus(tree)
    assert (found["megabits_per_s"], found["temperature_c"], found["throttle_c"]) == tuple(
        value if value is None else pytest.approx(value) for value in expected
    )
    known = {} if expected[1] is None else {"/dev/apex_0": pytest.approx(expected[1])}
    assert runner.state(tree)["edge_tpus_c"] == known


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor: 0\nmodel name: Fast CPU\nflags: avx2 hypervisor vmx\n", "Fast CPU"),
        ("processor: 0\nmodel name: ARMv7 Processor rev 4\nCPU implementer: 0x41\nCPU part: 0xd08\n", "Cortex-A72"),
        ("CPU implementer: 0x41\nCPU part: 0xd05\n" * 4 + "CPU part: 0xd0b\n" * 4, "Cortex-A55 + Cortex-A76"),
        ("CPU implementer: 0x61\nCPU part: 0x023\n", "implementer 0x61 part 0x023"),
        ("CPU implementer: 0x41\nCPU part: 0xfff\n", "implementer 0x41 part 0xfff"),
        ("nothing known", None),
    ],
)
def test_cpus_are_named(tmp_path: Path, cpuinfo: str, name: str | None) -> None:
    boards.Board(tmp_path).put("/proc/cpuinfo", cpuinfo)
    found = runner.processors(runner.Tree(str(tmp_path)))
    assert found["name"] == name
    assert found["hypervisor"] == ("hypervisor" in cpuinfo)


def test_signs_of_a_virtual_machine_are_hints(tmp_path: Path) -> None:
    board = boards.nothing(tmp_path)
    board.put("/sys/class/dmi/id/sys_vendor", "QEMU\n").put("/proc/device-tree/compatible", "linux,dummy-virt\0")
    found = runner.hints(runner.Tree(str(board.root)), True)
    assert found == ["DMI says QEMU", "device tree says linux,dummy-virt", "CPU says hypervisor"]


def test_ten_cpus_are_in_order(tmp_path: Path) -> None:
    for cpu in (10, 2, 0):
        boards.Board(tmp_path).put(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{cpu}000\n")
    found = runner.frequencies(runner.Tree(str(tmp_path)))
    assert [(cpu["cpu"], cpu["current_hz"]) for cpu in found] == [(0, 0), (2, 2_000_000), (10, 10_000_000)]
    assert {cpu["hardware_hz"] for cpu in found} == {None}


def test_a_turbo_is_not_what_a_cpu_can_keep_up(tmp_path: Path) -> None:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    boards.Board(tmp_path).put(f"{folder}/base_frequency", "2100000\n").put(f"{folder}/cpuinfo_max_freq", "4800000\n")
    assert runner.frequencies(runner.Tree(str(tmp_path)))[0]["hardware_hz"] == 2_100_000_000


def test_without_the_firmware_command_the_kernel_tells(tmp_path: Path) -> None:
    board = boards.nothing(tmp_path)
    assert runner.throttled(runner.Tree(str(tmp_path))) == (None, None)
    board.put("/sys/class/hwmon/hwmon0/name", "nvme\n")
    board.put("/sys/class/hwmon/hwmon1/name", "rpi_volt\n").put("/sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    assert runner.throttled(runner.Tree(str(tmp_path))) == (1, "hwmon")
    board.put("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    assert runner.throttled(runner.Tree(str(tmp_path))) == (0x50005, "sysfs")


def test_a_firmware_that_refuses_is_no_answer(tmp_path: Path) -> None:
    board = boards.pi4(tmp_path)
    board.put("/usr/bin/vcgencmd", "#!/bin/sh\necho 'error=-1: no right to open /dev/vcio'; exit 255\n")
    tree = runner.Tree(str(tmp_path))
    assert (runner.throttled(tree), runner.clock(tree)) == ((None, None), None)
    assert runner.temperature(tree) == pytest.approx(48.7)  # of the thermal zone


def test_a_firmware_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "COMMAND_LIMIT_S", 0.2)
    boards.pi4(tmp_path).put("/usr/bin/vcgencmd", "#!/bin/sh\nexec sleep 20\n")
    tree = runner.Tree(str(tmp_path))
    begin = time.perf_counter()
    assert runner.clock(tree) is None
    assert runner.throttled(tree) == (None, None)
    assert time.perf_counter() - begin < 5


def test_the_cpus_temperature_is_not_the_batterys(tmp_path: Path) -> None:
    board = boards.nothing(tmp_path)
    tree = runner.Tree(str(tmp_path))
    for zone, (kind, degrees) in enumerate((("BAT0", 31000), ("x86_pkg_temp", 65000), ("acpitz", 40000))):
        board.put(f"/sys/class/thermal/thermal_zone{zone}/type", f"{kind}\n")
        board.put(f"/sys/class/thermal/thermal_zone{zone}/temp", f"{degrees}\n")
    assert runner.temperature(tree) == 65.0
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").unlink()  # this one gives an error when it is read
    assert runner.temperature(tree) == 31.0


def test_a_temperature_can_come_from_the_firmware(tmp_path: Path) -> None:
    board = boards.nothing(tmp_path).answer("measure_temp", "temp=47.2'C\n")
    assert runner.zones(runner.Tree(str(board.root))) == [{"name": "firmware", "temperature_c": 47.2}]


def test_the_state_has_every_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = boards.swap_in_use(boards.pi4(tmp_path))
    board.put("/proc/vmstat", "pgpgin 5\npswpin 3\n")
    board.put("/proc/stat", "cpu  100 10 50 9000 70 5 15 20 3 0\n")
    board.put("/sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nthrottled_usec 1500000\n")
    board.put("/sys/fs/cgroup/a/b/cpu.stat", "throttled_usec 250000\n")
    monkeypatch.setattr(runner, "process_text", lambda name: "1:cpu:/x\n0::/a/b\n" if name == "cgroup" else None)
    state = runner.state(runner.Tree(str(board.root)))
    ticks = os.sysconf("SC_CLK_TCK")
    assert state["busy_s"] == pytest.approx((100 + 10 + 50 + 5 + 15) / ticks)
    assert state["stolen_s"] == pytest.approx(20 / ticks)
    assert state["quota_wait_s"] == pytest.approx(1.75)
    assert state["swap_used_bytes"] == 81920 * 1024
    assert state["swapped_in_bytes"] == 3 * os.sysconf("SC_PAGE_SIZE")
    assert state["available_bytes"] == 3884376 * 3 // 4 * 1024
    assert (state["temperature_c"], state["throttled"], state["clock_hz"]) == (48.7, 0, 1800404352)
    assert [cpu["current_hz"] for cpu in state["cpus"]] == [1_800_000_000] * 4


# --- Which runtimes work ----------------------------------------------------------------------------------------------


def test_the_smallest_model_runs() -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=runner.RELU)
    interpreter.allocate_tensors()
    for value in (-3.0, 5.0):
        interpreter.set_tensor(0, np.array([value], np.float32))
        interpreter.invoke()
        assert interpreter.get_tensor(1) == [max(value, 0.0)]
    assert len(runner.RELU) < 300


def test_runtimes_are_found_by_constructing_an_interpreter(tmp_path: Path) -> None:
    # This one imports; like the real one with NumPy 2, it fails when an interpreter is made.
    broken = "class Interpreter:\n    def __init__(self, model_content):\n        raise SystemError('bad')\n"
    environment = packages(tmp_path, tflite_runtime=broken)
    (tmp_path / "tflite_runtime-2.14.0.dist-info").mkdir()
    metadata = tmp_path / "tflite_runtime-2.14.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    (tmp_path / "numpy-2.9.9.dist-info").mkdir()
    metadata = tmp_path / "numpy-2.9.9.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.9.9\n")
    finished = run('{"mode": "probe"}', environment=environment)
    assert finished.stderr == ""  # what runtimes say there goes nowhere
    (found,) = events(finished.stdout)
    litert, tflite = found["runtimes"]
    assert (litert["name"], litert["works"], litert["problem"]) == ("ai-edge-litert", True, None)
    assert litert["version"].startswith("2.")
    assert (tflite["name"], tflite["version"], tflite["works"]) == ("tflite-runtime", "2.14.0", False)
    assert tflite["problem"] == (
        f"tflite-runtime cannot work with NumPy 2.9.9; install an older one: {sys.executable} -m pip install 'numpy<2'"
    )


CHILDREN = """
import json, os, signal, sys, time
from edgeeff.devices import runner

runner.CHILD_LIMIT_S = 2.0
works = {
    "answers": lambda: ["x" * 200000],
    "crashes": lambda: os.kill(os.getpid(), signal.SIGILL),
    "hangs": lambda: time.sleep(30),
    "prints": lambda: print("noise", flush=True) or os.write(1, b"noise"),
    "raises": lambda: 1 / 0,
}
print(json.dumps({name: runner.in_child(work) for name, work in works.items()}))
"""


def test_a_crash_in_a_child_is_an_answer() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", CHILDREN], capture_output=True, text=True, timeout=30, check=False, cwd=Path.cwd()
    )
    assert finished.stderr == ""
    assert json.loads(finished.stdout) == {
        "answers": [["x" * 200000], None],
        "crashes": [None, "crashed with SIGILL"],
        "hangs": [None, "gave no answer within 2 s"],
        "prints": [5, None],
        "raises": [None, "ended without an answer"],
    }


# --- What it says while measuring -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said(tiny_float_tflite: Path) -> list[dict[str, Any]]:
    """What a real run of the tiny classifier says, whose file was read just before."""
    assert tiny_float_tflite.read_bytes()
    finished = run(json.dumps(SHORT | {"model": str(tiny_float_tflite)}))
    assert finished.returncode == 0, finished.stderr
    return events(finished.stdout)


def test_a_run_tells_its_story_in_order(said: list[dict[str, Any]]) -> None:
    story = [event.get("phase", event["event"]) for event in said]
    begin = ["start", "imported", "loaded", "first", "warm", "warm-up"]
    assert story[: len(begin)] == begin
    assert story[-1] == "done"
    stretches = story[len(begin) : -1]
    assert stretches[-1] == "measure"  # the state after every stretch
    assert set(stretches) == {"latencies", "measure"}


def test_the_figures_of_a_run_make_sense(said: list[dict[str, Any]], tiny_float_tflite: Path) -> None:
    imported, loaded, first, warm = (
        event for event in said if event["event"] in {"imported", "loaded", "first", "warm"}
    )
    done = said[-1]
    assert imported["runtime"] == "ai-edge-litert"
    assert imported["version"].startswith("2.")
    assert imported["numpy"] == np.__version__
    assert imported["import_s"] > 0
    assert loaded["load_s"] > 0
    assert loaded["size_bytes"] == tiny_float_tflite.stat().st_size
    assert loaded["cached"] in {None, 1.0}
    assert loaded["delegate"] == "xnnpack"
    assert loaded["delegated_parts"] >= 1
    assert 0 < first["first_inference_s"] < 1
    assert warm["runs"] >= SHORT["warmup_runs"]
    latencies = [value for event in said if event["event"] == "latencies" for value in event["latencies_s"]]
    assert len(latencies) >= SHORT["runs"]
    assert all(0 < value < 1 for value in latencies)
    assert SHORT["duration_s"] <= done["wall_s"] < 5
    assert sum(latencies) <= done["wall_s"] + len(latencies) * 1e-9  # they are rounded
    assert 0 < done["cpu_s"] < 5
    assert done["involuntary_switches"] >= 0
    assert done["major_faults"] >= 0
    # NumPy and LiteRT take tens of megabytes; what a process holds in the end is at most what it ever held.
    assert 10e6 < imported["rss_bytes"] <= loaded["rss_bytes"] <= done["peak_rss_bytes"] < 2e9
    for event in (imported, loaded, first, done):
        assert 0 < event["anonymous_bytes"] < event["rss_bytes"]
        assert event["anonymous_bytes"] <= event["pss_bytes"] * 1.05 < event["rss_bytes"] * 1.1


def test_states_are_taken_outside_of_the_timed_runs(said: list[dict[str, Any]]) -> None:
    times = [event["at_s"] for event in said if "at_s" in event]
    assert times == sorted(times)
    states = [event for event in said if event["event"] == "state"]
    sums = [(state["cpu_s"], state["busy_s"] or 0.0) for state in states]
    assert sums == sorted(sums)
    after = next(state["at_s"] for state in states if state["phase"] == "measure")
    first = [event for event in said if event["event"] == "latencies" and event["at_s"] < after]
    assert first
    assert first[0]["at_s"] + sum(value for event in first for value in event["latencies_s"]) <= after + 1e-5


@pytest.mark.parametrize(("dtype", "span"), [("uint8", (0, 255)), ("int8", (-128, 127)), ("float32", (0, 255))])
def test_another_runtime_gets_pixels_of_the_type_it_wants(tmp_path: Path, dtype: str, span: tuple[int, int]) -> None:
    environment = packages(
        tmp_path, ai_edge_litert="raise ImportError('libc is too old')", tflite_runtime=fake_runtime(dtype, span)
    )
    model = tmp_path / "x.tflite"
    model.touch()
    finished = run(json.dumps(SHORT | {"model": str(model), "duration_s": 0.0}), environment=environment)
    assert finished.returncode == 0, finished.stderr
    story = events(finished.stdout)
    imported, loaded = (event for event in story if event["event"] in {"imported", "loaded"})
    assert imported["runtime"] == "tflite-runtime"
    assert imported["version"] == "unknown"  # no metadata lie beside this fake
    assert (loaded["delegate"], loaded["delegated_parts"], loaded["cached"]) == ("xnnpack", None, None)
    assert "what a library prints" in finished.stderr


@pytest.mark.parametrize(
    ("fault", "key", "value"),
    [
        ("under-voltage", "throttled", 0x10001),
        ("throttled", "throttled", 0x60006),
        ("throttled-before", "throttled", 0x50000),
        ("hot-start", "temperature_c", 74.0),
        ("swap-in-use", "swap_used_bytes", 81920 * 1024),
        ("loaded", "load_1m", 3.12),
    ],
)
def test_a_fault_is_in_every_state(tmp_path: Path, fault: str, key: str, value: float) -> None:
    board = boards.FAULTS[fault](boards.pi4(tmp_path))
    assert runner.state(runner.Tree(str(board.root)))[key] == value


def test_delegates_are_as_asked(tiny_float_tflite: Path) -> None:
    for asked, parts, taken in (("none", 0, 0), ("xnnpack", 1, 7)):
        finished = run(json.dumps(SHORT | {"model": str(tiny_float_tflite), "delegate": asked}))
        (loaded,) = (event for event in events(finished.stdout) if event["event"] == "loaded")
        assert loaded["delegate"] == asked
        assert (loaded["delegated_parts"], loaded["delegated_operators"], loaded["operators"]) == (parts, taken, 7)


def operator(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        ([], 0),
        ([operator("DELEGATE", [3, 9], [4])], 1),  # the softmax alone
        ([operator("DELEGATE", [0, 8], [2]), operator("TfLiteXNNPackDelegate", [3], [4])], 3),
        ([operator("EdgeTpuDelegateForCustomOp", [0, 8, 9], [4])], 4),
    ],
)
def test_delegated_operators_lie_between_a_parts_ends(parts: list[dict[str, Any]], taken: int) -> None:
    chain = [
        operator("CONV_2D", [0, 8, -1], [1]),
        operator("MEAN", [1], [2]),
        operator("CUSTOM", [2], [3]),
        operator("SOFTMAX", [3], [4]),
    ]
    found = runner.delegated(SimpleNamespace(_get_ops_details=lambda: chain + parts))
    assert found == {"delegated_parts": len(parts), "delegated_operators": taken, "operators": 4}


def test_end_to_end_runs_from_the_file(tiny_float_tflite: Path, tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    asked = {"model": str(tiny_float_tflite), "image": str(tmp_path / "photo.jpg"), "image_runs": 4}
    finished = run(json.dumps(SHORT | asked))
    assert finished.returncode == 0, finished.stderr
    *_, result, done = events(finished.stdout)
    assert (result.pop("event"), done["event"]) == ("end_to_end", "done")
    assert {name: len(times) for name, times in result.items()} == dict.fromkeys(
        ("decode_s", "resize_s", "quantize_s", "invoke_s", "total_s"), 4
    )
    steps = np.array([result[name] for name in ("decode_s", "resize_s", "quantize_s", "invoke_s")])
    assert (steps > 0).all()
    assert steps.sum(axis=0) == pytest.approx(result["total_s"], abs=1e-8)
    assert np.median(result["decode_s"]) > np.median(result["quantize_s"])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_end_to_end_gives_the_pixels_of_the_image(tmp_path: Path, dtype: str) -> None:
    from PIL import Image

    Image.new("L", (9, 9), 200).save(tmp_path / "grey.png")
    given: list[Any] = []
    interpreter = SimpleNamespace(
        get_input_details=lambda: [{"index": 1, "dtype": np.dtype(dtype).type, "shape": np.array([1, 4, 6, 3])}],
        get_output_details=lambda: [{"index": 2}],
        set_tensor=lambda index, value: given.append(value),
        get_tensor=lambda index: None,
        invoke=lambda: None,
    )
    rows = list(runner.image_runs(interpreter, options(image=str(tmp_path / "grey.png"), image_runs=2)))
    assert len(rows) == len(given) == 2
    assert (given[0].shape, given[0].dtype) == ((1, 4, 6, 3), dtype)
    assert set(given[0].ravel()) == {200 - 128 if dtype == "int8" else 200}


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_without_an_argument_it_says_how_it_is_used() -> None:
    finished = run()
    assert finished.returncode == 1
    assert """python runner.py '{"mode": "measure", "model": """ in finished.stderr


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("b2.tflite", "the argument is no JSON (Expecting value: line 1 column 1 (char 0)): b2.tflite"),
        ("[1]", "the argument is no JSON object: [1]"),
        ('{"modle": "b2"}', "unknown options modle; there are mode, root, model, "),
        ('{"mode": "fly"}', "the mode 'fly' is none of hello, probe, state, measure"),
        ('{"delegate": "gpu"}', "the delegate 'gpu' is none of auto, xnnpack, none, edgetpu"),
        ("{}", "to measure takes a model: give its path"),
        ('{"mode": "score"}', "to score takes a model: give its path"),
    ],
)
def test_an_argument_that_is_none_is_named(capsys: pytest.CaptureFixture[str], argument: str, words: str) -> None:
    assert runner.main(argument) == 1
    (error,) = events(capsys.readouterr().out)
    assert error["kind"] == "usage"
    assert error["message"].startswith(words)


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.tflite")
    assert runner.main(json.dumps({"model": missing})) == 1
    (error,) = events(capsys.readouterr().out)
    assert (error["kind"], error["message"]) == (
        "model",
        f"cannot read the model {missing}: No such file or directory",
    )


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("no model at all")
    error = failure(run(json.dumps({"model": str(tmp_path / "text.tflite")})))
    assert error["kind"] == "model"
    assert error["message"].startswith(f"the runtime cannot load {tmp_path / 'text.tflite'}: ValueError: ")


def test_without_a_runtime_both_are_named(tmp_path: Path, tiny_float_tflite: Path) -> None:
    for package in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise ImportError('no {package} today')", encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path)}
    error = failure(run(json.dumps({"model": str(tiny_float_tflite)}), environment=environment))
    assert error["kind"] == "runtime"
    assert "ai-edge-litert (no ai_edge_litert today)" in error["message"]
    assert "tflite-runtime (no tflite_runtime today)" in error["message"]
    assert error["message"].endswith("python -m pip install ai-edge-litert")


def test_without_numpy_it_says_how_to_get_it(tiny_float_tflite: Path) -> None:
    error = failure(run(json.dumps({"model": str(tiny_float_tflite)}), python=("-S", "-E")))
    assert error["kind"] == "numpy"
    assert error["message"].endswith("install it: python -m pip install numpy")


def custom(operator: str) -> bytes:
    """The smallest model with a custom operator in place of its own."""
    import flatbuffers

    from edgeeff.converters.graph import schema

    generated = schema()
    model = generated.ModelT.InitFromPackedBuf(runner.RELU)
    (code,) = model.operatorCodes
    code.builtinCode = code.deprecatedBuiltinCode = generated.BuiltinOperator.CUSTOM
    code.customCode = operator.encode()
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("operator", "kind", "words"),
    [
        ("MyOwn", "operator", "has the custom operator MyOwn, which ai-edge-litert does not have; convert it without"),
        (
            "edgetpu-custom-op",
            "edgetpu-model",
            "is compiled for the Edge TPU and runs nowhere else; use --delegate edgetpu",
        ),
    ],
)
def test_a_custom_operator_is_named(tmp_path: Path, operator: str, kind: str, words: str) -> None:
    (tmp_path / "custom.tflite").write_bytes(custom(operator))
    error = failure(run(json.dumps({"model": str(tmp_path / "custom.tflite")})))
    assert error["kind"] == kind
    assert error["message"].startswith(f"{tmp_path / 'custom.tflite'} {words}")


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        ("MemoryError()", "memory", "does not fit into memory (its file has 0 MB, 2983 MB of memory are available)"),
        ("ValueError(\"Mmap of '3' at offset '0' failed with error '12'.\")", "memory", "does not fit into memory"),
        ("RuntimeError('failed to create XNNPACK runtime')", "memory", "does not fit into memory"),
        ("RuntimeError('tensor 3 is odd')", "model", "RuntimeError: tensor 3 is odd"),
    ],
)
def test_what_a_runtime_raises_is_explained(tmp_path: Path, raised: str, kind: str, words: str) -> None:
    (tmp_path / "packages").mkdir()
    environment = packages(tmp_path / "packages", ai_edge_litert=fake_runtime(allocate=f"raise {raised}"))
    model = tmp_path / "x.tflite"
    model.write_bytes(b"x" * 1000)
    root = boards.pi4(tmp_path / "board").root
    error = failure(run(json.dumps({"model": str(model), "root": str(root)}), environment=environment))
    assert error["kind"] == kind
    assert str(model) in error["message"]
    assert words in error["message"]


def test_numpy_2_with_tflite_runtime_is_explained(tmp_path: Path, tiny_float_tflite: Path) -> None:
    broken = fake_runtime(allocate="raise SystemError('returned a result with an exception set')")
    environment = packages(tmp_path, ai_edge_litert="raise ImportError('none')", tflite_runtime=broken)
    error = failure(run(json.dumps({"model": str(tiny_float_tflite)}), environment=environment))
    assert error["kind"] == "numpy"
    assert f"cannot work with NumPy {np.__version__}; install an older one: {sys.executable} -m pip" in error["message"]


def test_a_delegate_that_would_do_nothing_is_refused(tmp_path: Path, tiny_float_tflite: Path) -> None:
    code = fake_runtime() + "\n    def _get_ops_details(self):\n        return []\n"  # a runtime without XNNPACK
    asked = json.dumps({"model": str(tiny_float_tflite), "delegate": "xnnpack"})
    error = failure(run(asked, environment=packages(tmp_path, ai_edge_litert=code)))
    assert error["kind"] == "delegate"
    assert "XNNPACK takes no operator of" in error["message"]


def test_a_runtime_that_cannot_do_without_a_delegate_says_so(tiny_float_tflite: Path) -> None:
    with pytest.raises(runner.Failure, match="cannot be kept from using XNNPACK"):
        runner.open_model(SimpleNamespace(), runner.Tree("/"), options(model=str(tiny_float_tflite), delegate="none"))


def test_an_image_has_to_be_one(tmp_path: Path, tiny_float_tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = SHORT | {"model": str(tiny_float_tflite), "image": str(tmp_path / "photo.jpg"), "image_runs": 1}
    assert runner.main(json.dumps(asked)) == 1
    (error,) = events(capsys.readouterr().out)
    assert (error["kind"], error["message"].split(":")[0]) == ("image", f"cannot read the image {asked['image']}")
    (tmp_path / "photo.jpg").write_text("no photo")
    error = failure(run(json.dumps(asked)))
    assert error["kind"] == "image"
    assert error["message"].startswith(f"{asked['image']} cannot be decoded: ")


def test_without_pillow_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(runner.Failure, match=r"Pillow cannot be imported .* pip install pillow$") as caught:
        next(runner.image_runs(SimpleNamespace(), options(image="x")))
    assert caught.value.kind == "pillow"


def test_it_ends_when_nobody_listens(tiny_float_tflite: Path) -> None:
    command = [sys.executable, runner.__file__, json.dumps({"model": str(tiny_float_tflite), "duration_s": 60.0})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "state"
        process.stdout.close()
        assert process.wait(timeout=20) == 1
        assert "Traceback" not in process.stderr.read()


# --- Scores -----------------------------------------------------------------------------------------------------------


def frames(*images: np.ndarray[Any, Any], times: int = 1) -> bytes:
    contents = list(map(packed, images)) * times
    return b"".join(runner.FRAME.pack(number, len(one)) + one for number, one in enumerate(contents))


def score(model: Path, given: bytes, **changes: Any) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, runner.__file__, json.dumps({"mode": "score", "model": str(model)} | changes)]
    finished = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in finished.stderr
    return finished.returncode, events(finished.stdout.decode())


def test_every_image_gets_its_scores_in_memory_that_does_not_grow(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(tiny.classifier(size=128))
    images = tiny.images(16, size=128)
    times = 10
    status, said = score(model, frames(*images, times=times))
    assert status == 0
    imported, loaded, ready, *scored, done = said
    assert (imported["event"], loaded["event"], loaded["size_bytes"]) == ("imported", "loaded", model.stat().st_size)
    assert ready == {
        "event": "ready",
        "input": {"name": "pixels", "shape": [1, 128, 128, 3], "dtype": "float32", "scale": None, "zero_point": None},
        "output": {"name": "scores", "shape": [1, 5], "dtype": "float32", "scale": None, "zero_point": None},
    }
    assert [event["number"] for event in scored] == list(range(16 * times))
    raw = [np.frombuffer(base64.b64decode(event["raw"]), "<f4") for event in scored]
    np.testing.assert_array_equal(raw, [tiny.run(model.read_bytes(), image) for image in images] * times)
    assert (done["event"], done["images"]) == ("done", 16 * times)
    assert 0 < done["invoke_s"] < 30
    assert done["peak_rss_bytes"] - loaded["rss_bytes"] < 0.5 * times * sum(image.nbytes for image in images)


def test_what_was_damaged_is_told_after_what_was_not(tiny_float_tflite: Path) -> None:
    whole = frames(*tiny.images(4))
    status, said = score(tiny_float_tflite, whole[:-3])
    assert status == 1
    assert [event["event"] for event in said[2:]] == ["ready", *["scores"] * 3, "error"]
    assert (said[-1]["kind"], said[-1]["message"]) == ("input", "the input ended in the middle of image 3")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: whole[:5], "the input ended in the middle of image 0"),
        (lambda whole: whole[1:], "what came after 0 images is no image; does a login script"),
        (lambda whole: whole * 2, "what came after 2 images is no image"),
        (lambda whole: b"\0\0\0\0\xff" + whole[5:], "what came after 0 images is no image"),
        (lambda whole: whole[:20] + bytes(5) + whole[25:], "image 0 was damaged on its way: Error -[35]"),
        (lambda whole: frames(np.zeros((8, 7, 3), np.uint8)), "it does not have the 192 bytes of 8x8 pixels"),
        (lambda whole: frames(np.zeros((800, 800, 3), np.uint8)), "what came after 0 images|does not have the 192"),
        (lambda whole: runner.FRAME.pack(0, 0), "image 0 was damaged on its way: it does not have the 192 bytes"),
    ],
)
def test_images_that_are_none_are_refused(
    monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], words: str
) -> None:
    given = io.BytesIO(damage(frames(*tiny.images(2))))
    monkeypatch.setattr(os, "read", lambda descriptor, count: given.read(min(count, 50)))
    with pytest.raises(runner.Failure, match=words) as caught:
        list(runner.ahead(runner.receive((8, 8, 3)), 1))
    assert caught.value.kind == "input"


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16"])
def test_a_table_gives_what_is_stored(dtype: str) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    low = -128 if dtype == "int8" else 0
    as_they_are = runner.stored_by("", np.dtype(dtype))(pixels)
    assert as_they_are.dtype == dtype
    np.testing.assert_array_equal(as_they_are, pixels.astype(int) + low)

    table = (np.arange(768).reshape(256, 3) % 100).astype("<f4")
    stored = runner.stored_by(base64.b64encode(table.tobytes()).decode(), np.dtype(dtype))(pixels)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, table.reshape(16, 16, 3))


@pytest.mark.parametrize("table", [np.zeros(767), np.full(768, 256), np.full(768, 0.5), np.full(768, np.nan)])
def test_a_table_that_does_not_fit_is_refused(table: np.ndarray[Any, Any]) -> None:
    text = base64.b64encode(table.astype("<f4").tobytes()).decode()
    with pytest.raises(runner.Failure, match="not one of 256x3 values of uint8, which the model takes") as caught:
        runner.stored_by(text, np.dtype(np.uint8))
    assert caught.value.kind == "usage"


def fails() -> None:
    raise RuntimeError("node 7 failed to invoke")


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ([1, 8, 8, 1], "model", r"m\.tflite takes \[1, 8, 8, 1\]; only a model that takes one RGB image can be"),
        ([4, 8, 8, 3], "model", "only a model that takes one RGB image"),
        ([1, 8, 8, 3], "run", r"the runtime cannot run .*m\.tflite on image 0: node 7 failed to invoke"),
    ],
)
def test_what_cannot_be_scored_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: list[int],
    kind: str,
    words: str,
) -> None:
    detail = {"index": 0, "name": "pixels", "shape": shape, "dtype": np.uint8, "quantization": (0.0, 0)}
    interpreter = SimpleNamespace(
        get_input_details=lambda: [detail],
        get_output_details=lambda: [detail],
        set_tensor=lambda index, value: None,
        invoke=fails,
    )
    monkeypatch.setattr(runner, "import_and_load", lambda tree, options, **facts: interpreter)
    monkeypatch.setattr(runner, "be_the_first_to_go", lambda: None)
    given = io.BytesIO(frames(*tiny.images(1)))
    monkeypatch.setattr(os, "read", lambda descriptor, count: given.read(count))
    (tmp_path / "m.tflite").write_bytes(b"m")
    assert runner.main(json.dumps({"mode": "score", "model": str(tmp_path / "m.tflite")})) == 1
    error = events(capsys.readouterr().out)[-1]
    assert error["kind"] == kind
    assert re.search(words, error["message"])


def test_a_board_that_is_left_alone_goes_home(tiny_float_tflite: Path) -> None:
    command = [sys.executable, runner.__file__, json.dumps({"mode": "score", "model": str(tiny_float_tflite)})]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(frames(*tiny.images(1)))
        process.stdin.flush()
        while b"scores" not in process.stdout.readline():
            pass
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        assert b"Traceback" not in process.stderr.read()


# --- When it stops ----------------------------------------------------------------------------------------------------


def test_warm_up_ends_when_two_windows_agree(clock: list[float]) -> None:
    interpreter = Steps(clock, [0.2] * 10 + [0.1])
    # 10 runs of 0.2 s reach the 2 s and, compared with the first, agree at once.
    assert runner.warm_up(interpreter, options(), Samples()) == (10, True)


def test_warm_up_goes_on_while_latency_falls(clock: list[float]) -> None:
    falling = [0.4 * 0.97**run for run in range(60)] + [0.05]
    samples = Samples(clock, seconds=0.5)
    runs, stable = runner.warm_up(Steps(clock, falling), options(), samples)
    assert stable
    assert runs >= 60 + runner.WINDOW  # the medians of the last two windows are both those of the plateau
    # Once a second somebody hears that it is still alive.
    assert len(samples.phases) >= 8
    assert set(samples.phases) == {"warm-up"}


@pytest.mark.parametrize("limit", [1.0, 30.0])
def test_warm_up_gives_up_after_its_limit(clock: list[float], limit: float) -> None:
    growing = [0.1 * 1.05**run for run in range(200)]
    begin = clock[0]
    _, stable = runner.warm_up(Steps(clock, growing), options(warmup_limit_s=limit), Samples())
    assert not stable
    assert limit <= clock[0] - begin < limit * 1.2


def test_warm_up_takes_its_time_even_when_stable_at_once(clock: list[float]) -> None:
    assert runner.warm_up(Steps(clock, [0.03125]), options(warmup_s=2.0), Samples()) == (64, True)
    assert runner.warm_up(Steps(clock, [5.0]), options(warmup_runs=3), Samples()) == (3, True)


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
    samples = Samples(clock, seconds=0.25)
    usage = runner.measure(Steps(clock, [latency]), options(runs=runs, duration_s=duration), samples)
    stretches = [event["latencies_s"] for event in events(capsys.readouterr().out)]
    assert [len(stretch) for stretch in stretches] == [len(stretches[0])] * len(stretches)
    assert sum(map(len, stretches)) == expected
    assert {value for stretch in stretches for value in stretch} == {latency}
    # The time of the samples counts nowhere.
    assert samples.phases == ["measure"] * len(stretches)
    assert (usage.wall_s, usage.cpu_s) == (expected * latency, expected * latency / 2)


def test_a_sustained_measurement_lasts_by_the_clock(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    # The board throttles after 55 s of work, in the second minute.
    times = [0.25] * 220 + [0.5]
    begin = clock[0]
    samples = Samples(clock, seconds=0.25)
    runner.measure(Steps(clock, times), options(sustained_min=2.5, runs=10**9), samples)
    assert clock[0] - begin == 150.0
    said = events(capsys.readouterr().out)
    minutes = [event for event in said if event["event"] == "minute"]
    assert [(event["minute"], event["p50_s"]) for event in minutes] == [(1, 0.25), (2, 0.5), (3, 0.5)]
    runs = [len(event["latencies_s"]) for event in said if event["event"] == "latencies"]
    assert sum(event["runs"] for event in minutes) == sum(runs)


def test_lines_are_never_long(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    interpreter = Steps(clock, [1 / 3 * 1e-4])
    runner.measure(interpreter, options(runs=1, duration_s=1.0), Samples())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 1 << 15
    assert sum(len(event["latencies_s"]) for event in events("\n".join(lines))) == interpreter.runs


@pytest.mark.parametrize(("values", "expected"), [([3.0], 3.0), ([3.0, 1.0], 2.0), ([9.0, 1.0, 2.0], 2.0)])
def test_median(values: list[float], expected: float) -> None:
    assert runner.median(values) == expected


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(runner, "open", missing, raising=False)
    yield


@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_peak_is_still_known() -> None:
    assert runner.process_memory() == {"rss_bytes": None, "pss_bytes": None, "anonymous_bytes": None}
    assert runner.peak_resident() > 10e6


def test_memory_is_that_of_this_process() -> None:
    before = runner.process_memory()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    after = runner.process_memory()
    for name in ("rss_bytes", "pss_bytes", "anonymous_bytes"):
        was, now = before[name], after[name]
        assert was is not None
        assert now is not None
        assert 48 << 20 < now - was < 80 << 20, name
    assert after["rss_bytes"] is not None
    assert runner.peak_resident() >= after["rss_bytes"] - (1 << 20)


def test_the_page_cache_is_told_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x" * 100_000)
    assert runner.cached(str(tmp_path / "model")) in {None, 1.0}  # just written
    (tmp_path / "empty").touch()
    assert runner.cached(str(tmp_path / "empty")) is None


def test_the_board_survives_a_model_that_is_too_large() -> None:
    code = (
        "from edgeeff.devices import runner; runner.be_the_first_to_go(); print(runner.process_text('oom_score_adj'))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert finished.stdout.strip() == "1000"
