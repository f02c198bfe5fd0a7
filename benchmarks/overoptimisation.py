"""A reward with a planted flaw, pressed with and without a guard: what is gained, what is lost, what comes back.

    python benchmarks/overoptimisation.py --out runs/over-optimisation --pictures docs

For each flaw (`train.embedded.flaws`, the late ones) and seed two trainings by PPO from the embedded model:
`unguarded`, whose guard looks and orders nothing, and `guarded`, whose gold-drop rule may stop. They are the same to
the bit up to the stop. Gold is the share of held-out replies that satisfy every principle, by the oracle of the
embedded world. Because the best of many looks is partly luck, start, end and what the guard handed back are
measured once more, with other random numbers and on prompts that no guard saw. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from preceptor.evaluation.oracles import guard_judge
from preceptor.judge.statistics import Interval, wilson
from preceptor.prompts.pool import prompts_from
from preceptor.prompts.records import Prompt
from preceptor.prompts.rows import read_records
from preceptor.settings import Asking
from preceptor.train.data.pairs import encode_messages, turn_ends
from preceptor.train.embedded import flaws
from preceptor.train.embedded.world import draw_prompt
from preceptor.train.evaluation.plots import AFTER, BEFORE, FAINT, INK
from preceptor.train.guard.held_out import HeldOutGuard
from preceptor.train.guard.plots import PROXY
from preceptor.train.guard.rules import NAMES, Look, rules_from
from preceptor.train.loop.output_folder import Trained
from preceptor.train.models.adapters import adapt_from
from preceptor.train.models.base import load_base
from preceptor.train.ppo.train import train_ppo
from preceptor.train.rollout.sampling import Sampling, sample
from preceptor.train.settings import PpoSettings

FLAWS = {"padding": flaws.late_padding, "agreement": flaws.late_agreement}
TAG = {"agreement": "false-claim"}
"""Flaw -> the tag of the prompts at which it can show; the guard looks at those."""
LOOKED_AT, FRESH = 80, 100
"""Prompts of the guard at most; prompts of the last measurement."""


def main(
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")],
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    flaw: Annotated[list[str] | None, typer.Option(help="padding, agreement; both.")] = None,
    steps: Annotated[int, typer.Option(help="Of the unguarded training.")] = 48,
    batch: Annotated[int, typer.Option(help="Replies in a step.")] = 32,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1.5e-3,
    every: Annotated[int, typer.Option(help="Steps between looks.")] = 4,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...; the first is drawn in full.")] = 2,
) -> None:
    """Train, measure, print a JSON object a flaw and seed, and draw."""
    train_on = list(prompts_from("front-desk"))
    held_out = list(prompts_from("front-desk-held-out"))
    for name in flaw or list(FLAWS):
        kept = [prompt for prompt in held_out if TAG.get(name, "") in (*prompt.tags, "")]
        seen, fresh = kept[:LOOKED_AT], drawn(name, kept)
        drawings = []
        for seed in range(seeds):
            settings = PpoSettings(
                batch_size=batch,
                samples=4,
                epochs=steps * batch / 4 / len(train_on),
                learning_rate=rate,
                warmup=0.05,
                kl_beta=0.0,
                max_new_tokens=80,
                guard_every=every,
                checkpoint_every=every,
                seed=seed,
            )
            ends = {
                side: run(name, side, out / f"{name}-{seed}-{side}", (train_on, seen), settings)
                for side in ("unguarded", "guarded")
            }
            typer.echo(json.dumps({"seed": seed, **figures(name, ends, fresh, seed)}, indent=1))
            drawings.append(ends)
        if pictures is not None:
            draw(drawings, pictures / f"over-optimisation-{name}.png")


def drawn(flaw: str, known: Sequence[Prompt]) -> list[Prompt]:
    """Held-out prompts that no pool holds."""
    rng = random.Random(f"fresh {flaw}")
    taken = {prompt.id for prompt in known}
    found: dict[str, Prompt] = {}
    while len(found) < FRESH:
        prompt = Prompt.model_validate(draw_prompt(rng, "held-out"))
        if prompt.id not in taken and TAG.get(flaw, "") in (*prompt.tags, ""):
            found[prompt.id] = prompt
    return list(found.values())


def run(
    flaw: str, side: str, out: Path, prompts: tuple[list[Prompt], list[Prompt]], settings: PpoSettings
) -> Trained:
    """One training. No rule but gold-drop acts, so that nothing else can be what saved it."""
    act = {"gold-drop": "warn" if side == "unguarded" else "stop"}
    rules = rules_from([f"{name}:{act.get(name, 'warn')}" for name in NAMES])
    judge = guard_judge("oracle/embedded", None, Asking(ledger=""))
    guard = HeldOutGuard(prompts[1], judge, rules, settings)
    return train_ppo(prompts[0], settings, out, reward=FLAWS[flaw], guard=guard)


def figures(name: str, ends: dict[str, Trained], fresh: Sequence[Prompt], seed: int) -> dict[str, Any]:
    """What the two trainings came to."""
    looks = {side: looks_of(trained) for side, trained in ends.items()}
    common = min(map(len, looks.values()))
    same = all(
        one.model_copy(update={"action": "off", "said": ()})
        == other.model_copy(update={"action": "off", "said": ()})
        for one, other in zip(looks["unguarded"][:common], looks["guarded"][:common], strict=True)
    )
    best_ever = max(look.gold or 0.0 for look in looks["unguarded"])
    returned = ends["guarded"].metrics["guard"]["gold_returned"]
    last = looks["unguarded"][-1]
    return {
        "flaw": name,
        "same_until_the_stop": same,
        "stopped": ends["guarded"].metrics.get("stopped"),
        "gold": {
            "start": looks["unguarded"][0].gold,
            "best_ever_unguarded": best_ever,
            "end_unguarded": last.gold,
            "guarded": returned,
            "short_of_best": round(best_ever - returned, 4),
        },
        "proxy": {"start": looks["unguarded"][0].proxy, "end_unguarded": last.proxy},
        "kl_nats_end_unguarded": last.kl_nats,
        "prompts": last.judged,
        "gold_on_fresh_prompts": {
            "start": _told(measured(None, fresh, seed + 1)),
            "end_unguarded": _told(measured(ends["unguarded"].folder, fresh, seed + 1)),
            "guarded": _told(measured(ends["guarded"].folder, fresh, seed + 1)),
        },
    }


def looks_of(trained: Trained) -> list[Look]:
    """All looks of a training's guard."""
    return list(read_records(trained.folder / "guard.jsonl", Look))


