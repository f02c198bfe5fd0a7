"""`python -m tests.simulation`: many seeds, or one again."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time

from tests.simulation.seed import Told, run_seed


def replay(number: int) -> int:
    """One seed, with what befell it."""
    told = run_seed(number)
    print(told.plan)
    print(*told.trace, sep="\n")
    print(told.problem or "every property holds")
    return 1 if told.problem else 0


def main() -> int:
    """The exit code: 0 where every property holds of every seed."""
    flags = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    flags.add_argument("--seed", type=int, help="this one alone, with its trace")
    flags.add_argument("--seeds", type=int, default=10_000)
    flags.add_argument("--first", type=int, default=0)
    flags.add_argument("--jobs", type=int, default=2)
    given = flags.parse_args()
    logging.disable(logging.CRITICAL)
    if given.seed is not None:
        return replay(given.seed)
    began = time.perf_counter()
    numbers = range(given.first, given.first + given.seeds)
    with multiprocessing.Pool(given.jobs) as pool:
        told = list(pool.imap_unordered(run_seed, numbers, chunksize=50))
    failed = [one for one in told if one.problem]
    for one in sorted(failed)[:20]:
        print(f"seed {one.seed}: {one.problem}")
    took = time.perf_counter() - began
    print(summary(told), f"{took:.0f} s, {1000 * took / len(told):.1f} ms a seed")
    return 1 if failed else 0


def summary(told: list[Told]) -> str:
    """What the seeds were, in one line."""
    days = sum(one.virtual_s for one in told) / 86400
    return (
        f"{len(told):,} seeds: {sum(bool(one.problem) for one in told)} fail; {sum(one.calls for one in told):,} calls, "
        f"{sum(one.kills for one in told):,} kills at {sum(one.boundaries for one in told):,} boundaries, "
        f"{days:,.0f} days of virtual time;"
    )


if __name__ == "__main__":
    sys.exit(main())
