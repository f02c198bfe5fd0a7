"""Servers and providers that speak OpenAI's chat completions, each with the habits of docs/servers.md.

A profile's server answers as `LLMServer` does, and changes what its original changes: parameters that it refuses, and
in which words; the fields of a reply; headers. `faults` are the error bodies of its original.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tests.servers.llm import Answer, LLMServer

Body = dict[str, Any]
Meaning = Literal["wait", "stop", "row", "refused"]
"""What a fault should lead to: another try later, the end of the run, a failed row, a refused one."""


class Fault(NamedTuple):
    """An error of a server's, and what is right to do about it."""

    status: int
    body: Any
    meaning: Meaning
    headers: Mapping[str, str] = {}


def _as_it_came(reply: Body) -> Body:
    return reply


class Profile(NamedTuple):
    """The habits of one server."""

    name: str
    refuses: frozenset[str] = frozenset()
    """Parameters that it turns away."""
    refusal: Callable[[Sequence[str]], Fault] | None = None
    """How it says so."""
    logprobs: bool = True
    """Whether it gives the probabilities of tokens where it does not refuse to."""
    alternatives: int = 20
    """The most `top_logprobs` that it gives."""
    too_many: Callable[[int], Fault] | None = None
    """How it says that more were asked for."""
    change: Callable[[Body], Body] = _as_it_came
    """Its reply, made of an ordinary one."""
    thoughts: str = ""
    """What its model thought, as it should arrive."""
    headers: Mapping[str, str] = {}
    faults: Mapping[str, Fault] = {}


class ProfileServer(LLMServer):
    """A server with the habits of a profile."""

    def __init__(self, profile: Profile, **options: Any) -> None:
        super().__init__(headers=lambda: dict(profile.headers), **options)
        self.profile = profile
        self.fault: Fault | None = None
        """What befalls every request; None: nothing."""

    async def answer(self, path: str, raw: bytes) -> Answer:
        """The answer to one POST."""
        body = json.loads(raw)
        if (fault := self.fault or self._refusal(body)) is not None:
            self.bodies.append(body)
            return Answer(fault.status, json.dumps(fault.body).encode(), dict(fault.headers))
        if not self.profile.logprobs:
            body.pop("logprobs", None)
        answer = await super().answer(path, json.dumps(body).encode())
        assert isinstance(answer.body, dict)
        made = self.profile.change(answer.body)
        # as one of them does while it has no time: blank lines before the JSON
        return answer._replace(body=b"\n\n" + json.dumps(made).encode())

    def _refusal(self, body: Body) -> Fault | None:
        refused = [name for name in body if name in self.profile.refuses]
        if refused and self.profile.refusal is not None:
            return self.profile.refusal(refused)
        if body.get("top_logprobs", 0) > self.profile.alternatives and self.profile.too_many is not None:
            return self.profile.too_many(body["top_logprobs"])
        return None


def _openai(message: str, kind: str | None = None, code: object = None, **more: Any) -> Body:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def _thinking(field: str) -> Callable[[Body], Body]:
    """Thoughts in a field of their own."""

    def change(reply: Body) -> Body:
        reply["choices"][0]["message"][field] = "Let me see. Verdict: nobody."
        return reply

    return change


def _in_parts(reply: Body) -> Body:
    """Mistral's: content as a list of chunks, thoughts among them."""
    message = reply["choices"][0]["message"]
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see. Verdict: nobody."}]}
    message["content"] = [thinking, {"type": "text", "text": message["content"]}]
    return reply


def _hidden_thoughts(reply: Body) -> Body:
    """Gemini's: thoughts are counted in the total alone."""
    reply["usage"]["total_tokens"] += 500
    return reply


def _routed(reply: Body) -> Body:
    """OpenRouter's: who answered, and that one's own finish reason."""
    reply["choices"][0] |= {"native_finish_reason": "STOP"}
    reply["choices"][0]["message"]["reasoning"] = "Let me see. Verdict: nobody."
    reply |= {"provider": "Somebody"}
    return reply


def _filtered(reply: Body) -> Body:
    """Azure's: what its filters found."""
    found = {"hate": {"filtered": False, "severity": "safe"}}
    reply["choices"][0]["content_filter_results"] = found
    reply["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": found}]
    return reply


def _stopped_where(reply: Body) -> Body:
    """SGLang's: by which token a reply ended."""
    reply["choices"][0]["matched_stop"] = 2
    reply["choices"][0]["message"]["reasoning_content"] = None
    return reply


THOUGHTS = "Let me see. Verdict: nobody."
LIMITS = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-limit-tokens": "180000",
    "x-ratelimit-remaining-tokens": "179970",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-reset-tokens": "7.66s",
}
"""Groq's own."""


def _vllm(message: str, code: int, kind: str = "BadRequestError") -> Body:
    return _openai(message, kind, code)


def _sglang(message: str, code: int) -> Body:
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": code}


def _gemini(message: str, code: int, status: str, *details: Body) -> list[Body]:
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


