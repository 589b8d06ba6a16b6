"""The whole audit: every bad folder is told, a good one is called fit, and memory does not grow with the images."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgeeff import cli
from edgeeff.auditing.audit import Plan, audit
from edgeeff.auditing.network import Network, open_network, source_of
from edgeeff.calibration import images
from edgeeff.converters import float_model
from edgeeff.converters.convert import Calibration, Source, convert
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, RecordError
from edgeeff.progress import Silent
from edgeeff.results import AuditRecord, Leak
from tests import tiny

COUNT = 40
MADE = Calibration(samples=4, calibrator="min-max")
"""Images that edgeeff makes, and no search for the best ranges, which is not what this is about."""


def lay(folder: Path, count: int = COUNT, classes: int = 0, first: int = 0) -> Path:
    """Save images that are all different."""
    for number in range(first, first + count):
        sub = folder / f"class{number % classes}" if classes else folder
        sub.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(coarse.repeat(2, axis=0).repeat(2, axis=1)).save(sub / f"{number:04}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay(tmp_path_factory.mktemp("photos"), classes=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "swish.tflite"
    path.write_bytes(tiny.swish_classifier())
    return path


@pytest.fixture(scope="module")
def network(model: Path) -> Network:
    return open_network(Source(model=model), None, None, Silent())


def causes(record: AuditRecord) -> list[str]:
    return [finding.cause for finding in record.findings]


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, [str(one) for one in arguments], prog_name="edgeeff")


# --- By pixels --------------------------------------------------------------------------------------------------------


def test_a_good_set_is_fit(photos: Path, tmp_path: Path) -> None:
    record = audit(Plan(photos, lay(tmp_path, 5, first=100)))
    # They are smaller than what a network of 224 x 224 sees.
    assert causes(record) == ["small-images"]
    assert (record.verdict, record.leaks, record.against_images) == ("usable", (), 5)
    assert dict(record.images) == dict(images.manifest(images.find(photos)))
    assert record.pixels.classes == tuple((f"class{number}", 8) for number in range(5))
    assert record.ranges is None and record.runtime is None and record.model is None


def test_a_set_without_a_flaw_is_fit(photos: Path, network: Network) -> None:
    record = audit(Plan(photos), network)
    assert [
        cause for cause in causes(record) if cause not in {"lone-images", "more-images-matter", "unstable-ranges"}
    ] == []
    assert record.resolution == (16, 16)


def test_a_folder_of_one_image(tmp_path: Path, network: Network) -> None:
    record = audit(Plan(lay(tmp_path, 1)), network)
    assert "one-image" in causes(record)
    assert (record.verdict, record.ranges) == ("unfit", None)


@pytest.mark.parametrize(("name", "value", "cause"), [("black", 0, "scaled-images"), ("night", 9, "black-images")])
def test_a_folder_of_black_images(tmp_path: Path, name: str, value: int, cause: str) -> None:
    for number in range(40):
        pixels = np.full((300, 300, 3), value, np.uint8)
        pixels[number] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}{number}.png")
    record = audit(Plan(tmp_path))
    assert record.verdict == "unfit"
    assert record.findings[0].cause == cause


def test_every_kind_of_file_is_used_or_refused_with_its_reason(photos: Path, tmp_path: Path) -> None:
    picture = Image.open(sorted(photos.rglob("*.png"))[0])
    lay(tmp_path, 3, first=200)
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = 8
    picture.rotate(180).save(tmp_path / "turned.jpg", exif=exif)
    whole = (tmp_path / "print.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "folder.png").mkdir()
    record = audit(Plan(tmp_path))
    refused = dict(record.pixels.refused)
    assert refused.keys() == {"cut.jpg", "float.tif"}
    assert "truncated" in refused["cut.jpg"]
    assert "32-bit pixels" in refused["float.tif"]
    assert record.pixels.special == {"16-bit": 1, "CMYK": 1, "animated": 1, "turned": 1}
    assert record.pixels.images == 8
    assert "unreadable-images" in causes(record)


def test_the_same_file_many_times_runs_once(photos: Path, tmp_path: Path, network: Network) -> None:
    data = sorted(photos.rglob("*.png"))[0].read_bytes()
    for number in range(1000):
        (tmp_path / f"{number}.png").write_bytes(data)
    record = audit(Plan(tmp_path), network)
    assert (record.pixels.distinct, len(record.pixels.copies), record.ranges) == (1, 999, None)
    assert {"repeated-images", "one-image"} <= set(causes(record))


def test_the_evaluation_folder_is_the_calibration_folder(photos: Path, tmp_path: Path) -> None:
    link = tmp_path / "val"
    link.symlink_to(photos)
    for other in (photos, link):
        record = audit(Plan(photos, other))
        assert causes(record)[0] == "same-folder"
        assert (record.verdict, len(record.leaks)) == ("unfit", COUNT)


def test_images_of_the_evaluation_set_are_named(photos: Path, tmp_path: Path) -> None:
    val = lay(tmp_path / "val", 20, first=300)
    source = sorted(photos.rglob("*.png"))[3]
    (val / "same.png").write_bytes(source.read_bytes())
    Image.open(source).save(val / "again.jpg", quality=85)
    record = audit(Plan(photos, val))
    key = source.relative_to(photos).as_posix()
    assert record.leaks == (
        Leak("near", "calibration", "again.jpg", key),
        Leak("exact", "calibration", "same.png", key),
    )
    assert causes(record)[0] == "leaked-images"
    assert (
        "2 of 22 evaluation images are in the calibration set, 1 as the same file, 1 nearly" in record.findings[0].text
    )


@pytest.mark.parametrize("content", [None, "empty", "file"])
def test_what_is_no_folder_of_images_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "photos"
    if content == "empty":
        path.mkdir()
    elif content == "file":
        path.write_bytes(b"x")
    expected = {None: "there is no folder", "empty": "no image in", "file": "is no folder"}[content]
    with pytest.raises(CalibrationError, match=expected):
        audit(Plan(path))
    done = run("calibrate", "--audit", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert expected in done.stderr


def test_a_folder_in_which_nothing_can_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"no image in .* can be used: a\.jpg is no image"):
        audit(Plan(tmp_path))


def test_pillow_is_asked_for(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="Pillow"):
        audit(Plan(photos))


# --- With a network ---------------------------------------------------------------------------------------------------


def test_an_outlier_is_named(tmp_path: Path, network: Network) -> None:
    """Images of little contrast, and one of noise from black to white."""
    random = np.random.default_rng(0)
    for number in range(64):
        noise = random.normal(random.uniform(100, 150), 12, (16, 16, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number:02}.png")
    Image.fromarray(random.choice([0, 255], (16, 16, 3)).astype(np.uint8)).save(tmp_path / "noise.png")
    record = audit(Plan(tmp_path), network)
    assert record.ranges is not None
    assert record.ranges.lone[0].image == "noise.png"
    (finding,) = (one for one in record.findings if one.cause == "lone-images")
    assert "noise.png" in finding.text
    assert record.ranges.tensors == len(network.watched) > 10


def test_ranges_are_those_of_a_plain_loop(photos: Path, network: Network) -> None:
    from edgeeff.converters.quantize import collect_ranges

    record = audit(Plan(photos, samples=32), network)
    assert record.ranges is not None
    assert record.ranges.images == 32
    drawn = images.sample(images.find(photos), COUNT).files[:32]
    pixels = [images.load(file.path, 16, 16) for file in drawn]
    half, other, whole = (
        {name: max(high, 0) - min(low, 0) for name, (low, high) in collect_ranges(network.model, part).items()}
        for part in (pixels[::2], pixels[1::2], pixels[:16])
    )
    ratios = [min(half[name], other[name]) / max(half[name], other[name]) for name in network.watched]
    assert record.ranges.stability == pytest.approx(np.median(ratios), rel=1e-4)
    assert [one.images for one in record.ranges.growth] == [8, 16, 32]
    everything = collect_ranges(network.model, pixels)
    grown = [whole[name] / (max(everything[name][1], 0) - min(everything[name][0], 0)) for name in network.watched]
    assert record.ranges.growth[1].median == pytest.approx(np.median(grown), rel=1e-4)
    assert {one.block for one in record.ranges.least_stable} <= {"block1", "block2", "stem", "top", ""}


def test_class_folders_are_held_against_the_network(photos: Path, model: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(f"class{number}" for number in range(5)))
    named = open_network(Source(model=model), labels, None, Silent())
    assert "unknown-classes" not in causes(audit(Plan(photos), named))
    labels.write_text("\n".join("abcde"))
    other = open_network(Source(model=model), labels, None, Silent())
    assert "unknown-classes" in causes(audit(Plan(photos), other))
    labels.write_text("\n".join(f"class{number}" for number in range(5)))
    missing = audit(Plan(lay(tmp_path / "two", COUNT, classes=2)), named)
    (finding,) = (one for one in missing.findings if one.cause == "missing-classes")
    assert "3 of the network's 5 classes have no image: class2, class3, class4" in finding.text
    many = audit(Plan(lay(tmp_path / "many", 12, classes=6)), named)
    assert "unknown-classes" in causes(many) and many.verdict == "unfit"


def test_a_conversion_record_names_its_model(model: Path, photos: Path, tmp_path: Path) -> None:
    convert(Source(model=model), output=tmp_path / "made.tflite", calibration=MADE)
    source = source_of(tmp_path / "made.json", None, None)
    assert source == Source(model=model)
    assert source_of(None, "lite0", "none") == Source(variant="lite0", weights="none")
    record = json.loads((tmp_path / "made.json").read_text())
    for value, message in (("nowhere.keras", "is not there any more"), ("b0", "weights .* are not there any more")):
        (tmp_path / "other.json").write_text(json.dumps(record | {"source": value}))
        with pytest.raises(InputError, match=message):
            source_of(tmp_path / "other.json", None, None)
    (tmp_path / "other.json").write_text(json.dumps(record | {"source": "phi-0.5", "weights": "none"}))
    expected = Source(phi=-0.5, weights="none", classes=5, resolution=16)
    assert source_of(tmp_path / "other.json", None, None) == expected
    (tmp_path / "noise.json").write_text("{}")
    with pytest.raises(RecordError):
        source_of(tmp_path / "noise.json", None, None)


def test_memory_does_not_grow_with_the_images(network: Network, tmp_path: Path) -> None:
    """What is kept of an image is counted, so that 10,000 of them stay far below 100 MB."""
    peaks = []
    for count in (60, 180):
        folder = lay(tmp_path / str(count), count)
        tracemalloc.start()
        audit(Plan(folder, samples=count), network)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 120 * 10_000 < 50e6


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_findings_and_prints_one_record(photos: Path, model: Path, tmp_path: Path) -> None:
    shown = run("calibrate", "--audit", photos, "--model", model)
    assert shown.exit_code == 0
    assert "images " in shown.stdout and "verdict" in shown.stdout and "next: edgeeff calibrate" in shown.stdout
    document = json.loads(run("calibrate", photos, "--model", model, "--json").stdout)
    assert document["schema"] == "edgeeff/audit"
    assert document["model"]["path"] == str(model)
    assert len(document["images"]) == COUNT
    assert document["ranges"]["images"] == COUNT


def test_the_gate_sets_the_exit_code(photos: Path, tmp_path: Path) -> None:
    assert run("calibrate", "--audit", photos, "--fail-on", "serious").exit_code == 0
    refused = run("calibrate", "--audit", photos, "--fail-on", "any")
    assert refused.exit_code == 1
    assert "--fail-on any: small-images" in refused.stderr
    assert run("calibrate", lay(tmp_path, 1), "--fail-on", "serious").exit_code == 1
    assert run("calibrate", "--audit", lay(tmp_path, 1)).exit_code == 0


def test_one_network_is_named(photos: Path, model: Path) -> None:
    both = run("calibrate", photos, "--model", model, "--variant", "lite0")
    assert (both.exit_code, both.stdout) == (2, "")
    assert "give one of them" in both.stderr


def test_folders_are_refused_before_a_network_is_built(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("this should have been refused before")

    monkeypatch.setattr(float_model, "finish", work)
    assert run("calibrate", tmp_path / "nowhere", "--model", model).exit_code == 2
    assert run("calibrate", lay(tmp_path, 2), "--against", tmp_path / "nowhere", "--model", model).exit_code == 2


# --- Inside convert ---------------------------------------------------------------------------------------------------


def converted(model: Path, folder: Path, **options: Any) -> Any:
    return convert(
        Source(model=model),
        calibration=Calibration(folder, calibrator="min-max", **options),
        output=folder.parent / "made.tflite",
    )


def test_convert_says_what_its_calibration_images_are_like(model: Path, photos: Path, tmp_path: Path) -> None:
    record = convert(
        Source(model=model),
        calibration=Calibration(photos, samples=32, calibrator="min-max"),
        output=tmp_path / "made.tflite",
    )
    survey = record.calibration.survey
    assert survey is not None
    assert (survey.images, survey.distinct, survey.findings) == (32, 32, ())
    drawn = images.sample(images.find(photos), 32).files
    assert record.calibration.images == images.manifest(drawn)
    made = convert(Source(model=model), calibration=MADE, output=tmp_path / "made.tflite")
    assert made.calibration.survey is None


def test_convert_warns_of_one_image(model: Path, tmp_path: Path) -> None:
    warnings = converted(model, lay(tmp_path / "photos", 1)).warnings
    assert any(warning.startswith("one-image: there is 1 distinct image only") for warning in warnings)


def test_convert_names_black_images(model: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path / "photos", 6)
    Image.new("RGB", (20, 20)).save(folder / "night.png")
    warnings = converted(model, folder).warnings
    assert any("1 of 7 images is black (no value above 15 of 255): night.png" in warning for warning in warnings)


def test_convert_of_black_images_only_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(20):
        Image.new("RGB", (20, 20), (number % 2, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    warnings = converted(model, tmp_path / "photos").warnings
    assert any("they were divided by 255 before saving" in warning for warning in warnings)
    assert any(warning.startswith("repeated-images") for warning in warnings)


def test_convert_names_copies(model: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path / "photos", 1)
    for number in range(50):
        (folder / f"copy{number}.png").write_bytes((folder / "0000.png").read_bytes())
    warnings = converted(model, folder).warnings
    assert any("50 images of 51 repeat another one (50 the same file, 0 nearly so)" in warning for warning in warnings)


def test_convert_refuses_a_broken_image_by_name(model: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path / "photos", 3)
    whole = (folder / "0001.png").read_bytes()
    (folder / "0001.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CalibrationError, match=r"cannot read the image .*0001\.png"):
        converted(model, folder)
    assert not (tmp_path / "made.tflite").exists()
