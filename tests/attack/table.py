"""The table of bad inputs: every command, with every kind of input that it takes, broken in every way that is known.

A case is a command line in a folder of bad files, and the exit codes that it may end with.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

USAGE, GATE, REFUSED = 2, 1, 4
NOWHERE = "http://127.0.0.1:9/v1"
"""Where nobody listens."""
PAIR = {"prompt": "hi", "response_a": "yes", "response_b": "no", "preferred": "a"}
RESPONSE = {
    "id": "r",
    "prompt": {"id": "p", "messages": [{"role": "user", "content": "hi"}]},
    "text": "yes",
    "model": "m",
    "sample": 0,
    "status": "ok",
    "call": "c",
}
GOOD = {
    "prompts.jsonl": '{"prompt": "hi"}\n',
    "pairs.jsonl": json.dumps(PAIR) + "\n",
    "responses.jsonl": json.dumps(RESPONSE) + "\n",
    "judged.yaml": "name: judged\nprinciples: [{id: a, text: Choose the better.}]\n",
    "ok.yaml": "name: ok\nprinciples:\n  - {id: a, text: Choose., check: {max_words: 5}}\n",
}
"""Files in which nothing is wrong."""


class Case(NamedTuple):
    """A command line and how it may end."""

    name: str
    words: tuple[str, ...]
    codes: frozenset[int]
    environment: Mapping[str, str] = {}


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


ROWS: dict[str, bytes] = {
    "empty.jsonl": b"",
    "blank.jsonl": b"\n\n\n",
    "broken.jsonl": b'{"prompt": "a"}\n{broken\n',
    "cut.jsonl": b'{"prompt": "a", "respo',
    "list.jsonl": b"[1, 2]\n",
    "number.jsonl": b"3\n",
    "null.jsonl": b"null\n",
    "text.jsonl": b'"hello"\n',
    "nul.jsonl": b"\x00" * 50,
    "latin.jsonl": b'{"prompt": "\xff"}\n',
    "utf16.jsonl": '{"prompt": "a"}\n'.encode("utf-16"),
    "deep.jsonl": f'{{"prompt": "a", "meta": {_deep(3000)}}}\n'.encode(),
    "deeper.jsonl": _deep(200_000).encode(),
    "surrogate.jsonl": b'{"prompt": "\\ud800", "response_a": "a", "response_b": "b", "text": "x"}\n',
    "infinite.jsonl": b'{"prompt": "a", "meta": {"x": 1e999}}\n',
    "nan.jsonl": b'{"prompt": "a", "meta": {"x": NaN}}\n',
    "digits.jsonl": b'{"prompt": "a", "meta": {"x": ' + b"9" * 10_000 + b"}}\n",
    "twice.jsonl": b'{"prompt": "a", "prompt": "b"}\n',
    "type.jsonl": b'{"prompt": 3, "response_a": 1, "response_b": []}\n',
    "column.jsonl": b'{"promt": "a"}\n',
    "roles.jsonl": b'{"messages": [{"role": "wizard", "content": "a"}]}\n',
    "nobody.jsonl": b'{"messages": []}\n',
    "parts.jsonl": b'{"messages": [{"role": "user", "content": {"x": 1}}]}\n',
    "cut.jsonl.gz": gzip.compress(b'{"prompt": "a"}\n' * 50)[:20],
    "garbage.jsonl.gz": b"\x1f\x8bgarbage",
    "plain.jsonl.gz": b'{"prompt": "a"}\n',
    "broken.csv": b'prompt,tags\n"a,b\n',
    "cells.csv": b"prompt,response_a\na,b,c,d\n",
    "columns.csv": b"prompt,prompt\na,b\n",
    "deep.csv": b'prompt,messages\n"a","' + b"[" * 3000 + b'"\n',
    "empty.csv": b"",
    "garbage.parquet": b"PAR1garbagePAR1",
    "empty.parquet": b"",
    "broken.json": b'[{"prompt": "a"},',
    "unknown.txt": b"hello\n",
    "\x1b[31m[b]bad.jsonl": b"{broken\n",
}
"""Files of rows that no command can use."""

CONSTITUTIONS: dict[str, bytes] = {
    "empty.yaml": b"",
    "list.yaml": b"- a\n",
    "number.yaml": b"3\n",
    "text.yaml": b"hello\n",
    "broken.yaml": b"name: [\n",
    "tabs.yaml": b"name: x\n\tprinciples: []\n",
    "binary.yaml": bytes(range(256)),
    "nameless.yaml": b"principles: [{id: a, text: b}]\n",
    "none.yaml": b"name: x\nprinciples: []\n",
    "unknown.yaml": b"name: x\ncolour: red\nprinciples: [{id: a, text: b}]\n",
    "slug.yaml": b"name: Not A Slug\nprinciples: [{id: a, text: b}]\n",
    "weight.yaml": b"name: x\nprinciples: [{id: a, text: b, weight: -1}]\n",
    "infinite.yaml": b"name: x\nprinciples: [{id: a, text: b, weight: .inf}]\n",
    "same.yaml": b"name: x\nprinciples: [{id: a, text: b}, {id: a, text: c}]\n",
    "check.yaml": b"name: x\nprinciples: [{id: a, text: b, check: {max_wrds: 3}}]\n",
    "argument.yaml": b"name: x\nprinciples: [{id: a, text: b, check: {max_words: lots}}]\n",
    "pattern.yaml": b"name: x\nprinciples: [{id: a, text: b, check: {forbid: ['(']}}]\n",
    "long.yaml": b"name: x\nprinciples: [{id: a, text: b, check: {forbid: ['" + b"(" * 3000 + b"']}}]\n",
    "circle.yaml": b"name: x\nextends: [circle.yaml]\nprinciples: []\n",
    "away.yaml": b"name: x\nextends: [/etc/passwd]\nprinciples: []\n",
    "up.yaml": b"name: x\nextends: [../../x.yaml]\nprinciples: []\n",
    "gone.yaml": b"name: x\nextends: [gone-away.yaml]\nprinciples: []\n",
    "bomb.yaml": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n".encode() for n in range(9)
    )
    + b"name: x\n",
    "object.yaml": b"name: !!python/object/apply:os.system ['true']\n",
    "deep.yaml": b"name: x\nprinciples: " + b"[" * 3000 + b"\n",
}

RUNS: dict[str, bytes] = {
    "empty": b"",
    "list": b"- a\n",
    "broken": b"out: [\n",
    "deep": b"out: " + b"[" * 3000,
    "binary": bytes(range(256)),
    "keys": b"out: x\ncolour: red\n",
    "types": b"out: x\nmodel: 3\njudge: []\nconstitution: {}\nprompts: nothing\n",
    "negative": b"out: x\nmodel: embedded\njudge: checks\nconstitution: style\nprompts: {file: a}\ndpo: {beta: -1}\n",
    "tag": b"out: !!python/name:os.system x\n",
    "stage": b"out: x\nmodel: embedded\njudge: checks\nconstitution: style\nprompts: {file: a}\nstages: {nobody: }\n",
}

TEMPLATES: dict[str, bytes] = {
    "empty": b"",
    "plain": b"hello",
    "kind": b"---\nkind: nothing\n---\n{{ response_a }}",
    "menu": b"---\nkind: compare\n---\n{{ response_a }}",
    "same": b'---\nkind: compare\nverdict: {a: "x", b: "x"}\n---\n{{ response_a }}',
    "syntax": b'---\nkind: compare\nverdict: {a: "A", b: "B"}\n---\n{{ response_a',
    "slot": b'---\nkind: compare\nverdict: {a: "A", b: "B"}\n---\n{{ nothing }}',
    "raises": b'---\nkind: compare\nverdict: {a: "A", b: "B"}\n---\n{{ 1 / 0 }}{{ response_a }}{{ response_b }}',
    "escape": b'---\nkind: compare\nverdict: {a: "A", b: "B"}\n---\n{{ response_a.__class__.__mro__ }}{{ response_b }}',
    "yaml": b"---\nkind: [\n---\nx",
    "binary": bytes(range(256)),
}

LEDGERS: dict[str, bytes] = {
    "garbage": b"garbage" * 1000,
    "empty-pages": b"SQLite format 3\x00" + b"\x00" * 4000,
    "text": b"hello\n",
    "nul": b"\x00" * 5000,
}

MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "null": b"null",
    "broken": b"{",
    "deep": _deep(100_000).encode(),
    "binary": bytes(range(256)),
    "label": b'{"command": "label"}',
    "run": b'{"kind": "run", "stages": [{}], "files": {"../../x": "0"}}',
    "training": b'{"kind": "dpo", "hashes": {}, "files": {"/etc/passwd": "0"}}',
    "export": b'{"kind": "export", "files": 3}',
}

ADDRESSES = (
    *(
        "notaurl",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://x:99999",
        "http://x y/",
        "http://bob:secret@x/v1",
    ),
    *(
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://\x00",
        "://",
        "http://x:port/",
        "\x1b[31mhttp://x",
        "",
    ),
)

VALUES: tuple[tuple[str, str], ...] = (
    ("--limit", "0"),
    ("--limit", "x"),
    ("--limit", "-1"),
    ("--concurrency", "0"),
    ("--concurrency", "-3"),
    ("--concurrency", "many"),
    ("--max-cost", "-1"),
    ("--max-cost", "free"),
    ("--max-cost", "nan"),
    ("--price", "cheap"),
    ("--price", "1"),
    ("--price", "1,x"),
    ("--price", "-1,1"),
    ("--rpm", "0"),
    ("--rpm", "fast"),
    ("--tpm", "-1"),
    ("--timeout", "0"),
    ("--timeout", "-1"),
    ("--timeout", "soon"),
    ("--max-tokens", "0"),
    ("--max-tokens", "1e9"),
    ("--seed", "x"),
    ("--ledger", "."),
    ("--ledger", "mysql://x"),
    ("--ledger", "sqlite://"),
    ("--ledger", "bad-garbage.db"),
    ("--ledger", "pairs.jsonl"),
    ("--engine", "spark"),
    ("--effort", "lots"),
    ("--map", "x"),
    ("--map", "=y"),
    ("--format", "nothing"),
    ("--colour", "red"),
    ("--engine", ""),
)
"""Flags with values that no command takes."""

LABEL = ("label", "pairs.jsonl", "-c", "ok.yaml", "--judge", "checks", "--out", "out")


def write_files(place: Path) -> None:
    """All bad files, and the good ones, into a folder."""
    for name, text in GOOD.items():
        (place / name).write_text(text)
    for name, content in (ROWS | CONSTITUTIONS).items():
        (place / name).write_bytes(content)
    for name, content in RUNS.items():
        (place / f"run-{name}.yaml").write_bytes(content)
    for name, content in TEMPLATES.items():
        (place / f"{name}.jinja").write_bytes(content)
    for name, content in LEDGERS.items():
        (place / f"bad-{name}.db").write_bytes(content)
    for name, content in MANIFESTS.items():
        (place / f"folder-{name}").mkdir()
        (place / f"folder-{name}" / "manifest.json").write_bytes(content)
    (place / "folder").mkdir()


def table() -> list[Case]:
    """Every case."""
    return [
        *_rows(),
        *_constitutions(),
        *_values(),
        *_others(),
        *_folders(),
        *_ledgers(),
        *_prices(),
        *_serving(),
        *_workbench(),
    ]


def _case(name: str, words: str, *more: str, codes: tuple[int, ...] = (USAGE,)) -> Case:
    return Case(name, (*words.split(), *more), frozenset(codes))


def _rows() -> Iterator[Case]:
    for name in [*ROWS, "gone.jsonl", "folder", "/dev/null/x"]:
        for command in (
            "respond {} --model scripted/none --out out.jsonl",
            "revise {} -c ok.yaml --model scripted/none --out out.jsonl",
            "score {} -c ok.yaml --judge openai/x --base-url http://127.0.0.1:9/v1 --out out.jsonl",
            "label {} -c ok.yaml --judge checks --out out",
            "label {} -c ok.yaml --judge checks --groups circular --out out",
            "label {} -c ok.yaml --judge checks --plan",
            "audit {} -c ok.yaml --judge checks --json",
            "convert {} out.jsonl --to trl",
            "prompts show {}",
            "prompts dedupe {} --out out.jsonl",
            "prompts dedupe prompts.jsonl --out out.jsonl --held-out {}",
            "prompts coverage {} -c ok.yaml",
            "prompts split {} --held-out 0.5 --out out",
            "panel choose {}",
            "label pairs.jsonl -c ok.yaml --judge checks --out out --certify 0.9 --gold {}",
        ):
            head, _, tail = command.partition(" {}")
            yield Case(
                f"rows: {head} {name!r} {tail}", (*head.split(), name, *tail.split()), frozenset({USAGE})
            )


def _prices() -> Iterator[Case]:
    blank = (
        "empty.jsonl",
        "blank.jsonl",
        "null.jsonl",
        "empty.csv",
        "empty.parquet",
    )  # a file without prices yet
    for name in [*(name for name in ROWS if name not in blank), "gone.yaml", "folder"]:
        yield _case(f"prices: check {name}", f"prices check {name}", codes=(1, USAGE))
    for words in ("x", "openai/", "/x"):
        yield _case(f"prices: add {words!r}", "prices add --input 1 --output 1 --file p.yaml", words)
    for value in ("-1", "nan", "inf", "free", ""):
        yield _case(
            f"prices: add --input {value!r}", "prices add openai/x --output 1 --file p.yaml --input", value
        )


def _serving() -> Iterator[Case]:
    """Configurations of a server: none of these files is one."""
    runs = (f"run-{name}.yaml" for name in RUNS)
    for name in dict.fromkeys([*runs, *CONSTITUTIONS, "gone.yaml", "folder", "/dev/zero"]):
        yield _case(f"serve: {name!r}", "serve --port 0 --config", name)
        yield _case(f"keys: list {name!r}", "keys list --config", name)
    for words in ("--port 70000", "--port x", "--host 0.0.0.0.0"):
        yield _case(f"serve: {words}", f"serve --config serve.yaml {words}")
    for place in ("http://x", "postgresql://127.0.0.1:9/x", "sqlite:///", "pairs.jsonl", "folder", ""):
        yield _case(f"work: {place!r}", "work --data jobs --until-idle --database", place)


def _workbench() -> Iterator[Case]:
    """Agents, reward clients, rubrics, people's tools, drift, and what to do next."""
    runs = [f"run-{name}.yaml" for name in RUNS]
    for name in [*runs, "gone.yaml", "folder", "/dev/zero"]:
        yield _case(f"mcp: {name!r}", "mcp --config", name)
    for words in ("--url notaurl", "--url ftp://x", "--port 70000", "--port x"):
        yield _case(f"mcp: {words}", f"mcp {words}")
    for client in ("nobody", "nomodule:function", "json:nothing", "json:", ":x", ""):
        yield _case(f"conform: {client!r}", "conform", client)
    for words in ("http://127.0.0.1:1 --judge-port 0", "http://127.0.0.1:1 --judge-port x"):
        yield _case(f"conform: {words}", f"conform {words}")
    yield _case("conform: no address", "conform http://[ --reward nobody")
    for name in ("gone", "pairs.jsonl", "/dev/null"):
        yield _case(f"next: {name!r}", "next", name)
    for name in [*ROWS, "gone.toml", "folder", "/dev/null/x"]:
        yield _case(f"rubric: {name!r}", f"rubric convert {name} out.yaml")
        yield _case(f"people: import {name!r}", f"people import {name} folder --out out.jsonl")
    for name in [*(f"folder-{name}" for name in MANIFESTS), "folder", "gone", "pairs.jsonl"]:
        yield _case(f"people: export {name!r}", f"people export {name} --to argilla --out out.json")
        yield _case(f"drift: {name!r}", f"drift {name}")


