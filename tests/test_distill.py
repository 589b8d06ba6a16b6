"""Images made from what a network expects are closer to that than what they are made from, and show its classes.

TensorFlow works in one process of its own (`answer`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.calibration import ranges, synthetic
from edgeeff.converters import distill, float_model, quantize, replay
from edgeeff.converters.distill import Request, expectations
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.runtime import Session
from edgeeff.errors import ModelError
from tests import tiny

Array = npt.NDArray[Any]
SIZE, COUNT = 16, 12
KNOWN = ("stem", "block1/expand", "block1/depth", "block1/project", "block2/expand", "block2/depth", "top")
"""Tensors that the tiny network is given batch normalizations for."""
QUESTIONS = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from edgeeff.converters import distill

folder, sent = Path(sys.argv[1]), []
request = distill._decode((folder / "request.json").read_text())
made = []
for seed in (0, 0):
    distill.run(replace(request, seed=seed), sent.append)
    made.append(np.load(folder / "images.npy"))
np.save(folder / "made.npy", np.stack(made))
import tensorflow as tf
from edgeeff.converters.graph import Graph

with np.load(folder / "expected.npz") as arrays:
    expected = {int(index): entry for index, entry in arrays.items()}
network = distill.Network(tf, Graph((folder / "float.tflite").read_bytes()), expected, request)
look = lambda images: [part.numpy().tolist() for part in network.look(tf.constant(images, tf.float32))]
starts = np.load(folder / "starts.npy")
print("ANSWER" + json.dumps({"sent": sent, "starts": look(starts), "made": look(made[0])}))
"""


def biased(model: FloatModel) -> dict[str, tuple[int, Array]]:
    """The tensors behind convolutions by name: their indices, and the biases of the convolutions."""
    graph = Graph(model.content)
    return {
        graph.name(int(operator.outputs[0])): (
            int(operator.outputs[0]),
            np.asarray(graph.constant(int(operator.inputs[2]))),
        )
        for operator in graph.operators
        if graph.kind(operator) in ("CONV_2D", "DEPTHWISE_CONV_2D")
    }


def statistics(model: FloatModel) -> dict[str, npt.NDArray[np.float32]]:
    """What Keras would tell of the tiny network, had it been trained with the images of `tiny`."""
    interpreter = ranges._interpreter(model.content, threads=1)
    seen: dict[str, list[Array]] = {name: [] for name in KNOWN}
    layers = biased(model)
    for image in tiny.images(40, SIZE):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None].astype(np.float32))
        interpreter.invoke()
        for name, values in seen.items():
            tensor = interpreter.get_tensor(layers[name][0])
            values.append(tensor.reshape(-1, tensor.shape[-1]).copy())
    told = {}
    for name, values in seen.items():
        every = np.concatenate(values)
        told[name] = np.stack([layers[name][1], every.mean(axis=0), every.std(axis=0)]).astype(np.float32)
    return told


@pytest.fixture(scope="module")
def model() -> FloatModel:
    plain = finish(tiny.swish_classifier(size=SIZE))
    return replace(plain, statistics=statistics(plain))


@pytest.fixture(scope="module")
def starts() -> Array:
    return np.stack(list(synthetic.images(COUNT, SIZE, SIZE)))


