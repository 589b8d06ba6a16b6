"""Targets: names and addresses that make sense, facts with sources, and a file of the user's that is never harmed."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeeff.devices import targets
from edgeeff.devices.targets import Address, Facts, Target
from edgeeff.errors import InputError, OutputError, UnknownNameError

PI5 = Target("pi5", "ssh://pi@pi5.local", "raspberry-pi-5")
SHIPPED = [
    "coral-dev-board",
    "coral-usb-on-pi",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("EDGEEFF_CONFIG", str(folder))
    return folder


# --- Facts ------------------------------------------------------------------------------------------------------------


def figures(facts: Facts) -> dict[str, object]:
    """What is known of a board, by the field's name."""
    pairs = ((one.name, getattr(facts, one.name)) for one in dataclasses.fields(facts))
    return {name: value for name, value in pairs if value not in (None, (), "")}


def test_the_boards_that_come_along() -> None:
    assert list(targets.boards()) == SHIPPED


@pytest.mark.parametrize("key", SHIPPED)
def test_every_figure_has_its_source_and_nothing_else_has(key: str) -> None:
    facts = targets.boards()[key]
    assert set(facts.sources) == set(figures(facts)) - {"key", "name", "sources"}
    assert all(len(source) > 10 and source.isprintable() for source in facts.sources.values())
    assert facts.key == key


@pytest.mark.parametrize("key", SHIPPED)
def test_figures_fit_each_other(key: str) -> None:
    facts = targets.boards()[key]
    if facts.peak_float32_ops_per_s is not None:
        assert facts.cores is not None
        assert facts.clock_hz is not None
        per_cycle = facts.peak_float32_ops_per_s / (facts.cores * facts.clock_hz)
        assert per_cycle == pytest.approx(
            {"A53": 4, "A72": 8, "A76": 16}[re.findall(r"Cortex-(A\d+)", facts.cpu or "")[0]]
        )
    if facts.peak_int8_ops_per_s is not None:
        assert facts.has_int8_dot_product
        assert facts.peak_float32_ops_per_s is not None
        assert facts.peak_int8_ops_per_s == 4 * facts.peak_float32_ops_per_s
    if facts.memory_copy_bytes_per_s is not None:
        low, high = facts.memory_copy_bytes_per_s
        assert 1e9 < low <= high < 2e10
        if facts.memory_bandwidth_bytes_per_s is not None:
            assert 2 * high <= facts.memory_bandwidth_bytes_per_s  # a copy reads and writes
    limits = [limit for limit in (facts.soft_limit_c, facts.throttle_limit_c, facts.hard_limit_c) if limit is not None]
    assert limits == sorted(limits)
    assert list(facts.memory_bytes) == sorted(facts.memory_bytes)
    assert all(size.bit_count() == 1 for size in facts.memory_bytes)


def test_figures_that_others_rely_on() -> None:
    boards = targets.boards()
    assert [key for key, facts in boards.items() if facts.has_int8_dot_product] == ["raspberry-pi-5"]
    assert [key for key, facts in boards.items() if facts.accelerator] == ["coral-dev-board", "coral-usb-on-pi"]
    assert boards["raspberry-pi-4"].peak_float32_ops_per_s == 48e9
    assert boards["raspberry-pi-5"].peak_float32_ops_per_s == 153.6e9
    assert boards["raspberry-pi-3b-plus"].soft_limit_c == 60
    assert boards["coral-usb-on-pi"].cores is None


# --- Names and addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "pi5", "pi-5_lab.2", "0", "x" * 64])
def test_names_that_are_taken(name: str) -> None:
    assert Target(name, "local").name == name


