"""What N labels of a real judge buy: reward models on a real chat model, from recorded GPT-4 preferences.

    python benchmarks/real_labels.py DATA                                # all of it: hours on two cores
    python benchmarks/real_labels.py DATA --sizes 100 --seeds 1 --most 100   # a reduced run, reported as such

DATA holds public recordings as gzipped JSON lines: alpaca_eval/ (github.com/tatsu-lab/alpaca_eval), hh-rlhf/
(github.com/anthropics/hh-rlhf), pandalm/ (github.com/WeOpenML/PandaLM), prometheus-eval/ (the HHH pairs of
github.com/prometheus-eval/prometheus-eval), rm-bench/ (github.com/THU-KEG/RM-Bench), llmbar/
(github.com/princeton-nlp/LLMBar).

Trained on are the labels of weighted_alpaca_eval_gpt4_turbo, which has the judge's probability for each: `soft` as it
is, `hard` the likelier side as certain, `trl` the same certain rows through TRL's RewardTrainer. Its self-instruct
part, whose authors ask that it not be trained on, is held out; the constant reply that attacks the judge is left out.
A reply of more than half of --max-length tokens is cut there, for every kind and in every test set alike.
A finished training is a line of --out and is not done again; the table and the plot are made of those lines.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

KINDS = ("soft", "hard", "trl")
SETS = {
    "gpt4": "GPT-4, held out",
    "hh": "people: hh-rlhf",
    "pandalm": "people: PandaLM",
    "hhh": "people: HHH",
    "rm-bench-easy": "RM-Bench easy",
    "rm-bench-normal": "RM-Bench normal",
    "rm-bench-hard": "RM-Bench hard",
    "llmbar-natural": "LLMBar Natural",
    "llmbar-adversarial": "LLMBar adversarial",
}
ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual", "Negation")


class Compared(NamedTuple):
    """One conversation with two replies, of which a judge or people prefer the first."""

    turns: tuple[tuple[str, str], ...]
    """(role, text), the last one the user's."""
    better: str
    worse: str
    probability: float = 1.0
    """That the first is the better, by the judge."""


