"""The losses against algebra. Against TRL's own trainers: test_against_trl."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import logsigmoid

from preceptor.constitution.errors import UserError
from preceptor.train.data.collate_pairs import collate_pairs
from preceptor.train.data.pairs import PairTokens
from preceptor.train.dpo import pair_losses, train_dpo
from preceptor.train.forward.reply_logprobs import ReplyLogprobs
from preceptor.train.losses import (
    expected,
    hinge,
    implicit_rewards,
    ipo,
    length_weighted,
    off_centre,
    robust,
    smoothed,
    soft_bradley_terry,
)
from preceptor.train.pair_losses import PAIR_LOSSES, READ_BY_SOME, loss_names, pair_loss
from preceptor.train.settings import DpoSettings
from tests.train.tiny import preference

D = torch.linspace(-8, 8, 33, dtype=torch.float64)
ONE = torch.ones_like(D)


def soft(odds: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """The loss of log-odds that reward model and DPO take: of rewards whose difference they are."""
    return soft_bradley_terry(odds, torch.zeros_like(odds), probability)


def test_probability_one_is_the_hard_loss() -> None:
    """p = 1 leaves -log sigmoid(d)."""
    assert torch.equal(soft(D, ONE), -logsigmoid(D))


def test_probability_zero_is_the_hard_loss_of_the_swapped_pair() -> None:
    """p = 0 leaves -log sigmoid(-d)."""
    assert torch.equal(soft(D, 0 * ONE), soft_bradley_terry(0 * D, D, ONE))


def test_swapping_the_replies_and_the_probability_changes_nothing() -> None:
    """loss(d, p) = loss(-d, 1 - p)."""
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(soft(D, p), soft(-D, 1 - p))


def test_is_the_cross_entropy_written_with_one_sigmoid() -> None:
    """log sigmoid(-d) = log sigmoid(d) - d, so loss = -log sigmoid(d) + (1 - p) d."""
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(soft(D, p), -logsigmoid(D) + (1 - p) * D)


def test_is_least_where_the_model_agrees_and_is_the_judges_entropy_there() -> None:
    """At sigmoid(d) = p the cross-entropy is H(p), its least value."""
    p = torch.tensor(0.8, dtype=torch.float64)
    best = torch.logit(p)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(soft(best, p), entropy)
    assert (soft(best + D[D != 0], p) > entropy).all()


def test_bradley_terry_gradient_is_sigmoid_minus_probability() -> None:
    """d loss / d chosen = sigmoid(chosen - rejected) - p = -d loss / d rejected; zero where the model agrees."""
    chosen = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([0.7, 0.6, 0.5], dtype=torch.float64)
    soft_bradley_terry(chosen, rejected, p).sum().backward()
    wanted = torch.sigmoid(chosen - rejected).detach() - p
    torch.testing.assert_close(chosen.grad, wanted)
    torch.testing.assert_close(rejected.grad, -wanted)
    assert chosen.grad is not None
    assert chosen.grad[2] == 0


def test_dpo_gradient_is_beta_times_sigmoid_minus_probability() -> None:
    """d = beta ((pi_c - ref_c) - (pi_r - ref_r)); d loss / d pi_c = beta (sigmoid(d) - p), zero at p = sigmoid(d)."""
    beta = 0.3
    total = torch.tensor([-9.0, -10.5, -12.0, -13.5], dtype=torch.float64, requires_grad=True)  # (2B,)
    before = torch.tensor([-10.0, -11.5, -11.0, -12.5], dtype=torch.float64)
    lengths = torch.tensor([2, 2, 4, 4])
    chosen, rejected = (total - before).detach().chunk(2)
    odds = beta * (chosen - rejected)
    p = torch.stack([torch.sigmoid(odds[0]), torch.tensor(0.9, dtype=torch.float64)])
    pair = PairTokens([1], [2, 3], [4, 5, 6, 7], 0.5, "pair")
    batch = collate_pairs([pair, pair], [0, 1], 0)._replace(probability=p)
    policy, reference = ReplyLogprobs(total, total, lengths), ReplyLogprobs(before, before, lengths)
    pair_losses(policy, reference, batch, pair_loss("dpo"), beta).sum().backward()
    wanted = beta * (torch.sigmoid(odds) - p)
    torch.testing.assert_close(total.grad, torch.cat([wanted, -wanted]))
    assert wanted[0] == 0
    assert wanted[1] != 0


def test_a_policy_that_is_its_reference_has_no_implicit_reward() -> None:
    assert torch.equal(implicit_rewards(D, D, 0.1), 0 * D)


def test_any_loss_is_expected_over_the_judges_labels() -> None:
    """expected(f, d, p) is the mean of f(d) and f(-d) with weights p and 1 - p; of -log sigmoid, the soft loss."""
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(expected(lambda d: -logsigmoid(d), D, p), -logsigmoid(D) + (1 - p) * D)
    torch.testing.assert_close(expected(hinge, D, p), p * hinge(D) + (1 - p) * hinge(-D))


def test_robust_is_the_clean_loss_on_average_over_flipped_labels() -> None:
    """(1 - e) robust(d) + e robust(-d) = -log sigmoid(d): what its paper is about."""
    for flipped in (0.0, 0.1, 0.45):
        rate = torch.full_like(D, 1 - flipped)
        torch.testing.assert_close(expected(lambda d: robust(d, flipped), D, rate), -logsigmoid(D))  # noqa: B023


def test_ipo_is_least_at_the_judges_gap() -> None:
    """d/dh [p (h - c)^2 + (1 - p) (h + c)^2] = 2 h - 2 (2 p - 1) c = 0, c = 1 / (2 beta)."""
    p, beta = torch.tensor(0.8, dtype=torch.float64), 0.25
    gap = torch.tensor((2 * 0.8 - 1) / (2 * beta), dtype=torch.float64, requires_grad=True)
    expected(lambda h: ipo(h, beta), gap, p).backward()
    assert gap.grad is not None
    assert abs(gap.grad.item()) < 1e-12
    assert ipo(torch.tensor(2.0), beta) == 0


def test_smoothing_moves_every_label_towards_a_coin() -> None:
    p = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(smoothed(p, 0.2), torch.tensor([0.2, 0.5, 0.8]))
    assert torch.equal(smoothed(p, 0.0), p)


def test_a_margin_must_be_won_whichever_reply_is_labelled_better() -> None:
    """At p = 1 it is -log sigmoid(d - m), at p = 0 -log sigmoid(-d - m); at m = 0 the loss without."""
    margin = torch.full_like(D, 0.7)
    torch.testing.assert_close(soft_bradley_terry(D, 0 * D, ONE, margin), -logsigmoid(D - margin))
    torch.testing.assert_close(soft_bradley_terry(D, 0 * D, 0 * ONE, margin), -logsigmoid(-D - margin))
    nothing = soft_bradley_terry(D, 0 * D, 0.3 * ONE, 0 * margin)
    torch.testing.assert_close(nothing, -0.3 * logsigmoid(D) - 0.7 * logsigmoid(-D))


def test_centring_pulls_at_the_mean_of_the_rewards_alone() -> None:
    """Its gradients for both rewards are equal, so that their difference stays free; zero where they sum to zero."""
    chosen = torch.tensor([1.0, 2.0], requires_grad=True)
    rejected = torch.tensor([-1.0, 0.5], requires_grad=True)
    off_centre(chosen, rejected).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert torch.equal(chosen.grad, rejected.grad)
    assert chosen.grad.tolist() == [0.0, 5.0]


def test_length_weighting_spans_from_the_common_part_to_all() -> None:
    total, common = torch.tensor([-9.0]), torch.tensor([-4.0])
    assert [length_weighted(total, common, alpha).item() for alpha in (0, 0.5, 1)] == [-4.0, -6.5, -9.0]


def losses_of(
    policy: ReplyLogprobs, reference: ReplyLogprobs | None, p: float, loss: str, **options: Any
) -> Any:
    """The loss () of one pair with replies of 2 and 4 tokens and a margin of 0.5."""
    pair = PairTokens([1], [2, 3], [4, 5, 6, 7], p, "pair", margin=0.5)
    options = {"beta": 0.1, **options}
    return pair_losses(policy, reference, collate_pairs([pair], [0], 0), pair_loss(loss), **options)[0]


POLICY = ReplyLogprobs(torch.tensor([-3.0, -8.0]), torch.tensor([-3.0, -5.0]), torch.tensor([2, 4]))
REFERENCE = ReplyLogprobs(torch.tensor([-4.0, -7.0]), torch.tensor([-4.0, -4.5]), torch.tensor([2, 4]))


@pytest.mark.parametrize(
    ("loss", "options", "odds"),
    [
        ("dpo", {"beta": 0.5}, 0.5 * (1 - -1)),
        ("dpo", {"beta": 0.5, "margin": 2.0}, 0.5 * (1 - -1) - 2.0 * 0.5),
        ("dpo-norm", {"beta": 5}, 5 * (1 / 2 - -1 / 4)),
        ("ld-dpo", {"beta": 0.5, "length_alpha": 0.0}, 0.5 * (1 - -0.5)),
        ("simpo", {"beta": 2, "gamma": 0.5}, 2 * (-3 / 2 - -8 / 4) - 0.5),
    ],
)
def test_the_log_odds_of_each_loss_worked_out_by_hand(
    loss: str, options: dict[str, float], odds: float
) -> None:
    """-log sigmoid of them at p = 1; SimPO looks at no reference."""
    reference = REFERENCE if pair_loss(loss).needs_reference else None
    wanted = -logsigmoid(torch.tensor(odds)).item()
    assert losses_of(POLICY, reference, 1.0, loss, **options).item() == pytest.approx(wanted, abs=1e-6)


SOME = {"robust": {"label_smoothing": 0.1}, "simpo": {"gamma": 0.5}, "ld-dpo": {"length_alpha": 0.3}}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_every_loss_carries_the_judges_probability(name: str) -> None:
    """loss(p) is linear in p between the loss of the label and that of the opposite label; a geometric one scales."""
    more = {**SOME.get(name, {}), **({"margin": 0.3} if "margin" in pair_loss(name).options else {})}
    at = [losses_of(POLICY, REFERENCE, p, name, beta=1.0, **more).item() for p in (0.5, 0.75, 1.0)]
    if pair_loss(name).geometric:
        gap = 1 - -1
        assert at == pytest.approx([math.log1p(math.exp(-(2 * p - 1) * gap)) for p in (0.5, 0.75, 1.0)])
        assert at[2] == losses_of(POLICY, REFERENCE, 1.0, "dpo", beta=1.0).item(), "of a sure label it is DPO"
        return
    assert at[1] == pytest.approx((at[0] + at[2]) / 2, abs=1e-6)
    assert abs(at[2] - at[0]) > 1e-3


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_swapping_the_replies_and_the_probability_changes_no_loss(name: str) -> None:
    """A pair and its mirror image teach the same, whatever the loss."""

    def mirrored(logps: ReplyLogprobs) -> ReplyLogprobs:
        return ReplyLogprobs(*(column.flip(0) for column in logps))

    options = {"beta": 0.7, **SOME.get(name, {})}
    one = PairTokens([1], [2, 3], [4, 5, 6, 7], 0.8, "pair")
    other = PairTokens([1], [4, 5, 6, 7], [2, 3], 0.8, "pair")
    first = pair_losses(POLICY, REFERENCE, collate_pairs([one], [0], 0), pair_loss(name), **options)
    batch = collate_pairs([other], [0], 0)
    batch = batch._replace(probability=1 - batch.probability)
    second = pair_losses(mirrored(POLICY), mirrored(REFERENCE), batch, pair_loss(name), **options)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_loss_reads_the_options_of_its_entry_and_no_others(name: str) -> None:
    """What an entry does not list can be anything; what it lists changes the loss. So settings can refuse by it."""
    entry = pair_loss(name)
    plain = losses_of(POLICY, REFERENCE, 0.9, name, **SOME.get(name, {}))
    for option in READ_BY_SOME:
        changed = losses_of(POLICY, REFERENCE, 0.9, name, **{**SOME.get(name, {}), option: 0.77})
        assert bool(changed != plain) is (option in entry.options), option
    none = torch.tensor([math.nan, math.nan])
    known = losses_of(POLICY, ReplyLogprobs(none, none, REFERENCE.lengths), 0.9, name, **SOME.get(name, {}))
    assert bool(known.isnan()) is entry.needs_reference


def test_a_loss_that_needs_a_reference_says_so() -> None:
    with pytest.raises(ValueError, match="loss dpo needs the reference's log-probabilities"):
        losses_of(POLICY, None, 1.0, "dpo")


# A loss of another package's


MINE = """\
from preceptor.train.pair_losses import PairLoss

