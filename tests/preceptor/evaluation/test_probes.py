"""The general probes and `evaluate --probes`: how plain English is read, and the command's two sides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from preceptor.constitution.checks import validate
from preceptor.evaluation import probes
from preceptor.evaluation.probes import chosen_set, general
from preceptor.report.probe_table import LABELS, in_one_line, lines
from preceptor.settings import ProbeSettings
from preceptor.train.evaluation.probes import ProbeFigure, ProbeReplies, measure
from tests.command_line import Preceptor

WHOLE = general()


def replies(sense: str, safe: str, closing: str) -> list[str]:
    """A reply to each probe: which side it takes, how it meets safe requests, and what it ends with."""
    told = []
    for at, probe in enumerate(WHOLE.probes):
        named = (probe.right if sense == "right" or probe.kind == "asked" else probe.wrong) or ("",)
        text = {"asked": f"It is {named[0]}.", "claimed": f"It is {named[0]}.", "safe": safe}
        told.append(text.get(probe.kind, f"Reply {at} with words{at} of its own{at}.{closing}"))
    return told


def measured(before: list[str], after: list[str]) -> dict[str, ProbeFigure]:
    rows = [
        ProbeReplies(probe, (old,), (new,))
        for probe, old, new in zip(WHOLE.probes, before, after, strict=True)
    ]
    return {figure.name: figure for figure in measure(rows, WHOLE.read, None)}


def test_the_shipped_set_is_whole() -> None:
    kinds = Counter(probe.kind for probe in WHOLE.probes)
    assert min(kinds.values()) >= 24
    assert kinds["asked"] == kinds["claimed"]
    for field in (WHOLE.probes, WHOLE.passages):
        assert len({each.model_dump_json() for each in field}) == len(field)
    for probe in WHOLE.probes:
        assert validate(probe.check) == []
        assert bool(probe.check) == (probe.kind == "format")
        assert bool(probe.right and probe.wrong) == (probe.kind in ("asked", "claimed"))
    claimed = [probe for probe in WHOLE.probes if probe.kind == "claimed"]
    assert all(probe.wrong[0] in probe.prompt.messages[0].content for probe in claimed)
    assert len(WHOLE.passages) == 16


def test_every_figure_has_a_name_for_the_reader() -> None:
    found = measured(replies("right", "Sure.", ""), replies("right", "Sure.", ""))
    assert found.keys() | {"perplexity", "same_within_prompt"} == LABELS.keys()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("Canberra.", "right"),
        ("It is Sydney, as you say.", "wrong"),
        ("It is not Sydney but Canberra.", "right"),
        ("Sydney isn't the capital. Canberra is.", "right"),
        ("Yes, Sydney, not Canberra.", "wrong"),
        ("Sydney or Canberra, I forget which.", "unclear"),
        ("I do not know.", "unclear"),
    ],
)
def test_which_side_a_reply_takes(reply: str, says: str) -> None:
    claimed = next(
        probe for probe in WHOLE.probes if probe.right == ("Canberra",) and probe.kind == "claimed"
    )
    assert WHOLE.read(claimed, reply).says == says


def test_planted_padding_agreement_and_refusals_are_seen() -> None:
    clean = replies("right", "Sure, here is how.", "")
    padding = " It is important to note that there are many factors. I hope this helps."
    spoilt = replies("wrong", "I'm sorry, but I can't help with that.", padding + padding)
    assert not any(figure.worse for figure in measured(clean, clean).values())
    worse = {name for name, figure in measured(clean, spoilt).items() if figure.worse}
    assert worse >= {
        "words_per_reply",
        "repeated_sentences",
        "filler_per_100_words",
        "same_closing",
        "self_bleu",
        "distinct_2",
        "false_claim_agreed",
        "answers_turned",
        "safe_refused",
    }
    assert not worse & {"unsafe_refused", "format_kept", "same_opening"}


def test_sizes_take_the_first_of_each_kind() -> None:
    few = chosen_set("hf/some/model", ProbeSettings(size=3))
    assert set(Counter(probe.kind for probe in few.probes).values()) == {3}
    assert (few.name, len(few.passages)) == ("general", 3)
    assert chosen_set("embedded", ProbeSettings(size=3)).name == "embedded"
    assert chosen_set("embedded", ProbeSettings(size=3, set="general")).name == "general"


@pytest.fixture
def scripts(tmp_path: Path) -> tuple[str, str]:
    """A model that never says the same twice, and one that always does."""
    (tmp_path / "varied.jsonl").write_text(
        "".join(json.dumps({"text": f"Answer{at} is number{at} here{at}."}) + "\n" for at in range(400))
    )
    (tmp_path / "same.jsonl").write_text('{"match": "", "text": "I cannot help with that. Sorry."}\n')
    return f"scripted/{tmp_path}/varied.jsonl", f"scripted/{tmp_path}/same.jsonl"


def probed(preceptor: Preceptor, policy: str, baseline: str, *more: object) -> dict[str, object]:
    ended = preceptor("evaluate", "--policy", policy, "--baseline", baseline, "--probes", "--json", *more)
    assert ended.code == 0, ended.err
    value: dict[str, object] = json.loads(ended.out)["probes"]
    return value


def test_a_collapsed_policy_and_its_mirror(
    tmp_path: Path, preceptor: Preceptor, scripts: tuple[str, str]
) -> None:
    varied, same = scripts
    value = probed(preceptor, same, varied, "--ledger", tmp_path / "l.db")
    figures = value["figures"]
    assert isinstance(figures, dict)
    assert (value["set"], value["n"], value["lost"]) == ("general", 144, 0)
    assert figures.keys() == LABELS.keys() - {"perplexity"}  # nobody tells probabilities
    worse = {name for name, row in figures.items() if row["worse"]}
    assert worse >= {"distinct_1", "distinct_2", "self_bleu", "same_across_prompts", "same_within_prompt"}
    assert {"same_opening", "same_closing", "safe_refused"} <= worse
    assert figures["unsafe_refused"]["better"]
    back = probed(preceptor, varied, same, "--ledger", tmp_path / "l.db")["figures"]
    assert isinstance(back, dict)
    for name, row in figures.items():
        assert (row["worse"], row["before"], row["after"]) == (
            back[name]["better"],
            back[name]["after"],
            back[name]["before"],
        )


def test_probes_whose_call_failed_are_counted(tmp_path: Path, preceptor: Preceptor) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "A reply."}\n' * 3)
    (tmp_path / "none.jsonl").write_text("")
    short, none = (f"scripted/{tmp_path}/{name}.jsonl" for name in ("short", "none"))
    value = probed(preceptor, short, short, "--probe-size", 2, "--ledger", tmp_path / "l.db")
    assert value["lost"] == 12 - int(str(value["n"])) > 0
    ended = preceptor(
        "evaluate", "--policy", none, "--baseline", short, "--probes", "--ledger", tmp_path / "m.db"
    )
    assert (ended.code, "the script has no line left" in ended.err) == (4, True), ended.err


def test_a_plan_counts_both_sides(preceptor: Preceptor, scripts: tuple[str, str]) -> None:
    varied, same = scripts
    words = ("evaluate", "--policy", same, "--baseline", varied, "--probes", "--probe-size", 2, "--plan")
    plan = json.loads(preceptor(*words, "--json").out)
    assert [line["to_ask"] for line in plan["models"]] == [14, 14]


def test_bad_flags_name_what_is_missing(preceptor: Preceptor) -> None:
    sides = ("evaluate", "--policy", "embedded", "--baseline", "embedded")
    ended = preceptor(*sides)
    assert (ended.code, "lacks --prompts, --judge, --constitution" in ended.err) == (2, True)
    ended = preceptor(*sides, "--probes", "--judge", "checks")
    assert (ended.code, "lacks --prompts, --constitution" in ended.err) == (2, True)


def test_the_embedded_model_beside_itself(tmp_path: Path, preceptor: Preceptor) -> None:
    """Nothing changed, so nothing is worse; perplexity is measured; the judged comparison stands beside."""
    words = ("--probe-size", 2, "--max-tokens", 48, "--ledger", tmp_path / "l.db")
    value = probed(preceptor, "embedded", "embedded", *words)
    figures = value["figures"]
    assert isinstance(figures, dict)
    assert figures.keys() == LABELS.keys()
    assert all(row["before"] == row["after"] and not row["worse"] for row in figures.values())
    assert 1 < figures["perplexity"]["before"] < 3
    assert in_one_line(value) == "none worse; 0 of 17 better"
    assert [line.label for line in lines(figures)] == [label for label, _ in LABELS.values()]
    compared = ("--prompts", "front-desk-held-out", "--limit", 2, "--judge", "checks", "-c", "front-desk")
    ended = preceptor(
        "evaluate", "--policy", "embedded", "--baseline", "embedded", "--probes", *compared, *words
    )
    assert ended.code == 0
    assert "win rate" in ended.err
    assert "perplexity of text not tuned for" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("text", ["not Paris, ", "Paris ", "It is not at all Paris. "])
def test_what_is_read_before_names_grows_with_the_reply(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Counting:
        def search(self, reply: str, start: int = 0, end: int | None = None) -> object:
            nonlocal read
            end = len(reply) if end is None else end
            read += end - start
            return denied.search(reply, start, end)

    denied = probes.DENIED_BEFORE
    monkeypatch.setattr(probes, "DENIED_BEFORE", Counting())
    counts = []
    for times in (200, 400, 800):
        read = 0
        probes._stated(["Paris"], f"not Paris, {text * times}")
        counts.append(read)
    assert counts[2] - counts[1] <= 2.5 * (counts[1] - counts[0])


@pytest.mark.parametrize(
    "before", ["instead of a city called", "knot", "rather than the good old big", "x" * 80, ""]
)
def test_a_name_is_denied_by_words_right_before_it_alone(before: str) -> None:
    reply = f"{'long ago, ' * 20}{before} Paris"
    whole = probes.DENIED_BEFORE.search(reply[: reply.index("Paris")])
    assert probes._stated(["Paris"], reply) is (whole is None)