@pytest.mark.parametrize("name", ["", "-pi", ".", "Pi5", "pi 5", "pi/5", "x" * 65, "pi\n", "ü", "../x", "pi5\0"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a target: take up to 64 of a-z"):
        Target(name, "local")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ssh://pi@pi5.local", Address("pi5.local", "pi")),
        ("ssh://pi5.local", Address("pi5.local")),
        ("ssh://pi@pi5.local/", Address("pi5.local", "pi")),
        ("ssh://10.0.0.7:2222", Address("10.0.0.7", None, 2222)),
        ("ssh://root@[fe80::1%eth0]:22", Address("fe80::1%eth0", "root", 22)),
        ("ssh://[::1]", Address("::1")),
        ("ssh://my_alias", Address("my_alias")),
        ("ssh://first.last@Host", Address("Host", "first.last")),
        ("ssh://h:65535", Address("h", None, 65535)),
        ("local", None),
    ],
)
def test_addresses(url: str, address: Address | None) -> None:
    assert Target("x", url).address == address


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("pi@pi5.local", "did you mean ssh://pi@pi5.local?"),
        ("pi5.local:22", "did you mean ssh://pi5.local:22?"),
        ("ssh://pi:raspberry@pi5.local", "passwords are not stored"),
        ("ssh://h:0", "0 is not between 1 and 65535"),
        ("ssh://h:65536", "65536 is not between 1 and 65535"),
        *((url, "write ssh://[USER@]HOST[:PORT]") for url in (
            "", "ssh://", "ssh://@h", "ssh://h:", "ssh://h:x", "ssh://h/path", "ssh://h?x", "http://h", "ssh://-oProxyCommand=x",
            "ssh://-u@h", "ssh://h;rm", "ssh://$(x)", "ssh://a b", "ssh://h\n", "ssh://[::1", "ssh://::1", "ssh://ü",
        )),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str, hint: str) -> None:
    with pytest.raises(InputError, match=re.escape(hint)) as caught:
        Target("x", url)
    assert "raspberry@" not in str(caught.value)


def test_an_unknown_board_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown board 'raspberry-pi-6': did you mean raspberry-pi-5"):
        Target("x", "local", "raspberry-pi-6")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\udc80", "\x7f"])
def test_text_that_cannot_be_shown_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be printed"):
        Target("x", "local", notes=text)
    with pytest.raises(InputError, match="cannot be printed"):
        Target("x", "local", python=text)


def test_facts_of_a_target() -> None:
    assert PI5.facts == targets.boards()["raspberry-pi-5"]
    assert Target("x", "local").facts is None


# --- The user's own ---------------------------------------------------------------------------------------------------


def test_without_any_of_their_own_there_is_this_machine_and_the_boards(config: Path) -> None:
    assert list(targets.targets()) == ["local", *SHIPPED]
    assert targets.find("local") == Target("local", "local")
    assert targets.find("raspberry-pi-4").url is None
    assert not config.exists()


def test_what_is_added_is_found_listed_and_removed(config: Path) -> None:
    lab = Target("lab.2", "local", python="/opt/py thon", emulated=True, notes='a "note" with \\ and ü 🥧 = # [x]')
    targets.add(PI5)
    targets.add(lab)
    assert targets.find("pi5") == PI5
    assert targets.find("lab.2") == lab
    assert list(targets.targets()) == ["local", "pi5", "lab.2", *SHIPPED]
    assert targets.remove("pi5") == PI5
    assert list(targets.own_targets()) == ["lab.2"]
    assert [path.name for path in config.iterdir()] == ["targets.toml"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    targets.add(PI5)
    with pytest.raises(UnknownNameError, match=r"unknown target 'pi6': did you mean pi5\?"):
        targets.find("pi6")
    with pytest.raises(UnknownNameError, match=r"unknown target 'pi6': did you mean pi5\?"):
        targets.remove("pi6")
    targets.remove("pi5")
    with pytest.raises(UnknownNameError, match="you have not added any"):
        targets.remove("pi5")


def test_a_name_that_is_taken_has_to_be_replaced_on_purpose() -> None:
    targets.add(PI5)
    other = dataclasses.replace(PI5, url="ssh://pi@10.0.0.5")
    with pytest.raises(InputError, match=r"'pi5' already, ssh://pi@pi5\.local; replace it with --replace"):
        targets.add(other)
    assert targets.find("pi5") == PI5
    targets.add(other, replace_it=True)
    assert targets.find("pi5") == other


@pytest.mark.parametrize("replace_it", [False, True])
@pytest.mark.parametrize("name", ["local", "raspberry-pi-4"])
def test_names_of_edgeeffs_own_cannot_be_changed(config: Path, name: str, replace_it: bool) -> None:
    with pytest.raises(InputError, match=f"'{name}' is a name of edgeeff's own; choose another: .* my-{name} ssh://h"):
        targets.add(Target(name, "ssh://h"), replace_it=replace_it)
    with pytest.raises(InputError, match=f"'{name}' comes with edgeeff and cannot be removed"):
        targets.remove(name)
    assert not (config / "targets.toml").exists()


def test_a_target_without_an_address_is_not_added() -> None:
    with pytest.raises(InputError, match="'x' needs an address"):
        targets.add(Target("x"))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(str.isprintable)
TARGETS = st.builds(
    Target,
    name=st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,20}\Z").filter(lambda name: name not in {"local", *SHIPPED}),
    url=st.sampled_from(["local", "ssh://h", "ssh://u@[::1]:22"]),
    board=st.sampled_from([None, *SHIPPED]),
    python=st.none() | WORDS,
    emulated=st.booleans(),
    notes=WORDS,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(TARGETS, unique_by=lambda target: target.name, max_size=5))
