"""Images that a trained network itself asks for, where there are no photographs to calibrate with.

Its batch normalizations say how each channel of each convolution was distributed over the photographs that it was
trained with: its mean and its deviation. Dead leaves (`calibration.synthetic`) are changed by gradient descent until
batches of them give that (ZeroQ, arXiv:2001.00281; DeepInversion, arXiv:1912.08795), and until each image shows classes
of the network, one or two. The changes are made in frequencies, each as strong as it is in photographs (1/f), which
keeps them from becoming noise and takes a dozen steps instead of thousands; a network sees another part of the image
in each step, also mirrored.

The float .tflite is replayed in TensorFlow for that (`replay`), in a process of its own. The statistics come from the
Keras model (`trace`); a convolution is known by the bias that folding its batch normalization leaves, so that names do
not matter. What was made is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import synthetic
from edgeeff.converters import float_model, quantize, replay
from edgeeff.converters.float_model import FloatModel
from edgeeff.converters.graph import CONVOLVING, WEIGHTED, Graph
from edgeeff.converters.trace import Send, Statistics, serve
from edgeeff.errors import ModelError, OutputError
from edgeeff.files import cache_folder, write_atomic
from edgeeff.progress import Progress, Silent

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]

METHOD = 1
"""Changes whenever other images would be made: those in the cache are then made anew."""
STEPS = 14
BATCH = 16
RATE = 1.5
"""Largest change in one step, the deviation over an image, of 255."""
CLASS_WEIGHT = 0.05
"""Of the classes' divergence beside that of the channels."""
VIEW = 0.72
"""Side of what the network sees in a step, of the image's: half of its area."""
LEAST_SHARE = 0.5
"""Of the likelier of two classes; half of the images have both."""
MOST_WORK = 1e12
"""Of all steps, in the units of `replay.work`: a minute and a half of CPU time."""
MOST_VALUES = 1.4e8
"""Of the maps of a batch that are kept for the gradient."""
MOST_SEARCH_WORK, MOST_SEARCHED, LEAST_SEARCHED = 5e11, 512, 16
"""What computing the network once for all images may take that ranges are searched on; how many these are."""
LEAST_KNOWN = 0.3
"""Share of the convolutions whose channels have to be known; half of those in B0 are gates, which nobody knows."""
SAME = 1e-3
"""Relative difference of biases that are the same."""
FEWEST = 8
"""Images that channels can be compared with: a batch of fewer says nothing of deviations."""
CHANNEL_CORRELATION = ((1.0, 0.9, 0.8), (0.9, 1.0, 0.9), (0.8, 0.9, 1.0))
"""Of red, green and blue, as in photographs: changes are mostly of brightness."""
MOMENTUM, EPSILON = 0.9, 1e-12
WARM_UP = 3
LEAST_DEVIATION = 1e-2
"""Of the usual deviation of a channel."""
MIDDLE = 127.5

CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "from edgeeff.converters.distill import main; sys.exit(main())"
)


