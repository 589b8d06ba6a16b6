"""Figures that are there already: profile records in a folder, and boards that others measured ("recorded:NAME").

Recorded boards come as TOML files, each with its source and date: those in edgeeff/data/recorded, the user's own in
`recorded` in their config folder, and those of a folder that is named with --records, where profile records count for
their target, too. Nothing in here is measured or made up; what is not in a record stays unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from edgeeff import latency, scaling
from edgeeff.devices import targets
from edgeeff.errors import InputError, RecordError, UnknownNameError
from edgeeff.latency import Measured
from edgeeff.picking.ladder import Candidate
from edgeeff.picking.search import Reading
from edgeeff.results import Device, PickLatency, ProfileRecord, Runtime, read_record
from edgeeff.statistics import relative_interval

PREFIX = "recorded:"
SUFFIX = ".profile.json"


@dataclass(frozen=True)
class Row:
    """What was recorded of one network; seconds of one inference, None where nobody wrote it down."""

    variant: str
    scheme: str
    p50_s: float
    p90_s: float | None = None
    p99_s: float | None = None
    resolution: int | None = None
    """In pixels; None means the variant's own."""
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Board:
    """A board that others measured, as a file in TOML says it."""

    name: str
    source: str
    date: str
    threads: int
    rows: tuple[Row, ...]
    machine: str = "unknown"
    system: str = "unknown"
    cpu: str = "unknown"
    cores: int = 0
    runtime: str | None = None
    runtime_version: str = "unknown"
    delegate: str = "unknown"
    board: str | None = None
    """Which of the boards that edgeeff has facts about it is."""
    emulated: bool = False


@dataclass(frozen=True)
class Figure:
    """One network's figures, from whichever kind of record."""

    network: scaling.Network
    scheme: str
    threads: int
    seconds: Mapping[int, float]
    """By percentile."""
    spread: Mapping[int, float | None]
    """How far a 95 % interval reaches to either side, relative."""
    source: str
    created: str
    device: Device
    runtime: Runtime | None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    end_to_end: Mapping[int, float] | None = None
    image: str | None = None
    sha256: str | None = None
    valid: bool = True
    reason: str | None = None
    """Why not, where it is not valid."""
    runs: int = 0

    def is_of(self, candidate: Candidate) -> bool:
        """Say whether it is of the same network, resolution and scheme."""
        same = (self.network.name, self.network.resolution) == (candidate.name, candidate.network.resolution)
        return same and self.scheme == candidate.scheme

    def reading(self, target: str, percentile: int, basis: str, *, end_to_end: bool = False) -> Reading | None:
        """Return it as a reading, None where it does not tell the percentile, or nothing from image to scores."""
        own = self.seconds.get(percentile)
        seconds = (self.end_to_end or {}).get(percentile) if end_to_end else own
        if own is None or seconds is None:
            return None
        reach = self.spread.get(percentile)
        interval = None if reach is None else (seconds * math.exp(-reach), seconds * math.exp(reach))
        told = PickLatency(target, basis, seconds, interval, self.memory_bytes, self.source, self.valid, self.reason)
        return Reading(
            seconds,
            interval,
            (told,),
            overhead_s=max(0.0, seconds - own),
            memory_bytes=self.memory_bytes,
            runtime_bytes=self.runtime_bytes,
            size_bytes=self.size_bytes,
        )

    def measured(self, percentile: int) -> Measured:
        """Return it as the latency model takes it; the percentile has to be among its seconds."""
        reach = self.spread.get(percentile)
        workload = latency.network_workload(self.network, self.scheme)
        return Measured(workload, self.seconds[percentile], 0.01 if reach is None else max(0.002, reach / 2))


