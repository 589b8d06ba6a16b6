"""CPU time of `edgeeff --help` beside that of an empty Python and of one that imports TensorFlow.

python -m tests.benchmarks.help_time [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

SIDES = {
    "python -c pass": ["-c", "pass"],
    "edgeeff --help": ["-m", "edgeeff", "--help"],
    "import tensorflow": ["-c", "import tensorflow"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """Run Python with the arguments; return its user and system seconds."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=120)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print the medians; the goal is that the help costs at most 0.2 s."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times = {side: [cpu_seconds(arguments) for _ in range(repeats)] for side, arguments in SIDES.items()}
    help_s = statistics.median(times["edgeeff --help"])
    for side, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{side:20s} {median:6.2f} s CPU   {median / help_s:6.2f} of the help")
    print("goal: edgeeff --help at most 0.20 s")


if __name__ == "__main__":
    main()
