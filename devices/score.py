"""A model's scores from the board that will run it: pixels go there compressed, raw scores come back.

One process of the runner runs all images, so the model is loaded, and an Edge TPU given its parameters, once. Images go
one by one into its standard input and their scores come as events, in the same order. Only so many are on their way at
any time, so memory here and there does not depend on how many there are; while the board runs one, the next are sent.

What the scores mean and which images they are of is left to who asks. `runner` is what runs there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeeff.devices import events, runner, setup
from edgeeff.devices import transport as transports
from edgeeff.devices.events import Event
from edgeeff.devices.profile import START_LIMIT_S, Connect, Delegate, files_on, how_it_ended
from edgeeff.devices.targets import Target
from edgeeff.devices.transport import Lines, Within
from edgeeff.errors import DeviceError, EdgeeffError, InputError, ModelError
from edgeeff.results import Device, ModelFile, Runtime, TensorContract

WINDOW = 32
"""Images that may be on their way, sent and not scored yet."""
IMAGE_LIMIT_S = 60.0
"""How long one image may take, on its way and in the model: an emulated board runs a B0 in 2 s, a slow radio link takes
10 s for 100 kB."""
END_LIMIT_S = 10.0
"""Time for a process that has no more to do."""

Result = TypeVar("Result")
Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


@asynccontextmanager
async def scoring(
    target: Target,
    model: Path,
    *,
    threads: int = 1,
    delegate: Delegate = "auto",
    keep: bool = False,
    table: npt.NDArray[Any] | None = None,
    connect: Connect | None = None,
    device: Device | None = None,
) -> AsyncIterator[Scorer]:
    """Load a model on a target and give what scores images with it; at the end nothing is left there.

    `table` (256, 3) has what the model takes, as it is stored, for every pixel value of every channel. Without one
    pixels are taken as they are, less 128 for int8. With `keep`, model and runner stay there for the next time. With
    `device` nobody asks the board who it is.

    Raises ModelError for a model that cannot be read, loaded or given images, InputError for a table that does not
    fit, DeviceError and its kinds when the board cannot be reached or has no runtime, delegate or memory.
    """
    try:
        file = ModelFile.of(model)
    except OSError as error:
        raise ModelError(f"cannot read the model {model}: {error.strerror}") from error
    options: dict[str, Any] = {"mode": "score", "threads": threads, "delegate": delegate, "table": _encoded(table)}
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context((connect or transports.connect)(target))
        program = await stack.enter_async_context(setup.runner_on(transport, cache=keep))
        if device is None:
            board = await setup.ready(transport, target, program)
            python, device = board.python, board.probe.device
        else:
            python = await setup.find_python(transport, target)
        there = await stack.enter_async_context(files_on(transport, target, [file], keep=keep))
        path = there[file.path]
        frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        command = [python, program, json.dumps(options | {"model": path})]
        running = transport.stream(command, stdin=_until_none(frames), time_limit_s=math.inf)
        starting = Within(f"loading {file.path} on {target.name}", START_LIMIT_S)
        said = _Said(await starting(stack.enter_async_context(running)), target, file, path)
        scorer = await starting(_started(said, device, frames))
        try:
            yield scorer
            with suppress(DeviceError):  # the scores are there; the process is ended if it does not end by itself
                await scorer.close()
        finally:
            await scorer.stop()


class Scorer:
    """A model that is loaded on a board.

    `device` and `runtime` are who runs it, with the delegate that is used; `input` and `output` are the model's as the
    runtime there describes them.
    """

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        input: TensorContract,  # noqa: A002 - so it is called
        output: TensorContract,
        said: _Said,
        frames: asyncio.Queue[bytes | None],
    ) -> None:
        self.device = device
        self.runtime = runtime
        self.input = input
        self.output = output
        self.peak_rss_bytes: int | None = None
        """The most memory that the process there took; known when it has ended."""
        self._said = said
        self._frames = frames
        self._sent = 0
        self._places: asyncio.Queue[_Place] = asyncio.Queue()
        self._room = asyncio.Semaphore(WINDOW)
        self._sending = asyncio.Lock()
        self._listening = asyncio.ensure_future(self._listen())

    async def scores(self, pixels: Pixels) -> Scores:
        """Return the dequantized scores (n, classes) float32 of n images (n, height, width, 3) of uint8.

        Several calls at a time are answered in their order, and the board does not wait between them. Raises
        InputError for pixels of another shape or type than the model takes, DroppedError when the board is gone,
        TimeLimitError when an image takes longer than `IMAGE_LIMIT_S`, and DeviceError when the process there fails.
        """
        _, *size = self.input.shape
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or list(pixels.shape[1:]) != size:
            raise InputError(
                f"{self._said.file.path} takes images of {' x '.join(map(str, size))} uint8, "
                f"not {' x '.join(map(str, pixels.shape[1:]))} {pixels.dtype}"
            )
        batch = _Batch(np.empty((len(pixels), math.prod(self.output.shape[1:])), np.dtype(self.output.dtype)))
        async with self._sending:
            for row, image in enumerate(pixels):
                frame = await asyncio.to_thread(packed, image)
                await self._unless_it_fails(self._room.acquire())
                self._frames.put_nowait(runner.FRAME.pack(self._sent, len(frame)) + frame)
                self._places.put_nowait(_Place(self._sent, batch, row))
                self._sent += 1
        if len(pixels):
            await self._unless_it_fails(batch.whole.wait())
        raw = batch.raw.astype(np.float32)
        scale, zero_point = self.output.scale, self.output.zero_point
        if scale is None or zero_point is None:
            return raw
        result: Scores = (raw - zero_point) * np.float32(scale)
        return result

    async def close(self) -> None:
        """Let the process end by itself if it has nothing to do any more."""
        if self._places.empty() and not self._listening.done():
            await self.stop()
            self._frames.put_nowait(None)
            event = await Within(f"ending {self._said.what}", END_LIMIT_S)(self._said.last())
            self.peak_rss_bytes = event.get("peak_rss_bytes")

    async def stop(self) -> None:
        """Wait for no more scores."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _unless_it_fails(self, awaitable: Awaitable[Result]) -> Result:
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task, self._listening}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._listening.result()  # raises
            return task.result()
        finally:
            task.cancel()

    async def _listen(self) -> None:
        """Put scores to their places as they come; ends with what went wrong."""
        while True:
            place = await self._places.get()
            event = await Within(f"image {place.number} with {self._said.what}", IMAGE_LIMIT_S)(self._said.next())
            place.fill(self._said.scores(event, place.number))
            self._room.release()


