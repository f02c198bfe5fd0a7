"""A reply in pieces is the reply, up to its first stop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from preceptor.judge.models.protocol import Completion, TokenLogprob, WrittenToken
from preceptor.serve.jobs.chat_reply import UNFINISHED, GrowingReply, ReplyPart, logprobs_of

LETTERS = st.text("ab\n", max_size=4)


def tokens_of(parts: list[str]) -> list[WrittenToken]:
    made, reply = [], ""
    for part in parts:
        reply += part
        made.append(WrittenToken(reply, part, -1.0, ()))
    return made


def pieces(parts: list[str], stops: list[str]) -> tuple[list[ReplyPart], bool]:
    """As the chat endpoint takes them: a reply ends with its first stop."""
    reply = GrowingReply(stops)
    found = []
    text = ""
    for token in tokens_of(parts):
        text = token.reply
        if (piece := reply.take(token)) is not None:
            found.append(piece)
        if reply.stopped:
            break
    return [*found, reply.finish(Completion(text=text, finish_reason="length"))], reply.stopped


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3))
def test_pieces_are_the_reply_up_to_its_first_stop(parts: list[str], stops: list[str]) -> None:
    made, stopped = pieces(parts, stops)
    whole = "".join(parts)
    places = [place for stop in stops if (place := whole.find(stop)) >= 0]
    # an earlier stop may only be seen once a later one has ended the reply; what is sent holds neither
    said = "".join(piece.text for piece in made)
    assert stopped is bool(places)
    assert whole.startswith(said)
    assert not any(stop in said for stop in stops)
    if not places:
        assert said == whole
        assert [token.text for piece in made for token in piece.tokens] == parts
    else:
        cut = [token for piece in made for token in piece.tokens]
        assert [token.text for token in cut] == parts[: len(cut)]
        assert all(len(token.reply) - len(token.text) < max(len(said), 1) for token in cut)


def test_text_that_may_begin_a_stop_waits_and_the_rest_does_not() -> None:
    reply = GrowingReply(["\n\n"])
    one, two, three = tokens_of(["One.", "\n", "Two."])
    assert reply.take(one) == ReplyPart("One.", (one,))
    assert reply.take(two) is None
    assert reply.take(three) == ReplyPart("\nTwo.", (two, three))


def test_half_a_character_waits_for_the_other_half() -> None:
    reply = GrowingReply([])
    half = WrittenToken(f"caf{UNFINISHED}", f"caf{UNFINISHED}", -1.0, ())
    rest = WrittenToken("caf\u00e9", UNFINISHED, -2.0, (TokenLogprob(" ", -2.5),))
    assert reply.take(half) == ReplyPart("caf", (half,))
    assert reply.take(rest) == ReplyPart("\u00e9", (rest,))
    (told,) = logprobs_of([rest])["content"]
    assert (told["bytes"], told["logprob"]) == (None, -2.0)
    assert told["top_logprobs"] == [{"token": " ", "logprob": -2.5, "bytes": [32]}]
