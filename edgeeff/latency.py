"""The latency model: how long an unmeasured network takes on a device where few others were measured.

A network is a list of operators (`Workload`), made from its shapes alone, so nothing has to be converted to ask. The
time of an inference is a sum over what the operators do (`COSTS`): multiply-accumulates of matrix products, which
kernels compute for some pixels at once, those of depthwise convolutions, bytes moved, sigmoids, weights read, calls,
and bytes that do not fit the last cache. One unit says how fast the device is, and a ratio to it says what each of the
others costs. Ratios differ less between devices than speeds do, so each has a prior (a middle and a width), and
measurements move both: the first one settles the unit, the second one begins to settle the ratios that it is
informative about.

The fit is a maximum a posteriori estimate in logarithms (every cost stays positive, every error is relative) by
Gauss-Newton, with the Gaussian approximation of the posterior around it: Bishop, Pattern Recognition and Machine
Learning (2006), section 4.4. Prediction intervals come from there.

NumPy only. What the facts of a board are is told by the caller; reading a .tflite file is `converters.workload`'s, and
which network to measure next is `pick`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeeff.errors import InputError
from edgeeff.scaling import Block, Network

Vector = npt.NDArray[np.float64]
Kind = Literal["product", "image", "depthwise", "sigmoid", "move"]
"""What an operator's time is made of: matrix products, the convolution that reads the image's three channels, depthwise
convolutions, logistic functions, and everything that moves values and computes little."""

MISFIT = 0.03
"""Relative error that is left when all costs are known: what kernels do with odd shapes is not modelled. Fits of all
costs to 23 networks on an x86-64 CPU leave 0.02, to the 49 float and 45 int8 rows of a Raspberry Pi 4 0.06 and 0.03."""
FOREIGN = 0.3
"""The same for a network of another family than the one asked for: these err together, so many do not count as many."""
OFFSET = 0.1
"""By how much another family as a whole may be slower or faster than its operators tell."""
UNKNOWN = 3.0
"""Natural logarithm's spread of a speed that nothing is known of: a factor of 20 either way."""
FACTS = 0.5
"""That of a speed that follows from a board's peak."""
EFFICIENCY = 0.6
"""Share of the peak that matrix products of these sizes reach: 13.7 to 15.3 of 24 G float MACs per second on a
Raspberry Pi 4 (MLPerf Inference v1.1)."""
INT8_GAIN = MappingProxyType({None: 3.0, False: 2.4, True: 5.0})
"""How much faster int8 products are than float ones, by whether the CPU has int8 dot products: 2.4 on a Raspberry Pi 4
(MLPerf Inference v1.1); the dot product does four times the lanes of float at about the same share of the peak."""
TILE = 8
"""Pixels that a kernel of matrix products computes at once on Arm: 8 in ruy, whose kernels TFLite brings, and 4 to 8 in
XNNPACK. Left-over pixels cost as much as all of them: the last layers of Lite0 have 49, those of Lite1 have 64."""
AVX512_TILE = 7
"""Those of XNNPACK on x86-64 with 512-bit vectors."""


