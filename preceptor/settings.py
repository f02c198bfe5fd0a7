"""How models are reached and asked, and the forms in which a person writes it: flags and run files read the same.

Without the libraries that asking takes, so that a command line can show these settings.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, PrivateAttr, model_validator

from preceptor.constitution.errors import UserError
from preceptor.constitution.outputs import refuse_output_in
from preceptor.judge.settings import CHECKS as CHECKS
from preceptor.judge.settings import Price, price_from
from preceptor.prompts.records import Settings
from preceptor.prompts.secrets import shown_address

if TYPE_CHECKING:
    from preceptor.judge.asking.fanout import Limits
    from preceptor.judge.asking.prices import Prices
    from preceptor.judge.models.protocol import Model


def _urls(given: Any) -> Any:
    """One URL, `[MODEL=]URL` several times, or a mapping -> server by model's name; `""`: of all others."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    urls = {}
    for text in [given] if isinstance(given, str) else given:
        name, _, url = text.partition("=")
        # an address is known by its scheme: an equals sign may stand in one as well, and in what was meant to be one
        named = SCHEME.match(url) is not None and SCHEME.match(text) is None
        urls[name if named else ""] = url if named else text
    return urls


def _plain_urls(urls: Mapping[str, str]) -> Any:
    """As they are written down: what is secret in them stays with the client."""
    shown = {name: shown_address(url) for name, url in urls.items()}
    return shown.get("") if set(shown) <= {""} else shown


def _prices(given: Any) -> Any:
    """`[MODEL=]IN,OUT` several times, or a mapping -> price by model's name; `""`: of all others."""
    if isinstance(given, str):
        return dict([price_from(given)])
    return given if isinstance(given, Mapping) else dict(map(price_from, given or ()))


def _share(given: Any) -> Any:
    """2% or 0.02 -> 0.02."""
    if not isinstance(given, str):
        return given
    try:
        return float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
    except ValueError:
        raise ValueError("wanted a share such as 2% or 0.02") from None


log = logging.getLogger(__name__)
SCHEME = re.compile(r"\s*[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
"""How an address begins, also one with a slash too few; a model's name has no colon before a slash of its own."""

BaseUrls = Annotated[dict[str, str], BeforeValidator(_urls), PlainSerializer(_plain_urls)]
PriceList = Annotated[dict[str, Price], BeforeValidator(_prices)]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)]


DEFAULT_LEDGER = ".preceptor/ledger.db"
"""The ledger of whatever is asked in a working directory, unless another is named."""


class Cluster(Settings):
    """Where the work is done if not in this process: by Ray's workers, on this machine or on many."""

    address: str | None = None
    gpus: float = Field(default=0.0, ge=0)
    workers: int | None = Field(default=None, gt=0)


