"""The steps in order: what goes into the file, what into its record, and what is refused before any work is done."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from edgeeff import cli, results
from edgeeff.calibration import images, synthetic
from edgeeff.calibration.ranges import RULES
from edgeeff.converters import convert as module
from edgeeff.converters import distill, float_model, metadata, mixed, quantize, recover, timing, verify
from edgeeff.converters.convert import Calibration, Interface, Source, convert, default_output
from edgeeff.converters.edgetpu import exact
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session
from edgeeff.devices import targets
from edgeeff.devices.targets import Target
from edgeeff.errors import (
    CalibrationError,
    DroppedError,
    EdgeeffError,
    InputError,
    MissingExtraError,
    ModelError,
    OutputError,
    UnknownNameError,
    VerificationError,
    WeightsError,
)
from edgeeff.results import ConversionRecord, Goal, TimedOn, this_device
from tests import tiny
from tests.test_mixed import made_up

Image = npt.NDArray[np.uint8]
FEW = Calibration(samples=8)
OLD = b"the old file"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "flowers.tflite"
    path.write_bytes(tiny.classifier())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 images in two class folders."""
    from PIL import Image as Pictures

    folder = tmp_path / "photos"
    for index, pixels in enumerate(tiny.images(40, size=12)):
        file = folder / ("rose", "tulip")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Pictures.fromarray(pixels).save(file)
    return folder


