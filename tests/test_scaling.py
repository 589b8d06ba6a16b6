"""Scaling by formula, against the figures that Keras counts and that the authors published."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeeff import scaling
from edgeeff.errors import InputError, UnknownNameError
from edgeeff.scaling import (
    ALPHA,
    BETA,
    GAMMA,
    VARIANTS,
    Block,
    ImpliedPhi,
    compound,
    macs,
    network,
    parameters,
    phi_network,
    round_filters,
    round_repeats,
    total_parameters,
)

# Trainable parameters, and those plus the batch normalizations' statistics, as Keras 3.15 counts its own models with
# weights=None (for B0-B7 without the 7 numbers of their Normalization layer). The last test counts some of them anew.
KERAS_COUNTS = {
    "b0": (5_288_548, 5_330_564),
    "b1": (7_794_184, 7_856_232),
    "b2": (9_109_994, 9_177_562),
    "b3": (12_233_232, 12_320_528),
    "b4": (19_341_616, 19_466_816),
    "b5": (30_389_784, 30_562_520),
    "b6": (43_040_704, 43_265_136),
    "b7": (66_347_960, 66_658_680),
    "v2-b0": (7_139_704, 7_200_312),
    "v2-b1": (8_141_052, 8_212_124),
    "v2-b2": (10_096_086, 10_178_374),
    "v2-b3": (14_358_406, 14_467_622),
    "v2-s": (21_458_488, 21_612_360),
    "v2-m": (54_139_356, 54_431_388),
    "v2-l": (118_515_272, 119_027_848),
}
# Weights times output positions over the layers of Keras' models; the last test counts some of them anew.
GIGA_MACS = {"b0": 0.386, "b1": 0.687, "b2": 0.994, "b3": 1.827, "b4": 4.394, "b5": 10.27, "b6": 19.07, "b7": 37.75}

phis = st.floats(scaling.PHI_MIN, scaling.PHI_MAX)
names = st.sampled_from(sorted(VARIANTS))


# --- compound scaling


def test_phi_2_and_3_are_exact() -> None:
    two, three = compound(2), compound(3)
    assert (two.depth, two.width, two.resolution) == (1.44, 1.21, 1.3225)
    assert (three.depth, three.width, three.resolution) == (1.728, 1.331, 1.520875)
    assert json.dumps(dataclasses.asdict(three)) == (
        '{"phi": 3.0, "depth": 1.728, "width": 1.331, "resolution": 1.520875, "flops_growth": 1.92027}'
    )


def test_phi_0_is_the_baseline() -> None:
    assert dataclasses.astuple(compound(0)) == (0, 1, 1, 1, 1.92027)


@given(phis, phis)
def test_every_multiplier_grows_with_phi(one: float, other: float) -> None:
    assume(abs(one - other) > 1e-6)
    small, large = compound(min(one, other)), compound(max(one, other))
    assert small.depth < large.depth
    assert small.width < large.width
    assert small.resolution < large.resolution


@given(phis)
def test_multipliers_are_the_powers_to_twelve_decimals(phi: float) -> None:
    result = compound(phi)
    expected = (ALPHA**phi, BETA**phi, GAMMA**phi)
    assert (result.depth, result.width, result.resolution) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("phi", [math.nan, math.inf, -math.inf, -3.01, 7.01])
def test_phi_outside_the_range_is_refused(phi: float) -> None:
    with pytest.raises(InputError, match=rf"phi {phi:g} is outside \[-3, 7\]"):
        compound(phi)


@pytest.mark.parametrize("constants", [{"alpha": 0.99}, {"beta": 0.5}, {"gamma": math.nan}, {"alpha": math.inf}])
def test_a_constant_that_does_not_scale_up_is_refused(constants: dict[str, float]) -> None:
    ((name, value),) = constants.items()
    with pytest.raises(InputError, match=f"{name} {value:g} .*at least 1"):
        compound(1, **constants)


def test_constants_must_about_double_the_macs() -> None:
    with pytest.raises(InputError, match=r"is 2\.4\b.*lower alpha \(1\.5\)"):
        compound(1, alpha=1.5)
    with pytest.raises(InputError, match=r"is 1\.6\b.*raise alpha \(1\)"):
        compound(1, alpha=1.0)
    with pytest.raises(InputError, match="further than nan"):
        compound(1, tolerance=math.nan)
    assert compound(1, alpha=1.5, tolerance=0.5).depth == 1.5
    assert compound(1, alpha=2.0, beta=1.0, gamma=1.0).flops_growth == 2


# --- rounding


@given(st.integers(1, 4000), st.floats(0.3, 6))
def test_channels_are_eights_near_the_exact_width(channels: int, width: float) -> None:
    exact, rounded = channels * width, round_filters(channels, width)
    assert rounded % 8 == 0
    assert rounded >= max(8, 0.9 * exact)
    assert rounded - exact < 8
    if exact >= 80:
        assert rounded <= 1.1 * exact


@given(st.integers(1, 4000), st.floats(0.3, 6), st.floats(0.3, 6))
def test_wider_is_never_narrower(channels: int, one: float, other: float) -> None:
    assert round_filters(channels, min(one, other)) <= round_filters(channels, max(one, other))


def test_v2_rounds_channels_without_the_floor() -> None:
    assert round_filters(16, 1.2) == 24
    assert round_filters(16, 1.2, floor=0.0) == 16
    assert network("v2-b3").blocks[0].out_channels == 16


@given(st.integers(1, 40), st.floats(0.3, 4))
def test_repeats_round_up(repeats: int, depth: float) -> None:
    assert 0 <= round_repeats(repeats, depth) - repeats * depth < 1


# --- counts


@pytest.mark.parametrize("name", KERAS_COUNTS)
def test_parameters_equal_keras(name: str) -> None:
    net = network(name)
    assert (parameters(net), total_parameters(net)) == KERAS_COUNTS[name]


@pytest.mark.parametrize(
    ("phi", "resolution", "count"), [(-1, 195, 4_548_152), (0.5, 240, 8_441_486), (1.5, 276, 11_005_182)]
)
def test_parameters_at_any_phi(phi: float, resolution: int, count: int) -> None:
    net = phi_network(phi)
    assert (net.resolution, parameters(net)) == (resolution, count)


@pytest.mark.parametrize(("name", "count"), [("lite0", 4_694_024), ("lite1", 5_470_344), ("lite2", 6_150_168)])
def test_lite_parameters_are_those_of_the_published_weights(name: str, count: int) -> None:
    assert total_parameters(network(name)) == count


@pytest.mark.parametrize("name", GIGA_MACS)
def test_macs_of_b_variants(name: str) -> None:
    assert macs(network(name)) / 1e9 == pytest.approx(GIGA_MACS[name], rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_agree_with_what_was_published(name: str) -> None:
    """Published figures have two or three digits, and the paper's MACs of B4 and B5 are 4 % low."""
    net = network(name)
    assert net.published.parameters is not None
    assert net.published.macs is not None
    assert parameters(net) == pytest.approx(net.published.parameters, rel=0.02)
    assert macs(net) == pytest.approx(net.published.macs, rel=0.055)


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2", "lite3", "lite4"])
def test_published_lite_macs_count_three_more_operations_per_normalized_value(name: str) -> None:
    net = network(name)
    side = (net.resolution + 1) // 2
    values = net.stem_channels * side**2
    for block in net.blocks:
        values += block.expanded_channels * side**2 if block.expand_ratio != 1 else 0
        side = (side + 1) // 2 if block.stride == 2 else side
        values += (block.expanded_channels + block.out_channels) * side**2
    values += net.head_channels * side**2
    assert macs(net) + 3 * values == pytest.approx(net.published.macs, rel=0.005)


