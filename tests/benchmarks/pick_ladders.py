"""Picking against measuring everything: the same winner, how many networks are measured, and what that saves.

    python -m tests.benchmarks.pick_ladders [--ladders b:int8 b:float32 lite:int8] [--models FOLDER] [--largest b5]
    python -m tests.benchmarks.pick_ladders --phi 5ms 12ms 30ms [--scheme int8]
    python -m tests.benchmarks.pick_ladders --records FOLDER --models FOLDER

The first measures the whole ladder on this machine as `edgeeff profile` does, and then picks for every budget between
two neighbours, below the smallest and above the largest, each time from nothing. The second finds the largest phi for
each budget, and measures the network 0.2 above it. The third replays: records of a folder (files named like
b2_int8.1.profile.json, any number of each) are drawn from instead of measuring, and the time that measuring would take
is computed from what they say. There the whole ladder is every record, and a pick sees three processes of a network at
first and all of them when it asks again.

Times are those of measuring the whole ladder with the full protocol; `--whole short` takes the one that a pick begins
with. A conversion counts on both sides where it is made, or where its record is beside the file in `--models`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeeff import latency, quantities, scaling
from edgeeff.devices import profile, targets
from edgeeff.devices.profile import Protocol
from edgeeff.picking import measure, pick
from edgeeff.picking.ladder import Candidate, candidate, ladder
from edgeeff.picking.measure import Bench
from edgeeff.picking.search import ANEW, Found, Reading, search
from edgeeff.results import ConversionRecord, PickLimits, ProfileRecord, read_record
from edgeeff.statistics import relative_interval

EFFORTS = (measure.SHORT, measure.ANEW, measure.MANY, measure.LONG)
REPEATS = 10
"""Replays of every budget, each with other processes."""


def main() -> None:
    """Read or measure, pick, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladders", nargs="*", default=["b:int8", "b:float32", "lite:int8"])
    parser.add_argument("--largest", default="b5", help="largest b variant of a ladder; b7 takes 6 GB to convert")
    parser.add_argument("--models", type=Path, help="folder of converted files")
    parser.add_argument("--percentile", type=int, default=50, choices=(50, 90))
    parser.add_argument("--records", type=Path, help="folder of profile records to replay")
    parser.add_argument("--budgets", type=int, metavar="N", help="only so many, from the smallest to the largest")
    parser.add_argument("--whole", default="full", choices=("full", "short"), help="protocol for the whole ladder")
    parser.add_argument("--phi", nargs="*", default=[], metavar="BUDGET")
    parser.add_argument("--scheme", default="int8", help="of the phi family")
    arguments = parser.parse_args()
    for budget in arguments.phi:
        continuous(quantities.seconds("--phi", budget), arguments.scheme, arguments.models, arguments.percentile)
    if arguments.phi:
        return
    total, whole = Total(), {"short": measure.SHORT, "full": profile.FULL}[arguments.whole]
    limit = scaling.macs(scaling.network(arguments.largest))
    for name in arguments.ladders:
        family, scheme = name.split(":")
        rungs = [one for one in ladder(family, scheme) if family != "b" or one.macs <= limit]
        if arguments.records is not None:
            given = (arguments.records, arguments.models, arguments.percentile, whole, total, arguments.budgets)
            replay(name, rungs, *given)
        else:
            live(name, rungs, arguments.models, arguments.percentile, whole, total, arguments.budgets)
    total.summarize()


class Total:
    """What all picks say together."""

    def __init__(self) -> None:
        self.same: list[bool] = []
        self.open: list[bool] = []
        self.counts: list[int] = []
        self.ratios: list[float] = []

    def add(
        self, budget_s: float, truth: str | None, found: str | None, certain: bool, count: int, ratio: float
    ) -> str:
        """Take a pick in; return a line about it."""
        self.same.append(found == truth)
        self.open.append(not certain)
        self.counts.append(count)
        self.ratios.append(ratio)
        wrong = "" if found == truth else f"  BUT measuring all says {truth}"
        return (
            f"  budget {budget_s * 1e3:8.2f} ms: {found or 'nothing':8s} {count} measured, {ratio:.2f} of the time"
            f"{'' if certain else ', not certain'}{wrong}"
        )

    def summarize(self) -> None:
        """Print shares, and the most and the mean of counts and times."""
        if self.same:
            print(
                f"\n{len(self.same)} picks: {np.mean(self.same):.0%} the winner of measuring all, "
                f"{np.mean(self.open):.0%} not certain; measured {np.mean(self.counts):.1f} on average, "
                f"{max(self.counts)} at most; time {np.mean(self.ratios):.2f} on average, median "
                f"{np.median(self.ratios):.2f}, {max(self.ratios):.2f} at most"
            )


