"""The emulated board for the tests in this folder: one for the whole run, left running by each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeeff.devices import profile, targets
from edgeeff.devices.targets import Target
from tests.integration.emulated.board import EmulatedBoard
from tests.integration.emulated.image import image, missing_tools, wheels


@pytest.fixture(scope="session")
def emulated_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBoard]:
    """A running board; see `EmulatedBoard`. The first run builds its files, which takes a minute."""
    missing = missing_tools()
    if missing:
        pytest.skip(f"needs Debian packages: apt-get install {' '.join(missing)}")
    with EmulatedBoard(image(), tmp_path_factory.mktemp("emulated-board")) as board:
        yield board


@pytest.fixture(scope="session")
def board_wheels() -> list[Path]:
    """The wheels of tflite-runtime and its NumPy for the board, fetched by this machine."""
    return sorted(wheels().glob("*.whl"))


@pytest.fixture(scope="session")
def board_python(emulated_board: EmulatedBoard, board_wheels: list[Path]) -> str:
    """The path of a Python on the board that has tflite-runtime, put there without a network."""
    emulated_board.run(["python3", "-m", "venv", "--without-pip", "runtime"])
    packages = "runtime/lib/python3.11/site-packages"
    emulated_board.send(*board_wheels, to=packages)
    for wheel in board_wheels:  # a wheel is an archive of what is installed; pip takes a minute here to say the same
        emulated_board.run(["unzip", "-q", f"{packages}/{wheel.name}", "-d", packages])
    return "/home/pi/runtime/bin/python"


@pytest.fixture
def board(emulated_board: EmulatedBoard, board_python: str, ssh_home: Path) -> Iterator[Target]:
    """The emulated board as a target that a user has added."""
    shutil.copy(emulated_board.key, ssh_home / "id_ed25519")
    shutil.copy(emulated_board.known_hosts, ssh_home / "known_hosts")
    target = Target("emu", emulated_board.url, board="raspberry-pi-4", python=board_python, emulated=True)
    targets.add(target)
    yield target
    if not emulated_board.running:
        emulated_board.restart()
    emulated_board.run(["rm", "-rf", profile.MODELS])  # what a power cut left there


@pytest.fixture(autouse=True)
def switched_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the board running for the next test."""
    yield
    board = request.node.funcargs.get("emulated_board")  # absent where it could not be had
    if board is not None and not board.running:
        board.restart()
