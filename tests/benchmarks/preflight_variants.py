"""Make every named variant for the Edge TPU, with random weights and few pixels; say what is known before compiling.

    python -m tests.benchmarks.preflight_variants [--resolution 64] [NAME ...]
    python -m tests.benchmarks.preflight_variants --folder FOLDER

Parameters are the same at every resolution, and so are operators, but for a PAD in edgetpu-l where sizes are even. NAME
is a variant or a number (a phi). With a FOLDER its .tflite files are looked at as they are; float ones are made int8
for the Edge TPU with made-up ranges, which operators do not depend on, and without TensorFlow. Where an operator is not
mapped, the exit status is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeeff import scaling
from edgeeff.converters import convert, quantize
from edgeeff.converters.edgetpu import exact
from edgeeff.converters.graph import Graph
from edgeeff.converters.preflight import foresee
from edgeeff.converters.schemes import scheme
from edgeeff.errors import ModelError
from edgeeff.progress import Silent

PHIS = ("-2", "-1", "0.5", "1.5", "2.5")


def made(names: list[str], resolution: int) -> Iterator[tuple[str, bytes]]:
    """Convert one after the other; raises CalledProcessError when one cannot be."""
    for name in names:
        option = "--variant" if name in scaling.VARIANTS else "--phi"
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "made.tflite"
            command = [
                *(sys.executable, "-m", "edgeeff", "convert", f"{option}={name}", "--weights", "none", "--edge-tpu"),
                *("--resolution", str(resolution), "--samples", "4", "--output", str(output), "--json"),
            ]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=3600)
            yield name, output.read_bytes()


def found(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Read the .tflite files of a folder, and quantize those that compute in float."""
    for path in sorted(folder.glob("*.tflite")):
        content = path.read_bytes()
        yield path.stem, content if foresee(content).count("mapped") else quantized(path)


def quantized(path: Path) -> bytes:
    """Make a float file int8, each tensor from -1 to 1."""
    model, _ = convert.float_file(convert.Source(model=path), convert.Interface(), Silent())
    graph = Graph(model.content)
    names = {graph.name(int(index)) for operator in graph.operators for index in operator.outputs}
    ranges: quantize.Ranges = dict.fromkeys(names, (-1.0, 1.0)) | quantize.known_ranges(model)
    return exact.rewrite(quantize.quantize(model, scheme("int8"), ranges, input_type="uint8", output_type="uint8"))


def main() -> int:
    """Print a line for each file; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*scaling.VARIANTS, *PHIS])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    left = 0
    sizes = f"{'params MB':>9s} {'sent MB':>7s}"
    print(f"{'':22s} {'verdict':8s} {'mapped':>6s} {'not':>4s} {'unknown':>7s} {sizes}  first left")
    files = found(arguments.folder) if arguments.folder else made(arguments.names, arguments.resolution)
    for name, content in files:
        try:
            forecast = foresee(content)
        except ModelError as error:
            print(f"{name:22s} {error}", flush=True)
            continue
        counts = (forecast.count("mapped"), forecast.count("not mapped"), forecast.count("unknown"))
        sizes = f"{forecast.parameter_bytes / 1e6:9.2f} {forecast.streamed_bytes / 1e6:7.2f}"
        first = forecast.cpu_at_worst
        print(
            f"{name:22s} {forecast.verdict:8s} {counts[0]:6d} {counts[1]:4d} {counts[2]:7d} {sizes}  "
            f"{first.name if first.first is not None else '-'}",
            flush=True,
        )
        left += counts[1]
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
