"""The emulated board gets a runtime without a network, by the commands that users run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.emulated.board import EmulatedBoard

pytestmark = pytest.mark.emulated


def edgeeff(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgeeff", "devices", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_setup_offline_makes_a_runtime_that_works(emulated_board: EmulatedBoard, ssh_home: Path) -> None:
    shutil.copy(emulated_board.key, ssh_home / "id_ed25519")
    shutil.copy(emulated_board.known_hosts, ssh_home / "known_hosts")
    edgeeff("add", "emu", emulated_board.url, "--board", "raspberry-pi-4", "--emulated")
    made = json.loads(edgeeff("setup", "emu", "--offline", "--runtime", "tflite-runtime", "--json"))["setup"]
    assert made["python"] == "/home/pi/.cache/edgeeff/venv/bin/python"
    assert (made["runtime"]["name"], made["runtime"]["version"]) == ("tflite-runtime", "2.14.0")

    probed = json.loads(edgeeff("probe", "emu", "--json"))
    assert probed["board"].startswith("Raspberry Pi 4")
    assert probed["device"]["emulated"] is True
    assert probed["system"]["machine"] == "aarch64"
    assert probed["python"]["numpy"].startswith("1.")
    assert (probed["runtimes"][0]["name"], probed["runtimes"][0]["works"]) == ("tflite-runtime", True)
    left = emulated_board.run(["sh", "-c", "ls -A .cache/edgeeff; ls -d /tmp/tmp.* 2>/dev/null; true"]).stdout
    assert left.split() == ["venv"]
