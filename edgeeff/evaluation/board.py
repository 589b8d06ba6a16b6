"""A model that runs on a board, on pixels that are decoded here, while the baseline runs here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeeff.devices import score
from edgeeff.devices.profile import Delegate
from edgeeff.devices.targets import Target
from edgeeff.evaluation.classifier import Classifier, stored_values
from edgeeff.evaluation.outcomes import divergences, probabilities
from edgeeff.evaluation.scoring import Scored, Scores, Task, judge
from edgeeff.evaluation.workers import Crew
from edgeeff.results import Device, Runtime

Runs = Iterator[tuple[Scored, Crew]]


async def run_on(
    target: Target,
    model: Classifier,
    runs: Runs,
    tasks: Sequence[Task],
    take: Callable[[Scored, Crew], None],
    *,
    delegate: Delegate = "auto",
) -> tuple[Device, Runtime]:
    """Run a model on a board, on the pixels of `runs`, which are of `tasks`; return what ran it.

    `take` gets every batch in order, with the board's scores judged in it. Two batches are on their way at a time.
    Raises what `devices.score` raises.
    """
    table = stored_values(model)
    async with score.scoring(target, Path(model.path), delegate=delegate, table=table) as board:

        async def there(scored: Scored) -> Scored:
            if scored.raw is None or not len(scored.positions):
                return scored
            begin = time.perf_counter()
            theirs = await board.scores(scored.raw.pixels)
            return _with_board(scored, theirs, model, tasks, time.perf_counter() - begin)

        waiting: list[tuple[asyncio.Task[Scored], Crew]] = []

        async def finish() -> None:
            done, crew = waiting.pop(0)
            take(await done, crew)

        try:
            async with aclosing(_in_thread(runs)) as arriving:
                async for scored, crew in arriving:
                    waiting.append((asyncio.ensure_future(there(scored)), crew))
                    if len(waiting) > 1:
                        await finish()
            while waiting:
                await finish()
        finally:
            for one, _ in waiting:
                one.cancel()
            await asyncio.gather(*(one for one, _ in waiting), return_exceptions=True)
        return board.device, board.runtime


async def _in_thread(runs: Runs) -> AsyncGenerator[tuple[Scored, Crew], None]:
    """Wait for each result in a thread, so that the board is served meanwhile."""
    end = object()
    try:
        while True:
            waiting = asyncio.ensure_future(asyncio.to_thread(next, runs, end))
            try:
                item = await asyncio.shield(waiting)
            except asyncio.CancelledError:
                await asyncio.wait([waiting])  # the iterator must not be closed while the thread is in it
                raise
            if item is end:
                return
            yield item  # type: ignore[misc]
    finally:
        close = getattr(runs, "close", None)
        if close is not None:
            close()


def _with_board(scored: Scored, theirs: Scores, model: Classifier, tasks: Sequence[Task], seconds: float) -> Scored:
    """Put what the board said in the place of what the same file said here, and how they differ beside it."""
    raw = scored.raw
    if raw is None:
        return scored
    task = next(task for task in tasks if task.start == scored.start)
    known = np.array([task.labels[position - task.start] for position in scored.positions], np.int32)
    found, q = judge(theirs, known, model, task.allowed)
    _, p = judge(raw.baseline, known, task.baseline, task.allowed)
    kernels = np.full((len(known), 3), np.nan)
    if raw.model is not None:
        host = probabilities(raw.model, logits=model.logits)
        board = probabilities(theirs, logits=model.logits)
        kernels[:, 0] = raw.model.argmax(axis=1) == theirs.argmax(axis=1)
        kernels[:, 1] = (raw.model == theirs).all(axis=1)
        kernels[:, 2] = np.abs(host - board).max(axis=1)
    return replace(
        scored,
        models=(found,),
        divergences=(divergences(p, q),),
        kernels=kernels,
        seconds=(scored.seconds[0], scored.seconds[1], seconds),
    )
