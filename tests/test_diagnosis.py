"""Every way to ruin a file is made on purpose and has to be named; files that are fine must not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from edgeeff import cli
from edgeeff.calibration.ranges import Histogram
from edgeeff.converters import metadata
from edgeeff.converters import quantize as quantize_module
from edgeeff.converters.float_model import finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import Ranges, collect_ranges, quantize
from edgeeff.converters.schemes import SCHEMES
from edgeeff.diagnosis import tensors
from edgeeff.diagnosis.diagnose import Plan, diagnose
from edgeeff.diagnosis.scores import Likeness, Seen
from edgeeff.errors import CalibrationError, InputError, ModelError
from edgeeff.results import DiagnosisRecord
from tests import tiny

COUNT = 64
Edit = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
REVERSED = tuple(
    tiny.Step(step.kind, step.constant[::-1] if isinstance(step.constant, tuple) else step.constant)
    for step in tiny.KERAS_STYLE
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, and images."""
    folder = tmp_path_factory.mktemp("diagnosis")
    (folder / "float.tflite").write_bytes(tiny.classifier())
    (folder / "photos").mkdir()
    for number, pixels in enumerate(tiny.images(COUNT, seed=3)):
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    return folder


def edited(content: bytes, **edits: Edit) -> bytes:
    """Change constants of a file by their names, `_` for a slash."""
    graph = Graph(content)
    for index in range(len(graph.model.subgraphs[0].tensors)):
        edit = edits.get(graph.name(index).replace("/", "_"))
        values = graph.constant(index)
        if edit is not None and values is not None:
            graph.set_constant(index, edit(values))
    return graph.content()


def int8(
    content: bytes, narrow: Callable[[Ranges], Ranges] = lambda ranges: ranges, contract: Any = None, **options: Any
) -> bytes:
    """Quantize a float file with its own ranges, changed, and say what its input is."""
    model = finish(content)
    ranges = narrow(collect_ranges(model, tiny.images(24, size=model.resolution[0])))
    scheme = SCHEMES[options.pop("scheme", "int8")]
    made = quantize(model, scheme, ranges, **({"input_type": "uint8", "output_type": "float32"} | options))
    if contract is None:
        return made
    return metadata.embed(made, name="x", description="", labels=None, contract=contract, provenance={})


def judged(desk: Path, content: bytes, name: str = "model.tflite", **changes: Any) -> DiagnosisRecord:
    (desk / name).write_bytes(content)
    return diagnose(
        Plan(**({"model": desk / name, "baseline": desk / "float.tflite", "data": desk / "photos"} | changes))
    )


def scaled(factor: float, *names: str) -> Callable[[Ranges], Ranges]:
    return lambda ranges: (
        ranges | {name: (ranges[name][0] * factor, ranges[name][1] * factor) for name in names or ranges}
    )


def shifted(content: bytes) -> bytes:
    return edited(content, dense_weights=lambda w: np.roll(w, 1, 0), dense_bias=lambda b: np.roll(b, 1, 0))


def favoured(bias: npt.NDArray[Any]) -> npt.NDArray[Any]:
    bias = bias.copy()
    bias[2] += 60
    return bias


