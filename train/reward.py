"""The reward model: a LoRA adapter on the frozen base, and a linear score on the last reply token.

    Christiano et al. 2017 (arXiv 1706.03741) for the idea, Ouyang et al. 2022 (arXiv 2203.02155) for language
    models, Bai et al. 2022 (arXiv 2212.08073) for probabilities of an AI judge as labels.

Left out of the papers: several pairs of one prompt in one loss.

The score is float32 and stands outside PEFT, in a file of its own beside the adapter: in bfloat16 close
rewards become ties, and PEFT's wrapper for saved modules allows one active adapter only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainingArguments

from judge.records import Preference
from prompts.manifest import write_json
from prompts.records import Message
from train.batches import passes
from train.calibration import report_card
from train.errors import CheckpointError, TrainDataError
from train.folder import (
    Result,
    Trained,
    begin_folder,
    finish_folder,
    found_finished,
    start_folder,
)
from train.layout import PairBatch, collate_pairs, collate_rows
from train.logprobs import batch_hidden, causal_model, last_hidden, row_tokens
from train.loop import (
    Watch,
    adapted_by,
    check_rows,
    load_dtype,
    pair_counts,
    pass_tokens,
    run_loop,
    trainer_options,
)
from train.losses import off_centre, smoothed, soft_bradley_terry
from train.pairs import (
    Encoded,
    PairTokens,
    encode_messages,
    encode_pairs,
    encode_reply,
    fit_prompt,
    split_held_out,
    turn_ends,
)
from train.plan import Job, Plan, plan_pairs, settled
from train.roles import Base, adapt_from, base_of_adapter, load_base, restore_adapter, save_adapter
from train.selftest import choose_layout
from train.settings import RewardSettings
from train.sketch import skeleton
from train.trainer import Losses, PairTrainer, Stage

if TYPE_CHECKING:
    from peft import PeftModel

HEAD = "score_head.safetensors"
CARD = "report_card.json"


class RewardModel(nn.Module):
    """Scores conversations; a difference of two scores is the log-odds that the first reply is the better."""

    def __init__(self, adapted: PeftModel, base: Base, max_length: int) -> None:
        super().__init__()
        self.adapted = adapted
        self.base = base
        self.max_length = max_length
        width = causal_model(adapted).config.get_text_config().hidden_size
        self.head = nn.Linear(width, 1, bias=False, dtype=torch.float32)
        # Stiennon et al. 2020 (arXiv 2009.01325), appendix B.1
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(width + 1))

    def forward(self, batch: PairBatch) -> Tensor:
        """Scores (2B,) float32 of a batch's replies, each read at its last token; chosen ones first."""
        return self._score(batch_hidden(self.adapted, batch)[batch.last])

    def _score(self, hidden: Tensor) -> Tensor:
        """Scores (R,) float32 out of hidden states (R, H)."""
        with torch.autocast(hidden.device.type, enabled=False):
            score: Tensor = self.head(hidden.float())[:, 0]
        return score

    def score(self, conversations: Sequence[Sequence[Message]], batch_size: int = 16) -> list[float]:
        """Score the last message of each conversation, which must be a reply of the assistant's.

        A score depends neither on the batch nor on its padding. Raises TrainDataError for a conversation that
        ends in no reply, or whose reply alone is longer than the longest the model was trained on.
        """
        return self.score_rows(
            [self._encode(number, turns) for number, turns in enumerate(conversations)], batch_size
        )

    @torch.no_grad()
    def score_rows(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[float]:
        """Score (prompt, reply) token rows, longest first so that a batch holds rows of like length."""
        self.eval()
        device = self.head.weight.device
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]) - len(rows[at][1]))
        result = [0.0] * len(rows)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            ids, attention, _, last = (
                tensor.to(device) for tensor in collate_rows([rows[at] for at in part], self.base.pad_id)
            )
            hidden = last_hidden(self.adapted, ids, attention)  # (R, T, H)
            scores = self._score(hidden[torch.arange(len(part), device=device), last])  # (R,)
            for at, score in zip(part, scores.tolist(), strict=True):
                result[at] = score
        return result

    @torch.no_grad()
    def score_pairs(
        self, pairs: Sequence[PairTokens], pass_tokens: int, shared: bool
    ) -> tuple[list[float], list[float]]:
        """Scores of the chosen and of the rejected replies; `shared` where the model can take that layout."""
        self.eval()
        device = self.head.weight.device
        scores = torch.zeros(2, len(pairs))
        for part in passes(row_tokens(pairs, shared), pass_tokens):
            batch = collate_pairs([pairs[at] for at in part], part, self.base.pad_id, shared)
            scores[:, part] = self(PairBatch(*(field.to(device) for field in batch))).view(2, -1).cpu()
        return scores[0].tolist(), scores[1].tolist()

    def save(self, folder: Path) -> None:
        """Write the adapter as a PEFT folder, and the score beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self.adapted, folder)
        weight = self.head.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, str(folder / HEAD), metadata={"max_length": str(self.max_length)})

    def restore(self, folder: Path) -> None:
        """Take adapter and score from a folder that `save` wrote."""
        restore_adapter(self.adapted, folder)
        with torch.no_grad():
            self.head.weight.copy_(_read_head(folder)[0])

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None) -> RewardModel:
        """Load what `save` wrote, on the base that the adapter names or on `model`; scores are equal to the
        bit.

        Raises CheckpointError for a folder that holds no whole reward model.
        """
        path = Path(folder)
        weight, max_length = _read_head(path)
        base = load_base(model or base_of_adapter(path))
        loaded = cls(adapt_from(base, path, frozen_reference=False), base, max_length)
        if loaded.head.weight.shape != weight.shape:
            raise CheckpointError(
                f"{path / HEAD} is for a model of width {weight.shape[1]}, not for {base.source}"
            )
        with torch.no_grad():
            loaded.head.weight.copy_(weight)
        loaded.requires_grad_(False)
        return loaded.eval()

    def _encode(self, number: int, turns: Sequence[Message]) -> tuple[list[int], list[int]]:
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise TrainDataError(f"conversation {number} does not end in an assistant's reply to score")
        tokenizer = self.base.tokenizer
        prompt = encode_messages(tokenizer, turns[:-1], generation_prompt=True)
        reply = encode_reply(
            tokenizer, turns[:-1], prompt, turns[-1:], turn_ends(tokenizer, self.base.generation_eos)
        )
        fitted = fit_prompt(prompt, len(reply), self.max_length, tokenizer.bos_token_id)
        if fitted is None:
            raise TrainDataError(
                f"the reply of conversation {number} has {len(reply)} tokens; the model takes at most "
                f"{self.max_length} with the prompt: shorten it, or train with a larger max_length"
            )
        return fitted, reply


def train_reward(
    preferences: Sequence[Preference],
    settings: RewardSettings,
    out: str | Path,
    *,
    watch: Watch | None = None,
    read: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a reward model on preferences; run again, it goes on from the last checkpoint.

    `read` says what reading the rows set aside and which files they came from, for the manifest.
    Raises TrainDataError where no pair can be trained on, CheckpointError and RunFolderError for model and
    folder.
    """
    began_s = time.monotonic()
    opened = start_folder("reward", preferences, settings, Path(out))
    if (finished := found_finished(opened)) is not None:
        return finished
    base = load_base(settings.model, load_dtype(settings.precision))
    train, held_out = _encoded(preferences, base, settings)
    rows = pair_counts(train, held_out)
    plan = _plan(base, train, held_out, settings)
    settings = settled(settings, plan)
    adapted = adapted_by(base, settings, frozen_reference=False)
    torch.manual_seed(settings.seed)
    model = RewardModel(adapted, base, settings.max_length)
    begin_folder(opened)
    args = TrainingArguments(**trainer_options(settings, opened.path))
    model.to(args.device)
    tokens = pass_tokens(settings, args.device)
    layout = choose_layout(adapted, train.rows, base.pad_id, with_logits=False)
    stage = Stage(
        pairs=train.rows,
        pad_id=base.pad_id,
        shared=layout.shared,
        pass_tokens=tokens,
        loss=partial(reward_loss, settings=settings),
        save=model.save,
        restore=model.restore,
    )
    trainer = PairTrainer(model, stage, args=args)
    ran = run_loop(trainer, opened, settings, watch, plan)
    model.save(opened.path)
    base.tokenizer.save_pretrained(str(opened.path))
    card = _card(model, held_out.rows, tokens, layout.shared)
    write_json(opened.path / CARD, card)
    metrics = {**ran.metrics, "held_out": {key: value for key, value in card.items() if key != "bins"}}
    result = Result(
        rows=rows,
        metrics=metrics,
        steps=trainer.state.global_step,
        wall_s=time.monotonic() - began_s,
        read=dict(read or {}),
        notes=(*layout.reasons, *ran.notes),
        plan=plan.figures(),
        measured=ran.measured,
    )
    return finish_folder(opened, result)


