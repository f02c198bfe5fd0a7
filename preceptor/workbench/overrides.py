"""Where people chose otherwise than the judge -> changes to a constitution, each with what it would put right.

A change is taken by what it adds on the learning pairs to the agreement with people, with what it puts wrong counted
against it. What the changed constitution is worth is said on pairs at which no choice has looked.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from preceptor.constitution.edit import Document, with_principle, with_wording, without_principle
from preceptor.constitution.forms.draft import DraftPrinciple, named, one_line
from preceptor.constitution.lint import NEAR, likeness
from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.aggregate import majority, sum_up, weights, winner
from preceptor.judge.compare import JOINT
from preceptor.judge.dataset.clashes import choices
from preceptor.judge.records import Judgement, Label, Letter, Pair, Response
from preceptor.prompts.recipes import objects_in
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.prompts.rows import BadRowError, RawRow, parsed_rows
from preceptor.workbench.induction import LONGEST_SHOWN, ReconstructionFigures, reconstructed
from preceptor.workbench.settings import InductionSettings

LETTERS: Mapping[str, Letter] = {"a": "a", "b": "b", "tie": "tie"}
NO_VERDICT = ("skipped", "")
COLUMNS = ("correction", "verdict", "preferred")
"""Of the pages' corrections, of a blind check's verdicts, of gold."""
ChangeKind = Literal["reword", "add", "remove"]
ASK = """\
A judge compares replies to requests by these principles:

{principles}

People looked at decisions of the judge and chose the other reply. Find what the principles leave out or say wrongly, \
so that a judge who goes by them would choose as the people do.

Propose one to three changes. Give one JSON object a line and nothing else, each in one of these forms
{{"change": "reword", "id": "the principle's id", "principle": "Choose the reply that ..."}}
{{"change": "add", "principle": "Choose the reply that ..."}}
{{"change": "remove", "id": "the principle's id"}}

"""


class HumanOpinion(NamedTuple):
    """What one person says of one label."""

    id: str
    """The label's."""
    letter: Letter | None
    """None: skipped."""
    reason: str
    person: str


class HumanChoice(NamedTuple):
    """What people say of a label."""

    label: Label
    letter: Letter
    reasons: tuple[str, ...]


class HumanChoices(NamedTuple):
    """Of several labels; and what is left out of them."""

    made: tuple[HumanChoice, ...]
    """Those that choose one of two replies that differ."""
    ties: int
    disagreed: int
    """Labels about which as many people say one thing as another."""
    unknown: int
    """Opinions about labels that are not there."""


class Change(NamedTuple):
    """A change to a constitution."""

    kind: ChangeKind
    id: str
    """The principle's; of one that is added, its new one."""
    text: str
    """The new wording; empty for `remove`."""
    proposed: int
    """How often, in these words or nearly these; 0: nobody proposed it, and it is tried all the same."""


class EditFigures(TypedDict):
    """A change that was taken, and what it does on the learning pairs, with those taken before it."""

    change: ChangeKind
    id: str
    text: str
    proposed: int
    agreement_before: float
    """With people; an undecided pair counts half."""
    agreement_after: float
    put_right: list[str]
    """Ids of pairs."""
    put_wrong: list[str]


def opinions_in(file: str | Path) -> list[HumanOpinion]:
    """Of corrections, of a blind check's verdicts, or of pairs with `preferred`. Raises RowsError."""
    return list(parsed_rows(file, _opinion))


def _opinion(row: RawRow) -> HumanOpinion:
    fields = row.fields
    name = next((one for one in COLUMNS if fields.get(one) is not None), None)
    identity = fields.get("id")
    if name is None or not isinstance(identity, str) or not identity:
        raise BadRowError(
            f"columns {', '.join(map(str, fields)) or 'none'}", f"id, and one of {', '.join(COLUMNS)}"
        )
    said = str(fields[name])
    if said not in LETTERS and said not in NO_VERDICT:
        raise BadRowError(f"{name}: {said[:40]!r}", "a, b, tie or skipped")
    person = fields.get("person") or fields.get("author") or ""
    return HumanOpinion(identity, LETTERS.get(said), str(fields.get("reason") or ""), str(person))


