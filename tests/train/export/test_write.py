"""Exports: others load them, and get the numbers that we get; each says where it comes from."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from preceptor.constitution.files import load as load_constitution
from preceptor.judge.models.local.loading import quiet_loading
from preceptor.prompts.records import Message
from preceptor.train.dpo import train_dpo
from preceptor.train.errors import CheckpointError, RunFolderError
from preceptor.train.export.classifier import as_classifier, classifier_class, misread
from preceptor.train.export.write import FORMATS, Exported, ExportFormat, export
from preceptor.train.forward.reward_heads import Heads
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.models.adapters import adapt
from preceptor.train.models.base import Base, load_base
from preceptor.train.reward import train_reward
from preceptor.train.settings import DpoSettings, RewardModelSettings
from tests.train.architectures import APART, SHARED, tiny_model
from tests.train.tiny import TEMPLATE, preference, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft 0.21 asks by the old name
)

PAIRS = [preference(number, 0.9) for number in range(24)]
PAIRS[3] = PAIRS[3].model_copy(update={"constitution": "other@1.0.0#111111111111", "judge": "openai/x"})
CONVERSATIONS = [
    *([*pair.prompt, *reply] for pair in PAIRS[:5] for reply in (pair.chosen, pair.rejected)),
    [
        Message(role="system", content="Be brief."),
        *(Message(role="user", content="pool?"), Message(role="assistant", content="Upstairs.")),
        *(
            Message(role="user", content="And the bar?"),
            Message(role="assistant", content="please, downstairs "),
        ),
    ],
]
ROWS = [[turn.model_dump() for turn in turns] for turns in CONVERSATIONS]
NEAR = 1e-4


@pytest.fixture(scope="module")
def places(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two trainings, `reward` and `dpo`, and `embedded`, a reward model on the shipped base."""
    place = tmp_path_factory.mktemp("trained")
    shared = {"batch_size": 8, "rank": 4, "learning_rate": 5e-3, "max_length": 256}
    train_reward(
        PAIRS,
        RewardModelSettings.model_validate({**shared, "model": str(tiny), "held_out": 0.4}),
        place / "reward",
        read={"source": "/home/someone/pairs.jsonl", "sha256": "5" * 64, "set_aside": {"no reply": 2}},
    )
    train_dpo(PAIRS, DpoSettings.model_validate({**shared, "model": str(tiny)}), place / "dpo")
    train_reward(PAIRS, RewardModelSettings.model_validate({**shared, "held_out": 0.0}), place / "embedded")
    return place


