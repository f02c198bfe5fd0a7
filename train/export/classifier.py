"""A reward model as transformers' own classifier: `AutoModelForSequenceClassification` with one label.

The adapter is merged into the backbone, and the score's weight becomes `score.weight`. A classifier reads its
score at the last token that is not the padding one; ours is read at the reply's end of turn. They are the same
place where the end of turn is not padded with, and where the text ends there, so the tokenizer is given

    a padding token    other than the end of turn, where it had none or that one
    a chat template    that ends at the end of turn, where the base's writes white space behind it
    no tokens          of its own around a text, where the base's adds what the template has written already

and `misread` says whether a text then becomes the very tokens that the reward model scores.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from preceptor.judge.models.local.loading import quiet_loading
from preceptor.prompts.records import Message
from preceptor.train.data.pairs import encode_messages, encode_reply, turn_ends
from preceptor.train.errors import CheckpointError
from preceptor.train.forward.reward_heads import shares
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.models.base import Base

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABEL = "reward"
PAD = "<|pad|>"
WRAPPED = (
    "{{% set conversation %}}{}{{% endset %}}"
    "{{{{ conversation if add_generation_prompt else conversation.rstrip() }}}}"
)
ASK, REPLY = (
    Message(role="user", content="Where is the pool?"),
    Message(role="assistant", content="Upstairs."),
)
PROBES: dict[str, tuple[Message, ...]] = {
    "a conversation of one turn": (ASK, REPLY),
    "a conversation of several turns": (ASK, REPLY, Message(role="user", content="And the bar?"), REPLY),
}
"""Conversations that end in a reply, by what they are called in a note."""


class Classifier(NamedTuple):
    """What is to be saved, and what a person should know of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    end_of_turn: str
    """The token at which the score is read: a text to be scored must end in it."""
    notes: tuple[str, ...]


class LinearReward(NamedTuple):
    """A reward as one linear function of the hidden state, and what of the reward model it leaves out."""

    weight: Tensor
    """(H,) float32."""
    notes: tuple[str, ...]


def linear_reward(model: RewardModel) -> LinearReward:
    """The one linear score that the model's K heads come to, which is all that a classifier of one label has.

    Of an ensemble it is the mean, of principles the reward of a prompt without tags. A classifier has no bias, so
    that what the heads' scores are centred by is left out: the same for every reply, it changes no difference.
    """
    share = shares(model.heads, [()])[0]  # (K,)
    weight = share @ model.head.weight.detach().cpu().float()
    constant = float(share @ model.offset.cpu())
    notes = []
    if model.heads.kind == "ensemble" and model.heads.penalty:
        notes.append(
            f"The score is the mean of {len(share)} members. The penalty of {model.heads.penalty:g} times their "
            "standard deviation is not linear and is left out; the report card is of the reward with it."
        )
    if model.heads.least:
        notes.append(
            f"The score is the mean of {len(share)} members. The reward that was trained for is the least of them, "
            "which is not linear; the report card is of that."
        )
    if any(model.heads.applies_to):
        notes.append(
            "The score is that of a prompt without tags: principles that apply to some tags only are left out."
        )
    if constant:
        notes.append(f"All scores differ from those in Preceptor by {constant:+.6g}.")
    return LinearReward(weight, tuple(notes))


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The library's classifier for a causal model's config; CheckpointError where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    mapping: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    found = mapping.get(type(config), None)
    if found is None:
        raise CheckpointError(
            f"transformers has no sequence classifier for the architecture {config.model_type!r}: export the "
            "reward model as adapter, and score with train.reward.RewardModel"
        )
    return cast("type[PreTrainedModel]", found)


