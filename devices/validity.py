"""Whether figures may go into a report: what was measured and what the board was doing, judged.

Every cause of doubt is a type with its evidence and a sentence on what to do. Most make a measurement invalid; a few
are warnings. Nothing here reads a board or measures: `Observation.of` takes what one measuring process said.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgeeff.devices.probe import STICKY, throttle_names
from edgeeff.results import BoardState, CpuFrequency, EdgeTpu, Reason, Verdict
from edgeeff.statistics import Samples

DRIFT = 0.05
"""The first and the last third's p50 may differ by this fraction."""
FULL_SPEED = 0.98
"""A frequency above this fraction of its maximum is the maximum."""
SHARE_OF_SAMPLES = 0.1
"""So many of the samples may be off, for frequencies and throttling are read at moments."""
OWN_CPU = 0.95
"""Less CPU time than this fraction of wall time, and somebody else had the CPU."""
NEIGHBOURS = 0.2
"""CPUs that other processes may keep busy on the whole: a desktop at rest takes 0.02 to 0.1."""
STOLEN = 0.01
"""Fraction of the time that a virtual machine's host may give to others."""
QUOTA = 0.01
"""Fraction of the time that a CPU quota may hold the process back."""
DELEGATED = 0.9
"""A delegate that takes less than this fraction of the operators has not really run the model."""
HOT_MARGIN_C = 10.0
"""A start closer than this to the limit leaves no room to get warm."""
COOLED_C = 3.0
"""A start is as cool as the one before when it is within this."""
FULL_LINK = 5000.0
"""Megabits per second that an Edge TPU can use: USB 3.0, or PCIe 2.0 with one lane (Coral's data sheets)."""

CAPPED_BITS, SOFT_LIMIT_BIT, UNDER_VOLTAGE_BIT = 0b0110, 0b1000, 0b0001
PERFORMANCE = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
OWN_GOVERNORS = {"intel_pstate", "amd-pstate-epp"}
"""Drivers whose "powersave" is their normal way of scaling, not the lowest frequency."""


# --- What is judged ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Observation:
    """What one measuring process said: latencies in seconds in their order, and the board's states among them."""

    latencies_s: Samples
    states: tuple[BoardState, ...] = ()
    stable: bool = True
    wall_s: float | None = None
    """Of the timed stretches; None when the process did not come to its end."""
    cpu_s: float | None = None
    involuntary_switches: int = 0
    delegated: tuple[int, int] | None = None
    """Operators that the delegate took, and all of them; None when there is no delegate or nobody tells."""
    edge_tpu: EdgeTpu | None = None
    """The one that was used; None when it was none, or nobody tells."""

    @classmethod
    def of(cls, events: Iterable[dict[str, Any]]) -> Observation:
        """Gather a process's events, also when the last ones are missing; raises msgspec.ValidationError."""
        import msgspec

        latencies: list[float] = []
        states: list[BoardState] = []
        fields: dict[str, Any] = {}
        for event in events:
            if event["event"] == "latencies":
                latencies += event["latencies_s"]
            elif event["event"] == "state":
                states.append(msgspec.convert(event, BoardState))
            elif event["event"] == "loaded" and event.get("delegated_parts") and event.get("operators"):
                fields["delegated"] = event["delegated_operators"], event["operators"]
            elif event["event"] == "edge_tpu":
                fields["edge_tpu"] = msgspec.convert(event, EdgeTpu)
            elif event["event"] == "warm":
                fields["stable"] = event["stable"]
            elif event["event"] == "done":
                fields |= {name: event[name] for name in ("wall_s", "cpu_s", "involuntary_switches")}
        return cls(np.array(latencies, np.float64), tuple(states), **fields)

    @property
    def measured(self) -> tuple[BoardState, ...]:
        """The states between timed stretches."""
        return tuple(state for state in self.states if state.phase == "measure")

    def edge_tpu_c(self, state: BoardState) -> float | None:
        """Return the temperature that the Edge TPU that was used had in a state; None where it does not tell."""
        return state.edge_tpus_c.get(self.edge_tpu.device or "") if self.edge_tpu is not None else None

    def change(self, value: Callable[[BoardState], float | None]) -> tuple[float, float] | None:
        """Return by how much a sum grew while it was measured, and in how many seconds; None when that is unknown."""
        last = self.states[-1] if self.states and self.states[-1].phase == "measure" else None
        first = next((state for state in reversed(self.states) if state.phase != "measure"), None)
        if first is None or last is None:
            return None
        before, after = value(first), value(last)
        if before is None or after is None or last.at_s <= first.at_s:
            return None
        return after - before, last.at_s - first.at_s


