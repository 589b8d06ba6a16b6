"""What int8 costs a network at each effort, beside plain min/max ranges, on images that nothing was chosen by.

    python -m tests.benchmarks.recovery [--model FILE] [--calibration DIR] [--evaluation DIR] [--images 128]
                                        [--effort quick standard thorough] [--seeds 1] [--crop center|none]

Both folders hold class folders of the same names. Without options the hard case of the folder that EDGEEFF_SHARED
names, or of the one beside the project: EfficientNet-B0, whose swish plain int8 does not survive. "agrees" is the share
of images for which float and int8 choose the same class, "divergence" the mean Kullback-Leibler divergence of the
scores, "ties" the share for which several classes have the highest score.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images
from edgeeff.calibration.images import Crop, ImageFile
from edgeeff.converters import float_model, quantize, recover
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.runtime import Session
from edgeeff.converters.schemes import SCHEMES
from edgeeff.converters.trace import Request

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
SHARED = Path(os.environ.get("EDGEEFF_SHARED", Path(__file__).parents[3] / "shared"))


def load(path: Path) -> FloatModel:
    if path.suffix == ".tflite":
        return float_model.finish(path.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        traced_to = Path(folder) / "float.tflite"
        traced = float_model.trace(Request(output=str(traced_to), model=str(path)), lambda _: None)
        return float_model.finish(traced_to.read_bytes(), traced)


def decode(files: Sequence[ImageFile], model: FloatModel, crop: Crop) -> list[Pixels]:
    return [images.load(file.path, *model.resolution, crop) for file in files]


def line(name: str, got: Scores, expected: Scores, truth: npt.NDArray[np.int64], note: str) -> str:
    exact, found = (np.maximum(scores.astype(np.float64), 1e-6) for scores in (expected, got))
    divergence = (exact * np.log(exact / found)).sum(axis=1).mean()
    agrees = (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
    ties = ((got == got.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean()
    top1 = (got.argmax(axis=1) == truth).mean()
    return f"{name:<22}{top1:7.1%}  {agrees:6.1%}  {divergence:10.4f}  {ties:5.1%}   {note}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "efficientnetb0_imagenette.keras")
    parser.add_argument("--calibration", type=Path, default=SHARED / "data" / "imagenette" / "calibration")
    parser.add_argument("--evaluation", type=Path, default=SHARED / "data" / "imagenette" / "evaluation")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--effort", nargs="+", choices=list(recover.PLANS), default=["quick", "standard"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--crop", choices=["center", "none"], default="none")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = load(options.model)
    judged = sorted(images.find(options.evaluation), key=lambda file: file.key)
    classes = sorted({file.label or "" for file in judged})
    truth = np.array([classes.index(file.label or "") for file in judged])
    pixels = decode(judged, model, options.crop)

    def scores(content: bytes) -> Scores:
        session = Session(content, threads=options.threads)
        return np.stack([session.run(image) for image in pixels])

    expected = scores(model.content)
    print(f"{options.model.name}, {options.images} calibration images, {len(pixels)} others judge")
    print(f"{'':<22}{'top-1':>7}  {'agrees':>6}  {'divergence':>10}  {'ties':>5}")
    print(line("float", expected, expected, truth, ""), flush=True)
    for seed in range(options.seeds):
        drawn = images.sample(images.find(options.calibration), options.images, seed)
        learned = decode(drawn.files, model, options.crop)
        ranges = quantize.collect_ranges(model, learned)
        plain = quantize.quantize(model, SCHEMES["int8"], ranges, input_type="uint8", output_type="float32")
        print(line("min/max", scores(plain), expected, truth, f"seed {seed}"), flush=True)
        for effort in options.effort:
            start = time.perf_counter()
            content, report = recover.recover(model, learned, effort, seed, threads=options.threads)
            note = f"seed {seed}, {time.perf_counter() - start:.0f} s: {report.chosen}"
            print(line(effort, scores(content), expected, truth, note), flush=True)
            for attempt in report.attempts:
                apart = attempt.fidelity
                print(f"    {attempt.name:<40} {apart.divergence:.4f} {apart.agreement:6.1%}, judged by {apart.images}")
            for warning in report.warnings:
                print(f"    {warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
