"""What has to be known of a model file before it can judge images: what it takes, what its scores are, how big it is.

A Keras baseline becomes a float .tflite once, in a TensorFlow process of its own, and is kept in the user's cache: both
models then run in the same runtime, and the difference between them is that of quantization alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.converters import float_model, inspect, metadata, preprocessing
from edgeeff.converters.graph import Graph
from edgeeff.converters.trace import Request, Traced
from edgeeff.errors import ModelError, OutputError, RecordError
from edgeeff.files import cache_folder, sha256, write_atomic
from edgeeff.progress import Progress
from edgeeff.results import CalibrationUse, ConversionRecord, ModelFile, Preprocessing, TensorContract, read_record
from edgeeff.version import __version__

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PIXELS = 256
BYTES = ("uint8", "int8")
ONE_IMAGE = (1, -1)
"""Images at a time; -1 is any number, as TFLiteConverter leaves it, and one by default."""
KNOWN_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))
"""What networks are fed with, each for black and white."""
RANGE_TOLERANCE = 0.1
"""How far a calibrated input range may be from one of those, as a part of its width: not all images hold white."""
EDGE_TPU_OPERATOR = "edgetpu-custom-op"
SOFTMAX_SCALE = 1 / 256
"""What a quantized softmax output has by definition (TFLite's quantization specification)."""
PASSED_ON = frozenset({"DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST"})


@dataclass(frozen=True)
class Classifier:
    """A .tflite classifier that is ready to be run on images."""

    file: ModelFile
    """As the user gave it; a baseline may be a Keras file."""
    path: str
    """The .tflite file that runs."""
    sha256: str
    """Of that file."""
    preprocessing: Preprocessing
    input: TensorContract
    classes: int
    logits: bool
    """Whether its scores are logits, not probabilities."""
    labels: tuple[str, ...] | None
    macs: int | None
    """None where it is compiled for the Edge TPU, whose operators do not show."""
    edge_tpu: bool = False
    calibration: CalibrationUse | None = None
    """What set its activation ranges, from the record beside it; None where there is no such record."""


def open_classifier(path: Path, *, crop: str = "center", input_range: tuple[float, float] | None = None) -> Classifier:
    """Read what a .tflite file says of itself; `input_range` is what black and white are where it does not.

    Raises ModelError when it cannot be read, is no image classifier, or nothing says which values its input wants.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"cannot read the model {path}: it is a pipe or a device; give a file")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    try:
        graph = inspect.parse(content)
        said = metadata.read(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"{path} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; a classifier has one of each"
        )
    source, sink = graph.tensors[graph.inputs[0]].contract(), graph.tensors[graph.outputs[0]].contract()
    if len(source.shape) != 4 or source.shape[0] not in ONE_IMAGE or source.shape[3] != 3 or -1 in source.shape[1:]:
        raise ModelError(
            f"{path} takes {list(source.shape)}; an image classifier for a device takes [1, height, width, 3]"
        )
    if len(sink.shape) != 2 or sink.shape[0] not in ONE_IMAGE or sink.shape[1] < 2:
        raise ModelError(f"{path} gives {list(sink.shape)}; a classifier gives [1, classes], at least two")
    edge_tpu = any(operator.name == EDGE_TPU_OPERATOR for operator in graph.operators)
    return Classifier(
        file=ModelFile(str(path), hashlib.sha256(content).hexdigest(), len(content)),
        path=str(path.resolve()),
        sha256=hashlib.sha256(content).hexdigest(),
        preprocessing=_preprocessing(path, content, graph, source, said, crop, input_range),
        input=source,
        classes=sink.shape[1],
        logits=not _gives_probabilities(graph, sink),
        labels=None if said is None else said.labels,
        macs=None if edge_tpu else sum(operator.macs for operator in graph.operators),
        edge_tpu=edge_tpu,
        calibration=_calibration(path, content),
    )


def open_baseline(
    path: Path, progress: Progress, *, crop: str = "center", input_range: tuple[float, float] | None = None
) -> Classifier:
    """Open a baseline: a .tflite as it is, a .keras, .h5 or SavedModel as the float .tflite that it becomes.

    Raises what `open_classifier` and `float_model` raise, MissingExtraError where TensorFlow is needed and missing.
    """
    if path.suffix.lower() == ".tflite":
        return open_classifier(path, crop=crop, input_range=input_range)
    if not path.exists():
        raise ModelError(f"cannot read the baseline {path}: there is no such file or folder")
    if path.is_file() and path.suffix.lower() not in float_model.KERAS_SUFFIXES:
        raise ModelError(
            f"cannot tell what the baseline {path} is by its name: give a .keras or .h5 file, a SavedModel folder or a "
            ".tflite"
        )
    file = _as_given(path)
    kept = (
        cache_folder("baselines")
        / f"{file.sha256}-{'own' if input_range is None else '{:g}_{:g}'.format(*input_range)}.tflite"
    )
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot keep the converted baseline in {kept.parent} ({error.strerror}); choose another folder with "
                "the environment variable EDGEEFF_CACHE"
            ) from error
        content = _float_tflite(path, progress, input_range)
        write_atomic(kept, content, option="EDGEEFF_CACHE")
    opened = open_classifier(kept, crop=crop)
    return replace(opened, file=file, preprocessing=replace(opened.preprocessing, source="layers"))


def stored_values(classifier: Classifier) -> npt.NDArray[Any] | None:
    """Return what the input tensor stores for each pixel value and channel, (256, 3) of its dtype.

    None where that is the pixel value itself (int8: minus 128), which needs no table.
    """
    contract, wanted = classifier.input, classifier.preprocessing
    identity = wanted.mean == ZERO and wanted.std == ONE
    if contract.dtype in BYTES and (wanted.source == "bytes" or (identity and contract.scale == 1.0)):
        return None
    if contract.scale is None and identity:
        return None
    real = (np.arange(PIXELS)[:, None] - np.asarray(wanted.mean)) / np.asarray(wanted.std)
    stored: npt.NDArray[Any] = real
    if contract.scale is None:
        return stored.astype(contract.dtype)
    limits = np.iinfo(contract.dtype)
    stored = np.clip(np.rint(real / contract.scale) + (contract.zero_point or 0), limits.min, limits.max)
    return stored.astype(contract.dtype)


def _preprocessing(
    path: Path,
    content: bytes,
    graph: inspect.Graph,
    source: TensorContract,
    said: metadata.Metadata | None,
    crop: str,
    input_range: tuple[float, float] | None,
) -> Preprocessing:
    mean, std, known = ZERO, ONE, "metadata"
    if said is not None and said.contract is not None and len(said.contract.mean) in (1, 3):
        mean, std = _three(said.contract.mean), _three(said.contract.std)
    elif input_range is not None and _can_take(input_range, path, content, graph, source):
        mean, std, known = *normalization(*input_range), "options"
    elif source.dtype in BYTES:
        known = "bytes"
    elif (calibrated := _calibrated_range(graph)) is not None:
        mean, std, known = *normalization(*calibrated), "quantization"
    else:
        known = "layers"
        try:
            preprocessing.fuse(Graph(content, str(path)))
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
    _, height, width, _ = source.shape
    return Preprocessing(height, width, crop, mean, std, known)


def _can_take(
    wanted: tuple[float, float], path: Path, content: bytes, graph: inspect.Graph, source: TensorContract
) -> bool:
    """Whether a file may be fed with these values: the option is given for one of two files that may differ in this."""
    if source.dtype in BYTES:
        return _is_near(_span(source), wanted)
    calibrated = _calibrated_range(graph)
    if calibrated is not None:
        return calibrated == wanted
    try:
        preprocessing.fuse(Graph(content, str(path)), wanted)
    except ModelError:
        return False
    return True


def _span(contract: TensorContract) -> tuple[float, float]:
    """Return the least and the largest value that a tensor of bytes can hold; its numbers where it has no scale."""
    limits = np.iinfo(contract.dtype)
    scale, zero_point = contract.scale or 1.0, contract.zero_point or 0
    return float(limits.min - zero_point) * scale, float(limits.max - zero_point) * scale


def _is_near(span: tuple[float, float], wanted: tuple[float, float]) -> bool:
    tolerance = RANGE_TOLERANCE * (wanted[1] - wanted[0])
    return all(abs(end - other) <= tolerance for end, other in zip(span, wanted, strict=True))


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    first, second, third = values * 3 if len(values) == 1 else values
    return first, second, third


def normalization(black: float, white: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and std of pixels for which 0 becomes `black` and 255 becomes `white`."""
    scale = (white - black) / 255
    return _three((-black / scale + 0.0,)), _three((1 / scale,))


def _calibrated_range(graph: inspect.Graph) -> tuple[float, float] | None:
    """Return the known range next to the one that a float input is quantized with, when that comes first."""
    readers = [operator for operator in graph.operators if graph.inputs[0] in operator.inputs]
    if len(readers) != 1 or readers[0].name != "QUANTIZE":
        return None
    quantized = graph.tensors[readers[0].outputs[0]].contract()
    if quantized.scale is None or quantized.zero_point is None or quantized.dtype not in BYTES:
        return None
    return next((known for known in KNOWN_RANGES if _is_near(_span(quantized), known)), None)


def _gives_probabilities(graph: inspect.Graph, sink: TensorContract) -> bool:
    makers = {index: operator for operator in graph.operators for index in operator.outputs}
    operator = makers.get(graph.outputs[0])
    while operator is not None and operator.name in PASSED_ON:
        operator = makers.get(operator.inputs[0])
    if operator is not None and operator.name != EDGE_TPU_OPERATOR:
        return operator.name in ("SOFTMAX", "LOGISTIC")
    return sink.scale is not None and abs(sink.scale - SOFTMAX_SCALE) < 1e-6


def _calibration(path: Path, content: bytes) -> CalibrationUse | None:
    """Return what the record beside a file says of its calibration, when it is that file's record."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        record = read_record(beside)
    except RecordError:  # a file of another kind that only has this name
        return None
    if not isinstance(record, ConversionRecord) or record.model.sha256 != hashlib.sha256(content).hexdigest():
        return None
    return record.calibration


def _float_tflite(path: Path, progress: Progress, input_range: tuple[float, float] | None) -> bytes:
    float_model.require_host()
    with tempfile.TemporaryDirectory(prefix="edgeeff-") as folder:
        traced_path = Path(folder) / "float.tflite"
        request = Request(output=str(traced_path), model=str(path.resolve()), weights="as in the model")
        traced = float_model.trace(request, progress.stage)
        model = _finished(traced_path.read_bytes(), traced, input_range)
    height, width = model.resolution
    return metadata.embed(
        model.content,
        name=path.stem,
        description=f"Image classifier with {model.classes} classes, float32, converted by edgeeff",
        labels=None,
        contract=metadata.InputContract(height, width, 3, "float32"),
        provenance={"edgeeff": __version__, "source": path.resolve().name, "head": model.head},
    )


def _finished(content: bytes, traced: Traced, input_range: tuple[float, float] | None) -> float_model.FloatModel:
    """Finish a traced model with the range that was given, or without where that is meant for the other file."""
    if input_range is not None:
        with contextlib.suppress(ModelError):  # what else is wrong with it is raised below
            return float_model.finish(content, traced, input_range=input_range)
    return float_model.finish(content, traced)


def _as_given(path: Path) -> ModelFile:
    """Describe a file, or a folder by the digests of all files in it."""
    try:
        if path.is_file():
            return ModelFile.of(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode("utf-8", "surrogateescape"))
        return ModelFile(str(path), digest.hexdigest(), sum(file.stat().st_size for file in files))
    except OSError as error:
        raise ModelError(f"cannot read the baseline {path}: {error.strerror}") from error
