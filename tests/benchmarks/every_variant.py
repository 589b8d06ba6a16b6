"""Convert every named variant, and networks between them, to int8 with random weights; print what each takes.

    python -m tests.benchmarks.every_variant [--samples 8] [NAME ...]

NAME is a variant or a number (a phi). A file that does not pass verification ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgeeff import scaling

PHIS = ("-2", "-1", "0.5", "1.5", "2.5")


def main() -> int:
    """Convert one after the other; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*scaling.VARIANTS, *PHIS])
    parser.add_argument("--samples", type=int, default=8)
    arguments = parser.parse_args()
    failed = []
    print(f"{'':10s} {'wall s':>7s} {'float MB':>9s} {'int8 MB':>8s} {'MACs G':>7s} {'correlation':>11s}  XNNPACK")
    for name in arguments.names:
        option = "--variant" if name in scaling.VARIANTS else "--phi"
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(sys.executable, "-m", "edgeeff", "convert", f"{option}={name}", "--weights", "none", "--json"),
                *("--samples", str(arguments.samples), "--output", str(Path(folder) / "made.tflite")),
            ]
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
            wall = time.perf_counter() - begin
        if done.returncode != 0:
            failed.append(name)
            print(f"{name:10s} {wall:7.1f} exit status {done.returncode}: {done.stderr.strip()}", flush=True)
            continue
        record = json.loads(done.stdout)
        delegated = next(check["detail"] for check in record["checks"] if check["name"] == "XNNPACK")
        sizes = f"{record['float_size_bytes'] / 1e6:9.1f} {record['model']['size_bytes'] / 1e6:8.1f}"
        figures = f"{record['macs'] / 1e9:7.3f} {record['agreement']['correlation']:11.3f}"
        print(f"{name:10s} {wall:7.1f} {sizes} {figures}  {delegated.split(';')[0]}", flush=True)
    print(f"{len(arguments.names) - len(failed)} of {len(arguments.names)} converted and verified")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
