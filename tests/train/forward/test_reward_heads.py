"""Several scores on one adapter: ensembles, principles, and the length direction taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.constitution.errors import UserError
from preceptor.judge.records import Opinion, Preference
from preceptor.judge.score import ReplyToScore
from preceptor.prompts.records import Prompt
from preceptor.prompts.rows import read_records
from preceptor.train.data.length_matching import length_matched
from preceptor.train.data.pairs import PairTokens
from preceptor.train.errors import TrainDataError
from preceptor.train.evaluation.rating import doubts, rated
from preceptor.train.forward.attributes import readings, told
from preceptor.train.forward.length_debias import attribute_part, length_part
from preceptor.train.forward.reward_heads import Heads, rewards, shares, spread, targets
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.reward import UNHEARD, train_reward
from preceptor.train.settings import RewardModelSettings
from tests.train.tiny import preference

PAIRS = [preference(number) for number in range(60)]
COMMON: dict[str, Any] = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 8, "held_out": 0.25, "rank": 4}


def opinionated(number: int) -> Preference:
    """By `polite` the chosen reply is better, by `brief` the rejected one; every third says nothing."""
    said = (Opinion(principle="polite", probability=1.0), Opinion(principle="brief", probability=0.0))
    return preference(number).model_copy(update={"principles": said if number % 3 else ()})


def test_rewards_are_means_less_the_spread() -> None:
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    heads = Heads(kind="ensemble", names=("0", "1"), penalty=0.5)
    assert rewards(scores, heads, shares(heads, [(), ()])).tolist() == [2.0 - 0.5 * 1.0, 2.0]
    assert spread(scores).tolist() == [1.0, 0.0]
    least = heads.model_copy(update={"penalty": 0.0, "least": True})
    assert rewards(scores, least, shares(least, [(), ()])).tolist() == [1.0, 2.0]


def test_a_principle_counts_only_where_it_applies() -> None:
    heads = Heads(kind="principles", names=("a", "b"), weights=(1.0, 3.0), applies_to=((), ("red-team",)))
    assert shares(heads, [("red-team",), ("help",)]).tolist() == [[0.25, 0.75], [1.0, 0.0]]
    nowhere = heads.model_copy(update={"applies_to": (("x",), ("y",))})
    assert shares(nowhere, [()]).tolist() == [[0.25, 0.75]]


def test_weights_are_changed_without_training() -> None:
    heads = Heads(kind="principles", names=("a", "b"), weights=(1.0, 1.0), applies_to=((), ()))
    assert heads.reweighted({"b": 3}).weights == (1.0, 3.0)
    with pytest.raises(ValueError, match="no principle 'c' in this reward model; it has a, b"):
        heads.reweighted({"c": 1})
    with pytest.raises(ValueError, match="wanted numbers that are not negative"):
        heads.reweighted({"a": 0, "b": 0})


def test_an_ensembles_members_see_the_same_pairs_with_weights_of_their_own() -> None:
    pairs = [PairTokens([1], [2], [3], 0.8, str(number)) for number in range(200)]
    heads = Heads(kind="ensemble", names=("0", "1", "2"))
    drawn = targets(pairs, heads, seed=1)
    torch.testing.assert_close(drawn.weight.mean(dim=0), torch.full((3,), 1 / 3))
    assert drawn.weight.std() > 0.2
    assert not torch.equal(drawn.weight[:, 0], drawn.weight[:, 1])
    assert torch.equal(drawn.weight, targets(pairs, heads, seed=1).weight)
    one = targets(pairs, Heads(), seed=1)
    assert one.weight.tolist() == [[1.0]] * 200
    assert one.probability[0].item() == pytest.approx(0.8)


def test_the_length_direction_is_gone_and_nothing_else() -> None:
    """Rewards' differences keep no correlation with length; without length in them they stay as they are."""
    torch.manual_seed(0)
    gaps = torch.randn(5000, 12)
    lengths = 3 * gaps[:, 0] + 0.1 * torch.randn(5000)
    weight = torch.zeros(2, 12)
    weight[0, 0] = weight[0, 1] = weight[1, 2] = 1.0
    left = weight - length_part(weight, gaps, lengths)
    assert ((gaps @ left.T).T @ lengths / len(gaps)).abs().max() < 1e-4
    assert left[0, 0].abs() < 0.1
    torch.testing.assert_close(left[0, 1], torch.tensor(1.0), rtol=0, atol=0.05)
    torch.testing.assert_close(left[1], weight[1], rtol=0, atol=0.06)
    assert not length_part(weight, gaps, torch.zeros(5000)).any()


