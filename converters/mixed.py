"""Mixed precision: each block of a network in the arithmetic that it can bear, so that accuracy costs little time.

It is built from the accurate side. Every block has levels, from float over dynamic range (int8 weights, inputs scaled
anew for each image) to static int8; each level of each block is tried alone in the float network: how far the scores
move, and how much sooner they come. Blocks then go down their levels in the order of divergence per time gained, and
every step is a point of a list from the closest to the fastest, quantized, compared and timed for real. The goal
decides which point is taken; between it and the first that fails the goal further mixes are tried. Residual sums stay
in float for as long as that pays: rounding them costs most.

What is fast depends on the runtime and the CPU, so it is measured, here or on a board (`timing`). int16 is not among
the levels, no CPU kernel is fast with it. Ranges come from `recover`; the arithmetic is litert-quantizer's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from edgeeff.calibration.ranges import Rule
from edgeeff.converters import quantize, recover, replay
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import CONVOLVING, WEIGHTED, Graph
from edgeeff.converters.quantize import IoType, Ranges
from edgeeff.converters.recover import Image, Images, Judge
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import scheme
from edgeeff.converters.timing import Here, Timer
from edgeeff.errors import InputError, ModelError
from edgeeff.progress import Progress, Silent
from edgeeff.results import Goal, Mixed, MixedPoint, MixedTrial, TimedOn

Level = Literal["float", "dynamic", "expansion", "inner", "whole"]
Arithmetic = Literal["dynamic", "weight-only", "static"]
Floats = npt.NDArray[np.float64]

LEVELS: tuple[Level, ...] = ("float", "dynamic", "expansion", "inner", "whole")
"""From the most accurate to the fastest: int8 weights for convolutions; static int8 up to the squeezing; all of the
block but its residual sum; all of it. Weights of one-pixel convolutions are int8 from the first level on, for size."""
STATIC_LEVELS: tuple[Level, ...] = ("expansion", "inner", "whole")
STATIC = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "MUL", "ADD", "LOGISTIC", "MEAN", "PAD", "RESHAPE", "HARD_SWISH", "RELU"}
)
"""Operators that are ever static; the last layer's rounded weights cost more accuracy than they save time."""
BENDING = frozenset({"LOGISTIC", "HARD_SWISH", "RELU", "RELU6"})

LOOSER = (0.25, 0.5, 0.75)
"""Ways from the ranges that suit full int8 to the extremes, in logarithms: fewer roundings leave less to gain by
clipping."""
ALIKE = 0.0004
"""Divergences that a few images cannot tell apart: then the widest ranges are taken, for other images go beyond."""
LEAST_GAIN = 0.002
"""A share of float's time below which a gain is noise."""
MOST_UNITS = 24
"""Blocks that are tried one by one; in deeper networks neighbours go together."""
MOST_STEPS = 32
"""Points that are measured on the way to the fastest."""
TRYING_WORK, FEWEST_TRIED = 3e13, 16
"""What running the images of all trials may cost, in `replay.work`'s units, and the images that each gets at least."""
MIXES = 1.5
"""How many mixes are timed for each level of a block whose time is to be told from them."""
REPEATS = 3
"""How often a point is timed."""
FURTHER, GRID = 8, 1000
"""Mixes that are tried between the point for a goal and the next that fails it, and the parts that divergences are
counted in to find them."""
GOALS = "--min-agreement PERCENT, --max-drop POINTS or --max-latency RATIO|TIME"
MOST_COMPARED, MOST_COMPARED_BYTES = 512, 256e6
"""Images that points are compared on at most."""
NEAREST = 0.5
"""Share of the judges whose changes a margin is paired with: those with the nearest margins."""
CAUTION = 0.84
"""Standard errors between an estimate and its lower end: in simulations three to four of five truths were above it."""
PRINTED = 3
"""Digits of an agreement, as a fraction."""
UNLIKE, LEAST_CHANGE = 1.28, 1e-3
"""Images that were learned from judge, too, unless they change less than those kept apart by so many standard errors of
the logarithm; changes below a thousandth nat count as that."""


@dataclass(frozen=True)
class Unit:
    """Operators `first` to `end` of the float file, which go down the levels together: a block, or a few."""

    name: str
    first: int
    end: int


Mix = Mapping[Unit, Level]
Trials = Mapping[tuple[Unit, Level], tuple[float, float]]
"""Divergence and latency ratio."""