def _mistral(names: Sequence[str]) -> Fault:
    forbidden = [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": 7,
        }
        for name in names
    ]
    whole = {"object": "error", "message": {"detail": forbidden}, "type": "invalid_request_error"}
    return Fault(422, {**whole, "param": None, "code": None}, "row")


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "ollama",
            logprobs=False,
            change=_thinking("reasoning"),
            thoughts=THOUGHTS,
            faults={
                "a model that is not pulled": Fault(
                    404,
                    _openai('model "m" not found, try pulling it first', "not_found_error"),
                    "stop",
                ),
                "a full queue": Fault(
                    503,
                    _openai("server busy, please try again. maximum pending requests exceeded", "api_error"),
                    "wait",
                ),
                "a model that does not load": Fault(
                    500, _openai("llama runner process has terminated", "api_error"), "wait"
                ),
            },
        ),
        Profile(
            "vllm",
            alternatives=5,
            too_many=lambda asked: Fault(
                400,
                _vllm(f"Requested sample logprobs of {asked}, which is greater than max allowed: 5", 400),
                "row",
            ),
            change=_thinking("reasoning"),
            thoughts=THOUGHTS,
            faults={
                "an older version's limit of alternatives": Fault(
                    400, _sglang("Cannot request more than 5 logprobs.", 400), "row"
                ),
                "a prompt longer than the context": Fault(
                    400,
                    _vllm("This model's maximum context length is 2048 tokens. However, you sent 3000.", 400),
                    "row",
                ),
                "another model": Fault(
                    404, _vllm("The model `m` does not exist.", 404, "NotFoundError"), "stop"
                ),
                "an engine that died": Fault(
                    500, _vllm("EngineCore died", 500, "InternalServerError"), "wait"
                ),
            },
        ),
        Profile(
            "sglang",
            change=_stopped_where,
            faults={
                "a prompt longer than the context": Fault(
                    400,
                    _sglang("The input (3000 tokens) is longer than the model's context length (2048).", 400),
                    "row",
                ),
                "a full queue": Fault(503, _sglang("The request queue is full.", 503), "wait"),
            },
        ),
        Profile(
            "lm-studio",
            logprobs=False,
            change=_thinking("reasoning_content"),
            thoughts=THOUGHTS,
            faults={
                "no model": Fault(404, _openai("Model m not found", "invalid_request_error"), "stop"),
                "a prompt longer than the context, as a text": Fault(
                    400, {"error": "The number of tokens to keep is greater than the context length."}, "row"
                ),
            },
        ),
        Profile(
            "litellm",
            refuses=frozenset({"logprobs", "top_logprobs", "seed"}),
            refusal=lambda names: Fault(
                400,
                _openai(
                    f"litellm.UnsupportedParamsError: anthropic does not support parameters: {list(names)}, for "
                    "model=claude-haiku-4-5. To drop these, set `litellm.drop_params=True`.",
                    "invalid_request_error",
                    "400",
                ),
                "row",
            ),
            headers={"x-litellm-model-id": "1", "x-ratelimit-remaining-requests": "None"},
            faults={
                "a provider's limit": Fault(
                    429,
                    _openai("litellm.RateLimitError: Rate limit reached", "throttling_error", "429"),
                    "wait",
                ),
                "a key's budget": Fault(
                    400,
                    _openai(
                        "Budget has been exceeded! Current cost: 2, Max budget: 1", "budget_exceeded", "400"
                    ),
                    "stop",
                ),
                "a wrong key": Fault(
                    401,
                    _openai("Authentication Error, Invalid proxy server token passed", "auth_error", "401"),
                    "stop",
                ),
                "a filter": Fault(
                    400,
                    _openai("litellm.ContentPolicyViolationError: content_policy_violation", None, "400"),
                    "refused",
                ),
            },
        ),
        Profile(
            "openrouter",
            logprobs=False,
            change=_routed,
            thoughts=THOUGHTS,
            faults={
                "no credits": Fault(402, {"error": {"code": 402, "message": "Insufficient credits"}}, "stop"),
                "credits held by calls in flight": Fault(
                    402,
                    {
                        "error": {
                            "code": 402,
                            "message": "Too much in flight",
                            "metadata": {"limit_source": "openrouter_in_flight_budget"},
                        }
                    },
                    "wait",
                    {"retry-after": "2"},
                ),
                "a flagged prompt": Fault(
                    403,
                    {
                        "error": {
                            "code": 403,
                            "message": "m requires moderation: input flagged",
                            "metadata": {},
                        }
                    },
                    "refused",
                ),
                "a provider that is down, inside a 200": Fault(
                    200, {"error": {"code": 502, "message": "Provider returned error"}}, "wait"
                ),
                "a limit inside a 200, in the choice": Fault(
                    200,
                    {
                        "choices": [
                            {
                                "error": {"code": 429, "message": "Slow down"},
                                "message": {"role": "assistant", "content": ""},
                                "finish_reason": "error",
                            }
                        ]
                    },
                    "wait",
                ),
                "nobody to route to": Fault(
                    503, {"error": {"code": 503, "message": "No provider meets your requirements"}}, "wait"
                ),
            },
        ),
        Profile(
            "azure",
            change=_filtered,
            headers={"x-ratelimit-remaining-requests": "7", "x-ratelimit-remaining-tokens": "1014"},
            faults={
                "a filtered prompt": Fault(
                    400,
                    _openai(
                        "The response was filtered due to the prompt triggering a content management policy.",
                        None,
                        "content_filter",
                        innererror={"code": "ResponsibleAIPolicyViolation"},
                    ),
                    "refused",
                ),
                "a limit a minute": Fault(
                    429,
                    {
                        "error": {
                            "code": "429",
                            "message": "Requests have exceeded token rate limit of your tier. Please retry after 7 "
                            "seconds. Go to https://aka.ms/oai/quotaincrease to raise it.",
                        }
                    },
                    "wait",
                    {"retry-after": "7", "retry-after-ms": "7000"},
                ),
                "no such deployment": Fault(
                    404,
                    {
                        "error": {
                            "code": "DeploymentNotFound",
                            "message": "The API deployment does not exist.",
                        }
                    },
                    "stop",
                ),
                "a wrong key": Fault(
                    401, {"error": {"code": "401", "message": "Access denied due to invalid key."}}, "stop"
                ),
            },
        ),
        Profile(
            "groq",
            refuses=frozenset({"logprobs", "top_logprobs"}),
            refusal=lambda names: Fault(
                400, _openai(f"property '{names[0]}' is unsupported", "invalid_request_error"), "row"
            ),
            headers=LIMITS,
            faults={
                "a limit a minute": Fault(
                    429,
                    _openai(
                        "Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5900. Please "
                        "try again in 1.2s. Need more tokens? Upgrade at https://console.groq.com/settings/billing",
                        "tokens",
                        "rate_limit_exceeded",
                    ),
                    "wait",
                    {"retry-after": "2"},
                ),
                "a request larger than a minute's tokens": Fault(
                    413,
                    _openai("Request too large on tokens per minute (TPM)", "tokens", "rate_limit_exceeded"),
                    "row",
                ),
                "no room in the flex tier": Fault(
                    498, _openai("capacity exceeded", "capacity_exceeded", "capacity_exceeded"), "wait"
                ),
            },
        ),
        Profile(
            "gemini",
            refuses=frozenset({"logprobs", "top_logprobs", "seed"}),
            refusal=lambda names: Fault(
                400,
                _gemini(
                    "\n".join(
                        f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
                        for name in names
                    ),
                    400,
                    "INVALID_ARGUMENT",
                ),
                "row",
            ),
            change=_hidden_thoughts,
            faults={
                "a limit a minute": Fault(
                    429,
                    _gemini(
                        "You exceeded your current quota, please check your plan and billing details.",
                        429,
                        "RESOURCE_EXHAUSTED",
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "32s"},
                    ),
                    "wait",
                ),
                "a wrong key": Fault(
                    400,
                    _gemini("API key not valid. Please pass a valid API key.", 400, "INVALID_ARGUMENT"),
                    "stop",
                ),
                "an overload": Fault(503, _gemini("The model is overloaded.", 503, "UNAVAILABLE"), "wait"),
                "no such model": Fault(404, _gemini("models/m is not found", 404, "NOT_FOUND"), "stop"),
            },
        ),
        Profile(
            "mistral",
            refuses=frozenset({"logprobs", "top_logprobs", "seed", "max_completion_tokens"}),
            refusal=_mistral,
            change=_in_parts,
            thoughts=THOUGHTS,
            faults={
                "a limit a second": Fault(429, {"message": "Requests rate limit exceeded"}, "wait"),
                "a wrong key": Fault(401, {"detail": "Unauthorized"}, "stop"),
                "no such model": Fault(
                    400,
                    {
                        "object": "error",
                        "message": "Invalid model: m",
                        "type": "invalid_model",
                        "code": "1500",
                    },
                    "stop",
                ),
            },
        ),
        Profile(
            "deepseek",
            refuses=frozenset({"logprobs", "top_logprobs"}),
            refusal=lambda names: Fault(
                400,
                _openai(f"deepseek-reasoner does not support {names[0]}", "invalid_request_error"),
                "row",
            ),
            change=_thinking("reasoning_content"),
            thoughts=THOUGHTS,
            faults={
                "no balance": Fault(402, _openai("Insufficient Balance", "unknown_error"), "stop"),
                "an older form": Fault(422, {"detail": "Invalid top_logprobs and logprobs value"}, "row"),
                "too many at once": Fault(429, _openai("Rate limit reached", "rate_limit_error"), "wait"),
                "an overload": Fault(503, _openai("Service is too busy", "service_unavailable"), "wait"),
            },
        ),
    )
}
