"""What an EfficientNet looks like: compound scaling, the named variants, parameters and MACs by formula.

Everything here is arithmetic on the standard library, so that the command line answers at once and the light install
has it. It leaves building a network to `architectures`, its weights to `weights`, and its latency to `latency`.

Compound scaling (Tan and Le, arXiv:1905.11946, section 3.3) multiplies B0's depth by alpha^phi, its width by beta^phi
and its resolution by gamma^phi. The published B1-B7 are rounded by hand and lie on no single phi, so two conventions
live here:

- `phi_network` takes phi literally: it multiplies, then rounds channels, repeats and pixels as the published code does.
- A named variant keeps its published coefficients. Its *nominal* phi is the median of the three values that its width,
  depth and resolution imply, to the nearest half; `Variant.implied_phi` shows all three.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from edgeeff.errors import InputError, UnknownNameError

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
PHI_MIN, PHI_MAX = -3.0, 7.0
BASE_RESOLUTION = 224
NOMINAL_PHI = "the median of the phis that the published depth, width and resolution imply, to the nearest half"
MIN_RESOLUTION = 32  # five halvings still leave one pixel; Keras draws the line here too

Family = Literal["b", "v2", "lite", "edgetpu", "phi"]
Activation = Literal["swish", "relu6", "relu"]
Kind = Literal["mbconv", "fused"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scaling:
    """Compound scaling at one phi.

    `depth`, `width` and `resolution` are multipliers of B0; one step of phi multiplies the MACs by about
    `flops_growth`, which is alpha * beta^2 * gamma^2.
    """

    phi: float
    """The compound coefficient."""
    depth: float
    """alpha to the power of phi."""
    width: float
    """beta to the power of phi."""
    resolution: float
    """gamma to the power of phi."""
    flops_growth: float
    """What each step of phi multiplies the MACs by, about."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network does to camera pixels first: `(x - mean) / std` for each of R, G, B, with x in 0..255."""

    name: Literal["imagenet", "minus127over128", "minus128over128"]
    mean: Triple
    std: Triple


@dataclass(frozen=True)
class Published:
    """What others published about a variant; None where nobody did.

    Top-1 accuracies are ImageNet validation percentages, `macs` counts one image at the variant's resolution, and
    `classes` is the number of outputs of the published checkpoint (1001 when it has a background class first).
    """

    top1: float | None = None
    int8_top1: float | None = None
    top1_source: str | None = None
    parameters: int | None = None
    macs: int | None = None
    counts_source: str | None = None
    classes: int = 1000


@dataclass(frozen=True)
class Block:
    """One inverted bottleneck, after width and depth scaling.

    An "mbconv" expands by 1x1 (not at all when `expand_ratio` is 1), filters each channel by `kernel` x `kernel` with
    `stride`, squeezes and excites when `se_channels` is not 0, and projects by 1x1. A "fused" block does the first two
    in one full `kernel` x `kernel` convolution; when its `expand_ratio` is 1, that convolution is the whole block and
    is followed by the activation. Every convolution is without bias and is batch-normalized; those of
    squeeze-and-excite have a bias instead. `stage` counts from 1.

    `late_stride` marks the EdgeTPU blocks that were published with the stride on the 1x1 projection. Striding in the
    `kernel` x `kernel` convolution instead gives the same output at a quarter of the work, when the image is padded by
    `kernel // 2` on all four sides. (SAME pads even sizes at the bottom and right only, and so reads other pixels.)
    That is what `macs` counts.
    """

    kind: Kind
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
    late_stride: bool = False


@dataclass(frozen=True)
class Network:
    """A network with every number resolved: all that is needed to count it or to build it.

    `depth` and `width` are coefficients, `resolution` is in pixels, `phi` is the nominal phi of a named variant or the
    exact one of a "phi" network, and None where compound scaling says nothing. The stem is a 3x3 convolution with
    stride 2, the head a 1x1 convolution, global average pooling, `dropout` and a dense layer with bias.
    """

    name: str
    family: Family
    phi: float | None
    depth: float
    width: float
    resolution: int
    stem_channels: int
    blocks: tuple[Block, ...]
    head_channels: int
    activation: Activation
    preprocessing: Preprocessing
    dropout: float
    published: Published


@dataclass(frozen=True)
class ImpliedPhi:
    """The phi that each published coefficient of one variant would need by itself, to three decimals."""

    depth: float
    """log(depth) / log(alpha)."""
    width: float
    """log(width) / log(beta)."""
    resolution: float
    """log(resolution / 224) / log(gamma)."""


