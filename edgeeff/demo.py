"""The main job on embedded defaults: Lite0 with its real weights to int8, verified, measured here, and compared.

It strings together what the other commands do and adds nothing of its own but the sample photographs.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff import scaling, weights
from edgeeff.calibration import images, synthetic
from edgeeff.converters import convert as conversion
from edgeeff.converters import float_model, metadata, runtime
from edgeeff.devices import profile
from edgeeff.errors import OutputError
from edgeeff.progress import Progress, Silent
from edgeeff.results import DemoPhotograph, DemoRecord, this_device, versions

VARIANT = "lite0"
# Photographs that scikit-image and scikit-learn carry for their own examples, found without importing either.
PHOTOGRAPHS = {
    "skimage": (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
MADE = 8


def run(folder: Path, *, threads: int = 2, progress: Progress | None = None) -> DemoRecord:
    """Convert to float32 and int8 into `folder`, measure both at one thread in quick mode, compare them on photographs.

    Raises what converting and measuring raise.
    """
    begin = time.perf_counter()
    progress = progress or Silent()
    float_model.require_host()
    weights.check(scaling.network(VARIANT), "imagenet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder} ({error.strerror}); choose another with --output"
        ) from error
    float_path, int8_path = (folder / f"{VARIANT}_{scheme}.tflite" for scheme in ("float32", "int8"))
    float_conversion = conversion.convert(
        conversion.Source(variant=VARIANT), scheme="float32", output=float_path, progress=progress
    )
    int8_conversion = conversion.convert(
        conversion.Source(model=float_path), scheme="int8", output=int8_path, threads=threads, progress=progress
    )
    protocol = profile.QUICK
    progress.stage("measure float32 and int8 in turn", 2 * protocol.processes)
    float_profile, int8_profile = profile.measure([float_path, int8_path], protocol=protocol, tick=progress.tick)
    progress.stage("compare on sample photographs")
    photographs = tuple(_compare(float_path, int8_path))
    return DemoRecord(
        runtime=runtime.runtime(),
        device=this_device(),
        packages=versions("ai-edge-litert", "litert-quantizer", "tensorflow", "numpy"),
        float_conversion=float_conversion,
        int8_conversion=int8_conversion,
        float_profile=float_profile,
        int8_profile=int8_profile,
        latency_ratio=int8_profile.latency.p50_s / float_profile.latency.p50_s,
        size_ratio=int8_profile.model.size_bytes / float_profile.model.size_bytes,
        photographs=photographs,
        agreement=float(np.mean([photo.float_class == photo.int8_class for photo in photographs])),
        seconds=round(time.perf_counter() - begin, 3),
    )


def photographs() -> tuple[Path, ...]:
    """Return the sample photographs that are installed; none when their packages are not."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec is not None else []:
            found += [path for name in names if (path := Path(root) / FOLDERS[package] / name).is_file()]
    return tuple(found)


def _samples(height: int, width: int) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    paths = photographs()
    for path in paths:
        yield path.stem, images.load(path, height, width)
    if not paths:
        for index, pixels in enumerate(synthetic.images(MADE, height, width, seed=2)):
            yield f"made by edgeeff, {index + 1}", pixels


def _compare(float_path: Path, int8_path: Path) -> Iterator[DemoPhotograph]:
    contents = [path.read_bytes() for path in (float_path, int8_path)]
    sessions = [runtime.Session(content) for content in contents]
    embedded = metadata.read(contents[0])
    labels = embedded.labels if embedded is not None and embedded.labels else None
    _, height, width, _ = sessions[0].input.shape
    for name, pixels in _samples(height, width):
        best = []
        for session in sessions:
            scores = session.run(pixels)
            index = int(scores.argmax())
            best.append((labels[index] if labels else f"class {index}", float(scores[index])))
        (float_class, float_score), (int8_class, int8_score) = best
        yield DemoPhotograph(name, float_class, float_score, int8_class, int8_score)
