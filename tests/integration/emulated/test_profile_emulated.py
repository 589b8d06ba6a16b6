"""Measuring on the emulated board: labelled so, judged when its processor is squeezed, gone on with after a power cut.

Figures of an emulated board are no board's, so none is looked at here but for its label and its verdict.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeeff import cli
from edgeeff.devices import profile
from edgeeff.devices.profile import Case, Plan, Protocol, measure_all
from edgeeff.devices.targets import Target
from tests.integration.emulated.board import EmulatedBoard

pytestmark = pytest.mark.emulated

# Imports take half a minute there: as few processes and runs as a test can do with.
FEW = {"warmup_runs": 1, "warmup_s": 0.0, "warmup_limit_s": 60.0, "runs": 3, "duration_s": 0.1}
STEADY = {"warmup_runs": 20, "warmup_s": 1.0, "warmup_limit_s": 5.0, "runs": 20, "duration_s": 8.0}
STRETCHES = 3


def test_lite0_is_measured_and_labelled_emulated(
    board: Target, lite0_int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "QUICK", Protocol("quick", 1, FEW))
    options = ("--target", board.name, "--quick", "--output", str(tmp_path / "out"), "--json")
    done = CliRunner().invoke(cli.main, ["profile", str(lite0_int8), *options])
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["records"]
    assert record["device"]["emulated"] is True
    assert record["device"]["name"].startswith("Raspberry Pi 4")
    assert record["device"]["machine"] == "aarch64"
    assert record["runtime"]["name"] == "tflite-runtime"
    assert record["latency"]["p50_s"] > 0
    (written,) = (tmp_path / "out").glob("*.profile.json")
    assert json.loads(written.read_text())["device"]["emulated"] is True


def test_a_processor_squeezed_mid_run_makes_the_verdict_invalid(
    board: Target, emulated_board: EmulatedBoard, tiny_float_tflite: Path
) -> None:
    plan = Plan((tiny_float_tflite,), protocol=Protocol("quick", 1, STEADY))
    stretches = 0
    with ExitStack() as squeezed:

        def watch(_target: str, _case: Case | None, event: dict[str, Any]) -> None:
            nonlocal stretches
            stretches += event["event"] == "latencies"
            if event["event"] == "latencies" and stretches == STRETCHES:
                squeezed.enter_context(emulated_board.limited_cpu(0.2))

        (outcome,) = asyncio.run(measure_all([board], plan, watch=watch))
    assert not outcome.failures
    (record,) = outcome.records
    assert record.verdict is not None
    assert not record.verdict.valid
    said = " ".join(reason.text for reason in record.verdict.reasons)
    assert "quota" in said or "CPU limit" in said, said


def test_a_power_cut_mid_run_is_exit_status_3_and_gone_on_from(
    board: Target,
    emulated_board: EmulatedBoard,
    tiny_float_tflite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profile, "QUICK", Protocol("quick", 2, FEW))
    numbers: list[int] = []
    measured = profile.measure_all

    async def cut_short(*arguments: Any, **options: Any) -> Any:
        shown = options.pop("watch", None)

        def watch(target: str, case: Case | None, event: dict[str, Any]) -> None:
            if event["event"] == "process":
                numbers.append(event["number"])
            if event["event"] == "loaded" and numbers == [1, 2]:
                emulated_board.kill()
            if shown is not None:
                shown(target, case, event)

        return await measured(*arguments, watch=watch, **options)

    monkeypatch.setattr(profile, "measure_all", cut_short)
    command = ["profile", str(tiny_float_tflite), "--target", board.name, "--quick", "--output", str(tmp_path / "out")]
    lost = CliRunner().invoke(cli.main, command)
    assert lost.exit_code == 3, lost.output
    assert "emu" in lost.stderr
    assert numbers == [1, 2]

    emulated_board.restart()
    resumed = CliRunner().invoke(cli.main, [*command, "--resume", "--json"])
    assert resumed.exit_code == 0, resumed.output
    assert numbers == [1, 2, 2]
    (record,) = json.loads(resumed.stdout)["records"]
    assert record["latency"]["processes"] == 2
    assert record["device"]["emulated"] is True
