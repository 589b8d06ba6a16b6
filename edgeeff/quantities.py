"""Durations, sizes, percentages and ranges as people type them: with their unit, or with an option that says it.

A program that has a number gives that: seconds, bytes, percent. What is refused is named by its option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from edgeeff.errors import InputError

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")


def seconds(option: str, text: str | float) -> float:
    """Read a duration such as 30ms or 0.03s; raises InputError when text has no unit, or it is not above zero."""
    return _read(option, text, SECONDS, "30ms or 0.03s")


def size(option: str, text: str | float) -> int:
    """Read a size such as 8MB (10^6 bytes) or 8MiB (2^20); raises InputError as `seconds` does."""
    return math.floor(_read(option, text, BYTES, "8MB or 8MiB"))


def percent(option: str, text: str | float, example: str) -> float:
    """Read a percentage such as 78 or 78%; raises InputError for anything that is not above 1 and at most 100."""
    try:
        value = float(str(text).strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 1 < value <= 100:
        raise InputError(f"{option} '{text}' is no percentage from 1 to 100; for example {option} {example}")
    return value


def ratio_or_seconds(option: str, text: str | float) -> tuple[float | None, float | None]:
    """Read a ratio up to 1, such as 0.55, or a duration, such as 12ms; return the one or the other.

    Raises InputError for a number above 1 without a unit, and what `seconds` raises.
    """
    try:
        value = float(text)
    except ValueError:
        return None, seconds(option, text)
    if not 0 < value <= 1:
        raise InputError(f"{option} '{text}' is no ratio between 0 and 1 and has no unit; write 0.55 or 12ms")
    return value, None


def value_range(text: str | tuple[float, float] | None) -> tuple[float, float] | None:
    """Read what --input-range says, LOW,HIGH; raises InputError for anything else."""
    if text is None:
        return None
    parts = text.split(",") if isinstance(text, str) else text
    text = ",".join(str(part) for part in parts)
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise InputError(f"--input-range '{text}' is not LOW,HIGH; for example --input-range=-1,1") from None
    if not low < high:
        raise InputError(f"--input-range '{text}': {low:g} is not below {high:g}; black comes first")
    return low, high


def _read(option: str, text: str | float, units: Mapping[str, float], examples: str) -> float:
    if not isinstance(text, str):
        return _above_zero(option, text, text, examples)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InputError(f"{option} '{text}' is no number with a unit; write {examples}")
    number, unit = match.groups()
    if not unit:
        raise InputError(f"{option} '{text}' has no unit; write {examples}")
    if unit not in units:
        raise InputError(f"{option} '{text}': '{unit}' is none of {', '.join(units)}; write {examples}")
    return _above_zero(option, text, float(number) * units[unit], examples)


def _above_zero(option: str, text: object, value: float, examples: str) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{option} '{text}' has to be above zero and finite; write {examples}")
    return value