@dataclass(frozen=True)
class Recorded:
    """A recorded target: its figures, and what is said of the board."""

    name: str
    """With its prefix."""
    figures: tuple[Figure, ...]
    device: Device
    runtime: Runtime | None
    board: str | None
    origin: tuple[str, ...]
    """Source and date of what is in it, for people."""

    @property
    def threads(self) -> tuple[int, ...]:
        """The thread counts that there are figures of."""
        return tuple(sorted({figure.threads for figure in self.figures}))

    def reading(self, candidate: Candidate, threads: int, percentile: int) -> Reading | None:
        """Return what is recorded of a candidate, None where nothing is."""
        for figure in self.figures:
            if figure.is_of(candidate) and figure.threads == threads:
                return figure.reading(self.name, percentile, "recorded")
        return None


def slowest(readings: Sequence[Reading]) -> Reading:
    """Return one reading for several targets: nothing fits that does not fit on all of them."""
    if len(readings) == 1:
        return readings[0]
    last = max(readings, key=lambda one: one.seconds)
    ends = [one.interval or (one.seconds, one.seconds) for one in readings]
    told = any(one.interval for one in readings)
    memories = [one.memory_bytes for one in readings if one.memory_bytes is not None]
    return replace(
        last,
        interval=(max(low for low, _ in ends), max(high for _, high in ends)) if told else None,
        latencies=tuple(told for one in readings for told in one.latencies),
        memory_bytes=max(memories, default=None),
        size_bytes=next((one.size_bytes for one in readings if one.size_bytes is not None), None),
    )


def recorded(name: str, folder: Path | None = None) -> Recorded:
    """Return a recorded target by its name, with or without "recorded:"; `folder` is what --records names.

    Raises UnknownNameError, and RecordError where a file cannot be read.
    """
    plain = name.removeprefix(PREFIX)
    files = _files(folder)
    profiles = [] if folder is None else [one for one in profiles_in(folder) if one[0].target == plain]
    if plain not in files and not profiles:
        known = {*files, *({one.target for one, _ in profiles_in(folder)} if folder is not None else ())}
        raise UnknownNameError("recorded target", plain, sorted(known))
    figures: list[Figure] = []
    origin: list[str] = []
    board: str | None = None
    if profiles:
        figures += sorted((of_profile(record, path) for record, path in profiles), key=lambda one: -one.runs)
        days = sorted({record.created[:10] for record, _ in profiles})
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        origin.append(f"{len(profiles)} profile records in {folder}, {span}")
    if plain in files:
        read = _read(files[plain])
        board = read.board
        figures += _of_board(read)
        origin.append(f"{read.source}, {read.date}")
    first = figures[0]
    return Recorded(f"{PREFIX}{plain}", tuple(figures), first.device, first.runtime, board, tuple(origin))


def names(folder: Path | None = None) -> list[str]:
    """Return the names of the recorded targets that there are files of, without "recorded:"."""
    return sorted(_files(folder))


def profiles_in(folder: Path) -> list[tuple[ProfileRecord, Path]]:
    """Return the profile records of a folder whose networks can be told by their names, such as b2_int8.tflite.

    Raises RecordError when the folder is none, or a record in it cannot be read.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder; --records names one with profile records or TOML files")
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        record = read_record(path)
        if isinstance(record, ProfileRecord) and _network(record.model.path) is not None:
            found.append((record, path))
    return found


def of_profile(record: ProfileRecord, path: Path) -> Figure:
    """Return the figures of a profile record; raises RecordError when its model's name tells no network."""
    named = _network(record.model.path)
    if named is None:
        raise RecordError(f"{path} is of {record.model.path}, whose name is none of a variant, like b2_int8.tflite")
    network, scheme = named
    one = record.latency
    processes = {50: one.process_p50_s, 90: one.process_p90_s, 99: one.process_p99_s}
    seconds = {50: one.p50_s, 90: one.p90_s} | ({99: one.p99_s} if one.p99_s is not None else {})
    steps, verdict = record.end_to_end, record.verdict
    return Figure(
        network=network,
        scheme=scheme,
        threads=record.threads,
        seconds=seconds,
        # Older records know the medians of their processes only.
        spread={key: relative_interval(values or one.process_p50_s) for key, values in processes.items()},
        source=str(path),
        created=record.created,
        device=record.device,
        runtime=record.runtime,
        size_bytes=record.model.size_bytes,
        memory_bytes=record.peak_rss_bytes,
        runtime_bytes=record.runtime_rss_bytes,
        end_to_end=None if steps is None else {50: steps.total_s, 90: steps.total_p90_s},
        image=None if steps is None else steps.image,
        sha256=record.model.sha256,
        valid=verdict is None or verdict.valid,
        # Those that make it invalid come first.
        reason=None if verdict is None or verdict.valid else next((one.text for one in verdict.reasons), None),
        runs=one.runs,
    )


