"""The measuring protocol: fresh processes, warm-up, interleaving, and what is made of their figures.

`runner` is what runs in each process. Files that are to be compared are measured in turn, a process each, so that a
machine that drifts drifts for all of them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeeff.devices import events, runner
from edgeeff.errors import DeviceError
from edgeeff.results import ModelFile, ProfileRecord, Runtime, this_device
from edgeeff.statistics import summarize_latency

START_LIMIT_S = 60.0
"""Time that a process may take to import, load and end."""
SLOWEST_RUN_S = 10.0
"""A process whose runs take longer than this counts as hung; it is far beyond B7 on one core."""


@dataclass(frozen=True)
class Protocol:
    """How long and how often to measure."""

    mode: str
    processes: int
    options: dict[str, float] = field(default_factory=dict)
    """What differs from the runner's own defaults."""

    @property
    def time_limit_s(self) -> float:
        """How long one process may take before it counts as hung."""
        options = runner.DEFAULTS | self.options
        measuring = options["warmup_limit_s"] + options["duration_s"] + options["runs"] * SLOWEST_RUN_S
        return float(START_LIMIT_S + measuring)


FULL = Protocol("full", processes=5)
QUICK = Protocol("quick", processes=3, options={"warmup_s": 0.3, "runs": 20, "duration_s": 1.0, "warmup_limit_s": 5.0})


def measure(
    files: Sequence[Path], *, threads: int = 1, protocol: Protocol = FULL, tick: Callable[[], None] = lambda: None
) -> tuple[ProfileRecord, ...]:
    """Measure files on this machine, interleaved process by process; one record for each file, in order.

    Raises DeviceError when a measuring process fails, with the end of what it said, or takes too long; ModelError when
    the model is the cause.
    """
    said: list[list[list[dict[str, Any]]]] = [[] for _ in files]
    for _ in range(protocol.processes):
        for index, file in enumerate(files):
            said[index].append(_one_process(file, threads, protocol))
            tick()
    return tuple(_record(file, threads, protocol, runs) for file, runs in zip(files, said, strict=True))


def _one_process(file: Path, threads: int, protocol: Protocol) -> list[dict[str, Any]]:
    options = protocol.options | {"model": str(file), "threads": threads}
    command = [sys.executable, str(Path(runner.__file__)), json.dumps(options)]
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=protocol.time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"measuring {file} took longer than {protocol.time_limit_s:.0f} s and was stopped") from error
    said = list(events.read(finished.stdout.splitlines()))
    if finished.returncode != 0:
        code = finished.returncode
        status = f"status {code}" if code > 0 else signal.Signals(-code).name
        end = "\n".join(finished.stderr.strip().splitlines()[-5:])
        raise DeviceError(f"measuring {file} failed with {status}:\n{end}")
    if not said:
        raise DeviceError(f"measuring {file} gave no figures but: {finished.stdout[:500]}")
    return said


def _record(file: Path, threads: int, protocol: Protocol, processes: Sequence[list[dict[str, Any]]]) -> ProfileRecord:
    def every(event: str, key: str) -> list[Any]:
        return [line[key] for process in processes for line in process if line["event"] == event]

    latencies = [
        np.concatenate([line["latencies_s"] for line in process if line["event"] == "latencies"])
        for process in processes
    ]
    return ProfileRecord(
        runtime=Runtime(every("imported", "runtime")[0], every("imported", "version")[0]),
        device=this_device(),
        model=ModelFile.of(file),
        threads=threads,
        mode=protocol.mode,
        latency=summarize_latency(latencies),
        import_s=float(np.median(every("imported", "import_s"))),
        load_s=float(np.median(every("loaded", "load_s"))),
        first_inference_s=float(np.median(every("first", "first_inference_s"))),
        peak_rss_bytes=int(max(every("done", "peak_rss_bytes"))),
        runtime_rss_bytes=int(np.median(every("imported", "rss_bytes"))),
    )
