"""How often copies of images are recognised, how often different images pass for copies, and what both cost.

    python -m tests.benchmarks.near_duplicates [DIR] [--no-crop] [--images 200]

Every image of DIR is saved anew in many ways, and each copy is compared with its original. Then all pairs of different
images are compared, as they are and mirrored; those that pass are named, for they may be copies indeed. Without DIR,
images are made here. Times are of one core; fingerprints are taken of 224 x 224 pixels. Pictures that are cropped to
that size already need --no-crop, or their resized copies are cropped and they are not.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from edgeeff.calibration import audit, images, synthetic
from edgeeff.calibration.audit import Fingerprint

SIDE = 224
PAIRS = 50_000
"""Fingerprints on either side of the search that is timed."""
Change = Callable[[Image.Image], Image.Image]


def resized(factor: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        width, height = (max(1, round(side * factor)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BICUBIC)

    return change


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        return picture.crop(
            (int(left * width), int(top * height), width - int(right * width), height - int(bottom * height))
        )

    return change


def brighter(factor: float) -> Change:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def same(picture: Image.Image) -> Image.Image:
    return picture


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


COPIES: dict[str, tuple[Change, int]] = {
    **{f"JPEG quality {quality}": (same, quality) for quality in (50, 75, 85, 95)},
    **{f"resized by {factor:g}": (resized(factor), 90) for factor in (0.5, 0.75, 1.25, 1.5)},
    "cropped, 1.5 % of every side": (cropped(0.015, 0.015, 0.015, 0.015), 90),
    "cropped, 3 % of left and top": (cropped(0.03, 0.03, 0, 0), 90),
    "cropped, 6 % of left and top": (cropped(0.06, 0.06, 0, 0), 90),
    "mirrored": (mirrored, 90),
    "10 % darker": (brighter(0.9), 90),
    "10 % brighter": (brighter(1.1), 90),
}
"""How each is made, and the JPEG quality that it is saved with."""


def prints(path: Path, crop: images.Crop) -> tuple[Fingerprint, list[Fingerprint]]:
    def of(data: bytes) -> Fingerprint:
        return audit.fingerprint(data, images.decode(data, path, SIDE, SIDE, crop))

    data = path.read_bytes()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    copies = []
    for change, quality in COPIES.values():
        saved = io.BytesIO()
        change(picture).save(saved, "JPEG", quality=quality)
        copies.append(of(saved.getvalue()))
    return of(data), copies


def detection(originals: Sequence[Fingerprint], copies: Sequence[Sequence[Fingerprint]]) -> None:
    print(f"{'copies of ' + str(len(originals)) + ' images':<32}{'found':>8}")
    for number, name in enumerate(COPIES):
        found = sum(
            bool(audit.duplicates({"original": original}, {"copy": made[number]}, "train"))
            for original, made in zip(originals, copies, strict=True)
        )
        print(f"{name:<32}{found / len(originals):8.1%}")


def mistakes(originals: dict[str, Fingerprint]) -> None:
    pairs = len(originals) * (len(originals) - 1) // 2
    passed = [leak for leak in audit.repeats(originals) if leak.kind == "near"]
    print(f"\n{len(passed)} of {pairs:,} pairs of different images pass for copies, mirrored or not")
    for leak in passed:
        print(f"  {leak.image}  {leak.other}")


def search(originals: Sequence[Fingerprint]) -> None:
    rng = np.random.default_rng(0)
    begin = time.process_time()
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for _ in range(500):
        audit.fingerprint(b"", picture)
    print(f"\none fingerprint: {(time.process_time() - begin) / 500 * 1e3:.3f} ms, of a decoded picture")
    # Signs of photographs' frequencies are about as often + as -: random ones give as many candidates, or fewer.
    hashes = rng.integers(0, 2**63, 2 * PAIRS).tolist()
    made = [
        Fingerprint(f"{number}", value, originals[number % len(originals)].thumbnail)
        for number, value in enumerate(hashes)
    ]
    known, new = ({print_.sha256: print_ for print_ in half} for half in (made[:PAIRS], made[PAIRS:]))
    begin = time.process_time()
    audit.duplicates(known, new, "train")
    print(f"{PAIRS:,} images looked for among {PAIRS:,}: {time.process_time() - begin:.1f} s")


def generated(folder: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        # Images of one seed share their textures, and are alike indeed where there is little else.
        (pixels,) = synthetic.images(1, 160, 200, seed=number)
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="to make, without DIR")
    parser.add_argument("--no-crop", action="store_true", help="the pictures are cropped already")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor() as executor:
        if given.folder:
            paths = [path for path in sorted(given.folder.rglob("*")) if path.suffix.lower() in images.EXTENSIONS]
        else:
            paths = generated(Path(temporary), given.images)
        if not paths:
            sys.exit(f"no images in {given.folder}: name a folder of them")
        made = list(executor.map(prints, paths, repeat("none" if given.no_crop else "center"), chunksize=8))
        root = given.folder or Path(temporary)
        originals = {str(path.relative_to(root)): original for path, (original, _) in zip(paths, made, strict=True)}
    detection(list(originals.values()), [copies for _, copies in made])
    mistakes(originals)
    search(list(originals.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
