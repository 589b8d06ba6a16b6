"""Weights are fitted to the maps that int8 blocks get, and rounded so that what they give changes little."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters import quantize, recover, refit
from edgeeff.converters.compress import Compression, codebook, pointwise
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import WEIGHTED, Graph
from tests import tiny

PHOTOS = np.stack(tiny.images(48, size=16))
OTHERS = tiny.images(64, size=16, seed=9)
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def model() -> FloatModel:
    return finish(tiny.swish_classifier())


@functools.cache
def ranges() -> quantize.Ranges:
    return quantize.collect_ranges(model(), list(PHOTOS))


@functools.cache
def refitted() -> FloatModel:
    return refit.refit(model(), ranges(), PHOTOS)


def drawn(seed: int, rows: int = 6, columns: int = 12) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights, and inputs that have to do with each other, as maps of a network have."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(400, 4)) @ generator.normal(size=(4, columns))
    return generator.normal(size=(rows, columns)), hidden + 0.3 * generator.normal(size=hidden.shape) + 0.5


# --- Rounding ---------------------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=30)
def test_rounded_weights_are_what_a_quantizer_makes_of_them(seed: int) -> None:
    weights, inputs = drawn(seed)
    rounded = refit.round_together(weights, inputs.T @ inputs / len(inputs) + 0.01 * np.eye(weights.shape[1]))
    assert np.abs(rounded).max(axis=1) == pytest.approx(np.abs(weights).max(axis=1))
    assert refit.nearest(rounded) == pytest.approx(rounded)


@given(seeds)
@settings(max_examples=30)
def test_errors_of_rounding_make_up_for_each_other(seed: int) -> None:
    weights, inputs = drawn(seed)
    coarse = 8 * weights / np.abs(weights).max(axis=1, keepdims=True)
    coarse[:, 0] = 127  # so that the others have few levels, and inputs[:, 0] says nothing
    inputs[:, 0] = 0
    second = inputs.T @ inputs / len(inputs) + 0.01 * np.eye(weights.shape[1])
    together, each = (
        np.square(inputs @ (rounded - coarse).T).mean()
        for rounded in (refit.round_together(coarse, second), refit.nearest(coarse))
    )
    assert together < 0.8 * each


# --- Least squares ----------------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=20)
def test_weights_give_what_is_wanted(seed: int) -> None:
    weights, inputs = drawn(seed)
    wanted = inputs @ (0.9 * weights).T + 3.0
    fitted = refit.least_squares(inputs, wanted, weights, np.zeros(len(weights)))
    assert fitted is not None
    found = inputs @ fitted[0].T + fitted[1]
    assert np.square(found - wanted).mean() < 0.3 * np.square(inputs @ weights.T + 3.0 - wanted).mean()
    assert (found - wanted).mean(axis=0) == pytest.approx(0, abs=0.05)


def test_what_the_inputs_do_not_say_stays() -> None:
    weights, inputs = drawn(5)
    inputs[:, 3] = 0
    fitted = refit.least_squares(inputs, inputs @ weights.T, weights, np.zeros(len(weights)))
    assert fitted is not None
    assert fitted[0][:, 3] == pytest.approx(refit.nearest(weights)[:, 3], abs=2e-2)
    assert fitted[0] == pytest.approx(weights, abs=0.1)


@pytest.mark.parametrize("value", [0.0, 2.0, np.nan, np.inf])
def test_inputs_that_say_nothing_fit_nothing(value: float) -> None:
    with np.errstate(invalid="ignore"):
        assert refit.least_squares(np.full((9, 4), value), np.ones((9, 3)), np.ones((3, 4)), np.zeros(3)) is None


# --- Networks, compressed ---------------------------------------------------------------------------------------------


def test_networks_are_pruned_in_their_convolutions_of_single_pixels() -> None:
    sparse = refit.refit(model(), ranges(), PHOTOS, compression=Compression(sparsity=0.5))
    before, after = Graph(model().content), Graph(sparse.content)
    counted = 0
    for operator in before.operators:
        if before.kind(operator) in WEIGHTED:
            values = np.asarray(after.constant(int(operator.inputs[1])))
            wanted = 0.5 if pointwise(before, operator) else 0.0
            assert np.mean(values == 0) == pytest.approx(wanted, abs=1 / values.size), before.name(operator.outputs[0])
            counted += wanted > 0
    assert counted == 5


def test_networks_are_clustered_in_their_convolutions_of_single_pixels() -> None:
    """As an int8 file has them, and with a part of them pruned, too."""
    made = refit.refit(model(), ranges(), PHOTOS, compression=Compression(sparsity=0.5, clusters=8))
    content = quantize.quantize(made, recover.INT8, ranges(), input_type="uint8", output_type="float32")
    before, after = Graph(model().content), Graph(content)
    convolutions = {before.name(int(one.outputs[0])) for one in before.operators if pointwise(before, one)}
    stored = [one for one in after.operators if after.name(int(one.outputs[0])) in convolutions]
    assert len(stored) == len(convolutions) == 5
    for operator in stored:
        values = np.asarray(after.constant(int(operator.inputs[1])))
        assert 4 < len(np.unique(values)) <= 8
        assert np.mean(values == 0) >= 0.5 - 1 / values.size


def test_errors_of_clustering_make_up_for_each_other() -> None:
    better = 0
    for seed in range(20):
        weights, inputs = drawn(seed)
        second = inputs.T @ inputs / len(inputs) + 0.01 * np.eye(weights.shape[1])
        book = np.round(codebook(weights, 8))
        size = np.abs(weights).max(axis=1, keepdims=True) / 127
        nearest = book[np.abs(weights[:, :, np.newaxis] / size[:, :, np.newaxis] - book).argmin(axis=2)] * size
        together = refit.round_together(weights, second, book)
        assert np.isin(np.round(together / size), book).all()
        each, ours = (np.square(inputs @ (found - weights).T).mean() for found in (nearest, together))
        better += ours < 0.7 * each
    assert better >= 18


def test_a_pruned_network_is_closer_to_float_than_one_without_its_smallest_weights() -> None:
    judge = recover.Judge(model(), OTHERS[:1], OTHERS)
    smallest = Graph(model().content)
    for operator in [one for one in smallest.operators if pointwise(smallest, one)]:
        values = np.array(smallest.constant(int(operator.inputs[1])))
        smallest.set_constant(int(operator.inputs[1]), np.where(np.abs(values) < np.median(np.abs(values)), 0, values))
    naive = replace(model(), content=smallest.content())
    made = refit.refit(model(), ranges(), PHOTOS, compression=Compression(sparsity=0.5))
    ours, theirs = (judge.attempt("", one, ranges()).fidelity.divergence for one in (made, naive))
    assert ours < 0.5 * theirs


# --- Networks ---------------------------------------------------------------------------------------------------------


def test_other_images_are_closer_to_float_then() -> None:
    judge = recover.Judge(model(), OTHERS[:1], OTHERS)
    before, after = (judge.attempt("", float_, ranges()).fidelity.divergence for float_ in (model(), refitted()))
    assert after < 0.8 * before


def test_last_convolutions_of_blocks_and_the_last_layer_are_fitted() -> None:
    before, after = Graph(model().content), Graph(refitted().content)
    changed = set()
    for operator in before.operators:
        for index in map(int, operator.inputs[1:]):
            values, fitted = before.constant(index), after.constant(index)
            if values is not None and fitted is not None and not np.array_equal(values, fitted):
                changed.add(before.name(int(operator.outputs[0])))
    assert changed == {"block1/project", "block2/project", "logits"}


def test_it_depends_on_images_and_seed_alone() -> None:
    ticks: list[None] = []
    again = refit.refit(model(), ranges(), PHOTOS, tick=lambda: ticks.append(None))
    assert again.content == refitted().content
    assert len(ticks) == len(refit.blocks(model()))
    assert refit.refit(model(), ranges(), PHOTOS, seed=1).content != again.content


def test_one_image_is_enough() -> None:
    assert refit.refit(model(), ranges(), PHOTOS[:1]).content != model().content


def test_large_maps_are_of_fewer_views(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, spans = Graph(model().content), refit.blocks(model())
    assert refit._count(graph, spans, 100) == 100
    monkeypatch.setattr(refit, "MAPS_BYTES", 1.0)
    assert refit._count(graph, spans, 100) == refit.LEAST_VIEWS


def test_maps_that_half_precision_cannot_hold_are_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, (span, *_) = Graph(model().content), refit.blocks(model())
    half = refit.through(graph, *span, PHOTOS[:3])
    monkeypatch.setattr(refit, "HALF_MAX", float(np.abs(half[0]).max()) * 0.99)
    whole = refit.through(graph, *span, PHOTOS[:3])
    assert half.dtype == np.float16
    assert whole.dtype == np.float32
    assert whole == pytest.approx(half.astype(np.float32), rel=1e-3)


def test_a_network_without_such_layers_is_left_alone() -> None:
    plain = finish(tiny.classifier())
    found = refit.refit(plain, quantize.collect_ranges(plain, tiny.images(8)), np.stack(tiny.images(8)))
    before, after = Graph(plain.content), Graph(found.content)
    convolutions = [o for o in before.operators if before.kind(o) == "CONV_2D" and before.activation(o) != "NONE"]
    assert convolutions
    for operator in convolutions:
        old, new = (graph.constant(int(operator.inputs[1])) for graph in (before, after))
        assert old is not None and new is not None
        assert np.array_equal(old, new)