class Access(Settings):
    """How models are reached: over a network, or in this process."""

    base_url: BaseUrls = Field(default_factory=dict)
    """A compatible server (vLLM, Ollama, llama.cpp, TGI) for every model over a network, or for one."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that one call may take; else as the provider's own."""
    flex: bool = False
    """Ask OpenAI at its flex tier: half the price, and slower."""
    dtype: str | None = None
    """Of a local model's weights: float32, bfloat16, float16, auto."""
    device_map: str | None = None
    """Where a local model's layers lie: auto spreads them."""
    four_bit: bool = False
    """A local model's weights in four bits; needs CUDA."""

    _planned: bool = PrivateAttr(default=False)

    def planning(self) -> Self:
        """The same for a plan, which asks nobody: models open where their key is not set."""
        copy = self.model_copy()
        copy._planned = True
        return copy

    @property
    def local(self) -> dict[str, Any]:
        """The placement of models in this process; only what was given."""
        wanted = {"dtype": self.dtype, "device_map": self.device_map, "four_bit": self.four_bit or None}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def access(self) -> Access:
        """This part alone, which is all that an opened model depends on."""
        part = Access(**{name: getattr(self, name) for name in Access.model_fields})
        return part.planning() if self._planned else part

    def open(self, name: str) -> Model:
        """A model: one over a network at its server, one in this process where it is to be placed."""
        from preceptor.judge.models.registry import open_model

        if not over_a_network(name):
            refuse_output_in(name.partition("/")[2])
            return open_model(
                name, base_url=self.base_url.get(name), **(self.local if in_this_process(name) else {})
            )
        url = self.base_url.get(name, self.base_url.get(""))
        tier = {"flex": True} if self.flex and has_flex(name) else {}
        return open_model(name, base_url=url, timeout_s=self.timeout_s, planned=self._planned, **tier)

    def open_judge(self, name: str) -> Model | None:
        """The judge's model; None for `checks`, which asks nobody."""
        return None if name == CHECKS else self.open(name)

    def require(self, names: Iterable[str], effort: str | None) -> None:
        """`require_use` and `require_effort`."""
        named = list(names)
        self.require_use(named)
        self.require_effort(named, effort)

    def require_use(self, names: Iterable[str]) -> None:
        """Raise UserError where none of these models has a use for what was said of servers or placement."""
        asked = [name for name in names if name != CHECKS]
        away = [name for name in asked if over_a_network(name)]
        joined = ", ".join(asked)
        if asked and not any(map(in_this_process, asked)) and (idle := self.local):
            flags = " and ".join(
                f"--{'4bit' if one == 'four_bit' else one.replace('_', '-')}" for one in idle
            )
            raise UserError(
                f"{joined} does not take {flags}, for models in this process; leave out what is not for it"
            )
        if asked and not away and (self.base_url or self.timeout_s is not None):
            flag = "--base-url" if self.base_url else "--timeout"
            raise UserError(
                f"{joined} does not take {flag}, for models over a network; leave out what is not for it"
            )
        if asked and self.flex and not any(map(has_flex, asked)):
            raise UserError(f"{joined} has no flex tier; leave out --flex")

    def require_effort(self, names: Iterable[str], effort: str | None) -> None:
        """Where an effort is wished: raise UserError where it has an effect on none of these models, and warn of those
        on which it has none, or another."""
        from preceptor.judge.models.effort import nearest
        from preceptor.judge.models.registry import declared

        asked = list(dict.fromkeys(names))
        if effort is None or not asked:
            return
        idle = [name for name in asked if name == CHECKS or not declared(name).takes_effort]
        if len(idle) == len(asked):
            raise UserError(
                f"{', '.join(asked)} does not take an effort ({effort}), for models behind an address; "
                "leave out --effort"
            )
        if idle:
            log.warning("the effort %s has no effect on %s", effort, ", ".join(idle))
        for name in asked:
            own_address = not self.base_url.get(name, self.base_url.get(""))
            profile = declared(name).profile_of(name) if own_address else None
            if profile is not None and effort not in profile.efforts:
                log.warning(
                    "%s takes no effort %s: %s is asked for, of %s",
                    *(name, effort, nearest(profile, effort), ", ".join(profile.efforts)),
                )


def in_this_process(name: str) -> bool:
    """Whether the weights of a model of this name lie here."""
    from preceptor.judge.models.registry import declared

    return declared(name).loads_weights


def over_a_network(name: str) -> bool:
    """Whether a model of this name is reached at an address."""
    from preceptor.judge.models.registry import declared

    return declared(name).takes_address


def has_flex(name: str) -> bool:
    """Whether a model of this name can be asked at a cheaper and slower tier of service."""
    from preceptor.judge.models.registry import declared

    return declared(name).flex


