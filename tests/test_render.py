"""What people read of a conversion."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

from rich.console import Console

from edgeeff import render
from edgeeff.results import ConversionRecord
from tests.test_results import CONVERSION

Golden = Callable[[str, str], None]


def printed(record: ConversionRecord, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    render.conversion(record, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_mixed_file_has_the_table_of_all_points(golden: Golden) -> None:
    golden("conversion_mixed.txt", printed(CONVERSION))


def test_the_chosen_point_is_marked_and_the_float_model_named() -> None:
    shown = printed(dataclasses.replace(CONVERSION, source="b[0].keras", weights="as in the model"), width=200)
    marked = [line.split() for line in shown.splitlines() if line.strip().startswith("->")]
    assert marked == [["->", "98.5", "97.5", "0.50", "31.2", "5.00", "1/1/0"]]
    assert "agreement at least 98 %, at most 30 ms: NOT MET; timed on pi4, 4 threads, float 62.5 ms" in shown
    assert "edgeeff evaluate müsli/b0_int8.tflite --baseline b[0].keras --data DIR" in shown
    assert "edgeeff profile müsli/b0_int8.tflite --target pi4 --threads 4" in shown


def test_other_schemes_have_no_table() -> None:
    shown = printed(dataclasses.replace(CONVERSION, scheme="int8", mixed=None))
    assert "mixed" not in shown
    assert shown.rstrip().endswith("next: edgeeff inspect müsli/b0_int8.tflite")
