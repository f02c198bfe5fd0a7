"""A person as a judge: one key a verdict, blind, and the ledger remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preceptor.asking.stages import AskingResult, run_dialogues
from preceptor.constitution.errors import UserError
from preceptor.judge.errors import Rejected
from preceptor.judge.label import label, template_for
from preceptor.judge.models.human import HumanModel, Left, open_model
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.shown import printable
from preceptor.settings import Asking
from tests.judge.canned import BOTH, drive, pair, says


def keys(text: str) -> Callable[[], str]:
    rest: Iterator[str] = iter(text)
    return lambda: next(rest, "q")


def person(pressed: str, shown: list[str] | None = None) -> HumanModel:
    return HumanModel("human", keys(pressed), (shown if shown is not None else []).append)


def pairs(n: int) -> list[Pair]:
    return [pair(f"one {i}", f"other {i}").model_copy(update={"id": f"pair-{i}"}) for i in range(n)]


def judged(model: HumanModel, rows: list[Pair], ledger: Path) -> tuple[list[Label], AskingResult]:
    settings = LabelSettings(principles="each", seed=3)
    template = template_for(model, settings)
    made: list[Label] = []
    dialogues = [label(row, BOTH, model, template, settings) for row in rows]
    asking = Asking(ledger=str(ledger))
    return made, asyncio.run(run_dialogues(dialogues, [model], asking, made.append))


def test_a_key_is_a_verdict_about_the_reply_that_was_shown(tmp_path: Path) -> None:
    """Whatever the order: `a` is the reply shown first, and the row says which of the pair's that was."""
    shown: list[str] = []
    made, _ = judged(person("a" * 12, shown), pairs(12), tmp_path / "ledger.db")
    for row, text in zip(made, shown, strict=True):
        first = text.split("--- Reply A ---\n")[1].split("\n")[0]
        assert row.probability == (1.0 if first == row.response_a else 0.0)
        assert len(row.judgements) == 1
    assert {row.judgements[0].order for row in made} == {"original", "swapped"}


def test_a_person_is_asked_once_about_all_principles_with_a_tie_on_offer(tmp_path: Path) -> None:
    shown: list[str] = []
    (row,), _ = judged(person("xt", shown), pairs(1), tmp_path / "ledger.db")
    assert (row.status, row.judgements[0].principle) == ("tie", "joint")
    assert "Choose the kind reply." in shown[0]
    assert "Choose the true reply." in shown[0]


def test_whoever_stops_goes_on_where_they_left(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    made, asked = judged(person("abq"), pairs(5), ledger)
    assert (len(made), asked.rows) == (2, 2)
    assert isinstance(asked.stopped, Left)
    assert asked.stopped.exit_code == 130
    shown: list[str] = []
    again, asked = judged(person("aba", shown), pairs(5), ledger)
    assert len(shown) == 3
    assert again[:2] == made
    assert asked.stopped is None


def test_a_pair_that_was_left_is_asked_again_next_time(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    made, _ = judged(person("as"), pairs(2), ledger)
    assert sorted(row.status for row in made) == ["failed", "ok"]
    shown: list[str] = []
    made, _ = judged(person("b", shown), pairs(2), ledger)
    assert len(shown) == 1
    assert {row.status for row in made} == {"ok"}


async def test_other_keys_are_passed_over_and_ctrl_c_stops() -> None:
    model = person("zs\x03")
    settings = LabelSettings()
    (_, (request,)) = drive(
        label(pair(), BOTH, model, template_for(model, settings), settings), lambda _: says("Verdict: A")
    )
    with pytest.raises(Rejected):
        await model.complete(request)
    with pytest.raises(Left):
        await model.complete(request)


def test_a_reply_cannot_steer_the_terminal() -> None:
    assert printable("red \x1b[31m\x07text\r\n\tüber") == "red �[31m�text�\n\tüber"


def test_without_a_terminal_there_is_nobody_to_ask() -> None:
    with pytest.raises(UserError, match="a person is asked at a terminal"):
        open_model("human")