def _constitutions() -> Iterator[Case]:
    for name in [*CONSTITUTIONS, "gone.yml", "folder", "nobody", "/dev/zero", ""]:
        for command in (
            "label pairs.jsonl --judge checks --out out -c",
            "audit pairs.jsonl --judge checks --json -c",
            "revise responses.jsonl --model scripted/none --out out.jsonl -c",
            "score responses.jsonl --judge openai/x --base-url http://127.0.0.1:9/v1 --out out.jsonl -c",
            "constitution show",
            "constitution lint",
            "constitution test --judge checks",
            "constitution diff ok.yaml",
        ):
            yield _case(f"constitution: {command} {name!r}", command, name, codes=(GATE, USAGE))


def _values() -> Iterator[Case]:
    for flag, value in VALUES:
        for command in (
            "respond prompts.jsonl --model openai/x --base-url http://127.0.0.1:9/v1 --out out.jsonl",
            "label pairs.jsonl -c ok.yaml --judge openai/x --base-url http://127.0.0.1:9/v1 --out out",
            "audit pairs.jsonl -c ok.yaml --judge openai/x --base-url http://127.0.0.1:9/v1",
        ):
            yield _case(
                f"value: {command.split()[0]} {flag} {value!r}", command, flag, value, codes=(USAGE, REFUSED)
            )
    asked = "label pairs.jsonl -c judged.yaml --judge openai/x --out out --base-url"
    for address in ADDRESSES:
        yield _case(f"address {address!r}", asked, address, codes=(USAGE, REFUSED))


