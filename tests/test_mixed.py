"""Blocks go down from float to int8 in the order of what it costs and gains, and the goal decides where they stop."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters import inspect, recover, replay
from edgeeff.converters import mixed as module
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.mixed import (
    GRID,
    LEVELS,
    Exploration,
    Level,
    Mixer,
    Unit,
    alike,
    check,
    choose,
    estimate_agreement,
    explore,
    fastest,
)
from edgeeff.converters.quantize import Ranges, collect_ranges
from edgeeff.converters.recover import Images
from edgeeff.converters.runtime import Session
from edgeeff.errors import CalibrationError, InputError, ModelError
from edgeeff.results import Attempt, Fidelity, Goal, MixedPoint, TimedOn, this_device
from tests import tiny

PHOTOS = tiny.images(24, size=16)
COSTS = {"float32": 4.0, "int8": 1.0}
"""What an operator takes where latency is made up, by the type of its result."""


@pytest.fixture(autouse=True)
def ranges_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ranges suit full int8 is what other tests are about: here they are made far too narrow."""
    if request.node.get_closest_marker("accuracy") is None:

        def narrow(float_: FloatModel, images: Images, judge: object, **_: object) -> tuple[Ranges, Attempt, tuple[()]]:
            found = {name: (low / 8, high / 8) for name, (low, high) in collect_ranges(float_, images).items()}
            nothing = Fidelity(0, 0.0, 0.0, 0.0)
            return found, Attempt("narrow", nothing, nothing, 0.0), ()

        monkeypatch.setattr(recover, "choose_ranges", narrow)
        monkeypatch.setattr(module, "LOOSER", (0.5,))
        monkeypatch.setattr(module, "MIXES", 1.1)


@functools.cache
def model() -> FloatModel:
    return finish(tiny.swish_classifier())


@functools.cache
def mixer() -> Mixer:
    extremes = collect_ranges(model(), PHOTOS)
    return Mixer(model(), extremes, extremes)


class MadeUp:
    """Latencies that are the same on every machine."""

    on = TimedOn("made-up", this_device(), None, 1)

    @property
    def float_s(self) -> float:
        return made_up(model().content)

    def times(self, contents: Iterable[bytes], repeats: int = 1) -> Iterator[float]:
        return map(made_up, contents)


def made_up(content: bytes) -> float:
    """Int8 operators are fast, int8 weights help a little."""
    graph = Graph(content)
    seconds = 0.0
    for operator in graph.operators:
        kind, dtype = graph.kind(operator), graph.dtype(int(operator.outputs[0]))
        if kind in ("QUANTIZE", "DEQUANTIZE"):
            continue
        seconds += COSTS[dtype] - (kind == "CONV_2D" and dtype == "float32" and weights(graph, operator) == "int8")
    return seconds / 1000


def weights(graph: Graph, operator: Any) -> str:
    return graph.dtype(int(operator.inputs[1]))


@functools.cache
def exploration() -> Exploration:
    return explore(model(), PHOTOS, timer=MadeUp())


def point(
    name: str, *, divergence: float = 0.0, low: float = 1.0, ratio: float = 1.0, estimate: float | None = None
) -> MixedPoint:
    levels = {unit.name: "float" for unit in mixer().units}
    return MixedPoint(name, levels, divergence, low, estimate or low, low, 24, ratio / 100, ratio, 1)


CURVE = (
    point("float"),
    point("close", divergence=0.01, low=0.98, ratio=0.7),
    point("middle", divergence=0.05, low=0.95, ratio=0.6, estimate=0.965),
    point("fast", divergence=0.2, low=0.8, ratio=0.45),
)


# --- Goals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "name", "met"),
    [
        (Goal(min_agreement=0.95), "middle", True),
        (Goal(min_agreement=0.96), "close", True),
        (Goal(max_drop=5), "middle", True),
        (Goal(max_drop=20), "fast", True),
        (Goal(max_drop=20, min_agreement=0.9), "middle", True),
        (Goal(max_latency=0.65), "middle", True),
        (Goal(max_latency_s=0.0061), "middle", True),
        (Goal(min_agreement=0.9, max_latency=0.65), "middle", True),
        (Goal(min_agreement=0.97, max_latency=0.65), "middle", False),
        (Goal(max_latency=0.4), "fast", False),
        (Goal(min_agreement=1.0), "float", True),
    ],
)
def test_the_goal_decides(goal: Goal, name: str, met: bool) -> None:
    chosen, reached = choose(CURVE, goal)
    assert (chosen.name, reached) == (name, met)