@dataclass(frozen=True)
class Exploration:
    """What was found between float and int8, before there is a goal: `settle` takes what a goal needs."""

    mixer: Mixer
    points: tuple[MixedPoint, ...]
    """From the slowest to the fastest; no other is as close, as sure to agree and as fast at once."""
    trials: tuple[MixedTrial, ...]
    rule: str
    """How the ranges were chosen that blocks begin with."""
    seed: int
    calibration_images: int
    judging_images: int
    trial_images: int
    point_images: int
    timed_on: TimedOn
    float_latency_s: float
    warnings: tuple[str, ...]

    def settle(self, goal: Goal) -> tuple[bytes, Mixed]:
        """Return the file for a goal and the report; raises InputError for a goal that makes no sense."""
        check(goal)
        chosen, met = choose(self.points, goal)
        return self.content(chosen), Mixed(
            goal=goal,
            met=met,
            shortfall=None if met else self._shortfall(goal, chosen),
            seed=self.seed,
            calibration_images=self.calibration_images,
            judging_images=self.judging_images,
            trial_images=self.trial_images,
            point_images=self.point_images,
            timed_on=self.timed_on,
            float_latency_s=self.float_latency_s,
            points=tuple(replace(point, chosen=point is chosen) for point in self.points),
            trials=self.trials,
            tuned=tuple(unit.name for unit in self.mixer.units if unit in self.mixer.tuned),
            warnings=self.warnings,
        )

    def content(self, point: MixedPoint) -> bytes:
        """Return the file of a point."""
        return self.mixer.content({unit: cast(Level, point.levels[unit.name]) for unit in self.mixer.units})

    def _shortfall(self, goal: Goal, chosen: MixedPoint) -> str:
        """Say what came closest to a goal that no point reaches, and what would help."""
        parts = [f"no mix of precisions reaches {describe(goal)}; the closest, which was kept: {_figures(chosen)}"]
        wanted = agreement(goal)
        fastest = min((p for p in self.points if close_enough(goal, p)), key=_ratio, default=None)
        if wanted is not None and fastest is not None:
            parts.append(f"the fastest that agrees enough: {_figures(fastest)}")
        if wanted is not None and any(p.agreement_estimate >= wanted for p in self.points if in_time(goal, p)):
            count = self.calibration_images + self.judging_images
            parts.append(f"more calibration images than these {count} would make agreements surer (--samples)")
        return "; ".join([*parts, "or loosen the goal to what was reached"])


def explore(
    model: FloatModel,
    images: Images,
    *,
    seed: int = 0,
    threads: int = 1,
    timer: Timer | None = None,
    rule: Rule | None = None,
    synthetic: bool = False,
    plan: recover.Plan | None = None,
    goals: Sequence[Goal] = (),
    input_type: IoType = "uint8",
    output_type: IoType = "float32",
    progress: Progress | None = None,
) -> Exploration:
    """Find the points between float and int8, and more of them where `goals` divide them.

    `timer` says how long a file takes where it is to run; without it LiteRT here does, on `threads` threads. `rule` and
    `synthetic` are `recover.choose_ranges`'. With a `plan` the weights of static operators are tuned, each
    block by itself, where TensorFlow can replay the network. The same images and seed give the same trials; the order
    of points is that of measured times. Raises CalibrationError when there is no image or a value is not finite,
    ModelError when the network has no blocks, and what `quantize` and the timer raise.
    """
    progress = progress or Silent()
    learning, apart = recover.split(images, seed)
    _units(Graph(model.content), 0)  # a network that has no blocks is refused before anything is measured
    timer = timer or Here(model.content, apart[0], threads)
    judge = Judge(model, learning[: recover.MOST_SEARCHED], apart, threads)
    ranges, attempt, _ = recover.choose_ranges(
        model, learning, judge, rule=rule, synthetic=synthetic, threads=threads, progress=progress
    )
    progress.stage(f"collect extremes from {len(learning)} images", len(learning))
    extremes = quantize.collect_ranges(model, learning, threads=threads, tick=progress.tick)
    mixer = Mixer(model, ranges, extremes, input_type=input_type, output_type=output_type)
    scores = _Scores(model, learning, apart, threads)
    tried = _Tried(mixer, scores, timer)
    inner = tried.choose_looseness(progress)
    warnings: tuple[str, ...] = ()
    if plan is not None:
        try:
            tuned = _tuned(model, mixer.ranges(), learning, plan, seed, threads, progress)
            inner |= tried.choose_tuned(tuned, inner, len(apart), progress)
        except ModelError as error:
            warnings = (f"the weights were not tuned: {error}",)
    trials = tried.levels(inner, progress, seed)
    points = _pareto(tried.steps(_steps(mixer.units, trials), progress))
    for goal in goals:
        points = _pareto([*points, *tried.further(trials, points, goal, progress)])
    return Exploration(
        mixer=mixer,
        points=points,
        trials=tuple(MixedTrial(unit.name, level, *found) for (unit, level), found in trials.items()),
        rule=attempt.name,
        seed=seed,
        calibration_images=len(learning),
        judging_images=len(apart),
        trial_images=tried.images,
        point_images=scores.count,
        timed_on=timer.on,
        float_latency_s=timer.float_s,
        warnings=warnings,
    )


