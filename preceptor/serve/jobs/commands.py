"""What a client asks for -> the command that does it. Every name that a client gives is looked up; none is a path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from preceptor.constitution.files import dump, load, shipped
from preceptor.constitution.principle import SLUG, Constitution
from preceptor.judge.groupings import ScoreGrouping
from preceptor.judge.settings import LabelSettings, RespondSettings, ReviseSettings, ScoreSettings
from preceptor.prompts.pool import shipped_pools
from preceptor.prompts.records import Settings
from preceptor.serve.config import ServeConfig
from preceptor.serve.jobs.store import JobRecord, JobStore, Work
from preceptor.serve.jobs.workbench_settings import (
    FillSettings,
    NearSettings,
    ReplaySettings,
    WordingSettings,
)
from preceptor.serve.problems import Problem
from preceptor.settings import AskSettings, Share
from preceptor.spelling import spellings_of
from preceptor.train.settings import (
    DpoSettings,
    GrpoSettings,
    PpoSettings,
    RewardModelSettings,
    SftSettings,
)
from preceptor.workbench.settings import InductionSettings, SynthesisSettings

JobKind = Literal[
    "respond",
    "revise",
    "label",
    "score",
    "audit",
    "run",
    "sft",
    "reward",
    "dpo",
    "ppo",
    "grpo",
    "export",
    "synthesize",
    "dedupe",
    "coverage",
    "induce",
    "amend",
    "tune",
    "test",
    "ablate",
    "replay",
]


class AskedJob(Settings):
    """The body of `POST /v1/jobs`."""

    kind: JobKind
    """The command; `amend` is `constitution induce --from-overrides`."""
    input: str | None = None
    """Id of the file of rows; of prompts also a shipped pool's name. For `export`: id of the training's job."""
    model: str | None = None
    """Who replies, or is trained: a name of the configuration's, or the id of a training's job."""
    judge: str | tuple[str, ...] = ()
    """Who judges, by names of the configuration's; `checks` are the constitution's own."""
    constitution: str | None = None
    """A name of the configuration's, or a shipped one."""
    reward: str | None = None
    """For ppo, grpo and score: id of the job that trained a reward model, in the place of a judge."""
    labels: str | None = None
    """For synthesize, coverage, amend and replay: id of the job that labelled."""
    held_out: str | None = None
    """For synthesize and dedupe: id of the file of prompts that none may be near."""
    overrides: str | None = None
    """For amend: id of the file with what people said of the labels."""
    principle: str | None = None
    """For tune: the principle's id."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The command's settings, by the names of a run file."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """USD that the job may spend; then it stops, and what is done stays."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The client's own words; they are kept with the job."""


class RowSettings(Settings):
    """Which rows, and as what they are read."""

    format: str = Field(default="rows", pattern="^[a-z0-9-]+$")
    """A layout's name, or rows: by sight."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first rows."""
    truncated: Literal["keep", "drop"] = "keep"
    """Whether samples that were cut at their length are judged."""


class PlantSettings(Settings):
    """What is asked beyond the rows."""

    canaries: Share = 0.0
    """Share of attacks that are planted."""
    recheck: Share = 0.0
    """Share that is asked again past the ledger."""


class ExportSettings(Settings):
    """How a training is handed on."""

    format: Literal["adapter", "merged", "sequence-classification", "vllm"]
    """As what."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of a checkpoint's weights."""


class JudgedSettings(Settings):
    """How a judge rewards."""

    judge_mode: Literal["group", "score"] = "group"
    """Replies to a prompt against one another, or each graded on its own."""
    principles: ScoreGrouping = "joint"
    """All at once, or each on its own."""


class _Recipe(NamedTuple):
    """How a kind of job becomes a command."""

    words: tuple[str, ...]
    rows: str
    """What the file of rows is called in the job's folder, without its ending."""
    out: str
    """Where the result is written; empty: it is what the command prints."""
    settings: tuple[type[Settings], ...]
    needs: tuple[str, ...]
    """Members of the body that must be there."""
    takes: tuple[str, ...] = ()
    """Members that may be."""
    omit: tuple[str, ...] = ()
    """Settings that are no flags of this command."""
    spends: bool = True
    """Whether it asks models, and so has a budget."""
    arguments: tuple[str, ...] = ("input",)
    """Members that are no flags, in the command's order."""


