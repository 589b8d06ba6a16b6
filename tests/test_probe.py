"""What a board is: the runner's answer becomes a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeeff.devices import probe, runner
from edgeeff.errors import DeviceError
from edgeeff.results import EdgeTpu, Rail, Runtime, read_record, this_device, to_json
from tests import board_trees as boards


def answer(board: boards.Board | None = None, *python: str) -> list[str]:
    """The lines that the runner says of a board, or of this machine; with -S it finds no runtime, and is quick."""
    asked = json.loads(probe.REQUEST) | ({"root": str(board.root)} if board else {})
    command = [sys.executable, *python, runner.__file__, json.dumps(asked)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def changed(lines: list[str], **fields: Any) -> list[str]:
    (line,) = lines
    return [json.dumps(json.loads(line) | fields)]


@pytest.fixture(scope="module")
def pi5(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return answer(boards.pi5(tmp_path_factory.mktemp("pi5")), "-S")


def test_a_pi_5_is_described(pi5: list[str], tmp_path: Path) -> None:
    record = probe.read(["Linux pi5 6.6.31", "", *pi5])
    assert record.device.name == record.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (record.device.machine, record.device.system) == ("aarch64", "Linux 6.6.31+rpt-rpi-2712")
    assert (record.device.cpu, record.device.cores, record.device.emulated) == ("Cortex-A76", 4, False)
    assert "asimddp" in record.cpu.features  # the dot product
    assert record.throttling is not None
    assert (record.throttling.bits, record.throttling.now, record.throttling.since_boot) == (0, (), ())
    assert record.rails_w == pytest.approx(sum(volts * amperes for volts, amperes in boards.PI5_RAILS.values()))
    assert record.rails_w == pytest.approx(3.70, abs=0.01)
    assert Rail("EXT5V", 5.06788, None) in record.rails
    assert (record.runtime, record.runtimes, record.python.numpy) == (None, (), None)
    (tmp_path / "probe.json").write_text(to_json(record))
    assert read_record(tmp_path / "probe.json") == record


def test_emulated_is_what_the_target_says(pi5: list[str]) -> None:
    assert probe.read(pi5, emulated=True).device.emulated
    assert not probe.read(changed(pi5, hints=["DMI says QEMU"])).device.emulated


def test_throttling_has_names(tmp_path: Path) -> None:
    record = probe.read(answer(boards.throttled(boards.pi4(tmp_path)), "-S"))
    assert record.throttling is not None
    assert record.throttling.now == record.throttling.since_boot == ("frequency capped", "throttled")
    assert record.throttling.source == "vcgencmd"


@pytest.mark.parametrize(
    ("bits", "now", "before"),
    [
        (0x0, (), ()),
        (0x1, ("under-voltage",), ()),
        (0x80008, ("soft temperature limit",), ("soft temperature limit",)),
        (0x50000, (), ("under-voltage", "throttled")),
        (0xF000F, probe.THROTTLE_BITS, probe.THROTTLE_BITS),
        (0xFFF0, (), ()),  # bits that mean nothing
    ],
)
def test_bits_are_named(bits: int, now: tuple[str, ...], before: tuple[str, ...]) -> None:
    assert probe.throttle_names(bits) == (now, before)


def test_a_coral_dev_board_has_its_edge_tpu(tmp_path: Path) -> None:
    record = probe.read(answer(boards.coral_dev_board(tmp_path), "-S"))
    (edge_tpu,) = record.edge_tpus
    assert (edge_tpu.bus, edge_tpu.device, edge_tpu.megabits_per_s) == ("pcie", "/dev/apex_0", 5000.0)
    assert edge_tpu.temperature_c == pytest.approx(43.8)
    assert edge_tpu.throttle_c == pytest.approx(84.8)
    assert record.edge_tpu_library is not None
    assert (record.edge_tpu_library.package, record.edge_tpu_library.version) == ("libedgetpu1-std", "16.0")
    assert record.throttling is None


def test_an_edge_tpu_on_usb(tmp_path: Path) -> None:
    record = probe.read(answer(boards.usb_edge_tpu(boards.pi4(tmp_path)), "-S"))
    device = "/dev/bus/usb/002/003"
    assert record.edge_tpus == (EdgeTpu("usb", "1a6e:089a", False, megabits_per_s=5000.0, device=device),)
    assert record.edge_tpu_library is None


def test_nothing_readable_is_a_record_all_the_same(tmp_path: Path) -> None:
    record = probe.read(answer(boards.nothing(tmp_path), "-S"))
    assert record.board is None
    assert record.device.name == record.hostname == os.uname().nodename
    assert record.device.cpu == "unknown"
    assert record.memory.total_bytes is None
    assert (record.throttling, record.rails_w, record.load_1m, record.edge_tpu_library) == (None, None, None, None)


def test_this_machine_is_the_one_that_other_records_name() -> None:
    record = probe.read(answer())
    here = this_device()
    assert (record.device.name, record.device.machine, record.device.system) == (here.name, here.machine, here.system)
    assert record.runtime is not None
    assert record.runtime.name == "ai-edge-litert"
    assert record.python.executable == sys.executable
    assert record.load_1m is not None


def test_the_runtime_is_the_first_that_works(pi5: list[str]) -> None:
    broken = {"name": "ai-edge-litert", "version": "2.3.0", "works": False, "problem": "crashed with SIGILL"}
    works = {"name": "tflite-runtime", "version": None, "works": True, "problem": None}
    record = probe.read(changed(pi5, runtimes=[broken, works]))
    assert record.runtime == Runtime("tflite-runtime", "unknown")
    assert [runtime.problem for runtime in record.runtimes] == ["crashed with SIGILL", None]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "the board did not answer the probe; it said: nothing at all"),
        (["bash: python3: command not found"], "it said:\n  bash: python3: command not found"),
        (['{"event": "error", "kind": "python", "message": "edgeeff needs Python 3.9"}'], "edgeeff needs Python 3.9"),
        (['{"event": "probe"}'], "is not understood"),
    ],
)
def test_no_answer_is_a_device_error(lines: list[str], words: str) -> None:
    with pytest.raises(DeviceError) as caught:
        probe.read(lines)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"cpu": "fast"}, {"load_1m": "high"}, {"rails": [{"name": "A"}]}, {"throttled": "0x0"}, {"runtimes": None}],
)
def test_an_answer_of_another_shape_is_a_device_error(pi5: list[str], fields: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="is not understood"):
        probe.read(changed(pi5, **fields))