def test_an_agreement_is_held_against_the_goal_as_it_is_printed() -> None:
    goal = Goal(min_agreement=0.98)
    just, below = point("just", low=0.97951, ratio=0.6), point("below", low=0.9794, ratio=0.5)
    assert choose([just, below], goal) == (just, True)
    assert module._figures(just).startswith("agreement at least 98 % ")
    assert module._figures(below).startswith("agreement at least 97.9 % ")


def test_an_agreement_that_no_point_has_takes_the_closest() -> None:
    assert choose(CURVE[1:], Goal(min_agreement=0.99)) == (CURVE[1], False)


@pytest.mark.parametrize(
    "goal", [{}, {"min_agreement": 94.0}, {"min_agreement": -0.1}, {"max_latency": float("nan")}, {"max_drop": -1.0}]
)
def test_goals_that_say_nothing_are_refused(goal: dict[str, float]) -> None:
    with pytest.raises(InputError):
        check(Goal(**goal))


def test_a_goal_that_cannot_be_met_is_said_and_the_best_is_kept() -> None:
    content, report = exploration().settle(Goal(max_latency=0.01))
    assert not report.met
    assert report.chosen == report.points[-1]
    assert len(content) == report.chosen.size_bytes
    assert report.shortfall is not None
    assert "no mix of precisions reaches 0.01 of float's time; the closest, which was kept: agree" in report.shortfall
    assert f" {report.chosen.latency_ratio:.2f} of float's time ({made_up(content) * 1e3:.3g} ms)" in report.shortfall
    assert report.shortfall.endswith("or loosen the goal to what was reached")


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (
            Goal(min_agreement=0.97, max_latency=0.65),
            "reaches an agreement of 97 % with 0.65 of float's time; the closest, which was kept: agreement at least "
            "95 % (estimated 96.5 %), 0.60 of float's time (6 ms); the fastest that agrees enough: agreement "
            "at least 98 % (estimated 98 %), 0.70 of float's time (7 ms); or loosen",
        ),
        (
            Goal(max_drop=4, max_latency_s=0.006),
            "reaches a drop of at most 4 points with 6 ms; ",
        ),
        (
            Goal(min_agreement=0.96, max_latency=0.6),
            "0.70 of float's time (7 ms); more calibration images than these 24 would make agreements surer "
            "(--samples); or loosen",
        ),
    ],
)
def test_what_would_help_is_said(goal: Goal, words: str) -> None:
    _, report = replace(exploration(), points=CURVE).settle(goal)
    assert report.shortfall is not None
    assert words in report.shortfall


def test_a_goal_that_is_met_is_said() -> None:
    content, report = exploration().settle(Goal(min_agreement=0.5))
    assert report.met
    assert report.shortfall is None
    assert report.chosen.agreement_low >= 0.5
    assert made_up(content) == report.chosen.latency_s
    assert len(content) == report.chosen.size_bytes


# --- Points -----------------------------------------------------------------------------------------------------------


def test_points_lead_from_the_closest_to_the_fastest() -> None:
    _, report = exploration().settle(Goal(min_agreement=0.5))
    assert len(report.points) > 3
    assert report.points[0].name == "float"
    assert report.points[0].divergence < 1e-3
    for one, other in itertools.pairwise(report.points):
        assert one.divergence < other.divergence or one.agreement_low > other.agreement_low
        assert one.latency_ratio > other.latency_ratio
    assert sum(one.chosen for one in report.points) == 1
    assert report.points[-1].latency_ratio < 0.6
    assert (report.calibration_images, report.judging_images) == (18, 6)
    assert (report.trial_images, report.point_images) == (24, 24)
    assert report.timed_on.target == "made-up"


def test_points_that_are_surer_to_agree_stay_though_others_are_closer() -> None:
    close, sure = (
        point("close", divergence=0.01, low=0.97, ratio=0.6),
        point("sure", divergence=0.02, low=0.98, ratio=0.7),
    )
    worse = point("worse", divergence=0.03, low=0.97, ratio=0.8)
    assert module._pareto([worse, close, sure]) == (sure, close)
    assert module._pareto([close, close]) == (close,)


