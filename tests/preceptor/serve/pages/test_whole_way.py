"""A person's whole way through the pages: a principle is written, its labels are seen and checked blind, the principle
is mended, a policy is trained and watched, and taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.preceptor.serve.jobs.conftest import configuration
from tests.preceptor.serve.jobs.serving import Server
from tests.preceptor.serve.pages.test_in_a_browser import CHROMIUM, chromium, looking
from tests.servers.llm import LLMServer, serve

__all__ = ["chromium"]  # a fixture
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
PRINCIPLES = """name: desk
principles:
  - id: short
    text: Choose the reply that is shorter.
"""
RUDE = 5
"""Every so manieth pair, what the judge takes for the better is rude; people see it."""
PAIRS = "".join(
    json.dumps(
        {
            "id": f"room-{number}",
            "prompt": f"Where is room {number}?",
            "response_a": f"quality=9 Floor {number}{', as you ought to know' if number % RUDE == 0 else ''}.",
            "response_b": f"quality=1 It is on floor {number}, I think, if it is anywhere.",
        }
    )
    + "\n"
    for number in range(20)
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(LLMServer()) as provider:
        made = Server(tmp_path / "served", configuration(provider))
        made.start()
        try:
            yield made
        finally:
            made.close()


def test_from_a_principle_to_a_policy(server: Server, chromium: Any, tmp_path: Path) -> None:
    with looking(chromium, server.url) as page:
        _save(page, "/constitutions/desk", PRINCIPLES, "a beginning")
        _upload(page, tmp_path / "rooms.jsonl")
        _start(page, kind="label", input="rooms.jsonl", judge="judge", constitution="desk")
        preferences = (
            page.get_by_role("link", name="preferences.jsonl").get_attribute("href").rpartition("/")[2]
        )
        page.get_by_role("link", name="look at the pairs").click()
        assert "20 labels: 20 ok" in page.locator("main").inner_text()
        page.locator("td a").first.click()
        assert "Where is room" in page.locator("main").inner_text()
        page.go_back()

        page.get_by_role("link", name="Blind check").last.click()
        page.get_by_label("Items").fill("20")
        page.get_by_label("Verdicts of each").fill("1")
        page.get_by_role("button", name="Draw").click()
        page.wait_for_url("**/check/check-*")
        page.keyboard.press("j")
        page.wait_for_url("**/next")
        for _ in range(20):
            with page.expect_navigation():
                page.keyboard.press(_verdict(page))
        page.locator("main a").first.click()
        assert "80% (58% to 92%)" in page.locator("section", has_text="The judge and the people").inner_text()

        page.get_by_role("link", name="Open in the editor with these pairs as examples").first.click()
        mended = page.locator("textarea[name=text]").input_value()
        assert "as you ought to know" in mended
        mended = mended.replace("that is shorter", "that is shorter and polite")
        page.locator("textarea[name=text]").fill(mended)
        page.get_by_role("button", name="Save", exact=True).click()
        page.goto("/constitutions/desk")
        assert "that is shorter and polite" in page.locator("main").inner_text()

        settings = {"batch_size": 5, "rank": 2}
        _start(page, kind="dpo", input=preferences, model="embedded", settings=settings)
        assert page.locator("svg.curve").count()
        policy = page.get_by_role("heading", level=1).locator("code").inner_text()
        _start(page, kind="export", input=policy, settings={"format": "merged"})
        with page.expect_download() as taken:
            page.get_by_role("link", name="model.safetensors").click()
        assert taken.value.path().stat().st_size > 1_000_000


def _save(page: Any, path: str, text: str, reason: str) -> None:
    page.goto(path)
    page.locator("textarea[name=text]").fill(text)
    page.get_by_label("Why").fill(reason)
    page.get_by_role("button", name="Save", exact=True).click()
    assert reason in page.locator("main").inner_text()


def _upload(page: Any, file: Path) -> None:
    file.write_text(PAIRS)
    page.goto("/jobs")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    page.locator("td", has_text=file.name).wait_for()


def _start(page: Any, settings: dict[str, Any] | None = None, **fields: str) -> None:
    """Fill in the form of jobs, see the plan, start it, and watch until it has ended."""
    page.goto("/jobs")
    for name, value in fields.items():
        field = page.locator(f"#another [name={name}]")
        if name in ("kind", "constitution"):
            field.select_option(value)
        elif value.endswith(".jsonl"):
            field.fill(page.locator("tr", has_text=value).get_by_role("link").inner_text())
        else:
            field.fill(value)
    if settings:
        page.get_by_label("Settings, as JSON").fill(json.dumps(settings))
    if fields["kind"] == "export":  # which asks and trains nothing that could be planned
        page.get_by_role("button", name="Start", exact=True).click()
    else:
        with page.expect_navigation():
            page.get_by_role("button", name="What would it take?").click()
        said = page.locator("main").inner_text()
        assert "By the command's own plan" in said, said
        page.get_by_role("button", name="Start it").click()
    page.locator("#live .cards", has_text="succeeded").or_(
        page.locator("#live .cards", has_text="failed")
    ).wait_for()
    assert "succeeded" in page.locator("#live .cards").inner_text(), page.locator("main").inner_text()


def _verdict(page: Any) -> str:
    """The key for the reply that a polite person takes."""
    first, second = (
        page.locator("section.panel", has_text=f"Reply {n}").locator("p").inner_text() for n in (1, 2)
    )
    if "as you ought" in first + second:
        return "2" if "as you ought" in first else "1"
    return "1" if len(first) < len(second) else "2"
