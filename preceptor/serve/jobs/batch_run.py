"""A batch of chat completions in a process of its own: rows of OpenAI's batch files -> answers and errors.

What was answered before the process ended is not answered again: a row is done once its line is whole in either file.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from preceptor.constitution.edit import write_text
from preceptor.constitution.errors import INTERRUPTED
from preceptor.prompts.shown import printable
from preceptor.serve.jobs.chat import AskedChat, ModelHouse, answered
from preceptor.serve.jobs.tuning_rows import lines_of
from preceptor.serve.problems import Problem, error_of

ROWS, PLACE, PROGRESS = "rows.jsonl", "place.txt", "progress.json"
OUT, OUTPUT, ERRORS = "out", "output.jsonl", "errors.jsonl"
"""Files of the job's folder, and of the folder in it that holds its results."""
AT_ONCE = 32
"""Rows that are answered together; told to stop, those in flight are finished."""
LIVE = ("completed", "failed", "prompt_tokens", "completion_tokens")


def main() -> None:
    """Answer the rows in this folder. The exit code is a command's."""
    try:
        sys.exit(asyncio.run(answer_all(Path())))
    except Exception as error:
        if (code := getattr(error, "exit_code", None)) is None:
            raise
        sys.stderr.write(printable(f"error: {error}") + "\n")
        sys.exit(code)


async def answer_all(folder: Path) -> int:
    """Answer the rows in a job's folder, tell on stdout how many, and return the exit code. Raises UserError."""
    stop = asyncio.Event()
    for heard in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(heard, stop.set)
    place = (folder / PLACE).read_text(encoding="utf-8")
    out = folder / OUT
    out.mkdir(exist_ok=True)
    done, counts = _so_far(out)
    counts["total"] = sum(1 for _ in lines_of(folder / ROWS))
    waiting = (
        row for _, row in lines_of(folder / ROWS) if isinstance(row, dict) and row["custom_id"] not in done
    )
    house = ModelHouse()
    try:
        _tell(folder, counts)
        while rows := list(islice(waiting, AT_ONCE)):
            if stop.is_set():
                return INTERRUPTED
            made = await asyncio.gather(*(_output_row(house, place, row) for row in rows))
            for name in (OUTPUT, ERRORS):
                _append(out / name, [line for line in made if _file_of(line) == name])
            for line in made:
                _count(counts, line)
            _tell(folder, counts)
    finally:
        await house.close()
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


async def _output_row(house: ModelHouse, place: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat endpoint would have answered to a row. Raises UserError for a model that cannot be used."""
    try:
        body = AskedChat.model_validate(row["body"])
        if body.stream:
            raise Problem(
                400, "unsupported_parameter", "stream: a batch has no one to stream to; leave it out"
            )
        status, said = 200, await answered(house, place, body)
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        )
        problem = Problem(422, "invalid_request", "; ".join(faults))
        status, said = problem.status, {"error": error_of(problem)}
    except Problem as problem:
        status, said = problem.status, {"error": error_of(problem)}
    return {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": row["custom_id"],
        "response": {"status_code": status, "request_id": f"req_{secrets.token_hex(12)}", "body": said},
        "error": None,
    }


def _file_of(line: Mapping[str, Any]) -> str:
    return OUTPUT if line["response"]["status_code"] == 200 else ERRORS


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    if lines:
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())


def _so_far(out: Path) -> tuple[set[str], dict[str, int]]:
    """The rows that are done and their counts; a line that a kill has cut is cut off."""
    done: set[str] = set()
    counts = dict.fromkeys(LIVE, 0)
    for path in (out / OUTPUT, out / ERRORS):
        if path.exists():
            with path.open("r+b") as stream:
                for line in _whole(stream):
                    done.add(line["custom_id"])
                    _count(counts, line)
    return done, counts


def _whole(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    end = 0
    for raw in stream:
        if not raw.endswith(b"\n"):
            break
        end += len(raw)
        yield json.loads(raw)
    stream.truncate(end)


def _count(counts: dict[str, int], line: Mapping[str, Any]) -> None:
    if _file_of(line) == ERRORS:
        counts["failed"] += 1
        return
    counts["completed"] += 1
    for name in ("prompt_tokens", "completion_tokens"):
        counts[name] += line["response"]["body"]["usage"][name]


def _tell(folder: Path, counts: Mapping[str, int]) -> None:
    write_text(folder / PROGRESS, json.dumps(counts))