class _Stage(NamedTuple):
    """One row of an architecture table, before scaling."""

    kind: Kind
    repeats: int
    kernel: int
    stride: int
    expand_ratio: int
    channels: int
    se_ratio: float = 0.0
    skip: bool = True
    expand_from: int | None = None  # channels that the expansion multiplies, where they are not the input's


@dataclass(frozen=True)
class _Design:
    """What the variants of one family share."""

    stages: tuple[_Stage, ...]
    stem: int
    activation: Activation
    preprocessing: Preprocessing
    channel_floor: float = 0.9
    fixed_ends: bool = False  # stem and head are not widened, the first and the last stage not deepened
    late_stride: bool = False


@dataclass(frozen=True)
class Variant:
    """A named variant with its published coefficients; `keras` is the function of keras.applications that builds it."""

    name: str
    family: Family
    width: float
    depth: float
    resolution: int
    dropout: float
    published: Published
    keras: str | None = None

    @property
    def implied_phi(self) -> ImpliedPhi | None:
        """The phi that depth, width and resolution imply; None for the V2 sizes, which have tables of their own."""
        if self.name in _DESIGNS:
            return None
        return ImpliedPhi(
            depth=round(math.log(self.depth, ALPHA), 3),
            width=round(math.log(self.width, BETA), 3),
            resolution=round(math.log(self.resolution / BASE_RESOLUTION, GAMMA), 3),
        )

    @property
    def phi(self) -> float | None:
        """The nominal phi, as `NOMINAL_PHI` says it."""
        implied = self.implied_phi
        if implied is None:
            return None
        median = sorted((implied.depth, implied.width, implied.resolution))[1]
        return round(2 * median) / 2


@dataclass(frozen=True)
class Row:
    """One line of the variant table: resolution in pixels, published top-1 in percent with its source.

    `phi` is nominal for a variant, exact for a "phi" network; `implied_phi` is None where it has no meaning.
    """

    variant: str
    """Its name."""
    phi: float | None
    """Nominal for a variant, exact for a "phi" network; None where it has no meaning."""
    implied_phi: ImpliedPhi | None
    """What each coefficient would need by itself; None where it has no meaning."""
    depth: float
    """Multiplier of the base network's depth."""
    width: float
    """Multiplier of the base network's width."""
    resolution: int
    """Height and width of the input, in pixels."""
    parameters: int
    """Trainable ones: weights, biases, and scale and offset of every batch normalization."""
    macs: int
    """Multiply-accumulates of one image; papers call them FLOPs."""
    top1: float | None
    """Published for float, on ImageNet, in percent; None where nobody published it."""
    int8_top1: float | None
    """Published for int8, on ImageNet, in percent; None where nobody published it."""
    source: str | None
    """Where these are published."""