@dataclass(frozen=True)
class Conditions:
    """What was asked for, and what is known of the board."""

    threads: int = 1
    delegate: str = "auto"
    runs: int = 200
    """At least, in each process."""
    limit_c: float = 80.0
    """Where the board begins to slow down: 80 on a Raspberry Pi, 60 on the 3B+."""
    start_c: float | None = None
    """The temperature that the board had before the first measurement."""


# --- What can be wrong ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cause(ABC):
    """One cause of doubt with its evidence."""

    invalidates: ClassVar[bool] = True

    @property
    def text(self) -> str:
        """What was seen and what to do."""
        return self._text()

    @abstractmethod
    def _text(self) -> str: ...

    @property
    def name(self) -> str:
        """The type's name in small letters: under-voltage."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    def reason(self) -> Reason:
        """Return it as a record keeps it."""
        figures = {name: value for name, value in dataclasses.asdict(self).items() if isinstance(value, (int, float))}
        return Reason(self.name, self.invalidates, self.text, figures)


@dataclass(frozen=True)
class Drift(Cause):
    """Latency changed while it was measured."""

    first_s: float
    last_s: float

    def _text(self) -> str:
        change = self.last_s / self.first_s - 1
        way = "rose" if change > 0 else "fell"
        return (
            f"p50 {way} by {abs(change):.0%} from the first to the last third ({_ms(self.first_s)} to "
            f"{_ms(self.last_s)}); let the board settle, cool it, and measure again"
        )


@dataclass(frozen=True)
class BelowMaximum(Cause):
    """The CPU ran slower than it may."""

    cpu_hz: float
    maximum_hz: float
    share: float

    def _text(self) -> str:
        return (
            f"the CPU ran at {_ghz(self.cpu_hz)}, not {_ghz(self.maximum_hz)}, in {self.share:.0%} of the samples; "
            f"set the governor to performance: {PERFORMANCE}"
        )


@dataclass(frozen=True)
class Capped(Cause):
    """The CPU may not run as fast as it can."""

    limit_hz: float
    hardware_hz: float

    def _text(self) -> str:
        return (
            f"the CPU's frequency is capped at {_ghz(self.limit_hz)}, it can do {_ghz(self.hardware_hz)}; write "
            f"{self.hardware_hz / 1e3:.0f} to /sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq"
        )


@dataclass(frozen=True)
class Powersave(Cause):
    """The governor keeps the CPU at its lowest frequency."""

    cpu_hz: float | None

    def _text(self) -> str:
        speed = f" ({_ghz(self.cpu_hz)})" if self.cpu_hz is not None else ""
        return f"the governor powersave keeps the CPU at its lowest frequency{speed}; choose another: {PERFORMANCE}"


@dataclass(frozen=True)
class Throttled(Cause):
    """The firmware slowed the CPU down."""

    share: float
    after_s: float
    temperature_c: float | None

    def _text(self) -> str:
        warmth = f" at {self.temperature_c:.0f} C" if self.temperature_c is not None else ""
        return (
            f"the board throttled in {self.share:.0%} of the samples, first after {self.after_s:.0f} s{warmth}; "
            "cool it better, or use a stronger supply"
        )


@dataclass(frozen=True)
class SoftLimit(Cause):
    """The board reached its soft temperature limit and lowered its frequency."""

    share: float
    temperature_c: float | None

    def _text(self) -> str:
        warmth = f" ({self.temperature_c:.0f} C)" if self.temperature_c is not None else ""
        return (
            f"the soft temperature limit was active in {self.share:.0%} of the samples{warmth}; cool the board better"
        )


@dataclass(frozen=True)
class UnderVoltage(Cause):
    """The supply was too weak."""

    share: float

    def _text(self) -> str:
        return (
            f"the supply voltage was too low in {self.share:.0%} of the samples; use the board's own supply and a "
            "short, thick cable"
        )


@dataclass(frozen=True)
class ThrottledBetween(Cause):
    """It happened while nobody looked: a bit that remembers went on."""

    what: tuple[str, ...]

    def _text(self) -> str:
        return (
            f"{' and '.join(self.what)} happened between two samples while it was measured; cool the board better, "
            "or use a stronger supply"
        )


@dataclass(frozen=True)
class ThrottledBefore(Cause):
    """It happened since the boot, but before."""

    invalidates: ClassVar[bool] = False
    what: tuple[str, ...]

    def _text(self) -> str:
        return (
            f"{' and '.join(self.what)} happened since the boot, before this measurement; what happened between its "
            "samples cannot be told apart from that: restart the board to be sure"
        )


@dataclass(frozen=True)
class Swapping(Cause):
    """Memory was read back from swap."""

    swapped_in_bytes: int

    def _text(self) -> str:
        return (
            f"{self.swapped_in_bytes / 1e6:.1f} MB were read back from swap while it was measured; close other "
            "programs, or take a smaller model"
        )


@dataclass(frozen=True)
class SwapInUse(Cause):
    """Some memory was in swap, and stayed there."""

    invalidates: ClassVar[bool] = False
    swap_used_bytes: int

    def _text(self) -> str:
        return (
            f"{self.swap_used_bytes / 1e6:.0f} MB of swap are in use; nothing was read back while it was measured, but "
            "memory is short"
        )


@dataclass(frozen=True)
class Starved(Cause):
    """The process wanted the CPU and did not get it."""

    cpu_share: float
    involuntary_switches: int

    def _text(self) -> str:
        return (
            f"a busy neighbour: the process had the CPU for {self.cpu_share:.0%} of the time only and was interrupted "
            f"{self.involuntary_switches} times; stop other programs, or lift its CPU limit"
        )


@dataclass(frozen=True)
class Neighbours(Cause):
    """Other processes worked, too."""

    cpus: float

    def _text(self) -> str:
        return (
            f"a busy neighbour: other processes kept {self.cpus:.1f} CPUs busy on average; stop them (top shows which) "
            "and measure again"
        )


@dataclass(frozen=True)
class Loaded(Cause):
    """The board was busy before, and does not tell with what."""

    load_1m: float

    def _text(self) -> str:
        return f"a busy neighbour: the load average was {self.load_1m:.1f} before it was measured; stop other programs"


@dataclass(frozen=True)
class Stolen(Cause):
    """This is a virtual machine, and its host was busy."""

    share: float

    def _text(self) -> str:
        return (
            f"the virtual machine's host gave {self.share:.0%} of the time to others; measure on a machine that is not "
            "shared"
        )


@dataclass(frozen=True)
class Quota(Cause):
    """A CPU quota held the process back."""

    share: float

    def _text(self) -> str:
        return (
            f"a CPU quota (cgroup cpu.max) held the process back for {self.share:.0%} of the time; lift it, or measure "
            "outside of it"
        )


@dataclass(frozen=True)
class NotStable(Cause):
    """Warm-up ended at its limit."""

    processes: int
    of: int

    def _text(self) -> str:
        return (
            f"latency was not stable after warming up in {self.processes} of {self.of} processes; stop other programs, "
            "and see that the frequency is fixed"
        )


@dataclass(frozen=True)
class HotStart(Cause):
    """The board was warm when it began."""

    invalidates: ClassVar[bool] = False
    temperature_c: float
    cool_c: float

    def _text(self) -> str:
        return (
            f"the board began at {self.temperature_c:.0f} C, where {self.cool_c:.0f} C or less were wanted; let it "
            "cool down before measuring"
        )


@dataclass(frozen=True)
class TooFewRuns(Cause):
    """Not enough was measured."""

    runs: int
    needed: int

    def _text(self) -> str:
        return f"a process ended after {self.runs} runs, {self.needed} are needed; measure longer (--duration)"


@dataclass(frozen=True)
class SlowLink(Cause):
    """The Edge TPU is connected by less than it can use."""

    invalidates: ClassVar[bool] = False
    bus: str
    megabits_per_s: float

    def _text(self) -> str:
        if self.bus == "usb":
            what, fix = "USB 2, not USB 3", "use a USB 3 port and cable, and no USB 2 hub between, where there is one"
        else:
            what, fix = "a slow PCIe link", "use a slot of PCIe 2.0 or later, or let the board's settings allow it"
        return (
            f"the Edge TPU is on {what} ({self.megabits_per_s:.0f} of {FULL_LINK:.0f} Mbit/s): images and parameters "
            f"take longer on their way; {fix}"
        )


@dataclass(frozen=True)
class EdgeTpuThrottled(Cause):
    """The Edge TPU was as hot as its driver lets it be before it lowers the clock."""

    share: float
    temperature_c: float
    limit_c: float

    def _text(self) -> str:
        return (
            f"the Edge TPU reached {self.temperature_c:.0f} C; from {self.limit_c:.0f} C on, as in {self.share:.0%} of "
            "the samples, its driver lowers its clock; cool it better"
        )


@dataclass(frozen=True)
class PartlyDelegated(Cause):
    """The delegate took little: most of the model ran in the runtime's own kernels."""

    invalidates: ClassVar[bool] = False
    taken: int
    operators: int

    def _text(self) -> str:
        return (
            f"the delegate took {self.taken} of {self.operators} operators, the others ran without it: an old "
            "tflite-runtime does so with int8 models; ai-edge-litert takes more"
        )


