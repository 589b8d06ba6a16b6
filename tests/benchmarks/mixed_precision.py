"""What mixed precision gives a network: points from float to int8, and what goals get, on images that chose nothing.

    python -m tests.benchmarks.mixed_precision [--model FILE] [--calibration DIR] [--evaluation DIR] [--images 128]
                                               [--min-agreement 94 98] [--max-latency 0.6] [--seed 0] [--threads 1]
                                               [--effort standard]

Without options the hard case of the folder that EDGEEFF_SHARED names, or of the one beside the project, which is
EfficientNet-B0, whose swish int8 does not survive. "expected" is the agreement with float that is estimated from
calibration images, "at least" its lower end, which is held against a goal; "agrees" and "top-1" are measured on the
evaluation images. "of float" is the time as a ratio to the float file that edgeeff makes, whose preprocessing is fused,
"of stock" to the one that the converter makes.
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
from edgeeff.converters import float_model, mixed, recover
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.runtime import Session
from edgeeff.converters.timing import Here
from edgeeff.converters.trace import Request
from edgeeff.progress import Bars
from edgeeff.results import Goal

Pixels = npt.NDArray[np.uint8]
SHARED = Path(os.environ.get("EDGEEFF_SHARED", Path(__file__).parents[3] / "shared"))


def load(path: Path) -> tuple[bytes, FloatModel]:
    """Return the float file as the converter makes it, and as edgeeff goes on with it."""
    if path.suffix == ".tflite":
        return path.read_bytes(), float_model.finish(path.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        traced_to = Path(folder) / "float.tflite"
        traced = float_model.trace(Request(output=str(traced_to), model=str(path)), lambda _: None)
        stock = traced_to.read_bytes()
        return stock, float_model.finish(stock, traced)


def decode(files: Sequence[ImageFile], model: FloatModel, crop: Crop) -> list[Pixels]:
    return [images.load(file.path, *model.resolution, crop) for file in files]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "efficientnetb0_imagenette.keras")
    parser.add_argument("--calibration", type=Path, default=SHARED / "data" / "imagenette" / "calibration")
    parser.add_argument("--evaluation", type=Path, default=SHARED / "data" / "imagenette" / "evaluation")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--min-agreement", type=float, nargs="*", default=[94.0, 98.0], metavar="PERCENT")
    parser.add_argument("--max-latency", type=float, nargs="*", default=[0.6], metavar="RATIO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", choices=list(recover.PLANS), default="standard")
    parser.add_argument("--crop", choices=["center", "none"], default="none")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    stock, model = load(options.model)
    judged = sorted(images.find(options.evaluation), key=lambda file: file.key)
    classes = sorted({file.label or "" for file in judged})
    truth = np.array([classes.index(file.label or "") for file in judged])
    pixels = decode(judged, model, options.crop)

    def best(content: bytes) -> npt.NDArray[np.int64]:
        session = Session(content, threads=options.threads)
        return np.array([int(session.run(image).argmax()) for image in pixels])

    learned = decode(
        images.sample(images.find(options.calibration), options.images, options.seed).files, model, options.crop
    )
    goals = [Goal(min_agreement=percent / 100) for percent in options.min_agreement]
    goals += [Goal(max_latency=ratio) for ratio in options.max_latency]
    start = time.perf_counter()
    with Bars() as bars:
        plan = recover.PLANS[options.effort]
        found = mixed.explore(
            model, learned, seed=options.seed, threads=options.threads, plan=plan, goals=goals, progress=bars
        )
    seconds = time.perf_counter() - start
    expected = best(model.content)
    timer = Here(model.content, learned[0], options.threads)
    (stock_s,) = timer.times([stock], repeats=5)
    share = timer.float_s / stock_s
    print(f"{options.model.name}, {len(learned)} calibration images, {len(pixels)} others judge, {seconds:.0f} s")
    print(f"float: top-1 {(expected == truth).mean():.1%}, {share:.2f} of stock, {len(model.content) / 1e6:.2f} MB")
    print("blocks static, divergence, expected, at least | agrees, top-1 | of float, of stock, MB")
    for point in found.points:
        got = best(found.content(point))
        judge = (
            f"{len(point.static):3} {point.divergence:8.4f} {point.agreement_estimate:6.1%} {point.agreement_low:6.1%}"
        )
        evaluation = f"{(got == expected).mean():6.1%} {(got == truth).mean():6.1%}"
        time_ = f"{point.latency_ratio:6.3f} {point.latency_ratio * share:6.3f}"
        print(f"{judge} | {evaluation} | {time_} {point.size_bytes / 1e6:6.2f}", flush=True)
    for goal in goals:
        content, report = found.settle(goal)
        got = best(content)
        print(
            f"{'met' if report.met else 'NOT MET'}: {goal}: {len(report.chosen.static)} blocks static, "
            f"agrees {(got == expected).mean():.1%}, {report.chosen.latency_ratio:.3f} of float, "
            f"{report.chosen.latency_ratio * share:.3f} of stock"
        )
        if report.shortfall is not None:
            print(f"    {report.shortfall}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
