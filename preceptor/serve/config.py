"""The server's configuration: which models, constitutions and rewards there are, and which doors lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load, shipped
from preceptor.constitution.foreign import text_in
from preceptor.constitution.reading import line_of, parse
from preceptor.judge.rubric_forms import read_rubric
from preceptor.judge.settings import CHECKS, Price, ScoreSettings
from preceptor.prompts.records import Settings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of whatever a client calls by name."""
DOORS = (
    "openrlhf",
    "slime",
    "classify",
    "score",
    "rerank",
    "pooling",
    "tei",
    "nemo-gym",
)
DoorName = Literal["openrlhf", "slime", "classify", "score", "rerank", "pooling", "tei", "nemo-gym"]
SERVE_DATABASE = "sqlite:///preceptor.db"


class ModelEntry(Settings):
    """A model that clients may name."""

    model: str
    """`provider/model`."""
    base_url: str | None = None
    """A compatible server; it comes from this file alone, never from a client."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that one call may take."""
    flex: bool = False
    """Ask OpenAI at its flex tier."""
    price: Price | None = None
    """Over the price table and the user's own file."""
    concurrency: int = Field(default=16, gt=0)
    """Calls in flight at once."""
    rpm: float | None = Field(default=None, gt=0)
    tpm: float | None = Field(default=None, gt=0)


class RewardEntry(Settings):
    """A reward that clients may name: a judge under a constitution, or a trained reward model."""

    judge: str | None = None
    """One of `models`."""
    constitution: str | None = None
    """One of `constitutions`."""
    rubric: Path | None = None
    """In the place of a constitution: a file of weighted criteria."""
    score: ScoreSettings = ScoreSettings()
    """How the judge grades."""
    reward_model: Path | None = None
    """The folder of a trained reward model."""
    batch_size: int = Field(default=1, gt=0)
    """Replies through a reward model at a time: by 1 no reward depends on other replies, to its last bit; more are
    faster on a GPU, and differ in the seventh digit."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.judge is None) is (self.reward_model is None):
            raise ValueError("wanted judge and constitution, or reward_model")
        if self.constitution is not None and self.rubric is not None:
            raise ValueError("rubric stands in the place of constitution: leave one of them out")
        if (self.judge is None) is not (self.constitution is None and self.rubric is None):
            raise ValueError("judge and constitution go together, or judge and rubric")
        return self


class LabelsEntry(Settings):
    """Labels of elsewhere that the pages show."""

    path: Path
    """A file of labels, a folder that `preceptor label` wrote, or a run folder."""
    ledger: Path | None = None
    """The ledger of the calls that made them; else the one in the folder, where there is one."""
    constitution: str | None = None
    """One of `constitutions`; else the one in the folder, or the one here of the labels' own identity."""


class DriftEntry(Settings):
    """Labels whose judges are asked again from time to time: are they still those that made them?"""

    labels: Path
    """A folder that `preceptor label` wrote; the looks are kept in it."""
    every: float = Field(default=7, gt=0)
    """Days between two looks."""
    rows: int = Field(default=100, ge=1)
    """Labels that a look asks again."""
    tolerate: float | None = Field(default=None, gt=0, lt=0.5)
    """As `preceptor drift --tolerate`."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """USD that one look may cost."""


class Fallback(Settings):
    """A number that a door gives, only where a user has set one, for a reply that is not judged."""

    reward: float = Field(allow_inf_nan=False)
    after: int = Field(default=4, ge=1)
    """Times that the same reply is answered with 503 first."""


class ServeLimits(Settings):
    """What one request, and all of them together, may take."""

    max_cost_usd: float | None = Field(default=None, ge=0)
    """USD that all calls in the database may have cost; then everything that would cost something is refused."""
    max_items: int = Field(default=256, gt=0)
    """Rows of one request."""
    max_chars: int = Field(default=400_000, gt=0)
    """Characters of one reply, or of one prompt."""
    max_body_mb: float = Field(default=16, gt=0)
    """Size of one request's body."""
    max_file_mb: float = Field(default=512, gt=0)
    """Size of an uploaded file."""
    max_nesting: int = Field(default=32, gt=0)
    """How deep JSON may be nested."""
    max_connections: int = Field(default=1024, gt=0)
    """Connections and requests at once; more are answered with 503."""
    max_per_address: int | None = Field(default=512, gt=0)
    """Connections of one address at once; more are answered with 503. Behind a proxy all clients are one address."""
    max_per_key: int | None = Field(default=512, gt=0)
    """Requests of one key at once; more are answered with 503."""
    deadline_s: float = Field(default=600, gt=0)
    """Seconds that a request may take to be answered."""
    header_s: float = Field(default=20, gt=0)
    """Seconds that a request's headers may take to arrive; a connection on which none come is closed after them."""
    body_s: float = Field(default=60, gt=0)
    """Seconds that a request's body may take to arrive; of an uploaded file, beyond a second for every 16 kB."""


