"""Latency of unmeasured variants after two measured ones: predicted against measured.

    python -m tests.benchmarks.predict_latency [--families b lite] [--schemes int8 float32] [--largest b5]
    python -m tests.benchmarks.predict_latency --records FOLDER
    python -m tests.benchmarks.predict_latency --mlperf mlperf_inference_v1.1_raspberry_pi_4.csv

Without `--records`, every variant is converted with random weights and measured here, quick, one thread, in turn; with
it, the profile records of a folder are read (files named like b2_int8.tflite; of several records of one file the least
disturbed counts). Beside the model stand a straight line in MACs through the same two networks, and the rate of the
larger of them. The model is fitted on the smallest network and on one that may be called the middle; every choice of it
is a fit of its own. Then comes the working memory: predicted from the graph, and measured.

`--mlperf` replays published figures of one board instead: `sut,model,...,p50_ms` with MobileNets and EfficientNet-Lite.
The first table fits on Lite0 and one other Lite network, the second on all MobileNets and one Lite network. For every
budget halfway between two Lite networks the pick is asked for, too: once from the predictions as they are, and once as
`edgeeff pick` finds it, which measures what decides.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeeff import latency, scaling
from edgeeff.latency import Measured, Prior, Workload
from edgeeff.picking.ladder import Candidate, ladder
from edgeeff.picking.search import Reading, search
from edgeeff.results import PickLimits, ProfileRecord, read_record


def main() -> None:
    """Read or measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["b", "lite"], help="b, lite, or phi (records only)")
    parser.add_argument("--schemes", nargs="+", default=["int8", "float32"])
    parser.add_argument("--largest", default="b5", help="largest b variant to convert and measure; b7 takes 6 GB")
    parser.add_argument("--processes", type=int, default=3, help="measuring processes for each file")
    parser.add_argument("--records", type=Path, help="folder of profile records")
    parser.add_argument("--mlperf", type=Path, help="CSV of published figures")
    arguments = parser.parse_args()
    if arguments.mlperf is not None:
        replay(arguments.mlperf)
        return
    prior = latency.this_machine()
    if arguments.records is not None:
        found = [read_record(path) for path in sorted(arguments.records.glob("*.profile.json"))]
        records = [record for record in found if isinstance(record, ProfileRecord)]
    else:
        records = list(measure(arguments.families, arguments.schemes, arguments.largest, arguments.processes))
    results = Results()
    for (family, scheme), known in grouped(records).items():
        if family in arguments.families and scheme in arguments.schemes:
            for middle in middles(len(known)):
                two = [known[0], known[middle]]
                rest = [item for item in known if item not in two]
                names = ", ".join(item.workload.name for item in two)
                results.add(f"{family} {scheme}, fitted on {names}", two, rest, prior)
    results.summarize()
    memory(records)


class Results:
    """Prints one line for every fit, and in the end what they say together."""

    def __init__(self) -> None:
        self.errors: list[float] = []
        self.line: list[float] = []
        self.rate: list[float] = []
        self.inside: list[bool] = []
        self.fits: list[tuple[str, float, float]] = []

    def add(self, title: str, known: Sequence[Measured], rest: Sequence[Measured], prior: Prior) -> None:
        """Fit on some networks and predict the rest; the line and the rate are those of the first and the last."""
        sample = rest[0].workload
        model = latency.fit(known, sample.scheme, family=sample.family, prior=prior)
        first, last = known[0], known[-1]
        slope = (last.seconds - first.seconds) / (last.workload.macs - first.workload.macs)
        print(f"\n{title}")
        before = len(self.errors)
        for item in rest:
            predicted = model.predict(item.workload)
            low, high = predicted.interval
            error = predicted.seconds / item.seconds - 1
            line = (first.seconds + slope * (item.workload.macs - first.workload.macs)) / item.seconds - 1
            rate = item.workload.macs * last.seconds / last.workload.macs / item.seconds - 1
            inside = low <= item.seconds <= high
            print(
                f"  {item.workload.name:9s} measured {item.seconds * 1e3:8.2f} ms, "
                f"predicted {predicted.seconds * 1e3:8.2f} ({low * 1e3:.2f} to {high * 1e3:.2f}): {error:+6.1%}"
                f"{'' if inside else ' outside'}   line {line:+6.1%}   rate {rate:+6.1%}"
            )
            self.errors.append(error)
            self.line.append(line)
            self.rate.append(rate)
            self.inside.append(inside)
        worst, worst_line = (max(map(abs, errors[before:])) for errors in (self.errors, self.line))
        self.fits.append((title, worst, worst_line))

    def summarize(self) -> None:
        """Print medians, worst errors, and how many intervals held what was measured."""
        if not self.errors:
            print("nothing to predict: no ladder of three or more networks was found")
            return
        print(f"\n{'worst error of':50s}   model    line")
        for title, worst, worst_line in self.fits:
            print(f"  {title:48s} {worst:7.1%} {worst_line:7.1%}")
        print(f"\n{len(self.errors)} predictions      median   worst")
        for name, errors in (("model", self.errors), ("line in MACs", self.line), ("single rate", self.rate)):
            size = np.abs(errors)
            print(f"  {name:14s} {np.median(size):9.1%} {size.max():7.1%}")
        print(f"  intervals that hold it: {np.mean(self.inside):.0%}")


