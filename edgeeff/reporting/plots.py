"""The pictures of a report: SVG that stands in the page, in its colours and its letters.

Matplotlib draws without a display. What it draws in the colours below becomes the page's own: `currentColor` for text,
variables of the style sheet for the rest, so that the same picture is read on white and on black. Text stays text. Each
picture is drawn twice, for a wide page and for a phone, in units of the page's pixels: letters have the same size in
both. The picture of a pick is `edgeeff.picking.plot`'s.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeeff.devices import profile_view
from edgeeff.picking import plot as picking
from edgeeff.render import printable
from edgeeff.reporting.page import Width
from edgeeff.results import ClassResult, Difference, Finetuning, Mixed, MixedTrial, PickRecord, ProfileRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that nothing else is drawn in, and what takes their place in the page.
TEXT, LINE, BACK = "#010203", "#010204", "#010205"
FIRST, SECOND, THIRD, FOURTH, ALARM, QUIET = "#010206", "#010207", "#010208", "#010209", "#01020a", "#01020b"
IN_PAGE = {
    TEXT: "currentColor",
    LINE: "var(--grid)",
    BACK: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    FOURTH: "var(--fourth)",
    ALARM: "var(--bad)",
    QUIET: "var(--quiet)",
}
SERIES = (FIRST, SECOND, THIRD, FOURTH)
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Series differ in shape as well as in colour."""
WIDTHS: dict[Width, int] = {"wide": 760, "narrow": 332}
LETTERS = 12
"""Pixels."""
NAMES: dict[Width, int] = {"wide": 22, "narrow": 15}
"""Letters of a name beside an axis; longer ones are cut in the middle, and whole in the tables."""
LETTER = 0.6 * LETTERS
"""Pixels that a letter is wide, about."""
CONFUSED = 15
"""Classes of the confusion difference; fewer on a phone."""
BROADEST = 75
"""Pixels of one of its cells."""


def ladder(record: PickRecord, width: Width) -> str:
    """Draw accuracy against latency of a pick."""
    from matplotlib.ticker import LogLocator

    colours = picking.Colours(fits=THIRD, over=QUIET, open=SECOND, front=FIRST, budget=ALARM, hollow=BACK)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        picking.paint(axes, record, colours)
        _above(axes, axes.get_ylabel())
        axes.set_xlabel(f"p{record.limits.percentile} of the latency, ms")
        low, high = axes.get_xlim()
        if high / low > (300 if width == "wide" else 8):  # as many numbers as there is room for
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 300 else (1,)))
        axes.legend(loc="lower right", frameon=False)

    return _svg(width, 340, paint)


def latencies(records: Sequence[ProfileRecord], width: Width) -> str:
    """Draw a line for each record, from the fastest run to the slowest percentile, its p50 and those of processes."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, record in enumerate(records):
            latency = record.latency
            last = latency.p90_s if latency.p99_s is None else latency.p99_s
            colour = FIRST if record.verdict is None or record.verdict.valid else QUIET
            axes.plot([latency.min_s * 1e3, last * 1e3], [row, row], color=colour, linewidth=1.5)
            low, high = latency.interval_s
            if latency.processes > 1:
                axes.plot([low * 1e3, high * 1e3], [row, row], color=colour, linewidth=7, alpha=0.35)
            axes.plot([latency.p90_s * 1e3], [row], "|", color=colour, markersize=11, markeredgewidth=1.5)
            axes.plot([latency.p50_s * 1e3], [row], "o", color=colour, markersize=7)
        _rows(axes, [_record_name(record, records) for record in records], width)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms")

    return _svg(width, 70 + 30 * len(records), paint)


def processes(record: ProfileRecord, width: Width) -> str:
    """Draw p50, p90 and p99 of each process."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        latency = record.latency
        slowest = latency.process_p99_s or latency.process_p90_s or latency.process_p50_s
        for row, (fastest, last) in enumerate(zip(latency.process_p50_s, slowest, strict=True)):
            axes.plot([fastest * 1e3, last * 1e3], [row, row], color=FIRST, linewidth=1.5)
        rows = range(len(slowest))
        for values, marker in ((latency.process_p50_s, "o"), (latency.process_p90_s, "|")):
            if values:
                at = [value * 1e3 for value in values]
                axes.plot(at, rows, marker, color=FIRST, markersize=7 if marker == "o" else 11, markeredgewidth=1.5)
        _rows(axes, [f"process {number}" for number in range(1, len(slowest) + 1)], width)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms")

    return _svg(width, 70 + 24 * len(record.latency.process_p50_s), paint)


