"""What the trainings on files share: nothing is written before all is known, and what is finished is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.train.estimate.plan import TrainingPlan
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.run import Ran
from preceptor.train.loop.session import Started, start_training
from preceptor.train.settings import DpoSettings
from tests.train.tiny import preference

ROWS = [preference(number) for number in range(2)]
PLAN = TrainingPlan(
    stage="dpo",
    steps=7,
    rows=2,
    tokens=40,
    memory_bytes=None,
    memory={},
    available_bytes=None,
    disk_bytes=None,
    kept_bytes=None,
    time_s=None,
    time_range_s=None,
    time={},
    gradient_checkpointing=True,
    heaviest_step=None,
    two_rows="",
    notes=(),
)
COUNTS = {"in": 2, "used": 2, "held_out": 0, "set_aside": {}, "shortened": 0}
RAN = Ran({"loss": 0.5}, {"disk_bytes": 10**9}, ("a note",), 7)


def test_a_training_goes_from_its_folder_to_its_manifest_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the plan decides what the settings left open."""
    settings, out = DpoSettings(model=str(tiny)), tmp_path / "out"
    started = start_training("dpo", ROWS, settings, out)
    assert isinstance(started, Started)
    session = started.planned(PLAN)
    assert (settings.gradient_checkpointing, session.settings.gradient_checkpointing) == (None, True)
    assert not out.exists(), "what fails before the training begins leaves no folder behind"
    session.begin()
    ours = session.finish(COUNTS, RAN, {"files": ["rows.jsonl"]})
    monkeypatch.setattr("preceptor.train.loop.session.load_for", None)  # nothing is loaded any more
    found = start_training("dpo", ROWS, settings, out)
    assert isinstance(found, Trained)
    assert found.finished_before
    assert found._replace(finished_before=False, wall_s=ours.wall_s) == ours._replace(
        plan={**ours.plan, "notes": []}
    )
    assert (found.rows, found.metrics, found.steps, found.notes) == (COUNTS, {"loss": 0.5}, 7, ("a note",))
    assert found.measured["disk_bytes"] == 10**9
    assert (out / "tokenizer.json").is_file()


def test_another_process_than_the_first_hands_back_what_it_knows(tiny: Path, tmp_path: Path) -> None:
    started = start_training("dpo", ROWS, DpoSettings(model=str(tiny)), tmp_path / "out")
    assert isinstance(started, Started)
    trained = started.planned(PLAN).handed_back(COUNTS, RAN)
    assert (trained.rows, trained.steps, trained.metrics) == (COUNTS, 7, {"loss": 0.5})
    assert not (tmp_path / "out").exists()
