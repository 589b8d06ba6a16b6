"""A measurement as a user asks for it: what is refused beforehand, files on boards, and where time goes by block.

The command and the function of the Python API share it. How a board is measured is `devices.profile`'s, how a network
is cut into blocks `converters.blocks`'.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeeff.converters import blocks
from edgeeff.converters.blocks import Block
from edgeeff.converters.edgetpu import compiled
from edgeeff.devices import figures, profile, targets
from edgeeff.devices.profile import Delegate, Failure, Outcome, Plan, Protocol, Watch
from edgeeff.devices.targets import Target
from edgeeff.errors import DeviceError, DroppedError, EdgeeffError, InputError, ModelError
from edgeeff.files import write_atomic
from edgeeff.results import CompiledFile, ProfileRecord, to_json

MOST_THREADS = 1024


@dataclass(frozen=True)
class Measurement:
    """What is measured where, after everything that can be refused beforehand was not."""

    plan: Plan
    boards: tuple[Target, ...]
    output: Path | None = None
    """Folder for the records; None writes none."""
    resume: bool = False
    parts: Mapping[str, tuple[Block, ...]] | None = None
    """The blocks of every file, by its path, where they are asked for."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the records will be."""
        boards, counts = self.boards, self.plan.threads
        return tuple(
            self._path(str(file), board.name, count) for file in self.plan.files for board in boards for count in counts
        )

    def path(self, record: ProfileRecord) -> Path:
        """Where a record is."""
        return self._path(record.model.path, record.target, record.threads)

    def _path(self, file: str, target: str, threads: int) -> Path:
        return (self.output or Path()) / profile.file_name(file, target, threads, self.plan)


@dataclass(frozen=True)
class Measured:
    """What came of a measurement: some boards may have failed while others did not."""

    records: tuple[ProfileRecord, ...]
    failures: tuple[Failure, ...]

    @property
    def problem(self) -> EdgeeffError | None:
        """What to end with: the one failure as it is, or all of them, as the board's when one is; None without any."""
        failures = self.failures
        if not failures:
            return None
        if len(failures) == 1:
            error = failures[0].error
            # With what arrived before, the measurement need not begin anew.
            return DroppedError(f"{error}; go on with --resume") if isinstance(error, DroppedError) else error
        lines = "".join(f"\n- {failure.error}" for failure in failures)
        kind = DeviceError if any(isinstance(failure.error, DeviceError) for failure in failures) else InputError
        return kind(f"{len(failures)} measurements failed:{lines}")


def thread_counts(counts: str | int | Sequence[int]) -> tuple[int, ...]:
    """Return the thread counts of text such as 1,2,4, of one or of several; raises InputError for what is none."""
    given = counts.split(",") if isinstance(counts, str) else (counts,) if isinstance(counts, int) else counts
    try:
        found = tuple(int(one) for one in given)
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > MOST_THREADS:
        said = counts if isinstance(counts, str) else ",".join(str(one) for one in given)
        raise InputError(f"--threads '{said}' is no list of thread counts; for example --threads 1,2,4")
    return found


def prepare(
    files: Sequence[Path],
    names: Sequence[str] = (),
    *,
    protocol: Protocol,
    threads: Sequence[int] = (1,),
    delegate: Delegate = "auto",
    image: Path | None = None,
    keep: bool = False,
    output: Path | None = None,
    resume: bool = False,
    by_block: bool = False,
) -> Measurement:
    """Return the measurement of files on the targets of these names, each once, or on this machine.

    Raises InputError and its kinds for targets without an address, files that cannot be read or cut into blocks, and
    files that this delegate does not run.
    """
    compiled_files = _compiled(files, delegate)
    known = targets.targets() if names else {}
    boards = tuple(targets.find(name, known) for name in dict.fromkeys(names)) or (targets.LOCAL,)
    for board in boards:
        _ = board.address  # raises where nobody said how to reach it
    plan = Plan(tuple(files), tuple(threads), delegate, protocol, image, keep, compiled_files)
    parts = {str(file): blocks.cut(_read(file), str(file)) for file in files} if by_block else None
    return Measurement(plan, boards, output, resume, parts)


def measure(asked: Measurement, watch: Watch = profile.unwatched) -> Measured:
    """Measure; every board that does not fail gives a record for each file and thread count.

    Raises InputError and its kinds when the plan makes no sense or nothing can be written.
    """
    plan, boards = asked.plan, asked.boards
    work = profile.measure_all(boards, plan, output=asked.output, resume=asked.resume, watch=watch)
    outcomes = profile.wait(work)
    records = [record for outcome in outcomes for record in outcome.records]
    failed = list(profile.failures(outcomes))
    for path, cuts in (asked.parts or {}).items():
        done = {record.target for record in records if record.model.path == path}
        there = [board for board in boards if board.name in done]
        found = _measure_parts(cuts, plan, there, watch)
        records = [_complete(record, cuts, found) if record.model.path == path else record for record in records]
        failed += profile.failures(found)
    if asked.parts and asked.output is not None:
        for record in records:
            write_atomic(asked.path(record), to_json(record).encode("utf-8"))
    return Measured(tuple(records), tuple(failed))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {file}: {error.strerror}") from error


def _compiled(files: Sequence[Path], delegate: str) -> dict[str, CompiledFile]:
    """Read what files for the Edge TPU say of themselves; refuse them without its delegate, and others with it."""
    found = {}
    for file in files:
        content = _read(file)
        if compiled.NAME.encode() in content:
            if delegate != "edgetpu":
                raise ModelError(
                    f"{file} is compiled for the Edge TPU and runs nowhere else; measure it with --delegate edgetpu"
                )
            try:
                found[str(file)] = compiled.read(content)
            except ModelError as error:
                raise ModelError(f"cannot measure {file}: {error}") from error
        elif delegate == "edgetpu":
            raise ModelError(
                f"{file} is not compiled for the Edge TPU: nothing of it would run there. Compile it (edgeeff compile "
                f"{file}) and measure {file.stem}_edgetpu.tflite, or measure it on the CPU without --delegate edgetpu"
            )
    return found


def _measure_parts(cuts: Sequence[Block], plan: Plan, boards: Sequence[Target], watch: Watch) -> tuple[Outcome, ...]:
    """Measure a file's blocks, each with all before it, in turn on every board."""
    with tempfile.TemporaryDirectory() as folder:
        files = tuple(Path(folder) / f"{number:02}-{block.name}.tflite" for number, block in enumerate(cuts))
        for file, block in zip(files, cuts, strict=True):
            file.write_bytes(block.content)
        quick = replace(plan, files=files, protocol=profile.PARTS, image=None, keep=False)
        return profile.wait(profile.measure_all(boards, quick, watch=watch))


def _complete(record: ProfileRecord, cuts: Sequence[Block], found: Sequence[Outcome]) -> ProfileRecord:
    """Return the record with its blocks, as far as all of them were measured where it was."""
    until = dict(_times(record, found))
    if len(until) < len(cuts):
        return record
    names = [(block.name, block.operators, block.macs) for block in cuts]
    return replace(record, blocks=figures.by_block(names, [until[number] for number in range(len(cuts))]))


def _times(record: ProfileRecord, found: Sequence[Outcome]) -> Iterator[tuple[int, float]]:
    """Return how long the blocks took up to each, in seconds, by its number."""
    for outcome in found:
        for part in outcome.records:
            if (part.target, part.threads) == (record.target, record.threads):
                # The least disturbed process: differences of parts that a neighbour slowed say more of the neighbour.
                yield int(Path(part.model.path).name.split("-", 1)[0]), min(part.latency.process_p50_s)
