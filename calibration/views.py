"""What a camera could have seen as well: parts of photographs, mirrored, brighter and darker.

Where the float network says what is right, a view needs no label, and views are learned by heart less soon than a few
images are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
"""(count, height, width, 3)."""

LEAST_AREA = 0.4
"""Of the part that is seen, as a share of the image."""
MOST_STRETCHED = 0.25
"""Of its sides, as the logarithm of their ratio."""
CONTRAST, BRIGHTNESS = 0.2, 15.0
"""Largest changes: a share, and of 255."""


class Views(Sequence[npt.NDArray[np.uint8]]):
    """Views of images: the images, then their mirror images, then parts drawn by the seed, as often as asked for.

    Each is made when it is asked for, and depends on the images, the seed and its number alone.
    """

    def __init__(self, images: Images, count: int, seed: int) -> None:
        self._images, self._count, self._seed = images, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> Images:  # type: ignore[override]
        """Return one view, or several together."""
        if isinstance(index, slice):
            made = [self._view(number) for number in range(self._count)[index]]
            return np.stack(made) if made else self._images[:0]
        return self._view(range(self._count)[index])

    def _view(self, number: int) -> Images:
        turn, which = divmod(number, len(self._images))
        image: Images = self._images[which]
        if turn == 0:
            return image
        if turn == 1:
            return image[:, ::-1]
        return _part(image, np.random.default_rng((self._seed, number)))


def _part(image: Images, random: np.random.Generator) -> Images:
    from PIL import Image

    height, width, _ = image.shape
    area, stretched = random.uniform(LEAST_AREA, 1.0), np.exp(random.uniform(-MOST_STRETCHED, MOST_STRETCHED))
    high = min(height, max(1, round(height * np.sqrt(area * stretched))))
    wide = min(width, max(1, round(width * np.sqrt(area / stretched))))
    top, left = int(random.integers(0, height - high + 1)), int(random.integers(0, width - wide + 1))
    seen = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high)
    )
    pixels = np.asarray(seen, np.float32)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = pixels * random.uniform(1 - CONTRAST, 1 + CONTRAST) + random.uniform(-BRIGHTNESS, BRIGHTNESS)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
