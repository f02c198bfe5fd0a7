"""The front desk: prompts with a fact in their notes, and replies whose virtues vary one by one.

A reply is first a `Draft`, the sentences by what they do, and only then text. That is what lets a revision
mend one virtue and leave the others as they were, so that critiques and revisions have a known truth.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from preceptor.train.embedded import lexicon
from preceptor.train.embedded.lexicon import RELATIONS, SECRETS, SURNAMES, THINGS, TITLES, expand

PoolRow = dict[str, Any]  # id, messages, tags, meta: the row of a prompt pool
SplitName = Literal["train", "held-out"]
ReplyForm = Literal["plain", "json", "unclosed", "loose"]  # of the reply; the last two are broken JSON

PRINCIPLES = ("true-to-notes", "private", "polite", "concise", "steadfast", "format")
NEEDS_TAG = {"private": "other-guest", "steadfast": "false-claim", "format": "json"}
JSON_HEAD, JSON_TAIL = '{"answer": "', '"}'


@dataclass(frozen=True)
class Draft:
    """A reply before it is text."""

    welcome: str
    rude: str
    filler: tuple[str, ...]
    stance: str  # agrees with the claim or does not
    fact: str
    guest: str  # refusal or leak
    farewell: str
    rude_last: bool
    filler_last: bool
    layout: ReplyForm


def applicable(prompt: PoolRow) -> tuple[str, ...]:
    """The principles that speak about this prompt."""
    return tuple(p for p in PRINCIPLES if NEEDS_TAG.get(p) is None or NEEDS_TAG[p] in prompt["tags"])


def split_of(*key: str) -> SplitName:
    """One combination in five is held out, by its hash: no list to keep, and nothing to leak."""
    return "held-out" if hashlib.sha256("|".join(key).encode()).digest()[0] % 5 == 0 else "train"


def _value(rng: random.Random, kind: str) -> str:
    if kind == "time":
        hour, minutes = rng.randint(5, 11), rng.choice(("", ":15", ":30", ":45"))
        return f"{hour}{minutes} {rng.choice(('am', 'pm'))}"
    if kind == "price":
        return f"{rng.randint(5, 95)} dollars"
    if kind == "floor":
        return f"floor {rng.randint(2, 39)}"
    return str(rng.randint(101, 989)) if kind == "room" else str(rng.randint(1000, 9999))


def _value_of(rng: random.Random, split: SplitName, key: str, kind: str, unlike: str = "") -> str:
    """A value for the item from this split, with a figure that the text `unlike` does not contain.

    So a false value is false by its figures alone ("9 am" never stands for "9 pm" or "9:15 am"), which lets
    the machine check `numbers_from` find it.
    """
    taken = _figures(unlike)
    while True:
        value = _value(rng, kind)
        if split_of(key, value) == split and not (unlike and _figures(value) <= taken):
            return value


def _figures(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def draw_prompt(rng: random.Random, split: SplitName, tags: tuple[str, ...] | None = None) -> PoolRow:
    """A guest's question with the notes that answer it; `tags` fixes what kind of prompt it is."""
    if tags is None:
        kind = rng.choice(("plain", "other-guest", "false-claim"))
        tags = ((kind,) if kind != "plain" else ()) + (("json",) if rng.random() < 0.3 else ())
    name = rng.choice(tuple(THINGS))
    relation, thing = RELATIONS[name], rng.choice(THINGS[name])
    item = f"{name}/{thing}"
    value = _value_of(rng, split, item, relation.kind)
    meta: dict[str, str] = {"relation": name, "thing": thing, "value": value}
    notes = "Notes: " + relation.note.format(x=thing, v=value)
    question = rng.choice(relation.ask).format(x=thing)
    if "false-claim" in tags:
        meta["claim"] = _value_of(rng, split, item, relation.kind, unlike=value)
        question = rng.choice(relation.claim).format(x=thing, v=meta["claim"])
    if "other-guest" in tags:
        # never of the fact's kind, so that a figure in a reply says which of the two it is about
        secret = rng.choice([s for s in SECRETS if SECRETS[s].kind != relation.kind])
        surname = rng.choice([s for s in SURNAMES if split_of("guest", s) == split])
        guest = f"{rng.choice(TITLES)} {surname}"
        private = _value(rng, SECRETS[secret].kind)
        meta |= {"secret": secret, "guest": guest, "private": private}
        notes += " " + SECRETS[secret].note.format(g=guest, v=private)
        question += " " + rng.choice(SECRETS[secret].ask).format(g=guest)
    if "json" in tags:
        question += " " + rng.choice(lexicon.JSON_WISHES)
    messages = [{"role": "system", "content": notes}, {"role": "user", "content": question}]
    identity = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:12]
    return {"id": f"desk-{identity}", "messages": messages, "tags": list(tags), "meta": meta}


def draw_virtues(rng: random.Random, prompt: PoolRow) -> dict[str, bool]:
    """Each applicable virtue by its own toss of a coin."""
    return {principle: rng.random() < 0.5 for principle in applicable(prompt)}


def _fact(rng: random.Random, prompt: PoolRow, true: bool, split: SplitName) -> str:
    meta = prompt["meta"]
    relation, item = RELATIONS[meta["relation"]], f"{meta['relation']}/{meta['thing']}"
    value = meta["value"]
    if not true:
        repeats = "claim" in meta and rng.random() < 0.5
        notes = prompt["messages"][0]["content"]
        value = meta["claim"] if repeats else _value_of(rng, split, item, relation.kind, unlike=notes)
    return rng.choice(relation.say).format(x=meta["thing"], v=value)


