"""A small fleet over real SSH: every fault of the benchmark's boards once, and what is made of it by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import fleet

SLOW = "silent"  # takes as long as the limit for connecting
HANGING_LIMIT_S = 4.0


def test_every_fault_has_its_message_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HANGING_LIMIT_S", HANGING_LIMIT_S)
    faults = [fault for fault in fleet.FAULTS if fault != SLOW]
    boards = {f"board-{number}": fault for number, fault in enumerate([fleet.FINE, *faults, fleet.NOISY])}
    result = fleet.measure(tmp_path, boards, pace_s=0.0)
    assert result.problems == ()
    assert result.status == 3
    assert {record["target"] for record in result.document["records"]} == {"board-0", f"board-{len(faults) + 1}"}
    assert all(record["device"]["emulated"] for record in result.document["records"])
    assert f"{len(faults)} measurements failed" in result.stderr
    assert 1 < result.most <= len(boards)


def test_a_fleet_without_a_fault_exits_with_0(tmp_path: Path) -> None:
    boards = dict.fromkeys(("a", "b"), fleet.FINE)
    result = fleet.measure(tmp_path, boards, pace_s=0.0)
    assert (result.status, result.problems) == (0, ())
    (summary,) = result.document["fleet"]
    assert summary["boards"] == 2
    assert not list((tmp_path / "records").glob("*.partial.jsonl"))


def test_the_benchmark_notices_what_is_missing_or_wrong(tmp_path: Path) -> None:
    boards = {"good": fleet.FINE, "lost": "dropped"}
    wrong: dict[str, Any] = {
        "records": [{"target": "good", "latency": {"p50_s": 2e-3}}],
        "failures": [{"target": "lost", "error": "DeviceError", "message": "the connection was lost"}],
    }
    (tmp_path / "boards" / "good" / "home").mkdir(parents=True)
    (tmp_path / "boards" / "good" / "home" / "runner.py").touch()
    value, file, left, fault = fleet.differences(tmp_path, boards, {"good": 1e-3, "lost": 1e-3}, wrong)
    assert "not 0.001 s" in value
    assert "not written" in file
    assert "runner.py" in left
    assert "not DroppedError" in fault


def test_every_fault_is_in_the_fleet() -> None:
    boards = fleet.planned(300, every=5)
    assert len(boards) == 300
    assert set(boards.values()) == {*fleet.FAULTS, *fleet.GOOD}
