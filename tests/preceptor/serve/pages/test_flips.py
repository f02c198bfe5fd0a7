"""What a change of a constitution would flip is what labelling anew would come to, and never costs more than it may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from preceptor.asking.stages import pairs_from
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.settings import LabelSettings
from preceptor.label.replay import altered, chosen_by, open_replay
from preceptor.label.run import Job, label_folder
from preceptor.serve.auth import ANYBODY
from preceptor.serve.config import ServeConfig
from preceptor.serve.desk import Asked
from preceptor.serve.keys import Keyring
from preceptor.serve.pages import flips as module
from preceptor.serve.pages.flips import answers_at_hand, flips
from preceptor.serve.pages.label_sets import LabelSet
from preceptor.serve.problems import Problem
from preceptor.serve.service import open_service
from preceptor.serve.versions import constitution_in
from preceptor.settings import Asking

OWN = """name: own
principles:
  - {id: short, text: Choose the reply that is shorter.}
  - {id: polite, text: Choose the reply that is politer., weight: 0.5}
"""
OTHER = OWN.replace("shorter", "greener")
SCRIPT = (
    {"match": "greener.*odd.*GOOD.*BAD", "text": "Verdict: B"},
    {"match": "greener.*odd.*BAD.*GOOD", "text": "Verdict: A"},
    {"match": "politer.*mild.*GOOD.*BAD", "text": "Verdict: B"},
    {"match": "politer.*mild.*BAD.*GOOD", "text": "Verdict: A"},
    {"match": "GOOD.*BAD", "text": "Verdict: A"},
    {"match": "BAD.*GOOD", "text": "Verdict: B"},
)
LAST, ROWS = 9, 12


class Labelled(NamedTuple):
    """A folder of labels, and what it takes to serve and to make another."""

    root: Path
    set: LabelSet

    @property
    def model(self) -> str:
        return f"scripted/{self.root / 'judge.jsonl'}"

    def label(self, rules: Constitution, out: str) -> LabelFolder:
        job = Job(rules, [([self.model], "true")], LabelSettings(principles="each"))
        rows = list(pairs_from(str(self.root / "pairs.jsonl"), "rows", {}, "keep"))
        label_folder(self.root / out, rows, job, Asking(ledger=str(self.root / f"{out}.db")), progress)
        return LabelFolder(self.root / out)

    def flips(self, rules: Constitution, *budgets_usd: float, **models: Any) -> list[tuple[Any, Asked]]:
        """What comes of asking with each budget, one after the other, and what was asked of the only model by then.
        models: those that are served; else the judge alone."""
        database = f"sqlite:///{self.root / 'serve.db'}"
        config = ServeConfig.model_validate(
            {
                "models": models or {"script": {"model": self.model}},
                "constitutions": {},
                "database": database,
                "folder": str(self.root / "serve"),
            }
        )

        async def work() -> list[tuple[Any, Asked]]:
            keys, came = Keyring(database), []
            async with open_service(config, keys) as service:
                for budget_usd in budgets_usd:
                    try:
                        found: Any = await flips(service, self.set, rules, ANYBODY, budget_usd)
                    except Problem as problem:
                        found = problem
                    came.append((found, service.desk.asked()[0]))
            keys.close()
            return came

        return asyncio.run(work())


@contextmanager
def progress(_: str) -> Iterator[None]:
    yield None


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labelled:
    monkeypatch.setattr(module, "LAST", LAST)
    (tmp_path / "judge.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in SCRIPT))
    words = ("odd", "mild", "plain")
    rows = [
        {
            "id": f"r{at}",
            "prompt": f"Tell me of the {words[at % 3]} lift {at}",
            "response_a": "GOOD" if at % 2 else "BAD",
            "response_b": "BAD" if at % 2 else "GOOD",
        }
        for at in range(ROWS)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = LabelSet("first", "first", tmp_path / "first" / "labels.jsonl", None, None)
    made = Labelled(tmp_path, found)
    made.label(rules(OWN), "first")
    return made


def rules(text: str) -> Constitution:
    return constitution_in(text, "own")


def test_it_is_what_labelling_anew_comes_to(labelled: Labelled) -> None:
    [(came, _)] = labelled.flips(rules(OTHER), 1.0)
    assert (came.judged, came.why_unknown) == (LAST, "")
    first = {label.id: chosen_by(label) for label in LabelFolder(labelled.root / "first").read_labels()}
    again = {label.id: chosen_by(label) for label in labelled.label(rules(OTHER), "again").read_labels()}
    last = list(first)[-LAST:]
    turned = [one for one in last if first[one] and again[one] and first[one] != again[one]]
    assert came.figures["flipped"] == turned
    assert len(turned) == sum(int(one[1:]) % 3 == 0 for one in last)
    assert (came.figures["labels"], came.figures["unknown"]) == (LAST, [])


def test_where_principles_are_left_out_nobody_is_asked(labelled: Labelled) -> None:
    without = altered(rules(OWN), ["short"], {})
    [(came, asked)] = labelled.flips(without, 0.0)
    wanted = open_replay(labelled.root / "first").figures(without, None)["flipped"]
    assert (came.judged, asked.progress.asked) == (0, 0)
    assert wanted
    assert came.figures["flipped"] == [one for one in wanted if int(one[1:]) >= ROWS - LAST]


def test_the_budget_holds_and_what_was_answered_stays(labelled: Labelled) -> None:
    priced = {"model": labelled.model, "price": {"input": 1000.0, "output": 1000.0}}
    (refused, nothing), (whole, paid), (again, after) = labelled.flips(
        rules(OTHER), *(0.0, 1e6, 0.0), script=priced
    )
    assert isinstance(refused, Problem)
    assert "this ask's budget has no room" in str(refused)
    assert (nothing.progress.asked, nothing.progress.cost_usd) == (0, 0.0)
    assert paid.progress.cost_usd > 0
    assert again.figures == whole.figures  # the ledger has every answer
    assert after.progress.cost_usd == paid.progress.cost_usd


def test_a_judge_who_is_not_here_leaves_labels_unknown(labelled: Labelled) -> None:
    (labelled.root / "other.jsonl").write_text(json.dumps(SCRIPT[-1]) + "\n")
    [(came, _)] = labelled.flips(
        rules(OTHER), 1.0, other={"model": f"scripted/{labelled.root / 'other.jsonl'}"}
    )
    assert len(came.figures["unknown"]) == LAST
    assert "is not asked here" in came.why_unknown


def test_only_what_judges_never_see_is_answered_at_hand() -> None:
    own = rules(OWN)
    for part, known in (
        ("weight: 0.5", "weight: 2"),
        ("name: own", "name: own\ndescription: Ours."),
        ("  - {id: short, text: Choose the reply that is shorter.}\n", ""),
    ):
        assert answers_at_hand(own, rules(OWN.replace(part, known)))
    for part, asked in (
        ("shorter", "longer"),
        ("id: short", "id: long"),
        ("weight: 0.5", "check: {max_words: 9}"),
        ("weight: 0.5", "applies_to: [odd]"),
    ):
        assert not answers_at_hand(own, rules(OWN.replace(part, asked)))
