"""`python -m preceptor`: the same commands, as Accelerate and other launchers start them."""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# `-m` puts the working directory first on the path, where a judge.py or train.py of the user's would be taken for ours
if not sys.flags.safe_path and os.path.realpath(sys.path[0]) == os.path.realpath(os.getcwd()) != HOME:
    del sys.path[0]

from preceptor.cli.app import main  # noqa: E402 the path comes first

if __name__ == "__main__":
    main()