@pytest.mark.parametrize(
    ("name", "mega_parameters", "giga_macs"),
    [("edgetpu-s", 5.44, 1.81), ("edgetpu-m", 6.90, 3.04), ("edgetpu-l", 10.59, 8.00)],
)
def test_edgetpu_counts(name: str, mega_parameters: float, giga_macs: float) -> None:
    net = network(name)
    assert parameters(net) / 1e6 == pytest.approx(mega_parameters, abs=0.005)
    assert macs(net) / 1e9 == pytest.approx(giga_macs, rel=0.015)


@given(names, st.integers(1, 5000))
def test_the_head_counts_with_its_classes(name: str, classes: int) -> None:
    net = network(name)
    dense = net.head_channels * classes
    assert parameters(net, classes) - parameters(net, include_top=False) == dense + classes
    assert macs(net, classes) - macs(net, include_top=False) == dense


@given(phis, phis)
def test_counts_never_fall_with_phi(one: float, other: float) -> None:
    small, large = phi_network(min(one, other)), phi_network(max(one, other))
    assert small.resolution <= large.resolution
    assert parameters(small) <= parameters(large)
    assert macs(small) <= macs(large)
    assert small.dropout <= large.dropout


@given(names, st.integers(32, 700))
def test_macs_at_another_resolution(name: str, resolution: int) -> None:
    net = network(name)
    resized = network(name, resolution=resolution)
    assert macs(net, resolution=resolution) == macs(resized)
    assert parameters(net) == parameters(resized)
    assert macs(net, resolution=resolution) < macs(net, resolution=resolution + 2)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="0 classes"):
        parameters(network("b0"), classes=0)
    with pytest.raises(InputError, match="resolution 31"):
        macs(network("b0"), resolution=31)