IMAGENET = Preprocessing("imagenet", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
MINUS_127 = Preprocessing("minus127over128", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
MINUS_128 = Preprocessing("minus128over128", mean=(128.0, 128.0, 128.0), std=(128.0, 128.0, 128.0))

# The tables below restate the published architectures: B and Lite from arXiv:1905.11946 table 1, EdgeTPU from
# tensorflow/tpu (models/official/efficientnet/edgetpu), V2 from arXiv:2104.00298 as keras.applications builds it.


def _mbconv_stages(se_ratio: float) -> tuple[_Stage, ...]:
    return (
        _Stage("mbconv", 1, 3, 1, 1, 16, se_ratio),
        _Stage("mbconv", 2, 3, 2, 6, 24, se_ratio),
        _Stage("mbconv", 2, 5, 2, 6, 40, se_ratio),
        _Stage("mbconv", 3, 3, 2, 6, 80, se_ratio),
        _Stage("mbconv", 3, 5, 1, 6, 112, se_ratio),
        _Stage("mbconv", 4, 5, 2, 6, 192, se_ratio),
        _Stage("mbconv", 1, 3, 1, 6, 320, se_ratio),
    )


def _v2_design(stem: int, preprocessing: Preprocessing, repeats: tuple[int, ...], channels: tuple[int, ...]) -> _Design:
    """V2 networks differ in repeats and channels only: three fused stages, then mbconv ones with squeeze-and-excite."""
    # kind, stride, expand_ratio, se_ratio; the B sizes and S do without the last row
    shapes: tuple[tuple[Kind, int, int, float], ...] = (
        ("fused", 1, 1, 0.0),
        ("fused", 2, 4, 0.0),
        ("fused", 2, 4, 0.0),
        ("mbconv", 2, 4, 0.25),
        ("mbconv", 1, 6, 0.25),
        ("mbconv", 2, 6, 0.25),
        ("mbconv", 1, 6, 0.25),
    )
    stages = (
        _Stage(kind, count, 3, stride, expand, width, se)
        for (kind, stride, expand, se), count, width in zip(shapes, repeats, channels, strict=False)
    )
    return _Design(tuple(stages), stem, "swish", preprocessing, channel_floor=0.0)


# By family, or by name for the variants that have a table of their own.
_DESIGNS: Mapping[str, _Design] = {
    "b": _Design(_mbconv_stages(0.25), 32, "swish", IMAGENET),
    "v2": _v2_design(32, IMAGENET, (1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192)),
    "v2-s": _v2_design(24, MINUS_128, (2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256)),
    "v2-m": _v2_design(24, MINUS_128, (3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512)),
    "v2-l": _v2_design(32, MINUS_128, (4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640)),
    "lite": _Design(_mbconv_stages(0.0), 32, "relu6", MINUS_127, fixed_ends=True),
    "edgetpu": _Design(
        (
            _Stage("fused", 1, 3, 1, 4, 24, skip=False, expand_from=24),
            _Stage("fused", 2, 3, 2, 8, 32),
            _Stage("fused", 4, 3, 2, 8, 48),
            _Stage("mbconv", 5, 5, 2, 8, 96),
            _Stage("mbconv", 4, 5, 1, 8, 144),
            _Stage("mbconv", 2, 5, 2, 8, 192),
        ),
        32,
        "relu",
        MINUS_127,
        late_stride=True,
    ),
}

_Figures = tuple[str, float, float, int, float, float, float | None, float, float]


def _family(
    family: Family,
    figures: Iterable[_Figures],
    *,
    top1_source: str,
    counts_source: str,
    in_keras: bool = False,
    classes: int = 1000,
) -> Iterator[Variant]:
    for name, width, depth, resolution, dropout, top1, int8_top1, mega_parameters, giga_macs in figures:
        yield Variant(
            name=name,
            family=family,
            width=width,
            depth=depth,
            resolution=resolution,
            dropout=dropout,
            published=Published(
                top1=top1,
                int8_top1=int8_top1,
                top1_source=top1_source,
                parameters=round(mega_parameters * 1e6),
                macs=round(giga_macs * 1e9),
                counts_source=counts_source,
                classes=classes,
            ),
            keras=f"EfficientNet{name.upper().replace('-', '')}" if in_keras else None,
        )


# name, width, depth, resolution, dropout, top-1, int8 top-1, parameters in millions, MACs in billions
_B: tuple[_Figures, ...] = (
    ("b0", 1.0, 1.0, 224, 0.2, 77.1, None, 5.3, 0.39),
    ("b1", 1.0, 1.1, 240, 0.2, 79.1, None, 7.8, 0.70),
    ("b2", 1.1, 1.2, 260, 0.3, 80.1, None, 9.2, 1.0),
    ("b3", 1.2, 1.4, 300, 0.3, 81.6, None, 12, 1.8),
    ("b4", 1.4, 1.8, 380, 0.4, 82.9, None, 19, 4.2),
    ("b5", 1.6, 2.2, 456, 0.4, 83.6, None, 30, 9.9),
    ("b6", 1.8, 2.6, 528, 0.5, 84.0, None, 43, 19),
    ("b7", 2.0, 3.1, 600, 0.5, 84.3, None, 66, 37),
)
_V2: tuple[_Figures, ...] = (  # the authors drop out up to 0.4; this is what keras.applications builds
    ("v2-b0", 1.0, 1.0, 224, 0.2, 78.7, None, 7.1, 0.72),
    ("v2-b1", 1.0, 1.1, 240, 0.2, 79.8, None, 8.1, 1.2),
    ("v2-b2", 1.1, 1.2, 260, 0.2, 80.5, None, 10.1, 1.7),
    ("v2-b3", 1.2, 1.4, 300, 0.2, 82.0, None, 14.4, 3.0),
    ("v2-s", 1.0, 1.0, 384, 0.2, 83.9, None, 21.5, 8.4),
    ("v2-m", 1.0, 1.0, 480, 0.2, 85.3, None, 54.1, 24.7),
    ("v2-l", 1.0, 1.0, 480, 0.2, 85.7, None, 119.5, 56.3),
)
_LITE: tuple[_Figures, ...] = (
    ("lite0", 1.0, 1.0, 224, 0.2, 75.1, 74.4, 4.7, 0.407),
    ("lite1", 1.0, 1.1, 240, 0.2, 76.7, 75.9, 5.4, 0.631),
    ("lite2", 1.1, 1.2, 260, 0.3, 77.6, 77.0, 6.1, 0.899),
    ("lite3", 1.2, 1.4, 280, 0.3, 79.8, 79.0, 8.2, 1.44),
    ("lite4", 1.4, 1.8, 300, 0.3, 81.5, 80.2, 13.0, 2.64),
)
_EDGETPU: tuple[_Figures, ...] = (
    ("edgetpu-s", 1.0, 1.0, 224, 0.2, 77.23, 77.0, 5.4, 1.8),
    ("edgetpu-m", 1.0, 1.1, 240, 0.2, 78.69, 78.6, 6.9, 3.0),
    ("edgetpu-l", 1.2, 1.4, 300, 0.3, 80.62, 80.2, 10.6, 8.0),
)

_PAPER = "arXiv:1905.11946, table 2"
_TPU = "tensorflow/tpu, models/official/efficientnet"

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            *_family("b", _B, top1_source=_PAPER, counts_source=_PAPER, in_keras=True),
            *_family(
                "v2",
                _V2,
                top1_source="keras.io, Keras Applications",
                counts_source="google/automl, efficientnetv2/README.md",
                in_keras=True,
            ),
            *_family("lite", _LITE, top1_source=f"{_TPU}/lite/README.md", counts_source=f"{_TPU}/lite/README.md"),
            *_family(
                "edgetpu",
                _EDGETPU,
                top1_source=f"{_TPU}/edgetpu/README.md",
                counts_source="timm, model cards of tf_efficientnet_es, _em and _el",
                classes=1001,
            ),
        )
    }
)
_BY_KEY = {name.replace("-", ""): variant for name, variant in VARIANTS.items()}


