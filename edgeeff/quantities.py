"""Durations and sizes as people type them: always with their unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from edgeeff.errors import InputError

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")


def seconds(option: str, text: str) -> float:
    """Read a duration such as 30ms or 0.03s; raises InputError when it has no unit, or is not above zero."""
    return _read(option, text, SECONDS, "30ms or 0.03s")


def size(option: str, text: str) -> int:
    """Read a size such as 8MB (10^6 bytes) or 8MiB (2^20); raises InputError as `seconds` does."""
    return math.floor(_read(option, text, BYTES, "8MB or 8MiB"))


def _read(option: str, text: str, units: Mapping[str, float], examples: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InputError(f"{option} '{text}' is no number with a unit; write {examples}")
    number, unit = match.groups()
    if not unit:
        raise InputError(f"{option} '{text}' has no unit; write {examples}")
    if unit not in units:
        raise InputError(f"{option} '{text}': '{unit}' is none of {', '.join(units)}; write {examples}")
    value = float(number) * units[unit]
    if not 0 < value < math.inf:
        raise InputError(f"{option} '{text}' has to be above zero and finite; write {examples}")
    return value