@dataclass(frozen=True)
class Operator:
    """One operator; `inputs` and `output` are indices into the sizes of its workload, constants are `weight_bytes`.

    `taps` counts what a convolution's table of input pixels points to, one for each output pixel and weight position; a
    depthwise one shares columns between neighbours. `channels` are the output's of what has weights.
    """

    kind: Kind
    macs: int
    inputs: tuple[int, ...]
    output: int
    weight_bytes: int = 0
    taps: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Workload:
    """What a network does in one inference, in order.

    `scheme` is "float32" or "int8", what it computes in; `family` says whose misfits it shares; `sizes` are the bytes
    of every value that is computed, the image first.
    """

    name: str
    family: str
    scheme: str
    operators: tuple[Operator, ...]
    sizes: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, with those of preprocessing."""
        return sum(operator.macs for operator in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights and biases."""
        return sum(operator.weight_bytes for operator in self.operators)

    @cached_property
    def columns(self) -> dict[str, Vector]:
        """What the operators do, (operators,) each: MACs, bytes written, moved and of weights, and pixels computed."""
        written = [self.sizes[operator.output] for operator in self.operators]
        item = 1 if self.scheme == "int8" else 4
        columns = {
            "macs": [operator.macs for operator in self.operators],
            "written": written,
            "moved": [
                size + sum(self.sizes[index] for index in operator.inputs)
                for size, operator in zip(written, self.operators, strict=True)
            ],
            "weights": [operator.weight_bytes for operator in self.operators],
            "pixels": [
                size / item / max(1, operator.channels) for size, operator in zip(written, self.operators, strict=True)
            ],
        }
        return {name: np.array(values, np.float64) for name, values in columns.items()}

    @cached_property
    def kinds(self) -> npt.NDArray[np.str_]:
        """The operators' kinds."""
        return np.array([operator.kind for operator in self.operators], np.str_)

    @property
    def activation_bytes(self) -> int:
        """The most bytes of values that are needed at once, while operators run in their order.

        The image stays where the caller put it. What computes value by value writes over an input of the same size that
        nobody reads afterwards.
        """
        last = {index: position for position, item in enumerate(self.operators) for index in item.inputs}
        live: dict[int, int] = {}
        most = 0
        for position, operator in enumerate(self.operators):
            size = self.sizes[operator.output]
            ended = {index for index in operator.inputs if index != 0 and last[index] == position}
            if operator.kind in {"sigmoid", "move"}:
                replaced = next((index for index in ended if self.sizes[index] == size), None)
                if replaced is not None:
                    del live[replaced]
                    ended.remove(replaced)
            live[operator.output] = size
            most = max(most, sum(live.values()))
            for index in ended:
                del live[index]
        return self.sizes[0] + most


@dataclass(frozen=True)
class Ratio:
    """What one thing costs, in float MACs of a matrix product (int8 ones for int8): middle, and spread of its log."""

    middle: float
    spread: float


# The middles are round numbers between two devices that have little in common: a Raspberry Pi 4 (four Cortex-A72
# threads, NEON, 1 MiB of cache; from the MobileNets of MLPerf Inference v1.1) and an x86-64 core with 512-bit vectors
# and a large cache. The spreads reach both, and a factor of 2 in any middle but the last one's hardly matters after two
# measurements. A depthwise MAC loads its own operands, which a matrix product shares among many; a byte that misses the
# last cache costs what memory does (10 GB/s for one core that does 80 G float MACs). That of the product itself is the
# balance of a device between computing and everything else: the others follow it together.
COSTS: Mapping[str, Mapping[str, Ratio]] = MappingProxyType(
    {
        "float32": MappingProxyType(
            {
                "product": Ratio(1.0, 0.6),  # MACs
                "depthwise": Ratio(3.0, 0.7),  # MACs
                "image": Ratio(3.0, 1.2),  # MACs
                "traffic": Ratio(1.5, 0.7),  # bytes that operators read and write
                "sigmoid": Ratio(2.0, 0.6),  # bytes written
                "weights": Ratio(2.5, 0.7),  # bytes
                "call": Ratio(1.5e5, 0.8),  # operators
                "spill": Ratio(8.0, 0.4),  # bytes
            }
        ),
        "int8": MappingProxyType(
            {
                "product": Ratio(1.0, 0.6),
                "depthwise": Ratio(10.0, 0.7),
                "image": Ratio(2.0, 1.2),
                "traffic": Ratio(14.0, 0.7),
                "sigmoid": Ratio(25.0, 0.6),
                "weights": Ratio(6.0, 0.7),
                "call": Ratio(4e5, 0.8),
                "spill": Ratio(16.0, 0.4),
            }
        ),
    }
)
SCHEMES = MappingProxyType({"float32": "float32", "float16": "float32", "weight-only": "float32", "int8": "int8"})
"""What a scheme computes in, where the model knows it."""
STORED = MappingProxyType({"float32": (4, 4, 0), "float16": (2, 2, 0), "weight-only": (1, 4, 1), "int8": (1, 4, 2)})
"""Bytes of a weight and of a bias in the file, and how many scales a channel has."""
SCALE_BYTES = 12
"""A scale (float32) and a zero point (int64)."""
FILE_BYTES = 75_000
"""Names of tensors and labels; 45 kB for the smallest network that was seen, 0.3 MB for the largest."""
POINTER_BYTES = 8
"""Of a 64-bit system."""
RUNTIME_BYTES = 1_500_000
"""What LiteRT 2.3 takes besides for an EfficientNet, whichever: 0.5 to 3 MB were seen."""