def minutes(record: ProfileRecord, width: Width) -> str:
    """Draw the p50 of every minute, and when the CPU was slowed down."""
    from matplotlib.ticker import MaxNLocator

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        at = [one.minute for one in record.minutes]
        axes.plot(at, [one.p50_s * 1e3 for one in record.minutes], "o-", color=FIRST, markersize=4)
        if record.time_to_throttle_s is not None:
            axes.axvline(at[0] + record.time_to_throttle_s / 60, color=ALARM, linestyle="--", linewidth=1.2)
            axes.annotate(
                "slowed down",
                (at[0] + record.time_to_throttle_s / 60, 0.04),
                xycoords=("data", "axes fraction"),
                xytext=(5, 0),
                textcoords="offset points",
                color=ALARM,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("minute")
        _above(axes, "p50, ms")

    return _svg(width, 240, paint)


def differences(found: Sequence[tuple[str, Difference]], allowed: float | None, width: Width) -> str:
    """Draw differences with their intervals, zero, and the drop that a gate allowed."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, (_, one) in enumerate(found):
            _interval(axes, row, one, FIRST, "o")
        axes.axvline(0, color=TEXT, linewidth=1)
        if allowed is not None:
            axes.axvline(-100 * allowed, color=ALARM, linestyle="--", linewidth=1.2)
        _rows(axes, [name for name, _ in found], width)
        gate = "" if allowed is None else f"; dashed: top-1 may drop by {100 * allowed:g}"
        axes.set_xlabel(f"points{gate}")

    return _svg(width, 66 + 28 * len(found), paint)


def classes(found: Sequence[ClassResult], width: Width) -> str:
    """Draw the change of recall and of precision of classes."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, one in enumerate(found):
            if one.recall is not None:
                _interval(axes, row - 0.16, one.recall, FIRST, "o")
            if one.precision is not None:
                _interval(axes, row + 0.16, one.precision, SECOND, "s")
        axes.axvline(0, color=TEXT, linewidth=1)
        _rows(axes, [one.name for one in found], width)
        axes.set_xlabel("points")
        named = {"recall": (FIRST, "o"), "precision": (SECOND, "s")}
        for name, (colour, marker) in named.items():
            axes.plot([], [], marker, color=colour, label=name)
        _legend(axes, 2)

    return _svg(width, 100 + 30 * len(found), paint)


def confusions(changes: Mapping[tuple[int, int], int], name: Callable[[int], str], width: Width) -> str:
    """Draw by how many images each cell of (right class, said class) changed, for the classes that changed most."""
    from matplotlib.patches import Rectangle

    row = 27
    cell = LETTER * max(len(f"{change:+,}") for change in changes.values()) + 8
    shown = most_confused(changes, CONFUSED)
    longest = max(len(_short(name(index), NAMES[width])) for index in shown)
    room = WIDTHS[width] - LETTER * longest - 30
    shown = most_confused(changes, min(CONFUSED, max(2, int(room / cell))))
    names = [_short(name(index), longest) for index in shown]
    turn = 40 if width == "wide" else 90
    above = LETTER * max(map(len, names)) * (0.65 if width == "wide" else 1)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        most = max(map(abs, changes.values()))
        for down, right in enumerate(shown):
            for across, said in enumerate(shown):
                change = changes.get((right, said), 0)
                corner = (across - 0.5, down - 0.5)
                if change:
                    colour = SECOND if (change > 0) is (right != said) else FIRST
                    strength = 0.1 + 0.4 * abs(change) / most
                    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=strength, linewidth=0))
                    axes.text(across, down, f"{change:+,}", ha="center", va="center_baseline").set_in_layout(False)
                if right == said:
                    axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=QUIET, linewidth=1.4, zorder=3))
        edges = [at - 0.5 for at in range(len(shown) + 1)]
        axes.hlines(edges, edges[0], edges[-1], color=LINE, linewidth=0.8)
        axes.vlines(edges, edges[0], edges[-1], color=LINE, linewidth=0.8)
        # A few classes are no broad stripes.
        axes.set_xlim(-0.55, max(len(shown), room / BROADEST) - 0.45)
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.set_yticks(range(len(shown)), names)
        axes.set_xticks(range(len(shown)), names, rotation=turn, ha="left" if width == "wide" else "center")
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        between = "; " if width == "wide" else "\n"
        axes.set_title(f"down: right class{between}across: taken for", loc="left", pad=10)
        kinds = {"worse": SECOND, "better": FIRST}
        patches = [Rectangle((0, 0), 1, 1, facecolor=colour, alpha=0.5, label=word) for word, colour in kinds.items()]
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False, borderaxespad=0.3)

    return _svg(width, round(row * len(shown) + above + (64 if width == "wide" else 80)), paint)


