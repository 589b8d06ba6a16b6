"""What a network does to pixels first, as one exact 1x1 depthwise convolution instead of many full-size operators.

Keras leaves Rescaling and Normalization as up to four operators at full resolution: a fifth of the int8 latency of B0.
They are affine per channel, so one DEPTHWISE_CONV_2D with a 1x1 kernel does the same, exactly. Folding them into the
stem convolution would be wrong at the border, where SAME padding adds zeros after the normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters.graph import Graph
from edgeeff.errors import ModelError

PIXEL_MAX = 255.0
# ImageNet normalisations end within +-3, raw pixels within +-256, and both have zero among them or close by. Elsewhere,
# pixels were given in other units than the network was made for.
PLAUSIBLE_LIMIT = 300.0
TINY_WIDTH = 0.05
FAR_FROM_ZERO = 2.0  # widths, from the middle

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = x * scale + offset per channel; float64, 3 entries each."""

    scale: Vector
    offset: Vector

    @classmethod
    def identity(cls) -> Affine:
        """Return y = x."""
        return cls(np.ones(3), np.zeros(3))

    @classmethod
    def from_range(cls, low: float, high: float) -> Affine:
        """Map pixels 0..255 to low..high."""
        return cls(np.full(3, (high - low) / PIXEL_MAX), np.full(3, low))

    def then(self, scale: Any, offset: Any) -> Affine:
        """Apply another scale and offset after this one."""
        return Affine(self.scale * scale, self.offset * scale + offset)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is left to do."""
        return bool(np.allclose(self.scale, 1) and np.allclose(self.offset, 0))

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value that pixels 0..255 become in any channel."""
        ends = np.stack([self.offset, self.offset + PIXEL_MAX * self.scale])
        return float(ends.min()), float(ends.max())

    @property
    def is_plausible(self) -> bool:
        """Whether a network may have been trained on what pixels 0..255 become."""
        ends = np.stack([self.offset, self.offset + PIXEL_MAX * self.scale])
        width, middle = np.ptp(ends, axis=0), np.abs(ends.mean(axis=0))
        within = (np.abs(ends) <= PLAUSIBLE_LIMIT).all()
        return bool(within and (width >= TINY_WIDTH).all() and (middle <= FAR_FROM_ZERO * width).all())


def fuse(graph: Graph, input_range: tuple[float, float] | None = None, *, known: bool = False) -> Affine:
    """Replace the affine operators behind the input by one depthwise convolution; return what it does to pixels.

    `input_range` says which values the model's own input expects for black and white (0,255 for Keras EfficientNets,
    whose preprocessing is inside). `known` says that it takes pixels 0..255 even where no operator shows it: TensorFlow
    folds preprocessing into a first convolution without padding. The file that leaves here always takes pixels 0..255.
    Raises ModelError when nothing says which pixel values the model expects, or when what is said cannot be right.
    """
    affine = Affine.identity() if input_range is None else Affine.from_range(*input_range)
    current = graph.inputs[0]
    chain: list[Any] = []
    own = _own_step(graph, current)
    if own is not None:
        chain, scale, offset = own
        affine = affine.then(scale, offset)
        current = int(chain[-1].outputs[0])
    while (operator := _only_reader(graph, current)) is not None:
        step = _affine_step(graph, operator, current)
        if step is None:
            break
        affine = affine.then(*step)
        chain.append(operator)
        current = int(operator.outputs[0])
    if not chain and input_range is None and not known:
        raise ModelError(
            "the model has no preprocessing inside, so the pixel values that it expects are unknown: "
            "say what black and white are for it, for example --input-range 0,255 (raw pixels), --input-range 0,1 "
            "or --input-range=-1,1"
        )
    if not affine.is_plausible:
        low, high = affine.span
        raise ModelError(
            f"after the model's own preprocessing pixels would span {low:.3g}..{high:.3g}, which no network was "
            "trained on: its input is not 0..255; say what black and white are for it with --input-range, "
            "for example --input-range 0,1"
        )
    for operator in chain:
        graph.remove(operator)
    source = graph.inputs[0]
    if affine.is_identity:
        for operator in graph.consumers(current):
            operator.inputs = [source if index == current else index for index in operator.inputs]
        return affine
    if not chain:
        # The first operator reads the input itself: give it the convolution's output instead.
        shape = graph.shape(source)
        current = graph.add_tensor("preprocessing", shape, "float32")
        for operator in graph.consumers(source):
            operator.inputs = [current if index == source else index for index in operator.inputs]
    _insert_convolution(graph, affine, source, current)
    return affine


