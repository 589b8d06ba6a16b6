"""The layout of the repository, what gets built and installed from it, and the pins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = ROOT / ".ci" / "constraints.txt"
TOP_LEVEL = {
    *("pyproject.toml", "edgeeff", "converters", "devices", "calibration", "tests", "docs"),
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".ci", ".gitignore"),
}
SUBPACKAGES = ["converters", "devices", "calibration"]
PACKAGES = {name.replace(".", "/"): folder for name, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()}
"""Where a package is once installed, and its folder in the repository."""


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, so there is no list of the project's own files")
    output = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in output.split("\0") if name and (ROOT / name).exists()]


def package_files() -> set[str]:
    """Every file of the packages, by the path it has once installed."""
    return {
        f"{installed}/{path.relative_to(ROOT / folder)}"
        for installed, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }


def run(*command: str | Path, cwd: Path, python_path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, f"{command} exited {result.returncode}: {result.stderr}"
    return result.stdout


# --- Layout -----------------------------------------------------------------------------------------------------------


def test_the_top_level_is_fixed() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked_files()} == TOP_LEVEL


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_the_links_are_relative_and_lead_to_the_package(name: str) -> None:
    link = ROOT / "edgeeff" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    registry = re.compile(rb"\b(?:pypi|pythonhosted|npmjs|debian|conda|anaconda)\.(?:org|com|net)\b|/simple[/]")
    machine = re.compile(rb"(?<![\w.])/(?:work|root|tmp/w)/")
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        if path.is_file()
        for pattern in (registry, machine)
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


# --- What is built ----------------------------------------------------------------------------------------------------


def test_the_wheel_has_every_file_of_the_packages_under_edgeeff_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert {"edgeeff/py.typed", "edgeeff/converters/__init__.py", "edgeeff/devices/__init__.py"} <= names


def test_the_wheel_carries_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_has_every_file_of_the_packages_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()]
    in_repository = {
        str(path.relative_to(ROOT))
        for folder in PACKAGES.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.split("/")[0] in PACKAGES.values()} == in_repository
    assert len(names) == len(set(names))


# --- What runs --------------------------------------------------------------------------------------------------------


def shadows(folder: Path) -> Path:
    """Fill a folder with modules that a user may have, and that fail when they are imported in place of ours."""
    for name in SUBPACKAGES:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the user\\'s own {name}.py was imported')\n")
    return folder


IMPORT_ALL = "import edgeeff, edgeeff.converters, edgeeff.devices, edgeeff.calibration; print(edgeeff.__file__)"


def test_an_uninstalled_checkout_runs_beside_a_users_own_modules(checkout: Path, tmp_path: Path) -> None:
    here = shadows(tmp_path)
    assert run(sys.executable, "-c", IMPORT_ALL, cwd=here, python_path=checkout).strip().startswith(str(checkout))
    assert "b0" in run(sys.executable, "-m", "edgeeff", "variants", cwd=here, python_path=checkout)


def test_an_uninstalled_checkout_runs_from_its_own_folder(checkout: Path) -> None:
    assert run(sys.executable, "-c", IMPORT_ALL, cwd=checkout).strip().startswith(str(checkout))
    assert "b0" in run(sys.executable, "-m", "edgeeff", "variants", cwd=checkout)


def test_the_installed_wheel_runs_beside_a_users_own_modules(light_python: Path, tmp_path: Path) -> None:
    here = shadows(tmp_path)
    environment = light_python.parent.parent
    assert run(light_python, "-c", IMPORT_ALL, cwd=here).strip().startswith(str(environment))
    assert "b0" in run(light_python, "-m", "edgeeff", "variants", cwd=here)
    assert "b0" in run(light_python.parent / "edgeeff", "variants", cwd=here)


def test_the_installed_wheel_puts_no_generic_name_beside_it(light_python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('converters','devices','calibration') if u.find_spec(n)])"
    assert run(light_python, "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_version_is_said_once(light_python: Path, tmp_path: Path) -> None:
    code = "import edgeeff, importlib.metadata as m; print(edgeeff.__version__, m.version('edgeeff'))"
    assert run(light_python, "-c", code, cwd=tmp_path).split() == [PROJECT["project"]["version"]] * 2


# --- Pins -------------------------------------------------------------------------------------------------------------


def pins() -> list[Requirement]:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line and not line.startswith((" ", "#"))]


def test_the_pins_hold_names_versions_and_hashes_only() -> None:
    name_and_version = r"[a-z0-9]+(?:-[a-z0-9]+)*==[0-9][0-9a-z.]*(?: ; [\w .*<>='!]+)? \\"
    sha256 = r"    --hash=sha256:[0-9a-f]{64}(?: \\)?"
    allowed = re.compile(rf"#.*|{name_and_version}|{sha256}")
    odd = [line for line in PINS.read_text(encoding="utf-8").splitlines() if not allowed.fullmatch(line)]
    assert odd == []
    assert "://" not in PINS.read_text(encoding="utf-8")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_package_that_the_environment_needs_is_pinned_once_within_its_range(python: str, machine: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "platform_machine": machine,
        "sys_platform": "linux",
        "extra": "",
    }

    def applies(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(environment)

    applying = [pin for pin in pins() if applies(pin)]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in applying}
    assert len(pinned) == len(applying)
    extras = PROJECT["project"]["optional-dependencies"]
    lists = [
        PROJECT["project"]["dependencies"],
        *(extras[name] for name in extras if name != "tflite-runtime"),
        *PROJECT["dependency-groups"].values(),
    ]
    for requirement in (Requirement(line) for entries in lists for line in entries):
        if applies(requirement):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