@dataclass(frozen=True)
class Unobserved(Cause):
    """The board does not show what it does."""

    invalidates: ClassVar[bool] = False

    def _text(self) -> str:
        return (
            "the board shows neither frequencies nor temperature nor throttling: were it slowed down from the "
            "beginning, nothing here would tell"
        )


# --- Finding it -------------------------------------------------------------------------------------------------------


def verdict(observations: Sequence[Observation], conditions: Conditions | None = None) -> Verdict:
    """Judge all processes of one measurement, in their order; see `causes`."""
    found = sorted(causes(observations, conditions), key=lambda cause: not cause.invalidates)
    return Verdict(not any(cause.invalidates for cause in found), tuple(cause.reason() for cause in found))


def causes(observations: Sequence[Observation], conditions: Conditions | None = None) -> Iterator[Cause]:
    """Yield every cause of doubt, at most one of a kind, with the worst evidence among the processes."""
    conditions = conditions or Conditions()
    states = [state for observation in observations for state in observation.measured]
    yield from _runs(observations, conditions)
    yield from _drift(observations)
    yield from _frequencies(states, conditions.threads)
    yield from _throttling(observations, states)
    yield from _swap(observations, states)
    yield from _neighbours(observations, conditions)
    yield from _warmth(observations, conditions)
    yield from _edge_tpu(observations)
    # What an Edge TPU takes was decided by its compiler, and one operator stands for all that it took.
    delegated = {one.delegated for one in observations if one.delegated is not None}
    for taken, operators in delegated if conditions.delegate != "edgetpu" else ():
        if taken < DELEGATED * operators:
            yield PartlyDelegated(taken, operators)
            break
    if states and not any(
        state.cpus or state.clock_hz or state.temperature_c is not None or state.throttled is not None
        for state in states
    ):
        yield Unobserved()


