"""What a call costs, from a dated table of list prices that ships and the user's own prices over it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

from pydantic import Field

from judge.models.protocol import Completion, Request
from prompts.records import Record

FREE = frozenset({"hf", "embedded", "scripted", "checks"})
"""Providers that run in this process."""

SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
"""A dated version of a model costs what the model costs, unless the table names it."""

MILLION = 1_000_000


class Price(Record):
    """USD for a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0)
    """Input that came from the provider's prompt cache; None: as `input`."""
    cache_write: float | None = Field(default=None, ge=0)
    """Input that was written to the prompt cache; None: as `input`."""


class Source(Record):
    """One provider's part of the table."""

    source: str
    """Page that the prices were taken from."""
    batch_discount: float = Field(ge=0, le=1)
    """Share by which the provider's batch API is cheaper."""
    models: dict[str, Price]


class Prices:
    """Look-up of prices by `provider/model`."""

    def __init__(self, table: Mapping[str, Price], dated: str, batch_discounts: Mapping[str, float]) -> None:
        self._table = dict(table)
        self.dated = dated
        """Day on which the shipped list was last checked, YYYY-MM-DD."""
        self._batch_discounts = dict(batch_discounts)

    @classmethod
    def load(cls, overrides: Mapping[str, Price] | None = None) -> Prices:
        """The shipped table with the user's prices, by `provider/model`, over it."""
        from ruamel.yaml import YAML

        raw = YAML(typ="safe").load(files("judge").joinpath("prices.yaml").read_text(encoding="utf-8"))
        sources = {provider: Source.model_validate(rest) for provider, rest in raw["providers"].items()}
        table = {
            f"{provider}/{model}": price
            for provider, source in sources.items()
            for model, price in source.models.items()
        }
        discounts = {provider: source.batch_discount for provider, source in sources.items()}
        return cls({**table, **(overrides or {})}, str(raw["dated"]), discounts)

    def price(self, model: str) -> Price | None:
        """The price of `provider/model`, that of its undated name where only that is known; None: not
        known."""
        if model in self._table:
            return self._table[model]
        if model.partition("/")[0] in FREE:
            return Price(input=0, output=0)
        return self._table.get(SNAPSHOT.sub("", model))

    def cost(self, model: str, completion: Completion) -> float | None:
        """USD for an answer, None where the price is not known."""
        price = self.price(model)
        if price is None:
            return None
        read, written = completion.tokens_cached, completion.tokens_cache_written
        fresh = max(0, completion.tokens_in - read - written)
        return (
            fresh * price.input
            + read * (price.input if price.cached_input is None else price.cached_input)
            + written * (price.input if price.cache_write is None else price.cache_write)
            + completion.tokens_out * price.output
        ) / MILLION

    def estimate(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """USD for so many tokens, none of them from a cache; None: price not known."""
        price = self.price(model)
        return None if price is None else (tokens_in * price.input + tokens_out * price.output) / MILLION

    def worst(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """The most that so many tokens can cost: all input written to the cache where that costs more."""
        price = self.price(model)
        if price is None:
            return None
        dearest = max(price.input, price.cache_write or 0.0)
        return (tokens_in * dearest + tokens_out * price.output) / MILLION

    def batch_discount(self, model: str) -> float:
        """Share by which the model's provider is cheaper through its batch API, 0 where it has none."""
        return self._batch_discounts.get(model.partition("/")[0], 0.0)


def likely_tokens_in(request: Request) -> int:
    """Tokens of a request's messages at four characters a token, as English prose has."""
    return sum(math.ceil(len(text) / 4) + 4 for text in _texts(request))


def most_tokens_in(request: Request) -> int:
    """More tokens than a request's messages will have: three ASCII characters a token, one byte of others."""
    return sum(
        math.ceil(len(text) / 3) + len(text.encode(errors="replace")) - len(text) + 16
        for text in _texts(request)
    )


def _texts(request: Request) -> Iterable[str]:
    return (message.content for message in request.messages)