def test_several_attributes_are_taken_out_at_once_whatever_they_share() -> None:
    """Planted: a reward that reads quality, two attributes that go together, and one of them once more."""
    torch.manual_seed(1)
    gaps = torch.randn(4000, 10)
    first, second = gaps[:, 0], 0.7 * gaps[:, 0] + 0.5 * gaps[:, 1]
    columns = torch.stack([first, second, 3 * first, torch.zeros(4000)], dim=1)
    weight = torch.zeros(2, 10)
    weight[0, :3] = torch.tensor([2.0, -1.0, 1.0])
    weight[1, 3] = 1.0
    left = weight - attribute_part(weight, gaps, columns)
    assert ((gaps @ left.T).T @ columns / len(gaps)).abs().max() < 1e-3
    torch.testing.assert_close(left[0, 2], torch.tensor(1.0), rtol=0, atol=0.06)
    torch.testing.assert_close(left[1], weight[1], rtol=0, atol=0.08)
    one = length_part(weight, gaps, first)
    torch.testing.assert_close(attribute_part(weight, gaps, first[:, None] * 7), one, rtol=1e-4, atol=1e-6)
    only_first = weight - one
    assert ((gaps @ only_first.T).T @ second / len(gaps)).abs().max() > 0.3, "the other one is left"
    assert not attribute_part(weight, gaps, columns[:, 3:]).any()


def reply(text: str) -> list[int]:
    return list(text.encode())


