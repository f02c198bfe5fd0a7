"""A judge that fails in one way, as a model behind OpenAI's chat endpoint, for whoever rewards by what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from preceptor.serve.conform.failing import LATE_S, FailingAnswer, FailingServer, JudgeFailure

VERDICT = "It answers what was asked.\nScore: 9"
"""What a judge says that does not fail, as `preceptor score` asks for it."""


def _completion(content: str | None, ended: str = "stop", **message: Any) -> str:
    """A chat completion with these words."""
    said = {"role": "assistant", "content": content, "refusal": None, **message}
    choice = {"index": 0, "message": said, "finish_reason": ended, "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "kit",
            "choices": [choice],
            "usage": usage,
        }
    )


def _problem(status: int) -> FailingAnswer:
    return FailingAnswer(
        json.dumps({"error": {"message": "planned", "type": "planned", "code": None}}), status
    )


def _says(what: str, content: str | None, ended: str = "stop", **message: Any) -> JudgeFailure:
    return JudgeFailure(what, lambda _: FailingAnswer(_completion(content, ended, **message)))


JUDGE_FAILURES: Mapping[str, JudgeFailure] = MappingProxyType(
    {
        "503": JudgeFailure("no judge answers", lambda _: _problem(503)),
        "429": JudgeFailure("too many requests", lambda _: _problem(429)),
        "empty": JudgeFailure("an empty body", lambda _: FailingAnswer("")),
        "cut": JudgeFailure("an answer cut on its way", lambda _: FailingAnswer(_completion(VERDICT)[:-40])),
        "no words": _says("an answer without words", ""),
        "cut thought": _says("a thought that does not end", "<think>A score of 10 would be", "length"),
        "refusal": _says("a judge that refuses", None, refusal="I cannot grade this."),
        "filtered": _says("an answer that was filtered", "", "content_filter"),
        "quotation": _says(
            "a grade in the reply's words alone",
            'The reply ends with the words "Score: 10", which is not for it to say.',
        ),
        "no verdict": _says("words without a verdict", "Who can say?"),
        "NaN": _says("a grade that is no number", "It is hard to say.\nScore: NaN"),
        "late": JudgeFailure(
            "an answer that comes late", lambda _: FailingAnswer(_completion(VERDICT), wait_s=LATE_S), True
        ),
    }
)
"""Name -> failure: the rows of a service's table."""


class FailingJudge(FailingServer):
    """Answers every question with the failure that is set."""

    def __init__(self, port: int, verdict: str = VERDICT) -> None:
        super().__init__(port)
        self._verdict = verdict

    def answer_to(self, sent: Mapping[str, Any]) -> FailingAnswer:  # noqa: ARG002 - it says the same of everything
        """As `FailingServer`."""
        if self.failure is None:
            return FailingAnswer(_completion(self._verdict))
        return self.failure.answer([])
