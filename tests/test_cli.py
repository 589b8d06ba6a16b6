"""The command line: help that is true, output that is parsed or read, exit codes that are kept."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from edgeeff import __version__, cli, scaling, version
from edgeeff.converters.schemes import SCHEMES
from edgeeff.errors import DeviceError, GateError, InputError, MissingExtraError
from edgeeff.quantities import value_range
from edgeeff.scaling import VARIANTS

Golden = Callable[[str, str], None]
ROOT = Path(__file__).resolve().parent.parent
LIGHT = ("scale", "variants", "schemes")
"""Commands whose examples need no TensorFlow, LiteRT, file or board; the others' own tests run theirs."""


def commands(group: click.Group, name: str = "") -> dict[str, click.Command]:
    """Every command by the words that call it, also those in groups."""
    found: dict[str, click.Command] = {}
    for word, command in group.commands.items():
        words = f"{name} {word}".strip()
        found |= commands(command, words) if isinstance(command, click.Group) else {words: command}
    return found


COMMANDS = commands(cli.main)


def edgeeff(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as people do: a process of its own, no terminal, 80 columns."""
    command = [sys.executable, "-c", "from edgeeff.cli import main; main(prog_name='edgeeff')", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_COLOR")}
    fixed = inherited | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"} | environment
    return subprocess.run(command, cwd=ROOT, env=fixed, capture_output=True, encoding="utf-8", timeout=60, check=False)


def invoke(*arguments: str) -> Result:
    """Run a command in this process: quicker, and it can be watched."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, arguments, prog_name="edgeeff")


def document(*arguments: str) -> Any:
    """Run a command with --json; return the one document that it prints."""
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)  # fails when anything stands before or behind it


def examples(command: click.Command) -> list[str]:
    """The lines under "Examples:" in a command's help."""
    _, _, rest = (command.help or "").partition("Example")
    return re.findall(r"^ +(edgeeff .+)$", rest, flags=re.MULTILINE)


# --- Help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_a_purpose_and_examples(name: str) -> None:
    shown = edgeeff(*name.split(), "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: edgeeff {name} ")
    given = examples(COMMANDS[name])
    assert given
    assert all(line.startswith(f"edgeeff {name}") and line in shown.stdout for line in given)
    assert "--json" in shown.stdout
    assert "--debug" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "")[-1:] in {".", "]", ")"}, parameter.name
        else:
            assert parameter.make_metavar(click.Context(COMMANDS[name])) in (COMMANDS[name].help or "")