def plan_reward(preferences: Sequence[Preference], settings: RewardSettings) -> Plan:
    """What `train_reward` would take; reads config and tokenizer, and writes nothing."""
    base = skeleton(settings.model, load_dtype(settings.precision))
    return _plan(base, *_encoded(preferences, base, settings), settings)


def _encoded(
    preferences: Sequence[Preference], base: Base, settings: RewardSettings
) -> tuple[Encoded, Encoded]:
    """Tokens of the pairs to train on, and of those held out; TrainDataError where none is left to train on."""
    sides = split_held_out(preferences, settings.held_out, settings.seed)
    train, held_out = (
        encode_pairs(rows, base.tokenizer, settings.max_length, base.generation_eos) for rows in sides
    )
    check_rows(pair_counts(train, held_out))
    return train, held_out


def _plan(base: Base, train: Encoded, held_out: Encoded, settings: RewardSettings) -> Plan:
    def prepare(adapted: PeftModel) -> Any:
        model = RewardModel(adapted, base, settings.max_length)
        return model, lambda fields: reward_loss(model, PairBatch(**fields), settings)[0].sum()

    return plan_pairs(Job("reward", settings, prepare), base, train.rows, held_out.rows)


def reward_loss(model: nn.Module, batch: PairBatch, settings: RewardSettings) -> Losses:
    """Losses and figures (B,) of a batch."""
    chosen, rejected = model(batch).chunk(2)  # (B,) each
    probability = smoothed(batch.probability, settings.label_smoothing)
    values = soft_bradley_terry(chosen, rejected, probability, settings.margin * batch.margin)
    if settings.centre:
        values = values + settings.centre * off_centre(chosen, rejected)
    return values * batch.weight, {
        "accuracy": chosen > rejected,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "margin": chosen - rejected,
    }


def _card(model: RewardModel, pairs: Sequence[PairTokens], pass_tokens: int, shared: bool) -> dict[str, Any]:
    chosen, rejected = model.score_pairs(pairs, pass_tokens, shared)
    margins = [a - b for a, b in zip(chosen, rejected, strict=True)]
    return report_card(margins, [pair.probability for pair in pairs])


def _read_head(folder: Path) -> tuple[Tensor, int]:
    """The score's weight (1, H) and the longest conversation trained on, in tokens."""
    if not folder.is_dir():
        raise CheckpointError(f"no reward model folder {folder}")
    if not (folder / HEAD).is_file():
        raise CheckpointError(f"{folder} is no reward model: it has no {HEAD}")
    try:
        with safe_open(str(folder / HEAD), framework="pt") as file:
            return file.get_tensor("weight"), int(file.metadata()["max_length"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"{folder / HEAD} cannot be read: {error}") from error
