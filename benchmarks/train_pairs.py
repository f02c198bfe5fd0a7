"""Reward model and DPO against TRL's trainers: pairs a second, memory, and losses step by step.

    python benchmarks/train_pairs.py compare            # about four minutes on two cores

Everything is the same on both sides: a small random Llama, 96 pairs of hh-rlhf, 8 pairs a step, LoRA on all
linear layers from the same first weights, the optimiser, float32, one pass over the data, and for DPO the
reference's log-probabilities computed before the clock starts. TRL runs twice, as it ships (in its own random
order), and on the very batches that we draw, sorted by length: there every step's loss can be held against
ours. Each run is a process of its own, and they take turns. The clock runs from the end of the first step to
the end of the last.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

ROWS = Path(__file__).parent / "data" / "hh-rlhf" / "pairs.jsonl.gz"
PAIRS_A_STEP, SEED, VOCABULARY, MAX_LENGTH = 8, 0, 4096, 2048
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STAGES = ("reward", "dpo")
SIDES = ("ours", "trl", "trl-same-batches")

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    repeats: Annotated[int, typer.Option(help="Rounds.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run.")] = os.cpu_count() or 1,
    width: Annotated[int, typer.Option(help="Of the model; heads are 32 wide.")] = 256,
    layers: Annotated[int, typer.Option(help="Of the model.")] = 6,
) -> None:
    """Run both trainings on all sides in turn, and print the table."""
    folder = Path(tempfile.mkdtemp(prefix="train_pairs-"))
    make_model(folder / "model", width, layers)
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(repeats):
        for stage in STAGES:
            for side in SIDES:
                runs.setdefault((stage, side), []).append(run_child(stage, side, folder, number, threads))
    typer.echo(table(runs, threads))


@app.command(hidden=True)
def child(stage: str, side: str, folder: Path, out: Path) -> None:
    """One run, its figures as JSON on the last line of stdout."""
    warnings.simplefilter("ignore")
    result = run_ours(stage, folder, out) if side == "ours" else run_trl(stage, side, folder, out)
    typer.echo(json.dumps(result))


def run_child(stage: str, side: str, folder: Path, number: int, threads: int) -> dict[str, Any]:
    """The figures of one run in a process of its own."""
    out = folder / f"{stage}-{side}-{number}"
    call = [sys.executable, __file__, "child", stage, side, str(folder), str(out)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.getcwd(),
    }
    ended = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    typer.echo(
        f"{stage:6} {side:16} {result['pairs_per_s']:6.2f} pairs/s {result['cpu_ms']:5.0f} ms", err=True
    )
    return result


def make_model(folder: Path, width: int, layers: int) -> None:
    """A random Llama with a BPE tokenizer of the pairs' own text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from preceptor.train.data.readers import read_preferences

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    markers = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=markers, initial_alphabet=alphabet, show_progress=False
    )
    rows = read_preferences(ROWS, "hh").rows
    texts = (m.content for row in rows for m in (*row.prompt, *row.chosen, *row.rejected))
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settings_of(stage: str, folder: Path) -> Any:
    """What both sides train with."""
    from preceptor.train.settings import DpoSettings, RewardModelSettings

    values = {
        "model": str(folder / "model"),
        "batch_size": PAIRS_A_STEP,
        "max_length": MAX_LENGTH,
        "precision": "fp32",
        "checkpoint_every": 10**6,
        "learning_rate": 2e-4,
        "seed": SEED,
    }
    return RewardModelSettings(**values, held_out=0.0) if stage == "reward" else DpoSettings(**values)


class Clock:
    """Ends of steps, their losses, and how much memory they took beyond what stood before."""

    def __init__(self) -> None:
        self.before = memory_mib()
        self.ends: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        """Called at the end of every step."""
        self.ends.append((time.monotonic(), time.process_time()))
        self.losses.append(loss)

    def result(self) -> dict[str, Any]:
        """The figures of the run."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pairs = PAIRS_A_STEP * (len(self.ends) - 1)
        wall_s, cpu_s = (last - first for first, last in zip(self.ends[0], self.ends[-1], strict=True))
        return {
            "pairs_per_s": pairs / wall_s,
            "cpu_ms": 1000 * cpu_s / pairs,
            "mib": peak - self.before,
            "losses": self.losses,
        }


def memory_mib() -> float:
    """Memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_ours(stage: str, folder: Path, out: Path) -> dict[str, Any]:
    """`train_reward` or `train_dpo` as they are called by anyone."""
    from preceptor.train.data.readers import read_preferences
    from preceptor.train.dpo import train_dpo
    from preceptor.train.reward import train_reward

    rows = read_preferences(ROWS, "hh").rows
    clock = Clock()
    train: Any = train_reward if stage == "reward" else train_dpo
    train(rows, settings_of(stage, folder), out, watch=lambda now: clock.step(now.metrics["loss"]))
    return clock.result()


