"""A folder with a tiny baseline, its int8 and float16 files, and images in class folders, to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from edgeeff.converters import metadata
from edgeeff.converters.float_model import finish
from edgeeff.converters.quantize import collect_ranges, quantize
from edgeeff.converters.schemes import SCHEMES
from tests import tiny

COUNT = 60
NAMES = tuple(f"class{number}" for number in range(5))


def lay(folder: Path) -> Path:
    """Make float.tflite, int8.tflite, half.tflite and val/, where the baseline is right on five sixths."""
    content = tiny.classifier()
    (folder / "float.tflite").write_bytes(content)
    model = finish(content)
    ranges = collect_ranges(model, tiny.images(24))
    for scheme, name in (("int8", "int8.tflite"), ("float16", "half.tflite")):
        kind: Any = SCHEMES[scheme].input_type
        quantized = quantize(model, SCHEMES[scheme], ranges, input_type=kind, output_type="float32")
        contract = metadata.InputContract(8, 8, 3, kind)
        (folder / name).write_bytes(
            metadata.embed(quantized, name=name, description="", labels=None, contract=contract, provenance={})
        )
    for name in NAMES:
        (folder / "val" / name).mkdir(parents=True)
    for number, pixels in enumerate(tiny.images(COUNT, seed=5)):
        label = (int(tiny.run(content, pixels).argmax()) + (number % 6 == 0)) % 5
        Image.fromarray(pixels).save(folder / "val" / NAMES[label] / f"{number:03}.png")
    return folder
