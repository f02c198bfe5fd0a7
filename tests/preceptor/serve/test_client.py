"""The reward functions for trainers: numbers where there are some, None where there is none, errors for faults."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.client import (
    NoReward,
    RewardRefused,
    areal_reward,
    ms_swift_reward,
    trl_reward,
    verl_compute_score,
)
from preceptor.train.embedded import WEIGHTS
from tests.preceptor.serve.running import Running, running, write_script

CONFIG = """
models: {{script: {{model: scripted/{script}}}}}
constitutions: {{main: helpful-harmless}}
rewards: {{good: {{judge: script, constitution: main}}}}
"""
GOOD = pytest.approx(7 / 9)
TURNS = [{"role": "user", "content": "What is your name?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("client")
    with running(folder, CONFIG.format(script=write_script(folder))) as made:
        yield made


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_trl(server: Running) -> None:
    reward = trl_reward(server.url)
    made = asyncio.run(
        reward(
            prompts=[TURNS] * 3, completions=[said("GOOD"), said("MUMBLE"), said("BAD")], trainer_state=None
        )
    )
    assert made == [GOOD, None, pytest.approx(-7 / 9)]
    plain = asyncio.run(reward(prompts=["What?"] * 100, completions=["GOOD"] * 100, tags=[["a"]] * 100))
    assert plain == [GOOD] * 100


def test_verl(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_URL", server.url)

    def score(text: str, **extra: object) -> float:
        return asyncio.run(verl_compute_score("data", text, None, extra, reward_router_address=None))

    assert score("GOOD", question="What?") == GOOD
    assert score("GOOD", messages=TURNS) == GOOD
    with pytest.raises(NoReward):
        score("MUMBLE", question="What?")
    with pytest.raises(KeyError):
        score("GOOD")


def test_ms_swift_and_areal(server: Running) -> None:
    swift = ms_swift_reward(server.url, "good")
    assert asyncio.run(swift(["GOOD", "MUMBLE"], messages=[TURNS + said("GOOD"), TURNS])) == [GOOD, None]
    areal = areal_reward(server.url)
    assert areal("What?", "GOOD", [1, 2], [3], answer="42") == GOOD
    assert areal("What?", "MUMBLE", [1, 2], [3]) is None


def test_a_wrong_request_raises_and_an_outage_is_none(server: Running) -> None:
    with pytest.raises(RewardRefused, match="nobody"):
        asyncio.run(trl_reward(server.url, "nobody")(prompts=["p"], completions=["GOOD"]))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        reward = trl_reward(nowhere, patience_s=0.0)
        assert asyncio.run(reward(prompts=["p"], completions=["GOOD"])) == [None]


@pytest.mark.filterwarnings("ignore")
def test_trls_own_trainer_trains_with_it(server: Running, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(WEIGHTS),
        reward_funcs=[trl_reward(server.url)],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": TURNS}] * 2),
        processing_class=AutoTokenizer.from_pretrained(WEIGHTS),
    )
    trainer.train()
    logged = next(row for row in trainer.state.log_history if "rewards/preceptor_reward/mean" in row)
    assert logged["rewards/preceptor_reward/mean"] == pytest.approx(
        -1 / 9
    )  # what the script says of other words
