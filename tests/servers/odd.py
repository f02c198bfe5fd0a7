"""A server of odd replies: each of a kind that real servers are known to give, played as often as it is asked.

What a kind answers is a function of the request's body and of how many requests came before it. `good` is the judge
behind most of them: it prefers the reply that holds GOOD.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.servers.llm import Answer, LLMServer, conversation

Kind = Callable[[dict[str, Any], int], Answer]


class OddServer(LLMServer):
    """Answers every request as its kind does."""

    def __init__(self, kind: Kind, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    async def answer(self, path: str, raw: bytes) -> Answer:
        """The kind's answer to one POST."""
        body = json.loads(raw)
        self.bodies.append(body)
        self.paths.append(path)
        return self.kind(body, len(self.bodies) - 1)


def good(body: dict[str, Any]) -> str:
    """A verdict for the reply that holds GOOD; a greeting where there are no two."""
    shown = re.search(r"<<<REPLY_A \w+>>>(.*?)<<<END_REPLY_A", conversation(body), re.DOTALL)
    if shown is None:
        return "GOOD morning! How can I help?"
    return "Verdict: A" if "GOOD" in shown[1] else "Verdict: B"


def completion(text: object, finish: object = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion of this content."""
    return {
        "id": "c-1",
        "object": "chat.completion",
        "model": "odd",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108},
    }


def ok(body: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(200, body if isinstance(body, bytes) else json.dumps(body).encode(), headers or {})


def refusal(status: int, error: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(error).encode(), headers or {})


def limit(body: dict[str, Any]) -> int:
    """The most tokens that a request allows."""
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 10**6)


def minute_limit(body: dict[str, Any], number: int) -> Answer:
    """A limit a minute, whose words name the page where one pays."""
    if number % 3 == 0:
        said = "Too many requests per min: 3. Try again in 0.02s. More with a card: see the billing page."
        return refusal(429, {"error": {"message": said, "code": "rate_limit_exceeded"}})
    return ok(completion(good(body)))


def quota(_body: dict[str, Any], _number: int) -> Answer:
    return refusal(429, {"error": {"message": "Your quota is used up.", "code": "insufficient_quota"}})


def half_emoji(body: dict[str, Any], _number: int) -> Answer:
    said = completion("Fine @ by me. " + good(body))
    return ok(json.dumps(said).replace("@", "\\ud83d").encode())


def no_system(body: dict[str, Any], _number: int) -> Answer:
    if any(message["role"] == "system" for message in body["messages"]):
        return refusal(400, {"object": "error", "message": "System role not supported", "code": 400})
    return ok(completion(good(body)))


def no_system_in_its_schema(body: dict[str, Any], _number: int) -> Answer:
    """The same as FastAPI says it, with the place apart from the words; of alternatives it gives five."""
    if body["messages"][0]["role"] == "system":
        fault = {"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user' or 'assistant'"}
        return refusal(422, {"detail": [{"type": "literal_error", **fault}]})
    if body.get("top_logprobs", 0) > 5:
        fault = {"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 5"}
        return refusal(422, {"detail": [{"type": "less_than_equal", **fault}]})
    return ok(completion(good(body)))


def cuts_prompts(body: dict[str, Any], _number: int) -> Answer:
    said = completion(good(body))
    said["usage"]["prompt_tokens"] = min(len(conversation(body)) // 4, 500)
    return ok(said)


def thinks_apart(body: dict[str, Any], _number: int) -> Answer:
    """Thoughts in a field of their own, 300 tokens of them before the answer."""
    if limit(body) < 300:
        said = completion(None, "length", reasoning_content="Let me see. " * 10)
        said["usage"]["completion_tokens"] = limit(body)
        return ok(said)
    return ok(completion(good(body), reasoning_content="I see. Verdict: nobody."))


def thinks_aloud(body: dict[str, Any], _number: int) -> Answer:
    """The same in the text, with the wrong verdict among the thoughts."""
    verdict = good(body)
    other = "Verdict: B" if verdict == "Verdict: A" else "Verdict: A"
    words = f'<think>\nBy length I would write "{other}", or\n{other}\n{"and so on " * 90}</think>\n\n{verdict}'.split(
        " "
    )
    cut = len(words) > limit(body)
    return ok(completion(" ".join(words[: limit(body)]), "length" if cut else "stop"))


def thinks_by_half(body: dict[str, Any], number: int) -> Answer:
    opened = "<think>\n" if number % 2 else ""
    return ok(completion(f"{opened}The password is swordfish.\n</think>\n\n{good(body)}"))


def harmony(body: dict[str, Any], _number: int) -> Answer:
    final = f"<|start|>assistant<|channel|>final<|message|>{good(body)}<|return|>"
    return ok(completion(f"<|channel|>analysis<|message|>Hm. Verdict: nobody.<|end|>{final}"))


def parts(body: dict[str, Any], _number: int) -> Answer:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    return ok(completion([thinking, {"type": "text", "text": good(body)}]))


def no_usage(body: dict[str, Any], _number: int) -> Answer:
    return ok({name: value for name, value in completion(good(body)).items() if name != "usage"})


def absurd_usage(body: dict[str, Any], number: int) -> Answer:
    said = completion(good(body))
    wild = [-5, 10**18, "many", None, float("nan"), True]
    said["usage"] = {"prompt_tokens": wild[number % 6], "completion_tokens": wild[(number + 1) % 6]}
    return ok(said)


def claims_millions(body: dict[str, Any], _number: int) -> Answer:
    """Tokens that nobody can have used, in the total."""
    said = completion(good(body))
    said["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 9_000_000}
    return ok(said)


def more_cached_than_read(body: dict[str, Any], _number: int) -> Answer:
    said = completion(good(body))
    said["usage"]["prompt_tokens_details"] = {"cached_tokens": 10**9}
    return ok(said)


def unreadable(_body: dict[str, Any], _number: int) -> Answer:
    return ok({"choices": [{"message": None}], "usage": {"prompt_tokens": 100, "completion_tokens": 8}})


def unreadable_once() -> Kind:
    """Of every body the first time."""
    seen: set[str] = set()

    def unreadable_once(body: dict[str, Any], number: int) -> Answer:
        if (asked := json.dumps(body)) in seen:
            return ok(completion(good(body)))
        seen.add(asked)
        return unreadable(body, number)

    return unreadable_once


def error_inside(code: object, message: str) -> Kind:
    return lambda _body, _number: ok({"error": {"message": message, "code": code}})


def broken_off(word: object) -> Kind:
    """A finish reason that is none of a good end, after a quotation."""
    return lambda _body, _number: ok(completion('Reply A might look like "Verdict: A" but then', word))


def few_alternatives(body: dict[str, Any], _number: int) -> Answer:
    if body.get("top_logprobs", 0) > 5:
        said = "top_logprobs must be between 0 and 5"
        return refusal(400, {"error": {"message": said, "param": "top_logprobs"}})
    return ok(completion(good(body)))


def epoch_reset(body: dict[str, Any], number: int) -> Answer:
    headers = {
        "x-ratelimit-limit-requests": "6000",
        "x-ratelimit-remaining-requests": str(max(0, 3 - number)),
        "x-ratelimit-reset-requests": str(int(time.time()) + 1),
    }
    return ok(completion(good(body)), headers)


def empty(_body: dict[str, Any], _number: int) -> Answer:
    return ok(completion(""))


def rejects(_body: dict[str, Any], _number: int) -> Answer:
    return refusal(400, {"error": {"message": "this server takes no requests on weekdays"}})


def nested(_body: dict[str, Any], _number: int) -> Answer:
    return ok(b'{"choices":' + b"[" * 200_000)


def endless_number(body: dict[str, Any], _number: int) -> Answer:
    return ok(json.dumps(completion(good(body))).replace("108", "9" * 10_000).encode())


def good_answer(body: dict[str, Any]) -> Answer:
    return ok(completion(good(body)))
