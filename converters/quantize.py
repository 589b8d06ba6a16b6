"""A float .tflite and activation ranges become a quantized .tflite, with the input and output types asked for.

The arithmetic of quantization is litert-quantizer's; which ranges it gets, and what is left to it, is decided here.
No TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeeff.converters import schemes
from edgeeff.converters.float_model import SIGNATURE, FloatModel, Head
from edgeeff.converters.graph import OPTIONAL, WEIGHTED, Graph
from edgeeff.converters.preprocessing import PIXEL_MAX, Affine
from edgeeff.converters.runtime import native_log_kept_away
from edgeeff.converters.schemes import Scheme
from edgeeff.converters.trace import INPUT_NAME
from edgeeff.errors import CalibrationError, InputError, MissingExtraError, ModelError

IoType = Literal["float32", "uint8", "int8"]
Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each activation tensor, by its name in the float .tflite."""

SOFTMAX_QUANTIZATION = (1.0 / 256.0, 0)
PIXEL_QUANTIZATION = {"uint8": (1.0, 0), "int8": (1.0, -128)}
MOST_BIAS = 1 << 30
"""Largest int32 bias: half of what the type holds, so that the sum it is added to does not wrap around."""


def collect_ranges(
    model: FloatModel,
    images: Iterable[npt.NDArray[np.uint8]],
    *,
    threads: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Ranges:
    """Run images (height, width, 3; uint8 pixels) through the float model; return every tensor's minimum and maximum.

    One pass, one image in memory at a time; `tick` is called after each. The ranges of the input and of the
    preprocessing behind it are what pixels 0..255 can become, whatever the images hold. Raises CalibrationError when
    there is no image or when an activation is not finite, ModelError when LiteRT cannot run the model.
    """
    with _quiet():
        calibrator, recipes = _calibrator(model, threads)
        count = 0
        for image in images:
            sample = image[np.newaxis].astype(np.float32)
            try:
                calibrator.calibrate({SIGNATURE: [{INPUT_NAME: sample}]}, recipes)
            except (RuntimeError, ValueError) as error:
                raise ModelError(f"LiteRT cannot run the float model: {error}") from error
            count += 1
            tick()
    if count == 0:
        raise CalibrationError("no calibration image was given; activation ranges need at least one")
    ranges: Ranges = {
        name: (float(np.min(entry["min"])), float(np.max(entry["max"])))
        for name, entry in calibrator.get_model_qsvs().items()
    }
    broken = [name for name, (low, high) in ranges.items() if not (np.isfinite(low) and np.isfinite(high))]
    if broken:
        raise CalibrationError(
            f"the float model computes values that are not finite, first in '{broken[0]}': its weights are broken or "
            "its input is not what it was trained on (--input-range)"
        )
    return ranges | known_ranges(model)


def check_output_type(scheme: Scheme, output_type: IoType, head: Head) -> None:
    """Raise InputError for an output type that the scheme cannot give; cheap, so it can be asked before any work."""
    if output_type != "float32" and head == "logits" and not scheme.integer:
        raise InputError(
            f"--output-type {output_type} with logits needs their range, which only --scheme int8 collects: "
            "take float32 outputs, a softmax, or --scheme int8"
        )


def quantize(
    model: FloatModel, scheme: Scheme, ranges: Ranges | None, *, input_type: IoType, output_type: IoType
) -> bytes:
    """Quantize a float model by a scheme; the result takes pixels 0..255 and gives scores in the types asked for.

    `ranges` is needed by schemes that are calibrated. Raises InputError for an output type that the scheme cannot give,
    ModelError when litert-quantizer fails on the model.
    """
    check_output_type(scheme, output_type, model.head)
    if scheme.calibrated and ranges is None:
        raise InputError(f"the scheme {scheme.name} needs activation ranges")
    content = model.content
    if scheme.name != "float32":
        with _quiet():
            content = _run_quantizer(model.content, model.head, scheme, ranges, float_output=output_type == "float32")
    graph = Graph(content)
    if scheme.name != "float32":
        hold_biases(graph, model.content)
    _set_input_type(graph, input_type)
    _set_output_type(graph, output_type)
    return graph.content()


def static(content: bytes, ranges: Ranges) -> bytes:
    """Quantize any float graph to int8; it takes and gives floats.

    Raises ModelError when litert-quantizer fails on it.
    """
    with _quiet():
        graph = Graph(_run_quantizer(content, "logits", schemes.scheme("int8"), ranges, float_output=True))
    hold_biases(graph, content)
    _set_input_type(graph, "float32")
    return graph.content()


def _run_quantizer(content: bytes, head: Head, scheme: Scheme, ranges: Ranges | None, *, float_output: bool) -> bytes:
    from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe

    operators, algorithms = qtyping.TFLOperationName, algorithm_manager.AlgorithmName
    work = quantizer.Quantizer(content)
    if scheme.name == "float16":
        work.update_quantization_recipe(
            ".*",
            operators.ALL_SUPPORTED,
            qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithms.FLOAT_CASTING,
        )
    else:
        recipes = {
            "dynamic": recipe.dynamic_wi8_afp32,
            "weight-only": recipe.weight_only_wi8_afp32,
            "int8": recipe.static_wi8_ai8,
            "int16x8": recipe.static_wi8_ai16,
        }
        work.load_quantization_recipe(recipes[scheme.name]())
    if scheme.calibrated and float_output:
        # A softmax quantized to 1/256 ties the small scores and costs what a float softmax over the classes does.
        for kept_float in (operators.SOFTMAX, operators.OUTPUT) if head == "softmax" else (operators.OUTPUT,):
            work.update_quantization_recipe(".*", kept_float, algorithm_key=algorithms.NO_QUANTIZE)
    statistics = (
        {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in ranges.items()}
        if scheme.calibrated and ranges is not None
        else None
    )
    try:
        result = work.quantize(statistics)
    except Exception as error:  # whatever litert-quantizer raises for a graph that it was not made for
        raise ModelError(
            f"litert-quantizer cannot quantize this model to {scheme.name}: {type(error).__name__}: {error}"
        ) from error
    return bytes(result.quantized_model)


def hold_biases(graph: Graph, content: bytes) -> bool:
    """Widen the weights' steps of the channels whose bias is more than int32 holds, and say whether there are any.

    `content` is the float graph that litert-quantizer made `graph` of. A bias counts in steps of its input times those
    of its weights. A channel that training or pruning switched off has weights near zero and a bias that is not, which
    litert-quantizer cuts off, and the sum may wrap around: EfficientNet-Lite0 has 84 of them. With wider steps such
    weights lose levels, and say as little as before.
    """
    places = [place for place, one in enumerate(_weighted(graph)) if _largest_bias(graph, one) > MOST_BIAS]
    if not places:
        return False
    given = Graph(content)
    for place in places:
        operator, exact = _weighted(graph)[place], _weighted(given)[place]
        entry, weights, bias = (int(index) for index in operator.inputs)
        levels, wanted = graph.constant(weights), given.constant(int(exact.inputs[2]))
        if levels is None or wanted is None:
            raise ModelError(f"the bias '{graph.name(bias)}' or its weights are no constants")
        quantization, step = graph.tensor(weights).quantization, float(graph.tensor(entry).quantization.scale[0])
        size = np.asarray(quantization.scale, np.float64)
        least = np.abs(wanted.astype(np.float64)) / (MOST_BIAS * step)
        wide = np.maximum(size, least if len(size) == len(least) else least.max())
        along = [-1 if axis == quantization.quantizedDimension else 1 for axis in range(levels.ndim)]
        graph.set_constant(weights, np.rint(levels * (size / wide).reshape(along)))
        graph.set_constant(bias, np.rint(wanted / (step * wide)))
        quantization.scale = wide.astype(np.float32)
        graph.tensor(bias).quantization.scale = (step * wide).astype(np.float32)
    return True


def _weighted(graph: Graph) -> list[Any]:
    """The operators with weights: quantizing puts others between them, but leaves their order."""
    return [operator for operator in graph.operators if graph.kind(operator) in WEIGHTED]


def _largest_bias(graph: Graph, operator: Any) -> int:
    """Largest absolute value of an int32 bias, 0 where there is none."""
    if len(operator.inputs) < 3 or operator.inputs[2] == OPTIONAL:
        return 0
    bias = graph.constant(int(operator.inputs[2]))
    return 0 if bias is None or bias.dtype != np.int32 else int(np.abs(bias.astype(np.int64)).max())


def _calibrator(model: FloatModel, threads: int) -> tuple[Any, Any]:
    try:
        from litert_quantizer import calibrator, recipe, recipe_manager
        from litert_quantizer.utils import qsv_utils
    except ImportError as error:
        raise MissingExtraError("litert-quantizer", "host") from error
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    try:
        with native_log_kept_away():
            collecting = calibrator.Calibrator(
                model.content,
                num_threads=threads,
                # LiteRT's profiler reads the tensors as they pass: 2.7 times less memory than keeping all of them.
                mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
                # Quantizer.calibrate would use a moving average, which clips the logits.
                qsv_update_func=qsv_utils.min_max_update,
            )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"LiteRT cannot load the float model: {error}") from error
    return collecting, recipes


