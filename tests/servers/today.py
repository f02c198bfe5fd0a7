"""The server of `tests.servers.batches` with the rules of the models of today, as their providers' documentation has
them: what each refuses, how much it thinks, where its thoughts go, how they are counted.

OpenAI    developers.openai.com/api/docs: models, guides latest-model and deployment-checklist (read 2026-11-30)
Anthropic platform.claude.com/docs: models, migration guides, build-with-claude/effort and /thinking (read 2026-11-30)

A refused body is kept in `refused`; what was billed is in `billed`, a usage for each good answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.servers.batches import BatchServer
from tests.servers.llm import Answer, conversation

LEVELS = ("low", "medium", "high", "xhigh", "max")
THOUGHT = {"none": 0, "low": 300, "medium": 900, "high": 3000, "xhigh": 9000, "max": 20000}
"""Tokens that a model thinks at each level."""
CACHED_FROM = 512
"""Tokens of a system prompt from which it is cached."""


class Rules(NamedTuple):
    """What a model takes."""

    protocol: str
    efforts: tuple[str, ...]
    default: str
    """The effort where nothing is said."""
    off: str = ""
    """Anthropic's kind of thinking that is none; empty: it always thinks."""
    chat_efforts: tuple[str, ...] = ()
    """Levels that Chat Completions takes, where those are not all."""
    chat: bool = True
    """Whether Chat Completions serves it."""


MODELS: Mapping[str, Rules] = {
    "claude-haiku-5-5": Rules("anthropic", LEVELS, "medium", off="disabled"),
    "claude-sonnet-5-5": Rules("anthropic", LEVELS, "high", off="between_tools"),
    "claude-opus-5-5": Rules("anthropic", LEVELS, "medium"),
    "gpt-6-luna": Rules("openai", ("none", *LEVELS), "medium"),
    "gpt-6.1-terra": Rules("openai", ("none", *LEVELS), "medium"),
    "gpt-6.1-sol": Rules("openai", LEVELS, "medium", chat_efforts=LEVELS[:-1]),
}
NO_CHAT = "of-tomorrow"
"""A model that nobody knows by its name, which the Responses API serves alone, as it does some of OpenAI's."""
RULES = {**MODELS, NO_CHAT: Rules("openai", ("none", *LEVELS), "medium", chat=False)}


class Refused(Exception):
    """A body against the rules."""

    def __init__(self, message: str, param: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class TodayServer(BatchServer):
    """Run by `tests.servers.llm.serve`."""

    def __init__(self, **behaviour: Any) -> None:
        super().__init__(**behaviour)
        self.refused: list[dict[str, Any]] = []
        self.billed: list[dict[str, Any]] = []
        self._cached: set[str] = set()

    async def answer(self, path: str, raw: bytes) -> Answer:
        body = json.loads(raw)
        rules = RULES[body["model"]]
        by_responses = path.partition("?")[0].endswith("/responses")
        try:
            effort = effort_of_body(body, by_responses=by_responses)
        except Refused as exc:
            self.refused.append(body)
            error = {"message": str(exc), "type": "invalid_request_error", "param": exc.param or None}
            return Answer(exc.status, {"type": "error", "error": error}, {})
        plain = await super().answer(path, raw)
        assert isinstance(plain.body, dict)
        made = self._openai if rules.protocol == "openai" else self._anthropic
        made = self._responses if by_responses else made
        answer = made(body, plain.body, THOUGHT[effort])
        self.billed.append(answer["usage"])
        return plain._replace(body=answer)

    def _openai(self, body: dict[str, Any], answer: dict[str, Any], thought: int) -> dict[str, Any]:
        """Thoughts are hidden, and counted among the completion's tokens."""
        choice = answer["choices"][0]
        text, spent, ended = _fitted(
            _in_schema(body, choice["message"]["content"]), thought, body["max_completion_tokens"]
        )
        choice["message"]["content"] = text
        choice["finish_reason"] = "stop" if ended else "length"
        usage = answer["usage"] | {
            "completion_tokens": spent,
            "completion_tokens_details": {"reasoning_tokens": min(thought, spent)},
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        }
        tier = body.get("service_tier", "default")
        return answer | {"usage": usage, "service_tier": tier}

    def _responses(self, body: dict[str, Any], answer: dict[str, Any], thought: int) -> dict[str, Any]:
        """As a chat; thoughts are an item without words."""
        (part,) = answer["output"][0]["content"]
        text, spent, ended = _fitted(_in_schema(body, part["text"]), thought, body["max_output_tokens"])
        part["text"] = text
        thoughts = [{"type": "reasoning", "id": "rs_1", "summary": []}] if thought else []
        read = answer["usage"]["input_tokens"]
        return answer | {
            "status": "completed" if ended else "incomplete",
            "incomplete_details": None if ended else {"reason": "max_output_tokens"},
            "output": [*thoughts, *(answer["output"] if text else [])],
            "service_tier": body.get("service_tier", "default"),
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": spent,
                "output_tokens_details": {"reasoning_tokens": min(thought, spent)},
                "total_tokens": read + spent,
            },
        }

    def _anthropic(self, body: dict[str, Any], answer: dict[str, Any], thought: int) -> dict[str, Any]:
        """Thoughts are a block without words, and counted among the output; the system's words are cached."""
        said = answer["content"][0]["text"]
        text, spent, ended = _fitted(_in_schema(body, said), thought, body["max_tokens"])
        blocks = [{"type": "thinking", "thinking": "", "signature": "s"}] if thought else []
        answer["content"] = [*blocks, *([{"type": "text", "text": text}] if text else [])]
        answer["stop_reason"] = "end_turn" if ended else "max_tokens"
        system = json.dumps(body.get("system", ""))
        tokens = len(conversation({"system": body.get("system")})) // 4
        marked = tokens >= CACHED_FROM and "cache_control" in system
        read, written = (tokens, 0) if marked and system in self._cached else (0, tokens if marked else 0)
        self._cached.add(system)
        usage = answer["usage"]
        answer["usage"] = {
            "input_tokens": max(0, usage["input_tokens"] - read - written),
            "output_tokens": spent,
            "output_tokens_details": {"thinking_tokens": min(thought, spent)},
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        }
        return answer


