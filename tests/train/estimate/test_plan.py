"""What is planned before any weights are loaded is what the training then takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from preceptor.prompts.rows import write_rows
from preceptor.train.dpo import plan_dpo
from preceptor.train.errors import CheckpointError, TrainDataError
from preceptor.train.estimate import plan as planning
from preceptor.train.estimate.dry_run import ComputeCost
from preceptor.train.estimate.matmul_speed import Speed
from preceptor.train.estimate.plan import TrainingPlan
from preceptor.train.estimate.schedule import total_steps
from preceptor.train.kto import plan_kto
from preceptor.train.reward import plan_reward
from preceptor.train.settings import LoopSettings
from preceptor.train.sft import plan_sft
from tests.command_line import Preceptor
from tests.train.architectures import tiny_model
from tests.train.test_training import STAGES, StoppedError, run, settings_of, stop_at
from tests.train.tiny import preference, save_tiny, tiny_tokenizer

PLANS: dict[str, Callable[[Sequence[Any], Any], TrainingPlan]] = {
    "sft": plan_sft,
    "reward": plan_reward,
    "dpo": plan_dpo,
    "kto": plan_kto,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of pairs in a folder of its own."""
    (tmp_path / "here").mkdir()
    write_rows(tmp_path / "here/rows.jsonl", [preference(number) for number in range(12)])
    return tmp_path / "here/rows.jsonl"


def planned(stage: str, settings: LoopSettings) -> TrainingPlan:
    return PLANS[stage](STAGES[stage][2], settings)


@pytest.mark.parametrize("stage", STAGES)
def test_the_embedded_model_takes_what_was_planned(tmp_path: Path, stage: str) -> None:
    """Steps to the step, memory and disk within 15 % (on a CPU memory comes out within 1 %)."""
    settings = settings_of(stage, "embedded", rank=16, alpha=32, checkpoint_every=3)  # type: ignore[arg-type]
    plan = planned(stage, settings)
    trained = run(stage, settings, tmp_path / "out")
    assert plan.steps == trained.steps == trained.measured["steps"]
    assert (plan.stage, plan.rows) == (stage, trained.rows["used"])
    for key in ("memory_bytes", "disk_bytes"):
        assert trained.plan[key] == getattr(plan, key)
        assert getattr(plan, key) == pytest.approx(trained.measured[key], rel=0.15), key
    kept = sum(path.stat().st_size for path in trained.folder.rglob("*") if path.is_file())
    assert plan.kept_bytes == pytest.approx(kept, rel=0.15)
    assert sum(plan.memory.values()) == plan.memory_bytes
    manifest = json.loads((trained.folder / "manifest.json").read_text())
    assert (manifest["plan"], manifest["measured"]) == (trained.plan, trained.measured)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("reward", {"pass_tokens": 100}),
        ("reward", {"gradient_checkpointing": True}),
        ("dpo", {"pass_tokens": 100, "batch_size": 8, "loss": "simpo", "gamma": 0.5}),
        ("dpo", {"gradient_checkpointing": True}),
        ("dpo", {"rank": 64, "epochs": 0.4}),
        ("sft", {"gradient_checkpointing": True, "batch_size": 5}),
        ("kto", {"gradient_checkpointing": True, "max_length": 40}),
    ],
)
def test_other_settings_take_what_was_planned_too(
    tiny: Path, tmp_path: Path, stage: str, changes: dict[str, Any]
) -> None:
    settings = settings_of(stage, tiny, **changes)
    plan = planned(stage, settings)
    trained = run(stage, settings, tmp_path / "out")
    assert plan.steps == trained.steps
    assert plan.memory_bytes == pytest.approx(trained.measured["memory_bytes"], rel=0.15)


@pytest.mark.parametrize("on_top", [False, True])
def test_adapters_that_are_there_already_are_planned_for(tiny: Path, tmp_path: Path, on_top: bool) -> None:
    adapter = str(run("sft", settings_of("sft", tiny, epochs=1), tmp_path / "sft").folder)
    settings = settings_of("dpo", tiny, adapter=adapter, stack_adapter=on_top)
    bare = planned("dpo", settings_of("dpo", tiny))
    plan = planned("dpo", settings)
    trained = run("dpo", settings, tmp_path / "out")
    assert plan.memory_bytes == pytest.approx(trained.measured["memory_bytes"], rel=0.15)
    assert plan.memory["weights"] - bare.memory["weights"] == bare.memory["adapter"]  # the frozen one


def test_a_model_with_two_rows_a_pair_is_planned_so(tmp_path: Path) -> None:
    folder = tmp_path / "bloom"
    tiny_model("bloom").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    settings = settings_of("dpo", folder, epochs=1)
    plan = planned("dpo", settings)
    assert plan.two_rows
    trained = run("dpo", settings, tmp_path / "out")
    assert plan.memory_bytes == pytest.approx(trained.measured["memory_bytes"], rel=0.15)


