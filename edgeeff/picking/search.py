"""Which candidate to measure next, and when enough is known.

A candidate fits when its latency's interval, its memory and its file are within the limits; latency, memory and size
grow along the ladder, so the question is between which two neighbours the limits lie. The latency model says how far
every candidate is from the budget, in standard deviations; the one nearest to it decides most and is measured next,
until the largest that fits and the next larger one are both measured. An interval with the budget in it is measured
again, for longer, and is called not separable when that does not help. What decides and is doubtful is measured again
once, no longer than before.

Nothing in here measures anything: who asks brings `measure`, so that simulated devices will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from edgeeff import latency
from edgeeff.latency import Measured, Model, Prediction, Prior
from edgeeff.picking.ladder import MEMORY_SPREAD, RUNTIME_BYTES, SIZE_SPREAD, Candidate
from edgeeff.results import PickLatency, PickLimits

EFFORTS = 4
"""In how many ways a candidate is measured, one after the other."""
ANEW, LONGER = 1, 2
"""The effort that is as short as the first, for what is doubtful, and the first of those that are longer."""
MOST = 8
"""Candidates that are measured at most; named families never need as many as they have."""
UNCLEAR = 3
"""After so many candidates that cannot be told from the budget the device is too noisy."""
SURE = 1.96
"""Standard deviations from which a prediction counts as sure, where nothing better can be had."""
HOPELESS = 4.0
"""Those from which a candidate is too large for memory or size without being tried."""
GUIDED = 4
"""So many measurements follow the model alone; the next ones stay in the middle half of what is left, so that a model
that is wrong does not cost many."""
STRANGE = 4.0
"""Standard deviations from what was predicted of it from which a measurement is done again where it decides."""
POINT_SIGMA = 0.01
"""Relative standard error of a figure that came without an interval."""

Limit = Literal["latency", "memory", "size"]


@dataclass(frozen=True)
class Reading:
    """What is known of a candidate from measurements; `seconds` and `interval` are the slowest target's.

    `overhead_s` is the part of `seconds` that is not the network's: decoding and resizing, where they count.
    """

    seconds: float
    interval: tuple[float, float] | None
    latencies: tuple[PickLatency, ...]
    overhead_s: float = 0.0
    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    """What of the memory is Python's and the runtime's."""
    size_bytes: int | None = None

    @property
    def valid(self) -> bool:
        """Whether no target's own verdict speaks against it."""
        return all(one.valid for one in self.latencies)

    @property
    def sigma(self) -> float:
        """Relative standard error."""
        if self.interval is None:
            return POINT_SIGMA
        low, high = self.interval
        return max(0.002, math.log(high / low) / 2 / SURE)


Measure = Callable[[Candidate, int], Reading]
"""Measures a candidate with an effort of 0 to `EFFORTS` - 1."""


@dataclass(frozen=True)
class Judgement:
    """Whether a candidate keeps to the limits, how that is known, and what it does not keep to or cannot be told."""

    status: Literal["fits", "does not fit", "not separable"]
    by: Literal["measured", "predicted", "computed"]
    limit: Limit | None = None


@dataclass(frozen=True)
class Found:
    """What a search found; the tuples are in the candidates' order, `readings` are by their places there."""

    judgements: tuple[Judgement, ...]
    predictions: tuple[Prediction | None, ...]
    readings: Mapping[int, Reading]
    model: Model | None
    measured: int
    """Candidates that this search measured."""
    overhead_s: float
    runtime_bytes: int
    notes: tuple[str, ...]
    """What is odd about the measurements."""


def search(
    candidates: Sequence[Candidate],
    limits: PickLimits,
    measure: Measure | None,
    *,
    known: Mapping[int, Reading] = MappingProxyType({}),
    others: Sequence[Measured] = (),
    prior: Prior | None = None,
    lowest: int = 0,
    most: int = MOST,
    efforts: int = EFFORTS,
) -> Found:
    """Find where the limits lie among candidates from small to large.

    `known` are readings that there are already, `others` networks besides the candidates that the model may learn
    from, and `lowest` is the place of the smallest that may be picked. Without `measure` only those count. What
    `measure` raises goes through.
    """
    work = _Search(candidates, limits, prior or Prior(), others, dict(known), lowest)
    while measure is not None:
        chosen = work.next(most, efforts)
        if chosen is None:
            break
        place, effort = chosen
        work.take(place, effort, measure(candidates[place], effort))
    return work.found()