def effort_of_body(body: dict[str, Any], by_responses: bool = False) -> str:
    """The level at which a model answers this body. Raises Refused where it is against its rules."""
    rules = RULES[body["model"]]
    if by_responses:
        return _responses_effort(body, rules)
    return _openai_effort(body, rules) if rules.protocol == "openai" else _anthropic_effort(body, rules)


def _responses_effort(body: dict[str, Any], rules: Rules) -> str:
    known = {"model", "input", "store", "max_output_tokens", "reasoning", "text", "include", "service_tier"}
    for name in body.keys() - known - {"temperature", "top_p", "top_logprobs"}:
        raise Refused(f"Unknown parameter: '{name}'.", name)
    if body["max_output_tokens"] < 16:
        raise Refused("Expected a value >= 16 for 'max_output_tokens'.", "max_output_tokens")
    effort = str(body.get("reasoning", {}).get("effort", rules.default))
    if effort not in rules.efforts:
        raise Refused(f"Unsupported value: '{effort}' is not supported with this model.", "reasoning.effort")
    for name in ("temperature", "top_p", "top_logprobs", "include"):
        if effort != "none" and name in body:
            raise Refused(f"Unsupported parameter: '{name}' is not supported with this model.", name)
    return effort


def _openai_effort(body: dict[str, Any], rules: Rules) -> str:
    if not rules.chat:
        said = "This model is only supported in v1/responses and not in v1/chat/completions."
        raise Refused(said, "model", status=404)
    if "max_tokens" in body:
        raise Refused(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            "max_tokens",
        )
    effort = str(body.get("reasoning_effort", rules.default))
    if effort not in (rules.chat_efforts or rules.efforts):
        raise Refused(
            f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model.",
            "reasoning_effort",
        )
    if effort != "none":
        for name in ("temperature", "top_p", "logprobs", "top_logprobs"):
            if name in body:
                raise Refused(f"Unsupported parameter: '{name}' is not supported with this model.", name)
    return effort


def _anthropic_effort(body: dict[str, Any], rules: Rules) -> str:
    for name in ("temperature", "top_p", "top_k"):
        if name in body:
            raise Refused(f"`{name}` may only be left at its default for this model.")
    kind = body.get("thinking", {"type": "adaptive"})["type"]
    if kind not in ("adaptive", rules.off):
        raise Refused(
            f'"thinking.type.{kind}" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
        )
    effort = str(body.get("output_config", {}).get("effort", rules.default))
    if effort not in rules.efforts:
        raise Refused(f"output_config.effort: {effort!r} is none of {', '.join(rules.efforts)}")
    if kind == rules.off and effort in ("xhigh", "max"):
        raise Refused(f"output_config.effort: {effort!r} needs thinking")
    return "none" if kind == rules.off else effort


def _in_schema(body: dict[str, Any], text: str) -> str:
    """The reply as the schema wants it, where one came: its last field is the verdict, the words of the last line."""
    openai, anthropic = body.get("response_format") or {}, body.get("output_config") or {}
    other = body.get("text") or {}
    form = openai.get("json_schema") or other.get("format") or anthropic.get("format")
    if not form:
        return text
    fields = dict.fromkeys(form["schema"]["properties"], "so it is")
    return json.dumps({**fields, "verdict": text.splitlines()[-1]})


def _fitted(text: str, thought: int, room: int) -> tuple[str, int, bool]:
    """(what is left of the reply, tokens spent, whether it came to its end) where thoughts come first."""
    tokens = len(text) // 4 + 1
    if thought + tokens <= room:
        return text, thought + tokens, True
    return text[: 4 * max(0, room - thought)], room, False