def padded(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask` (R, T) of token rows, padded at `side`."""
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids, seen = [], []
    for row in rows:
        gap = width - len(row)
        ids.append([pad] * gap + row if side == "left" else row + [pad] * gap)
        seen.append([0] * gap + [1] * len(row) if side == "left" else [1] * len(row) + [0] * gap)
    return torch.tensor(ids), torch.tensor(seen)


@torch.no_grad()
def classified(folder: Path, sides: tuple[str, ...] = ("left", "right")) -> list[list[float]]:
    """Scores of CONVERSATIONS by plain transformers: one by one, in a batch padded at each of `sides`, by the
    pipeline on texts, one by one and in a batch, and as RewardBench and TRL read them."""
    from transformers import pipeline

    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        scorer: Any = pipeline(
            "text-classification", model=model, tokenizer=tokenizer, function_to_apply="none"
        )
    tokens = [tokenizer.apply_chat_template(rows, tokenize=True, return_dict=False) for rows in ROWS]
    texts = [tokenizer.apply_chat_template(rows, tokenize=False) for rows in ROWS]
    found = [[model(input_ids=torch.tensor([row])).logits.item() for row in tokens]]
    for side in sides:
        ids, seen = padded(tokenizer, tokens, side)
        found.append(model(input_ids=ids, attention_mask=seen).logits[:, 0].tolist())
    for batch_size in (1, 4):
        found.append([said["score"] for said in scorer(texts, batch_size=batch_size)])
    if "left" in sides:
        found.append(as_rewardbench(scorer, texts))
    found.append(as_trl(model, tokenizer))
    return found


def as_rewardbench(scorer: Any, texts: list[str]) -> list[float]:
    """As `rewardbench` of allenai/reward-bench, commit 011dfbd, asks its pipeline."""
    scorer.tokenizer.padding_side = "left"
    options = {"truncation": False, "padding": True, "max_length": 512, "return_token_type_ids": False}
    with pytest.warns(UserWarning, match="`max_length` is ignored"):
        said = scorer(texts, batch_size=8, function_to_apply="none", **options)
    scorer.tokenizer.padding_side = "right"
    return [row["score"] for row in said]


def as_trl(model: Any, tokenizer: Any) -> list[float]:
    """As `GRPOTrainer` of TRL 1.16 asks a reward model."""
    from trl.data_utils import apply_chat_template

    texts = [apply_chat_template({"messages": rows}, tokenizer)["text"] for rows in ROWS]
    inputs = tokenizer(
        text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
    )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    scores: list[float] = model(**inputs).logits[:, 0].tolist()
    return scores


@pytest.mark.parametrize("name", ["reward", "embedded"])
def test_a_classifier_gives_the_reward_models_scores(places: Path, tmp_path: Path, name: str) -> None:
    ours = RewardModel.load(places / name).score(CONVERSATIONS)
    assert max(ours) - min(ours) > 0.05
    made = export(places / name, tmp_path / "out", "sequence-classification")
    assert made.notes == ()
    ways = classified(made.folder)
    assert len(ways) == 7
    for theirs in ways:
        assert theirs == pytest.approx(ours, abs=NEAR)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["problem_type"] == "regression"
    assert config["id2label"] == {"0": "reward"}
    assert config["pad_token_id"] == 0
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["dtype"] == "float32"
    weights = load_file(made.folder / "model.safetensors")
    head = load_file(places / name / "score_head.safetensors")["weight"]
    assert torch.equal(weights["score.weight"], head)
    assert not [key for key in weights if "lora" in key or "lm_head" in key]


def test_a_classifier_in_half_precision(places: Path, tmp_path: Path) -> None:
    export(places / "reward", tmp_path / "out", "sequence-classification", "bfloat16")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.bfloat16"}
    ours = RewardModel.load(places / "reward").score(CONVERSATIONS)
    assert classified(tmp_path / "out")[0] == pytest.approx(ours, abs=0.1)


def untrained(
    name: str, tokenizer: PreTrainedTokenizerBase | None = None, heads: Heads | None = None
) -> RewardModel:
    """A reward model on a tiny model of an architecture, whose adapter and head change a lot."""
    base = Base(tiny_model(name).requires_grad_(False), tokenizer or tiny_tokenizer(), name)
    model = RewardModel(adapt(base, 4, 8.0, 0), base, 256, heads)
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(model.head.weight)
    return model.eval()


def scored_both_ways(model: RewardModel, place: Path, sides: tuple[str, ...]) -> None:
    """The exported classifier's scores are the reward model's; those without the adapter are not."""
    with model.adapted.disable_adapter(), torch.no_grad():
        without = model.score(CONVERSATIONS)
    ours = model.score(CONVERSATIONS)
    assert ours != pytest.approx(without, abs=100 * NEAR)
    made = as_classifier(model, torch.float32)
    made.tokenizer.save_pretrained(place)
    with quiet_loading():
        made.model.save_pretrained(place)
    assert misread(place, model.base) == ()
    for theirs in classified(place, sides):
        assert theirs == pytest.approx(ours, abs=NEAR)


@pytest.mark.parametrize("name", sorted({*SHARED, *APART} - {"granite", "cohere2", "mamba"}))
def test_every_architecture_that_has_a_classifier(name: str, tmp_path: Path) -> None:
    scored_both_ways(untrained(name), tmp_path / "out", ("left", "right"))


@pytest.mark.parametrize("name", ["granite", "cohere2", "mamba"])
def test_an_architecture_without_a_classifier_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"no sequence classifier for the architecture '{name}'"):
        classifier_class(tiny_model(name).config)


def reading_tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """A tokenizer whose text a classifier would read in the wrong place, or as other tokens."""
    from tokenizers import processors

    tokenizer: Any = tiny_tokenizer()
    if kind == "pads with the end of turn":
        tokenizer.pad_token = tokenizer.eos_token
    elif kind == "newline after the end of turn":
        tokenizer.chat_template = TEMPLATE.replace("{{ eos_token }}", "{{ eos_token }}{{ '\\n' }}")
    else:
        tokenizer.bos_token = "<|system|>"
        tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|system|> $A", pair="<|system|> $A $B", special_tokens=[("<|system|>", 2)]
        )
        assert tokenizer("a").input_ids[0] == 2
    return tokenizer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("pads with the end of turn", r"The padding token is '<pad>' and no longer '</s>'"),
        ("newline after the end of turn", "no longer writes white space behind the last end of turn"),
        ("adds tokens to a text", "The tokenizer adds no tokens to a text"),
    ],
)
def test_the_score_is_read_where_the_reply_ends(kind: str, note: str, tmp_path: Path) -> None:
    made = as_classifier(untrained("llama", reading_tokenizer(kind)), torch.float32)
    assert len(made.notes) == 1
    assert re.search(note, made.notes[0])
    assert made.end_of_turn == "</s>"
    scored_both_ways(untrained("llama", reading_tokenizer(kind)), tmp_path / "out", ("left", "right"))


def test_a_vocabulary_without_any_other_special_token_gets_one_to_pad_with(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["@", "</s>", *letters, *(f"w{number}" for number in range(42))]
    raw = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    assert len(tokenizer) >= 299
    while len(tokenizer) < 300:  # as many as the model has rows
        tokenizer.add_tokens([f"x{len(tokenizer)}"])
    model = untrained("llama", tokenizer)
    scored_both_ways(model, tmp_path / "out", ("right", "left"))
    assert load_file(tmp_path / "out/model.safetensors")["model.embed_tokens.weight"].shape[0] == 301
    assert json.loads((tmp_path / "out/config.json").read_text())["pad_token_id"] == 300


def test_a_template_that_would_be_read_otherwise_is_told(tmp_path: Path) -> None:
    """It says in the prompt how many turns there are, so that the reply changes the prompt."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    model = untrained("llama", tokenizer)
    made = as_classifier(model, torch.float32)
    made.tokenizer.save_pretrained(tmp_path / "out")
    assert misread(tmp_path / "out", model.base) == (
        "a conversation of one turn",
        "a conversation of several turns",
    )


@pytest.mark.parametrize(
    ("heads", "note"),
    [
        (Heads(kind="ensemble", names=("0", "1", "2"), penalty=0.5), "penalty of 0.5 times their standard"),
        (
            Heads(
                kind="principles", names=("a", "b", "c"), weights=(1.0, 3.0, 5.0), applies_to=((), (), ("x",))
            ),
            "that of a prompt without tags",
        ),
    ],
)
def test_several_heads_become_one_linear_score(tmp_path: Path, heads: Heads, note: str) -> None:
    model = untrained("llama", heads=heads)
    with torch.no_grad():
        model.offset.copy_(torch.tensor([1.0, -2.0, 4.0]))
    if heads.kind == "ensemble":
        ours = [rating.reward + 0.5 * rating.spread + 1.0 for rating in model.rate(CONVERSATIONS)]
    else:
        ours = [rating.reward + (1.0 - 3 * 2.0) / 4 for rating in model.rate(CONVERSATIONS)]
    made = as_classifier(model, torch.float32)
    assert note in made.notes[0]
    constant = "+1" if heads.kind == "ensemble" else "-1.25"
    assert made.notes[1:] == (f"All scores differ from those in Preceptor by {constant}.",)
    made.tokenizer.save_pretrained(tmp_path)
    with quiet_loading():
        made.model.save_pretrained(tmp_path)
    assert classified(tmp_path)[0] == pytest.approx(ours, abs=NEAR)


def causal_logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.arange(5, 45).view(2, 20)).logits
    return found


def test_merged_is_a_plain_checkpoint_with_the_adapters_logits(
    places: Path, tiny: Path, tmp_path: Path
) -> None:
    with quiet_loading():
        base = AutoModelForCausalLM.from_pretrained(tiny)
        untouched = causal_logits(base)
        adapted = PeftModel.from_pretrained(base, places / "dpo")
        made = export(places / "dpo", tmp_path / "out", "merged")
        merged = AutoModelForCausalLM.from_pretrained(made.folder)
    ours = causal_logits(adapted)
    assert not torch.allclose(ours, untouched, atol=100 * NEAR)
    assert torch.allclose(causal_logits(merged), ours, atol=NEAR)
    assert merged.dtype == torch.float32
    assert GenerationConfig.from_pretrained(made.folder).eos_token_id == 1
    assert AutoTokenizer.from_pretrained(made.folder).chat_template == TEMPLATE
    export(places / "dpo", tmp_path / "half", "merged", "bfloat16")
    assert {weight.dtype for weight in load_file(tmp_path / "half/model.safetensors").values()} == {
        torch.bfloat16
    }


def test_merged_keeps_the_bases_own_dtype(tiny: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny), torch.bfloat16)
    with quiet_loading():
        base.model.save_pretrained(tmp_path / "base")
        base.tokenizer.save_pretrained(tmp_path / "base")
    settings = DpoSettings(model=str(tmp_path / "base"), batch_size=8, rank=4)
    train_dpo(PAIRS[:8], settings, tmp_path / "dpo")
    export(tmp_path / "dpo", tmp_path / "out", "merged")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("form", ["adapter", "vllm"])
def test_adapters_load_with_plain_peft(places: Path, tiny: Path, tmp_path: Path, form: ExportFormat) -> None:
    made = export(places / "dpo", tmp_path / "out", form)
    with quiet_loading():
        theirs, ours = (
            causal_logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder))
            for folder in (made.folder, places / "dpo")
        )
    assert torch.equal(theirs, ours)
    kept = {path.name for path in made.folder.iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    needed = {"README.md", "manifest.json", "SHA256SUMS", "adapter_config.json", "adapter_model.safetensors"}
    assert kept == (needed if form == "vllm" else needed | tokenizer)
    assert json.loads((made.folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny
    )


def test_the_adapter_of_a_reward_model_is_a_reward_model(places: Path, tmp_path: Path) -> None:
    made = export(places / "reward", tmp_path / "out", "adapter")
    ours = RewardModel.load(places / "reward").score(CONVERSATIONS)
    assert RewardModel.load(made.folder).score(CONVERSATIONS) == ours
    assert (made.folder / "report_card.json").read_bytes() == (
        places / "reward/report_card.json"
    ).read_bytes()


def test_vllm_gets_what_it_reads_and_its_command(places: Path, tiny: Path, tmp_path: Path) -> None:
    made = export(places / "dpo", tmp_path / "desk", "vllm")
    assert made.command == (
        f"vllm serve {tiny} --enable-lora --lora-modules desk={tmp_path / 'desk'} --max-lora-rank 8"
    )
    readme = (made.folder / "README.md").read_text()
    assert f"vllm serve {tiny} --enable-lora --lora-modules desk=./desk --max-lora-rank 8" in readme
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert isinstance(config["target_modules"], list)
    assert config["modules_to_save"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"r": 1024}, "r = 1024, more than 512"),
    ],
)
def test_vllm_refuses_what_it_would_not_serve(
    places: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder = copied(places / "dpo", tmp_path, "adapter_config.json", change)
    with pytest.raises(CheckpointError, match=rf"vLLM cannot serve the adapter .* \({named}\): use merged"):
        export(folder, tmp_path / "out", "vllm")
    assert not (tmp_path / "out").exists()


def test_targets_written_as_a_pattern_are_listed_for_vllm(places: Path, tmp_path: Path) -> None:
    change = {"target_modules": r".*\.(q|k|v|o|gate|up|down)_proj"}
    folder = copied(places / "dpo", tmp_path, "adapter_config.json", change)
    made = export(folder, tmp_path / "out", "vllm")
    listed = json.loads((made.folder / "adapter_config.json").read_text())["target_modules"]
    assert listed == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def copied(folder: Path, place: Path, name: str, change: dict[str, Any]) -> Path:
    """A training's folder with `change` in one of its JSON files, whose manifest knows of it."""
    shutil.copytree(folder, place / "copy")
    path = place / "copy" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    if name != "manifest.json":
        manifest = json.loads((place / "copy/manifest.json").read_text())
        manifest["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (place / "copy/manifest.json").write_text(json.dumps(manifest))
    return place / "copy"


EVERY: list[tuple[str, ExportFormat]] = [
    ("dpo", "adapter"),
    ("dpo", "merged"),
    ("reward", "adapter"),
    ("reward", "sequence-classification"),
    ("embedded", "adapter"),
    ("embedded", "sequence-classification"),
]


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_the_code_of_the_card_works(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: ExportFormat
) -> None:
    made = export(places / name, tmp_path / "exported", form)
    (code,) = re.findall(r"```python\n(.*?)```", (made.folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with quiet_loading():
        exec(code, names)
    if name == "dpo":
        assert names["tokenizer"].chat_template == TEMPLATE
        with quiet_loading():
            ours = PeftModel.from_pretrained(load_base(made_base(places / name)).model, places / name)
        assert torch.allclose(causal_logits(names["model"]), causal_logits(ours), atol=NEAR)
    else:
        turns = [Message(**turn) for turn in names["chat"]]
        ours_score = RewardModel.load(places / name).score([turns])[0]
        assert names["score"] == pytest.approx(ours_score, abs=NEAR)


def made_base(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["settings"]["model"])


def test_the_code_of_the_card_works_without_a_chat_template(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink()
    settings = RewardModelSettings(model=str(tmp_path / "bare"), batch_size=8, rank=4, held_out=0)
    train_reward(PAIRS[:8], settings, tmp_path / "reward")
    made = export(tmp_path / "reward", tmp_path / "exported", "sequence-classification")
    readme = (made.folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert "nothing is known of how good it is" in readme
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with quiet_loading():
        exec(code, names)
    turns = [
        Message(role="user", content="Where is the pool?"),
        Message(role="assistant", content="On the second floor."),
    ]
    assert names["score"] == pytest.approx(RewardModel.load(tmp_path / "reward").score([turns])[0], abs=NEAR)


def header(readme: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(readme.split("---")[1])
    return found


def test_the_card_says_where_it_comes_from_and_how_good_it_is(places: Path, tmp_path: Path) -> None:
    trained = json.loads((places / "reward/manifest.json").read_text())
    card = trained["metrics"]["held_out"]
    export(places / "reward", tmp_path / "rm", "sequence-classification")
    readme = (tmp_path / "rm/README.md").read_text()
    low, high = card["ci95"]
    wanted = [
        "# rm\n",
        "`other@1.0.0#111111111111`, `test@1.0.0#000000000000`",
        "`openai/x`, `scripted/test`",
        f"On {card['n']} held-out pairs",
        f"| accuracy | {card['accuracy']:.3f} [{low:.3f}, {high:.3f}] |",
        f"| nll | {card['nll']:.3f} |",
        f"| ece | {card['ece']:.3f} |",
        f"24 rows in, {trained['rows']['used']} trained on, {card['n']} held out",
        "2 set aside: no reply",
        "file `pairs.jsonl`, SHA-256 `" + "5" * 64,
        trained["hashes"]["rows"],
        trained["hashes"]["model"],
        "- rank: `4`",
        f"- torch {torch.__version__}",
        "must end in `</s>`",
    ]
    assert [text for text in wanted if text not in readme] == []
    assert "/home/someone" not in readme
    assert header(readme) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["preceptor", "reward-model", "rlaif", "constitutional-ai"],
    }