def test_every_level_of_every_block_is_told() -> None:
    _, report = exploration().settle(Goal(min_agreement=0.5))
    blocks = [unit.name for unit in mixer().units]
    assert list(dict.fromkeys(trial.block for trial in report.trials)) == blocks
    assert Counter(trial.level for trial in report.trials)["whole"] >= 1


def test_the_same_seed_gives_the_same_file() -> None:
    goal = Goal(max_latency=0.8)
    assert explore(model(), PHOTOS, timer=MadeUp()).settle(goal) == exploration().settle(goal)


def test_what_gains_no_time_is_left_alone() -> None:
    steps = module._steps(
        mixer().units[:2],
        {
            (mixer().units[0], "float"): (0.0, 1.0),
            (mixer().units[0], "dynamic"): (0.001, 1.01),
            (mixer().units[0], "expansion"): (0.02, 0.95),
            (mixer().units[0], "inner"): (0.01, 0.9),
            (mixer().units[0], "whole"): (0.03, 0.89),
            (mixer().units[1], "float"): (0.0, 1.0),
            (mixer().units[1], "inner"): (0.004, 0.9),
            (mixer().units[1], "whole"): (0.5, 0.9),
        },
    )
    first, second = mixer().units[:2]
    assert steps == [(second, "inner"), (first, "inner"), (first, "whole")]


def test_the_fastest_mix_within_a_sum_is_found() -> None:
    units = [Unit(f"block {number}", number, number + 1) for number in range(4)]

    @given(st.integers(0, 2**32 - 1), st.floats(0.05, 3))
    @settings(max_examples=50)
    def check_one(seed: int, most: float) -> None:
        drawn = np.random.default_rng(seed).uniform((0.0, -0.2), (1.0, 0.1), (12, 2)).tolist()
        trials = {(unit, LEVELS[0]): (0.001, 1.0) for unit in units}
        keys = [(unit, level) for unit in units for level in LEVELS[1:4]]
        trials |= {key: (0.001 + more, 1.0 + slower) for key, (more, slower) in zip(keys, drawn, strict=True)}

        def added(mix: Sequence[Level]) -> tuple[float, float]:
            found = [trials[unit, level] for unit, level in zip(units, mix, strict=True)]
            return sum(divergence - 0.001 for divergence, _ in found), sum(latency for _, latency in found)

        mix = fastest(trials, most)
        divergence, latency = added([mix[unit] for unit in units])
        assert divergence <= most + 1e-9
        # Divergences are rounded up to parts of the sum: what is within it by more than that cannot be faster.
        surely = [added(other) for other in itertools.product(LEVELS[:4], repeat=len(units))]
        assert latency <= min(time for sum_, time in surely if sum_ <= most * (1 - len(units) / GRID)) + 1e-9

    check_one()


def test_more_mixes_are_tried_where_the_goal_is() -> None:
    goal = Goal(max_latency=0.6)
    coarse, fine = exploration().points, explore(model(), PHOTOS, timer=MadeUp(), goals=[goal]).points
    (before, _), (after, met) = choose(coarse, goal), choose(fine, goal)
    assert met
    assert after.name.startswith(f"between {before.name} and ")
    assert after.divergence < before.divergence
    # Whatever was there before is there, or something better in both.
    assert all(any(_beats(other, point) for other in fine) for point in coarse)


def _beats(one: MixedPoint, other: MixedPoint) -> bool:
    return one.divergence <= other.divergence and one.latency_ratio <= other.latency_ratio


def test_ranges_are_loosened_where_that_helps() -> None:
    looseness = exploration().mixer.looseness
    assert set(looseness.values()) == {0.5}  # an eighth of the extremes clips much
    assert len(looseness) == 3


# --- Files ------------------------------------------------------------------------------------------------------------


def kinds(content: bytes) -> Counter[tuple[str, str]]:
    """Count operators by kind and by the type of their result."""
    graph = Graph(content)
    return Counter((graph.kind(operator), graph.dtype(int(operator.outputs[0]))) for operator in graph.operators)


def at_level(level: Level, *blocks: str) -> bytes:
    return mixer().content({unit: level if unit.name in blocks else "float" for unit in mixer().units})


def test_blocks_are_known_by_name() -> None:
    assert [unit.name for unit in mixer().units] == ["part 1", "block2", "top"]


