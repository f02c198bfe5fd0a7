"""The reward model as it scores: a LoRA adapter on the frozen base, and linear scores on the last reply token.

The scores are float32 and stand outside PEFT, in a file of their own beside the adapter: in bfloat16 close
rewards become ties, and PEFT's wrapper for saved modules allows one active adapter only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from preceptor.prompts.records import Message
from preceptor.train.data.batching import passes
from preceptor.train.data.collate_pairs import PairBatch, collate_pairs, collate_rows
from preceptor.train.data.pairs import PairTokens, encode_messages, encode_reply, fit_prompt, turn_ends
from preceptor.train.errors import CheckpointError, TrainDataError
from preceptor.train.forward.reply_logprobs import batch_hidden, causal_model, last_hidden, row_tokens
from preceptor.train.forward.reward_heads import Heads, rewards, shares, spread
from preceptor.train.models.adapters import adapt_from, base_of_adapter, restore_adapter, save_adapter
from preceptor.train.models.base import Base, load_base

if TYPE_CHECKING:
    from peft import PeftModel

HEAD = "score_head.safetensors"


class Rating(NamedTuple):
    """What a reward model says of one reply."""

    reward: float
    spread: float
    """Standard deviation over an ensemble's members; 0 where there is no ensemble."""
    parts: dict[str, float]
    """Score of each principle, or of each member; empty where there is a single score."""


