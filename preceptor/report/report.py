"""The report: one self-contained page, made from the run folder alone, so that it can be made again at any time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from preceptor import __version__
from preceptor.constitution.foreign import json_of
from preceptor.constitution.principle import Constitution
from preceptor.figures import ProbedFigures, RoundFigures, RunSummary, StoppedFigures
from preceptor.judge.figures import AuditFigures
from preceptor.judge.records import Judgement, Label
from preceptor.prompts.shown import html_page
from preceptor.records import HeldOut, StageRecord
from preceptor.report import plots, probe_table
from preceptor.settings import CHECKS
from preceptor.train.evaluation.plots import CSS, calibration
from preceptor.train.evaluation.reward_figures import RewardFigures

SAMPLES = 3


class GuardOrder(TypedDict):
    """What the guard ordered at one look, and why."""

    step: int
    action: str
    why: str


class ShownFigure(TypedDict):
    """A figure in large, and what it is."""

    value: str
    meaning: str


class GuardShown(TypedDict):
    """What the page shows of a guarded training."""

    plot: str
    judge: str
    meaning: str
    prompts: int
    stopped: StoppedFigures | None
    orders: list[GuardOrder]
    looks: int
    cards: list[ShownFigure]
    page: str


class FinishedRun(NamedTuple):
    """What a finished run folder holds, read back."""

    constitution: Constitution
    settings: dict[str, Any]
    summary: RunSummary
    stages: Sequence[StageRecord]
    labels: Sequence[Label]
    held_out: Sequence[HeldOut]
    reward_card: RewardFigures | None
    metrics: dict[str, list[dict[str, Any]]]
    """Training stage -> its metric rows."""
    guard: GuardShown | None
    """Of PPO, as `preceptor.run.guard` shows it."""


def render(run: FinishedRun) -> str:
    """The page as HTML. Replies are escaped; nothing is loaded from anywhere."""
    values = {
        "constitution": run.constitution,
        "run": {
            "model": run.settings["model"],
            "judge": run.settings["judge"],
            "checked": [principle.id for principle in run.constitution.principles if principle.check],
        },
        "cards": _cards(run.summary),
        "held_out": len(run.held_out),
        "oracle": run.summary["oracle"],
        "policies": _policies(run.summary),
        "further": begins_at_dpo(run.settings),
        "taught_it": run.settings["judge"]
        == run.settings.get("evaluate", {}).get("oracle", CHECKS)
        == CHECKS,
        "samples": [_sample(row) for row in pick(run.held_out)],
        "statuses": _statuses(run.labels),
        "audit": _audit(run.summary["audit"]),
        "principles": _by_principle(run),
        "reward": _reward(run.reward_card),
        "rounds": _rounds(run.summary.get("rounds", [])),
        "probes": _probes(run.summary.get("probes")),
        "first": _first_reference(run.settings),
        "guard": run.guard,
        "plots": {
            "principles": plots.before_and_after(run.summary["before"], run.summary["after"])
            if run.summary["after"]
            else "",
            "calibration": calibration(run.reward_card["bins"])
            if run.reward_card and run.reward_card.get("bins")
            else "",
            "curves": _curves(run.metrics),
            "beside": _beside(run.summary),
            "rounds": _by_round(run.summary.get("rounds", [])),
        },
        "stages": run.stages,
        "version": __version__,
    }
    return html_page(Path(__file__).with_name("report.html"), CSS, values)


def pick(rows: Iterable[HeldOut], count: int = SAMPLES) -> list[HeldOut]:
    """The rows to show: those that changed, no kind of prompt twice while there is another, in file order."""
    changed = [row for row in rows if row.before != row.after]
    seen: set[tuple[str, ...]] = set()
    first: list[HeldOut] = []
    for row in changed:
        if row.prompt.tags not in seen:
            seen.add(row.prompt.tags)
            first.append(row)
    return [*first, *(row for row in changed if row not in first)][:count]


def _cards(summary: RunSummary) -> list[ShownFigure]:
    low, high = summary["win_rate_ci95"]
    distinct = summary["distinct_2"]
    cards: list[tuple[str, str]] = [
        (_change(summary["before"], summary["after"]), "replies that satisfy every principle"),
        (
            percent(summary["win_rate"]),
            f"win rate against the start; {low:.0%} to {high:.0%} with 95 % confidence",
        ),
        (f"{summary['kl_nats']:.1f}", "KL to the start, nats a reply"),
        (_times(distinct["after"], distinct["before"]), "distinct-2 of the start"),
        (f"{summary['wall_s']:.0f} s", "in all"),
        (f"${summary['cost_usd']:.2f}", "paid to providers"),
    ]
    if "reward_model" in summary:
        low, high = summary["reward_model"]["ci95"]
        accuracy = f"{summary['reward_model']['accuracy']:.0%}"
        cards.insert(2, (accuracy, f"reward model on held-out pairs; {low:.0%} to {high:.0%}"))
    return [{"value": value, "meaning": meaning} for value, meaning in cards]


def _times(after: float, before: float) -> str:
    """A dash where there was nothing: of one word a reply, there are no two beside each other."""
    return f"{after / before:.2f} ×" if before else "–"


def _beside(summary: RunSummary) -> str:
    """DPO and PPO from one start; nothing where there is no PPO, or no oracle."""
    if not summary.get("ppo", {}).get("after"):
        return ""
    return plots.side_by_side(
        {"start": summary["before"], "DPO": summary["after"], "PPO": summary["ppo"]["after"]}
    )


def _change(before: dict[str, float], after: dict[str, float]) -> str:
    return f"{percent(before.get('overall'))} → {percent(after.get('overall'))}"


def percent(share: float | None) -> str:
    """A share as a person reads it; a dash where there is none."""
    return "–" if share is None else f"{share:.0%}"


def _policies(summary: RunSummary) -> list[dict[str, str]]:
    """A row a policy, where there is more than DPO's."""
    if "ppo" not in summary:
        return []
    both = (("DPO", summary), ("PPO", summary["ppo"]))
    return [
        {
            "name": name,
            "satisfied": with_interval(figures["after"].get("overall"), figures["ci95"].get("overall")),
            "win_rate": with_interval(figures["win_rate"], figures["win_rate_ci95"]),
            "kl": f"{figures['kl_nats']:.1f}",
            "distinct": f"{figures['distinct_2']['after']:.3f}",
        }
        for name, figures in both
    ]


