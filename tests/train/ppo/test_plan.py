"""What PPO was planned to take beside what it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from preceptor.cli.train.app import app
from preceptor.prompts.records import Message, Prompt
from preceptor.train.data.collate_replies import groups_of
from preceptor.train.estimate.memory import Alive, held_bytes
from preceptor.train.loop.meter import bytes_under
from preceptor.train.models.adapters import POLICY
from preceptor.train.models.base import load_base
from preceptor.train.ppo.checkpoint import open_optimisers
from preceptor.train.ppo.plan import heaviest_batch, plan_ppo, rollout_bytes
from preceptor.train.ppo.roles import VALUE, Roles, open_roles
from preceptor.train.ppo.update import Experience, policy_numbers, policy_step, value_numbers, value_step
from preceptor.train.rollout.sampling import Sampling, sample
from preceptor.train.settings import PpoSettings
from tests.train.ppo.test_train import settings_of, train

PROMPTS = [
    Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number} ababababab"),))
    for number in range(8)
]
REWARD = "tests.train.rewards:vowels"


def experience(settings: PpoSettings, longest: int, roles: Roles) -> Experience:
    """A step of the longest prompts and the longest replies."""
    count, length = settings.batch_size, settings.max_new_tokens
    replies = [([at // settings.samples] * longest, [7] * length) for at in range(count)]
    mask = torch.ones(count, length, dtype=torch.bool)
    return Experience(replies, mask, *(torch.zeros(count, length, device=roles.device) for _ in range(5)))


def longest_of(settings: PpoSettings) -> int:
    from preceptor.train.rollout.prompts import encode_prompts

    asked, _ = encode_prompts(
        PROMPTS,
        load_base(settings.model),
        max_new_tokens=settings.max_new_tokens,
        max_length=settings.max_length,
    )
    return max(len(one.tokens) for one in asked)


@pytest.mark.parametrize("samples", [1, 2])
def test_the_pass_the_weights_and_the_optimisers_are_those_of_a_step(tiny: Path, samples: int) -> None:
    settings = settings_of(tiny, samples=samples, batch_size=16, minibatches=1, max_new_tokens=24)
    plan = plan_ppo(PROMPTS, settings, REWARD)
    roles = open_roles(load_base(settings.model), settings, None)
    roles.choose_layout([[1, 2, 3]] * 4, samples)
    optimisers = open_optimisers(roles)
    seen = experience(settings, longest_of(settings), roles)
    groups = groups_of(seen.replies)
    peaks = []
    for _ in range(2):  # the second finds the optimisers' moments there
        peaks = []
        for step, optimiser, numbers in (
            (policy_step, optimisers.policy, policy_numbers(settings)),
            (value_step, optimisers.value, value_numbers(settings)),
        ):
            with Alive() as alive:
                step(seen, groups, roles, optimiser, **numbers)
            peaks.append(alive.peak_bytes)
    trained = [weight for role in (POLICY, VALUE) for weight in roles.trained(role)]
    everything = held_bytes(
        [*roles.adapted.parameters(), *roles.adapted.buffers(), *roles.value_head.parameters()]
    )
    assert plan.memory["adapter"] == held_bytes(trained)
    assert plan.memory["weights"] == everything - held_bytes(trained)
    assert plan.memory["optimizer"] == pytest.approx(2 * held_bytes(trained), rel=0.01)
    assert 1.0 <= plan.memory["pass"] / max(peaks) < 1.25
    assert plan.memory_bytes == sum(plan.memory.values())


def test_rollouts_are_counted_by_their_cache_and_logits(tiny: Path) -> None:
    settings = settings_of(tiny, samples=2, batch_size=16, max_new_tokens=24)
    base = load_base(settings.model)
    planned = rollout_bytes(base.model.config, settings, 40, torch.device("cpu"), torch.float32)
    how = Sampling(1.0, 1.0, settings.max_new_tokens, frozenset({-1}), 10**6)
    with Alive() as alive:
        sample(base.model, [[number + 3] * 40 for number in range(8)], 2, how, 0)
    assert 0.7 < planned / alive.peak_bytes < 1.5


def test_steps_rows_and_what_stays_are_those_of_the_training(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny)
    plan = plan_ppo(PROMPTS, settings, REWARD)
    trained = train(settings, tmp_path / "out", prompts=PROMPTS)
    assert (plan.steps, plan.rows) == (trained.steps, len(PROMPTS))
    assert plan.kept_bytes is not None
    assert plan.kept_bytes == pytest.approx(bytes_under(trained.folder), rel=0.25)
    assert plan.disk_bytes is not None
    assert plan.disk_bytes > plan.kept_bytes
    guarded = plan_ppo(PROMPTS, settings.model_copy(update={"guard_every": 1}), REWARD, guarded=True)
    assert guarded.disk_bytes is not None
    assert guarded.disk_bytes > plan.disk_bytes, "a guard may ask for any checkpoint"


def test_smaller_passes_take_less_and_long_rows_go_alone(tiny: Path) -> None:
    settings = settings_of(tiny, max_new_tokens=24, batch_size=16, minibatches=1)
    small = settings.model_copy(update={"pass_tokens": 80})
    large, little = (plan_ppo(PROMPTS, each, REWARD).memory["pass"] for each in (settings, small))
    assert little < large
    assert heaviest_batch([30, 5], settings, 80, shared=True).input_ids.shape == (1, 30 + 2 * 24)
    assert heaviest_batch([60, 5], settings, 80, shared=False).input_ids.shape == (1, 84)


def test_the_command_says_so_and_does_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text("\n".join(prompt.line() for prompt in PROMPTS))
    words = f"ppo prompts.jsonl --reward {REWARD} --model {tiny} --out out"
    words += " --batch-size 8 --samples 2 --max-new-tokens 8"
    app([*words.split(), "--plan", "--json"], standalone_mode=False)
    said = capsys.readouterr()
    assert json.loads(said.out)["steps"] == 2
    assert json.loads(said.out)["time_s"] is None
    assert "2 steps; nothing was done" in said.err
    assert "time is not predicted" in said.err
    assert "what the reward takes is not in these figures" in said.err
    assert not Path("out").exists()
