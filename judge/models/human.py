"""A person at the terminal behind the seam: one key for a verdict, and the ledger remembers it like any other.

The person sees the conversation, the two replies and the principles, and nothing of what other judges said. Keys: `a`
and `b` for the better reply, `t` for a tie, `s` to leave the pair for another time, `q` to stop; what was answered
stays answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ProviderStopped, Rejected
from preceptor.judge.models.protocol import Capabilities, Completion, Request
from preceptor.prompts.shown import printable

KEYS = {"a": "a", "b": "b", "t": "tie"}
"""Key -> letter on the menu."""
QUIT = "q"
HELP = "a: reply A   b: reply B   t: tie   s: leave it for now   q: stop here"


class Left(ProviderStopped):
    """The person has gone; the same command goes on where they left."""

    exit_code = 130


class HumanModel:
    """Satisfies `protocol.Model`. One question at a time; there is no deadline for thinking."""

    dialect = "human"
    capabilities = Capabilities(queueing=True, person=True)
    endpoint = ""

    def __init__(self, name: str, key: Callable[[], str], show: Callable[[str], object]) -> None:
        """key: waits for one key and returns it. show: writes text where the person sees it."""
        self.name = name
        self._key = key
        self._show = show
        self._turn = asyncio.Lock()
        self._asked = 0
        self._gone = False

    async def complete(self, request: Request) -> Completion:
        """The verdict of the key that was pressed. Raises Rejected for `s`, Left for `q`."""
        async with self._turn:
            if not self._gone:
                self._asked += 1
                shown = printable(request.messages[-1].content)
                self._show(f"\n=== {self._asked} {'=' * 60}\n\n{shown}\n\n{HELP}\n")
            while True:
                key = QUIT if self._gone else (await asyncio.to_thread(self._key)).lower()
                if key == "s":
                    raise Rejected("left for another time")
                if key in (QUIT, "\x03", "\x04", ""):
                    self._gone = True  # whoever waits for a turn is not asked any more
                    raise Left("stopped by the person who judges; the same command goes on here")
                if KEYS.get(key) in request.menu:
                    words = request.menu[KEYS[key]]
                    return Completion(text=words, finish_reason="stop", served_by=self.name)

    async def close(self) -> None:
        """Nothing is held."""


def terminal_key() -> str:
    """One key from the terminal, Ctrl-C as `\\x03`."""
    import click

    try:
        return click.getchar()
    except (KeyboardInterrupt, EOFError):
        return "\x03"


def open_model(name: str) -> HumanModel:
    """`human` or `human/<who>`. Raises UserError where nobody sits at a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            f"{name}: a person is asked at a terminal, and this is none; run the command by hand there"
        )

    def show(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return HumanModel(name, terminal_key, show)