@dataclass
class _Batch:
    """The raw scores of one call, which come row by row."""

    raw: npt.NDArray[Any]
    rows: int = 0
    whole: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Place:
    """Where the scores of one image belong."""

    number: int
    batch: _Batch
    row: int

    def fill(self, raw: bytes) -> None:
        row = self.batch.raw[self.row]
        if len(raw) != row.nbytes:
            raise DeviceError(f"the board sent {len(raw)} bytes of scores for image {self.number}, not {row.nbytes}")
        row[:] = np.frombuffer(raw, row.dtype)
        self.batch.rows += 1
        if self.batch.rows == len(self.batch.raw):
            self.batch.whole.set()


class _Said:
    """What the process says: its events one by one, its errors and its end as errors in the words of who asked."""

    def __init__(self, lines: Lines, target: Target, file: ModelFile, path: str) -> None:
        self.file = file
        self.what = f"{file.path} on {target.name}"
        self._lines = lines
        self._words = aiter(lines)
        self._target = target
        self._path = path
        self._other: deque[str] = deque(maxlen=5)
        self._first: list[Event] = []

    async def next(self) -> Event:
        """Wait for the next event; raises what it says is wrong, or how the process ended."""
        async for line in self._words:
            event = events.parse(line)
            if event is None:
                self._other.append(line)
                continue
            if problem := events.error(event):
                raise self._in_our_words(problem)
            if event["event"] != "scores":
                self._first.append(event)
            return event
        if self._lines.status:
            how = how_it_ended(self._lines.status, self._lines.stderr, self._first, self.file)
            raise DeviceError(f"{self.what} {how}")
        text = "".join(f"\n  {line[:200]}" for line in self._other) or " nothing"
        raise DeviceError(f"{self.what} ended too soon; it said:{text}")

    async def last(self) -> Event:
        """Wait for the end; return the last event."""
        event = await self.next()
        while event["event"] != "done":
            event = await self.next()
        async for _ in self._words:
            continue
        return event

    def scores(self, event: Event, number: int) -> bytes:
        """Return the raw scores of an event, which has to be that image's."""
        try:
            if (event["event"], event["number"]) == ("scores", number):
                return base64.b64decode(event["raw"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            pass
        raise DeviceError(f"{self.what}: not the scores of image {number} but {json.dumps(event)[:200]}")

    def _in_our_words(self, error: EdgeeffError) -> EdgeeffError:
        text = str(error).replace(self._path, self.file.path)
        return type(error)(text if self._target.address is None else f"{self._target.name}: {text}")


async def _started(said: _Said, device: Device, frames: asyncio.Queue[bytes | None]) -> Scorer:
    import msgspec

    event = await said.next()
    told = dict(event)
    while event["event"] != "ready":
        event = await said.next()
        told |= event
    try:
        runtime = Runtime(told["runtime"], told["version"], told["delegate"])
        given, result = (msgspec.convert(told[name], TensorContract) for name in ("input", "output"))
    except (KeyError, msgspec.ValidationError) as error:
        raise DeviceError(f"{said.what}: what it said is not understood ({error}); is its runner ours?") from error
    return Scorer(device, runtime, given, result, said, frames)


async def _until_none(frames: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (frame := await frames.get()) is not None:
        yield frame


def packed(image: Pixels) -> bytes:
    """Return an image (height, width, 3) as the runner's `pixels_of` reads it: the differences, compressed.

    Runs of one value are all that is looked for: with differences that finds as much as searching does, in half the
    time.
    """
    rest = image.copy()
    rest[..., ::2] -= image[..., 1:2]
    rest[:, 1:] -= rest[:, :-1]
    rest[1:] -= rest[:-1]
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return compressor.compress(rest.tobytes()) + compressor.flush()


def _encoded(table: npt.NDArray[Any] | None) -> str:
    if table is None:
        return ""
    if table.shape != (256, 3):
        raise InputError(f"the table of what the model takes has to be 256 x 3, not {table.shape}")
    return base64.b64encode(table.astype("<f4").tobytes()).decode("ascii")


# --- For code that is not asynchronous --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Background:
    """A scorer in a thread of its own: submit the next batch while the board is busy with the one before."""

    scorer: Scorer
    _loop: asyncio.AbstractEventLoop

    def submit(self, pixels: Pixels) -> futures.Future[Scores]:
        """Begin with a batch; its future has, or raises, what `Scorer.scores` does."""
        return asyncio.run_coroutine_threadsafe(self.scorer.scores(pixels), self._loop)


@contextmanager
def in_background(context: AbstractAsyncContextManager[Scorer]) -> Iterator[Background]:
    """Enter what `scoring` returned in a thread, and leave it at the end; raises what it raises."""
    started: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None, asyncio.Event]] = (
        futures.Future()
    )
    opened: futures.Future[Scorer] = futures.Future()

    async def hold() -> None:
        enough = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), asyncio.current_task(), enough))
        async with context as scorer:
            opened.set_result(scorer)
            await enough.wait()

    with futures.ThreadPoolExecutor(1, "edgeeff-score") as threads:
        held = threads.submit(lambda: asyncio.run(hold()))
        loop, task, enough = started.result()
        try:
            either: list[futures.Future[Any]] = [opened, held]
            futures.wait(either, return_when=futures.FIRST_COMPLETED)
            if not opened.done():
                held.result()  # raises
            yield Background(opened.result(), loop)
        except BaseException:
            if task is not None:
                with suppress(RuntimeError):  # it may be over
                    loop.call_soon_threadsafe(task.cancel)
            raise
        loop.call_soon_threadsafe(enough.set)
        held.result()