def most_confused(changes: Mapping[tuple[int, int], int], most: int) -> list[int]:
    """Return the classes of the mistakes that changed most, in their own order."""
    chosen: set[int] = set()
    for (right, said), change in sorted(changes.items(), key=lambda one: (-abs(one[1]), one[0])):
        if change and right != said and len(chosen | {right, said}) <= most:
            chosen |= {right, said}
    return sorted(chosen)


def mixed(found: Mixed, width: Width) -> str:
    """Draw agreement against latency of the points, the chosen one, and the goal."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        by_ms = found.goal.max_latency_s is not None
        scale = found.float_latency_s * 1e3 if by_ms else 1.0
        points = found.points
        at = [one.latency_ratio * scale for one in points]
        estimate = [100 * one.agreement_estimate for one in points]
        down = [max(0.0, 100 * (one.agreement_estimate - one.agreement_low)) for one in points]
        axes.errorbar(
            at,
            estimate,
            yerr=[down, [0.0] * len(points)],
            fmt="o-",
            color=FIRST,
            elinewidth=1,
            markersize=4,
            linewidth=1,
        )
        chosen = points.index(found.chosen)
        axes.plot([at[chosen]], [estimate[chosen]], "D", color=SECOND, markersize=9, label="chosen", zorder=5)
        goal = found.goal
        least = [100 * goal.min_agreement] if goal.min_agreement is not None else []
        least += [100 - goal.max_drop] if goal.max_drop is not None else []
        most = [goal.max_latency] if goal.max_latency is not None else []
        most += [goal.max_latency_s * 1e3] if goal.max_latency_s is not None else []
        for value in least:
            axes.axhline(value, color=ALARM, linestyle="--", linewidth=1.2)
        for value in most:
            axes.axvline(value, color=ALARM, linestyle="--", linewidth=1.2)
        axes.plot([], [], "--", color=ALARM, label="goal")
        axes.set_xlabel("latency, ms" if by_ms else "latency, where 1 is the float file's")
        _above(axes, "same best class as float, %")
        _legend(axes, 2)

    return _svg(width, 320, paint)


def sensitivity(trials: Sequence[MixedTrial], width: Width) -> str:
    """Draw the divergence of each block at each level, on a logarithmic axis."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        blocks = list(dict.fromkeys(one.block for one in trials))
        lowest = min((one.divergence for one in trials if one.divergence > 0), default=1e-6)
        for number, level in enumerate(dict.fromkeys(one.level for one in trials)):
            shown = [one for one in trials if one.level == level]
            axes.plot(
                [max(one.divergence, lowest) for one in shown],
                [blocks.index(one.block) for one in shown],
                MARKERS[number % len(MARKERS)],
                color=SERIES[number % len(SERIES)],
                markersize=6,
                label=level,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _rows(axes, blocks, width)
        axes.set_xlabel("divergence from float, nats")
        _legend(axes, 4 if width == "wide" else 2)

    return _svg(width, 100 + 20 * len(dict.fromkeys(one.block for one in trials)), paint)


def training(done: Finetuning, width: Width) -> str:
    """Draw how the divergence went down while a network learned."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        steps, values = zip(*done.divergences, strict=True)
        axes.plot(steps, values, "o-", color=FIRST, markersize=4)
        axes.axvline(done.best_step, color=SECOND, linestyle="--", linewidth=1.2, label="best step")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        _above(axes, "divergence, nats")
        _legend(axes, 1)

    return _svg(width, 240, paint)


# --- What they share --------------------------------------------------------------------------------------------------


def _interval(axes: Axes, row: float, one: Difference, colour: str, marker: str) -> None:
    low, high = one.interval
    value = 100 * one.value
    # A bootstrap's interval may leave its own estimate out.
    reach = [[max(0.0, value - 100 * low)], [max(0.0, 100 * high - value)]]
    axes.errorbar([value], [row], xerr=reach, fmt=marker, color=colour, markersize=6, elinewidth=1.6, capsize=3)


def _rows(axes: Axes, names: Sequence[str], width: Width) -> None:
    """Name the rows of a picture from its top to its bottom."""
    axes.set_yticks(range(len(names)), [_short(name, NAMES[width]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _short(name: str, most: int) -> str:
    name = printable(name)
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}…{name[-(most - most // 2 - 1) :]}"


def _record_name(record: ProfileRecord, records: Sequence[ProfileRecord]) -> str:
    many = len({one.model.path for one in records}) > 1
    name = profile_view.label(record, records) if many else record.target
    threads = f", {record.threads} thr." if len({one.threads for one in records}) > 1 else ""
    return f"{name}{threads}"


def _above(axes: Axes, text: str) -> None:
    """Name the upright axis above it, where it is read without turning one's head."""
    axes.set_ylabel("")
    axes.set_title(text, loc="left", fontsize=LETTERS, pad=8)


def _legend(axes: Axes, columns: int) -> None:
    """Put the legend above the picture, or where there is room when the upright axis is named there."""
    if axes.get_title(loc="left"):
        axes.legend(loc="best", frameon=False)
        return
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2, handletextpad=0.4
    )


