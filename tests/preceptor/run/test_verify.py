"""A folder proves itself: every byte is vouched for, and every row is derived from what it rests on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from preceptor.judge.dataset.label_folder import FILES
from preceptor.prompts.manifest import MANIFEST, SUMS, file_hash
from preceptor.run.verify import verify
from tests.command_line import Preceptor
from tests.preceptor.resealed import reseal
from tests.servers.llm import LLMServer, serve

LEDGER = ".preceptor/ledger.db"
PAIRS = [
    {
        "id": f"p{n}",
        "prompt": f"Say {n}",
        "response_a": f"yes quality={n % 5} {n}",
        "response_b": f"no {n} quality=2",
    }
    for n in range(10)
]
PANEL = """\
name: three
principles:
  - {id: one, text: Choose the better., weight: 2.0}
  - {id: two, text: Choose the kinder.}
  - {id: short, text: Choose the shorter., check: {max_words: 2}}
"""


@pytest.fixture
def labelled(preceptor: Preceptor) -> Iterator[Callable[..., Path]]:
    """A label folder that a server's judge has made, with its ledger here."""
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    Path("three.yaml").write_text(PANEL)
    with serve(LLMServer()) as server:

        def make(*flags: str, out: str = "out") -> Path:
            words = (
                "label",
                "pairs.jsonl",
                "-c",
                "three.yaml",
                "--judge",
                "openai/fake",
                "--base-url",
                server.url,
            )
            ended = preceptor(*words, *flags, "--out", out)
            assert ended.code == 0, ended.err
            return Path(out)

        yield make


def problems(path: Path, **how: Any) -> str:
    return "\n".join(verify(path, **how).problems)


WAYS = (
    (),
    ("--principles", "each"),
    ("--principles", "each", "--tie", "--judge", "openai/other"),
    ("--principles", "sample", "--draws", "2", "--judge", "openai/other", "--combine", "majority"),
    ("--escalate-to", "openai/other", "--when", "margin < 0.9"),
    ("--reasoning", "--clamp", "0.4,0.6"),
    ("--judge", "openai/other", "--combine", "dawid-skene"),
)


@pytest.mark.parametrize("flags", WAYS, ids=" ".join)
def test_what_a_command_makes_is_derived_just_so(
    labelled: Callable[..., Path], flags: tuple[str, ...]
) -> None:
    assert problems(labelled(*flags), ledger=LEDGER) == ""


