"""Settings by the names that they had in the version before: read with a warning, and the same training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from preceptor.train.loop.output_folder import SETTINGS, open_folder, training_identity
from preceptor.train.settings import DpoSettings, PairSettings, RewardModelSettings

VALUES: dict[str, Any] = {
    "final_checkpoint": "best",
    "center_rewards_coefficient": 0.01,
    "rpo_alpha": 0.5,
    "stack_adapter": True,
}
BESIDE = {"model": "embedded", "held_out": 0.5, "adapter": "somewhere"}
CASES = [
    pytest.param(kind, name, old, id=f"{kind.__name__}.{old}")
    for kind in (PairSettings, RewardModelSettings, DpoSettings)
    for name, old in kind.former.items()
]


@pytest.mark.parametrize(("kind", "name", "old"), CASES)
def test_a_former_name_is_read_with_a_warning(
    kind: type[PairSettings], name: str, old: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        before = kind.model_validate(BESIDE | {old: VALUES[name]})
    assert [record.getMessage() for record in caplog.records] == [
        f"{old} is now {name}; the former name goes with the next version"
    ]
    caplog.clear()
    assert before == kind.model_validate(BESIDE | {name: VALUES[name]})
    assert not caplog.records
    assert name in before.model_fields_set
    with pytest.raises(ValidationError, match=old):
        kind.model_validate(BESIDE | {name: VALUES[name], old: VALUES[name]})


@pytest.mark.parametrize(("kind", "name", "old"), CASES)
def test_a_training_that_was_begun_under_former_names_goes_on(
    tmp_path: Path, kind: type[PairSettings], name: str, old: str
) -> None:
    settings = kind.model_validate(BESIDE | {name: VALUES[name]})
    identity = training_identity("dpo", settings, {"rows": "0"})
    values = {old if key == name else key: value for key, value in identity["settings"].items()}
    assert old in values
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / SETTINGS).write_text(json.dumps({**identity, "settings": values}))
    assert open_folder(folder, identity).identity == identity
