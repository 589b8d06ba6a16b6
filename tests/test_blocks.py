"""Cutting a network into blocks: what the parts are, that they run, and what cannot be cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from edgeeff.converters import inspect
from edgeeff.converters.blocks import cut
from edgeeff.converters.graph import Graph
from edgeeff.errors import ModelError
from tests import tiny


def network(blocks: Sequence[str] = ("stem_conv", "block1a_conv", "block1b_conv", "block2a_conv")) -> bytes:
    """Rescaling, a convolution for each block, and a shortcut around block1b's, as in EfficientNets."""
    graph = tiny.empty()
    current = tiny.steps(graph, graph.inputs[0], [tiny.Step("MUL", 1 / 255)])
    graph.tensor(current).name = b"net/rescaling/mul"
    random = np.random.default_rng(0)
    channels = 3
    for block in blocks:
        before = current
        current = tiny.convolution(graph, current, random.normal(0, 0.3, (8, 3, 3, channels)))
        graph.tensor(current).name = f"net/{block}/convolution".encode()
        if block.startswith("block1b"):
            added = graph.add_tensor("net/block1b_add/Add", graph.shape(current), "float32")
            graph.insert(len(graph.operators), "ADD", [before, current], [added], graph.schema.AddOptionsT())
            current = added
        channels = 8
    graph.set_output(current)
    return graph.content()


def test_each_file_ends_with_its_block_and_computes_what_the_whole_computes() -> None:
    whole = network()
    blocks = cut(whole)
    assert [(block.name, block.operators) for block in blocks] == [
        ("input", 1),
        ("stem", 1),
        ("block1a", 1),
        ("block1b", 2),
        ("block2a", 1),
    ]
    assert blocks[-1].content == whole
    image = np.random.default_rng(1).uniform(0, 255, (8, 8, 3))
    watched = Graph(whole)
    for block, name in zip(
        blocks, ("rescaling/mul", "stem_conv", "block1a_conv", "block1b_add", "block2a_conv"), strict=True
    ):
        index = next(at for at in range(len(inspect.parse(whole).tensors)) if name in watched.name(at))
        watched.set_output(index)
        assert tiny.run(block.content, image) == pytest.approx(tiny.run(watched.content(), image), abs=1e-6)


def test_operators_and_macs_add_up() -> None:
    whole = network()
    blocks, operators = cut(whole), inspect.parse(whole).operators
    assert sum(block.operators for block in blocks) == len(operators)
    assert sum(block.macs for block in blocks) == sum(operator.macs for operator in operators) > 0
    sizes = [len(block.content) for block in blocks]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 4  # weights that a part does not need are not in its file


def test_no_cut_is_made_where_a_shortcut_leads_around() -> None:
    # The shortcut of block1b begins before block1a: what lies between them cannot be told apart.
    graph = tiny.empty()
    random = np.random.default_rng(0)
    stem = tiny.convolution(graph, graph.inputs[0], random.normal(0, 1, (8, 3, 3, 3)))
    first = tiny.convolution(graph, stem, random.normal(0, 1, (8, 3, 3, 8)))
    second = tiny.convolution(graph, first, random.normal(0, 1, (8, 3, 3, 8)))
    added = graph.add_tensor("net/block1b_add/Add", graph.shape(second), "float32")
    graph.insert(len(graph.operators), "ADD", [stem, second], [added], graph.schema.AddOptionsT())
    graph.set_output(added)
    for index, name in ((stem, "stem_conv"), (first, "block1a_conv"), (second, "block1b_conv")):
        graph.tensor(index).name = f"net/{name}".encode()
    blocks = cut(graph.content())
    assert [(block.name, block.operators) for block in blocks] == [("stem", 1), ("block1a", 3)]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (
            ("features_0_0_1", "features_1_0_block_0_0_1", "features_1_0_block_1_fc1_1", "features_2_0_block_0_0_1"),
            ["features_0", "features_1_0", "features_2_0"],
        ),
        (
            ("features.0.0", "features.1.0.block.0.0", "features.1.1.block.0.0", "features.8.0"),
            ["features.0", "features.1.0", "features.1.1", "features.8"],
        ),
        (
            ("conv_stem", "blocks.0.0.conv_pw", "blocks.1.0.conv_pw", "blocks.1.1.se"),
            ["stem", "blocks.0.0", "blocks.1.0"],
        ),
        (("stem_conv", "block_1_expand", "block_2_expand"), ["stem", "block_1", "block_2"]),
    ],
)
def test_layers_are_told_by_the_names_that_libraries_give(layers: tuple[str, ...], names: list[str]) -> None:
    """Of torchvision, of timm, and of Keras' MobileNetV2; the first block is what comes before."""
    assert [block.name for block in cut(network(layers))][1 : len(names) + 1] == names


def test_constants_that_blocks_share_do_not_tie_them_together() -> None:
    graph = tiny.empty()
    current = graph.inputs[0]
    axes = graph.add_tensor("axes", (2,), "int32", np.array([1, 2], np.int32))
    options = graph.schema.ReducerOptionsT()
    options.keepDims = True
    for name in ("stem_conv", "block1a_conv", "block2a_conv"):
        gate = graph.add_tensor(f"net/{name}/gate", (1, 1, 1, 3), "float32")
        graph.insert(len(graph.operators), "MEAN", [current, axes], [gate], options)
        gated = graph.add_tensor(f"net/{name}/gated", (1, 8, 8, 3), "float32")
        graph.insert(len(graph.operators), "MUL", [current, gate], [gated], graph.schema.MulOptionsT())
        current = gated
    graph.set_output(current)
    blocks = cut(graph.content())
    assert [(block.name, block.operators) for block in blocks] == [("stem", 2), ("block1a", 2), ("block2a", 2)]
    image = np.random.default_rng(1).uniform(0, 255, (8, 8, 3))
    assert all(np.isfinite(tiny.run(block.content, image)).all() for block in blocks)


def test_a_network_without_names_is_refused() -> None:
    with pytest.raises(ModelError, match=r"x\.tflite cannot be cut into blocks"):
        cut(tiny.classifier(), "x.tflite")
    with pytest.raises(ModelError):
        cut(b"no model", "x.tflite")


def test_a_signature_and_metadata_do_not_come_along() -> None:
    graph = Graph(network())
    graph.set_signature("serving", "image", "scores")
    first = Graph(cut(graph.content())[0].content)
    assert not first.model.signatureDefs
    assert not first.model.metadata


def test_blocks_are_values() -> None:
    (first, *_) = cut(network())
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.name = "other"  # type: ignore[misc]
