"""The networks to choose from, and what is known of them before anything is converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeeff import scaling
from edgeeff.errors import InputError
from edgeeff.picking.ladder import FAMILIES, ladder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ladder_rises_in_work_and_size(family: str) -> None:
    rungs = ladder(family, "int8")
    assert [one.macs for one in rungs] == sorted(one.macs for one in rungs)
    assert [one.size_bytes for one in rungs] == sorted(one.size_bytes for one in rungs)
    assert len({one.file_name for one in rungs}) == len(rungs)
    assert {one.network.family for one in rungs} == {family}


def test_the_phi_family_has_steps_of_a_tenth() -> None:
    phis = [one.network.phi for one in ladder("phi", "int8")]
    assert phis == [step / 10 for step in range(-30, 71)]


def test_sizes_of_files_that_edgeeff_converted() -> None:
    sizes = {"b0": (6_235_263, 21_131_999), "b4": (21_999_647, 77_185_215), "b7": (72_750_031, 264_773_839)}
    for scheme, place in (("int8", 0), ("float32", 1)):
        found = {one.name: one.size_bytes for one in ladder("b", scheme)}
        for name, files in sizes.items():
            assert found[name] == pytest.approx(files[place], rel=0.01)


def test_schemes_differ_in_size_as_they_store_weights() -> None:
    b0 = {scheme: ladder("b", scheme)[0].size_bytes for scheme in ("float32", "float16", "weight-only", "int8")}
    assert b0["float16"] / b0["float32"] == pytest.approx(0.5, abs=0.01)
    assert b0["weight-only"] / b0["int8"] == pytest.approx(0.94, abs=0.01)  # biases have no scales


def test_published_accuracy_holds_for_the_published_resolution_only() -> None:
    lite0 = ladder("lite", "int8")[0]
    assert (lite0.top1, lite0.top1_source) == (74.4, "tensorflow/tpu, models/official/efficientnet/lite/README.md")
    assert ladder("lite", "float32")[0].top1 == 75.1
    assert ladder("b", "int8")[0].top1_source == "arXiv:1905.11946, table 2 (of the float network)"
    assert ladder("lite", "int8", 200)[0].top1 is None
    assert ladder("lite", "int8", 224)[0].top1 == 74.4


def test_the_command_and_the_file_name_say_what_differs() -> None:
    assert ladder("b", "int8")[2].options == "--variant b2 --scheme int8"
    phi = next(one for one in ladder("phi", "float32", 160) if one.network.phi == -0.5)
    assert phi.options == "--phi -0.5 --resolution 160 --scheme float32"
    assert (ladder("b", "int8", 224)[0].file_name, phi.file_name) == ("b0_int8.tflite", "phi-0.5-160px_float32.tflite")


def test_a_scheme_without_a_latency_model_is_refused() -> None:
    with pytest.raises(InputError, match="no latency is predicted for 'dynamic'"):
        ladder("b", "dynamic")


def test_the_network_of_a_candidate_is_what_its_name_says() -> None:
    for one in ladder("lite", "int8", 200):
        assert one.network == scaling.network(one.name, resolution=200)
        assert Path(one.file_name).suffix == ".tflite"
