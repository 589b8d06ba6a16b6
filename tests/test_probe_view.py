"""How a probe looks: every fact is there, and what is not readable is said."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from edgeeff.devices import probe_view
from edgeeff.results import CpuFrequency, EdgeTpu, EdgeTpuLibrary, FoundRuntime, Memory, ProbeRecord, Throttling
from tests.test_results import PROBE


def text(record: ProbeRecord) -> str:
    stream = io.StringIO()
    probe_view.render(record, Console(file=stream, width=200, highlight=False))
    return stream.getvalue()


def line(record: ProbeRecord, name: str) -> str:
    """The rest of the line that begins with that name."""
    return next(row for row in text(record).splitlines() if row.startswith(name)).removeprefix(name).strip()


def replaced(**changes: Any) -> ProbeRecord:
    return dataclasses.replace(PROBE, **changes)


def test_a_healthy_board() -> None:
    assert [row.split("  ")[0] for row in text(PROBE).splitlines()] == [
        *("Board", "System", "Python", "CPU", "Memory", "Swap", "Frequency", "Temperature", "Throttling", "Power"),
        *("Load", "Disk", "Runtime", "NumPy", "Edge TPU", "libedgetpu"),
    ]
    assert line(PROBE, "Board") == "Raspberry Pi 5 Model B Rev 1.0 (raspberrypi)"
    assert line(PROBE, "CPU") == "4 x Cortex-A76: asimd, asimddp"
    assert line(PROBE, "Frequency") == "1 x 2.40 GHz of 2.40 GHz, ondemand; measured 2.40 GHz"
    assert line(PROBE, "Throttling") == "not now; since the boot: under-voltage (0x10000)"
    assert line(PROBE, "Power") == "3.10 W on the rails that are measured, supply 5.06 V; the whole board takes more"
    assert line(PROBE, "Runtime") == "ai-edge-litert 2.3.0: works"
    assert line(PROBE, "Edge TPU") == "USB 3 (5000 Mbit/s), 1a6e:089a, not used since it was plugged in"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"device": dataclasses.replace(PROBE.device, emulated=True)}, "Board", "emulated: no figure of it is a real"),
        ({"memory": Memory(None, None, None, None)}, "Memory", "not readable"),
        ({"memory": Memory(None, None, None, None)}, "Swap", "not readable"),
        ({"memory": Memory(8 * 10**9, 10**9, 0, 0)}, "Swap", "none"),
        ({"memory": Memory(8 * 10**9, 5 * 10**8, 10**8, 10**7)}, "Swap", "10 MB of 100 MB in use"),
        ({"frequencies": ()}, "Frequency", "2.40 GHz as the firmware measures it"),
        ({"frequencies": (), "clock_hz": None}, "Frequency", "not readable"),
        (
            {"frequencies": (CpuFrequency(0, "powersave", None, 6 * 10**8, 10**9, 15 * 10**8),) * 4, "clock_hz": None},
            "Frequency",
            "4 x 0.60 GHz of 1.50 GHz, capped at 1.00 GHz, powersave",
        ),
        ({"zones": ()}, "Temperature", "not readable"),
        ({"throttling": None}, "Throttling", "not readable"),
        ({"throttling": Throttling(5, "vcgencmd", ("a", "b"), ())}, "Throttling", "now: a, b; since the boot: never"),
        ({"throttling": Throttling(0, "sysfs", (), ())}, "Throttling", "not now; since the last reading: never"),
        ({"throttling": Throttling(1, "hwmon", ("a",), ())}, "Throttling", "now: a (under-voltage is all that"),
        ({"rails_w": None}, "Power", "not readable"),
        ({"load_1m": None}, "Load", "not readable"),
        ({"runtimes": ()}, "Runtime", "none: neither LiteRT nor tflite-runtime"),
        (
            {"runtimes": (FoundRuntime("tflite-runtime", None, False, "[bad]"),)},
            "Runtime",
            "tflite-runtime of unknown version does not work: [bad]",
        ),
        ({"edge_tpus": (EdgeTpu("pcie", "1ac1:089a"),)}, "Edge TPU", "PCIe, without its driver"),
        (
            {"edge_tpus": (EdgeTpu("pcie", "x", device="/dev/apex_0", temperature_c=44.0),)},
            "Edge TPU",
            "/dev/apex_0, 44.0 C",
        ),
        (
            {"edge_tpus": (EdgeTpu("pcie", "x", None, 2500.0, "/dev/apex_0", 44.0, 85.0),)},
            "Edge TPU",
            "PCIe (2500 Mbit/s): slow, /dev/apex_0, 44.0 C, slower from 85 C on",
        ),
        ({"edge_tpus": (EdgeTpu("usb", "x", True, 480.0),)}, "Edge TPU", "USB 2 (480 Mbit/s): slow, x"),
        ({"edge_tpus": (EdgeTpu("usb", "x", True, 10000.0),)}, "Edge TPU", "USB (10000 Mbit/s), x"),
        ({"edge_tpus": (EdgeTpu("usb", "x", True),)}, "Edge TPU", "USB, x"),
        ({"edge_tpu_library": None}, "libedgetpu", "not found: the Edge TPU cannot be used without it"),
        ({"edge_tpu_library": EdgeTpuLibrary("/usr/lib/x", None, None, None)}, "libedgetpu", "/usr/lib/x"),
        (
            {"edge_tpu_library": EdgeTpuLibrary("x", None, None, None, None, "wrong ELF class")},
            "libedgetpu",
            "x, cannot be loaded: wrong ELF class",
        ),
        ({"hints": ("DMI says QEMU",)}, "Hint", "DMI says QEMU: this may be a virtual machine"),
    ],
)
def test_another_board(changes: dict[str, Any], name: str, words: str) -> None:
    assert words in line(replaced(**changes), name)
