"""README and docs are true: their commands and flags exist, their code blocks run, or say before them why they do not.

A block is left out by a comment on the line before it: `<!-- not run: why -->`. Shell blocks run line by line, all of
a page in one folder, in which the files lie that the pages speak of. A provider's models are the tests' own server, and
`hf/Qwen/Qwen3-0.6B` is a tiny random model.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from markdown_it import MarkdownIt
from ruamel.yaml import YAML
from typer.testing import CliRunner

from preceptor.cli.app import app
from preceptor.cli.lazy import Deferred
from tests.servers.llm import LLMServer, serve
from tests.train.tiny import save_tiny

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: (?P<why>\S.*?) -->\s*\Z", re.DOTALL)
SHELL = re.compile(r"(preceptor|make|pip|python|export|createdb|ray|vllm|rewardbench|git|cd|[A-Z_]+=\S+)\b")
GATE = 5
"""Exit code of a gate that did not hold, which is what a gate is for."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str
    why_not: str
    """Why it is not run; empty where it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks; one without a language is shell where its first line is a command, and else a picture."""
    source = page.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in MarkdownIt().parse(source):
        if token.type != "fence" or token.map is None:
            continue
        kind = token.info.strip() or ("sh" if SHELL.match(token.content) else "text")
        before = NOT_RUN.search("\n".join(lines[: token.map[0]]).rstrip())
        yield Block(page, token.map[0] + 1, kind, token.content, before["why"] if before else "")


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of a shell block as words, comments left out."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def fault_of(words: list[str]) -> str:
    """What of a `preceptor` command does not exist: a subcommand or a flag; empty where all does."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if (found := command.commands.get(rest[0])) is None:
            return "" if rest[0] in ("…", "...", "--help") or rest[0].isupper() else f"no command {rest[0]!r}"
        command, rest = found.load() if isinstance(found, Deferred) else found, rest[1:]
    known = {
        name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    for word in rest:
        flag = word.partition("=")[0]
        if re.match(r"--?[A-Za-z0-9]", flag) and flag not in known:
            return f"no flag {flag}"
    return ""


def said_in(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and words of every `preceptor` command of a page, in blocks and in the running text."""
    for block in BLOCKS:
        if block.page == page and block.kind == "sh":
            yield from ((block.line, words) for words in commands_of(block.text) if words[0] == "preceptor")
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            text = " ".join(child.content.split())
            if (
                child.type == "code_inline"
                and text.startswith("preceptor ")
                and not re.search(r"[|{}\[\]]", text)
            ):
                yield (token.map or [0])[0] + 1, text.replace("'", "").replace('"', "").split()


def test_there_are_blocks_and_each_is_of_a_known_kind() -> None:
    assert len([block for block in BLOCKS if block.kind == "sh"]) > 12
    assert {block.kind for block in BLOCKS} <= {"sh", "python", "json", "yaml", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_flag_of_a_page_exists(page: Path) -> None:
    faults = [
        f"line {line}: {' '.join(words)}: {fault}"
        for line, words in said_in(page)
        if (fault := fault_of(words))
    ]
    assert not faults


def test_a_command_that_does_not_exist_is_found() -> None:
    assert fault_of(["preceptor", "lable", "x"]) == "no command 'lable'"
    assert fault_of(["preceptor", "label", "x", "--judges", "y"]) == "no flag --judges"
    assert fault_of(["preceptor", "constitution", "lint", "x", "--json"]) == ""


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.kind in ("json", "yaml")], ids=str)
def test_data_can_be_read(block: Block) -> None:
    assert json.loads(block.text) if block.kind == "json" else YAML(typ="safe", pure=True).load(block.text)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.kind == "python"], ids=str)
def test_python_is_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


# Running them


QUESTIONS = ("Where is the pool?", "When is breakfast?", "Who has room 12?", "What is for lunch?")


def rows(path: Path, *columns: dict[str, object]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in columns), encoding="utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[LLMServer]:
    with serve(LLMServer()) as running:
        yield running


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, server: LLMServer) -> Path:
    """A folder with the files that the pages speak of, labels among them."""
    folder = tmp_path_factory.mktemp("docs") / "files"
    folder.mkdir()
    config = save_tiny(folder / "tiny") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 8192}))
    rows(folder / "prompts.jsonl", *({"prompt": text} for text in QUESTIONS))
    rows(folder / "held-out.jsonl", *({"prompt": f"{text} Please."} for text in QUESTIONS[:2]))
    pairs = [
        {
            "prompt": text,
            "response_a": f"quality=9 Gladly: {text}",
            "response_b": "quality=2 No.",
            "preferred": "a",
        }
        for text in QUESTIONS
    ]
    rows(folder / "pairs.jsonl", *pairs)
    rows(folder / "gold.jsonl", *pairs)
    mine = (ROOT / "constitution" / "library" / "front-desk.yaml").read_text(encoding="utf-8")
    for name in ("mine.yaml", "old.yaml", "new.yaml"):
        (folder / name).write_text(mine, encoding="utf-8")
    shutil.copytree(ROOT / "examples", folder / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(
            shlex.split("preceptor label pairs.jsonl -c old.yaml --judge openai/a --price 1,1 --out labels"),
            server,
            patch,
        )
    return folder


def run(words: list[str], server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of a page as it stands, in this process."""
    assert words[0] == "preceptor", f"{words[0]} is not run by tests: say why before the block"
    told = [
        word.replace("hf/Qwen/Qwen3-0.6B", "hf/./tiny").replace("http://localhost:8000/v1", server.url)
        for word in words[1:]
    ]
    for name, value in (("OPENAI_API_KEY", "none"), ("OPENAI_BASE_URL", server.url), ("EDITOR", "true")):
        monkeypatch.setenv(name, value)
    ended = CliRunner().invoke(app, told)
    gate = "--fail-if" in told and ended.exit_code == GATE
    assert ended.exit_code == 0 or gate, f"{' '.join(words)}\n{ended.output}\n{ended.exception!r}"


RUN = {
    page: [block for block in BLOCKS if block.page == page and block.kind == "sh" and not block.why_not]
    for page in PAGES
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if RUN[page]], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run(
    page: Path, stage: Path, server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(stage, folder)
    if any("--out labels" in block.text for block in RUN[page]):
        shutil.rmtree(folder / "labels")  # the page makes its own
    monkeypatch.chdir(folder)
    for block in RUN[page]:
        for words in commands_of(block.text):
            run(words, server, monkeypatch)


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.kind == "python" and not one.why_not], ids=str
)
def test_python_runs(
    block: Block, stage: Path, server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(stage, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__page__"})