def memory(records: Sequence[ProfileRecord]) -> None:
    """Print how far the predicted working memory is from what loading and the first inference took."""
    errors = {}
    for record in records:
        if record.model_bytes:
            name, scheme = named(record)
            workload = latency.network_workload(scaling.network(name), scheme)
            errors[name, scheme] = latency.peak_memory(workload) / record.model_bytes - 1
    if errors:
        (name, scheme), worst = max(errors.items(), key=lambda item: abs(item[1]))
        middle = np.median(np.abs(list(errors.values())))
        print(
            f"\nworking memory of {len(errors)} files: median error {middle:.1%}, worst {worst:+.1%} ({name} {scheme})"
        )


def named(record: ProfileRecord) -> tuple[str, str]:
    """Return the network and the scheme that a file is named after."""
    name, _, scheme = Path(record.model.path).name.removesuffix(".tflite").rpartition("_")
    return name, scheme


def middles(count: int) -> range:
    """Return the places of a ladder that may be called its middle: neither end, nor beside them where there is room."""
    return range(2, count - 2) if count > 4 else range(1, count - 1)


def grouped(records: Iterable[ProfileRecord]) -> dict[tuple[str, str], list[Measured]]:
    """Return the ladders by family and scheme, smallest first."""
    least: dict[tuple[str, str, str], float] = {}
    for record in records:
        name, scheme = named(record)
        network = scaling.network(name)
        key = (network.family, scheme, name)
        least[key] = min(least.get(key, np.inf), record.latency.p50_s)
    ladders: dict[tuple[str, str], list[Measured]] = {}
    for (family, scheme, name), seconds in least.items():
        workload = latency.network_workload(scaling.network(name), scheme)
        ladders.setdefault((family, scheme), []).append(Measured(workload, seconds))
    return {key: sorted(items, key=lambda item: item.workload.macs) for key, items in ladders.items()}


def measure(families: Sequence[str], schemes: Sequence[str], largest: str, processes: int) -> tuple[ProfileRecord, ...]:
    """Convert and measure the ladders."""
    from edgeeff.converters import convert, inspect, workload
    from edgeeff.devices import profile

    limit = scaling.macs(scaling.network(largest))
    names = [
        name
        for name, variant in scaling.VARIANTS.items()
        if variant.family in families and (variant.family != "b" or scaling.macs(scaling.network(name)) <= limit)
    ]
    few = convert.Calibration(samples=4)  # ranges change no latency
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in names:
            plain = Path(folder) / f"{name}_float32.tflite"
            convert.convert(
                convert.Source(variant=name, weights="none"), scheme="float32", output=plain, calibration=few
            )
            for scheme in schemes:
                files.append(Path(folder) / f"{name}_{scheme}.tflite")
                if scheme != "float32":
                    convert.convert(convert.Source(model=plain), scheme=scheme, output=files[-1], calibration=few)
        for file in files:
            name, _, scheme = file.stem.rpartition("_")
            expected = latency.network_workload(scaling.network(name), scheme)
            if workload.of_graph(inspect.parse(file.read_bytes()), name, expected.family) != expected:
                raise SystemExit(f"{file.name} does something else than the formula says: its predictions mean nothing")
        return profile.measure(files, threads=1, protocol=replace(profile.QUICK, processes=processes))


