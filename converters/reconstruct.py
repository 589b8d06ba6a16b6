"""Weights, biases and ranges tuned until the network, its quantization simulated, gives what the float network gives.

No labels are needed: what the float network computes for the calibration images is the target. This runs in a process
of its own (`float_model.converse`); `recover` is the other end, which quantizes every checkpoint for real and decides
whether it is any better.

How a network is tuned:

1. It is cut where a single tensor is alive between two operators: at the ends of its blocks. One block after the other
   learns to give the float network's output, from inputs that already carry the errors of the blocks before it
   (the sequential block reconstruction of BRECQ, arXiv:2102.05426): weights and biases in steps of their quantization,
   ranges in ratios, with gradients that pass straight through the rounding (arXiv:1308.3432) and that see what the
   rounding error does to a range (LSQ, arXiv:1902.08153). Channels count as much as the scores depend on them (their
   Fisher information). What passes between blocks is computed by LiteRT, by the real int8 kernels. Each block begins
   with its last convolution fitted by least squares (`refit`).
2. Then the last blocks together learn the float network's scores, each time from views that they have not seen.

For mixed precision (`Request.exact`) every block learns by itself, from exact inputs and with its sum in float.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.calibration.views import Views
from edgeeff.converters import quantize, refit
from edgeeff.converters.compress import WEIGHT_LEVELS
from edgeeff.converters.graph import WEIGHTED, Graph
from edgeeff.converters.replay import TIED, Node, Replay, blocks, fake_quantized, roots, work
from edgeeff.converters.trace import Send, serve

Array = npt.NDArray[Any]

LEVELS = 255
WEIGHT_RATE, BIAS_RATE = 0.5, 0.4
"""Largest learning rates, in steps of the quantization."""
RANGE_RATE = 0.08
"""In logarithms."""
SCORES_SHARE, FINISH_SHARE = 0.1, 0.004
"""Learning rates of the last block, and of the last ones together, as a share of those above: they learn scores, whose
gradients are rougher than those of maps."""
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-10
WARM_UP = 10
EVEN_BATCH = 10
"""Images at a time where nothing is learned."""
MOST_VALUES, FINISH_VALUES = 25e6, 45e6
"""Of the maps of a batch; a step of learning takes some 40 bytes for each. The last blocks have to learn from a few
images at a time, or their steps are too rough."""
FISHER_VIEWS, LEAST_WEIGHT = 96, 0.1
"""Views that tell how much a channel counts, and the least that it counts beside the mean of all."""
CHECKPOINTS = ("blocks", "whole")
STEPS_SHOWN = 20
COMPARED = 40
"""Images that show whether a block was tuned to the better."""


@dataclass(frozen=True)
class Request:
    """What to tune and for how long.

    `folder` holds float.tflite, images.npy (count, height, width, 3; uint8) and ranges.json ({name: [low, high]});
    checkpoints are written there.
    """

    folder: str
    logits: str
    fixed: tuple[str, ...]
    """Tensors whose ranges stay: the input, the preprocessing, the logits."""
    work: float
    """What all blocks together may spend on learning, each an equal share, in the units of `work`."""
    most_steps: int
    finish_steps: int
    finish_side: int
    """Blocks whose input is at most this high and wide learn together at the end."""
    batch: int
    threads: int
    seed: int
    views: int = 0
    """How many views of the images blocks learn from, each image as it is and mirrored among them; see `Views`."""
    exact: bool = False
    """Whether every block learns by itself, from exact inputs and with its residual sum in float."""


def encode(request: Request) -> str:
    """Write a request as the process takes it on its command line."""
    return json.dumps(asdict(request))


def run(request: Request, send: Send) -> dict[str, Any]:
    """Tune a network; write a file for each of `CHECKPOINTS`, and send {"step": ...} as it goes."""
    folder = Path(request.folder)
    graph = Graph((folder / "float.tflite").read_bytes())
    images = np.load(folder / "images.npy")
    ranges = {name: (low, high) for name, (low, high) in json.loads((folder / "ranges.json").read_bytes()).items()}
    send({"stage": "start TensorFlow"})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(request.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tuning = Tuning(tf, graph, ranges, request)
    blocks, whole = CHECKPOINTS
    tuning.blocks(Views(images, max(request.views, 2 * len(images)), request.seed), send)
    tuning.write(folder / f"{blocks}.npz")
    if request.finish_steps:
        tuning.finish(images, send)
        tuning.write(folder / f"{whole}.npz")
    return {"tensorflow": str(tf.__version__)}


class Tuning(Replay):
    """A float network, what its quantization would do, and the variables that are learned."""

    def __init__(self, tf: Any, graph: Graph, ranges: dict[str, tuple[float, float]], request: Request) -> None:
        super().__init__(tf, graph)
        self._request, self._begun_with = request, ranges
        self._random = np.random.default_rng(request.seed)
        named = [graph.name(node.output) for node in self._nodes]
        self._blocks = blocks(graph, request.fixed, request.logits)
        end = self._blocks[-1][1]
        self._ranges: dict[int, tuple[float, float]] = {}
        self._ratios: dict[int, tuple[Any, Any]] = {}
        """Of both ends of a range, logarithms: so zero stays inside."""
        self._sizes: dict[int, Array] = {}
        """Steps of the quantization, in which deltas are counted."""
        self._deltas: dict[int, Any] = {}
        for node, name in zip(self._nodes[:end], named, strict=False):
            if node.kind not in (*TIED, "LOGISTIC"):
                self._ranges[node.output] = ranges[name]
                if name not in request.fixed:
                    self._ratios[node.output] = (tf.Variable(0.0), tf.Variable(0.0))
        learning = itertools.dropwhile(
            lambda pair: pair[1] in request.fixed, zip(self._nodes[:end], named, strict=False)
        )
        for node, _ in learning:
            if node.kind in WEIGHTED:
                self._add_weights(node)

    def _add_weights(self, node: Node) -> None:
        tf, (weights, bias) = self._tf, node.inputs[1:3]
        if weights in self._deltas:  # two operators may share weights
            return
        largest = np.abs(self._constants[weights]).max(axis=_other_axes(node), keepdims=True)
        low, high = self._ranges[node.output]
        self._sizes[weights] = np.maximum(largest / WEIGHT_LEVELS, 1e-12).astype(np.float32)
        self._sizes[bias] = np.float32(max((high - low) / LEVELS, 1e-12))
        for index in (weights, bias):
            self._deltas[index] = tf.Variable(tf.zeros(self._constants[index].shape))

    def blocks(self, views: Views, send: Send) -> None:
        """Tune one block after the other."""
        counts = {} if self._request.exact else self._importance(views[:FISHER_VIEWS], send)
        send({"stage": "tune block by block", "total": len(self._blocks)})
        exact = rough = views[:0]
        for number, (first, end) in enumerate(self._blocks):
            source, target = self._input(first), self._nodes[end - 1].output
            exact, rough = self._inputs(first, source, target, views, exact, rough)
            wanted = self._through(first, end, exact, quantized=False)
            last = end == self._blocks[-1][1]
            loss = self._divergence if last else self._relative_error(wanted, counts.get(target))
            compute = self._function(first, end, source, target, quantized=True)
            error = functools.partial(self._error, compute, loss, rough[:COMPARED], wanted)
            before = least = error()
            kept = self._values()
            self._fit(first, end, rough, wanted)
            if (fitted := error()) < least:
                least, kept = fitted, self._values()
            else:
                self._restore(kept)
            rates = self._rates(first, end, SCORES_SHARE if last else 1.0)
            batch = self._batch(first, end, len(rough), MOST_VALUES)
            share = self._request.work / len(self._blocks)
            steps = int(min(self._request.most_steps, share / (work(self._graph, first, end) * batch)))
            step = self._step(first, end, source, target, loss, rates)
            for rate in _rates(steps):
                chosen = self._random.choice(len(rough), batch, replace=False)
                step(rate, rough[chosen], wanted[chosen])
            after = error()
            if not after < least:  # also where it is not a number
                self._restore(kept)
                after = least
            if last or self._request.exact:
                exact = rough = wanted
            else:
                exact, rough = wanted, self._through(first, end, rough, quantized=True)
            send({"step": number + 1, "steps": steps, "before": before, "after": after})

    def finish(self, images: Array, send: Send) -> None:
        """Tune the last blocks together, for the scores alone."""
        steps, losses = self._request.finish_steps, list[float]()
        shown = min(STEPS_SHOWN, steps)
        sides = [max(self._graph.shape(self._input(first))[1:3]) for first, _ in self._blocks]
        first = next(
            (start for (start, _), side in zip(self._blocks, sides, strict=True) if side <= self._request.finish_side),
            self._blocks[-1][0],
        )
        end = self._blocks[-1][1]
        source, target = self._input(first), self._nodes[end - 1].output
        batch = self._batch(first, end, len(images), FINISH_VALUES)
        send({"stage": "tune the last blocks together", "total": shown})
        # Others than the blocks learned from, and hardly one of them twice.
        size = float(np.prod(self._graph.shape(source)))
        count = int(min(steps * batch, refit.MAPS_BYTES / (2 * size), max(self._request.views, 2 * len(images))))
        views = Views(images, max(count, batch), self._request.seed + 1)[:]
        wanted = self._through(0, end, views, quantized=False)
        rough = self._through(0, first, views, quantized=True) if first else views
        step = self._step(first, end, source, target, self._divergence, self._rates(first, end, FINISH_SHARE))
        for number, rate in enumerate(_rates(steps)):
            chosen = self._random.choice(len(rough), batch, replace=False)
            losses.append(float(step(rate, rough[chosen], wanted[chosen])))
            if (number + 1) * shown // steps > number * shown // steps:
                send({"step": number + 1, "loss": float(np.mean(losses))})
                losses.clear()

    def write(self, path: Path) -> None:
        """Write the weights and ranges as they are now: arrays "weights/INDEX" and "range/INDEX" by tensor index."""
        arrays = {f"weights/{index}": self._weights(index).numpy() for index in self._deltas}
        for index in self._ratios:
            arrays[f"range/{index}"] = np.array([float(bound) for bound in self._bounds(index)])
        np.savez(path, **arrays)

    def _batch(self, first: int, end: int, images: int, most_values: float) -> int:
        """How many images fit into memory at once, with all that learning has to keep of them."""
        values = sum(float(np.prod(self._graph.shape(node.output))) for node in self._nodes[first:end])
        return max(1, min(self._request.batch, images, int(most_values / values)))

    def _inputs(
        self, first: int, source: int, target: int, views: Views, exact: Array, rough: Array
    ) -> tuple[Array, Array]:
        """Give a block the maps of as many views as fit into memory: the larger the maps, the fewer there are."""
        values = np.prod(self._graph.shape(source)) + np.prod(self._graph.shape(target))
        count = int(np.clip(refit.MAPS_BYTES / (4 * values), refit.LEAST_VIEWS, len(views)))
        if count <= len(exact):
            shared = rough is exact
            exact, rough = exact[:count], rough[:count]
            return exact, exact if shared else rough
        more = views[len(exact) : count]
        if first == 0:
            exact = more
            return exact, exact
        further = self._through(0, first, more, quantized=False)
        if self._request.exact:
            exact = np.concatenate([exact, further])
            return exact, exact
        return (
            np.concatenate([exact, further]),
            np.concatenate([rough, self._through(0, first, more, quantized=True)]),
        )

    def _through(self, first: int, end: int, maps: Array, *, quantized: bool) -> Array:
        """Compute operators with LiteRT: as they were, or as learned so far and in int8."""
        threads = self._request.threads
        if not quantized:
            return refit.through(self._graph, first, end, maps, threads=threads)
        return refit.through(self._learned(), first, end, maps, ranges=self._named_ranges(), threads=threads)

    def _learned(self) -> Graph:
        """The float file with the weights as learned so far."""
        graph = Graph(self._graph.content())
        for index in self._deltas:
            graph.set_constant(index, self._weights(index).numpy())
        return graph

    def _fit(self, first: int, end: int, rough: Array, wanted: Array) -> None:
        """Begin with a last convolution that is fitted by least squares."""
        most, ranges = refit.MOST_VIEWS, self._named_ranges()
        constants = refit.fit(
            self._learned(),
            first,
            end,
            rough[:most],
            wanted[:most],
            ranges,
            self._random,
            threads=self._request.threads,
        )
        for index, values in constants.items():
            if index in self._deltas:
                self._deltas[index].assign((values - self._constants[index]) / self._sizes[index])

    def _named_ranges(self) -> quantize.Ranges:
        """Ranges as learned so far, by name, of all tensors that share a scale."""
        learned = {
            self._graph.name(index): tuple(float(bound) for bound in self._bounds(source))
            for index, source in roots(self._graph).items()
            if source in self._ratios
        }
        return {**self._begun_with, **{name: (low, high) for name, (low, high) in learned.items()}}

    def _importance(self, views: Array, send: Send) -> dict[int, Array]:
        """How much the scores depend on each channel of what blocks give: (channels,), by tensor, 1 on average.

        The mean square of the gradient of the score of a class that is drawn by its probability, which is the diagonal
        of the Fisher information (BRECQ, arXiv:2102.05426).
        """
        tf, end = self._tf, self._blocks[-1][1]
        ends = [self._nodes[position - 1].output for _, position in self._blocks[:-1]]
        batch = self._batch(0, end, EVEN_BATCH, FINISH_VALUES)

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def squares(x: Any, seed: Any) -> Any:
            with tf.GradientTape() as tape:
                values = self._replay(0, end, {self._graph.inputs[0]: x}, (tape, ends))
                logits = tf.reshape(values[self._nodes[end - 1].output], (len(x), -1))
                drawn = tf.random.stateless_categorical(logits, 1, seed=seed)[:, 0]
                loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(drawn, logits))
            gradients = tape.gradient(loss, [values[index] for index in ends])
            return [tf.reduce_sum(tf.square(gradient), axis=(0, 1, 2)) for gradient in gradients]

        starts = range(0, len(views) - batch + 1, batch)
        send({"stage": "tell which channels count", "total": len(starts)})
        sums: list[Array] = []
        for at in starts:
            found = squares(tf.constant(views[at : at + batch], tf.float32), tf.constant([self._request.seed, at]))
            sums = [value.numpy() + (sums[number] if sums else 0) for number, value in enumerate(found)]
            send({"step": at})
        return {
            index: LEAST_WEIGHT + (1 - LEAST_WEIGHT) * total / max(float(total.mean()), 1e-30)
            for index, total in zip(ends, sums, strict=True)
        }

    def _rates(self, first: int, end: int, share: float) -> list[tuple[list[Any], float]]:
        """What operators can learn, and how fast."""
        return [
            (self._variables(first, end, weights=True), WEIGHT_RATE * share),
            (self._variables(first, end, weights=False), BIAS_RATE * share),
            (self._range_variables(first, end), RANGE_RATE * share),
        ]

    def _step(
        self, first: int, end: int, source: int, target: int, loss: Any, rates: Sequence[tuple[list[Any], float]]
    ) -> Callable[[float, Array, Array], Any]:
        """Return a function that makes one step of Adam (arXiv:1412.6980) at a share of the learning rates."""
        tf = self._tf
        learned = [(variable, rate) for group, rate in rates for variable in group]
        means = [tf.Variable(tf.zeros_like(variable)) for variable, _ in learned]
        squares = [tf.Variable(tf.zeros_like(variable)) for variable, _ in learned]

        @tf.function  # type: ignore[untyped-decorator]
        def apply(x: Any, wanted: Any, share: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(self._simulate(first, end, {source: x})[target], wanted)
            gradients = tape.gradient(value, [variable for variable, _ in learned])
            for (variable, rate), mean, square, gradient in zip(learned, means, squares, gradients, strict=True):
                if gradient is not None:
                    mean.assign(BETA_1 * mean + (1 - BETA_1) * gradient)
                    square.assign(BETA_2 * square + (1 - BETA_2) * tf.square(gradient))
                    variable.assign_sub(rate * share * mean / (tf.sqrt(square) + EPSILON))
            return value

        taken = itertools.count(1)

        def step(share: float, x: Array, wanted: Array) -> Any:
            count = next(taken)
            unbiased = np.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
            return apply(
                tf.constant(x, tf.float32), tf.constant(wanted, tf.float32), tf.constant(share * unbiased, tf.float32)
            )

        return step

    def _function(self, first: int, end: int, source: int, target: int, *, quantized: bool) -> Callable[[Array], Array]:
        tf, compute_all = self._tf, self._simulate if quantized else self._replay

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def compute(x: Any) -> Any:
            return compute_all(first, end, {source: x})[target]

        def call(x: Array) -> Array:
            result: Array = compute(tf.constant(x, tf.float32)).numpy()
            return result

        return call

    def _simulate(self, first: int, end: int, values: dict[int, Any]) -> dict[int, Any]:
        """Compute operators as their int8 kernels would; `values` has the tensors that come from before."""
        if self._request.exact:
            source = self._input(first)
            values[source] = self._rounded_map(source, values[source])
        for node in self._nodes[first:end]:
            y = self._operate(node, [self._given(node, index, values) for index in node.inputs])
            y = self._activate(y, node.activation)
            in_float = self._request.exact and node.kind == "ADD" and node is self._nodes[end - 1]
            values[node.output] = y if in_float else self._quantize(node, y)
        return values

    def _given(self, node: Node, index: int, values: dict[int, Any]) -> Any:
        """What an operator is given: a map, or weights as learned so far."""
        if index in values or index not in self._deltas:
            return self._argument(index, values)
        tf, weights = self._tf, self._weights(index)
        if index != node.inputs[1]:
            return weights  # a bias has 32 bits
        largest = tf.reduce_max(tf.abs(weights), axis=_other_axes(node), keepdims=True)
        size = tf.stop_gradient(tf.maximum(largest / WEIGHT_LEVELS, 1e-12))
        return _rounded(tf, weights / size) * size

    def _weights(self, index: int) -> Any:
        """Weights or a bias as learned so far, not rounded."""
        return self._constants[index] + self._deltas[index] * self._sizes[index]

    def _quantize(self, node: Node, y: Any) -> Any:
        """Round to the 256 values of a tensor's range."""
        tf = self._tf
        if node.kind == "LOGISTIC":
            # 256 steps of 1/256: a gate that is wide open lets 255/256 through.
            return tf.quantization.fake_quant_with_min_max_args(y, 0.0, 255 / 256)
        return self._rounded_map(node.output, y)

    def _rounded_map(self, index: int, y: Any) -> Any:
        if index not in self._ranges:
            return y
        low, high = self._bounds(index)
        return fake_quantized(self._tf, y, low, high)

    def _bounds(self, index: int) -> tuple[Any, Any]:
        tf, (low, high) = self._tf, self._ranges[index]
        if index not in self._ratios:
            return tf.constant(low, tf.float32), tf.constant(high, tf.float32)
        down, up = self._ratios[index]
        return low * tf.exp(down), high * tf.exp(up)

    def _relative_error(self, wanted: Array, counts: Array | None = None) -> Callable[[Any, Any], Any]:
        """The mean square error relative to the variance; `counts` says how much each channel does."""
        variances = np.var(wanted[:COMPARED].astype(np.float32), axis=tuple(range(wanted.ndim - 1)), dtype=np.float64)
        weights = np.ones(variances.shape) if counts is None else counts
        scale = self._tf.constant(weights / max(float((variances * weights).mean()), 1e-12), self._tf.float32)
        return lambda found, exact: self._tf.reduce_mean(self._tf.square(found - exact) * scale)

    def _divergence(self, found: Any, exact: Any) -> Any:
        """Kullback-Leibler divergence of the scores, from logits."""
        tf = self._tf
        scores = tf.nn.softmax(exact)
        return tf.reduce_mean(tf.reduce_sum(scores * (tf.nn.log_softmax(exact) - tf.nn.log_softmax(found)), axis=1))

    def _error(self, compute: Callable[[Array], Array], loss: Any, given: Array, wanted: Array) -> float:
        """The mean loss of what is computed of the given maps, batch by batch."""
        found = _in_batches(compute, given)
        sums = [
            float(loss(*(self._tf.constant(part, self._tf.float32) for part in pair))) * len(pair[0])
            for at in range(0, len(found), EVEN_BATCH)
            for pair in [(found[at : at + EVEN_BATCH], wanted[at : at + EVEN_BATCH])]
        ]
        return sum(sums) / len(found)

    def _variables(self, first: int, end: int, *, weights: bool) -> list[Any]:
        nodes = [node for node in self._nodes[first:end] if node.kind in WEIGHTED]
        indices = dict.fromkeys(node.inputs[1 if weights else 2] for node in nodes)
        return [self._deltas[index] for index in indices if index in self._deltas]

    def _range_variables(self, first: int, end: int) -> list[Any]:
        outputs = [node.output for node in self._nodes[first:end]]
        if self._request.exact:  # what it reads is rounded for it, what it ends with for the next
            outputs = [self._input(first), *outputs[:-1]]
        return [variable for output in outputs for variable in self._ratios.get(output, ())]

    def _values(self) -> list[Array]:
        return [variable.numpy() for variable in self._all_variables()]

    def _restore(self, values: Iterable[Array]) -> None:
        for variable, value in zip(self._all_variables(), values, strict=True):
            variable.assign(value)

    def _all_variables(self) -> list[Any]:
        ratios = [variable for pair in self._ratios.values() for variable in pair]
        return [*self._deltas.values(), *ratios]


def _channel_axis(node: Node) -> int:
    """The axis of an operator's weights along which each channel has its own scale."""
    return 3 if node.kind == "DEPTHWISE_CONV_2D" else 0


def _other_axes(node: Node) -> tuple[int, ...]:
    rank = 2 if node.kind == "FULLY_CONNECTED" else 4
    return tuple(axis for axis in range(rank) if axis != _channel_axis(node))


def _rates(steps: int) -> Iterable[float]:
    """Shares of the learning rate: a warm-up, then half a cosine down."""
    for step in range(steps):
        yield min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / steps))


def _in_batches(compute: Callable[[Array], Array], x: Array) -> Array:
    return np.concatenate([compute(x[at : at + EVEN_BATCH]) for at in range(0, len(x), EVEN_BATCH)])


def _rounded(tf: Any, x: Any) -> Any:
    """Round; the gradient passes straight through."""
    return x + tf.stop_gradient(tf.round(x) - x)


def main() -> int:
    """Answer one request; the exit status is 0 when a result or an error of edgeeff's own was sent."""
    return serve(lambda argument, send: run(_decode(argument), send))


def _decode(argument: str) -> Request:
    fields = json.loads(argument)
    return Request(**{**fields, "fixed": tuple(fields["fixed"])})
