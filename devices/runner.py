"""The one file that runs on a board: it loads a .tflite file, runs it, and reports as JSON lines on standard output.

Standard library, NumPy and whichever runtime is there (LiteRT or tflite-runtime); Python 3.9 and later. One process is
one repeat: import, load, first inference, warm-up, then timed runs. Times are seconds, sizes bytes.

    python runner.py '{"model": "b2_int8.tflite", "threads": 1}'
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

DEFAULTS = {
    "threads": 1,
    "warmup_runs": 10,  # at least
    "warmup_s": 2.0,  # at least
    "warmup_limit_s": 30.0,  # then the device is called not stable
    "runs": 200,  # at least
    "duration_s": 10.0,  # at least
    "seed": 0,
}
STABLE = 0.02  # two windows' medians closer than this are stable
WINDOW = 10  # runs
REPORT_EVERY_S = 1.0  # between timed stretches, never inside one


def send(event: str, **fields: Any) -> None:
    """Write one event as a JSON line."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def resident() -> int:
    """Return the resident memory of this process in bytes, 0 where /proc is missing."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_resident() -> int:
    """Return the largest resident memory of this process so far in bytes.

    VmHWM, not getrusage: ru_maxrss of a forked child begins with its parent's memory.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load_runtime() -> tuple[Any, str, str]:
    """Return the interpreter class, the runtime's name and its version."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        name = "ai-edge-litert"
    except ImportError as without_litert:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                f"neither ai-edge-litert ({without_litert}) nor tflite-runtime ({error}) can be imported; "
                "install one of them: python -m pip install ai-edge-litert"
            ) from error
        name = "tflite-runtime"
    from importlib import metadata

    try:
        return Interpreter, name, metadata.version(name)
    except metadata.PackageNotFoundError:  # unpacked or built by hand
        return Interpreter, name, "unknown"


def median(values: list[float]) -> float:
    """Return the middle of the values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timed(interpreter: Any) -> float:
    """Run once; return wall seconds."""
    begin = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - begin


def warm_up(interpreter: Any, options: dict[str, Any]) -> tuple[int, bool]:
    """Run until two windows' medians agree; return the number of runs and whether they did."""
    begin = time.perf_counter()
    times: list[float] = []
    while True:
        times.append(timed(interpreter))
        spent = time.perf_counter() - begin
        if len(times) >= options["warmup_runs"] and spent >= options["warmup_s"]:
            before, after = times[-2 * WINDOW : -WINDOW] or times[:1], times[-WINDOW:]
            if abs(median(after) - median(before)) < STABLE * median(before):
                return len(times), True
        if spent >= options["warmup_limit_s"]:
            return len(times), False


def measure(interpreter: Any, options: dict[str, Any]) -> tuple[float, float]:
    """Run for the asked time and count, sending the latencies between stretches; return wall and CPU seconds."""
    count, wall, cpu = 0, 0.0, 0.0
    stretch = min(REPORT_EVERY_S, options["duration_s"])
    while count < options["runs"] or wall < options["duration_s"]:
        times: list[float] = []
        begin, begin_cpu = time.perf_counter(), time.process_time()
        while not times or time.perf_counter() - begin < stretch:
            times.append(timed(interpreter))
        wall += time.perf_counter() - begin
        cpu += time.process_time() - begin_cpu
        count += len(times)
        send("latencies", latencies_s=times)
    return wall, cpu


def main(argument: str) -> None:
    """Measure one model in this process; `argument` is a JSON object with the model's path and options."""
    options: dict[str, Any] = {**DEFAULTS, **json.loads(argument)}
    begin = time.perf_counter()
    import numpy

    interpreter_class, name, version = load_runtime()
    imported = time.perf_counter()
    send("imported", import_s=imported - begin, runtime=name, version=version, rss_bytes=resident())

    begin = time.perf_counter()
    interpreter = interpreter_class(model_path=options["model"], num_threads=options["threads"])
    interpreter.allocate_tensors()
    send("loaded", load_s=time.perf_counter() - begin, rss_bytes=resident())

    detail = interpreter.get_input_details()[0]
    noise = numpy.random.default_rng(options["seed"]).integers(0, 256, detail["shape"])
    if detail["dtype"] == numpy.int8:
        noise = noise - 128
    interpreter.set_tensor(detail["index"], noise.astype(detail["dtype"]))
    send("first", first_inference_s=timed(interpreter))

    runs, stable = warm_up(interpreter, options)
    send("warm", runs=runs, stable=stable)
    wall, cpu = measure(interpreter, options)
    send("done", wall_s=wall, cpu_s=cpu, peak_rss_bytes=peak_resident())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # Python looks for modules beside this file first, where profile.py has the name of one of Python's own.
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    try:
        main(sys.argv[1])
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
