"""Blind checks: who is given what, what counts, and what the verdicts add up to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.judge.aggregate import majority
from preceptor.judge.records import Judgement, Label, Letter
from preceptor.judge.statistics import wilson
from preceptor.prompts.records import Message, Prompt
from preceptor.serve.pages.blind_check import drawn, letter_of
from preceptor.serve.pages.differences import MOST_WORDS, diff_lines, marked
from preceptor.serve.pages.human_agreement import agreements, with_judge
from preceptor.serve.pages.label_index import LabelIndex, LabelIndexes
from preceptor.serve.pages.opinion_store import LEASE_S, BlindCheck, HumanVerdict, OpinionStore
from tests.judge.virtual_time import TurnedClock


def label(number: int, p: float | None, principle: float = 0.9) -> Label:
    judgements = [
        Judgement(
            principle="short",
            order=order,
            letter="a" if principle > 0.5 else "b",
            probability=principle,
            status="ok",
            reason="",
            model="m",
            call="c",
        )
        for order in ("original", "swapped")
    ]
    return Label(
        id=f"l{number}",
        status="ok" if p is not None else "unparsed",
        probability=p,
        prompt=Prompt(id="p", messages=(Message(role="user", content="Hi"),)),
        response_a="a",
        response_b="b",
        judgements=tuple(judgements),
        constitution="c@1#x",
        judge="m",
    )


ITEMS = [label(number, 0.9) for number in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpinionStore]:
    made = OpinionStore(f"sqlite:///{tmp_path / 'here.db'}", TurnedClock())
    yield made
    made.close()


def opened(store: OpinionStore, people: int = 1, *, owner: str = "", shared: bool = False) -> BlindCheck:
    guide = [{"id": "short", "text": "shorter"}]
    identity = store.open_check(owner, "n", "set", "random", 0, 9, people, guide, shared, "Ada", ITEMS)
    found = store.check(identity, None)
    assert found is not None
    assert (found.size, found.of, found.guide) == (3, 9, guide)
    return found


def clock_of(store: OpinionStore) -> TurnedClock:
    clock = store._clock
    assert isinstance(clock, TurnedClock)
    return clock


def test_an_item_is_one_persons_until_the_lease_ends(store: OpinionStore) -> None:
    check = opened(store)
    assert store.lease(check, "Ada") == 1
    assert store.lease(check, "Ada") == 1
    assert store.lease(check, "Ben") == 2
    assert store.lease(check, "Cleo") == 3
    assert store.lease(check, "Dora") is None
    clock_of(store).now_s += LEASE_S + 1
    assert store.lease(check, "Dora") == 1
    # whoever was late is told, and what came first counts
    assert store.judge(check, 1, "Dora", "a", "") == ""
    assert "others have judged this one" in store.judge(check, 1, "Ada", "b", "")
    assert store.lease(check, "Ada") == 2


def test_everyone_judges_an_item_once_and_as_many_as_are_wanted(store: OpinionStore) -> None:
    check = opened(store, people=2)
    assert [store.lease(check, who) for who in ("Ada", "Ben")] == [1, 1]
    assert store.lease(check, "Cleo") == 2
    assert store.judge(check, 1, "Ada", "a", "") == ""
    assert "already" in store.judge(check, 1, "Ada", "b", "")
    assert store.judge(check, 1, "Ben", None, "no idea") == ""
    # a skip is no verdict: another may have the item
    assert store.lease(check, "Dora", place=1) == 1
    assert [(one.person, one.letter) for one in store.verdicts(check.id)] == [("Ada", "a"), ("Ben", None)]


def test_the_last_verdict_can_be_taken_back_and_stays_on_record(store: OpinionStore) -> None:
    check = opened(store)
    assert store.undo(check, "Ada") is None
    store.judge(check, 1, "Ada", "a", "")
    store.judge(check, 2, "Ada", "b", "")
    assert store.undo(check, "Ada") == 2
    assert [one.place for one in store.verdicts(check.id)] == [1]
    assert store.lease(check, "Ada", place=2) == 2
    assert store.judge(check, 2, "Ada", "tie", "") == ""
    store.close_check(check.id)
    assert store.judge(check, 3, "Ada", "a", "") == "this check is closed"


def test_a_check_is_its_owners_unless_it_is_shared(store: OpinionStore) -> None:
    own, shared = opened(store, owner="k1"), opened(store, owner="k1", shared=True)
    assert {one.id for one in store.checks("k1")} == {own.id, shared.id}
    assert [one.id for one in store.checks("k2")] == [shared.id]
    assert store.check(own.id, "k2") is None
    assert store.check(shared.id, "k2") == shared
    assert store.items(own.id) == ITEMS
    assert store.item(own.id, 4) is None


def test_corrections_are_kept_one_after_the_other(store: OpinionStore) -> None:
    store.correct("set", "l1", "b", "why\0", "Ada")
    store.correct("set", "l1", "tie", "on second thoughts", "Ben")
    store.correct("other", "l1", "a", "x", "Ben")
    assert [(one.letter, one.reason, one.author) for one in store.corrections("set", "l1")] == [
        ("b", "why", "Ada"),
        ("tie", "on second thoughts", "Ben"),
    ]
    assert store.corrections("set", "l2") == []


def test_what_is_shown_first_is_no_letter() -> None:
    assert [letter_of("first", swapped) for swapped in (False, True)] == ["a", "b"]
    assert [letter_of("second", swapped) for swapped in (False, True)] == ["b", "a"]
    assert letter_of("tie", True) == "tie"


def test_a_sample_is_drawn_by_its_rule(tmp_path: Path) -> None:
    rows = [label(number, p) for number, p in enumerate([0.9, 0.55, None, 0.1, 0.48, 0.8])]
    rows.append(rows[0].model_copy(update={"id": "same", "response_b": "a"}))
    (tmp_path / "labels.jsonl").write_text("".join(f"{row.line()}\n" for row in rows))
    indexes = LabelIndexes(tmp_path / "indexes")
    index = indexes.of(tmp_path / "labels.jsonl", None, wait_s=600)
    assert isinstance(index, LabelIndex)
    items, of = drawn(index, "least sure", 2, 0)
    assert ({one.id for one in items}, of) == ({"l1", "l4"}, 6)
    items, of = drawn(index, "random", 99, 5)
    assert ({one.id for one in items}, of) == ({"l0", "l1", "l3", "l4", "l5"}, 6)
    assert drawn(index, "random", 3, 5) == drawn(index, "random", 3, 5)
    assert len({tuple(one.id for one in drawn(index, "random", 3, seed)[0]) for seed in range(9)}) > 1
    indexes.close()


def verdicts(person: str, letters: str) -> list[HumanVerdict]:
    """One letter a place: a, b, t for a tie, s for a skip, - for none."""
    known: dict[str, Letter | None] = {"a": "a", "b": "b", "t": "tie", "s": None}
    return [
        HumanVerdict(place, "c", place, person, known[letter], "", 0.0, None)
        for place, letter in enumerate(letters, start=1)
        if letter != "-"
    ]


def test_the_figures_of_a_check_by_hand() -> None:
    items = [label(0, 0.9), label(1, 0.1, 0.1), label(2, 0.9), label(3, None), label(4, 0.8, 0.2)]
    said = [*verdicts("Ada", "abbas"), *verdicts("Ben", "aaba-"), *verdicts("Cleo", "abt-b")]
    found = agreements(items, said)
    people = {one.name: one for one in found.people}
    assert people["Ada"].agree == wilson(
        2, 3
    )  # on the fourth the judge has no verdict, on the fifth she has none
    assert people["Ada"].without == 1
    assert people["Ben"].agree == wilson(1, 3)
    assert people["Cleo"].agree == wilson(2, 4)
    # the majority is a, b, b, a, b; the judge says a, b, a, nothing, a
    assert found.judge.agree == wilson(2, 4)
    assert found.judge.without == 1
    assert found.against == [3, 5]
    assert found.undecided == 0
    assert {one.name: one.agree for one in found.pairs} == {
        "Ada and Ben": wilson(3, 4),
        "Ada and Cleo": wilson(2, 3),
        "Ben and Cleo": wilson(1, 3),
    }
    [principle] = found.principles
    assert principle.name == "short"
    assert principle.agree == wilson(4, 5)
    assert with_judge(items, said) == found.judge.agree
    assert found.kappa == pytest.approx(0.2)  # 2 of 4 agree, and 0.375 would by chance


def test_agreement_over_time_parts_the_verdicts_by_their_day() -> None:
    items = [label(0, 0.9), label(1, 0.1, 0.1), label(2, 0.9), label(3, None)]
    later = [one._replace(at=86400.0) for one in verdicts("Ben", "babs")]
    found = agreements(items, [*verdicts("Ada", "abba"), *later])
    assert [one.day for one in found.days] == ["1970-01-01", "1970-01-02"]
    assert [one.judge for one in found.days] == [wilson(2, 3), wilson(0, 3)]
    assert [one.principles for one in found.days] == [{"short": wilson(3, 4)}, {"short": wilson(0, 3)}]
    # all days together are all verdicts that people gave
    assert sum(one.judge.n for one in found.days) == sum(one.agree.n for one in found.people)


def test_a_majority_is_more_than_any_other() -> None:
    assert majority([]) is None
    assert majority(["a", "b"]) is None
    assert majority(["a", "b", "tie", "b"]) == "b"


def test_nobody_has_judged() -> None:
    found = agreements(ITEMS, verdicts("Ada", "sss"))
    assert (found.people, found.pairs, found.judge.agree.n, found.kappa) == ([], [], 0, None)


def test_differences_are_marked_and_nothing_is_lost() -> None:
    one, other = "The lift runs at nine o'clock.", "The lift ran at ten o'clock!"
    found = marked(one, other)
    assert found is not None
    assert ["".join(part.text for part in side) for side in found] == [one, other]
    assert [part.text for part in found[0] if part.differs] == ["runs", "nine", "."]
    assert marked("a b c", "x y z u v w") is None
    assert marked("word " * MOST_WORDS, "word") is None
    assert [line.kind for line in diff_lines("a\nb\n", "a\nc\n")] == ["", "", "out", "in"]
