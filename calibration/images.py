"""Image folders: find the files, draw a sample, decode them to the pixels that a network sees.

Calibration and evaluation share this module, so both see the same pixels. What these are used for is left to the
callers, and so is every normalisation: arrays leave here as unsigned bytes, 0..255, RGB.

How a file becomes an array (`load`, and `decode` of its bytes), exactly:

1. The first frame is decoded at full size and turned upright as its EXIF orientation says.
2. It becomes 8-bit RGB. Grey is copied to the three channels; of 16 bits the upper eight count; palettes are looked up;
   transparent pixels are laid over white; CMYK is converted by complement. Embedded colour profiles are ignored, as
   TensorFlow ignores them.
3. The largest box of the output's aspect ratio is taken from the middle and shrunk by s / (s + 32), s being the shorter
   output side: the crop that EfficientNets were evaluated with (tensorflow/tpu, efficientnet/preprocessing.py,
   CROP_PADDING). Its sides are cut to whole pixels, its offsets rounded half up. A picture that has exactly the
   output's size is left as it is: somebody prepared it, and to crop it again would zoom in.
4. One bicubic resize (a = -0.5, antialiased where it shrinks) takes that box to the output. At the edges of the box the
   filter sees the pixels around it, as if the whole picture had been resized first and cropped then.
"""

from __future__ import annotations

import errno
import hashlib
import io
import stat
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgeeff.errors import CalibrationError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

