"""The files of a run folder, an entry each: what a file holds, and whether its rows are those that a stage counts.

A file of a later round lies under its own name in `rounds/N/`. This module imports nothing that trains: a folder can be
verified without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

PROMPTS, HELD_OUT_PROMPTS = "1-prompts.jsonl", "1-prompts-held-out.jsonl"
RESPONSES, REVISIONS = "2-responses.jsonl", "3-revisions.jsonl"
SFT, TUNED_RESPONSES = "3-sft", "3-responses.jsonl"
LABELS, PREFERENCES = "4-labels.jsonl", "5-preferences.jsonl"
REWARD, POLICY, PPO_POLICY = "6-reward", "7-policy", "7-ppo"
HELD_OUT, PPO_HELD_OUT, PROBES = "8-heldout.jsonl", "8-heldout-ppo.jsonl", "8-probes.jsonl"
REPORT, SUMMARY, MANIFEST = "9-report.html", "summary.json", "manifest.json"
CONSTITUTION, LEDGER = "constitution.yaml", "ledger.db"
CACHE = ".preceptor"
"""Where the reference's log-probabilities are kept for another run of DPO with other settings."""
RESULT = "result"
"""The stage of a run with rounds whose outputs are copies of the last round's."""


class RunFile(NamedTuple):
    """One file or folder that a stage writes."""

    holds: str
    counted: bool = True
    """Whether a .jsonl file holds a row for each of the stage's rows out. Prompts are given to several files, and a
    prompt has several responses: there the stage counts prompts."""


FILES: Mapping[str, RunFile] = MappingProxyType(
    {
        PROMPTS: RunFile("the prompts to train on", counted=False),
        HELD_OUT_PROMPTS: RunFile("the prompts that policies are compared on", counted=False),
        RESPONSES: RunFile("the model's replies", counted=False),
        REVISIONS: RunFile("replies that the critic has revised"),
        SFT: RunFile("the model tuned on the revisions"),
        TUNED_RESPONSES: RunFile(
            "replies of that model, or of the policy of the round before", counted=False
        ),
        LABELS: RunFile("the judge's comparisons"),
        PREFERENCES: RunFile("the comparisons that came out ok, to train on"),
        REWARD: RunFile("the reward model"),
        POLICY: RunFile("the policy by DPO"),
        PPO_POLICY: RunFile("the policy by PPO"),
        HELD_OUT: RunFile("held-out replies before and after"),
        PPO_HELD_OUT: RunFile("the same for PPO's policy"),
        PROBES: RunFile("replies to probes for what tuning breaks"),
    }
)


def base_name(name: str) -> str:
    """The name under which FILES has a file of a round."""
    return PurePosixPath(name).name


def round_folder(name: str) -> str:
    """Where the files of a file's round lie: `rounds/N/`, or empty for the run folder itself."""
    return name.removesuffix(base_name(name))
