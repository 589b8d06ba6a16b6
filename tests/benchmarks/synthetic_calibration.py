"""What int8 costs when its ranges come from synthetic images, from noise and from photographs, all in one run.

    python -m tests.benchmarks.synthetic_calibration [FLOAT.tflite ...] [--images DIR] [--calibration 64] [--seeds 3]

DIR holds photographs in class folders; without it, those in the folder that EDGEEFF_SHARED names, or in the one beside
the project. Some of them calibrate the row "photographs", the others are the test. Top-1 is printed when there is a
folder for each class of the model. "agrees" is the share of test images for which float and int8 choose the same class,
"ties" that for which several classes share the highest score, "p error" how far the highest probability moves on
average. Without FLOAT.tflite, Lite0 is converted with its ImageNet weights, which the extra lite-weights brings.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images, synthetic
from edgeeff.converters import float_model, quantize
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.quantize import Ranges
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import SCHEMES
from edgeeff.converters.trace import Request

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
SHARED = Path(os.environ.get("EDGEEFF_SHARED", Path(__file__).parents[3] / "shared"))


def noise(count: int, height: int, width: int, seed: int) -> Iterator[Pixels]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(0, 256, (height, width, 3), np.uint8)


def pink(count: int, height: int, width: int, seed: int) -> Iterator[Pixels]:
    rng = np.random.default_rng(seed)
    for index in range(count):
        if index % synthetic.TEXTURES == 0:
            textures = synthetic._textures(rng, height, width)
        texture = textures[index % synthetic.TEXTURES]
        yield np.clip(texture * 60 + rng.normal(120, 25, 3), 0, 255).astype(np.uint8)


MAKERS = {"noise": noise, "1/f noise": pink, "dead leaves": synthetic.images}


@dataclass(frozen=True)
class Test:
    """The photographs that are judged, what they show (None when the model has other classes), and what float says."""

    pixels: Pixels
    truth: npt.NDArray[np.int64] | None
    expected: Scores


def scores(content: bytes, pixels: Pixels) -> Scores:
    session = Session(content)
    return np.stack([session.run(image) for image in pixels])


def line(name: str, got: Scores, test: Test, note: str = "") -> str:
    best, expected = got.argmax(axis=1), test.expected.argmax(axis=1)
    top1 = "    -" if test.truth is None else f"{(best == test.truth).mean():6.1%}"
    lost = "-" if test.truth is None else f"{((expected == test.truth) & (best != test.truth)).sum()}"
    won = "-" if test.truth is None else f"{((expected != test.truth) & (best == test.truth)).sum()}"
    highest = got.max(axis=1, keepdims=True)
    ties = ((got == highest).sum(axis=1) > 1).mean()
    moved = np.abs(highest[:, 0] - test.expected.max(axis=1)).mean()
    agrees = (best == expected).mean()
    return f"{name:<29}{top1}   {lost:>3}/{won:<3}  {agrees:6.1%}   {ties:6.1%}   {moved:6.3f}   {note}"


def judge(name: str, model: FloatModel, ranges: Ranges, test: Test) -> None:
    content = quantize.quantize(model, SCHEMES["int8"], ranges, input_type="uint8", output_type="float32")
    low, high = ranges[model.logits]
    print(line(name, scores(content, test.pixels), test, f"{low:5.1f} .. {high:.1f}"), flush=True)


def compare(model: FloatModel, folder: Path, crop: images.Crop, calibration: int, seeds: int) -> None:
    height, width = model.resolution
    files = images.find(folder)
    drawn = images.sample(files, calibration).files
    rest = [file for file in files if file not in set(drawn)]
    labels = sorted({file.label or "" for file in files})
    truth = np.array([labels.index(file.label or "") for file in rest]) if len(labels) == model.classes else None
    pixels = np.concatenate(list(images.batches(rest, height, width, crop=crop)))
    test = Test(pixels, truth, scores(model.content, pixels))
    print(f"{len(rest)} photographs, {calibration} calibration images, {height} x {width}")
    print(f"{'calibrated on':<29}{'top-1':>6}  lost/won   agrees     ties  p error   logits")
    print(line("(float)", test.expected, test))
    photographs = [images.load(file.path, height, width, crop) for file in drawn]
    judge("photographs", model, quantize.collect_ranges(model, photographs), test)
    for name, make in MAKERS.items():
        for seed in range(seeds):
            begin = time.process_time()
            made = list(make(calibration, height, width, seed))
            took = time.process_time() - begin
            ranges = quantize.collect_ranges(model, made)
            judge(f"{name}, seed {seed} ({took:.1f} s)", model, ranges, test)
            judge("  + room for a sure class", model, synthetic.widen(ranges, model.logits), test)


def lite0() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.tflite"
        float_model.trace(Request(output=str(path), variant="lite0"), lambda stage: None)
        return path.read_bytes()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float_files", nargs="*", type=Path, metavar="FLOAT.tflite")
    parser.add_argument("--images", type=Path, default=SHARED / "data" / "imagenet-sample", metavar="DIR")
    parser.add_argument("--no-crop", action="store_true", help="the photographs are cropped already")
    parser.add_argument("--calibration", type=int, default=64, metavar="N", help="calibration images")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each kind of synthetic image")
    given = parser.parse_args(arguments)
    if not given.images.is_dir():
        sys.exit(f"no photographs in {given.images}: name a folder of them with --images")
    contents = {str(path): path.read_bytes() for path in given.float_files} or {"lite0": lite0()}
    for name, content in contents.items():
        print(f"\n{name}")
        model = float_model.finish(content)
        compare(model, given.images, "none" if given.no_crop else "center", given.calibration, given.seeds)


if __name__ == "__main__":
    main(sys.argv[1:])