def test_a_base_of_the_hub_is_named_by_its_id(places: Path, tmp_path: Path) -> None:
    folder = copied(
        places / "dpo", tmp_path, "adapter_config.json", {"base_model_name_or_path": "acme/desk-1b"}
    )
    made = export(folder, tmp_path / "out", "vllm", hub_id="me/desk")
    readme = (made.folder / "README.md").read_text()
    assert header(readme)["base_model"] == "acme/desk-1b"
    assert header(readme)["library_name"] == "peft"
    assert made.command.startswith("vllm serve acme/desk-1b --enable-lora")
    assert "--lora-modules out=me/desk" in readme
    assert made.notes == ()
    assert (
        len(export(places / "dpo", tmp_path / "other", "vllm").notes) == 1
    )  # a base that others do not have


def test_the_manifest_proves_the_folder(places: Path, tmp_path: Path) -> None:
    made = export(places / "reward", tmp_path / "out", "sequence-classification")
    manifest = json.loads((made.folder / "manifest.json").read_text())
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made.folder.iterdir()
        if path.name not in ("manifest.json", "SHA256SUMS")
    }
    assert manifest["files"] == files
    assert manifest["constitutions"] == ["other@1.0.0#111111111111", "test@1.0.0#000000000000"]
    assert manifest["judges"] == ["openai/x", "scripted/test"]
    of_training = hashlib.sha256((places / "reward/manifest.json").read_bytes()).hexdigest()
    assert manifest["training"]["manifest"] == of_training
    newest = max(made.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "manifest.json"


def test_constitution_and_judge_of_the_run_stand_in_for_those_of_the_rows(
    places: Path, tmp_path: Path
) -> None:
    folder = copied(places / "dpo", tmp_path, "manifest.json", {"constitutions": [], "judges": []})
    named = export(folder, tmp_path / "none", "adapter")
    assert (named.constitutions, named.judges) == (("unknown",), ("unknown",))
    readme = (named.folder / "README.md").read_text()
    assert "| constitution | not named by the training data |" in readme
    assert "judged by machine" not in readme  # it may have been people
    assert header(readme)["tags"] == ["preceptor", "dpo", "lora"]
    (tmp_path / "constitution.yaml").write_text(
        "name: desk\nversion: 1.2.0\nprinciples:\n  - {id: polite, text: Choose the polite reply.}\n"
    )
    (tmp_path / "manifest.json").write_text('{"kind": "run", "settings": {"judge": "openai/gpt-5-mini"}}')
    named = export(folder, tmp_path / "out", "adapter")
    assert named.constitutions == (load_constitution(tmp_path / "constitution.yaml").identity,)
    assert named.judges == ("openai/gpt-5-mini",)
    readme = (named.folder / "README.md").read_text()
    assert "Its training data was judged by machine and not by people." in readme
    assert header(readme)["tags"] == ["preceptor", "dpo", "rlaif", "constitutional-ai", "lora"]
    change = {"kind": "sft", "judges": [], "constitutions": []}
    shutil.rmtree(folder)
    copied(places / "dpo", tmp_path, "manifest.json", change)
    assert export(folder, tmp_path / "sft", "adapter").judges == ("unknown",)  # no judge compares revisions


@pytest.mark.parametrize(
    ("judges", "told"),
    [
        (["openai/x", "unknown"], "`openai/x`, and rows that name none"),
        (["openai/x + human/ann"], "`openai/x + human/ann`"),
    ],
)
def test_where_people_may_have_judged_the_card_does_not_deny_it(
    places: Path, tmp_path: Path, judges: list[str], told: str
) -> None:
    folder = copied(places / "dpo", tmp_path, "manifest.json", {"judges": judges})
    readme = (export(folder, tmp_path / "out", "vllm").folder / "README.md").read_text()
    assert f"| judge | {told} |" in readme
    assert "judged by machine" not in readme
    assert "rlaif" not in header(readme)["tags"]


@pytest.mark.parametrize(
    ("name", "form", "dtype", "message"),
    [
        ("reward", "merged", None, "would lose its score: use sequence-classification"),
        ("reward", "vllm", None, "vLLM serves no score beside an adapter: use sequence-classification"),
        ("dpo", "sequence-classification", None, r"is a policy \(dpo\) and scores nothing: use merged"),
        ("dpo", "adapter", "bfloat16", "dtype has no effect on format adapter"),
        ("dpo", "gguf", None, "no format 'gguf'; wanted adapter, merged"),
        ("dpo", "merged", "int4", "no dtype 'int4'; wanted float32"),
        (".", "adapter", None, r"name the one to export: .*/dpo \(dpo\), .*/embedded \(reward\), .*/reward"),
        ("none", "adapter", None, "no folder .*none; wanted one that `preceptor train` wrote"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    places: Path, tmp_path: Path, name: str, form: Any, dtype: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        export(places / name, tmp_path / "place/out", form, dtype)
    assert not (tmp_path / "place").exists()


def test_a_folder_that_is_no_finished_training_says_what_it_is(
    places: Path, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is no model; wanted a folder that `preceptor train` wrote"):
        export(tiny, tmp_path / "out", "adapter")
    made = export(places / "dpo", tmp_path / "first", "adapter")
    with pytest.raises(CheckpointError, match="is an export itself"):
        export(made.folder, tmp_path / "out", "adapter")
    shutil.copytree(places / "dpo", tmp_path / "half")
    (tmp_path / "half/manifest.json").unlink()
    with pytest.raises(CheckpointError, match="is not finished: run its command again"):
        export(tmp_path / "half", tmp_path / "out", "adapter")


def test_weights_that_are_not_those_of_the_manifest_are_refused(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places / "reward", tmp_path / "copy")
    head = tmp_path / "copy/score_head.safetensors"
    save_file({"weight": torch.zeros(1, 32)}, str(head), metadata={"max_length": "256"})
    with pytest.raises(CheckpointError, match=r"score_head\.safetensors is not the file that manifest\.json"):
        export(tmp_path / "copy", tmp_path / "out", "sequence-classification")


def test_an_output_folder_that_holds_something_is_refused(places: Path, tmp_path: Path) -> None:
    def made(out: Path) -> Exported:
        return export(places / "dpo", out, "vllm")

    (tmp_path / "empty").mkdir()
    assert made(tmp_path / "empty").folder == tmp_path / "empty"
    with pytest.raises(RunFolderError, match="already holds something"):
        made(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="already holds something"):
        made(tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot write to"):
        made(tmp_path / "file/out")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_every_format_has_its_entry() -> None:
    assert tuple(FORMATS) == get_args(ExportFormat)
