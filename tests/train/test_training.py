"""What holds for every training: resume, counts, manifest, output folder."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from preceptor.train.data.readers import Demonstration
from preceptor.train.data.unpaired import UnpairedExample
from preceptor.train.dpo import train_dpo
from preceptor.train.errors import CheckpointError, RunFolderError, TrainDataError
from preceptor.train.forward.layout_check import BatchLayout
from preceptor.train.kto import train_kto
from preceptor.train.loop.output_folder import Trained, origins_of
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.reward import train_reward
from preceptor.train.settings import DpoSettings, KtoSettings, LoopSettings, RewardModelSettings, SftSettings
from preceptor.train.sft import train_sft
from tests.jsonl import metrics_of
from tests.train.architectures import tiny_model
from tests.train.tiny import preference, tiny_tokenizer

PAIRS = [preference(number, 0.5 + number % 6 / 10) for number in range(24)]
DEMONSTRATIONS = [
    Demonstration(id=row.id, prompt=row.prompt, completion=row.chosen[0].content) for row in PAIRS
]
VERDICTS = [
    UnpairedExample(id=row.id, prompt=row.prompt, completion=row.completion, good=number % 2 == 0)
    for number, row in enumerate(DEMONSTRATIONS)
]
STAGES: dict[str, tuple[Callable[..., Trained], type[LoopSettings], list[Any]]] = {
    "sft": (train_sft, SftSettings, DEMONSTRATIONS),
    "reward": (train_reward, RewardModelSettings, PAIRS),
    "dpo": (train_dpo, DpoSettings, PAIRS),
    "kto": (train_kto, KtoSettings, VERDICTS),
}


class StoppedError(Exception):
    """What a signal would do."""


def settings_of(stage: str, tiny: Path, **changes: Any) -> LoopSettings:
    values = {"model": str(tiny), "batch_size": 4, "epochs": 2, "checkpoint_every": 2, "learning_rate": 1e-3}
    return STAGES[stage][1].model_validate({**values, "rank": 4, "alpha": 8, **changes})


def run(stage: str, settings: LoopSettings, out: Path, **more: Any) -> Trained:
    return STAGES[stage][0](more.pop("rows", STAGES[stage][2]), settings, out, **more)


def stop_at(step: int) -> Callable[[TrainingProgress], None]:
    def watch(now: TrainingProgress) -> None:
        if now.step == step:
            raise StoppedError

    return watch


@pytest.fixture(scope="module")
def unbroken(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Stage -> its training with the settings of `settings_of`, made once."""
    return cache(lambda stage: run(stage, settings_of(stage, tiny), tmp_path_factory.mktemp(stage) / "whole"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_resumed_training_equals_an_unbroken_one_to_the_bit(
    tiny: Path, tmp_path: Path, stage: str, steps: int, unbroken: Callable[[str], Trained]
) -> None:
    """Stopped before the first checkpoint, between two, and in the second epoch: same metrics, same weights."""
    settings = settings_of(stage, tiny)
    whole = unbroken(stage)
    with pytest.raises(StoppedError):
        run(stage, settings, tmp_path / "broken", watch=stop_at(steps))
    seen: list[TrainingProgress] = []
    resumed = run(stage, settings, tmp_path / "broken", watch=seen.append)
    assert seen[0].step == (1 if steps == 1 else (steps - 1) // 2 * 2 + 1)  # after the last checkpoint
    assert not resumed.finished_before
    assert (whole.steps, whole.rows, whole.metrics) == (resumed.steps, resumed.rows, resumed.metrics)
    texts = [(folder / "metrics.jsonl").read_text() for folder in (whole.folder, resumed.folder)]
    assert texts[0] == texts[1]
    assert sum('"loss"' in line for line in texts[0].splitlines()) == whole.steps
    for name in ("adapter_model.safetensors", "score_head.safetensors")[: 2 if stage == "reward" else 1]:
        ours, theirs = (load_file(folder / name) for folder in (whole.folder, resumed.folder))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer_state.json", "optimizer.pt", "whole"])
def test_a_checkpoint_that_was_altered_is_named_and_the_one_before_is_taken(
    tiny: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of("dpo", tiny, keep_checkpoints=2)
    with pytest.raises(StoppedError):
        run("dpo", settings, tmp_path / "broken", watch=stop_at(5))
    (path,) = (tmp_path / "broken/checkpoints/checkpoint-4").rglob(name)
    whole = path.read_bytes()
    path.write_bytes(
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    )
    seen: list[TrainingProgress] = []
    resumed = run("dpo", settings, tmp_path / "broken", watch=seen.append)
    assert seen[0].step == 3
    assert "checkpoint-4 is not resumed from" in caplog.text
    if name != "whole":
        assert name in caplog.text
    assert resumed.metrics == run("dpo", settings, tmp_path / "unbroken").metrics


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_layout_and_passes_change_no_step(
    tiny: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of every step is that of two plain rows and the model's own forward, in one pass or in many,
    activations kept or recomputed."""

    def losses(name: str, **changes: Any) -> list[dict[str, float]]:
        folder = run(stage, settings_of(stage, tiny, **changes), tmp_path / name).folder
        rows = metrics_of(folder)
        return [row for row in rows if "loss" in row]

    shared, in_passes = losses("shared"), losses("passes", pass_tokens=100)
    recomputed = losses("recomputed", gradient_checkpointing=True)
    monkeypatch.setattr(
        f"preceptor.train.{stage}.choose_layout", lambda *_, **__: BatchLayout(False, True, ("plain",))
    )
    apart = losses("apart")
    assert json.loads((tmp_path / "apart/manifest.json").read_text())["notes"] == ["plain"]
    assert json.loads((tmp_path / "shared/manifest.json").read_text())["notes"] == []
    for others in (in_passes, recomputed, apart):
        assert len(others) == len(shared)
        for ours, theirs in zip(shared, others, strict=True):
            assert ours.keys() == theirs.keys()
            if ours["loss"] == pytest.approx(math.log(2), abs=1e-6):
                # the policy is still its reference: which of two equal replies is ahead is rounding
                ours, theirs = ours | {"accuracy": 0.0}, theirs | {"accuracy": 0.0}
            assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=2e-3, abs=1e-4)
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_a_model_that_takes_no_mask_of_ours_is_trained_in_two_rows_and_says_so(
    tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "bloom"
    tiny_model("bloom").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    trained = run(stage, settings_of(stage, folder, epochs=1), tmp_path / "out")
    assert len(trained.notes) == 1
    assert "BloomForCausalLM does not take the shared prompt's mask" in trained.notes[0]
    again = run(stage, settings_of(stage, folder, epochs=1), tmp_path / "out")
    assert again.notes == trained.notes


def test_an_adapter_on_top_resumes_to_the_bit_too(tiny: Path, tmp_path: Path) -> None:
    adapter = str(run("sft", settings_of("sft", tiny, epochs=1), tmp_path / "sft").folder)
    settings = settings_of("dpo", tiny, adapter=adapter, stack_adapter=True)
    whole = run("dpo", settings, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run("dpo", settings, tmp_path / "broken", watch=stop_at(5))
    resumed = run("dpo", settings, tmp_path / "broken")
    assert whole.metrics == resumed.metrics
    ours, theirs = (load_file(t.folder / "adapter_model.safetensors") for t in (whole, resumed))
    assert all(ours[key].equal(theirs[key]) for key in ours)


def test_a_checkpoint_cut_short_is_not_read(tiny: Path, tmp_path: Path) -> None:
    """A kill while writing leaves a folder without the mark that is made last."""
    settings = settings_of("dpo", tiny)
    with pytest.raises(StoppedError):
        run("dpo", settings, tmp_path / "out", watch=stop_at(5))
    (tmp_path / "out/checkpoints/checkpoint-4/whole").unlink()
    (tmp_path / "out/checkpoints/checkpoint-4/optimizer.pt").write_bytes(b"half")
    seen: list[TrainingProgress] = []
    resumed = run("dpo", settings, tmp_path / "out", watch=seen.append)
    assert seen[0].step == 3
    assert resumed.metrics == run("dpo", settings, tmp_path / "whole").metrics


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_training_is_recognised_and_proves_itself(tiny: Path, tmp_path: Path, stage: str) -> None:
    settings = settings_of(stage, tiny, epochs=1)
    first = run(stage, settings, tmp_path / "out", read={"source": "rows.jsonl"})
    manifest = json.loads((first.folder / "manifest.json").read_text())
    again = run(stage, settings.model_copy(update={"checkpoint_every": 7}), first.folder)
    assert again == first._replace(finished_before=True, wall_s=0.0)
    assert manifest["read"] == {"source": "rows.jsonl"}
    assert manifest["settings"]["rank"] == 4
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((first.folder / name).read_bytes()).hexdigest() == digest
    assert "adapter_model.safetensors" in manifest["files"]
    assert not (first.folder / "checkpoints").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_rows_in_are_used_held_out_or_set_aside(tiny: Path, tmp_path: Path, stage: str) -> None:
    trained = run(stage, settings_of(stage, tiny, epochs=1, max_length=27), tmp_path / "out")
    rows = trained.rows
    assert rows["in"] == 24 == rows["used"] + rows["held_out"] + sum(rows["set_aside"].values())
    assert rows["set_aside"]
    assert rows["shortened"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_to_train_on_is_said_with_its_reasons(tiny: Path, tmp_path: Path, stage: str) -> None:
    with pytest.raises(
        TrainDataError,
        match=r"nothing to train on among 24 rows: \d+ set aside because a reply alone|the reply alone",
    ):
        run(stage, settings_of(stage, tiny, max_length=3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_or_rows_in_the_same_folder_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("dpo", settings_of("dpo", tiny, epochs=1), out)
    with pytest.raises(
        RunFolderError, match=r"begun differently: beta was 0\.1 and is now 0\.2; rank was 4 and is now 8\."
    ):
        run("dpo", settings_of("dpo", tiny, epochs=1, beta=0.2, rank=8), out)
    with pytest.raises(RunFolderError, match="begun differently: rows was"):
        run("dpo", settings_of("dpo", tiny, epochs=1), out, rows=PAIRS[:20])
    with pytest.raises(RunFolderError, match=r"already holds something else \(dpo, and no reward\)"):
        run("reward", settings_of("reward", tiny, epochs=1), out)


def test_a_changed_adapter_of_the_same_name_is_noticed(tiny: Path, tmp_path: Path) -> None:
    """Otherwise a new SFT adapter would leave an old policy standing."""
    run("sft", settings_of("sft", tiny, epochs=1), tmp_path / "sft")
    settings = settings_of("dpo", tiny, epochs=1, adapter=str(tmp_path / "sft"))
    run("dpo", settings, tmp_path / "out")
    run("sft", settings_of("sft", tiny, epochs=1, seed=1), tmp_path / "other")
    (tmp_path / "sft").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "sft")
    with pytest.raises(RunFolderError, match="adapter was"):
        run("dpo", settings, tmp_path / "out")


def test_a_folder_that_holds_something_else_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="already holds something else: choose another"):
        run("dpo", settings_of("dpo", tiny), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written_to_is_said_before_training(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot"):
        run("dpo", settings_of("dpo", tiny), tmp_path / "file" / "out")


def test_tensorboard_files_are_written_where_asked_for(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = run("dpo", settings_of("dpo", tiny, epochs=1, tensorboard=True), tmp_path / "out").folder
    assert list((out / "tensorboard").glob("events.*"))


def test_the_manifest_names_constitutions_and_judges_of_the_rows(tiny: Path, tmp_path: Path) -> None:
    other = PAIRS[0].model_copy(update={"constitution": "a@1.0.0#0", "judge": "z"})
    run("dpo", settings_of("dpo", tiny), tmp_path / "out", rows=[*PAIRS[:8], other])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["constitutions"] == ["a@1.0.0#0", "test@1.0.0#000000000000"]
    assert manifest["judges"] == ["scripted/test", "z"]
    assert origins_of(DEMONSTRATIONS) == origins_of([]) == {"constitutions": [], "judges": []}
    told = VERDICTS[0].model_copy(update={"judge": "z"})
    assert origins_of([*VERDICTS[1:], told]) == {"constitutions": [], "judges": ["unknown", "z"]}


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_the_best_checkpoint_is_kept_beside_the_last_and_taken_where_asked_for(
    tiny: Path, tmp_path: Path, stage: str
) -> None:
    """The result is that checkpoint's adapter, byte for byte, also where the training was resumed."""
    changes = {
        "held_out": 0.3,
        "final_checkpoint": "best",
        "learning_rate": 5e-2,
        "keep_checkpoints": 1,
        "epochs": 3,
    }
    settings = settings_of(stage, tiny, **changes)
    out, copy = tmp_path / "out", tmp_path / "copy"

    def watch(now: TrainingProgress) -> None:
        if now.step == now.steps:  # its own checkpoint is not yet written
            shutil.copytree(out / "checkpoints", copy)

    with pytest.raises(StoppedError):
        run(stage, settings, out, watch=stop_at(3))
    trained = run(stage, settings, out, watch=watch)
    rows = metrics_of(out)
    measured = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
    assert sorted(measured) == [*range(2, trained.steps, 2), trained.steps]
    best = min(measured, key=lambda step: measured[step])
    assert best < trained.steps  # or nothing would be shown: this rate is far too high
    assert f"the result is the checkpoint of step {best} of {trained.steps}" in trained.notes[-1]
    kept = {path.name for path in copy.iterdir()}
    assert f"checkpoint-{best}" in kept
    assert len(kept) <= 2
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (copy / f"checkpoint-{best}" / name).read_bytes()


@pytest.mark.parametrize("form", ["dora", "rslora"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_other_forms_of_lora_pass_through(tiny: Path, tmp_path: Path, stage: str, form: str) -> None:
    """They train, say what they are, and load with plain PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = run(stage, settings_of(stage, tiny, epochs=1, **{form: True}), tmp_path / "out").folder
    assert json.loads((out / "adapter_config.json").read_text())[f"use_{form}"]
    base = AutoModelForCausalLM.from_pretrained(tiny)
    ids = torch.arange(5, 25)[None]
    before = base(input_ids=ids).logits
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # peft 0.21 asks by the old name
        adapted = PeftModel.from_pretrained(base, out)
    assert not torch.allclose(adapted(input_ids=ids).logits, before)


def test_what_cannot_be_had_here_is_said_at_once(tiny: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(CheckpointError, match="four_bit needs a CUDA GPU and the package bitsandbytes"):
            run("dpo", settings_of("dpo", tiny, four_bit=True), tmp_path / "out")
    if find_spec("swanlab") is None:
        with pytest.raises(
            RunFolderError, match="cannot report to swanlab: it is not installed; pip install"
        ):
            run("dpo", settings_of("dpo", tiny, report_to=("swanlab",)), tmp_path / "out")
    with pytest.raises(ValidationError, match="final_checkpoint best needs held_out"):
        settings_of("dpo", tiny, final_checkpoint="best")
    with pytest.raises(ValidationError, match="only plain LoRA can be"):
        settings_of("dpo", tiny, adapter="x", stack_adapter=True, dora=True)
