"""What is tried to keep the accuracy, who judges it, and what is handed over."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.calibration import images as folders
from edgeeff.calibration import ranges as ranges_module
from edgeeff.calibration.ranges import RULES, Rule
from edgeeff.converters import float_model, quantize, replay
from edgeeff.converters import recover as module
from edgeeff.converters.float_model import FloatModel, finish, trace
from edgeeff.converters.graph import Graph
from edgeeff.converters.recover import Judge, Part, choose_ranges, recover, split
from edgeeff.converters.runtime import Session
from edgeeff.converters.trace import Request
from edgeeff.errors import CalibrationError, MissingExtraError, ModelError
from edgeeff.results import Attempt, Fidelity, Recovery
from tests import tiny

Image = npt.NDArray[np.uint8]
PHOTOS = tiny.images(32, size=16)
SIMPLE = tiny.images(32)
FEW = (RULES[0], RULES[4])
NAMES = [*(rule.name for rule in FEW), "a rule for each role", "a rule for each role and resolution"]


@pytest.fixture(autouse=True)
def few_rules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rules are enough to choose from, and save time."""
    if request.node.get_closest_marker("accuracy") is None:
        monkeypatch.setattr(ranges_module, "RULES", FEW)


@functools.cache
def model() -> FloatModel:
    return finish(tiny.swish_classifier())


@functools.cache
def quick() -> tuple[bytes, Recovery]:
    return recover(model(), PHOTOS, "quick", threads=1)


class Watched:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.ticks: list[int] = []

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        self.stages.append((text, total))
        self.ticks.append(0)

    def tick(self) -> None:
        self.ticks[-1] += 1


