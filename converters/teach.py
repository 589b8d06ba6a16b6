"""Quantization-aware training: a twin whose quantization is simulated learns what the float network says.

The float network is asked on the augmented images themselves, so no labels are needed; with labels half of what is
learned about the scores comes from them. All of it is trained at once, end to end: Kullback-Leibler divergence of the
scores and the squared error of the features between blocks (arXiv:1412.6550), by Adam (arXiv:1412.6980) with rates
counted in steps of the quantization, falling along a cosine. Images kept apart are asked now and then; the state at
which they are answered best is the result, and training ends early when it stays behind it.

This runs in a process of its own (`float_model.converse`); `qat` is the other end. What a step does depends on the seed
and its number alone, so that a run which goes on from its last state ends where one that was never interrupted does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters import runtime
from edgeeff.converters.compress import Compression
from edgeeff.converters.graph import Graph
from edgeeff.converters.trace import Send, serve
from edgeeff.errors import ModelError

Array = npt.NDArray[Any]

WEIGHT_RATE, BIAS_RATE = 0.006, 0.005
"""Largest learning rates, in steps of the quantization: a tenth of what a block alone bears (`replay`)."""
RANGE_RATE = 0.001
"""In logarithms."""
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-10
WARM_UP = 10
FEATURES_SHARE = 1.0
"""What the features' errors, relative to their variance, count beside the divergence of the scores in nats."""
LABELS_SHARE = 0.5
"""Of what is learned about the scores, where there are labels."""
LEAST_SIDE = 0.8
"""Of the random crops, as a share of the image's."""
BATCH = 16
MOST_VALUES = 1.05e8
"""Of the maps of a batch: a step of learning takes some 20 bytes for each."""
EVEN_BATCH = 8
"""Images at a time where nothing is learned."""
TWIN_CHECKS = 4
TWIN_TOLERANCE = 1e-4
"""Largest difference between the twin's scores, not quantized, and the float file's, as a share of the largest."""
FLOAT, START, RANGES = "float.tflite", "start.tflite", "ranges.json"
STATE, BEST, RESULT, HISTORY = "state.npz", "best.npz", "result.npz", "history.json"


@dataclass(frozen=True)
class Request:
    """What to train and for how long.

    `folder` holds float.tflite, which teaches, start.tflite, the same network with the weights to begin with, pruned if
    they are to be,
    ranges.json ({name: [low, high]}), learned.npy and judged.npy (count, height, width, 3;
    uint8), with labels also learned_labels.npy and judged_labels.npy (int64). The state is kept there, and the results.
    """

    folder: str
    logits: str
    fixed: tuple[str, ...]
    """Tensors whose ranges stay: the input, the preprocessing, the logits."""
    steps: int
    check_every: int
    patience: int
    """Checks without a better result after which training ends."""
    labels: bool
    sparsity: float
    clusters: int
    threads: int
    seed: int
    pace: float = 1.0
    """Share of the learning rates."""


@dataclass(frozen=True)
class Checked:
    """What the simulated network gave for the images kept apart."""

    step: int
    divergence: float
    """Of the float network's scores, in nats."""
    agreement: float
    cross_entropy: float | None = None
    """Of the labels, in nats."""
    accuracy: float | None = None

    @property
    def badness(self) -> float:
        """What is to become small."""
        return self.divergence if self.cross_entropy is None else self.cross_entropy


def encode(request: Request) -> str:
    """Write a request as the process takes it on its command line."""
    return json.dumps(asdict(request))