# --- variants and networks


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("b2", "b2"),
        ("B2", "b2"),
        ("efficientnet-b2", "b2"),
        ("EfficientNetB2", "b2"),
        ("efficientnet_b2", "b2"),
        ("efficientnetv2-s", "v2-s"),
        ("EfficientNetV2B0", "v2-b0"),
        ("v2s", "v2-s"),
        ("efficientnet-lite0", "lite0"),
        ("EdgeTPU-S", "edgetpu-s"),
        ("efficientnet-edgetpu-L", "edgetpu-l"),
        ("phi1.5", "phi1.5"),
        ("phi-1", "phi-1"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert network(spelling).name == name


@pytest.mark.parametrize(
    ("wrong", "near"), [("b9", "b7"), ("light0", "lite0"), ("efficientnetv2-q", "v2-s"), ("edgetpu", "edgetpu-s")]
)
def test_unknown_names_suggest_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"did you mean .*\b{near}\b"):
        network(wrong)


@pytest.mark.parametrize("wrong", ["", "resnet50", "phi", "phione", "phi1.5-a1.3"])
def test_names_like_nothing_list_the_choice(wrong: str) -> None:
    with pytest.raises(UnknownNameError, match=r"choose from b0, b1|did you mean"):
        network(wrong)


def test_the_table_is_complete() -> None:
    assert list(VARIANTS) == [
        *(f"b{i}" for i in range(8)),
        *(f"v2-{size}" for size in ("b0", "b1", "b2", "b3", "s", "m", "l")),
        *(f"lite{i}" for i in range(5)),
        *(f"edgetpu-{size}" for size in "sml"),
    ]
    with pytest.raises(TypeError):
        VARIANTS["b8"] = VARIANTS["b7"]  # type: ignore[index]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_figure_has_its_source(name: str) -> None:
    published = VARIANTS[name].published
    assert published.top1 is not None
    assert 70 < published.top1 < 90
    assert published.int8_top1 is None or published.int8_top1 < published.top1
    assert published.top1_source
    assert published.counts_source


def test_nominal_and_implied_phi() -> None:
    assert [VARIANTS[f"b{i}"].phi for i in range(8)] == [0, 0.5, 1, 2, 3.5, 5, 6, 7]
    implied = {name: VARIANTS[name].implied_phi for name in ("b1", "b4", "b7")}
    assert implied == {
        "b1": ImpliedPhi(depth=0.523, width=0.0, resolution=0.494),
        "b4": ImpliedPhi(depth=3.224, width=3.53, resolution=3.782),
        "b7": ImpliedPhi(depth=6.206, width=7.273, resolution=7.05),
    }
    for size in ("v2-s", "v2-m", "v2-l"):
        assert VARIANTS[size].implied_phi is None
        assert network(size).phi is None


@pytest.mark.parametrize("name", VARIANTS)
def test_blocks_fit_together(name: str) -> None:
    net = network(name)
    channels = net.stem_channels
    for block in net.blocks:
        assert block.in_channels == channels
        assert block.skip <= (block.stride == 1 and block.in_channels == block.out_channels)
        if block.expand_ratio == 1:
            assert block.expanded_channels == block.in_channels
        channels = block.out_channels
    assert len({block.name for block in net.blocks}) == len(net.blocks)
    assert math.prod(block.stride for block in net.blocks) == 16


def test_lite_keeps_its_ends() -> None:
    net = network("lite4")
    assert (net.stem_channels, net.head_channels) == (32, 1280)
    assert [sum(block.stage == stage for block in net.blocks) for stage in (1, 7)] == [1, 1]
    assert {block.se_channels for block in net.blocks} == {0}
    assert (net.activation, net.resolution, net.dropout) == ("relu6", 300, 0.3)


