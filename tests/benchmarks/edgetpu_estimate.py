"""The estimate of an Edge TPU's latency against the figures that it is fitted to, each network left out in turn.

    python -m tests.benchmarks.edgetpu_estimate

Every line is a published figure (edge_tpu_published.csv says where from) and three ratios to it: the estimate as it
is in edgeeff, what a fit without this network says, and the naive one, which divides the MACs by 2 T/s. MACs and
parameters come from the networks' own tables; those of the Inceptions are published ones. Of the same page left out
are networks that it does not describe (which DenseNet, which SqueezeNet), those that the CPU computes in part
(detectors, segmentation), and Inception-ResNet v2, whose 57 ms with USB 3 cannot be: 56 MB of parameters would need
860 MB/s. At the end are the numbers that a fit gives now, beside those in edgeeff.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff import latency, scaling
from edgeeff.converters.edgetpu import estimate
from edgeeff.converters.edgetpu.estimate import Model, Work
from edgeeff.latency import Workload
from tests.benchmarks.predict_latency import Builder, mobilenet_v1, mobilenet_v2

PUBLISHED = Path(__file__).with_name("edge_tpu_published.csv")
RESIDENT = np.arange(5.2, 7.3, 0.1) * (1 << 20)
"""Where the number of bytes that stay is looked for: its effect has corners, so no slope leads there."""
FEW = 5
"""A link with fewer figures is taken to be no better known than the others."""
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A published latency."""

    network: str
    link: str
    seconds: float


@dataclass(frozen=True)
class Network:
    """What a network does, and how many bytes of parameters it has."""

    work: Work
    parameter_bytes: float


def main() -> None:
    """Fit, leave out, print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures = published()
    names = list(dict.fromkeys(figure.network for figure in figures))
    known = {name: network(name) for name in names}
    fitted = fit(figures, known)
    without = {name: fit([figure for figure in figures if figure.network != name], known) for name in names}
    errors: dict[str, list[float]] = {link.key: [] for link in estimate.MODEL.links}
    naive: dict[str, list[float]] = {link.key: [] for link in estimate.MODEL.links}
    print(
        f"{'network':22s} {'link':9s} {'published':>10s} {'estimate':>10s} {'ratio':>6s} {'left out':>8s} {'naive':>6s}"
    )
    for figure in figures:
        one = known[figure.network]
        expected = predict(estimate.MODEL, one, figure.link)
        alone = predict(without[figure.network], one, figure.link) / figure.seconds
        macs = one.work.convolution_macs + one.work.depthwise_macs
        simple = macs / estimate.PEAK_MACS_PER_S / figure.seconds
        errors[figure.link].append(alone)
        naive[figure.link].append(simple)
        print(
            f"{figure.network:22s} {figure.link:9s} {figure.seconds * 1e3:7.2f} ms {expected * 1e3:7.2f} ms "
            f"{expected / figure.seconds:6.2f} {alone:8.2f} {simple:6.3f}"
        )
    print(f"\n{'link':9s} networks   left out: typical  worst   naive: median   worst")
    for link, ratios in errors.items():
        size = np.abs(np.log(ratios))
        print(
            f"{link:9s} {len(ratios):8d} {spread(float(np.sqrt(np.mean(size**2)))):>19s} "
            f"{spread(float(size.max())):>6s} {np.median(naive[link]):15.3f} {min(naive[link]):7.3f}"
        )
    print("\na fit now, and what is in edgeeff")
    for name, now, there in numbers(fitted):
        print(f"  {name:28s} {now:10.4g} {there:10.4g}")
    print("factors of the intervals: " + ", ".join(f"{k} {v:.2f}" for k, v in factors(errors).items()))


def spread(size: float) -> str:
    return f"{math.exp(size):.2f}x"


def published() -> list[Figure]:
    """Read the figures."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        return [Figure(row["network"], row["link"], float(row["ms"]) / 1e3) for row in csv.DictReader(file)]


