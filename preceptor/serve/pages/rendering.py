"""A template and its values -> a page that loads nothing from elsewhere and runs no script but ours."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from preceptor import __version__
from preceptor.prompts.shown import exact, json_text, templates_in

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of every page: no inline script, no inline style, nothing from elsewhere, in no frame."""
HEADERS = {
    "Content-Security-Policy": CSP,
    # with no-referrer, browsers would send `Origin: null` with our own forms
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ROOMS = (
    ("pairs", "Pairs"),
    ("check", "Blind check"),
    ("constitutions", "Constitutions"),
    ("playground", "Playground"),
    ("workbench", "Workbench"),
    ("jobs", "Jobs"),
    ("runs", "Runs"),
    ("judges", "Judges"),
    ("bill", "Bill"),
    ("keys", "Keys"),
)
"""The first part of a path, and what the navigation calls it."""


def show(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page of a template. Every template may use `visitor`, who is None where nobody has signed in."""
    visitor = getattr(request.state, "visitor", None)
    room = request.url.path.split("/")[1]
    made = _templates().get_template(template)
    text = made.render(visitor=visitor, rooms=ROOMS, room=room, version=__version__, **values)
    return HTMLResponse(text, status, HEADERS)


def query_of(values: Mapping[str, Any], **more: Any) -> str:
    """Values as a query string that begins with `?`; those that are None or empty are left out."""
    given = {name: value for name, value in {**values, **more}.items() if value not in (None, "", False)}
    return f"?{urlencode(given)}" if given else "?"


@cache
def _templates() -> jinja2.Environment:
    made = templates_in(HERE / "templates")
    made.filters |= {
        "share": _share,
        "dollars": _dollars,
        "figure": _figure,
        "when": _when,
        "counted": _counted,
        "query": query_of,
        "raw_json": lambda value: json_text(value, indent=1),
        "tojson_text": json.dumps,
        "exact": exact,
        "at": _at,
    }
    return made


def _at(value: Mapping[str, Any], *names: str) -> Any:
    """What stands there under these names, one in the other; None where it does not."""
    found: Any = value
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _share(value: object) -> str:
    return f"{value:.0%}" if _is_figure(value) else "–"


def _figure(value: object) -> str:
    return f"{value:.2f}" if _is_figure(value) else "–"


def _dollars(value: object) -> str:
    """Unknown is no zero."""
    if not _is_figure(value):
        return "unknown"
    return f"${value:,.4f}" if abs(value) < 1 else f"${value:,.2f}"


def _is_figure(value: object) -> TypeGuard[float]:
    """Whether a file that somebody else wrote has a number there."""
    return isinstance(value, int | float) and math.isfinite(value)


def _when(at: float | None) -> str:
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _counted(value: int) -> str:
    return f"{value:,}"
