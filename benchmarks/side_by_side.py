"""A judge without order beside itself in both orders, untuned and tuned, and what it saves where it is certified.

    python benchmarks/side_by_side.py [--train 600] [--pairs 600] [--gold 300] [--judge hf/FOLDER]
    python benchmarks/side_by_side.py --data DATA --judge smollm2 --pairs 100

Pairs of the embedded model's world; those that are judged are of prompts that no model saw. The embedded judge in both
orders, principle by principle, labels `--train` pairs, on which `preceptor train judge` tunes an adapter (none is tuned
where --judge names one). Then three ways judge `--pairs` others: both orders, side by side, and side by side as tuned.
Accuracy is against the world's oracle. The gate plays the judge in both orders as the dear one: half of the pairs are
certified by up to `--gold` of the others, which hold its verdicts.

With --data (as `real_labels.py` has it), pairs that GPT-4 has judged: is the judge in both orders, and side by side, of
GPT-4's opinion, and could it stand in for it? Only replies of up to 600 characters, all principles in one ask.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.files import load
from preceptor.constitution.principle import Constitution
from preceptor.judge.aggregate import winner
from preceptor.judge.audit.certify import Refused, certify
from preceptor.judge.label import label, template_for
from preceptor.judge.models.protocol import Completion, Dialogue
from preceptor.judge.models.registry import open_model
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.judge.voting.confidence import confidence
from preceptor.prompts.records import Message, Prompt
from preceptor.train.embedded.oracle import oracle
from preceptor.train.embedded.world import PoolRow, SplitName, compose, draw_draft, draw_prompt, draw_virtues

RULES = load("front-desk")
TARGETS = (0.8, 0.9, 0.95)
SHORT = 600
"""Characters of a reply, at most, of the recorded pairs."""
say = partial(print, flush=True)


class Drawn(NamedTuple):
    """A pair and the world's prompt behind it."""

    prompt: PoolRow
    pair: Pair


class Judged(NamedTuple):
    """What one way of judging came to."""

    labels: list[Label]
    tokens: int
    calls: int


def drawn(count: int, seed: str, split: SplitName) -> Iterator[Drawn]:
    """Two independent replies to each prompt of one side of the world."""
    rng = random.Random(seed)
    for number in range(count):
        asked = draw_prompt(rng, split)
        a, b = (compose(draw_draft(rng, asked, draw_virtues(rng, asked))) for _ in range(2))
        prompt = Prompt(
            id=f"{seed}-{number}",
            messages=tuple(Message.model_validate(one) for one in asked["messages"]),
            tags=tuple(asked["tags"]),
        )
        yield Drawn(asked, Pair(id=prompt.id, prompt=prompt, response_a=a, response_b=b))


def judged(name: str, settings: LabelSettings, rows: Sequence[Drawn], rules: Constitution = RULES) -> Judged:
    """Every pair labelled by one judge."""
    judge = open_model(name, dtype="float32")
    template = template_for(judge, settings)
    tokens: list[int] = []

    async def carried_out(dialogue: Dialogue[Label]) -> Label:
        answers: list[Completion] | None = None
        while True:
            try:
                requests = next(dialogue) if answers is None else dialogue.send(answers)
            except StopIteration as end:
                made: Label = end.value
                return made
            answers = await asyncio.gather(*map(judge.complete, requests))
            tokens.extend(answer.tokens_in for answer in answers)

    async def every() -> list[Label]:
        try:
            asks = [label(row.pair, rules, judge, template, settings) for row in rows]
            return await asyncio.gather(*map(carried_out, asks))
        finally:
            await judge.close()

    return Judged(asyncio.run(every()), sum(tokens), len(tokens))


def right_by_principle(rows: Sequence[Drawn], labels: Sequence[Label]) -> dict[str, list[bool]]:
    """Whether a principle's judgements, averaged over orders, name the reply that alone satisfies it."""
    found: dict[str, list[bool]] = {}
    for row, made in zip(rows, labels, strict=True):
        satisfied = [oracle(row.prompt, text) for text in (row.pair.response_a, row.pair.response_b)]
        shares: dict[str, list[float]] = {}
        for one in made.judgements:
            if one.call is not None and one.probability is not None:
                shares.setdefault(one.principle, []).append(one.probability)
        for name, some in shares.items():
            a, b = (each[name] for each in satisfied)
            if a != b:
                found.setdefault(name, []).append((sum(some) / len(some) > 0.5) == a)
    return found


def flips(labels: Sequence[Label]) -> str:
    """Share of a principle's judgements whose two orders name different replies; none where there is no order."""
    changed: list[bool] = []
    for made in labels:
        by: dict[str, dict[str, float]] = {}
        for one in made.judgements:
            if one.call is not None and one.probability is not None:
                by.setdefault(one.principle, {})[one.order] = one.probability
        changed += [
            winner(each["original"]) != winner(each["swapped"]) for each in by.values() if len(each) == 2
        ]
    return f"{sum(changed) / len(changed):.3f}" if changed else "0 by construction"


