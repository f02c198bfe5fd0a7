"""The seam: Request -> Completion, for every model whatever its provider.

A Model answers one request or raises one of the errors in `judge.errors`; it neither retries nor caches nor counts
money. Retries, rate limits and the budget are `judge.asking.fanout`'s, the cache and the bill are
`judge.ledger.ledger`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from pydantic import Field

from preceptor.prompts.records import Message, Record, canonical_json

NOT_IN_KEY = frozenset({"stage", "principle"})
"""Fields of a request that cannot change its answer. Any field that is not named here counts."""

WEIGHTS = "weights:"
"""Begins the endpoint of a model in this process; the hash of its weights follows."""

FinishReason = Literal["stop", "length", "refused", "cut"]


class ModelName(NamedTuple):
    """`provider/model`, as users name models."""

    provider: str
    model: str
    """In the provider's own words; empty where the provider's name is the model's."""

    @classmethod
    def of(cls, name: str) -> ModelName:
        """The parts of a name; the model's own may hold further slashes."""
        provider, _, model = name.partition("/")
        return cls(provider, model)


class SideBySide(Record):
    """Two replies that are read apart from one another, neither of them first."""

    mark: str
    """Stands in one of the request's messages, once, where the replies belong."""
    replies: tuple[str, str]
    """With what frames them."""
    names: tuple[str, str]
    """What stands behind a reply that is called by the menu's `a`, and by its `b`. Each reply is called by both in
    turn; in the answer `a` is the first reply and `b` the second."""


class Request(Record):
    """Everything that is asked of a model, and so everything that the answer can depend on."""

    model: str
    """`provider/model` as the user named it."""
    endpoint: str = ""
    """Base URL where it is not the provider's own; `weights:` and a hash for a model in this process."""
    messages: tuple[Message, ...]
    max_tokens: int = Field(gt=0)
    """Longest reply, in the model's tokens."""
    own_limit: bool = False
    """Whether `max_tokens` is the user's own word, which nothing shortens."""
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    sample: int = 0
    """Number of the sample; two samples of one prompt are two requests."""
    seed: int = 0
    menu: dict[str, str] = Field(default_factory=dict)
    """Verdict letter (`a`, `b`, `tie`) -> the words that give it; empty where free text is wanted."""
    reasoning: bool = True
    """With a menu: whether words may come before the verdict. Where not, the verdict is read from its tokens."""
    structured: bool = False
    """With a menu: whether the provider is to hold the reply to a JSON schema that ends with the verdict."""
    side_by_side: SideBySide | None = None
    """With a menu and without reasoning: replies that the messages do not hold. Only for a model of that capability."""
    effort: str = ""
    """How much the model is to think before it answers, one of `effort.LEVELS`; empty: as suits the request."""
    stage: str = ""
    """What the call is for (respond, critique, revise, label): for the bill only."""
    principle: str = ""
    """Which principle the call is about: for the bill only."""

    @cached_property
    def key(self) -> str:
        """Identity in the ledger: SHA-256 over all fields but those of `NOT_IN_KEY`, 32 hex digits.

        Fields at their defaults are left out, so that a field that is added later changes no old identity. A
        local model is what its weights are, wherever they lie: where `endpoint` is their hash, the name is left
        out.
        """
        unnamed = {"model"} if self.endpoint.startswith(WEIGHTS) else set()
        fields = self.model_dump(mode="json", exclude=set(NOT_IN_KEY | unnamed), exclude_defaults=True)
        return hashlib.sha256(canonical_json(fields).encode()).hexdigest()[:32]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which has a key of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied


class Completion(Record):
    """What came back."""

    text: str
    """The answer alone."""
    thoughts: str = ""
    """What the model thought before it answered, as far as the provider shows it; never judged or learned from."""
    finish_reason: FinishReason
    """`length`: cut off at max_tokens. `refused`: the provider says that the model declined or filtered. `cut`:
    broken off for another reason."""
    finish_word: str = ""
    """The provider's own word for how it ended; empty where it ended well."""
    probabilities: dict[str, float] | None = None
    """Menu letter -> probability at the place of the verdict, summing to 1 over the menu; None: not given."""
    served_by: str = ""
    """The model's name in the provider's own words."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    """Part of `tokens_in` that the provider read from its prompt cache."""
    tokens_cache_written: int = 0
    """Part of `tokens_in` that the provider wrote to its prompt cache, for whatever lifetime."""
    tokens_cache_written_long: int = 0
    """Part of `tokens_cache_written` that is kept for the longer lifetime, such as an hour."""
    tier: str = ""
    """The provider's word for the tier of service that it gave, such as `flex`; empty: the standard one, or no word."""
    usage: Literal["reported", "estimated"] = "reported"
    """Whether the provider counted the tokens, or they are an estimate because it did not."""


