"""The committed pages of the reference are what the code says of itself now."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import reference_pages as pages

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"


@pytest.mark.parametrize(("name", "write"), [("commands.md", pages.commands_page), ("records.md", pages.records_page)])
def test_a_page_says_what_the_code_says(name: str, write: Callable[[], str]) -> None:
    path, text = REFERENCE / name, write()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "UPDATE_GOLDEN=1 renews it"


def test_every_field_of_decimals_has_a_unit() -> None:
    assert pages.without_unit() == []


def test_every_field_is_described() -> None:
    assert pages.without_text() == [], "a field's description is the string below it in its class"


def test_no_unit_is_kept_for_a_field_that_is_gone() -> None:
    fields = {(cls.__name__, name) for cls in pages.everything() for name in pages.hints(cls)}
    assert [key for key in pages.OWN_UNITS if tuple(key.split(".")) not in fields] == []
    assert [key for key in pages.UNITS if key not in {name for _, name in fields}] == []


def test_every_command_has_a_help_of_its_own_with_examples() -> None:
    texts = {name: pages.help_of(name, command) for name, command in pages.commands()}
    assert {"edgeeff", "edgeeff convert", "edgeeff devices setup"} <= set(texts)
    groups = {"edgeeff", "edgeeff devices"}
    assert [name for name, text in texts.items() if name not in groups and "Example" not in text] == []


def test_what_every_command_prints_as_json_is_told() -> None:
    printing = {
        name.removeprefix("edgeeff ")
        for name, command in pages.commands()
        if any("--json" in option.opts for option in command.params)
    }
    assert set(pages.DOCUMENTS) == printing
