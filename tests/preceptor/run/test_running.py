"""What a stage's fingerprint goes by, and how held-out replies are sampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from preceptor import folder
from preceptor.constitution.files import load
from preceptor.run.config import RunConfig
from preceptor.run.guard import GuardSettings, part
from preceptor.run.running import FIRST_NAMES, Run, chosen_prompts, held_out_replies
from preceptor.train.settings import DpoSettings


def test_a_stage_that_was_finished_under_former_names_of_settings_stays_finished(tmp_path: Path) -> None:
    run = Run(cast("Any", None), tmp_path, load("style"), cast("Any", None))
    now = {"settings": DpoSettings(model="embedded").model_dump(mode="json"), "more": [1]}
    then = {
        "settings": {FIRST_NAMES.get(name, name): value for name, value in now["settings"].items()},
        "more": [1],
    }
    assert {"take", "anchor", "on_top"} <= then["settings"].keys()
    assert run.fingerprint(now, ()) == folder.fingerprint(then, {})


@pytest.mark.parametrize(
    ("evaluate", "asked"), [({}, "Be brief."), ({"system": ""}, ""), ({"system": "Be kind."}, "Be kind.")]
)
def test_what_is_compared_may_have_another_system_message_than_what_is_learned_from(
    evaluate: dict[str, str], asked: str
) -> None:
    """The message of `respond` holds for both, unless `evaluate` has one; an empty one is none."""
    config = RunConfig.model_validate(
        {
            "out": "run",
            "model": "embedded",
            "judge": "checks",
            "constitution": "brief",
            "prompts": {"file": "everyday"},
            "respond": {"system": "Be brief."},
            "evaluate": evaluate,
        }
    )
    assert held_out_replies(config).system == asked


def test_columns_of_every_file_of_prompts_may_have_other_names(tmp_path: Path) -> None:
    """Those to train on, those held out and the guard's; a shipped pool has ours. A name that is none is told."""
    values = {"out": "run", "model": "embedded", "judge": "checks", "constitution": "brief"}

    def config(name: str, *columns: str, held_out: str = "") -> RunConfig:
        prompts = {"file": f"{tmp_path}/{name}", "held_out": held_out or f"{tmp_path}/held-{name}"}
        return RunConfig.model_validate({**values, "prompts": {**prompts, "map": columns}})

    for start, texts in (("", ("a", "b")), ("held-", ("c",))):
        for name, column in (("plain.jsonl", "prompt"), ("named.jsonl", "question")):
            rows = [json.dumps({column: text}) + "\n" for text in texts]
            (tmp_path / f"{start}{name}").write_text("".join(rows))
    named = config("named.jsonl", "prompt=question")
    assert chosen_prompts(named) == chosen_prompts(config("plain.jsonl"))
    assert chosen_prompts(config("named.jsonl", "prompt=question", held_out="everyday")).held_out
    guard = GuardSettings(judge="checks", prompts=str(tmp_path / "held-named.jsonl"))
    looked_at = part(chosen_prompts(named).train, [], guard, 0, named.prompts.columns).looked_at
    assert [prompt.messages[0].content for prompt in looked_at] == ["c"]
    assert "map" not in config("plain.jsonl").model_dump()["prompts"]
    with pytest.raises(ValidationError, match="neither is a column of ours"):
        config("named.jsonl", "one=two")
