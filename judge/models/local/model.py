"""Models in this process: replies are generated, verdicts are read from one forward pass.

Everything is per row, so that a row's answer does not depend on its batch: padding is on the left with
explicit positions, and a sampled token comes from the row's own random numbers, seeded by the request's key.

torch is imported with the first request.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from preceptor.constitution.foreign import json_in
from preceptor.judge.errors import Rejected
from preceptor.judge.models.local.chat_tokens import (
    Loaded,
    MenuContinuation,
    TokenisedRequest,
    TokenisedSides,
    beside,
    encode,
    followed_by,
    questions,
)
from preceptor.judge.models.local.conversation import UnrenderableError
from preceptor.judge.models.local.loading import (
    BATCH_TOKENS,
    Placement,
    check_path,
    check_placement,
    identity_of,
    load,
    tokenizer_at_hand,
)
from preceptor.judge.models.local.microbatch import Microbatcher
from preceptor.judge.models.local.side_by_side import SidePrompt, evened
from preceptor.judge.models.local.telling import tell
from preceptor.judge.models.protocol import (
    WEIGHTS,
    Capabilities,
    Completion,
    FinishReason,
    Listener,
    ModelName,
    Request,
)
from preceptor.judge.models.verdict_tokens import last_verdict
from preceptor.prompts.manifest import write_json

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MOST_VERDICTS = 512
"""Bare verdicts that are read together."""


class _Asked(NamedTuple):
    """A request, and who listens while it is answered."""

    request: Request
    listener: Listener | None = None


class LocalModel:
    """A transformers checkpoint or PEFT adapter folder behind the seam; satisfies `protocol.Model` and
    `protocol.WritesAloud`."""

    capabilities = Capabilities(logprobs=True, queueing=True, side_by_side=True)
    """It takes any number of requests at once and batches them, so no deadline runs while they wait."""

    def __init__(
        self,
        name: str,
        path: str,
        *,
        dialect: str = "",
        batch_tokens: int = BATCH_TOKENS,
        **placement: Any,
    ) -> None:
        """path: a folder, a GGUF file or a hub id. placement: `loading.Placement`'s fields."""
        check_path(name, path)
        self.name = name
        self._placement = Placement(**placement)
        check_placement(name, self._placement)
        found = identity_of(path)
        # so that the ledger never answers for other weights, nor for these under another template or tokenizer, nor in
        # another precision
        self.endpoint = f"{WEIGHTS}{found[:16]}{self._placement.mark}" if found else ""
        self.dialect = dialect
        self.source = path
        self._batch_tokens = batch_tokens
        self._loaded: Loaded | None = None
        self._batcher: Microbatcher[_Asked, Completion] = Microbatcher(self._choose, self._answer)

    async def complete(self, request: Request) -> Completion:
        """Wait for the request's turn in a batch.

        Raises Rejected where the conversation is longer than the model reads, UserError where the checkpoint
        cannot be loaded.
        """
        return await self._batcher.ask(_Asked(request))

    async def write(self, request: Request, listener: Listener) -> Completion:
        """As `complete`, and told of token by token; the reply is the same."""
        return await self._batcher.ask(_Asked(request, listener))

    def count_tokens(self, requests: Sequence[Request]) -> list[int] | None:
        """Of each, by the tokenizer alone; None where that is not at hand."""
        tokenizer = tokenizer_at_hand(self.source)
        if tokenizer is None:
            return None
        alone: Any = None
        loaded = Loaded(alone, tokenizer, frozenset({tokenizer.eos_token_id} - {None}), 0, alone)
        asks = _encoded(loaded, requests)
        return [0 if isinstance(ask, UnrenderableError) else _size(ask) for ask in asks]

    async def close(self) -> None:
        """End the worker and let go of the weights."""
        await self._batcher.close()
        self._loaded = None

    def _choose(self, asked: Sequence[_Asked]) -> Sequence[int]:
        """The oldest request and those that go well with it.

        Bare verdicts go together as far as `MOST_VERDICTS`, because those about one pair share its tokens and what
        they come to is seen only in tokens (`judge.models.local.prefix_passes`). Replies go with those most like them
        in length.
        """
        waiting = [one.request for one in asked]
        kind = _is_direct(waiting[0])
        alike = [index for index, request in enumerate(waiting) if _is_direct(request) == kind]
        if kind:
            return alike[:MOST_VERDICTS]
        alike.sort(key=lambda index: _characters(waiting[index]), reverse=True)
        chosen: list[int] = []
        widest = 0
        for index in alike:
            widest = max(widest, _characters(waiting[index]) // 3 + waiting[index].max_tokens)
            if chosen and widest * (len(chosen) + 1) > self._batch_tokens:
                break
            chosen.append(index)
        return chosen

    def _answer(self, asked: Sequence[_Asked]) -> Sequence[Completion | Exception]:
        import torch

        requests = [one.request for one in asked]
        if self._loaded is None:
            self._loaded = load(self.name, self.source, self._placement, self._batch_tokens)
        loaded = self._loaded
        answers: list[Completion | Exception] = [
            Rejected(f"{self.name} reads at most {loaded.context - 1} tokens; this conversation is longer")
        ] * len(requests)
        asks: dict[int, TokenisedRequest] = {}
        sides: dict[int, TokenisedSides] = {}
        for index, ask in enumerate(_encoded(loaded, requests)):
            if isinstance(ask, UnrenderableError):  # of this conversation alone; the others are answered
                answers[index] = Rejected(f"{self.name}: {ask}")
            elif isinstance(ask, TokenisedSides):
                if ask.depth < loaded.context:
                    sides[index] = ask
            elif len(ask.tokens) < loaded.context:
                asks[index] = ask
        with torch.inference_mode():
            direct = [index for index in asks if _is_direct(requests[index])]
            verdicts = choose_verdicts(loaded, [asks[index] for index in direct])
            judged = choose_sides(loaded, [*sides.values()])
            spoken = [index for index in asks if not _is_direct(requests[index])]
            listeners = [asked[index].listener for index in spoken]
            replies = write_replies(loaded, [asks[index] for index in spoken], listeners)
            found = [*verdicts, *judged, *replies]
            for index, one in zip([*direct, *sides, *spoken], found, strict=True):
                answers[index] = one.model_copy(update={"served_by": self.name})
        return answers


def _encoded(
    loaded: Loaded, requests: Sequence[Request]
) -> list[TokenisedRequest | TokenisedSides | UnrenderableError]:
    """Requests in tokens, in the same order; why there are none for one that cannot be written."""
    plain = iter(encode(loaded, [request for request in requests if request.side_by_side is None]))
    made: list[TokenisedRequest | TokenisedSides | UnrenderableError] = []
    for request in requests:
        if request.side_by_side is None:
            made.append(next(plain))
            continue
        try:
            made.append(beside(loaded, request))
        except UnrenderableError as fault:
            made.append(fault)
    return made


def _size(ask: TokenisedRequest | TokenisedSides) -> int:
    """Tokens that are read for a request by itself."""
    return ask.size if isinstance(ask, TokenisedSides) else len(ask.tokens)


def _is_direct(request: Request) -> bool:
    """Whether the verdict is to be read without any words before it."""
    return bool(request.menu) and not request.reasoning


def _characters(request: Request) -> int:
    return sum(len(message.content) for message in request.messages)


class Padded(NamedTuple):
    """Rows of tokens, padded on the left to one width."""

    ids: torch.Tensor
    """(B, T)"""
    mask: torch.Tensor
    """(B, T), 1 where a token is."""
    positions: torch.Tensor
    """(B, T), from 0 at each row's first token."""


def pad_left(loaded: Loaded, rows: Sequence[Sequence[int]]) -> Padded:
    """Rows of different lengths -> one batch on the model's device."""
    import torch

    width = max(map(len, rows))
    device = loaded.model.device
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return Padded(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))