def _others() -> Iterator[Case]:
    asked = f"label pairs.jsonl -c judged.yaml --judge openai/x --base-url {NOWHERE} --out out --template"
    for name in [*TEMPLATES, "gone"]:
        yield _case(f"template {name}", asked, f"{name}.jinja", codes=(USAGE, REFUSED))
    for gate in (
        "",
        "x",
        "flip_rate >",
        "__import__('os')",
        "flip_rate > 'a'",
        "a.b > 1",
        "(" * 500,
        "1",
        "nothing > 1",
    ):
        for command in (" ".join(LABEL), "audit pairs.jsonl -c ok.yaml --judge checks"):
            if gate:
                yield _case(f"gate {command.split()[0]} {gate[:20]!r}", command, "--fail-if", gate)
    for model in (
        "",
        "x",
        "openai",
        "openai/",
        "opnai/x",
        "hf/./gone",
        "checks",
        "human",
        "embedded/x",
        "\x1b[31m/x",
        "[/]/x",
    ):
        yield _case(
            f"model {model!r}", "respond prompts.jsonl --out out.jsonl --model", model, codes=(USAGE, REFUSED)
        )
        if model not in ("checks",):
            yield _case(f"judge {model!r}", "label pairs.jsonl -c judged.yaml --out out --judge", model,
                        codes=(USAGE, REFUSED))  # fmt: skip
    for words in (
        "respond prompts.jsonl --model scripted/none --out prompts.jsonl",
        "respond prompts.jsonl --model scripted/none -o ./prompts.jsonl",
        "respond prompts.jsonl --model scripted/none --out=prompts.jsonl",
        "revise responses.jsonl -c ok.yaml --model scripted/none --out ok.yaml",
        "score responses.jsonl -c ok.yaml --judge checks --out responses.jsonl",
        "label pairs.jsonl -c ok.yaml --judge checks --out pairs.jsonl",
        "label pairs.jsonl -c ok.yaml --judge checks --out ok.yaml",
        "convert pairs.jsonl pairs.jsonl --to trl",
        "respond prompts.jsonl --model scripted/none --out folder",
        "respond prompts.jsonl --model scripted/none --out ok.yaml/x",
        "label pairs.jsonl -c ok.yaml --judge checks --out ok.yaml/x",
        "label pairs.jsonl -c ok.yaml --out out",
        "label pairs.jsonl -c ok.yaml --judge checks",
        "label pairs.jsonl --judge checks --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --judge checks --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --when x --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --canaries 2% --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --canaries lots --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --clamp 0.4,0.6 --out out",
        "label pairs.jsonl -c ok.yaml --judge checks --clamp x --out out",
        "convert pairs.jsonl out.jsonl --to nothing",
        "convert pairs.jsonl out.nothing --to trl",
        "constitution new ok.yaml",
        "constitution nothing",
        "nothing",
        "verify",
        "verify gone",
        "prompts show gone",
        "prompts dedupe prompts.jsonl --out out.jsonl --threshold 0",
        "prompts dedupe prompts.jsonl --out out.jsonl --threshold nan",
        "prompts dedupe prompts.jsonl prompts.jsonl --out out.jsonl",
        "prompts dedupe prompts.jsonl --out prompts.jsonl",
        "prompts dedupe prompts.jsonl --out out.jsonl --dropped prompts.jsonl",
        "prompts dedupe prompts.jsonl --out out.jsonl --dropped out.jsonl",
        "prompts coverage prompts.jsonl -c ok.yaml --labels gone",
        "prompts coverage prompts.jsonl -c ok.yaml --labels folder",
        "prompts coverage prompts.jsonl -c broken.yaml",
        "prompts split prompts.jsonl --held-out 0 --out out",
        "prompts split prompts.jsonl --held-out nan --out out",
        "prompts split prompts.jsonl --held-out 0.5 --out pairs.jsonl",
        "prompts split prompts.jsonl --held-out 0.5 --out out --by time",
        "prompts split prompts.jsonl --held-out 0.5 --out out --by time --time gone",
        "constitution show gone",
    ):
        yield _case(f"words: {words}", words, codes=(USAGE, REFUSED))
    for name in ("broken.jsonl", "gone.jsonl", "empty.jsonl", "type.jsonl"):
        sides = (
            f"evaluate --policy openai/x --baseline openai/y --base-url {NOWHERE} --judge checks -c ok.yaml"
        )
        yield _case(f"rows: evaluate {name}", f"{sides} --prompts {name}")
    for words in (("init", "pairs.jsonl"), ("init", "/dev/null/x")):
        yield Case(f"words: {' '.join(words)}", words, frozenset({USAGE}))


