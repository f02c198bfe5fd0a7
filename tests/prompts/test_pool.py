"""Files -> Prompts: every form that is accepted, and one clear message for every form that is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from preceptor.prompts.errors import RowsError
from preceptor.prompts.pool import pool_path, read_prompts, shipped_pools, split
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.rows import read_records, write_rows

ROWS: list[dict[str, Any]] = [
    {"id": "one", "prompt": "Hello?", "tags": ["greeting", "short"], "source": "me"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
    {"id": 7, "prompt": [{"role": "user", "content": "Grüße 你好 🙂"}], "meta": {"n": 1}, "score": 0.5},
]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_the_forms_of_a_prompt(tmp_path: Path) -> None:
    one, why, seven = read_prompts(write(tmp_path / "p.jsonl", lines(ROWS)))
    assert one == Prompt(
        id="one",
        messages=(Message(role="user", content="Hello?"),),
        tags=("greeting", "short"),
        meta={"source": "me"},
    )
    assert [message.role for message in why.messages] == ["system", "user"]
    assert why.id.startswith("prompt-")
    assert seven.id == "7"
    assert seven.meta == {"n": 1, "score": 0.5}


def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path) -> None:
    """JSONL, gzip, CSV, Parquet and saved datasets of the same rows; ids come from content alone."""
    import datasets

    rows = [{"prompt": f"Question {index}?", "tags": ["a", "b"], "extra": "x"} for index in range(3)]
    write(tmp_path / "p.jsonl", b"\xef\xbb\xbf" + lines(rows) + b"\n \n")
    write(tmp_path / "p.jsonl.gz", gzip.compress(lines(rows)))
    write(
        tmp_path / "p.csv",
        b'prompt,tags,extra,id\n"Question 0?","a, b",x,\nQuestion 1?,"[""a"", ""b""]",x,\r\n'
        b'Question 2?,"a,b",x,\n',
    )
    write(tmp_path / "p.csv.gz", gzip.compress((tmp_path / "p.csv").read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(str(tmp_path / "dict"))
    wanted = list(read_prompts(tmp_path / "p.jsonl"))
    assert [prompt.messages[0].content for prompt in wanted] == ["Question 0?", "Question 1?", "Question 2?"]
    for name in ("p.jsonl.gz", "p.csv", "p.csv.gz", "p.parquet", "saved", "dict"):
        assert list(read_prompts(tmp_path / name)) == wanted, name


def test_equal_prompts_without_ids_are_both_kept(tmp_path: Path) -> None:
    first, second = read_prompts(write(tmp_path / "p.jsonl", lines([{"prompt": "Hi"}, {"prompt": "Hi"}])))
    assert second.id == f"{first.id}-2"


GOOD = {"prompt": "Hi"}
FAULTY = [
    (b"", r"p\.jsonl: holds no rows; wanted at least one"),
    (b"\n\n", r"holds no rows"),
    (lines([GOOD]) + b'{"prompt": "Hi"', r"p\.jsonl:2: broken JSON at column 16: .*; wanted one JSON object"),
    (b'{"prompt": NaN}', r"p\.jsonl:1: JSON that cannot be read: NaN is no JSON number"),
    (b'{"prompt": "\\ud800"}', r"p\.jsonl:1: an escape that is half a character"),
    (b"[" * 100_000, r"p\.jsonl:1: .*; wanted one JSON object on the line"),
    (b'["Hi"]', r"p\.jsonl:1: a list; wanted one JSON object on the line"),
    (
        lines([GOOD]) + b'{"prompt": "\xff"}',
        r"p\.jsonl:2: byte 13 of the line is not UTF-8; wanted text in UTF-8",
    ),
    (lines([{"prompt": 5}]), r"p\.jsonl:1: prompt is a number; wanted a text or a list of \{role, content\}"),
    (lines([{"prompt": " "}]), r"prompt is empty; wanted a text"),
    (lines([{"question": "Hi"}]), r"neither prompt nor messages; wanted one of them"),
    (lines([{"prompt": "Hi", "messages": []}]), r"both prompt and messages"),
    (lines([{"messages": "Hi"}]), r"messages is a text; wanted a list of \{role, content\}"),
    (lines([{"messages": []}]), r"messages is an empty list"),
    (lines([{"messages": ["Hi"]}]), r"messages\[0\] is a text; wanted an object with role and content"),
    (
        lines([{"messages": [{"role": "human", "content": "Hi"}]}]),
        r"messages\[0\]\.role is 'human'; wanted system",
    ),
    (lines([{"messages": [{"role": "user"}]}]), r"messages\[0\]\.content is nothing; wanted a text"),
    (
        lines([{"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "user"}]}]),
        r"messages\[0\] has tool_calls beside role and content; wanted messages of plain text",
    ),
    (
        lines(
            [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]}]
        ),
        r"prompt\[0\]\.content\[1\] is a part of type 'image'; wanted a text, or parts of type text alone",
    ),
    (
        lines([{"messages": [{"role": "user", "content": "x", "name": "y"}]}]),
        r"messages\[0\] has name beside role",
    ),
    (
        lines([{"messages": [{"role": "assistant", "content": "Hi"}]}]),
        r"messages ends with a message of the assistant; wanted a last message of the user",
    ),
    (lines([{**GOOD, "tags": "red"}]), r"tags is 'red'; wanted a list of texts"),
    (lines([{**GOOD, "id": 1.5}]), r"id is a number; wanted a text or a whole number"),
    (lines([{**GOOD, "id": ""}]), r"id is empty"),
    (lines([{**GOOD, "meta": []}]), r"meta is a list; wanted an object"),
    (lines([{**GOOD, "meta": {"a": 1}, "a": 2}]), r"a stands in meta and as a column; wanted one of the two"),
    (
        lines([{**GOOD, "id": "x"}, GOOD, {"prompt": "Ho", "id": "x"}]),
        r"p\.jsonl:3: id 'x' stands on line 1 too; wanted ids that differ",
    ),
]


@pytest.mark.parametrize(("data", "words"), FAULTY)
def test_faulty_rows_say_where_and_what(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(RowsError, match=words):
        list(read_prompts(write(tmp_path / "p.jsonl", data)))


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", lines([GOOD, {"prompt": 1}]) + b"{\n" + lines([GOOD, {}]))
    with pytest.raises(RowsError) as caught:
        list(read_prompts(path))
    first, *faults = str(caught.value).splitlines()
    assert first == f"{path} has 3 faults:"
    assert [fault.split(": ")[0].rpartition(":")[2] for fault in faults] == ["2", "3", "5"]


def test_nothing_is_given_out_after_a_fault(tmp_path: Path) -> None:
    rows = read_prompts(write(tmp_path / "p.jsonl", lines([GOOD, {}, {"prompt": "later"}])))
    assert next(rows).messages[0].content == "Hi"
    with pytest.raises(RowsError):
        next(rows)


def test_a_file_of_faults_stops_at_ten(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match="has 10 or more faults") as caught:
        list(read_prompts(write(tmp_path / "p.jsonl", lines([{}] * 50))))
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("p.txt", b"Hi", r"unknown ending; wanted \.jsonl, \.jsonl\.gz, \.csv"),
        (
            "p.jsonl.gz",
            gzip.compress(lines([GOOD] * 9), mtime=0)[:-9],
            r"gzip data is broken or cut short after line \d+",
        ),
        ("p.jsonl.gz", b"no gzip", r"gzip data is broken or cut short after line 0"),
        ("p.parquet", b"PAR1 no more", r"cannot be read as Parquet after row 0"),
        ("p.csv", b"prompt,id\nHi,1\nHo\n", r"p\.csv:3: more or fewer cells than the header; wanted 2 cells"),
        ("p.csv", b"prompt\nHi,1\n", r"p\.csv:2: more or fewer cells"),
        ("p.csv", b'prompt\n"Hi" there\n', r"p\.csv:2: broken CSV: "),
        ("p.csv", b"prompt\nH\xff\n", r"p\.csv:2: byte 2 of the line is not UTF-8"),
        ("p.csv", b"prompt\n", r"holds no rows"),
        (
            "p.csv",
            b"prompt,prompt\nHi,Ho\n",
            r"p\.csv:1: column prompt twice; wanted columns with names that differ",
        ),
        ("p.csv", b'prompt\n"Hi\n', r"p\.csv:2: broken CSV: unexpected end of data"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(RowsError, match=words):
        list(read_prompts(write(tmp_path / name, data)))


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match=r"none\.jsonl: there is no such file; check the path"):
        list(read_prompts(tmp_path / "none.jsonl"))
    with pytest.raises(RowsError, match="a directory that is no dataset; wanted a file, or a folder"):
        list(read_prompts(tmp_path))
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(RowsError, match="datasets cannot load the folder"):
        list(read_prompts(tmp_path))
    with pytest.raises(RowsError, match="no dataset named; wanted hub:OWNER/NAME"):
        list(read_prompts("hub:"))


def test_a_dataset_with_several_splits_wants_one_named(tmp_path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_list([GOOD])
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(RowsError, match=r"it has the splits test, train; name one of them, e\.g\. .*d/test"):
        list(read_prompts(tmp_path / "d"))
    assert len(list(read_prompts(tmp_path / "d" / "test"))) == 1


def prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{index}", messages=(Message(role="user", content="x"),)) for index in range(count)]


@given(share=st.floats(0, 1), seed=st.integers(0, 9), count=st.integers(0, 30))
def test_adding_prompts_moves_none_between_train_and_held_out(share: float, seed: int, count: int) -> None:
    """And the two parts are disjoint, in order, and together everything."""
    some, all_of_them = split(prompts(count), share, seed), split(prompts(30), share, seed)
    assert {p.id for p in some.train} <= {p.id for p in all_of_them.train}
    assert {p.id for p in some.held_out} <= {p.id for p in all_of_them.held_out}
    assert sorted((*some.train, *some.held_out), key=lambda p: int(p.id[1:])) == prompts(count)


def test_the_share_is_about_the_share() -> None:
    held_out = split(prompts(4000), 0.25, seed=3).held_out
    assert 900 < len(held_out) < 1100
    assert held_out != split(prompts(4000), 0.25, seed=4).held_out


def test_a_share_that_is_none() -> None:
    with pytest.raises(RowsError, match=r"held-out share is 1\.5; wanted a number from 0 to 1"):
        split(prompts(1), 1.5, 0)


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_written_rows_come_back_and_equal_rows_give_equal_bytes(tmp_path: Path, name: str) -> None:
    rows = list(read_prompts(write(tmp_path / "in.jsonl", lines(ROWS))))
    assert write_rows(tmp_path / "deep" / name, rows) == 3
    assert list(read_records(tmp_path / "deep" / name, Prompt)) == rows
    first = (tmp_path / "deep" / name).read_bytes()
    write_rows(tmp_path / "deep" / name, rows)
    assert (tmp_path / "deep" / name).read_bytes() == first


def test_a_row_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "out" / "p.jsonl"
    write_rows(path, prompts(2))
    before = path.read_bytes()

    def failing() -> Any:
        yield from prompts(1)
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        write_rows(path, failing())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RowsError, match=r"cannot be written: .*; choose another place"):
        write_rows(tmp_path / "file" / "p.jsonl", prompts(1))


def test_a_row_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", lines([{"id": "x", "messages": [], "colour": "red"}]))
    with pytest.raises(RowsError, match=r"p\.jsonl:1: .*; wanted a row of kind Prompt"):
        list(read_records(path, Prompt))


def test_shipped_pools_can_be_read() -> None:
    assert {"everyday", "everyday-held-out", "front-desk", "front-desk-held-out", "starter"} <= set(
        shipped_pools()
    )
    for name in shipped_pools():
        pool = list(read_prompts(pool_path(name)))
        assert len(pool) >= 60
        assert all(prompt.tags for prompt in pool if name == "starter")


def test_a_pool_that_is_not_shipped() -> None:
    with pytest.raises(RowsError, match=r"none: no such pool; wanted one of .*starter"):
        pool_path("none")


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"question_id": 81, "category": "writing", "turns": ["Say hello.", "Again."]}, "turns.0"),
        ({"answer_id": "a", "choices": [{"index": 0, "turns": ["Say hello."]}]}, "choices.0.turns.0"),
        ({"conversation": ["Say hello.", "Hello."], "categories": ["greetings"]}, "conversation.0"),
        (
            {"uid": "u", "messages": [{"role": "user", "content": "Say hello."}, {"role": "assistant"}]},
            "messages.0.content",
        ),
        ({"question": "Say hello.", "answer_matching_behavior": " Yes"}, "question"),
        ({"input": {"task": {"text": "Say hello."}}}, "input.task.text"),
        ({"a.b": "Say hello."}, "a.b"),
    ],
)
def test_questions_of_public_sets_are_reached_by_one_mapping(
    tmp_path: Path, row: dict[str, object], place: str
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (prompt,) = read_prompts(path, {"prompt": place})
    assert [(one.role, one.content) for one in prompt.messages] == [("user", "Say hello.")]


def test_a_text_may_be_spelt_as_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Say "}, {"type": "input_text", "text": "hello."}]
    path = write(tmp_path / "p.jsonl", lines([{"messages": [{"role": "user", "content": parts}]}]))
    assert [one.messages[0].content for one in read_prompts(path)] == ["Say hello."]