def human_choices(opinions: Iterable[HumanOpinion], labels: Iterable[Label]) -> HumanChoices:
    """What most people say of each label; of one person who says several things, the last."""
    there = {label.id: label for label in labels}
    said: dict[str, dict[str, HumanOpinion]] = {}
    unknown = 0
    for number, one in enumerate(opinions):
        if one.id not in there:
            unknown += 1
        elif one.letter is not None:
            said.setdefault(one.id, {})[one.person or f"row {number}"] = one
    made: list[HumanChoice] = []
    counts: Counter[str] = Counter()
    for identity, by in said.items():
        label, letter = there[identity], majority(one.letter for one in by.values() if one.letter is not None)
        if letter is None:
            counts["disagreed"] += 1
        elif letter == "tie" or label.response_a == label.response_b:
            counts["ties"] += 1
        else:
            reasons = tuple(one.reason for one in by.values() if one.letter == letter and one.reason)
            made.append(HumanChoice(label, letter, reasons))
    return HumanChoices(tuple(made), counts["ties"], counts["disagreed"], unknown)


def proposing_changes(
    overridden: Sequence[HumanChoice],
    constitution: Constitution,
    before: Mapping[str, Label],
    settings: InductionSettings,
) -> list[Prompt]:
    """The asks for changes, each from several pairs on which people chose otherwise.

    before: pair -> its label, principle by principle.
    """
    rules = "\n".join(f"[{one.id}] {one.text}" for one in constitution.principles)
    head = ASK.format(principles=rules)
    asks = []
    for start in list(range(0, len(overridden), settings.shown))[: settings.proposals]:
        some = overridden[start : start + settings.shown]
        text = head + "\n\n".join(_shown(one, choices(before[one.label.id])) for one in some)
        asks.append(Prompt(id=content_id("change", text), messages=(Message(role="user", content=text),)))
    return asks


def _shown(one: HumanChoice, chosen: Mapping[str, Letter]) -> str:
    label = one.label
    texts = (label.response_a, label.response_b)
    better, worse = texts if one.letter == "a" else (texts[1], texts[0])
    with_people = [name for name, letter in chosen.items() if letter == one.letter]
    against = [name for name, letter in chosen.items() if letter not in (one.letter, "tie")]
    parts = [
        ("Request", label.prompt.messages[-1].content),
        ("The people's choice", better),
        ("The other reply", worse),
        ("Principles for the people's choice", ", ".join(with_people) or "none"),
        ("Principles for the other", ", ".join(against) or "none"),
    ]
    if one.reasons:
        parts.append(("Why, in the people's words", " / ".join(one.reasons)))
    return "\n".join(f"{name}: {text[:LONGEST_SHOWN]}" for name, text in parts)


class FoundChanges(NamedTuple):
    """What replies propose, the oftenest first, and what of it is left out."""

    changes: tuple[Change, ...]
    set_aside: dict[str, int]
    """Why -> how often."""


def changes_in(replies: Iterable[Response], constitution: Constitution, most: int) -> FoundChanges:
    """Near ones count as the first of them. `most`: of those that a judge has to be asked about."""
    by_id = {one.id: one for one in constitution.principles}
    found: dict[tuple[ChangeKind, str, str], int] = {}
    aside: Counter[str] = Counter()
    for reply in replies:
        if reply.status not in ("ok", "truncated"):
            aside[f"replies that are {reply.status}"] += 1
            continue
        for one in objects_in(reply.text):
            kind, identity = one.get("change"), str(one.get("id") or "")
            text = one_line(str(one.get("principle") or ""))
            if kind == "add" and text:
                _count(found, "add", "", text)
            elif identity not in by_id:
                aside["changes that name no principle of the constitution"] += 1
            elif kind == "remove":
                _count(found, "remove", identity, "")
            elif kind == "reword" and by_id[identity].check:
                aside["wordings of a principle that a machine check decides"] += 1
            elif kind == "reword" and text and text != by_id[identity].text:
                _count(found, "reword", identity, text)
            else:
                aside["changes that say nothing new"] += 1
    for name in by_id:  # costs no call, so that each is tried
        found.setdefault(("remove", name, ""), 0)
    ordered = sorted(found.items(), key=lambda item: -item[1])
    in_words = [(key, count) for key, count in ordered if key[0] != "remove"][:most]
    adding = [key for key, _ in in_words if key[0] == "add"]
    drafts = [DraftPrinciple(one.text, id=one.id) for one in by_id.values()]
    drafts += [DraftPrinciple(text) for *_, text in adding]
    ids = dict(zip(adding, (name for name, _ in named(drafts)[len(by_id) :]), strict=True))
    changes = [Change(key[0], ids.get(key, key[1]), key[2], count) for key, count in in_words]
    changes += [Change("remove", key[1], "", count) for key, count in ordered if key[0] == "remove"]
    return FoundChanges(tuple(changes), dict(aside))


