"""Prompts without near-duplicates, across files, and without those that are near a held-out prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from preceptor.prompts.errors import RowsError
from preceptor.prompts.near import NearIndex, said, system_of
from preceptor.prompts.records import Prompt, Record
from preceptor.prompts.rows import writing
from preceptor.prompts.seen import SeenIds

Leakage = Literal["refuse", "drop", "keep"]
"""What becomes of a prompt that is near a held-out one. `refuse` writes nothing in the end, as `drop` would."""


class Source(NamedTuple):
    """Prompts, and the name of the file that they come from."""

    name: str
    prompts: Iterable[Prompt]


class NearDuplicate(Record):
    """A prompt that is near one that came before it, or a held-out one."""

    id: str
    file: str
    of: str
    """Id of the prompt that it is near: the first such."""
    of_file: str
    jaccard: float
    """Share of the shingles of both that both have."""
    leak: bool
    """Whether `of` is a held-out prompt."""
    kept: bool
    """Only a leak can be."""


def deduplicated(
    sources: Iterable[Source],
    held_out: Iterable[Source],
    threshold: float,
    leakage: Leakage,
    tell: Callable[[NearDuplicate], None],
) -> Iterator[Prompt]:
    """The prompts that are kept, in order. `tell` is told of every near-duplicate.

    A prompt is dropped if it is near one that was kept before it and has the same system messages. For a leak system
    messages do not matter. Raises RowsError where two kept prompts of different files have one id.
    """
    seen, places = SeenIds(), list[tuple[str, str]]()
    systems = list[int]()
    with NearIndex(threshold) as kept, NearIndex(threshold) as apart:
        secret = list[tuple[str, str]]()
        for source in held_out:
            for prompt in source.prompts:
                apart.add(apart.sketch(said(prompt)))
                secret.append((prompt.id, source.name))
        for source in sources:
            for prompt in source.prompts:
                sketch = kept.sketch(said(prompt))
                leak = next(apart.near(sketch), None)
                if leak is not None:
                    tell(_near(prompt, source, secret[leak.number], leak.jaccard, True, leakage == "keep"))
                    if leakage != "keep":
                        continue
                system = hash(system_of(prompt))
                twin = next((one for one in kept.near(sketch) if systems[one.number] == system), None)
                if twin is not None:
                    tell(_near(prompt, source, places[twin.number], twin.jaccard, False, False))
                    continue
                before = seen.add(prompt.id, len(places))
                if before is not None:
                    raise RowsError(
                        f"the id {prompt.id!r} stands in {places[before][1]} and in {source.name}, for prompts that "
                        "differ; wanted ids that differ, or none"
                    )
                kept.add(sketch)
                places.append((prompt.id, source.name))
                systems.append(system)
                yield prompt


def _near(
    prompt: Prompt, source: Source, of: tuple[str, str], jaccard: float, leak: bool, kept: bool
) -> NearDuplicate:
    identity, file = of
    return NearDuplicate(
        id=prompt.id, file=source.name, of=identity, of_file=file, jaccard=jaccard, leak=leak, kept=kept
    )


class FileCounts(TypedDict):
    """What became of the prompts of one file."""

    file: str
    prompts: int
    kept: int
    duplicates: int
    leaks: int
    """Near a held-out prompt; with `--leakage keep` they are among those kept or the duplicates too."""


class DedupeFigures(TypedDict):
    """What `prompts dedupe --json` prints."""

    out: str | None
    """None where nothing was written, because leakage was refused."""
    threshold: float
    leakage: Leakage
    prompts: int
    kept: int
    duplicates: int
    leaks: int
    held_out: int
    held_out_leaked: int
    """Held-out prompts that some prompt is near, by the first that each is near."""
    files: list[FileCounts]


class _RefusedError(Exception):
    """Nothing is to be written."""


def write_deduplicated(
    sources: Sequence[Source],
    held_out: Sequence[Source],
    out: Path,
    threshold: float,
    leakage: Leakage,
    tell: Callable[[NearDuplicate], None],
) -> DedupeFigures:
    """Write what is kept, or nothing where there are leaks and they are refused. The names of sources differ."""
    counts = {source.name: Counter[str]() for source in sources}
    total: Counter[str] = Counter()
    leaked: set[tuple[str, str]] = set()

    def told(near: NearDuplicate) -> None:
        counts[near.file]["leaks" if near.leak else "duplicates"] += 1
        if near.leak:
            leaked.add((near.of_file, near.of))
        tell(near)

    def counted(source: Source, key: str, count: Counter[str]) -> Source:
        def prompts() -> Iterator[Prompt]:
            for prompt in source.prompts:
                count[key] += 1
                yield prompt

        return Source(source.name, prompts())

    read = [counted(source, "prompts", counts[source.name]) for source in sources]
    apart = [counted(source, "held_out", total) for source in held_out]
    refused = False
    try:
        with writing(out) as write:
            for prompt in deduplicated(read, apart, threshold, leakage, told):
                write(prompt)
                total["kept"] += 1
            if leaked and leakage == "refuse":
                raise _RefusedError
    except _RefusedError:
        refused = True
    files = [_counts(name, count, leakage) for name, count in counts.items()]
    return {
        "out": None if refused else str(out),
        "threshold": threshold,
        "leakage": leakage,
        "prompts": sum(one["prompts"] for one in files),
        "kept": total["kept"],
        "duplicates": sum(one["duplicates"] for one in files),
        "leaks": sum(one["leaks"] for one in files),
        "held_out": total["held_out"],
        "held_out_leaked": len(leaked),
        "files": files,
    }


def _counts(name: str, count: Counter[str], leakage: Leakage) -> FileCounts:
    gone = count["duplicates"] + (0 if leakage == "keep" else count["leaks"])
    return {
        "file": name,
        "prompts": count["prompts"],
        "kept": count["prompts"] - gone,
        "duplicates": count["duplicates"],
        "leaks": count["leaks"],
    }
