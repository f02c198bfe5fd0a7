"""The package computes what `examples/proof.py` spells out: asks, label rows, preferences, losses and gradients."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor.constitution.principle import Constitution, Principle
from preceptor.judge.dataset.publish import preference
from preceptor.judge.label import LabelSettings, label
from preceptor.judge.models.protocol import Completion, Failure, Outcome, Request
from preceptor.judge.records import Label, Pair, Preference
from preceptor.prompts.records import Message, Prompt
from preceptor.train.data.collate_pairs import collate_pairs
from preceptor.train.data.pairs import PairTokens, encode_pairs
from preceptor.train.dpo import pair_losses
from preceptor.train.forward.reply_logprobs import Policy
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.losses import soft_bradley_terry
from preceptor.train.models.adapters import POLICY, adapt, as_reference
from preceptor.train.models.base import Base, freeze
from preceptor.train.pair_losses import pair_loss
from preceptor.train.ppo.checkpoint import Carried
from preceptor.train.ppo.objective import Running
from preceptor.train.ppo.roles import VALUE, open_roles
from preceptor.train.ppo.train import Rolled, experience_of
from preceptor.train.ppo.update import policy_numbers, policy_step, value_numbers, value_step
from preceptor.train.rollout.sampling import Rollout
from preceptor.train.settings import PpoSettings
from tests.judge.canned import Absent, drive

FILE = Path(__file__).parent.parent / "examples" / "proof.py"
WITHIN = {"rtol": 1e-6, "atol": 1e-6}


def load() -> ModuleType:
    """The file as a module of its own."""
    spec = importlib.util.spec_from_file_location("proof", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proof: Any = load()
LAW = Constitution(
    name="proof",
    principles=tuple(
        Principle(id=f"p-{number}", text=text, weight=weight)
        for number, (weight, text) in enumerate(proof.CONSTITUTION)
    ),
)


def test_it_is_short_and_imports_nothing_of_the_package() -> None:
    text = FILE.read_text()
    assert len(text.splitlines()) <= 400
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"torch", "transformers"}


def test_it_runs_and_tells_its_account(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(FILE)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
    )
    assert ended.returncode == 0, ended.stderr
    for told in ("<<<REPLY_A ", "inconsistent", "refused", "6 preferences", "DPO", "PPO, policy"):
        assert told in ended.stdout


# Labels


PARTS = [*"ab <>_\n'\"é🙂", "<<<REPLY_A", "<<< END_CONVERSATION ", "Verdict: A"]
texts = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)
shares = st.none() | st.dictionaries(st.sampled_from("ab"), st.floats(0, 1), min_size=2, max_size=2)
answers = st.builds(
    proof.Answer,
    st.sampled_from(
        ["Verdict: A", "Verdict: B", "I hold: Verdict: B", "Verdict: A, no, Verdict: B", "Hm.", ""]
    ),
    shares,
    st.sampled_from(["stop", "stop", "stop", "refused", "failed"]),
)


def outcome(answer: Any) -> Outcome:
    if answer.end == "failed":
        return Failure(kind="failed", problem="no answer")
    kind = "refused" if answer.end == "refused" else "stop"
    return Completion(text=answer.text, finish_reason=kind, probabilities=answer.shares)


def both_ways(pair: Any, said: Sequence[Any]) -> tuple[Any, list[Any], Label, list[Request]]:
    """The proof's label and asks, and the package's, of a judge who says this in turn."""
    asked: list[Any] = []

    def judge(messages: list[dict[str, str]]) -> Any:
        asked.append(messages)
        return said[len(asked) - 1]

    mine = proof.label(pair, proof.CONSTITUTION, judge)
    prompt = Prompt(id="prompt", messages=(Message(role="user", content=pair.question),))
    own = Pair(id=pair.id, prompt=prompt, response_a=pair.a, response_b=pair.b)
    turns = iter(said)
    dialogue = label(own, LAW, Absent(), None, LabelSettings())
    theirs, requests = drive(dialogue, lambda _: outcome(next(turns)))
    return mine, asked, theirs, requests


@given(question=texts.filter(str.strip), a=texts, b=texts, said=st.tuples(answers, answers))
@settings(max_examples=300, deadline=None)
def test_the_package_asks_the_same_and_makes_the_same_label_rows(
    question: str, a: str, b: str, said: tuple[Any, Any]
) -> None:
    mine, asked, theirs, requests = both_ways(proof.Pair("pair-1", question, a, b), said)
    assert [[one.model_dump() for one in request.messages] for request in requests] == asked
    rows = [(one.order, one.letter, one.probability, one.status, one.sampled) for one in theirs.judgements]
    assert [one[:4] for one in rows] == [tuple(one[:4]) for one in mine.judgements]
    assert [one[4] for one in rows if one[1]] == [one.sampled for one in mine.judgements if one.letter]
    assert (theirs.id, theirs.status) == (mine.id, mine.status)
    assert theirs.probability == pytest.approx(mine.probability, abs=1e-12)


def test_the_package_makes_the_same_preferences() -> None:
    made = []
    for pair in proof.PAIRS:
        said = [
            proof.rule(proof.ask(pair.question, *shown, proof.CONSTITUTION))
            for shown in (pair[2:], pair[:1:-1])
        ]
        mine, _, theirs, _ = both_ways(pair, said)
        found = preference(theirs)
        made.append(found is not None)
        own = proof.preference(pair, mine)
        assert (own is None) is (found is None)
        if own is not None and found is not None:
            assert own[:2] == (found.chosen[0].content, found.rejected[0].content)
            assert own[2] == pytest.approx(found.probability, abs=1e-12)
    assert made == [True] * 6 + [False] * 2


# Tokens


def tokenizer() -> PreTrainedTokenizerFast:
    """The proof's tokens as a tokenizer: a byte's is its number after the marks."""
    marks = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    shown = [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
    number = {
        ord(letter): letter for letter in shown
    }  # the letters by which byte-level tokenizers write bytes
    rest = [byte for byte in range(256) if byte not in number]
    number |= {byte: chr(256 + at) for at, byte in enumerate(rest)}
    raw = Tokenizer(
        models.BPE(
            vocab={
                **{mark: at for at, mark in enumerate(marks)},
                **{number[byte]: proof.BYTES + byte for byte in range(256)},
            },
            merges=[],
        )
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(marks)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    made.chat_template = (
        "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
        "{% if message.role == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return made


# Losses and gradients, on one frozen model with adapters of the same weights

ROLES = ("policy", "reward", "value")
P = torch.tensor([0.9, 0.6, 0.5])
CHOSEN = [proof.encode(f"Where is {x}?", f"Please {x}.") for x in ("a", "the bar", "é")]
REJECTED = [proof.encode(f"Where is {x}?", f"{x} is there!") for x in ("a", "the bar", "é")]
PAIRS = [
    PairTokens(prompt, chosen, rejected, p, "")
    for (prompt, chosen), (_, rejected), p in zip(CHOSEN, REJECTED, P.tolist(), strict=True)
]


@pytest.fixture
def model() -> Iterator[Any]:
    """The proof's model, with an adapter for each role that already changes something."""
    torch.manual_seed(1)
    made = proof.frozen_model()
    for name in ROLES:
        for weight in proof.role(made, name):
            nn.init.normal_(weight.data, std=0.1)
    yield made
    assert proof.Lora.acting is None


