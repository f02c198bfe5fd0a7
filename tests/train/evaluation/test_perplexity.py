"""What text costs in nats, against the model's own loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from preceptor.constitution.errors import UserError
from preceptor.prompts.records import Message
from preceptor.train.evaluation.perplexity import passage_nats
from preceptor.train.evaluation.probes import Passage
from preceptor.train.models.base import load_base
from tests.train.tiny import save_tiny

TEXTS = ["A plain text.", "Another, which is rather longer than the first one is."]


def wanted(folder: Path, ids: list[int], known: int) -> float:
    """Nats of the tokens after the first `known`, one at a time."""
    with torch.no_grad():
        logps = load_base(str(folder)).model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(logps[at - 1, ids[at]].item() for at in range(known, len(ids)))


def test_plain_text_counts_from_its_second_token(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    parts = passage_nats("m", str(folder), [Passage(text=text) for text in TEXTS])
    tokenizer = load_base(str(folder)).tokenizer
    for text, part in zip(TEXTS, parts, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert part.under == len(ids) - 1
        assert part.over == pytest.approx(wanted(folder, ids, 1), rel=1e-4)


def test_the_end_of_a_conversation_counts_with_its_end_of_turn(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    asked = (Message(role="user", content="Hi?"),)
    (part,) = passage_nats("m", str(folder), [Passage(messages=asked, text="ok")])
    tokenizer = load_base(str(folder)).tokenizer
    known = len(tokenizer("<|user|>Hi?<|assistant|>")["input_ids"])
    ids = tokenizer("<|user|>Hi?<|assistant|>ok</s>")["input_ids"]
    assert part.under == len(ids) - known == 3
    assert part.over == pytest.approx(wanted(folder, ids, known), rel=1e-4)


def test_tokens_past_the_context_are_not_counted(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (part,) = passage_nats("m", str(folder), [Passage(text="x" * 900)])
    assert part.under == 511


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        passage_nats("hf/empty", f"{tmp_path}/empty", [Passage(text="a b")])
