"""The exception tree, its exit codes and its messages."""

from __future__ import annotations

import inspect
import re

import pytest

from edgeeff import errors
from edgeeff.errors import EdgeeffError, MissingExtraError, UnknownNameError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, EdgeeffError)]
VARIANTS = ["b0", "b1", "b2", "v2-s", "lite0", "edgetpu-s"]


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Read the docstring: each class with its parent and, where one is drawn, its exit code."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+Error)\b(?: +(?P<code>\d)\b)?", line)
        if match is None:
            continue
        depth = len(match["branch"]) // 4
        ancestors[depth:] = [match["name"]]
        parent = ancestors[depth - 1] if depth else None
        tree[match["name"]] = (parent, int(match["code"]) if match["code"] else None)
    return tree


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = {name: parent for name, (parent, _) in drawn_tree().items()}
    real = {cls.__name__: cls.__base__.__name__ if cls.__base__ else None for cls in CLASSES}
    assert drawn == real | {"EdgeeffError": None}


def test_the_exit_codes_in_the_docstring_are_the_real_ones() -> None:
    codes = {name: code for name, (_, code) in drawn_tree().items() if code is not None}
    missing = {"MissingExtraError": 4, "MissingProgramError": 4}
    assert codes == {"GateError": 1, "InputError": 2, "DeviceError": 3, **missing}
    for cls in CLASSES:
        branch = next((base for base in cls.__mro__ if base.__name__ in codes), None)
        assert cls.exit_code == (2 if branch is None else codes[branch.__name__]), cls


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_what_it_is_for(cls: type[EdgeeffError]) -> None:
    assert (cls.__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("b22", "did you mean b2?"),
        ("B2", "did you mean b2 or"),
        ("lite", "did you mean lite0"),
        ("EdgeTPU-S", "did you mean edgetpu-s?"),
        ("resnet50", "choose from b0, b1, b2, v2-s, lite0, edgetpu-s"),
        ("", "choose from b0, b1"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    message = str(UnknownNameError("variant", name, iter(VARIANTS)))
    assert message.startswith(f"unknown variant '{name}': ")
    assert hint in message


def test_a_missing_extra_names_the_install_command() -> None:
    error = MissingExtraError("Pillow", "host")
    assert str(error) == "Pillow is not installed; install it with: python -m pip install 'edgeeff[host]'"
    assert error.extra == "host"
