"""Labelling against the bare SDK and against other pipelines, on the same server with 50 ms latency.

    python benchmarks/label_speed.py [--pairs N] [--concurrency N] [--latency S] [--rounds N]
        [--distilabel PYTHON] [--curator PYTHON]

Each side runs in a process of its own, one after the other, against a fresh server in another:

    bare httpx      AsyncOpenAI on its default transport, as many workers as there may be calls in flight, replies
                    dropped; the requests of `ours`, rendered before the clock starts
    bare aiohttp    the same on `openai.DefaultAioHttpClient`, where aiohttp is installed
    ours            `preceptor label` from its pairs file to labels.jsonl: reading, rendering, ledger, verdicts, labels;
                    both orders of every pair
    ours, one order the same with every pair in one order, as the others ask
    distilabel      PrometheusEval over OpenAILLM, its own prompt, batches as large as the concurrency
    curator openai  bespokelabs-curator's LLM, a question of the same length, its limits a minute lifted; this backend
                    sends its requests on aiohttp, without the SDK
    curator litellm the same on the backend that it takes for names that are not OpenAI's

PYTHON is the interpreter of an environment with `distilabel[openai] requests`, or with `bespokelabs-curator`. The clock
of ours runs from the open file to the last label, that of the others around the call that makes their rows; it counts
what they start for it, some seconds with distilabel. The best of the rounds counts: what else runs on the machine only
ever slows. Needs the repository's tests/ beside benchmarks/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

SIDES = ("bare httpx", "bare aiohttp", "ours", "ours, one order")


def write_pairs(path: Path, pairs: int) -> None:
    """Pairs of some 150 words, each like no other."""
    filler = "The bakery opens at seven and the bread is still warm when the first guests come in. " * 4
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            row = {
                "id": f"p{number}",
                "prompt": f"Question {number}: when does the bakery open?",
                "response_a": f"quality={number % 17} {filler}",
                "response_b": f"quality={number % 13} {filler} Number {number}.",
            }
            file.write(json.dumps(row) + "\n")


def requests(pairs: Path) -> list[Any]:
    """What labelling asks, in both orders."""
    from preceptor.constitution.files import load
    from preceptor.judge.label import label, template_for
    from preceptor.judge.models.openai.model import open_model
    from preceptor.judge.pairs import read_pairs
    from preceptor.judge.settings import LabelSettings

    rules, settings = load("style"), LabelSettings()
    judge = open_model("openai/fake", base_url="http://127.0.0.1:1/v1")
    template = template_for(judge, settings)
    return [
        one for pair in read_pairs(pairs) for one in next(label(pair, rules, judge, template, settings), ())
    ]


def bare(side: str, url: str, pairs: Path, concurrency: int) -> dict[str, float]:
    """A loop over the SDK and nothing else."""
    import openai

    from preceptor.judge.models.openai.codec import body_of

    kind = openai.DefaultAioHttpClient if side.endswith("aiohttp") else openai.DefaultAsyncHttpxClient
    bodies = [body_of(one) for one in requests(pairs)]

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=kind())
        waiting = iter(bodies)

        async def worker() -> None:
            for body in waiting:
                await client.chat.completions.create(**body)

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        await client.close()

    return timed(lambda: asyncio.run(run()), len(bodies))


def ours(side: str, url: str, pairs: Path, concurrency: int, out: Path) -> dict[str, float]:
    """`preceptor label`, less the start of the interpreter and what is derived from labels.jsonl afterwards."""
    import openai  # noqa: F401 loaded before the clock starts, as on the other side

    from preceptor.asking.stages import pairs_from
    from preceptor.cli.console import progress
    from preceptor.constitution.files import load
    from preceptor.judge.settings import LabelSettings
    from preceptor.label import run
    from preceptor.settings import Access, Asking

    settings = LabelSettings(orders="one" if side.endswith("one order") else "both")
    job = run.Job(load("style"), [(["openai/fake"], "")], settings, Access(base_url=url))
    asking = Asking(ledger=str(out / "ledger.db"), concurrency=concurrency)

    def run() -> None:
        asked, _ = run._judged(out, list(pairs_from(str(pairs), "rows")), job, asking, progress, None)
        assert asked.stopped is None
        assert asked.progress.failed == 0

    count = sum(1 for _ in pairs.open())
    return timed(run, count if settings.orders == "one" else 2 * count)


def timed(work: Any, calls: int) -> dict[str, float]:
    """Calls a second, and milliseconds of this process's CPU time a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return {"calls_per_s": calls / wall_s, "cpu_ms_per_call": 1000 * cpu_s / calls, "calls": calls}