def time_to_throttle(observation: Observation) -> float | None:
    """Return the seconds from the first timed run to the first sample that was slowed; None when there is none.

    Slowed is a CPU that is throttled, capped, or at its soft temperature limit by the firmware's bits, or below 98 % of
    the highest frequency that is allowed, and an Edge TPU at the temperature from which its driver lowers its clock.
    """
    measured = observation.measured
    before = [state.at_s for state in observation.states if state.phase != "measure"]
    begin = before[-1] if before else 0.0
    for state in measured:
        bits = state.throttled or 0
        slowest = _slowest(state, 1)
        hot = _over_limit(observation, state)
        if bits & (CAPPED_BITS | SOFT_LIMIT_BIT) or (slowest and slowest[0] / slowest[1] < FULL_SPEED) or hot:
            return state.at_s - begin
    return None


def _runs(observations: Sequence[Observation], conditions: Conditions) -> Iterator[Cause]:
    fewest = min((len(observation.latencies_s) for observation in observations), default=0)
    if fewest < conditions.runs:
        yield TooFewRuns(fewest, conditions.runs)
    shaky = sum(not observation.stable for observation in observations)
    if shaky:
        yield NotStable(shaky, len(observations))


def _drift(observations: Sequence[Observation]) -> Iterator[Cause]:
    """Compare the first third with the last: in every process, and over all of them in their order."""
    series = [observation.latencies_s for observation in observations]
    if len(series) > 1:
        series.append(np.concatenate(series))
    changes = []
    for samples in series:
        third = len(samples) // 3
        if third > 0:
            changes.append((float(np.median(samples[:third])), float(np.median(samples[-third:]))))
    worst = max(changes, key=lambda change: abs(change[1] / change[0] - 1), default=None)
    if worst is not None and abs(worst[1] / worst[0] - 1) > DRIFT:
        yield Drift(*worst)


