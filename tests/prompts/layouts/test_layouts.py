"""Files of pairs as the field writes them are read by sight, said in one line, and written again without a loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.prompts.columns import mapping_of
from preceptor.prompts.errors import RowsError
from preceptor.prompts.layouts.conversion import FORMS, convert
from preceptor.prompts.layouts.layout import ConversationPair
from preceptor.prompts.layouts.recognition import LAYOUTS, in_our_columns, pairs_in, parsed_pairs, recognise
from preceptor.prompts.pool import messages_of
from preceptor.prompts.rows import RawRow

DATA = Path(__file__).parents[2] / "data" / "layouts"
Q, GOOD, BAD = "What is 2 + 2?", "It is four.", "Who knows?"
USER = [{"role": "user", "content": Q}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *USER]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


HUMAN = {"from": "human", "value": Q}
ROWS: dict[str, list[dict[str, Any]]] = {
    "rows": [
        {"prompt": Q, "response_a": GOOD, "response_b": BAD, "preferred": "a"},
        {"messages": USER, "responses": [BAD, GOOD], "preferred": "b"},
    ],
    "trl": [
        {"prompt": Q, "chosen": GOOD, "rejected": BAD},
        {"prompt": USER, "chosen": [said(GOOD)], "rejected": [said(BAD)]},
        {"messages": USER, "chosen": GOOD, "rejected": BAD},
        {
            "id": 7,
            "prompt": Q,
            "chosen": GOOD,
            "chosen_model": "m",
            "rejected": BAD,
            "rejected_model": "n",
            "subset": "chat",
        },
    ],
    "trl-implicit": [{"chosen": [*USER, said(GOOD)], "rejected": [*USER, said(BAD)]}],
    "trl-implicit-text": [{"chosen": f"{Q} {GOOD}", "rejected": f"{Q} {BAD}"}],
    "ultrafeedback": [
        {
            "prompt": Q,
            "prompt_id": "9f",
            "chosen": [*USER, said(GOOD)],
            "rejected": [*USER, said(BAD)],
            "messages": [*USER, said(GOOD)],
            "score_chosen": 8.5,
            "score_rejected": 4.0,
        }
    ],
    "hh": [
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {GOOD}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {BAD}"}
    ],
    "reward-bench": [{"prompt": Q, "chosen": [GOOD], "rejected": [BAD]}],
    "openai-dpo": [
        {
            "input": {"messages": USER, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [said(GOOD)],
            "non_preferred_output": [said(BAD)],
        }
    ],
    "llama-factory": [{"instruction": Q, "input": "", "chosen": GOOD, "rejected": BAD}],
    "sharegpt": [
        {
            "conversations": [HUMAN],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        {"conversations": [HUMAN], "chosen": GOOD, "rejected": BAD},
    ],
    "axolotl": [{"messages": USER, "chosen": said(GOOD), "rejected": said(BAD)}],
    "axolotl-intel": [
        {"system": "", "question": Q, "chosen": GOOD, "rejected": BAD},
        {"system": "", "instruction": Q, "chosen_response": GOOD, "rejected_response": BAD},
        {
            "system": "",
            "input": Q,
            "chosen": GOOD,
            "rejected": BAD,
            "generations": [GOOD, BAD],
            "rating": [9, 2],
        },
    ],
    "alpaca-eval": [
        {
            "instruction": Q,
            "output_1": BAD,
            "generator_1": "x",
            "output_2": GOOD,
            "generator_2": "y",
            "preference": 2,
        },
        {"instruction": Q, "output_1": GOOD, "output_2": BAD, "preference": 1.2},
    ],
    "llmbar": [{"input": Q, "output_1": BAD, "output_2": GOOD, "label": 2}],
    "judgebench": [{"question": Q, "response_A": BAD, "response_B": GOOD, "label": "B>A"}],
    "pku-saferlhf": [
        {"prompt": Q, "response_0": BAD, "response_1": GOOD, "better_response_id": 1, "safer_response_id": 0},
    ],
    "pandalm": [
        {
            "instruction": Q,
            "input": "",
            "response1": GOOD,
            "response2": BAD,
            "annotator1": 1,
            "annotator2": 0,
            "annotator3": 1,
        }
    ],
    "helpsteer2-preference": [{"prompt": Q, "response_1": BAD, "response_2": GOOD, "preference_strength": 2}],
    "helpsteer3": [
        {"context": USER, "response1": GOOD, "response2": BAD, "overall_preference": -1, "domain": "general"}
    ],
    "shp": [{"history": Q, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1}],
    "arena": [
        {
            "model_a": "x",
            "model_b": "y",
            "winner": "model_b",
            "conversation_a": [*USER, said(BAD)],
            "conversation_b": [*USER, said(GOOD)],
        }
    ],
    "icai": [
        {
            "text_a": f"Instruction: {Q}\n\nOutput: {BAD}",
            "text_b": f"Instruction: {Q}\n\nOutput: {GOOD}",
            "preferred_text": "text_b",
        },
        {"prompt": Q, "text_a": GOOD, "text_b": BAD, "preferred_text": "text_a"},
    ],
    "annotated-pairs": [
        {
            "id": "c1",
            "prompt": Q,
            "response_a": {"text": BAD, "model": "x"},
            "response_b": {"text": GOOD, "model": "y"},
            "annotations": {"human": {"pref": "b"}, "principle-1": {"pref": "a"}},
        }
    ],
    "argilla": [
        {
            "id": "r1",
            "status": "completed",
            "fields": {"prompt": Q, "response_a": BAD, "response_b": GOOD},
            "metadata": {"source": "x"},
            "responses": {"preference": [{"user_id": "u", "value": "response_b"}]},
        },
        {
            "fields": {"instruction": Q, "response-1": BAD, "response-2": GOOD},
            "responses": {},
            "suggestions": {
                "ranking": {"value": [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]}
            },
        },
    ],
    "ranked": [
        {
            "prompt": f"\n\nHuman: {Q}\n\nAssistant: ",
            "answers": [{"answer": BAD, "rank": 2.0}, {"answer": GOOD, "rank": 1.0}],
        },
        {
            "instruction": Q,
            "completions": [{"response": BAD, "overall_score": 2}, {"response": GOOD, "overall_score": 8}],
        },
    ],
    "generations": [{"instruction": Q, "generations": [BAD, GOOD], "ratings": [1, 5]}],
    "helpsteer": [
        {
            "prompt": Q,
            "response": BAD,
            "helpfulness": 1,
            "correctness": 4,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        },
        {
            "prompt": Q,
            "response": GOOD,
            "helpfulness": 3,
            "correctness": 1,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        },
    ],
}
"""Layout -> rows in it, each of which says that GOOD is the better reply to Q."""


def file_of(folder: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def talks(
    path: Path, form: str = "rows", columns: dict[str, str] | None = None
) -> list[tuple[list[tuple[str, str]], str, str]]:
    """(messages, chosen, rejected) of every pair."""
    found = []
    for row in in_our_columns(path, recognise(path, form, columns)):
        assert isinstance(row, RawRow), row
        fields = row.fields
        texts = fields.get("responses") or [fields.get("response_a"), fields.get("response_b")]
        if "chosen" not in fields:
            chosen, rejected = texts if fields["preferred"] == "a" else texts[::-1]
        else:
            chosen, rejected = (
                fields[side] if isinstance(fields[side], str) else fields[side][0]["content"]
                for side in ("chosen", "rejected")
            )
        found.append(([(turn.role, turn.content) for turn in messages_of(fields)], chosen, rejected))
    return found


def test_every_layout_has_an_example() -> None:
    assert set(ROWS) | {"trl-text"} == set(LAYOUTS)
    assert len(LAYOUTS) >= 26


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"helpsteer"}))
def test_a_layout_is_known_by_sight_and_read_right(tmp_path: Path, name: str) -> None:
    for row in ROWS[name]:
        path = file_of(tmp_path, [row])
        how = recognise(path)
        assert (how.layout.name if how.layout else "rows") == name
        assert not how.layout or f"read as {name}: " in how.said
        assert talks(path) == [([("user", Q)], GOOD, BAD)]


def test_neighbouring_scored_replies_make_pairs(tmp_path: Path) -> None:
    """By helpfulness alone: the other scores of the better one are worse."""
    path = file_of(tmp_path, ROWS["helpsteer"])
    assert recognise(path).layout == LAYOUTS["helpsteer"]
    assert talks(path) == [([("user", Q)], GOOD, BAD)]


def test_a_soft_preference_keeps_its_probability(tmp_path: Path) -> None:
    path = file_of(tmp_path, ROWS["alpaca-eval"])
    rows = [row.fields for row in in_our_columns(path, recognise(path)) if isinstance(row, RawRow)]
    assert [row.get("probability") for row in rows] == [None, pytest.approx(0.8)]


def test_a_ranked_list_gives_each_with_the_next_and_equal_ones_are_a_tie(tmp_path: Path) -> None:
    answers = [{"answer": text, "rank": rank} for text, rank in (("c", 3), ("a", 1), ("d", 3), ("b", 2))]
    path = file_of(tmp_path, [{"id": "n", "prompt": Q, "answers": answers}])
    rows = [row.fields for row in in_our_columns(path, recognise(path)) if isinstance(row, RawRow)]
    assert [(row.get("chosen"), row.get("rejected"), row.get("preferred")) for row in rows] == [
        ("a", "b", None),
        ("b", "c", None),
        (None, None, "tie"),
    ]
    assert len({row["id"] for row in rows}) == 3


def test_lists_of_one_length_are_compared_one_by_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"prompt": Q, "chosen": ["1", "2", "3"], "rejected": ["4", "5", "6"]}])
    assert [pair[1:] for pair in talks(path)] == [("1", "4"), ("2", "5"), ("3", "6")]
    path = file_of(tmp_path, [{"prompt": Q, "chosen": ["1"], "rejected": ["4", "5", "6"]}])
    assert [pair[1:] for pair in talks(path)] == [("1", "4"), ("1", "5"), ("1", "6")]


@pytest.mark.parametrize(
    ("name", "columns", "count"),
    [
        ("hh-rlhf.jsonl", {}, 2),
        ("llmbar.jsonl", {}, 3),
        ("judgebench.jsonl", {}, 2),
        ("pandalm.jsonl", {}, 4),
        ("icai.jsonl", {}, 3),
        ("hhh-alignment.jsonl", {"prompt": "_prompt", "chosen": "_chosen", "rejected": "_rejected"}, 3),
    ],
)
def test_real_files_load_with_at_most_a_mapping(name: str, columns: dict[str, str], count: int) -> None:
    assert (
        len(list(parsed_pairs(DATA / name, lambda row: row, pairs_in(DATA / name, "rows", columns)))) == count
    )


def test_all_real_files_are_tried() -> None:
    assert len(list(DATA.glob("*.jsonl"))) == 6


TALKS = st.builds(
    lambda system, turns, last, chosen, rejected: ConversationPair(
        "pair-1",
        [{"role": "system", "content": system}] * bool(system)
        + [
            one
            for q, a in turns
            for one in ({"role": "user", "content": q}, {"role": "assistant", "content": a})
        ]
        + [{"role": "user", "content": last}],
        chosen,
        rejected,
        {"tags": ["t"], "note": 3},
    ),
    *[
        text
        for words in [st.text(alphabet='ab <>|é\n"', min_size=1, max_size=8).map(lambda text: f"x{text}x")]
        for text in (
            st.one_of(st.just(""), words),
            st.lists(st.tuples(words, words), max_size=2),
            words,
            words,
            words,
        )
    ],
)


@given(row=TALKS, name=st.sampled_from(FORMS))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, row: ConversationPair, name: str
) -> None:
    from preceptor.prompts.rows import BadRowError

    write = LAYOUTS[name].write
    assert write is not None
    try:
        written = write(row)
    except BadRowError:
        return  # the layout has no room for this talk
    path = file_of(tmp_path_factory.mktemp("round"), [written])
    how = recognise(path)
    assert (how.layout.name if how.layout else "rows") == name.removesuffix(
        "-text"
    )  # texts are read as trl too
    messages = [(turn["role"], turn["content"]) for turn in row.messages]
    assert talks(path) == [(messages, row.chosen, row.rejected)]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("name", ["trl", "hh", "llama-factory", "pku-saferlhf"])
def test_files_are_converted_and_come_back(tmp_path: Path, name: str, ending: str) -> None:
    source = file_of(
        tmp_path,
        [*ROWS["trl"][:1], {"prompt": "Hm?", "response_a": "1", "response_b": "2", "preferred": "tie"}][:1],
    )
    out = tmp_path / f"out{ending}"
    assert convert(source, out, name, recognise(source)).written == 1
    assert talks(out) == [([("user", Q)], GOOD, BAD)]


def test_what_cannot_be_written_is_counted_and_nothing_is_overwritten(tmp_path: Path) -> None:
    rows = [
        {"prompt": Q, "response_a": "1", "response_b": "2", "preferred": "tie"},
        {"prompt": Q, "response_a": "1", "response_b": "2"},
        {"messages": SYSTEM, "response_a": "1", "response_b": "2", "preferred": "a"},
        {"prompt": Q, "response_a": "1", "response_b": "2", "preferred": "b"},
    ]
    source = file_of(tmp_path, rows)
    made = convert(source, tmp_path / "out.jsonl", "hh", recognise(source))
    assert made.written == 1
    assert made.set_aside == {"a tie": 1, "no reply is preferred": 1, "a system message": 1}
    with pytest.raises(RowsError, match="is the file that is read"):
        convert(source, source, "trl", recognise(source))
    with pytest.raises(RowsError, match="no layout that can be written; wanted one of alpaca-eval, "):
        convert(source, tmp_path / "x.jsonl", "nonsense", recognise(source))
    alone = file_of(tmp_path, rows[:1], "alone.jsonl")
    with pytest.raises(RowsError, match=r"no row can be written as trl \(1: a tie\)"):
        convert(alone, tmp_path / "none.jsonl", "trl", recognise(alone))
    assert not (tmp_path / "none.jsonl").exists()


def test_two_readings_are_named(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, [{"prompt": Q, "chosen": GOOD, "rejected": BAD, "response_a": "x", "response_b": "y"}]
    )
    with pytest.raises(
        RowsError, match=r"in two ways: as rows .* and as trl .*--format rows or --format trl"
    ):
        recognise(path)
    assert talks(path, "trl") == [([("user", Q)], GOOD, BAD)]


def test_two_conversations_are_named_and_the_mapping_decides(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"prompt": "old", "messages": USER, "chosen": GOOD, "rejected": BAD}])
    with pytest.raises(RowsError, match="in the column prompt and in the column messages"):
        recognise(path)
    assert talks(path, columns={"messages": "messages"}) == [([("user", Q)], GOOD, BAD)]
    assert talks(path, columns={"prompt": "prompt"}) == [([("user", "old")], GOOD, BAD)]


def test_an_unknown_file_is_one_clear_error(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"ask": Q, "yes": GOOD, "no": BAD}] * 30)
    with pytest.raises(RowsError) as told:
        pairs_in(path)
    assert str(told.value).count("\n") == 0
    assert "(ask, no, yes)" in str(told.value)
    assert "--map prompt=question" in str(told.value)
    assert (
        talks(path, columns=mapping_of(["prompt=ask", "yes=chosen", "rejected=no"]))
        == [([("user", Q)], GOOD, BAD)] * 30
    )
    with pytest.raises(RowsError, match="no column nope, which is to be chosen; it has ask, no, yes"):
        recognise(path, "rows", {"chosen": "nope"})


@pytest.mark.parametrize(
    ("words", "fault"),
    [("prompt", "no column=field"), ("x=y", "neither is a column of ours"), ("=y", "no column=field")],
)
def test_a_mapping_that_maps_nothing_is_refused(words: str, fault: str) -> None:
    with pytest.raises(RowsError, match=fault):
        mapping_of([words])


def test_one_rows_fault_is_that_rows(tmp_path: Path) -> None:
    rows = [
        *ROWS["pku-saferlhf"] * 3,
        {**ROWS["pku-saferlhf"][0], "response_1": 3.5, "better_response_id": 7},
    ]
    path = file_of(tmp_path, rows)
    with pytest.raises(RowsError, match=r"pairs\.jsonl:4: better_response_id is 7; wanted 0 or 1"):
        list(parsed_pairs(path, lambda row: row, pairs_in(path)))


def test_tools_and_images_are_told_of_before_anything_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "images.parquet"
    picture = {"bytes": b"\xff\xd8", "path": "a.jpg"}
    rows = [{"prompt": Q, "chosen": GOOD, "rejected": BAD, "image": picture, "tools": [{"name": "f"}]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    caplog.set_level("INFO")
    how = recognise(path)
    assert any("left out because JSON cannot hold it: image" in said for said in caplog.messages)
    assert "the column tools is kept, and shown neither to the judge nor to the model" in how.said
    (row,) = in_our_columns(path, how)
    assert isinstance(row, RawRow)
    assert "image" not in row.fields
