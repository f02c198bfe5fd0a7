"""Who asks a call: a name that no other process has, and whether the process behind a name is gone."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple


class _Process(NamedTuple):
    state: str
    """`Z`: it has ended and nobody has asked how."""
    started: str
    """In ticks since the machine started: tells a process from a later one with its number."""


def new_owner() -> str:
    """`host:pid:start:random`, never twice the same."""
    process = _process(os.getpid())
    return f"{_host()}:{os.getpid()}:{process.started if process else ''}:{secrets.token_hex(4)}"


def is_gone(owner: str) -> bool:
    """Whether an owner is known to have ended. Of one on another host nothing is known: its lease must run out."""
    host, pid, started, _ = owner.rsplit(":", 3)
    if host != _host() or os.name != "posix":  # elsewhere, signal 0 is not a question
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    process = _process(int(pid))
    return process is not None and (process.state == "Z" or process.started != started)


@cache
def _host() -> str:
    """This machine since it started, as seen from this container: where process numbers mean the same."""
    seen = [socket.gethostname()]
    for place, read in (
        ("/proc/sys/kernel/random/boot_id", lambda path: path.read_text()),
        ("/proc/self/ns/pid", lambda path: str(path.readlink())),
    ):
        try:
            seen.append(read(Path(place)).strip())
        except OSError:
            continue
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]


def _process(pid: int) -> _Process | None:
    """What Linux says of a process; None on other systems."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = said.rpartition(")")[2].split()  # the name before may hold anything
    return _Process(state=fields[0], started=fields[19])
