"""What calibration needs in memory, with 100 images and with 10,000: they are read as they come, so it is the same.

    python -m tests.benchmarks.calibration_memory [MODEL.tflite] [--images 100 10000] [--effort quick]

The model is a float .tflite; without it Lite0 is made, with its ImageNet weights, which the extra lite-weights brings.
Images are dead leaves, made when they are asked for. Each number of images gets a process of its own, whose largest
resident memory is printed, and the ratio of the last to the first. With a network for which plain ranges are good
enough nothing is searched; others take the whole search.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import synthetic
from edgeeff.converters import float_model, recover
from edgeeff.converters.trace import Request

Image = npt.NDArray[np.uint8]
DISTINCT = 50


class Made(Sequence[Image]):
    """So many images, none of which is kept but for the few that they are turned and mirrored from."""

    def __init__(self, count: int, height: int, width: int, numbers: Sequence[int] | None = None) -> None:
        self._few = list(synthetic.images(DISTINCT, height, width))
        self._numbers = range(count) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Image]: ...

    def __getitem__(self, index: int | slice) -> Image | Sequence[Image]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = self._numbers[index]
        turned = np.roll(self._few[number % DISTINCT], number // DISTINCT, axis=number % 2)
        return np.ascontiguousarray(turned)


def lite0(folder: Path) -> Path:
    float_model.trace(Request(output=str(folder / "lite0.tflite"), variant="lite0"), lambda _: None)
    return folder / "lite0.tflite"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--effort", choices=list(recover.PLANS), default="quick")
    options = parser.parse_args()
    if len(options.images) == 1:
        model = float_model.finish(options.model.read_bytes())
        start = time.perf_counter()
        recover.recover(model, Made(options.images[0], *model.resolution), options.effort)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{peak * 1024} {time.perf_counter() - start:.1f}")
        return 0
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        file = options.model or lite0(Path(folder))
        for count in options.images:
            command = [sys.executable, __file__, str(file), "--images", str(count), "--effort", options.effort]
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200).stdout.split()
            peaks.append(int(said[0]))
            print(f"{count:6} images: {peaks[-1] / 1e6:6.0f} MB, {float(said[1]):6.0f} s", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.2f}, {(peaks[-1] - peaks[0]) / 1e6:+.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
