"""From what a user asks for to a record with the answer: which network of a family to take, and why.

What is measured next is `search`'s and how `measure`'s; this module puts the sources together and makes of what was
found the ladder, the margins and the warnings. Which changes would help is `changes`'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeeff import latency
from edgeeff.converters.schemes import MIXED
from edgeeff.devices import targets
from edgeeff.devices.profile_view import milliseconds
from edgeeff.devices.targets import Facts
from edgeeff.errors import InputError
from edgeeff.latency import Prior
from edgeeff.picking import changes, ladder, measure, records
from edgeeff.picking.ladder import Candidate
from edgeeff.picking.measure import Bench
from edgeeff.picking.records import PREFIX, Recorded
from edgeeff.picking.search import EFFORTS, Found, Judgement, Measure, Reading, search
from edgeeff.results import Device, PickCandidate, PickLatency, PickLimits, PickRecord, Runtime, this_device, versions

POINTS_PER_DOUBLING = 1.0
"""Top-1 that twice the MACs should buy at least: from B3 to B4 it is 1.0 point, from B4 to B5 0.6."""


@dataclass(frozen=True)
class Request:
    """What is asked for; `threads` None means one, or what a recorded target was measured with."""

    family: str
    limits: PickLimits
    scheme: str = "int8"
    names: tuple[str, ...] = ("local",)
    """Targets; the slowest one decides."""
    threads: int | None = None
    resolution: int | None = None
    image: Path | None = None
    """For latencies from this image to scores."""
    output: Path = Path("edgeeff-pick")
    records: Path | None = None
    models: Path | None = None
    quick: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Sources:
    """Where latencies come from: boards that can be reached, and recorded ones."""

    bench: Bench | None
    recorded: tuple[Recorded, ...]
    threads: int
    percentile: int
    prior: Prior = field(default_factory=Prior)

    def known(self, candidates: Sequence[Candidate]) -> dict[int, Reading]:
        """Return what is known of candidates on all targets before anything is measured, by their places."""
        reused = {} if self.bench is None else self.bench.known(candidates)
        found = {}
        for place, candidate in enumerate(candidates):
            written = self._written(candidate)
            if written is not None and (self.bench is None or place in reused):
                found[place] = records.slowest((*reused.get(place, ()), *written))
        return found

    def measuring(self, candidates: Sequence[Candidate]) -> Measure | None:
        """Return what measures a candidate on all targets, None where recorded ones lack one of them."""
        bench, written = self.bench, {one.name: self._written(one) for one in candidates}
        if bench is None or None in written.values():
            return None
        return lambda one, effort: records.slowest((*bench.measure(one, effort), *(written[one.name] or ())))

    def _written(self, candidate: Candidate) -> tuple[Reading, ...] | None:
        """Return what all recorded targets say of a candidate, None where one of them says nothing."""
        found = [one.reading(candidate, self.threads, self.percentile) for one in self.recorded]
        there = tuple(reading for reading in found if reading is not None)
        return there if len(there) == len(found) else None


def run(request: Request, prepare: Callable[[Bench], None] = lambda bench: None) -> PickRecord:
    """Answer a request; `prepare` may change how the bench shows what it does.

    The record has no winner when nothing keeps to the limits. Raises InputError and its kinds for what makes no sense,
    and what converting and measuring raise.
    """
    begin = time.perf_counter()
    limits = request.limits
    if request.scheme == MIXED:
        raise InputError(
            "'mixed' cannot be picked: which blocks are int8 is chosen for the weights of one network; pick with "
            "--scheme int8 or float32, then convert what you train with edgeeff convert --max-latency TIME"
        )
    candidates = ladder.ladder(request.family, request.scheme, request.resolution)
    lowest = _lowest(candidates, request)
    made = sources(request)
    if made.bench is not None:
        prepare(made.bench)
    figures = [figure for one in made.recorded for figure in one.figures]
    found = search(
        candidates,
        limits,
        made.measuring(candidates),
        known=made.known(candidates),
        # What a board was measured with says something of the others only where it is one board.
        others=records.others(figures, candidates, made.threads, limits.percentile) if len(request.names) == 1 else (),
        prior=made.prior,
        lowest=lowest,
        efforts=EFFORTS if made.bench is None else len(made.bench.protocols),
    )
    answer = _Answer(request, made, candidates, lowest, found)
    return answer.record(time.perf_counter() - begin)


def sources(request: Request) -> Sources:
    """Find the targets of a request; raises InputError and its kinds where one is not known or cannot be asked this."""
    recorded = tuple(
        records.recorded(name, request.records) for name in dict.fromkeys(request.names) if name.startswith(PREFIX)
    )
    boards = [measure.reachable(name) for name in dict.fromkeys(request.names) if not name.startswith(PREFIX)]
    threads = _threads(request.threads, recorded)
    if recorded and request.image is not None:
        raise InputError(f"--end-to-end is measured; {recorded[0].name} has latencies of networks only")
    facts = [target.facts for target in boards] + [
        targets.boards()[one.board] if one.board is not None else None for one in recorded
    ]
    bench = None
    if boards:
        bench = Bench(
            boards,
            threads,
            request.limits.percentile,
            request.output,
            image=request.image,
            models=request.models,
            quick=request.quick,
            fresh=request.fresh,
        )
    here = not recorded and all(board.address is None for board in boards)
    known = prior(facts, request.scheme, threads, here=here)
    return Sources(bench, recorded, threads, request.limits.percentile, known)


def prior(facts: Sequence[Facts | None], scheme: str, threads: int, *, here: bool = False) -> Prior:
    """Return what published facts say of the slowest of some boards; nothing where those of one are not known.

    `here` says that it is this machine, which can be asked.
    """
    known = [
        latency.board_prior(
            one.peak_float32_ops_per_s,
            one.cores or 1,
            latency.SCHEMES.get(scheme, scheme),
            threads=threads,
            int8_dot_product=one.has_int8_dot_product,
        )
        for one in facts
        if one is not None and one.peak_float32_ops_per_s is not None
    ]
    if not known or len(known) < len(facts):
        return latency.this_machine() if here else Prior()
    return min(known, key=lambda one: one.macs_per_s or math.inf)


def _threads(asked: int | None, recorded: Sequence[Recorded]) -> int:
    for one in recorded:
        if asked is not None and asked not in one.threads:
            counts = ", ".join(map(str, one.threads))
            raise InputError(f"{one.name} was measured with {counts} threads, not with {asked}: leave --threads away")
    if asked is not None:
        return asked
    shared = set.intersection(*(set(one.threads) for one in recorded)) if recorded else {1}
    if not shared:
        raise InputError(
            f"{' and '.join(one.name for one in recorded)} were measured with different thread counts; take one of them"
        )
    return min(shared)


def _lowest(candidates: Sequence[Candidate], request: Request) -> int:
    """Return the place of the smallest candidate with the top-1 that is asked for; behind the last where none has."""
    wanted = request.limits.min_top1
    if wanted is None:
        return 0
    if all(one.top1 is None for one in candidates):
        why = "at another resolution" if request.resolution is not None else f"of the family {request.family}"
        raise InputError(f"nobody published a top-1 {why}, so --min-top1 {wanted:g} cannot be told: leave it away")
    good = (place for place, one in enumerate(candidates) if one.top1 is not None and one.top1 >= wanted)
    return next(good, len(candidates))


@dataclass(frozen=True)
class _Answer:
    """What was found, and the sentences and figures that follow from it."""

    request: Request
    sources: Sources
    candidates: Sequence[Candidate]
    lowest: int
    found: Found

    def record(self, seconds: float) -> PickRecord:
        request, found = self.request, self.found
        winner, following = self._winner(), self._next()
        rival = following if following is not None else self._smaller(winner)
        doubts = tuple(self._doubts(winner, following))
        device, runtime = self._device()
        return PickRecord(
            runtime=runtime,
            device=device,
            packages=versions("numpy", "ai-edge-litert"),
            family=request.family,
            scheme=request.scheme,
            threads=self.sources.threads,
            targets=tuple(dict.fromkeys(request.names)),
            recorded=tuple(dict.fromkeys(text for one in self.sources.recorded for text in one.origin)),
            limits=request.limits,
            candidates=tuple(self._candidate(place) for place in range(len(self.candidates))),
            winner=None if winner is None else self.candidates[winner].name,
            margin=None if winner is None else self._margin(winner),
            runner_up=None if winner is None or rival is None else self.candidates[rival].name,
            runner_up_margin=None if winner is None or rival is None else self._margin(rival),
            certain=not doubts,
            doubts=doubts,
            decides=self._decides(winner, following),
            changes=changes.find(
                self.candidates,
                following,
                found,
                request.limits,
                winner=winner,
                threads=self.sources.threads,
                cores=device.cores,
                reach=self._reach(),
            ),
            warnings=tuple(self._warnings(winner, device)),
            fitted=() if found.model is None else found.model.fitted,
            measured=found.measured,
            seconds=round(seconds, 3),
            command=None if winner is None else f"edgeeff convert {self.candidates[winner].options}",
            overhead_s=found.overhead_s if request.limits.end_to_end and found.readings else None,
        )

    # Places

    def _winner(self) -> int | None:
        fitting = [
            place
            for place, judgement in enumerate(self.found.judgements)
            if place >= self.lowest and judgement.status == "fits"
        ]
        return max(fitting, default=None)

    def _next(self) -> int | None:
        """Return the place of the smallest candidate that would be better than what was found."""
        winner = self._winner()
        place = self.lowest if winner is None else winner + 1
        return place if place < len(self.candidates) else None

    def _smaller(self, winner: int | None) -> int | None:
        return winner - 1 if winner is not None and winner > self.lowest else None

    def _reach(self) -> int | None:
        """Return the place of the largest that keeps to all but the top-1, where that is asked too much."""
        fitting = [place for place, one in enumerate(self.found.judgements[: self.lowest]) if one.status == "fits"]
        return max(fitting, default=None)

    # Figures

    def _candidate(self, place: int) -> PickCandidate:
        one, reading, prediction = self.candidates[place], self.found.readings.get(place), self.found.predictions[place]
        judgement, network = self.found.judgements[place], one.network
        status, by, limit = judgement.status, self._by(place, judgement), str(judgement.limit or "") or None
        if place < self.lowest:
            status, by, limit = "does not fit", "published", "top-1"
        return PickCandidate(
            name=one.name,
            phi=network.phi,
            depth=network.depth,
            width=network.width,
            resolution=network.resolution,
            parameters=one.parameters,
            macs=one.macs,
            top1=one.top1,
            top1_source=one.top1_source,
            predicted_size_bytes=one.size_bytes,
            size_bytes=None if reading is None else reading.size_bytes,
            predicted_memory_bytes=one.memory_bytes + self.found.runtime_bytes,
            peak_memory_bytes=None if reading is None else reading.memory_bytes,
            predicted_s=None if prediction is None else prediction.seconds,
            predicted_interval_s=None if prediction is None else prediction.interval,
            latency_s=None if reading is None else reading.seconds,
            interval_s=None if reading is None else reading.interval,
            latencies=() if reading is None else reading.latencies,
            gain_per_ms=self._gain(place),
            status=status,
            by=by,
            limit=limit,
        )

    def _by(self, place: int, judgement: Judgement) -> str:
        reading = self.found.readings.get(place)
        if judgement.by == "measured" and reading and all(one.basis == "recorded" for one in reading.latencies):
            return "recorded"
        return judgement.by

    def _seconds(self, place: int) -> float | None:
        reading, prediction = self.found.readings.get(place), self.found.predictions[place]
        if reading is not None:
            return reading.seconds
        return None if prediction is None else prediction.seconds

    def _gain(self, place: int) -> float | None:
        if place == 0:
            return None
        smaller, larger = self.candidates[place - 1], self.candidates[place]
        before, after = self._seconds(place - 1), self._seconds(place)
        if smaller.top1 is None or larger.top1 is None or before is None or after is None or after <= before:
            return None
        return (larger.top1 - smaller.top1) / ((after - before) * 1e3)

    def _margin(self, place: int) -> float | None:
        """Return the part of the limit that is left: the one that decides of the candidate, or the budget."""
        reading, limits, one = self.found.readings.get(place), self.request.limits, self.candidates[place]
        limit = self.found.judgements[place].limit
        if limit == "memory" and limits.max_memory_bytes is not None:
            memory = reading.memory_bytes if reading is not None else None
            return 1 - (memory or one.memory_bytes + self.found.runtime_bytes) / limits.max_memory_bytes
        if limit == "size" and limits.max_size_bytes is not None:
            size = reading.size_bytes if reading is not None else None
            return 1 - (size or one.size_bytes) / limits.max_size_bytes
        seconds = self._seconds(place)
        return None if seconds is None else 1 - seconds / limits.budget_s

    # Sentences

    def _decides(self, winner: int | None, following: int | None) -> str | None:
        if following is None:
            return None if winner is not None else "top-1"
        return self.found.judgements[following].limit

    def _doubts(self, winner: int | None, following: int | None) -> Iterator[str]:
        judgements, readings = self.found.judgements, self.found.readings
        for place, judgement in enumerate(judgements):
            if place < self.lowest or judgement.status != "not separable":
                continue
            name, reading = self.candidates[place].name, readings.get(place)
            if reading is None:
                yield f"{name} was not measured, and what is predicted of its {judgement.limit} cannot tell"
            elif judgement.limit == "latency" and reading.interval is not None:
                low, high = reading.interval
                yield (
                    f"{name} takes {milliseconds(reading.seconds)} ({milliseconds(low)} to {milliseconds(high)}): the "
                    f"budget of {milliseconds(self.request.limits.budget_s)} is inside, after the longest measurement"
                )
            else:
                yield f"{name}: its {judgement.limit} was not recorded, and what is predicted cannot tell"
        if winner is not None and judgements[winner].by != "measured":
            yield f"{self.candidates[winner].name} was not measured: that it fits is predicted"
        if following is not None:
            judgement = judgements[following]
            if judgement.status == "does not fit" and judgement.by == "predicted":
                yield (
                    f"{self.candidates[following].name} was not measured: that its {judgement.limit} does not fit is "
                    "predicted"
                )
        decisive = [place for place in (winner, following) if place is not None and place in readings]
        if any(readings[place].interval is None for place in decisive):
            yield "recorded figures came without intervals"
        for place in decisive:
            for one in self._invalid(place):
                yield (
                    f"the measurement of {self.candidates[place].name} on {one.target} is invalid: {one.reason} (all "
                    f"reasons are in {one.source}; --fresh measures it anew)"
                )

    def _invalid(self, place: int) -> list[PickLatency]:
        return [one for one in self.found.readings[place].latencies if not one.valid]

    def _warnings(self, winner: int | None, device: Device) -> Iterator[str]:
        if device.emulated:
            yield "EMULATED: a program stood in for the board, so no latency here is a real board's"
        yield from self.found.notes
        yield from self._accelerators()
        if winner is not None and winner > 0:
            yield from self._little_gain(winner)

    def _accelerators(self) -> Iterator[str]:
        for name in dict.fromkeys(self.request.names):
            facts = None if name.startswith(PREFIX) else targets.find(name).facts
            if facts is not None and facts.accelerator is not None:
                yield (
                    f"{name} has an {facts.accelerator}; these are the latencies of its CPU. What the other takes: "
                    f"edgeeff profile FILE --target {name} --delegate edgetpu, with a compiled FILE"
                )

    def _little_gain(self, winner: int) -> Iterator[str]:
        smaller, larger = self.candidates[winner - 1], self.candidates[winner]
        if smaller.top1 is None or larger.top1 is None or winner <= self.lowest:
            return
        times = larger.macs / smaller.macs
        gain = larger.top1 - smaller.top1
        if gain < POINTS_PER_DOUBLING * math.log2(times):
            yield (
                f"{larger.name} has {times:.1f} times the MACs of {smaller.name} for {gain:.1f} points of top-1: "
                f"consider {smaller.name}"
            )

    def _device(self) -> tuple[Device, Runtime | None]:
        """Return who the slowest target is: of the largest network that was measured."""
        bench, known = self.sources.bench, {one.name: (one.device, one.runtime) for one in self.sources.recorded}
        if bench is not None:
            known |= bench.devices
        for reading in reversed(list(self.found.readings.values())):
            last = max(reading.latencies, key=lambda one: one.seconds)
            if last.target in known:
                return known[last.target]
        return next(iter(known.values()), (this_device(), None))