_TRAINED = ("input", "model")
RECIPES: Mapping[str, _Recipe] = MappingProxyType(
    {
        "respond": _Recipe(
            *(("respond",), "prompts", "responses.jsonl"),
            (RespondSettings, RowSettings, AskSettings),
            ("input", "model"),
            omit=("format", "truncated"),
        ),
        "revise": _Recipe(
            *(("revise",), "responses", "revisions.jsonl"),
            (ReviseSettings, RowSettings, AskSettings),
            ("input", "model", "constitution"),
            omit=("format", "truncated"),
        ),
        "label": _Recipe(
            *(("label",), "pairs", "labels"),
            (LabelSettings, RowSettings, PlantSettings, AskSettings),
            ("input", "judge", "constitution"),
            omit=("sample",),
        ),
        "score": _Recipe(
            *(("score",), "replies", "scores.jsonl"),
            (ScoreSettings, RowSettings, AskSettings),
            ("input",),
            ("judge", "constitution", "reward"),
            omit=("sample",),
        ),
        "audit": _Recipe(
            *(("audit",), "gold", ""),
            (LabelSettings, RowSettings, AskSettings),
            ("input", "judge", "constitution"),
            omit=("sample", "truncated", "engine"),
        ),
        "sft": _Recipe(
            ("train", "sft"), "rows", "model", (SftSettings,), _TRAINED, omit=("pass_tokens",), spends=False
        ),
        "reward": _Recipe(
            ("train", "reward"),
            "rows",
            "model",
            (RewardModelSettings, RowSettings),
            _TRAINED,
            omit=("weights", "applies_to", "limit", "truncated"),
            spends=False,
        ),
        "dpo": _Recipe(
            *(("train", "dpo"), "rows", "model"),
            (DpoSettings, RowSettings),
            _TRAINED,
            omit=("limit", "truncated"),
            spends=False,
        ),
        "ppo": _Recipe(
            *(("train", "ppo"), "prompts", "model"),
            (PpoSettings, JudgedSettings, AskSettings),
            _TRAINED,
            ("judge", "constitution", "reward"),
            omit=("compile", "guard_every", "dtype", "batch", "then_sync", "flex", "engine"),
        ),
        "grpo": _Recipe(
            *(("train", "grpo"), "prompts", "model"),
            (GrpoSettings, JudgedSettings, AskSettings),
            _TRAINED,
            ("judge", "constitution", "reward"),
            omit=("dtype", "batch", "then_sync", "flex", "engine"),
        ),
        "export": _Recipe(("export",), "", "export", (ExportSettings,), ("input",), spends=False),
        "synthesize": _Recipe(
            *(("prompts", "synthesize"), "prompts", "new-prompts.jsonl"),
            (SynthesisSettings, FillSettings, AskSettings),
            ("model",),
            ("input", "constitution", "labels", "held_out"),
        ),
        "dedupe": _Recipe(
            *(("prompts", "dedupe"), "prompts", "kept.jsonl"),
            (NearSettings,),
            ("input",),
            ("held_out",),
            spends=False,
        ),
        "coverage": _Recipe(
            *(("prompts", "coverage"), "prompts", ""),
            (),
            ("input", "constitution"),
            ("labels",),
            spends=False,
        ),
        "induce": _Recipe(
            *(("constitution", "induce"), "pairs", "induced.yaml"),
            (InductionSettings, RowSettings, AskSettings),
            ("input", "model"),
            ("judge",),
            omit=("truncated",),
        ),
        "amend": _Recipe(
            *(("constitution", "induce"), "", "amended.yaml"),
            (InductionSettings, AskSettings),
            ("labels", "overrides", "model", "judge"),
            ("constitution",),
            arguments=("labels",),
        ),
        "tune": _Recipe(
            *(("constitution", "tune"), "gold", ""),
            (WordingSettings, InductionSettings, RowSettings, AskSettings),
            ("constitution", "principle", "input", "judge"),
            ("model",),
            omit=("truncated", "most", "proposals", "shown", "candidates", "least_gain"),
            arguments=("constitution", "principle", "input"),
        ),
        "test": _Recipe(
            *(("constitution", "test"), "", ""),
            (LabelSettings, AskSettings),
            ("constitution", "judge"),
            omit=("orders", "sample", "principles", "draws", "batch", "then_sync", "engine"),
            arguments=("constitution",),
        ),
        "ablate": _Recipe(
            *(("constitution", "ablate"), "pairs", ""),
            (LabelSettings, RowSettings, AskSettings),
            ("constitution", "input", "judge"),
            omit=("orders", "sample"),
            arguments=("constitution", "input"),
        ),
        "replay": _Recipe(
            *(("constitution", "replay"), "", "labels"),
            (ReplaySettings,),
            ("labels",),
            spends=False,
            arguments=("labels",),
        ),
    }
)
UNPLANNED = frozenset({"export", "dedupe", "coverage", "replay"})
"""Kinds that take nothing which a plan could tell."""
MEMBERS = (
    *("input", "model", "judge", "constitution", "reward", "max_cost_usd"),
    *("labels", "held_out", "overrides", "principle"),
)
"""Of the body, those that one kind takes and another does not."""
NEVER = frozenset(
    {
        *("model", "adapter", "reference_adapter", "stack_adapter", "template", "report_to", "tensorboard"),
        *("base_url", "ledger", "address", "gpus", "workers", "prices", "max_cost_usd", "device_map"),
    }
)
"""Settings that name a path or an address, or belong to the server: never a client's."""
ENDINGS = (".jsonl.gz", ".jsonl", ".csv", ".parquet", ".json")
"""Endings of rows' files, by which they are read."""
POOLED = frozenset({"respond", "ppo", "grpo", "synthesize", "dedupe", "coverage"})
"""Kinds whose rows may be a shipped pool of prompts."""
TRAINED = frozenset({"sft", "dpo", "ppo", "grpo"})
"""Kinds whose result is a model that replies."""
MODEL_FOLDER = "model"
LABELLED = frozenset({"label", "replay"})
"""Kinds whose result is a folder of labels."""
LABELS_FOLDER = "labels"
FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "constitution": "--constitution",
        "labels": "--labels",
        "held_out": "--held-out",
        "overrides": "--from-overrides",
    }
)
"""Members that name things of the service, and their flags where they are no arguments."""