def test_recomputing_takes_less_and_gives_the_same_to_the_bit(tiny: Path, tmp_path: Path) -> None:
    """That is why it does not stand in a folder's identity."""
    kept = settings_of("dpo", tiny, gradient_checkpointing=False)
    recomputed = kept.model_copy(update={"gradient_checkpointing": True})
    assert planned("dpo", recomputed).memory["pass"] < planned("dpo", kept).memory["pass"]
    folders = [
        run("dpo", settings, tmp_path / str(number)).folder
        for number, settings in enumerate((kept, recomputed))
    ]
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert all(ours[key].equal(theirs[key]) for key in ours)
    assert len({(folder / "metrics.jsonl").read_text() for folder in folders}) == 1


@pytest.mark.parametrize(
    ("said", "share", "expected"),
    [(None, 0.9, True), (None, 1.1, False), (False, 0.9, False), (True, 1.1, True)],
)
def test_gradients_are_checkpointed_where_memory_would_not_do_without(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: bool | None,
    share: float,
    expected: bool,
) -> None:
    """The only thing set here is what the system says is free."""
    settings = settings_of("dpo", tiny, gradient_checkpointing=said, epochs=1)
    needed = planned("dpo", settings.model_copy(update={"gradient_checkpointing": False})).memory_bytes
    assert needed is not None
    monkeypatch.setattr(planning, "available_bytes", lambda _: int(share * needed))
    plan = planned("dpo", settings)
    assert plan.gradient_checkpointing is expected
    decided = [note for note in plan.notes if note.startswith("gradient checkpointing is on: without it")]
    assert bool(decided) is (said is None and expected)
    assert plan.memory_bytes is not None
    if expected:
        assert plan.memory_bytes < needed
    else:
        assert plan.memory_bytes == needed
        assert any("are needed and" in note for note in plan.notes) is (share < 1)


def test_what_was_decided_is_noted_and_a_resumed_training_may_decide_otherwise(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("dpo", tiny)
    whole = run("dpo", settings, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run("dpo", settings, tmp_path / "broken", watch=stop_at(5))
    monkeypatch.setattr(planning, "available_bytes", lambda _: 0)  # and the loaded weights
    resumed = run("dpo", settings, tmp_path / "broken")
    assert resumed.plan["gradient_checkpointing"]
    assert any(note.startswith("gradient checkpointing is on") for note in resumed.notes)
    assert resumed.metrics == whole.metrics


def test_a_plan_reads_no_weights(tmp_path: Path) -> None:
    """They are noise here, and of the wrong size."""
    folder = save_tiny(tmp_path / "tiny")
    settings = settings_of("reward", folder)
    before = planned("reward", settings)
    (folder / "model.safetensors").write_bytes(b"no weights")
    varies: dict[str, Any] = {"time_s": 0, "time_range_s": None, "time": {}, "available_bytes": 0}
    assert planned("reward", settings)._replace(**varies) == before._replace(**varies)


def test_what_cannot_be_trained_is_told_by_the_plan_already(tiny: Path) -> None:
    for stage in PLANS:
        with pytest.raises(TrainDataError, match="nothing to train on"):
            planned(stage, settings_of(stage, tiny, max_length=3))
    with pytest.raises(CheckpointError, match="did you mean 'embedded'"):
        planned("dpo", settings_of("dpo", tiny, model="embeded"))


def test_steps_are_counted_as_the_library_does() -> None:
    assert [total_steps(6, epochs) for epochs in (1.0, 2.0, 0.5, 0.4, 0.1)] == [6, 12, 3, 3, 1]


def test_time_is_the_sum_of_what_each_kind_of_work_takes() -> None:
    speed = Speed(flops_a_s=100.0, bytes_a_s=10.0, operation_s=0.5)
    work = ComputeCost(flops=200.0, moved_bytes=30.0, operations=4.0)
    assert speed.seconds(work) == pytest.approx(2.0 + 3.0 + 2.0)


def test_the_command_says_it_and_does_nothing(
    preceptor: Preceptor, tiny: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    words = ["train", "reward", file, "--model", tiny, "--out", "out", "--batch-size", 4, "--plan", "--json"]
    ended = preceptor(*words)
    assert ended.code == 0, ended.err
    assert "3 steps; nothing was done" in ended.err
    assert "MiB of tensors" in ended.err
    assert json.loads(ended.out)["steps"] == 3
    assert [path.name for path in file.parent.iterdir()] == ["rows.jsonl"]


def test_the_command_sets_both_side_by_side_at_the_end(preceptor: Preceptor, tiny: Path, file: Path) -> None:
    ended = preceptor("train", "dpo", file, "--model", tiny, "--out", "out", "--batch-size", 4)
    assert ended.code == 0, ended.err
    text = " ".join(ended.err.split())
    for figure in (r"memory [\d.]+ MiB", r"disk [\d.]+ MiB", r"time [\d.]+ s"):
        assert re.search(f"{figure} planned, [\\d.]+ (MiB|s) measured", text), text