def budgets(seconds: Sequence[float], count: int | None) -> list[float]:
    """Return budgets between neighbours, below the smallest and above the largest; of more than `count`, so many."""
    between = [math.sqrt(below * above) for below, above in itertools.pairwise(seconds)]
    all_of_them = [seconds[0] * 0.8, *between, seconds[-1] * 1.2]
    if count is None or count >= len(all_of_them):
        return all_of_them
    return [all_of_them[round(place)] for place in np.linspace(0, len(all_of_them) - 1, count)]


def title(name: str, rungs: Sequence[Candidate], seconds: Sequence[float], spent_s: float) -> str:
    """Return the lines above the picks from a ladder."""
    figures = ", ".join(f"{one.name} {value * 1e3:.2f}" for one, value in zip(rungs, seconds, strict=True))
    return f"\n{name}: {figures} ms\n  measuring all takes {spent_s:.0f} s"


def largest(rungs: Sequence[Candidate], result: Found) -> str | None:
    """Return the largest that was found to fit."""
    fits = [one.name for one, judged in zip(rungs, result.judgements, strict=True) if judged.status == "fits"]
    return fits[-1] if fits else None


def is_certain(result: Found) -> bool:
    """Say whether no network was left open."""
    return all(judged.status != "not separable" for judged in result.judgements)


def winner(names: Sequence[str], seconds: Sequence[float], budget_s: float) -> str | None:
    """Return the largest that is within the budget."""
    return next((name for name, value in reversed(list(zip(names, seconds, strict=True))) if value <= budget_s), None)


# On this machine


