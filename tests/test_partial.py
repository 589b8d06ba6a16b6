"""What was measured so far: kept at once, read again, however it was left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeeff.devices.partial import Partial
from edgeeff.errors import OutputError

KEY = {"sha256": "ab", "threads": 1, "options": {"runs": 5}}
SAID: list[dict[str, Any]] = [{"event": "latencies", "latencies_s": [0.5]}, {"event": "done"}]


def test_what_is_kept_is_found_by_the_same_key_only(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "pi4", resume=False)
    partial.keep(KEY, SAID)
    partial.keep(KEY | {"threads": 2}, SAID[1:])
    assert partial.found(KEY) == []  # what this command measured is not what an earlier one left
    later = Partial(tmp_path, "pi4", resume=True)
    assert later.found(KEY) == [SAID]
    assert later.found(KEY | {"threads": 2}) == [SAID[1:]]
    assert later.found(KEY | {"threads": 3}) == []
    assert Partial(tmp_path, "pi5", resume=True).found(KEY) == []
    later.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    Partial(tmp_path, "pi4", resume=False).keep(KEY, SAID)
    Partial(tmp_path, "pi4", resume=False)
    assert Partial(tmp_path, "pi4", resume=True).found(KEY) == []


@given(
    cut=st.integers(0, 400), rubbish=st.sampled_from(["", "\n", "null\n", "[]\n", '{"key": 3, "events": []}\n', "\0"])
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_cut_anywhere_keeps_its_whole_lines(
    cut: int, rubbish: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("partial")
    partial = Partial(folder, "pi4", resume=False)
    for _ in range(3):
        partial.keep(KEY, SAID)
    text = partial.path.read_text()
    left = text[:cut] + rubbish
    partial.path.write_text(left)
    resumed = Partial(folder, "pi4", resume=True)
    whole = [line for line in left.split("\n") if line in text.split("\n") and line]
    assert len(resumed.found(KEY)) == len(whole)
    resumed.keep(KEY, SAID)
    assert len(Partial(folder, "pi4", resume=True).found(KEY)) == len(whole) + 1


def test_where_nothing_can_be_kept_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "pi4.partial.jsonl").mkdir()
    for resume in (False, True):
        with pytest.raises(OutputError, match="choose another place with --output"):
            Partial(tmp_path, "pi4", resume=resume)
    partial = Partial(tmp_path, "pi5", resume=True)
    partial.path.mkdir()
    with pytest.raises(OutputError, match=r"cannot keep what was measured in .*Is a directory"):
        partial.keep(KEY, SAID)
