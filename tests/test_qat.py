"""Fine-tuning for int8: what is refused, what is taught, what is in the file, and how an interrupted run goes on.

One TensorFlow process trains all that is trained here (`LESSONS`): the run that the tests look at, one that goes on
from what was there in the middle of it, and one that also learns labels, prunes and clusters.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeeff.cli import main
from edgeeff.converters import convert as conversion
from edgeeff.converters import float_model, qat, quantize, recover, teach
from edgeeff.converters.compress import pointwise
from edgeeff.converters.convert import Calibration, Source, convert
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.qat import Finetune, finetune
from edgeeff.converters.runtime import Session
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, ModelError
from edgeeff.results import ConversionRecord, Finetuning, Goal, read_record
from tests import tiny

STEPS, INTERRUPTED = 12, 8
PHOTOS = tiny.images(40, size=16)
LESSONS = """
import json, os, shutil, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
sys.path[:] = sys.argv.pop(1).split(":")
from dataclasses import replace
from pathlib import Path
import numpy as np
from edgeeff.converters import teach
from edgeeff.converters.compress import pointwise, prune
from edgeeff.converters.graph import Graph
from edgeeff.converters.trace import serve

# A tiny network learns something in a few steps when they are large.
teach.WEIGHT_RATE, teach.BIAS_RATE, teach.RANGE_RATE = 0.06, 0.05, 0.01


def lessons(argument, send):
    fields = json.loads(argument)
    request = teach.Request(**{**fields, "fixed": tuple(fields["fixed"])})
    folder = Path(request.folder)
    resumed, small = folder.with_name("resumed"), folder.with_name("small")
    shutil.copytree(folder, small)
    for name in ("learned", "judged"):
        np.save(small / f"{name}_labels.npy", np.arange(len(np.load(small / f"{name}.npy"))) % 5)
    start = Graph((small / teach.START).read_bytes())
    for weights in [int(one.inputs[1]) for one in start.operators if pointwise(start, one)]:
        values = start.constant(weights)
        rows = values.reshape(len(values), -1).astype(np.float64)
        start.set_constant(weights, prune(rows, np.eye(rows.shape[1]), 0.5).reshape(values.shape))
    (small / teach.START).write_bytes(start.content())
    teach.run(replace(request, folder=str(small), labels=True, sparsity=0.5, clusters=8), lambda said: None)

    def watched(said):
        send(said)
        if said.get("step") == INTERRUPTED:
            shutil.copytree(folder, resumed)  # all that is left of a run that ends here

    result = teach.run(request, watched)
    teach.run(replace(request, folder=str(resumed)), send)
    return result


sys.exit(serve(lessons))
"""


@dataclass(frozen=True)
class Done:
    """The run, its copies' folders, and what was shown on the way."""

    model: FloatModel
    content: bytes
    report: Finetuning
    folder: Path
    stages: list[str]
    ticks: int


class Shown:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.ticks = 0

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        self.stages.append(text)
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    model, folder, shown = finish(tiny.swish_classifier()), tmp_path_factory.mktemp("qat") / "run", Shown()
    lessons = LESSONS.replace("INTERRUPTED", str(INTERRUPTED + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qat, "CHILD", lessons)
        patch.setattr(qat, "CHECKS", 3)
        # With fitted weights so small a network has nothing to learn.
        patch.setattr(recover, "fit", lambda float_model, *_, **__: float_model)
        content, report = finetune(model, PHOTOS, None, Finetune(folder, STEPS), folder, threads=1, progress=shown)
    return Done(model, content, report, folder, shown.stages, shown.ticks)


def arrays(folder: Path) -> dict[str, Any]:
    with np.load(folder / teach.RESULT) as found:
        return dict(found)


# --- What was learned -------------------------------------------------------------------------------------------------


def test_the_file_computes_what_was_simulated(done: Done) -> None:
    graph = Graph(done.content)
    last = graph.producer(graph.outputs[0])
    assert last is not None
    assert graph.kind(last) == "SOFTMAX"  # so steep here that one step of a logit changes the scores by a lot
    graph.set_output(int(last.inputs[0]))
    graph.remove(last)
    widened = graph.producer(graph.outputs[0])
    assert widened is not None
    step = float(graph.tensor(int(widened.inputs[0])).quantization.scale[0])
    session = Session(graph.content())
    found = np.stack([session.run(image) for image in PHOTOS[: done.report.judging_images]])
    simulated = arrays(done.folder)["logits"]
    assert np.corrcoef(found.ravel(), simulated.ravel())[0, 1] > 0.999
    assert np.mean(np.abs(found - simulated) < step / 2) > 0.8
    assert np.abs(found - simulated).max() < 1.5 * step
    assert done.report.simulation_correlation > 0.999


def test_no_convolution_is_left_in_float(done: Done) -> None:
    graph = Graph(done.content)
    weighted = [o for o in graph.operators if graph.kind(o) in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}]
    assert len(weighted) == 14
    for operator in weighted:
        assert {graph.dtype(int(index)) for index in operator.inputs[:2]} == {"int8"}