class ServeConfig(Settings):
    """All of it."""

    models: dict[str, ModelEntry] = Field(default_factory=dict)
    constitutions: dict[str, str] = Field(default_factory=dict)
    """Name -> a shipped constitution, or a file."""
    rewards: dict[str, RewardEntry] = Field(default_factory=dict)
    doors: dict[DoorName, tuple[str, ...]] = Field(default_factory=dict)
    """Door -> the rewards to which it leads."""
    fallback: dict[Literal["openrlhf", "slime"], Fallback] = Field(default_factory=dict)
    """Door -> what it gives for replies that are not judged; without one they stay unanswered."""
    labels: dict[str, LabelsEntry] = Field(default_factory=dict)
    """Name -> labels that the pages show beside those of jobs and files."""
    runs: dict[str, Path] = Field(default_factory=dict)
    """Name -> a run folder that the pages show."""
    drift: dict[str, DriftEntry] = Field(default_factory=dict)
    """Name -> labels whose judges are looked at by a timer."""
    limits: ServeLimits = ServeLimits()
    database: str = SERVE_DATABASE
    """Calls, bill and keys: an SQLite file or a PostgreSQL server."""
    hosts: tuple[str, ...] = ()
    """Names by which clients call this server, beside its own address."""
    folder: str = "preceptor-serve"
    """Where files and jobs are kept."""


class Fault(NamedTuple):
    """One thing wrong in the file."""

    place: tuple[str | int, ...]
    said: str


def read_config(path: Path) -> ServeConfig:
    """The configuration in a file. Paths in it are relative to its folder. Raises UserError with every fault, each
    with its line."""
    if not path.exists():
        raise UserError(f"{path}: no such file; docs/service.md shows one to start from")
    try:
        tree = parse(text_in(path))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UserError(
            f"{path}:{line}: broken YAML ({error.problem}); wanted the keys of a server"
        ) from error
    except (OSError, ValueError, RecursionError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from error
    if tree is None:
        tree = CommentedMap()
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path}:1: wanted a mapping with {', '.join(ServeConfig.model_fields)}")
    try:
        config = _placed(ServeConfig.model_validate(tree), path.resolve().parent)
    except ValidationError as error:
        raise _unusable(path, tree, list(_shape_faults(error))) from None
    if faults := list(faults_of(config)):
        raise _unusable(path, tree, faults)
    return config


def default_config() -> ServeConfig:
    """What is served without a file: the models whose keys or packages are there, and the shipped constitutions."""
    models = {}
    if find_spec("torch") is not None:
        models["embedded"] = ModelEntry(model="embedded")
    for provider, variable, model in (
        ("openai", "OPENAI_API_KEY", "openai/gpt-6-luna"),
        ("anthropic", "ANTHROPIC_API_KEY", "anthropic/claude-haiku-5-5"),
    ):
        if os.environ.get(variable):
            models[provider] = ModelEntry(model=model)
    constitutions = {name: name for name in shipped()}
    main = "helpful-harmless"
    rewards = {name: RewardEntry(judge=name, constitution=main) for name in models}
    return ServeConfig(models=models, constitutions=constitutions, rewards=rewards)