def _tuned(
    model: FloatModel, ranges: Ranges, images: Images, plan: recover.Plan, seed: int, threads: int, progress: Progress
) -> tuple[FloatModel, Ranges]:
    """Tune the weights of each block by itself; raises ModelError when the network cannot be replayed."""
    if obstacles := replay.obstacles(Graph(model.content)):
        raise ModelError(f"{', '.join(obstacles)} cannot be replayed")
    (checkpoint,) = recover.tune(model, ranges, images, plan, seed=seed, threads=threads, progress=progress, exact=True)
    _, tuned, learned = checkpoint
    return tuned, learned


# --- Goals ------------------------------------------------------------------------------------------------------------


def check(goal: Goal) -> None:
    """Raise InputError for a goal that asks for nothing, or for what cannot be."""
    given = {name: value for name, value in vars(goal).items() if value is not None}
    if not given:
        raise InputError(f"say what mixed precision has to reach, with {GOALS}")
    if not all(math.isfinite(value) and value >= 0 for value in given.values()):
        raise InputError(f"a goal is no negative number: {given}")
    if goal.min_agreement is not None and goal.min_agreement > 1:
        raise InputError(f"an agreement of {goal.min_agreement:.0%} is more than every image")


def agreement(goal: Goal) -> float | None:
    """Return the least agreement that a goal asks for, whichever way it does."""
    wanted = [
        *([] if goal.min_agreement is None else [goal.min_agreement]),
        *([] if goal.max_drop is None else [1 - goal.max_drop / 100]),
    ]
    return max(wanted, default=None)


def in_time(goal: Goal, point: MixedPoint) -> bool:
    """Say whether a point is fast enough."""
    return (goal.max_latency is None or point.latency_ratio <= goal.max_latency) and (
        goal.max_latency_s is None or point.latency_s <= goal.max_latency_s
    )


def close_enough(goal: Goal, point: MixedPoint) -> bool:
    """Say whether the lower end of a point's agreement is enough, to a tenth of a percent, as it is printed.

    Its error is larger than that.
    """
    wanted = agreement(goal)
    return wanted is None or round(point.agreement_low, PRINTED) >= wanted


def choose(points: Sequence[MixedPoint], goal: Goal) -> tuple[MixedPoint, bool]:
    """Return the best point for a goal, and whether it reaches it.

    With an agreement asked for that is the fastest that has it, otherwise the closest of those in time. Of points that
    fail, those in time come first.
    """
    close = [point for point in points if close_enough(goal, point)]
    timely = [point for point in points if in_time(goal, point)]
    both = [point for point in close if point in timely]
    if both and agreement(goal) is not None:
        return min(both, key=_ratio), True
    if timely:
        return min(timely, key=lambda point: point.divergence), bool(both)
    return min(points, key=_ratio), False


def describe(goal: Goal) -> str:
    """Write a goal in words."""
    said = []
    if goal.min_agreement is not None:
        said.append(f"an agreement of {_percent(goal.min_agreement)}")
    if goal.max_drop is not None:
        said.append(f"a drop of at most {goal.max_drop:g} points")
    if goal.max_latency is not None:
        said.append(f"{goal.max_latency:g} of float's time")
    if goal.max_latency_s is not None:
        said.append(f"{goal.max_latency_s * 1e3:g} ms")
    return " with ".join(said)


def _figures(point: MixedPoint) -> str:
    return (
        f"agreement at least {_percent(point.agreement_low)} (estimated {_percent(point.agreement_estimate)}), "
        f"{point.latency_ratio:.2f} of float's time ({point.latency_s * 1e3:.3g} ms)"
    )


def _percent(share: float) -> str:
    return f"{100 * round(share, PRINTED):.4g} %"


def _ratio(point: MixedPoint) -> float:
    return point.latency_ratio


# --- Files ------------------------------------------------------------------------------------------------------------


