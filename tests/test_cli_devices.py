"""`edgeeff devices list, add and remove`: what they keep, what they show, and when they connect."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from click.testing import CliRunner, Result

from edgeeff import cli, cli_devices
from edgeeff.devices import targets
from edgeeff.devices.targets import Target
from tests.boards import board, in_a_loop

PI5 = ("pi5", "ssh://pi@pi5.local")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def devices(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, ["devices", *arguments], prog_name="edgeeff")


def document(*arguments: str) -> Any:
    done = devices(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_table_of_boards_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    golden("devices_list.txt", devices("list").stdout)


def test_targets_are_listed() -> None:
    targets.add(Target(*PI5, board="raspberry-pi-5", emulated=True))
    targets.add(Target("six", "ssh://me@[fe80::1%eth0]:22"))
    targets.add(Target("far", f"ssh://me@{'long.' * 20}host"))
    shown = devices("list").stdout
    assert [line.split() for line in shown.splitlines() if line.startswith((" pi5", " six"))] == [
        ["pi5", "ssh://pi@pi5.local", "raspberry-pi-5", "emulated"],
        ["six", "ssh://me@[fe80::1%eth0]:22"],
    ]
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_the_list_as_json_has_the_sources() -> None:
    targets.add(Target(*PI5))
    found = document("list")
    assert [target["name"] for target in found["targets"]] == ["local", "pi5"]
    assert [one["key"] for one in found["boards"]] == list(targets.boards())
    assert all(set(one["sources"]) <= set(one) for one in found["boards"])


def test_a_target_is_added_and_removed() -> None:
    options = ("--board", "raspberry-pi-5", "--python", "/opt/python", "--emulated", "--notes", "on the shelf")
    done = devices("add", *PI5, *options)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["added: pi5, ssh://pi@pi5.local", "Next: edgeeff devices setup pi5"]
    wanted = Target(*PI5, "raspberry-pi-5", "/opt/python", True, "on the shelf")
    assert targets.find("pi5") == wanted
    removed = document("remove", "pi5")["removed"]
    assert Target(**removed) == wanted
    assert targets.own_targets() == {}


def test_adding_as_json() -> None:
    assert Target(**document("add", *PI5)["target"]) == Target(*PI5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("add", *PI5), "replace it with --replace, or choose another name"),
        (("add", "local", "local"), "'local' is a name of edgeeff's own"),
        (("add", "x", "pi@h"), "did you mean ssh://pi@h?"),
        (("add", "x", "ssh://h", "--board", "raspberry-pi-1"), "unknown board 'raspberry-pi-1'"),
        (("remove", "pi6"), "unknown target 'pi6': did you mean pi5?"),
        (("remove", "raspberry-pi-5"), "'raspberry-pi-5' comes with edgeeff and cannot be removed"),
    ],
)
def test_what_is_refused_changes_nothing(config: Path, arguments: tuple[str, ...], reason: str) -> None:
    targets.add(Target(*PI5))
    before = (config / "targets.toml").read_bytes()
    done = devices(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("edgeeff: ")
    assert reason in done.stderr
    assert (config / "targets.toml").read_bytes() == before


def test_replacing() -> None:
    targets.add(Target(*PI5, notes="old"))
    assert devices("add", "pi5", "ssh://pi@10.0.0.5", "--replace").exit_code == 0
    assert targets.find("pi5") == Target("pi5", "ssh://pi@10.0.0.5")


def test_the_examples_run() -> None:
    lines = [
        line.strip()
        for command in (cli_devices.add, cli_devices.remove)
        for line in (command.help or "").splitlines()
        if line.strip().startswith("edgeeff devices") and "--accept-host-key" not in line
    ]
    assert len(lines) == 3
    for line in lines:
        done = devices(*shlex.split(line)[2:])
        assert (done.exit_code, done.stderr) == (0, "")


# --- Host keys --------------------------------------------------------------------------------------------------------


async def far_devices(*arguments: str) -> Result:
    """Run a command in a thread, because the board lives in this one."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: devices(*arguments))


@in_a_loop
async def test_a_host_key_is_accepted_by_its_fingerprint(ssh_home: Path, tmp_path: Path, config: Path) -> None:
    async with board(tmp_path / "board", ssh_home, known=False) as there:
        url = str(there.target().url)
        wrong = await far_devices("add", "pi5", url, "--accept-host-key", "SHA256:wrong")
        assert (wrong.exit_code, wrong.stdout) == (3, "")
        assert not config.exists()
        (proposed,) = [line for line in wrong.stderr.splitlines() if line.startswith("  edgeeff devices add pi5")]
        done = await far_devices(*shlex.split(proposed)[2:])
        assert (done.exit_code, done.stderr) == (0, "")
        fingerprint = there.key.get_fingerprint()
        assert done.stdout.splitlines()[:2] == [f"host key accepted: {fingerprint}", f"added: pi5, {url}"]
        assert there.processes == []
    assert targets.find("pi5").url == url
    assert there.key.export_public_key().decode().split()[1] in (config / "known_hosts").read_text()


@in_a_loop
async def test_a_target_that_is_there_keeps_all_but_the_key(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home, known=False) as there:
        target = Target("pi5", there.target().url, "raspberry-pi-5", notes="on the shelf")
        targets.add(target)
        done = await far_devices("add", "pi5", str(target.url), "--accept-host-key", there.key.get_fingerprint())
        assert (done.exit_code, done.stderr) == (0, "")
        assert "added" not in done.stdout
        other = await far_devices("add", "pi5", "ssh://other", "--accept-host-key", there.key.get_fingerprint())
        assert (other.exit_code, other.stdout) == (2, "")
    assert targets.find("pi5") == target


@in_a_loop
async def test_a_board_that_lets_nobody_in_is_not_added(ssh_home: Path, tmp_path: Path) -> None:
    async with board(tmp_path / "board", ssh_home, known=False) as there:
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(ssh_home / "id_ed25519")
        url = str(there.target().url)
        done = await far_devices("add", "pi5", url, "--accept-host-key", there.key.get_fingerprint())
        assert (done.exit_code, done.stdout) == (3, "")
        assert "ssh-copy-id" in done.stderr
    assert targets.own_targets() == {}
