"""What the readers of other people's files do with damaged ones: runs, crashes and the most memory.

    python -m tests.benchmarks.fuzz_readers [--seconds 60] [--files DIR] [--seed 1] [--keep DIR] [READER ...]

Readers: `compiled` (a file for the Edge TPU), `log` (what its compiler prints), `file` (any .tflite, as `edgeeff
inspect` reads it before LiteRT is asked, with its metadata and what is said before compiling). DIR has real ones:
*.tflite, and logs as *.log and *.txt, wherever below it; without it edge_tpu in the folder that EDGEEFF_SHARED names,
or beside the project; without that files that the tests make. Each reader has a process of its own, the same share of
the time, and a limit of 1 GiB. A crash is any error that is not edgeeff's own, a run of more than ten seconds, or the
end of the process; what crashed is kept in `--keep`. Memory is the peak of the process above what it had after reading
each file once. The exit code is 1 when something crashed, or took more than 200 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

SHARED = Path(os.environ.get("EDGEEFF_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "edge_tpu"
READERS = ("compiled", "log", "file")
LIMIT_BYTES = 1 << 30
MOST_BYTES = 200e6
SLOW_S = 10.0
PAGE = 256
MOST_TEXT = 8 << 20
NUMBERS = (0, 1, 2, 4, 7, 8, 127, 128, 255, 256, 32_767, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
WORDS = ("", "9" * 40, "-1", "1e9", "0.00B", "9" * 15 + "KiB", "\x00", "\u2028", "A" * 5_000, "Input: ", "ADD 1 x")


def main() -> int:
    """Start a process for each reader, and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together")
    parser.add_argument("--files", type=Path, default=SHARED)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for what crashed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    readers: Sequence[str] = arguments.readers or READERS
    if unknown := set(readers) - set(READERS):
        parser.error(f"there is no reader {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    if arguments.child:
        print(json.dumps(fuzz(readers[0], arguments.files, arguments.seconds, arguments.seed, arguments.keep)))
        return 0
    failed = False
    print(f"{'reader':9s} {'files':>5s} {'runs':>8s} {'refused':>8s} {'crashes':>7s} {'memory above start, MB':>22s}")
    for name in readers:
        seconds = arguments.seconds / len(readers)
        options = {"--seconds": seconds, "--seed": arguments.seed, "--files": arguments.files, "--keep": arguments.keep}
        given = [text for option, value in options.items() if value is not None for text in (option, str(value))]
        command = [sys.executable, "-m", "tests.benchmarks.fuzz_readers", name, "--child", *given]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode:
            print(f"{name:9s} its process ended with {child.returncode}")
            failed = True
            continue
        said = json.loads(child.stdout)
        grown = said["grown_bytes"]
        failed = failed or bool(said["crashes"]) or grown > MOST_BYTES
        print(
            f"{name:9s} {said['files']:5d} {said['runs']:8d} {said['refused']:8d} {said['crashes']:7d} "
            f"{grown / 1e6:22.1f}"
        )
        for line in said["kinds"]:
            print(f"  {line}")
    return int(failed)


def fuzz(name: str, folder: Path, seconds: float, seed: int, keep: Path | None) -> dict[str, Any]:
    """Read damaged files with one reader until the time is up; return what came of it."""
    from edgeeff.errors import EdgeeffError

    read = reader(name)
    seeds = originals(name, folder)
    refused = 0
    for content in seeds:
        try:
            read(content)
        except EdgeeffError:
            refused += 1
    if refused == len(seeds):
        raise SystemExit(f"{name} reads none of the {len(seeds)} files of {folder}: there is nothing to damage")
    damage = damage_text if name == "log" else Damage(seeds)
    start = peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + LIMIT_BYTES,) * 2)
    signal.signal(signal.SIGALRM, too_long)
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    runs = refused = crashes = 0
    kinds: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = damage(dice, dice.choice(seeds))
        runs += 1
        signal.setitimer(signal.ITIMER_REAL, SLOW_S)
        try:
            read(content)
        except EdgeeffError:
            refused += 1
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any other is what is looked for
            crashes += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(place.filename).name} line {place.lineno}: {str(error)[:80]}"
            if kind not in kinds and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)
            kinds[kind] = kinds.get(kind, 0) + 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        "files": len(seeds),
        "runs": runs,
        "refused": refused,
        "crashes": crashes,
        "grown_bytes": peak_bytes() - start,
        "kinds": [f"{count} x {kind}" for kind, count in kinds.items()],
    }


