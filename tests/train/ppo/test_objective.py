"""Every formula of PPO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from preceptor.train.ppo.objective import (
    Running,
    adapted_coefficient,
    explained_variance,
    gae,
    kl_per_token,
    length_penalties,
    linear_rate,
    masked_mean,
    policy_losses,
    token_rewards,
    value_losses,
    whitened,
)

RAGGED = torch.tensor([[True, True, True], [True, True, False]])


def near(found: torch.Tensor, wanted: list[object]) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_gae_by_hand() -> None:
    """gamma 0.5, lam 0.5, so that each step back counts a quarter.

    Row 1: deltas 0 + 0.5*2 - 1 = 0, 0 + 0.5*4 - 2 = 0, 8 - 4 = 4; A = 4, 1, 1/4 from the end.
    Row 2 ends after two tokens: deltas 1 + 0.5*2 - 3 = -1, 6 - 2 = 4; A = 4, -1 + 1 = 0.
    """
    rewards = torch.tensor([[0.0, 0.0, 8.0], [1.0, 6.0, 99.0]])
    values = torch.tensor([[1.0, 2.0, 4.0], [3.0, 2.0, 77.0]])
    found = gae(rewards, values, RAGGED, gamma=0.5, lam=0.5)
    near(found.advantages, [[0.25, 1.0, 4.0], [0.0, 4.0, 0.0]])
    near(found.returns, [[1.25, 3.0, 8.0], [3.0, 6.0, 0.0]])


def test_gae_with_lam_1_is_the_return_and_with_lam_0_one_step() -> None:
    torch.manual_seed(0)
    rewards, values, mask = torch.randn(2, 5), torch.randn(2, 5), torch.ones(2, 5, dtype=torch.bool)
    whole = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(whole.returns, rewards.flip(1).cumsum(1).flip(1))
    after = torch.cat([values[:, 1:], torch.zeros(2, 1)], 1)
    torch.testing.assert_close(
        gae(rewards, values, mask, 0.9, 0.0).advantages, rewards + 0.9 * after - values
    )


def test_what_stands_in_the_padding_changes_nothing() -> None:
    rewards, values = torch.randn(2, 3), torch.randn(2, 3)
    other = rewards.masked_fill(~RAGGED, 1e3), values.masked_fill(~RAGGED, -1e3)
    for one, two in zip(gae(rewards, values, RAGGED, 0.9, 0.9), gae(*other, RAGGED, 0.9, 0.9), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(whitened(rewards, RAGGED), whitened(other[0], RAGGED))


def test_the_reward_stands_at_the_last_token_and_the_kl_at_each() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 9.0]])
    found = token_rewards(torch.tensor([2.0, -1.0]), kl, 0.5, RAGGED)
    near(found, [[-0.05, -0.1, 1.85], [-0.2, -1.25, 0.0]])


def test_kl_estimators_by_hand_and_on_average() -> None:
    near(kl_per_token(torch.tensor([-1.0]), torch.tensor([-3.0]), "k1"), [2.0])
    near(kl_per_token(torch.tensor([-1.0]), torch.tensor([-3.0]), "k3"), [math.exp(-2) - 1 + 2])
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.2, 0.6]).log()
    truth = (policy.exp() * (policy - reference)).sum()
    for estimator in ("k1", "k3"):
        mean = (policy.exp() * kl_per_token(policy, reference, estimator)).sum()  # type: ignore[arg-type]
        torch.testing.assert_close(mean, truth)
    assert (kl_per_token(policy, reference, "k3") >= 0).all()


@pytest.mark.parametrize(
    ("kl", "wanted"), [(6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (5.4, 0.99), (0.0, 0.98), (-3.0, 0.98)]
)
def test_the_controller_moves_by_a_tenth_of_the_error_and_by_two_hundredths_at_most(
    kl: float, wanted: float
) -> None:
    assert adapted_coefficient(1.0, kl, 6.0) == pytest.approx(wanted)
    assert adapted_coefficient(0.3, kl, 6.0) == pytest.approx(0.3 * wanted)


def test_the_clipped_policy_loss_by_hand() -> None:
    """Ratios 2, 0.5, 2, 0.5 with advantages 1, 1, -1, -1 and a clip of 0.2."""
    ratio = torch.tensor([[2.0, 0.5, 2.0, 0.5]])
    found = policy_losses(ratio.log(), torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]]), 0.2)
    near(found.losses, [[-1.2, -0.5, 2.0, 0.8]])
    assert found.clipped.tolist() == [[True, False, False, True]]


def test_the_first_gradient_is_the_plain_policy_gradient() -> None:
    logps = torch.randn(1, 4, requires_grad=True)
    advantages = torch.randn(1, 4)
    policy_losses(logps, logps.detach(), advantages, 0.2).losses.sum().backward()
    torch.testing.assert_close(logps.grad, -advantages)


def test_the_clipped_value_loss_by_hand() -> None:
    """Return 1, old value 0, clip 0.2. A value of 0.5 is held at 0.2: 0.32 rather than 0.125; one of 3 counts
    2 itself, not 0.32."""
    values = torch.tensor([[0.5, 3.0, 0.1]])
    found = value_losses(values, torch.zeros(1, 3), torch.ones(1, 3), 0.2)
    near(found.losses, [[0.32, 2.0, 0.405]])
    assert found.clipped.tolist() == [[True, False, False]]
    near(value_losses(values, torch.zeros(1, 3), torch.ones(1, 3), None).losses, [[0.125, 2.0, 0.405]])


def test_length_penalties_by_hand() -> None:
    lengths = torch.tensor([1.0, 10.0, 15.0, 20.0])
    near(length_penalties(lengths, 0.0, 20, 10), [0.0, 0.0, 0.5, 1.0])
    near(length_penalties(lengths, 0.1, 20, 0), [0.1, 1.0, 1.5, 2.0])


def test_running_statistics_are_those_of_all_numbers_at_once() -> None:
    torch.manual_seed(0)
    numbers = 5 + 3 * torch.randn(50)
    running = Running()
    for part in numbers.split(7):
        running = running.joined(part)
    assert running.mean == pytest.approx(float(numbers.mean()), rel=1e-5)
    assert running.std == pytest.approx(float(numbers.std()), rel=1e-5)
    assert running.joined(torch.zeros(0)) == running
    assert Running().joined(torch.ones(1)).std == 1.0
    assert Running().joined(torch.ones(9)).std == 1.0  # all equal: nothing to divide by


def test_whitening_by_hand() -> None:
    """Numbers 1, 2, 3 and 2, 7 without the padding: mean 3, variance (4 + 1 + 0 + 1 + 16) / 5."""
    numbers = torch.tensor([[1.0, 2.0, 3.0], [2.0, 7.0, 100.0]])
    std = math.sqrt(22 / 5)
    near(whitened(numbers, RAGGED), [[-2 / std, -1 / std, 0.0], [-1 / std, 4 / std, 0.0]])
    near(whitened(numbers, RAGGED, keep_mean=True)[0], [3 - 2 / std, 3 - 1 / std, 3.0])
    assert masked_mean(numbers, RAGGED) == 3


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0], [2.0, 7.0, 0.0]])
    assert explained_variance(returns, returns, RAGGED) == 1
    assert explained_variance(torch.ones(2, 3), returns, RAGGED) == 0
    assert explained_variance(torch.ones(2, 3), torch.ones(2, 3), RAGGED) == 0


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [linear_rate(1.0, step, 10, 0.2) for step in range(1, 11)]
    assert rates == pytest.approx([1 / 2, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9])
    assert linear_rate(2.0, 1, 5, 0.0) == pytest.approx(2.0)
