"""What servers send is read, bounded and made safe at one door, whichever protocol it came by."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ModelError, ProviderStopped, Rejected, Transient, Unreadable
from preceptor.judge.models import door
from preceptor.judge.models.anthropic import codec as anthropic
from preceptor.judge.models.openai import codec as openai
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.reply_limits import billed_tokens
from preceptor.judge.models.token_estimates import most_tokens_in
from preceptor.prompts.records import Message
from tests.servers.odd import completion

MENU = {"a": "Verdict: A", "b": "Verdict: B"}
ASKED = openai.asked_of("openai/m")


def request(text: str = "hello", **fields: Any) -> Request:
    messages = (Message(role="user", content=text),)
    return Request.model_validate({"model": "openai/m", "messages": messages, "max_tokens": 64, **fields})


def read(body: object, **fields: Any) -> Completion:
    return openai.completion_of(body, request(**fields), ASKED)


def message(text: object, stop: object = "end_turn", **usage: Any) -> dict[str, Any]:
    """Anthropic's form."""
    content = text if isinstance(text, list) else [{"type": "text", "text": text}]
    counts = {"input_tokens": 100, "output_tokens": 8} | usage
    return {"type": "message", "model": "odd", "content": content, "stop_reason": stop, "usage": counts}


def heard(body: object, **fields: Any) -> Completion:
    return anthropic.completion_of(body, request(**fields), anthropic.asked_of("anthropic/m"))


BOTH = pytest.mark.parametrize(
    ("said", "come"), [(completion, read), (message, heard)], ids=["openai", "anthropic"]
)
Said = Callable[..., dict[str, Any]]
Come = Callable[..., Completion]


@BOTH
@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("eos", "stop"),
        ("", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_context_window_exceeded", "length"),
        ("content_filter", "refused"),
        ("content-filter", "refused"),
        ("SAFETY", "refused"),
        ("refusal", "refused"),
        ("error", "cut"),
        ("abort", "cut"),
        ("pause_turn", "cut"),
        ("tool_calls", "cut"),
        ("tool_use", "cut"),
        ("whatever comes next year", "cut"),
        (7, "cut"),
        ({"type": "stop"}, "cut"),
    ],
)
def test_only_what_is_known_to_be_a_good_end_is_one(
    said: Said, come: Come, word: object, finish: str
) -> None:
    made = come(said("half a sen", word))
    assert made.finish_reason == finish
    assert (made.finish_word == "") is (finish == "stop")


@BOTH
def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_joined(said: Said, come: Come) -> None:
    made = come(said("Fine \ud83d by me, \ud83d\ude00 and \ud83d\ude00."))
    assert made.text == "Fine � by me, 😀 and 😀."
    assert Completion.model_validate_json(made.model_dump_json()) == made


@BOTH
@pytest.mark.parametrize("count", [-1, 10**18, "many", None, float("nan"), float("inf"), True, [1]])
def test_a_count_that_is_none_is_estimated_and_marked(said: Said, come: Come, count: object) -> None:
    body = said("a reply of some length, say ten tokens")
    names = ("prompt_tokens", "completion_tokens") if come is read else ("input_tokens", "output_tokens")
    assert come(body).usage == "reported"
    for name in names:
        body["usage"] |= {name: count}
        made = come(body)
        assert made.usage == "estimated"
        assert 0 < made.tokens_in < 100
    assert 0 < made.tokens_out <= 64
    del body["usage"]
    assert come(body) == made


@BOTH
@pytest.mark.parametrize("counts", [(0, 0), (0, 8), (100, 0)])
def test_no_tokens_for_words_are_no_count(said: Said, come: Come, counts: tuple[int, int]) -> None:
    names = ("prompt_tokens", "completion_tokens") if come is read else ("input_tokens", "output_tokens")
    body = said("some words")
    body["usage"] |= dict(zip(names, counts, strict=True))
    assert come(body).usage == "estimated"
    assert come(body).tokens_in > 0
    assert come(body).tokens_out > 0


