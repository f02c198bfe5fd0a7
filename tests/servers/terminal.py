"""A command at a real terminal, and a person who presses a key whenever they are asked."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

PATIENCE_S = 600.0


def at_a_terminal(
    words: Sequence[str], keys: str, place: Path, asked: str, **environment: str
) -> tuple[int, str]:
    """Exit code and screen of `preceptor WORDS...` in `place`; the n-th key is pressed once `asked` has stood on the
    screen n times and the command waits for a key: what is typed before that the terminal forgets.
    """
    main, side = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "preceptor"), *words],
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=place,
        env={**os.environ, **environment},
    )
    os.close(side)
    screen, pressed, deadline = "", 0, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.1)[0]:
            try:
                screen += os.read(main, 65536).decode(errors="replace")
            except OSError:
                break
        elif pressed < len(keys) and screen.count(asked) > pressed and _waits_for_a_key(main):
            os.write(main, keys[pressed].encode())
            pressed += 1
        elif process.poll() is not None:
            break
    code = process.wait(timeout=PATIENCE_S)
    os.close(main)
    return code, screen


def _waits_for_a_key(terminal: int) -> bool:
    """Whether the command has told the terminal to give it each key at once."""
    flags: int = termios.tcgetattr(terminal)[3]
    return not flags & termios.ICANON
