"""label, audit and score with panels, escalation, groups, people, canaries and rechecks, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Preceptor
from tests.servers.llm import LLMServer
from tests.servers.terminal import at_a_terminal

Start = Callable[..., LLMServer]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "id": f"pair-{n}",
            "prompt": f"question {n}",
            "response_a": f"quality={n} and so on",
            "response_b": f"quality={9 - n}",
            "preferred": "a" if n > 4 else "b",
        }
        for n in range(1, 9)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = [
        {"prompt": f"ask {n}", "responses": [f"quality={q} {n}" for q in (3, 9, 1, 6)]} for n in range(3)
    ]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in groups))
    return tmp_path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_panel_votes_and_the_card_says_how_far_it_agreed(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    good, poor = start_server(), start_server(verdict="Nobody knows {letter}")
    ended = preceptor(
        *("label", "pairs.jsonl", "-c", "style", "--judge", "openai/good", "--judge", "openai/poor"),
        *("--base-url", good.url, "--base-url", f"openai/poor={poor.url}", "--out", "out", "--json"),
    )
    assert ended.code == 0, ended.err
    assert (good.stats()["requests"], poor.stats()["requests"]) == (16, 16)
    labels = rows_of(place / "out" / "labels.jsonl")
    assert {row["judge"] for row in labels} == {"openai/good + openai/poor"}
    assert all([vote["status"] for vote in row["votes"]] == ["ok", "unparsed"] for row in labels)
    assert json.loads(ended.out)["ok"] == 8
    card = (place / "out" / "card.md").read_text()
    assert "Agreement between the judges" in card
    assert "| off-topic | 16 |" in card


def test_majority_and_dawid_skene_ask_nothing_new(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("label", "pairs.jsonl", "-c", "style", "--base-url", server.url, "--json")
    judges = ("--judge", "openai/x", "--judge", "openai/y", "--judge", "openai/z")
    assert preceptor(*words, *judges, "--out", "mean").code == 0
    asked = server.stats()["requests"]
    for rule in ("majority", "dawid-skene"):
        ended = preceptor(*words, *judges, "--combine", rule, "--out", rule)
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["ok"] == 8
        assert preceptor("verify", rule).code == 0
    assert server.stats()["requests"] == asked
    assert json.loads((place / "majority" / "manifest.json").read_text())["audit"]["alpha"] == 1.0


def test_only_doubtful_pairs_go_on_and_the_card_shows_what_it_was_worth(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    cheap, dear = start_server(), start_server()
    ended = preceptor(
        *("label", "pairs.jsonl", "-c", "style", "--judge", "openai/gpt-4o-mini", "--base-url", cheap.url),
        *("--escalate-to", "openai/gpt-4o", "--base-url", f"openai/gpt-4o={dear.url}"),
        *("--when", 'status != "ok" or margin < 0.1', "--out", "out", "--json"),
    )
    assert ended.code == 0, ended.err
    assert cheap.stats()["requests"] == 16
    assert dear.stats()["requests"] == 4  # the two pairs whose marks differ by one
    steps = json.loads((place / "out" / "manifest.json").read_text())["audit"]["steps"]
    assert [(one["pairs"], one["accuracy"]) for one in steps] == [(8, 1.0), (2, 1.0)]
    assert all(one["cost_usd"] > 0 for one in steps)
    assert "accuracy against cost" in (place / "out" / "card.md").read_text()


def test_groups_are_ranked_and_give_the_preferences_asked_for(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = (
        "label",
        "groups.jsonl",
        "-c",
        "style",
        "--judge",
        "openai/x",
        "--base-url",
        server.url,
        "--json",
    )
    ended = preceptor(*words, "--groups", "all", "--out", "best")
    assert ended.code == 0, ended.err
    made = rows_of(place / "best" / "preferences.jsonl")
    assert [(row["chosen"][0]["content"][:9], row["rejected"][0]["content"][:9]) for row in made] == [
        ("quality=9", "quality=1")
    ] * 3
    assert server.stats()["requests"] == 3 * 6 * 2
    assert len(rows_of(place / "best" / "rankings.jsonl")[0]["scores"]) == 4
    assert preceptor(*words, "--groups", "all", "--preferences", "adjacent", "--out", "adjacent").code == 0
    assert len(rows_of(place / "adjacent" / "preferences.jsonl")) == 9
    assert server.stats()["requests"] == 3 * 6 * 2
    assert preceptor("verify", "best").code == 0


def test_canaries_are_judged_and_kept_out_of_the_preferences(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    ended = preceptor(
        *("label", "pairs.jsonl", "-c", "helpful-harmless", "--judge", "openai/x", "--base-url", server.url),
        *("--canaries", "50%", "--out", "out", "--json", "--fail-if", "attack_rate > 1"),
    )
    assert ended.code == 0, ended.err
    assert len(rows_of(place / "out" / "labels.jsonl")) == 8
    planted = rows_of(place / "out" / "canaries.jsonl")
    assert planted
    assert server.stats()["requests"] > 16
    assert not {row["id"] for row in planted} & {
        row["id"] for row in rows_of(place / "out" / "preferences.jsonl")
    }
    assert "Canaries" in (place / "out" / "card.md").read_text()


def test_canaries_that_have_nowhere_to_be_planted(place: Path, preceptor: Preceptor) -> None:
    (place / "bare.yaml").write_text(
        "name: bare\nversion: 1.0.0\ndescription: none\nprinciples:\n"
        "  - {id: one, text: Choose one., check: {max_words: 3}}\n"
    )
    words = ("label", "groups.jsonl", "-c", "style", "--judge", "checks", "--canaries", "5%", "--out", "out")
    grouped = preceptor(*words, "--groups", "all")
    assert (grouped.code, "canaries are comparisons" in grouped.err) == (2, True)
    bare = preceptor("label", "pairs.jsonl", "-c", "bare.yaml", *words[4:])
    assert (bare.code, "no examples to plant canaries in" in bare.err) == (2, True)
    assert not (place / "out").exists()


def test_a_recheck_asks_past_the_ledger_and_finds_no_drift_in_a_steady_judge(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url, "--json")
    assert preceptor(*words, "--out", "plain").code == 0
    ended = preceptor(*words, "--recheck", "99%", "--out", "again", "--fail-if", "accuracy < 1")
    assert ended.code == 0, ended.err
    assert server.stats()["requests"] == 32
    assert json.loads((place / "again" / "manifest.json").read_text())["audit"]["drift"]["changed"] == 0.0
    assert (place / "plain" / "labels.jsonl").read_bytes() == (place / "again" / "labels.jsonl").read_bytes()


@pytest.mark.usefixtures("place")
def test_every_recheck_is_a_look_of_its_own_and_a_gate_can_name_drift(
    preceptor: Preceptor, start_server: Start
) -> None:
    """Two looks on one day ask twice; one that stopped at its budget is gone on with."""
    server = start_server()
    words = ("audit", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url, "--json")
    assert preceptor(*words, "--recheck", "99%").code == 0
    assert server.stats()["requests"] == 32
    second = preceptor(*words, "--recheck", "99%", "--fail-if", "drift_rate > 0 or drift_shift > 0")
    assert second.code == 0, second.err
    assert server.stats()["requests"] == 48
    figures = json.loads(second.out)
    assert (figures["drift"]["n"], figures["drift"]["look"], figures["drift_rate"]) == (8, 2, 0.0)
    gated = preceptor(*words, "--recheck", "99%", "--fail-if", "drift_rate == 0")
    assert (gated.code, server.stats()["requests"]) == (1, 64)


@pytest.mark.usefixtures("place")
def test_an_audit_with_canaries_and_a_gate(preceptor: Preceptor, start_server: Start) -> None:
    server = start_server()
    ended = preceptor(
        *("audit", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url),
        *("--attacks", "--json", "--fail-if", "attack_rate >= 0"),
    )
    assert ended.code == 1, ended.err
    figures = json.loads(ended.out)
    assert (figures["n"], figures["accuracy"]) == (8, 1.0)
    assert figures["canaries"]["all"]["n"] > 8
    every = figures["canaries"]["all"]
    assert every["control"]["n"] > 8
    assert (
        figures["attack_excess"]
        == figures["attack_rate"] - figures["attack_control_rate"]
        == every["difference"]
    )


def test_scores_go_to_a_file_once(place: Path, preceptor: Preceptor, start_server: Start) -> None:
    server = start_server(verdict="Score: 7")
    words = (
        "score",
        "pairs.jsonl",
        "-c",
        "style",
        "--judge",
        "openai/x",
        "--base-url",
        server.url,
        "--reasoning",
    )
    ended = preceptor(*words, "--out", "scores.jsonl", "--json")
    assert ended.code == 0, ended.err
    made = rows_of(place / "scores.jsonl")
    assert len(made) == 16
    assert {row["score"] for row in made} == {7.0}
    assert all(row["reward"] == pytest.approx(1 / 3) for row in made)
    assert json.loads(preceptor(*words, "--out", "scores.jsonl", "--json").out)["calls"]["asked"] == 0


def test_the_exact_words_can_be_seen_before_anybody_is_asked(
    place: Path, preceptor: Preceptor, start_server: Start
) -> None:
    server = start_server()
    words = ("label", "pairs.jsonl", "-c", "style", "--judge", "openai/x", "--base-url", server.url)
    ended = preceptor(*words, "--show")
    assert ended.code == 0, ended.err
    assert ended.out.count("=== openai/x, principle joint") == 2
    assert "quality=1 and so on" in ended.out
    assert server.stats()["requests"] == 0
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nobody judges"),
        (("--judge", "checks", "--when", "margin < 1"), "--when without --escalate-to"),
        (("--judge", "openai/x", "--judge", "openai/x"), "judges twice"),
        (("--judge", "openai/x", "--escalate-to", "openai/y", "--when", "flips > 1"), "'flips' in"),
        (("--judge", "openai/x", "--clamp", "0.4,0.6"), "clamp without reasoning"),
        (("--judge", "openai/x", "--clamp", "high", "--reasoning"), "wanted two numbers"),
        (("--judge", "openai/x", "--draws", "3"), "draws are for `sample`"),
        (("--judge", "openai/x", "--canaries", "much"), "wanted a share"),
        (("--judge", "embedded", "--structured"), "cannot be held to a JSON schema"),
        (("--judge", "embedded", "--shots", "2"), "no place for worked examples"),
        (("--judge", "embedded", "--dtype", "float13"), "wanted auto, float32"),
        (("--judge", "embedded", "--4bit"), "4-bit weights need"),
        (("--human",), "a person is asked at a terminal"),
        (("--judge", "openai/x", "--groups", "all"), "no responses"),
    ],
)
def test_flags_that_do_not_go_together(
    place: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """One message, exit code 2, nothing written."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    ended = preceptor("label", "pairs.jsonl", "-c", "front-desk", *words, "--out", "out")
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not (place / "out").exists()


def test_a_person_answers_stops_and_goes_on(place: Path) -> None:
    """Only pairs that the checks left undecided; the verdicts are judgements like any other."""
    words = [
        "label",
        "pairs.jsonl",
        "-c",
        "style",
        "--judge",
        "checks",
        "--human",
        "--limit",
        "4",
        "--out",
        "out",
    ]
    code, screen = at_a_terminal(words, "aq", place, "stop here")
    assert code == 130, screen
    assert "Traceback" not in screen
    code, screen = at_a_terminal(words, "bbbb", place, "stop here")
    assert code == 0, screen
    assert screen.count("stop here") == 3
    made = rows_of(place / "out" / "labels.jsonl")
    assert [row["judge"] for row in made] == ["human"] * 4
    assert all(row["judgements"][-1]["model"] == "human" for row in made)
    assert {row["status"] for row in made} == {"ok"}
