"""A case of the table, played: the command line runs in this process, in a folder of bad files of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preceptor.cli.app import main
from tests.attack.table import Case, write_files

LONGEST_S = 600
"""A case that takes longer hangs."""
LONGEST_MESSAGE = 6000
KEPT = frozenset({".preceptor"})
"""What a command may leave in its folder: the ledger."""
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Ended(NamedTuple):
    """How a case ended."""

    case: Case
    faults: tuple[str, ...]
    """What was not as it should be; empty: it held."""


class _Hangs(BaseException):
    pass


def played(cases: Sequence[Case]) -> Iterator[Ended]:
    """Every case in turn."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        place = Path(name)
        write_files(place)
        os.chdir(place)
        try:
            for case in cases:
                yield Ended(case, tuple(_faults(case, place)))
        finally:
            os.chdir(before)


def _faults(case: Case, place: Path) -> Iterator[str]:
    files = _state(place)
    code, out, err = _run(case)
    if code not in case.codes:
        yield f"exit {code}: {' '.join((err or out).split())[:300]}"
    if "Traceback" in err + out:
        yield f"traceback: {err.strip().splitlines()[-1][:200]}"
    if not (err.strip() or out.strip()):
        yield "no message"
    if err.count("error:") + err.count("Usage:") > 1:
        yield "several messages"
    if len(err) > LONGEST_MESSAGE:
        yield f"a message of {len(err)} characters"
    if found := STEERING.search(err + out):
        yield f"raw {found.group()!r} in what is shown"
    left = _state(place)
    if changed := sorted(name for name, sha in files.items() if left.get(name) != sha):
        yield f"changed {changed[0]}"
    if more := sorted(left.keys() - files.keys()):
        yield f"left {more[0]} behind"
        for name in more:
            path = place / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _state(place: Path) -> dict[str, str]:
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(place.rglob("*"))
        if not KEPT & set(path.relative_to(place).parts)
    }


def _run(case: Case) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""

    def late(*_: Any) -> None:
        raise _Hangs

    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
    )
    argv, environment = sys.argv, dict(os.environ)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    code: Any = 0
    try:
        os.environ.pop("OPENAI_API_KEY", None)
        os.environ.update({"COLUMNS": "100", "HF_HUB_OFFLINE": "1", **case.environment})
        sys.argv = ["preceptor", *case.words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            except _Hangs:
                code = -1
            except BaseException as error:
                code = -2
                sys.stderr.write(f"Traceback: {type(error).__name__}: {error}\n")
    finally:
        signal.alarm(0)
        sys.argv = argv
        for one, handler in handlers.items():
            signal.signal(one, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.environ.clear()
        os.environ.update(environment)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "replace"))  # type: ignore[attr-defined]
    return code if isinstance(code, int) else 1, texts[0], texts[1]
