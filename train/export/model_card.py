"""The model card of an export: what it is, by whose constitution and judge, how good, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.judge.models.local.weights_hash import is_gguf
from preceptor.judge.models.registry import declared, packaged
from preceptor.prompts.shown import markdown, markdown_code
from preceptor.train.data.readers import UNKNOWN
from preceptor.train.export.provenance import REWARD, Origin
from preceptor.train.models.base import resolve_model

WHAT = {
    "reward": "A reward model: it scores replies, and a difference of two scores is the log-odds that the first is "
    "the better.",
    "sft": "A policy, tuned on replies to imitate.",
    "dpo": "A policy, tuned by DPO on preferences.",
    "kto": "A policy, tuned by KTO on replies that are good or bad.",
    "ppo": "A policy, tuned by PPO against a reward.",
}
LIBRARY = {
    "adapter": "peft",
    "vllm": "peft",
    "merged": "transformers",
    "sequence-classification": "transformers",
}
FORMS = {
    "adapter": "a LoRA adapter in PEFT's form",
    "merged": "a whole checkpoint, the adapter merged into its base",
    "sequence-classification": "a plain `AutoModelForSequenceClassification` of one label, the adapter merged into "
    "its base",
    "vllm": "a LoRA adapter in the form that vLLM serves",
}
FIGURES = (
    ("accuracy", "pairs whose chosen reply scores higher"),
    ("nll", "mean cross-entropy against the labels, nats"),
    ("nll_floor", "the least there is: the labels' own entropy, nats"),
    ("brier", "mean square of the model's minus the label's probability"),
    ("ece", "expected calibration error"),
    ("ece_fitted", "the same with a fitted temperature"),
)
HASHED = {"model": "base's weights", "adapter": "adapter that it went on from"}
CHAT = """chat = [
    {"role": "user", "content": "Where is the pool?"},
    {"role": "assistant", "content": "On the second floor, open from seven to ten."},
]
"""


class MadeIn(NamedTuple):
    """What the writing of a format says to the card."""

    notes: tuple[str, ...] = ()
    dtype: str = ""
    """Of a checkpoint's weights."""
    end_of_turn: str = ""
    """The token at which a classifier reads its score."""
    template: bool = True
    """Whether the tokenizer has a chat template."""
    max_length: int = 0
    """Tokens of the longest conversation trained on."""
    rank: int = 0
    command: str = ""
    loaded_as: str = ""
    """What the code loads: a hub id or a folder."""
    on_hub: bool = False
    name: str = ""


