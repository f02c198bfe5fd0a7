"""The guard that looks at held-out prompts: it measures the policy against its start and applies the rules.

    guard.json             who judges, by which rules
    guard.jsonl            one `Look` a row: what was measured, what the rules made of it
    guard-replies.jsonl    one `GuardReply` a row: what the policy said, what proxy and judge thought of it

They lie in the training's folder and are all that the guard remembers, so that a training resumed from a
checkpoint is guarded as the unbroken one is. Every look draws its replies with the same random numbers, at
temperature 1, so that KL is the policy's own and two looks differ by the policy alone.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from preceptor.constitution.checks import looks_refused
from preceptor.constitution.foreign import json_of, text_in
from preceptor.judge.statistics import wilson
from preceptor.prompts.manifest import write_json
from preceptor.prompts.records import Prompt, canonical_json
from preceptor.prompts.rows import read_records
from preceptor.train.data.collate_replies import groups_of
from preceptor.train.data.pairs import encode_messages, fit_prompt, turn_ends
from preceptor.train.errors import RunFolderError, TrainDataError
from preceptor.train.evaluation.compare import distinct_n, kl_nats
from preceptor.train.evaluation.diversity import mean_self_bleu
from preceptor.train.forward.reply_logprobs import row_logprobs
from preceptor.train.forward.reward_heads import spread
from preceptor.train.guard import page
from preceptor.train.guard.rules import ABOUT, LOOKS, REPLIES, GuardReply, GuardRules, Look, judged
from preceptor.train.loop.output_folder import keep_metrics, row_hash
from preceptor.train.ppo.guard_protocol import Decision, Ended, Guarded, Moment
from preceptor.train.ppo.roles import REWARD, Roles
from preceptor.train.ppo.rollouts import draw
from preceptor.train.rollout.prompts import text_of
from preceptor.train.rollout.rewards import Replied, finite_or_none
from preceptor.train.rollout.sampling import Rollout, Sampling
from preceptor.train.settings import PpoSettings

PLAIN_TEXT = Path(__file__).with_name("guard_text.jsonl")
"""Everyday prose that no tuning is about: what the perplexity is measured on where no other text is given."""


class GuardJudge(NamedTuple):
    """Who says what the policy is truly worth. It must not be who made the labels."""

    name: str
    meaning: str
    """What its mean score is, in words: "replies that satisfy every principle"."""
    score: Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], list[float | None]]
    """(prompts, the policy's replies, the start's replies) -> 1, 0 or between; None without a verdict."""
    identity: str
    """Changes where its verdicts could."""
    spent_usd: Callable[[], float] = float
    """What its verdicts have cost so far in this process; nothing where nobody is paid."""


class HeldOutGuard:
    """A `train.ppo.guard_protocol.Guard` over a fixed set of prompts."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        judge: GuardJudge,
        rules: GuardRules,
        settings: PpoSettings,
        text: str | Path = PLAIN_TEXT,
    ) -> None:
        """text: rows with a `text` each, for the perplexity. Raises TrainDataError where there is nothing to
        look at."""
        if not prompts:
            raise TrainDataError("the guard has no prompts to look at: name a file with some")
        self.prompts = prompts
        self.judge = judge
        self.rules = rules
        self.settings = settings
        self.texts = plain_text(text)
        made_of = [row_hash(prompts), judge.identity, rules.model_dump(mode="json"), self.texts]
        self.identity = hashlib.sha256(canonical_json(made_of).encode()).hexdigest()

    def __call__(self, moment: Moment) -> Decision:
        """Look, write down what was seen, and say what is to be done."""
        for name in (LOOKS, REPLIES):
            keep_metrics(moment.folder / name, moment.step - 1)
        if not moment.step:
            about = {
                "judge": self.judge.name,
                "meaning": self.judge.meaning,
                "prompts": len(self.prompts),
                "rules": self.rules.model_dump(mode="json"),
            }
            write_json(moment.folder / ABOUT, about)
        before = list(read_records(moment.folder / LOOKS, Look)) if moment.step else []
        look, replies = self.look(moment)
        verdict = judged([*before, look], self.rules)
        seen = look.model_copy(update={"action": verdict.action, "said": verdict.said})
        _append(moment.folder / REPLIES, [reply.line() for reply in replies])
        _append(moment.folder / LOOKS, [seen.line()])
        stop = verdict.action == "stop"
        return Decision(verdict.kl_coef, stop, verdict.return_step, "; ".join(verdict.said))

    def conclude(self, folder: Path, ended: Ended) -> Guarded | None:
        """Write the page of all looks."""
        return page.conclude(folder, ended)

    def look(self, moment: Moment) -> tuple[Look, list[GuardReply]]:
        """What is measured, without a verdict, and the replies that it was measured on."""
        roles = moment.roles
        rollouts = self._roll_out(roles)
        replied = [
            Replied(
                prompt,
                (rollout.prompt, rollout.reply),
                text_of(roles.base.tokenizer, rollout.reply, rollout.ended),
            )
            for prompt, rollout in zip(self.prompts, rollouts, strict=True)
        ]
        texts = [reply.text for reply in replied]
        begun = self._start_texts(moment.folder) if moment.step else texts
        gold = [finite_or_none(value) for value in self.judge.score(self.prompts, texts, begun)]
        proxy = moment.score(replied)
        known = [value for value in gold if value is not None]
        share = wilson(sum(known), len(known))
        rewards = [value for value in proxy if value is not None]
        look = Look(
            step=moment.step,
            gold=share.share if known else None,
            gold_ci95=(share.low, share.high),
            judged=len(known),
            unjudged=len(gold) - len(known),
            proxy=statistics.fmean(rewards) if rewards else None,
            kl_nats=reference_kl(rollouts, roles),
            kl_coef=moment.kl_coef,
            reply_tokens=statistics.fmean(len(rollout.reply) for rollout in rollouts),
            length_correlation=correlation([len(rollout.reply) for rollout in rollouts], proxy),
            distinct_1=distinct_n(texts, 1),
            distinct_2=distinct_n(texts, 2),
            self_bleu=mean_self_bleu(texts),
            refused=statistics.fmean(looks_refused(text) for text in texts),
            perplexity=perplexity(self.texts, roles, self.settings.max_length),
            spread=ensemble_spread(rollouts, roles),
        )
        rows = [
            GuardReply(
                step=moment.step,
                prompt=reply.prompt,
                text=reply.text,
                tokens=len(reply.tokens[1]),
                proxy=reward,
                gold=value,
            )
            for reply, reward, value in zip(replied, proxy, gold, strict=True)
        ]
        return look, rows

    def _roll_out(self, roles: Roles) -> list[Rollout]:
        tokenizer, settings = roles.base.tokenizer, self.settings
        asked = []
        for prompt in self.prompts:
            tokens = encode_messages(tokenizer, prompt.messages, generation_prompt=True)
            fitted = fit_prompt(tokens, settings.max_new_tokens, settings.max_length, tokenizer.bos_token_id)
            assert fitted is not None, "the settings leave room for two tokens"
            asked.append(fitted)
        how = Sampling(
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=settings.max_new_tokens,
            stops=turn_ends(tokenizer, roles.base.generation_eos),
            batch_tokens=roles.room.rollout_tokens,
        )
        return draw(roles, asked, 1, how, settings.seed)

    def _start_texts(self, folder: Path) -> list[str]:
        found = [reply.text for reply in read_records(folder / REPLIES, GuardReply) if reply.step == 0]
        if len(found) != len(self.prompts):
            raise RunFolderError(
                f"{folder / REPLIES} holds {len(found)} replies of the start for {len(self.prompts)} prompts: "
                "remove the training's folder and begin again"
            )
        return found


