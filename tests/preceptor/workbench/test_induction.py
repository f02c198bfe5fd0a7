"""Principles that were planted in preferences are found again, and their worth is said on pairs nobody looked at."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.judge.records import Letter, Pair, Response
from preceptor.prompts.records import Message, Prompt
from preceptor.workbench.induction import (
    ProposedPrinciple,
    candidates_in,
    chosen_set,
    constitution_of,
    proposing,
    reconstructed,
    split_pairs,
    tally,
    voted,
    worth,
)
from preceptor.workbench.settings import InductionSettings
from tests.command_line import Preceptor


def pair(number: int, preferred: Letter | None = "a", text: str = "") -> Pair:
    prompt = Prompt(id=f"q{number}", messages=(Message(role="user", content=f"question {number} {text}"),))
    return Pair(id=f"p{number}", prompt=prompt, response_a="yes", response_b="no", preferred=preferred)


def reply(text: str, status: str = "ok") -> Response:
    return Response.model_validate(
        {
            "id": "r",
            "prompt": pair(0).prompt,
            "text": text,
            "model": "m",
            "sample": 0,
            "status": status,
            "call": "c",
        }
    )


NAMES = ("one", "two", "three")
CHOSEN = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["a", "b"])), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=50)
@given(CHOSEN, st.floats(0, 0.2))
def test_each_principle_that_is_taken_adds_to_what_the_vote_is_worth(
    said: list[dict[str, Letter]], least: float
) -> None:
    pairs = [pair(n) for n in range(len(said))]
    chosen = {one.id: letters for one, letters in zip(pairs, said, strict=True)}
    taken = chosen_set(NAMES, pairs, chosen, InductionSettings(least_gain=least))
    value = 0.5
    for count in range(1, len(taken) + 1):
        now = worth(pairs, taken[:count], chosen)
        assert now > value + least
        value = now
    alone = max(worth(pairs, [name], chosen) for name in NAMES)
    assert value >= alone - least - 1e-9
    for name in NAMES:
        assert sum(tally(name, pairs, chosen)) == len(pairs)


def test_a_vote_without_a_majority_is_none() -> None:
    assert voted(pair(1), NAMES, {"p1": {"one": "a", "two": "b"}}) is None
    assert voted(pair(1), NAMES, {"p1": {"one": "a", "two": "b", "three": "b", "other": "a"}}) == "b"
    assert voted(pair(1), NAMES, {}) is None
    found = reconstructed("vote", [pair(1), pair(2), pair(3, "b")], {"p1": "a", "p3": "a"})
    assert (found["right"], found["undecided"], found["n"]) == (1, 1, 3)
    assert found["ci95"][0] < found["share"] < found["ci95"][1]


def test_near_proposals_are_one_candidate_and_the_oftenest_comes_first() -> None:
    line = '{{"principle": "{}"}}'.format
    replies = [
        reply(line("Choose the reply that is brief and plain.")),
        reply(
            line("Choose the reply that gives its sources.")
            + "\n"
            + line("Choose the reply which gives its sources.")
        ),
        reply(line("Choose the rude one."), "refused"),
        reply("nothing to say"),
    ]
    assert candidates_in(replies, 5) == [
        ProposedPrinciple("Choose the reply that gives its sources.", 2),
        ProposedPrinciple("Choose the reply that is brief and plain.", 1),
    ]
    assert len(candidates_in(replies, 1)) == 1


def test_a_split_depends_on_no_other_pair_and_wants_preferences() -> None:
    pairs = [pair(n) for n in range(30)] + [pair(99, "tie"), pair(98, None)]
    whole = split_pairs(pairs, InductionSettings())
    some = split_pairs(pairs[:20], InductionSettings())
    assert len(whole.learn) + len(whole.held_out) == 30
    assert {one.id for one in some.learn} <= {one.id for one in whole.learn}
    with pytest.raises(UserError, match="held out"):
        split_pairs(pairs[:1], InductionSettings())


def test_a_proposal_shows_the_preferred_reply_first() -> None:
    asks = proposing([pair(1, "b"), pair(2, "a")], InductionSettings(shown=1, proposals=5))
    texts = [one.messages[0].content for one in asks]
    assert [text.index("Preferred: no") < text.index("Not preferred: yes") for text in texts[:1]] == [True]
    assert "Preferred: yes" in texts[1]
    assert len(proposing([pair(n) for n in range(9)], InductionSettings(shown=2, proposals=3))) == 3
    assert [
        one.id
        for one in constitution_of(
            [ProposedPrinciple("Be brief.", 1), ProposedPrinciple("Be brief!", 1)]
        ).principles
    ] == [
        "brief",
        "brief-2",
    ]


# The command, on preferences with a planted principle


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replies with sources are preferred. The judge sees sources and no rhymes, and names the first as kinder."""
    monkeypatch.chdir(tmp_path)
    by = Random(0)
    rows = []
    for n in range(16):
        sides = ["source: book", "just so"]
        by.shuffle(sides)
        rows.append(
            {
                "id": f"p{n}",
                "prompt": f"question {n}",
                "response_a": sides[0],
                "response_b": sides[1],
                "preferred": "ab"[sides.index("source: book")],
            }
        )
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    principles = ("gives its sources", "rhymes", "is kinder")
    proposed = "\n".join(json.dumps({"principle": f"Choose the reply that {one}."}) for one in principles)
    rules = [
        ("Find what the preferred", proposed),
        ("is kinder", "Verdict: A"),
        ("rhymes", "Verdict: tie"),
        (r"<<<REPLY_A[^>]*>>>\nsource: book", "Verdict: A"),
        (".", "Verdict: B"),
    ]
    Path("model.jsonl").write_text(
        "".join(json.dumps({"match": one, "text": text}) + "\n" for one, text in rules)
    )
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_planted_principle_is_found_and_priced(preceptor: Preceptor) -> None:
    words = (
        "constitution",
        "induce",
        "pairs.jsonl",
        "--model",
        "scripted/model.jsonl",
        "--out",
        "mine.yaml",
        "--json",
    )
    plan = preceptor(*words, "--plan", "--candidates", 3)
    assert plan.code == 0, plan.err
    assert not Path("mine.yaml").exists()
    ended = preceptor(*words)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["candidates"] == 3
    (only,) = found["principles"]
    assert only == {"id": "gives-its-sources", "right": found["learn"], "wrong": 0, "silent": 0}
    assert [one["executor"] for one in found["executors"]] == ["vote", "each", "joint"]
    assert all(one["share"] == 1.0 and one["n"] == found["held_out"] for one in found["executors"])
    rules = load(Path("mine.yaml"))
    assert [one.text for one in rules.principles] == ["Choose the reply that gives its sources."]
    assert rules.principles[0].examples[0].better == "source: book"
    assert "right, 0 wrong" in Path("mine.yaml").read_text()
    again = preceptor(*words)
    assert (again.code, "already there" in again.err) == (2, True)
    Path("mine.yaml").unlink()
    assert json.loads(preceptor(*words).out)["calls"] == 0


@pytest.mark.usefixtures("place")
def test_where_nothing_is_found_nothing_is_written(preceptor: Preceptor) -> None:
    Path("silent.jsonl").write_text(json.dumps({"match": ".", "text": "Verdict: tie"}) + "\n")
    words = ("constitution", "induce", "pairs.jsonl", "--out", "mine.yaml")
    silent = preceptor(*words, "--model", "scripted/silent.jsonl")
    assert (silent.code, "proposed no principle" in silent.err) == (2, True), silent.err
    blind = preceptor(*words, "--model", "scripted/model.jsonl", "--judge", "scripted/silent.jsonl")
    assert (blind.code, "better than chance" in blind.err) == (2, True), blind.err
    few = preceptor(*words, "--model", "scripted/model.jsonl", "--limit", 1)
    assert (few.code, "wanted some of each" in few.err) == (2, True), few.err
    assert not Path("mine.yaml").exists()
