"""The network replayed in TensorFlow computes what the files compute, and tuning brings the quantized one closer.

One TensorFlow process answers all questions about it (`answers`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeeff.converters import float_model, quantize, reconstruct
from edgeeff.converters.float_model import FloatModel, finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.reconstruct import Request
from edgeeff.converters.recover import CHILD, Judge, choose_ranges
from edgeeff.converters.replay import cuts, obstacles, roots
from edgeeff.converters.schemes import SCHEMES
from edgeeff.errors import ModelError
from tests import tiny

PHOTOS = tiny.images(40, size=16)
QUESTIONS = """
import json, sys
import numpy as np
from pathlib import Path
from edgeeff.converters import reconstruct, replay
from edgeeff.converters.graph import Graph

folder = Path(sys.argv[1])
sent, sent_apart = [], []

def tune(**changes):
    fields = json.loads((folder / "request.json").read_text())
    reconstruct.run(reconstruct._decode(json.dumps(fields | changes)), sent.append)
    return {name: dict(np.load(folder / f"{name}.npz")) for name in reconstruct.CHECKPOINTS}

first = tune()
repeat = sys.argv[2:] and (tune(), tune(seed=1))
import tensorflow as tf

request = reconstruct._decode((folder / "request.json").read_text())
ranges = json.loads((folder / "ranges.json").read_text())
tuning = reconstruct.Tuning(tf, Graph((folder / "float.tflite").read_bytes()), ranges, request)
end, entry, images = len(tuning._nodes), tuning._graph.inputs[0], np.load(folder / "images.npy")
compute = {q: tuning._function(0, end, entry, tuning._nodes[-1].output, quantized=q)(images) for q in (False, True)}
counts = tuning._importance(images[:8], sent_apart.append)
def second(quantized):
    maps = tuning._through(*tuning._blocks[0], images[:4], quantized=quantized)
    return tuning._through(*tuning._blocks[1], maps, quantized=quantized)

parts = {quantized: second(quantized) for quantized in (False, True)}
alone = []
fields = json.loads((folder / "request.json").read_text()) | {"exact": True, "finish_steps": 0}
reconstruct.run(reconstruct._decode(json.dumps(fields)), alone.append)
fields = json.loads((folder / "request.json").read_text()) | {"work": 0.0, "finish_steps": 0}
at_once, fits = reconstruct.Tuning(tf, tuning._graph, ranges, reconstruct._decode(json.dumps(fields))), []
at_once.blocks(reconstruct.Views(images, 80, 0), fits.append)
moved = {index for index, delta in at_once._deltas.items() if np.any(delta.numpy())}
x, low, high = tf.constant([[-9.0, -1.0, 0.3, 5.0]]), tf.Variable(-2.0), tf.Variable(3.0)
with tf.GradientTape() as tape:
    tape.watch(x)
    y = replay.fake_quantized(tf, x, low, high)
    total = tf.reduce_sum(y)
gradients = [value.numpy().tolist() for value in tape.gradient(total, [x, low, high])]
same = lambda a, b: all(np.array_equal(a[n][k], b[n][k]) for n in a for k in a[n])
np.savez(folder / "first.npz", **{f"{n}:{k}": v for n, arrays in first.items() for k, v in arrays.items()})
print("ANSWER" + json.dumps({
    "sent": sent,
    "repeated": [same(first, again) for again in repeat],
    "float": compute[False].tolist(),
    "quantized": compute[True].tolist(),
    "rounded": y.numpy().tolist(),
    "gradients": gradients,
    "counts": [count.tolist() for count in counts.values()],
    "ends": [tuning._graph.name(index) for index in counts],
    "parts": {str(q): part.tolist() for q, part in parts.items()},
    "alone": alone,
    "fits": [said for said in fits if "before" in said],
    "fitted": sorted({tuning._graph.name(node.output) for node in tuning._nodes if moved & set(node.inputs)}),
}))
"""


def model() -> FloatModel:
    return finish(tiny.swish_classifier())


def request(folder: Path, of: FloatModel) -> Request:
    return Request(
        folder=str(folder),
        logits=of.logits,
        fixed=(*quantize.known_ranges(of), of.logits),
        work=3e8,
        most_steps=30,
        finish_steps=4,
        finish_side=16,
        batch=8,
        threads=1,
        seed=0,
        views=100,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the process is given: a network, images, ranges that clip too much."""
    path, of = tmp_path_factory.mktemp("replay"), model()
    ranges, *_ = choose_ranges(of, PHOTOS, Judge(of, PHOTOS, PHOTOS))
    (path / "float.tflite").write_bytes(of.content)
    (path / "ranges.json").write_text(json.dumps(ranges))
    (path / "request.json").write_text(reconstruct.encode(request(path, of)))
    np.save(path / "images.npy", np.stack(PHOTOS))
    return path


