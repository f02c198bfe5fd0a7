"""Prices and the plan."""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.price_file import read_prices
from preceptor.judge.asking.prices import Prices, require_live, warnings
from preceptor.judge.errors import RetiredModel
from preceptor.judge.models.protocol import Completion, Request
from preceptor.judge.models.token_estimates import likely_tokens_in, most_tokens_in
from preceptor.judge.settings import Price, price_from
from preceptor.prompts.records import Message

COMPLETION = Completion(
    text="", finish_reason="stop", tokens_in=1_000_000, tokens_out=100_000, tokens_cached=400_000
)


def test_a_cost_is_fresh_and_cached_input_and_output() -> None:
    price = Price(input=2.0, output=10.0, cached_input=0.5)
    prices = Prices.load({"openai/mine": price})
    assert prices.cost("openai/mine", COMPLETION) == pytest.approx(0.6 * 2.0 + 0.4 * 0.5 + 0.1 * 10.0)


def test_without_a_cached_price_cached_input_costs_the_same() -> None:
    assert Prices.load({"x/y": Price(input=2, output=0)}).cost("x/y", COMPLETION) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["hf/a/b", "embedded", "scripted/x"])
def test_what_runs_here_is_free(name: str) -> None:
    assert Prices.load().cost(name, COMPLETION) == 0


def test_an_unknown_model_has_no_price_rather_than_none_to_pay() -> None:
    assert Prices.load().cost("openai/some-local-llama", COMPLETION) is None


def test_a_dated_snapshot_costs_what_its_model_costs_unless_it_is_listed() -> None:
    prices = Prices.load()
    assert prices.price("openai/gpt-4o-2024-11-20") == prices.price("openai/gpt-4o")
    assert prices.price("anthropic/claude-sonnet-4-5-20250929") == prices.price("anthropic/claude-sonnet-4-5")
    assert prices.price("openai/gpt-4o-2024-05-13") != prices.price("openai/gpt-4o")


def test_a_long_prompt_makes_all_of_its_call_dearer() -> None:
    prices = Prices.load()
    short, long = (
        Completion(text="", finish_reason="stop", tokens_in=tokens, tokens_out=1000)
        for tokens in (100_000, 100_001)
    )
    assert prices.cost("anthropic/claude-haiku-5-5", short) == pytest.approx(
        (100_000 * 0.1 + 1000 * 0.5) / 1e6
    )
    assert prices.cost("anthropic/claude-haiku-5-5", long) == pytest.approx(
        (100_001 * 0.5 + 1000 * 2.5) / 1e6
    )
    in_batches = prices.in_batches().cost("anthropic/claude-haiku-5-5", long)
    assert in_batches == pytest.approx((100_001 * 0.5 + 1000 * 2.5) / 2e6)


def test_old_prices_and_models_that_are_going_are_told() -> None:
    prices = Prices.load({"x/mine": Price(input=1, output=1, dated="2026-01-01")})
    today = date(2026, 12, 1)
    said = warnings(
        prices, ["openai/gpt-5-mini", "openai/gpt-4", "openai/gpt-6-luna", "x/mine", "x/none"], today
    )
    assert [line.split(":")[0] for line in said] == [
        "openai/gpt-4 was shut down on 2026-10-23",
        "the price of openai/gpt-4 was last checked on 2025-11-01",
        "openai/gpt-5-mini is shut down on 2026-12-11, in 10 days",
        "the price of openai/gpt-5-mini was last checked on 2025-11-01",
        "the price of x/mine was last checked on 2026-01-01",
    ]


PAGES = ("README.md", "docs", "examples", "deploy", "preceptor", "judge/models", "judge/reward.py")


def test_the_models_that_pages_and_help_name_have_a_price_and_live() -> None:
    root = Path(__file__).parents[3]
    files = [
        path
        for page in PAGES
        for path in ([root / page] if (root / page).is_file() else sorted((root / page).rglob("*")))
        if path.suffix in (".md", ".yaml", ".sh", ".py")
    ]
    named = {
        name
        for path in files
        for name in re.findall(r"\b((?:openai/gpt|anthropic/claude)-[\w.-]*\w)", path.read_text())
    }
    assert len(named) >= 2
    prices = Prices.load()
    assert {name for name in named if prices.price(name) is None} == set()
    assert {name for name in named if prices.price(name).shutdown} == set()  # type: ignore[union-attr]


