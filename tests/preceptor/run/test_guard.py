"""A run whose PPO is guarded: who looks, at which prompts, and that a stop is told everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.prompts.pool import prompts_from
from preceptor.prompts.rows import write_rows
from preceptor.run.config import load
from preceptor.run.guard import GuardSettings, part
from tests.command_line import Preceptor

pytestmark = pytest.mark.slow

RUN = """\
out: {out}
model: embedded
judge: embedded
constitution: front-desk
prompts: {{file: front-desk, limit: 10, held_out: front-desk-held-out, held_out_limit: 6}}
respond: {{samples: 2, max_tokens: 64}}
label: {{principles: each}}
reward: {{epochs: 1, held_out: 0}}
dpo: {{epochs: 1}}
ppo:
  epochs: 2
  batch_size: 4
  samples: 2
  minibatches: 2
  max_new_tokens: 16
  guard: {{judge: oracle/embedded, share: 0.4, every: 1, rules: ['perplexity>0.5:stop']}}
evaluate: {{oracle: embedded}}
probes: null
"""
"""The rule is broken at the first look after the start, whatever the policy does."""

ROWS = list(prompts_from("front-desk"))[:40]


def messages(rows: list[object]) -> set[object]:
    return {row.messages for row in rows}  # type: ignore[attr-defined]


def test_a_share_of_the_prompts_is_kept_for_the_guard() -> None:
    parted = part(ROWS, [], GuardSettings(judge="checks", share=0.25), 0)
    assert len(parted.train) + parted.set_aside["kept for the guard"] == len(ROWS)
    assert not messages([*parted.train]) & messages([*parted.looked_at])
    assert 4 <= len(parted.looked_at) <= 16
    few = part(ROWS, [], GuardSettings(judge="checks", share=0.25, limit=2), 0)
    assert (few.train, few.looked_at) == (parted.train, parted.looked_at[:2])


def test_what_is_measured_at_the_end_chooses_no_policy_and_what_is_looked_at_is_not_trained_on(
    tmp_path: Path,
) -> None:
    file = tmp_path / "looked-at.jsonl"
    write_rows(file, ROWS[:10])
    parted = part(ROWS[5:], ROWS[:3], GuardSettings(judge="checks", prompts=str(file)), 0)
    assert messages([*parted.looked_at]) == messages([*ROWS[3:10]])
    assert messages([*parted.train]) == messages([*ROWS[10:]])
    assert parted.set_aside == {"the same as a guard's prompt": 5}
    assert parted.left_out == 3
    with pytest.raises(UserError, match="leaves 30 prompts to train on and 0 to look at"):
        part(ROWS[10:], ROWS[:10], GuardSettings(judge="checks", prompts=str(file)), 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.guard.judge=embedded", "ppo.guard.judge embedded makes the labels"),
        ("ppo.guard_every=3", "wanted ppo.guard.every"),
        ("ppo.guard.rules=['kl>x:stop']", "no guard rule 'kl>x:stop'"),
        ("ppo.guard.evry=3", "ppo.guard.evry: unknown key; did you mean every?"),
    ],
)
def test_a_guard_that_cannot_be_is_refused(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(out=tmp_path / "out"))
    with pytest.raises(UserError) as caught:
        load(tmp_path / "run.yaml", [override])
    assert message in str(caught.value)


def test_a_stop_stands_in_summary_manifest_report_and_on_the_screen(
    tmp_path: Path, preceptor: Preceptor
) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(out=tmp_path / "out"))
    ran = preceptor("run", tmp_path / "run.yaml")
    assert ran.code == 0, ran.err
    out = tmp_path / "out"
    ours = json.loads((out / "summary.json").read_text())["ppo"]
    assert ours["stopped"]["step"] == 1
    assert ours["stopped"]["returned_step"] == 0
    assert "perplexity on plain text" in ours["stopped"]["reason"]
    kept = next(stage for stage in stages_of(out) if stage["stage"] == "ppo")["set_aside"][
        "kept for the guard"
    ]
    assert ours["guard"] == {
        **ours["guard"],
        "looks": 2,
        "judge": "oracle/embedded",
        "prompts": kept,
        "best_step": 0,
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["ppo_stopped"] == ours["stopped"]
    page = (out / "9-report.html").read_text()
    for words in (
        "PPO under its guard",
        "Stopped after step 1",
        "Handed back is the policy of step 0",
        "√KL",
    ):
        assert words in page
    assert "PPO was stopped" in ran.out
    assert preceptor("verify", out).code == 0
    again = preceptor("run", tmp_path / "run.yaml")
    assert again.code == 0, again.err
    assert json.loads((out / "summary.json").read_text())["ppo"] == ours


def stages_of(out: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((out / "manifest.json").read_text())["stages"]
    return found
