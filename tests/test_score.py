"""Scores from a board are those of this machine, to the bit; and what is said when they do not come."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeeff import demo
from edgeeff.calibration import images
from edgeeff.converters.float_model import finish
from edgeeff.converters.quantize import IoType, quantize
from edgeeff.converters.runtime import Session, runtime
from edgeeff.converters.schemes import SCHEMES
from edgeeff.devices import runner, score
from edgeeff.devices.score import in_background, packed, scoring
from edgeeff.devices.targets import LOCAL, Target
from edgeeff.devices.transport import Input
from edgeeff.errors import DeviceError, DroppedError, EdgeeffError, InputError, ModelError, TimeLimitError
from edgeeff.results import this_device
from tests import tiny
from tests.boards import board, gone, in_a_loop
from tests.scripted import EDGE_TPU_LIBRARY, Answer, Event, Lab

IMAGES = np.stack(tiny.images(40))
LOADED: list[Event | str] = [
    "a noisy .bashrc",
    {"event": "imported", "runtime": "tflite-runtime", "version": "2.14.0"},
    {"event": "loaded", "delegate": "xnnpack"},
    {
        "event": "ready",
        "input": {"name": "pixels", "shape": [1, 8, 8, 3], "dtype": "uint8", "scale": None, "zero_point": None},
        "output": {"name": "scores", "shape": [1, 3], "dtype": "uint8", "scale": 0.5, "zero_point": 10},
    },
]


def made(input_type: IoType, output_type: IoType) -> bytes:
    model = finish(tiny.classifier())
    return quantize(model, SCHEMES["float32"], None, input_type=input_type, output_type=output_type)


def here(content: bytes, pixels: npt.NDArray[np.uint8] = IMAGES) -> npt.NDArray[np.float32]:
    session = Session(content)
    return np.stack([session.run(image) for image in pixels])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny.classifier())
    return path


# --- For real ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: made("float32", "float32"),
        lambda: made("int8", "uint8"),
        lambda: made("uint8", "int8"),
    ],
    ids=["float32", "int8", "uint8"],
)
@in_a_loop
async def test_scores_are_those_of_this_machine(model: Path, make: Callable[[], bytes]) -> None:
    model.write_bytes(make())
    async with scoring(LOCAL, model, device=this_device()) as scorer:
        first, rest = await asyncio.gather(scorer.scores(IMAGES[:15]), scorer.scores(IMAGES[15:]))
        assert scorer.device == this_device()
        assert scorer.runtime == runtime()
        session = Session(model.read_bytes())
        assert (scorer.input, scorer.output) == (session.input, session.output)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([first, rest]), here(model.read_bytes()))
    assert scorer.peak_rss_bytes is not None  # so the process came to its end by itself


@in_a_loop
async def test_a_table_says_what_the_model_takes(model: Path) -> None:
    model.write_bytes(tiny.classifier(preprocessing=()))
    mean, std = np.array([120.0, 110.0, 100.0]), np.array([50.0, 60.0, 70.0])
    table = ((np.arange(256)[:, None] - mean) / std).astype(np.float32)
    table[IMAGES[0, 0, 0, 0], 0] = np.inf
    async with scoring(LOCAL, model, device=this_device(), table=table) as scorer:
        scores = await scorer.scores(IMAGES[:5])
    expected = [tiny.run(model.read_bytes(), table[image, np.arange(3)]) for image in IMAGES[:5]]
    np.testing.assert_array_equal(scores, expected)
    assert not np.isfinite(scores[0]).any()  # what is no number is passed on, too


@in_a_loop
async def test_a_board_over_ssh(model: Path, tmp_path: Path, ssh_home: Path) -> None:
    async with board(tmp_path / "board", ssh_home) as there:
        (there.home / "tmp").mkdir()
        there.environment["TMPDIR"] = str(there.home / "tmp")
        there.noisy("echo 'Welcome to the board!'; echo 'MOTD' >&2")
        target = Target("pi", there.target().url, python=sys.executable, emulated=True)

        def there_are() -> list[str]:
            return [path.name for path in there.home.rglob("*") if path.is_file() and path.name != "noise"]

        # Nobody says who it is, so it is asked.
        async with scoring(target, model) as scorer:
            assert scorer.device.emulated
            np.testing.assert_array_equal(await scorer.scores(IMAGES), here(model.read_bytes()))
        assert there_are() == []

        # Its memory runs out.
        async with scoring(target, model, device=this_device(), keep=True) as scorer:
            await scorer.scores(IMAGES[:2])
            os.killpg(there.processes[-1].pid, signal.SIGKILL)
            with pytest.raises(DeviceError, match=r"m\.tflite on pi ended with SIGKILL: .* memory runs out\. The file"):
                await scorer.scores(IMAGES)
            with pytest.raises(DeviceError, match="ended with SIGKILL"):
                await scorer.scores(IMAGES)
        assert len(there_are()) == 2  # model and runner

        # It loses its power.
        async with scoring(target, model, device=this_device(), keep=True) as scorer:
            kept = await scorer.scores(IMAGES[:2])
            later = asyncio.ensure_future(scorer.scores(np.repeat(IMAGES, 100, axis=0)))
            await asyncio.sleep(0.01)
            there.cut()
            with pytest.raises(DroppedError, match="pi: the connection was lost"):
                await later
        np.testing.assert_array_equal(kept, here(model.read_bytes(), IMAGES[:2]))
        await gone(there.processes[-1].pid)


# --- The runner's words -----------------------------------------------------------------------------------------------


async def corners(stdin: Input) -> AsyncIterator[Event | str]:
    """A model whose raw scores are the pixel in the corner."""
    assert isinstance(stdin, AsyncIterable)
    number = 0
    async for frame in stdin:
        assert runner.FRAME.unpack(frame[: runner.FRAME.size]) == (number, len(frame) - runner.FRAME.size)
        pixels = runner.pixels_of(frame[runner.FRAME.size :], (8, 8, 3))
        yield scores_event(number, pixels[0, 0].tobytes())
        number += 1
    yield {"event": "done", "images": number, "peak_rss_bytes": 12345}


def scores_event(number: int, raw: bytes) -> Event:
    return {"event": "scores", "number": number, "raw": base64.b64encode(raw).decode()}


def expected(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    corner: npt.NDArray[np.uint8] = pixels[:, 0, 0]
    return ((corner.astype(np.float32) - 10) * 0.5).astype(np.float32)


def says(*words: Event | str, status: int = 0, stderr: str = "", raises: BaseException | None = None) -> Answer:
    """A board that says this to the first image."""

    async def answers(stdin: Input) -> AsyncIterator[Event | str]:
        assert isinstance(stdin, AsyncIterable)
        async for _ in stdin:
            for word in words:
                yield word
            return

    return Answer(LOADED, status, stderr, raises, answers)


def scripted(answer: Answer) -> tuple[Lab, Target]:
    lab = Lab.of("pi", answer=lambda options, number: answer)
    return lab, lab.targets[0]


@in_a_loop
async def test_the_process_gets_what_was_asked_for(model: Path) -> None:
    lab, target = scripted(Answer(LOADED, answers=corners))
    table = np.arange(768).reshape(256, 3)
    async with scoring(target, model, threads=3, delegate="edgetpu", table=table, connect=lab.connect) as scorer:
        assert scorer.device.name == "Raspberry Pi 4 Model B Rev 1.4"
        assert (scorer.runtime.name, scorer.runtime.version) == ("tflite-runtime", "2.14.0")
        np.testing.assert_array_equal(await scorer.scores(IMAGES), expected(IMAGES))
        assert (await scorer.scores(IMAGES[:0])).shape == (0, 3)
    (asked,) = lab.boards["pi"].asked
    assert {name: asked[name] for name in ("mode", "threads", "delegate")} == {
        "mode": "score",
        "threads": 3,
        "delegate": "edgetpu",
    }
    assert np.array_equal(np.frombuffer(base64.b64decode(asked["table"]), "<f4").reshape(256, 3), table)
    assert lab.boards["pi"].files == {}
    assert scorer.peak_rss_bytes == 12345


@in_a_loop
async def test_few_images_are_on_their_way_at_a_time(model: Path) -> None:
    arrived = 0
    full, go_on = asyncio.Event(), asyncio.Event()

    async def slow(stdin: Input) -> AsyncIterator[Event | str]:
        nonlocal arrived
        assert isinstance(stdin, AsyncIterable)
        async for _ in stdin:
            arrived += 1
            if arrived == score.WINDOW:
                full.set()
                await go_on.wait()
                for number in range(score.WINDOW):
                    yield scores_event(number, bytes(3))
            elif arrived > score.WINDOW:
                yield scores_event(arrived - 1, bytes(3))

    lab, target = scripted(Answer(LOADED, answers=slow))
    async with scoring(target, model, device=this_device(), connect=lab.connect) as scorer:
        many = [asyncio.ensure_future(scorer.scores(IMAGES)) for _ in range(3)]
        await full.wait()
        await asyncio.sleep(0.02)
        assert scorer._frames.empty()  # nothing more waits to be sent
        go_on.set()
        for batch in many:
            assert (await batch).shape == (40, 3)
    assert arrived == 120


@in_a_loop
async def test_who_does_not_wait_any_more_disturbs_nobody(model: Path) -> None:
    lab, target = scripted(Answer(LOADED, answers=corners))
    async with scoring(target, model, device=this_device(), connect=lab.connect) as scorer:
        first = asyncio.ensure_future(scorer.scores(IMAGES))
        while scorer._sent < 5:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(scorer.scores(IMAGES[::-1]))
        first.cancel()
        np.testing.assert_array_equal(await second, expected(IMAGES[::-1]))
        assert first.cancelled()


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((2, 9, 8, 3), np.uint8), r"m\.tflite takes images of 8 x 8 x 3 uint8, not 9 x 8 x 3 uint8"),
        (np.zeros((2, 8, 8, 3), np.float32), "not 8 x 8 x 3 float32"),
        (np.zeros((8, 8, 3), np.uint8), "not 8 x 3 uint8"),
    ],
)
@in_a_loop
async def test_other_pixels_are_refused(model: Path, pixels: npt.NDArray[Any], words: str) -> None:
    lab, target = scripted(Answer(LOADED, answers=corners))
    async with scoring(target, model, device=this_device(), connect=lab.connect) as scorer:
        with pytest.raises(InputError, match=words):
            await scorer.scores(pixels)
        np.testing.assert_array_equal(await scorer.scores(IMAGES[:1]), expected(IMAGES[:1]))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (says(scores_event(1, bytes(3))), DeviceError, "on pi: not the scores of image 0 but"),
        (says({"event": "done"}), DeviceError, "not the scores of image 0 but {"),
        (says({"event": "scores", "number": 0, "raw": "?"}), DeviceError, "not the scores of image 0"),
        (says({"event": "scores", "number": 0}), DeviceError, "not the scores of image 0"),
        (says(scores_event(0, bytes(4))), DeviceError, "sent 4 bytes of scores for image 0, not 3"),
        (says("Segmentation fault"), DeviceError, r"on pi ended too soon; it said:(\n.*)*\n  Segmentation fault"),
        (says(status=-11, stderr="a crash"), DeviceError, "on pi failed with SIGSEGV:\na crash"),
        (says(status=137), DeviceError, "ended with SIGKILL"),
        (
            replace(says(status=-11), said=[EDGE_TPU_LIBRARY, *LOADED]),
            DeviceError,
            "crashed with SIGSEGV while it ran on the Edge TPU",
        ),
        (says(raises=DroppedError("pi: the connection was lost")), DroppedError, "the connection was lost"),
        (says({"event": "error", "kind": "run", "message": "cannot run"}), DeviceError, "pi: cannot run"),
    ],
)
@in_a_loop
async def test_what_goes_wrong_is_said(model: Path, answer: Answer, error: type[EdgeeffError], words: str) -> None:
    lab, target = scripted(answer)
    async with scoring(target, model, device=this_device(), connect=lab.connect) as scorer:
        both = (scorer.scores(np.repeat(IMAGES, 2, axis=0)), scorer.scores(IMAGES))
        for result in await asyncio.gather(*both, return_exceptions=True):
            assert type(result) is error
            with pytest.raises(error, match=words):
                raise result
    assert lab.boards["pi"].files == {}


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ([{"event": "error", "kind": "runtime", "message": "none"}], DeviceError, "pi: none"),
        ([{"event": "error", "kind": "edgetpu-device", "message": "no Edge TPU"}], DeviceError, "pi: no Edge TPU"),
        ([{"event": "error", "kind": "memory", "message": "memory ran out"}], DeviceError, "pi: memory ran out"),
        ([{"event": "error", "kind": "usage", "message": "table"}], InputError, "pi: table"),
        (["hm"], DeviceError, "ended too soon; it said:\n  hm"),
        ([*LOADED[2:]], DeviceError, r"is not understood \('runtime'\)"),
        ([*LOADED[:3], LOADED[3] | {"input": 1}], DeviceError, "is not understood"),  # type: ignore[operator]
    ],
)
@in_a_loop
async def test_what_does_not_begin_is_said(
    model: Path, said: list[Event | str], error: type[EdgeeffError], words: str
) -> None:
    lab, target = scripted(Answer(said))
    with pytest.raises(error, match=words):
        async with scoring(target, model, device=this_device(), connect=lab.connect):
            pass
    assert lab.boards["pi"].files == {}


@in_a_loop
async def test_messages_have_our_name_of_the_model(model: Path) -> None:
    def answer(options: dict[str, Any], _number: int) -> Answer:
        return Answer([{"event": "error", "kind": "model", "message": f"the runtime cannot load {options['model']}"}])

    lab = Lab.of("pi", answer=answer)
    with pytest.raises(ModelError, match=f"pi: the runtime cannot load {model}"):
        async with scoring(lab.targets[0], model, device=this_device(), connect=lab.connect):
            pass


@in_a_loop
async def test_a_board_that_hangs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(stdin: Input) -> AsyncIterator[Event | str]:
        async for event in corners(stdin):
            if isinstance(event, dict) and event["number"] == 3:
                await asyncio.sleep(60)
            yield event

    lab, target = scripted(Answer(LOADED, answers=hang))
    async with scoring(target, model, device=this_device(), connect=lab.connect) as scorer:
        np.testing.assert_array_equal(await scorer.scores(IMAGES[:3]), expected(IMAGES[:3]))
        monkeypatch.setattr(score, "IMAGE_LIMIT_S", 0.1)
        await asyncio.sleep(0.2)  # nobody waits for anything
        with pytest.raises(TimeLimitError, match=r"image 3 with .*m\.tflite on pi took longer than 0\.1 s"):
            await scorer.scores(IMAGES)


@in_a_loop
async def test_a_board_that_never_begins(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "START_LIMIT_S", 0.1)
    lab, target = scripted(Answer(LOADED[:2], answers=corners))
    with pytest.raises(TimeLimitError, match=r"loading .*m\.tflite on pi took longer than 0\.1 s"):
        async with scoring(target, model, device=this_device(), connect=lab.connect):
            pass


@in_a_loop
async def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent(model: Path, tmp_path: Path) -> None:
    lab, target = scripted(Answer(LOADED))
    with pytest.raises(ModelError, match=r"cannot read the model .*missing\.tflite: No such file"):
        async with scoring(target, tmp_path / "missing.tflite", connect=lab.connect):
            pass
    with pytest.raises(InputError, match=r"has to be 256 x 3, not \(256,\)"):
        async with scoring(target, model, table=np.arange(256), connect=lab.connect):
            pass
    assert lab.boards["pi"].puts == []


# --- Images on their way ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_an_image_arrives_as_it_was(image: npt.NDArray[np.uint8]) -> None:
    before = image.copy()
    arrived = runner.pixels_of(packed(image), (image.shape[0], image.shape[1], 3))
    np.testing.assert_array_equal(arrived, image)
    np.testing.assert_array_equal(image, before)
    assert arrived.dtype == np.uint8


def test_photographs_are_packed_better_than_by_compression_alone() -> None:
    photographs = [images.load(path, 224, 224) for path in demo.photographs()]
    assert photographs
    alone = sum(len(zlib.compress(photograph.tobytes())) for photograph in photographs)
    assert sum(len(packed(photograph)) for photograph in photographs) < 0.7 * alone


# --- Without asyncio --------------------------------------------------------------------------------------------------


def test_in_the_background_batches_are_answered_in_order(model: Path) -> None:
    lab, target = scripted(Answer(LOADED, answers=corners))
    with in_background(scoring(target, model, device=this_device(), connect=lab.connect)) as there:
        assert there.scorer.input.shape == (1, 8, 8, 3)
        waiting = [there.submit(IMAGES[start : start + 10]) for start in range(0, 40, 10)]
        np.testing.assert_array_equal(np.concatenate([one.result(10) for one in waiting]), expected(IMAGES))
        with pytest.raises(InputError):
            there.submit(IMAGES[0]).result(10)
    assert there.scorer.peak_rss_bytes == 12345
    assert lab.open == 0


def test_in_the_background_what_goes_wrong_is_raised(model: Path) -> None:
    lab, target = scripted(says(raises=DroppedError("gone")))
    with pytest.raises(ModelError, match="cannot read the model"), in_background(scoring(LOCAL, model / "missing")):
        pass
    with (
        pytest.raises(DroppedError, match="gone"),
        in_background(scoring(target, model, device=this_device(), connect=lab.connect)) as there,
    ):
        there.submit(IMAGES).result(10)
    assert lab.open == 0


def test_who_is_interrupted_in_between_leaves_nothing(model: Path) -> None:
    async def never(stdin: Input) -> AsyncIterator[Event | str]:
        await asyncio.sleep(60)
        yield "too late"

    lab, target = scripted(Answer(LOADED, answers=never))
    with (
        pytest.raises(KeyboardInterrupt),
        in_background(scoring(target, model, device=this_device(), connect=lab.connect)) as there,
    ):
        waiting = there.submit(IMAGES)
        raise KeyboardInterrupt
    assert waiting.cancelled()
    assert lab.open == 0
    assert lab.boards["pi"].files == {}
