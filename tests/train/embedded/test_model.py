"""The shipped weights: small, loadable by anyone, and right about what is left to them."""

import random
from pathlib import Path

import pytest
import torch

from preceptor.train.embedded import WEIGHTS, asks, measure
from preceptor.train.embedded.build import make_model, rate_at
from preceptor.train.embedded.lessons import JUDGED, draw_parts, letter_index, to_lesson
from preceptor.train.embedded.measure import Tiny
from preceptor.train.embedded.muon import orthogonal
from preceptor.train.embedded.packing import batches
from preceptor.train.embedded.tokens import dialogue
from preceptor.train.embedded.world import draw_prompt

SOUND = 0.9  # agreement with the oracle below which a principle is not left to the tiny judge


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return measure.load()


def test_weights_are_small_and_complete(tiny: Tiny) -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 10_000_000
    names = {file.name for file in WEIGHTS.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert type(tiny.model).__name__ == "LlamaForCausalLM"
    assert tiny.model.generation_config.eos_token_id == tiny.tokenizer.eos_token_id
    assert tiny.tokenizer.pad_token_id not in (None, tiny.tokenizer.eos_token_id)


def test_tokenizer_gives_back_any_text_and_each_digit_its_token(tiny: Tiny) -> None:
    for text in ("Good morning.", "It opens at 7:30 am.", "naïve ☂ 漢字\n\ttab", '{"answer": "4821"}'):
        assert tiny.tokenizer.decode(tiny.tokenizer(text)["input_ids"]) == text
    assert len(tiny.tokenizer("4821")["input_ids"]) == 4
    assert letter_index(tiny.tokenizer) == len(tiny.tokenizer(asks.VERDICT)["input_ids"])


def test_dialogue_is_the_chat_template(tiny: Tiny) -> None:
    messages = draw_prompt(random.Random(0), "train")["messages"]
    template = tiny.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template == dialogue(messages)


@pytest.mark.parametrize("principle", JUDGED)
def test_verdicts_agree_with_the_oracle_in_both_orders(tiny: Tiny, principle: str) -> None:
    found = measure.verdicts(tiny, principle, count=120, seed=7)
    assert found.accuracy >= SOUND
    assert min(found.original, found.swapped) >= SOUND - 0.05
    assert found.tie_distance < 0.2


def test_padding_changes_no_verdict(tiny: Tiny) -> None:
    prompt = draw_prompt(random.Random(1), "held-out", tags=())
    short = asks.compare(prompt["messages"], "Good morning.", "Read the sign.", "polite")
    long = asks.compare(prompt["messages"], "Good morning. " * 9, "Read the sign.", "polite")
    together = measure.probability_of_a(tiny, [short, long])
    alone = measure.probability_of_a(tiny, [short])
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_packed_branches_score_as_if_each_stood_alone(tiny: Tiny) -> None:
    """The mask and the restarting positions are right when the packed loss equals one sequence at a time."""
    lessons = [to_lesson(draw_parts(random.Random(seed)), tiny.tokenizer) for seed in range(12)]
    feed = iter(lessons)
    rows = next(batches(lambda _: next(feed), random.Random(0), rows=2, length=512, pad=0))
    model = make_model(tiny.tokenizer, seed=0).eval()
    with torch.no_grad():
        hidden = model.model(
            input_ids=rows.tokens, position_ids=rows.positions, attention_mask=rows.mask
        ).last_hidden_state
        packed = model.lm_head(hidden.flatten(0, 1)[rows.source]).log_softmax(-1)
        packed = packed.gather(-1, rows.target[:, None])[:, 0]
        alone = []
        for lesson in lessons:
            for branch in lesson.branches:
                tokens = torch.tensor([lesson.trunk + branch.tokens])
                scores = model(input_ids=tokens).logits.log_softmax(-1)[0, :-1]
                weights = torch.tensor([0.0] * len(lesson.trunk) + branch.weights)[1:]
                alone.append(scores.gather(-1, tokens[0, 1:, None])[:, 0][weights > 0])
    single = torch.cat(alone)
    assert len(packed) <= len(single)  # the last lessons may not have fitted
    for value in packed.tolist():
        assert (single - value).abs().min() < 1e-4
    assert packed.sort().values.shape == packed.shape


def test_newton_schulz_leaves_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((192, 512), (512, 192), (192, 192)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < values.median() < 1.3  # a square Gaussian's least values stay small after five steps
        assert values.max() < 1.3


def test_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[0] < 0.1
    assert rates[80] == max(rates) == 1.0
    assert rates[-1] < 0.01


def test_a_built_checkpoint_replaces_the_old_one_whole(tiny: Tiny, tmp_path: Path) -> None:
    from preceptor.train.embedded.build import save

    out = tmp_path / "built" / "weights"
    out.parent.mkdir()
    for _ in range(2):
        save(tiny, out)
    assert [p.name for p in out.parent.iterdir()] == ["weights"]
    assert measure.load(out).model.num_parameters() == tiny.model.num_parameters()
