from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from edgeeff.calibration import audit, images, synthetic
from edgeeff.calibration.audit import Fingerprint, Fingerprints
from edgeeff.progress import Silent
from edgeeff.results import CalibrationUse, Leak

Pixels = npt.NDArray[np.uint8]
SIDE = 96


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    """Images that share no texture, larger than what the fingerprints are taken of."""
    return [next(synthetic.images(1, 120, 160, seed)) for seed in range(20)]


def saved(picture: Image.Image, kind: str = "JPEG", **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def of(data: bytes) -> Fingerprint:
    return audit.fingerprint(data, images.decode(data, "a test's image", SIDE, SIDE))


def prints(pictures: list[Pixels]) -> dict[str, Fingerprint]:
    return {f"{number}.png": of(saved(Image.fromarray(picture), "PNG")) for number, picture in enumerate(pictures)}


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG 50": lambda picture: saved(picture, quality=50),
    "JPEG 95": lambda picture: saved(picture, quality=95),
    "WebP": lambda picture: saved(picture, "WEBP", quality=80),
    "half the size": lambda picture: saved(picture.resize((80, 60), Image.Resampling.BICUBIC)),
    "larger": lambda picture: saved(picture.resize((240, 180), Image.Resampling.BICUBIC)),
    "cropped": lambda picture: saved(picture.crop((2, 1, 158, 119))),
    "mirrored": lambda picture: saved(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "darker": lambda picture: saved(ImageEnhance.Brightness(picture).enhance(0.9)),
    "brighter": lambda picture: saved(ImageEnhance.Brightness(picture).enhance(1.1)),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_near_its_original_and_no_other(pictures: list[Pixels], copy: str) -> None:
    copies = {f"copy{number}": of(COPIES[copy](Image.fromarray(picture))) for number, picture in enumerate(pictures)}
    expected = tuple(Leak("near", "train", f"copy{number}", f"{number}.png") for number in range(len(pictures)))
    assert audit.duplicates(prints(pictures), copies, "train") == expected


def test_different_pictures_are_no_copies(pictures: list[Pixels]) -> None:
    assert audit.repeats(prints(pictures)) == ()
    turned = {
        name: of(saved(Image.fromarray(np.rot90(pixels)))) for name, pixels in zip("abcde", pictures, strict=False)
    }
    assert audit.duplicates(prints(pictures), turned, "train") == ()


def test_the_hash_is_the_signs_of_the_low_frequencies(pictures: list[Pixels]) -> None:
    print_ = of(saved(Image.fromarray(pictures[0]), "PNG"))
    grey = np.frombuffer(print_.thumbnail, np.uint8).reshape(16, 16).astype(float)
    expected = ""
    for row, column in product(range(8), range(8)):
        waves = [np.cos(np.pi / 16 * (np.arange(16) + 0.5) * frequency) for frequency in (row, column)]
        expected += "1" if (grey * np.outer(*waves)).sum() > 0 and row + column > 0 else "0"
    assert f"{print_.hash:064b}" == expected


def test_the_thumbnail_is_the_mean_of_each_of_256_parts() -> None:
    random = np.random.default_rng(0)
    parts = random.integers(0, 256, (16, 16), np.uint8)
    pixels = np.repeat(np.kron(parts, np.ones((5, 3), np.uint8))[..., None], 3, axis=2)
    assert audit.fingerprint(b"", pixels).thumbnail == parts.tobytes()
    red = np.zeros((40, 33, 3), np.uint8)
    red[..., 0] = 200
    assert set(audit.fingerprint(b"", red).thumbnail) == {round(200 * 0.299)}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (17, 16), (97, 191), (1000, 3)])
def test_any_size_has_a_fingerprint(height: int, width: int) -> None:
    pixels = np.full((height, width, 3), 77, np.uint8)
    assert audit.fingerprint(b"bytes", pixels).thumbnail == bytes([77]) * 256
    assert audit.fingerprint(b"bytes", pixels).sha256 == hashlib.sha256(b"bytes").hexdigest()


def test_the_same_bytes_are_exact_whatever_is_near(pictures: list[Pixels]) -> None:
    known = prints(pictures[:3])
    near = of(saved(Image.fromarray(pictures[1])))
    new = {"other": of(saved(Image.fromarray(pictures[9]))), "near": near, "same": known["1.png"]}
    assert audit.duplicates(known, new, "train") == (
        Leak("near", "train", "near", "1.png"),
        Leak("exact", "train", "same", "1.png"),
    )
    assert audit.duplicates({"first": near, "second": near}, {"same": near}, "train") == (
        Leak("exact", "train", "same", "first"),
    )


def test_the_likest_is_named_and_of_equals_the_first(pictures: list[Pixels]) -> None:
    picture = Image.fromarray(pictures[2])
    good, poor = of(saved(picture, quality=95)), of(saved(picture.crop((3, 2, 157, 118)), quality=40))
    again = dataclasses.replace(good, sha256="1" * 64)
    new = {"new": of(saved(picture, "PNG"))}
    for known in ({"poor": poor, "good": good, "again": again}, {"good": good, "again": again, "poor": poor}):
        assert audit.duplicates(known, new, "train") == (Leak("near", "train", "new", "good"),)