def work_of(
    asked: AskedJob,
    config: ServeConfig,
    store: JobStore,
    owner: str | None,
    constitution: Constitution | None = None,
) -> Work:
    """The command of a job, with everything that the client named looked up. constitution: one that goes by no name.

    Raises Problem, which says where in the body what is wrong stands.
    """
    if asked.kind == "run":
        return _run(asked, config, store, owner)
    recipe = RECIPES[asked.kind]
    _check_members(asked, recipe)
    files: dict[str, str] = {}
    texts: dict[str, str] = {}
    laid = _Laid(config, store, owner, files, texts)
    words = [*recipe.words]
    named: list[str] = []
    for name in recipe.arguments:
        found = _argument(name, asked, recipe, laid)
        words += [] if found is None else [found]
    for judge in _judges(asked):
        words.append(f"--judge={_model(config, judge, 'judge', named)}")
    if asked.model is not None:
        words.append(f"--model={_replying(asked.model, config, store, owner, named)}")
    if constitution is not None:
        texts["constitution.yaml"] = dump(constitution)
        words.append("--constitution=constitution.yaml")
    for name, flag in FLAGS.items():
        if name not in recipe.arguments and not (name == "constitution" and constitution is not None):
            found = _argument(name, asked, recipe, laid)
            words += [] if found is None else [f"{flag}={found}"]
    if asked.reward is not None:
        flag = "--reward-model" if asked.kind == "score" else "--reward"
        folder = _trained(store, owner, asked.reward, "reward", frozenset({"reward"})).id
        words.append(f"{flag}=../{folder}/{MODEL_FOLDER}")
    if named and AskSettings in recipe.settings:
        words += _places(config, named)
    words += flags_of(asked.settings, recipe.settings, recipe.omit)
    if asked.max_cost_usd is not None:
        words.append(f"--max-cost={asked.max_cost_usd!r}")
    if recipe.out:
        words.append(f"--out={recipe.out}")
    return Work(tuple(words), files, texts, recipe.out)


class _Laid(NamedTuple):
    """What is laid out for a job, and where its names are looked up."""

    config: ServeConfig
    store: JobStore
    owner: str | None
    files: dict[str, str]
    texts: dict[str, str]


def _argument(name: str, asked: AskedJob, recipe: _Recipe, laid: _Laid) -> str | None:
    """The word of a member in the command, where it names what is in the job's folder or beside it; None: it is not
    there."""
    given = getattr(asked, name)
    if given is None:
        return None
    if name == "constitution":
        return _constitution(laid.config, given, laid.texts)
    if name == "principle":
        if re.fullmatch(SLUG, given) is None:
            raise wrong({"pointer": "/principle", "detail": "wanted the id of a principle: [a-z0-9-]+"})
        return str(given)
    if name == "labels":
        return f"../{_trained(laid.store, laid.owner, given, 'labels', LABELLED).id}/{LABELS_FOLDER}"
    if name == "input" and asked.kind == "export":
        return f"../{_trained(laid.store, laid.owner, given, 'input').id}/{MODEL_FOLDER}"
    if name == "input" and asked.kind in POOLED and given in shipped_pools():
        return str(given)
    stem = recipe.rows if name == "input" else name
    return _rows(laid.store, laid.owner, given, stem, laid.files, name)