def faults_of(config: ServeConfig) -> Iterator[Fault]:
    """What the types do not say: names that lead nowhere, models and constitutions that cannot be used."""
    from preceptor.judge.models.registry import find, forms

    if not config.models and not config.rewards:
        yield Fault((), "no models and no rewards: there is nothing to serve")
    for part in ("models", "constitutions", "rewards", "labels", "runs", "drift"):
        for name in getattr(config, part):
            if not _is_name(name):
                yield Fault((part, name), f"{name!r} is no name; wanted letters, digits, . _ and -")
    for name, model in config.models.items():
        if model.model != CHECKS and find(model.model) is None:
            yield Fault(("models", name, "model"), f"no model answers to {model.model!r}; wanted {forms()}")
    for name, source in config.constitutions.items():
        try:
            load(source)
        except UserError as error:
            yield Fault(("constitutions", name), str(error))
    for name, reward in config.rewards.items():
        if reward.judge is not None and reward.judge not in config.models:
            yield Fault(("rewards", name, "judge"), _nowhere(reward.judge, "models", config.models))
        if reward.constitution is not None and reward.constitution not in config.constitutions:
            wrong = _nowhere(reward.constitution, "constitutions", config.constitutions)
            yield Fault(("rewards", name, "constitution"), wrong)
        if reward.rubric is not None:
            try:
                read_rubric(reward.rubric)
            except UserError as error:
                yield Fault(("rewards", name, "rubric"), str(error))
        if reward.reward_model is not None and not reward.reward_model.is_dir():
            yield Fault(("rewards", name, "reward_model"), f"{reward.reward_model} is no folder")
    for name, entry in config.labels.items():
        if not entry.path.exists():
            yield Fault(("labels", name, "path"), f"{entry.path}: no such file or folder")
        if entry.constitution is not None and entry.constitution not in config.constitutions:
            wrong = _nowhere(entry.constitution, "constitutions", config.constitutions)
            yield Fault(("labels", name, "constitution"), wrong)
    for name, folder in config.runs.items():
        if not folder.is_dir():
            yield Fault(("runs", name), f"{folder} is no folder")
    for name, watched in config.drift.items():
        if not watched.labels.is_dir():
            yield Fault(("drift", name, "labels"), f"{watched.labels} is no folder")
    for door, names in config.doors.items():
        for name in names:
            if name not in config.rewards:
                yield Fault(("doors", door), _nowhere(name, "rewards", config.rewards))


def _is_name(text: str) -> bool:
    import re

    return re.fullmatch(NAME, text) is not None


def _nowhere(name: str, part: str, known: Mapping[str, Any]) -> str:
    return f"{name!r} is none of `{part}`; wanted one of {', '.join(known) or '(there are none)'}"


def _placed(config: ServeConfig, folder: Path) -> ServeConfig:
    """With paths that hold from any working directory."""
    constitutions = {
        name: source if source in shipped() else str(folder / source)
        for name, source in config.constitutions.items()
    }
    rewards = {
        name: entry.model_copy(
            update={
                key: folder / path
                for key, path in (("reward_model", entry.reward_model), ("rubric", entry.rubric))
                if path is not None
            }
        )
        for name, entry in config.rewards.items()
    }
    labels = {
        name: entry.model_copy(
            update={
                "path": folder / entry.path,
                "ledger": None if entry.ledger is None else folder / entry.ledger,
            }
        )
        for name, entry in config.labels.items()
    }
    runs = {name: folder / run for name, run in config.runs.items()}
    drift = {
        name: entry.model_copy(update={"labels": folder / entry.labels})
        for name, entry in config.drift.items()
    }
    placed = {"constitutions": constitutions, "rewards": rewards, "labels": labels, "runs": runs}
    return config.model_copy(update={**placed, "drift": drift})


def _shape_faults(error: ValidationError) -> Iterator[Fault]:
    for fault in error.errors(include_url=False):
        said = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            said = f"unknown key {fault['loc'][-1]!r}"
        yield Fault(fault["loc"], said)


def _unusable(path: Path, tree: CommentedMap, faults: Sequence[Fault]) -> UserError:
    def told(fault: Fault) -> str:
        place = ".".join(str(part) for part in fault.place if part != "[key]")
        return f"  {path}:{line_of(tree, fault.place)}: {place + ': ' if place else ''}{fault.said}"

    ordered = sorted(faults, key=lambda fault: line_of(tree, fault.place))
    count = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return UserError("\n".join([f"the configuration has {count}:", *map(told, ordered)]))
