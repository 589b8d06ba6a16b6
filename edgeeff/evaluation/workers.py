"""Who does the work: processes of this machine, or a cluster that is there already, both as a futures Executor.

Results come back in any order; nothing in them depends on who made them.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from edgeeff.errors import DeviceError, InputError, MissingExtraError, UnreachableError
from edgeeff.evaluation.scoring import PACKAGES, Scored, Task, score
from edgeeff.results import versions

AHEAD = 2
"""Tasks that are given out for each worker: one that runs, and one that waits."""
LOSSES = 2
"""How often processes of this machine may die before that is no accident."""
CONNECT_LIMIT_S = 10
WORTH_TRYING_S = 30.0
"""Time that has to be left for it to be worth a second to find the best number of threads."""
TRIAL = 3
"""Tasks for each worker that a number of threads is judged by."""


@dataclass(frozen=True)
class Crew:
    """Workers, and how many threads each of them gives an interpreter."""

    workers: int
    threads: int = 1


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_here(
    tasks: Iterable[Task], *, workers: int | None = None, threads: int | None = None
) -> Iterator[tuple[Scored, Crew]]:
    """Run tasks in processes of this machine; yield what comes of each, and the crew that it was.

    What is not given is chosen: a process with one thread for each core, and where much is left to do the number of
    threads that gave the most images per second when it was tried. Raises DeviceError when processes keep dying.
    """
    left = deque(tasks)
    images = sum(len(task.examples) for task in left)
    crews = _crews(workers, threads)
    with ExitStack() as stack:
        best, speed, rate = crews[0], None, 0.0
        for crew in crews:
            trial = [left.popleft() for _ in range(min(len(left), (1 + TRIAL) * crew.workers))]
            opened = stack.enter_context(_Processes(crew.workers))
            begin = ready = time.perf_counter()
            count = 0
            for done, scored in enumerate(opened.run([replace(task, threads=crew.threads) for task in trial]), start=1):
                images -= len(scored.positions) + len(scored.unreadable)
                if done == crew.workers:
                    ready = time.perf_counter()  # all of them have loaded the models
                elif done > crew.workers:
                    count += len(scored.positions)
                yield scored, crew
            elapsed = time.perf_counter() - (ready if count else begin)
            rate = count / elapsed if elapsed > 0 else 0.0
            if speed is None or rate > speed[0]:
                speed, best, kept = (rate, crew), crew, opened
            if rate <= 0 or images / rate < WORTH_TRYING_S:
                break
        for scored in kept.run(replace(task, threads=best.threads) for task in left):
            yield scored, best


def run_with(executor: Executor, count: int, tasks: Iterable[Task]) -> Iterator[tuple[Scored, Crew]]:
    """Run tasks in an executor that somebody else has opened, with so many workers."""
    for scored in _run(executor, tasks, AHEAD * count, {}):
        yield scored, Crew(count)


def run_there(address: str, tasks: Iterable[Task]) -> Iterator[tuple[Scored, Crew]]:
    """Run tasks on the Dask cluster whose scheduler has this address, as tcp://HOST:PORT.

    A worker that is lost is the scheduler's to replace. Raises MissingExtraError without distributed, UnreachableError
    when nobody answers there, DeviceError when the cluster fails, and InputError when its workers have other versions.
    """
    try:
        import distributed
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise MissingExtraError("Dask (distributed)", "cluster") from error
    if re.fullmatch(r"[a-z]+://.+:[0-9]+", address) is None:
        raise InputError(f"--scheduler {address} is no address: write tcp://HOST:PORT, as `dask scheduler` prints it")
    ours = versions(*PACKAGES)
    try:
        client = distributed.Client(address, timeout=CONNECT_LIMIT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnreachableError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, or leave --scheduler "
            "away to use this machine"
        ) from error
    with client:
        count = len(client.scheduler_info()["workers"])
        if not count:
            raise DeviceError(f"the scheduler at {address} has no workers: start some with `dask worker {address}`")
        executor = client.get_executor(pure=False)
        try:
            for scored in _run(executor, tasks, AHEAD * max(count, 1), {}):
                if scored.versions != ours:
                    raise InputError(
                        f"a worker of {address} has {_listed(scored.versions)}, this machine {_listed(ours)}: they "
                        "would not count alike; install the same versions everywhere"
                    )
                yield scored, Crew(count)
        except (distributed.KilledWorker, FutureCancelledError, CommClosedError) as error:
            raise DeviceError(f"the cluster at {address} failed: {error}; go on with --resume") from error


class _Processes:
    """Processes of this machine, started anew when one of them dies."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._losses = 0
        self._stack = ExitStack()

    def __enter__(self) -> _Processes:
        self._executor = self._stack.enter_context(pool(self._workers))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Scored]:
        """Run tasks to their end; those of a process that died are run again."""
        left = iter(tasks)
        while True:
            running: dict[Future[Scored], Task] = {}
            try:
                yield from _run(self._executor, left, AHEAD * self._workers, running)
            except BrokenExecutor as error:
                self._losses += 1
                if self._losses > LOSSES:
                    raise DeviceError(
                        "worker processes keep dying, most likely for want of memory: close other programs, or take "
                        "fewer with --workers 1; what was judged is kept, go on with --resume"
                    ) from error
                self._stack.close()
                self._executor = self._stack.enter_context(pool(self._workers))
                left = _chained(list(running.values()), left)
                continue
            return


