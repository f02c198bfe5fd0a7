"""A Ray cluster of the tests' own: two nodes on this machine, each with ports and an object store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100 * 2**20
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OPENAI_API_KEY": "none",
    # workers are as urgent as the tests beside them: at Ray's own 15 they would wait until those have ended
    "RAY_worker_niceness": "0",
}
START = """
import json, os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
head = node | {"include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(**node)
cluster.wait_for_nodes()
print(json.dumps({"address": cluster.address}), flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
""".replace("STORE_BYTES", str(STORE_BYTES))


class TwoNodes:
    """The running cluster. Its nodes are held by a process apart, because Ray allows one of each kind in a process."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.address = address
        self._process = process

    def remove_second(self) -> None:
        """Kill the second node with all that runs on it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("remove\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "removed\n"


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start it; all of it ends with the block."""
    running: Any = subprocess.Popen(
        [sys.executable, "-c", START],
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield TwoNodes(running, json.loads(running.stdout.readline())["address"])
    finally:
        running.stdin.close()
        try:
            running.wait(60)  # then it is killed
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        running.stdout.close()