def run(request: Request, send: Send) -> dict[str, Any]:
    """Train, or go on; write what was learned (`RESULT`, as `Twin.arrays`, and the judged images' logits)."""
    folder = Path(request.folder)
    send({"stage": "start TensorFlow"})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(request.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.random.set_seed(request.seed)
    send({"stage": "build the twin"})
    exact, begun = (Graph((folder / name).read_bytes()) for name in (FLOAT, START))
    ranges = {name: (low, high) for name, (low, high) in json.loads((folder / RANGES).read_bytes()).items()}
    training = Training(tf, exact, begun, ranges, request)
    training.learn(send)
    return {"packages": _packages(), "resumed_at": training.resumed_at}


class Training:
    """The float network, its simulated twin, and the state of Adam."""

    def __init__(
        self, tf: Any, graph: Graph, begun: Graph, ranges: dict[str, tuple[float, float]], request: Request
    ) -> None:
        from edgeeff.converters.twin import Twin  # noqa: PLC0415 - it is TensorFlow

        self._tf, self._graph, self._request, self._folder = tf, graph, request, Path(request.folder)
        self._images = np.load(self._folder / "learned.npy", mmap_mode="r")
        self._judged = np.load(self._folder / "judged.npy", mmap_mode="r")
        self._labels, self._judged_labels = (
            np.load(self._folder / f"{name}_labels.npy") if request.labels else None for name in ("learned", "judged")
        )
        values = sum(float(np.prod(graph.shape(int(operator.outputs[0])))) for operator in graph.operators)
        self._batch = max(1, min(BATCH, len(self._images), int(MOST_VALUES / values)))
        compression = Compression(request.sparsity, request.clusters)
        self._teacher = Twin(graph, request.logits, fixed=request.fixed)
        self._twin = Twin(begun, request.logits, ranges, request.fixed, compression)
        self._twin.begin()
        self._learned = self._twin.variables(*(request.pace * rate for rate in (WEIGHT_RATE, BIAS_RATE, RANGE_RATE)))
        self._means = [tf.Variable(tf.zeros_like(variable)) for variable, _ in self._learned]
        self._squares = [tf.Variable(tf.zeros_like(variable)) for variable, _ in self._learned]
        self._check_twin()
        self._even, exact = (
            tf.function(partial(_last, twin.model), reduce_retracing=True, autograph=False)
            for twin in (self._twin, self._teacher)
        )
        self._wanted = self._in_batches(exact)
        self.history: list[Checked] = []
        self.resumed_at = 0

    def learn(self, send: Send) -> None:
        """Go on from the last state, if there is one, to the end; write the result."""
        steps = self._request.steps
        first = self.resumed_at = self._restore()
        if first:
            send({"stage": f"fine-tune, going on after step {first} of {steps}", "total": steps - first})
        else:
            self._check(0)
            send({"stage": "fine-tune", "total": steps})
        step = self._step()
        for number in range(first, steps):
            if self._is_late():
                break
            loss = float(step(self._rate(number), *self._drawn(number)))
            if not np.isfinite(loss):
                raise ModelError(f"fine-tuning diverged at step {number + 1}: its loss is {loss}")
            done = number + 1
            send({"step": done, "loss": loss})
            if done % self._request.check_every == 0 or done == steps:
                self._check(done)
                self._save(done)
        self._restore_best()
        arrays = self._twin.arrays() | {"logits": self._in_batches(self._even)}
        self._write(RESULT, arrays)
        history = {
            "history": [asdict(checked) for checked in self.history],
            "best": self.history.index(self._best()),
            "batch": self._batch,
            "compressed": [part.output for part in self._twin.compressed],
        }
        (self._folder / HISTORY).write_text(json.dumps(history), encoding="utf-8")

    def _step(self) -> Callable[..., Any]:
        """Return a function that makes one step of learning: rate, images and crops, labels -> loss."""
        tf, images = self._tf, self._images

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def apply(pixels: Any, boxes: Any, labels: Any, rate: Any) -> Any:
            x = tf.image.crop_and_resize(
                tf.cast(pixels, tf.float32), boxes, tf.range(tf.shape(pixels)[0]), images.shape[1:3]
            )
            wanted = self._teacher.model(x, training=False)
            with tf.GradientTape() as tape:
                loss = self._loss(self._twin.model(x, training=True), wanted, labels)
            gradients = tape.gradient(loss, [variable for variable, _ in self._learned])
            for (variable, size), mean, square, gradient in zip(
                self._learned, self._means, self._squares, gradients, strict=True
            ):
                if gradient is not None:
                    slope = tf.convert_to_tensor(gradient)  # centroids get theirs by index
                    mean.assign(BETA_1 * mean + (1 - BETA_1) * slope)
                    square.assign(BETA_2 * square + (1 - BETA_2) * tf.square(slope))
                    variable.assign_sub(size * rate * mean / (tf.sqrt(square) + EPSILON))
            return loss

        def step(rate: float, chosen: Array, boxes: Array) -> Any:
            labels = np.zeros(len(chosen), np.int64) if self._labels is None else self._labels[chosen]
            pixels = images[chosen]
            return apply(
                *(tf.constant(value) for value in (pixels, np.float32(boxes), labels)), tf.constant(rate, tf.float32)
            )

        return step

    def _loss(self, found: list[Any], wanted: list[Any], labels: Any) -> Any:
        tf = self._tf
        loss = _divergence(tf, found[-1], wanted[-1])
        if self._labels is not None:
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, found[-1])
            loss = (1 - LABELS_SHARE) * loss + LABELS_SHARE * entropy
        loss = tf.reduce_mean(loss)
        if len(found) == 1:
            return loss
        errors = [
            tf.reduce_mean(tf.square(ours - exact)) / (tf.math.reduce_variance(exact) + 1e-12)
            for ours, exact in zip(found[:-1], wanted[:-1], strict=True)
        ]
        return loss + FEATURES_SHARE * tf.add_n(errors) / len(errors)

    def _drawn(self, number: int) -> tuple[Array, Array]:
        """Images of a step, and the boxes that are cut out of them: top, left, bottom, right, 0 to 1, some mirrored."""
        random = np.random.default_rng((self._request.seed, number))
        chosen = random.choice(len(self._images), self._batch, replace=False)
        side = random.uniform(LEAST_SIDE, 1.0, (self._batch, 1))
        start = random.uniform(0.0, 1.0, (self._batch, 2)) * (1.0 - side)
        boxes = np.concatenate([start, start + side], axis=1)
        mirrored = random.random(self._batch) < 0.5
        boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
        return np.sort(chosen), boxes

    def _rate(self, number: int) -> float:
        """The share of the learning rates at a step, with Adam's correction of its first means."""
        taken = number + 1
        share = min(1.0, taken / WARM_UP) * 0.5 * (1 + np.cos(np.pi * number / self._request.steps))
        return float(share * np.sqrt(1 - BETA_2**taken) / (1 - BETA_1**taken))

    # What the images kept apart say

    def _check(self, step: int) -> None:
        """Ask the images kept apart, and keep the state if it is the best so far."""
        logits = self._in_batches(self._even)
        checked = Checked(
            step,
            float(np.mean(_divergence(self._tf, logits, self._wanted))),
            float(np.mean(logits.argmax(axis=1) == self._wanted.argmax(axis=1))),
        )
        if self._judged_labels is not None:
            entropy = self._tf.nn.sparse_softmax_cross_entropy_with_logits(self._judged_labels, logits)
            right = float(np.mean(logits.argmax(axis=1) == self._judged_labels))
            checked = Checked(step, checked.divergence, checked.agreement, float(np.mean(entropy)), right)
        self.history.append(checked)
        if self._best() is checked:
            self._write(BEST, dict(self._values(self._twin.model.variables)))

    def _best(self) -> Checked:
        """The best state so far."""
        return min(self.history, key=lambda checked: checked.badness)

    def _is_late(self) -> bool:
        late = [checked for checked in self.history if checked.step > self._best().step]
        return len(late) >= self._request.patience

    def _in_batches(self, compute: Callable[[Any], Any]) -> Array:
        """Logits of the images kept apart."""
        parts = (self._judged[at : at + EVEN_BATCH] for at in range(0, len(self._judged), EVEN_BATCH))
        return np.concatenate([compute(self._tf.constant(part, self._tf.float32)).numpy() for part in parts])

    def _check_twin(self) -> None:
        """Raise ModelError unless the twin computes what the float file does."""
        tf, images = self._tf, self._images[:TWIN_CHECKS]
        session = runtime.Session((self._folder / FLOAT).read_bytes())
        expected = np.stack([session.run(image) for image in images])
        found = self._teacher.model(tf.constant(images, tf.float32), training=False)[-1]
        if self._graph.name(self._graph.outputs[0]) != self._request.logits:
            found = tf.nn.softmax(found)
        off = float(np.abs(found.numpy() - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if not off <= TWIN_TOLERANCE:
            raise ModelError(f"the twin for training differs from the float model by {off:.2g}: it cannot be taught")

    # The state

    def _values(self, variables: list[Any]) -> Iterator[tuple[str, Array]]:
        return ((str(number), variable.numpy()) for number, variable in enumerate(variables))

    def _save(self, step: int) -> None:
        everything = [*self._twin.model.variables, *self._means, *self._squares]
        about = json.dumps({"step": step, "history": [asdict(checked) for checked in self.history]})
        self._write(STATE, dict(self._values(everything)) | {"about": np.array(about)})

    def _restore(self) -> int:
        """Take up the last state; return the steps that were made, 0 where there is none."""
        path = self._folder / STATE
        if not path.exists():
            return 0
        with np.load(path) as arrays:
            about = json.loads(str(arrays["about"]))
            for number, variable in enumerate([*self._twin.model.variables, *self._means, *self._squares]):
                variable.assign(arrays[str(number)])
        self.history = [Checked(**fields) for fields in about["history"]]
        return int(about["step"])

    def _restore_best(self) -> None:
        with np.load(self._folder / BEST) as arrays:
            for number, variable in enumerate(self._twin.model.variables):
                variable.assign(arrays[str(number)])

    def _write(self, name: str, arrays: dict[str, Array]) -> None:
        """Write arrays so that the file is whole whenever this process ends."""
        part = self._folder / f"part-{name}"
        # NumPy's types take what is named "allow_pickle" for granted among the arrays.
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(self._folder / name)


def _last(model: Any, pixels: Any) -> Any:
    return model(pixels, training=False)[-1]


def _divergence(tf: Any, found: Any, exact: Any) -> Any:
    """Kullback-Leibler divergence of each image's scores, from logits."""
    scores = tf.nn.softmax(exact)
    return tf.reduce_sum(scores * (tf.nn.log_softmax(exact) - tf.nn.log_softmax(found)), axis=1)


def _packages() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("tensorflow", "tf-keras", "tensorflow-model-optimization")}


def main() -> int:
    """Answer one request; the exit status is 0 when a result or an error of edgeeff's own was sent."""

    def answer(argument: str, send: Send) -> dict[str, Any]:
        fields = json.loads(argument)
        return run(Request(**{**fields, "fixed": tuple(fields["fixed"])}), send)

    return serve(answer)