def _chained(first: Sequence[Task], then: Iterator[Task]) -> Iterator[Task]:
    yield from first
    yield from then


def _run(
    executor: Executor, tasks: Iterable[Task], ahead: int, running: dict[Future[Scored], Task]
) -> Iterator[Scored]:
    """Keep `ahead` tasks given out, never more: memory does not depend on how many there are.

    `running` has those that did not come to an end, also after an exception.
    """

    def finished() -> Iterator[Scored]:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            scored = future.result()
            del running[future]
            yield scored

    left = iter(tasks)
    while True:
        while len(running) >= ahead:
            yield from finished()
        task = next(left, None)
        if task is None:
            break
        # First noted, then given out: a pool that is broken already raises here, and the task must not be lost.
        placeholder: Future[Scored] = Future()
        running[placeholder] = task
        future = executor.submit(score, task)
        del running[placeholder]
        running[future] = task
    while running:
        yield from finished()


@contextmanager
def pool(workers: int) -> Iterator[Executor]:
    """Start processes; whatever ends the block ends them at once."""
    before = set(multiprocessing.active_children())
    # A fork would copy the locks of this process's threads in whatever state they are.
    executor = _Pool(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        yield executor
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        # Waits for its thread only, which would otherwise close its pipe while Python, ending, still writes into it.
        executor.shutdown(cancel_futures=True)


class _Pool(ProcessPoolExecutor):
    """Processes that Ctrl-C does not reach: it is the main process's business, which ends its workers itself."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # A process begins here and inherits what is blocked. To ignore the signal once it runs would be too late: it
        # imports for half a second first. One that comes now is raised when it is let through again.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        # It would also run the script again that calls us, unless that has a guard, and needs nothing of it.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            sys.modules["__main__"] = script
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Prepare a process of this machine."""
    # Memory that Pillow keeps, in blocks of 1 MiB: getting it from the system anew costs a tenth of decoding.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "64")
    # What is too large to be decoded is said with the file's name; what is only large is decoded.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")


def _crews(workers: int | None, threads: int | None) -> list[Crew]:
    if workers is not None or threads is not None:
        each = threads or max(1, cores() // (workers or 1)) if workers is not None else threads or 1
        return [Crew(workers or max(1, cores() // each), each)]
    counts, count = [], 1
    while count <= cores():
        counts.append(Crew(cores() // count, count))
        count *= 2
    return counts


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items()) or "none of the packages"
