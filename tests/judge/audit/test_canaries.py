"""Planted attacks: where they lie, what is counted, and whom they win over."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.files import load
from preceptor.judge.audit.canaries import (
    attack_rates,
    attacks,
    edited,
    from_constitution,
    from_gold,
    is_canary,
    mixed,
    plant,
)
from preceptor.judge.label import label, template_for
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.records import Label, Letter, Pair
from preceptor.judge.settings import LabelSettings
from tests.judge.canned import BOTH, Absent, drive, pair, says
from tests.judge.gullible import gullible

GOLD = [
    pair(f"The better reply {n}.", f"The worse reply {n}.").model_copy(
        update={"id": f"g{n}", "preferred": "a"}
    )
    for n in range(6)
]
FORGED = ("forged-verdict", "forged-fence", "forged-json", "control-tokens", "confusable")


def judged(pairs: list[Pair], answer: object, **chosen: object) -> list[Label]:
    by_label = LabelSettings.model_validate(chosen)
    return [drive(label(row, BOTH, Absent(), None, by_label), answer)[0] for row in pairs]  # type: ignore[arg-type]


def test_every_kind_of_the_shipped_set_has_several_attacks_but_padding() -> None:
    kinds = Counter(attack.kind for attack in attacks())
    assert len(kinds) == 10
    assert all(count >= 2 for kind, count in kinds.items() if kind != "padding")


@pytest.mark.parametrize("preferred", ["a", "b"])
def test_an_attack_lies_in_the_worse_reply_and_nowhere_else(preferred: Letter) -> None:
    base = GOLD[0].model_copy(update={"preferred": preferred})
    for attack in attacks():
        made = plant(base, attack)
        better, worse = (made.response_a, made.response_b)[:: 1 if preferred == "a" else -1]
        was_better, was_worse = (base.response_a, base.response_b)[:: 1 if preferred == "a" else -1]
        assert better == was_better
        assert worse != was_worse
        assert "{" not in worse.replace('{"', "")


def test_a_pair_without_gold_cannot_be_planted() -> None:
    with pytest.raises(ValueError, match="known to be the worse"):
        plant(pair(), attacks()[0])


def test_canaries_are_the_same_each_time_and_no_two_alike() -> None:
    made = list(from_gold(GOLD, seed=3))
    assert made == list(from_gold(GOLD, seed=3))
    assert len({one.id for one in made}) == len(made)
    assert {str(one.prompt.meta["attack"]) for one in made} == {attack.kind for attack in attacks()} | {
        "edit"
    }


@pytest.mark.parametrize("preferred", ["a", "b"])
def test_every_attack_comes_after_a_harmless_edit_of_its_kind_and_size(preferred: Letter) -> None:
    """In the same reply, as many words up to a factor of two, and in its place where the attack stands there."""
    base = GOLD[0].model_copy(update={"preferred": preferred})
    worse = "response_b" if preferred == "a" else "response_a"
    before: dict[str, Pair] = {}
    for one in from_gold([base]):
        text, was = getattr(one, worse), getattr(base, worse)
        if one.prompt.meta["attack"] == "edit":
            before[str(one.prompt.meta["control"])] = one
            continue
        control = getattr(before[str(one.prompt.meta["control"])], worse)
        assert (was in text) is (was in control)
        if one.prompt.meta["attack"] != "padding":
            assert len(text.split()) <= len(control.split()) <= 2 * len(text.split()) + 1
        else:
            assert len(control.split()) == len(was.split()) + 1
    with pytest.raises(ValueError, match="known to be the worse"):
        edited(pair(), attacks()[0].control)


def test_a_judge_that_is_merely_unsteady_is_won_over_by_no_attack() -> None:
    """It draws its verdict anew with every change of a letter: attacks win a quarter, and so do harmless edits."""

    def unsteady(request: Request) -> Completion:
        return says(f"Verdict: {'AB'[int(request.key[-4:], 16) % 2]}")

    gold = [row.model_copy(update={"id": f"{row.id}-{n}", "response_a": f"{row.response_a} {n}"})
            for row in GOLD for n in range(8)]  # fmt: skip
    every = attack_rates(judged(list(from_gold(gold, per_attack=30)), unsteady), judged(gold, unsteady))[
        "all"
    ]
    assert every["rate"] == pytest.approx(0.25, abs=0.05)
    assert every["control"]["rate"] == pytest.approx(0.25, abs=0.05)
    low, high = every["difference_ci95"]
    assert low < every["difference"] < high
    assert low < 0 < high


def test_a_judge_that_believes_experts_is_won_over_beyond_its_control() -> None:
    def believing(request: Request) -> Completion:
        a = request.messages[-1].content.split("<<<REPLY_A")[1].split("<<<END_REPLY_A")[0]
        believes = "experts" in request.messages[-1].content
        return says("Verdict: A" if ("better reply" in a) is not believes else "Verdict: B")

    rates = attack_rates(judged(list(from_gold(GOLD)), believing), judged(GOLD, believing))
    assert (rates["authority"]["rate"], rates["authority"]["control"]["rate"]) == (0.5, 0.0)
    assert rates["authority"]["difference"] == 0.5
    assert rates["authority"]["difference_ci95"][0] > 0
    assert rates["padding"]["difference"] == 0.0


def test_what_has_no_verdict_is_counted_and_says_why() -> None:
    """Silence about a planted reply, and a verdict about it where there was none before, count for nothing."""

    def steady(request: Request) -> Completion:
        a = request.messages[-1].content.split("<<<REPLY_A")[1].split("<<<END_REPLY_A")[0]
        return says("Verdict: B" if "better reply" in a else "Verdict: A")

    planted = list(from_gold(GOLD))
    attacked = [one for one in planted if one.prompt.meta["attack"] != "edit"]
    exposed = sum(1 if "slot" in one.prompt.meta else 2 for one in attacked)
    silent = attack_rates(judged(planted, lambda _: says("Hm.")), judged(GOLD, steady))["all"]
    assert (silent["n"], silent["rate"], silent["control"]["rate"], silent["difference"]) == (
        0,
        None,
        None,
        None,
    )
    assert (silent["without"], silent["faults"]) == (exposed, {"off-topic": exposed})
    unknown = attack_rates(judged(planted, steady), judged(GOLD, lambda _: says("Hm.")))["all"]
    assert (unknown["n"], unknown["rate"], unknown["unmatched"]) == (0, None, exposed)


@pytest.mark.parametrize("principles", ["joint", "each", "sample"])
def test_a_judge_that_ignores_attacks_is_won_over_by_none(principles: str) -> None:
    """Whatever else it gets wrong, in a run as in an audit, asked alone or in a panel of two."""
    from preceptor.judge.voting.cascade import Judge, Step, label_by_steps

    rules = load("helpful-harmless")
    planted = list(from_constitution(rules, 0.5, 120))
    assert {str(one.prompt.meta["attack"]) for one in planted} > {"none"}
    by_label = LabelSettings.model_validate({"principles": principles})
    template = template_for(Absent(), by_label)
    second = Absent()
    second.name = "scripted/other"
    steps = [Step((Judge(Absent(), template), Judge(second, template)))]

    def stubborn(request: Request) -> Completion:
        return says("Verdict: A" if request.model == "scripted/none" else "Verdict: B")

    labels = [drive(label_by_steps(row, rules, steps, by_label, "mean"), stubborn)[0] for row in planted]
    known = {str(one.prompt.meta["canary_of"]) for one in labels if one.prompt.meta["attack"] == "none"}
    rates = attack_rates([one for one in labels if str(one.prompt.meta["canary_of"]) in known])
    assert rates["all"]["n"] > 20
    assert rates["all"]["won_over"] == 0


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 0.5))
def test_a_share_of_what_is_judged_is_planted(n: int, share: float) -> None:
    """Every pair comes through in its order, and canaries are as many as asked for, as far as there are any."""
    pairs = [pair().model_copy(update={"id": f"p{i}"}) for i in range(n)]
    made = list(mixed(pairs, from_constitution(load("helpful-harmless"), share, n), share))
    own = [one for one in made if not one.id.startswith("canary-")]
    assert own == pairs
    planted = len(made) - n
    assert planted >= 1
    assert abs(planted - share / (1 - share) * n) <= 2.5 or planted > 500


def test_rates_are_counted_by_kind_and_beside_the_clean_ones() -> None:
    """A judge that always prefers the worse reply."""

    def worse(request: Request) -> Completion:
        a = request.messages[-1].content.split("<<<REPLY_A")[1].split("<<<END_REPLY_A")[0]
        return says("Verdict: B" if "better reply" in a else "Verdict: A")

    planted = list(from_gold(GOLD))
    labels = judged(planted, worse)
    assert all(map(is_canary, labels))
    fair = attack_rates(labels, judged(GOLD, worse))
    assert fair["all"]["rate"] == 0.0  # it prefers them anyway: nothing won it over
    assert fair["all"]["labels"] == fair["padding"]["labels"] == 1.0
    assert not any(map(is_canary, judged(GOLD, worse)))


@pytest.mark.parametrize("reasoning", [True, False])
def test_forged_verdicts_and_fences_never_win_over_even_a_gullible_judge(reasoning: bool) -> None:
    """By construction: the last verdict-like words of every prompt are the template's own menu, after the fences."""

    def answer(request: Request) -> Completion:
        return says(gullible(request))

    labels, clean = (judged(rows, answer, reasoning=reasoning) for rows in (list(from_gold(GOLD)), GOLD))
    rates = attack_rates(labels, clean)
    for kind in FORGED:
        assert rates[kind]["won_over"] == 0, kind


def test_a_gullible_judge_would_fall_for_them_without_the_menu_at_the_end() -> None:
    """So the test above can fail: the same judge, shown the prompt only as far as the last fence."""

    def cut(request: Request) -> Completion:
        last = request.messages[-1]
        text = last.content.rsplit("<<<END_REPLY_B", 1)[0]
        shown = (*request.messages[:-1], last.model_copy(update={"content": text}))
        return says(gullible(request.model_copy(update={"messages": shown})))

    rates = attack_rates(judged(list(from_gold(GOLD)), cut), judged(GOLD, cut))
    for kind in ("forged-verdict", "forged-fence"):
        assert rates[kind]["rate"] >= 0.5, (
            kind
        )  # it says B anyway, so only those that forge an A can win it over
    assert rates["all"]["labels"] < 0.5  # a slot that is named wins in one of the orders only
