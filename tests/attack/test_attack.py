"""The table of bad inputs is large and holds every command; a part of it is played here, all of it by `make attack`."""

from __future__ import annotations

import pytest

from preceptor.cli.app import COMMANDS
from tests.attack.play import played
from tests.attack.table import Case, table, training

PART = 12
"""Every so-manyth case is played."""


def test_the_table_is_large_and_holds_every_command() -> None:
    cases = [*table(), *training()]
    assert len(cases) >= 400
    assert len({case.name for case in cases}) == len(cases)
    asked = {case.words[0] for case in cases if case.words}
    assert {*COMMANDS} - {"quickstart", "doctor"} <= asked
    assert all(0 not in case.codes for case in cases)


@pytest.mark.parametrize("case", table()[::PART], ids=lambda case: ascii(case.name)[:80])
def test_bad_input_is_one_message_and_leaves_nothing_behind(case: Case) -> None:
    (ended,) = played([case])
    assert ended.faults == ()