def _frequencies(states: Sequence[BoardState], threads: int) -> Iterator[Cause]:
    cpus = [cpu for state in states for cpu in state.cpus]
    saving = [cpu for cpu in cpus if cpu.governor == "powersave" and cpu.driver not in OWN_GOVERNORS]
    if saving:
        yield Powersave(min((cpu.current_hz for cpu in saving if cpu.current_hz is not None), default=None))
    capped = [(cpu.limit_hz, cpu.hardware_hz) for cpu in cpus if cpu.limit_hz and cpu.hardware_hz]
    lowest = min(capped, key=lambda cap: cap[0] / cap[1], default=None)
    if lowest is not None and lowest[0] < FULL_SPEED * lowest[1]:
        yield Capped(*lowest)
    seen = [pair for pair in (_slowest(state, threads) for state in states) if pair is not None]
    slow = [pair for pair in seen if pair[0] < FULL_SPEED * pair[1]]
    if slow and not saving and len(slow) > SHARE_OF_SAMPLES * len(seen):
        yield BelowMaximum(*min(slow, key=lambda pair: pair[0] / pair[1]), len(slow) / len(seen))


def _slowest(state: BoardState, threads: int) -> tuple[float, float] | None:
    """Return frequency and maximum of the slowest of the CPUs that worked: as many as threads, the fastest ones."""
    known = sorted((pair for pair in map(_speed, state.cpus) if pair), key=lambda pair: pair[0] / pair[1], reverse=True)
    return known[min(threads, len(known)) - 1] if known else None


def _speed(cpu: CpuFrequency) -> tuple[float, float] | None:
    ceilings = [limit for limit in (cpu.limit_hz, cpu.hardware_hz) if limit]
    return (float(cpu.current_hz), float(min(ceilings))) if cpu.current_hz and ceilings else None


def _throttling(observations: Sequence[Observation], states: Sequence[BoardState]) -> Iterator[Cause]:
    told = [state for state in states if state.throttled is not None]

    def share(bits: int) -> tuple[float, list[BoardState]]:
        on = [state for state in told if (state.throttled or 0) & bits]
        return (len(on) / len(told) if told else 0.0), on

    part, on = share(CAPPED_BITS)
    if on:
        yield Throttled(part, on[0].at_s, on[0].temperature_c)
    part, on = share(SOFT_LIMIT_BIT)
    if on:
        yield SoftLimit(part, on[0].temperature_c)
    part, on = share(UNDER_VOLTAGE_BIT)
    if on:
        yield UnderVoltage(part)
    every = [
        state.throttled for observation in observations for state in observation.states if state.throttled is not None
    ]
    if not every:
        return
    seen_now = _any((state.throttled or 0) & 0xF for state in told)
    before = every[0] >> STICKY & 0xF
    # A bit that was seen while it was on is named above; one that is remembered only was missed.
    missed = _any(bits >> STICKY & 0xF for bits in every) & ~before & ~seen_now
    if missed:
        yield ThrottledBetween(throttle_names(missed)[0])
    if before & ~seen_now:
        yield ThrottledBefore(throttle_names(before & ~seen_now)[0])


