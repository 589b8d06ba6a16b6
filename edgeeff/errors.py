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
└── MissingExtraError    4  something optional is missing; the message names the install command

A message says what was wrong, with the value, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


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


class MissingExtraError(EdgeeffError):
    """Something optional is missing."""

    exit_code: ClassVar[int] = 4

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; install it with: python -m pip install 'edgeeff[{extra}]'")
        self.extra = extra
