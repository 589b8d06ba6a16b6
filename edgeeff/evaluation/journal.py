"""What was judged so far, so that an interrupted evaluation can go on where it ended; see `devices.partial`."""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from edgeeff.calibration.audit import Fingerprint
from edgeeff.devices.partial import Partial
from edgeeff.evaluation.outcomes import Divergences, Outcomes
from edgeeff.evaluation.scoring import Scored


class Journal:
    """Batches that are done, in a file beside the records; `identity` is all that has to be the same to go on."""

    def __init__(self, folder: Path, name: str, identity: str, *, resume: bool) -> None:
        self._key = {"evaluation": identity}
        self._partial = Partial(folder, name, resume=resume)

    def found(self) -> Iterator[Scored]:
        """Yield the batches that an earlier evaluation left; a damaged one is as if it were not there."""
        for said in self._partial.found(self._key):
            for event in said:
                try:
                    yield _decoded(event)
                except (KeyError, ValueError, TypeError, OSError, binascii.Error, zipfile.BadZipFile):
                    continue

    def keep(self, scored: Scored) -> None:
        """Add a batch; raises OutputError when it cannot be written."""
        self._partial.keep(self._key, [_encoded(scored)])

    def remove(self) -> None:
        """Remove the file: everything is in records now."""
        self._partial.remove()


def _encoded(scored: Scored) -> dict[str, Any]:
    columns: dict[str, Any] = {"positions": scored.positions}
    for name, group in _groups(scored):
        columns |= {f"{name}.{field.name}": getattr(group, field.name) for field in fields(group)}
    if scored.kernels is not None:
        columns["kernels"] = scored.kernels
    if scored.fingerprints:
        columns["hashes"] = np.array([mark.hash for mark in scored.fingerprints], np.uint64)
        columns["thumbnails"] = np.stack([np.frombuffer(mark.thumbnail, np.uint8) for mark in scored.fingerprints])
    packed = io.BytesIO()
    np.savez(packed, **columns)
    return {
        "start": scored.start,
        "models": len(scored.models),
        "digests": scored.digests,
        "unreadable": scored.unreadable,
        "seconds": scored.seconds,
        "versions": scored.versions,
        "columns": base64.b64encode(packed.getvalue()).decode("ascii"),
    }


def _groups(scored: Scored) -> Iterator[tuple[str, Outcomes | Divergences]]:
    yield "baseline", scored.baseline
    for number, (model, divergence) in enumerate(zip(scored.models, scored.divergences, strict=True)):
        yield f"model{number}", model
        yield f"divergence{number}", divergence


def _decoded(event: dict[str, Any]) -> Scored:
    with np.load(io.BytesIO(base64.b64decode(event["columns"], validate=True)), allow_pickle=False) as file:
        columns = dict(file)

    def outcomes(name: str) -> Outcomes:
        return Outcomes(**{field.name: columns[f"{name}.{field.name}"] for field in fields(Outcomes)})

    def divergences(name: str) -> Divergences:
        return Divergences(**{field.name: columns[f"{name}.{field.name}"] for field in fields(Divergences)})

    models = range(int(event["models"]))
    digests = tuple(str(digest) for digest in event["digests"])
    decode_s, baseline_s, model_s = event["seconds"]
    return Scored(
        start=int(event["start"]),
        positions=columns["positions"],
        digests=digests,
        unreadable=tuple((int(position), str(reason)) for position, reason in event["unreadable"]),
        baseline=outcomes("baseline"),
        models=tuple(outcomes(f"model{number}") for number in models),
        divergences=tuple(divergences(f"divergence{number}") for number in models),
        fingerprints=tuple(
            Fingerprint(digest, int(bits), thumbnail.tobytes())
            for digest, bits, thumbnail in zip(digests, columns["hashes"], columns["thumbnails"], strict=True)
        )
        if "hashes" in columns
        else (),
        seconds=(float(decode_s), float(baseline_s), float(model_s)),
        versions=dict(event["versions"]),
        kernels=columns.get("kernels"),
    )