def _any(masks: Iterable[int]) -> int:
    together = 0
    for mask in masks:
        together |= mask
    return together


def _swap(observations: Sequence[Observation], states: Sequence[BoardState]) -> Iterator[Cause]:
    changes = [observation.change(lambda state: state.swapped_in_bytes) for observation in observations]
    back = sum(int(change[0]) for change in changes if change is not None)
    used = max((state.swap_used_bytes or 0 for state in states), default=0)
    if back > 0:
        yield Swapping(back)
    elif used > 0:
        yield SwapInUse(used)


def _neighbours(observations: Sequence[Observation], conditions: Conditions) -> Iterator[Cause]:
    quota = max(_shares(observations, lambda state: state.quota_wait_s), default=0.0)
    if quota > QUOTA:
        yield Quota(quota)
    stolen = max(_shares(observations, lambda state: state.stolen_s), default=0.0)
    if stolen > STOLEN:
        yield Stolen(stolen)
    others = _shares(observations, lambda state: None if state.busy_s is None else state.busy_s - state.cpu_s)
    if max(others, default=0.0) > NEIGHBOURS:
        yield Neighbours(max(others))
    loads = [observation.states[0].load_1m for observation in observations[:1] if observation.states]
    if not others and loads and loads[0] is not None and loads[0] >= 1.0:
        yield Loaded(loads[0])
    # With the Edge TPU the CPU waits; with several threads at least one of them has to work all the time.
    if conditions.delegate != "edgetpu":
        own = [
            (observation.cpu_s / observation.wall_s, observation.involuntary_switches)
            for observation in observations
            if observation.cpu_s is not None and observation.wall_s
        ]
        worst = min(own, default=None)
        if worst is not None and worst[0] < OWN_CPU:
            yield Starved(*worst)


def _shares(observations: Sequence[Observation], value: Callable[[BoardState], float | None]) -> list[float]:
    changes = [observation.change(value) for observation in observations]
    return [change[0] / change[1] for change in changes if change is not None]


def _warmth(observations: Sequence[Observation], conditions: Conditions) -> Iterator[Cause]:
    starts = [
        state.temperature_c
        for observation in observations
        for state in observation.states[:1]
        if state.temperature_c is not None
    ]
    cool = conditions.limit_c - HOT_MARGIN_C
    if conditions.start_c is not None:
        cool = min(cool, conditions.start_c + COOLED_C)
    # Within one measurement its own processes warm the board: only the first one's start is the user's to choose.
    if starts and starts[0] > cool:
        yield HotStart(starts[0], cool)


def _edge_tpu(observations: Sequence[Observation]) -> Iterator[Cause]:
    links = [
        (one.megabits_per_s, one.bus)
        for one in (observation.edge_tpu for observation in observations)
        if one is not None and one.megabits_per_s is not None
    ]
    slowest = min(links, default=None)
    if slowest is not None and slowest[0] < FULL_LINK:
        yield SlowLink(slowest[1], slowest[0])
    told = [(one, state) for one in observations for state in one.measured if one.edge_tpu_c(state) is not None]
    hot = [one.edge_tpu_c(state) or 0.0 for one, state in told if _over_limit(one, state)]
    if hot:
        limits = [one.edge_tpu.throttle_c for one in observations if one.edge_tpu is not None]
        limit = min(limit for limit in limits if limit is not None)
        yield EdgeTpuThrottled(len(hot) / len(told), max(hot), limit)


def _over_limit(observation: Observation, state: BoardState) -> bool:
    limit = observation.edge_tpu.throttle_c if observation.edge_tpu is not None else None
    degrees = observation.edge_tpu_c(state)
    return limit is not None and degrees is not None and degrees >= limit


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _ghz(hertz: float) -> str:
    return f"{hertz / 1e9:.2f} GHz"