def _count(found: dict[tuple[ChangeKind, str, str], int], kind: ChangeKind, identity: str, text: str) -> None:
    near = (one for one in found if one[:2] == (kind, identity) and likeness(one[2], text) >= NEAR)
    key = next(near, (kind, identity, text)) if text else (kind, identity, text)
    found[key] = found.get(key, 0) + 1


def worded(changes: Sequence[Change], constitution: Constitution) -> Constitution | None:
    """What a judge has to be asked about, each change that has words as a principle `change-N`; None: nothing."""
    by_id = {one.id: one for one in constitution.principles}
    made = []
    for number, one in enumerate(changes):
        base = by_id[one.id] if one.kind == "reword" else Principle(id="x", text="x")
        if one.kind != "remove":
            made.append(base.model_copy(update={"id": f"change-{number}", "text": one.text, "over": ()}))
    return Constitution(name="changes", principles=tuple(made)) if made else None


def changed(constitution: Constitution, changes: Iterable[Change]) -> Constitution:
    """With these changes."""
    made = constitution
    for one in changes:
        if one.kind == "remove":
            made = made.without({one.id})
        elif one.kind == "add":
            added = Principle(id=one.id, text=one.text)
            made = made.model_copy(update={"principles": (*made.principles, added)})
        else:
            principles = (
                rule.model_copy(update={"text": one.text}) if rule.id == one.id else rule
                for rule in made.principles
            )
            made = made.model_copy(update={"principles": tuple(principles)})
    return made


class Trial:
    """What labels would be under changes, from judgements of each principle and each wording alone."""

    def __init__(
        self,
        constitution: Constitution,
        changes: Sequence[Change],
        before: Iterable[Label],
        by_change: Iterable[Label],
    ) -> None:
        """by_change: labels under `worded(changes)`."""
        self._constitution = constitution
        self._changes = changes
        self._tags: dict[str, tuple[str, ...]] = {}
        self._judged: dict[str, dict[str, list[Judgement]]] = {}
        for label in (*before, *by_change):
            self._tags[label.id] = label.prompt.tags
            for one in label.judgements:
                # an ask about a single principle is named after it; `joint` comes of no label made one by one
                assert one.principle != JOINT
                self._judged.setdefault(label.id, {}).setdefault(one.principle, []).append(one)

    def said(self, pair: str, taken: Sequence[Change]) -> Letter | None:
        """The winner of a pair's label; None: there is none."""
        rules = changed(self._constitution, taken).for_prompt(self._tags[pair])
        source = {one.id: f"change-{self._changes.index(one)}" for one in taken if one.kind != "remove"}
        judged = self._judged.get(pair, {})
        judgements = [
            one.model_copy(update={"principle": rule.id})
            for rule in rules
            for one in judged.get(source.get(rule.id, rule.id), ())
        ]
        if not judgements:
            return None
        added = sum_up(judgements, weights(rules))
        decided = added.status == "ok" and added.probability is not None
        return winner(added.probability or 0.0) if decided else None

    def worth(self, pairs: Sequence[Pair], taken: Sequence[Change]) -> float:
        """Share of pairs on which people are met; an undecided one counts half."""
        points = 0.0
        for pair in pairs:
            said = self.said(pair.id, taken)
            points += 0.5 if said is None else said == pair.preferred
        return points / len(pairs)

    def figures(self, pairs: Sequence[Pair], taken: Sequence[Change]) -> ReconstructionFigures:
        """How far labels meet people."""
        return reconstructed("each", pairs, {pair.id: self.said(pair.id, taken) for pair in pairs})

    def moved(
        self, pairs: Sequence[Pair], earlier: Sequence[Change], later: Sequence[Change]
    ) -> tuple[list[str], list[str]]:
        """Ids of the pairs that the later changes put right, and of those that they put wrong or undecide."""
        was = {pair.id: self.said(pair.id, earlier) == pair.preferred for pair in pairs}
        now = {pair.id: self.said(pair.id, later) == pair.preferred for pair in pairs}
        return [name for name in was if now[name] > was[name]], [
            name for name in was if now[name] < was[name]
        ]


