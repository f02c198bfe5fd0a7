"""A real server: llama.cpp's `llama-server` with SmolLM2 in it, asked by the commands and compared with the model here.

    make bench-servers                                        # builds the server first
    make bench-servers-wheel                                  # takes it from the wheel `xllamacpp`, compiles nothing
    python benchmarks/servers.py SERVER [--pairs 100]         # SERVER: llama-server, or a Python that has the wheel

`respond`, `label` (with token probabilities), `label --structured`, `score` and `audit` run against the server as a
user runs them, each with a ledger of its own. Then the same requests go to the server and to `smollm2` in this process,
which has the same file's weights dequantised to float32, and what they say of P(A) is compared. The pairs are LLMBar's
(Natural).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from preceptor.constitution.files import load
from preceptor.judge.errors import ModelError
from preceptor.judge.label import label, template_for
from preceptor.judge.models.local.smollm2 import weights
from preceptor.judge.models.protocol import Completion, Model, Request
from preceptor.judge.models.registry import open_model
from preceptor.judge.pairs import read_pairs
from preceptor.judge.settings import LabelSettings

ROOT = Path(__file__).parent.parent
PAIRS = ROOT / "tests" / "data" / "llmbar" / "dataset_Natural.jsonl.gz"
WHEEL = Path(__file__).with_name("llama_server.py")
"""The server of the wheel, run by the Python that has it."""
LOCAL_WORDS = ROOT / "prompts" / "templates" / "local" / "compare.jinja"
"""Both are asked in the words that the model in this process is asked in."""
PARALLEL = 2
CONTEXT = 8192
"""Tokens of each of the server's slots: what SmolLM2 has."""
STARTING_S = 300
GOAL = 0.02


def main(
    server: Annotated[
        Path, typer.Argument(help="llama.cpp's llama-server, or the Python of an environment with xllamacpp.")
    ],
    pairs: Annotated[int, typer.Option(help="Pairs of LLMBar's.")] = 100,
    threads: Annotated[int, typer.Option(help="Of the server.")] = 2,
) -> None:
    """Run everything and print the tables."""
    with tempfile.TemporaryDirectory() as place, serving(server, threads, Path(place)) as url:
        typer.echo(f"server: {version(server)}, {PARALLEL} slots, {threads} threads; {weights().name}\n")
        typer.echo("| command | rows | outcome | seconds |\n|---|---:|---|---:|")
        for name, words in commands(url, pairs).items():
            typer.echo(run(name, words, Path(place)))
        typer.echo("")
        typer.echo(compared(asyncio.run(asked_both(url, pairs))))


@contextlib.contextmanager
def serving(server: Path, threads: int, place: Path) -> Iterator[str]:
    """The address of the server, once it answers its health check."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        *command(server),
        *(
            "--model",
            str(weights()),
            "--alias",
            "smollm2",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        *(
            "--ctx-size",
            str(PARALLEL * CONTEXT),
            "--parallel",
            str(PARALLEL),
            "--threads",
            str(threads),
            "--jinja",
        ),
    ]
    with (place / "server.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(process, port, place / "server.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as said,
        ):
            if said.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server does not answer:\n{log.read_text()[-2000:]}")


def command(server: Path) -> list[str]:
    """The words that start it, before its flags."""
    return [str(server), str(WHEEL)] if server.name.startswith("python") else [str(server)]


def version(server: Path) -> str:
    """llama.cpp's own word for its version."""
    said = subprocess.run([*command(server), "--version"], capture_output=True, text=True, check=False)
    return next((line for line in (said.stderr + said.stdout).splitlines() if "version" in line), "unknown")


