"""Progress is seen by people at a terminal, and by nobody else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeeff.progress import Bars, Progress, Silent

SHOW = """
from edgeeff.progress import Bars
with Bars() as bars:
    bars.stage("collect ranges", 2)
    bars.tick()
    bars.stage("verify")
    bars.tick()
print("done")
"""


def show(**options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SHOW]
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True, **options
    )


def test_where_there_is_no_terminal_nothing_is_said() -> None:
    shown = show(stderr=subprocess.PIPE)
    assert (shown.stdout, shown.stderr) == ("done\n", "")


def test_at_a_terminal_the_stage_is_shown_on_standard_error_and_gone_in_the_end() -> None:
    ours, theirs = pty.openpty()
    shown = show(stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # how Linux says that the other end is closed
        os.close(ours)
    text = said.decode()
    assert shown.stdout == "done\n"
    assert "collect ranges" in text
    assert "verify" in text
    assert text.endswith("\x1b[1A\x1b[2K")  # up one line, erase it


def test_silent_progress_keeps_the_time_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 12.5, 12.5, 13.0, 13.0, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    silent = Silent()
    silent.finish()  # nothing has begun
    silent.stage("trace")
    silent.stage("verify", 3)
    silent.tick()
    silent.stage("trace")
    silent.finish()
    silent.finish()
    assert silent.seconds == {"trace": 3.5, "verify": 0.5}


def test_both_are_progress() -> None:
    kinds: list[Progress] = [Silent(), Bars()]
    for progress in kinds:
        progress.tick()
        progress.stage("one")
        progress.tick()
