"""Picking on the emulated board: all of it runs there, and everything that it says is labelled emulated."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeeff import cli
from edgeeff.devices import profile
from edgeeff.devices.profile import Protocol
from edgeeff.devices.targets import Target
from edgeeff.picking import measure, view
from edgeeff.results import PickRecord, ProfileRecord, read_record

pytestmark = pytest.mark.emulated

FEW = {"warmup_runs": 1, "warmup_s": 0.0, "warmup_limit_s": 60.0, "runs": 3, "duration_s": 0.1}


def test_a_pick_is_labelled_emulated_everywhere(
    board: Target, lite0_int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Imports take half a minute there, so one network is measured, in one process: the next one's file is too large.
    monkeypatch.setattr(profile, "QUICK", Protocol("quick", 1, FEW))
    monkeypatch.setattr(measure, "SHORT", profile.QUICK)  # a verdict that is invalid asks for more
    out, plot = tmp_path / "out", tmp_path / "pick.svg"
    limits = ("--family", "lite", "--budget", "60s", "--max-size", "5.8MB")
    where = ("--target", board.name, "--models", str(lite0_int8.parent), "--output", str(out), "--plot", str(plot))
    done = CliRunner().invoke(cli.main, ["pick", *limits, *where, "--quick", "--json"])
    assert done.exit_code == 0, done.output

    said = json.loads(done.stdout)
    assert (said["winner"], said["decides"], said["measured"]) == ("lite0", "size", 1)
    assert said["device"]["emulated"] is True
    assert said["device"]["name"].startswith("Raspberry Pi 4")
    assert "EMULATED" in said["warnings"][0]
    lite0 = said["candidates"][0]
    assert (lite0["status"], lite0["by"], lite0["latencies"][0]["target"]) == ("fits", "measured", "emu")
    assert lite0["peak_memory_bytes"] > lite0["size_bytes"] == lite0_int8.stat().st_size
    assert "EMULATED" in plot.read_text(encoding="utf-8")

    (kept,) = out.glob("*.pick.json")
    record = read_record(kept)
    assert isinstance(record, PickRecord)
    console = Console(file=io.StringIO(), width=100)
    view.render(record, console)
    assert "cores, EMULATED)" in console.file.getvalue()  # type: ignore[attr-defined]
    (measured,) = out.glob("*.profile.json")
    profiled = read_record(measured)
    assert isinstance(profiled, ProfileRecord)
    assert profiled.device.emulated
