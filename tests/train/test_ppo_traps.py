"""What goes wrong in silence where four roles share one base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from preceptor.train.data.collate_replies import groups_of
from preceptor.train.data.readers import Demonstration
from preceptor.train.forward.reply_logprobs import row_logprobs
from preceptor.train.forward.reward_model import RewardModel
from preceptor.train.loop.output_folder import Trained
from preceptor.train.models.adapters import POLICY, REFERENCE
from preceptor.train.models.base import load_base
from preceptor.train.models.switchboard import BASE
from preceptor.train.ppo.checkpoint import open_optimisers
from preceptor.train.ppo.roles import REWARD, VALUE, Roles, open_roles
from preceptor.train.ppo.update import Experience, policy_numbers, policy_step, value_numbers, value_step
from preceptor.train.reward import train_reward
from preceptor.train.settings import PpoSettings, RewardModelSettings, SftSettings
from preceptor.train.sft import train_sft
from tests.train.tiny import preference

REPLIES = [
    ([7, 8, 9, 10], [20, 21, 1]),
    ([7, 8, 9, 10], [30, 31, 32, 33, 34]),
    ([5, 6], [40, 41]),
    ([5, 6], [40, 42, 43, 1]),
    ([50, 51, 52], [60, 61, 62]),
]


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An SFT adapter and a reward model of the tiny base."""
    out = tmp_path_factory.mktemp("trained")
    pairs = [preference(number) for number in range(12)]
    rows = [Demonstration(id=row.id, prompt=row.prompt, completion=row.chosen[0].content) for row in pairs]
    common = {"model": str(tiny), "learning_rate": 3e-2, "rank": 4, "alpha": 8, "batch_size": 4}
    made: dict[str, Trained] = {  # three steps: none of the two is what it began as
        "sft": train_sft(rows, SftSettings.model_validate(common), out / "sft"),
        "reward": train_reward(pairs, RewardModelSettings.model_validate(common), out / "reward"),
    }
    return {name: each.folder for name, each in made.items()}


def settings_of(tiny: Path, **changes: object) -> PpoSettings:
    values = {"model": str(tiny), "rank": 4, "alpha": 8, "max_length": 64, "max_new_tokens": 16}
    return PpoSettings.model_validate({**values, **changes})


def opened(tiny: Path, trained: dict[str, Path], sft: bool = True, **changes: object) -> Roles:
    adapter = {"adapter": str(trained["sft"])} if sft else {}
    settings = settings_of(tiny, **adapter, **changes)
    return open_roles(load_base(str(tiny)), settings, trained["reward"])


def experience() -> Experience:
    """Made-up numbers about REPLIES."""
    torch.manual_seed(0)
    lengths = torch.tensor([len(reply) for _, reply in REPLIES])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    old, reference, values, advantages, returns = (torch.randn(mask.shape) * mask for _ in range(5))
    return Experience(REPLIES, mask, old - 5, reference - 5, values, advantages, returns)


def weights(roles: Roles, role: str) -> list[Tensor]:
    return [weight.detach().clone() for weight in roles.trained(role)]