@dataclass(frozen=True)
class Prior:
    """What is known of a device before anything is measured there.

    `macs_per_s` is the expected speed of matrix products, and `spread` that of its natural logarithm. Without
    `cache_bytes`, the size of the last cache, no value counts as too large for it. `tile` is how many pixels a kernel
    computes at once.
    """

    macs_per_s: float | None = None
    spread: float = UNKNOWN
    cache_bytes: int | None = None
    tile: int = TILE


@dataclass(frozen=True)
class Measured:
    """A network that was measured: seconds of one inference, and their relative standard error."""

    workload: Workload
    seconds: float
    sigma: float = 0.01


@dataclass(frozen=True)
class Prediction:
    """Seconds of one inference (a median), and the interval that holds a measurement with the level asked for."""

    seconds: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Model:
    """A fitted model; `predict` and `moments` are for workloads of its scheme and, at their best, of its family."""

    scheme: str
    family: str
    prior: Prior
    fitted: tuple[str, ...]
    """Names of the networks that it was fitted on."""
    point: Vector = field(repr=False)
    """Logarithms: the unit in seconds, then each cost's deviation from its prior ratio."""
    covariance: Vector = field(repr=False)

    @property
    def costs(self) -> dict[str, float]:
        """What each thing costs in seconds per MAC, byte or operator."""
        costs = COSTS[self.scheme]
        return {
            name: ratio.middle * math.exp(self.point[0] + self.point[1 + index])
            for index, (name, ratio) in enumerate(costs.items())
        }

    def predict(self, workload: Workload, level: float = 0.95) -> Prediction:
        """Return how long a network takes; raises InputError when it computes in another scheme."""
        means, covariance = self.moments([workload])
        reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(covariance[0, 0])
        middle = float(means[0])
        return Prediction(math.exp(middle), (math.exp(middle - reach), math.exp(middle + reach)))

    def probability(self, workload: Workload, budget_s: float) -> float:
        """Return the probability that a network takes no longer than `budget_s`."""
        means, covariance = self.moments([workload])
        return NormalDist(float(means[0]), math.sqrt(covariance[0, 0])).cdf(math.log(budget_s))

    def moments(self, workloads: Sequence[Workload]) -> tuple[Vector, Vector]:
        """Return means and covariance of the natural logarithm of every network's seconds, (n,) and (n, n).

        The covariance says how much measuring one network tells about another; its diagonal has the misfit in it.
        Raises InputError when a network computes in another scheme.
        """
        for workload in workloads:
            _check_scheme(workload, self.scheme)
        means, slopes = _expected(_table(workloads, self.scheme, self.prior), self.scheme, self.point)
        return means, slopes @ self.covariance @ slopes.T + MISFIT**2 * np.eye(len(means))


def fit(measured: Sequence[Measured], scheme: str, *, family: str, prior: Prior | None = None) -> Model:
    """Fit the model to what was measured on one device, with one runtime and number of threads.

    `family` is the one to predict; networks of others count, for less. Raises InputError when there is neither a
    measurement nor a speed to start from, a time is not above zero, or a network computes in another scheme.
    """
    prior = prior or Prior()
    if scheme not in COSTS:
        raise InputError(f"the latency model knows no scheme '{scheme}'; it knows {', '.join(COSTS)}")
    for item in measured:
        _check_scheme(item.workload, scheme)
        if not 0 < item.seconds < math.inf:
            raise InputError(f"{item.workload.name} cannot take {item.seconds:g} s; measure it again")
    table = _table([item.workload for item in measured], scheme, prior)
    ratios = COSTS[scheme].values()
    if prior.macs_per_s is not None:
        start = -math.log(prior.macs_per_s)
    elif measured:
        # Where the search begins, with a width that leaves the choice to the measurements.
        plain = table @ np.array([ratio.middle for ratio in ratios])
        start = float(np.median(np.log([item.seconds for item in measured]) - np.log(plain)))
    else:
        raise InputError("nothing was measured and nothing is known of the board: measure one network first")
    others = sorted({item.workload.family for item in measured} - {family})
    offsets = np.array([[item.workload.family == other for other in others] for item in measured], np.float64)
    offsets = offsets.reshape(len(measured), len(others))
    errors = np.array(
        [math.hypot(item.sigma, MISFIT if item.workload.family == family else FOREIGN) for item in measured]
    )
    spreads = np.array([prior.spread, *(ratio.spread for ratio in ratios), *(OFFSET for _ in others)])
    centre = np.array([start, *(0.0 for _ in range(table.shape[1] + len(others)))])
    point, covariance = _posterior(
        table, scheme, offsets, np.log([item.seconds for item in measured]), errors, centre, spreads
    )
    own = 1 + table.shape[1]
    return Model(
        scheme=scheme,
        family=family,
        prior=prior,
        fitted=tuple(item.workload.name for item in measured),
        point=point[:own],
        covariance=covariance[:own, :own],
    )


