"""Before a constitution is saved: which of the last labels would have another winner under it.

Where a change only leaves principles out or weighs them otherwise, the judgements at hand answer, as in `preceptor
constitution replay`. Else the judge is asked as `preceptor label` asks it, which the ledger answers where it can.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from preceptor.asking.stages import judging
from preceptor.constitution.diff import compare
from preceptor.constitution.errors import UserError
from preceptor.constitution.principle import Constitution
from preceptor.judge.dataset.label_folder import LabelFolder
from preceptor.judge.records import Label
from preceptor.label.replay import Replay, Replayed, ReplayFigures, figures, open_replay, replayed
from preceptor.label.run import Job, pair_of
from preceptor.serve.auth import Caller
from preceptor.serve.desk import ServedModel
from preceptor.serve.native import alone
from preceptor.serve.pages.label_sets import LabelSet, LabelSets
from preceptor.serve.service import Service

LAST = 200
"""Labels that are asked about: those at the end of the file."""
MOST_SETS = 30
"""Labels among which one may choose, those of the configuration first, then the latest."""
AT_HAND = frozenset({"weight", "over", "critique", "revision"})
"""Fields of a principle after whose change the judgements at hand still answer."""


class Flips(NamedTuple):
    """What a change does to the last labels."""

    labels: str
    """Their name in addresses."""
    told: str
    """Their name for people."""
    figures: ReplayFigures
    judged: int
    """Labels about which the judge was asked; the ledger may have answered."""
    why_unknown: str
    """Why nobody was asked about the labels that stay unknown; empty: there are none."""


def sets_of(known: LabelSets, constitution: str) -> list[tuple[str, str]]:
    """(name, for people) of label folders made under a constitution that bears this name itself."""
    found = []
    for name, told in known.all()[:MOST_SETS]:
        manifest = LabelFolder(known.found(name).path.parent).read_manifest()
        if manifest is not None and manifest["constitution"].partition("@")[0] == constitution:
            found.append((name, told))
    return found


def answers_at_hand(was: Constitution, now: Constitution) -> bool:
    """Whether no judge can be asked anything new: principles are left out, or weigh more or less."""
    return all(
        change.kind in ("removed", "moved")
        or (change.kind == "changed" and (not change.principle or set(change.fields) <= AT_HAND))
        for change in compare(was, now)
    )


async def flips(
    served: Service, found: LabelSet, rules: Constitution, caller: Caller, most_usd: float
) -> Flips:
    """The last labels under other rules. Raises UserError for labels that cannot be replayed, Problem where the judge
    cannot be asked or the budget does not hold all calls; what is answered by then stays in the ledger.
    """
    replay, last = await asyncio.to_thread(_last, found)
    job, why = replay.job, ""
    if answers_at_hand(job.constitution, rules):
        changes = await asyncio.to_thread(lambda: list(replayed(last, job, rules)))
    else:
        changes = [Replayed(label, None) for label in last]
    unknown = [one.before for one in changes if one.after is None]
    way = _way(served, job)
    if unknown and way is None:
        why = f"{job.judges} is not asked here: only labels by one judge whom this server has are asked anew"
    elif unknown and way is not None:
        pairs = [pair_of(label) for label in unknown]
        asks = judging(pairs, rules, alone(way, job.settings), job.settings, job.rule)
        made = iter(await served.desk.ask(way, asks, caller, most_usd))
        changes = [one if one.after is not None else one._replace(after=next(made)) for one in changes]
    return Flips(
        found.name,
        found.told,
        figures(changes, job.constitution, rules),
        0 if why else len(unknown),
        why,
    )


def _last(found: LabelSet) -> tuple[Replay, list[Label]]:
    if not found.path.is_file():
        raise UserError(f"there are no labels at {found.path.name}; label some first")
    replay = open_replay(found.path)
    return replay, list(deque(replay.folder.read_labels(), LAST))


def _way(served: Service, job: Job) -> ServedModel | None:
    """The server's model that is the job's judge; None: it has several, or this server has none such."""
    if len(job.panels) != 1 or len(job.panels[0][0]) != 1 or job.adaptive:
        return None
    ways = (served.desk.way(name) for name in served.desk.names)
    return next((way for way in ways if way.name == job.panels[0][0][0]), None)
