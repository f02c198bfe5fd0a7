"""The doors for texts that go out: a function each that makes foreign text safe for where it is shown.

Prompts, replies, file names, names of models and servers' words are written by anybody. Shown raw, they move a
terminal's cursor, set its title, turn text around, become markup of a page or a formula of a spreadsheet.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

HARMLESS = frozenset("\n\t\u200c\u200d\u00ad")
"""Control and format characters that steer nothing: joiners write Persian and emoji."""
STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that are not seen and act: controls, escapes, overrides of direction, halves of
surrogate pairs, separators of lines."""
UNSEEN = "\ufffd"
_FORMULA = re.compile(r"[=@\t\r]|[+-](?=[^\s\d.])|[+-][\d.]+[^\d.eE\s]")
"""What a spreadsheet takes for the beginning of a formula."""
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""A page loads nothing, runs nothing and sends nothing."""


def printable(text: str) -> str:
    """For a terminal, a plot, a page: what would steer it is replaced by a mark; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(UNSEEN if _steers(mark) else mark for mark in text)


def one_line(text: str) -> str:
    """`printable`, with white space of any kind as single spaces."""
    return " ".join(printable(text).split())


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON for a terminal that reads back as it was: what would steer the terminal is written as an escape."""
    return escaped_json(json.dumps(value, ensure_ascii=False, indent=indent))


def escaped_json(text: str) -> str:
    """JSON that is text already, likewise."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(mark) if _steers(mark) else mark for mark in text)


def markdown(text: str) -> str:
    """For Markdown, a table's cell included: words alone, neither markup nor HTML, on one line."""
    return _MARKUP.sub(
        r"\\\g<0>", one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )


def markdown_code(text: object) -> str:
    """For Markdown: as code on one line, whatever backticks and bars it holds."""
    words = one_line(str(text)).replace("|", r"\|").replace("<", "‹").replace(">", "›")
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    space = " " if words.startswith("`") or words.endswith("`") or not words else ""
    return f"{fence}{space}{words}{space}{fence}"


def csv_cell(value: object) -> object:
    """For a CSV file that a spreadsheet opens: a text that would be a formula there begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def csv_text(cell: str) -> str:
    """The text of a cell that `csv_cell` wrote, or a spreadsheet that was told to take it for text."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """Also after apostrophes, so that a cell which had some before ours reads back as it was."""
    return _FORMULA.match(cell.lstrip("'")) is not None


def html_page(template: Path, css: Path, values: Mapping[str, Any]) -> str:
    """A page of a template that is ours; every text in it is escaped and printable, and the page may do nothing.

    The template has `{{ csp }}` in its head, and `{{ css }}`.
    """
    from markupsafe import Markup

    made = _pages().from_string(template.read_text(encoding="utf-8"))
    return made.render(csp=CSP, css=Markup(css.read_text(encoding="utf-8")), **values)


def templates_in(folder: Path) -> jinja2.Environment:
    """Templates that are ours, by their names in a folder; every text that they show is escaped and printable."""
    import jinja2

    return _environment(jinja2.FileSystemLoader(folder))


def exact(text: str) -> str:
    """For a field of a form whose text comes back: escaped, and else as it is, so that nothing is lost on the way."""
    from markupsafe import escape

    return escape(text)


@cache
def _pages() -> jinja2.Environment:
    return _environment(None)


def _environment(loader: jinja2.BaseLoader | None) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=loader is not None,
        finalize=_finalized,
        loader=loader,
    )


def _finalized(value: Any) -> Any:
    # a text that is marked as safe is a plot of ours
    return printable(value) if type(value) is str else value


def _escape(mark: str) -> str:
    code = ord(mark)
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + ((code - 0x10000) >> 10):04x}\\u{0xDC00 + ((code - 0x10000) & 0x3FF):04x}"


def _steers(mark: str) -> bool:
    return mark not in HARMLESS and unicodedata.category(mark) in STEERING


_MARKUP = re.compile(r"[\\`*_{}\[\]()#+!|~$]")
