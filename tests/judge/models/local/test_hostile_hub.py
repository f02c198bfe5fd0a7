"""Folders of models as anybody may upload them: each is refused in words or is harmless, and none runs its code."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import SecurityError, UndefinedError

from preceptor.constitution.errors import UserError
from preceptor.judge.models.local.loading import load
from tests.train.tiny import save_tiny


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._mark,)


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def pickled_weights(place: Path, mark: Path) -> None:
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(mark)))


def code_of_its_own(place: Path, mark: Path) -> None:
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Model: pass\nclass Config: pass\n"
    (place / "modeling.py").write_text(code)
    maps = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    changed(place / "config.json", model_type="own", architectures=["Model"], auto_map=maps)


def tokenizer_of_its_own(place: Path, mark: Path) -> None:
    (place / "tokenization.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    (place / "tokenizer.json").unlink()
    changed(
        place / "tokenizer_config.json",
        tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["tokenization.Own", None]},
    )


def without_config(place: Path, _: Path) -> None:
    (place / "config.json").unlink()


def without_weights(place: Path, _: Path) -> None:
    (place / "model.safetensors").unlink()


def weights_cut_short(place: Path, _: Path) -> None:
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def weights_whose_header_lies(place: Path, _: Path) -> None:
    (place / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def config_that_is_no_json(place: Path, _: Path) -> None:
    (place / "config.json").write_text("{")


def config_that_is_nested(place: Path, _: Path) -> None:
    (place / "config.json").write_text("[" * 100_000)


def other_shapes(place: Path, _: Path) -> None:
    changed(place / "config.json", hidden_size=64)


def no_heads(place: Path, _: Path) -> None:
    changed(place / "config.json", num_attention_heads=0)


def words_for_numbers(place: Path, _: Path) -> None:
    changed(place / "config.json", hidden_size="many")


def a_tokenizer_that_is_none(place: Path, _: Path) -> None:
    (place / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Own"}}')


HOSTILE = (
    pickled_weights,
    code_of_its_own,
    tokenizer_of_its_own,
    without_config,
    without_weights,
    weights_cut_short,
    weights_whose_header_lies,
    config_that_is_no_json,
    config_that_is_nested,
    other_shapes,
    no_heads,
    words_for_numbers,
    a_tokenizer_that_is_none,
)


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_a_hostile_folder_is_refused_and_runs_nothing(
    spoil: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    place, mark = save_tiny(tmp_path / "model"), tmp_path / "ran"
    spoil(place, mark)
    with pytest.raises(UserError) as refused:
        load("hf/hostile", str(place))
    said = str(refused.value)
    assert str(place) in said
    assert "\n" not in said
    assert refused.value.exit_code == 2
    assert not mark.exists()


def test_a_template_of_a_chat_runs_nothing(tmp_path: Path) -> None:
    place, mark = save_tiny(tmp_path / "model"), tmp_path / "ran"
    hostile = "{{ cycler.__init__.__globals__.os.mknod('" + str(mark) + "') }}"
    changed(place / "tokenizer_config.json", chat_template=hostile)
    (place / "chat_template.jinja").write_text(hostile)
    with contextlib.suppress(UserError, SecurityError, UndefinedError):
        loaded = load("hf/hostile", str(place))
        loaded.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert not mark.exists()