def compound(
    phi: float, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA, tolerance: float = 0.1
) -> Scaling:
    """Return the multipliers of depth, width and resolution at `phi`, rounded to 12 decimals.

    The rounding takes the binary noise off, so that phi 2 prints 1.44 and phi 3 prints 1.728, 1.331 and 1.520875.

    Raises:
        InputError: `phi` is not a number in [-3, 7], a constant is below 1, or alpha * beta^2 * gamma^2 differs from 2
            by more than `tolerance` (the published constants give 1.92).
    """
    if not PHI_MIN <= phi <= PHI_MAX:  # also false for nan
        raise InputError(f"phi {phi:g} is outside [{PHI_MIN:g}, {PHI_MAX:g}]; choose one inside")
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 1 <= value < math.inf:
            raise InputError(f"{name} {value:g} is no scaling constant; it must be a number of at least 1")
    growth = alpha * beta**2 * gamma**2
    if not abs(growth - 2) <= tolerance:
        raise InputError(
            f"alpha * beta^2 * gamma^2 is {growth:.4g}, further than {tolerance:g} from 2: a step of phi would not "
            f"double the MACs; {'lower' if growth > 2 else 'raise'} alpha ({alpha:g}), beta ({beta:g}) or "
            f"gamma ({gamma:g}), or raise the tolerance"
        )
    depth, width, resolution = (round(constant**phi, 12) for constant in (alpha, beta, gamma))
    return Scaling(float(phi), depth, width, resolution, flops_growth=round(growth, 12))


