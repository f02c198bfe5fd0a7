"""What plain text costs a model in nats, by which its perplexity is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preceptor.judge.models.local.loading import load
from preceptor.prompts.records import Message
from preceptor.train.data.pairs import encode_messages, encode_reply, turn_ends
from preceptor.train.evaluation.paired import RatioPart
from preceptor.train.evaluation.probes import Passage
from preceptor.train.forward.reply_logprobs import row_logprobs

BATCH = 16


def passage_nats(name: str, source: str, passages: Sequence[Passage]) -> list[RatioPart]:
    """For each passage its nats over its tokens.

    source: folder, GGUF file or hub id of the weights of the model called `name`.

    A plain text's first token has nothing before it and is not counted, unless the tokenizer itself puts a beginning
    there. A text that ends a conversation counts with its end of turn, as it would be generated. Tokens past the
    model's context are not counted. Raises UserError where the checkpoint cannot be loaded.
    """
    loaded = load(name, str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source)
    ends = turn_ends(loaded.tokenizer, sorted(loaded.stops))
    rows = []
    for passage in passages:
        if passage.messages:
            before = encode_messages(loaded.tokenizer, passage.messages, generation_prompt=True)
            said = [Message(role="assistant", content=passage.text)]
            ids = encode_reply(loaded.tokenizer, passage.messages, before, said, ends)
        else:
            whole = [int(token) for token in loaded.tokenizer(passage.text)["input_ids"]]
            before, ids = whole[:1], whole[1:]
        rows.append((before, ids[: max(0, loaded.context - len(before))]))
    pad = loaded.tokenizer.pad_token_id
    logps = row_logprobs(loaded.model, rows, pad if pad is not None else min(loaded.stops), BATCH)
    return [RatioPart(-float(logp), len(ids)) for logp, (_, ids) in zip(logps, rows, strict=True)]
