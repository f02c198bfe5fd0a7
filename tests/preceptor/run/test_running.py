"""What a stage's fingerprint goes by, and how held-out replies are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from preceptor import folder
from preceptor.constitution.files import load
from preceptor.run.config import RunConfig
from preceptor.run.running import FIRST_NAMES, Run, held_out_replies
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
