"""Who may judge for a training's guard, and what each makes of replies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.evaluation.oracles import guard_judge, refuse_labeller
from preceptor.judge.errors import BudgetReached
from preceptor.prompts.pool import prompts_from
from preceptor.prompts.records import Message, Prompt
from preceptor.settings import Asking
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]
ASKED = [
    Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number}?"),)) for number in range(3)
]


def test_a_model_compares_with_the_start_in_both_orders_and_is_asked_once(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = start_server()
    asking = Asking(ledger=str(tmp_path / "ledger.db"), base_url=server.url)
    judge = guard_judge("openai/judge", load("helpful-harmless"), asking)
    better, worse, same = ("quality=9", "quality=1"), ("quality=1", "quality=9"), ("quality=5", "quality=5")
    now, start = zip(better, worse, same, strict=True)
    assert judge.score(ASKED, now, start) == [1.0, 0.0, 0.5]
    assert server.stats()["requests"] == 4, (
        "two pairs in two orders; equal replies are a tie that nobody is asked about"
    )
    assert judge.score(ASKED, now, start) == [1.0, 0.0, 0.5]
    assert server.stats()["requests"] == 4, "the ledger knows"
    assert "start's reply" in judge.meaning


def test_what_is_not_judged_has_no_score(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = start_server(faults=["refusal"] * 8)
    asking = Asking(ledger=str(tmp_path / "ledger.db"), base_url=server.url)
    judge = guard_judge("openai/judge", load("helpful-harmless"), asking)
    assert judge.score(ASKED[:1], ["quality=9"], ["quality=1"]) == [None]


def test_the_cap_holds_over_all_looks_together(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from preceptor.judge.settings import price_from

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = start_server()
    asking = Asking(
        ledger=str(tmp_path / "ledger.db"),
        base_url=server.url,
        prices=dict([price_from("1000,1000")]),
        max_cost_usd=2.0,
        concurrency=1,
    )
    judge = guard_judge("openai/judge", load("helpful-harmless"), asking)

    def looks() -> None:
        for number in range(100):
            judge.score(ASKED[:1], [f"quality=9 {number}"], ["quality=1"])

    with pytest.raises(BudgetReached):
        looks()
    assert server.stats()["requests"] < 200


def test_oracles_go_by_each_reply_alone() -> None:
    prompts = [row for row in prompts_from("front-desk-held-out") if not row.tags][:2]
    fact = prompts[0].messages[0].content.removeprefix("Notes: ")
    world = guard_judge("oracle/embedded", None, Asking(ledger=""))
    assert world.score(prompts[:1], [f"Welcome. {fact}"], [""])[0] in (0.0, 1.0)
    assert world.score(prompts[:1], ["qwertz"], [""]) == [0.0]
    checks = guard_judge("checks", load("front-desk"), Asking(ledger=""))
    assert checks.score(prompts[:1], ["It is 987654321."], [""]) == [0.0]
    assert checks.score(prompts[:1], [fact], [""]) == [1.0]
    assert checks.identity != world.identity


@pytest.mark.parametrize(
    ("name", "constitution", "message"),
    [
        ("oracle/delphi", None, "no guard judge 'oracle/delphi'; wanted oracle/embedded, checks, or a model"),
        ("checks", None, "the guard's judge checks needs a constitution to go by"),
        ("openai/judge", None, "the guard's judge openai/judge needs a constitution to go by"),
        ("checks", "helpful-harmless", "has no machine checks; name a model as the guard's judge"),
    ],
)
def test_a_judge_that_cannot_be_is_told(name: str, constitution: str | None, message: str) -> None:
    law = None if constitution is None else load(constitution)
    with pytest.raises(UserError, match=message):
        guard_judge(name, law, Asking(ledger=""))


def test_who_made_the_labels_does_not_guard(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"judges": ["openai/judge"]}')
    with pytest.raises(UserError, match="openai/judge made the labels of the reward"):
        refuse_labeller("openai/judge", str(tmp_path))
    refuse_labeller("openai/other", str(tmp_path))
    refuse_labeller("openai/judge", "module:function")