@dataclass(frozen=True)
class Request:
    """What to make.

    `folder` holds float.tflite, starts.npy (count, height, width, 3; uint8) and expected.npz (mean and deviation by
    tensor index: (2, channels)); images.npy, of the same shape as starts.npy, is written there.
    """

    folder: str
    logits: str
    fixed: tuple[str, ...]
    """Tensors of the input and its preprocessing."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int
    steps: int
    batch: int
    threads: int
    seed: int


def images(
    model: FloatModel, count: int, seed: int = 0, threads: int = 2, progress: Progress | None = None
) -> tuple[list[Image], str]:
    """Make images (height, width, 3) that show what a network was trained with; say why there are fewer than `count`.

    Images that were made before come from the cache. Which they are depends on what is given alone. Raises
    MissingExtraError when there is no TensorFlow.
    """
    progress = progress or Silent()
    graph = Graph(model.content)
    expected = expectations(graph, model.statistics)
    if not model.statistics:
        return [], "what the network was trained with is known of Keras models alone"
    if len(expected) < LEAST_KNOWN * sum(graph.kind(operator) in CONVOLVING for operator in graph.operators):
        return [], "too few batch normalizations say what the network was trained with"
    if obstacles := replay.obstacles(graph):
        return [], f"{', '.join(obstacles)} cannot be replayed"
    affordable = min(count, int(MOST_WORK / (replay.work(graph, 0, len(graph.operators)) * VIEW**2 * STEPS)))
    if affordable < FEWEST:
        return [], "more take too long for a network of this size" if count >= FEWEST else "too few to compare"
    starts = list(synthetic.images(affordable, *model.resolution, seed=seed))
    kept = _path(model, expected, affordable, seed, threads)
    try:
        made = _kept(kept, affordable) or _make(model, graph, expected, starts, kept, seed, threads, progress)
    except ModelError as error:
        return [], str(error)
    return made, "" if affordable == count else "more take too long for a network of this size"


def searchable(model: FloatModel) -> int:
    """Return how many images ranges can be searched on in reasonable time, at least `LEAST_SEARCHED`."""
    graph = Graph(model.content)
    return int(min(MOST_SEARCHED, max(LEAST_SEARCHED, MOST_SEARCH_WORK / replay.work(graph, 0, len(graph.operators)))))


def expectations(graph: Graph, statistics: Statistics) -> dict[int, npt.NDArray[np.float32]]:
    """Find the tensors that batch normalizations tell of: mean and deviation of their channels, (2, channels).

    What a network that was never trained expects, biases of zero, is not told apart, and not returned.
    """
    waiting = [entry for entry in statistics.values() if np.any(entry[0])]
    found: dict[int, npt.NDArray[np.float32]] = {}
    for operator in graph.operators:
        if graph.kind(operator) not in WEIGHTED or len(operator.inputs) < 3:
            continue
        bias = graph.constant(int(operator.inputs[2]))
        if bias is None:
            continue
        for entry in waiting:
            if entry[0].shape == bias.shape and np.allclose(entry[0], bias, rtol=SAME, atol=SAME * np.abs(bias).max()):
                found[int(operator.outputs[0])] = entry[1:]
                break
    return found


def _path(model: FloatModel, expected: Mapping[int, Array], count: int, seed: int, threads: int) -> Path:
    """Name the file in the cache by everything that its images depend on."""
    made_from = hashlib.sha256(model.content)
    for index, entry in sorted(expected.items()):
        made_from.update(f"{index}".encode() + entry.tobytes())
    made_from.update(f"{model.mean} {model.std} {count} {seed} {threads} {METHOD}".encode())
    return cache_folder("distilled") / f"{made_from.hexdigest()}.npy"


def _make(
    model: FloatModel,
    graph: Graph,
    expected: Mapping[int, Array],
    starts: Sequence[Image],
    kept: Path,
    seed: int,
    threads: int,
    progress: Progress,
) -> list[Image]:
    """Make images in a TensorFlow process, and keep them; raises ModelError when that process fails."""
    float_model.require_host()
    with tempfile.TemporaryDirectory(prefix="edgeeff-") as name:
        folder = Path(name)
        (folder / "float.tflite").write_bytes(model.content)
        arrays: dict[str, Any] = {str(index): entry for index, entry in expected.items()}
        np.savez(folder / "expected.npz", **arrays)
        np.save(folder / "starts.npy", np.stack(starts))
        request = Request(
            folder=name,
            logits=model.logits,
            fixed=tuple(quantize.known_ranges(model)),
            mean=model.mean,
            std=model.std,
            classes=model.classes,
            steps=STEPS,
            batch=_batch(graph, len(starts)),
            threads=threads,
            seed=seed,
        )
        float_model.converse(CHILD, json.dumps(asdict(request)), lambda answer: _show(answer, progress))
        content = (folder / "images.npy").read_bytes()
    # A cache that cannot be written costs the time to make the images again, nothing else.
    with contextlib.suppress(OSError, OutputError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, content)
    return list(np.load(io.BytesIO(content)))


def _kept(path: Path, count: int) -> list[Image] | None:
    """Return the images of a file in the cache, None where there is none, or one that is damaged."""
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return list(found) if len(found) == count else None


def _batch(graph: Graph, count: int) -> int:
    """Divide images evenly into batches that fit into memory."""
    values = sum(float(np.prod(graph.shape(int(operator.outputs[0])))) for operator in graph.operators) * VIEW**2
    most = max(FEWEST, min(BATCH, int(MOST_VALUES / values)))
    return -(-count // -(-count // most))


def _show(answer: Mapping[str, Any], progress: Progress) -> None:
    if "stage" in answer:
        progress.stage(str(answer["stage"]), int(answer.get("total", 0)))
    elif "step" in answer:
        progress.tick()


def run(request: Request, send: Send) -> dict[str, Any]:
    """Make the images of a request; send {"step": ...} as it goes."""
    folder = Path(request.folder)
    starts = np.load(folder / "starts.npy")
    with np.load(folder / "expected.npz") as arrays:
        expected = {int(index): entry for index, entry in arrays.items()}
    send({"stage": "start TensorFlow"})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(request.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    batches = -(-len(starts) // request.batch)
    send({"stage": f"make {len(starts)} images from what the network expects", "total": batches * request.steps})
    network = Network(tf, Graph((folder / "float.tflite").read_bytes()), expected, request)
    painter = Painter(tf, network, request, starts.shape[1:3])
    made = np.empty_like(starts)
    for at in range(0, len(starts), request.batch):
        # The last batch is filled up with others, so that its statistics mean something.
        chosen = np.arange(at, at + request.batch) % len(starts)
        count = min(request.batch, len(starts) - at)
        made[at : at + count] = painter.paint(starts[chosen], send)[:count]
    np.save(folder / "images.npy", made)
    return {"tensorflow": str(tf.__version__)}


class Network(replay.Replay):
    """The float network, replayed, that tells how far its channels are from what they are expected to be."""

    def __init__(self, tf: Any, graph: Graph, expected: Mapping[int, Array], request: Request) -> None:
        names = [graph.name(int(operator.outputs[0])) for operator in graph.operators]
        super().__init__(tf, graph)
        self._expected, self._distances = expected, list[Any]()
        self._first = next(position for position, name in enumerate(names) if name not in request.fixed)
        self._end = names.index(request.logits) + 1
        self._black, self._unit = np.array(request.mean, np.float32), np.array(request.std, np.float32)

    def look(self, pixels: Any) -> tuple[Any, Any]:
        """Return the logits of images of any size, 0..255, and the mean divergence of the channels.

        Of two normal distributions, the one found and the one expected (Kullback-Leibler, in nats).
        """
        self._distances.clear()
        values = {self._input(self._first): (pixels - self._black) / self._unit}
        logits = self._replay(self._first, self._end, values)[self._nodes[self._end - 1].output]
        return logits, self._tf.add_n(self._distances) / len(self._distances)

    def _operate(self, node: replay.Node, arguments: list[Any]) -> Any:
        """Compute an operator, and compare what comes before its activation."""
        y = super()._operate(node, arguments)
        if node.output in self._expected:
            tf, (mean, deviation) = self._tf, self._expected[node.output]
            found, variance = tf.nn.moments(y, list(range(len(y.shape) - 1)))
            # Channels that training has all but switched off are expected to be constant; nothing is, exactly.
            deviation = np.maximum(deviation, LEAST_DEVIATION * float(np.median(deviation)) + EPSILON)
            ratio = variance / np.square(deviation) + LEAST_DEVIATION**2
            self._distances.append(
                tf.reduce_mean(tf.square((found - mean) / deviation) + ratio - 1 - tf.math.log(ratio)) / 2
            )
        return y


class Painter:
    """Changes batches of images by gradient descent."""

    def __init__(self, tf: Any, network: Network, request: Request, size: tuple[int, int]) -> None:
        self._tf, self._request, self._size = tf, request, size
        self._view = tuple(max(1, round(side * VIEW)) for side in size)
        self._random = np.random.default_rng(request.seed)
        self._strength = _strength(*size)
        self._mix = np.linalg.cholesky(np.array(CHANNEL_CORRELATION)).astype(np.float32)
        # Real and imaginary parts, channels first as the transform wants them, in units of what photographs have.
        shape = (request.batch, 3, size[0], size[1] // 2 + 1, 2)
        self._waves, self._momentum = (tf.Variable(tf.zeros(shape)) for _ in range(2))
        self._step = self._compiled(network)

    def paint(self, starts: Image, send: Send) -> Image:
        """Change one batch of images, (batch, height, width, 3)."""
        tf, steps = self._tf, self._request.steps
        unmixed = np.einsum("nhwd,cd->nchw", starts - np.float32(MIDDLE), np.linalg.inv(self._mix))
        waves = np.fft.rfft2(unmixed) / self._strength
        self._waves.assign(np.stack([waves.real, waves.imag], axis=-1).astype(np.float32))
        self._momentum.assign(tf.zeros_like(self._momentum))
        wanted = tf.constant(_classes(self._random, len(starts), self._request.classes), tf.float32)
        for step in range(steps):
            rate = RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / steps))
            corner = [
                self._random.integers(0, side - view + 1) for side, view in zip(self._size, self._view, strict=True)
            ]
            mirrored = bool(self._random.integers(2))
            channels, classes = self._step(
                tf.constant(rate, tf.float32), wanted, tf.constant(corner, tf.int32), tf.constant(mirrored)
            )
            send({"step": step + 1, "channels": float(channels), "classes": float(classes)})
        made: Image = np.clip(np.rint(self._pixels().numpy()), 0, 255).astype(np.uint8)
        return made

    def _pixels(self) -> Any:
        tf = self._tf
        waves = tf.complex(self._waves[..., 0], self._waves[..., 1]) * tf.constant(self._strength, tf.complex64)
        return tf.einsum("nchw,dc->nhwd", tf.signal.irfft2d(waves, self._size), self._mix) + MIDDLE

    def _compiled(self, network: Network) -> Callable[..., Any]:
        """Return a function that makes one step of Adam (arXiv:1412.6980)."""
        tf = self._tf

        @tf.function  # type: ignore[untyped-decorator]
        def step(rate: Any, wanted: Any, corner: Any, mirrored: Any) -> Any:
            with tf.GradientTape() as tape:
                free = self._pixels()
                pixels = tf.clip_by_value(free, 0.0, 255.0)
                view = tf.slice(pixels, [0, *tf.unstack(corner), 0], [-1, *self._view, 3])
                view = tf.where(mirrored, view[:, :, ::-1], view)
                logits, channels = network.look(view)
                found = tf.nn.log_softmax(logits)
                classes = tf.reduce_mean(tf.reduce_sum(tf.math.xlogy(wanted, wanted) - wanted * found, axis=1))
                outside = tf.reduce_mean(tf.square((free - pixels) / 255.0))
                loss = channels + CLASS_WEIGHT * classes + outside
            gradient = tape.gradient(loss, self._waves)
            self._momentum.assign(MOMENTUM * self._momentum + gradient)
            size = tf.sqrt(tf.reduce_mean(tf.square(self._momentum), axis=(1, 2, 3, 4), keepdims=True))
            self._waves.assign_sub(rate * self._momentum / (size + EPSILON))
            return channels, classes

        compiled: Callable[..., Any] = step
        return compiled


def _strength(height: int, width: int) -> npt.NDArray[np.float32]:
    """Return the amplitude of each frequency of the real transform: 1/f, so that white waves give a deviation of 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    # The transform makes up the conjugates of all waves but those of the first column, and the last of an even width:
    # there it takes the mean of each two that ought to be conjugates.
    columns = np.full(width // 2 + 1, 4.0)
    columns[[0, -1] if width % 2 == 0 else 0] = 1.0
    power = float((columns * np.square(amplitude)).sum()) / (height * width) ** 2
    strength: npt.NDArray[np.float32] = (amplitude / np.sqrt(power)).astype(np.float32)
    return strength


def _classes(random: np.random.Generator, count: int, classes: int) -> npt.NDArray[np.float64]:
    """Draw what images are to show, probabilities (count, classes): one class more or less, and the rest another."""
    share = random.uniform(LEAST_SHARE, 1.0, (count, 1))
    first, second = (np.eye(classes)[random.integers(classes, size=count)] for _ in range(2))
    wanted: npt.NDArray[np.float64] = share * first + (1 - share) * second
    return wanted


def main() -> int:
    """Answer one request; the exit status is 0 when a result or an error of edgeeff's own was sent."""
    return serve(lambda argument, send: run(_decode(argument), send))


def _decode(argument: str) -> Request:
    fields = json.loads(argument)
    return Request(**{**fields, **{name: tuple(fields[name]) for name in ("fixed", "mean", "std")}})
