"""The judge as a reward: groups, grades, masks, and TRL's own GRPOTrainer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.errors import BudgetReached, ProviderStopped, Rejected
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.scripted import Line, ScriptedModel
from preceptor.judge.reward import JudgeReward, RewardSettings
from preceptor.train.embedded import WEIGHTS
from tests.judge.canned import BOTH, first_shown, says

PROMPTS = ["Hello?"] * 3 + ["Why?"] * 2
REPLIES = ["reply 1", "reply 3", "reply 2", "reply 7", "reply 9"]


def by_number(request: Request) -> Line:
    other = request.messages[-1].content.split("<<<REPLY_B")[1].split(">>>\n", 1)[1].split("\n<<<END")[0]
    first, second = (int(text.split()[-1]) for text in (first_shown(request), other))
    return "Verdict: A" if first > second else "Verdict: B"


def reward(tmp_path: Path, script: Callable[[Request], Line], **chosen: Any) -> JudgeReward:
    settings = RewardSettings.model_validate({"ledger": str(tmp_path / "ledger.db"), **chosen})
    return JudgeReward(ScriptedModel(script), BOTH, settings)


def test_completions_are_ranked_among_those_to_the_same_prompt(tmp_path: Path) -> None:
    found = asyncio.run(reward(tmp_path, by_number)(PROMPTS, REPLIES))
    a, b, c, d, e = (value if value is not None else float("nan") for value in found)
    assert b > c > a
    assert e > d
    assert a + b + c == pytest.approx(0, abs=1e-6)


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

    def script(request: Request) -> Line:
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
