"""Overlays have to land on the right nodes: Model Explorer's own adapters say which these are."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeeff import cli, overlays
from edgeeff.converters import blocks, inspect
from edgeeff.converters.float_model import finish
from edgeeff.converters.graph import Graph
from edgeeff.converters.quantize import collect_ranges, quantize
from edgeeff.converters.schemes import SCHEMES
from edgeeff.diagnosis import diagnose
from edgeeff.errors import InputError, OutputError, RecordError
from edgeeff.overlays import Overlay, Plan
from edgeeff.results import BlockLatency, ModelFile, ProfileRecord, read_record, to_json
from tests import reports, tiny
from tests.test_results import AUDIT

READ = """
import dataclasses, json, sys
from model_explorer import node_data_builder as builder
from model_explorer.builtin_tflite_flatbuffer_adapter import BuiltinTfliteFlatbufferAdapter
from model_explorer.builtin_tflite_mlir_adapter import BuiltinTfliteMlirAdapter

def graphs(adapter, path):
    return [graph for one in adapter.convert(path, {})["graphCollections"] for graph in one.graphs]

def opened(path):
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    data = {
        graph: builder.GraphNodeData(**{
            **one,
            "results": {key: builder.NodeDataResult(**result) for key, result in one["results"].items()},
            "gradient": [builder.GradientItem(**item) for item in one.get("gradient", [])],
        })
        for graph, one in told.items()
    }
    return json.loads(builder.ModelNodeData(graphsData=data).to_json_string())

asked = json.load(sys.stdin)
print(json.dumps({
    "flatbuffer": [graphs(BuiltinTfliteFlatbufferAdapter(), path) for path in asked["models"]],
    "mlir": [graphs(BuiltinTfliteMlirAdapter(), path) for path in asked["mlir"]],
    "overlays": [opened(path) for path in asked["overlays"]],
}))
"""
"""Runs in a process of its own: the adapter brings half of TensorFlow along, and may crash."""

needs_model_explorer = pytest.mark.skipif(
    importlib.util.find_spec("model_explorer") is None,
    reason="needs the test-only package ai-edge-model-explorer, which is the viewer that overlays are for",
)


def quantized(content: bytes, scheme: str = "int8", size: int = 8) -> bytes:
    model = finish(content)
    ranges = collect_ranges(model, tiny.images(8, size=size)) if scheme == "int8" else None
    kinds: Any = {"input_type": "uint8" if scheme == "int8" else "float32", "output_type": "float32"}
    return quantize(model, SCHEMES[scheme], ranges, **kinds)


def renamed(content: bytes, subgraph: bytes | None = None, tensors: bytes | None = None) -> bytes:
    graph = Graph(content)
    graph.model.subgraphs[0].name = subgraph
    for index, tensor in enumerate(graph.model.subgraphs[0].tensors):
        tensor.name = tensor.name if tensors is None else (tensors if index % 2 else b"")
    return graph.content()


def doubled() -> bytes:
    """A file with a second graph."""
    graph = Graph(tiny.classifier())
    graph.model.subgraphs.append(copy.deepcopy(graph.model.subgraphs[0]))
    graph.model.subgraphs[1].name = b"second"
    return graph.content()


MADE: dict[str, Callable[[], bytes]] = {
    "float": tiny.classifier,
    "int8": lambda: quantized(tiny.classifier()),
    "dynamic": lambda: quantized(tiny.swish_classifier(), "dynamic", 16),
    "float16": lambda: quantized(tiny.classifier(), "float16"),
    "swish, where two tensors have one name": lambda: quantized(tiny.swish_classifier(), size=16),
    "a graph with a name": lambda: renamed(tiny.classifier(), b"a/b c"),
    "tensors without names of their own": lambda: renamed(tiny.classifier(), tensors=b"same"),
    "two graphs": doubled,
}
ODD = ("tensors without names of their own", "two graphs", "a graph with a name")
"""Files that the MLIR adapter does not open, and one whose graph it gives another name."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("overlays")
    paths = {name: folder / f"{number}.tflite" for number, name in enumerate(MADE)}
    for name, path in paths.items():
        path.write_bytes(MADE[name]())
    return paths


@pytest.fixture(scope="module")
def written(files: dict[str, Path]) -> dict[str, tuple[inspect.Graph, tuple[Overlay, ...], list[Path]]]:
    """The overlays of every file, as they are on the disk."""
    made = {}
    for name, path in files.items():
        graph, found = overlays.of_file(Plan(path, path.with_suffix(".json")))
        made[name] = (graph, found, list(overlays.write(graph, found, path.with_suffix(".json"))))
    return made