def test_the_best_state_is_closer_to_float_than_the_start(done: Done) -> None:
    report = done.report
    assert report.chosen == qat.FINETUNED
    assert report.after.fidelity.divergence < report.before.fidelity.divergence
    assert [step for step, _ in report.divergences] == [0, 4, 8, 12]
    assert report.best_step == min(report.divergences, key=lambda checked: checked[1])[0] > 0
    assert (report.images, report.judging_images, report.teacher) == (30, 10, "float")
    assert report.accuracy_before is None


def test_an_interrupted_run_ends_where_a_whole_one_does(done: Done) -> None:
    assert done.report.resumed_at is None
    assert f"fine-tune, going on after step {INTERRUPTED} of {STEPS}" in done.stages
    whole, resumed = arrays(done.folder), arrays(done.folder.with_name("resumed"))
    assert whole.keys() == resumed.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)


def test_pruned_and_clustered_weights_are_so_in_the_file(done: Done) -> None:
    small = done.folder.with_name("small")
    said = json.loads((small / teach.HISTORY).read_bytes())
    start = {name: (low, high) for name, (low, high) in json.loads((small / "ranges.json").read_bytes()).items()}
    tuned, ranges = recover.tuned(done.model, start, small / teach.RESULT)
    content = quantize.quantize(tuned, recover.INT8, ranges, input_type="uint8", output_type="float32")
    zeros, different, layers = qat._compressed(Graph(done.model.content), content, said["compressed"])
    # Of two blocks the expansion and the projection, and the head's convolution: none of squeeze-excite, no depthwise.
    assert layers == 5
    assert zeros >= 0.5
    assert different <= 8
    assert qat._correlation((tuned, ranges), small) > 0.99
    assert qat.compressed_bytes(content) < qat.compressed_bytes(done.content)
    assert said["history"][-1]["accuracy"] is not None
    # What training began without is what tfmot kept out.
    begun = Graph((small / teach.START).read_bytes())
    for weights in [int(one.inputs[1]) for one in begun.operators if pointwise(begun, one)]:
        before = np.asarray(begun.constant(weights))
        assert np.mean(before == 0) == pytest.approx(0.5, abs=1 / before.size)
        assert not arrays(small)[f"weights/{weights}"][before == 0].any()


def test_a_file_that_is_not_better_is_not_taken(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done.folder, folder)

    def no_lesson(*_: Any, **__: Any) -> dict[str, Any]:
        """What comes out are weights that say nothing."""
        nothing = {name: np.zeros_like(values) for name, values in arrays(folder).items() if "weights" in name}
        np.savez(folder / teach.RESULT, **(arrays(folder) | nothing))
        return {"packages": {}, "resumed_at": STEPS}

    monkeypatch.setattr(float_model, "converse", no_lesson)
    monkeypatch.setattr(qat, "CHECKS", 3)
    content, report = finetune(done.model, PHOTOS, None, Finetune(folder, STEPS), folder, threads=1)
    assert (report.chosen, report.resumed_at) == (qat.RANGES, STEPS)
    assert "fine-tuning did not help on the 10 images kept apart" in report.warnings[0]
    assert Session(content).run(PHOTOS[0]).max() > 0.3


# --- Interruptions ----------------------------------------------------------------------------------------------------


def interrupted(*_: Any, **__: Any) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_an_interruption_says_where_the_state_is(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_model, "converse", interrupted)
    shutil.copytree(done.folder, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt, match=r"what was learned so far is in .*run: the same command goes on"):
        finetune(done.model, PHOTOS, None, Finetune(tmp_path, STEPS), tmp_path / "run", threads=1)


