"""Models in this process: replies are generated, verdicts are read from one forward pass.

Everything is per row, so that a row's answer does not depend on its batch: padding is on the left with
explicit positions, and a sampled token comes from the row's own random numbers, seeded by the request's key.

Only safetensors are read, no code from a checkpoint is run, and torch is imported with the first request.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from constitution.errors import UserError
from judge.errors import Rejected, UnknownModel
from judge.models.chat_tokens import Ask, Loaded, Question, encode, questions
from judge.models.microbatch import Microbatcher
from judge.models.protocol import Completion, FinishReason, Request
from judge.models.verdict_tokens import last_verdict
from judge.models.weights import weights_hash

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

BATCH_TOKENS = 16384
"""Room of one batch: rows times (longest prompt + longest reply)."""


class LocalModel:
    """A transformers checkpoint or PEFT adapter folder behind the seam; satisfies `protocol.Model`."""

    queues = True
    """It takes any number of requests at once and batches them, so no deadline runs while they wait."""

    def __init__(
        self,
        name: str,
        path: str,
        *,
        dialect: str = "",
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """path: a folder, or a hub id. device: torch's name; None: a GPU if there is one. dtype: torch's
        name, or `auto` for the checkpoint's own; None: float32 on a CPU and `auto` elsewhere."""
        check_path(name, path)
        self.name = name
        found = weights_hash(path)
        self.endpoint = (
            f"weights:{found[:16]}" if found else ""
        )  # so that the ledger never answers for other weights
        self.dialect = dialect
        self._path = path
        self._device = device
        self._dtype = dtype
        self._batch_tokens = batch_tokens
        self._loaded: Loaded | None = None
        self._batcher: Microbatcher[Request, Completion] = Microbatcher(self._choose, self._answer)

    async def complete(self, request: Request) -> Completion:
        """Wait for the request's turn in a batch.

        Raises Rejected where the conversation is longer than the model reads, UserError where the checkpoint
        cannot be loaded.
        """
        return await self._batcher.ask(request)

    async def close(self) -> None:
        """End the worker and let go of the weights."""
        await self._batcher.close()
        self._loaded = None

    def _choose(self, waiting: Sequence[Request]) -> Sequence[int]:
        """The oldest request and those most like it in length that fit into one batch with it."""
        kind = _is_direct(waiting[0])
        alike = [index for index, request in enumerate(waiting) if _is_direct(request) == kind]
        alike.sort(key=lambda index: _characters(waiting[index]), reverse=True)
        chosen: list[int] = []
        widest = 0
        for index in alike:
            reply = 0 if kind else waiting[index].max_tokens
            widest = max(widest, _characters(waiting[index]) // 3 + reply)
            if chosen and widest * (len(chosen) + 1) > self._batch_tokens:
                break
            chosen.append(index)
        return chosen

    def _answer(self, requests: Sequence[Request]) -> Sequence[Completion | Exception]:
        import torch

        if self._loaded is None:
            self._loaded = load(self.name, self._path, self._device, self._dtype)
        loaded = self._loaded
        answers: list[Completion | Exception] = [
            Rejected(f"{self.name} reads at most {loaded.context - 1} tokens; this conversation is longer")
        ] * len(requests)
        asks = encode(loaded, requests)
        fits = [index for index, ask in enumerate(asks) if len(ask.tokens) < loaded.context]
        with torch.inference_mode():
            for decide, direct in ((choose_verdicts, True), (write_replies, False)):
                mine = [index for index in fits if _is_direct(requests[index]) == direct]
                for index, found in zip(mine, decide(loaded, [asks[i] for i in mine]), strict=True):
                    answers[index] = found.model_copy(update={"served_by": self.name})
        return answers


def _is_direct(request: Request) -> bool:
    """Whether the verdict is to be read without any words before it."""
    return bool(request.menu) and not request.reasoning


def _characters(request: Request) -> int:
    return sum(len(message.content) for message in request.messages)


def check_path(name: str, path: str) -> None:
    """Refuse what is known to fail without importing anything; a hub id is left to the hub."""
    if absent := [library for library in ("torch", "transformers", "peft") if find_spec(library) is None]:
        raise UserError(
            f"{name} needs {' and '.join(absent)}; install them with: pip install 'preceptor[train]'"
        )
    if not Path(path).expanduser().is_dir() and path.startswith((".", "/", "~")):
        raise UnknownModel(
            f"{name}: there is no folder {path}; wanted a checkpoint or adapter folder, or a hub id like "
            "Qwen/Qwen3-0.6B"
        )


def load(name: str, path: str, device: str | None = None, dtype: str | None = None) -> Loaded:
    """Checkpoint or adapter folder -> model in evaluation mode and tokenizer.

    Raises UserError where files are missing or broken, or where weights that the architecture has are not in
    the files: transformers would fill those with random numbers.
    """
    import torch
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None:
        dtype = "float32" if device == "cpu" else "auto"
    if (folder / "adapter_config.json").is_file():
        model, source = _load_adapter(name, folder, device, dtype)
    else:
        source = str(folder) if folder.is_dir() else path
        model = _load_base(name, source, device, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=Path(source).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as exc:
        raise UserError(f"{name}: no usable tokenizer in {source}: {_first_line(exc)}") from exc
    if not tokenizer.chat_template:
        log.warning("%s has no chat template: conversations are written as plain 'role: text' lines", name)
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1_000_000)
    return Loaded(model.eval(), tokenizer, frozenset(stops), context)


def _load_base(name: str, source: str, device: str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    talk: Any = transformers_logging
    showed_bars, verbosity = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=Path(source).is_dir(),
            output_loading_info=True,
        )
    except Exception as exc:  # the libraries raise whatever their readers raise
        raise UserError(
            f"{name}: {source} cannot be loaded: {_first_line(exc)}; wanted a folder or hub id with "
            "config.json, safetensors weights and a tokenizer"
        ) from exc
    finally:
        talk.set_verbosity(verbosity)
        if showed_bars:
            talk.enable_progress_bar()
    model, info = both
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{name}: {source} lacks {len(missing)} of the model's weights, the first {missing[0]}; wanted a "
            "complete checkpoint, so save or download it again"
        )
    return model.to(device)