def main(
    data: Annotated[Path, typer.Argument(help="The folder of the recordings.")],
    model: Annotated[str, typer.Option(help="Base of the reward models.")] = "smollm2",
    sizes: Annotated[str, typer.Option(help="Labels to train on.")] = "100,300,1000,3000",
    seeds: Annotated[int, typer.Option(help="Repetitions, each with labels and weights of its own.")] = 3,
    kinds: Annotated[str, typer.Option(help="Of soft, hard, trl.")] = ",".join(KINDS),
    epochs: Annotated[float, typer.Option(help="Passes over the labels.")] = 2.0,
    max_length: Annotated[int, typer.Option(help="Tokens of prompt and reply; a reply has half.")] = 768,
    most: Annotated[int | None, typer.Option(help="Pairs of each test set, at most.")] = None,
    out: Annotated[Path, typer.Option(help="A line for each finished training.")] = Path(
        "build/real-labels.jsonl"
    ),
    write: Annotated[Path | None, typer.Option(help="Markdown for table and plot, a .png beside it.")] = None,
) -> None:
    """Train what is not trained yet, and print the table."""
    warnings.simplefilter("ignore")
    tests = {name: rows[:most] for name, rows in test_sets(data).items()}
    pool = training_pool(data)
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"model": model, "epochs": epochs, "max_length": max_length, "most": most}
    for size in (min(int(size), len(pool)) for size in sizes.split(",")):
        for seed in range(seeds):
            rows = random.Random(seed).sample(pool, size)
            for kind in kinds.split(","):
                run = {**about, "size": size, "seed": seed, "kind": kind}
                if any(all(line[key] == run[key] for key in run) for line in lines(out)):
                    continue
                began_s = time.monotonic()
                rewards = trained(rows, kind, seed, model, epochs, max_length)
                found = {name: accuracy(rewards(pairs)) for name, pairs in tests.items() if pairs}
                line = {**run, "wall_s": round(time.monotonic() - began_s), "accuracy": found}
                with out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
                typer.echo(json.dumps(line), err=True)
    finished = [line for line in lines(out) if all(line[key] == about[key] for key in about)]
    page = table(finished, tests, about)
    typer.echo(page)
    if write is not None:
        plot(finished, write.with_suffix(".png"))
        write.write_text(f"{page}\n\n![accuracy by the number of labels]({write.with_suffix('.png').name})\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def lines(path: Path) -> list[dict[str, Any]]:
    """The finished trainings."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def alpaca(data: Path) -> Iterator[tuple[str, Compared]]:
    """(part of the set, comparison with the judge's probability), without ties and the attack."""
    for row in read(data / "alpaca_eval" / "annotations_weighted_alpaca_eval_gpt4_turbo.jsonl.gz"):
        second = row["preference"] - 1
        if row["generator_2"] == "example" or second == 0.5 or "" in (row["output_1"], row["output_2"]):
            continue
        replies = (row["output_2"], row["output_1"]) if second > 0.5 else (row["output_1"], row["output_2"])
        yield row["dataset"], Compared(asked(row["instruction"]), *replies, max(second, 1 - second))


def training_pool(data: Path) -> list[Compared]:
    """What may be trained on."""
    return [row for part, row in alpaca(data) if part != "selfinstruct"]


def test_sets(data: Path) -> dict[str, list[Compared]]:
    """By name, in an order of chance that is the same each time."""
    found: dict[str, list[Compared]] = {name: [] for name in SETS}
    found["gpt4"] = [row for part, row in alpaca(data) if part == "selfinstruct"]
    for row in read(data / "hh-rlhf" / "harmless-base_test.jsonl.gz"):
        if (pair := hh(row["chosen"], row["rejected"])) is not None:
            found["hh"].append(pair)
    for row in read(data / "pandalm" / "testset.jsonl.gz"):
        votes = [int(row[f"annotator{number}"]) for number in (1, 2, 3)]
        winner = statistics.mode(votes)
        if winner and votes.count(winner) >= 2 and row["response1"] and row["response2"]:
            both = (row["response1"], row["response2"])
            text = f"{row['instruction']}\n\n{row['input']}".strip()
            found["pandalm"].append(Compared(asked(text), *(both if winner == 1 else both[::-1])))
    for row in read(data / "prometheus-eval" / "hhh_alignment_eval.jsonl.gz"):
        found["hhh"].append(Compared(asked(row["_prompt"]), row["_chosen"], row["_rejected"]))
    for path in sorted((data / "rm-bench").glob("*.jsonl.gz")):
        for row in read(path):
            for one, good in enumerate(row["chosen"]):
                for other, bad in enumerate(row["rejected"]):
                    degree = "normal" if one == other else "hard" if one < other else "easy"
                    found[f"rm-bench-{degree}"].append(Compared(asked(row["prompt"]), good, bad))
    for path in sorted((data / "llmbar").glob("dataset_*.jsonl.gz")):
        for row in read(path):
            both = (row["output_1"], row["output_2"])
            pair = Compared(asked(row["input"]), *(both if row["label"] == 1 else both[::-1]))
            if row["subset"] == "Natural":
                found["llmbar-natural"].append(pair)
            elif row["subset"] in ADVERSARIAL:
                found["llmbar-adversarial"].append(pair)
    for name, rows in found.items():
        random.Random(name).shuffle(rows)
    return found


def asked(text: str) -> tuple[tuple[str, str], ...]:
    """A conversation of one user turn."""
    return (("user", text),)


def hh(chosen: str, rejected: str) -> Compared | None:
    """Two transcripts that differ in their last reply; None where they differ elsewhere or a reply is empty."""
    talks = []
    for text in (chosen, rejected):
        turns = []
        for part in text.split("\n\nHuman:")[1:]:
            human, *replies = part.split("\n\nAssistant:")
            turns += [("user", human.strip()), *(("assistant", reply.strip()) for reply in replies)]
        talks.append(turns)
    one, other = talks
    if not one or one[:-1] != other[:-1] or one[-1][0] != "assistant" or not (one[-1][1] and other[-1][1]):
        return None
    return Compared(tuple(one[:-1]), one[-1][1], other[-1][1])


def trained(
    rows: Sequence[Compared], kind: str, seed: int, model: str, epochs: float, max_length: int
) -> Callable[[Sequence[Compared]], list[tuple[float, float]]]:
    """Train one reward model; it gives the rewards of the better and of the worse reply of comparisons."""
    from transformers import AutoTokenizer

    from preceptor.judge.records import Preference
    from preceptor.prompts.records import Message
    from preceptor.train.models.base import resolve_model
    from preceptor.train.reward import train_reward
    from preceptor.train.settings import RewardModelSettings

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(model))

    def cut(reply: str) -> str:
        ids = tokenizer(reply, add_special_tokens=False).input_ids
        return reply if len(ids) <= max_length // 2 else str(tokenizer.decode(ids[: max_length // 2]))

    def spoken(role: str, text: str) -> Message:
        return Message.model_validate({"role": role, "content": text})

    preferences = [
        Preference(
            id=str(number),
            prompt=tuple(spoken(*turn) for turn in row.turns),
            chosen=(spoken("assistant", cut(row.better)),),
            rejected=(spoken("assistant", cut(row.worse)),),
            probability=(p := row.probability if kind == "soft" else 1.0),
            margin=2 * p - 1,
            constitution="recorded",
            judge="recorded/gpt-4-turbo",
        )
        for number, row in enumerate(rows)
    ]
    settings = RewardModelSettings(
        model=model, epochs=epochs, seed=seed, max_length=max_length, held_out=0, batch_size=16, rank=16
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "reward"
        if kind == "trl":
            by_trl(preferences, settings, folder)
        else:
            train_reward(preferences, settings, folder)
        scored = scorer(folder, settings, kind)

    def rewards(pairs: Sequence[Compared]) -> list[tuple[float, float]]:
        talks = [
            [spoken(role, text) for role, text in (*pair.turns, ("assistant", cut(reply)))]
            for pair in pairs
            for reply in (pair.better, pair.worse)
        ]
        found = scored(talks)
        return list(zip(found[::2], found[1::2], strict=True))

    return rewards


def accuracy(rewards: Sequence[tuple[float, float]]) -> float:
    """Share of comparisons whose better reply has the higher reward; equal ones are half right."""
    return round(statistics.fmean(float(a > b) + 0.5 * (a == b) for a, b in rewards), 4)


def scorer(folder: Path, settings: Any, kind: str) -> Any:
    """Conversations -> rewards."""
    import torch

    from preceptor.train.forward.reward_model import RewardModel
    from preceptor.train.models.base import load_base

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind != "trl":
        return RewardModel.load(folder, settings.model).to(device).score

    from peft import AutoPeftModelForSequenceClassification

    tokenizer = load_base(settings.model).tokenizer
    theirs: Any = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    theirs.config.pad_token_id = tokenizer.pad_token_id
    theirs.to(device).eval()

    @torch.no_grad()
    def rate_theirs(talks: Sequence[Sequence[Any]]) -> list[float]:
        scores = []
        for talk in talks:
            turns = [message.model_dump() for message in talk]
            ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)[
                -settings.max_length :
            ]
            scores.append(float(theirs(torch.tensor([ids], device=device)).logits[0, 0]))
        return scores

    return rate_theirs


def by_trl(preferences: Sequence[Any], settings: Any, folder: Path) -> None:
    """TRL's RewardTrainer on the same rows, with the same adapter, rate and batches of the same size."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from preceptor.train.models.base import resolve_model

    source = resolve_model(settings.model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    columns = ("prompt", "chosen", "rejected")
    rows = Dataset.from_list(
        [
            {name: [turn.model_dump() for turn in getattr(row, name)] for name in columns}
            for row in preferences
        ]
    )
    config: Any = RewardConfig(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        per_device_train_batch_size=settings.batch_size,
        max_length=settings.max_length,
        gradient_checkpointing=False,
        seed=settings.seed,
        save_strategy="no",
        report_to=[],
        bf16=False,
    )
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        target_modules="all-linear",
        task_type="SEQ_CLS",
    )
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora
    )
    trainer.train()
    trainer.save_model(str(folder))


def table(
    finished: Sequence[Mapping[str, Any]], tests: Mapping[str, Sequence[Any]], about: Mapping[str, Any]
) -> str:
    """A row for each number of labels and kind: means over the seeds, in brackets least and most."""
    names = [name for name in SETS if tests[name]]
    head = ["labels", "kind", "seeds", *(f"{SETS[name]} ({len(tests[name])})" for name in names)]
    rows = [head, ["---:", "---", "---:", *["---:"] * len(names)]]
    for size, kind in sorted({(line["size"], line["kind"]) for line in finished}):
        mine = [line["accuracy"] for line in finished if (line["size"], line["kind"]) == (size, kind)]
        cells = []
        for name in names:
            values = [found[name] for found in mine]
            spread = f" [{min(values):.1%}, {max(values):.1%}]" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1%}{spread}")
        rows.append([f"{size:,}", kind, str(len(mine)), *cells])
    told = ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    return f"{told}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plot(finished: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy on held-out GPT-4 labels and on people's, by the number of labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, name in zip(axes, ("gpt4", "pandalm"), strict=True):
        for kind in sorted({line["kind"] for line in finished}):
            sizes = sorted({line["size"] for line in finished if line["kind"] == kind})
            means = [
                statistics.fmean(
                    line["accuracy"][name]
                    for line in finished
                    if (line["kind"], line["size"]) == (kind, size)
                )
                for size in sizes
            ]
            axis.plot(sizes, means, marker="o", label=kind)
        axis.set(xscale="log", xlabel="labels", title=SETS[name])
    axes[0].set_ylabel("accuracy")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    typer.run(main)
