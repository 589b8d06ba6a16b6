"""The base install, without any extra: what has to work in it, and what it says of the rest.

The environment holds the built wheel and the packages that its metadata requires, nothing else; TensorFlow, LiteRT and
Pillow are not hidden from it, they are not there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("tensorflow", "keras", "tf_keras", "ai_edge_litert", "litert_quantizer", "flatbuffers", "PIL", "sklearn")


def edgeeff(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "edgeeff", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def evaluate(python: Path, code: str, cwd: Path) -> str:
    command = [str(python), "-c", code]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_environment_is_light(light_python: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {HEAVY} if u.find_spec(name)])"
    assert evaluate(light_python, code, tmp_path) == "[]"


def test_the_help_of_every_command_is_shown(light_python: Path, tmp_path: Path) -> None:
    code = "from edgeeff.cli import main; print(*main.commands)"
    commands = evaluate(light_python, code, tmp_path).split()
    assert {"scale", "variants", "convert", "inspect", "demo"} <= set(commands)
    for command in ([], *([name] for name in commands)):
        result = edgeeff(light_python, *command, "--help", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("Usage: ")
        assert result.stderr == ""


def test_variants_and_scale_answer(light_python: Path, tmp_path: Path) -> None:
    variants = edgeeff(light_python, "variants", "--json", cwd=tmp_path)
    assert variants.returncode == 0, variants.stderr
    assert "lite4" in json.dumps(json.loads(variants.stdout))

    scale = edgeeff(light_python, "scale", "2", "--json", cwd=tmp_path)
    assert scale.returncode == 0, scale.stderr
    assert "1.44" in json.dumps(json.loads(scale.stdout))


def test_recorded_boards_are_picked_from(light_python: Path, tmp_path: Path) -> None:
    arguments = ("pick", "--budget", "100ms", "--family", "lite", "--target", "recorded:raspberry-pi-4")
    answered = edgeeff(light_python, *arguments, "--json", cwd=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["winner"] == "lite3"
    shown = edgeeff(light_python, *arguments, cwd=tmp_path)
    assert "RECORDED, not measured now: MLPerf Inference v1.1" in shown.stdout
    drawn = edgeeff(light_python, *arguments, "--plot", "pick.svg", cwd=tmp_path)
    assert drawn.returncode == 4
    assert "edgeeff[plot]" in drawn.stderr
    (tmp_path / "pick.json").write_text(answered.stdout, encoding="utf-8")
    page = edgeeff(light_python, "report", "pick.json", cwd=tmp_path)
    assert page.returncode == 4
    assert "edgeeff[report]" in page.stderr
    told = edgeeff(light_python, "report", "pick.json", "--format", "md", "-o", "-", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "lite3 fits" in told.stdout or "not certain" in told.stdout
    converted = edgeeff(light_python, "pick", "--budget", "30ms", cwd=tmp_path)
    assert converted.returncode == 4
    assert "edgeeff[host]" in converted.stderr


def test_records_are_written_and_read(light_python: Path, tmp_path: Path) -> None:
    code = """
from pathlib import Path
from edgeeff import results
latency = results.Latency(0.005, 0.006, 0.005, 0.004, (0.0049, 0.0051), 100, 3)
record = results.ProfileRecord(
    runtime=results.Runtime("ai-edge-litert", "2.3.0"), device=results.this_device(),
    model=results.ModelFile("b0.tflite", "0" * 64, 5_000_000), threads=1, mode="quick", latency=latency,
    import_s=0.3, load_s=0.1, first_inference_s=0.01, peak_rss_bytes=1, runtime_rss_bytes=1,
)
Path("profile.json").write_text(results.to_json(record))
print(results.read_record(Path("profile.json")) == record)
"""
    assert evaluate(light_python, code, tmp_path) == "True"


def test_the_device_side_imports(light_python: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, edgeeff.devices
names = [module.name for module in pkgutil.iter_modules(edgeeff.devices.__path__, "edgeeff.devices.")]
names.remove("edgeeff.devices.ssh")  # the one module that needs the extra ssh
for name in names:
    importlib.import_module(name)
print(*names)
"""
    assert "edgeeff.devices." in evaluate(light_python, code, tmp_path)


def test_targets_are_kept_and_listed(light_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    added = edgeeff(light_python, "devices", "add", "pi5", "ssh://pi@pi5.local", cwd=tmp_path)
    assert (added.returncode, added.stderr) == (0, "")
    listed = edgeeff(light_python, "devices", "list", "--json", cwd=tmp_path)
    assert [target["name"] for target in json.loads(listed.stdout)["targets"]] == ["local", "pi5"]
    assert "raspberry-pi-5" in {board["key"] for board in json.loads(listed.stdout)["boards"]}


def test_a_board_over_ssh_names_the_extra(light_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    arguments = ("devices", "add", "pi5", "ssh://pi@pi5.local", "--accept-host-key", "SHA256:x")
    result = edgeeff(light_python, *arguments, cwd=tmp_path)
    assert result.returncode == 4, result.stderr
    assert "asyncssh is not installed; install it with: python -m pip install 'edgeeff[ssh]'" in result.stderr
    assert not (tmp_path / "config" / "targets.toml").exists()


@pytest.mark.parametrize("arguments", [["convert", "--variant", "b2"], ["demo"]])
def test_what_needs_the_host_extra_names_the_install_command(
    light_python: Path, tmp_path: Path, arguments: list[str]
) -> None:
    result = edgeeff(light_python, *arguments, cwd=tmp_path)
    assert result.returncode == 4, result.stderr
    assert "python -m pip install 'edgeeff[host]'" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_the_doctor_says_beforehand_what_a_command_does(light_python: Path, tmp_path: Path, command: str) -> None:
    arguments = {"convert": ["--variant", "b2"], "inspect": ["a.tflite"]}
    told = edgeeff(light_python, "doctor", command, "--json", cwd=tmp_path)
    done = edgeeff(light_python, command, *arguments[command], cwd=tmp_path)
    assert told.returncode == done.returncode == 4, told.stderr
    assert told.stderr.partition("install it with")[2] == done.stderr.partition("install it with")[2]
    (needed,) = (one for one in json.loads(told.stdout)["commands"] if one["when"] is None)
    assert needed["get"] == done.stderr.partition("install it with: ")[2].strip()


def test_the_python_api_answers_or_names_the_extra(light_python: Path, tmp_path: Path) -> None:
    code = """
import edgeeff
print(edgeeff.pick("100ms", family="lite", target="recorded:raspberry-pi-4").winner)
try:
    edgeeff.convert(variant="lite0")
except edgeeff.errors.MissingExtraError as error:
    print(error.extra)
"""
    assert evaluate(light_python, code, tmp_path).split() == ["lite3", "host"]


@pytest.mark.parametrize("arguments", [["--help"], ["variants"], ["scale", "2"], ["convert", "--help"]])
def test_light_commands_stay_light_where_everything_is_installed(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from edgeeff.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print(sorted({set(HEAVY)!r} & set(sys.modules)))
"""
    assert evaluate(Path(sys.executable), code, tmp_path).splitlines()[-1] == "[]"
