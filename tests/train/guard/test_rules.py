"""A guard's rules read back as they were written, and what they do follows the sternest one that is broken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.train.guard.rules import NAMES, STERNNESS, GuardRules, Look, best, judged, rules_from

LIMITS = st.integers(0, 40).map(lambda tenths: tenths / 4)


def look(step: int, **fields: object) -> Look:
    values = {
        "gold": 0.5,
        "gold_ci95": (0.45, 0.55),
        "judged": 100,
        "unjudged": 0,
        "proxy": 0.0,
        "kl_nats": 0.0,
    }
    values |= {"kl_coef": 0.1, "reply_tokens": 20.0, "distinct_1": 0.5, "distinct_2": 0.8, "self_bleu": 0.1}
    return Look.model_validate({**values, "refused": 0.0, "perplexity": 10.0, "step": step, **fields})


@settings(deadline=None, max_examples=80)
@given(
    st.dictionaries(
        st.sampled_from(NAMES), st.tuples(st.one_of(st.none(), LIMITS), st.sampled_from(STERNNESS))
    )
)
def test_what_is_named_changes_and_the_rest_stands(changed: dict[str, tuple[float | None, str]]) -> None:
    signs = {name: "<" if name == "distinct-2" else ">" for name in NAMES}
    texts = [
        f"{name}:{action}" if limit is None else f"{name} {signs[name]} {limit}:{action}"
        for name, (limit, action) in changed.items()
    ]
    found = rules_from(texts)
    for name in NAMES:
        rule, standing = (getattr(rules, name.replace("-", "_")) for rules in (found, GuardRules()))
        limit, action = changed.get(name, (None, standing.action))
        assert rule.action == action
        assert rule.limit == (standing.limit if limit is None else limit)


@pytest.mark.parametrize(
    "text", ["kl<8:stop", "distinct-2>0.5:warn", "kl:halt", "reward>1:stop", "kl>:stop", "kl>-1:stop"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no guard rule"):
        rules_from([text])


BROKEN = {
    "gold_drop": {"gold": 0.2, "gold_ci95": (0.15, 0.25)},
    "kl": {"kl_nats": 31.0},
    "distinct_2": {"distinct_2": 0.3},
    "perplexity": {"perplexity": 16.0},
    "length_drift": {"reply_tokens": 9.0},
}


@settings(deadline=None, max_examples=60)
@given(st.sets(st.sampled_from(sorted(BROKEN))))
def test_the_sternest_rule_that_is_broken_decides(names: set[str]) -> None:
    rules = GuardRules()
    fields = {key: value for name in names for key, value in BROKEN[name].items()}
    top = {"gold": 0.6, "gold_ci95": (0.55, 0.65)}
    found = judged([look(0), look(10, **top), look(20, **{**top, **fields})], rules)
    actions = [getattr(rules, name).action for name in names]
    assert found.action == max(actions, key=STERNNESS.index, default="off")
    assert len(found.said) == len(names)
    assert found.return_step == (10 if found.action == "stop" else None)
    assert found.kl_coef == (0.2 if found.action == "raise_kl" else None)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_rule_that_is_off_says_nothing(name: str) -> None:
    rules = rules_from([f"{name.replace('_', '-')}:off"])
    assert judged([look(0), look(10, **BROKEN[name])], rules).said == ()


def test_gold_that_falls_with_the_proxy_or_within_its_interval_is_no_fault() -> None:
    start = look(0, gold=0.6, gold_ci95=(0.5, 0.7), proxy=1.0)
    assert judged([start, look(10, gold=0.3, gold_ci95=(0.2, 0.4), proxy=0.5)], GuardRules()).action == "off"
    assert judged([start, look(10, gold=0.5, gold_ci95=(0.4, 0.6), proxy=2.0)], GuardRules()).action == "off"
    assert judged([start, look(10, gold=0.3, gold_ci95=(0.2, 0.4), proxy=2.0)], GuardRules()).action == "stop"
    assert judged([start, look(10, gold=None, proxy=2.0)], GuardRules()).action == "off"
    assert judged([start], GuardRules()).action == "off"


def test_the_best_look_is_the_earliest_of_equals_and_an_unjudged_one_only_where_none_was() -> None:
    looks = [look(0, gold=None), look(5, gold=0.4), look(10, gold=0.4)]
    assert best(looks).step == 5
    assert best(looks[:1]).step == 0
