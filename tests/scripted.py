"""A board that says what a test tells it to: a transport without a machine behind it, quick and exact."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from edgeeff.devices.targets import Target
from edgeeff.devices.transport import Completed, Input, Lines

Event = dict[str, Any]
STATE: Event = {
    "event": "state",
    "phase": "start",
    "at_s": 0.1,
    "cpus": [],
    "clock_hz": None,
    "temperature_c": 45.0,
    "throttled": 0,
    "load_1m": 0.1,
    "cpu_s": 0.1,
    "busy_s": 100.0,
    "stolen_s": 0.0,
    "quota_wait_s": None,
    "available_bytes": 900_000_000,
    "swap_used_bytes": 0,
    "swapped_in_bytes": 0,
}
PROBE: Event = {
    "event": "probe",
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "hostname": "raspberrypi",
    "system": {"name": "Debian", "id": "debian", "version": "12", "kernel": "6.6.31", "machine": "aarch64"},
    "python": {
        "version": "3.11.2",
        "executable": "/usr/bin/python3",
        "bits": 64,
        "multiarch": None,
        "libc": None,
        "venv": True,
        "pip": None,
        "numpy": "1.26.4",
    },
    "cpu": {"name": "Cortex-A72", "cores": 4, "features": []},
    "memory": {"total_bytes": None, "available_bytes": None, "swap_total_bytes": None, "swap_used_bytes": None},
    "frequencies": [],
    "clock_hz": None,
    "zones": [],
    "throttled": None,
    "throttled_source": None,
    "rails": [],
    "load_1m": None,
    "disks": [],
    "runtimes": [{"name": "tflite-runtime", "version": "2.14.0", "works": True, "problem": None}],
    "edge_tpus": [],
    "edge_tpu_library": None,
    "hints": [],
}


def story(latency_s: float = 0.01, *, runs: int = 30, temperature_c: float | None = 45.0) -> list[Event]:
    """What a process says in which all is well."""
    state = STATE | {"temperature_c": temperature_c}
    return [
        state,
        {
            "event": "imported",
            "import_s": 0.5,
            "runtime": "tflite-runtime",
            "version": "2.14.0",
            "numpy": "1.26.4",
            "rss_bytes": 30_000_000,
            "pss_bytes": 25_000_000,
            "anonymous_bytes": 10_000_000,
        },
        {"event": "loaded", "load_s": 0.02, "cached": 1.0, "delegate": "xnnpack", "delegated_parts": 1},
        {"event": "first", "first_inference_s": 0.03, "anonymous_bytes": 14_000_000, "pss_bytes": 31_000_000},
        {"event": "warm", "runs": 10, "stable": True},
        state | {"phase": "warm-up", "at_s": 1.0, "cpu_s": 1.0, "busy_s": 101.0},
        {"event": "latencies", "at_s": 1.0, "latencies_s": [latency_s] * runs},
        state | {"phase": "measure", "at_s": 2.0, "cpu_s": 2.0, "busy_s": 102.0},
        {
            "event": "done",
            "wall_s": latency_s * runs,
            "cpu_s": latency_s * runs,
            "involuntary_switches": 0,
            "major_faults": 0,
            "peak_rss_bytes": 50_000_000,
            "rss_bytes": 40_000_000,
        },
    ]


EDGE_TPU_LIBRARY: Event = {
    "event": "edge_tpu_library",
    "path": "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1.0",
    "package": "libedgetpu1-std",
    "version": "16.0",
    "says": "BuildLabel(N/A), RuntimeVersion(14)",
    "runtime": 14,
    "problem": None,
}
EDGE_TPU: Event = {
    "event": "edge_tpu",
    "bus": "pcie",
    "id": "1ac1:089a",
    "device": "/dev/apex_0",
    "megabits_per_s": 5000.0,
    "temperature_c": 44.0,
    "throttle_c": 84.8,
}


def edge_tpu_story(latency_s: float = 0.01, *, degrees: float | None = 44.0, **link: Any) -> list[Event]:
    """The same on an Edge TPU; its temperature, and what is different of its link."""
    warmth = {"/dev/apex_0": degrees} if degrees is not None else {}
    changes: dict[str, Event] = {"loaded": {"delegate": "edgetpu"}, "state": {"edge_tpus_c": warmth}}
    said = [event | changes.get(event["event"], {}) for event in story(latency_s)]
    return [said[0], EDGE_TPU_LIBRARY, *said[1:4], EDGE_TPU | link, *said[4:]]


@dataclass
class Answer:
    """What a process does: its events, or other lines; then it fails, or ends with a status."""

    said: Sequence[Event | str] = field(default_factory=story)
    status: int = 0
    stderr: str = ""
    raises: BaseException | None = None
    answers: Callable[[Input], AsyncIterator[Event | str]] | None = None
    """What it says to its input, after that and before it ends."""


class Scripted:
    """A transport whose measuring processes answer what `answer` says of their options and their number, from 1."""

    def __init__(self, name: str, answer: Callable[[dict[str, Any], int], Answer]) -> None:
        self.name = name
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.temperatures: list[float | None] = []
        self.probe = PROBE
        self.closed = False

    async def run(self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float) -> Completed:
        asked = json.loads(argv[-1]) if argv[-1].startswith("{") else {}
        if asked.get("mode") == "probe":
            return Completed(0, "Welcome!\n" + json.dumps(self.probe) + "\n", "")
        if asked.get("mode") == "state":
            return Completed(0, json.dumps(STATE | {"temperature_c": self.temperatures.pop(0)}) + "\n", "")
        if argv[0] == "sha256sum":
            content = self.files.get(argv[1])
            if content is None:
                return Completed(1, "", f"sha256sum: {argv[1]}: No such file or directory\n")
            return Completed(0, f"{hashlib.sha256(content).hexdigest()}  {argv[1]}\n", "")
        return Completed(0, "made\n", "")

    @asynccontextmanager
    async def stream(self, argv: Sequence[str], *, stdin: Input = None, time_limit_s: float) -> AsyncIterator[Lines]:
        options = json.loads(argv[-1])
        self.asked.append(options)
        yield cast(Lines, _Said(self.answer(options, len(self.asked)), stdin))

    async def put(self, local: Path, remote: str, *, time_limit_s: float = 1.0) -> None:
        self.puts.append(remote)
        self.files[remote] = local.read_bytes()

    async def get(self, remote: str, local: Path, *, time_limit_s: float = 1.0) -> None:
        local.write_bytes(self.files[remote])

    async def exists(self, remote: str) -> bool:
        return remote in self.files

    async def remove(self, remote: str) -> None:
        for path in [path for path in self.files if path == remote or path.startswith(remote + "/")]:
            del self.files[path]

    async def close(self) -> None:
        self.closed = True


class _Said:
    def __init__(self, answer: Answer, stdin: Input) -> None:
        self._answer = answer
        self._stdin = stdin
        self.status: int | None = None
        self.stderr = ""

    async def __aiter__(self) -> AsyncIterator[str]:
        for item in self._answer.said:
            await asyncio.sleep(0)  # others may go on
            yield item if isinstance(item, str) else json.dumps(item)
        if self._answer.answers is not None:
            async for item in self._answer.answers(self._stdin):
                yield item if isinstance(item, str) else json.dumps(item)
        if self._answer.raises is not None:
            raise self._answer.raises
        self.status, self.stderr = self._answer.status, self._answer.stderr


@dataclass
class Lab:
    """Scripted boards by their names, and the targets that lead to them."""

    boards: dict[str, Scripted]
    open: int = 0
    most: int = 0

    @classmethod
    def of(cls, *names: str, answer: Callable[[dict[str, Any], int], Answer] | None = None) -> Lab:
        """Boards on which all is well."""
        return cls({name: Scripted(name, answer or (lambda options, number: Answer())) for name in names})

    @property
    def targets(self) -> list[Target]:
        return [Target(name, f"ssh://pi@{name}", python="python3") for name in self.boards]

    @asynccontextmanager
    async def connect(self, target: Target) -> AsyncIterator[Any]:
        self.open += 1
        self.most = max(self.most, self.open)
        board = self.boards[target.name]
        try:
            yield board
        finally:
            self.open -= 1
            await board.close()
