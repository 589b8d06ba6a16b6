"""`edgeeff doctor`: what is said to be missing is what commands lack, and nothing is imported to find out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeeff import cli, doctor
from edgeeff.converters import float_model, qat
from edgeeff.devices import runner
from edgeeff.errors import MissingExtraError, MissingProgramError, UnknownNameError
from edgeeff.evaluation import engine
from edgeeff.reporting import html

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
Machine = Callable[..., None]
FULL = {name: "9.9" for name in doctor.PACKAGES if name != "tflite-runtime"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretend that these packages and programs are all that is installed; edgeeff asks for `requires`."""

    def pretend(packages: dict[str, str], *, programs: tuple[str, ...] = (), requires: tuple[str, ...] = ()) -> None:
        modules = {doctor.PACKAGES[name] for name in packages}
        monkeypatch.setattr(doctor, "find_spec", lambda name: name if name in modules else None)
        monkeypatch.setattr(metadata, "version", lambda name: packages[name])
        monkeypatch.setattr(metadata, "requires", lambda _name: list(requires))
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name in programs else None)
        monkeypatch.setattr(runner, "edge_tpu_library", lambda _tree: None)

    return pretend


def edgeeff(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, ["doctor", *arguments], prog_name="edgeeff")


def readiness(command: str, when: str | None = None) -> list[doctor.Readiness]:
    return [one for one in doctor.check(command).commands if one.when == when]


# --- The table --------------------------------------------------------------------------------------------------------


def test_every_command_is_in_the_table() -> None:
    assert set(doctor.COMMANDS) == set(cli.main.commands) - {"doctor"}
    assert all(
        sum(1 for need in doctor.NEEDS if need.command == name and need.when is None) for name in doctor.COMMANDS
    )


def test_an_extra_brings_what_it_is_named_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for need in doctor.NEEDS:
        packages = [name for name in need.parts if name in doctor.PACKAGES]
        brought = " ".join(extras[need.extra]) if need.extra else ""
        # LiteRT brings flatbuffers itself.
        assert [name for name in packages if name not in brought and name != "flatbuffers"] == [], need


@pytest.mark.parametrize(
    ("command", "when", "modules"),
    [
        ("convert", None, float_model.HOST_PACKAGES),
        ("convert", "--finetune DIR", qat.PACKAGES),
        ("evaluate", None, engine.PACKAGES_NEEDED),
        ("report", None, html.PACKAGES),
    ],
)
def test_the_table_says_what_the_code_asks_for(command: str, when: str | None, modules: Any) -> None:
    (need,) = [one for one in doctor.NEEDS if (one.command, one.when) == (command, when)]
    assert set(modules) <= {doctor.PACKAGES[name] for name in need.parts}


# --- What is found ----------------------------------------------------------------------------------------------------


def test_with_everything_all_commands_can_run(machine: Machine) -> None:
    machine(FULL, programs=(doctor.COMPILER,))
    found = doctor.check()
    assert [one for one in found.commands if not one.ready and doctor.LIBRARY not in one.missing] == []
    assert found.conflicts == ()


def test_without_extras_each_command_names_its_own(machine: Machine) -> None:
    machine(dict.fromkeys(("click", "msgspec", "numpy", "rich"), "9.9"))
    found = doctor.check()
    lacking = {one.command for one in found.commands if one.when is None and not one.ready}
    assert set(doctor.COMMANDS) - lacking == {"compare", "devices", "scale", "schemes", "variants"}
    for command in lacking - {"compile"}:
        with pytest.raises(MissingExtraError, match=r"python -m pip install 'edgeeff\[[\w,-]+\]'") as caught:
            doctor.require(found, command)
        assert f"needed for edgeeff {command}," in str(caught.value)
    with pytest.raises(MissingProgramError, match="apt-get install edgetpu-compiler"):
        doctor.require(found, "compile")


def test_several_extras_are_installed_at_once(machine: Machine) -> None:
    machine({"numpy": "2.4"})
    with pytest.raises(MissingExtraError, match=r"tensorflow and 3 more, .*'edgeeff\[host,lite-weights\]'"):
        doctor.require(doctor.check("demo"), "demo")


def test_what_only_an_option_needs_does_not_stop_the_command(machine: Machine) -> None:
    machine({name: version for name, version in FULL.items() if name != "distributed"})
    assert readiness("evaluate")[0].ready
    (cluster,) = readiness("evaluate", "--scheduler ADDRESS")
    assert (cluster.missing, cluster.get) == (("distributed",), "python -m pip install 'edgeeff[cluster]'")
    doctor.require(doctor.check("evaluate"), "evaluate")


