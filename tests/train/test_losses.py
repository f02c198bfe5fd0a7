"""The losses against algebra. Against TRL's own trainers: test_against_trl."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from train.losses import implicit_rewards, soft_bradley_terry, soft_cross_entropy, soft_dpo

D = torch.linspace(-8, 8, 33, dtype=torch.float64)
ONE = torch.ones_like(D)


def test_probability_one_is_the_hard_loss() -> None:
    """p = 1 leaves -log sigmoid(d)."""
    assert torch.equal(soft_cross_entropy(D, ONE), -logsigmoid(D))


def test_probability_zero_is_the_hard_loss_of_the_swapped_pair() -> None:
    """p = 0 leaves -log sigmoid(-d)."""
    assert torch.equal(soft_bradley_terry(D, 0 * D, 0 * ONE), soft_bradley_terry(0 * D, D, ONE))


def test_swapping_the_replies_and_the_probability_changes_nothing() -> None:
    """loss(d, p) = loss(-d, 1 - p)."""
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(soft_cross_entropy(D, p), soft_cross_entropy(-D, 1 - p))


def test_is_the_cross_entropy_written_with_one_sigmoid() -> None:
    """log sigmoid(-d) = log sigmoid(d) - d, so loss = -log sigmoid(d) + (1 - p) d."""
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(soft_cross_entropy(D, p), -logsigmoid(D) + (1 - p) * D)


def test_is_least_where_the_model_agrees_and_is_the_judges_entropy_there() -> None:
    """At sigmoid(d) = p the cross-entropy is H(p), its least value."""
    p = torch.tensor(0.8, dtype=torch.float64)
    best = torch.logit(p)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(soft_cross_entropy(best, p), entropy)
    assert (soft_cross_entropy(best + D[D != 0], p) > entropy).all()


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
    pi_c, pi_r, ref_c, ref_r = (
        torch.tensor([x, x - 1.5], dtype=torch.float64) for x in (-9.0, -12.0, -10.0, -11.0)
    )
    pi_c, pi_r = pi_c.requires_grad_(), pi_r.requires_grad_()
    odds = beta * ((pi_c - ref_c) - (pi_r - ref_r)).detach()
    p = torch.stack([torch.sigmoid(odds[0]), torch.tensor(0.9, dtype=torch.float64)])
    soft_dpo(pi_c, pi_r, ref_c, ref_r, p, beta).sum().backward()
    wanted = beta * (torch.sigmoid(odds) - p)
    torch.testing.assert_close(pi_c.grad, wanted)
    torch.testing.assert_close(pi_r.grad, -wanted)
    assert wanted[0] == 0
    assert wanted[1] != 0


def test_a_policy_that_is_its_reference_has_no_implicit_reward() -> None:
    assert torch.equal(implicit_rewards(D, D, 0.1), 0 * D)
