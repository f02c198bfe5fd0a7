"""Two replies side by side: neither sees the other, neither comes first, and letters cancel out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local.branch_mask import mask_of, pack
from preceptor.judge.models.local.prefix_passes import Passes
from preceptor.judge.models.local.side_by_side import SidePrompt, SideRow, evened, side_rows
from tests.train.architectures import APART, SHARED, tiny_model

LOGITS = st.floats(-20, 20)
SCORES = st.fixed_dictionaries({"a": LOGITS, "b": LOGITS, "tie": LOGITS})


def words(*lengths: int, seed: int = 1) -> list[tuple[int, ...]]:
    drawn = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(2, 300, (length,), generator=drawn).tolist()) for length in lengths]


BEFORE, X, Y, A, B, QUESTION, OTHER = words(20, 17, 31, 4, 4, 9, 6)


def asked(
    x: tuple[int, ...] = X, y: tuple[int, ...] = Y, after: tuple[int, ...] = QUESTION
) -> list[SidePrompt]:
    """x called A and y B, and the other way round."""
    return [SidePrompt(BEFORE, (x, y), names, after) for names in ((A, B), (B, A))]


def ends(name: str, prompts: list[SidePrompt]) -> torch.Tensor:
    passes = Passes(name, tiny_model(name), 512)
    return torch.stack(passes.side_by_side(prompts, [1] * len(prompts), lambda _, logits: logits[-1]))


@pytest.mark.parametrize("name", SHARED)
def test_exchanged_replies_exchange_the_answers_to_the_bit(name: str) -> None:
    first, second = ends(name, asked())
    turned_first, turned_second = ends(name, asked(Y, X))
    assert torch.equal(first, turned_second)
    assert torch.equal(second, turned_first)


@pytest.mark.parametrize("name", SHARED)
def test_which_reply_lies_first_in_memory_is_not_to_be_seen(name: str) -> None:
    """The layout itself has no order: the same row with its replies the other way round, which is never made."""
    model, (row,) = tiny_model(name), side_rows(asked())
    old_to_new = [0, 2, 1, *range(3, len(row.parts))]
    sight = [part._replace(sees=tuple(old_to_new[one] for one in part.sees)) for part in row.parts]
    turned = SideRow((sight[0], sight[2], sight[1], *sight[3:]), row.ways)
    hidden = []
    for each in (row, turned):
        packed = pack([each], "cpu")
        mask = mask_of(packed.part, packed.positions, model.config, model.dtype, packed.sees)
        with torch.inference_mode():
            out = model.base_model(
                input_ids=packed.ids,
                attention_mask=mask,
                position_ids=packed.positions,
                use_cache=False,
            ).last_hidden_state
        hidden.append(out[0, len(BEFORE) + len(X) + len(Y) :])
    torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SHARED)
def test_a_reply_alone_is_read_as_in_a_plain_prompt(name: str) -> None:
    """Where the other reply and its name are empty, the row is an ordinary prompt."""
    model, prompt = tiny_model(name), SidePrompt(BEFORE, (X, ()), (A, ()), QUESTION)
    (found,) = Passes(name, model, 512)._walk(side_rows([prompt]), [1], lambda _, some: some[-1]).values()
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([BEFORE + X + A + QUESTION])).logits[0, -1]
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def test_no_reply_sees_the_other_and_names_see_their_own() -> None:
    (row,) = side_rows(asked())
    packed = pack([row], "cpu")
    model = tiny_model("llama")
    seen = mask_of(packed.part, packed.positions, model.config, model.dtype, packed.sees)[0, 0] == 0
    by_tokens = {part.tokens: number for number, part in enumerate(row.parts)}
    x, y = (packed.part[0] == by_tokens[reply] for reply in (X, Y))
    assert not seen[x][:, y].any()
    assert not seen[y][:, x].any()
    assert row.parts[1].begins == row.parts[2].begins == len(BEFORE)
    names = [part for part in row.parts if part.tokens in (A, B)]
    assert len(names) == 4
    assert {part.begins for part in names} == {len(BEFORE) + max(len(X), len(Y))}
    for part in names:
        assert len({1, 2} & set(part.sees)) == 1


def test_a_pair_is_read_once_for_all_its_questions() -> None:
    """Conversation and replies once, and each name of each reply; questions for either way of naming."""
    prompts = [*asked(), *asked(after=OTHER)]
    (row,) = side_rows(prompts)
    assert row.size == len(BEFORE + X + Y) + 2 * len(A + B) + 2 * (len(QUESTION) + len(OTHER))
    both_orders = 2 * (len(BEFORE + X + Y) + len(A + B)) + 2 * (len(QUESTION) + len(OTHER))
    assert row.size == both_orders - len(BEFORE + X + Y)


def test_questions_in_one_row_are_answered_as_alone() -> None:
    both = ends("llama", [*asked(), *asked(after=OTHER)])
    torch.testing.assert_close(both[:2], ends("llama", asked()), rtol=0, atol=1e-4)
    torch.testing.assert_close(both[2:], ends("llama", asked(after=OTHER)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", APART)
def test_a_model_that_takes_no_such_mask_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="leave out --orders none"):
        ends(name, asked())


@given(SCORES, SCORES)
def test_exchanged_ways_exchange_the_probabilities(one: dict[str, float], other: dict[str, float]) -> None:
    found, turned = evened(one, other), evened(other, one)
    assert (found["a"], found["b"], found["tie"]) == (turned["b"], turned["a"], turned["tie"])
    assert math.fsum(found.values()) == pytest.approx(1)


@given(SCORES, SCORES, LOGITS, st.tuples(LOGITS, LOGITS))
def test_a_leaning_towards_a_letter_cancels_out(
    one: dict[str, float], other: dict[str, float], leaning: float, constants: tuple[float, float]
) -> None:
    """However much a model likes to say A, and whatever constant either way's scores have."""
    signs = {"a": 1, "b": -1, "tie": 0}
    leant = [
        {letter: score + constant + leaning * signs[letter] for letter, score in way.items()}
        for way, constant in zip((one, other), constants, strict=True)
    ]
    assert evened(*leant) == pytest.approx(evened(one, other))