def known_ranges(model: FloatModel) -> Ranges:
    """Return the ranges that follow from the pixel range alone, of the input and the preprocessing convolution."""
    graph = Graph(model.content)
    scale = 1.0 / np.asarray(model.std)
    affine = Affine(scale, -np.asarray(model.mean) * scale)
    current, span = graph.inputs[0], (0.0, PIXEL_MAX)
    known: Ranges = {graph.name(current): span}
    # Preprocessing, where there is any, is all that comes before the first convolution: at most a 1x1 between reshapes.
    steps = ("RESHAPE",) if affine.is_identity else ("RESHAPE", "DEPTHWISE_CONV_2D")
    for operator in graph.operators[:3]:
        if graph.kind(operator) not in steps or int(operator.inputs[0]) != current:
            break
        if graph.kind(operator) == "DEPTHWISE_CONV_2D":
            span = affine.span
        current = int(operator.outputs[0])
        known[graph.name(current)] = span
    return known


def _set_input_type(graph: Graph, wanted: IoType) -> None:
    inner = graph.inputs[0]
    have = graph.dtype(inner)
    if have == wanted:
        return
    shape = graph.shape(inner)
    if wanted == "float32":
        outer = graph.add_tensor("image_float", shape, "float32")
        graph.insert(0, "QUANTIZE", [outer], [inner], graph.schema.QuantizeOptionsT())
    else:
        outer = graph.add_tensor(f"image_{wanted}", shape, wanted, quantization=PIXEL_QUANTIZATION[wanted])
        if have == "float32":
            graph.insert(0, "DEQUANTIZE", [outer], [inner], graph.schema.DequantizeOptionsT())
        elif have == "int16":
            # No kernel requantizes 8 bits to 16: the way leads over float.
            pixels = graph.add_tensor("image_float", shape, "float32")
            graph.insert(0, "QUANTIZE", [pixels], [inner], graph.schema.QuantizeOptionsT())
            graph.insert(0, "DEQUANTIZE", [outer], [pixels], graph.schema.DequantizeOptionsT())
        else:
            graph.insert(0, "QUANTIZE", [outer], [inner], graph.schema.QuantizeOptionsT())
    graph.set_input(outer)


def _set_output_type(graph: Graph, wanted: IoType) -> None:
    inner = graph.outputs[0]
    have = graph.dtype(inner)
    if have == wanted:
        return
    shape, end = graph.shape(inner), len(graph.operators)
    if wanted == "float32" or have == "int16":
        # 16 bits are not requantized to 8 unsigned ones by any kernel: the way leads over float.
        outer = graph.add_tensor("scores_float", shape, "float32")
        graph.insert(end, "DEQUANTIZE", [inner], [outer], graph.schema.DequantizeOptionsT())
        graph.set_output(outer)
        if wanted != "float32":
            _set_output_type(graph, wanted)
        return
    if have == "int8":
        quantization = graph.tensor(inner).quantization
        scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0]) + 128
    else:
        scale, zero_point = SOFTMAX_QUANTIZATION
        zero_point -= 128 if wanted == "int8" else 0
    outer = graph.add_tensor(f"scores_{wanted}", shape, wanted, quantization=(scale, zero_point))
    graph.insert(end, "QUANTIZE", [inner], [outer], graph.schema.QuantizeOptionsT())
    graph.set_output(outer)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep litert-quantizer's own prints and progress bars from the user's terminal and from JSON output."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
