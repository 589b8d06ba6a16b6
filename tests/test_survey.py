"""What a calibration set is like by its pixels: every kind of file that people have in their folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgeeff.calibration import images, synthetic
from edgeeff.calibration.images import ImageFile
from edgeeff.calibration.survey import FEW, Survey, empty_classes, listed
from edgeeff.errors import CalibrationError
from edgeeff.results import SetSummary

Pixels = npt.NDArray[np.uint8]
SIDE = 48
COUNT = 32


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    """Enough different images for nothing to be wrong with them."""
    return [next(synthetic.images(1, SIDE, SIDE, seed)) for seed in range(COUNT)]


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def looked_at(contents: dict[str, bytes], empty: tuple[str, ...] = ()) -> SetSummary:
    survey = Survey(SIDE, SIDE)
    for name, data in contents.items():
        label, _, file_name = name.rpartition("/")
        file = ImageFile(Path(file_name), label or None)
        try:
            survey.add(file, data, *images.examine(data, name, SIDE, SIDE))
        except CalibrationError as error:
            survey.refuse(file, str(error))
    return survey.summary(empty)


def plain(pictures: list[Pixels]) -> dict[str, bytes]:
    return {f"{number}.png": saved(Image.fromarray(pixels)) for number, pixels in enumerate(pictures)}


def causes(summary: SetSummary) -> list[str]:
    return [finding.cause for finding in summary.findings]


def test_photographs_are_fine(pictures: list[Pixels]) -> None:
    summary = looked_at(plain(pictures))
    assert causes(summary) == []
    assert (summary.images, summary.distinct, summary.grey, summary.special) == (COUNT, COUNT, 0, {})
    values = np.stack(pictures).reshape(-1, 3).astype(float)
    assert summary.mean == pytest.approx(values.mean(axis=0), abs=1e-3)
    assert summary.std == pytest.approx(values.std(axis=0), abs=1e-3)


def test_black_white_and_flat_images_are_named(pictures: list[Pixels]) -> None:
    odd = {"night.png": 3, "fog.png": 250}
    contents = plain(pictures) | {
        name: saved(Image.new("RGB", (SIDE, SIDE), (value,) * 3)) for name, value in odd.items()
    }
    contents["wall.png"] = saved(Image.new("RGB", (SIDE, SIDE), (200, 30, 90)))
    summary = looked_at(contents)
    assert (summary.black, summary.white, summary.flat) == (("night.png",), ("fog.png",), ("wall.png",))
    assert causes(summary) == ["black-images", "white-images", "flat-images"]
    assert "1 of 35 images is black (no value above 15 of 255): night.png" in summary.findings[0].text
    assert not any(finding.serious for finding in summary.findings)


def test_many_black_images_are_serious(pictures: list[Pixels]) -> None:
    black = {f"dark{number}.png": saved(Image.new("RGB", (SIDE, SIDE), (number, 0, 0))) for number in range(8)}
    first = looked_at(plain(pictures) | black).findings[0]
    assert (first.cause, first.serious, first.figures) == ("black-images", True, {"images": 8.0})


def test_images_that_were_scaled_before_they_were_saved(pictures: list[Pixels]) -> None:
    dark = {name: saved(Image.fromarray(pixels // 255)) for name, pixels in zip("abc", pictures, strict=False)}
    summary = looked_at(dark)
    assert causes(summary)[0] == "scaled-images"
    assert "divided by 255 before saving" in summary.findings[0].text
    assert "black-images" not in causes(summary)
    nearly = {name: saved(Image.fromarray(pixels // 100)) for name, pixels in zip("abc", pictures, strict=False)}
    assert "scaled-images" not in causes(looked_at(nearly))


def test_grey_images_are_found_however_they_are_saved(pictures: list[Pixels]) -> None:
    grey = {}
    for number, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels).convert("L")
        grey[f"{number}.jpg"] = saved(picture if number % 2 else picture.convert("RGB"), "JPEG", quality=80)
    summary = looked_at(grey)
    assert summary.grey == COUNT
    assert causes(summary) == ["grey-images"]
    assert "grey-images" not in causes(looked_at(grey | {"colour.png": saved(Image.fromarray(pictures[0]))}))


def sixteen_bits(pixels: Pixels) -> bytes:
    return saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257))


def turned(pixels: Pixels) -> bytes:
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = 6
    return saved(Image.fromarray(pixels), "JPEG", exif=exif)


def animated(pixels: Pixels) -> bytes:
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


UNUSUAL: dict[str, Callable[[Pixels], bytes]] = {
    "animated": animated,
    "turned": turned,
    "CMYK": lambda pixels: saved(Image.fromarray(pixels).convert("CMYK"), "JPEG"),
    "16-bit": sixteen_bits,
    "transparent": lambda pixels: saved(Image.fromarray(np.dstack([pixels, pixels[..., :1]]))),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_files_are_used_and_counted(pictures: list[Pixels], kind: str) -> None:
    summary = looked_at(plain(pictures) | {f"{kind}.x": UNUSUAL[kind](pictures[0][:, ::-1])})
    assert summary.special == {kind: 1}
    assert summary.images == COUNT + 1
    assert summary.refused == ()


def test_sixteen_bits_of_which_the_lower_are_used_are_black(pictures: list[Pixels]) -> None:
    low = {
        f"{number}.png": saved(Image.fromarray(pixels[..., 0] * np.uint16(16)))
        for number, pixels in enumerate(pictures)
    }
    summary = looked_at(low)
    assert summary.special == {"16-bit": COUNT}
    assert "of 16-bit files the upper eight bits count" in summary.findings[0].text
    assert "scale their values to all 16 bits" in summary.findings[0].advice


def test_broken_files_are_refused_by_name_and_reason(pictures: list[Pixels]) -> None:
    whole = saved(Image.fromarray(pictures[0]), "JPEG")
    summary = looked_at(plain(pictures) | {"cut.jpg": whole[: len(whole) // 2], "text.jpg": b"hello"})
    assert [name for name, _ in summary.refused] == ["cut.jpg", "text.jpg"]
    assert "truncated" in summary.refused[0][1]
    assert causes(summary) == ["unreadable-images"]
    assert "cut.jpg" in summary.findings[0].text and "text.jpg" in summary.findings[0].text
    assert not summary.findings[0].serious
    assert looked_at({"text.jpg": b"hello"} | dict(list(plain(pictures).items())[:3])).findings[0].serious


def test_the_same_file_a_thousand_times_is_one_image(pictures: list[Pixels]) -> None:
    data = saved(Image.fromarray(pictures[0]))
    decoded = images.examine(data, "same", SIDE, SIDE)
    survey = Survey(SIDE, SIDE)
    new = [survey.add(ImageFile(Path(f"{number:04}.png")), data, *decoded) for number in range(1000)]
    assert new == [True] + [False] * 999
    summary = survey.summary()
    assert (summary.images, summary.distinct, len(summary.copies)) == (1000, 1, 999)
    assert causes(summary) == ["repeated-images", "one-image"]
    assert all(finding.serious for finding in summary.findings)
    assert "999 the same file, 0 nearly so" in summary.findings[0].text


def test_near_copies_are_counted_once(pictures: list[Pixels]) -> None:
    again = {"again.jpg": saved(Image.fromarray(pictures[3]), "JPEG", quality=70)}
    summary = looked_at(plain(pictures) | again)
    assert (summary.distinct, causes(summary)) == (COUNT, ["repeated-images"])
    assert "as again.jpg does 3.png" in summary.findings[0].text
    assert summary.copies[0].source == "calibration"


@pytest.mark.parametrize(("count", "cause"), [(1, "one-image"), (2, "few-images"), (FEW - 1, "few-images")])
def test_few_images_are_said_to_be_few(pictures: list[Pixels], count: int, cause: str) -> None:
    assert causes(looked_at(plain(pictures[:count]))) == [cause]


def test_small_images_are_counted(pictures: list[Pixels]) -> None:
    small = {f"{number}.png": saved(Image.fromarray(pixels[:20])) for number, pixels in enumerate(pictures)}
    summary = looked_at(small)
    assert summary.small == COUNT
    assert "small-images" in causes(summary)


def test_classes_are_counted_and_empty_rare_and_lone_ones_are_told(pictures: list[Pixels]) -> None:
    contents = {
        f"{'cat' if number else 'dog'}/{number}.png": data for number, data in enumerate(plain(pictures).values())
    }
    summary = looked_at(contents, ("cow",))
    assert summary.classes == (("cat", COUNT - 1), ("dog", 1), ("cow", 0))
    assert causes(summary) == ["empty-classes", "uneven-classes"]
    lone = looked_at({name.replace("dog", "cat"): data for name, data in contents.items()})
    assert causes(lone) == ["one-class"]
    assert lone.findings[0].serious


def test_empty_class_folders_are_found(tmp_path: Path) -> None:
    for name in ("a", "b", ".hidden"):
        (tmp_path / name).mkdir()
    assert empty_classes(tmp_path, [ImageFile(tmp_path / "a" / "1.png", "a")]) == ("b",)
    assert empty_classes(tmp_path, [ImageFile(tmp_path / "1.png")]) == ()


def test_an_image_that_was_seen_counts_once(pictures: list[Pixels]) -> None:
    survey = Survey(SIDE, SIDE)
    data = saved(Image.fromarray(pictures[0]))
    for _ in range(3):
        survey.add(ImageFile(Path("a.png")), data, *images.examine(data, "a", SIDE, SIDE))
    assert (survey.summary().images, survey.summary().copies) == (1, ())


def test_lists_say_how_many_more_there_are() -> None:
    assert listed(["a"]) == "a"
    assert listed(list("abcde")) == "a, b, c and 2 more"
