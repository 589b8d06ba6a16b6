"""Whether figures may go into a report: every cause alone, with its evidence, and none on a board that is well."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.devices import events, runner, validity
from edgeeff.devices.validity import Conditions, Observation, causes, time_to_throttle, verdict
from edgeeff.results import BoardState, CpuFrequency, EdgeTpu, Reason
from tests import board_trees as boards
from tests.test_runner import fake_runtime, packages

WELL = BoardState(
    at_s=0.0,
    phase="measure",
    cpus=tuple(CpuFrequency(cpu, "ondemand", "cpufreq-dt", 10**9, 10**9, 10**9) for cpu in range(4)),
    clock_hz=10**9,
    temperature_c=50.0,
    throttled=0,
    load_1m=1.0,
    cpu_s=0.0,
    busy_s=0.0,
    stolen_s=0.0,
    quota_wait_s=0.0,
    available_bytes=10**9,
    swap_used_bytes=0,
    swapped_in_bytes=0,
)
SECONDS = 10
NOISE = np.random.default_rng(0).normal(0.050, 0.0005, 210)


def timeline(**changes: Any) -> tuple[BoardState, ...]:
    """A start, the end of the warm-up and ten seconds of measuring; a change is a value or what becomes of the second.

    Second -2 is the start, -1 the end of the warm-up, and from 0 on it is measured.
    """
    states = []
    for second in range(-2, SECONDS):
        phase = "start" if second == -2 else "warm-up" if second == -1 else "measure"
        own: dict[str, Any] = {"at_s": second + 2.0, "phase": phase, "cpu_s": second + 2.0, "busy_s": second + 2.05}
        own |= {name: value(second) if callable(value) else value for name, value in changes.items()}
        states.append(dataclasses.replace(WELL, **own))
    return tuple(states)


def observation(latencies: Any = NOISE, **changes: Any) -> Observation:
    fields = {name: changes.pop(name) for name in ("stable", "wall_s", "cpu_s", "edge_tpu") if name in changes}
    return Observation(
        np.asarray(latencies, np.float64), timeline(**changes), **{"wall_s": 10.0, "cpu_s": 9.99, **fields}
    )


def cpus(**changes: Any) -> tuple[CpuFrequency, ...]:
    return tuple(dataclasses.replace(cpu, **changes) for cpu in WELL.cpus)


def only(*observations: Observation, conditions: Conditions | None = None) -> validity.Cause:
    """The one cause that there is."""
    (cause,) = causes(observations, conditions)
    return cause


def test_a_board_that_is_well_gives_a_valid_measurement() -> None:
    found = verdict([observation() for _ in range(5)])
    assert found.valid
    assert found.reasons == ()


# --- Latency ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "valid"), [(1.0, True), (1.04, True), (0.96, True), (1.06, False), (0.94, False)])
def test_drift_within_a_process(factor: float, valid: bool) -> None:
    drifting = np.linspace(0.050, 0.050 * (1 + (factor - 1) * 1.5), 300)  # thirds' middles are 2/3 of it apart
    found = list(causes([observation(), observation(drifting)]))
    assert (found == []) is valid
    if not valid:
        (cause,) = found
        assert isinstance(cause, validity.Drift)
        assert cause.last_s / cause.first_s == pytest.approx(factor, abs=0.006)
        assert cause.text.startswith(f"p50 {'rose' if factor > 1 else 'fell'} by ")
        assert "ms)" in cause.text


def test_drift_from_process_to_process() -> None:
    slower = [observation(NOISE * factor) for factor in (1.0, 1.03, 1.06, 1.1, 1.15)]
    assert isinstance(only(*slower), validity.Drift)
    assert list(causes([slower[0], slower[1]])) == []


def test_one_slow_run_is_no_drift() -> None:
    latencies = NOISE.copy()
    latencies[-5:] *= 30
    assert list(causes([observation(latencies)])) == []


def test_too_few_runs() -> None:
    cause = only(observation(), observation(NOISE[:150]))
    assert cause == validity.TooFewRuns(150, 200)
    assert list(causes([observation(NOISE[:30])], Conditions(runs=20))) == []
    assert [type(cause) for cause in causes([])] == [validity.TooFewRuns]


def test_not_stable() -> None:
    cause = only(observation(stable=False), observation())
    assert cause == validity.NotStable(1, 2)
    assert "in 1 of 2 processes" in cause.text


# --- Frequency --------------------------------------------------------------------------------------------------------


def test_a_frequency_below_its_maximum() -> None:
    cause = only(observation(cpus=lambda second: cpus(current_hz=6 * 10**8) if second in {3, 4} else WELL.cpus))
    assert cause == validity.BelowMaximum(6e8, 1e9, 0.2)
    assert "0.60 GHz, not 1.00 GHz, in 20% of the samples" in cause.text


def test_a_low_frequency_before_measuring_or_once_is_none() -> None:
    idle = cpus(current_hz=6 * 10**8)
    assert list(causes([observation(cpus=lambda second: idle if second < 1 else WELL.cpus)])) == []


@pytest.mark.parametrize(("threads", "valid"), [(1, True), (2, True), (3, False), (8, False)])
def test_only_the_cpus_that_work_have_to_be_fast(threads: int, valid: bool) -> None:
    two_idle = (*WELL.cpus[:2], *cpus(current_hz=3 * 10**8)[2:])
    found = list(causes([observation(cpus=two_idle)], Conditions(threads=threads)))
    assert [type(cause) for cause in found] == ([] if valid else [validity.BelowMaximum])


def test_a_cap() -> None:
    cause = only(observation(cpus=cpus(current_hz=6 * 10**8, limit_hz=6 * 10**8)))
    assert cause == validity.Capped(6e8, 1e9)
    assert "write 1000000 to" in cause.text


def test_powersave() -> None:
    slow = cpus(governor="powersave", current_hz=6 * 10**8)
    cause = only(observation(cpus=slow))
    assert cause == validity.Powersave(6e8)
    assert "0.60 GHz" in cause.text
    # With this driver the word means something else, and the frequency is what counts.
    own = cpus(governor="powersave", driver="intel_pstate")
    assert list(causes([observation(cpus=own)])) == []


# --- Throttling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "cause"),
    [
        (0x60006, validity.Throttled(0.4, 8.0, 50.0)),
        (0x40004, validity.Throttled(0.4, 8.0, 50.0)),
        (0x20002, validity.Throttled(0.4, 8.0, 50.0)),
        (0x80008, validity.SoftLimit(0.4, 50.0)),
        (0x10001, validity.UnderVoltage(0.4)),
    ],
)
def test_a_bit_that_is_on_while_it_is_measured(bits: int, cause: validity.Cause) -> None:
    found = only(observation(throttled=lambda second: bits if second >= 6 else 0))
    assert found == cause
    assert found.invalidates
    assert "in 40% of the samples" in found.text


def test_a_weak_supply_both_throttles_and_says_why() -> None:
    found = [type(cause) for cause in causes([observation(throttled=0x50005)])]
    assert found == [validity.Throttled, validity.UnderVoltage]


def test_what_happened_before_is_a_warning() -> None:
    found = verdict([observation(throttled=0x50000)])
    assert found.valid
    (reason,) = found.reasons
    assert reason == validity.ThrottledBefore(("under-voltage", "throttled")).reason()
    assert reason.cause == "throttled-before"
    assert reason.text.startswith("under-voltage and throttled happened since the boot, before this measurement")


def test_what_happened_between_two_samples_is_not() -> None:
    cause = only(observation(throttled=lambda second: 0x40000 if second >= 5 else 0))
    assert cause == validity.ThrottledBetween(("throttled",))
    assert cause.invalidates
    # The same between two processes.
    assert only(observation(), observation(throttled=0x10000)) == validity.ThrottledBetween(("under-voltage",))


def test_a_bit_during_the_warm_up_only_is_not_lost() -> None:
    cause = only(observation(throttled=lambda second: {-2: 0, -1: 0x40004}.get(second, 0x40000)))
    assert cause == validity.ThrottledBetween(("throttled",))


# --- Memory and neighbours --------------------------------------------------------------------------------------------


def test_swap() -> None:
    cause = only(observation(swap_used_bytes=5 * 10**7))
    assert cause == validity.SwapInUse(5 * 10**7)
    assert not cause.invalidates
    # What was read before it was measured does not count.
    swapping = observation(swap_used_bytes=5 * 10**7, swapped_in_bytes=lambda second: 4096 * (1000 + max(0, second)))
    assert only(swapping) == validity.Swapping(9 * 4096)
    assert validity.Swapping.invalidates


def test_a_process_that_does_not_get_the_cpu() -> None:
    cause = only(observation(), observation(cpu_s=6.0))
    assert cause == validity.Starved(0.6, 0)
    assert "for 60% of the time only" in cause.text
    assert list(causes([observation(cpu_s=6.0)], Conditions(delegate="edgetpu"))) == []  # there it waits
    assert list(causes([observation(cpu_s=19.0)], Conditions(threads=2))) == []
    assert list(causes([observation(cpu_s=None, wall_s=None)])) == []  # it did not come to its end


def test_neighbours_on_other_cpus() -> None:
    cause = only(observation(busy_s=lambda second: 1.5 * second))
    assert isinstance(cause, validity.Neighbours)
    assert cause.cpus == pytest.approx(0.5)
    assert list(causes([observation(busy_s=lambda second: 1.1 * second)])) == []


def test_the_load_counts_where_nothing_better_is_known() -> None:
    assert only(observation(busy_s=None, load_1m=3.0)) == validity.Loaded(3.0)
    assert list(causes([observation(busy_s=None, load_1m=0.9)])) == []
    assert list(causes([observation(load_1m=3.0)])) == []  # what was busy has ended since
    assert list(causes([observation(busy_s=None, load_1m=0.1), observation(busy_s=None, load_1m=3.0)])) == []  # by us


def test_a_host_that_takes_time() -> None:
    cause = only(observation(stolen_s=lambda second: 0.25 * second))
    assert cause == validity.Stolen(0.25)


def test_a_quota_that_holds_back() -> None:
    cause = only(observation(quota_wait_s=lambda second: 0.5 * max(0, second - 1)))
    assert isinstance(cause, validity.Quota)
    assert cause.share == pytest.approx(0.4)
    assert "cpu.max" in cause.text


# --- Warmth and the unknown -------------------------------------------------------------------------------------------


def test_a_hot_start_is_a_warning() -> None:
    cause = only(observation(temperature_c=74.0))
    assert cause == validity.HotStart(74.0, 70.0)
    assert not cause.invalidates
    assert only(observation(temperature_c=55.0), conditions=Conditions(limit_c=60.0)) == validity.HotStart(55.0, 50.0)
    assert only(observation(temperature_c=55.0), conditions=Conditions(start_c=50.0)) == validity.HotStart(55.0, 53.0)
    assert list(causes([observation(temperature_c=52.0)], Conditions(start_c=50.0))) == []


def test_warming_up_by_measuring_is_no_hot_start() -> None:
    assert list(causes([observation(), observation(temperature_c=75.0)])) == []


def test_a_delegate_that_takes_little_is_a_warning() -> None:
    cause = only(dataclasses.replace(observation(), delegated=(1, 66)))
    assert cause == validity.PartlyDelegated(1, 66)
    assert not cause.invalidates
    assert "1 of 66 operators" in cause.text
    assert list(causes([dataclasses.replace(observation(), delegated=(63, 66))])) == []


def test_a_board_that_shows_nothing_is_trusted_with_a_warning() -> None:
    blind = observation(cpus=(), clock_hz=None, temperature_c=None, throttled=None)
    found = verdict([blind])
    assert found.valid
    assert found.reasons == (validity.Unobserved().reason(),)
    assert list(causes([observation(cpus=(), clock_hz=None, temperature_c=None)])) == []  # bits are enough


# --- Edge TPU ---------------------------------------------------------------------------------------------------------

APEX = EdgeTpu("pcie", "1ac1:089a", megabits_per_s=5000.0, device="/dev/apex_0", throttle_c=85.0)
ON_EDGE_TPU = Conditions(delegate="edgetpu")


@pytest.mark.parametrize(
    ("bus", "speed", "words"),
    [
        ("usb", 480.0, "on USB 2, not USB 3 (480 of 5000 Mbit/s)"),
        ("pcie", 2500.0, "on a slow PCIe link (2500 of 5000 Mbit/s)"),
    ],
)
def test_a_slow_link_is_a_warning(bus: str, speed: float, words: str) -> None:
    slow = EdgeTpu(bus, "x", megabits_per_s=speed)
    cause = only(observation(edge_tpu=APEX), observation(edge_tpu=slow), conditions=ON_EDGE_TPU)
    assert cause == validity.SlowLink(bus, speed)
    assert words in cause.text
    assert not cause.invalidates


def test_a_fast_link_and_one_that_is_not_told_are_none() -> None:
    for one in (APEX, EdgeTpu("usb", "x", megabits_per_s=5000.0), EdgeTpu("usb", "x"), None):
        assert list(causes([observation(edge_tpu=one)], ON_EDGE_TPU)) == []


def test_a_hot_edge_tpu() -> None:
    def warm(second: int) -> dict[str, float]:
        return {"/dev/apex_0": 87.5 if second >= 8 else 84.0, "/dev/apex_1": 99.0}

    hot = observation(edge_tpu=APEX, edge_tpus_c=warm)
    cause = only(hot, conditions=ON_EDGE_TPU)
    assert cause == validity.EdgeTpuThrottled(0.2, 87.5, 85.0)
    assert "reached 88 C; from 85 C on, as in 20% of the samples, its driver lowers its clock" in cause.text
    assert cause.invalidates
    assert time_to_throttle(hot) == 9.0
    # Its driver may not look at the temperature; and of the warm-up nothing is judged.
    for one in (dataclasses.replace(APEX, throttle_c=None), dataclasses.replace(APEX, device=None)):
        assert list(causes([observation(edge_tpu=one, edge_tpus_c=warm)], ON_EDGE_TPU)) == []
    before = observation(edge_tpu=APEX, edge_tpus_c=lambda second: {"/dev/apex_0": 90.0} if second < 0 else {})
    assert list(causes([before], ON_EDGE_TPU)) == []


def test_what_an_edge_tpu_took_is_its_compilers_business() -> None:
    one = dataclasses.replace(observation(edge_tpu=APEX), delegated=(1, 3))
    assert list(causes([one], ON_EDGE_TPU)) == []
    assert isinstance(only(one), validity.PartlyDelegated)


# --- All of it --------------------------------------------------------------------------------------------------------


def test_what_makes_it_invalid_comes_first() -> None:
    found = verdict([observation(NOISE[:100], throttled=0x50000, temperature_c=79.0, cpu_s=1.0)])
    assert not found.valid
    assert [reason.cause for reason in found.reasons] == ["too-few-runs", "starved", "throttled-before", "hot-start"]
    assert [reason.invalidates for reason in found.reasons] == [True, True, False, False]


def test_a_reason_keeps_its_figures() -> None:
    (reason,) = verdict([observation(cpu_s=6.0)]).reasons
    assert reason == Reason(
        "starved", True, validity.Starved(0.6, 0).text, {"cpu_share": 0.6, "involuntary_switches": 0}
    )


@given(
    st.lists(
        st.builds(
            Observation,
            st.lists(st.floats(1e-6, 10), max_size=30).map(np.array),
            st.lists(st.from_type(BoardState), max_size=4).map(tuple),
            st.booleans(),
            st.none() | st.floats(0, 1e6),
            st.none() | st.floats(0, 1e6),
            edge_tpu=st.none() | st.from_type(EdgeTpu),
        ),
        max_size=3,
    )
)
@settings(max_examples=25, deadline=None)
def test_whatever_a_board_says_there_is_a_verdict(observations: list[Observation]) -> None:
    found = verdict(observations)
    assert found.valid == (not any(reason.invalidates for reason in found.reasons))
    assert len({reason.cause for reason in found.reasons}) == len(found.reasons)
    for one in observations:
        time_to_throttle(one)


def test_every_cause_has_its_test_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    known = [cause.__name__ for cause in validity.Cause.__subclasses__()]
    assert known
    assert [name for name in known if f"validity.{name}" not in source] == []


def test_time_to_throttle() -> None:
    assert time_to_throttle(observation()) is None
    # The warm-up ends at 1 s; the sample of second 4 is taken at 6 s.
    assert time_to_throttle(observation(throttled=lambda second: 0x20002 if second >= 4 else 0)) == 5.0
    assert time_to_throttle(observation(throttled=lambda second: 0x80008 if second >= 4 else 0)) == 5.0
    slow = cpus(current_hz=6 * 10**8)
    assert time_to_throttle(observation(cpus=lambda second: slow if second >= 9 else WELL.cpus)) == 10.0
    assert time_to_throttle(observation(throttled=0x10001)) is None  # a weak supply alone slows nothing


# --- From the board to the verdict ------------------------------------------------------------------------------------


def observed(board: boards.Board, folder: Path) -> Observation:
    """Measure with a runtime that does next to nothing, on a machine that looks like the board."""
    (folder / "packages").mkdir()
    environment = packages(folder / "packages", ai_edge_litert=fake_runtime())
    (folder / "x.tflite").touch()
    asked = {
        "model": str(folder / "x.tflite"),
        "root": str(board.root),
        **{"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 20, "duration_s": 0.02},
    }
    finished = subprocess.run(
        [sys.executable, runner.__file__, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return Observation.of(events.read(finished.stdout.splitlines()))


@pytest.mark.parametrize("fault", boards.FAULTS)
def test_a_board_with_a_fault_is_found_out(tmp_path: Path, fault: str) -> None:
    one = observed(boards.FAULTS[fault](boards.pi4(tmp_path / "board")), tmp_path)
    found = verdict([one], Conditions(runs=20))
    assert fault in {reason.cause for reason in found.reasons}
    if fault not in {"throttled-before", "hot-start", "swap-in-use"}:
        assert not found.valid


@pytest.mark.parametrize("make", [boards.pi3bplus, boards.pi4, boards.pi5, boards.coral_dev_board, boards.nothing])
def test_a_healthy_board_has_none(tmp_path: Path, make: Any) -> None:
    one = observed(make(tmp_path / "board"), tmp_path)
    assert len(one.latencies_s) >= 20
    assert one.wall_s is not None
    assert one.measured
    found = {reason.cause for reason in verdict([one], Conditions(runs=20)).reasons}
    # This machine may be busy while it is tested; the boards are not.
    of_the_board = found - {"drift", "starved", "not-stable", "quota"}
    assert of_the_board == ({"unobserved"} if make is boards.nothing else set())


def test_a_measurement_that_was_cut_short_is_still_read() -> None:
    lines = [
        {"event": "state", **dataclasses.asdict(WELL)},
        {"event": "loaded", "delegated_parts": 1, "delegated_operators": 3, "operators": 4},
        {"event": "warm", "runs": 10, "stable": False},
        {"event": "latencies", "at_s": 1.0, "latencies_s": [0.5, 0.25]},
        {"event": "latencies", "at_s": 2.0, "latencies_s": [0.125]},
    ]
    one = Observation.of(lines)
    assert one.latencies_s.tolist() == [0.5, 0.25, 0.125]
    assert one.states == (WELL,)
    assert not one.stable
    assert (one.wall_s, one.cpu_s) == (None, None)
    assert one.delegated == (3, 4)
    for loaded in ({"delegated_parts": 0, "delegated_operators": 0, "operators": 4}, {"delegated_parts": None}):
        assert Observation.of([{"event": "loaded", **loaded}]).delegated is None