def test_edgetpu_expands_from_24_channels_behind_a_stem_of_32() -> None:
    first, second = network("edgetpu-s").blocks[:2]
    assert first == Block("fused", 3, 1, 4, 32, 96, 24, 0, skip=False, stage=1, name="block1a")
    assert second == Block("fused", 3, 2, 8, 24, 192, 32, 0, skip=False, stage=2, name="block2a", late_stride=True)
    assert network("edgetpu-l").blocks[0].expanded_channels == 4 * 32
    assert not any(block.skip for block in network("edgetpu-m").blocks if block.stage == 1)


def test_preprocessing_in_pixel_units() -> None:
    assert network("b0").preprocessing == network("v2-b3").preprocessing == network("phi1").preprocessing
    white = {
        name: [(255 - m) / s for m, s in zip(p.mean, p.std, strict=True)]
        for name, p in ((name, network(name).preprocessing) for name in ("b0", "v2-s", "lite0", "edgetpu-l"))
    }
    assert white["b0"] == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert white["v2-s"] == pytest.approx([255 / 128 - 1] * 3)
    assert white["lite0"] == white["edgetpu-l"] == pytest.approx([1, 1, 1])


def test_phi_networks() -> None:
    zero, b0 = phi_network(-0.0), network("b0")
    assert (zero.name, zero.blocks, zero.dropout, zero.resolution) == ("phi0", b0.blocks, b0.dropout, b0.resolution)
    assert phi_network(1, resolution=224).resolution == 224
    assert phi_network(1, alpha=1.3, beta=1.08).name == "phi1-a1.3-b1.08-g1.15"
    assert [phi_network(phi).dropout for phi in (-3, 0.9, 1, 3.4, 3.5, 7)] == [0.2, 0.2, 0.3, 0.3, 0.4, 0.5]
    with pytest.raises(InputError, match=r"phi 7\.5"):
        phi_network(7.5)
    with pytest.raises(InputError, match="resolution 16"):
        phi_network(0, resolution=16)


@given(phis)
def test_a_phi_network_is_found_by_its_name(phi: float) -> None:
    net = phi_network(phi)
    assume("e" not in net.name)
    assert network(net.name) == net


def test_block_names_stay_words_when_a_stage_is_very_deep() -> None:
    names = [block.name for block in phi_network(7, alpha=2.0, beta=1.0, gamma=1.0).blocks if block.stage == 1]
    assert names[24:28] == ["block1y", "block1z", "block1z1", "block1z2"]


def test_rows() -> None:
    rows = scaling.rows()
    assert [row.variant for row in rows] == list(VARIANTS)
    assert rows[2] == scaling.Row(
        variant="b2",
        phi=1.0,
        implied_phi=ImpliedPhi(1.0, 1.0, 1.066),
        depth=1.2,
        width=1.1,
        resolution=260,
        parameters=9_109_994,
        macs=rows[2].macs,
        top1=80.1,
        int8_top1=None,
        source="arXiv:1905.11946, table 2",
    )
    assert scaling.row(phi_network(1.5)).top1 is None
    json.dumps([dataclasses.asdict(row) for row in rows])


# --- what it costs, and Keras itself


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, edgeeff.scaling as scaling; scaling.rows(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert "edgeeff.scaling" in modules
    assert not modules & {"tensorflow", "keras", "tf_keras", "numpy", "click", "rich", "msgspec", "ai_edge_litert"}


@pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="compares with Keras, which the light install lacks"
)
@pytest.mark.parametrize("name", ["b0", "b3", "v2-b0", "v2-b3", "v2-s"])
def test_keras_itself_agrees(name: str) -> None:
    """Build the network in Keras; compare counts, channels and skips."""
    import keras

    net, builder = network(name), VARIANTS[name].keras
    assert builder is not None
    model = getattr(keras.applications, builder)(weights=None)
    assert model.input_shape == (None, net.resolution, net.resolution, 3)
    assert sum(math.prod(w.shape) for w in model.trainable_weights) == parameters(net)
    weighted = [layer for layer in model.layers if hasattr(layer, "kernel")]
    counted = sum(math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1]) for layer in weighted)
    assert macs(net) == counted
    layers = {layer.name: layer for layer in model.layers}
    for block in net.blocks:
        assert layers[f"{block.name}_project_conv"].filters == block.out_channels
        assert (f"{block.name}_add" in layers) == block.skip
        squeeze = layers.get(f"{block.name}_se_reduce")
        assert (squeeze.filters if squeeze else 0) == block.se_channels
    assert layers["top_dropout"].rate == net.dropout
    assert layers["top_conv"].filters == net.head_channels
