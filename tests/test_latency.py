"""The latency model: what networks do, what a fit learns from few measurements, and how sure it is."""

from __future__ import annotations

import csv
import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff import latency, scaling
from edgeeff.errors import InputError
from edgeeff.latency import COSTS, Measured, Operator, Prior, Workload, fit, network_workload

LADDER = ("b0", "b1", "b2", "b3", "b4", "b5")
SCHEMES = ("float32", "int8")


@functools.cache
def workload(name: str, scheme: str = "float32") -> Workload:
    return network_workload(scaling.network(name), scheme)


@pytest.fixture(scope="module", params=SCHEMES)
def ladder(request: pytest.FixtureRequest) -> list[Workload]:
    return [workload(name, request.param) for name in LADDER]


def device(ladder: list[Workload], generator: np.random.Generator, *, misfit: float = latency.MISFIT) -> list[Measured]:
    """Return what a device would take whose costs are drawn from the prior."""
    ratios = COSTS[ladder[0].scheme]
    unit = 1e-11 * math.exp(generator.normal())
    costs = {name: unit * ratio.middle * math.exp(ratio.spread * generator.normal()) for name, ratio in ratios.items()}
    return [Measured(item, sum_of(item, costs) * math.exp(misfit * generator.normal()), sigma=0.001) for item in ladder]


def sum_of(item: Workload, costs: dict[str, float]) -> float:
    """The sum in plain words, without a cache."""
    total, size = 0.0, 1 if item.scheme == "int8" else 4
    for operator in item.operators:
        written = item.sizes[operator.output]
        total += costs["call"] + costs["weights"] * operator.weight_bytes
        total += costs["traffic"] * (written + sum(item.sizes[index] for index in operator.inputs))
        if operator.kind == "depthwise":
            total += costs["depthwise"] * operator.macs
        elif operator.macs:
            pixels = written // (size * operator.channels)
            tiled = pixels if pixels == 1 else math.ceil(pixels / latency.TILE) * latency.TILE
            total += costs["product"] * operator.macs * tiled / pixels
        if operator.kind == "image":
            total += costs["image"] * operator.macs
        if operator.kind == "sigmoid":
            total += costs["sigmoid"] * written
    return total


# Workloads


