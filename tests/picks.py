"""Records of picks that tests look at: figures that are easy to follow, on a board that is made up."""

from __future__ import annotations

from dataclasses import replace

from edgeeff.picking.ladder import ladder
from edgeeff.results import Device, PickCandidate, PickChange, PickLatency, PickLimits, PickRecord, Runtime

BOARD = Device("Raspberry Pi 4 Model B Rev 1.4", "aarch64", "Linux 6.6.31", "Cortex-A72", 4)
FIGURES = {"lite0": (0.0125, True), "lite1": (0.01875, False), "lite2": (0.025, True), "lite3": (0.04, True)}
"""Seconds, and whether they are measured."""


def candidate(name: str, status: str, seconds: float | None, measured: bool) -> PickCandidate:
    one = next(one for one in ladder("lite", "int8") if one.name == name)
    # Figures of their own: what is predicted of a network may be improved.
    size = one.parameters * 115 // 100
    memory = 45_000_000 + 3 * size
    interval = None if seconds is None else (seconds * 0.98, seconds * 1.02)
    source = f"edgeeff-pick/{name}_int8.pi4.t1.quick.profile.json"
    return PickCandidate(
        name=name,
        phi=one.network.phi,
        depth=one.network.depth,
        width=one.network.width,
        resolution=one.network.resolution,
        parameters=one.parameters,
        macs=one.macs,
        top1=one.top1,
        top1_source=one.top1_source,
        predicted_size_bytes=size,
        size_bytes=size + 10_000 if measured else None,
        predicted_memory_bytes=memory,
        peak_memory_bytes=memory + 4_000_000 if measured else None,
        predicted_s=seconds,
        predicted_interval_s=None if seconds is None else (seconds * 0.9, seconds * 1.1),
        latency_s=seconds if measured else None,
        interval_s=interval if measured else None,
        latencies=(PickLatency("pi4", "measured", seconds or 0.0, interval, 60_000_000, source),) if measured else (),
        gain_per_ms=None if name == "lite0" else 0.25,
        status=status,
        by="measured" if measured else "predicted",
        limit=None if status == "fits" else "latency",
    )


PICK = PickRecord(
    edgeeff_version="0.1.0",
    created="2026-01-31T12:34:56+00:00",
    runtime=Runtime("ai-edge-litert", "2.3.0"),
    device=BOARD,
    packages={"numpy": "2.4.6"},
    family="lite",
    scheme="int8",
    threads=1,
    targets=("pi4",),
    recorded=(),
    limits=PickLimits(0.03, 90),
    candidates=(
        candidate("lite0", "fits", 0.0125, measured=True),
        candidate("lite1", "fits", 0.01875, measured=False),
        candidate("lite2", "fits", 0.025, measured=True),
        candidate("lite3", "does not fit", 0.04, measured=True),
        candidate("lite4", "does not fit", 0.08, measured=False),
    ),
    winner="lite2",
    margin=0.1667,
    runner_up="lite3",
    runner_up_margin=-0.3333,
    certain=True,
    doubts=(),
    decides="latency",
    changes=(
        PickChange("budget", "lite3 needs 40.8ms", "--budget 40.8ms"),
        PickChange("resolution", "lite3 at 240 px instead of 280", "--resolution 240", 0.0285, (0.0275, 0.0295)),
        PickChange("threads", "more threads: the device has 4 cores", "--threads 4"),
    ),
    warnings=(),
    fitted=("lite0", "lite2", "lite3"),
    measured=3,
    seconds=75.25,
    command="edgeeff convert --variant lite2 --scheme int8",
)
DOUBTFUL = replace(
    PICK,
    candidates=(
        *PICK.candidates[:2],
        replace(PICK.candidates[2], status="not separable", limit="latency", interval_s=(0.0245, 0.0305)),
        *PICK.candidates[3:],
    ),
    winner="lite1",
    margin=0.375,
    runner_up="lite2",
    runner_up_margin=0.1667,
    certain=False,
    doubts=("lite2 takes 25.0 ms (24.5 ms to 30.5 ms): the budget of 30.0 ms is inside",),
    warnings=("lite2 took 25 ms first, and 29 ms when it was measured again: the device drifts",),
    device=replace(BOARD, emulated=True),
    command="edgeeff convert --variant lite1 --scheme int8",
)
NOTHING = replace(
    PICK,
    targets=("recorded:ours",),
    recorded=("measured by us, 2026-01-31",),
    limits=PickLimits(0.01, 90),
    candidates=tuple(replace(one, status="does not fit", limit="latency", by="recorded") for one in PICK.candidates),
    winner=None,
    margin=None,
    runner_up=None,
    runner_up_margin=None,
    measured=0,
    command=None,
)
