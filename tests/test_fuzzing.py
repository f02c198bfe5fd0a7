"""Whatever comes in, a reader gives a value or one of the listed errors, and never another exception.

What once broke a reader stays here as an example.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import ConstitutionError, UserError
from preceptor.constitution.files import load_text
from preceptor.constitution.principle import Constitution
from preceptor.folder import read_json
from preceptor.judge.errors import ModelError
from preceptor.judge.models import door
from preceptor.judge.models.anthropic import codec as anthropic
from preceptor.judge.models.http.faults import FaultContext, error_of, fault_of, status_in
from preceptor.judge.models.http.waits import LONGEST_S, allowances, wait_s
from preceptor.judge.models.openai import codec as openai
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.pairs import read_groups, read_pairs
from preceptor.prompts import template, verdict
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.pool import read_prompts
from preceptor.prompts.records import Message
from preceptor.train.data.readers import read_demonstrations, read_preferences

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\0", "\ud800", "user", "assistant", "A", "Verdict: A", "1e999"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
# fmt: off
COLUMN_NAMES = (
    "prompt", "chosen", "rejected", "messages", "response_a", "response_b", "responses", "preferred",
    "label", "id", "tags", "role", "content", "text", "instruction", "input", "output",
    "conversations", "from", "value", "question", "answer", "completion", "completions", "score",
    "system", "margin", "probability", "choices", "error", "usage", "message", "detail", "retry_after",
)
# fmt: on
COLUMNS = st.sampled_from(COLUMN_NAMES)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(COLUMNS | TEXT, inner, max_size=4),
    max_leaves=12,
)
ROWS = st.dictionaries(COLUMNS | TEXT, VALUES, max_size=5)
REQUEST = Request(
    model="openai/m", messages=(Message(role="user", content="?"),), max_tokens=9, menu={"a": "A", "b": "B"}
)
READERS = (read_prompts, read_pairs, read_groups, read_preferences, read_demonstrations)


def lines_of(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_all(path: Path) -> None:
    """By every reader of rows."""
    for reader in READERS:
        try:
            found = reader(path)
            for _ in found if isinstance(found, Iterator) else ():
                pass
        except UserError:
            pass


@FEW
@given(rows=st.lists(ROWS, min_size=1, max_size=3), ending=st.sampled_from([".jsonl", ".json"]))
@example(rows=[{"prompt": "\ud800", "chosen": "a", "rejected": "b"}], ending=".jsonl")
@example(rows=[{"messages": [{"role": "user", "content": float("nan")}]}], ending=".jsonl")
@example(rows=[{"prompt": [{"content": "?"}], "chosen": {"role": []}, "rejected": []}], ending=".json")
def test_rows_of_json(tmp_path: Path, rows: list[Any], ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(lines_of(rows) if ending == ".jsonl" else json.dumps(rows).encode())
    read_all(path)


@FEW
@given(
    raw=st.binary(max_size=80), ending=st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz"])
)
@example(raw=b"[" * 5000, ending=".json")
@example(raw=b'{"prompt": ' + b"9" * 5000 + b"}", ending=".jsonl")
@example(raw=b"PAR1\0\0\0\0PAR1", ending=".parquet")
@example(raw=b"\x1f\x8b\x08\0\0", ending=".jsonl.gz")
def test_rows_of_bytes(tmp_path: Path, raw: bytes, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(raw)
    read_all(path)


@FEW
@given(text=st.text(alphabet='prompt,chosen"rejected\n[]{}:\0\r', max_size=80))
@example(text='prompt,chosen,rejected\n"a\0",b,c\n')
@example(text='messages\n"[{""role"": 1}]"\n')
def test_rows_of_csv(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected\n" + text)
    read_all(path)


@FEW
@given(column=st.lists(VALUES, min_size=1, max_size=3))
def test_rows_of_parquet(tmp_path: Path, column: list[Any]) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    try:
        table = arrow.table({"prompt": column, "chosen": column, "rejected": column})
        parquet.write_table(table, tmp_path / "rows.parquet")
    except (arrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        return  # no column can hold it
    read_all(tmp_path / "rows.parquet")


@given(
    reply=st.text(max_size=200),
    menu=st.sampled_from([{"a": "A", "b": "B"}, {"a": "Yes", "b": "No", "tie": "Tie"}]),
)
@example(reply="Verdict: " * 500, menu={"a": "A", "b": "B"})
@example(reply="\ud800*_`A", menu={"a": "A", "b": "B"})
def test_a_verdict_is_one_of_the_menu_or_none(reply: str, menu: dict[str, str]) -> None:
    found = verdict.parse(reply, menu)
    assert isinstance(found, verdict.Unparsed) or found.letter in menu


@FEW
@given(st.text(max_size=60) | st.text(alphabet="{}%#- \nblockendifor|x()[]'\"", max_size=80))
@example("---\nmenu: 1\n---\n{% block user %}{{ 9 ** 9 ** 9 }}{% endblock %}")
@example("{% block user %}{% for a in b recursive %}{{ loop(a) }}{% endfor %}{% endblock %}")
@example("---\n- \n---\n")
def test_a_template(text: str) -> None:
    with contextlib.suppress(TemplateError):
        template.parse("compare", text)


@FEW
@given(
    st.text(max_size=80)
    | st.text(alphabet="name: principles-\nid text[]{}&*!|>'\"#%@`0129.e~", max_size=120)
    | st.dictionaries(st.sampled_from(["name", "principles", "extends", "description"]), VALUES).map(
        json.dumps
    )
)
@example("name: 2001-99-99")
@example("name: !!int x\nprinciples: []")
@example("name: " + "9" * 5000)
@example("name: !!float x")
@example("name: !!bool x")
@example("&a [*a]")
@example("name: !!binary '='")
@example("%YAML 9.9\n---\nname: a")
@example("? [a]\n: b")
@example("a: 1\nb\t: 2")
def test_a_constitution(text: str) -> None:
    with contextlib.suppress(ConstitutionError):
        assert isinstance(load_text(text, Path("here.yaml")), Constitution)


@FEW
@given(manifest=st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(manifest=b"[]")
@example(manifest=b'{"files": 3}')
@example(manifest=b"\xff")
@example(manifest=b"[" * 5000)
def test_a_manifest(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(manifest)
    with contextlib.suppress(UserError):
        assert isinstance(read_json(tmp_path / "manifest.json"), dict)


@given(
    headers=st.dictionaries(
        st.sampled_from(
            [
                "retry-after",
                "retry-after-ms",
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ]
        ),
        st.text(max_size=20) | st.floats().map(str) | st.integers().map(str),
    ),
    body=VALUES,
)
@example(headers={"retry-after": "9" * 400}, body=None)
@example(headers={"retry-after": "Mon, 30 Nov 99999 00:00:00 GMT"}, body={"error": [[]]})
@example(headers={"retry-after": "1e400"}, body={"retry_after": {}})
def test_headers_and_the_body_of_a_refusal(headers: dict[str, str], body: Any) -> None:
    asked = wait_s(headers, body, str(body), NOW)
    assert asked is None or 0 <= asked <= LONGEST_S
    assert all(0 <= one.remaining <= one.limit for one in allowances(headers, NOW).values())
    context = FaultContext("openai", "openai/m", "KEY")
    error = error_of(fault_of(context, status_in(body), body, headers))
    assert isinstance(error, ModelError)
    assert str(error).encode()


@given(raw=st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(raw=b"[" * 100_000)
@example(raw=b"9" * 5000)
@example(raw=b'{"choices": [{"message": {"content": "\\ud800"}}]}')
@example(raw=b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 1e999}}')
@example(raw=b'{"content": [{"type": "text", "text": {}}], "usage": {"input_tokens": -1}}')
def test_the_body_of_a_reply(raw: bytes) -> None:
    try:
        body = door.json_of(raw)
    except ValueError:
        return
    for codec in (openai, anthropic):
        try:
            made = codec.completion_of(body, REQUEST, FaultContext("p", "openai/m", "KEY"))
        except ModelError:
            continue
        assert isinstance(made, Completion)
        assert made.model_dump_json().encode()
        assert 0 <= made.tokens_in <= door.MOST_TOKENS
