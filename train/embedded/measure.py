"""How well the tiny model judges, mends and chats, on prompts whose combinations it never saw.

python -m train.embedded.measure [--weights DIR] [--count N] [--seed N]
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from preceptor.train.embedded import WEIGHTS, asks
from preceptor.train.embedded.lessons import JUDGED
from preceptor.train.embedded.oracle import oracle
from preceptor.train.embedded.tokens import dialogue
from preceptor.train.embedded.world import (
    NEEDS_TAG,
    PRINCIPLES,
    Draft,
    PoolRow,
    applicable,
    compose,
    critique_of,
    draw_draft,
    draw_prompt,
    draw_virtues,
)

BATCH = 64  # texts in one forward pass

say = partial(print, flush=True)  # this script's tables are its result


class Tiny(NamedTuple):
    """The model with the tokenizer that it was trained with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


class VerdictAgreement(NamedTuple):
    """How one principle's verdicts agree with the oracle."""

    accuracy: float  # both orders averaged
    original: float
    swapped: float
    flip_rate: float  # share of comparisons whose winner depends on the order
    tie_distance: float  # mean |P - 1/2| where the oracle sees no difference


def load(folder: Path = WEIGHTS) -> Tiny:
    """The checkpoint as any user of transformers would load it."""
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))
    return Tiny(AutoModelForCausalLM.from_pretrained(folder), tokenizer)


@torch.no_grad()
def probability_of_a(tiny: Tiny, asked: Sequence[asks.Messages]) -> Tensor:
    """P(" A") against P(" B") after the forced "Verdict:", one forward pass for each ask."""
    letters = [
        tiny.tokenizer(asks.VERDICT + x, add_special_tokens=False)["input_ids"][-1] for x in asks.LETTERS
    ]
    texts = [dialogue(messages) + asks.VERDICT for messages in asked]
    out = []
    for start in range(0, len(texts), BATCH):
        inputs = tiny.tokenizer(
            texts[start : start + BATCH],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = tiny.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=positions,
            logits_to_keep=1,
        ).logits[:, -1]
        out.append(logits[:, letters].softmax(-1)[:, 0])
    return torch.cat(out)


@torch.no_grad()
def reply(
    tiny: Tiny, asked: Sequence[asks.Messages], *, temperature: float, max_tokens: int = 96
) -> list[str]:
    """One reply for each ask; temperature 0 is greedy."""
    texts = [dialogue(messages) for messages in asked]
    sampling: dict[str, float] = {"do_sample": False}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    out: list[str] = []
    for start in range(0, len(texts), BATCH):
        inputs = tiny.tokenizer(
            texts[start : start + BATCH],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        width = inputs["input_ids"].shape[1]
        made = tiny.model.generate(  # type: ignore[operator]
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_tokens,
            **sampling,
        )
        out.extend(tiny.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True))
    return [text.strip() for text in out]


def verdicts(tiny: Tiny, principle: str, count: int, seed: int) -> VerdictAgreement:
    """Fresh held-out comparisons of two independent replies; every second one differs on the principle."""
    rng = random.Random(f"{seed}/{principle}")
    needed = NEEDS_TAG.get(principle)
    asked: list[asks.Messages] = []
    truth: list[int] = []  # 1: a is better, -1: b is, 0: no difference
    while len(truth) < count:
        prompt = draw_prompt(rng, "held-out")
        if needed and needed not in prompt["tags"]:
            continue
        left, right = draw_virtues(rng, prompt), draw_virtues(rng, prompt)
        a, b = (compose(draw_draft(rng, prompt, virtues)) for virtues in (left, right))
        truth.append(left[principle] - right[principle])
        asked.append(asks.compare(prompt["messages"], a, b, principle))
        asked.append(asks.compare(prompt["messages"], b, a, principle))
    probability = probability_of_a(tiny, asked)
    better = torch.stack([probability[0::2], 1 - probability[1::2]])  # (2, N): P(a better) in each order
    sign = torch.tensor(truth)
    differs, wins = sign != 0, sign > 0
    right_of = ((better > 0.5) == wins)[:, differs].float()
    return VerdictAgreement(
        accuracy=((better.mean(0) > 0.5) == wins)[differs].float().mean().item(),
        original=right_of[0].mean().item(),
        swapped=right_of[1].mean().item(),
        flip_rate=((better[0] > 0.5) != (better[1] > 0.5))[differs].float().mean().item(),
        tie_distance=(better.mean(0) - 0.5).abs()[~differs].mean().item(),
    )


