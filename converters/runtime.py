"""A .tflite file run here with LiteRT: pixels in, real scores out, whatever types the file uses."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeeff.errors import MissingExtraError, ModelError
from edgeeff.results import Runtime, TensorContract


class Session:
    """An interpreter that is ready to run one file on images."""

    def __init__(
        self, content: bytes, *, threads: int = 1, table: npt.NDArray[Any] | None = None, keep: bool = False
    ) -> None:
        """Load a file; raises ModelError with the runtime's own words when it cannot be loaded.

        `table` (256, 3) says what the input stores for each pixel value and channel; without it the file takes pixels
        0..255 as edgeeff's own do. With `keep` all tensors of the last run can be read, which takes their memory.
        """
        self._table = table
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError("LiteRT (ai-edge-litert)", "device") from error
        try:
            with native_log_kept_away(), warnings.catch_warnings():
                # It warns of the memory that keeping every tensor takes, which is what this is about.
                warnings.simplefilter("ignore")
                self._interpreter: Any = Interpreter(
                    model_content=content, num_threads=threads, experimental_preserve_all_tensors=keep
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot load this file: {error}") from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    @property
    def input(self) -> TensorContract:
        """What the file takes."""
        return _contract(self._input)

    @property
    def output(self) -> TensorContract:
        """What the file gives."""
        return _contract(self._output)

    def run(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the scores (classes,) float32 of one image (height, width, 3) of uint8 pixels 0..255.

        Raises ModelError with the runtime's own words when it cannot run the file.
        """
        dtype = self._input["dtype"]
        pixels: npt.NDArray[Any] = image[np.newaxis]
        if self._table is not None:
            pixels = self._table[pixels, np.arange(3)]
        elif dtype == np.int8:
            # The zero point of pixels is -128: q = p - 128.
            pixels = (pixels ^ 0x80).view(np.int8)
        self._interpreter.set_tensor(self._input["index"], pixels.astype(dtype, copy=False))
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot run this file: {error}") from error
        raw = self._interpreter.get_tensor(self._output["index"])[0].astype(np.float32)
        scale, zero_point = self._output["quantization"]
        scores: npt.NDArray[np.float32] = (raw - zero_point) * np.float32(scale) if scale else raw
        return scores

    def tensor(self, index: int) -> npt.NDArray[Any]:
        """Return what a tensor held in the last run, as it is stored; for sessions that keep their tensors."""
        values: npt.NDArray[Any] = self._interpreter.get_tensor(index)
        return values


def runtime() -> Runtime:
    """Name the runtime that `Session` uses."""
    return Runtime("ai-edge-litert", metadata.version("ai-edge-litert"))


@contextlib.contextmanager
def native_log_kept_away() -> Iterator[None]:
    """Keep what native code prints on standard error, such as LiteRT's word on XNNPACK, from the terminal.

    LiteRT has no public switch for it, so the file descriptor itself is turned away; keep what is inside short.
    """
    if sys.stderr is None:  # closed by whoever started this process, so there is no terminal to keep clean
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as log:
            os.dup2(log.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _contract(detail: dict[str, Any]) -> TensorContract:
    scale, zero_point = detail["quantization"]
    return TensorContract(
        name=str(detail["name"]),
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) if scale else None,
        zero_point=int(zero_point) if scale else None,
    )
