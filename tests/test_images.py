from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeeff.calibration import images
from edgeeff.calibration.images import ImageFile
from edgeeff.errors import CalibrationError, MissingExtraError

PIL = pytest.importorskip("PIL", reason="decoding needs Pillow, of the host extra")
from PIL import Image  # noqa: E402


def ramp(height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = rows * 255 // (height - 1), columns * 255 // (width - 1), np.full_like(rows, 40)
    return np.stack(channels, axis=-1).astype(np.uint8)


def save(path: Path, pixels: npt.NDArray[np.uint8] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ramp() if pixels is None else pixels).save(path, **options)
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


# Finding


def test_class_folders_give_labels(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dog/b.JPEG",
        "cat/a.png",
        "cat/c.webp",
        "cat/notes.txt",
        "cat/.hidden.jpg",
        ".git/x.jpg",
        "labels.csv",
    )
    assert [file.key for file in images.find(tmp_path)] == ["cat/a.png", "cat/c.webp", "dog/b.JPEG"]
    assert [file.label for file in images.find(tmp_path)] == ["cat", "cat", "dog"]


def test_a_flat_folder_gives_none(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.tif", ".c.jpg", "empty/readme.md")
    assert images.find(tmp_path) == [ImageFile(tmp_path / "a.tif"), ImageFile(tmp_path / "b.jpg")]


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store", "cat/a.png", "dog/b.png")
    (tmp_path / "chosen").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "chosen" / name).symlink_to(tmp_path / "store" / name)
    assert [file.label for file in images.find(tmp_path / "chosen")] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"no image in .*looked for .*\.jpeg, .*\.webp"),
        (("a.txt", "cat/b.pdf"), "no image in"),
        (("cat/a.jpg", "cat/b.jpg"), r"one class only \(cat\).*clipped.*Give images of all classes.*give .*cat"),
        (("cat/a.jpg", "dog/.b.jpg"), r"one class only \(cat\)"),
        (("a.jpg", "cat/b.jpg", "dog/c.jpg"), r"directly in it \(a.jpg\) and in class folders \(cat/b.jpg\)"),
        (("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg"), r"two folders down, in train/cat:.*is it .*train\?"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        images.find(touch(tmp_path, *names))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"there is no folder .*nowhere"):
        images.find(tmp_path / "nowhere")
    with pytest.raises(CalibrationError, match=r"a\.jpg is no folder"):
        images.find(touch(tmp_path, "a.jpg") / "a.jpg")


def test_one_class_can_be_allowed(tmp_path: Path) -> None:
    assert len(images.find(touch(tmp_path, "cat/a.jpg"), minimum_classes=1)) == 1


# Sampling

AVAILABLE = {"a": 3, "b": 20, "c": 7}
FILES = [ImageFile(Path(f"/data/{label}/{n}.jpg"), label) for label, count in AVAILABLE.items() for n in range(count)]


@given(st.integers(1, 40), st.integers(0, 2**32), st.randoms())
def test_a_sample_does_not_depend_on_the_order_of_the_files(count: int, seed: int, shuffler: random.Random) -> None:
    shuffled = list(FILES)
    shuffler.shuffle(shuffled)
    assert images.sample(shuffled, count, seed) == images.sample(FILES, count, seed)


@given(st.integers(1, 29), st.integers(0, 2**32))
def test_a_sample_is_balanced_and_begins_the_larger_ones(count: int, seed: int) -> None:
    drawn = images.sample(FILES, count, seed).files
    assert len(set(drawn)) == len(drawn) == count
    taken = {label: sum(file.label == label for file in drawn) for label in AVAILABLE}
    unfinished = [taken[label] for label in AVAILABLE if taken[label] < AVAILABLE[label]]
    assert max(taken.values()) - min(unfinished) <= 1  # only a class that is used up may lag behind
    assert images.sample(FILES, count + 1, seed).files[:count] == drawn


def test_seeds_draw_different_samples() -> None:
    assert len({images.sample(FILES, 6, seed).files for seed in range(20)}) > 15


