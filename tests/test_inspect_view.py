from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgeeff.converters import metadata
from edgeeff.converters.float_model import finish
from edgeeff.converters.inspect import inspect
from edgeeff.converters.inspect_view import render
from edgeeff.converters.mixed import Mixer
from edgeeff.converters.quantize import collect_ranges
from tests import test_inspect as files
from tests import tiny


def shown(folder: Path, content: bytes, width: int = 80) -> str:
    path = folder / "m.tflite"
    path.write_bytes(content)
    stream = io.StringIO()
    render(inspect(path), Console(file=stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return "\n".join(line.rstrip() for line in lines)


def test_a_float_classifier(tmp_path: Path) -> None:
    text = shown(tmp_path, tiny.classifier(), width=300)
    assert f"File      {tmp_path}/m.tflite: 0.00 MB" in text
    assert "Input     float32 1 x 8 x 8 x 3\n" in text
    assert "XNNPACK   takes 7 of 7 operators in 1 partition (here, LiteRT " in text
    assert "Metadata  none" in text
    assert "Left by XNNPACK" not in text
    assert "run time" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_left_has_its_reason(tmp_path: Path, width: int) -> None:
    text = shown(tmp_path, files.unary("QUANTIZE", "uint8", "int8"), width)
    assert "real = (stored - 0) * 0.5" in text
    assert "QUANTIZE      1        0                 uint8 to int8" in text
    assert "XNNPACK's QUANTIZE does not turn uint8 into int8  1 QUANTIZE" in text


def test_shapes_known_at_run_time_are_named(tmp_path: Path) -> None:
    text = shown(tmp_path, files.computed_shape(), width=200)
    assert "float32 ? x 8 x 8 x 4\n" in text
    assert "in 4 operators: LOGISTIC 0 in block3b, SHAPE 1 in block3b" in text
    assert "Convert at batch 1" in text


def test_blocks_are_told_where_they_differ(tmp_path: Path) -> None:
    model = finish(tiny.swish_classifier())
    ranges = collect_ranges(model, tiny.images(4, size=16))
    mixer = Mixer(model, ranges, ranges)
    middle = next(unit for unit in mixer.units if unit.name == "block2")
    text = shown(tmp_path, mixer.content({middle: "whole"}), width=200)
    assert "Blocks     float: stem, block1, top; static: block2\n" in text
    assert "Blocks" not in shown(tmp_path, model.content)


def test_a_file_that_litert_cannot_run(tmp_path: Path) -> None:
    text = shown(tmp_path, files.custom("edgetpu-custom-op"), width=200)
    assert "it is compiled for the Edge TPU" in text
    assert "edgetpu-custom-op      1        ?" in text


def test_metadata_is_shown_as_it_is(tmp_path: Path) -> None:
    content = metadata.embed(
        tiny.classifier(),
        name="Tiny [bold]",
        description="five classes",
        labels=["tench", "goldfish", "[red]shark", "ray", "hen"],
        contract=metadata.InputContract(8, 8, 3, "float32", (127.5,) * 3, (128.0,) * 3),
        provenance={"variant": "b0", "calibration": {"count": 3}, "seed": 7},
    )
    text = shown(tmp_path, content, width=200)
    assert "Tiny [bold]: five classes" in text
    assert "5: tench, goldfish, [red]shark, ..." in text
    assert "(pixel - mean) / std with mean 127.5, 127.5, 127.5 and std 128, 128, 128" in text
    assert "variant b0, calibration (count 3), seed 7" in text
