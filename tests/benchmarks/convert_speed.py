"""Time and memory of `edgeeff convert`, and latency of its file, against the plain script that a user would write.

    python -m tests.benchmarks.convert_speed [--variant b2] [--images 128] [--repeats 3]

Both sides convert the same keras.applications network to int8, from the same weights file (random weights, ImageNet
preprocessing), with the same calibration images (made here). Conversions alternate; the files' latencies are measured
interleaved at one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeeff import scaling
from edgeeff.calibration import synthetic
from edgeeff.devices import profile

PLAIN = """
import os, sys
from pathlib import Path
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import keras
import numpy as np
import tensorflow as tf

name, size, weights, folder, output = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5])
# weights="imagenet" adds ImageNet's preprocessing, four operators; the download is replaced by the file given.
keras.src.applications.efficientnet.file_utils.get_file = lambda *_, **__: weights
model = getattr(keras.applications, name)(weights="imagenet")

def images():
    for file in sorted(folder.rglob("*.png")):
        yield [np.asarray(keras.utils.load_img(file, target_size=(size, size)), np.float32)[None]]

converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = images
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
output.write_bytes(converter.convert())
"""

WEIGHTS = """
import sys
from edgeeff import architectures, scaling
architectures.build(scaling.network(sys.argv[1]), weights="none").save_weights(sys.argv[2])
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: wall seconds, and the peak of the summed resident memory of its processes in bytes."""

    wall_s: float
    memory_bytes: int


def run(command: Sequence[str | Path]) -> Cost:
    """Run a command to its end, watching the memory of all its processes; raises when it fails."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        peak = [0]

        def watch() -> None:
            while process.poll() is None:
                peak[0] = max(peak[0], resident(process.pid))
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        wall = time.perf_counter() - begin
        watcher.join()
        if status != 0:
            log.seek(0)
            raise SystemExit(f"{command[0]} failed:\n{log.read()[-3000:]}")
    return Cost(wall, peak[0])


def resident(pid: int) -> int:
    """Return the resident memory of a process and all its descendants, 0 when they are gone."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return own + sum(resident(child) for child in children)


def main() -> None:
    """Print both sides and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="b2", help="one of b0 to b7")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    network = scaling.network(arguments.variant)
    keras_name = scaling.VARIANTS[network.name].keras
    if keras_name is None:
        raise SystemExit(f"keras.applications has no {network.name}")
    size = network.resolution
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, script = folder / "images", folder / "plain.py"
        script.write_text(PLAIN)
        write_images(images, arguments.images, size)
        plain_file, our_file = folder / "plain.tflite", folder / "ours.tflite"
        weights = folder / "network.weights.h5"
        make: list[str | Path] = [sys.executable, "-c", WEIGHTS, network.name, weights]
        run(make)
        plain: list[str | Path] = [sys.executable, script, keras_name, str(size), weights, images, plain_file]
        ours: list[str | Path] = [
            *(sys.executable, "-m", "edgeeff", "convert", "--variant", network.name, "--weights", weights),
            *(
                "--calibration",
                images,
                "--samples",
                str(arguments.images),
                "--calibrator",
                "min-max",
                "--output",
                our_file,
            ),
        ]
        costs = [(run(plain), run(ours)) for _ in range(arguments.repeats)]
        what = f"{network.name} to int8, {arguments.images} images of {size} x {size}"
        print(f"{what}, {arguments.repeats} runs each, in turn")
        report("wall time, s", [(a.wall_s, b.wall_s) for a, b in costs], "0.50")
        report("peak memory, MB", [(a.memory_bytes / 1e6, b.memory_bytes / 1e6) for a, b in costs], "1.00")
        first, second = profile.measure([plain_file, our_file], threads=1)
        print("one inference in LiteRT with XNNPACK, 1 thread, 5 processes each, in turn")
        report("p50, ms", [(first.latency.p50_s * 1e3, second.latency.p50_s * 1e3)], "0.80")
        report("p90, ms", [(first.latency.p90_s * 1e3, second.latency.p90_s * 1e3)])
        report("file, MB", [(plain_file.stat().st_size / 1e6, our_file.stat().st_size / 1e6)])


def write_images(folder: Path, count: int, size: int) -> None:
    """Write synthetic images into two class folders."""
    from PIL import Image

    for index, pixels in enumerate(synthetic.images(count, size + 32, size + 32, seed=1)):
        file = folder / "ab"[index % 2] / f"{index:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def report(what: str, pairs: Sequence[tuple[float, float]], goal: str = "") -> None:
    """Print medians of both sides and the median of the ratios pair by pair."""
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    wanted = f"   goal {goal}" if goal else ""
    print(f"  {what:18s} plain {plain:9.2f}   edgeeff {ours:9.2f}   ratio {ratio:.3f}{wanted}")


if __name__ == "__main__":
    main()
