"""What is made of the figures: processes to a record, boards to a fleet's summary, an older record to a comparison.

How they are measured is `profile`'s, whether they may be used `validity`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeeff.devices import events, validity
from edgeeff.devices.probe import throttle_names
from edgeeff.errors import DeviceError, InputError
from edgeeff.results import (
    BlockLatency,
    BoardState,
    BoardSummary,
    Comparison,
    CompiledFile,
    Device,
    EdgeTpuLibrary,
    EdgeTpuUse,
    EndToEnd,
    FleetSummary,
    Latency,
    Minute,
    ModelFile,
    ProfileRecord,
    Runtime,
    Verdict,
)
from edgeeff.statistics import outliers, ratio_interval, rising, spread, summarize_latency

FLEET = 4
"""From so many boards on, one that stands out is told from three that differ."""
CACHED = 0.9
"""A file of which so much is in the page cache is warm; cold, where so much is not."""


@dataclass(frozen=True)
class Run:
    """What one measuring process said, checked."""

    said: dict[str, events.Event]
    """The last event of each kind."""
    observation: validity.Observation
    minutes: tuple[Minute, ...]
    pss_bytes: int | None
    edge_tpu_library: EdgeTpuLibrary | None

    @classmethod
    def of(cls, said: Sequence[events.Event]) -> Run:
        """Gather a process's events; raises DeviceError when they are not those of a process that came to its end."""
        import msgspec

        last = {event["event"]: event for event in said}
        try:
            observation = validity.Observation.of(said)
            for event, names in _NEEDED.items():
                for name in names:
                    float(last[event][name])
            str(last["imported"]["runtime"]), str(last["imported"]["version"])
            minutes = tuple(msgspec.convert(event, Minute) for event in said if event["event"] == "minute")
            shares = [int(event["pss_bytes"]) for event in said if event.get("pss_bytes") is not None]
            library = msgspec.convert(last.get("edge_tpu_library"), EdgeTpuLibrary | None)
        except (KeyError, TypeError, ValueError) as error:
            raise DeviceError(f"what the runner said is not understood ({error!r}); is it ours, and whole?") from error
        latencies = observation.latencies_s
        if not len(latencies) or not np.isfinite(latencies).all() or latencies.min() <= 0:
            raise DeviceError("the runner gave no latencies, or some that are no times")
        return cls(last, observation, minutes, max(shares, default=None), library)


_NEEDED = {
    "imported": ("import_s", "rss_bytes"),
    "loaded": ("load_s",),
    "first": ("first_inference_s",),
    "done": ("wall_s", "cpu_s", "peak_rss_bytes"),
}


def record(
    runs: Sequence[Run],
    *,
    model: ModelFile,
    threads: int,
    mode: str,
    options: dict[str, float],
    target: str,
    device: Device,
    conditions: validity.Conditions,
    image: str | None = None,
    compiled: CompiledFile | None = None,
) -> ProfileRecord:
    """Summarize all processes of one file at one thread count, in their order.

    `compiled` is what a file for the Edge TPU says of itself, where that was read.
    """

    def every(event: str, name: str) -> list[Any]:
        return [run.said[event][name] for run in runs if run.said[event].get(name) is not None]

    def middle(event: str, name: str) -> float:
        return float(np.median(every(event, name)))

    first, loaded = runs[0].said["imported"], runs[0].said["loaded"]
    shares = [run.pss_bytes for run in runs if run.pss_bytes is not None]
    observations = [run.observation for run in runs]
    return ProfileRecord(
        runtime=Runtime(first["runtime"], first["version"], loaded.get("delegate", "xnnpack")),
        device=device,
        packages={"numpy": str(first["numpy"])} if "numpy" in first else {},
        model=model,
        threads=threads,
        mode=mode,
        latency=summarize_latency([observation.latencies_s for observation in observations]),
        import_s=middle("imported", "import_s"),
        load_s=middle("loaded", "load_s"),
        first_inference_s=middle("first", "first_inference_s"),
        peak_rss_bytes=int(max(every("done", "peak_rss_bytes"))),
        runtime_rss_bytes=int(middle("imported", "rss_bytes")),
        target=target,
        page_cache=_page_cache([run.said["loaded"].get("cached") for run in runs]),
        pss_bytes=max(shares, default=None),
        model_bytes=_model_bytes(runs),
        throughput_per_s=_throughput(observations),
        delegated_parts=loaded.get("delegated_parts"),
        minutes=runs[-1].minutes,
        time_to_throttle_s=validity.time_to_throttle(observations[-1]) if mode == "sustained" else None,
        end_to_end=_end_to_end(runs, image),
        board=_board([state for observation in observations for state in observation.states]),
        edge_tpu=_edge_tpu(runs, compiled),
        verdict=_verdict(observations, conditions, sustained=mode == "sustained"),
        options=options,
    )


