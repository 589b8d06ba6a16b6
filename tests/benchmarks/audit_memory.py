"""What an audit takes: peak memory with few and with many images, and time by what is done.

    python -m tests.benchmarks.audit_memory [--images 10000]

Both sides are processes of their own that audit a folder of small images of noise, made once. The network is a tiny one
with swish, so that what is kept of the images shows, not the network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests import tiny

SIDE, FEW = 16, 100
CHILD = """
import json, resource, sys, time
from pathlib import Path
from edgeeff.auditing.audit import Plan, audit
from edgeeff.auditing.network import open_network
from edgeeff.converters.convert import Source
from edgeeff.progress import Silent
network = open_network(Source(model=Path(sys.argv[2])), None, None, Silent())
begin = time.process_time()
record = audit(Plan(Path(sys.argv[1]), samples=10**9), network)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([record.ranges.images, peak, time.process_time() - begin]))
"""


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "few").mkdir()
        (folder / "many").mkdir()
        random = np.random.default_rng(0)
        for number in range(count):
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            for kind in ("many", "few") if number < FEW else ("many",):
                Image.fromarray(pixels).save(folder / kind / f"{number:06}.png", compress_level=1)
        (folder / "model.tflite").write_bytes(tiny.swish_classifier())
        peaks = []
        for kind in ("few", "many"):
            command = [sys.executable, "-c", CHILD, str(folder / kind), str(folder / "model.tflite")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            images, peak, seconds = json.loads(done.stdout)
            peaks.append(peak)
            print(f"{images:>7,} images: peak {peak / 1e6:6.1f} MB, {seconds / images * 1e3:5.2f} ms of CPU per image")
    print(f"{(peaks[1] - peaks[0]) / 1e6:.1f} MB more; at most 100 are allowed")


if __name__ == "__main__":
    main()
