"""`preceptor train sft | reward | judge | dpo | kto`: trainings on the rows of a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.flags import given
from preceptor.cli.options import ColumnsOption, ConstitutionName, FormatOption, Out
from preceptor.cli.train.launch import Launch
from preceptor.cli.train.options import PreferencesArgument, training
from preceptor.cli.train.shared import settled, train_or_plan
from preceptor.constitution.errors import UserError
from preceptor.train.settings import (
    DpoSettings,
    JudgeSettings,
    KtoSettings,
    RewardModelSettings,
    SftSettings,
    principle_settings,
)


def sft(
    rows: Annotated[str, typer.Argument(help="Revisions, or rows of prompt and completion.")],
    out: Out,
    settings: Annotated[SftSettings, training("pass_tokens")],
    launch: Launch,
    columns: ColumnsOption = None,
) -> None:
    """Teach the model its own revised replies. The same command again goes on where it stopped."""
    settings = settled(settings)
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.train.data.readers import read_demonstrations

    read = read_demonstrations(rows, mapping_of(columns or []))
    from preceptor.train.sft import (  # torch loads only now: a fault in the rows is told at once
        plan_sft,
        train_sft,
    )

    said = source_facts(rows, read.set_aside)
    train = partial(train_sft, read.rows, settings, out, read=said)
    train_or_plan("sft", partial(plan_sft, read.rows, settings), train, launch, read.set_aside)


def reward(
    rows: PreferencesArgument,
    out: Out,
    settings: Annotated[RewardModelSettings, training("weights", "applies_to")],
    launch: Launch,
    constitution: Annotated[
        str | None,
        typer.Option(
            "--constitution", "-c", help="With --per-principle: where weights and applies_to stand."
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="Responses of the policy to come: the card says how far rewards vary on them."),
    ] = None,
    form: FormatOption = "rows",
    columns: ColumnsOption = None,
) -> None:
    """Train a reward model on preferences. The same command again goes on where it stopped."""
    if constitution is not None:
        settings = _of_principles(settings, constitution)
    settings = settled(settings)
    from preceptor.judge.records import Response
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.prompts.rows import read_records
    from preceptor.train.data.readers import read_preferences

    read = read_preferences(rows, form, mapping_of(columns or []))
    sampled = [] if samples is None else list(read_records(samples, Response))
    from preceptor.train.reward import plan_reward, train_reward

    said = source_facts(rows, read.set_aside)
    train = partial(train_reward, read.rows, settings, out, read=said, samples=sampled)
    train_or_plan("reward", partial(plan_reward, read.rows, settings), train, launch, read.set_aside)


def judge(
    labels: Annotated[
        Path, typer.Argument(help="A label folder, labels.jsonl, or pairs whose better reply is known.")
    ],
    out: Out,
    settings: Annotated[JudgeSettings, training()],
    launch: Launch,
    constitution: ConstitutionName,
    form: FormatOption = "rows",
    columns: ColumnsOption = None,
) -> None:
    """Tune a judge on verdicts that are there, which reads replies side by side. The same command goes on."""
    settings = settled(settings)
    from preceptor.constitution.files import load
    from preceptor.label.learned import read_judged
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts

    rules = load(constitution)
    rows = read_judged(labels, rules, form, mapping_of(columns or []))
    from preceptor.train.judge import plan_judge, train_judge

    said = source_facts(str(labels), {})
    train = partial(train_judge, rows, settings, out, constitution=rules, read=said)
    train_or_plan("judge", partial(plan_judge, rows, rules, settings), train, launch, {})


def dpo(
    rows: PreferencesArgument,
    out: Out,
    settings: Annotated[DpoSettings, training()],
    launch: Launch,
    cache: Annotated[
        Path, typer.Option(help="Folder where the reference's log-probabilities are kept for other runs.")
    ] = Path(".preceptor"),
    form: FormatOption = "rows",
    columns: ColumnsOption = None,
) -> None:
    """Train a policy on preferences. The same command again goes on where it stopped."""
    settings = settled(settings)
    from preceptor.prompts.columns import mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.train.data.readers import read_preferences

    read = read_preferences(rows, form, mapping_of(columns or []))
    from preceptor.train.dpo import plan_dpo, train_dpo

    said = source_facts(rows, read.set_aside)
    train = partial(train_dpo, read.rows, settings, out, read=said, cache=cache)
    train_or_plan("dpo", partial(plan_dpo, read.rows, settings), train, launch, read.set_aside)


def kto(
    rows: Annotated[
        str, typer.Argument(help="Scores, or rows of prompt, completion and label (true: a good reply).")
    ],
    out: Out,
    settings: Annotated[KtoSettings, training("pass_tokens")],
    launch: Launch,
    columns: ColumnsOption = None,
) -> None:
    """Train a policy on single replies that are good or bad. The same command again goes on where it stopped."""
    settings = settled(settings)
    from preceptor.prompts.columns import SINGLE_REPLIES, mapping_of
    from preceptor.prompts.manifest import source_facts
    from preceptor.train.data.unpaired import read_unpaired

    read = read_unpaired(rows, mapping_of(columns or [], SINGLE_REPLIES))
    from preceptor.train.kto import plan_kto, train_kto

    said = source_facts(rows, read.set_aside)
    train = partial(train_kto, read.rows, settings, out, read=said)
    train_or_plan("kto", partial(plan_kto, read.rows, settings), train, launch, read.set_aside)


def _of_principles(settings: RewardModelSettings, constitution: str) -> RewardModelSettings:
    """The settings with the weights of a constitution. Raises UserError where they would have no effect."""
    from preceptor.constitution.files import load

    if not settings.per_principle:
        raise UserError("--constitution has no effect without --per-principle")
    return RewardModelSettings.model_validate({**given(settings), **principle_settings(load(constitution))})