def others(figures: Iterable[Figure], candidates: Sequence[Candidate], threads: int, percentile: int) -> list[Measured]:
    """Return the figures of other networks that the model may learn from: same threads, same kind of arithmetic."""
    computes = candidates[0].workload.scheme
    found: dict[tuple[str, int], Measured] = {}
    for figure in figures:
        fits = latency.SCHEMES.get(figure.scheme) == computes and figure.threads == threads
        if not fits or percentile not in figure.seconds or any(figure.is_of(one) for one in candidates):
            continue
        found.setdefault((figure.network.name, figure.network.resolution), figure.measured(percentile))
    return list(found.values())


def _network(path: str) -> tuple[scaling.Network, str] | None:
    """Return the network and the scheme that a file's name tells: b2_int8.tflite, b2-224px_int8.tflite."""
    stem, _, scheme = path.rsplit("/", 1)[-1].removesuffix(".tflite").rpartition("_")
    if scheme not in latency.SCHEMES:
        return None
    name, _, pixels = stem.rpartition("-")
    try:
        if pixels.endswith("px") and pixels[:-2].isdigit():
            return scaling.network(name, resolution=int(pixels[:-2])), scheme
        return scaling.network(stem), scheme
    except InputError:  # a file with a name of its user's own
        return None


def _files(folder: Path | None) -> dict[str, Any]:
    """Return the TOML files by the names of their boards; the user's own come before those that edgeeff brings."""
    found: dict[str, Any] = {}
    shipped = resources.files("edgeeff").joinpath("data").joinpath("recorded")
    places: list[Any] = [shipped, targets.config_folder() / "recorded", *([folder] if folder is not None else [])]
    for place in places:
        if place.is_dir():
            found |= {file.name[: -len(".toml")]: file for file in place.iterdir() if file.name.endswith(".toml")}
    return found


def _read(file: Any) -> Board:
    import msgspec

    try:
        board = msgspec.toml.decode(file.read_bytes(), type=Board)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"{file} is no record of a board: {error}") from error
    if not board.rows or board.threads < 1:
        raise RecordError(f"{file} has no rows or no threads; a record of a board needs both")
    if board.board is not None and board.board not in targets.boards():
        raise UnknownNameError(f"board in {file}", board.board, targets.boards())
    return board


def _of_board(board: Board) -> Iterator[Figure]:
    device = Device(board.name, board.machine, board.system, board.cpu, board.cores, board.emulated)
    runtime = None if board.runtime is None else Runtime(board.runtime, board.runtime_version, board.delegate)
    for row in board.rows:
        seconds = {50: row.p50_s, 90: row.p90_s, 99: row.p99_s}
        if any(value is not None and not 0 < value < math.inf for value in seconds.values()):
            raise RecordError(f"{board.name}: {row.variant} {row.scheme} has a time that is not above zero")
        if row.scheme not in latency.SCHEMES:
            raise UnknownNameError("scheme of a recorded row", row.scheme, latency.SCHEMES)
        yield Figure(
            network=scaling.network(row.variant, resolution=row.resolution),
            scheme=row.scheme,
            threads=board.threads,
            seconds={key: value for key, value in seconds.items() if value is not None},
            spread={},
            source=board.source,
            created=board.date,
            device=device,
            runtime=runtime,
            size_bytes=row.size_bytes,
            memory_bytes=row.peak_memory_bytes,
        )
