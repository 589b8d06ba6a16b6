"""Keras models of EfficientNets: keras.applications where it has the variant, our own blocks everywhere else.

Every model takes pixels 0..255, NHWC float32, and does its own preprocessing. Layers are named as in keras.applications
(`stem_conv`, `block2a_expand_conv`, ..., `predictions`), which is what `weights` goes by. Importing this module is
cheap; calling it imports TensorFlow. Shapes come from `scaling`, numbers from `weights`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeeff import weights as _weights
from edgeeff.errors import InputError, ModelError
from edgeeff.scaling import MIN_RESOLUTION, VARIANTS, Block, Network

# Stochastic depth at the last block; it grows linearly from 0 at the first (efficientnet_builder.py in tensorflow/tpu).
_DROP_CONNECT = 0.2


def build(
    network: Network,
    *,
    weights: str | Path = "imagenet",
    classes: int = 1000,
    include_top: bool = True,
    softmax: bool = True,
    resolution: int | None = None,
    seed: int = 0,
) -> Any:
    """Return the network as a keras.Model that maps pixels (n, R, R, 3), 0..255 float32, to (n, classes) float32.

    `weights` is "imagenet", "none" (a random draw from `seed`) or a file: see `weights.load`, whose errors are raised
    here too. Without `softmax` the outputs are logits, without `include_top` they are the last feature map
    (n, r, r, channels). `resolution` in pixels replaces the network's own. Raises InputError for fewer than 1 class or
    32 pixels.
    """
    size = network.resolution if resolution is None else resolution
    if classes < 1:
        raise InputError(f"{classes} classes are too few; a classifier needs at least 1")
    if size < MIN_RESOLUTION:
        raise InputError(f"resolution {size} is too small; choose at least {MIN_RESOLUTION} pixels")
    variant = VARIANTS.get(network.name)
    if variant is not None and variant.keras is not None:
        model = _from_applications(variant.keras, size, classes if include_top else None, softmax)
    else:
        model = _from_blocks(network, size, classes if include_top else None, softmax)
    _weights.load(model, network, weights, seed=seed)
    return model


def _from_applications(class_name: str, size: int, classes: int | None, softmax: bool) -> Any:
    import keras

    constructor = getattr(keras.applications, class_name)
    return constructor(
        include_top=classes is not None,
        weights=None,
        input_shape=(size, size, 3),
        classes=classes or 1000,
        classifier_activation="softmax" if softmax else None,
    )


def _from_blocks(network: Network, size: int, classes: int | None, softmax: bool) -> Any:
    """Build the network from its blocks.

    Padding is SAME throughout, which Lite and EdgeTPU networks were trained with. At stride 2 it pads exactly as
    keras.applications does with `correct_pad` and VALID, for even and odd sizes alike.
    """
    import keras

    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="image")
    x = _preprocess(network, inputs)
    x = _conv(x, network.stem_channels, 3, 2, "stem_conv")
    x = _activate(x, network.activation, "stem_")
    for index, block in enumerate(network.blocks):
        x = _block(x, block, network.activation, _DROP_CONNECT * index / len(network.blocks))
    x = _conv(x, network.head_channels, 1, 1, "top_conv")
    x = _activate(x, network.activation, "top_")
    if classes is not None:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(network.dropout, name="top_dropout")(x)
        x = layers.Dense(classes, activation="softmax" if softmax else None, name="predictions")(x)
    return keras.Model(inputs, x, name=f"efficientnet-{network.name}".replace(".", "_"))


def _preprocess(network: Network, x: Any) -> Any:
    from keras import layers

    mean, std = network.preprocessing.mean, network.preprocessing.std
    if len({*mean}) == len({*std}) == 1:
        return layers.Rescaling(1 / std[0], offset=-mean[0] / std[0], name="rescaling")(x)
    # The two layers of keras.applications, so that whoever reads the model finds what they know.
    x = layers.Rescaling(1 / 255, name="rescaling")(x)
    variance = [(s / 255) ** 2 for s in std]
    return layers.Normalization(mean=[m / 255 for m in mean], variance=variance, name="normalization")(x)


def _block(inputs: Any, block: Block, activation: str, drop_rate: float) -> Any:
    """Add one inverted bottleneck. A fused one expands by a k x k convolution and has no depthwise one."""
    from keras import layers

    name, x = block.name, inputs
    if block.kind == "fused":
        x = _fused_expansion(x, block)
        x = _activate(x, activation, f"{name}_expand_")
    else:
        if block.expand_ratio != 1:
            x = _conv(x, block.expanded_channels, 1, 1, f"{name}_expand_conv")
            x = _activate(x, activation, f"{name}_expand_")
        x = layers.DepthwiseConv2D(block.kernel, block.stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
        x = _activate(x, activation, f"{name}_")
    if block.se_channels:
        se = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_squeeze")(x)
        se = layers.Conv2D(block.se_channels, 1, activation=activation, name=f"{name}_se_reduce")(se)
        se = layers.Conv2D(block.expanded_channels, 1, activation="sigmoid", name=f"{name}_se_expand")(se)
        x = layers.Multiply(name=f"{name}_se_excite")([x, se])
    x = _conv(x, block.out_channels, 1, 1, f"{name}_project_conv")
    x = layers.BatchNormalization(name=f"{name}_project_bn")(x)
    if block.skip:
        if drop_rate:
            x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _fused_expansion(x: Any, block: Block) -> Any:
    from keras import layers

    name = f"{block.name}_expand_conv"
    if not block.late_stride:
        return _conv(x, block.expanded_channels, block.kernel, block.stride, name)
    # Published: this convolution at stride 1 with SAME, and the stride on the 1x1 projection. Of its outputs the
    # projection reads one in four; striding here on the same padding computes only those.
    x = layers.ZeroPadding2D(block.kernel // 2, name=f"{name}_pad")(x)
    return _conv(x, block.expanded_channels, block.kernel, block.stride, name, padding="valid")


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str, padding: str = "same") -> Any:
    from keras import layers

    return layers.Conv2D(filters, kernel, stride, padding=padding, use_bias=False, name=name)(x)


def _activate(x: Any, activation: str, prefix: str) -> Any:
    from keras import layers

    x = layers.BatchNormalization(name=f"{prefix}bn")(x)
    return layers.Activation(activation, name=f"{prefix}activation")(x)


def load(path: Path) -> Any:
    """Load a user's whole model from a `.keras` or `.h5` file, without its optimizer and without running code from it.

    Raises ModelError when the file is missing, damaged, holds weights only, or needs a layer that Keras does not have.
    """
    import keras

    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise ModelError(f"{path} is no Keras model: give a .keras or .h5 file, a SavedModel folder or a .tflite file")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # deserialization raises whatever the layers it meets raise
        raise ModelError(f"{path} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say in one line why Keras could not load a model, and what to do."""
    text = " ".join(str(error).split())
    if unknown := re.search(r"(?:Could not locate (?:class|function)|Unknown (?:layer|object)):? '([^']+)'", text):
        return (
            f"it uses '{unknown[1]}', which is no layer of Keras; export the model to a SavedModel folder with "
            "model.export(folder), and give that"
        )
    if "lambda" in text.lower():
        return (
            "it has a Lambda layer, whose Python code is not run here; export the model to a SavedModel folder with "
            "model.export(folder), and give that"
        )
    if "No model config found" in text:
        return "it holds weights without a model; give it with --weights and the network with --variant or --phi"
    short = text[:300] or type(error).__name__
    return f"{short}; the file may be truncated, or of a newer Keras: save the model again"
