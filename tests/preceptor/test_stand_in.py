"""A judge that is tuned on another's verdicts stands in for it where that is certified: `train judge` to `verify`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.jsonl import rows_of
from tests.servers.llm import LLMServer

pytestmark = pytest.mark.slow

TUNED = ("--rank", "4", "--batch-size", "8", "--epochs", "5", "--learning-rate", "5e-3", "--held-out", "0.4")
API = "openai/x"
MINE = """
name: mine
principles:
  - {id: kind, text: Choose the kind reply., critique: Say where it is unkind., revision: Be kind.}
"""


def pair(number: int, tag: str, clear: bool = True) -> dict[str, object]:
    """The server's judge prefers what has the greater quality, which a kind word shows; without one, nothing does."""
    texts = ["quality=8 You are welcome, gladly.", "quality=1 No."]
    if not clear:
        texts = ["quality=8 No.", "quality=1 No."]
    if number % 2:
        texts.reverse()
    return {
        "id": f"{tag}-{number}",
        "prompt": {
            "id": f"p{tag}{number}",
            "messages": [{"role": "user", "content": f"ask {number:03}"}],
            "tags": ["t"],
        },
        "response_a": texts[0],
        "response_b": texts[1],
        "preferred": "b" if number % 2 else "a",
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_from_verdicts_to_a_judge_that_stands_in(
    preceptor: Preceptor,
    start_server: Callable[..., LLMServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    server = start_server()
    write(Path("pairs.jsonl"), [pair(number, "t") for number in range(50)])
    write(Path("more.jsonl"), [pair(number, "m") for number in range(100, 120)])
    write(Path("wrong.jsonl"), [{**row, "preferred": "a"} for row in rows_of(Path("pairs.jsonl"))])
    url = ("--base-url", f"{API}={server.url}")
    rules = ("-c", "mine.yaml")
    Path("mine.yaml").write_text(MINE)
    labelled = preceptor("label", "pairs.jsonl", *rules, "--judge", API, *url, "--out", "labels")
    assert labelled.code == 0, labelled.err
    asked = server.stats()["requests"]
    tuned = preceptor("train", "judge", "labels", *rules, *TUNED, "--out", "judge", "--json")
    assert tuned.code == 0, tuned.err
    assert json.loads(tuned.out)["metrics"]["held_out"]["accuracy"] == 1.0

    cascade = ("--judge", "hf/judge", "--escalate-to", API, *url, "--orders", "none", "--reference", API)
    certified = ("--certify", "0.8", "--gold", "judge/gold.jsonl")
    made = preceptor("label", "more.jsonl", *rules, *cascade, *certified, "--out", "more")
    assert made.code == 0, made.err
    rows = rows_of(Path("more/labels.jsonl"))
    orders = [[one["order"] for one in row["judgements"]] for row in rows]
    went_on = sum(some != ["none"] for some in orders)
    assert all(some in (["none"], ["none", "original", "swapped"]) for some in orders)
    assert server.stats()["requests"] == asked + 2 * went_on, "in both orders, and about no gold"
    manifest = json.loads(Path("more/manifest.json").read_text())
    assert manifest["audit"]["saved"]["share"] == pytest.approx(1 - went_on / len(rows))
    assert f"of {1 - went_on / len(rows):.1%} of the pairs no further judge was asked" in made.err
    assert went_on < len(rows)
    assert (manifest["certificate"]["granted"], manifest["certificate"]["people"]) == (True, went_on)
    assert preceptor("verify", "more").code == 0

    refused = preceptor(
        "label", "more.jsonl", *rules, *cascade, "--certify", "0.9", "--gold", "wrong.jsonl", "--out", "other"
    )
    assert refused.code == 2
    assert "nothing can be certified" in refused.err
    assert server.stats()["requests"] == asked + 2 * went_on, (
        "the gate says that it cannot, and spends nothing"
    )
    assert not Path("other").exists()


def test_a_reference_is_the_last_judge_and_belongs_to_a_certificate(
    preceptor: Preceptor, tmp_path: Path
) -> None:
    write(tmp_path / "pairs.jsonl", [pair(0, "t")])
    words = (
        "label",
        tmp_path / "pairs.jsonl",
        "-c",
        "helpful-harmless",
        "--judge",
        "embedded",
        "--reference",
        API,
    )
    alone = preceptor(*words, "--out", tmp_path / "out")
    assert (alone.code, "--reference without --certify" in alone.err) == (2, True)
    gold = ("--certify", "0.9", "--gold", tmp_path / "pairs.jsonl")
    first = preceptor(
        *words, *gold, "--escalate-to", API, "--escalate-to", "openai/y", "--out", tmp_path / "out"
    )
    assert (first.code, "as the last --escalate-to" in first.err) == (2, True)


def test_adaptive_and_no_order_are_refused_together(preceptor: Preceptor, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", [pair(0, "t")])
    words = (
        "label",
        tmp_path / "pairs.jsonl",
        "-c",
        "helpful-harmless",
        "--judge",
        "embedded",
        "--orders",
        "none",
    )
    gold = ("--certify", "0.9", "--gold", tmp_path / "pairs.jsonl", "--adaptive")
    ended = preceptor(*words, *gold, "--out", tmp_path / "out")
    assert (ended.code, "leave one of them out" in ended.err) == (2, True)
    beside = preceptor(
        *words[:5], "openai/x", *words[6:], "--base-url", "http://127.0.0.1:9/v1", "--out", tmp_path / "o"
    )
    assert (beside.code, "openai/x cannot" in beside.err) == (2, True)
