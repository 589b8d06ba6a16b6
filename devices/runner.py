"""The one file that runs on a board: it loads a .tflite file, runs it, and reports as JSON lines on standard output.

Standard library, NumPy and whichever runtime is there (LiteRT or tflite-runtime); Python 3.9 and later. One process is
one repeat: import, load, first inference, warm-up, then timed runs. Times are seconds, sizes bytes.

    python runner.py '{"model": "b2_int8.tflite", "threads": 1}'
"""

import json
import resource
import sys
import time

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


def send(event, **fields):
    """Write one event as a JSON line."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def resident():
    """Return the resident memory of this process in bytes, 0 where /proc is missing."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - nothing is imported that is not needed
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_resident():
    """Return the largest resident memory of this process so far in bytes.

    VmHWM, not getrusage: ru_maxrss of a forked child begins with its parent's memory.
    """
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load_runtime():
    """Return the interpreter class, the runtime's name and its version."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        name = "ai-edge-litert"
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

        name = "tflite-runtime"
    from importlib import metadata

    return Interpreter, name, metadata.version(name)


def median(values):
    """Return the middle of the values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timed(interpreter):
    """Run once; return wall seconds."""
    begin = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - begin


def warm_up(interpreter, options):
    """Run until two windows' medians agree; return the number of runs and whether they did."""
    begin = time.perf_counter()
    times = []
    while True:
        times.append(timed(interpreter))
        spent = time.perf_counter() - begin
        if len(times) >= options["warmup_runs"] and spent >= options["warmup_s"]:
            before, after = times[-2 * WINDOW : -WINDOW] or times[:1], times[-WINDOW:]
            if abs(median(after) - median(before)) < STABLE * median(before):
                return len(times), True
        if spent >= options["warmup_limit_s"]:
            return len(times), False


def measure(interpreter, options):
    """Run for the asked time and count, sending the latencies between stretches; return wall and CPU seconds."""
    count, spent, wall, cpu = 0, 0.0, 0.0, 0.0
    while count < options["runs"] or spent < options["duration_s"]:
        times = []
        begin, begin_cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < REPORT_EVERY_S:
            times.append(timed(interpreter))
        wall += time.perf_counter() - begin
        cpu += time.process_time() - begin_cpu
        count += len(times)
        spent += sum(times)
        send("latencies", latencies_s=times)
    return wall, cpu


def main():
    """Measure one model in this process."""
    options = {**DEFAULTS, **json.loads(sys.argv[1])}
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
    main()