def _load_adapter(name: str, folder: Path, device: str, dtype: str) -> tuple[Any, str]:
    """(model, where its tokenizer is). In float32 the adapter is merged: same numbers to rounding, and
    faster."""
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    weights = folder / "adapter_model.safetensors"
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with safe_open(weights, framework="pt") as stored:
            names = set(stored.keys())
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as exc:
        raise UserError(
            f"{name}: {folder} is not a readable PEFT adapter: {_first_line(exc)}; wanted "
            "adapter_config.json and adapter_model.safetensors"
        ) from exc
    base = str(config.base_model_name_or_path or "")
    beside = folder / base
    source = str(beside) if base and not Path(base).is_dir() and beside.is_dir() else base
    if not source or (source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir()):
        raise UserError(
            f"{name}: the adapter in {folder} was trained on {base or 'an unnamed base'}, which is not "
            "there; put the base model back or correct base_model_name_or_path in adapter_config.json"
        )
    loaded = _load_base(name, source, device, dtype)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers by an old name, and warns of missing weights, which are refused below
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        model = PeftModel.from_pretrained(loaded, str(folder))
    if missing := sorted(set(get_peft_model_state_dict(model)) - names):
        raise UserError(
            f"{name}: {weights} lacks {len(missing)} of the adapter's weights, the first {missing[0]}"
        )
    if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        model = model.merge_and_unload()
    return model, str(folder) if (folder / "tokenizer_config.json").is_file() else source


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)


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


def menu_probabilities(loaded: Loaded, asked: Sequence[Question]) -> list[dict[str, float]]:
    """Letter -> probability among the menu's options, after the tokens that all options share.

    Where the options differ in their first token, its softmax over the options; one forward pass for all
    rows.
    Where two begin alike, the softmax over the summed log-probabilities of the whole options.
    """
    import torch

    found: list[dict[str, float]] = [{}] * len(asked)
    short = [
        i for i, one in enumerate(asked) if len({o[:1] for o in one.options.values()}) == len(one.options)
    ]
    if short:
        logits = (
            _logits(loaded, pad_left(loaded, [asked[i].context for i in short]), 1).logits[:, -1].float()
        )  # (B, V)
        for row, index in zip(logits, short, strict=True):
            options = asked[index].options
            shares = torch.softmax(row[[option[0] for option in options.values()]], -1)
            found[index] = dict(zip(options, shares.tolist(), strict=True))
    for index in set(range(len(asked))) - set(short):
        context, options = asked[index]
        longest = max(map(len, options.values()))
        padded = pad_left(loaded, [context + option for option in options.values()])
        logprobs = (
            _logits(loaded, padded, longest + 1).logits.float().log_softmax(-1)[:, :-1]
        )  # (options, longest, V)
        scores = [
            logprobs[row, longest - len(option) :].gather(-1, padded.ids[row, -len(option) :, None]).sum()
            for row, option in enumerate(options.values())
        ]
        found[index] = dict(zip(options, torch.stack(scores).softmax(-1).tolist(), strict=True))
    return found


def choose_verdicts(loaded: Loaded, asks: Sequence[Ask]) -> list[Completion]:
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


def write_replies(loaded: Loaded, asks: Sequence[Ask]) -> list[Completion]:
    """A generated reply for each request; with a menu, also what the model weighed where the verdict
    stands."""
    if not asks:
        return []
    replies = generate(loaded, asks)
    texts = [loaded.tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in replies]
    places = [last_verdict(text, ask.request.menu) for ask, text in zip(asks, texts, strict=True)]
    judged = [index for index, place in enumerate(places) if place is not None]
    before = [
        (asks[i].text + texts[i][: place.start], asks[i].request.menu) for i in judged if (place := places[i])
    ]
    shares: dict[int, dict[str, float]] = {}
    if before:
        shares = dict(zip(judged, menu_probabilities(loaded, questions(loaded, before)), strict=True))
    return [
        Completion(
            text=texts[index],
            finish_reason=finish,
            probabilities=shares.get(index),
            tokens_in=len(ask.tokens),
            tokens_out=len(tokens) + (finish == "stop"),
        )
        for index, (ask, (tokens, finish)) in enumerate(zip(asks, replies, strict=True))
    ]


def generate(loaded: Loaded, asks: Sequence[Ask]) -> list[tuple[list[int], FinishReason]]:
    """Token by token with a cache of keys and values -> (tokens without the stop, why it ended) for each
    request.

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
    alive = list(range(len(asks)))
    cache = DynamicCache(config=loaded.model.config)
    for step in range(max(limits)):
        logits = _logits(loaded, padded, 1, cache).logits[:, -1].float()  # (B, V)
        rows = torch.tensor(alive, device=device)
        following = pick(logits, temperature[rows], top_p[rows], draws[rows, step])  # (B,)
        keep = []
        for place, (row, token) in enumerate(zip(alive, following.tolist(), strict=True)):
            if token in loaded.stops:
                finishes[row] = "stop"
                continue
            written[row].append(token)
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
    return list(zip(written, finishes, strict=True))


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


def open_model(name: str, **options: Any) -> LocalModel:
    """`hf/<hub id or path>` -> the model; options as for LocalModel."""
    return LocalModel(name, name.partition("/")[2], **options)