class Bytes:
    """A token a byte."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(tokens).decode()


def test_attributes_are_read_from_the_replies() -> None:
    listed, plain = reply("- one\n2. two\n\nthree\nfour"), reply("# Title\n**bold** words")
    pair = PairTokens([1], listed, plain, 1.0, "x")
    names = ("length", "length-curve", "list-share", "formatting")
    found = readings(names, [pair, pair._replace(chosen=plain, rejected=listed)], Bytes())
    assert found["list-share"].tolist() == [[0.5], [-0.5]]
    assert found["formatting"].tolist() == [[-1.0], [1.0]]
    assert found["length"][0].item() == len(listed) - len(plain)
    assert found["length-curve"].shape == (2, 5)
    for columns in found.values():
        torch.testing.assert_close(columns[0], -columns[1])


def test_a_bent_reading_of_length_takes_out_what_a_straight_one_leaves() -> None:
    """A reward that follows the logarithm of length, beside quality."""
    torch.manual_seed(2)
    drawn = torch.randint(2, 900, (2, 1500))
    pairs = [PairTokens([1], [65] * a, [65] * b, 1.0, "x") for a, b in drawn.T.tolist()]
    logs = torch.log2(1 + drawn.float())
    # (2, P, H): what the model knows
    states = torch.cat([logs[..., None], torch.randn(2, 1500, 10), drawn[..., None] / 100], dim=2)
    gaps, weight = states[0] - states[1], torch.zeros(1, 12)
    weight[0, :2] = 1.0
    left: dict[str, float | None] = {}
    for name in ("length", "length-curve"):
        columns = readings((name,), pairs, Bytes())[name]
        margins = (gaps @ (weight - attribute_part(weight, gaps, columns)).T)[:, 0]
        left[name] = told(
            margins, torch.log2(1 + drawn[0].double())[:, None] - torch.log2(1 + drawn[1].double())[:, None]
        )
    assert (left["length-curve"] or 0) < 0.05 < 0.2 < (left["length"] or 0)
    rest = weight - attribute_part(weight, gaps, readings(("length-curve",), pairs, Bytes())["length-curve"])
    torch.testing.assert_close(rest[0, 1], torch.tensor(1.0), rtol=0, atol=0.05)
    assert told(torch.zeros(3), torch.ones(3, 1)) is None


def test_matched_pairs_say_nothing_by_length() -> None:
    """Nine of ten chosen replies are the longer; by weight it is half in every group of like difference."""
    pairs = []
    for number in range(400):
        long, short = [2] * (20 + number % 37), [2] * 10
        sides = (short, long) if number % 10 == 0 else (long, short)
        pairs.append(PairTokens([1], *sides, 0.9, str(number)))
    pairs.append(PairTokens([1], [2], [3], 0.9, "alike"))
    made = length_matched(pairs)
    assert sum(pair.weight for pair in made) == pytest.approx(len(pairs))
    longer = sum(pair.weight for pair in made if len(pair.chosen) > len(pair.rejected))
    shorter = sum(pair.weight for pair in made if len(pair.chosen) < len(pair.rejected))
    assert longer == pytest.approx(shorter, rel=1e-6)
    assert [pair.id for pair in made] == [pair.id for pair in pairs]
    alone = [pair for pair in pairs if len(pair.chosen) > len(pair.rejected)]
    assert length_matched(alone) == alone, "nothing to match with"


@pytest.fixture(scope="module")
def ensemble(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "ensemble"
    train_reward(PAIRS, RewardModelSettings(model=str(tiny), ensemble=4, **COMMON), out)
    return out


def test_an_ensemble_loads_back_and_is_centred(ensemble: Path, tmp_path: Path) -> None:
    """Its members have mean 0 on what they were trained on: a constant of one would pass for disagreement."""
    model = RewardModel.load(ensemble)
    turns = [[*pair.prompt, *reply] for pair in PAIRS[:10] for reply in (pair.chosen, pair.rejected)]
    made = model.rate(turns)
    assert [sorted(one.parts) for one in made] == [["0", "1", "2", "3"]] * 20
    for one in made:
        members = torch.tensor(list(one.parts.values()))
        assert one.spread == pytest.approx(members.std(correction=0).item(), abs=1e-6)
        assert one.reward == pytest.approx(members.mean().item() - 0.5 * one.spread, abs=1e-5)
    every = [
        list(one.parts.values())
        for one in model.rate(
            [[*pair.prompt, *reply] for pair in PAIRS for reply in (pair.chosen, pair.rejected)]
        )
    ]
    assert torch.tensor(every).mean(dim=0).abs().max() < 0.3  # of all, a quarter of which it has not seen
    model.save(tmp_path / "copy")
    assert RewardModel.load(tmp_path / "copy").rate(turns) == made
    card = json.loads((ensemble / "report_card.json").read_text())
    assert card["spread"]["mean"] > 0


def test_the_pairs_that_members_differ_on_come_first(ensemble: Path) -> None:
    model = RewardModel.load(ensemble)
    replies = [
        ReplyToScore(f"{number}-{side}", Prompt(id=str(number), messages=pair.prompt), reply[0].content)
        for number, pair in enumerate(PAIRS[:8])
        for side, reply in (("c", pair.chosen), ("r", pair.rejected), ("same", pair.rejected))
    ]
    encoded: list[str] = []
    encode = model.encode
    model.encode = lambda turns, name: (encoded.append(turns[-1].content), encode(turns, name))[1]  # type: ignore[method-assign,func-returns-value]
    rows = list(rated(model, replies, "rm", batch_size=4))
    assert [row.id for row in rows] == [reply.id for reply in replies]
    assert encoded == [reply.text for reply in replies]  # each once
    found = doubts(rows, most=5)
    assert len(found) == 5
    assert [doubt.deviation for doubt in found] == sorted((d.deviation for d in found), reverse=True)
    assert all(doubt.pair.response_a != doubt.pair.response_b for doubt in found)
    assert min(doubt.deviation for doubt in found) >= max(
        doubt.deviation for doubt in doubts(rows, most=8)[5:]
    )


def test_one_head_a_principle_learns_what_its_judgements_say(tiny: Path, tmp_path: Path) -> None:
    """The two principles disagree on every pair; their heads do too, and the weights say which one wins."""
    rows = [opinionated(number) for number in range(60)]
    settings = RewardModelSettings(
        model=str(tiny), per_principle=True, weights={"polite": 3.0, "brief": 1.0, "unused": 1.0}, **COMMON
    )
    trained = train_reward(rows, settings, tmp_path / "rm")
    assert trained.rows["set_aside"] == {UNHEARD: 20}
    model = RewardModel.load(tmp_path / "rm")
    assert model.heads.names == ("polite", "brief")
    pair = next(row for row in rows if row.principles)
    chosen, rejected = model.rate([[*pair.prompt, *pair.chosen], [*pair.prompt, *pair.rejected]])
    assert chosen.parts["polite"] > rejected.parts["polite"]
    assert chosen.parts["brief"] < rejected.parts["brief"]
    assert chosen.reward == pytest.approx(
        0.75 * chosen.parts["polite"] + 0.25 * chosen.parts["brief"], abs=1e-5
    )
    model.heads = model.heads.reweighted({"polite": 0, "brief": 1})
    other = model.rate([[*pair.prompt, *pair.chosen], [*pair.prompt, *pair.rejected]])
    assert other[0].reward < other[1].reward
    assert other[0].parts == chosen.parts
    card = json.loads((tmp_path / "rm/report_card.json").read_text())
    assert set(card["by_principle"]) == {"polite", "brief"}


def test_rows_of_a_principle_that_the_constitution_does_not_have_are_refused(
    tiny: Path, tmp_path: Path
) -> None:
    settings = RewardModelSettings(model=str(tiny), per_principle=True, weights={"polite": 1.0}, **COMMON)
    with pytest.raises(TrainDataError, match="opinions on the principle 'brief', which the constitution"):
        train_reward([opinionated(number) for number in range(30)], settings, tmp_path / "rm")


def test_debiasing_is_shown_before_and_after(tiny: Path, tmp_path: Path) -> None:
    settings = RewardModelSettings(model=str(tiny), length_debias=True, debias=("length-curve",), **COMMON)
    train_reward(PAIRS, settings, tmp_path / "rm")
    model = RewardModel.load(tmp_path / "rm")
    assert model.length.abs().max() > 0
    card = json.loads((tmp_path / "rm/report_card.json").read_text())
    before, after = card["before_debias"]["length"], card["length"]
    assert abs(after["correlation"]) < abs(before["correlation"])
    page = (tmp_path / "rm/report_card.html").read_text()
    assert "The length direction was taken out" in page
    assert "Taken out after training: length-curve" in page
    assert set(card["attributes"]) == {"length", "length-curve"}
    assert card["attributes"]["length-curve"]["after"] < card["attributes"]["length-curve"]["before"]
    assert page.count("<svg") >= 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ensemble": 3, "per_principle": True}, "cannot be joined"),
        ({"spread_penalty": 1.0}, "no effect without an ensemble"),
        ({"ensemble_reward": "least"}, "no effect without an ensemble"),
        ({"ensemble": 2, "ensemble_reward": "least", "spread_penalty": 1.0}, "least of an ensemble"),
        ({"debias": "length,colour"}, "colour|list-share"),
        ({"weights": {"a": 1.0}}, "no effect without per_principle"),
        ({"per_principle": True, "margin": 1.0}, "margin is the whole pair's"),
        ({"per_principle": True, "weights": {"a": 0.0}}, "wanted numbers above 0"),
    ],
)
def test_settings_without_effect_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardModelSettings(**given)


def test_score_writes_a_row_for_every_reply_and_pairs_to_label_next(
    ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person calls it; a reply that is too long has its row too, and `label` takes the pairs."""
    from typer.testing import CliRunner

    from preceptor.cli.app import app
    from preceptor.judge.pairs import read_pairs
    from preceptor.train.evaluation.rating import Rated

    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "prompt": f"Ask {n}",
            "response_a": "yes please " * (1 + n),
            "response_b": "no" * (900 if n == 3 else 1),
        }
        for n in range(5)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["score", "pairs.jsonl", "--reward-model", str(ensemble), "--out", "scores.jsonl"]
    outcome = CliRunner().invoke(app, [*words, "--disagreement", "next.jsonl", "--most", "3", "--json"])
    assert outcome.exit_code == 0, outcome.output
    made = list(read_records("scores.jsonl", Rated))
    assert [row.status for row in made] == ["ok"] * 7 + ["too_long"] + ["ok"] * 2
    assert made[7].reward is None
    assert len(list(read_pairs("next.jsonl"))) == 3
    for batch in ("1", "7"):
        again = CliRunner().invoke(app, [*words[:-1], f"b{batch}.jsonl", "--batch-size", batch])
        assert again.exit_code == 0
        other = list(read_records(f"b{batch}.jsonl", Rated))
        for one, two in zip(made, other, strict=True):
            assert one.reward == (None if two.reward is None else pytest.approx(two.reward, abs=1e-5))
    with pytest.raises(UserError, match="no principle 'x' in this reward model"):
        CliRunner().invoke(app, [*words, "--weight", "x=1"], catch_exceptions=False)