class Mixer:
    """Makes files of a float model in which each block has a level."""

    def __init__(
        self,
        model: FloatModel,
        ranges: Ranges,
        extremes: Ranges,
        *,
        input_type: IoType = "uint8",
        output_type: IoType = "float32",
    ) -> None:
        """Find the blocks; raises ModelError when there are none."""
        self._model, self._input_type, self._output_type = model, input_type, output_type
        self._graph = Graph(model.content)
        self._kinds = [self._graph.kind(operator) for operator in self._graph.operators]
        self._static_from = [self._needs(position) for position in range(len(self._kinds))]
        self._ranges, self._extremes = ranges, extremes
        self.units = _units(self._graph, self._begin())
        self.looseness: dict[Unit, float] = {}
        self.tuned: dict[Unit, tuple[FloatModel, Ranges]] = {}
        """Where the weights of a unit's static operators are from, and their ranges, where they were tuned."""

    def arithmetic(self, mix: Mix) -> dict[int, Arithmetic]:
        """Return what the operators compute in, by position; those that are missing compute in float."""
        found: dict[int, Arithmetic] = {}
        for unit, level in mix.items():
            for position in range(unit.first, unit.end):
                arithmetic = self._at(position, level)
                if arithmetic is not None:
                    found[position] = arithmetic
        return found

    def levels(self, unit: Unit) -> list[Level]:
        """Return the levels of a unit that differ from the one before."""
        found: list[Level] = []
        known: list[dict[int, Arithmetic]] = []
        for level in LEVELS:
            arithmetic = self.arithmetic({unit: level})
            if arithmetic not in known:
                known.append(arithmetic)
                found.append(level)
        return found

    def content(self, mix: Mix) -> bytes:
        """Return the file; raises ModelError when litert-quantizer cannot make it."""
        # Nothing more is quantized: what is left is to take pixels and give scores as they are asked for.
        mixed, types = replace(self._model, content=self.draft(mix)), (self._input_type, self._output_type)
        return quantize.quantize(mixed, scheme("float32"), None, input_type=types[0], output_type=types[1])

    def draft(self, mix: Mix) -> bytes:
        """Return the file as it is with float32 input, which is sooner made."""
        arithmetic = self.arithmetic(mix)
        return _run_quantizer(self._source(arithmetic), self._names(arithmetic), self.ranges())

    def _begin(self) -> int:
        """Position of the first operator behind the preprocessing."""
        known = quantize.known_ranges(self._model)
        return next(
            position
            for position, operator in enumerate(self._graph.operators)
            if self._graph.name(int(operator.outputs[0])) not in known
        )

    def _at(self, position: int, level: Level) -> Arithmetic | None:
        kind, needs = self._kinds[position], self._static_from[position]
        if needs is not None and LEVELS.index(level) >= LEVELS.index(needs):
            return "static"
        if kind != "CONV_2D":
            return None
        if self._squeezed(position):
            return "weight-only"
        # The first convolution reads pixels, which is not worth scaling anew.
        return "dynamic" if level != "float" and kind in self._kinds[:position] else None

    def _needs(self, position: int) -> Level | None:
        """Return the first level at which an operator is static."""
        graph, operator, kind = self._graph, self._graph.operators[position], self._kinds[position]
        if kind not in STATIC:
            return None
        if self._squeezed(position) or any(
            graph.shape(int(index))[1:3] == (1, 1) and graph.constant(int(index)) is None for index in operator.inputs
        ):
            return "inner"
        if kind == "ADD":
            return "whole"
        readers = graph.consumers(int(operator.outputs[0]))
        bent = graph.activation(operator) != "NONE" or any(graph.kind(reader) in BENDING for reader in readers)
        return "inner" if kind == "CONV_2D" and not bent else "expansion"

    def _squeezed(self, position: int) -> bool:
        """Say whether an operator's result has one pixel or none."""
        shape = self._graph.shape(int(self._graph.operators[position].outputs[0]))
        return len(shape) < 4 or shape[1:3] == (1, 1)

    def _names(self, arithmetic: Mapping[int, Arithmetic]) -> list[tuple[str, str, Arithmetic]]:
        return [
            (self._kinds[position], self._graph.name(int(self._graph.operators[position].outputs[0])), what)
            for position, what in arithmetic.items()
        ]

    def ranges(self) -> Ranges:
        """Return the range of every tensor: loosened, or tuned."""
        found = dict(self._ranges)
        for unit, share in self.looseness.items():
            for name in self._own(unit):
                if name in self._ranges and name in self._extremes:
                    low, high = self._ranges[name]
                    least, most = self._extremes[name]
                    found[name] = (_between(low, least, share), _between(high, most, share))
        for unit, (_, ranges) in self.tuned.items():
            found |= {name: ranges[name] for name in self._own(unit) if name in ranges}
        return found

    def _own(self, unit: Unit) -> list[str]:
        """Name the tensors whose ranges are a unit's: what it reads is rounded for it, what it ends with is not."""
        operators = self._graph.operators[unit.first : unit.end]
        indices = [int(operators[0].inputs[0]), *(int(operator.outputs[0]) for operator in operators[:-1])]
        return [self._graph.name(index) for index in indices]

    def _source(self, arithmetic: Mapping[int, Arithmetic]) -> bytes:
        """Return the float file, static operators with tuned weights where there are any."""
        if not self.tuned:
            return self._model.content
        graph = Graph(self._model.content)
        for unit, (model, _) in self.tuned.items():
            tuned = Graph(model.content)
            for position in range(unit.first, unit.end):
                if arithmetic.get(position) == "static" and self._kinds[position] in WEIGHTED:
                    for index in graph.operators[position].inputs[1:]:
                        values = tuned.constant(int(index)) if index >= 0 else None
                        if values is not None:
                            graph.set_constant(int(index), values)
        return graph.content()