class RewardModel(nn.Module):
    """Scores conversations; a difference of two rewards is the log-odds that the first reply is the better."""

    offset: Tensor
    """(K,) float32, subtracted from the scores."""
    length: Tensor
    """(K, H) float32, the length direction that was taken out of the head's weight; 0 where none was."""

    def __init__(self, adapted: PeftModel, base: Base, max_length: int, heads: Heads | None = None) -> None:
        super().__init__()
        self.adapted = adapted
        self.adapter: str | None = None
        """Its adapter, where others share the base and any of them may have answered last; None: it is alone."""
        self.base = base
        self.max_length = max_length
        self.heads = heads or Heads()
        count = len(self.heads.names)
        width = causal_model(adapted).config.get_text_config().hidden_size
        self.head = nn.Linear(width, count, bias=False, dtype=torch.float32)
        # Stiennon et al. 2020 (arXiv 2009.01325), appendix B.1
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(width + 1))
        self.register_buffer("offset", torch.zeros(count))
        self.register_buffer("length", torch.zeros(count, width))

    def forward(self, batch: PairBatch) -> Tensor:
        """Scores (2B, K) float32 of a batch's replies, each read at its last token; chosen ones first."""
        return self.scores(self.features(batch))

    def features(self, batch: PairBatch) -> Tensor:
        """Hidden states (2B, H) that the scores of a batch's replies are read from, chosen ones first."""
        self._act()
        return batch_hidden(self.adapted, batch)[batch.last]

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores (R, K) float32 out of hidden states (R, H)."""
        with torch.autocast(hidden.device.type, enabled=False):
            scores: Tensor = self.head(hidden.float()) - self.offset
        return scores

    def score(self, conversations: Sequence[Sequence[Message]], batch_size: int = 16) -> list[float]:
        """Reward of the last message of each conversation, which must be a reply of the assistant's.

        A reward depends neither on the batch nor on its padding. Raises TrainDataError for a conversation that
        ends in no reply, or whose reply alone is longer than the longest the model was trained on.
        """
        return [rating.reward for rating in self.rate(conversations, batch_size=batch_size)]

    def rate(
        self,
        conversations: Sequence[Sequence[Message]],
        tags: Sequence[Sequence[str]] | None = None,
        batch_size: int = 16,
    ) -> list[Rating]:
        """As `score`, with what each reward is made of; `tags`, of the prompts, say which principles apply."""
        rows = [self.encode(turns, f"conversation {number}") for number, turns in enumerate(conversations)]
        return self.rate_rows(rows, tags if tags is not None else [()] * len(rows), batch_size)

    def rate_rows(
        self,
        rows: Sequence[tuple[list[int], list[int]]],
        tags: Sequence[Sequence[str]],
        batch_size: int = 16,
    ) -> list[Rating]:
        """The same of (prompt, reply) token rows, as `encode` makes them."""
        scores = self.score_rows(rows, batch_size)  # (R, K)
        made = rewards(scores, self.heads, shares(self.heads, tags)).tolist()
        several = self.heads.kind != "one"
        return [
            Rating(
                reward,
                deviation if self.heads.kind == "ensemble" else 0.0,
                dict(zip(self.heads.names, row, strict=True)) if several else {},
            )
            for reward, deviation, row in zip(made, spread(scores).tolist(), scores.tolist(), strict=True)
        ]

    @torch.no_grad()
    def score_rows(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> Tensor:
        """Scores (R, K) of (prompt, reply) token rows, on the CPU; longest first, so that a batch holds rows of
        like length."""
        self.eval()
        self._act()
        device = self.head.weight.device
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]) - len(rows[at][1]))
        result = torch.zeros(len(rows), len(self.heads.names))
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            ids, attention, _, last = (
                tensor.to(device) for tensor in collate_rows([rows[at] for at in part], self.base.pad_id)
            )
            hidden = last_hidden(self.adapted, ids, attention)  # (R, T, H)
            result[part] = self.scores(hidden[torch.arange(len(part), device=device), last]).cpu()
        return result

    @torch.no_grad()
    def pair_features(self, pairs: Sequence[PairTokens], pass_tokens: int, shared: bool) -> Tensor:
        """Hidden states (2, P, H) float32 on the CPU, of the chosen and of the rejected replies' last tokens;
        `shared` where the model can take that layout."""
        self.eval()
        device = self.head.weight.device
        found = torch.zeros(2, len(pairs), self.head.in_features)
        for part in passes(row_tokens(pairs, shared), pass_tokens):
            batch = collate_pairs([pairs[at] for at in part], part, self.base.pad_id, shared)
            hidden = self.features(PairBatch(*(field.to(device) for field in batch)))
            found[:, part] = hidden.float().view(2, len(part), -1).cpu()
        return found

    @torch.no_grad()
    def pair_rewards(self, pairs: Sequence[PairTokens], features: Tensor) -> Tensor:
        """Rewards (2, P) out of the pairs' features (2, P, H)."""
        scores = self.scores(features.to(self.head.weight.device)).cpu()  # (2, P, K)
        share = shares(self.heads, [pair.tags for pair in pairs])
        return torch.stack([rewards(side, self.heads, share) for side in scores])

    def save(self, folder: Path) -> None:
        """Write the adapter as a PEFT folder, and the scores beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self.adapted, folder)
        tensors = {"weight": self.head.weight, "offset": self.offset, "length": self.length}
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            str(folder / HEAD),
            metadata={"max_length": str(self.max_length), "heads": self.heads.model_dump_json()},
        )

    def restore(self, folder: Path) -> None:
        """Take adapter and scores from a folder that `save` wrote."""
        restore_adapter(self.adapted, folder)
        self._take(read_head(folder))

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None) -> RewardModel:
        """Load what `save` wrote, on the base that the adapter names or on `model`; scores are equal to the
        bit.

        Raises CheckpointError for a folder that holds no whole reward model.
        """
        path = Path(folder)
        stored = read_head(path)
        base = load_base(model or base_of_adapter(path))
        return cls.on(adapt_from(base, path, frozen_reference=False), base, stored, path)

    @classmethod
    def on(cls, adapted: PeftModel, base: Base, stored: StoredHead, path: Path) -> RewardModel:
        """What a folder holds, once its adapter is on the base. Raises CheckpointError."""
        loaded = cls(adapted, base, stored.max_length, stored.heads)
        if loaded.head.weight.shape != stored.weight.shape:
            raise CheckpointError(
                f"{path / HEAD} is for a model of width {stored.weight.shape[1]}, not for {base.source}"
            )
        loaded._take(stored)
        loaded.requires_grad_(False)
        return loaded.eval()

    def _act(self) -> None:
        if self.adapter is not None:
            self.adapted.set_adapter(self.adapter)

    def taken(self, turns: Sequence[Message]) -> tuple[list[int], list[int]] | None:
        """`encode`, or None for a conversation that cannot be scored."""
        try:
            return self.encode(turns, "it")
        except TrainDataError:
            return None

    @torch.no_grad()
    def _take(self, stored: StoredHead) -> None:
        self.head.weight.copy_(stored.weight)
        self.offset.copy_(stored.offset)
        self.length.copy_(stored.length)

    def encode(self, turns: Sequence[Message], name: str) -> tuple[list[int], list[int]]:
        """Tokens of (prompt, reply) as they are scored; `name` is what an error calls the conversation.

        Raises TrainDataError for one that ends in no reply, or in a reply that is too long.
        """
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise TrainDataError(f"{name} does not end in an assistant's reply to score")
        tokenizer = self.base.tokenizer
        prompt = encode_messages(tokenizer, turns[:-1], generation_prompt=True)
        reply = encode_reply(
            tokenizer, turns[:-1], prompt, turns[-1:], turn_ends(tokenizer, self.base.generation_eos)
        )
        fitted = fit_prompt(prompt, len(reply), self.max_length, tokenizer.bos_token_id)
        if fitted is None:
            raise TrainDataError(
                f"the reply of {name} has {len(reply)} tokens; the model takes at most "
                f"{self.max_length} with the prompt: shorten it, or train with a larger max_length"
            )
        return fitted, reply


class StoredHead(NamedTuple):
    """What lies beside the adapter."""

    weight: Tensor
    """(K, H) float32."""
    offset: Tensor
    """(K,) float32."""
    length: Tensor
    """(K, H) float32, what was taken out of the weight."""
    max_length: int
    """The longest conversation trained on, in tokens."""
    heads: Heads


def read_head(folder: Path) -> StoredHead:
    """The scores' weights of a reward model's folder. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"no reward model folder {folder}")
    if not (folder / HEAD).is_file():
        raise CheckpointError(f"{folder} is no reward model: it has no {HEAD}")
    try:
        with safe_open(str(folder / HEAD), framework="pt") as file:
            said = file.metadata()
            weight, offset, length = (file.get_tensor(name) for name in ("weight", "offset", "length"))
            heads = Heads.model_validate_json(said["heads"])
            return StoredHead(weight, offset, length, int(said["max_length"]), heads)
    except (SafetensorError, ValidationError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"{folder / HEAD} cannot be read: {error}") from error
