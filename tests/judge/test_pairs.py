"""Files -> Pairs: the prompt is its own field, and the gold never leaks into the order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.pairs import Candidate, groups_of, read_groups, read_pairs, slotted
from preceptor.judge.records import Pair
from preceptor.prompts.errors import RowsError
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.rows import write_rows
from tests.judge.canned import pair, prompt, response

TALK = [{"role": "user", "content": "Hi"}]


def pairs(tmp_path: Path, *rows: dict[str, Any], form: Any = "rows") -> list[Pair]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_pairs(path, form))


def test_two_replies_with_gold(tmp_path: Path) -> None:
    row = {
        "id": "x",
        "prompt": "Hi",
        "response_a": "Hello",
        "response_b": "",
        "preferred": "a",
        "tags": ["t"],
        "n": 1,
    }
    (made,) = pairs(tmp_path, row)
    assert (made.id, made.response_a, made.response_b, made.preferred) == ("x", "Hello", "", "a")
    assert made.prompt.messages == (Message(role="user", content="Hi"),)
    assert (made.prompt.tags, made.prompt.meta) == (("t",), {"n": 1})


def test_several_replies_make_adjacent_pairs(tmp_path: Path) -> None:
    made = pairs(tmp_path, {"id": "x", "messages": TALK, "responses": ["1", "2", "3"]})
    assert [(item.id, item.response_a, item.response_b) for item in made] == [
        ("x-1", "1", "2"),
        ("x-2", "2", "3"),
    ]
    (two,) = pairs(tmp_path, {"id": "x", "messages": TALK, "responses": ["1", "2"], "preferred": "b"})
    assert (two.id, two.preferred) == ("x", "b")


@pytest.mark.parametrize("talk", ["Hi", TALK])
def test_trl_rows_hold_the_gold_in_chosen(tmp_path: Path, talk: Any) -> None:
    texts = {"prompt": talk, "chosen": "good", "rejected": "bad"}
    turns = {
        **texts,
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }
    one, two = pairs(tmp_path, texts, turns)
    assert one.response_a == two.response_a
    assert {one.response_a, one.response_b} == {"good", "bad"}
    assert (one.response_a if one.preferred == "a" else one.response_b) == "good"


def test_the_place_of_chosen_is_drawn_without_looking_at_it(tmp_path: Path) -> None:
    """Chosen is a about half of the time, and exchanging chosen and rejected leaves a and b where they are."""
    rows = [{"prompt": f"Question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(400)]
    made = pairs(tmp_path, *rows)
    assert 150 < Counter(item.preferred for item in made)["a"] < 250
    turned = pairs(tmp_path, *({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows))
    assert [(item.response_a, item.response_b) for item in made] == [
        (i.response_a, i.response_b) for i in turned
    ]
    assert all(one.preferred != two.preferred for one, two in zip(made, turned, strict=True))


def test_our_own_pairs_come_back_as_they_were(tmp_path: Path) -> None:
    own = pair("one", "two", "tag").model_copy(update={"preferred": "tie", "sources": ("r1", "r2")})
    write_rows(tmp_path / "p.jsonl", [own])
    assert list(read_pairs(tmp_path / "p.jsonl")) == [own]


def test_equal_rows_are_both_kept(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "response_a": "1", "response_b": "2"}
    first, second = pairs(tmp_path, row, row)
    assert second.id == f"{first.id}-2"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"prompt": "Hi"},
            r"pairs\.jsonl: no layout of pairs that is known \(prompt\); wanted prompt with response_a and",
        ),
        ({"prompt": "Hi", "response_a": "x"}, r"no response_b; wanted response_a and response_b together"),
        ({"prompt": "Hi", "chosen": "x"}, r"no rejected; wanted chosen and rejected together"),
        (
            {"prompt": "Hi", "response_a": "x", "response_b": "y", "chosen": "z"},
            r"and one of these forms alone",
        ),
        ({"response_a": "x", "response_b": "y"}, r"neither prompt nor messages"),
        (
            {"chosen": "x", "rejected": "y"},
            r"without a prompt, and without a beginning that they share; wanted the conversation in a column",
        ),
        (
            {"chosen": "\n\nHuman: x", "rejected": "\n\nHuman: y"},
            r"a transcript that ends with the human; wanted a last reply",
        ),
        (
            {"prompt": "Hi", "response_a": "x", "response_b": "y", "chosen": "x", "rejected": "y"},
            r"can be read in two ways: as rows .* and as trl .*--format rows or --format trl",
        ),
        (
            {"prompt": "Hi", "messages": TALK, "chosen": "x", "rejected": "y"},
            r"in the column prompt and in the column messages; say which by --map prompt=prompt",
        ),
        (
            {"prompt": "Hi", "response_a": 1, "response_b": "y"},
            r"response_a is a number; wanted a text or a list",
        ),
        ({"prompt": "Hi", "responses": ["x"]}, r"responses is a list of 1; wanted a list of at least two"),
        ({"prompt": "Hi", "responses": "x"}, r"responses is a text"),
        ({"prompt": "Hi", "responses": ["x", "y", "z"], "preferred": "a"}, r"preferred beside 3 responses"),
        (
            {"prompt": "Hi", "response_a": "x", "response_b": "y", "preferred": "c"},
            r"preferred is 'c'; wanted a, b or tie",
        ),
        ({"prompt": "Hi", "chosen": "x", "rejected": "y", "preferred": "a"}, r"chosen is the gold"),
        (
            {"prompt": "Hi", "chosen": [*TALK, {"role": "assistant", "content": "x"}], "rejected": "y"},
            r"rejected is a text; wanted a list of messages",
        ),
        (
            {"prompt": {"id": "x"}, "response_a": "x", "response_b": "y"},
            r"messages: field required; wanted a row of kind",
        ),
        ({"prompt": "Hi", "responses": ["x", "y"], "sources": "s"}, r"sources is a text; wanted the ids"),
    ],
)
def test_faulty_pairs_say_what_is_wrong(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowsError, match=words):
        pairs(tmp_path, row)


def test_an_id_that_comes_twice_names_both_lines(tmp_path: Path) -> None:
    row = {"id": "x", "prompt": "Hi", "response_a": "1", "response_b": "2"}
    with pytest.raises(RowsError, match=r"pairs\.jsonl:2: id 'x' stands on line 1 too"):
        pairs(tmp_path, row, row)


def test_transcripts(tmp_path: Path) -> None:
    shared = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How are you?"
    row = {
        "chosen": f"{shared}\n\nAssistant: Well.",
        "rejected": f"{shared}\n\nAssistant: Go.\n\nAssistant: Away.",
    }
    (made,) = pairs(tmp_path, row, form="hh")
    assert [message.role for message in made.prompt.messages] == ["user", "assistant", "user"]
    assert made.prompt.messages[-1].content == "How are you?"
    assert {made.response_a, made.response_b} == {"Well.", "Go.\n\nAssistant: Away."}
    assert (made.response_a if made.preferred == "a" else made.response_b) == "Well."


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        ("Hello", "\n\nHuman: x\n\nAssistant: y", r"chosen is 'Hello'; wanted a transcript"),
        ("\n\nHuman: x\n\nAssistant: y", 5, r"rejected is a number; wanted a transcript"),
        (
            "\n\nHuman: x",
            "\n\nHuman: x\n\nAssistant: y",
            r"a transcript that ends with the human; wanted a last reply",
        ),
        (
            "\n\nHuman: x\n\nAssistant: y",
            "\n\nHuman: z\n\nAssistant: y",
            r"differ before the last reply; wanted",
        ),
    ],
)
def test_texts_that_are_no_transcripts(tmp_path: Path, chosen: Any, rejected: Any, words: str) -> None:
    with pytest.raises(RowsError, match=words):
        pairs(tmp_path, {"chosen": chosen, "rejected": rejected}, form="hh")


def test_responses_are_grouped_by_their_prompt() -> None:
    """Only usable ones, and only groups of two or more."""
    other = Prompt(id="prompt-2", messages=prompt().messages)
    alone = Prompt(id="prompt-3", messages=prompt().messages)
    rows = [
        response("one", id="1"),
        response("", id="2", status="refused"),
        response("three", id="3"),
        response("five", id="5", prompt=other),
        response("six", id="6", prompt=other),
        response("seven", id="7", prompt=alone),
    ]
    made = list(groups_of(rows))
    assert [group.sources for group in made] == [("1", "3"), ("5", "6")]
    assert made[0].responses == ("one", "three")


def test_a_slot_is_nobodys() -> None:
    """The same pair whoever comes first, and either of two replies can become a."""
    made = [slotted(prompt(), Candidate(f"{n}", "x"), Candidate(f"{n}-other", "y")) for n in range(40)]
    assert made[0] == slotted(prompt(), Candidate("0-other", "y"), Candidate("0", "x"))
    assert {item.response_a for item in made} == {"x", "y"}


def test_groups_come_from_rows_with_responses(tmp_path: Path) -> None:
    file = tmp_path / "groups.jsonl"
    file.write_text(
        json.dumps({"id": "g", "prompt": "Hi", "responses": ["a", "b", "c"], "tags": ["t"]}) + "\n"
    )
    (group,) = read_groups(file)
    assert (group.id, group.responses, group.sources) == ("g", ("a", "b", "c"), ("g-1", "g-2", "g-3"))
    assert group.prompt.tags == ("t",)
    file.write_text(json.dumps({"prompt": "Hi", "response_a": "a", "response_b": "b"}) + "\n")
    with pytest.raises(RowsError, match="no responses; wanted a list of at least two"):
        list(read_groups(file))
