"""The pages in Debian's Chromium: by keyboard, without JavaScript, at three widths and in the dark.

Playwright drives the browser that the system has; it downloads none. Where either is missing, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.preceptor.serve.pages.conftest import Site

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
LONG_MS = 600_000
"""A busy machine is no fault of a page."""
WIDTHS = (375, 768, 1280)
PAGES = (
    *("/", "/sign-in", "/pairs", "/pairs/first", "/pairs/first/pair?id=lift-1", "/check", "/check/new"),
    *("/constitutions", "/constitutions/own", "/playground", "/jobs", "/runs", "/runs/taught"),
    *(
        "/runs/taught/beside/taught",
        "/workbench",
        "/judges",
        "/judges/executors",
        "/bill",
        "/keys",
        "/nothing",
    ),
)
SHOWN = {"/pairs/first": "pairs", "/pairs/first/pair?id=lift-1": "pair", "/constitutions/own": "constitution"}
"""Pages whose pictures the documentation shows."""
PICTURES = os.environ.get("PICTURES")
"""A folder where those are to be kept; `make pictures` names it."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests of this file."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            timeout=LONG_MS,
        )
        yield browser
        browser.close()


@contextmanager
def looking(chromium: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page of somebody who has signed in as Ada. It fails where the browser tells of an error: a script that was
    refused, a style that did not load."""
    context = chromium.new_context(base_url=url, **options)
    context.set_default_timeout(LONG_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto("/sign-in")
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_role("main").get_by_role("button").click()
    yield page
    context.close()
    assert [said for said in errors if "status of 4" not in said] == []


def test_every_page_at_three_widths_light_and_dark(chromium: Any, site: Site, tmp_path: Path) -> None:
    with looking(chromium, site.server.url) as page:
        for path in PAGES:
            page.goto(path)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (path, width, wide)  # what is wider scrolls in a box of its own
            for scheme in ("dark", "light"):
                page.emulate_media(color_scheme=scheme)
                taken = page.screenshot(path=tmp_path / f"{scheme}.png")
            if PICTURES is not None and path in SHOWN:
                Path(PICTURES, f"pages-{SHOWN[path]}.png").write_bytes(taken)
            light, dark = ((tmp_path / f"{one}.png").read_bytes() for one in ("light", "dark"))
            assert light != dark, path


def test_axe_finds_nothing(chromium: Any, site: Site) -> None:
    """WCAG as far as axe-core sees it, light and dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = {}
    with looking(chromium, site.server.url) as page:
        for path in PAGES:
            page.goto(path)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                told = axe.run(page).response
                assert len(told["passes"]) > 10, path
                for one in told["violations"]:
                    found[path, scheme, one["id"]] = [node["html"] for node in one["nodes"]]
    assert found == {}


def test_a_check_by_keys_alone(chromium: Any, site: Site) -> None:
    with looking(chromium, site.server.url) as page:
        page.goto("/check/new?labels=first")
        _tab_to(page, "Labels")
        for label, keys in (("Items", "3"), ("Verdicts of each", "1")):
            _tab_to(page, label)
            page.keyboard.press("Control+a")
            page.keyboard.type(keys)
        page.keyboard.press("Enter")
        page.wait_for_url("**/check/check-*")
        page.keyboard.press("j")
        page.wait_for_url("**/next")
        first = page.locator("main").inner_text()
        for key in "1":
            _verdict(page, key)
        page.keyboard.press("u")
        page.wait_for_url("**/next?place=*")
        assert page.locator("main").inner_text().split()[-40:] == first.split()[-40:]
        for key in "321":
            _verdict(page, key)
        assert "Nothing left for you" in page.locator("main").inner_text()


def _verdict(page: Any, key: str) -> None:
    """Press it, and wait for the page that comes of it."""
    with page.expect_navigation():
        page.keyboard.press(key)


def _tab_to(page: Any, label: str) -> None:
    """Go on by the tabulator until the field of this label has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if label in page.evaluate("document.activeElement.labels?.[0]?.textContent ?? ''"):
            return
    raise AssertionError(f"no {label} by the tabulator")


def test_keys_walk_through_pairs_and_not_while_one_writes(chromium: Any, site: Site) -> None:
    with looking(chromium, site.server.url) as page:
        page.goto("/pairs/first/pair?id=lift-1")
        page.keyboard.press("n")
        page.wait_for_url("**id=lift-2*")
        page.keyboard.press("p")
        page.wait_for_url("**id=lift-1*")
        page.get_by_label("Reason", exact=True).fill("n")
        page.keyboard.type("p")
        assert page.get_by_label("Reason", exact=True).input_value() == "np"
        assert "id=lift-1" in page.url


def test_faults_come_as_one_types(chromium: Any, site: Site) -> None:
    with looking(chromium, site.server.url) as page:
        page.goto("/constitutions/own")
        page.locator("textarea[name=text]").fill("name: x\nprinciples: 3\n")
        page.locator("textarea[name=text]").press("End")
        page.locator("#faults", has_text="line 2").wait_for()


def test_all_can_be_done_without_javascript(chromium: Any, site: Site) -> None:
    with looking(chromium, site.server.url, java_script_enabled=False) as page:
        page.goto("/pairs/first/pair?id=lift-4")
        page.get_by_label("Reason", exact=True).fill("no script ran")
        page.locator("form[action$='/correct'] button").first.click()
        assert "no script ran" in page.locator("main").inner_text()
        page.goto("/constitutions/own")
        page.locator("textarea[name=text]").fill("name: x\nprinciples: 3\n")
        page.get_by_role("button", name="Look at faults and differences").click()
        assert "line 2" in page.locator("#faults").inner_text()
        page.goto(f"/jobs/{site.job}")
        assert page.locator("svg.curve").first.get_attribute("aria-label")