def board_prior(
    peak_float32_ops_per_s: float,
    cores: int,
    scheme: str,
    *,
    threads: int = 1,
    int8_dot_product: bool | None = None,
    cache_bytes: int | None = None,
) -> Prior:
    """Return what a board's published facts say of its speed; a multiply-accumulate is two of the peak's operations."""
    rate = peak_float32_ops_per_s / 2 * min(threads, cores) / cores * EFFICIENCY
    if scheme == "int8":
        rate *= INT8_GAIN[int8_dot_product]
    return Prior(rate, FACTS, cache_bytes)


CACHES, PROCESSOR = Path("/sys/devices/system/cpu/cpu0/cache"), Path("/proc/cpuinfo")


def this_machine(caches: Path = CACHES, processor: Path = PROCESSOR) -> Prior:
    """Return what Linux tells of this machine: the largest cache, None where it tells of none, and its vectors."""
    units = {"K": 1 << 10, "M": 1 << 20}
    sizes = []
    for path in caches.glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text[:-1].isdigit() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    wide = processor.is_file() and "avx512f" in processor.read_text(encoding="utf-8").split()
    return Prior(cache_bytes=max(sizes, default=None), tile=AVX512_TILE if wide else TILE)


def peak_memory(workload: Workload) -> int:
    """Return the bytes that loading a network and running it takes, beside the runtime itself and the file.

    These are the weights once more, as XNNPACK repacks them, the values that are needed at once, and pointers to the
    pixels that convolutions read.
    """
    pointers = sum(operator.taps for operator in workload.operators) * POINTER_BYTES
    return workload.weight_bytes + workload.activation_bytes + pointers + RUNTIME_BYTES


def file_bytes(workload: Workload, scheme: str) -> int:
    """Return about how large a network's .tflite file is; `scheme` says how weights are stored.

    These are the weights and a bias for every channel, and for what is quantized a scale and a zero point for every
    channel's weights, in int8 another for its bias.
    """
    stored, bias, scales = STORED[scheme]
    channels = sum(operator.channels for operator in workload.operators)
    weights = (workload.weight_bytes - 4 * channels) // (1 if workload.scheme == "int8" else 4)
    return weights * stored + channels * (bias + scales * SCALE_BYTES) + FILE_BYTES


# The sum


def _table(workloads: Sequence[Workload], scheme: str, prior: Prior) -> Vector:
    """Return how much of each cost's thing a network has: (networks, costs), in the order of COSTS."""
    rows = [_amounts(workload, prior) for workload in workloads]
    return np.array([[row[name] for name in COSTS[scheme]] for row in rows], np.float64).reshape(-1, len(COSTS[scheme]))


def _amounts(workload: Workload, prior: Prior) -> dict[str, float]:
    kinds, columns = workload.kinds, workload.columns
    macs, written, moved, pixels = (columns[name] for name in ("macs", "written", "moved", "pixels"))
    # Products with a single pixel have kernels of their own.
    padded = np.where(pixels > 1, np.ceil(pixels / prior.tile) * prior.tile / np.maximum(pixels, 1), 1)
    image = kinds == "image"
    amounts = {
        "product": macs * padded * (image | (kinds == "product")),
        "depthwise": macs * (kinds == "depthwise"),
        "image": macs * image,
        "traffic": moved,
        "sigmoid": written * (kinds == "sigmoid"),
        "weights": columns["weights"],
        "call": np.ones(len(kinds)),
    }
    if prior.cache_bytes is not None:
        # One pass over more than a cache holds finds nothing of it there in the next pass: what is least recently
        # used went first.
        amounts["spill"] = moved * (moved + columns["weights"] > prior.cache_bytes)
    return dict.fromkeys(COSTS[workload.scheme], 0.0) | {name: float(part.sum()) for name, part in amounts.items()}