DISTILABEL = """
import json, sys, time
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import PrometheusEval
url, pairs, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = [json.loads(line) for line in open(pairs)]
data = [{"instruction": r["prompt"], "generations": [r["response_a"], r["response_b"]]} for r in rows]
if __name__ == "__main__":
    with Pipeline("p") as pipeline:
        load = LoadDataFromDicts(data=data, batch_size=batch)
        task = PrometheusEval(mode="relative", rubric="factual-validity", input_batch_size=batch,
                              llm=OpenAILLM(model="fake", base_url=url, api_key="none"))
        load >> task
    start = time.perf_counter()
    made = pipeline.run(use_cache=False)
    took = time.perf_counter() - start
    assert made["default"]["train"].num_rows == len(rows)
    print(json.dumps({"calls_per_s": len(rows) / took, "calls": len(rows)}))
"""
CURATOR = """
import json, os, sys, time
from importlib.util import find_spec
os.environ["TELEMETRY_ENABLED"] = "false"
# the tokens by which it counts, which it else fetches from the network
os.environ["TIKTOKEN_CACHE_DIR"] = find_spec("litellm").submodule_search_locations[0] + "/litellm_core_utils/tokenizers"
from bespokelabs import curator
url, pairs, together, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
rows = [json.loads(line) for line in open(pairs)]
RULE = "Say which of two replies to a message is the better, A or B, by how correct and how helpful it is. " * 12
class Compare(curator.LLM):
    def prompt(self, row):
        replies = f"Message: {row['prompt']}\\n\\nReply A: {row['response_a']}\\n\\nReply B: {row['response_b']}"
        return f"{RULE}\\n\\n{replies}\\n\\nEnd with one line: Verdict: A or Verdict: B"
    def parse(self, row, response):
        return {"id": row["id"], "verdict": response.strip()[-1:]}
limits = {"max_concurrent_requests": together, "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10}
name = {"openai": "fake", "litellm": "openai/fake"}[sys.argv[5]]
judge = Compare(model_name=name, backend=sys.argv[5], backend_params={"base_url": url, **limits})
start = time.perf_counter()
made = judge(rows, working_dir=folder)
took = time.perf_counter() - start
assert len(made.dataset) == len(rows)
print(json.dumps({"calls_per_s": len(rows) / took, "calls": len(rows)}))
"""
PEERS = {"distilabel": DISTILABEL, "curator openai": CURATOR, "curator litellm": CURATOR}
"""By name: a script that is given the server's address, the pairs, how many calls at once, a folder of its own, and the
last word of its name. The first is the option that names its interpreter."""


@contextmanager
def server(latency_s: float, faults: str = "[]") -> Iterator[str]:
    """The tests' server in a process of its own; its address with /v1."""
    program = (
        "import threading; from tests.servers.llm import LLMServer, serve\n"
        f"with serve(LLMServer(latency_s={latency_s}, faults={faults})) as running:\n"
        "    print(running.url, flush=True); threading.Event().wait()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        assert running.stdout is not None
        yield running.stdout.readline().strip()
    finally:
        running.kill()
        running.wait()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}


def measure(side: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One side in a process of its own."""
    pairs = folder / "pairs.jsonl"
    with server(options.latency) as url, tempfile.TemporaryDirectory(dir=folder) as out:
        environment = _environment()
        if side in PEERS:
            script = folder / "peer.py"
            script.write_text(PEERS[side])
            peer, _, backend = side.partition(" ")
            words = [
                getattr(options, peer),
                str(script),
                url,
                str(pairs),
                str(options.concurrency),
                out,
                backend,
            ]
            environment |= {
                "HOME": out,
                "PYTHONPATH": "",
            }  # what they keep beside is not theirs to find again
        else:
            words = [sys.executable, __file__, "--side", side, "--url", url, "--folder", out]
            words += ["--file", str(pairs), "--concurrency", str(options.concurrency)]
        ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=out)
    found: dict[str, float] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, metavar="S")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--distilabel", metavar="PYTHON")
    parser.add_argument("--curator", metavar="PYTHON")
    for hidden in ("--side", "--url", "--folder", "--file"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        place = (options.url, Path(options.file), options.concurrency)
        mine = options.side.startswith("ours")
        found = ours(options.side, *place, Path(options.folder)) if mine else bare(options.side, *place)
        print(json.dumps(found))  # noqa: T201
        return
    from preceptor.judge.models.http.transport import fast_transport

    sides = [side for side in SIDES if side != "bare aiohttp" or fast_transport()]
    sides += [peer for peer in PEERS if getattr(options, peer.partition(" ")[0])]
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.jsonl", options.pairs)
        for _ in range(options.rounds):
            for side in sides:
                found = measure(side, options, Path(folder))
                if side not in best or found["calls_per_s"] > best[side]["calls_per_s"]:
                    best[side] = found
    fastest = max(best[side]["calls_per_s"] for side in sides if side.startswith("bare"))
    for side, found in best.items():
        print(f"{side:16}{found['calls_per_s']:8.1f} calls/s  {_beside(side, best, fastest)}")  # noqa: T201


def _beside(side: str, best: dict[str, dict[str, float]], fastest: float) -> str:
    """What one side's figure says beside the others'."""
    if side in PEERS:
        return (
            f"1 / {best['ours, one order']['calls_per_s'] / best[side]['calls_per_s']:.1f} of ours in rows/s"
        )
    share = f"{best[side]['calls_per_s'] / fastest:.2f} of the fastest bare loop"
    return f"{share}  {best[side]['cpu_ms_per_call']:6.2f} ms CPU a call"


if __name__ == "__main__":
    main()