@BOTH
def test_a_claim_beyond_what_a_request_can_have_used_is_the_worst_case(said: Said, come: Come) -> None:
    """What was reserved for it is booked, and marked: a cap holds whatever a server claims."""
    names = ("prompt_tokens", "completion_tokens") if come is read else ("input_tokens", "output_tokens")
    worst = (most_tokens_in(request()), billed_tokens(request()))
    for index, claims in enumerate(((9_000_000, 8), (100, 9_000_000))):
        body = said("some words")
        body["usage"] |= dict(zip(names, claims, strict=True))
        made = come(body)
        assert made.usage == "estimated"
        assert (made.tokens_in, made.tokens_out)[index] == worst[index]
        assert (made.tokens_in, made.tokens_out)[1 - index] == claims[1 - index]
    body = completion("some words")
    body["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 9_000_000}
    assert (read(body).tokens_out, read(body).usage) == (worst[1], "estimated")
    long = request("word " * 20_000)
    body["usage"] = {"prompt_tokens": 100_000, "completion_tokens": 60, "total_tokens": 104_000}
    assert openai.completion_of(body, long, ASKED).usage == "reported", "thoughts that nobody has declared"


def test_a_reply_of_unknown_length_that_cannot_be_read_is_as_long_as_it_may_be() -> None:
    with pytest.raises(Unreadable) as caught:
        read({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": "many"}})
    assert caught.value.paid is not None
    assert caught.value.paid.tokens_out == 64


def test_no_more_is_cached_than_was_read() -> None:
    body = completion("yes")
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 10**6}
    assert read(body).tokens_cached == read(body).tokens_in == 100


@pytest.mark.parametrize(
    ("content", "more", "text", "thoughts"),
    [
        ("Good day.", {}, "Good day.", ""),
        (None, {}, "", ""),
        ([{"type": "text", "text": "Good "}, {"type": "text", "text": "day."}], {}, "Good day.", ""),
        (["Good day."], {}, "Good day.", ""),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Good day."}],
         {}, "Good day.", "hm"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, "", ""),
        ("Good day.", {"reasoning_content": "hm"}, "Good day.", "hm"),
        ("Good day.", {"reasoning": "hm"}, "Good day.", "hm"),
        ("Good day.", {"reasoning": None, "tool_calls": []}, "Good day.", ""),
        ("<think>hm</think>Good day.", {}, "Good day.", "hm"),
        ("hm</think>\n\nGood day.", {}, "Good day.", "hm"),
        ("<think>hm", {}, "", "hm"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Good day.", {},
         "Good day.", "hm"),
    ],
)  # fmt: skip
def test_what_counts_as_the_answer(content: object, more: dict[str, Any], text: str, thoughts: str) -> None:
    made = read(completion(content, **more))
    assert (made.text, made.thoughts) == (text, thoughts)


def test_thinking_blocks_are_thoughts() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "Good day."}]
    made = heard(message([*blocks, {"type": "redacted_thinking", "data": "x"}]))
    assert (made.text, made.thoughts) == ("Good day.", "hm")


def test_of_several_choices_the_first_is_taken() -> None:
    body = completion("second")
    body["choices"][0]["index"] = 1
    body["choices"].append({"index": 0, "message": {"content": "first"}, "finish_reason": "stop"})
    assert read(body).text == "first"


