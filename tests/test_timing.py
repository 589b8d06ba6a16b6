"""Times are ratios to the float file's, here and on boards, which drift and may be lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeeff.converters import timing
from edgeeff.converters.timing import Here, OnBoard
from edgeeff.devices import targets, transport
from edgeeff.devices.targets import Target
from edgeeff.errors import DeviceError, DroppedError, InputError, UnknownNameError
from edgeeff.results import this_device
from tests import tiny
from tests.scripted import Answer, Lab, story

FLOAT = b"the float file"
IMAGE = tiny.images(1, size=16)[0]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    """A board that takes 10 ms for the float file and a millisecond for each letter of others."""

    def make(disturbed: Callable[[int], float | BaseException] = lambda number: 1.0) -> Lab:
        def answer(options: dict[str, Any], number: int) -> Answer:
            content = made.boards["pi4"].files[options["model"]]
            factor = disturbed(number)
            if isinstance(factor, BaseException):
                return Answer(story()[:2], raises=factor)
            return Answer(story((0.01 if content == FLOAT else len(content) / 1000) * factor))

        made = Lab.of("pi4", answer=answer)
        monkeypatch.setattr(transport, "connect", made.connect)
        monkeypatch.setattr(timing, "PAUSES_S", (0.0, 0.0, 0.0))
        return made

    return make


def target(lab: Lab) -> Target:
    (found,) = lab.targets
    return found


# --- Here -------------------------------------------------------------------------------------------------------------


def test_a_file_is_timed_here_in_turn_with_the_float_file() -> None:
    here = Here(tiny.swish_classifier(), IMAGE)
    assert (here.on.target, here.on.threads, here.on.device) == ("local", 1, this_device())
    assert here.float_s > 0
    same, less = here.times([tiny.swish_classifier(), tiny.classifier(size=16)], repeats=3)
    assert same == here.float_s
    assert 0 < less < here.float_s  # one convolution instead of ten


def test_files_are_made_when_it_is_their_turn() -> None:
    made: list[int] = []

    def contents() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield tiny.classifier(size=16)

    times = Here(tiny.classifier(size=16), IMAGE).times(contents())
    assert made == []
    next(times)
    assert made == [0]


# --- On a board -------------------------------------------------------------------------------------------------------


def test_a_board_tells_what_files_take_and_keeps_none(lab: Callable[..., Lab]) -> None:
    board = lab()
    timer = OnBoard(FLOAT, target(board), threads=4)
    assert timer.float_s == pytest.approx(0.01)
    assert (timer.on.target, timer.on.threads) == ("pi4", 4)
    assert timer.on.device.name == "Raspberry Pi 4 Model B Rev 1.4"
    assert timer.on.runtime is not None
    assert timer.on.runtime.name == "tflite-runtime"
    contents = [b"x" * length for length in range(1, 31)]
    assert list(timer.times(contents)) == pytest.approx([length / 1000 for length in range(1, 31)])
    there = board.boards["pi4"]
    assert {options["threads"] for options in there.asked} == {4}
    assert there.files == {}


def test_a_few_files_are_on_the_board_at_a_time(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    board = lab()
    most = 0
    put = type(board.boards["pi4"]).put

    async def watched(self: Any, *args: Any, **options: Any) -> None:
        nonlocal most
        await put(self, *args, **options)
        most = max(most, sum(path.endswith(".tflite") for path in self.files))

    monkeypatch.setattr(type(board.boards["pi4"]), "put", watched)
    monkeypatch.setattr(timing, "BYTES_AT_ONCE", 30)
    list(OnBoard(FLOAT, target(board)).times([bytes([number]) * 20 for number in range(9)]))
    assert most == 1 + 2
    asked = [options["model"] for options in board.boards["pi4"].asked]
    assert len(asked) == timing.FIRST + 9 + 5


def test_drift_is_taken_out(lab: Callable[..., Lab]) -> None:
    # From one batch to the next it gets slower by a half.
    slower = lab(lambda number: 1.0 if number <= timing.FIRST else 1.5 ** ((number - timing.FIRST - 1) // 13))
    times = OnBoard(FLOAT, target(slower)).times([b"x" * 5] * 24)
    assert list(times) == pytest.approx([0.005] * 24)


def test_a_board_that_comes_back_is_gone_on_with(lab: Callable[..., Lab]) -> None:
    lost = DroppedError("the connection to pi4 was lost")
    board = lab(lambda number: lost if number == timing.FIRST + 2 else 1.0)
    assert list(OnBoard(FLOAT, target(board)).times([b"xx", b"xxx"])) == pytest.approx([0.002, 0.003])
    # What was measured before it went away is not measured again.
    assert len(board.boards["pi4"].asked) == timing.FIRST + 3 + 1


def test_a_board_that_stays_away_is_an_error_of_the_device(lab: Callable[..., Lab]) -> None:
    board = lab(lambda number: DroppedError("the connection was lost") if number > timing.FIRST else 1.0)
    timer = OnBoard(FLOAT, target(board))
    with pytest.raises(DroppedError, match="lost; nothing was written, and files that were there are as they were"):
        list(timer.times([b"xx"]))
    assert len(board.boards["pi4"].asked) == timing.FIRST + len(timing.PAUSES_S)


def test_a_board_that_is_not_there_is_not_waited_for(lab: Callable[..., Lab]) -> None:
    board = lab(lambda number: DroppedError("the connection was lost"))
    with pytest.raises(DroppedError):
        OnBoard(FLOAT, target(board))
    assert len(board.boards["pi4"].asked) == 1


def test_what_fails_for_another_reason_is_not_tried_again(lab: Callable[..., Lab]) -> None:
    board = lab(lambda number: DeviceError("out of memory") if number > timing.FIRST else 1.0)
    with pytest.raises(DeviceError, match="out of memory"):
        list(OnBoard(FLOAT, target(board)).times([b"xx"]))
    assert len(board.boards["pi4"].asked) <= timing.FIRST + 2


# --- Which board ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    targets.add(Target("desk", "ssh://pi@desk", board="coral-dev-board"))
    targets.add(Target("pi4", "ssh://pi@pi4", board="raspberry-pi-4"))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["desk", "coral-dev-board", "coral-usb-on-pi"])
def test_an_edge_tpu_gets_full_int8_only(name: str) -> None:
    with pytest.raises(InputError, match=r"an accelerator, Edge TPU .*full int8 only: convert with --edge-tpu"):
        timing.board(name)


@pytest.mark.usefixtures("own")
def test_boards_are_found_by_name() -> None:
    assert timing.board("pi4").address is not None
    assert timing.board("local") == targets.LOCAL
    with pytest.raises(InputError, match="facts about, not one that it can reach"):
        timing.board("raspberry-pi-4")
    with pytest.raises(UnknownNameError, match="did you mean pi4"):
        timing.board("pi5")


def test_here_is_not_measured_as_a_board_is(lab: Callable[..., Lab]) -> None:
    assert isinstance(timing.timer(tiny.classifier(size=16), IMAGE, targets.LOCAL, 2), Here)
    assert isinstance(timing.timer(FLOAT, IMAGE, target(lab()), 2), OnBoard)