def _between(bound: float, extreme: float, share: float) -> float:
    """Go a share of the way, in logarithms, from a bound of a range to the extreme, where that is farther out."""
    if bound == 0 or abs(extreme) <= abs(bound):
        return bound
    return math.copysign(abs(bound) ** (1 - share) * abs(extreme) ** share, bound)


def _units(graph: Graph, begin: int) -> tuple[Unit, ...]:
    """Cut a graph where its blocks end; of many blocks neighbours that compute little are put together."""
    ends = [*replay.cuts(graph, begin), len(graph.operators)]
    if len(ends) < 2:
        raise ModelError("mixed precision needs a network of blocks, and this one cannot be cut into any")
    while len(ends) > MOST_UNITS:
        firsts = [begin, *ends]
        costs = [replay.work(graph, firsts[at], firsts[at + 2]) for at in range(len(ends) - 1)]
        del ends[costs.index(min(costs))]
    spans = list(zip([begin, *ends], ends, strict=False))
    names = _block_names(
        [
            [graph.name(int(o.outputs[0])) for o in graph.operators[first:end] if graph.kind(o) in CONVOLVING]
            for first, end in spans
        ]
    )
    return tuple(
        Unit(name if name and names.index(name) == at else f"part {at + 1}", first, end)
        for at, (name, (first, end)) in enumerate(zip(names, spans, strict=True))
    )


def _block_names(convolutions: Sequence[Sequence[str]]) -> list[str]:
    """Return what the names of each block's convolutions begin with, without the folder that several blocks are in."""
    shared = []
    for names in convolutions:
        letters = zip(*(name.split(";")[0] for name in names), strict=False)
        shared.append("".join(first for first, *_ in itertools.takewhile(lambda some: len(set(some)) == 1, letters)))
    folders = [name.partition("/")[0] for name in shared]
    own = [
        name if folders.count(folder) == 1 else name.partition("/")[2]
        for name, folder in zip(shared, folders, strict=True)
    ]
    return [re.sub(r"(_block)?[\W_]*$", "", name.partition("/")[0]) for name in own]


def _run_quantizer(content: bytes, wanted: Iterable[tuple[str, str, Arithmetic]], ranges: Ranges) -> bytes:
    from litert_quantizer import qtyping, quantizer

    with quantize._quiet():
        work = quantizer.Quantizer(content)
        calibrated = some = False
        for kind, tensor, what in wanted:
            some = True
            pattern, operator = f"^{re.escape(tensor)};?$", qtyping.TFLOperationName(kind)
            if what == "dynamic":
                work.add_dynamic_config(pattern, operator, 8)
            elif what == "weight-only":
                work.add_weight_only_config(pattern, operator, 8)
            else:
                calibrated = True
                work.add_static_config(pattern, operator, 8, 8)
        if not some:
            return content
        statistics = {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in ranges.items()}
        try:
            result = work.quantize(statistics if calibrated else None)
        except Exception as error:  # whatever litert-quantizer raises for a graph that it was not made for
            raise ModelError(
                f"litert-quantizer cannot mix precisions in this model: {type(error).__name__}: {error}"
            ) from error
    made = bytes(result.quantized_model)
    graph = Graph(made)
    return graph.content() if quantize.hold_biases(graph, content) else made


# --- Trials -----------------------------------------------------------------------------------------------------------