class Watch:
    """Which images set the ranges, and which verified the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calibrated: list[bytes] = []
        self.probed: list[bytes] = []
        collect, check = quantize.collect_ranges, verify.verify

        def watched_collect(float_model: FloatModel, given: Iterable[Image], **options: Any) -> quantize.Ranges:
            taken = list(given)
            self.calibrated += [image.tobytes() for image in taken]
            return collect(float_model, taken, **options)

        def watched_verify(content: bytes, scheme: Any, float_model: FloatModel, probes: Any) -> verify.Verification:
            self.probed += [image.tobytes() for image in probes]
            return check(content, scheme, float_model, probes)

        monkeypatch.setattr(quantize, "collect_ranges", watched_collect)
        monkeypatch.setattr(verify, "verify", watched_verify)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a model is read or built."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("this should have been refused before")

    monkeypatch.setattr(module, "_float_model", work)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- What is to be converted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of --variant NAME, --phi NUMBER or --model PATH"),
        ({"variant": "b0", "phi": 1.0}, "exactly one of"),
        ({"variant": "b0", "model": Path("x.keras")}, "exactly one of"),
        ({"model": Path("x.keras"), "weights": "none"}, "a model file brings its own"),
        ({"model": Path("x.keras"), "classes": 3}, "a model file brings its own"),
        ({"variant": "b0", "classes": 1}, "a classifier has at least 2 classes, not 1"),
        ({"phi": 0.0, "classes": 0}, "at least 2 classes, not 0"),
    ],
)
def test_a_source_is_one_thing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Source(**options)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Source(variant="v2-b0"), "v2-b0_int8.tflite"),
        (Source(phi=0.5), "phi0.5_int8.tflite"),
        (Source(phi=-1.0), "phi-1_int8.tflite"),
        (Source(model=Path("models/my.flowers.keras")), "my.flowers_int8.tflite"),
        (Source(model=Path("models/saved")), "saved_int8.tflite"),
    ],
)
def test_the_file_is_named_after_what_it_is_made_of(source: Source, name: str) -> None:
    assert str(default_output(source, "int8")) == name


def test_a_folder_without_a_name_has_one_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers" / "variables").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "flowers" / "variables")
    assert str(default_output(Source(model=Path()), "int8")) == "variables_int8.tflite"
    assert str(default_output(Source(model=Path("..")), "int8")) == "flowers_int8.tflite"


@pytest.mark.usefixtures("no_work")
def test_unknown_names_suggest_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown variant 'lit0': did you mean lite0"):
        convert(Source(variant="lit0"), output=tmp_path / "x.tflite")
    with pytest.raises(UnknownNameError, match="unknown scheme 'int9': did you mean int8"):
        convert(Source(variant="lite0"), scheme="int9", output=tmp_path / "x.tflite")
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output": "x.keras"}, InputError, r"x\.keras does not end in \.tflite"),
        ({"output": "missing/x.tflite"}, OutputError, "the folder does not exist; create it"),
        ({"output": "folder.tflite"}, OutputError, "it is a folder; give a file name"),
        ({"output": "flowers.tflite"}, InputError, "is the model itself, which would be lost"),
        ({"output": "link.tflite"}, InputError, "is the model itself, which would be lost"),
        ({"output": "config.tflite"}, OutputError, r"config\.json is there already and no record of edgeeff"),
        ({"output": "noise.tflite"}, OutputError, r"noise\.json is there already and no record of edgeeff"),
        ({"threads": 0}, InputError, "cannot calibrate with 0 threads"),
        ({"interface": Interface(labels=Path("names.txt"))}, InputError, r"cannot read the labels names\.txt"),
        ({"calibration": Calibration(Path("nowhere"))}, CalibrationError, "there is no folder nowhere"),
        ({"calibration": Calibration(Path("empty"))}, CalibrationError, "no image in empty"),
        ({"calibration": Calibration(Path("photos"))}, CalibrationError, r"images of one class only \(rose\)"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    options: dict[str, Any],
    error: type[EdgeeffError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.tflite", "empty", "photos/rose"):
        Path(folder).mkdir(parents=True)
    Path("photos/rose/1.png").write_bytes(b"")
    Path("link.tflite").symlink_to(model)
    Path("config.json").write_text('{"class_name": "Functional"}')
    Path("noise.json").write_bytes(b"\xff\x00")
    before = tree(tmp_path)
    output = Path(options.pop("output", "made.tflite"))
    with pytest.raises(error, match=message) as caught:
        convert(Source(model=model), output=output, **options)
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(variant="lite3"), "the ImageNet weights of lite3 are in no package"),
        (Source(phi=0.5, weights="imagenet"), "nobody published ImageNet weights of phi0.5"),
        (Source(variant="lite0", weights="nowhere.npz"), "there is no weights file nowhere.npz"),
        (Source(variant="lite0", weights=str(Path(__file__))), "test_convert.py is of no kind that is known here"),
    ],
)
def test_weights_that_cannot_be_had_are_told_before_any_work(source: Source, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)):
        convert(source, output=tmp_path / "made.tflite")


@pytest.mark.parametrize("samples", [0, -5])
def test_no_images_cannot_calibrate(samples: int) -> None:
    with pytest.raises(CalibrationError, match=f"cannot calibrate with {samples} images: take 1 or more"):
        Calibration(samples=samples)


def test_a_missing_package_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = float_model.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "litert_quantizer" else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"litert_quantizer.*install 'edgeeff\[host\]'") as caught:
        convert(Source(variant="lite0"), output=tmp_path / "x.tflite")
    assert caught.value.exit_code == 4
    assert tree(tmp_path) == {}


# --- Models that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.keras", None, "there is no such file or folder"),
        ("missing.tflite", None, "No such file or directory"),
        ("model.pt", b"x", r"cannot tell what .*model\.pt is by its name: give a \.keras or \.h5 file"),
        ("model", b"x", "cannot tell what .*model is by its name"),
        ("model.tflite", b"", "it is empty"),
        ("model.tflite", b"PK\x03\x04 and so on", r"but a zip archive, as \.keras files are"),
        ("model.tflite", tiny.classifier()[:300], "damaged|cut off"),
        ("model.TFLITE", tiny.classifier()[:300], "damaged|cut off"),
    ],
)
def test_a_model_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        convert(Source(model=path), output=tmp_path / "made.tflite", calibration=FEW)
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before


def test_a_folder_is_no_tflite_file(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(ModelError, match=r"cannot read the model .*model\.tflite: Is a directory"):
        convert(Source(model=tmp_path / "model.tflite"), output=tmp_path / "made.tflite")


def test_another_resolution_than_the_files_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="takes 8 x 8 pixels, --resolution says 32: leave --resolution away"):
        convert(Source(model=model, resolution=32), output=tmp_path / "made.tflite")
    convert(Source(model=model, resolution=8), output=tmp_path / "made.tflite", calibration=FEW)


def test_an_output_type_that_cannot_be_is_refused_before_calibrating(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "collect_ranges", None)
    with pytest.raises(InputError, match="--output-type uint8 with logits needs their range"):
        convert(
            Source(model=model),
            scheme="int16x8",
            interface=Interface(output_type="uint8", head="logits"),
            output=tmp_path / "made.tflite",
        )


# --- What comes out ---------------------------------------------------------------------------------------------------


def converted(model: Path, **options: Any) -> tuple[Path, ConversionRecord]:
    output = model.parent / "made.tflite"
    return output, convert(Source(model=model), output=output, **({"calibration": FEW} | options))


def test_the_record_is_about_the_file(model: Path) -> None:
    output, record = converted(model)
    content = output.read_bytes()
    assert record.model == results.ModelFile(str(output), hashlib.sha256(content).hexdigest(), len(content))
    assert record.source == str(model)
    assert record.source_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (record.scheme, record.weights, record.classes) == ("int8", "as in the model", 5)
    assert record.edge_tpu is None
    assert (record.resolution, record.output) == ((8, 8), "softmax")
    session = Session(content)
    assert (record.input_contract, record.output_contract) == (session.input, session.output)
    assert (record.input_contract.dtype, record.output_contract.dtype) == ("uint8", "float32")
    assert record.macs == 8 * 8 * 3 + 4 * 4 * 8 * 27 + 8 * 5
    assert record.float_size_bytes > 0
    assert record.runtime is not None
    assert record.runtime.name == "ai-edge-litert"
    assert {"ai-edge-litert", "litert-quantizer", "numpy"} <= record.packages.keys()
    assert list(record.seconds) == [
        "prepare the graph",
        "calibrate with 8 synthetic images",
        "quantize to int8",
        "verify",
    ]
    assert [check.name for check in record.checks][-2:] == ["agrees with float", "XNNPACK"]
    assert "operators in 1 partition(s)" in record.checks[-1].detail


def test_the_record_is_written_beside_the_file_and_reads_back(model: Path) -> None:
    output, record = converted(model)
    written = output.with_suffix(".json")
    assert results.read_record(written) == record
    assert written.read_text() == results.to_json(record)
    assert sorted(path.name for path in model.parent.iterdir()) == ["flowers.tflite", "made.json", "made.tflite"]


def test_the_same_again_gives_the_same_file(model: Path) -> None:
    first = converted(model)[0].read_bytes()
    assert converted(model)[0].read_bytes() == first
    assert converted(model, calibration=replace(FEW, seed=1))[0].read_bytes() != first


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_no_folder_of_this_machine_is_in_the_file(model: Path, photos: Path, scheme: str) -> None:
    output, record = converted(model, scheme=scheme, calibration=Calibration(photos, samples=8))
    content = output.read_bytes()
    for folder in (model.parent.name, str(Path.cwd()), str(Path.home()), "photos"):
        assert folder.encode() not in content
    embedded = metadata.read(content)
    assert embedded is not None
    assert embedded.provenance is not None
    assert embedded.provenance["source"] == "flowers.tflite"
    assert record.source == str(model)  # the record stays here


def test_a_weights_file_is_named_without_its_folder() -> None:
    source = Source(variant="lite0", weights="/home/me/lite0.npz")
    assert module._weights(source) == "/home/me/lite0.npz"
    assert Path(module._weights(source)).name == "lite0.npz"
    assert module._weights(Source(variant="lite0")) == "imagenet"
    assert module._weights(Source(phi=1.0)) == "none"


@pytest.mark.parametrize(("head", "name"), [("softmax", b"probability"), ("logits", b"logit")])
def test_the_scores_are_called_what_they_are(model: Path, head: float_model.Head, name: bytes) -> None:
    output, record = converted(model, interface=Interface(head=head))
    assert record.output == head
    content = output.read_bytes()
    assert name + b" of each class" in content
    other = {b"probability", b"logit"} - {name}
    assert other.pop() + b" of each class" not in content


@pytest.mark.parametrize("input_type", ["uint8", "int8", "float32"])
def test_the_metadata_say_what_the_input_takes(model: Path, input_type: quantize.IoType) -> None:
    output, _ = converted(model, interface=Interface(input_type=input_type))
    embedded = metadata.read(output.read_bytes())
    assert embedded is not None
    assert embedded.contract == metadata.InputContract(8, 8, 3, input_type)


def test_what_is_verified_is_what_is_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    check = verify.verify

    def watched(content: bytes, *rest: Any) -> verify.Verification:
        seen.append(content)
        return check(content, *rest)

    monkeypatch.setattr(verify, "verify", watched)
    output, _ = converted(model)
    assert seen == [output.read_bytes()]


def test_stages_and_steps_are_told(model: Path) -> None:
    told: list[str] = []

    class Told:
        def stage(self, text: str, total: int = 0, unit: str = "") -> None:
            told.append(f"{text} {total}")

        def tick(self) -> None:
            told.append("tick")

    converted(model, calibration=Calibration(samples=3), progress=Told())
    assert told == [
        "prepare the graph 0",
        "calibrate with 3 synthetic images 3",
        *["tick"] * 3,
        "quantize to int8 0",
        "verify 0",
    ]


# --- Labels -----------------------------------------------------------------------------------------------------------


def labels_of(path: Path) -> tuple[str, ...] | None:
    embedded = metadata.read(path.read_bytes())
    assert embedded is not None
    return embedded.labels


def test_labels_go_into_the_file_and_stay_when_it_is_converted_again(model: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("daisy\nrose\ntulip\nlily\norchid\n")
    first, _ = converted(model, scheme="float32", interface=Interface(labels=names))
    assert labels_of(first) == ("daisy", "rose", "tulip", "lily", "orchid")
    again = tmp_path / "again.tflite"
    convert(Source(model=first), output=again, calibration=FEW)
    assert labels_of(again) == labels_of(first)
    names.write_text("a\nb\nc\nd\ne\n")
    convert(Source(model=first), output=again, calibration=FEW, interface=Interface(labels=names))
    assert labels_of(again) == ("a", "b", "c", "d", "e")


def test_without_labels_none_are_made_up(model: Path) -> None:
    assert labels_of(converted(model)[0]) is None


def test_a_wrong_number_of_labels_names_both_numbers(model: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("daisy\nrose\ntulip\n")
    with pytest.raises(InputError, match="have 3 names, the model has 5 classes"):
        converted(model, interface=Interface(labels=names))
    assert not (tmp_path / "made.tflite").exists()


@pytest.mark.parametrize(("classes", "first"), [(1000, "tench"), (1001, "background"), (10, None)])
def test_imagenet_names_are_for_networks_of_imagenets_classes(classes: int, first: str | None) -> None:
    described = replace(float_model.finish(tiny.classifier()), classes=classes)
    found = module._labels(Source(variant="lite0"), Interface(), described, None)
    assert (found[0] if found else None) == first
    assert found is None or len(found) == classes
    assert module._labels(Source(phi=1.0), Interface(), described, None) is None


def test_a_float_file_without_preprocessing_converts_again(tmp_path: Path) -> None:
    model = tmp_path / "raw.tflite"
    model.write_bytes(tiny.classifier(preprocessing=()))
    with pytest.raises(ModelError, match="--input-range"):
        converted(model)
    first, _ = converted(model, scheme="float32", interface=Interface(input_range=(0.0, 255.0)))
    again = tmp_path / "again.tflite"
    convert(Source(model=first), output=again, calibration=FEW)
    image = tiny.images(1)[0]
    np.testing.assert_allclose(
        Session(again.read_bytes()).run(image), Session(first.read_bytes()).run(image), atol=0.05
    )


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_synthetic_images_are_said_to_be_that(model: Path, watch: Watch) -> None:
    _, record = converted(model, calibration=Calibration(samples=24, seed=5))
    use = record.calibration
    assert (use.kind, use.count, use.seed, use.folder, use.images) == ("synthetic", 24, 5, None, ())
    assert "made by edgeeff" in use.note
    assert any("24 synthetic images made by edgeeff" in warning for warning in record.warnings)
    assert len(watch.calibrated) == 24
    assert len(watch.probed) == 16
    assert not set(watch.calibrated) & set(watch.probed)


def test_where_plain_ranges_do_not_do_others_are_searched(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_ENOUGH", -1.0)  # as with swish
    _, record = converted(model, calibration=Calibration(samples=24, effort="thorough"))
    use = record.calibration
    assert (use.kind, use.count, use.distilled) == ("synthetic", 24, 0)
    assert "24 dead leaves; what the network was trained with is known of Keras models alone" in use.note
    assert record.recovery is not None
    assert (record.recovery.effort, record.recovery.chosen) == ("quick", use.method)
    assert converted(model, calibration=Calibration(samples=24, calibrator="min-max"))[1].recovery is None


@pytest.mark.parametrize(("made", "count", "effort"), [(40, 40, "thorough"), (16, 32, "thorough"), (15, 40, "quick")])
def test_images_that_the_network_asks_for_come_first(
    model: Path, monkeypatch: pytest.MonkeyPatch, made: int, count: int, effort: str
) -> None:
    given: dict[str, Any] = {}

    def recovered(model: FloatModel, images: list[Image], effort: str, *rest: Any, **options: Any) -> Any:
        given.update(images=images, effort=effort, **options)
        return original(model, images, "quick", *rest, **options)

    def distilled(model: FloatModel, count: int, seed: int, *_: Any) -> tuple[list[Image], str]:
        return tiny.images(made, seed=3), "" if made == count else "more take too long"

    original = recover.recover
    monkeypatch.setattr(module, "PLAIN_ENOUGH", -1.0)
    monkeypatch.setattr(recover, "recover", recovered)
    monkeypatch.setattr(distill, "images", distilled)
    _, record = converted(model, calibration=Calibration(samples=40, effort="thorough", seed=2))
    assert (record.calibration.count, record.calibration.distilled) == (count, made)
    assert f"{made} from batch-normalization statistics" in record.calibration.note
    np.testing.assert_array_equal(given["images"][:made], tiny.images(made, seed=3))
    leaves = list(synthetic.images(count, 8, 8, seed=2))[made:]
    assert [image.tobytes() for image in given["images"][made:]] == [image.tobytes() for image in leaves]
    # Where enough of them show classes, the logits need no room for one, and weights may learn from them.
    assert (given["effort"], given["synthetic"]) == (effort, made < module.FEWEST_TAUGHT)


def test_a_folder_gives_images_for_the_ranges_and_others_to_verify_with(
    model: Path, photos: Path, watch: Watch
) -> None:
    _, record = converted(model, calibration=Calibration(photos, samples=20, calibrator="min-max"))
    use = record.calibration
    assert (use.kind, use.count, use.folder, use.note) == ("folder", 20, str(photos), "")
    drawn = images.sample(images.find(photos), 36).files
    assert use.images == images.manifest(drawn[:20])
    assert watch.calibrated == [images.load(file.path, 8, 8).tobytes() for file in drawn[:20]]
    assert watch.probed == [images.load(file.path, 8, 8).tobytes() for file in drawn[20:]]
    assert not any("synthetic" in warning for warning in record.warnings)


def test_few_images_left_still_verify(model: Path, photos: Path, watch: Watch) -> None:
    _, record = converted(model, calibration=Calibration(photos, samples=37, calibrator="min-max"))
    assert (record.calibration.note, record.agreement.images) == ("", 3)
    assert not set(watch.calibrated) & set(watch.probed)


@pytest.mark.parametrize(("samples", "note"), [(40, ""), (41, "41 asked for, 40 found; "), (128, "128 asked for, 40 ")])
def test_when_no_image_is_left_the_record_says_so(
    model: Path, photos: Path, watch: Watch, samples: int, note: str
) -> None:
    _, record = converted(model, calibration=Calibration(photos, samples=samples, calibrator="min-max"))
    assert record.calibration.count == 40
    assert record.calibration.note.startswith(note)
    assert record.calibration.note.endswith("verified on images out of these, for want of others")
    assert set(watch.probed) <= set(watch.calibrated)


def test_a_scheme_without_calibration_still_verifies_on_the_folder(model: Path, photos: Path, watch: Watch) -> None:
    _, record = converted(model, scheme="float16", calibration=Calibration(photos, samples=20, calibrator="min-max"))
    assert (record.calibration.kind, record.calibration.count) == ("none", 0)
    assert watch.calibrated == []
    assert len(watch.probed) == 16


def test_a_seed_draws_other_images(model: Path, photos: Path) -> None:
    first = converted(model, calibration=Calibration(photos, samples=10, calibrator="min-max"))[1].calibration.images
    assert (
        converted(model, calibration=Calibration(photos, samples=10, calibrator="min-max"))[1].calibration.images
        == first
    )
    assert (
        converted(model, calibration=Calibration(photos, samples=10, seed=1, calibrator="min-max"))[
            1
        ].calibration.images
        != first
    )


def test_a_folder_is_worth_looking_for_the_best_ranges(model: Path, photos: Path) -> None:
    _, record = converted(model, calibration=Calibration(photos, samples=20))
    assert record.recovery is not None
    assert record.calibration.method == record.recovery.chosen == "min/max"  # which is good enough for this one
    assert (record.recovery.calibration_images, record.recovery.judging_images) == (15, 5)
    assert converted(model, calibration=Calibration(samples=20))[1].recovery is None


def test_ranges_are_chosen_by_the_rule_that_is_asked_for(model: Path, photos: Path) -> None:
    output, record = converted(model, calibration=Calibration(photos, samples=20, calibrator="percentile-99.9"))
    assert record.calibration.method == "percentile 99.9"
    assert record.recovery is not None and len(record.recovery.attempts) == 1
    content = output.read_bytes()
    converted(model, calibration=Calibration(photos, samples=20, calibrator="min-max"))
    assert output.read_bytes() != content


@pytest.mark.parametrize(("changes", "message"), [({"calibrator": "l3"}, "l2"), ({"effort": "quik"}, "quick")])
def test_unknown_calibrators_and_efforts_are_told_the_nearest(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        Calibration(**changes)


def test_what_is_no_image_is_named_and_nothing_is_written(model: Path, photos: Path) -> None:
    (photos / "rose" / "notes.jpg").write_text("no image")
    before = tree(model.parent)
    with pytest.raises(CalibrationError, match=r"notes\.jpg is no image that can be read") as caught:
        converted(model, calibration=Calibration(photos))
    assert caught.value.exit_code == 2
    assert tree(model.parent) == before


# --- Mixed precision --------------------------------------------------------------------------------------------------


class MadeUp:
    """A board on which int8 operators are fast."""

    def __init__(self, content: bytes, _image: Image, board: Target, threads: int) -> None:
        if board.name == "lost":
            raise DroppedError("the connection to lost was lost")
        self.on = TimedOn(board.name, replace(this_device(), emulated=board.emulated), None, threads)
        self.float_s = made_up(content)

    def times(self, contents: Iterable[bytes], repeats: int = 1) -> Iterator[float]:
        return map(made_up, contents)


@pytest.fixture
def swish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of blocks, and boards to time it on."""
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    for name in ("pi4", "lost"):
        targets.add(Target(name, f"ssh://pi@{name}", emulated=name == "pi4"))
    targets.add(Target("stick", "ssh://pi@stick", board="coral-usb-on-pi"))
    monkeypatch.setattr(timing, "timer", MadeUp)
    path = tmp_path / "desk" / "gated.tflite"
    path.parent.mkdir()
    path.write_bytes(tiny.swish_classifier())
    return path