def _folders() -> Iterator[Case]:
    for name in [*(f"folder-{name}" for name in MANIFESTS), "folder", "gone", "pairs.jsonl"]:
        yield _case(f"folder: verify {name}", "verify", name, codes=(GATE, USAGE))
        yield _case(f"folder: verify --json {name}", "verify --json", name, codes=(GATE, USAGE))
        yield _case(f"folder: label into {name}", "constitution ablate ok.yaml --judge checks --on", name,
                    codes=(USAGE,))  # fmt: skip
        yield _case(f"folder: panel choose {name}", "panel choose", name)


def _ledgers() -> Iterator[Case]:
    for name in [
        *(f"bad-{name}.db" for name in LEDGERS),
        "gone.db",
        "folder",
        "pairs.jsonl",
        "mysql://x/y",
        "sqlite://",
    ]:
        for command in ("show", "show abc", "bill", "export", "prune --failed", "batches"):
            yield _case(f"ledger: {command} {name}", f"ledger {command} --ledger", name)
    yield _case("ledger: bill by nothing", "ledger bill --by nothing")


def training() -> list[Case]:
    """Cases of the commands that import torch, which take longer."""
    cases = []
    for name in [*ROWS, "gone.jsonl", "folder"]:
        for stage in ("sft", "reward", "dpo", "kto"):
            words = ("train", stage, name, "--model", "embedded", "--out", "out")
            cases.append(Case(f"train {stage} {name!r}", words, frozenset({USAGE})))
    for name in RUNS:
        cases.append(_case(f"run {name}", f"run run-{name}.yaml"))
        cases.append(_case(f"run {name} --plan", f"run run-{name}.yaml --plan"))
    for override in ("label={", "x", "=3", "dpo.beta=-1", "a.b.c=1", "prompts=" + "[" * 3000, "out=\x00"):
        cases.append(_case(f"override {override[:20]!r}", "run run-keys.yaml", override))
    for name in [*(f"folder-{name}" for name in MANIFESTS), "folder", "gone", "pairs.jsonl"]:
        for command in ("report", "export --format merged --out out"):
            cases.append(_case(f"folder: {command} {name}", command, name))
    return cases
