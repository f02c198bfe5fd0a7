"""What a round does: replies of a policy are compared, and a policy is trained on what came of it.

Iterative DPO (Xu et al. 2023, arXiv 2312.16682; Yuan et al. 2024, arXiv 2401.10020, without its judging of
itself): each round samples from the policy of the round before, labels, and trains on from that policy. Left out
of the papers: the pairs of earlier rounds are not mixed in, and nothing is filtered but what is not ok.

The files of round 1 are those of a run without rounds. Later ones have a folder each, and what the run comes to
is the last round's policy and its held-out replies, copied to where they always are:

    rounds/0/8-heldout.jsonl      of the first reference, where that is an SFT model
    rounds/1/7-policy 8-heldout.jsonl
    rounds/2/3-responses.jsonl 4-labels.jsonl 5-preferences.jsonl 7-policy 8-heldout.jsonl
    7-policy 8-heldout.jsonl

Importing this module imports `train`, and so torch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

from preceptor import folder
from preceptor.asking import stages
from preceptor.asking.work import run_job_or_raise
from preceptor.constitution.errors import UserError
from preceptor.evaluation import head_to_head
from preceptor.figures import RewardAgreement, RoundFigures
from preceptor.judge.dataset.publish import preference
from preceptor.judge.figures import Bounds
from preceptor.judge.models.protocol import Dialogue
from preceptor.judge.records import Label, Preference, Response, Revision
from preceptor.judge.statistics import Interval, wilson
from preceptor.judge.voting.cascade import together
from preceptor.prompts.records import Prompt
from preceptor.prompts.rows import write_rows, writing
from preceptor.records import HeldOut, StageRecord
from preceptor.run.cast import Cast, Way
from preceptor.run.config import RunConfig
from preceptor.run.files import (
    CACHE,
    HELD_OUT,
    LABELS,
    POLICY,
    PREFERENCES,
    PROMPTS,
    RESPONSES,
    RESULT,
    REVISIONS,
    REWARD,
    SFT,
    TUNED_RESPONSES,
)
from preceptor.run.running import Run, Stage, StageOutcome, evaluation, outcome_of, sampling, statuses
from preceptor.train.data.pairs import encode_pairs
from preceptor.train.dpo import train_dpo
from preceptor.train.evaluation.compare import OVERALL, distinct_n, satisfied
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.settings import BARE


class Round(NamedTuple):
    """One round of a run."""

    number: int
    """From 1; 0 stands for what round 1 starts from."""
    of: int
    """How many there are."""
    seed: int

    @property
    def policy(self) -> str:
        """Where its policy lies in the run folder."""
        return POLICY if self.of == 1 else self.own(POLICY)

    @property
    def held_out(self) -> str:
        """Where its held-out replies lie."""
        return HELD_OUT if self.of == 1 else self.own(HELD_OUT)

    def own(self, name: str) -> str:
        """A file in the round's own folder."""
        return f"rounds/{self.number}/{name}"

    def file(self, name: str) -> str:
        """A file that a run without rounds has as well: there it lies for round 1."""
        return name if self.number == 1 else self.own(name)

    def stage(self, name: str) -> str:
        """The stage that makes such a file."""
        return name if self.number == 1 else f"{name}-{self.number}"

    def last_stage(self, name: str) -> str:
        """A stage whose result a run without rounds shows as its own."""
        return name if self.of == 1 else f"{name}-{self.number}"


def rounds_of(config: RunConfig) -> list[Round]:
    """The rounds of a run, each with a seed of its own; the first has the run's."""
    return [
        Round(number, config.rounds, seed_of(config.seed, number)) for number in range(1, config.rounds + 1)
    ]


def seed_of(seed: int, number: int) -> int:
    """A round's seed, of 31 bits: not the neighbour of another run's seed, nor of the held-out replies'."""
    if number == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"round {number} of {seed}".encode()).digest()[:4]) >> 1


def stages_of_round(config: RunConfig, each: Round) -> tuple[list[Stage], list[Stage]]:
    """The stages of a round, in order: those that compare replies, and those that train on what came of it. Between the
    two of round 1 the reward model learns."""
    comparing = [_sample(config, each)] if each.number > 1 else []
    comparing += [_label(config, each), _prefer(each)]
    training = [_train(config, each)]
    if each.of > 1 and each.number == 1 and config.sft is not None:
        start = each._replace(number=0)
        training.append(evaluation(config, start.last_stage("evaluate"), SFT, start.held_out))
    return comparing, [*training, _evaluate(config, each)]


