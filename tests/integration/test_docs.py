"""Every command in the documentation runs, in the order of its page, with the files that a reader would have."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")
# Small networks, such as a reader has trained: with preprocessing inside, and without.
NETWORKS: dict[str, dict[str, float]] = {"my": {"scale": 1 / 127.5, "offset": -1.0}, "bare": {}}


def commands(page: Path) -> list[str]:
    lines = [line for block in BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, lite0_int8: Path) -> Path:
    """A folder with what the pages take for granted: two models, photographs in class folders, class names."""
    from PIL import Image  # only the host has it

    keras = pytest.importorskip("keras", reason="needs Keras; install the extra host")
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy2(lite0_int8, folder)
    for name, rescaling in NETWORKS.items():
        keras.Sequential(
            [
                keras.layers.Input((32, 32, 3)),
                *([keras.layers.Rescaling(**rescaling)] if rescaling else []),
                keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        ).save(folder / f"{name}.keras")
    random = np.random.default_rng(0)
    for index in range(24):
        file = folder / "photos" / ("cat", "dog", "fish")[index % 3] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    (folder / "names.txt").write_text("cat\ndog\nfish\n")
    return folder


@pytest.fixture(scope="module")
def ran() -> dict[str, int]:
    """Exit statuses of commands that ran already: pages repeat some, and one made `lite0_int8`."""
    return {"edgeeff convert --variant lite0": 0}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.name))
def test_every_command_of_a_page_runs(page: Path, desk: Path, ran: dict[str, int]) -> None:
    for command in commands(page):
        if command in ran:
            continue
        program, *arguments = shlex.split(command)
        assert program == "edgeeff", f"{page.name}: {command}"
        done = subprocess.run(
            [sys.executable, "-m", "edgeeff", *arguments],
            cwd=desk,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        ran[command] = done.returncode
        assert done.returncode == 0, f"{page.name}: {command}\n{done.stderr}"
        assert done.stdout, f"{page.name}: {command} printed nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_every_option_of_convert_is_in_its_page_or_help() -> None:
    from edgeeff.cli import main

    convert = main.commands["convert"]
    undocumented = [p.name for p in convert.params if not getattr(p, "help", None)]
    assert undocumented == []
