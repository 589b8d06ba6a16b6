"""What a worker does: decode a batch of images once, run both models on them, and keep a few numbers of each image.

`score` is a pure function of its task, whoever calls it: a process here, or a worker of a cluster. What a worker keeps
between tasks, interpreters that are loaded, does not change any result.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeeff.calibration import images
from edgeeff.calibration.audit import Fingerprint, fingerprint
from edgeeff.converters.runtime import Session
from edgeeff.errors import CalibrationError, ModelError
from edgeeff.evaluation.classifier import Classifier, stored_values
from edgeeff.evaluation.dataset import Example
from edgeeff.evaluation.outcomes import (
    Divergences,
    Integers,
    Outcomes,
    divergences,
    outcomes,
    probabilities,
)
from edgeeff.results import versions

PACKAGES = ("edgeeff", "ai-edge-litert", "numpy", "pillow")
"""What the scores depend on: a worker with other versions would count otherwise."""
SESSIONS_KEPT = 8
Scores = npt.NDArray[np.float32]

_loaded = threading.local()
"""Interpreters must not be shared by threads, and workers of a cluster may have several."""


@dataclass(frozen=True)
class Task:
    """A batch of images, and the models that are to see them."""

    start: int
    """Position of the first image in the set."""
    examples: tuple[Example, ...]
    labels: tuple[int, ...]
    """The models' class of every image, -1 for none."""
    baseline: Classifier
    models: tuple[Classifier, ...]
    threads: int = 1
    allowed: tuple[int, ...] | None = None
    """The only classes that count as answers; None for all of them."""
    fingerprints: bool = False
    board: Classifier | None = None
    """What is to be run elsewhere: its pixels are given back, with all scores."""


@dataclass(frozen=True)
class Raw:
    """What is needed to judge on these images what runs elsewhere; n images that could be read."""

    pixels: npt.NDArray[np.uint8]
    """(n, height, width, 3)."""
    baseline: Scores
    """(n, classes)."""
    model: Scores | None
    """The scores of the task's first model; None where it has none."""


@dataclass(frozen=True)
class Scored:
    """What came of a task; columns have an entry for every image that could be read, in order."""

    start: int
    positions: Integers
    """In the set."""
    digests: tuple[str, ...]
    """sha256 of every image's bytes."""
    unreadable: tuple[tuple[int, str], ...]
    """Position and reason."""
    baseline: Outcomes
    models: tuple[Outcomes, ...]
    divergences: tuple[Divergences, ...]
    """One for each model, of its probabilities from the baseline's."""
    fingerprints: tuple[Fingerprint, ...]
    seconds: tuple[float, float, float]
    """For reading and decoding, for the baseline, and for the models."""
    versions: dict[str, str]
    kernels: npt.NDArray[np.float64] | None = None
    """Where the model ran on a board, (n, 3): whether its best class there is that of the same file here, whether all
    scores are, and the largest difference of a probability; NaN where it does not run here."""
    raw: Raw | None = None