class _Tried:
    """Files that were made, compared and timed."""

    def __init__(self, mixer: Mixer, scores: _Scores, timer: Timer) -> None:
        self._mixer, self._scores, self._timer = mixer, scores, timer
        self._float: Mix = dict.fromkeys(mixer.units, "float")
        count = sum(len(mixer.levels(unit)) + len(LOOSER) for unit in mixer.units)
        self.images = min(scores.count, max(FEWEST_TRIED, int(TRYING_WORK / (count * scores.work))))

    def choose_looseness(self, progress: Progress) -> dict[Unit, float]:
        """Choose for each block how far its ranges are loosened; return the divergences that are left.

        Each is tried by itself in the float network, at the level "inner".
        """
        least = {}
        units = [unit for unit in self._mixer.units if _deepest(self._mixer, unit) in STATIC_LEVELS]
        progress.stage("choose the ranges of each block", len(units))
        for unit in units:
            mix = {**self._float, unit: "inner"}
            found: dict[float, float] = {}
            for share in (0.0, *LOOSER):
                self._mixer.looseness[unit] = share
                found[share] = self._scores.divergence(self._mixer.draft(mix), self.images)
            share = max(share for share in found if found[share] <= min(found.values()) + ALIKE)
            self._mixer.looseness[unit], least[unit] = share, found[share]
            progress.tick()
        return least

    def choose_tuned(
        self, tuned: tuple[FloatModel, Ranges], inner: Mapping[Unit, float], judges: int, progress: Progress
    ) -> dict[Unit, float]:
        """Take tuned weights for each block that they bring closer; return the divergences of these.

        Each is tried by itself in the float network, at the level "inner", on the `judges` that nothing was learned
        from.
        """
        least = {}
        progress.stage("try the tuned weights of each block", len(inner))
        for unit in inner:
            mix: Mix = {**self._float, unit: "inner"}
            before = self._scores.divergence(self._mixer.draft(mix), judges)
            self._mixer.tuned[unit] = tuned
            draft = self._mixer.draft(mix)
            if self._scores.divergence(draft, judges) < before:
                least[unit] = self._scores.divergence(draft, self.images)
            else:
                del self._mixer.tuned[unit]
            progress.tick()
        return least

    def levels(self, inner: Mapping[Unit, float], progress: Progress, seed: int) -> Trials:
        """Return the divergence of each level of each block, alone in the float network, and its latency ratio.

        `inner` are divergences that are known already.
        """
        levels = {unit: self._mixer.levels(unit) for unit in self._mixer.units}
        wanted = [(unit, level) for unit, some in levels.items() for level in some[1:]]
        progress.stage("try each block by itself", len(wanted) + 1)
        closest = self._divergence(self._float)
        divergences = {(unit, LEVELS[0]): closest for unit in levels}
        progress.tick()
        for unit, level in wanted:
            known = level == "inner" and unit in inner
            divergences[unit, level] = inner[unit] if known else self._divergence({**self._float, unit: level})
            progress.tick()
        latencies = self._latencies(levels, wanted, progress, seed)
        return {key: (divergence, latencies[key]) for key, divergence in divergences.items()}

    def _divergence(self, mix: Mix) -> float:
        return self._scores.divergence(self._mixer.draft(mix), self.images)

    def _latencies(
        self,
        levels: Mapping[Unit, Sequence[Level]],
        wanted: Sequence[tuple[Unit, Level]],
        progress: Progress,
        seed: int,
    ) -> dict[tuple[Unit, Level], float]:
        """Return what each level of each block adds to the float file's time, as a ratio to it.

        A block is a small part of the whole, and alone its gain would drown in what times vary by. So mixes are drawn
        in which every level comes as often as any other, and least squares tell from their times what each level adds:
        every time says something of every block.
        """
        generator = np.random.default_rng(seed)
        count = math.ceil(MIXES * (len(wanted) + 1))
        columns = {unit: generator.permutation(np.resize(np.arange(len(some)), count)) for unit, some in levels.items()}
        progress.stage(f"measure how long blocks take on {self._timer.on.target}", count)
        mixes: list[Mix] = [
            {unit: levels[unit][column[row]] for unit, column in columns.items()} for row in range(count)
        ]
        design, ratios = np.ones((count, len(wanted) + 1)), np.empty(count)
        for row, seconds in enumerate(self._timer.times(self._mixer.draft(mix) for mix in mixes)):
            design[row, 1:] = [mixes[row][unit] == level for unit, level in wanted]
            ratios[row] = seconds / self._timer.float_s
            progress.tick()
        closest, *added = np.linalg.lstsq(design, ratios, rcond=None)[0].tolist()
        return {(unit, LEVELS[0]): closest for unit in levels} | {
            key: closest + more for key, more in zip(wanted, added, strict=True)
        }

    def steps(self, steps: Sequence[tuple[Unit, Level]], progress: Progress) -> list[MixedPoint]:
        """Return the points after so many steps: all of them, or evenly taken where there are many."""
        taken = sorted({round(at) for at in np.linspace(0, len(steps), min(MOST_STEPS, len(steps) + 1))})
        progress.stage("go from float to int8", len(taken))
        return self._points(
            {f"{count} steps" if count else "float": {**self._float, **dict(steps[:count])} for count in taken},
            progress,
        )

    def further(self, trials: Trials, points: Sequence[MixedPoint], goal: Goal, progress: Progress) -> list[MixedPoint]:
        """Return points between the one for a goal and its neighbour that fails it.

        The steps are few there and coarse: one may take a twentieth of the time. What blocks diverge by is added up to
        find the fastest mix for each of several sums between those of the two.
        """
        chosen, _ = choose(points, goal)
        at = points.index(chosen) + (1 if agreement(goal) is not None else -1)
        if not 0 <= at < len(points):
            return []
        ends = [
            sum(_prices(trials)[unit, point.levels[unit.name]] for unit in self._float)
            for point in (chosen, points[at])
        ]
        known = [dict(point.levels) for point in points]
        mixes: dict[str, Mix] = {}
        for most in np.linspace(min(ends), max(ends), FURTHER + 1)[1:]:
            mix = fastest(trials, float(most))
            levels: dict[str, str] = {unit.name: level for unit, level in mix.items()}
            if levels not in known:
                known.append(levels)
                mixes[f"between {chosen.name} and {points[at].name}, {len(mixes) + 1}"] = mix
        progress.stage("look closer where the goal is", len(mixes))
        return self._points(mixes, progress)

    def _points(self, mixes: Mapping[str, Mix], progress: Progress) -> list[MixedPoint]:
        """Make a file of each mix, compare it and time it."""
        points: list[MixedPoint] = []
        untimed: list[MixedPoint] = []

        def contents() -> Iterator[bytes]:
            for name, mix in mixes.items():
                content = self._mixer.content(mix)
                found = self._scores.compare(content)
                untimed.append(
                    MixedPoint(
                        name=name,
                        levels={unit.name: level for unit, level in mix.items()},
                        divergence=found.divergence,
                        agreement=found.agreement,
                        agreement_estimate=found.estimate,
                        agreement_low=found.low,
                        judges=found.judges,
                        latency_s=math.nan,
                        latency_ratio=math.nan,
                        size_bytes=len(content),
                    )
                )
                yield content

        for seconds in self._timer.times(contents(), REPEATS):
            points.append(replace(untimed[len(points)], latency_s=seconds, latency_ratio=seconds / self._timer.float_s))
            progress.tick()
        return points