def prompts_of(config: RunConfig, each: Round) -> str:
    """The file of the prompts that a round compares replies to."""
    return each.own(PROMPTS) if config.rounds > 1 and config.round_prompts == "split" else PROMPTS


def shares(config: RunConfig) -> list[Stage]:
    """With `round_prompts: split`, every prompt is given to one round: the first to the first, and so on in turn."""
    if config.rounds == 1 or config.round_prompts == "same":
        return []
    each_has = [prompts_of(config, each) for each in rounds_of(config)]

    def work(run: Run) -> StageOutcome:
        prompts = run.read(PROMPTS, Prompt)
        if len(prompts) < len(each_has):
            raise UserError(
                f"{len(prompts)} prompts cannot be split among {len(each_has)} rounds; give more prompts, fewer "
                "rounds, or round_prompts: same"
            )
        for at, name in enumerate(each_has):
            write_rows(run.path / name, prompts[at :: len(each_has)])
        return StageOutcome(len(prompts), len(prompts))

    def walk(way: Way, _: Cast) -> Dialogue[None]:
        way.rows[each_has[way.number % len(each_has)]] = way.rows[PROMPTS]
        yield from ()

    stage = Stage(
        name="shares",
        sections=("rounds", "round_prompts"),
        inputs=(PROMPTS,),
        outputs=tuple(each_has),
        settings=lambda _: {"rounds": len(each_has)},
        work=work,
        walk=walk,
    )
    return [stage]


def _sample(config: RunConfig, each: Round) -> Stage:
    """Replies of the policy before, to the round's own prompts."""
    before = rounds_of(config)[each.number - 2].policy
    output = each.file(TUNED_RESPONSES)
    return sampling(config, each.stage("sample"), prompts_of(config, each), output, each.seed, before)


def _label(config: RunConfig, each: Round) -> Stage:
    settings = config.label.model_copy(update={"seed": each.seed})
    if each.number > 1 or config.sft is not None:
        inputs = [each.file(TUNED_RESPONSES)]
    else:
        inputs = [RESPONSES, REVISIONS] if config.revise else [RESPONSES]
    name, output = each.stage("label"), each.file(LABELS)

    def work(run: Run) -> StageOutcome:
        revisions = run.read(REVISIONS, Revision) if REVISIONS in inputs else []
        pairs = stages.pairs_to_label(
            run.read(inputs[0], Response), revisions, config.pairs, config.truncated
        )
        if not pairs:
            raise UserError(f"there is no pair of usable replies to compare; {inputs[0]} says why")
        found: Counter[str] = Counter()
        with run.screen.asking(name) as watch, writing(run.path / output) as write:

            def keep(label: Label) -> None:
                found[label.status] += 1
                write(label)

            to_label = partial(stages.to_label, config.judge, run.asking, run.constitution, settings)
            asked = run_job_or_raise(stages.AskJob(pairs, to_label), run.asking, keep, watch)
        return StageOutcome(len(pairs), asked.rows, {}, asked.progress.cost_usd, {"status": dict(found)})

    def walk(way: Way, cast: Cast) -> Dialogue[None]:
        if inputs[0] not in way.rows:
            return
        revisions = way.rows.get(REVISIONS, ()) if REVISIONS in inputs else ()
        pairs = stages.pairs_to_label(way.rows[inputs[0]], revisions, config.pairs, config.truncated)
        yield from together(list(stages.labelling(pairs, cast.constitution, cast.judge, settings)))

    return Stage(
        name=name,
        sections=("judge", "constitution", "pairs", "truncated", "label"),
        inputs=tuple(inputs),
        outputs=(output,),
        settings=lambda run: {
            "judge": config.judge,
            "constitution": run.constitution.identity,
            "pairs": config.pairs,
            "truncated": config.truncated,
            "settings": settings.model_dump(mode="json"),
        },
        work=work,
        walk=walk,
    )


