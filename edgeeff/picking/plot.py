"""Accuracy against latency as a picture: the ladder, its Pareto front, and the budget.

Matplotlib draws it without a display; nothing else of edgeeff imports it.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeeff.errors import InputError, MissingExtraError
from edgeeff.results import PickCandidate, PickRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")


@dataclass(frozen=True)
class Colours:
    """What a ladder is drawn in."""

    fits: str = "#1b7837"
    over: str = "#878787"
    open: str = "#e08214"
    """Of what is not separable from the budget."""
    front: str = "#2166ac"
    budget: str = "#b2182b"
    hollow: str = "white"
    """Inside of what was predicted."""

    def of(self, status: str) -> str:
        """Return the colour of a candidate."""
        return {"fits": self.fits, "does not fit": self.over}.get(status, self.open)


def check(path: Path) -> None:
    """Refuse what cannot be drawn before anything is measured.

    Raises InputError for another kind of file, and MissingExtraError without Matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot {path} ends in none of {', '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("Matplotlib", "plot")


def draw(record: PickRecord, kind: str) -> bytes:
    """Return the picture as "png" or "svg"."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same record gives the same bytes.
    with rc_context({"svg.hashsalt": "edgeeff", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        paint(axes, record)
        axes.set_title(_title(record), fontsize=9)
        axes.legend(loc="lower right", fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return out.getvalue()


def paint(axes: Axes, record: PickRecord, colours: Colours = Colours()) -> None:
    """Paint the ladder, its front and the budget; a title and a legend are left to the caller.

    Where nobody published a top-1, the MACs stand in its place.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    published = any(one.top1 is not None for one in record.candidates)
    points = [one for one in record.candidates if _seconds(one) is not None and (one.top1 or not published)]
    front = pareto(points, published)
    axes.plot(
        [_ms(one) for one in front],
        [_height(one, published) for one in front],
        color=colours.front,
        linewidth=1,
        zorder=1,
        label="Pareto front",
    )
    for one in points:
        known = one.latency_s is not None
        interval = one.interval_s if known else one.predicted_interval_s
        reach = None if interval is None else [[abs(_ms(one) - interval[0] * 1e3)], [abs(interval[1] * 1e3 - _ms(one))]]
        axes.errorbar(
            [_ms(one)],
            [_height(one, published)],
            xerr=reach,
            fmt="o",
            markersize=7 if one.name == record.winner else 5,
            color=colours.of(one.status),
            markerfacecolor=colours.of(one.status) if known else colours.hollow,
            elinewidth=1,
            capsize=2,
        )
        if record.family != "phi" or known:
            axes.annotate(
                one.name,
                (_ms(one), _height(one, published)),
                xytext=(6, -13),
                textcoords="offset points",
                fontweight="bold" if one.name == record.winner else "normal",
            )
    budget = record.limits.budget_s * 1e3
    axes.axvline(budget, color=colours.budget, linestyle="--", linewidth=1, label=f"budget {budget:g} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08)
    axes.set_xlabel(f"p{record.limits.percentile} of the latency, ms; hollow: predicted, bars: 95 %")
    axes.set_ylabel("published ImageNet top-1, %" if published else "MACs, G (nobody published a top-1)")
    axes.grid(visible=True, which="both", linewidth=0.3)


def pareto(points: Sequence[PickCandidate], published: bool) -> list[PickCandidate]:
    """Return those that no other beats in latency and in top-1 (or MACs), from fast to slow."""
    front: list[PickCandidate] = []
    for one in sorted(points, key=lambda one: (_ms(one), -_height(one, published))):
        if not front or _height(one, published) > _height(front[-1], published):
            front.append(one)
    return front


def _title(record: PickRecord) -> str:
    words = [", ".join(record.targets), record.scheme, f"{record.threads} thread{'s' if record.threads > 1 else ''}"]
    if record.device.emulated:
        words.append("EMULATED")
    if record.recorded:
        words.append("recorded, not measured now")
    return f"family {record.family} on {', '.join(words)}"


def _seconds(one: PickCandidate) -> float | None:
    return one.predicted_s if one.latency_s is None else one.latency_s


def _ms(one: PickCandidate) -> float:
    return (_seconds(one) or 0.0) * 1e3


def _height(one: PickCandidate, published: bool) -> float:
    return (one.top1 or 0.0) if published else one.macs / 1e9
