"""Train LoRA adapters: sft, a reward model, or a policy."""

from __future__ import annotations

import typer

from preceptor.cli.lazy import Entry, lazy

FILES, OWN = "From rows", "From the policy's own replies"
TRAIN = "preceptor.cli.train"
COMMANDS = {
    **{name: Entry(f"{TRAIN}.offline:{name}", FILES) for name in ("sft", "reward", "judge", "dpo", "kto")},
    "ppo": Entry(f"{TRAIN}.ppo:ppo", OWN),
    "grpo": Entry(f"{TRAIN}.online:grpo", OWN),
    "rloo": Entry(f"{TRAIN}.online:rloo", OWN),
    "online-dpo": Entry(f"{TRAIN}.online:online_dpo", OWN),
}

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, cls=lazy(COMMANDS))


@app.callback()
def _group() -> None:
    """A group, however few commands it has."""
