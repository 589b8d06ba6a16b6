"""Scores over the real OpenSSH server on loopback: those of this machine, and a connection that is lost on the way."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeeff.converters.runtime import Session
from edgeeff.devices import profile
from edgeeff.devices.score import in_background, scoring
from edgeeff.devices.targets import Target
from edgeeff.errors import DroppedError
from edgeeff.results import this_device
from tests import tiny
from tests.integration.test_openssh import SSHD, Servers

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason=f"needs {SSHD}, of the package openssh-server")


def test_batches_arrive_until_the_connection_is_lost(servers: Servers, tmp_path: Path) -> None:
    import pwd

    model = tmp_path / "m.tflite"
    model.write_bytes(tiny.classifier(size=64))
    photographs = np.stack(tiny.images(60, size=64))
    server = servers.start("Banner none")
    target = Target("board", server.target.url, python=sys.executable)
    with (
        pytest.raises(DroppedError, match="board: the connection was lost"),
        in_background(scoring(target, model, device=this_device())) as there,
    ):
        waiting = [there.submit(photographs[:40]), there.submit(photographs[40:])]
        scores = np.concatenate([one.result(20) for one in waiting])
        server.cut()
        there.submit(np.repeat(photographs, 20, axis=0)).result(20)
    session = Session(model.read_bytes())
    np.testing.assert_array_equal(scores, [session.run(image) for image in photographs])
    # A board that cannot be reached keeps what it has; this one is the tester's own machine.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    for path in home.glob(f"{profile.MODELS}/*"):
        if path.read_bytes() == model.read_bytes():
            path.unlink()


def test_nothing_is_left_there(servers: Servers, tiny_float_tflite: Path) -> None:
    import pwd

    target = Target("board", servers.start().target.url, python=sys.executable)

    async def once() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        async with scoring(target, tiny_float_tflite, device=this_device()) as scorer:
            return await scorer.scores(np.stack(tiny.images(3)))

    assert asyncio.run(asyncio.wait_for(once(), 30)).shape == (3, 5)
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    content = tiny_float_tflite.read_bytes()
    assert content not in [path.read_bytes() for path in home.glob(f"{profile.MODELS}/*")]