def test_a_sample_does_not_depend_on_where_the_folder_lies() -> None:
    moved = [ImageFile(Path("/elsewhere") / file.key, file.label) for file in FILES]
    assert [f.key for f in images.sample(moved, 9, 4).files] == [f.key for f in images.sample(FILES, 9, 4).files]


def test_fewer_images_than_asked_for_are_all_used_and_it_is_said() -> None:
    drawn = images.sample(FILES, 31)
    assert (len(drawn.files), drawn.requested) == (30, 31)
    assert drawn.note == "31 images were asked for, 30 are there: all of them are used"
    assert images.sample(FILES, 30).note is None


def test_samples_that_make_no_sense() -> None:
    with pytest.raises(CalibrationError, match="cannot draw 0 images"):
        images.sample(FILES, 0)
    with pytest.raises(CalibrationError, match="no images"):
        images.sample([], 5)


# Decoding


def test_the_crop_is_the_published_one() -> None:
    # 224 / 256 of the shorter side, cut to whole pixels, in the middle.
    assert images.center_box(500, 375, 224, 224) == (86, 24, 414, 352)
    assert images.center_box(224, 224, 224, 224) == (14, 14, 210, 210)
    assert images.center_box(1, 1, 224, 224) == (0, 0, 1, 1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 600), st.integers(8, 600))
def test_the_crop_lies_in_the_middle_of_the_image(image_width: int, image_height: int, height: int, width: int) -> None:
    left, top, right, bottom = images.center_box(image_width, image_height, height, width)
    assert 0 <= left < right <= image_width
    assert 0 <= top < bottom <= image_height
    assert abs(left - (image_width - right)) <= 1
    assert abs(top - (image_height - bottom)) <= 1


def test_an_image_of_the_crops_size_is_only_cropped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    loaded = images.load(save(tmp_path / "a.png", pixels), 224, 224)
    np.testing.assert_array_equal(loaded, pixels[16:240, 16:240])
    assert loaded.dtype == np.uint8


def test_no_crop_keeps_the_whole_picture(tmp_path: Path) -> None:
    np.testing.assert_array_equal(images.load(save(tmp_path / "a.png"), 60, 80, crop="none"), ramp())


@pytest.mark.parametrize("crop", ["center", "none"])
def test_a_prepared_image_is_left_as_it_is(tmp_path: Path, crop: images.Crop) -> None:
    path = save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.load(path, 60, 80, crop), ramp())
    assert (images.load(path, 61, 80, "center") != images.load(path, 61, 80, "none")).any()


def test_a_rectangle_keeps_the_aspect_ratio(tmp_path: Path) -> None:
    # A disc stays a disc: equally many bright pixels in its middle row and its middle column.
    rows, columns = np.mgrid[-100:100, -200:200]
    disc = np.where(rows**2 + columns**2 < 50**2, 255, 0).astype(np.uint8)
    loaded = images.load(save(tmp_path / "disc.png", disc), 96, 160)[..., 0]
    assert abs(int((loaded[48] > 127).sum()) - int((loaded[:, 80] > 127).sum())) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: ramp(),
        2: ramp()[:, ::-1],
        3: ramp()[::-1, ::-1],
        4: ramp()[::-1],
        5: ramp().transpose(1, 0, 2),
        6: np.rot90(ramp()),
        7: ramp()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(ramp(), -1),
    }  # fmt: skip - how the sensor saw it, for each orientation
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(turned[orientation]), exif=exif)
    np.testing.assert_array_equal(images.load(path, 60, 80, crop="none"), ramp())


def test_a_turned_picture_without_compression_is_upright(tmp_path: Path) -> None:
    # Pillow maps such files into memory when it is given their path, with the sides the wrong way round.
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = ramp()[..., 0]
    path = save(tmp_path / "a.tif", np.ascontiguousarray(np.rot90(grey)), exif=exif)
    np.testing.assert_array_equal(images.load(path, 60, 80)[..., 0], grey)


