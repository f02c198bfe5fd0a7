"""Prices as a person writes them: of the tiers exactly one holds, and a discount is one of every kind of token."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preceptor.constitution.errors import UserError
from preceptor.judge.settings import LongPrice, Price, price_from

USD = st.floats(0, 100).map(lambda usd: round(usd, 4))
PRICES = st.builds(
    Price,
    input=USD,
    output=USD,
    cached_input=st.one_of(st.none(), USD),
    cache_write=st.one_of(st.none(), USD),
    long=st.lists(
        st.builds(LongPrice, above=st.integers(1, 50), input=USD, output=USD),
        max_size=3,
        unique_by=lambda x: x.above,
    ),
)


@given(st.text("abc/-.:=", max_size=12), USD, USD)
def test_a_price_reads_back_as_it_was_written(model: str, each_in: float, each_out: float) -> None:
    written = f"{model}={each_in!r},{each_out!r}" if model else f"{each_in!r},{each_out!r}"
    name, price = price_from(written)
    assert (name, price.input, price.output, price.source) == (model, each_in, each_out, "--price")


@pytest.mark.parametrize("text", ["", "1", "m=1", "1,2,3", "m=a,b", "-1,2", "nan,1", "1,inf"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--price is"):
        price_from(text)


@settings(deadline=None, max_examples=80)
@given(PRICES, st.integers(0, 60))
def test_the_highest_tier_that_a_prompt_passes_holds(price: Price, tokens: int) -> None:
    passed = [tier for tier in price.long if tokens > tier.above]
    found = price.tier(tokens)
    wanted = max(passed, key=lambda tier: tier.above) if passed else price
    assert (found.input, found.output) == (wanted.input, wanted.output)


@settings(deadline=None, max_examples=80)
@given(PRICES, st.integers(0, 60), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.0, 0.5, 2.0]))
def test_scaling_and_choosing_a_tier_can_change_places(
    price: Price, tokens: int, in_share: float, out_share: float
) -> None:
    one, other = (
        price.scaled(in_share, out_share).tier(tokens),
        price.tier(tokens).scaled(in_share, out_share),
    )
    for name in ("input", "output", "cached_input", "cache_write"):
        assert getattr(one, name) == getattr(other, name)
    assert one.input == price.tier(tokens).input * in_share


@given(PRICES, USD, USD)
def test_the_flex_tier_costs_what_it_says_and_cached_tokens_their_part(
    price: Price, each_in: float, each_out: float
) -> None:
    assert price.flex is None
    flexed = Price.model_validate({**price.model_dump(), "flex_input": each_in, "flex_output": each_out}).flex
    assert flexed is not None
    assert (flexed.input, flexed.output) == (each_in, each_out)
    if price.cached_input is not None and price.input:
        assert flexed.cached_input == pytest.approx(price.cached_input * each_in / price.input)
    with pytest.raises(ValidationError, match="go together"):
        Price(input=1, output=1, flex_input=each_in)


@given(st.dates(), st.integers(-3, 3))
def test_a_model_is_gone_from_its_last_day_on(last: date, days: int) -> None:
    if not date.min + timedelta(3) <= last <= date.max - timedelta(3):
        return
    price = Price(input=1, output=1, shutdown=last.isoformat())
    assert price.gone(last + timedelta(days)) is (days >= 0)
    assert not Price(input=1, output=1).gone(last)