def test_blocks_change_nothing(pictures: list[Pixels], monkeypatch: pytest.MonkeyPatch) -> None:
    known = prints(pictures)
    copies = {f"copy{number}": of(saved(Image.fromarray(picture))) for number, picture in enumerate(pictures)}
    whole = audit.duplicates(known, copies, "train"), audit.repeats(known | copies)
    monkeypatch.setattr(audit, "_BLOCK", (3, 2))
    assert (audit.duplicates(known, copies, "train"), audit.repeats(known | copies)) == whole
    assert len(whole[0]) == len(whole[1]) == len(pictures)


def test_pictures_of_one_colour_are_found_by_their_bytes_only() -> None:
    def plain(level: int) -> bytes:
        return saved(Image.new("RGB", (SIDE, SIDE), (level, level, level)), "PNG")

    known = {"grey": of(plain(100)), "black": of(plain(0))}
    assert audit.duplicates(known, {"a": of(plain(100)), "b": of(plain(101))}, "train") == (
        Leak("exact", "train", "a", "grey"),
    )


def test_a_set_repeats_what_came_before(pictures: list[Pixels]) -> None:
    one, two = prints(pictures[:2]).values()
    copy = of(saved(Image.fromarray(pictures[1])))
    assert audit.repeats({"cat/1": one, "cat/2": two, "dog/1": one, "dog/2": copy, "dog/3": one, "dog/4": copy}) == (
        Leak("exact", "evaluation", "dog/1", "cat/1"),
        Leak("near", "evaluation", "dog/2", "cat/2"),
        Leak("exact", "evaluation", "dog/3", "cat/1"),
        Leak("exact", "evaluation", "dog/4", "dog/2"),
    )


def test_nothing_leaks_from_or_into_nothing(pictures: list[Pixels]) -> None:
    some = prints(pictures[:2])
    assert audit.duplicates({}, some, "train") == audit.duplicates(some, {}, "train") == audit.repeats({}) == ()


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_files_are_fingerprinted_in_order_and_the_unreadable_are_listed(pictures: list[Pixels], tmp_path: Path) -> None:
    class Counting(Silent):
        ticks = 0

        def tick(self) -> None:
            self.ticks += 1

    contents = {
        f"{name}/{number}.jpg": saved(Image.fromarray(pictures[number])) for name in "ab" for number in range(4)
    }
    write(tmp_path, contents | {"a/1.jpg": b"no image"})
    files = images.find(tmp_path)
    (tmp_path / "b" / "2.jpg").unlink()
    progress = Counting()
    with ThreadPoolExecutor(2) as executor:
        found = audit.fingerprints(files, executor, height=SIDE, width=SIDE, chunk=3, progress=progress)
    assert list(found.known) == [file.key for file in files if file.key not in {"a/1.jpg", "b/2.jpg"}]
    assert all(print_ == of(contents[name]) for name, print_ in found.known.items())
    assert [name for name, _ in found.unreadable] == ["a/1.jpg", "b/2.jpg"]
    assert "no image that can be read" in found.unreadable[0][1]
    assert "No such file" in found.unreadable[1][1]
    assert progress.ticks == len(files)


def test_a_calibration_manifest_leaks_by_digest_and_by_folder(pictures: list[Pixels], tmp_path: Path) -> None:
    contents = {
        f"{name}/{number}.png": saved(Image.fromarray(pictures[number]), "PNG") for name in "ab" for number in (0, 1)
    }
    contents["b/changed.png"] = saved(Image.fromarray(pictures[3]), "PNG")
    write(tmp_path, contents)
    use = CalibrationUse("folder", 5, 0, str(tmp_path), images=images.manifest(images.find(tmp_path)))
    write(tmp_path, {"b/changed.png": saved(Image.fromarray(pictures[4]), "PNG"), "b/new.png": contents["a/0.png"]})
    (tmp_path / "a" / "0.png").unlink()
    new = {
        "same": of(contents["a/0.png"]),
        "copy": of(saved(Image.fromarray(pictures[1]))),
        "copy of what came later": of(saved(Image.fromarray(pictures[4]))),
        "was there": of(contents["b/changed.png"]),
        "other": of(saved(Image.fromarray(pictures[5]))),
    }
    files = audit.calibration_files(use)
    assert [file.key for file in files] == ["a/1.png", "b/0.png", "b/1.png", "b/changed.png"]
    with ThreadPoolExecutor(1) as executor:
        known = audit.fingerprints(files, executor, height=SIDE, width=SIDE)
    same, was = (
        Leak("exact", "calibration", "same", "a/0.png"),
        Leak("exact", "calibration", "was there", "b/changed.png"),
    )
    assert audit.against_calibration(use, new, known) == (same, Leak("near", "calibration", "copy", "a/1.png"), was)
    assert audit.against_calibration(use, new, Fingerprints()) == (same, was)


@pytest.mark.parametrize("folder", [None, "gone"])
def test_a_calibration_folder_that_is_gone_has_no_files(folder: str | None, tmp_path: Path) -> None:
    where = None if folder is None else str(tmp_path / folder)
    assert audit.calibration_files(CalibrationUse("folder", 1, 0, where, images=(("a.png", "0" * 64),))) == []


def test_a_manifest_names_nothing_outside_its_folder(pictures: list[Pixels], tmp_path: Path) -> None:
    outside = saved(Image.fromarray(pictures[0]), "PNG")
    write(tmp_path, {"secret.png": outside, "folder/a.png": outside})
    manifest = (("../secret.png", "0" * 64), (str(tmp_path / "secret.png"), "0" * 64))
    assert audit.calibration_files(CalibrationUse("folder", 2, 0, str(tmp_path / "folder"), images=manifest)) == []