def live(
    name: str,
    rungs: Sequence[Candidate],
    models: Path | None,
    percentile: int,
    whole: Protocol,
    total: Total,
    count: int | None,
) -> None:
    """Measure a whole ladder, then pick from it."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench([targets.LOCAL], 1, percentile, Path(folder), models=models, given=(whole,))
        begin = time.perf_counter()
        seconds = [bench.measure(one, 0)[0].seconds for one in rungs]
        spent = time.perf_counter() - begin
    print(title(name, rungs, seconds, spent))
    for budget in budgets(seconds, count):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench([targets.LOCAL], 1, percentile, Path(folder), models=models)
            begin = time.perf_counter()
            result = search(
                rungs,
                PickLimits(budget, percentile),
                functools.partial(_on, bench),
                prior=latency.this_machine(),
                efforts=len(bench.protocols),
            )
            ratio = (time.perf_counter() - begin) / spent
        truth = winner([one.name for one in rungs], seconds, budget)
        print(total.add(budget, truth, largest(rungs, result), is_certain(result), result.measured, ratio), flush=True)


def _on(bench: Bench, one: Candidate, effort: int) -> Reading:
    return bench.measure(one, effort)[0]


def continuous(budget_s: float, scheme: str, models: Path | None, percentile: int) -> None:
    """Find the largest phi for a budget, and measure the one 0.2 above it."""
    with tempfile.TemporaryDirectory() as folder:
        request = pick.Request(
            "phi", PickLimits(budget_s, percentile), scheme=scheme, output=Path(folder), models=models
        )
        record = pick.run(request)
        print(
            f"budget {budget_s * 1e3:.2f} ms: {record.winner}, {record.measured} measured, {record.seconds:.0f} s"
            f"{'' if record.certain else ', not certain: ' + '; '.join(record.doubts)}"
        )
        if record.winner is None:
            return
        phi = next(one.phi for one in record.candidates if one.name == record.winner) or 0.0
        bench = Bench([targets.LOCAL], 1, percentile, Path(folder), models=models)
        for number in (phi, min(phi + 0.2, scaling.PHI_MAX)):
            one = candidate(scaling.phi_network(round(number, 1)), scheme)
            (reading,) = bench.measure(one, 0)
            low, high = reading.interval or (reading.seconds, reading.seconds)
            print(
                f"  {one.name}: {reading.seconds * 1e3:.2f} ms ({low * 1e3:.2f} to {high * 1e3:.2f}), "
                f"{'fits' if reading.seconds <= budget_s else 'does not fit'}"
            )


# From records


@dataclass(frozen=True)
class Drawn:
    """What the processes of one network said: seconds at the percentile, and what starting one takes."""

    seconds: tuple[float, ...]
    start_s: float
    convert_s: float

    def reading(self, count: int, generator: random.Random) -> Reading:
        """Return what some of the processes say."""
        values = generator.sample(self.seconds, min(count, len(self.seconds)))
        middle, reach = float(np.median(values)), relative_interval(values) or 0.0
        return Reading(middle, (middle * math.exp(-reach), middle * math.exp(reach)), ())

    def cost_s(self, protocol: Protocol, *, converted: bool) -> float:
        """Return how long measuring takes, and converting where that has still to be done."""
        options = {"warmup_s": 2.0, "runs": 200.0, "duration_s": 10.0} | protocol.options
        one = float(np.median(self.seconds))
        running = max(options["warmup_s"], 10 * one) + max(options["duration_s"], options["runs"] * one)
        return protocol.processes * float(self.start_s + running) + (0.0 if converted else self.convert_s)


def replay(
    name: str,
    rungs: Sequence[Candidate],
    folder: Path,
    models: Path | None,
    percentile: int,
    whole: Protocol,
    total: Total,
    count: int | None,
) -> None:
    """Pick from what was recorded of a whole ladder."""
    known = {one.name: drawn(one, folder, models, percentile) for one in rungs}
    seconds = [float(np.median(known[one.name].seconds)) for one in rungs]
    spent = sum(known[one.name].cost_s(whole, converted=False) for one in rungs)
    print(title(name, rungs, seconds, spent))
    for budget in budgets(seconds, count):
        for repeat in range(REPEATS):
            generator, costs = random.Random(repeat), list[float]()  # noqa: S311 - draws processes
            result = search(
                rungs,
                PickLimits(budget, percentile),
                functools.partial(_replayed, known, generator, costs),
                prior=latency.this_machine(),
            )
            truth = winner([one.name for one in rungs], seconds, budget)
            found, ratio = largest(rungs, result), sum(costs) / spent
            line = total.add(budget, truth, found, is_certain(result), result.measured, ratio)
            if repeat == 0 or found != truth:
                print(line)


def _replayed(
    known: Mapping[str, Drawn], generator: random.Random, costs: list[float], one: Candidate, effort: int
) -> Reading:
    costs.append(known[one.name].cost_s(EFFORTS[effort], converted=effort > 0))
    return known[one.name].reading(3 if effort <= ANEW else 99, generator)


def drawn(one: Candidate, folder: Path, models: Path | None, percentile: int) -> Drawn:
    """Read what is recorded of a network, and of its conversion where that is known."""
    stem = one.file_name.removesuffix(".tflite")
    records = [read_record(path) for path in sorted(folder.glob(f"{stem}.*profile.json"))]
    profiles = [record for record in records if isinstance(record, ProfileRecord)]
    values: list[float] = []
    for record in profiles:
        several = record.latency.process_p50_s if percentile == 50 else record.latency.process_p90_s
        alone = record.latency.p50_s if percentile == 50 else record.latency.p90_s
        values += several if len(several) > 1 else [alone]
    if len(values) < 3:
        raise SystemExit(f"{folder} has {len(values)} processes of {one.name} in {one.scheme}; a replay needs three")
    start = float(np.median([record.import_s + record.load_s + record.first_inference_s for record in profiles]))
    converting = 0.0
    for scheme in {"float32", one.scheme}:
        path = None if models is None else models / f"{one.name}_{scheme}.json"
        made = read_record(path) if path is not None and path.is_file() else None
        if isinstance(made, ConversionRecord):
            converting += sum(made.seconds.values())
    return Drawn(tuple(values), start, converting)


if __name__ == "__main__":
    main()