def reader(name: str) -> Callable[[bytes], object]:
    """Return what reads a file's bytes."""
    from edgeeff.converters import inspect, metadata, preflight
    from edgeeff.converters.edgetpu import compiled, log

    def whole_file(content: bytes) -> object:
        return inspect.parse(content), metadata.read(content), preflight.foresee(content)

    def text(content: bytes) -> object:
        return log.parse(content.decode("utf-8", "replace"))

    return {"compiled": compiled.read, "log": text, "file": whole_file}[name]


def originals(name: str, folder: Path) -> list[bytes]:
    """Return the real files for a reader, or ones that the tests make."""
    endings = {".log", ".txt"} if name == "log" else {".tflite"}
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in endings]
    if found:
        return found
    from tests import edge_tpu_files as made

    return [made.success("a", "b").encode()] if name == "log" else [made.WHOLE, made.PLAIN]


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SLOW_S:g} s")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


class Damage:
    """Damages .tflite files, mostly where their tables are: weights are what nobody looks at."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self._files = files
        self._pages = {content: self._tables(content) for content in files}

    def __call__(self, dice: random.Random, content: bytes) -> bytes:
        """Return a damaged copy."""
        pages = self._pages[content]
        changed = bytearray(content)
        for _ in range(dice.choice((1, 1, 1, 2, 3, 5, 8, 20))):
            place = dice.choice(pages) * PAGE + dice.randrange(PAGE)
            place = min(place, len(changed) - 8) if len(changed) > 8 else 0
            choice = dice.random()
            if choice < 0.35:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            elif choice < 0.75:
                width = dice.choice((1, 2, 4, 4, 4, 8))
                aligned = place // width * width
                changed[aligned : aligned + width] = (dice.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
            elif choice < 0.85:
                width = dice.choice((4, 16, 64))
                other = dice.choice(pages) * PAGE
                changed[place : place + width] = content[other : other + width]
            elif choice < 0.9:
                source = dice.choice(self._files)
                start = dice.randrange(len(source))
                changed[place : place + PAGE] = source[start : start + PAGE]
            elif choice < 0.95:
                del changed[place : place + dice.choice((1, 4, PAGE))]
            elif choice < 0.98:
                changed[place:place] = bytes(dice.choice((1, 4, PAGE)))
            else:
                del changed[max(8, place) :]
        return bytes(changed)

    @staticmethod
    def _tables(content: bytes) -> list[int]:
        """Return the pages with many zeros, as tables of small offsets have; weights have few."""
        pages = range(len(content) // PAGE + 1)
        found = [page for page in pages if content[page * PAGE : (page + 1) * PAGE].count(0) > PAGE // 5]
        return found or list(pages)


def damage_text(dice: random.Random, content: bytes) -> bytes:
    """Damage an output of the compiler: lines are lost, doubled and swapped, figures and letters changed."""
    lines = content.decode("utf-8", "replace").splitlines(keepends=True)
    for _ in range(dice.choice((1, 2, 3, 5, 10))):
        place = dice.randrange(len(lines) or 1)
        choice = dice.random()
        if not lines:
            lines = [dice.choice(WORDS)]
        elif choice < 0.2:
            del lines[place]
        elif choice < 0.4:
            line = lines[dice.randrange(len(lines))]
            lines[place:place] = [line] * dice.choice((1, 2, min(20_000, MOST_TEXT // max(1, len(line)))))
        elif choice < 0.6:
            parts = lines[place].split(" ")
            parts[dice.randrange(len(parts))] = dice.choice(WORDS)
            lines[place] = " ".join(parts)
        elif choice < 0.8:
            cut = dice.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut] + dice.choice(WORDS) + lines[place][cut:]
        elif choice < 0.9:
            raw = bytearray(lines[place].encode())
            raw[dice.randrange(len(raw) or 1) : 0] = bytes([dice.randrange(256)])
            lines[place] = raw.decode("utf-8", "replace")
        else:
            lines = lines[: place + 1]
    return "".join(lines)[:MOST_TEXT].encode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