def test_every_file_is_read_once_for_its_hash(
    labelled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = labelled()
    hashed: Counter[str] = Counter()

    def counted(path: Path) -> str:
        hashed[path.name] += 1
        return file_hash(path)

    monkeypatch.setattr("preceptor.run.verify.file_hash", counted)
    assert problems(out) == ""
    assert hashed == Counter(path.name for path in out.iterdir() if path.name != SUMS)


def test_rankings_are_derived_from_their_labels(labelled: Callable[..., Path]) -> None:
    rows = [{"prompt": f"Say {n}", "responses": [f"quality={k} {n}" for k in range(3)]} for n in range(3)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = labelled("--groups", "circular", "--principles", "each")
    assert problems(out, ledger=LEDGER) == ""
    changed = [json.loads(line) for line in (out / "rankings.jsonl").read_text().splitlines()]
    changed[0]["scores"] = changed[0]["scores"][::-1]
    (out / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    reseal(out)
    assert "its scores are not what its labels say" in problems(out)


def test_a_flipped_byte_anywhere_is_found(labelled: Callable[..., Path]) -> None:
    out = labelled("--principles", "each")
    names = sorted(path.name for path in out.iterdir())
    assert set(names) == {MANIFEST, SUMS} | {name for name in FILES if (out / name).exists()}
    for name in names:
        whole = (out / name).read_bytes()
        places = range(0, len(whole), max(1, len(whole) // 25))
        for at in {*places, len(whole) - 1}:
            (out / name).write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
            assert verify(out).problems, f"{name} at {at}"
        (out / name).write_bytes(whole[:-1])
        assert verify(out).problems, f"{name} without its last byte"
        (out / name).unlink()
        if name != MANIFEST:
            assert verify(out).problems, f"without {name}"
        (out / name).write_bytes(whole)
    assert problems(out) == ""


def inverted(row: dict[str, Any]) -> None:
    row["probability"] = 1 - row["probability"]


def with_judgements(row: dict[str, Any]) -> None:
    inverted(row)
    for one in row["judgements"]:
        one["probability"] = 1 - one["probability"]
        one["letter"] = {"a": "b", "b": "a", "tie": "tie"}[one["letter"]]


def with_orders(row: dict[str, Any]) -> None:
    with_judgements(row)
    for one in row["judgements"]:
        if one.get("call"):
            one["order"] = {"original": "swapped", "swapped": "original"}[one["order"]]


def other_reply(row: dict[str, Any]) -> None:
    row["response_a"] += " indeed"


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "inverted against its judgements": (inverted, "its judgements say"),
    "inverted with its judgements": (with_judgements, "is not what openai/fake replied"),
    "inverted with its orders": (with_orders, "did not ask about these replies"),
    "another reply": (other_reply, "did not ask about these replies"),
    "another judge": (lambda row: row.update(judge="openai/better"), "its judge is"),
    "another constitution": (lambda row: row.update(constitution="x@1#0"), "it was made under x@1#0"),
    "nothing left unjudged": (lambda row: row.update(unjudged=["one"]), "what it names as not judged"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_rows_that_do_not_follow_are_found_though_every_hash_holds(
    labelled: Callable[..., Path], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    """Preferences, audit and counts are made anew from the changed labels too, as by somebody who knows the format."""
    from preceptor.constitution.files import load
    from preceptor.judge.dataset.publish import LabelRun, publish

    out = labelled()
    manifest = json.loads((out / MANIFEST).read_text())
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    change(next(row for row in rows if row["status"] == "ok" and len(row["judgements"]) > 2))
    (out / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    publish(
        out,
        LabelRun(
            load("three.yaml"), manifest["judge"], manifest["settings"], len(rows), True, manifest["cost_usd"]
        ),
    )
    assert said in problems(out, ledger=LEDGER)


MISSING = [
    "command",
    "constitution",
    "constitution_content",
    "rows",
    "files",
    "audit",
    "settings",
    "schema",
    "cost_usd",
]


@pytest.mark.parametrize("fact", MISSING)
def test_a_missing_fact_is_an_error(labelled: Callable[..., Path], fact: str) -> None:
    out = labelled()
    reseal(out, lambda manifest: manifest.pop(fact))
    assert MANIFEST in problems(out)


@pytest.mark.parametrize(
    "manifest",
    [
        *(
            "",
            "{}",
            "[]",
            "null",
            "3",
            '"x"',
            "{",
            '{"files": {}}',
            "[" * 200_000,
            '{"a": ' + "9" * 10_000 + "}",
        ),
        '{"kind": "run", "stages": 3}',
        '{"kind": "run", "stages": [{}], "files": {"../../etc/passwd": "0"}}',
        '{"command": "label", "rows": [], "files": {"labels.jsonl": null}}',
        '{"kind": "dpo", "hashes": {}, "files": {"/etc/passwd": "0"}}',
        "\x00\xff",
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_manifest_is_a_finding(
    labelled: Callable[..., Path], manifest: str, preceptor: Preceptor
) -> None:
    out = labelled()
    (out / MANIFEST).write_bytes(manifest.encode("latin-1"))
    for _ in range(2):  # with the old hashes, and with SHA256SUMS made for it
        ended = preceptor("verify", out, "--json")
        assert ended.code == 1, ended.err
        assert json.loads(ended.out)["problems"]
        assert "Traceback" not in ended.err
        text = (out / SUMS).read_text().splitlines(keepends=True)
        from preceptor.prompts.manifest import sum_line

        own = sum_line(MANIFEST, file_hash(out / MANIFEST))
        (out / SUMS).write_text("".join(sorted([line for line in text if MANIFEST not in line] + [own])))


def test_what_is_no_plain_file_is_a_finding_and_never_waited_for(labelled: Callable[..., Path]) -> None:
    for name in ("card.md", SUMS, MANIFEST):
        out = labelled(out=f"out-{name}")
        (out / name).unlink()
        os.mkfifo(out / name)
        assert name in problems(out)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"SQLite format 3\x00" + b"\x00" * 4000])
def test_a_ledger_of_garbage_is_a_finding(labelled: Callable[..., Path], content: bytes) -> None:
    out = labelled()
    Path("bad.db").write_bytes(content)
    assert "bad.db" in problems(out, ledger="bad.db")


def test_a_reply_changed_in_the_ledger_is_found(labelled: Callable[..., Path]) -> None:
    out = labelled()
    with closing(sqlite3.connect(LEDGER)) as ledger, ledger:
        ledger.execute("UPDATE calls SET completion = replace(completion, 'Verdict: A', 'Verdict: B')")
    assert "is not what openai/fake replied" in problems(out, ledger=LEDGER)
    with closing(sqlite3.connect(LEDGER)) as ledger, ledger:
        ledger.execute("UPDATE calls SET request = replace(request, 'Say', 'Tell')")
    assert "is not of the request that stands there" in problems(out, ledger=LEDGER)
    with closing(sqlite3.connect(LEDGER)) as ledger, ledger:
        ledger.execute("DELETE FROM calls")
    assert "calls are not in the ledger" in problems(out, ledger=LEDGER)


def test_costs_that_no_call_has_are_found(labelled: Callable[..., Path]) -> None:
    out = labelled("--price", "1,1")
    assert problems(out, ledger=LEDGER) == ""
    reseal(out, lambda manifest: manifest.update(cost_usd=manifest["cost_usd"] + 1))
    assert "for calls that cost" in problems(out, ledger=LEDGER)


def test_it_reads_and_writes_nothing(labelled: Callable[..., Path]) -> None:
    """Neither beside the ledger nor anywhere: the folders are read-only, and nothing in them has changed."""

    def state() -> dict[str, int]:
        places = (*out.iterdir(), *Path(LEDGER).parent.iterdir())
        return {str(path): path.stat().st_mtime_ns for path in places}

    out = labelled()
    before = state()
    for place in (out, Path(LEDGER).parent):
        place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert problems(out, ledger=LEDGER) == ""
        assert state() == before
    finally:
        for place in (out, Path(LEDGER).parent):
            place.chmod(stat.S_IRWXU)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_a_signature_is_made_of_what_holds_and_checked(
    labelled: Callable[..., Path], preceptor: Preceptor
) -> None:
    for name in ("mine", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)
    out = labelled()
    assert "is missing; the folder is not signed" in problems(out, signed_by=Path("mine.pub"))
    assert preceptor("verify", out, "--sign", "none").code == 2
    assert preceptor("verify", out, "--sign", "mine").code == 0
    assert preceptor("verify", out, "--signed-by", "mine.pub").code == 0
    wrong = preceptor("verify", out, "--signed-by", "other.pub")
    assert (wrong.code, "SHA256SUMS.sig: is no signature" in wrong.out) == (1, True)
    assert preceptor("verify", out, "--signed-by", "mine").code == 2
    (out / "card.md").write_text("something else")
    manifest = json.loads((out / MANIFEST).read_text())
    signature = (out / "SHA256SUMS.sig").read_bytes()
    reseal(out)
    assert not (out / "SHA256SUMS.sig").exists()
    (out / "SHA256SUMS.sig").write_bytes(signature)
    assert "SHA256SUMS.sig: is no signature" in problems(out)
    assert manifest
    (out / "labels.jsonl").write_text("")
    assert preceptor("verify", out, "--sign", "mine").code == 1


def test_a_cost_that_nobody_can_have_paid_is_found_and_a_lower_one_is_told(
    labelled: Callable[..., Path],
) -> None:
    out = labelled("--price", "1000,2000")
    assert (problems(out, ledger=LEDGER), verify(out, ledger=LEDGER).notes) == ("", [])
    for usd in (-40.0, float("nan"), float("inf"), 1e9):
        reseal(out, lambda manifest, usd=usd: manifest.update(cost_usd=usd))  # type: ignore[misc]
        said = "for calls that cost $" if usd == 1e9 else "nothing costs that"
        assert said in problems(out, ledger=LEDGER)

    def for_nothing(manifest: dict[str, Any]) -> None:
        manifest["cost_usd"] = 0.0
        for name, value in manifest["audit"].items():
            if "usd" in name and value:
                manifest["audit"][name] = 0.0

    reseal(out, for_nothing)
    found = verify(out, ledger=LEDGER)
    assert found.problems == []
    assert "the rest was paid by other commands over the same ledger, or is not told" in found.notes[0]
