"""The table of a run's stages: it is complete, documents follow it, and other packages add to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor import folder
from preceptor.constitution.errors import UserError
from preceptor.records import StageRecord
from preceptor.run import files, outside, pipeline
from preceptor.run.config import RunConfig, load
from preceptor.run.running import Run, Stage
from preceptor.run.stages import described, faults_of, own_stages, stages_of

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLE = ROOT / "examples" / "extending" / "stage.py"
LEAST: dict[str, Any] = {
    "out": "out",
    "model": "embedded",
    "judge": "embedded",
    "constitution": "front-desk",
    "prompts": {"file": "front-desk"},
}
ALL: dict[str, Any] = LEAST | {
    "revise": {},
    "sft": {},
    "reward": {},
    "ppo": {"guard": {"judge": "oracle/embedded"}},
    "rounds": 2,
    "round_prompts": "split",
}


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    """Run files with every section there or absent."""
    values = dict(LEAST)
    if draw(st.booleans()):
        values["revise"] = {}
        values |= {"sft": {}} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        values["reward"] = {}
        if draw(st.booleans()):
            values["ppo"] = {"start": draw(st.sampled_from(["start", "dpo"]))}
    values |= {} if draw(st.booleans()) else {"probes": None}
    values["rounds"] = draw(st.integers(1, 4))
    values["reference"] = draw(st.sampled_from(["first", "last"]))
    values["round_prompts"] = draw(st.sampled_from(["same", "split"]))
    return RunConfig.model_validate(values)


@given(runs())
def test_a_stage_reads_what_stages_before_it_wrote(config: RunConfig) -> None:
    """And writes what no other writes, which the table of files knows; its sections are keys of a run file."""
    every = own_stages(config)
    for number, stage in enumerate(every):
        assert list(faults_of(stage, every[:number])) == []
        assert stage.outputs
        assert {files.base_name(name) for name in stage.outputs} <= set(files.FILES)
        assert set(stage.sections) <= set(RunConfig.model_fields)


def test_every_file_of_a_run_folder_is_some_stages() -> None:
    """Of the table of files, in runs with and without rounds; and the files of the contract that stages write."""
    written: set[str] = set()
    for rounds in (1, 2):
        config = RunConfig.model_validate(ALL | {"rounds": rounds})
        written |= {name for stage in own_stages(config) for name in stage.outputs}
    assert set(files.FILES) == {files.base_name(name) for name in written}
    assert written >= {
        *("1-prompts.jsonl", "2-responses.jsonl", "3-revisions.jsonl", "4-labels.jsonl"),
        *("5-preferences.jsonl", "6-reward", "7-policy", "8-heldout.jsonl"),
    }


def test_what_is_amiss_with_a_stage_is_found() -> None:
    every = own_stages(RunConfig.model_validate(LEAST))
    assert "which no stage before it writes" in next(faults_of(every[-1], every[:1]))
    assert list(faults_of(every[0], every[:1])) == [
        "there is a stage prompts already",
        "it writes 1-prompts.jsonl, which another stage writes",
        "it writes 1-prompts-held-out.jsonl, which another stage writes",
    ]


def test_the_page_of_stages_is_the_table() -> None:
    page = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    assert described(own_stages(RunConfig.model_validate(ALL))) in page
    for name, file in files.FILES.items():
        assert f"| `{name}` | {file.holds} |" in page


class Quiet:
    """A screen that keeps what was done."""

    def __init__(self) -> None:
        self.done_again: list[bool] = []

    def asking(self, stage: str) -> Any:
        raise AssertionError(f"{stage} asks nobody")

    training = asking

    def done(self, _: StageRecord, again: bool) -> None:
        self.done_again.append(again)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example in a package, as an installer would leave it; the working directory is an empty one."""
    site, here = tmp_path / "site", tmp_path / "here"
    about = site / "mine-1.0.dist-info"
    about.mkdir(parents=True)
    here.mkdir()
    shutil.copy(EXAMPLE, site / "lengths_example.py")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[preceptor.stages]\nlengths = lengths_example:LENGTHS\nother = lengths_example:LENGTHS\n"
        "file = lengths_example:FILE\nbroken = nowhere:STAGE\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(here)
    return here