def test_the_shipped_table_is_whole() -> None:
    """Every listed model answers; cached input is never dearer than fresh, and a batch is half the price."""
    prices = Prices.load()
    assert len(prices._table) >= 25
    for name, price in prices._table.items():
        whole, batch = prices.worst(name, 10, 20), prices.batch_worst(name, 10, 20)
        assert whole is not None
        assert batch == pytest.approx(whole / 2)
        assert price.source.startswith("https://")
        assert price.dated
        assert 0 < price.input <= price.output
        assert price.cached_input is None or price.cached_input <= price.input


def test_ones_own_file_adds_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "openai/gpt-4o: {input: 1, output: 2, dated: 2026-02-03}\n"
        "together/llama: {input: 0.1, output: 0.3, batch_input: 0.05, batch_output: 0.1}\n"
    )
    prices = Prices.load(read_prices(file))
    assert prices.worst("openai/gpt-4o", 10**6, 10**6) == 3
    assert prices.batch_worst("openai/gpt-4o", 10**6, 10**6) == 1.5
    assert prices.batch_worst("together/llama", 10**6, 10**6) == pytest.approx(0.15)
    assert prices.worst("openai/gpt-4o-mini", 10**6, 0) == pytest.approx(0.15)
    assert (own := prices.price("openai/gpt-4o")) is not None
    assert own.dated == "2026-02-03"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai/m: {input: 1}", "openai/m: output: field required"),
        ("openai/m: {input: -1, output: 1}", "input: input should be greater"),
        ("openai/m: {input: 1, output: 1, price: 3}", "price: extra inputs"),
        ("m: {input: 1, output: 1}", "'m' is no model"),
        ("- a", "wanted lines such as"),
        ("a: [", "broken YAML"),
    ],
)
def test_a_wrong_file_of_prices_is_told_in_words(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as told:
        read_prices(file)
    assert str(file) in str(told.value)


def test_a_price_by_flag_is_every_models_or_one_models() -> None:
    prices = Prices.load(dict([price_from("0.5,1"), price_from("openai/b=2,3")]))
    assert prices.worst("openai/a", 10**6, 10**6) == 1.5
    assert prices.worst("openai/b", 10**6, 10**6) == 5
    assert prices.worst("embedded", 10**6, 10**6) == 0, "what runs here stays free"
    assert prices.batch_worst("elsewhere/a", 1, 1) is None


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "nan,1", "m=", ""])
def test_a_flag_that_is_no_price(text: str) -> None:
    with pytest.raises(UserError, match="--price is"):
        price_from(text)


@pytest.mark.parametrize("text", ["Hello there, how are you today?", "你好，今天过得怎么样", "🙂🙂🙂", ""])
def test_the_upper_bound_is_above_the_likely_count(text: str) -> None:
    request = Request(model="x/y", messages=(Message(role="user", content=text),), max_tokens=1)
    assert most_tokens_in(request) >= likely_tokens_in(request) >= math.ceil(len(text) / 4)


def test_what_is_written_to_the_cache_costs_what_the_provider_asks_for_it() -> None:
    """And the worst case of a call, which the budget reserves, is never below what it then costs."""
    prices = Prices.load()
    model = "anthropic/claude-sonnet-4-5"
    price = prices.price(model)
    assert price is not None
    assert price.cache_write is not None
    written = Completion(text="", finish_reason="stop", tokens_in=1_000_000, tokens_cache_written=1_000_000)
    read = written.model_copy(update={"tokens_cache_written": 0, "tokens_cached": 1_000_000})
    assert prices.cost(model, written) == pytest.approx(price.cache_write)
    assert prices.cost(model, read) == pytest.approx(price.cached_input)
    worst = prices.worst(model, 1_000_000, 0)
    assert worst is not None
    assert worst >= max(prices.cost(model, written) or 0.0, prices.worst(model, 1_000_000, 0) or 0.0)


