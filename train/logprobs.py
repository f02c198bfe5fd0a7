"""Log-probabilities of replies, without logits for any token that is not a reply's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from train.pairs import PairTokens, collate_rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

SCALED_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
"""Config fields that change the output layer's product; for these the whole forward is used."""


def causal_model(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The transformers model itself, with the adapter's layers in it if there are any."""
    inner = getattr(model, "get_base_model", None)
    return cast("PreTrainedModel", inner() if inner is not None else model)


def last_hidden(model: PeftModel | PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states (R, T, H) after the last layer and its norm."""
    backbone = causal_model(model).base_model
    output = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return cast(Tensor, output.last_hidden_state)


def reply_logprobs(
    model: PeftModel | PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, reply_mask: Tensor
) -> Tensor:
    """Sum (R,) in nats of the log-probabilities of the tokens under `reply_mask` (R, T), each given those
    before it.

    Logits are made for the N reply tokens only, (N, V) in place of (R, T, V), and in float32.
    """
    targets = reply_mask[:, 1:]  # (R, T-1), position t-1 predicts token t
    causal: Any = causal_model(model)
    config = causal.config.get_text_config()
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in SCALED_LOGITS):
        output = causal(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits = output.logits[:, :-1][targets]  # (N, V)
    else:
        hidden = last_hidden(model, input_ids, attention_mask)
        logits = causal.get_output_embeddings()(hidden[:, :-1][targets])  # (N, V)
    tokens = input_ids[:, 1:][targets]  # (N,)
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        logps = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)  # (N,)
    spread = torch.zeros(targets.shape, dtype=logps.dtype, device=logps.device)  # (R, T-1)
    return spread.masked_scatter(targets, logps).sum(dim=1)


class Policy(nn.Module):
    """A language model that gives replies their log-probability, as one module for the trainer to wrap."""

    def __init__(self, adapted: PeftModel) -> None:
        super().__init__()
        self.adapted = adapted

    def forward(self, input_ids: Tensor, attention_mask: Tensor, reply_mask: Tensor) -> Tensor:
        """Log-probabilities (R,) of the replies, in nats."""
        return reply_logprobs(self.adapted, input_ids, attention_mask, reply_mask)


@torch.no_grad()
def row_logprobs(
    model: PeftModel | PreTrainedModel,
    rows: Sequence[tuple[list[int], list[int]]],
    pad_id: int,
    batch_size: int,
) -> Tensor:
    """Log-probabilities (len(rows),) in nats of the replies of (prompt, reply) rows, float32 on the CPU.

    Rows are taken longest first, so that a batch holds rows of like length.
    """
    device = causal_model(model).device
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]) - len(rows[at][1]))
    result = torch.zeros(len(rows))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids, attention, reply, _ = collate_rows([rows[at] for at in part], pad_id)
        result[part] = reply_logprobs(model, ids.to(device), attention.to(device), reply.to(device)).cpu()
    return result


def pair_logprobs(
    model: PeftModel | PreTrainedModel, pairs: Sequence[PairTokens], pad_id: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected replies, (B,) each, in nats."""
    rows = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    both = row_logprobs(model, rows, pad_id, 2 * batch_size)
    return both[: len(pairs)], both[len(pairs) :]