def _prefer(each: Round) -> Stage:
    source, output = each.file(LABELS), each.file(PREFERENCES)

    def work(run: Run) -> StageOutcome:
        labels = run.read(source, Label)
        found = [preference(label) for label in labels]
        rows = write_rows(run.path / output, (row for row in found if row is not None))
        if not rows:
            raise UserError(
                f"no comparison came out ok, so there is nothing to train on; look at {source} for why"
            )
        aside = statuses([label for label, row in zip(labels, found, strict=True) if row is None])
        return StageOutcome(len(labels), rows, aside)

    return Stage(
        name=each.stage("preferences"),
        sections=(),
        inputs=(source,),
        outputs=(output,),
        settings=lambda _: {},
        work=work,
    )


def _train(config: RunConfig, each: Round) -> Stage:
    """DPO, on from the policy before or, in round 1, from the SFT model or the base.

    The same training that another number of rounds had finished elsewhere in the folder is taken from there.
    """
    path = Path(config.out)
    first = SFT if config.sft is not None else None
    start = first if each.number == 1 else rounds_of(config)[each.number - 2].policy
    source = each.file(PREFERENCES)
    inputs = [source, *([start] if start else [])]
    wanted = {
        "model": config.model,
        "seed": each.seed,
        "adapter": str(path / start) if start else None,
    }
    if each.number > 1 and config.reference == "first":
        wanted["reference_adapter"] = str(path / first) if first else BARE
        inputs += [first] if first else []
    settings = config.dpo.model_copy(update=wanted)
    name = each.last_stage("dpo")
    dumped = settings.model_dump(mode="json")

    def work(run: Run) -> StageOutcome:
        _adopt(run, run.fingerprint(dumped, inputs), each.policy)
        preferences = run.read(source, Preference)
        with run.screen.training(name) as watch:
            trained = train_dpo(
                preferences, settings, run.path / each.policy, watch=watch, cache=run.path / CACHE
            )
        return outcome_of(trained)

    return Stage(
        name=name,
        sections=("dpo", "model", "seed", "reference"),
        inputs=tuple(inputs),
        outputs=(each.policy,),
        settings=lambda _: dumped,
        work=work,
    )


def _adopt(run: Run, fingerprint: str, target: str) -> None:
    """Copy the policy of a finished training with this fingerprint to `target`, if there is one elsewhere."""
    for record in folder.stage_records(run.path):
        if record.fingerprint == fingerprint and record.stage.partition("-")[0] == "dpo":
            for source, sha in record.outputs.items():
                manifest = run.path / source / "manifest.json"
                if source != target and manifest.exists() and folder.digest(manifest.parent) == sha:
                    folder.copy_folder(manifest.parent, run.path / target)
                    return


def _evaluate(config: RunConfig, each: Round) -> Stage:
    """Held-out replies of a round's policy beside those of the run's start, and, of a later round, how well the
    reward model of the first does on its labels."""
    stage = each.last_stage("evaluate")
    if config.reward is None or each.number == 1:
        return evaluation(config, stage, each.policy, each.held_out)
    preferences = each.file(PREFERENCES)

    def agreement(run: Run) -> dict[str, Any]:
        agrees = _reward_model_agrees(run.path / REWARD, run.read(preferences, Preference))
        accuracy, accuracy_ci95 = _share(agrees)
        known: RewardAgreement = {"accuracy": accuracy, "accuracy_ci95": accuracy_ci95, "n": agrees.n}
        return {"reward_model": known}

    return evaluation(config, stage, each.policy, each.held_out, [REWARD, preferences], agreement)


def _reward_model_agrees(path: Path, preferences: Sequence[Preference]) -> Interval:
    """Share of preferences of which the reward model prefers the same reply; those too long for it are left out."""
    model = RewardModel.load(path)
    pairs = encode_pairs(preferences, model.base.tokenizer, model.max_length, model.base.generation_eos).rows
    features = model.pair_features(pairs, pass_tokens=2048, shared=False)  # (2, P, H)
    chosen, rejected = model.pair_rewards(pairs, features)  # (P,) each
    return wilson(int((chosen > rejected).sum()), len(pairs))


def result(config: RunConfig) -> list[Stage]:
    """With rounds, the last one's policy and held-out replies are put where a run's are."""
    last = rounds_of(config)[-1]
    if last.of == 1:
        return []

    def work(run: Run) -> StageOutcome:
        folder.copy_folder(run.path / last.policy, run.path / POLICY)
        rows = write_rows(run.path / HELD_OUT, run.read(last.held_out, HeldOut))
        return StageOutcome(rows, rows)

    stage = Stage(
        name=RESULT,
        sections=("rounds",),
        inputs=(last.policy, last.held_out),
        outputs=(POLICY, HELD_OUT),
        settings=lambda _: {"round": last.number},
        work=work,
        tells=lambda run, records: {"rounds": figures(run, records)},
    )
    return [stage]


