"""What the documentation says holds: its commands and programs run, in the order of their page, with the files that a
reader would have, and its links lead somewhere, also those to a heading."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# Training a B0 takes minutes, and its weights are elsewhere: what takes its place in a test that runs when asked for.
LIGHTER = {
    "own-model.md": {
        """keras.applications.EfficientNetB0(
    weights="imagenet", include_top=False, input_shape=(SIZE, SIZE, 3), pooling="avg"
)""": "keras.Sequential([keras.layers.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D()])",
        "SIZE, CLASSES = 224": "SIZE, CLASSES = 32",
    }
}
# Small networks, such as a reader has trained: with preprocessing inside, and without.
NETWORKS: dict[str, dict[str, float]] = {"my": {"scale": 1 / 127.5, "offset": -1.0}, "bare": {}}


def commands(page: Path) -> list[str]:
    lines = [line for block in BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def programs(page: Path) -> str:
    """The Python of a page as one program."""
    return "\n".join(PROGRAM.findall(page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as Markdown renderers make it: lower case, hyphens for spaces, no signs."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-")
        assert name not in found, f"{page.name} has two headings of that name: {heading}"
        found.add(name)
    return found


def run_program(program: str, desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=desk, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{program}\n{done.stderr}"


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
    (folder / "my_float32.tflite").write_bytes(tiny.classifier(size=32, classes=3))
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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) or programs(page)], ids=lambda page: str(page.name)
)
def test_every_command_and_program_of_a_page_runs(page: Path, desk: Path, ran: dict[str, int]) -> None:
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
    if programs(page) and page.name not in LIGHTER:
        run_program(programs(page), desk)


@pytest.mark.accuracy
@pytest.mark.parametrize("name", LIGHTER)
def test_a_heavy_program_runs_when_it_is_made_lighter(name: str, desk: Path) -> None:
    program = programs(ROOT / "docs" / name)
    for before, after in LIGHTER[name].items():
        assert before in program
        program = program.replace(before, after)
    run_program(program.replace("epochs=5", "epochs=1"), desk)
    assert (desk / "flowers.txt").read_text().split() == ["cat", "dog", "fish"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = []
    for file, anchor in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        other = page.parent / file if file else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            missing.append(f"{file}#{anchor}")
    assert missing == []


def test_a_link_to_a_heading_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`/three: four\n\n```\n# a comment\n```\n[see](#one-twothree-four), [not](#a-comment)\n")
    assert anchors(page) == {"one-twothree-four"}
    with pytest.raises(AssertionError):
        test_every_link_leads_somewhere(page)


def test_every_option_of_convert_is_in_its_page_or_help() -> None:
    from edgeeff.cli import main

    convert = main.commands["convert"]
    undocumented = [p.name for p in convert.params if not getattr(p, "help", None)]
    assert undocumented == []