@pytest.fixture(scope="module")
def opened(files: dict[str, Path], written: dict[str, Any]) -> Any:
    """What Model Explorer makes of the files and of the overlays."""
    asked = {
        "models": [str(path) for path in files.values()],
        "mlir": [str(path) for name, path in files.items() if name not in ODD],
        "overlays": [str(path) for _, _, paths in written.values() for path in paths],
    }
    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def attribute(item: Any, key: str) -> list[str]:
    return [one["value"] for one in item["attrs"] if one["key"] == key]


def node_of(graph: Any) -> dict[str, Any]:
    """Return the nodes by every key that stands for them, as the page looks them up: names of results come first."""
    found = {node["id"]: node for node in graph["nodes"]}
    return found | {
        name: node
        for node in graph["nodes"]
        for output in node["outputsMetadata"]
        for name in attribute(output, "tensor_name")
    }


@needs_model_explorer
@pytest.mark.parametrize("name", MADE)
def test_every_value_is_at_its_operator(name: str, written: dict[str, Any], opened: Any) -> None:
    graph, made, paths = written[name]
    theirs = opened["flatbuffer"][list(MADE).index(name)][0]
    nodes = node_of(theirs)
    for overlay, path in zip(made, paths, strict=True):
        document = json.loads(path.read_text(encoding="utf-8"))
        assert list(document) == [theirs["id"]]
        results = document[theirs["id"]]["results"]
        assert len(results) == len(overlay.values) > 0
        for (key, result), (index, value) in zip(results.items(), sorted(overlay.values.items()), strict=True):
            node, operator = nodes[key], graph.operators[index]
            assert node["label"] == operator.name.lower()
            tensors = [one for output in node["outputsMetadata"] for one in attribute(output, "tensor_index")]
            assert tensors == [str(one) for one in operator.outputs]
            assert result["value"] == value


@needs_model_explorer
@pytest.mark.parametrize("name", [name for name in MADE if name not in ODD and "one name" not in name])
def test_the_other_adapter_has_the_same_nodes(name: str, written: dict[str, Any], opened: Any) -> None:
    graph, made, paths = written[name]
    theirs = opened["mlir"][[name for name in MADE if name not in ODD].index(name)][0]
    nodes = node_of(theirs)
    results = json.loads(paths[-1].read_text(encoding="utf-8"))[theirs["id"]]["results"]
    placed = [
        (nodes[key]["label"].replace("_", ""), graph.operators[index].name.lower().replace("_", ""))
        for key, index in zip(results, sorted(made[-1].values), strict=True)
        if not key.isdigit()
    ]
    assert len(placed) >= 5
    assert [(found, wanted) for found, wanted in placed if found != wanted] == []


@needs_model_explorer
def test_model_explorer_loses_nothing_of_an_overlay(written: dict[str, Any], opened: Any) -> None:
    paths = [path for _, _, those in written.values() for path in those]
    for path, theirs in zip(paths, opened["overlays"], strict=True):
        for graph, ours in json.loads(path.read_text(encoding="utf-8")).items():
            assert {key: theirs[graph][key] for key in ours} == ours


def test_model_explorer_is_not_needed_to_write(written: dict[str, Any]) -> None:
    assert "model_explorer" not in sys.modules
    assert [path.name for path in written["float"][2]] == ["0.json", "0.weights.json", "0.types.json"]


# --- What is shown ----------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_file(files: dict[str, Path], golden: Callable[[str, str], None]) -> None:
    graph, made = overlays.of_file(Plan(files["float"], Path("x.json")))
    macs, weights, types = made
    by_name = {one.name: one.index for one in graph.operators}
    # 4 x 4 places of 3 x 3 filters over 3 channels, 8 of them; 8 channels to 5 classes.
    assert macs.values == {by_name["CONV_2D"]: 0.003456, by_name["FULLY_CONNECTED"]: 4e-05}
    assert weights.values[by_name["FULLY_CONNECTED"]] == 4 * (8 * 5 + 5)
    assert weights.values[by_name["MEAN"]] == 4 * 2
    assert set(types.values.values()) == {"float32"}
    golden("overlays.json", json.dumps([overlays.document(graph, one) for one in made], indent=1) + "\n")


def test_types_name_what_changes_them_and_other_weights(written: dict[str, Any]) -> None:
    def types(name: str) -> set[str]:
        return set(written[name][1][-1].values.values())

    assert types("int8") == {"uint8 to int8", "int8", "int8 to float32", "float32"}
    assert types("dynamic") == {"float32", "float32, int8 weights"}


