"""The picture of a report in the README: `python -m tests.pictures RECORD.json... [-o docs/images/report.png]`.

The records are real ones, given by whoever makes the picture: `edgeeff demo` and `edgeeff evaluate` write them. Only
measurements and evaluations are shown, so that the verdicts and a plot are on one screen. What must not be seen in it -
a photograph, a path or the name of a machine - ends the program.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeeff.reporting import html, records
from edgeeff.results import EvaluationRecord, ProfileRecord, Record
from tests import browser

PICTURE = Path("docs/images/report.png")
TITLE = "EfficientNet-Lite0: float32 to int8"
WIDTH = 944
"""Pixels: where the chapters stand above the page, and the page fills the picture."""
SCALE = 2
MOST_BYTES = 250_000

END = "document.querySelector('main .plot').getBoundingClientRect().bottom + scrollY + 6"
"""The first plot is the last that is seen."""
SEEN = f"""
(() => {{
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [], end = {END};
  while (walker.nextNode()) {{
    const box = walker.currentNode.parentElement.getBoundingClientRect();
    if (box.height && box.top + scrollY < end) found.push(walker.currentNode.textContent);
  }}
  return found.join(" ");
}})()
"""


def page(given: Sequence[records.Given], title: str) -> bytes:
    """Return the report on the measurements and evaluations among the records."""
    shown = [one for one in given if isinstance(one.record, (ProfileRecord, EvaluationRecord))]
    return html.render(records.build(shown, title=title))


def secrets(text: str, shown: Sequence[Record]) -> list[str]:
    """Return what the text says of the machine that made the records: paths, and its name."""
    names = {record.device.name for record in shown}
    return [
        *re.findall(r"(?<!\w)~?/[\w.-]+(?:/[\w.-]+)*", text),
        *(name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)),
    ]


def photograph(data: bytes, shown: Sequence[Record]) -> bytes:
    """Return the top of a report as a PNG, as a browser shows it; raises SystemExit for what must not be seen."""
    from PIL import Image

    program = browser.find()
    if program is None:
        raise SystemExit(f"needs one of {', '.join(browser.NAMES)} in PATH")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_bytes(data)
        with browser.browser(program, Path(folder) / "profile") as chromium:
            chromium.open(path, WIDTH)
            if chromium.ask("document.images.length") or (found := secrets(chromium.ask(SEEN), shown)):
                raise SystemExit(f"must not be in the picture: {found or 'photographs'}")
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": chromium.ask(END), "scale": SCALE}
            shot = chromium.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    out = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD.json")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE)
    parser.add_argument("--title", default=TITLE)
    given = parser.parse_args()
    found = records.read(given.records)
    picture = photograph(page(found, given.title), [one.record for one in found])
    if len(picture) > MOST_BYTES:
        raise SystemExit(f"the picture has {len(picture):,} bytes, more than {MOST_BYTES:,}")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_bytes(picture)
    print(f"{given.output}: {len(picture) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