def model_card(origin: Origin, form: str, made: MadeIn, versions: Mapping[str, str]) -> str:
    """The card in Markdown, with the header that the hub reads."""
    parts = [
        _header(origin, form),
        f"# {made.name}\n\n{WHAT.get(origin.kind, f'A policy, tuned by {origin.kind}.')}{_labelled(origin)}"
        f"\n\n{_origin(origin, form, made)}",
        _code(origin, form, made),
        *([f"## Notes\n\n{_list(made.notes)}"] if made.notes else []),
        _figures(origin),
        _data(origin),
        f"## Settings\n\n{_list(_settings(origin.manifest['settings']))}",
        f"## Versions\n\n{_list(_versions(origin, versions))}",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _header(origin: Origin, form: str) -> str:
    task = "text-classification" if origin.kind == REWARD else "text-generation"
    tags = ["preceptor", "reward-model" if origin.kind == REWARD else origin.kind]
    tags += ["rlaif"] if _by_machine(origin) else []
    tags += [] if UNKNOWN in origin.constitutions else ["constitutional-ai"]
    if LIBRARY[form] == "peft":
        tags.append("lora")
    lines = [f"library_name: {LIBRARY[form]}", f"pipeline_tag: {task}", f"tags: [{', '.join(tags)}]"]
    if origin.hub_base:
        lines.insert(0, f"base_model: {json.dumps(origin.hub_base)}")
    return "\n".join(["---", *lines, "---"])


def _origin(origin: Origin, form: str, made: MadeIn) -> str:
    rows = [
        ("form", FORMS[form] + (f", {made.dtype}" if made.dtype else "")),
        ("base", _base_shown(origin)),
        ("constitution", _names(origin.constitutions)),
        ("judge", _names(origin.judges)),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _base_shown(origin: Origin) -> str:
    return f"{markdown_code(origin.base_name)}{origin.base_from and f', {markdown(origin.base_from)}'}"


def _names(names: tuple[str, ...]) -> str:
    known = [markdown_code(name) for name in names if name != UNKNOWN]
    if not known:
        return "not named by the training data"
    return ", ".join(known) + (", and rows that name none" if UNKNOWN in names else "")


def _by_machine(origin: Origin) -> bool:
    """Whether no person has judged the rows, as far as all of them say who did."""
    judges = [name for judge in origin.judges for name in judge.split(" + ")]
    return not any(name == UNKNOWN or declared(name).person for name in judges)


def _labelled(origin: Origin) -> str:
    return " Its training data was judged by machine and not by people." if _by_machine(origin) else ""


def _code(origin: Origin, form: str, made: MadeIn) -> str:
    if form == "vllm":
        use = f"```sh\n{made.command}\n```\n\nThen ask for the model `{made.name}`."
    elif form == "sequence-classification":
        use = _scoring(made)
    elif form == "merged":
        use = _python(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"place = {json.dumps(made.loaded_as)}\n"
            "model = AutoModelForCausalLM.from_pretrained(place)\n"
            "tokenizer = AutoTokenizer.from_pretrained(place)"
        )
    elif origin.kind == REWARD:
        place = json.dumps(made.loaded_as)
        use = _python(
            ("from huggingface_hub import snapshot_download\n" if made.on_hub else "")
            + "from preceptor.prompts.records import Message\n"
            "from preceptor.train.forward.reward_model import RewardModel\n\n"
            f"place = {f'snapshot_download({place})' if made.on_hub else place}\n"
            f"model = RewardModel.load(place, {json.dumps(origin.base)})\n"
            f"{CHAT}score = model.score([[Message(**turn) for turn in chat]])[0]"
        )
    else:
        use = _python(
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            + _base_code(origin)
            + f"place = {json.dumps(made.loaded_as)}\n"
            "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), place)\n"
            "tokenizer = AutoTokenizer.from_pretrained(place)"
        )
    return f"## Use\n\n{use}"


def _base_code(origin: Origin) -> str:
    if origin.base in packaged() or is_gguf(origin.base):
        where = "from preceptor.train.models.base import resolve_model"
        return f"{where}\n\nbase = resolve_model({json.dumps(origin.base)})  # of Preceptor\n"
    return f"\nbase = {json.dumps(resolve_model(origin.base))}\n"


def _scoring(made: MadeIn) -> str:
    load = (
        "from transformers import AutoTokenizer, pipeline\n\n"
        f"place = {json.dumps(made.loaded_as)}\n"
        "tokenizer = AutoTokenizer.from_pretrained(place)\n"
        'scorer = pipeline("text-classification", model=place, tokenizer=tokenizer, function_to_apply="none")\n'
    )
    if made.template:
        read = (
            f"{CHAT}text = tokenizer.apply_chat_template(chat, tokenize=False)\n"
            'score = scorer([text], add_special_tokens=False)[0]["score"]'
        )
    else:
        read = (
            'prompt = tokenizer("user: Where is the pool?\\n\\nassistant: ").input_ids\n'
            'reply = tokenizer("On the second floor.", add_special_tokens=False).input_ids\n'
            "ids = torch.tensor([[*prompt, *reply, tokenizer.eos_token_id]])\n"
            "score = scorer.model(input_ids=ids).logits[0, 0].item()"
        )
        load = "import torch\n" + load
    return (
        f"{_python(load + read)}\n\n"
        f"The score is read at the last token that is not padding, so a text must end in `{made.end_of_turn}`, the end "
        f"of the reply's turn. It was trained on at most {made.max_length} tokens; of a longer conversation Preceptor "
        "drops the prompt's left."
    )


def _figures(origin: Origin) -> str:
    card: Mapping[str, Any] = origin.card or {}
    if origin.kind != REWARD:
        last = {
            key: value for key, value in origin.manifest["metrics"].items() if isinstance(value, int | float)
        }
        lines = (f"{markdown(key)}: {value:.4g}" for key, value in sorted(last.items()))
        return f"## Last step of training\n\n{_list(lines)}"
    if not card.get("n"):
        return "## Report card\n\nNo pairs were held out: nothing is known of how good it is."
    rows = [
        f"| {key} | {card[key]:.3f}{_interval(card, key)} | {words} |"
        for key, words in FIGURES
        if isinstance(card.get(key), int | float)
    ]
    return (
        f"## Report card\n\nOn {card['n']} held-out pairs, against labels of the same source as those trained on. "
        "Brackets hold the 95 % interval; `report_card.json` has all figures.\n\n| figure | | |\n|---|---:|---|\n"
        + "\n".join(rows)
    )


def _interval(card: Mapping[str, Any], key: str) -> str:
    if key != "accuracy" or "ci95" not in card:
        return ""
    low, high = card["ci95"]
    return f" [{low:.3f}, {high:.3f}]"


def _data(origin: Origin) -> str:
    manifest = origin.manifest
    rows, read = manifest["rows"], manifest.get("read", {})
    told = [
        f"{rows['in']} rows in, {rows['used']} trained on, {rows['held_out']} held out, "
        f"{rows['shortened']} with a shortened prompt",
        *(
            f"{count} set aside: {markdown(reason)}"
            for reason, count in [*read.get("set_aside", {}).items(), *rows["set_aside"].items()]
        ),
    ]
    if source := read.get("source"):
        told.append(
            f"file {markdown_code(_shown(source))}"
            + (f", SHA-256 {markdown_code(read['sha256'])}" if read.get("sha256") else "")
        )
    told += [
        f"hash of the {markdown(HASHED.get(name, name))}: {markdown_code(value)}"
        for name, value in manifest["hashes"].items()
        if value
    ]
    told += [markdown(str(note)) for note in manifest.get("notes", ())]
    return f"## Data\n\n{_list(told)}"


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in sorted(settings.items()):
        if value is not None:
            yield f"{markdown(key)}: {markdown_code(_shown(value))}"


def _versions(origin: Origin, now: Mapping[str, str]) -> Iterator[str]:
    then = origin.manifest.get("versions", {})
    for name, version in now.items():
        if version:
            trained = then.get(name)
            yield f"{name} {version}" + (
                f" (trained with {trained})" if trained and trained != version else ""
            )


def _shown(value: Any) -> Any:
    """A value as others may see it: of a path on this machine, its name alone."""
    if isinstance(value, str) and ("/" in value or "\\" in value) and Path(value).expanduser().is_absolute():
        return Path(value).name
    return value


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _list(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)
