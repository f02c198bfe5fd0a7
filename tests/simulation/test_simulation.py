"""A short run of the simulation, what it once found, and what it is to find."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.mutations import FAULTS, Fault, planted
from tests.simulation.seed import run_seed, swept

ROOT = Path(__file__).parents[2]
SEEDS_A_TEST = 30
ONCE_FOUND = {
    10: "a process that was killed while it made the ledger left a file that no later one took",
    12: "a batch that left just before its sender was killed was given up before it could be listed",
    351: "two processes looked for a batch whose sender was killed: one found it, and the other gave it up",
    5899: "a batch whose results another process had written down cost nothing on its sender's budget",
    151: "a call that waited to be tried again when the run stopped was counted as lost",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    with swept():
        gc.collect()  # the dead of a seed's last processes would else be swept up in another test
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, 240, SEEDS_A_TEST))
def test_every_property_holds(first: int) -> None:
    broken = [told for number in range(first, first + SEEDS_A_TEST) if (told := run_seed(number)).problem]
    assert not broken, "\n".join(
        f"python -m tests.simulation --seed {told.seed}: {told.problem}" for told in broken
    )


@pytest.mark.parametrize("number", ONCE_FOUND)
def test_what_was_once_found_stays_mended(number: int) -> None:
    assert not run_seed(number).problem


def test_a_seed_is_the_same_in_every_process() -> None:
    """So that one that fails can be looked at alone."""
    code = (
        "import logging; logging.disable(50)\n"
        "from tests.simulation.seed import run_seed, swept\n"
        "for number in range(100, 112): told = run_seed(number); print(told.boundaries, told.rows, *told.trace)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hashing, "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    ]
    first, second = (
        re.sub(r"/[\w./-]+/ledger\.db", "ledger.db", one) for one in said
    )  # in a folder of its own
    assert first == second


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_fits_the_code(fault: Fault) -> None:
    with planted(fault):
        pass


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("the slot is taken before the budget", 80),
        ("no intent is written", 40),
        ("answers are keyed wrongly", 20),
    ],
)
def test_planted_faults_are_found(name: str, seeds: int) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    with planted(fault):
        assert any(run_seed(number).problem for number in range(seeds))
