"""What was measured so far, process by process, so that an interrupted measurement can go on where it ended.

One file of JSON lines for a board, beside the records: a line is a process that came to its end, with what it was
asked for. Lines are added at once and whole; a last one that is broken, because the disk was full or the power went,
is as if it were not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeeff.devices.events import Event
from edgeeff.errors import OutputError

Key = dict[str, Any]
"""What has to be the same for a process to count: file, device, runtime, threads and options, in JSON's types."""


class Partial:
    """The finished processes of one board; `resume` keeps those that an earlier measurement left."""

    def __init__(self, folder: Path, target: str, *, resume: bool) -> None:
        self.path = folder / f"{target}.partial.jsonl"
        self._found: list[tuple[Key, list[Event]]] = []
        try:
            if resume:
                self._read()
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot use {self.path}: {error.strerror}; choose another place with --output"
            ) from error

    def found(self, key: Key) -> list[list[Event]]:
        """Return what the processes of an earlier measurement said, in their order."""
        wanted = _plain(key)
        return [said for known, said in self._found if known == wanted]

    def keep(self, key: Key, said: list[Event]) -> None:
        """Add a process; raises OutputError when it cannot be written."""
        line = json.dumps({"key": key, "events": said}, ensure_ascii=False) + "\n"
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(line)
        except OSError as error:
            raise OutputError(
                f"cannot keep what was measured in {self.path}: {error.strerror}; choose another place with --output"
            ) from error

    def remove(self) -> None:
        """Remove the file: everything is in records now."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        whole = []
        for line in text.split("\n"):
            try:
                entry = json.loads(line)
                self._found.append((dict(entry["key"]), list(entry["events"])))
            except (KeyError, TypeError, ValueError):
                continue
            whole.append(line)
        if text and "\n".join([*whole, ""]) != text:  # the next line must not be added to a broken one
            self.path.write_text("\n".join([*whole, ""]), encoding="utf-8")


def _plain(key: Key) -> Key:
    plain: Key = json.loads(json.dumps(key))
    return plain
