"""Images per second of `edgeeff evaluate`, beside the bound of this machine and the loop that a user writes.

    python -m tests.benchmarks.evaluate_throughput [--model FILE --baseline FILE] [--data DIR] [--images N] [--many N]

The bound is what the interpreters alone do on arrays that are ready, in as many processes as there are cores. The loop
is one process that decodes with Pillow and runs both models with as many threads as there are cores. Without --data it
makes photographs of its own, as JPEG files of 400 x 330 pixels. --many N also says how much more memory N images take
than the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from edgeeff.calibration import images, synthetic
from edgeeff.converters.convert import Source, convert
from edgeeff.converters.runtime import Session
from edgeeff.evaluation import engine, workers

SPREAD = 40
"""Different photographs that are made; the rest are copies under other names."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--many", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, baseline = options.model, options.baseline
        if model is None or baseline is None:
            model, baseline = folder / "lite0_int8.tflite", folder / "lite0_float32.tflite"
            convert(Source(variant="lite0"), output=model)
            convert(Source(variant="lite0"), scheme="float32", output=baseline)
        paths = sorted(options.data.rglob("*.[jJ][pP]*[gG]")) if options.data else photographs(folder)
        files = listing(folder / "set.csv", paths, options.images)
        cores = workers.cores()
        print(f"{options.images} images, {cores} cores, {model.name} against {baseline.name}")
        ours = evaluated(model, baseline, folder / "set.csv")
        bound = alone(model, baseline, files, cores)
        loop = plain(model, baseline, files, cores)
        print(f"{'':24}{'images/s':>10}{'of the bound':>14}")
        for what, rate in (("interpreters alone", bound), ("edgeeff evaluate", ours), ("the plain loop", loop)):
            print(f"{what:24}{rate:>10.1f}{rate / bound:>14.2f}")
        if options.many:
            few = memory(model, baseline, folder / "set.csv")
            listing(folder / "many.csv", paths, options.many)
            many = memory(model, baseline, folder / "many.csv")
            print(f"peak memory of the main process: {few / 1e6:.0f} MB for {options.images} images, ", end="")
            print(f"{many / 1e6:.0f} MB for {options.many}: {(many - few) / 1e6:+.0f} MB")


def photographs(folder: Path) -> list[Path]:
    paths = []
    for number, pixels in enumerate(synthetic.images(SPREAD, 330, 400)):
        paths.append(folder / f"{number:05}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=85)
    return paths


def listing(path: Path, paths: list[Path], count: int) -> list[Path]:
    files = [paths[number % len(paths)] for number in range(count)]
    # Links, since a set has no file twice.
    links = path.with_suffix("")
    links.mkdir()
    for number, file in enumerate(files):
        (links / f"{number:06}.jpg").symlink_to(file.resolve())
    lines = [f"{path.stem}/{number:06}.jpg,{number % 5}" for number in range(count)]
    path.write_text("\n".join(["file,label", *lines]) + "\n")
    return files


def evaluated(model: Path, baseline: Path, data: Path) -> float:
    (record,) = engine.evaluate(engine.Plan(models=(model,), baseline=baseline, data=data))
    timing = record.timing
    print(
        f"ours in ms an image and worker: decoding {timing.decode_s / record.data.images * 1e3:.2f}, baseline "
        f"{timing.baseline_s / record.data.images * 1e3:.2f}, model {timing.model_s / record.data.images * 1e3:.2f}; "
        f"{timing.workers} workers, {timing.threads} thread(s)"
    )
    return timing.images_per_s


def alone(model: Path, baseline: Path, files: list[Path], cores: int) -> float:
    """Return images per second of both interpreters in every core's process; each counts from when all are ready."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(cores)
    share = [str(file) for file in files[: max(16, len(files) // 8)]]
    with ProcessPoolExecutor(cores, context, _keep, (ready,)) as pool:
        jobs = [pool.submit(_alone, str(model), str(baseline), share, len(files) // cores) for _ in range(cores)]
        return sum(job.result() for job in jobs)


def _keep(ready: object) -> None:
    globals()["READY"] = ready


def _alone(model: str, baseline: str, files: list[str], count: int) -> float:
    sessions = [Session(Path(path).read_bytes()) for path in (baseline, model)]
    shape = sessions[0].input.shape
    arrays = [images.load(path, shape[1], shape[2]) for path in files]
    for session in sessions:
        session.run(arrays[0])
    globals()["READY"].wait()
    begin = time.perf_counter()
    for start in range(0, count, 16):
        batch = [arrays[(start + number) % len(arrays)] for number in range(min(16, count - start))]
        for session in sessions:
            for pixels in batch:
                session.run(pixels)
    return count / (time.perf_counter() - begin)


def plain(model: Path, baseline: Path, files: list[Path], cores: int) -> float:
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [Interpreter(str(path), num_threads=cores) for path in (baseline, model)]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    _, height, width, _ = interpreters[0].get_input_details()[0]["shape"]
    begin = time.perf_counter()
    for file in files:
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))[np.newaxis]
        for interpreter in interpreters:
            detail = interpreter.get_input_details()[0]
            interpreter.set_tensor(detail["index"], pixels.astype(detail["dtype"]))
            interpreter.invoke()
            interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax()
    return len(files) / (time.perf_counter() - begin)


def memory(model: Path, baseline: Path, data: Path) -> int:
    """Return the peak memory in bytes of a process that evaluates; that of its workers does not depend on the set."""
    child = os.fork()
    if child == 0:
        engine.evaluate(engine.Plan(models=(model,), baseline=baseline, data=data))
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit("the evaluation failed")
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