@pytest.mark.parametrize("name", scaling.VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_workload_has_the_macs_of_its_network_and_of_its_preprocessing(name: str, scheme: str) -> None:
    network = scaling.network(name)
    pixels = network.resolution**2 * 3
    assert workload(name, scheme).macs == scaling.macs(network) + pixels


@pytest.mark.parametrize(
    ("name", "scheme", "operators", "weight_bytes"),
    [  # of files that `edgeeff convert` made
        ("b0", "float32", 242, 21_075_704),
        ("b0", "int8", 244, 5_365_112),
        ("b3", "float32", 389, 48_765_784),
        ("phi-1", "int8", 244, 4_618_965),
        ("lite4", "int8", 122, 13_126_476),
        ("v2-b0", "int8", 272, 7_247_400),
        ("b5", "int8", 583, 30_693_672),
    ],
)
def test_a_workload_is_that_of_the_converted_file(name: str, scheme: str, operators: int, weight_bytes: int) -> None:
    found = workload(name, scheme)
    assert (len(found.operators), found.weight_bytes) == (operators, weight_bytes)


def test_classes_and_resolution_are_those_asked_for() -> None:
    small = network_workload(scaling.network("lite0"), "int8", classes=10, resolution=64)
    assert small.sizes[0] == 64 * 64 * 3
    assert small.sizes[-1] == 10 * 4
    assert small.macs == scaling.macs(scaling.network("lite0"), 10, resolution=64) + 64 * 64 * 3


def test_half_precision_is_computed_as_float() -> None:
    assert workload("b0", "float16") == workload("b0")


def test_an_unmodelled_scheme_is_refused() -> None:
    with pytest.raises(InputError, match=r"'int16x8'.*float32.*measure it instead"):
        workload("b0", "int16x8")


def test_every_value_is_written_before_it_is_read() -> None:
    for name in ("b1", "v2-s", "edgetpu-m"):
        written = {0}
        for operator in workload(name).operators:
            assert written.issuperset(operator.inputs)
            written.add(operator.output)


def test_values_are_counted_while_they_are_needed() -> None:
    # The image of 1 byte stays. The second operator needs 10 and 20; the third writes over the 20; the last reads
    # the 10 and the 20, and gives 10 more.
    operators = (
        Operator("product", 1, (0,), 1),
        Operator("product", 1, (1,), 2),
        Operator("sigmoid", 0, (2,), 3),
        Operator("product", 1, (1, 3), 4),
    )
    assert Workload("net", "b", "float32", operators, (1, 10, 20, 20, 10)).activation_bytes == 1 + 10 + 20 + 10


@pytest.mark.parametrize(
    ("name", "scheme", "model_bytes"),
    [  # anonymous memory that LiteRT 2.3 took on x86-64 for loading and the first inference
        ("b0", "float32", 34.8e6),
        ("b0", "int8", 11.1e6),
        ("b3", "int8", 25.0e6),
        ("b7", "float32", 436.5e6),
        ("b7", "int8", 125.5e6),
        ("lite0", "int8", 9.2e6),
        ("lite4", "float32", 73.7e6),
        ("phi-2", "int8", 7.4e6),
        ("phi4", "float32", 163.2e6),
    ],
)
def test_working_memory_is_near_what_was_measured(name: str, scheme: str, model_bytes: float) -> None:
    assert latency.peak_memory(workload(name, scheme)) == pytest.approx(model_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [  # of files that `edgeeff convert` made
        ("b0", "int8", 6_235_263),
        ("b7", "float32", 264_773_839),
        ("b0", "float16", 10_700_000),
        ("b0", "weight-only", 5_800_000),
        ("lite4", "int8", 14_627_167),
        ("v2-b0", "int8", 8_452_575),
    ],
)
def test_a_file_is_as_large_as_expected(name: str, scheme: str, size: int) -> None:
    assert latency.file_bytes(workload(name, scheme), scheme) == pytest.approx(size, rel=0.01)


# Fits


def test_one_measurement_settles_the_speed(ladder: list[Workload]) -> None:
    model = fit([Measured(ladder[0], 0.01, sigma=0.001)], ladder[0].scheme, family="b")
    predicted = model.predict(ladder[0])
    assert predicted.seconds == pytest.approx(0.01, rel=0.01)
    assert predicted.interval[0] < 0.01 < predicted.interval[1]
    slower = fit([Measured(ladder[0], 0.1, sigma=0.001)], ladder[0].scheme, family="b")
    assert slower.predict(ladder[3]).seconds == pytest.approx(10 * model.predict(ladder[3]).seconds, rel=1e-3)


def test_costs_that_can_be_told_are_found(ladder: list[Workload]) -> None:
    # Seen together, the networks that are predicted are the ones that were measured: what is left is the misfit.
    generator = np.random.default_rng(1)
    measured = device(ladder, generator, misfit=0.0)
    model = fit(measured, ladder[0].scheme, family="b")
    for item in measured:
        assert model.predict(item.workload).seconds == pytest.approx(item.seconds, rel=0.01)


def test_intervals_hold_as_often_as_they_say(ladder: list[Workload]) -> None:
    # Devices as the prior says there are: two measured, the others predicted. 100 x 4 predictions, which go together in
    # fours: 100 draws of 0.95 are below 0.88 once in a hundred.
    generator = np.random.default_rng(2)
    inside = []
    for _ in range(100):
        measured = device(ladder, generator)
        model = fit([measured[0], measured[3]], ladder[0].scheme, family="b")
        for index in (1, 2, 4, 5):
            low, high = model.predict(ladder[index]).interval
            inside.append(low <= measured[index].seconds <= high)
    assert 0.88 < np.mean(inside) < 0.995


def test_a_second_measurement_makes_surer(ladder: list[Workload]) -> None:
    measured = device(ladder, np.random.default_rng(3))
    one = fit(measured[:1], ladder[0].scheme, family="b")
    two = fit([measured[0], measured[3]], ladder[0].scheme, family="b")
    for item in ladder[1:]:
        assert width(two, item) < width(one, item)
    assert width(two, ladder[2]) < width(two, ladder[5])  # inside what was measured it is surer than outside


def width(model: latency.Model, item: Workload) -> float:
    low, high = model.predict(item).interval
    return high / low


def test_another_family_counts_for_less() -> None:
    wrong = [Measured(workload(name), seconds) for name, seconds in (("lite0", 0.15), ("lite2", 0.3))]
    own = Measured(workload("b0"), 0.1)
    model = fit([*wrong, own], "float32", family="b")
    assert model.predict(own.workload).seconds == pytest.approx(0.1, rel=0.05)
    alone = fit(wrong, "float32", family="b")
    assert width(alone, own.workload) > 2 * width(model, own.workload)


def test_the_order_of_measurements_does_not_matter(ladder: list[Workload]) -> None:
    measured = device(ladder, np.random.default_rng(4))[:3]
    predictions = {
        round(fit(list(order), ladder[0].scheme, family="b").predict(ladder[5]).seconds, 9)
        for order in itertools.permutations(measured)
    }
    assert len(predictions) == 1


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=5), st.floats(1e-4, 0.5))
@settings(deadline=None, max_examples=25)
def test_any_measurements_give_an_answer(seconds: list[float], sigma: float) -> None:
    networks = [workload(name, "int8") for name in ("lite0", "lite1", "lite2", "lite3", "lite4")]
    measured = [Measured(network, value, sigma) for network, value in zip(networks, seconds, strict=False)]
    model = fit(measured, "int8", family="lite")
    means, covariance = model.moments(networks)
    assert np.isfinite(means).all()
    assert covariance == pytest.approx(covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    for network in networks:
        predicted = model.predict(network)
        assert 0 < predicted.interval[0] < predicted.seconds < predicted.interval[1]


def test_moments_and_probabilities_go_together(ladder: list[Workload]) -> None:
    model = fit(device(ladder, np.random.default_rng(5))[:2], ladder[0].scheme, family="b")
    means, covariance = model.moments(ladder)
    correlation = covariance[3, 4] / math.sqrt(covariance[3, 3] * covariance[4, 4])
    assert 0.3 < correlation < 1  # neighbours are wrong together
    predicted = model.predict(ladder[3])
    assert predicted.seconds == pytest.approx(math.exp(means[3]))
    assert model.probability(ladder[3], predicted.seconds) == pytest.approx(0.5)
    assert model.probability(ladder[3], predicted.interval[1]) == pytest.approx(0.975)
    assert model.predict(ladder[3], level=0.5).interval[1] < predicted.interval[1]


def test_values_that_do_not_fit_the_cache_cost_more() -> None:
    known = Prior(1e10, 0.5)
    small = fit([], "float32", family="b", prior=Prior(1e10, 0.5, cache_bytes=1 << 20))
    large = fit([], "float32", family="b", prior=Prior(1e10, 0.5, cache_bytes=1 << 40))
    none = fit([], "float32", family="b", prior=known)
    b4 = workload("b4")
    assert small.predict(b4).seconds > 1.1 * large.predict(b4).seconds
    assert large.predict(b4).seconds == none.predict(b4).seconds


def test_left_over_pixels_cost_as_much_as_a_tile() -> None:
    # 49 pixels take seven tiles of 7 or 8, 64 take ten or eight; all other costs are next to nothing.
    def product(side: int, tile: int) -> float:
        operator = Operator("product", side**2 * 10**9, (0,), 1, channels=1)
        net = Workload("net", "b", "int8", (operator,), (1, side**2))
        return fit([], "int8", family="b", prior=Prior(1e9, 0.5, tile=tile)).predict(net).seconds

    assert product(7, 7) == pytest.approx(49, rel=1e-3)
    assert product(7, 8) == pytest.approx(56, rel=1e-3)
    assert product(8, 7) == pytest.approx(70, rel=1e-3)
    assert product(8, 8) == pytest.approx(64, rel=1e-3)
    assert product(1, 8) == pytest.approx(1, rel=1e-3)  # one pixel has kernels of its own


def test_costs_are_in_seconds() -> None:
    model = fit([], "int8", family="b", prior=Prior(5e10, 0.5))
    assert model.costs["product"] == pytest.approx(1 / 5e10)
    assert model.costs["call"] == pytest.approx(COSTS["int8"]["call"].middle / 5e10)
    assert model.predict(workload("b0", "int8")).seconds == pytest.approx(sum_of(workload("b0", "int8"), model.costs))


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_times_that_cannot_be_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="b0 cannot take"):
        fit([Measured(workload("b0"), seconds)], "float32", family="b")