# Published figures


def replay(path: Path) -> None:
    """Predict the Lite rows of a board from others."""
    rows = published(path)
    for scheme in ("int8", "float32"):
        mine = [row for row in rows if row.workload.scheme == scheme]
        lite = sorted((row for row in mine if row.workload.family == "lite"), key=lambda row: row.workload.macs)
        others = [row for row in mine if row.workload.family != "lite"]
        two, foreign = Results(), Results()
        for one in lite[1:]:
            title = f"{scheme}, fitted on {lite[0].workload.name}, {one.workload.name}"
            two.add(title, [lite[0], one], [row for row in lite[1:] if row is not one], Prior())
            picks(lite, [lite[0], one])
        two.summarize()
        for one in lite if others else ():
            title = f"{scheme}, fitted on {len(others)} MobileNets and {one.workload.name}"
            foreign.add(title, [*others, one], [row for row in lite if row is not one], Prior())
            picks(lite, [one], others)
        if others:
            foreign.summarize()


def picks(lite: Sequence[Measured], known: Sequence[Measured], others: Sequence[Measured] = ()) -> None:
    """Print how many budgets halfway between two networks lead to the right one, predicted and measured."""
    rungs = ladder("lite", lite[0].workload.scheme)
    model = latency.fit([*others, *known], lite[0].workload.scheme, family="lite")
    times = [row.seconds if row in known else model.predict(row.workload).seconds for row in lite]
    readings = [Reading(row.seconds, None, ()) for row in lite]

    def measure(candidate: Candidate, _effort: int) -> Reading:
        return readings[rungs.index(candidate)]

    there = {lite.index(row): readings[lite.index(row)] for row in known}
    right, found, counts = [], [], []
    for place, (below, above) in enumerate(itertools.pairwise(row.seconds for row in lite)):
        budget = math.sqrt(below * above)
        right.append(max((index for index, seconds in enumerate(times) if seconds <= budget), default=None) == place)
        result = search(rungs, PickLimits(budget, 50), measure, known=there, others=others)
        fitting = [index for index, judged in enumerate(result.judgements) if judged.status == "fits"]
        found.append(max(fitting, default=None) == place)
        counts.append(result.measured)
    print(
        f"  picks: {sum(right)} of {len(right)} right as predicted; {sum(found)} of {len(found)} measured, with "
        f"{min(counts)} to {max(counts)} networks more"
    )


def published(path: Path) -> list[Measured]:
    """Return the rows whose networks are known."""
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            workload = from_name(row["model"])
            if workload is not None:
                rows.append(Measured(workload, float(row["p50_ms"]) / 1e3))
    return rows


def from_name(model: str) -> Workload | None:
    """Return what a network does that is called as in MLPerf's TFLite submissions."""
    quantized = "non-quantized" not in model and ("quantized" in model or model.endswith("uint8"))
    scheme = "int8" if quantized else "float32"
    if match := re.match(r"efficientnet-(lite\d)-", model):
        workload = latency.network_workload(scaling.network(match[1]), scheme)
        # The published files take scaled pixels: what `edgeeff convert` puts in front of the stem is not in them.
        stem = next(index for index, item in enumerate(workload.operators) if item.kind == "image")
        return replace(workload, operators=workload.operators[stem:])
    if match := re.match(r"mobilenet-v([12])-([\d.]+)-(\d+)-", model):
        build = mobilenet_v1 if match[1] == "1" else mobilenet_v2
        return build(model, scheme, float(match[2]), int(match[3]))
    if match := re.match(r"mobilenet-v3-(large|small)(-minimalistic)?_(\d+)_([\d.]+)_", model):
        return mobilenet_v3(model, scheme, float(match[4]), int(match[3]), match[1], bool(match[2]))
    return None


