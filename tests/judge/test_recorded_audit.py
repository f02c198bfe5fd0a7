"""The audit of recorded GPT-4 verdicts over real HTTP gives the counts that its authors published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.asking.fanout import Fanout, Limits
from preceptor.judge.asking.prices import Prices
from preceptor.judge.audit.audit import audit
from preceptor.judge.label import label, template_for
from preceptor.judge.ledger.ledger import open_ledger
from preceptor.judge.models.openai.model import open_model
from preceptor.judge.records import Pair
from preceptor.judge.settings import LabelSettings
from preceptor.prompts.records import Message, Prompt
from tests.servers.llm import LLMServer
from tests.servers.recordings import pairs, recordings

TEMPLATE = """---
kind: compare
verdict: {a: "Output (a)", b: "Output (b)"}
---
{% block user %}
{% for principle in principles %}{{ principle.text }}{% endfor %}
# Instruction:
{% for message in messages %}{{ message.content | defuse }}{% endfor %}
# Output (a):
{{ response_a | defuse }}
# Output (b):
{{ response_b | defuse }}
{% endblock %}
"""
FIGURES = ("n", "correct_original", "correct_swapped", "correct_both", "orders_agree", "unparsed")


@pytest.mark.parametrize(
    ("subset", "counts"), [("Natural", (100, 94, 95, 90, 91, 0)), ("Neighbor", (134, 101, 100, 94, 121, 0))]
)
async def test_recorded_verdicts_over_http_give_the_published_counts(
    subset: str, counts: tuple[int, ...], tmp_path: Path, start_server: Callable[..., LLMServer]
) -> None:
    """LLMBar (Zeng et al. 2024), GPT-4 with the CoT prompt; a second run gives the same and asks nothing."""
    (tmp_path / "own.jinja").write_text(TEMPLATE, encoding="utf-8")
    rules = Constitution(
        name="one", principles=(Principle(id="kind", text="Which output follows the instruction?"),)
    )
    server = start_server(recordings=recordings(subset))
    judge = open_model("openai/gpt-4", base_url=server.url)
    settings = LabelSettings(reasoning=True, template=str(tmp_path / "own.jinja"))
    template = template_for(judge, settings)
    rows = [
        Pair.model_validate(
            {**row, "prompt": Prompt(id=row["id"], messages=(Message(role="user", content=row["prompt"]),))}
        )
        for row in pairs(subset)
    ]
    for _ in range(2):
        async with open_ledger(tmp_path / "ledger.db") as ledger:
            asker = Fanout({judge.name: judge}, ledger, Limits(), Prices.load())
            labels = [
                one async for one in asker.run(label(row, rules, judge, template, settings) for row in rows)
            ]
        figures = audit(labels, rules)
        assert tuple(figures[name] for name in FIGURES) == counts
    await judge.close()
    assert (server.stats()["requests"], server.stats()["answered_twice"]) == (2 * len(rows), 0)