def test_a_refusal_is_one_however_it_ended() -> None:
    made = read(completion(None, refusal="I cannot."))
    assert (made.text, made.finish_reason) == ("I cannot.", "refused")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, Transient),
        ({"code": 502, "message": "bad gateway"}, Transient),
        ({"code": 402, "message": "Insufficient credits"}, ProviderStopped),
        ({"code": "insufficient_quota", "message": "used up"}, ProviderStopped),
        ({"code": 401, "message": "no"}, ProviderStopped),
        ({"code": 400, "message": "too long"}, Rejected),
        ({"code": 403, "message": "flagged by moderation"}, Rejected),
        ("something broke", Transient),
    ],
)
def test_an_error_inside_a_200_is_that_error(error: object, kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        read({"error": error})
    with pytest.raises(kind):
        read({"choices": [{"error": error, "message": {"content": ""}, "finish_reason": "error"}]})
    with pytest.raises(kind):
        heard({"type": "error", "error": error})
    if isinstance(error, dict):  # as servers of the kind of vLLM write it
        with pytest.raises(kind):
            read({"object": "error", **error})
        with pytest.raises(kind):
            read({"detail": [error]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "type", "content", "code", "message", "token", "index"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
PLACES = [
    (), ("choices",), ("choices", 0), ("choices", 0, "message"), ("choices", 0, "message", "content"),
    ("choices", 0, "finish_reason"), ("choices", 0, "logprobs"), ("usage",), ("usage", "prompt_tokens"),
    ("usage", "prompt_tokens_details"), ("model",), ("error",), ("choices", 0, "message", "reasoning"),
    ("choices", 0, "message", "refusal"), ("content",), ("content", 0), ("content", 0, "text"), ("stop_reason",),
]  # fmt: skip


def put(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    if (isinstance(body, dict)) or (isinstance(body, list) and place[0] < len(body)):
        copied = body.copy()
        copied[place[0]] = put(
            body[place[0]] if isinstance(body, list) else body.get(place[0]), place[1:], value
        )
        return copied
    return body


@settings(deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_where_it_should_not_is_one_of_our_errors(
    place: tuple[Any, ...], value: object
) -> None:
    """And what is read can be written down."""
    good = completion("Verdict: A")
    good["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": []}]}
    for body, come in ((good, read), (message("Verdict: A"), heard)):
        try:
            made = come(put(body, place, value), menu=MENU)
        except ModelError:
            continue
        assert Completion.model_validate_json(made.model_dump_json()) == made


def test_a_reply_that_cannot_be_read_is_paid_for() -> None:
    body = {"choices": [{"message": None}], "usage": {"prompt_tokens": 100, "completion_tokens": 8}}
    with pytest.raises(Unreadable) as caught:
        read(body)
    paid = caught.value.paid
    assert paid is not None
    assert (paid.tokens_in, paid.tokens_out, paid.usage) == (100, 8, "reported")
    with pytest.raises(Unreadable) as caught:
        read({"choices": []})
    assert caught.value.paid is not None
    assert caught.value.paid.usage == "estimated"
    assert caught.value.paid.tokens_out == 64, "as long as it may have been"


def test_a_prompt_that_was_read_by_half_is_no_answer() -> None:
    long = request("word " * 20_000)
    body = completion("Verdict: A")
    for count, fits in ((25_000, True), (12_000, True), (2_050, False)):
        body["usage"]["prompt_tokens"] = count
        if fits:
            assert openai.completion_of(body, long, ASKED).text == "Verdict: A"
            continue
        with pytest.raises(
            Rejected, match=r"read 2050 tokens of a prompt of about 25004.*context length"
        ) as caught:
            openai.completion_of(body, long, ASKED)
        assert caught.value.paid is not None
    del body["usage"]
    assert openai.completion_of(body, long, ASKED).text == "Verdict: A"


def test_blanks_are_few_tokens_to_a_server_that_reads_them_all() -> None:
    body = completion("yes")
    body["usage"]["prompt_tokens"] = 900
    assert openai.completion_of(body, request(("x" + " " * 60) * 800), ASKED).text == "yes"


def test_no_probability_is_taken_from_thoughts() -> None:
    tokens = [{"token": one, "logprob": -0.01, "top_logprobs": []} for one in ("<think>", "Verdict: ")]
    top = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.4}]
    body = completion("<think>Verdict: A")
    body["choices"][0]["logprobs"] = {
        "content": [*tokens, {"token": "A", "logprob": -0.1, "top_logprobs": top}]
    }
    assert read(body, menu=MENU).probabilities is None
    body["choices"][0]["message"]["content"] = "Verdict: A"
    body["choices"][0]["logprobs"]["content"].pop(0)
    assert read(body, menu=MENU).probabilities is not None


@pytest.mark.parametrize(
    "raw",
    [
        *(b'{"a":' * 100_000, b"[" * 330 + b"]" * 330, b'{"a":' * 70 + b"1" + b"}" * 70),
        *(b'{"a": ' + b"9" * 10_000 + b"}", b'{"a": \xff', b"", b"<p>"),
        b'{"choices": [{"message": {"content": "Verdict: A", "content": "Verdict: B"}}]}',
    ],
)
def test_a_body_that_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        door.json_of(raw)


def test_bytes_that_are_no_text_are_replaced() -> None:
    raw = json.dumps(completion("caf@")).encode().replace(b"@", b"\xe9")
    assert read(door.json_of(raw)).text == "caf�"


def test_a_key_that_says_the_same_twice_does_no_harm() -> None:
    assert door.json_of(b'{"model": "m", "a": {"b": [1, 1]}, "model": "m"}') == {
        "model": "m",
        "a": {"b": [1, 1]},
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_is_read_in_whatever_unicode_it_came(encoding: str) -> None:
    raw = json.dumps(completion("caf\u00e9"), ensure_ascii=False).encode(encoding)
    assert read(door.json_of(raw)).text == "caf\u00e9"
    assert door.may_be_json(raw[:-8]), "half of it was paid for all the same"
    assert not door.may_be_json("<p>Bad gateway</p>".encode(encoding))


def test_numbers_that_are_too_large_for_a_probability_are_none() -> None:
    body = completion("Verdict: A")
    body["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -(10**400), "top_logprobs": []}]}
    made = read(body, menu=MENU)
    assert (made.text, made.probabilities) == ("Verdict: A", None)


@pytest.mark.parametrize("code", ["\u00b2", "\u0664\u0662\u0669", "4" * 5000])
def test_digits_that_are_no_number_are_no_status(code: str) -> None:
    for come in (read, heard):
        with pytest.raises(ModelError):
            come({"error": {"code": code, "message": "odd"}})


def test_what_breaks_a_reader_is_told_by_its_type_and_paid_for() -> None:
    with pytest.raises(Unreadable, match="RecursionError: too deep") as caught, door.reading("p", request()):
        raise RecursionError("too deep")
    assert caught.value.paid is not None
    assert caught.value.paid.tokens_out == 64
    with pytest.raises(Transient, match="p's reply broke its client: AssertionError"), door.asking("p"):
        raise AssertionError
    for error in (Rejected("no"), UserError("no"), TimeoutError()):
        with pytest.raises(type(error)), door.asking("p"):
            raise error
