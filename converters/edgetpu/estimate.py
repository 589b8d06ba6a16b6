"""How long an inference on the Edge TPU may take: an estimate from published figures, never a measurement.

The time is a sum of what the host needs anyway, the image, the scores and the parameters that do not stay on the Edge
TPU on their way over the link, and the multiply-accumulates at a rate for each kind. Its ten numbers (`MODEL`) are
fitted to 33 figures that Google published of 14 networks; tests/benchmarks/edgetpu_estimate.py prints how far it is
from each of them, and fits it again. Sigmoids, products of values, and what is left to the CPU are in none of these
networks, so a file that has them gets a time that it takes at least.

Which operators the Edge TPU takes is said by `preflight`, what stays there by the compiler's log and its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeeff.results import EdgeTpuEstimate, EdgeTpuTime

PEAK_MACS_PER_S = 2e12
"""4 tera-operations per second, two for a multiply-accumulate (coral.ai/docs/edgetpu/benchmarks)."""
MOST_ON_CHIP_BYTES = round(8.05 * (1 << 20))
"""All that an Edge TPU has for parameters: what compiler 15 says is left of it with nothing in it. A network's values
take of it, too."""
_COUNTED = frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_DEPTHWISE = "DEPTHWISE_CONV_2D"
_IN_THE_FIGURES = frozenset(
    """ADD AVERAGE_POOL_2D CONCATENATION DEQUANTIZE MAX_POOL_2D MEAN PAD QUANTIZE RELU RELU6 RESHAPE
    SOFTMAX SQUEEZE""".split()  # noqa: SIM905 - a word list reads better
)
"""Operators without multiply-accumulates that the published networks have, too: the fitted rates bear their time."""
_SMALL_ON_THE_CPU = frozenset({"DEQUANTIZE", "QUANTIZE", "RESHAPE", "SOFTMAX"})
"""What a classifier's ends are made of: microseconds on any CPU."""
COMPUTING = "the computing itself, which the file does not tell"


@dataclass(frozen=True)
class Link:
    """A way to the Edge TPU, with the host that the published figures are from."""

    key: str
    name: str
    host: str
    overhead_s: float
    """Seconds that an inference takes with nothing to send and to compute."""
    bytes_per_s: float
    """What sending costs: more than the link carries where sending and computing overlap."""
    factor: float
    """The interval is the estimate divided and multiplied by this: the worst error of a network that was left out."""


@dataclass(frozen=True)
class Model:
    """The numbers of the estimate."""

    convolution_macs_per_s: float
    """Convolutions and dense layers."""
    depthwise_macs_per_s: float
    resident_bytes: float
    """How much of a network's parameters stays on the Edge TPU, in bytes of the file: the compiler pads them."""
    links: tuple[Link, ...]

    def seconds(self, work: Work, streamed_bytes: float, link: Link) -> float:
        """Return how long an inference takes when so many bytes of parameters are sent."""
        computing = (
            work.convolution_macs / self.convolution_macs_per_s + work.depthwise_macs / self.depthwise_macs_per_s
        )
        return link.overhead_s + (streamed_bytes + work.transferred_bytes) / link.bytes_per_s + computing


@dataclass(frozen=True)
class Work:
    """What an inference does; `left_out` names what takes time and is not counted."""

    convolution_macs: int
    depthwise_macs: int
    transferred_bytes: int
    """Bytes of the inputs and outputs."""
    left_out: tuple[str, ...] = ()


def only_sending(transferred_bytes: int) -> Work:
    """Return what is known of a compiled file without the file that it was made of: nothing of its computing."""
    return Work(0, 0, transferred_bytes, (COMPUTING,))


# Printed by tests/benchmarks/edgetpu_estimate.py. The factor of a link with four figures is not less than that of the
# others; with USB 2 one network of the four sends many parameters, and without it little tells what that costs.
MODEL = Model(
    convolution_macs_per_s=0.827e12,
    depthwise_macs_per_s=0.0201e12,
    resident_bytes=6.0 * (1 << 20),
    links=(
        Link("usb3", "USB 3", "a desktop computer", 0.713e-3, 499e6, 1.16),
        Link("usb3-pi4", "USB 3, Raspberry Pi 4", "a Raspberry Pi 4", 2.48e-3, 292e6, 1.22),
        Link("usb2", "USB 2", "a Raspberry Pi 3B+", 4.04e-3, 35.7e6, 2.2),
        Link("pcie", "PCIe", "the Coral Dev Board", 0.814e-3, 410e6, 1.22),
    ),
)


def work(
    operators: Iterable[tuple[str, int]], transferred_bytes: int, *, on_the_cpu: Iterable[tuple[str, int]] = ()
) -> Work:
    """Sum up operators, given by their TFLite names and MACs; those that the CPU computes are not counted."""
    convolution = depthwise = 0
    left_out: dict[str, None] = {}
    for name, macs in operators:
        if name in _COUNTED:
            convolution += macs
        elif name == _DEPTHWISE:
            depthwise += macs
        elif name not in _IN_THE_FIGURES:
            left_out[name] = None
    slow = sum(name not in _SMALL_ON_THE_CPU for name, _ in on_the_cpu)
    rest = (f"{slow} operator{'' if slow == 1 else 's'} on the CPU",) if slow else ()
    return Work(convolution, depthwise, transferred_bytes, (*left_out, *rest))


def before_compiling(work: Work, parameter_bytes: int) -> EdgeTpuEstimate:
    """Estimate an inference of a file that is not compiled yet.

    How much is sent each time is the compiler's choice and does not follow from the size alone
    (github.com/google-coral/edgetpu/issues/572): between what cannot stay on the chip and everything. The expected
    time takes what stayed there of the published networks.
    """
    least = max(0, parameter_bytes - MOST_ON_CHIP_BYTES)
    expected = max(0.0, parameter_bytes - MODEL.resident_bytes)
    return _estimate(work, (least, parameter_bytes), expected)


def of_compiled(work: Work, streamed_bytes: int) -> EdgeTpuEstimate:
    """Estimate an inference of a compiled file, which says itself how much it sends."""
    return _estimate(work, (streamed_bytes, streamed_bytes), streamed_bytes)


def _estimate(work: Work, streamed: tuple[int, int], expected: float) -> EdgeTpuEstimate:
    return EdgeTpuEstimate(
        streamed_parameter_bytes=streamed,
        expected_streamed_parameter_bytes=round(expected),
        left_out=work.left_out,
        times=tuple(_time(work, streamed, expected, link) for link in MODEL.links),
    )


def _time(work: Work, streamed: tuple[int, int], expected: float, link: Link) -> EdgeTpuTime:
    seconds = MODEL.seconds(work, expected, link)
    return EdgeTpuTime(
        link=link.name,
        host=link.host,
        estimated_s=seconds,
        estimated_interval_s=(seconds / link.factor, seconds * link.factor),
        estimated_streaming_s=(streamed[0] / link.bytes_per_s, streamed[1] / link.bytes_per_s),
    )
