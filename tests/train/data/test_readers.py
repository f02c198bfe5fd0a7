"""Files of preferences and demonstrations, in the forms in which they come and the ways in which they break."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.records import Critique, Response, Revision
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.rows import write_rows
from preceptor.train.data.readers import read_demonstrations, read_preferences
from preceptor.train.errors import TrainDataError
from tests.train.tiny import preference

PAIRS = [preference(number, 0.5 + number / 20) for number in range(5)]
GOOD = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def revision(number: int, status: str, text: str = "Better.") -> Revision:
    prompt = Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number}?"),))
    response = Response(
        id=f"r{number}", prompt=prompt, text="Bad.", model="m", sample=0, status="ok", call="c"
    )
    values = {"id": f"v{number}", "response": response, "drafts": (text,), "calls": ("c",), "text": text}
    critiques = (Critique(principle="polite", text="rude", call="c"),)
    return Revision(**values, critiques=critiques, status=status, constitution="c@1#0", model="m")  # type: ignore[arg-type]


def test_our_own_preferences_come_back_as_they_were(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", PAIRS)
    assert read_preferences(tmp_path / "rows.jsonl").rows == PAIRS


def test_trls_rows_as_texts_and_as_messages_are_the_same_pair(tmp_path: Path) -> None:
    """A missing probability is 1, an unknown column is kept."""
    said = {
        name: [{"role": "user" if name == "prompt" else "assistant", "content": text}]
        for name, text in GOOD.items()
    }
    rows = read_preferences(jsonl(tmp_path / "rows.jsonl", GOOD, {**said, "source": "web"})).rows
    assert rows[0].model_dump(include=set(GOOD)) == rows[1].model_dump(include=set(GOOD))
    assert rows[0].probability == rows[0].margin == 1.0
    assert rows[1].meta == {"source": "web"}
    assert rows[0].id != rows[1].id


def test_a_weight_and_a_margin_of_the_data_are_kept(tmp_path: Path) -> None:
    """A margin that only says the probability again is not."""
    path = jsonl(
        tmp_path / "rows.jsonl",
        {**GOOD, "weight": 2, "margin": 3.5},
        {**GOOD, "probability": 0.75, "margin": 0.5, "id": "x"},
    )
    first, second = read_preferences(path).rows
    assert first.meta == {"weight": 2, "margin": 3.5}
    assert second.meta == {}
    assert (first.margin, second.margin) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{broken", "broken JSON"),
        ([1], "a list; wanted one JSON object"),
        ({"prompt": "Hi?", "chosen": "Hello."}, "no column rejected; wanted prompt, chosen and rejected"),
        ({"chosen": "a", "rejected": "b"}, "neither prompt nor messages"),
        ({**GOOD, "prompt": 3}, "prompt is a number"),
        ({**GOOD, "chosen": 3}, "chosen is a number"),
        ({**GOOD, "chosen": [{"role": "user", "content": "Hi?"}]}, "chosen holds more than the reply"),
        ({**GOOD, "probability": 0.3}, "probability is 0.3; wanted 0.5 to 1"),
        ({**GOOD, "probability": "high"}, "probability is a text; wanted a number"),
        ({**GOOD, "judge": 1}, "judge is a number; wanted a text"),
        ({**GOOD, "weight": -1}, "weight is -1.0; wanted a number that is not negative"),
        ({**GOOD, "weight": "much"}, "weight is a text; wanted a number"),
        ({**GOOD, "margin": -0.5}, "margin is -0.5; wanted a number that is not negative"),
        ({**GOOD, "margin": "inf"}, "margin is inf; wanted a finite number"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, words: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", GOOD, row)
    with pytest.raises(UserError) as caught:
        read_preferences(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_that_hold_nothing_or_are_cut_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no rows"):
        read_preferences(jsonl(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="there is no such file"):
        read_preferences(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="a directory that is no dataset"):
        read_preferences(tmp_path)
    whole = gzip.compress(json.dumps(GOOD).encode() * 500)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="broken or cut short"):
        read_preferences(tmp_path / "cut.jsonl.gz")
    with pytest.raises(UserError, match="no layout 'csv'; wanted one of alpaca-eval, "):
        read_preferences(jsonl(tmp_path / "one.jsonl", GOOD), "csv")


def test_transcripts_give_their_chosen_reply_as_certain(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Tea?\n\nAssistant:"
    row = {"chosen": f"{start} With milk.", "rejected": f"{start} No."}
    (pair,) = read_preferences(jsonl(tmp_path / "hh.jsonl", row), "hh").rows
    assert [message.content for message in pair.prompt] == ["Hi?", "Yes?", "Tea?"]
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("With milk.", "No.")
    assert pair.probability == 1.0


def test_only_revisions_that_went_well_are_learned_and_the_others_are_counted(tmp_path: Path) -> None:
    rows = [revision(0, "ok"), revision(1, "refused"), revision(2, "truncated"), revision(3, "ok", " ")]
    write_rows(tmp_path / "rows.jsonl", rows)
    read = read_demonstrations(tmp_path / "rows.jsonl")
    assert [(row.id, row.completion) for row in read.rows] == [("v0", "Better.")]
    assert [(row.constitution, row.judge) for row in read.rows] == [(rows[0].constitution, "")]
    assert read.set_aside == {
        "the revision is refused": 1,
        "the revision is truncated": 1,
        "the revised reply is empty": 1,
    }


def test_revisions_of_which_none_went_well_are_refused_with_their_count(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [revision(0, "refused"), revision(1, "refused")])
    with pytest.raises(TrainDataError, match=r"no row to train on \(2: the revision is refused\)"):
        read_demonstrations(tmp_path / "rows.jsonl")


def test_plain_rows_of_prompt_and_completion_are_read_too(tmp_path: Path) -> None:
    said = [{"role": "assistant", "content": "Hello."}]
    path = jsonl(
        tmp_path / "rows.jsonl",
        {"prompt": "Hi?", "completion": "Hello."},
        {"prompt": "Ho?", "completion": said},
    )
    plain = read_demonstrations(path).rows
    assert [row.completion for row in plain] == ["Hello.", "Hello."]
    named = {"prompt": "Hi?", "completion": "Hello.", "constitution": "c@1.0.0#0", "judge": "human/ann"}
    (told,) = read_demonstrations(jsonl(tmp_path / "named.jsonl", named)).rows
    assert (told.constitution, told.judge) == ("c@1.0.0#0", "human/ann")
    assert told.line() == plain[0].line()  # the same training, whoever made its rows
    with pytest.raises(UserError, match="judge is a number; wanted a text"):
        read_demonstrations(jsonl(tmp_path / "named.jsonl", {**named, "judge": 1}))
    with pytest.raises(UserError, match=":1: no column completion; wanted prompt and completion"):
        read_demonstrations(jsonl(tmp_path / "bad.jsonl", {"prompt": "Hi?"}))
