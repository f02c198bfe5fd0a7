"""The four roles of PPO on one frozen base, and what each says of a batch.

    POLICY      trained; starts as the SFT adapter, or as no change
    VALUE       trained; starts as the reward adapter and its head where the reward model is on this base, else
                as no change and a head of zeros
    REWARD      frozen; absent where rewards come from elsewhere
    reference   a frozen copy of the SFT adapter, or the base alone

Heads are float32 and outside PEFT. Where PEFT can read several adapters in one batch (`adapter_names`), one
pass for all roles was slower here than one pass each: benchmarks/ppo.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from preceptor.judge.models.local.lm_head import Head, head_of
from preceptor.train.data.collate_replies import ReplyBatch, ReplyTokens, batches_of, row_lengths, rows_of
from preceptor.train.data.pairs import PairTokens
from preceptor.train.errors import CheckpointError
from preceptor.train.forward.layout_check import choose_layout
from preceptor.train.forward.reply_logprobs import batch_hidden, causal_model
from preceptor.train.forward.reward_model import StoredHead, read_head
from preceptor.train.forward.token_logprobs import token_entropies, token_logprobs
from preceptor.train.loop.oom_retry import MadeT
from preceptor.train.models.adapters import POLICY, REFERENCE, adapted_by, add_adapter_from, add_fresh_adapter
from preceptor.train.models.base import Base
from preceptor.train.models.devices import pass_tokens, training_device, use_bf16
from preceptor.train.models.switchboard import BASE, Switchboard
from preceptor.train.ppo.pass_sizes import PassSizes
from preceptor.train.rollout.prompts import rollout_tokens
from preceptor.train.settings import PpoSettings

if TYPE_CHECKING:
    from peft import PeftModel

VALUE, REWARD = "value", "reward"


class PolicyOutput(NamedTuple):
    """What the policy says of a batch's N reply tokens."""

    logprobs: Tensor  # (N,) float32, in nats
    entropies: Tensor | None  # (N,) float32, in nats, where they were asked for


