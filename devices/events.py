"""What the runner says, line by line: its events among whatever else a board prints, and its errors as ours.

How the lines come here, from a local process or over SSH, is left to the transports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from edgeeff.errors import DeviceError, EdgeeffError, InputError, ModelError

Event = dict[str, Any]

KINDS: dict[str, type[EdgeeffError]] = {
    "image": InputError,
    "usage": InputError,
    "model": ModelError,
    "operator": ModelError,
    "edgetpu-model": ModelError,
}
"""Errors that are not the board's."""


def parse(line: str) -> Event | None:
    """Return the event of a line; None when it is none: a login banner, a noisy .bashrc, a library's message."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def error(event: Event) -> EdgeeffError | None:
    """Return what an error event says as one of our errors; None when it is another event."""
    if event["event"] != "error":
        return None
    cls = KINDS.get(str(event.get("kind")), DeviceError)
    return cls(str(event.get("message", "the runner failed without saying why")))


def read(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of lines; an error event is raised as ModelError, InputError or DeviceError."""
    for line in lines:
        event = parse(line)
        if event is None:
            continue
        problem = error(event)
        if problem is not None:
            raise problem
        yield event