def test_either_runtime_measures(machine: Machine) -> None:
    machine({"tflite-runtime": "2.14.0", "numpy": "1.26.4"})
    assert readiness("profile")[0].ready
    machine({"ai-edge-litert": "2.3.0", "numpy": "2.4.0"})
    assert readiness("profile")[0].ready


def test_numpy_2_breaks_tflite_runtime(machine: Machine) -> None:
    machine({"tflite-runtime": "2.14.0", "numpy": "2.0.0"})
    found = doctor.check()
    (conflict,) = found.conflicts
    assert "tflite-runtime and NumPy 2.0.0" in conflict and "'numpy<2'" in conflict
    assert readiness("profile")[0].get == "python -m pip install 'numpy<2'"
    with pytest.raises(MissingExtraError, match="a runtime that NumPy 2 does not break"):
        doctor.require(found, "profile")
    machine({"tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0", "numpy": "2.0.0"})
    assert doctor.check().conflicts == ()


def test_versions_that_nobody_asked_for_are_named(machine: Machine) -> None:
    requires = (
        "click>=8.1",
        'tensorflow<2.22,>=2.21; extra == "host"',
        'asyncssh>=2.18; extra == "host"',
        'asyncssh>=2.18; extra == "ssh"',
        'numpy>=2; extra == "host"',
        'numpy<2; extra == "tflite-runtime"',
        'tflite-runtime>=2.13; python_version < "3.12" and extra == "tflite-runtime"',
    )
    machine({"click": "8.0.4", "tensorflow": "2.21.1", "asyncssh": "2.17.0", "numpy": "1.26"}, requires=requires)
    old_click, old_ssh = doctor.check().conflicts
    assert old_click == "click 8.0.4, but >=8.1 is asked for; python -m pip install --upgrade edgeeff"
    assert "asyncssh 2.17.0, but >=2.18 is asked for by the extras host, ssh" in old_ssh
    machine({"tensorflow": "2.22.0", "tflite-runtime": "2.12.0"}, requires=requires)
    assert [conflict.split(", but")[0] for conflict in doctor.check().conflicts] == [
        "tflite-runtime 2.12.0", "tensorflow 2.22.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.21.0", ">=2.21,<2.22", True),
        ("2.22.0rc1", ">=2.21,<2.22", False),
        ("2.3", ">=2.3.0", True),
        ("0.11.0", "<0.12,>=0.11", True),
        ("1.10", ">=1.9", True),
        ("0.1.0", "==0.1.0", True),
        ("0.1.1", "==0.1.0", False),
        ("2026.8.0", ">=2025.1", True),
        ("1.0", "~=2.0", True),  # left to pip
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, wanted: str, fits: bool) -> None:
    assert doctor._fits(version, wanted) == fits


def test_what_edgeeff_asks_for_is_understood() -> None:
    lines = metadata.requires("edgeeff") or []
    assert lines and all(doctor._REQUIREMENT.fullmatch(line) for line in lines)


def test_a_command_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean convert"):
        doctor.check("convrt")


# --- The command ------------------------------------------------------------------------------------------------------


def test_people_read_what_is_missing_and_how_to_get_it(machine: Machine) -> None:
    machine({"numpy": "2.4.6"})
    done = edgeeff()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "missing: edgeeff report: jinja2, matplotlib\n  python -m pip install 'edgeeff[report]'\n" in done.stdout
    assert "numpy 2.4.6" in done.stdout


def test_a_command_that_cannot_run_is_exit_code_4(machine: Machine) -> None:
    machine({"numpy": "2.4.6"})
    done = edgeeff("report", "--json")
    assert done.exit_code == 4
    assert done.stderr == (
        "edgeeff: jinja2 and 1 more, needed for edgeeff report, is not installed; install it with: "
        "python -m pip install 'edgeeff[report]'\n"
    )
    given = json.loads(done.stdout)
    assert {"edgeeff", "python", "installed", "commands", "conflicts"} <= set(given)
    assert given["commands"][0] == {
        "command": "report", "when": None, "missing": ["jinja2", "matplotlib"],
        "get": "python -m pip install 'edgeeff[report]'",
    }  # fmt: skip
    assert edgeeff("scale").exit_code == 0
    assert edgeeff("nothing").exit_code == 2


def test_nothing_heavy_is_imported_to_find_it() -> None:
    heavy = {module for name, module in doctor.PACKAGES.items() if name not in {"click", "msgspec", "numpy", "rich"}}
    code = f"""
import sys
from edgeeff import doctor
found = doctor.check()
print([one.name for one in found.installed if one.found and one.name == "numpy"], sorted({heavy!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['numpy'] []\n"
    assert importlib.util.find_spec("numpy") is not None
