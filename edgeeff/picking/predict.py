"""How long one file would take on a board: the latency model alone, and what it was fitted on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeeff import latency
from edgeeff.converters import inspect, workload
from edgeeff.converters.edgetpu import compiled
from edgeeff.devices import targets
from edgeeff.errors import InputError, ModelError
from edgeeff.latency import Measured, Workload
from edgeeff.picking import pick, records
from edgeeff.picking.ladder import LIBRARY_BYTES, RUNTIME_BYTES
from edgeeff.picking.records import PREFIX, Figure
from edgeeff.results import Device, ModelFile, PredictionRecord, Runtime, this_device


def predict(
    path: Path, name: str, *, folder: Path | None = None, percentile: int = 50, threads: int | None = None
) -> PredictionRecord:
    """Predict a file's latency on a target from its records and its published facts; `folder` has more records.

    Raises ModelError for a file that cannot be read, MissingExtraError without what reads it, and InputError where
    nothing is known of the target.
    """
    model, asked = _read(path)
    figures, device, runtime, board, origin = _known(name, folder)
    counts = tuple(sorted({figure.threads for figure in figures}))
    if threads is None:
        threads = counts[0] if counts and 1 not in counts else 1
    usable = [one for one in figures if one.threads == threads and percentile in one.seconds]
    measured = _measured(usable, asked, percentile)
    facts = None if board is None else targets.boards()[board]
    here = not name.startswith(PREFIX) and targets.find(name).url == "local"
    prior = pick.prior([facts], asked.scheme, threads, here=here)
    if not measured and prior.macs_per_s is None:
        counted = f" with {threads} threads" if counts else ""
        raise InputError(
            f"nothing in {asked.scheme} is known of {name}{counted}: measure one network there with edgeeff profile or "
            "edgeeff pick, and give the folder of its record with --records"
        )
    fitted = latency.fit(measured, asked.scheme, family=asked.family, prior=prior)
    expected = fitted.predict(asked)
    basis = [f"the published facts of {board}"] if prior.macs_per_s is not None else []
    basis += [f"{len(measured)} figures of {name}"] if measured else []
    return PredictionRecord(
        runtime=runtime,
        device=device,
        model=model,
        target=name,
        scheme=asked.scheme,
        threads=threads,
        percentile=percentile,
        macs=asked.macs,
        predicted_s=expected.seconds,
        interval_s=expected.interval,
        predicted_memory_bytes=latency.peak_memory(asked) + model.size_bytes + LIBRARY_BYTES + RUNTIME_BYTES,
        fitted=fitted.fitted,
        basis=" and ".join(basis),
        recorded=origin,
    )


def _read(path: Path) -> tuple[ModelFile, Workload]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    try:
        graph = inspect.parse(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if any(one.name == compiled.NAME for one in graph.operators):
        raise ModelError(
            f"{path} is compiled for the Edge TPU, which no CPU runs and this model knows nothing of; edgeeff inspect "
            "estimates what sending its parameters takes, edgeeff profile --delegate edgetpu measures it"
        )
    # Swish is what the two kinds of EfficientNet differ in.
    family = "b" if any(one.name in {"LOGISTIC", "HARD_SWISH"} for one in graph.operators) else "lite"
    model = ModelFile(str(path), hashlib.sha256(content).hexdigest(), len(content))
    return model, workload.of_graph(graph, path.stem, family)


def _known(name: str, folder: Path | None) -> tuple[list[Figure], Device, Runtime | None, str | None, tuple[str, ...]]:
    """Return what is recorded of a target, who it is, which board of those with facts, and sources of recorded ones."""
    if name.startswith(PREFIX):
        found = records.recorded(name, folder)
        return list(found.figures), found.device, found.runtime, found.board, found.origin
    target = targets.find(name)
    there = [] if folder is None else records.profiles_in(folder)
    figures = [records.of_profile(record, path) for record, path in there if record.target == name]
    if figures:
        last = max(figures, key=lambda one: one.created)
        same = [one for one in figures if one.device == last.device and one.runtime == last.runtime]
        return sorted(same, key=lambda one: -one.runs), last.device, last.runtime, target.board, ()
    if target.url == "local":
        return [], this_device(), None, target.board, ()
    facts = target.facts
    device = Device(facts.name if facts else name, "unknown", "unknown", (facts and facts.cpu) or "unknown", 0)
    return [], device, None, target.board, ()


def _measured(figures: list[Figure], asked: Workload, percentile: int) -> list[Measured]:
    """Return one figure of every network and scheme that computes in the same way."""
    found: dict[tuple[str, int, str], Measured] = {}
    for figure in figures:
        if latency.SCHEMES.get(figure.scheme) == asked.scheme:
            key = (figure.network.name, figure.network.resolution, figure.scheme)
            found.setdefault(key, figure.measured(percentile))
    return list(found.values())
