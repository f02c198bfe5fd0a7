"""What every test gets: a directory, a home and an environment of its own, and servers that it can start."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.shapes import check_shapes

check_shapes()  # before anything of the package is imported

from preceptor.prompts import secrets  # noqa: E402
from tests.command_line import preceptor  # noqa: E402, F401
from tests.judge import postgres  # noqa: E402
from tests.servers.llm import LLMServer, serve  # noqa: E402

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # started in the background of a script: the processes that tests start and interrupt would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; as `preceptor.cli.app` does
# what is compared to the last digit is computed alike on every machine
os.environ["PRECEPTOR_CPU_BF16"] = "off"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each of the processes that share the machine's cores
# the same examples in every run, so that a commit is green or is not; `make fuzz` draws others
settings.register_profile("fixed", derandomize=os.environ.get("EXAMPLES") != "fresh", deadline=None)
settings.load_profile("fixed")
_numbers = itertools.count()
PROVIDER_VARIABLES = ("OPENAI_", "ANTHROPIC_", "PRECEPTOR_")


LONGEST_FIRST = ("ray", "real", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the PostgreSQL server is marked `postgres`; the files that take longest come first.

    Several processes share the files: one that takes ten minutes and begins last leaves the others idle.
    """
    ranks: dict[Path, int] = {}
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
        rank = min(
            (n for n, mark in enumerate(LONGEST_FIRST) if item.get_closest_marker(mark)),
            default=len(LONGEST_FIRST),
        )
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a key, a ledger or a settings file of whoever runs it, and none leaves one behind."""
    for name in os.environ:
        if name.startswith(PROVIDER_VARIABLES) and name != "PRECEPTOR_CPU_BF16":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    # a process is one command's: what one test gave as a password is a word of another's texts
    monkeypatch.setattr(secrets, "_kept", set())
    monkeypatch.chdir(work)


@pytest.fixture
def start_server() -> Iterator[Callable[..., LLMServer]]:
    """Start an LLM server with the given behaviour; it is stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(**behaviour: Any) -> LLMServer:
            return running.enter_context(serve(LLMServer(**behaviour)))

        yield start


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    if postgres.program("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.server() as url:
        yield url


@pytest.fixture
def postgres_place(postgres_server: str) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"ledger_{next(_numbers)}"
    with psycopg.connect(postgres_server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.format(database=name)
