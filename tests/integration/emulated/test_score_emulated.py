"""Scores from the emulated board: another runtime and other kernels see the same thing there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeeff import demo
from edgeeff.calibration import images
from edgeeff.converters.runtime import Session
from edgeeff.devices.score import in_background, scoring
from edgeeff.devices.targets import Target
from tests.integration.emulated.board import EmulatedBoard

pytestmark = pytest.mark.emulated

THINGS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "china", "flower")
COUNT = 16


def test_lite0_has_the_same_best_classes_there(
    emulated_board: EmulatedBoard, board_python: str, lite0_int8: Path, ssh_home: Path
) -> None:
    shutil.copy(emulated_board.key, ssh_home / "id_ed25519")
    shutil.copy(emulated_board.known_hosts, ssh_home / "known_hosts")
    target = Target("emu", emulated_board.url, board="raspberry-pi-4", python=board_python, emulated=True)
    views = [images.load(path, 224, 224) for path in demo.photographs() if path.stem in THINGS]
    pixels = np.stack([*views, *(view[:, ::-1] for view in views), *(view[:, :, ::-1] for view in views)])[:COUNT]
    assert len(pixels) == COUNT

    with in_background(scoring(target, lite0_int8)) as there:
        assert there.scorer.device.emulated
        assert there.scorer.device.name.startswith("Raspberry Pi 4")
        assert (there.scorer.runtime.name, there.scorer.input.dtype) == ("tflite-runtime", "uint8")
        waiting = [there.submit(half) for half in (pixels[:8], pixels[8:])]
        scores = np.concatenate([one.result() for one in waiting])

    session = Session(lite0_int8.read_bytes())
    here = np.stack([session.run(image) for image in pixels])
    apart = np.abs(scores - here).max()
    print(f"{COUNT} images, {there.scorer.peak_rss_bytes} bytes at most there; {apart:.4f} apart at most")
    np.testing.assert_array_equal(scores.argmax(axis=1), here.argmax(axis=1))
    assert apart < 0.1
