"""The judge as a reward: groups, grades, masks, and TRL's own GRPOTrainer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.errors import BudgetReached, ProviderStopped, Rejected
from preceptor.judge.ledger.location import reading
from preceptor.judge.ledger.queries import bill
from preceptor.judge.models.http.faults import Throttled
from preceptor.judge.models.protocol import Completion, OnHeaders, Request
from preceptor.judge.models.scripted import ScriptedModel, ScriptedReply
from preceptor.judge.reward import JudgeReward, RewardSettings
from preceptor.judge.rubric import Criterion, Rubric
from preceptor.judge.settings import Price
from preceptor.train.embedded import WEIGHTS
from tests.judge.canned import BOTH, first_shown, says

PROMPTS = ["Hello?"] * 3 + ["Why?"] * 2
REPLIES = ["reply 1", "reply 3", "reply 2", "reply 7", "reply 9"]


def by_number(request: Request) -> ScriptedReply:
    other = request.messages[-1].content.split("<<<REPLY_B")[1].split(">>>\n", 1)[1].split("\n<<<END")[0]
    first, second = (int(text.split()[-1]) for text in (first_shown(request), other))
    return "Verdict: A" if first > second else "Verdict: B"


def reward(tmp_path: Path, script: Callable[[Request], ScriptedReply], **chosen: Any) -> JudgeReward:
    settings = RewardSettings.model_validate({"ledger": str(tmp_path / "ledger.db"), **chosen})
    return JudgeReward(ScriptedModel(script), BOTH, settings)


def test_completions_are_ranked_among_those_to_the_same_prompt(tmp_path: Path) -> None:
    found = asyncio.run(reward(tmp_path, by_number)(PROMPTS, REPLIES))
    a, b, c, d, e = (value if value is not None else float("nan") for value in found)
    assert b > c > a
    assert e > d
    assert a + b + c == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("mode", "wanted"), [("score", [1, -1, 0, 1, -1]), ("group", None)])
def test_a_rubric_rewards_each_completion_by_its_criteria(
    tmp_path: Path, mode: str, wanted: list[float] | None
) -> None:
    """Grades 10, 1 and 5.5 of one criterion, and a machine check that all meet: alike, it adds nothing to a group."""
    rubric = Rubric(
        name="two",
        criteria=(
            Criterion(name="kind", text="It is kind.", weight=3),
            Criterion(name="short", text="It is short.", check={"max_words": 9}),
        ),
    )
    grades = {"reply 1": 10, "reply 3": 1, "reply 2": 5.5, "reply 7": 10, "reply 9": 1}

    def by_grade(request: Request) -> ScriptedReply:
        text = request.messages[-1].content
        return f"Score: {next(grade for reply, grade in grades.items() if reply in text)}"

    model = ScriptedModel(by_grade)
    settings = RewardSettings.model_validate({"ledger": str(tmp_path / "ledger.db"), "mode": mode})
    found = asyncio.run(JudgeReward(model, rubric, settings)(PROMPTS, REPLIES))
    assert len(model.requests) == 5, "the check asks nobody"
    if wanted is not None:
        assert found == pytest.approx([2 * (3 * (one + 1) / 2 + 1) / 4 - 1 for one in wanted])
        return
    a, b, c, d, e = (value if value is not None else float("nan") for value in found)
    assert (a, b, c) == pytest.approx((3 / 4 * 1.5**0.5, -3 / 4 * 1.5**0.5, 0), abs=1e-6)
    assert (d, e) == pytest.approx((3 / 4, -3 / 4))


def test_messages_and_text_are_the_same(tmp_path: Path) -> None:
    """TRL hands on either; nothing is asked twice for it."""
    model = ScriptedModel(by_number)
    made = JudgeReward(model, BOTH, RewardSettings(ledger=str(tmp_path / "ledger.db")))
    plain = asyncio.run(made(PROMPTS, REPLIES))
    asked = len(model.requests)
    turns = asyncio.run(
        made(
            [[{"role": "user", "content": text}] for text in PROMPTS],
            [[{"role": "assistant", "content": text}] for text in REPLIES],
        )
    )
    assert turns == plain
    assert len(model.requests) == asked


def test_a_failure_is_none_and_never_zero(tmp_path: Path) -> None:
    """One completion cannot be judged: it has no reward, and the others keep theirs."""

    def script(request: Request) -> ScriptedReply:
        return Rejected("too long") if "reply 2" in request.messages[-1].content else by_number(request)

    found = asyncio.run(reward(tmp_path, script, schedule="all")(PROMPTS, REPLIES))
    assert found[2] is None
    assert found[0] is not None
    assert found[1] is not None
    assert found[1] > found[0]


def test_orders_that_disagree_give_no_reward(tmp_path: Path) -> None:
    """A judge that names the slot has said nothing of the two completions: None, which every trainer masks, and not
    0 for both."""
    made = reward(tmp_path, lambda _: "Verdict: A")
    assert asyncio.run(made(["Hello?"] * 2, REPLIES[:2])) == [None, None]


def test_one_completion_alone_has_nobody_to_be_compared_with(tmp_path: Path) -> None:
    assert asyncio.run(reward(tmp_path, by_number)(["Hello?"], ["reply 1"])) == [None]


def test_grades_lie_between_minus_one_and_one(tmp_path: Path) -> None:
    def script(request: Request) -> Completion:
        number = request.messages[-1].content.split("reply ")[1][0]
        return says(f"Score: {number}", probabilities={number: 1.0})

    made = reward(tmp_path, script, mode="score")
    assert asyncio.run(made(PROMPTS, REPLIES)) == pytest.approx([-1, (3 - 1) / 4.5 - 1, -7 / 9, 1 / 3, 7 / 9])
    broken = reward(tmp_path, lambda _: "no", mode="score", score={"seed": 1})
    assert asyncio.run(broken(PROMPTS, REPLIES)) == [None] * 5


def test_an_outage_and_an_empty_purse_end_the_training(tmp_path: Path) -> None:
    """They are raised: a policy that is fed nothing but masks learns nothing and looks as if it trained."""
    with pytest.raises(ProviderStopped):
        asyncio.run(reward(tmp_path, lambda _: ProviderStopped("no key"))(PROMPTS, REPLIES))
    model = ScriptedModel(by_number, name="openai/gpt-4o")
    settings = RewardSettings(ledger=str(tmp_path / "other.db"), max_cost_usd=0.0)
    with pytest.raises(BudgetReached):
        asyncio.run(JudgeReward(model, BOTH, settings)(PROMPTS, REPLIES))


async def test_what_a_step_learns_of_the_provider_holds_in_the_next(tmp_path: Path) -> None:
    """Crowded in the first step, asked one at a time from then on: no step begins with a burst at full width."""
    running = peak = 0
    crowds = iter([True] * 4)

    class Crowding(ScriptedModel):
        async def complete(self, request: Request) -> Completion:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.001)
            running -= 1
            if next(crowds, False):
                raise Throttled("busy")
            return await super().complete(request)

    model = Crowding(by_number)
    made = JudgeReward(model, BOTH, RewardSettings(ledger=str(tmp_path / "ledger.db"), concurrency=4))
    widths = []
    for step in range(3):
        replies = [f"reply {10 * step + number}" for number in range(6)]
        peak = 0
        assert None not in await made(["Hello?"] * 6, replies)
        assert made._fanout is not None
        widths.append(made._fanout._limiters[model.name])
    assert widths[0] is widths[1] is widths[2]
    await made.close()


async def test_the_pace_of_one_step_is_kept_by_the_next(tmp_path: Path) -> None:
    """The headers of the first step allow one request in 20 ms: the second takes its time."""

    class Told(ScriptedModel):
        async def complete_with_headers(self, request: Request, on_headers: OnHeaders) -> Completion:
            left = {"limit-requests": "3000", "remaining-requests": "0", "reset-requests": "60s"}
            on_headers({f"x-ratelimit-{name}": value for name, value in left.items()})
            return await self.complete(request)

    made = JudgeReward(Told(by_number), BOTH, RewardSettings(ledger=str(tmp_path / "ledger.db")))
    clock = asyncio.get_running_loop().time
    await made(["Hello?"] * 2, ["reply 1", "reply 2"])
    began_s = clock()
    await made(["Hello?"] * 2, ["reply 3", "reply 4"])
    assert clock() - began_s >= 0.015, "the first request of this step waits too"
    await made.close()


async def test_calls_that_come_at_once_share_ledger_and_budget(tmp_path: Path) -> None:
    model = ScriptedModel(by_number, name="openai/gpt-4o")
    settings = RewardSettings(ledger=str(tmp_path / "ledger.db"), max_cost_usd=1.0)
    made = JudgeReward(model, BOTH, settings)
    both = await asyncio.gather(made(PROMPTS, REPLIES), made(PROMPTS, REPLIES))
    assert both[0] == both[1]
    asked = len(model.requests)
    assert len({request.key for request in model.requests}) == asked
    assert made.spent_usd > 0
    await made.close()
    assert made.spent_usd == pytest.approx(_cost(tmp_path / "ledger.db"))


def test_the_cap_is_for_all_steps_together_in_whatever_event_loops(tmp_path: Path) -> None:
    """And a call after the end says the same again."""
    model = ScriptedModel(lambda _: says("Verdict: A", tokens_in=1000, tokens_out=100), name="openai/gpt-4o")
    settings = RewardSettings(ledger=str(tmp_path / "ledger.db"), max_cost_usd=0.05)
    made = JudgeReward(model, BOTH, settings)
    steps = 0
    with suppress(BudgetReached):
        while steps < 1000:
            asyncio.run(made(["Hello?"] * 2, [f"reply {2 * steps}", f"reply {2 * steps + 1}"]))
            steps += 1
    assert 1 < steps < 1000
    with pytest.raises(BudgetReached):
        asyncio.run(made(["Why?"] * 2, ["reply 1", "reply 2"]))
    assert made.spent_usd == pytest.approx(_cost(tmp_path / "ledger.db"))
    assert made.spent_usd <= 0.05
    asyncio.run(made.close())


def test_the_user_s_own_prices_are_the_reward_s_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file of prices, and over it what is given with the command."""
    (tmp_path / "prices.yaml").write_text("openai/mine: {input: 10, output: 0}\n")
    monkeypatch.setenv("PRECEPTOR_PRICES", str(tmp_path / "prices.yaml"))
    spent = []
    for number, prices in enumerate(
        [None, {"": Price(input=20, output=0)}, {"openai/mine": Price(input=30, output=0)}]
    ):
        model = ScriptedModel(lambda _: says("Verdict: A", tokens_in=1000, tokens_out=10), name="openai/mine")
        settings = RewardSettings(ledger=str(tmp_path / f"{number}.db"), max_cost_usd=5.0)
        made = JudgeReward(model, BOTH, settings, prices=prices)
        asyncio.run(made(["Hello?"] * 2, ["reply 1", "reply 2"]))
        spent.append(made.spent_usd)
    assert spent == pytest.approx([0.02, 0.02, 0.06])


def _cost(ledger: Path) -> float:
    with reading(str(ledger)) as connection:
        (line,) = bill(connection, ())
    return line.cost_usd


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("failing", [False, True])
def test_trl_trains_with_it(tmp_path: Path, failing: bool) -> None:
    """GRPO on the embedded model, judged by the embedded model; where every judgement fails, no weight moves."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from preceptor.prompts.pool import prompts_from

    settings = RewardSettings(ledger=str(tmp_path / "ledger.db"))
    judge: Any = ScriptedModel(lambda _: Rejected("no")) if failing else "embedded"
    scorer = JudgeReward(judge, BOTH if failing else "front-desk", settings)  # BOTH has no machine checks
    rows = [next(iter(prompts_from("front-desk")))] * 2
    data = Dataset.from_list(
        [
            {"prompt": [turn.model_dump() for turn in row.messages], "tags": list(row.tags), "n": number}
            for number, row in enumerate(rows)
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = GRPOConfig(
        output_dir=str(tmp_path / "grpo"),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=24,
        max_steps=2,
        learning_rate=1e-3,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[scorer],
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(WEIGHTS),
    )
    trainer.train()
    moved = any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert moved is not failing
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