def round_filters(channels: int, width: float, floor: float = 0.9) -> int:
    """Return `channels * width` rounded to a multiple of 8, and to the next one where that is below `floor` of it.

    B, Lite and EdgeTPU networks use a floor of 0.9, V2 networks have none (0): each as its published code does.
    """
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < floor * exact else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Return `repeats * depth` rounded up, as in the published code."""
    return math.ceil(repeats * depth)


def network(name: str, *, resolution: int | None = None) -> Network:
    """Return the network of a named variant, at its published resolution or another one in pixels.

    Names are read without regard to case, hyphens and a leading "efficientnet": "b2", "EfficientNetB2",
    "efficientnet-lite0", "efficientnetv2-s". "phi1.5" gives `phi_network(1.5)`.

    Raises:
        UnknownNameError: there is no such variant.
        InputError: the resolution is below 32, or the phi outside [-3, 7].
    """
    short = re.sub(r"^efficientnet[-_ ]?", "", name.strip().lower())
    if match := re.fullmatch(r"phi(-?\d+(?:\.\d+)?)", short):
        return phi_network(float(match[1]), resolution)
    variant = _BY_KEY.get(re.sub(r"[-_ ]", "", short))
    if variant is None:
        raise UnknownNameError("variant", short, VARIANTS)
    return _scaled(
        _DESIGNS.get(variant.name) or _DESIGNS[variant.family],
        name=variant.name,
        family=variant.family,
        phi=variant.phi,
        depth=variant.depth,
        width=variant.width,
        resolution=variant.resolution if resolution is None else resolution,
        dropout=variant.dropout,
        published=variant.published,
    )


def phi_network(
    phi: float,
    resolution: int | None = None,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    tolerance: float = 0.1,
) -> Network:
    """Return B0 scaled to any real `phi` from -3 to 7.

    Width and depth coefficients are beta^phi and alpha^phi as they are, channels and repeats round as in B1-B7, and the
    resolution is round(224 * gamma^phi) pixels unless given. The name is "phi1.5", and says the constants when they are
    not the published ones. Dropout is that of the largest B variant whose nominal phi is not above `phi`.

    Raises:
        InputError: as `compound` does, or the resolution is below 32.
    """
    phi = float(phi) + 0.0  # "phi-0" would be a second name for phi 0
    scaling = compound(phi, alpha, beta, gamma, tolerance)
    constants = "" if (alpha, beta, gamma) == (ALPHA, BETA, GAMMA) else f"-a{alpha:g}-b{beta:g}-g{gamma:g}"
    smaller = [v for v in VARIANTS.values() if v.family == "b" and v.phi is not None and v.phi <= max(phi, 0.0)]
    return _scaled(
        _DESIGNS["b"],
        name=f"phi{str(phi).removesuffix('.0')}{constants}",
        family="phi",
        phi=phi,
        depth=scaling.depth,
        width=scaling.width,
        resolution=round(BASE_RESOLUTION * scaling.resolution) if resolution is None else resolution,
        dropout=smaller[-1].dropout,
        published=Published(),
    )


def parameters(net: Network, classes: int = 1000, include_top: bool = True) -> int:
    """Return the number of trainable parameters, as Keras counts them.

    They are the convolutions' and the dense layer's weights and biases, and scale and offset of every batch
    normalization. `include_top` leaves out the dense layer only, as in keras.applications.

    Raises:
        InputError: `classes` is below 1.
    """
    return sum(layer.weights + layer.biases + 2 * layer.normalized for layer in _layers(net, classes, include_top))


def total_parameters(net: Network, classes: int = 1000, include_top: bool = True) -> int:
    """Return `parameters` and the moving mean and variance of every batch normalization.

    A weights file holds these. Keras' `count_params` adds 7 for B0-B7, whose Normalization layer keeps a mean, a
    variance and a count of its own.

    Raises:
        InputError: `classes` is below 1.
    """
    return sum(layer.weights + layer.biases + 4 * layer.normalized for layer in _layers(net, classes, include_top))


def macs(net: Network, classes: int = 1000, include_top: bool = True, resolution: int | None = None) -> int:
    """Return the multiply-accumulate operations for one image: what the paper calls FLOPs.

    Counted are all convolutions, with those of squeeze-and-excite, and the dense layer. Not counted are biases, batch
    normalizations (folded into the convolutions), activations, pooling, additions and preprocessing. The published
    figures of Lite0-4 are 3 to 5 % higher, because they count about three more operations for each normalized value.
    `resolution` in pixels replaces the network's own.

    Raises:
        InputError: `classes` is below 1, or `resolution` below 32.
    """
    pixels = net.resolution if resolution is None else resolution
    return sum(layer.weights * layer.positions for layer in _layers(net, classes, include_top, pixels))


def row(net: Network) -> Row:
    """Return the line of the variant table that describes a network with its 1000 ImageNet classes."""
    variant = VARIANTS.get(net.name)
    return Row(
        variant=net.name,
        phi=net.phi,
        implied_phi=None if variant is None else variant.implied_phi,
        depth=net.depth,
        width=net.width,
        resolution=net.resolution,
        parameters=parameters(net),
        macs=macs(net),
        top1=net.published.top1,
        int8_top1=net.published.int8_top1,
        source=net.published.top1_source,
    )


def rows() -> tuple[Row, ...]:
    """Return the variant table in the order of `VARIANTS`."""
    return tuple(row(network(name)) for name in VARIANTS)


def _scaled(
    design: _Design,
    *,
    name: str,
    family: Family,
    phi: float | None,
    depth: float,
    width: float,
    resolution: int,
    dropout: float,
    published: Published,
) -> Network:
    """Apply depth and width to a design."""
    end_width = 1.0 if design.fixed_ends else width
    stem = round_filters(design.stem, end_width, design.channel_floor)
    blocks: list[Block] = []
    channels = stem
    for number, stage in enumerate(design.stages, start=1):
        fixed = design.fixed_ends and number in (1, len(design.stages))
        out = round_filters(stage.channels, width, design.channel_floor)
        for index in range(stage.repeats if fixed else round_repeats(stage.repeats, depth)):
            first = index == 0
            stride = stage.stride if first else 1
            widened = channels
            if first and stage.expand_from is not None:
                widened = round_filters(stage.expand_from, width, design.channel_floor)
            blocks.append(
                Block(
                    kind=stage.kind,
                    kernel=stage.kernel,
                    stride=stride,
                    expand_ratio=stage.expand_ratio,
                    in_channels=channels,
                    expanded_channels=widened * stage.expand_ratio,
                    out_channels=out,
                    se_channels=max(1, int(channels * stage.se_ratio)) if stage.se_ratio else 0,
                    skip=stage.skip and stride == 1 and channels == out,
                    stage=number,
                    name=f"block{number}{_letter(index)}",
                    late_stride=design.late_stride and stage.kind == "fused" and stride > 1,
                )
            )
            channels = out
    return Network(
        name=name,
        family=family,
        phi=phi,
        depth=depth,
        width=width,
        resolution=_checked_resolution(resolution),
        stem_channels=stem,
        blocks=tuple(blocks),
        head_channels=round_filters(1280, end_width, design.channel_floor),
        activation=design.activation,
        preprocessing=design.preprocessing,
        dropout=dropout,
        published=published,
    )


def _letter(index: int) -> str:
    """Return Keras' letter of a repeat, and "z1", "z2", ... where the alphabet ends and Keras runs into punctuation."""
    last = len(string.ascii_lowercase) - 1
    return string.ascii_lowercase[index] if index <= last else f"z{index - last}"


