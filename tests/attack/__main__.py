"""`python -m tests.attack [--training] [WORD]`: run the table of bad inputs and print the counts. Exit 1 where one case
is not held.

WORD: only the cases whose name holds it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.attack.play import Ended, played
from tests.attack.table import table, training


def main() -> int:
    """Run what was asked for."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--training", action="store_true", help="with the commands that import torch")
    given.add_argument("word", nargs="?", default="")
    options = given.parse_args()
    cases = [case for case in table() + (training() if options.training else []) if options.word in case.name]
    kinds: Counter[str] = Counter()
    broken: list[Ended] = []
    for ended in played(cases):
        kinds[ended.case.name.partition(":")[0].split()[0]] += 1
        if ended.faults:
            broken.append(ended)
            sys.stdout.write(f"{ended.case.name}: {'; '.join(ended.faults)}\n")
            sys.stdout.flush()
    counts = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common())
    sys.stdout.write(
        f"{len(cases)} cases, {len(cases) - len(broken)} held, {len(broken)} did not ({counts})\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
