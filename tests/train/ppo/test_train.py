"""What PPO learns where the answer is known, and that a run is the same run however often it is broken."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from preceptor.judge.models.scripted import ScriptedModel
from preceptor.judge.reward import JudgeReward
from preceptor.judge.reward import RewardSettings as JudgeSettings
from preceptor.prompts.records import Message, Prompt
from preceptor.train.data.pairs import encode_messages
from preceptor.train.errors import CheckpointError, TrainDataError
from preceptor.train.forward.reward_model import HEAD, RewardModel, read_head
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.models.adapters import adapt_from
from preceptor.train.models.base import load_base
from preceptor.train.ppo.guard_protocol import Decision, Ended
from preceptor.train.ppo.roles import open_roles
from preceptor.train.ppo.scorer import open_scorer
from preceptor.train.ppo.train import train_ppo
from preceptor.train.reward import train_reward
from preceptor.train.rollout.prompts import prompts_of_step
from preceptor.train.rollout.rewards import Replied, by_model
from preceptor.train.settings import PpoSettings, RewardModelSettings
from tests.jsonl import metrics_of
from tests.judge.canned import BOTH
from tests.train.rewards import broken, too_few, vowels
from tests.train.tiny import preference, save_tiny
from tests.train.watchman import Watchman

PROMPTS = [
    Prompt(id=f"p{number}", messages=(Message(role="user", content=f"{number} " + "ab" * (number % 3)),))
    for number in range(6)
]
HELLO = [Prompt(id="hello", messages=(Message(role="user", content="hello"),))]


class StoppedError(Exception):
    """What a signal would do."""


def settings_of(tiny: Path, **changes: Any) -> PpoSettings:
    values = {
        "model": str(tiny),
        "rank": 4,
        "alpha": 8,
        "batch_size": 8,
        "samples": 2,
        "minibatches": 2,
        "max_new_tokens": 6,
        "max_length": 64,
        "epochs": 4,
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
        "kl_target": 3.0,
        "kl_budget": 50.0,
    }
    return PpoSettings.model_validate({**values, **changes})


def train(settings: PpoSettings, out: Path, reward: Any = vowels, **more: Any) -> Trained:
    return train_ppo(more.pop("prompts", PROMPTS), settings, out, reward=reward, **more)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# A bandit: one prompt, replies of one token, a reward for one of them


@pytest.fixture(scope="module")
def peaked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an output layer of twice the size: as it is, no hidden state gives any token 0.9."""
    folder = tmp_path_factory.mktemp("peaked") / "model"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def first_token(model: torch.nn.Module, tokenizer: Any) -> torch.Tensor:
    ids = encode_messages(tokenizer, HELLO[0].messages, generation_prompt=True)
    with torch.no_grad():
        shares: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    return shares


def bandit(tiny: Path, out: Path, **changes: Any) -> tuple[float, float, Trained]:
    """(probability of the rewarded letter before, after, the training)."""
    base = load_base(str(tiny))
    before = first_token(base.model, base.tokenizer)
    letters = {chr(code): base.tokenizer.convert_tokens_to_ids(chr(code)) for code in range(33, 127)}
    letter = max(letters, key=lambda each: float(before[letters[each]]))

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:  # noqa: ARG001
        return [float(text == letter) for text in completions]

    settings = PpoSettings.model_validate(
        {
            "model": str(tiny),
            "rank": 8,
            "alpha": 16,
            "batch_size": 128,
            "samples": 128,
            "minibatches": 1,
            "ppo_epochs": 4,
            "max_new_tokens": 1,
            "epochs": 40,
            "learning_rate": 2e-3,
            "missing_eos_penalty": 0.0,
            "kl_beta": 0.0,
            **changes,
        }
    )
    trained = train(settings, out, reward, prompts=HELLO)
    base = load_base(str(tiny))
    after = first_token(adapt_from(base, trained.folder, False).eval(), base.tokenizer)
    return float(before[letters[letter]]), float(after[letters[letter]]), trained


@pytest.mark.slow
def test_without_a_kl_penalty_the_bandit_finds_the_rewards_mode(peaked: Path, tmp_path: Path) -> None:
    before, after, trained = bandit(peaked, tmp_path / "out")
    assert before < 0.2
    assert after > 0.95
    assert metrics_of(trained.folder)[-1]["kl_nats"] > 1


@pytest.mark.slow
def test_an_endless_kl_penalty_keeps_the_policy(peaked: Path, tmp_path: Path) -> None:
    """Where the same steps without it leave the reference behind."""
    before, kept, held = bandit(peaked, tmp_path / "held", kl_beta=1e4, epochs=15, learning_rate=5e-4)
    _, moved, free = bandit(peaked, tmp_path / "free", kl_beta=0.0, epochs=15, learning_rate=5e-4)
    assert kept == pytest.approx(before, rel=0.3)
    assert moved > 2 * before
    assert abs(held.metrics["final"]["kl_nats"]) < 0.1 * free.metrics["final"]["kl_nats"]


