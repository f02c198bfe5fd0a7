"""Files and JSON of somebody else's: no pipe is waited for, and every fault is one that its reader expects."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import UnfitFileError, bytes_in, json_in, json_of, text_in
from preceptor.evaluation.oracles import refuse_labeller
from preceptor.judge.asking.price_file import read_prices
from preceptor.judge.models.local.gguf import source_of
from preceptor.judge.models.local.loading import base_named_by
from preceptor.judge.models.scripted import read_script
from preceptor.prompts.template import load as load_template
from preceptor.run.config import load as load_run
from preceptor.serve.config import read_config
from preceptor.train.embedded.oracle import answer_text
from preceptor.train.guard.held_out import plain_text
from preceptor.train.loop.output_folder import _read, keep_metrics
from preceptor.train.models.adapters import check_adapter

ROOT = Path(__file__).parent.parent.parent
CODE = ("constitution", "prompts", "judge", "train", "preceptor")
ALLOWED = {
    "constitution/foreign.py",  # the door itself
    "judge/models/door.py",  # the door of a provider's bodies, which has bounds of its own
    "judge/models/local/text_tokens.py",  # what the tokenizers library says of a tokenizer that it has read
    "judge/models/local/weights_hash.py",  # whatever is wrong with a file there, its bytes are hashed instead
    "preceptor/serve/jobs/batch_run.py",  # lines that this process has written
    "preceptor/serve/jobs/batches.py",  # the server's own count
    "preceptor/serve/jobs/store.py",  # rows of the server's own database
    "preceptor/serve/pages/label_index.py",  # rows of the server's own index
    "preceptor/serve/pages/opinion_store.py",  # rows of the server's own database
}
BROKEN = {
    "deep": "[" * 100_000,
    "deep object": '{"a": ' * 60_000,
    "many digits": '{"text": ' + "1" * 5_000 + "}",
    "broken": '{"text": ',
    "a list": "[]",
    "a number": "7",
}


@pytest.fixture(params=sorted(BROKEN))
def broken(request: pytest.FixtureRequest) -> str:
    return BROKEN[request.param]


@given(st.text(st.sampled_from('[]{}":,01e"ab\\u'), max_size=40) | st.sampled_from(sorted(BROKEN.values())))
@settings(max_examples=80, deadline=None)
def test_json_is_a_value_or_one_kind_of_error(text: str) -> None:
    try:
        value = json_of(text)
    except ValueError:
        return
    assert value == json.loads(text) or value != value


def test_text_is_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("a\r\nb\rc\né".encode())
    assert text_in(path) == path.read_text(encoding="utf-8") == "a\nb\nc\né"


def test_a_file_that_is_too_large_or_none_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(UnfitFileError, match="a file of 5 bytes"):
        bytes_in(tmp_path / "large", most=4)
    with pytest.raises(FileNotFoundError):
        json_in(tmp_path / "none")
    with pytest.raises(OSError, match="null"):
        json_in("nul\0l")


OPENED_BY: dict[str, Callable[[Path], object]] = {
    "template": load_template,
    "run file": load_run,
    "script": read_script,
    "prices": read_prices,
    "server": read_config,
    "guard text": plain_text,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("read", OPENED_BY.values(), ids=OPENED_BY)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    # somebody has it open to write, so that a reader who opens it none the less comes to an end
    writer = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    os.set_blocking(writer, False)
    try:
        with pytest.raises(UserError, match="a pipe or device"):
            read(pipe)
    finally:
        os.close(writer)


def test_json_files_of_a_model_folder(tmp_path: Path, broken: str) -> None:
    for name in ("manifest.json", "adapter_config.json", "source.json"):
        (tmp_path / name).write_text(broken)
    assert base_named_by(tmp_path) is None
    assert source_of(tmp_path) is None
    refuse_labeller("openai/x", str(tmp_path))
    with pytest.raises(UserError, match="adapter_config"):
        check_adapter(tmp_path)


def test_json_files_of_a_training(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(broken + "}\n")
    with pytest.raises(UserError, match="metrics"):
        keep_metrics(path, 1)
    path.write_text(broken)
    with pytest.raises(UserError, match="metrics"):
        plain_text(path)
    if broken in ("[]", "7"):
        assert _read(path) == {}  # it is no object, and tells of nothing
    else:
        with pytest.raises(UserError, match="cannot be read"):
            _read(path)


def test_a_reply_that_is_broken_json_is_read_as_words() -> None:
    assert answer_text('{"verdict": ' * 60_000)[1] is False


@pytest.mark.parametrize(
    "line",
    [
        *BROKEN.values(),
        json.dumps({"text": "x", "match": "a{99999999999999}"}),
        json.dumps({"text": "x", "match": "(" * 3_000 + ")" * 3_000}),
        json.dumps({"text": "x", "match": "("}),
    ],
    ids=[*BROKEN, "huge count", "deep groups", "broken pattern"],
)
def test_a_script_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "y"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"s\.jsonl:2: "):
        read_script(path)


def test_nothing_reads_json_around_the_door() -> None:
    found = {name for name, _ in bare()}
    assert found == ALLOWED, f"read JSON by preceptor.constitution.foreign: {sorted(found ^ ALLOWED)}"


def bare() -> Iterator[tuple[str, int]]:
    """(file, line) of every use of the library's own readers, but for what was dumped in the same breath."""
    for package in CODE:
        for path in (ROOT / package).rglob("*.py"):
            if any(part.is_symlink() for part in path.parents):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            copies = {
                id(node.func)
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and node.args and "json.dumps(" in ast.unparse(node.args[0])
            }
            for node in ast.walk(tree):
                named = isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.load", "json.loads")
                taken = isinstance(node, ast.ImportFrom) and node.module == "json"
                if (named or taken) and id(node) not in copies:
                    yield path.relative_to(ROOT).as_posix(), node.lineno
