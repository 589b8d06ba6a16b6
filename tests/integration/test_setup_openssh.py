"""A board behind the real OpenSSH server, from adding it to a runtime that works there, by the commands that users run.

The packages come from the package index, so these tests need one: offline through this machine's pip, and through the
board's own, which here is the same.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgeeff.devices.setup import VENV
from tests.integration.test_openssh import SSHD, Server, Servers

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"needs {SSHD}, of the package openssh-server")


@pytest.fixture
def board_home(tmp_path: Path) -> Path:
    home = tmp_path / "board"
    home.mkdir()
    return home


@pytest.fixture
def server(servers: Servers, board_home: Path) -> Server:
    """A board that nobody knows yet, with a home folder of its own."""
    home = shlex.quote(str(board_home))
    return servers.start(f'ForceCommand cd {home}; export HOME={home}; eval "$SSH_ORIGINAL_COMMAND"', known=False)


def edgeeff(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeeff", "devices", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    if "cannot reach the package index" in done.stderr:
        pytest.skip(f"needs a package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize("source", ["offline", "index"])
def test_from_an_unknown_board_to_a_runtime_that_works(server: Server, board_home: Path, source: str) -> None:
    edgeeff("add", "pi", str(server.target.url), "--emulated")
    refused = edgeeff("probe", "pi", status=3)
    fingerprint = server.key.get_fingerprint()
    assert f"--accept-host-key {fingerprint}" in refused.stderr
    edgeeff("add", "pi", str(server.target.url), "--accept-host-key", fingerprint)

    how = ["--offline"] if source == "offline" else []
    made = json.loads(edgeeff("setup", "pi", "--python", sys.executable, "--json", *how).stdout)["setup"]
    python = board_home / VENV / "bin" / "python"
    assert (made["source"], made["python"], made["runtime"]["name"]) == (source, str(python), "ai-edge-litert")
    assert [path.name for path in python.parent.parent.parent.iterdir()] == ["venv"]

    probed = json.loads(edgeeff("probe", "pi", "--json").stdout)
    assert probed["runtime"]["version"] == made["runtime"]["version"]
    assert probed["device"]["emulated"] is True
    assert probed["python"]["executable"] == str(python)
    assert "was ready already: pi" in edgeeff("setup", "pi").stdout
    pillow = "import PIL.Image, ai_edge_litert; print(PIL.Image.__file__)"
    found = subprocess.run([python, "-c", pillow], capture_output=True, text=True, check=True, cwd="/")
    assert Path(found.stdout).is_relative_to(board_home)
