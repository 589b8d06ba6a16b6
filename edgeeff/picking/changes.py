"""What would have to change for the next larger network to fit: budget, resolution, phi, threads, scheme or a limit.

Only what the latency model can tell comes with a figure; the others are said to need a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgeeff import scaling
from edgeeff.latency import Prediction
from edgeeff.picking import ladder
from edgeeff.picking.ladder import Candidate
from edgeeff.picking.search import Found
from edgeeff.results import PickChange, PickLimits

PIXEL_STEP = 4
"""Of the resolutions that are suggested; all published ones are multiples of it."""
LEAST_SIDE = 0.5
"""Of a network's own resolution: one trained for half the pixels is another network."""


def find(
    candidates: Sequence[Candidate],
    following: int | None,
    found: Found,
    limits: PickLimits,
    *,
    winner: int | None,
    threads: int,
    cores: int,
    reach: int | None,
) -> tuple[PickChange, ...]:
    """Return the smallest changes that would admit the candidate at `following`.

    `reach` is the place of the largest network that keeps to all but --min-top1. Without `following` there is nothing
    larger, or nothing that is good enough.
    """
    changes: list[PickChange] = []
    if winner is None and reach is not None and candidates[reach].top1 is not None:
        one = candidates[reach]
        changes.append(
            PickChange("limit", f"{one.name} fits and has a top-1 of {one.top1:g} %", f"--min-top1 {one.top1:g}")
        )
    if following is not None:
        limit = found.judgements[following].limit
        if limit == "latency":
            changes += _faster(candidates, following, found, limits, winner, threads, cores)
        elif limit is not None:
            changes += _smaller(candidates[following], following, found, limits, limit)
    return tuple(changes)


def _faster(
    candidates: Sequence[Candidate],
    following: int,
    found: Found,
    limits: PickLimits,
    winner: int | None,
    threads: int,
    cores: int,
) -> Iterator[PickChange]:
    one, reading, prediction = candidates[following], found.readings.get(following), found.predictions[following]
    if reading is not None:
        needed = (reading.interval or (reading.seconds, reading.seconds))[1]
        yield PickChange("budget", f"{one.name} needs {_round_up(needed)}", f"--budget {_round_up(needed)}")
    elif prediction is not None:
        needed = prediction.interval[1]
        yield PickChange(
            "budget",
            f"{one.name} is predicted to need up to {_round_up(needed)}",
            f"--budget {_round_up(needed)}",
            prediction.seconds,
            prediction.interval,
        )
    if (smaller := _lower_resolution(one, found, limits)) is not None:
        other, expected = smaller
        pixels = other.network.resolution
        yield PickChange(
            "resolution",
            f"{one.name} at {pixels} px instead of {one.network.resolution}; nobody published its top-1 there",
            f"--resolution {pixels}",
            expected.seconds,
            expected.interval,
        )
    if winner is None and one.network.family == "b" and (scaled := _lower_phi(one, found, limits)) is not None:
        other, expected = scaled
        yield PickChange(
            "phi",
            f"{other.name}, smaller than {one.name}; nobody published its top-1",
            "--family phi",
            expected.seconds,
            expected.interval,
        )
    if cores > threads:
        yield PickChange("threads", f"more threads: the device has {cores} cores", f"--threads {cores}")
    if one.workload.scheme != "int8":
        yield PickChange("scheme", "int8 is the fastest scheme on CPUs", "--scheme int8")


def _smaller(one: Candidate, place: int, found: Found, limits: PickLimits, limit: str) -> Iterator[PickChange]:
    reading = found.readings.get(place)
    if limit == "memory":
        needed = (reading.memory_bytes if reading else None) or one.memory_bytes + found.runtime_bytes
        option = f"--max-memory {math.ceil(needed / 1e5) / 10:g}MB"
    else:
        needed = (reading.size_bytes if reading else None) or one.size_bytes
        option = f"--max-size {math.ceil(needed / 1e5) / 10:g}MB"
    known = "takes" if reading is not None else "is expected to take"
    what = "of memory" if limit == "memory" else "as a file"
    yield PickChange("limit", f"{one.name} {known} {needed / 1e6:.1f} MB {what}", option)
    if one.scheme == "float32":
        yield PickChange("scheme", "int8 takes about a quarter of the size", "--scheme int8")


def _lower_resolution(one: Candidate, found: Found, limits: PickLimits) -> tuple[Candidate, Prediction] | None:
    """Return the network at the highest resolution that surely fits, as far as a prediction is sure."""
    own = one.network.resolution
    least = max(scaling.MIN_RESOLUTION, math.ceil(own * LEAST_SIDE))
    for pixels in range((own - 1) // PIXEL_STEP * PIXEL_STEP, least - 1, -PIXEL_STEP):
        other = ladder.candidate(scaling.network(one.name, resolution=pixels), one.scheme)
        if (expected := _fits(other, found, limits)) is not None:
            return other, expected
    return None


def _lower_phi(one: Candidate, found: Found, limits: PickLimits) -> tuple[Candidate, Prediction] | None:
    for other in reversed(ladder.ladder("phi", one.scheme)):
        if other.macs < one.macs and (expected := _fits(other, found, limits)) is not None:
            return other, expected
    return None


def _fits(one: Candidate, found: Found, limits: PickLimits) -> Prediction | None:
    """Return what is predicted of a network when all of it is within the budget."""
    if found.model is None:
        return None
    expected = found.model.predict(one.workload)
    low, high = (end + found.overhead_s for end in expected.interval)
    return Prediction(expected.seconds + found.overhead_s, (low, high)) if high <= limits.budget_s else None


def _round_up(seconds: float) -> str:
    """Write a duration with three digits that is not below it, as --budget takes it."""
    unit = 10.0 ** (math.floor(math.log10(seconds * 1e3)) - 2)
    return f"{math.ceil(seconds * 1e3 / unit - 1e-9) * unit:.6g}ms"
