"""What a stage's fingerprint goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from preceptor import folder
from preceptor.constitution.files import load
from preceptor.run.running import FIRST_NAMES, Run
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
