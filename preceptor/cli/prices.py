"""Prices of models: what is known, what a file of one's own says, and one entry more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli import console, options
from preceptor.cli.flags import Flags, given, with_flags
from preceptor.judge.settings import Price

if TYPE_CHECKING:
    from collections.abc import Mapping

    from preceptor.judge.settings import LongPrice

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

PRICES = ("model", "in", "cached", "cache\nwrite", "out", "batch\nin/out", "flex\nin/out")
DAYS = ("model", "checked", "gone on", "then")


@app.command()
def show(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Only models whose names hold one of these.", metavar="[WORD]..."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """The prices that a command would go by: the shipped table, and your own file over it."""
    from preceptor.constitution.errors import UserError
    from preceptor.judge.asking import prices as table
    from preceptor.judge.user_prices import user_prices

    own = user_prices()
    prices = table.Prices.load(own)
    entries = {
        name: price
        for name, price in sorted(prices.listed().items())
        if not models or any(word in name for word in models)
    }
    if not entries:
        raise UserError(
            f"no price is known of {', '.join(models or ())}; `preceptor prices add` writes one down"
        )
    if as_json:
        console.result(
            {
                name: price.model_dump(mode="json", exclude_none=True)
                | {"batch": _batch(prices, name), "own": name in own}
                for name, price in entries.items()
            }
        )
        return
    _tables("USD for a million tokens", entries, prices)
    for source in sorted({price.source for price in entries.values() if price.source}):
        console.say(f"from {source}")
    for said in table.warnings(prices, entries, table.today()):
        console.say(f"note: {said}")


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A file of prices.", show_default="your own")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """What a file of prices says, with its faults by line. Exit 1 where it has some, or names a model that is gone."""
    from preceptor.judge.asking import prices as table
    from preceptor.judge.asking.price_file import read_file
    from preceptor.judge.user_prices import place

    path = file or place()
    if file is None and not path.is_file():
        console.say(f"there is no file of prices; `preceptor prices add` makes {path}")
        if as_json:
            console.result({"path": str(path), "ok": True, "prices": {}, "faults": [], "warnings": []})
        return
    found = read_file(path)
    faults, warnings = table.remarks(found, table.today())
    if as_json:
        shown = {
            name: entry.price.model_dump(mode="json", exclude_none=True)
            for name, entry in found.entries.items()
        }
        told = {"path": str(path), "ok": not faults, "prices": shown, "faults": faults, "warnings": warnings}
        console.result(told)
    else:
        entries = {name: entry.price for name, entry in found.entries.items()}
        _tables(f"{path}: USD for a million tokens", entries, table.Prices.load(entries))
        for line in [*faults, *(f"note: {one}" for one in warnings)]:
            console.show(line)
        console.say(f"{path}: {len(found.entries)} prices, {len(faults)} faults, {len(warnings)} notes")
    if faults:
        raise typer.Exit(1)


@app.command()
@with_flags
def add(
    model: Annotated[str, typer.Argument(help="provider/model, such as openai/my-model.")],
    price: Annotated[Price, Flags("Price", names={"long": "--long"})],
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="PATH", help="The file of prices; else your own, which is made."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", metavar="", help="Write over the model's entry, where there is one.")
    ] = False,
) -> None:
    """Write a model's price into a file; everything else in the file stays as it is."""
    from preceptor.judge.asking import prices as table
    from preceptor.judge.asking.price_file import add as write
    from preceptor.judge.models import registry
    from preceptor.judge.user_prices import place

    said = {name: value for name, value in given(price).items() if value not in ("", ())}
    if price.long:
        said["long"] = [tier.model_dump(exclude_none=True) for tier in price.long]
    path = file or place()
    write(path, model, {**said, "dated": price.dated or str(table.today())}, replace=replace)
    if registry.find(model) is None:
        console.say(f"note: no provider here answers to {model}; the price is written down all the same")
    console.show(str(path))


def _batch(prices: Any, name: str) -> dict[str, float] | None:
    """What a million tokens cost in a batch; None: there is none to be had."""
    if prices.batch_worst(name, 1, 1) is None:
        return None
    batched = prices.in_batches().price(name)
    return {"input": batched.input, "output": batched.output}


def _tables(title: str, entries: Mapping[str, Price], prices: Any) -> None:
    rows = [row for name, price in entries.items() for row in _rows(name, price, prices)]
    console.table(title, PRICES, rows)
    days = [
        [name, price.dated or "–", price.shutdown or "–", price.successor or "–"]
        for name, price in entries.items()
    ]
    console.table("when it was checked, and when the model goes", DAYS, days)


def _rows(name: str, price: Price, prices: Any) -> list[list[str]]:
    """A line for a model, and one for each of its tiers."""
    batch = _batch(prices, name) or {}
    ways = (_pair(batch.get("input"), batch.get("output")), _pair(price.flex_input, price.flex_output))
    tiers = [[f"  above {tier.above:,}", *_figures(tier), "", ""] for tier in price.long]
    return [[name, *_figures(price), *ways], *tiers]


def _figures(price: Price | LongPrice) -> list[str]:
    write = (
        _pair(price.cache_write, price.cache_write_long)
        if price.cache_write_long
        else _usd(price.cache_write)
    )
    return [_usd(price.input), _usd(price.cached_input), write, _usd(price.output)]


def _pair(*usd: float | None) -> str:
    return "–" if None in usd else "/".join(map(_usd, usd))


def _usd(usd: float | None) -> str:
    return "–" if usd is None else f"{usd:.10g}"
