"""Reading the tensors of a legacy torch file without torch, and without running anything that is in it.

`torch.save` wrote a sequence of pickles and raw storages before it wrote zip files. Only what a state dict needs is
understood: tensors of float32 and int64, in an ordered dictionary. What the names mean is left to `weights`.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgeeff.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MEMO = 1_000_000
_STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
# What a damaged or hostile pickle makes the unpickler raise.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class _Storage:
    """A block of numbers that follows the pickles in the file."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class _View:
    """A tensor as the pickle describes it: a strided window on a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _view(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_gradient_and_hooks: object
) -> _View:
    """Stand in for `torch._utils._rebuild_tensor_v2`."""
    return _View(storage, offset, size, stride)


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows four names and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise WeightsError(
            f"the pickle asks for {module}.{name}, which weights have no use for: it was not loaded. "
            "Get the file again from where it was published"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, numel, window = pid
        if kind != "storage" or dtype not in _STORAGES.values() or window is not None:
            raise ValueError(f"unexpected storage {pid!r}")
        return _Storage(key, dtype, _natural(numel))


def _load(stream: IO[bytes]) -> Any:
    """Load one pickle, after a look at what it would have the unpickler set aside.

    The memo is an array in C: one index near 2^32 would ask for 64 GB, which no later check could refuse.
    """
    start = stream.tell()
    for code, argument, _ in pickletools.genops(stream):
        if code.name.endswith("PUT") and _natural(argument) > _MEMO:
            raise ValueError(f"memo index {argument}")
    stream.seek(start)
    return _RestrictedUnpickler(stream).load()


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number, not {value!r}")
    return value


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError(f"{length - len(data)} bytes are missing at the end")
    return data


def _window(view: _View, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy of what the view shows, after checking that all of it lies inside its storage."""
    size, stride = [_natural(n) for n in view.size], [_natural(n) for n in view.stride]
    if len(size) != len(stride):
        raise ValueError(f"{len(size)} sizes but {len(stride)} strides")
    count = math.prod(size)
    last = _natural(view.offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > data.size or (count and last >= data.size):
        raise ValueError(f"a tensor of shape {tuple(size)} reaches past its {data.size} numbers")
    if not count:
        return np.zeros(size, data.dtype)
    step_bytes = [step * data.itemsize for step in stride]
    window: npt.NDArray[Any] = np.lib.stride_tricks.as_strided(data[view.offset :], size, step_bytes).copy()
    return window


def read(stream: IO[bytes], source: str) -> dict[str, npt.NDArray[Any]]:
    """Read a state dict that `torch.save` wrote in its legacy, non-zip format, without torch.

    Returns the arrays by their torch names, in torch's layout. Raises WeightsError, naming `source`, for a truncated or
    damaged file and for a pickle that asks for any name a state dict has no use for, before that name is looked up.
    Format: magic number, protocol, system information, the object, the storage keys, then each storage as an int64
    count and its raw bytes (torch/serialization.py, `_legacy_save`).
    """
    data = stream.read()
    if data.startswith(b"PK"):
        raise WeightsError(
            f"{source} is in torch's newer zip format; save it again with "
            "torch.save(state, path, _use_new_zipfile_serialization=False), or its arrays as .npz"
        )
    stream = io.BytesIO(data)  # which can go back, as a member of a wheel cannot
    try:
        magic, protocol, system, state, keys = (_load(stream) for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL) or not system["little_endian"]:
            raise ValueError("no torch file of protocol 1001, little-endian")
        views = {name: view for name, view in state.items() if isinstance(view, _View)}
        if len(views) != len(state) or not all(isinstance(name, str) for name in views):
            raise ValueError("something else than named tensors is in it")
        storages = {view.storage.key: view.storage for view in views.values()}
        if sorted(storages) != sorted(keys):
            raise ValueError("the tensors do not match the storages behind them")
        numbers: dict[str, npt.NDArray[Any]] = {}
        for key in keys:
            storage, dtype = storages[key], np.dtype(storages[key].dtype)
            if struct.unpack("<q", _read(stream, 8)) != (storage.numel,):
                raise ValueError(f"storage {key} has another length than announced")
            numbers[key] = np.frombuffer(_read(stream, storage.numel * dtype.itemsize), dtype)
        return {name: _window(view, numbers[view.storage.key]) for name, view in views.items()}
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except _PICKLE_ERRORS as error:
        raise WeightsError(f"{source} is truncated or damaged ({error}); get it again") from error
