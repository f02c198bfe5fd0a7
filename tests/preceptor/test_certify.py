"""`label --certify`: what gold vouches for is kept, the rest goes on or abstains, and `verify` proves it."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Preceptor
from tests.preceptor.resealed import reseal
from tests.servers.llm import LLMServer

WORDS = ("label", "pairs.jsonl", "-c", "helpful-harmless", "--judge", "openai/x")


def pair(number: int, tag: str = "t", words: int = 20) -> dict[str, object]:
    """The test server's judge prefers what has the greater quality."""
    qualities = random.Random(number).sample(range(1, 9), 2)
    texts = [f"quality={one} " + "and so on " * words for one in qualities]
    return {
        "id": f"{tag}-{number}",
        "prompt": {
            "id": f"p{tag}{number}",
            "messages": [{"role": "user", "content": f"ask {number:03}"}],
            "tags": ["t"],
        },
        "response_a": texts[0],
        "response_b": texts[1],
        "preferred": "a" if qualities[0] > qualities[1] else "b",
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "gold.jsonl", [pair(number, "gold") for number in range(40)])
    write(tmp_path / "few.jsonl", [pair(number, "gold") for number in range(10)])
    write(tmp_path / "pairs.jsonl", [pair(number) for number in range(100, 130)])
    write(tmp_path / "long.jsonl", [pair(number, words=400) for number in range(200, 230)])
    wrong = [pair(number, "gold") for number in range(40)]
    for row in wrong:
        row["preferred"] = "b" if row["preferred"] == "a" else "a"
    write(tmp_path / "wrong.jsonl", wrong)
    return tmp_path


def test_from_gold_to_the_verified_folder(
    place: Path, preceptor: Preceptor, start_server: Callable[..., LLMServer]
) -> None:
    server = start_server()
    url = ("--base-url", server.url)
    made = preceptor(*WORDS, *url, "--certify", "0.9", "--gold", "gold.jsonl", "--out", "out")
    assert made.code == 0, made.err
    assert "certified: 30 of 30 labels" in made.err + made.out
    manifest = json.loads((place / "out/manifest.json").read_text())
    found = manifest["certificate"]
    assert (found["granted"], found["kept"], found["gold"]) == (True, 30, 40)
    assert found["constitution"] == manifest["constitution"]
    step = found["steps"][0]
    assert (step["n"], step["right"]) == (40, 40)
    assert step["low"] == pytest.approx(0.05 ** (1 / 40))
    assert "## Certificate" in (place / "out/card.md").read_text()
    assert preceptor("verify", "out").code == 0

    asked = server.stats()["requests"]
    again = preceptor(*WORDS, *url, "--certify", "0.9", "--gold", "gold.jsonl", "--out", "out")
    assert again.code == 0, again.err
    assert server.stats()["requests"] == asked, "everything is in the ledger"

    reseal(place / "out", lambda facts: facts["certificate"].update({"constitution": "other@1", "kept": 29}))
    wrong = preceptor("verify", "out")
    assert wrong.code == 1
    assert "void" in wrong.out + wrong.err

    few = preceptor(*WORDS, *url, "--certify", "0.9", "--gold", "few.jsonl", "--out", "few")
    assert few.code == 2
    assert "29" in few.err
    assert not (place / "few").exists()

    unlike = preceptor(
        "label", "long.jsonl", *WORDS[2:], *url, "--certify", "0.9", "--gold", "gold.jsonl", "--out", "unlike"
    )
    assert unlike.code == 1, unlike.err
    told = json.loads((place / "unlike/manifest.json").read_text())
    assert told["certificate"]["granted"] is False
    assert "length" in told["certificate"]["reason"]
    assert told["rows"]["by_status"]["abstained"] == told["rows"]["out"] == 30
    assert told["rows"]["preferences"] == 0
    assert preceptor("verify", "unlike").code == 0

    audited = preceptor(
        "audit", "gold.jsonl", *WORDS[2:], *url, "--certify", "0.9", "--escalate-to", "openai/y", "--json"
    )
    assert audited.code == 0, audited.err
    figures = json.loads(audited.out)
    first = figures["certified"]["steps"][0]
    assert (first["n"], first["coverage"]) == (40, 1.0)
    assert first["when"] == f"confidence < {first['threshold']!r}"
    assert "no gold rows" in audited.err or figures["certified"]["refused"][0]["judge"] == "openai/y"