def test_prices_in_batches_stack_with_the_cache_and_give_way_to_the_users_own() -> None:
    own = {
        "openai/own": Price(input=8, output=4, cached_input=2, batch_input=3, batch_output=1),
        "vllm/none": Price(input=8, output=4),
    }
    prices = Prices.load(own).in_batches()
    haiku = prices.price("anthropic/claude-haiku-4-5")
    assert haiku is not None
    assert (haiku.input, haiku.output, haiku.cached_input, haiku.cache_write) == (0.5, 2.5, 0.05, 0.625)
    answer = Completion(
        text="", finish_reason="stop", tokens_in=1_000_000, tokens_cached=500_000, tokens_out=1_000_000
    )
    assert prices.cost("openai/own", answer) == 4
    assert prices.cost("anthropic/claude-haiku-4-5", answer) == pytest.approx(0.25 + 0.025 + 2.5)
    assert prices.cost("vllm/none", answer) == 12
    assert prices.worst("anthropic/claude-haiku-4-5", 1_000_000, 0) == pytest.approx(0.625)
    assert prices.price("openai/unheard-of") is None


def test_what_is_written_for_longer_costs_more_and_flex_costs_less() -> None:
    prices = Prices.load()
    terra = "openai/gpt-6.1-terra"
    answer = Completion(
        text="",
        finish_reason="stop",
        tokens_in=100_000,
        tokens_out=10_000,
        tokens_cached=20_000,
        tokens_cache_written=50_000,
        tokens_cache_written_long=10_000,
    )
    plain = (30_000 * 1 + 20_000 * 0.05 + 40_000 * 1.25 + 10_000 * 2.5 + 10_000 * 5) / 1e6
    assert prices.cost(terra, answer) == pytest.approx(plain)
    assert prices.cost(terra, answer.model_copy(update={"tier": "flex"})) == pytest.approx(plain / 2)
    assert prices.cost(
        "anthropic/claude-opus-5-5", answer.model_copy(update={"tier": "flex"})
    ) == prices.cost("anthropic/claude-opus-5-5", answer), "it has no such tier"
    for tier in ("priority", "of which nobody has heard"):
        dear = answer.model_copy(update={"tier": tier})
        assert prices.cost(terra, dear) == pytest.approx(2 * plain)
        assert prices.cost("openai/mine", dear) is None
    assert prices.flex_worst("openai/gpt-4o", 10, 10) is None
    assert prices.flex_worst(terra, 10, 10) == pytest.approx((prices.worst(terra, 10, 10) or 0) / 2)


@given(
    st.floats(0.01, 10),
    st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
    st.integers(0, 2000),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_no_call_costs_more_than_its_worst_case(
    usd: float, above: list[int], tokens: int, cached: int, written: int
) -> None:
    """Whatever part of it came from the cache or went there for the lifetime that is asked for, in every tier."""
    tiers = [
        {"above": size, "input": usd * (n + 2), "output": usd, "cache_write": usd * (n + 3)}
        for n, size in enumerate(sorted(above))
    ]
    price = Price.model_validate(
        {
            "input": usd,
            "output": usd,
            "cached_input": usd / 10,
            "cache_write": usd * 1.25,
            "long": tiers[::-1],
        }
    )
    prices = Prices.load({"x/y": price})
    cached = min(cached, tokens)
    written = min(written, tokens - cached)
    answer = Completion(
        text="",
        finish_reason="stop",
        tokens_in=tokens,
        tokens_out=7,
        tokens_cached=cached,
        tokens_cache_written=written,
    )
    cost, worst = prices.cost("x/y", answer), prices.worst("x/y", tokens, 7)
    assert cost is not None
    assert worst is not None
    assert cost <= worst * (1 + 1e-12)
    assert price.tier(tokens).input == usd * (sum(tokens > size for size in above) + 1)


def test_a_model_that_is_gone_is_one_error_with_its_successor_but_at_another_address() -> None:
    class Named:
        def __init__(self, name: str, endpoint: str = "") -> None:
            self.name, self.endpoint = name, endpoint

    def live(*models: Named, own: dict[str, Price] | None = None, day: date = date(2026, 11, 30)) -> None:
        require_live(Prices.load(own), models, day)  # type: ignore[arg-type]

    alive, gone = Named("openai/gpt-6-luna"), Named("anthropic/claude-sonnet-4-5-20250929")
    with pytest.raises(
        RetiredModel, match="was shut down on 2026-11-30: name anthropic/claude-sonnet-5-5; nothing"
    ):
        live(alive, gone)
    live(alive, gone, day=date(2026, 11, 29))
    live(Named(gone.name, "http://127.0.0.1:1"), Named("x/unheard-of"), Named("embedded"))
    live(gone, own={gone.name: Price(input=3, output=15)})
    with pytest.raises(RetiredModel):
        live(gone, own={"": Price(input=3, output=15)})