def run_file(place: Path, more: str) -> Path:
    path = place / "run.yaml"
    path.write_text(json.dumps(LEAST)[:-1] + f", {more}}}")
    return path


def held_out(number: int) -> dict[str, Any]:
    """A row of 8-heldout.jsonl whose reply grows from one word to three."""
    prompt = {"id": f"p{number}", "messages": [{"role": "user", "content": "Hello?"}]}
    label = {"id": f"p{number}", "prompt": prompt, "response_a": "b c d", "response_b": "a", "status": "tie"}
    replies = {"before": "a", "after": "b c d", "satisfied_before": {}, "satisfied_after": {}}
    return {
        "id": f"p{number}",
        "prompt": prompt,
        "label": label | {"constitution": "c", "judge": "j", "judgements": []},
        **replies,
    }


def test_a_package_brings_a_stage_of_its_own(installed: Path) -> None:
    """It comes last, is done once, again under other settings, and its file is in its record."""
    config = load(run_file(installed, "stages: {lengths: {longest: 2}}"))
    *before, stage = stages_of(config)
    assert [one.name for one in before] == [one.name for one in own_stages(config)]
    assert config.model_dump(mode="json")["stages"] == {"lengths": {"longest": 2}}
    (installed / "out").mkdir()
    rows = [json.dumps(held_out(number)) + "\n" for number in range(2)]
    (installed / "out" / files.HELD_OUT).write_text("".join(rows))
    screen = Quiet()

    def done(one: Stage) -> StageRecord:
        return Run(config, installed / "out", None, screen).carry_out(one)  # type: ignore[arg-type]  # not looked at

    record = done(stage)
    assert (record.rows_in, record.rows_out, record.figures) == (2, 2, {"long_after": 2})
    assert record.outputs == {"10-lengths.jsonl": folder.digest(installed / "out" / "10-lengths.jsonl")}
    done(stage)
    other = load(installed / "run.yaml", ["stages.lengths.longest=3"])
    assert done(stages_of(other)[-1]).figures == {"long_after": 0}
    assert screen.done_again == [False, True, False]
    assert [one.stage for one in pipeline._records(installed / "out", config.model_dump())] == ["lengths"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "stages: {length: {}}",
            "no installed package brings a stage length; wanted one of these: broken, file, ",
        ),
        ("stages: {lengths: {longest: 0}}", "lengths.longest is 0: Input should be greater than 0"),
        ("stages: {lengths: {shortest: 1}}", "lengths.shortest is 1: Extra inputs are not permitted"),
        ("stages: {broken: }", r"the stage broken \(nowhere:STAGE\) cannot be loaded \(ModuleNotFoundError"),
        ("stages: {file: }", "the stage file .* is str; wanted an OutsideStage"),
    ],
)
def test_a_stage_that_cannot_be_had_is_told(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(run_file(tmp_path, more))


def test_a_stage_that_does_not_fit_is_told(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(run_file(installed, "stages: {other: }"))
    with pytest.raises(UserError, match="it calls itself lengths; wanted other"):
        stages_of(config)
    both = load(run_file(installed, "stages: {lengths: }"))
    (stage,) = stages_of(both)[-1:]
    for names, message in (
        (
            {"inputs": ("6-reward",)},
            "it reads 6-reward, which no stage before it writes; there are 1-prompts",
        ),
        ({"outputs": ("8-heldout.jsonl",)}, "it writes 8-heldout.jsonl, which another stage writes"),
        ({"outputs": ("../10-x.jsonl",)}, "wanted a name of its own with a number before it"),
        ({"outputs": ("3-sft",)}, "wanted a name of its own with a number before it"),
    ):
        changed = Stage(**{**vars(stage), **names})
        monkeypatch.setattr(outside, "stage_of", lambda *_, changed=changed: changed)
        with pytest.raises(UserError, match=message):
            stages_of(both)