def test_a_block_that_is_static_is_int8_in_the_file() -> None:
    middle = mixer().units[1].name
    inner, whole = (kinds(at_level(level, middle)) for level in ("inner", "whole"))
    assert inner["DEPTHWISE_CONV_2D", "int8"] == 1
    assert inner["CONV_2D", "int8"] == 4
    assert (inner["ADD", "float32"], inner["ADD", "int8"]) == (1, 0)
    assert (whole["ADD", "float32"], whole["ADD", "int8"]) == (0, 1)
    expansion = kinds(at_level("expansion", middle))
    assert (expansion["DEPTHWISE_CONV_2D", "int8"], expansion["CONV_2D", "int8"]) == (1, 1)


def test_blocks_that_are_not_stay_float() -> None:
    content = at_level("whole", mixer().units[1].name)
    graph = Graph(content)
    dtype = {graph.name(int(o.outputs[0])).split(";")[0]: graph.dtype(int(o.outputs[0])) for o in graph.operators}
    assert dtype["block2/depth"] == "int8"
    assert dtype["block1/depth"] == dtype["top"] == dtype["logits"] == dtype["stem"] == "float32"


def test_dynamic_convolutions_have_int8_weights_and_float_results() -> None:
    graph = Graph(at_level("dynamic", *(unit.name for unit in mixer().units)))
    convolutions = [o for o in graph.operators if graph.kind(o) == "CONV_2D" and graph.shape(int(o.outputs[0]))[1] > 1]
    types = [(weights(graph, o), graph.dtype(int(o.outputs[0]))) for o in convolutions]
    # The first reads pixels.
    assert types == [("float32", "float32"), *[("int8", "float32")] * (len(types) - 1)]


@pytest.mark.parametrize("level", ["float", "dynamic", "whole"])
def test_a_mixed_file_is_one_partition(tmp_path: Path, level: Level) -> None:
    path = tmp_path / "mixed.tflite"
    path.write_bytes(at_level(level, *(unit.name for unit in mixer().units)))
    delegation = inspect.inspect(path).delegation
    assert delegation is not None
    assert delegation.partitions == 1
    assert delegation.left == ()


def test_what_blocks_compute_in_can_be_read_of_the_file() -> None:
    def blocks(level: Level, *names: str) -> dict[str, str]:
        return inspect._blocks(inspect.parse(at_level(level, *names)))

    others = {"stem": "float", "block1": "float", "block2": "float", "top": "float"}
    assert blocks("float") == others
    assert blocks("whole", "block2") == others | {"block2": "static"}
    assert blocks("expansion", "block2") == others | {"block2": "static in part"}
    assert blocks("dynamic", "part 1", "block2") == others | {"block1": "dynamic", "block2": "dynamic"}


def test_scores_move_less_the_less_is_static() -> None:
    names = [unit.name for unit in mixer().units]
    expected = np.stack([Session(model().content).run(image) for image in PHOTOS[:8]])

    def moved(level: Level, blocks: Sequence[str]) -> float:
        session = Session(at_level(level, *blocks))
        return float(np.abs(np.stack([session.run(image) for image in PHOTOS[:8]]) - expected).mean())

    assert moved("float", names) < moved("whole", names[1:2]) < moved("whole", names)


def doubled() -> FloatModel:
    """The model with twice the weights."""
    graph = Graph(model().content)
    for operator in graph.operators:
        if graph.kind(operator) == "CONV_2D":
            values = graph.constant(int(operator.inputs[1]))
            assert values is not None
            graph.set_constant(int(operator.inputs[1]), 2 * values)
    return replace(model(), content=graph.content())


def test_static_blocks_get_the_tuned_weights_and_others_keep_theirs() -> None:
    extremes = collect_ranges(model(), PHOTOS)
    wide = {name: (4 * low, 4 * high) for name, (low, high) in extremes.items()}
    with_tuned = Mixer(model(), extremes, extremes)
    unit = with_tuned.units[1]
    with_tuned.tuned[unit] = (doubled(), wide)
    both = [Graph(one.content({unit: "inner"})) for one in (mixer(), with_tuned)]
    weights, results = {}, {}
    for plain, changed in zip(*(graph.operators for graph in both), strict=True):
        if both[0].kind(plain) == "CONV_2D" and both[0].dtype(int(plain.inputs[1])) == "int8":
            name = both[0].name(int(plain.outputs[0])).split(";")[0]
            one, other = (
                [graph.tensor(int(index)) for index in (operator.inputs[1], operator.outputs[0])]
                for graph, operator in zip(both, (plain, changed), strict=True)
            )
            weights[name] = other[0].quantization.scale[0] / one[0].quantization.scale[0]
            results[name] = other[1].quantization.scale[0] / one[1].quantization.scale[0]
    assert weights["block2/expand"] == pytest.approx(2)
    assert results["block2/expand"] == pytest.approx(4)
    assert not any(name.startswith("block1") for name in weights)


