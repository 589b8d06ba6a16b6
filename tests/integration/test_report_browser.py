"""Reports in a real browser: nothing goes wrong in it, nothing sticks out on a phone, everything can be read.

EDGEEFF_SCREENSHOTS=DIR keeps pictures of the pages, to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeeff.reporting import html, records
from edgeeff.reporting.thumbnails import Thumbnails
from edgeeff.results import Record
from tests import browser as driver
from tests import reports

pytestmark = pytest.mark.browser

GOLDEN = Path(__file__).parent.parent / "golden"
WIDTHS = (380, 1400)
PAGES = ("golden", "project", "every_kind", "hostile")

WIDER = """
(() => {
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll("body *")]
    .filter(one => one.getClientRects().length && !one.closest(".unseen, .skip, thead"))
    .filter(one => one.getBoundingClientRect().right > wide + 0.5 || one.scrollWidth > one.clientWidth + 1
                   && getComputedStyle(one).overflowX !== "visible")
    .map(one => `${one.tagName}.${one.className?.baseVal ?? one.className}: ${one.textContent.trim().slice(0, 60)}`)
    .concat(document.documentElement.scrollWidth > wide ? [`the page: ${document.documentElement.scrollWidth}`] : []);
})()
"""
"""What sticks out of the page, or has to be scrolled sideways."""

LIGHT = """
  const light = colour => colour.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (x, y) => {
    const [a, b] = [light(x), light(y)].sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  };
"""
"""Relative luminance and contrast, as WCAG 2.2 defines them."""

PALE = (
    f"""
(() => {{{LIGHT}"""
    """
  const parts = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const behind = one => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !one.getClientRects().length || one.closest("style")) continue;
    const style = getComputedStyle(one);
    const colour = parts(one.closest("svg") ? style.fill : style.color);
    const found_ratio = ratio(colour, behind(one));
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (colour[3] < 1 || found_ratio < (large ? 3 : 4.5))
      found.push(`${found_ratio.toFixed(2)}: ${one.textContent.trim().slice(0, 60)}`);
  }
  return found;
})()
"""
)
"""Text with less contrast than WCAG's AA."""

FAINT = (
    f"""
(() => {{{LIGHT}"""
    """
  const style = getComputedStyle(document.documentElement);
  const read = name => [1, 3, 5].map(i => parseInt(style.getPropertyValue(name).trim().slice(i, i + 2), 16));
  return ["--first", "--second", "--third", "--fourth", "--bad", "--quiet"]
    .filter(name => !(ratio(read(name), read("--paper")) >= 3));
})()
"""
)
"""Colours of plots with less contrast than WCAG asks of graphics."""

SMALL = """
(() => [...document.querySelectorAll("svg text")]
  .filter(one => one.getClientRects().length)
  .map(one => [one, one.getScreenCTM()])
  .map(([one, to]) => [parseFloat(getComputedStyle(one).fontSize) * Math.hypot(to.a, to.b), one.textContent])
  .filter(([size]) => size < 10.5).map(([size, text]) => `${size.toFixed(1)}: ${text}`))()
"""
"""Text in plots that is too small to read, in pixels as it is shown."""

CUT = """
(() => [...document.querySelectorAll("svg")].filter(one => one.getClientRects().length).flatMap(one => {
  const box = one.getBoundingClientRect();
  return [...one.querySelectorAll("text")].filter(text => {
    const at = text.getBoundingClientRect();
    return at.left < box.left - 2 || at.right > box.right + 2 || at.top < box.top - 2 || at.bottom > box.bottom + 2;
  }).map(text => text.textContent);
}))()
"""
"""Text in plots that is cut off at their edge."""


COVERED = (
    f"""
(() => {{{LIGHT}"""
    """
  const parts = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const paper = parts(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("svg")].filter(one => one.getClientRects().length).flatMap(one => {
    const areas = [...one.querySelectorAll("path, rect")].filter(area => !area.closest("defs"))
      .map(area => [area.getBoundingClientRect(), getComputedStyle(area)])
      .filter(([, style]) => style.fill !== "none");
    return [...one.querySelectorAll("text")].map(text => {
      const at = text.getBoundingClientRect(), x = (at.left + at.right) / 2, y = (at.top + at.bottom) / 2;
      const behind = areas.filter(([box]) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom)
        .reduce((below, [, style]) => {
          const colour = parts(style.fill), share = colour[3] * style.opacity * style.fillOpacity;
          return below.map((v, i) => i < 3 ? share * colour[i] + (1 - share) * v : 1);
        }, paper);
      return [ratio(parts(getComputedStyle(text).fill), behind), text.textContent, behind !== paper];
    }).filter(([found]) => found < 4.5).map(([found, words]) => `${found.toFixed(2)}: ${words}`);
  });
})()
"""
)
"""Text in plots with less contrast than WCAG's AA on what is painted behind it, such as the cell of a number."""