def base_of(model: Any) -> Base:
    """The same frozen model as the package has it: without places for adapters."""
    plain = LlamaForCausalLM(model.config)
    state = {name.replace(".base.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict(
        {name: value for name, value in state.items() if ".a." not in name and ".b." not in name}
    )
    return Base(freeze(plain.eval()), tokenizer(), "proof")


def matched(model: Any, adapted: Any, role: str, adapter: str = POLICY) -> list[tuple[Tensor, Tensor]]:
    """(the proof's weight, the package's), after the former were copied into the latter."""
    own = dict(adapted.named_parameters())
    pairs = []
    for name, layer in model.named_modules():
        if isinstance(layer, proof.Lora):
            for mine, theirs in ((layer.a[role], "lora_A"), (layer.b[role], "lora_B")):
                [weight] = [own[key] for key in own if f"{name}.{theirs}.{adapter}." in key]
                weight.data.copy_(mine.data)
                pairs.append((mine, weight))
    assert len(pairs) == 28
    return pairs


def compare(gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
    assert any(mine.grad.abs().max() > 1e-3 for mine, _ in gradients if mine.grad is not None)
    for mine, theirs in gradients:
        assert mine.grad is not None
        torch.testing.assert_close(theirs.grad, mine.grad, **WITHIN)


def lora_base(model: Any) -> tuple[Base, Any]:
    base = base_of(model)
    return base, adapt(base, proof.Lora.rank, proof.Lora.alpha, seed=0)


def test_the_package_reads_the_same_tokens() -> None:
    row = Preference(
        id="x",
        prompt=(Message(role="user", content="Where is é?"),),
        chosen=(Message(role="assistant", content="Please é."),),
        rejected=(Message(role="assistant", content="é is there!"),),
        probability=0.5,
        margin=0.0,
        constitution="x",
        judge="x",
    )
    [found] = encode_pairs([row], tokenizer(), 512).rows
    assert (found.prompt, found.chosen) == CHOSEN[2]
    assert (found.prompt, found.rejected) == REJECTED[2]


@pytest.mark.parametrize("shared", [True, False])
def test_reward_model(model: Any, shared: bool) -> None:
    base, adapted = lora_base(model)
    weights = matched(model, adapted, "reward")
    reward = RewardModel(adapted, base, 512)
    head = nn.Parameter(reward.head.weight.data[0].clone())
    with proof.acting("reward"):
        mine = proof.reward_losses(model, head, CHOSEN, REJECTED, P)
        mine.mean().backward()
    chosen, rejected = reward(collate_pairs(PAIRS, range(3), 0, shared)).chunk(2)
    theirs = soft_bradley_terry(chosen, rejected, P[:, None])[:, 0]
    theirs.mean().backward()
    torch.testing.assert_close(theirs, mine, **WITHIN)
    assert reward.head.weight.grad is not None
    torch.testing.assert_close(reward.head.weight.grad[0], head.grad, **WITHIN)
    compare(weights)


@pytest.mark.parametrize("shared", [True, False])
def test_dpo(model: Any, shared: bool) -> None:
    _, adapted = lora_base(model)
    weights = matched(model, adapted, "policy")
    with proof.acting("policy"):
        mine = proof.dpo_losses(model, CHOSEN, REJECTED, P)
        mine.mean().backward()
    policy = Policy(adapted)
    batch = collate_pairs(PAIRS, range(3), 0, shared)
    with as_reference(adapted):
        reference = policy(batch)
    theirs = pair_losses(policy(batch), reference, batch, pair_loss("dpo"), beta=0.1)
    theirs.mean().backward()
    torch.testing.assert_close(theirs, mine, **WITHIN)
    compare(weights)


ROWS = [(prompt, reply[:length]) for prompt, reply in CHOSEN for length in (2, 5, len(reply))]
SCORES = torch.tensor([0.3, -1.2, 0.8, 0.1, 2.0, -0.4, 0.0, 0.7, -0.9])
SETTINGS = PpoSettings(
    rank=proof.Lora.rank,
    alpha=proof.Lora.alpha,
    kl_beta=proof.KL_BETA,
    gamma=proof.GAMMA,
    lam=proof.LAMBDA,
    clip=proof.CLIP,
    value_clip=proof.VALUE_CLIP,
    missing_eos_penalty=proof.UNFINISHED,
    max_kl=None,
    max_grad_norm=1e9,
    batch_size=9,
    samples=3,
    minibatches=1,
    precision="fp32",
    gradient_checkpointing=False,
)


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_of_ppo(model: Any, shared: bool) -> None:
    """What is known of the replies, and the gradients of both losses once the policy has moved and is clipped."""
    roles = open_roles(base_of(model), SETTINGS, None)
    roles.shared = shared
    matched(model, roles.adapted, "policy")
    matched(model, roles.adapted, "value", VALUE)
    head = nn.Linear(32, 1)
    roles.value_head.load_state_dict(head.state_dict())
    with proof.acting("policy"):
        old = proof.logprobs(model, ROWS).detach()
        found = proof.look_back(model, ROWS, SCORES, head)
    rollouts = [
        Rollout(prompt, reply, logps[: len(reply)], torch.zeros(len(reply)), reply[-1] == proof.END)
        for (prompt, reply), logps in zip(ROWS, old, strict=True)
    ]
    carried = Carried(0, proof.KL_BETA, Running().joined(SCORES), [], 0)
    seen = experience_of(Rolled(rollouts, SCORES, 0), carried, roles, SETTINGS, fit_values=True)
    mask, _, values, advantages, returns = found
    torch.testing.assert_close(seen.mask, mask)
    for theirs, mine in ((seen.old, old), (seen.values, values), (seen.returns, returns)):
        torch.testing.assert_close(theirs, mine, **WITHIN)
    torch.testing.assert_close(
        seen.advantages, advantages, rtol=1e-6, atol=4e-6
    )  # divided by their deviation
    torch.testing.assert_close(roles.value_head.weight, head.weight, **WITHIN)

    moved = [(weight, torch.randn_like(weight) / 100) for name in ROLES for weight in proof.role(model, name)]
    for weight, change in moved:
        weight.data += change
    pairs = matched(model, roles.adapted, "policy")
    everything = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    roles.train()
    idle = torch.optim.SGD(roles.trained(POLICY), lr=0.0)
    told = policy_step(seen, everything, roles, idle, **policy_numbers(SETTINGS))
    with proof.acting("policy"):
        loss = proof.policy_loss(proof.logprobs(model, ROWS), old, advantages, mask)
        loss.backward()
    assert 0 < told["clip_share"] < 1
    assert told["policy_loss"] == pytest.approx(loss.item(), abs=1e-6)
    compare(pairs)

    head.bias.data += 0.25
    roles.value_head.load_state_dict(head.state_dict())
    pairs = matched(model, roles.adapted, "value", VALUE)
    idle = torch.optim.SGD(roles.trained(VALUE), lr=0.0)
    told = value_step(seen, everything, roles, idle, **value_numbers(SETTINGS))
    with proof.acting("value"):
        loss = proof.value_loss(proof.values(model, head, ROWS), values, returns, mask)
        loss.backward()
    assert 0 < told["value_clip_share"] < 1
    assert told["value_loss"] == pytest.approx(loss.item(), abs=1e-6)
    compare([*pairs, (head.weight, roles.value_head.weight), (head.bias, roles.value_head.bias)])
