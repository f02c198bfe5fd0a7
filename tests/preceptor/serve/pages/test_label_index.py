"""An index finds what a look at every label would find, and its pages hold each of them once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load_text
from preceptor.judge.aggregate import winner
from preceptor.judge.records import Judgement, Label, Status
from preceptor.prompts.records import Message, Prompt
from preceptor.serve.pages import label_index
from preceptor.serve.pages.label_index import BeingIndexed, LabelFilters, LabelIndex, LabelIndexes

CONSTITUTION = load_text(
    """name: c
principles:
  - {id: short, text: shorter, weight: 3}
  - {id: polite, text: politer}
""",
    Path("c.yaml"),
)
WORDS = ("lift", "stairs", "bar", "Grüße", "floor-2", "o'clock")


def labels(n: int = 60) -> list[Label]:
    drawn = random.Random(7)
    made = []
    for number in range(n):
        p = drawn.choice([0.1, 0.25, 0.4, 0.5, 0.6, 0.9, None])
        statuses: dict[bool, tuple[Status, ...]] = {
            True: ("failed", "refused", "unparsed"),
            False: ("ok", "ok", "inconsistent"),
        }
        status = "tie" if p == 0.5 else drawn.choice(statuses[p is None])
        judgements = [
            Judgement(
                principle=name,
                order=order,
                letter=winner(one),
                probability=one,
                status="ok",
                reason="",
                model="m",
                call=f"{number}",
            )
            for name in ("short", "polite")
            for order in ("original", "swapped")
            for one in [drawn.choice([0.1, 0.9])]
            if p is not None
        ]
        made.append(
            Label(
                id=f"pair/{number}",
                status=status,
                probability=p,
                prompt=Prompt(
                    id=f"p{number}",
                    messages=(Message(role="user", content=" ".join(drawn.choices(WORDS, k=2))),),
                    tags=tuple(drawn.sample(["x", "y", "z"], drawn.randrange(3))),
                ),
                response_a="a" * drawn.randrange(1, 9),
                response_b="b" * drawn.randrange(1, 9),
                preferred=drawn.choice(["a", "b", None]),
                judgements=tuple(judgements),
                constitution=CONSTITUTION.identity,
                judge="m",
                models=("tuned", ("base", "tuned")[number % 2]) if number % 3 else None,
            )
        )
    return made


ROWS = labels()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelIndex]:
    folder = tmp_path_factory.mktemp("index")
    (folder / "labels.jsonl").write_text("".join(f"{row.line()}\n" for row in ROWS), encoding="utf-8")
    indexes = LabelIndexes(folder / "indexes")
    found = indexes.of(folder / "labels.jsonl", CONSTITUTION, wait_s=600)
    assert isinstance(found, LabelIndex)
    yield found
    indexes.close()


def margin(row: Label) -> float | None:
    return None if row.probability is None else abs(2 * row.probability - 1)


def longer_won(row: Label) -> bool | None:
    apart = len(row.response_a) - len(row.response_b)
    if row.probability is None or row.status != "ok" or winner(row.probability) == "tie" or not apart:
        return None
    return (winner(row.probability) == "a") == (apart > 0)


def flips(row: Label) -> bool:
    letters: dict[str, set[str | None]] = {}
    for one in row.judgements:
        letters.setdefault(one.principle, set()).add(one.letter)
    return any({"a", "b"} <= some for some in letters.values())


WAYS: list[tuple[LabelFilters, Callable[[Label], bool]]] = [
    (LabelFilters(), lambda _: True),
    (LabelFilters(status="ok"), lambda row: row.status == "ok"),
    (LabelFilters(tag="y"), lambda row: "y" in row.prompt.tags),
    (LabelFilters(source="base"), lambda row: "base" in (row.models or ())),
    (LabelFilters(source="nobody"), lambda _: False),
    (LabelFilters(principle="polite"), lambda row: bool(row.judgements)),
    (LabelFilters(least=0.5), lambda row: (margin(row) or 0) >= 0.5),
    (LabelFilters(most=0.5), lambda row: margin(row) is not None and (margin(row) or 0) <= 0.5),
    (LabelFilters(longer="won"), lambda row: longer_won(row) is True),
    (LabelFilters(longer="lost"), lambda row: longer_won(row) is False),
    (LabelFilters(apart=4), lambda row: abs(len(row.response_a) - len(row.response_b)) >= 4),
    (LabelFilters(orders=True), flips),
    (
        LabelFilters(gold=True),
        lambda row: (
            row.preferred is not None
            and row.status == "ok"
            and row.probability is not None
            and winner(row.probability) != row.preferred
        ),
    ),
    (LabelFilters(text="stairs"), lambda row: "stairs" in row.prompt.messages[0].content),
    (LabelFilters(text="grüß"), lambda row: "Grüße" in row.prompt.messages[0].content),
    (LabelFilters(text='" OR lift*) --'), lambda _: False),
    (LabelFilters(text="o'clock"), lambda row: "o'clock" in row.prompt.messages[0].content),
    (
        LabelFilters(status="ok", tag="x", orders=True),
        lambda row: row.status == "ok" and "x" in row.prompt.tags and flips(row),
    ),
]


@pytest.mark.parametrize(("wanted", "is_one"), WAYS, ids=[str(wanted.query()) for wanted, _ in WAYS])
def test_it_finds_what_a_look_at_every_label_finds(
    index: LabelIndex, wanted: LabelFilters, is_one: Callable[[Label], bool]
) -> None:
    found = index.numbers(wanted)
    assert found == [number for number, row in enumerate(ROWS, start=1) if is_one(row)]
    assert index.count(wanted) == len(found)


@pytest.mark.parametrize("sort", label_index.SORTS)
def test_pages_hold_every_label_once_in_order_and_lead_back(
    index: LabelIndex, sort: label_index.Sort
) -> None:
    wanted = LabelFilters(sort=sort)
    whole = [row.number for row in index.page(wanted, limit=1000)]
    assert len(whole) == index.count(wanted)
    forward: list[int] = []
    while page := index.page(wanted, after=forward[-1] if forward else None, limit=7):
        forward += [row.number for row in page]
    assert forward == whole
    back: list[int] = [whole[-1]]
    while page := index.page(wanted, before=back[0], limit=7):
        back = [row.number for row in page] + back
    assert back == whole
    key = {
        "file": lambda _, number: number,
        "least sure": lambda row, number: (margin(row), number),
        "surest": lambda row, number: (-(margin(row) or 0), -number),
        "longest difference": lambda row, number: (-abs(len(row.response_a) - len(row.response_b)), -number),
    }[sort]
    known = [
        (number, row)
        for number, row in enumerate(ROWS, start=1)
        if "sure" not in sort or margin(row) is not None
    ]
    assert whole == [number for number, row in sorted(known, key=lambda one: key(one[1], one[0]))]


def test_a_label_is_read_from_its_own_file(index: LabelIndex) -> None:
    for number in (1, 17, len(ROWS)):
        assert index.label(number) == ROWS[number - 1]
        assert index.number_of(ROWS[number - 1].id) == number
    assert index.label(len(ROWS) + 1) is None
    assert index.number_of("none") is None


def test_which_principle_decided_is_known_with_its_constitution_alone(
    index: LabelIndex, tmp_path: Path
) -> None:
    assert index.facts.decided
    heavy = index.count(LabelFilters(principle="short", decided=True))
    assert 0 < heavy < index.count(LabelFilters(principle="short"))
    indexes = LabelIndexes(tmp_path)
    (tmp_path / "labels.jsonl").write_text(f"{ROWS[0].line()}\n")
    found = indexes.of(tmp_path / "labels.jsonl", None, wait_s=600)
    assert isinstance(found, LabelIndex)
    assert not found.facts.decided
    indexes.close()


def test_it_is_made_once_for_a_content_and_anew_for_another(tmp_path: Path) -> None:
    path, other = tmp_path / "labels.jsonl", tmp_path / "same.jsonl"
    lines = [row.line() for row in ROWS[:3]]
    path.write_text("\n".join(["{}", lines[0], "", "no JSON", *lines[1:]]))
    other.write_bytes(path.read_bytes())
    indexes = LabelIndexes(tmp_path / "indexes")
    found = indexes.of(path, None, wait_s=600)
    assert isinstance(found, LabelIndex)
    assert (found.facts.rows, found.facts.bad_rows, found.facts.bad) == (3, 2, [1, 4])
    assert [row.number for row in found.page(LabelFilters())] == [2, 5, 6]
    assert found.label(5) == ROWS[1]
    assert indexes.of(path, None, wait_s=600) is found
    indexes.of(other, None, wait_s=600)
    assert len(list((tmp_path / "indexes").iterdir())) == 1
    path.write_text(f"{lines[0]}\n")
    with pytest.raises(UserError, match="have changed since"):
        found.label(6)
    again = indexes.of(path, None, wait_s=600)
    assert isinstance(again, LabelIndex)
    assert again.facts.rows == 1
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        indexes.of(path, None)
    indexes.close()


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{ROWS[0].line()}\n")
    indexes = LabelIndexes(tmp_path / "indexes")
    first = indexes.of(path, None, wait_s=0)
    assert isinstance(first, BeingIndexed | LabelIndex)
    assert isinstance(indexes.of(path, None, wait_s=600), LabelIndex)
    indexes.close()