@cache
def cut(path: Path) -> tuple[blocks.Block, ...]:
    return blocks.cut(path.read_bytes())


def profiled(path: Path, seconds: Sequence[float] | None = None, **changes: Any) -> ProfileRecord:
    """A record of a file with blocks; their times are made up."""
    cuts = cut(path)
    times = seconds or [0.001 * (1 + number) for number in range(len(cuts))]
    model = ModelFile.of(path)
    found = tuple(
        BlockLatency(one.name, one.operators, one.macs, took, took / sum(times))
        for one, took in zip(cuts, times, strict=True)
    )
    options: dict[str, Any] = {"blocks": found} | changes
    return dataclasses.replace(reports.profile("pi4", 31.2, model=model), **options)


SWISH = "swish, where two tensors have one name"


def by_latency(path: Path, record: ProfileRecord) -> Overlay:
    content = path.read_bytes()
    return overlays.by_latency(inspect.parse(content), record, hashlib.sha256(content).hexdigest(), path.name)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_a_blocks_operators_take_what_was_measured_of_it(files: dict[str, Path], data: st.DataObject) -> None:
    count = len(cut(files[SWISH]))
    times = data.draw(st.lists(st.just(0.0) | st.floats(1e-7, 10), min_size=count, max_size=count).filter(any))
    record = profiled(files[SWISH], times)
    shown = by_latency(files[SWISH], record).values
    assert sorted(shown) == list(range(sum(one.operators for one in record.blocks)))
    left = [shown[index] for index in range(len(shown))]
    for block in record.blocks:
        own, left = left[: block.operators], left[block.operators :]
        numbers = [float(one) for one in own]
        assert min(numbers) >= 0
        assert sum(numbers) == pytest.approx(1e3 * block.p50_s, rel=1e-3)
        assert all(numbers) or not block.p50_s


def test_convolutions_get_more_of_a_block_than_what_is_added_to_them(files: dict[str, Path]) -> None:
    path = files["int8"].parent / "wide.tflite"
    path.write_bytes(tiny.swish_classifier(size=64))
    graph, shown = inspect.parse(path.read_bytes()), by_latency(path, profiled(path)).values
    block = [one for one in graph.operators if one.block == "block1"]
    heaviest = max(block, key=lambda one: one.macs)
    assert heaviest.macs > 0
    assert float(shown[heaviest.index]) > max(
        float(shown[one.index]) for one in block if one.name == "CONV_2D" and one.macs < heaviest.macs / 100
    )


def test_a_latency_says_what_it_is(files: dict[str, Path]) -> None:
    path = files[SWISH]
    valid = profiled(path)
    assert by_latency(path, valid).name == "latency, ms (pi4, 1 thread; blocks measured, operators estimated)"
    assert valid.verdict is not None
    other = profiled(
        path,
        threads=4,
        device=dataclasses.replace(valid.device, emulated=True),
        verdict=dataclasses.replace(valid.verdict, valid=False),
    )
    assert by_latency(path, other).name.startswith("latency, ms (EMULATED, INVALID, pi4, 4 threads; ")


def test_records_that_do_not_fit_are_refused(files: dict[str, Path]) -> None:
    path = files[SWISH]
    with pytest.raises(InputError, match=r"of another file: .*edgeeff profile .* --blocks"):
        by_latency(files["int8"], profiled(path))
    with pytest.raises(InputError, match="--blocks --target pi4"):
        by_latency(path, profiled(path, blocks=()))
    with pytest.raises(RecordError, match="contradicts its file"):
        by_latency(path, profiled(path, blocks=profiled(path).blocks[1:]))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float file, an int8 file of it, one with a ruined tensor, and images."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "photos").mkdir()
    for number, pixels in enumerate(tiny.images(16, seed=3)):
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    content = tiny.classifier()
    (folder / "float.tflite").write_bytes(content)
    (folder / "int8.tflite").write_bytes(quantized(content))
    model = finish(content)
    ranges = collect_ranges(model, tiny.images(8))
    narrow = ranges | {"conv": (ranges["conv"][0] * 0.02, ranges["conv"][1] * 0.02)}
    ruined = quantize(model, SCHEMES["int8"], narrow, input_type="uint8", output_type="float32")
    (folder / "ruined.tflite").write_bytes(ruined)
    return folder