def tuned(rows: Sequence[Drawn], folder: Path, epochs: float) -> str:
    """The adapter's name as a judge."""
    from preceptor.train.data.judged_pairs import judged_pairs
    from preceptor.train.judge import train_judge
    from preceptor.train.settings import JudgeSettings

    labels = judged("embedded", LabelSettings(principles="each"), rows).labels
    settings = JudgeSettings(epochs=epochs, learning_rate=2e-3, held_out=0.1)
    train_judge(list(judged_pairs(labels, RULES)), settings, folder, constitution=RULES)
    return f"hf/{folder}"


def gate(dear: Sequence[Label], cheap: Sequence[Label], target: float, gold: int) -> str:
    """A row: what is certified of the cheap judge by the dear one's verdicts, and what that is worth on other rows."""
    both = [
        (
            confidence(one) or 0.0,
            one.probability is not None and winner(one.probability) == winner(other.probability),
        )
        for one, other in zip(cheap, dear, strict=True)
        if other.status == "ok" and other.probability is not None
    ]
    known, rest = both[: len(both) // 2][:gold], both[len(both) // 2 :]
    found = certify([sure for sure, _ in known], [right for _, right in known], target)
    if isinstance(found, Refused):
        return f"{target} | {len(known)} | refused: {found.reason} | 0 | – |"
    kept = [right for sure, right in rest if sure >= found.threshold]
    agreed = (sum(kept) + len(rest) - len(kept)) / len(rest)
    of_kept = f"{sum(kept) / len(kept):.3f}" if kept else "–"
    return f"{target} | {len(known)} | {of_kept} | {len(kept) / len(rest):.3f} | {agreed:.3f} |"


def recorded(data: Path, count: int) -> list[Pair]:
    """GPT-4's verdicts as gold; which reply is a is drawn."""
    from real_labels import training_pool

    rng = random.Random(0)
    pool = [one for one in training_pool(data) if max(len(one.better), len(one.worse)) <= SHORT]
    rows = []
    for number, one in enumerate(rng.sample(pool, min(count, len(pool)))):
        better = rng.choice(("a", "b"))
        sides = (one.better, one.worse) if better == "a" else (one.worse, one.better)
        messages = tuple(Message.model_validate({"role": role, "content": text}) for role, text in one.turns)
        rows.append(
            Pair.model_validate(
                {
                    "id": str(number),
                    "prompt": Prompt(id=str(number), messages=messages),
                    "response_a": sides[0],
                    "response_b": sides[1],
                    "preferred": better,
                }
            )
        )
    return rows


def beside_gpt4(name: str, pairs: Sequence[Pair], gold: int) -> None:
    """Print how often a judge is of GPT-4's opinion, and what a certificate says of that."""
    rules = load("helpful-harmless")
    said = [
        Label.model_validate(
            {
                **pair.model_dump(),
                "status": "ok",
                "probability": 1.0 if pair.preferred == "a" else 0.0,
                "judgements": (),
                "constitution": rules.identity,
                "judge": "GPT-4",
            }
        )
        for pair in pairs
    ]
    say("| | calls | tokens | of GPT-4's opinion | inconsistent |")
    say("|---|---:|---:|---:|---:|")
    for orders in ("both", "none"):
        settings = LabelSettings.model_validate({"orders": orders})
        made = judged(name, settings, [Drawn({}, pair) for pair in pairs], rules)  # type: ignore[typeddict-item]
        right = sum(
            one.probability is not None and winner(one.probability) == one.preferred for one in made.labels
        )
        apart = sum(one.status == "inconsistent" for one in made.labels)
        say(f"| {orders} | {made.calls} | {made.tokens} | {right} of {len(pairs)} | {apart} |")
        for target in TARGETS:
            say(f"stands in at {gate(said, made.labels, target, gold)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--gold", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--judge", default="")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    if options.data is not None:
        beside_gpt4(options.judge or "smollm2", recorded(options.data, options.pairs), options.gold)
        return
    with tempfile.TemporaryDirectory() as place:
        name = options.judge or tuned(
            list(drawn(options.train, "train", "train")), Path(place) / "judge", options.epochs
        )
        rows = list(drawn(options.pairs, "judged", "held-out"))
        each = LabelSettings(principles="each")
        beside = each.model_copy(update={"orders": "none"})
        ways = {
            "both orders": judged("embedded", each, rows),
            "side by side": judged("embedded", beside, rows),
            "side by side, tuned": judged(name, beside, rows),
        }
    names = sorted(right_by_principle(rows, ways["both orders"].labels))
    say(f"| | calls | tokens | {' | '.join(names)} | all | flips |")
    say(f"|---|---:|---:|{'---:|' * len(names)}---:|---:|")
    for way, made in ways.items():
        found = right_by_principle(rows, made.labels)
        cells = [f"{sum(found[one]) / len(found[one]):.3f}" for one in names]
        every = [hit for some in found.values() for hit in some]
        whole = f"{sum(every) / len(every):.3f} of {len(every)}"
        say(
            f"| {way} | {made.calls} | {made.tokens} | {' | '.join(cells)} | {whole} | {flips(made.labels)} |"
        )
    say("\n| stands in | target | gold | agreement of the kept | calls saved | agreement of all |")
    say("|---|---:|---:|---|---:|---:|")
    for way in ("side by side", "side by side, tuned"):
        for target in TARGETS:
            say(f"| {way} | {gate(ways['both orders'].labels, ways[way].labels, target, options.gold)}")


if __name__ == "__main__":
    main()
