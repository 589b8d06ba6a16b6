"""What a calibration set is like: what audits say, and what a conversion says of the images that it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeeff.results.evaluation import Finding, Leak
from edgeeff.results.record import ModelFile, Record


@dataclass(frozen=True)
class SetSummary:
    """What the images of a set are like, by their pixels as a network sees them."""

    images: int
    """That could be used."""
    distinct: int
    """Of these, without the copies of another one."""
    mean: tuple[float, float, float]
    """Of red, green and blue over all images, 0 to 255."""
    std: tuple[float, float, float]
    """Standard deviation of red, green and blue over all images, 0 to 255."""
    black: tuple[str, ...] = ()
    """Names of images that are black all over."""
    white: tuple[str, ...] = ()
    """Names of images that are white all over."""
    flat: tuple[str, ...] = ()
    """Names of images of another single colour."""
    grey: int = 0
    """Images without any colour."""
    small: int = 0
    """Images that had to be enlarged to less than half as sharp as the network could see."""
    special: dict[str, int] = field(default_factory=dict)
    """How many files were "animated" (the first frame is used), "turned" (upright by EXIF), "CMYK", "16-bit" (the upper
    eight bits are used) or "transparent" (laid over white)."""
    refused: tuple[tuple[str, str], ...] = ()
    """Name and reason of every file that cannot be used."""
    classes: tuple[tuple[str, int], ...] = ()
    """Class folders and how many images each gave; empty without class folders."""
    copies: tuple[Leak, ...] = ()
    """Images that repeat one before them."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with them; empty in an audit, which has all findings in one place."""


@dataclass(frozen=True)
class TensorStability:
    """How alike a tensor's range comes out of either half of a set."""

    tensor: str
    """Its name in the network."""
    block: str
    """The part of the network, such as "block2a"; empty where its name does not say."""
    ratio: float
    """The narrower half's range divided by the wider one's, 0 to 1."""


@dataclass(frozen=True)
class LoneImage:
    """An image that sets activation ranges alone."""

    image: str
    """Its path in the folder."""
    tensors: int
    """Whose ranges would be at least a tenth narrower without it."""
    worst: str
    """The tensor that would lose most."""
    worst_ratio: float
    """Its range without this image, divided by what it is."""


@dataclass(frozen=True)
class Growth:
    """How wide the ranges of the first so many images are, as parts of the whole set's."""

    images: int
    """How many images, the first ones that would be drawn."""
    median: float
    """Width of a range divided by that of the whole set: the median of all tensors."""
    lowest: float
    """The same; nine tensors of ten have more than this."""


@dataclass(frozen=True)
class RangeAudit:
    """What a set does to the activation ranges of a network."""

    model: str
    """The network's name, or path."""
    sha256: str
    """Of the float .tflite that ran."""
    images: int
    """Distinct ones that ran."""
    tensors: int
    """Whose ranges depend on the images."""
    stability: float
    """Median over the tensors of how alike both halves are, 0 to 1."""
    stability_lowest: float
    """Nine tensors of ten have more than this."""
    least_stable: tuple[TensorStability, ...]
    """The tensors that differ most between both halves."""
    lone: tuple[LoneImage, ...]
    """Those that set most ranges alone."""
    growth: tuple[Growth, ...]
    """From few images to all of them."""
    enough: int | None
    """The number of images from which on twice as many widen the ranges no more; None where these are not enough."""


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """Whether a folder of images is fit to calibrate with."""

    schema: ClassVar[str] = "edgeeff/audit"
    schema_version: ClassVar[int] = 1

    folder: str
    """The folder with the images."""
    seed: int
    """Decides the order in which images are drawn, as for convert."""
    against: str | None
    """The evaluation set that it was compared with; None where none was given."""
    against_images: int
    """How many images of that set could be read."""
    model: ModelFile | None
    """The network's file, as the user gave it; None for a variant, and where none was given."""
    resolution: tuple[int, int]
    """Height and width that the images were looked at, in pixels."""
    pixels: SetSummary
    """What the images are like."""
    ranges: RangeAudit | None
    """What the images do to the network's ranges; None where no network was given."""
    leaks: tuple[Leak, ...]
    """Images of the evaluation set that are in this one."""
    findings: tuple[Finding, ...]
    """All of them, serious ones first."""
    verdict: str
    """"fit", "usable" (something could be better) or "unfit"."""
    images: tuple[tuple[str, str], ...]
    """Relative path and sha256 of every image that could be used, in the order in which they are drawn."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step."""