def plain_text(source: str | Path) -> list[str]:
    """The texts of a file of rows. Raises TrainDataError."""
    try:
        lines = text_in(source, most=None).splitlines()
        texts = [str(json_of(line)["text"]) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainDataError(
            f"cannot read plain text from {source}: {type(error).__name__}: {error}; wanted JSON Lines with a "
            "`text` each"
        ) from error
    if not texts:
        raise TrainDataError(f"{source} holds no text: wanted JSON Lines with a `text` each")
    return texts


@torch.no_grad()
def reference_kl(rollouts: Sequence[Rollout], roles: Roles) -> float:
    """Nats a reply from the reference, by k1 over replies that the policy drew at temperature 1."""
    replies = [(rollout.prompt, rollout.reply) for rollout in rollouts]
    groups = groups_of(replies)

    def read() -> list[float]:
        found = [0.0] * len(replies)
        for batch in roles.batches(replies, groups):
            numbers = batch.number.tolist()
            logprobs = torch.split(roles.logprobs(batch).logprobs, [len(replies[at][1]) for at in numbers])
            for at, row in zip(numbers, logprobs, strict=True):
                found[at] = float(row.sum())
        return found

    with roles.board.as_role(roles.reference):
        reference = roles.fitting(read, replies, groups)
    return kl_nats([float(rollout.logprobs.sum()) for rollout in rollouts], reference).nats


@torch.no_grad()
def ensemble_spread(rollouts: Sequence[Rollout], roles: Roles) -> float | None:
    """Mean standard deviation of the members' scores, where the reward is an ensemble on the policy's base, over the
    replies that have finite ones; None where there are none."""
    if roles.reward is None or roles.reward.heads.kind != "ensemble":
        return None
    replies = [(rollout.prompt, rollout.reply) for rollout in rollouts]
    groups = groups_of(replies)

    def read() -> list[float]:
        spreads = (spread(roles.scores(batch)) for batch in roles.batches(replies, groups))
        return [value for some in spreads for value in some.tolist()]

    with roles.board.as_role(REWARD):
        found = [value for value in roles.fitting(read, replies, groups) if finite_or_none(value) is not None]
    return statistics.fmean(found) if found else None


def perplexity(texts: Sequence[str], roles: Roles, max_length: int) -> float:
    """A token of the texts after each one's first, of at most `max_length`, under whoever acts."""
    rows = []
    for text in texts:
        ids = roles.base.tokenizer.encode(text, add_special_tokens=False)[:max_length]
        rows.append((ids[:1], ids[1:]))
    with roles.half():
        logprobs = row_logprobs(roles.adapted, rows, roles.base.pad_id, 8)  # (T,)
    return math.exp(-float(logprobs.sum()) / sum(len(rest) for _, rest in rows))


def correlation(lengths: Sequence[float], rewards: Sequence[float | None]) -> float | None:
    """Pearson's, over the replies that have a reward; None where either does not vary."""
    known = [(length, reward) for length, reward in zip(lengths, rewards, strict=True) if reward is not None]
    if len({length for length, _ in known}) < 2 or len({reward for _, reward in known}) < 2:
        return None
    return statistics.correlation(*zip(*known, strict=True))


def _append(path: Path, lines: Sequence[str]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {path}: {error}. Mend it and run the command again: it goes on from the last checkpoint"
        ) from error
