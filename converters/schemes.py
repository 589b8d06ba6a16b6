"""The table of quantization schemes: one row each, with an honest word on what it costs where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeeff.errors import UnknownNameError

Default = Literal["float32", "uint8"]
MIXED = "mixed"


@dataclass(frozen=True)
class Scheme:
    """How weights and activations are stored and computed."""

    name: str
    """As --scheme takes it."""
    summary: str
    """What it costs and where, in one line for people."""
    input_type: Default
    """Input type when none is asked for; "uint8" means raw camera pixels."""
    calibrated: bool
    """Whether activation ranges are needed, and so calibration images."""
    slow_on_cpu: bool = False
    """Whether it is slower than float32 on CPUs."""
    integer: bool = False
    """Whether every operator but those declared (a softmax with float output) must be integer."""


# Latency figures: EfficientNet-B0 in LiteRT 2.3 with XNNPACK on one thread of an x86-64 CPU, relative to float32;
# docs/results says which command prints them for your machine.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("float32", "the baseline: no loss, largest file, no speed gained", "float32", calibrated=False),
        Scheme(
            "float16",
            "half the size, same predictions; CPUs compute in float32, so no faster there",
            "float32",
            calibrated=False,
        ),
        Scheme(
            "dynamic",
            "a quarter of the size; slower than float32 on CPUs, whose depthwise kernels do not take it",
            "float32",
            calibrated=False,
            slow_on_cpu=True,
        ),
        Scheme(
            "weight-only",
            "a quarter of the size, computed in float32: close to float accuracy, no faster",
            "float32",
            calibrated=False,
        ),
        Scheme(
            "int8",
            "a quarter of the size and the fastest on CPUs and the only one for the Edge TPU; "
            "accuracy depends on calibration, swish networks suffer most",
            "uint8",
            calibrated=True,
            integer=True,
        ),
        Scheme(
            "int16x8",
            "16-bit activations keep accuracy, but no CPU kernel is fast: tens of times slower than int8",
            "float32",
            calibrated=True,
            slow_on_cpu=True,
        ),
        Scheme(
            MIXED,
            "int8 where it costs little accuracy, dynamic or float elsewhere, for a goal of agreement or latency: a "
            "quarter of the size, 0.5 to 0.7 of float32's time; measured, which takes minutes",
            "uint8",
            calibrated=True,
        ),
    )
}


def scheme(name: str) -> Scheme:
    """Look a scheme up by name; raises UnknownNameError with the nearest names."""
    if name not in SCHEMES:
        raise UnknownNameError("scheme", name, SCHEMES)
    return SCHEMES[name]