def _expected(table: Vector, scheme: str, point: Vector) -> tuple[Vector, Vector]:
    """Return the logarithm of every network's seconds, and its derivatives with respect to the point."""
    middles = np.array([ratio.middle for ratio in COSTS[scheme].values()])
    parts = table * middles * np.exp(point[1 : 1 + len(middles)])
    sums = parts.sum(axis=1)
    return point[0] + np.log(sums), np.column_stack([np.ones(len(sums)), parts / sums[:, None]])


def _posterior(
    table: Vector, scheme: str, offsets: Vector, logs: Vector, errors: Vector, centre: Vector, spreads: Vector
) -> tuple[Vector, Vector]:
    """Return the most probable point and the covariance around it."""
    precision = np.diag(spreads**-2.0)
    own = 1 + table.shape[1]
    point = centre.copy()
    for _ in range(200):
        expected, slopes = _expected(table, scheme, point)
        slopes = np.column_stack([slopes, offsets])
        weighted = slopes.T / errors**2
        hessian = weighted @ slopes + precision
        gradient = weighted @ (logs - expected - offsets @ point[own:]) - precision @ (point - centre)
        step = np.clip(np.linalg.solve(hessian, gradient), -0.7, 0.7)  # a factor of 2: shares change slowly enough
        point = point + step
        if np.abs(step).max() < 1e-9:
            break
    return point, np.linalg.inv(hessian)


def _check_scheme(workload: Workload, scheme: str) -> None:
    if workload.scheme != scheme:
        raise InputError(
            f"{workload.name} computes in {workload.scheme}, the model is for {scheme}: fit one for each scheme"
        )


# Networks


def taps(name: str, positions: int, kernel: tuple[int, int], stride: int) -> int:
    """Return how many pixels the table of a convolution points to: XNNPACK's indirection buffer.

    `positions` are its output pixels; `kernel` is height and width.
    """
    height, width = kernel
    if height * width == 1 or name not in {"CONV_2D", "DEPTHWISE_CONV_2D"}:
        return 0
    return positions * height * (width if name == "CONV_2D" else min(stride, width))


def kind(name: str, *, kernel: int = 1, channels: int = 0) -> Kind:
    """Return the kind of an operator by TFLite's name, its kernel's height and its input channels."""
    if name == "CONV_2D":
        return "image" if kernel > 1 and channels <= 4 else "product"
    if name == "FULLY_CONNECTED":
        return "product"
    if name == "DEPTHWISE_CONV_2D":
        return "depthwise"
    return "sigmoid" if name in {"LOGISTIC", "HARD_SWISH", "TANH"} else "move"


def network_workload(network: Network, scheme: str, *, classes: int = 1000, resolution: int | None = None) -> Workload:
    """Return what the .tflite file of a network does that `edgeeff convert` would make, with its softmax.

    `resolution` in pixels replaces the network's own. Raises InputError for a scheme whose kernels are not modelled.
    """
    if scheme not in SCHEMES:
        raise InputError(f"no latency is predicted for '{scheme}', only for {', '.join(SCHEMES)}: measure it instead")
    writer = Writer(SCHEMES[scheme], network.resolution if resolution is None else resolution)
    writer.preprocess()
    writer.convolve(network.stem_channels, 3, 2)
    writer.activate(network.activation)
    for block in network.blocks:
        _write_block(writer, block, network.activation)
    writer.convolve(network.head_channels)
    writer.activate(network.activation)
    writer.pool()
    writer.connect(classes)
    return writer.finish(network.name, "b" if network.family == "phi" else network.family)