CROWDED = """
(() => [...document.querySelectorAll("svg")].filter(one => one.getClientRects().length).flatMap(one => {
  const texts = [...one.querySelectorAll("text")].map(text => [text.getBoundingClientRect(), text.textContent]);
  return texts.flatMap(([a, x], i) => texts.slice(i + 1)
    .filter(([b]) => Math.abs(a.top - b.top) < 1 && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1)
    .map(([, y]) => `${x} / ${y}`));
}))()
"""
"""Text in plots that lies over other text of its line, as the numbers of an axis do."""


def given(name: str) -> list[records.Given]:
    """Return the records of a page."""
    if name == "golden":
        return list(records.read(sorted(GOLDEN.glob("*_v*.json"))))
    made: tuple[Record, ...] = getattr(reports, name)()
    return [records.Given(one, f"{index}.json") for index, one in enumerate(made)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in PAGES:
        (folder / f"{name}.html").write_bytes(html.render(records.build(given(name), thumbnails=Thumbnails(folder))))
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Browser]:
    program = driver.find()
    if program is None:
        pytest.skip(f"needs one of {', '.join(driver.NAMES)} in PATH")
    pytest.importorskip("tornado", reason="needs Tornado; install the extra cluster")
    with driver.browser(program, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(chromium: driver.Browser, pages: dict[str, Path], name: str, width: int, dark: bool) -> None:
    chromium.open(pages[name], width, dark=dark)
    folder = os.environ.get("EDGEEFF_SCREENSHOTS")
    if folder:
        chromium.photograph(Path(folder) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    assert chromium.complaints() == []
    assert chromium.requests() == []
    assert chromium.ask(WIDER) == []
    assert chromium.ask(PALE) == []
    assert chromium.ask(FAINT) == []
    assert chromium.ask(SMALL) == []
    assert chromium.ask(CUT) == []
    assert chromium.ask(CROWDED) == []
    assert chromium.ask(COVERED) == []
    assert chromium.ask("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    background = chromium.ask("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_of_the_confusion_difference_stand_in_their_cells(
    chromium: driver.Browser, pages: dict[str, Path], width: int
) -> None:
    chromium.open(pages["project"], width)
    outside = """(() => {
      const plots = [...document.querySelectorAll("figure.plot")];
      const one = plots.find(plot => plot.textContent.includes("confusion matrix"));
      const svg = [...one.querySelectorAll("svg")].find(each => each.getClientRects().length);
      const cells = [...svg.querySelectorAll("path")].map(path => path.getBoundingClientRect());
      const numbers = [...svg.querySelectorAll("text")].filter(text => /^[+-]\\d/.test(text.textContent));
      return [numbers.length, numbers.map(text => text.getBoundingClientRect()).filter(number => !cells.some(cell =>
        cell.left <= number.left && number.right <= cell.right && cell.top <= number.top + 1
        && number.bottom - 1 <= cell.bottom && cell.height < 40)).length];
    })()"""
    numbers, wrong = chromium.ask(outside)
    assert numbers > 20
    assert wrong == 0


def test_markup_in_names_runs_nothing(chromium: driver.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["hostile"], 1400)
    assert chromium.ask("document.querySelectorAll('script, img, iframe, b').length") == 0
    assert reports.HOSTILE in chromium.ask("document.body.innerText")


def test_paper_is_white_and_shows_what_was_folded(chromium: driver.Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["project"], 794, dark=True, media="print")  # A4 at 96 pixels per inch
    assert chromium.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.ask(PALE) == []
    hidden = "[...document.querySelectorAll('details table')].filter(one => !one.checkVisibility()).length"
    assert chromium.ask(hidden) == 0
    made = chromium.call("Page.printToPDF", printBackground=True)
    assert len(made["data"]) > 10_000


def test_a_screen_reader_hears_headings_tables_and_figures(chromium: driver.Browser, pages: dict[str, Path]) -> None:
    for width in WIDTHS:  # cards on a phone are tables to the ear
        chromium.open(pages["project"], width)
        tree = chromium.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in tree if not node["ignored"]]
        tables = chromium.ask("document.querySelectorAll('details[open] table, table:not(details *)').length")
        assert roles.count("table") == tables
        assert roles.count("columnheader") > tables
        assert roles.count("rowheader") > tables
        assert roles.count("main") == roles.count("navigation") == 1
        assert "SvgRoot" not in roles


def test_the_keyboard_reaches_links_and_folds_and_shows_where_it_is(
    chromium: driver.Browser, pages: dict[str, Path]
) -> None:
    chromium.open(pages["project"], 1400)
    reached = []
    wanted = chromium.ask("document.querySelectorAll('a, summary').length")
    for _ in range(wanted):
        for kind in ("keyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(
            chromium.ask("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert {tag for tag, _ in reached} == {"A", "SUMMARY"}
    assert {outline for _, outline in reached} == {"solid"}
    assert reached[0][0] == "A"  # the way past the chapters comes first