def flags_of(
    given: Mapping[str, Any], kinds: tuple[type[Settings], ...], omit: tuple[str, ...] = ()
) -> Iterator[str]:
    """Settings as flags, once the classes that hold them have accepted them. Raises Problem with every fault."""
    known = {name for kind in kinds for name in kind.model_fields} - NEVER - {*omit}
    faults = [
        {"pointer": f"/settings/{name}", "detail": f"unknown; wanted one of {', '.join(sorted(known))}"}
        for name in given
        if name not in known
    ]
    for kind in kinds:
        needed = {name: info for name, info in kind.model_fields.items() if info.is_required()}
        own = {name: value for name, value in given.items() if name in kind.model_fields and name in known}
        try:
            if own or needed:
                kind.model_validate(own)
        except ValidationError as error:
            faults += [
                {
                    "pointer": "/".join(["/settings", *map(str, fault["loc"])]),
                    "detail": fault["msg"].removeprefix("Value error, "),
                }
                for fault in error.errors(include_url=False)
            ]
    if faults:
        raise wrong(*faults)
    for name, value in given.items():
        flag = spellings_of(name)[0]
        if isinstance(value, bool):
            yield flag if value else f"--no-{flag.removeprefix('--')}"
        elif isinstance(value, list | tuple):
            yield from (f"{flag}={one}" for one in value)
        elif value is not None:
            yield f"{flag}={value}"


def wrong(*faults: Mapping[str, str]) -> Problem:
    """422 with each fault and where in the body it stands."""
    said = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in faults)
    return Problem(422, "invalid_request", said, errors=list(faults))


def _check_members(asked: AskedJob, recipe: _Recipe) -> None:
    there = {name for name in MEMBERS if getattr(asked, name) not in (None, ())}
    allowed = {*recipe.needs, *recipe.takes, *(("max_cost_usd",) if recipe.spends else ())}
    faults = [
        {"pointer": f"/{name}", "detail": f"missing; a job of kind {asked.kind} needs it"}
        for name in recipe.needs
        if name not in there
    ]
    faults += [
        {"pointer": f"/{name}", "detail": f"no effect on a job of kind {asked.kind}; leave it out"}
        for name in sorted(there - allowed)
    ]
    if faults:
        raise wrong(*faults)


def _judges(asked: AskedJob) -> tuple[str, ...]:
    return (asked.judge,) if isinstance(asked.judge, str) else asked.judge


def _rows(
    store: JobStore, owner: str | None, name: str, stem: str, files: dict[str, str], pointer: str = "input"
) -> str:
    found = store.file(name, owner)
    if found is None:
        raise wrong(
            {"pointer": f"/{pointer}", "detail": f"there is no file {name!r}; upload one to /v1/files"}
        )
    ending = next((one for one in ENDINGS if found.filename.lower().endswith(one)), ".jsonl")
    files[f"{stem}{ending}"] = found.id
    return f"{stem}{ending}"


def _model(config: ServeConfig, name: str, pointer: str, named: list[str]) -> str:
    """`provider/model` of a name of the configuration's."""
    if name == "checks" and pointer == "judge":
        return name
    if (entry := config.models.get(name)) is None:
        there = ", ".join(config.models) or "(there are none)"
        raise wrong(
            {"pointer": f"/{pointer}", "detail": f"there is no model {name!r}; wanted one of {there}"}
        )
    named.append(name)
    return absolute(entry.model)


def absolute(model: str) -> str:
    """`provider/model` as it is named in a job's folder, where a relative path would lead elsewhere."""
    provider, _, place = model.partition("/")
    if provider in ("hf", "scripted") and Path(place).exists():
        return f"{provider}/{Path(place).absolute()}"
    return model


def _replying(name: str, config: ServeConfig, store: JobStore, owner: str | None, named: list[str]) -> str:
    if name in config.models:
        return _model(config, name, "model", named)
    if (job := trained_by(store, owner, name)) is not None:
        return f"hf/../{job.id}/{MODEL_FOLDER}"
    there = ", ".join(config.models) or "(there are none)"
    detail = f"there is no model {name!r}; wanted one of {there}, or the id of a job that trained one"
    raise wrong({"pointer": "/model", "detail": detail})