def test_schemes_are_not_mixed() -> None:
    measured = Measured(workload("b0", "int8"), 0.01)
    with pytest.raises(InputError, match="b0 computes in int8"):
        fit([measured], "float32", family="b")
    with pytest.raises(InputError, match="b1 computes in float32"):
        fit([measured], "int8", family="b").predict(workload("b1"))
    with pytest.raises(InputError, match="no scheme 'dynamic'"):
        fit([], "dynamic", family="b", prior=Prior(1e10))


def test_something_has_to_be_known() -> None:
    with pytest.raises(InputError, match="measure one network first"):
        fit([], "int8", family="b")


# What is known of a device


def test_a_board_starts_from_its_facts() -> None:
    # A Raspberry Pi 4's peak is 48 G operations, 24 G multiply-adds, over its four cores.
    four = latency.board_prior(48e9, 4, "float32", threads=4)
    assert four.macs_per_s == pytest.approx(24e9 * latency.EFFICIENCY)
    one = latency.board_prior(48e9, 4, "float32", threads=1)
    assert four.macs_per_s == 4 * (one.macs_per_s or 0)
    assert latency.board_prior(48e9, 4, "float32", threads=8) == four
    plain, dotted = (latency.board_prior(48e9, 4, "int8", int8_dot_product=has).macs_per_s for has in (False, True))
    assert (one.macs_per_s or 0) < (plain or 0) < (dotted or 0)
    fast, slow = (fit([], "float32", family="lite", prior=prior).predict(workload("lite0")) for prior in (four, one))
    assert fast.seconds == pytest.approx(slow.seconds / 4)
    assert fast.interval[1] / fast.interval[0] > 4  # facts alone are a first guess