@pytest.mark.parametrize("changed", [{"steps": STEPS + 1}, {"sparsity": 0.5}, {"clusters": 16}, {"seed": 1}])
def test_another_run_begins_anew(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    folder, seed = tmp_path / "run", changed.pop("seed", 0)
    shutil.copytree(done.folder, folder)
    monkeypatch.setattr(float_model, "converse", interrupted)
    monkeypatch.setattr(qat, "_begin", lambda *_: (done.model, {}, done.report.before))
    wish = replace(Finetune(folder, STEPS), **changed)
    with pytest.raises(KeyboardInterrupt) as caught:
        finetune(done.model, PHOTOS, None, wish, folder, seed=seed, threads=1)
    assert not str(caught.value)
    assert not (folder / teach.STATE).exists()


@pytest.mark.parametrize(
    ("fitted", "tuned", "chosen"),
    [(False, 1.0, "blocks tuned"), (False, 0.25, qat.RANGES), (True, 0.25, recover.FITTED)],
)
def test_training_begins_with_what_is_best(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: bool, tuned: float, chosen: str
) -> None:
    good = json.loads((done.folder / teach.RANGES).read_bytes())
    half, its = ({name: (low * by, high * by) for name, (low, high) in good.items()} for by in (0.5, tuned))
    monkeypatch.setattr(recover, "choose_ranges", lambda *_, **__: (half, done.report.before, ()))
    monkeypatch.setattr(recover, "tune", lambda *_, **__: [("blocks tuned", done.model, its)])
    if not fitted:
        monkeypatch.setattr(recover, "fit", lambda *_, **__: done.model)
    monkeypatch.setattr(float_model, "converse", interrupted)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(done.model, PHOTOS, None, Finetune(tmp_path, STEPS), folder, plan=recover.PLANS["standard"], threads=1)
    begun = json.loads((folder / teach.RANGES).read_bytes())
    assert {name: tuple(span) for name, span in begun.items()} == (its if chosen == "blocks tuned" else half)
    assert (folder / "start.txt").read_text() == chosen
    assert ((folder / teach.START).read_bytes() == done.model.content) is not fitted


def test_only_what_a_run_wrote_is_removed(tmp_path: Path) -> None:
    output = tmp_path / "b0_int8.tflite"
    folder = qat.checkpoints(output)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    qat.forget(output)
    assert (folder / "thesis.txt").exists()
    (folder / "request.json").write_text("{}")
    qat.forget(output)
    assert not folder.exists()


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "cannot fine-tune for 0 steps"),
        ({"sparsity": 1.0}, "--prune 1 is no share of weights from 0 to 0.95"),
        ({"sparsity": -0.1}, "--prune -0.1 is no share"),
        ({"clusters": 3}, "--cluster 3 is out of 4 to 128"),
        ({"clusters": 200}, "--cluster 200 is out of 4 to 128"),
    ],
)
def test_wishes_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Finetune(Path("photos"), **options)


def write(folder: Path, count: int) -> Path:
    from PIL import Image

    for index, pixels in enumerate(tiny.images(count, size=16)):
        file = folder / ("rose", "tulip")[index % 2] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "flowers.tflite"
    path.write_bytes(tiny.swish_classifier())
    return Source(model=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "float16"}, "--finetune trains for int8, not for float16"),
        ({"goal": Goal(min_agreement=0.9)}, "--finetune trains for int8, not for mixed"),
        ({"calibration": Calibration(Path("photos"))}, "leave --calibration away"),
    ],
)
def test_what_does_not_go_with_it(source: Source, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(source, finetune=Finetune(tmp_path), output=tmp_path / "x.tflite", **options)


def test_random_weights_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="phi1 would get random weights: there is nothing to teach"):
        convert(Source(phi=1.0), finetune=Finetune(tmp_path), output=tmp_path / "x.tflite")


