"""MediaPipe Tasks' ImageClassifier, a client that users have, opens an int8 file and sees what LiteRT sees."""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeeff.converters.metadata import imagenet_labels

Photographs = dict[str, npt.NDArray[np.uint8]]

NAMES = {
    "skimage/data": "astronaut brick camera cell chelsea clock_motion coffee coins grass gravel hubble_deep_field ihc "
    "microaneurysms moon motorcycle_left motorcycle_right page retina rocket text",
    "sklearn/datasets/images": "china flower",
}
"""Photographs that two packages ship as examples; the drawn images beside them are left out."""

LIBRARIES = {"EGL": "libegl1", "GLESv2": "libgles2", "GL": "libgl1"}

# In a process of its own, so that only MediaPipe's runtime is in it.
CLIENT = """
import json, sys
import mediapipe, numpy
from mediapipe.tasks.python import BaseOptions, vision

model, photographs = sys.argv[1:]
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=1)
answers = {}
with vision.ImageClassifier.create_from_options(options) as classifier, numpy.load(photographs) as images:
    for name, pixels in images.items():
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        best = classifier.classify(image).classifications[0].categories[0]
        answers[name] = (best.index, best.category_name, best.score)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Photographs at the model's resolution already: MediaPipe stretches whole images, which is not the subject."""
    from PIL import Image

    found: Photographs = {}
    for place, names in NAMES.items():
        package, _, folder = place.partition("/")
        spec = importlib.util.find_spec(package)  # the package itself is not imported
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"needs the photographs in the test-only package {package}")
        for name in names.split():
            (path,) = Path(spec.submodule_search_locations[0], folder).glob(f"{name}.*")
            with Image.open(path) as image:
                found[name] = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    return found


@pytest.fixture(scope="module")
def answers(lite0_int8: Path, photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MediaPipe says of each photograph: class index, class name, score."""
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip("needs the test-only package mediapipe")
    missing = [package for library, package in LIBRARIES.items() if ctypes.util.find_library(library) is None]
    if missing:
        pytest.skip(f"MediaPipe needs system libraries: apt-get install {' '.join(missing)}")
    file = tmp_path_factory.mktemp("photographs") / "photographs.npz"
    np.savez(file, **photographs)  # type: ignore[arg-type]  # arrays by name
    command = [sys.executable, "-c", CLIENT, str(lite0_int8), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def litert_scores(model: Path, photographs: Photographs) -> dict[str, npt.NDArray[np.float32]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model))
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] is np.uint8  # MediaPipe refuses int8
    scores = {}
    for name, pixels in photographs.items():
        interpreter.set_tensor(source["index"], pixels[np.newaxis])
        interpreter.invoke()
        scores[name] = interpreter.get_tensor(sink["index"])[0]
    return scores


def test_mediapipe_agrees_with_litert_on_photographs(
    lite0_int8: Path, photographs: Photographs, answers: dict[str, Any]
) -> None:
    assert len(photographs) >= 20
    assert answers.keys() == photographs.keys()
    for name, scores in litert_scores(lite0_int8, photographs).items():
        index, label, score = answers[name]
        assert label == imagenet_labels()[index]
        # Of two classes with the very same score, which int8 often has, either may be named first.
        assert scores[index] == scores.max(), name
        assert score == pytest.approx(scores.max(), abs=1e-6), name


def test_what_can_be_told_from_a_photograph_is_told(answers: dict[str, Any]) -> None:
    seen = {name: label for name, (_, label, _) in answers.items()}
    assert seen["chelsea"] in {"Egyptian cat", "tabby", "tiger cat"}
    assert seen["coffee"] in {"espresso", "cup"}
    assert seen["camera"] == "tripod"
    assert seen["motorcycle_left"] in {"moped", "motor scooter"}
    assert seen["flower"] == "daisy"
