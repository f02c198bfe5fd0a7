"""Settings of whatever a model is asked, each with its one default; without the libraries that asking takes, so that a
command line can show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from preceptor.constitution.errors import UserError
from preceptor.judge.groupings import GROUPINGS, PairGrouping, ScoreGrouping
from preceptor.prompts.records import Record, Settings

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model thinks, from nothing to the most."""
CHECKS = "checks"
"""The judge that is no model: the constitution's own machine checks."""

Perturbation = Literal["options", "principles", "words"]
"""What of the form of an ask is changed: the order of the verdicts on offer, that of the principles, or the verdicts'
words."""
Combine = Literal["mean", "majority", "dawid-skene"]
"""How a panel's votes add up."""
Schedule = Literal["all", "circular", "swiss"]
"""Which of the replies to a prompt are compared."""
RankingPairing = Literal["best-worst", "adjacent", "all"]
"""Which of the ranked replies become preferences."""


class RespondSettings(Settings):
    """How replies are sampled."""

    samples: int = Field(default=4, ge=1, le=100_000)
    """Replies to each prompt."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest reply."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability from which a token is drawn."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""
    system: str = ""
    """System message for prompts that bring none of their own."""


class ReviseSettings(Settings):
    """How replies are criticised and repaired."""

    rounds: int = Field(default=2, ge=1)
    """Critiques and revisions of each reply."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest critique, and longest revised reply."""
    temperature: float = Field(default=0.7, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability from which a token is drawn."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""


def _bounds(given: Any) -> Any:
    """`0.4,0.6` as two numbers."""
    if not isinstance(given, str):
        return given
    try:
        low, high = (float(bound) for bound in given.split(","))
    except ValueError:
        raise ValueError("wanted two numbers: 0.4,0.6") from None
    return low, high


ANSWER_TOKENS = 512
"""Longest answer of a judge where nothing is said."""


class LabelSettings(Settings):
    """How pairs are judged."""

    principles: PairGrouping = "joint"
    """joint: all that apply in one ask; each: one ask a principle; sample: some drawn for each pair."""
    orders: Literal["both", "original", "one", "none"] = "both"
    """Which reply is shown first: each once; a; one drawn by the pair's id; or none.

    none: a judge in this process reads both replies side by side, and whoever cannot is asked in both orders.
    """
    reasoning: bool = False
    """The judge may reason before its verdict.

    Without, the probability of the verdict is read directly.
    """
    tie: bool = False
    """The judge may say that neither is better."""
    draws: int = Field(default=1, ge=1)
    """With `sample`: how many principles are drawn for a pair, whose verdicts are averaged."""
    shots: int = Field(default=0, ge=0)
    """Worked examples that each principle brings into an ask, at most."""
    structured: bool = False
    """Have the provider hold the answer to a JSON schema."""
    clamp: Annotated[tuple[float, float] | None, BeforeValidator(_bounds)] = None
    """Bounds of a probability that was given after reasoning: 0.4,0.6."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer of the judge; else 512, and a few where OpenAI's protocol is asked for a verdict alone."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""
    sample: int = 0
    """Another number asks the same judge the same again, past what the ledger holds."""
    template: str = ""
    """A judge template of your own, a .jinja file; else the shipped one in the judge's dialect."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.draws > 1 and "draws" not in GROUPINGS[self.principles].options:
            raise ValueError(
                f"draws is {self.draws} with principles {self.principles}; draws are for `sample`"
            )
        if self.orders == "none" and (self.reasoning or self.structured):
            raise ValueError(
                "orders none reads a verdict and writes no words: leave out reasoning and structured"
            )
        if self.clamp is not None:
            if not 0 <= self.clamp[0] < 0.5 < self.clamp[1] <= 1:
                raise ValueError(f"clamp is {self.clamp}; wanted two bounds with 0.5 between them: 0.4,0.6")
            if not self.reasoning:
                raise ValueError("clamp without reasoning; it bounds what a judge says after it has reasoned")
        return self


class ScoreSettings(Settings):
    """How replies are graded."""

    principles: ScoreGrouping = "joint"
    """joint: all that apply in one ask; each: one ask a principle."""
    reasoning: bool = False
    """The judge may reason before its verdict."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer of the judge; else 512, and a few where OpenAI's protocol is asked for a verdict alone."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results on one machine."""
    sample: int = 0
    """Another number asks the same judge the same again, past what the ledger holds."""
    template: str = ""
    """A judge template of your own, a .jinja file; else the shipped one in the judge's dialect."""


class LongPrice(Record):
    """USD for a million tokens of a call whose prompt is long: all of its tokens cost this."""

    above: int = Field(gt=0)
    """Tokens of a prompt beyond which it holds."""
    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cache_write_long: float | None = Field(default=None, ge=0, allow_inf_nan=False)


def _several(given: Any) -> Any:
    """One tier alone as a list of it, each as a person writes it or as a mapping."""
    tiers = [given] if isinstance(given, Mapping | LongPrice | str) else given
    if not isinstance(tiers, list | tuple):
        return tiers
    return [
        dict(part.partition("=")[::2] for part in tier.split(",")) if isinstance(tier, str) else tier
        for tier in tiers
    ]


def _ascending(tiers: tuple[LongPrice, ...]) -> tuple[LongPrice, ...]:
    return tuple(sorted(tiers, key=lambda tier: tier.above))


def _a_day(text: str) -> str:
    if text:
        try:
            date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no day; wanted YYYY-MM-DD") from None
    return text


Day = Annotated[str, AfterValidator(_a_day)]


class Price(Settings):
    """USD for a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of the prompt."""
    output: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of the reply, what the model thinks among them."""
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input that came from the provider's prompt cache; else as fresh input."""
    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input that was written to the prompt cache for its shorter lifetime, which is Anthropic's five minutes and
    OpenAI's thirty; else as fresh input."""
    cache_write_long: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input that was written for the longer lifetime, which is Anthropic's hour and OpenAI's twelve; else as
    for the shorter."""
    batch_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input through the provider's batch API; else by the provider's discount, where it has one."""
    batch_output: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Output through the provider's batch API."""
    flex_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input at the provider's flex tier, which is cheaper and slower; absent: it has none for this model."""
    flex_output: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Output at the flex tier."""
    long: Annotated[tuple[LongPrice, ...], BeforeValidator(_several), AfterValidator(_ascending)] = ()
    """Of calls with a long prompt, where those cost more, one tier or several: above=272000,input=0.2,output=0.75."""
    shutdown: Day = ""
    """Day on which the model is gone, YYYY-MM-DD; empty: none is announced."""
    successor: str = ""
    """The model that its provider names in its place, without the provider's name."""
    dated: Day = ""
    """Day on which it was last checked, YYYY-MM-DD."""
    source: str = ""
    """Where it was taken from."""

    @model_validator(mode="after")
    def _whole_flex(self) -> Self:
        if (self.flex_input is None) is not (self.flex_output is None):
            raise ValueError("flex_input and flex_output go together; give both or neither")
        return self

    def gone(self, day: date) -> bool:
        """Whether the model was shut down by then."""
        return bool(self.shutdown) and date.fromisoformat(self.shutdown) <= day

    def tier(self, tokens_in: int) -> Price:
        """The price of a call with a prompt of so many tokens."""
        longest = next((one for one in reversed(self.long) if tokens_in > one.above), None)
        return self if longest is None else self.model_copy(update=longest.model_dump(exclude={"above"}))

    def scaled(self, in_share: float, out_share: float) -> Price:
        """The same with input of every kind, and output, times these shares, in every tier."""
        shares = dict.fromkeys(INPUTS, in_share) | {"output": out_share}

        def times(price: Price | LongPrice) -> dict[str, float | None]:
            return {
                name: None if (usd := getattr(price, name)) is None else usd * share
                for name, share in shares.items()
            }

        tiers = tuple(tier.model_copy(update=times(tier)) for tier in self.long)
        return self.model_copy(update={**times(self), "long": tiers})

    @property
    def flex(self) -> Price | None:
        """The price at the flex tier; None: there is none. What comes from the cache is as much cheaper as what does
        not."""
        if self.flex_input is None or self.flex_output is None:
            return None
        scaled = self.scaled(_share(self.flex_input, self.input), _share(self.flex_output, self.output))
        return scaled.model_copy(update={"input": self.flex_input, "output": self.flex_output})

    @property
    def dearest_input(self) -> float:
        """What a token of the prompt costs at most; the cache's longer lifetime is never asked for."""
        return max(self.input, self.cache_write or 0.0)


INPUTS = ("input", "cached_input", "cache_write", "cache_write_long")
"""Fields of a price that are for tokens of the prompt."""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def price_from(text: str) -> tuple[str, Price]:
    """(model, price) of `[MODEL=]IN,OUT`, in USD for a million tokens; no model: every one that is asked. Raises
    UserError."""
    name, _, numbers = text.rpartition("=")
    try:
        each_in, each_out = (float(number) for number in numbers.split(","))
        return name, Price(input=each_in, output=each_out, source="--price")
    except ValueError as exc:  # pydantic's ValidationError is one
        raise UserError(
            f"--price is {text!r}; wanted USD for a million tokens in and out, such as 0.25,2 or "
            "openai/my-model=0.25,2"
        ) from exc
