"""Which candidates are measured, and what is said of the limits: on devices that are made up and cost nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.picking.ladder import Candidate, ladder
from edgeeff.picking.records import recorded
from edgeeff.picking.search import ANEW, EFFORTS, LONGER, MOST, UNCLEAR, Found, Reading, search
from edgeeff.results import PickLatency, PickLimits

B, LITE = ladder("b", "int8"), ladder("lite", "float32")
REACH = (0.02, 0.02, 0.01, 0.004)
"""Of an interval, relative, by effort."""


@dataclass
class Device:
    """A device whose latencies are known, with a number for every candidate's name."""

    seconds: Mapping[str, float]
    reach: Sequence[float] = REACH
    slower: Callable[[int], float] = lambda count: 1.0
    """A factor by how often something was measured."""
    memory: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def measure(self, candidate: Candidate, effort: int) -> Reading:
        seconds = self.seconds[candidate.name] * self.slower(len(self.asked))
        self.asked.append((candidate.name, effort))
        reach = self.reach[effort]
        return Reading(
            seconds,
            (seconds * math.exp(-reach), seconds * math.exp(reach)),
            (),
            memory_bytes=self.memory.get(candidate.name),
            size_bytes=self.sizes.get(candidate.name),
        )

    @property
    def measured(self) -> set[str]:
        return {name for name, _ in self.asked}