def _trained(
    store: JobStore,
    owner: str | None,
    name: str,
    pointer: str,
    kinds: frozenset[str] = TRAINED | {"reward"},
) -> JobRecord:
    job = trained_by(store, owner, name, kinds)
    if job is None:
        wanted = " or ".join(sorted(kinds))
        detail = f"{name!r} is no job that has succeeded, of kind {wanted}"
        raise wrong({"pointer": f"/{pointer}", "detail": detail})
    return job


def trained_by(
    store: JobStore, owner: str | None, name: str, kinds: frozenset[str] = TRAINED
) -> JobRecord | None:
    """The job of this id, or whose model has this name, if it has trained one."""
    prefix, _, last = name.rpartition(":")
    job = store.job(f"ftjob-{last}" if prefix.startswith("ft:") else name, owner)
    return job if job is not None and job.status == "succeeded" and job.kind in kinds else None


def _constitution(config: ServeConfig, name: str, texts: dict[str, str]) -> str:
    source = config.constitutions.get(name, name if name in shipped() else None)
    if source is None:
        there = ", ".join(sorted({*config.constitutions, *shipped()}))
        detail = f"there is no constitution {name!r}; wanted one of {there}"
        raise wrong({"pointer": "/constitution", "detail": detail})
    if source in shipped():
        return source
    texts["constitution.yaml"] = dump(load(source))
    return "constitution.yaml"


def _places(config: ServeConfig, named: list[str]) -> Iterator[str]:
    """How the configuration says that these models are reached."""
    for name in dict.fromkeys(named):
        entry = config.models[name]
        if entry.base_url is not None:
            yield f"--base-url={entry.model}={entry.base_url}"
        if entry.price is not None:
            yield f"--price={entry.model}={entry.price.input},{entry.price.output}"


# Whole runs

_SECTIONS: Mapping[str, type[Settings]] = MappingProxyType(
    {
        "respond": RespondSettings,
        "revise": ReviseSettings,
        "label": LabelSettings,
        "sft": SftSettings,
        "reward": RewardModelSettings,
        "dpo": DpoSettings,
        "ppo": PpoSettings,
    }
)
_PLAIN = ("seed", "pairs", "truncated", "revised_samples", "rounds", "reference", "round_prompts")
_PROMPTS = ("limit", "held_out_share", "held_out_limit")


def _run(asked: AskedJob, config: ServeConfig, store: JobStore, owner: str | None) -> Work:
    """A run file out of the settings, whose sections are those of a run file."""
    _check_members(asked, _Recipe((), "", "", (), ("input", "model", "judge", "constitution")))
    files: dict[str, str] = {}
    texts: dict[str, str] = {}
    named: list[str] = []
    judges = _judges(asked)
    if len(judges) != 1:
        raise wrong({"pointer": "/judge", "detail": "a run has one judge"})
    pool = str(asked.input)
    values: dict[str, Any] = {
        "out": "run",
        "model": _replying(str(asked.model), config, store, owner, named),
        "judge": _model(config, judges[0], "judge", named),
        "constitution": _constitution(config, str(asked.constitution), texts),
        "prompts": {"file": pool if pool in shipped_pools() else _rows(store, owner, pool, "prompts", files)},
    }
    faults: list[dict[str, str]] = []
    for name, given in asked.settings.items():
        pointer = f"/settings/{name}"
        if name in _SECTIONS and isinstance(given, dict):
            kind = _SECTIONS[name]
            unknown = [key for key in given if key not in kind.model_fields or key in NEVER]
            faults += [{"pointer": f"{pointer}/{key}", "detail": "unknown"} for key in unknown]
            values[name] = given
        elif name == "prompts" and isinstance(given, dict):
            unknown = [key for key in given if key not in _PROMPTS]
            faults += [{"pointer": f"{pointer}/{key}", "detail": "unknown"} for key in unknown]
            values["prompts"] |= given
        elif name in _PLAIN or (name in AskSettings.model_fields and name not in NEVER):
            values[name] = given
        else:
            wanted = ", ".join([*_SECTIONS, "prompts", *_PLAIN])
            faults.append({"pointer": pointer, "detail": f"unknown; wanted one of {wanted}"})
    if faults:
        raise wrong(*faults)
    urls = {config.models[name].model: config.models[name].base_url for name in named}
    if addressed := {model: url for model, url in urls.items() if url}:
        values["base_url"] = addressed
    if asked.max_cost_usd is not None:
        values["max_cost_usd"] = asked.max_cost_usd
    texts["run.yaml"] = json.dumps(values, indent=2) + "\n"  # JSON is YAML
    return Work(("run", "run.yaml"), files, texts, "run")
