"""Names find their models, and what is no name says what would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import UnknownModel
from preceptor.judge.models.protocol import Request
from preceptor.judge.models.registry import open_model
from preceptor.prompts.records import Message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("opnai/gpt-5", "did you mean openai/…"),
        ("embeded", "did you mean embedded"),
        (
            "gpt-5-mini",
            "no provider answers to 'gpt-5-mini'.*anthropic, embedded, hf, human, openai, scripted, smollm2",
        ),
        ("", "no provider answers to ''"),
        ("openai/", "names no model of openai"),
        ("hf", "names no model of hf"),
        ("checks", "only be a judge"),
        ("embedded/x", "just embedded"),
        ("smolm2", "did you mean smollm2"),
        ("smollm2/x", "just smollm2"),
        ("hf/./nowhere", "there is no folder ./nowhere"),
        ("hf/runs/a/7-policy", "there is no folder runs/a/7-policy"),
        ("hf/runs/none.gguf", "there is no file runs/none.gguf"),
    ],
)
def test_what_is_no_name(name: str, words: str) -> None:
    with pytest.raises(UnknownModel, match=words):
        open_model(name)


def test_an_option_that_the_provider_does_not_take(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "x"}\n')
    with pytest.raises(UnknownModel, match="does not take --base-url"):
        open_model(f"scripted/{script}", base_url="http://127.0.0.1:1")


async def test_a_script_file_answers_by_match_first_and_then_in_turn(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "one"}\n{"match": "b+", "text": "bees"}\n\n{"text": "two"}\n')
    model = open_model(f"scripted/{script}")
    texts = []
    for text in ("a", "abba", "c"):
        asked = Request(model=model.name, messages=(Message(role="user", content=text),), max_tokens=5)
        texts.append((await model.complete(asked)).text)
    assert texts == ["one", "bees", "two"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("nonsense\n", ":1: not JSON"), ('{"text": "a"}\n[1]\n', ":2: came list"), ('{"txt": 1}\n', "came txt"),
     ('{"text": "a", "match": "("}\n', "not a regular expression")],
)  # fmt: skip
def test_a_broken_script_names_the_line(tmp_path: Path, content: str, words: str) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(content)
    with pytest.raises(UserError, match=words):
        open_model(f"scripted/{script}")


def test_a_missing_script_says_so() -> None:
    with pytest.raises(UserError, match=r"nowhere.jsonl: the script cannot be read"):
        open_model("scripted/nowhere.jsonl")
