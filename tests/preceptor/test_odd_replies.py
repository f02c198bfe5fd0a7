"""The commands before servers that answer oddly: what is right comes out right, and what is not is said."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Preceptor
from tests.jsonl import rows_of
from tests.servers import odd
from tests.servers.llm import serve
from tests.servers.odd import Kind, OddServer

ROWS = 6
At = Callable[[Kind], OddServer]


@pytest.fixture
def at() -> Iterator[At]:
    """A server of a kind; it is stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(kind: Kind) -> OddServer:
            server = running.enter_context(serve(OddServer(kind)))
            assert isinstance(server, OddServer)
            return server

        yield start


def files(rows: int = ROWS, extra: str = "") -> None:
    pairs = [
        {"prompt": f"Say {n}.{extra}", "response_a": f"GOOD day, {n}.", "response_b": f"What, {n}?"}
        for n in range(rows)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": pair["prompt"]}) + "\n" for pair in pairs))
    Path("mine.yaml").write_text(
        "name: mine\nversion: 1.0.0\nprinciples:\n  - {id: good, text: Choose the good reply.}\n"
    )


class Labelled:
    """What `preceptor label` has made of the pairs."""

    def __init__(self, preceptor: Preceptor, server: OddServer, *words: str, out: str = "labels") -> None:
        self.server = server
        self.ended = preceptor(
            *("label", "pairs.jsonl", "-c", "mine.yaml", "--judge", "openai/odd", "--base-url", server.url),
            *("--out", out, *words),
        )
        folder = Path(out)
        text = (folder / "labels.jsonl").read_text() if (folder / "labels.jsonl").exists() else ""
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(row["status"] for row in self.rows)

    @property
    def requests(self) -> int:
        return len(self.server.bodies)


def all_are_right(labelled: Labelled) -> None:
    assert labelled.ended.code == 0, labelled.ended.err
    assert labelled.statuses == {"ok": len(labelled.rows)}
    assert all(row["probability"] == 1 for row in labelled.rows)


@pytest.mark.parametrize(
    "kind",
    [
        odd.minute_limit,
        odd.no_system,
        odd.thinks_apart,
        odd.thinks_aloud,
        odd.thinks_by_half,
        odd.harmony,
        odd.parts,
        odd.absurd_usage,
        odd.more_cached_than_read,
        odd.unreadable_once(),
        odd.few_alternatives,
        odd.epoch_reset,
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_judge_behind_an_odd_server_is_still_heard(preceptor: Preceptor, at: At, kind: Kind) -> None:
    files()
    labelled = Labelled(preceptor, at(kind))
    all_are_right(labelled)
    # what a server shows once is remembered: no more is asked than one of each again
    assert labelled.requests <= 2 * 2 * ROWS


def test_what_was_learned_is_kept_for_the_calls_that_follow(preceptor: Preceptor, at: At) -> None:
    files(20)
    thinking = Labelled(preceptor, at(odd.thinks_apart), "--concurrency", "1")
    assert thinking.requests == 2 * 20 + 1
    assert {row["judgements"][0]["thoughts"] for row in thinking.rows} == {"I see. Verdict: nobody."}
    roles = Labelled(preceptor, at(odd.no_system), "--concurrency", "1", out="others")
    assert roles.requests == 2 * 20 + 1
    few = Labelled(preceptor, at(odd.few_alternatives), "--concurrency", "1", out="few")
    assert [body["top_logprobs"] for body in few.server.bodies] == [20] + [5] * 40
    schema = Labelled(preceptor, at(odd.no_system_in_its_schema), "--concurrency", "1", out="schema")
    all_are_right(schema)
    assert [body["top_logprobs"] for body in schema.server.bodies] == [20, 20] + [5] * 40


def test_half_an_emoji_is_replaced_and_the_run_goes_on(preceptor: Preceptor, at: At) -> None:
    files()
    labelled = Labelled(preceptor, at(odd.half_emoji), "--reasoning")
    all_are_right(labelled)
    assert {row["judgements"][0]["reason"] for row in labelled.rows} == {"Fine � by me."}


@pytest.mark.parametrize("word", ["error", "abort", "pause_turn", "tool_calls"])
def test_a_judge_that_was_broken_off_has_said_nothing(preceptor: Preceptor, at: At, word: str) -> None:
    files()
    labelled = Labelled(preceptor, at(odd.broken_off(word)))
    assert labelled.statuses == {"unparsed": ROWS}
    assert labelled.requests == 2 * 2 * ROWS, "each has a second try"
    assert labelled.ended.code == 4
    assert "no row is usable" in labelled.ended.err


def test_a_reply_that_was_broken_off_is_no_good_one(preceptor: Preceptor, at: At) -> None:
    files()
    server = at(odd.broken_off("error"))
    words = (
        "respond",
        "prompts.jsonl",
        "--model",
        "openai/odd",
        "--base-url",
        server.url,
        "--out",
        "r.jsonl",
    )
    preceptor(*words, "--samples", "1")
    rows = rows_of("r.jsonl")
    assert {(row["status"], row["problem"]) for row in rows} == {
        ("truncated", "the reply was broken off: error")
    }


@pytest.mark.parametrize(
    "kind", [odd.thinks_by_half, odd.harmony, odd.thinks_apart], ids=lambda kind: kind.__name__
)
def test_thoughts_are_kept_and_are_no_part_of_the_reply(preceptor: Preceptor, at: At, kind: Kind) -> None:
    files()
    server = at(kind)
    words = (
        "respond",
        "prompts.jsonl",
        "--model",
        "openai/odd",
        "--base-url",
        server.url,
        "--out",
        "r.jsonl",
    )
    assert preceptor(*words, "--samples", "1").code == 0
    rows = rows_of("r.jsonl")
    assert {row["text"] for row in rows} == {"GOOD morning! How can I help?"}
    assert all(row["thoughts"] for row in rows)


def test_what_no_server_counted_is_on_the_bill_as_an_estimate(preceptor: Preceptor, at: At) -> None:
    """And the cap holds."""
    files(12)
    words = ("--price", "100,100", "--concurrency", "1")
    labelled = Labelled(preceptor, at(odd.no_usage), *words)
    all_are_right(labelled)
    bill = json.loads(preceptor("ledger", "bill", "--json").out)
    assert bill["total"]["estimated"] == 24
    spent = bill["total"]["cost_usd"]
    assert spent > 0
    capped = Labelled(preceptor, at(odd.no_usage), *words, "--max-cost", f"{spent / 2}", out="capped")
    assert capped.ended.code == 3
    assert 0 < capped.requests < 24


def test_a_cap_holds_whatever_a_server_claims_to_have_used(preceptor: Preceptor, at: At) -> None:
    files(12)
    words = ("--price", "1,1000", "--concurrency", "1", "--max-cost", "0.5")
    labelled = Labelled(preceptor, at(odd.claims_millions), *words)
    assert labelled.ended.code in (0, 3), labelled.ended.err
    total = json.loads(preceptor("ledger", "bill", "--json").out)["total"]
    assert total["estimated"] == labelled.requests >= 10
    assert 0 < total["cost_usd"] <= 0.5


def test_replies_that_nobody_can_read_are_asked_for_once_more_and_billed(
    preceptor: Preceptor, at: At
) -> None:
    files()
    labelled = Labelled(preceptor, at(odd.unreadable), "--price", "1,1")
    assert labelled.requests == 2 * 2 * ROWS
    assert labelled.statuses == {"failed": ROWS}
    assert labelled.ended.code == 4
    assert "broken body: it has no choices with a message" in labelled.ended.err
    total = json.loads(preceptor("ledger", "bill", "--json").out)["total"]
    assert (total["tokens_in"], total["tokens_out"]) == (100 * 4 * ROWS, 8 * 4 * ROWS)
    assert total["cost_usd"] == pytest.approx(108 * 4 * ROWS / 1e6)


@pytest.mark.parametrize("kind", [odd.nested, odd.endless_number], ids=lambda kind: kind.__name__)
def test_a_monstrous_body_is_one_rows_fault(preceptor: Preceptor, at: At, kind: Kind) -> None:
    files(2)
    labelled = Labelled(preceptor, at(kind))
    assert labelled.statuses == {"failed": 2}
    assert "Traceback" not in labelled.ended.err


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (odd.quota, "quota or credit is used up"),
        (odd.error_inside(402, "Insufficient credits"), "Insufficient credits"),
        (odd.error_inside(401, "No such key"), "key was not accepted"),
    ],
)
def test_what_no_waiting_helps_stops_at_once(preceptor: Preceptor, at: At, kind: Kind, said: str) -> None:
    files(40)
    labelled = Labelled(preceptor, at(kind))
    assert labelled.ended.code == 4
    assert said in labelled.ended.err
    assert labelled.requests <= 16


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (odd.empty, "the reply holds no text; raise --max-tokens"),
        (odd.rejects, "takes no requests on weekdays"),
        (odd.broken_off("abort"), "raise --max-tokens"),
    ],
)
def test_a_fault_of_all_rows_stops_the_run(preceptor: Preceptor, at: At, kind: Kind, said: str) -> None:
    files(400)
    labelled = Labelled(preceptor, at(kind))
    assert labelled.ended.code == 4
    assert "rows all ended alike" in labelled.ended.err
    assert said in labelled.ended.err.replace("nothing more is asked: ", "")
    assert labelled.requests < 500, "of 800, and 1600 tries"


def test_a_fault_of_some_rows_is_theirs(preceptor: Preceptor, at: At) -> None:
    def some(body: dict[str, Any], number: int) -> Any:
        return odd.good_answer(body) if "Say 3" in str(body["messages"]) else odd.rejects(body, number)

    files(60)
    labelled = Labelled(preceptor, at(some))
    assert labelled.ended.code == 0
    assert labelled.statuses["ok"] == 11
    assert labelled.statuses["failed"] == 49


def test_a_prompt_that_the_server_cuts_is_told(preceptor: Preceptor, at: At) -> None:
    files(2, extra=" word" * 4000)
    labelled = Labelled(preceptor, at(odd.cuts_prompts))
    assert labelled.statuses == {"failed": 2}
    assert "cuts long prompts in silence" in labelled.ended.err
    assert labelled.requests == 4