def chosen_changes(
    trial: Trial,
    changes: Sequence[Change],
    pairs: Sequence[Pair],
    constitution: Constitution,
    settings: InductionSettings,
) -> tuple[list[Change], list[EditFigures]]:
    """Greedily, each time the one that adds most; at most one of each principle, and one principle always stays."""
    taken: list[Change] = []
    found: list[EditFigures] = []
    value = trial.worth(pairs, ())
    while len(taken) < settings.most:
        ids = {one.id for one in taken}
        rest = [one for one in changes if one.id not in ids]
        rest = [
            one for one in rest if one.kind != "remove" or len(changed(constitution, taken).principles) > 1
        ]
        worths = [trial.worth(pairs, [*taken, one]) for one in rest]
        best = max(range(len(rest)), key=lambda n: (worths[n], rest[n].proposed), default=None)
        if best is None or worths[best] <= value + settings.least_gain:
            break
        right, wrong = trial.moved(pairs, taken, [*taken, rest[best]])
        taken.append(rest[best])
        found.append(
            {
                "change": rest[best].kind,
                "id": rest[best].id,
                "text": rest[best].text,
                "proposed": rest[best].proposed,
                "agreement_before": value,
                "agreement_after": worths[best],
                "put_right": right,
                "put_wrong": wrong,
            }
        )
        value = worths[best]
    return taken, found


def edited(document: Document, taken: Iterable[EditFigures]) -> Document:
    """The file with the changes. A principle that it extends is reworded by one of its own with the same id."""
    for one in taken:
        if one["change"] == "remove":
            document = without_principle(document, one["id"])
        elif one["change"] == "add":
            document = with_principle(document, Principle(id=one["id"], text=one["text"]))
        elif one["id"] in document.own_ids:
            document = with_wording(document, one["id"], one["text"])
        else:
            inherited = next(rule for rule in document.constitution.principles if rule.id == one["id"])
            document = with_principle(document, inherited.model_copy(update={"text": one["text"]}))
    return document


def removable(changes: Iterable[Change], document: Document) -> tuple[Change, ...]:
    """Without the removals of principles that a file which this one extends has, or that stand in an `over`."""
    rules = document.constitution.principles
    named_over = {name for one in rules for name in one.over}
    own = document.own_ids
    return tuple(
        one for one in changes if one.kind != "remove" or (one.id in own and one.id not in named_over)
    )


def evidence(taken: Iterable[EditFigures], changes: Document) -> str:
    """The changes as a diff of the file, over it what speaks for each."""
    lines = []
    for one in taken:
        by = (
            f"proposed {one['proposed']} times"
            if one["proposed"]
            else "proposed by nobody, tried all the same"
        )
        lines.append(
            f"# {one['change']} {one['id']}: {by}; agreement with people on the learning pairs "
            f"{one['agreement_before']:.3f} -> {one['agreement_after']:.3f}"
        )
        lines += [
            f"#   {what}: {', '.join(ids)}"
            for what, ids in (("put right", one["put_right"]), ("put wrong", one["put_wrong"]))
            if ids
        ]
    name = str(changes.path)
    diff = difflib.unified_diff(
        changes.read.splitlines(), changes.text.splitlines(), name, f"{name} (proposed)", lineterm=""
    )
    return "\n".join([*lines, *diff])
