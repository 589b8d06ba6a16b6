"""Fine-tuning for int8: the network learns, with its quantization simulated, to say what the float network says.

This is the end that prepares and judges; the training itself runs in a TensorFlow process (`teach`) on a tf_keras twin
of the float .tflite (`twin`). What was learned, weights and ranges, goes back into the float .tflite, which is then
quantized as every other: the file has the same structure, inputs and metadata. An interrupted run is gone on with by
the same command; what it needs for that lies in a folder beside the output until the file is written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters import float_model, quantize, recover, replay, teach, verify
from edgeeff.converters.compress import Compression
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import IoType, Ranges
from edgeeff.converters.recover import INT8, Images, Judge, Plan
from edgeeff.converters.runtime import Session
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, ModelError
from edgeeff.files import make_folder, sha256
from edgeeff.progress import Progress, Silent
from edgeeff.results import Attempt, Finetuning
from edgeeff.version import __version__

DEFAULT_STEPS = 400
LEAST_IMAGES = 16
MOST_IMAGES = 4000
"""More than this are not drawn: no run sees them all."""
MOST_RANGED = 256
"""Images that the first ranges are chosen from."""
LEAST_CLUSTERS, MOST_CLUSTERS = 4, 128
MOST_SPARSITY = 0.95
CHECKS = 16
"""How often the images kept apart are asked, and the state is kept."""
PATIENCE = 10
"""Checks; in the middle of a run, where the rates are large, states are worse than what comes of them."""
TUNED_PACE = 0.1
"""Share of the learning rates where training begins with fitted weights, which only get worse with all of it."""
DAY_S = 86400.0
PACKAGES = {"tf_keras": "tf-keras", "tensorflow_model_optimization": "tensorflow-model-optimization"}
# oneDNN keeps every convolution's weights in an order of its own, which takes memory and gives no time here.
CHILD = (
    "import os, sys; os.environ.update(TF_USE_LEGACY_KERAS='1', TF_ENABLE_ONEDNN_OPTS='0'); "
    "sys.path[:] = sys.argv.pop(1).split(':'); "
    "from edgeeff.converters.teach import main; sys.exit(main())"
)
RANGES, COMPRESSED = "ranges alone", "weights compressed"
FINETUNED = "fine-tuned"

Labels = npt.NDArray[np.int64]
Classes = Callable[[int, Sequence[str] | None], Mapping[str, int]]
"""Tells the class index of each class folder, from the network's number of classes and their names, where known."""


@dataclass(frozen=True)
class Finetune:
    """What to fine-tune with, for how long, and what shall become of the weights."""

    folder: Path
    steps: int = DEFAULT_STEPS
    classes: Classes | None = None
    """Learn the labels of the class folders, too; None learns from the float network alone."""
    sparsity: float = 0.0
    """Share of the weights of pointwise convolutions that becomes zero."""
    clusters: int = 0
    """How many different values the weights of a pointwise convolution keep; 0 leaves all 255."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"cannot fine-tune for {self.steps} steps: take 1 or more, such as {DEFAULT_STEPS}")
        if not 0 <= self.sparsity <= MOST_SPARSITY:
            raise InputError(f"--prune {self.sparsity:g} is no share of weights from 0 to {MOST_SPARSITY}, such as 0.5")
        if self.clusters and not LEAST_CLUSTERS <= self.clusters <= MOST_CLUSTERS:
            raise InputError(f"--cluster {self.clusters} is out of {LEAST_CLUSTERS} to {MOST_CLUSTERS}, such as 16")

    @property
    def compression(self) -> Compression:
        """What becomes of the weights."""
        return Compression(self.sparsity, self.clusters)


def require() -> None:
    """Raise MissingExtraError where the packages that fine-tune are not installed."""
    float_model.require_host()
    for module, package in PACKAGES.items():
        if util.find_spec(module) is None:
            raise MissingExtraError(f"{package}, needed to fine-tune,", "host")


def apart(images: int) -> int:
    """Return how many of a folder's images judge and teach nothing: the first that are drawn.

    Raises CalibrationError when there are too few.
    """
    if images < LEAST_IMAGES:
        raise CalibrationError(
            f"{images} images are too few to fine-tune with: at least {LEAST_IMAGES} are needed, a few hundred are good"
        )
    return min(recover.MOST_JUDGES, max(1, round(images * recover.KEPT_APART)))


def checkpoints(output: Path) -> Path:
    """Return the folder beside an output in which a run keeps its state until the file is written."""
    return output.with_name(f"{output.name}.finetuning")


def forget(output: Path) -> None:
    """Remove what an output's run kept; only files that a run writes are."""
    folder = checkpoints(output)
    if (folder / "request.json").exists():
        shutil.rmtree(folder, ignore_errors=True)