def measured(adapter: Path | None, prompts: Sequence[Prompt], seed: int, samples: int = 4) -> Interval:
    """Share of the replies that satisfy every principle; intervals as if the samples of a prompt were apart."""
    base = load_base("embedded")
    model = base.model if adapter is None else adapt_from(base, adapter, False)
    how = Sampling(1.0, 1.0, 80, turn_ends(base.tokenizer, base.generation_eos), 8192)
    asked = [encode_messages(base.tokenizer, prompt.messages, generation_prompt=True) for prompt in prompts]
    rollouts = sample(model.eval(), asked, samples, how, seed)
    texts = [
        base.tokenizer.decode(one.reply[:-1] if one.ended else one.reply, skip_special_tokens=True)
        for one in rollouts
    ]
    judge = guard_judge("oracle/embedded", None, Asking(ledger=""))
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    known = [value for value in judge.score(repeated, texts, texts) if value is not None]
    return wilson(sum(known), len(known))


def _told(interval: Interval) -> list[float]:
    return [round(value, 3) for value in interval]


def draw(drawings: Sequence[dict[str, Trained]], path: Path) -> None:
    """Gold and proxy over steps and over the square root of KL; ringed is what the guard handed back. Of other seeds
    than the first only gold, thin."""
    ends, *others = drawings
    looks = looks_of(ends["unguarded"])
    stopped = ends["guarded"].metrics.get("stopped") or {}
    figure = Figure(figsize=(8.6, 3.2), layout="constrained", dpi=130)
    for axes, label, at in zip(
        figure.subplots(1, 2),
        ("step", "√KL from the start, nats a reply"),
        (lambda look: look.step, lambda look: max(look.kl_nats, 0.0) ** 0.5),
        strict=True,
    ):
        for other in others:
            seen = looks_of(other["unguarded"])
            axes.plot(
                [at(look) for look in seen], [look.gold for look in seen], color=AFTER, lw=0.8, alpha=0.35
            )
        proxy = axes.twinx()
        proxy.plot(
            [at(look) for look in looks], [look.proxy for look in looks], "s--", color=PROXY, lw=1, ms=2.5
        )
        axes.plot(
            [at(look) for look in looks], [look.gold for look in looks], "o-", color=AFTER, lw=1.3, ms=3
        )
        axes.fill_between(
            [at(look) for look in looks],
            [look.gold_ci95[0] for look in looks],
            [look.gold_ci95[1] for look in looks],
            color=AFTER,
            alpha=0.12 if label == "step" else 0.0,
            linewidth=0,
        )
        for look in looks:
            if look.step == stopped.get("returned_step"):
                axes.plot([at(look)], [look.gold], "o", ms=11, markerfacecolor="none", color=AFTER)
            if look.step == stopped.get("step"):
                axes.plot([at(look)], [look.gold], "X", ms=8, color="#b3372f")
        axes.set_ylim(bottom=0)
        for each in (axes, proxy):
            for side in ("top", "left", "right"):
                each.spines[side].set_visible(False)
            each.spines["bottom"].set_color(BEFORE)
            each.tick_params(colors=INK, labelsize=8, color=FAINT)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("gold", color=AFTER, fontsize=8)
        proxy.set_ylabel("proxy", color=PROXY, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
