"""KTO: its rows, its neighbours, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.records import Score
from preceptor.prompts.records import Prompt
from preceptor.train.data.unpaired import UnpairedExample, read_unpaired
from preceptor.train.errors import TrainDataError
from preceptor.train.evaluation.compare import reply_logprobs
from preceptor.train.export.write import export
from preceptor.train.kto import kto_rows, train_kto
from preceptor.train.settings import KtoSettings
from tests.train.tiny import preference

PAIRS = [preference(number) for number in range(24)]
VERDICTS = [
    UnpairedExample(id=f"{pair.id}-{good}", prompt=pair.prompt, completion=reply[0].content, good=good)
    for pair in PAIRS
    for good, reply in ((True, pair.chosen), (False, pair.rejected))
]


def score(number: int, reward: float | None) -> Score:
    return Score(
        id=f"score-{number}",
        prompt=Prompt(id=f"p{number}", messages=PAIRS[number].prompt),
        text="please",
        status="unparsed" if reward is None else "ok",
        score=None if reward is None else 5.5 + 4.5 * reward,
        reward=reward,
        parsed=False,
        grades=(),
        constitution="test@1.0.0#000000000000",
        judge="scripted/test",
    )


def test_good_replies_become_likelier_and_bad_ones_less(tiny: Path, tmp_path: Path) -> None:
    settings = KtoSettings(model=str(tiny), epochs=4, learning_rate=5e-3, batch_size=8, rank=4)
    trained = train_kto(VERDICTS, settings, tmp_path / "kto")
    assert trained.rows["in"] == trained.rows["used"] == len(VERDICTS)
    prompts = [row.prompt for row in VERDICTS]
    replies = [row.completion for row in VERDICTS]
    before = reply_logprobs(prompts, replies, str(tiny))
    after = reply_logprobs(prompts, replies, str(tiny), trained.folder)
    gained = [b - a for a, b in zip(before, after, strict=True)]
    good, bad = (
        sum(g for g, row in zip(gained, VERDICTS, strict=True) if row.good is wanted) / len(PAIRS)
        for wanted in (True, False)
    )
    assert good > bad + 2
    assert train_kto(VERDICTS, settings, tmp_path / "kto").finished_before


def test_a_row_is_compared_with_its_neighbours_reply_and_never_with_its_own() -> None:
    """Within its batch; a batch of one takes the reply before it. No row is lost, and the order is the seed's."""
    tokens = [([number], [100 + number]) for number in range(9)]
    good = [number % 2 == 0 for number in range(9)]
    rows = kto_rows(tokens, good, 4, seed=0)
    assert sorted(row["prompt_ids"][0] for row in rows) == list(range(9))
    assert rows == kto_rows(tokens, good, 4, seed=0) != kto_rows(tokens, good, 4, seed=1)
    for row in rows:
        assert row["completion_ids"][0] == 100 + row["prompt_ids"][0]
        assert row["label"] is good[row["prompt_ids"][0]]
        assert row["KL_completion_ids"] != row["completion_ids"]
    for start in (0, 4):
        part = rows[start : start + 4]
        assert {r["KL_completion_ids"][0] for r in part} == {r["completion_ids"][0] for r in part}


def test_verdicts_are_read_from_scores_and_from_trls_rows(tmp_path: Path) -> None:
    """What has no verdict is set aside by its reason."""
    path = tmp_path / "scores.jsonl"
    scores = [score(0, 0.5), score(1, -0.2), score(2, 0.0), score(3, None)]
    path.write_text("".join(row.line() + "\n" for row in scores))
    read = read_unpaired(path)
    assert [(row.id, row.good) for row in read.rows] == [("score-0", True), ("score-1", False)]
    assert {(row.constitution, row.judge) for row in read.rows} == {
        ("test@1.0.0#000000000000", "scripted/test")
    }
    assert read.set_aside == {"its score is on the middle of the scale": 1, "the score is unparsed": 1}
    rows = [
        {"prompt": "Hi?", "completion": "Hello.", "label": True},
        {
            "prompt": [{"role": "user", "content": "Hi?"}],
            "completion": [{"role": "assistant", "content": "No."}],
            "label": False,
        },
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = read_unpaired(path).rows
    assert [(row.completion, row.good) for row in plain] == [("Hello.", True), ("No.", False)]
    columns = {"prompt": "question", "completion": "answer", "label": "thumbs_up"}
    named = [{theirs: row[ours] for ours, theirs in columns.items()} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    assert read_unpaired(path, columns).rows == plain


def test_an_export_names_the_judge_of_the_scores(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(score(number, 0.5 - number % 2).line() + "\n" for number in range(4)))
    settings = KtoSettings(model=str(tiny), batch_size=2, rank=4)
    trained = train_kto(read_unpaired(path).rows, settings, tmp_path / "kto")
    made = export(trained.folder, tmp_path / "out", "adapter")
    assert (made.constitutions, made.judges) == (("test@1.0.0#000000000000",), ("scripted/test",))
    card = (made.folder / "README.md").read_text()
    assert "| judge | `scripted/test` |" in card
    assert "judged by machine and not by people" in card


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi?", "completion": "Hello."}, "label is"),
        ({"prompt": "Hi?", "completion": "Hello.", "label": 1}, "label is"),
        ({"prompt": "Hi?", "label": True}, "completion is"),
        (
            {"prompt": "Hi?", "chosen": "a", "rejected": "b"},
            "the row is a pair; wanted single replies; pairs",
        ),
    ],
)
def test_a_row_that_is_no_verdict_is_named(tmp_path: Path, row: dict[str, object], words: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl:1: {words}"):
        read_unpaired(tmp_path / "rows.jsonl")


def test_replies_of_one_kind_are_refused(tiny: Path, tmp_path: Path) -> None:
    good = [row for row in VERDICTS if row.good]
    with pytest.raises(TrainDataError, match="all 24 replies are good: KTO learns from both"):
        train_kto(good, KtoSettings(model=str(tiny)), tmp_path / "kto")
    assert not (tmp_path / "kto").exists()