def as_classifier(model: RewardModel, dtype: torch.dtype) -> Classifier:
    """The reward model as a classifier; `model` is used up, since its base takes the adapter in.

    Raises CheckpointError for an architecture that has no classifier with a linear score.
    """
    weight, left_out = linear_reward(model)
    kind = classifier_class(model.base.model.config)
    tokenizer, end_of_turn, notes = _reading(model.base)
    adapted: Any = model.adapted
    with quiet_loading():
        merged = adapted.merge_and_unload()
        if len(tokenizer) > merged.get_input_embeddings().num_embeddings:
            merged.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        config = copy.deepcopy(merged.config)
        config.id2label, config.label2id = {0: LABEL}, {LABEL: 0}  # their number is that of the labels
        config.problem_type = "regression"
        config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
        with torch.device("meta"):  # only its form: the weights are those of the merged model
            classifier: Any = kind(config)
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear) or head.weight.shape != (1, len(weight)) or head.bias is not None:
        raise CheckpointError(
            f"{kind.__name__} of transformers reads no linear score, so it cannot be the reward model: export "
            "that as adapter"
        )
    head.weight = nn.Parameter(weight[None].clone())  # (1, H)
    setattr(classifier, classifier.base_model_prefix, merged.base_model)
    return Classifier(classifier.to(dtype).eval(), tokenizer, end_of_turn, left_out + notes)


def _reading(base: Base) -> tuple[PreTrainedTokenizerBase, str, tuple[str, ...]]:
    """A tokenizer whose texts a classifier reads in the right place, the end of turn, and what was changed."""
    tokenizer = copy.deepcopy(base.tokenizer)
    notes = []
    end = _tokens(base, PROBES["a conversation of one turn"])[-1]
    if tokenizer.pad_token_id in (None, end):
        before = tokenizer.pad_token
        tokenizer.add_special_tokens({"pad_token": _padding(tokenizer, end)})
        notes.append(
            f"The padding token is {tokenizer.pad_token!r} and no longer {before!r}: a classifier reads its "
            "score at the last token that is not padding, which is the end of turn."
        )
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "left"
    if isinstance(tokenizer.chat_template, str):
        if encode_messages(tokenizer, PROBES["a conversation of one turn"], False)[-1] != end:
            tokenizer.chat_template = WRAPPED.format(tokenizer.chat_template)
            notes.append("The chat template no longer writes white space behind the last end of turn.")
        if tokenizer("a").input_ids != tokenizer("a", add_special_tokens=False).input_ids:
            _add_nothing(tokenizer)
            notes.append("The tokenizer adds no tokens to a text: the chat template writes them all.")
    return tokenizer, str(tokenizer.convert_ids_to_tokens(end)), tuple(notes)


def _padding(tokenizer: PreTrainedTokenizerBase, end: int) -> str:
    """A special token other than `end` to pad with: best one that is there for it, else any, else a new one."""
    added: Any = tokenizer.added_tokens_decoder
    special = [str(token) for number, token in added.items() if token.special and number != end]
    for wanted in ("pad", "reserved", "unk", ""):
        if found := next((token for token in special if wanted in token), None):
            return found
    return PAD


def _add_nothing(tokenizer: Any) -> None:
    for name in ("add_bos_token", "add_eos_token"):
        if getattr(tokenizer, name, None):
            setattr(tokenizer, name, False)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.post_processor = None


def _tokens(base: Base, conversation: Sequence[Message]) -> list[int]:
    """The tokens that the reward model scores."""
    prompt = encode_messages(base.tokenizer, conversation[:-1], generation_prompt=True)
    ends = turn_ends(base.tokenizer, base.generation_eos)
    return prompt + encode_reply(base.tokenizer, conversation[:-1], prompt, conversation[-1:], ends)


def misread(folder: Path, base: Base) -> tuple[str, ...]:
    """Conversations of PROBES that the saved tokenizer makes other tokens of than the reward model scores.

    Asked of the files, since some tokenizers write on saving what they do not do on loading.
    """
    from transformers import AutoTokenizer

    with quiet_loading():
        saved: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    wrong = []
    for name, conversation in PROBES.items():
        rows = [message.model_dump() for message in conversation]
        if not saved.chat_template:
            wrong.append(name)
            continue
        ours = _tokens(base, conversation)
        text = saved.apply_chat_template(rows, tokenize=False)
        at_once = saved.apply_chat_template(rows, tokenize=True, return_dict=False)
        if not ours == saved(text).input_ids == at_once:
            wrong.append(name)
    return tuple(wrong)