def score(task: Task) -> Scored:
    """Run a task; images that cannot be read are named in the result. Raises ModelError for a model that cannot run."""
    baseline = _session(task.baseline, task.threads)
    sessions = [_session(model, task.threads) for model in task.models]

    # One model after the other, over the whole batch: its weights stay in the processor's cache.
    wanted = [task.baseline, *task.models, *(() if task.board is None else (task.board,))]
    positions, digests, marks, unreadable = [], [], [], []
    seen: list[list[npt.NDArray[np.uint8]]] = [[] for _ in wanted]
    begin = time.perf_counter()
    for position, example in enumerate(task.examples, start=task.start):
        try:
            data = example.read()
            pictures = _decode(data, example.key, wanted)
        except CalibrationError as error:
            unreadable.append((position, str(error)))
            continue
        positions.append(position)
        digests.append(hashlib.sha256(data).hexdigest())
        if task.fingerprints:
            marks.append(fingerprint(data, pictures[0]))
        for column, picture in zip(seen, pictures, strict=True):
            column.append(picture)
    decoded = time.perf_counter()
    reference = [baseline.run(picture) for picture in seen[0]]
    compared = time.perf_counter()
    quantized = [
        [session.run(picture) for picture in column] for session, column in zip(sessions, seen[1:], strict=False)
    ]
    judged = time.perf_counter()

    labels = np.array([task.labels[position - task.start] for position in positions], np.int32)
    rows = [
        np.array(each, np.float32).reshape(len(positions), task.baseline.classes) for each in (reference, *quantized)
    ]
    first, *others = [judge(each, labels, one, task.allowed) for each, one in zip(rows, wanted, strict=False)]
    return Scored(
        start=task.start,
        positions=np.array(positions, np.int32),
        digests=tuple(digests),
        unreadable=tuple(unreadable),
        baseline=first[0],
        models=tuple(found for found, _ in others),
        divergences=tuple(divergences(first[1], theirs) for _, theirs in others),
        fingerprints=tuple(marks),
        seconds=(decoded - begin, compared - decoded, judged - compared),
        versions=_versions(),
        raw=None if task.board is None else _raw(task.board, seen[-1], rows),
    )


def judge(
    scores: Scores, labels: npt.NDArray[np.int32], model: Classifier, allowed: tuple[int, ...] | None
) -> tuple[Outcomes, npt.NDArray[np.float64]]:
    """Return the columns of a model's scores (n, classes), and its probabilities of the classes that count."""
    if allowed is None:
        return outcomes(scores, labels, logits=model.logits), probabilities(scores, logits=model.logits)
    classes = np.asarray(allowed, np.int32)
    kept = scores[:, classes]
    places = np.full(model.classes, -1, np.int32)
    places[classes] = np.arange(len(classes))
    found = outcomes(kept, np.where(labels >= 0, places[labels], -1), logits=model.logits)
    top1 = np.where(found.top1 >= 0, classes[found.top1], -1)
    judged = Outcomes(top1, found.rank, found.confidence, found.tied, found.tied5, found.finite)
    return judged, probabilities(kept, logits=model.logits)


@cache
def _versions() -> dict[str, str]:
    return versions(*PACKAGES)


def _decode(data: bytes, name: str, classifiers: Sequence[Classifier]) -> list[npt.NDArray[np.uint8]]:
    """Return what each classifier sees of an image, decoded once for all that see the same."""
    made: dict[tuple[int, int, str], npt.NDArray[np.uint8]] = {}
    found = []
    for classifier in classifiers:
        wanted = classifier.preprocessing
        key = (wanted.height, wanted.width, wanted.crop)
        if key not in made:
            crop: images.Crop = "none" if wanted.crop == "none" else "center"
            made[key] = images.decode(data, name, wanted.height, wanted.width, crop)
        found.append(made[key])
    return found


def _raw(board: Classifier, seen: list[npt.NDArray[np.uint8]], rows: list[Scores]) -> Raw:
    wanted = board.preprocessing
    pixels = np.array(seen, np.uint8).reshape(len(seen), wanted.height, wanted.width, 3)
    return Raw(pixels, rows[0], rows[1] if len(rows) > 1 else None)


def _session(model: Classifier, threads: int) -> Session:
    """Return the interpreter of this thread for a model; the least recently used ones are let go."""
    kept: OrderedDict[tuple[str, int], Session] = _loaded.__dict__.setdefault("sessions", OrderedDict())
    key = (f"{model.sha256}/{model.preprocessing}", threads)
    if key not in kept:
        kept[key] = Session(_content(model), threads=threads, table=stored_values(model))
    kept.move_to_end(key)
    while len(kept) > SESSIONS_KEPT:
        kept.popitem(last=False)
    return kept[key]


def _content(model: Classifier) -> bytes:
    try:
        content = Path(model.path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"a worker cannot read the model {model.path} ({error.strerror}): workers on other machines have to see "
            "models, images and the cache of baselines under the same paths"
        ) from error
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise ModelError(f"{model.path} is another file for a worker than it was when this evaluation began")
    return content
