"""New prompts: every one is new, answerable and no leak, says where it came from, and asking ends in time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load
from preceptor.judge.asking.shared import NOTHING_DONE
from preceptor.judge.errors import BudgetReached
from preceptor.judge.records import Response
from preceptor.prompts.admission import Admission
from preceptor.prompts.near import jaccard, said, shingles
from preceptor.prompts.pool import read_prompts
from preceptor.prompts.recipes import NEEDS, CellToFill, RecipeInput, SynthesisWay, ask_for, read_prompts_in
from preceptor.prompts.records import Message, Prompt
from preceptor.workbench.settings import SynthesisSettings
from preceptor.workbench.synthesis import (
    RoundReplies,
    Synthesis,
    SynthesisFigures,
    cells_of,
    parts_of_documents,
)
from tests.command_line import Preceptor

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(by: Random, count: int = 8) -> str:
    return " ".join("".join(by.choices(LETTERS, k=6)) for _ in range(count))


def prompt(text: str, *tags: str) -> Prompt:
    return Prompt(id=f"id {text}", messages=(Message(role="user", content=text),), tags=tags)


SEEDS = [prompt(words(Random(n)), "howto") for n in range(5)]
HELD = [prompt(words(Random(n + 100))) for n in range(3)]
GIVEN = RecipeInput(SEEDS, parts_of_documents(["a text " * 500]))
CELLS = {CellToFill(tag, name, f"Choose {name}."): 0 for tag in ("x", "y") for name in ("kind", "brief")}
SPOILT = (
    SEEDS[0].messages[-1].content,
    HELD[0].messages[-1].content,
    "No.",
    "What is in [insert name here] today?",
    "Sum up the attached file.",
    "¿? 12 34",
)


def written(asks: Sequence[Prompt], spoilt: float) -> RoundReplies:
    """Each ask is answered by prompts that its text alone decides, some of them spoilt."""
    replies = []
    for number, ask in enumerate(asks):
        by = Random(ask.id)
        texts = [by.choice(SPOILT) if by.random() < spoilt else words(by) for _ in range(4)]
        text = "Of course:\n" + "\n".join(json.dumps({"prompt": one, "reply": "So it is."}) for one in texts)
        replies.append(
            Response(
                id=str(number), prompt=ask, text=text, model="m", sample=0, status="ok", call=f"call {ask.id}"
            )
        )
    return RoundReplies(replies, NOTHING_DONE._replace(asked=len(asks), cost_usd=0.5 * len(asks)))


def synthesised(chosen: SynthesisSettings, spoilt: float = 0.0) -> tuple[list[Prompt], SynthesisFigures]:
    taken: list[Prompt] = []
    with Admission(0.7, SEEDS, HELD) as gate:
        made = Synthesis(chosen, GIVEN, CELLS, gate, taken.append)
        found, stopped = made.run(lambda asks: written(asks, spoilt), "m")
    assert stopped is None
    return taken, found


WAYS: list[SynthesisWay] = list(NEEDS)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(WAYS), min_size=1, max_size=3, unique=True),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_what_is_taken_is_new_answerable_and_no_leak(
    ways: list[SynthesisWay], count: int, spoilt: float
) -> None:
    chosen = SynthesisSettings(how=tuple(ways), count=count, at_once=4, per_cell=100)
    taken, found = synthesised(chosen, spoilt)
    assert found["new"] == len(taken) == sum(found["by_way"].values()) <= count
    assert found["written"] == len(taken) + sum(found["refused"].values())
    sketches = [shingles(said(one)) for one in [*SEEDS, *HELD, *taken]]
    for one, other in itertools.combinations(range(len(sketches)), 2):
        if max(one, other) >= len(SEEDS) + len(HELD):
            assert jaccard(sketches[one], sketches[other]) < 0.7
    for one in taken:
        assert one.meta["source"]["how"] in ways
        assert one.meta["source"]["model"] == "m"
        assert one.meta["source"]["call"]
        assert len(one.messages[-1].content.split()) >= 3
    assert (taken, found) == synthesised(chosen, spoilt)
    if taken:
        assert found["usd_per_new"] == found["cost_usd"] / len(taken)
    if spoilt == 1.0:
        assert found["ended"] == "too few of the last round were new"
    if spoilt == 0.0:
        assert found["ended"] == "the prompts wanted are there"


def test_cells_are_filled_evenly_and_no_further() -> None:
    taken, found = synthesised(SynthesisSettings(how=("taxonomy",), count=1000, at_once=4, per_cell=6))
    assert found["ended"] == "every cell is full"
    assert [cell[3] for cell in found["cells"]] == [8, 8, 8, 8]  # two calls of four each
    assert all(one.tags == (one.meta["source"]["tag"],) for one in taken)


def test_the_emptiest_cell_comes_first() -> None:
    before = {cell: 9 * (cell.tag == "x") for cell in CELLS}
    with Admission(0.7, ()) as gate:
        made = Synthesis(SynthesisSettings(how=("taxonomy",)), GIVEN, before, gate, lambda _: None)
        assert {cell.tag for _, cell in made.asks(2) if cell} == {"y"}


def test_cells_come_of_coverage() -> None:
    rules = load("helpful-harmless")
    found = cells_of(rules, [prompt("a b c", "red"), prompt("d e f", "red", "blue")], None, ["green"])
    one = rules.principles[0]
    assert [found[CellToFill(tag, one.id, one.text)] for tag in ("red", "blue", "green")] == [2, 1, 0]
    assert {cell.tag for cell in cells_of(rules, [prompt("a b c")], None, [])} == {""}


@pytest.mark.parametrize("way", WAYS)
def test_an_ask_is_decided_by_its_number(way: SynthesisWay) -> None:
    cell = next(iter(CELLS))
    asks = [ask_for(way, GIVEN, cell, number, 0, 3) for number in range(6)]
    assert asks == [ask_for(way, GIVEN, cell, number, 0, 3) for number in range(6)]
    assert len({one.text for one in asks}) == 6
    assert all("Write 3 " in one.text for one in asks)
    reply = '{"prompt": "And then?", "reply": "So."}\n{"prompt": 3}\n{"other": 1}\n{broken'
    (messages,) = read_prompts_in(reply, asks[0])
    assert [one.role for one in messages] == (
        ["user", "assistant", "user"] if way == "multi-turn" else ["user"]
    )


@pytest.mark.parametrize("way", [way for way in WAYS if NEEDS[way]])
def test_a_way_without_what_it_draws_from_is_refused(way: SynthesisWay) -> None:
    with Admission(0.7, ()) as gate, pytest.raises(UserError, match=f"{way} needs {NEEDS[way]}"):
        Synthesis(SynthesisSettings(how=(way,)), RecipeInput(), {}, gate, lambda _: None)


def test_another_language_is_not_taken() -> None:
    with Admission(0.7, (), (), (3, 9), "en") as gate:
        assert gate.refuses(prompt("How do I get to the railway station?")) is None
        assert gate.refuses(prompt("Wie komme ich bitte zum nächsten Bahnhof?")) == "another language"
        assert gate.refuses(prompt("one two three four five six seven eight nine ten")) == "too long"


# The command


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, prompts in (("seeds", SEEDS), ("held", HELD)):
        rows = ({"prompt": one.messages[0].content, "tags": list(one.tags)} for one in prompts)
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = []
    for n in range(40):
        texts = [words(Random(1000 + 10 * n + k)) for k in range(4)] + [HELD[0].messages[0].content]
        text = "\n".join(json.dumps({"prompt": text}) for text in texts)
        lines.append({"match": f"series {n + 1}\\.", "text": text})
    Path("model.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path


WORDS = ("prompts", "synthesize", "--model", "scripted/model.jsonl", "--out", "new.jsonl")


def test_the_command_writes_prompts_and_goes_on_from_the_ledger(preceptor: Preceptor) -> None:
    order = (*WORDS, "seeds.jsonl", "--held-out", "held.jsonl", "--count", 10, "--json", "--concurrency", 1)
    plan = preceptor(*order, "--plan")
    assert plan.code == 0, plan.err
    assert json.loads(plan.out)["rows"] == 2
    assert not Path("new.jsonl").exists()
    ended = preceptor(*order)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["new"], found["calls"], found["complete"]) == (10, 3, True)
    assert found["refused"]["leak of held-out"] == 2
    rows = list(read_prompts("new.jsonl"))
    assert len(rows) == 10
    assert all(row.tags == ("howto",) and row.meta["source"]["how"] == "self-instruct" for row in rows)
    before = Path("new.jsonl").read_bytes()
    again = json.loads(preceptor(*order).out)
    assert (again["calls"], again["from_ledger"]) == (0, 3)
    assert Path("new.jsonl").read_bytes() == before


def test_what_came_before_the_asking_was_stopped_is_kept() -> None:
    taken: list[Prompt] = []
    reason = BudgetReached("the cap")

    def ask(asks: Sequence[Prompt]) -> RoundReplies:
        came = written(asks, 0.0)
        return came if not taken else RoundReplies(came.replies[:2], came.progress, reason)

    with Admission(0.7, SEEDS) as gate:
        found, stopped = Synthesis(
            SynthesisSettings(count=1000, at_once=4), GIVEN, {}, gate, taken.append
        ).run(ask, "m")
    assert stopped is reason
    assert found["ended"] == "the asking was stopped"
    assert len(taken) == 4 * (8 + 2)


def test_a_cap_before_the_first_call_leaves_nothing(
    preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    order = ("prompts", "synthesize", "seeds.jsonl", "--model", "openai/x", "--out", "new.jsonl")
    capped = preceptor(
        *order, "--base-url", "http://127.0.0.1:9/v1", "--price", "1,1000", "--max-cost", "0.0001"
    )
    assert capped.code == 3, capped.err
    assert not Path("new.jsonl").exists()


def test_a_model_that_writes_nothing_leaves_nothing(preceptor: Preceptor) -> None:
    Path("silent.jsonl").write_text(json.dumps({"match": ".", "text": "I would rather not."}) + "\n")
    ended = preceptor(
        "prompts", "synthesize", "seeds.jsonl", "--model", "scripted/silent.jsonl", "--out", "new.jsonl"
    )
    assert (ended.code, "wrote no prompt that is taken, of 0" in ended.err) == (2, True), ended.err
    assert not Path("new.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "nothing to draw from"),
        (("--how", "evolve"), "evolve needs seeds"),
        (("seeds.jsonl", "--fill"), "name a file of prompts and --constitution"),
        (("seeds.jsonl", "--labels", "x"), "--labels without --constitution"),
        (("seeds.jsonl", "--documents", "none.txt"), "cannot be read"),
        (("seeds.jsonl", "--fill", "-c", "brief", "--how", "evolve"), "leave --how out"),
    ],
)
def test_what_cannot_be_asked_for(preceptor: Preceptor, more: tuple[str, ...], said: str) -> None:
    ended = preceptor(*WORDS, *more)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert not Path("new.jsonl").exists()