def test_this_machine_tells_its_largest_cache_and_its_vectors(tmp_path: Path) -> None:
    processor = tmp_path / "cpuinfo"
    assert latency.this_machine(tmp_path, processor) == Prior()
    for index, size in enumerate(("48K", "32K", "1024K", "32M", "odd")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    processor.write_text("flags : fma avx2 avx512dq\n")
    assert latency.this_machine(tmp_path, processor) == Prior(cache_bytes=32 << 20)
    processor.write_text("flags : fma avx2 avx512f avx512dq\n")
    assert latency.this_machine(tmp_path, processor).tile == latency.AVX512_TILE


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("scheme", "middle", "limit"),
    [("int8", 2, 0.02), ("int8", 3, 0.025), ("float32", 2, 0.015), ("float32", 3, 0.02)],
)
def test_published_figures_of_a_board_are_predicted(shared: Path, scheme: str, middle: int, limit: float) -> None:
    """Lite0 and one in the middle tell the remaining three: MLPerf Inference v1.1, a Raspberry Pi 4."""
    path = shared / "published" / "mlperf_inference_v1.1_raspberry_pi_4.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["model"]: float(row["p50_ms"]) / 1e3 for row in csv.DictReader(file)}
    suffix = "quantized" if scheme == "int8" else "non-quantized"
    lite = [
        Measured(workload(f"lite{number}", scheme), rows[f"efficientnet-lite{number}-{suffix}"]) for number in range(5)
    ]
    model = fit([lite[0], lite[middle]], scheme, family="lite")
    rest = [item for item in lite[1:] if item is not lite[middle]]
    assert max(abs(model.predict(item.workload).seconds / item.seconds - 1) for item in rest) < limit