@torch.no_grad()
def quotes(tiny: Tiny, count: int, seed: int) -> float:
    """Share of held-out notes whose value the critic would quote right, figure by figure (teacher-forced)."""
    rng = random.Random(f"{seed}/quotes")
    right = 0
    for _ in range(count):
        prompt = draw_prompt(rng, "held-out")
        draft = draw_draft(rng, prompt, draw_virtues(rng, prompt))
        ask = dialogue(asks.critique(prompt["messages"], compose(draft), "true-to-notes"))
        known = tiny.tokenizer(ask, add_special_tokens=False)["input_ids"]
        answer = critique_of(prompt, draft, "true-to-notes")
        wanted = tiny.tokenizer(answer, add_special_tokens=False)["input_ids"]
        logits = tiny.model(input_ids=torch.tensor([known + wanted])).logits[0, len(known) - 1 : -1]
        right += logits.argmax(-1).tolist() == wanted
    return right / count


class Repairs(NamedTuple):
    """What a critique and the revision after it do to a reply that breaks one principle."""

    found: float  # share of critiques that are the perfect critic's, word for word
    mended: float  # share of revisions that satisfy the principle
    kept: float  # share of revisions that lose no other virtue


def repairs(tiny: Tiny, principle: str, count: int, seed: int) -> Repairs:
    """Critique and revise, greedily, held-out replies that break the principle."""
    rng = random.Random(f"{seed}/repair/{principle}")
    cases: list[tuple[PoolRow, dict[str, bool], Draft]] = []
    while len(cases) < count:
        prompt = draw_prompt(rng, "held-out")
        if principle in applicable(prompt):
            virtues = draw_virtues(rng, prompt) | {principle: False}
            cases.append((prompt, virtues, draw_draft(rng, prompt, virtues)))
    texts = [compose(draft) for _, _, draft in cases]
    critiques = reply(
        tiny,
        [
            asks.critique(prompt["messages"], text, principle)
            for (prompt, _, _), text in zip(cases, texts, strict=True)
        ],
        temperature=0,
    )
    revised = reply(
        tiny,
        [
            asks.revise(prompt["messages"], text, critique, principle)
            for (prompt, _, _), text, critique in zip(cases, texts, critiques, strict=True)
        ],
        temperature=0,
    )
    after = [oracle(prompt, text) for (prompt, _, _), text in zip(cases, revised, strict=True)]
    perfect = [critique_of(prompt, draft, principle) for prompt, _, draft in cases]
    return Repairs(
        found=sum(c == p for c, p in zip(critiques, perfect, strict=True)) / count,
        mended=sum(a[principle] for a in after) / count,
        kept=sum(
            all(a[p] for p, had in virtues.items() if had)
            for a, (_, virtues, _) in zip(after, cases, strict=True)
        )
        / count,
    )


def satisfaction(prompts: Sequence[PoolRow], replies: Sequence[str]) -> dict[str, float]:
    """Share of replies that satisfy each principle where it applies, and `all` of them, by the oracle."""
    right, asked = Counter[str](), Counter[str]()
    for prompt, text in zip(prompts, replies, strict=True):
        truth = oracle(prompt, text)
        for name, satisfied in (truth | {"all": all(truth.values())}).items():
            right[name] += satisfied
            asked[name] += 1
    return {name: right[name] / asked[name] for name in (*PRINCIPLES, "all") if asked[name]}


def main() -> None:
    """Print the tables that EXPERIMENTS.md quotes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=1000, help="comparisons for each principle")
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tiny = load(options.weights)
    say(f"{'verdicts':14} accuracy original swapped flips tie-distance")
    for principle in JUDGED:
        v = verdicts(tiny, principle, options.count, options.seed)
        say(
            f"{principle:14} {v.accuracy:8.3f} {v.original:8.3f} {v.swapped:7.3f} {v.flip_rate:5.3f} "
            f"{v.tie_distance:12.3f}"
        )
    say(f"{'repairs':14} found mended kept")
    for principle in PRINCIPLES:
        r = repairs(tiny, principle, max(options.count // 8, 16), options.seed)
        say(f"{principle:14} {r.found:5.3f} {r.mended:6.3f} {r.kept:5.3f}")
    rng = random.Random(f"{options.seed}/chat")
    prompts = [draw_prompt(rng, "held-out") for _ in range(max(options.count // 4, 32))]
    for temperature in (1.0, 0.7):
        replies = reply(tiny, [p["messages"] for p in prompts], temperature=temperature)
        shares = satisfaction(prompts, replies)
        say(f"chat at temperature {temperature}: " + ", ".join(f"{k} {v:.3f}" for k, v in shares.items()))


if __name__ == "__main__":
    main()
