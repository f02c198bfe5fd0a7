"""A page as a browser reads it: its elements, attributes, texts, links and forms."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from preceptor.serve.pages.rendering import HERE

VOID = ("input", "meta", "link", "br")


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str | None] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.values: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes |= given.keys()
        self.values += [value or "" for value in given.values()]
        if tag == "script":
            self.scripts.append(given.get("src"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag == "input" and given.get("name"):
            self.fields[given["name"] or ""] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All of its words, and all values of attributes."""
        return "\n".join([*self.words, *self.values])


@cache
def ours() -> tuple[frozenset[str], frozenset[str]]:
    """(elements, attributes) that stand in our templates: nothing else may be on a page."""
    tags: set[str] = set()
    attributes: set[str] = set()
    for path in Path(HERE, "templates").glob("*.html"):
        source = re.sub(r"\{[{%].*?[%}]\}", " ", path.read_text(), flags=re.DOTALL)
        page = Page(source)
        tags |= page.tags
        attributes |= page.attributes
    return frozenset(tags), frozenset(attributes)


def assert_nothing_was_born(text: str) -> Page:
    """The page, all of whose elements and attributes are ours."""
    page = Page(text)
    tags, attributes = ours()
    assert page.tags <= tags
    assert page.attributes <= attributes
    assert set(page.scripts) <= {"/static/htmx.min.js", "/static/pages.js"}
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.links), page.links
    return page