def fleet(records: Iterable[ProfileRecord]) -> tuple[FleetSummary, ...]:
    """Summarize every file and thread count that was measured on two boards or more."""
    groups: dict[tuple[str, str, int], list[ProfileRecord]] = {}
    for one in records:
        groups.setdefault((one.model.sha256, one.model.path, one.threads), []).append(one)
    return tuple(_summary(group) for group in groups.values() if len(group) > 1)


def compare(before: ProfileRecord, after: ProfileRecord, *, force: bool = False) -> Comparison:
    """Say what changed between two records.

    Raises InputError when `before` has no figures of its processes, and, unless forced, when device, runtime, threads,
    delegate, emulation or the kind of measurement differ: the ratio would be theirs.
    """
    old, new = before.latency.process_p50_s, after.latency.process_p50_s
    if not old:
        raise InputError(
            "the older record is of version 1 and has no figures of its processes: measure it again to compare"
        )
    different = differences(before, after)
    if different and not force:
        raise InputError(
            f"the two records cannot be compared: {'; '.join(different)}. Measure in the same way, or use --force"
        )
    ratio, low, high = ratio_interval(np.array(old), np.array(new))
    return Comparison(
        after.model.path,
        after.target,
        after.threads,
        float(np.median(old)),
        float(np.median(new)),
        ratio,
        (low, high) if min(len(old), len(new)) > 1 else None,
        different,
    )


def differences(before: ProfileRecord, after: ProfileRecord) -> tuple[str, ...]:
    """Return what makes two records' latencies something else than those of two files."""

    def parts(one: ProfileRecord) -> dict[str, str]:
        device, runtime = one.device, one.runtime
        return {
            "device": f"{device.name} ({device.machine}, {device.cores} x {device.cpu})",
            "emulation": "emulated" if device.emulated else "not emulated",
            "runtime": f"{runtime.name} {runtime.version}" if runtime else "unknown",
            "delegate": runtime.delegate if runtime else "unknown",
            "threads": str(one.threads),
            "kind": "sustained" if one.mode == "sustained" else "repeated",
            "Edge TPU": _link(one.edge_tpu),
            "libedgetpu": _library(one.edge_tpu),
        }

    old, new = parts(before), parts(after)
    return tuple(f"{name} was {old[name]}, is {new[name]}" for name in old if old[name] != new[name])


def _link(use: EdgeTpuUse | None) -> str:
    one = use.edge_tpu if use is not None else None
    return f"on {one.bus}, {one.megabits_per_s} Mbit/s" if one is not None else "unknown"


def _library(use: EdgeTpuUse | None) -> str:
    # The packages for the normal and the highest clock have the same version.
    return f"{use.library.package} {use.library.version}" if use is not None else "unknown"


def by_block(parts: Sequence[tuple[str, int, int]], until: Sequence[float]) -> tuple[BlockLatency, ...]:
    """Return what each block takes: name, operators and MACs of each, and the seconds until its end.

    Where noise makes a longer network the faster one, the blocks in between share what is left.
    """
    ends = rising(np.array(until))
    takes = np.diff(ends, prepend=0.0)
    return tuple(
        BlockLatency(name, operators, macs, float(seconds), float(seconds / ends[-1]))
        for (name, operators, macs), seconds in zip(parts, takes, strict=True)
    )


def _summary(group: Sequence[ProfileRecord]) -> FleetSummary:
    p50s = np.array([one.latency.p50_s for one in group])
    between, within = spread([_processes(one.latency) for one in group])
    far, _ = outliers(p50s)
    return FleetSummary(
        group[0].model.path,
        group[0].threads,
        len(group),
        float(np.median(p50s)),
        float(p50s.min()),
        float(p50s.max()),
        between,
        within,
        tuple(one.target for one, is_far in zip(group, far, strict=True) if is_far) if len(group) >= FLEET else (),
    )


