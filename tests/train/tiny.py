"""A tiny random Llama with a byte-level tokenizer, and preferences for it to learn from."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preceptor.judge.records import Preference
from preceptor.prompts.records import Message
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.models.adapters import adapt
from preceptor.train.models.base import load_base

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the markers of the template."""
    markers = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*markers, *letters])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(markers)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write the model and its tokenizer as any checkpoint folder."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_reward(place: Path, name: str, seed: int) -> Path:
    """A reward model whose adapter and head change a lot; all in one place stand on one base."""
    base = load_base(str(place / "tiny" if (place / "tiny").exists() else save_tiny(place / "tiny")))
    model = RewardModel(adapt(base, 4, 8.0, 0), base, 128)
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(model.head.weight)
    model.save(place / name)
    return place / name


def preference(number: int, probability: float = 1.0) -> Preference:
    """A pair whose chosen reply says please, of a length that varies with its number."""
    draw = random.Random(number)
    words = ["pool", "bar", "gym", "spa", "desk"]
    question = " ".join(draw.choices(words, k=draw.randint(1, 9)))
    answer = " ".join(draw.choices(words, k=draw.randint(1, 5)))
    return Preference(
        id=f"pair-{number}",
        prompt=(Message(role="user", content=f"{number}: where is the {question}?"),),
        chosen=(Message(role="assistant", content=f"please, {answer}"),),
        rejected=(Message(role="assistant", content=answer + "!" * draw.randint(1, 6)),),
        probability=probability,
        margin=2 * probability - 1,
        constitution="test@1.0.0#000000000000",
        judge="scripted/test",
    )