@pytest.mark.slow
def test_between_the_two_lies_the_optimum_of_the_paper(peaked: Path, tmp_path: Path) -> None:
    """What is best of E[r] - beta KL is the reference times exp(r / beta), normalised; Ziegler et al. 2019."""
    beta = 0.3
    before, after, _ = bandit(
        peaked,
        tmp_path / "out",
        kl_beta=beta,
        normalise_rewards=False,
        whiten_advantages=False,
    )
    lifted = before * math.exp(1 / beta)
    wanted = lifted / (lifted + 1 - before)
    assert 0.2 < wanted < 0.8
    assert after == pytest.approx(wanted, abs=0.12)


# Runs


def test_equal_seeds_give_equal_runs_and_others_do_not(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny)
    one, two = (train(settings, tmp_path / name) for name in ("one", "two"))
    assert metrics_of(one.folder) == metrics_of(two.folder)
    assert same(weights_of(one.folder), weights_of(two.folder))
    other = train(settings_of(tiny, seed=1), tmp_path / "other")
    assert metrics_of(other.folder) != metrics_of(one.folder)
    # 6 prompts, 2 replies each, 4 times, 8 replies a step
    assert len(metrics_of(one.folder)) == one.steps == 6
    assert one.metrics["final"]["step"] == 6
    assert one.rows == {"in": 6, "used": 6, "held_out": 0, "set_aside": {}, "shortened": 0}