def figures(run: Run, records: Sequence[StageRecord]) -> list[RoundFigures]:
    """A row a round, as in `summary.json`; round 0 is the first reference. None: nothing could be measured.

    `kl_nats` is KL to the first reference; `wall_s` and `cost_usd` are of the round's own stages.
    """
    by_name = {record.stage: record for record in records}
    every = rounds_of(run.config)
    rows = [_start(run, every[0])]
    for each in every:
        sampled = each.stage("sample") if each.number > 1 or run.config.sft is not None else "respond"
        names = (sampled, each.stage("label"), each.stage("preferences"))
        own = [by_name[name] for name in (*names, each.last_stage("dpo"), each.last_stage("evaluate"))]
        _, _, preferred, dpo, evaluated = own
        labels = statuses(run.read(each.file(LABELS), Label))
        row: RoundFigures = {
            "round": each.number,
            **_of_replies(run.read(each.held_out, HeldOut)),
            **_to_reference(run, evaluated.figures),
            "labels": labels,
            "labels_ok": labels.get("ok", 0) / sum(labels.values()),
            "pairs": preferred.rows_out,
            "dpo_wall_s": dpo.wall_s,
            "wall_s": sum(record.wall_s for record in own),
            "cost_usd": sum(record.cost_usd for record in own),
        }
        rows.append(row)
    if run.config.reward is not None:
        card = folder.read_json(run.path / REWARD / "report_card.json")
        rows[1]["reward_model"] = {
            "accuracy": card.get("accuracy"),  # a card of no pairs has its n alone
            "accuracy_ci95": card.get("ci95"),
            "n": card["n"],
        }
    return rows


class _Moved(TypedDict):
    """How far a round's policy has moved, and how well the reward model does on its labels."""

    reward_model: NotRequired[RewardAgreement]
    kl_nats: float
    kl_nats_ci95: Bounds


class _Said(TypedDict):
    """What a policy's replies are worth by themselves."""

    satisfied: float | None
    satisfied_ci95: Bounds | None
    distinct_2: float


class _Compared(_Said):
    """And beside the run's start."""

    n: int
    win_rate: float | None
    win_rate_ci95: Bounds


def _to_reference(run: Run, figures: Mapping[str, Any]) -> _Moved:
    """What was measured of a round's policy; KL is that to the first reference."""
    name = "kl_nats" if run.config.sft is None else "kl_nats_to_sft"
    moved: _Moved = {"kl_nats": figures[name], "kl_nats_ci95": figures[f"{name}_ci95"]}
    return {"reward_model": figures["reward_model"], **moved} if "reward_model" in figures else moved


def _start(run: Run, first: Round) -> RoundFigures:
    """Round 0: the SFT model as it was compared with the base, or the base itself, which nothing is compared with."""
    nothing_moved: _Moved = {"kl_nats": 0.0, "kl_nats_ci95": [0.0, 0.0]}
    if run.config.sft is not None:
        replies = _of_replies(run.read(first._replace(number=0).held_out, HeldOut))
        return cast("RoundFigures", {"round": 0, **replies, **nothing_moved})
    rows = run.read(first.held_out, HeldOut)
    shown = _of_texts([row.before for row in rows], [row.satisfied_before for row in rows])
    return cast("RoundFigures", {"round": 0, "n": len(rows), **shown, **nothing_moved})


def _of_replies(rows: Sequence[HeldOut]) -> _Compared:
    compared = head_to_head.figures(rows)
    return {
        "n": len(rows),
        "win_rate": compared["win_rate"],
        "win_rate_ci95": compared["win_rate_ci95"],
        **_of_texts([row.after for row in rows], [row.satisfied_after for row in rows]),
    }


def _of_texts(texts: Sequence[str], marks: Sequence[Mapping[str, bool]]) -> _Said:
    held = satisfied([mark for mark in marks if mark])[OVERALL]
    share, bounds = _share(held)
    return {"satisfied": share, "satisfied_ci95": bounds, "distinct_2": distinct_n(texts, 2)}


def _share(interval: Interval) -> tuple[float | None, Bounds | None]:
    return (interval.share, [interval.low, interval.high]) if interval.n else (None, None)
