"""A report as one HTML file that needs nothing else: no network, no script, no font of its own.

Everything that stands in it is escaped by the templates, and what steers the order of letters is written out. A browser
is told to load nothing, so that even a mistake here would fetch nothing.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from edgeeff.errors import InputError, MissingExtraError
from edgeeff.render import printable
from edgeeff.reporting import plots
from edgeeff.reporting.page import Page

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_BYTES = 2_000_000
_UNITS = re.compile(r"(?<=\d) (?=(?:ms|s|MB|GB|kB|GHz|°C|G|nats|points|px)(?:\W|$))")
_PERCENT = re.compile(r"(?<=\d)(?<!top-\d) %")
PACKAGES = {"jinja2": "Jinja2", "matplotlib": "Matplotlib"}


def check() -> None:
    """Raise MissingExtraError where the packages that make a page are not installed."""
    for package, name in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(name, "report")


def render(page: Page) -> bytes:
    """Return the page in UTF-8; raises InputError when it would be larger than 2 MB."""
    text = _environment().get_template("report.html").render(page=page, numbers=count())
    # A name of a file that is no Unicode cannot be written otherwise.
    data = text.encode("utf-8", "replace")
    if len(data) > MOST_BYTES:
        raise InputError(
            f"the page would have {len(data) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g} MB: give fewer records, "
            "or leave --thumbnails away"
        )
    return data


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgeeff.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = _drawn
    environment.filters["held"] = held
    environment.globals["symbols"] = {"good": "✓", "warn": "!", "bad": "✕", "": "·"}
    return environment


def _finalize(value: Any) -> Any:
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\N{NO-BREAK SPACE}".join(map(printable, value.split("\N{NO-BREAK SPACE}")))


def held(text: str) -> str:
    """Hold numbers and their units together, so that no line begins with a unit, and percent signs at their numbers."""
    return _UNITS.sub("\N{NO-BREAK SPACE}", _PERCENT.sub("%", text))


def _drawn(numbers: Iterator[int], plot: Any, width: str) -> Any:
    from markupsafe import Markup

    # Matplotlib escapes what it writes; the only markup in the page that is not the templates'.
    return Markup(plots.own_names(plot.draw(width), f"{next(numbers)}"))  # noqa: S704
