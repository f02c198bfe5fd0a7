"""What a server has shown of itself: remembered for the life of its model, so that it is not shown twice."""

from __future__ import annotations

import logging
from typing import NamedTuple

from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.reply_limits import hidden_tokens
from preceptor.prompts.records import Message

log = logging.getLogger(__name__)

HIDDEN_TOKENS = 4096
"""Room for what a model thinks, on top of the reply's own."""
ALTERNATIVES = 20
"""Most alternatives that OpenAI's API gives at a token."""


class Learned(NamedTuple):
    """What requests to one server must heed, whatever its provider's protocol says."""

    refused: frozenset[str] = frozenset()
    """Optional parameters that it turned away."""
    alternatives: int = ALTERNATIVES
    """The most `top_logprobs` that it gives."""
    no_system: bool = False
    """It takes no message of the system's: its words go before the first one of the user's."""
    responses: bool = False
    """Its model is served by OpenAI's Responses API, and not by chat completions."""
    thinks: bool = False
    """Its model thinks before it answers."""

    def without(self, parameter: str) -> RefusalLesson:
        """The same, and this parameter is refused."""
        now = self._replace(refused=self.refused | {parameter})
        return RefusalLesson(now, f"{parameter}, which is left out")

    def after(self, completion: Completion) -> Learned:
        """What a reply shows: thoughts, or a limit that was used up before the first word of an answer."""
        silent = completion.finish_reason == "length" and not completion.text.strip()
        return self if self.thinks or not (completion.thoughts or silent) else self._replace(thinks=True)

    def hidden_tokens(self, request: Request) -> int:
        """Room for thoughts that nobody has declared."""
        return HIDDEN_TOKENS if self.thinks and not hidden_tokens(request) else 0

    def messages(self, request: Request) -> list[Message]:
        """The request's, in roles that the server takes."""
        if not self.no_system:
            return list(request.messages)
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        rest = [message for message in request.messages if message.role != "system"]
        if not system:
            return rest
        if rest and rest[0].role == "user":
            first = rest[0].model_copy(update={"content": f"{system}\n\n{rest[0].content}"})
            return [first, *rest[1:]]
        return [Message(role="user", content=system), *rest]


THINKING = frozenset({"reasoning_effort", "output_config", "thinking"})
"""Parameters by which a model is told how much to think."""


def warn_of_lost_effort(request: Request, before: Learned, lesson: RefusalLesson, said: str) -> None:
    """Say that a wish of the user's is dropped from now on, once for each model and parameter."""
    if request.effort and (lost := THINKING & (lesson.learned.refused - before.refused)):
        log.warning(
            "%s refused %s, so its effort is not %s but its own from now on: %s",
            *(request.model, ", ".join(sorted(lost)), request.effort, said),
        )


class RefusalLesson(NamedTuple):
    """What one refusal taught."""

    learned: Learned
    """All that is known now."""
    change: str
    """What was refused, and what becomes of it from now on, in words."""


NOTHING = Learned()