def noisy(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.random.default_rng(3).permuted(weights, axis=None)


SCALED_CONTRACT = metadata.InputContract(8, 8, 3, "uint8", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
CONTRACT = metadata.InputContract(8, 8, 3, "uint8")
BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an input that says 0..1": ("preprocessing", lambda: int8(tiny.classifier(), contract=SCALED_CONTRACT)),
    "channels in the other order": (
        "preprocessing",
        lambda: int8(edited(tiny.classifier(preprocessing=REVERSED), conv_weights=lambda w: w[..., ::-1])),
    ),
    "classes moved by one": ("label-offset", lambda: int8(shifted(tiny.classifier()))),
    "one class for everything": ("constant-output", lambda: int8(edited(tiny.classifier(), dense_bias=favoured))),
    "logits that are cut off": ("clipped-output", lambda: int8(tiny.classifier(), scaled(0.02, "logits"))),
    "a range that is too narrow": ("calibration-range", lambda: int8(tiny.classifier(), scaled(0.02, "conv", "mean"))),
    "a range that is too wide": ("calibration-range", lambda: int8(tiny.classifier(), scaled(300.0, "conv"))),
    "other weights": ("worst-tensors", lambda: int8(edited(tiny.classifier(), conv_weights=noisy))),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_was_broken_is_named(desk: Path, what: str) -> None:
    cause, make = BROKEN[what]
    record = judged(desk, make())
    assert record.cause is not None
    assert record.cause.cause == cause, record.tests
    assert record.cause.serious and record.cause.text and record.cause.figures
    assert "edgeeff convert --model" in record.cause.advice
    assert [test.name for test in record.tests] == [
        "preprocessing",
        "label-offset",
        "constant-output",
        "clipped-output",
        "calibration-range",
        "cut-off-biases",
        "worst-tensors",
    ]


@pytest.mark.parametrize("options", [{}, {"scheme": "float16", "input_type": "float32"}, {"contract": CONTRACT}])
@pytest.mark.parametrize("data", ["photos", None])
def test_a_healthy_file_is_said_to_be_healthy(desk: Path, options: Any, data: str | None) -> None:
    where: dict[str, Any] = {"data": desk / data} if data else {"data": None, "samples": 40}
    record = judged(desk, int8(tiny.classifier(), **options), **where)
    assert record.cause is None, record.tests
    assert record.agreement >= 0.9
    assert not any(test.found for test in record.tests)
    assert any("made by edgeeff" in note for note in record.notes) == (data is None)


def test_biases_that_are_cut_off_are_named(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As litert-quantizer leaves a channel whose weights are nothing: it always wins, and says nothing any more."""

    def off(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        changed = np.array(values)
        changed[1] = 0.0 if values.ndim > 1 else 12.0
        return changed

    content = edited(tiny.classifier(), dense_weights=off, dense_bias=off)
    (desk / "off.tflite").write_bytes(content)
    fine = judged(desk, int8(content), baseline=desk / "off.tflite")
    monkeypatch.setattr(quantize_module, "MOST_BIAS", 1 << 40)
    record = judged(desk, int8(content), baseline=desk / "off.tflite")
    assert fine.cause is None
    assert record.cause is not None
    assert record.cause.cause == "cut-off-biases"
    assert "1 biases of 1 layers are cut off at the end of int32" in record.cause.text


def test_the_evidence_is_in_the_text(desk: Path) -> None:
    offset = judged(desk, int8(shifted(tiny.classifier()))).cause
    assert offset is not None
    assert "class 1 of the quantized file is class 0 of the baseline" in offset.text
    swapped = judged(desk, BROKEN["channels in the other order"][1]()).cause
    assert swapped is not None
    assert "when it gets blue before red" in swapped.text
    narrow = judged(desk, BROKEN["a range that is too narrow"][1]())
    assert narrow.cause is not None
    assert "of the values cut off" in narrow.cause.text
    worst = {fault.name: fault for fault in narrow.tensors}["conv"]
    assert worst.clipped > 0.3 and worst.float_high > 10 * worst.high


def test_a_background_class_is_a_label_offset(desk: Path) -> None:
    graph = Graph(tiny.classifier(classes=6))
    names = {graph.name(index): index for index in range(len(graph.model.subgraphs[0].tensors))}
    plain = Graph(tiny.classifier())
    own = {plain.name(index): index for index in range(len(plain.model.subgraphs[0].tensors))}
    for name, background in (("dense/weights", np.zeros((1, 8))), ("dense/bias", np.full(1, -30.0))):
        values = plain.constant(own[name])
        assert values is not None
        graph.set_constant(names[name], np.concatenate([background, values]))
    record = judged(desk, int8(graph.content()))
    assert record.cause is not None and record.cause.cause == "label-offset"
    assert "it has 6 classes, the baseline 5" in record.cause.text


def test_tensors_are_matched_by_order_where_names_differ(desk: Path) -> None:
    content = int8(tiny.swish_classifier())
    float_content = tiny.swish_classifier()
    graph = Graph(content)
    for tensor in graph.model.subgraphs[0].tensors:
        tensor.name = b"renamed/" + bytes(reversed(tensor.name))
    (desk / "swish.tflite").write_bytes(float_content)
    (desk / "renamed.tflite").write_bytes(graph.content())
    (desk / "named.tflite").write_bytes(content)
    by_name = tensors.pairs(desk / "swish.tflite", desk / "named.tflite")
    by_order = tensors.pairs(desk / "swish.tflite", desk / "renamed.tflite")
    weighted = {one.name: one.model for one in by_name if not one.of_known_range}
    assert len(by_order) >= 12
    assert all(weighted[one.name] == one.model for one in by_order)


def test_a_file_of_another_network_is_an_obstacle(desk: Path) -> None:
    with pytest.raises(ModelError, match=r"has 9 classes and .* has 5: one was not made of the other"):
        judged(desk, int8(tiny.classifier(classes=9)))
    (desk / "quantized.tflite").write_bytes(int8(tiny.classifier()))
    with pytest.raises(ModelError, match=r"quantized\.tflite is quantized itself: give the float model"):
        judged(desk, int8(tiny.classifier()), baseline=desk / "quantized.tflite")
    with pytest.raises(ModelError, match=r"no \.tflite"):
        judged(desk, b"something else")


def test_bad_input_is_refused(desk: Path, tmp_path: Path) -> None:
    good = int8(tiny.classifier())
    with pytest.raises(CalibrationError, match="there is no"):
        judged(desk, good, data=tmp_path / "nowhere")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match="none of the images can be read"):
        judged(desk, good, data=tmp_path)


def test_labels_give_both_accuracies(desk: Path, tmp_path: Path) -> None:
    content = tiny.classifier()
    names = ("a", "b", "c", "d", "e")
    for number, pixels in enumerate(tiny.images(30, seed=8)):
        folder = tmp_path / "val" / names[int(tiny.run(content, pixels).argmax())]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "names.txt").write_text("\n".join(names))
    record = judged(desk, int8(content), data=tmp_path / "val", labels=tmp_path / "names.txt")
    assert record.baseline_top1 == 1.0
    assert record.top1 == record.agreement
    (tmp_path / "names.txt").write_text("\n".join("vwxyz"))
    with pytest.raises(InputError, match="none of the model's 5 labels"):
        judged(desk, int8(content), data=tmp_path / "val", labels=tmp_path / "names.txt")


def test_likeness_sees_what_is_in_the_images_only() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (50, 4)) + np.array([9, 0, 0, 0])
    other = random.normal(0, 2, (50, 4)) + np.array([9, 0, 0, 0])
    unrelated = Likeness.of(Seen(logits, True), Seen(other, True))
    assert unrelated.agreement > 0.9
    assert abs(unrelated.correlation) < 0.3
    assert Likeness.of(Seen(logits, True), Seen(logits, True)).correlation == pytest.approx(1.0)


def test_the_error_of_a_range_is_that_of_storing_the_values_in_it() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0, 1, 20000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    for low, high in ((-4.0, 4.0), (-1.0, 1.0), (-2.0, 0.5)):
        step = (high - low) / 255
        stored = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
        exact = float(np.abs(stored - values).mean())
        assert tensors.mean_error(histogram, low, high, 255) == pytest.approx(exact, rel=0.05)


def run(*arguments: object) -> Any:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, [str(one) for one in arguments], prog_name="edgeeff")


def test_the_command_shows_the_cause_and_sets_the_exit_code(desk: Path) -> None:
    (desk / "good.tflite").write_bytes(int8(tiny.classifier()))
    (desk / "bad.tflite").write_bytes(BROKEN["a range that is too narrow"][1]())
    options = ("--baseline", desk / "float.tflite", "--data", desk / "photos")
    good = run("diagnose", desk / "good.tflite", *options)
    assert good.exit_code == 0
    assert "nothing is wrong" in good.stdout
    bad = run("diagnose", desk / "bad.tflite", *options)
    assert bad.exit_code == 1
    assert "cause: calibration-range" in bad.stdout
    assert "next: " in bad.stdout and "edgeeff convert --model" in bad.stdout
    assert "bad.tflite: calibration-range" in bad.stderr
    document = json.loads(run("diagnose", desk / "bad.tflite", *options, "--json").stdout)
    assert (document["schema"], document["cause"]["cause"]) == ("edgeeff/diagnosis", "calibration-range")
    missing = run("diagnose", desk / "nothing.tflite", *options)
    assert missing.exit_code == 2
    assert "cannot read the model" in missing.stderr


@pytest.mark.accuracy
def test_the_hard_b0_with_minimum_and_maximum_is_a_matter_of_ranges(shared: Path, tmp_path: Path) -> None:
    from edgeeff.calibration import images
    from edgeeff.evaluation.classifier import open_baseline
    from edgeeff.progress import Silent

    source = shared / "models" / "efficientnetb0_imagenette.keras"
    baseline = Path(open_baseline(source, Silent()).path)
    model = finish(baseline.read_bytes())
    drawn = images.sample(images.find(shared / "data" / "imagenette" / "calibration"), 64)
    ranges = collect_ranges(model, (images.load(file.path, *model.resolution) for file in drawn.files))
    made = tmp_path / "minmax.tflite"
    made.write_bytes(quantize(model, SCHEMES["int8"], ranges, input_type="uint8", output_type="float32"))
    data = shared / "data" / "imagenette" / "evaluation"
    record = diagnose(Plan(made, source, data, samples=64))
    assert record.cause is not None and record.cause.cause == "calibration-range"
    assert record.agreement < 0.5
    assert record.top1 is not None and record.baseline_top1 is not None
    assert record.top1 < record.baseline_top1 - 0.2