def test_the_list_of_commands_fits_in_80_columns() -> None:
    shown = edgeeff("--help").stdout
    listed = re.findall(r"^  (\w+) {2,}\S", shown.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == sorted(cli.main.commands)
    assert "..." not in shown.partition("Commands:")[2]  # no purpose is cut off
    assert max(map(len, shown.splitlines())) <= 80


def test_the_exit_codes_are_said() -> None:
    said = " ".join(edgeeff("--help").stdout.partition("Exit codes:")[2].partition("Options:")[0].split())
    codes = re.findall(r"(\d) \w", said)
    assert codes == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("line", [line for name in LIGHT for line in examples(COMMANDS[name])])
def test_the_examples_run(line: str) -> None:
    done = edgeeff(*shlex.split(line)[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    if "--json" in line:
        assert json.loads(done.stdout)


def test_the_help_of_convert_lists_every_scheme() -> None:
    (option,) = (option for option in COMMANDS["convert"].params if option.name == "scheme")
    assert isinstance(option, click.Option)
    words = re.split(r"[ ,]+(?:or )?", option.help or "")
    assert words[: len(SCHEMES)] == list(SCHEMES)


def test_the_versions_that_matter_are_said_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said = edgeeff("--version").stdout
    assert said.startswith(f"edgeeff {__version__}, Python {platform.python_version()}, ")
    assert said.count("\n") == 1
    installed = {"tflite-runtime": "2.14.0", "tensorflow": "2.21.0"}

    def version_of(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version_of)
    assert version.line().endswith(", tflite-runtime 2.14.0, TensorFlow 2.21.0")
    installed.clear()
    assert version.line().endswith(", no runtime, no TensorFlow")


# --- Completion -------------------------------------------------------------------------------------------------------


def proposed(*words: str, incomplete: str) -> list[str]:
    """What a shell proposes behind these words."""
    completion = ShellComplete(cli.main, {}, "edgeeff", "_EDGEEFF_COMPLETE")
    return [item.value for item in completion.get_completions(list(words), incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ((), "dev", ["devices"]),
        (("convert", "--variant"), "edgetpu-", ["edgetpu-s", "edgetpu-m", "edgetpu-l"]),
        (("calibrate", "photos", "--variant"), "lite4", ["lite4"]),
        (("convert", "--scheme"), "float", ["float32", "float16"]),
        (("pick", "--scheme"), "int", ["int8", "int16x8"]),
        (("convert", "--effort"), "", ["quick", "standard", "thorough"]),
        (("doctor",), "co", ["compare", "compile", "convert"]),
        (("convert", "--variant"), "resnet", []),
    ],
)
def test_names_are_completed(words: tuple[str, ...], incomplete: str, expected: list[str]) -> None:
    assert proposed(*words, incomplete=incomplete) == expected


@pytest.mark.parametrize("command", ["convert", "evaluate", "pick", "predict", "profile"])
def test_targets_that_can_be_measured_on_are_completed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path))
    (tmp_path / "targets.toml").write_text('[lab4]\nurl = "ssh://pi@lab4"\n[shed]\nurl = "ssh://pi@shed"\n')
    assert proposed(command, "--target", incomplete="l") == ["local", "lab4"]
    (tmp_path / "targets.toml").write_text("no toml")
    assert proposed(command, "--target", incomplete="") == ["local"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash itself for its version, and there is none")
    told = edgeeff(_EDGEEFF_COMPLETE=f"{shell}_source")
    assert told.returncode == 0, told.stderr
    assert f"_EDGEEFF_COMPLETE={shell}_complete" in told.stdout


def test_nothing_heavy_is_loaded_for_help() -> None:
    code = """
import sys
from edgeeff.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
print(sorted({"numpy", "rich", "msgspec", "asyncio", "edgeeff.scaling", "edgeeff.results"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("asked", "limit_s"), [("--help", 0.2), ("--version", 0.3)])
def test_help_feels_instant(asked: str, limit_s: float) -> None:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    spent = []
    for _ in range(3):
        before = cpu()
        assert edgeeff(asked).returncode == 0
        spent.append(cpu() - before)
    assert min(spent) <= limit_s


# --- scale ------------------------------------------------------------------------------------------------------------


def test_the_table_of_scale_is_the_golden_one(golden: Golden) -> None:
    golden("scale_2.txt", edgeeff("scale", "2").stdout)


def test_scale_as_json() -> None:
    found = document("scale", "3")
    factors = {"phi": 3.0, "depth": 1.728, "width": 1.331, "resolution": 1.520875, "flops_growth": 1.92027}
    network = scaling.phi_network(3)
    assert found == {
        "scaling": factors,
        "resolution_px": network.resolution,
        "parameters": scaling.parameters(network),
        "macs": scaling.macs(network),
    }


@pytest.mark.parametrize("phi", ["-3", "-2.5", "-.5", "-1e-3", "0", "7", "7.0"])
def test_every_phi_in_the_range_is_taken(phi: str) -> None:
    assert document("scale", phi)["scaling"]["phi"] == float(phi)


@pytest.mark.parametrize("phi", ["-3.0001", "7.1", "nan", "inf", "-inf", "1e9"])
def test_a_phi_outside_the_range_is_refused(phi: str) -> None:
    done = invoke("scale", phi)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"edgeeff: phi {float(phi):g} is outside [-3, 7]; choose one inside\n"


@pytest.mark.parametrize("text", ["two", "", "1,5", "--", "0x2", "b2"])
def test_a_phi_that_is_no_number_is_refused(text: str) -> None:
    done = invoke("scale", text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--alpha", "1.5"), "alpha * beta^2 * gamma^2 is 2.4, further than 0.1 from 2"),
        (("--alpha", "1.5", "--tolerance", "0.3"), "further than 0.3 from 2"),
        (("--alpha", "1.0"), "raise alpha (1), beta (1.1) or gamma (1.15), or raise the tolerance"),
        (("--alpha", "nan"), "alpha nan is no scaling constant"),
        (("--beta", "-1.1"), "beta -1.1 is no scaling constant"),
        (("--gamma", "inf"), "gamma inf is no scaling constant"),
        (("--tolerance", "nan"), "further than nan from 2"),
        (("--tolerance", "-0.1"), "Invalid value for '--tolerance'"),
        (("--tolerance", "1e9", "--alpha", "1e9"), "Invalid value for '--tolerance'"),
    ],
)
def test_constants_that_do_not_double_the_macs_are_refused(arguments: tuple[str, ...], reason: str) -> None:
    done = invoke("scale", "2", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr


def test_other_constants_are_used() -> None:
    found = document("scale", "2", "--alpha", "1.5", "--beta", "1", "--gamma", "1.15")
    assert found["scaling"] == {
        "phi": 2.0, "depth": 2.25, "width": 1.0, "resolution": 1.3225, "flops_growth": 1.98375,
    }  # fmt: skip


def test_what_convert_cannot_make_is_not_proposed() -> None:
    assert invoke("scale", "-1.5").stdout.endswith("Next: edgeeff convert --phi -1.5\n")
    assert "Next:" not in invoke("scale", "2", "--alpha", "1.25").stdout


# --- variants, schemes ------------------------------------------------------------------------------------------------


def test_the_table_of_variants_is_the_golden_one(golden: Golden) -> None:
    golden("variants.txt", edgeeff("variants").stdout)


def test_the_table_of_schemes_is_the_golden_one(golden: Golden) -> None:
    golden("schemes.txt", edgeeff("schemes").stdout)


@pytest.mark.parametrize("table", [("variants",), ("scale", "-1"), ("schemes",)])
def test_tables_fit_in_80_columns_and_are_not_cut(table: tuple[str, ...]) -> None:
    shown = invoke(*table).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "\x1b" not in shown


def test_tables_are_readable_where_the_terminal_has_ascii_only() -> None:
    done = edgeeff("variants", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "edgetpu-l" in done.stdout


def test_variants_as_json() -> None:
    rows = document("variants")["variants"]
    assert [row["variant"] for row in rows] == list(VARIANTS)
    (b2,) = (row for row in rows if row["variant"] == "b2")
    assert (b2["depth"], b2["width"], b2["resolution"], b2["parameters"]) == (1.2, 1.1, 260, 9_109_994)


@pytest.mark.parametrize("family", ["b", "v2", "lite", "edgetpu"])
def test_one_family(family: str) -> None:
    rows = document("variants", "--family", family)["variants"]
    assert [row["variant"] for row in rows] == [name for name, row in VARIANTS.items() if row.family == family]


def test_schemes_as_json() -> None:
    assert [row["name"] for row in document("schemes")["schemes"]] == list(SCHEMES)


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("scale",),
        ("scale", "2", "3"),
        ("scale", "2", "--foo"),
        ("scale", "--foo", "2"),
        ("variants", "--foo"),
        ("variants", "b2"),
        ("variants", "--family", "resnet"),
        ("schemes", "--family", "b"),
        ("convert", "--samples", "0"),
        ("convert", "--samples", "many"),
        ("convert", "--threads", "0"),
        ("convert", "--seed", "-1"),
        ("convert", "--resolution", "0"),
        ("convert", "--input-type", "int16"),
        ("inspect",),
        ("quantize",),
        ("--foo",),
        (),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: edgeeff" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("too slow"), 1),
        (InputError("no such thing"), 2),
        (DeviceError("no answer"), 3),
        (MissingExtraError("Pillow", "host"), 4),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_a_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, debug: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(scaling, "rows", fail)
    result = invoke("variants", "--json", *(["--debug"] if debug else []))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.endswith(f"edgeeff: {error}\n")
    assert ("Traceback" in result.stderr) == debug


def test_an_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "rows", interrupt)
    result = invoke("variants")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "edgeeff: interrupted; no file was left half written\n"


@pytest.mark.parametrize(
    ("text", "expected"), [("0,1", (0.0, 1.0)), ("-1,1", (-1.0, 1.0)), (" 0 , 255 ", (0.0, 255.0)), (None, None)]
)
def test_an_input_range_is_two_numbers(text: str | None, expected: tuple[float, float] | None) -> None:
    assert value_range(text) == expected


@pytest.mark.parametrize("text", ["", "1", "0,1,2", "a,b", "1,0", "0,0", "nan,1", "0;1"])
def test_an_input_range_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--input-range '{text}'")):
        value_range(text)


def test_json_is_utf_8_whatever_the_terminal_speaks() -> None:
    code = "from edgeeff.command import print_json; print_json({'path': 'm\\u00fcsli'})"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout.decode("utf-8")) == {"path": "müsli"}