def device(candidates: Sequence[Candidate], generator: np.random.Generator) -> dict[str, float]:
    """Latencies that grow along the ladder, of a device that is slow in its own way; the model has no part in them."""
    work = np.array([(one.workload.macs, one.workload.weight_bytes, len(one.workload.operators)) for one in candidates])
    shares = generator.uniform((0.5, 0.0, 0.0), (1.0, 0.3, 0.2))  # of the middle network's time
    seconds = (work / work[len(work) // 2] * shares).sum(axis=1) * 10 ** generator.uniform(-2.5, -0.5)
    seconds = np.maximum.accumulate(seconds * np.exp(generator.normal(0, 0.02, len(seconds))))
    return {one.name: float(value) for one, value in zip(candidates, seconds, strict=True)}


def largest(found: Found, candidates: Sequence[Candidate]) -> str | None:
    fitting = [one.name for one, judged in zip(candidates, found.judgements, strict=True) if judged.status == "fits"]
    return fitting[-1] if fitting else None


def status(found: Found, candidates: Sequence[Candidate]) -> dict[str, str]:
    return {one.name: judged.status for one, judged in zip(candidates, found.judgements, strict=True)}


def limits(budget_s: float, *, max_memory_bytes: int | None = None, max_size_bytes: int | None = None) -> PickLimits:
    return PickLimits(budget_s, 90, max_memory_bytes=max_memory_bytes, max_size_bytes=max_size_bytes)


# --- The same answer as measuring everything --------------------------------------------------------------------------


def check(candidates: Sequence[Candidate], seed: int, place: float) -> Device:
    """Search on a random device for a budget that is at `place` of its latencies, 0 to 1; return who was measured."""
    generator = np.random.default_rng(seed)
    simulated = Device(device(candidates, generator))
    times = list(simulated.seconds.values())
    budget = times[0] * 0.7 * (times[-1] * 1.4 / (times[0] * 0.7)) ** place
    found = search(candidates, limits(budget), simulated.measure)
    truth = [name for name, seconds in simulated.seconds.items() if seconds <= budget]
    close = any(abs(math.log(seconds / budget)) < REACH[-1] for seconds in times)
    if not close:
        assert largest(found, candidates) == (truth[-1] if truth else None)
        assert "not separable" not in status(found, candidates).values()
    return simulated


@given(st.sampled_from([B, LITE]), st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_winner_is_the_one_that_measuring_all_would_find(
    candidates: Sequence[Candidate], seed: int, place: float
) -> None:
    check(candidates, seed, place)


def test_few_are_measured() -> None:
    counts = [len(check(B, seed, place).measured) for seed in range(5) for place in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert max(counts) <= 4
    assert np.mean(np.array(counts) <= 3) > 0.9


def test_a_continuous_family_needs_few_more() -> None:
    phis = ladder("phi", "int8")
    counts = [len(check(phis, seed, 0.3 + 0.2 * seed).measured) for seed in range(3)]
    assert max(counts) <= MOST
    assert np.median(counts) <= 5


def test_the_smallest_is_measured_first_and_without_need_nothing_else() -> None:
    slow = Device({one.name: 0.2 * (1 + place) for place, one in enumerate(B)})
    found = search(B, limits(0.1), slow.measure)
    assert slow.asked == [("b0", 0)]
    assert set(status(found, B).values()) == {"does not fit"}
    assert [judged.by for judged in found.judgements] == ["measured", *["predicted"] * 7]


def test_a_budget_above_the_largest_needs_the_largest_only() -> None:
    fast = Device({one.name: one.macs / 1e11 for one in B})
    found = search(B, limits(5.0), fast.measure)
    assert fast.measured <= {"b0", "b7"}
    assert largest(found, B) == "b7"
    assert found.judgements[-1].by == "measured"


def test_what_is_known_is_not_measured_again() -> None:
    simulated = Device({one.name: one.macs / 1e11 for one in B})
    known = {place: simulated.measure(one, 2) for place, one in enumerate(B[:4])}
    simulated.asked.clear()
    found = search(B, limits(simulated.seconds["b2"] * 1.2), simulated.measure, known=known)
    assert (largest(found, B), simulated.asked, found.measured) == ("b2", [], 0)


def test_without_a_way_to_measure_only_what_is_known_counts() -> None:
    known = {0: Reading(0.01, None, ()), 1: Reading(0.02, None, ())}
    found = search(B, limits(0.025), None, known=known)
    judged = dict(zip((one.name for one in B), found.judgements, strict=True))
    assert (judged["b1"].status, judged["b1"].by) == ("fits", "measured")
    assert (judged["b7"].status, judged["b7"].by) == ("does not fit", "predicted")
    empty = search(B, limits(0.025), None)
    assert set(status(empty, B).values()) == {"not separable"}
    assert empty.predictions == (None,) * len(B)


@pytest.mark.parametrize("scheme", ["int8", "float32"])
def test_a_published_board_is_picked_from_as_if_it_were_measured(scheme: str) -> None:
    pi4, rungs = recorded("raspberry-pi-4"), ladder("lite", scheme)
    published = [pi4.reading(one, 4, 90) for one in rungs]
    times = [one.seconds for one in published if one is not None]
    assert len(times) == len(rungs)

    def measure(candidate: Candidate, effort: int) -> Reading:
        reading = published[rungs.index(candidate)]
        assert reading is not None
        return reading

    edges = [times[0] / 1.1, *times, times[-1] * 1.1]
    for place, (below, above) in enumerate(itertools.pairwise(edges)):
        for budget in (below * 1.001, math.sqrt(below * above), above * 0.999):
            found = search(rungs, limits(budget), measure)
            assert largest(found, rungs) == (rungs[place - 1].name if place else None)
            assert found.measured <= 3


# --- Noise ------------------------------------------------------------------------------------------------------------


def test_an_interval_with_the_budget_in_it_is_measured_for_longer() -> None:
    seconds = {one.name: one.macs / 1e11 for one in B}
    simulated = Device(seconds)
    budget = seconds["b2"] * 1.015
    found = search(B, limits(budget), simulated.measure)
    assert largest(found, B) == "b2"
    assert [effort for name, effort in simulated.asked if name == "b2"] == [0, LONGER]


def test_what_stays_on_the_budget_is_not_separable_and_both_its_neighbours_are_told() -> None:
    seconds = {one.name: one.macs / 1e11 for one in B}
    simulated = Device(seconds)
    found = search(B, limits(seconds["b2"]), simulated.measure)
    assert [effort for name, effort in simulated.asked if name == "b2"] == [0, *range(LONGER, EFFORTS)]
    judged = status(found, B)
    assert (judged["b1"], judged["b2"], judged["b3"]) == ("fits", "not separable", "does not fit")
    assert found.judgements[1].by == "measured"


def test_a_device_so_noisy_that_nothing_separates_is_given_up() -> None:
    simulated = Device({one.name: one.macs / 1e11 for one in B}, reach=(2.0, 2.0, 2.0, 2.0))
    found = search(B, limits(0.02), simulated.measure)
    assert len(simulated.asked) <= UNCLEAR * EFFORTS
    assert largest(found, B) is None
    assert "not separable" in status(found, B).values()


def test_a_device_that_drifts_is_told_when_it_is_measured_again() -> None:
    seconds = {one.name: one.macs / 1e11 for one in B}
    simulated = Device(seconds, slower=lambda count: 1.0 + 0.05 * count)
    found = search(B, limits(seconds["b2"] * 1.11), simulated.measure)
    assert any("the device drifts" in note for note in found.notes)


def test_a_network_that_is_slower_than_a_larger_one_is_named() -> None:
    known = {0: Reading(0.03, (0.029, 0.031), ()), 3: Reading(0.02, (0.019, 0.021), ())}
    found = search(B, limits(0.1), None, known=known)
    assert found.notes == ("b0 was slower than b3, which is larger: look at what else ran on the device",)


def test_a_strange_measurement_that_decides_is_made_again() -> None:
    seconds = {one.name: one.macs / 1e11 for one in B}
    # A neighbour disturbs the second measurement.
    simulated = Device(seconds, slower=lambda count: 4.0 if count == 1 else 1.0)
    found = search(B, limits(seconds["b2"] * 1.1), simulated.measure)
    assert largest(found, B) == "b2"
    assert max(effort for _, effort in simulated.asked) == ANEW


def test_an_invalid_measurement_that_decides_is_made_again_once() -> None:
    seconds = {one.name: one.macs / 1e11 for one in B}
    simulated = Device(seconds)

    def invalid(candidate: Candidate, effort: int) -> Reading:
        reading = simulated.measure(candidate, effort)
        told = PickLatency("pi4", "measured", reading.seconds, reading.interval, None, "", valid=False)
        return Reading(reading.seconds, reading.interval, (told,))

    found = search(B, limits(seconds["b2"] * 1.1), invalid)
    assert largest(found, B) == "b2"
    assert [effort for name, effort in simulated.asked if name == "b2"] == [0, ANEW]
    assert [effort for name, effort in simulated.asked if name == "b3"] == [0, ANEW]
    assert [effort for name, effort in simulated.asked if name == "b0"] == [0]  # it decides nothing


def test_a_target_that_disappears_ends_the_search() -> None:
    def gone(candidate: Candidate, effort: int) -> Reading:
        raise ConnectionError(candidate.name)

    with pytest.raises(ConnectionError, match="b0"):
        search(B, limits(0.02), gone)


# --- Other limits -----------------------------------------------------------------------------------------------------


def test_a_network_that_is_far_too_large_is_never_made() -> None:
    simulated = Device({one.name: one.macs / 1e12 for one in B}, sizes={one.name: one.size_bytes for one in B})
    found = search(B, limits(1.0, max_size_bytes=12_000_000), simulated.measure)
    assert largest(found, B) == "b2"
    assert simulated.measured <= {"b0", "b2"}
    assert (found.judgements[3].status, found.judgements[3].by, found.judgements[3].limit) == (
        "does not fit",
        "computed",
        "size",
    )


def test_memory_that_was_measured_decides() -> None:
    memory = {one.name: one.memory_bytes + 45_000_000 for one in B}
    simulated = Device({one.name: one.macs / 1e12 for one in B}, memory=memory)
    found = search(B, limits(1.0, max_memory_bytes=memory["b4"] - 1), simulated.measure)
    judged = found.judgements[4]
    assert largest(found, B) == "b3"
    assert (judged.status, judged.by, judged.limit) == ("does not fit", "measured", "memory")


def test_only_networks_that_may_be_picked_are_measured() -> None:
    simulated = Device({one.name: one.macs / 1e11 for one in B})
    search(B, limits(0.001), simulated.measure, lowest=3)
    assert simulated.measured == {"b3"}


def test_what_comes_before_the_network_counts() -> None:
    def measure(candidate: Candidate, effort: int) -> Reading:
        seconds = candidate.macs / 1e11 + 0.1
        return Reading(seconds, (seconds * 0.999, seconds * 1.001), (), overhead_s=0.1)

    found = search(B, limits(0.1 + B[2].macs / 1e11 * 1.2), measure)
    assert largest(found, B) == "b2"
    assert found.overhead_s == 0.1
    hopeless = search(B, limits(0.09), measure)
    assert largest(hopeless, B) is None