@pytest.mark.parametrize("level", ["inner", "whole"])
def test_channels_that_were_switched_off_keep_their_bias_in_static_blocks(level: Level) -> None:
    """Weights of 1e-12 do the same as those of 1e-3, which say as little and whose biases int32 holds."""
    errors = []
    for size in (1e-3, 1e-12):
        graph = Graph(model().content)
        (depth,) = (one for one in graph.operators if graph.name(int(one.outputs[0])) == "block2/depth")
        weights, bias = (np.array(graph.constant(int(index))) for index in depth.inputs[1:3])
        weights[..., :6], bias[:6] = size * weights[..., :6], 3.0
        graph.set_constant(int(depth.inputs[1]), weights)
        graph.set_constant(int(depth.inputs[2]), bias)
        off = replace(model(), content=graph.content())
        extremes = collect_ranges(off, PHOTOS)
        made = Mixer(off, extremes, extremes)
        content = made.content({unit: level if unit is made.units[1] else "float" for unit in made.units})
        exact, found = (np.stack([Session(one).run(image) for image in PHOTOS]) for one in (off.content, content))
        errors.append(float(np.abs(found - exact).mean()))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


PLAN = recover.PLANS["standard"]


def test_weights_are_tuned_block_by_block_and_kept_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block's are spoilt, the others' get ranges that are not too narrow."""
    asked: dict[str, Any] = {}
    extremes = collect_ranges(model(), PHOTOS)
    first = mixer().units[0]

    def tune(of: FloatModel, ranges: Ranges, images: Images, plan: object, **options: Any) -> list[Any]:
        asked.update(options, images=len(images))
        graph = Graph(of.content)
        for operator in graph.operators[first.first : first.end]:
            if graph.kind(operator) == "CONV_2D":
                values = graph.constant(int(operator.inputs[1]))
                assert values is not None
                graph.set_constant(int(operator.inputs[1]), -values)
        return [("blocks tuned", replace(of, content=graph.content()), extremes)]

    monkeypatch.setattr(recover, "tune", tune)
    found = explore(model(), PHOTOS, timer=MadeUp(), plan=PLAN)
    assert asked["exact"] is True
    assert asked["images"] == 18
    _, report = found.settle(Goal(max_latency=1.0))
    assert first.name not in report.tuned
    assert "block2" in report.tuned
    plain = {(trial.block, trial.level): trial.divergence for trial in exploration().trials}
    inner = [trial for trial in found.trials if trial.level == "inner"]
    assert {trial.block for trial in inner if trial.divergence < plain[trial.block, "inner"]} == set(report.tuned)


def test_a_network_that_cannot_be_tuned_is_mixed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[Any]:
        raise ModelError("the process ended with status 1")

    monkeypatch.setattr(recover, "tune", fail)
    found = explore(model(), PHOTOS, timer=MadeUp(), plan=PLAN)
    assert found.warnings == ("the weights were not tuned: the process ended with status 1",)
    assert found.points == exploration().points
    monkeypatch.setattr(replay, "SUPPORTED", replay.SUPPORTED - {"MEAN"})
    (warning,) = explore(model(), PHOTOS, timer=MadeUp(), plan=PLAN).warnings
    assert warning == "the weights were not tuned: MEAN cannot be replayed"


def test_neighbours_go_together_in_deep_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNITS", 2)
    units = module._units(Graph(model().content), mixer().units[0].first)
    assert len(units) == 2
    assert (units[0].first, units[-1].end) == (mixer().units[0].first, mixer().units[-1].end)
    assert units[0].end == units[1].first


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be cut"):
        explore(finish(tiny.classifier()), tiny.images(4), timer=MadeUp())


def test_no_images_are_refused() -> None:
    with pytest.raises(CalibrationError):
        explore(model(), [])


# --- Estimates --------------------------------------------------------------------------------------------------------


def test_an_estimate_is_right_where_the_truth_is_known() -> None:
    random = np.random.default_rng(0)
    margins, changes = random.exponential(4, (200_000, 1)), random.normal(0, 0.3, (200_000, 1))
    truth = float(np.mean(margins + changes >= 0))

    def estimated(judges: int) -> list[tuple[float, float]]:
        draws = range(0, 128 * 100, 128)
        return [estimate_agreement(margins[at : at + 128], changes[at : at + judges]) for at in draws]

    few, more = estimated(32), estimated(128)
    assert np.mean([estimate for estimate, _ in few]) == pytest.approx(truth, abs=0.005)
    counted = [np.mean(margins[at : at + 32] + changes[at : at + 32] >= 0) for at in range(0, 128 * 100, 128)]
    assert np.std([estimate for estimate, _ in few]) < 0.6 * np.std(counted)
    for some in (few, more):
        assert 0.65 < np.mean([low <= truth for _, low in some]) < 0.9
    assert np.mean([low for _, low in more]) > np.mean([low for _, low in few])


def test_margins_are_paired_with_the_changes_of_margins_like_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large margins change more: paired with any change, small ones would be used up more often than they are."""
    random = np.random.default_rng(0)
    margins = random.exponential(4, (100_000, 1))
    changes = random.normal(0, 0.05 + 0.2 * margins)
    truth = float(np.mean(margins + changes >= 0))

    def bias() -> float:
        draws = range(0, 128 * 100, 128)
        found = [estimate_agreement(margins[at : at + 128], changes[at : at + 128])[0] for at in draws]
        return float(np.mean(found)) - truth

    paired = bias()
    monkeypatch.setattr(module, "NEAREST", 1.0)
    assert abs(paired) < 0.6 * abs(bias())