def gradients(roles: Roles, role: str) -> list[Tensor]:
    found = [weight.grad for weight in roles.trained(role)]
    assert all(each is not None for each in found)
    return [each.clone() for each in found if each is not None]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def step_both(roles: Roles, **changes: object) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of both roles after one update each, as training does it."""
    settings = PpoSettings.model_validate({"max_kl": None, "max_grad_norm": 1e9, **changes})
    optimisers = open_optimisers(roles)
    groups = groups_of(REPLIES)
    roles.train()
    policy_step(experience(), groups, roles, optimisers.policy, **policy_numbers(settings))
    value_step(experience(), groups, roles, optimisers.value, **value_numbers(settings))
    return gradients(roles, POLICY), gradients(roles, VALUE)


def test_gradients_are_the_same_with_and_without_gradient_checkpointing(
    tiny: Path, trained: dict[str, Path]
) -> None:
    plain = step_both(opened(tiny, trained))
    again = step_both(opened(tiny, trained, gradient_checkpointing=True))
    for one, other in zip(plain, again, strict=True):
        assert max(float(each.abs().max()) for each in one) > 0
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_trap_is_real(tiny: Path, trained: dict[str, Path]) -> None:
    """With gradient checkpointing, a backward pass after the switch gives other gradients, in silence."""

    def found(switch_first: bool) -> list[Tensor]:
        roles = opened(tiny, trained, gradient_checkpointing=True)
        roles.train()
        roles.board.switch(POLICY)
        (batch,) = roles.batches(REPLIES, groups_of(REPLIES))
        loss = roles.logprobs(batch).logprobs.sum()
        if switch_first:
            roles.board.switch(VALUE)
            for weight in roles.trained(POLICY):
                weight.requires_grad_(True)  # or there would be an error, and no trap
        loss.backward()  # type: ignore[no-untyped-call]
        return gradients(roles, POLICY)

    right, wrong = found(switch_first=False), found(switch_first=True)
    gaps = [float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in zip(right, wrong, strict=True)]
    assert max(gaps) > 0.1


def test_only_what_acts_is_trained(tiny: Path, trained: dict[str, Path]) -> None:
    roles = opened(tiny, trained)
    for role in (POLICY, REFERENCE, VALUE, REWARD, BASE, VALUE, POLICY):
        roles.board.switch(role)
        names = {name for name, weight in roles.adapted.named_parameters() if weight.requires_grad}
        wanted = 28 if role in (POLICY, VALUE) else 0
        assert len(names) == wanted
        assert all(f".{role}." in name for name in names)


def test_the_value_loss_leaves_the_policy_alone_and_the_reverse(tiny: Path, trained: dict[str, Path]) -> None:
    roles = opened(tiny, trained)
    settings = PpoSettings(max_kl=None, learning_rate=1e-2, value_learning_rate=1e-2)
    optimisers = open_optimisers(roles)
    for optimiser in optimisers:
        optimiser.param_groups[0]["lr"] = 1e-2
    groups = groups_of(REPLIES)
    everything = {
        name: weight.detach().clone()
        for name, weight in roles.adapted.named_parameters()
        if f".{POLICY}." not in name and f".{VALUE}." not in name
    }
    before = {role: weights(roles, role) for role in (POLICY, VALUE)}
    policy_step(experience(), groups, roles, optimisers.policy, **policy_numbers(settings))
    assert not equal(before[POLICY], weights(roles, POLICY))
    assert equal(before[VALUE], weights(roles, VALUE))
    after = weights(roles, POLICY)
    value_step(experience(), groups, roles, optimisers.value, **value_numbers(settings))
    assert equal(after, weights(roles, POLICY))
    assert not equal(before[VALUE], weights(roles, VALUE))
    now = dict(roles.adapted.named_parameters())
    assert all(
        torch.equal(now[name], weight) for name, weight in everything.items()
    )  # base, reference, reward


@pytest.mark.parametrize("sft", [False, True])
def test_the_references_log_probabilities_are_those_of_what_training_began_with(
    tiny: Path, trained: dict[str, Path], sft: bool
) -> None:
    """To the bit: of the base, or of the SFT adapter; and a policy that has not moved says the same."""
    from preceptor.train.models.adapters import adapt_from

    roles = opened(tiny, trained, sft=sft)
    alone = load_base(str(tiny))
    model = adapt_from(alone, trained["sft"], False).eval() if sft else alone.model
    wanted = row_logprobs(model, REPLIES, alone.pad_id, batch_size=len(REPLIES))
    (batch,) = roles.batches(REPLIES, groups_of(REPLIES))

    def said(role: str) -> Tensor:
        with torch.no_grad(), roles.board.as_role(role):
            tokens = roles.logprobs(batch).logprobs
        lengths = [len(REPLIES[at][1]) for at in batch.number.tolist()]
        totals = torch.zeros(len(REPLIES))
        totals[batch.number] = torch.stack([part.sum() for part in tokens.split(lengths)])
        return totals

    first = said(roles.reference)
    torch.testing.assert_close(first, wanted, rtol=1e-6, atol=1e-5)
    assert torch.equal(said(POLICY), first)  # no change yet, whether fresh or a copy
    for weight in roles.trained(POLICY):
        weight.data += 0.1
    assert not torch.equal(said(POLICY), first)
    assert torch.equal(said(roles.reference), first)


def test_the_value_function_starts_as_the_reward_model(tiny: Path, trained: dict[str, Path]) -> None:
    """At a reply's last token, before anything is learned; and the reward adapter scores as its model does."""
    roles = opened(tiny, trained)
    model = RewardModel.load(trained["reward"])
    wanted = model.score_rows(REPLIES, 8)[:, 0]
    (batch,) = roles.batches(REPLIES, groups_of(REPLIES))
    with torch.no_grad(), roles.board.as_role(REWARD):
        scores = torch.zeros(len(REPLIES))
        scores[batch.number] = roles.scores(batch)[:, 0]
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad(), roles.board.as_role(VALUE):
        last = batch._replace(
            predictor=batch.last, target=batch.target[: len(batch.last)]
        )  # targets are not read
        at_last = roles.values(last)
    assert roles.reward is not None
    torch.testing.assert_close(at_last, scores[batch.number] + roles.reward.offset)


def test_sharing_the_prompt_changes_nothing(tiny: Path, trained: dict[str, Path]) -> None:
    roles = opened(tiny, trained)
    assert roles.choose_layout([prompt for prompt, _ in REPLIES], samples=2) == ()
    assert roles.shared
    for role, read in (
        (POLICY, lambda b: roles.logprobs(b).logprobs),
        (VALUE, roles.values),
        (REWARD, roles.scores),
    ):
        found = []
        for shared in (True, False):
            roles.shared = shared
            (batch,) = roles.batches(REPLIES, groups_of(REPLIES))
            assert batch.shared == shared
            lengths = [1 if role == REWARD else len(REPLIES[at][1]) for at in batch.number.tolist()]
            with torch.no_grad(), roles.board.as_role(role):
                parts = read(batch).split(lengths)
            found.append([parts[batch.number.tolist().index(at)] for at in range(len(REPLIES))])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_entropies_in_slices_are_the_definition(tiny: Path, trained: dict[str, Path]) -> None:
    roles = opened(tiny, trained)
    (batch,) = roles.batches(REPLIES, groups_of(REPLIES))
    roles.board.switch(POLICY)
    found = roles.logprobs(batch, with_entropies=True)
    roles.head = None  # by the model's own forward and all logits
    wanted = roles.logprobs(batch, with_entropies=True)
    torch.testing.assert_close(found.logprobs, wanted.logprobs, rtol=1e-4, atol=1e-5)
    assert found.entropies is not None
    assert wanted.entropies is not None
    torch.testing.assert_close(found.entropies, wanted.entropies, rtol=1e-4, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(each.entropies.sum(), roles.trained(POLICY)[-1]) for each in (found, wanted)
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-3, atol=1e-5)
