"""Small tokenizers of eleven families, each with its family's kind of vocabulary, control tokens and chat format.

The vocabularies are learned here from a few sentences. The templates are the families' own, as TRL ships them; those
of Llama 2, Mistral and Zephyr are written here after the published formats. What has hurt somebody:

    qwen2.5      a system message where there is none
    qwen3        an empty thought before the reply, in the last turn alone
    llama-3      texts are trimmed; a beginning-of-text token
    llama-2      the system message inside the first user turn, spaces around the reply, and a tokenizer that puts
                 one in front of every stretch of text
    mistral      the system message stands in the last user turn, and nowhere once that has a reply
    gemma        refuses a system message and roles that do not alternate; a turn ends in another token than a text
    phi-3        control tokens swallow the white space behind them; the end of text follows a talk that is over
    deepseek-r1  the opening of a reply begins a thought, which a reply in a talk does not have
    zephyr       role marks of plain letters
    gpt-2        no template
    t5           no template, no byte fallback, and an end-of-text token after every text

`FAMILIES` has them by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SENTENCES = (
    "Good day, and welcome to the front desk. How can I help you with your stay?",
    "The pool opens at seven in the morning and closes at ten at night.",
    "Please show your key card at the bar, the gym or the spa.",
    "I would rather not say which room another guest is in; shall I pass on a message?",
    "the quick brown fox jumps over the lazy dog",
    "Verdict: A  Verdict: B  Score: 7  system user assistant model 0 1 2 3 4 5 6 7 8 9",
    "def total(rows):\n    return sum(row.price for row in rows)\n",
    "Das Frühstück kostet 14 €, für Kinder die Hälfte. Où est l'entrée ? Spiffing!",
)


class Family(NamedTuple):
    """A family of tokenizers, and what is to be known of its chat format."""

    name: str
    load: Callable[[], PreTrainedTokenizerBase]
    turn_end: str
    """The token that ends a reply."""
    generation_eos: tuple[str, ...] = ()
    """Further tokens at which the family's generation config stops."""
    system: bool = True
    """Whether the template takes a system message."""
    reply: Callable[[str], str] = str
    """How the format writes a reply's text."""
    extends: bool = True
    """Whether a longer talk begins with the very tokens of a shorter one and its reply."""
    system_moves: bool = False
    """Whether the system message is in another place, or none, where another turn follows."""
    words_alone: bool = False
    """Whether only words of a to z, with single spaces between them, can be written."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Made once; not to be changed."""
        return _loaded(self.load)

    @property
    def eos_ids(self) -> list[int]:
        """What a generation config would name as ends, in ids."""
        ids = self.tokenizer.convert_tokens_to_ids(list(self.generation_eos))
        return [int(token) for token in ids]


