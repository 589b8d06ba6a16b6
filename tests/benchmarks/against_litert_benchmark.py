"""The local profile's p50 against `litert-benchmark`, which comes with LiteRT.

    python -m tests.benchmarks.against_litert_benchmark [MODEL.tflite] [--threads 1] [--rounds 10] [--runs 300]

Processes of both alternate, each loads the file, warms up and measures; compared are their p50, round by round, and
their p5, which says more where the machine is busy with other things.
Without MODEL, Lite0 is converted to int8 (with its real weights, where they are installed).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeeff.devices import events, runner

WARM_UP_RUNS = 20


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = arguments.model or lite0(Path(name))
        print(f"{model.name}, {arguments.threads} threads, {arguments.rounds} processes each, in turn")
        pairs = []
        for _ in range(arguments.rounds):
            left = theirs(model, arguments.threads, arguments.runs, Path(name))
            pairs.append((left, ours(model, arguments.threads, arguments.runs)))
    for index, what in enumerate(("p50", "p5")):
        ratios = [right[index] / left[index] for left, right in pairs]
        them, us = (statistics.median(figures[index] for figures in column) for column in zip(*pairs, strict=True))
        print(
            f"  {what:4s} litert-benchmark {them * 1e3:8.3f} ms   edgeeff {us * 1e3:8.3f} ms   "
            f"ratio {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})   goal 0.95 to 1.05"
        )


def lite0(folder: Path) -> Path:
    """Convert Lite0 to int8."""
    from edgeeff.converters.convert import Source, convert

    convert(Source(variant="lite0"), output=folder / "lite0_int8.tflite")
    return folder / "lite0_int8.tflite"


def theirs(model: Path, threads: int, runs: int, folder: Path) -> tuple[float, float]:
    """Return p50 and p5 in seconds as litert-benchmark finds them."""
    command = shutil.which("litert-benchmark", path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit("there is no litert-benchmark beside this Python; install ai-edge-litert 2.3")
    result = folder / "theirs.json"
    options = [f"--num_threads={threads}", f"--num_runs={runs}", f"--warmup_runs={WARM_UP_RUNS}"]
    run([command, f"--model={model}", f"--result_json={result}", *options])
    latency = json.loads(result.read_text())["latency"]
    return float(latency["median_ms"]) / 1e3, float(latency["p5_ms"]) / 1e3


def ours(model: Path, threads: int, runs: int) -> tuple[float, float]:
    """Return p50 and p5 in seconds as the runner finds them."""
    asked = {"model": str(model), "threads": threads, "runs": runs, "duration_s": 0.0, "warmup_runs": WARM_UP_RUNS}
    said = run([sys.executable, runner.__file__, json.dumps(asked | {"warmup_s": 0.0})])
    latencies: list[float] = []
    for event in events.read(said.splitlines()):
        latencies += event.get("latencies_s", [])
    return statistics.median(latencies), statistics.quantiles(latencies, n=20, method="inclusive")[0]


def run(command: list[str]) -> str:
    """Run it to its end; return what it prints."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if finished.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{finished.stdout[-2000:]}\n{finished.stderr[-2000:]}")
    return finished.stdout


if __name__ == "__main__":
    main()
