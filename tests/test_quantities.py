"""Durations and sizes are read with their units, and nothing else is."""

from __future__ import annotations

import pytest

from edgeeff import quantities
from edgeeff.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"), [("30ms", 0.03), ("0.03s", 0.03), (".5 ms", 0.0005), ("250us", 0.00025), (" 2 s ", 2.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert quantities.seconds("--budget", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("8MB", 8_000_000), ("8MiB", 8 << 20), ("1.5 kB", 1500), ("2GB", 2 * 10**9), ("100B", 100)]
)
def test_sizes(text: str, size: int) -> None:
    assert quantities.size("--max-size", text) == size


@pytest.mark.parametrize(("text", "share"), [("98", 98.0), ("98.5 %", 98.5), ("100%", 100.0)])
def test_percentages(text: str, share: float) -> None:
    assert quantities.percent("--min-agreement", text, "98") == share


@pytest.mark.parametrize("text", ["0.98", "1", "101", "-3", "nan", "high", ""])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is no percentage from 1 to 100; for example --min-agreement 98"):
        quantities.percent("--min-agreement", text, "98")


@pytest.mark.parametrize(("text", "both"), [("0.55", (0.55, None)), ("1", (1.0, None)), ("12ms", (None, 0.012))])
def test_ratios_and_durations(text: str, both: tuple[float | None, float | None]) -> None:
    assert quantities.ratio_or_seconds("--max-latency", text) == pytest.approx(both)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("12", "is no ratio between 0 and 1 and has no unit; write 0.55 or 12ms"),
        ("0", "is no ratio"),
        ("nan", "is no ratio"),
        ("-0.5", "is no ratio"),
        ("12 apples", "'apples' is none of us, ms, s"),
        ("55%", "is no number with a unit"),
    ],
)
def test_what_is_no_ratio_and_no_duration_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        quantities.ratio_or_seconds("--max-latency", text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("30", "has no unit; write 30ms or 0.03s"),
        ("0ms", "has to be above zero"),
        ("-3ms", "is no number with a unit"),
        ("fast", "is no number with a unit"),
        ("", "is no number with a unit"),
        ("nanms", "is no number with a unit"),
        ("1e999s", "is no number with a unit"),
        ("9" * 400 + "s", "and finite"),
        ("30MB", "'MB' is none of us, ms, s"),
        ("30MS", "'MS' is none of us, ms, s"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        quantities.seconds("--budget", text)
    assert str(caught.value).startswith(f"--budget '{text}'")
    assert reason in str(caught.value)
