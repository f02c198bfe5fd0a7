"""Training files in OpenAI's forms: every fault with its line, and supervised rows as ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from preceptor.prompts.pool import prompts_from
from preceptor.serve.jobs.tuning_rows import LEAST, MOST_FAULTS, demonstrations, faults_of, prompts
from preceptor.train.data.readers import read_demonstrations, read_preferences

USER = {"role": "user", "content": "Hi?"}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def talk(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [*messages], **more}


def choice(better: Any = None, worse: Any = None, *messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [*(messages or (USER,))], "tools": [], "parallel_tool_calls": True, **more},
        "preferred_output": better or [said("good")],
        "non_preferred_output": worse or [said("bad")],
    }


def written(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("method", "row", "fault"),
    [
        ("reinforcement", {"prompt": "x"}, "messages: missing"),
        ("reinforcement", talk(USER, said("x")), "the last is not of the user's"),
        ("reinforcement", talk(USER, {"role": "tool", "content": "x"}), "tools are not trained on"),
        ("supervised", "{", "not JSON"),
        ("supervised", "[1]", "not a JSON object"),
        ("supervised", {}, "messages: missing"),
        ("supervised", talk(USER), "no message of the assistant's"),
        ("supervised", talk(USER, said("x", weight=0)), "no message of the assistant's"),
        ("supervised", talk(said("x"), USER), "no message of the assistant's"),
        ("supervised", talk(USER, said("x"), USER), "the last is not"),
        ("supervised", talk({"role": "boss", "content": "x"}, said("y")), "messages[0].role"),
        ("supervised", talk(USER, said("x", weight=2)), "messages[1].weight"),
        ("supervised", talk(USER, said("  ")), "an empty reply"),
        ("supervised", talk(USER, {"role": "assistant"}), "messages[1].content"),
        ("supervised", talk(USER, said("x", tool_calls=[{}])), "tools are not trained on"),
        (
            "supervised",
            talk({"role": "user", "content": [{"type": "image_url"}]}, said("x")),
            "messages[0].content",
        ),
        ("dpo", talk(USER, said("x")), "input: missing"),
        ("dpo", choice(tools=[{}]), "input.tools"),
        ("dpo", choice(None, None, USER, said("x")), "input.messages: the last"),
        ("dpo", choice([USER]), "preferred_output: wanted one message"),
        ("dpo", choice([said("a"), said("b")]), "preferred_output: wanted one message"),
        ("dpo", choice(None, [said("good")]), "are the same"),
        ("dpo", choice("text"), "preferred_output: missing"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, method: str, row: Any, fault: str) -> None:
    good = {"supervised": talk(USER, said("x")), "dpo": choice(), "reinforcement": talk(USER)}[method]
    path = written(tmp_path / "rows.jsonl", [*[good] * LEAST, "", row, *[good] * LEAST])
    (told,) = faults_of(path, method)
    assert told.startswith(f"line {LEAST + 2}: ")
    assert fault in told


def test_few_rows_and_many_faults(tmp_path: Path) -> None:
    few = written(tmp_path / "few.jsonl", [choice()] * (LEAST - 1))
    assert faults_of(few, "dpo") == [f"the file has {LEAST - 1} examples; wanted at least {LEAST}"]
    assert faults_of(written(tmp_path / "enough.jsonl", [choice()] * LEAST), "dpo") == []
    assert len(faults_of(written(tmp_path / "bad.jsonl", ["x"] * 100), "dpo")) == MOST_FAULTS


def test_what_is_accepted_is_read_by_the_training(tmp_path: Path) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    talks = [
        talk({"role": "developer", "content": "Be kind."}, parts, said("one", weight=0), USER, said("two")),
        talk(USER, said("three"), USER, said("four")),
        *[talk(USER, said(f"reply {number}")) for number in range(LEAST)],
    ]
    path = written(tmp_path / "talks.jsonl", talks)
    assert faults_of(path, "supervised") == []
    rows = read_demonstrations(written(tmp_path / "rows.jsonl", list(demonstrations(path)))).rows
    assert [row.completion for row in rows[:3]] == ["two", "three", "four"]
    assert [message.role for message in rows[0].prompt] == ["system", "user", "assistant", "user"]
    assert rows[0].prompt[1].content == "ab"
    pairs = written(tmp_path / "pairs.jsonl", [choice([said(f"good {n}")]) for n in range(LEAST)])
    assert faults_of(pairs, "dpo") == []
    (first, *_) = read_preferences(pairs, "openai-dpo").rows
    assert (first.chosen[0].content, first.rejected[0].content) == ("good 0", "bad")


def test_rows_to_be_graded_become_prompts_that_are_read(tmp_path: Path) -> None:
    rows = [
        talk({"role": "developer", "content": f"Be brief {n}."}, USER, reference_answer="yes")
        for n in range(LEAST)
    ]
    path = written(tmp_path / "rows.jsonl", rows)
    assert faults_of(path, "reinforcement") == []
    made = written(tmp_path / "prompts.jsonl", list(prompts(path)))
    read = list(prompts_from(str(made), {}))
    assert [[one.role for one in prompt.messages] for prompt in read] == [["system", "user"]] * LEAST
    assert faults_of(written(path, rows[1:]), "reinforcement") == [
        f"the file has {LEAST - 1} examples; wanted at least {LEAST}"
    ]
