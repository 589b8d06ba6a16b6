"""The table of quantization schemes."""

from __future__ import annotations

import pytest

from edgeeff.converters.schemes import SCHEMES, scheme
from edgeeff.errors import UnknownNameError


def test_the_names_are_those_that_people_use() -> None:
    assert list(SCHEMES) == ["float32", "float16", "dynamic", "weight-only", "int8", "int16x8", "mixed"]
    assert all(scheme(name).name == name for name in SCHEMES)


def test_only_what_has_integer_activations_needs_calibration() -> None:
    assert {name for name, row in SCHEMES.items() if row.calibrated} == {"int8", "int16x8", "mixed"}
    assert {name for name, row in SCHEMES.items() if row.integer} <= {"int8"}


def test_only_what_is_int8_takes_camera_pixels_unasked() -> None:
    assert {name for name, row in SCHEMES.items() if row.input_type == "uint8"} == {"int8", "mixed"}


def test_what_is_slow_on_cpus_says_so() -> None:
    slow = {name for name, row in SCHEMES.items() if row.slow_on_cpu}
    assert slow == {"dynamic", "int16x8"}
    assert all("slower" in SCHEMES[name].summary for name in slow)


@pytest.mark.parametrize(("name", "nearest"), [("INT8", "int8"), ("weights-only", "weight-only"), ("fp16", "float16")])
def test_an_unknown_scheme_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown scheme '{name}': did you mean .*{nearest}"):
        scheme(name)
