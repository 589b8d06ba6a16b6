from __future__ import annotations

import importlib.util
import io
import json
import struct
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.converters import metadata
from edgeeff.converters.graph import Graph
from edgeeff.converters.metadata import InputContract
from edgeeff.errors import InputError, MissingExtraError, ModelError
from tests import tiny

LABELS = ("tench", "goldfish", "great white shark", "crane", "Käse")
CONTRACT = InputContract(8, 8, 3, "float32")
PROVENANCE = {"variant": "b0", "scheme": "int8", "seed": 7, "nested": {"weights": "größe"}}


def embed(model: bytes, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "name": "EfficientNet tiny",
        "description": "five classes",
        "labels": LABELS,
        "contract": CONTRACT,
        "provenance": PROVENANCE,
    }
    return metadata.embed(model, **(arguments | changes))


@pytest.fixture(scope="module")
def plain() -> bytes:
    return tiny.classifier()


@pytest.fixture(scope="module")
def embedded(plain: bytes) -> bytes:
    return embed(plain)


@pytest.fixture(scope="module")
def fbs() -> ModuleType:
    """The generated schema that MediaPipe ships: a reader and writer that knows nothing of ours."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the test-only package mediapipe, whose metadata schema is the independent reader")
    path = Path(found.submodule_search_locations[0], "tasks", "metadata", "metadata_schema_py_generated.py")
    spec = importlib.util.spec_from_file_location("metadata_schema", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def buffers(model: bytes) -> list[Any]:
    root = metadata.open_model(model)
    return [root.Buffers(index) for index in range(root.BuffersLength())]


def entry(model: bytes, name: str) -> bytes:
    root = metadata.open_model(model)
    (found,) = (root.Metadata(i) for i in range(root.MetadataLength()) if root.Metadata(i).Name().decode() == name)
    return bytes(root.Buffers(found.Buffer()).DataAsNumpy().tobytes())


def test_what_is_written_is_read(embedded: bytes) -> None:
    read = metadata.read(embedded)
    assert read is not None
    assert read.name == "EfficientNet tiny"
    assert read.description == "five classes"
    assert read.labels == LABELS
    assert read.contract == CONTRACT
    assert read.provenance == PROVENANCE
    assert read.min_parser_version == "1.0.0"


def test_normalisation_is_read_per_channel(plain: bytes) -> None:
    contract = InputContract(8, 8, 3, "float32", mean=(123.5, 116.25, 103.5), std=(58.5, 57.0, 57.5))
    read = metadata.read(embed(plain, contract=contract))
    assert read is not None
    assert read.contract == contract


def test_without_labels_there_is_no_archive(plain: bytes) -> None:
    model = embed(plain, labels=None)
    read = metadata.read(model)
    assert read is not None
    assert read.labels is None
    assert not zipfile.is_zipfile(io.BytesIO(model))


def test_an_independent_reader_finds_what_the_schema_promises(embedded: bytes, fbs: ModuleType) -> None:
    content = entry(embedded, "TFLITE_METADATA")
    assert fbs.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    model = fbs.ModelMetadataT.InitFromPackedBuf(content)
    assert (model.name, model.minParserVersion) == (b"EfficientNet tiny", b"1.0.0")
    (graph,) = model.subgraphMetadata
    (image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert image.content.contentPropertiesType == fbs.ContentProperties.ImageProperties
    assert image.content.contentProperties.colorSpace == fbs.ColorSpaceType.RGB
    (unit,) = image.processUnits
    assert unit.optionsType == fbs.ProcessUnitOptions.NormalizationOptions
    assert list(unit.options.mean) == [0, 0, 0]
    assert list(unit.options.std) == [1, 1, 1]
    assert scores.content.contentPropertiesType == fbs.ContentProperties.FeatureProperties
    (file,) = scores.associatedFiles
    assert (file.name, file.type) == (b"labels.txt", fbs.AssociatedFileType.TENSOR_AXIS_LABELS)


def test_the_label_file_can_be_taken_without_unpacking(embedded: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(embedded)) as archive:
        (info,) = archive.infolist()
        assert info.compress_type == zipfile.ZIP_STORED
        assert archive.read(info).decode() == "".join(f"{label}\n" for label in LABELS)
    # Offsets count from the start of the file, so that readers which do not search for the archive's start find it.
    assert embedded[info.header_offset :][:4] == b"PK\x03\x04"


def test_our_entry_is_plain_json(embedded: bytes) -> None:
    assert json.loads(entry(embedded, "edgeeff")) == PROVENANCE


def test_the_network_stays_the_same(plain: bytes, embedded: bytes) -> None:
    for image in tiny.images(4):
        np.testing.assert_array_equal(tiny.run(embedded, image), tiny.run(plain, image))


def test_writing_again_replaces(plain: bytes, embedded: bytes) -> None:
    assert embed(embedded) == embedded == embed(plain)
    changed = embed(embedded, labels=LABELS[::-1], provenance={"variant": "b1"})
    read = metadata.read(changed)
    assert read is not None
    assert read.labels == LABELS[::-1]
    assert read.provenance == {"variant": "b1"}
    assert len(zipfile.ZipFile(io.BytesIO(changed)).infolist()) == 1


def test_other_entries_stay(plain: bytes) -> None:
    graph = Graph(plain)
    graph.model.buffers.append(graph.schema.BufferT(data=np.frombuffer(b"1.14.0\0\0", np.uint8)))
    graph.model.metadata = [graph.schema.MetadataT(name=b"min_runtime_version", buffer=len(graph.model.buffers) - 1)]
    assert entry(embed(graph.content()), "min_runtime_version") == b"1.14.0\0\0"


def test_data_outside_the_flatbuffer_is_taken_in_and_aligned() -> None:
    from litert_quantizer import quantizer, recipe

    # litert-quantizer puts data behind the flatbuffer from 256 kB on.
    source = Graph(tiny.classifier(classes=40_000))
    source.set_signature("serving_default", "image", "scores")
    made = quantizer.Quantizer(bytearray(source.content()))
    made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    model = bytes(made.quantize().quantized_model)
    assert any(buffer.Offset() > 1 for buffer in buffers(model))

    labels = tuple(f"class {index}" for index in range(40_000))
    embedded = embed(model, labels=labels)

    assert not any(buffer.Offset() for buffer in buffers(embedded))
    filled = [buffer for buffer in buffers(embedded) if not buffer.DataIsNone()]
    assert {(buffer._tab.Vector(buffer._tab.Offset(4))) % 16 for buffer in filled} == {0}
    for image in tiny.images(2):
        np.testing.assert_array_equal(tiny.run(embedded, image), tiny.run(model, image))
    read = metadata.read(embedded)
    assert read is not None
    assert read.labels == labels


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": LABELS[:4]}, InputError, "there are 4 labels, but the model has 5 outputs"),
        ({"labels": (*LABELS[:4], " ")}, InputError, "the label ' ' is empty"),
        ({"labels": (*LABELS[:4], "a\nb")}, InputError, "has a line break"),
        (
            {"contract": InputContract(9, 8, 3, "float32")},
            ModelError,
            r"input is float32 \[1, 8, 8, 3\].*\[1, 9, 8, 3\]",
        ),
        ({"contract": InputContract(8, 8, 3, "uint8")}, ModelError, "but the metadata would say uint8"),
        ({"contract": InputContract(8, 8, 3, "float32", mean=(0.0,))}, ModelError, "need 3 values each"),
    ],
)
def test_metadata_that_would_lie_is_refused(
    plain: bytes, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        embed(plain, **changes)


def test_a_model_with_two_inputs_is_no_classifier(plain: bytes) -> None:
    graph = Graph(plain)
    graph._subgraph.inputs = [graph.inputs[0], graph.inputs[0]]
    with pytest.raises(ModelError, match="2 inputs and 1 outputs"):
        embed(graph.content())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"abc", "no .tflite file"),
        (b"PK\x03\x04" + bytes(40), "zip archive, as .keras files are"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5, as .h5 files are"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(40), "cut off or damaged"),
    ],
)
def test_what_is_no_model_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        metadata.read(content)
    with pytest.raises(ModelError, match=message):
        embed(content)


def test_a_model_without_metadata(plain: bytes) -> None:
    assert metadata.read(plain) is None


def test_only_our_entry(plain: bytes) -> None:
    graph = Graph(plain)
    graph.model.buffers.append(graph.schema.BufferT(data=np.frombuffer(b'{"variant": "b3"}', np.uint8)))
    graph.model.metadata = [graph.schema.MetadataT(name=b"edgeeff", buffer=len(graph.model.buffers) - 1)]
    read = metadata.read(graph.content())
    assert read == metadata.Metadata(None, None, None, None, {"variant": "b3"}, None)


def test_one_value_stands_for_every_channel(plain: bytes, fbs: ModuleType) -> None:
    read = metadata.read(foreign(plain, fbs, mean=[127.5], std=[128.0]))
    assert read is not None
    assert read.contract == InputContract(8, 8, 3, "float32", (127.5,) * 3, (128.0,) * 3)


def test_a_float_input_without_normalisation_is_not_guessed(plain: bytes, fbs: ModuleType) -> None:
    read = metadata.read(foreign(plain, fbs))
    assert read is not None
    assert read.contract is None


def foreign(model: bytes, fbs: ModuleType, mean: list[float] | None = None, std: list[float] | None = None) -> bytes:
    """Give a model the metadata of another tool."""
    import flatbuffers

    image, graph, root = fbs.TensorMetadataT(), fbs.SubGraphMetadataT(), fbs.ModelMetadataT()
    image.content = fbs.ContentT(
        contentPropertiesType=fbs.ContentProperties.ImageProperties,
        contentProperties=fbs.ImagePropertiesT(colorSpace=fbs.ColorSpaceType.RGB),
    )
    if mean is not None:
        options = fbs.NormalizationOptionsT(mean=mean, std=std)
        kind = fbs.ProcessUnitOptions.NormalizationOptions
        image.processUnits = [fbs.ProcessUnitT(optionsType=kind, options=options)]
    graph.inputTensorMetadata, graph.outputTensorMetadata = [image], [fbs.TensorMetadataT()]
    root.subgraphMetadata = [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(root.Pack(builder), file_identifier=b"M001")
    target = Graph(model)
    target.model.buffers.append(target.schema.BufferT(data=np.frombuffer(builder.Output(), np.uint8)))
    place = len(target.model.buffers) - 1
    target.model.metadata = [target.schema.MetadataT(name=b"TFLITE_METADATA", buffer=place)]
    return target.content()


def test_an_archive_that_is_gone_is_named(embedded: bytes) -> None:
    start = embedded.index(b"PK\x03\x04")
    with pytest.raises(ModelError, match=r"names the label file 'labels.txt', but it cannot be read"):
        metadata.read(embedded[:start])


def test_a_swollen_label_file_is_not_unpacked(embedded: bytes) -> None:
    start = embedded.index(b"PK\x03\x04")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"a\n" * (9 << 20))
    with pytest.raises(ModelError, match="has 18874368 bytes; at most 4194304 are read"):
        metadata.read(embedded[:start] + stream.getvalue())


def test_a_damaged_entry_is_named(embedded: bytes) -> None:
    assert embedded.count(b"M001") == 1
    with pytest.raises(ModelError, match="metadata is damaged"):
        metadata.read(embedded.replace(b"M001", b"M999"))
    assert embedded.count(b'{"variant"') == 1
    with pytest.raises(ModelError, match="metadata is damaged"):
        metadata.read(embedded.replace(b'{"variant"', b'["variant"'))


@settings(max_examples=400, deadline=None)
@given(
    cut=st.just(0) | st.integers(0, 1 << 20),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8),
)
def test_damage_never_raises_anything_else(cut: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(_EMBEDDED[: len(_EMBEDDED) - cut % len(_EMBEDDED)])
    for place, value in flips:
        if damaged:
            damaged[place % len(damaged)] = value
    for work in (metadata.read, embed):
        try:
            work(bytes(damaged))
        except (ModelError, InputError) as error:
            assert str(error)  # that nothing else is raised is the test


_EMBEDDED = embed(tiny.classifier())


def test_without_litert_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, plain: bytes) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"edgeeff\[device\]"):
        metadata.read(plain)


# Labels


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_labels_are_read_in_order(tmp_path: Path) -> None:
    assert metadata.read_labels(write(tmp_path, "\ufeffdog\r\n cat \nKäse"), 3) == ("dog", "cat", "Käse")


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("a\nb\n", 3, "have 2 names, the model has 3 classes; give one name per line"),
        ("background\na\nb\n", 2, "'background', is the background class of older models: delete that line"),
        ("x\na\nb\n", 2, "have 3 names, the model has 2 classes; give one name per line"),
        ("a\n\nb\n", 3, "line 2 .* is empty"),
        ("a\nb\na\n", 3, "name 'a' twice, in lines 1 and 3"),
        (b"caf\xe9\n", 1, r"not UTF-8 text \(byte 3\)"),
        ("", 1, "have 0 names, the model has 1 classes"),
    ],
)
def test_labels_that_cannot_be_meant(tmp_path: Path, text: str | bytes, classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metadata.read_labels(write(tmp_path, text), classes)


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the labels"):
        metadata.read_labels(tmp_path / "missing.txt", 3)
    with pytest.raises(InputError, match="cannot read the labels"):
        metadata.read_labels(tmp_path, 3)


def test_imagenet_names_every_class_in_order(tmp_path: Path) -> None:
    names = metadata.imagenet_labels()
    assert len(names) == 1000
    assert [names[index] for index in (0, 1, 281, 849, 999)] == [
        "tench",
        "goldfish",
        "tabby",
        "teapot",
        "toilet tissue",
    ]
    assert not any("_" in name or name != name.strip() for name in names)
    # Two names stand for two classes each, in ImageNet itself: a list that has them is no mistake.
    assert {name for name in names if names.count(name) > 1} == {"crane", "maillot"}
    assert metadata.read_labels(write(tmp_path, "\n".join(names)), 1000) == names


@pytest.mark.accuracy
def test_imagenet_names_are_those_of_the_sample(shared: Path) -> None:
    import csv

    with (shared / "data" / "imagenet-sample" / "labels.csv").open(encoding="utf-8", newline="") as file:
        names = {int(row["class_index"]): row["name"].replace("_", " ") for row in csv.DictReader(file)}
    assert metadata.imagenet_labels() == tuple(names[index] for index in range(1000))


@pytest.mark.accuracy
def test_another_tools_metadata_is_read(shared: Path) -> None:
    read = metadata.read((shared / "edge_tpu" / "cocomp.tflite").read_bytes())
    assert read is not None
    assert read.name == "ImageClassifier"
    assert read.labels is not None
    assert (len(read.labels), read.labels[0]) == (1001, "background")
    assert read.contract == InputContract(128, 128, 3, "uint8", (127.5,) * 3, (127.5,) * 3)
    assert read.provenance is None


@pytest.mark.parametrize("channels", [-1, 11_403_264, 2**31 - 1])
def test_channels_that_no_image_has_are_damage(plain: bytes, channels: int) -> None:
    # One value stands for all of them: 2**31 copies would be 17 GB.
    graph = Graph(embed(plain, labels=None))
    graph.tensor(graph.inputs[0]).shape = np.array([1, 8, 8, channels], np.int32)
    with pytest.raises(ModelError, match="metadata is damaged"):
        metadata.read(graph.content())


def test_vectors_longer_than_the_file_are_damage(embedded: bytes) -> None:
    content = bytearray(entry(embedded, "TFLITE_METADATA"))
    struct.pack_into("<I", content, 0, 0xFFFFFFF0)
    with pytest.raises(ModelError, match="metadata is damaged"):
        metadata.read(embedded.replace(entry(embedded, "TFLITE_METADATA"), bytes(content)))
