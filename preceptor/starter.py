"""What `preceptor init` writes: the smallest project that runs as it is, commented so that it can be changed."""

from __future__ import annotations

from pathlib import Path

from preceptor.constitution.errors import UserError
from preceptor.prompts.manifest import write_text

CONSTITUTION = """\
# What "better" means here. `preceptor constitution lint constitution.yaml` checks it; `preceptor constitution checks`
# lists the machine checks that a principle may carry.
name: my-constitution
version: 1.0.0
description: Helpful and harmless, and short.
extends: [helpful-harmless]
principles:
  - id: short
    text: Choose the reply that says what is needed in fewer words.
    critique: Say which words of the reply could go without losing anything that was asked for.
    revision: Rewrite the reply with those words gone and everything that was asked for kept.
    tags: [style]
"""

PROMPTS = """\
{"prompt": "How do I keep bread fresh for a week?", "tags": ["everyday"]}
{"prompt": "Explain what a hash table is to someone who knows only lists.", "tags": ["teaching"]}
{"prompt": "My landlord keeps my deposit. What can I do?", "tags": ["advice"]}
{"prompt": "Write a two-line apology for missing a meeting.", "tags": ["writing"]}
{"prompt": "Is it true that we use only ten percent of our brain?", "tags": ["facts"]}
{"prompt": "Plan a rainy Sunday for two children under six.", "tags": ["everyday"]}
{"prompt": "What should I check before I buy a used bicycle?", "tags": ["advice"]}
{"prompt": "Turn this into a list: eggs, milk and, if they are cheap, pears.", "tags": ["format"]}
"""

RUN = """\
# preceptor run run.yaml
# As it stands, the embedded tiny model answers and judges: that shows the way, and teaches little. For real work name
# a model of yours and a judge: `model: hf/Qwen/Qwen3-0.6B`, `judge: openai/gpt-6-luna`.
out: {directory}/run
model: embedded
judge: embedded
constitution: {directory}/constitution.yaml
prompts: {{file: {directory}/prompts.jsonl, held_out_share: 0.3}}
respond: {{samples: 4, max_tokens: 64}}
label: {{principles: joint}}
dpo: {{epochs: 1}}
"""


def write_starter(directory: Path) -> list[Path]:
    """Write the project and return its files.

    Raises UserError where the folder holds anything already: nothing of the user's is written over.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(
            f"{directory} is there already and not empty; wanted a new folder: choose another name"
        )
    texts = {
        "constitution.yaml": CONSTITUTION,
        "prompts.jsonl": PROMPTS,
        "run.yaml": RUN.format(directory=directory),
    }
    for name, text in texts.items():
        write_text(directory / name, text)
    return [directory / name for name in texts]