def test_views_of_an_image_are_no_further_images() -> None:
    random = np.random.default_rng(0)
    margins, changes = random.exponential(4, (64, 1)), random.normal(0, 0.3, (64, 1))
    once = estimate_agreement(margins, changes)
    assert estimate_agreement(margins.repeat(2, axis=1), changes.repeat(2, axis=1)) == pytest.approx(once)
    # Changes of their own say more.
    others = np.hstack([changes, random.normal(0, 0.3, (64, 1))])
    estimate, low = estimate_agreement(margins.repeat(2, axis=1), others)
    assert estimate - low < once[0] - once[1]


def test_images_that_were_learned_from_judge_unless_they_were_learned_by_heart() -> None:
    random = np.random.default_rng(0)

    def judged(scale: float) -> float:
        """How often images judge whose changes are so much smaller."""
        drawn = [(random.standard_t(4, (32, 2)), random.standard_t(4, (96, 2))) for _ in range(100)]
        return float(np.mean([alike(apart, scale * learned) for apart, learned in drawn]))

    assert judged(1.0) > 0.8
    assert judged(0.4) < 0.05
    assert judged(3.0) == 1.0  # more careful than need be
    assert not alike(np.ones((4, 2)), np.empty((0, 2)))
    assert alike(np.zeros((4, 2)), np.zeros((12, 2)))


def test_what_was_learned_by_heart_is_judged_by_the_images_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    learning, apart = recover.split(PHOTOS, 0)
    content = at_level("whole", *(unit.name for unit in mixer().units))
    found = []
    for answer in (True, False):
        monkeypatch.setattr(module, "alike", lambda *_, answer=answer: answer)
        found.append(module._Scores(model(), learning, apart, 1).compare(content))
    assert [one.judges for one in found] == [24, 6]
    assert found[0].agreement == found[1].agreement
    assert found[0].estimate != found[1].estimate


def test_many_images_are_not_all_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPARED_BYTES", 10 * PHOTOS[0].nbytes)
    learning, apart = recover.split(PHOTOS, 0)
    assert module._Scores(model(), learning, apart, 1).count == 10


def test_no_change_is_full_agreement() -> None:
    margins = np.array([[0.1, 2.0], [3.0, 0.2], [1.0, 1.0]])
    assert estimate_agreement(margins, np.zeros((3, 2))) == (1.0, 1.0)
    assert estimate_agreement(margins, np.full((1, 2), -5.0)) == (0.0, 0.0)