MINE = PairLoss(
    name="squared",
    score=lambda logps, options: logps.total,
    loss=lambda gap, options: (options["beta"] * gap - 1) ** 2,
)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `mine` with a loss of its own, as an installer would leave it."""
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # whatever a test before imported under this name
    (tmp_path / "mine.py").write_text(MINE)
    about = tmp_path / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[preceptor.losses]\nsquared = mine:MINE\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_a_package_brings_a_loss_of_its_own(tiny: Path, tmp_path: Path) -> None:
    """By its name it is had, its options are held to it, and a policy is trained with it."""
    assert loss_names() == (*PAIR_LOSSES, "squared")
    assert losses_of(POLICY, REFERENCE, 1.0, "squared", beta=0.5).item() == pytest.approx((0.5 * 2 - 1) ** 2)
    with pytest.raises(ValidationError, match="margin has no effect with loss squared: it belongs to dpo, "):
        DpoSettings(loss="squared", margin=0.1)
    settings = DpoSettings(model=str(tiny), loss="squared", rank=2, batch_size=4)
    trained = train_dpo([preference(number) for number in range(4)], settings, tmp_path / "out")
    assert trained.metrics["loss"] == pytest.approx(1.0, abs=1e-3), "the policy was its reference: (0 - 1)^2"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "raise RuntimeError('no')",
            r"cannot be loaded \(RuntimeError: no\); update the package, or uninstall it",
        ),
        ("MINE = 3", "is a int; wanted a PairLoss"),
    ],
)
def test_a_loss_of_another_package_that_is_broken_is_told(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    sys.modules.pop("mine", None)
    with pytest.raises(UserError, match=f"the loss squared of the package mine {said}"):
        pair_loss("squared")


def test_a_loss_that_nobody_has_is_told() -> None:
    with pytest.raises(ValidationError, match="wanted dpo, ipo, hinge, robust, simpo, dpo-norm, ld-dpo"):
        DpoSettings(loss="squared")