def _checked_resolution(pixels: int) -> int:
    if pixels < MIN_RESOLUTION:
        raise InputError(f"resolution {pixels} is too small; choose at least {MIN_RESOLUTION} pixels")
    return pixels


class _Layer(NamedTuple):
    """One convolution or dense layer: its weights are used once at each of its output `positions`."""

    weights: int
    biases: int
    normalized: int  # channels of the batch normalization behind it
    positions: int


def _layers(net: Network, classes: int, include_top: bool, resolution: int | None = None) -> Iterator[_Layer]:
    """Walk through everything that has weights."""
    if classes < 1:
        raise InputError(f"{classes} classes are too few; a classifier needs at least 1")
    side = _halved(_checked_resolution(net.resolution if resolution is None else resolution))

    def convolution(weights: int, channels: int) -> _Layer:
        return _Layer(weights, 0, channels, side * side)

    yield convolution(3 * 3 * 3 * net.stem_channels, net.stem_channels)
    for block in net.blocks:
        area = block.kernel**2
        source, wide, out = block.in_channels, block.expanded_channels, block.out_channels
        if block.kind == "mbconv":
            if block.expand_ratio != 1:
                yield convolution(source * wide, wide)
            side = _halved(side) if block.stride == 2 else side
            yield convolution(area * wide, wide)
        else:
            side = _halved(side) if block.stride == 2 else side
            if block.expand_ratio != 1:
                yield convolution(area * source * wide, wide)
        if block.se_channels:
            yield _Layer(wide * block.se_channels, block.se_channels, 0, 1)
            yield _Layer(block.se_channels * wide, wide, 0, 1)
        single = block.kind == "fused" and block.expand_ratio == 1
        yield convolution((area if single else 1) * wide * out, out)
    yield convolution(net.blocks[-1].out_channels * net.head_channels, net.head_channels)
    if include_top:
        yield _Layer(net.head_channels * classes, classes, 0, 1)


def _halved(side: int) -> int:
    """Return the output size of a stride of 2 with SAME padding."""
    return (side + 1) // 2
