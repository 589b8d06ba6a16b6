"""How picks and predictions look in a terminal, and as a picture."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeeff.errors import MissingExtraError
from edgeeff.picking import plot, view
from edgeeff.results import PickLimits, PickRecord
from tests.picks import DOUBTFUL, NOTHING, PICK

Golden = Callable[[str, str], None]


def printed(record: PickRecord) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    view.render(record, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_a_certain_answer(golden: Golden) -> None:
    golden("pick_certain.txt", printed(PICK))


def test_an_answer_that_is_not_certain_on_an_emulated_board(golden: Golden) -> None:
    golden("pick_doubtful.txt", printed(DOUBTFUL))


def test_nothing_fits_on_a_recorded_board(golden: Golden) -> None:
    golden("pick_nothing.txt", printed(NOTHING))


def test_what_the_image_takes_is_told_where_it_counts() -> None:
    assert "with the image" not in printed(PICK)
    assert "decoding and resizing it take 1.50 ms" in printed(replace(PICK, overhead_s=0.0015))


def test_of_a_long_ladder_only_what_is_near_is_shown() -> None:
    first = PICK.candidates[0]
    many = tuple(
        replace(first, name=f"phi{place}", latency_s=0.01 if place in (0, 50) else None, latencies=())
        for place in range(101)
    )
    shown = printed(replace(PICK, family="phi", candidates=many, winner="phi50", runner_up="phi51"))
    assert "94 more of them are in --json" in shown
    assert "phi48" in shown
    assert "phi47" not in shown


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (NOTHING, "nothing fits, latency decides: lite0 takes 12.5 ms, more than the budget of 10.0 ms"),
        (
            replace(
                NOTHING,
                limits=PickLimits(0.01, 90, max_memory_bytes=30_000_000),
                candidates=(replace(NOTHING.candidates[0], limit="memory"),),
            ),
            "memory, more than 30.0 MB",
        ),
        (
            replace(
                NOTHING,
                limits=PickLimits(0.01, 90, max_size_bytes=3_000_000),
                candidates=(replace(NOTHING.candidates[0], limit="size"),),
            ),
            "nothing fits, size decides: the file of lite0 has 5.4 MB, more than 3.0 MB",
        ),
        (
            replace(NOTHING, candidates=(replace(NOTHING.candidates[0], status="not separable"),)),
            "nothing surely fits: whether lite0 does, the smallest, cannot be told by its latency",
        ),
    ],
    ids=["latency", "memory", "size", "open"],
)
def test_a_refusal_says_which_limit_decides(record: PickRecord, said: str) -> None:
    assert said in view.refusal(record)


# --- The picture ------------------------------------------------------------------------------------------------------


@pytest.fixture
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="draws; install the extra plot")


@pytest.mark.usefixtures("matplotlib")
def test_a_picture_names_networks_budget_and_target() -> None:
    drawn = plot.draw(PICK, "svg")
    assert drawn == plot.draw(PICK, "svg")
    texts = {text.strip() for text in re.findall(r"<text[^>]*>([^<]*)<", drawn.decode())}
    assert {*(one.name for one in PICK.candidates), "budget 30 ms", "Pareto front"} <= texts
    assert "family lite on pi4, int8, 1 thread" in texts


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("record", [DOUBTFUL, NOTHING], ids=["emulated", "recorded"])
def test_a_picture_is_labelled(record: PickRecord) -> None:
    text = plot.draw(record, "svg").decode()
    assert ("EMULATED" in text, "recorded, not measured now" in text) == (
        record.device.emulated,
        bool(record.recorded),
    )
    assert plot.draw(record, "png").startswith(b"\x89PNG")


@pytest.mark.usefixtures("matplotlib")
def test_without_published_accuracies_the_macs_are_drawn() -> None:
    bare = replace(PICK, candidates=tuple(replace(one, top1=None) for one in PICK.candidates))
    assert "nobody published a top-1" in plot.draw(bare, "svg").decode()


def test_the_front_leaves_out_what_is_slower_and_no_better() -> None:
    worse = replace(PICK.candidates[1], latency_s=0.03)
    points = [PICK.candidates[0], worse, PICK.candidates[2]]
    assert [one.name for one in plot.pareto(points, published=True)] == ["lite0", "lite2"]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"edgeeff\[plot\]"):
        plot.check(Path("pick.svg"))
