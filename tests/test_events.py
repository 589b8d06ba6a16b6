"""What the runner says, found among what else a board prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeeff.devices import events, runner
from edgeeff.errors import DeviceError, EdgeeffError, InputError, ModelError


def said(event: str, **fields: Any) -> str:
    return json.dumps({"event": event, **fields})


@pytest.mark.parametrize(
    "noise",
    ["", "Welcome to Debian!", "{", '{"motd": 1}', "[1, 2]", "3", '"event"', '{"event": 5}', "NaN", "\x1b[0m", "\0"],
)
def test_noise_is_no_event(noise: str) -> None:
    assert events.parse(noise) is None
    assert list(events.read([noise, said("warm", runs=3), noise])) == [{"event": "warm", "runs": 3}]


def test_what_the_runner_sends_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    runner.send("latencies", at_s=1.5, latencies_s=[0.25])
    line = capsys.readouterr().out
    assert events.parse(line) == {"event": "latencies", "at_s": 1.5, "latencies_s": [0.25]}


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("model", ModelError),
        ("operator", ModelError),
        ("edgetpu-model", ModelError),
        ("image", InputError),
        ("usage", InputError),
        ("python", DeviceError),
        ("memory", DeviceError),
        ("one that is not known yet", DeviceError),
    ],
)
def test_an_error_is_raised_after_what_came_before(kind: str, cls: type[EdgeeffError]) -> None:
    reading = events.read([said("imported"), said("error", kind=kind, message="so it is"), said("done")])
    assert next(reading) == {"event": "imported"}
    with pytest.raises(EdgeeffError, match=r"^so it is$") as caught:
        next(reading)
    assert type(caught.value) is cls


def test_an_error_without_words_is_still_one() -> None:
    with pytest.raises(DeviceError, match="without saying why"):
        list(events.read([said("error")]))


def test_every_kind_is_one_that_the_runner_sends() -> None:
    source = Path(runner.__file__).read_text(encoding="utf-8")
    assert [kind for kind in events.KINDS if f'"{kind}"' not in source] == []