def _svg(width: Width, height: int, paint: Callable[[Figure], None]) -> str:
    """Return what `paint` draws as an SVG element for a page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.text import Text

    with rc_context(dict(_style())), warnings.catch_warnings():
        figure = Figure(figsize=(WIDTHS[width] / 72, height / 72))
        paint(figure)
        for text in figure.findobj(Text):
            text.set_text(printable(text.get_text()))
        out = io.BytesIO()
        # The browser has letters that Matplotlib's font has not.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        # A figure that has its layout engine is drawn once more before it is written.
        ConstrainedLayoutEngine().execute(figure)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _in_page(out.getvalue().decode("utf-8"))


def _style() -> Iterator[tuple[str, Any]]:
    yield from {
        "svg.fonttype": "none",
        "svg.hashsalt": "edgeeff",
        "text.parse_math": False,  # names of files and classes are anybody's: a dollar sign begins no formula
        "font.family": ["sans-serif"],
        "font.size": LETTERS,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.8,
        "legend.fontsize": LETTERS,
        "axes.titlesize": LETTERS,
        "axes.unicode_minus": True,
        "lines.solid_capstyle": "round",
    }.items()
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"):
        yield name, TEXT
    for name in ("grid.color", "axes.edgecolor"):
        yield name, LINE


def _in_page(svg: str) -> str:
    """Return the element of a whole SVG document as it stands in a page: scaled to it, in its colours, hidden from
    screen readers, who have the caption and the table."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", svg)
    # Groups have the same names in all pictures of a page; clips and markers are named by what they are.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: _shorter(tag.group()), svg)
    for stand_in, own in IN_PAGE.items():
        svg = svg.replace(stand_in, own)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    if box is None:
        raise ValueError("Matplotlib wrote an SVG without a viewBox")
    wide, high = (round(float(side)) for side in box.groups())
    head = f'<svg viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" aria-hidden="true" focusable="false"'
    return f"{head}>{rest}"


def _shorter(tag: str) -> str:
    """Return a tag with hundredths of pixels at most, on one line, without turns by nothing."""
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", tag))
    return re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", tag)


def own_names(svg: str, mine: str) -> str:
    """Give what is named in a picture a name that no other picture of the page has, where `mine` is this one's."""
    for name in sorted(set(re.findall(r'id="([^"]+)"', svg)), key=len, reverse=True):
        svg = svg.replace(f'id="{name}"', f'id="{name}-{mine}"')
        svg = svg.replace(f'"#{name}"', f'"#{name}-{mine}"').replace(f"url(#{name})", f"url(#{name}-{mine})")
    return svg
