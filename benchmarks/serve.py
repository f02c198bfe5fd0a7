"""How fast `/v1/reward` is, what memory it takes over many requests, and whether a row is lost where the judge fails.

    python benchmarks/serve.py speed [--requests N] [--clients 1,16,256] [--known]
    python benchmarks/serve.py memory [--requests N] [--clients N]
    python benchmarks/serve.py soak [--seconds S] [--clients N]

speed: requests of one reply each, to three servers in processes of their own: `preceptor serve` with a scripted judge,
a bare FastAPI endpoint that reads the same body and gives a number, and a FastAPI endpoint of the shape of vLLM's
`/classify`. Of each the requests a second, and the median and the 99th percentile of the time to an answer; of ours
also the share of the bare one's. Every reply is another one, so that ours is judged and written into the ledger;
--known: all are in the ledger before. The load comes from one process beside them: on a machine with two cores it takes
its share of all three alike.

memory: so many requests to ours, and the resident memory of its process after each tenth of them.

soak: pairs for `/v1/judge`, asked again until they are answered, with 30 % of the judge's answers failing. Every row
must come once, with the label that it has without faults; the ledger's calls must be the judge's own count, and none
answered twice. The exit code is 1 where that is not so. Needs the repository's tests/ beside benchmarks/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
MAIN = "from preceptor.cli.app import main; main()"
SERVED = """
models: {script: {model: scripted/judge.jsonl, concurrency: 256}}
constitutions: {own: own.yaml}
rewards: {good: {judge: script, constitution: own}}
limits: {max_per_address: null, max_per_key: null}
"""
JUDGED = """
models: {{judge: {{model: openai/gpt-4o-mini, base_url: "{url}", concurrency: 64}}}}
constitutions: {{own: own.yaml}}
limits: {{max_per_address: null, max_per_key: null, deadline_s: 600}}
"""
OWN = """name: own
principles:
  - {id: short, text: Choose the reply that is shorter.}
"""
BARE = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()

class Item(BaseModel):
    id: str
    prompt: str
    response: str

class Asked(BaseModel):
    items: list[Item]

@app.post("/v1/reward")
async def reward(body: Asked):
    return {"items": [{"id": one.id, "reward": 0.5, "status": "ok", "reason": ""} for one in body.items]}

class Classified(BaseModel):
    model: str
    input: str

@app.post("/classify")
async def classify(body: Classified):
    data = [{"index": 0, "label": None, "probs": [0.5], "num_classes": 1}]
    usage = {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0}
    return {"id": "classify-1", "object": "list", "created": 0, "model": body.model, "data": data, "usage": usage}

class Told(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{port}", flush=True)

Told(uvicorn.Config(app, port=0, log_config=None, access_log=False)).run()
"""
SHARES = {"429": 0.08, "500": 0.08, "503": 0.04, "drop": 0.05, "badjson": 0.05}
"""Kind of fault -> share of the judge's answers; another try mends each."""
MOST_CALLS = 1_000_000
"""To the judge, whose faults are drawn before; later ones meet none."""


class Running(NamedTuple):
    """A server in a process."""

    url: str
    process: subprocess.Popen[str]

    def memory_mb(self) -> float:
        """Resident memory, as Linux tells it."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the kernel does not tell the process's memory")


@contextmanager
def ours(config: str) -> Iterator[tuple[Running, Path]]:
    """`preceptor serve`, and the folder that it runs in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "serve.yaml").write_text(config)
        (folder / "own.yaml").write_text(OWN)
        (folder / "judge.jsonl").write_text(json.dumps({"match": "", "text": "It will do.\nScore: 7"}) + "\n")
        with started([sys.executable, "-c", MAIN, "serve", "--port=0", "--config=serve.yaml"], folder) as one:
            yield one, folder


