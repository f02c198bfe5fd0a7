"""What a call costs, from a dated table of list prices that ships and the user's own prices over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from ruamel.yaml.error import YAMLError

from preceptor.constitution.errors import UserError
from preceptor.judge.models import registry
from preceptor.judge.models.protocol import Completion, ModelName
from preceptor.judge.settings import CHECKS, Price
from preceptor.prompts.records import Record

SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
"""A dated version of a model costs what the model costs, unless the table names it."""

MILLION = 1_000_000


class Listed(Record):
    """One provider's part of the shipped table."""

    source: str
    """Page that the prices were taken from."""
    batch_discount: float = Field(ge=0, le=1)
    """Share by which the provider's batch API is cheaper."""
    models: dict[str, Price]


class Prices:
    """Look-up of prices by `provider/model`."""

    def __init__(
        self,
        table: Mapping[str, Price],
        own: Mapping[str, Price],
        batch_discounts: Mapping[str, float],
        in_batches: bool = False,
    ) -> None:
        """own: the user's, which go before the table; under `""` that of every model that costs at all. in_batches:
        whether prices are those of the providers' batch APIs."""
        self._table = {**table, **own}
        self._own = own
        self._batch_discounts = dict(batch_discounts)
        self._in_batches = in_batches

    @classmethod
    def load(cls, own: Mapping[str, Price] | None = None) -> Prices:
        """The shipped table with the user's prices, by `provider/model`, over it."""
        raw = _yaml(files("preceptor.judge.asking").joinpath("prices.yaml").read_text(encoding="utf-8"))
        shipped = {name: Listed.model_validate(_spelt(rest)) for name, rest in raw["providers"].items()}
        table = {
            f"{name}/{model}": price.model_copy(
                update={"source": price.source or provider.source, "dated": price.dated or str(raw["dated"])}
            )
            for name, provider in shipped.items()
            for model, price in provider.models.items()
        }
        discounts = {name: provider.batch_discount for name, provider in shipped.items()}
        return cls(table, own or {}, discounts)

    def in_batches(self) -> Prices:
        """The same table at the prices of the providers' batch APIs; what has none costs what it costs."""
        return Prices(self._table, self._own, self._batch_discounts, in_batches=True)

    def price(self, model: str) -> Price | None:
        """The price of `provider/model`, that of its undated name where only that is known; None: not
        known."""
        listed = self._listed(model)
        return listed if listed is None or not self._in_batches else self._batched(model, listed)

    def _batched(self, model: str, listed: Price) -> Price:
        """A price in a batch: the cache's discount and the batch's stack, unless the user gave the batch's own."""
        left = 1 - self._batch_discount(model)
        own_in, own_out = listed.batch_input, listed.batch_output
        cached = {
            name: None if own_in is not None or usd is None else usd * left
            for name, usd in (("cached_input", listed.cached_input), ("cache_write", listed.cache_write))
        }
        each_in = listed.input * left if own_in is None else own_in
        each_out = listed.output * left if own_out is None else own_out
        long = listed.long and listed.long.model_copy(
            update={
                name: usd * left
                for name in ("input", "output", "cached_input", "cache_write")
                if (usd := getattr(listed.long, name)) is not None
            }
        )
        return listed.model_copy(update={"input": each_in, "output": each_out, "long": long, **cached})

    def _listed(self, model: str) -> Price | None:
        if model in self._own:
            return self._own[model]
        provider = registry.declared(model)
        if provider.free or model == CHECKS:
            return Price(input=0, output=0)
        if "" in self._own:
            return self._own[""]
        undated = SNAPSHOT.sub("", model)
        declared = (provider.prices.get(ModelName.of(name).model) for name in (model, undated))
        return next(filter(None, (self._table.get(model), self._table.get(undated), *declared)), None)

    def _batch_discount(self, model: str) -> float:
        """Share by which the batch API is cheaper, by the table or by the provider's own word."""
        listed = self._batch_discounts.get(ModelName.of(model).provider)
        return registry.declared(model).batch_discount if listed is None else listed

    def cost(self, model: str, completion: Completion) -> float | None:
        """USD for an answer, None where the price is not known."""
        price = _at(self.price(model), completion.tokens_in)
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
        price = _at(self.price(model), tokens_in)
        if price is None:
            return None
        dearest = max(price.input, price.cache_write or 0.0)
        return (tokens_in * dearest + tokens_out * price.output) / MILLION

    def batch_estimate(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """`estimate` through the provider's batch API; None: price not known, or there is none to be had."""
        price = self.price(model)
        if price is None:
            return None
        if not self._batch_discount(model) and price.batch_input is None:
            return None
        return self.in_batches().estimate(model, tokens_in, tokens_out)


def _at(price: Price | None, tokens_in: int) -> Price | None:
    """The price of a call with a prompt of so many tokens."""
    if price is None or price.long is None or tokens_in <= price.long.above:
        return price
    return price.model_copy(update=price.long.model_dump(exclude={"above"}))


OLD_DAYS = 183
"""Age of an entry from which it is said."""
SOON_DAYS = 60
"""How long before a model is gone it is said."""


def warnings(prices: Prices, models: Iterable[str], today: date) -> list[str]:
    """What a user should know of these models' prices before spending."""
    said = []
    for model in sorted(set(models)):
        price = prices.price(model)
        if price is None:
            continue
        gone, seen = _day(price.shutdown), _day(price.dated)
        if gone is not None and gone <= today:
            said.append(f"{model} was shut down on {gone}: name another model")
        elif gone is not None and (gone - today).days <= SOON_DAYS:
            said.append(f"{model} is shut down on {gone}, in {(gone - today).days} days")
        if seen is not None and (today - seen).days > OLD_DAYS:
            said.append(f"the price of {model} was last checked on {seen}: give today's with --price IN,OUT")
    return said


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def read_prices(path: str | Path) -> dict[str, Price]:
    """A user's own file: `provider/model: {input: 0.2, output: 0.8}`, in USD for a million tokens, with the other
    fields of a Price as wanted.

    Raises UserError for a file that cannot be read or holds something else.
    """
    try:
        raw = _yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: the prices cannot be read: {exc}; name a YAML file") from exc
    except YAMLError as exc:
        raise UserError(f"{path}: broken YAML: {' '.join(str(exc).split())}") from exc
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path}: wanted lines such as openai/my-model: {{input: 0.2, output: 0.8}}")
    prices = {}
    for name, fields in raw.items():
        if not isinstance(name, str) or "/" not in name:
            raise UserError(f"{path}: {name!r} is no model; wanted provider/model, such as openai/my-model")
        try:
            prices[name] = Price.model_validate(_spelt(fields))
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the price"
            raise UserError(
                f"{path}: {name}: {place}: {first['msg'].lower()}; wanted USD for a million tokens: "
                f"{{{', '.join(list(Price.model_fields)[:6])}}}, input and output at least"
            ) from exc
    return prices


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)


def _spelt(fields: object) -> object:
    """YAML's own dates as words, however deep."""
    if isinstance(fields, dict):
        return {key: _spelt(value) for key, value in fields.items()}
    return fields.isoformat() if isinstance(fields, date) else fields
