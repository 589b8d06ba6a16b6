"""Size and latency of one network in every scheme, as ratios to float32: what the scheme table claims.

    python -m tests.benchmarks.scheme_costs [--variant b0] [--runs 3]

Random weights; LiteRT with XNNPACK, one thread, the files measured in turn. What a mixed file costs depends on its
goal: mixed_precision.py says that.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from edgeeff.converters import convert
from edgeeff.converters.schemes import MIXED, SCHEMES
from edgeeff.devices import profile


def main() -> None:
    """Convert to every scheme, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="b0")
    parser.add_argument("--runs", type=int, default=3, help="processes for each file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {scheme: folder / f"{scheme}.tflite" for scheme in SCHEMES if scheme != MIXED}
        convert.convert(
            convert.Source(variant=arguments.variant, weights="none"), scheme="float32", output=paths["float32"]
        )
        for scheme, path in paths.items():
            if scheme != "float32":
                convert.convert(convert.Source(model=paths["float32"]), scheme=scheme, output=path)
        protocol = profile.Protocol("full", processes=arguments.runs, options={"duration_s": 3.0, "runs": 5})
        records = profile.measure(list(paths.values()), threads=1, protocol=protocol)
    base = records[0]
    runtime = f"{base.runtime.name} {base.runtime.version}" if base.runtime else "unknown runtime"
    print(f"{arguments.variant}, {runtime}, 1 thread, {base.device.cpu}")
    print(f"{'scheme':12s} {'MB':>7s} {'of float32':>11s} {'p50 ms':>9s} {'of float32':>11s}")
    for scheme, record in zip(paths, records, strict=True):
        size, latency = record.model.size_bytes, record.latency.p50_s
        print(
            f"{scheme:12s} {size / 1e6:7.1f} {size / base.model.size_bytes:11.2f} "
            f"{latency * 1e3:9.2f} {latency / base.latency.p50_s:11.2f}"
        )


if __name__ == "__main__":
    main()