def test_every_target_is_read_as_it_was_written(wanted: list[Target]) -> None:
    for target in wanted:
        targets.add(target)
    try:
        assert list(targets.own_targets().values()) == wanted
    finally:
        for target in wanted:
            targets.remove(target.name)


def test_a_file_written_by_hand_is_read(config: Path) -> None:
    config.mkdir()
    (config / "targets.toml").write_text(
        "# mine\n[pi5]\nurl = 'ssh://pi@pi5.local' # at home\nboard = 'raspberry-pi-5'\n"
    )
    assert targets.own_targets() == {"pi5": PI5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[pi5", "is no TOML"),
        ("[pi5]\nurl = 'local'\n[pi5]\nurl = 'local'\n", "is no TOML"),
        ("pi5 = 3", "'pi5' is no table; a target begins with a line"),
        ("[pi5]\nurll = 'local'", r"\[pi5\]: unknown entry 'urll': did you mean url\?"),
        ("[pi5]\nurl = 3", r"\[pi5\]: Expected `str \| null`, got `int`"),
        ("[pi5]\nurl = 'local'\nemulated = 'yes'", r"\[pi5\]: Expected `bool`"),
        ("[pi5]\nurl = 'pi5'", "did you mean ssh://pi5"),
        ("[pi5]\nboard = 'raspberry-pi-5'", r"\[pi5\] has no url"),
        ("[Pi5]\nurl = 'local'", "'Pi5' cannot name a target"),
        ("[local]\nurl = 'ssh://h'", r"\[local\] is a name of edgeeff's own"),
        ("[raspberry-pi-4]\nurl = 'ssh://h'", r"\[raspberry-pi-4\] is a name of edgeeff's own"),
        ("\ufeff[pi5]\nurl = 'local'", "is no TOML"),
    ],
)
def test_a_file_that_is_broken_is_named_and_left_alone(config: Path, text: str, reason: str) -> None:
    config.mkdir()
    (config / "targets.toml").write_text(text)
    for act in (targets.targets, lambda: targets.add(Target("x", "local")), lambda: targets.remove("x")):
        with pytest.raises(InputError, match=reason):
            act()
    assert (config / "targets.toml").read_text() == text


def test_a_file_that_is_no_text_is_named(config: Path) -> None:
    config.mkdir()
    (config / "targets.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot read .*targets\.toml"):
        targets.targets()


def test_an_interrupted_change_harms_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets.add(PI5)
    before = (config / "targets.toml").read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        targets.add(Target("x", "local"))
    assert (config / "targets.toml").read_bytes() == before
    assert [path.name for path in config.iterdir()] == ["targets.toml"]


def test_a_config_folder_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEEFF_CONFIG", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"cannot use the config folder .*file: .*; choose another with EDGEEFF_CONFIG"
    ):
        targets.add(PI5)


def test_a_file_that_cannot_be_written_is_named(config: Path) -> None:
    (config / "targets.toml").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot read .*targets\.toml"):
        targets.add(PI5)
    (config / "targets.toml").rmdir()
    (config / "targets.toml").symlink_to(config / "no" / "folder")
    with pytest.raises(OutputError, match="with EDGEEFF_CONFIG"):
        targets.add(PI5)


def add_some(first: int) -> None:
    for number in range(first, first + 10):
        targets.add(Target(f"pi{number}", "local"))


def test_two_commands_at_once_lose_nothing() -> None:
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=add_some, args=(first,)) for first in (100, 200, 300)]
    for process in adding:
        process.start()
    for process in adding:
        process.join()
    assert [process.exitcode for process in adding] == [0, 0, 0]
    assert len(targets.own_targets()) == 30


def test_the_config_folder_is_the_systems_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEEFF_CONFIG")
    assert targets.config_folder() == Path(click.get_app_dir("edgeeff"))
