"""`preceptor train` as a person calls it: one result on stdout, exit codes, words for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.cli.train.app import app
from preceptor.constitution.errors import UserError
from preceptor.prompts.rows import write_rows
from tests.command_line import Preceptor
from tests.train.tiny import preference

pytestmark = pytest.mark.slow


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", [preference(number) for number in range(12)])
    return tmp_path / "rows.jsonl"


def test_dpo_trains_once_and_says_so_the_second_time(
    preceptor: Preceptor, tiny: Path, rows: Path, tmp_path: Path
) -> None:
    words = (
        "train",
        "dpo",
        rows,
        "--model",
        tiny,
        "--out",
        tmp_path / "out",
        "--batch-size",
        4,
        "--rank",
        4,
        "--json",
    )
    first = preceptor(*words)
    assert first.code == 0, first.err
    result = json.loads(first.out)
    assert result["rows"]["in"] == result["rows"]["used"] == 12
    assert result["steps"] == 3
    assert "12 rows in, 12 trained on" in first.err
    assert (Path(".preceptor/reference.db")).is_file()
    again = preceptor(*words)
    assert again.code == 0
    assert json.loads(again.out)["finished_before"]
    assert "had been finished by the same command before" in again.err


def test_bad_input_is_one_message_and_exit_code_2(preceptor: Preceptor, tmp_path: Path) -> None:
    """Never a traceback, and nothing on stdout; the other faults go the same way."""
    ended = preceptor("train", "dpo", tmp_path / "none.jsonl", "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, ""), ended
    assert "there is no such file" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dpo rows.jsonl --model embeded --out out", "did you mean 'embedded'?"),
        ("reward bad.jsonl --model MODEL --out out", "bad.jsonl: no layout of pairs that is known (prompt)"),
        ("dpo rows.jsonl --model MODEL --adapter bare --out out", "it has no adapter_config.json"),
        ("dpo rows.jsonl --adapter bare --out out", "it has no adapter_config.json"),
        ("dpo rows.jsonl --adapter bare --rank 4 --out out", "--rank cannot be set"),
        ("dpo rows.jsonl --model MODEL --stack-adapter --out out", "--stack-adapter needs --adapter"),
        (
            "dpo rows.jsonl --model MODEL --loss dop --out out",
            "--loss is 'dop': wanted dpo, ipo",
        ),
        ("dpo rows.jsonl --model MODEL --label-smoothing 0.5 --out out", "--label-smoothing is 0.5"),
        ("dpo rows.jsonl --model MODEL --gamma 1 --out out", "gamma has no effect with loss dpo: it belongs"),
        (
            "dpo rows.jsonl --model MODEL --loss ipo --margin 1 --out out",
            "margin has no effect with loss ipo",
        ),
        ("dpo rows.jsonl --model MODEL --loss robust --out out", "loss robust needs label_smoothing"),
        (
            "dpo rows.jsonl --model MODEL --length-alpha 0 --out out",
            "length_alpha has no effect with loss dpo",
        ),
        ("dpo rows.jsonl --model MODEL --out file/out", "cannot"),
        ("dpo rows.jsonl --model MODEL --beta 0 --out out", "--beta is 0.0: input should be greater than 0"),
        ("dpo rows.jsonl --model MODEL --precision int4 --out out", "--precision is 'int4': input should be"),
        (
            "dpo rows.jsonl --model MODEL --reference-adapter bare --out out",
            "it has no adapter_config.json",
        ),
        (
            "dpo rows.jsonl --model MODEL --loss simpo --reference-adapter base --out out",
            "reference_adapter has no effect with loss simpo",
        ),
        ("sft rows.jsonl --model MODEL --out out", "no column completion"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing_behind(
    tiny: Path, rows: Path, words: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows.parent)
    Path("file").write_text("")
    Path("bad.jsonl").write_text('{"prompt": "Hi?"}\n')
    Path("bare").mkdir()
    with pytest.raises(UserError) as caught:
        app(words.replace("MODEL", str(tiny)).split(), standalone_mode=False)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not Path("out").exists()


def test_showing_help_loads_neither_torch_nor_the_settings() -> None:
    heavy = "{'torch', 'pydantic', 'transformers'}"
    code = f"import sys, preceptor.cli.train.app; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ended.stdout.strip() == "[]"
