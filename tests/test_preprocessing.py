"""Affine operators behind the input become one convolution that does the same, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters import preprocessing
from edgeeff.converters.float_model import finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.preprocessing import Affine, fuse
from edgeeff.errors import ModelError
from tests import tiny
from tests.tiny import Step

Vector = npt.NDArray[np.float64]
OURS = ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]
HEIGHT, WIDTH = 4, 6
PIXELS = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3))
PIXELS[0, 0], PIXELS[0, 1] = 0, 255


def kinds(graph: Graph) -> list[str]:
    return [graph.kind(operator) for operator in graph.operators]


def bare(*chain: Step) -> Graph:
    """A graph of nothing but a chain of elementwise operators on a picture that is no square."""
    graph = tiny.empty()
    graph.tensor(graph.inputs[0]).shape = [1, HEIGHT, WIDTH, 3]
    graph.set_output(tiny.steps(graph, graph.inputs[0], chain))
    return graph


def apply(chain: Sequence[Step], pixels: Vector) -> tuple[Vector, Vector]:
    """Return what a chain does to pixels, and how far float32 arithmetic may be from it."""
    values, error = pixels, np.zeros_like(pixels)
    for step in chain:
        constant = np.asarray(step.constant, np.float32).astype(np.float64)
        match step.kind:
            case "MUL":
                values, error = values * constant, error * np.abs(constant)
            case "DIV":
                values, error = values / constant, error / np.abs(constant)
            case "ADD":
                values = values + constant
            case "SUB":
                values = constant - values if step.constant_first else values - constant
        error = error + 2e-7 * np.abs(values)
    return values, error


signs = st.sampled_from([-1.0, 1.0])
factors = st.builds(lambda exponent, sign: sign * 10.0**exponent, st.floats(-2, 2), signs)
offsets = st.floats(-300, 300)


def constants(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[float | Sequence[float]]:
    return numbers | st.tuples(numbers, numbers, numbers)


@st.composite
def chains(draw: st.DrawFn) -> list[Step]:
    """Chains of 1 to 5 operators that end where a network may begin: two more bring every channel to about -1..1."""
    kind = st.sampled_from(["MUL", "DIV", "ADD", "SUB"])
    chain = []
    for _ in range(draw(st.integers(0, 3))):
        name = draw(kind)
        constant = draw(constants(factors if name in {"MUL", "DIV"} else offsets))
        chain.append(Step(name, constant, constant_first=name != "DIV" and draw(st.booleans())))
    ends = apply(chain, np.array([[0.0] * 3, [255.0] * 3]))[0]
    middle, half = ends.mean(axis=0), np.abs(np.diff(ends, axis=0))[0] / 2
    return [*chain, Step("SUB", tuple(middle)), Step("DIV", tuple(half))]


# --- What is fused ----------------------------------------------------------------------------------------------------


@given(chains())
@settings(deadline=None, max_examples=60)
def test_any_chain_of_affine_operators_becomes_one_convolution(chain: list[Step]) -> None:
    graph = bare(*chain)
    before = tiny.run(graph.content(), PIXELS)
    affine = fuse(graph)
    assert kinds(graph) == OURS
    after = tiny.run(graph.content(), PIXELS)
    expected, error = apply(chain, PIXELS.astype(np.float64))
    np.testing.assert_array_less(np.abs(before - expected), error + 1e-6)
    # One multiplication and one addition: exact to the rounding of their terms.
    terms = np.abs(PIXELS * affine.scale) + np.abs(affine.offset)
    np.testing.assert_array_less(np.abs(after - expected), 1e-6 * terms + 1e-6)
    np.testing.assert_allclose(PIXELS * affine.scale + affine.offset, expected, rtol=1e-9, atol=1e-9)
    # Where float32 itself kept its digits, both files say the same to 1e-5.
    close = np.maximum(1e-5 * np.abs(before), 3 * error + 1e-5)
    np.testing.assert_array_less(np.abs(after - before), close)


def test_what_keras_puts_first_is_fused() -> None:
    content = tiny.classifier(preprocessing=tiny.KERAS_STYLE)
    graph = Graph(content)
    affine = fuse(graph)
    assert kinds(graph) == [*OURS, "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    np.testing.assert_allclose(affine.scale, 1 / (255 * np.array([0.229, 0.224, 0.225])), rtol=1e-6)
    np.testing.assert_allclose(affine.offset, [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    for image in tiny.images(5):
        np.testing.assert_allclose(tiny.run(graph.content(), image), tiny.run(content, image), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (3,), (1, 1, 1, 3)])
def test_one_value_or_one_for_each_channel_in_any_shape(shape: tuple[int, ...]) -> None:
    graph = bare(Step("MUL", np.full(shape, 1 / 255).tolist()))
    fuse(graph)
    assert kinds(graph) == OURS


def test_a_chain_that_does_nothing_leaves_nothing() -> None:
    chain = (Step("ADD", 1.0), Step("MUL", 2.0), Step("DIV", 2.0), Step("SUB", 1.0))
    content = tiny.classifier(preprocessing=chain)
    graph = Graph(content)
    assert fuse(graph).is_identity
    assert kinds(graph) == ["CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    image = tiny.images(1)[0]
    np.testing.assert_allclose(tiny.run(graph.content(), image), tiny.run(content, image), rtol=1e-5)


# --- Where the model has none -----------------------------------------------------------------------------------------


def test_without_preprocessing_and_without_a_range_the_model_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        fuse(Graph(tiny.classifier(preprocessing=())))
    message = str(caught.value)
    assert message.startswith("the model has no preprocessing inside")
    for example in ("--input-range 0,255", "--input-range 0,1", "--input-range=-1,1"):
        assert example in message


@pytest.mark.parametrize("span", [(0.0, 1.0), (-1.0, 1.0), (-128.0, 127.0), (1.0, 0.0)])
def test_a_range_is_put_in_front_of_a_model_without_preprocessing(span: tuple[float, float]) -> None:
    low, high = span
    content = tiny.classifier(preprocessing=())
    graph = Graph(content)
    affine = fuse(graph, span)
    assert affine.span == pytest.approx((min(span), max(span)))
    assert kinds(graph)[:4] == [*OURS, "CONV_2D"]
    for image in tiny.images(5):
        mapped = low + (high - low) * image / 255
        np.testing.assert_allclose(tiny.run(graph.content(), image), tiny.run(content, mapped), rtol=1e-4, atol=1e-6)


def test_raw_pixels_need_nothing() -> None:
    content = tiny.classifier(preprocessing=())
    graph = Graph(content)
    assert fuse(graph, (0, 255)).is_identity
    assert graph.content() == content


def test_a_model_that_is_known_to_take_pixels_needs_no_range() -> None:
    graph = Graph(tiny.classifier(preprocessing=()))
    assert fuse(graph, known=True).is_identity
    assert kinds(graph)[0] == "CONV_2D"


def test_a_range_and_what_is_inside_come_together() -> None:
    graph = bare(Step("SUB", 0.5), Step("MUL", 2.0))
    affine = fuse(graph, (0, 1))
    assert affine.span == pytest.approx((-1, 1))
    np.testing.assert_allclose(tiny.run(graph.content(), PIXELS), PIXELS / 127.5 - 1, atol=1e-6)


def test_every_reader_of_the_input_gets_the_range() -> None:
    graph = tiny.empty(size=4)
    (source,) = graph.inputs
    one, two, both = (graph.add_tensor(name, (1, 4, 4, 3), "float32") for name in ("one", "two", "both"))
    graph.insert(0, "RELU", [source], [one])
    graph.insert(1, "NEG", [source], [two])
    graph.insert(2, "MUL", [one, two], [both], graph.schema.MulOptionsT())
    graph.set_output(both)
    fuse(graph, (0, 1))
    image = PIXELS[:4, :4]
    np.testing.assert_allclose(tiny.run(graph.content(), image), -((image / 255.0) ** 2), atol=1e-6)


# --- What cannot be right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "span"),
    [
        ((Step("MUL", 2.0),), None),  # 0..510
        ((Step("ADD", 300.0),), None),
        ((Step("MUL", 1 / 255), Step("MUL", 1 / 255)), None),  # two Rescalings
        ((Step("MUL", 1 / 255),), (0.0, 1.0)),  # the range is already inside
        (tiny.KERAS_STYLE, (0.0, 1.0)),  # also where the channels' offsets lie apart
        ((Step("MUL", (1.0, 1.0, 0.0)),), None),  # a channel is lost
        ((Step("SUB", (124.0, 117.0, 104.0)),), (0.0, 1.0)),  # -124..-123, far from zero
        ((), (0.0, 1000.0)),
        ((), (0.0, 0.01)),
        ((), (float("nan"), 1.0)),
        ((), (0.0, float("inf"))),
    ],
)
def test_what_no_network_was_trained_on_is_refused(chain: tuple[Step, ...], span: tuple[float, float] | None) -> None:
    graph = Graph(tiny.classifier(preprocessing=chain))
    before = graph.content()
    with pytest.raises(ModelError, match=r"pixels would span .*; say what black and white are for it"):
        fuse(graph, span)
    assert graph.content() == before


# --- What is left alone -----------------------------------------------------------------------------------------------


def two_readers(graph: Graph) -> None:
    branch = graph.add_tensor("branch", (1, 8, 8, 3), "float32")
    graph.insert(2, "RELU", [int(graph.operators[0].outputs[0])], [branch])


def also_given_out(graph: Graph) -> None:
    graph._subgraph.outputs = [*graph.outputs, int(graph.operators[0].outputs[0])]


@pytest.mark.parametrize("change", [two_readers, also_given_out])
def test_a_tensor_that_is_needed_elsewhere_is_kept(change: Callable[[Graph], None]) -> None:
    chain = (Step("MUL", 1 / 255), Step("SUB", 0.5))
    graph = Graph(tiny.classifier(preprocessing=chain))
    change(graph)
    fuse(graph)
    assert kinds(graph)[:3] == OURS
    assert "SUB" in kinds(graph)
    assert "MUL" not in kinds(graph)


@pytest.mark.parametrize(
    "step",
    [
        Step("MUL", 0.5, activation="RELU"),
        Step("ADD", 0.5, activation="RELU6"),
        Step("DIV", 2.0, constant_first=True),  # 2 / x
        Step("DIV", 0.0),
        Step("DIV", (1.0, 0.0, 1.0)),
        Step("ADD", float("nan")),
        Step("MUL", float("inf")),
        Step("MUL", np.full((1, 8, 8, 3), 0.5).tolist()),  # one for each pixel
        Step("MUL", np.full((1, 8, 8, 1), 0.5).tolist()),
        Step("MUL", np.full((1, 8, 1, 1), 0.5).tolist()),
    ],
    ids=lambda step: f"{step.kind}-{np.shape(step.constant)}-{step.activation}",
)
def test_what_is_not_affine_per_channel_ends_the_chain(step: Step) -> None:
    graph = Graph(tiny.classifier(preprocessing=(Step("MUL", 1 / 255), step, Step("ADD", 0.25))))
    affine = fuse(graph)
    np.testing.assert_allclose(affine.scale, 1 / 255)
    assert kinds(graph)[:5] == [*OURS, step.kind, "ADD"]


def test_one_value_for_each_of_three_rows_is_no_preprocessing() -> None:
    graph = tiny.empty(size=3)
    graph.set_output(tiny.steps(graph, graph.inputs[0], [Step("MUL", np.full((3, 1), 0.5).tolist())]))
    with pytest.raises(ModelError, match="no preprocessing inside"):
        fuse(graph)


def test_a_picture_times_itself_is_no_preprocessing() -> None:
    graph = tiny.empty()
    square = graph.add_tensor("square", (1, 8, 8, 3), "float32")
    graph.insert(0, "MUL", [graph.inputs[0]] * 2, [square], graph.schema.MulOptionsT())
    graph.set_output(square)
    with pytest.raises(ModelError, match="no preprocessing inside"):
        fuse(graph)


# --- A file of ours comes back ----------------------------------------------------------------------------------------


def test_a_float_file_of_ours_is_fused_to_the_same_again() -> None:
    once = finish(tiny.classifier())
    twice = finish(once.content)
    assert kinds(Graph(twice.content)) == kinds(Graph(once.content))
    np.testing.assert_allclose(twice.mean, once.mean, rtol=1e-6)
    np.testing.assert_allclose(twice.std, once.std, rtol=1e-6)
    for image in tiny.images(5):
        np.testing.assert_array_equal(tiny.run(twice.content, image), tiny.run(once.content, image))


def test_a_float_file_of_ours_refuses_a_range() -> None:
    once = finish(tiny.classifier())
    with pytest.raises(ModelError, match="say what black and white are for it"):
        finish(once.content, input_range=(0, 1))


def of_ours(change: Callable[[Graph], None]) -> Graph:
    graph = bare(*tiny.KERAS_STYLE)
    fuse(graph)
    change(graph)
    return Graph(graph.content())


def with_relu(graph: Graph) -> None:
    graph.operators[1].builtinOptions.fusedActivationFunction = graph.schema.ActivationFunctionType.RELU


def without_offset(graph: Graph) -> None:
    graph.operators[1].inputs = [*graph.operators[1].inputs[:2], -1]


def one_pixel_differs(graph: Graph) -> None:
    values = np.array(graph.constant(int(graph.operators[1].inputs[2])))
    values[5] += 1
    graph.operators[1].inputs[2] = graph.add_tensor("other", values.shape, "float32", values)


def other_shape(graph: Graph) -> None:
    graph.tensor(graph.outputs[0]).shape = [1, WIDTH, HEIGHT, 3]


def four_channels(graph: Graph) -> None:
    for place in (1, 2):
        shape = (1, 1, 1, 4) if place == 1 else (4,)
        ones = np.ones(shape, np.float32)
        graph.operators[1].inputs[place] = graph.add_tensor(f"ones{place}", shape, "float32", ones)


@pytest.mark.parametrize("change", [with_relu, without_offset, one_pixel_differs, other_shape, four_channels])
def test_what_only_looks_like_ours_is_left_alone(change: Callable[[Graph], None]) -> None:
    with pytest.raises(ModelError, match="no preprocessing inside"):
        fuse(of_ours(change))


def test_what_is_ours_is_recognized() -> None:
    assert kinds(of_ours(lambda _: None)) == OURS
    assert fuse(of_ours(lambda _: None)).span == pytest.approx((-0.485 / 0.229, (1 - 0.406) / 0.225), rel=1e-5)


# --- Affine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "span", [(0, 255), (-128, 127), (0, 1), (-1, 1), (1, -1), (-2.2, 2.7), (-124, 151), (0.1, 0.2)]
)
def test_what_networks_are_trained_on_is_plausible(span: tuple[float, float]) -> None:
    assert Affine.from_range(*span).is_plausible


def test_affine_steps_follow_each_other() -> None:
    affine = Affine.from_range(0, 1).then(2.0, np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(affine.scale, 2 / preprocessing.PIXEL_MAX)
    assert affine.offset.tolist() == [0, 1, 2]
    assert affine.span == pytest.approx((0, 4))
    assert Affine.identity().is_identity
    assert not affine.is_identity
