"""What a call costs, from a dated table of list prices that ships and the user's own prices over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from importlib.resources import files

from pydantic import Field

from preceptor.judge.asking.price_file import PriceFile, loaded
from preceptor.judge.errors import RetiredModel
from preceptor.judge.models import registry
from preceptor.judge.models.protocol import Completion, Model, ModelName
from preceptor.judge.settings import CHECKS, Price
from preceptor.prompts.records import Record

SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
"""A dated version of a model costs what the model costs, unless the table names it."""

PINNED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
"""How the name of a model ends that its provider does not put other weights behind."""

MILLION = 1_000_000
FLEX = "flex"
"""What a provider calls its cheaper and slower tier of service."""


class Listed(Record):
    """One provider's part of the shipped table."""

    source: str
    """Page that the prices were taken from."""
    batch_discount: float = Field(ge=0, le=1)
    """Share by which the provider's batch API is cheaper."""
    tiers: dict[str, float] = Field(default_factory=dict)
    """A tier of service of which nothing is said at a model -> how many times the ordinary price it costs."""
    models: dict[str, Price]


@cache
def _providers() -> tuple[str, Mapping[str, Listed]]:
    """The day of the shipped table, and its parts."""
    raw = loaded(files("preceptor.judge.asking").joinpath("prices.yaml").read_text(encoding="utf-8"))
    return raw["dated"], {name: Listed.model_validate(rest) for name, rest in raw["providers"].items()}


@cache
def _shipped() -> tuple[Mapping[str, Price], Mapping[str, float]]:
    """The shipped table by `provider/model`, and the batch discount of each provider."""
    dated, providers = _providers()
    table = {
        f"{name}/{model}": price.model_copy(
            update={"source": price.source or provider.source, "dated": price.dated or dated}
        )
        for name, provider in providers.items()
        for model, price in provider.models.items()
    }
    return table, {name: provider.batch_discount for name, provider in providers.items()}