def _sample(row: HeldOut) -> dict[str, Any]:
    asked = "\n".join(f"{message.role}: {message.content}" for message in row.prompt.messages)
    return {
        "asked": asked,
        "sides": [
            {"name": "before", "text": row.before, "marks": row.satisfied_before},
            {"name": "after", "text": row.after, "marks": row.satisfied_after},
        ],
    }


def _statuses(labels: Sequence[Label]) -> list[dict[str, Any]]:
    counts = Counter(label.status for label in labels)
    return [
        {"status": status, "rows": rows, "share": rows / len(labels)} for status, rows in counts.most_common()
    ]


def _audit(audited: AuditFigures) -> list[dict[str, str]]:
    meanings = {
        "accuracy": "agreement with the oracle where it prefers one, both orders averaged",
        "flip_rate": "comparisons whose verdict changes with the order",
        "first_share": "verdicts for the reply shown first; 50 % is unbiased",
        "longer_share": "labels for the longer reply",
        "kappa": "agreement beyond chance",
        "ece": "calibration error of the label's probability",
    }
    figures: Mapping[str, Any] = audited
    rows = []
    for name, meaning in meanings.items():
        value = figures.get(name)
        if value is not None:
            shown = f"{value:.2f}" if name in ("kappa", "ece") else f"{value:.1%}"
            rows.append({"name": name.replace("_", " "), "value": shown, "meaning": meaning})
    return rows


def _by_principle(run: FinishedRun) -> list[dict[str, Any]]:
    """Per principle: who decided, how often it spoke, how often the order changed its verdict."""
    judgements: dict[str, list[tuple[Judgement, ...]]] = defaultdict(list)
    for label in run.labels:
        own: dict[str, list[Judgement]] = defaultdict(list)
        for judgement in label.judgements:
            own[judgement.principle].append(judgement)
        for principle, group in own.items():
            judgements[principle].append(tuple(group))
    agreement = run.summary.get("label_agreement", {})
    rows = []
    for principle, groups in judgements.items():
        both = [group for group in groups if len(group) == 2 and all(one.letter for one in group)]
        flipped = sum(group[0].letter != group[1].letter for group in both)
        rows.append(
            {
                "principle": principle,
                "by": groups[0][0].model,
                "verdicts": sum(any(one.status == "ok" for one in group) for group in groups),
                "ties": sum(all(one.status == "tie" for one in group) for group in groups),
                "flipped": f"{flipped / len(both):.1%}" if both else "–",
                "agreement": f"{agreement[principle]:.1%}" if principle in agreement else "–",
            }
        )
    return rows


