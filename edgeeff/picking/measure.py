"""Measuring candidates on boards that can be reached: convert where there is no file yet, profile, keep the record.

Files are made once, with random weights, and kept in the user's cache; records are kept in the folder of the command
and used again when file, device, runtime and threads are the same. So a board that disappears half-way costs nothing
but the process that ran on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeeff.converters import convert
from edgeeff.devices import profile, setup, targets
from edgeeff.devices import transport as transports
from edgeeff.devices.profile import Connect, Plan, Protocol, Watch
from edgeeff.devices.targets import Target
from edgeeff.errors import DroppedError, EdgeeffError, InputError, TimeLimitError, UnreachableError
from edgeeff.files import cache_folder, make_folder, sha256
from edgeeff.picking import records
from edgeeff.picking.ladder import CLASSES, Candidate
from edgeeff.picking.records import Figure
from edgeeff.picking.search import Reading
from edgeeff.progress import Progress
from edgeeff.results import Device, Runtime, this_device, versions

SHORT = Protocol("quick", processes=5, options={"warmup_s": 1.0, "runs": 30, "duration_s": 2.0, "warmup_limit_s": 10.0})
"""Where the interval is clear of the budget already, longer would not tell more."""
ANEW = replace(SHORT, processes=6)
"""Where the first was doubtful: as short, but another plan, so that the first record is not taken for its result."""
MANY = replace(SHORT, processes=15)
"""Processes differ more than the runs of one do, so more of them narrow the interval more than longer ones."""
LONG = replace(profile.FULL, processes=10)
SAMPLES = 4
"""Calibration images: whichever the ranges are, the kernels take as long."""

GO_ON = "give the same command again to go on"

Converting = Callable[[str], AbstractContextManager[Progress | None]]
"""Shows a conversion of a file of that name."""


@dataclass
class Bench:
    """The boards of a fleet, and how to measure on them."""

    boards: Sequence[Target]
    threads: int
    percentile: int
    output: Path
    """Folder of the records."""
    image: Path | None = None
    models: Path | None = None
    """Folder with files that are converted already."""
    quick: bool = False
    given: tuple[Protocol, ...] = ()
    """Other protocols than the usual ones, by effort."""
    fresh: bool = False
    """Leave aside what was measured before."""
    watching: Callable[[], AbstractContextManager[Watch]] = lambda: nullcontext(profile.unwatched)
    converting: Converting = lambda _name: nullcontext(None)
    connect: Connect | None = None
    devices: dict[str, tuple[Device, Runtime | None]] = field(default_factory=dict)
    """Who the boards are, by the targets' names."""

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """How candidates are measured, at each effort."""
        if self.given:
            return self.given
        if self.quick:
            return (profile.QUICK, SHORT)
        # Fewer runs than the full protocol's cannot tell the 99th percentile.
        return (profile.FULL, LONG) if self.percentile == 99 else (SHORT, ANEW, MANY, LONG)

    def known(self, candidates: Sequence[Candidate]) -> dict[int, tuple[Reading, ...]]:
        """Return what earlier records in the folder say, for those candidates that every board has one of."""
        if self.fresh or not self.output.is_dir():
            return {}
        found: dict[int, tuple[Reading, ...]] = {}
        figures = {board.name: self._figures(board) for board in self.boards}
        for place, candidate in enumerate(candidates):
            readings = [self._reused(candidate, board, figures[board.name]) for board in self.boards]
            there = tuple(reading for reading in readings if reading is not None)
            if len(there) == len(self.boards):
                found[place] = there
        return found

    def measure(self, candidate: Candidate, effort: int) -> tuple[Reading, ...]:
        """Measure a candidate on every board, one reading for each, in their order.

        Raises what converting and measuring raise; of a board that was lost the message says how to go on.
        """
        file = self.file(candidate)
        plan = Plan((file,), (self.threads,), protocol=self.protocols[effort], image=self.image)
        make_folder(self.output)
        local = all(board.address is None for board in self.boards)
        try:
            with self.watching() as watch:
                outcomes = profile.wait(
                    profile.measure_all(
                        self.boards,
                        plan,
                        output=self.output,
                        resume=not self.fresh,
                        watch=watch,
                        connect=self.connect,
                        device=this_device() if local else None,
                    )
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"what was measured is kept in {self.output}: {GO_ON}") from None
        for failure in profile.failures(outcomes):
            raise _with_advice(failure.error)
        readings = []
        for outcome in outcomes:
            (record,) = outcome.records
            path = self.output / profile.file_name(str(file), outcome.target, self.threads, plan)
            self.devices[outcome.target] = (record.device, record.runtime)
            figure = records.of_profile(record, path)
            reading = figure.reading(outcome.target, self.percentile, "measured", end_to_end=self.image is not None)
            if reading is None:
                raise InputError(
                    f"{record.latency.runs} runs cannot tell the {self.percentile}th percentile of {candidate.name}; "
                    "take --percentile 90, or leave --quick away"
                )
            readings.append(reading)
        return tuple(readings)

    def file(self, candidate: Candidate) -> Path:
        """Return the candidate's file, converted now where there is none.

        Raises what converting raises; MissingExtraError where the host packages are needed and missing.
        """
        for folder in (self.models, cache_folder("ladders")):
            if folder is not None and (folder / candidate.file_name).is_file():
                return folder / candidate.file_name
        folder = cache_folder("ladders")
        make_folder(folder, option="the environment variable EDGEEFF_CACHE")
        network = candidate.network
        named = network.family != "phi"
        source = convert.Source(
            variant=candidate.name if named else None,
            phi=None if named else network.phi,
            weights="none",
            classes=CLASSES,
            resolution=network.resolution,
        )
        with self.converting(candidate.file_name) as progress:
            convert.convert(
                source,
                scheme=candidate.scheme,
                calibration=convert.Calibration(samples=SAMPLES),
                output=folder / candidate.file_name,
                progress=progress,
            )
        return folder / candidate.file_name

    def _figures(self, board: Target) -> list[Figure]:
        """Return the figures of a board that its records in the folder tell, if it still is that board."""
        found = [
            records.of_profile(record, path)
            for record, path in records.profiles_in(self.output)
            if record.target == board.name and record.threads == self.threads and record.latency.processes > 1
        ]
        if not found:
            return []
        device, runtime = self._identity(board)
        return [one for one in found if one.device == device and _same(one.runtime, runtime)]

    def _identity(self, board: Target) -> tuple[Device, Runtime | None]:
        """Ask a board who it is and what would run there."""
        if board.name not in self.devices:
            if board.address is None:
                self.devices[board.name] = (this_device(), None)
            else:
                self.devices[board.name] = profile.wait(self._ask(board))
        return self.devices[board.name]

    async def _ask(self, board: Target) -> tuple[Device, Runtime | None]:
        connect = self.connect or transports.connect
        async with connect(board) as transport, setup.runner_on(transport) as program:
            probe = (await setup.ready(transport, board, program)).probe
            return probe.device, probe.runtime

    def _reused(self, candidate: Candidate, board: Target, figures: Sequence[Figure]) -> Reading | None:
        fitting = [one for one in figures if one.is_of(candidate) and self._is_of_file(one, candidate)]
        if self.image is not None:
            fitting = [one for one in fitting if one.image == str(self.image)]
        if not fitting:
            return None
        best = max(fitting, key=lambda one: one.runs)
        return best.reading(board.name, self.percentile, "reused", end_to_end=self.image is not None)

    def _is_of_file(self, figure: Figure, candidate: Candidate) -> bool:
        """Say whether a figure is of the file that would be measured now, as far as that file is there."""
        for folder in (self.models, cache_folder("ladders")):
            if folder is not None and (folder / candidate.file_name).is_file():
                return figure.sha256 == sha256(folder / candidate.file_name)
        return True


def reachable(name: str) -> Target:
    """Return the target of that name; raises UnknownNameError, or InputError where it has no address."""
    target = targets.find(name)
    if target.url is None and name in records.names():
        raise InputError(
            f"'{name}' is a board that edgeeff has facts and recorded figures of, not one that it can reach; take the "
            f"figures with --target {records.PREFIX}{name}, or add yours: edgeeff devices add my-{name} "
            f"ssh://USER@HOST --board {name}"
        )
    _ = target.address
    return target


def _same(before: Runtime | None, now: Runtime | None) -> bool:
    """Say whether it is the same runtime; here it is asked of the packages, and what is gone is another one."""
    if before is None:
        return False
    if now is None:
        return versions(before.name).get(before.name) == before.version
    return (before.name, before.version) == (now.name, now.version)


def _with_advice(error: EdgeeffError) -> EdgeeffError:
    """Say how to go on where a board was lost."""
    for kind in (DroppedError, UnreachableError, TimeLimitError):
        if isinstance(error, kind):
            return kind(f"{error}; what was measured is kept: {GO_ON}")
    return error
