"""Labelling through 30 % faults of every kind, against the same run without any.

    python benchmarks/chaos.py [--pairs N] [--concurrency N] [--latency S] [--seed N]

The shares, of all requests: 429 with Retry-After 10 %, 500 5 %, dropped connections 3 %, broken JSON 3 %, 503, 529,
empty and truncated replies 2 % each, a page of HTML, garbage, refusals and rejected requests (400) 0.25 to 0.5 % each,
and replies that are two seconds late 0.1 %. Every comparison must end in a row: `ok` or `inconsistent` as in the
faultless run, or with the status that says what befell it. Throughput counts comparisons a second. Needs the
repository's tests/ beside benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

SHARES = {
    "429": 0.10,
    "500": 0.05,
    "drop": 0.03,
    "badjson": 0.03,
    "503": 0.02,
    "529": 0.02,
    "empty": 0.02,
    "truncate": 0.02,
    "html": 0.0025,
    "garbage": 0.0025,
    "refusal": 0.0025,
    "400": 0.0015,
    "slow": 0.001,
}
"""Kind of fault -> share of the requests; of the harmful ones that no second try mends there are few, so that their
rows can be told apart."""


def planned(count: int, seed: int) -> list[str]:
    """What befalls each of so many requests."""
    draw = random.Random(seed)
    kinds = [*SHARES, "ok"]
    weights = [*SHARES.values(), 1 - sum(SHARES.values())]
    return draw.choices(kinds, weights, k=count)


def run(pairs: Path, faults: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """`preceptor label` as a person starts it, in a process of its own; what the server has seen, and the rows."""
    import httpx2

    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "faults.json"
        plan.write_text(json.dumps(faults))
        program = (
            "import json, pathlib, threading; from tests.servers.llm import LLMServer, serve\n"
            f"faults = json.loads(pathlib.Path({str(plan)!r}).read_text())\n"
            f"server = LLMServer(latency_s={options.latency}, slow_s=2, faults=faults, retry_after='1')\n"
            "with serve(server) as running:\n"
            "    print(running.url, flush=True); threading.Event().wait()"
        )
        server = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            words = [
                "label",
                str(pairs),
                "-c",
                "style",
                "--judge",
                "openai/fake",
                "--base-url",
                url,
                "--json",
            ]
            words += ["--reasoning", "--concurrency", str(options.concurrency), "--out", f"{folder}/out"]
            words += ["--ledger", f"{folder}/ledger.db"]
            code = "import sys; from preceptor.cli.app import main; sys.argv[0] = 'preceptor'; main()"
            started = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
            )
            wall_s = time.perf_counter() - started
            if ended.returncode:
                raise SystemExit(f"preceptor label ended with {ended.returncode}: {ended.stderr}")
            stats = httpx2.get(url.removesuffix("/v1") + "/stats", trust_env=False).json()
            lines = (Path(folder) / "out" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
            return {"wall_s": wall_s, "stats": stats, "labels": [json.loads(line) for line in lines]}
        finally:
            server.kill()
            server.wait()


def compared(calm: dict[str, Any], stormy: dict[str, Any]) -> dict[str, Any]:
    """Throughput of the second as a share of the first, and what became of the rows."""
    before = {label["id"]: label for label in calm["labels"]}
    after = {label["id"]: label for label in stormy["labels"]}
    assert before.keys() == after.keys()
    assert len(after) == len(stormy["labels"])
    changed = [one for one in before if after[one]["status"] != before[one]["status"]]
    wrong = [
        one
        for one in before
        if after[one]["status"] in ("ok", "tie")
        and after[one].get("probability") != before[one].get("probability")
    ]
    faults = sum(stormy["stats"]["faults"].values())
    return {
        "pairs": len(before),
        "throughput": round(calm["wall_s"] / stormy["wall_s"], 3),
        "calm_s": round(calm["wall_s"], 1),
        "stormy_s": round(stormy["wall_s"], 1),
        "faults": f"{faults} of {stormy['stats']['requests']} requests",
        "same_status": len(before) - len(changed),
        "other_status": dict(Counter(after[one]["status"] for one in changed)),
        "wrong_labels": len(wrong),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from benchmarks.label_speed import write_pairs

    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.jsonl"
        write_pairs(pairs, options.pairs)
        calm = run(pairs, [], options)
        stormy = run(pairs, planned(6 * options.pairs, options.seed), options)
    print(json.dumps(compared(calm, stormy), indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
