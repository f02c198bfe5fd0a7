"""Layouts with `chosen` and `rejected`: TRL's four, UltraFeedback, hh, and those of trainers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from preceptor.prompts.layouts.layout import (
    ConversationPair,
    Fields,
    Layout,
    asked,
    has,
    is_conversation,
    is_message,
    messages_of,
    parted,
    reply,
    without,
)
from preceptor.prompts.rows import BadRowError, kind_of, text_of

TURN = re.compile(r"\n\n(Human|Assistant):")
NOT_TRL = frozenset({"conversations", "conversation", "instruction", "question", "input", "generations"})


def _pair(fields: Fields) -> bool:
    return has(fields, "chosen", "rejected")


def _transcript(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def _whole(value: Any) -> bool:
    """Whether a value is a conversation that holds more than the reply."""
    return is_conversation(value) and any(
        item.get("role", item.get("from")) not in ("assistant", "gpt") for item in value
    )


def _explicit(fields: Fields) -> bool:
    given = [name for name in ("prompt", "messages") if has(fields, name)]
    return (
        _pair(fields)
        and bool(given)
        and not (has(fields, "prompt") and isinstance(fields["prompt"], Mapping))
        and not _whole(fields["chosen"])
        and not is_message(fields["chosen"])
        and not _texts(fields["chosen"])
    )


def _texts(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) for item in value)
    )


def _as_it_is(fields: Fields) -> Iterable[Fields]:
    yield fields


def _read_implicit(fields: Fields) -> Iterable[Fields]:
    messages, chosen, rejected = parted(fields["chosen"], fields["rejected"])
    yield {
        **without(fields, "chosen", "rejected"),
        "messages": messages,
        "chosen": chosen,
        "rejected": rejected,
    }


def _read_implicit_text(fields: Fields) -> Iterable[Fields]:
    chosen, rejected = text_of("chosen", fields["chosen"]), text_of("rejected", fields["rejected"])
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    cut = max(chosen.rfind(space, 0, same) for space in " \n\t") + 1
    if not chosen[:cut].strip():
        raise BadRowError(
            "chosen and rejected without a prompt, and without a beginning that they share",
            "the conversation in a column of its own, prompt",
        )
    rest = without(fields, "chosen", "rejected")
    yield {**rest, "prompt": chosen[:cut].strip(), "chosen": chosen[cut:], "rejected": rejected[cut:]}


def _read_ultra(fields: Fields) -> Iterable[Fields]:
    """`prompt` and `messages` say once more what the conversations hold."""
    yield from _read_implicit(without(fields, "prompt", "messages"))


def _read_hh(fields: Fields) -> Iterable[Fields]:
    texts = [fields["chosen"], fields["rejected"]]
    for name, value in zip(("chosen", "rejected"), texts, strict=True):
        if not _transcript(value):
            came = f"{name} is {value!r:.40}" if isinstance(value, str) else f"{name} is {kind_of(value)}"
            raise BadRowError(came, 'a transcript: "\\n\\nHuman: ...\\n\\nAssistant: ..."')
    (before, chosen), (other, rejected) = (_last_reply(str(value)) for value in texts)
    if before != other:
        raise BadRowError(
            "chosen and rejected differ before the last reply", "transcripts that share all but it"
        )
    yield {
        **without(fields, "chosen", "rejected"),
        "messages": _turns(before),
        "chosen": chosen,
        "rejected": rejected,
    }


def _last_reply(transcript: str) -> tuple[str, str]:
    """What stands before the reply to the last human turn, and that reply."""
    start = transcript.find("\n\nAssistant:", transcript.rfind("\n\nHuman:"))
    if start < 0:
        raise BadRowError("a transcript that ends with the human", "a last reply of the assistant")
    return transcript[:start], transcript[start:].removeprefix("\n\nAssistant:").strip()


def _turns(transcript: str) -> list[Fields]:
    parts = TURN.split(transcript)[1:]  # role, text, role, text, ...
    return [
        {"role": "user" if role == "Human" else "assistant", "content": words.strip()}
        for role, words in zip(parts[::2], parts[1::2], strict=True)
    ]


def _write_hh(row: ConversationPair) -> Fields:
    if any(message["role"] == "system" for message in row.messages):
        raise BadRowError(
            "a system message", "conversations of user and assistant alone: hh transcripts have no other"
        )
    names = {"user": "Human", "assistant": "Assistant"}
    before = "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in row.messages)
    return {
        "chosen": f"{before}\n\nAssistant: {row.chosen}",
        "rejected": f"{before}\n\nAssistant: {row.rejected}",
    }


def _read_lists(fields: Fields) -> Iterable[Fields]:
    chosen, rejected = fields["chosen"], fields["rejected"]
    several = len(chosen) == len(rejected) > 1
    sides = list(zip(chosen, rejected, strict=True) if several else product(chosen, rejected))
    for number, (better, worse) in enumerate(sides, start=1):
        made = {**fields, "chosen": better, "rejected": worse}
        if has(fields, "id") and len(sides) > 1:
            made["id"] = f"{fields['id']}-{number}"
        yield made


def _read_openai(fields: Fields) -> Iterable[Fields]:
    given = fields["input"]
    rest = without(fields, "input", "preferred_output", "non_preferred_output")
    yield {
        **rest,
        **without(given, "messages"),
        "messages": messages_of("input.messages", given["messages"]),
        "chosen": reply("preferred_output", fields["preferred_output"]),
        "rejected": reply("non_preferred_output", fields["non_preferred_output"]),
    }


def _read_conversations(fields: Fields) -> Iterable[Fields]:
    name = next(name for name in ("conversations", "conversation", "messages") if has(fields, name))
    messages = messages_of(name, fields[name])
    system = fields.get("system")
    if isinstance(system, str) and system.strip():
        messages.insert(0, {"role": "system", "content": system})
    yield {
        **without(fields, name, "system", "chosen", "rejected"),
        "messages": messages,
        "chosen": reply("chosen", fields["chosen"]),
        "rejected": reply("rejected", fields["rejected"]),
    }


def _read_alpaca(fields: Fields) -> Iterable[Fields]:
    history = fields.get("history") or []
    now = asked(fields, "instruction", "input", "system")
    if history:
        turns = []
        for pair in history:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise BadRowError("history holds what is no pair of texts", "a list of [question, answer]")
            turns += [
                {"role": role, "content": text_of("history", said)}
                for role, said in zip(("user", "assistant"), pair, strict=True)
            ]
        last = now.get("messages") or [{"role": "user", "content": now["prompt"]}]
        now = {"messages": [*last[:-1], *turns, last[-1]]}
    yield {
        **without(fields, "instruction", "input", "system", "history", "chosen", "rejected"),
        **now,
        "chosen": reply("chosen", fields["chosen"]),
        "rejected": reply("rejected", fields["rejected"]),
    }


def _read_question(fields: Fields) -> Iterable[Fields]:
    question = next(name for name in ("question", "input", "instruction") if has(fields, name))
    chosen, rejected = (
        ("chosen_response", "rejected_response") if has(fields, "chosen_response") else ("chosen", "rejected")
    )
    yield {
        **without(fields, question, "system", chosen, rejected),
        **asked(fields, question, "", "system"),
        "chosen": reply(chosen, fields[chosen]),
        "rejected": reply(rejected, fields[rejected]),
    }


def _kept(row: ConversationPair) -> Fields:
    return {"id": row.id, **row.rest}


def _said(words: str) -> list[Fields]:
    return [{"role": "assistant", "content": words}]


LAYOUTS = (
    Layout(
        "trl",
        "TRL's preference rows with an explicit prompt (also RewardBench's)",
        _explicit,
        _as_it_is,
        lambda row: {
            "prompt": row.messages,
            "chosen": _said(row.chosen),
            "rejected": _said(row.rejected),
            **_kept(row),
        },
    ),
    Layout(
        "trl-text",
        "TRL's preference rows of plain texts with an explicit prompt",
        lambda _: False,  # read as trl
        _as_it_is,
        lambda row: {"prompt": _only_user(row), "chosen": row.chosen, "rejected": row.rejected, **_kept(row)},
    ),
    Layout(
        "trl-implicit",
        "TRL's preference rows with an implicit prompt: what both conversations share",
        lambda row: (
            _pair(row) and _whole(row["chosen"]) and not (NOT_TRL | {"prompt", "messages"}) & row.keys()
        ),
        _read_implicit,
        lambda row: {
            "chosen": row.messages + _said(row.chosen),
            "rejected": row.messages + _said(row.rejected),
            **_kept(row),
        },
    ),
    Layout(
        "trl-implicit-text",
        "TRL's preference rows of plain texts with an implicit prompt: the words that both begin with",
        lambda row: (
            _pair(row)
            and all(
                isinstance(row[name], str) and not _transcript(row[name]) for name in ("chosen", "rejected")
            )
            and not (NOT_TRL | {"prompt", "messages"}) & row.keys()
        ),
        _read_implicit_text,
    ),
    Layout(
        "ultrafeedback",
        "UltraFeedback-binarized: a prompt, and chosen and rejected as whole conversations",
        lambda row: _pair(row) and _whole(row["chosen"]) and has(row, "prompt"),
        _read_ultra,
        lambda row: {
            "prompt": _last_user(row),
            "chosen": row.messages + _said(row.chosen),
            "rejected": row.messages + _said(row.rejected),
            **_kept(row),
        },
    ),
    Layout(
        "hh",
        "transcripts (\\n\\nHuman: … \\n\\nAssistant: …) that share all but the last reply",
        lambda row: _pair(row) and _transcript(row["chosen"]) and not has(row, "prompt"),
        _read_hh,
        lambda row: {**_write_hh(row), **_kept(row)},
    ),
    Layout(
        "reward-bench",
        "RewardBench 2 and RM-Bench: lists of chosen and rejected replies; lists of one length are compared one by "
        "one, others each with each",
        lambda row: _pair(row) and has(row, "prompt") and _texts(row["chosen"]) and _texts(row["rejected"]),
        _read_lists,
        lambda row: {
            "prompt": _only_user(row),
            "chosen": [row.chosen],
            "rejected": [row.rejected],
            **_kept(row),
        },
    ),
    Layout(
        "openai-dpo",
        "OpenAI's rows for preference fine-tuning: input.messages, preferred_output, non_preferred_output",
        lambda row: (
            has(row, "input", "preferred_output", "non_preferred_output")
            and isinstance(row["input"], Mapping)
            and is_conversation(row["input"].get("messages"))
        ),
        _read_openai,
        lambda row: {
            "input": {"messages": row.messages},
            "preferred_output": _said(row.chosen),
            "non_preferred_output": _said(row.rejected),
        },
    ),
    Layout(
        "llama-factory",
        "LLaMA-Factory's preference rows in its Alpaca form: instruction, input, chosen, rejected",
        lambda row: _pair(row) and has(row, "instruction") and "generations" not in row,
        _read_alpaca,
        lambda row: {**_alpaca(row), "chosen": row.chosen, "rejected": row.rejected, **_kept(row)},
    ),
    Layout(
        "sharegpt",
        "ShareGPT's conversations with chosen and rejected, as LLaMA-Factory and axolotl take them",
        lambda row: (
            _pair(row) and any(is_conversation(row.get(name)) for name in ("conversations", "conversation"))
        ),
        _read_conversations,
        lambda row: {
            "conversations": [_from(message) for message in row.messages],
            "chosen": {"from": "gpt", "value": row.chosen},
            "rejected": {"from": "gpt", "value": row.rejected},
            **_kept(row),
        },
    ),
    Layout(
        "axolotl",
        "axolotl's chat_template rows: messages, chosen and rejected as one message each",
        lambda row: (
            _pair(row)
            and is_conversation(row.get("messages"))
            and is_message(row["chosen"])
            and not has(row, "prompt")
        ),
        _read_conversations,
        lambda row: {
            "messages": row.messages,
            "chosen": _said(row.chosen)[0],
            "rejected": _said(row.rejected)[0],
            **_kept(row),
        },
    ),
    Layout(
        "axolotl-intel",
        "axolotl's and Argilla's rows of system, question (or input, instruction), chosen and rejected",
        lambda row: (
            (
                has(row, "chosen_response", "rejected_response")
                and any(has(row, name) for name in ("question", "input", "instruction"))
            )
            or (
                _pair(row)
                and not any(
                    is_conversation(row.get(name)) for name in ("conversations", "conversation", "messages")
                )
                and not has(row, "prompt")
                and (
                    has(row, "question")
                    or (has(row, "input") and not has(row, "instruction"))
                    or (has(row, "instruction") and "generations" in row)
                )
            )
        ),
        _read_question,
        lambda row: {**_intel(row), "chosen": row.chosen, "rejected": row.rejected, **_kept(row)},
    ),
)


def _only_user(row: ConversationPair) -> str:
    if len(row.messages) != 1:
        raise BadRowError(
            f"a conversation of {len(row.messages)} messages",
            "a single question: this layout has room for no more",
        )
    return str(row.messages[0]["content"])


def _last_user(row: ConversationPair) -> str:
    return str(row.messages[-1]["content"])


def _from(message: Mapping[str, Any]) -> Fields:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {"from": names[message["role"]], "value": message["content"]}


def _alpaca(row: ConversationPair) -> Fields:
    messages = list(row.messages)
    made: Fields = {}
    if messages[0]["role"] == "system":
        made["system"] = messages.pop(0)["content"]
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise BadRowError(
            "turns that do not alternate", "user and assistant in turn, and one system message at most"
        )
    if len(messages) > 1:
        texts = [message["content"] for message in messages[:-1]]
        made["history"] = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return {"instruction": messages[-1]["content"], "input": "", **made}


def _intel(row: ConversationPair) -> Fields:
    messages = list(row.messages)
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    return {"system": system, "question": _only_user(row._replace(messages=messages))}
