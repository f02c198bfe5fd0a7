"""Small tokenizers of twelve families, each with a chat template and control tokens of its kind."""

from __future__ import annotations

from functools import cache
from typing import Any

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
from transformers import PreTrainedTokenizerFast

TEXT = [
    "Good day guest, how can I help you? Verdict: A Verdict: B system user assistant The mark ends a turn."
] * 20
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must "
    "alternate') }}{% endif %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
GEMMA = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BERT = (
    "{% for m in messages %}[CLS] {{ m.role }} {{ m.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant {% endif %}"
)
DEEPSEEK = (
    "<｜begin｜>{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<｜User｜>"
    "{{ m.content }}{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
CHATML_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(prefix: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    return made


def trained(made: Tokenizer, marks: list[str], **options: Any) -> Tokenizer:
    kinds = {
        "BPE": trainers.BpeTrainer,
        "Unigram": trainers.UnigramTrainer,
        "WordPiece": trainers.WordPieceTrainer,
    }
    trainer = kinds[type(made.model).__name__](
        vocab_size=420, special_tokens=marks, show_progress=False, **options
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def metaspace(scheme: str, model: Any, marks: list[str], **options: Any) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n", "｜"]
    return trained(made, marks, initial_alphabet=letters, **options)


def fast(made: Tokenizer, template: str | None, eos: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, bos_token=bos, pad_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def _byte_bpe(marks: list[str], prefix: bool = False) -> Tokenizer:
    return trained(byte_level(prefix), marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _llama3() -> PreTrainedTokenizerFast:
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made = _byte_bpe(marks)
    made.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return fast(made, LLAMA3, "<|eot_id|>", "<|begin_of_text|>")


def _phi() -> PreTrainedTokenizerFast:
    made = _byte_bpe(["<|endoftext|>"])
    flags = {"special": True, "rstrip": True, "normalized": False}
    made.add_special_tokens(
        [AddedToken(mark, **flags) for mark in ("<|user|>", "<|assistant|>", "<|end|>", "<image>")]
    )
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=True)])
    return fast(made, PHI, "<|end|>")


def _normalised() -> PreTrainedTokenizerFast:
    made = _byte_bpe(CHATML_MARKS, prefix=True)
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return fast(made, CHATML, "<|im_end|>")


def _bert() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    letters = [chr(code) for code in range(33, 127)]
    return fast(trained(made, ["[UNK]", "[CLS]", "[SEP]", "[MASK]"], initial_alphabet=letters), BERT, "[SEP]")


def _words() -> PreTrainedTokenizerFast:
    words = [
        "<unk>",
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        *dict.fromkeys(" ".join(TEXT[:1]).split()),
        "<",
        ">",
        "s",
        "/",
    ]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    return fast(made, LLAMA2, "</s>", "<s>")


def _gemma() -> PreTrainedTokenizerFast:
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    return fast(
        metaspace("never", models.Unigram(), marks, unk_token="<unk>"), GEMMA, "<end_of_turn>", "<bos>"
    )


def _deepseek() -> PreTrainedTokenizerFast:
    marks = ["<｜begin｜>", "<｜end｜>", "<｜User｜>", "<｜Assistant｜>"]
    made = _byte_bpe(marks)
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return fast(made, DEEPSEEK, "<｜end｜>", "<｜begin｜>")


LLAMA_MARKS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
FAMILIES = {
    "qwen: byte-level BPE, ChatML": lambda: fast(_byte_bpe(CHATML_MARKS), CHATML, "<|im_end|>"),
    "llama 3: byte-level BPE, headers, a beginning of text": _llama3,
    "llama 2: Metaspace BPE, first word only": lambda: fast(
        metaspace("first", models.BPE(unk_token="<unk>"), LLAMA_MARKS), LLAMA2, "</s>", "<s>"
    ),
    "mistral: Metaspace BPE, every word": lambda: fast(
        metaspace("always", models.BPE(unk_token="<unk>"), LLAMA_MARKS), LLAMA2, "</s>", "<s>"
    ),
    "gemma: Unigram with its marks among the pieces, no system": _gemma,
    "phi: marks that eat spaces, tools and images, drops the system": _phi,
    "bert: WordPiece": _bert,
    "words: a list of words": _words,
    "normalised: lower case, NFKC": _normalised,
    "deepseek: full-width marks, thoughts": _deepseek,
    "no template": lambda: fast(_byte_bpe(CHATML_MARKS), None, "<|endoftext|>"),
    "unigram, ChatML": lambda: fast(
        metaspace("first", models.Unigram(), ["<unk>", *CHATML_MARKS], unk_token="<unk>"),
        CHATML,
        "<|im_end|>",
    ),
}
LOSSY = {"bert: WordPiece", "words: a list of words", "normalised: lower case, NFKC"}
"""Families that do not give every text back."""


@cache
def family(name: str) -> PreTrainedTokenizerFast:
    return FAMILIES[name]()