def test_few_images_are_refused_before_any_work(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_float_model", lambda *_: pytest.fail("this should have been refused before"))
    with pytest.raises(CalibrationError, match="15 images are too few to fine-tune with: at least 16"):
        convert(source, finetune=Finetune(write(tmp_path / "few", 15)), output=tmp_path / "x.tflite")


def test_a_broken_image_is_named(source: Source, tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", 20)
    (folder / "rose" / "06.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"06\.png is no image"):
        convert(source, finetune=Finetune(folder), output=tmp_path / "x.tflite")
    assert not (tmp_path / "x.tflite").exists()


def test_an_operator_that_cannot_be_trained_is_named(tmp_path: Path) -> None:
    model = finish(tiny.classifier(preprocessing=()), input_range=(0.0, 255.0))
    graph = Graph(model.content)
    relu = graph.schema.ActivationFunctionType.RELU_N1_TO_1
    graph.operators[0].builtinOptions.fusedActivationFunction = relu
    with pytest.raises(ModelError, match="cannot be fine-tuned: CONV_2D with RELU_N1_TO_1 cannot be trained"):
        finetune(replace(model, content=graph.content()), PHOTOS, None, Finetune(tmp_path), tmp_path / "run")


@pytest.mark.parametrize("module", ["tf_keras", "tensorflow_model_optimization"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    find: Callable[[str], Any] = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))
    with pytest.raises(MissingExtraError, match=r"needed to fine-tune, is not installed; .*edgeeff\[host\]") as caught:
        qat.require()
    assert caught.value.exit_code == 4


# --- The command ------------------------------------------------------------------------------------------------------


def test_options_of_training_need_a_folder() -> None:
    for option in (["--steps", "10"], ["--prune", "0.5"], ["--cluster", "16"], ["--learn-labels"]):
        result = CliRunner().invoke(main, ["convert", "--variant", "b0", *option])
        assert result.exit_code == 2, option
        assert "give --finetune DIR" in result.stderr


def lesson(done: Done, seen: list[Any]) -> Callable[..., tuple[bytes, Finetuning]]:
    """What stands in for training in the tests of what is around it."""

    def taught(
        model: FloatModel, images: Sequence[Any], labels: Any, wish: Finetune, folder: Path, **options: Any
    ) -> tuple[bytes, Finetuning]:
        folder.mkdir()
        (folder / "request.json").write_text("{}")
        seen.append((len(images), None if labels is None else labels.tolist(), wish, options))
        return done.content, done.report

    return taught


def test_the_record_says_how_it_was_trained(
    done: Done, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(qat, "finetune", lesson(done, seen))
    output, folder = tmp_path / "flowers_int8.tflite", write(tmp_path / "photos", 20)
    convert(source, finetune=Finetune(folder, 7), calibration=Calibration(seed=3), output=output)
    record = read_record(output.with_suffix(".json"))
    assert isinstance(record, ConversionRecord)
    assert record.finetuning is not None
    assert record.finetuning.compressed_bytes == len(zlib.compress(output.read_bytes(), 9))
    assert record.finetuning.divergences == done.report.divergences
    use = record.calibration
    assert (use.kind, use.count, use.method, len(use.images)) == ("folder", 20, qat.FINETUNED, 20)
    assert "10 of these were kept apart" in use.note
    ((count, labels, wish, options),) = seen
    assert (count, labels, wish.steps, options["seed"]) == (20, None, 7, 3)
    assert not qat.checkpoints(output).exists()


def test_labels_are_those_of_the_class_folders(
    done: Done, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(qat, "finetune", lesson(done, seen))
    folder, names = write(tmp_path / "photos", 20), tmp_path / "names.txt"
    names.write_text("lily\nrose\niris\ntulip\nfern\n")
    asked = ["convert", "--model", source.model, "--finetune", folder, "--learn-labels", "--labels", names]
    result = CliRunner().invoke(main, [*map(str, asked), "-o", str(tmp_path / "x.tflite")], env={"COLUMNS": "500"})
    assert result.exit_code == 0, result.output
    ((_, labels, _, _),) = seen
    assert sorted(set(labels)) == [1, 3]
    assert labels.count(1) == 10
    assert "12 steps on 30 images, taught by float; same best class on 10 images kept apart" in result.output


def test_labels_need_class_folders(source: Source, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in write(tmp_path / "photos", 20).rglob("*.png"):
        file.rename(flat / file.name)
    wish = Finetune(flat, classes=lambda *_: {})
    with pytest.raises(InputError, match="has no class folders to learn labels from"):
        convert(source, finetune=wish, output=tmp_path / "x.tflite")
