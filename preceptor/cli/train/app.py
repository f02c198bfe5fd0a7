"""The commands of `preceptor train`, by name; each is imported when it is chosen."""

from __future__ import annotations

import typer

from preceptor.cli.lazy import Entry, lazy

FILES, OWN = "From rows", "From the policy's own replies"
TRAIN = "preceptor.cli.train"
AGAIN = "The same command again goes on where it stopped."

COMMANDS = {
    "sft": Entry(f"{TRAIN}.offline:sft", f"Teach the model its own revised replies. {AGAIN}", FILES),
    "reward": Entry(f"{TRAIN}.offline:reward", f"Train a reward model on preferences. {AGAIN}", FILES),
    "dpo": Entry(f"{TRAIN}.offline:dpo", f"Train a policy on preferences. {AGAIN}", FILES),
    "kto": Entry(
        f"{TRAIN}.offline:kto", f"Train a policy on single replies that are good or bad. {AGAIN}", FILES
    ),
    "ppo": Entry(f"{TRAIN}.ppo:ppo", f"Train a policy by PPO against a reward. {AGAIN}", OWN),
    "grpo": Entry(f"{TRAIN}.online:grpo", f"Train a policy by GRPO against a reward. {AGAIN}", OWN),
    "rloo": Entry(f"{TRAIN}.online:rloo", f"Train a policy by RLOO against a reward. {AGAIN}", OWN),
    "online-dpo": Entry(
        f"{TRAIN}.online:online_dpo",
        "Online DPO in rounds: the policy's own replies, judged, and DPO on them, again and again; a run folder.",
        OWN,
    ),
}

app = typer.Typer(
    no_args_is_help=True,
    help="Train LoRA adapters: sft, a reward model, or a policy.",
    cls=lazy(COMMANDS),
)


@app.callback()
def train() -> None:
    """Train LoRA adapters: sft, a reward model, or a policy."""
