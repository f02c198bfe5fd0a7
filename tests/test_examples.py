"""Every example loads, and what it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitution.files import load as load_constitution
from preceptor.config import load
from preceptor.pipeline import prompts_from

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))


def test_all_examples_are_found() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "constitutional-ai",
        "dpo-only",
        "front-desk",
        "iterative",
        "local-judge",
        "openai-judge",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_names_what_exists(path: Path) -> None:
    config = load(path)
    assert load_constitution(config.constitution).principles
    for source in filter(None, (config.prompts.file, config.prompts.held_out)):
        assert next(iter(prompts_from(source))).messages


def test_the_spelled_out_quickstart_is_the_quickstart() -> None:
    shipped = load(Path(__file__).parent.parent / "preceptor" / "quickstart.yaml")
    spelled = load(EXAMPLES[2])
    assert spelled.model_copy(update={"out": shipped.out}) == shipped


def test_the_iterative_example_has_rounds() -> None:
    config = load(next(path for path in EXAMPLES if path.stem == "iterative"))
    assert (config.rounds, config.reference, config.round_prompts) == (3, "last", "same")