def test_errors_are_those_that_a_diagnosis_finds(desk: Path) -> None:
    def errors(name: str) -> dict[str, float]:
        plan = Plan(desk / name, Path("x.json"), baseline=desk / "float.tflite", data=desk / "photos")
        graph = inspect.parse(plan.model.read_bytes())
        overlay = overlays.by_error(graph, plan)
        assert overlay.name == "quantization error, % of deviation (12 images of photos)"
        return {graph.operators[index].name: float(value) for index, value in overlay.values.items()}

    healthy, ruined = errors("int8.tflite"), errors("ruined.tflite")
    assert 0 < healthy["CONV_2D"] < 5 < 50 < ruined["CONV_2D"]
    told = diagnose.diagnose(diagnose.Plan(desk / "ruined.tflite", desk / "float.tflite", desk / "photos", samples=12))
    (conv,) = [one for one in told.tensors if one.name == "conv"]
    assert ruined["CONV_2D"] == pytest.approx(100 * conv.error, rel=1e-3)


def test_a_baseline_of_another_network_has_no_tensors_in_common(desk: Path) -> None:
    (desk / "other.tflite").write_bytes(tiny.swish_classifier(classes=6))
    plan = Plan(desk / "int8.tflite", Path("x.json"), baseline=desk / "other.tflite")
    graph = inspect.parse(plan.model.read_bytes())
    with pytest.raises(InputError, match="no tensors in common"):
        overlays.by_error(graph, plan)


# --- The command ------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.main, ["inspect", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def test_the_command_writes_what_it_says(files: dict[str, Path], tmp_path: Path) -> None:
    record, out = tmp_path / "p.profile.json", tmp_path / "out.json"
    record.write_text(to_json(profiled(files[SWISH])), encoding="utf-8")
    shown = run(files[SWISH], "--model-explorer", out, "--profile", record).output
    names = ["out.json", "out.macs.json", "out.types.json", "out.weights.json"]
    assert sorted(path.name for path in tmp_path.glob("out*")) == names
    assert f"{out}: latency, ms (pi4, 1 thread; " in shown
    assert f"model-explorer {files[SWISH]} --node_data_paths={out},{tmp_path}/out.macs.json," in shown
    (data,) = json.loads(out.read_text(encoding="utf-8")).values()
    values = [one["value"] for one in data["results"].values()]
    assert sum(values) == pytest.approx(1e3 * sum(one.p50_s for one in profiled(files[SWISH]).blocks), rel=1e-3)
    assert [one["stop"] for one in data["gradient"]] == [0, 0.5, 1]


def test_the_command_measures_errors_and_prints_one_document(desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--baseline", desk / "float.tflite", "--data", desk / "photos", "--json")
    printed = run(desk / "int8.tflite", "--model-explorer", out, *options).stdout
    assert json.loads(printed)["schema"] == "edgeeff/inspection"
    (data,) = json.loads(out.read_text(encoding="utf-8")).values()
    assert data["name"].startswith("quantization error, %")
    assert data["hideAggregatedStats"] == ["sum"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--profile", "p.json"], "--profile: give --model-explorer OUT.json, too"),
        (["--baseline", "f", "--data", "d"], "--baseline, --data: give --model-explorer OUT.json, too"),
        (["--model-explorer", "out.tflite"], "Model Explorer opens .json files only"),
        (["--model-explorer", "nowhere/out.json"], "choose another place with --model-explorer"),
        (["--model-explorer", "out.json", "--data", "photos"], "give the float model with --baseline"),
        (["--model-explorer", "out.json", "--profile", "nothing.json"], "cannot read the record nothing.json"),
        (["--model-explorer", "out.json", "--profile", "audit.json"], "give one of edgeeff/profile"),
        (["--model-explorer", "audit.json"], "would overwrite a record of edgeeff"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    options: list[str], words: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("audit.json").write_text(to_json(AUDIT), encoding="utf-8")
    assert words in run(files["int8"], *options, status=2).output
    assert [path.name for path in Path().iterdir()] == ["audit.json"]
    assert read_record(Path("audit.json")) == AUDIT


def test_all_files_are_written_or_none(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out.types.json").mkdir()
    graph, made = overlays.of_file(Plan(files["float"], tmp_path / "out.json"))
    with pytest.raises(OutputError, match="it is a folder"):
        overlays.write(graph, made, tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.types.json"]


def test_names_that_steer_a_terminal_stay_text(tmp_path: Path, files: dict[str, Path]) -> None:
    odd = tmp_path / "a\x1b[31m.json"
    shown = run(files["float"], "--model-explorer", odd).output
    assert "\x1b[31m" not in shown
    assert odd.is_file()
    assert np.isfinite([one["value"] for one in json.loads(odd.read_text())["main"]["results"].values()]).all()
