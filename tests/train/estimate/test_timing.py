"""What is predicted of time: what was timed, as many times as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.train.data.pairs import encode_pairs
from preceptor.train.errors import MemoryShortError
from preceptor.train.estimate import random_weights
from preceptor.train.estimate import timing as module
from preceptor.train.estimate.dry_run import skeleton_of
from preceptor.train.estimate.plan import parts_of
from preceptor.train.estimate.random_weights import fill_with_random_weights, with_layers
from preceptor.train.estimate.schedule import (
    StepSchedule,
    pair_schedule,
    pass_weight,
    read_weight,
    saved_steps,
)
from preceptor.train.estimate.timing import NOTHING, Clocked, Sample, Spread, Timing, strata_of, sum_of
from preceptor.train.models.base import Base
from tests.train.architectures import SHARED, tiny_model
from tests.train.estimate.test_plan import planned
from tests.train.test_training import run, settings_of
from tests.train.tiny import preference, tiny_tokenizer

PAIRS = encode_pairs([preference(number) for number in range(24)], tiny_tokenizer(), 512).rows
CONFIG = tiny_model("llama").config
TIMED = Timing(
    rates=(Spread(1.0, 2.0, 4.0), Spread(0.5, 0.5, 0.5)),
    read=Spread(0.1, 0.2, 0.3),
    step=Spread(3.0, 3.0, 3.0),
    checkpoint=Spread(7.0, 8.0, 9.0),
)


def course_of(epochs: float = 1.0, shared: bool = True) -> StepSchedule:
    return pair_schedule(PAIRS, CONFIG, 200, shared, batch_size=4, epochs=epochs, seed=0)


def sample(number: int) -> Sample:
    return Sample(number, lambda _: {}, float)


def test_parts_are_what_was_timed_as_many_times_as_it_comes() -> None:
    strata = tuple(
        one._replace(total=total) for one, total in zip(course_of().strata, (10.0, 100.0), strict=False)
    )
    course = StepSchedule(5, 0, 0, (), strata, around=20.0, held_out=30.0)
    parts = parts_of(course, TIMED, saves=2, fixed_s=1.0)
    assert parts == {
        "steps": Spread(10 + 50 + 15, 20 + 50 + 15, 40 + 50 + 15),
        "held_out": pytest.approx((6.0, 12.0, 18.0)),
        "checkpoints": Spread(14.0, 16.0, 18.0),
        "around": pytest.approx((3.0, 5.0, 7.0)),
    }
    assert sum_of(parts.values()) == pytest.approx((98.0, 118.0, 148.0))


def test_twice_the_passes_weigh_twice_as_much_and_nothing_is_left_out() -> None:
    """Every pass of every step is in one stratum, and what they weigh is what they hold."""
    once, twice = course_of(1.0), course_of(2.0)
    assert twice.steps == 2 * once.steps == 12
    total = sum(one.total for one in once.strata)
    assert sum(one.total for one in twice.strata) == pytest.approx(2 * total, rel=0.1)  # padding is by chance
    least = pass_weight(1, max(pair.tokens for pair in PAIRS), CONFIG)
    assert total > least
    assert read_weight(PAIRS, CONFIG, 10**9, True) >= read_weight(PAIRS, CONFIG, 1, True) > 0
    assert read_weight((), CONFIG, 100, True) == 0
    weights = [float(number) for number in range(1, 12)]
    strata = strata_of(weights, sample, 4)
    assert sum(one.total for one in strata) == sum(weights)
    assert [one.sample.rows for one in strata] == [9, 6, 3, 0]  # the middle ones, by number: heaviest first
    assert saved_steps(7, 3) == [3, 6, 7]


def test_a_samples_inputs_are_its_pass_and_weigh_what_it_weighs() -> None:
    for shared in (True, False):
        for one in course_of(shared=shared).strata:
            for rows in {1, one.sample.rows}:
                shape = one.sample.inputs(rows)["input_ids"].shape
                assert one.sample.weight(rows) == pytest.approx(pass_weight(*shape, CONFIG), rel=0.02)


def test_further_layers_take_what_the_second_added() -> None:
    one = Timing(
        (Spread(1.0, 1.0, 1.0),), Spread(0.5, 0.5, 0.5), Spread(0.1, 0.1, 0.1), Spread(1.0, 1.0, 2.0)
    )
    two = Timing(
        (Spread(1.5, 1.5, 3.0),), Spread(0.6, 0.6, 0.6), Spread(0.2, 0.2, 0.2), Spread(1.0, 1.0, 1.0)
    )
    ten = module._timing([one, two], [1, 2], 10)
    assert ten.rates[0] == pytest.approx((5.5, 5.5, 11.0))
    assert ten.read.middle == pytest.approx(1.4)
    assert ten.checkpoint == pytest.approx((1.0, 1.0, 2.0))
    assert module._timing([one], [1], 1) == one


def test_a_stratum_that_there_was_no_time_for_takes_after_the_middle_one() -> None:
    found = module._spreads(Clocked([[], [2.0, 4.0, 3.0], [1.0]], [], [0.1], [0.2]), [8.0, 4.0, 2.0])
    assert found.rates == (Spread(0.5, 0.75, 1.0), Spread(0.5, 0.75, 1.0), Spread(0.5, 0.5, 0.5))
    assert found.read == NOTHING


def test_plans_have_parts_that_add_up_and_limits_around_them(tiny: Path) -> None:
    """Of every stage; what is not done takes no time."""
    for stage in ("sft", "reward", "dpo", "kto"):
        plan = planned(stage, settings_of(stage, tiny))
        assert plan.time_s == pytest.approx(sum(plan.time.values()))
        assert plan.time_range_s is not None
        assert 0 < plan.time_range_s[0] <= plan.time_s <= plan.time_range_s[1]
        assert plan.time["around"] >= (1.0 if stage == "reward" else 0.4)
        assert (plan.time["held_out"] > 0) is (stage == "reward")


def test_what_cannot_be_timed_is_foretold_by_products_of_matrices(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.0)
    plan = planned("dpo", settings_of("dpo", tiny))
    assert plan.time_range_s is None
    assert plan.time_s is not None
    assert plan.time_s > 0


def test_chance_is_left_as_it_was(tiny: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    planned("dpo", settings_of("dpo", tiny))
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("name", SHARED)
def test_models_with_few_layers_and_made_up_weights_give_plain_numbers(name: str) -> None:
    model: Any = tiny_model(name)
    bare = skeleton_of(Base(model, tiny_tokenizer(), ""), torch.float32, with_layers(model.config, 1))
    fill_with_random_weights(bare.model, torch.device("cpu"))
    logits = bare.model(input_ids=torch.arange(2, 30)[None], use_cache=False).logits
    assert torch.isfinite(logits).all()
    assert 1e-3 < logits.std() < 1e3
    assert model.config.num_hidden_layers == 2  # the config itself is left as it is


def test_a_model_too_large_for_memory_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model("llama")
    bare = skeleton_of(Base(model, tiny_tokenizer(), ""), torch.float32)
    monkeypatch.setattr(random_weights, "available_bytes", lambda _: 1000)
    with pytest.raises(MemoryShortError, match="MiB available"):
        fill_with_random_weights(bare.model, torch.device("cpu"))
    assert all(parameter.is_meta for parameter in bare.model.parameters())


def test_a_model_that_computes_something_else_under_the_mask_is_planned_in_two_rows(tmp_path: Path) -> None:
    """MPT takes the mask without a word and adds its own positions: only numbers tell."""
    folder = tmp_path / "mpt"
    tiny_model("mpt").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    settings = settings_of("dpo", folder, epochs=1)
    plan = planned("dpo", settings)
    assert "computes something else under the shared prompt's mask" in plan.two_rows
    trained = run("dpo", settings, tmp_path / "out")
    assert plan.memory_bytes == pytest.approx(trained.measured["memory_bytes"], rel=0.15)
