"""Every error that edgeeff raises on purpose, and the exit code that each one means.

EdgeeffError
├── GateError            1  a gate or a budget said no
│   └── VerificationError   the file that was made does not hold what was promised
├── InputError           2  bad input or usage
│   ├── UnknownNameError    no such variant, scheme, target: the nearest names are suggested
│   ├── ModelError          a model that cannot be read or is no image classifier
│   ├── WeightsError        weights that cannot be had, read or fitted to the network
│   ├── CalibrationError    calibration images that cannot be used
│   ├── RecordError         a JSON record that cannot be read
│   └── OutputError         the result cannot be written where it was asked for
├── DeviceError          3  a board, a connection or a measuring process failed
│   ├── UnreachableError    no such host, no answer, refused
│   ├── HostKeyError        the board shows a key that is not known, or another one than it used to
│   ├── LoginError          the board does not accept the user or their keys
│   ├── DroppedError        the connection was lost while something ran; it may have worked before
│   ├── TimeLimitError      a command took too long and was ended
│   ├── NoCommandError      a command is not installed on the board
│   └── StorageError        a file cannot be written or read there: full, read-only, forbidden, missing
├── MissingExtraError    4  something optional is missing; the message names the install command
└── MissingProgramError  4  a program of others is missing; the message says how to get it

A message says what was wrong, with the value, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


def install_command(extra: str = "") -> str:
    """Return what installs an extra, several with commas between them, or edgeeff itself."""
    return f"python -m pip install 'edgeeff[{extra}]'" if extra else "python -m pip install --upgrade edgeeff"


class EdgeeffError(Exception):
    """Base of every error that edgeeff raises on purpose."""

    exit_code: ClassVar[int] = 2


class GateError(EdgeeffError):
    """A gate or a budget said no."""

    exit_code: ClassVar[int] = 1


class VerificationError(GateError):
    """A file was made, but it does not hold what was promised; it was not handed over."""


class InputError(EdgeeffError):
    """Bad input or usage."""


class UnknownNameError(InputError):
    """A name that is not in the list it should come from."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names)}"
        super().__init__(f"unknown {kind} '{name}': {hint}")


class ModelError(InputError):
    """A model that cannot be read, or that is no image classifier."""


class WeightsError(InputError):
    """Weights that cannot be had, read or fitted to the network."""


class CalibrationError(InputError):
    """Calibration images that cannot be used."""


class RecordError(InputError):
    """A JSON record that cannot be read."""


class OutputError(InputError):
    """The result cannot be written where it was asked for."""


class DeviceError(EdgeeffError):
    """A board, a connection or a measuring process failed."""

    exit_code: ClassVar[int] = 3


class UnreachableError(DeviceError):
    """A board that cannot be reached: there is no such host, it does not answer, or it refuses."""


class HostKeyError(DeviceError):
    """A host key that is not known, or another one than the board used to have.

    `fingerprint` is what the board shows now, and `known_hosts_line` what would make it known; both are empty where
    the board showed no key that could be accepted.
    """

    def __init__(self, message: str, fingerprint: str = "", known_hosts_line: str = "") -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        self.known_hosts_line = known_hosts_line


class LoginError(DeviceError):
    """A board that does not accept the user or any of their keys."""


class DroppedError(DeviceError):
    """A connection that was lost while something ran; what had arrived before is kept by who asked for it."""


class TimeLimitError(DeviceError):
    """A command that took too long on the board and was ended."""


class NoCommandError(DeviceError):
    """A command that is not installed on the board."""


class StorageError(DeviceError):
    """A file that cannot be written or read on the board: full, read-only, forbidden or missing."""


class MissingExtraError(EdgeeffError):
    """Something optional is missing."""

    exit_code: ClassVar[int] = 4

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; install it with: {install_command(extra)}")
        self.extra = extra


class MissingProgramError(EdgeeffError):
    """A program of others that edgeeff calls and cannot bring along is missing; the message says how to get it."""

    exit_code: ClassVar[int] = 4
