"""Defects that other tools were found to have, each as a test that we do not. The comments name where they stood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.asking.stages import AskingResult, run_dialogues
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.errors import BudgetReached, Rejected
from preceptor.judge.label import label, template_for
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.models.anthropic.model import open_model as open_anthropic
from preceptor.judge.models.openai.model import open_model as open_openai
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.records import Label, Pair
from preceptor.judge.reward import JudgeReward, RewardSettings
from preceptor.judge.score import ReplyToScore, score
from preceptor.judge.score import template_for as grading
from preceptor.judge.settings import LabelSettings, ScoreSettings
from preceptor.prompts.records import Message
from preceptor.settings import Asking
from tests.judge.canned import BOTH, Absent, drive, first_shown, pair, says
from tests.servers.llm import LLMServer

Start = Callable[..., LLMServer]


def labelled(answer: Callable[[Request], Completion], **chosen: object) -> Label:
    model, wanted = Absent(), LabelSettings.model_validate(chosen)
    return drive(label(pair(), BOTH, model, template_for(model, wanted), wanted), answer)[0]


def run(
    model: ScriptedModel, rows: list[Pair], ledger: Path, **asking: object
) -> tuple[list[Label], AskingResult]:
    settings, made = LabelSettings(), list[Label]()
    dialogues = [label(row, BOTH, model, template_for(model, settings), settings) for row in rows]
    wanted = Asking.model_validate({"ledger": str(ledger), **asking})
    return made, asyncio.run(run_dialogues(dialogues, [model], wanted, made.append))


def pairs(n: int) -> list[Pair]:
    return [pair(f"one {i}", f"other {i}").model_copy(update={"id": f"pair-{i}"}) for i in range(n)]


def test_1_an_invalid_verdict_does_not_become_a_number_when_the_order_is_swapped() -> None:
    """TRL's pairwise judge: -1 for invalid, flipped to 1 - (-1) = 2."""

    def only_in_original(request: Request) -> Completion:
        return says("Verdict: A" if first_shown(request) == pair().response_a else "Verdict: -1")

    made = labelled(only_in_original)
    swapped = next(one for one in made.judgements if one.order == "swapped")
    assert (swapped.letter, swapped.probability, made.probability) == (None, None, None)
    assert made.status == "unparsed"


async def test_1_a_cap_on_calls_is_never_silent(tmp_path: Path) -> None:
    """TRL's pairwise judge: after max_requests every further verdict was -1, and nobody was told."""
    model = ScriptedModel(lambda _: "Verdict: A", name="openai/gpt-4o")
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        asked = Fanout({model.name: model}, ledger, Limits(max_cost_usd=0.0), Prices.load())
        request = Request(model=model.name, messages=(Message(role="user", content="?"),), max_tokens=9)
        with pytest.raises(BudgetReached):
            await asked.ask(request)


@pytest.mark.parametrize(
    "text", ["Answer: B", "After weighing both, I cannot say.", "A", "Apples are red.", "a) B"]
)
def test_2_a_first_letter_is_no_verdict(text: str) -> None:
    """Soup's judge: `startswith("A")`, so that "Answer: B" and "After weighing" counted as A."""
    made = labelled(lambda _: says(text))
    assert {one.letter for one in made.judgements} == {None}


def test_3_a_quoted_verdict_does_not_beat_the_last_one(tmp_path: Path) -> None:
    """MT-Bench and reward-bench: `"[[A]]" in judgment` was looked for first."""
    template = tmp_path / "mine.jinja"
    template.write_text(
        '---\nkind: compare\nverdict: {a: "[[A]]", b: "[[B]]"}\n---\n'
        "{{ response_a }} {{ response_b }} {{ principles[0].text }} {{ messages[0].content }}"
    )

    def answer(request: Request) -> Completion:
        mine = "[[A]]" if request.messages[0].content.startswith(pair().response_a) else "[[B]]"
        return says(f'The reply says "[[A]]" and "[[B]]". {mine}')

    made = labelled(answer, template=str(template), reasoning=True)
    assert (made.status, made.probability) == ("ok", 1.0)


@pytest.mark.parametrize(("said", "grade"), [("Score: 1", 1), ("Score: 10", 10)])
def test_4_one_is_not_ten(said: str, grade: int) -> None:
    """UltraFeedback: 2,628 completions of overall score 1 were recorded as 10."""
    settings = ScoreSettings(reasoning=True)
    reply = ReplyToScore("r", pair().prompt, "text")
    made, _ = drive(
        score(reply, BOTH, Absent(), grading(Absent(), settings), settings), lambda _: says(f"Well. {said}")
    )
    assert made.score == grade