class Roles:
    """One base and its adapters. The switchboard decides which of them is active."""

    def __init__(
        self, base: Base, adapted: PeftModel, settings: PpoSettings, reward: StoredHead | None
    ) -> None:
        self.base = base
        self.adapted = adapted
        self.board = Switchboard(adapted, frozenset({POLICY, VALUE}))
        self.reference = REFERENCE if REFERENCE in adapted.peft_config else BASE
        width = causal_model(adapted).config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, dtype=torch.float32)
        self.reward = reward
        with torch.no_grad():
            self.value_head.weight.zero_()
            if reward is not None:
                self.value_head.weight.copy_(reward.weight.mean(dim=0, keepdim=True))
            self.value_head.bias.zero_()
        self.device = training_device()
        adapted.to(self.device)
        self.value_head.to(self.device)
        self.room = PassSizes(
            pass_tokens(settings.pass_tokens, self.device),
            rollout_tokens(settings.rollout_tokens, self.device),
        )
        self.bf16 = use_bf16(settings.precision)
        self.checkpointing = bool(settings.gradient_checkpointing)
        self.shared = False
        self.server: str | None = None
        """Where replies are drawn; None: here."""
        self.head: Head | None = head_of(causal_model(adapted))
        self.adapted.eval()

    def choose_layout(self, prompts: Sequence[list[int]], samples: int) -> tuple[str, ...]:
        """See in which layout this model computes what it would of plain rows; says why it is not the best."""
        board_before = self.board.active
        self.board.switch(BASE)
        pairs = [PairTokens(prompt, prompt[-8:], prompt[:8], 1.0, "") for prompt in prompts]
        layout = choose_layout(self.adapted, pairs, self.base.pad_id, with_logits=True)
        self.shared = layout.shared and samples > 1
        self.head = None if layout.whole_logits else self.head
        self.board.switch(board_before)
        return layout.reasons if samples > 1 or layout.whole_logits else ()

    def half(self) -> AbstractContextManager[Any]:
        """Computing in bfloat16, where that was asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def batches(
        self, replies: Sequence[ReplyTokens], groups: Sequence[Sequence[int]]
    ) -> Iterator[ReplyBatch]:
        """The replies of `groups` as batches on the model's device, none larger than a pass."""
        for batch in batches_of(replies, groups, self.room.pass_tokens, self.shared):
            yield ReplyBatch(*(field.to(self.device) for field in batch))

    def fitting(
        self,
        work: Callable[[], MadeT],
        replies: Sequence[ReplyTokens],
        groups: Sequence[Sequence[int]],
        trained: Sequence[nn.Parameter] = (),
    ) -> MadeT:
        """What `work` makes of the batches of these replies, in smaller ones where memory runs out."""
        lengths = row_lengths(replies, rows_of(groups, self.shared))
        return self.room.reading(work, lengths, trained)

    def logprobs(self, batch: ReplyBatch, with_entropies: bool = False) -> PolicyOutput:
        """Log-probabilities of the batch's reply tokens under whoever acts."""
        with self.half():
            if self.head is None:
                causal: Any = causal_model(self.adapted)
                output = causal(input_ids=batch.input_ids, attention_mask=batch.seen.long(), use_cache=False)
                logp = output.logits.flatten(0, 1)[batch.predictor].float().log_softmax(-1)  # (N, V)
                entropies = -(logp.exp() * logp).sum(-1) if with_entropies else None
                return PolicyOutput(logp.gather(1, batch.target[:, None])[:, 0], entropies)
            hidden = batch_hidden(self.adapted, batch)[batch.predictor]  # (N, H)
        return PolicyOutput(
            token_logprobs(hidden, batch.target, self.head),
            token_entropies(hidden, self.head) if with_entropies else None,
        )

    def values(self, batch: ReplyBatch) -> Tensor:
        """Values (N,) float32 of the states in which the batch's reply tokens were chosen."""
        with self.half():
            hidden = batch_hidden(self.adapted, batch)[batch.predictor]  # (N, H)
        values: Tensor = self.value_head(hidden.float())[:, 0]
        return values

    def scores(self, batch: ReplyBatch) -> Tensor:
        """Scores (B, K) float32 of the batch's replies by the K reward heads, each read at its last token."""
        assert self.reward is not None
        with self.half():
            hidden = batch_hidden(self.adapted, batch)[batch.last]  # (B, H)
        return hidden.float() @ self.reward.weight.T.to(self.device) - self.reward.offset.to(self.device)

    def train(self) -> None:
        """Activations are recomputed where that was asked for; there is no dropout to switch on."""
        self.adapted.train(bool(self.checkpointing))

    def trained(self, role: str) -> list[nn.Parameter]:
        """All that is trained of POLICY or VALUE."""
        head = list(self.value_head.parameters()) if role == VALUE else []
        return [*self.board.parameters(role), *head]


def open_roles(base: Base, settings: PpoSettings, reward: Path | None) -> Roles:
    """Put the roles on the base; `reward` is the folder of a reward model that was trained on it.

    Raises CheckpointError for an adapter that does not go with the base.
    """
    adapted = adapted_by(base, settings, frozen_reference=True)
    stored = None
    if reward is None:
        add_fresh_adapter(adapted, settings.rank, settings.alpha, VALUE, settings.seed)
    else:
        stored = read_head(reward)
        if stored.max_length < settings.max_length:
            raise CheckpointError(
                f"the reward model {reward} was trained on at most {stored.max_length} tokens and would be asked "
                f"about {settings.max_length}: give max_length {stored.max_length} or less, or train it on longer rows"
            )
        for name in (REWARD, VALUE):
            add_adapter_from(adapted, base.source, reward, name)
    return Roles(base, adapted, settings, stored)