def ask(folder: Path, *options: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-c", QUESTIONS, str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    answer: dict[str, Any] = json.loads(process.stdout.partition("ANSWER")[2])
    return answer


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Any]:
    return ask(folder)


# --- What the graph says ----------------------------------------------------------------------------------------------


def test_a_network_is_cut_at_the_ends_of_its_blocks() -> None:
    graph = Graph(model().content)
    ends = [graph.name(int(graph.operators[position - 1].outputs[0])) for position in cuts(graph, 0)]
    # Not behind block2/project, beside which the residual is still alive.
    assert ends == ["block1/project", "sum"]
    assert cuts(graph, cuts(graph, 0)[0]) == cuts(graph, 0)[1:]


def test_operators_that_move_values_share_their_inputs_scale() -> None:
    graph = Graph(model().content)
    root = {graph.name(index): graph.name(source) for index, source in roots(graph).items()}
    assert root["preprocessing/rows"] == graph.name(graph.inputs[0])
    assert root["stem"] == "stem"
    assert root["sum"] == "sum"


def test_what_cannot_be_replayed_is_named_once() -> None:
    assert obstacles(Graph(model().content)) == []
    assert obstacles(Graph(tiny.classifier(preprocessing=[*tiny.KERAS_STYLE, tiny.Step("SUB", 1.0)]))) == ["SUB", "DIV"]
    bent = tiny.classifier(preprocessing=[tiny.Step("ADD", 1.0, activation="TANH")])
    assert obstacles(Graph(bent)) == ["ADD with TANH"]


def test_weights_that_are_computed_cannot_be_tuned() -> None:
    graph = tiny.empty(1)
    rows = graph.add_tensor("rows", (1, 3), "float32")
    graph.insert(0, "RESHAPE", [graph.inputs[0]], [rows], graph.schema.ReshapeOptionsT())
    product = graph.add_tensor("product", (1, 1), "float32")
    graph.insert(1, "FULLY_CONNECTED", [rows, rows], [product], graph.schema.FullyConnectedOptionsT())
    graph.set_output(product)
    assert obstacles(graph) == ["FULLY_CONNECTED without constant weights and bias"]


def test_blocks_begin_with_a_last_convolution_that_is_fitted(answers: dict[str, Any]) -> None:
    assert [said["steps"] for said in answers["fits"]] == [0, 0, 0]
    assert all(said["after"] <= said["before"] for said in answers["fits"])
    assert any(said["after"] < 0.99 * said["before"] for said in answers["fits"])
    assert answers["fitted"]
    assert set(answers["fitted"]) <= {"block1/project", "block2/project", "logits"}


def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    sent = request(tmp_path, model())
    assert reconstruct._decode(reconstruct.encode(sent)) == sent


def test_the_process_says_why_it_died(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="status 1: FileNotFoundError"):
        float_model.converse(CHILD, reconstruct.encode(request(tmp_path, model())), lambda _: None)


# --- What TensorFlow computes -----------------------------------------------------------------------------------------


def test_the_replay_is_the_network(answers: dict[str, Any]) -> None:
    exact = np.stack([tiny.run(model().content, photo) for photo in PHOTOS])
    np.testing.assert_allclose(answers["float"], exact, atol=1e-5)


