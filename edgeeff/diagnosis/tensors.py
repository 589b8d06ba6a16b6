"""The tensors of a float file and of a quantized one side by side: what their ranges clip or waste, where errors arise.

Tensors are told by their names, which quantizers keep; where most names differ, because the two files were traced in
different ways, by the order of the operators, counted from the end. Both files run on the same images with all tensors
kept, one image at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import ranges
from edgeeff.calibration.ranges import SATURATED, Histogram, Rule
from edgeeff.converters import inspect
from edgeeff.converters.graph import OPTIONAL, WEIGHTED, Graph
from edgeeff.diagnosis.scores import Feed, Pictures
from edgeeff.results import TensorFault

PASSED_ON = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "CAST", "SOFTMAX", "LOGISTIC"})
"""What may stand between a network's logits and its output."""
NAMED = 0.5
"""Share of the weighted operators that have to be found by name, or names are not what tells."""
LEVELS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
BEST = Rule("L1", "error", 1.0)
"""The best range is the one with the least mean error: a square would count single large values too much."""


@dataclass(frozen=True)
class Pair:
    """One tensor of the network in both files."""

    name: str
    """In the float file."""
    block: str
    baseline: int
    model: int
    scale: float | None
    """None where the tensor is float in both files, or has a scale for each channel."""
    zero_point: int
    dtype: str
    head: bool
    """Whether it is the logits or comes after them."""
    of_known_range: bool
    """A LOGISTIC or SOFTMAX makes it: its range is a definition."""
    flat_below: bool
    """Swish or sigmoid read it: what is far below zero may be cut off."""

    @property
    def span(self) -> tuple[float, float]:
        """What the quantized tensor can hold."""
        low, high = LEVELS[self.dtype]
        scale = self.scale or 0.0
        return (low - self.zero_point) * scale, (high - self.zero_point) * scale


@dataclass(frozen=True)
class Compared:
    """A pair, and what both held on some images."""

    pair: Pair
    fault: TensorFault
    best_clipped: float
    """Share of images whose largest float value is above what the quantized tensor can hold."""


def pairs(baseline: Path, model: Path) -> tuple[Pair, ...]:
    """Match the computed tensors of two files, in the order of the float one; empty where none can be told."""
    float_graph, graph = (inspect.parse(path.read_bytes()) for path in (baseline, model))
    by_name = _by_name(float_graph, graph)
    weighted = [one.outputs[0] for one in float_graph.operators if one.name in WEIGHTED]
    found = sum(index in by_name for index in weighted)
    matched = by_name if found >= max(1.0, NAMED * len(weighted)) else _by_order(float_graph, graph)
    heads, bent = _head(float_graph), _bent(float_graph)
    makers = {index: operator for operator in float_graph.operators for index in operator.outputs}
    return tuple(
        _pair(float_graph, graph, index, matched[index], makers[index], index in heads, index in bent)
        for index in makers
        if index in matched
    )


def is_quantized(path: Path) -> bool:
    """Whether a file computes with quantized activations."""
    graph = inspect.parse(path.read_bytes())
    made = (graph.tensors[index] for operator in graph.operators for index in operator.outputs)
    return any(tensor.dtype in LEVELS and tensor.quantization is not None for tensor in made)


def cut_biases(model: Path) -> tuple[str, ...]:
    """Return the name of an operator's result for each of its int32 biases that is as large as the type can hold."""
    graph, limit = Graph.read(model), np.iinfo(np.int32)
    found: list[str] = []
    for operator in graph.operators:
        if graph.kind(operator) in WEIGHTED and len(operator.inputs) > 2 and operator.inputs[2] != OPTIONAL:
            bias = graph.constant(int(operator.inputs[2]))
            if bias is not None and bias.dtype == np.int32:
                ends = np.isin(bias, (limit.min, -limit.max, limit.max))
                found += [graph.name(int(operator.outputs[0]))] * int(ends.sum())
    return tuple(found)


