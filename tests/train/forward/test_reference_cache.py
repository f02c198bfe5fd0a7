"""The reference's log-probabilities: computed once for all runs, and never taken for another model's."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from preceptor.train.data.pairs import PairTokens, encode_pairs
from preceptor.train.data.readers import Demonstration
from preceptor.train.dpo import train_dpo
from preceptor.train.errors import RunFolderError
from preceptor.train.evaluation.compare import reply_logprobs
from preceptor.train.forward.reference_cache import FILE, cached_logprobs, weights_fingerprint
from preceptor.train.forward.reply_logprobs import ReplyLogprobs
from preceptor.train.models.adapters import adapt, adapt_from, adapt_on_top, reference_of, save_adapter
from preceptor.train.models.base import load_base
from preceptor.train.settings import DpoSettings, SftSettings
from preceptor.train.sft import train_sft
from tests.train.tiny import preference, tiny_tokenizer

pytestmark = pytest.mark.slow

PAIRS = encode_pairs([preference(number) for number in range(9)], tiny_tokenizer(), 512).rows


class Model:
    """Gives each pair numbers of its own, and counts the pairs it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, pairs: Sequence[PairTokens]) -> ReplyLogprobs:
        self.asked += len(pairs)
        values = torch.tensor([-sum(pair.prompt) - 1 / 3 for pair in pairs])
        lengths = [len(pair.chosen) for pair in pairs] + [len(pair.rejected) for pair in pairs]
        return ReplyLogprobs(
            torch.cat([values, values - 1]), torch.cat([values + 1, values - 2]), torch.tensor(lengths)
        )


def test_a_print_of_weights_tells_any_change_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    """One number in the middle of a tensor counts, and so do the adapter's scale and the base's configuration; the
    trained adapter and a frozen one's name do not."""
    save_adapter(adapt(load_base(str(tiny)), 4, 8, 0), tmp_path / "sft")

    def of(model: PeftModel) -> str:
        return weights_fingerprint(model, reference_of(model))

    fresh = adapt(load_base(str(tiny)), 4, 8, 0)
    first = of(fresh)
    assert first == of(adapt(load_base(str(tiny)), 2, 2, seed=5))
    next(p for name, p in fresh.named_parameters() if "lora_B" in name).data += 1
    assert of(fresh) == first
    middle = next(p for name, p in fresh.named_parameters() if "layers.1.mlp.up_proj.base_layer" in name)
    middle.data[7, 3] += 1e-3
    assert of(fresh) != first
    continued = of(adapt_from(load_base(str(tiny)), tmp_path / "sft", frozen_reference=True))
    assert continued != first
    assert continued == of(adapt_on_top(load_base(str(tiny)), tmp_path / "sft", 2, 2, seed=3))
    config = tmp_path / "sft" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 3}))
    assert of(adapt_from(load_base(str(tiny)), tmp_path / "sft", frozen_reference=True)) != continued
    other = load_base(str(tiny))
    other.model.config.rms_norm_eps *= 2
    assert of(adapt(other, 4, 8, 0)) != first
    bare = weights_fingerprint(adapt(load_base(str(tiny)), 4, 8, 0), None)
    assert bare == weights_fingerprint(
        adapt_on_top(load_base(str(tiny)), tmp_path / "sft", 2, 2, seed=3), None
    )


def test_what_is_known_is_not_asked_again_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    """In any order, among others, and where a pair is there twice."""
    model = Model()
    wanted = model(PAIRS)
    first = cached_logprobs(PAIRS[:5], {"model": "m"}, tmp_path / "cache", model)
    assert all(torch.equal(a, b) for a, b in zip(first, Model()(PAIRS[:5]), strict=True))
    model.asked = 0
    found = cached_logprobs(PAIRS, {"model": "m"}, tmp_path / "cache", model)
    assert model.asked == 4
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    backward = cached_logprobs([*PAIRS[::-1], PAIRS[0]], {"model": "m"}, tmp_path / "cache", model)
    assert model.asked == 4
    assert torch.equal(backward.total[: len(PAIRS)], wanted.total[: len(PAIRS)].flip(0))


@pytest.mark.parametrize("change", ["model", "adapter", "dtype", "tokens"])
def test_another_model_or_row_is_asked(tmp_path: Path, change: str) -> None:
    model = Model()
    identity = {"model": "m", "adapter": "a", "dtype": "float32"}
    cached_logprobs(PAIRS, identity, tmp_path, model)
    pairs = (
        [pair._replace(chosen=[*pair.chosen[:-1], 9, 1]) for pair in PAIRS] if change == "tokens" else PAIRS
    )
    other = identity if change == "tokens" else {**identity, change: "other"}
    cached_logprobs(pairs, other, tmp_path, model)
    assert model.asked == 2 * len(PAIRS)


def test_labels_are_no_part_of_the_key(tmp_path: Path) -> None:
    """A judge's second thoughts cost no second pass."""
    model = Model()
    cached_logprobs(PAIRS, {"model": "m"}, tmp_path, model)
    cached_logprobs([pair._replace(probability=0.6) for pair in PAIRS], {"model": "m"}, tmp_path, model)
    assert model.asked == len(PAIRS)


