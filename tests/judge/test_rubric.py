"""Rubrics: what criteria add up to, files of five forms, and criteria asked about in the way of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preceptor.constitution.errors import UserError
from preceptor.judge.models.protocol import Failure, Outcome, Request
from preceptor.judge.records import RubricScore
from preceptor.judge.rubric import BINARY, Criterion, Rubric, asked_as, decoupled, rubric_sum, scored
from preceptor.judge.rubric_forms import FORMS, RubricForm, read_rubric, write_rubric
from preceptor.judge.score import ReplyToScore, score, template_for
from preceptor.judge.settings import ScoreSettings
from tests.judge.canned import Absent, drive, prompt, says

STEADY = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
"""For a machine that is busy."""

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=40)
PLAIN = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cc", "Cs")), min_size=1
)
WEIGHT = st.floats(0.1, 50)


@st.composite
def rubrics(draw: st.DrawFn, form: RubricForm) -> Rubric:
    """One that the form can say."""
    names = draw(st.lists(st.from_regex(r"\A[a-z][a-z0-9]{0,5}\Z"), min_size=1, max_size=4, unique=True))
    lacks = FORMS[form].lacks
    words = TEXT if form in ("healthbench", "openenv") else PLAIN
    criteria = []
    for at, name in enumerate(names):
        sign = -1 if at and form != "verifiers" and draw(st.booleans()) else 1
        weight = draw(WEIGHT) * (1e-4 if sign < 0 and form == "openenv" else 1) * sign
        choices = BINARY
        if "choices" not in lacks and draw(st.booleans()):
            choices = tuple(
                draw(st.lists(st.from_regex(r"\A[a-z]{1,6}\Z"), min_size=2, max_size=5, unique=True))
            )
        veto = "veto" not in lacks and sign > 0 and draw(st.booleans())
        more: dict[str, Any] = {}
        if form == "preceptor":
            more = {"applies_to": tuple(draw(st.lists(st.sampled_from("xyz"), unique=True)))}
        criteria.append(
            Criterion(name=name, text=draw(words), weight=weight, veto=veto, choices=choices, **more)
        )
    return Rubric(name="some", criteria=tuple(criteria))


@pytest.mark.parametrize("form", FORMS)
@STEADY
@given(data=st.data())
def test_what_is_written_is_read_again(
    form: RubricForm, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rubric = data.draw(rubrics(form))
    path = tmp_path_factory.mktemp("forms") / f"some{FORMS[form].suffix}"
    path.write_text(write_rubric(rubric, form), encoding="utf-8")
    read = read_rubric(path)
    if form == "openenv":  # its weights add up to 1
        total = sum(one.weight for one in rubric.criteria)
        assert [one.weight for one in read.criteria] == pytest.approx(
            [one.weight / total for one in rubric.criteria]
        )
        same = [
            a.model_copy(update={"weight": b.weight})
            for a, b in zip(read.criteria, rubric.criteria, strict=True)
        ]
        assert same == list(rubric.criteria)
    else:
        assert read == rubric


def test_files_of_the_field_are_known_by_sight(tmp_path: Path) -> None:
    files = {
        "a.toml": '[[criteria]]\nname = "cites"\ntext = "Names its sources."\nchoices = ["none", "some", "all"]\n',
        "b.yaml": "- weight: 10.0\n  requirement: Contains a greeting\n- weight: -3\n  requirement: Swears\n",
        "c.json": '{"rubrics": [{"criterion": "Says to see a doctor", "points": 5, "tags": ["axis:x"]}]}',
        "d.json": '{"type": "LLMJudge"}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    first = read_rubric(tmp_path / "a.toml").criteria[0]
    assert (first.name, first.choices, first.weight) == ("cites", ("none", "some", "all"), 1.0)
    second = read_rubric(tmp_path / "b.yaml").criteria
    assert [(one.name, one.weight) for one in second] == [("c1", 10.0), ("c2", -3.0)]
    assert read_rubric(tmp_path / "c.json").criteria[0].weight == 5
    for name in ("d.json", "nowhere.yaml"):
        with pytest.raises(UserError, match=name):
            read_rubric(tmp_path / name)


def test_what_a_form_cannot_say_is_refused() -> None:
    greets = Criterion(name="greets", text="Greets.", veto=True)
    swears = Criterion(name="swears", text="Swears.", weight=-2.0)
    for form, criteria, word in (
        ("verifiers", (greets,), "veto of the criterion greets"),
        ("verifiers", (greets.model_copy(update={"veto": False}), swears), "no weight below 0"),
        ("healthbench", (greets.model_copy(update={"veto": False, "choices": ("a", "b")}),), "choices"),
        ("openenv", (greets.model_copy(update={"weight": 1.0}), swears), "add up to 0"),
        (
            "openenv",
            (greets.model_copy(update={"weight": 9.0}), swears.model_copy(update={"veto": True})),
            "no gate",
        ),
    ):
        with pytest.raises(UserError, match=word):
            write_rubric(Rubric(name="x", criteria=criteria), form)  # type: ignore[arg-type]
    for criteria in ((greets, greets), (swears,)):
        with pytest.raises(ValidationError):
            Rubric(name="x", criteria=criteria)


GOOD = Criterion(name="good", text="Good.", weight=3.0)
BRIEF = Criterion(name="brief", text="Brief.", weight=1.0)
RUDE = Criterion(name="rude", text="Rude.", weight=-2.0, veto=True)


@STEADY
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.49))
def test_a_score_is_the_weighted_share_and_moves_with_every_criterion(a: float, b: float, c: float) -> None:
    found = rubric_sum((GOOD, BRIEF, RUDE), {"good": a, "brief": b, "rude": c})
    assert found.score == pytest.approx(min(1.0, max(0.0, (3 * a + b - 2 * c) / 4)))
    better = rubric_sum((GOOD, BRIEF, RUDE), {"good": 1.0, "brief": b, "rude": 0.0})
    assert (better.score or 0.0) >= (found.score or 0.0)


def test_a_veto_is_worth_nothing_and_the_unknown_is_never_nothing() -> None:
    every = (GOOD, BRIEF, RUDE)
    vetoed = rubric_sum(every, {"good": 1.0, "brief": 1.0, "rude": 0.9})
    assert (vetoed.score, vetoed.vetoed) == (0.0, ("rude",))
    must = GOOD.model_copy(update={"veto": True})
    assert rubric_sum((must, BRIEF), {"good": 0.2, "brief": 1.0}).vetoed == ("good",)
    assert rubric_sum(every, {"good": None, "brief": 1.0, "rude": 0.0}) == ("ok", 1.0, (), ("good",))
    assert rubric_sum(every, {"good": 1.0, "brief": 1.0, "rude": None}).score is None
    assert rubric_sum((GOOD,), {"good": None}).score is None


def test_criteria_are_asked_one_by_one_and_checks_decide_theirs() -> None:
    rubric = Rubric(
        name="mine",
        criteria=(
            GOOD,
            RUDE.model_copy(update={"veto": False}),
            Criterion(name="short", text="Short.", check={"max_words": 3}),
            Criterion(name="elsewhere", text="Not here.", applies_to=("other",)),
        ),
    )
    reply = ReplyToScore("r", prompt(), "one two")
    settings = ScoreSettings(principles="each")

    def answer(request: Request) -> Outcome:
        if "Good." in request.messages[0].content:
            return says("Score: 10")
        return says("Score: 1")

    said, asked = drive(
        score(reply, asked_as(rubric), Absent(), template_for(Absent(), settings), settings), answer
    )
    assert [request.principle for request in asked] == ["good", "rude"]
    made = scored(rubric, reply, said)
    assert made.met == {"good": 1.0, "rude": 0.0, "short": 1.0}
    assert (made.score, made.reward, made.status) == (1.0, 1.0, "ok")
    failed, _ = drive(
        score(
            reply,
            asked_as(Rubric(name="x", criteria=(GOOD,))),
            Absent(),
            template_for(Absent(), settings),
            settings,
        ),
        lambda _: Failure(kind="failed", problem="down"),
    )
    lost = scored(Rubric(name="x", criteria=(GOOD,)), reply, failed)
    assert (lost.status, lost.score, lost.reward, lost.unjudged) == ("failed", None, None, ("good",))


def replies(*met: dict[str, float | None], vetoed: int | None = None) -> list[RubricScore]:
    """Scores of replies to one prompt, by how far each meets the criteria."""
    return [
        RubricScore(
            id=str(number),
            prompt=prompt(),
            text="",
            status="ok",
            score=0.5,
            reward=0.0,
            met=values,
            vetoed=("a",) if number == vetoed else (),
            grades=(),
            rubric="r#0",
            judge="j",
        )
        for number, values in enumerate(met)
    ]


TWO = Rubric(name="two", criteria=(Criterion(name="a", text="A."), Criterion(name="b", text="B.", weight=-3)))


def test_each_criterion_counts_by_its_weight_however_little_it_varies() -> None:
    """a varies ten times as much as b: normalised they weigh 1 and 3, and the sum over a prompt is 0."""
    met = [{"a": a, "b": b} for b in (0.5, 0.6) for a in (1.0, 0.0)]
    found = decoupled(TWO, replies(*met))
    assert found == pytest.approx([(1 + 3) / 4, (-1 + 3) / 4, (1 - 3) / 4, (-1 - 3) / 4])


def test_what_is_alike_or_unknown_moves_no_reward() -> None:
    assert decoupled(TWO, replies({"a": 1.0, "b": 0.2}, {"a": 1.0, "b": 0.2})) == [0.0, 0.0]
    known, unknown = decoupled(TWO, replies({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": None}))
    assert (known, unknown) == (pytest.approx(0.25), pytest.approx(-1.0))
    unscored = replies({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0})
    unscored[0] = unscored[0].model_copy(update={"score": None, "status": "failed"})
    assert decoupled(TWO, unscored) == [None, 0.0]


def test_a_broken_veto_is_the_worst_of_all() -> None:
    first, second = decoupled(TWO, replies({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0}, vetoed=0))
    assert first is not None
    assert second is not None
    assert (first, second) == (pytest.approx(-1.0), pytest.approx(1.0))