def compare(
    matched: Sequence[Pair], baseline: Feed, model: Feed, pictures: Pictures, count: int
) -> tuple[Compared, ...]:
    """Run both files on the first `count` images and compare their tensors, those of a size that can be compared."""
    sessions = baseline.session(keep=True), model.session(keep=True)
    sums = [_Sums(pair) for pair in matched]
    for theirs, ours in zip(baseline.images(pictures, count), model.images(pictures, count), strict=True):
        sessions[0].run(theirs)
        sessions[1].run(ours)
        for one in sums:
            one.add(sessions[0].tensor(one.pair.baseline), sessions[1].tensor(one.pair.model))
    return tuple(one.compared() for one in sums if one.count)


# --- Matching ---------------------------------------------------------------------------------------------------------


def _by_name(float_graph: inspect.Graph, graph: inspect.Graph) -> dict[int, int]:
    """Match results by whole names, and those left by the first of the names that a converter joined."""
    found: dict[int, int] = {}
    for name in (_whole, _first):
        theirs, ours = (_named(each, name) for each in (float_graph, graph))
        for key, index in theirs.items():
            if key in ours and _same_size(float_graph.tensors[index], graph.tensors[ours[key]]):
                found.setdefault(index, ours[key])
    return found


def _named(graph: inspect.Graph, name: Callable[[str], str]) -> dict[str, int]:
    """Return the computed tensors by name; of those with the same, as quantizers make, the first quantized one."""
    found: dict[str, int] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            key = name(graph.tensors[index].name)
            quantized = graph.tensors[index].dtype in LEVELS
            if key not in found or (quantized and graph.tensors[found[key]].dtype not in LEVELS):
                found[key] = index
    return found


def _whole(name: str) -> str:
    """A name without what litert-quantizer adds."""
    return name.removesuffix("_quantized").removesuffix("_dequant").rstrip(";")


def _first(name: str) -> str:
    return _whole(name).split(";", 1)[0]


def _by_order(float_graph: inspect.Graph, graph: inspect.Graph) -> dict[int, int]:
    """Match the results of weighted operators from the end on, as long as kinds and sizes are the same."""
    left, right = (
        [(one.name, each.tensors[one.outputs[0]]) for one in each.operators if one.name in WEIGHTED]
        for each in (float_graph, graph)
    )
    found = {}
    for (kind, tensor), (other_kind, other) in zip(reversed(left), reversed(right), strict=False):
        if kind != other_kind or not _same_size(tensor, other):
            break
        found[tensor.index] = other.index
    return found


def _same_size(one: inspect.Tensor, other: inspect.Tensor) -> bool:
    return int(np.prod(one.shape)) == int(np.prod(other.shape))


def _head(graph: inspect.Graph) -> set[int]:
    """Return the output and what comes before it up to the logits."""
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    current, found = graph.outputs[0], {graph.outputs[0]}
    while (operator := makers.get(current)) is not None and operator.name in PASSED_ON:
        current = operator.inputs[0]
        found.add(current)
    return found


def _bent(graph: inspect.Graph) -> set[int]:
    """Return the tensors that only swish or sigmoid read: a LOGISTIC, and perhaps a MUL with its result."""
    readers: dict[int, list[inspect.Operator]] = defaultdict(list)
    for operator in graph.operators:
        for index in operator.inputs:
            readers[index].append(operator)
    found = set()
    for index, those in readers.items():
        gates = {one.outputs[0] for one in those if one.name == "LOGISTIC"}
        others = [one for one in those if one.name != "LOGISTIC"]
        if gates and all(one.name == "MUL" and gates & set(one.inputs) for one in others):
            found.add(index)
    return found


