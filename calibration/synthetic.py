"""Calibration without data: images made here, and room in the ranges for what these images cannot show.

The images are dead leaves: discs, diamonds and boxes of all sizes fall on one another until the picture is made. With
radii distributed as r^-3 that alone gives the scale invariance, the edges, the occlusions and the flat parts of
photographs (Lee, Mumford and Huang, "Occlusion models for natural images", 2001). Each leaf has a 1/f texture, a shade
from one side to the other and a colour that varies much in brightness and little in hue. What this is worth beside
noise and beside photographs is measured by tests/benchmarks/synthetic_calibration.py and told in
docs/decisions/synthetic-calibration.md. Collecting the ranges is left to `converters.quantize`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FEWEST, MOST = 10, 400
"""Leaves in an image, from tidy to cluttered."""
SMALLEST, LARGEST = 0.02, 0.6
"""Radii of the leaves, in shorter sides of the image."""
TEXTURE, SHADE, CHROMA = 20.0, 20.0, 20.0
"""Mean deviation of a leaf's texture, mean change of its shade per radius, scale of its hue; all of 255."""
TEXTURES = 8
CHANNEL_CORRELATION = ((1.0, 0.9, 0.8), (0.9, 1.0, 0.9), (0.8, 0.9, 1.0))
"""Of red, green and blue within a texture, as in photographs."""
CLIPPED = 0.01
"""Share of the values that become pure black, and as large a share pure white."""
ODDS = 1000.0
"""How much likelier than all others together a class may be before its logit is clipped."""


def images(count: int, height: int, width: int, seed: int = 0) -> Iterator[Image]:
    """Make `count` images, uint8 [height, width, 3], RGB, one at a time.

    One seed and size always give the same images, and fewer of them are the beginning of more.
    """
    root = np.random.SeedSequence(seed % 2**64)  # NumPy takes no negative one
    textures = _textures(np.random.default_rng(root), height, width)
    for child in root.spawn(count):
        yield _scene(np.random.default_rng(child), textures)


def widen(ranges: Mapping[str, tuple[float, float]], logits: str) -> dict[str, tuple[float, float]]:
    """Give the tensor named `logits` room, in ranges of synthetic images, for a class that the network is sure of.

    No synthetic image shows any class: the network is sure of none, and its largest logit is about the logarithm of the
    sum over all classes. A class `ODDS` times as likely as the others together lies ln(ODDS) = 6.9 above that; without
    this room the scores of clear photographs are clipped and tie. Low logits need none: clipping them changes only
    probabilities near 0. Raises KeyError when `logits` has no range.
    """
    low, high = ranges[logits]
    return {**ranges, logits: (low, high + math.log(ODDS))}


def _textures(rng: np.random.Generator, height: int, width: int) -> list[Floats]:
    """Noise with an amplitude of 1/f, as photographs have: [height, width, 3], mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no mean
    mix = np.linalg.cholesky(np.array(CHANNEL_CORRELATION))
    made = []
    for _ in range(TEXTURES):
        white = np.fft.rfft2(rng.standard_normal((3, height, width)))
        pink = np.fft.irfft2(white / frequency, s=(height, width))
        pink /= np.maximum(pink.std(axis=(1, 2), keepdims=True), 1e-9)  # a single pixel has none
        made.append(np.tensordot(pink, mix, axes=(0, 1)).astype(np.float32))
    return made


def _scene(rng: np.random.Generator, textures: list[Floats]) -> Image:
    """Make one image: leaves on a background that is like a leaf without an edge."""
    height, width, _ = textures[0].shape
    canvas = textures[rng.integers(TEXTURES)] * np.float32(rng.exponential(TEXTURE)) + _colour(rng)
    leaves = int(FEWEST * (MOST / FEWEST) ** rng.random())
    for radius in _radii(rng, leaves) * min(height, width):
        _drop_leaf(rng, canvas, textures[rng.integers(TEXTURES)], radius)
    black, white = np.quantile(canvas[::2, ::2], (CLIPPED, 1 - CLIPPED))
    stretched: Floats = (canvas - np.float32(black)) * np.float32(255 / max(white - black, 1.0))
    return stretched.clip(0, 255).astype(np.uint8)


def _radii(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Draw from the density r^-3 between the smallest and the largest radius, by inverting its integral."""
    radii: npt.NDArray[np.float64] = (SMALLEST**-2 + rng.random(count) * (LARGEST**-2 - SMALLEST**-2)) ** -0.5
    return radii


def _colour(rng: np.random.Generator) -> Floats:
    return (rng.uniform(0, 255) + rng.laplace(0, CHROMA, 3)).astype(np.float32)


def _drop_leaf(rng: np.random.Generator, canvas: Floats, texture: Floats, radius: float) -> None:
    """Paint one leaf onto the canvas, wherever it falls; its edge is a pixel wide."""
    height, width, _ = canvas.shape
    y, x = rng.random(2) * (height, width)
    stretch, angle = math.exp(rng.normal(0, 0.4)), rng.uniform(0, math.pi)
    reach = radius * max(stretch, 1 / stretch) * math.sqrt(2) + 1
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    columns = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    along = np.abs(columns * cosine + rows * sine) * np.float32(stretch)
    across = np.abs(rows * cosine - columns * sine) / np.float32(stretch)
    # The distance from the middle makes the shape: Euclidean a disc, the sum a diamond, the larger one a box.
    distance = (np.hypot, np.hypot, np.add, np.maximum)[rng.integers(4)](along, across)
    opacity = np.clip(np.float32(radius + 0.5) - distance, 0, 1)[..., None]
    shade_y, shade_x = (rng.standard_normal(2) * rng.exponential(SHADE) / radius).astype(np.float32)
    leaf = texture[top:bottom, left:right] * np.float32(rng.exponential(TEXTURE)) + _colour(rng)
    leaf += (rows * shade_y + columns * shade_x)[..., None]
    below = canvas[top:bottom, left:right]
    below += opacity * (leaf - below)