def test_other_pixels_become_rgb(tmp_path: Path) -> None:
    colour, grey = Image.fromarray(ramp()), Image.fromarray(ramp()[..., 1])
    grey_rgb = np.repeat(ramp()[..., 1:2], 3, axis=-1)

    def loaded(name: str, picture: Image.Image, **options: Any) -> npt.NDArray[np.uint8]:
        picture.save(tmp_path / name, **options)
        return images.load(tmp_path / name, 60, 80, crop="none")

    np.testing.assert_array_equal(loaded("grey.png", grey), grey_rgb)
    np.testing.assert_array_equal(loaded("bits.png", Image.fromarray(ramp()[..., 1] > 99)), (grey_rgb > 99) * 255)
    wide = Image.fromarray(ramp()[..., 1].astype(np.uint16) * 256 + 255)
    np.testing.assert_array_equal(loaded("grey16.png", wide), grey_rgb)
    np.testing.assert_array_equal(loaded("grey16.tif", wide), grey_rgb)
    palette = colour.quantize(256)
    np.testing.assert_array_equal(loaded("palette.png", palette), np.asarray(palette.convert("RGB")))
    ink = colour.convert("CMYK")
    assert np.abs(loaded("ink.jpg", ink, quality=100).astype(int) - ramp()).max() < 12
    np.testing.assert_array_equal(loaded("ink.tif", ink), ramp())


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[30:] = (10, 20, 30, 255)
    clear = images.load(save(tmp_path / "rgba.png", pixels), 60, 80, crop="none")
    assert (clear[0, 0].tolist(), clear[40, 0].tolist()) == ([255, 255, 255], [10, 20, 30])
    palette = Image.fromarray(pixels[..., :3]).quantize(2)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    assert images.load(tmp_path / "palette.png", 60, 80, crop="none")[0, 0].tolist() == [255, 255, 255]


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert images.load(tmp_path / name, 8, 8)[4, 4].tolist() == [255, 0, 0], name


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"good{suffix}")
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 40):
        cut = tmp_path / f"cut{length}{suffix}"
        cut.write_bytes(whole[:length])
        with pytest.raises(CalibrationError, match=cut.name):
            images.load(cut, 32, 32)


def test_bytes_are_decoded_as_files_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        images.decode(path.read_bytes(), "shard, record 7", 32, 48), images.load(path, 32, 48)
    )
    with pytest.raises(CalibrationError, match=r"^shard, record 7 is no image"):
        images.decode(b"nothing", "shard, record 7", 32, 48)
    with pytest.raises(CalibrationError, match=r"^cannot read the image shard, record 7 \("):
        images.decode(path.read_bytes()[:300], "shard, record 7", 32, 48)


def test_what_only_looks_like_an_image(tmp_path: Path) -> None:
    path = touch(tmp_path, "page.jpg") / "page.jpg"
    with pytest.raises(CalibrationError, match=r"page\.jpg is no image that can be read"):
        images.load(path, 32, 32)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(CalibrationError, match=r"cannot read the image .*loop\.jpg"):
        images.load(tmp_path / "loop.jpg", 32, 32)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(CalibrationError, match=r"depth\.tif has 32-bit pixels"):
        images.load(tmp_path / "depth.tif", 32, 32)


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert len(images.sample(images.find(tmp_path), 1).files) == 1
    with pytest.raises(MissingExtraError, match=r"Pillow is not installed.*edgeeff\[host\]"):
        images.load(path, 32, 32)


# Batches and the manifest


def test_batches_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    for n in range(5):
        save(tmp_path / f"{n}.png", np.full((20, 20, 3), n * 10, np.uint8))
    files = images.find(tmp_path)
    stream = images.batches(files, 8, 12, size=2)
    first = next(stream)
    assert (first.shape, first[1, 0, 0, 0]) == ((2, 8, 12, 3), 10)
    (tmp_path / "4.png").write_bytes(b"")
    assert len(next(stream)) == 2
    with pytest.raises(CalibrationError, match=r"4\.png"):
        next(stream)


def test_the_manifest_has_paths_below_the_folder_and_digests(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "cat/a.jpg")
    files = images.find(tmp_path)
    expected = tuple((name, hashlib.sha256(name.encode()).hexdigest()) for name in ("cat/a.jpg", "dog/b.jpg"))
    assert images.manifest(files) == expected
    (tmp_path / "cat/a.jpg").unlink()
    with pytest.raises(CalibrationError, match=r"a\.jpg"):
        images.manifest(files)