def _insert_convolution(graph: Graph, affine: Affine, source: int, target: int) -> None:
    """Write `target` = affine(`source`) as RESHAPE, DEPTHWISE_CONV_2D, RESHAPE.

    Three channels would leave most lanes of a vector unit empty. Seen as one column of width * 3 channels, the same
    pixels fill them; the two reshapes copy nothing but bytes.
    """
    batch, height, width, channels = graph.shape(source)
    row = (batch, height, 1, width * channels)
    rows_in, rows_out = (graph.add_tensor(f"preprocessing/{name}", row, "float32") for name in ("rows", "scaled_rows"))
    weights = graph.add_tensor(
        "preprocessing/scale",
        (1, 1, 1, width * channels),
        "float32",
        np.tile(affine.scale, width).astype(np.float32).reshape(1, 1, 1, -1),
    )
    bias = graph.add_tensor(
        "preprocessing/offset", row[3:], "float32", np.tile(affine.offset, width).astype(np.float32)
    )
    options = graph.schema.DepthwiseConv2DOptionsT()
    options.padding = graph.schema.Padding.VALID
    options.strideW = options.strideH = options.depthMultiplier = 1
    options.dilationWFactor = options.dilationHFactor = 1
    _insert_reshape(graph, 0, source, rows_in)
    graph.insert(1, "DEPTHWISE_CONV_2D", [rows_in, weights, bias], [rows_out], options)
    _insert_reshape(graph, 2, rows_out, target)


def _insert_reshape(graph: Graph, position: int, source: int, target: int) -> None:
    shape = graph.shape(target)
    options = graph.schema.ReshapeOptionsT()
    options.newShape = list(shape)
    values = graph.add_tensor("preprocessing/shape", (len(shape),), "int32", np.asarray(shape, np.int32))
    graph.insert(position, "RESHAPE", [source, values], [target], options)


def _only_reader(graph: Graph, index: int) -> Any | None:
    """Return the operator that reads a tensor when it is the only one, and the model does not give the tensor out."""
    readers = graph.consumers(index)
    return readers[0] if len(readers) == 1 and index not in graph.outputs else None


def _affine_step(graph: Graph, operator: Any, current: int) -> tuple[Vector, Vector] | None:
    """Return scale and offset when the operator is affine per channel in `current`, else None."""
    kind = graph.kind(operator)
    if kind not in ("MUL", "ADD", "SUB", "DIV") or graph.activation(operator) != "NONE":
        return None
    first, second = (int(index) for index in operator.inputs[:2])
    values = graph.constant(second if first == current else first)
    # A constant of another shape than one value, or one for each channel, is no preprocessing.
    if values is None or values.size not in (1, 3) or (values.size == 3 and values.shape[-1] != 3):
        return None
    if not np.isfinite(values).all() or (kind == "DIV" and not values.all()):
        return None
    constant = np.broadcast_to(values.astype(np.float64).reshape(-1), (3,))
    zero, one = np.zeros(3), np.ones(3)
    step = None
    match kind, first == current:
        case "MUL", _:
            step = constant, zero
        case "ADD", _:
            step = one, constant
        case "SUB", True:
            step = one, -constant
        case "SUB", False:
            step = -one, constant
        case "DIV", True:
            step = one / constant, zero
    return step


def _own_step(graph: Graph, source: int) -> tuple[list[Any], Vector, Vector] | None:
    """Return what `_insert_convolution` inserted behind `source`, if it did: a float file of ours comes back."""
    operators: list[Any] = []
    current = source
    for kind in ("RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"):
        operator = _only_reader(graph, current)
        if operator is None or graph.kind(operator) != kind or graph.activation(operator) != "NONE":
            return None
        operators.append(operator)
        current = int(operator.outputs[0])
    constants = [graph.constant(int(index)) for index in operators[1].inputs[1:] if index >= 0]
    tiled = [values.reshape(-1, 3) for values in constants if values is not None and values.size % 3 == 0]
    # The same three values for every pixel, whatever the rows are: affine per channel, wherever the channels come last.
    if (
        graph.shape(current) != graph.shape(source)
        or graph.shape(int(operators[1].inputs[1]))[:3] != (1, 1, 1)
        or len(tiled) != 2
        or any((values != values[0]).any() for values in tiled)
    ):
        return None
    scale, offset = (values[0].astype(np.float64) for values in tiled)
    return operators, scale, offset
