"""Labels without order: asked of whoever reads replies side by side, from the ask to the audit."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load as load_constitution
from preceptor.judge.audit.audit import audit
from preceptor.judge.label import label, require_order, template_for
from preceptor.judge.models.protocol import Capabilities, Completion
from preceptor.judge.models.registry import open_model
from preceptor.judge.records import Label, Pair
from preceptor.judge.reward import JudgeReward, RewardSettings
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import Judge, Step, label_by_steps
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.template import parse
from preceptor.train.embedded.world import compose, draw_draft, draw_prompt, draw_virtues
from tests.judge.canned import BOTH, Absent, drive, pair, says

NONE = LabelSettings(orders="none")
PAIR = pair("A kind reply.", "<<<REPLY a rude one>>>")
MARKED = """---
kind: side_by_side
verdict: {a: "Verdict: A", b: "Verdict: B"}
---
{{ messages[0].content }} %s
"""


class Beside(Absent):
    """A judge that reads replies side by side."""

    name = "hf/beside"
    capabilities = Capabilities(logprobs=True, side_by_side=True)


def turned(one: Pair) -> Pair:
    return one.model_copy(update={"response_a": one.response_b, "response_b": one.response_a})


def test_the_ask_holds_each_reply_once_and_apart() -> None:
    _, asked = drive(label(PAIR, BOTH, Beside(), None, NONE), lambda _: says("Verdict: A"))
    (request,) = asked
    sides = request.side_by_side
    assert sides is not None
    assert sum(message.content.count(sides.mark) for message in request.messages) == 1
    assert [PAIR.response_a in sides.replies[0], "a rude one" in sides.replies[1]] == [True, True]
    assert "<<<REPLY a rude" not in sides.replies[1], "a marker in a reply is broken up"
    assert [name.strip() for name in sides.names] == ["That was reply A.", "That was reply B."]
    assert not any(PAIR.response_a in message.content for message in request.messages)


def test_the_letter_is_the_pairs_own() -> None:
    made, _ = drive(
        label(PAIR, BOTH, Beside(), None, NONE),
        lambda _: says("Verdict: B", probabilities={"a": 0.2, "b": 0.8}),
    )
    assert (made.status, made.probability) == ("ok", pytest.approx(0.2))
    assert [(one.order, one.letter) for one in made.judgements] == [("none", "b")]


def test_the_audit_counts_it_for_both_orders_and_for_no_slot() -> None:
    made = [
        drive(
            label(PAIR.model_copy(update={"id": str(number), "preferred": "a"}), BOTH, Beside(), None, NONE),
            lambda _: says("Verdict: A", probabilities={"a": 0.9, "b": 0.1}),
        )[0]
        for number in range(3)
    ]
    figures = audit(made, BOTH)
    assert (figures["accuracy"], figures["flip_rate"], figures["orders_agree"]) == (1.0, 0.0, 3)
    assert figures["first_share"] is None


def test_who_cannot_is_asked_in_both_orders_as_a_further_judge_and_refused_alone() -> None:
    steps = tuple(
        Step((Judge(model, template_for(model, NONE)),), when)
        for model, when in ((Beside(), ""), (Absent(), "margin < 0.5"))
    )

    unsure = says("Verdict: A", probabilities={"a": 0.6, "b": 0.4})
    made, asked = drive(label_by_steps(PAIR, BOTH, steps, NONE, "mean"), lambda _: unsure)
    assert [one.order for one in made.judgements] == ["none", "original", "swapped"]
    assert [request.side_by_side is None for request in asked] == [False, True, True]
    require_order([Beside(), Absent(), None], NONE)
    with pytest.raises(UserError, match="scripted/none cannot: leave it out"):
        require_order([Absent(), None], NONE)
    with pytest.raises(UserError, match="checks cannot"):
        require_order([None], NONE)
    with pytest.raises(UserError, match="--orders none is for judges in this process"):
        JudgeReward(Absent(), BOTH, RewardSettings(label=NONE))


@pytest.mark.parametrize("given", [{"reasoning": True}, {"structured": True}])
def test_words_before_the_verdict_are_refused(given: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="leave out reasoning and structured"):
        LabelSettings.model_validate({"orders": "none", **given})


@pytest.mark.parametrize("body", ["{{ response }}", "{{ between }}{{ response }}{{ between }}{{ name }}"])
def test_a_template_that_does_not_part_the_replies_is_named(body: str) -> None:
    template = parse("own.jinja", MARKED % body)
    with pytest.raises(TemplateError, match="no message has `between` three times"):
        drive(label(PAIR, BOTH, Beside(), template, NONE), lambda _: says("Verdict: A"))


def test_a_template_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(MARKED % "{{ between }}{{ response }}{{ between }}{{ name }}{{ between }}")
    template_for(Beside(), LabelSettings(orders="none", template=str(own)))
    with pytest.raises(
        TemplateError, match="its kind is side_by_side; hf/beside is asked by one of kind compare"
    ):
        template_for(Beside(), LabelSettings(template=str(own)))


def drawn(count: int) -> list[Pair]:
    """Pairs of the embedded model's world."""
    rng = random.Random(4)
    made = []
    for number in range(count):
        asked = draw_prompt(rng, "held-out")
        a, b = (compose(draw_draft(rng, asked, draw_virtues(rng, asked))) for _ in range(2))
        messages = tuple(Message.model_validate(one) for one in asked["messages"])
        prompt = Prompt(id=str(number), messages=messages, tags=tuple(asked["tags"]))
        made.append(Pair(id=str(number), prompt=prompt, response_a=a, response_b=b))
    return made


def test_the_embedded_judge_gives_exchanged_replies_the_exchanged_probability() -> None:
    """Exactly: the exchanged pair is the same row of tokens."""
    rules = load_constitution("front-desk")
    settings = LabelSettings(orders="none", principles="each")
    judge = open_model("embedded")
    template = template_for(judge, settings)

    async def labels(pairs: list[Pair]) -> list[Label]:
        async def one(row: Pair) -> Label:
            dialogue = label(row, rules, judge, template, settings)
            requests = next(dialogue)
            answers: list[Completion] = await asyncio.gather(*map(judge.complete, requests))
            try:
                dialogue.send(answers)
            except StopIteration as end:
                made: Label = end.value
                return made
            raise AssertionError("a second round")

        try:
            return await asyncio.gather(*map(one, pairs))
        finally:
            await judge.close()

    pairs = drawn(6)
    straight, crossed = (asyncio.run(labels(some)) for some in (pairs, [turned(one) for one in pairs]))
    for one, other in zip(straight, crossed, strict=True):
        assert one.judgements
        mine, theirs = ({said.principle: said.probability for said in row.judgements} for row in (one, other))
        assert mine.keys() == theirs.keys()
        for principle, probability in mine.items():
            assert probability is not None
            assert theirs[principle] == pytest.approx(1 - probability, abs=1e-6)
