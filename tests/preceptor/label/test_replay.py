"""Labels replayed from judgements are those that a judge asked under the other constitution would have given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.groupings import PairGrouping
from preceptor.judge.label import template_for
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.cascade import Judge, Step, label_by_steps
from preceptor.label.replay import Replayed, altered, figures, replayed
from preceptor.label.run import Job
from preceptor.prompts.records import Message, Prompt
from tests.command_line import Preceptor
from tests.judge.canned import drive

IDS = ("one", "two", "three", "tagged", "short")
RULES = Constitution(
    name="rules",
    principles=(
        Principle(id="one", text="Choose the first kind.", over=("two", "short")),
        Principle(id="two", text="Choose the second kind.", weight=2),
        Principle(id="three", text="Choose the third kind.", weight=0.5),
        Principle(id="tagged", text="Choose the tagged kind.", applies_to=("red",)),
        Principle(id="short", text="Choose the short reply.", check={"max_words": 3}),
    ),
)
PAIRS = [
    Pair(
        id=f"p{n}",
        prompt=Prompt(
            id=f"q{n}", messages=(Message(role="user", content=f"q {n}"),), tags=("red",) if n % 2 else ()
        ),
        response_a="same" if n == 0 else "one two three four" if n % 3 else "a b",
        response_b="same" if n == 0 else f"c {n}",
        preferred="a",
    )
    for n in range(6)
]


def says(request: Request) -> Completion:
    """A verdict by the hash of what is asked, and now and then none at all."""
    words = "\n".join(message.content for message in request.messages)
    drawn = int(hashlib.sha256(f"{request.model}{words}".encode()).hexdigest(), 16)
    letters = [*request.menu.values(), "no verdict at all"]
    return Completion(text=letters[drawn % len(letters)], finish_reason="stop")


def labelled(constitution: Constitution, job: Job) -> list[Label]:
    """As `label` makes them."""
    steps = tuple(
        Step(tuple(Judge(model, template_for(model, job.settings)) for model in map(_model, names)), when)
        for names, when in job.panels
    )
    return [drive(label_by_steps(pair, constitution, steps, job.settings, "mean"), says)[0] for pair in PAIRS]


def _model(name: str) -> ScriptedModel:
    return ScriptedModel([], name=name)


def job_of(way: PairGrouping, judges: int, escalates: bool) -> Job:
    names = [f"scripted/{n}" for n in range(judges)]
    panels = [(names, "")]
    if escalates:
        panels.append((["scripted/last"], 'status != "ok"'))
    return Job(RULES, panels, LabelSettings(principles=way, tie=True))


CHANGES = st.tuples(
    st.lists(st.sampled_from(IDS), unique=True, max_size=3),
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([0.0, 0.25, 1.0, 3.0]), max_size=3),
)


@settings(max_examples=30, deadline=None)
@given(CHANGES, st.sampled_from(["joint", "each", "sample"]), st.integers(1, 2), st.booleans())
def test_a_replayed_label_is_the_one_that_would_have_been_asked_for(
    change: tuple[list[str], Mapping[str, float]], way: PairGrouping, judges: int, escalates: bool
) -> None:
    job = job_of(way, judges, escalates)
    without, weight = change[0], {name: one for name, one in change[1].items() if name not in change[0]}
    try:
        rules = altered(RULES, without, weight)
    except UserError:
        return
    wanted = labelled(rules, job)
    found = list(replayed(labelled(RULES, job), job, rules))
    assert len(found) == len(wanted)
    for one, asked in zip(found, wanted, strict=True):
        if one.after is not None:
            calls = {judgement.call for judgement in asked.judgements}
            assert calls <= {judgement.call for judgement in one.before.judgements}
            assert one.after == asked
    if way == "each" and not escalates:
        assert all(one.after is not None for one in found)
    counts = figures(found, RULES, rules)
    sets = [counts["flipped"], counts["new_tie"], counts["undecided"], counts["decided"], counts["unknown"]]
    assert counts["same"] + sum(map(len, sets)) == counts["labels"] == len(PAIRS)
    kept = counts["preferences"]
    unseen = sum(one.before.status == "ok" for one in found if one.after is None)
    assert kept["before"] - kept["lost"] + kept["gained"] - unseen == kept["after"]


def test_what_a_judge_weighed_together_is_unknown_under_other_weights() -> None:
    job = job_of("joint", 1, False)
    found = list(replayed(labelled(RULES, job), job, altered(RULES, [], {"one": 5.0})))
    assert [one.became for one in found[1:]] == ["unknown"] * (len(PAIRS) - 1)
    assert found[0].after is not None  # equal replies, about which nobody is asked
    check_alone = list(replayed(labelled(RULES, job), job, altered(RULES, ["short"], {})))
    assert all(one.after is not None for one in check_alone)


def test_a_label_that_would_go_on_to_a_judge_who_never_saw_it_is_unknown() -> None:
    job = Job(
        RULES, [(["scripted/0"], ""), (["scripted/last"], 'status != "ok"')], LabelSettings(principles="each")
    )
    labels = labelled(RULES, job)
    alone = [label for label in labels if not label.votes and label.status == "ok"]
    assert alone
    for name in IDS[:4]:
        for one in replayed(alone, job, altered(RULES, [name], {})):
            assert one.after is None or one.after.status == "ok"


def test_each_word_for_a_change() -> None:
    before = labelled(RULES, job_of("each", 1, False))[1]

    def became(was: tuple[str, float | None], now: tuple[str, float | None]) -> str:
        one, other = (
            before.model_copy(update={"status": status, "probability": probability})
            for status, probability in (was, now)
        )
        return Replayed(one, other).became

    assert became(("ok", 0.9), ("ok", 0.6)) == "same"
    assert became(("ok", 0.9), ("ok", 0.1)) == "flipped"
    assert became(("ok", 0.9), ("tie", 0.5)) == "new_tie"
    assert became(("ok", 0.9), ("inconsistent", None)) == "undecided"
    assert became(("tie", 0.5), ("ok", 0.1)) == "decided"
    assert became(("tie", 0.5), ("inconsistent", None)) == "same"


@pytest.mark.parametrize(
    ("without", "weight", "said"),
    [
        (["nine"], {}, "no principle 'nine'"),
        (["one"], {"one": 2.0}, "name it once"),
        (list(IDS), {}, "no principle would be left"),
        ([], {"two": 2.0}, "nothing would change"),
    ],
)
def test_a_change_that_is_none(without: list[str], weight: Mapping[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        altered(RULES, without, weight)


def test_the_command_writes_a_folder_that_proves_itself(
    tmp_path: Path, preceptor: Preceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(
        "name: rules\nprinciples:\n"
        "  - {id: brief, text: Choose the brief one., check: {max_words: 3}}\n"
        "  - {id: words, text: Choose the long one., weight: 3, check: {min_words: 3}}\n"
        "  - {id: plain, text: Choose the plain one., check: {forbid: ['!']}}\n"
    )
    rows = [
        {
            "id": f"p{n}",
            "prompt": f"q {n}",
            "response_a": "so it is" if n else "so!",
            "response_b": "it is so indeed",
        }
        for n in range(3)
    ]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = preceptor("label", "pairs.jsonl", "-c", "rules.yaml", "--judge", "checks", "--out", "labels")
    assert made.code == 0, made.err
    before = Path("labels/labels.jsonl").read_bytes()
    ended = preceptor(
        "constitution",
        "replay",
        "labels",
        "--without",
        "words",
        "--weights",
        "brief=2,plain=1",
        "--out",
        "new",
        "--json",
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["labels"], found["unknown"], found["out"]) == (3, [], "new")
    assert found["flipped"] == ["p0"]
    assert found["preferences"]["turned"] == 1
    assert Path("labels/labels.jsonl").read_bytes() == before
    assert not Path(".preceptor").exists() or "calls asked" not in ended.err
    assert preceptor("verify", "new").code == 0
    over = preceptor("constitution", "replay", "labels", "--without", "words", "--out", "labels")
    assert (over.code, "would be written over" in over.err) == (2, True), over.err
    for words, said in (
        (("--weights", "brief"), "ID=NUMBER"),
        (("--weights", "brief=-1"), "from 0"),
        ((), "nothing"),
    ):
        wrong = preceptor("constitution", "replay", "labels", *words)
        assert (wrong.code, said in wrong.err) == (2, True), wrong.err
    nowhere = preceptor("constitution", "replay", "rules.yaml", "--without", "words")
    assert (nowhere.code, "holds no labels" in nowhere.err) == (2, True), nowhere.err
