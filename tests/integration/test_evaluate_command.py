"""`edgeeff evaluate` and `compare` as people run them: tables, JSON, gates as exit codes, files that are left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeeff import cli
from edgeeff.results import EvaluationRecord, read_record, to_dict
from tests.evaluation_desk import COUNT, NAMES, lay

RECORD = "int8.local.evaluation.json"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay(tmp_path_factory.mktemp("desk"))


def edgeeff(desk: Path, output: Path, *arguments: str) -> Result:
    files = (str(desk / "int8.tflite"), "--baseline", str(desk / "float.tflite"), "--data", str(desk / "val"))
    given = ("evaluate", *files, "--workers", "1", "--output", str(output), *arguments)
    return CliRunner(env={"COLUMNS": "100"}).invoke(cli.main, given, prog_name="edgeeff")


def test_people_get_a_table_and_a_record(desk: Path, tmp_path: Path) -> None:
    done = edgeeff(desk, tmp_path)
    assert done.exit_code == 0, done.output
    assert "top-1" in done.stdout and "95 % interval" in done.stdout
    record = read_record(tmp_path / RECORD)
    assert isinstance(record, EvaluationRecord)
    assert (record.data.images, record.target, record.names, record.passed) == (COUNT, "local", NAMES, True)


def test_json_is_one_document(desk: Path, tmp_path: Path) -> None:
    done = edgeeff(desk, tmp_path, "--json")
    assert done.exit_code == 0
    (record,) = json.loads(done.stdout)["records"]
    assert record == json.loads((tmp_path / RECORD).read_text())
    assert (record["schema"], record["schema_version"]) == ("edgeeff/evaluation", 1)


def test_a_gate_that_says_no_is_the_exit_code_and_a_line(desk: Path, tmp_path: Path) -> None:
    done = edgeeff(desk, tmp_path, "--min-accuracy", "99%", "--min-class-recall", "class3=0.99", "--json")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "edgeeff: 2 gates said no:"
    assert "min-accuracy" in lines[1] and "min-class-recall class3" in lines[2]
    (record,) = json.loads(done.stdout)["records"]
    assert record["passed"] is False


def test_gates_of_a_file_and_junit(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text('[gates]\nmax-drop = 20\nmin-accuracy = "99%"\n')
    junit = tmp_path / "report" / "junit.xml"
    junit.parent.mkdir()
    done = edgeeff(desk, tmp_path, "--gates", str(tmp_path / "gates.toml"), "--junit", str(junit))
    assert done.exit_code == 1
    cases = ET.fromstring(junit.read_bytes()).iter("testcase")  # noqa: S314 - we wrote it
    assert [(case.get("name"), case.find("failure") is not None) for case in cases] == [
        ("max-drop", False),
        ("min-accuracy", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--min-accuracy", "75"), "0.75"),
        (("--max-drop", "1%"), "points"),
        (("--min-class-recall", "clas3=0.5"), "class3"),
        (("--labels", "nowhere.txt"), "nowhere.txt"),
        (("--input-range", "1,0"), "--input-range"),
        (("--target", "nowhere"), "nowhere"),
        (("--train-accuracy", "many"), "--train-accuracy"),
    ],
)
def test_bad_input_is_2_and_leaves_nothing(
    desk: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = edgeeff(desk, tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_compare_is_of_two_evaluations(desk: Path, tmp_path: Path) -> None:
    edgeeff(desk, tmp_path)
    edgeeff(desk, tmp_path, str(desk / "half.tflite"))
    first, second = tmp_path / RECORD, tmp_path / "half.local.evaluation.json"
    run = CliRunner(env={"COLUMNS": "100"})
    done = run.invoke(cli.main, ["compare", str(first), str(second), "--json"])
    assert done.exit_code == 0, done.output
    comparison = json.loads(done.stdout)["comparison"]
    assert (comparison["shared_images"], comparison["paired"]) == (COUNT, True)
    assert "half.tflite" in run.invoke(cli.main, ["compare", str(first), str(second)]).stdout
    refused = run.invoke(cli.main, ["compare", str(first), str(desk / "float.tflite")])
    assert refused.exit_code == 2 and "float.tflite" in refused.stderr


def test_an_interruption_keeps_what_is_done(desk: Path, tmp_path: Path) -> None:
    rows = [f"{path},{NAMES.index(path.parent.name)}" for path in sorted((desk / "val").glob("*/*.png"))]
    for number in range(12):  # 780 images, by name: long enough to be interrupted
        (tmp_path / f"{number}").symlink_to(desk / "val")
        rows += [
            f"{tmp_path}/{number}/{path.parent.name}/{path.name},{NAMES.index(path.parent.name)}"
            for path in sorted((desk / "val").glob("*/*.png"))
        ]
    (tmp_path / "set.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    command = [sys.executable, "-m", "edgeeff", "evaluate", str(desk / "int8.tflite"), "--baseline"]
    command += [str(desk / "float.tflite"), "--data", str(tmp_path / "set.csv"), "--output", str(tmp_path / "out")]
    command += ["--workers", "1", "--batch", "1", "--json"]
    journal = tmp_path / "out" / "int8.local.evaluation.partial.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while not (journal.is_file() and journal.stat().st_size):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "--resume" in stderr
    kept = len(journal.read_text().splitlines())
    assert kept >= 1
    again = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    (record,) = json.loads(again.stdout)["records"]
    assert record["data"]["images"] == len(rows)
    assert not journal.exists()


# --- A cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A real scheduler and two workers on loopback."""
    pytest.importorskip("distributed", reason="needs Dask; install the extra cluster")
    address_file = tmp_path / "scheduler.json"
    environment = os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "False", "PYTHONWARNINGS": "ignore"}
    processes: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        with (tmp_path / f"{program}{len(processes)}.log").open("w") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True, cwd=tmp_path)
            )

    try:
        listening = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file))
        start("dask_scheduler", *listening)
        while not address_file.is_file():
            assert processes[0].poll() is None, (tmp_path / "dask_scheduler0.log").read_text()
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        for _ in range(2):
            start("dask_worker", address, "--no-dashboard", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        import distributed

        with distributed.Client(address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, processes
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(timeout=30)


def test_a_cluster_gives_the_same_even_when_a_worker_is_lost(
    desk: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[str]]]
) -> None:
    from edgeeff.evaluation.engine import Plan, evaluate
    from edgeeff.progress import Silent

    address, processes = cluster

    class Killing(Silent):
        def tick(self) -> None:
            if processes[-1].poll() is None:
                processes[-1].kill()
                processes[-1].wait()

    made = Plan((desk / "int8.tflite",), desk / "float.tflite", desk / "val", batch=2, scheduler=address)
    (there,) = evaluate(made, progress=Killing())
    assert processes[-1].poll() is not None
    assert edgeeff(desk, tmp_path).exit_code == 0
    here = json.loads((tmp_path / RECORD).read_text())
    assert without_time(json.loads(json.dumps(to_dict(there)))) == without_time(here)


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in {"timing", "created"}}
