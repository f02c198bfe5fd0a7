"""Replies drawn by a server that speaks vLLM's protocol: whose they are, and what of its arithmetic comes in."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ProviderStopped
from preceptor.train.errors import RunFolderError
from preceptor.train.grpo.train import train_grpo
from preceptor.train.models.adapters import POLICY, adapt
from preceptor.train.models.base import load_base
from preceptor.train.ppo.train import train_ppo
from preceptor.train.rollout.sampling import Sampling, sample
from preceptor.train.rollout.vllm import draw_served
from preceptor.train.settings import GrpoSettings
from tests.jsonl import metrics_of
from tests.servers.vllm import serving
from tests.train.grpo.test_train import settings_of as group_settings
from tests.train.ppo.test_train import PROMPTS, settings_of
from tests.train.rewards import vowels


def policy_of(tiny: Path) -> Any:
    """The tiny model with an adapter that changes something."""
    model = adapt(load_base(str(tiny)), rank=4, alpha=64, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if f"lora_B.{POLICY}" in name:
                weight.normal_(std=0.3)
    return model.eval()


def test_the_replies_are_those_of_the_adapter_as_it_is_now(tiny: Path, tmp_path: Path) -> None:
    """Token for token what is drawn here with the same seed; afterwards the server holds nothing, nor the disk."""
    model = policy_of(tiny)
    how = Sampling(0.9, 0.95, 12, frozenset({1}), 10**6)
    prompts = [[5, 6, 7], [8, 9]]
    with serving(tiny) as server:
        drawn = draw_served(model, prompts, 3, how, 77, server.url, tmp_path)
        assert not server.loaded
        paths = [path for path, _ in server.seen]
        body = next(body for path, body in server.seen if path == "/v1/completions")
    here = [one for at, prompt in enumerate(prompts) for one in sample(model, [prompt], 3, how, 77 + at)]
    assert [one.tokens for one in drawn] == [one.reply for one in here]
    assert [one.ended for one in drawn] == [one.ended for one in here]
    assert drawn[0].logprobs == pytest.approx(here[0].logprobs.tolist(), abs=1e-4)
    bare = sample(load_base(str(tiny)).model, [prompts[0]], 3, how, 77)
    assert [one.reply for one in bare] != [one.reply for one in here[:3]], "the adapter changes the replies"
    assert paths == ["/v1/load_lora_adapter", *["/v1/completions"] * 2, "/v1/unload_lora_adapter"]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
    assert not (tmp_path / "rollouts").exists()


def test_the_servers_numerics_do_not_enter_ppos_ratio(tiny: Path, tmp_path: Path) -> None:
    """A server whose log-probabilities are wrong by half a nat trains the same policy; the gap is told."""
    found = []
    for name, shift in (("right", 0.0), ("wrong", 0.5)):
        with serving(tiny, shift) as server:
            settings = settings_of(tiny, epochs=2)
            trained = train_ppo(PROMPTS, settings, tmp_path / name, reward=vowels, server=server.url)
            found.append(metrics_of(trained.folder))
            assert (
                len({body["model"] for path, body in server.seen if "complet" in path}) == 4
            )  # 3 steps, 1 more
    gaps = [[row.pop("sampler_gap_nats") for row in rows] for rows in found]
    assert gaps[0] == pytest.approx([0, 0, 0], abs=1e-4)
    assert gaps[1] == pytest.approx([0.5] * 3, abs=1e-3)
    assert found[0] == found[1]
    assert found[0][-1]["kl_nats"] != 0


def test_grpo_draws_there_too(tiny: Path, tmp_path: Path) -> None:
    settings = group_settings("grpo", tiny, epochs=1)
    assert isinstance(settings, GrpoSettings)
    with serving(tiny, faults=["503", "429"]) as server:
        trained = train_grpo(PROMPTS, settings, tmp_path / "out", reward=vowels, server=server.url)
        assert server.seen
    assert trained.steps == 3
    assert metrics_of(trained.folder)[0]["kl_nats"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(RunFolderError, match="rollouts was 'vllm'"):
        train_grpo(PROMPTS, settings, tmp_path / "out", reward=vowels)


def test_a_server_that_cannot_do_it_is_told(tiny: Path, tmp_path: Path) -> None:
    model = policy_of(tiny)
    how = Sampling(1.0, 1.0, 4, frozenset({1}), 10**6)
    with serving(tiny, faults=["garbage"]) as server:
        with pytest.raises(UserError, match=r"without tokens and log-probabilities.*0\.10 or later"):
            draw_served(model, [[5]], 1, how, 0, server.url, tmp_path)
        with pytest.raises(UserError, match=r"nowhere/ refused /v1/load_lora_adapter.*--enable-lora"):
            draw_served(model, [[5]], 1, how, 0, f"{server.url}/nowhere", tmp_path)
    with serving(tiny, faults=["400"]) as server:
        with pytest.raises(UserError, match=r"status 400: .*planned"):
            draw_served(model, [[5]], 1, how, 0, server.url, tmp_path)
        assert not server.loaded


def test_nobody_listening_ends_the_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.judge.asking.retry.FIRST_WAIT_S", 0.001)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(ProviderStopped, match="no answer from"):
            draw_served(
                policy_of(tiny), [[5]], 1, Sampling(1.0, 1.0, 4, frozenset({1}), 10**6), 0, url, tmp_path
            )
