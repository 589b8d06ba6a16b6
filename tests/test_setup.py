"""Setting boards up: this machine stands in for them, with a python3 that lacks what theirs lack."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from edgeeff.devices import runner, setup
from edgeeff.devices.builds import Choice, choose
from edgeeff.devices.targets import Target
from edgeeff.devices.transport import Local
from edgeeff.errors import DeviceError, InputError, NoCommandError, StorageError
from edgeeff.results import BoardPython
from tests.boards import in_a_loop

TARGET = Target("board", "ssh://pi@board")  # reached as this machine is, see `board`
TOOLS = ("cat", "dirname", "env", "find", "mkdir", "mktemp", "mv", "rm", "sed", "wc")
# What takes a runtime out of the runner's answer.
NO_RUNTIME = r's/"runtimes": \[{.*}\], "edge_tpus"/"runtimes": [], "edge_tpus"/'


class Board(Local):
    """A board with a home folder, temporary files, and commands of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__("board")
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        self.commands = folder / "bin"
        for made in (self.home, self.temporary, self.commands):
            made.mkdir()
        for tool in TOOLS:
            (self.commands / tool).symlink_to(str(shutil.which(tool)))

    def command(self, name: str, script: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def python(self, *answers: str, name: str = "python3", pip: str = "exit 3", venv: str = "") -> None:
        """Give it a Python without a runtime; `answers` are sed's changes of what its runner says."""
        real = shlex.quote(sys.executable)
        changes = " ".join(f"-e {shlex.quote(change)}" for change in (NO_RUNTIME, *answers))
        self.command(
            name,
            f'case "$2" in pip) {pip};; venv) {venv or ":"};; esac\n'
            f'case "$1" in */runner-*) {real} "$@" | sed {changes};; *) exec {real} "$@";; esac',
        )

    @property
    def leftovers(self) -> list[str]:
        """What lies in its folders, but for what setup is to leave."""
        folder = self.home / ".cache" / "edgeeff"
        made = [path for path in folder.iterdir() if path.name != "venv"] if folder.exists() else []
        others = [path for path in self.home.iterdir() if path.name != ".cache"]
        return [str(path) for path in (*made, *others, *self.temporary.iterdir())]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    made = Board(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("TMPDIR", str(made.temporary))
    monkeypatch.setenv("PATH", str(made.commands))
    return made


# Where a package lies decides whether it is found, so a line in a .pth file installs all of this environment.
HERE = sysconfig.get_path("purelib")
PIP = 'while [ "$1" != --target ]; do shift; done; echo ' + shlex.quote(HERE) + ' > "$2/here.pth"; exit 0'


async def wheels(choice: Choice, folder: Path) -> list[Path]:
    """Stand in for `fetch`."""
    with zipfile.ZipFile(folder / "here-1-py3-none-any.whl", "w") as file:
        file.writestr("here.pth", HERE)
    return [folder / "here-1-py3-none-any.whl"]


@in_a_loop
async def test_the_targets_own_python_comes_first(board: Board) -> None:
    assert await setup.find_python(board, Target("board", "ssh://pi@board", python="/opt/python")) == "/opt/python"


@in_a_loop
async def test_then_what_setup_made_then_python3(board: Board) -> None:
    assert await setup.find_python(board, TARGET) == "python3"
    python = board.home / ".cache" / "edgeeff" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert await setup.find_python(board, TARGET) == ".cache/edgeeff/venv/bin/python"


@in_a_loop
async def test_this_machine_is_measured_with_the_python_that_runs(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Target("here", "local")
    assert importlib.util.find_spec("ai_edge_litert")
    python = board.home / ".cache" / "edgeeff" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert await setup.find_python(board, here) == sys.executable
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    assert await setup.find_python(board, here) == ".cache/edgeeff/venv/bin/python"
    python.unlink()
    assert await setup.find_python(board, here) == sys.executable


@in_a_loop
async def test_the_runner_has_its_hash_in_its_name_and_leaves_nothing(board: Board) -> None:
    content = Path(runner.__file__).read_bytes()
    async with setup.runner_on(board) as path:
        assert Path(path).name == f"runner-{hashlib.sha256(content).hexdigest()}.py"
        assert Path(path).read_bytes() == content
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700  # others on the board cannot change it
    assert board.leftovers == []
    assert Path(runner.__file__).exists()


@in_a_loop
async def test_a_cached_runner_stays_and_is_sent_once(board: Board) -> None:
    async with setup.runner_on(board, cache=True) as path:
        kept = board.home / path
        kept.write_text("sent before")
    async with setup.runner_on(board, cache=True) as path:
        assert (board.home / path).read_text() == "sent before"


@in_a_loop
async def test_without_a_folder_for_temporary_files_the_runner_goes_home(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    async with setup.runner_on(board) as path:
        assert Path(path).parent.parent == board.home
    assert board.leftovers == []
    shutil.rmtree(board.home)
    with pytest.raises(StorageError, match=r"board: no temporary folder can be made there: .*No such file"):
        await setup.send_runner(board)


@in_a_loop
async def test_probe_tells_what_the_board_is(board: Board) -> None:
    board.python('s/"machine": "[^"]*"/"machine": "riscv64"/')
    record = await setup.probe(board, Target("board", "ssh://pi@board", emulated=True))
    assert (record.device.machine, record.device.emulated, record.runtime) == ("riscv64", True, None)
    assert record.python.version == sys.version.split()[0]
    assert board.leftovers == []


@in_a_loop
async def test_a_board_without_a_runtime_is_not_ready(board: Board) -> None:
    board.python()
    async with setup.runner_on(board) as path:
        with pytest.raises(DeviceError, match=r"board: python3 has no runtime that works\. .*devices setup board$"):
            await setup.ready(board, TARGET, path)


@in_a_loop
async def test_a_runtime_that_is_there_is_found(board: Board) -> None:
    board.command("python3", f'exec {shlex.quote(sys.executable)} "$@"')
    done = await setup.set_up(board, TARGET)
    assert Path(done.python).samefile(sys.executable)
    assert (done.runtime.name, done.packages, done.source) == ("ai-edge-litert", (), None)
    assert not (board.home / ".cache").exists()


@in_a_loop
async def test_from_the_index(board: Board) -> None:
    board.python(pip=PIP)
    steps: list[str] = []
    done = await setup.set_up(board, TARGET, say=steps.append)
    assert (done.python, done.source) == (str(board.home / setup.VENV / "bin/python"), "index")
    assert (done.runtime.name, done.packages[0]) == ("ai-edge-litert", "ai-edge-litert>=2.2,<3")
    assert board.leftovers == []
    assert steps[0] == "looking for a runtime"
    found = await setup.set_up(board, TARGET)
    assert (found.python, found.runtime, found.packages) == (done.python, done.runtime, ())


@in_a_loop
async def test_offline(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.python('s/"pip": "[^"]*"/"pip": null/', 's/"venv": true/"venv": false/')
    monkeypatch.setattr(setup, "fetch", wheels)
    done = await setup.set_up(board, TARGET, offline=True)
    assert (done.python, done.source) == (str(board.home / setup.VENV / "bin/python"), "offline")
    assert board.leftovers == []
    again = await setup.set_up(board, TARGET, offline=True, again=True)
    assert again.packages == done.packages
    assert board.leftovers == []


@in_a_loop
async def test_without_pip_and_ensurepip_offline_is_advised(board: Board) -> None:
    board.python('s/"pip": "[^"]*"/"pip": null/', 's/"venv": true/"venv": false/')
    with pytest.raises(DeviceError, match=r"python3 has no pip; .*devices setup board --offline"):
        await setup.set_up(board, TARGET)
    assert board.leftovers == []


@in_a_loop
async def test_what_does_not_work_does_not_replace_what_did(board: Board) -> None:
    board.python(pip=PIP)
    await setup.set_up(board, TARGET)
    board.python(pip="exit 0")
    with pytest.raises(DeviceError, match=r"ai-edge-litert.* was installed and does not work there"):
        await setup.set_up(board, TARGET, again=True)
    assert board.leftovers == []
    async with setup.runner_on(board) as path:
        assert (await setup.ready(board, TARGET, path)).python == setup.VENV + "/bin/python"


@in_a_loop
async def test_who_is_interrupted_leaves_nothing(board: Board) -> None:
    board.python(pip=f": > {board.home}/begun; sleep 100")
    board.command("sleep", f"exec {shutil.which('sleep')} 100")
    making = asyncio.ensure_future(setup.set_up(board, TARGET))
    while not (board.home / "begun").exists():
        await asyncio.sleep(0.01)
    (board.home / "begun").unlink()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert board.leftovers == []


@in_a_loop
async def test_what_a_lost_connection_left_is_removed_later(board: Board) -> None:
    folder = board.home / ".cache" / "edgeeff"
    for name in ("venv-old", "venv-new", "models"):
        (folder / name / "lib").mkdir(parents=True)
    for name in ("venv-old", "models"):
        os.utime(folder / name, (0, 0))
    board.python(pip=PIP)
    await setup.set_up(board, TARGET)
    assert sorted(path.name for path in folder.iterdir()) == ["models", "venv", "venv-new"]


@in_a_loop
async def test_a_board_without_python_is_told(board: Board) -> None:
    with pytest.raises(NoCommandError, match=r"board: there is no 'python3'; .*sudo apt install python3"):
        await setup.set_up(board, TARGET)
    with pytest.raises(NoCommandError, match="there is no '/opt/python3'"):
        await setup.set_up(board, TARGET, base="/opt/python3")
    with pytest.raises(NoCommandError, match="there is no 'python3'"):
        await setup.probe(board, TARGET)
    assert board.leftovers == []


OLD = "edgeeff needs Python 3.9 or later on the board; /usr/bin/python3 is Python 3.7.3"


@in_a_loop
async def test_an_old_python_is_told_and_a_newer_one_beside_it_is_taken(board: Board) -> None:
    board.command("python3", f"""echo '{{"event": "error", "kind": "python", "message": "{OLD}"}}'; exit 1""")
    for asking in (setup.probe(board, TARGET), setup.set_up(board, TARGET)):
        with pytest.raises(DeviceError, match=rf"board: {OLD}"):
            await asking
    board.python(name="python3.11", pip=PIP)
    steps: list[str] = []
    await setup.set_up(board, TARGET, say=steps.append)
    assert any(step.startswith("making a virtual environment of python3.11") for step in steps)


FULL = "echo 'OSError: [Errno 28] No space left on device' >&2; exit 1"


@pytest.mark.parametrize(
    ("answers", "venv", "pip", "says"),
    [
        ('s/"writable": true/"writable": false/', "", PIP, r"the home folder .* cannot be written \(read-only"),
        ('s/"free_bytes": [0-9]*/"free_bytes": 9000000/', "", PIP, r"9 MB are free at .*setup needs 300 MB"),
        ("", FULL, PIP, r"board: the board's disk is full"),
        ("", "", FULL, r"board: the board's disk is full"),
        ("", "echo 'OSError: [Errno 30] Read-only file system: x' >&2; exit 1", PIP, "cannot be written: .*Read-only"),
    ],
)
@in_a_loop
async def test_no_room_on_the_board(board: Board, answers: str, venv: str, pip: str, says: str) -> None:
    board.python(answers, venv=venv, pip=pip)
    with pytest.raises(StorageError, match=says):
        await setup.set_up(board, TARGET)
    assert board.leftovers == []


@pytest.mark.parametrize(
    ("venv", "pip", "says"),
    [
        ("echo 'No module named venv' >&2; exit 1", PIP, r"No module named venv; .*sudo apt install python3-venv"),
        ("", "echo 'ERROR: No matching distribution' >&2; echo more >&2; exit 1", r"pip on the board failed: No match"),
        ("", "kill -KILL $$", r"the board killed the command; its memory may have run out"),
    ],
)
@in_a_loop
async def test_a_step_that_fails_is_named(board: Board, venv: str, pip: str, says: str) -> None:
    board.python(venv=venv, pip=pip)
    with pytest.raises(DeviceError, match=says):
        await setup.set_up(board, TARGET)
    assert board.leftovers == []


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find its index behind a port where nobody listens."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setup, "PIP", (*setup.PIP, "--retries", "1"))


@in_a_loop
async def test_a_board_without_network_is_advised_to_go_offline(board: Board, no_network: None) -> None:
    board.python(pip=":")
    with pytest.raises(DeviceError, match=r"cannot reach the package index; .*devices setup board --offline"):
        await setup.set_up(board, TARGET)
    assert board.leftovers == []


@in_a_loop
async def test_without_pip_the_pip_that_python_brings_is_used(board: Board, no_network: None) -> None:
    board.python('s/"pip": "[^"]*"/"pip": null/')
    with pytest.raises(DeviceError, match="pip on the board cannot reach the package index"):
        await setup.set_up(board, TARGET)


@in_a_loop
async def test_no_network_here_either(board: Board, no_network: None) -> None:
    board.python()
    with pytest.raises(InputError, match="this machine cannot reach the package index, either"):
        await setup.set_up(board, TARGET, offline=True)
    assert board.leftovers == []


def bookworm() -> Choice:
    there = BoardPython("3.11.2", "/usr/bin/python3", 64, None, "glibc 2.36", venv=False, pip=None, numpy=None)
    return choose(there, "aarch64")


@in_a_loop
async def test_wheels_are_fetched_for_the_boards_platform(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.command("fake", f'echo "$*" > {board.temporary}/said; : > {board.temporary}/x.whl')
    monkeypatch.setattr(sys, "executable", str(board.commands / "fake"))
    (found,) = await setup.fetch(bookworm(), board.temporary)
    said = (board.temporary / "said").read_text()
    assert found.name == "x.whl"
    assert said.startswith("-m pip download --no-deps --only-binary=:all: ")
    assert "--platform manylinux_2_36_aarch64 --platform manylinux_2_35_aarch64 " in said
    assert " --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none " in said
    assert said.endswith("ai-edge-litert>=2.2,<3 numpy>=1.26,<3 pillow>=9\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("fake: No module named pip", r"has no pip, .* -m ensurepip"),
        ("ERROR: No matching distribution found for x", r"pip cannot fetch .*aarch64.*No matching distribution"),
    ],
)
@in_a_loop
async def test_wheels_that_cannot_be_fetched(
    board: Board, monkeypatch: pytest.MonkeyPatch, error: str, says: str
) -> None:
    board.command("fake", f"echo '{error}' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(board.commands / "fake"))
    with pytest.raises(InputError, match=says):
        await setup.fetch(bookworm(), board.temporary)


@in_a_loop
async def test_another_runtime_than_the_one_there(board: Board) -> None:
    board.python('s/"version": "3[.0-9]*"/"version": "3.13.5"/', pip=PIP)
    with pytest.raises(DeviceError, match=r"board: tflite-runtime has not been built for Python 3\.13"):
        await setup.set_up(board, TARGET, runtime="tflite-runtime")


@in_a_loop
async def test_a_python_of_the_users_own_is_not_changed(board: Board) -> None:
    board.python()
    own = Target("board", "ssh://pi@board", python="python3")
    with pytest.raises(InputError, match=r"is to use python3, which setup does not change; .*without --python"):
        await setup.set_up(board, own)


@in_a_loop
async def test_a_32_bit_board_uses_its_own_numpy(board: Board) -> None:
    board.python(
        's/"bits": 64/"bits": 32/',
        's/"machine": "[^"]*"/"machine": "armv7l"/',
        's/"numpy": "[^"]*"/"numpy": "1.24.2"/',
        's/"version": "3[.0-9]*"/"version": "3.11.2"/',
        pip=f'echo "$*" > {board.temporary}/said; exit 3',
    )
    with pytest.raises(DeviceError, match="pip on the board failed"):
        await setup.set_up(board, TARGET)
    assert (board.temporary / "said").read_text().endswith("/site-packages tflite-runtime==2.14.0\n")


def edgeeff(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeeff", "devices", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path))
    assert edgeeff("add", "emu", "local", "--emulated").returncode == 0
    shown = edgeeff("probe", "emu")
    assert "emulated: no figure of it is a real board's" in " ".join(shown.stdout.split())
    probed = edgeeff("probe", "emu", "--json")
    document = json.loads(probed.stdout)
    assert (document["schema"], document["device"]["emulated"]) == ("edgeeff/probe", True)
    found = edgeeff("setup", "emu", "--json")
    assert json.loads(found.stdout)["setup"]["packages"] == []
    assert "looking for a runtime" in found.stderr
    failed = edgeeff("setup", "emu", "--python", "/nowhere/python3")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "edgeeff: emu: there is no '/nowhere/python3'" in failed.stderr
    assert edgeeff("probe", "raspberry-pi-5").returncode == 2
