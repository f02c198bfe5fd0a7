"""Settings of whatever a model is asked, each with its one default; without the libraries that asking takes, so that a
command line can show them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preceptor.constitution.errors import UserError
from preceptor.judge.groupings import GROUPINGS, PairGrouping, ScoreGrouping
from preceptor.prompts.records import Record, Settings

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model thinks, from nothing to the most."""
CHECKS = "checks"
"""The judge that is no model: the constitution's own machine checks."""

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
    """Equal seeds give equal results."""
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
    """Equal seeds give equal results."""


def _bounds(given: Any) -> Any:
    """`0.4,0.6` as two numbers."""
    if not isinstance(given, str):
        return given
    try:
        low, high = (float(bound) for bound in given.split(","))
    except ValueError:
        raise ValueError("wanted two numbers: 0.4,0.6") from None
    return low, high


class LabelSettings(Settings):
    """How pairs are judged."""

    principles: PairGrouping = "joint"
    """joint: all that apply in one ask; each: one ask a principle; sample: some drawn for each pair."""
    orders: Literal["both", "original", "one"] = "both"
    """`one`: the order in which a pair is shown is drawn by its id."""
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
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer of the judge."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results."""
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
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer of the judge."""
    effort: Effort | None = None
    """How much the model thinks before it answers, where it can; else as little as suits."""
    seed: int = 0
    """Equal seeds give equal results."""
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


class Price(Record):
    """USD for a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input that came from the provider's prompt cache; None: as `input`."""
    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input that was written to the prompt cache; None: as `input`."""
    batch_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Input through the provider's batch API; None: by the provider's discount, where it has one."""
    batch_output: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    long: LongPrice | None = None
    """Of calls with a long prompt, where those cost more."""
    shutdown: str = ""
    """Day on which the model is gone, YYYY-MM-DD; empty: none is announced."""
    dated: str = ""
    """Day on which it was last checked, YYYY-MM-DD."""
    source: str = ""
    """Where it was taken from."""


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