class Prices:
    """Look-up of prices by `provider/model`."""

    def __init__(
        self,
        table: Mapping[str, Price],
        batch_discounts: Mapping[str, float],
        own: Mapping[str, Price],
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
        return cls(*_shipped(), own or {})

    def in_batches(self) -> Prices:
        """The same table at the prices of the providers' batch APIs; what has none costs what it costs."""
        return Prices(self._table, self._batch_discounts, self._own, in_batches=True)

    def price(self, model: str) -> Price | None:
        """The price of `provider/model`, that of its undated name where only that is known; None: not
        known."""
        listed = self._listed(model)
        return listed if listed is None or not self._in_batches else self._batched(model, listed)

    def _batched(self, model: str, listed: Price) -> Price:
        """A price in a batch: the cache's discount and the batch's stack, unless the user gave the batch's own."""
        left = 1 - self._batch_discount(model)
        made = listed.scaled(left, left)
        if (own_in := listed.batch_input) is not None:
            cached = {"cached_input": None, "cache_write": None, "cache_write_long": None}
            made = made.model_copy(update={"input": own_in, **cached})
        if (own_out := listed.batch_output) is not None:
            made = made.model_copy(update={"output": own_out})
        return made

    def _listed(self, model: str) -> Price | None:
        if model in self._own:
            return self._own[model]
        provider = registry.declared(model)
        if provider.free or model == CHECKS:
            return Price(input=0, output=0)
        return self._own.get("") or self.entry(model)

    def entry(self, model: str) -> Price | None:
        """What is said of this model by its name, and not of all that are asked; None: nothing."""
        provider = registry.declared(model)
        undated = SNAPSHOT.sub("", model)
        declared = (provider.prices.get(ModelName.of(name).model) for name in (model, undated))
        named = (self._own.get(model), self._table.get(model), self._table.get(undated), *declared)
        return next(filter(None, named), None)

    def _batch_discount(self, model: str) -> float:
        """Share by which the batch API is cheaper, by the table or by the provider's own word."""
        listed = self._batch_discounts.get(ModelName.of(model).provider)
        return registry.declared(model).batch_discount if listed is None else listed

    def cost(self, model: str, completion: Completion) -> float | None:
        """USD for an answer, at the tier of service at which it was given, at the dearest that is known where its price
        is not; None where the price is not known at all."""
        price = self.price(model)
        if price is None:
            return None
        if completion.tier == FLEX:
            price = price if self._in_batches else price.flex or price
        elif completion.tier:
            times = _times(model, completion.tier)
            price = price.scaled(times, times)
        price = price.tier(completion.tokens_in)
        read, written = completion.tokens_cached, completion.tokens_cache_written
        long = completion.tokens_cache_written_long
        fresh = max(0, completion.tokens_in - read - written)
        write = _or(price.cache_write, price.input)
        return (
            fresh * price.input
            + read * _or(price.cached_input, price.input)
            + (written - long) * write
            + long * _or(price.cache_write_long, write)
            + completion.tokens_out * price.output
        ) / MILLION

    def worst(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """The most that one call of so many tokens can cost: all input written to the cache where that costs more, and
        at the ordinary tier, at which a provider may serve what was asked for at another. None: price not known."""
        return _worst(self.price(model), tokens_in, tokens_out)

    def batch_worst(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """`worst` through the provider's batch API; None: price not known, or there is none to be had."""
        price = self.price(model)
        if price is None:
            return None
        if not self._batch_discount(model) and price.batch_input is None:
            return None
        return self.in_batches().worst(model, tokens_in, tokens_out)

    def flex_worst(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """`worst` where the provider's flex tier serves it; None: price not known, or there is none to be had."""
        price = self.price(model)
        return None if price is None else _worst(price.flex, tokens_in, tokens_out)

    def listed(self) -> dict[str, Price]:
        """Every entry by `provider/model`: the table's, and the user's over them."""
        return dict(self._table)


def _times(model: str, tier: str) -> float:
    provider = _providers()[1].get(ModelName.of(model).provider)
    known = {} if provider is None else provider.tiers
    return known.get(tier, max([1.0, *known.values()]))


def _or(usd: float | None, otherwise: float) -> float:
    return otherwise if usd is None else usd


def _worst(price: Price | None, tokens_in: int, tokens_out: int) -> float | None:
    if price is None:
        return None
    price = price.tier(tokens_in)
    return (tokens_in * price.dearest_input + tokens_out * price.output) / MILLION


OLD_DAYS = 183
"""Age of an entry from which it is said."""
SOON_DAYS = 60
"""How long before a model is gone it is said."""


def warnings(prices: Prices, models: Iterable[str], today: date) -> list[str]:
    """What a user should know of these models' prices before spending."""
    said = []
    for model in sorted(set(models)):
        entry, price = prices.entry(model), prices.price(model)
        said.append("" if entry is None else going(model, entry, today))
        said.append("" if price is None else aged(model, price, today))
    return [line for line in said if line]


def going(model: str, price: Price, today: date) -> str:
    """What is to be said of a model that is gone, or will be soon; empty: nothing."""
    if not price.shutdown:
        return ""
    days = (date.fromisoformat(price.shutdown) - today).days
    other = f"name {heir(model, price)}" if price.successor else "name another model"
    if days <= 0:
        return f"{model} was shut down on {price.shutdown}: {other}"
    return f"{model} is shut down on {price.shutdown}, in {days} days: {other}" if days <= SOON_DAYS else ""


def aged(model: str, price: Price, today: date) -> str:
    """What is to be said of a price that was checked long ago; empty: nothing."""
    if not price.dated or (today - date.fromisoformat(price.dated)).days <= OLD_DAYS:
        return ""
    return (
        f"the price of {model} was last checked on {price.dated}: give today's with --price IN,OUT or "
        "`preceptor prices add`"
    )


def remarks(file: PriceFile, today: date) -> tuple[list[str], list[str]]:
    """Faults of a file of prices, with its models that are gone; and what else is to be said of it. A line each."""
    faults = list(file.faults)
    warnings: list[str] = []
    for name, entry in file.entries.items():
        where = f"{file.path}:{entry.line}: "
        if said := going(name, entry.price, today):
            (faults if entry.price.gone(today) else warnings).append(where + said)
        if not entry.price.dated:
            warnings.append(f"{where}the price of {name} has no day; add `dated: {today}`")
        elif said := aged(name, entry.price, today):
            warnings.append(where + said)
    return faults, warnings


def require_live(prices: Prices, models: Iterable[Model], day: date) -> None:
    """Raises RetiredModel where one of them was shut down by its provider, as far as the table knows. At another
    address a name says nothing, and the user's own entry goes before the table's."""
    for model in models:
        price = None if model.endpoint else prices.entry(model.name)
        if price is not None and price.gone(day):
            raise RetiredModel(
                f"{going(model.name, price, day)}; nothing was asked. Where it is served to you all the same, say so "
                f"by a price of your own: `preceptor prices add {model.name} --input USD --output USD`"
            )


def heir(model: str, price: Price) -> str:
    """The model that takes a model's place, as users name models."""
    return f"{ModelName.of(model).provider}/{price.successor}"


def floating(models: Iterable[str]) -> list[str]:
    """Those of the names behind which a provider can put other weights: they are reached over a network, and bear no
    date."""
    asked = [name for name in dict.fromkeys(models) if name != CHECKS]
    return [name for name in asked if registry.declared(name).takes_address and not PINNED.search(name)]


def today() -> date:
    """The day that prices and models are looked at; the one clock of all that is said of their age."""
    return date.today()