def predict(model: Model, one: Network, key: str) -> float:
    """Return the seconds that a model estimates."""
    link = next(link for link in model.links if link.key == key)
    return model.seconds(one.work, max(0.0, one.parameter_bytes - model.resident_bytes), link)


def factors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the worst ratio of each link; one with few figures has no better one than the others."""
    worst = {link: math.exp(max(abs(math.log(ratio)) for ratio in ratios)) for link, ratios in errors.items()}
    enough = max(worst[link] for link, ratios in errors.items() if len(ratios) >= FEW)
    return {link: size if len(errors[link]) >= FEW else max(size, enough) for link, size in worst.items()}


def numbers(fitted: Model) -> list[tuple[str, float, float]]:
    """Return every number of a fit beside that of edgeeff, in T/s, MiB, ms and MB/s."""
    there = estimate.MODEL
    rows = [
        ("convolutions, T MAC/s", fitted.convolution_macs_per_s / 1e12, there.convolution_macs_per_s / 1e12),
        ("depthwise, T MAC/s", fitted.depthwise_macs_per_s / 1e12, there.depthwise_macs_per_s / 1e12),
        ("stays, MiB", fitted.resident_bytes / (1 << 20), there.resident_bytes / (1 << 20)),
    ]
    for now, before in zip(fitted.links, there.links, strict=True):
        rows.append((f"{now.key}, ms", now.overhead_s * 1e3, before.overhead_s * 1e3))
        rows.append((f"{now.key}, MB/s", now.bytes_per_s / 1e6, before.bytes_per_s / 1e6))
    return rows


# The fit: least squares of relative errors, by Gauss-Newton with damping


def fit(figures: Sequence[Figure], known: Mapping[str, Network]) -> Model:
    """Return the model that is nearest to the figures; a link without any keeps its numbers."""
    choices = [_fit(figures, known, float(resident)) for resident in RESIDENT]
    return min(choices, key=lambda choice: choice[0])[1]


def _fit(figures: Sequence[Figure], known: Mapping[str, Network], resident: float) -> tuple[float, Model]:
    start = estimate.MODEL
    point = np.log(_vector(start))
    measured = np.log([figure.seconds for figure in figures])
    keys = [link.key for link in start.links]
    places = np.array([keys.index(figure.link) for figure in figures])
    works = [known[figure.network].work for figure in figures]
    macs = np.array([[one.convolution_macs, one.depthwise_macs] for one in works], np.float64)
    sent = np.array(
        [max(0.0, known[figure.network].parameter_bytes - resident) for figure in figures], np.float64
    ) + np.array([one.transferred_bytes for one in works], np.float64)

    def parts(at: Vector) -> Vector:
        """Seconds that each number accounts for: (figures, numbers)."""
        values = np.exp(at)
        table = np.zeros((len(figures), len(at)))
        table[:, :2] = macs / values[:2]
        rows = np.arange(len(figures))
        table[rows, 2 + 2 * places] = values[2 + 2 * places]
        table[rows, 3 + 2 * places] = sent / values[3 + 2 * places]
        return table

    signs = np.array([-1.0, -1.0, *([1.0, -1.0] * len(keys))])  # rates divide, the overhead is a time

    def misfit(at: Vector) -> Vector:
        return np.asarray(np.log(parts(at).sum(1)) - measured)

    damping, error = 1e-2, misfit(point)
    for _ in range(200):
        table = parts(point)
        slopes = table * signs / table.sum(1, keepdims=True)
        step = -np.linalg.solve(slopes.T @ slopes + damping * np.eye(len(point)), slopes.T @ error)
        after = misfit(point + np.clip(step, -0.5, 0.5))
        if after @ after < error @ error:
            point, error, damping = point + np.clip(step, -0.5, 0.5), after, damping / 3
            if np.abs(step).max() < 1e-7:
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return float(error @ error), _model(np.exp(point), resident)


def _vector(model: Model) -> Vector:
    links = [number for link in model.links for number in (link.overhead_s, link.bytes_per_s)]
    return np.array([model.convolution_macs_per_s, model.depthwise_macs_per_s, *links])


def _model(values: Vector, resident: float) -> Model:
    links = tuple(
        replace(link, overhead_s=float(values[2 + 2 * place]), bytes_per_s=float(values[3 + 2 * place]))
        for place, link in enumerate(estimate.MODEL.links)
    )
    return Model(float(values[0]), float(values[1]), resident, links)


# The networks


def network(name: str) -> Network:
    """Return what a network of the figures does, in int8."""
    if name in INCEPTIONS:
        side, macs, parameters = INCEPTIONS[name]
        return Network(Work(round(macs), 0, 3 * side**2 + 1001), parameters)
    workload = BUILDERS[name]() if name in BUILDERS else latency.network_workload(scaling.network(name), "int8")
    kinds = {"depthwise": "DEPTHWISE_CONV_2D", "move": "RESHAPE"}
    operators = [(kinds.get(operator.kind, "CONV_2D"), operator.macs) for operator in workload.operators]
    return Network(estimate.work(operators, workload.sizes[0] + 1001), workload.weight_bytes)


# Side of the image, MACs and parameters: torchvision 0.15 (googlenet; inception_v3, without its second head, which
# Keras counts), Open Model Zoo 2021.3 (googlenet-v4-tf: 24.584 G operations).
INCEPTIONS = {
    "inception-v1-224": (224, 1.498e9, 6.62e6),
    "inception-v3-299": (299, 5.713e9, 23.85e6),
    "inception-v4-299": (299, 12.292e9, 42.648e6),
}


def vgg(convolutions: Sequence[int]) -> Workload:
    """Simonyan and Zisserman, arXiv:1409.1556, table 1: how many convolutions each of the five parts has."""
    net = Builder("int8", 224)
    for count, channels in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            net.convolve(channels, 3)
        net.add("MAX_POOL_2D", (net.current,), net.side // 2, channels)
    for inputs, outputs in ((512 * 7 * 7, 4096), (4096, 4096), (4096, 1000)):
        weights = inputs * outputs
        net.add("FULLY_CONNECTED", (net.current,), 1, outputs, macs=weights, weights=weights, biases=outputs)
    return net.finish("vgg", "vgg")


def resnet(blocks: Sequence[int], side: int = 299) -> Workload:
    """He and others, arXiv:1512.03385, table 1, with the strides of TensorFlow's slim: in a part's last block."""
    net = Builder("int8", side)
    net.convolve(64, 7, 2)
    net.add("MAX_POOL_2D", (net.current,), -(-net.side // 2), 64)
    for part, count in enumerate(blocks):
        narrow = 64 << part
        for index in range(count):
            stride = 2 if index == count - 1 and part < 3 else 1
            start, source, before = net.current, net.channels, net.side
            if source != 4 * narrow:
                net.convolve(4 * narrow, 1, stride)
                net.side, net.channels, net.current = before, source, start
            net.convolve(narrow)
            net.convolve(narrow, 3, stride)
            net.convolve(4 * narrow)
            net.add("ADD", (net.current,), net.side, 4 * narrow)
    net.pool()
    net.connect(1001)
    return net.finish("resnet", "resnet")


BUILDERS: Mapping[str, Callable[[], Workload]] = {
    "mobilenet-v1-0.25-128": lambda: mobilenet_v1("", "int8", 0.25, 128),
    "mobilenet-v1-1.0-224": lambda: mobilenet_v1("", "int8", 1.0, 224),
    "mobilenet-v2-1.0-224": lambda: mobilenet_v2("", "int8", 1.0, 224),
    "resnet-50-v1-299": lambda: resnet((3, 4, 6, 3)),
    "resnet-50-v2-299": lambda: resnet((3, 4, 6, 3)),
    "resnet-152-v2-299": lambda: resnet((3, 8, 36, 3)),
    "vgg16-224": lambda: vgg((2, 2, 3, 3, 3)),
    "vgg19-224": lambda: vgg((2, 2, 4, 4, 4)),
}


if __name__ == "__main__":
    main()