class Failure(Record):
    """A request that ended without an answer, after all that fanout could do: for this row only."""

    kind: Literal["refused", "failed"]
    problem: str
    """The provider's words."""


Outcome = Completion | Failure

RowT = TypeVar("RowT")
Dialogue = Generator[Sequence[Request], Sequence[Outcome], RowT]
"""How a stage makes one row: it yields requests that may be asked at once, is sent their outcomes in the same order,
and returns the row. It does no I/O, so that it is tested without a model; `judge.asking.fanout` carries it out."""


OnHeaders = Callable[[Mapping[str, str]], None]
"""Is given the rate-limit headers of a reply, names in lower case."""


class Capabilities(Record):
    """What a model can do beside answering in words; whoever wants one of these looks here."""

    logprobs: bool = False
    """It gives the probabilities of its tokens, from which those of a verdict are read."""
    structured: bool = False
    """It can hold a reply to a JSON schema."""
    batches: bool = False
    """Its provider declares `open_batches`, which takes many of its requests at once and answers within a day."""
    queueing: bool = False
    """It takes any number of requests and batches them itself; there is no deadline for its answers."""
    side_by_side: bool = False
    """It reads two replies side by side (`Request.side_by_side`)."""
    person: bool = False
    """A person: asked in one order, about all principles at once, with a tie on offer."""
    headers: bool = False
    """Its replies come with headers that may tell its rate limits; it satisfies `TellsLimits`."""


class Model(Protocol):
    """Whoever answers requests."""

    name: str
    """`provider/model`."""
    endpoint: str
    dialect: str
    """Folder of `prompts/templates` whose wording the model reads; empty for the general one."""
    capabilities: Capabilities

    async def complete(self, request: Request) -> Completion:
        """Answer one request, or raise a `judge.errors.ModelError`."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...


@runtime_checkable
class TellsLimits(Protocol):
    """A Model with the capability `headers`: its replies say how much may still be sent."""

    async def complete_with_headers(self, request: Request, on_headers: OnHeaders) -> Completion:
        """As `complete`; the rate-limit headers of every reply to this request, errors too, go to `on_headers`."""
        ...


class TokenLogprob(NamedTuple):
    """A token that could have come next."""

    text: str
    """What it adds to the reply; with U+FFFD where it is only a part of a character."""
    logprob: float
    """Natural logarithm of its probability at temperature 1."""


class WrittenToken(NamedTuple):
    """A token of a reply as it is written."""

    reply: str
    """The whole reply so far, this token included."""
    text: str
    """As in `TokenLogprob`."""
    logprob: float | None
    """As in `TokenLogprob`; None: nobody asked for it."""
    top: tuple[TokenLogprob, ...]
    """The likeliest tokens at this place, likeliest first."""


class Listener(NamedTuple):
    """Whoever wants to know of a reply's tokens as they are written."""

    heard: Callable[[WrittenToken], bool]
    """Is told of each in the model's own thread, must not wait or raise, and says whether the reply is to go on."""
    top: int | None = None
    """How many likely tokens are wanted at each place; None: no log-probabilities at all."""


@runtime_checkable
class WritesAloud(Protocol):
    """A Model that tells of each token while it writes."""

    async def write(self, request: Request, listener: Listener) -> Completion:
        """As `complete`, of a request without a menu. A reply that the listener ended has stopped."""
        ...


@runtime_checkable
class KnowsRoom(Protocol):
    """A Model that learns how long its replies may become, such as one that turns out to think before it answers."""

    def billed_tokens(self, request: Request) -> int:
        """The most tokens that a reply can be billed for."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A Model that can tell of how many tokens requests are before it is loaded."""

    def count_tokens(self, requests: Sequence[Request]) -> list[int] | None:
        """Of each, 0 for one that it could not be asked; None: its tokenizer is not at hand."""
        ...


class ListedModel(NamedTuple):
    """A model as its server's own list has it. What a list does not say is unknown, and no."""

    name: str
    """In the server's own words."""
    gone_on: str = ""
    """Day on which it is shut down, YYYY-MM-DD; empty: none is announced, or the list says no days."""
    retired: bool = False
    """Whether requests for it fail already."""
    efforts: tuple[str, ...] | None = None
    """Levels of `effort.LEVELS` that it takes; None: the list does not say."""
    structured: bool | None = None
    """Whether it holds a reply to a JSON schema; None: the list does not say."""


@runtime_checkable
class ListsModels(Protocol):
    """A Model whose server says which models it has."""

    async def listed(self) -> list[ListedModel]:
        """All of them. Raises a `judge.errors.ModelError` where the server gives no list."""
        ...


@runtime_checkable
class GivesTime(Protocol):
    """A Model that knows a slow server from one that is gone."""

    @property
    def timeout_s(self) -> float:
        """How long one try may take."""
        ...

    async def gives_time(self) -> bool:
        """After a time-out: whether the server is there and only slow, so that its calls get twice as long from now
        on."""
        ...