def test_a_file_that_is_no_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("thesis " * 1000)
    with pytest.raises(
        RunFolderError, match=r"cannot keep the reference's log-probabilities in .*reference\.db"
    ):
        cached_logprobs(PAIRS, {"model": "m"}, tmp_path, Model())


def test_a_second_training_computes_none_and_a_changed_adapter_all(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it learns is the same to the bit."""
    from preceptor.train import dpo

    pairs = [preference(number) for number in range(8)]
    demonstrations = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]
    asked: list[int] = []
    compute = dpo.pair_logprobs

    def counting(policy: object, rows: Sequence[PairTokens], *rest: object) -> ReplyLogprobs:
        asked.append(len(rows))
        return compute(policy, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(dpo, "pair_logprobs", counting)

    def adapter(name: str, seed: int) -> str:
        sft = SftSettings(model=str(tiny), rank=2, batch_size=4, learning_rate=1e-2, seed=seed)
        return str(train_sft(demonstrations, sft, tmp_path / name).folder)

    def train(name: str, **more: object) -> str:
        settings = DpoSettings.model_validate({"model": str(tiny), "rank": 2, "batch_size": 4, **more})
        out = train_dpo(pairs, settings, tmp_path / name, cache=tmp_path / "cache").folder
        return (out / "metrics.jsonl").read_text()

    first = train("a")
    assert asked == [8]
    assert train("b") == first
    train("c", beta=0.5, seed=3)
    assert asked == [8]
    one, two = adapter("one", 0), adapter("two", 1)
    train("d", adapter=one)
    assert asked == [8, 8]
    train("e", adapter=two)
    assert asked == [8, 8, 8]
    train("f", adapter=one, learning_rate=1e-3)
    assert asked == [8, 8, 8]


def test_a_named_reference_has_the_log_probabilities_of_its_adapter_alone(tiny: Path, tmp_path: Path) -> None:
    """Training goes on from `last`: DPO's first figures are against `first`, the base, or `last` itself, as asked.

    The cache tells the three apart, and knows `first` again under another name and place.
    """
    pairs = [preference(number) for number in range(8)]
    rows = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]

    def adapter(name: str, seed: int) -> Path:
        sft = SftSettings(model=str(tiny), rank=2, batch_size=4, learning_rate=1e-2, seed=seed)
        return train_sft(rows, sft, tmp_path / name).folder

    first, last = adapter("first", 0), adapter("last", 1)
    shutil.copytree(first, tmp_path / "copy")
    prompts, chosen = [pair.prompt for pair in pairs], [pair.chosen[0].content for pair in pairs]
    start = reply_logprobs(prompts, chosen, str(tiny), last)
    known = 0
    for named, alone, new in [
        (str(first), first, True),
        ("base", None, True),
        (None, last, True),
        (str(tmp_path / "copy"), first, False),
    ]:
        settings = DpoSettings(
            model=str(tiny), adapter=str(last), reference_adapter=named, batch_size=8, beta=1, warmup=0.5
        )
        out = train_dpo(pairs, settings, tmp_path / f"out-{known}-{new}", cache=tmp_path / "cache").folder
        step = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
        against = reply_logprobs(prompts, chosen, str(tiny), alone)
        gained = sum(a - b for a, b in zip(start, against, strict=True)) / len(pairs)
        assert step["chosen_reward"] == pytest.approx(gained, abs=1e-3), named
        assert (abs(gained) > 0.1) == (named is not None)
        with closing(sqlite3.connect(tmp_path / "cache" / FILE)) as file:
            (count,) = file.execute("SELECT count(*) FROM pairs").fetchone()
        assert (count > known) == new, named
        known = count


def test_a_changed_reference_is_another_training(tiny: Path, tmp_path: Path) -> None:
    """The folder refuses it; without one, settings and manifest are what they were before there were any."""
    pairs = [preference(number) for number in range(4)]
    rows = [Demonstration(id=p.id, prompt=p.prompt, completion=p.chosen[0].content) for p in pairs]
    sft = SftSettings(model=str(tiny), rank=2, batch_size=4)
    first = train_sft(rows, sft, tmp_path / "first").folder
    plain = DpoSettings(model=str(tiny), adapter=str(first), batch_size=4)
    assert "reference_adapter" not in plain.model_dump()
    out = tmp_path / "out"
    train_dpo(pairs, plain, out)
    with pytest.raises(RunFolderError, match="reference_adapter was None and is now 'base'"):
        train_dpo(pairs, plain.model_copy(update={"reference_adapter": "base"}), out)
    named = plain.model_copy(update={"reference_adapter": str(first)})
    train_dpo(pairs, named, tmp_path / "named")
    weights = load_file(first / "adapter_model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, first / "adapter_model.safetensors")
    with pytest.raises(RunFolderError, match=r"reference_adapter was '[0-9a-f]{12}'"):
        train_dpo(pairs, named, tmp_path / "named")