def _reward(card: RewardFigures | None) -> list[dict[str, str]]:
    names = {
        "n": "held-out pairs",
        "accuracy": "accuracy",
        "nll": "negative log-likelihood, nats",
        "brier": "Brier",
        "ece": "ECE",
    }
    figures: Mapping[str, Any] = card or {}
    rows = []
    for key, name in names.items():
        if key in figures:
            value = figures[key]
            rows.append({"name": name, "value": str(value) if key == "n" else f"{value:.3f}"})
    return rows


def _probes(probed: ProbedFigures | None) -> dict[str, Any] | None:
    """The table of failure modes, each mode named in its first line alone; None where nothing was probed."""
    if probed is None:
        return None
    rows, last = [], ""
    for line in probe_table.lines(probed["figures"]):
        rows.append(line._asdict() | {"mode": line.mode if line.mode != last else ""})
        last = line.mode
    return {"n": probed["n"], "set": probed["set"], "rows": rows}


def begins_at_dpo(settings: dict[str, Any]) -> bool:
    """Whether PPO tuned DPO's policy further, and does not stand beside it."""
    return (settings.get("ppo") or {}).get("start") == "dpo"


def _first_reference(settings: dict[str, Any]) -> str:
    return "the SFT model" if settings.get("sft") else "the model as it came"


def _rounds(rows: Sequence[RoundFigures]) -> list[dict[str, str]]:
    """A row a round as it is shown, its intervals beside it; a dash where nothing was measured."""
    shown = []
    for row in rows:
        reward = row.get("reward_model", {})
        low, high = row["kl_nats_ci95"]
        shown.append(
            {
                "round": str(row["round"]),
                "satisfied": with_interval(row.get("satisfied"), row.get("satisfied_ci95")),
                "win_rate": with_interval(row.get("win_rate"), row.get("win_rate_ci95")),
                "kl": f"{row['kl_nats']:.2f} ({low:.2f} to {high:.2f})" if row["round"] else "0",
                "distinct_2": f"{row['distinct_2']:.3f}",
                "pairs": str(row.get("pairs", "–")),
                "labels_ok": percent(row.get("labels_ok")),
                "reward": with_interval(reward.get("accuracy"), reward.get("accuracy_ci95")),
                "dpo": f"{row['dpo_wall_s']:.0f}" if "dpo_wall_s" in row else "–",
                "wall": f"{row['wall_s']:.0f}" if "wall_s" in row else "–",
                "cost": f"${row['cost_usd']:.2f}" if "cost_usd" in row else "–",
            }
        )
    return shown


def with_interval(share: float | None, interval: Sequence[float] | None) -> str:
    """A share with its 95 % interval; a dash where there is none."""
    if share is None or interval is None:
        return "–"
    return f"{share:.0%} ({interval[0]:.0%} to {interval[1]:.0%})"


def _by_round(rows: Sequence[RoundFigures]) -> list[str]:
    if not rows:
        return []
    kl = plots.by_round(rows, "kl_nats", "KL to the first reference, nats a reply")
    if all(row.get("satisfied") is None for row in rows):
        return [kl]
    return [plots.by_round(rows, "satisfied", "replies that satisfy every principle", share=True), kl]


def _curves(metrics: dict[str, list[dict[str, Any]]]) -> list[str]:
    wanted = [
        ("reward", "loss", "reward model: loss"),
        ("policy", "loss", "DPO: loss"),
        ("policy", "accuracy", "DPO: accuracy"),
        ("ppo", "reward", "PPO: reward"),
        ("ppo", "kl_nats", "PPO: KL, nats a reply"),
    ]
    return [plots.curve(metrics[stage], key, label) for stage, key, label in wanted if metrics.get(stage)]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file, none where it does not exist."""
    if not path.exists():
        return []
    return [json_of(line) for line in path.read_text(encoding="utf-8").splitlines()]