def _pair(
    float_graph: inspect.Graph,
    graph: inspect.Graph,
    index: int,
    other: int,
    operator: inspect.Operator,
    head: bool,
    bent: bool,
) -> Pair:
    contract = graph.tensors[other].contract()
    quantized = contract.dtype in LEVELS and contract.scale is not None
    return Pair(
        name=float_graph.tensors[index].name,
        block=operator.block or "",
        baseline=index,
        model=other,
        scale=contract.scale if quantized else None,
        zero_point=contract.zero_point or 0,
        dtype=contract.dtype,
        head=head,
        of_known_range=operator.name in {"LOGISTIC", "SOFTMAX"},
        flat_below=bent,
    )


# --- Comparing --------------------------------------------------------------------------------------------------------


class _Sums:
    """What is kept of a pair while images go by."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.histogram = Histogram()
        self.count = 0
        self._error = self._sum = self._squares = 0.0
        self._values = 0
        self._clipped = 0
        self._above = 0

    def add(self, exact: npt.NDArray[np.float32], stored: npt.NDArray[np.generic]) -> None:
        """Take what both files held for an image."""
        if exact.size != stored.size or not np.isfinite(exact).all():
            return
        pair = self.pair
        counted = np.maximum(exact, np.float32(-SATURATED)) if pair.flat_below else exact
        found = stored.astype(np.float64).reshape(exact.shape)
        if pair.scale is not None:
            found = (found - pair.zero_point) * pair.scale
            low, high = pair.span
            outside = (counted < low - pair.scale) | (counted > high + pair.scale)
            self._clipped += int(outside.sum())
            self._above += bool(exact.max() > high + pair.scale)
        values = exact.astype(np.float64)
        self.histogram.add(counted)
        self.count += 1
        self._values += values.size
        self._error += float(np.square(np.nan_to_num(found) - values).sum())
        self._sum += float(values.sum())
        self._squares += float(np.square(values).sum())

    def compared(self) -> Compared:
        """Make figures of it."""
        pair, histogram = self.pair, self.histogram
        variance = max(self._squares / self._values - (self._sum / self._values) ** 2, 1e-30)
        low, high = pair.span if pair.scale is not None else (histogram.low, histogram.high)
        fault = TensorFault(
            name=pair.name,
            block=pair.block,
            low=low,
            high=high,
            float_low=histogram.low,
            float_high=histogram.high,
            clipped=self._clipped / self._values,
            excess=1.0 if pair.scale is None or pair.of_known_range else _excess(histogram, low, high, pair.dtype),
            error=float(np.sqrt(self._error / self._values / variance)),
        )
        return Compared(pair, fault, self._above / self.count)


def _excess(histogram: Histogram, low: float, high: float, dtype: str) -> float:
    """Return the mean error of a range, of the values counted, divided by that of the best range for them."""
    steps = LEVELS[dtype][1] - LEVELS[dtype][0]
    best = mean_error(histogram, *ranges.choose(histogram, BEST), steps)
    # Values that all are the same number lose nothing in any range that holds them.
    smallest = 1e-3 * max(abs(histogram.low), abs(histogram.high), 1e-30) / steps
    return (mean_error(histogram, low, high, steps) + smallest) / (best + smallest)


def mean_error(histogram: Histogram, low: float, high: float, steps: int) -> float:
    """Return the mean absolute error of values counted when they are stored in a range of so many steps.

    A value inside is off by a quarter of a step on average, or by all of itself where that is less, one outside by what
    it is outside, and zeros not at all.
    """
    used = np.flatnonzero(histogram.counts)
    x, weight = histogram.centers[used], histogram.counts[used].astype(np.float64)
    total = max(1, histogram.total)
    outside = np.maximum(low - x, 0.0) + np.maximum(x - high, 0.0)
    step = (high - low) / steps
    return float((weight * np.where(outside > 0, outside, np.minimum(step / 4, np.abs(x)))).sum()) / total


def jumps(compared: Sequence[Compared]) -> Iterator[tuple[Compared, float]]:
    """Yield tensors before the head and how far their errors are above all before them, in the network's order."""
    before = 0.0
    for one in compared:
        if one.pair.head:
            continue
        yield one, one.fault.error - before
        before = max(before, one.fault.error)
