"""The command line as a person uses it, in this process: words in; exit code, stdout and stderr out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from preceptor.cli.app import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Preceptor = Callable[..., Ended]


@pytest.fixture
def preceptor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Preceptor]:
    """Run `preceptor WORDS...`."""
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["preceptor", *map(str, words)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert isinstance(code, int | None)
        return Ended(code or 0, said.out, said.err)

    yield run
    for one, handler in handlers.items():
        signal.signal(one, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