def _logits(loaded: Loaded, padded: Padded, keep: int, cache: Any = None) -> Any:
    """The model's output with logits (B, keep, V) for the last `keep` positions only."""
    return loaded.model(
        input_ids=padded.ids,
        attention_mask=padded.mask,
        position_ids=padded.positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )


def menu_probabilities(loaded: Loaded, asked: Sequence[MenuContinuation]) -> list[dict[str, float]]:
    """Letter -> probability among the menu's options, after the tokens that all options share.

    Where the options differ in their first token, its softmax over the options; where two begin alike, the softmax
    over the summed log-probabilities of the whole options. All questions that begin alike are read in one pass.
    """
    import torch

    prompts: list[tuple[int, ...]] = []
    keep: list[int] = []
    asks: list[tuple[int, str]] = []  # (question, option) of each prompt; no option: all of them at once
    for number, (context, options) in enumerate(asked):
        if len({option[:1] for option in options.values()}) == len(options):
            prompts.append(context)
            keep.append(1)
            asks.append((number, ""))
            continue
        for letter, option in options.items():
            prompts.append(context + option[:-1])
            keep.append(len(option))
            asks.append((number, letter))

    def reduce(prompt: int, logits: torch.Tensor) -> list[float]:
        number, letter = asks[prompt]
        options = asked[number].options
        if not letter:
            return logits[-1, [option[0] for option in options.values()]].tolist()
        tokens = torch.tensor(options[letter], device=logits.device)
        return [float(logits.log_softmax(-1).gather(-1, tokens[:, None]).sum())]

    scores: list[list[float]] = [[] for _ in asked]
    for (number, _), found in zip(asks, loaded.passes.ends(prompts, keep, reduce), strict=True):
        scores[number] += found
    shares = [torch.tensor(row, dtype=torch.float64).softmax(-1).tolist() for row in scores]
    return [dict(zip(one.options, share, strict=True)) for one, share in zip(asked, shares, strict=True)]