@dataclass
class _Search:
    candidates: Sequence[Candidate]
    limits: PickLimits
    prior: Prior
    others: Sequence[Measured]
    readings: dict[int, Reading]
    lowest: int
    efforts: dict[int, int] = field(default_factory=dict)
    """The effort that each candidate was measured with, where this search measured it."""
    doubtful: set[int] = field(default_factory=set)
    """Candidates that this search measured, and that are not what was expected or invalid."""
    notes: list[str] = field(default_factory=list)

    def next(self, most: int, efforts: int) -> tuple[int, int] | None:
        """Return the place of the candidate to measure next and the effort, None when nothing more can be told."""
        low, high = self._bracket()
        between = range(low + 1, high)
        unclear = [index for index in between if index in self.readings]
        again = [index for index in unclear if self.efforts.get(index, -1) < efforts - 1 and self._is_noise(index)]
        if again:
            return again[0], min(max(self.efforts.get(again[0], -1) + 1, LONGER), efforts - 1)
        if len(unclear) >= UNCLEAR:
            return None
        waiting = [index for index in between if index not in self.readings]
        distances = {index: self._nearest(one)[1] for index, one in self._distances(self._model(), waiting).items()}
        if unclear:
            # Above one that lies on the budget, only those matter that might be below it.
            waiting = [index for index in waiting if index < unclear[0] or distances[index] > -SURE]
        if not waiting or len(self.efforts) >= most:
            doubted = [index for index in (low, high) if index in self.doubtful]
            return next(((index, ANEW) for index in doubted if self.efforts[index] < ANEW < efforts), None)
        if not self.readings:
            return waiting[0], 0
        if len(self.efforts) >= GUIDED:
            quarter = len(waiting) // 4
            waiting = waiting[quarter : len(waiting) - quarter]
        return min(waiting, key=lambda index: abs(distances[index])), 0

    def take(self, place: int, effort: int, reading: Reading) -> None:
        """Take in what was measured."""
        before = self.readings.pop(place, None)
        strange = self._is_strange(place, reading)
        self.doubtful.discard(place)
        if strange or not reading.valid:
            self.doubtful.add(place)
        if before is not None and _apart(before, reading):
            self.notes.append(
                f"{self.candidates[place].name} took {before.seconds * 1e3:.4g} ms first, and "
                f"{reading.seconds * 1e3:.4g} ms when it was measured again: the device drifts"
            )
        self.readings[place] = reading
        self.efforts[place] = effort

    def found(self) -> Found:
        """Judge every candidate by all that is known."""
        model = self._model()
        everyone = range(len(self.candidates))
        distances = self._distances(model, everyone)
        return Found(
            judgements=tuple(self._judge(index, distances[index]) for index in everyone),
            predictions=tuple(self._predict(model, one) for one in self.candidates),
            readings=dict(sorted(self.readings.items())),
            model=model,
            measured=len(self.efforts),
            overhead_s=self._overhead(),
            runtime_bytes=self._runtime(),
            notes=(*self.notes, *self._out_of_order()),
        )

    # What is known

    def _model(self) -> Model | None:
        own = [
            Measured(self.candidates[index].workload, reading.seconds - reading.overhead_s, reading.sigma)
            for index, reading in sorted(self.readings.items())
        ]
        measured = [*own, *self.others]
        if not measured and self.prior.macs_per_s is None:
            return None
        first = self.candidates[0].workload
        return latency.fit(measured, first.scheme, family=first.family, prior=self.prior)

    def _overhead(self) -> float:
        known = sorted(reading.overhead_s for reading in self.readings.values())
        return known[len(known) // 2] if known else 0.0

    def _runtime(self) -> int:
        known = [reading.runtime_bytes for reading in self.readings.values() if reading.runtime_bytes is not None]
        return max(known, default=RUNTIME_BYTES)

    def _predict(self, model: Model | None, candidate: Candidate) -> Prediction | None:
        if model is None:
            return None
        found, extra = model.predict(candidate.workload), self._overhead()
        low, high = found.interval
        return Prediction(found.seconds + extra, (low + extra, high + extra))

    def _distances(self, model: Model | None, places: Sequence[int]) -> dict[int, dict[Limit, float]]:
        """Return how far candidates are from each limit, in standard deviations; positive within it."""
        budget = self.limits.budget_s - self._overhead()
        times = [0.0 if budget > 0 else -math.inf] * len(places)
        if model is not None and budget > 0 and places:
            means, covariance = model.moments([self.candidates[place].workload for place in places])
            times = [
                (math.log(budget) - float(mean)) / math.sqrt(covariance[index, index])
                for index, mean in enumerate(means)
            ]
        runtime, limits = self._runtime(), self.limits
        found: dict[int, dict[Limit, float]] = {}
        for place, time in zip(places, times, strict=True):
            one = self.candidates[place]
            found[place] = {
                "latency": time,
                "memory": _distance(one.memory_bytes + runtime, limits.max_memory_bytes, MEMORY_SPREAD),
                "size": _distance(one.size_bytes, limits.max_size_bytes, SIZE_SPREAD),
            }
        return found

    @staticmethod
    def _nearest(distances: Mapping[Limit, float]) -> tuple[Limit, float]:
        limit = min(distances, key=lambda one: distances[one])
        return limit, distances[limit]

    def _bracket(self) -> tuple[int, int]:
        """Return the places of the largest that fits and of the smallest above it that does not."""
        distances = self._distances(None, range(len(self.candidates)))
        low, high = self.lowest - 1, len(self.candidates)
        for index in range(self.lowest, len(self.candidates)):
            if index in self.readings:
                if self._of_reading(index, distances[index]).status == "fits":
                    low, high = index, len(self.candidates)
                elif high > index and self._of_reading(index, distances[index]).status == "does not fit":
                    high = index
            elif min(distances[index]["memory"], distances[index]["size"]) < -HOPELESS:
                high = min(high, index)
        return low, high

    def _is_strange(self, place: int, reading: Reading) -> bool:
        """Say whether a measurement is far from what the others let expect."""
        model, inside = self._model(), reading.seconds - reading.overhead_s
        if model is None or not self.readings or inside <= 0:
            return False
        means, covariance = model.moments([self.candidates[place].workload])
        deviation = math.hypot(math.sqrt(covariance[0, 0]), reading.sigma)
        return abs(math.log(inside) - float(means[0])) > STRANGE * deviation

    def _is_noise(self, place: int) -> bool:
        """Say whether it is the latency's interval that leaves a candidate open, so that measuring longer may help."""
        reading = self.readings[place]
        return reading.interval is not None and reading.interval[0] <= self.limits.budget_s < reading.interval[1]

    def _judge(self, place: int, distances: Mapping[Limit, float]) -> Judgement:
        if place in self.readings:
            return self._of_reading(place, distances)
        low, high = self._bracket()
        limit, distance = self._nearest(distances)
        if self.lowest <= place < low:
            return Judgement("fits", "predicted")
        if place > high and high in self.readings and distance > -SURE:
            # A smaller one does not fit, whatever is predicted of this one.
            return Judgement("does not fit", "predicted", self._of_reading(high, distances).limit)
        if distance > SURE:
            return Judgement("fits", "predicted")
        if place > high or distance < -SURE:
            return Judgement("does not fit", _basis(limit), limit)
        return Judgement("not separable", _basis(limit), limit)

    def _of_reading(self, place: int, distances: Mapping[Limit, float]) -> Judgement:
        reading, limits = self.readings[place], self.limits
        low, high = reading.interval or (reading.seconds, reading.seconds)
        if low > limits.budget_s:
            return Judgement("does not fit", "measured", "latency")
        open_ones: list[Judgement] = []
        if high > limits.budget_s:
            open_ones.append(Judgement("not separable", "measured", "latency"))
        sizes: tuple[tuple[Limit, int | None, int | None], ...] = (
            ("memory", reading.memory_bytes, limits.max_memory_bytes),
            ("size", reading.size_bytes, limits.max_size_bytes),
        )
        for limit, value, most in sizes:
            if most is not None and value is not None and value > most:
                return Judgement("does not fit", "measured", limit)
            if most is not None and value is None and distances[limit] < SURE:
                if distances[limit] < -SURE:
                    return Judgement("does not fit", _basis(limit), limit)
                open_ones.append(Judgement("not separable", _basis(limit), limit))
        return open_ones[0] if open_ones else Judgement("fits", "measured")

    def _out_of_order(self) -> list[str]:
        """Say which networks were slower than larger ones."""
        known = sorted(self.readings.items())
        return [
            f"{self.candidates[smaller].name} was slower than {self.candidates[larger].name}, which is larger: look at "
            "what else ran on the device"
            for place, (smaller, one) in enumerate(known)
            for larger, two in known[place + 1 :]
            if one.seconds > two.seconds and _apart(one, two)
        ]


def _apart(one: Reading, two: Reading) -> bool:
    if one.interval is None or two.interval is None:
        return one.seconds != two.seconds
    return one.interval[0] > two.interval[1] or two.interval[0] > one.interval[1]


def _distance(value: int, most: int | None, spread: float) -> float:
    return math.inf if most is None else math.log(most / value) / spread


def _basis(limit: Limit) -> Literal["predicted", "computed"]:
    return "computed" if limit == "size" else "predicted"