@cache
def _loaded(load: Callable[[], PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return load()


def shipped(name: str) -> str:
    """A family's own chat template."""
    return resources.files("trl").joinpath("chat_templates", f"{name}.jinja").read_text(encoding="utf-8")


ALTERNATE = r"""
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}"""

LLAMA2 = (
    r"""
{%- set system = messages[0].content if messages[0].role == 'system' else false %}
{%- for message in (messages[1:] if system else messages) %}"""
    + ALTERNATE
    + r"""
{%- set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' if loop.first and system else '' %}
{%- set text = text + message.content %}
{%- if message.role == 'user' %}{{- bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
{%- else %}{{- ' ' + text.strip() + ' ' + eos_token }}{%- endif %}
{%- endfor %}"""
)

MISTRAL = (
    r"""
{%- set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}
{{- bos_token }}
{%- for message in (messages[1:] if system else messages) %}"""
    + ALTERNATE
    + r"""
{%- if message.role == 'user' %}
{{- '[INST] ' + (system if loop.last else '') + message.content + '[/INST]' }}
{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}
{%- endfor %}"""
)

ZEPHYR = r"""
{%- for message in messages %}
{{- '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"""


def byte_level(
    template: str | None, eos: str, pad: str | None, bos: str | None = None, controls: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """As GPT-2's: pairs of bytes merged within words, and every text can be written."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer: Any = trainers.BpeTrainer(
        vocab_size=450, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    learned.train_from_iterator(SENTENCES, trainer)
    learned.decoder = decoders.ByteLevel()
    return _wrapped(learned, template, eos, pad, bos, controls)


def sentence_pieces(
    template: str, eos: str, pad: str, bos: str, controls: Sequence[str] = (), prefixed: bool = True
) -> PreTrainedTokenizerBase:
    """As Llama's and Gemma's: a space is a letter, bytes stand in for unknown letters. `prefixed`: every stretch of
    text between control tokens is given a space in front."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer: Any = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    learned.train_from_iterator([text.replace("\n", " ") for text in SENTENCES], trainer)
    model = json.loads(learned.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    raw = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[tuple(pair) for pair in model["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    space = normalizers.Replace(" ", "▁")
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if prefixed else space
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return _wrapped(raw, template, eos, pad, bos, controls)


def unigram() -> PreTrainedTokenizerBase:
    """As T5's: the likeliest pieces, letters it has not seen are unknown, and every text ends in </s>."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=200,
        show_progress=False,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
    )
    raw.train_from_iterator(SENTENCES, trainer)
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def _wrapped(
    raw: Tokenizer,
    template: str | None,
    eos: str,
    pad: str | None,
    bos: str | None,
    controls: Sequence[str | AddedToken],
) -> PreTrainedTokenizerBase:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=eos,
        pad_token=pad,
        bos_token=bos,
        additional_special_tokens=list(controls),
    )
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _phi3() -> PreTrainedTokenizerBase:
    marks = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    controls = [AddedToken(mark, rstrip=True, special=True) for mark in marks]
    return sentence_pieces(shipped("phi3"), "<|endoftext|>", "<|endoftext|>", "<s>", controls)  # type: ignore[arg-type]


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "qwen2.5",
            lambda: byte_level(shipped("qwen2_5"), "<|im_end|>", "<|endoftext|>", controls=["<|im_start|>"]),
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
        ),
        Family(
            "qwen3",
            lambda: byte_level(
                shipped("qwen3"),
                "<|im_end|>",
                "<|endoftext|>",
                controls=["<|im_start|>", "<think>", "</think>"],
            ),
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
            reply=lambda text: text.lstrip("\n"),
            extends=False,
        ),
        Family(
            "llama-3",
            lambda: byte_level(
                shipped("llama3"),
                "<|eot_id|>",
                None,
                "<|begin_of_text|>",
                ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
            ),
            "<|eot_id|>",
            ("<|end_of_text|>", "<|eot_id|>"),
            reply=str.strip,
        ),
        Family(
            "llama-2",
            lambda: sentence_pieces(LLAMA2, "</s>", "<pad>", "<s>"),
            "</s>",
            reply=lambda text: f" {text.strip()} ",
        ),
        Family(
            "mistral",
            lambda: sentence_pieces(MISTRAL, "</s>", "<pad>", "<s>", ["[INST]", "[/INST]"], prefixed=False),
            "</s>",
            reply=lambda text: f" {text.strip()}",
            system_moves=True,
        ),
        Family(
            "gemma",
            lambda: sentence_pieces(
                shipped("gemma"),
                "<eos>",
                "<pad>",
                "<bos>",
                ["<start_of_turn>", "<end_of_turn>"],
                prefixed=False,
            ),
            "<end_of_turn>",
            ("<eos>", "<end_of_turn>"),
            system=False,
            reply=str.strip,
        ),
        Family("phi-3", _phi3, "<|end|>", ("<|endoftext|>", "<|end|>", "<|assistant|>"), reply=str.lstrip),
        Family(
            "deepseek-r1",
            lambda: byte_level(
                shipped("deepseek_r1_distill"),
                "<｜end▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜begin▁of▁sentence｜>",
                ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"],
            ),
            "<｜end▁of▁sentence｜>",
            extends=False,
        ),
        Family("zephyr", lambda: sentence_pieces(ZEPHYR, "</s>", "</s>", "<s>"), "</s>"),
        Family("gpt-2", lambda: byte_level(None, "<|endoftext|>", None), "<|endoftext|>", extends=False),
        Family("t5", unigram, "</s>", reply=lambda text: f" {text}", extends=False, words_alone=True),
    )
}
