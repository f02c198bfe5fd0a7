"""`python -m tests.fuzz_bytes [TARGET] [--seconds N]`: foreign bytes, led by the lines of our code that they reach.

Atheris, LLVM's fuzzer for Python, mutates what reached new lines. Every target reads bytes of foreign hands, and may
end in the errors that are told in words alone. Exit 1 where one ends otherwise; the bytes are then printed and kept.
What is found becomes an `@example` of `test_fuzzing.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz")
NOW = datetime(2026, 11, 30, tzinfo=UTC)
NAMES = (
    *(f"rows{ending}" for ending in ENDINGS),
    "verdict",
    "template",
    "constitution",
    "manifest",
    "body",
    "headers",
)


def targets(folder: Path) -> dict[str, Callable[[bytes], None]]:
    """By name, what reads some bytes. Imports our code, which is to be instrumented."""
    from preceptor.constitution.errors import ConstitutionError, UserError
    from preceptor.constitution.files import load_text
    from preceptor.folder import read_json
    from preceptor.judge.models.http.waits import allowances, wait_s
    from preceptor.prompts import template, verdict
    from preceptor.prompts.errors import TemplateError
    from tests import test_fuzzing

    def of_rows(raw: bytes, ending: str) -> None:
        path = folder / f"rows{ending}"
        path.write_bytes(raw)
        test_fuzzing.read_all(path)

    def of_verdict(raw: bytes) -> None:
        verdict.parse(raw.decode(errors="replace"), {"a": "A", "b": "B"})

    def of_template(raw: bytes) -> None:
        with contextlib.suppress(TemplateError):
            template.parse("compare", raw.decode(errors="replace"))

    def of_constitution(raw: bytes) -> None:
        with contextlib.suppress(ConstitutionError):
            load_text(raw.decode(errors="replace"), Path("here.yaml"))

    def of_manifest(raw: bytes) -> None:
        (folder / "manifest.json").write_bytes(raw)
        with contextlib.suppress(UserError):
            read_json(folder / "manifest.json")

    def of_headers(raw: bytes) -> None:
        said = raw.decode("latin-1")
        names = ("retry-after", "x-ratelimit-reset-requests", "x-ratelimit-remaining-requests")
        headers = {**dict.fromkeys(names, said), "x-ratelimit-limit-requests": "9"}
        wait_s(headers, {"error": {"message": said}}, said, NOW)
        allowances(headers, NOW)

    body = test_fuzzing.test_the_body_of_a_reply.hypothesis.inner_test
    return {
        **{f"rows{ending}": partial(of_rows, ending=ending) for ending in ENDINGS},
        "verdict": of_verdict,
        "template": of_template,
        "constitution": of_constitution,
        "manifest": of_manifest,
        "body": body,
        "headers": of_headers,
    }


def fuzz(name: str, seconds: int) -> None:
    """One target, in this process, which ends with it."""
    import atheris

    with tempfile.TemporaryDirectory() as folder, atheris.instrument_imports(include=["preceptor"]):
        read = targets(Path(folder))[name]
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-verbosity=0"], read)
        atheris.Fuzz()


def main() -> int:
    """0 where every target held; 2 where Atheris is not there."""
    flags = argparse.ArgumentParser(prog="python -m tests.fuzz_bytes", description=__doc__)
    flags.add_argument("target", nargs="?", choices=NAMES)
    flags.add_argument("--seconds", type=int, default=30, help="for each target")
    given = flags.parse_args()
    if given.target:
        fuzz(given.target, given.seconds)
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("Atheris is not installed: pip install 'preceptor[fuzz]', where it has a wheel")
        return 2
    broken = [name for name in NAMES if _broke(name, given.seconds)]
    print(f"{len(NAMES)} targets, {given.seconds} s each; broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def _broke(name: str, seconds: int) -> bool:
    words = [sys.executable, "-m", "tests.fuzz_bytes", name, "--seconds", str(seconds)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    print(
        f"{name}: {'held' if ended.returncode == 0 else ended.stdout[-1500:] + ended.stderr[-3000:]}",
        flush=True,
    )
    return ended.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
