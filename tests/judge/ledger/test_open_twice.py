"""A process may open one ledger several times: it keeps its hold of the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from preceptor.judge.ledger.location import open_engines

PENDING = 0x40000000
"""Where SQLite's locks lie in a file; its readers' own begin two bytes further."""
HELD = f"""
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, {PENDING} + 2)
        print("free")
    except OSError:
        print("held")
"""


def held(path: Path) -> bool:
    """Whether another process sees that the file is in use."""
    said = subprocess.run([sys.executable, "-c", HELD, str(path)], capture_output=True, text=True, check=True)
    return said.stdout.strip() == "held"


def test_a_second_look_lets_go_of_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first = open_engines(str(path))
    with first.reader.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM calls").all()
    assert held(path)
    second = open_engines(str(path))
    assert held(path)
    for engines in (first, second):
        engines.writer.dispose()
        engines.reader.dispose()
    assert not held(path)
