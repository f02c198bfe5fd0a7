"""Changes to a constitution are proposed from what people said of labels, and tried on pairs nobody looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.edit import open_document
from preceptor.constitution.files import load, load_text
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.records import Judgement, Label, Letter, Pair, Response
from preceptor.prompts.errors import RowsError
from preceptor.prompts.records import Message, Prompt
from preceptor.workbench.overrides import (
    Change,
    HumanOpinion,
    Trial,
    changed,
    changes_in,
    chosen_changes,
    edited,
    human_choices,
    opinions_in,
    removable,
    worded,
)
from preceptor.workbench.settings import InductionSettings
from tests.command_line import Preceptor

RULES = """\
name: mine
principles:
  # from the first week
  - id: brief
    text: Choose the brief one.
  - {id: calm, text: Choose the calm one., weight: 0.5}
"""
BETTER = "Choose the reply that gives its sources, else the brief one."
P: dict[Letter, float] = {"a": 1.0, "b": 0.0, "tie": 0.5}


def label(number: int, said: dict[str, Letter], equal: bool = False) -> Label:
    prompt = Prompt(id=f"q{number}", messages=(Message(role="user", content=f"question {number}"),))
    judgements = tuple(
        Judgement(
            principle=name,
            order=order,
            letter=letter,
            probability=P[letter],
            status="ok",
            reason="",
            model="m",
            call=f"{name}{order}",
            sampled=True,
        )
        for name, letter in said.items()
        for order in ("original", "swapped")
    )
    return Label(
        id=f"p{number}",
        status="ok",
        probability=1.0,
        prompt=prompt,
        response_a="yes",
        response_b="yes" if equal else "no",
        judgements=judgements,
        constitution="mine",
        judge="m",
    )


def pair(number: int, preferred: Letter = "a") -> Pair:
    one = label(number, {})
    return Pair(id=one.id, prompt=one.prompt, response_a="yes", response_b="no", preferred=preferred)


def rules(*names: str) -> Constitution:
    return Constitution(
        name="mine", principles=tuple(Principle(id=one, text=f"Choose {one}.") for one in names)
    )


LETTERS = st.sampled_from(["a", "b", "tie"])
SAID = st.lists(
    st.fixed_dictionaries(dict.fromkeys(("one", "two", "change-0", "change-1"), LETTERS)),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=40)
@given(SAID, st.floats(0, 0.2))
def test_each_change_that_is_taken_adds_to_the_agreement_with_people(
    said: list[dict[str, Letter]], least: float
) -> None:
    mine = rules("one", "two")
    changes = [
        Change("reword", "one", "Choose otherwise.", 1),
        Change("add", "three", "Choose three.", 2),
        Change("remove", "one", "", 0),
        Change("remove", "two", "", 0),
    ]
    pairs = [pair(n) for n in range(len(said))]
    before = [label(n, {k: row[k] for k in ("one", "two")}) for n, row in enumerate(said)]
    by_change = [label(n, {k: row[k] for k in ("change-0", "change-1")}) for n, row in enumerate(said)]
    trial = Trial(mine, changes, before, by_change)
    taken, found = chosen_changes(trial, changes, pairs, mine, InductionSettings(least_gain=least))
    assert len({one.id for one in taken}) == len(taken)
    assert changed(mine, taken).principles
    value = trial.worth(pairs, ())
    for count, row in enumerate(found, start=1):
        now = trial.worth(pairs, taken[:count])
        assert (row["agreement_before"], row["agreement_after"]) == (value, now)
        assert now > value + least
        right, wrong = trial.moved(pairs, taken[: count - 1], taken[:count])
        assert not set(right) & set(wrong)
        value = now
    for row, one in zip(said, pairs, strict=True):  # a principle alone is judged by what was said of it
        kept = trial.said(one.id, [changes[2]])
        assert kept == (None if row["two"] == "tie" else row["two"])


def test_what_most_people_say_counts_and_of_one_person_the_last_word() -> None:
    labels = [label(n, {}, equal=n == 5) for n in range(6)]
    said: Sequence[tuple[str, Letter | None, str]] = [
        ("p0", "a", "ann"),
        ("p0", "b", "ann"),
        ("p1", "a", "ann"),
        ("p1", "b", "bo"),
        ("p2", "tie", "ann"),
        ("p3", None, "ann"),
        ("p4", "a", ""),
        ("p4", "a", ""),
        ("p5", "a", "ann"),
        ("gone", "a", "ann"),
    ]
    found = human_choices([HumanOpinion(one, letter, "why", who) for one, letter, who in said], labels)
    assert [(one.label.id, one.letter, one.reasons) for one in found.made] == [
        ("p0", "b", ("why",)),
        ("p4", "a", ("why", "why")),
    ]
    assert (found.ties, found.disagreed, found.unknown) == (2, 1, 1)


def test_three_kinds_of_files_are_read_and_others_refused(tmp_path: Path) -> None:
    (tmp_path / "corrections.jsonl").write_text(
        '{"id": "p1", "correction": "b", "reason": "rude", "author": "x"}\n'
    )
    (tmp_path / "check.csv").write_text("place,id,person,verdict,reason\n1,p1,x,skipped,\n2,p2,x,a,so\n")
    (tmp_path / "gold.jsonl").write_text('{"id": "p1", "preferred": "tie", "response_a": "x"}\n')
    assert opinions_in(tmp_path / "corrections.jsonl") == [HumanOpinion("p1", "b", "rude", "x")]
    assert [one.letter for one in opinions_in(tmp_path / "check.csv")] == [None, "a"]
    assert [one.letter for one in opinions_in(tmp_path / "gold.jsonl")] == ["tie"]
    for row in ('{"id": "p1"}', '{"id": "p1", "correction": "c"}', '{"correction": "a"}'):
        (tmp_path / "bad.jsonl").write_text(row + "\n")
        with pytest.raises(RowsError):
            opinions_in(tmp_path / "bad.jsonl")


def test_what_cannot_be_a_change_is_left_out_and_counted() -> None:
    mine = Constitution(
        name="mine",
        principles=(
            Principle(id="one", text="Choose one."),
            Principle(id="short", text="Choose.", check={"max_words": 3}),
        ),
    )
    lines = [
        {"change": "reword", "id": "one", "principle": "Choose the reply that says who wrote it."},
        {"change": "reword", "id": "one", "principle": "Choose the reply which says who wrote it."},
        {"change": "reword", "id": "one", "principle": "Choose one."},
        {"change": "reword", "id": "short", "principle": "Choose the shortest."},
        {"change": "reword", "id": "gone", "principle": "Choose."},
        {"change": "add", "principle": "Choose one."},
        {"change": "remove", "id": "short"},
    ]
    text = "\n".join(map(json.dumps, lines))
    reply = {"id": "r", "prompt": pair(0).prompt, "text": text, "model": "m", "sample": 0, "call": "c"}
    replies = [Response.model_validate(reply | {"status": status}) for status in ("ok", "refused")]
    found = changes_in(replies, mine, 9)
    assert found.changes[:2] == (
        Change("reword", "one", "Choose the reply that says who wrote it.", 2),
        Change("add", "one-2", "Choose one.", 1),
    )
    assert found.changes[2:] == (Change("remove", "short", "", 1), Change("remove", "one", "", 0))
    assert sum(found.set_aside.values()) == 4
    asked = worded(found.changes, mine)
    assert asked is not None
    assert [one.id for one in asked.principles] == ["change-0", "change-1"]


def test_the_file_says_what_the_changed_constitution_says(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "name: base\nprinciples:\n  - {id: kind, text: Choose the kind one.}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        RULES.replace("principles", "extends: [base.yaml]\nprinciples")
        + "  - {id: top, text: Choose., over: [brief]}\n"
    )
    document = open_document(tmp_path / "mine.yaml")
    offered = [Change("remove", name, "", 0) for name in ("kind", "brief", "calm")]
    assert [one.id for one in removable(offered, document)] == [
        "calm"
    ]  # kind is another file's, brief is outranked
    changes = [
        Change("reword", "kind", "Choose the kinder one.", 1),
        Change("reword", "brief", BETTER, 1),
        Change("add", "new", "Choose the new one.", 1),
        Change("remove", "calm", "", 0),
    ]
    rows = [{"change": one.kind, "id": one.id, "text": one.text} for one in changes]
    made = edited(document, rows)  # type: ignore[arg-type]  # what it does not read is left out
    assert (
        load_text(made.text, document.path).principles == changed(document.constitution, changes).principles
    )
    assert "# from the first week" in made.text


# The command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preceptor: Preceptor) -> Path:
    """The judge takes the brief reply; people take the one with sources, and else the brief one, too."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RULES)
    rows, said = [], []
    for n in range(20):
        right, wrong = ("source: book", "just so") if n % 2 else ("just so", "a long and winding reply")
        sides = (right, wrong) if n % 3 else (wrong, right)
        rows.append(
            {"id": f"p{n}", "prompt": f"question {n}", "response_a": sides[0], "response_b": sides[1]}
        )
        said.append(
            {"id": f"p{n}", "correction": "a" if n % 3 else "b", "reason": "no source", "author": "ann"}
        )
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("said.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in said))
    proposed = [
        {"change": "add", "principle": "Choose the reply that rhymes."},
        {"change": "reword", "id": "brief", "principle": BETTER},
    ]
    answers = [
        ("Propose one to three changes", "\n".join(map(json.dumps, proposed))),
        ("calm|rhymes", "Verdict: tie"),
        (r"(?s)(?=.*else the brief)(?=.*<<<REPLY_A[^>]*>>>\nsource)", "Verdict: A"),
        (r"(?s)(?=.*else the brief)(?=.*<<<REPLY_B[^>]*>>>\nsource)", "Verdict: B"),
        (r"<<<REPLY_A[^>]*>>>\njust so", "Verdict: A"),
        (".", "Verdict: B"),
    ]
    Path("model.jsonl").write_text(
        "".join(json.dumps({"match": one, "text": text}) + "\n" for one, text in answers)
    )
    words = (
        "label",
        "pairs.jsonl",
        "-c",
        "mine.yaml",
        "--judge",
        "scripted/model.jsonl",
        "--principles",
        "each",
    )
    made = preceptor(*words, "--tie", "--out", "labels")
    assert made.code == 0, made.err
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_wording_by_which_the_judge_meets_people_is_proposed_as_a_diff(preceptor: Preceptor) -> None:
    words = (
        "constitution",
        "induce",
        "labels",
        "--from-overrides",
        "said.jsonl",
        "--model",
        "scripted/model.jsonl",
    )
    mine = (*words, "-c", "mine.yaml")
    plan = preceptor(*mine, "--plan", "--json")
    assert plan.code == 0, plan.err
    ended = preceptor(*mine, "--json", "--out", "better.yaml")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    (only,) = found["changes"]
    assert (only["change"], only["id"], only["text"], only["put_wrong"]) == ("reword", "brief", BETTER, [])
    assert set(only["put_right"]) <= {f"p{n}" for n in range(1, 20, 2)}
    assert len(only["put_right"]) == found["overridden"] > 0
    assert found["before"]["share"] < found["after"]["share"] == 1.0
    assert found["before"]["n"] == found["held_out"] == 20 - found["learn"]
    assert found["put_wrong"] == []
    assert f"+    text: {BETTER}" in found["diff"]
    assert Path("mine.yaml").read_text() == RULES
    assert load(Path("better.yaml")).principles[0].text == BETTER
    assert "# from the first week" in Path("better.yaml").read_text()
    again = preceptor(*words)  # of the labels' own constitution, by their own judge, from the ledger
    assert again.code == 0, again.err
    assert f"+    text: {BETTER}" in again.out
    assert "# reword brief: proposed" in again.out
    assert "0 calls asked" in again.err


@pytest.mark.usefixtures("place")
def test_what_gives_nothing_to_learn_from_is_said(preceptor: Preceptor) -> None:
    words = ("constitution", "induce", "labels", "--model", "scripted/model.jsonl")
    lines = Path("said.jsonl").read_text().splitlines(keepends=True)
    Path("same.jsonl").write_text("".join(lines[::2]))
    same = preceptor(*words, "--from-overrides", "same.jsonl")
    assert (same.code, "nothing to learn from" in same.err) == (2, True), same.err
    Path("against.jsonl").write_text("".join(lines[1::2]))
    against = preceptor(*words, "--from-overrides", "against.jsonl")
    assert against.code == 0, against.err
    assert "would put wrong is not known" in against.err
    for more, said in (
        ((), "name a new one with --out"),
        (("--out", "x.yaml", "-c", "mine.yaml"), "leave it out"),
        (("--from-overrides", "pairs.jsonl"), "wanted id, and one of"),
        (("--from-overrides", "said.jsonl", "--name", "x"), "reads a folder of labels"),
        (("--from-overrides", "said.jsonl", "--limit", 1), "wanted some of each"),
        (("--from-overrides", "said.jsonl", "--out", "mine.yaml"), "already there"),
    ):
        ended = preceptor(*words, *more)
        assert (ended.code, said in ended.err) == (2, True), ended.err