@contextmanager
def started(words: Sequence[str], folder: Path) -> Iterator[Running]:
    """A server that prints its address."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise RuntimeError((folder / "log").read_text())
        yield Running(url, process)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Client:
    """One connection that is kept; by hand, so that the load takes little of the machine."""

    def __init__(self, url: str, path: str) -> None:
        place = urlsplit(url)
        self._host, self._port = str(place.hostname), int(place.port or 80)
        self._head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: Any) -> tuple[int, bytes]:
        """Status and body. Raises OSError and EOFError where the connection ends."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        raw = json.dumps(body).encode()
        self._writer.write(f"{self._head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length:"))
        made = await self._reader.readexactly(int(length.partition(b":")[2]))
        if b"connection: close" in lines:
            await self.close()
        return int(head.split(b" ", 2)[1]), made

    async def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Load(NamedTuple):
    """What came of a load."""

    a_second: float
    p50_ms: float
    p99_ms: float

    def told(self) -> str:
        """As a row of a table."""
        return f"{self.a_second:10,.0f} {self.p50_ms:9.1f} {self.p99_ms:9.1f}"


async def load(url: str, path: str, bodies: Callable[[int], Any], numbers: range, clients: int) -> Load:
    """So many requests by so many clients at once. Raises RuntimeError for an answer that is none."""
    waiting = iter(numbers)
    took: list[float] = []

    async def ask() -> None:
        client = Client(url, path)
        for number in waiting:
            begun = time.perf_counter()
            status, said = await client.post(bodies(number))
            took.append(time.perf_counter() - begun)
            if status != 200:
                raise RuntimeError(f"{path}: {status} {said[:300]!r}")
        await client.close()

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    whole = time.perf_counter() - begun
    ordered = sorted(took)
    return Load(
        len(ordered) / whole,
        statistics.median(ordered) * 1000,
        ordered[int(len(ordered) * 0.99)] * 1000,
    )


def reward_of(number: int) -> Any:
    """A request of one reply; none is like another."""
    text = f"On the {number % 20}th floor, past the lifts, then left: door {number}."
    return {"items": [{"id": str(number), "prompt": "Where is my room?", "response": text}]}


def classified(number: int) -> Any:
    """The same as vLLM's clients send it."""
    item = reward_of(number)["items"][0]
    return {"model": "m", "input": f"{item['prompt']}\n{item['response']}"}


def speed(given: argparse.Namespace) -> None:
    """Print a table."""
    counts = [int(count) for count in given.clients.split(",")]
    with ours(SERVED) as (served, folder), started([sys.executable, "-c", BARE], folder) as bare:
        print(f"{'':24} {'requests/s':>10} {'p50 ms':>9} {'p99 ms':>9}", flush=True)  # noqa: T201
        begun = 0
        for clients in counts:
            count = max(given.requests, clients)
            numbers = range(0 if given.known else begun, (0 if given.known else begun) + count)
            begun += count
            if given.known:
                asyncio.run(load(served.url, "/v1/reward", reward_of, numbers, 64))
            rows = {
                "vLLM's shape": asyncio.run(load(bare.url, "/classify", classified, numbers, clients)),
                "bare FastAPI": asyncio.run(load(bare.url, "/v1/reward", reward_of, numbers, clients)),
                "preceptor serve": asyncio.run(load(served.url, "/v1/reward", reward_of, numbers, clients)),
            }
            for name, row in rows.items():
                print(f"{clients:4} {name:19} {row.told()}", flush=True)  # noqa: T201
            share = rows["preceptor serve"].a_second / rows["bare FastAPI"].a_second
            print(f"{'':5}{share:.2f} of bare", flush=True)  # noqa: T201