def _deepest(mixer: Mixer, unit: Unit) -> Level:
    return mixer.levels(unit)[-1]


def _steps(units: Iterable[Unit], trials: Trials) -> list[tuple[Unit, Level]]:
    """Put the levels of all blocks in the order of divergence per time gained.

    Of a block's levels only those on the lower convex hull are worth going to: from each level the next is the one
    with the least divergence for the time it gains.
    """
    found: list[tuple[float, int, Unit, Level]] = []
    for number, unit in enumerate(units):
        here: Level = LEVELS[0]
        dearest = 0.0
        while True:
            divergence, latency = trials[unit, here]
            ahead = [
                (max(more - divergence, 0.0) / (latency - less), level)
                for (other, level), (more, less) in trials.items()
                if other == unit and LEVELS.index(level) > LEVELS.index(here) and latency - less > LEAST_GAIN
            ]
            if not ahead:
                break
            price, here = min(ahead)
            dearest = max(dearest, price)  # a level is not gone to before the one above it
            found.append((dearest, number, unit, here))
    return [(unit, level) for *_, unit, level in sorted(found, key=lambda step: step[:2])]


def _prices(trials: Trials) -> dict[tuple[Unit, str], float]:
    """What each level of each block diverges by, more than the block in float does."""
    return {
        (unit, level): max(divergence - trials[unit, LEVELS[0]][0], 0.0)
        for (unit, level), (divergence, _) in trials.items()
    }


def fastest(trials: Trials, most: float) -> dict[Unit, Level]:
    """Return the mix that takes the least time of those whose blocks' divergences add up to `most` nats at most.

    A knapsack in which each block takes one of its levels, by dynamic programming over `GRID` parts of the sum.
    """
    prices = _prices(trials)
    best, taken = np.zeros(GRID + 1), list[tuple[Unit, list[tuple[Level, int]], npt.NDArray[np.int64]]]()
    for unit in dict.fromkeys(unit for unit, _ in trials):
        levels = [(level, price) for level in LEVELS if (price := _parts(prices.get((unit, level)), most)) is not None]
        times = np.full((len(levels), GRID + 1), np.inf)
        for row, (level, price) in zip(times, levels, strict=True):
            row[price:] = best[: GRID + 1 - price] + trials[unit, level][1]
        taken.append((unit, levels, times.argmin(axis=0)))
        best = times.min(axis=0)
    mix: dict[Unit, Level] = {}
    left = GRID
    for unit, levels, rows in reversed(taken):
        level, price = levels[int(rows[left])]
        mix[unit], left = level, left - price
    return dict(reversed(mix.items()))


def _parts(price: float | None, most: float) -> int | None:
    """Count a divergence in parts of the most, none where there is none or it is too much."""
    if price is None or price > most:
        return None
    return math.ceil(price / most * GRID) if price else 0


def _pareto(points: Sequence[MixedPoint]) -> tuple[MixedPoint, ...]:
    """Drop each point that another is at least as close, as sure to agree and as fast as.

    They come from the slowest to the fastest. Divergence alone would drop some that are surer to agree, which is what
    goals are about.
    """
    kept: list[MixedPoint] = []
    for point in sorted(points, key=lambda point: (point.latency_ratio, point.divergence)):
        if not any(
            other.divergence <= point.divergence and other.agreement_low >= point.agreement_low for other in kept
        ):
            kept.append(point)
    return tuple(reversed(kept))


@dataclass(frozen=True)
class _Closeness:
    """How close scores come to the float file's: see `MixedPoint`."""

    divergence: float
    agreement: float
    estimate: float
    low: float
    judges: int


