"""A run file: the sum of the stages' own settings, read once, all faults shown together.

    preceptor run examples/front-desk.yaml dpo.beta=0.2 prompts.limit=100

Importing this module imports `train`, and so torch: only commands that train read run files.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from preceptor.asking.stages import SamplePairing, Truncated
from preceptor.constitution.errors import UserError
from preceptor.constitution.foreign import text_in
from preceptor.judge.settings import LabelSettings, RespondSettings, ReviseSettings
from preceptor.prompts.columns import mapping_of
from preceptor.prompts.records import Record, Settings
from preceptor.run import outside
from preceptor.run.guard import GuardSettings
from preceptor.settings import CHECKS, AskSettings, ProbeSettings
from preceptor.train.pair_losses import pair_loss
from preceptor.train.settings import DpoSettings, PpoSettings, RewardModelSettings, SftSettings


class PromptSettings(Settings):
    """Which prompts a run trains on and which it is judged by."""

    file: str
    """A shipped pool's name or a file of prompts."""
    limit: int | None = Field(default=None, gt=0)
    """Only the first of the prompts to train on."""
    held_out: str | None = None
    """A second file, for the comparison at the end; else a share of the first, chosen by id."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """The share that is kept for the comparison, where there is no second file."""
    held_out_limit: int | None = Field(default=None, gt=0)
    """Only the first of those kept for the comparison."""
    map: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """COLUMN=FIELD, such as prompt=question: columns of a file of prompts, also of those held out and of the guard's,
    under another name."""

    @property
    def columns(self) -> dict[str, str]:
        """Names of ours -> the files' own."""
        return mapping_of(self.map)

    @field_validator("map")
    @classmethod
    def _readable(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        try:
            mapping_of(pairs)
        except UserError as error:
            raise ValueError(str(error)) from None
        return pairs


class EvaluateSettings(Settings):
    """How the policy is compared with the model that it started from."""

    judge: str | None = None
    """Who compares; else the run's own judge."""
    oracle: str = "checks"
    """Who says whether a reply satisfies a principle: checks, or embedded, which knows the front desk."""
    temperature: float = Field(default=1.0, ge=0)
    """At 1 the replies are the policy's own samples, and the KL is an unbiased estimate."""
    system: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """System message of the replies that are compared; absent: as in `respond`. With one there and an empty one here,
    the policy learns to do unasked what the message asks for (context distillation: Askell et al. 2021)."""


class RunPpoSettings(PpoSettings):
    """PPO of a run."""

    start: Literal["start", "dpo"] = Field(default="start", exclude_if=lambda value: value == "start")
    """Where PPO begins: where DPO began, so that the two stand side by side; or at DPO's policy, which it then tunes
    further."""
    guard: GuardSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    """Who looks on while it trains; absent: nobody does."""


class RoundSettings(Settings):
    """How often a run goes round."""

    rounds: int = Field(default=1, gt=0)
    """Times that replies are drawn, judged and trained on; each round starts from the last one's policy."""
    reference: Literal["first", "last"] = "last"
    """What a later round's policy is kept near: first, what round 1 started from; last, what the round starts from."""
    round_prompts: Literal["same", "split"] = "same"
    """same: every round asks all prompts; split: each its own share of them."""


class RunConfig(AskSettings, RoundSettings):
    """Everything that a run depends on."""

    out: str
    """The run folder."""
    ledger: str | None = Field(default=None, exclude=True)
    """The ledger of calls: a file or a database URL; else ledger.db in the run folder.

    It changes no result and may hold a password: the run's manifest does not name it.
    """
    seed: int = 0
    """Equal seeds give equal results on one machine."""
    model: str
    """The model that is taught: embedded, smollm2, hf/ID, hf/FOLDER or hf/FILE.gguf."""
    judge: str
    """Who judges: provider/model, or `checks` for machine checks alone."""
    critic: str | None = None
    """Who criticises and revises; else the model itself."""
    constitution: str
    """A shipped constitution's name or a YAML file."""
    concurrency: int = Field(default=64, gt=0)
    """Calls in flight at once; so many, because a model in this process takes them together."""
    prompts: PromptSettings
    respond: RespondSettings = RespondSettings()
    revise: ReviseSettings | None = None
    """Absent: replies are compared as they are."""
    revised_samples: int | None = Field(default=None, gt=0)
    """How many of a prompt's samples are revised, the first ones; else all."""
    pairs: SamplePairing = "adjacent"
    """Which samples of a prompt are compared: two by two, or each with each."""
    truncated: Truncated = "keep"
    """Whether replies that were cut off at max_tokens are compared like others, here and at the end. That a reply does
    not end is information: without it the policy learns nothing about length, and long habits go unmeasured."""
    label: LabelSettings = LabelSettings()
    sft: SftSettings | None = None
    """Absent: DPO starts from the model itself. Needs `revise`. With it, replies to compare are sampled from the tuned
    model, as in Bai et al. 2022."""
    reward: RewardModelSettings | None = None
    dpo: DpoSettings = DpoSettings()
    ppo: RunPpoSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    """A second policy beside DPO's, from the same start and the same labels. Needs `reward`."""
    evaluate: EvaluateSettings = EvaluateSettings()
    probes: ProbeSettings | None = ProbeSettings()
    """What tuning breaks, measured before and after it; None: not measured."""
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Stages that other packages bring, done after the run's own: name, and the settings that the package takes."""

    @field_validator("stages", mode="before")
    @classmethod
    def _without_settings(cls, stages: Any) -> Any:
        """A name alone, as YAML has it: `words:`."""
        return {name: values or {} for name, values in stages.items()} if isinstance(stages, dict) else stages

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        faults = []
        for name, values in stages.items():
            try:
                outside.section(name, values)
            except UserError as error:
                faults.append(str(error))
            except ValidationError as error:
                faults += [
                    f"{'.'.join([name, *map(str, fault['loc'])])} is {fault['input']!r}: {fault['msg']}"
                    for fault in error.errors()
                ]
        if faults:
            raise ValueError("; ".join(faults))
        return stages


def asked_models(config: RunConfig) -> list[str]:
    """Every model that a run asks and does not train, each once; `checks` and oracles are none."""
    guard = config.ppo.guard.judge if config.ppo is not None and config.ppo.guard is not None else None
    critic = config.critic if config.revise is not None else None
    named = (config.model, critic, config.judge, config.evaluate.judge, guard)
    return [
        name for name in dict.fromkeys(named) if name and name != CHECKS and not name.startswith("oracle/")
    ]


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and the `section.key=value` words of the command line.

    Raises UserError that names every fault: unknown keys with the nearest known one, wrong types, missing keys.
    """
    values = _read(path)
    for override in overrides:
        values = _overridden(values, override)
    return checked(values, f"{path}: the run file cannot be used")


def checked(values: Mapping[str, Any], what: str) -> RunConfig:
    """The run that these values describe. Raises UserError that begins with `what` and names every fault."""
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors()]
        raise UserError("\n".join([f"{what}:", *(f"  {one}" for one in faults)])) from None
    if (fault := _contradiction(config)) is not None:
        raise UserError(f"{what}: {fault}")
    return config


def _contradiction(config: RunConfig) -> str | None:
    """What two sections ask for together and cannot have."""
    if config.sft is not None and config.revise is None:
        return "`sft` trains on revisions, and `revise` is absent; add it or leave `sft` out"
    if config.ppo is not None and config.reward is None:
        return "`ppo` learns from the run's reward model, and `reward` is absent; add it or leave `ppo` out"
    if config.ppo is not None and "guard_every" in config.ppo.model_fields_set:
        return "ppo.guard_every has no effect in a run; wanted ppo.guard.every"
    if config.ppo is not None and config.ppo.guard is not None and config.ppo.guard.judge == config.judge:
        return (
            f"ppo.guard.judge {config.judge} makes the labels, and would be fooled where the reward model is; wanted "
            "another judge, or oracle/embedded or checks"
        )
    if config.dpo.reference_adapter is not None:
        return "dpo.reference_adapter is set by a run itself; wanted reference: first or reference: last"
    for effort, names in _wished_efforts(config).items():
        try:
            config.require_effort(names, effort)
        except UserError as error:
            return str(error)
    if config.rounds > 1 and config.reference == "first" and not pair_loss(config.dpo.loss).needs_reference:
        return f"reference: first has no effect with loss {config.dpo.loss}, which has no reference; leave it out"
    return None


def _wished_efforts(config: RunConfig) -> dict[str, list[str]]:
    """Effort -> the models of which it is wished: a command's flag is both for who replies and for who judges."""
    wished = [
        (config.respond.effort, [config.model]),
        (config.label.effort, [config.judge, config.evaluate.judge or config.judge]),
    ]
    if config.revise is not None:
        wished.append((config.revise.effort, [config.critic or config.model]))
    efforts: dict[str, list[str]] = {}
    for effort, names in wished:
        if effort is not None:
            efforts.setdefault(effort, []).extend(names)
    return efforts


def _read(path: Path) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(text_in(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such run file; `ls examples` shows some to start from") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UserError(f"{path}:{line}: {error.problem}; wanted YAML with the keys of a run file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({_said(error)}); wanted YAML with the keys of a run file"
        ) from error
    except YAMLError as error:
        raise UserError(f"{path}: {error}; wanted YAML with the keys of a run file") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: holds {type(values).__name__}; wanted a mapping with the keys of a run file"
        )
    return values


def _said(error: Exception) -> str:
    """In one line; of a parser that ran out of room, that it is nested too deep."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return " ".join(str(getattr(error, "problem", None) or error).split())[:200]


def _overridden(values: Mapping[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} on the command line; wanted section.key=value, as in dpo.beta=0.2")
    try:
        value = YAML(typ="safe", pure=True).load(text) if text else None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"{override!r:.100} on the command line: {_said(error)}; wanted a value as in YAML, quoted if need be"
        ) from error
    return _with(values, key.split("."), value, override)


def _with(values: Mapping[str, Any], keys: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    first, rest = keys[0], keys[1:]
    if not rest:
        return {**values, first: value}
    inner = values.get(first) or {}
    if not isinstance(inner, Mapping):
        raise UserError(f"{override!r}: {first} is {inner!r}, which has no keys")
    return {**values, first: _with(inner, rest, value, override)}


def _fault(fault: Any) -> str:
    """One line: where, what came, what was wanted."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        model: Any = RunConfig
        for part in fault["loc"][:-1]:
            model = _section(model, str(part))
        known = sorted(model.model_fields)
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(known)}"
        return f"{place}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {fault['input']!r} came; {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _section(model: Any, name: str) -> Any:
    annotation = model.model_fields[name].annotation
    members = [annotation, *getattr(annotation, "__args__", ())]
    return next(member for member in members if isinstance(member, type) and issubclass(member, Record))
