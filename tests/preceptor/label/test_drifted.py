"""`preceptor drift`: looks kept in the folder, a certificate that ends, and what `verify` says of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from preceptor.judge.asking import prices
from tests.command_line import Preceptor
from tests.preceptor.resealed import reseal
from tests.preceptor.test_certify import WORDS, pair, write
from tests.servers.llm import LLMServer, Said, serve

DAY = date(2026, 11, 30)


class Fickle(LLMServer):
    """A judge that one day prefers what is worse."""

    turned = False

    def _say(self, text: str, raw: bytes) -> Said:
        said = super()._say(text, raw)
        return said._replace(p_a=1 - said.p_a) if self.turned else said


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    server = Fickle()
    with serve(server):
        yield server


def test_a_judge_that_changes_ends_its_certificate(
    preceptor: Preceptor, fickle: Fickle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    today = [DAY]
    monkeypatch.setattr(prices, "today", lambda: today[0])
    write(tmp_path / "gold.jsonl", [pair(number, "gold") for number in range(40)])
    write(tmp_path / "pairs.jsonl", [pair(number) for number in range(100, 130)])
    server, url = fickle, ("--base-url", fickle.url)
    certify = ("--certify", "0.9", "--gold", "gold.jsonl")
    assert preceptor(*WORDS, *url, *certify, "--out", "out").code == 0
    asked = server.stats()["requests"]

    plan = preceptor("drift", "out", "--rows", "12", "--plan", "--json")
    assert plan.code == 0, plan.err
    assert json.loads(plan.out)["models"][0]["to_ask"] == 24
    assert server.stats()["requests"] == asked

    quiet = preceptor("drift", "out", "--rows", "12", "--json")
    assert quiet.code == 0, quiet.err
    found = json.loads(quiet.out)
    assert (found["looks"], found["n"], found["changed"], found["since"]) == (1, 12, 0.0, None)
    assert found["floating"] == [], "at an address of one's own a name says nothing"
    assert server.stats()["requests"] == asked + 24
    assert preceptor("verify", "out").code == 0
    assert "Nothing shows" in (tmp_path / "out/card.md").read_text()

    soon = preceptor("drift", "out", "--rows", "12", "--every", "7")
    assert soon.code == 0
    assert "not due yet" in soon.err
    assert server.stats()["requests"] == asked + 24

    moved = preceptor("drift", "out", "--tolerate", "0.2")
    assert moved.code == 2
    assert "moved between looks" in moved.err

    today[0] = DAY + timedelta(days=7)
    server.turned = True
    changed = preceptor("drift", "out", "--rows", "12", "--every", "7")
    assert changed.code == 1, changed.err
    assert "certificate of theirs has ended" in changed.err
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["drift"]["since"] == "2026-12-07"
    assert (tmp_path / "out/card.md").read_text().count("## Drift since") == 1
    void = preceptor("verify", "out")
    assert void.code == 1
    assert "its certificate ended on 2026-12-07" in void.out

    again = preceptor(*WORDS, *url, *certify, "--out", "out")
    assert again.code == 2
    assert "--ledger NEW" in again.err
    gated = preceptor(*WORDS, *url, "--fail-if", "flip_rate > 0.2", "--out", "out")
    assert (gated.code, "--ledger NEW" in gated.err) == (2, True), (
        "nor does a gate stand on the judge of before"
    )

    reseal(tmp_path / "out", lambda facts: facts["drift"].update({"since": None}))
    denied = preceptor("verify", "out")
    assert "its drift is not what drift.jsonl says" in denied.out


def test_what_cannot_be_looked_at_is_said(
    preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = preceptor("drift", "nowhere")
    assert empty.code == 2
    assert "preceptor label" in empty.err
    write(tmp_path / "pairs.jsonl", [pair(1)])
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "checks", "--out", "out")
    assert preceptor(*words).code == 0
    by_checks = preceptor("drift", "out")
    assert by_checks.code == 2
    assert "nothing that could drift" in by_checks.err
