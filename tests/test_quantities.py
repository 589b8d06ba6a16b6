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