def choose_verdicts(loaded: Loaded, asks: Sequence[TokenisedRequest]) -> list[Completion]:
    """The likeliest of the menu's words for each request, nothing generated."""
    if not asks:
        return []
    shares = menu_probabilities(loaded, questions(loaded, [(ask.text, ask.request.menu) for ask in asks]))
    return [
        Completion(
            text=ask.request.menu[max(share, key=share.__getitem__)],
            finish_reason="stop",
            probabilities=share,
            tokens_in=len(ask.tokens),
            tokens_out=1,
        )
        for ask, share in zip(asks, shares, strict=True)
    ]


def side_scores(
    loaded: Loaded, asks: Sequence[TokenisedSides]
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """For each request the options' logits, or log-probabilities where two options begin alike, each up to a constant:
    with the first reply called `a`, and with the first reply called `b`. Only differences within one of them mean
    anything."""
    import torch

    prompts: list[SidePrompt] = []
    keep: list[int] = []
    asked: list[tuple[int, int, str]] = []  # (request, way of naming, option); no option: all of them at once
    for number, ask in enumerate(asks):
        context, options = ask.question
        at_once = len({option[:1] for option in options.values()}) == len(options)
        for way, names in enumerate((ask.names, ask.names[::-1])):
            for letter, option in {"": (0,)}.items() if at_once else options.items():
                prompts.append(SidePrompt(ask.before, ask.replies, names, context + option[:-1]))
                keep.append(len(option))
                asked.append((number, way, letter))

    def reduce(prompt: int, logits: torch.Tensor) -> dict[str, float]:
        number, _, letter = asked[prompt]
        options = asks[number].question.options
        if not letter:
            firsts = logits[-1, [option[0] for option in options.values()]].tolist()
            return dict(zip(options, firsts, strict=True))
        tokens = torch.tensor(options[letter], device=logits.device)
        return {letter: float(logits.log_softmax(-1).gather(-1, tokens[:, None]).sum())}

    scores: list[tuple[dict[str, float], dict[str, float]]] = [({}, {}) for _ in asks]
    for (number, way, _), found in zip(asked, loaded.passes.side_by_side(prompts, keep, reduce), strict=True):
        scores[number][way].update(found)
    return scores


def choose_sides(loaded: Loaded, asks: Sequence[TokenisedSides]) -> list[Completion]:
    """The better of each request's two replies, which stand side by side."""
    if not asks:
        return []
    shares = [evened(*ways) for ways in side_scores(loaded, asks)]
    return [
        Completion(
            text=ask.request.menu[max(share, key=share.__getitem__)],
            finish_reason="stop",
            probabilities=share,
            tokens_in=ask.size,
            tokens_out=1,
        )
        for ask, share in zip(asks, shares, strict=True)
    ]


def write_replies(
    loaded: Loaded, asks: Sequence[TokenisedRequest], listeners: Sequence[Listener | None]
) -> list[Completion]:
    """A generated reply for each request; with a menu, also what the model weighed where the verdict
    stands."""
    if not asks:
        return []
    replies = generate(loaded, asks, listeners)
    texts = [loaded.tokenizer.decode(reply.tokens, skip_special_tokens=True) for reply in replies]
    places = [last_verdict(text, ask.request.menu) for ask, text in zip(asks, texts, strict=True)]
    judged = [index for index, place in enumerate(places) if place is not None]
    before = [
        (followed_by(loaded, asks[i].text, texts[i][: place.start]), asks[i].request.menu)
        for i in judged
        if (place := places[i])
    ]
    shares: dict[int, dict[str, float]] = {}
    if before:
        shares = dict(zip(judged, menu_probabilities(loaded, questions(loaded, before)), strict=True))
    return [
        Completion(
            text=texts[index],
            finish_reason=reply.finish,
            probabilities=shares.get(index),
            tokens_in=len(ask.tokens),
            tokens_out=len(reply.tokens) + reply.ended_itself,
        )
        for index, (ask, reply) in enumerate(zip(asks, replies, strict=True))
    ]


class WrittenReply(NamedTuple):
    """A reply in tokens."""

    tokens: list[int]
    """Without the token that ended it."""
    finish: FinishReason
    ended_itself: bool
    """Whether the model wrote a token that ends a reply."""


def generate(
    loaded: Loaded, asks: Sequence[TokenisedRequest], listeners: Sequence[Listener | None]
) -> list[WrittenReply]:
    """Token by token with a cache of keys and values. A reply also stops where its listener wants no more.

    A row's draw at step t is the t-th number of its own generator, so that company in the batch changes
    nothing.
    """
    import torch
    from transformers import DynamicCache

    padded = pad_left(loaded, [ask.tokens for ask in asks])
    limits = [min(ask.request.max_tokens, loaded.context - len(ask.tokens)) for ask in asks]
    device = padded.ids.device
    temperature = torch.tensor([ask.request.temperature for ask in asks], device=device)
    top_p = torch.tensor([ask.request.top_p for ask in asks], device=device)
    draws = torch.zeros(len(asks), max(limits))  # (B, steps)
    for row, ask in enumerate(asks):
        if ask.request.temperature > 0:
            nameless = ask.request.model_copy(
                update={"model": ""}
            )  # the same weights elsewhere draw the same
            generator = torch.Generator().manual_seed(int(nameless.key[:15], 16))
            draws[row, : limits[row]] = torch.rand(limits[row], generator=generator)
    draws = draws.to(device)
    written: list[list[int]] = [[] for _ in asks]
    finishes: list[FinishReason] = ["length"] * len(asks)
    ended = [False] * len(asks)
    alive = list(range(len(asks)))
    cache = DynamicCache(config=loaded.model.config)
    for step in range(max(limits)):
        logits = _logits(loaded, padded, 1, cache).logits[:, -1].float()  # (B, V)
        rows = torch.tensor(alive, device=device)
        following = pick(logits, temperature[rows], top_p[rows], draws[rows, step])  # (B,)
        keep = []
        for place, (row, token) in enumerate(zip(alive, following.tolist(), strict=True)):
            if token in loaded.stops:
                finishes[row], ended[row] = "stop", True
                continue
            written[row].append(token)
            listener = listeners[row]
            if listener is not None and not tell(listener, loaded.tokenizer, written[row], logits[place]):
                finishes[row] = "stop"
                continue
            if len(written[row]) < limits[row]:
                keep.append(place)
        if not keep:
            break
        mask, positions = padded.mask, padded.positions[:, -1:] + 1
        if len(keep) < len(alive):
            kept = torch.tensor(keep, device=device)
            cache.batch_select_indices(kept)
            following, mask, positions = following[kept], mask[kept], positions[kept]
            alive = [alive[place] for place in keep]
        padded = Padded(following[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1), positions)
    return [WrittenReply(*made) for made in zip(written, finishes, ended, strict=True)]


def pick(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, draw: torch.Tensor
) -> torch.Tensor:
    """One token for each row: (B, V), (B,), (B,), (B,) -> (B,).

    Temperature 0 takes the likeliest. Otherwise the token at which the distribution's running sum passes
    `draw`, likeliest first, over the smallest set of tokens that holds `top_p` of the mass (Holtzman et al.
    2020, eq. 2).
    """
    best = logits.argmax(-1)
    if not bool((temperature > 0).any()):
        return best
    shares = (logits / temperature.clamp(min=1e-6)[:, None]).softmax(-1)
    ordered, tokens = shares.sort(stable=True, dim=-1, descending=True)
    running = ordered.cumsum(-1)
    # the nucleus ends with the first token at which the running sum reaches top_p
    size = ((running - ordered) < top_p[:, None]).sum(-1).clamp(min=1)
    total = running.gather(-1, size[:, None] - 1)
    place = (running <= draw[:, None] * total).sum(-1)
    place = place.minimum(size - 1)
    drawn: torch.Tensor = tokens.gather(-1, place[:, None])[:, 0]
    return drawn.where(temperature > 0, best)


JUDGE = "judge.json"
"""Beside the weights of a tuned judge: in which dialect it is asked."""


def write_dialect(folder: Path, dialect: str) -> None:
    """Say beside a tuned judge's weights in which dialect it is asked."""
    write_json(folder / JUDGE, {"dialect": dialect})


def dialect_of(source: str) -> str:
    """The dialect in which a tuned judge is asked; empty for whatever is none."""
    path = Path(source).expanduser() / JUDGE
    try:
        found = json_in(path)
    except (OSError, ValueError):
        return ""
    return str(found.get("dialect", "")) if isinstance(found, dict) else ""


def open_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    device_map: str | None = None,
    four_bit: bool = False,
) -> LocalModel:
    """`hf/<hub id or path>` -> the model, placed as `loading.Placement` says.

    It is asked in the dialect `local`: the pair first and the principle last, so that one reading of the pair serves
    every principle. A judge that `preceptor train judge` has tuned is asked in the words that it was tuned on.
    """
    placement = Placement(device, dtype, device_map, four_bit)
    source = ModelName.of(name).model
    return LocalModel(name, source, dialect=dialect_of(source) or "local", **placement._asdict())


def weights_of(name: str) -> str:
    """Folder, GGUF file or hub id that `hf/…` names."""
    return ModelName.of(name).model
