"""What the guard's rules make of histories, what it measures, and that it stops a policy that games its reward."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.constitution.errors import UserError
from preceptor.prompts.pool import prompts_from
from preceptor.prompts.records import Message, Prompt
from preceptor.prompts.rows import read_records
from preceptor.train.embedded.flaws import agreement, padding
from preceptor.train.embedded.oracle import oracle
from preceptor.train.errors import TrainDataError
from preceptor.train.guard.held_out import GuardJudge, HeldOutGuard, correlation, plain_text
from preceptor.train.guard.page import fooled
from preceptor.train.guard.rules import GuardReply, GuardRule, GuardRules, Look, best, judged, rules_from
from preceptor.train.loop.output_folder import Trained
from preceptor.train.loop.run import TrainingProgress
from preceptor.train.models.adapters import POLICY
from preceptor.train.models.base import load_base
from preceptor.train.ppo.checkpoint import copy_weights
from preceptor.train.ppo.guard_protocol import Decision, Moment
from preceptor.train.ppo.roles import open_roles
from preceptor.train.ppo.train import train_ppo
from preceptor.train.settings import PpoSettings
from tests.jsonl import metrics_of
from tests.train.ppo.test_train import StoppedError, same, settings_of, train, weights_of
from tests.train.rewards import vowels

pytestmark = pytest.mark.slow

HELD_OUT = [
    Prompt(id=f"h{number}", messages=(Message(role="user", content=f"{number}?"),)) for number in range(4)
]


def look(step: int, gold: float | None = 0.5, **changes: Any) -> Look:
    """A look at which nothing is amiss, with an interval of a tenth to either side."""
    half = 0.1
    values: dict[str, Any] = {
        "step": step,
        "gold": gold,
        "gold_ci95": (0.0, 1.0) if gold is None else (gold - half, gold + half),
        "judged": 100,
        "unjudged": 0,
        "proxy": float(step),
        "kl_nats": 1.0,
        "kl_coef": 0.1,
        "reply_tokens": 20.0,
        "distinct_1": 0.5,
        "distinct_2": 0.8,
        "self_bleu": 0.2,
        "refused": 0.0,
        "perplexity": 10.0,
    }
    return Look(**{**values, **changes})


QUIET = GuardRules()


def test_a_fall_of_gold_counts_only_past_its_interval_and_only_while_the_proxy_does_not_fall() -> None:
    """The interval of a difference of two intervals of 0.1 is sqrt(0.1^2 + 0.1^2) = 0.141."""
    top = look(10, 0.8)
    assert judged([look(0), top, look(20, 0.67)], QUIET).action == "off"
    fallen = judged([look(0), top, look(20, 0.65)], QUIET)
    assert fallen.action == "stop"
    assert fallen.return_step == 10
    assert "gold fell from 0.800 at step 10 to 0.650" in fallen.said[0]
    assert "while the proxy went from 10.000 to 20.000" in fallen.said[0]
    assert judged([look(0), top, look(20, 0.65, proxy=9.0)], QUIET).action == "off"
    assert judged([look(0), top, look(20, 0.65, proxy=None)], QUIET).action == "stop"
    assert judged([look(0), top, look(20, None)], QUIET).action == "off"
    patient = GuardRules(gold_drop=GuardRule(limit=0.2, action="stop"))
    assert judged([look(0), top, look(20, 0.65)], patient).action == "off"
    assert judged([look(0), top, look(20, 0.59)], patient).action == "stop"


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({"kl_nats": 30.1}, "kl", "KL is 30.10 nats a reply, over 30"),
        ({"distinct_2": 0.39}, "distinct_2", "distinct-2 is 0.390, under 0.5 of the start's 0.800"),
        (
            {"perplexity": 15.1},
            "perplexity",
            "perplexity on plain text is 15.1, over 1.5 times the start's 10.0",
        ),
        (
            {"reply_tokens": 41.0},
            "length_drift",
            "replies have 41 tokens, the start's 20: more than 2 times as many",
        ),
        (
            {"reply_tokens": 9.0},
            "length_drift",
            "replies have 9 tokens, the start's 20: more than 2 times fewer",
        ),
    ],
)
def test_each_rule_fires_past_its_limit_and_does_as_it_is_told(
    change: dict[str, float], rule: str, words: str
) -> None:
    history = [look(0), look(10, 0.6), look(20, 0.55, **change)]
    limit = getattr(QUIET, rule).limit
    for action in ("off", "warn", "raise_kl", "stop"):
        said = judged(history, GuardRules(**{rule: {"limit": limit, "action": action}}))
        assert said.action == action
        assert said.said == (() if action == "off" else (words,))
        assert said.kl_coef == (0.2 if action == "raise_kl" else None)
        assert said.return_step == (10 if action == "stop" else None)
    least = {"kl_nats": 29.9, "distinct_2": 0.41, "perplexity": 14.9, "reply_tokens": 20.0}
    within = {name: least[name] for name in change}
    assert judged([*history[:2], look(20, 0.55, **within)], QUIET).action == "off"
    assert judged(history[:2], QUIET).action == "off"


def test_the_sternest_of_several_orders_holds_and_all_reasons_are_told() -> None:
    rules = GuardRules(
        kl=GuardRule(limit=5, action="raise_kl"), perplexity=GuardRule(limit=1.5, action="warn")
    )
    both = judged([look(0), look(5, kl_nats=6.0, perplexity=20.0)], rules)
    assert both.action == "raise_kl"
    assert len(both.said) == 2
    nothing = judged([look(0), look(5, kl_nats=6.0, kl_coef=0.0)], rules)
    assert nothing.kl_coef == rules.kl_floor, "twice nothing would be nothing"


def test_the_best_is_the_earliest_of_the_highest_and_the_start_where_nothing_was_judged() -> None:
    assert best([look(0, 0.2), look(1, 0.7), look(2, 0.7), look(3, None)]).step == 1
    assert best([look(0, None), look(1, None)]).step == 0


def test_rules_are_read_from_words_and_others_are_refused() -> None:
    rules = rules_from(["kl > 8:stop", "perplexity:off", "distinct-2<0.7:warn"])
    assert rules.kl == GuardRule(limit=8, action="stop")
    assert rules.perplexity == GuardRule(limit=1.5, action="off")
    assert rules.distinct_2 == GuardRule(limit=0.7, action="warn")
    assert rules.gold_drop == QUIET.gold_drop
    for wrong in (
        "kl<8:stop",
        "distinct-2>0.7:stop",
        "kl>8",
        "kl>8:explode",
        "hope>1:stop",
        "kl>-1:stop",
        "",
    ):
        with pytest.raises(UserError, match="wanted NAME>LIMIT:ACTION or NAME:ACTION"):
            rules_from([wrong])


def test_length_and_reward_are_correlated_where_both_vary() -> None:
    assert correlation([1, 2, 3], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert correlation([1, 2, 3, 9], [3.0, 2.0, 1.0, None]) == pytest.approx(-1.0)
    assert correlation([1, 2], [5.0, 5.0]) is None
    assert correlation([1, 2], [None, None]) is None


def test_the_samples_shown_are_those_that_the_proxy_likes_and_the_judge_does_not() -> None:
    rows = [(1.0, 9.0), (0.0, 1.0), (0.0, 5.0), (None, 8.0), (0.0, None)]
    replies = [
        GuardReply(step=3, prompt=HELD_OUT[0], text=str(at), tokens=3, proxy=proxy, gold=gold)
        for at, (gold, proxy) in enumerate(rows)
    ]
    assert [reply.text for reply in fooled(replies)] == ["2", "1", "0"]


def test_plain_text_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for name, words in (("none", None), ("empty", ""), ("wrong", '{"words": 1}\n'), ("broken", "{\n")):
        if words is not None:
            (tmp_path / name).write_text(words)
        with pytest.raises(TrainDataError, match="wanted JSON Lines with a `text` each"):
            plain_text(tmp_path / name)


# At work, on a random model


def judge_of(words: Sequence[float | None]) -> GuardJudge:
    """A judge whose scores are these, look after look; it knows a look by how often it was asked."""
    calls = iter(words)

    def score(prompts: Sequence[Prompt], replies: Sequence[str], start: Sequence[str]) -> list[float | None]:
        assert len(prompts) == len(replies) == len(start)
        value = next(calls)
        return [value] * len(prompts)

    return GuardJudge("canned", "replies that please it", score, "canned")


def letters(prompts: Sequence[Prompt], replies: Sequence[str], start: Sequence[str]) -> list[float | None]:  # noqa: ARG001
    """A judge that likes z, and is as well the same one when asked again."""
    return [float("z" in reply) for reply in replies]


Z = GuardJudge("z", "replies with a z", letters, "z")


def test_a_training_is_stopped_when_gold_falls_and_the_best_policy_comes_back(
    tiny: Path, tmp_path: Path
) -> None:
    """By a judge whose word is fixed, and rewards that never fall, so that gold alone decides."""
    settings = settings_of(tiny, epochs=8, guard_every=2, kl_target=None, kl_budget=None)
    rules = rules_from([f"{name}:off" for name in ("kl", "distinct-2", "perplexity", "length-drift")])
    risen = iter(range(1000))

    def rising(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
        more = 10 * next(risen)
        return [more + value for value in vowels(prompts, completions, **columns)]

    guard = HeldOutGuard(HELD_OUT * 8, judge_of([0.0, 1.0, 0.9, 0.0]), rules, settings)
    trained = train(settings, tmp_path / "out", rising, guard=guard)
    looks = list(read_records(trained.folder / "guard.jsonl", Look))
    assert [each.step for each in looks] == [0, 2, 4, 6]
    assert [each.action for each in looks] == ["off", "off", "off", "stop"]
    assert trained.metrics["stopped"] == {"step": 6, "reason": looks[-1].said[0], "returned_step": 2}
    assert trained.metrics["guard"] == {
        "looks": 4,
        "gold_start": 0.0,
        "gold_best": 1.0,
        "best_step": 2,
        "gold_returned": 1.0,
    }
    page = (trained.folder / "guard.html").read_text()
    assert "After step 6: gold fell from 1.000 at step 2 to 0.000" in page
    assert "Handed back is the policy of step 2." in page


def test_a_resumed_training_is_guarded_as_the_unbroken_one(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny, guard_every=2, kl_target=None, kl_beta=0.05)
    rules = rules_from(["kl>0:raise_kl", "gold-drop:off", "distinct-2:off"])

    def guard() -> HeldOutGuard:
        return HeldOutGuard(HELD_OUT, Z, rules, settings)

    whole = train(settings, tmp_path / "whole", guard=guard())

    def watch(now: TrainingProgress) -> None:
        if now.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(settings, tmp_path / "broken", guard=guard(), watch=watch)
    broken = tmp_path / "broken"
    with (broken / "guard.jsonl").open("a") as file:
        file.write(look(6).line() + "\n")  # a look whose checkpoint was never written
    resumed = train(settings, broken, guard=guard())
    for name in ("metrics.jsonl", "guard.jsonl", "guard-replies.jsonl", "guard.html"):
        assert (broken / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert same(weights_of(whole.folder), weights_of(resumed.folder))
    assert resumed.metrics == whole.metrics
    assert resumed.notes == whole.notes
    assert whole.metrics["guard"]["looks"] == 4
    raised = [row["kl_coef"] for row in metrics_of(broken)]
    assert raised[0] == 0.05
    assert raised[-1] > 0.05
    assert any("the guard raised the KL coefficient: KL is" in note for note in whole.notes)


def test_a_guard_with_other_rules_is_another_training(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny, epochs=1)
    train(settings, tmp_path / "out", guard=HeldOutGuard(HELD_OUT, Z, QUIET, settings))
    changed = HeldOutGuard(HELD_OUT, Z, rules_from(["kl>9:stop"]), settings)
    with pytest.raises(UserError, match="guard was"):
        train(settings, tmp_path / "out", guard=changed)


def test_what_is_measured_at_the_start_is_the_start(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny, epochs=1, guard_every=1, kl_beta=0.05)
    # replies of a random model's few tokens may well repeat one another
    rules = rules_from(["distinct-2:off"])
    trained = train(settings, tmp_path / "out", guard=HeldOutGuard(HELD_OUT, Z, rules, settings))
    looks = list(read_records(trained.folder / "guard.jsonl", Look))
    assert looks[0].kl_nats == pytest.approx(0, abs=1e-4), "the start is the reference"
    assert abs(looks[-1].kl_nats) > 1e-3
    replies = list(read_records(trained.folder / "guard-replies.jsonl", GuardReply))
    begun = [reply for reply in replies if reply.step == 0]
    assert [reply.proxy for reply in begun] == vowels([], [reply.text for reply in begun])
    assert looks[0].proxy == pytest.approx(sum(reply.proxy or 0 for reply in begun) / 4)
    assert 1 < looks[0].perplexity < 1e4
    page = (trained.folder / "guard.html").read_text()
    assert "Not stopped" in page
    assert page.count("<svg") >= 5
    manifest = json.loads((trained.folder / "manifest.json").read_text())
    assert {"guard.html", "guard.jsonl", "guard-replies.jsonl", "guard.json"} <= manifest["files"].keys()


def test_a_score_that_is_no_number_is_no_verdict(tiny: Path, tmp_path: Path) -> None:
    """Of the judge and of the reward alike: it is counted, and what was measured of the others stands."""

    def score(prompts: Sequence[Prompt], replies: Sequence[str], start: Sequence[str]) -> list[float | None]:  # noqa: ARG001
        return [math.nan, None, *[1.0] * (len(replies) - 2)]

    def sick(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
        return [math.inf, *vowels(prompts, completions, **columns)[1:]]

    settings = settings_of(tiny, epochs=1)
    guard = HeldOutGuard(HELD_OUT, GuardJudge("sick", "", score, "sick"), QUIET, settings)
    trained = train(settings, tmp_path / "out", sick, guard=guard)
    for each in read_records(trained.folder / "guard.jsonl", Look):
        assert (each.gold, each.judged, each.unjudged) == (1.0, len(HELD_OUT) - 2, 2)
        assert each.proxy is not None
        assert math.isfinite(each.proxy)
    assert all(row["masked"] == 1 for row in metrics_of(trained.folder))


def test_no_prompts_no_guard(tiny: Path) -> None:
    with pytest.raises(TrainDataError, match="no prompts to look at"):
        HeldOutGuard([], Z, QUIET, settings_of(tiny))


# The proof, on the embedded model: a reward with a planted flaw


@pytest.mark.parametrize(("reward", "principle"), [(padding, "concise"), (agreement, "steadfast")])
def test_a_gamed_reward_is_noticed_and_what_comes_back_is_as_good_as_it_ever_was(
    reward: Any, principle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same training twice: a guard that orders nothing, and one that may stop. Gold is the one principle that
    the flaw offends, and the flaw pays twice all the rest, so that a few steps and a few prompts show it whatever the
    replies that are drawn."""
    monkeypatch.setattr("preceptor.train.embedded.flaws.LIKED", 2.0)
    tag = {"steadfast": "false-claim"}.get(principle, "")
    held_out = [row for row in prompts_from("front-desk-held-out") if tag in ("", *row.tags)][:40]
    rows = [row for row in prompts_from("front-desk") if tag in ("", *row.tags)]
    settings = PpoSettings(
        learning_rate=2e-3,
        warmup=0.0,
        batch_size=24,
        epochs=12 * 6 / len(rows),
        kl_beta=0.0,
        max_new_tokens=64,
        guard_every=3,
        rank=8,
    )

    def gold(prompts: Sequence[Prompt], replies: Sequence[str], start: Sequence[str]) -> list[float | None]:  # noqa: ARG001
        found = [
            oracle(prompt.model_dump(mode="json"), reply)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return [float(each[principle]) for each in found]

    judge = GuardJudge("oracle", f"replies that are {principle}", gold, principle)
    weights: dict[tuple[str, int], list[torch.Tensor]] = {}

    def trained(name: str, action: str) -> Trained:
        rules = rules_from([f"gold-drop:{action}", "distinct-2:warn", "kl:warn"])

        class Kept(HeldOutGuard):
            def __call__(self, moment: Moment) -> Decision:
                weights[name, moment.step] = copy_weights(moment.roles, POLICY)
                return super().__call__(moment)

        guard = Kept(held_out, judge, rules, settings)
        return train_ppo(rows, settings, tmp_path / name, reward=reward, guard=guard)

    free, held = trained("free", "warn"), trained("held", "stop")
    looks, guarded = (list(read_records(each.folder / "guard.jsonl", Look)) for each in (free, held))
    golds = [look.gold or 0.0 for look in looks]
    proxies = [look.proxy or 0.0 for look in looks]
    assert "stopped" not in free.metrics
    assert golds[-1] < max(golds) - 0.2, "gamed, and visibly"
    assert proxies[-1] > proxies[golds.index(max(golds))]
    stopped = held.metrics["stopped"]
    assert "gold fell from" in stopped["reason"]
    assert stopped["step"] == guarded[-1].step > stopped["returned_step"]
    assert [look.gold for look in guarded] == golds[: len(guarded)]
    returned = next(look for look in looks if look.step == stopped["returned_step"])
    assert max(golds) - (returned.gold or 0.0) <= 0.02
    for one, other in zip(weights["free", returned.step], adapter_of(held.folder, settings), strict=True):
        assert torch.equal(one, other)


def adapter_of(folder: Path, settings: PpoSettings) -> list[torch.Tensor]:
    """The policy's weights as they were handed back."""
    roles = open_roles(load_base(settings.model), settings.model_copy(update={"adapter": str(folder)}), None)
    return copy_weights(roles, POLICY)
