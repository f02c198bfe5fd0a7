"""New prompts, round by round: a model is asked, what it wrote is admitted or refused, until there is enough.

Every round is a function of the settings and of what the rounds before it brought. So the same command asks the same
again, the ledger answers, and a run that was stopped goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.asking.fanout import Progress
from preceptor.judge.asking.shared import NOTHING_DONE
from preceptor.judge.dataset.coverage import ALL, coverage
from preceptor.judge.records import Label, Response
from preceptor.prompts.admission import Admission
from preceptor.prompts.recipes import (
    NEEDS,
    TOPICS,
    CellToFill,
    RecipeAsk,
    RecipeInput,
    SynthesisWay,
    ask_for,
    read_prompts_in,
)
from preceptor.prompts.records import Message, Prompt, content_id
from preceptor.workbench.settings import SynthesisSettings

ROUND, LOCAL_ROUND = 8, 64
"""Calls of a round, at most: so often it is looked whether to go on. A model in this process is loaded once a round."""
WORDS_OF_A_DOCUMENT = 400
"""A longer document is shown in parts of so many words."""


class RoundReplies(NamedTuple):
    """What asking one round brought."""

    replies: Sequence[Response]
    """Fewer than were asked for where the asking was stopped."""
    progress: Progress
    stopped: BaseException | None = None


AskRound = Callable[[Sequence[Prompt]], RoundReplies]


class SynthesisFigures(TypedDict):
    """What `prompts synthesize --json` prints, beside `out`."""

    new: int
    calls: int
    from_ledger: int
    cost_usd: float
    usd_per_new: float | None
    """Of what was spent now; None where nothing is new."""
    written: int
    """Prompts that the replies held."""
    refused: dict[str, int]
    """Why prompts were not taken -> how many."""
    unusable_replies: int
    by_way: dict[str, int]
    """New prompts."""
    cells: list[list[str | int]]
    """[tag, principle, prompts at the beginning, new ones], for taxonomy."""
    ended: str
    """Why it stopped."""


class Synthesis:
    """What is asked for, what has come, and when it is enough."""

    def __init__(
        self,
        settings: SynthesisSettings,
        given: RecipeInput,
        cells: Mapping[CellToFill, int],
        admission: Admission,
        take: Callable[[Prompt], None],
    ) -> None:
        """cells: those that `taxonomy` fills, and how many prompts each has. take: is given every new prompt.

        Raises UserError for a way that lacks what it needs.
        """
        self.settings = settings
        self.ways = settings.how or _default(given, cells)
        has = {"": True, "seeds": given.seeds, "documents": given.documents, "principles": cells}
        for way in self.ways:
            if not has[NEEDS[way]]:
                raise UserError(
                    f"{way} needs {NEEDS[way]}, and there are none; name them, or choose another --how"
                )
        self._given = given._replace(topics=settings.topic or TOPICS)
        self._before = dict(cells)
        self._new: Counter[CellToFill] = Counter()
        self._admission = admission
        self._take = take
        self._calls = self._written = self._unusable = 0
        self._refused: Counter[str] = Counter()
        self._by_way: Counter[str] = Counter()
        self._progress = NOTHING_DONE

    @property
    def new(self) -> int:
        """Prompts taken so far."""
        return self._by_way.total()

    def asks(self, calls: int) -> list[tuple[RecipeAsk, CellToFill | None]]:
        """The next so many asks, each way in its turn, `taxonomy` at the emptiest cell first."""
        awaited: Counter[CellToFill] = Counter()
        made: list[tuple[RecipeAsk, CellToFill | None]] = []
        for number in range(self._calls, self._calls + calls):
            way, cell = self.ways[number % len(self.ways)], None
            if way == "taxonomy":
                cell = self._emptiest(awaited)
                if cell is None:
                    continue
                awaited[cell] += self.settings.at_once
            turn = number // len(self.ways)
            settings = self.settings
            made.append((ask_for(way, self._given, cell, turn, settings.seed, settings.at_once), cell))
        return made

    def _emptiest(self, awaited: Mapping[CellToFill, int]) -> CellToFill | None:
        """None: all are full."""
        have = {cell: count + self._new[cell] for cell, count in self._before.items()}
        open_ones = [cell for cell, count in have.items() if count < self.settings.per_cell]
        return min(open_ones, key=lambda cell: have[cell] + awaited.get(cell, 0), default=None)

    def calls_at_best(self) -> int:
        """How many calls it takes if every prompt that is asked for is taken."""
        return -(-self.settings.count // self.settings.at_once)

    def prompts_at_best(self) -> list[Prompt]:
        """What is asked if every prompt that is asked for is taken."""
        return [asking_prompt(ask.text) for ask, _ in self.asks(self.calls_at_best())]

    def run(
        self, ask: AskRound, model: str, calls_of_a_round: int = ROUND
    ) -> tuple[SynthesisFigures, BaseException | None]:
        """Ask until it is enough; what stopped the asking before is handed back."""
        while True:
            left = self.settings.count - self.new
            if left <= 0:
                return self._figures("the prompts wanted are there"), None
            calls = min(calls_of_a_round, -(-left // self.settings.at_once))
            round_of = self.asks(calls)
            self._calls += calls
            if not round_of:
                return self._figures("every cell is full"), None
            came = ask([asking_prompt(one.text) for one, _ in round_of])
            self._progress = self._progress._replace(
                asked=self._progress.asked + came.progress.asked,
                from_ledger=self._progress.from_ledger + came.progress.from_ledger,
                cost_usd=self._progress.cost_usd + came.progress.cost_usd,
            )
            before = self.new
            for (one, cell), reply in zip(round_of, came.replies, strict=False):
                self._read(one, cell, reply, model)
            if came.stopped is not None:
                return self._figures("the asking was stopped"), came.stopped
            if self.new - before < self.settings.least * self.settings.at_once * len(round_of):
                return self._figures("too few of the last round were new"), None

    def _read(self, ask: RecipeAsk, cell: CellToFill | None, reply: Response, model: str) -> None:
        if reply.status not in ("ok", "truncated"):
            self._unusable += 1
            return
        for messages in read_prompts_in(reply.text, ask):
            self._written += 1
            if self.new >= self.settings.count:
                self._refused["beyond the count"] += 1
                continue
            source = {**ask.source, "model": model, "call": reply.call}
            prompt = Prompt(
                id=content_id("prompt", [one.model_dump() for one in messages]),
                messages=messages,
                tags=ask.tags,
                meta={"source": source},
            )
            if (why := self._admission.refuses(prompt)) is not None:
                self._refused[why] += 1
                continue
            self._by_way[str(ask.source["how"])] += 1
            if cell is not None:
                self._new[cell] += 1
            self._take(prompt)

    def _figures(self, ended: str) -> SynthesisFigures:
        now = self._progress
        return {
            "new": self.new,
            "calls": now.asked,
            "from_ledger": now.from_ledger,
            "cost_usd": now.cost_usd,
            "usd_per_new": now.cost_usd / self.new if self.new else None,
            "written": self._written,
            "refused": dict(self._refused),
            "unusable_replies": self._unusable,
            "by_way": dict(self._by_way),
            "cells": [[one.tag, one.principle, count, self._new[one]] for one, count in self._before.items()],
            "ended": ended,
        }


def _default(given: RecipeInput, cells: Mapping[CellToFill, int]) -> tuple[SynthesisWay, ...]:
    """Raises UserError where there is nothing to draw from."""
    if cells:
        return ("taxonomy",)
    if given.documents:
        return ("documents",)
    if given.seeds:
        return ("self-instruct",)
    raise UserError(
        "there is nothing to draw from; name a file of seeds, --constitution, --documents or a way with --how"
    )


def asking_prompt(text: str) -> Prompt:
    """The row that asks a model this."""
    return Prompt(id=content_id("ask", text), messages=(Message(role="user", content=text),))


def cells_of(
    constitution: Constitution, prompts: Iterable[Prompt], labels: Iterable[Label] | None, tags: Sequence[str]
) -> dict[CellToFill, int]:
    """Tags by principles, with the prompts that each has; with labels, the pairs that the principle told apart.

    tags: those that count beside the ones that prompts or principles have; with no tag at all, a cell a principle.
    """
    found = coverage(constitution, prompts, labels)["cells"]
    texts = {one.id: one.text for one in constitution.principles}
    cells: dict[CellToFill, int] = {}
    for cell in found:
        if cell["tag"] not in (ALL, ""):
            count = cell["prompts"] if cell["told_apart"] is None else cell["told_apart"]
            cells[CellToFill(cell["tag"], cell["principle"], texts[cell["principle"]])] = count
    for principle in constitution.principles:
        for tag in tags:
            if principle.applies((tag,)):
                cells.setdefault(CellToFill(tag, principle.id, principle.text), 0)
    if cells:
        return cells
    return {
        CellToFill("", cell["principle"], texts[cell["principle"]]): cell["prompts"]
        for cell in found
        if cell["tag"] == ALL
    }


def parts_of_documents(texts: Iterable[str]) -> list[str]:
    """Documents in parts that can be shown, each of whole words."""
    parts = []
    for text in texts:
        words = text.split()
        parts += [
            " ".join(words[start : start + WORDS_OF_A_DOCUMENT])
            for start in range(0, len(words), WORDS_OF_A_DOCUMENT)
        ]
    return parts