@pytest.fixture(scope="module")
def explored() -> mixed.Exploration:
    """What there is between float and int8 for that network, found once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed, "LOOSER", (0.5,))
        patch.setattr(mixed, "MIXES", 1.1)
        model = float_model.finish(tiny.swish_classifier())
        timer = MadeUp(model.content, tiny.images(1)[0], Target("pi4", "ssh://pi@pi4", emulated=True), 1)
        return mixed.explore(model, tiny.images(20, size=16), timer=timer, rule=RULES[0])


@pytest.fixture
def known(explored: mixed.Exploration, monkeypatch: pytest.MonkeyPatch) -> None:
    def explore(*_: object, timer: MadeUp, **__: object) -> mixed.Exploration:
        return replace(explored, timed_on=timer.on)

    monkeypatch.setattr(mixed, "explore", explore)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scheme": "mixed"},
            "--scheme mixed needs a goal: give --min-agreement PERCENT, --max-drop POINTS or --max-la",
        ),
        ({"scheme": "int8", "goal": Goal(max_drop=1.0)}, "--scheme int8 has no precisions to mix for a goal"),
        ({"goal": Goal()}, "say what mixed precision has to reach"),
        ({"target": "pi4"}, "--target is where the latencies for a goal are measured"),
        ({"goal": Goal(max_drop=1.0), "target": "stick"}, "full int8 only: convert with --edge-tpu, without a goal"),
        ({"goal": Goal(max_drop=1.0), "target": "coral-dev-board"}, "Edge TPU"),
        ({"goal": Goal(max_drop=1.0), "target": "pi9"}, "unknown target 'pi9': did you mean pi4"),
        ({"goal": Goal(max_drop=1.0), "target": "raspberry-pi-5"}, "not one that it can reach"),
    ],
)
def test_goals_that_do_not_go_with_the_rest_are_refused(swish: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        convert(Source(model=swish), output=swish.with_name("made.tflite"), **options)
    assert list(tree(swish.parent)) == ["gated.tflite"]


@pytest.mark.usefixtures("known")
def test_a_goal_mixes_precisions(
    swish: Path, photos: Path, explored: mixed.Exploration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(swish.parent)
    goal = Goal(max_latency=0.8)
    record = convert(Source(model=swish), goal=goal, target="pi4", calibration=Calibration(photos, samples=20))
    assert (record.scheme, record.model.path) == ("mixed", "gated_mixed.tflite")
    found = record.mixed
    assert found is not None
    assert (found.goal, found.met, found.shortfall) == (goal, True, None)
    assert found.chosen.static or found.chosen.dynamic
    assert [replace(point, chosen=False) for point in found.points] == list(explored.points)
    assert (found.timed_on.target, found.timed_on.threads) == ("pi4", 1)
    assert record.calibration.method == "min/max, wider by block"
    assert record.recovery is None
    assert results.read_record(Path("gated_mixed.json")) == record
    assert any(warning.startswith("EMULATED") for warning in record.warnings)
    assert not any("show no class" in warning for warning in record.warnings)
    session = Session(Path("gated_mixed.tflite").read_bytes())
    assert (session.input.dtype, session.output.dtype) == ("uint8", "float32")
    embedded = metadata.read(Path("gated_mixed.tflite").read_bytes())
    assert embedded is not None and embedded.provenance is not None
    assert embedded.provenance["scheme"] == "mixed"


@pytest.mark.usefixtures("known")
def test_of_a_goal_that_is_not_met_the_closest_is_kept(swish: Path) -> None:
    output, record = converted(swish, goal=Goal(min_agreement=1.0, max_latency=0.01))
    assert record.mixed is not None
    assert not record.mixed.met
    assert record.mixed.shortfall is not None
    assert record.model.size_bytes == output.stat().st_size
    assert any("images that show no class, which says little" in warning for warning in record.warnings)


def test_a_board_that_is_lost_leaves_the_old_file(swish: Path) -> None:
    converted(swish, scheme="float16")
    before = tree(swish.parent)
    with pytest.raises(DroppedError) as caught:
        converted(swish, goal=Goal(max_latency=0.5), target="lost")
    assert caught.value.exit_code == 3
    assert tree(swish.parent) == before


# --- For the Edge TPU -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scheme": "float16"},
            "--edge-tpu does not go with --scheme float16, the Edge TPU computes in full int8 only",
        ),
        ({"scheme": "mixed"}, "--edge-tpu does not go with --scheme mixed"),
        ({"scheme": "int9"}, "unknown scheme 'int9': did you mean int8"),
        ({"goal": Goal(max_drop=1.0)}, "leave --min-agreement, --max-drop, --max-latency and --target away"),
        ({"target": "pi4"}, "leave --min-agreement, --max-drop, --max-latency and --target away"),
        ({"interface": Interface(input_type="float32")}, "--edge-tpu does not go with --input-type float32"),
        ({"interface": Interface(output_type="float32")}, "say uint8 or int8, or leave --output-type away"),
    ],
)
def test_what_contradicts_the_edge_tpu_is_refused(model: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        convert(Source(model=model), output=model.with_name("made.tflite"), edge_tpu=True, **options)
    assert caught.value.exit_code == 2
    assert list(tree(model.parent)) == ["flowers.tflite"]


def test_the_command_says_no_too(model: Path) -> None:
    done = CliRunner().invoke(cli.main, ["convert", "--model", str(model), "--edge-tpu", "--scheme", "float16"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--edge-tpu does not go with --scheme float16" in done.stderr


@pytest.mark.parametrize(
    ("interface", "types"),
    [
        (Interface(), ("uint8", "uint8")),
        (Interface(input_type="int8", head="logits"), ("int8", "int8")),
    ],
)
def test_a_file_for_the_edge_tpu_is_one_that_nothing_is_known_against(
    model: Path, interface: Interface, types: tuple[str, str]
) -> None:
    output, record = converted(model, edge_tpu=True, interface=interface)
    assert (record.scheme, record.input_contract.dtype, record.output_contract.dtype) == ("int8", *types)
    forecast = record.edge_tpu
    assert forecast is not None
    assert (forecast.verdict, forecast.cpu.operators) == ("whole", 0)
    assert {line.name for line in forecast.operators}.isdisjoint({"FULLY_CONNECTED", "DEQUANTIZE"})
    assert results.read_record(output.with_suffix(".json")) == record
    assert record.agreement.correlation > 0.9
    assert not any("Edge TPU" in warning for warning in record.warnings)


def test_a_poor_fit_is_told_and_what_is_made_for_the_edge_tpu(swish: Path) -> None:
    _, record = converted(swish, edge_tpu=True, calibration=replace(FEW, calibrator="min-max"))
    (advice,) = (warning for warning in record.warnings if "Edge TPU" in warning)
    assert "8 swish" in advice
    assert "lite0 to lite4 and edgetpu-s/m/l" in advice
    assert record.edge_tpu is not None
    assert record.edge_tpu.verdict == "whole"


def test_operators_that_are_left_are_named_with_what_mends_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "rewrite", lambda content: content)
    _, record = converted(model, edge_tpu=True)
    (warning,) = (warning for warning in record.warnings if "FULLY_CONNECTED" in warning)
    assert warning.startswith("the Edge TPU may not take 1 FULLY_CONNECTED (operator 6): its weights have a scale for")
    assert "edgeeff convert --edge-tpu makes it a convolution" in warning
    assert "(known from github.com/" in warning


# --- Warnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["dynamic", "int16x8"])
def test_a_slow_scheme_is_warned_of(model: Path, scheme: str) -> None:
    _, record = converted(model, scheme=scheme)
    assert record.warnings[0].startswith(f"{scheme}: ")
    assert "slow" in record.warnings[0]


def test_there_is_no_warning_without_reason(model: Path, photos: Path) -> None:
    for scheme in ("float32", "float16", "weight-only", "int8"):
        assert converted(model, scheme=scheme, calibration=Calibration(photos, samples=20))[1].warnings == ()


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        (Interface(input_type="int8"), "refuses an int8 input; uint8 says the same"),
        (Interface(output_type="int8"), "refuses an int8 output; uint8 says the same"),
        (Interface(input_type="int8", output_type="int8"), "refuses an int8 input and an int8 output;"),
    ],
)
def test_ends_that_mediapipe_refuses_are_warned_of(model: Path, interface: Interface, words: str) -> None:
    assert any(words in warning for warning in converted(model, interface=interface)[1].warnings)


def test_a_doubtful_file_is_warned_of(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = verify.verify

    def doubtful(*arguments: Any) -> verify.Verification:
        found = check(*arguments)
        return replace(found, agreement=replace(found.agreement, same_top1=0.5, correlation=0.41))

    monkeypatch.setattr(verify, "verify", doubtful)
    warning = converted(model)[1].warnings[-1]
    assert "agree on the best class of only 50% of 16 probe images, the correlation of their scores is 0.41" in warning


# --- What fails leaves things as they were ----------------------------------------------------------------------------


@pytest.fixture
def old(model: Path) -> dict[str, bytes]:
    """An older file and its record, where the new ones go."""
    converted(model)
    model.with_name("made.tflite").write_bytes(OLD)
    return tree(model.parent)


def test_a_file_that_does_not_pass_is_not_handed_over(
    model: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = quantize.quantize

    def broken(*arguments: Any, **options: Any) -> bytes:
        graph = Graph(make(*arguments, **options))
        (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
        values = np.zeros(graph.shape(int(dense.inputs[1])), np.int8)
        graph.model.buffers[graph.tensor(int(dense.inputs[1])).buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        return graph.content()

    monkeypatch.setattr(quantize, "quantize", broken)
    with pytest.raises(VerificationError, match="outputs differ: every probe image gets the same scores") as caught:
        converted(model)
    assert caught.value.exit_code == 1
    assert tree(model.parent) == old


@pytest.mark.parametrize("failing", [1, 2])
def test_when_there_is_no_space_neither_file_is_touched(
    model: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls = 0

    def full(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space is left there; free some or choose another place"):
        converted(model)
    assert calls == failing
    assert tree(model.parent) == old


@pytest.mark.parametrize("place", ["quantize.collect_ranges", "quantize.quantize", "verify.verify", "metadata.embed"])
def test_an_interruption_leaves_the_old_file(
    model: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"edgeeff.converters.{place}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        converted(model)
    assert tree(model.parent) == old


def test_broken_weights_are_a_calibration_error(tmp_path: Path, old: dict[str, bytes]) -> None:
    graph = Graph(tiny.classifier())
    (dense,) = (operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    weights = np.full(graph.shape(int(dense.inputs[1])), np.nan, np.float32)
    graph.model.buffers[graph.tensor(int(dense.inputs[1])).buffer].data = np.frombuffer(weights.tobytes(), np.uint8)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(graph.content())
    with pytest.raises(CalibrationError, match="values that are not finite, first in 'logits'"):
        converted(broken)
    with pytest.raises(VerificationError, match="finite outputs: 16 of 16"):
        converted(broken, scheme="float16")
    broken.unlink()
    assert tree(tmp_path) == old


# --- A real network ---------------------------------------------------------------------------------------------------


def test_lite0_carries_imagenets_names_and_its_provenance(lite0_int8: Path) -> None:
    record = results.read_record(lite0_int8.with_suffix(".json"))
    assert isinstance(record, ConversionRecord)
    assert (record.source, record.weights, record.classes, record.resolution) == ("lite0", "imagenet", 1000, (224, 224))
    assert {"tensorflow", "keras"} <= record.packages.keys()
    assert labels_of(lite0_int8) == metadata.imagenet_labels()
    embedded = metadata.read(lite0_int8.read_bytes())
    assert embedded is not None
    assert embedded.name == "EfficientNet lite0"
    assert embedded.provenance is not None
    assert embedded.provenance["calibration"] == {"kind": "synthetic", "count": 128, "seed": 0}
    assert lite0_int8.stat().st_size < 0.3 * record.float_size_bytes
    # Only what images made here say of themselves: a class that the network is unsure of is no reason to warn.
    assert [warning for warning in record.warnings if "synthetic" not in warning] == []


@pytest.mark.accuracy
def test_lite0_is_as_accurate_as_published_and_int8_without_data_costs_little(
    shared: Path, lite0_int8: Path, tmp_path: Path
) -> None:
    lite0_float = tmp_path / "lite0_float32.tflite"
    convert(Source(variant="lite0"), scheme="float32", output=lite0_float)
    files = images.find(shared / "data" / "imagenet-sample")
    assert len(files) == 1000  # one for each class, in the order of the classes
    sessions = [Session(path.read_bytes(), threads=2) for path in (lite0_float, lite0_int8)]
    pixels = (images.load(file.path, 224, 224) for file in files)
    best = np.array([[session.run(image).argmax() for session in sessions] for image in pixels])
    float_top1, int8_top1 = 100 * (best == np.arange(1000)[:, None]).mean(axis=0)
    print(f"Lite0 on imagenet-sample: float {float_top1:.1f} %, int8 {int8_top1:.1f} %")
    assert float_top1 == pytest.approx(88.0, abs=0.3)
    assert float_top1 - int8_top1 <= 3.0