@pytest.fixture(scope="module")
def answer(model: FloatModel, starts: Array, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("distill")
    request = Request(
        folder=str(folder),
        logits=model.logits,
        fixed=tuple(quantize.known_ranges(model)),
        mean=model.mean,
        std=model.std,
        classes=model.classes,
        steps=distill.STEPS,
        batch=8,
        threads=1,
        seed=0,
    )
    expected = expectations(Graph(model.content), model.statistics)
    (folder / "float.tflite").write_bytes(model.content)
    (folder / "request.json").write_text(json.dumps(asdict(request)))
    arrays: dict[str, Any] = {str(index): entry for index, entry in expected.items()}
    np.savez(folder / "expected.npz", **arrays)
    np.save(folder / "starts.npy", starts)
    process = subprocess.run(
        [sys.executable, "-c", QUESTIONS, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    answer: dict[str, Any] = json.loads(process.stdout.partition("ANSWER")[2])
    return answer | {"images": np.load(folder / "made.npy")}


# --- What is known ----------------------------------------------------------------------------------------------------


def test_convolutions_are_known_by_their_biases(model: FloatModel) -> None:
    layers = biased(model)
    found = expectations(Graph(model.content), model.statistics)
    assert found.keys() == {layers[name][0] for name in KNOWN}
    for name in KNOWN:
        np.testing.assert_array_equal(found[layers[name][0]], model.statistics[name][1:])


def test_other_biases_are_nobodys(model: FloatModel) -> None:
    entry = model.statistics["stem"]
    graph = Graph(model.content)
    for other in (entry * 1.01, entry * 0, entry[:, :-1]):
        assert expectations(graph, {"stem": other}) == {}
    # Folding rounds.
    assert expectations(graph, {"stem": entry * np.float32(1 + 1e-5)})


def test_networks_that_say_nothing_get_nothing(model: FloatModel) -> None:
    assert distill.images(replace(model, statistics={}), 16)[0] == []
    few = {"stem": model.statistics["stem"]}
    made, why = distill.images(replace(model, statistics=few), 16)
    assert made == []
    assert "too few" in why


def test_large_networks_get_fewer(model: FloatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def most(model: FloatModel, graph: Graph, expected: Any, starts: list[Any], *_: Any) -> list[Any]:
        return starts

    monkeypatch.setenv("EDGEEFF_CACHE", str(tmp_path))
    monkeypatch.setattr(distill, "_make", most)
    assert len(distill.images(model, 50)[0]) == 50
    graph = Graph(model.content)
    one = replay.work(graph, 0, len(graph.operators)) * distill.VIEW**2 * distill.STEPS
    monkeypatch.setattr(distill, "MOST_WORK", 20.5 * one)
    made, why = distill.images(model, 50)
    assert len(made) == 20
    assert "network of this size" in why
    monkeypatch.setattr(distill, "MOST_WORK", 1.0)
    assert distill.images(model, 50)[0] == []


def test_the_search_is_bounded_too(model: FloatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distill.searchable(model) == distill.MOST_SEARCHED
    monkeypatch.setattr(distill, "MOST_SEARCH_WORK", 1.0)
    assert distill.searchable(model) == distill.LEAST_SEARCHED


# --- How they are made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 21), (1, 6)])
def test_white_waves_make_pictures_of_one_deviation(size: tuple[int, int]) -> None:
    height, width = size
    random = np.random.default_rng(0)
    waves = random.standard_normal((500, height, width // 2 + 1, 2)) @ np.array([1, 1j])
    pictures = np.fft.irfft2(waves * distill._strength(height, width), s=size)
    assert np.sqrt(np.square(pictures).mean()) == pytest.approx(1, rel=0.05)


def test_the_amplitude_is_that_of_photographs() -> None:
    strength = distill._strength(64, 64)
    assert strength[0, 1] / strength[0, 4] == pytest.approx(4)
    assert strength[2, 0] / strength[-8, 0] == pytest.approx(4)


def test_images_are_to_show_one_class_or_two() -> None:
    wanted = distill._classes(np.random.default_rng(0), 500, 7)
    np.testing.assert_allclose(wanted.sum(axis=1), 1)
    assert (wanted > 0).sum(axis=1).max() == 2
    assert wanted.max(axis=1).min() >= distill.LEAST_SHARE
    assert set(wanted.argmax(axis=1)) == set(range(7))


def test_batches_are_even_and_bounded(model: FloatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(model.content)
    assert [distill._batch(graph, count) for count in (8, 16, 17, 32, 33)] == [8, 16, 9, 16, 11]
    monkeypatch.setattr(distill, "MOST_VALUES", 1.0)
    assert distill._batch(graph, 64) == distill.FEWEST


def test_the_channels_come_closer_to_what_is_expected(answer: dict[str, Any]) -> None:
    (_, before), (_, after) = answer["starts"], answer["made"]
    assert after < 0.8 * before


def test_images_are_bytes_that_show_classes(answer: dict[str, Any], model: FloatModel, starts: Array) -> None:
    made = answer["images"][0]
    assert (made.shape, made.dtype) == (starts.shape, np.uint8)
    assert (made != starts).mean() > 0.5
    session = Session(model.content)
    found = np.stack([session.run(image) for image in made])
    np.testing.assert_allclose(found.argmax(axis=1), np.argmax(answer["made"][0], axis=1))
    assert len(set(found.argmax(axis=1))) > 1


def test_a_seed_gives_the_same_images(answer: dict[str, Any]) -> None:
    np.testing.assert_array_equal(*answer["images"])


def test_every_step_is_told(answer: dict[str, Any]) -> None:
    (stage,) = {said["stage"]: said["total"] for said in answer["sent"] if "total" in said}.items()
    assert stage == (f"make {COUNT} images from what the network expects", 2 * distill.STEPS)
    assert sum("step" in said for said in answer["sent"]) == 2 * 2 * distill.STEPS


# --- The cache --------------------------------------------------------------------------------------------------------


def test_images_are_made_once(
    model: FloatModel, starts: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def converse(child: str, argument: str, hear: Any) -> dict[str, Any]:
        asked.append(distill._decode(argument))
        given = Path(asked[-1].folder)
        np.testing.assert_array_equal(np.load(given / "starts.npy"), starts)
        np.save(given / "images.npy", starts[::-1])
        return {}

    monkeypatch.setenv("EDGEEFF_CACHE", str(tmp_path))
    monkeypatch.setattr(float_model, "converse", converse)
    for _ in range(2):
        made, why = distill.images(model, COUNT)
        np.testing.assert_array_equal(np.stack(made), starts[::-1])
        assert why == ""
    assert len(asked) == 1
    # Damaged, they are made anew.
    (kept,) = tmp_path.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(np.stack(distill.images(model, COUNT)[0]), starts[::-1])
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    model: FloatModel, starts: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converse(child: str, argument: str, hear: Any) -> dict[str, Any]:
        np.save(Path(distill._decode(argument).folder) / "images.npy", starts)
        return {}

    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEEFF_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(float_model, "converse", converse)
    assert len(distill.images(model, COUNT)[0]) == COUNT


def test_a_process_that_dies_leaves_a_reason(
    model: FloatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converse(*_: Any) -> dict[str, Any]:
        raise ModelError("the TensorFlow process was killed")

    monkeypatch.setenv("EDGEEFF_CACHE", str(tmp_path))
    monkeypatch.setattr(float_model, "converse", converse)
    assert distill.images(model, COUNT) == ([], "the TensorFlow process was killed")