def test_the_simulated_quantization_is_the_real_one(answers: dict[str, Any], folder: Path) -> None:
    """The errors of both against float go together, until values in the middle between two steps part them."""
    ranges = {name: (low, high) for name, (low, high) in json.loads((folder / "ranges.json").read_text()).items()}
    content = quantize.quantize(model(), SCHEMES["int8"], ranges, input_type="float32", output_type="float32")
    real = np.stack([tiny.run(content, photo) for photo in PHOTOS])
    error, simulated = real - np.asarray(answers["float"]), np.asarray(answers["quantized"]) - answers["float"]
    assert np.abs(error).max() > 0.01
    assert np.corrcoef(error.ravel(), simulated.ravel())[0, 1] > 0.75


def test_every_block_is_tuned_to_the_better(answers: dict[str, Any]) -> None:
    run = answers["sent"]
    assert [message["stage"] for message in run if "stage" in message] == [
        "start TensorFlow",
        "tell which channels count",
        "tune block by block",
        "tune the last blocks together",
    ]
    blocks = [message for message in run if "before" in message]
    assert [block["step"] for block in blocks] == [1, 2, 3]
    assert all(block["after"] <= block["before"] for block in blocks)
    assert sum(block["after"] < 0.97 * block["before"] for block in blocks) >= 2
    # A block's own work decides how long it learns.
    assert len({block["steps"] for block in blocks}) > 1


def test_channels_count_as_the_scores_depend_on_them(answers: dict[str, Any]) -> None:
    assert answers["ends"] == ["block1/project", "sum"]
    for counts in answers["counts"]:
        assert np.mean(counts) == pytest.approx(1.0)
        assert min(counts) >= reconstruct.LEAST_WEIGHT
        assert max(counts) > 1.1


def test_maps_between_blocks_are_those_of_the_files(answers: dict[str, Any]) -> None:
    exact, rough = (np.asarray(answers["parts"][key]) for key in ("False", "True"))
    error = np.abs(rough - exact).mean() / exact.std()
    assert 0.001 < error < 0.3
    # Int8 knows 256 values.
    assert len(np.unique(rough.round(5))) <= 256 < len(np.unique(exact.round(5)))


def test_blocks_that_learn_by_themselves_do_so_from_exact_inputs(answers: dict[str, Any]) -> None:
    """Later blocks have no errors of earlier ones to make good, so theirs are smaller."""
    together, alone = ([m for m in answers[key] if "before" in m] for key in ("sent", "alone"))
    assert [block["step"] for block in alone] == [1, 2, 3]
    assert alone[1]["before"] < together[1]["before"]
    assert all(block["after"] <= block["before"] for block in alone)
    assert alone[1]["after"] < alone[1]["before"]


@pytest.mark.accuracy  # for the time that it takes
def test_the_same_seed_gives_the_same_weights(folder: Path) -> None:
    assert ask(folder, "repeat")["repeated"] == [True, False]


def test_weights_move_by_steps_of_their_quantization(answers: dict[str, Any], folder: Path) -> None:
    graph = Graph(model().content)
    with np.load(folder / "first.npz") as arrays:
        moved = {key.partition("/")[2]: values for key, values in arrays.items() if key.startswith("blocks:weights")}
        ranges = [values for key, values in arrays.items() if ":range/" in key]
    for index, values in moved.items():
        before = graph.constant(int(index))
        assert before is not None and before.shape == values.shape
        if before.ndim == 4:
            axes = (0, 1, 2) if before.shape[0] == 1 else (1, 2, 3)
            step = np.abs(before).max(axis=axes, keepdims=True) / 127
            assert 0 < np.abs((values - before) / step).max() < 5
    assert len(moved) == 2 * 13
    assert all(low <= 0 <= high and low < high for low, high in ranges)


def test_gradients_pass_through_rounding_and_reach_the_bounds(answers: dict[str, Any]) -> None:
    (rounded,), ((dx,), low, high) = answers["rounded"], answers["gradients"]
    step = 5 / 255
    np.testing.assert_allclose(rounded, [-2, -1, 0.3, 3], atol=step)
    assert dx == [0, 1, 1, 0]
    # One value is clipped at each end; inside, a wider range scales the rounding errors.
    rounding = (rounded[1] + 1 + rounded[2] - 0.3) / 5
    assert low == pytest.approx(1 - rounding, abs=1e-5)
    assert high == pytest.approx(1 + rounding, abs=1e-5)
