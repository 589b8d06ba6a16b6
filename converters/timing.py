"""How long .tflite files take for one image, here or on a board, each in turn with the float file.

Machines drift with their heat, their clock and their neighbours, so a time is told as a ratio to the float file's,
whose runs take turns with the other's. Many files are timed that differ little: each gets seconds, not the minutes that
`devices.profile` takes for a figure to publish.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeeff.converters.runtime import Session, runtime
from edgeeff.devices import profile, targets
from edgeeff.devices.targets import Target
from edgeeff.errors import DroppedError, EdgeeffError, InputError, TimeLimitError, UnreachableError
from edgeeff.results import ProfileRecord, TimedOn, this_device

ROUNDS, ROUNDS_S, FEWEST_ROUNDS = 30, 2.0, 5
"""How often a file takes turns with the float file here: as often as these seconds allow, within these bounds."""
BOARD = profile.Protocol("quick", 1, {"warmup_s": 0.2, "runs": 20, "duration_s": 0.5, "warmup_limit_s": 3.0})
"""For each file on a board: processes differ more than runs do, and who needs to be sure asks for several."""
FIRST = 3
"""Processes that tell what float takes on a board."""
FILES_AT_ONCE, BYTES_AT_ONCE = 12, 150e6
"""What a board is sent at a time, beside the float file: its storage may be small."""
PAUSES_S = (0.0, 5.0, 20.0)
"""Waits before each attempt to measure on a board whose connection was lost: what was measured is kept meanwhile."""


class Timer(Protocol):
    """Says how long files take."""

    @property
    def on(self) -> TimedOn:
        """Where it measures."""

    @property
    def float_s(self) -> float:
        """What the float file takes for one image, in seconds."""

    def times(self, contents: Iterable[bytes], repeats: int = 1) -> Iterator[float]:
        """Yield what each file takes, in seconds, from so many measurements; several may be taken before the first."""


class Here:
    """Times files with LiteRT on this machine.

    One thread is timed by the processor's clock, which stands still while others have the processor.
    """

    def __init__(self, content: bytes, image: npt.NDArray[np.uint8], threads: int = 1) -> None:
        """Time the float file; raises ModelError when LiteRT cannot run it."""
        self._content, self._image = content, image
        self._session = Session(content, threads=threads)
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self.on = TimedOn(targets.LOCAL.name, this_device(), runtime(), threads)
        for _ in range(3):
            self._run(self._session)
        self.float_s = float(np.median([self._run(self._session) for _ in range(10)]))
        self._rounds = int(np.clip(ROUNDS_S / (4 * max(self.float_s, 1e-6)), FEWEST_ROUNDS, ROUNDS))

    def times(self, contents: Iterable[bytes], repeats: int = 1) -> Iterator[float]:
        """Yield what each file takes, one after the other: the median of so many measurements."""
        for content in contents:
            yield float(np.median([self._time(content) for _ in range(repeats)]))

    def _time(self, content: bytes) -> float:
        if content == self._content:
            return self.float_s
        other = Session(content, threads=self.on.threads)
        for _ in range(3):
            self._run(other)
        ratios = []
        for _ in range(self._rounds):
            before, one, two, after = (self._run(one) for one in (self._session, other, other, self._session))
            ratios.append((one + two) / (before + after))
        return self.float_s * float(np.median(ratios))

    def _run(self, session: Session) -> float:
        start = self._clock()
        session.run(self._image)
        return self._clock() - start


class OnBoard:
    """Times files on a target, with the runtime that is there.

    Files are sent a few at a time, always with the float file, and are removed again.
    """

    def __init__(self, content: bytes, target: Target, threads: int = 1) -> None:
        """Time the float file; raises what measuring on the board does."""
        self._content, self._target = content, target
        with tempfile.TemporaryDirectory(prefix="edgeeff-") as name:
            (record,) = self._records([self._float(Path(name))], threads, FIRST, PAUSES_S[:1])
        self.on = TimedOn(target.name, record.device, record.runtime, threads)
        self.float_s = record.latency.p50_s

    def times(self, contents: Iterable[bytes], repeats: int = 1) -> Iterator[float]:
        """Yield what each file takes, from so many processes; raises DeviceError when the board is lost for good."""
        waiting = iter(contents)
        while True:
            with tempfile.TemporaryDirectory(prefix="edgeeff-") as name:
                folder = Path(name)
                files, size = [self._float(folder)], 0
                for content in itertools.islice(waiting, FILES_AT_ONCE):
                    files.append(folder / f"{len(files)}.tflite")
                    size += files[-1].write_bytes(content)
                    if size > BYTES_AT_ONCE:
                        break
                if len(files) == 1:
                    return
                records = self._records(files, self.on.threads, repeats, PAUSES_S)
            usual, *others = (record.latency.p50_s for record in records)
            yield from (self.float_s * seconds / usual for seconds in others)

    def _float(self, folder: Path) -> Path:
        path = folder / "float.tflite"
        path.write_bytes(self._content)
        return path

    def _records(
        self, files: Sequence[Path], threads: int, processes: int, pauses_s: Iterable[float]
    ) -> list[ProfileRecord]:
        plan = profile.Plan(tuple(files), (threads,), protocol=replace(BOARD, processes=processes))
        errors: list[EdgeeffError] = []
        for pause in pauses_s:
            time.sleep(pause)
            work = profile.measure_all([self._target], plan, output=files[0].parent, resume=True)
            (outcome,) = profile.wait(work)
            errors = [failure.error for failure in outcome.failures]
            if not errors:
                by_file = {record.model.path: record for record in outcome.records}
                return [by_file[str(file)] for file in files]
            if not isinstance(errors[0], (DroppedError, UnreachableError, TimeLimitError)):
                break
        error = errors[0]
        for kind in (DroppedError, UnreachableError, TimeLimitError):
            if isinstance(error, kind):
                raise kind(f"{error}; nothing was written, and files that were there are as they were") from error
        raise error


def timer(content: bytes, image: npt.NDArray[np.uint8], target: Target, threads: int) -> Timer:
    """Return what times files on a target, with the float file's time measured; raises what measuring does."""
    return Here(content, image, threads) if target == targets.LOCAL else OnBoard(content, target, threads)


def board(name: str) -> Target:
    """Return the target of that name, where a mix of precisions can be timed.

    Raises UnknownNameError, and InputError where it has no address or is known to have an Edge TPU, which runs nothing
    but full int8.
    """
    target = targets.find(name)
    if target.facts is not None and target.facts.accelerator is not None:
        raise InputError(
            f"'{name}' has an accelerator, {target.facts.accelerator}, which runs full int8 only: convert with "
            "--edge-tpu, without a goal or --target"
        )
    _ = target.address
    return target