def _processes(latency: Latency) -> Any:
    return np.array(latency.process_p50_s or (latency.p50_s,))


def _page_cache(fractions: Sequence[float | None]) -> str:
    known = [fraction for fraction in fractions if fraction is not None]
    if len(known) < len(fractions) or not known:
        return "unknown"
    if min(known) >= CACHED:
        return "warm"
    return "cold" if max(known) <= 1 - CACHED else "mixed"


def _model_bytes(runs: Sequence[Run]) -> int | None:
    grown = [
        run.said["first"]["anonymous_bytes"] - run.said["imported"]["anonymous_bytes"]
        for run in runs
        if run.said["first"].get("anonymous_bytes") is not None
        and run.said["imported"].get("anonymous_bytes") is not None
    ]
    return max(0, int(np.median(grown))) if grown else None


def _edge_tpu(runs: Sequence[Run], compiled: CompiledFile | None) -> EdgeTpuUse | None:
    library = runs[0].edge_tpu_library
    if library is None:
        return None
    uploads = [run.said["first"]["first_inference_s"] - np.median(run.observation.latencies_s) for run in runs]
    degrees = [run.observation.edge_tpu_c(state) for run in runs for state in run.observation.states]
    return EdgeTpuUse(
        edge_tpu=next((run.observation.edge_tpu for run in runs if run.observation.edge_tpu is not None), None),
        library=library,
        parameter_upload_s=max(0.0, float(np.median(uploads))),
        cached_parameter_bytes=compiled.cached_parameter_bytes if compiled is not None else None,
        streamed_parameter_bytes=compiled.streamed_parameter_bytes if compiled is not None else None,
        cpu_operators=compiled.cpu_operators if compiled is not None else None,
        minimum_runtime=compiled.minimum_runtime if compiled is not None else None,
        start_temperature_c=degrees[0] if degrees else None,
        max_temperature_c=max((value for value in degrees if value is not None), default=None),
    )


def _throughput(observations: Sequence[validity.Observation]) -> float | None:
    wall = sum(observation.wall_s or 0.0 for observation in observations)
    return sum(len(observation.latencies_s) for observation in observations) / wall if wall > 0 else None


def _end_to_end(runs: Sequence[Run], image: str | None) -> EndToEnd | None:
    steps = [run.said["end_to_end"] for run in runs if "end_to_end" in run.said]
    if image is None or not steps:
        return None
    names = ("decode_s", "resize_s", "quantize_s", "invoke_s", "total_s")
    pooled = {name: np.concatenate([step[name] for step in steps]) for name in names}
    return EndToEnd(
        image,
        len(pooled["total_s"]),
        **{name: float(np.median(values)) for name, values in pooled.items()},
        total_p90_s=float(np.percentile(pooled["total_s"], 90)),
    )


def _board(states: Sequence[BoardState]) -> BoardSummary:
    measured = [state for state in states if state.phase == "measure"]
    degrees = [state.temperature_c for state in states if state.temperature_c is not None]
    hertz = [float(cpu.current_hz) for state in measured for cpu in state.cpus if cpu.current_hz is not None]
    bits = 0
    for state in measured:
        bits |= state.throttled or 0
    start = states[0] if states else None
    return BoardSummary(
        samples=len(measured),
        start_temperature_c=start.temperature_c if start else None,
        max_temperature_c=max(degrees, default=None),
        min_hz=min(hertz, default=None),
        max_hz=max(hertz, default=None),
        throttled=throttle_names(bits)[0],
        start_load_1m=start.load_1m if start else None,
        min_available_bytes=min(
            (state.available_bytes for state in states if state.available_bytes is not None), default=None
        ),
        max_swap_used_bytes=max(
            (state.swap_used_bytes for state in states if state.swap_used_bytes is not None), default=None
        ),
    )


def _verdict(
    observations: Sequence[validity.Observation], conditions: validity.Conditions, *, sustained: bool
) -> Verdict:
    if sustained:  # it lasts by the clock, however few runs that makes
        conditions = dataclasses.replace(conditions, runs=1)
    return validity.verdict(observations, conditions)