def _write_block(writer: Writer, block: Block, activation: str) -> None:
    start = writer.current
    if block.kind == "mbconv":
        if block.expand_ratio != 1:
            writer.convolve(block.expanded_channels)
            writer.activate(activation)
        writer.filter(block.kernel, block.stride)
        writer.activate(activation)
    elif block.expand_ratio != 1:
        if block.late_stride:
            writer.pad(block.kernel // 2)
        writer.convolve(block.expanded_channels, block.kernel, block.stride, padded=block.late_stride)
        writer.activate(activation)
    if block.se_channels:
        writer.excite(block.se_channels, activation)
    if block.kind == "fused" and block.expand_ratio == 1:
        writer.convolve(block.out_channels, block.kernel, block.stride)
        writer.activate(activation)
    else:
        writer.convolve(block.out_channels)
    if block.skip:
        writer.add("ADD", (writer.current, start), writer.side, writer.channels)


class Writer:
    """Writes a workload, one operator after the other, for square images of `side` pixels.

    `side`, `channels` and `current`, its index, are those of the last value.
    """

    def __init__(self, scheme: str, side: int) -> None:
        self.scheme = scheme
        self.item = 1 if scheme == "int8" else 4
        self.side, self.channels, self.current = side, 3, 0
        self.sizes = [side * side * 3 * self.item]
        self.operators: list[Operator] = []

    def add(
        self,
        name: str,
        inputs: tuple[int, ...],
        side: int,
        channels: int,
        *,
        macs: int = 0,
        weights: int = 0,
        biases: int = 0,
        kernel: int = 1,
        stride: int = 1,
        item: int | None = None,
    ) -> None:
        """Write one operator by TFLite's name; `side` and `channels` are its output's, `weights` and `biases` counts.

        `kernel` is the side of its filter, and `item` the bytes of an output value where they are not the scheme's.
        """
        self.sizes.append(side * side * channels * (item or self.item))
        output = len(self.sizes) - 1
        # Biases have four bytes in every scheme.
        weight_bytes = weights * self.item + biases * 4
        self.operators.append(
            Operator(
                kind(name, kernel=kernel, channels=self.channels),
                macs,
                inputs,
                output,
                weight_bytes,
                taps(name, side * side, (kernel, kernel), stride),
                biases,
            )
        )
        self.side, self.channels, self.current = side, channels, output

    def preprocess(self) -> None:
        """Scale the pixels: one depthwise convolution over rows, between two reshapes."""
        side = self.side
        if self.item == 1:
            self.add("QUANTIZE", (self.current,), side, 3)
        self.add("RESHAPE", (self.current,), side, 3, weights=16 // self.item)
        self.add("DEPTHWISE_CONV_2D", (self.current,), side, 3, macs=side * side * 3, weights=side * 3, biases=side * 3)
        self.add("RESHAPE", (self.current,), side, 3, weights=16 // self.item)

    def convolve(self, channels: int, kernel: int = 1, stride: int = 1, *, padded: bool = False) -> None:
        """Convolve with SAME padding, or with none where the value is `padded` already."""
        side = (self.side - kernel) // stride + 1 if padded else -(-self.side // stride)
        weights = kernel**2 * self.channels * channels
        self.add(
            "CONV_2D",
            (self.current,),
            side,
            channels,
            macs=side * side * weights,
            weights=weights,
            biases=channels,
            kernel=kernel,
            stride=stride,
        )

    def filter(self, kernel: int, stride: int) -> None:
        """Convolve every channel by itself."""
        side, weights = -(-self.side // stride), kernel**2 * self.channels
        self.add(
            "DEPTHWISE_CONV_2D",
            (self.current,),
            side,
            self.channels,
            macs=side * side * weights,
            weights=weights,
            biases=self.channels,
            kernel=kernel,
            stride=stride,
        )

    def activate(self, activation: str) -> None:
        """Swish takes two operators; the others are part of the convolution."""
        if activation == "swish":
            value = self.current
            self.add("LOGISTIC", (value,), self.side, self.channels)
            self.add("MUL", (value, self.current), self.side, self.channels)

    def excite(self, squeezed: int, activation: str) -> None:
        """Squeeze and excite."""
        value, side, wide = self.current, self.side, self.channels
        self.add("MEAN", (value,), 1, wide, weights=8 // self.item)
        self.convolve(squeezed)
        self.activate(activation)
        self.convolve(wide)
        self.add("LOGISTIC", (self.current,), 1, wide)
        self.add("MUL", (value, self.current), side, wide)

    def pad(self, border: int) -> None:
        """Pad all four sides."""
        self.add("PAD", (self.current,), self.side + 2 * border, self.channels, weights=32 // self.item)

    def pool(self) -> None:
        """Average over all pixels."""
        self.add("MEAN", (self.current,), 1, self.channels, weights=8 // self.item)

    def connect(self, classes: int) -> None:
        """Score the classes, in float: a dense layer and softmax."""
        weights = self.channels * classes
        self.add("FULLY_CONNECTED", (self.current,), 1, classes, macs=weights, weights=weights, biases=classes)
        if self.item == 1:
            self.add("DEQUANTIZE", (self.current,), 1, classes, item=4)
        self.add("SOFTMAX", (self.current,), 1, classes, item=4)

    def finish(self, name: str, family: str) -> Workload:
        """Return what was written."""
        return Workload(name, family, self.scheme, tuple(self.operators), tuple(self.sizes))
