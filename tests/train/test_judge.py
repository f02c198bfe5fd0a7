"""A judge out of verdicts: what it learns, that it is asked as it was tuned, and that orders stay without effect."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch

from preceptor.judge.compare import JOINT, ComparisonSetup, ask
from preceptor.judge.models.local.model import LocalModel, dialect_of
from preceptor.judge.models.registry import open_model
from preceptor.judge.records import Judgement, Label, Pair
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.template import load
from preceptor.train.data.judged_pairs import (
    JudgedPair,
    collate_judged,
    encode_judged,
    judged_pairs,
    split_by_prompt,
)
from preceptor.train.errors import TrainDataError
from preceptor.train.judge import GOLD, SideJudge, plan_judge, train_judge
from preceptor.train.models.adapters import adapt
from preceptor.train.models.base import load_base
from preceptor.train.settings import JudgeSettings
from tests.judge.canned import BOTH, WITH_CHECK

SMALL = {"model": "embedded", "rank": 4, "batch_size": 8, "epochs": 6, "learning_rate": 5e-3}


def row(number: int, preferred: str | None = "a", a: str = "It is at seven.", b: str = "Go away.") -> Pair:
    prompt = Prompt(id=f"p{number}", messages=(Message(role="user", content=f"When is breakfast {number}?"),))
    return Pair.model_validate(
        {"id": f"r{number}", "prompt": prompt, "response_a": a, "response_b": b, "preferred": preferred}
    )


def verdicts(count: int) -> list[JudgedPair]:
    """Of the longer reply, which stands in either place."""
    sides = ("It is at seven, in the hall.", "No.")
    made = [
        row(number, "ab"[number % 2], *(sides if number % 2 == 0 else sides[::-1])) for number in range(count)
    ]
    return list(judged_pairs(made, BOTH))


def judgement(principle: str, order: str, probability: float | None, call: str | None = "c") -> Judgement:
    return Judgement.model_validate(
        {
            "principle": principle,
            "order": order,
            "letter": None if probability is None else "a" if probability > 0.5 else "b",
            "probability": probability,
            "status": "ok" if probability is not None else "unparsed",
            "reason": "",
            "model": "m",
            "call": call,
        }
    )


def labelled(judgements: list[Judgement], unjudged: tuple[str, ...] = ()) -> Label:
    return Label.model_validate(
        {
            **row(0, None).model_dump(),
            "status": "ok",
            "probability": 0.7,
            "judgements": judgements,
            "unjudged": unjudged,
            "constitution": BOTH.identity,
            "judge": "m",
        }
    )


def test_each_principles_verdict_is_a_row_and_checks_and_silence_are_none() -> None:
    made = labelled(
        [
            judgement("kind", "original", 0.9),
            judgement("kind", "swapped", 0.7),
            judgement("true", "original", 0.2),
            judgement("true", "swapped", None),
            judgement("short", "original", 1.0, call=None),
        ],
        unjudged=("true",),
    )
    (found,) = judged_pairs([made], WITH_CHECK)
    assert (found.principles, found.probability) == (("kind",), pytest.approx(0.8))


def test_what_was_asked_together_is_one_row_and_gold_alone_is_certain() -> None:
    together = labelled([judgement(JOINT, "original", 0.9), judgement(JOINT, "swapped", 0.5)])
    (found,) = judged_pairs([together], BOTH)
    assert (found.principles, found.probability) == (("kind", "true"), pytest.approx(0.7))
    assert [one.probability for one in judged_pairs([row(0, "b"), row(1, "tie"), row(2, None)], BOTH)] == [
        0,
        0.5,
    ]


def test_pairs_about_one_prompt_are_on_one_side() -> None:
    some = [*verdicts(40), *verdicts(40)]
    train, held_out = split_by_prompt(some, 0.3, 0)
    assert len(train) + len(held_out) == 80
    assert train
    assert held_out
    assert not {one.pair.prompt.id for one in train} & {one.pair.prompt.id for one in held_out}


def test_the_ask_of_the_training_is_that_of_the_judge_to_the_token_and_to_the_number() -> None:
    """Log-odds of the untrained module are those of the base as a judge."""
    base = load_base("embedded")
    judge = open_model("embedded")
    assert isinstance(judge, LocalModel)
    template = load("side_by_side", "embedded")
    some = verdicts(3)
    encoded = encode_judged(some, BOTH, base, template, judge, 1024)
    module = SideJudge(adapt(base, 2, 4.0, 0)).eval()
    with torch.inference_mode():
        odds = module(collate_judged(encoded.rows, range(3), 0))
    menu = {"a": "Verdict: A", "b": "Verdict: B"}
    setup = ComparisonSetup(judge=judge, template=template, menu=menu, reasoning=False, max_tokens=1, seed=0)

    async def answers() -> list[float]:
        try:
            asks = [ask(one.pair, BOTH.principles, "none", setup) for one in some]
            found = await asyncio.gather(*map(judge.complete, asks))
            return [(one.probabilities or {})["a"] for one in found]
        finally:
            await judge.close()

    torch.testing.assert_close(
        odds.sigmoid(), torch.tensor(asyncio.run(answers())), rtol=0, atol=1e-4, check_dtype=False
    )


def test_it_learns_and_judges_as_it_was_tuned(tmp_path: Path) -> None:
    """A habit of the verdicts is learned, whichever reply is a; the folder judges, and says in which words."""
    trained = train_judge(
        verdicts(48), JudgeSettings(**SMALL, held_out=0.25), tmp_path / "judge", constitution=BOTH
    )
    figures = trained.metrics["held_out"]
    assert figures["n"] == trained.rows["held_out"] > 0
    assert figures["accuracy"] == 1.0
    gold = [json.loads(line) for line in (tmp_path / "judge" / GOLD).read_text().splitlines()]
    assert len(gold) == trained.rows["held_out"]
    assert all(len(one["response_" + one["preferred"]]) > len("No.") for one in gold)
    assert dialect_of(str(tmp_path / "judge")) == "embedded"
    assert open_model(f"hf/{tmp_path / 'judge'}").dialect == "embedded"
    again = train_judge(
        verdicts(48), JudgeSettings(**SMALL, held_out=0.25), tmp_path / "judge", constitution=BOTH
    )
    assert again.finished_before


def test_rows_that_are_too_long_or_alike_are_set_aside_and_none_is_an_error(tmp_path: Path) -> None:
    same = list(judged_pairs([row(1, "a", "One.", "One.")], BOTH))
    plan = plan_judge([*verdicts(4), *same], BOTH, JudgeSettings(**SMALL, held_out=0))
    assert plan.rows == 4
    with pytest.raises(TrainDataError, match="1 set aside because both replies are the same"):
        train_judge(same, JudgeSettings(**SMALL), tmp_path / "out", constitution=BOTH)
    with pytest.raises(TrainDataError, match="longer than max_length = 8 tokens"):
        train_judge(
            verdicts(2), JudgeSettings(**SMALL, max_length=8, held_out=0), tmp_path / "out", constitution=BOTH
        )
    assert not (tmp_path / "out").exists()