class Builder(latency.Writer):
    """Adds what MobileNets have."""

    def hard_swish(self) -> None:
        """Activate by a piecewise sigmoid."""
        self.add("HARD_SWISH", (self.current,), self.side, self.channels)

    def workload(self, name: str, family: str, classes: int = 1001) -> Workload:
        """Score the classes, one of them the background, and return all that was written."""
        self.connect(classes)
        return self.finish(name, family)


def eight(channels: float) -> int:
    return scaling.round_filters(1, channels)


def mobilenet_v1(name: str, scheme: str, width: float, side: int) -> Workload:
    """Howard and others, arXiv:1704.04861, table 1."""
    net = Builder(scheme, side)
    net.convolve(int(32 * width), 3, 2)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in plan:
        net.filter(3, stride)
        net.convolve(int(channels * width))
    net.pool()
    return net.workload(name, "mobilenet-v1")


def mobilenet_v2(name: str, scheme: str, width: float, side: int) -> Workload:
    """Sandler and others, arXiv:1801.04381, table 2."""
    net = Builder(scheme, side)
    net.convolve(eight(32 * width), 3, 2)
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, repeats, first in plan:
        for index in range(repeats):
            start, source, out = net.current, net.channels, eight(channels * width)
            stride = first if index == 0 else 1
            if expand != 1:
                net.convolve(expand * source)
            net.filter(3, stride)
            net.convolve(out)
            if stride == 1 and source == out:
                net.add("ADD", (net.current, start), net.side, out)
    net.convolve(eight(1280 * max(1.0, width)))
    net.pool()
    return net.workload(name, "mobilenet-v2")


# kernel, expanded, out, squeeze-and-excite, hard swish, stride: Howard and others, arXiv:1905.02244, tables 1 and 2
V3 = {
    "large": [
        (3, 16, 16, 0, 0, 1),
        (3, 64, 24, 0, 0, 2),
        (3, 72, 24, 0, 0, 1),
        (5, 72, 40, 1, 0, 2),
        (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1),
        (3, 240, 80, 0, 1, 2),
        (3, 200, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1),
        (3, 672, 112, 1, 1, 1),
        (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    ],
    "small": [
        (3, 16, 16, 1, 0, 2),
        (3, 72, 24, 0, 0, 2),
        (3, 88, 24, 0, 0, 1),
        (5, 96, 40, 1, 1, 2),
        (5, 240, 40, 1, 1, 1),
        (5, 240, 40, 1, 1, 1),
        (5, 120, 48, 1, 1, 1),
        (5, 144, 48, 1, 1, 1),
        (5, 288, 96, 1, 1, 2),
        (5, 576, 96, 1, 1, 1),
        (5, 576, 96, 1, 1, 1),
    ],
}


def mobilenet_v3(name: str, scheme: str, width: float, side: int, size: str, minimalistic: bool) -> Workload:
    """Return MobileNetV3; the minimalistic ones have 3x3 kernels, ReLU, and nothing that squeezes."""
    net = Builder(scheme, side)
    net.convolve(16, 3, 2)
    if not minimalistic:
        net.hard_swish()
    for kernel, expanded, channels, squeeze, hard, stride in V3[size]:
        start, source = net.current, net.channels
        wide, out = eight(expanded * width), eight(channels * width)
        if wide != source:
            net.convolve(wide)
            if hard and not minimalistic:
                net.hard_swish()
        net.filter(3 if minimalistic else kernel, stride)
        if hard and not minimalistic:
            net.hard_swish()
        if squeeze and not minimalistic:
            net.excite(eight(wide / 4), "relu")
        net.convolve(out)
        if stride == 1 and source == out:
            net.add("ADD", (net.current, start), net.side, out)
    net.convolve(eight((960 if size == "large" else 576) * width))
    if not minimalistic:
        net.hard_swish()
    net.pool()
    net.convolve(1280 if size == "large" else 1024)
    return net.workload(name, "mobilenet-v3")


if __name__ == "__main__":
    main()
