"""What an EfficientNet looks like: compound scaling, the named variants, parameters and MACs by formula.

Everything here is arithmetic on the standard library, so that the command line answers at once and the light install has it.
It leaves building a network to `architectures`, its weights to `weights`, and latency to `latency`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15

Family = Literal["b", "v2", "lite", "edgetpu", "phi"]


@dataclass(frozen=True)
class Scaling:
    """Compound scaling at one phi: the multipliers of depth, width and resolution."""

    phi: float
    depth: float
    width: float
    resolution: float
    flops_growth: float


@dataclass(frozen=True)
class Preprocessing:
    """What a network does to camera pixels first: `(x - mean) / std` per channel, with x in 0..255."""

    name: Literal["imagenet", "minus127over128", "minus128over128"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Published:
    """What the authors of a variant published: None where nobody did."""

    top1: float | None = None
    int8_top1: float | None = None
    parameters: int | None = None
    macs: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Block:
    """One inverted bottleneck after width and depth scaling."""

    kind: Literal["mbconv", "fused"]
    kernel: int
    stride: int
    expand_ratio: int
    in_channels: int
    expanded_channels: int
    out_channels: int
    se_channels: int
    skip: bool
    stage: int
    name: str
    late_stride: bool = False  # EdgeTPU: the k x k convolution has stride 1 and the 1x1 projection strides


@dataclass(frozen=True)
class Network:
    """A resolved network: everything that is needed to count it or to build it."""

    name: str
    family: Family
    phi: float | None
    depth: float
    width: float
    resolution: int
    stem_channels: int
    blocks: tuple[Block, ...]
    head_channels: int
    activation: Literal["swish", "relu6", "relu"]
    preprocessing: Preprocessing
    dropout: float
    published: Published


@dataclass(frozen=True)
class Variant:
    """A named variant as published."""

    name: str
    family: Family
    width: float
    depth: float
    resolution: int
    dropout: float
    published: Published
    keras: str | None = None  # the class in keras.applications that builds it


VARIANTS: Mapping[str, Variant] = MappingProxyType({})


def compound(phi: float, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA, tolerance: float = 0.1) -> Scaling:
    """Return the multipliers of depth, width and resolution at phi."""
    raise NotImplementedError


def network(name: str, *, resolution: int | None = None) -> Network:
    """Return the network of a named variant."""
    raise NotImplementedError


def phi_network(
    phi: float,
    resolution: int | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    tolerance: float = 0.1,
) -> Network:
    """Return B0 scaled to any real phi in [-3, 7]."""
    raise NotImplementedError


def parameters(net: Network, classes: int = 1000, include_top: bool = True) -> int:
    """Return the number of trainable parameters."""
    raise NotImplementedError


def total_parameters(net: Network, classes: int = 1000, include_top: bool = True) -> int:
    """Return the trainable parameters and the batch normalizations' moving means and variances."""
    raise NotImplementedError


def macs(net: Network, classes: int = 1000, include_top: bool = True, resolution: int | None = None) -> int:
    """Return the multiply-accumulate operations for one image."""
    raise NotImplementedError
