"""What the runner adds: to the time of a run, and to the memory of a process that uses the runtime.

    python -m tests.benchmarks.runner_overhead [MODEL.tflite] [--threads 1] [--rounds 20]

Time: stretches of the runner's own loop, with the board's state read between them, against stretches of a bare loop in
the same process, in turn. Memory: the runner up to its first inference against a script that only imports NumPy and
the runtime, loads the file and runs it once. Without MODEL, Lite0 is converted to int8. A model of one operator shows
what the runner's loop costs in itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeeff.devices import events, runner

STRETCH_S = 0.5

BARE = """
import sys
import numpy
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
interpreter.allocate_tensors()
detail = interpreter.get_input_details()[0]
interpreter.set_tensor(detail["index"], numpy.zeros(detail["shape"], detail["dtype"]))
interpreter.invoke()
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096)
"""


def main() -> None:
    """Print both sides and what lies between them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or lite0(Path(folder))
        smallest = Path(folder) / "relu.tflite"
        smallest.write_bytes(runner.RELU)
        print(f"{arguments.threads} threads, {arguments.rounds} rounds of 2 stretches, in turn")
        _, added = overhead(smallest, arguments.threads, arguments.rounds)
        plain, _ = overhead(model, arguments.threads, arguments.rounds)
        print(f"  the loop's own {added * 1e6:.2f} us are {added / plain:.4%} of a run of {model.name}   goal 1 %")
        memory(model, arguments.threads)


def lite0(folder: Path) -> Path:
    """Convert Lite0 to int8."""
    from edgeeff.converters.convert import Source, convert

    convert(Source(variant="lite0"), output=folder / "lite0_int8.tflite")
    return folder / "lite0_int8.tflite"


def overhead(model: Path, threads: int, rounds: int) -> tuple[float, float]:
    """Compare the seconds of a run in a loop that does nothing else, and in the runner's; return the first, and more.

    CPU seconds, because other processes take wall time from both, and the 20th percentile of the stretches, because
    they take caches, too.
    """
    from ai_edge_litert import interpreter as module

    options = {**runner.DEFAULTS, "model": str(model), "threads": threads, "runs": 1, "duration_s": STRETCH_S}
    tree = runner.Tree("/")
    interpreter = runner.open_model(module, tree, options)
    runner.fill_inputs(interpreter, 0)
    runner.warm_up(interpreter, {**options, "warmup_s": 1.0}, lambda phase: None)
    said: list[str] = []
    with contextlib.redirect_stdout(Lines(said)):
        pairs = []
        for number in range(rounds):
            first = bare(interpreter.invoke) if number % 2 else None
            second = ours(interpreter, options, tree, said)
            pairs.append((first or bare(interpreter.invoke), second))
    plain, with_runner = (statistics.quantiles(column, n=5)[0] for column in zip(*pairs, strict=True))
    print(
        f"  {model.name:24s} bare {plain * 1e6:9.2f} us   runner {with_runner * 1e6:9.2f} us   "
        f"ratio {with_runner / plain:.4f}, paired {statistics.median(right / left for left, right in pairs):.4f}"
    )
    return plain, with_runner - plain


class Lines(io.StringIO):
    """Takes what the runner says."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def write(self, text: str) -> int:
        """Keep it."""
        self.lines.append(text)
        return len(text)


def bare(invoke: Callable[[], Any]) -> float:
    """Return the CPU seconds of a run in a loop that looks at the clock once in eight runs."""
    runs = 0
    begin, begin_cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < STRETCH_S:
        for _ in range(8):
            invoke()
        runs += 8
    return (time.process_time() - begin_cpu) / runs


def ours(interpreter: Any, options: dict[str, Any], tree: runner.Tree, said: list[str]) -> float:
    """Return the CPU seconds of a run in the runner's timed region."""
    said.clear()
    usage = runner.measure(interpreter, options, lambda phase: runner.send("state", phase=phase, **runner.state(tree)))
    return usage.cpu_s / sum(len(event.get("latencies_s", ())) for event in events.read(said))


def memory(model: Path, threads: int) -> None:
    """Compare the resident memory after the first inference."""
    asked = {"model": str(model), "threads": threads, "runs": 1, "duration_s": 0.0, "warmup_s": 0.0}
    commands = {
        "bare": [sys.executable, "-c", BARE, str(model), str(threads)],
        "runner": [sys.executable, runner.__file__, json.dumps(asked)],
    }
    found: dict[str, list[int]] = {name: [] for name in commands}
    for _ in range(3):
        for name, command in commands.items():
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
            if name == "bare":
                found[name].append(int(said[-1]))
            else:
                found[name] += [event["rss_bytes"] for event in events.read(said) if event["event"] == "first"]
    plain, with_runner = (statistics.median(values) / 1e6 for values in found.values())
    print(
        f"  memory after the first run   bare {plain:.1f} MB   runner {with_runner:.1f} MB   "
        f"adds {with_runner - plain:.1f} MB   goal 50 MB"
    )


if __name__ == "__main__":
    main()