def child(answer: Callable[[Path, dict[str, Any]], None]) -> Callable[..., dict[str, Any]]:
    """What stands for the TensorFlow process: it gets the folder and the request."""

    def converse(code: str, argument: str, hear: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        request = json.loads(argument)
        hear({"stage": "tune block by block", "total": 1})
        answer(Path(request["folder"]), request)
        hear({"step": 1})
        return {}

    return converse


# --- Ranges -----------------------------------------------------------------------------------------------------------


def test_every_rule_is_tried_and_told() -> None:
    _, report = quick()
    assert [attempt.name for attempt in report.attempts] == [*NAMES, module.FITTED]
    assert report.chosen in (*NAMES, module.FITTED)
    assert (report.effort, report.seed, report.warnings) == ("quick", 0, ())
    assert (report.calibration_images, report.judging_images) == (24, 8)
    assert all(attempt.fidelity.images == 8 and attempt.learned.images == 24 for attempt in report.attempts)


def test_what_is_chosen_is_better_than_the_extremes() -> None:
    _, report = quick()
    divergence = {attempt.name: attempt.learned.divergence for attempt in report.attempts}
    assert divergence[NAMES[-1]] < 0.8 * divergence["min/max"]
    assert divergence[NAMES[-1]] <= divergence[NAMES[-2]] <= min(divergence[rule.name] for rule in FEW) / 0.95


def test_the_most_careful_of_those_that_are_about_as_good_is_taken() -> None:
    def attempt(name: str, apart: float, learned: float) -> tuple[Attempt, dict[Part, Rule]]:
        return Attempt(name, Fidelity(10, apart, 1, 0), Fidelity(30, learned, 1, 0), 0), {}

    tried = [attempt("worse", 0.2, 0.2), attempt("careful", 0.101, 0.102), attempt("bold", 0.1, 0.1)]
    assert module._settle(tried)[0].name == "careful"
    assert module._settle([*tried, attempt("bolder", 0.1, 0.08)])[0].name == "bolder"


def test_the_file_is_what_the_report_says() -> None:
    content, report = quick()
    _, judging = split(PHOTOS, 0)
    expected, found = (
        np.stack([session.run(image) for image in judging]) for session in (Session(model().content), Session(content))
    )
    (chosen,) = (attempt for attempt in report.attempts if attempt.name == report.chosen)
    assert chosen.fidelity.agreement == np.mean(expected.argmax(axis=1) == found.argmax(axis=1))
    divergence = (expected * np.log(np.maximum(expected, 1e-6) / np.maximum(found, 1e-6))).sum(axis=1).mean()
    assert chosen.fidelity.divergence == pytest.approx(divergence, abs=1e-4)


def test_the_same_seed_gives_the_same_file_and_another_does_not() -> None:
    first, again, other = (recover(model(), PHOTOS[:8], "quick", seed, threads=1)[0] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("input_type", "output_type"), [("float32", "uint8"), ("int8", "int8")])
def test_types_are_those_asked_for(input_type: quantize.IoType, output_type: quantize.IoType) -> None:
    content, _ = recover(model(), PHOTOS[:4], "quick", threads=1, input_type=input_type, output_type=output_type)
    session = Session(content)
    assert (session.input.dtype, session.output.dtype) == (input_type, output_type)


def test_logits_are_judged_as_probabilities() -> None:
    as_logits = finish(tiny.swish_classifier(), head="logits")
    ranges = quantize.collect_ranges(model(), PHOTOS)
    logits, scores = (
        Judge(float_, PHOTOS, PHOTOS[:4]).attempt("", float_, ranges).fidelity for float_ in (as_logits, model())
    )
    assert logits.divergence == pytest.approx(scores.divergence, rel=1e-4) != 0


def test_outputs_are_never_clipped_and_ties_share_a_range() -> None:
    ranges, *_ = choose_ranges(model(), PHOTOS, Judge(model(), PHOTOS[:4], PHOTOS[:4]))
    whole = quantize.collect_ranges(model(), PHOTOS)
    assert ranges[model().logits] == pytest.approx((min(0.0, whole["logits"][0]), max(0.0, whole["logits"][1])))
    graph = Graph(model().content)
    assert ranges[graph.name(graph.inputs[0])] == (0.0, 255.0) == ranges["preprocessing/rows"]
    assert set(ranges) >= {graph.name(int(operator.outputs[0])) for operator in graph.operators}


def test_parts_of_a_network_are_known_by_what_they_do() -> None:
    graph = Graph(model().content)
    after = module._after(graph)
    part = {graph.name(index): module._part(graph, index, after) for index in after}
    assert part["stem"] == Part("bent next", 16)
    assert part["stem/swish"] == Part("activated", 16)
    assert part["block1/gated"] == Part("gated", 16)
    assert part["block2/project"] == part["sum"] == Part("linear", 16)
    assert part["block1/mean"] == part["block1/excite"] == part["pool"] == Part("squeezed", 1)
    named = {graph.name(index): what for index, what in after.items()}
    assert (named["stem"], named["block1/excite"], named["sum"]) == ("swish", "sigmoid", "itself")
    relu = Graph(tiny.classifier())
    (conv,) = (int(operator.outputs[0]) for operator in relu.operators if relu.kind(operator) == "CONV_2D")
    assert module._part(relu, conv, module._after(relu)) == Part("activated", 4)


def test_progress_is_counted_to_the_end() -> None:
    progress = Watched()
    recover(model(), PHOTOS[:8], "quick", progress=progress, threads=1)
    assert [total for _, total in progress.stages] == progress.ticks
    assert progress.stages[0] == ("collect activation ranges from 6 images", 6)


# --- Images -----------------------------------------------------------------------------------------------------------


class Decoded(Sequence[Image]):
    """Images that come from files: how many are held is counted."""

    def __init__(self, count: int) -> None:
        self.size, self.asked = count, list[int]()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return PHOTOS[index % len(PHOTOS)]


def test_images_that_judge_teach_nothing() -> None:
    photos = [np.full((1, 1, 3), value, np.uint8) for value in range(100)]
    teaching, judging = split(photos, 0)
    seen = [int(image[0, 0, 0]) for part in (teaching, judging) for image in part]
    assert (len(teaching), len(judging)) == (75, 25)
    assert sorted(seen) == list(range(100))
    assert [int(image[0, 0, 0]) for image in split(photos, 1)[1]] != seen[75:]
    assert [int(image[0, 0, 0]) for image in teaching[:3]] == seen[:3]


def test_few_images_and_very_many() -> None:
    one = split(PHOTOS[:1], 0)
    assert [len(part) for part in one] == [1, 1]
    with pytest.raises(CalibrationError, match="no calibration image was given"):
        split([], 0)
    many = Decoded(10_000)
    teaching, judging = split(many, 0)
    assert (len(teaching), len(judging)) == (10_000 - module.MOST_JUDGES, module.MOST_JUDGES)
    assert many.asked == []


def test_one_image_is_enough() -> None:
    content, report = recover(model(), PHOTOS[:1], "quick", threads=1)
    assert (report.calibration_images, report.judging_images) == (1, 1)
    assert Session(content).run(PHOTOS[0]).shape == (5,)


# --- Tuning -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_model, "require_host", lambda: None)


def tuned_to(monkeypatch: pytest.MonkeyPatch, change: Callable[[Graph], dict[str, npt.NDArray[Any]]]) -> None:
    def answer(folder: Path, request: dict[str, Any]) -> None:
        graph = Graph((folder / "float.tflite").read_bytes())
        assert np.load(folder / "images.npy").shape == (24, 16, 16, 3)
        assert model().logits in request["fixed"]
        arrays: dict[str, Any] = dict(change(graph))
        np.savez(folder / "blocks.npz", **arrays)

    monkeypatch.setattr(float_model, "converse", child(answer))


def constant_named(graph: Graph, name: str) -> tuple[int, npt.NDArray[Any]]:
    for operator in graph.operators:
        for index in operator.inputs:
            if index >= 0 and graph.name(int(index)) == name:
                values = graph.constant(int(index))
                assert values is not None
                return int(index), values
    raise KeyError(name)


def test_fitted_weights_are_taken_where_they_are_better(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = quick()
    fitted = report.attempts[-1]
    ranges = [attempt for attempt in report.attempts if attempt.name in NAMES]
    assert fitted.name == module.FITTED
    assert (report.chosen == module.FITTED) == all(fitted.fidelity.divergence < r.fidelity.divergence for r in ranges)

    def spoilt(model: FloatModel, *_: Any, **__: Any) -> FloatModel:
        graph = Graph(model.content)
        index, weights = constant_named(graph, "dense/weights")
        graph.set_constant(index, -weights)
        return FloatModel(**{**vars(model), "content": graph.content()})

    monkeypatch.setattr(module, "fit", spoilt)
    _, worse = recover(model(), PHOTOS, "quick", threads=1)
    assert worse.chosen in NAMES
    assert worse.attempts[-1].fidelity.divergence > worse.attempts[0].fidelity.divergence


def test_weights_are_fitted_to_nothing_where_images_show_no_class_or_a_rule_is_given() -> None:
    for options in ({"synthetic": True}, {"rule": FEW[1]}):
        _, report = recover(model(), PHOTOS[:8], "standard", threads=1, **options)
        assert all(attempt.name in NAMES for attempt in report.attempts)


def test_a_network_that_cannot_be_fitted_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> FloatModel:
        raise ModelError("no")

    monkeypatch.setattr(module, "fit", refuse)
    _, report = recover(model(), PHOTOS[:8], "quick", threads=1)
    assert report.warnings == ("the weights were not fitted: no",)


def test_weights_that_are_fitted_well_are_not_tuned(monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    monkeypatch.setattr(module, "_is_close", lambda attempt, _: attempt.name == module.FITTED)
    monkeypatch.setattr(module, "fit", lambda model, *_, **__: model)
    monkeypatch.setattr(Judge, "attempt", attempt_that_is_better_if(module.FITTED))
    _, report = recover(model(), PHOTOS[:8], "standard", threads=1)
    assert report.attempts[-1].name == report.chosen == module.FITTED


def attempt_that_is_better_if(name: str) -> Callable[..., Attempt]:
    def attempt(self: Judge, its: str, model: FloatModel, ranges: quantize.Ranges) -> Attempt:
        fidelity = Fidelity(2, 0.1 if its == name else 0.2, 1.0, 0.0)
        return Attempt(its, fidelity, fidelity, 0.0)

    return attempt


def test_what_was_tuned_to_the_worse_is_not_kept(monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    def spoil(graph: Graph) -> dict[str, npt.NDArray[Any]]:
        index, weights = constant_named(graph, "dense/weights")
        return {f"weights/{index}": -weights}

    tuned_to(monkeypatch, spoil)
    content, report = recover(model(), PHOTOS, "standard", threads=1)
    assert [attempt.name for attempt in report.attempts] == [*NAMES, module.FITTED, "blocks tuned"]
    assert report.attempts[-1].fidelity.divergence > report.attempts[0].fidelity.divergence
    assert content == quick()[0]


def test_what_was_tuned_to_the_better_is(monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    """Judged as if a model without its last weights were a copy of the whole one, which they bring back."""
    whole = Graph(model().content)
    index, weights = constant_named(whole, "dense/weights")
    spoilt = Graph(model().content)
    spoilt.set_constant(index, np.roll(weights, 1, axis=0))
    judged_by = module.Judge
    monkeypatch.setattr(module, "Judge", lambda _, *images: judged_by(model(), *images))
    low, high = quantize.collect_ranges(model(), PHOTOS)["sum"]
    wide = np.array([1.1 * low, 1.1 * high])
    tuned_to(monkeypatch, lambda _: {f"weights/{index}": weights, f"range/{index_of(whole, 'sum')}": wide})
    content, report = recover(finish(spoilt.content()), PHOTOS, "thorough", threads=1)
    assert report.chosen == "blocks tuned"
    graph = Graph(content)
    (sum_,) = (graph.tensor(int(o.outputs[0])) for o in graph.operators if graph.name(int(o.outputs[0])) == "sum")
    assert float(sum_.quantization.scale[0]) == pytest.approx(1.1 * (high - low) / 255)


def index_of(graph: Graph, name: str) -> int:
    return next(int(o.outputs[0]) for o in graph.operators if graph.name(int(o.outputs[0])) == name)


def test_large_networks_learn_from_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(model().content)
    assert module._pupils(graph) == module.MOST_PUPILS
    monkeypatch.setattr(module, "MOST_PUPILS_WORK", 1.0)
    assert module._pupils(graph) == module.LEAST_PUPILS
    monkeypatch.setattr(module, "MOST_PUPILS_BYTES", 5.5 * (16 * 16 * 3))
    assert module._pupils(graph) == 5
    monkeypatch.setattr(module, "MOST_PUPILS_BYTES", 1.0)
    assert module._pupils(graph) == 1


def test_large_networks_learn_from_fewer_views(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(model().content)
    assert module._views(graph, 24, 500) == 500
    work = replay.work(graph, 0, len(graph.operators))
    monkeypatch.setattr(module, "MOST_VIEWS_WORK", 100.5 * work)
    assert module._views(graph, 24, 500) == 100
    # Each image as it is and mirrored, whatever that costs.
    assert module._views(graph, 80, 500) == 160


def test_operators_that_cannot_be_replayed_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOOD_ENOUGH", 0.0)
    monkeypatch.setattr(module, "CLOSE", 0.0)
    graph = Graph(finish(tiny.classifier()).content)
    logits = next(operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    scaled = graph.add_tensor("scaled", (1, 5), "float32")
    half = graph.add_tensor("half", (1,), "float32", np.array([2.0], np.float32))
    graph.insert(len(graph.operators) - 1, "DIV", [int(logits.outputs[0]), half], [scaled], graph.schema.DivOptionsT())
    graph.operators[-1].inputs = [scaled]
    _, report = recover(finish(graph.content(), input_range=(0, 255)), SIMPLE, "standard", threads=1)
    assert report.warnings == ("the weights were not tuned: DIV cannot be replayed",)
    assert [attempt.name for attempt in report.attempts] == [*NAMES, module.FITTED]


def test_a_process_that_dies_is_a_warning_too(monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    def die(folder: Path, request: dict[str, Any]) -> None:
        raise ModelError("the TensorFlow process was killed")

    monkeypatch.setattr(float_model, "converse", child(die))
    content, report = recover(model(), PHOTOS, "standard", threads=1)
    assert content == quick()[0]
    assert report.warnings == ("the weights were not tuned: the TensorFlow process was killed",)


def test_tensorflow_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("tensorflow", "host")

    monkeypatch.setattr(float_model, "require_host", missing)
    with pytest.raises(MissingExtraError):
        recover(model(), PHOTOS, "standard", threads=1)


# --- Real networks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hard_case(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> FloatModel:
    path = tmp_path_factory.mktemp("b0") / "float.tflite"
    keras = shared / "models" / "efficientnetb0_imagenette.keras"
    traced = trace(Request(output=str(path), model=str(keras)), lambda _: None)
    return finish(path.read_bytes(), traced)


def crops(folder: Path, count: int) -> list[Image]:
    files = folders.sample(folders.find(folder), count).files
    return [folders.load(file.path, 224, 224, "none") for file in files]


@pytest.mark.accuracy
def test_a_network_with_swish_survives(shared: Path, hard_case: FloatModel) -> None:
    # The other efforts take minutes; tests/benchmarks/recovery.py prints what they give.
    folder = shared / "data" / "imagenette"
    content, report = recover(hard_case, crops(folder / "calibration", 128), "quick", threads=2)
    sessions = Session(hard_case.content), Session(content)
    best = [
        tuple(int(session.run(image).argmax()) for session in sessions) for image in crops(folder / "evaluation", 1000)
    ]
    agreement = np.mean([exact == found for exact, found in best])
    print(report.chosen, agreement)
    assert agreement >= 0.78