@pytest.fixture(scope="module")
def unbroken(
    tiny: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """Kind of reward -> its training with the settings of `settings_of`, made once."""
    sources: dict[str, Any] = {"function": vowels, "model": models["same"]}
    return cache(
        lambda reward: train(settings_of(tiny), tmp_path_factory.mktemp(reward) / "whole", sources[reward])
    )


@pytest.mark.parametrize("step", [1, 3, 6])
@pytest.mark.parametrize("reward", ["function", "model"])
def test_a_resumed_training_equals_an_unbroken_one_to_the_bit(
    tiny: Path,
    tmp_path: Path,
    step: int,
    reward: str,
    models: dict[str, Path],
    unbroken: Callable[[str], Trained],
) -> None:
    """Weights, both optimisers, the KL coefficient, the reward statistics, prompts and random numbers."""
    source: Any = vowels if reward == "function" else models["same"]
    settings = settings_of(tiny)
    whole = unbroken(reward)

    def watch(now: TrainingProgress) -> None:
        if now.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(settings, tmp_path / "broken", source, watch=watch)
    seen: list[TrainingProgress] = []
    resumed = train(settings, tmp_path / "broken", source, watch=seen.append)
    assert seen[0].step == (step - 1) // 2 * 2 + 1  # after the last checkpoint
    assert resumed.metrics == whole.metrics
    files = [(each.folder / "metrics.jsonl").read_bytes() for each in (whole, resumed)]
    assert files[0] == files[1]
    assert same(weights_of(whole.folder), weights_of(resumed.folder))
    assert len((resumed.folder / "timings.jsonl").read_text().splitlines()) == 6
    assert not (resumed.folder / "checkpoints").exists()
    assert train(settings, tmp_path / "broken", source).finished_before


def test_killed_in_the_midst_of_a_step_it_goes_on_to_the_same_rows(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL while a rollout waits for its rewards."""
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.train.ppo import test_train as t; from tests.train.rewards import vowels_unless_killed\n"
        "t.train(t.settings_of(Path(sys.argv[1])), Path(sys.argv[2]), vowels_unless_killed)"
    )

    def run(out: Path, kill_at: str) -> int:
        call = [sys.executable, "-c", code, str(tiny), str(out)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "KILL_AT": kill_at}
        return subprocess.run(call, env=environment, check=False, timeout=900, capture_output=True).returncode

    assert run(tmp_path / "broken", "4") == -9
    assert 0 < len(metrics_of(tmp_path / "broken")) < 6
    assert run(tmp_path / "broken", "") == 0
    from tests.train.rewards import vowels_unless_killed

    whole = train(settings_of(tiny), tmp_path / "whole", vowels_unless_killed)
    broken_rows = (tmp_path / "broken/metrics.jsonl").read_bytes()
    assert broken_rows == (whole.folder / "metrics.jsonl").read_bytes()
    assert same(weights_of(whole.folder), weights_of(tmp_path / "broken"))


def test_the_prompts_come_in_an_order_of_their_own_each_time_and_none_is_passed_over() -> None:
    drawn = [at for step in range(1, 8) for at in prompts_of_step(7, 3, seed=0, step=step)]
    assert len(drawn) == 21
    passes = [drawn[at : at + 7] for at in range(0, 21, 7)]
    assert all(sorted(each) == list(range(7)) for each in passes)
    assert passes[0] != passes[1]
    assert prompts_of_step(7, 3, 0, 5) == drawn[12:15]


# Rewards


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reward model of the tiny base, and one of another."""
    out = tmp_path_factory.mktemp("models")
    bases = {"same": tiny, "other": save_tiny(out / "base", seed=1)}
    pairs = [preference(number) for number in range(12)]
    return {
        name: train_reward(
            pairs,
            RewardModelSettings(model=str(base), rank=4, alpha=8, batch_size=4, learning_rate=1e-2),
            out / name,
        ).folder
        for name, base in bases.items()
    }


def test_a_reply_without_reward_has_no_influence(tiny: Path, tmp_path: Path) -> None:
    """Whatever it is, and whether None, NaN, an infinity or a number beyond float32 stands for it; it is never a 0."""

    def part(missing: Any, shift: float) -> Callable[..., list[Any]]:
        def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[Any]:  # noqa: ARG001
            known = [float(len(text)) for text in completions]
            return [missing if number % 3 == 0 else value + shift for number, value in enumerate(known)]

        return reward

    settings = settings_of(tiny)
    trained = {
        str(value): train(settings, tmp_path / str(value), part(value, 0.0))
        for value in (None, math.nan, -math.inf, 1e39)
    }
    none, *others = (metrics_of(each.folder) for each in trained.values())
    assert all(other == none for other in others)
    assert all(row["masked"] == 3 for row in none)
    told = f"{3 * len(none)} replies had no reward, or one that is not a finite number"
    assert all(told in " ".join(each.notes) for each in trained.values())
    # were they counted as 0, a shift of all others would not leave the normalised rewards alone
    moved = metrics_of(train(settings, tmp_path / "moved", part(None, 1024.0)).folder)
    assert [row["reward"] for row in moved] == pytest.approx([row["reward"] + 1024 for row in none], rel=1e-3)
    assert moved[0]["value_loss"] == pytest.approx(none[0]["value_loss"], rel=1e-2)
    assert moved[0]["policy_loss"] == pytest.approx(none[0]["policy_loss"], abs=1e-2)


def test_a_step_without_any_reward_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[None]:  # noqa: ARG001
        return [None] * len(completions)

    trained = train(settings_of(tiny), tmp_path / "out", reward)
    assert all(row["masked"] == 8 and "policy_loss" not in row for row in metrics_of(trained.folder))
    weights = weights_of(trained.folder)
    assert all(not weights[name].any() for name in weights if "lora_B" in name)


def test_the_shared_adapter_scores_as_the_reward_model_does(tiny: Path, models: dict[str, Path]) -> None:
    base = load_base(str(tiny))
    settings = settings_of(tiny)
    roles = open_roles(base, settings, models["same"])
    replied = []
    for prompt, text in zip(PROMPTS, ["a", "bb", "ccc d", "", "e!", "f"], strict=True):
        tokens = base.tokenizer(text)["input_ids"]
        ids = encode_messages(base.tokenizer, prompt.messages, generation_prompt=True)
        replied.append(Replied(prompt, (ids, [*map(int, tokens), int(base.tokenizer.eos_token_id)]), text))
    shared = open_scorer(models["same"], roles, shared=True).score(replied)
    alone = by_model(RewardModel.load(models["same"])).score(replied)
    assert shared == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert len(set(alone)) == 6


@pytest.mark.parametrize("which", ["same", "other"])
def test_a_reward_model_that_gives_no_number_gives_no_reward(
    which: str, tiny: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """NaN in its head, whether it stands on the policy's base or on one of its own: nothing is learned from it."""
    sick = tmp_path / "sick"
    shutil.copytree(models[which], sick)
    stored = read_head(sick)
    head = {"weight": stored.weight * math.nan, "offset": stored.offset, "length": stored.length}
    said = {"heads": stored.heads.model_dump_json(), "max_length": str(stored.max_length)}
    save_file(head, sick / HEAD, metadata=said)
    trained = train(settings_of(tiny, epochs=2), tmp_path / "out", sick)
    assert all(row["masked"] == 8 and "policy_loss" not in row for row in metrics_of(trained.folder))
    assert not any(value.any() for name, value in weights_of(trained.folder).items() if "lora_B" in name)
    assert "replies had no reward, or one that is not a finite number" in " ".join(trained.notes)


def test_a_reward_model_of_another_base_serves(tiny: Path, models: dict[str, Path], tmp_path: Path) -> None:
    trained = train(settings_of(tiny, epochs=2), tmp_path / "out", models["other"])
    assert trained.steps == 3
    assert all(row["masked"] == 0 for row in metrics_of(trained.folder))


def test_the_judge_is_a_reward_and_its_failures_are_masked(tiny: Path, tmp_path: Path) -> None:
    """Direct RLAIF: what cannot be judged has no reward."""
    said = iter(["Grade: 5", "no grade at all"] * 200)
    judge = JudgeReward(
        ScriptedModel(lambda _: next(said)),
        BOTH,
        JudgeSettings(mode="score", ledger=str(tmp_path / "ledger.db")),
    )
    trained = train(settings_of(tiny, epochs=2), tmp_path / "out", judge)
    masked = [row["masked"] for row in metrics_of(trained.folder)]
    assert len(masked) == 3
    assert all(0 < each <= 8 for each in masked)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (too_few, r"too_few gave 1 rewards for 8 replies: wanted one for each"),
        (broken, r"broken failed: ZeroDivisionError: division by zero"),
        ("tests.train.rewards:nothing", "no reward function tests.train.rewards:nothing"),
        ("tests.nowhere:reward", "no reward function tests.nowhere:reward: No module named"),
        ("tests.train.rewards:CALLS", "is no function"),
        (
            "not/a/folder",
            "no reward 'not/a/folder': wanted the folder of a reward model, or `module:function`",
        ),
    ],
)
def test_a_reward_that_cannot_be_used_is_told(tiny: Path, tmp_path: Path, reward: Any, message: str) -> None:
    with pytest.raises(TrainDataError, match=message):
        train(settings_of(tiny), tmp_path / "out", reward)


def test_a_reward_model_of_shorter_conversations_is_refused(
    tiny: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointError, match="was trained on at most 1024 tokens and would be asked about 2048"
    ):
        train(settings_of(tiny, max_length=2048), tmp_path / "out", models["same"])


# The KL budget and the guard


def test_the_policy_handed_back_is_within_the_kl_budget(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(
        tiny,
        kl_beta=0.0,
        kl_target=None,
        kl_budget=0.5,
        learning_rate=3e-2,
        epochs=20,
        samples=8,
        minibatches=1,
    )
    trained = train(settings, tmp_path / "out")
    stopped, rows = trained.metrics["stopped"], metrics_of(trained.folder)
    assert rows[-1]["kl_nats"] > 0.5
    assert all(row["kl_nats"] <= 0.5 for row in rows[:-1])
    assert stopped["step"] == len(rows) == stopped["returned_step"] + 2
    assert trained.metrics["final"]["kl_nats"] < rows[-1]["kl_nats"]
    assert "is over the budget of 0.5; handed back is the policy of step" in trained.notes[-1]
    assert train(settings, tmp_path / "out").finished_before


def test_a_guard_looks_raises_the_coefficient_stops_and_gets_the_step_it_wants(
    tiny: Path, tmp_path: Path
) -> None:
    guard = Watchman(
        {2: Decision(kl_coef=7.0), 6: Decision(stop=True, return_step=4, reason="the judge is not amused")}
    )
    settings = settings_of(tiny, epochs=8, guard_every=2, kl_target=None)
    trained = train(settings, tmp_path / "out", guard=guard)
    assert [moment.step for moment in guard.moments] == [0, 2, 4, 6]
    stopped = {"step": 6, "reason": "the judge is not amused", "returned_step": 4}
    assert guard.ended == Ended(4, stopped)
    assert trained.metrics["guard"] == {"looks": 4}
    assert trained.notes[-1] == "all is quiet"
    assert guard.moments[0].metrics == {}
    assert [row["kl_coef"] for row in metrics_of(trained.folder)] == [0.1, 0.1, 7.0, 7.0, 7.0, 7.0]
    assert trained.metrics["stopped"] == stopped
    assert trained.metrics["final"]["step"] == 4
    assert same(weights_of(trained.folder), guard.policies[4])
    assert not same(guard.policies[6], guard.policies[4])


def test_a_guard_that_orders_nothing_changes_nothing_and_a_broken_run_knows_its_orders(
    tiny: Path, tmp_path: Path
) -> None:
    plain = train(settings_of(tiny, guard_every=2), tmp_path / "plain")
    watched = train(settings_of(tiny, guard_every=2), tmp_path / "watched", guard=Watchman({}))
    assert metrics_of(plain.folder) == metrics_of(watched.folder)

    def watch(now: TrainingProgress) -> None:
        if now.step == 5:
            raise StoppedError

    orders = {2: Decision(kl_coef=0.7)}
    whole = train(settings_of(tiny, guard_every=2), tmp_path / "whole", guard=Watchman(orders))
    with pytest.raises(StoppedError):
        train(settings_of(tiny, guard_every=2), tmp_path / "broken", guard=Watchman(orders), watch=watch)
    again = Watchman({})
    resumed = train(settings_of(tiny, guard_every=2), tmp_path / "broken", guard=again)
    assert [moment.step for moment in again.moments] == [6]
    assert metrics_of(resumed.folder) == metrics_of(whole.folder)
