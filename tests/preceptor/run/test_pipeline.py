"""A whole run, small, on the embedded model: every file of the contract, proof, resume, report."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from preceptor.cli.app import main
from preceptor.figures import RunManifest, RunSummary
from preceptor.prompts.manifest import file_hash
from preceptor.records import HeldOut
from preceptor.run import once, pipeline
from preceptor.run.config import load
from preceptor.run.guard import part
from preceptor.run.running import asking_of, chosen_prompts
from preceptor.run.verify import verify
from preceptor.train.embedded import WEIGHTS
from preceptor.train.evaluation.compare import kl_nats, reply_logprobs
from preceptor.train.evaluation.reward_figures import RewardFigures
from preceptor.train.loop.manifest import TrainingManifest
from tests.command_line import Preceptor
from tests.declared import faults
from tests.preceptor.resealed import reseal

pytestmark = pytest.mark.slow

RUN = """\
out: {out}
model: embedded
judge: embedded
constitution: front-desk
prompts: {{file: front-desk, limit: 10, held_out: front-desk-held-out, held_out_limit: 6}}
respond: {{samples: 3, max_tokens: 64}}
revise: {{rounds: 1, max_tokens: 64}}
revised_samples: 1
sft: {{epochs: 1}}
pairs: all
label: {{principles: each}}
reward: {{epochs: 1, held_out: 0.3}}
dpo: {{epochs: 1}}
ppo: {{epochs: 1, max_new_tokens: 32}}
evaluate: {{oracle: embedded}}
probes: {{size: 2}}
"""
FILES = [
    "manifest.json",
    "constitution.yaml",
    "1-prompts.jsonl",
    "2-responses.jsonl",
    "3-revisions.jsonl",
    "4-labels.jsonl",
    "5-preferences.jsonl",
    "6-reward",
    "7-policy",
    "7-ppo",
    "8-heldout.jsonl",
    "8-heldout-ppo.jsonl",
    "9-report.html",
    "ledger.db",
    "metrics",
    "summary.json",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; no test may change it."""
    place = tmp_path_factory.mktemp("run")
    (place / "run.yaml").write_text(RUN.format(out=place / "out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["preceptor", "run", str(place / "run.yaml")])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    return place / "out"


def test_every_file_of_the_contract_is_there(folder: Path) -> None:
    assert [name for name in FILES if not (folder / name).exists()] == []
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("before", "after", "win_rate", "kl_nats", "distinct_2", "wall_s", "cost_usd"):
        assert key in summary
    assert (
        summary["before"].keys()
        == summary["after"].keys()
        >= {"overall", "polite", "concise", "true-to-notes"}
    )
    assert 0 <= summary["reward_model"]["accuracy"] <= 1


def test_its_json_is_what_the_types_say(folder: Path) -> None:
    kinds = {
        "summary.json": RunSummary,
        "manifest.json": RunManifest,
        "6-reward/report_card.json": RewardFigures,
        "6-reward/manifest.json": TrainingManifest,
        "7-policy/manifest.json": TrainingManifest,
        "7-ppo/manifest.json": TrainingManifest,
    }
    for name, kind in kinds.items():
        assert list(faults(json.loads((folder / name).read_text()), kind)) == [], name


def test_failure_modes_are_measured_before_and_after(folder: Path, preceptor: Preceptor) -> None:
    """In the summary, on the page, on the screen, and with every reply; and `probes: null` leaves them out."""
    summary = json.loads((folder / "summary.json").read_text())
    figures = summary["probes"]["figures"]
    rows = [json.loads(line) for line in (folder / "8-probes.jsonl").read_text().splitlines()]
    assert len(figures) == 17
    assert len(rows) == summary["probes"]["n"] == 12
    openings = [row for row in rows if row["probe"]["kind"] == "open"]
    written = [len(said["text"].split()) for row in openings for said in row["after"]]
    assert len(written) == 4
    assert figures["words_per_reply"]["after"] == pytest.approx(sum(written) / 4, abs=1)
    assert figures["perplexity"]["before"] != figures["perplexity"]["after"]
    page = (folder / "9-report.html").read_text()
    assert "What tuning may have broken" in page
    assert "right answers that a false claim turns wrong" in page
    ended = preceptor("run", folder.parent / "run.yaml")
    assert "failure modes" in ended.out
    without = load(folder.parent / "run.yaml", ["probes=null"])
    assert without.probes is None
    assert once.PROBE not in [
        record.stage for record in pipeline.read_run(folder, without.model_dump()).stages
    ]


def test_it_proves_itself_until_something_is_changed(
    folder: Path, tmp_path: Path, preceptor: Preceptor
) -> None:
    assert preceptor("verify", folder).code == 0
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    rows = (copy / "5-preferences.jsonl").read_text().splitlines(keepends=True)
    (copy / "5-preferences.jsonl").write_text("".join(rows[1:]))
    ended = preceptor("verify", copy, "--json")
    assert ended.code == 1
    assert "5-preferences.jsonl" in json.loads(ended.out)["problems"][0]


def test_a_flipped_byte_of_any_file_is_found(folder: Path, tmp_path: Path) -> None:
    """Settings, metrics, reference log-probabilities, the ledger and the files of trainings too."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert {"ledger.db", "reference.db", "settings.json", "stages.jsonl"} <= {path.name for path in files}
    for path in files:
        whole = path.read_bytes()
        at = len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert verify(copy).problems, path
        path.write_bytes(whole)
    assert verify(copy).problems == []
    (copy / "more.txt").write_text("x")
    assert verify(copy).problems == ["more.txt: is not in SHA256SUMS; nothing vouches for it"]


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a response": (
        "2-responses.jsonl",
        lambda row: row.update(text="other"),
        "it is not what embedded replied",
    ),
    "a sample": ("3-responses.jsonl", lambda row: row.update(text="other"), "it is not what"),
    "a revision": (
        "3-revisions.jsonl",
        lambda row: row.update(text="other"),
        "its text is not its last draft",
    ),
    "a label": ("4-labels.jsonl", lambda row: row.update(probability=0.123), "its judgements say"),
    "a verdict": ("4-labels.jsonl", lambda row: row["judgements"][0].update(reason="x"), "4-labels.jsonl"),
    "a held-out reply": (
        "8-heldout.jsonl",
        lambda row: row.update(after="other"),
        "its replies are not those",
    ),
    "what the oracle says": (
        "8-heldout.jsonl",
        lambda row: row["satisfied_after"].update(polite=not row["satisfied_after"]["polite"]),
        "the oracle finds otherwise",
    ),
}


@pytest.mark.parametrize(("name", "change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_a_row_of_any_file_is_derived_once_more(
    name: str, change: Callable[[dict[str, Any]], object], said: str, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    rows = [json.loads(line) for line in (copy / name).read_text().splitlines()]
    change(rows[0])
    (copy / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    sha = file_hash(copy / name)
    lines = [json.loads(line) for line in (copy / "metrics/stages.jsonl").read_text().splitlines()]
    for line in lines:
        line["outputs"] |= {name: sha} if name in line["outputs"] else {}
    (copy / "metrics/stages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def of_stages(manifest: dict[str, Any]) -> None:
        for stage in manifest["stages"]:
            stage["outputs"] |= {name: sha} if name in stage["outputs"] else {}

    reseal(copy, of_stages)
    assert any(problem.startswith(name) and said in problem for problem in verify(copy).problems)


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
def test_figures_that_rows_do_not_give_are_found(name: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if name == "summary.json":
        summary = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(summary | {"win_rate": 0.99}))
        reseal(copy)
    else:
        reseal(copy, lambda manifest: manifest.update(cost_usd=9.0))
    assert any(problem.startswith(name) for problem in verify(copy).problems)


def test_a_reply_to_a_probe_that_no_call_gave_is_found(
    folder: Path, tmp_path: Path, preceptor: Preceptor
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    row = json.loads((copy / "8-probes.jsonl").read_text().splitlines()[0])
    with closing(sqlite3.connect(copy / "ledger.db")) as ledger, ledger:
        ledger.execute("delete from calls where key = ?", (row["after"][0]["call"],))
    reseal(copy)
    ended = preceptor("verify", copy, "--json")
    assert ended.code == 1
    (problem,) = json.loads(ended.out)["problems"]
    assert problem.startswith("8-probes.jsonl: 1 of ")


def test_run_again_passes_over_every_stage(folder: Path, preceptor: Preceptor) -> None:
    before = (folder / "metrics" / "stages.jsonl").read_bytes()
    ended = preceptor("run", folder.parent / "run.yaml")
    assert ended.code == 0
    assert ended.err.count("finished before") == len(before.splitlines())
    assert (folder / "metrics" / "stages.jsonl").read_bytes() == before


def planned(preceptor: Preceptor, *flags: object) -> dict[str, dict[str, int]]:
    """Model -> the figures of the plan."""
    ended = preceptor("run", *flags, "--plan", "--json")
    assert ended.code == 0, ended.err
    return {line.pop("model"): line for line in json.loads(ended.out)["models"]}


def test_the_plan_of_a_finished_run_finds_every_call_in_the_ledger(
    folder: Path, preceptor: Preceptor
) -> None:
    lines = planned(preceptor, folder.parent / "run.yaml")
    assert {(line["to_ask"], line["may_ask"]) for line in lines.values()} == {(0, 0)}
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        (asked,) = ledger.execute("select count(*) from calls").fetchone()
    assert sum(line["in_ledger"] for line in lines.values()) == asked


def test_the_plan_of_a_run_that_has_not_begun_is_never_less_than_what_it_asks(
    folder: Path, tmp_path: Path, preceptor: Preceptor
) -> None:
    fresh = planned(preceptor, folder.parent / "run.yaml", f"out={tmp_path / 'fresh'}")
    assert not (tmp_path / "fresh").exists()
    by_model = {name.rpartition("/")[2]: line for name, line in fresh.items()}
    assert set(by_model) == {"embedded", "3-sft", "7-policy", "7-ppo"}
    for name, line in planned(preceptor, folder.parent / "run.yaml").items():
        least = by_model[name.rpartition("/")[2]]
        assert least["in_ledger"] == 0
        assert least["to_ask"] + least["may_ask"] >= line["in_ledger"] > 0


def test_a_run_goes_by_the_ledger_that_is_named(folder: Path, tmp_path: Path, preceptor: Preceptor) -> None:
    """And never tells of it: it may hold a password."""
    file, known = folder.parent / "run.yaml", folder / "ledger.db"
    over_it = planned(preceptor, file, f"out={tmp_path / 'fresh'}", "--ledger", known)
    assert over_it["embedded"]["in_ledger"] > 0
    assert planned(preceptor, file, f"out={tmp_path / 'fresh'}", f"ledger={known}") == over_it
    config = load(file, [f"ledger={known}"])
    assert asking_of(config).ledger == str(known)
    assert "ledger" not in config.model_dump(mode="json")


@pytest.mark.parametrize("words", [("--ledger", "mysql://x/y"), ("ledger=mysql://x/y",)], ids=" ".join)
def test_what_is_no_ledger_is_told_before_a_folder_is_made(
    words: tuple[str, ...], tmp_path: Path, preceptor: Preceptor
) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(out=tmp_path / "out"))
    ended = preceptor("run", tmp_path / "run.yaml", *words)
    assert ended.code == 2
    assert "mysql://x/y: a ledger is kept in SQLite or PostgreSQL" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_run_over_a_ledger_elsewhere_is_verified_over_that(folder: Path, tmp_path: Path) -> None:
    copy, ledger = tmp_path / "copy", str(tmp_path / "elsewhere.db")
    shutil.copytree(folder, copy)
    (copy / "ledger.db").rename(ledger)
    reseal(copy)
    assert verify(copy, ledger=ledger).problems == []
    (problem,) = verify(copy).problems
    assert problem.endswith("ledger.db: there is no ledger here; name one with --ledger")
    with closing(sqlite3.connect(ledger)) as calls, calls:
        calls.execute("delete from calls where stage = 'label'")
    assert any("calls are not in the ledger" in problem for problem in verify(copy, ledger=ledger).problems)


def test_the_plan_counts_what_a_model_that_guards_is_asked(folder: Path, preceptor: Preceptor) -> None:
    guarded = ("ppo.guard.judge=openai/gpt-5-mini", "ppo.guard.every=1", "base_url=http://127.0.0.1:1/v1")
    plan = planned(preceptor, folder.parent / "run.yaml", *guarded)
    config = load(folder.parent / "run.yaml", guarded)
    assert config.ppo is not None
    assert config.ppo.guard is not None
    train, held_out, _ = chosen_prompts(config)
    kept = part(train, held_out, config.ppo.guard, config.seed).looked_at
    assert plan["openai/gpt-5-mini"]["to_ask"] == 2 * 2 * len(kept) > 0


def test_rows_in_are_rows_out_and_set_aside(folder: Path) -> None:
    for stage in json.loads((folder / "manifest.json").read_text())["stages"]:
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["set_aside"].values()), stage


def test_a_second_policy_by_ppo_stands_beside_the_first(folder: Path) -> None:
    """Measured on the same prompts against the same start."""
    ours = json.loads((folder / "summary.json").read_text())
    beside = ours["ppo"]
    assert beside["n"] == ours["n"]
    assert beside["before"] == ours["before"]
    assert set(beside["after"]) == set(ours["after"])
    page = (folder / "9-report.html").read_text()
    assert "PPO beside DPO" in page
    rows = [json.loads(line) for line in (folder / "8-heldout-ppo.jsonl").read_text().splitlines()]
    replies = [json.loads(line) for line in (folder / "8-heldout.jsonl").read_text().splitlines()]
    assert [row["before"] for row in rows] == [row["before"] for row in replies]
    prompts = [HeldOut.model_validate(row).prompt.messages for row in rows]
    after = [row["after"] for row in rows]
    policy = reply_logprobs(prompts, after, "embedded", folder / "7-ppo")
    for name, adapter in (("kl_nats", None), ("kl_nats_to_sft", folder / "3-sft")):
        kl = kl_nats(policy, reply_logprobs(prompts, after, "embedded", adapter))
        assert beside[name] == pytest.approx(kl.nats)
        assert beside[f"{name}_ci95"] == pytest.approx([kl.low, kl.high])


def test_the_report_is_one_page_that_loads_nothing(folder: Path, preceptor: Preceptor) -> None:
    assert preceptor("report", folder).out.strip() == str(folder / "9-report.html")
    page = (folder / "9-report.html").read_text()
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)", page) == []
    assert "<script" not in page
    for heading in ("What changed", "before and after", "Audit of the judge", "Calibration", "Stages"):
        assert heading in page


@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own, on the way to a step
def test_trl_takes_the_preferences_as_they_are(folder: Path, tmp_path: Path) -> None:
    rows = load_dataset(
        "json", data_files=str(folder / "5-preferences.jsonl"), cache_dir=str(tmp_path / "cache")
    )
    options = DPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    trainer = DPOTrainer(model=model, args=options, train_dataset=rows["train"], processing_class=tokenizer)
    assert trainer.train().training_loss == pytest.approx(
        0.6931, abs=1e-3
    )  # log 2: the policy is the reference
