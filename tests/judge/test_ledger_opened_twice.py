"""Two openings of one ledger in one process, and a third elsewhere: nobody loses what another wrote."""

from __future__ import annotations

import subprocess
import sys

from preceptor.judge.ledger.location import open_engines, reading

OPEN = """
import sys
from preceptor.judge.ledger.location import open_engines
engines = open_engines(sys.argv[1])
engines.writer.dispose()
engines.reader.dispose()
"""


def test_a_second_opening_takes_no_locks_away() -> None:
    """Closing any handle on the file would take away this process's locks; another that closes it would then delete
    the log beneath the first, and what came after would be written to nowhere."""
    first = open_engines("ledger.db")
    with first.writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE beside (number INTEGER)")
    second = open_engines("ledger.db")
    subprocess.run([sys.executable, "-c", OPEN, "ledger.db"], check=True)
    for number, engines in enumerate((first, second)):
        with engines.writer.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO beside VALUES ({number})")
    seen = "import sqlite3; print(sqlite3.connect('ledger.db').execute('SELECT COUNT(*) FROM beside').fetchone()[0])"
    ran = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "2"
    for engines in (first, second):
        engines.writer.dispose()
        engines.reader.dispose()
    with reading("ledger.db") as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM beside").scalar_one() == 2