class _Scores:
    """What the float file says of the images, and how files compare with it."""

    def __init__(self, model: FloatModel, learning: Images, apart: Images, threads: int) -> None:
        self._head, self._threads = model.head, threads
        # In an order in which the first few are of both kinds.
        most = int(min(MOST_COMPARED, MOST_COMPARED_BYTES / apart[0].nbytes))
        self._images: list[Image] = [*apart, *learning[: max(0, most - len(apart))]]
        self._apart = len(apart)
        self.count = len(self._images)
        graph = Graph(model.content)
        self.work = replay.work(graph, 0, len(graph.operators))
        self._expected = self._logarithms(model.content, self._images, mirrored=True)
        self._best = self._expected.argmax(axis=-1)

    def divergence(self, content: bytes, images: int) -> float:
        """Return the mean divergence on so many images."""
        return _divergence(self._expected[:images, :1], self._logarithms(content, self._images[:images]))

    def compare(self, content: bytes) -> _Closeness:
        """Return how close a file's scores come, on all images and their mirror images."""
        found = self._logarithms(content, self._images, mirrored=True)
        margins = _margins(self._expected, self._best)
        changes = _margins(found, self._best) - margins
        apart, learned = changes[: self._apart], changes[self._apart :]
        judges = changes if alike(apart, learned) else apart
        estimate, low = estimate_agreement(margins, judges)
        same = (found.argmax(axis=-1) == self._best)[: self._apart, 0]
        return _Closeness(_divergence(self._expected, found), float(same.mean()), estimate, low, len(judges))

    def _logarithms(self, content: bytes, images: Sequence[Image], *, mirrored: bool = False) -> Floats:
        """Return logarithms of probabilities (images, views, classes), of the images and of their mirror images."""
        session = Session(content, threads=self._threads)
        scores = np.stack(
            [[session.run(view) for view in _views(image)[: 2 if mirrored else 1]] for image in images]
        ).astype(np.float64)
        if self._head == "logits":
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = np.maximum(scores, recover.LEAST_SCORE)
        logarithms: Floats = np.log(scores / scores.sum(axis=-1, keepdims=True))
        return logarithms


def _views(image: Image) -> tuple[Image, Image]:
    """Return an image and its mirror image, whose margins are a photograph's, too, and change by themselves."""
    return image, np.ascontiguousarray(image[:, ::-1])


def _divergence(expected: Floats, found: Floats) -> float:
    return float((np.exp(expected) * (expected - found)).sum(axis=-1).mean())


def _margins(logarithms: Floats, best: npt.NDArray[np.int64]) -> Floats:
    """How far a class lies above the best of the others."""
    others = logarithms.copy()
    np.put_along_axis(others, best[..., np.newaxis], -np.inf, axis=-1)
    margins: Floats = np.take_along_axis(logarithms, best[..., np.newaxis], axis=-1)[..., 0] - others.max(axis=-1)
    return margins


def alike(apart: Floats, learned: Floats) -> bool:
    """Say whether margins (images, views) that were learned from change as much as those of images kept apart.

    What is learned by heart changes less on the images that it was learned from, so these cannot judge it. The
    logarithms of the changes are compared, which a few large ones do not rule.
    """
    if not len(learned):
        return False
    first, second = (np.log(np.sqrt((changes**2).mean(axis=1)) + LEAST_CHANGE) for changes in (apart, learned))
    spread = np.concatenate([first - first.mean(), second - second.mean()]).std()
    error = spread * math.sqrt(1 / len(first) + 1 / len(second))
    return bool(first.mean() - second.mean() <= UNLIKE * error)


def estimate_agreement(margins: Floats, changes: Floats) -> tuple[float, float]:
    """Estimate the agreement on many images from few; return the estimate and its lower end.

    `margins` (images, views) say how far float's best class lies above the second, `changes`, of the first of these
    images, by how much a quantized file moved that. An image changes its class where its margin is used up: the
    estimate pairs every margin with the changes of the images whose margins are nearest, since large margins change
    more than small ones, and uses how nearly the others changed theirs, so it varies less than counting does. Its
    variance is that of a U-statistic of two samples of images. Disagreements are few and their estimates skewed, so the
    end is taken on their logarithm.
    """
    views = margins.shape[1]
    own = margins[: len(changes)].ravel()
    order = np.argsort(own, kind="stable")
    own, moved, owner = own[order], changes.ravel()[order], order // views
    wanted = margins.ravel()
    count = math.ceil(NEAREST * len(moved))
    first = np.clip(np.searchsorted(own, wanted) - count // 2, 0, len(moved) - count)
    pairs = first[:, np.newaxis] + np.arange(count)
    flips = moved[pairs] < -wanted[:, np.newaxis]
    disagreement = float(flips.mean())
    if disagreement == 0:
        return 1.0, 1.0
    by_margin = flips.mean(axis=1).reshape(margins.shape).mean(axis=1)
    by_change = np.bincount(owner[pairs].ravel(), flips.ravel(), len(changes)) * (len(changes) / flips.size)
    error = math.sqrt(by_change.var() / len(changes) + by_margin.var() / len(margins))
    return 1 - disagreement, 1 - min(1.0, disagreement * math.exp(CAUTION * error / disagreement))
