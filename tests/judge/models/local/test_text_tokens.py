"""Text is text: a mark that somebody wrote opens no turn and ends none, in any family of tokenizers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local.conversation import UnrenderableError, ids_of, joined, joins, render
from preceptor.judge.models.local.text_tokens import Marked, check_tokenizer, text_tokens
from preceptor.judge.records import Preference
from preceptor.prompts.records import Message
from preceptor.train.data.pairs import encode_messages, encode_pairs, encode_reply, turn_ends
from tests.judge.models.local.families import FAMILIES, LOSSY, family

NAMES = sorted(FAMILIES)
ALL_MARKS = sorted({mark for name in NAMES for mark in text_tokens(family(name)).controls})
WORDS = ["Good day ", "guest", " ", "\n", "Verdict: A", "The mark "]
TEXTS = st.lists(
    st.sampled_from([*WORDS, *ALL_MARKS, "<|im_", "end|>", "<", "|>"]), min_size=1, max_size=8
).map("".join)
by_family = pytest.mark.parametrize("name", NAMES)


def turns(*texts: str) -> list[dict[str, str]]:
    roles = ("system", "user", "assistant", "user")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def of_control(tokenizer: Any, ids: list[int]) -> list[int]:
    marks = {
        number for mark, number in text_tokens(tokenizer).controls.items() if mark not in ("<unk>", "[UNK]")
    }
    return [token for token in ids if token in marks]


def test_there_are_ten_families_and_more() -> None:
    assert len(NAMES) >= 10
    assert len(ALL_MARKS) >= 20


@by_family
@settings(max_examples=25)
@given(system=TEXTS, question=TEXTS, answer=TEXTS, again=TEXTS)
def test_what_texts_hold_makes_no_control_token(
    name: str, system: str, question: str, answer: str, again: str
) -> None:
    """The control tokens of a conversation are those of the same conversation about nothing."""
    tokenizer = family(name)
    ids = ids_of(tokenizer, turns(system, question, answer, again), True)
    empty = ids_of(tokenizer, turns("x", "x", "x", "x"), True)
    assert of_control(tokenizer, ids) == of_control(tokenizer, empty)


@by_family
@settings(max_examples=25)
@given(question=TEXTS, reply=TEXTS)
def test_a_reply_ends_where_it_ends(name: str, question: str, reply: str) -> None:
    tokenizer = family(name)
    ends = turn_ends(tokenizer, None)
    prompt = [Message(role="user", content=question)]
    before = encode_messages(tokenizer, prompt, generation_prompt=True)
    ids = encode_reply(tokenizer, prompt, before, [Message(role="assistant", content=reply)], ends)
    assert [at for at, token in enumerate(ids) if token in ends] == [len(ids) - 1]
    if (
        name not in LOSSY and "deepseek" not in name
    ):  # whose template drops what stands before the end of thoughts
        assert "".join(reply.split()) in "".join(tokenizer.decode(ids[:-1]).split())


@by_family
@settings(max_examples=25)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map("".join))
def test_a_text_without_marks_has_the_tokens_it_always_had(name: str, text: str) -> None:
    """In the tokenizer itself and in the copy that knows no marks."""
    tokenizer = family(name)
    rows = turns(text, text, text, text)[1:]
    ids = ids_of(tokenizer, rows, True)
    texts = text_tokens(tokenizer)
    rendered = render(tokenizer, rows, True)
    plain = not tokenizer.chat_template
    assert texts.ids([texts.marked(rendered)], plain)[0] == ids
    if tokenizer.chat_template:
        given_ids = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        assert ids == list(given_ids)


@by_family
def test_the_copy_is_used_and_not_the_slow_way(name: str) -> None:
    texts = text_tokens(family(name))
    texts.ids([Marked("x")], False)
    assert texts._copy


@by_family
@settings(max_examples=25)
@given(TEXTS)
def test_piece_by_piece_no_mark_is_a_control_token_either(name: str, text: str) -> None:
    """The way of tokenizers that are no `tokenizers.Tokenizer` underneath."""
    from preceptor.judge.models.local.text_tokens import TextTokens

    if name in LOSSY or "Unigram" in name or "unigram" in name:
        return  # their Python twins do not exist
    tokenizer = family(name)
    slow = TextTokens(tokenizer)
    slow._copy = False
    assert of_control(tokenizer, slow.text_ids(text)) == []


@by_family
def test_pairs_that_differ_behind_a_mark_are_no_same_replies(name: str) -> None:
    tokenizer = family(name)
    for mark in text_tokens(tokenizer).controls:
        rows = [
            Preference(
                id="1",
                prompt=(Message(role="user", content="What is it?"),),
                chosen=(Message(role="assistant", content=f"The mark {mark} ends a turn, guest."),),
                rejected=(Message(role="assistant", content=f"The mark {mark} can help you."),),
                probability=1.0,
                margin=1.0,
                constitution="x",
                judge="x",
            )
        ]
        (made,) = encode_pairs(rows, tokenizer, 512).rows
        assert len(made.chosen) > len(made.rejected) > 3


def test_marks_of_thoughts_stay_as_the_template_wants_them() -> None:
    """They open no turn, and a template that drops old thoughts must find their end."""
    tokenizer = family("deepseek: full-width marks, thoughts")
    text = render(tokenizer, turns("s", "u", "<think>hm</think>Good day", "u"), True)
    assert "hm" not in text
    assert "Good day" in text


@pytest.mark.parametrize(
    ("name", "roles", "ways"),
    [
        ("qwen: byte-level BPE, ChatML", ["user", "user"], False),
        ("llama 2: Metaspace BPE, first word only", ["user", "user"], True),
        ("llama 2: Metaspace BPE, first word only", ["system", "user", "user", "assistant", "user"], True),
        ("gemma: Unigram with its marks among the pieces, no system", ["system", "user"], False),
        ("phi: marks that eat spaces, tools and images, drops the system", ["system", "user"], False),
        ("no template", ["user", "user"], False),
    ],
)
def test_every_message_is_in_what_the_model_reads(name: str, roles: list[str], ways: bool) -> None:
    tokenizer = family(name)
    rows = [{"role": role, "content": f"words of number {number}"} for number, role in enumerate(roles)]
    text = render(tokenizer, rows, True)
    assert [text.count(row["content"]) for row in rows] == [1] * len(rows)
    assert joins(tokenizer, roles) is ways


def test_a_conversation_that_cannot_be_written_says_why() -> None:
    drops = family("phi: marks that eat spaces, tools and images, drops the system")
    with pytest.raises(UnrenderableError, match="leaves out the message of the system; the roles are system"):
        render(drops, turns("alone"), True)
    broken = FAMILIES["qwen: byte-level BPE, ChatML"]()
    broken.chat_template = "{{ messages.nothing.at_all }}"
    with pytest.raises(UnrenderableError, match="the chat template refuses the conversation: "):
        render(broken, turns("a", "b"), True)


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer swallows the interruption")
def test_a_chat_template_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And tried once: the other ways of writing a conversation would not end either."""
    monkeypatch.setattr("preceptor.judge.models.local.conversation.LIMIT_S", 0.2)
    tokenizer = FAMILIES["qwen: byte-level BPE, ChatML"]()
    loops = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = f"{loops}{tokenizer.chat_template}"
    rows = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]
    with pytest.raises(
        UnrenderableError, match=r"the chat template does not end: it takes longer than 0.2 s"
    ):
        render(tokenizer, rows, True)


def test_joining_keeps_every_word() -> None:
    rows = [
        {"role": role, "content": text}
        for role, text in (("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))
    ]
    assert joined(rows) == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]


@by_family
def test_a_whole_tokenizer_passes(name: str) -> None:
    if name in LOSSY:
        return
    check_tokenizer(name, family(name), len(family(name)))
    with pytest.raises(UserError, match=rf"has {len(family(name))} tokens and the model embeddings for 5"):
        check_tokenizer(name, family(name), 5)


def test_a_tokenizer_that_loses_texts_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, [])), eos_token="a"
    )
    with pytest.raises(
        UserError, match=r"the tokenizer makes .* of 'The guest asks .*the folder lacks tokenizer\.json"
    ):
        check_tokenizer("hf/x", empty, 3)