class AskSettings(Access):
    """How models are asked, and where that is done."""

    concurrency: int = Field(default=16, gt=0)
    """Calls in flight at once."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """USD that may be spent; at the cap the work stops, and what is done stays."""
    rpm: float | None = Field(default=None, gt=0)
    """Requests a minute to one model, at most; else as the provider says."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens a minute to one model, in and out, at most; else as the provider says."""
    prices: PriceList = Field(default_factory=dict)
    """USD for a million tokens, over the price table and your own file: 0.25,2."""
    batch: bool = False
    """Ask OpenAI and Anthropic in batches: half the price, within a day."""
    then_sync: bool = False
    """Ask in a batch once, and directly what it did not answer."""
    engine: Literal["local", "ray"] = "local"
    """local: this process; ray: the workers of a Ray cluster."""
    address: str | None = None
    """With --engine ray: the cluster's address, or `auto`; else Ray is started here."""
    gpus: float | None = Field(default=None, ge=0)
    """With --engine ray: GPUs of each worker; 0.5 shares one."""
    workers: int | None = Field(default=None, gt=0)
    """With --engine ray: how many; else one a machine, or as --gpus allows."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Raise UserError for what belongs to another way of asking."""
        if self.engine == "local":
            for name in ("address", "gpus", "workers"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name} is for --engine ray; add that, or leave it out")
        elif self.in_batches:
            raise UserError("--batch asks from this machine, once for all rows; leave out --engine ray")
        if self.flex and self.in_batches:
            raise UserError("--flex and --batch are two ways to half the price; leave one of them out")
        if self.gpus is not None and self.gpus > 1 and not self.gpus.is_integer():
            raise UserError(f"--gpus is {self.gpus:g}; wanted a share up to 1, or a whole number")
        return self

    @property
    def in_batches(self) -> bool:
        """Whether the providers' batch APIs are used, where there are any."""
        return self.batch or self.then_sync

    @property
    def cluster(self) -> Cluster | None:
        """None: everything is done in this process."""
        if self.engine == "local":
            return None
        return Cluster(address=self.address, gpus=self.gpus or 0.0, workers=self.workers)

    @property
    def limits(self) -> Limits:
        """As a fan-out takes them."""
        from preceptor.judge.asking.fanout import Limits

        return Limits(
            concurrency=self.concurrency,
            max_cost_usd=self.max_cost_usd,
            rpm=self.rpm,
            tpm=self.tpm,
        )

    @property
    def price_table(self) -> Prices:
        """The shipped prices, the user's file over them, and the command's own over that."""
        from preceptor.judge.asking.prices import Prices
        from preceptor.judge.user_prices import user_prices

        return Prices.load({**user_prices(), **self.prices})

    def require_live(self, names: Iterable[str]) -> None:
        """Raises RetiredModel where one of these models is gone, and as opening them does."""
        import asyncio

        from preceptor.judge.asking import prices

        models = [self.open(name) for name in names if name != CHECKS and over_a_network(name)]
        try:
            prices.require_live(self.price_table, models, prices.today())
        finally:
            for model in models:
                asyncio.run(model.close())

    def directly(self) -> Self:
        """The same from this process and at once, for whoever waits for the answer."""
        return self.model_copy(update={"batch": False, "then_sync": False, "engine": "local"})

    def less(self, spent_usd: float) -> Self:
        """The same under what is left of the cap."""
        from preceptor.judge.asking.budget import left_usd

        return self.model_copy(update={"max_cost_usd": left_usd(self.max_cost_usd, spent_usd)})


class Asking(AskSettings):
    """How a command asks its models, and the ledger over which."""

    ledger: str = DEFAULT_LEDGER
    """The ledger of calls: a file or a database URL."""


class ProbeSettings(Settings):
    """Which probes, and how many."""

    set: Literal["general", "embedded"] | None = None
    """Which probes; else `embedded` for the baseline of that name, and `general` for others."""
    size: int = Field(default=24, ge=2)
    """Probes of each kind, and passages, at most.

    With fewer only great changes can be told from chance.
    """
    samples: int = Field(default=2, ge=1)
    """Replies to each open prompt; to all others one."""


class RatingOptions(Settings):
    """Scoring by a reward model."""

    reward_model: Path | None = None
    """Instead of a judge: the folder of a trained reward model."""
    weight: tuple[str, ...] = ()
    """With --reward-model per principle: PRINCIPLE=NUMBER, another weight."""
    disagreement: Path | None = None
    """With an ensemble: write the pairs most worth a label here, for `label`."""
    most: int = Field(default=100, gt=0)
    """Pairs in --disagreement."""
    batch_size: int = Field(default=16, gt=0)
    """Replies through a reward model at a time; no score depends on it."""

    def require_none(self) -> None:
        """Raise UserError for what has no effect on a judge."""
        if self.weight or self.disagreement:
            raise UserError("--weight and --disagreement are for --reward-model")