def test_what_cannot_be_certified_is_said_before_anybody_is_asked(place: Path, preceptor: Preceptor) -> None:
    for flags, word in (
        (("--certify", "0.9"), "--gold"),
        (("--gold", "gold.jsonl"), "--certify"),
        (("--certify", "0.9", "--gold", "gold.jsonl", "--groups", "all"), "--groups"),
        (
            ("--certify", "0.9", "--gold", "gold.jsonl", "--escalate-to", "openai/y", "--when", "margin < 1"),
            "--when",
        ),
    ):
        ended = preceptor(*WORDS, *flags, "--base-url", "http://127.0.0.1:9/v1", "--out", "out")
        assert ended.code == 2
        assert word in ended.err
    assert not (place / "out").exists()


@pytest.mark.usefixtures("place")
def test_a_win_rate_is_corrected_by_gold(
    preceptor: Preceptor, start_server: Callable[..., LLMServer]
) -> None:
    url = ("--base-url", start_server().url)
    words = ("evaluate", "--policy", "openai/p", "--baseline", "openai/b", "--judge", "openai/x", *url)
    more = ("--prompts", "everyday", "-c", "helpful-harmless", "--limit", "6", "--json")
    made = preceptor(*words, *more, "--gold", "gold.jsonl")
    assert made.code == 0, made.err
    found = json.loads(made.out)
    assert found["corrected"]["gold"] == 40
    assert found["corrected"]["judge_accuracy"] == 1.0
    assert found["corrected"]["win_rate"] == pytest.approx(found["win_rate"])
    unknown = json.loads(preceptor(*words, *more, "--gold", "wrong.jsonl").out)
    assert unknown["corrected"]["win_rate"] is None
    assert unknown["corrected"]["judge_accuracy"] == 0.0
    alone = preceptor(*words[:5], *url, "--probes", "--gold", "gold.jsonl")
    assert alone.code == 2
    assert "--gold" in alone.err


def test_a_second_order_is_asked_only_where_it_counts(
    place: Path, preceptor: Preceptor, start_server: Callable[..., LLMServer]
) -> None:
    server = start_server()
    url = ("--base-url", server.url)
    adaptive = (*WORDS, *url, "--certify", "0.9", "--gold", "gold.jsonl", "--adaptive")
    made = preceptor(*adaptive, "--out", "out")
    assert made.code == 0, made.err
    assert server.stats()["requests"] == 40 * 2 + 30, "gold in both orders, rows in one"
    manifest = json.loads((place / "out/manifest.json").read_text())
    assert (manifest["settings"]["adaptive"], manifest["settings"]["single"]) == (True, [0])
    assert (manifest["certificate"]["ways"], manifest["certificate"]["kept"]) == (2, 30)
    labels = [json.loads(line) for line in (place / "out/labels.jsonl").read_text().splitlines()]
    orders = [[one["order"] for one in label["judgements"]] for label in labels]
    assert {len(some) for some in orders} == {1}
    assert {some[0] for some in orders} == {"original", "swapped"}
    proved = preceptor("verify", "out")
    assert proved.code == 0, proved.out
    assert preceptor(*adaptive, "--out", "out").code == 0
    assert server.stats()["requests"] == 110
    look = preceptor("drift", "out", "--rows", "5", "--json")
    assert json.loads(look.out)["changed"] == 0.0
    assert server.stats()["requests"] == 115, "as the labels were asked"
    alone = preceptor(*WORDS, *url, "--adaptive", "--out", "other")
    assert alone.code == 2
    assert "--certify" in alone.err
