"""How measuring looks: the live table, and nothing where nobody watches."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from edgeeff.devices import profile_view
from edgeeff.devices.figures import Run
from edgeeff.devices.profile import Case
from edgeeff.devices.profile_view import Live, milliseconds
from edgeeff.results import Comparison, FleetSummary, ModelFile
from tests.scripted import STATE, edge_tpu_story
from tests.test_figures import COMPILED, made, record

CASE = Case(ModelFile("b0.tflite", "ab" * 32, 5), 2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(records: Any, fleet: Any, comparisons: Any, paths: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    profile_view.render(records, fleet, comparisons, paths, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_live_table_says_what_each_board_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Live() as live:
        live.watch("pi4", None, {"event": "connecting"})
        live.watch("pi5", CASE, {"event": "process", "number": 2, "of": 5})
        live.watch("pi5", CASE, STATE | {"temperature_c": 61.4})
        live.watch("pi5", CASE, {"event": "latencies", "latencies_s": [0.01, 0.012, 0.5]})
        live.watch("pi3", CASE, {"event": "cooling", "temperature_c": 70.2, "wanted_c": 48.0})
        live.watch("pi2", CASE, {"event": "failed", "message": "no runtime\nand more"})
        live.watch("pi2", None, {"event": "finished"})
        live.watch("pi1", CASE, {"event": "something new"})
        console = Console(file=io.StringIO(), width=120)
        console.print(live._table())
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    shown = {line[0]: " ".join(line[1:]) for line in lines if line}
    assert shown["pi4"] == "connecting"
    assert shown["pi5"] == "b0.tflite, 2 threads 2/5 12.0 ms 61 C measuring"
    assert shown["pi3"].endswith("cooling down: 70 C, 48 C wanted")
    assert shown["pi2"].endswith("failed: no runtime")


def test_of_many_boards_those_are_shown_that_changed_last() -> None:
    live = Live()
    for number in range(300):
        live.watch(f"pi{number}", None, {"event": "connecting"})
    live.watch("pi0", None, {"event": "finished"})
    table = live._table()
    assert table.row_count == profile_view.ROWS
    names = list(table.columns[0].cells)
    assert names[-2:] == ["pi299", "pi0"]


def test_where_nobody_watches_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = io.StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Live() as live:
        live.watch("pi4", None, {"event": "connecting"})
    assert silent.getvalue() == ""


def test_tables_fit_in_80_columns() -> None:
    text = printed([record(0.0101, 0.0102), record(1.2, 1.3, threads=16)], [], [], ["b0.pi4.t1.profile.json"])
    tables = text.split("b0.tflite on")[0]
    assert max(map(len, tables.splitlines())) <= 80
    assert "10.1-10.2" in tables
    assert "1200-1300" in tables


def test_an_edge_tpu_has_its_link_and_its_upload() -> None:
    runs = [Run.of(edge_tpu_story(latency)) for latency in (0.01, 0.01)]
    of_it = made(runs, compiled=COMPILED)
    text = printed([of_it, record(0.0101, 0.0102)], [], [], ["b0.pi4.t1.edgetpu.profile.json"])
    tables = text.split("b0.tflite on")[0]
    assert max(map(len, tables.splitlines())) <= 80
    start = next(line.split() for line in tables.splitlines() if "20.0" in line)
    assert start[-6:-3] == ["20.0", "30.0", "20.0"]  # load, the first inference, and what of it was the upload
    assert (
        "  Edge TPU on PCIe (5000 Mbit/s); libedgetpu1-std 16.0 (runtime version 14); the first inference took 20.0 ms "
        "longer than later ones: it sends the 4.0 MB of parameters that stay there; 0.2 MB of parameters are sent with "
        "each inference; 3 operators are left to the CPU; 44 C at most\n"
    ) in text
    assert "next: edgeeff profile a/b0.tflite --target pi4 --delegate edgetpu --compare" in text


def test_of_an_edge_tpu_that_tells_little_little_is_said() -> None:
    (said, *rest) = [event for event in edge_tpu_story(degrees=None) if event["event"] != "edge_tpu"]
    rest = [event | ({"runtime": None} if event["event"] == "edge_tpu_library" else {}) for event in rest]
    text = printed([made([Run.of([said, *rest])])], [], [], [])
    assert "  Edge TPU on a link that is not known; libedgetpu1-std 16.0; the first inference took 20.0 ms" in text
    assert text.split("longer than later ones")[1].startswith("\n")


def test_nothing_measured_is_nothing_printed() -> None:
    assert printed([], [], [], []) == ""


def test_markup_in_a_name_is_text() -> None:
    odd = record(0.01, 0.01, model=ModelFile("[bold]x.tflite", "ab" * 32, 5))
    assert "[bold]x.tflite on pi4, 1 thread" in printed([odd], [], [], [])


def test_fleets_and_comparisons_are_sentences() -> None:
    fleet = FleetSummary("a/b0.tflite", 1, 5, 0.01, 0.009, 0.05, 0.018, 0.0001, ("pi4", "pi9"))
    comparison = Comparison("a/b0.tflite", "pi4", 2, 0.01, 0.02, 2.0, None, ("threads was 1, is 2",))
    text = printed([record(0.01, 0.01)], [fleet], [comparison], [], width=400)
    assert "b0.tflite, 1 thread, 5 boards: p50 9.00 ms to 50.0 ms, median 10.0 ms" in text
    assert "stand out: pi4, pi9; look at edgeeff devices probe pi4" in text
    assert "10.0 ms -> 20.0 ms, ratio 2.000, one process cannot tell how sure that is" in text
    assert "not alike: threads was 1, is 2" in text


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.8, 0.9), "faster"), ((1.1, 1.2), "slower"), ((0.9, 1.1), "no difference that can be told")],
)
def test_an_interval_has_its_word(interval: tuple[float, float], word: str) -> None:
    comparison = Comparison("b0.tflite", "pi4", 1, 0.01, 0.01, 1.0, interval, ())
    assert f"{interval[0]:.3f} to {interval[1]:.3f}: {word}\n" in printed(
        [record(0.01, 0.01)], [], [comparison], [], width=400
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.6e-6, "0.0016 ms"), (0.00012, "0.12 ms"), (0.0051, "5.10 ms"), (0.0123, "12.3 ms"), (1.9, "1900 ms")],
)
def test_times_have_digits_that_say_something(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
