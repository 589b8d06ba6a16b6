"""What training for int8 gives beside plain min/max ranges, on images that nothing was chosen by.

    python -m tests.benchmarks.finetuning [--model FILE] [--images DIR] [--evaluation DIR] [--steps 400]
                                          [--prune SHARE] [--cluster NUMBER] [--seeds 1] [--threads 2]
                                          [--effort standard]

Both folders hold class folders of the same names; the labels of --images are not looked at. Without options the hard
case of the folder that EDGEEFF_SHARED names, or of the one beside the project: EfficientNet-B0, whose swish plain int8
does not survive. "agrees" is the share of images for which float and int8 choose the same class, "divergence" the mean
Kullback-Leibler divergence of the scores, as in recovery.py, whose functions these are; "zipped" is the size after
deflate.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeeff.calibration import images
from edgeeff.converters import qat, quantize, recover
from edgeeff.converters.qat import Finetune
from edgeeff.converters.recover import INT8
from edgeeff.converters.runtime import Session
from edgeeff.progress import Bars
from tests.benchmarks.recovery import SHARED, Scores, line, load


def zipped(content: bytes) -> str:
    return f"{len(content) / 1e6:.2f} MB, zipped {qat.compressed_bytes(content) / 1e6:.2f}"


def cpu() -> float:
    """CPU seconds of this process and its children."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "efficientnetb0_imagenette.keras")
    parser.add_argument("--images", type=Path, default=SHARED / "data" / "imagenette" / "calibration")
    parser.add_argument("--evaluation", type=Path, default=SHARED / "data" / "imagenette" / "evaluation")
    parser.add_argument("--steps", type=int, default=qat.DEFAULT_STEPS)
    parser.add_argument("--prune", type=float, default=0.0)
    parser.add_argument("--cluster", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--effort", choices=tuple(recover.PLANS), default="standard", help="before training begins")
    options = parser.parse_args()
    model = load(options.model)
    judged = sorted(images.find(options.evaluation), key=lambda file: file.key)
    classes = sorted({file.label or "" for file in judged})
    truth = np.array([classes.index(file.label or "") for file in judged])
    pixels = [images.load(file.path, *model.resolution) for file in judged]

    def scores(content: bytes) -> Scores:
        session = Session(content, threads=options.threads)
        return np.stack([session.run(image) for image in pixels])

    expected = scores(model.content)
    print(f"{options.model.name}, {len(judged)} images of {len(classes)} classes, of which nothing was learned")
    print(f"{'':<22}{'top-1':>7}  {'agrees':>6}  {'divergence':>10}  {'ties':>5}")
    print(line("float", expected, expected, truth, zipped(model.content)))
    for seed in range(options.seeds):
        files = images.sample(images.find(options.images), qat.MOST_IMAGES, seed).files
        given = [images.load(file.path, *model.resolution) for file in files]
        if not seed:
            plain = quantize.collect_ranges(model, given, threads=options.threads)
            content = quantize.quantize(model, INT8, plain, input_type="uint8", output_type="float32")
            print(line("int8, min/max", scores(content), expected, truth, zipped(content)), flush=True)
        wish = Finetune(options.images, options.steps, sparsity=options.prune, clusters=options.cluster)
        start, spent = time.perf_counter(), cpu()
        with tempfile.TemporaryDirectory() as folder, Bars() as bars:
            content, report = qat.finetune(
                model,
                given,
                None,
                wish,
                Path(folder),
                plan=recover.PLANS[options.effort],
                seed=seed,
                threads=options.threads,
                progress=bars,
            )
        print(line(f"fine-tuned, seed {seed}", scores(content), expected, truth, zipped(content)), flush=True)
        before, after = report.before.fidelity, report.after.fidelity
        print(f"{'':<22}began with {report.before.name}")
        print(
            f"{'':<22}{report.steps_taken} steps of {report.batch} of {report.images} images, best at "
            f"{report.best_step}; {time.perf_counter() - start:.0f} s, {cpu() - spent:.0f} s of CPU; on "
            f"{report.judging_images} kept apart {before.divergence:.4f} to {after.divergence:.4f}; the file and its "
            f"simulation correlate by {report.simulation_correlation:.4f}"
        )
        if report.compressed_layers:
            print(
                f"{'':<22}{report.compressed_layers} layers: zeros {report.pruned_share}, values {report.clusters}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