def memory(given: argparse.Namespace) -> None:
    """Print how the memory grows."""
    clients = given.clients
    with ours(SERVED) as (served, _):
        part = max(clients, given.requests // 10)
        print(f"{0:10,} requests {served.memory_mb():8.1f} MB", flush=True)  # noqa: T201
        for number in range(10):
            numbers = range(number * part, (number + 1) * part)
            asyncio.run(load(served.url, "/v1/reward", reward_of, numbers, clients))
            print(f"{numbers.stop:10,} requests {served.memory_mb():8.1f} MB", flush=True)  # noqa: T201


def pair_of(number: int) -> Any:
    """A pair whose better reply is known; the judge of the tests reads the marks, which are never equal."""
    a = number % 9
    b = (a + 1 + number // 9 % 8) % 9
    return {
        "id": str(number),
        "prompt": f"question {number}",
        "response_a": f"one quality={a}",
        "response_b": f"other quality={b}",
    }


def soak(given: argparse.Namespace) -> None:
    """Print what came of it; exit 1 where a row was lost, doubled or is another than without faults."""
    from preceptor.judge.ledger.location import reading
    from preceptor.judge.ledger.queries import bill
    from tests.servers.llm import LLMServer, serve

    draw = random.Random(0)
    kinds = [*SHARES, "ok"]
    faults = draw.choices(kinds, [*SHARES.values(), 1 - sum(SHARES.values())], k=MOST_CALLS)
    judge = LLMServer(faults=faults, retry_after="0.1")
    with serve(judge), ours(JUDGED.format(url=judge.url)) as (served, folder):
        found = asyncio.run(_soaked(served.url, given.clients, given.seconds))
        stats = judge.stats()
        with reading(str(folder / "preceptor.db")) as connection:
            calls = sum(line.calls for line in bill(connection, ()))
    wrong = {number: rows for number, rows in found.items() if not _right(number, rows)}
    met = sum(stats["faults"].values())
    print(  # noqa: T201
        f"{len(found):,} rows, {stats['requests']:,} requests to the judge, {met / stats['requests']:.0%} of them "
        f"failed; {len(wrong)} rows wrong, lost or doubled; {calls:,} calls on the bill, "
        f"{stats['answered']:,} answered, {stats['answered_twice']} of them twice"
    )
    if wrong or calls != stats["answered"] or stats["answered_twice"]:
        print(f"the first of them: {dict(list(wrong.items())[:3])}")  # noqa: T201
        raise SystemExit(1)


async def _soaked(url: str, clients: int, seconds: float) -> dict[int, list[Any]]:
    """Number of a pair -> the rows that came for it."""
    found: dict[int, list[Any]] = {}
    numbers = iter(range(10**9))
    until = time.monotonic() + seconds

    async def ask() -> None:
        client = Client(url, "/v1/judge")
        while time.monotonic() < until:
            number = next(numbers)
            rows = await _answered(client, {"items": [pair_of(number)], "settings": {"orders": "one"}})
            found[number] = rows

    await asyncio.gather(*(ask() for _ in range(clients)))
    return found


async def _answered(client: Client, body: Any) -> list[Any]:
    """The rows of a request, which is sent again until it is answered."""
    while True:
        try:
            status, said = await client.post(body)
        except (OSError, EOFError):
            await client.close()
            continue
        told = json.loads(said)
        if status == 200:
            rows: list[Any] = told["items"]
            if all(row["status"] != "failed" for row in rows):
                return rows
        await asyncio.sleep(0.1)


def _right(number: int, rows: Sequence[Any]) -> bool:
    pair = pair_of(number)
    a, b = (int(pair[name].rpartition("=")[2]) for name in ("response_a", "response_b"))
    if [row["id"] for row in rows] != [pair["id"]]:
        return False
    p = rows[0].get("probability")
    return p is not None and (p > 0.5) is (a > b)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("--requests", type=int, default=5000)
    fast.add_argument("--clients", default="1,16,256")
    fast.add_argument("--known", action="store_true")
    flat = commands.add_parser("memory")
    flat.add_argument("--requests", type=int, default=1_000_000)
    flat.add_argument("--clients", type=int, default=64)
    long = commands.add_parser("soak")
    long.add_argument("--seconds", type=float, default=600)
    long.add_argument("--clients", type=int, default=64)
    given = parser.parse_args()
    {"speed": speed, "memory": memory, "soak": soak}[given.command](given)


if __name__ == "__main__":
    main()