def finetune(
    model: FloatModel,
    images: Images,
    labels: Labels | None,
    wish: Finetune,
    folder: Path,
    *,
    plan: Plan | None = None,
    seed: int = 0,
    threads: int = 2,
    input_type: IoType = "uint8",
    output_type: IoType = "float32",
    progress: Progress | None = None,
) -> tuple[bytes, Finetuning]:
    """Fine-tune a float model on images and quantize it to int8; return the file and the report.

    Training begins with weights that are fitted block by block, with a `plan` tuned, or with ranges alone, whichever is
    best; with pruned and clustered weights where that is the wish. The state is kept in `folder`, and taken up from
    there when everything is the same as in the run before. The result depends on the model, the images, the wish, the
    seed and the number of threads alone. Raises ModelError for a network that the twin cannot be made of,
    CalibrationError for too few images, MissingExtraError without the packages; KeyboardInterrupt says where the state
    is.
    """
    progress = progress or Silent()
    require()
    graph = Graph(model.content)
    if obstacles := replay.obstacles(graph):
        raise ModelError(f"this network cannot be fine-tuned: {', '.join(obstacles)} cannot be trained")
    kept = apart(len(images))
    judging, learning = images[:kept], images[kept:]
    make_folder(folder)
    progress.stage(f"decode {len(images)} images", len(images))
    _decode(folder / "judged.npy", judging, progress)
    _decode(folder / "learned.npy", learning, progress)
    if labels is not None:
        np.save(folder / "judged_labels.npy", labels[:kept])
        np.save(folder / "learned_labels.npy", labels[kept:])
    resumed = _prepare(folder, _identity(folder, model, labels, wish, plan, seed, threads))
    pixels = np.load(folder / "learned.npy", mmap_mode="r")
    judge = Judge(model, pixels[: recover.MOST_SEARCHED], judging, threads)
    (folder / teach.FLOAT).write_bytes(model.content)
    begun, ranges, before = _begin(folder, model, pixels, judge, plan, wish.compression, seed, threads, progress)
    request = teach.Request(
        folder=str(folder),
        logits=model.logits,
        fixed=(*quantize.known_ranges(model), model.logits),
        steps=wish.steps,
        check_every=max(1, wish.steps // CHECKS),
        patience=PATIENCE,
        labels=labels is not None,
        sparsity=wish.sparsity,
        clusters=wish.clusters,
        threads=threads,
        seed=seed,
        pace=1.0 if before.name == RANGES else TUNED_PACE,
    )
    try:
        answer = float_model.converse(CHILD, teach.encode(request), lambda said: _show(said, progress), DAY_S)
    except KeyboardInterrupt:
        if not (folder / teach.STATE).exists():
            raise
        raise KeyboardInterrupt(
            f"what was learned so far is in {folder}: the same command goes on from there"
        ) from None
    progress.stage("quantize what was learned")
    tuned = recover.tuned(begun, ranges, folder / teach.RESULT)
    after = judge.attempt(FINETUNED, *tuned)
    # Labels are a wish of their own; without them only what is closer to float is better.
    better = after.fidelity.divergence < before.fidelity.divergence
    keep = better or labels is not None
    chosen, chosen_ranges = tuned if keep else (begun, ranges)
    content = quantize.quantize(chosen, INT8, chosen_ranges, input_type=input_type, output_type=output_type)
    said = json.loads((folder / teach.HISTORY).read_bytes())
    history = [teach.Checked(**fields) for fields in said["history"]]
    best = history[int(said["best"])]
    sparsity, clusters, layers = _compressed(graph, content, said["compressed"])
    return content, Finetuning(
        teacher="float" if labels is None else "float and labels",
        seed=seed,
        steps=wish.steps,
        steps_taken=history[-1].step,
        best_step=best.step,
        batch=int(said["batch"]),
        images=len(learning),
        judging_images=kept,
        before=before,
        after=after,
        chosen=after.name if keep else before.name,
        divergences=tuple((checked.step, checked.divergence) for checked in history),
        accuracy_before=history[0].accuracy,
        accuracy_after=best.accuracy,
        simulation_correlation=_correlation(tuned, folder),
        resumed_at=int(answer["resumed_at"]) if resumed else None,
        pruned_share=sparsity if wish.sparsity else None,
        clusters=clusters if wish.clusters else None,
        compressed_layers=layers,
        packages=answer["packages"],
        warnings=()
        if keep
        else (
            f"fine-tuning did not help on the {kept} images kept apart (divergence {after.fidelity.divergence:.3g}, "
            f"{before.fidelity.divergence:.3g} without it), so what it began with was kept, {before.name}: give more "
            "images or steps",
        ),
    )


def compressed_bytes(content: bytes) -> int:
    """Return the size of a file after deflate, as gzip and zip use it, at level 9."""
    return len(zlib.compress(content, 9))


def _identity(
    folder: Path,
    model: FloatModel,
    labels: Labels | None,
    wish: Finetune,
    plan: Plan | None,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """What has to be the same for a run to be gone on with."""
    return {
        "edgeeff": __version__,
        "model": hashlib.sha256(model.content).hexdigest(),
        "images": [sha256(folder / f"{name}.npy") for name in ("learned", "judged")],
        "labels": None if labels is None else labels.tolist(),
        "steps": wish.steps,
        "sparsity": wish.sparsity,
        "clusters": wish.clusters,
        "plan": None if plan is None else asdict(plan),
        "seed": seed,
        "threads": threads,
    }


def _prepare(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Keep what is in the folder if it is of the same run, and say whether there is a state to go on from."""
    path = folder / "request.json"
    try:
        same = json.loads(path.read_bytes()) == identity
    except (OSError, ValueError):
        same = False
    if not same:
        for name in (teach.STATE, teach.BEST, teach.RESULT, teach.HISTORY, teach.RANGES):
            (folder / name).unlink(missing_ok=True)
        path.write_text(json.dumps(identity), encoding="utf-8")
    return same and (folder / teach.STATE).exists()


def _decode(path: Path, images: Images, progress: Progress) -> None:
    """Write images as one array, one at a time in memory."""
    array: Any = None
    for number, image in enumerate(images):
        if array is None:
            array = np.lib.format.open_memmap(path, "w+", np.uint8, (len(images), *image.shape))
        array[number] = image
        progress.tick()
    array.flush()


def _begin(
    folder: Path,
    model: FloatModel,
    pixels: npt.NDArray[np.uint8],
    judge: Judge,
    plan: Plan | None,
    compression: Compression,
    seed: int,
    threads: int,
    progress: Progress,
) -> tuple[FloatModel, Ranges, Attempt]:
    """Return the weights and ranges that training starts from, and how good they are.

    They are kept in the folder, and taken from there by a run that is gone on with.
    """
    weights, spans, about = folder / teach.START, folder / teach.RANGES, folder / "start.txt"
    if not spans.exists():  # written last
        ranges, *_ = recover.choose_ranges(model, list(pixels[:MOST_RANGED]), judge, threads=threads, progress=progress)
        best = judge.attempt(RANGES, model, ranges), model, ranges
        fitted = recover.fit(
            model, ranges, list(pixels), compression=compression, seed=seed, threads=threads, progress=progress
        )
        attempt = judge.attempt(COMPRESSED if compression else recover.FITTED, fitted, ranges)
        if compression or attempt.fidelity.divergence < best[0].fidelity.divergence:
            best = attempt, fitted, ranges
        if plan is not None and not compression:
            found = recover.tune(model, ranges, list(pixels), plan, seed=seed, threads=threads, progress=progress)
            tried = [(judge.attempt(name, changed, its), changed, its) for name, changed, its in found]
            best = min([best, *tried], key=lambda one: one[0].fidelity.divergence)
        weights.write_bytes(best[1].content)
        about.write_text(best[0].name, encoding="utf-8")
        spans.write_text(json.dumps(best[2]), encoding="utf-8")
    begun = replace(model, content=weights.read_bytes())
    ranges = {name: (low, high) for name, (low, high) in json.loads(spans.read_bytes()).items()}
    return begun, ranges, judge.attempt(about.read_text(encoding="utf-8"), begun, ranges)


def _show(said: Mapping[str, Any], progress: Progress) -> None:
    if "stage" in said:
        progress.stage(str(said["stage"]), int(said.get("total", 0)))
    elif "step" in said:
        progress.tick()


def _correlation(tuned: tuple[FloatModel, Ranges], folder: Path) -> float:
    """Compare the file's logits with those that were simulated, on the images kept apart."""
    content = quantize.quantize(tuned[0], INT8, tuned[1], input_type="uint8", output_type="float32")
    graph = Graph(content)
    last = graph.producer(graph.outputs[0])
    if last is not None and graph.kind(last) == "SOFTMAX":
        graph.set_output(int(last.inputs[0]))
        graph.remove(last)
    session = Session(graph.content())
    found = np.stack([session.run(image) for image in np.load(folder / "judged.npy", mmap_mode="r")])
    with np.load(folder / teach.RESULT) as arrays:
        return verify.compare(arrays["logits"], found).correlation


def _compressed(graph: Graph, content: bytes, outputs: Sequence[int]) -> tuple[float, int, int]:
    """Return the share of zeros, the most different values of any, and the number of the layers that were compressed.

    Told from the int8 weights of the file; `outputs` are the layers' output tensors in the float graph.
    """
    names = {graph.name(index) for index in outputs}
    made = Graph(content)
    weights = [
        values
        for operator in made.operators
        if made.kind(operator) == "CONV_2D" and made.name(int(operator.outputs[0])) in names
        if (values := made.constant(int(operator.inputs[1]))) is not None
    ]
    if not weights:
        return 0.0, 0, 0
    zeros = sum(int(np.sum(values == 0)) for values in weights) / sum(values.size for values in weights)
    return zeros, max(len(np.unique(values)) for values in weights), len(weights)
