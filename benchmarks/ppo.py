"""PPO on one base: memory and samples a second against our own SFT, and against the last TRL that had PPO.

    python benchmarks/ppo.py                                      # ours alone
    python -m venv trl && trl/bin/pip install 'trl==1.9.*' peft
    python benchmarks/ppo.py --trl-python trl/bin/python

The same on all sides: a random Llama in float32, LoRA on all linear layers, replies in a step, tokens of prompt
and reply (a random model does not end its replies), PPO's passes and minibatches; SFT learns from as many rows of
as many tokens. Rewards come from a reward model on the same base. Each run is a process of its own, and they
take turns. Memory is the process's highest resident set less what it had before it loaded a model; the clock
stands still while models load.

`--small-things` measures instead what this machine makes of the choices behind: switching adapters by our list or
by PEFT, one mixed pass for three roles or three passes, our sampling loop or transformers' generate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

PROMPT_TOKENS, REPLY_TOKENS, EPOCHS, MINIBATCHES, RANK = 32, 32, 2, 4, 16
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)


def main(
    trl_python: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment with TRL 1.9.")
    ] = None,
    width: Annotated[int, typer.Option(help="Of the model; heads are 64 wide.")] = 384,
    layers: Annotated[int, typer.Option(help="Of the model.")] = 6,
    vocabulary: Annotated[int, typer.Option(help="Of the model.")] = 32000,
    batch: Annotated[int, typer.Option(help="Replies in a step.")] = 16,
    samples: Annotated[int, typer.Option(help="Replies to each prompt; TRL reads the prompt with each.")] = 4,
    steps: Annotated[int, typer.Option(help="Of every run.")] = 3,
    threads: Annotated[int, typer.Option(help="Of each run.")] = os.cpu_count() or 1,
    small_things: Annotated[
        bool, typer.Option("--small-things", help="Measure the choices instead.")
    ] = False,
    side: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run all sides in turn and print the table."""
    warnings.simplefilter("ignore")
    if side:
        assert folder is not None
        typer.echo(json.dumps(SIDES[side](folder, batch, samples, steps)))
        return
    folder = Path(tempfile.mkdtemp(prefix="ppo-"))
    parameters = make_model(folder / "model", width, layers, vocabulary)
    sides = ["small"] if small_things else ["reward", "sft", "ours"] + ["trl"] * (trl_python is not None)
    if small_things:
        sides = ["reward", "small"]
    found: dict[str, dict[str, Any]] = {}
    for name in sides:
        python = str(trl_python) if name == "trl" else sys.executable
        call = [python, __file__, "--side", name, "--folder", str(folder)]
        call += ["--batch", str(batch), "--samples", str(samples), "--steps", str(steps)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        ended = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            sys.exit(f"{name}: {ended.stderr[-2000:]}")
        found[name] = json.loads(ended.stdout.splitlines()[-1])
        typer.echo(f"{name}: {found[name]}", err=True)
    if small_things:
        return
    typer.echo(
        f"\n{parameters / 1e6:.0f}M parameters in float32, vocabulary {vocabulary}, {batch} replies a step, {samples} "
        f"to a prompt, of {PROMPT_TOKENS} + {REPLY_TOKENS} tokens, {EPOCHS} passes of {MINIBATCHES} minibatches, "
        f"{steps} steps, {threads} threads\n"
    )
    typer.echo("| run | peak MiB | of ours | samples/s | CPU s a sample |\n|---|---|---|---|---|")
    ours = found["ours"]
    for name in ("sft", "ours", "trl"):
        if name in found:
            row = found[name]
            typer.echo(
                f"| {name} | {row['peak_mib']:.0f} | {row['peak_mib'] / ours['peak_mib']:.2f} | "
                f"{row['samples_per_s']:.2f} | {row['cpu_s_a_sample']:.2f} |"
            )


def make_model(folder: Path, width: int, layers: int, vocabulary: int) -> int:
    """A random Llama and a tokenizer of one token a letter; returns the number of parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    letters = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names = letters + [f"<{number}>" for number in range(vocabulary - len(letters))]
    raw = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


class Meter:
    """Memory and time of this process, from when it is made."""

    def __init__(self) -> None:
        self.before_mib = _status_mib("VmRSS")
        self.began_s = time.monotonic()
        self.began_cpu_s = time.process_time()

    def restart(self) -> None:
        """Let the clocks begin now."""
        self.began_s, self.began_cpu_s = time.monotonic(), time.process_time()

    def read(self, samples: int) -> dict[str, float]:
        """What the run cost."""
        return {
            "peak_mib": _status_mib("VmHWM") - self.before_mib,
            "samples_per_s": samples / (time.monotonic() - self.began_s),
            "cpu_s_a_sample": (time.process_time() - self.began_cpu_s) / samples,
        }


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def prompts_of(count: int) -> list[str]:
    """Texts of PROMPT_TOKENS letters."""
    return [f"{number:04d}".ljust(PROMPT_TOKENS, "abcdefgh"[number % 8]) for number in range(count)]


def reward_side(folder: Path, batch: int, samples: int, steps: int) -> dict[str, float]:  # noqa: ARG001
    """A reward model of two pairs, to be in place."""
    from preceptor.judge.records import Preference
    from preceptor.prompts.records import Message
    from preceptor.train.reward import train_reward
    from preceptor.train.settings import RewardModelSettings

    pairs = [
        Preference(
            id=f"p{number}",
            prompt=(Message(role="user", content=text),),
            chosen=(Message(role="assistant", content="yes"),),
            rejected=(Message(role="assistant", content="no"),),
            probability=1.0,
            margin=1.0,
            constitution="none",
            judge="none",
        )
        for number, text in enumerate(prompts_of(8))
    ]
    settings = RewardModelSettings(model=str(folder / "model"), rank=RANK, batch_size=2, held_out=0)
    meter = Meter()
    train_reward(pairs, settings, folder / "reward")
    return meter.read(8)


def sft_side(folder: Path, batch: int, samples: int, steps: int) -> dict[str, float]:  # noqa: ARG001
    """Our SFT on rows of as many tokens."""
    from preceptor.prompts.records import Message
    from preceptor.train.data.readers import Demonstration
    from preceptor.train.settings import SftSettings
    from preceptor.train.sft import train_sft

    rows = [
        Demonstration(
            id=str(number),
            prompt=(Message(role="user", content=text),),
            completion="z" * (REPLY_TOKENS - 1),
        )
        for number, text in enumerate(prompts_of(batch * steps))
    ]
    settings = SftSettings(model=str(folder / "model"), rank=RANK, batch_size=batch)
    from trl import SFTTrainer  # noqa: F401 - so that its import is not counted

    meter = Meter()
    train_sft(rows, settings, folder / "sft", watch=lambda now: meter.restart() if now.step == 1 else None)
    return meter.read(batch * (steps - 1))


def our_side(folder: Path, batch: int, samples: int, steps: int) -> dict[str, float]:
    """Our PPO."""
    from preceptor.prompts.records import Message, Prompt
    from preceptor.train.ppo.train import train_ppo
    from preceptor.train.settings import PpoSettings

    rows = [
        Prompt(id=str(number), messages=(Message(role="user", content=text),))
        for number, text in enumerate(prompts_of(batch * steps // samples))
    ]
    settings = PpoSettings(
        model=str(folder / "model"),
        rank=RANK,
        batch_size=batch,
        samples=samples,
        max_new_tokens=REPLY_TOKENS,
        ppo_epochs=EPOCHS,
        minibatches=MINIBATCHES,
        max_kl=None,
    )
    meter = Meter()
    trained = train_ppo(rows, settings, folder / "ppo", reward=folder / "reward")
    rows_s = [json.loads(line) for line in (trained.folder / "timings.jsonl").read_text().splitlines()]
    seconds = sum(batch / row["samples_per_s"] for row in rows_s)
    return {**meter.read(batch * steps), "samples_per_s": batch * steps / seconds}


def trl_side(folder: Path, batch: int, samples: int, steps: int) -> dict[str, float]:
    """TRL's PPO as its example sets it up: LoRA for the policy, models of their own for value and reward."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    meter = Meter()
    source = str(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    ids = [
        tokenizer(text)["input_ids"] for text in prompts_of(batch * steps // samples) for _ in range(samples)
    ]
    critics = [AutoModelForSequenceClassification.from_pretrained(source, num_labels=1) for _ in range(2)]
    config = PPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=batch // MINIBATCHES,
        gradient_accumulation_steps=MINIBATCHES,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=EPOCHS,
        total_episodes=batch * steps,
        response_length=REPLY_TOKENS,
        local_rollout_forward_batch_size=batch,
        num_sample_generations=0,
        gradient_checkpointing=False,
        temperature=1.0,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(source),
        ref_model=None,
        reward_model=critics[0],
        value_model=critics[1],
        train_dataset=Dataset.from_list([{"input_ids": row} for row in ids]),
        eval_dataset=Dataset.from_list([{"input_ids": row} for row in ids[:2]]),
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    meter.restart()
    trainer.train()
    return meter.read(batch * steps)


def small_side(folder: Path, batch: int, samples: int, steps: int) -> dict[str, float]:  # noqa: ARG001
    """What the choices behind cost, in milliseconds, the least of five."""
    import torch

    from preceptor.train.data.collate_replies import groups_of
    from preceptor.train.data.pairs import turn_ends
    from preceptor.train.forward.reply_logprobs import causal_model
    from preceptor.train.models.adapters import POLICY
    from preceptor.train.models.base import load_base
    from preceptor.train.ppo.roles import REWARD, VALUE, open_roles
    from preceptor.train.rollout.sampling import Sampling, sample
    from preceptor.train.settings import PpoSettings

    base = load_base(str(folder / "model"))
    roles = open_roles(base, PpoSettings(model=str(folder / "model"), rank=RANK), folder / "reward")
    model: Any = roles.adapted
    prompts = [[int(token) for token in base.tokenizer(text)["input_ids"]] for text in prompts_of(batch)]
    how = Sampling(1.0, 1.0, REPLY_TOKENS, turn_ends(base.tokenizer, base.generation_eos), 10**9)
    replies = [(row.prompt, row.reply) for row in sample(model, prompts, 1, how, 0)]
    (whole,) = list(roles.batches(replies, groups_of(replies)))[:1]
    rows = len(whole.input_ids)
    ids = torch.tensor(prompts)

    def ours() -> None:
        for role in (POLICY, VALUE):
            roles.board.switch(role)

    def pefts() -> None:
        for role in (POLICY, VALUE):
            model.set_adapter(role)

    def apart() -> None:
        for role in (POLICY, VALUE, REWARD):
            roles.board.switch(role)
            model(input_ids=whole.input_ids, attention_mask=whole.seen.long(), logits_to_keep=1)

    def mixed() -> None:
        model(
            input_ids=whole.input_ids.repeat(3, 1),
            attention_mask=whole.seen.long().repeat(3, 1),
            adapter_names=[role for role in (POLICY, VALUE, REWARD) for _ in range(rows)],
            logits_to_keep=1,
        )

    def generate(cache: str | None) -> None:
        causal: Any = causal_model(model)
        causal.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=REPLY_TOKENS,
            do_sample=True,
            top_k=0,
            cache_implementation=cache,
            pad_token_id=0,
        )

    with torch.no_grad():
        found = {"two switches, ours": _least_ms(ours), "two switches, peft": _least_ms(pefts)}
        roles.board.switch(POLICY)
        found |= {"three roles apart": _least_ms(apart), "three roles mixed": _least_ms(mixed)}
        roles.board.switch(POLICY)
        found |= {
            "rollouts, ours": _least_ms(lambda: sample(model, prompts, 1, how, 0)),
            "generate, dynamic cache": _least_ms(lambda: generate(None)),
            "generate, static cache": _least_ms(lambda: generate("static")),
        }
    return found


def _least_ms(work: Callable[[], Any]) -> float:
    work()
    spent = []
    for _ in range(5):
        began_s = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began_s)
    return 1000 * min(spent)


SIDES: dict[str, Callable[[Path, int, int, int], dict[str, float]]] = {
    "reward": reward_side,
    "sft": sft_side,
    "ours": our_side,
    "trl": trl_side,
    "small": small_side,
}

if __name__ == "__main__":
    typer.run(main)