def run_trl(stage: str, side: str, folder: Path, out: Path) -> dict[str, Any]:
    """Their trainer with our options, first weights and, where asked for, batches."""
    from peft import LoraConfig, set_peft_model_state_dict
    from torch.utils.data import SequentialSampler
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    from preceptor.train.loop.run import trainer_options

    settings, same = settings_of(stage, folder), side == "trl-same-batches"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    data = trl_rows(tokenizer, same)
    weights = first_weights(stage, settings, out.with_name(out.name + "-first"))
    clock = Clock()

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                clock.step(logs["loss"])

    options = trainer_options(settings, out)
    options |= {"save_strategy": "no", "max_length": MAX_LENGTH, "gradient_checkpointing": False}
    del options["remove_unused_columns"], options["save_steps"], options["activation_checkpointing"]
    kind: Any = RewardTrainer if stage == "reward" else DPOTrainer

    class Ordered(kind):  # type: ignore[misc]
        def _get_train_sampler(self, *given: Any) -> Any:
            return SequentialSampler(self.train_dataset) if same else super()._get_train_sampler(*given)

    if stage == "reward":
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
        config: Any = RewardConfig(**options)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        config = DPOConfig(**options, beta=settings.beta, precompute_ref_log_probs=True)
    task = "SEQ_CLS" if stage == "reward" else "CAUSAL_LM"
    lora = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type=task)
    trainer = Ordered(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[Watch()],
    )
    set_peft_model_state_dict(trainer.model, weights)
    trainer.train()
    return clock.result()


def trl_rows(tokenizer: Any, in_our_order: bool) -> Any:
    """The pairs in TRL's columns; if wanted, in the order of the batches that we draw."""
    from datasets import Dataset

    from preceptor.train.data.batching import grouped_batches
    from preceptor.train.data.pairs import encode_pairs
    from preceptor.train.data.readers import read_preferences

    rows = read_preferences(ROWS, "hh").rows
    if in_our_order:
        lengths = [pair.tokens for pair in encode_pairs(rows, tokenizer, MAX_LENGTH).rows]
        rows = [rows[at] for batch in grouped_batches(lengths, PAIRS_A_STEP, SEED, 0) for at in batch]
    columns = ("prompt", "chosen", "rejected")
    return Dataset.from_list([{c: [m.model_dump() for m in getattr(r, c)] for c in columns} for r in rows])


def first_weights(stage: str, settings: Any, folder: Path) -> dict[str, Any]:
    """The weights of adapter and score with which our own training begins, under PEFT's names."""
    import torch
    from peft import load_peft_weights
    from safetensors.torch import load_file

    from preceptor.train.forward.reward_model import HEAD, RewardModel
    from preceptor.train.models.adapters import adapt
    from preceptor.train.models.base import load_base

    base = load_base(settings.model)
    adapted = adapt(base, settings.rank, settings.alpha, SEED)
    torch.manual_seed(SEED)
    RewardModel(adapted, base, MAX_LENGTH).save(folder)
    weights: dict[str, Any] = load_peft_weights(str(folder), device="cpu")
    score = {"base_model.model.score.weight": load_file(folder / HEAD)["weight"]}
    return weights | score if stage == "reward" else weights


def table(runs: dict[tuple[str, str], list[dict[str, Any]]], threads: int) -> str:
    """Medians, medians of the ratios within a round, and the largest difference of a step's loss."""
    rounds = len(runs[STAGES[0], SIDES[0]])
    lines = [
        f"{rounds} rounds, {threads} threads; a ratio above 1 is in our favour, the median of those within a round",
        "",
        "| training | side | pairs/s | ratio | CPU, ms a pair | ratio | memory, MiB | ratio | loss differs by |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stage in STAGES:
        ours = runs[stage, "ours"]
        for side in SIDES:
            theirs = runs[stage, side]
            cells = [stage, side]
            for name, digits in (("pairs_per_s", 2), ("cpu_ms", 0), ("mib", 0)):
                ratios = [a[name] / b[name] for a, b in zip(ours, theirs, strict=True)]
                better = ratios if name == "pairs_per_s" else [1 / ratio for ratio in ratios]
                middle = statistics.median(run[name] for run in theirs)
                cells += [f"{middle:.{digits}f}", f"{statistics.median(better):.2f}"]
            pairs = zip(ours[0]["losses"], theirs[0]["losses"], strict=True)
            gap = f"{max(abs(a - b) for a, b in pairs):.1e}"
            cells.append(gap if side == "trl-same-batches" else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    app()
