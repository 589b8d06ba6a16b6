"""Files as the legacy `torch.save` writes them, made without torch."""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class Storage:
    """A storage as torch's pickler sees it."""

    def __init__(self, key: str, kind: str, data: npt.NDArray[Any]) -> None:
        self.key, self.kind, self.data = key, kind, np.ascontiguousarray(data, DTYPES[kind])


class Tensor:
    """A view on a storage, pickled as torch pickles its tensors."""

    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any) -> None:
        self.arguments: tuple[Any, ...] = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self) -> Any:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


def _rebuild_tensor_v2(*arguments: Any) -> None:
    raise AssertionError("the reader must not look this up")


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """Modules of torch's names, so that pickles carry them."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in (*DTYPES, "HalfStorage"):
        setattr(package, kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))
    _rebuild_tensor_v2.__module__ = "torch._utils"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"torch": package, "torch._utils": utils}):
        yield


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return "storage", getattr(sys.modules["torch"], obj.kind), obj.key, "cpu", obj.data.size, None
        return None


def written(state: Any, storages: list[Storage], *, little_endian: bool = True) -> bytes:
    """What the legacy `torch.save` writes for a state dict."""
    out = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    with _torch():
        for part in (0x1950A86A20F9469CFC6C, 1001, system, state, [storage.key for storage in storages]):
            _Pickler(out, protocol=2).dump(part)
    for storage in storages:
        out.write(struct.pack("<q", storage.data.size) + storage.data.tobytes())
    return out.getvalue()


def saved(state: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A state dict of contiguous tensors, each with its own storage."""
    storages: list[Storage] = []
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        storage = Storage(str(len(storages)), "LongStorage" if value.dtype.kind == "i" else "FloatStorage", value)
        stride = tuple(int(np.prod(value.shape[axis + 1 :])) for axis in range(value.ndim))
        storages.append(storage)
        tensors[name] = Tensor(storage, 0, value.shape, stride)
    return written(tensors, storages)