Crop = Literal["center", "none"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CROP_PADDING = 32
EXIF_ORIENTATION = 0x0112

Special = Literal["animated", "turned", "CMYK", "16-bit", "transparent"]
"""What a file may be that most are not: see above what is done with it."""


@dataclass(frozen=True)
class Traits:
    """What a file was before it was decoded."""

    height: int
    width: int
    """In pixels, upright."""
    special: tuple[Special, ...]


@dataclass(frozen=True)
class ImageFile:
    """One image, and the class folder it lies in (None in a folder without class folders)."""

    path: Path
    label: str | None = None

    @property
    def key(self) -> str:
        """The path below the folder it was found in, with forward slashes: the same on every machine."""
        return self.path.name if self.label is None else f"{self.label}/{self.path.name}"


@dataclass(frozen=True)
class Sample:
    """The images that were drawn, and what was asked for."""

    files: tuple[ImageFile, ...]
    requested: int
    seed: int

    @property
    def note(self) -> str | None:
        """Say that the sample is smaller than what was asked for; None when it is not."""
        if len(self.files) == self.requested:
            return None
        return f"{self.requested} images were asked for, {len(self.files)} are there: all of them are used"


def find(folder: Path | str, *, minimum_classes: int = 2) -> list[ImageFile]:
    """Find the images of a folder, directly in it or in one level of class folders, sorted by class and name.

    Hidden files and files of other types are passed over. Files are not opened: what is no image shows when it is
    loaded. Raises CalibrationError when there is no such folder, no image in it, images at several depths, or fewer
    class folders with images than `minimum_classes`.
    """
    folder = Path(folder)
    if not folder.exists():
        raise CalibrationError(f"there is no folder {folder}: give the folder that holds the images")
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is no folder: give the folder that holds the images")
    flat, folders = _entries(folder)
    labelled: list[ImageFile] = []
    for sub in folders:
        paths, deeper = _entries(sub)
        labelled += [ImageFile(path, sub.name) for path in paths]
        for below in deeper:
            if _entries(below)[0]:
                raise CalibrationError(
                    f"{folder} has images two folders down, in {sub.name}/{below.name}: give the folder that holds the "
                    f"class folders (is it {sub}?)"
                )
    if not flat and not labelled:
        raise CalibrationError(
            f"no image in {folder}: looked for {', '.join(EXTENSIONS)} in it and in its class folders, one level down"
        )
    if flat and labelled:
        raise CalibrationError(
            f"{folder} has images directly in it ({flat[0].name}) and in class folders ({labelled[0].key}): keep either"
        )
    classes = {file.label for file in labelled}
    if labelled and len(classes) < minimum_classes:
        raise CalibrationError(
            f"{folder} has images of one class only ({labelled[0].label}): they do not show how large the values "
            "in the network get for other classes, which would then be clipped. Give images of all classes; if these "
            f"are of several classes, only not sorted, give {labelled[0].path.parent}"
        )
    return labelled or [ImageFile(path) for path in flat]


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images and the folders directly in a folder, hidden ones left out, each sorted by name."""
    try:
        visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in visible if entry.is_dir()]
    except OSError as error:
        raise CalibrationError(f"cannot list {folder} ({error.strerror}): check its permissions") from error
    return [entry for entry in visible if entry.suffix.lower() in EXTENSIONS and entry not in folders], folders


def sample(files: Iterable[ImageFile], count: int, seed: int = 0) -> Sample:
    """Draw `count` images evenly over the classes: each class gives its n-th before any gives its next.

    The order is that of a SHA-256 over seed, class and file name, so it depends neither on the order of `files`, nor on
    the machine, nor on any library's random numbers; a smaller sample is the beginning of a larger one. When there are
    too few images all are taken and `Sample.note` says so. Raises CalibrationError for no files or a count below 1.
    """
    if count < 1:
        raise CalibrationError(f"cannot draw {count} images: ask for 1 or more")
    classes: dict[str | None, list[tuple[str, ImageFile]]] = defaultdict(list)
    for file in files:
        digest = hashlib.sha256(f"{seed}/{file.key}".encode("utf-8", "surrogateescape")).hexdigest()
        classes[file.label].append((digest, file))
    turns: list[tuple[int, str, ImageFile]] = []
    for members in classes.values():
        members.sort(key=lambda member: member[0])
        turns += [(turn, digest, file) for turn, (digest, file) in enumerate(members)]
    if not turns:
        raise CalibrationError("there are no images to draw from")
    turns.sort(key=lambda drawn: drawn[:2])
    return Sample(tuple(file for _, _, file in turns[:count]), count, seed)


def read(path: Path) -> bytes:
    """Return the bytes of a file; raises OSError, also for a pipe or a device, which might be read for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return path.read_bytes()


def load(path: Path | str, height: int, width: int, crop: Crop = "center") -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 [height, width, 3], RGB, as the docstring of this module defines it.

    `crop="none"` resizes the whole picture whatever its aspect ratio. Raises CalibrationError, naming the file, when it
    cannot be read, and what `decode` raises.
    """
    return look(path, height, width, crop)[1]


def look(
    path: Path | str, height: int, width: int, crop: Crop = "center"
) -> tuple[bytes, npt.NDArray[np.uint8], Traits]:
    """Load an image as `load` does; return the file's bytes and traits, too."""
    try:
        data = read(Path(path))
    except OSError as error:
        raise CalibrationError(f"cannot read the image {path} ({error}): replace it or take it away") from error
    return (data, *examine(data, path, height, width, crop))


def decode(data: bytes, name: Path | str, height: int, width: int, crop: Crop = "center") -> npt.NDArray[np.uint8]:
    """Decode the bytes of one image file as `load` does; `name` is what messages call it.

    Raises CalibrationError when they are no image, are damaged, or have pixels for which white is not defined (32 bits,
    floating point); MissingExtraError without Pillow.
    """
    return examine(data, name, height, width, crop)[0]


def examine(
    data: bytes, name: Path | str, height: int, width: int, crop: Crop = "center"
) -> tuple[npt.NDArray[np.uint8], Traits]:
    """Decode an image as `decode` does; return its pixels, and what had to be done to the file on the way."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError  # finding and sampling need no Pillow
    except ImportError as error:
        raise MissingExtraError("Pillow", "host") from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            special = tuple(_special(opened))
            ImageOps.exif_transpose(opened, in_place=True)
            picture = _rgb(opened, name)
    except UnidentifiedImageError as error:
        raise CalibrationError(f"{name} is no image that can be read: replace it or take it away") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        # Pillow's decoders raise any of these for damaged files.
        raise CalibrationError(f"cannot read the image {name} ({error}): replace it or take it away") from error
    traits = Traits(picture.height, picture.width, special)
    if picture.size != (width, height):
        box = (0, 0, *picture.size) if crop == "none" else center_box(*picture.size, height, width)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, box)
    return np.asarray(picture), traits


def _special(picture: Image.Image) -> Iterator[Special]:
    """Say what is out of the ordinary in a file that was opened, not decoded."""
    if getattr(picture, "is_animated", False):
        yield "animated"
    if picture.getexif().get(EXIF_ORIENTATION, 1) != 1:
        yield "turned"
    if picture.mode == "CMYK":
        yield "CMYK"
    if picture.mode.startswith("I"):
        yield "16-bit"
    if "A" in picture.getbands() or "transparency" in picture.info:
        yield "transparent"


def _rgb(picture: Image.Image, name: Path | str) -> Image.Image:
    """The picture with 8-bit RGB pixels; itself where it has them already, since copies cost as much as decoding."""
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise CalibrationError(f"{name} has 32-bit pixels, whose white is not defined: save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def center_box(image_width: int, image_height: int, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of an image that becomes the output of `height` x `width`: left, top, right, bottom in its pixels."""
    shorter = min(height, width)
    scale = min(image_width / width, image_height / height) * shorter / (shorter + CROP_PADDING)
    box_width, box_height = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = (image_width - box_width + 1) // 2, (image_height - box_height + 1) // 2
    return left, top, left + box_width, top + box_height


def batches(
    files: Sequence[ImageFile], height: int, width: int, size: int = 16, crop: Crop = "center"
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode images in order, `size` at a time: uint8 [n, height, width, 3], the last one possibly smaller.

    Only one batch is in memory, however many files there are. Raises what `load` raises.
    """
    for start in range(0, len(files), size):
        yield np.stack([load(file.path, height, width, crop) for file in files[start : start + size]])


def manifest(files: Iterable[ImageFile]) -> tuple[tuple[str, str], ...]:
    """What was used, for the record: the path below the folder and the SHA-256 of the bytes of each image, in order.

    Raises CalibrationError when one cannot be read.
    """
    entries: list[tuple[str, str]] = []
    for file in files:
        try:
            entries.append((file.key, hashlib.sha256(file.path.read_bytes()).hexdigest()))
        except OSError as error:
            raise CalibrationError(f"cannot read {file.path} ({error.strerror}): check its permissions") from error
    return tuple(entries)
