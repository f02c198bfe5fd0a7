"""Executors are compared on the pairs that both have labelled, in whichever order the replies stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.judge.records import Label, Vote
from preceptor.judge.statistics import wilson
from preceptor.prompts.records import Message, Prompt
from preceptor.serve.pages import executors
from preceptor.serve.pages.executors import executor_table
from preceptor.serve.pages.label_sets import LabelSet


def label(number: int, p: float | None, *, turned: bool = False, votes: tuple[float, ...] = ()) -> Label:
    replies = (f"x {number}", f"y {number}")
    if turned and p is not None:
        p = 1 - p
    return Label(
        id=f"l{number}",
        status="unparsed" if p is None else "tie" if p == 0.5 else "ok",
        probability=p,
        prompt=Prompt(id=f"p{number}", messages=(Message(role="user", content=f"Hi {number}"),)),
        response_a=replies[turned],
        response_b=replies[not turned],
        judgements=(),
        votes=tuple(
            Vote(judge=f"j{at}", step=0, status="ok", probability=one) for at, one in enumerate(votes)
        ),
        constitution="c@1#x",
        judge="m",
    )


def labels(folder: Path, judge: str, rows: list[Label], way: str = "joint") -> LabelSet:
    folder.mkdir()
    (folder / "labels.jsonl").write_text("".join(f"{row.line()}\n" for row in rows))
    manifest = {
        "schema": 1,
        "command": "label",
        "constitution": "c@1#x",
        "judge": judge,
        "constitution_content": {},
        "settings": {"principles": way, "panels": [[[judge], "true"]]},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return LabelSet(folder.name, folder.name, folder / "labels.jsonl", None, None)


def test_two_judges_on_the_pairs_that_both_have(tmp_path: Path) -> None:
    one = labels(tmp_path / "a", "m", [label(at, 0.9) for at in range(5)])
    said = (0.9, 0.9, 0.1, 0.5, None)
    rows = [label(at, p, turned=at % 2 == 1) for at, p in enumerate(said)] + [label(9, 0.1)]
    other = labels(tmp_path / "b", "n", rows)
    found = executor_table([one, other])
    assert [(each.judge, n) for each, n in found.executors] == [("m", 5), ("n", 5)]
    [pair] = found.agreeing
    assert {pair.one.judge, pair.other.judge} == {"m", "n"}
    assert pair.agree == wilson(2, 4)
    assert (found.panels, found.cut) == ([], [])


def test_the_way_of_judging_makes_another_executor_and_parts_of_one_add_up(tmp_path: Path) -> None:
    sets = [
        labels(tmp_path / "a", "m", [label(1, 0.9)]),
        labels(tmp_path / "b", "m", [label(2, 0.9)]),
        labels(tmp_path / "c", "m", [label(1, 0.1), label(2, 0.9)], way="each"),
    ]
    found = executor_table(sets)
    assert [(each.way, n) for each, n in found.executors] == [("joint", 2), ("each", 2)]
    assert [each.agree for each in found.agreeing] == [wilson(1, 2)]


def test_a_panel_has_its_matrix(tmp_path: Path) -> None:
    rows = [label(at, 0.9, votes=votes) for at, votes in enumerate([(0.9, 0.9), (0.9, 0.1), (0.1, 0.1)])]
    [panel] = executor_table([labels(tmp_path / "a", "j0 + j1", rows)]).panels
    assert panel.judges == ["j0", "j1"]
    assert panel.figures["matrix"]["j0"]["j1"] == {"share": pytest.approx(2 / 3), "n": 3}


def test_what_cannot_be_read_is_left_out_and_a_long_set_is_cut_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "MOST_ROWS", 2)
    broken, bare = labels(tmp_path / "a", "m", []), labels(tmp_path / "b", "m", [])
    broken.path.write_text("no label\n")
    (bare.path.parent / "manifest.json").unlink()
    long = labels(tmp_path / "c", "n", [label(at, 0.9) for at in range(3)])
    found = executor_table([broken, bare, long])
    assert [(each.judge, n) for each, n in found.executors] == [("n", 2)]
    assert found.cut == ["c"]