def commands(url: str, pairs: int) -> dict[str, Sequence[object]]:
    """What a user types."""
    limit, judge = (
        ("--limit", pairs),
        ("-c", "helpful-harmless", "--judge", "openai/smollm2", "--base-url", url),
    )
    few = ("--limit", min(pairs, 20))
    return {
        "respond": (
            *("respond", "everyday-held-out", "--model", "openai/smollm2", "--base-url", url, *few),
            *("--samples", 2, "--max-tokens", 96, "--out", "replies.jsonl"),
        ),
        "label": ("label", PAIRS, *judge, *limit, "--template", LOCAL_WORDS, "--out", "labels"),
        "label --structured": ("label", PAIRS, *judge, *few, "--structured", "--out", "structured"),
        "score": ("score", PAIRS, *judge, *few, "--out", "scores.jsonl"),
        "audit": ("audit", PAIRS, *judge, *limit, "--template", LOCAL_WORDS),
    }


def run(name: str, words: Sequence[object], place: Path) -> str:
    """A row of the table: what became of a command. Its ledger is its own, but for `audit`, which looks at label's."""
    ledger = place / f"{'label' if name == 'audit' else name}.db"
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, words), "--ledger", str(ledger), "--json"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    try:
        said = json.loads(ended.stdout)
    except ValueError:
        said = {}
    rows = next((said[key] for key in ("pairs", "replies", "prompts", "n") if key in said), 0)
    kept = {key: value for key, value in _plain(said) if value not in (0, None)}
    outcome = ", ".join(f"{key} {value}" for key, value in kept.items()) or ended.stderr.strip()[-300:]
    return f"| `{name}` | {rows} | exit {ended.returncode}: {outcome} | {seconds:.0f} |"


def _plain(said: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    shown = ("ok", "truncated", "tie", "inconsistent", "refused", "unparsed", "failed", "mean_score")
    for key, value in {**said, **(said.get("responses") or {})}.items():
        if key in (*shown, "accuracy", "flip_rate", "orders_agree"):
            yield key, round(value, 3) if isinstance(value, float) else value


async def asked_both(url: str, pairs: int) -> list[tuple[Completion | None, Completion | None]]:
    """Each request's completion by the server and by the model here; None where there is none."""
    here, there = open_model("smollm2"), open_model("openai/smollm2", base_url=url)
    settings = LabelSettings(template=str(LOCAL_WORDS))
    rules = load("helpful-harmless")
    requests: list[Request] = []
    for pair in islice(read_pairs(PAIRS), pairs):
        requests += next(label(pair, rules, here, template_for(here, settings), settings), ())
    try:
        ours = [await _answer(here, request) for request in requests]
        slots = asyncio.Semaphore(PARALLEL)

        async def served(request: Request) -> Completion | None:
            async with slots:
                asked = {"model": "openai/smollm2", "endpoint": there.endpoint}
                return await _answer(there, request.model_copy(update=asked))

        return list(zip(await asyncio.gather(*map(served, requests)), ours, strict=True))
    finally:
        await here.close()
        await there.close()


async def _answer(model: Model, request: Request) -> Completion | None:
    try:
        return await model.complete(request)
    except ModelError as problem:
        typer.echo(f"{model.name}: {problem}", err=True)
        return None


def compared(answers: Sequence[tuple[Completion | None, Completion | None]]) -> str:
    """How far P(A) differs where both have one."""
    both = [
        (served.probabilities["a"], ours.probabilities["a"])
        for served, ours in answers
        if served and ours and served.probabilities and ours.probabilities
    ]
    if not both:
        return f"no verdict with probabilities in {len(answers)} requests"
    apart = sorted(abs(one - other) for one, other in both)
    within = sum(gap <= GOAL for gap in apart) / len(apart)
    same = sum((one > 0.5) == (other > 0.5) for one, other in both) / len(both)
    worst = apart[-1]
    return (
        "| requests | with P(A) from both | mean difference | median | 95 % | largest | within "
        f"{GOAL} | same side |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        f"| {len(answers)} | {len(both)} | {statistics.mean(apart):.4f} | {statistics.median(apart):.4f} | "
        f"{apart[int(0.95 * (len(apart) - 1))]:.4f} | {worst:.4f} | {within:.0%} | {same:.0%} |"
    )


if __name__ == "__main__":
    typer.run(main)
