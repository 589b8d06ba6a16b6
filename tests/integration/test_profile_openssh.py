"""Measuring over the real OpenSSH server on loopback: the whole way, a connection that is lost, and going on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeeff import cli
from edgeeff.converters.convert import Calibration, Source, convert
from edgeeff.devices import profile, targets
from edgeeff.devices.profile import Case, Plan, Protocol, measure_all
from edgeeff.devices.targets import Target
from edgeeff.errors import DroppedError
from edgeeff.results import ModelFile
from tests.integration.test_openssh import SSHD, Servers

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"needs {SSHD}, of the package openssh-server")
SMALL = {"warmup_runs": 2, "warmup_s": 0.0, "warmup_limit_s": 0.2, "runs": 5, "duration_s": 0.05}


def over(url: str | None) -> Target:
    return Target("board", url, python=sys.executable)


def models_there() -> list[Path]:
    import pwd

    return list(Path(pwd.getpwuid(os.getuid()).pw_dir).glob(f"{profile.MODELS}/*"))


def test_the_command_measures_over_ssh(
    servers: Servers, tiny_float_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "QUICK", Protocol("quick", 2, SMALL))
    target = servers.start("Banner none").target
    targets.add(over(target.url))
    int8 = tmp_path / "tiny_int8.tflite"
    convert(Source(model=tiny_float_tflite), output=int8, calibration=Calibration(samples=4))
    options = ("--target", "board", "--quick", "--threads", "1,2", "--output", str(tmp_path / "out"), "--json")
    done = CliRunner().invoke(cli.main, ["profile", str(tiny_float_tflite), str(int8), *options])
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    measured = [(Path(record["model"]["path"]).name, record["threads"]) for record in document["records"]]
    assert sorted(measured) == [(file.name, threads) for file in (tiny_float_tflite, int8) for threads in (1, 2)]
    assert all(record["target"] == "board" and record["latency"]["processes"] == 2 for record in document["records"])
    # What other runs keep there is none of this one's business.
    ours = {ModelFile.of(file).sha256 for file in (tiny_float_tflite, int8)}
    assert not [path for path in models_there() if path.stem in ours]


def test_a_connection_that_is_cut_mid_run_is_gone_on_from(
    servers: Servers, tiny_float_tflite: Path, tmp_path: Path
) -> None:
    server = servers.start()
    plan = Plan((tiny_float_tflite,), protocol=Protocol("quick", 3, SMALL))
    processes: list[int] = []

    def cut(_target: str, _case: Case | None, event: dict[str, Any]) -> None:
        if event["event"] == "process":
            processes.append(event["number"])
        if event["event"] == "warm" and processes == [1, 2]:
            server.cut()

    async def measured(resume: bool) -> profile.Outcome:
        work = measure_all([over(server.target.url)], plan, output=tmp_path / "out", resume=resume, watch=cut)
        (outcome,) = await asyncio.wait_for(work, 60)
        return outcome

    try:
        outcome = asyncio.run(measured(resume=False))
        (failure,) = outcome.failures
        assert isinstance(failure.error, DroppedError)
        assert processes == [1, 2]
        outcome = asyncio.run(measured(resume=True))
        assert not outcome.failures
        assert processes == [1, 2, 2, 3]
        assert outcome.records[0].latency.processes == 3
    finally:  # a board that cannot be reached keeps what it has
        for path in models_there():
            if ModelFile.of(tiny_float_tflite).sha256 in path.name:
                path.unlink()
