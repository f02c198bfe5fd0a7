"""How long pages over many labels take: python benchmarks/pages.py [--labels 100000] [--times 20].

Labels of about 1.5 KB are written, `preceptor serve` is started over them, and pages are asked for over HTTP as a
browser asks. Said are the time that the index took, and of each page how long it took the first
time, when its count is not known yet, then the median and the slowest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import httpx

CONFIG = """
models: {script: {model: scripted/judge.jsonl}}
constitutions: {own: own.yaml}
rewards: {good: {judge: script, constitution: own}}
labels: {many: {path: labels.jsonl, constitution: own}}
"""
OWN = """name: own
principles:
  - {id: short, text: Choose the reply that is shorter.}
  - {id: polite, text: Choose the reply that is politer.}
"""
MAIN = "from preceptor.cli.app import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.labels)
        words = [sys.executable, "-c", MAIN, "serve", "--port", "0", "--config", "serve.yaml"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert server.stdout is not None
        try:
            with httpx.Client(base_url=server.stdout.readline().strip(), timeout=600) as client:
                measure(client, given.labels, given.times)
        finally:
            server.terminate()
            server.wait()


def write(folder: Path, count: int) -> None:
    """A configuration, and its labels."""
    from preceptor.constitution.files import load

    (folder / "serve.yaml").write_text(CONFIG)
    (folder / "own.yaml").write_text(OWN)
    (folder / "judge.jsonl").write_text(json.dumps({"match": "", "text": "Verdict: A"}) + "\n")
    identity = load(str(folder / "own.yaml")).identity
    drawn = random.Random(0)
    words = [f"word{number}" for number in range(3000)]
    with (folder / "labels.jsonl").open("w") as stream:
        for number in range(count):
            a, b = (" ".join(drawn.choices(words, k=drawn.randrange(20, 60))) for _ in "ab")
            p = round(drawn.random(), 3)
            judgements = [
                {
                    "principle": principle,
                    "order": order,
                    "letter": "a" if p > 0.5 else "b",
                    "probability": p,
                    "status": "ok",
                    "reason": "",
                    "model": "scripted",
                    "call": f"{number:032x}",
                }
                for principle in ("short", "polite")
                for order in ("original", "swapped")
            ]
            row = {
                "id": f"pair-{number}",
                "status": "ok" if p != 0.5 else "tie",
                "probability": p,
                "prompt": {
                    "id": f"prompt-{number}",
                    "messages": [
                        {"role": "user", "content": f"{number} {' '.join(drawn.choices(words, k=12))}"}
                    ],
                    "tags": [f"tag{number % 20}"],
                },
                "response_a": a,
                "response_b": b,
                "judgements": judgements,
                "constitution": identity,
                "judge": "scripted",
            }
            stream.write(json.dumps(row) + "\n")


def measure(client: httpx.Client, count: int, times: int) -> None:
    """Print a table."""
    started = time.perf_counter()
    while "being indexed" in client.get("/pairs/many").text:
        time.sleep(1)
    print(f"{count:,} labels, indexed in {time.perf_counter() - started:.0f} s", flush=True)  # noqa: T201
    client.get("/pairs/many/pair", params={"id": "pair-1"})
    for told, path in (
        ("first page", "/pairs/many"),
        ("page in the middle", f"/pairs/many?after={count // 2}"),
        ("page before the last", f"/pairs/many?before={count}"),
        ("least sure first", "/pairs/many?sort=least+sure"),
        ("least sure, in the middle", f"/pairs/many?sort=least+sure&after={count // 2}"),
        ("longest difference first", "/pairs/many?sort=longest+difference"),
        ("a tag", "/pairs/many?tag=tag7"),
        ("a status and a margin", "/pairs/many?status=ok&least=0.9"),
        ("a principle", "/pairs/many?principle=short"),
        ("longer reply lost", "/pairs/many?longer=lost"),
        ("a rare word", "/pairs/many?text=word2999"),
        ("a beginning that most have", "/pairs/many?text=word7"),
        ("two words and a tag", "/pairs/many?text=word7+word8&tag=tag3"),
        ("a pair", f"/pairs/many/pair?id={quote(f'pair-{count // 2}')}"),
        ("a pair among the least sure", f"/pairs/many/pair?id=pair-{count // 3}&sort=least+sure"),
    ):
        took_s = []
        for _ in range(times + 1):
            at = time.perf_counter()
            answer = client.get(path)
            took_s.append(time.perf_counter() - at)
            assert answer.status_code == 200, answer.text
        first_s = took_s.pop(0)
        first, middle, most = (1000 * one for one in (first_s, statistics.median(took_s), max(took_s)))
        figures = f"first {first:6.0f} ms   then median {middle:6.0f} ms   slowest {most:6.0f} ms"
        print(f"{told:30} {figures}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