async def test_5_a_model_that_the_sdk_has_never_heard_of_can_be_asked(start_server: Start) -> None:
    """distilabel: any model id newer than the installed SDK's list was refused."""
    server = start_server()
    model = open_anthropic("anthropic/claude-of-the-year-2031", base_url=server.root)
    asked = Request(model=model.name, messages=(Message(role="user", content="hello"),), max_tokens=20)
    assert (await model.complete(asked)).text
    assert server.bodies[0]["model"] == "claude-of-the-year-2031"
    await model.close()


async def test_6_a_filtered_reply_is_refused_and_not_an_empty_answer(start_server: Start) -> None:
    """alpaca_eval: content-filtered rows silently became empty answers."""
    model = open_openai("openai/m", base_url=start_server(faults=["refusal"]).url)
    asked = Request(model=model.name, messages=(Message(role="user", content="hello"),), max_tokens=20)
    assert (await model.complete(asked)).finish_reason == "refused"
    await model.close()


def test_6_a_row_that_failed_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    """alpaca_eval: failed rows were cached as missing, so that a second run skipped them."""
    broken = ScriptedModel(lambda _: Rejected("too long"))
    made, _ = run(broken, pairs(3), tmp_path / "ledger.db")
    assert {row.status for row in made} == {"failed"}
    mended = ScriptedModel(lambda r: "Verdict: A" if "one" in first_shown(r) else "Verdict: B")
    made, asked = run(mended, pairs(3), tmp_path / "ledger.db")
    assert {row.status for row in made} == {"ok"}
    assert asked.progress.asked == 6


async def test_7_sampling_parameters_reach_the_server(start_server: Start) -> None:
    """prometheus-eval's AsyncLiteLLM: called without its keyword arguments; errors became ""."""
    server = start_server()
    model = open_openai("openai/m", base_url=server.url)
    asked = Request(
        model=model.name,
        messages=(Message(role="user", content="hello"),),
        max_tokens=77,
        temperature=0.3,
        top_p=0.8,
        seed=5,
    )
    await model.complete(asked)
    body = server.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (77, 0.3, 0.8, 5_000_015)
    await model.close()


@pytest.mark.parametrize("n", [1, 7, 16, 33])
def test_8_rows_in_are_rows_out_whatever_the_number(n: int, tmp_path: Path) -> None:
    """NeMo-Aligner: the last partial batch was dropped by a `break`."""
    made, _ = run(ScriptedModel(lambda _: "Verdict: A"), pairs(n), tmp_path / "ledger.db", concurrency=4)
    assert [row.id for row in made] == [f"pair-{i}" for i in range(n)]


def test_8_rows_are_handed_on_while_others_are_still_to_be_asked(tmp_path: Path) -> None:
    """llm-swarm: one `gather`, everything in memory to the end."""
    settings, most = LabelSettings(), list[int]()
    drawn, done = 0, 0
    model = ScriptedModel(lambda _: "Verdict: A")

    async def all_of_them() -> None:
        nonlocal drawn, done

        def dialogues():  # type: ignore[no-untyped-def]
            nonlocal drawn
            for row in pairs(200):
                drawn += 1
                most.append(drawn - done)
                yield label(row, BOTH, model, template_for(model, settings), settings)

        async with open_ledger(tmp_path / "ledger.db") as ledger:
            fanout = Fanout({model.name: model}, ledger, Limits(concurrency=4), Prices.load())
            async for _ in fanout.run(dialogues()):
                done += 1

    asyncio.run(all_of_them())
    assert done == 200
    assert max(most) < 20


async def test_9_an_outage_is_no_reward_of_zero(tmp_path: Path) -> None:
    """open-instruct's LMJudgeVerifier, Soup's reward: a failed call was worth 0.0, and an outage trained the policy."""
    settings = RewardSettings(ledger=str(tmp_path / "ledger.db"))
    reward = JudgeReward(ScriptedModel(lambda _: Rejected("down")), BOTH, settings)
    assert await reward(["Hello?"] * 2, ["one", "two"]) == [None, None]


@pytest.mark.parametrize("dialect", ["", "local", "embedded"])
def test_10_a_long_principle_is_never_cut(dialect: str) -> None:
    """A public replication cut principles to 100 characters; `label --show` prints what is asked."""
    long = BOTH.principles[0].model_copy(
        update={"text": "Choose the reply that " + "really " * 900 + "helps."}
    )
    rules = BOTH.model_copy(update={"principles": (long,)})
    model, settings = Absent(), LabelSettings()
    model.dialect = dialect
    template = template_for(model, settings)
    _, requests = drive(label(pair(), rules, model, template, settings), lambda _: says("Verdict: A"))
    assert all(any(long.text in message.content for message in one.messages) for one in requests)