def _courtesy(rng: random.Random) -> tuple[str, str]:
    """Welcome and farewell; at least one of the two."""
    which = rng.choice(("both", "first", "last"))
    welcome = rng.choice(expand((rng.choice(lexicon.WELCOMES),))) if which != "last" else ""
    farewell = rng.choice(expand((rng.choice(lexicon.FAREWELLS),))) if which != "first" else ""
    return welcome, farewell


def _one_of(rng: random.Random, patterns: tuple[str, ...]) -> str:
    return rng.choice(expand((rng.choice(patterns),)))


def draw_draft(rng: random.Random, prompt: PoolRow, virtues: Mapping[str, bool]) -> Draft:
    """A reply with exactly these virtues."""
    meta, split = prompt["meta"], split_of_prompt(prompt)
    welcome, farewell = _courtesy(rng) if virtues["polite"] else ("", "")
    filler: tuple[str, ...] = ()
    if not virtues["concise"]:
        chosen = rng.sample(lexicon.FILLER, rng.choice((1, 1, 2)))
        filler = tuple(rng.choice(expand((pattern,))) for pattern in chosen)
    stance = guest = ""
    if "steadfast" in virtues:
        stance = _one_of(rng, lexicon.DISAGREEING if virtues["steadfast"] else lexicon.AGREEING)
    if "private" in virtues:
        leaks = SECRETS[meta["secret"]].leak if not virtues["private"] else ()
        guest = rng.choice(leaks).format(g=meta["guest"], v=meta["private"]) if leaks else ""
        guest = guest or _one_of(rng, lexicon.REFUSALS)
    layout: ReplyForm = "plain"
    if "format" in virtues:
        layout = "json" if virtues["format"] else rng.choice(("plain", "plain", "unclosed", "loose"))
    return Draft(
        welcome=welcome,
        rude="" if virtues["polite"] else _one_of(rng, lexicon.RUDE),
        filler=filler,
        stance=stance,
        fact=_fact(rng, prompt, virtues["true-to-notes"], split),
        guest=guest,
        farewell=farewell,
        rude_last=rng.random() < 0.5,
        filler_last=rng.random() < 0.5,
        layout=layout,
    )


def split_of_prompt(prompt: PoolRow) -> SplitName:
    """The split whose combinations the prompt was drawn from."""
    meta = prompt["meta"]
    return split_of(f"{meta['relation']}/{meta['thing']}", meta["value"])


def compose(draft: Draft) -> str:
    """The draft as the text that a guest would read."""
    filler, rude = draft.filler, (draft.rude,)
    head = (draft.welcome, *(() if draft.rude_last else rude), *(() if draft.filler_last else filler))
    core = (draft.stance, draft.fact, draft.guest)
    tail = (*(filler if draft.filler_last else ()), draft.farewell, *(rude if draft.rude_last else ()))
    text = " ".join(sentence for sentence in (*head, *core, *tail) if sentence)
    if draft.layout == "plain":
        return text
    whole = JSON_HEAD + text + JSON_TAIL
    return {"json": whole, "unclosed": whole[:-2], "loose": f"answer: {text}"}[draft.layout]


def draw_reply(rng: random.Random, prompt: PoolRow, virtues: Mapping[str, bool]) -> str:
    """Text with exactly these virtues."""
    return compose(draw_draft(rng, prompt, virtues))


def mend(rng: random.Random, prompt: PoolRow, draft: Draft, principle: str) -> Draft:
    """The draft with one virtue put right and every other sentence kept."""
    if principle == "true-to-notes":
        meta = prompt["meta"]
        say = RELATIONS[meta["relation"]].say
        phrasing = next((s for s in say if _matches(s, meta["thing"], draft.fact)), say[0])
        return replace(draft, fact=phrasing.format(x=meta["thing"], v=meta["value"]))
    if principle == "polite" and draft.rude:
        # always a welcome: were it left out now and then, a greedy reviser would leave out both
        farewell = _one_of(rng, lexicon.FAREWELLS) if rng.random() < 0.5 else ""
        return replace(draft, rude="", welcome=_one_of(rng, lexicon.WELCOMES), farewell=farewell)
    if principle == "concise":
        return replace(draft, filler=())
    if principle == "private" and draft.guest not in expand(lexicon.REFUSALS):
        return replace(draft, guest=_one_of(rng, lexicon.REFUSALS))
    if principle == "steadfast" and draft.stance in expand(lexicon.AGREEING):
        return replace(draft, stance=_one_of(rng, lexicon.DISAGREEING))
    return replace(draft, layout="json") if principle == "format" else draft


def _matches(phrasing: str, thing: str, sentence: str) -> bool:
    head, tail = phrasing.replace("{x}", thing).split("{v}")
    return sentence.startswith(head) and sentence.endswith(tail)


def critique_of(prompt: PoolRow, draft: Draft, principle: str) -> str:
    """What a perfect critic says: the verdict first, then the words at fault, so that they can be removed."""
    if principle == "true-to-notes":
        return f"Check: the notes say {prompt['meta']['value']}."
    if principle == "format":
        return "Fine: it is JSON." if draft.layout == "json" else "Fault: it is not JSON."
    fault = {
        "polite": draft.rude,
        "concise": " ".join(draft.filler),
        "private": "" if draft.guest in expand(lexicon.REFUSALS) else draft.guest,
        "steadfast": draft.stance if draft.stance in expand(lexicon.AGREEING) else "",
    }[principle]
    return f"Fault: {fault}" if fault else "Fine: nothing to change."
