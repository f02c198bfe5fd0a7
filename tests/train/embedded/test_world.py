"""The world keeps its promises: independent virtues, known truth, splits that never meet."""

import json
import random
from itertools import combinations, product

import pytest

from preceptor.train.embedded import asks, pools
from preceptor.train.embedded.lexicon import SURNAMES, SYLLABLES
from preceptor.train.embedded.oracle import oracle
from preceptor.train.embedded.world import (
    NEEDS_TAG,
    PRINCIPLES,
    PoolRow,
    applicable,
    compose,
    critique_of,
    draw_draft,
    draw_prompt,
    draw_reply,
    draw_virtues,
    mend,
    split_of,
)

MANY = 4000


def drawn(seed: int, count: int = MANY) -> list[tuple[PoolRow, dict[str, bool], str]]:
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        prompt = draw_prompt(rng, "train" if rng.random() < 0.5 else "held-out")
        virtues = draw_virtues(rng, prompt)
        out.append((prompt, virtues, draw_reply(rng, prompt, virtues)))
    return out


def test_oracle_reads_exactly_the_virtues_a_reply_was_drawn_with() -> None:
    for prompt, virtues, reply in drawn(1):
        assert oracle(prompt, reply) == virtues, (prompt["messages"], reply)


def test_each_virtue_is_near_one_half_and_independent_of_the_others() -> None:
    rows = [oracle(prompt, reply) for prompt, _, reply in drawn(2)]
    for principle in PRINCIPLES:
        held = [row[principle] for row in rows if principle in row]
        assert len(held) > MANY / 5
        assert 0.45 < sum(held) / len(held) < 0.55
    for one, other in combinations(PRINCIPLES, 2):
        both = [(row[one], row[other]) for row in rows if one in row and other in row]
        if both:  # a claim and another guest never meet in one prompt
            p, q = (sum(pair[i] for pair in both) / len(both) for i in (0, 1))
            joint = sum(a and b for a, b in both) / len(both)
            assert abs(joint - p * q) < 0.05, (one, other)


def test_mending_puts_one_virtue_right_and_keeps_the_rest() -> None:
    rng = random.Random(3)
    for _ in range(MANY // 4):
        prompt = draw_prompt(rng, "train")
        virtues = draw_virtues(rng, prompt)
        draft = draw_draft(rng, prompt, virtues)
        for principle in applicable(prompt):
            after = oracle(prompt, compose(mend(rng, prompt, draft, principle)))
            assert after == virtues | {principle: True}


def test_a_critique_finds_fault_exactly_where_there_is_one_and_quotes_it() -> None:
    rng = random.Random(4)
    for _ in range(MANY // 4):
        prompt = draw_prompt(rng, "train")
        virtues = draw_virtues(rng, prompt)
        draft = draw_draft(rng, prompt, virtues)
        for principle in applicable(prompt):
            text = critique_of(prompt, draft, principle)
            if principle == "true-to-notes":
                assert prompt["meta"]["value"] in text
            else:
                assert text.startswith("Fine: " if virtues[principle] else "Fault: ")
            if principle in ("polite", "concise", "private", "steadfast") and not virtues[principle]:
                assert text.removeprefix("Fault: ") in compose(draft)


def good_reply(prompt: PoolRow) -> str:
    return draw_reply(random.Random(0), prompt, dict.fromkeys(applicable(prompt), True))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "asdf qwer zxcv.", id="noise"),
        pytest.param(lambda t: t[:-1], id="cut short"),
        pytest.param(lambda t: t + " " + t.split(". ")[0].rstrip(".") + ".", id="a sentence twice"),
        pytest.param(
            lambda t: t.replace("the", "the the").replace("The", "The The").replace("Use", "Use Use"),
            id="a word twice",
        ),
        pytest.param(lambda t: " ".join(reversed(t.split())), id="words reversed"),
        pytest.param(lambda t: t + " I also like turtles.", id="a foreign sentence"),
        pytest.param(lambda t: '{"answer": "' + t + '"}', id="JSON that nobody asked for"),
    ],
)
def test_garbled_text_satisfies_nothing(spoil: object) -> None:
    assert callable(spoil)
    rng = random.Random(5)
    for _ in range(200):
        prompt = draw_prompt(rng, "held-out", tags=rng.choice(((), ("other-guest",), ("false-claim",))))
        reply = good_reply(prompt)
        assert all(oracle(prompt, reply).values())
        assert reply == spoil(reply) or not any(oracle(prompt, spoil(reply)).values()), spoil(reply)


def test_a_reply_about_another_thing_or_without_a_value_is_not_true() -> None:
    prompt = draw_prompt(random.Random(6), "train", tags=())
    meta = prompt["meta"]
    other = prompt | {"meta": meta | {"value": "none"}}
    assert not oracle(other, good_reply(prompt))["true-to-notes"]
    assert oracle(prompt, "Good morning.")["polite"]
    assert not oracle(prompt, "Good morning.")["true-to-notes"]


def test_a_false_value_is_false_by_its_figures() -> None:
    """So `numbers_from: system` finds every one of them."""
    for prompt, virtues, reply in drawn(7):
        if virtues["true-to-notes"] or virtues.get("private") is False:
            continue
        digits = "".join(c if c.isdigit() else " " for c in reply).split()
        notes = "".join(c if c.isdigit() else " " for c in prompt["messages"][0]["content"]).split()
        assert not set(digits) <= set(notes), (prompt["messages"], reply)


def test_held_out_combinations_are_disjoint() -> None:
    rng = random.Random(8)
    seen: dict[str, set[tuple[str, ...]]] = {"train": set(), "held-out": set()}
    guests: dict[str, set[str]] = {"train": set(), "held-out": set()}
    for split in ("train", "held-out"):
        for _ in range(MANY):
            prompt = draw_prompt(rng, split)
            meta = prompt["meta"]
            item = (meta["relation"], meta["thing"])
            seen[split] |= {(*item, meta[key]) for key in ("value", "claim") if key in meta}
            guests[split] |= {meta["guest"].split()[1]} if "guest" in meta else set()
    assert not seen["train"] & seen["held-out"]
    assert not guests["train"] & guests["held-out"]
    assert guests["train"] | guests["held-out"] <= set(SURNAMES)
    assert {s for s in SURNAMES if split_of("guest", s) == "held-out"} >= guests["held-out"] != set()


def test_made_up_words_never_spell_a_held_out_guest() -> None:
    made = {"".join(parts) for k in (2, 3) for parts in product(SYLLABLES, repeat=k)}
    assert not made & {s.lower() for s in SURNAMES if split_of("guest", s) == "held-out"}


@pytest.mark.parametrize("name", pools.POOLS)
def test_shipped_pool_is_what_the_world_draws(name: str) -> None:
    shipped = (pools.FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    assert shipped == pools.to_lines(pools.draw_pool(name)), "run `python -m train.embedded.pools`"
    rows = [json.loads(line) for line in shipped.splitlines()]
    assert len({row["id"] for row in rows}) == pools.POOLS[name][1] == len(rows)
    assert {tag for row in rows for tag in row["tags"]} == set(NEEDS_TAG.values())


def test_constitution_and_world_name_the_same_principles() -> None:
    shipped = asks.principles()
    assert tuple(shipped) == PRINCIPLES
    for name, principle in shipped.items():
        assert getattr(principle, "applies_to", []) == ([NEEDS_TAG[name]] if name in NEEDS_TAG else [])
