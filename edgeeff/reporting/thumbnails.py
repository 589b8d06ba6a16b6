"""Pictures of the images that both models see differently, small enough to stand in the page itself.

Only asked for, since they are the user's own images. A file that is not the one that was judged is left out: the record
has the first digits of its sha256.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, RecordError
from edgeeff.evaluation import view
from edgeeff.reporting.page import Picture
from edgeeff.results import EvaluationRecord

SIDE = 112
"""Pixels of a picture's height and width."""
QUALITY = 72
NO_LABEL = -1


@dataclass(frozen=True)
class Thumbnails:
    """Where the images are: a folder, or None for where each record says they were."""

    folder: Path | None
    most: int = 24
    """Images of one record."""

    def check(self) -> None:
        """Refuse a folder that is none, and say what is missing to read images, before anything is made.

        Raises InputError and MissingExtraError.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise InputError(f"--thumbnails {self.folder} is no folder: give the one with the images that were judged")
        if importlib.util.find_spec("PIL") is None:
            raise MissingExtraError("Pillow", "evaluate")

    def of(self, record: EvaluationRecord) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
        """Return pictures of the images that changed, and what is to be said of those that are not there."""
        place = Path(record.data.path) if self.folder is None else self.folder
        root = place if place.is_dir() else place.parent
        changed = _changed(record)
        if not changed:
            return (), ("No image changed its best class.",)
        if record.data.kind == "tfrecord":
            return (), ("The images are in TFRecords, which thumbnails are not read from.",)
        pictures: list[Picture] = []
        missing = other = 0
        for index in changed:
            if len(pictures) == self.most or missing + other > 4 * self.most:
                break
            try:
                data, pixels, _ = images.look(_inside(root, record.images.keys[index]), SIDE, SIDE)
            except CalibrationError:
                missing += 1
                continue
            if hashlib.sha256(data).hexdigest().startswith(record.images.sha256[index]):
                pictures.append(_picture(record, index, _uri(pixels)))
            else:
                other += 1
        return tuple(pictures), tuple(_notes(len(changed), len(pictures), missing, other, root))


def _inside(root: Path, key: str) -> Path:
    """Return the path of an image below a folder: a record that somebody else made names no other files."""
    if Path(key).is_absolute() or ".." in Path(key).parts:
        raise CalibrationError(f"{key} is not below {root}")
    return root / key


def _changed(record: EvaluationRecord) -> list[int]:
    """Return the images with another best class, those where both were surest first.

    Raises RecordError when the columns are of different lengths.
    """
    columns = record.images
    if len({len(getattr(columns, field.name)) for field in fields(columns)}) > 1:
        raise RecordError(f"the images of the evaluation of {record.model.path} have columns of different lengths")
    changed = [
        index
        for index, (before, after) in enumerate(zip(columns.baseline, columns.model, strict=True))
        if before != after
    ]
    sure = [min(pair) for pair in zip(columns.baseline_confidence, columns.model_confidence, strict=True)]
    return sorted(changed, key=lambda index: (-sure[index], index))


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _picture(record: EvaluationRecord, index: int, uri: str) -> Picture:
    columns = record.images
    label = columns.labels[index]
    said = [
        *([] if label == NO_LABEL else [f"is {view.class_name(record, label)}"]),
        f"baseline: {view.class_name(record, columns.baseline[index])}, {columns.baseline_confidence[index]:.0%}",
        f"model: {view.class_name(record, columns.model[index])}, {columns.model_confidence[index]:.0%}",
    ]
    return Picture(uri, columns.keys[index], tuple(said))


def _notes(changed: int, there: int, missing: int, other: int, root: Path) -> list[str]:
    notes = []
    if there < changed:
        notes.append(f"{there:,} of {changed:,} images that changed are shown.")
    if missing:
        notes.append(f"{missing:,} of those that were looked for cannot be read in {root}.")
    if other:
        notes.append(f"{other:,} are other files in {root} than those that were judged, and are left out.")
    return notes
