"""Verdicts that follow the form of an ask are counted; those that follow the replies are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.audit.perturb import (
    perturbation,
    perturbed_constitution,
    perturbed_steps,
    require_perturbable,
)
from preceptor.judge.label import template_for
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.records import Label
from preceptor.judge.settings import LabelSettings, Perturbation
from preceptor.judge.voting.cascade import Judge, Step, label_by_steps
from tests.judge.canned import Absent, drive, first_shown, pair, says

RULES = Constitution(
    name="two", principles=(Principle(id="kind", text="Be kind."), Principle(id="short", text="Be short."))
)
SETTINGS = LabelSettings()
Say = Callable[[Request], str]


def steps() -> tuple[Step, ...]:
    judge = Absent()
    return (Step((Judge(judge, template_for(judge, SETTINGS)),)),)


def words(request: Request, letter: str) -> str:
    return request.menu[letter]


def by_reply(request: Request) -> str:
    return words(request, "a" if "good" in first_shown(request) else "b")


def by_option(request: Request) -> str:
    """Reply a of the pair where `Verdict: A` is listed first, else b."""
    text = request.messages[-1].content
    first = text.index(words(request, "a")) < text.index(words(request, "b"))
    return words(request, "a" if ("good" in first_shown(request)) == first else "b")


def by_principle(request: Request) -> str:
    text = request.messages[0].content
    first = text.index("Be kind.") < text.index("Be short.")
    return words(request, "a" if ("good" in first_shown(request)) == first else "b")


def by_words(request: Request) -> str:
    same = request.menu["a"] == "Verdict: A"
    return words(request, "a" if ("good" in first_shown(request)) == same else "b")


def labelled(kind: Perturbation | None, say: Say, count: int = 6) -> list[Label]:
    own = steps() if kind is None else perturbed_steps(steps(), kind)
    rules = RULES if kind is None else perturbed_constitution(RULES, kind)
    found = []
    for number in range(count):
        row = pair("good", "bad").model_copy(update={"id": str(number), "preferred": "a"})

        def answer(request: Request) -> Completion:
            return says(say(request))

        found.append(drive(label_by_steps(row, rules, own, SETTINGS, "mean"), answer)[0])
    return found


@pytest.mark.parametrize("say", [by_reply, by_option, by_principle, by_words])
@pytest.mark.parametrize("kind", ["options", "principles", "words"])
def test_only_the_judge_that_follows_a_form_flips_with_it(kind: Perturbation, say: Say) -> None:
    found = perturbation(labelled(None, say), labelled(kind, say))
    follows = {"options": by_option, "principles": by_principle, "words": by_words}[kind] is say
    assert (found["n"], found["flip_rate"]) == (6, float(follows))
    assert found["accuracy_change"] == (-1.0 if follows else 0.0)


def test_a_form_without_a_verdict_is_no_flip() -> None:
    found = perturbation(labelled(None, by_reply), labelled("words", lambda _: "I cannot say which"))
    assert (found["n"], found["flip_rate"], found["unparsed"], found["accuracy"]) == (0, None, 6, 0.0)


def test_what_no_ask_would_show_is_refused() -> None:
    alone = Constitution(name="one", principles=RULES.principles[:1])
    with pytest.raises(UserError, match="several"):
        require_perturbable(["principles"], alone, SETTINGS, steps())
    with pytest.raises(UserError, match="joint"):
        require_perturbable(["principles"], RULES, LabelSettings(principles="each"), steps())
    with pytest.raises(UserError, match="nobody but machine checks"):
        require_perturbable(["options"], RULES, SETTINGS, (Step((Judge(None, None),)),))
    require_perturbable(["options", "words"], alone, SETTINGS, steps())
