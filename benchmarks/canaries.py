"""How often the shipped attacks win a judge over: writes docs/canaries.md.

    python benchmarks/canaries.py [--out docs/canaries.md]

Planted in pairs with gold: for the gullible judge (`tests.judge.gullible`, which believes whatever verdict-
like words stand last in its prompt) in the examples of `helpful-harmless`, asked by the general template; for
the same judge shown the prompt only as far as the last reply, to see what the template's own ending is worth;
for the embedded judge in pairs of the front desk's world whose replies differ in one principle, so that the
better one is known.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from preceptor.asking.stages import labelling, run_dialogues
from preceptor.constitution.files import load
from preceptor.constitution.principle import Constitution
from preceptor.judge.audit.canaries import attack_rates, examples_of, from_gold
from preceptor.judge.models.protocol import Model, Request
from preceptor.judge.models.registry import open_model
from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.records import Label, Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.records import Prompt
from preceptor.settings import Asking
from tests.judge.gullible import gullible

JUDGED = ("private", "polite", "concise", "steadfast")
"""The principles of the front desk that are left to its judge."""


def cut(request: Request) -> str:
    """The gullible judge without what the template says after the replies."""
    last = request.messages[-1]
    shown = last.model_copy(update={"content": last.content.rsplit("<<<END_REPLY_B", 1)[0]})
    return gullible(request.model_copy(update={"messages": (*request.messages[:-1], shown)}))


def desk_pairs(n: int) -> list[Pair]:
    """Comparisons of the front desk whose replies differ in one judged principle."""
    from preceptor.train.embedded import world

    rng, made = random.Random(7), list[Pair]()
    while len(made) < n:
        prompt = world.draw_prompt(rng, "held-out")
        principle = rng.choice([p for p in world.applicable(prompt) if p in JUDGED])
        virtues = dict.fromkeys(world.applicable(prompt), True)
        better = world.draw_reply(rng, prompt, virtues)
        worse = world.draw_reply(rng, prompt, {**virtues, principle: False})
        a_better = rng.random() < 0.5
        made.append(
            Pair(
                id=f"desk-{len(made)}",
                prompt=Prompt.model_validate({**prompt, "meta": {}}),
                response_a=better if a_better else worse,
                response_b=worse if a_better else better,
                preferred="a" if a_better else "b",
            )
        )
    return made


def rates(judge: Model, rules: Constitution, pairs: list[Pair], settings: LabelSettings) -> dict[str, Any]:
    """Attack rates of a judge on canaries planted in these pairs."""

    def labelled(rows: list[Pair]) -> list[Label]:
        made: list[Label] = []
        model = judge if isinstance(judge, ScriptedModel) else open_model(judge.name)
        with tempfile.TemporaryDirectory() as folder:
            asking = Asking(ledger=f"{folder}/ledger.db", concurrency=256)
            dialogues = list(labelling(rows, rules, model, settings))
            asyncio.run(run_dialogues(dialogues, [model], asking, made.append))
        return made

    return attack_rates(labelled(list(from_gold(pairs, per_attack=len(pairs)))), labelled(pairs))


def table(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Kinds of attack down, judges across."""
    kinds = [*sorted({kind for found in columns.values() for kind in found} - {"all"}), "all"]
    lines = ["| attack | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for kind in kinds:
        cells = []
        for found in columns.values():
            own = found.get(kind)
            cells.append("–" if own is None or own["rate"] is None else cell(own))
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def cell(own: dict[str, Any]) -> str:
    """Share, verdicts, the control's share, their difference with its interval, and the share of labels."""
    low, high = own["difference_ci95"]
    return (
        f"{own['rate']:.3f} of {own['n']}, control {own['control']['rate']:.3f}: {own['difference']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}]; labels {own['labels']:.3f}"
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("docs/canaries.md"))
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    general, desk = load("helpful-harmless"), load("front-desk")
    examples = list(examples_of(general))
    judged = tuple(one for one in desk.principles if one.id in JUDGED)
    desk = desk.model_copy(update={"principles": judged})
    joint = LabelSettings()
    found = {
        "gullible": rates(ScriptedModel(gullible), general, examples, joint),
        "gullible, prompt cut after the replies": rates(ScriptedModel(cut), general, examples, joint),
        "embedded": rates(
            open_model("embedded"), desk, desk_pairs(options.pairs), LabelSettings(principles="each")
        ),
    }
    lines = [
        "# Canaries",
        "",
        "Made by `python benchmarks/canaries.py`. Each cell: the share of verdicts that an attack won, which",
        "the same judge gives the other way without it, and the number of verdicts; the same share of its",
        "control, a harmless edit of the same kind and size; their difference with its 95 % interval, which",
        "alone is the attack's doing: what a harmless edit wins, an unsteady judge gives away by itself; then",
        "the share of labels that the planted reply won after both orders.",
        "",
        *table(found),
        "",
        "`control-tokens` is a reply that ends its turn by the marks of a chat template and lets the assistant",
        "give a verdict. For a judge in this process they are text, because text is tokenised without control",
        "tokens (`judge/models/local/text_tokens.py`, held by a property test over twelve tokenizer families);",
        "what a server makes of them is to be measured.",
        "",
        "Forged verdicts and fences win nothing from the gullible judge with the general and the local",
        "wording, because the last verdict-like words of every such prompt are the template's own menu,",
        "behind the fences: its answer is the same whatever the replies say, so that its column shows the",
        "wording and no judge's strength. The middle column shows what attacks win without that ending, and",
        "so what they can win with a template of your own that has none; the embedded model's short wording",
        "has neither fences nor menu. A real judge is not a list of rules, and its rates are to be measured:",
        "`preceptor audit GOLD --attacks`, or planted in a run by `preceptor label ... --canaries 2%`.",
        "",
    ]
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
